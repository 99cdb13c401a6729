//! Unsafe requests with a cookie come from a page of ours, or not at all (contract, section 3.9).

use crate::support::{Answer, House, Identity, NOW, Upstream, app, problem};
use tollhouse::base::clock::Clock;

const OURS: &str = "https://app.test";
const TRUSTED: &str = "https://trusted.test";
const EVIL: &str = "https://evil.test";

struct Stage {
    house: House,
    upstream: Upstream,
    identity: Identity,
    cookie: String,
}

fn stage(server: &str) -> Stage {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "[server]\n{server}\n{}trusted_origins = [\"{TRUSTED}\"]\n{}[[routes]]\npath = \"/*\"\n\
             [[routes]]\npath = \"/optional/*\"\nauth = \"optional\"\n[[routes]]\npath = \"/public/*\"\nauth = \"public\"\n\
             [[routes]]\npath = \"/bearer/*\"\ncredentials = [\"bearer\"]\n\
             [[routes]]\npath = \"/session/*\"\ncredentials = [\"session\"]\n",
            identity.tables(),
            app(&upstream)
        ),
        clock,
    );
    let cookie = identity.cookie("ada@example.com");
    Stage {
        house,
        upstream,
        identity,
        cookie,
    }
}

impl Stage {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![("cookie", &*self.cookie), ("host", "app.test")];
        all.retain(|(name, _)| !headers.iter().any(|(given, _)| given == name));
        all.extend(headers);
        self.house.request(method, path, &all, "")
    }

    fn check(&self, method: &str, path: &str, headers: &[(&str, &str)], passes: bool) {
        let before = self.upstream.count();
        let answer = self.send(method, path, headers);
        if passes {
            assert_eq!(
                answer.status,
                200,
                "{method} {path} {headers:?} {}",
                answer.text()
            );
            assert_eq!(self.upstream.count(), before + 1);
        } else {
            assert_eq!(
                (answer.status, &*problem(&answer)),
                (403, "csrf_rejected"),
                "{method} {path} {headers:?}"
            );
            assert_eq!(self.upstream.count(), before);
            assert_eq!(answer.json()["forwarded"], false);
        }
    }
}

const PUBLIC_URL: &str = "public_url = \"https://app.test\"\n";

#[test]
fn the_browsers_own_account_decides() {
    let stage = stage(PUBLIC_URL);
    let site = |value| ("sec-fetch-site", value);
    let origin = |value| ("origin", value);
    let referer = |value| ("referer", value);
    for (headers, passes) in [
        (&[origin(OURS)][..], true),
        (&[origin(OURS), site("same-origin")], true),
        (&[origin(TRUSTED)], true),
        (&[origin(TRUSTED), site("cross-site")], true),
        (&[origin(TRUSTED), site("same-site")], true),
        (&[site("same-origin")], true),
        (&[site("none")], true),
        (&[referer("https://app.test/page?x")], true),
        (&[], false),
        (&[origin(EVIL)], false),
        (&[origin(EVIL), site("same-origin")], false),
        (&[origin(EVIL), site("none")], false),
        (&[origin("null")], false),
        (&[origin("null"), site("same-origin")], false),
        (&[origin("http://app.test")], false),
        (&[origin("https://app.test:444")], false),
        (&[origin("https://app.test.evil.test")], false),
        (&[origin("https://sub.app.test")], false),
        (&[site("cross-site")], false),
        (&[site("same-site")], false),
        (&[site("SAME-ORIGIN")], false),
        (&[origin(OURS), site("cross-site")], false),
        (&[origin(OURS), site("same-site")], false),
        (&[origin(OURS), referer("https://evil.test/")], false),
        (&[site("same-origin"), referer("https://evil.test/")], false),
        (&[referer("https://evil.test/?https://app.test/")], false),
        (&[referer("https://app.test.evil.test/")], false),
        (&[referer("https://app.test@evil.test/")], false),
        (&[origin(OURS), origin(OURS)], false),
        (&[origin(OURS), origin(EVIL)], false),
        (&[site("same-origin"), site("cross-site")], false),
    ] {
        for method in ["POST", "DELETE", "PROPFIND"] {
            stage.check(method, "/x", headers, passes);
        }
        stage.check("PUT", "/optional/x", headers, passes);
        // Reading changes nothing.
        for method in ["GET", "OPTIONS"] {
            stage.check(method, "/x", headers, true);
        }
    }
}

#[test]
fn a_handshake_needs_an_origin() {
    let stage = stage(PUBLIC_URL);
    let handshake = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for more in [
        &[][..],
        &[("origin", EVIL)],
        &[("origin", "null")],
        &[("sec-fetch-site", "same-origin")],
        &[("referer", "https://app.test/")],
    ] {
        stage.check("GET", "/x", &[&handshake[..], more].concat(), false);
    }
}

#[test]
fn it_follows_the_credential_that_counts() {
    let stage = stage(PUBLIC_URL);
    let bearer = format!("Bearer {}", stage.identity.token("grace@example.com"));
    let evil = ("origin", EVIL);
    // A browser sends no Bearer by itself.
    stage.check("POST", "/x", &[evil, ("authorization", &bearer)], true);
    assert_eq!(
        stage.upstream.last().header("authorization"),
        Some(&*bearer)
    );
    stage.check(
        "POST",
        "/bearer/x",
        &[evil, ("authorization", &bearer)],
        true,
    );
    // Here it is no credential, so the cookie is the one.
    stage.check(
        "POST",
        "/session/x",
        &[evil, ("authorization", &bearer)],
        false,
    );
    stage.check(
        "POST",
        "/x",
        &[evil, ("authorization", "Basic eDp5")],
        false,
    );
    // One that fails is an answer by itself, and the cookie does not step in.
    let answer = stage.send("POST", "/x", &[evil, ("authorization", "Bearer x.y.z")]);
    assert_eq!(answer.code(), "invalid_token");
    // Where no cookie counts there is nothing to forge.
    stage.check("POST", "/public/x", &[evil], true);
    assert_eq!(
        stage.send("POST", "/bearer/x", &[evil]).code(),
        "missing_credentials"
    );
    stage.check(
        "POST",
        "/optional/x",
        &[evil, ("cookie", "theme=dark")],
        true,
    );
}

#[test]
fn a_method_in_a_header_changes_nothing() {
    let stage = stage(PUBLIC_URL);
    stage.check(
        "GET",
        "/x",
        &[("origin", EVIL), ("x-http-method-override", "DELETE")],
        true,
    );
    let received = stage.upstream.last();
    assert_eq!(received.line, "GET /x HTTP/1.1");
    assert_eq!(received.header("x-http-method-override"), None);
    stage.check(
        "POST",
        "/x",
        &[("origin", EVIL), ("x-http-method-override", "GET")],
        false,
    );
}

#[test]
fn without_a_public_url_the_page_must_be_of_the_host_asked() {
    let stage = stage("");
    for (host, origin, passes) in [
        ("app.test", "http://app.test", true),
        ("app.test:8080", "http://app.test:8080", true),
        ("app.test", "https://app.test", true),
        ("app.test", "https://evil.test", false),
        ("app.test", "http://app.test:8080", false),
        ("app.test:8080", "http://app.test", false),
        ("evil.test", "http://app.test", false),
        ("app.test", "null", false),
        ("app.test", "app.test", false),
    ] {
        stage.check("POST", "/x", &[("host", host), ("origin", origin)], passes);
    }
}

#[test]
fn the_answer_says_what_to_send_and_not_what_came() {
    let stage = stage(PUBLIC_URL);
    let answer = stage.send("POST", "/x", &[("origin", EVIL)]);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("Sec-Fetch-Site") && detail.contains("trusted_origins"),
        "{detail}"
    );
    assert!(!answer.text().contains("evil"), "{}", answer.text());
    assert_eq!(answer.header("www-authenticate"), None);
}
