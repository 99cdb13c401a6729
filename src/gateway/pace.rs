//! How fast a client must be. One `Pulse` for each connection holds its deadlines; the I/O wrapper of the server and the
//! body of the request in progress both look at it.

use crate::authn::Memory;
use crate::base::body::{Body, BodyError, End, Watch};
use crate::base::deadline::{Deadline, Sweeper};
use crate::exchange::Peer;
use http_body::Body as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
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

/// How long a slow body is waited for before `body_min_rate` counts.
const BODY_GRACE_MILLIS: u64 = 10_000;
/// How long, and for how many bytes, a request body that nobody wants is read after its answer, so that the client gets
/// to read that answer: a socket closed with unread data resets the connection.
const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 8 << 20;

/// What a connection waits for.
const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// The deadlines of one client connection.
#[derive(Debug)]
pub struct Pulse {
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
    sweeper: Arc<Sweeper>,
    /// The timers.
    pub pace: Arc<Pace>,
}

impl Pulse {
    /// A connection that has just been accepted.
    pub fn new(sweeper: &Arc<Sweeper>, pace: Arc<Pace>) -> Self {
        let pulse = Self {
            phase: AtomicU8::new(IDLE),
            stalled: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            served: AtomicBool::new(false),
            read: sweeper.deadline(),
            write: sweeper.deadline(),
            body: sweeper.deadline(),
            sweeper: sweeper.clone(),
            pace,
        };
        pulse.read.arm(pulse.pace.keep_alive);
        pulse
    }

    /// Bytes came from the client.
    pub fn bytes_came(&self) {
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
            if self.phase.load(Ordering::Relaxed) == IDLE {
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

    fn body_ended(&self, how: End) {
        self.reading.store(false, Ordering::Relaxed);
        if how != End::Whole {
            self.unread.store(true, Ordering::Relaxed);
        }
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.read.arm(self.pace.keep_alive);
        }
    }

    /// Whether the connection should be read on for a while before it closes; arms the deadline for that.
    pub fn lingers(&self) -> bool {
        let unread = self.unread.load(Ordering::Relaxed);
        if unread {
            self.read.arm(LINGER);
        }
        unread
    }

    /// Whether the deadline for the client's next bytes has passed. A client that is still being written to has time.
    pub fn read_has_passed(&self) -> bool {
        !self.stalled.load(Ordering::Relaxed) && self.read.has_passed()
    }
}

/// Holds the client to its pace while the body of its request is awaited, and counts into `bytes`, made here.
pub(super) fn watch(body: Body, pulse: &Arc<Pulse>, bytes: &mut Option<Arc<AtomicU64>>) -> Body {
    if body.is_end_stream() {
        return body;
    }
    pulse.reading.store(true, Ordering::Relaxed);
    body.watched(Box::new(BodyPace {
        pulse: pulse.clone(),
        bytes: bytes.insert(Arc::default()).clone(),
        waited: 0,
        since: None,
    }))
}

/// Counts only the time in which we wait for the client: an upstream that reads slowly is not the client's fault.
struct BodyPace {
    pulse: Arc<Pulse>,
    bytes: Arc<AtomicU64>,
    /// Milliseconds.
    waited: u64,
    since: Option<u64>,
}

/// Whether so many bytes are too few after a client was waited for so many milliseconds.
fn too_slow(bytes: u64, waited: u64, min_rate: u64) -> bool {
    let counted = waited.saturating_sub(BODY_GRACE_MILLIS);
    counted > 0 && bytes < min_rate.saturating_mul(counted) / 1000
}

impl BodyPace {
    fn judge(&self, waited: u64) -> Result<(), BodyError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if too_slow(bytes, waited, self.pulse.pace.body_min_rate) {
            return Err(BodyError::Stalled);
        }
        Ok(())
    }
}

impl Watch for BodyPace {
    fn data(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(since) = self.since.take() {
            self.waited += self.pulse.sweeper.coarse_millis().saturating_sub(since);
            self.pulse.body.disarm();
        }
        self.judge(self.waited)
    }

    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if self.since.is_none() {
            self.since = Some(self.pulse.sweeper.coarse_millis());
            self.pulse.body.arm(self.pulse.pace.body_idle);
        }
        if self.pulse.body.poll_passed(cx) {
            return Err(BodyError::Stalled);
        }
        Ok(())
    }

    fn end(self: Box<Self>, how: End) {
        self.pulse.body.disarm();
        self.pulse.body_ended(how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    #[test]
    fn the_minimum_rate_counts_after_ten_seconds_of_waiting() {
        let check = |bytes, waited, expected| {
            assert_eq!(
                too_slow(bytes, waited, 500),
                expected,
                "{bytes} bytes in {waited} ms"
            );
        };
        check(0, 0, false);
        check(0, 10_000, false);
        check(0, 11_000, true);
        check(499, 11_000, true);
        check(500, 11_000, false);
        check(5_000, 20_000, false);
        check(4_999, 20_000, true);
        assert!(!too_slow(0, u64::MAX, 0), "no minimum");
    }

    fn body(sweeper: &Arc<Sweeper>, idle: u64, min_rate: u64) -> BodyPace {
        let pace = Pace {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(idle),
            body_min_rate: min_rate,
            write_idle: Duration::from_secs(60),
        };
        BodyPace {
            pulse: Arc::new(Pulse::new(sweeper, Arc::new(pace))),
            bytes: Arc::default(),
            waited: 0,
            since: None,
        }
    }

    /// A body whose client is waited for in steps: so many bytes come after so many seconds. Says when it was too slow.
    fn check(min_rate: u64, idle: u64, steps: &[(u64, usize)], fails_at: Option<u64>) {
        let sweeper = Sweeper::new();
        let mut body = body(&sweeper, idle, min_rate);
        let mut cx = Context::from_waker(Waker::noop());
        let mut now = 0;
        for (seconds, bytes) in steps {
            let mut result = body.pending(&mut cx);
            for _ in 0..*seconds {
                now += 1;
                sweeper.tick_at(Duration::from_secs(now));
                result = result.and_then(|()| body.pending(&mut cx));
                if result.is_err() {
                    break;
                }
            }
            if result.and_then(|()| body.data(*bytes)).is_err() {
                assert_eq!(Some(now), fails_at, "{min_rate} {steps:?}");
                return;
            }
        }
        assert_eq!(None, fails_at, "{min_rate} {steps:?}");
    }

    #[test]
    fn the_first_ten_seconds_are_free_then_the_rate_counts() {
        check(500, 30, &[(5, 1), (5, 1)], None);
        check(500, 30, &[(5, 1), (5, 1), (1, 1)], Some(11));
        check(500, 30, &[(10, 1), (1, 499), (1, 500)], None);
        check(500, 30, &[(10, 1), (1, 498), (1, 500)], Some(11));
        check(0, 30, &[(25, 1), (25, 1), (25, 1)], None);
    }

    #[test]
    fn what_came_early_counts_for_later() {
        check(500, 30, &[(1, 10_000), (29, 1)], None);
        check(500, 30, &[(1, 10_000), (29, 1), (2, 1)], Some(32));
    }

    #[test]
    fn silence_ends_a_body_whatever_its_rate_was() {
        check(0, 3, &[(2, 1), (2, 1), (2, 1)], None);
        // Deadlines are never early and at most two ticks late.
        check(0, 3, &[(2, 1), (60, 1)], Some(6));
    }

    #[test]
    fn only_the_time_in_which_the_client_is_waited_for_counts() {
        let sweeper = Sweeper::new();
        let mut body = body(&sweeper, 30, 500);
        // The upstream takes a minute for each byte that is there already.
        for minute in 1..10 {
            assert!(body.data(1).is_ok());
            sweeper.tick_at(Duration::from_secs(60 * minute));
        }
        assert_eq!(body.waited, 0);
    }
}
