//! The admin socket: alive, ready, and what it counts.

use crate::support::{Answer, Client, House, Identity, NOW, Upstream, eventually, free_port, send};
use std::net::SocketAddr;
use std::time::Duration;
use tollhouse::base::clock::Clock;

const PUBLIC: &str = "[[routes]]\nname = \"ours\"\npath = \"/ours\"\nauth = \"public\"\nrespond = { status = 200, body = \"ours\" }\n";

fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    send(address, head.as_bytes(), method == "HEAD")
}

/// Status of `/readyz`, its word, its reasons.
fn ready(house: &House) -> (u16, String, Vec<String>) {
    let answer = ask(house.admin, "GET", "/readyz", "localhost");
    let json = answer.json();
    let reasons = json["reasons"].as_array().unwrap().iter();
    (
        answer.status,
        json["status"].as_str().unwrap().to_owned(),
        reasons.map(|r| r.as_str().unwrap().to_owned()).collect(),
    )
}

#[test]
fn it_is_read_only_answers_to_its_own_names_and_leaves_no_records() {
    let house = House::start(PUBLIC);
    for (method, path, host, status) in [
        ("GET", "/livez", "localhost", 200),
        ("HEAD", "/livez", "127.0.0.1:9901", 200),
        ("GET", "/readyz", "[::1]", 200),
        ("GET", "/metrics", "10.0.0.7", 200),
        ("GET", "/ours", "localhost", 404),
        ("GET", "/status", "localhost", 404),
        ("POST", "/readyz", "localhost", 405),
        ("DELETE", "/metrics", "localhost", 405),
        ("GET", "/metrics", "rebind.example", 421),
        ("POST", "/livez", "rebind.example", 421),
    ] {
        let answer = ask(house.admin, method, path, host);
        assert_eq!(answer.status, status, "{method} {path} {host}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        if status == 405 {
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
    }
    let metrics = ask(house.admin, "GET", "/metrics", "localhost");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(house.log.records().is_empty());
    // And the public address knows nothing of it.
    assert_eq!(house.get("/metrics", &[]).code(), "no_route");
}

#[test]
fn the_admin_address_may_be_off_and_probes_have_one_of_their_own() {
    let probes = free_port();
    let house = House::start(&format!(
        "{PUBLIC}[admin]\nlisten = \"off\"\nprobes = \"127.0.0.1:{probes}\"\n"
    ));
    assert_eq!(house.admin.port(), 0);
    assert_eq!(house.get("/ours", &[]).status, 200);
    let probes = SocketAddr::from(([127, 0, 0, 1], probes));
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(probes, "GET", path, "localhost").status, 200, "{path}");
    }
    assert_eq!(ask(probes, "GET", "/config", "localhost").status, 404);
    drop(house);
    assert!(std::net::TcpStream::connect(probes).is_err());
}

#[test]
fn a_provider_without_keys_keeps_it_from_being_ready_for_thirty_seconds() {
    let clock = Clock::frozen(NOW);
    let down = free_port();
    let house = House::start_at(
        &format!(
            "{PUBLIC}[providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:{down}\"\n[session]\nmode = \"shared\"\n\
             [[routes]]\npath = \"/me\"\nrespond = {{ status = 200, body = \"me\" }}\n"
        ),
        clock.clone(),
    );
    let (status, word, reasons) = ready(&house);
    assert_eq!((status, &*word), (503, "starting"));
    assert!(reasons[0].contains("`main`"), "{reasons:?}");
    assert!(!reasons[0].contains("127.0.0.1"), "{reasons:?}");
    // Alive all the while, and public routes are served.
    assert_eq!(ask(house.admin, "GET", "/livez", "localhost").status, 200);
    assert_eq!(house.get("/ours", &[]).status, 200);
    clock.advance(Duration::from_secs(29));
    assert_eq!(ready(&house).0, 503);
    clock.advance(Duration::from_secs(1));
    let (status, word, _) = ready(&house);
    assert_eq!((status, &*word), (200, "degraded"));
    eventually(|| {
        house.metric("tollhouse_jwks_refresh_total{provider=\"main\",outcome=\"unreachable\"}")
            >= 1.0
    });
    assert_eq!(
        house.metric("tollhouse_jwks_refresh_total{provider=\"main\",outcome=\"ok\"}"),
        0.0
    );
}

#[test]
fn with_keys_it_is_ready_at_once() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let house = House::start_at(&format!("{PUBLIC}{}", identity.tables()), clock);
    eventually(|| ready(&house) == (200, "ok".to_owned(), Vec::new()));
    assert_eq!(
        house.metric("tollhouse_jwks_refresh_total{provider=\"main\",outcome=\"ok\"}"),
        1.0
    );
    assert_eq!(
        house.metric("tollhouse_jwks_refresh_total{provider=\"main\",outcome=\"unusable\"}"),
        0.0
    );
}

#[test]
fn what_happened_is_what_is_counted() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "[server]\nworkers = 1\n{}{PUBLIC}[upstreams.app]\nurl = \"{}\"\n[[routes]]\nname = \"api\"\npath = \"/api/*\"\n\
             [[routes]]\nname = \"tight\"\npath = \"/tight\"\nauth = \"public\"\nrate_limits = [\"few\"]\n\
             [rate_limits.few]\nrate = \"2/min\"\nby = \"ip\"\n",
            identity.tables(),
            upstream.url()
        )
        .replacen("workers = 1\n", "", 1),
        clock.clone(),
    );
    let token = format!("Bearer {}", identity.token("ada@example.com"));
    let cookie = identity.cookie("grace@example.com");

    // A bearer twice on one connection, then on another; a session once.
    let mut client = Client::connect(house.address);
    for _ in 0..2 {
        client.write(
            format!("GET /api/me HTTP/1.1\r\nHost: a\r\nAuthorization: {token}\r\n\r\n").as_bytes(),
        );
        assert_eq!(client.read().status, 200);
    }
    assert_eq!(
        house.get("/api/me", &[("Authorization", &token)]).status,
        200
    );
    assert_eq!(house.get("/api/me", &[("Cookie", &cookie)]).status, 200);
    // Nothing, nonsense, and one that is over.
    assert_eq!(house.get("/api/me", &[]).status, 401);
    // Another signature of the same length.
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let broken = format!("{signed}.{first}{}", &signature[1..]);
    assert_eq!(
        house.get("/api/me", &[("Authorization", &broken)]).code(),
        "invalid_token"
    );
    assert_eq!(house.get("/nowhere", &[]).status, 404);
    assert_eq!(house.request("BREW", "/ours", &[], "").status, 200);
    for status in [200, 200, 429, 429] {
        assert_eq!(house.get("/tight", &[]).status, status);
    }
    clock.advance(Duration::from_secs(3700));
    assert_eq!(
        house.get("/api/me", &[("Authorization", &token)]).code(),
        "token_expired"
    );
    // What is no HTTP at all.
    assert_eq!(
        send(house.address, b"\x16\x03\x01 what\r\n\r\n", false).status,
        400
    );

    eventually(|| house.metric("tollhouse_malformed_requests_total") == 1.0);
    eventually(|| house.log.records().len() == 13);
    let has = |series: &str, value: f64| {
        assert_eq!(
            house.metric(series),
            value,
            "{series} in\n{}",
            house.metrics()
        );
    };
    has(
        "tollhouse_requests_total{route=\"api\",method=\"GET\",status=\"200\"}",
        4.0,
    );
    has(
        "tollhouse_requests_total{route=\"api\",method=\"GET\",status=\"401\"}",
        3.0,
    );
    has(
        "tollhouse_requests_total{route=\"none\",method=\"GET\",status=\"404\"}",
        1.0,
    );
    has(
        "tollhouse_requests_total{route=\"ours\",method=\"other\",status=\"200\"}",
        1.0,
    );
    has(
        "tollhouse_requests_total{route=\"tight\",method=\"GET\",status=\"200\"}",
        2.0,
    );
    has(
        "tollhouse_requests_total{route=\"tight\",method=\"GET\",status=\"429\"}",
        2.0,
    );
    has(
        "tollhouse_request_duration_seconds_count{route=\"api\"}",
        7.0,
    );
    has(
        "tollhouse_upstream_duration_seconds_count{upstream=\"app\"}",
        6.0,
    );
    has(
        "tollhouse_auth_total{provider=\"main\",credential=\"session\",outcome=\"ok\"}",
        1.0,
    );
    // Verified once, known twice.
    has(
        "tollhouse_auth_total{provider=\"main\",credential=\"bearer\",outcome=\"ok\"}",
        3.0,
    );
    has(
        "tollhouse_auth_total{provider=\"main\",credential=\"bearer\",outcome=\"invalid\"}",
        1.0,
    );
    has(
        "tollhouse_auth_total{provider=\"main\",credential=\"bearer\",outcome=\"expired\"}",
        1.0,
    );
    has("tollhouse_token_cache_total{outcome=\"connection\"}", 1.0);
    has("tollhouse_token_cache_total{outcome=\"hit\"}", 1.0);
    has("tollhouse_rate_limited_total{policy=\"few\"}", 2.0);
    has("tollhouse_connections", 1.0);
    has("tollhouse_log_lines_dropped_total", 0.0);
    has(
        &format!(
            "tollhouse_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        ),
        1.0,
    );
    drop(client);
    eventually(|| house.metric("tollhouse_connections") == 0.0);
}

#[test]
fn nothing_of_a_request_becomes_a_label() {
    let house = House::start(PUBLIC);
    for path in ["/secret-path", "/ours?secret-query", "/%73ecret"] {
        house.get(
            path,
            &[
                ("Host", "secret-host.example"),
                ("X-Request-Id", "secret-id"),
            ],
        );
    }
    house.request("SECRET", "/ours", &[], "");
    house.log.wait_for(4);
    let page = house.metrics().to_lowercase();
    assert!(!page.contains("secret"), "{page}");
}
