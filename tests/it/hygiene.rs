//! What is removed and what is added on the way through, in both directions (contract, sections 3.13 and 3.14).

use crate::support::{
    Answer, House, Identity, NOW, Received, Reply, Upstream, app, open_house, send,
};
use tollhouse::base::clock::Clock;

/// A gateway with a provider and routes of every kind.
struct Stage {
    house: House,
    upstream: Upstream,
    identity: Identity,
}

impl Stage {
    fn new(server: &str, routes: &str) -> Self {
        let clock = Clock::frozen(NOW);
        let identity = Identity::start(&clock);
        let upstream = Upstream::start();
        let house = House::start_at(
            &format!(
                "[server]\n{server}\n{}{}[[routes]]\npath = \"/public/*\"\nauth = \"public\"\n\
                 [[routes]]\npath = \"/optional/*\"\nauth = \"optional\"\n[[routes]]\npath = \"/*\"\n{routes}",
                identity.tables(),
                app(&upstream)
            ),
            clock,
        );
        Self {
            house,
            upstream,
            identity,
        }
    }

    /// What the upstream receives; the answer must be a 200.
    fn received(&self, path: &str, headers: &[(&str, &str)]) -> Received {
        let before = self.upstream.count();
        let answer = self.house.get(path, headers);
        assert_eq!(answer.status, 200, "{path} {}", answer.text());
        assert_eq!(self.upstream.count(), before + 1);
        self.upstream.last()
    }

    /// The answer for Ada when the upstream says this in its head.
    fn answer(&self, path: &str, fields: &str) -> Answer {
        self.upstream.reply(Reply::bytes(&format!(
            "HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"
        )));
        let bearer = format!("Bearer {}", self.identity.token("ada@example.com"));
        self.house.get(path, &[("authorization", &bearer)])
    }
}

fn names(received: &Received) -> Vec<String> {
    let mut names: Vec<_> = received
        .headers
        .iter()
        .map(|(n, _)| n.to_lowercase())
        .collect();
    names.sort();
    names
}

/// What every request to an upstream has, for somebody nobody knows.
const OURS: [&str; 6] = [
    "host",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

#[test]
fn hop_by_hop_fields_end_here() {
    let stage = Stage::new("", "");
    let received = stage.received(
        "/public/x",
        &[
            ("connection", "keep-alive, X-Named, te"),
            ("connection", "x-other"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy-authenticate", "Basic"),
            ("te", "gzip"),
            ("trailer", "x-t"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("expect", "100-continue"),
            ("proxy", "http://evil.test"),
            ("x-named", "1"),
            ("x-other", "1"),
            ("x-kept", "1"),
        ],
    );
    let mut expected = OURS.to_vec();
    expected.push("x-kept");
    expected.sort_unstable();
    assert_eq!(names(&received), expected);
    // gRPC needs this one, and it is true.
    let received = stage.received(
        "/public/x",
        &[("te", "trailers, gzip"), ("connection", "te")],
    );
    assert_eq!(received.header("te"), Some("trailers"));
    assert_eq!(received.header("connection"), None);
}

#[test]
fn connection_cannot_take_away_what_the_gateway_says() {
    let stage = Stage::new("", "");
    let cookie = stage.identity.cookie("ada@example.com");
    let plain = stage.received("/x", &[("cookie", &cookie), ("x-forwarded-for", "1.2.3.4")]);
    let named = stage.received(
        "/x",
        &[
            ("cookie", &cookie),
            (
                "connection",
                "close, X-User-Id, x-user-role, Authorization, X-Request-Id, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, \
                 Host, traceparent, cookie, content-length, x_user_id",
            ),
            ("content-length", "0"),
        ],
    );
    for name in [
        "x-user-id",
        "x-user-role",
        "authorization",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "host",
    ] {
        assert!(plain.header(name).is_some(), "{name}");
        assert_eq!(named.header(name), plain.header(name), "{name}");
    }
    assert!(named.header("x-request-id").is_some());
    assert!(named.header("traceparent").is_some());
}

/// Spellings in which some server reads `X-User-Id` or `X-User-Role`.
const FORGED: [(&str, &str); 14] = [
    ("X-User-Id", "root"),
    ("x-user-id", "root"),
    ("X-USER-ID", "root"),
    ("X_User_Id", "root"),
    ("X-User_Id", "root"),
    ("x_user_id", "root"),
    ("X.User.Id", "root"),
    ("X-User-Id-Bin", "cm9vdA=="),
    ("x_user_id_bin", "cm9vdA=="),
    ("X-User-Role", "admin"),
    ("X_USER_ROLE", "admin"),
    ("X-Auth-Provider", "main"),
    ("X_Auth_Provider", "main"),
    ("X_Request_Id", "forged"),
];

#[test]
fn nobody_but_the_gateway_says_who_calls() {
    let stage = Stage::new("", "");
    let ada = stage.identity.session("ada@example.com");
    let bearer = format!("Bearer {}", ada["access_token"].as_str().unwrap());
    for path in ["/public/x", "/optional/x"] {
        let received = stage.received(path, &FORGED);
        assert_eq!(names(&received), OURS, "{path}");
        assert_ne!(received.header("x-request-id"), Some("forged"));
    }
    let mut headers = FORGED.to_vec();
    headers.push(("authorization", &bearer));
    // On a public route credentials are not looked at and do not go on.
    assert_eq!(names(&stage.received("/public/x", &headers)), OURS);
    for path in ["/optional/x", "/x"] {
        let received = stage.received(path, &headers);
        let mut expected = OURS.to_vec();
        expected.extend(["authorization", "x-user-id", "x-user-role"]);
        expected.sort_unstable();
        assert_eq!(names(&received), expected, "{path}");
        assert_eq!(received.header("x-user-id"), ada["user"]["id"].as_str());
        assert_eq!(received.header("x-user-role"), Some("user"));
    }
}

#[test]
fn names_of_the_file_are_guarded_like_the_usual_ones() {
    let stage = Stage::new(
        "",
        "[identity_headers]\nX-User-Id = false\nRemote-User = \"sub\"\nX-Mail = \"email\"\nX-How = \"@credential\"\nX-Who = \"@provider\"\nX-None = \"nothing\"\n",
    );
    let forged = [
        ("remote-user", "root"),
        ("Remote_User", "root"),
        ("X_Mail", "root@example.com"),
        ("x-none", "forged"),
        // Not said by this gateway: an ordinary field.
        ("x-user-id", "7"),
    ];
    let received = stage.received("/public/x", &forged);
    let mut expected = OURS.to_vec();
    expected.push("x-user-id");
    assert_eq!(names(&received), expected);
    let bearer = format!("Bearer {}", stage.identity.token("ada@example.com"));
    let received = stage.received(
        "/x",
        &[
            ("authorization", &bearer),
            ("x_none", "forged"),
            ("x-none", "forged"),
        ],
    );
    assert_eq!(received.header("x-mail"), Some("ada@example.com"));
    assert_eq!(received.header("x-how"), Some("bearer"));
    assert_eq!(received.header("x-who"), Some("main"));
    assert_eq!(received.header("x-none"), None);
    assert_eq!(received.header("x_none"), None);
}

#[test]
fn a_claim_cannot_look_like_two_nor_like_another_header() {
    let stage = Stage::new("", "");
    let session = stage.identity.session("ada@example.com");
    let mut claims = {
        use base64::Engine;
        let token = session["access_token"].as_str().unwrap();
        let payload = token.split('.').nth(1).unwrap();
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(payload)
            .unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    claims["app_metadata"]["role"] = "user,admin\r\nX-Evil: 1 \u{fc}%".into();
    claims["app_metadata"]["roles"] = serde_json::json!(["b", "c d"]);
    let get = |claims: &serde_json::Value| {
        let bearer = format!("Bearer {}", stage.identity.provider.sign(claims).unwrap());
        stage.house.get("/x", &[("authorization", &bearer)])
    };
    assert_eq!(get(&claims).status, 200);
    let received = stage.upstream.last();
    assert_eq!(
        received.header("x-user-role"),
        Some("user%2Cadmin%0D%0AX-Evil:%201%20%C3%BC%25,b,c%20d")
    );
    assert_eq!(received.header("x-evil"), None);
    let passed = stage.upstream.count();
    for sub in ["", "a b", "a\r\nb", "\u{fc}", &"x".repeat(257)] {
        claims["sub"] = sub.into();
        assert_eq!(get(&claims).code(), "invalid_token", "{sub:?}");
    }
    claims["sub"] = "x".repeat(256).into();
    assert_eq!(get(&claims).status, 200);
    assert_eq!(stage.upstream.count(), passed + 1);
}

/// What a peer may say about the client, and what steers routers past the route that was authorised.
const FORWARDING: [(&str, &str); 12] = [
    ("forwarded", "for=192.0.2.7"),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-host", "evil.test"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-port", "444"),
    ("x-forwarded-prefix", "/evil"),
    ("x-forwarded-user", "root"),
    ("x-real-ip", "192.0.2.7"),
    ("true-client-ip", "192.0.2.7"),
    ("cf-connecting-ip", "192.0.2.7"),
    ("x_forwarded_for", "192.0.2.7"),
    ("x_real_ip", "192.0.2.7"),
];
const STEERING: [(&str, &str); 13] = [
    ("x-original-url", "/admin"),
    ("x-rewrite-url", "/admin"),
    ("x_original_url", "/admin"),
    ("x-http-method-override", "DELETE"),
    ("x-http-method", "DELETE"),
    ("x-method-override", "DELETE"),
    ("x-middleware-subrequest", "middleware:middleware"),
    ("x-middleware-prefetch", "1"),
    ("x_middleware_rewrite", "/admin"),
    ("x-invoke-path", "/admin"),
    ("x-invoke-status", "200"),
    ("x-matched-path", "/admin"),
    ("x-now-route-matches", "1=admin"),
];

#[test]
fn an_untrusted_peer_says_nothing_about_the_client_and_steers_nothing() {
    let stage = Stage::new("", "");
    let bearer = format!("Bearer {}", stage.identity.token("ada@example.com"));
    for path in ["/public/x", "/x"] {
        let mut headers = [&FORWARDING[..], &STEERING].concat();
        headers.extend([("authorization", &*bearer), ("host", "app.test:81")]);
        let received = stage.received(path, &headers);
        let mut expected = OURS.to_vec();
        if path == "/x" {
            expected.extend(["authorization", "x-user-id", "x-user-role"]);
        }
        expected.sort_unstable();
        assert_eq!(names(&received), expected);
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "app.test:81"),
            ("host", "app.test:81"),
        ] {
            assert_eq!(received.header(name), Some(value), "{name}");
        }
    }
    for record in stage.house.log.wait_for(2) {
        assert_eq!(record["client_ip"], "127.0.0.1");
    }
}

#[test]
fn a_trusted_peer_is_believed_from_the_right() {
    let stage = Stage::new("trusted_proxies = [\"private\"]\n", "");
    let check = |chain: &[&str], client: &str, told: &str| {
        let headers: Vec<_> = chain.iter().map(|hop| ("x-forwarded-for", *hop)).collect();
        let received = stage.received("/public/x", &headers);
        assert_eq!(received.header("x-forwarded-for"), Some(told), "{chain:?}");
        let records = stage.house.log.wait_for(stage.upstream.count());
        assert_eq!(records.last().unwrap()["client_ip"], client, "{chain:?}");
    };
    check(&[], "127.0.0.1", "127.0.0.1");
    check(&["192.0.2.1"], "192.0.2.1", "192.0.2.1, 127.0.0.1");
    check(&["6.6.6.6, 192.0.2.1"], "192.0.2.1", "192.0.2.1, 127.0.0.1");
    check(
        &["6.6.6.6, 192.0.2.1, 10.0.0.1"],
        "192.0.2.1",
        "192.0.2.1, 10.0.0.1, 127.0.0.1",
    );
    check(
        &["6.6.6.6", "192.0.2.1", "10.0.0.1"],
        "192.0.2.1",
        "192.0.2.1, 10.0.0.1, 127.0.0.1",
    );
    check(
        &["10.0.0.2, 10.0.0.1"],
        "10.0.0.2",
        "10.0.0.2, 10.0.0.1, 127.0.0.1",
    );
    check(&["junk"], "127.0.0.1", "127.0.0.1");
    check(&["192.0.2.1, junk"], "127.0.0.1", "127.0.0.1");
    check(&["junk, 192.0.2.1"], "192.0.2.1", "192.0.2.1, 127.0.0.1");
    check(
        &["[2001:db8::1]:443"],
        "2001:db8::1",
        "[2001:db8::1]:443, 127.0.0.1",
    );
    let long = vec!["10.0.0.1"; 33].join(",");
    check(&[&long], "127.0.0.1", "127.0.0.1");

    let received = stage.received(
        "/public/x",
        &[
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "other.test"),
            ("x-forwarded-port", "444"),
            ("x_forwarded_port", "445"),
            ("x_user_id", "root"),
            ("x-user-id", "root"),
            ("host", "app.test"),
        ],
    );
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    // Not believed without `trust_forwarded_host`.
    assert_eq!(received.header("x-forwarded-host"), Some("app.test"));
    assert_eq!(received.header("x-forwarded-port"), Some("444"));
    for name in ["x_forwarded_port", "x_user_id", "x-user-id"] {
        assert_eq!(received.header(name), None, "{name}");
    }
}

#[test]
fn a_forwarded_host_is_believed_only_where_the_file_says_so() {
    let server = "trusted_proxies = [\"127.0.0.1/32\"]\ntrust_forwarded_host = true\nhosts = [\"app.test\"]\n";
    let stage = Stage::new(server, "");
    let received = stage.received(
        "/public/x",
        &[("host", "inner.test"), ("x-forwarded-host", "app.test")],
    );
    assert_eq!(received.header("x-forwarded-host"), Some("app.test"));
    assert_eq!(received.header("host"), Some("app.test"));
    for (host, forwarded, code) in [
        ("app.test", "evil.test", "misdirected"),
        ("app.test", "app.test/x", "bad_request"),
        ("app.test", "user@app.test", "bad_request"),
    ] {
        let answer = stage.house.get(
            "/public/x",
            &[("host", host), ("x-forwarded-host", forwarded)],
        );
        assert_eq!(answer.code(), code, "{forwarded}");
    }
}

#[test]
fn the_request_id_is_ours_or_a_trusted_peers() {
    let fresh = |id: &str| id.len() == 36 && id.as_bytes()[14] == b'7';
    for (server, trusted) in [("", false), ("trusted_proxies = [\"127.0.0.1\"]\n", true)] {
        let stage = Stage::new(server, "");
        let long = "x".repeat(129);
        for (sent, good) in [
            (&["Req-1._x"][..], true),
            (&[&long[1..]], true),
            (&[&long], false),
            (&[""], false),
            (&["a b"], false),
            (&["a/b"], false),
            (&["a,b"], false),
            (&["a", "b"], false),
            (&[], false),
        ] {
            let headers: Vec<_> = sent.iter().map(|id| ("x-request-id", *id)).collect();
            let before = stage.upstream.count();
            let answer = stage.house.get("/public/x", &headers);
            let id = answer.header("x-request-id").unwrap().to_owned();
            if good && trusted {
                assert_eq!(id, sent[0]);
            } else {
                assert!(fresh(&id), "{id} for {sent:?}");
            }
            assert_eq!(stage.upstream.last().header("x-request-id"), Some(&*id));
            let records = stage.house.log.wait_for(before + 1);
            assert_eq!(records.last().unwrap()["request_id"], *id);
        }
        // The upstream's own goes nowhere.
        let answer = stage.answer("/public/x", "X-Request-Id: theirs\r\n");
        assert!(fresh(answer.header("x-request-id").unwrap()));
        // Refusals have one as well, and so has the log.
        let refused = stage.house.get("/x", &[("x-request-id", "given")]);
        let id = refused.header("x-request-id").unwrap();
        assert_eq!(id == "given", trusted);
        assert_eq!(refused.json()["request_id"], id);
    }
}

#[test]
fn a_trace_goes_on_or_begins() {
    let stage = Stage::new("", "");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let received = stage.received(
        "/public/x",
        &[("traceparent", parent), ("tracestate", "a=b")],
    );
    let told = received.header("traceparent").unwrap();
    assert_eq!((&told[..36], &told[52..]), (&parent[..36], &parent[52..]));
    assert_ne!(told[36..52], parent[36..52], "our own span is the parent");
    assert_eq!(received.header("tracestate"), Some("a=b"));
    let record = stage.house.log.wait_for(1)[0].clone();
    assert_eq!(record["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    for bad in [
        "",
        "junk",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        &parent.to_uppercase(),
    ] {
        let received = stage.received("/public/x", &[("traceparent", bad), ("tracestate", "a=b")]);
        let told = received.header("traceparent").unwrap();
        assert!(
            told.len() == 55 && told.starts_with("00-") && told != bad,
            "{told}"
        );
        assert_eq!(received.header("tracestate"), None);
    }
}

#[test]
fn only_the_session_cookies_stay_here() {
    let routes = "[[routes]]\npath = \"/none/*\"\nforward_cookies = false\n\
        [[routes]]\npath = \"/some/*\"\nforward_cookies = [\"lang\"]\n\
        [[routes]]\npath = \"/cookies/*\"\nforward_session = \"cookies\"\n\
        [[routes]]\npath = \"/both/*\"\nforward_session = \"both\"\n\
        [[routes]]\npath = \"/nothing/*\"\nforward_session = \"none\"\n\
        [[routes]]\npath = \"/raw/*\"\nauth = \"public\"\nforward_credentials = true\n";
    let stage = Stage::new("", routes);
    let session = stage.identity.cookie("ada@example.com");
    let all = format!(
        "theme=a%3Db; {session}; sb-access-token=x; sb-refresh-token=y; sb-127-auth-token-code-verifier=v; lang=\"en\""
    );
    let others = "theme=a%3Db; sb-127-auth-token-code-verifier=v; lang=\"en\"";
    for (path, cookie, bearer) in [
        ("/x", Some(others), true),
        ("/public/x", Some(others), false),
        ("/optional/x", Some(others), true),
        ("/none/x", Some("sb-127-auth-token-code-verifier=v"), true),
        (
            "/some/x",
            Some("sb-127-auth-token-code-verifier=v; lang=\"en\""),
            true,
        ),
        ("/cookies/x", Some(&*all), false),
        ("/both/x", Some(&*all), true),
        ("/nothing/x", Some(others), false),
        ("/raw/x", Some(&*all), false),
    ] {
        let received = stage.received(path, &[("cookie", &all)]);
        assert_eq!(received.header("cookie"), cookie, "{path}");
        assert_eq!(received.header("authorization").is_some(), bearer, "{path}");
        let known = !path.starts_with("/public") && !path.starts_with("/raw");
        assert_eq!(received.header("x-user-id").is_some(), known, "{path}");
    }
    assert_eq!(
        stage
            .received("/x", &[("cookie", &session)])
            .header("cookie"),
        None
    );
    // Pieces, doubles, spellings that some servers take for the name.
    let received = stage.received(
        "/public/x",
        &[
            (
                "cookie",
                "a=1; sb-127-auth-token.0=x;sb-127-auth-token.1=y ; sb-127-auth-token=z; b=2",
            ),
            (
                "cookie",
                "sb-127-auth-token=again; sb%2D127-auth-token=enc; c=3; sb-127-auth-token",
            ),
        ],
    );
    assert_eq!(received.header("cookie"), Some("a=1; b=2; c=3"));
}

#[test]
fn credentials_pass_only_where_the_route_forwards_them() {
    let stage = Stage::new(
        "",
        "[[routes]]\npath = \"/raw/*\"\nauth = \"public\"\nforward_credentials = true\n\
         [[routes]]\npath = \"/session-only/*\"\ncredentials = [\"session\"]\nauth = \"optional\"\n",
    );
    for value in ["Bearer not-a-token", "Basic eDp5", "Digest a=b, c=d"] {
        let header = [("authorization", value), ("x-user-id", "root")];
        let raw = stage.received("/raw/x", &header);
        assert_eq!(raw.header("authorization"), Some(value));
        assert_eq!(raw.header("x-user-id"), None);
        assert_eq!(
            stage.received("/public/x", &header).header("authorization"),
            None
        );
        // Not accepted here, so not read, and gone.
        assert_eq!(
            stage
                .received("/session-only/x", &header)
                .header("authorization"),
            None
        );
    }
}

#[test]
fn of_an_answer_goes_what_concerns_the_client() {
    let stage = Stage::new("", "");
    for path in ["/x", "/public/x"] {
        let answer = stage.answer(
            path,
            "Server: nginx/1.2\r\nX-Powered-By: PHP\r\nx_powered_by: PHP\r\nX-User-Id: 7\r\nX-User-Role: admin\r\nX_User_Id: 7\r\n\
             X-Auth-Provider: main\r\nAuthorization: Bearer secret\r\nConnection: keep-alive, X-Named\r\nX-Named: 1\r\nKeep-Alive: timeout=5\r\n\
             Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\nETag: \"1\"\r\nContent-Type: text/plain\r\n\
             Set-Cookie: a=1; Path=/\r\nSet-Cookie: sb-127-auth-token=x; Path=/\r\nSet-Cookie: sb-127-auth-token.0=x\r\n\
             Set-Cookie: sb-access-token=x\r\nSet-Cookie: sb-refresh-token=x\r\nSet-Cookie: =sb-127-auth-token=x\r\nSet-Cookie: b=2\r\n",
        );
        assert_eq!(answer.status, 200);
        for gone in [
            "server",
            "x-powered-by",
            "x_powered_by",
            "x-user-id",
            "x-user-role",
            "x_user_id",
            "x-auth-provider",
            "authorization",
            "connection",
            "x-named",
            "keep-alive",
            "proxy-authenticate",
            "upgrade",
        ] {
            assert_eq!(answer.header(gone), None, "{path} {gone}");
        }
        assert_eq!(answer.header("x-kept"), Some("1"));
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2"], "{path}");
    }
    // What the upstream's `Connection` names cannot be what we or the client rely on.
    let answer = stage.answer(
        "/x",
        "Connection: Cache-Control, X-Request-Id, Content-Type, Set-Cookie, Content-Length, Vary, X-Frame-Options\r\n\
         Cache-Control: no-store\r\nContent-Type: text/plain\r\nSet-Cookie: a=1\r\nVary: Accept\r\n",
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("set-cookie"), Some("a=1"));
    assert_eq!(answer.header("vary"), Some("Accept"));
    assert_eq!(answer.header("x-frame-options"), Some("DENY"));
    assert!(answer.header("x-request-id").is_some());
    assert_eq!(answer.text(), "ok");
}

#[test]
fn session_cookies_of_the_upstream_pass_where_it_has_the_session() {
    let stage = Stage::new(
        "",
        "[[routes]]\npath = \"/cookies/*\"\nforward_session = \"cookies\"\n",
    );
    stage.upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nSet-Cookie: sb-127-auth-token=x\r\nContent-Length: 2\r\n\r\nok",
    ));
    let cookie = stage.identity.cookie("ada@example.com");
    let answer = stage.house.get("/cookies/x", &[("cookie", &cookie)]);
    assert_eq!(answer.header("set-cookie"), Some("sb-127-auth-token=x"));
}

#[test]
fn an_answer_for_one_user_is_for_no_shared_cache() {
    let routes = "[[routes]]\npath = \"/shared/*\"\ncache = \"public\"\n\
        [[routes]]\npath = \"/shared/fixed\"\ncache = \"public\"\nrespond = { body = \"hi\" }\n\
        [[routes]]\npath = \"/moved\"\nredirect = { to = \"/new\", status = 308 }\n\
        [[routes]]\npath = \"/fixed\"\nrespond = { body = \"hi\" }\n";
    let stage = Stage::new("", routes);
    for (sent, control, vary) in [
        ("", Some("private, no-store"), None),
        ("Cache-Control: no-store\r\n", Some("no-store"), None),
        (
            "Cache-Control: private, max-age=5\r\n",
            Some("private, max-age=5"),
            None,
        ),
        (
            "Cache-Control: public, max-age=5\r\n",
            Some("private, max-age=5"),
            Some("Cookie, Authorization"),
        ),
        (
            "Cache-Control: s-maxage=5\r\n",
            Some("private"),
            Some("Cookie, Authorization"),
        ),
        (
            "Cache-Control: max-age=5\r\n",
            Some("private, max-age=5"),
            Some("Cookie, Authorization"),
        ),
        (
            "CDN-Cache-Control: max-age=60\r\nSurrogate-Control: max-age=60\r\n",
            Some("private, no-store"),
            None,
        ),
    ] {
        // A name that looks static changes nothing.
        for path in ["/x", "/x.css", "/optional/x.js"] {
            let answer = stage.answer(path, sent);
            assert_eq!(
                (answer.header("cache-control"), answer.header("vary")),
                (control, vary),
                "{sent}"
            );
            assert_eq!(answer.header("cdn-cache-control"), None);
            assert_eq!(answer.header("surrogate-control"), None);
        }
        let own = sent
            .lines()
            .find_map(|line| line.strip_prefix("Cache-Control: "));
        for path in ["/shared/x", "/public/x"] {
            assert_eq!(
                stage.answer(path, sent).header("cache-control"),
                own,
                "{path}"
            );
        }
    }
    // What the gateway answers itself, for somebody.
    for path in ["/moved", "/fixed"] {
        assert_eq!(
            stage.answer(path, "").header("cache-control"),
            Some("no-store"),
            "{path}"
        );
    }
    assert_eq!(
        stage.answer("/shared/fixed", "").header("cache-control"),
        None
    );
    // Nobody called: nothing is private.
    stage.upstream.reply(Reply::Ok);
    assert_eq!(
        stage.house.get("/optional/x", &[]).header("cache-control"),
        None
    );
}

#[test]
fn security_headers_are_set_where_the_upstream_set_none() {
    let stage = Stage::new(
        "public_url = \"https://app.test\"\nhosts = [\"127.0.0.1\"]\n",
        "[[routes]]\npath = \"/own\"\nauth = \"public\"\nsecurity_headers = { X-Frame-Options = \"SAMEORIGIN\", Referrer-Policy = \"\" }\n\
         [[routes]]\npath = \"/off\"\nauth = \"public\"\nsecurity_headers = false\n",
    );
    let check = |answer: &Answer, expected: [Option<&str>; 4]| {
        let names = [
            "strict-transport-security",
            "x-content-type-options",
            "referrer-policy",
            "x-frame-options",
        ];
        assert_eq!(names.map(|name| answer.header(name)), expected);
    };
    let (hsts, nosniff) = (Some("max-age=31536000"), Some("nosniff"));
    let usual = Some("strict-origin-when-cross-origin");
    check(
        &stage.answer("/x", ""),
        [hsts, nosniff, usual, Some("DENY")],
    );
    check(
        &stage.answer(
            "/x",
            "X-Frame-Options: SAMEORIGIN\r\nReferrer-Policy: origin\r\n",
        ),
        [hsts, nosniff, Some("origin"), Some("SAMEORIGIN")],
    );
    check(
        &stage.answer("/own", ""),
        [hsts, nosniff, None, Some("SAMEORIGIN")],
    );
    check(&stage.answer("/off", ""), [None, None, None, None]);
    check(
        &stage.house.get("/x", &[]),
        [hsts, nosniff, Some("no-referrer"), Some("DENY")],
    );
    assert_eq!(
        stage.house.get("/x", &[]).header("content-security-policy"),
        Some("default-src 'none'; frame-ancestors 'none'")
    );
    // Browsers take it over TLS only, and a site that is not https cannot say it.
    let plain = Stage::new("public_url = \"http://127.0.0.1\"\n", "");
    assert_eq!(
        plain.answer("/x", "").header("strict-transport-security"),
        None
    );
}

#[test]
fn the_operators_changes_are_made_on_both_ways() {
    let stage = Stage::new(
        "",
        "[[routes]]\npath = \"/changed/*\"\nauth = \"public\"\n\
         request_headers = { set = { X-Source = \"gateway\" }, remove = [\"X-Debug\", \"accept\"] }\n\
         response_headers = { set = { X-Node = \"n1\" }, remove = [\"X-Runtime\"] }\n\
         [[routes]]\npath = \"/fixed\"\nauth = \"public\"\nrespond = { body = \"hi\" }\nresponse_headers = { set = { X-Node = \"n1\" } }\n",
    );
    let received = stage.received(
        "/changed/x",
        &[
            ("x-source", "client"),
            ("x-source", "twice"),
            ("x-debug", "1"),
            ("accept", "*/*"),
            ("x-kept", "1"),
        ],
    );
    assert_eq!(received.header("x-source"), Some("gateway"));
    assert_eq!(received.header("x-kept"), Some("1"));
    assert_eq!(
        (received.header("x-debug"), received.header("accept")),
        (None, None)
    );
    let answer = stage.answer(
        "/changed/x",
        "X-Node: theirs\r\nX-Runtime: 1\r\nX-Kept: 1\r\n",
    );
    assert_eq!(answer.header("x-node"), Some("n1"));
    assert_eq!(answer.header("x-kept"), Some("1"));
    assert_eq!(answer.header("x-runtime"), None);
    assert_eq!(stage.house.get("/fixed", &[]).header("x-node"), Some("n1"));
}

#[test]
fn trailers_cannot_say_what_a_head_may_not() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-user-id, grpc-status, x-a\r\n\r\n\
        2\r\nhi\r\n0\r\nX-User-Id: root\r\ngrpc-status: 0\r\nX-A: 1\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(send(house.address, text.as_bytes(), false).status, 200);
    let received = upstream.only();
    assert_eq!(received.body, b"hi");
    let trailers = upstream.trailers();
    let names: Vec<_> = trailers
        .iter()
        .map(|(name, _)| name.to_lowercase())
        .collect();
    assert!(
        names.iter().all(|name| name.starts_with("grpc-")),
        "{trailers:?}"
    );

    // Back to a client that takes them.
    upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status, x-sum, x-user-id, set-cookie\r\n\r\n\
         2\r\nhi\r\n0\r\ngrpc-status: 0\r\nX-Sum: 7\r\nX-User-Id: root\r\nSet-Cookie: a=1\r\n\r\n",
    ));
    let mut client = crate::support::Client::connect(house.address);
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
    let mut lines = Vec::new();
    loop {
        let line = client.read_line();
        let last = line == "0\r\n";
        lines.push(line);
        if last {
            break;
        }
    }
    let mut trailers = Vec::new();
    loop {
        let line = client.read_line().to_lowercase();
        if line == "\r\n" {
            break;
        }
        trailers.push(line);
    }
    trailers.sort();
    assert_eq!(trailers, ["grpc-status: 0\r\n", "x-sum: 7\r\n"]);
    // To one that does not, none.
    let answer = house.get("/", &[]);
    assert_eq!(answer.text(), "hi");
}

#[test]
fn the_upstream_gets_the_host_that_its_table_says() {
    let upstream = Upstream::start();
    let with = |key: &str| {
        House::start(&format!(
            "{}{key}\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n",
            app(&upstream)
        ))
    };
    for (key, expected) in [
        ("", "App.test:81".to_owned()),
        ("host_header = \"preserve\"", "App.test:81".to_owned()),
        ("host_header = \"upstream\"", upstream.address.to_string()),
        ("host_header = \"inner.test\"", "inner.test".to_owned()),
    ] {
        assert_eq!(with(key).get("/", &[("host", "App.test:81")]).status, 200);
        let received = upstream.last();
        assert_eq!(received.header("host"), Some(&*expected), "{key}");
        assert_eq!(received.header("x-forwarded-host"), Some("App.test:81"));
    }
    with("forwarded_for = \"single\"").get("/", &[("x-forwarded-for", "192.0.2.1")]);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}
