//! `[session]`: whose cookies count as a credential.

use super::decode::{At, DAY, at, choice, list, parsed, span, word};
use super::parse;
use super::provider::{Provider, ProviderKind};
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::Origin;
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
        /// How long before its token's end a session is renewed; never more than a fifth of the token's life. Needs the provider's `publishable_key`.
        pub(super) refresh_ahead: Duration = default("90s"), span(0, DAY);
        /// Where a browser without a session is sent by routes with `on_unauthenticated = "login"`.
        pub(super) login_url: Arc<str> = default("/login"), parsed(login_url, "a path such as \"/login\", or a URL", "/login").like(like::LOGIN_URL);
        /// Origins besides ours that may send unsafe requests with the cookie and get CORS with credentials.
        pub(super) trusted_origins: Vec<Origin> = default([]), list(parsed(parse::origin, "an origin such as \"https://app.example.com\"", "https://placeholder.invalid").like(like::URL));
    }
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
