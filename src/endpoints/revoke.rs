//! What a provider must hear of a logout, and does not hear while it is down: told at once, and else again and again for as
//! long as there is anything to prove the session with. The browser has long been logged out; what is left is a copy of
//! its cookies that somebody else may have, which only the provider can keep from being renewed.

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::provider::supabase::{Scope, Supabase};
use crate::provider::{Browser, LogoutError, RefreshError, Refreshes};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

/// First calls under way. More are put off.
const FIRST_AT_ONCE: usize = 256;
/// Of those that are pending, so many are told at the same moment: logins share what they take.
const AGAIN_AT_ONCE: usize = 4;
/// Seconds for which a session that can still be renewed is told of, at least.
const PATIENCE: u64 = 3600;

/// A session that was ended here and lives at its provider. Its token's signature has been verified.
pub struct Revocable {
    /// Proves the user, until it is over.
    pub access_token: Secret<String>,
    /// Its `exp`, in Unix seconds.
    pub expires_at: u64,
    /// Gets another token when this one is over. `None` where the session goes on ([`Scope::Others`]): nobody may spend what
    /// its browser keeps.
    pub refresh_token: Option<Secret<String>>,
    /// Stands for the user, as [`Refreshes::refresh`] wants it.
    pub user: u128,
}

impl fmt::Debug for Revocable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocable")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// How pending logouts are told again.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Before the second attempt; doubles with each.
    pub first_wait: Duration,
    /// Longest wait between two.
    pub longest_wait: Duration,
    /// Most that are pending at once. More are given up.
    pub pending_max: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(5),
            longest_wait: Duration::from_secs(60),
            pending_max: 1000,
        }
    }
}

/// The logouts of a process that providers have not heard of: to be kept over reloads, lost when the process ends.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    refreshes: Arc<Refreshes>,
    clock: Clock,
    control: Handle,
    first: Arc<Semaphore>,
    pending: Arc<Semaphore>,
    again: Semaphore,
    pace: Pace,
}

/// Why a session still lives.
enum Not {
    /// Another attempt may do.
    Yet(String),
    /// The provider refuses us. Another attempt may do, when a person has acted.
    Us(String),
    /// None will.
    Ever(String),
}

impl From<LogoutError> for Not {
    fn from(error: LogoutError) -> Self {
        let why = error.to_string();
        match error {
            LogoutError::TokenRefused { .. } => Self::Ever(why),
            LogoutError::Later { .. } => Self::Yet(why),
            LogoutError::Misconfigured { .. } => Self::Us(why),
        }
    }
}

/// One logout.
struct Task {
    inner: Arc<Inner>,
    provider: Arc<Supabase>,
    what: Revocable,
    scope: Scope,
    browser: Browser,
}

impl Revocations {
    /// Nothing pending. `control` must run for as long as anybody logs out.
    pub fn new(refreshes: Arc<Refreshes>, clock: Clock, control: Handle, pace: Pace) -> Self {
        Self(Arc::new(Inner {
            refreshes,
            clock,
            control,
            first: Arc::new(Semaphore::new(FIRST_AT_ONCE)),
            pending: Arc::new(Semaphore::new(pace.pending_max)),
            again: Semaphore::new(AGAIN_AT_ONCE),
            pace,
        }))
    }

    /// How many logouts providers have not heard of.
    pub fn pending(&self) -> usize {
        let free = self.0.pending.available_permits();
        self.0.pace.pending_max.saturating_sub(free)
    }

    /// Tells the provider, and waits for the first attempt: a little longer than its `http_timeout` at most.
    ///
    /// Cancel-safe: everything runs in a task of the control runtime.
    pub async fn revoke(
        &self,
        provider: &Arc<Supabase>,
        what: Revocable,
        scope: Scope,
        browser: &Browser,
    ) {
        let patience = provider.patience();
        let mut task = Task {
            inner: self.0.clone(),
            provider: provider.clone(),
            what,
            scope,
            browser: browser.clone(),
        };
        let first = self.0.first.clone().try_acquire_owned();
        let (heard, hears) = oneshot::channel();
        self.0.control.spawn(async move {
            let outcome = match first {
                Ok(_place) => task.attempt().await,
                Err(_) => Err(Not::Yet("too many logouts are under way".into())),
            };
            // Nobody may be waiting any more.
            let _ = heard.send(());
            match outcome {
                Ok(()) => {}
                Err(not) => task.go_on(not).await,
            }
        });
        let _ = timeout(patience, hears).await;
    }
}

impl Task {
    /// Tries again until the provider has heard, or there is nothing left to say it with.
    async fn go_on(mut self, not: Not) {
        let place = self.inner.pending.clone().try_acquire_owned();
        let (provider, pending) = (
            self.provider.name(),
            "a logout is pending: the provider has not heard of it yet",
        );
        match (&not, &place) {
            (Not::Ever(why), _) => return self.given_up(why),
            (Not::Yet(why) | Not::Us(why), Err(_)) => {
                return self.given_up(&format!("too many logouts are pending; {why}"));
            }
            (Not::Yet(why), Ok(_)) => tracing::warn!(%provider, why, "{pending}"),
            (Not::Us(why), Ok(_)) => tracing::error!(%provider, why, "{pending}"),
        }
        let mut until = self.what.expires_at;
        if self.what.refresh_token.is_some() {
            until = until.max(self.inner.clock.unix().saturating_add(PATIENCE));
        }
        let Pace {
            first_wait: mut wait,
            longest_wait,
            ..
        } = self.inner.pace;
        loop {
            sleep(wait).await;
            if self.inner.clock.unix() >= until {
                return self.given_up("its token is over");
            }
            let outcome = {
                let inner = self.inner.clone();
                let _turn = inner.again.acquire().await;
                self.attempt().await
            };
            match outcome {
                Ok(()) => {
                    tracing::info!(provider = %self.provider.name(), "the provider has heard of a pending logout");
                    return;
                }
                Err(Not::Ever(why)) => return self.given_up(&why),
                Err(Not::Yet(_) | Not::Us(_)) => wait = (wait * 2).min(longest_wait),
            }
        }
    }

    fn given_up(&self, why: &str) {
        tracing::warn!(provider = %self.provider.name(), why, "the provider never heard of a logout: the session may live on there");
    }

    async fn attempt(&mut self) -> Result<(), Not> {
        let mut why = "its token is over".to_owned();
        if self.what.expires_at > self.inner.clock.unix() {
            match self.tell().await {
                Ok(()) => return Ok(()),
                Err(error @ LogoutError::TokenRefused { .. }) => why = error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
        let Some(token) = &self.what.refresh_token else {
            return Err(Not::Ever(why));
        };
        let refreshes = &self.inner.refreshes;
        let renewed = refreshes
            .refresh(&self.provider, token, self.what.user, &self.browser)
            .await;
        match renewed {
            Ok(grant) => {
                self.what.access_token = grant.access_token.clone();
                self.what.refresh_token = Some(grant.refresh_token.clone());
                self.what.expires_at = grant.expires_at;
            }
            // There is no such session, which is all that was asked for.
            Err(RefreshError::Over { .. }) if self.scope == Scope::Local => return Ok(()),
            Err(error @ (RefreshError::Over { .. } | RefreshError::NotOurs)) => {
                return Err(Not::Ever(error.to_string()));
            }
            Err(error @ RefreshError::Later { .. }) => return Err(Not::Yet(error.to_string())),
            Err(error @ RefreshError::Misconfigured { .. }) => {
                return Err(Not::Us(error.to_string()));
            }
        }
        self.tell().await.map_err(Not::from)
    }

    async fn tell(&self) -> Result<(), LogoutError> {
        self.provider
            .logout(&self.what.access_token, self.scope, &self.browser)
            .await
    }
}
