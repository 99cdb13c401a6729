//! The proof of a credential on three levels: what the connection remembers, what the process knows, and verification.

use super::memory::Known;
use super::refuse::{expired, invalid, missing, refusal};
use super::session::Request;
use super::{Accepts, Candidate, Memory, Standing, seal};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::config::route::Auth;
use crate::exchange::{Caller, Code, Credential, Reject, Verified};
use crate::headers::forwarded::Client;
use crate::headers::outbound::IdentityHeaders;
use crate::limit::{Limits, Who, keyed};
use crate::session::{Session, Told};
use crate::telemetry::metrics::{AuthOutcome, CacheOutcome, Metrics};
use crate::token::tell_elsewhere::Telling;
use crate::token::{Cache, Issuer, Reason, Slot, TokenError, Tokens};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::sync::Arc;

/// Proves credentials. Borrowed parts of the snapshot and the connection, gathered for one request.
#[derive(Debug)]
pub struct Prover<'a> {
    /// Verification and keys.
    pub tokens: &'a Tokens,
    /// What the process knows.
    pub cache: &'a Cache,
    /// What the connection remembers.
    pub memory: &'a Memory,
    /// The session of the configuration.
    pub session: Option<&'a Session>,
    /// Those who share a Redis with us, when there is one.
    pub telling: Option<&'a Telling>,
    /// What upstreams are told.
    pub identity_headers: &'a IdentityHeaders,
    /// Budgets.
    pub limits: &'a Limits,
    /// The policies of the route that count credentials which did not verify.
    pub failures: &'a [usize],
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// The wall clock judges `exp`.
    pub clock: &'a Clock,
    /// Counters.
    pub metrics: &'a Metrics,
    /// How many providers there are.
    pub providers: usize,
    /// Index of the worker, for the counters.
    pub worker: usize,
    /// `log.auth`: successes at info.
    pub log_success: bool,
}

impl Prover<'_> {
    /// Turns a candidate into a caller, or says why not. `told` takes what the browser is to know of its session, whatever
    /// comes of the request.
    pub async fn prove(
        &self,
        accepts: &Accepts,
        candidate: Candidate<'_>,
        headers: &HeaderMap,
        client: &Client,
        told: &mut Told,
    ) -> Result<Caller, Reject> {
        let caller = self
            .judge(accepts, candidate, headers, client, told)
            .await?;
        if let Some(verified) = caller.verified() {
            let (provider, credential) = (Some(verified.provider), verified.credential);
            self.metrics
                .auth(self.worker, provider, credential, AuthOutcome::Ok);
        }
        Ok(caller)
    }

    async fn judge(
        &self,
        accepts: &Accepts,
        candidate: Candidate<'_>,
        headers: &HeaderMap,
        client: &Client,
        told: &mut Told,
    ) -> Result<Caller, Reject> {
        match candidate {
            Candidate::Nothing if accepts.auth == Auth::Required => Err(missing()),
            Candidate::Nothing => Ok(Caller::nobody()),
            Candidate::Bearer(token) => self.bearer(accepts, token, headers, client).await,
            Candidate::Session => match self.cookie(Request { headers, client }, told).await {
                Ok(Some(verified)) => Ok(Caller::proven(verified)),
                Ok(None) if accepts.auth == Auth::Required => Err(missing()),
                Ok(None) => Ok(Caller::nobody()),
                // A cookie is not explicit: where nobody is welcome, a session that is over or no session is nobody.
                Err(reject)
                    if accepts.auth == Auth::Optional
                        && matches!(
                            reject.code(),
                            Code::InvalidToken
                                | Code::TokenExpired
                                | Code::SessionExpired
                                | Code::Forbidden
                                | Code::MissingCredentials
                        ) =>
                {
                    Ok(Caller::nobody())
                }
                Err(reject) => Err(reject),
            },
        }
    }

    async fn bearer(
        &self,
        accepts: &Accepts,
        token: &[u8],
        headers: &HeaderMap,
        client: &Client,
    ) -> Result<Caller, Reject> {
        let field = headers.get(AUTHORIZATION).map_or(token, |v| v.as_bytes());
        let verified = match self.remembered(Credential::Bearer, field) {
            Some(known) => known,
            None => {
                let slot = Slot {
                    credential: Credential::Bearer,
                    index: 0,
                };
                let ended = self.tokens.ended_version();
                let proven = match self.known(slot, token) {
                    Some(known) => Ok(known),
                    None => {
                        // Boxed, as all that is rare: the future of every request is moved once, and is small without it.
                        let asked = Asked::any(token);
                        Box::pin(self.verified(slot, asked, token, headers, client))
                            .await
                            .map_err(Reject::from)
                    }
                };
                let verified = match proven {
                    // An anonymous sign-in that the provider's settings refuse: nobody, where nobody is welcome.
                    Err(reject)
                        if reject.code() == Code::Forbidden && accepts.auth == Auth::Optional =>
                    {
                        return Ok(Caller::nobody());
                    }
                    other => other?,
                };
                self.remember(Credential::Bearer, field, &verified, ended);
                verified
            }
        };
        if let Some(from) = &accepts.bearer_from
            && !from.contains(&verified.identity.provider)
        {
            return Err(invalid().because("this route takes no bearer tokens of that provider"));
        }
        Ok(Caller::proven(verified))
    }

    /// First level: the connection sent this very field before, and nothing has happened since.
    pub(super) fn remembered(&self, kind: Credential, field: &[u8]) -> Option<Arc<Verified>> {
        let known = self.memory.recall(kind, field)?;
        let verified = known.verified;
        let now = self.clock.unix();
        let current = verified.identity.expires_at > now
            && verified.renew_at > now
            && verified.epoch == self.tokens.epoch(Issuer::Provider(verified.provider));
        if !current {
            return None;
        }
        let ended = self.tokens.ended_version();
        if known.ended != ended {
            if self.tokens.is_ended(&verified.identity) {
                return None;
            }
            // It was another one's.
            self.remember(kind, field, &verified, ended);
        }
        self.metrics
            .token_cache(self.worker, CacheOutcome::Connection);
        Some(verified)
    }

    pub(super) fn remember(
        &self,
        kind: Credential,
        field: &[u8],
        verified: &Arc<Verified>,
        ended: u64,
    ) {
        let verified = verified.clone();
        self.memory.keep(
            field,
            Known {
                kind,
                verified,
                ended,
            },
        );
    }

    /// Second level: the process has verified it before.
    pub(super) fn known(&self, slot: Slot, raw: &[u8]) -> Option<Arc<Verified>> {
        let known = self.cache.get(self.tokens, slot, raw)?;
        self.metrics.token_cache(self.worker, CacheOutcome::Hit);
        Some(known)
    }

    /// Third level: verification. A failure is never kept. `look_again`: until when it counts, whatever the token says.
    pub(super) async fn verified(
        &self,
        slot: Slot,
        asked: Asked<'_>,
        raw: &[u8],
        headers: &HeaderMap,
        client: &Client,
    ) -> Result<Arc<Verified>, Unproven> {
        self.metrics.token_cache(self.worker, CacheOutcome::Miss);
        let who = self.who(headers, client);
        if !asked.ours {
            self.failures_left(&who)?;
        }
        let verified = self.verify(asked, slot.credential, Some(&who)).await?;
        self.cache.put(
            self.tokens,
            slot,
            Issuer::Provider(verified.provider),
            raw,
            verified.clone(),
        );
        Ok(verified)
    }

    /// Verifies with keys and cryptography, counts the outcome, and prepares what upstreams will get.
    /// `who` sent it and answers for it; `None`: nobody did.
    pub(super) async fn verify(
        &self,
        asked: Asked<'_>,
        credential: Credential,
        who: Option<&Who<'_>>,
    ) -> Result<Arc<Verified>, Unproven> {
        // Read before the verification, so that a key withdrawn meanwhile is not missed.
        let epochs: Vec<u64> = (0..self.providers)
            .map(|index| self.tokens.epoch(Issuer::Provider(index)))
            .collect();
        let result = match asked.provider {
            Some(provider) => self
                .tokens
                .verify_for(provider, asked.token)
                .await
                .map(|identity| (provider, identity)),
            None => self.tokens.verify_any(asked.token).await,
        };
        match result {
            Ok((provider, identity)) => {
                if self.log_success {
                    tracing::info!(provider = %identity.provider, user_id = %identity.user_id, credential = credential.as_str(), "authenticated");
                } else {
                    tracing::debug!(provider = %identity.provider, user_id = %identity.user_id, credential = credential.as_str(), "authenticated");
                }
                let standing = Standing {
                    provider,
                    epoch: epochs.get(provider).copied().unwrap_or(0),
                    user_key: keyed(&[identity.provider.as_bytes(), identity.user_id.as_bytes()]),
                    kept: asked.kept.cloned(),
                    renew_at: self.renew_at(credential, &identity).min(asked.look_again),
                };
                Ok(seal(
                    identity,
                    credential,
                    Some(asked.token),
                    self.identity_headers,
                    standing,
                )?)
            }
            Err(error) => {
                let provider = error
                    .provider()
                    .and_then(|name| self.tokens.index(name))
                    .or(asked.provider);
                self.metrics
                    .auth(self.worker, provider, credential, outcome(&error));
                if let Some(who) = who.filter(|_| error.is_failure() && !asked.ours) {
                    self.limits.failure(self.failures, who);
                }
                Err(error.into())
            }
        }
    }

    /// Whether a credential of this request may still turn out to be none; for endpoints that take such themselves.
    pub fn may_fail(&self, from: Request<'_>) -> Result<(), Reject> {
        self.failures_left(&self.who(from.headers, from.client))
    }

    /// One did.
    pub fn failed(&self, from: Request<'_>) {
        self.limits
            .failure(self.failures, &self.who(from.headers, from.client));
    }

    /// Who answers for a credential that does not verify.
    fn who<'r>(&self, headers: &'r HeaderMap, client: &Client) -> Who<'r> {
        Who {
            client: client.ip,
            peer_trusted: self.peer_trusted,
            headers,
            verified: None,
        }
    }

    /// Before any cryptography: an address whose budget of failed credentials is spent.
    fn failures_left(&self, who: &Who<'_>) -> Result<(), Reject> {
        match self.limits.failures_blocked(self.failures, who) {
            None => Ok(()),
            Some(spent) => {
                self.metrics.rate_limited(self.worker, spent.policy);
                Err(Reject::new(Code::RateLimited, "Too many credentials that did not verify came from this address. Wait, then send one that is valid.")
                    .because("budget of failed credentials is spent")
                    .retry_after(spent.retry_after))
            }
        }
    }
}

/// A token to be verified.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Whose it must be; `None`: anybody's.
    pub(super) provider: Option<usize>,
    pub(super) token: &'a [u8],
    /// Until when the outcome counts, whatever the token says, in Unix seconds.
    pub(super) look_again: u64,
    /// The id of its session, where we keep that.
    pub(super) kept: Option<&'a Secret<String>>,
    /// It was we who put it where it was found, so that nobody can have made it up.
    pub(super) ours: bool,
}

impl<'a> Asked<'a> {
    /// The token of a session.
    pub(super) fn of(session: &Session, token: &'a Secret<String>, look_again: u64) -> Self {
        Self {
            provider: Some(session.provider),
            token: token.expose().as_bytes(),
            look_again,
            kept: None,
            ours: false,
        }
    }

    /// A token of any provider.
    pub(super) fn any(token: &'a [u8]) -> Self {
        Self {
            provider: None,
            token,
            look_again: u64::MAX,
            kept: None,
            ours: false,
        }
    }

    /// The same for a session that we keep under this id.
    pub(super) fn kept(self, id: Option<&'a Secret<String>>) -> Self {
        Self { kept: id, ..self }
    }
}

/// Why a credential proves nothing, as far as it matters to a session.
#[derive(Debug)]
pub(super) enum Unproven {
    /// Its time is over, and nothing else is wrong with it.
    Over,
    /// The key that signed it is no longer the provider's; it may have been.
    KeyGone(Reject),
    /// Its session was ended.
    Ended,
    /// Everything else.
    Refused(Reject),
}

impl From<Reject> for Unproven {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

impl From<TokenError> for Unproven {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::Expired { .. } => Self::Over,
            TokenError::Refused {
                reason: Reason::UnknownKey,
                ..
            } => Self::KeyGone(refusal(&error)),
            TokenError::Refused {
                reason: Reason::SessionEnded,
                ..
            } => Self::Ended,
            _ => Self::Refused(refusal(&error)),
        }
    }
}

impl From<Unproven> for Reject {
    fn from(unproven: Unproven) -> Self {
        match unproven {
            Unproven::Over => expired(),
            Unproven::KeyGone(reject) | Unproven::Refused(reject) => reject,
            Unproven::Ended => invalid().because(Reason::SessionEnded.as_str()),
        }
    }
}

fn outcome(error: &TokenError) -> AuthOutcome {
    match error {
        TokenError::Expired { .. } => AuthOutcome::Expired,
        TokenError::KeysUnavailable { .. } => AuthOutcome::Unavailable,
        TokenError::Anonymous { .. } => AuthOutcome::Refused,
        TokenError::Refused { .. } | TokenError::UnknownIssuer => AuthOutcome::Invalid,
    }
}
