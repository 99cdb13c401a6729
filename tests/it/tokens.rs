//! Bearer tokens against the whole gateway: what verifies passes as it came, everything else is 401 before it reaches
//! anybody. The rows are those of RFC 8725 and its kin; each forged token differs from a good one in one thing only.

use crate::support::keys::{
    ISSUER, Signer, base64url, claims, claims_with, json_reply, jwt_provider, key_server, key_set,
};
use crate::support::{Answer, House, Identity, NOW, Upstream};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;
use tollhouse::config::interpolate::ProcessEnvironment;
use tollhouse::config::{self, Options};

const ALGORITHMS: &str = "algorithms = [\"ES256\", \"ES384\", \"EdDSA\", \"RS256\", \"PS256\"]\n";
const NO_FAILURE_LIMIT: &str = "[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n";

/// A gateway before one upstream that takes tokens of these providers.
struct Gate {
    house: House,
    upstream: Upstream,
}

impl Gate {
    fn new(providers: &str, routes: &str) -> Self {
        Self::at(providers, routes, Clock::frozen(NOW))
    }

    fn at(providers: &str, routes: &str, clock: Clock) -> Self {
        let upstream = Upstream::start();
        let file = format!(
            "{providers}{NO_FAILURE_LIMIT}[upstreams.app]\nurl = \"{}\"\n{routes}",
            upstream.url()
        );
        let house = House::start_at(&file, clock);
        Self { house, upstream }
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        let value = format!("Bearer {token}");
        self.house.get(path, &[("authorization", &value)])
    }

    /// The token passes, exactly as it came.
    fn passes(&self, token: &str, why: &str) {
        let before = self.upstream.count();
        let answer = self.get("/", token);
        assert_eq!(answer.status, 200, "{why}: {}", answer.text());
        assert_eq!(self.upstream.count(), before + 1, "{why}");
        let expected = format!("Bearer {token}");
        assert_eq!(
            self.upstream.last().header("authorization"),
            Some(&*expected)
        );
    }

    /// The token is refused and nothing reaches the upstream; twice, since a failure must not be remembered as success.
    fn refused(&self, token: &str, code: &str, why: &str) {
        let before = self.upstream.count();
        for _ in 0..2 {
            let answer = self.get("/", token);
            assert_eq!((answer.status, &*answer.code()), (401, code), "{why}");
            assert_eq!(
                answer.header("www-authenticate"),
                Some("Bearer realm=\"tollhouse\", error=\"invalid_token\""),
                "{why}"
            );
        }
        assert_eq!(
            self.upstream.count(),
            before,
            "{why}: it reached the upstream"
        );
    }

    fn invalid(&self, token: &str, why: &str) {
        self.refused(token, "invalid_token", why);
    }
}

const PLAIN: &str = "[[routes]]\npath = \"/*\"\n";

/// A gateway that trusts one P-256 key.
fn gate(signer: &Signer) -> Gate {
    let server = key_server(&[signer.jwk()]);
    Gate::new(
        &format!("{}{ALGORITHMS}", jwt_provider("main", &server)),
        PLAIN,
    )
}

#[test]
fn the_algorithm_is_one_of_the_keys_own_however_the_header_spells_it() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    gate.passes(
        &signer.token(&claims()),
        "the token that all others are like",
    );
    for alg in [
        json!("none"),
        json!("None"),
        json!("NONE"),
        json!("nOnE"),
        json!(""),
        json!("es256"),
        json!("ES256 "),
        json!("ES257"),
        json!("HS256"),
        json!("RS256"),
        json!("ES384"),
        json!("EdDSA"),
        json!(null),
        json!(256),
        json!(["ES256"]),
    ] {
        let header = json!({"alg": alg, "kid": "k1", "typ": "JWT"});
        let token = signer.with_header(&header, &claims());
        gate.invalid(&token, &format!("alg {alg}"));
        let unsigned = format!("{}.", token.rsplit_once('.').unwrap().0);
        gate.invalid(&unsigned, &format!("alg {alg}, unsigned"));
    }
    let header = json!({"kid": "k1", "typ": "JWT"});
    gate.invalid(&signer.with_header(&header, &claims()), "no alg");
}

#[test]
fn a_public_key_is_never_a_secret_and_a_secret_never_a_public_key() {
    let (p256, rsa) = (Signer::p256("ec"), Signer::rsa("rsa"));
    let mut shared = Signer::secret(&[7; 32]);
    shared.kid = "oct".into();
    let server = key_server(&[p256.jwk(), rsa.jwk(), shared.jwk()]);
    let secret = "a secret of more than thirty-two bytes";
    for (providers, takes_public, takes_secret) in [
        (jwt_provider("main", &server) + ALGORITHMS, true, false),
        (
            format!(
                "[providers.main]\nkind = \"jwt\"\nissuer = \"{ISSUER}\"\naudiences = [\"app\"]\nsecret = \"{secret}\"\n"
            ),
            false,
            true,
        ),
    ] {
        let gate = Gate::new(&providers, PLAIN);
        let check = |signer: &Signer, passes: bool, why: &str| {
            let token = signer.token(&claims());
            if passes {
                gate.passes(&token, why);
            } else {
                gate.invalid(&token, why);
            }
        };
        check(&p256, takes_public, "a P-256 key");
        check(&rsa, takes_public, "an RSA key");
        check(
            &Signer::secret(secret.as_bytes()),
            takes_secret,
            "the secret",
        );
        check(
            &Signer::secret(secret.as_bytes()).named("ec"),
            takes_secret,
            "the secret under a kid",
        );
        check(&shared, false, "a symmetric key of the key set");
        for public in [&p256, &rsa] {
            let jwk = public.jwk();
            for bytes in [
                public.public_bytes(),
                jwk.to_string().into_bytes(),
                jwk["x"]
                    .as_str()
                    .or(jwk["n"].as_str())
                    .unwrap()
                    .as_bytes()
                    .to_vec(),
                vec![],
            ] {
                let confused = Signer::secret(&bytes).named(&public.kid);
                check(&confused, false, "HS256 with the public key");
            }
        }
    }
}

#[test]
fn one_issuer_may_sign_with_a_secret_and_with_keys_side_by_side() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let secret = "the legacy secret of the project, long enough";
    let mut keys = identity
        .tables()
        .replace("[session]\nmode = \"shared\"\n", "");
    let of_supabase = |changes: Value| {
        let mut all = json!({"aud": "authenticated", "role": "authenticated"});
        all["iss"] = json!(format!("{}/auth/v1", identity.url));
        let all = all.as_object_mut().unwrap();
        all.extend(changes.as_object().unwrap().clone());
        claims_with(json!(all))
    };
    let legacy = Signer::secret(secret.as_bytes());
    let without = Gate::at(&keys, PLAIN, clock.clone());
    without.invalid(
        &legacy.token(&of_supabase(json!({}))),
        "HS256 without jwt_secret",
    );
    keys.push_str(&format!("jwt_secret = \"{secret}\"\n"));
    let both = Gate::at(&keys, PLAIN, clock);
    both.passes(&legacy.token(&of_supabase(json!({}))), "HS256");
    both.passes(
        &legacy.named("any").token(&of_supabase(json!({}))),
        "HS256 with a kid",
    );
    both.passes(&identity.token("ada@example.com"), "ES256");
    both.invalid(
        &Signer::secret(b"another secret of more than 32 bytes").token(&of_supabase(json!({}))),
        "another secret",
    );
    both.invalid(
        &legacy.token(&of_supabase(json!({"role": "anon"}))),
        "the anon key",
    );
    both.invalid(
        &legacy.token(&of_supabase(json!({"role": "service_role", "sub": null}))),
        "the service key",
    );
}

#[test]
fn a_secret_under_32_bytes_stops_the_start() {
    for (secret, good) in [
        ("x".repeat(31), false),
        ("x".repeat(32), true),
        ("base64:eHh4".into(), false),
    ] {
        let text = format!(
            "[providers.main]\nkind = \"jwt\"\nissuer = \"i\"\naudiences = [\"a\"]\nsecret = \"{secret}\"\n\
             [upstreams.app]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/*\"\n"
        );
        let environment = ProcessEnvironment::default();
        let options = Options {
            placeholders: false,
        };
        let loaded = config::load(&text, Path::new("test.toml"), &environment, options);
        assert_eq!(loaded.is_ok(), good, "{secret}");
    }
}

/// A token signed with a 1024-bit RSA key, made elsewhere: here no such key can be made.
const WEAK_N: &str = "whDLVICdVNeRY5BWrNddFdjTxNwOtsVe9MEYyy4SbXAWWoVpk6jZE28VtHke7DmFKJSKWEx8Rli35OMrNV9BMKpZe4G-buCmeA1RWrKPjChKTKQx7o5e5tvEJM_V1U2bOr19JDxT2V5Jk6pUFo5iUDG1niMPsqW0QJkd6yHgCSM";
const WEAK_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6IndlYWsiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoidS0xIiwiYXVkIjoiYXBwIiwiaWF0IjoxNzY3MjI1NjAwLCJleHAiOjE3NjcyMjkyMDB9.WytMYt-sJoPTkYnNkGDu2TG9ZxXgyYyBFL-W4yQvKbX_impYni0sWr_cG7GVv8Fjwi3D_F1W1VBQgaznjjcMATtMg5-dVZ9GKso5R90y91CU4bWrMQ082d8D89dK7Nlw_a3q5VoBzgZIOHZc79RKtkgzen9No9xwydv3Ti_MtVE";

#[test]
fn weak_keys_of_a_set_are_never_used_and_the_others_are() {
    let good = Signer::p256("good");
    let rsa = Signer::rsa("rsa");
    let n = rsa.jwk()["n"].as_str().unwrap().to_owned();
    let off_curve = json!({"kty": "EC", "crv": "P-256", "kid": "off", "x": base64url([1; 32]), "y": base64url([1; 32])});
    // The neutral element: with it, R = neutral and S = 0 "verify" for any message where nobody looks.
    let neutral = [&[1][..], &[0; 31]].concat();
    let small = json!({"kty": "OKP", "crv": "Ed25519", "kid": "small", "x": base64url(&neutral)});
    let server = key_server(&[
        json!({"kty": "RSA", "kid": "weak", "n": WEAK_N, "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "e1", "n": n, "e": base64url([1])}),
        json!({"kty": "RSA", "kid": "e2", "n": n, "e": base64url([2])}),
        off_curve,
        small,
        json!({"kty": "EC", "kid": "nothing"}),
        json!("not a key"),
        good.jwk(),
    ]);
    let gate = Gate::new(&(jwt_provider("main", &server) + ALGORITHMS), PLAIN);
    gate.passes(&good.token(&claims()), "the good key of the set");
    gate.invalid(WEAK_TOKEN, "RSA of 1024 bits");
    // With e = 1 the signature is the padded hash itself.
    let signed = |kid: &str, alg: &str| {
        let header = json!({"alg": alg, "kid": kid}).to_string();
        format!("{}.{}", base64url(header), base64url(claims().to_string()))
    };
    let message = signed("e1", "RS256");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, message.as_bytes());
    let info = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    let padding = vec![0xff; 256 - 3 - info.len() - 32];
    let padded = [&[0, 1][..], &padding, &[0], &info, hash.as_ref()].concat();
    gate.invalid(
        &format!("{message}.{}", base64url(padded)),
        "RSA with e = 1",
    );
    let forged = [&neutral[..], &[0; 32]].concat();
    gate.invalid(
        &format!("{}.{}", signed("small", "EdDSA"), base64url(forged)),
        "Ed25519 with a key of small order",
    );
    gate.invalid(
        &format!("{}.{}", signed("off", "ES256"), base64url([1; 64])),
        "a point off the curve",
    );
}

#[test]
fn a_key_serves_only_for_what_it_says_it_is_for() {
    let names = ["enc", "sign", "other_alg", "other_curve", "private", "good"];
    let signers: Vec<Signer> = names.iter().map(|kid| Signer::p256(kid)).collect();
    let rsa = Signer::rsa("rs256");
    let with = |at: usize, name: &str, value: Value| {
        let mut jwk = signers[at].jwk();
        jwk[name] = value;
        jwk
    };
    let mut only_rs256 = rsa.jwk();
    only_rs256["alg"] = json!("RS256");
    let server = key_server(&[
        with(0, "use", json!("enc")),
        with(1, "key_ops", json!(["sign"])),
        with(2, "alg", json!("RS256")),
        with(3, "crv", json!("P-384")),
        with(4, "d", json!("AAAA")),
        with(5, "use", json!("sig")),
        only_rs256,
    ]);
    let gate = Gate::new(&(jwt_provider("main", &server) + ALGORITHMS), PLAIN);
    for signer in &signers {
        let token = signer.token(&claims());
        if signer.kid == "good" {
            gate.passes(&token, &signer.kid);
        } else {
            gate.invalid(&token, &signer.kid);
        }
    }
    gate.passes(&rsa.token(&claims()), "RS256 with its key");
    let header = json!({"alg": "PS256", "kid": "rs256"});
    gate.invalid(
        &rsa.with_header(&header, &claims()),
        "PS256 with a key for RS256",
    );
}

#[test]
fn every_algorithm_of_the_contract_verifies_and_those_not_listed_do_not() {
    let signers = [
        Signer::p256("p256"),
        Signer::p384("p384"),
        Signer::ed25519("ed"),
        Signer::rsa("rsa"),
    ];
    let jwks: Vec<Value> = signers.iter().map(Signer::jwk).collect();
    let server = key_server(&jwks);
    let token = |alg: &str| {
        let signer = match alg {
            "ES256" => &signers[0],
            "ES384" => &signers[1],
            "EdDSA" => &signers[2],
            _ => &signers[3],
        };
        signer.with_header(&json!({"alg": alg, "kid": signer.kid}), &claims())
    };
    let all = [
        "ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256",
    ];
    for listed in [&all[..], &["ES384", "RS512"], &["EdDSA"]] {
        let algorithms = format!("algorithms = {}\n", json!(listed));
        let gate = Gate::new(&(jwt_provider("main", &server) + &algorithms), PLAIN);
        for alg in all {
            if listed.contains(&alg) {
                gate.passes(&token(alg), alg);
            } else {
                gate.invalid(&token(alg), alg);
            }
        }
    }
    // What a `jwt` provider takes when nothing is said.
    let gate = Gate::new(&jwt_provider("main", &server), PLAIN);
    for alg in ["ES256", "EdDSA", "RS256", "PS256"] {
        gate.passes(&token(alg), alg);
    }
}

#[test]
fn a_public_key_in_a_file_verifies_without_any_network() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::ed25519("any");
    // SubjectPublicKeyInfo of Ed25519 (RFC 8410 §4).
    let prefix = [
        0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
    ];
    let der = [&prefix[..], &signer.public_bytes()].concat();
    let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, der);
    let path = directory.path().join("issuer.pem");
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    std::fs::write(&path, pem).unwrap();
    let gate = Gate::new(
        &format!(
            "[providers.main]\nkind = \"jwt\"\nissuer = \"{ISSUER}\"\naudiences = [\"app\"]\npublic_key_file = \"{}\"\n",
            path.display()
        ),
        PLAIN,
    );
    gate.passes(&signer.token(&claims()), "the key of the file");
    gate.invalid(&Signer::ed25519("any").token(&claims()), "another key");
    gate.invalid(
        &Signer::secret(&signer.public_bytes()).token(&claims()),
        "HS256 with its bytes",
    );
}

#[test]
fn kid_is_a_name_and_nothing_else() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let strange = [
        "../../../../dev/null",
        "file:///etc/passwd",
        "k1' OR '1'='1",
        "k1\0",
        "K1",
        " k1",
        "k1 ",
        "http://127.0.0.1/keys",
        "{{k1}}",
        "$(id)",
        "",
    ];
    for kid in strange {
        gate.invalid(
            &signer
                .named(kid)
                .with_header(&json!({"alg": "ES256", "kid": kid}), &claims()),
            kid,
        );
    }
    for kid in [
        json!("k".repeat(257)),
        json!(1),
        json!(null),
        json!(["k1"]),
        json!({"k1": 1}),
    ] {
        let token = signer.with_header(&json!({"alg": "ES256", "kid": kid}), &claims());
        gate.invalid(&token, &kid.to_string());
    }
    gate.passes(&signer.named("").token(&claims()), "no kid and one key");
    // A key may have a strange name: it is only compared.
    let long = Signer::p256(&"../é\"".repeat(40));
    let server = key_server(&[long.jwk(), Signer::p256("other").jwk()]);
    let gate = Gate::new(&jwt_provider("main", &server), PLAIN);
    gate.passes(&long.token(&claims()), "a long name");
    gate.invalid(&long.named("").token(&claims()), "no kid and two keys");
    gate.invalid(
        &long.named("other").token(&claims()),
        "the name of the other key",
    );
}

#[test]
fn keys_that_a_token_brings_along_are_never_used_and_never_fetched() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let forger = Signer::p256("k1");
    let evil = key_server(&[forger.jwk()]);
    let url = format!("{}/keys", evil.url());
    for (name, value) in [
        ("jwk", forger.jwk()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("x5t", json!("AAAA")),
        ("x5t#S256", json!("AAAA")),
    ] {
        for kid in ["k1", "unknown"] {
            let mut header = json!({"alg": "ES256", "kid": kid, "typ": "JWT"});
            header[name] = value.clone();
            gate.invalid(&forger.with_header(&header, &claims()), name);
            if kid == "k1" {
                gate.passes(&signer.with_header(&header, &claims()), name);
            }
        }
    }
    let mut stolen = claims();
    stolen["iss"] = json!(evil.url());
    gate.invalid(&forger.token(&stolen), "an issuer that is a URL");
    assert_eq!(evil.connections(), 0);
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    for (name, value) in [
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("crit", json!(["http://example.com/x"])),
        ("crit", json!([])),
        ("crit", json!("exp")),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("b64", json!(true)),
    ] {
        let mut header = signer.header();
        header[name] = value.clone();
        header["exp"] = json!(NOW + 10);
        let token = signer.with_header(&header, &claims());
        gate.invalid(&token, &format!("{name} {value}"));
    }
    for (typ, good) in [
        ("JWT", true),
        ("jwt", true),
        ("at+jwt", true),
        ("application/at+jwt", true),
        ("logout+jwt", false),
        ("secevent+jwt", false),
        ("dpop+jwt", false),
        ("JOSE", false),
        ("", false),
    ] {
        let mut header = signer.header();
        header["typ"] = json!(typ);
        let token = signer.with_header(&header, &claims());
        if good {
            gate.passes(&token, typ);
        } else {
            gate.invalid(&token, typ);
        }
    }
    let mut header = signer.header();
    header["cty"] = json!("JWT");
    let nested = signer.compact(
        "ES256",
        header.to_string().as_bytes(),
        signer.token(&claims()).as_bytes(),
    );
    gate.invalid(&nested, "a token in a token");
}

#[test]
fn a_token_is_three_canonical_segments() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let good = signer.token(&claims());
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    // The last character of 64 bytes carries four bits that mean nothing and must be zero.
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let (start, last) = signature.split_at(signature.len() - 1);
    let index = alphabet.find(last).unwrap();
    let next = &alphabet[index + 1..index + 2];
    for (token, why) in [
        (format!("{header}.{payload}"), "two segments"),
        (format!("{good}."), "an empty fourth"),
        (format!("{good}.x"), "four segments"),
        (
            format!("{header}.{payload}.{signature}.{signature}.{signature}"),
            "five segments",
        ),
        (format!("{header}..{signature}"), "no payload"),
        (format!(".{payload}.{signature}"), "no header"),
        (format!("{header}.{payload}."), "no signature"),
        (format!("{good}="), "padding"),
        (format!("{header}=.{payload}.{signature}"), "padding inside"),
        (
            format!("{header}.{payload}.{start}{next}"),
            "bits behind the end",
        ),
        (
            format!("{header}.{payload}.{start}"),
            "a signature too short",
        ),
        (
            format!("{header}.{payload}.{signature}A"),
            "a signature too long",
        ),
        (format!("{header} .{payload}.{signature}"), "white space"),
        (format!("{header}.{payload}\t.{signature}"), "a tab"),
        (format!("{header}.{payload}.{start}+"), "a plus"),
        (format!("{header}.{payload}.{start}/"), "a slash"),
        (format!("Bearer {good}"), "the scheme twice"),
        (format!("\"{good}\""), "quotes"),
        (
            json!({"protected": header, "payload": payload, "signature": signature})
                .to_string()
                .replace(',', ";"),
            "JSON",
        ),
        (good.to_uppercase(), "another case"),
    ] {
        gate.invalid(&token, why);
    }
    gate.passes(&good, "unchanged");
    let list = gate.house.get(
        "/",
        &[("authorization", &format!("Bearer {good}, Bearer {good}"))],
    );
    assert_eq!(list.code(), "bad_request");
    let value = format!("Bearer {good}");
    let twice = gate
        .house
        .get("/", &[("authorization", &value), ("authorization", &value)]);
    assert_eq!(twice.code(), "bad_request");
    for spelling in ["bearer", "BEARER", "Bearer  "] {
        let answer = gate
            .house
            .get("/", &[("authorization", &format!("{spelling} {good}"))]);
        assert_eq!(answer.status, 200, "{spelling}");
    }
    for (value, code) in [
        ("Bearer", "invalid_token"),
        ("Bearer ", "invalid_token"),
        (&*format!("Basic {good}"), "missing_credentials"),
        (&*good, "missing_credentials"),
    ] {
        let answer = gate.house.get("/", &[("authorization", value)]);
        assert_eq!((answer.status, &*answer.code()), (401, code), "{value}");
    }
    // Nowhere else is a token a credential.
    let answer = gate.house.get(
        &format!("/?access_token={good}"),
        &[("cookie", &format!("access_token={good}"))],
    );
    assert_eq!(answer.code(), "missing_credentials");
}

#[test]
fn header_and_payload_are_strict_json_objects() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let header = signer.header().to_string();
    let payload = claims().to_string();
    let insert = |text: &str, member: &str| format!("{{{member},{}", &text[1..]);
    let nested = |depth: usize| format!("\"x\":{}1{}", "[".repeat(depth), "]".repeat(depth));
    for (header, payload, why) in [
        (
            insert(&header, "\"alg\":\"none\""),
            payload.clone(),
            "alg twice",
        ),
        (
            insert(&header, "\"\\u0061lg\":\"none\""),
            payload.clone(),
            "alg twice, escaped",
        ),
        (
            insert(&header, "\"kid\":\"k2\""),
            payload.clone(),
            "kid twice",
        ),
        (
            header.clone(),
            insert(&payload, "\"sub\":\"root\""),
            "sub twice",
        ),
        (
            header.clone(),
            insert(&payload, "\"exp\":9999999999"),
            "exp twice",
        ),
        (
            header.clone(),
            insert(&payload, "\"x\":{\"a\":1,\"a\":2}"),
            "a name twice further down",
        ),
        (header.clone(), insert(&payload, &nested(40)), "too deep"),
        (
            header.clone(),
            insert(&payload, &nested(3000)),
            "far too deep",
        ),
        (header.clone(), format!("[{payload}]"), "an array"),
        (header.clone(), "\"x\"".into(), "a string"),
        (header.clone(), "null".into(), "null"),
        (header.clone(), String::new(), "nothing"),
        (header.clone(), format!("{payload} x"), "something behind"),
        (
            header.clone(),
            format!("\u{feff}{payload}"),
            "a byte order mark",
        ),
        (
            header.clone(),
            payload.replace("\"app\"", "'app'"),
            "other quotes",
        ),
        (
            header.clone(),
            insert(&payload, "\"x\":NaN"),
            "not a number",
        ),
        (
            header.clone(),
            insert(&payload, "\"x\":1e999"),
            "a number too large",
        ),
        (
            format!("[{header}]"),
            payload.clone(),
            "a header in an array",
        ),
        (format!("{header}{header}"), payload.clone(), "two headers"),
    ] {
        gate.invalid(
            &signer.compact("ES256", header.as_bytes(), payload.as_bytes()),
            why,
        );
    }
    let not_utf8 = [
        &payload.as_bytes()[..payload.len() - 1],
        b",\"x\":\"\xff\"}",
    ]
    .concat();
    gate.invalid(
        &signer.compact("ES256", header.as_bytes(), &not_utf8),
        "not UTF-8",
    );
    let fine = insert(&payload, &nested(20));
    gate.passes(
        &signer.compact("ES256", header.as_bytes(), fine.as_bytes()),
        "deep enough",
    );
}

#[test]
fn size_comes_before_everything() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let padded = |bytes: usize| {
        let mut claims = claims();
        let mut token = signer.token(&claims);
        while token.len() < bytes {
            let more = (bytes - token.len()) * 3 / 4;
            let had = claims["x"].as_str().map_or(0, str::len);
            claims["x"] = json!("x".repeat(had + more.max(1)));
            token = signer.token(&claims);
        }
        token
    };
    let fits = padded(8100);
    assert!(fits.len() <= 8192);
    gate.passes(&fits, "near 8 KiB");
    gate.invalid(&padded(8193), "over 8 KiB");
    gate.invalid(&padded(40_000), "far over 8 KiB");
    // Work that a header asks for is not done.
    let started = Instant::now();
    for header in [
        json!({"alg": "PBES2-HS512+A256KW", "enc": "A256GCM", "p2c": 2_000_000_000, "p2s": "AAAA"}),
        json!({"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF"}),
        json!({"alg": "dir", "enc": "A128CBC-HS256"}),
    ] {
        let token = format!("{}.AAAA.AAAA.AAAA.AAAA", base64url(header.to_string()));
        gate.invalid(&token, "encrypted");
    }
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_signature_has_one_form() {
    let (p256, ed, rsa) = (
        Signer::p256("ec"),
        Signer::ed25519("ed"),
        Signer::rsa("rsa"),
    );
    let server = key_server(&[p256.jwk(), ed.jwk(), rsa.jwk()]);
    let gate = Gate::new(&(jwt_provider("main", &server) + ALGORITHMS), PLAIN);
    let with_signature = |signer: &Signer, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let token = signer.token(&claims());
        let (signed, _) = token.rsplit_once('.').unwrap();
        let signature = signer.sign(signer.algorithm(), signed.as_bytes());
        format!("{signed}.{}", base64url(change(signature)))
    };
    for signer in [&p256, &ed, &rsa] {
        gate.passes(&with_signature(signer, &|s| s), &signer.kid);
        for (change, why) in [
            (
                &(|s: Vec<u8>| vec![0_u8; s.len()]) as &dyn Fn(Vec<u8>) -> Vec<u8>,
                "all zero",
            ),
            (&|s| vec![0xff; s.len()], "all ones"),
            (&|s| [&[0][..], &s].concat(), "a zero before"),
            (&|s| [&s[..], &[0]].concat(), "a zero behind"),
            (&|s| s[1..].to_vec(), "a byte less"),
            (&|_| vec![], "empty"),
            (
                &|mut s| {
                    s[0] ^= 1;
                    s
                },
                "a flipped bit",
            ),
            (
                &|mut s| {
                    *s.last_mut().unwrap() ^= 0x80;
                    s
                },
                "a flipped last bit",
            ),
        ] {
            gate.invalid(
                &with_signature(signer, change),
                &format!("{}: {why}", signer.kid),
            );
        }
    }
    // ES256 as DER, which other standards use.
    let der = |s: Vec<u8>| {
        let integer = |n: &[u8]| {
            let zeros = n.iter().take_while(|b| **b == 0).count();
            let n = &n[zeros..];
            let sign: &[u8] = if n[0] & 0x80 == 0 { &[] } else { &[0] };
            let length = u8::try_from(sign.len() + n.len()).unwrap();
            [&[2, length], sign, n].concat()
        };
        let (r, s) = (integer(&s[..32]), integer(&s[32..]));
        let length = u8::try_from(r.len() + s.len()).unwrap();
        [&[0x30, length], &r[..], &s].concat()
    };
    gate.invalid(&with_signature(&p256, &der), "ES256 as DER");
    // Half of a signature replaced by the order of the curve, which is zero to who forgets to look.
    let order = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    gate.invalid(
        &with_signature(&p256, &|_| [order, order].concat()),
        "ES256, r = s = n",
    );
    // S + L is the same scalar written otherwise (RFC 8032 §8.4).
    let l = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let malleable = |mut s: Vec<u8>| {
        let mut carry = 0;
        for (byte, add) in s[32..].iter_mut().zip(l) {
            let sum = u16::from(*byte) + add + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        s
    };
    gate.invalid(&with_signature(&ed, &malleable), "Ed25519, S + L");
}

#[test]
fn times_are_numbers_and_are_kept() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let check = |changes: Value, expected: &str| {
        let token = signer.token(&claims_with(changes.clone()));
        match expected {
            "ok" => gate.passes(&token, &changes.to_string()),
            code => gate.refused(&token, code, &changes.to_string()),
        }
    };
    // Leeway is 30 s.
    check(json!({"exp": NOW + 1}), "ok");
    check(json!({"exp": NOW as f64 + 100.5}), "ok");
    check(json!({"exp": NOW - 29}), "ok");
    check(json!({"exp": NOW - 30}), "token_expired");
    check(json!({"exp": NOW - 86_400}), "token_expired");
    check(json!({"exp": 0}), "token_expired");
    check(json!({"exp": null}), "invalid_token");
    for exp in [
        json!((NOW + 3600).to_string()),
        json!(-1),
        json!(1e300),
        json!(true),
        json!([NOW + 3600]),
        json!({}),
    ] {
        check(json!({"exp": exp}), "invalid_token");
    }
    for name in ["nbf", "iat"] {
        check(json!({name: NOW + 30}), "ok");
        check(json!({name: NOW + 31}), "invalid_token");
        check(json!({name: NOW - 86_400}), "ok");
        check(json!({name: null}), "ok");
        check(json!({name: NOW.to_string()}), "invalid_token");
        check(json!({name: -5}), "invalid_token");
    }
    let null = claims()
        .to_string()
        .replace(&(NOW + 3600).to_string(), "null");
    gate.invalid(
        &signer.compact(
            "ES256",
            signer.header().to_string().as_bytes(),
            null.as_bytes(),
        ),
        "exp null",
    );
}

#[test]
fn issuer_audience_and_user_are_compared_byte_for_byte() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let check = |changes: Value, good: bool| {
        let token = signer.token(&claims_with(changes.clone()));
        if good {
            gate.passes(&token, &changes.to_string());
        } else {
            gate.invalid(&token, &changes.to_string());
        }
    };
    for iss in [
        json!(format!("{ISSUER}/")),
        json!(ISSUER.to_uppercase()),
        json!(ISSUER.replace("https", "http")),
        json!(format!("{ISSUER} ")),
        json!([ISSUER]),
        json!({"iss": ISSUER}),
        json!(""),
        json!(1),
        json!(null),
    ] {
        check(json!({ "iss": iss }), false);
    }
    check(json!({"aud": ["other", "app"]}), true);
    check(json!({"aud": ["app"]}), true);
    for aud in [
        json!("other"),
        json!("APP"),
        json!("app "),
        json!("app other"),
        json!(""),
        json!([]),
        json!(["other"]),
        json!([["app"]]),
        json!(["app", 1]),
        json!({"app": true}),
        json!(1),
        json!(null),
    ] {
        check(json!({ "aud": aud }), false);
    }
    check(json!({"sub": "a".repeat(256)}), true);
    check(json!({"sub": "!~auth0|x:y/z,%"}), true);
    for sub in [
        json!("a".repeat(257)),
        json!(""),
        json!(" "),
        json!("a b"),
        json!(" a"),
        json!("a "),
        json!("a\r\nX-User-Role: admin"),
        json!("a\n"),
        json!("a\0"),
        json!("a\u{7f}"),
        json!("é"),
        json!("a\u{200b}"),
        json!(1),
        json!(["u-1"]),
        json!(true),
        json!(null),
    ] {
        check(json!({ "sub": sub }), false);
    }
    check(json!({"sub": "u-2"}), true);
    assert_eq!(gate.upstream.last().header("x-user-id"), Some("u-2"));
}

#[test]
fn claims_mean_nothing_before_the_signature_holds() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let forger = Signer::p256("k1");
    for changes in [
        json!({"exp": NOW - 3600, "sub": "victim"}),
        json!({"is_anonymous": true, "sub": "victim"}),
        json!({"sub": "victim"}),
    ] {
        // Not "expired", not "forbidden": that would be a claim believed.
        gate.invalid(&forger.token(&claims_with(changes)), "forged");
    }
    for record in gate.house.log.wait_for(6) {
        assert_eq!(record["user_id"], Value::Null, "{record}");
        assert_eq!(record["credential"], Value::Null, "{record}");
        assert!(!record.to_string().contains("victim"));
    }
}

#[test]
fn a_refusal_says_nothing_of_the_check_and_repeats_nothing() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let bodies: Vec<Value> = [
        Signer::p256("k1").token(&claims()),
        Signer::p256("unknown-kid").token(&claims()),
        signer.token(&claims_with(json!({"aud": "other"}))),
        signer.token(&claims_with(json!({"iss": "https://evil.example"}))),
        "rubbish".into(),
    ]
    .iter()
    .map(|token| {
        let mut body = gate.get("/", token).json();
        body.as_object_mut().unwrap().remove("request_id");
        body
    })
    .collect();
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
}

#[test]
fn a_token_is_matched_to_its_provider_by_issuer_and_to_no_other() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let (one, two) = (Signer::p256("same"), Signer::p256("same"));
    let (first, second) = (key_server(&[one.jwk()]), key_server(&[two.jwk()]));
    let other_issuer = "https://second.example";
    let providers = format!(
        "{}{}user_prefix = \"first|\"\n{}",
        identity
            .tables()
            .replace("[session]\nmode = \"shared\"\n", ""),
        jwt_provider("first", &first),
        jwt_provider("second", &second).replace(ISSUER, other_issuer),
    );
    let gate = Gate::at(
        &providers,
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/main\"\ncredentials = [\"bearer:main\"]\n\
         [[routes]]\npath = \"/two\"\ncredentials = [\"bearer:first\", \"bearer:second\"]\n\
         [[routes]]\npath = \"/required\"\nrequire = { provider = [\"main\", \"second\"] }\n\
         [[routes]]\npath = \"/optional\"\nauth = \"optional\"\ncredentials = [\"bearer:main\"]\n",
        clock,
    );
    let of_main = identity.token("ada@example.com");
    let of_first = one.token(&claims());
    let of_second = two.token(&claims_with(json!({"iss": other_issuer})));
    for (token, provider, user) in [
        (&of_main, "main", None),
        (&of_first, "first", Some("first|u-1")),
        (&of_second, "second", Some("u-1")),
    ] {
        let answer = gate.house.get(
            "/",
            &[
                ("authorization", &format!("Bearer {token}")),
                ("x-auth-provider", "forged"),
            ],
        );
        assert_eq!(answer.status, 200, "{provider}");
        let received = gate.upstream.last();
        assert_eq!(received.header("x-auth-provider"), Some(provider));
        if let Some(user) = user {
            assert_eq!(received.header("x-user-id"), Some(user));
        }
    }
    // The right claims with the other's key, and an issuer that nobody has.
    gate.invalid(
        &two.token(&claims()),
        "the second's key for the first's issuer",
    );
    gate.invalid(
        &one.token(&claims_with(json!({"iss": other_issuer}))),
        "and the other way",
    );
    gate.invalid(
        &one.token(&claims_with(json!({"iss": "https://third.example"}))),
        "nobody's issuer",
    );
    gate.invalid(&one.token(&claims_with(json!({"iss": null}))), "no issuer");
    for (path, token, status) in [
        ("/main", &of_main, 200),
        ("/main", &of_first, 401),
        ("/two", &of_main, 401),
        ("/two", &of_first, 200),
        ("/two", &of_second, 200),
        ("/required", &of_main, 200),
        ("/required", &of_first, 403),
        ("/required", &of_second, 200),
        ("/optional", &of_main, 200),
        ("/optional", &of_first, 401),
    ] {
        assert_eq!(gate.get(path, token).status, status, "{path}");
    }
}

#[test]
fn the_provider_is_not_named_while_there_is_only_one() {
    let signer = Signer::p256("k1");
    let gate = gate(&signer);
    let headers = [
        (
            "authorization",
            &*format!("Bearer {}", signer.token(&claims())),
        ),
        ("x-auth-provider", "forged"),
    ];
    assert_eq!(gate.house.get("/", &headers).status, 200);
    assert_eq!(gate.upstream.last().header("x-auth-provider"), None);
}

#[test]
fn anonymous_users_and_project_keys_are_let_in_only_when_the_file_says_so() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let routes =
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/optional\"\nauth = \"optional\"\n";
    let token = |changes: Value| {
        let mut claims = claims_with(json!({"role": "authenticated", "aud": "authenticated"}));
        claims["iss"] = json!(format!("{}/auth/v1", identity.url));
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        identity.provider.sign(&claims).unwrap()
    };
    let anonymous = token(json!({"is_anonymous": true}));
    let odd = token(json!({"is_anonymous": "yes"}));
    let named = token(json!({"is_anonymous": false}));
    let tables = identity.tables();
    let (provider, session) = tables.split_at(tables.find("[session]").unwrap());
    let denying = Gate::at(&tables, routes, clock.clone());
    denying.passes(&named, "a user");
    for token in [&anonymous, &odd] {
        assert_eq!(denying.get("/", token).code(), "forbidden");
        assert_eq!(denying.get("/optional", token).status, 200);
        let received = denying.upstream.last();
        assert_eq!(received.header("x-user-id"), None);
        assert_eq!(received.header("authorization"), None);
    }
    let mut session_text = identity.session("ada@example.com");
    session_text["access_token"] = json!(anonymous);
    let cookie = crate::support::cookie(&session_text.to_string());
    assert_eq!(
        denying.house.get("/", &[("cookie", &cookie)]).code(),
        "forbidden"
    );
    assert_eq!(
        denying
            .house
            .get("/optional", &[("cookie", &cookie)])
            .status,
        200
    );
    assert_eq!(denying.upstream.last().header("x-user-id"), None);
    for role in ["anon", "service_role"] {
        denying.invalid(&token(json!({"role": role})), role);
        assert_eq!(
            denying
                .get("/optional", &token(json!({"role": role})))
                .status,
            401
        );
    }
    let allowing = Gate::at(
        &format!("{provider}anonymous_users = \"allow\"\nservice_role = \"allow\"\n{session}"),
        routes,
        clock.clone(),
    );
    allowing.passes(&anonymous, "allowed");
    allowing.passes(&token(json!({"role": "service_role"})), "allowed");
    allowing.invalid(&token(json!({"role": "anon"})), "never a user");
}

#[test]
fn roles_come_from_the_listed_claims_only() {
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let gate = Gate::new(
        &format!(
            "{}roles = [\"role\", \"app_metadata.roles\"]\n",
            jwt_provider("main", &server)
        ),
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/admin\"\nrequire = { any_role = [\"admin\", \"root\"] }\n",
    );
    let check = |changes: Value, header: Option<&str>, admin: bool| {
        let token = signer.token(&claims_with(changes.clone()));
        gate.passes(&token, &changes.to_string());
        assert_eq!(
            gate.upstream.last().header("x-user-role"),
            header,
            "{changes}"
        );
        let before = gate.upstream.count();
        let answer = gate.get("/admin", &token);
        assert_eq!(answer.status, if admin { 200 } else { 403 }, "{changes}");
        assert_eq!(gate.upstream.count(), before + usize::from(admin));
    };
    check(json!({}), None, false);
    check(json!({"role": "admin"}), Some("admin"), true);
    check(
        json!({"app_metadata": {"roles": ["user", "root"]}}),
        Some("user,root"),
        true,
    );
    check(
        json!({"role": "user", "app_metadata": {"roles": ["admin"]}}),
        Some("user,admin"),
        true,
    );
    check(
        json!({"role": "user", "app_metadata": {"roles": ["user"]}}),
        Some("user"),
        false,
    );
    for not in [
        "Admin",
        "ADMIN",
        "administrator",
        "admin ",
        " admin",
        "admin\u{200b}",
        "user,admin",
        "admin\0",
    ] {
        let token = signer.token(&claims_with(json!({"role": not})));
        assert_eq!(gate.get("/admin", &token).status, 403, "{not:?}");
    }
    for wrong in [
        json!(1),
        json!(true),
        json!({"admin": true}),
        json!([["admin"]]),
        json!(["admin", 1]),
        json!(""),
    ] {
        check(json!({"role": wrong}), None, false);
    }
    for elsewhere in [
        json!({"roles": ["admin"]}),
        json!({"user_role": "admin"}),
        json!({"app_metadata": {"role": "admin"}}),
        json!({"app_metadata.roles": ["admin"]}),
        json!({"user_metadata": {"role": "admin", "roles": ["admin"]}, "raw_user_meta_data": {"role": "admin"}}),
        json!({"groups": ["admin"], "scope": "admin", "permissions": ["admin"]}),
    ] {
        check(elsewhere, None, false);
    }
    // A member cannot become two: separators are encoded.
    check(
        json!({"role": "a,admin é%"}),
        Some("a%2Cadmin%20%C3%A9%25"),
        false,
    );
}

#[test]
fn user_metadata_never_decides_anything() {
    for (key, text) in [
        ("roles", "roles = [\"user_metadata.role\"]\n"),
        ("user_id_claim", "user_id_claim = \"user_metadata.id\"\n"),
    ] {
        let file = format!(
            "[providers.main]\nkind = \"jwt\"\nissuer = \"i\"\naudiences = [\"a\"]\njwks_url = \"https://issuer.example/keys\"\n{text}\
             [upstreams.app]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/*\"\n"
        );
        let environment = ProcessEnvironment::default();
        let options = Options {
            placeholders: false,
        };
        let problems =
            config::load(&file, Path::new("test.toml"), &environment, options).unwrap_err();
        assert!(
            problems.to_string().contains("user-metadata"),
            "{key}: {problems}"
        );
    }
    // The whole route of a Supabase user who wrote all he could.
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let metadata = json!({"role": "admin", "roles": ["admin"], "sub": "root", "user_role": "admin", "app_metadata": {"role": "admin"}});
    let metadata = metadata.as_object().unwrap().clone();
    assert!(
        identity
            .provider
            .set_user_metadata("ada@example.com", metadata)
    );
    let gate = Gate::at(
        &identity.tables(),
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/admin\"\nrequire = { any_role = [\"admin\"] }\n",
        clock,
    );
    let session = identity.session("ada@example.com");
    let token = session["access_token"].as_str().unwrap();
    gate.passes(token, "Ada");
    assert_eq!(gate.upstream.last().header("x-user-role"), Some("user"));
    assert_eq!(
        gate.upstream.last().header("x-user-id"),
        session["user"]["id"].as_str()
    );
    assert_eq!(gate.get("/admin", token).code(), "forbidden");
    assert_eq!(
        gate.get("/admin", &identity.token("grace@example.com"))
            .status,
        200
    );
}

#[test]
fn a_route_may_ask_for_scopes_assurance_and_claims() {
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let gate = Gate::new(
        &jwt_provider("main", &server),
        "[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/scopes\"\nrequire = { all_scopes = [\"orders:read\", \"orders:write\"] }\n\
         [[routes]]\npath = \"/aal2\"\nrequire = { aal = \"aal2\" }\n\
         [[routes]]\npath = \"/t/{tenant}/x\"\nrequire = { claims = { \"app_metadata.tenant\" = \"{tenant}\" } }\n\
         [[routes]]\npath = \"/gold\"\nrequire = { claims = { plan = \"gold\", \"a.b\" = 1 } }\n\
         [[routes]]\npath = \"/host\"\nhost = \"{tenant}.example.com\"\nrequire = { claims = { tenant = \"{tenant}\" } }\n",
    );
    let check = |path: &str, claims: Value, passes: bool| {
        let before = gate.upstream.count();
        let answer = gate.get(path, &signer.token(&claims_with(claims.clone())));
        let expected = if passes {
            (200, "")
        } else {
            (403, "forbidden")
        };
        assert_eq!(
            (answer.status, &*answer.code()),
            expected,
            "{path} {claims}"
        );
        assert_eq!(gate.upstream.count(), before + usize::from(passes));
    };
    check(
        "/scopes",
        json!({"scope": "orders:read orders:write x"}),
        true,
    );
    check(
        "/scopes",
        json!({"scp": ["orders:read", "orders:write"]}),
        true,
    );
    check("/scopes", json!({"scope": "orders:read"}), false);
    check(
        "/scopes",
        json!({"scope": "orders:read,orders:write"}),
        false,
    );
    check(
        "/scopes",
        json!({"role": "orders:write", "scope": "orders:read"}),
        false,
    );
    check("/scopes", json!({}), false);
    check("/aal2", json!({"aal": "aal2"}), true);
    check("/aal2", json!({"aal": "aal1"}), false);
    check("/aal2", json!({"amr": ["aal2"]}), false);
    let tenant = |value: Value| json!({"app_metadata": {"tenant": value}});
    check("/t/acme/x", tenant(json!("acme")), true);
    check("/t/acme/x", tenant(json!(["other", "acme"])), true);
    check("/t/acme/x", tenant(json!("Acme")), false);
    check("/t/acme/x", tenant(json!("acme2")), false);
    check("/t/acme/x", tenant(json!("{tenant}")), false);
    check("/t/acme/x", tenant(json!("")), false);
    check("/t/acme/x", tenant(json!({"acme": true})), false);
    check("/t/acme/x", json!({"tenant": "acme"}), false);
    check(
        "/t/acme/x",
        json!({"user_metadata": {"tenant": "acme"}}),
        false,
    );
    check("/t/%61cme/x", tenant(json!("acme")), true);
    check("/t/other/x", tenant(json!("acme")), false);
    check("/t/42/x", tenant(json!(42)), true);
    check("/gold", json!({"plan": "gold", "a": {"b": 1}}), true);
    check("/gold", json!({"plan": "gold", "a": {"b": "1"}}), false);
    check("/gold", json!({"plan": "gold"}), false);
    check(
        "/gold",
        json!({"plan": ["silver", "gold"], "a": {"b": [1]}}),
        true,
    );
    for (host, status) in [
        ("acme.example.com", 200),
        ("ACME.example.com", 200),
        ("other.example.com", 403),
    ] {
        let token = signer.token(&claims_with(json!({"tenant": "acme"})));
        let headers = [
            ("host", host),
            ("authorization", &*format!("Bearer {token}")),
        ];
        assert_eq!(gate.house.get("/host", &headers).status, status, "{host}");
    }
}

#[test]
fn explicit_credentials_come_before_the_cookie_and_never_fall_back_to_it() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let gate = Gate::at(
        &identity.tables(),
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/session\"\ncredentials = [\"session\"]\n\
         [[routes]]\npath = \"/bearer\"\ncredentials = [\"bearer\"]\n[[routes]]\npath = \"/public\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/optional\"\nauth = \"optional\"\n",
        clock,
    );
    let (ada, grace) = (
        identity.session("ada@example.com"),
        identity.session("grace@example.com"),
    );
    let id = |session: &Value| session["user"]["id"].as_str().unwrap().to_owned();
    let cookie = crate::support::cookie(&ada.to_string());
    let token = |session: &Value| format!("Bearer {}", session["access_token"].as_str().unwrap());
    let ask = |path: &str, bearer: Option<&str>, with_cookie: bool| {
        let mut headers = Vec::new();
        headers.extend(bearer.map(|value| ("authorization", value)));
        if with_cookie {
            headers.push(("cookie", &*cookie));
        }
        gate.house.get(path, &headers)
    };
    let good = token(&grace);
    // Path, bearer, cookie, and who the upstream sees; or the code.
    type Case<'a> = (
        &'a str,
        Option<&'a str>,
        bool,
        Result<Option<&'a Value>, &'a str>,
    );
    let cases: &[Case<'_>] = &[
        ("/", Some(&good), true, Ok(Some(&grace))),
        ("/", None, true, Ok(Some(&ada))),
        ("/", Some("Bearer rubbish"), true, Err("invalid_token")),
        ("/", Some("Bearer "), true, Err("invalid_token")),
        ("/", Some("Basic eDp5"), true, Ok(Some(&ada))),
        ("/session", Some(&good), true, Ok(Some(&ada))),
        ("/session", Some("Bearer rubbish"), true, Ok(Some(&ada))),
        ("/session", Some(&good), false, Err("missing_credentials")),
        ("/bearer", Some(&good), true, Ok(Some(&grace))),
        ("/bearer", None, true, Err("missing_credentials")),
        (
            "/optional",
            Some("Bearer rubbish"),
            true,
            Err("invalid_token"),
        ),
        (
            "/optional",
            Some("Bearer rubbish"),
            false,
            Err("invalid_token"),
        ),
        ("/optional", Some(&good), true, Ok(Some(&grace))),
        ("/optional", None, false, Ok(None)),
        ("/public", Some(&good), true, Ok(None)),
        ("/public", Some("Bearer rubbish"), true, Ok(None)),
    ];
    for (path, bearer, with_cookie, expected) in cases {
        let before = gate.upstream.count();
        let answer = ask(path, *bearer, *with_cookie);
        match expected {
            Err(code) => {
                assert_eq!(
                    (answer.status, &*answer.code()),
                    (401, *code),
                    "{path} {bearer:?}"
                );
                assert_eq!(gate.upstream.count(), before, "{path} {bearer:?}");
            }
            Ok(user) => {
                assert_eq!(answer.status, 200, "{path} {bearer:?}: {}", answer.text());
                let received = gate.upstream.last();
                assert_eq!(
                    received.header("x-user-id"),
                    user.map(id).as_deref(),
                    "{path} {bearer:?}"
                );
                assert_eq!(
                    received.header("authorization"),
                    user.map(token).as_deref(),
                    "{path} {bearer:?}"
                );
                assert_eq!(received.header("cookie"), None);
            }
        }
    }
}

#[test]
fn a_token_that_expires_while_the_clock_moves_is_over_everywhere() {
    let clock = Clock::frozen(NOW);
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let gate = Gate::at(
        &format!("{}leeway = \"0s\"\n", jwt_provider("main", &server)),
        PLAIN,
        clock.clone(),
    );
    let token = signer.token(&claims());
    gate.passes(&token, "fresh");
    clock.advance(Duration::from_millis(3_599_999));
    gate.passes(&token, "a millisecond left");
    clock.advance(Duration::from_millis(1));
    gate.refused(&token, "token_expired", "on exp");
}

#[test]
fn a_key_set_of_junk_gives_503_and_not_401() {
    let signer = Signer::p256("k1");
    let server = key_server(&[]);
    for junk in [
        "{\"keys\":[]}",
        "{\"keys\":{}}",
        "{}",
        "[]",
        "null",
        "",
        "<html>",
        "{\"keys\":[],\"keys\":[]}",
    ] {
        server.reply(json_reply(junk));
        let gate = Gate::new(&jwt_provider("main", &server), PLAIN);
        let answer = gate.get("/", &signer.token(&claims()));
        assert_eq!(
            (answer.status, &*answer.code()),
            (503, "auth_unavailable"),
            "{junk}"
        );
        assert!(
            answer
                .header("retry-after")
                .unwrap()
                .parse::<u32>()
                .unwrap()
                > 0
        );
        assert_eq!(answer.header("www-authenticate"), None);
        // What cannot be a token of anybody's is still the client's fault.
        assert_eq!(gate.get("/", "rubbish").status, 401);
        assert_eq!(gate.upstream.count(), 0);
    }
    server.reply(key_set(&[signer.jwk()]));
    Gate::new(&jwt_provider("main", &server), PLAIN).passes(&signer.token(&claims()), "a good set");
}
