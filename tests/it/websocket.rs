//! Handshakes and what becomes of them (contract, section 3; RFC 6455): everything is decided before the upstream hears a
//! word, and afterwards bytes pass in both directions until one side ends.

use crate::support::http2::Http2;
use crate::support::websocket::{KEY, accepted, handshake};
use crate::support::{Answer, Client, House, Identity, NOW, Reply, Upstream, app, problem, send};
use tollhouse::base::clock::Clock;

const OURS: &str = "http://app.test";

/// A gateway before an upstream that does as it is told.
struct Scene {
    house: House,
    upstream: Upstream,
    identity: Identity,
    cookie: String,
}

fn scene() -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}trusted_origins = [\"https://trusted.test\"]\n{}[[routes]]\npath = \"/*\"\n\
             [[routes]]\npath = \"/admin\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/public\"\nauth = \"public\"\n\
             [[routes]]\npath = \"/plain\"\nauth = \"public\"\nwebsocket = false\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
            identity.tables(),
            app(&upstream)
        ),
        clock,
    );
    let cookie = identity.cookie("ada@example.com");
    Scene {
        house,
        upstream,
        identity,
        cookie,
    }
}

impl Scene {
    fn shake(&self, path: &str, more: &[(&str, &str)]) -> Answer {
        send(self.house.address, &handshake(path, more), false)
    }

    /// It is refused with this, and the upstream was not asked.
    fn refused(&self, path: &str, more: &[(&str, &str)], status: u16, code: &str) {
        let answer = self.shake(path, more);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (status, code),
            "{path} {more:?}"
        );
        assert_eq!(self.upstream.count(), 0, "{path} {more:?}");
    }

    /// It is put to the upstream.
    fn passes(&self, path: &str, more: &[(&str, &str)]) {
        self.upstream.forget();
        self.upstream.reply(Reply::bytes(
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\n\r\nlate",
        ));
        let answer = self.shake(path, more);
        // What the upstream answers instead of 101 is an answer like others.
        assert_eq!(
            (answer.status, &*answer.text()),
            (426, "late"),
            "{path} {more:?}"
        );
        assert_eq!(self.upstream.count(), 1);
        self.upstream.forget();
    }
}

#[test]
fn a_handshake_goes_on_only_when_everything_is_decided() {
    let scene = scene();
    let bearer = |email: &str| format!("Bearer {}", scene.identity.token(email));
    let (ada, grace) = (bearer("ada@example.com"), bearer("grace@example.com"));
    let broken = format!("{ada}x");
    scene.refused("/x", &[], 401, "missing_credentials");
    scene.refused("/x", &[("Authorization", &broken)], 401, "invalid_token");
    scene.refused("/admin", &[("Authorization", &ada)], 403, "forbidden");
    scene.passes("/x", &[("Authorization", &ada)]);
    scene.passes("/admin", &[("Authorization", &grace)]);
    scene.passes("/public", &[]);
}

#[test]
fn a_handshake_with_a_cookie_comes_from_a_page_of_ours_and_one_with_a_token_from_anywhere() {
    let scene = scene();
    let cookie = ("Cookie", &*scene.cookie);
    let from = |origin| [cookie, ("Origin", origin)];
    scene.refused("/x", &[cookie], 403, "csrf_rejected");
    scene.refused("/x", &from("null"), 403, "csrf_rejected");
    scene.refused("/x", &from("http://evil.test"), 403, "csrf_rejected");
    scene.refused(
        "/x",
        &from("http://app.test.evil.test"),
        403,
        "csrf_rejected",
    );
    scene.refused("/x", &from("http://app.test:81"), 403, "csrf_rejected");
    // A Referer says nothing about a handshake.
    let referer = [cookie, ("Referer", "http://app.test/page")];
    scene.refused("/x", &referer, 403, "csrf_rejected");
    let same_site = [cookie, ("Sec-Fetch-Site", "same-origin")];
    scene.refused("/x", &same_site, 403, "csrf_rejected");
    scene.passes("/x", &from(OURS));
    scene.passes("/x", &from("https://trusted.test"));
    let token = format!("Bearer {}", scene.identity.token("ada@example.com"));
    scene.passes("/x", &[("Authorization", &token)]);
    scene.passes(
        "/x",
        &[("Authorization", &token), ("Origin", "http://evil.test")],
    );
    // Whoever carries both is known by the token.
    scene.passes("/x", &[("Authorization", &token), cookie]);
}

#[test]
fn a_handshake_that_is_none_is_refused_and_not_taken_for_a_plain_request() {
    let scene = scene();
    let all = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let ask = |line: &str, fields: &[(&str, &str)]| {
        let mut text = format!("{line}\r\nHost: app.test\r\nContent-Length: 0\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        send(scene.house.address, format!("{text}\r\n").as_bytes(), false)
    };
    let but = |name: &str, value: &'static str| {
        let mut fields = all.to_vec();
        fields.retain(|(given, _)| *given != name);
        if !value.is_empty() {
            fields.push((
                all.iter().find(|(given, _)| *given == name).unwrap().0,
                value,
            ));
        }
        fields
    };
    for (why, line, fields) in [
        ("another method", "POST /public HTTP/1.1", all.to_vec()),
        (
            "no Connection",
            "GET /public HTTP/1.1",
            but("Connection", ""),
        ),
        (
            "Connection without it",
            "GET /public HTTP/1.1",
            but("Connection", "close"),
        ),
        (
            "no version",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", ""),
        ),
        (
            "an old version",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", "8"),
        ),
        (
            "several versions",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", "13, 8"),
        ),
        (
            "no key",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", ""),
        ),
        (
            "a short key",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", "c2hvcnQ="),
        ),
        (
            "a key that is no base64",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", "***"),
        ),
    ] {
        let answer = ask(line, &fields);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (400, "bad_request"),
            "{why}"
        );
        assert_eq!(scene.upstream.count(), 0, "{why}");
    }
    let twice = [&all[..], &[("Sec-WebSocket-Key", KEY)]].concat();
    assert_eq!(ask("GET /public HTTP/1.1", &twice).status, 400);
    assert_eq!(scene.upstream.count(), 0);
}

#[test]
fn http_1_0_and_http_2_know_no_handshake() {
    let scene = scene();
    let text = String::from_utf8(handshake("/public", &[])).unwrap();
    let answer = send(
        scene.house.address,
        text.replace("HTTP/1.1", "HTTP/1.0").as_bytes(),
        false,
    );
    // An upgrade means nothing there (RFC 9110 §7.8): a plain GET, or refused; in no case is the upstream told of it.
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    for received in scene.upstream.received() {
        assert_eq!(received.header("upgrade"), None);
    }
    let answer = Http2::connect(scene.house.doors[0]).get("/public", &[("sec-websocket-key", KEY)]);
    assert_eq!(answer.status, 200);
}

#[test]
fn where_no_handshakes_pass_one_is_404_and_other_requests_go_on() {
    let scene = scene();
    scene.refused("/plain", &[], 404, "not_supported");
    assert_eq!(scene.house.get("/plain", &[]).text(), "ok");
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    let scene = scene();
    scene.upstream.reply(Reply::Bytes(accepted("").into()));
    let answer = scene.house.get("/public", &[]);
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (502, "upstream_protocol_error")
    );
    let mut client = Client::connect(scene.house.address);
    client.write(
        b"GET /public HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    assert_eq!(client.read().status, 502);
    let all = scene.upstream.received();
    assert!(
        all.iter()
            .all(|received| received.header("upgrade").is_none())
    );
}
