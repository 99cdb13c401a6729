//! The session in a cookie that only we can read: encrypted and authenticated, so that no token is in the browser and no
//! store behind us.

mod payload;
mod ring;

pub use payload::SealedSession;
pub use ring::{KEYS_MAX, KeyRing, NotARing, SealingKey};

use super::own::{OwnCookies, Strange};
use super::set_cookie::DoesNotFit;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The sealed cookies of one configuration.
#[derive(Debug)]
pub struct SealedCookies {
    own: OwnCookies,
    ring: KeyRing,
}

/// Why cookies of our name are no session. To the client all of them are the same: not signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// There is no value to open.
    #[error(transparent)]
    Strange(#[from] Strange),
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
    /// More than cookies hold.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The cryptographic library refused.
    #[error("the session could not be sealed")]
    Cryptography,
}

impl SealedCookies {
    /// Cookies that are sealed by the first key of the ring.
    pub fn new(own: OwnCookies, ring: KeyRing) -> Self {
        Self { own, ring }
    }

    /// The cookies, sealed as they are.
    pub fn own(&self) -> &OwnCookies {
        &self.own
    }

    /// The session of a request; nothing in it is verified but that we have written it.
    pub fn open(&self, headers: &HeaderMap) -> Result<Option<SealedSession>, NotOpened> {
        let Some(value) = self.own.value(headers)? else {
            return Ok(None);
        };
        let plain = self.ring.open(self.own.name(), &sealed(&value)?)?;
        let session = SealedSession::from_bytes(plain.expose());
        session.map(Some).ok_or(NotOpened::Payload)
    }

    /// Which key of the ring opens the session of a request, by its index.
    pub fn key(&self, headers: &HeaderMap) -> Result<Option<usize>, NotOpened> {
        let Some(value) = self.own.value(headers)? else {
            return Ok(None);
        };
        let opened = self.ring.open_with(self.own.name(), &sealed(&value)?)?;
        Ok(Some(opened.0))
    }

    /// The Set-Cookie fields that put `session` into the browser that sent `headers`, for `max_age` at most; see
    /// [`OwnCookies::write`].
    pub fn write(
        &self,
        headers: &HeaderMap,
        session: &SealedSession,
        max_age: Duration,
    ) -> Result<Vec<HeaderValue>, NotSealed> {
        let sealed = self.ring.seal(self.own.name(), &session.to_bytes());
        let sealed = sealed.ok_or(NotSealed::Cryptography)?;
        let value = URL_SAFE_NO_PAD.encode(sealed);
        Ok(self.own.write(headers, &value, max_age)?)
    }
}

/// What was sealed, out of the value of the cookie.
fn sealed(value: &[u8]) -> Result<Vec<u8>, NotOpened> {
    URL_SAFE_NO_PAD
        .decode(value)
        .map_err(|_| NotOpened::Encoding)
}

#[cfg(test)]
mod tests;
