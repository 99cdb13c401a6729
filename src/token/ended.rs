//! Sessions that were ended here before their tokens are over (logout): their tokens verify no more. Bounded; an entry
//! goes when the last token of its session has expired.

use parking_lot::RwLock;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most sessions remembered for one provider. Over it the one that is over soonest is forgotten.
pub(super) const MAX_ENDED: usize = 100_000;

/// Session → Unix seconds until which to remember it.
type Remembered = HashMap<Box<str>, u64>;

/// The set of ended sessions, by provider and its `session_id`.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// By provider.
    sessions: RwLock<HashMap<Arc<str>, Remembered>>,
    /// How many were ever added. 0 spares the look-up; a change tells others to look again.
    version: AtomicU64,
}

impl Ended {
    /// Ends a session. `until` (Unix seconds) is the latest moment at which one of its tokens could still verify: `exp` and
    /// leeway. A second call for the same session keeps the later moment.
    pub(super) fn add(&self, provider: &Arc<str>, session: &str, until: u64, now: u64) {
        let mut sessions = self.sessions.write();
        let known = sessions.entry(provider.clone()).or_default();
        if known.len() >= MAX_ENDED && !known.contains_key(session) {
            known.retain(|_, until| *until > now);
            if known.len() >= MAX_ENDED
                && let Some(soonest) = known
                    .iter()
                    .min_by_key(|(_, until)| **until)
                    .map(|(session, _)| session.clone())
            {
                tracing::warn!(%provider, most = MAX_ENDED, "too many ended sessions, one is forgotten");
                known.remove(&soonest);
            }
        }
        match known.entry(session.into()) {
            // Everybody has looked already.
            Entry::Occupied(mut kept) => *kept.get_mut() = until.max(*kept.get()),
            Entry::Vacant(place) => {
                place.insert(until);
                self.version.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Whether a session was ended.
    pub(super) fn contains(&self, provider: &str, session: Option<&str>) -> bool {
        let Some(session) = session else {
            return false;
        };
        self.version() != 0
            && self
                .sessions
                .read()
                .get(provider)
                .is_some_and(|known| known.contains_key(session))
    }

    /// Changes with each session that ends: who remembers a caller compares it and looks again.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_session_is_known_for_its_provider_only() {
        let ended = Ended::default();
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        assert!(!ended.contains(&a, Some("s")));
        ended.add(&a, "s", 100, 0);
        assert!(ended.contains(&a, Some("s")));
        assert!(!ended.contains(&b, Some("s")));
        assert!(!ended.contains(&a, Some("t")));
        assert!(!ended.contains(&a, None));
    }

    #[test]
    fn the_set_is_bounded_and_forgets_what_is_over_first() {
        let ended = Ended::default();
        let provider: Arc<str> = "a".into();
        for number in 0..MAX_ENDED {
            let until = if number == 7 {
                10
            } else {
                1_000 + number as u64
            };
            ended.add(&provider, &number.to_string(), until, 0);
        }
        ended.add(&provider, "after the end of 7", 5_000_000, 20);
        assert!(!ended.contains(&provider, Some("7")));
        assert!(ended.contains(&provider, Some("0")));
        ended.add(&provider, "one too many", 5_000_000, 20);
        assert!(!ended.contains(&provider, Some("0")));
        assert!(ended.contains(&provider, Some("one too many")));
        assert_eq!(ended.sessions.read()[&provider].len(), MAX_ENDED);
    }
}
