//! Request heads that are refused, heads that are not, and what rides behind them (contract, section 3.1). Each case is
//! bytes as written here, and each is followed by a second request that must never reach the upstream.

use crate::support::{
    Client, House, Identity, NOW, Reply, Upstream, app, eventually, open_house, problem, send,
};
use tollhouse::base::clock::Clock;

const BEHIND: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Refused with this status and code (none: by the parser, bare or without a word), then the connection ends; neither
/// the request nor what stands behind it goes on.
fn refused(house: &House, upstream: &Upstream, text: &[u8], status: u16, code: &str) {
    let shown = String::from_utf8_lossy(&text[..text.len().min(200)]).into_owned();
    let before = upstream.count();
    let mut client = Client::connect(house.address);
    client.write(text);
    client.write(BEHIND.as_bytes());
    match client.try_read(false) {
        Some(answer) => {
            assert_eq!(
                (answer.status, &*answer.code()),
                (status, code),
                "{shown:?}"
            );
            if !code.is_empty() {
                assert_eq!(problem(&answer), code, "{shown:?}");
            }
        }
        None => assert!(code.is_empty(), "no answer to {shown:?}"),
    }
    assert!(
        client.try_read(false).is_none(),
        "a second answer after {shown:?}"
    );
    assert!(client.is_closed(), "open after {shown:?}");
    assert_eq!(upstream.count(), before, "{shown:?} reached the upstream");
}

/// Lets it through; what the upstream received last.
fn passes(house: &House, upstream: &Upstream, text: &str) -> crate::support::Received {
    let before = upstream.count();
    let answer = send(house.address, text.as_bytes(), false);
    assert_eq!(answer.status, 200, "{text:?} {}", answer.text());
    assert_eq!(upstream.count(), before + 1, "{text:?}");
    upstream.last()
}

#[test]
fn what_the_parser_refuses_ends_the_connection_and_is_counted() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let mut count = 0;
    for text in [
        // Lines and names (RFC 9112 §2.2, §5).
        &b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-User-Id : root\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa9: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
        // Values.
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rX-User-Id: root\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n",
        // Request lines.
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET / ICAP/1.0\r\nHost: a\r\n\r\n",
        b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        // Lengths (RFC 9112 §6.3).
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        // Codings (RFC 9112 §6.1).
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        refused(&house, &upstream, text, 400, "");
        count += 1;
    }
    eventually(|| house.metric("tollhouse_malformed_requests_total") >= f64::from(count));
    assert_eq!(
        house.metric("tollhouse_malformed_requests_total"),
        f64::from(count)
    );
}

#[test]
fn what_the_gateway_refuses_is_a_problem_and_ends_the_connection() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for head in [
        // Hosts (RFC 9112 §3.2).
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n",
        "GET / HTTP/1.1\r\nHost: a.\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n",
        "GET / HTTP/1.1\r\nHost: http://a\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n",
        "GET / HTTP/1.1\r\nHost: user:password@a\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\n",
        "GET / HTTP/1.1\r\nHost: a:0\r\n",
        "GET / HTTP/1.1\r\nHost: a:080\r\n",
        "GET / HTTP/1.1\r\nHost: a:65536\r\n",
        "GET / HTTP/1.1\r\nHost: a:http\r\n",
        "GET / HTTP/1.1\r\nHost: a:80:80\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n",
        "GET / HTTP/1.1\r\nHost: h\u{f6}st\r\n",
        // Absolute form (RFC 9112 §3.2.2).
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n",
        "GET http://a:81/ HTTP/1.1\r\nHost: a:80\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "GET http://user:password@a/ HTTP/1.1\r\nHost: a\r\n",
        "GET http://user@a/ HTTP/1.1\r\nHost: user@a\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n",
        "GET a:80 HTTP/1.1\r\nHost: a:80\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n",
        // Codings that the parser takes for chunked.
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        // Credentials (RFC 6750 §2).
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nAuthorization: Bearer x\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nAuthorization: Basic eDp5\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x, Bearer y\r\n",
    ] {
        let body = if head.contains("chunked") {
            "0\r\n\r\n"
        } else {
            ""
        };
        let text = format!("{head}\r\n{body}");
        refused(&house, &upstream, text.as_bytes(), 400, "bad_request");
    }
    assert_eq!(house.metric("tollhouse_malformed_requests_total"), 0.0);
}

#[test]
fn trace_and_connect_are_405_and_no_tunnel_opens() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for text in [
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let mut client = Client::connect(house.address);
        client.write(text.as_bytes());
        let answer = client.read();
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (405, "method_not_allowed"),
            "{text}"
        );
        assert_eq!(
            answer.header("allow"),
            Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        );
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn long_targets_are_414_and_large_heads_431() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let head =
        |target: &str, fields: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let fits = "x".repeat(8 * 1024 - 1);
    assert_eq!(
        passes(&house, &upstream, &head(&format!("/{fits}"), "")).path(),
        format!("/{fits}")
    );
    passes(&house, &upstream, &head(&format!("/?{}", &fits[1..]), ""));
    for target in [format!("/{fits}x"), format!("/?{fits}")] {
        let text = head(&target, "");
        refused(&house, &upstream, text.as_bytes(), 414, "uri_too_long");
    }
    let far = head(&format!("/{}", "x".repeat(66_000)), "");
    refused(&house, &upstream, far.as_bytes(), 414, "");

    let fields = |count: usize| "X: y\r\n".repeat(count);
    passes(&house, &upstream, &head("/", &fields(99)));
    let text = head("/", &fields(100));
    refused(&house, &upstream, text.as_bytes(), 431, "");

    // `Host: a` and its line end are 9 bytes, `X: ` and its line end 5.
    let size = |bytes: usize| format!("X: {}\r\n", "y".repeat(bytes - 9 - 5));
    passes(&house, &upstream, &head("/", &size(80 * 1024)));
    let text = head("/", &size(80 * 1024 + 1));
    refused(&house, &upstream, text.as_bytes(), 431, "headers_too_large");
    let text = head("/", &size(300 * 1024));
    refused(&house, &upstream, text.as_bytes(), 431, "");
    eventually(|| house.metric("tollhouse_malformed_requests_total") >= 3.0);
}

#[test]
fn limits_of_the_file_hold() {
    let upstream = Upstream::start();
    let house = open_house(
        &upstream,
        "max_uri_bytes = \"256B\"\nmax_headers = 8\nmax_header_bytes = \"8KiB\"\n",
    );
    let get = |target: usize, fields: usize, bytes: usize| {
        format!(
            "GET /{} HTTP/1.1\r\nHost: a\r\n{}Y: {}\r\n\r\n",
            "x".repeat(target - 1),
            "X: 1\r\n".repeat(fields - 2),
            "y".repeat(bytes - 9 - 6 * (fields - 2) - 5),
        )
    };
    passes(&house, &upstream, &get(256, 8, 8 * 1024));
    for (text, status, code) in [
        (get(257, 8, 100), 414, "uri_too_long"),
        (get(1, 9, 100), 431, "headers_too_large"),
        (get(1, 2, 8 * 1024 + 1), 431, "headers_too_large"),
    ] {
        refused(&house, &upstream, text.as_bytes(), status, code);
    }
}

#[test]
fn an_expectation_that_cannot_be_met_is_417() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for expect in ["200-ok", "100-continue, x", "", "100-continue\r\nExpect: y"] {
        let text =
            format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: {expect}\r\nContent-Length: 0\r\n\r\n");
        refused(
            &house,
            &upstream,
            text.as_bytes(),
            417,
            "expectation_failed",
        );
    }
}

/// Reads one head, 1xx included.
fn status_line(client: &mut Client) -> String {
    let line = client.read_line();
    while client.read_line() != "\r\n" {}
    line.trim_end().to_owned()
}

#[test]
fn a_client_is_told_to_continue_only_after_its_credentials_hold() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}{}[[routes]]\npath = \"/*\"\nmax_body = \"10B\"\n[[routes]]\npath = \"/admin/*\"\nrequire = {{ any_role = [\"admin\"] }}\n",
            identity.tables(),
            app(&upstream)
        ),
        clock,
    );
    let token = identity.token("ada@example.com");
    let head = |path: &str, token: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n{token}\r\n"
        )
    };
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (text, status) in [
        (head("/", "", 5), 401),
        (head("/", "Authorization: Bearer nonsense\r\n", 5), 401),
        (head("/admin/x", &bearer, 5), 403),
        (head("/", &bearer, 11), 413),
    ] {
        let mut client = Client::connect(house.address);
        client.write(text.as_bytes());
        assert!(
            status_line(&mut client).starts_with(&format!("HTTP/1.1 {status}")),
            "{text}"
        );
    }
    assert_eq!(upstream.count(), 0);
    let mut client = Client::connect(house.address);
    client.write(head("/", &bearer, 5).as_bytes());
    assert_eq!(status_line(&mut client), "HTTP/1.1 100 Continue");
    client.write(b"hello");
    assert_eq!(client.read().status, 200);
    let received = upstream.only();
    assert_eq!(received.body, b"hello");
    assert_eq!(received.header("expect"), None);
}

#[test]
fn a_length_beside_chunks_goes_and_the_connection_ends_after_the_answer() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for framing in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: Chunked\r\nContent-Length: 60\r\n",
    ] {
        let before = upstream.count();
        let mut client = Client::connect(house.address);
        let text =
            format!("POST /a HTTP/1.1\r\nHost: a\r\n{framing}\r\n3\r\nabc\r\n0\r\n\r\n{BEHIND}");
        client.write(text.as_bytes());
        let answer = client.read();
        assert!(matches!(answer.status, 200 | 400), "{framing}");
        assert!(client.try_read(false).is_none(), "{framing}");
        assert!(client.is_closed(), "{framing}");
        if answer.status == 200 {
            let received = upstream.last();
            assert_eq!(upstream.count(), before + 1);
            assert_eq!((received.path(), &*received.body), ("/a", &b"abc"[..]));
            assert_eq!(received.header("content-length"), None);
            assert_eq!(received.header("transfer-encoding"), Some("chunked"));
        }
    }
}

#[test]
fn names_that_some_servers_take_for_framing_are_not_forwarded() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let received = passes(
        &house,
        &upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer_Encoding: chunked\r\nContent_Length: 0\r\nTransfer.Encoding: chunked\r\n\r\nabc",
    );
    assert_eq!(received.body, b"abc");
    let names: Vec<_> = received
        .headers
        .iter()
        .map(|(n, _)| n.to_lowercase())
        .collect();
    assert!(
        !names
            .iter()
            .any(|n| n.starts_with("transfer") || n == "content_length"),
        "{names:?}"
    );
}

#[test]
fn a_body_is_a_body_whatever_it_looks_like() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let length = BEHIND.len();
    let received = passes(
        &house,
        &upstream,
        &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{BEHIND}"),
    );
    assert_eq!(received.body, BEHIND.as_bytes());
    assert_eq!(
        received.header("content-length"),
        Some(&*length.to_string())
    );
    let received = passes(
        &house,
        &upstream,
        &format!(
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x};ext=\"1\"\r\n{BEHIND}\r\n0;x\r\nX-User-Id: root\r\n\r\n"
        ),
    );
    assert_eq!(received.body, BEHIND.as_bytes());
    assert_eq!(received.header("x-user-id"), None);
    // The same length twice is one length.
    let received = passes(
        &house,
        &upstream,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert_eq!(received.header("content-length"), Some("2"));
}

#[test]
fn a_body_with_broken_chunks_or_cut_short_is_never_whole_upstream() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "zz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "10000000000000000\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcX0\r\n\r\n",
        "3\r\nabcde\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "\r\n",
    ] {
        refused(
            &house,
            &upstream,
            format!("{chunked}{body}").as_bytes(),
            400,
            "bad_request",
        );
    }
    let records = house.log.records().len();
    for text in [
        format!("{chunked}3\r\nabc\r\n"),
        format!("{chunked}8\r\nabc"),
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".to_owned(),
    ] {
        let mut client = Client::connect(house.address);
        client.write(text.as_bytes());
        drop(client);
    }
    house.log.wait_for(records + 3);
    eventually(|| upstream.open() == 0);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn pipelined_requests_are_answered_in_order_each_on_its_own() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}{}[[routes]]\npath = \"/*\"\n",
            identity.tables(),
            app(&upstream)
        ),
        clock,
    );
    let (ada, grace) = (
        identity.token("ada@example.com"),
        identity.token("grace@example.com"),
    );
    let get = |path: &str, token: &str| {
        let field = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}\r\n")
    };
    let mut client = Client::connect(house.address);
    let all = [
        get("/1", &ada),
        get("/2", ""),
        get("/3", &grace),
        get("/4", "nonsense"),
        get("/5", &ada),
    ];
    client.write(all.concat().as_bytes());
    let statuses: Vec<_> = (0..5).map(|_| client.read().status).collect();
    assert_eq!(statuses, [200, 401, 200, 401, 200]);
    let received = upstream.received();
    let paths: Vec<_> = received.iter().map(|r| r.path()).collect();
    assert_eq!(paths, ["/1", "/3", "/5"]);
    let bearer = |token: &str| format!("Bearer {token}");
    let tokens: Vec<_> = received
        .iter()
        .map(|r| r.header("authorization").unwrap())
        .collect();
    assert_eq!(tokens, [bearer(&ada), bearer(&grace), bearer(&ada)]);
    assert_ne!(
        received[0].header("x-user-id"),
        received[1].header("x-user-id")
    );
}

#[test]
fn what_is_unusual_but_clear_passes_and_is_written_afresh() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let received = passes(
        &house,
        &upstream,
        "GET /a?b HTTP/1.1\nHost: a\nX-A:\t b \n\n",
    );
    assert_eq!(received.line, "GET /a?b HTTP/1.1");
    assert_eq!(
        (received.header("host"), received.header("x-a")),
        (Some("a"), Some("b"))
    );
    let received = passes(
        &house,
        &upstream,
        "\r\nGET http://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n",
    );
    assert_eq!(
        (&*received.line, received.header("host")),
        ("GET /x?y HTTP/1.1", Some("a:80"))
    );
    let received = passes(
        &house,
        &upstream,
        "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(received.line, "GET / HTTP/1.1");
    let received = passes(&house, &upstream, "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(received.line, "GET /a HTTP/1.1");
    let received = passes(
        &house,
        &upstream,
        "PURGE /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    );
    assert_eq!(received.line, "PURGE /a HTTP/1.1");
    let received = passes(&house, &upstream, "OPTIONS /a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(received.line, "OPTIONS /a HTTP/1.1");
}

#[test]
fn http_1_0_is_served_and_closed() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let mut client = Client::connect(house.address);
    client.write(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.read().text(), "ok");
    assert!(client.is_closed());
    assert_eq!(upstream.only().line, "GET /a HTTP/1.1");
    // Chunks are not for HTTP/1.0: the body ends with the connection.
    upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ));
    let mut client = Client::connect(house.address);
    client.write(b"GET /a HTTP/1.0\r\nHost: a\r\n\r\n");
    let answer = client.read();
    assert_eq!(
        (answer.text(), answer.header("transfer-encoding")),
        ("abc".to_owned(), None)
    );
    assert!(client.is_closed());
}

#[test]
fn a_name_that_is_not_ours_is_misdirected_and_told_which_key_helps() {
    let upstream = Upstream::start();
    let own = open_house(&upstream, "hosts = [\"app.test\", \"*.example.com\"]\n");
    let derived = open_house(&upstream, "public_url = \"https://App.Test:8443\"\n");
    let get = |house: &House, host: &str| house.get("/", &[("host", host)]);
    for host in [
        "app.test",
        "APP.test:99",
        "a.example.com",
        "a.b.example.com",
    ] {
        assert_eq!(get(&own, host).status, 200, "{host}");
    }
    assert_eq!(get(&derived, "app.test").status, 200);
    let passed = upstream.count();
    for host in [
        "evil.test",
        "app.test.evil.test",
        "xapp.test",
        "example.com",
        "badexample.com",
        "127.0.0.1",
        "[::1]",
    ] {
        let answer = get(&own, host);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (421, "misdirected"),
            "{host}"
        );
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("server.hosts"), "{detail}");
        assert!(!detail.contains(host), "{detail}");
    }
    assert_eq!(get(&derived, "evil.test").code(), "misdirected");
    assert_eq!(upstream.count(), passed);
}

#[test]
fn an_answer_of_the_upstream_has_one_framing_or_none_at_all() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    let answer_to = |reply: &str| {
        upstream.reply(Reply::bytes_and_close(reply));
        house.get("/", &[])
    };
    let both = answer_to(
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    );
    assert_eq!((both.status, both.text()), (200, "hi".to_owned()));
    assert_eq!(both.header("content-length"), None);
    let early = answer_to(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert_eq!((early.status, early.text()), (200, "hi".to_owned()));
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX: y\0z\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 2\r\n\r\nhi",
        "HTTP/1.1 20 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "",
    ] {
        let answer = answer_to(reply);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (502, "upstream_protocol_error"),
            "{reply:?}"
        );
        assert_eq!(answer.json()["forwarded"], true);
    }
}

#[test]
fn bytes_behind_an_upstreams_answer_are_nobodys() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
    ));
    for _ in 0..10 {
        assert_eq!(house.get("/", &[]).text(), "ok");
    }
    // What is cut short upstream is cut short here, and never looks whole.
    upstream.reply(Reply::bytes_and_close(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ));
    let mut client = Client::connect(house.address);
    client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_read(false).is_none());
    assert!(client.is_closed());
}
