//! A key of 32 bytes as a person keeps it: in base64.

use super::secret::Secret;
use base64::Engine as _;
use base64::alphabet::{self, Alphabet};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroize as _;

/// Bytes of a key: what AES-256 takes.
pub const KEY_BYTES: usize = 32;

/// 32 bytes in base64url or base64 (RFC 4648 §4 and §5), with or without padding. `None`: anything else.
pub fn decode(text: &str) -> Option<Secret<[u8; KEY_BYTES]>> {
    let decode = |alphabet: &Alphabet| {
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let mut bytes = [0; KEY_BYTES + 1];
        let engine = GeneralPurpose::new(alphabet, config);
        // One byte more than a key has, so that a longer one is not taken for its beginning.
        let length = engine.decode_slice(text, &mut bytes).ok();
        let key = bytes.first_chunk().copied().map(Secret::new);
        bytes.zeroize();
        key.filter(|_| length == Some(KEY_BYTES))
    };
    decode(&alphabet::URL_SAFE).or_else(|| decode(&alphabet::STANDARD))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_in_either_alphabet() {
        let bytes = [0xFB; KEY_BYTES];
        for text in [
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s=",
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s",
            "+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",
        ] {
            assert_eq!(decode(text).unwrap().expose(), &bytes, "{text}");
        }
        for text in [
            "",
            "-_v7",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_t",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7",
            "-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7",
            "-/v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s",
            " -_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert!(decode(text).is_none(), "{text}");
        }
    }
}
