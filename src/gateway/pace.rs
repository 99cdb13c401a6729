//! How fast a client must be. One `Pulse` for each connection holds its deadlines; the I/O wrapper of the server and the
//! requests in progress look at it.

use super::tunnel::Berth;
use crate::authn::Memory;
use crate::base::body::End;
use crate::base::deadline::{Deadline, Sweeper};
use crate::exchange::Peer;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;
use std::time::Duration;

/// One client connection, as long as it lives.
#[derive(Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Peer,
    /// The credential it sent last.
    pub memory: Memory,
    /// Its deadlines.
    pub pulse: Arc<Pulse>,
    /// Where the tunnel waits that this connection becomes.
    pub berth: Berth,
}

/// The timers of `[server]` that concern one connection.
#[derive(Clone, Debug)]
pub struct Pace {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// Silence in a request body.
    pub body_idle: Duration,
    /// Bytes a second that a request body must bring once the client has been waited for 10 s; 0: any.
    pub body_min_rate: u64,
    /// A client that reads nothing.
    pub write_idle: Duration,
}

/// How long, and for how many bytes, a request body that nobody wants is read after its answer, so that the client gets
/// to read that answer: a socket closed with unread data resets the connection, and clients of HTTP/2 lose the answer of
/// a stream that is reset while they send.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 8 << 20;

/// Answers that may be cut short on one HTTP/2 connection within a second.
const CUT_MAX: usize = 100;

/// What a connection waits for.
const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// The deadlines of one client connection.
///
/// On HTTP/1.1 they follow its one request. On HTTP/2, where requests run side by side, each has a
/// [`Flow`](super::flow::Flow) of its own, and what is here only counts them.
#[derive(Debug)]
pub struct Pulse {
    /// Requests run side by side.
    shared: bool,
    /// Requests in progress on a shared connection.
    streams: AtomicUsize,
    /// On a shared connection: answers cut before their end in the second `cut_in`.
    cut: AtomicUsize,
    cut_in: AtomicU64,
    phase: AtomicU8,
    /// A write makes no progress.
    stalled: AtomicBool,
    /// The body of the request is still coming.
    reading: AtomicBool,
    /// A body was given up before its end: bytes may wait that nobody will read.
    unread: AtomicBool,
    /// A request has begun on this connection.
    served: AtomicBool,
    /// Keep-alive or head.
    pub read: Deadline,
    /// A write that makes no progress.
    pub write: Deadline,
    body: Deadline,
    /// Made when the first answer is waited for.
    lasting: OnceLock<Deadline>,
    sweeper: Arc<Sweeper>,
    /// The timers.
    pub pace: Arc<Pace>,
}

impl Pulse {
    /// A connection that speaks HTTP/1.1.
    pub fn new(sweeper: &Arc<Sweeper>, pace: Arc<Pace>) -> Self {
        let pulse = Self::of(sweeper, pace, false);
        pulse.read.arm(pulse.pace.keep_alive);
        pulse
    }

    /// A connection that is to speak HTTP/2. Its first frame is due as soon as a head would be.
    pub fn shared(sweeper: &Arc<Sweeper>, pace: Arc<Pace>) -> Self {
        let pulse = Self::of(sweeper, pace, true);
        pulse.phase.store(HEAD, Ordering::Relaxed);
        pulse.read.arm(pulse.pace.head);
        pulse
    }

    fn of(sweeper: &Arc<Sweeper>, pace: Arc<Pace>, shared: bool) -> Self {
        Self {
            shared,
            streams: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            cut_in: AtomicU64::new(0),
            phase: AtomicU8::new(IDLE),
            stalled: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            served: AtomicBool::new(false),
            read: sweeper.deadline(),
            write: sweeper.deadline(),
            body: sweeper.deadline(),
            lasting: OnceLock::new(),
            sweeper: sweeper.clone(),
            pace,
        }
    }

    /// Bytes came from the client.
    pub fn bytes_came(&self) {
        if self.shared {
            return;
        }
        let body = self.reading.load(Ordering::Relaxed);
        if self.phase.load(Ordering::Relaxed) == IDLE && !body {
            self.phase.store(HEAD, Ordering::Relaxed);
            self.read.arm(self.pace.head);
        }
    }

    /// A head is complete: its request is in progress.
    pub fn request_began(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.read.disarm();
    }

    /// Whether a request has begun on this connection.
    pub fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// A write makes no progress.
    pub fn write_stalled(&self) {
        if !self.stalled.swap(true, Ordering::Relaxed) {
            self.write.arm(self.pace.write_idle);
        }
    }

    /// A write made progress.
    pub fn write_moved(&self) {
        if self.stalled.load(Ordering::Relaxed) {
            self.stalled.store(false, Ordering::Relaxed);
            self.write.disarm();
            if self.phase.load(Ordering::Relaxed) == IDLE && !self.shared {
                self.read.arm(self.pace.keep_alive);
            }
        }
    }

    /// Its response is out. Where the body of the request is still coming, keep-alive waits for that.
    pub fn request_ended(&self) {
        self.phase.store(IDLE, Ordering::Relaxed);
        if !self.reading.load(Ordering::Relaxed) {
            self.read.arm(self.pace.keep_alive);
        }
    }

    pub(super) fn body_ended(&self, how: End) {
        self.reading.store(false, Ordering::Relaxed);
        if how != End::Whole {
            self.unread.store(true, Ordering::Relaxed);
        }
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.read.arm(self.pace.keep_alive);
        }
    }

    /// A request body is still to come.
    pub(super) fn body_began(&self) {
        self.reading.store(true, Ordering::Relaxed);
    }

    /// The deadline of the one body that can be coming.
    pub(super) fn body(&self) -> Deadline {
        self.body.clone()
    }

    /// The deadline of the one answer that can be under way.
    pub(super) fn lasting(&self) -> &Deadline {
        self.lasting.get_or_init(|| self.sweeper.deadline())
    }

    /// Whether the connection should be read on for a while before it closes; arms the deadline for that.
    pub fn lingers(&self) -> bool {
        let unread = self.unread.load(Ordering::Relaxed);
        if unread {
            self.read.arm(LINGER);
        }
        unread
    }

    /// The client of a shared connection has begun to speak; its first request may take its time.
    pub fn greeted(&self) {
        if self.phase.load(Ordering::Relaxed) == HEAD {
            self.phase.store(IDLE, Ordering::Relaxed);
            self.read.arm(self.pace.keep_alive);
        }
    }

    /// A request of a shared connection begins.
    pub(super) fn stream_began(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
        self.request_began();
    }

    /// A request of a shared connection is over; `by_client`: it was the client that cut its answer short.
    pub(super) fn stream_ended(&self, by_client: bool) {
        if by_client {
            let second = self.sweeper.coarse_millis() / 1000;
            if self.cut_in.swap(second, Ordering::Relaxed) != second {
                self.cut.store(0, Ordering::Relaxed);
            }
            if self.cut.fetch_add(1, Ordering::Relaxed) + 1 == CUT_MAX {
                self.read.wake();
            }
        }
        if self.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.phase.store(IDLE, Ordering::Relaxed);
            self.read.arm(self.pace.keep_alive);
        }
    }

    /// Whether a client cuts more answers short than any honest one would (CVE-2023-44487): its connection should end.
    pub fn is_flooded(&self) -> bool {
        self.cut.load(Ordering::Relaxed) >= CUT_MAX
    }

    /// Whether a shared connection has had no request for as long as `keep_alive` allows, or has none now and should end
    /// all the same (`ends`). It is told to end, and [`Pulse::read`] is armed for that: a client that has vanished does
    /// not answer.
    pub fn is_over(&self, ends: bool) -> bool {
        let over = self.is_idle_and_shared() && (ends || self.read.has_passed());
        if over {
            self.phase.store(HEAD, Ordering::Relaxed);
            self.read.arm(LINGER);
        }
        over
    }

    /// The connection has become a tunnel: no deadline of requests concerns it any more.
    pub fn became_a_tunnel(&self) {
        self.phase.store(BUSY, Ordering::Relaxed);
        self.read.disarm();
    }

    /// The worker's deadlines.
    pub fn sweeper(&self) -> &Arc<Sweeper> {
        &self.sweeper
    }

    /// Whether the deadline for the client's next bytes has passed. A client that is still being written to has time, and
    /// a shared connection is not cut for being idle: it is told to end.
    pub fn read_has_passed(&self) -> bool {
        !self.is_idle_and_shared()
            && !self.stalled.load(Ordering::Relaxed)
            && self.read.has_passed()
    }

    /// As [`Pulse::read_has_passed`]; if not, the task is woken when it has.
    pub fn poll_read_passed(&self, cx: &mut Context<'_>) -> bool {
        self.read.poll_passed(cx) && self.read_has_passed()
    }

    fn is_idle_and_shared(&self) -> bool {
        self.shared && self.phase.load(Ordering::Relaxed) == IDLE
    }
}
