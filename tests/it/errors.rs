//! Every refusal provoked through the whole gateway (contract, section 4): its status, its problem, its headers, what it
//! gives away; and which refusal comes first when several would do (section 3).

use crate::support::{
    Answer, Client, House, Identity, NOW, Reply, Upstream, app, eventually, problem, send,
};
use http::StatusCode;
use std::time::Duration;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::Fault;

struct Stage {
    house: House,
    upstream: Upstream,
    identity: Identity,
    clock: Clock,
}

/// Routes on which something of everything goes wrong.
fn stage() -> Stage {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    stage_with(identity, clock)
}

fn stage_with(identity: Identity, clock: Clock) -> Stage {
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "[server]\nhosts = [\"app.test\"]\nmax_body = \"10B\"\nbody_idle_timeout = \"50ms\"\n\
             trusted_proxies = [\"private\"]\n\
             {}{}[upstreams.slow]\nurl = \"{2}\"\ntimeout = \"50ms\"\n\
             [upstreams.gone]\nurl = \"http://127.0.0.1:1\"\n\
             [upstreams.full]\nurl = \"{2}\"\nmax_in_flight = 1\n\
             [rate_limits.tight]\nrate = \"1/min\"\nby = \"ip\"\n\
             [rate_limits.own]\nrate = \"1/min\"\nby = \"user\"\n\
             [cors]\nallow_origins = [\"https://page.test\"]\n\
             [[routes]]\npath = \"/x/*\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/public/*\"\nauth = \"public\"\nupstream = \"app\"\n\
             [[routes]]\npath = \"/admin/*\"\nupstream = \"app\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/inner/*\"\nauth = \"public\"\nupstream = \"app\"\nclient_ips = [\"192.0.2.0/24\"]\n\
             [[routes]]\npath = \"/methods\"\nauth = \"public\"\nupstream = \"app\"\nmethods = [\"GET\"]\n\
             [[routes]]\npath = \"/methods\"\nauth = \"public\"\nupstream = \"app\"\nmethods = [\"PATCH\"]\n\
             [[routes]]\npath = \"/tight/*\"\nupstream = \"app\"\nrate_limits = [\"tight\"]\n\
             [[routes]]\npath = \"/own/*\"\nupstream = \"app\"\nrate_limits = [\"own\"]\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/gone/*\"\nauth = \"public\"\nupstream = \"gone\"\n\
             [[routes]]\npath = \"/gone-admin/*\"\nupstream = \"gone\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/slow/*\"\nauth = \"public\"\nupstream = \"slow\"\n\
             [[routes]]\npath = \"/full/*\"\nauth = \"public\"\nupstream = \"full\"\n\
             [[routes]]\npath = \"/login\"\nauth = \"public\"\nupstream = \"app\"\n[[routes]]\npath = \"/members/*\"\nupstream = \"app\"\non_unauthenticated = \"login\"\n",
            identity.tables(),
            app(&upstream),
            upstream.url(),
        ),
        clock.clone(),
    );
    Stage {
        house,
        upstream,
        identity,
        clock,
    }
}

impl Stage {
    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = headers.to_vec();
        if !headers.iter().any(|(name, _)| *name == "host") {
            all.push(("host", "app.test"));
        }
        self.house.request(method, path, &all, body)
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "")
    }

    fn bearer(&self, email: &str) -> String {
        format!("Bearer {}", self.identity.token(email))
    }

    /// A token of the right shape, issuer and user whose signature is another's.
    fn forged(&self, email: &str) -> String {
        let (mine, other) = (
            self.identity.token(email),
            self.identity.token("grace@example.com"),
        );
        let head = mine.rsplit_once('.').unwrap().0;
        let signature = other.rsplit_once('.').unwrap().1;
        format!("Bearer {head}.{signature}")
    }

    fn raw(&self, text: &str) -> Answer {
        send(self.house.address, text.as_bytes(), false)
    }
}

/// A whole problem: this code and status, these rules for headers, and nothing given away.
fn check(stage: &Stage, answer: &Answer, status: u16, code: &str, forwarded: bool) {
    assert_eq!(
        (answer.status, &*problem(answer)),
        (status, code),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["forwarded"], forwarded, "{code}");
    let challenge = match code {
        "missing_credentials" => Some("Bearer realm=\"tollhouse\""),
        "invalid_token" | "token_expired" => {
            Some("Bearer realm=\"tollhouse\", error=\"invalid_token\"")
        }
        _ => None,
    };
    assert_eq!(answer.header("www-authenticate"), challenge, "{code}");
    let wait = answer
        .header("retry-after")
        .map(|s| s.parse::<u32>().unwrap());
    assert_eq!(wait.is_some(), matches!(status, 429 | 503), "{code}");
    assert!(wait.is_none_or(|seconds| seconds >= 1), "{code}");
    assert_eq!(answer.header("allow").is_some(), status == 405, "{code}");
    assert_eq!(
        answer.header("content-security-policy"),
        Some("default-src 'none'; frame-ancestors 'none'")
    );
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("server"), None);
    let text = format!("{:?}{}", answer.headers, answer.text()).to_lowercase();
    let port = stage.upstream.address.port().to_string();
    let shown = text.replace(answer.header("x-request-id").unwrap(), "");
    for secret in [
        &*port,
        "127.0.0.1",
        "admin",
        "probe",
        "signature",
        "kid",
        "app.test",
    ] {
        assert!(!shown.contains(secret), "{code} tells `{secret}`: {shown}");
    }
}

fn auth(value: &str) -> (&str, &str) {
    ("authorization", value)
}

/// The one record of the answer names its code.
fn logged(stage: &Stage, answer: &Answer, code: &str) {
    let id = answer.header("x-request-id").unwrap().to_owned();
    let find = || {
        stage
            .house
            .log
            .records()
            .into_iter()
            .filter(|r| r["request_id"] == *id)
            .collect::<Vec<_>>()
    };
    eventually(|| !find().is_empty());
    let records = find();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["code"], code);
    if answer.header("grpc-status").is_none() {
        assert_eq!(records[0]["status"], answer.status);
    }
}

#[test]
fn every_refusal_of_the_client_is_what_the_contract_says() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let forged = stage.forged("ada@example.com");
    let cookie = stage.identity.cookie("ada@example.com");
    let long = format!("/x/probe{}", "a".repeat(9000));
    let large = "a".repeat(90 * 1024);
    for (answer, status, code) in [
        (stage.get("/public/../probe", &[]), 400, "bad_request"),
        (
            stage.get("/x/probe", &[auth("Bearer a, Bearer b")]),
            400,
            "bad_request",
        ),
        (stage.get("/x/probe", &[]), 401, "missing_credentials"),
        (
            stage.get("/x/probe", &[auth("Basic eDp5")]),
            401,
            "missing_credentials",
        ),
        (
            stage.get("/x/probe", &[("cookie", "sb-127-auth-token=base64-probe")]),
            401,
            "missing_credentials",
        ),
        (
            stage.get("/x/probe", &[auth("Bearer probe")]),
            401,
            "invalid_token",
        ),
        (
            stage.get("/x/probe", &[auth("Bearer")]),
            401,
            "invalid_token",
        ),
        (
            stage.get("/x/probe", &[auth(&forged)]),
            401,
            "invalid_token",
        ),
        (
            stage.get("/x/probe", &[auth(&forged), ("cookie", &cookie)]),
            401,
            "invalid_token",
        ),
        (stage.get("/admin/probe", &[auth(&ada)]), 403, "forbidden"),
        (stage.get("/inner/probe", &[]), 403, "forbidden"),
        (
            stage.send(
                "POST",
                "/x/probe",
                &[("cookie", &cookie), ("origin", "https://probe.test")],
                "",
            ),
            403,
            "csrf_rejected",
        ),
        (stage.get("/probe", &[]), 404, "no_route"),
        (
            stage.send("DELETE", "/methods", &[], ""),
            405,
            "method_not_allowed",
        ),
        (
            stage.send("TRACE", "/public/probe", &[], ""),
            405,
            "method_not_allowed",
        ),
        (
            stage.send("POST", "/public/probe", &[], "elevenbytes"),
            413,
            "payload_too_large",
        ),
        (stage.get(&long, &[]), 414, "uri_too_long"),
        (
            stage.get("/public/x", &[("expect", "probe")]),
            417,
            "expectation_failed",
        ),
        (
            stage.get("/public/x", &[("host", "probe.test")]),
            421,
            "misdirected",
        ),
        (
            stage.get("/public/x", &[("x-probe", &large)]),
            431,
            "headers_too_large",
        ),
    ] {
        check(&stage, &answer, status, code, false);
        logged(&stage, &answer, code);
    }
    assert_eq!(
        stage.send("DELETE", "/methods", &[], "").header("allow"),
        Some("GET, HEAD, PATCH")
    );
    assert_eq!(stage.upstream.count(), 0);
    assert_eq!(stage.upstream.connections(), 0);
}

#[test]
fn a_token_that_is_over_is_told_apart() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let cookie = stage.identity.cookie("ada@example.com");
    stage.clock.advance(Duration::from_secs(3600 + 31));
    for header in [("authorization", &*ada), ("cookie", &*cookie)] {
        check(
            &stage,
            &stage.get("/x/probe", &[header]),
            401,
            "token_expired",
            false,
        );
    }
    assert_eq!(stage.upstream.count(), 0);
}

#[test]
fn too_many_requests_say_when_to_come_back() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let get = || stage.get("/tight/probe", &[("authorization", &ada)]);
    assert_eq!(get().status, 200);
    let refused = get();
    check(&stage, &refused, 429, "rate_limited", false);
    assert_eq!(refused.header("retry-after"), Some("60"));
    logged(&stage, &refused, "rate_limited");
    stage.clock.advance(Duration::from_secs(60));
    assert_eq!(get().status, 200);
    assert_eq!(stage.upstream.count(), 2);
}

#[test]
fn a_body_that_grows_too_large_or_stalls_ends_there() {
    let stage = stage();
    let head =
        |framing: &str| format!("POST /public/x HTTP/1.1\r\nHost: app.test\r\n{framing}\r\n");
    let chunked = head("Transfer-Encoding: chunked\r\n");
    let answer = stage.raw(&format!("{chunked}6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n"));
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (413, "payload_too_large")
    );
    let fits = stage.raw(&format!("{chunked}6\r\nabcdef\r\n4\r\nabcd\r\n0\r\n\r\n"));
    assert_eq!(fits.status, 200);
    assert_eq!(stage.upstream.only().body, b"abcdefabcd");

    let stalled = stage.raw(&format!("{}hi", head("Content-Length: 5\r\n")));
    check(&stage, &stalled, 408, "request_timeout", true);
    logged(&stage, &stalled, "request_timeout");
    let stalled = stage.raw(&format!("{chunked}2\r\nhi\r\n"));
    assert_eq!(problem(&stalled), "request_timeout");

    let broken = stage.raw(&format!("{chunked}zz\r\n"));
    assert_eq!((broken.status, &*problem(&broken)), (400, "bad_request"));
    assert_eq!(
        stage.upstream.count(),
        1,
        "what was cut short is never whole upstream"
    );
}

#[test]
fn every_trouble_of_the_upstream_is_told_without_naming_it() {
    let stage = stage();
    check(
        &stage,
        &stage.get("/gone/probe", &[]),
        502,
        "upstream_unreachable",
        false,
    );

    stage.upstream.reply(Reply::Close);
    check(
        &stage,
        &stage.get("/public/probe", &[]),
        502,
        "upstream_protocol_error",
        true,
    );
    stage.upstream.reply(Reply::bytes_and_close(
        "probe 127.0.0.1 is not HTTP\r\n\r\n",
    ));
    let broken = stage.get("/public/probe", &[]);
    check(&stage, &broken, 502, "upstream_protocol_error", true);
    logged(&stage, &broken, "upstream_protocol_error");

    stage.upstream.reply(Reply::Silence);
    let late = stage.get("/slow/probe", &[]);
    check(&stage, &late, 504, "upstream_timeout", true);
    logged(&stage, &late, "upstream_timeout");

    let before = stage.upstream.count();
    let mut waiting = Client::connect(stage.house.address);
    waiting.write(b"GET /full/x HTTP/1.1\r\nHost: app.test\r\n\r\n");
    eventually(|| stage.upstream.count() == before + 1);
    check(
        &stage,
        &stage.get("/full/probe", &[]),
        503,
        "upstream_unavailable",
        false,
    );
    assert_eq!(stage.upstream.count(), before + 1);
    // Whoever leaves makes room.
    drop(waiting);
    stage.upstream.reply(Reply::Ok);
    eventually(|| stage.get("/full/x", &[]).status == 200);
}

#[test]
fn keys_out_of_reach_are_503_and_public_routes_go_on() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    identity
        .provider
        .fail_next("jwks", &Fault::Status(StatusCode::BAD_GATEWAY), 200);
    let stage = stage_with(identity, clock);
    let ada = stage.bearer("ada@example.com");
    let cookie = stage.identity.cookie("ada@example.com");
    for header in [("authorization", &*ada), ("cookie", &*cookie)] {
        let answer = stage.get("/x/probe", &[header]);
        check(&stage, &answer, 503, "auth_unavailable", false);
        logged(&stage, &answer, "auth_unavailable");
    }
    check(
        &stage,
        &stage.get("/x/probe", &[]),
        401,
        "missing_credentials",
        false,
    );
    assert_eq!(
        stage.get("/public/x", &[("authorization", &ada)]).status,
        200
    );
    assert_eq!(stage.upstream.count(), 1);
}

#[test]
fn a_browser_that_navigates_gets_a_page() {
    let stage = stage();
    let navigates = [
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let old = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for (method, path, headers, status) in [
        ("GET", "/x/\"probe'", &navigates[..], 401),
        ("GET", "/x/probe?'script", &old[..], 401),
        ("GET", "/probe", &navigates[..], 404),
        ("POST", "/probe", &navigates[..], 404),
        ("GET", "/gone/probe", &navigates[..], 502),
        ("GET", "/public/../probe", &navigates[..], 400),
        (
            "GET",
            "/public/x",
            &[navigates[0], navigates[1], ("host", "probe.test")][..],
            421,
        ),
    ] {
        let answer = stage.send(method, path, headers, "");
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(
            answer.header("content-type"),
            Some("text/html; charset=utf-8"),
            "{path}"
        );
        let text = answer.text();
        assert!(text.starts_with("<!doctype html>"), "{text}");
        assert!(
            text.contains(answer.header("x-request-id").unwrap()),
            "{text}"
        );
        for input in ["probe", "script", "127.0.0.1"] {
            assert!(!text.contains(input), "{text}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(
            answer.header("content-security-policy"),
            Some("default-src 'none'; frame-ancestors 'none'")
        );
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
    }
    // What a script of the page fetches gets a problem, whatever it accepts.
    for headers in [
        &[("sec-fetch-mode", "cors"), ("accept", "text/html")][..],
        &[("sec-fetch-mode", "same-origin"), ("accept", "text/html")],
        &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")],
        &[("accept", "application/json, text/html")],
    ] {
        assert_eq!(
            problem(&stage.get("/x/probe", headers)),
            "missing_credentials",
            "{headers:?}"
        );
    }
}

#[test]
fn a_navigation_without_a_session_is_sent_to_the_login_and_nothing_else_is() {
    let stage = stage();
    let navigates = [
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
    ];
    let answer = stage.get("/members/a%20b?c=d&e", &navigates);
    assert_eq!(answer.status, 303);
    assert_eq!(
        answer.header("location"),
        Some("/login?return_to=%2Fmembers%2Fa%2520b%3Fc%3Dd%26e")
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    // Nobody can make it lead elsewhere.
    for target in ["/members//evil.test/", "http://app.test/members/x"] {
        let location = stage
            .get(target, &navigates)
            .header("location")
            .unwrap()
            .to_owned();
        assert!(
            location.starts_with("/login?return_to=%2Fmembers%2F"),
            "{location}"
        );
    }
    check(
        &stage,
        &stage.get("/members/x", &[]),
        401,
        "missing_credentials",
        false,
    );
    assert_eq!(stage.send("POST", "/members/x", &navigates, "").status, 401);
    assert_eq!(stage.get("/x/y", &navigates).status, 401);
    assert_eq!(stage.upstream.count(), 0);
}

#[test]
fn grpc_clients_get_a_status_of_their_own() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    stage.get("/tight/x", &[auth(&ada)]);
    let before = stage.upstream.count();
    for (path, headers, status, code) in [
        (
            "/x/S/M",
            &[("content-type", "application/grpc")][..],
            "16",
            "missing_credentials",
        ),
        (
            "/x/S/M",
            &[
                ("content-type", "application/grpc+proto"),
                auth("Bearer probe"),
            ],
            "16",
            "invalid_token",
        ),
        (
            "/admin/S/M",
            &[("content-type", "application/grpc"), auth(&ada)],
            "7",
            "forbidden",
        ),
        (
            "/tight/S/M",
            &[("content-type", "application/grpc"), auth(&ada)],
            "8",
            "rate_limited",
        ),
        (
            "/gone/S/M",
            &[("content-type", "application/grpc")],
            "14",
            "upstream_unreachable",
        ),
        (
            "/probe/S/M",
            &[("content-type", "application/grpc")],
            "12",
            "no_route",
        ),
    ] {
        let answer = stage.send("POST", path, headers, "");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(answer.header("grpc-status"), Some(status), "{path}");
        assert_eq!(answer.header("grpc-message"), Some(code), "{path}");
        assert!(answer.body.is_empty());
        logged(&stage, &answer, code);
    }
    assert_eq!(stage.upstream.count(), before);
}

#[test]
fn an_answer_to_head_has_the_head_alone() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let auth = ("authorization", &*ada);
    for (path, headers, status) in [
        ("/x/probe", &[][..], 401),
        ("/admin/probe", &[auth], 403),
        ("/probe", &[], 404),
        ("/public/../x", &[], 400),
        ("/gone/probe", &[], 502),
        ("/x/probe", &[("sec-fetch-mode", "navigate")], 401),
    ] {
        // A second request on the same connection would read a body as its answer.
        let mut client = Client::connect(stage.house.address);
        let fields: String = headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        client.write(format!("HEAD {path} HTTP/1.1\r\nHost: app.test\r\n{fields}\r\n").as_bytes());
        client.write(b"GET /public/after HTTP/1.1\r\nHost: app.test\r\n\r\n");
        let head = client.try_read(true).unwrap();
        assert_eq!(head.status, status, "{path}");
        let get = stage.get(path, headers);
        assert_eq!(head.header("content-type"), get.header("content-type"));
        assert_eq!(
            head.header("content-length"),
            get.header("content-length"),
            "{path}"
        );
        assert_ne!(head.header("content-length"), Some("0"));
        if status == 400 {
            assert!(client.is_closed());
        } else {
            assert_eq!(client.read().text(), "ok", "{path}");
        }
    }
}

// The order of the line: for each pair of neighbours, a request that both would refuse.

const EXPECT: (&str, &str) = ("expect", "probe");

#[test]
fn syntax_before_everything() {
    let stage = stage();
    for (path, headers) in [
        ("/public/../x", &[EXPECT][..]),
        ("/probe", &[EXPECT]),
        ("/x/probe", &[EXPECT]),
        ("/x/probe", &[EXPECT, ("host", "probe.test")]),
        ("/tight/x", &[EXPECT]),
        ("/tight/x", &[EXPECT]),
    ] {
        assert_eq!(
            stage.get(path, headers).code(),
            "expectation_failed",
            "{path}"
        );
    }
    // And what it refuses spends no budget.
    assert_eq!(stage.get("/tight/x", &[]).code(), "missing_credentials");
}

#[test]
fn the_id_and_the_client_are_known_to_every_refusal() {
    let stage = stage();
    let known = [("x-request-id", "id-7"), ("x-forwarded-for", "192.0.2.7")];
    for (path, more, code) in [
        ("/x/y", &[EXPECT][..], "expectation_failed"),
        ("/public/../x", &[], "bad_request"),
        ("/probe", &[], "no_route"),
    ] {
        let before = stage.house.log.records().len();
        let answer = stage.get(path, &[&known[..], more].concat());
        assert_eq!(answer.code(), code);
        assert_eq!(answer.header("x-request-id"), Some("id-7"), "{code}");
        let record = stage.house.log.wait_for(before + 1)[before].clone();
        assert_eq!(
            (&record["request_id"], &record["client_ip"]),
            (&"id-7".into(), &"192.0.2.7".into())
        );
    }
}

#[test]
fn the_path_before_the_route() {
    let stage = stage();
    for path in ["/probe/../y", "/probe%2fy", "/probe;y", "/probe%5cy"] {
        assert_eq!(stage.get(path, &[]).code(), "bad_request", "{path}");
    }
    assert_eq!(
        stage.send("DELETE", "/methods/../methods", &[], "").code(),
        "bad_request"
    );
}

#[test]
fn the_route_before_cors_and_cors_before_limits() {
    let stage = stage();
    let preflight = |path: &str, method: &str| {
        let ask = [
            ("origin", "https://page.test"),
            ("access-control-request-method", method),
        ];
        stage.send("OPTIONS", path, &ask, "")
    };
    assert_eq!(preflight("/probe", "GET").code(), "no_route");
    assert_eq!(preflight("/methods", "DELETE").code(), "method_not_allowed");
    // A preflight neither spends the budget nor meets it, and asks for no credential.
    for _ in 0..3 {
        assert_eq!(preflight("/tight/x", "GET").status, 204);
    }
    assert_eq!(stage.get("/tight/x", &[]).code(), "missing_credentials");
    assert_eq!(stage.get("/tight/x", &[]).code(), "rate_limited");
    assert_eq!(preflight("/tight/x", "GET").status, 204);
}

#[test]
fn limits_by_address_before_the_credential() {
    let stage = stage();
    let empty = [("authorization", "Bearer")];
    assert_eq!(stage.get("/tight/x", &empty).code(), "invalid_token");
    assert_eq!(stage.get("/tight/x", &empty).code(), "rate_limited");
    assert_eq!(
        stage
            .get(
                "/tight/x",
                &[("authorization", &stage.forged("ada@example.com"))]
            )
            .code(),
        "rate_limited"
    );
    // Nothing was asked of keys or cryptography.
    assert!(!stage.house.metrics().contains("tollhouse_auth_total{"));
}

#[test]
fn the_choice_of_the_credential_before_csrf() {
    let stage = stage();
    let cookie = stage.identity.cookie("ada@example.com");
    let evil = [
        ("cookie", &*cookie),
        ("origin", "https://probe.test"),
        ("authorization", "Bearer"),
    ];
    assert_eq!(
        stage.send("POST", "/x/y", &evil, "").code(),
        "invalid_token"
    );
    assert_eq!(
        stage.send("POST", "/x/y", &evil[..2], "").code(),
        "csrf_rejected"
    );
}

#[test]
fn csrf_before_verification() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    identity
        .provider
        .fail_next("jwks", &Fault::Status(StatusCode::BAD_GATEWAY), 200);
    let stage = stage_with(identity, clock);
    let cookie = stage.identity.cookie("ada@example.com");
    let evil = ("origin", "https://probe.test");
    let send = |headers: &[(&str, &str)]| stage.send("POST", "/x/y", headers, "").code();
    assert_eq!(
        send(&[("cookie", &cookie), ("origin", "http://app.test")]),
        "auth_unavailable"
    );
    assert_eq!(send(&[("cookie", &cookie), evil]), "csrf_rejected");
    stage.clock.advance(Duration::from_secs(7200));
    assert_eq!(send(&[("cookie", &cookie), evil]), "csrf_rejected");
    assert_eq!(
        send(&[("cookie", "sb-127-auth-token=junk"), evil]),
        "csrf_rejected"
    );
}

#[test]
fn verification_before_limits_by_user_and_those_before_authorization() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let forged = stage.forged("ada@example.com");
    let get = |token: &str| stage.get("/own/x", &[("authorization", token)]).code();
    // A forged token spends nobody's budget.
    assert_eq!(get(&forged), "invalid_token");
    assert_eq!(get(&forged), "invalid_token");
    assert_eq!(get(&ada), "forbidden");
    // Refused, and counted: the next meets the limit first.
    assert_eq!(get(&ada), "rate_limited");
    assert_eq!(get(&forged), "invalid_token");
    assert_eq!(stage.upstream.count(), 0);
}

#[test]
fn authorization_before_anything_is_sent_or_read() {
    let stage = stage();
    let ada = stage.bearer("ada@example.com");
    let grace = stage.bearer("grace@example.com");
    assert_eq!(
        stage.get("/gone-admin/x", &[auth(&ada)]).code(),
        "forbidden"
    );
    assert_eq!(
        stage.get("/gone-admin/x", &[auth(&grace)]).code(),
        "upstream_unreachable"
    );
    assert_eq!(
        stage
            .send("POST", "/admin/x", &[auth(&ada)], "elevenbytes")
            .code(),
        "forbidden"
    );
    assert_eq!(
        stage
            .send("POST", "/admin/x", &[auth(&grace)], "elevenbytes")
            .code(),
        "payload_too_large"
    );
    // A body that never comes is not waited for.
    let text = format!(
        "POST /admin/x HTTP/1.1\r\nHost: app.test\r\nAuthorization: {ada}\r\nContent-Length: 5\r\n\r\n"
    );
    assert_eq!(stage.raw(&text).code(), "forbidden");
    assert_eq!(stage.upstream.connections(), 0);
}
