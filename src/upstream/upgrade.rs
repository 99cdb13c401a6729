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
/// How long a WebSocket client may take to say goodbye, after the upstream has ended or after our own farewell.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long one side of anything else may take after the other has ended; and an upstream be silent after its client has.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// Why a tunnel is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// WebSocket close code (RFC 6455 §7.4).
    pub code: u16,
    /// A few words for a developer; at most 123 bytes.
    pub reason: &'static str,
    /// Nothing that the client says goes on any more, and what has no farewell is cut.
    pub forbids: bool,
}

/// The gateway stops (RFC 6455 §7.4.1, 1001).
pub const GOING_AWAY: Farewell = Farewell {
    code: 1001,
    reason: "the gateway is going away",
    forbids: false,
};

/// The session of the client is over. Of the codes that are for private use (RFC 6455 §7.4.2), the one that says what 401
/// says.
pub const SESSION_OVER: Farewell = Farewell {
    code: 4401,
    reason: "the session is over",
    forbids: true,
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

    /// Writes at most so many of the bytes that wait; never none.
    fn poll_write(
        &mut self,
        count: usize,
        to: Pin<&mut (impl AsyncWrite + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let bytes = &self.buffer[self.start..self.start + count];
        let wrote = ready!(to.poll_write(cx, bytes))?;
        if wrote == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.start += wrote;
        self.passed += wrote as u64;
        self.unflushed = true;
        Poll::Ready(Ok(wrote))
    }

    /// Tells the receiver that this was all.
    fn poll_shut(
        &mut self,
        to: Pin<&mut (impl AsyncWrite + ?Sized)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(to.poll_shutdown(cx))?;
            self.shut = true;
        }
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
                let (start, count) = (self.start, self.waiting().len());
                let wrote = ready!(self.poll_write(count, to.as_mut(), cx))?;
                if let Some(frames) = &mut follows {
                    frames.pass(&self.buffer[start..start + wrote]);
                }
                continue;
            }
            if self.ended {
                return self.poll_shut(to, cx);
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
    /// What the client says is not for the upstream any more.
    forbidden: bool,
    /// Armed while one side is waited for that should end.
    linger: Deadline,
    lingering: bool,
    /// Bytes to the client when `linger` was armed.
    seen: u64,
}

/// Copies until both sides have ended, or until one has ended and the other takes too long to. No timer of requests applies
/// here, and silence ends nothing while both sides are there.
///
/// `farewell` is asked whenever something happens or the deadlines of the worker are woken, and may have the task woken
/// besides: once it gives something, a WebSocket client is told at the end of the frame in progress, and the connection ends
/// when it has answered, or after some seconds. In anything else than a WebSocket there is no way to say goodbye: it is left
/// alone, or cut when the farewell forbids.
pub async fn tunnel<C, U>(
    client: C,
    upstream: U,
    protocol: Protocol,
    linger: Deadline,
    mut farewell: impl FnMut(&mut Context<'_>) -> Option<Farewell>,
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
        forbidden: false,
        linger,
        lingering: false,
        seen: 0,
    };
    let result = std::future::poll_fn(|cx| {
        if tunnel.parting == Parting::No
            && let Some(farewell) = farewell(cx)
        {
            if protocol == Protocol::WebSocket {
                tunnel.parting = Parting::Waits(farewell);
                tunnel.forbidden = farewell.forbids;
                tunnel.lingering = false; // from now on the client has as long as a goodbye takes
            } else if farewell.forbids {
                return Poll::Ready(Ok(()));
            }
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
        // First, for what has been said down decides about what goes up.
        let down = self.poll_down(cx);
        let up = if self.forbidden {
            self.poll_forbidden(cx)
        } else {
            let client = Pin::new(&mut self.client);
            self.up.poll(client, Pin::new(&mut self.upstream), None, cx)
        };
        let (up_ended, down_ended) = match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                return Poll::Ready(Err(error));
            }
            (up, down) => (up.is_ready(), down.is_ready()),
        };
        if up_ended && down_ended {
            return Poll::Ready(Ok(()));
        }
        if up_ended || down_ended || self.parting != Parting::No {
            let only_client_has_gone = up_ended && self.parting == Parting::No;
            return self.poll_linger(only_client_has_gone, cx);
        }
        // Registers the task, so that it is woken when the worker drains.
        let _ = self.linger.poll_passed(cx);
        Poll::Pending
    }

    /// What the client says is thrown away. The upstream is told that this was all, when the frame that it is in the middle
    /// of need not be waited for.
    fn poll_forbidden(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !matches!(self.parting, Parting::Waits(_)) {
            // Where that fails the upstream has gone, which keeps nobody from hearing why.
            let _ = self.up.poll_shut(Pin::new(&mut self.upstream), cx);
        }
        self.up.poll_discard(Pin::new(&mut self.client), cx)
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
                let count = self.down.waiting().len();
                ready!(self.down.poll_write(count, Pin::new(&mut self.client), cx))?;
            }
            ready!(Pin::new(&mut self.client).poll_flush(cx))?;
            self.parting = Parting::Said;
        }
        if self.parting == Parting::Said {
            if !self.forbidden {
                ready!(self.down.poll_discard(Pin::new(&mut self.upstream), cx))?;
            }
            // The client has answered and the upstream has gone, or neither matters: it is the server's turn to close (RFC
            // 6455 §7.1.1).
            return self.down.poll_shut(Pin::new(&mut self.client), cx);
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
            let start = self.down.start;
            let rest = self.frames.rest_of_frame(self.down.waiting());
            let wrote = ready!(self.down.poll_write(rest, Pin::new(&mut self.client), cx))?;
            self.frames.pass(&self.down.buffer[start..start + wrote]);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for the other side to end as well. An upstream whose client has gone may go on as long as it has something
    /// to say; a client whose upstream has gone, or that was told to go, buys no time by what it says.
    fn poll_linger(
        &mut self,
        only_client_has_gone: bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = only_client_has_gone && self.down.passed != self.seen;
        if !self.lingering || moved {
            let goodbye = self.parting != Parting::No || self.protocol == Protocol::WebSocket;
            let patience = if goodbye && !only_client_has_gone {
                GOODBYE
            } else {
                HALF_OPEN
            };
            self.linger.arm(patience);
            self.lingering = true;
            self.seen = self.down.passed;
        }
        if self.linger.poll_passed(cx) {
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::deadline::Sweeper;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::task::JoinHandle;

    /// Both far ends of a tunnel that runs.
    struct Ends {
        client: DuplexStream,
        upstream: DuplexStream,
        running: JoinHandle<Passed>,
        sweeper: Arc<Sweeper>,
        parting: Arc<AtomicBool>,
    }

    fn ends(protocol: Protocol) -> Ends {
        with(protocol, GOING_AWAY)
    }

    fn with(protocol: Protocol, farewell: Farewell) -> Ends {
        let (client, near_client) = tokio::io::duplex(64 << 10);
        let (upstream, near_upstream) = tokio::io::duplex(64 << 10);
        let sweeper = Sweeper::new();
        let parting = Arc::new(AtomicBool::new(false));
        let asked = parting.clone();
        let farewell = move |_: &mut Context<'_>| asked.load(Ordering::Relaxed).then_some(farewell);
        let linger = sweeper.deadline();
        let running = tokio::spawn(tunnel(
            near_client,
            near_upstream,
            protocol,
            linger,
            farewell,
        ));
        Ends {
            client,
            upstream,
            running,
            sweeper,
            parting,
        }
    }

    impl Ends {
        /// Asks for the end, as a drain does.
        fn part(&self) {
            self.parting.store(true, Ordering::Relaxed);
            self.sweeper.wake_all();
        }

        /// Lets so many seconds pass, and the tunnel see it.
        async fn pass(&self, seconds: u64) {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            self.sweeper.tick_at(Duration::from_secs(seconds));
        }
    }

    async fn reads(end: &mut DuplexStream, expected: &[u8]) {
        let mut bytes = vec![0; expected.len()];
        end.read_exact(&mut bytes).await.unwrap();
        assert_eq!(bytes, expected);
    }

    #[tokio::test]
    async fn both_directions_pass_and_are_counted() {
        let mut ends = ends(Protocol::Opaque);
        ends.client.write_all(b"ping").await.unwrap();
        ends.upstream.write_all(b"a longer pong").await.unwrap();
        reads(&mut ends.upstream, b"ping").await;
        reads(&mut ends.client, b"a longer pong").await;
        drop(ends.client);
        drop(ends.upstream);
        let passed = ends.running.await.unwrap();
        assert_eq!(passed, Passed { up: 4, down: 13 });
    }

    #[tokio::test]
    async fn one_side_may_end_while_the_other_goes_on() {
        let mut ends = ends(Protocol::Opaque);
        ends.client.write_all(b"all").await.unwrap();
        ends.client.shutdown().await.unwrap();
        let mut all = Vec::new();
        ends.upstream.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"all");
        for seconds in [50, 100, 150] {
            ends.upstream.write_all(b"more").await.unwrap();
            reads(&mut ends.client, b"more").await;
            ends.pass(seconds).await;
        }
        ends.pass(151).await;
        assert!(!ends.running.is_finished());
        ends.pass(212).await;
        assert_eq!(ends.running.await.unwrap().down, 12);
    }

    #[tokio::test]
    async fn a_client_whose_upstream_has_gone_buys_no_time_by_talking_on() {
        let mut ends = ends(Protocol::WebSocket);
        ends.upstream.shutdown().await.unwrap();
        let mut all = Vec::new();
        ends.client.read_to_end(&mut all).await.unwrap();
        for seconds in 1..5 {
            ends.client.write_all(b"on").await.unwrap();
            ends.pass(seconds).await;
            assert!(!ends.running.is_finished());
        }
        ends.pass(6).await;
        assert_eq!(ends.running.await.unwrap().up, 8);
    }

    #[tokio::test]
    async fn silence_ends_nothing() {
        let mut ends = ends(Protocol::WebSocket);
        ends.pass(100_000).await;
        ends.client.write_all(b"x").await.unwrap();
        reads(&mut ends.upstream, b"x").await;
    }

    #[tokio::test]
    async fn the_farewell_comes_after_the_frame_in_progress_and_nothing_behind_it() {
        let mut ends = ends(Protocol::WebSocket);
        // A frame of 300 bytes, of which the first 100 are there.
        ends.upstream.write_all(&[0x82, 126, 1, 44]).await.unwrap();
        ends.upstream.write_all(&[7; 100]).await.unwrap();
        reads(&mut ends.client, &[0x82, 126, 1, 44]).await;
        reads(&mut ends.client, &[7; 100]).await;
        ends.part();
        ends.pass(1).await;
        let rest_and_next = [&[7; 200][..], &[0x81, 1, b'n']].concat();
        ends.upstream.write_all(&rest_and_next).await.unwrap();
        reads(&mut ends.client, &[7; 200]).await;
        reads(&mut ends.client, &frames::close(1001, GOING_AWAY.reason)).await;
        // The client answers, the upstream hears it, answers and goes; then the client is told that this was all.
        ends.client.write_all(b"masked close").await.unwrap();
        reads(&mut ends.upstream, b"masked close").await;
        ends.upstream.write_all(b"close").await.unwrap();
        drop(ends.upstream);
        let mut rest = Vec::new();
        ends.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        drop(ends.client);
        ends.running.await.unwrap();
    }

    #[tokio::test]
    async fn the_farewell_comes_at_once_between_frames_and_is_not_waited_on_for_long() {
        let mut ends = ends(Protocol::WebSocket);
        ends.upstream.write_all(&[0x81, 1, b'x']).await.unwrap();
        reads(&mut ends.client, &[0x81, 1, b'x']).await;
        ends.part();
        reads(&mut ends.client, &frames::close(1001, GOING_AWAY.reason)).await;
        // A client that talks on buys no time.
        for seconds in 1..5 {
            ends.client.write_all(b"on").await.unwrap();
            ends.pass(seconds).await;
        }
        ends.pass(6).await;
        ends.running.await.unwrap();
    }

    #[tokio::test]
    async fn an_upstream_that_said_goodbye_is_not_interrupted() {
        let mut ends = ends(Protocol::WebSocket);
        ends.upstream
            .write_all(&frames::close(1000, ""))
            .await
            .unwrap();
        reads(&mut ends.client, &frames::close(1000, "")).await;
        ends.part();
        ends.pass(1).await;
        ends.pass(7).await;
        ends.running.await.unwrap();
        let mut rest = Vec::new();
        ends.client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
    }

    #[tokio::test]
    async fn an_opaque_protocol_has_no_farewell() {
        let mut ends = ends(Protocol::Opaque);
        ends.part();
        ends.pass(1).await;
        ends.pass(100).await;
        ends.upstream.write_all(b"still there").await.unwrap();
        reads(&mut ends.client, b"still there").await;
    }

    #[tokio::test]
    async fn a_client_that_may_no_more_hears_why_and_what_it_says_goes_nowhere() {
        let mut ends = with(Protocol::WebSocket, SESSION_OVER);
        ends.client.write_all(b"before").await.unwrap();
        reads(&mut ends.upstream, b"before").await;
        // A frame of four bytes, of which two are there.
        ends.upstream.write_all(&[0x82, 4, 1, 2]).await.unwrap();
        reads(&mut ends.client, &[0x82, 4, 1, 2]).await;
        ends.part();
        ends.pass(1).await;
        ends.client.write_all(b"after").await.unwrap();
        ends.upstream
            .write_all(&[3, 4, 0x81, 1, b'n'])
            .await
            .unwrap();
        reads(&mut ends.client, &[3, 4]).await;
        reads(&mut ends.client, &frames::close(4401, SESSION_OVER.reason)).await;
        // Both are told that this was all; neither is waited for.
        let mut rest = Vec::new();
        ends.client.read_to_end(&mut rest).await.unwrap();
        ends.upstream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        drop(ends.client);
        assert_eq!(ends.running.await.unwrap().up, 6);
    }

    #[tokio::test]
    async fn a_client_that_may_no_more_and_stays_is_cut_after_some_seconds() {
        let mut ends = with(Protocol::WebSocket, SESSION_OVER);
        ends.part();
        reads(&mut ends.client, &frames::close(4401, SESSION_OVER.reason)).await;
        for seconds in 1..5 {
            ends.client.write_all(b"on").await.unwrap();
            ends.pass(seconds).await;
            assert!(!ends.running.is_finished());
        }
        ends.pass(6).await;
        assert_eq!(ends.running.await.unwrap().up, 0);
    }

    #[tokio::test]
    async fn an_opaque_protocol_of_a_client_that_may_no_more_is_cut() {
        let mut ends = with(Protocol::Opaque, SESSION_OVER);
        ends.client.write_all(b"ping").await.unwrap();
        reads(&mut ends.upstream, b"ping").await;
        ends.part();
        assert_eq!(ends.running.await.unwrap().up, 4);
    }
}
