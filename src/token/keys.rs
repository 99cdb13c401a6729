//! The keys of one provider: fetched in time and in the background, asked for once when a token names an unknown one,
//! kept while their source is away, dropped when it has been away too long. A request waits here only when there is
//! no key to try, and never without a deadline. All fetching runs on the control runtime.

use super::fetch::{FetchError, Fetcher, SetupError};
use super::jwk::{self, Choice, Key, KeySet};
use super::status::{ProviderStatus, RefreshCounts};
use super::verify::Reason;
use crate::base::clock::Clock;
use crate::config::provider::Provider;
use arc_swap::ArcSwapOption;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// How soon requests may ask again for keys that never came.
const FIRST_KEYS_RETRY: Duration = Duration::from_secs(1);
/// Longest pause of the background between two attempts that fail.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Shortest pause of the background between two fetches, whatever the configuration says.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// What a look at the keys gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The signature holds.
    Holds,
    /// It does not, or no key may be tried.
    Refused(Reason),
    /// A fresh key set might know the key.
    Unknown,
}

/// A set and when it came.
#[derive(Debug)]
struct Fetched {
    set: KeySet,
    at: Instant,
}

/// Who wants a key set. Flights of the two are counted apart: a routine refresh must not use up the one look that an
/// unknown key gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Why {
    Routine,
    UnknownKey,
}

/// When the background tries next, and how the last attempts went.
#[derive(Debug)]
struct Plan {
    next: Instant,
    failures: u32,
    error: Option<Arc<str>>,
}

/// All keys of one provider.
#[derive(Debug)]
pub(super) struct Keys {
    name: Arc<str>,
    /// The shared secret: a ring of its own, which no public key ever enters.
    secret: Option<Key>,
    /// From `public_key_file`.
    file: Option<Key>,
    source: Option<Fetcher>,
    set: ArcSwapOption<Fetched>,
    ever: AtomicBool,
    epoch: AtomicU64,
    ttl: Duration,
    max_stale: Duration,
    cooldown: Duration,
    deadline: Duration,
    clock: Clock,
    control: Handle,
    /// One flight for each reason, and when it landed.
    flights: moka::future::Cache<Why, Instant>,
    /// Fetches do not overtake one another: a later one sees later keys.
    turn: tokio::sync::Mutex<()>,
    plan: Mutex<Plan>,
    nudge: Arc<Notify>,
    background: OnceLock<tokio::task::AbortHandle>,
    counts: RefreshCounts,
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(task) = self.background.get() {
            task.abort();
        }
    }
}

impl Keys {
    /// Reads the keys that are in the configuration and starts to fetch those that are not. `seed`: keys that came from the
    /// same address under other settings; they serve until the first fetch.
    pub(super) fn start(
        provider: &Provider,
        clock: Clock,
        control: Handle,
        seed: Option<&Self>,
    ) -> Result<Arc<Self>, SetupError> {
        let wrong = |what, why| SetupError::Key {
            provider: provider.name.clone(),
            what,
            why,
        };
        let secret = match &provider.keys.secret {
            None => None,
            Some(secret) => Some(
                Key::secret(secret.expose())
                    .ok_or_else(|| wrong("the shared secret", "it must have at least 32 bytes"))?,
            ),
        };
        let file = match &provider.keys.public_key {
            None => None,
            Some(pem) => Some(Key::from_pem(pem).map_err(|why| wrong("`public_key_file`", why))?),
        };
        let source = match &provider.keys.jwks_url {
            None => None,
            Some(url) => Some(Fetcher::new(provider, url)?),
        };
        let keys = Arc::new(Self {
            name: provider.name.clone(),
            secret,
            file,
            source,
            set: ArcSwapOption::new(seed.and_then(|old| old.set.load_full())),
            ever: AtomicBool::new(seed.is_some_and(|old| old.ever.load(Ordering::Acquire))),
            epoch: AtomicU64::new(0),
            ttl: provider.jwks_ttl.max(SHORTEST_PAUSE),
            max_stale: provider.jwks_max_stale.max(provider.jwks_ttl),
            cooldown: provider.jwks_refetch_cooldown,
            deadline: provider.http_timeout,
            flights: moka::future::Cache::new(16),
            turn: tokio::sync::Mutex::new(()),
            plan: Mutex::new(Plan {
                next: clock.now(),
                failures: 0,
                error: None,
            }),
            nudge: Arc::new(Notify::new()),
            background: OnceLock::new(),
            counts: RefreshCounts::default(),
            clock,
            control,
        });
        if keys.source.is_some() {
            let task = keys
                .control
                .spawn(refresh_in_time(Arc::downgrade(&keys), keys.nudge.clone()));
            // Nobody else has `keys` yet, so the cell is empty.
            let _ = keys.background.set(task.abort_handle());
        }
        Ok(keys)
    }

    /// Whether these keys are the ones that `new` would have: nothing that they depend on has changed.
    pub(super) fn serve(old: &Provider, new: &Provider) -> bool {
        old.name == new.name
            && old.keys == new.keys
            && old.jwks_ttl == new.jwks_ttl
            && old.jwks_max_stale == new.jwks_max_stale
            && old.jwks_refetch_cooldown == new.jwks_refetch_cooldown
            && old.http_timeout == new.http_timeout
            && old.ca_file == new.ca_file
            && old.allow_insecure_http == new.allow_insecure_http
    }

    /// Whether a set that was fetched for `old` is one that `new` would fetch.
    pub(super) fn seed(old: &Provider, new: &Provider) -> bool {
        old.name == new.name && old.keys.jwks_url == new.keys.jwks_url
    }

    /// Tries the keys at hand. Touches no network.
    pub(super) fn try_known(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        message: &[u8],
        signature: &str,
    ) -> Tried {
        let tried = |keys: &[&Key]| {
            if keys
                .iter()
                .any(|key| key.verifies(algorithm, message, signature))
            {
                Tried::Holds
            } else {
                Tried::Refused(Reason::Signature)
            }
        };
        if jwk::is_symmetric(algorithm) {
            return match &self.secret {
                Some(key) if key.fits(algorithm) => tried(&[key]),
                _ => Tried::Refused(Reason::WrongKey),
            };
        }
        let fetched = self.current();
        let choice = match &fetched {
            Some(fetched) => fetched.set.choose(kid, algorithm),
            None => Choice::Unknown,
        };
        match (choice, &self.file) {
            (Choice::Keys(keys), _) => tried(&keys),
            (Choice::WrongAlgorithm, _) => Tried::Refused(Reason::WrongKey),
            (Choice::Ambiguous, _) => Tried::Refused(Reason::AmbiguousKey),
            (Choice::Unknown, Some(key)) if key.fits(algorithm) => tried(&[key]),
            (Choice::Unknown, _) if self.source.is_none() => Tried::Refused(Reason::WrongKey),
            (Choice::Unknown, _) => Tried::Unknown,
        }
    }

    /// Looks for a key that is not at hand: waits for the first set, or asks for a fresh one unless that was done within
    /// `jwks_refetch_cooldown`. Returns after `http_timeout` at the latest; the fetch itself goes on.
    ///
    /// Cancel-safe: the fetch is a task of the control runtime, shared by all who wait.
    pub(super) async fn look_again(self: &Arc<Self>) {
        let (why, pause) = match self.current() {
            None => (Why::Routine, FIRST_KEYS_RETRY),
            Some(_) => (Why::UnknownKey, self.cooldown),
        };
        // The usual case under a flood: it was just done. No task for that.
        if let Some(landed) = self.flights.get(&why).await
            && self.since(landed) < pause
        {
            return;
        }
        let keys = self.clone();
        let flight = self
            .control
            .spawn(async move { keys.fly(why, pause).await });
        let _ = tokio::time::timeout(self.deadline, flight).await;
    }

    /// Whether there are public keys to try.
    pub(super) fn has_set(&self) -> bool {
        self.current().is_some()
    }

    /// Changes when a key goes: what it verified before counts no more.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Makes everything verified so far be verified again.
    pub(super) fn bump(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether there was ever a key.
    pub(super) fn were_there(&self) -> bool {
        self.secret.is_some() || self.file.is_some() || self.ever.load(Ordering::Acquire)
    }

    pub(super) fn counts(&self) -> &RefreshCounts {
        &self.counts
    }

    pub(super) fn status(&self) -> ProviderStatus {
        let fetched = self.current();
        let fixed = usize::from(self.secret.is_some()) + usize::from(self.file.is_some());
        ProviderStatus {
            name: self.name.clone(),
            keys: fixed + fetched.as_ref().map_or(0, |f| f.set.len()),
            ignored: fetched.as_ref().map_or(0, |f| f.set.ignored),
            fetched_ago: fetched.as_ref().map(|f| self.since(f.at)),
            last_error: self.plan.lock().error.clone(),
        }
    }

    /// The set, unless it has been without a good fetch for too long.
    fn current(&self) -> Option<Arc<Fetched>> {
        let fetched = self.not_too_old()?;
        if self.since(fetched.at) > self.ttl {
            // The background overslept (a suspended machine); it is told, nobody waits.
            self.nudge.notify_one();
        }
        Some(fetched)
    }

    /// The set, unless it is too old to be used: then it is dropped, and what it verified with it.
    fn not_too_old(&self) -> Option<Arc<Fetched>> {
        let fetched = self.set.load_full()?;
        if self.since(fetched.at) <= self.max_stale {
            return Some(fetched);
        }
        let found = self.set.compare_and_swap(&fetched, None);
        if found.as_ref().is_some_and(|f| Arc::ptr_eq(f, &fetched)) {
            self.bump();
            tracing::error!(provider = %self.name, "keys are too old and no longer used");
        }
        None
    }

    fn since(&self, then: Instant) -> Duration {
        self.clock.now().saturating_duration_since(then)
    }

    /// One fetch for all who want one for the same reason, none within `pause` of the last.
    async fn fly(&self, why: Why, pause: Duration) {
        self.flights
            .entry(why)
            .or_insert_with_if(
                async {
                    self.fetch().await;
                    self.clock.now()
                },
                |landed| self.since(*landed) >= pause,
            )
            .await;
    }

    async fn fetch(&self) {
        let Some(source) = &self.source else { return };
        let _turn = self.turn.lock().await;
        match source.get().await.and_then(|body| self.read(&body)) {
            Ok(set) => self.keep(set),
            Err(error) => self.fail(&error),
        }
    }

    /// An empty set is good only for a provider that signs with its secret and never had another key: that is what
    /// Supabase answers for such projects.
    fn read(&self, body: &[u8]) -> Result<KeySet, FetchError> {
        let set = KeySet::parse(body).ok_or(FetchError::Unusable)?;
        let without = set.ignored == 0
            && self.secret.is_some()
            && self
                .set
                .load()
                .as_ref()
                .is_none_or(|old| old.set.is_empty());
        if set.is_empty() && !without {
            return Err(FetchError::Unusable);
        }
        Ok(set)
    }

    fn keep(&self, set: KeySet) {
        let at = self.clock.now();
        let count = set.len();
        let old = self.set.load_full();
        let all_stay = old.is_none_or(|old| old.set.is_within(&set));
        self.set.store(Some(Arc::new(Fetched { set, at })));
        if !all_stay {
            // After the store: whoever reads the new epoch finds the new keys.
            self.bump();
            tracing::info!(provider = %self.name, keys = count, "a key was withdrawn");
        }
        if !self.ever.swap(true, Ordering::AcqRel) {
            tracing::info!(provider = %self.name, keys = count, "keys fetched");
        }
        self.counts.ok.fetch_add(1, Ordering::Relaxed);
        let mut plan = self.plan.lock();
        // Well before the set is old, so that nobody ever waits for it.
        plan.next = at + (self.ttl * 4 / 5).max(SHORTEST_PAUSE);
        plan.failures = 0;
        plan.error = None;
    }

    fn fail(&self, error: &FetchError) {
        let count = match error {
            FetchError::Unreachable(_) => &self.counts.unreachable,
            _ => &self.counts.unusable,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            text = format!("{text}: {inner}");
            cause = inner.source();
        }
        if self.set.load().is_some() {
            tracing::warn!(provider = %self.name, error = %text, "keys not refreshed, the known ones serve");
        } else {
            tracing::error!(provider = %self.name, error = %text, "keys not fetched");
        }
        let mut plan = self.plan.lock();
        let pause = SHORTEST_PAUSE * 2_u32.saturating_pow(plan.failures.min(8));
        plan.next = self.clock.now() + pause.min(LONGEST_BACKOFF);
        plan.failures = plan.failures.saturating_add(1);
        plan.error = Some(text.into());
    }

    /// How long the background may sleep: until the next attempt, or until the set is too old to be used.
    fn until_due(&self) -> Duration {
        let now = self.clock.now();
        let attempt = self.plan.lock().next.saturating_duration_since(now);
        match self.set.load().as_ref() {
            Some(fetched) => {
                let end = (fetched.at + self.max_stale).saturating_duration_since(now);
                attempt.min(end + Duration::from_millis(1))
            }
            None => attempt,
        }
    }
}

/// Keeps the set fresh until its owner goes.
async fn refresh_in_time(keys: Weak<Keys>, nudge: Arc<Notify>) {
    loop {
        let wait = match keys.upgrade() {
            Some(keys) => {
                // Drops a set that is too old, also when no request asks. Never nudges: that would wake itself without end.
                let _ = keys.not_too_old();
                if keys.plan.lock().next <= keys.clock.now() {
                    keys.fly(Why::Routine, Duration::ZERO).await;
                }
                keys.until_due()
            }
            None => return,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = nudge.notified() => {}
        }
    }
}
