//! `[providers.*]`: whoever issues credentials.

use super::value::ClaimPath;
use crate::base::secret::Secret;
use jsonwebtoken::Algorithm;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    pub name: Arc<str>,
    pub kind: ProviderKind,
    /// `None`: `issuer = false`.
    pub issuer: Option<Arc<str>>,
    /// `None`: `audiences = false`. Never an empty list.
    pub audiences: Option<Vec<Arc<str>>>,
    pub keys: KeySource,
    /// Algorithms a token may use; the key decides which of them.
    pub algorithms: Vec<Algorithm>,
    pub leeway: Duration,
    pub jwks_ttl: Duration,
    pub jwks_max_stale: Duration,
    pub jwks_refetch_cooldown: Duration,
    pub roles: Vec<ClaimPath>,
    pub user_id_claim: ClaimPath,
    pub user_prefix: Arc<str>,
    pub max_token_bytes: usize,
    pub http_timeout: Duration,
    pub ca_file: Option<PathBuf>,
    pub allow_insecure_http: bool,
    /// supabase: the storage key (given or derived); jwt: the cookie that holds the raw token.
    pub cookie_name: Option<Arc<str>>,
}

/// What differs between the kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderKind {
    Supabase {
        /// `URL/auth/v1`, as seen from here (`internal_url` when given).
        auth_api: Url,
        publishable_key: Option<Secret<String>>,
        anonymous_users: bool,
        service_role: bool,
    },
    Jwt,
}

/// Where verification keys come from. Both may be there for one issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySource {
    pub jwks_url: Option<Url>,
    /// HS256 secret, at least 32 bytes, `base64:` already decoded.
    pub secret: Option<Secret<Vec<u8>>>,
    /// PEM text of `public_key_file`.
    pub public_key: Option<Arc<str>>,
}
