//! The session cookies of Supabase's own client libraries, read as `@supabase/ssr` 0.12 reads them, and the forms of
//! its predecessors. Finds and decodes; never verifies a token. What is written back stands in `write`.
//! Everything here is hostile input: whatever is wrong with it, the answer is "no session", never a failure.

mod response;
mod slot;
mod write;

pub use write::SupabaseWriter;

use super::json::{self, Value};
use crate::base::secret::Secret;
use crate::headers::cookies;
use http::HeaderMap;
use slot::{Found, slot};
use std::fmt;

/// Cookies one session may be cut into. The library has no limit; 20 pieces are 63 kB.
pub const PIECES_MAX: usize = 32;

/// Bytes of all values that make up a session, as sent.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

const ACCESS_TOKEN: &[u8] = b"sb-access-token";
const REFRESH_TOKEN: &[u8] = b"sb-refresh-token";
/// The fixed name that auth-helpers used before names carried the project.
const LEGACY_KEY: &[u8] = b"supabase-auth-token";
const BASE64_PREFIX: &[u8] = b"base64-";

/// The session cookies of one project.
#[derive(Clone, Debug)]
pub struct SupabaseCookies {
    key: Box<[u8]>,
}

impl SupabaseCookies {
    /// `storage_key` is the base name of the cookies: `sb-<project>-auth-token`, unless the application names it.
    pub fn new(storage_key: &str) -> Self {
        Self {
            key: storage_key.as_bytes().into(),
        }
    }

    /// Whether a cookie of this name holds a session or a piece of one, so that it is removed before forwarding.
    /// PKCE verifier cookies are not: the application needs them for its own logins.
    pub fn owns(&self, name: &[u8]) -> bool {
        slot(&self.key, name).is_some()
            || slot(LEGACY_KEY, name).is_some()
            || name == ACCESS_TOKEN
            || name == REFRESH_TOKEN
    }

    /// Whether a cookie of this name is a PKCE verifier of the library: one for each login that is under way.
    pub fn is_verifier(&self, name: &[u8]) -> bool {
        [&*self.key, LEGACY_KEY].iter().any(|key| {
            name.strip_prefix(*key)
                .is_some_and(|rest| rest.starts_with(b"-") && rest.ends_with(b"-code-verifier"))
        })
    }

    /// The values that make up the session of a request, found without decoding or allocating. `None`: no session.
    ///
    /// Of each name the first cookie counts, even when it is empty. The unchunked cookie wins over pieces even when it is
    /// corrupt; pieces end at the first that is missing or empty. Older names are looked at only without both.
    pub fn raw<'a>(&self, headers: &'a HeaderMap) -> Option<RawSession<'a>> {
        let mut own = Found::NOTHING;
        let mut legacy = Found::NOTHING;
        let (mut access, mut refresh) = (None, None);
        for (name, value) in cookies::pairs(headers) {
            if let Some(slot) = slot(&self.key, name) {
                own.keep(slot, value);
            } else if let Some(slot) = slot(LEGACY_KEY, name) {
                legacy.keep(slot, value);
            } else if name == ACCESS_TOKEN {
                access.get_or_insert(value);
            } else if name == REFRESH_TOKEN {
                refresh.get_or_insert(value);
            }
        }
        own.session().or_else(|| legacy.session()).or_else(|| {
            let mut pieces = [&[][..]; PIECES_MAX + 1];
            pieces[0] = access.filter(|value| !value.is_empty())?;
            pieces[1] = refresh.unwrap_or_default();
            Some(RawSession {
                form: Form::TwoCookies,
                pieces,
                count: 2,
            })
        })
    }

    /// Finds and decodes the session of a request.
    pub fn read(&self, headers: &HeaderMap) -> Result<Option<SessionCookie>, Malformed> {
        self.raw(headers).map(|raw| raw.decode()).transpose()
    }
}

/// How a session was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A JSON object (`@supabase/ssr`, auth-helpers 0.7).
    Object,
    /// A JSON array of tokens (auth-helpers).
    Array,
    /// `sb-access-token` and `sb-refresh-token`.
    TwoCookies,
}

/// How the JSON text of a session became the value of its cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `base64-` and the text in base64url.
    Base64Url,
    /// The text itself.
    Raw,
}

/// How a session is written, so that whoever reads it goes on reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// An array is written back as an object: `@supabase/ssr` refuses arrays, and auth-helpers 0.7 reads both.
    pub form: Form,
    /// Of both JSON forms. Every version that reads base64url reads raw text, too, but not the other way round.
    pub encoding: Encoding,
    /// Whether the object has a `user`; false in the library's `tokens-only` mode.
    pub with_user: bool,
}

/// What `@supabase/ssr` writes unless it is told otherwise.
impl Default for Style {
    fn default() -> Self {
        Self {
            form: Form::Object,
            encoding: Encoding::Base64Url,
            with_user: true,
        }
    }
}

/// The undecoded values of a session, in order. They determine what [`RawSession::decode`] answers.
#[derive(Clone, Copy)]
pub struct RawSession<'a> {
    /// `Object` stands for both JSON forms: which one it is shows only after decoding.
    form: Form,
    pieces: [&'a [u8]; PIECES_MAX + 1],
    count: usize,
}

impl<'a> RawSession<'a> {
    /// The values, as sent.
    pub fn values(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.pieces.iter().take(self.count).copied()
    }

    /// Appends a key under which the outcome of decoding may be remembered: equal keys, equal sessions. Each value
    /// is preceded by its length, so that no two divisions look alike.
    pub fn append_key(&self, key: &mut Vec<u8>) {
        key.reserve(1 + self.values().map(|value| value.len() + 8).sum::<usize>());
        key.push(self.tag());
        for value in self.values() {
            key.extend_from_slice(&(value.len() as u64).to_le_bytes());
            key.extend_from_slice(value);
        }
    }

    /// Decodes the session.
    pub fn decode(&self) -> Result<SessionCookie, Malformed> {
        if self.count > PIECES_MAX {
            return Err(Malformed::TooManyPieces);
        }
        if self.values().map(<[u8]>::len).sum::<usize>() > VALUE_BYTES_MAX {
            return Err(Malformed::TooLarge);
        }
        if self.form == Form::TwoCookies {
            return self.decode_two_cookies();
        }
        let mut joined = Vec::new();
        for value in self.values() {
            joined.extend_from_slice(&cookies::percent_decode(value));
        }
        let (text, encoding) = match joined.strip_prefix(BASE64_PREFIX) {
            Some(encoded) => {
                let decoded = base64url(encoded).ok_or(Malformed::Encoding)?;
                let text = String::from_utf8(decoded).map_err(|_| Malformed::Encoding)?;
                (text, Encoding::Base64Url)
            }
            None => (latin1_or_utf8(joined), Encoding::Raw),
        };
        SessionCookie::from_text(text, encoding)
    }

    fn decode_two_cookies(&self) -> Result<SessionCookie, Malformed> {
        let mut tokens = self
            .values()
            .map(|value| String::from_utf8(cookies::percent_decode(value).into_owned()));
        let access = tokens
            .next()
            .and_then(Result::ok)
            .ok_or(Malformed::Encoding)?;
        let refresh = tokens.next().and_then(Result::ok);
        SessionCookie::from_tokens(
            Form::TwoCookies,
            access,
            refresh,
            (String::new(), Encoding::Raw),
        )
    }

    fn tag(&self) -> u8 {
        u8::from(self.form == Form::TwoCookies)
    }
}

impl fmt::Debug for RawSession<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawSession")
            .field("form", &self.form)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// A session as its cookie tells it. Nothing in it is verified.
#[derive(Clone, Debug)]
pub struct SessionCookie {
    /// Never empty.
    pub access_token: Secret<String>,
    /// `None`: this session cannot be refreshed. Never empty.
    pub refresh_token: Option<Secret<String>>,
    /// Unix seconds. `None`: the cookie does not say, or says null or 0, which the library reads as "never".
    pub expires_at: Option<f64>,
    /// The user's `id`; for the older forms the token's `sub`.
    pub user_id: Option<String>,
    /// Whether a rewritten cookie carries the user object: false only when an object has no `user` key (the library's
    /// `tokens-only` mode).
    pub had_user: bool,
    /// How it was written.
    pub form: Form,
    /// How the text was encoded; `Raw` for two cookies.
    pub encoding: Encoding,
    /// The JSON text, for rewriting; empty for two cookies.
    pub text: Secret<String>,
}

/// Why a session cookie is no session. To the client all of them are the same: not signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than [`PIECES_MAX`].
    #[error("the session is cut into more than {PIECES_MAX} cookies")]
    TooManyPieces,
    /// More than [`VALUE_BYTES_MAX`].
    #[error("the session cookies hold more than {VALUE_BYTES_MAX} bytes")]
    TooLarge,
    /// Not base64url, or not UTF-8 behind it.
    #[error("the session cookie is not base64url of UTF-8")]
    Encoding,
    /// Not JSON, often pieces of different sessions; or `null`, which the library takes for an absent cookie.
    #[error("the session cookie is not JSON")]
    NotJson,
    /// JSON that is no session. In this case alone the library clears the cookies.
    #[error("the session cookie holds JSON that is not a session")]
    NotASession,
}

impl SessionCookie {
    /// How it was written, which is how what follows it is written.
    pub fn style(&self) -> Style {
        Style {
            form: self.form,
            encoding: self.encoding,
            with_user: self.had_user,
        }
    }

    fn from_text(text: String, encoding: Encoding) -> Result<Self, Malformed> {
        let root = json::document(&text).ok_or(Malformed::NotJson)?;
        if root.is_null() {
            return Err(Malformed::NotJson);
        }
        if root.is_array() {
            let [access, refresh] = root.elements();
            let access = access
                .and_then(owned_string)
                .ok_or(Malformed::NotASession)?;
            let refresh = refresh.and_then(owned_string);
            return Self::from_tokens(Form::Array, access, refresh, (text, encoding));
        }
        let keys = ["access_token", "refresh_token", "expires_at", "user"];
        let [Some(access), Some(refresh), Some(expires_at), user] = root.members(keys) else {
            return Err(Malformed::NotASession);
        };
        let access_token = owned_string(access)
            .filter(|token| !token.is_empty())
            .ok_or(Malformed::NotASession)?;
        let user_id = user
            .and_then(|user| user.members(["id"])[0])
            .and_then(owned_string);
        Ok(Self {
            access_token: Secret::new(access_token),
            refresh_token: owned_string(refresh)
                .filter(|token| !token.is_empty())
                .map(Secret::new),
            expires_at: expires_at.number().filter(|&seconds| seconds != 0.0),
            user_id,
            had_user: user.is_some(),
            form: Form::Object,
            encoding,
            text: Secret::new(text),
        })
    }

    /// A form without expiry and user of its own: both come from the token's payload, where it has one.
    fn from_tokens(
        form: Form,
        access: String,
        refresh: Option<String>,
        (text, encoding): (String, Encoding),
    ) -> Result<Self, Malformed> {
        if access.is_empty() {
            return Err(Malformed::NotASession);
        }
        let payload = access
            .split('.')
            .nth(1)
            .and_then(|payload| base64url(payload.as_bytes()));
        let payload = payload.and_then(|bytes| String::from_utf8(bytes).ok());
        let claims = payload
            .as_deref()
            .and_then(json::document)
            .map(|claims| claims.members(["exp", "sub"]));
        let [exp, sub] = claims.unwrap_or_default();
        Ok(Self {
            expires_at: exp.and_then(Value::number),
            user_id: sub.and_then(owned_string),
            access_token: Secret::new(access),
            refresh_token: refresh.filter(|token| !token.is_empty()).map(Secret::new),
            had_user: true,
            form,
            encoding,
            text: Secret::new(text),
        })
    }
}

fn owned_string(value: Value<'_>) -> Option<String> {
    value.string().map(std::borrow::Cow::into_owned)
}

/// base64url as the library decodes it: spaces, tabs, line ends and `=` are skipped wherever they stand, bits that fill
/// no byte are dropped, everything else outside the alphabet is an error.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0u32, 0u32);
    for &byte in text {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            b' ' | b'\t' | b'\r' | b'\n' | b'=' => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

/// Header bytes are no declared charset: UTF-8 where they are, else Latin-1, which is how servers in JavaScript read them.
fn latin1_or_utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect())
}

#[cfg(test)]
pub(super) mod tests;
