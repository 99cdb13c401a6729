//! HTTP/2 as clients speak it to the gateway (RFC 9113), the honest ones and the others: what is malformed ends its stream
//! and nothing else, what is too much ends its connection and nothing else, and the rest is as on HTTP/1.1.

use crate::process::{Gateway, gated};
use crate::support::frames::{self, Frames, Outcome, request};
use crate::support::http2::Http2;
use crate::support::keys::{self, Signer, jwt_provider, key_server};
use crate::support::{
    Client, House, Identity, NOW, PATIENCE, Reply, Upstream, Wire, about, app, cookie, eventually,
    open_house, pair, problem, scripted, send, tls,
};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;
use tollhouse::server::Drained;

const DOOR: &str = "[[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n";

/// The routes of most gateways here.
const ROUTES: &str = "[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
    [[routes]]\npath = \"/ours\"\nauth = \"public\"\nrespond = { status = 200, body = \"ours\" }\n\
    [[routes]]\npath = \"/small\"\nauth = \"public\"\nmax_body = \"10B\"\n\
    [[routes]]\npath = \"/private\"\n\
    [providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:9\"\n";

fn to(server: &str, upstream: SocketAddr) -> House {
    House::start(&format!(
        "[server]\n{server}\n[upstreams.app]\nurl = \"http://{upstream}\"\n{ROUTES}{DOOR}"
    ))
}

fn house(server: &str, upstream: &Upstream) -> House {
    to(server, upstream.address)
}

/// The connection still serves.
fn lives(client: &mut Frames, stream: u32) {
    let outcome = client.ask(stream, &request("GET", "/ours"));
    assert_eq!(outcome, Outcome::Answered(200, b"ours".to_vec()));
}

// The first bytes.

#[test]
fn one_port_speaks_http_2_with_prior_knowledge_and_http_1_1() {
    let house = house("", &Upstream::start());
    assert_eq!(Http2::connect(house.doors[0]).get("/", &[]).text(), "ok");
    let mut client = Client::connect(house.doors[0]);
    for _ in 0..2 {
        client.write(b"GET /ours HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read().text(), "ours");
    }
    // A method that begins like the preface.
    client.write(b"PRIVATE /ours HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read().text(), "ours");
    assert_eq!(house.log.wait_for(4).len(), 4);
}

#[test]
fn a_preface_that_comes_in_pieces_is_one() {
    let house = house("", &Upstream::start());
    let mut client = Client::connect(house.doors[0]);
    for byte in frames::PREFACE {
        client.write(&[*byte]);
    }
    client.write(&frames::frame(frames::SETTINGS, 0, 0, &[]));
    // The server's own settings.
    assert_eq!(client.exactly(4).unwrap()[3], frames::SETTINGS);
}

#[test]
fn an_upgrade_to_http_2_is_ignored_and_does_not_reach_the_upstream() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    for address in [house.address, house.doors[0]] {
        let answer = send(
            address,
            b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
            false,
        );
        assert_eq!((answer.status, &*answer.text()), (200, "ok"));
        let received = upstream.last();
        for name in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(received.header(name), None, "{received:?}");
        }
    }
}

#[test]
fn a_client_that_does_not_say_what_it_speaks_is_closed_when_its_time_is_over() {
    let house = house(
        "keep_alive = \"600ms\"\nheader_timeout = \"200ms\"",
        &Upstream::start(),
    );
    for (said, time) in [(&b""[..], 600), (b"PRI * HT", 200), (b"GET /ours HT", 200)] {
        let mut client = Client::connect(house.doors[0]);
        let began = Instant::now();
        client.write(said);
        assert!(client.is_closed());
        about(began, time);
    }
    // Nor may the preface drip in.
    let mut client = Client::connect(house.doors[0]);
    let began = Instant::now();
    for byte in frames::PREFACE {
        if !client.try_write(&[*byte]) {
            break;
        }
        std::thread::sleep(Duration::from_millis(40));
    }
    assert!(client.is_closed());
    about(began, 200);
    eventually(|| house.metric("tollhouse_connections") == 0.0);
}

#[test]
fn http_2_where_it_is_not_spoken_is_refused_and_closed() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Client::connect(house.address);
    client.write(frames::PREFACE);
    client.write(&frames::frame(frames::SETTINGS, 0, 0, &[]));
    client.write(&frames::frame(
        frames::HEADERS,
        5,
        1,
        &frames::block(&request("GET", "/")),
    ));
    let said = client.rest();
    assert!(
        said.is_empty() || said.starts_with(b"HTTP/1.1 400"),
        "{said:?}"
    );
    assert_eq!(upstream.count(), 0);
    eventually(|| house.metric("tollhouse_malformed_requests_total") == 1.0);
}

#[test]
fn a_client_that_has_introduced_itself_may_wait_with_its_first_request_as_with_any() {
    let house = house(
        "keep_alive = \"600ms\"\nheader_timeout = \"200ms\"",
        &Upstream::start(),
    );
    let mut client = Frames::connect(house.doors[0]);
    let began = Instant::now();
    let goodbye = client.until(frames::GOAWAY).unwrap();
    assert_eq!(goodbye.code(), frames::NO_ERROR);
    about(began, 600);
    while client.read().is_some() {}
    eventually(|| house.metric("tollhouse_connections") == 0.0);
}

#[test]
fn a_client_that_chose_http_2_by_alpn_and_says_nothing_is_closed() {
    let server = format!(
        "header_timeout = \"300ms\"\n{}",
        tls::listener(&["app.test"])
    );
    let house = open_house(&Upstream::start(), &server);
    let mut client = Client::on(tls::connect(house.doors[0], "app.test", &["h2"]));
    let began = Instant::now();
    client.rest();
    about(began, 300);
}

// What a request is.

/// The stream of a malformed request ended with an error or a 400 (RFC 9113 §8.1.1).
fn is_refused(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Reset(frames::PROTOCOL_ERROR) | Outcome::Answered(400, _)
    )
}

fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = request("GET", "/x");
    fields.extend(more);
    fields
}

fn without<'a>(name: &str) -> Vec<(&'a str, &'a str)> {
    let mut fields = request("GET", "/x");
    fields.retain(|(given, _)| *given != name);
    fields
}

#[test]
fn a_malformed_head_ends_its_stream_and_nothing_else() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    let plain = request("GET", "/x");
    let late = [&[("x-a", "b")], &plain[..]].concat();
    let cases: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te that is not trailers", with(&[("te", "gzip")])),
        (
            "te with more than trailers",
            with(&[("te", "trailers, gzip")]),
        ),
        ("a pseudo field of answers", with(&[(":status", "200")])),
        ("two paths", with(&[(":path", "/y")])),
        ("two methods", with(&[(":method", "POST")])),
        ("two authorities", with(&[(":authority", "app.test")])),
        ("pseudo fields behind others", late),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        (
            "an empty path",
            [&without(":path")[..], &[(":path", "")]].concat(),
        ),
        (
            "a path without a slash",
            [&without(":path")[..], &[(":path", "x")]].concat(),
        ),
        (
            "a whole address as path",
            [&without(":path")[..], &[(":path", "http://evil.test/")]].concat(),
        ),
        (
            "another scheme",
            [&without(":scheme")[..], &[(":scheme", "ftp")]].concat(),
        ),
        ("no authority and no host", without(":authority")),
        (
            "an authority with a user",
            [&without(":authority")[..], &[(":authority", "u@app.test")]].concat(),
        ),
        ("another host", with(&[("host", "evil.test")])),
        (
            "two hosts",
            with(&[("host", "app.test"), ("host", "app.test")]),
        ),
        (
            "two credentials",
            with(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]),
        ),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "1")]),
        ),
        ("a length that is none", with(&[("content-length", "+1")])),
    ];
    let mut stream = 1;
    for (why, fields) in &cases {
        let outcome = client.ask(stream, fields);
        assert!(is_refused(&outcome), "{why}: {outcome:?}");
        stream += 2;
    }
    lives(&mut client, stream);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_head_of_which_no_field_can_be_made_ends_its_connection_and_no_other() {
    // More than RFC 9113 §8.1.1 asks, as §5.4.1 allows: h2 finds these while it decodes.
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut other = Frames::connect(house.doors[0]);
    lives(&mut other, 1);
    for (why, field) in [
        ("a name in upper case", ("X-Upper", "a")),
        ("a space in a name", ("x a", "b")),
        ("an empty name", ("", "b")),
        ("a colon in a name", ("x:a", "b")),
        ("a line end in a value", ("x-a", "b\r\nx-user-id: root")),
        ("a bare line feed in a value", ("x-a", "b\nc")),
        ("a NUL in a value", ("x-a", "b\0c")),
        ("an unknown pseudo field", (":unknown", "a")),
    ] {
        let mut client = Frames::connect(house.doors[0]);
        let outcome = client.ask(1, &with(&[field]));
        let gone = Outcome::Gone(Some(frames::PROTOCOL_ERROR));
        assert!(
            is_refused(&outcome) || outcome == gone,
            "{why}: {outcome:?}"
        );
    }
    lives(&mut other, 3);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_authority_or_a_host_that_agrees_with_it_says_which_host_is_asked() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    let host = [&without(":authority")[..], &[("host", "other.test")]].concat();
    for (stream, fields, seen) in [
        (1, request("GET", "/x"), "app.test"),
        (3, with(&[("host", "app.test")]), "app.test"),
        (5, host, "other.test"),
    ] {
        assert_eq!(client.ask(stream, &fields).status(), Some(200), "{seen}");
        assert_eq!(upstream.last().header("host"), Some(seen));
        assert_eq!(upstream.last().line, "GET /x HTTP/1.1");
    }
}

#[test]
fn tunnels_and_traces_are_405() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    let connect = [(":method", "CONNECT"), (":authority", "evil.test:443")];
    let outcome = client.ask(1, &connect);
    assert_eq!(
        (outcome.status(), &*outcome.code()),
        (Some(405), "method_not_allowed")
    );
    assert_eq!(client.ask(3, &request("TRACE", "/")).status(), Some(405));
    // Extended CONNECT (RFC 8441) was not offered.
    let mut extended = request("CONNECT", "/socket");
    extended.push((":protocol", "websocket"));
    let outcome = client.ask(5, &extended);
    assert!(is_refused(&outcome), "{outcome:?}");
    lives(&mut client, 7);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_length_must_be_that_of_the_data() {
    let (tell, told) = pair();
    let upstream = scripted(move |mut wire: Wire| {
        let head = wire.head();
        if !head.is_empty() {
            let _ = tell.lock().send((head, wire.rest()));
        }
    });
    let house = to("", upstream);
    let mut client = Frames::connect(house.doors[0]);
    for (stream, body) in [(1, &b"abc"[..]), (3, b"abcdefgh"), (5, b"")] {
        let mut fields = request("POST", "/x");
        fields.push(("content-length", "5"));
        client.headers(stream, &fields, body.is_empty());
        if !body.is_empty() {
            client.data(stream, body, true);
        }
        let outcome = client.outcome(stream);
        assert!(is_refused(&outcome), "{body:?}: {outcome:?}");
        // The upstream may have heard of it, never of its end.
        if let Ok((head, body)) = told.recv_timeout(Duration::from_millis(100)) {
            assert!(head.contains("content-length: 5"), "{head}");
            assert!(body.len() < 5, "{body:?}");
        }
    }
    lives(&mut client, 7);
}

// Cookies, trailers, bodies.

#[test]
fn cookies_in_pieces_are_one_field_before_anything_reads_them() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "{}{}[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/open\"\nauth = \"public\"\n{DOOR}",
        identity.tables(),
        app(&upstream)
    );
    let house = House::start_at(&file, clock);
    let mut session = identity.session("ada@example.com");
    session["user"]["user_metadata"]["padding"] = "x".repeat(4000).into();
    let whole = format!("theme=dark; {}; lang=de", cookie(&session.to_string()));
    let crumbs: Vec<_> = whole.split("; ").map(|crumb| ("cookie", crumb)).collect();
    assert!(crumbs.len() > 3, "the session is in several cookies");
    let mut client = Http2::connect(house.doors[0]);
    let answer = client.get("/me", &crumbs);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let received = upstream.only();
    assert_eq!(received.header("cookie"), Some("theme=dark; lang=de"));
    assert!(received.header("x-user-id").is_some());
    assert!(
        received
            .header("authorization")
            .unwrap()
            .starts_with("Bearer ")
    );
    // Also where nothing of it is ours: HTTP/1.1 knows one field (RFC 9113 §8.2.3).
    let others = [("cookie", "a=1"), ("cookie", "b=2")];
    assert_eq!(client.get("/open", &others).status, 200);
    assert_eq!(upstream.last().header("cookie"), Some("a=1; b=2"));
    // One piece is missing: no session.
    let answer = client.get("/me", &crumbs[2..]);
    assert_eq!(answer.status, 401);
    let record = &house.log.wait_for(3)[0];
    assert_eq!(record["credential"], "session");
}

#[test]
fn of_a_clients_trailers_none_but_those_of_grpc_go_on() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Http2::connect(house.doors[0]);
    let names = ("trailer", "grpc-status, x-checksum, x-user-id, cookie");
    let mut stream = client.open("POST", "/x", &[names], false);
    stream.send("body", false);
    stream.send_trailers(&[
        ("grpc-status", "0"),
        ("x-checksum", "abc"),
        ("x-user-id", "root"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
    ]);
    assert_eq!(stream.answer().unwrap().status, 200);
    let received = upstream.only();
    assert_eq!(received.body, b"body");
    assert_eq!(received.header("x-user-id"), None);
    let trailers = upstream.trailers();
    let of_grpc = |(name, _): &(String, String)| name.starts_with("grpc-");
    assert!(trailers.iter().all(of_grpc), "{trailers:?}");
}

#[test]
fn trailers_of_an_answer_arrive_without_what_a_client_may_not_see() {
    let upstream = scripted(|mut wire: Wire| {
        while !wire.head().is_empty() {
            wire.say(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n5\r\nhello\r\n0\r\n\
                 X-Checksum: abc\r\nX-User-Id: root\r\nSet-Cookie: a=b\r\nConnection: x\r\n\r\n",
            );
        }
    });
    let house = to("", upstream);
    let answer = Http2::connect(house.doors[0]).get("/x", &[]);
    assert_eq!(answer.text(), "hello");
    let trailers = [("x-checksum".to_owned(), "abc".to_owned())];
    assert_eq!(answer.trailers, trailers);
    for name in ["connection", "transfer-encoding", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
}

#[test]
fn pseudo_fields_in_trailers_change_nothing() {
    // They are malformed (RFC 9113 §8.1), which h2 does not see: it drops them.
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    let mut fields = request("POST", "/x");
    fields.push(("trailer", ":path, grpc-status"));
    client.headers(1, &fields, false);
    client.data(1, b"body", false);
    client.headers(1, &[(":path", "/admin"), ("grpc-status", "0")], true);
    client.outcome(1);
    lives(&mut client, 3);
    assert_eq!(house.log.wait_for(2)[0]["path"], "/x");
    assert!(
        upstream
            .received()
            .iter()
            .all(|received| received.path() == "/x")
    );
    let named = |(name, _): &(String, String)| name.starts_with(':');
    assert!(!upstream.trailers().iter().any(named));
}

#[test]
fn a_body_over_its_limit_is_413_on_its_way_and_never_whole_at_the_upstream() {
    let (tell, told) = pair();
    let upstream = scripted(move |mut wire: Wire| {
        wire.head();
        let _ = tell.lock().send(wire.rest());
    });
    let house = to("", upstream);
    let mut client = Http2::connect(house.doors[0]);
    let mut stream = client.open("POST", "/small", &[], false);
    stream.send("12345678", false);
    stream.send("ABCDEFGH", true);
    let answer = stream.answer().unwrap();
    assert_eq!((answer.status, &*answer.code()), (413, "payload_too_large"));
    let received = String::from_utf8(told.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert!(
        !received.contains("ABC") && !received.ends_with("0\r\n\r\n"),
        "{received}"
    );
    // With a length it is refused before the upstream hears of it.
    let answer = client.request("POST", "/small", &[("content-length", "11")], "12345678901");
    assert_eq!((answer.status, &*answer.code()), (413, "payload_too_large"));
    assert!(told.try_recv().is_err());
}

#[test]
fn a_body_that_stops_is_408_and_other_streams_live() {
    let upstream = scripted(|mut wire: Wire| {
        wire.head();
        wire.rest();
    });
    let house = to("body_idle_timeout = \"300ms\"", upstream);
    let mut client = Http2::connect(house.doors[0]);
    let began = Instant::now();
    let mut stream = client.open("POST", "/x", &[], false);
    stream.send("abc", false);
    let answer = stream.answer().unwrap();
    about(began, 300);
    assert_eq!((answer.status, &*answer.code()), (408, "request_timeout"));
    assert_eq!(client.get("/ours", &[]).text(), "ours");
}

/// Routes whose answers come while their uploads do.
fn early(upstream: SocketAddr) -> House {
    House::start(&format!(
        "[upstreams.app]\nurl = \"http://{upstream}\"\n{ROUTES}{DOOR}\
         [[routes]]\npath = \"/elsewhere\"\nauth = \"public\"\nclient_ips = [\"192.0.2.0/24\"]\n\
         [[routes]]\npath = \"/few\"\nauth = \"public\"\nrate_limits = [\"few\"]\n\
         [rate_limits.few]\nrate = \"1/h\"\nby = \"ip\"\n"
    ))
}

#[test]
fn an_answer_that_comes_early_leaves_its_client_time_to_end_the_upload() {
    let upstream = scripted(|mut wire: Wire| {
        if !wire.head().starts_with("POST /small") {
            wire.say("HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
        }
        wire.rest();
    });
    let house = early(upstream);
    let mut client = Frames::connect(house.doors[0]);
    client.ask(1, &request("GET", "/few"));
    let length = ("content-length", "48100");
    let cases = [
        ("/private", Some(length), 401),
        ("/private", None, 401),
        ("/elsewhere", Some(length), 403),
        ("/nowhere/../x", None, 400),
        ("/small", Some(length), 413),
        ("/small", None, 413),
        ("/few", Some(length), 429),
        ("/early", Some(length), 409),
        ("/early", None, 409),
    ];
    for (stream, (path, length, status)) in (3..).step_by(2).zip(cases) {
        let mut fields = request("POST", path);
        fields.extend(length);
        client.headers(stream, &fields, false);
        client.data(stream, &[b'x'; 100], false);
        let outcome = client.outcome(stream);
        assert_eq!(outcome.status(), Some(status), "{path} {length:?}");
        // Nothing may take the answer from a client that looks for it when it has sent all.
        let mut after = client.settled(stream);
        for ends in [false, false, true] {
            client.data(stream, &[b'x'; 16_000], ends);
            after.extend(client.settled(stream));
        }
        assert!(after.is_empty(), "{path} {length:?}: {after:?}");
    }
    lives(&mut client, 99);
}

/// Sends as much of a body as the windows let through, up to `bytes`. `false`: the stream was reset before.
fn pour(client: &mut Frames, stream: u32, bytes: usize) -> bool {
    // The first window of a stream is the gateway's.
    let (mut window, mut sent) = (256 << 10, 0);
    while sent < bytes {
        if window >= 16_000 {
            client.data(stream, &[b'x'; 16_000], false);
            (window, sent) = (window - 16_000, sent + 16_000);
            continue;
        }
        let frame = client.read().unwrap();
        match frame.kind {
            frames::WINDOW_UPDATE if frame.stream == stream => window += frame.code() as usize,
            frames::RST_STREAM if frame.stream == stream => return false,
            _ => {}
        }
    }
    true
}

#[test]
fn an_upload_that_goes_on_for_ever_after_its_answer_is_stopped_behind_that() {
    let house = house("", &Upstream::start());
    let shut = [(frames::INITIAL_WINDOW_SIZE, 0)];
    let mut client = Frames::with(house.doors[0], &shut);
    // The connection's own window is opened.
    assert_eq!(client.until(frames::WINDOW_UPDATE).unwrap().stream, 0);
    client.headers(1, &request("POST", "/private"), false);
    // More than is thrown away, while the client's own window keeps the end of its answer back.
    assert!(pour(&mut client, 1, (8 << 20) + 64_000));
    assert!(client.settled(1).is_empty());
    client.give(16_000, 1);
    assert_eq!(client.outcome(1).code(), "missing_credentials");
    // The client is told to stop (RFC 9113 §8.1).
    let reset = client.until(frames::RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (1, frames::NO_ERROR));
    client.headers(3, &request("GET", "/ours"), true);
    client.give(100, 3);
    assert_eq!(client.outcome(3), Outcome::Answered(200, b"ours".to_vec()));
}

#[test]
fn an_upload_that_stays_open_after_its_answer_is_stopped_after_a_while() {
    let house = house("", &Upstream::start());
    let mut client = Frames::connect(house.doors[0]);
    let began = Instant::now();
    client.headers(1, &request("POST", "/private"), false);
    client.data(1, &[b'x'; 16_000], false);
    let outcome = client.outcome(1);
    assert_eq!(
        (outcome.status(), &*outcome.code()),
        (Some(401), "missing_credentials")
    );
    lives(&mut client, 3);
    let reset = client.until(frames::RST_STREAM).unwrap();
    assert_eq!((reset.stream, reset.code()), (1, frames::NO_ERROR));
    about(began, 2000);
    lives(&mut client, 5);
}

#[test]
fn permission_and_hints_are_no_answer_yet() {
    let upstream = scripted(|mut wire: Wire| {
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let house = to("", upstream);
    let answer = Http2::connect(house.doors[0]).get("/x", &[]);
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
}

#[test]
fn an_answer_to_head_has_the_length_and_no_body() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Http2::connect(house.doors[0]);
    let answer = client.request("HEAD", "/x", &[], "");
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("2"))
    );
    assert!(answer.body.is_empty() && answer.head_alone);
    let refused = client.request("HEAD", "/private", &[], "");
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .header("content-length")
            .is_some_and(|length| length != "0")
    );
    upstream.reply(Reply::bytes("HTTP/1.1 204 No Content\r\n\r\n"));
    let answer = client.get("/x", &[]);
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (204, None)
    );
}

// What the gateway says is as on HTTP/1.1.

#[test]
fn problems_pages_and_ids_are_as_on_http_1_1() {
    let house = house("", &Upstream::start());
    let mut client = Http2::connect(house.doors[0]);
    let answer = client.get("/private", &[]);
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (401, "missing_credentials")
    );
    let challenge = Some("Bearer realm=\"tollhouse\"");
    assert_eq!(answer.header("www-authenticate"), challenge);
    assert_eq!(answer.header("connection"), None);
    let answer = client.get("/a/../b", &[]);
    assert_eq!((answer.status, &*problem(&answer)), (400, "bad_request"));
    let navigates = [
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-dest", "document"),
        ("accept", "text/html"),
    ];
    let page = client.get("/private", &navigates);
    assert_eq!(page.status, 401);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(client.get("/ours", &[]).text(), "ours");
}

#[test]
fn each_stream_has_one_record_with_its_bytes() {
    let house = house("", &Upstream::start());
    let mut client = Http2::connect(house.doors[0]);
    assert_eq!(client.request("POST", "/a", &[], "12345").text(), "ok");
    assert_eq!(client.get("/ours", &[]).text(), "ours");
    assert_eq!(client.get("/private", &[]).status, 401);
    let records = house.log.wait_for(3);
    assert_eq!(records.len(), 3);
    let seen: Vec<_> = records
        .iter()
        .map(|r| {
            (
                r["path"].as_str().unwrap(),
                r["status"].as_u64().unwrap(),
                r["bytes_in"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [("/a", 200, 5), ("/ours", 200, 0), ("/private", 401, 0)]
    );
    assert_eq!(records[0]["bytes_out"], 2);
    assert_eq!(records[1]["bytes_out"], 4);
}

#[test]
fn limits_and_preflights_are_as_on_http_1_1() {
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}[rate_limits.per_ip]\nrate = \"2/h\"\nby = \"ip\"\napplies_to = \"all\"\n\
         [cors]\nallow_origins = [\"https://app.test\"]\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n{DOOR}",
        app(&upstream)
    ));
    let mut client = Http2::connect(house.doors[0]);
    let asks = [
        ("origin", "https://app.test"),
        ("access-control-request-method", "PUT"),
    ];
    let preflight = client.request("OPTIONS", "/x", &asks, "");
    assert_eq!(preflight.status, 204);
    let allowed = preflight.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://app.test"));
    let statuses: Vec<_> = (0..3).map(|_| client.get("/x", &[]).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    let last = client.get("/x", &[("origin", "https://app.test")]);
    assert_eq!(last.code(), "rate_limited");
    assert!(last.header("retry-after").is_some());
    assert_eq!(
        last.header("access-control-allow-origin"),
        Some("https://app.test")
    );
}

#[test]
fn a_hundred_requests_at_once_have_each_its_own_answer() {
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = arrived.clone();
    let upstream = scripted(move |mut wire: Wire| {
        loop {
            let head = wire.head();
            let Some(path) = head.split(' ').nth(1) else {
                return;
            };
            count.fetch_add(1, Ordering::SeqCst);
            // Nobody is answered before all have asked.
            eventually(|| count.load(Ordering::SeqCst) >= 100);
            wire.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ));
        }
    });
    let house = to("", upstream);
    let paths: Vec<_> = (0..100).map(|number| format!("/{number}")).collect();
    let answers = Http2::connect(house.doors[0]).all_at_once(&paths);
    for (answer, path) in answers.iter().zip(&paths) {
        assert_eq!((answer.status, &answer.text()), (200, path));
    }
    assert_eq!(house.log.wait_for(100).len(), 100);
}

// Too much of something.

#[test]
fn a_stream_over_the_hundredth_is_refused_and_the_others_live() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    client.until(frames::SETTINGS).unwrap();
    for number in 0..101 {
        client.headers(1 + 2 * number, &request("GET", "/x"), true);
    }
    let outcome = client.outcome(201);
    assert_eq!(outcome, Outcome::Reset(frames::REFUSED_STREAM));
    eventually(|| upstream.count() == 100);
    // One that ends makes room.
    client.reset(1, frames::CANCEL);
    eventually(|| upstream.open() == 99);
    lives(&mut client, 203);
    assert_eq!(upstream.count(), 100);
}

#[test]
fn a_header_block_without_end_ends_its_connection_soon() {
    let house = house("", &Upstream::start());
    let mut client = Frames::connect(house.doors[0]);
    client.send(frames::HEADERS, 0, 1, &frames::block(&request("GET", "/x")));
    let part = frames::block(&[("x-a", &"b".repeat(16_000))]);
    let mut sent = 0;
    while client.send(frames::CONTINUATION, 0, 1, &part) {
        sent += 1;
        assert!(sent < 1000, "it takes everything");
    }
    // And one of empty ones (CVE-2024-27316).
    let mut client = Frames::connect(house.doors[0]);
    client.send(frames::HEADERS, 0, 1, &frames::block(&request("GET", "/x")));
    let mut sent = 0;
    let many = frames::frame(frames::CONTINUATION, 0, 1, &[]).repeat(1000);
    while client.write(&many) {
        sent += 1000;
        assert!(sent < 1_000_000, "it takes everything");
    }
    assert_eq!(
        Http2::connect(house.doors[0]).get("/ours", &[]).text(),
        "ours"
    );
}

#[test]
fn a_head_over_the_limits_is_431_and_a_path_414() {
    let upstream = Upstream::start();
    let house = house(
        "max_header_bytes = \"8KiB\"\nmax_uri_bytes = \"1KiB\"",
        &upstream,
    );
    let mut client = Http2::connect(house.doors[0]);
    // A little, and far too much: more than is read of a head at all.
    for size in [9_000, 14_000, 100_000] {
        let answer = client.get("/x", &[("x-a", &"b".repeat(size))]);
        assert_eq!(answer.status, 431, "{size}");
        if size < 20_000 {
            assert_eq!(problem(&answer), "headers_too_large");
        }
    }
    let many: Vec<_> = (0..101).map(|_| ("x-a", "b")).collect();
    assert_eq!(client.get("/x", &many).code(), "headers_too_large");
    let answer = client.get(&format!("/{}", "x".repeat(1100)), &[]);
    assert_eq!((answer.status, &*answer.code()), (414, "uri_too_long"));
    assert_eq!(client.get("/ours", &[]).text(), "ours");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_client_that_resets_what_it_opens_as_fast_as_it_can_loses_its_connection() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = house("", &upstream);
    let most = Arc::new(AtomicUsize::new(0));
    let (watched, seen) = (upstream.clone(), most.clone());
    let over = Arc::new(AtomicUsize::new(0));
    let ends = over.clone();
    let watch = std::thread::spawn(move || {
        while ends.load(Ordering::Relaxed) == 0 {
            seen.fetch_max(watched.open(), Ordering::Relaxed);
            std::thread::yield_now();
        }
    });
    // All at once, and one after the other, so that the gateway sees each request before it is reset.
    for at_once in [true, false] {
        let mut client = Frames::connect(house.doors[0]);
        let mut bytes = Vec::new();
        for number in 0..1000 {
            let stream = 1 + 2 * number;
            let head = frames::block(&request("GET", "/x"));
            bytes.extend(frames::frame(frames::HEADERS, 5, stream, &head));
            bytes.extend(frames::frame(
                frames::RST_STREAM,
                0,
                stream,
                &frames::CANCEL.to_be_bytes(),
            ));
            if !at_once {
                let taken = client.write(&bytes);
                bytes.clear();
                if !taken {
                    break;
                }
                let before = upstream.count();
                let until = Instant::now() + Duration::from_millis(2);
                while upstream.count() == before && Instant::now() < until {
                    std::thread::yield_now();
                }
            }
        }
        client.write(&bytes);
        let mut code = None;
        while let Some(frame) = client.read() {
            if frame.kind == frames::GOAWAY {
                code = Some(frame.code());
            }
        }
        assert!(
            matches!(code, None | Some(frames::ENHANCE_YOUR_CALM)),
            "{code:?}"
        );
    }
    over.store(1, Ordering::Relaxed);
    watch.join().unwrap();
    let most = most.load(Ordering::Relaxed);
    assert!(most <= 100, "{most} at once");
    eventually(|| upstream.open() == 0);
    assert!(upstream.count() < 1000, "{} in all", upstream.count());
    // Nobody else is concerned.
    assert_eq!(
        Http2::connect(house.doors[0]).get("/ours", &[]).text(),
        "ours"
    );
}

#[test]
fn a_client_that_provokes_resets_loses_its_connection() {
    // CVE-2025-8671: frames that make the server reset the stream while its request goes on.
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = house("", &upstream);
    let mut client = Frames::connect(house.doors[0]);
    let mut ended = false;
    for number in 0..1000 {
        let stream = 1 + 2 * number;
        client.headers(stream, &request("GET", "/x"), true);
        // A window that grows by nothing.
        if !client.send(frames::WINDOW_UPDATE, 0, stream, &[0; 4]) {
            ended = true;
            break;
        }
    }
    while let Some(frame) = client.read() {
        ended |= frame.kind == frames::GOAWAY;
    }
    assert!(ended);
    assert!(upstream.count() < 1000, "{} in all", upstream.count());
    eventually(|| upstream.open() == 0);
}

#[test]
fn a_reset_ends_the_upstreams_work_within_a_second() {
    let (tell, told) = pair();
    let upstream = scripted(move |mut wire: Wire| {
        let head = wire.head();
        if head.starts_with("GET /body") {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart\n");
        }
        let _ = tell.lock().send(Instant::now());
        assert_eq!(wire.some(&mut [0; 10]), 0);
        let _ = tell.lock().send(Instant::now());
    });
    let house = to("", upstream);
    let mut client = Frames::connect(house.doors[0]);
    // Before its answer, and in the middle of it.
    for (stream, path, status) in [(1, "/head", 499), (3, "/body", 200)] {
        client.headers(stream, &request("GET", path), true);
        told.recv_timeout(PATIENCE).unwrap();
        if path == "/body" {
            client.until(frames::DATA).unwrap();
        }
        let began = Instant::now();
        client.reset(stream, frames::CANCEL);
        let ended = told.recv_timeout(PATIENCE).unwrap();
        assert!(ended - began < Duration::from_secs(1));
        eventually(|| {
            let records = house.log.records();
            records
                .iter()
                .any(|r| r["path"] == path && r["status"] == status)
        });
    }
    lives(&mut client, 5);
}

/// Frames that cost the one who sends them nothing (CVE-2019-9512, -9515, -9518 and their like), more than an honest
/// client sends in a day. Those that carry nothing end the connection; the others are worked off and not kept.
#[test]
fn floods_of_idle_frames_take_no_memory_and_no_time_from_others() {
    const COUNT: usize = 300_000;
    const LAST: [u8; 8] = *b"the last";
    let gateway = Gateway::start(
        "",
        &format!(
            "{DOOR}[[routes]]\npath = \"/*\"\nauth = \"public\"\nrespond = {{ status = 200, body = \"ours\" }}\n"
        ),
    );
    let door = gateway.banner["listen"][1].as_str().unwrap();
    let door: SocketAddr = door.trim_start_matches("http://").parse().unwrap();
    assert_eq!(Http2::connect(door).get("/", &[]).text(), "ours");
    let before = gateway.memory("VmRSS");
    for (what, ends, flood) in [
        (
            "settings",
            true,
            frames::frame(frames::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]),
        ),
        ("pings", true, frames::frame(frames::PING, 0, 0, &[0; 8])),
        (
            "priorities",
            true,
            frames::frame(frames::PRIORITY, 0, 9, &[0, 0, 0, 1, 5]),
        ),
        ("unknown frames", true, frames::frame(0xfa, 0, 0, &[])),
        (
            "windows",
            false,
            frames::frame(frames::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        ),
        ("empty data", true, frames::frame(frames::DATA, 0, 1, &[])),
        (
            "resets of idle streams",
            false,
            frames::frame(frames::RST_STREAM, 0, 1, &[0, 0, 0, 8]),
        ),
    ] {
        let mut client = Frames::connect(door);
        let timeout = Some(Duration::from_millis(500));
        client.tcp().set_write_timeout(timeout).unwrap();
        client.headers(1, &request("POST", "/"), what == "resets of idle streams");
        // Nothing is read: what has to be said waits in the sockets, and when they are full, no more is taken.
        let many = flood.repeat(1000);
        let taken = (0..COUNT / 1000).take_while(|_| client.write(&many));
        let taken = taken.count() * 1000;
        let began = Instant::now();
        assert_eq!(Http2::connect(door).get("/", &[]).text(), "ours", "{what}");
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{what} after {taken}"
        );
        // Then all of it, to the end.
        client.send(frames::PING, 0, 0, &LAST);
        let last = |frame: &frames::Frame| frame.kind == frames::PING && frame.payload == LAST;
        let mut ended = true;
        while let Some(frame) = client.read() {
            if last(&frame) {
                ended = false;
                break;
            }
        }
        assert_eq!(ended, ends, "{what} after {taken}");
        let most = gateway.memory("VmHWM");
        assert!(
            most < before + 8 * 1024,
            "{what}: {before} KiB, then {most} KiB after {taken}"
        );
    }
}

// Small frames that nobody reads.

#[test]
fn small_frames_that_wait_for_keys_harm_no_stream() {
    let signer = Signer::p256("k1");
    let keys = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}http_timeout = \"1s\"\n{}[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/ours\"\nauth = \"public\"\nrespond = {{ status = 200, body = \"ours\" }}\n{DOOR}",
        jwt_provider("main", &keys),
        app(&upstream)
    ));
    eventually(|| keys.count() > 0);
    // The next keys do not come, and this token needs them.
    keys.reply(Reply::Silence);
    let token = format!("Bearer {}", signer.named("k2").token(&keys::claims()));
    let mut client = Frames::connect(house.doors[0]);
    let mut fields = request("POST", "/x");
    fields.push(("authorization", &token));
    client.headers(1, &fields, false);
    for _ in 0..6000 {
        assert!(client.data(1, b"x", false));
    }
    lives(&mut client, 3);
    client.data(1, b"x", true);
    let outcome = client.outcome(1);
    assert!(matches!(outcome.status(), Some(401 | 503)), "{outcome:?}");
    lives(&mut client, 5);
    assert_eq!(upstream.count(), 0);
    // Many more on several streams, as calls of gRPC send them: as much as their windows allow, which is more than is
    // taken in.
    let token = format!("Bearer {}", signer.named("k3").token(&keys::claims()));
    let mut fields = request("POST", "/x");
    fields.push(("authorization", &token));
    for stream in (7..27).step_by(2) {
        client.headers(stream, &fields, false);
        for _ in 0..4000 {
            assert!(client.data(stream, &[b'x'; 60], false));
        }
    }
    lives(&mut client, 27);
}

#[test]
fn small_frames_that_wait_for_an_upstream_arrive_whole_and_harm_no_stream() {
    let (go, wait) = pair::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let upstream = scripted(move |mut wire: Wire| {
        let head = wire.head();
        assert!(head.contains("content-length: 6000"), "{head}");
        let _ = wait.lock().recv();
        let body = wire.exactly(6000).unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'));
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let house = to("", upstream);
    let mut client = Frames::connect(house.doors[0]);
    let mut fields = request("POST", "/x");
    fields.push(("content-length", "6000"));
    client.headers(1, &fields, false);
    for number in 0..6000 {
        assert!(client.data(1, b"x", number == 5999));
    }
    lives(&mut client, 3);
    go.lock().send(()).unwrap();
    assert_eq!(client.outcome(1), Outcome::Answered(200, b"ok".to_vec()));
}

#[test]
fn an_upload_that_its_upstream_does_not_take_does_not_stop_the_other_streams() {
    let upstream = scripted(move |mut wire: Wire| {
        let head = wire.head();
        if head.starts_with("POST /stuck") {
            std::thread::park();
        }
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.lines().next().unwrap().parse().unwrap();
        wire.exactly(length).unwrap();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let house = to("", upstream);
    let mut client = Http2::connect(house.doors[0]);
    let mut stuck = Vec::new();
    for _ in 0..2 {
        let mut stream = client.open("POST", "/stuck", &[], false);
        stream.send(vec![b'x'; 8 << 20], false);
        stuck.push(stream);
    }
    for _ in 0..3 {
        let body = "y".repeat(500_000);
        let length = body.len().to_string();
        let answer = client.request("POST", "/x", &[("content-length", &length)], &body);
        assert_eq!(answer.text(), "ok");
    }
    assert!(stuck.iter().all(|stream| !stream.has_answer()));
}

// Time.

#[test]
fn a_stream_whose_window_stays_shut_is_reset_and_the_others_live() {
    let house = house("write_idle_timeout = \"400ms\"", &Upstream::start());
    let mut client = Frames::with(house.doors[0], &[(frames::INITIAL_WINDOW_SIZE, 0)]);
    let began = Instant::now();
    client.headers(1, &request("GET", "/x"), true);
    let head = client.until(frames::HEADERS).unwrap();
    assert_eq!((head.stream, head.status()), (1, 200));
    let reset = client.until(frames::RST_STREAM).unwrap();
    assert_eq!(reset.stream, 1);
    about(began, 400);
    client.headers(3, &request("GET", "/ours"), true);
    client.give(100, 3);
    assert_eq!(client.outcome(3), Outcome::Answered(200, b"ours".to_vec()));
    let records = house.log.wait_for(2);
    assert_eq!(records[0]["path"], "/x");
}

#[test]
fn a_head_that_comes_in_pieces_has_to_come_in_time_although_other_streams_live() {
    let (_go, wait) = pair::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let upstream = scripted(move |mut wire: Wire| {
        wire.head();
        let _ = wait.lock().recv();
    });
    let house = to("header_timeout = \"400ms\"", upstream);
    let mut client = Frames::connect(house.doors[0]);
    client.headers(1, &request("GET", "/x"), true);
    // With the settings acknowledged, nothing else of the client's comes in between.
    lives(&mut client, 3);
    let began = Instant::now();
    client.send(frames::HEADERS, 0, 5, &frames::block(&request("GET", "/x")));
    assert!(
        client.until(frames::HEADERS).is_none(),
        "the connection ends"
    );
    about(began, 400);
}

#[test]
fn a_connection_without_requests_is_told_to_end_when_keep_alive_is_over() {
    let house = house("keep_alive = \"400ms\"", &Upstream::start());
    let mut client = Frames::connect(house.doors[0]);
    lives(&mut client, 1);
    let began = Instant::now();
    let goodbye = client.until(frames::GOAWAY).unwrap();
    assert_eq!(goodbye.code(), frames::NO_ERROR);
    about(began, 350);
    while client.read().is_some() {}
    eventually(|| house.metric("tollhouse_connections") == 0.0);
}

#[test]
fn a_stream_that_lives_keeps_its_connection() {
    let (upstream, was_asked, let_go) = gated();
    let house = to(
        "keep_alive = \"200ms\"\nheader_timeout = \"200ms\"",
        upstream,
    );
    let mut client = Frames::connect(house.doors[0]);
    client.headers(1, &request("GET", "/slow"), true);
    was_asked.recv().unwrap();
    let timeout = Some(Duration::from_millis(900));
    client.tcp().set_read_timeout(timeout).unwrap();
    while let Ok(frame) = client.try_read() {
        assert_ne!(frame.kind, frames::GOAWAY);
    }
    client.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
    lives(&mut client, 3);
    let_go.send(()).unwrap();
    // Its first half was read above.
    assert_eq!(client.until(frames::DATA).unwrap().payload, b"down");
    client.until(frames::GOAWAY).unwrap();
}

#[test]
fn a_drain_says_goodbye_and_lets_streams_finish() {
    for secure in [false, true] {
        let (upstream, was_asked, let_go) = gated();
        let house = House::start(&format!(
            "[upstreams.app]\nurl = \"http://{upstream}\"\n{ROUTES}{DOOR}{}",
            tls::listener(&["app.test"])
        ));
        let open = || match secure {
            true => Http2::secure(house.doors[1], "app.test"),
            false => Http2::connect(house.doors[0]),
        };
        let (mut idle, mut busy) = (open(), open());
        assert_eq!(idle.get("/ours", &[]).text(), "ours");
        let stream = busy.open("GET", "/slow", &[], true);
        was_asked.recv().unwrap();
        let stopping = std::thread::spawn(move || house.stop());
        idle.ended();
        let_go.send(()).unwrap();
        assert_eq!(stream.answer().unwrap().text(), "slowdown");
        busy.ended();
        assert_eq!(stopping.join().unwrap(), Drained::Clean);
    }
}

#[test]
fn a_client_that_has_vanished_does_not_hold_a_drain_up() {
    let house = house("", &Upstream::start());
    let mut client = Frames::connect(house.doors[0]);
    lives(&mut client, 1);
    let began = Instant::now();
    // It reads nothing now, so it does not acknowledge what it is told.
    assert_eq!(house.stop(), Drained::Clean);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(
        client.until(frames::GOAWAY).unwrap().code(),
        frames::NO_ERROR
    );
}

#[test]
fn connections_are_counted_and_not_streams() {
    let upstream = Upstream::start();
    let house = house("max_connections = 2", &upstream);
    let mut first = Http2::connect(house.doors[0]);
    let paths: Vec<_> = (0..20).map(|number| format!("/{number}")).collect();
    assert!(
        first
            .all_at_once(&paths)
            .iter()
            .all(|answer| answer.status == 200)
    );
    let mut second = Http2::connect(house.doors[0]);
    assert_eq!(second.get("/ours", &[]).text(), "ours");
    assert!(Client::connect(house.doors[0]).is_closed());
    assert_eq!(house.metric("tollhouse_connections"), 2.0);
    drop(first);
    eventually(|| house.metric("tollhouse_connections") == 1.0);
}
