//! `token::jwk::KeySet::parse`: every entry is used or counted as ignored, a key is chosen for what it may do only, and
//! no key of any set accepts a signature that everybody can write.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollhouse::token::jwk::{Choice, KeySet, MAX_KEYS, is_symmetric};

const ALGORITHMS: [&str; 11] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384",
    "EdDSA",
];

fuzz_target!(|document: &[u8]| {
    let Some(set) = KeySet::parse(document) else {
        return;
    };
    let value: Value = serde_json::from_slice(document).unwrap();
    let entries = value["keys"].as_array().unwrap();
    assert!(entries.len() <= MAX_KEYS);
    assert_eq!(set.len() + set.ignored, entries.len());
    assert!(set.is_within(&set));
    assert!(KeySet::default().is_within(&set));
    assert_eq!(set.is_within(&KeySet::default()), set.is_empty());
    let private = entries
        .iter()
        .filter(|entry| entry.get("d").is_some())
        .count();
    assert!(set.ignored >= private, "a private key is used");

    let kids = entries
        .iter()
        .filter_map(|entry| entry["kid"].as_str())
        .take(8)
        .map(Some);
    let kids: Vec<Option<&str>> = kids.chain([None, Some("no such key")]).collect();
    for algorithm in ALGORITHMS {
        let algorithm: Algorithm = algorithm.parse().unwrap();
        for &kid in &kids {
            let Choice::Keys(keys) = set.choose(kid, algorithm) else {
                continue;
            };
            assert!(!is_symmetric(algorithm), "a published secret");
            assert!((1..=4).contains(&keys.len()));
            assert!(kid.is_some() || keys.len() == 1);
            for key in keys {
                assert!(key.fits(algorithm));
                assert!(kid.is_none() || key.kid() == kid);
                for bytes in [32, 64, 96, 256, 384, 512] {
                    for filling in [0, 1, 0xff] {
                        let mut signature = vec![0; bytes];
                        signature[bytes - 1] = filling;
                        signature[0] = if filling == 0xff { 0xff } else { 0 };
                        let signature = URL_SAFE_NO_PAD.encode(signature);
                        assert!(!key.verifies(algorithm, b"e30.e30", &signature));
                    }
                }
                assert!(!key.verifies(algorithm, b"e30.e30", ""));
            }
        }
    }
});
