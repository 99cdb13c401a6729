//! Credentials that verified, kept until they end: the full credential is the key, compared byte for byte. An entry counts
//! only while its provider's epoch is the one it was verified under, and never past `exp`. What did not verify is never
//! here.

use super::Tokens;
use crate::exchange::{Credential, Verified};
use foldhash::quality::RandomState;
use quick_cache::sync::{Cache as Sharded, DefaultLifecycle};
use quick_cache::{Equivalent, OptionsBuilder, Weighter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory for verified credentials when nothing else is said, in bytes.
pub const DEFAULT_BYTES: u64 = 64 * 1024 * 1024;

/// What an entry costs beside its credential and what the credential verified to.
const ENTRY_BYTES: u64 = 128;
/// A guess, to size the tables: a token and what it verified to.
const TYPICAL_BYTES: u64 = 4096;

/// Where a credential was read. The same bytes in another place are another credential: what a cookie may say, a header may
/// not. `index` tells sources of one kind apart (the session's provider, the API-key source); 0 where there is only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Which kind.
    pub credential: Credential,
    /// Which of its sources.
    pub index: u16,
}

/// Whose epoch decides whether an entry still counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// A provider, by its index in the configuration.
    Provider(usize),
    /// None that has keys (an API-key verifier): only a new configuration ends the entry early.
    Other,
}

/// The cache. One for the process.
pub struct Cache {
    entries: Sharded<Key, Entry, Weight, RandomState>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("entries", &self.entries.len())
            .field("bytes", &self.entries.weight())
            .finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Entry {
    verified: Arc<Verified>,
    issuer: Issuer,
}

struct Key {
    slot: Slot,
    credential: Box<[u8]>,
}

/// A key that owns nothing, to look one up.
struct Asked<'a> {
    slot: Slot,
    credential: &'a [u8],
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.slot, &*self.credential).hash(state);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.slot, self.credential).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.slot == other.slot && self.credential == other.credential
    }
}

impl Eq for Key {}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.slot == key.slot && *self.credential == *key.credential
    }
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Entry> for Weight {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        ENTRY_BYTES + key.credential.len() as u64 + u64::from(entry.verified.weight)
    }
}

impl Cache {
    /// A cache of at most about `bytes`.
    pub fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / TYPICAL_BYTES)
            .unwrap_or(usize::MAX)
            .max(16);
        let mut options = OptionsBuilder::new();
        options
            .weight_capacity(bytes)
            .estimated_items_capacity(items);
        // Seeded at random, so that nobody outside can aim at one bucket.
        let hasher = RandomState::default();
        let entries = match options.build() {
            Ok(options) => {
                Sharded::with_options(options, Weight, hasher, DefaultLifecycle::default())
            }
            // `build` fails only when one of the two sizes is missing.
            Err(_) => Sharded::with(items, bytes, Weight, hasher, DefaultLifecycle::default()),
        };
        Self {
            entries,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// What a credential verified to, if it still counts: its provider's epoch has not moved, `exp` is to come, its session
    /// was not ended. What counts no more is removed.
    pub fn get(&self, tokens: &Tokens, slot: Slot, credential: &[u8]) -> Option<Arc<Verified>> {
        let asked = Asked { slot, credential };
        let Some(entry) = self.entries.get(&asked) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if counts(tokens, &entry) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Some(entry.verified);
        }
        // Only this very entry: a fresh one may have taken its place meanwhile.
        self.entries
            .remove_if(&asked, |now| Arc::ptr_eq(&now.verified, &entry.verified));
        self.misses.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Keeps what a credential verified to. `verified.epoch` was read from `tokens` **before** the verification began, so
    /// that a key withdrawn meanwhile is not missed. What does not count any more is not kept.
    pub fn put(
        &self,
        tokens: &Tokens,
        slot: Slot,
        issuer: Issuer,
        credential: &[u8],
        verified: Arc<Verified>,
    ) {
        let entry = Entry { verified, issuer };
        if counts(tokens, &entry) {
            let credential = credential.into();
            self.entries.insert(Key { slot, credential }, entry);
        }
    }

    /// How often a credential was found.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// How often it was not, or did not count any more.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Entries kept now.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes kept now, as weighed.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}

fn counts(tokens: &Tokens, entry: &Entry) -> bool {
    let verified = &entry.verified;
    verified.epoch == tokens.epoch(entry.issuer)
        && tokens.clock().unix() < verified.identity.expires_at
        && !tokens.is_ended(&verified.identity)
}
