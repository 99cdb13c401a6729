//! What a browser keeps for us between requests: which cookies make up the session, what is in them, and the Set-Cookie
//! fields that replace or remove them. Mode `shared`: the provider's own cookies, read and written as its own library
//! does it. Mode `sealed`: cookies of ours that only we can read. Mode `stored`: an id, and Redis (contract, section 5).

mod json;
pub mod renewal;
pub mod sealed;
pub mod set_cookie;
pub mod stored;
pub mod supabase;

use crate::base::secret::Secret;
use crate::headers::cookies;
use http::{HeaderMap, HeaderValue};
use renewal::Renewal;
use std::fmt;
use std::sync::Arc;
use supabase::{Malformed, SessionCookie, SupabaseCookies};

/// How the session of this configuration is found in a request.
#[derive(Debug)]
pub struct Session {
    /// Index of the provider whose tokens it holds.
    pub provider: usize,
    cookies: Cookies,
    renewal: Option<Renewal>,
}

#[derive(Debug)]
enum Cookies {
    /// `@supabase/ssr` and its ancestors.
    Supabase(SupabaseCookies),
    /// A cookie whose value is the token itself.
    RawToken(Arc<str>),
}

/// What the cookies of a request hold.
#[derive(Debug)]
pub enum Held {
    /// No session.
    Nothing,
    /// Cookies that the real library takes for none, and why.
    Unreadable(Malformed),
    /// An access token, not verified, and nothing besides.
    Token(Secret<String>),
    /// A whole session, of which nothing is verified.
    Session(Box<SessionCookie>),
}

/// What a browser and the upstream are told of a session besides who it is.
#[derive(Default)]
pub struct Told {
    /// Set-Cookie fields for the answer, whatever it will be.
    pub set: Vec<HeaderValue>,
    /// The session's cookies as they are from now on, when they are no longer those of the request: names and
    /// percent-encoded values.
    pub pairs: Option<Vec<(String, String)>>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("set", &self.set.len())
            .field("renewed", &self.pairs.is_some())
            .finish()
    }
}

impl Session {
    /// The session of a Supabase project with this storage key. Without `renewal` it lasts as long as its token.
    pub fn supabase(provider: usize, storage_key: &str, renewal: Option<Renewal>) -> Self {
        Self {
            provider,
            cookies: Cookies::Supabase(SupabaseCookies::new(storage_key)),
            renewal,
        }
    }

    /// How it is renewed, when it can be.
    pub fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }

    /// A session that is one cookie with a bare JWT.
    pub fn raw_token(provider: usize, cookie: Arc<str>) -> Self {
        Self {
            provider,
            cookies: Cookies::RawToken(cookie),
            renewal: None,
        }
    }

    /// Whether a cookie of this name belongs to the session: removed on the way to an upstream, and from its `Set-Cookie`.
    pub fn owns(&self, name: &[u8]) -> bool {
        match &self.cookies {
            Cookies::Supabase(cookies) => cookies.owns(name),
            Cookies::RawToken(own) => own.as_bytes() == name,
        }
    }

    /// Whether a cookie of this name is a PKCE verifier, which the application behind us needs for its own logins.
    pub fn is_verifier(&self, name: &[u8]) -> bool {
        match &self.cookies {
            Cookies::Supabase(cookies) => cookies.is_verifier(name),
            Cookies::RawToken(_) => false,
        }
    }

    /// Appends every value that makes up the session to `key`, in order; false when there is none.
    /// Equal keys hold equal sessions, so the key serves the cache of verified credentials.
    pub fn append_raw(&self, headers: &HeaderMap, key: &mut Vec<u8>) -> bool {
        match &self.cookies {
            Cookies::Supabase(cookies) => match cookies.raw(headers) {
                Some(raw) => {
                    raw.append_key(key);
                    true
                }
                None => false,
            },
            Cookies::RawToken(own) => match first(headers, own) {
                Some(value) => {
                    key.extend_from_slice(value);
                    true
                }
                None => false,
            },
        }
    }

    /// The request's session.
    pub fn read(&self, headers: &HeaderMap) -> Held {
        match &self.cookies {
            Cookies::Supabase(cookies) => match cookies.read(headers) {
                Ok(Some(session)) => Held::Session(Box::new(session)),
                Ok(None) => Held::Nothing,
                Err(why) => Held::Unreadable(why),
            },
            Cookies::RawToken(own) => first(headers, own)
                .and_then(|value| String::from_utf8(value.to_vec()).ok())
                .map_or(Held::Nothing, |token| Held::Token(Secret::new(token))),
        }
    }
}

/// The first non-empty value under a name.
fn first<'h>(headers: &'h HeaderMap, own: &str) -> Option<&'h [u8]> {
    cookies::pairs(headers)
        .find(|(name, _)| *name == own.as_bytes())
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}
