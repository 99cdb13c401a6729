//! The attributes of a session's cookies (RFC 6265 §4.1.2, RFC 6265bis §4.1.3): defaults follow the mode, and what no
//! browser would keep is refused.

use super::decode::{At, at, choice, flag, none_or, parsed};
use super::listener::Listener;
use super::parse;
use super::provider::{Provider, cookie_name};
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::server::Server;
use super::session::SessionMode;
use super::session_build::Around;
use super::table::table;
use super::value::{HostPattern, ListenAddr};
use std::sync::Arc;

/// The attributes of a session's cookies.
#[derive(Clone, Debug, PartialEq)]
pub struct Cookie {
    /// Only in `sealed` and `stored`, where it fits the attributes. `None`: the usual one.
    pub name: Option<Arc<str>>,
    /// The domain below which every host gets them. `None`: only the host that sets them.
    pub domain: Option<Arc<str>>,
    /// The path below which they are sent.
    pub path: Arc<str>,
    /// Never sent in the clear. In `shared` false, as the provider's library has it; else as `public_url` is.
    pub secure: bool,
    /// Not to be read by scripts. Always true in `sealed` and `stored`.
    pub http_only: bool,
    /// With which requests of other sites they are sent.
    pub same_site: SameSite,
}

table! {
    /// Attributes of the session's cookies (RFC 6265 §4.1.2). In `shared` the defaults are those of `@supabase/ssr`, whose
    /// browser code reads them.
    #[derive(Clone, Debug)]
    pub(super) struct CookieKeys("session.cookie", "`cookie`") {
        /// sealed and stored: the name; __Host-tollhouse unless given, and tollhouse where browsers would not grant that. In `shared` it is the provider's `cookie_name`.
        pub(super) name: Option<At<String>> = optional("__Host-session"), at(parsed(cookie_name, "the name of a cookie", "placeholder").like(like::COOKIE_NAME));
        /// The domain below which every host gets them; empty: only the host that sets them.
        pub(super) domain: At<Option<Arc<str>>> = default(""), at(none_or("", parsed(domain, "a domain such as \"example.com\"", "placeholder.invalid").like(like::HOST)));
        /// The path below which they are sent.
        pub(super) path: At<Arc<str>> = default("/"), at(parsed(cookie_path, "a path such as \"/\"", "/").like(like::COOKIE_PATH));
        /// Never sent in the clear. Unless given: shared: false; sealed and stored: true where every `public_url` is https, and without `public_url` unless all we listen on is this machine's own (loopback or unix) without TLS.
        pub(super) secure: Option<At<bool>> = optional(true), at(flag());
        /// Not to be read by scripts. Unless given: shared: false, for the library's browser client then sees no session; sealed and stored: true, and nothing else.
        pub(super) http_only: Option<At<bool>> = optional(true), at(flag());
        /// With which requests of other sites they are sent: strict, lax, none.
        pub(super) same_site: SameSite = default("lax"), choice(&[("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)]);
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

impl CookieKeys {
    pub(super) fn build(
        self,
        own: &Entries,
        mode: &At<SessionMode>,
        provider: &Provider,
        around: &Around<'_>,
        reader: &Reader<'_>,
    ) -> Cookie {
        let shared = mode.value == SessionMode::Shared;
        let usual = !shared && usually_secure(around.server, around.listeners);
        let secure = self.secure.as_ref().map_or(usual, |flag| flag.value);
        if shared {
            if let Some(name) = self.name.as_ref().filter(|_| mode.known) {
                let hint = "their name is the `cookie_name` of the provider";
                let message = "in `shared` the cookies are those of the provider's library";
                reader.error("contradiction", &name.place, message, hint);
            }
        } else {
            self.check_own(own, secure, provider, reader);
        }
        Cookie {
            name: self
                .name
                .filter(|_| !shared)
                .map(|name| name.value.as_str().into()),
            domain: self.domain.value,
            path: self.path.value,
            secure,
            http_only: self.http_only.map_or(!shared, |flag| flag.value) || !shared,
            same_site: self.same_site,
        }
    }

    /// Rules for cookies that only we read.
    fn check_own(&self, own: &Entries, secure: bool, provider: &Provider, reader: &Reader<'_>) {
        if let Some(flag) = self.http_only.as_ref().filter(|flag| flag.known)
            && !flag.value
        {
            let hint = "leave it out: no script has anything to read there";
            let message = "`http_only = false` would show the session to every script";
            reader.error("contradiction", &flag.place, message, hint);
        }
        let known = |flag: &At<bool>| flag.known;
        let secure = secure || !self.secure.as_ref().is_none_or(known);
        if self.same_site == SameSite::None && !secure {
            let hint = "browsers drop such a cookie; say `secure = true`, which needs https";
            let message = "`same_site = \"none\"` without `secure`";
            reader.error(
                "contradiction",
                &own.value_place("same_site"),
                message,
                hint,
            );
        }
        let Some(name) = self.name.as_ref().filter(|name| name.known) else {
            return;
        };
        let starts = |prefix: &str| {
            let start = name.value.get(..prefix.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
        };
        let whole = !self.path.known || &*self.path.value == "/";
        let of_host = whole && (!self.domain.known || self.domain.value.is_none());
        let lacks = if starts("__Host-") && !(secure && of_host) {
            "`__Host-` needs `secure`, the path `/` and no `domain`"
        } else if starts("__Secure-") && !secure {
            "`__Secure-` needs `secure`"
        } else if provider.cookie_name.as_deref() == Some(name.value.as_str()) {
            "the provider's own library uses it"
        } else {
            return;
        };
        let message = format!("the session's cookie cannot be named `{}`", name.shown);
        reader.error("bad-value", &name.place, message, lacks);
    }
}

/// Whether browsers reach us over TLS, as far as the file tells: where every `public_url` is https. Without one we
/// believe it, unless all that we listen on is this machine's own and in the clear.
fn usually_secure(server: Option<&Server>, listeners: &[Listener]) -> bool {
    let urls = server.map_or(&[][..], |server| &server.public_url);
    if !urls.is_empty() {
        return urls.iter().all(|origin| origin.0.starts_with("https://"));
    }
    let near = |door: &Listener| match &door.address {
        ListenAddr::Tcp(at) => at.ip().to_canonical().is_loopback(),
        ListenAddr::Unix(_) => true,
    };
    let clear = |door: &Listener| door.tls.is_empty() && near(door);
    listeners.is_empty() || !listeners.iter().all(clear)
}
