//! Cross-origin requests through the whole line (contract, section 3.6; Fetch standard).

use crate::support::{Answer, House, Identity, NOW, Reply, Upstream, app, problem};
use tollhouse::base::clock::Clock;

const APP: &str = "https://app.test";
const TRUSTED: &str = "https://trusted.test";
const EVIL: &str = "https://evil.test";

struct Stage {
    house: House,
    upstream: Upstream,
    identity: Identity,
}

fn stage() -> Stage {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}trusted_origins = [\"{TRUSTED}\"]\n{}\
             [cors]\nallow_origins = [\"{APP}\"]\n\
             [rate_limits.tight]\nrate = \"1/min\"\nby = \"ip\"\n\
             [[routes]]\npath = \"/*\"\n\
             [[routes]]\npath = \"/public/*\"\nauth = \"public\"\n\
             [[routes]]\npath = \"/methods\"\nmethods = [\"GET\", \"DELETE\"]\n\
             [[routes]]\npath = \"/methods\"\nmethods = [\"PUT\"]\ncors = false\n\
             [[routes]]\npath = \"/own/*\"\nauth = \"public\"\ncors = {{ allow_origins = [\"*\"], allow_methods = [\"GET\"], allow_headers = [\"x-a\"], expose_headers = [], max_age = \"5s\" }}\n\
             [[routes]]\npath = \"/with/*\"\ncors = {{ allow_origins = [\"{APP}\"], allow_credentials = true }}\n\
             [[routes]]\npath = \"/off/*\"\nauth = \"public\"\ncors = false\n\
             [[routes]]\npath = \"/admin/*\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/limited\"\nauth = \"public\"\nrate_limits = [\"tight\"]\n\
             [[routes]]\npath = \"/down\"\nauth = \"public\"\nupstream = \"http://127.0.0.1:1\"\n",
            identity.tables(),
            app(&upstream),
        ),
        clock,
    );
    Stage {
        house,
        upstream,
        identity,
    }
}

impl Stage {
    fn preflight(&self, path: &str, origin: &str, method: &str) -> Answer {
        self.house.request(
            "OPTIONS",
            path,
            &[
                ("origin", origin),
                ("access-control-request-method", method),
                ("access-control-request-headers", "authorization"),
            ],
            "",
        )
    }
}

/// `Access-Control-*` of an answer, sorted.
fn fields(answer: &Answer) -> Vec<String> {
    let mut fields: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| name.to_lowercase().starts_with("access-control-"))
        .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
        .collect();
    fields.sort();
    fields
}

fn varies(answer: &Answer) -> bool {
    answer
        .all("vary")
        .iter()
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

#[test]
fn a_preflight_is_answered_here_without_credentials_and_never_forwarded() {
    let stage = stage();
    let all = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    for (path, origin, method, expected) in [
        ("/x", APP, "POST", Some((APP, all, false, "600"))),
        ("/x", TRUSTED, "POST", Some((TRUSTED, all, true, "600"))),
        ("/admin/x", APP, "DELETE", Some((APP, all, false, "600"))),
        ("/with/x", APP, "POST", Some((APP, all, true, "600"))),
        (
            "/methods",
            APP,
            "DELETE",
            Some((APP, "GET, DELETE", false, "600")),
        ),
        ("/own/x", EVIL, "GET", Some(("*", "GET", false, "5"))),
        ("/own/x", "null", "GET", None),
        ("/x", EVIL, "POST", None),
        ("/x", "null", "POST", None),
        ("/x", "https://APP.test", "POST", None),
        ("/x", "https://app.test.evil.test", "POST", None),
        ("/x", "https://evilapp.test", "POST", None),
        ("/x", "http://app.test", "POST", None),
        ("/x", "https://app.test:444", "POST", None),
    ] {
        let answer = stage.preflight(path, origin, method);
        assert_eq!(answer.status, 204, "{path} {origin} {method}");
        assert!(varies(&answer), "{path} {origin}");
        let found = answer.header("access-control-allow-origin").map(|allowed| {
            (
                allowed,
                answer
                    .header("access-control-allow-methods")
                    .unwrap_or("none"),
                answer.header("access-control-allow-credentials") == Some("true"),
                answer.header("access-control-max-age").unwrap_or("none"),
            )
        });
        assert_eq!(found, expected, "{path} {origin} {method}");
        match expected {
            None => assert_eq!(fields(&answer), [""; 0], "{path} {origin}"),
            Some(_) if path == "/own/x" => {
                assert_eq!(answer.header("access-control-allow-headers"), Some("x-a"));
            }
            Some(_) => assert_eq!(
                answer.header("access-control-allow-headers"),
                Some("authorization, content-type, x-api-key, x-request-id")
            ),
        }
    }
    assert_eq!(stage.upstream.count(), 0);
}

#[test]
fn a_preflight_is_routed_by_the_method_it_asks_for() {
    let stage = stage();
    // The route for PUT has no CORS, so this is an `OPTIONS` like any other, and no route takes that.
    assert_eq!(
        stage.preflight("/methods", APP, "PUT").code(),
        "method_not_allowed"
    );
    let answer = stage.preflight("/methods", APP, "PATCH");
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (405, "method_not_allowed")
    );
    assert_eq!(answer.header("allow"), Some("DELETE, GET, HEAD, PUT"));
    // `OPTIONS` without the question is no preflight.
    assert_eq!(
        stage
            .house
            .request("OPTIONS", "/x", &[("origin", APP)], "")
            .code(),
        "missing_credentials"
    );
    assert_eq!(stage.preflight("/off/x", APP, "GET").status, 200);
    assert_eq!(stage.upstream.only().line, "OPTIONS /off/x HTTP/1.1");
}

#[test]
fn the_fields_are_ours_alone_and_on_every_answer() {
    let stage = stage();
    stage.upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://evil.test\r\nAccess-Control-Allow-Origin: *\r\n\
         Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: x-secret\r\nAccess-Control-Allow-Private-Network: true\r\n\
         Vary: Accept\r\nContent-Length: 2\r\n\r\nok",
    ));
    let allowed = [
        format!("access-control-allow-origin: {APP}"),
        "access-control-expose-headers: x-request-id".to_owned(),
    ];
    let ask = |path: &str, origin: &str| match origin {
        "" => stage.house.get(path, &[]),
        origin => stage.house.get(path, &[("origin", origin)]),
    };
    let answer = ask("/public/x", APP);
    assert_eq!(fields(&answer), allowed);
    assert!(varies(&answer) && answer.all("vary").join(",").contains("Accept"));
    for origin in ["", EVIL, "null"] {
        let answer = ask("/public/x", origin);
        assert_eq!(
            (answer.status, fields(&answer)),
            (200, Vec::new()),
            "{origin}"
        );
        assert!(varies(&answer), "{origin}");
    }
    assert_eq!(
        fields(&ask("/public/x", TRUSTED)),
        [
            "access-control-allow-credentials: true".to_owned(),
            format!("access-control-allow-origin: {TRUSTED}"),
            "access-control-expose-headers: x-request-id".to_owned(),
        ]
    );
    assert_eq!(
        fields(&ask("/own/x", EVIL)),
        ["access-control-allow-origin: *"]
    );
    // Without a rule the upstream's own fields are its own business.
    assert_eq!(fields(&ask("/off/x", APP)).len(), 5);
    let twice = stage
        .house
        .get("/public/x", &[("origin", APP), ("origin", APP)]);
    assert_eq!(fields(&twice), [""; 0]);
}

#[test]
fn refusals_on_a_known_route_can_be_read_by_the_page() {
    let stage = stage();
    let ada = format!("Bearer {}", stage.identity.token("ada@example.com"));
    let expected = [
        format!("access-control-allow-origin: {APP}"),
        "access-control-expose-headers: x-request-id".to_owned(),
    ];
    stage.house.get("/limited", &[]);
    for (path, authorization, code) in [
        ("/x", "", "missing_credentials"),
        ("/x", "Bearer nonsense", "invalid_token"),
        ("/admin/x", &*ada, "forbidden"),
        ("/limited", "", "rate_limited"),
        ("/down", "", "upstream_unreachable"),
        ("/x%2fy", "", "bad_request"),
    ] {
        let mut headers = vec![("origin", APP)];
        if !authorization.is_empty() {
            headers.push(("authorization", authorization));
        }
        let answer = stage.house.get(path, &headers);
        assert_eq!(problem(&answer), code);
        assert_eq!(fields(&answer), expected, "{code}");
        assert!(varies(&answer), "{code}");
        headers[0] = ("origin", EVIL);
        let answer = stage.house.get(path, &headers);
        assert_eq!(
            (answer.code(), fields(&answer)),
            (code.to_owned(), Vec::new())
        );
        assert!(varies(&answer), "{code}");
    }
    // Before a route is known there is nothing to say.
    let unknown = stage.house.get("/x/../y", &[("origin", APP)]);
    assert_eq!(fields(&unknown), [""; 0]);
}
