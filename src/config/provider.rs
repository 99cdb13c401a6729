//! `[providers.*]`: whoever issues credentials.

use super::decode::{
    At, DAY, Kept, at, choice, flag, list, one_or_list, parsed, secret, size, span, string, word,
};
use super::parse;
use super::schema_text as like;
use super::table::table;
use super::value::ClaimPath;
use crate::base::secret::Secret;
use jsonwebtoken::Algorithm;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// One issuer of tokens, and how they are verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Provider {
    /// Of the table.
    pub name: Arc<str>,
    /// What differs between the kinds.
    pub kind: ProviderKind,
    /// `iss` of its tokens, byte for byte (RFC 7519 §4.1.1). `None`: `issuer = false`.
    pub issuer: Option<Arc<str>>,
    /// One of them must be in `aud`. `None`: `audiences = false`. Never an empty list.
    pub audiences: Option<Vec<Arc<str>>>,
    /// Where verification keys come from.
    pub keys: KeySource,
    /// Algorithms a token may use; the key decides which of them.
    pub algorithms: Vec<Algorithm>,
    /// Clock difference forgiven for `exp`, `nbf` and `iat`; at most 60 s, default 30 s.
    pub leeway: Duration,
    /// Age at which keys are fetched again; default 10 min.
    pub jwks_ttl: Duration,
    /// Age up to which keys serve while they cannot be fetched; default 24 h.
    pub jwks_max_stale: Duration,
    /// Least time between two fetches for an unknown `kid`; default 10 s.
    pub jwks_refetch_cooldown: Duration,
    /// Roles are the union of these claims.
    pub roles: Vec<ClaimPath>,
    /// The claim that names the user; default `sub`.
    pub user_id_claim: ClaimPath,
    /// Put before each user id; default empty.
    pub user_prefix: Arc<str>,
    /// Largest token looked at, in bytes; default 8 KiB.
    pub max_token_bytes: usize,
    /// Time for one call to the provider; default 5 s.
    pub http_timeout: Duration,
    /// Certificates to trust for the provider instead of the system's; absolute or relative to the working directory.
    pub ca_file: Option<PathBuf>,
    /// Plain http is allowed beyond loopback; default false.
    pub allow_insecure_http: bool,
    /// supabase: the storage key (given or derived); jwt: the cookie that holds the raw token.
    pub cookie_name: Option<Arc<str>>,
}

/// What differs between the kinds.
#[derive(Clone, Debug, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one for each provider, in a Config that is never moved about"
)]
pub enum ProviderKind {
    /// Supabase Auth.
    Supabase {
        /// `URL/auth/v1`, as seen from here (`internal_url` when given).
        auth_api: Url,
        /// `URL/auth/v1`, as browsers reach it.
        public_api: Url,
        /// The anon or `sb_publishable_` key; for logins and for renewing sessions.
        publishable_key: Option<Secret<String>>,
        /// An `sb_secret_` or the `service_role` key: with it the project counts its limits by browser and not by
        /// gateway. `None`: calls are made with the publishable one.
        secret_key: Option<Secret<String>>,
        /// Whether its anonymous sign-ins are users; default false.
        anonymous_users: bool,
        /// Whether tokens with the role `service_role` are identities; default false. The `anon` key never is one.
        service_role: bool,
    },
    /// Any issuer of JWTs.
    Jwt,
}

/// Where verification keys come from. Both may be there for one issuer.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySource {
    /// JSON Web Key Set (RFC 7517 §5).
    pub jwks_url: Option<Url>,
    /// HS256 secret, at least 32 bytes, `base64:` already decoded.
    pub secret: Option<Secret<Vec<u8>>>,
    /// PEM text of `public_key_file`.
    pub public_key: Option<Arc<str>>,
}

/// `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KindWord {
    Supabase,
    Jwt,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct ProviderKeys("providers", "a provider") {
        /// supabase, or jwt for any other issuer of tokens.
        pub(super) kind: KindWord = required("supabase"), choice(&[("supabase", KindWord::Supabase), ("jwt", KindWord::Jwt)]);
        /// supabase: the project's URL; issuer, keys and API are derived from it.
        pub(super) url: Option<At<Url>> = optional("https://xyz.supabase.co"), at(url());
        /// supabase: the anon or sb_publishable_ key; people log in and sessions are renewed with it.
        pub(super) publishable_key: Option<Kept> = optional("${SUPABASE_PUBLISHABLE_KEY}"), secret();
        /// supabase: the sb_secret_ key, only to pass the browsers' addresses on (Sb-Forwarded-For), so that the project's limits count for each of them. Empty: none.
        pub(super) secret_key: Option<Kept> = optional("${SUPABASE_SECRET_KEY}"), secret();
        /// supabase: only for projects that still sign with HS256; text, or "base64:…", at least 32 bytes.
        pub(super) jwt_secret: Option<Kept> = optional("${SUPABASE_JWT_SECRET}"), secret();
        /// supabase: whether its anonymous sign-ins (`is_anonymous`) are users: deny (403, or nobody on optional routes) or allow.
        pub(super) anonymous_users: bool = default("deny"), choice(&[("deny", false), ("allow", true)]);
        /// supabase: whether tokens with the role service_role are identities: deny (401), or allow, if they name a user (`user_id_claim`). The anon key never is one.
        pub(super) service_role: bool = default("deny"), choice(&[("deny", false), ("allow", true)]);
        /// jwt: HS256 secret, text or "base64:…", at least 32 bytes.
        pub(super) secret: Option<Kept> = optional("${JWT_SECRET}"), secret();
        /// jwt: a file with the issuer's public key in PEM.
        pub(super) public_key_file: Option<At<String>> = optional("issuer.pem"), at(word());
        /// `iss` of its tokens, byte for byte; supabase: URL/auth/v1. false: any, for one provider only.
        pub(super) issuer: Option<super::decode::Either<At<String>>> = optional("https://issuer.example.com"), super::decode::flag_or(at(word()));
        /// One of them must be in `aud`; supabase: ["authenticated"]. false: any, for one provider only.
        pub(super) audiences: Option<super::decode::Either<Vec<At<String>>>> = optional(["authenticated"]), super::decode::flag_or(one_or_list(at(word())));
        /// Where its keys are (RFC 7517); supabase: URL/auth/v1/.well-known/jwks.json.
        pub(super) jwks_url: Option<At<Url>> = optional("https://issuer.example.com/.well-known/jwks.json"), at(url());
        /// Where to reach it from here, when that is not `url`.
        pub(super) internal_url: Option<At<Url>> = optional("http://127.0.0.1:54321"), at(url());
        /// Algorithms a token may use; supabase: ES256, RS256, EdDSA, and HS256 only with `jwt_secret`.
        pub(super) algorithms: Option<Vec<At<Algorithm>>> = optional(["ES256"]), list(at(parsed(algorithm, "an algorithm such as \"ES256\"", "ES256").words(ALGORITHMS)));
        /// Clock difference forgiven for `exp` and `nbf`; at most 60 s.
        pub(super) leeway: Duration = default("30s"), span(0, 60_000);
        /// Age at which keys are fetched again.
        pub(super) jwks_ttl: Duration = default("10m"), span(1000, DAY);
        /// Age up to which keys serve while they cannot be fetched.
        pub(super) jwks_max_stale: Duration = default("24h"), span(0, 31 * DAY);
        /// Least time between two fetches for an unknown key id.
        pub(super) jwks_refetch_cooldown: Duration = default("10s"), span(1000, DAY);
        /// Roles are the union of these claims; supabase: user_role, app_metadata.role, app_metadata.roles; jwt: role, roles.
        pub(super) roles: Option<Vec<At<ClaimPath>>> = optional(["app_metadata.role"]), one_or_list(at(claim()));
        /// The claim that names the user.
        pub(super) user_id_claim: At<ClaimPath> = default("sub"), at(claim());
        /// Put before each user id.
        pub(super) user_prefix: Arc<str> = default(""), parsed(user_prefix, "at most 64 visible ASCII characters", "").like(like::USER_PREFIX);
        /// Largest token looked at.
        pub(super) max_token_bytes: usize = default("8KiB"), size(512, 64 << 10);
        /// Time for one call to the provider.
        pub(super) http_timeout: Duration = default("5s"), span(1, 60_000);
        /// Certificates to trust for the provider, in PEM, instead of the system's.
        pub(super) ca_file: Option<At<String>> = optional("ca.pem"), at(string());
        /// Allow plain http beyond loopback: whoever can change that traffic can sign in as anybody.
        pub(super) allow_insecure_http: bool = default(false), flag();
        /// supabase: the storage key, when it is not the usual one; jwt: a cookie that holds the raw token.
        pub(super) cookie_name: Option<At<String>> = optional("sb-xyz-auth-token"), at(parsed(cookie_name, "the name of a cookie", "placeholder").like(like::COOKIE_NAME));
    }
}

fn url() -> super::decode::Parsed<Url> {
    parsed(
        parse::http_url,
        "a URL such as \"https://xyz.supabase.co\"",
        "https://placeholder.invalid",
    )
    .like(like::URL)
}

fn claim() -> super::decode::Parsed<ClaimPath> {
    parsed(
        parse::claim,
        "a claim path such as \"app_metadata.role\"",
        "placeholder",
    )
    .like(like::CLAIM)
}

/// `alg` of RFC 7518 §3.1 and RFC 8037 §3.1 that can be verified.
const ALGORITHMS: &[&str] = &[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse()
        .map_err(|_| format!("known: {}", ALGORITHMS.join(", ")))
}

fn user_prefix(text: &str) -> Result<Arc<str>, String> {
    let fine = text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic());
    if fine {
        Ok(text.into())
    } else {
        Err(String::new())
    }
}

/// RFC 6265 §4.1.1: a token. Brackets and colons, too: `sb-[::1]-auth-token` is what the library derives.
pub(super) fn cookie_name(text: &str) -> Result<String, String> {
    let fine = |b: u8| {
        b.is_ascii_graphic() && !matches!(b, b'=' | b';' | b',' | b'"' | b'\\' | b'(' | b')' | b'/')
    };
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(fine) {
        return Ok(text.to_owned());
    }
    Err("letters, digits, `-`, `_` and `.`".into())
}
