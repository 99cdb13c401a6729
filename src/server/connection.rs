//! One client connection: hyper's HTTP/1.1 over an I/O wrapper that keeps the deadlines which hyper does not.

use crate::base::pieces;
use crate::config::server::Server;
use crate::gateway::{Connection, Gateway, LINGER_BYTES, Pulse};
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// While draining, a connection that was accepted but has sent nothing is told to end after this.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How connections of this server speak.
#[derive(Clone, Debug)]
pub(super) struct Http1(http1::Builder);

impl Http1 {
    /// hyper's own limits stand above ours, so that most refusals can be explained.
    pub(super) fn new(server: &Server) -> Self {
        let head = server.max_header_bytes + server.max_uri_bytes + 16 * 1024;
        let mut builder = http1::Builder::new();
        builder.half_close(false).max_buf_size(head.max(64 * 1024));
        // hyper parses up to 100 fields without touching the heap.
        if server.max_headers > 100 {
            builder.max_headers(server.max_headers + 28);
        }
        Self(builder)
    }

    /// Serves one connection to its end. `true` when the parser refused what came.
    pub(super) async fn serve<S>(
        self,
        stream: S,
        gateway: Arc<Gateway>,
        connection: Arc<Connection>,
        draining: Arc<AtomicBool>,
    ) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = connection.pulse.clone();
        let io = TokioIo::new(Paced {
            stream,
            pulse: pulse.clone(),
            lingering: None,
        });
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // Mapped, not awaited in a block of its own, which would hold the future twice.
            let answer = gateway.clone().handle(request, connection.clone());
            answer.map(Ok::<_, Infallible>)
        });
        let mut serving = pin!(self.0.serve_connection(io, service));
        let accepted = Instant::now();
        let mut told = false;
        let result = poll_fn(|cx| {
            let mut done = serving.as_mut().poll(cx);
            // hyper closes a connection without a request at once; one that has just come gets the time to send its own.
            if done.is_pending()
                && !told
                && draining.load(Ordering::Relaxed)
                && (pulse.has_served() || accepted.elapsed() > FIRST_REQUEST)
            {
                told = true;
                serving.as_mut().graceful_shutdown();
                done = serving.as_mut().poll(cx);
            }
            done
        })
        .await;
        match result {
            Ok(()) => false,
            Err(error) => {
                tracing::trace!(error = &error as &dyn std::error::Error, "connection ended");
                error.is_parse() || error.is_parse_too_large()
            }
        }
    }
}

/// A stream that ends when its client is too slow.
struct Paced<S> {
    stream: S,
    pulse: Arc<Pulse>,
    /// Our side is shut; so many bytes of the client's are still read and thrown away.
    lingering: Option<usize>,
}

fn too_slow() -> io::Error {
    io::Error::from(io::ErrorKind::TimedOut)
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                if buffer.filled().len() > before {
                    self.pulse.bytes_came();
                }
                // Bytes that drip in must not put the head's deadline off.
                if self.pulse.read_has_passed() {
                    Poll::Ready(Err(too_slow()))
                } else {
                    Poll::Ready(Ok(()))
                }
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending if self.pulse.read.poll_passed(cx) => Poll::Ready(Err(too_slow())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> Paced<S> {
    fn written<T>(&self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match result {
            Poll::Pending => {
                self.pulse.write_stalled();
                if self.pulse.write.poll_passed(cx) {
                    Poll::Ready(Err(too_slow()))
                } else {
                    Poll::Pending
                }
            }
            ready => {
                self.pulse.write_moved();
                ready
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = pieces::poll_write(&mut self.stream, cx, slices);
        self.written(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(cx);
        self.written(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if !self.pulse.lingers() {
                return Poll::Ready(Ok(()));
            }
            self.lingering = Some(LINGER_BYTES);
        }
        self.poll_linger(cx)
    }
}

impl<S: AsyncRead + Unpin> Paced<S> {
    /// A socket that is closed with unread data resets the connection, and the client may never read why its upload was
    /// refused. So what it still sends is read for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; 8192];
        while let Some(left) = self.lingering.filter(|left| *left > 0) {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.lingering = Some(left.saturating_sub(buffer.filled().len()));
                }
                Poll::Ready(_) => break,
                Poll::Pending if self.pulse.read.poll_passed(cx) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}
