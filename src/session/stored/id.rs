//! The id of a stored session, which the browser has, and the name of its record, which Redis has. From the id comes the
//! name and never the id from the name: who reads Redis finds nothing to log in with.

use crate::base::secret::Secret;
use crate::provider::{NoRandomness, random_bytes};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What the names of records begin with.
const SESSION: &str = "tollhouse:session:";
/// And those of the indexes.
const USER: &str = "tollhouse:user:";
const ID_BYTES: usize = 32;
/// Characters of 32 bytes in base64url without padding.
const TEXT_CHARACTERS: usize = 43;

/// 256 bits that only the browser and we know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(Secret<[u8; ID_BYTES]>);

impl SessionId {
    /// From the system's generator.
    pub(super) fn random() -> Result<Self, NoRandomness> {
        random_bytes().map(|bytes| Self(Secret::new(bytes)))
    }

    pub(super) fn of(bytes: [u8; ID_BYTES]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The id in a cookie's value: 43 characters of base64url (RFC 4648 §5), of the spellings of one id only the canonical
    /// one. `None`: something else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != TEXT_CHARACTERS {
            return None;
        }
        let mut bytes = [0; ID_BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == ID_BYTES).then(|| Self::of(bytes))
    }

    /// The cookie's value.
    pub fn text(&self) -> Secret<String> {
        Secret::new(URL_SAFE_NO_PAD.encode(self.0.expose()))
    }

    pub(super) fn key(&self) -> Key {
        Key(sha256(self.0.expose()))
    }
}

/// Which record: SHA-256 of the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) [u8; 32]);

impl Key {
    /// The record's name in Redis.
    pub(super) fn name(&self) -> String {
        format!("{SESSION}{}", URL_SAFE_NO_PAD.encode(self.0))
    }

    /// The record that has this name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        // The shape is the same, whatever it stands for.
        let id = SessionId::parse(name.strip_prefix(SESSION)?.as_bytes())?;
        Some(Self(*id.0.expose()))
    }
}

/// Where the names of a user's records are.
pub(super) fn index(user: &str) -> String {
    format!("{USER}{}", URL_SAFE_NO_PAD.encode(sha256(user.as_bytes())))
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (to, from) in out
        .iter_mut()
        .zip(digest::digest(&digest::SHA256, bytes).as_ref())
    {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_comes_back_from_its_text_and_no_two_are_the_same() {
        let (one, two) = (SessionId::random().unwrap(), SessionId::random().unwrap());
        assert_ne!(one, two);
        let text = one.text();
        assert_eq!(text.expose().len(), TEXT_CHARACTERS);
        assert_eq!(SessionId::parse(text.expose().as_bytes()), Some(one));
    }

    #[test]
    fn an_id_has_one_spelling() {
        let zero = "A".repeat(43);
        assert_eq!(
            SessionId::parse(zero.as_bytes()),
            Some(SessionId::of([0; 32]))
        );
        for text in [
            "",
            "A",
            &"A".repeat(42),
            &"A".repeat(44),
            &format!("{}=", "A".repeat(43)),
            &format!("{}=", "A".repeat(42)),
            // Bits that no byte has.
            &format!("{}B", "A".repeat(42)),
            &format!("{} ", "A".repeat(42)),
            &format!("{}+", "A".repeat(42)),
            &format!("{}\u{e9}", "A".repeat(41)),
        ] {
            assert_eq!(SessionId::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_name_tells_the_record_and_nothing_of_the_id() {
        let id = SessionId::of([0; 32]);
        let key = id.key();
        // printf '\0%.0s' $(seq 32) | sha256sum
        let expected = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925";
        let hex: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        let name = key.name();
        assert_eq!(
            name,
            "tollhouse:session:Zmh6rfhivXdsj8GLjp-OIAiXFIVu4jOzkCpZHQ1fKSU"
        );
        assert_eq!(Key::parse(&name), Some(key));
        for other in ["", "tollhouse:session:", "tollhouse:user:", &name[1..]] {
            assert_eq!(Key::parse(other), None);
        }
        assert!(!format!("{id:?}").contains("0, 0"));
        assert_ne!(index("main\0a"), index("main\0b"));
    }
}
