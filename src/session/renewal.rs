//! The renewal of a session whose access token is old (contract, section 5): one call to the provider for everybody who
//! brings the same refresh token. What the new token says, `authn` verifies; where it is kept, the jar knows.

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::config::value::Rate;
use crate::exchange::Identity;
use crate::limit::local::{Budget, Key};
use crate::provider::supabase::Supabase;
use crate::provider::{Browser, Grant, RefreshError, Refreshes};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a request waits for a renewal that it could do without: its token still serves.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits when the provider let somebody wait in vain: for an outcome that is there.
const NO_PATIENCE: Duration = Duration::from_millis(5);
/// How long after that nobody waits longer. The reference client leaves a failure alone for a minute.
const SLOW_SECONDS: u64 = 30;
/// Renewals of sessions that nobody vouches for: the key that signed their tokens is gone, and so anybody may have made them
/// up. They must not use up what the others need.
const UNVOUCHED: Rate = Rate {
    count: NonZeroU32::MIN.saturating_add(59),
    per: Duration::from_secs(300),
};

/// Renewals that a user may ask for in so many words.
const ON_DEMAND: Rate = Rate {
    count: NonZeroU32::MIN.saturating_add(9),
    per: Duration::from_secs(60),
};

/// A session is renewed at the earliest when this part of its token's life is left: a provider whose tokens live for a
/// minute must not be asked with each request.
const PART_OF_LIFE: u64 = 5;

/// How the sessions of one provider are renewed.
pub struct Renewal {
    provider: Arc<Supabase>,
    refreshes: Arc<Refreshes>,
    ahead: Duration,
    clock: Clock,
    unvouched: Budget,
    on_demand: Budget,
    /// Until when nobody waits who could do without, in Unix seconds: the provider let somebody wait in vain.
    slow_until: AtomicU64,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("provider", self.provider.name())
            .field("ahead", &self.ahead)
            .finish_non_exhaustive()
    }
}

/// Why a renewal is wanted now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// Its token is old, and serves still.
    Ahead,
    /// Nothing can be done without it.
    Needed,
    /// Somebody asked for it in so many words; stands for the user.
    Asked(u128),
}

/// Why a session does not go on.
#[derive(Debug)]
pub enum NotRenewed {
    /// It is over for good.
    Over {
        /// The provider's word for why.
        code: &'static str,
    },
    /// It has no refresh token, or one that only somebody else may use.
    Cannot,
    /// A user asks for it more often than is any good. When it may be asked for again.
    TooOften(Duration),
    /// Not now. The session stays as it is.
    Later {
        /// Until when the provider asks to be left alone.
        retry_after: Option<Duration>,
        /// For the log.
        why: Arc<str>,
    },
}

impl Renewal {
    /// Renews the sessions of `provider`, `ahead` of their end.
    pub fn new(
        provider: Arc<Supabase>,
        refreshes: Arc<Refreshes>,
        ahead: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            provider,
            refreshes,
            ahead,
            unvouched: Budget::new(UNVOUCHED, UNVOUCHED.count, &clock),
            on_demand: Budget::new(ON_DEMAND, ON_DEMAND.count, &clock),
            clock,
            slow_until: AtomicU64::new(0),
        }
    }

    /// From when on a session with this token should be renewed, in Unix seconds.
    pub fn due(&self, identity: &Identity) -> u64 {
        let issued = identity
            .claims
            .get("iat")
            .and_then(serde_json::Value::as_f64);
        let life = match issued {
            // A float is cut: a second does not matter here.
            Some(issued) if issued >= 0.0 => identity.expires_at.saturating_sub(issued as u64),
            _ => u64::MAX,
        };
        let lead = self.ahead.as_secs().min(life / PART_OF_LIFE);
        identity.expires_at.saturating_sub(lead)
    }

    /// Whom logins go to.
    pub fn provider(&self) -> &Arc<Supabase> {
        &self.provider
    }

    /// Makes room for the renewal of a session that nobody vouches for.
    pub fn unvouched(&self) -> Result<(), NotRenewed> {
        let all = Key {
            exact: 0,
            coarse: 0,
        };
        match self.unvouched.take(&all) {
            Ok(_) => Ok(()),
            Err(wait) => Err(NotRenewed::Later {
                retry_after: Some(wait),
                why: "too many sessions whose keys are gone".into(),
            }),
        }
    }

    /// The session that follows the one with this refresh token. What cannot wait is waited for as long as a
    /// call to the provider may take. `user` stands for whom its token names.
    ///
    /// Cancel-safe: the call goes on, and its outcome is there for the next who brings the same token.
    pub async fn renew(
        &self,
        refresh_token: Option<&Secret<String>>,
        user: u128,
        browser: &Browser,
        urgency: Urgency,
    ) -> Result<Arc<Grant>, NotRenewed> {
        let Some(token) = refresh_token else {
            return Err(NotRenewed::Cannot);
        };
        if let Urgency::Asked(who) = urgency
            && !self.refreshes.has(&self.provider, token)
        {
            let key = Key {
                exact: who,
                coarse: 0,
            };
            self.on_demand.take(&key).map_err(NotRenewed::TooOften)?;
        }
        let slow = || RefreshError::Later {
            retry_after: None,
            why: "the provider takes longer than is worth waiting for".into(),
        };
        let refresh = self.refreshes.refresh(&self.provider, token, user, browser);
        let is_slow = self.clock.unix() < self.slow_until.load(Ordering::Relaxed);
        let outcome = if urgency != Urgency::Ahead {
            refresh.await
        } else if is_slow && !self.refreshes.has(&self.provider, token) {
            Err(slow())
        } else {
            // What is there already is taken in any case.
            let patience = if is_slow { NO_PATIENCE } else { PATIENCE };
            match tokio::time::timeout(patience, refresh).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    if !is_slow {
                        let until = self.clock.unix() + SLOW_SECONDS;
                        self.slow_until.store(until, Ordering::Relaxed);
                    }
                    Err(slow())
                }
            }
        };
        outcome.map_err(|error| match error {
            RefreshError::Over { code } => NotRenewed::Over { code },
            RefreshError::NotOurs => NotRenewed::Cannot,
            RefreshError::Later { retry_after, why } => NotRenewed::Later { retry_after, why },
            RefreshError::Misconfigured { why } => NotRenewed::Later {
                retry_after: None,
                why,
            },
        })
    }
}
