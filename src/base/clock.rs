//! Wall and monotonic time behind one handle. Tests freeze it; everything that judges a lifetime asks it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the time comes from. Cheap to clone.
///
/// The two readings are kept apart on purpose: tokens are judged by the wall clock, which may jump;
/// lifetimes of caches, limits and connections by the monotonic one, which never does.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<Frozen>>);

#[derive(Debug)]
struct Frozen {
    /// Milliseconds since 1970.
    wall: AtomicU64,
    start: Instant,
    /// Milliseconds since `start`.
    passed: AtomicU64,
}

impl Clock {
    /// The machine's own clocks.
    pub fn system() -> Self {
        Self(None)
    }

    /// A clock that stands at `unix_seconds` until it is moved with [`Clock::advance`]. For tests and rehearsals.
    pub fn frozen(unix_seconds: u64) -> Self {
        Self(Some(Arc::new(Frozen {
            wall: AtomicU64::new(unix_seconds.saturating_mul(1000)),
            start: Instant::now(),
            passed: AtomicU64::new(0),
        })))
    }

    /// Moves a frozen clock forward; the machine's clock does not listen.
    pub fn advance(&self, by: Duration) {
        if let Some(frozen) = &self.0 {
            let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            frozen.wall.fetch_add(ms, Ordering::SeqCst);
            frozen.passed.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; 0 when the machine's clock stands before that.
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Some(frozen) => frozen.wall.load(Ordering::SeqCst),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    /// Whole seconds since 1970 (`NumericDate` of RFC 7519 §2).
    pub fn unix(&self) -> u64 {
        self.unix_millis() / 1000
    }

    /// Time that never goes back.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Some(frozen) => {
                frozen.start + Duration::from_millis(frozen.passed.load(Ordering::SeqCst))
            }
            None => Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frozen_clock_moves_only_when_told() {
        let clock = Clock::frozen(1_000);
        let before = clock.now();
        assert_eq!(clock.unix(), 1_000);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.unix(), 1_005);
        assert_eq!(clock.now() - before, Duration::from_secs(5));
    }
}
