//! Writing a message that comes in pieces, a head and the first of its body, with the cheapest system call.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// Bytes that are copied to be written as one piece. The kernel takes one piece (`send`) for about 0.2 µs less than a list
/// of pieces (`writev`); copying more than this would eat that up.
const TOGETHER_MAX: usize = 4096;

/// Writes as [`AsyncWrite::poll_write_vectored`] does, one piece or several short ones as a single piece.
pub fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [piece] = pieces {
        return stream.poll_write(cx, piece);
    }
    let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
    if bytes > TOGETHER_MAX {
        return stream.poll_write_vectored(cx, pieces);
    }
    // Allocated, because clearing so much of the stack costs more.
    let mut all = Vec::with_capacity(bytes);
    for piece in pieces {
        all.extend_from_slice(piece);
    }
    stream.poll_write(cx, &all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// What was written, and whether as a list.
    #[derive(Default)]
    struct Recorder(Vec<(Vec<u8>, bool)>);

    impl AsyncWrite for Recorder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.0.push((bytes.to_vec(), false));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = pieces.iter().flat_map(|piece| piece.to_vec()).collect();
            let written = bytes.len();
            self.0.push((bytes, true));
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn short_pieces_are_one_write_and_long_ones_are_not_copied() {
        let check = |lengths: &[usize], as_a_list: bool| {
            let pieces: Vec<Vec<u8>> = (1..).zip(lengths).map(|(n, len)| vec![n; *len]).collect();
            let slices: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
            let mut recorder = Recorder::default();
            let mut cx = Context::from_waker(Waker::noop());
            let written = poll_write(&mut recorder, &mut cx, &slices);
            assert!(matches!(written, Poll::Ready(Ok(n)) if n == pieces.concat().len()));
            assert_eq!(recorder.0, [(pieces.concat(), as_a_list)], "{lengths:?}");
        };
        check(&[5], false);
        check(&[TOGETHER_MAX + 1], false);
        check(&[5, 7, 0, 9], false);
        check(&[TOGETHER_MAX - 1, 1], false);
        check(&[TOGETHER_MAX, 1], true);
        check(&[], false);
    }
}
