//! Unpredictable text: passwords, refresh tokens, identifiers. Everything comes from the one system generator.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

/// Easy to read aloud and to type: no `0`, `o`, `1`, `l`, `i`.
pub(super) const READABLE: &[u8] = b"abcdefghjkmnpqrstuvwxyz23456789";
/// The alphabet of Supabase's refresh tokens.
pub(super) const LOWER_ALPHANUMERIC: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// The system's cryptography failed. Nothing can be issued then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refused")]
pub struct CryptoError;

impl From<aws_lc_rs::error::Unspecified> for CryptoError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self
    }
}

/// `N` random bytes.
pub(super) fn bytes<const N: usize>() -> Result<[u8; N], CryptoError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes)?;
    Ok(bytes)
}

/// `length` characters of `alphabet` (1 to 255 ASCII characters), each equally likely.
pub(super) fn text(alphabet: &[u8], length: usize) -> Result<String, CryptoError> {
    // Bytes from `fair` up would favour the first characters; they are thrown away.
    let fair = 256 - 256 % alphabet.len().max(1);
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let drawn: [u8; 32] = bytes()?;
        for byte in drawn.into_iter().map(usize::from).filter(|b| *b < fair) {
            if text.len() == length {
                break;
            }
            let at = byte % alphabet.len().max(1);
            let character = alphabet.get(at).ok_or(CryptoError)?;
            text.push(char::from(*character));
        }
    }
    Ok(text)
}

/// A random (version 4) UUID.
pub(super) fn uuid() -> Result<Uuid, CryptoError> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_its_length_and_alphabet_and_never_repeats() {
        let one = text(READABLE, 20).unwrap();
        assert_eq!(one.len(), 20);
        assert!(one.bytes().all(|b| READABLE.contains(&b)));
        assert_ne!(one, text(READABLE, 20).unwrap());
    }

    #[test]
    fn every_character_of_the_alphabet_comes_up() {
        let long = text(LOWER_ALPHANUMERIC, 4000).unwrap();
        for character in LOWER_ALPHANUMERIC {
            assert!(long.as_bytes().contains(character), "{character}");
        }
    }
}
