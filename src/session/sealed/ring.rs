//! The keys that seal sessions: AES-256-GCM with a nonce that the library draws at random (NIST SP 800-38D §8.2.2; a key
//! is to be replaced long before it has sealed 2^32 times). The first key seals, every key opens, so that a new key can
//! be put before an old one, and the old one removed when the last session sealed by it has ended.
//!
//! What is sealed: version, key id, nonce of 12 bytes, ciphertext, tag of 16 bytes. Version and cookie name are
//! authenticated with it.

use super::NotOpened;
use crate::base::key::{self, KEY_BYTES};
use crate::base::secret::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use std::fmt;

/// Keys in a ring. Opening tries those whose id fits, one of 256 each.
pub const KEYS_MAX: usize = crate::config::session::KEYS_MAX;

/// Of the format; another number is no session.
const VERSION: u8 = 1;

/// Where the ciphertext starts.
const TEXT_STARTS: usize = 2 + NONCE_LEN;

/// One key, as `session.keys` has it.
#[derive(Clone, Debug)]
pub struct SealingKey(Secret<[u8; KEY_BYTES]>);

/// Why there is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARing {
    /// Not 32 bytes in base64url or base64.
    #[error("a session key is 32 bytes in base64url or base64")]
    NotAKey,
    /// None at all: nothing could be sealed.
    #[error("there is no session key")]
    Empty,
    /// More than [`KEYS_MAX`].
    #[error("there are more than {KEYS_MAX} session keys")]
    TooMany,
}

impl SealingKey {
    /// A key that was decoded with the file.
    pub fn new(bytes: Secret<[u8; KEY_BYTES]>) -> Self {
        Self(bytes)
    }

    /// A key as text: see [`key::decode`].
    pub fn parse(text: &str) -> Result<Self, NotARing> {
        key::decode(text).map(Self).ok_or(NotARing::NotAKey)
    }

    /// Tells keys apart without telling anything of them: it depends on the key and not on its place, so that the order
    /// of a ring may change. Keys that share one are tried one after the other.
    fn id(&self) -> u8 {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose());
        let tag = hmac::sign(&key, b"tollhouse session key id");
        tag.as_ref().first().copied().unwrap_or_default()
    }
}

/// The keys of a configuration.
pub struct KeyRing {
    keys: Vec<(u8, RandomizedNonceKey)>,
    /// Of the first key. Makes ids.
    ids: hmac::Key,
}

impl KeyRing {
    /// The first key seals, every key opens.
    pub fn new(keys: &[SealingKey]) -> Result<Self, NotARing> {
        let Some(first) = keys.first() else {
            return Err(NotARing::Empty);
        };
        if keys.len() > KEYS_MAX {
            return Err(NotARing::TooMany);
        }
        let made = keys.iter().map(|key| {
            RandomizedNonceKey::new(&AES_256_GCM, key.0.expose()).map(|made| (key.id(), made))
        });
        let keys = made.collect::<Result<_, _>>();
        let ids = hmac::Key::new(hmac::HMAC_SHA256, first.0.expose());
        let ids = hmac::sign(&ids, b"tollhouse session ids");
        keys.map(|keys| Self {
            keys,
            ids: hmac::Key::new(hmac::HMAC_SHA256, ids.as_ref()),
        })
        .map_err(|_| NotARing::NotAKey)
    }

    /// 32 bytes that nobody can tell from random ones without the first key, and that all who have it make of the same
    /// parts.
    pub(in crate::session) fn derive(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.ids);
        for part in parts {
            // The length keeps a part and the one behind it apart.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        bytes
    }

    /// Seals for a cookie or a record of this name; `None` only when the cryptographic library fails.
    pub(in crate::session) fn seal(&self, name: &str, plain: &Secret<Vec<u8>>) -> Option<Vec<u8>> {
        let (id, key) = self.keys.first()?;
        let plain = plain.expose();
        let mut out = Vec::with_capacity(TEXT_STARTS + plain.len() + AES_256_GCM.tag_len());
        out.extend_from_slice(&[VERSION, *id]);
        out.extend_from_slice(&[0; NONCE_LEN]);
        out.extend_from_slice(plain);
        let (head, text) = out.split_at_mut_checked(TEXT_STARTS)?;
        let (nonce, tag) = key
            .seal_in_place_separate_tag(authenticated(name), text)
            .ok()?;
        head.get_mut(2..)?.copy_from_slice(nonce.as_ref());
        out.extend_from_slice(tag.as_ref());
        Some(out)
    }

    /// What was sealed for a cookie or a record of this name.
    pub(in crate::session) fn open(
        &self,
        name: &str,
        sealed: &[u8],
    ) -> Result<Secret<Vec<u8>>, NotOpened> {
        self.open_with(name, sealed).map(|(_, plain)| plain)
    }

    /// As [`KeyRing::open`], and the index of the key that opened it.
    pub(super) fn open_with(
        &self,
        name: &str,
        sealed: &[u8],
    ) -> Result<(usize, Secret<Vec<u8>>), NotOpened> {
        let (version, rest) = sealed.split_first().ok_or(NotOpened::Version)?;
        if *version != VERSION {
            return Err(NotOpened::Version);
        }
        let (id, rest) = rest.split_first().ok_or(NotOpened::Sealed)?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN).ok_or(NotOpened::Sealed)?;
        let fitting = self.keys.iter().enumerate().filter(|(_, key)| key.0 == *id);
        let opened = fitting.filter_map(|(index, (_, key))| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            // A key that does not fit leaves garbage behind, so each gets a copy of its own.
            let mut text = text.to_vec();
            let plain = key.open_in_place(nonce, authenticated(name), &mut text);
            let length = plain.ok()?.len();
            text.truncate(length);
            Some((index, Secret::new(text)))
        });
        opened.into_iter().next().ok_or(NotOpened::Sealed)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("keys", &self.keys.len())
            .finish()
    }
}

/// A cookie or a record is good only under the name for which it was sealed. No cookie is named as records are.
fn authenticated(name: &str) -> Aad<Vec<u8>> {
    Aad::from([&[VERSION], name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey(Secret::new([byte; KEY_BYTES]))
    }

    fn ring(bytes: &[u8]) -> KeyRing {
        KeyRing::new(&bytes.iter().map(|&byte| key(byte)).collect::<Vec<_>>()).unwrap()
    }

    fn seal(ring: &KeyRing) -> Vec<u8> {
        ring.seal("name", &Secret::new(b"plain".to_vec())).unwrap()
    }

    fn open(ring: &KeyRing, sealed: &[u8]) -> Result<Vec<u8>, NotOpened> {
        ring.open("name", sealed)
            .map(|plain| plain.expose().clone())
    }

    #[test]
    fn a_ring_has_one_to_sixteen_keys() {
        assert_eq!(KeyRing::new(&[]).err(), Some(NotARing::Empty));
        let keys: Vec<_> = (0..=KEYS_MAX as u8).map(key).collect();
        assert!(KeyRing::new(&keys[1..]).is_ok());
        assert_eq!(KeyRing::new(&keys).err(), Some(NotARing::TooMany));
    }

    #[test]
    fn every_key_opens_whatever_its_place_and_a_removed_one_does_not() {
        let sealed = seal(&ring(&[1, 2]));
        for bytes in [&[1][..], &[1, 2], &[2, 1], &[3, 4, 1]] {
            assert_eq!(open(&ring(bytes), &sealed).unwrap(), b"plain", "{bytes:?}");
        }
        for bytes in [&[2][..], &[3, 4]] {
            assert_eq!(
                open(&ring(bytes), &sealed),
                Err(NotOpened::Sealed),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn keys_that_share_an_id_are_tried_one_after_the_other() {
        let of = |number: u16| {
            let mut bytes = [0; KEY_BYTES];
            bytes[..2].copy_from_slice(&number.to_le_bytes());
            SealingKey(Secret::new(bytes))
        };
        let first = of(0);
        let twin = (1..).map(of).find(|key| key.id() == first.id()).unwrap();
        let both = KeyRing::new(&[twin.clone(), first.clone()]).unwrap();
        for key in [first, twin] {
            let sealed = seal(&KeyRing::new(&[key]).unwrap());
            assert_eq!(open(&both, &sealed).unwrap(), b"plain");
        }
    }

    #[test]
    fn ids_are_of_the_first_key_and_of_every_part() {
        let ring = |bytes: &[u8]| ring(bytes);
        let id = ring(&[1, 2]).derive(&[b"ab", b"c"]);
        assert_eq!(ring(&[1]).derive(&[b"ab", b"c"]), id);
        for other in [
            ring(&[2, 1]).derive(&[b"ab", b"c"]),
            ring(&[1]).derive(&[b"a", b"bc"]),
            ring(&[1]).derive(&[b"abc"]),
            ring(&[1]).derive(&[b"ab", b"d"]),
        ] {
            assert_ne!(other, id);
        }
    }

    #[test]
    fn the_same_session_never_looks_the_same() {
        let ring = ring(&[1]);
        assert_ne!(seal(&ring)[2..], seal(&ring)[2..]);
    }

    #[test]
    fn another_version_another_name_and_a_short_text_open_nothing() {
        let ring = ring(&[1]);
        let sealed = seal(&ring);
        assert_eq!(ring.open("other", &sealed).err(), Some(NotOpened::Sealed));
        for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
            let mut other = sealed.clone();
            other[0] = version;
            assert_eq!(open(&ring, &other), Err(NotOpened::Version));
        }
        for length in 0..sealed.len() {
            assert!(open(&ring, &sealed[..length]).is_err(), "{length}");
        }
        let longer = [&sealed[..], b"\0"].concat();
        assert_eq!(open(&ring, &longer), Err(NotOpened::Sealed));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?} {:?}", key(65), ring(&[65]));
        assert_eq!(shown, "SealingKey([secret]) KeyRing { keys: 1 }");
    }
}
