//! Sessions behind an opaque id: the browser has 256 random bits and Redis, under their hash, what they stand for, sealed
//! by the session keys. Ends when it was not used for `idle_timeout`, which is the record's own life in Redis, after
//! `max_age`, or when it is deleted; a deletion wins over a renewal that comes late. When Redis is away there is no
//! session and no telling whether there is one: an error, never "not signed in".

mod cache;
mod id;
mod record;
mod scripts;

pub use id::SessionId;
pub use record::Record;

use super::sealed::KeyRing;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::provider::NoRandomness;
use crate::redis::{Failure, Redis};
use ::redis::{cmd, pipe};
use cache::ReadCache;
use id::Key;
use scripts::{CREATE, REPLACE, TAKE, TAKE_SOME};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Most sessions of one user. With one more, the one that is over soonest ends.
const OF_ONE_USER_MAX: usize = 1000;
/// Largest sealed record, in bytes. Providers' sessions have some 3 kB.
const RECORD_BYTES_MAX: usize = 64 * 1024;
/// Records that are deleted at once when all of a user's go: some 200 kB.
const BATCH: usize = 64;
/// Batches of all that a user can have, and what came meanwhile.
const BATCHES_MAX: u32 = 20;
/// The life of a record is set anew when so many per cent of it are left.
const FRESH_PERCENT: u64 = 90;
/// How much longer than its steps may take a task is awaited: for a control runtime that is stuck.
const GRACE: Duration = Duration::from_millis(50);

/// How long stored sessions live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Without being used.
    pub idle_timeout: Duration,
    /// From their beginning, however much they are used.
    pub max_age: Duration,
    /// How long what was read of one counts here without asking again. Zero: not at all.
    pub cache_ttl: Duration,
}

/// The sessions of one configuration. Cheap to clone.
#[derive(Clone)]
pub struct StoredSessions(Arc<Inner>);

struct Inner {
    redis: Redis,
    ring: KeyRing,
    rules: Rules,
    clock: Clock,
    cache: Option<ReadCache>,
}

/// A session as it was read.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it holds.
    pub record: Record,
    /// When it was read, in Unix seconds.
    pub read_at: u64,
    version: Version,
}

/// Tells one sealed value from every other: its tag.
type Version = [u8; 16];

/// What came of an attempt to write the session that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is there.
    Done,
    /// There is no session any more: it was ended or is over. It stays ended.
    Gone,
    /// Somebody else has written one since it was read. What stands there stays.
    Changed,
}

/// What came of the deletion of all sessions of a user.
#[derive(Clone, Debug)]
pub struct DeletedAll {
    /// The provider's own ids of those that were deleted, as far as they had one.
    pub provider_sessions: Vec<Box<str>>,
    /// Whether all were, or why some may be left.
    pub complete: Result<(), StoreError>,
}

/// Why a session could not be read or written. Nothing is known then of whether it exists.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Redis is away or refuses.
    #[error(transparent)]
    Redis(#[from] Failure),
    /// It is older than `max_age` before it has begun.
    #[error("the session is over")]
    Over,
    /// It is larger than any session of a provider, or names no user.
    #[error("the session cannot be stored")]
    Unstorable,
    /// No key of ours opens it. One that has not come to all replicas yet would.
    #[error("no session key opens the session")]
    Unopened,
    /// The cryptographic library refused.
    #[error("the session could not be sealed")]
    Cryptography,
    /// The system gives no random bytes.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl fmt::Debug for StoredSessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSessions")
            .field("rules", &self.0.rules)
            .field("cache", &self.0.cache)
            .finish_non_exhaustive()
    }
}

impl StoredSessions {
    /// Sessions in this Redis, sealed by the first key of the ring.
    pub fn new(redis: Redis, ring: KeyRing, rules: Rules, clock: Clock) -> Self {
        let cache = (rules.cache_ttl > Duration::ZERO).then(|| ReadCache::new(rules.cache_ttl));
        Self(Arc::new(Inner {
            redis,
            ring,
            rules,
            clock,
            cache,
        }))
    }

    /// Stores a new session under an id that nobody has seen.
    pub async fn create(&self, record: &Record) -> Result<SessionId, StoreError> {
        let id = SessionId::random()?;
        match self.begin(&id, record).await? {
            true => Ok(id),
            // Of 2^256, twice the same: the generator is broken.
            false => Err(StoreError::NoRandomness(NoRandomness)),
        }
    }

    /// Stores a session that begins with `from`, its first refresh token, unless somebody has done so: all who bring the
    /// same token to gateways with the same first key get the same id. The second says whether it was stored now.
    pub async fn create_once(
        &self,
        from: &Secret<String>,
        record: &Record,
    ) -> Result<(SessionId, bool), StoreError> {
        let parts = [record.user.as_bytes(), from.expose().as_bytes()];
        let id = SessionId::of(self.0.ring.derive(&parts));
        let created = self.begin(&id, record).await?;
        Ok((id, created))
    }

    /// The session of an id. `None`: there is none, or it is over. One that is used lives on.
    ///
    /// May be up to `cache_ttl` old. Cancel-safe.
    pub async fn read(&self, id: &SessionId) -> Result<Option<Arc<Found>>, StoreError> {
        let (inner, key) = (&self.0, id.key());
        let now = inner.clock.now();
        let cached = inner.cache.as_ref().and_then(|cache| cache.get(&key, now));
        if let Some(found) = cached {
            let lives = inner.life(&found.record).is_some();
            return Ok(lives.then_some(found));
        }
        let begun = inner.cache.as_ref().map(|cache| cache.begin(&key));
        let name = key.name();
        let mut both = pipe();
        both.cmd("GET").arg(&name).cmd("PTTL").arg(&name);
        let (sealed, left): (Option<Vec<u8>>, i64) = inner.redis.ask_all(both).await?;
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let found = inner.open(&name, &sealed).ok_or(StoreError::Unopened)?;
        let Some(life) = inner.life(&found.record) else {
            return Ok(None);
        };
        if is_stale(left, life) {
            let mut extend = cmd("PEXPIRE");
            extend.arg(&name).arg(millis(life));
            // One that fails is tried again by the next who reads.
            let _ = inner.redis.ask::<i64>(extend).await;
        }
        let found = Arc::new(found);
        if let (Some(cache), Some(begun)) = (&inner.cache, begun) {
            cache.put(key, found.clone(), begun, now);
        }
        Ok(Some(found))
    }

    /// Puts the session that follows `old` in its place, with the life that was left.
    ///
    /// Cancel-safe: it goes on.
    pub async fn replace(
        &self,
        id: &SessionId,
        old: &Found,
        new: &Record,
    ) -> Result<Replaced, StoreError> {
        let key = id.key();
        let name = key.name();
        let sealed = self.0.seal(&name, new)?;
        let (store, version) = (self.clone(), old.version);
        self.whole(1, async move {
            let mut call = REPLACE.key(name);
            call.arg(&version[..]).arg(sealed);
            let answer = store.0.redis.run::<i64>(call).await;
            store.0.forget(&key);
            Ok(match answer? {
                0 => Replaced::Gone,
                1 => Replaced::Done,
                _ => Replaced::Changed,
            })
        })
        .await
    }

    /// Ends a session, and says what it was. `None`: there was none that we could read.
    ///
    /// Cancel-safe: it goes on. After an error it may be there still, and is not trusted here unread.
    pub async fn delete(&self, id: &SessionId) -> Result<Option<Record>, StoreError> {
        let (store, key) = (self.clone(), id.key());
        self.whole(2, async move {
            let name = key.name();
            let taken = store.0.redis.run::<Option<Vec<u8>>>(TAKE.key(&name)).await;
            store.0.forget(&key);
            let Some(found) = taken?.and_then(|sealed| store.0.open(&name, &sealed)) else {
                return Ok(None);
            };
            let mut leave = cmd("ZREM");
            leave.arg(id::index(&found.record.user)).arg(name);
            // A name without a record does no harm there, and goes with its time.
            let _ = store.0.redis.ask::<i64>(leave).await;
            Ok(Some(found.record))
        })
        .await
    }

    /// Ends all sessions of a user, except perhaps one.
    ///
    /// Cancel-safe: it goes on.
    pub async fn delete_all_of(&self, user: &str, except: Option<&SessionId>) -> DeletedAll {
        let (store, index) = (self.clone(), id::index(user));
        let spared = except.map(|id| id.key().name()).unwrap_or_default();
        let swept = self.whole(BATCHES_MAX, async move {
            Ok(store.0.delete_all(&index, &spared).await)
        });
        swept.await.unwrap_or_else(|error| DeletedAll {
            provider_sessions: Vec::new(),
            complete: Err(error),
        })
    }

    /// The name of a session's record: what other replicas are told when it has ended, so that they read it again.
    pub fn name(&self, id: &SessionId) -> String {
        id.key().name()
    }

    /// Trusts nothing any more that was read of the record of this name. Names of something else are nobody's.
    pub fn forget(&self, name: &str) {
        if let Some(key) = Key::parse(name) {
            self.0.forget(&key);
        }
    }

    /// Lets go of what was read and counts no more. To be called every few seconds.
    pub fn sweep(&self) {
        if let Some(cache) = &self.0.cache {
            cache.sweep(self.0.clock.now());
        }
    }

    async fn begin(&self, id: &SessionId, record: &Record) -> Result<bool, StoreError> {
        let inner = &self.0;
        let name = id.key().name();
        let life = inner.life(record).ok_or(StoreError::Over)?;
        let sealed = inner.seal(&name, record)?;
        let max_age = inner.rules.max_age;
        let end = record.session.created_at.saturating_add(max_age.as_secs());
        let mut call = CREATE.key(name);
        call.key(id::index(&record.user))
            .arg(sealed)
            .arg(millis(life))
            .arg(end)
            .arg(inner.clock.unix())
            .arg(OF_ONE_USER_MAX)
            .arg(millis(max_age));
        Ok(inner.redis.run::<i64>(call).await? == 1)
    }

    /// Runs to its end whoever waits for it, at most for so many commands.
    async fn whole<T: Send + 'static>(
        &self,
        steps: u32,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let redis = &self.0.redis;
        let task = redis.control().spawn(work);
        match timeout(redis.timeout() * steps + GRACE, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Failure::Away.into()),
        }
    }
}

impl Inner {
    /// How long a session lives from now on if it is not used again. `None`: it is over.
    fn life(&self, record: &Record) -> Option<Duration> {
        let max_age = self.rules.max_age.as_secs();
        let end = record.session.created_at.saturating_add(max_age);
        let left = end.saturating_mul(1000);
        let left = left.checked_sub(self.clock.unix_millis())?;
        let life = Duration::from_millis(left).min(self.rules.idle_timeout);
        (millis(life) > 0).then_some(life)
    }

    fn seal(&self, name: &str, record: &Record) -> Result<Vec<u8>, StoreError> {
        let plain = record.to_bytes().ok_or(StoreError::Unstorable)?;
        if plain.expose().len() > RECORD_BYTES_MAX {
            return Err(StoreError::Unstorable);
        }
        let sealed = self.ring.seal(name, &plain);
        sealed.ok_or(StoreError::Cryptography)
    }

    fn open(&self, name: &str, sealed: &[u8]) -> Option<Found> {
        let plain = self.ring.open(name, sealed).ok()?;
        Some(Found {
            read_at: self.clock.unix(),
            record: Record::from_bytes(plain.expose())?,
            version: *sealed.last_chunk()?,
        })
    }

    fn forget(&self, key: &Key) {
        if let Some(cache) = &self.cache {
            cache.forget(key);
        }
    }

    async fn delete_all(&self, index: &str, spared: &str) -> DeletedAll {
        let mut provider_sessions = Vec::new();
        // Somebody logs in faster than we delete.
        let mut complete = Err(Failure::Away.into());
        for _ in 0..BATCHES_MAX {
            let mut call = TAKE_SOME.key(index);
            call.arg(spared).arg(BATCH);
            let taken = match self.redis.run::<Vec<Vec<u8>>>(call).await {
                Ok(taken) if taken.is_empty() => {
                    complete = Ok(());
                    break;
                }
                Ok(taken) => taken,
                Err(error) => {
                    complete = Err(error.into());
                    break;
                }
            };
            for pair in taken.chunks_exact(2) {
                let [name, sealed] = pair else { continue };
                let Ok(name) = std::str::from_utf8(name) else {
                    continue;
                };
                if let Some(key) = Key::parse(name) {
                    self.forget(&key);
                }
                let found = self.open(name, sealed);
                provider_sessions.extend(found.and_then(|found| found.record.provider_session));
            }
        }
        DeletedAll {
            provider_sessions,
            complete,
        }
    }
}

/// Whether the life that Redis says is left must be set to `life`: it has gone down, or was set by other rules.
fn is_stale(left: i64, life: Duration) -> bool {
    let life = millis(life);
    // Below zero there is no end to it.
    let left = u64::try_from(left).unwrap_or(u64::MAX);
    left > life.saturating_add(1000) || left < life / 100 * FRESH_PERCENT
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_set_anew_when_a_tenth_of_it_has_gone_or_the_rules_have_changed() {
        let life = Duration::from_secs(1000);
        for (left, expected) in [
            (1_000_000, false),
            (900_000, false),
            (899_999, true),
            (1, true),
            // Clocks differ a little.
            (1_000_900, false),
            (1_001_001, true),
            (7_000_000, true),
            (-1, true),
        ] {
            assert_eq!(is_stale(left, life), expected, "{left}");
        }
    }
}
