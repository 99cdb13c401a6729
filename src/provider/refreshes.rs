//! One call for each refresh token, whoever waits for it (contract, section 5): all tabs of a browser that find their token
//! old at the same time, and the requests that left it before it knew of the new one; with Redis also those that come to
//! other gateways.

use super::error::RefreshError;
use super::lease::{Leases, Turn};
use super::random::{self, NoRandomness};
use super::supabase::Supabase;
use super::{Browser, Grant};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::base::single_flight::{Crash, Landed, SingleFlight};
use crate::config::value::Rate;
use crate::limit::local::{Budget, Key};
use crate::redis::Redis;
use aws_lc_rs::hmac;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// How long a used token gets the same new session again: the reuse interval of Supabase, by whose rules a copy of the
/// gateway that knows nothing of it gets the same. Never longer than the access token in it lives.
const REUSE: Duration = Duration::from_secs(10);
/// How long a refusal is remembered. What was refused stays refused, a ban lifted meanwhile aside.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a failure that may pass is: an outage is not asked again by every request.
const FAILED: Duration = Duration::from_secs(1);
/// Longest that the provider's own `Retry-After` makes it.
const FAILED_MAX: Duration = Duration::from_secs(10);
/// Flights and remembered outcomes together; some 5 kB each, at most 256 KiB.
const ENTRIES_MAX: usize = 4096;

/// Refused refresh tokens of one user. Each of their sessions can end once.
const REFUSALS: Rate = Rate {
    count: NonZeroU32::MIN.saturating_add(29),
    per: Duration::from_secs(300),
};

/// What a refresh came to, shared by all who wanted it.
pub(super) type Outcome = Result<Arc<Grant>, RefreshError>;

/// The refreshes of a process, of every provider: to be kept over reloads.
pub struct Refreshes {
    counts: Arc<Counts>,
    flights: SingleFlight<[u8; 32], Outcome>,
    /// For each user: who makes refresh tokens up needs many accounts to use up what the provider allows the gateway.
    refusals: Arc<Budget>,
    /// Of this process: what is in memory cannot be tried against tokens without it.
    key: hmac::Key,
    /// With whom else calls are shared.
    leases: Option<Arc<Leases>>,
    clock: Clock,
}

/// How the calls went, since the start.
#[derive(Debug, Default)]
struct Counts([AtomicU64; 4]);

impl Counts {
    fn note(&self, outcome: &Outcome) {
        let [ok, over, later, refused] = &self.0;
        let count = match outcome {
            Ok(_) => ok,
            Err(RefreshError::Over { .. } | RefreshError::NotOurs) => over,
            Err(RefreshError::Later { .. }) => later,
            Err(RefreshError::Misconfigured { .. }) => refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Refreshes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshes")
            .field("flights", &self.flights)
            .finish_non_exhaustive()
    }
}

impl Refreshes {
    /// Nothing under way. `control` must run for as long as sessions are refreshed.
    pub fn new(clock: Clock, control: Handle) -> Result<Self, NoRandomness> {
        let key = Secret::new(random::bytes::<32>()?);
        Ok(Self {
            counts: Arc::default(),
            refusals: Arc::new(Budget::new(REFUSALS, REFUSALS.count, &clock)),
            flights: SingleFlight::new(ENTRIES_MAX, clock.clone(), control),
            key: hmac::Key::new(hmac::HMAC_SHA256, key.expose()),
            leases: None,
            clock,
        })
    }

    /// The same, shared with all gateways that use this Redis: of them one makes the call, and the others get its outcome.
    /// While Redis is away each goes on for itself, which the provider's reuse interval allows.
    #[must_use]
    pub fn shared(self, redis: Redis) -> Self {
        Self {
            leases: Some(Arc::new(Leases::new(redis))),
            ..self
        }
    }

    /// A new session for `token`: from a call that is made now, is under way, or ended a moment ago. Of those who want one
    /// at once, the first one's browser is the one that the provider hears of.
    ///
    /// `user` stands for whom the old token names: how many of theirs the provider may refuse is bounded.
    ///
    /// Cancel-safe: the call goes on, and its outcome is there for the next who brings the token. Ends a little after the
    /// provider's `http_timeout` at the latest.
    pub async fn refresh(
        &self,
        provider: &Arc<Supabase>,
        token: &Secret<String>,
        user: u128,
        browser: &Browser,
    ) -> Outcome {
        let work = || {
            let call = Call {
                provider: provider.clone(),
                token: token.clone(),
                user: Key {
                    exact: user,
                    coarse: 0,
                },
                browser: browser.clone(),
                counts: self.counts.clone(),
                refusals: self.refusals.clone(),
            };
            call.land(self.leases.clone(), self.clock.clone())
        };
        let key = self.key(provider.name(), token);
        let why = match timeout(provider.patience(), self.flights.get(key, work)).await {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(Crash::Full)) => "too many refreshes are under way",
            Ok(Err(Crash::Died)) => "the refresh ended without an answer",
            Err(_) => "no answer in time",
        };
        Err(RefreshError::Later {
            retry_after: None,
            why: why.into(),
        })
    }

    /// Whether [`Refreshes::refresh`] would make no call for `token`: one is under way, or ended a moment ago.
    pub fn has(&self, provider: &Supabase, token: &Secret<String>) -> bool {
        self.flights.has(&self.key(provider.name(), token))
    }

    /// Lets go of sessions that are no longer handed out. To be called every few seconds.
    pub fn sweep(&self) {
        self.flights.sweep();
        self.refusals.sweep();
    }

    /// Calls that were made, by what came of them: a new session; the session is over; it may work later; the provider
    /// refuses us.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let [ok, over, later, refused] = &self.counts.0;
        [
            ("ok", ok),
            ("over", over),
            ("later", later),
            ("refused", refused),
        ]
        .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// Refreshes under way and outcomes that are remembered.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Keyed hash of provider and whole token: the only thing that makes two refreshes one.
    fn key(&self, provider: &str, token: &Secret<String>) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        // The length keeps a name and the token behind it apart.
        context.update(&(provider.len() as u64).to_be_bytes());
        context.update(provider.as_bytes());
        context.update(token.expose().as_bytes());
        let mut key = [0; 32];
        for (to, from) in key.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        key
    }
}

/// One refresh, if it comes to a call.
struct Call {
    provider: Arc<Supabase>,
    token: Secret<String>,
    user: Key,
    browser: Browser,
    counts: Arc<Counts>,
    refusals: Arc<Budget>,
}

impl Call {
    /// Makes the call, or gets to know what it came to elsewhere.
    async fn land(self, leases: Option<Arc<Leases>>, clock: Clock) -> Landed<Outcome> {
        let turn = match &leases {
            None => Turn::Alone,
            Some(leases) => {
                let patience = self.provider.patience();
                leases
                    .turn(self.provider.name(), &self.token, patience)
                    .await
            }
        };
        let keep = |outcome: &Outcome| keep(outcome, clock.unix_millis());
        let value = match turn {
            Turn::Told(value, left) => {
                return Landed {
                    keep: keep(&value).min(left),
                    value,
                };
            }
            Turn::Alone => self.make().await,
            Turn::Ours(lease) => lease.during(self.make(), keep).await,
            Turn::Late => Err(RefreshError::Later {
                retry_after: None,
                why: "another gateway is asking, and has no answer yet".into(),
            }),
        };
        Landed {
            keep: keep(&value),
            value,
        }
    }

    async fn make(&self) -> Outcome {
        let outcome = match self.refusals.empty_for(&self.user) {
            None => {
                let grant = self.provider.refresh(&self.token, &self.browser).await;
                grant.map(Arc::new)
            }
            Some(wait) => Err(RefreshError::Later {
                retry_after: Some(wait),
                why: "too many refused refresh tokens of one user".into(),
            }),
        };
        if matches!(
            outcome,
            Err(RefreshError::Over { .. } | RefreshError::NotOurs)
        ) {
            let _ = self.refusals.take(&self.user);
        }
        log(&self.provider, &outcome);
        self.counts.note(&outcome);
        outcome
    }
}

/// `now`: Unix milliseconds.
fn keep(outcome: &Outcome, now: u64) -> Duration {
    match outcome {
        // Whoever comes when it is over must get another one. The least is for clocks that differ, by which it may be over
        // at once: not every request may ask then.
        Ok(grant) => {
            let end = grant.expires_at.saturating_mul(1000);
            Duration::from_millis(end.saturating_sub(now)).clamp(FAILED, REUSE)
        }
        Err(RefreshError::Over { .. } | RefreshError::NotOurs) => REFUSED,
        Err(RefreshError::Later { retry_after, .. }) => {
            retry_after.unwrap_or(FAILED).clamp(FAILED, FAILED_MAX)
        }
        Err(RefreshError::Misconfigured { .. }) => FAILED,
    }
}

/// Once for each call, however many waited for it.
fn log(provider: &Supabase, outcome: &Outcome) {
    let provider = provider.name();
    match outcome {
        Ok(_) => {}
        Err(error @ RefreshError::Over { .. }) => {
            tracing::debug!(%provider, %error, "a session is over");
        }
        Err(error @ (RefreshError::NotOurs | RefreshError::Later { .. })) => {
            tracing::warn!(%provider, %error, "a session was not refreshed");
        }
        Err(error @ RefreshError::Misconfigured { .. }) => {
            tracing::error!(%provider, %error, "no session can be refreshed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_of_the_whole_token_and_of_its_provider() {
        let new = || Refreshes::new(Clock::frozen(1), Handle::current()).unwrap();
        let (here, elsewhere) = (new(), new());
        let key = |room: &Refreshes, provider: &str, token: &str| {
            room.key(provider, &Secret::new(token.to_owned()))
        };
        let long = "v2".repeat(31);
        let other_end = format!("{}x", &long[..long.len() - 1]);
        let keys = [
            key(&here, "main", "abcdefghijkl"),
            key(&here, "main", "abcdefghijk"),
            key(&here, "main", "abcdefghijklm"),
            key(&here, "main", &long),
            key(&here, "main", &other_end),
            key(&here, "maina", "bcdefghijkl"),
            key(&here, "other", "abcdefghijkl"),
            key(&elsewhere, "main", "abcdefghijkl"),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[at + 1..].contains(one), "{at}");
        }
        assert_eq!(keys[0], key(&here, "main", "abcdefghijkl"));
    }

    #[test]
    fn outcomes_are_remembered_for_as_long_as_they_hold() {
        let later = |secs: Option<u64>| {
            Err(RefreshError::Later {
                retry_after: secs.map(Duration::from_secs),
                why: "x".into(),
            })
        };
        let lives_until = |expires_at: u64| {
            let secret = || Secret::new(String::new());
            Ok(Arc::new(Grant {
                text: secret(),
                access_token: secret(),
                refresh_token: secret(),
                expires_at,
            }))
        };
        for (outcome, millis) in [
            (lives_until(1_000 + 3600), 10_000),
            // Whole seconds of a moment between two.
            (lives_until(1_000 + 7), 6_700),
            (lives_until(1_000 - 5), 1_000),
            (
                Err(RefreshError::Over {
                    code: "user_banned",
                }),
                30_000,
            ),
            (Err(RefreshError::NotOurs), 30_000),
            (later(None), 1_000),
            (later(Some(0)), 1_000),
            (later(Some(5)), 5_000),
            (later(Some(3600)), 10_000),
            (Err(RefreshError::Misconfigured { why: "x".into() }), 1_000),
        ] {
            assert_eq!(
                keep(&outcome, 1_000_300),
                Duration::from_millis(millis),
                "{outcome:?}"
            );
        }
    }
}
