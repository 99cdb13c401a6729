//! Reads in turns, for connections whose requests are tasks of their own. h2 works off whatever its socket has ready in
//! one go; without a pause in between, no stream would get to take in what has come for it, and h2 would end the
//! connection for frames that nobody had the time to read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes after which the streams have their turn. h2 lets frames that are not read yet cost half of the connection's
/// window, and the smallest, ten bytes on the wire, counts as 255: this and one read more stay below it.
const TURN: usize = 2 << 10;

/// A stream that pauses.
#[derive(Debug)]
pub(super) struct Turns<S> {
    stream: S,
    /// Bytes that came since the last pause.
    came: usize,
}

impl<S> Turns<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, came: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Turns<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.came >= TURN {
            self.came = 0;
            // To the end of the worker's queue: the streams that were woken stand before us.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.came += buffer.filled().len() - before;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Turns<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;

    #[test]
    fn after_some_bytes_others_have_a_turn_and_nothing_is_lost() {
        let bytes: Vec<u8> = (0..10_000).map(|at| (at % 251) as u8).collect();
        let mut turns = Turns::new(&bytes[..]);
        let waker = noop_waker();
        let mut cx = Context::from_waker(&waker);
        let (mut whole, mut pauses) = (Vec::new(), 0);
        let mut space = [0; 1000];
        while whole.len() < bytes.len() {
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut turns).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(read) => {
                    read.unwrap();
                    whole.extend_from_slice(buffer.filled());
                }
                Poll::Pending => pauses += 1,
            }
        }
        assert_eq!((whole, pauses), (bytes, 3));
    }
}
