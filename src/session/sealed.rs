//! The session in a cookie that only we can read: encrypted and authenticated, so that no token is in the browser and no
//! store behind us. One cookie, or up to [`PIECES_MAX`] canonical pieces; anything else is no session, never a failure.

mod payload;
mod ring;

pub use payload::SealedSession;
pub use ring::{KEYS_MAX, KeyRing, NotARing, SealingKey};

use super::set_cookie::{
    self, Attributes, COOKIE_BYTES_MAX, DoesNotFit, Lines, SameSite, Scope, Unwritable,
};
use crate::headers::cookies;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cookie::Cookie;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// Cookies one session may be cut into; a browser may keep only 50 for a site.
pub const PIECES_MAX: usize = 8;

/// The most that browsers grant: 400 days (RFC 6265bis §5.5).
const MAX_AGE_MAX: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The sealed cookies of one configuration.
#[derive(Debug)]
pub struct SealedCookies {
    name: Box<str>,
    attributes: Attributes,
    ring: KeyRing,
}

/// Why cookies of our name are no session. To the client all of them are the same: not signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// A name stands there twice, or a whole cookie beside pieces: somebody else has set one of them.
    #[error("the session cookie is there more than once")]
    Ambiguous,
    /// A gap, an index out of range or spelt in another way, or a single piece.
    #[error("the pieces of the session cookie are not ours")]
    Pieces,
    /// Not canonical base64url.
    #[error("the session cookie is not base64url")]
    Encoding,
    /// Written by another release.
    #[error("the session cookie has a version that is not known")]
    Version,
    /// No key of the ring opens it: changed, sealed for another name, or by a key that has been removed.
    #[error("no session key opens the session cookie")]
    Sealed,
    /// Sealed by us, and no session in it.
    #[error("the session cookie holds no session")]
    Payload,
}

/// Why a session was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSealed {
    /// More than [`PIECES_MAX`] cookies would hold.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The cryptographic library refused.
    #[error("the session could not be sealed")]
    Cryptography,
}

/// The name of the cookies, unless the operator has given one: with the prefix wherever browsers grant it.
pub fn usual_name(attributes: &Attributes) -> &'static str {
    if attributes.secure && attributes.domain.is_none() && &*attributes.path == "/" {
        "__Host-tollhouse"
    } else {
        "tollhouse"
    }
}

impl SealedCookies {
    /// Cookies of this name with these attributes, sealed by the first key of the ring.
    pub fn new(name: &str, attributes: Attributes, ring: KeyRing) -> Result<Self, Unwritable> {
        attributes.check(name)?;
        Ok(Self {
            name: name.into(),
            attributes,
            ring,
        })
    }

    /// Whether a cookie of this name is ours or looks like a piece of ours: never forwarded, and removed when a session
    /// is written or cleared.
    pub fn owns(&self, name: &[u8]) -> bool {
        self.slot(name).is_some()
    }

    /// Appends all that [`SealedCookies::open`] looks at to `key`, so that equal keys hold equal sessions; false when there
    /// is no cookie of ours.
    pub fn append_raw(&self, headers: &HeaderMap, key: &mut Vec<u8>) -> bool {
        let before = key.len();
        for (name, value) in cookies::pairs(headers).filter(|(name, _)| self.owns(name)) {
            let piece = name.get(self.name.len()..).unwrap_or_default();
            for part in [piece, value] {
                key.extend_from_slice(&(part.len() as u64).to_le_bytes());
                key.extend_from_slice(part);
            }
        }
        key.len() > before
    }

    /// The session of a request; nothing in it is verified but that we have written it.
    pub fn open(&self, headers: &HeaderMap) -> Result<Option<SealedSession>, NotOpened> {
        let Some(value) = self.value(headers)? else {
            return Ok(None);
        };
        let plain = self.ring.open(&self.name, &sealed(&value)?)?;
        let session = SealedSession::from_bytes(plain.expose());
        session.map(Some).ok_or(NotOpened::Payload)
    }

    /// Which key of the ring opens the session of a request, by its index.
    pub fn key(&self, headers: &HeaderMap) -> Result<Option<usize>, NotOpened> {
        let Some(value) = self.value(headers)? else {
            return Ok(None);
        };
        let opened = self.ring.open_with(&self.name, &sealed(&value)?)?;
        Ok(Some(opened.0))
    }

    /// The Set-Cookie fields that put `session` into the browser that sent `headers`, for `max_age` at most (whole
    /// seconds; browsers cut it at 400 days). The answer that carries them must not be stored.
    pub fn write(
        &self,
        headers: &HeaderMap,
        session: &SealedSession,
        max_age: Duration,
    ) -> Result<Vec<HeaderValue>, NotSealed> {
        let lines = Lined {
            cookies: self,
            max_age: max_age.min(MAX_AGE_MAX),
        };
        let sealed = self.ring.seal(&self.name, &session.to_bytes());
        let sealed = sealed.ok_or(NotSealed::Cryptography)?;
        let new = self.pieces(&lines, &URL_SAFE_NO_PAD.encode(sealed))?;
        let came = set_cookie::came(headers, |name| self.owns(name));
        Ok(set_cookie::replacing(&lines, &came, &new, |_, _| false))
    }

    /// The Set-Cookie fields that remove every cookie of ours in the request, for this host and for the domain.
    pub fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let lines = Lined {
            cookies: self,
            max_age: Duration::ZERO,
        };
        let came = set_cookie::came(headers, |name| self.owns(name));
        set_cookie::replacing(&lines, &came, &[], |_, _| false)
    }

    /// The value that makes up the session, in one.
    fn value(&self, headers: &HeaderMap) -> Result<Option<Vec<u8>>, NotOpened> {
        let mut whole = None;
        let mut pieces = [None; PIECES_MAX];
        for (name, value) in cookies::pairs(headers) {
            let place = match self.slot(name) {
                None => continue,
                Some(Slot::Whole) => &mut whole,
                Some(Slot::Piece(index)) => pieces.get_mut(index).ok_or(NotOpened::Pieces)?,
                Some(Slot::Strange) => return Err(NotOpened::Pieces),
            };
            if place.replace(value).is_some() {
                return Err(NotOpened::Ambiguous);
            }
        }
        let count = pieces.iter().map_while(|piece| *piece).count();
        let present = pieces.iter().flatten().count();
        match (whole, present) {
            (None, 0) => Ok(None),
            (Some(whole), 0) => Ok(Some(whole.to_vec())),
            (Some(_), _) => Err(NotOpened::Ambiguous),
            // One piece is never written: there is one way to write a session.
            (None, _) if count != present || count == 1 => Err(NotOpened::Pieces),
            (None, _) => Ok(Some(
                pieces
                    .iter()
                    .flatten()
                    .copied()
                    .flatten()
                    .copied()
                    .collect(),
            )),
        }
    }

    /// Names and values: one cookie where it fits with its attributes, else as few pieces as possible.
    fn pieces(&self, lines: &Lined<'_>, value: &str) -> Result<Vec<(String, String)>, DoesNotFit> {
        let room = |name: &str| COOKIE_BYTES_MAX.saturating_sub(lines.set(name, "").len());
        if value.len() <= room(&self.name) {
            return Ok(vec![(self.name.to_string(), value.to_owned())]);
        }
        let mut pieces = Vec::new();
        let mut rest = value;
        while !rest.is_empty() {
            let name = format!("{}.{}", self.name, pieces.len());
            let end = room(&name).min(rest.len());
            if end == 0 || pieces.len() == PIECES_MAX {
                return Err(DoesNotFit { bytes: value.len() });
            }
            let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            pieces.push((name, piece.to_owned()));
            rest = after;
        }
        Ok(pieces)
    }

    fn slot(&self, name: &[u8]) -> Option<Slot> {
        match name.strip_prefix(self.name.as_bytes())? {
            [] => Some(Slot::Whole),
            [b'.', digit @ b'0'..=b'7'] => Some(Slot::Piece(usize::from(digit - b'0'))),
            [b'.', digits @ ..] if !digits.is_empty() => digits
                .iter()
                .all(u8::is_ascii_digit)
                .then_some(Slot::Strange),
            _ => None,
        }
    }
}

/// What was sealed, out of the value of the cookie.
fn sealed(value: &[u8]) -> Result<Vec<u8>, NotOpened> {
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| NotOpened::Encoding)
}

/// Which cookie of ours a name is.
enum Slot {
    Whole,
    /// Below [`PIECES_MAX`].
    Piece(usize),
    /// A number that we never write.
    Strange,
}

/// The fields of one answer.
struct Lined<'a> {
    cookies: &'a SealedCookies,
    max_age: Duration,
}

impl Lined<'_> {
    fn field(&self, name: &str, value: &str, max_age: Duration, scope: Scope) -> String {
        let attributes = &self.cookies.attributes;
        let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        let mut cookie = Cookie::build((name, value))
            .path(&*attributes.path)
            .secure(attributes.secure)
            .http_only(attributes.http_only)
            .partitioned(attributes.partitioned)
            .same_site(match attributes.same_site {
                SameSite::Strict => cookie::SameSite::Strict,
                SameSite::Lax => cookie::SameSite::Lax,
                SameSite::None => cookie::SameSite::None,
            })
            .max_age(cookie::time::Duration::seconds(seconds));
        if let (Some(domain), Scope::Ours) = (&attributes.domain, scope) {
            cookie = cookie.domain(&**domain);
        }
        cookie.build().to_string()
    }
}

impl Lines for Lined<'_> {
    fn attributes(&self) -> &Attributes {
        &self.cookies.attributes
    }

    fn set(&self, name: &str, value: &str) -> String {
        self.field(name, value, self.max_age, Scope::Ours)
    }

    fn clear(&self, name: &str, scope: Scope) -> String {
        self.field(name, "", Duration::ZERO, scope)
    }
}

#[cfg(test)]
mod tests;
