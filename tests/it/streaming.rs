//! Bodies pass as they come, in both directions, whatever their size; and nobody is kept waiting for what nobody reads.

use crate::process::Gateway;
use crate::support::{Client, House, PATIENCE, Wire, eventually, pair, scripted};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

fn table(upstream: SocketAddr) -> String {
    format!(
        "[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/small\"\nauth = \"public\"\nmax_body = \"10B\"\n\
         [[routes]]\npath = \"/private\"\n[providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:9\"\n"
    )
}

fn house(upstream: SocketAddr) -> House {
    House::start(&table(upstream))
}

#[test]
fn a_request_body_goes_on_before_its_end_has_come() {
    let (tell, told) = pair();
    let house = house(scripted(move |mut wire: Wire| {
        let head = wire.head();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        for _ in 0..2 {
            wire.line();
            let _ = tell.lock().send(wire.line());
            wire.line();
        }
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }));
    let mut client = Client::connect(house.address);
    client.write(
        b"POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n",
    );
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "first\n");
    client.write(b"7\r\nsecond\n\r\n0\r\n\r\n");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "second\n");
    assert_eq!(client.read().text(), "ok");
}

#[test]
fn a_response_body_goes_on_before_its_end_has_come() {
    let (go, wait) = pair::<()>();
    let wait = Mutex::new(wait);
    let house = house(scripted(move |mut wire: Wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst\n");
        let _ = wait.lock().recv();
        wire.say("secon\n");
    }));
    let mut client = Client::connect(house.address);
    client.write(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    while !client.read_line().trim().is_empty() {}
    assert_eq!(client.read_line(), "first\n");
    go.lock().send(()).unwrap();
    assert_eq!(client.read_line(), "secon\n");
}

#[test]
fn events_pass_one_by_one() {
    let (go, wait) = pair::<()>();
    let wait = Mutex::new(wait);
    let house = house(scripted(move |mut wire: Wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for number in 0.. {
            let event = format!("data: {number}\n\n");
            if wait.lock().recv().is_err()
                || !wire.say(&format!("{:x}\r\n{event}\r\n", event.len()))
            {
                return;
            }
        }
    }));
    let mut client = Client::connect(house.address);
    client.write(b"GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    let mut head = String::new();
    loop {
        let line = client.read_line();
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    for number in 0..5 {
        go.lock().send(()).unwrap();
        client.read_line();
        assert_eq!(client.read_line(), format!("data: {number}\n"));
        client.read_line();
        client.read_line();
    }
}

#[test]
fn silence_in_an_event_stream_is_no_timeout() {
    let upstream = scripted(|mut wire: Wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nContent-Length: 10\r\n\r\n");
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
        }
        wire.say("data: 1\n\n\n");
    });
    let house = House::start(&table(upstream).replacen(
        "[[routes]]",
        "idle_timeout = \"200ms\"\n[[routes]]",
        1,
    ));
    assert_eq!(house.get("/events", &[]).text(), "data: 1\n\n\n");
}

#[test]
fn a_hundred_megabytes_each_way_take_no_memory() {
    const SIZE: usize = 100 << 20;
    let upstream = scripted(|mut wire: Wire| {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let head = wire.head();
            if head.is_empty() {
                return;
            }
            if head.starts_with("POST") {
                let mut left = SIZE;
                while left > 0 {
                    match wire.some(&mut buffer[..left.min(64 * 1024)]) {
                        0 => return,
                        read => left -= read,
                    }
                }
                wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            } else {
                wire.say(&format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"
                ));
                for _ in 0..SIZE / buffer.len() {
                    if !wire.say_bytes(&buffer) {
                        return;
                    }
                }
            }
        }
    });
    let gateway = Gateway::start("max_body = \"unlimited\"", &table(upstream));
    assert_eq!(gateway.get("/livez").status, 200);
    let before = gateway.memory("VmRSS");
    let mut client = Client::connect(gateway.address);
    client.write(
        format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(),
    );
    let chunk = vec![b'x'; 64 * 1024];
    for _ in 0..SIZE / chunk.len() {
        assert!(client.try_write(&chunk));
    }
    assert_eq!(client.read().text(), "ok");
    // A client that does not read yet must not make the gateway read ahead.
    client.write(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    while !client.read_line().trim().is_empty() {}
    client.skip(SIZE as u64);
    let peak = gateway.memory("VmHWM");
    assert!(
        peak < before + 16 * 1024,
        "{before} KiB before, {peak} KiB at most"
    );
}

#[test]
fn an_upstream_that_answers_before_the_upload_has_ended_is_heard() {
    // It keeps reading, or it closes at once.
    for closes in [false, true] {
        let house = house(scripted(move |mut wire: Wire| {
            wire.head();
            wire.say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
            if !closes {
                while wire.some(&mut [0; 65536]) > 0 {}
            }
        }));
        let mut client = Client::connect(house.address);
        client.write(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
        let chunk = [b'x'; 50_000];
        for _ in 0..100 {
            if !client.try_write(&chunk) {
                break;
            }
        }
        let answer = client.read();
        assert_eq!(
            (answer.status, &*answer.text()),
            (413, "big"),
            "closes: {closes}"
        );
        let record = &house.log.wait_for(1)[0];
        assert_eq!(record["status"], 413);
        assert_eq!(record["upstream"], "app");
    }
}

#[test]
fn a_refusal_reaches_a_client_that_goes_on_uploading() {
    let house = house(SocketAddr::from(([127, 0, 0, 1], 9)));
    for _ in 0..5 {
        let mut client = Client::connect(house.address);
        client.write(b"POST /private HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n");
        let chunk = [b'x'; 50_000];
        for _ in 0..100 {
            if !client.try_write(&chunk) {
                break;
            }
        }
        assert_eq!(client.read().code(), "missing_credentials");
        assert!(client.is_closed());
    }
}

#[test]
fn a_client_that_goes_away_ends_the_upstreams_work() {
    let (tell, told) = pair();
    let house = house(scripted(move |mut wire: Wire| {
        let head = wire.head();
        if head.starts_with("GET /body") {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart\n");
        }
        // The connection ends.
        assert_eq!(wire.some(&mut [0; 10]), 0);
        let _ = tell
            .lock()
            .send(head.split(' ').nth(1).unwrap_or("").to_owned());
    }));
    // In the middle of an answer, and before it.
    for (path, status) in [("/body", 200), ("/head", 499)] {
        let mut client = Client::connect(house.address);
        client.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        if path == "/body" {
            while client.read_line() != "start\n" {}
        } else {
            std::thread::sleep(Duration::from_millis(100));
        }
        let began = Instant::now();
        drop(client);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), path);
        assert!(began.elapsed() < Duration::from_secs(2));
        eventually(|| {
            house
                .log
                .records()
                .iter()
                .any(|r| r["path"] == path && r["status"] == status)
        });
    }
}

#[test]
fn a_chunked_body_over_its_limit_stops_on_the_way() {
    let (tell, told) = pair();
    let house = house(scripted(move |mut wire: Wire| {
        wire.head();
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match wire.some(&mut buffer) {
                0 => break,
                read => received.extend_from_slice(&buffer[..read]),
            }
        }
        let _ = tell.lock().send(received);
    }));
    let mut client = Client::connect(house.address);
    client.write(
        b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n12345678\r\n",
    );
    client.write(b"8\r\nABCDEFGH\r\n0\r\n\r\n");
    let answer = client.read();
    assert_eq!((answer.status, &*answer.code()), (413, "payload_too_large"));
    let received = String::from_utf8(told.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert!(
        !received.contains("ABC") && !received.ends_with("0\r\n\r\n"),
        "{received}"
    );
    // With a length it is refused before the upstream hears of it.
    let answer = house.request("POST", "/small", &[], "12345678901");
    assert_eq!((answer.status, &*answer.code()), (413, "payload_too_large"));
    assert_eq!(answer.json()["forwarded"], false);
    assert!(told.try_recv().is_err());
}

#[test]
fn a_body_of_just_the_limit_passes() {
    let house = house(scripted(|mut wire: Wire| {
        let head = wire.head();
        if head.contains("chunked") {
            while wire.line() != "0\r\n" {}
        } else {
            wire.some(&mut [0; 10]);
        }
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }));
    assert_eq!(
        house.request("POST", "/small", &[], "1234567890").status,
        200
    );
    let mut client = Client::connect(house.address);
    client.write(b"POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\na\r\n1234567890\r\n0\r\n\r\n");
    assert_eq!(client.read().status, 200);
}

#[test]
fn permission_to_send_a_body_comes_only_after_the_checks() {
    let house = house(scripted(|mut wire: Wire| {
        let head = wire.head();
        assert!(!head.to_lowercase().contains("\r\nexpect:"), "{head}");
        wire.some(&mut [0; 10]);
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }));
    let post = |path: &str| {
        let mut client = Client::connect(house.address);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        );
        client.write(head.as_bytes());
        let line = client.read_line();
        (client, line)
    };
    let (mut client, line) = post("/up");
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    client.read_line();
    client.write(b"body");
    assert_eq!(client.read().text(), "ok");
    let (_, line) = post("/private");
    assert!(line.starts_with("HTTP/1.1 401 "), "{line}");
    let mut client = Client::connect(house.address);
    client.write(
        b"POST /up HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 4\r\n\r\nbody",
    );
    assert_eq!(client.read().code(), "expectation_failed");
}

/// One answer as it stands on the wire, until the gateway closes.
fn raw(house: &House, method: &str, path: &str, extra: &str) -> String {
    let mut client = Client::connect(house.address);
    client.write(
        format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{extra}\r\n")
            .as_bytes(),
    );
    String::from_utf8(client.rest()).unwrap()
}

/// Answers by path.
fn by_path(wire: &mut Wire) {
    loop {
        let head = wire.head();
        let answer = match head.split(' ').nth(1) {
            None => return,
            Some("/length") => "200 OK\r\nContent-Length: 5\r\n\r\nhello",
            Some("/chunked") => {
                "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
            }
            Some("/until-close") => {
                wire.say("HTTP/1.1 200 OK\r\n\r\nhello");
                return;
            }
            Some("/204") => "204 No Content\r\n\r\n",
            Some("/304") => "304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 5\r\n\r\n",
            Some("/trailers") => {
                "200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum, X-User-Id, Set-Cookie\r\n\r\n\
                 5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-User-Id: root\r\nSet-Cookie: a=b\r\n\r\n"
            }
            Some("/early") => {
                "103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
            }
            Some(other) => panic!("{other}"),
        };
        let answer = match head.starts_with("HEAD ") {
            true => &answer[..answer.find("\r\n\r\n").unwrap() + 4],
            false => answer,
        };
        wire.say(&format!("HTTP/1.1 {answer}"));
    }
}

#[test]
fn every_framing_arrives_in_one_piece() {
    let house = house(scripted(|mut wire: Wire| by_path(&mut wire)));
    let count = |text: &str, name: &str| text.to_lowercase().matches(name).count();
    let text = raw(&house, "GET", "/length", "");
    assert!(text.ends_with("\r\n\r\nhello"), "{text}");
    assert_eq!(
        (
            count(&text, "\r\ncontent-length: 5"),
            count(&text, "transfer-encoding")
        ),
        (1, 0),
        "{text}"
    );
    for path in ["/chunked", "/until-close"] {
        let text = raw(&house, "GET", path, "");
        assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
        assert_eq!(
            (
                count(&text, "content-length"),
                count(&text, "\r\ntransfer-encoding: chunked")
            ),
            (0, 1),
            "{text}"
        );
    }
    let text = raw(&house, "GET", "/early", "");
    assert!(
        text.starts_with("HTTP/1.1 200 OK") && text.ends_with("hello"),
        "{text}"
    );
}

#[test]
fn answers_without_a_body_have_none_and_the_connection_goes_on() {
    let house = house(scripted(|mut wire: Wire| by_path(&mut wire)));
    let mut client = Client::connect(house.address);
    for (method, path, status, length) in [
        ("HEAD", "/length", 200, Some("5")),
        ("HEAD", "/chunked", 200, None),
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, None),
        ("HEAD", "/304", 304, None),
        ("HEAD", "/204", 204, None),
        ("GET", "/length", 200, Some("5")),
    ] {
        client.write(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let answer = client.try_read(method == "HEAD").unwrap();
        assert_eq!(answer.status, status, "{method} {path}");
        if status == 200 {
            assert_eq!(answer.header("content-length"), length, "{method} {path}");
        }
        if path == "/304" {
            assert_eq!(answer.header("etag"), Some("\"a\""));
        }
        if status == 204 {
            assert_eq!(answer.header("content-length"), None);
        }
    }
    // Our own refusals, too.
    let refused = house.request("HEAD", "/private", &[], "");
    assert_eq!(refused.status, 401);
    assert!(refused.header("content-length").is_some_and(|l| l != "0"));
    let records = house.log.wait_for(8);
    assert!(
        records[..6].iter().all(|r| r["bytes_out"] == 0),
        "{records:?}"
    );
}

#[test]
fn trailers_pass_to_those_who_take_them_and_carry_nothing_forbidden() {
    let house = house(scripted(|mut wire: Wire| by_path(&mut wire)));
    let text = raw(&house, "GET", "/trailers", "TE: trailers\r\n");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body.to_lowercase(),
        "5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n",
        "{text}"
    );
    let text = raw(&house, "GET", "/trailers", "");
    assert!(text.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{text}");
}

#[test]
fn requests_that_are_sent_together_are_answered_in_turn() {
    let house = house(scripted(|mut wire: Wire| by_path(&mut wire)));
    let mut client = Client::connect(house.address);
    client.write(
        b"GET /length HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /chunked HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    let statuses: Vec<_> = (0..3).map(|_| client.read().status).collect();
    assert_eq!(statuses, [200, 204, 200]);
}
