//! The body of a request on its way in: its client is held to a pace, its bytes are counted, and of its trailers only
//! those go on that an upstream may hear from a client.

use super::flow::Beat;
use crate::base::body::{Body, BodyError, End, Watch};
use crate::base::deadline::Deadline;
use crate::headers::strip;
use crate::snapshot::Snapshot;
use http::HeaderMap;
use http_body::Body as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

/// How long a slow body is waited for before `body_min_rate` counts.
const BODY_GRACE_MILLIS: u64 = 10_000;

/// Holds the client to its pace while the body of its request is awaited, and counts into `bytes`, made here.
pub(super) fn watch(
    body: Body,
    beat: &Beat,
    snapshot: &Arc<Snapshot>,
    bytes: &mut Option<Arc<AtomicU64>>,
) -> Body {
    if body.is_end_stream() {
        return body;
    }
    beat.body_began();
    body.watched(Box::new(Upload {
        trailers: Some(snapshot.clone()),
        ..Upload::new(beat.clone(), bytes.insert(Arc::default()).clone())
    }))
}

/// Counts only the time in which we wait for the client: an upstream that reads slowly is not the client's fault.
struct Upload {
    beat: Beat,
    deadline: Deadline,
    /// What a trailer may not say.
    trailers: Option<Arc<Snapshot>>,
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

impl Upload {
    fn new(beat: Beat, bytes: Arc<AtomicU64>) -> Self {
        Self {
            deadline: beat.body(),
            beat,
            trailers: None,
            bytes,
            waited: 0,
            since: None,
        }
    }

    fn judge(&self, waited: u64) -> Result<(), BodyError> {
        let bytes = self.bytes.load(Ordering::Relaxed);
        if too_slow(bytes, waited, self.beat.pace().body_min_rate) {
            return Err(BodyError::Stalled);
        }
        Ok(())
    }
}

impl Watch for Upload {
    fn data(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if let Some(since) = self.since.take() {
            self.waited += self.beat.sweeper().coarse_millis().saturating_sub(since);
            self.deadline.disarm();
        }
        self.judge(self.waited)
    }

    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if self.since.is_none() {
            self.since = Some(self.beat.sweeper().coarse_millis());
            self.deadline.arm(self.beat.pace().body_idle);
        }
        if self.deadline.poll_passed(cx) {
            return Err(BodyError::Stalled);
        }
        Ok(())
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        if let Some(snapshot) = &self.trailers {
            strip::clean_trailers_to_upstream(trailers, &snapshot.forgeable);
        }
    }

    fn end(self: Box<Self>, how: End) {
        self.deadline.disarm();
        self.beat.body_ended(how);
    }
}

#[cfg(test)]
mod tests {
    use super::super::pace::{Pace, Pulse};
    use super::*;
    use crate::base::deadline::Sweeper;
    use std::task::Waker;
    use std::time::Duration;

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

    fn body(sweeper: &Arc<Sweeper>, idle: u64, min_rate: u64) -> Upload {
        let pace = Pace {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(idle),
            body_min_rate: min_rate,
            write_idle: Duration::from_secs(60),
        };
        let pulse = Arc::new(Pulse::new(sweeper, Arc::new(pace)));
        Upload::new(Beat::Line(pulse), Arc::default())
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
