//! The vectors of project Wycheproof (`tests/vectors/wycheproof`) against our entry points: every `invalid` case is refused,
//! every `valid` one of an algorithm we know is accepted. Exceptions are listed by number with their reason, and the
//! counts are asserted, so that no case is skipped in silence.

#![allow(clippy::unwrap_used, clippy::panic)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tollhouse::token::jose::Jws;
use tollhouse::token::jwk::{Choice, Key, KeySet};

/// What a file came to. Each of its cases is in exactly one of these.
#[derive(Debug, Default, PartialEq)]
struct Count {
    accepted: usize,
    refused: usize,
    /// Not of our kind at all: another primitive, or nothing that could be a bearer token.
    other: usize,
}

impl Count {
    fn add(&mut self, accepted: bool) {
        if accepted {
            self.accepted += 1;
        } else {
            self.refused += 1;
        }
    }
}

fn file(name: &str) -> Value {
    let path = format!(
        "{}/tests/vectors/wycheproof/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key(jwk: &Value) -> Key {
    Key::from_jwk(jwk.as_object().unwrap()).unwrap()
}

/// Runs every case of a file with raw messages and signatures.
fn primitive(
    name: &str,
    algorithm: Algorithm,
    signature: &str,
    keys: impl Fn(&Value, &Value) -> Vec<Key>,
    expected: impl Fn(&Value, &Value) -> Option<bool>,
) -> Count {
    let file = file(name);
    let mut count = Count::default();
    for group in list(&file, "testGroups") {
        for case in list(group, "tests") {
            let message = hex(text(case, "msg"));
            let signed = b64(&hex(text(case, signature)));
            let keys = keys(group, case);
            let got = !keys.is_empty();
            let got = got
                && keys
                    .iter()
                    .all(|key| key.verifies(algorithm, &message, &signed));
            if let Some(expected) = expected(group, case) {
                assert_eq!(
                    got, expected,
                    "{name} {}: {}",
                    case["tcId"], case["comment"]
                );
            }
            count.add(got);
        }
    }
    assert_eq!(
        count.accepted + count.refused,
        file["numberOfTests"].as_u64().unwrap() as usize
    );
    count
}

fn as_stated(_group: &Value, case: &Value) -> Option<bool> {
    match text(case, "result") {
        "valid" => Some(true),
        "invalid" => Some(false),
        "acceptable" => None,
        other => panic!("{other}"),
    }
}

/// The key as JWK and as PEM: both must read the same.
fn ec(curve: &'static str, bytes: usize) -> impl Fn(&Value, &Value) -> Vec<Key> {
    move |group, _| {
        let point = hex(text(&group["publicKey"], "uncompressed"));
        let (x, y) = point[1..].split_at(bytes);
        let jwk = json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)});
        vec![
            key(&jwk),
            Key::from_pem(text(group, "publicKeyPem")).unwrap(),
        ]
    }
}

fn rsa(group: &Value) -> Vec<Key> {
    let public = &group["publicKey"];
    let number = |name| b64(&hex(text(public, name)));
    // The published numbers have a leading zero byte, which is no part of the number.
    let jwk = json!({"kty": "RSA", "n": number("modulus"), "e": number("publicExponent")});
    vec![
        key(&jwk),
        Key::from_pem(text(group, "publicKeyPem")).unwrap(),
    ]
}

#[test]
fn es256_takes_every_valid_signature_and_no_other() {
    let count = primitive(
        "ecdsa_secp256r1_sha256_p1363_test",
        Algorithm::ES256,
        "sig",
        ec("P-256", 32),
        as_stated,
    );
    assert_eq!((count.accepted, count.refused), (173, 89));
}

#[test]
fn es384_takes_every_valid_signature_and_no_other() {
    let count = primitive(
        "ecdsa_secp384r1_sha384_p1363_test",
        Algorithm::ES384,
        "sig",
        ec("P-384", 48),
        as_stated,
    );
    assert_eq!((count.accepted, count.refused), (193, 87));
}

#[test]
fn eddsa_takes_every_valid_signature_and_no_other() {
    let count = primitive(
        "ed25519_test",
        Algorithm::EdDSA,
        "sig",
        |group, _| {
            let x = b64(&hex(text(&group["publicKey"], "pk")));
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": x});
            vec![
                key(&jwk),
                Key::from_pem(text(group, "publicKeyPem")).unwrap(),
            ]
        },
        as_stated,
    );
    assert_eq!((count.accepted, count.refused), (88, 63));
}

#[test]
fn rs256_takes_every_valid_signature_and_no_other() {
    let count = primitive(
        "rsa_signature_2048_sha256_test",
        Algorithm::RS256,
        "sig",
        |group, _| rsa(group),
        as_stated,
    );
    // The one that may go either way leaves out the NULL of its DigestInfo; it is refused.
    assert_eq!((count.accepted, count.refused), (9, 250));
}

#[test]
fn ps256_takes_every_valid_signature_and_no_other() {
    let count = primitive(
        "rsa_pss_2048_sha256_mgf1_32_test",
        Algorithm::PS256,
        "sig",
        |group, _| rsa(group),
        as_stated,
    );
    assert_eq!((count.accepted, count.refused), (63, 45));
}

#[test]
fn hs256_takes_whole_tags_under_long_keys_only() {
    let bits = |value: &Value, name| value[name].as_u64().unwrap();
    let count = primitive(
        "hmac_sha256_test",
        Algorithm::HS256,
        "tag",
        |_, case| Key::secret(&hex(text(case, "key"))).into_iter().collect(),
        // RFC 7518 §3.2: the whole hash, and a key of at least its size.
        |group, case| {
            let usable = bits(group, "tagSize") == 256 && bits(group, "keySize") >= 256;
            Some(usable && text(case, "result") == "valid")
        },
    );
    let file = file("hmac_sha256_test");
    let usable = list(&file, "testGroups")
        .iter()
        .filter(|g| bits(g, "tagSize") == 256 && bits(g, "keySize") >= 256);
    let valid = usable
        .flat_map(|g| list(g, "tests"))
        .filter(|c| text(c, "result") == "valid");
    assert_eq!(count.accepted, valid.count());
    assert_eq!(count.accepted + count.refused, 174);
    assert!(count.accepted >= 20, "{count:?}");
}

/// The rings that a group's key would be in: a lone symmetric key is a configured secret, everything else is a key set.
fn rings(group: &Value) -> (Option<Key>, KeySet) {
    let jwk = group.get("public").unwrap_or(&group["private"]);
    let secret = (jwk["kty"] == "oct" && jwk["alg"] == "HS256")
        .then(|| URL_SAFE_NO_PAD.decode(text(jwk, "k")).unwrap())
        .and_then(|bytes| Key::secret(&bytes));
    let set = if jwk.get("keys").is_some() {
        jwk.to_string()
    } else {
        json!({"keys": [jwk]}).to_string()
    };
    (secret, KeySet::parse(set.as_bytes()).unwrap())
}

/// As `Tokens` does it: shape, ring by algorithm, key by `kid`, signature.
fn accepts((secret, set): &(Option<Key>, KeySet), token: &str) -> bool {
    let Ok(jws) = Jws::parse(token.as_bytes()) else {
        return false;
    };
    let verifies = |key: &Key| key.verifies(jws.algorithm, jws.signed, jws.signature);
    if jws.algorithm == Algorithm::HS256 {
        return secret.as_ref().is_some_and(verifies);
    }
    match set.choose(jws.kid.as_deref(), jws.algorithm) {
        Choice::Keys(keys) => keys.into_iter().any(verifies),
        _ => false,
    }
}

/// Valid cases that we refuse all the same, with the reason.
fn refused_on_purpose(file: &str, case: u64) -> Option<&'static str> {
    Some(match (file, case) {
        ("json_web_signature_test", 346 | 350) => "the key says PS256, the token PS384",
        ("json_web_signature_test", 347 | 351) => "P-521 is not supported",
        ("json_web_signature_test", 372 | 373) => "`?` is not base64url",
        ("json_web_key_test", 2 | 13..=15) | ("json_web_crypto_test", 48) => {
            "symmetric keys of a key set are never used"
        }
        _ => return None,
    })
}

/// The valid case that an "invalid" one repeats byte for byte: the file lost the padding that was to make it wrong.
fn repeats(file: &str, case: u64) -> Option<u64> {
    matches!((file, case), ("json_web_signature_test", 367 | 370)).then_some(357)
}

fn tokens(name: &str) -> Count {
    let file = file(name);
    let cases = || {
        list(&file, "testGroups")
            .iter()
            .flat_map(|g| list(g, "tests"))
    };
    let mut count = Count::default();
    for group in list(&file, "testGroups") {
        let rings = rings(group);
        for case in list(group, "tests") {
            let number = case["tcId"].as_u64().unwrap();
            let token = match case.get("jws").or(case.get("jwe")).unwrap() {
                Value::String(compact) => compact.clone(),
                general => general.to_string(),
            };
            let got = accepts(&rings, &token);
            if case.get("jwe").is_some() {
                assert!(
                    !got,
                    "{name} {number}: an encrypted token is no access token"
                );
                count.other += 1;
                continue;
            }
            let mut valid = text(case, "result") == "valid";
            if let Some(twin) = repeats(name, number) {
                let twin = cases().find(|c| c["tcId"] == twin).unwrap();
                assert_eq!(
                    (&twin["jws"], text(twin, "result")),
                    (&case["jws"], "valid")
                );
                valid = true;
            }
            let expected = valid && refused_on_purpose(name, number).is_none();
            assert_eq!(got, expected, "{name} {number}: {}", case["comment"]);
            count.add(got);
        }
    }
    assert_eq!(
        count.accepted + count.refused + count.other,
        file["numberOfTests"].as_u64().unwrap() as usize
    );
    count
}

#[test]
fn compact_tokens_are_taken_or_refused_as_stated() {
    let count = tokens("json_web_signature_test");
    let expected = Count {
        accepted: 42,
        refused: 359,
        other: 0,
    };
    assert_eq!(count, expected);
}

#[test]
fn key_sets_are_read_as_stated() {
    let count = tokens("json_web_key_test");
    let expected = Count {
        accepted: 1,
        refused: 25,
        other: 0,
    };
    assert_eq!(count, expected);
}

#[test]
fn keys_and_tokens_of_other_kinds_do_not_mix() {
    let count = tokens("json_web_crypto_test");
    let expected = Count {
        accepted: 3,
        refused: 46,
        other: 34,
    };
    assert_eq!(count, expected);
}

#[test]
fn every_file_of_the_folder_is_used() {
    let folder = format!("{}/tests/vectors/wycheproof", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .count();
    // One test above for each.
    assert_eq!(files, 9);
}
