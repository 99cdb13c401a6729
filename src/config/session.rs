//! `[session]`: whose cookies count as a credential, where the tokens behind them are kept, and for how long.

use super::decode::{
    At, DAY, Kept, at, choice, flag, list, masked, nested, none_or, parsed, secret, span, word,
};
use super::parse;
use super::provider::{Provider, ProviderKind};
use super::read::Entries;
use super::schema_text as like;
use super::session_cookie::CookieKeys;
use super::table::table;
use super::value::{Origin, Rate};
use crate::base::key::KEY_BYTES;
use crate::base::secret::Secret;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

pub use super::session_cookie::{Cookie, SameSite};

/// Most keys that `session.keys` may hold.
pub const KEYS_MAX: usize = 16;

/// Cookies that stand for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Where tokens are kept.
    pub mode: SessionMode,
    /// Index into `Config::providers`.
    pub provider: usize,
    /// The first seals, every one opens: 1 to [`KEYS_MAX`] in `sealed` and `stored`, none in `shared`.
    pub keys: Vec<Secret<[u8; KEY_BYTES]>>,
    /// The attributes of its cookies. Defaults depend on the mode; here they are settled.
    pub cookie: Cookie,
    /// How long before its token's end a session is renewed, but never more than a fifth of the token's life; default
    /// 90 s, as the provider's own library does it.
    pub refresh_ahead: Duration,
    /// How long a session lives at most, however much it is used; default 30 days. `sealed` and `stored`.
    pub max_age: Duration,
    /// How long a session lives without being used, never more than `max_age`; default 7 days. `sealed` and `stored`.
    pub idle_timeout: Duration,
    /// How long a replica may trust what it read of a session; default 5 s, zero: not at all. `stored`.
    pub cache_ttl: Duration,
    /// Whether cookies of the provider's own library begin a session, once; default false. Only in `sealed` and
    /// `stored`, and with a Supabase provider that has its `publishable_key`.
    pub adopt: bool,
    /// The path below which the session endpoints are, canonical and without a slash at its end; default `/.auth`. No
    /// route of the file lies there. `None`: `"off"`.
    pub endpoints: Option<Arc<str>>,
    /// Where `on_unauthenticated = "login"` sends a browser: a path of ours, or a URL. Default `/login`.
    pub login_url: Arc<str>,
    /// The path of ours where a login ends that named no other; default `/`.
    pub after_login: Arc<str>,
    /// Origins besides ours that may send unsafe requests with the cookie, and that a login may return to.
    pub trusted_origins: Vec<Origin>,
    /// What logins may take of the provider's own limits.
    pub provider_budget: ProviderBudget,
}

impl Session {
    /// Whether its endpoints try passwords and codes: they are on, and the provider takes such from us.
    pub fn tries_secrets(&self, providers: &[Provider]) -> bool {
        let kind = providers.get(self.provider).map(|provider| &provider.kind);
        let publishable_key = match kind {
            Some(ProviderKind::Supabase {
                publishable_key, ..
            }) => publishable_key.as_ref(),
            Some(ProviderKind::Jwt) | None => None,
        };
        self.endpoints.is_some() && publishable_key.is_some()
    }
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// In the provider's own cookies.
    Shared,
    /// In a cookie of ours that only we can read.
    Sealed,
    /// In Redis, sealed; the browser has an opaque id.
    Stored,
}

impl SessionMode {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Sealed => "sealed",
            Self::Stored => "stored",
        }
    }
}

/// The default of `max_age`, and of `idle_timeout`: the table's own.
pub(super) const MAX_AGE: Duration = Duration::from_secs(30 * 86_400);
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
pub(super) const CACHE_TTL: Duration = Duration::from_secs(5);

/// The longest that browsers keep a cookie: 400 days (RFC 6265bis §5.5), in milliseconds.
const LIFE_MAX: u64 = 400 * DAY;

table! {
    #[derive(Clone, Debug)]
    pub(super) struct SessionKeys("session", "`[session]`") {
        /// Where tokens are kept. shared: in the provider's own cookies; sealed: in a cookie of ours that only we can read; stored: in `[redis]`, the browser has an id. There is no default.
        pub(super) mode: At<SessionMode> = required("shared"), at(choice(&[("shared", SessionMode::Shared), ("sealed", SessionMode::Sealed), ("stored", SessionMode::Stored)]));
        /// Whose sessions these are; the only provider unless given.
        pub(super) provider: Option<At<String>> = optional("main"), at(word());
        /// sealed and stored: 1 to 16 keys of 32 bytes in base64, made by `tollhouse keygen`. The first seals, every one opens. A new one goes last at every replica, and then first.
        pub(super) keys: Option<Vec<Kept>> = optional(["${TOLLHOUSE_SESSION_KEY}"]), masked(list(secret()));
        /// The attributes of the session's cookies. In `shared` they must be those that the application gives its library (`cookieOptions`), else two cookies of one name stand beside each other.
        pub(super) cookie: Option<(CookieKeys, Entries)> = optional({ domain = "example.com", secure = true }), nested::<CookieKeys>();
        /// How long before its token's end a session is renewed; never more than a fifth of the token's life. Needs the provider's `publishable_key`.
        pub(super) refresh_ahead: Duration = default("90s"), span(0, DAY);
        /// sealed and stored: how long a session lives at most, however much it is used.
        pub(super) max_age: At<Duration> = default("30d"), at(span(60_000, LIFE_MAX));
        /// sealed and stored: how long a session lives without being used; at most `max_age`.
        pub(super) idle_timeout: At<Duration> = default("7d"), at(span(60_000, LIFE_MAX));
        /// stored: how long a replica may trust what it read of a session, so how long one that was ended elsewhere may go on; "0s": it asks each time.
        pub(super) cache_ttl: Duration = default("5s"), span(0, 300_000);
        /// sealed and stored: take cookies of the provider's own library over, once each. For the time of a change; `check` warns while it is on.
        pub(super) adopt: bool = default(false), flag();
        /// The path below which the session endpoints are, or "off". No route of yours may lie there.
        pub(super) endpoints: Option<Arc<str>> = default("/.auth"), none_or("off", parsed(endpoints, "a path such as \"/.auth\"", "/placeholder").like(like::ENDPOINTS));
        /// Where a browser without a session is sent by routes with `on_unauthenticated = "login"`.
        pub(super) login_url: Arc<str> = default("/login"), parsed(login_url, "a path such as \"/login\", or a URL", "/login").like(like::LOGIN_URL);
        /// Where a login ends that named no page to return to: a path of ours.
        pub(super) after_login: Arc<str> = default("/"), parsed(own_path, "a path such as \"/\"", "/").like(like::OWN_PATH);
        /// Origins besides ours that may send unsafe requests with the cookie, get CORS with credentials, and be returned to after a login.
        pub(super) trusted_origins: Vec<Origin> = default([]), list(parsed(parse::origin, "an origin such as \"https://app.example.com\"", "https://placeholder.invalid").like(like::URL));
        /// What logins may take of the provider's own limits, which count all that comes from here as one: refreshes always find something left.
        pub(super) provider_budget: Option<(ProviderBudget, Entries)> = optional({ login = "60/5m", otp = "20/5m" }), nested::<ProviderBudget>();
    }
}

table! {
    /// What logins may take of the provider's own limits, in the whole process.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ProviderBudget("session.provider_budget", "`provider_budget`") {
        /// Calls with a password or a login's code.
        pub login: Rate = default("60/5m"), parsed(parse::rate, "a rate such as \"60/5m\"", "60/5m").like(like::RATE);
        /// Calls that send a message, such as a sign-up or a one-time code; as many again to check what was sent.
        pub otp: Rate = default("20/5m"), parsed(parse::rate, "a rate such as \"20/5m\"", "20/5m").like(like::RATE);
    }
}

impl Default for ProviderBudget {
    fn default() -> Self {
        let rate = |count: u32| Rate {
            count: NonZeroU32::MIN.saturating_add(count - 1),
            per: Duration::from_secs(300),
        };
        Self {
            login: rate(60),
            otp: rate(20),
        }
    }
}

/// A path that no request can have in two spellings: whole segments of unreserved characters (RFC 3986 §2.3).
fn endpoints(text: &str) -> Result<Arc<str>, String> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("it begins with `/`".into());
    };
    if text.len() > 128 {
        return Err("it is longer than 128 bytes".into());
    }
    if rest.is_empty() || rest.split('/').any(str::is_empty) {
        return Err("parts with one slash before each, and none at the end".into());
    }
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~');
    if !text.bytes().all(fine) {
        return Err("letters, digits, `-`, `.`, `_` and `~` between slashes".into());
    }
    if rest.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("`.` and `..` are never part of a path here".into());
    }
    Ok(text.into())
}

fn login_url(text: &str) -> Result<Arc<str>, String> {
    if text.contains("://") && !text.starts_with('/') {
        return parse::http_url(text).map(|url| url.as_str().into());
    }
    own_path(text)
}

/// `//host` and `/\host` are other origins to a browser.
fn own_path(text: &str) -> Result<Arc<str>, String> {
    let own = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
    if !own || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it begins with one `/`".into());
    }
    Ok(text.into())
}
