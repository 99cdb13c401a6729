//! What a token is measured by, without sockets: why one is refused, and the claims of RFC 7519 §4.1 against the rules of
//! its provider. Called only with claims whose signature holds; order and key choice are `Tokens`'.

use super::inspect::Check;
use crate::config::provider::{Provider, ProviderKind};
use crate::config::value::ClaimPath;
use crate::exchange::{Claims, Identity};
use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest user id, in bytes, prefix included.
pub const MAX_USER_ID_BYTES: usize = 256;

/// Largest `NumericDate` taken at its word: above it a double loses whole seconds.
const MAX_SECONDS: f64 = 9_007_199_254_740_992.0;

/// Why a token is refused. For the log; the client is never told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Over `max_token_bytes`.
    TooLong,
    /// Not three canonical base64url segments.
    Shape,
    /// The header is no strict JSON object.
    Header,
    /// `crit` or `b64`.
    Critical,
    /// `alg` is absent, unknown, or not allowed by the provider.
    Algorithm,
    /// `typ` of another kind of token.
    Type,
    /// `kid` is no string, or over 256 bytes.
    KeyId,
    /// The payload is no strict JSON object.
    Payload,
    /// No key has this `kid`.
    UnknownKey,
    /// The key exists, but not for this algorithm.
    WrongKey,
    /// No `kid`, and several keys would fit.
    AmbiguousKey,
    /// The signature does not hold.
    Signature,
    /// `iss` is not the provider's.
    Issuer,
    /// `aud` names none of the provider's audiences.
    Audience,
    /// `exp` is absent or no number of seconds.
    Expiry,
    /// `nbf` is no number, or still to come.
    NotBefore,
    /// `iat` is no number, or still to come.
    IssuedAt,
    /// The user id is absent, empty, too long, or not visible ASCII.
    Subject,
    /// An `anon` or `service_role` key: a JWT without a user.
    ServiceRole,
    /// Its session was ended here.
    SessionEnded,
}

impl Reason {
    /// A few words for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the token is longer than `max_token_bytes`",
            Self::Shape => "not three base64url segments",
            Self::Header => "the header is not a JSON object without duplicates",
            Self::Critical => "the header has `crit` or `b64`",
            Self::Algorithm => "the algorithm is not allowed",
            Self::Type => "`typ` is that of another kind of token",
            Self::KeyId => "`kid` is not a string of at most 256 bytes",
            Self::Payload => "the payload is not a JSON object without duplicates",
            Self::UnknownKey => "no key of the provider has this `kid`",
            Self::WrongKey => "the key is not for this algorithm",
            Self::AmbiguousKey => "no `kid`, and several keys fit",
            Self::Signature => "the signature does not hold",
            Self::Issuer => "`iss` is not the provider's issuer",
            Self::Audience => "`aud` names none of the provider's audiences",
            Self::Expiry => "`exp` is missing or not a time",
            Self::NotBefore => "`nbf` is not a time, or still to come",
            Self::IssuedAt => "`iat` is not a time, or still to come",
            Self::Subject => "the user id is missing or not 1 to 256 bytes of visible ASCII",
            Self::ServiceRole => "an `anon` or `service_role` key is not a user",
            Self::SessionEnded => "the session was ended",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a token gives no identity. `Display` is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not verify.
    #[error("token refused: {reason}")]
    Refused {
        /// The provider that it would be of, when that was settled.
        provider: Option<Arc<str>>,
        /// Which check failed.
        reason: Reason,
    },
    /// It verified but is over.
    #[error("token of provider `{provider}` has expired")]
    Expired {
        /// Whose token.
        provider: Arc<str>,
    },
    /// An anonymous sign-in, which the provider's settings do not take for a user: 403, or nobody on optional routes.
    #[error("token of provider `{provider}` is an anonymous sign-in")]
    Anonymous {
        /// Whose token.
        provider: Arc<str>,
    },
    /// `iss` is nobody's. No key was tried.
    #[error("no provider has the token's issuer")]
    UnknownIssuer,
    /// The provider's keys are out of reach: nothing is known about the token. 503.
    #[error("keys of provider `{provider}` are not available")]
    KeysUnavailable {
        /// Whose keys.
        provider: Arc<str>,
    },
}

impl TokenError {
    /// Label `outcome` of `tollhouse_auth_total`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Expired { .. } => "expired",
            Self::Anonymous { .. } => "anonymous",
            Self::UnknownIssuer => "unknown_issuer",
            Self::KeysUnavailable { .. } => "keys_unavailable",
        }
    }

    /// The provider, once it was settled.
    pub fn provider(&self) -> Option<&Arc<str>> {
        match self {
            Self::Refused { provider, .. } => provider.as_ref(),
            Self::Expired { provider }
            | Self::Anonymous { provider }
            | Self::KeysUnavailable { provider } => Some(provider),
            Self::UnknownIssuer => None,
        }
    }

    /// Whether policies with `count = "failures"` count it: the credential did not verify. Never one that is only over.
    pub fn is_failure(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::UnknownIssuer)
    }
}

/// How claims that verified were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A user, now.
    Good,
    /// A user, whose token is over.
    Over,
    /// An anonymous sign-in that is not let in.
    Anonymous,
}

/// What claims are measured by.
pub(super) struct Measured<'a> {
    pub(super) provider: &'a Provider,
    pub(super) claims: &'a Claims,
    /// Milliseconds since 1970.
    pub(super) now: u64,
}

type Measure = fn(&Measured<'_>) -> Result<(), Reason>;

/// The measures of claims, in the order in which they are taken.
pub(super) const MEASURES: [(Check, Measure); 7] = [
    (Check::Issuer, |it| it.issuer()),
    (Check::Audience, |it| it.audience()),
    (Check::Expiry, |it| it.expiry()),
    (Check::NotBefore, |it| {
        it.not_after_now("nbf", Reason::NotBefore)
    }),
    (Check::IssuedAt, |it| {
        it.not_after_now("iat", Reason::IssuedAt)
    }),
    (Check::Subject, |it| it.subject()),
    (Check::Role, |it| it.role()),
];

/// Measures claims. `exp` comes last: what is merely over is in all else a good token.
pub(super) fn check(measured: &Measured<'_>) -> Result<Standing, Reason> {
    for (_, measure) in MEASURES {
        measure(measured)?;
    }
    // RFC 7519 §4.1.4: on or after `exp` it must not be accepted.
    Ok(if measured.is_over() {
        Standing::Over
    } else if measured.is_anonymous_and_refused() {
        Standing::Anonymous
    } else {
        Standing::Good
    })
}

impl Measured<'_> {
    fn issuer(&self) -> Result<(), Reason> {
        let iss = self.claims.get("iss").and_then(Value::as_str);
        match &self.provider.issuer {
            Some(issuer) if iss != Some(issuer) => Err(Reason::Issuer),
            _ => Ok(()),
        }
    }

    fn audience(&self) -> Result<(), Reason> {
        match &self.provider.audiences {
            Some(audiences) if !is_for(self.claims.get("aud"), audiences) => Err(Reason::Audience),
            _ => Ok(()),
        }
    }

    fn expiry(&self) -> Result<(), Reason> {
        self.expires().map(drop).ok_or(Reason::Expiry)
    }

    fn not_after_now(&self, name: &str, reason: Reason) -> Result<(), Reason> {
        let Some(claim) = self.claims.get(name) else {
            return Ok(());
        };
        let from = millis(claim).ok_or(reason)?;
        if from > self.now.saturating_add(self.leeway()) {
            return Err(reason);
        }
        Ok(())
    }

    fn subject(&self) -> Result<(), Reason> {
        let user = at(self.claims, &self.provider.user_id_claim).and_then(Value::as_str);
        match user {
            Some(user) if is_user_id(user, self.provider.user_prefix.len()) => Ok(()),
            _ => Err(Reason::Subject),
        }
    }

    fn role(&self) -> Result<(), Reason> {
        let ProviderKind::Supabase { service_role, .. } = &self.provider.kind else {
            return Ok(());
        };
        match self.claims.get("role").and_then(Value::as_str) {
            Some("anon") => Err(Reason::ServiceRole),
            Some("service_role") if !service_role => Err(Reason::ServiceRole),
            _ => Ok(()),
        }
    }

    /// Whether it ended before now. What has no end was refused for that.
    pub(super) fn is_over(&self) -> bool {
        self.expires().is_none_or(|expires| self.now >= expires)
    }

    /// Whether it is an anonymous sign-in that is not let in.
    pub(super) fn is_anonymous_and_refused(&self) -> bool {
        let denied = matches!(
            &self.provider.kind,
            ProviderKind::Supabase { anonymous_users, .. } if !anonymous_users
        );
        denied && is_anonymous(self.claims)
    }

    /// When it ends, with the leeway.
    fn expires(&self) -> Option<u64> {
        let expires = self.claims.get("exp").and_then(millis)?;
        Some(expires.saturating_add(self.leeway()))
    }

    fn leeway(&self) -> u64 {
        u64::try_from(self.provider.leeway.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The identity that checked claims give.
pub(super) fn identity(provider: &Provider, claims: Claims) -> Identity {
    let user = at(&claims, &provider.user_id_claim)
        .and_then(Value::as_str)
        .unwrap_or_default();
    let user_id = [&*provider.user_prefix, user].concat().into();
    let mut roles = Vec::new();
    for path in &provider.roles {
        collect(at(&claims, path), &mut roles);
    }
    let mut scopes = Vec::new();
    if let Some(Value::String(scope)) = claims.get("scope") {
        // RFC 6749 §3.3: separated by spaces, unlike roles, of which one string is one.
        scope.split(' ').for_each(|one| add(one, &mut scopes));
    } else {
        collect(claims.get("scope"), &mut scopes);
    }
    for name in ["scopes", "scp"] {
        match claims.get(name) {
            Some(Value::String(list)) => list.split(' ').for_each(|one| add(one, &mut scopes)),
            other => collect(other, &mut scopes),
        }
    }
    Identity {
        provider: provider.name.clone(),
        user_id,
        roles,
        scopes,
        expires_at: claims.get("exp").and_then(millis).unwrap_or(0) / 1000,
        session_id: session(&claims).map(Box::from),
        anonymous: is_anonymous(&claims),
        api_key_id: None,
        claims,
    }
}

/// The provider's own session of these claims.
pub(super) fn session(claims: &Claims) -> Option<&str> {
    match claims.get("session_id") {
        Some(Value::String(id)) if !id.is_empty() => Some(id),
        _ => None,
    }
}

/// What the end of a token's session is known by: the provider's session, or, where the token names none, the token itself.
pub fn known_by(claims: &Claims) -> Option<Cow<'_, str>> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if let Some(session) = session(claims) {
        return Some(session.into());
    }
    if let Some(id) = text("jti").filter(|id| !id.is_empty()) {
        return Some(format!("jti {id}").into());
    }
    let issued = claims.get("iat").and_then(Value::as_f64)?;
    Some(format!("sub {} {issued}", text("sub")?).into())
}

/// Only `true` itself is anonymous; only `false` and absence are not. What else stands there is no sign of a user.
fn is_anonymous(claims: &Claims) -> bool {
    !matches!(
        claims.get("is_anonymous"),
        None | Some(Value::Null | Value::Bool(false))
    )
}

/// The claim at a path; only objects have members.
fn at<'a>(claims: &'a Claims, path: &ClaimPath) -> Option<&'a Value> {
    let (first, rest) = path.0.split_first()?;
    rest.iter()
        .try_fold(claims.get(&**first)?, |value, step| value.get(&**step))
}

/// `aud` is a string or an array of strings (RFC 7519 §4.1.3); anything else names nobody.
fn is_for(aud: Option<&Value>, audiences: &[Arc<str>]) -> bool {
    let ours = |name: &str| audiences.iter().any(|audience| **audience == *name);
    match aud {
        Some(Value::String(name)) => ours(name),
        Some(Value::Array(names)) => {
            names.iter().all(Value::is_string) && names.iter().filter_map(Value::as_str).any(ours)
        }
        _ => false,
    }
}

/// A `NumericDate` (RFC 7519 §2) in milliseconds. Fractions are legal; strings, negative and absurd numbers are not.
fn millis(value: &Value) -> Option<u64> {
    let seconds = value.as_f64()?;
    // In range, so the conversion is exact to the millisecond.
    (seconds.is_finite() && (0.0..=MAX_SECONDS).contains(&seconds))
        .then_some((seconds * 1000.0) as u64)
}

/// It becomes a header: never trimmed, never shortened, refused instead (RFC 9110 §5.5).
fn is_user_id(user: &str, prefix_bytes: usize) -> bool {
    !user.is_empty()
        && user.len() + prefix_bytes <= MAX_USER_ID_BYTES
        && user.bytes().all(|b| b.is_ascii_graphic())
}

/// A string is one member, spaces and commas included; an array gives its strings; anything else gives none.
fn collect(value: Option<&Value>, into: &mut Vec<Box<str>>) {
    match value {
        Some(Value::String(one)) => add(one, into),
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
            list.iter()
                .filter_map(Value::as_str)
                .for_each(|one| add(one, into));
        }
        _ => {}
    }
}

fn add(one: &str, into: &mut Vec<Box<str>>) {
    if !one.is_empty() && !into.iter().any(|known| **known == *one) {
        into.push(one.into());
    }
}
