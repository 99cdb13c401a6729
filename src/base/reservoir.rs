//! A body that is taken in as it comes, up to a bound, whether anybody reads it yet or not.
//!
//! On an HTTP/2 connection what is not read is everybody's trouble: h2 counts small unread DATA frames against the whole
//! connection and ends it, with all its streams, when there are too many. So the task of a stream takes its body in
//! while the request waits for authentication or for an upstream; small frames are joined. What is over the bound stays
//! in the sender's flow-control window, as it should.
//!
//! A body that nobody will read any more is taken in for a while all the same, and thrown away: a stream that is reset
//! while its client still sends may cost that client its answer, which many look for only when they have sent all.

use super::body::BodyError;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Bytes that one body may hold; one frame may go over it.
pub const RESERVOIR_BYTES: usize = 64 << 10;
/// Pieces up to this size are joined with the one before.
const SMALL: usize = 4 << 10;

/// The reader's end.
#[derive(Debug)]
pub struct Reservoir(Arc<Mutex<State>>);

/// The end that takes in. Whoever has it polls it; whoever drops it gives the body up.
#[derive(Debug)]
pub struct Inlet<B> {
    source: Option<B>,
    /// Bytes that may still be thrown away.
    waste: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    /// The last piece, still growing; comes after `pieces`.
    growing: BytesMut,
    /// Bytes of both.
    held: usize,
    trailers: Option<http::HeaderMap>,
    ended: Option<Result<(), BodyError>>,
    /// Bytes that are still to come out, when that is known.
    left: Option<u64>,
    reader: Option<Waker>,
    inlet: Option<Waker>,
    /// Nobody will read any more.
    abandoned: bool,
}

/// Puts a reservoir between a body and its reader. Once the reader has gone, `waste` bytes more are taken in.
pub fn reservoir<B: HttpBody<Data = Bytes>>(source: B, waste: usize) -> (Inlet<B>, Reservoir) {
    let state = State {
        left: source.size_hint().exact(),
        ..State::default()
    };
    let state = Arc::new(Mutex::new(state));
    let inlet = Inlet {
        source: Some(source),
        waste,
        state: state.clone(),
    };
    (inlet, Reservoir(state))
}

impl<B: HttpBody<Data = Bytes> + Unpin> Inlet<B> {
    /// Takes in what there is and room for. Ready when nothing more is to be taken in: the body has ended, or its reader
    /// has gone and more came than may be thrown away. The source is dropped then.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        error: impl Fn(B::Error) -> BodyError,
    ) -> Poll<()> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(());
        };
        let mut state = self.state.lock();
        let done = loop {
            if state.held >= RESERVOIR_BYTES {
                state.inlet = Some(cx.waker().clone());
                break false;
            }
            match Pin::new(&mut *source).poll_frame(cx) {
                Poll::Pending => {
                    // The reader may go away while nothing comes.
                    state.inlet = Some(cx.waker().clone());
                    break false;
                }
                Poll::Ready(None) => {
                    state.end(Ok(()));
                    break true;
                }
                Poll::Ready(Some(Err(why))) => {
                    state.end(Err(error(why)));
                    break true;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if state.abandoned => match self.waste.checked_sub(data.len()) {
                        Some(left) => self.waste = left,
                        None => break true,
                    },
                    Ok(data) => state.take_in(data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers()
                            && !state.abandoned
                        {
                            state.trailers = Some(trailers);
                        }
                    }
                },
            }
        };
        if done {
            self.source = None;
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Whether somebody may still read. Whoever polled last is woken when nobody will any more.
    pub fn has_reader(&self) -> bool {
        !self.state.lock().abandoned
    }
}

impl<B> Drop for Inlet<B> {
    fn drop(&mut self) {
        // Whoever still waits must not wait for ever.
        let mut state = self.state.lock();
        if state.ended.is_none() {
            state.end(Err(BodyError::Abandoned));
        }
    }
}

impl State {
    fn take_in(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        self.held += data.len();
        if data.len() <= SMALL {
            self.growing.extend_from_slice(&data);
        } else {
            if !self.growing.is_empty() {
                let grown = self.growing.split().freeze();
                self.pieces.push_back(grown);
            }
            self.pieces.push_back(data);
        }
        self.wake_reader();
    }

    fn end(&mut self, how: Result<(), BodyError>) {
        self.ended = Some(how);
        self.wake_reader();
    }

    fn wake_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    fn take_out(&mut self) -> Option<Bytes> {
        let piece = match self.pieces.pop_front() {
            Some(piece) => piece,
            None if self.growing.is_empty() => return None,
            None => self.growing.split().freeze(),
        };
        self.held -= piece.len();
        self.left = self
            .left
            .map(|left| left.saturating_sub(piece.len() as u64));
        if let Some(inlet) = self.inlet.take() {
            inlet.wake();
        }
        Some(piece)
    }
}

impl HttpBody for Reservoir {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.0.lock();
        if let Some(piece) = state.take_out() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match state.ended.take() {
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(Err(error)) => {
                state.ended = Some(Ok(()));
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(())) => {
                state.ended = Some(Ok(()));
                let trailers = state.trailers.take();
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = self.0.lock();
        state.held == 0 && state.trailers.is_none() && matches!(state.ended, Some(Ok(())))
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        match state.left {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Reservoir {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.abandoned = true;
        state.pieces.clear();
        state.growing = BytesMut::new();
        state.held = 0;
        if let Some(inlet) = state.inlet.take() {
            inlet.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::convert::Infallible;

    /// A source that gives what is put into it.
    #[derive(Default, Clone)]
    struct Tap(Arc<Mutex<(VecDeque<Frame<Bytes>>, bool)>>);

    impl Tap {
        fn put(&self, bytes: impl Into<Bytes>) {
            self.0.lock().0.push_back(Frame::data(bytes.into()));
        }
        fn close(&self) {
            self.0.lock().1 = true;
        }
        fn left(&self) -> usize {
            self.0.lock().0.len()
        }
    }

    impl HttpBody for Tap {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let mut this = self.0.lock();
            match this.0.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(frame))),
                None if this.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    const WASTE: usize = 10;

    fn poll(inlet: &mut Inlet<Tap>) -> Poll<()> {
        let mut cx = Context::from_waker(Waker::noop());
        inlet.poll(&mut cx, |never| match never {})
    }

    #[tokio::test]
    async fn small_pieces_are_taken_in_and_joined_while_nobody_reads() {
        let tap = Tap::default();
        let (mut inlet, reader) = reservoir(tap.clone(), WASTE);
        (0..3000).for_each(|_| tap.put("x"));
        assert!(poll(&mut inlet).is_pending());
        assert_eq!(tap.left(), 0);
        tap.close();
        assert!(poll(&mut inlet).is_ready());
        let mut reader = reader;
        let first = reader.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), 3000);
        assert!(reader.is_end_stream());
    }

    #[tokio::test]
    async fn what_is_over_the_bound_stays_with_the_sender_until_somebody_reads() {
        let tap = Tap::default();
        let (mut inlet, mut reader) = reservoir(tap.clone(), WASTE);
        (0..10).for_each(|_| tap.put(vec![0; 32 << 10]));
        assert!(poll(&mut inlet).is_pending());
        assert_eq!(tap.left(), 8);
        reader.frame().await.unwrap().unwrap();
        assert!(poll(&mut inlet).is_pending());
        assert_eq!(tap.left(), 7);
    }

    #[tokio::test]
    async fn order_and_trailers_are_kept() {
        let tap = Tap::default();
        let (mut inlet, reader) = reservoir(tap.clone(), WASTE);
        let big = vec![b'b'; SMALL + 1];
        tap.put("a");
        tap.put(big.clone());
        tap.put("c");
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        tap.0.lock().0.push_back(Frame::trailers(trailers.clone()));
        tap.close();
        assert!(poll(&mut inlet).is_ready());
        assert!(!reader.is_end_stream());
        let collected = reader.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes(), [b"a", &big[..], b"c"].concat());
    }

    #[tokio::test]
    async fn an_inlet_that_goes_away_ends_the_body_with_an_error() {
        let tap = Tap::default();
        let (mut inlet, mut reader) = reservoir(tap.clone(), WASTE);
        tap.put("half");
        assert!(poll(&mut inlet).is_pending());
        drop(inlet);
        assert!(reader.frame().await.unwrap().is_ok());
        assert!(reader.frame().await.unwrap().is_err());
    }

    #[test]
    fn what_comes_after_its_reader_has_gone_is_thrown_away_to_its_end() {
        let tap = Tap::default();
        let (mut inlet, reader) = reservoir(tap.clone(), WASTE);
        tap.put(vec![0; RESERVOIR_BYTES]);
        assert!(poll(&mut inlet).is_pending());
        assert!(inlet.has_reader());
        drop(reader);
        assert!(!inlet.has_reader());
        tap.put(vec![0; WASTE - 1]);
        tap.put("x");
        assert!(poll(&mut inlet).is_pending());
        assert_eq!((tap.left(), inlet.state.lock().held), (0, 0));
        tap.close();
        assert!(poll(&mut inlet).is_ready());
    }

    #[test]
    fn more_than_may_be_thrown_away_ends_it() {
        let tap = Tap::default();
        let (mut inlet, reader) = reservoir(tap.clone(), WASTE);
        drop(reader);
        for piece in [WASTE, 1, 1] {
            tap.put(vec![0; piece]);
        }
        assert!(poll(&mut inlet).is_ready());
        assert!(inlet.source.is_none());
        assert_eq!(tap.left(), 1);
    }
}
