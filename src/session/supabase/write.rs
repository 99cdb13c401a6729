//! The session cookies of a Supabase project, written byte for byte as a server client of `@supabase/ssr` 0.12.7 writes
//! them, so that the application and its browser code go on reading them (`applyServerStorage`, `createChunks`).
//!
//! With one difference on purpose: the library's own base64url keeps 16 bits of the first half of a surrogate pair, so
//! that a character beyond U+1FFFF becomes another one. Here it stays what it is, and the library reads it so.

use super::{
    ACCESS_TOKEN, BASE64_PREFIX, Encoding, Form, LEGACY_KEY, PIECES_MAX, REFRESH_TOKEN,
    SessionCookie, SupabaseCookies, VALUE_BYTES_MAX, slot,
};
use crate::headers::cookies::percent_decode;
use crate::session::set_cookie::{
    self, Attributes, COOKIE_BYTES_MAX, Came, DoesNotFit, Lines, SameSite, Scope, Unwritable,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters of a value in one cookie, after `encodeURIComponent`.
const PIECE_CHARACTERS_MAX: usize = 3180;

/// 400 days, the most that browsers grant. The library writes it whatever its options say.
const MAX_AGE_SECONDS: u32 = 34_560_000;

/// What `encodeURIComponent` escapes (ECMA-262 §19.2.6.4).
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Writes the session cookies of one project.
#[derive(Clone, Debug)]
pub struct SupabaseWriter {
    cookies: SupabaseCookies,
    key: Box<str>,
    attributes: Attributes,
    set: String,
    clear: String,
    clear_at_host: String,
}

impl SupabaseWriter {
    /// `attributes` are what the application gives its library as `cookieOptions`.
    pub fn new(storage_key: &str, attributes: Attributes) -> Result<Self, Unwritable> {
        attributes.check(storage_key)?;
        let domain = attributes.domain.as_deref();
        Ok(Self {
            cookies: SupabaseCookies::new(storage_key),
            key: storage_key.into(),
            set: suffix(&attributes, MAX_AGE_SECONDS, domain),
            clear: suffix(&attributes, 0, domain),
            clear_at_host: suffix(&attributes, 0, None),
            attributes,
        })
    }

    /// The attributes of the library's own cookies: a browser's code reads them, so they are not `HttpOnly`.
    pub fn library_attributes() -> Attributes {
        Attributes {
            domain: None,
            path: "/".into(),
            secure: false,
            http_only: false,
            partitioned: false,
            same_site: SameSite::Lax,
        }
    }

    /// The Set-Cookie fields that put `session` into the browser that sent `headers`, whatever it had before. None when
    /// it has the session already. The answer that carries them must not be stored.
    ///
    /// Two cookies stay two. Everything else goes under the storage key, and cookies of the old fixed name go away.
    pub fn write(
        &self,
        headers: &HeaderMap,
        session: &SessionCookie,
    ) -> Result<Vec<HeaderValue>, DoesNotFit> {
        let new = self.pairs(session)?;
        let key = self.key.as_bytes();
        let came = set_cookie::came(headers, |name| match session.form {
            Form::TwoCookies => name == ACCESS_TOKEN || name == REFRESH_TOKEN,
            Form::Object | Form::Array => {
                slot(key, name).is_some() || slot(LEGACY_KEY, name).is_some()
            }
        });
        Ok(set_cookie::replacing(self, &came, &new, has_already))
    }

    /// The Set-Cookie fields that remove every session cookie of the request, for this host and for the domain. PKCE
    /// verifiers stay: a login may be under way.
    pub fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let came = set_cookie::came(headers, |name| self.cookies.owns(name));
        set_cookie::replacing(self, &came, &[], has_already)
    }

    /// The Set-Cookie fields that remove the sessions of a request that are in another form than the library's own now.
    pub fn clear_other_forms(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let came = set_cookie::came(headers, |name| {
            name == ACCESS_TOKEN || name == REFRESH_TOKEN
        });
        set_cookie::replacing(self, &came, &[], has_already)
    }

    /// Names and percent-encoded values of the cookies that make up a session, as a browser sends them.
    pub fn pairs(&self, session: &SessionCookie) -> Result<Vec<(String, String)>, DoesNotFit> {
        let pairs = match session.form {
            Form::TwoCookies => two_cookies(session),
            Form::Object | Form::Array => pieces(&self.key, session),
        };
        let bytes = pairs.iter().map(|(_, value)| value.len()).sum();
        // What we could not read back, or a browser would not keep, must not be written.
        let kept = |(name, value): &(String, String)| name.len() + value.len() < COOKIE_BYTES_MAX;
        if pairs.len() > PIECES_MAX || bytes > VALUE_BYTES_MAX || !pairs.iter().all(kept) {
            return Err(DoesNotFit { bytes });
        }
        Ok(pairs)
    }
}

impl Lines for SupabaseWriter {
    fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    fn set(&self, name: &str, value: &str) -> String {
        [name, "=", value, &self.set].concat()
    }

    fn clear(&self, name: &str, scope: Scope) -> String {
        let suffix = match scope {
            Scope::Host => &self.clear_at_host,
            Scope::Ours => &self.clear,
        };
        [name, "=", suffix].concat()
    }
}

/// The attributes in the order of the npm package `cookie`, with which the library writes. The crate of that name has
/// another order, and here the bytes are to be the same.
fn suffix(attributes: &Attributes, max_age: u32, domain: Option<&str>) -> String {
    let mut out = format!("; Max-Age={max_age}");
    if let Some(domain) = domain {
        out.push_str("; Domain=");
        out.push_str(domain);
    }
    out.push_str("; Path=");
    out.push_str(&attributes.path);
    for (wanted, word) in [
        (attributes.http_only, "; HttpOnly"),
        (attributes.secure, "; Secure"),
        (attributes.partitioned, "; Partitioned"),
    ] {
        if wanted {
            out.push_str(word);
        }
    }
    out.push_str(match attributes.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    out
}

/// Whether the browser has this value, as the library compares: decoded. Bytes that are not ASCII read differently there
/// and here, so they are never the same.
fn has_already(came: &Came<'_>, new: &str) -> bool {
    came.value.is_ascii() && percent_decode(came.value) == percent_decode(new.as_bytes())
}

fn two_cookies(session: &SessionCookie) -> Vec<(String, String)> {
    let pair = |name: &[u8], token: &str| {
        let name = String::from_utf8_lossy(name).into_owned();
        (name, utf8_percent_encode(token, ESCAPED).to_string())
    };
    let mut pairs = vec![pair(ACCESS_TOKEN, session.access_token.expose())];
    if let Some(refresh) = &session.refresh_token {
        pairs.push(pair(REFRESH_TOKEN, refresh.expose()));
    }
    pairs
}

/// The session as one cookie where it fits, else in pieces that are cut between characters of the decoded text.
fn pieces(key: &str, session: &SessionCookie) -> Vec<(String, String)> {
    let text = session.text.expose();
    let value = match session.encoding {
        Encoding::Base64Url => {
            let mut value = String::from_utf8_lossy(BASE64_PREFIX).into_owned();
            URL_SAFE_NO_PAD.encode_string(text, &mut value);
            value
        }
        Encoding::Raw => utf8_percent_encode(text, ESCAPED).to_string(),
    };
    if value.len() <= PIECE_CHARACTERS_MAX {
        return vec![(key.to_owned(), value)];
    }
    let mut pieces = Vec::new();
    let mut rest = &*value;
    while !rest.is_empty() {
        let mut end = rest.len().min(PIECE_CHARACTERS_MAX);
        while !between_characters(rest.as_bytes(), end) {
            end -= 1;
        }
        let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        pieces.push((format!("{key}.{}", pieces.len()), piece.to_owned()));
        rest = after;
    }
    pieces
}

/// Whether a character of the decoded text ends at `at`: no escape is cut, and none that continues a character follows
/// (RFC 3629 §3: `10xxxxxx`). True at both ends.
fn between_characters(encoded: &[u8], at: usize) -> bool {
    let byte = |at: usize| encoded.get(at).copied().unwrap_or_default();
    if at == 0 || at >= encoded.len() {
        return true;
    }
    let cut = byte(at - 1) == b'%' || (at > 1 && byte(at - 2) == b'%');
    let continued = byte(at) == b'%' && matches!(byte(at + 1), b'8' | b'9' | b'A' | b'B');
    !cut && !continued
}

#[cfg(test)]
mod tests;
