//! A session cookie goes in, a bearer token comes out.

use crate::support::{House, Identity, NOW, Upstream};
use std::time::Duration;
use tollhouse::base::clock::Clock;

fn file(identity: &Identity, upstream: &Upstream) -> String {
    format!(
        "{}\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/health\"\nauth = \"public\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/admin/*\"\nrequire = {{ any_role = [\"admin\"] }}\n",
        identity.tables(),
        upstream.url()
    )
}

#[test]
fn the_cookie_becomes_a_bearer_with_the_user_id() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(&file(&identity, &upstream), clock);
    let session = identity.session("ada@example.com");
    let cookie = crate::support::cookie(&session.to_string());
    let answer = house.get(
        "/me?x=1",
        &[
            ("cookie", &format!("theme=dark; {cookie}; lang=en")),
            ("x-user-id", "root"),
        ],
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = upstream.only();
    assert_eq!(received.line, "GET /me?x=1 HTTP/1.1");
    let token = session["access_token"].as_str().unwrap();
    assert_eq!(
        received.header("authorization"),
        Some(&*format!("Bearer {token}"))
    );
    assert_eq!(received.header("x-user-id"), session["user"]["id"].as_str());
    assert_eq!(received.header("x-user-role"), Some("user"));
    assert_eq!(received.header("cookie"), Some("theme=dark; lang=en"));
    assert_eq!(
        received.header("x-request-id"),
        answer.header("x-request-id")
    );
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    let record = &house.log.wait_for(1)[0];
    assert_eq!(record["credential"], "session");
    assert_eq!(record["user_id"], session["user"]["id"]);
}

#[test]
fn without_a_credential_only_public_routes_answer() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(&file(&identity, &upstream), clock);
    assert_eq!(house.get("/health", &[]).status, 200);
    let refused = house.get("/me", &[]);
    assert_eq!(
        (refused.status, &*refused.code()),
        (401, "missing_credentials")
    );
    assert_eq!(
        refused.header("www-authenticate"),
        Some("Bearer realm=\"tollhouse\"")
    );
    assert_eq!(upstream.count(), 1);
}

#[test]
fn roles_decide_and_an_expired_session_is_over() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(&file(&identity, &upstream), clock.clone());
    let (ada, grace) = (
        identity.cookie("ada@example.com"),
        identity.cookie("grace@example.com"),
    );
    assert_eq!(
        house.get("/admin/users", &[("cookie", &ada)]).code(),
        "forbidden"
    );
    assert_eq!(house.get("/admin/users", &[("cookie", &grace)]).status, 200);
    clock.advance(Duration::from_secs(3601));
    let over = house.get("/admin/users", &[("cookie", &grace)]);
    assert_eq!((over.status, &*over.code()), (401, "token_expired"));
    assert_eq!(
        over.header("www-authenticate"),
        Some("Bearer realm=\"tollhouse\", error=\"invalid_token\"")
    );
    assert_eq!(upstream.count(), 1);
}

#[test]
fn where_websockets_do_not_pass_one_is_refused_and_never_passed_on_as_a_plain_request() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &file(&identity, &upstream).replace("[[routes]]\n", "[[routes]]\nwebsocket = false\n"),
        clock,
    );
    let token = format!("Bearer {}", identity.token("ada@example.com"));
    let handshake = |path: &str| {
        let headers = [
            ("authorization", &*token),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA=="),
        ];
        house.get(path, &headers).code()
    };
    assert_eq!(handshake("/chat"), "not_supported");
    assert_eq!(handshake("/health"), "not_supported");
    assert_eq!(
        handshake("/admin/chat"),
        "forbidden",
        "who may not is told that first"
    );
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_unreadable_session_cookie_is_no_session_and_the_operator_is_told() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(&file(&identity, &upstream), clock);
    let refused = house.get("/me", &[("cookie", "sb-127-auth-token=base64-%%%")]);
    assert_eq!(refused.code(), "missing_credentials");
    let invalid =
        "tollhouse_auth_total{provider=\"main\",credential=\"session\",outcome=\"invalid\"}";
    assert!((house.metric(invalid) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn policy_tests_pass_on_routes_for_some_addresses_and_requests_from_others_do_not() {
    let upstream = Upstream::start();
    // Starting asserts that the file's own tests pass.
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/inside\"\nauth = \"public\"\nclient_ips = [\"10.1.0.0/16\"]\n\
         [[tests]]\nrequest = \"GET /inside\"\nas = \"nobody\"\nupstream = \"app\"\n",
        upstream.url()
    ));
    assert_eq!(house.get("/inside", &[]).code(), "forbidden");
    assert_eq!(upstream.count(), 0);
}
