//! Verification keys: read from key sets (RFC 7517) and PEM, judged before they are ever used, and bound to the
//! algorithms they may verify. A key that is weak, private, of another use or not understood is left out; the rest of
//! its set serves. Symmetric keys in a key set are never used: a public document holds no secret.

use super::{jose, json};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, crypto};
use serde_json::{Map, Value};

/// Most keys a set may hold.
pub const MAX_KEYS: usize = 100;
/// Shortest HMAC secret, in bytes (RFC 7518 §3.2, for HS256).
pub const MIN_SECRET_BYTES: usize = 32;
/// Equal `kid`s that are tried for one token.
const MAX_EQUAL_KIDS: usize = 4;
const MIN_RSA_BITS: usize = 2048;
const MAX_RSA_BITS: usize = 8192;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One key that may be used.
#[derive(Clone, Debug)]
pub struct Key {
    kid: Option<Box<str>>,
    /// One, when the key names it; else all that its family has.
    algorithms: Box<[Algorithm]>,
    decoding: DecodingKey,
    /// The only length a signature of this key can have (RFC 7518 §3; RFC 8032 §5.1.6).
    signature_bytes: usize,
    /// Public numbers, to see whether two sets hold the same key. Empty for a secret.
    material: Box<[u8]>,
}

impl Key {
    /// A symmetric key for HS256. `None` when it is too short.
    pub fn secret(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= MIN_SECRET_BYTES).then(|| Self {
            kid: None,
            algorithms: [Algorithm::HS256].into(),
            decoding: DecodingKey::from_secret(bytes),
            signature_bytes: 32,
            material: [].into(),
        })
    }

    /// A public key of a key set. The error says why it is never used.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, &'static str> {
        if jwk.contains_key("d") {
            return Err("it is a private key, and published");
        }
        match jwk.get("use") {
            None => {}
            Some(Value::String(purpose)) if purpose == "sig" => {}
            Some(_) => return Err("`use` is not `sig`"),
        }
        match jwk.get("key_ops") {
            None => {}
            Some(Value::Array(ops)) if ops.iter().any(|op| op == "verify") => {}
            Some(_) => return Err("`key_ops` lacks `verify`"),
        }
        let key = match (text(jwk, "kty"), text(jwk, "crv")) {
            (Some("RSA"), _) => Self::rsa(&number(jwk, "n")?, &number(jwk, "e")?)?,
            (Some("EC"), Some(curve)) => {
                let curve = Curve::named(curve).ok_or("unknown `crv`")?;
                let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
                if x.len() != curve.bytes() || y.len() != curve.bytes() {
                    return Err("coordinates of another length than the curve's");
                }
                Self::ec(curve, &[&[4], &*x, &*y].concat())?
            }
            (Some("OKP"), Some("Ed25519")) => Self::ed25519(&bytes(jwk, "x")?)?,
            (Some("oct"), _) => return Err("symmetric keys of a key set are never used"),
            _ => return Err("unknown `kty` or `crv`"),
        };
        let algorithms = match jwk.get("alg") {
            None => key.algorithms,
            Some(Value::String(name)) => match jose::algorithm(name) {
                Some(one) if key.algorithms.contains(&one) => [one].into(),
                _ => return Err("`alg` is not one of this key type"),
            },
            Some(_) => return Err("`alg` is not a string"),
        };
        let kid = match jwk.get("kid") {
            None => None,
            Some(Value::String(kid)) if kid.len() <= jose::MAX_KID_BYTES => {
                Some(kid.as_str().into())
            }
            Some(_) => return Err("`kid` is not a string, or too long"),
        };
        Ok(Self {
            kid,
            algorithms,
            ..key
        })
    }

    /// A public key in PEM (RFC 7468 §13): RSA, P-256, P-384 or Ed25519. It has no `kid` and answers to any.
    pub fn from_pem(pem: &str) -> Result<Self, &'static str> {
        let pem = pem.as_bytes();
        if let Ok(key) = DecodingKey::from_ec_pem(pem) {
            let point = key.try_get_as_bytes().map_err(|_| "not a key")?;
            let curve = match point.len() {
                65 => Curve::P256,
                97 => Curve::P384,
                _ => return Err("unknown curve"),
            };
            return Self::ec(curve, point);
        }
        if let Ok(key) = DecodingKey::from_ed_pem(pem) {
            return Self::ed25519(key.try_get_as_bytes().map_err(|_| "not a key")?);
        }
        let key = DecodingKey::from_rsa_pem(pem)
            .map_err(|_| "not an RSA, P-256, P-384 or Ed25519 public key in PEM")?;
        let der = key.try_get_as_bytes().map_err(|_| "not a key")?;
        let parts = &crypto::aws_lc::DEFAULT_PROVIDER.key_utils;
        let (n, e) =
            (parts.rsa_pub_components_from_public_key)(der).map_err(|_| "not an RSA public key")?;
        Self::rsa(unpadded(&n), unpadded(&e))
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Self, &'static str> {
        let bits = n.len() * 8 - n.first().map_or(0, |b| b.leading_zeros() as usize);
        if !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
            return Err("an RSA modulus must have 2048 to 8192 bits");
        }
        let odd = |number: &[u8]| number.last().is_some_and(|b| b & 1 == 1);
        if !odd(n) {
            return Err("the RSA modulus is even");
        }
        if !odd(e) || e == [1] || e.len() > 4 {
            return Err("the RSA exponent must be odd, at least 3, and have at most 32 bits");
        }
        if is_roca(n) {
            return Err("the RSA modulus has the ROCA weakness (CVE-2017-15361)");
        }
        Ok(Self {
            kid: None,
            algorithms: RSA.into(),
            decoding: DecodingKey::from_rsa_raw_components(n, e),
            signature_bytes: n.len(),
            material: [n, &[0], e].concat().into(),
        })
    }

    /// `point` is uncompressed: 4, x, y.
    fn ec(curve: Curve, point: &[u8]) -> Result<Self, &'static str> {
        use aws_lc_rs::signature as sig;
        let verifier = match curve {
            Curve::P256 => &sig::ECDSA_P256_SHA256_FIXED,
            Curve::P384 => &sig::ECDSA_P384_SHA384_FIXED,
        };
        sig::ParsedPublicKey::new(verifier, point).map_err(|_| "the point is not on the curve")?;
        Ok(Self {
            kid: None,
            algorithms: [curve.algorithm()].into(),
            decoding: DecodingKey::from_ec_der(point),
            signature_bytes: 2 * curve.bytes(),
            material: point.into(),
        })
    }

    fn ed25519(point: &[u8]) -> Result<Self, &'static str> {
        let point: &[u8; 32] = point
            .try_into()
            .map_err(|_| "an Ed25519 key has 32 bytes")?;
        if is_small_order(point) {
            return Err("an Ed25519 point of small order");
        }
        Ok(Self {
            kid: None,
            algorithms: [Algorithm::EdDSA].into(),
            decoding: DecodingKey::from_ed_der(point),
            signature_bytes: 64,
            material: point[..].into(),
        })
    }

    /// The `kid` of its set.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether this key may verify that algorithm at all.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether `signature` (base64url, no padding) is this key's over `message`. False for an algorithm that does not
    /// fit and for a signature of another length, before any arithmetic.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        // Unpadded base64 of n bytes has ⌈4n/3⌉ characters.
        self.fits(algorithm)
            && signature.len() == (self.signature_bytes * 4).div_ceil(3)
            && crypto::verify(signature, message, &self.decoding, algorithm).unwrap_or(false)
    }

    /// Whether both are one key for one use: `kid`, algorithms and numbers.
    fn same(&self, other: &Self) -> bool {
        self.kid == other.kid
            && self.algorithms == other.algorithms
            && self.material == other.material
    }
}

/// The keys of one good answer of a `jwks_uri`.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
    /// How many were left out.
    pub ignored: usize,
}

/// Which keys a token may be tried with.
#[derive(Debug)]
pub enum Choice<'a> {
    /// These, and no others. At most four.
    Keys(Vec<&'a Key>),
    /// No key has this `kid`, or none fits a token without one. A fresh set might.
    Unknown,
    /// A key has this `kid`, but may not verify this algorithm.
    WrongAlgorithm,
    /// No `kid`, and more than one key would fit.
    Ambiguous,
}

impl KeySet {
    /// Reads a key set document. `None` when it is none, is not strict JSON, or holds too many keys.
    pub fn parse(document: &[u8]) -> Option<Self> {
        let mut document = json::object(document)?;
        let Some(Value::Array(list)) = document.remove("keys") else {
            return None;
        };
        if list.len() > MAX_KEYS {
            return None;
        }
        let mut set = Self::default();
        for entry in &list {
            match entry.as_object().map(Key::from_jwk) {
                Some(Ok(key)) => set.keys.push(key),
                _ => set.ignored += 1,
            }
        }
        Some(set)
    }

    /// How many can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether none can be used.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether every key of `self` is also in `newer`.
    pub fn is_within(&self, newer: &Self) -> bool {
        self.keys
            .iter()
            .all(|key| newer.keys.iter().any(|other| other.same(key)))
    }

    /// The keys for a token with this header. `kid` is compared as an exact string, never used as anything else.
    pub fn choose(&self, kid: Option<&str>, algorithm: Algorithm) -> Choice<'_> {
        let fitting = |key: &&Key| key.fits(algorithm);
        let Some(kid) = kid else {
            let mut fit = self.keys.iter().filter(fitting);
            return match (fit.next(), fit.next()) {
                (Some(key), None) => Choice::Keys(vec![key]),
                (None, _) => Choice::Unknown,
                _ => Choice::Ambiguous,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.kid() == Some(kid));
        if named.clone().next().is_none() {
            return Choice::Unknown;
        }
        let keys: Vec<_> = named
            .by_ref()
            .filter(fitting)
            .take(MAX_EQUAL_KIDS)
            .collect();
        if keys.is_empty() {
            Choice::WrongAlgorithm
        } else {
            Choice::Keys(keys)
        }
    }
}

#[derive(Clone, Copy)]
enum Curve {
    P256,
    P384,
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
        }
    }
}

/// Whether an algorithm takes the shared secret and never a public key.
pub fn is_symmetric(algorithm: Algorithm) -> bool {
    algorithm.family() == AlgorithmFamily::Hmac
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    jwk.get(name).and_then(Value::as_str)
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    let text = text(jwk, name).ok_or("a number is missing")?;
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| "a number is not base64url")
}

fn number(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, &'static str> {
    bytes(jwk, name).map(|bytes| unpadded(&bytes).to_vec())
}

/// Without leading zero bytes.
fn unpadded(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|b| **b == 0).count();
    &number[zeros..]
}

/// Points whose multiples are at most eight, and second spellings of them (RFC 8032 §5.1.7; the sign bit is masked).
/// With such a key some signatures verify every message.
fn is_small_order(point: &[u8; 32]) -> bool {
    const ORDER_8: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *point;
    y[31] &= 0x7f;
    let ends_in = |low: std::ops::RangeInclusive<u8>| {
        low.contains(&y[0]) && y[1..31].iter().all(|b| *b == 0xff) && y[31] == 0x7f
    };
    // 0 and 1, whose multiples are four and one.
    let tiny = y[0] <= 1 && y[1..].iter().all(|b| *b == 0);
    // p−1 (order two), and p and above: encodings that are not canonical.
    tiny || ends_in(0xec..=0xff) || ORDER_8.contains(&y)
}

/// Whether a modulus has the fingerprint of the library of CVE-2017-15361: its residue modulo each small prime is a power
/// of 65537. By chance about one modulus in 2^27 has it.
fn is_roca(modulus: &[u8]) -> bool {
    const PRIMES: [u32; 38] = [
        3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89,
        97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
    ];
    PRIMES.iter().all(|&prime| {
        let residue = modulus
            .iter()
            .fold(0, |rest, &byte| (rest * 256 + u32::from(byte)) % prime);
        let generator = 65537 % prime;
        let mut power = 1;
        (0..prime).any(|_| {
            power = power * generator % prime;
            power == residue
        })
    })
}
