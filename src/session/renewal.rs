//! The renewal of a session whose access token is old (contract, section 5): one call to the provider for everybody who
//! brings the same refresh token, and the cookies that tell the browser. What the new token says, `authn` verifies.

use super::supabase::{SessionCookie, SupabaseWriter};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::exchange::Identity;
use crate::provider::supabase::Supabase;
use crate::provider::{Browser, RefreshError, Refreshes};
use http::{HeaderMap, HeaderValue};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a request waits for a renewal that it could do without: its token still serves.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long after that nobody does. The reference client leaves a failure alone for a minute.
const SLOW_SECONDS: u64 = 30;
/// A session is renewed at the earliest when this part of its token's life is left: a provider whose tokens live for a
/// minute must not be asked with each request.
const PART_OF_LIFE: u64 = 5;

/// How the sessions of one provider are renewed and written back.
pub struct Renewal {
    provider: Arc<Supabase>,
    refreshes: Arc<Refreshes>,
    writer: SupabaseWriter,
    ahead: Duration,
    clock: Clock,
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

/// A session as it goes on.
pub struct Renewed {
    /// Not verified.
    pub access_token: Secret<String>,
    /// The Set-Cookie fields that put it into the browser.
    pub set: Vec<HeaderValue>,
    /// Its cookies as the browser will send them: names and percent-encoded values.
    pub pairs: Vec<(String, String)>,
}

impl fmt::Debug for Renewed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Renewed")
    }
}

/// Why a session does not go on.
#[derive(Debug)]
pub enum NotRenewed {
    /// It is over for good. The Set-Cookie fields that remove it, for when its access token is over as well.
    Over {
        /// The provider's word for why.
        code: &'static str,
        /// Removes every cookie of the session.
        clear: Vec<HeaderValue>,
    },
    /// It has no refresh token, or one that only somebody else may use.
    Cannot,
    /// Not now. The session stays as it is.
    Later {
        /// Until when the provider asks to be left alone.
        retry_after: Option<Duration>,
        /// For the log.
        why: Arc<str>,
    },
}

impl Renewal {
    /// Renews the sessions of `provider`, `ahead` of their end, and writes them with `writer`.
    pub fn new(
        provider: Arc<Supabase>,
        refreshes: Arc<Refreshes>,
        writer: SupabaseWriter,
        ahead: Duration,
        clock: Clock,
    ) -> Self {
        Self {
            provider,
            refreshes,
            writer,
            ahead,
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

    /// The session that follows this one. `needed`: nothing can be done without it, so it is waited for as long as a call
    /// to the provider may take. `user` stands for whom its token names.
    ///
    /// Cancel-safe: the call goes on, and its outcome is there for the next who brings the same cookies.
    pub async fn renew(
        &self,
        headers: &HeaderMap,
        session: &SessionCookie,
        user: u128,
        browser: &Browser,
        needed: bool,
    ) -> Result<Renewed, NotRenewed> {
        let Some(token) = &session.refresh_token else {
            return Err(NotRenewed::Cannot);
        };
        let slow = || RefreshError::Later {
            retry_after: None,
            why: "the provider takes longer than is worth waiting for".into(),
        };
        let refresh = self.refreshes.refresh(&self.provider, token, user, browser);
        let outcome = if needed {
            refresh.await
        } else if self.clock.unix() < self.slow_until.load(Ordering::Relaxed) {
            Err(slow())
        } else {
            match tokio::time::timeout(PATIENCE, refresh).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let until = self.clock.unix() + SLOW_SECONDS;
                    self.slow_until.store(until, Ordering::Relaxed);
                    Err(slow())
                }
            }
        };
        let grant = outcome.map_err(|error| match error {
            RefreshError::Over { code } => NotRenewed::Over {
                code,
                clear: self.clear(headers),
            },
            RefreshError::NotOurs => NotRenewed::Cannot,
            RefreshError::Later { retry_after, why } => NotRenewed::Later { retry_after, why },
            RefreshError::Misconfigured { why } => NotRenewed::Later {
                retry_after: None,
                why,
            },
        })?;
        let unusable = |why: &dyn fmt::Display| NotRenewed::Later {
            retry_after: None,
            why: format!("the new session cannot be kept: {why}").into(),
        };
        let new = SessionCookie::from_response(
            grant.text.expose(),
            session.style(),
            self.clock.unix_millis(),
        )
        .map_err(|why| unusable(&why))?;
        let set = self
            .writer
            .write(headers, &new)
            .map_err(|why| unusable(&why))?;
        let pairs = self.writer.pairs(&new).map_err(|why| unusable(&why))?;
        Ok(Renewed {
            access_token: grant.access_token.clone(),
            set,
            pairs,
        })
    }

    /// The Set-Cookie fields that remove every cookie of the request's session.
    pub fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        self.writer.clear(headers)
    }
}
