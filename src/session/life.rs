//! How long a session may last that is of our making.

use std::time::Duration;

/// A session that is used is kept alive when this part of `idle_timeout` has passed.
const PART_OF_IDLE: u64 = 10;

/// `max_age` and `idle_timeout`. Times are Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// From its beginning.
    pub max_age: Duration,
    /// Without being used.
    pub idle_timeout: Duration,
}

impl Lifetimes {
    /// Why a session is over, if it is.
    pub(super) fn over(&self, created_at: u64, seen_at: u64, now: u64) -> Option<&'static str> {
        if now.saturating_sub(created_at) >= self.max_age.as_secs() {
            Some("it has lasted for `session.max_age`")
        } else if now.saturating_sub(seen_at) >= self.idle_timeout.as_secs() {
            Some("nobody has used it for `session.idle_timeout`")
        } else {
            None
        }
    }

    /// When the first of the two ends it.
    pub(super) fn end(&self, created_at: u64, seen_at: u64) -> u64 {
        let by_age = created_at.saturating_add(self.max_age.as_secs());
        let by_rest = seen_at.saturating_add(self.idle_timeout.as_secs());
        by_age.min(by_rest)
    }

    /// When either has to be looked at.
    pub(super) fn look_again(&self, created_at: u64, seen_at: u64) -> u64 {
        self.touch_at(seen_at).min(self.end(created_at, seen_at))
    }

    /// When it is time to say that it is used.
    pub(super) fn touch_at(&self, seen_at: u64) -> u64 {
        let part = (self.idle_timeout.as_secs() / PART_OF_IDLE).max(1);
        seen_at.saturating_add(part)
    }
}
