//! Access tokens: ES256 keys made at start, their JWK set (RFC 7517), signing and checking (RFC 7515, RFC 7518 §3.4).
//! Private keys live in memory only.

use crate::demo::random::{self, CryptoError};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// Keys in the set: one that signs and those used before it.
const KEYS_MAX: usize = 4;

/// The keys, newest first. The first one signs.
pub(super) struct Keys(VecDeque<Key>);

struct Key {
    /// A UUID, as on the platform.
    kid: String,
    pair: EcdsaKeyPair,
}

impl Keys {
    pub(super) fn generate() -> Result<Self, CryptoError> {
        Ok(Self(VecDeque::from([Key::generate()?])))
    }

    /// Signs with a new key from now on; the older ones stay in the set ("previously used").
    pub(super) fn rotate(&mut self) -> Result<(), CryptoError> {
        self.0.push_front(Key::generate()?);
        self.0.truncate(KEYS_MAX);
        Ok(())
    }

    /// Takes every key but the one that signs out of the set.
    pub(super) fn revoke_previous(&mut self) {
        self.0.truncate(1);
    }

    /// The JWK set that anybody may read.
    pub(super) fn set(&self) -> Value {
        json!({ "keys": self.0.iter().map(Key::public).collect::<Vec<_>>() })
    }

    /// A compact JWS of `claims`, with the usual header.
    pub(super) fn sign(&self, claims: &Value) -> Result<String, CryptoError> {
        let key = self.0.front().ok_or(CryptoError)?;
        let header = json!({"alg": "ES256", "kid": key.kid, "typ": "JWT"});
        key.sign(&header, claims)
    }

    /// The same with a header of the caller's.
    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> Result<String, CryptoError> {
        self.0.front().ok_or(CryptoError)?.sign(header, claims)
    }

    /// The claims of a token that one of these keys signed and that is valid at `now` (seconds since 1970).
    pub(super) fn check(&self, token: &str, now: u64) -> Option<Value> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let header: Value = decode(header)?;
        if header.get("alg")? != "ES256" {
            return None;
        }
        let kid = header.get("kid")?.as_str()?;
        let key = self.0.iter().find(|key| key.kid == kid)?;
        let signature = BASE64.decode(signature).ok()?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key())
            .verify(signed.as_bytes(), &signature)
            .ok()?;
        let claims: Value = decode(claims)?;
        (claims.get("exp")?.as_u64()? > now).then_some(claims)
    }
}

impl Key {
    fn generate() -> Result<Self, CryptoError> {
        Ok(Self {
            kid: random::uuid()?.to_string(),
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
        })
    }

    fn public(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each (SEC 1 §2.3.3).
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
        json!({
            "alg": "ES256",
            "crv": "P-256",
            "ext": true,
            "key_ops": ["verify"],
            "kid": self.kid,
            "kty": "EC",
            "use": "sig",
            "x": BASE64.encode(x),
            "y": BASE64.encode(y),
        })
    }

    fn sign(&self, header: &Value, claims: &Value) -> Result<String, CryptoError> {
        let mut token = BASE64.encode(header.to_string());
        token.push('.');
        BASE64.encode_string(claims.to_string(), &mut token);
        let signature = self.pair.sign(&SystemRandom::new(), token.as_bytes())?;
        token.push('.');
        BASE64.encode_string(signature.as_ref(), &mut token);
        Ok(token)
    }
}

fn decode(part: &str) -> Option<Value> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    /// What an independent library makes of a token and the published set.
    fn verifies(keys: &Keys, token: &str) -> bool {
        let set: JwkSet = serde_json::from_value(keys.set()).unwrap();
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        let mut rules = Validation::new(Algorithm::ES256);
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        set.find(&kid).is_some_and(|jwk| {
            let key = DecodingKey::from_jwk(jwk).unwrap();
            jsonwebtoken::decode::<Value>(token, &key, &rules).is_ok()
        })
    }

    #[test]
    fn a_token_verifies_with_the_published_set_until_its_key_is_revoked() {
        let mut keys = Keys::generate().unwrap();
        let old = keys.sign(&json!({"sub": "ada"})).unwrap();
        assert!(verifies(&keys, &old));
        keys.rotate().unwrap();
        let new = keys.sign(&json!({"sub": "ada"})).unwrap();
        assert!(verifies(&keys, &old) && verifies(&keys, &new));
        keys.revoke_previous();
        assert!(!verifies(&keys, &old) && verifies(&keys, &new));
    }

    #[test]
    fn the_set_holds_public_members_only_and_is_bounded() {
        let mut keys = Keys::generate().unwrap();
        for _ in 0..10 {
            keys.rotate().unwrap();
        }
        let set = keys.set();
        let set = set["keys"].as_array().unwrap();
        assert_eq!(set.len(), KEYS_MAX);
        for key in set {
            assert!(key.get("d").is_none());
            assert_eq!(key["key_ops"], json!(["verify"]));
            assert_eq!(key["x"].as_str().unwrap().len(), 43);
            assert_eq!(key["y"].as_str().unwrap().len(), 43);
        }
    }

    #[test]
    fn own_tokens_are_checked_for_signature_and_age() {
        let keys = Keys::generate().unwrap();
        let token = keys.sign(&json!({"exp": 100})).unwrap();
        assert!(keys.check(&token, 99).is_some());
        assert!(keys.check(&token, 100).is_none());
        let foreign = Keys::generate().unwrap();
        assert!(foreign.check(&token, 99).is_none());
        let mut forged = token.clone().into_bytes();
        let claims = token.find('.').unwrap() + 3;
        forged[claims] = if forged[claims] == b'A' { b'B' } else { b'A' };
        assert!(
            keys.check(&String::from_utf8(forged).unwrap(), 99)
                .is_none()
        );
        for text in ["", ".", "..", "a.b.c"] {
            assert!(keys.check(text, 0).is_none(), "{text}");
        }
    }
}
