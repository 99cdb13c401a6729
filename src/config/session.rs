//! `[session]`: whose cookies count as a credential.

use super::decode::{At, DAY, at, choice, flag, list, nested, none_or, parsed, span, word};
use super::parse;
use super::provider::{Provider, ProviderKind};
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::{HostPattern, Origin};
use std::sync::Arc;
use std::time::Duration;

/// Cookies that stand for a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Where tokens are kept.
    pub mode: SessionMode,
    /// Index into `Config::providers`.
    pub provider: usize,
    /// Where `on_unauthenticated = "login"` sends a browser: a path of ours, or a URL. Default `/login`.
    pub login_url: Arc<str>,
    /// Origins besides ours that may send unsafe requests with the cookie.
    pub trusted_origins: Vec<Origin>,
    /// How its cookies are written back; default as the provider's own library does it.
    pub cookie: Cookie,
    /// How long before its token's end a session is renewed, but never more than a fifth of the token's life; default
    /// 90 s, as the provider's own library does it.
    pub refresh_ahead: Duration,
}

/// Where tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// The provider's own cookies.
    Shared,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct SessionKeys("session", "`[session]`") {
        /// Where tokens are kept. shared: in the provider's own cookies. There is no default.
        pub(super) mode: SessionMode = required("shared"), choice(&[("shared", SessionMode::Shared)]);
        /// Whose sessions these are; the only provider unless given.
        pub(super) provider: Option<At<String>> = optional("main"), at(word());
        /// The attributes of the cookies that are written back. In `shared` they must be those that the application gives its library (`cookieOptions`), else two cookies of one name stand beside each other.
        pub(super) cookie: Option<(Cookie, Entries)> = optional({ domain = "example.com", secure = true }), nested::<Cookie>();
        /// How long before its token's end a session is renewed; never more than a fifth of the token's life. Needs the provider's `publishable_key`.
        pub(super) refresh_ahead: Duration = default("90s"), span(0, DAY);
        /// Where a browser without a session is sent by routes with `on_unauthenticated = "login"`.
        pub(super) login_url: Arc<str> = default("/login"), parsed(login_url, "a path such as \"/login\", or a URL", "/login").like(like::LOGIN_URL);
        /// Origins besides ours that may send unsafe requests with the cookie and get CORS with credentials.
        pub(super) trusted_origins: Vec<Origin> = default([]), list(parsed(parse::origin, "an origin such as \"https://app.example.com\"", "https://placeholder.invalid").like(like::URL));
    }
}

table! {
    /// Attributes of the cookies that are written back (RFC 6265 §4.1.2). The defaults are those of `@supabase/ssr`, whose
    /// browser code reads them.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Cookie("session.cookie", "`cookie`") {
        /// The domain below which every host gets them; empty: only the host that sets them.
        pub domain: Option<Arc<str>> = default(""), none_or("", parsed(domain, "a domain such as \"example.com\"", "placeholder.invalid").like(like::HOST));
        /// The path below which they are sent.
        pub path: Arc<str> = default("/"), parsed(cookie_path, "a path such as \"/\"", "/");
        /// Never sent in the clear.
        pub secure: bool = default(false), flag();
        /// Not to be read by scripts. The library's browser client then sees no session.
        pub http_only: bool = default(false), flag();
        /// With which requests of other sites they are sent: strict, lax, none.
        pub same_site: SameSite = default("lax"), choice(&[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)]);
    }
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            domain: None,
            path: "/".into(),
            secure: false,
            http_only: false,
            same_site: SameSite::Lax,
        }
    }
}

/// Attribute of the same name (RFC 6265bis §5.6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// With none.
    Strict,
    /// With top-level navigations that are safe.
    Lax,
    /// With all; browsers ask for `secure` then.
    None,
}

fn domain(text: &str) -> Result<Arc<str>, String> {
    let name = text.strip_prefix('.').unwrap_or(text);
    match parse::host(name) {
        Ok(HostPattern::Exact(name)) => Ok(name),
        _ => Err("a name, without scheme, port and `*`".into()),
    }
}

fn cookie_path(text: &str) -> Result<Arc<str>, String> {
    if !text.starts_with('/') || !text.bytes().all(|b| b.is_ascii_graphic() && b != b';') {
        return Err("it begins with `/`, and has no `;`".into());
    }
    Ok(text.into())
}

fn login_url(text: &str) -> Result<Arc<str>, String> {
    if text.contains("://") {
        return parse::http_url(text).map(|url| url.as_str().into());
    }
    // `//host` and `/\host` are other origins to a browser.
    let own = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
    if !own || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("it begins with one `/`".into());
    }
    Ok(text.into())
}

impl SessionKeys {
    pub(super) fn build(
        self,
        entries: &Entries,
        providers: &[Provider],
        declared: &[&str],
        reader: &Reader<'_>,
    ) -> Option<Session> {
        let index = self.provider(entries, providers, declared, reader)?;
        let provider = providers.get(index)?;
        let place = if self.provider.is_some() {
            entries.value_place("provider")
        } else {
            entries.value_place("mode")
        };
        if provider.kind == ProviderKind::Jwt && provider.cookie_name.is_none() {
            let message = format!("the session's provider `{}` has no cookie", provider.name);
            let hint = "give that provider `cookie_name`, the cookie that holds its token";
            reader.error("no-session-cookie", &place, message, hint);
        }
        Some(Session {
            mode: self.mode,
            provider: index,
            login_url: self.login_url,
            trusted_origins: self.trusted_origins,
            refresh_ahead: self.refresh_ahead,
            cookie: self.cookie.map(|(cookie, _)| cookie).unwrap_or_default(),
        })
    }

    fn provider(
        &self,
        entries: &Entries,
        providers: &[Provider],
        declared: &[&str],
        reader: &Reader<'_>,
    ) -> Option<usize> {
        match (&self.provider, providers) {
            (Some(name), _) if name.known => {
                let found = providers
                    .iter()
                    .position(|provider| *provider.name == *name.value);
                if found.is_none() && !declared.contains(&name.value.as_str()) {
                    let hint = name.suggest(declared.iter().copied());
                    reader.error(
                        "unknown-provider",
                        &name.place,
                        format!("there is no provider `{}`", name.shown),
                        hint,
                    );
                }
                found
            }
            (_, []) if !declared.is_empty() => None,
            (_, []) => {
                let hint = "add [providers.main]";
                reader.error(
                    "unknown-provider",
                    &entries.place,
                    "`[session]` needs a provider",
                    hint,
                );
                None
            }
            (Some(_), _) => Some(0),
            (None, [_]) if declared.len() == 1 => Some(0),
            (None, _) => {
                let hint = "say `provider = \"…\"`";
                reader.error(
                    "missing-key",
                    &entries.place,
                    "`[session]` must say which of the providers it is for",
                    hint,
                );
                None
            }
        }
    }
}
