//! Access tokens: which provider one belongs to, whether it verifies, and who it says is calling. Local verification only
//! (RFC 7515, 7517, 7519, hardened by RFC 8725); asks providers for nothing but their public keys.
//!
//! Supabase's OAuth tokens for third-party clients carry `client_id` and the same audience as first-party ones: they verify
//! here, and a route that must not take them says so in `require.claims`.

mod ended;
pub mod ended_elsewhere;
mod fetch;
pub mod inspect;
pub mod jose;
pub mod json;
pub mod jwk;
mod keys;
mod status;
mod streams;
pub mod tell_elsewhere;
#[cfg(test)]
mod tests;
pub mod verified;
pub mod verify;

use crate::base::clock::Clock;
use crate::config::provider::Provider;
use crate::exchange::{Claims, Identity, Verified};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;

use ended::Ended;
use jose::Jws;
use keys::{Keys, Tried};
use streams::Streams;
use verify::{Measured, Standing};

pub use fetch::SetupError;
pub use status::{ProviderStatus, RefreshCounts};
pub use streams::{GRACE, Over, Renewer, Tie};
pub use verified::{Cache, Issuer, Slot};
pub use verify::{Reason, TokenError};

/// Each set of rules has a generation of its own, so that nothing verified under one counts under another.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);
/// Bits of an epoch that count withdrawn keys; the generation stands above them.
const KEY_BITS: u32 = 40;

/// Verifies the tokens of every configured provider. Lives as long as its snapshot; keys, ended sessions and open streams
/// live on in the next one.
#[derive(Debug)]
pub struct Tokens {
    providers: Box<[Known]>,
    ended: Arc<Ended>,
    streams: Arc<Streams>,
    clock: Clock,
    generation: u64,
    /// The largest `max_token_bytes`.
    longest: usize,
}

#[derive(Debug)]
struct Known {
    rules: Provider,
    keys: Arc<Keys>,
}

impl Tokens {
    /// Starts to fetch keys on `control`, which must run for as long as tokens are verified. Keys of `previous` are carried
    /// over where nothing they depend on has changed; ended sessions and open streams always are.
    pub fn new(
        providers: &[Provider],
        clock: Clock,
        control: Handle,
        previous: Option<&Self>,
    ) -> Result<Self, SetupError> {
        let known = providers
            .iter()
            .map(|rules| {
                let old = |fits: fn(&Provider, &Provider) -> bool| {
                    previous?.providers.iter().find(|k| fits(&k.rules, rules))
                };
                let keys = match old(Keys::serve) {
                    Some(known) => known.keys.clone(),
                    None => {
                        let seed = old(Keys::seed).map(|known| &*known.keys);
                        Keys::start(rules, clock.clone(), control.clone(), seed)?
                    }
                };
                Ok(Known {
                    rules: rules.clone(),
                    keys,
                })
            })
            .collect::<Result<Box<[_]>, SetupError>>()?;
        Ok(Self {
            longest: providers
                .iter()
                .map(|p| p.max_token_bytes)
                .max()
                .unwrap_or(0),
            providers: known,
            ended: previous.map(|old| old.ended.clone()).unwrap_or_default(),
            streams: match previous {
                Some(old) => old.streams.clone(),
                None => Streams::new(clock.clone(), control),
            },
            clock,
            generation: GENERATIONS.fetch_add(1, Ordering::Relaxed) + 1,
        })
    }

    /// Who `token` says is calling, whichever provider it is of: size, shape, provider by `iss`, key by `kid`, signature,
    /// claims, in this order. No claim but `iss` is looked at before the signature holds, and that one only to choose.
    ///
    /// Cancel-safe. Waits only for a key that is not at hand, at most `http_timeout`.
    pub async fn verify(&self, token: &[u8]) -> Result<Identity, TokenError> {
        self.verify_any(token).await.map(|(_, identity)| identity)
    }

    /// As [`Tokens::verify`], and by which provider (its index in the configuration).
    pub async fn verify_any(&self, token: &[u8]) -> Result<(usize, Identity), TokenError> {
        let (jws, claims) = take_apart(token, self.longest).map_err(|r| refused(None, r))?;
        if matches!(claims.get("iss"), Some(iss) if !iss.is_string()) {
            return Err(refused(None, Reason::Issuer));
        }
        let mut error = TokenError::UnknownIssuer;
        // One issuer may be configured twice. Who has the key goes first, so that the other is not asked for it.
        for wait in [false, true] {
            let mut unknown = false;
            for index in 0..self.providers.len() {
                if !self.is_issuer(index, &claims) {
                    continue;
                }
                let found = match self.signed(index, token, &jws, wait).await {
                    Ok(true) => match self.judge(index, &claims) {
                        Ok(()) => return Ok((index, self.heard(index, claims))),
                        Err(found) => found,
                    },
                    Ok(false) => {
                        unknown = true;
                        continue;
                    }
                    Err(found) => found,
                };
                // That it is over, or that keys are missing, says more than that it is not the other's.
                if matches!(
                    error,
                    TokenError::UnknownIssuer | TokenError::Refused { .. }
                ) {
                    error = found;
                }
            }
            if !unknown {
                break;
            }
        }
        Err(error)
    }

    /// As [`Tokens::verify`], but the token must be of this provider (index in the configuration). For session cookies.
    pub async fn verify_for(&self, provider: usize, token: &[u8]) -> Result<Identity, TokenError> {
        let claims = self.signed_claims(provider, token).await?;
        self.judge(provider, &claims)?;
        Ok(self.heard(provider, claims))
    }

    /// As [`Tokens::verify_for`], but for a token that may be over: whose session it was. Never a caller; only to compare a
    /// refreshed token with the one before.
    pub async fn verify_past(&self, provider: usize, token: &[u8]) -> Result<Identity, TokenError> {
        let claims = self.signed_claims(provider, token).await?;
        match self.judge(provider, &claims) {
            Ok(()) | Err(TokenError::Expired { .. }) => Ok(self.identity(provider, claims)),
            Err(error) => Err(error),
        }
    }

    /// Differs from one configuration to the next: for what is remembered beyond both.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What [`crate::exchange::Verified::epoch`] must equal to count still.
    pub fn epoch(&self, issuer: Issuer) -> u64 {
        let keys = match issuer {
            Issuer::Provider(index) => self.providers.get(index).map_or(0, |k| k.keys.epoch()),
            Issuer::Other => 0,
        };
        (self.generation << KEY_BITS) | (keys & ((1 << KEY_BITS) - 1))
    }

    /// Makes everything that this provider verified be verified again.
    pub fn bump(&self, provider: usize) {
        if let Some(known) = self.providers.get(provider) {
            known.keys.bump();
        }
    }

    /// Ends a session before its tokens are over (logout), and the streams that are open of it. `until`: the `exp` of its
    /// newest token, Unix seconds.
    pub fn end_session(&self, provider: usize, session: &str, until: u64) {
        if let Some(known) = self.providers.get(provider) {
            let leeway = known.rules.leeway.as_secs() + 1;
            let until = until.saturating_add(leeway);
            self.ended
                .add(&known.rules.name, session, until, self.clock.unix());
            self.streams.end(&known.rules.name, session);
        }
    }

    /// Ties a stream to the session that proved it: it is told when the session is over (contract, section 5).
    pub fn tie(&self, proof: &Arc<Verified>) -> Tie {
        let tie = self.streams.tie(proof);
        // In this order, so that a session which ends meanwhile is seen here or there.
        if self.is_ended(&proof.identity) {
            tie.end(Over::Ended);
        }
        tie
    }

    /// Ends the streams of sessions whose tokens are over, and has sessions renewed for the streams that are open. To be
    /// called every second.
    pub fn sweep_streams(&self) {
        self.streams.sweep();
    }

    /// Who renews sessions for the streams that are open, from now on; at first nobody does.
    pub fn renew_with(&self, renewer: Option<Arc<dyn Renewer>>) {
        self.streams.renew_with(renewer);
    }

    /// Whether the session of an identity was ended here.
    pub fn is_ended(&self, identity: &Identity) -> bool {
        match identity.session_id.as_deref() {
            session @ Some(_) => self.ended.contains(&identity.provider, session),
            None => self.has_ended(&identity.provider, &identity.claims),
        }
    }

    fn has_ended(&self, provider: &str, claims: &Claims) -> bool {
        self.ended.version() != 0
            && self
                .ended
                .contains(provider, verify::known_by(claims).as_deref())
    }

    /// Changes with each session that ends. A connection that remembers its last caller compares this, too, and asks
    /// [`Tokens::is_ended`] when it has changed.
    pub fn ended_version(&self) -> u64 {
        self.ended.version()
    }

    /// Name of a provider by its index.
    pub fn name(&self, provider: usize) -> Option<&Arc<str>> {
        self.providers.get(provider).map(|known| &known.rules.name)
    }

    /// Index of a provider by its name.
    pub fn index(&self, provider: &str) -> Option<usize> {
        self.providers
            .iter()
            .position(|k| *k.rules.name == *provider)
    }

    /// The state of each provider's keys, in the order of the configuration.
    pub fn providers(&self) -> Vec<ProviderStatus> {
        self.providers.iter().map(|k| k.keys.status()).collect()
    }

    /// Whether each provider has had keys.
    pub fn ready(&self) -> bool {
        self.providers.iter().all(|k| k.keys.were_there())
    }

    /// Fetches by outcome, for each provider by name.
    pub fn refresh_counts(&self) -> impl Iterator<Item = (&Arc<str>, &RefreshCounts)> {
        self.providers
            .iter()
            .map(|k| (&k.rules.name, k.keys.counts()))
    }

    /// The time that tokens are judged by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The claims of a token whose signature is one of this provider's.
    async fn signed_claims(&self, provider: usize, token: &[u8]) -> Result<Claims, TokenError> {
        let (jws, claims) = take_apart(token, self.longest).map_err(|r| refused(None, r))?;
        for wait in [false, true] {
            if self.signed(provider, token, &jws, wait).await? {
                return Ok(claims);
            }
        }
        Err(TokenError::UnknownIssuer)
    }

    /// Whether a token with this `iss` may be of this provider: it is its issuer, or it takes any that is nobody else's.
    fn is_issuer(&self, index: usize, claims: &Claims) -> bool {
        let iss = claims.get("iss").and_then(Value::as_str);
        let named = |k: &Known| k.rules.issuer.is_some() && k.rules.issuer.as_deref() == iss;
        self.providers.get(index).is_some_and(|known| {
            named(known) || known.rules.issuer.is_none() && !self.providers.iter().any(named)
        })
    }

    /// Whether the signature holds. `Ok(false)`: the key is not at hand, and `wait` did not allow to look for it.
    async fn signed(
        &self,
        index: usize,
        token: &[u8],
        jws: &Jws<'_>,
        wait: bool,
    ) -> Result<bool, TokenError> {
        let Some(Known { rules, keys }) = self.providers.get(index) else {
            return Err(TokenError::UnknownIssuer);
        };
        let refused = |reason| refused(Some(rules.name.clone()), reason);
        if token.len() > rules.max_token_bytes {
            return Err(refused(Reason::TooLong));
        }
        if !rules.algorithms.contains(&jws.algorithm) {
            return Err(refused(Reason::Algorithm));
        }
        let kid = jws.kid.as_deref();
        let attempt = || keys.try_known(jws.algorithm, kid, jws.signed, jws.signature);
        let mut tried = attempt();
        if wait && tried == Tried::Unknown {
            keys.look_again().await;
            tried = attempt();
        }
        match tried {
            Tried::Holds => Ok(true),
            Tried::Refused(reason) => Err(refused(reason)),
            Tried::Unknown if !wait => Ok(false),
            Tried::Unknown if keys.has_set() => Err(refused(Reason::UnknownKey)),
            Tried::Unknown => Err(TokenError::KeysUnavailable {
                provider: rules.name.clone(),
            }),
        }
    }

    /// Measures the claims of a token whose signature holds.
    fn judge(&self, index: usize, claims: &Claims) -> Result<(), TokenError> {
        let Some(Known { rules, .. }) = self.providers.get(index) else {
            return Err(TokenError::UnknownIssuer);
        };
        let provider = || rules.name.clone();
        let measured = Measured {
            provider: rules,
            claims,
            now: self.clock.unix_millis(),
        };
        let standing =
            verify::check(&measured).map_err(|reason| refused(Some(provider()), reason))?;
        if self.has_ended(&rules.name, claims) {
            return Err(refused(Some(provider()), Reason::SessionEnded));
        }
        match standing {
            Standing::Good => Ok(()),
            Standing::Over => Err(TokenError::Expired {
                provider: provider(),
            }),
            Standing::Anonymous => Err(TokenError::Anonymous {
                provider: provider(),
            }),
        }
    }

    /// Of a token that counts: streams of its session go on at least as long.
    fn heard(&self, index: usize, claims: Claims) -> Identity {
        let identity = self.identity(index, claims);
        self.streams.heard(&identity);
        identity
    }

    fn identity(&self, index: usize, claims: Claims) -> Identity {
        verify::identity(&self.providers[index].rules, claims)
    }
}

/// Size, shape, header and payload, before any key.
fn take_apart(token: &[u8], longest: usize) -> Result<(Jws<'_>, Claims), Reason> {
    if token.len() > longest {
        return Err(Reason::TooLong);
    }
    let jws = Jws::parse(token)?;
    let claims = json::object(&jws.payload).ok_or(Reason::Payload)?;
    Ok((jws, claims))
}

fn refused(provider: Option<Arc<str>>, reason: Reason) -> TokenError {
    TokenError::Refused { provider, reason }
}
