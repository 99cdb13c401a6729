//! Shape, algorithms, keys and signatures: what RFC 8725 §3 asks for, and what attackers try.

use super::*;
use crate::token::inspect::Check;
use proptest::prelude::*;

const ALL: [&str; 7] = [
    "ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256",
];

fn all_allowed(mut provider: Provider) -> Provider {
    provider.algorithms = ALL.iter().map(|a| a.parse().unwrap()).collect();
    provider
}

#[tokio::test]
async fn each_algorithm_verifies_with_its_own_key_and_with_no_other() {
    let signers = ALL.map(|algorithm| Signer::new(algorithm, algorithm));
    let server = KeyServer::start(key_set(&signers.each_ref())).await;
    let tokens = tokens(
        &[all_allowed(provider(Some(&server.url)))],
        &Clock::frozen(NOW),
    );
    for signer in &signers {
        let token = signer.token(&claims());
        assert!(
            tokens.verify(token.as_bytes()).await.is_ok(),
            "{}",
            signer.algorithm
        );
        for other in &signers {
            if other.algorithm == signer.algorithm {
                continue;
            }
            // The other's name and key, this one's signature.
            let forged = signer.raw(&other.header().to_string(), &claims().to_string());
            assert_eq!(refusal(&tokens, &forged).await, Reason::Signature);
            // This one's name and signature, the other's key.
            let header = json!({"alg": signer.algorithm, "kid": other.kid});
            let forged = signer.raw(&header.to_string(), &claims().to_string());
            assert_eq!(refusal(&tokens, &forged).await, Reason::WrongKey);
        }
        // A signature one byte short, one long, cut, or of zeros.
        let (signed, _) = token.rsplit_once('.').unwrap();
        let signature = signer.sign(signed.as_bytes());
        let zeros = vec![0; signature.len()];
        let long = [&*signature, &[0]].concat();
        for bad in [&signature[1..], &signature[..8], &[], &zeros, &long] {
            let forged = format!("{signed}.{}", b64(bad));
            assert_eq!(refusal(&tokens, &forged).await, Reason::Signature);
        }
    }
    assert_eq!(server.hits(), 1);
}

#[tokio::test]
async fn a_secret_and_public_keys_never_stand_in_for_each_other() {
    let public = Signer::new("RS256", "k");
    let secret = Signer::new("HS256", "k");
    // A set that also publishes the symmetric key.
    let server = KeyServer::start(key_set(&[&public, &secret])).await;
    let clock = Clock::frozen(NOW);
    let mut only_public = provider(Some(&server.url));
    only_public.algorithms.push(Algorithm::HS256);
    let only_public = tokens(&[only_public], &clock);
    let mut only_secret = with_secret(provider(None));
    only_secret.keys.jwks_url = None;
    let only_secret = tokens(&[only_secret], &clock);
    let both = tokens(&[with_secret(provider(Some(&server.url)))], &clock);

    let (by_public, by_secret) = (public.token(&claims()), secret.token(&claims()));
    assert!(only_public.verify(by_public.as_bytes()).await.is_ok());
    assert_eq!(refusal(&only_public, &by_secret).await, Reason::WrongKey);
    assert!(only_secret.verify(by_secret.as_bytes()).await.is_ok());
    assert_eq!(refusal(&only_secret, &by_public).await, Reason::WrongKey);
    assert!(both.verify(by_public.as_bytes()).await.is_ok());
    assert!(both.verify(by_secret.as_bytes()).await.is_ok());
    // The oldest trick: the public key's numbers as the secret.
    let n = public.jwk()["n"].as_str().unwrap().to_owned();
    let forger = Signer {
        pair: Pair::Secret(URL_SAFE_NO_PAD.decode(n).unwrap()),
        ..Signer::new("HS256", "k")
    };
    assert_eq!(
        refusal(&both, &forger.token(&claims())).await,
        Reason::Signature
    );
}

#[tokio::test]
async fn an_algorithm_that_is_not_configured_is_refused_before_any_key() {
    let signer = Signer::new("ES384", "k");
    let tokens = tokens(&[provider(None)], &Clock::frozen(NOW));
    assert_eq!(
        refusal(&tokens, &signer.token(&claims())).await,
        Reason::Algorithm
    );
}

#[tokio::test]
async fn the_token_is_read_in_order_and_the_first_thing_wrong_is_named() {
    let signer = Signer::new("HS256", "k");
    let tokens = tokens(&[with_secret(provider(None))], &Clock::frozen(NOW));
    let header = signer.header().to_string();
    let good = claims().to_string();
    for (token, expected) in [
        ("x".repeat(8193), Reason::TooLong),
        (
            format!("{}.a.b.c.d", b64(r#"{"alg":"dir","enc":"A256GCM"}"#)),
            Reason::Shape,
        ),
        (
            json!({"payload": "e30", "signatures": []}).to_string(),
            Reason::Shape,
        ),
        (signer.raw(r#"{"alg":"none"}"#, &good), Reason::Algorithm),
        (
            signer.raw(r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, &good),
            Reason::Critical,
        ),
        (
            signer.raw(r#"{"alg":"HS256","b64":false}"#, &good),
            Reason::Critical,
        ),
        (
            signer.raw(r#"{"alg":"HS256","typ":"logout+jwt"}"#, &good),
            Reason::Type,
        ),
        (
            signer.raw(r#"{"alg":"HS256","alg":"HS256"}"#, &good),
            Reason::Header,
        ),
        (signer.raw(&header, "[]"), Reason::Payload),
        (signer.raw(&header, ""), Reason::Payload),
        (
            signer.raw(&header, &good.replacen('{', r#"{"sub":"other","#, 1)),
            Reason::Payload,
        ),
        (
            signer.raw(
                &header,
                &good.replace(r#""role":"editor""#, r#""role":"a","role":"b""#),
            ),
            Reason::Payload,
        ),
        (
            signer.raw(
                &header,
                &good.replace(
                    r#""aal1""#,
                    &format!("{}{}", "[".repeat(40), "]".repeat(40)),
                ),
            ),
            Reason::Payload,
        ),
        (
            signer.raw(&header, &good.replace(r#""aal1""#, "1e999")),
            Reason::Payload,
        ),
    ] {
        assert_eq!(refusal(&tokens, &token).await, expected, "{token}");
    }
    // Nothing that a header brings along is used.
    let own = Signer::new("ES256", "k");
    let header = json!({"alg": "ES256", "jwk": own.jwk(), "jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/",
        "x5c": ["MIIB"], "x5t": "AAAA"});
    let forged = own.raw(&header.to_string(), &good);
    assert_eq!(refusal(&tokens, &forged).await, Reason::WrongKey);
}

#[tokio::test]
async fn without_a_kid_only_the_one_key_that_fits_is_tried() {
    let mut ec = Signer::new("ES256", "ec");
    let ed = Signer::new("EdDSA", "ed");
    let second = Signer::new("EdDSA", "ed-2");
    let server = KeyServer::start(key_set(&[&ec, &ed, &second])).await;
    let tokens = tokens(&[provider(Some(&server.url))], &Clock::frozen(NOW));
    ec.kid = None;
    assert!(tokens.verify(ec.token(&claims()).as_bytes()).await.is_ok());
    let nameless = ed.raw(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    assert_eq!(refusal(&tokens, &nameless).await, Reason::AmbiguousKey);
    // None fits: perhaps a new one would, so it is looked for once.
    let rsa = Signer::new("RS256", "rsa").raw(r#"{"alg":"RS256"}"#, &claims().to_string());
    assert_eq!(refusal(&tokens, &rsa).await, Reason::UnknownKey);
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn without_keys_nothing_is_said_of_a_signature_and_everything_of_the_rest() {
    let signer = Signer::new("ES256", "k");
    let mut keyless = provider(Some(&Url::parse("http://127.0.0.1:1/").unwrap()));
    keyless.keys.jwks_url = None;
    let tokens = tokens(&[keyless], &Clock::frozen(NOW));
    let look = async |token: String, withheld: bool| {
        let seen = tokens.inspect(None, token.as_bytes(), |_| withheld).await;
        let (key, signature) = (
            seen.of(Check::Key).clone(),
            seen.of(Check::Signature).clone(),
        );
        let fault = seen.fault().map(TokenError::outcome);
        (key, signature, fault)
    };
    let token = signer.token(&claims());
    let unknown = (Finding::Withheld, Finding::Withheld, None);
    assert_eq!(look(token.clone(), true).await, unknown);
    let (key, signature, fault) = look(token, false).await;
    assert!(matches!(key, Finding::Fails(_)));
    assert_eq!((signature, fault), (Finding::NotReached, Some("refused")));
    let over = signer.token(&with(json!({"exp": NOW - 3600})));
    assert_eq!(look(over, true).await.2, Some("expired"));
    let both = signer.token(&with(json!({"exp": NOW - 3600, "aud": "other"})));
    assert_eq!(look(both, true).await.2, Some("refused"));
    // An algorithm that needs no public key has nothing to do with it.
    let secret = Signer::new("HS256", "k").token(&claims());
    assert_eq!(look(secret, true).await.2, Some("refused"));
}

#[tokio::test]
async fn a_token_of_another_provider_is_looked_at_as_the_one_that_is_asked_for_would() {
    let signer = Signer::new("HS256", "k");
    let mut other = with_secret(provider(None));
    other.name = "other".into();
    other.issuer = Some("https://other.example".into());
    let tokens = tokens(&[with_secret(provider(None)), other], &Clock::frozen(NOW));
    let token = signer.token(&claims());
    let look = async |whose| tokens.inspect(whose, token.as_bytes(), |_| false).await;
    assert_eq!(look(None).await.provider, Some(0));
    assert_eq!(look(Some(0)).await.fault(), None);
    let seen = look(Some(1)).await;
    let error = refused(Some("other".into()), Reason::Issuer);
    assert_eq!((seen.provider, seen.fault()), (Some(1), Some(&error)));
    assert_eq!(tokens.verify_for(1, token.as_bytes()).await, Err(error));
}

#[tokio::test]
async fn equal_kids_are_all_tried() {
    let (one, two) = (Signer::new("ES256", "same"), Signer::new("ES256", "same"));
    let server = KeyServer::start(key_set(&[&one, &two])).await;
    let tokens = tokens(&[provider(Some(&server.url))], &Clock::frozen(NOW));
    for signer in [one, two] {
        assert!(
            tokens
                .verify(signer.token(&claims()).as_bytes())
                .await
                .is_ok()
        );
    }
}

#[tokio::test]
async fn one_issuer_in_two_providers_is_told_apart_by_the_key() {
    let (one, two) = (Signer::new("ES256", "one"), Signer::new("ES256", "two"));
    let first = KeyServer::start(key_set(&[&one])).await;
    let second = KeyServer::start(key_set(&[&two])).await;
    let mut other = provider(Some(&second.url));
    other.name = "other".into();
    let tokens = tokens(&[provider(Some(&first.url)), other], &Clock::frozen(NOW));
    let who = async |token: String| tokens.verify(token.as_bytes()).await.unwrap().provider;
    assert_eq!(&*who(one.token(&claims())).await, "main");
    assert_eq!(&*who(two.token(&claims())).await, "other");
    let before = first.hits();
    assert_eq!(&*who(two.token(&claims())).await, "other");
    assert_eq!(first.hits(), before);
}

#[test]
fn a_key_that_is_weak_or_for_another_use_is_left_out_and_the_rest_serves() {
    let good = Signer::new("EdDSA", "good");
    let ec = Signer::new("ES256", "ec").jwk();
    let rsa = Signer::new("RS256", "rsa").jwk();
    let patched = |jwk: &Value, patch: Value| {
        let mut jwk = jwk.clone();
        for (name, value) in patch.as_object().unwrap() {
            jwk[name] = value.clone();
        }
        jwk
    };
    let ed = |x: [u8; 32]| json!({"kty": "OKP", "crv": "Ed25519", "x": b64(x)});
    let mut order_two = [0xff; 32];
    (order_two[0], order_two[31]) = (0xec, 0x7f);
    let mut one = [0; 32];
    one[0] = 1;
    let mut one_with_sign = one;
    one_with_sign[31] = 0x80;
    let mut even = URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap();
    *even.last_mut().unwrap() &= 0xfe;
    for bad in [
        patched(&ec, json!({"use": "enc"})),
        patched(&ec, json!({"use": ["sig"]})),
        patched(&ec, json!({"key_ops": ["sign"]})),
        patched(&ec, json!({"key_ops": "verify"})),
        patched(&ec, json!({"key_ops": []})),
        patched(&ec, json!({"alg": "ES384"})),
        patched(&ec, json!({"alg": "RS256"})),
        patched(&ec, json!({"alg": "ECDH-ES"})),
        patched(&ec, json!({"alg": 7})),
        patched(&ec, json!({"crv": "P-384"})),
        patched(&ec, json!({"crv": "secp256k1"})),
        patched(&ec, json!({"kty": "RSA"})),
        patched(&ec, json!({"kty": 1})),
        patched(&ec, json!({"d": "AAAA"})),
        patched(&ec, json!({"kid": 7})),
        patched(&ec, json!({"kid": "k".repeat(257)})),
        patched(&ec, json!({"x": b64([1; 32]), "y": b64([1; 32])})),
        patched(&ec, json!({"x": b64([0; 32]), "y": b64([0; 32])})),
        patched(&ec, json!({"x": b64([1; 31])})),
        patched(&ec, json!({"x": "not base64!"})),
        patched(&rsa, json!({"n": b64([0xff; 128])})),
        patched(&rsa, json!({"n": b64([0x7f; 256])})),
        patched(&rsa, json!({"n": b64([0xff; 1025])})),
        patched(&rsa, json!({"n": b64(even)})),
        patched(&rsa, json!({"n": ""})),
        patched(&rsa, json!({"e": b64([1])})),
        patched(&rsa, json!({"e": b64([2])})),
        patched(&rsa, json!({"e": b64([1, 0, 0, 0, 1])})),
        patched(&rsa, json!({"e": ""})),
        patched(&rsa, json!({"alg": "RSA-OAEP"})),
        patched(&rsa, json!({"alg": "HS256"})),
        json!({"kty": "oct", "k": b64(SECRET), "alg": "HS256"}),
        json!({"kty": "OKP", "crv": "X25519", "x": b64([9; 32])}),
        json!({"kty": "AKP"}),
        json!({}),
        json!("key"),
        ed([0; 32]),
        ed(one),
        ed(one_with_sign),
        ed(order_two),
        ed([0xff; 32]),
        json!({"kty": "OKP", "crv": "Ed25519", "x": b64([9; 31])}),
    ] {
        let text = json!({"keys": [bad, good.jwk()]}).to_string();
        let set = jwk::KeySet::parse(text.as_bytes()).unwrap();
        assert_eq!((set.len(), set.ignored), (1, 1), "{bad}");
    }
    for fine in [
        patched(&ec, json!({"key_ops": ["verify"]})),
        patched(&rsa, json!({"alg": "PS256"})),
        patched(&rsa, json!({"e": b64([3])})),
    ] {
        let text = json!({"keys": [fine]}).to_string();
        assert_eq!(jwk::KeySet::parse(text.as_bytes()).unwrap().len(), 1);
    }
}

#[test]
fn only_a_strict_document_is_a_key_set() {
    let key = Signer::new("EdDSA", "k").jwk();
    let many = |count: usize| json!({"keys": vec![&key; count]}).to_string();
    for (text, keys) in [
        (many(0), Some(0)),
        (many(100), Some(100)),
        (many(101), None),
        (json!({"keys": {}}).to_string(), None),
        (json!({}).to_string(), None),
        (json!([key]).to_string(), None),
        (r#"{"keys":[],"keys":[]}"#.to_owned(), None),
        ("<html>".to_owned(), None),
        (String::new(), None),
    ] {
        let got = jwk::KeySet::parse(text.as_bytes()).map(|set| set.len());
        assert_eq!(got, keys, "{text:.60}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_bytes_never_verify_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(jose::Jws::parse(&bytes).is_err());
        let _ = json::object(&bytes);
        let _ = jwk::KeySet::parse(&bytes);
    }

    #[test]
    fn a_token_changed_in_any_byte_is_refused(at in 0.0..1.0_f64, to in any::<u8>(), cut in any::<bool>()) {
        let signer = Signer::new("HS256", "k");
        let mut token = signer.token(&claims()).into_bytes();
        let at = (at * token.len() as f64) as usize;
        if cut {
            token.truncate(at);
        } else {
            prop_assume!(token[at] != to);
            token[at] = to;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async {
            tokens(&[with_secret(provider(None))], &Clock::frozen(NOW)).verify(&token).await
        });
        prop_assert!(result.is_err());
    }

    #[test]
    fn any_json_that_is_signed_is_judged_without_a_panic(text in "[ -~]{0,40}", number in any::<f64>(), whole in any::<i64>()) {
        let signer = Signer::new("HS256", "k");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tokens = tokens(&[with_secret(provider(None))], &Clock::frozen(NOW));
            for name in ["exp", "nbf", "iat", "aud", "sub", "role", "app_metadata", "scope", "session_id"] {
                for value in [json!(text), json!(number), json!(whole), json!([text]), json!({"roles": whole})] {
                    let _ = tokens.verify(signer.token(&with(json!({name: value}))).as_bytes()).await;
                }
            }
        });
    }
}
