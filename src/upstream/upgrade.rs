//! A connection that has stopped speaking HTTP (RFC 9110 §7.8): two halves and one copy loop. WebSocket frames are counted
//! on their way to the client, so that a close frame of ours can be said between two of the upstream's.

use super::frames::{self, Frames};
use crate::base::deadline::Deadline;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes on their way, for each direction.
const BUFFER: usize = 16 << 10;
/// How long a side may go on after the other has ended or was told to, without sending anything.
const LINGER: Duration = Duration::from_secs(5);

/// Why a tunnel is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// WebSocket close code (RFC 6455 §7.4).
    pub code: u16,
    /// A few words for a developer; at most 123 bytes.
    pub reason: &'static str,
}

/// The gateway stops (RFC 6455 §7.4.1, 1001).
pub const GOING_AWAY: Farewell = Farewell {
    code: 1001,
    reason: "the gateway is going away",
};

/// What went through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Bytes from the client to the upstream.
    pub up: u64,
    /// Bytes from the upstream to the client.
    pub down: u64,
}

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// WebSocket: frames.
    WebSocket,
    /// Something else: bytes.
    Opaque,
}

/// One direction.
struct Half {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The sender has no more to say.
    ended: bool,
    /// The receiver was told so.
    shut: bool,
    /// Something waits in the receiver's own buffer.
    unflushed: bool,
    passed: u64,
}

impl Half {
    fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            ended: false,
            shut: false,
            unflushed: false,
            passed: 0,
        }
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn poll_fill(
        &mut self,
        from: Pin<&mut (impl AsyncRead + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = ReadBuf::new(&mut self.buffer);
        ready!(from.poll_read(cx, &mut space))?;
        let count = space.filled().len();
        (self.start, self.end) = (0, count);
        self.ended = count == 0;
        Poll::Ready(Ok(()))
    }

    /// Moves bytes on until there is nothing to do now. `follows` sees what goes by. Ready when the receiver has been
    /// told that this was all.
    fn poll(
        &mut self,
        mut from: Pin<&mut (impl AsyncRead + ?Sized)>,
        mut to: Pin<&mut (impl AsyncWrite + ?Sized)>,
        mut follows: Option<&mut Frames>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.waiting().is_empty() {
                let wrote = ready!(
                    to.as_mut()
                        .poll_write(cx, &self.buffer[self.start..self.end])
                )?;
                if wrote == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                if let Some(frames) = &mut follows {
                    frames.pass(&self.buffer[self.start..self.start + wrote]);
                }
                self.start += wrote;
                self.passed += wrote as u64;
                self.unflushed = true;
                continue;
            }
            if self.ended {
                if !self.shut {
                    ready!(to.as_mut().poll_shutdown(cx))?;
                    self.shut = true;
                }
                return Poll::Ready(Ok(()));
            }
            match self.poll_fill(from.as_mut(), cx) {
                Poll::Ready(filled) => filled?,
                Poll::Pending => {
                    if self.unflushed {
                        ready!(to.as_mut().poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Reads and throws away. Ready when the sender has ended.
    fn poll_discard(
        &mut self,
        mut from: Pin<&mut (impl AsyncRead + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.ended {
            ready!(self.poll_fill(from.as_mut(), cx))?;
        }
        Poll::Ready(Ok(()))
    }
}

/// How far the farewell has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parting {
    /// Nobody has asked for an end.
    No,
    /// The frame in progress is let through.
    Waits(Farewell),
    /// The close frame is on its way.
    Says,
    /// It is said: the client answers, and what the upstream still sends is not passed on.
    Said,
}

/// Both directions of a connection between a client and an upstream.
struct Tunnel<C, U> {
    client: C,
    upstream: U,
    protocol: Protocol,
    up: Half,
    down: Half,
    frames: Frames,
    parting: Parting,
    /// Armed while one side is waited for that should end.
    linger: Deadline,
    lingering: bool,
    /// Sum of both directions when `linger` was armed.
    seen: u64,
}

/// Copies until both sides have ended, or until one has ended and the other says nothing more for some seconds. No timer
/// of requests applies here, and silence ends nothing.
///
/// `farewell` is asked whenever something happens or the deadlines of the worker are woken: once it gives something, a
/// WebSocket client is told at the end of the frame in progress, and the connection ends when it has answered, or after
/// some seconds; anything else than a WebSocket is left alone, since there is no way to say goodbye.
pub async fn tunnel<C, U>(
    client: C,
    upstream: U,
    protocol: Protocol,
    linger: Deadline,
    mut farewell: impl FnMut() -> Option<Farewell>,
) -> Passed
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let mut tunnel = Tunnel {
        client,
        upstream,
        protocol,
        up: Half::new(),
        down: Half::new(),
        frames: Frames::default(),
        parting: Parting::No,
        linger,
        lingering: false,
        seen: 0,
    };
    let result = std::future::poll_fn(|cx| {
        if tunnel.parting == Parting::No
            && protocol == Protocol::WebSocket
            && let Some(farewell) = farewell()
        {
            tunnel.parting = Parting::Waits(farewell);
        }
        tunnel.poll(cx)
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "tunnel broken off"
        );
    }
    Passed {
        up: tunnel.up.passed,
        down: tunnel.down.passed,
    }
}

impl<C, U> Tunnel<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let up = self.up.poll(
            Pin::new(&mut self.client),
            Pin::new(&mut self.upstream),
            None,
            cx,
        );
        let down = self.poll_down(cx);
        let (up_ended, down_ended) = match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(error));
            }
            (up, down) => (up.is_ready(), down.is_ready()),
        };
        if up_ended && down_ended {
            return Poll::Ready(Ok(()));
        }
        let should_end = up_ended || down_ended || self.parting != Parting::No;
        self.poll_linger(should_end, cx)
    }

    /// Towards the client, with the farewell in its place.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Parting::Waits(farewell) = self.parting {
            ready!(self.poll_frame_end(cx))?;
            self.down.start = 0;
            self.down.end = 0;
            if self.frames.is_closing() || self.down.ended {
                // The upstream has said goodbye itself.
                self.parting = Parting::Said;
            } else {
                let frame = frames::close(farewell.code, farewell.reason);
                self.down.buffer[..frame.len()].copy_from_slice(&frame);
                self.down.end = frame.len();
                self.parting = Parting::Says;
            }
        }
        if self.parting == Parting::Says {
            while !self.down.waiting().is_empty() {
                let to = Pin::new(&mut self.client);
                let wrote =
                    ready!(to.poll_write(cx, &self.down.buffer[self.down.start..self.down.end]))?;
                self.down.start += wrote;
                self.down.passed += wrote as u64;
            }
            ready!(Pin::new(&mut self.client).poll_flush(cx))?;
            self.parting = Parting::Said;
        }
        if self.parting == Parting::Said {
            return self.down.poll_discard(Pin::new(&mut self.upstream), cx);
        }
        let frames = Some(&mut self.frames).filter(|_| self.protocol == Protocol::WebSocket);
        self.down.poll(
            Pin::new(&mut self.upstream),
            Pin::new(&mut self.client),
            frames,
            cx,
        )
    }

    /// Lets the frame in progress through, and nothing behind it.
    fn poll_frame_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.frames.at_boundary() && !self.down.ended {
            if self.down.waiting().is_empty() {
                ready!(self.down.poll_fill(Pin::new(&mut self.upstream), cx))?;
                continue;
            }
            let rest = self.frames.rest_of_frame(self.down.waiting());
            let to = Pin::new(&mut self.client);
            let bytes = &self.down.buffer[self.down.start..self.down.start + rest];
            let wrote = ready!(to.poll_write(cx, bytes))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.frames
                .pass(&self.down.buffer[self.down.start..self.down.start + wrote]);
            self.down.start += wrote;
            self.down.passed += wrote as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the other side to end as well, as long as it has something to say.
    fn poll_linger(&mut self, should_end: bool, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sum = self.up.passed + self.down.passed;
        if should_end && (!self.lingering || sum != self.seen) {
            // After the farewell, what the client says does not buy it time.
            if !self.lingering || self.parting == Parting::No {
                self.linger.arm(LINGER);
            }
            self.lingering = true;
            self.seen = sum;
        }
        if self.linger.poll_passed(cx) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}
