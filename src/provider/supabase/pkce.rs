//! Proof Key for Code Exchange (RFC 7636): a secret that stays here, and its hash that goes with the browser.

use crate::base::secret::Secret;
use crate::provider::random::{self, NoRandomness};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What proves in the end that whoever brings a code is who began.
#[derive(Clone, Debug)]
pub struct Verifier(Secret<String>);

/// The verifier's SHA-256 in base64url: `S256` of RFC 7636 §4.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge(String);

impl Verifier {
    /// A fresh one: 32 random bytes as 43 characters (RFC 7636 §4.1).
    pub fn generate() -> Result<Self, NoRandomness> {
        let bytes = Secret::new(random::bytes::<32>()?);
        Ok(Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes.expose()))))
    }

    /// One that was kept. `None` unless it is 43 to 128 of the characters that RFC 7636 §4.1 allows.
    pub fn kept(text: Secret<String>) -> Option<Self> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        let shaped = (43..=128).contains(&text.expose().len()) && text.expose().bytes().all(fine);
        shaped.then_some(Self(text))
    }

    /// The secret, to be kept where only this browser can bring it back from.
    pub fn secret(&self) -> &Secret<String> {
        &self.0
    }

    /// What may be seen of it.
    pub fn challenge(&self) -> Challenge {
        Challenge(URL_SAFE_NO_PAD.encode(digest(&SHA256, self.0.expose().as_bytes())))
    }
}

impl Challenge {
    /// 43 characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let verifier = Verifier::kept(Secret::new(verifier.into())).unwrap();
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        assert_eq!(verifier.challenge().as_str(), challenge);
        assert!(!format!("{verifier:?}").contains("dBjf"));
    }

    #[test]
    fn verifiers_are_fresh_and_of_the_allowed_shape() {
        let (one, other) = (Verifier::generate().unwrap(), Verifier::generate().unwrap());
        assert_ne!(one.secret().expose(), other.secret().expose());
        assert!(Verifier::kept(one.secret().clone()).is_some());
        for bad in [
            String::new(),
            "a".repeat(42),
            "a".repeat(129),
            format!("{}/", "a".repeat(50)),
        ] {
            assert!(Verifier::kept(Secret::new(bad)).is_none());
        }
    }
}
