//! Records that were read a moment ago: `session.cache_ttl` is how long a replica may trust them. An entry counts only
//! while nothing has been said against it since before it was read, so that no answer that was on its way when a session
//! ended brings it back.

use super::Found;
use super::id::Key;
use foldhash::quality::RandomState;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Most entries; some 5 kB each.
const ENTRIES_MAX: usize = 10_000;
/// What is said against one record counts against all of its part: some ten.
const PARTS: usize = 1024;

pub(super) struct ReadCache {
    entries: Cache<Key, Entry, UnitWeighter, RandomState>,
    /// How often something was said against a record of the part.
    said: Box<[AtomicU64]>,
    ttl: Duration,
}

#[derive(Clone)]
struct Entry {
    found: Arc<Found>,
    until: Instant,
    said: u64,
}

/// What was said when the reading of a record began.
#[derive(Clone, Copy)]
pub(super) struct Begun(u64);

impl fmt::Debug for ReadCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadCache")
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

impl ReadCache {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            entries: Cache::with(
                ENTRIES_MAX,
                ENTRIES_MAX as u64,
                UnitWeighter,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            said: (0..PARTS).map(|_| AtomicU64::new(0)).collect(),
            ttl,
        }
    }

    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Arc<Found>> {
        let entry = self.entries.get(key)?;
        if now < entry.until && entry.said == self.said(key) {
            return Some(entry.found);
        }
        // Only this very entry: a fresh one may have taken its place meanwhile.
        self.entries
            .remove_if(key, |other| Arc::ptr_eq(&other.found, &entry.found));
        None
    }

    /// To be called before Redis is asked.
    pub(super) fn begin(&self, key: &Key) -> Begun {
        Begun(self.said(key))
    }

    pub(super) fn put(&self, key: Key, found: Arc<Found>, begun: Begun, now: Instant) {
        let entry = Entry {
            found,
            until: now + self.ttl,
            said: begun.0,
        };
        if entry.said == self.said(&key) {
            self.entries.insert(key, entry);
        }
    }

    /// The record has changed or gone: what was read of it, or is being read, counts no more.
    pub(super) fn forget(&self, key: &Key) {
        if let Some(said) = self.part(key) {
            said.fetch_add(1, Ordering::AcqRel);
        }
        self.entries.remove(key);
    }

    /// Lets go of entries that are over, and of the secrets in them.
    pub(super) fn sweep(&self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.until);
    }

    fn part(&self, key: &Key) -> Option<&AtomicU64> {
        let [first, second, ..] = key.0;
        self.said
            .get(usize::from(u16::from_be_bytes([first, second])) % PARTS)
    }

    fn said(&self, key: &Key) -> u64 {
        self.part(key)
            .map_or(0, |said| said.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::session::sealed::SealedSession;
    use crate::session::stored::{Record, Version};

    fn found(user: &str) -> Arc<Found> {
        Arc::new(Found {
            read_at: 0,
            record: Record {
                session: SealedSession {
                    access_token: Secret::new("a".to_owned()),
                    refresh_token: None,
                    expires_at: 0,
                    created_at: 0,
                    seen_at: 0,
                },
                user: user.into(),
                provider_session: None,
            },
            version: Version::default(),
        })
    }

    fn key(number: usize) -> Key {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        Key(key)
    }

    fn user(cache: &ReadCache, key: Key, now: Instant) -> Option<String> {
        let found = cache.get(&key, now)?;
        Some(found.record.user.to_string())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_entry_counts_for_its_time() {
        let (cache, now) = (ReadCache::new(SECOND), Instant::now());
        cache.put(key(1), found("a"), cache.begin(&key(1)), now);
        let last = now + SECOND - Duration::from_nanos(1);
        assert_eq!(user(&cache, key(1), last).as_deref(), Some("a"));
        assert_eq!(user(&cache, key(2), now), None);
        assert_eq!(user(&cache, key(1), now + SECOND), None);
        assert_eq!(cache.entries.len(), 0);
        cache.put(key(1), found("a"), cache.begin(&key(1)), now);
        cache.put(key(2), found("b"), cache.begin(&key(2)), now + SECOND);
        cache.sweep(now + SECOND);
        assert_eq!(cache.entries.len(), 1);
    }

    #[test]
    fn what_was_on_its_way_when_a_session_ended_does_not_bring_it_back() {
        let (cache, now) = (ReadCache::new(SECOND), Instant::now());
        let begun = cache.begin(&key(1));
        cache.forget(&key(1));
        cache.put(key(1), found("late"), begun, now);
        assert_eq!(user(&cache, key(1), now), None);
        // Put between the two halves of forgetting.
        let begun = cache.begin(&key(1));
        cache.put(key(1), found("late"), begun, now);
        cache.part(&key(1)).unwrap().fetch_add(1, Ordering::AcqRel);
        assert_eq!(user(&cache, key(1), now), None);
        cache.put(key(1), found("new"), cache.begin(&key(1)), now);
        assert_eq!(user(&cache, key(1), now).as_deref(), Some("new"));
    }

    #[test]
    fn forgetting_one_leaves_the_other_parts_alone() {
        let (cache, now) = (ReadCache::new(SECOND), Instant::now());
        for number in [1, 2] {
            cache.put(key(number), found("a"), cache.begin(&key(number)), now);
        }
        cache.forget(&key(1));
        assert_eq!(user(&cache, key(1), now), None);
        assert_eq!(user(&cache, key(2), now).as_deref(), Some("a"));
    }

    #[test]
    fn the_cache_is_bounded() {
        let (cache, now) = (ReadCache::new(SECOND), Instant::now());
        let one = found("a");
        for number in 0..2 * ENTRIES_MAX {
            cache.put(key(number), one.clone(), cache.begin(&key(number)), now);
        }
        assert!(cache.entries.len() <= ENTRIES_MAX);
    }
}
