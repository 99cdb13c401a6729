//! Counts the frames of an HTTP/2 client that carry no request (RFC 9113 §10.5): h2 bounds what it keeps of them, but
//! reads and answers them as fast as they come. Looks at the heads of frames alone (§4.1).

use crate::base::deadline::Deadline;
use crate::gateway::Pulse;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Such frames within a second. Clients that measure their bandwidth send a PING for each round trip, which on a fast
/// network are hundreds; nothing honest sends a thousand.
const IDLE_FRAMES_MAX: u32 = 1000;

const HEAD: usize = 9;
/// What a client says first (RFC 9113 §3.4).
const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Follows what one client sends.
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD],
    /// Bytes of `head` that are there.
    have: usize,
    /// Payload that is still to come.
    skip: usize,
    /// Frames without a request in this second.
    count: u32,
    second: u64,
    /// The preface and the head of a first frame have come.
    greeted: bool,
    /// The head of a request has begun, and its last frame has not.
    head_open: bool,
}

impl Frames {
    fn new() -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            skip: PREFACE,
            count: 0,
            second: 0,
            greeted: false,
            head_open: false,
        }
    }

    /// These bytes came in this second. `false`: too many frames that carry nothing.
    fn pass(&mut self, mut bytes: &[u8], second: u64) -> bool {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let part = self.skip.min(bytes.len());
                self.skip -= part;
                bytes = &bytes[part..];
                continue;
            }
            let part = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
            self.have += part;
            bytes = &bytes[part..];
            if self.have == HEAD {
                self.have = 0;
                self.greeted = true;
                let [a, b, c, kind, flags, ..] = self.head;
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                if matches!(kind, HEADERS | CONTINUATION) {
                    self.head_open = flags & END_HEADERS == 0;
                }
                if self.is_idle(kind, flags) {
                    if std::mem::replace(&mut self.second, second) != second {
                        self.count = 0;
                    }
                    self.count += 1;
                    if self.count > IDLE_FRAMES_MAX {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Whether a request's head has come in part (RFC 9113 §4.3): nothing else can come before its rest.
    fn is_in_a_head(&self) -> bool {
        self.head_open || (self.skip > 0 && matches!(self.head[3], HEADERS | CONTINUATION))
    }

    /// Everything but requests, their bodies and their flow: PING, SETTINGS, PRIORITY, CONTINUATION, DATA of no bytes,
    /// what nobody knows. Streams that are reset are counted where they end.
    fn is_idle(&self, kind: u8, flags: u8) -> bool {
        match kind {
            DATA => self.skip == 0 && flags & END_STREAM == 0,
            HEADERS | RST_STREAM | WINDOW_UPDATE => false,
            _ => true,
        }
    }
}

/// A client's connection whose frames are counted.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    frames: Frames,
    pulse: Arc<Pulse>,
    /// For the rest of a head.
    head: Deadline,
    in_a_head: bool,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, pulse: Arc<Pulse>) -> Self {
        Self {
            stream,
            frames: Frames::new(),
            head: pulse.sweeper().deadline(),
            in_a_head: false,
            pulse,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_pending() && self.in_a_head && self.head.poll_passed(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(read)?;
        let second = self.pulse.sweeper().coarse_millis() / 1000;
        let greeted = self.frames.greeted;
        if self.frames.pass(&buffer.filled()[before..], second) {
            if self.frames.greeted != greeted {
                self.pulse.greeted();
            }
            let in_a_head = self.frames.is_in_a_head();
            if std::mem::replace(&mut self.in_a_head, in_a_head) != in_a_head {
                if in_a_head {
                    self.head.arm(self.pulse.pace.head);
                } else {
                    self.head.disarm();
                }
            } else if in_a_head && self.head.has_passed() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Ready(Ok(()));
        }
        let error = "too many frames that carry no request";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
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
    use proptest::prelude::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + payload, 6);
        frame
    }

    fn started() -> Frames {
        let mut frames = Frames::new();
        assert!(frames.pass(&[b'P'; PREFACE], 0));
        frames
    }

    #[test]
    fn a_flood_is_noticed_and_the_same_number_over_time_is_not() {
        let check = |kind, flags, payload, idle: bool| {
            let mut frames = started();
            let frame = frame(kind, flags, payload);
            let flood = frame.repeat(IDLE_FRAMES_MAX as usize);
            for second in 1..5 {
                assert!(frames.pass(&flood, second), "{kind} {payload}");
            }
            assert_eq!(!frames.pass(&frame, 4), idle, "{kind} {payload}");
        };
        check(6, 0, 8, true); // PING
        check(4, 0, 6, true); // SETTINGS
        check(2, 0, 5, true); // PRIORITY
        check(9, 0, 1, true); // CONTINUATION
        check(DATA, 0, 0, true);
        check(200, 0, 3, true);
        check(DATA, END_STREAM, 0, false);
        check(DATA, 0, 1, false);
        check(HEADERS, 4, 20, false);
        check(WINDOW_UPDATE, 0, 4, false);
    }

    #[test]
    fn a_head_is_open_until_its_last_frame_is_whole() {
        let mut frames = started();
        let check = |frames: &mut Frames, bytes: &[u8], open: bool| {
            assert!(frames.pass(bytes, 0));
            assert_eq!(frames.is_in_a_head(), open);
        };
        check(&mut frames, &frame(4, 0, 6), false);
        let whole = frame(HEADERS, END_HEADERS, 20);
        check(&mut frames, &whole[..HEAD + 5], true);
        check(&mut frames, &whole[HEAD + 5..], false);
        check(&mut frames, &frame(HEADERS, 0, 20), true);
        check(&mut frames, &frame(CONTINUATION, 0, 20), true);
        check(&mut frames, &frame(CONTINUATION, END_HEADERS, 20), false);
        check(&mut frames, &frame(DATA, 0, 20)[..HEAD + 1], false);
    }

    proptest! {
        #[test]
        fn frames_are_counted_however_the_bytes_are_cut(
            payloads in prop::collection::vec(0_usize..300, 1..40),
            cuts in prop::collection::vec(1_usize..50, 1..10),
        ) {
            let bytes = payloads.iter().flat_map(|payload| frame(6, 0, *payload)).collect::<Vec<_>>();
            let (mut frames, mut rest) = (started(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at((*cut).min(rest.len()));
                prop_assert!(frames.pass(part, 0));
                rest = after;
            }
            prop_assert_eq!(frames.count as usize, payloads.len());
            prop_assert_eq!((frames.have, frames.skip), (0, 0));
        }
    }
}
