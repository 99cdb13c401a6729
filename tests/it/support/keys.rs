//! Signing keys of a test's own, for tokens that no provider would make: any header and payload as text, any algorithm.
//! And their key set, as a small server publishes it.

use super::{NOW, Reply, Upstream};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// `iss` of every token here unless it says otherwise.
pub const ISSUER: &str = "https://issuer.example";

pub fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair, or a secret.
#[derive(Clone)]
pub struct Signer {
    pub kid: String,
    pair: Arc<Pair>,
}

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(Arc<RsaKeyPair>),
    Secret(Vec<u8>),
}

impl Signer {
    fn new(kid: &str, pair: Pair) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: Arc::new(pair),
        }
    }

    pub fn p256(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::new(kid, Pair::P256(pair.unwrap()))
    }

    pub fn p384(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&sig::ECDSA_P384_SHA384_FIXED_SIGNING);
        Self::new(kid, Pair::P384(pair.unwrap()))
    }

    pub fn ed25519(kid: &str) -> Self {
        Self::new(kid, Pair::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    /// 2048 bits. One key for the whole process: making one takes long.
    pub fn rsa(kid: &str) -> Self {
        static PAIR: OnceLock<Arc<RsaKeyPair>> = OnceLock::new();
        let pair = PAIR.get_or_init(|| Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
        Self::new(kid, Pair::Rsa(pair.clone()))
    }

    pub fn secret(bytes: &[u8]) -> Self {
        Self::new("", Pair::Secret(bytes.to_vec()))
    }

    /// The same key under another name.
    pub fn named(&self, kid: &str) -> Self {
        Self {
            kid: kid.to_owned(),
            pair: self.pair.clone(),
        }
    }

    /// The algorithm it signs with when nothing else is said.
    pub fn algorithm(&self) -> &'static str {
        match &*self.pair {
            Pair::P256(_) => "ES256",
            Pair::P384(_) => "ES384",
            Pair::Ed25519(_) => "EdDSA",
            Pair::Rsa(_) => "RS256",
            Pair::Secret(_) => "HS256",
        }
    }

    /// The public key as a key set holds it (RFC 7517), without `alg`.
    pub fn jwk(&self) -> Value {
        let point = |crv: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            json!({"kty": "EC", "crv": crv, "x": base64url(x), "y": base64url(y), "kid": self.kid})
        };
        match &*self.pair {
            Pair::P256(pair) => point("P-256", pair.public_key().as_ref()),
            Pair::P384(pair) => point("P-384", pair.public_key().as_ref()),
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(pair.public_key()), "kid": self.kid})
            }
            Pair::Rsa(pair) => {
                let (n, e) = rsa_numbers(pair.public_key().as_ref());
                json!({"kty": "RSA", "n": base64url(n), "e": base64url(e), "kid": self.kid})
            }
            Pair::Secret(bytes) => {
                json!({"kty": "oct", "k": base64url(bytes), "kid": self.kid})
            }
        }
    }

    /// The raw public bytes: what a confused verifier might take for a secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &*self.pair {
            Pair::P256(pair) | Pair::P384(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Secret(bytes) => bytes.clone(),
        }
    }

    /// The signature of `message` as a JWS carries it. `algorithm` matters for RSA only.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let encoding: &'static dyn sig::RsaEncoding = match algorithm {
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    "PS384" => &sig::RSA_PSS_SHA384,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Pair::Secret(bytes) => {
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, bytes);
                aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
            }
        }
    }

    /// A compact JWS of header and payload as they are written here.
    pub fn compact(&self, algorithm: &str, header: &[u8], payload: &[u8]) -> String {
        let signed = format!("{}.{}", base64url(header), base64url(payload));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", base64url(signature))
    }

    /// A token with a header of the caller's.
    pub fn with_header(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().unwrap_or("").to_owned();
        self.compact(
            &algorithm,
            header.to_string().as_bytes(),
            claims.to_string().as_bytes(),
        )
    }

    /// A token with the usual header.
    pub fn token(&self, claims: &Value) -> String {
        self.with_header(&self.header(), claims)
    }

    /// The usual header.
    pub fn header(&self) -> Value {
        let mut header = json!({"alg": self.algorithm(), "typ": "JWT"});
        if !self.kid.is_empty() {
            header["kid"] = json!(self.kid);
        }
        header
    }
}

/// Good claims for user `u-1`, valid for an hour from the start of the frozen clock.
pub fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "u-1", "aud": "app", "iat": NOW, "exp": NOW + 3600})
}

/// Claims with some changed; `null` takes one away.
pub fn claims_with(changes: Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

/// What a key server answers for these keys.
pub fn key_set(keys: &[Value]) -> Reply {
    json_reply(&json!({ "keys": keys }).to_string())
}

/// 200 with this JSON text.
pub fn json_reply(text: &str) -> Reply {
    Reply::bytes(&format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ))
}

/// A server that publishes these keys; it counts, and can be told to answer otherwise.
pub fn key_server(keys: &[Value]) -> Upstream {
    let server = Upstream::start();
    server.reply(key_set(keys));
    server
}

/// A `[providers.NAME]` of kind `jwt` for tokens of [`ISSUER`], asking this key server.
pub fn jwt_provider(name: &str, server: &Upstream) -> String {
    format!(
        "[providers.{name}]\nkind = \"jwt\"\nissuer = \"{ISSUER}\"\naudiences = [\"app\"]\njwks_url = \"{}/keys\"\n",
        server.url()
    )
}

/// `RSAPublicKey` (RFC 8017 §A.1.1): a sequence of two integers.
fn rsa_numbers(der: &[u8]) -> (Vec<u8>, Vec<u8>) {
    fn take(der: &[u8]) -> (&[u8], &[u8]) {
        let (length, at) = match der[1] {
            short @ 0..=0x7f => (usize::from(short), 2),
            0x81 => (usize::from(der[2]), 3),
            _ => (usize::from(der[2]) << 8 | usize::from(der[3]), 4),
        };
        der[at..].split_at(length)
    }
    let (sequence, _) = take(der);
    let (n, rest) = take(sequence);
    let (e, _) = take(rest);
    let unsigned = |number: &[u8]| {
        let zeros = number.iter().take_while(|b| **b == 0).count();
        number[zeros..].to_vec()
    };
    (unsigned(n), unsigned(e))
}
