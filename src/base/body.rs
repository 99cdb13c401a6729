//! The one `Body`: empty, full, streamed, limited, watched. Every message that passes the gateway carries it,
//! in both directions, so that whoever counts bytes, keeps a deadline or gives a connection back when the body
//! ends does it in one place.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// More bytes than the limit allows.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Nothing, or too little, came in time.
    #[error("the body came too slowly")]
    Stalled,
    /// The sender ended it early or broke the framing.
    #[error("the body was cut short")]
    Cut(#[source] hyper::Error),
    /// Its connection or stream is gone.
    #[error("the body's stream was given up")]
    Abandoned,
    /// Its reader may have no more of it.
    #[error("the body was withdrawn")]
    Withdrawn,
}

/// What a reader gets in the place of an error that somebody who looks on has ended the body with.
#[derive(Debug)]
pub enum Ending {
    /// An end as after the last byte.
    Whole,
    /// These trailers, and the end.
    Trailers(http::HeaderMap),
}

/// How a body went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// To its last byte.
    Whole,
    /// An error ended it.
    Failed,
    /// Its reader went away before the end.
    Dropped,
}

/// Somebody who looks at a body as it passes.
pub trait Watch: Send {
    /// `bytes` of data go by; an error ends the body.
    fn data(&mut self, bytes: usize) -> Result<(), BodyError> {
        let _ = bytes;
        Ok(())
    }

    /// There is nothing to hand on now. May arrange for a wake-up; an error ends the body.
    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        let _ = cx;
        Ok(())
    }

    /// Trailers go by; may remove fields.
    fn trailers(&mut self, trailers: &mut http::HeaderMap) {
        let _ = trailers;
    }

    /// The body ends with this error. What its reader gets instead; `None`: the error.
    fn instead(&mut self, error: &BodyError) -> Option<Ending> {
        let _ = error;
        None
    }

    /// The body is over. Called exactly once.
    fn end(self: Box<Self>, how: End);
}

/// A message body.
#[derive(Default)]
pub struct Body {
    kind: Kind,
    /// Bytes that may still pass; `None` is no limit.
    left: Option<u64>,
    limit: u64,
    /// The largest piece that is handed on; 0: as they come.
    piece: usize,
    /// What is left of a larger one.
    rest: Bytes,
    watches: [Option<Box<dyn Watch>>; 2],
}

#[derive(Default)]
enum Kind {
    #[default]
    Empty,
    Full(Bytes),
    Incoming(Incoming),
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("size", &self.size_hint())
            .finish_non_exhaustive()
    }
}

impl Body {
    /// No bytes at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// These bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::of(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Full(bytes)
        })
    }

    /// What arrives on a connection.
    pub fn incoming(body: Incoming) -> Self {
        Self::of(if body.is_end_stream() {
            Kind::Empty
        } else {
            Kind::Incoming(body)
        })
    }

    /// Any other source.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self::of(Kind::Stream(Box::pin(body)))
    }

    /// Ends with [`BodyError::TooLarge`] when more than `limit` bytes come.
    #[must_use]
    pub fn limited(mut self, limit: u64) -> Self {
        self.left = Some(limit);
        self.limit = limit;
        self
    }

    /// Is handed on in pieces of at most `bytes`.
    #[must_use]
    pub fn in_pieces(mut self, bytes: usize) -> Self {
        self.piece = bytes;
        self
    }

    /// Has `watch` look on. Two look on at no cost; more are stacked.
    #[must_use]
    pub fn watched(mut self, watch: Box<dyn Watch>) -> Self {
        if self.watches[0].is_none() {
            self.watches[0] = Some(watch);
            self
        } else if self.watches[1].is_none() {
            self.watches[1] = Some(watch);
            self
        } else {
            Self::stream(self).watched(watch)
        }
    }

    fn of(kind: Kind) -> Self {
        Self {
            kind,
            left: None,
            limit: 0,
            piece: 0,
            rest: Bytes::new(),
            watches: [None, None],
        }
    }

    fn end(&mut self, how: End) {
        for watch in &mut self.watches {
            if let Some(watch) = watch.take() {
                watch.end(how);
            }
        }
    }

    fn fail(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.kind = Kind::Empty;
        self.rest = Bytes::new();
        let mut watches = self.watches.iter_mut().flatten();
        let instead = watches.find_map(|watch| watch.instead(&error));
        self.end(End::Failed);
        Poll::Ready(match instead {
            None => Some(Err(error)),
            Some(Ending::Whole) => None,
            Some(Ending::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let next = match &mut this.kind {
            _ if !this.rest.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
            }
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Cut),
            Kind::Stream(body) => body.as_mut().poll_frame(cx),
        };
        match next {
            Poll::Pending => {
                for at in 0..this.watches.len() {
                    if let Some(watch) = &mut this.watches[at]
                        && let Err(error) = watch.pending(cx)
                    {
                        return this.fail(error);
                    }
                }
                Poll::Pending
            }
            Poll::Ready(None) => {
                this.end(End::Whole);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => this.fail(error),
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(data) = frame.data_mut().filter(|_| this.piece > 0)
                    && data.len() > this.piece
                {
                    this.rest = data.split_off(this.piece);
                }
                if let Some(data) = frame.data_ref() {
                    let bytes = data.len();
                    if let Some(left) = this.left {
                        match left.checked_sub(bytes as u64) {
                            Some(rest) => this.left = Some(rest),
                            None => return this.fail(BodyError::TooLarge { limit: this.limit }),
                        }
                    }
                    for at in 0..this.watches.len() {
                        if let Some(watch) = &mut this.watches[at]
                            && let Err(error) = watch.data(bytes)
                        {
                            return this.fail(error);
                        }
                    }
                } else if let Some(trailers) = frame.trailers_mut() {
                    for watch in this.watches.iter_mut().flatten() {
                        watch.trailers(trailers);
                    }
                }
                if matches!(this.kind, Kind::Full(_)) {
                    this.kind = Kind::Empty;
                }
                // The last frame is known to be the last: what waits for the end need not wait for the reader.
                if this.is_end_stream() {
                    this.end(End::Whole);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if !self.rest.is_empty() {
            return false;
        }
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Stream(body) => body.size_hint(),
        };
        if !self.rest.is_empty() {
            let rest = self.rest.len() as u64;
            // In this order: the lower bound may never stand above the upper one.
            if let Some(upper) = hint.upper() {
                hint.set_upper(upper + rest);
            }
            hint.set_lower(hint.lower() + rest);
        }
        hint
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // hyper does not poll a body that says it has ended: that one was whole.
        let how = if self.is_end_stream() {
            End::Whole
        } else {
            End::Dropped
        };
        self.end(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<(usize, Vec<End>)>>);

    impl Watch for Log {
        fn data(&mut self, bytes: usize) -> Result<(), BodyError> {
            self.0.lock().0 += bytes;
            Ok(())
        }
        fn end(self: Box<Self>, how: End) {
            self.0.lock().1.push(how);
        }
    }

    #[tokio::test]
    async fn every_watch_sees_the_bytes_and_one_end() {
        let logs = [Log::default(), Log::default(), Log::default()];
        let mut body = Body::full("hello");
        for log in &logs {
            body = body.watched(Box::new(log.clone()));
        }
        assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
        for log in &logs {
            assert_eq!(*log.0.lock(), (5, vec![End::Whole]));
        }
    }

    #[tokio::test]
    async fn a_body_over_its_limit_fails_and_says_so_once() {
        let log = Log::default();
        let body = Body::full("hello")
            .limited(4)
            .watched(Box::new(log.clone()));
        let error = body.collect().await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { limit: 4 }));
        assert_eq!(log.0.lock().1, vec![End::Failed]);
        assert!(Body::full("hello").limited(5).collect().await.is_ok());
    }

    #[tokio::test]
    async fn a_large_piece_is_handed_on_in_small_ones_and_every_watch_sees_each() {
        let log = Log::default();
        let mut body = Body::full("abcdefgh")
            .watched(Box::new(log.clone()))
            .in_pieces(3);
        let mut pieces = Vec::new();
        for left in [8, 5, 2] {
            assert_eq!(body.size_hint().exact(), Some(left));
            assert!(!body.is_end_stream());
            let frame = body.frame().await.unwrap().unwrap();
            pieces.push(frame.into_data().unwrap());
        }
        assert_eq!(pieces, ["abc", "def", "gh"]);
        assert!(body.is_end_stream());
        assert_eq!(*log.0.lock(), (8, vec![End::Whole]));
        let log = Log::default();
        let mut cut = Body::full("abcdefgh")
            .watched(Box::new(log.clone()))
            .in_pieces(3);
        cut.frame().await.unwrap().unwrap();
        drop(cut);
        assert_eq!(*log.0.lock(), (3, vec![End::Dropped]));
    }

    /// Lets so many pieces pass, and then ends the body like this.
    struct Withdraws(usize, Option<Ending>);

    impl Watch for Withdraws {
        fn data(&mut self, _bytes: usize) -> Result<(), BodyError> {
            match self.0.checked_sub(1) {
                Some(left) => self.0 = left,
                None => return Err(BodyError::Withdrawn),
            }
            Ok(())
        }
        fn instead(&mut self, error: &BodyError) -> Option<Ending> {
            assert!(matches!(error, BodyError::Withdrawn));
            self.1.take()
        }
        fn end(self: Box<Self>, _how: End) {}
    }

    #[tokio::test]
    async fn who_ends_a_body_says_what_its_reader_gets_and_everybody_else_that_it_failed() {
        let withdrawn = |ending| {
            let log = Log::default();
            let body = Body::full("abcdef")
                .watched(Box::new(log.clone()))
                .watched(Box::new(Withdraws(1, ending)))
                .in_pieces(3);
            (body, log)
        };
        let (mut body, log) = withdrawn(None);
        assert!(body.frame().await.unwrap().is_ok());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Withdrawn));
        assert_eq!(log.0.lock().1, vec![End::Failed]);
        let (body, log) = withdrawn(Some(Ending::Whole));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
        assert_eq!(log.0.lock().1, vec![End::Failed]);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("16"));
        let (body, log) = withdrawn(Some(Ending::Trailers(trailers.clone())));
        let whole = body.collect().await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers));
        assert_eq!(whole.to_bytes(), "abc");
        assert_eq!(log.0.lock().1, vec![End::Failed]);
    }

    #[test]
    fn a_body_nobody_reads_ends_as_dropped_and_an_empty_one_as_whole() {
        let log = Log::default();
        drop(Body::full("hello").watched(Box::new(log.clone())));
        drop(Body::empty().watched(Box::new(log.clone())));
        assert_eq!(log.0.lock().1, vec![End::Dropped, End::Whole]);
    }
}
