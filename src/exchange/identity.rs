//! Who calls: what a verified credential says, and the shape in which the rest of the house may use it.

use crate::base::secret::Secret;
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// The claims of a verified token (RFC 7519 §4), as they were signed.
pub type Claims = serde_json::Map<String, serde_json::Value>;

/// What kind of credential proved the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A session cookie.
    Session,
    /// `Authorization: Bearer` (RFC 6750).
    Bearer,
    /// An API key header.
    ApiKey,
}

impl Credential {
    /// The word of logs, metrics and `@credential`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Bearer => "bearer",
            Self::ApiKey => "api_key",
        }
    }
}

/// A person or service, as one provider knows it. (provider, user) is the identity, never the user alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Name of the provider in the configuration.
    pub provider: Arc<str>,
    /// Visible ASCII, 1–256 bytes, `user_prefix` included.
    pub user_id: Arc<str>,
    /// Union of the configured role claims; no order, no duplicates.
    pub roles: Vec<Box<str>>,
    /// `scope`/`scopes` of the token, or the permissions of a key as `resource:action`.
    pub scopes: Vec<Box<str>>,
    /// Every claim of the token.
    pub claims: Claims,
    /// Unix seconds at which the credential ends (`exp`), without leeway.
    pub expires_at: u64,
    /// The provider's session (`session_id`), when it names one.
    pub session_id: Option<Box<str>>,
    /// A Supabase anonymous sign-in that the provider's settings allow.
    pub anonymous: bool,
    /// Id of the API key, when that was the credential.
    pub api_key_id: Option<Box<str>>,
}

/// A credential that verified, prepared once: the identity and the finished headers that go upstream.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who.
    pub identity: Identity,
    /// By what.
    pub credential: Credential,
    /// `Bearer <access token>`, marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// Identity headers of the configuration with their finished values.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Index of the provider in the configuration it was verified under.
    pub provider: usize,
    /// Epoch of the provider when it was verified: a changed key, rule or ended session bumps it.
    pub epoch: u64,
    /// Unix seconds from which on the session behind it should be renewed; far away for everything else.
    pub renew_at: u64,
    /// The id of the session that it was proven by, where we keep sessions: the gateway may renew that by itself.
    pub kept: Option<Secret<String>>,
    /// 128-bit keyed hash of (provider, user): the limiter's key.
    pub user_key: u128,
    /// Approximate size in bytes, for the cache.
    pub weight: u32,
}

/// Who makes a request. Only `authn` calls [`Caller::proven`]; `tests/order.rs` holds it to that.
#[derive(Clone, Debug)]
pub struct Caller(Option<Arc<Verified>>);

impl Caller {
    /// No identity: a public route, or an optional one without a credential.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// A caller whose credential verified.
    pub fn proven(verified: Arc<Verified>) -> Self {
        Self(Some(verified))
    }

    /// The verified credential, if there is one.
    pub fn verified(&self) -> Option<&Arc<Verified>> {
        self.0.as_ref()
    }

    /// The identity, if there is one.
    pub fn identity(&self) -> Option<&Identity> {
        self.0.as_ref().map(|v| &v.identity)
    }
}
