//! Connections to upstreams: kept, renewed, spread, given up; and what clients are told when it does not work.

use crate::support::{
    Answer, Client, House, Reply, Upstream, Wire, eventually, free_port, scripted,
};
use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A public route to an upstream with these lines.
fn house(upstream: &str) -> House {
    House::start(&format!(
        "[upstreams.app]\n{upstream}\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n"
    ))
}

fn url(address: SocketAddr) -> String {
    format!("url = \"http://{address}\"")
}

/// The refusal of a failed try: status, code, whether it was forwarded.
fn refused(answer: &Answer) -> (u16, String, bool) {
    let forwarded = answer.json()["forwarded"].as_bool().unwrap();
    (answer.status, answer.code(), forwarded)
}

#[test]
fn connections_are_shared_by_clients() {
    let upstream = Upstream::start();
    let house = house(&url(upstream.address));
    for _ in 0..30 {
        assert_eq!(house.get("/", &[]).status, 200);
    }
    assert_eq!(upstream.count(), 30);
    // One for each worker.
    assert!(upstream.connections() <= 2, "{}", upstream.connections());
}

#[test]
fn a_connection_that_the_upstream_closed_is_replaced_unnoticed() {
    let upstream = Upstream::start();
    upstream.reply(Reply::bytes_and_close(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ));
    let house = house(&url(upstream.address));
    for number in 1..=10 {
        assert_eq!(house.get("/", &[]).text(), "ok");
        assert_eq!(upstream.connections(), number);
        std::thread::sleep(Duration::from_millis(10));
    }
    // And one that says so beforehand.
    upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ));
    for _ in 0..5 {
        assert_eq!(house.get("/", &[]).text(), "ok");
    }
    assert_eq!(upstream.connections(), 15);
}

#[test]
fn an_answer_that_was_not_read_to_its_end_taints_nothing() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let house = house(&url(scripted(move |mut wire: Wire| {
        counted.fetch_add(1, Ordering::SeqCst);
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            std::thread::sleep(Duration::from_millis(50));
            wire.say("world");
        }
    })));
    for _ in 0..3 {
        let mut client = Client::connect(house.address);
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        while !client.read_line().trim().is_empty() {}
    }
    eventually(|| house.log.records().len() == 3);
    assert_eq!(house.get("/", &[]).text(), "helloworld");
    assert_eq!(count.load(Ordering::SeqCst), 4);
}

#[test]
fn a_request_that_was_written_is_never_repeated() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Close);
    let house = house(&format!("{}\nretries = 3", url(upstream.address)));
    for (number, method) in ["GET", "POST"].into_iter().enumerate() {
        let answer = house.request(method, "/", &[], "");
        assert_eq!(
            refused(&answer),
            (502, "upstream_protocol_error".into(), true)
        );
        assert_eq!(upstream.count(), number + 1);
    }
    assert!(
        house
            .log
            .wait_for(2)
            .iter()
            .all(|r| r["code"] == "upstream_protocol_error")
    );
}

#[test]
fn one_of_several_that_is_down_is_not_noticed() {
    let (one, two) = (Upstream::start(), Upstream::start());
    for extra in ["", "balance = \"round_robin\"", "balance = \"hash:ip\""] {
        let down = free_port();
        let house = house(&format!(
            "urls = [\"http://127.0.0.1:{down}\", \"{}\", \"{}\"]\n{extra}",
            one.url(),
            two.url()
        ));
        for number in 0..20 {
            // Not one byte was written: any method may be sent elsewhere, with its body.
            let answer = house.request("POST", "/", &[], "body");
            assert_eq!(answer.status, 200, "{extra} {number}");
        }
    }
    assert!(one.count() + two.count() == 60);
    assert!(one.received().iter().all(|r| r.body == b"body"));
}

#[test]
fn the_less_busy_of_two_gets_the_next_request() {
    let (busy, free) = (Upstream::start(), Upstream::start());
    busy.reply(Reply::Silence);
    free.reply(Reply::Silence);
    let house = house(&format!("urls = [\"{}\", \"{}\"]", busy.url(), free.url()));
    let mut waiting = Vec::new();
    for number in 1..=10 {
        let mut client = Client::connect(house.address);
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        eventually(|| busy.count() + free.count() == number);
    }
    assert_eq!((busy.count(), free.count()), (5, 5));
}

#[test]
fn an_upstream_that_is_down_is_502_and_nothing_was_forwarded() {
    let house = house(&format!("url = \"http://127.0.0.1:{}\"", free_port()));
    let answer = house.get("/", &[]);
    assert_eq!(
        refused(&answer),
        (502, "upstream_unreachable".into(), false)
    );
    // Neither its address nor what the system said is for the client.
    assert!(
        !answer.text().contains("127.0.0.1") && !answer.text().contains("refused"),
        "{}",
        answer.text()
    );
}

#[test]
fn an_upstream_on_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let heads = Arc::new(Mutex::new(String::new()));
    let kept = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    break;
                }
            }
            kept.lock().push_str(&head);
            let _ = reader
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
        }
    });
    let house = house(&format!("url = \"unix:{}\"", path.display()));
    assert_eq!(house.get("/x", &[("Host", "app.example")]).text(), "ok");
    let head = heads.lock().clone();
    assert!(head.starts_with("GET /x HTTP/1.1\r\n"), "{head}");
    assert!(
        head.to_lowercase().contains("\r\nhost: app.example\r\n"),
        "{head}"
    );
    drop(folder);
    assert_eq!(house.get("/x", &[]).code(), "upstream_unreachable");
}

#[test]
fn no_answer_in_time_is_504() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = house(&format!("{}\ntimeout = \"300ms\"", url(upstream.address)));
    let began = Instant::now();
    let answer = house.get("/", &[]);
    assert_eq!(refused(&answer), (504, "upstream_timeout".into(), true));
    assert!(
        began.elapsed() >= Duration::from_millis(300) && began.elapsed() < Duration::from_secs(3)
    );
    assert_eq!(upstream.count(), 1);
    // A late answer must not be the next one's.
    upstream.reply(Reply::Ok);
    assert_eq!(house.get("/", &[]).text(), "ok");
}

#[test]
fn a_route_may_have_a_timeout_of_its_own() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = House::start(&format!(
        "[upstreams.app]\n{}\n[[routes]]\npath = \"/*\"\nauth = \"public\"\ntimeout = \"200ms\"\n",
        url(upstream.address)
    ));
    assert_eq!(house.get("/", &[]).code(), "upstream_timeout");
}

#[test]
fn silence_in_a_body_breaks_it_off_and_the_client_can_tell() {
    for framing in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let house = house(&format!(
            "{}\nidle_timeout = \"300ms\"",
            url(scripted(move |mut wire: Wire| {
                wire.head();
                wire.say(&format!("HTTP/1.1 200 OK\r\n{framing}"));
                wire.head();
            }))
        ));
        let mut client = Client::connect(house.address);
        let began = Instant::now();
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = String::from_utf8(client.rest()).unwrap();
        assert!(
            text.contains("hello") && !text.ends_with("0\r\n\r\n"),
            "{text}"
        );
        assert!(
            began.elapsed() >= Duration::from_millis(300)
                && began.elapsed() < Duration::from_secs(3)
        );
        assert_eq!(house.log.wait_for(1)[0]["status"], 200);
    }
}

#[test]
fn an_upstream_that_breaks_off_in_a_body_breaks_the_clients_off() {
    for framing in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let upstream = Upstream::start();
        upstream.reply(Reply::bytes_and_close(&format!(
            "HTTP/1.1 200 OK\r\n{framing}"
        )));
        let house = house(&url(upstream.address));
        let mut client = Client::connect(house.address);
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = String::from_utf8(client.rest()).unwrap();
        // hyper may have no chance to send the part that came with the end.
        assert!(
            !text.ends_with("0\r\n\r\n") && !text.contains("HTTP/1.1 502"),
            "{text}"
        );
        assert_eq!(house.log.wait_for(1).len(), 1);
    }
}

#[test]
fn a_connection_that_does_not_come_about_in_time_is_given_up() {
    // A backlog that is full: the kernel lets further connections wait.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut full = Vec::new();
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
    {
        full.push(stream);
        assert!(full.len() < 100, "this kernel has no end of room");
    }
    let house = house(&format!(
        "{}\nconnect_timeout = \"200ms\"\nretries = 0",
        url(address)
    ));
    let began = Instant::now();
    let answer = house.get("/", &[]);
    assert_eq!(
        refused(&answer),
        (502, "upstream_unreachable".into(), false)
    );
    assert!(
        began.elapsed() >= Duration::from_millis(200) && began.elapsed() < Duration::from_secs(3)
    );
}

#[test]
fn beyond_max_in_flight_is_503_at_once() {
    let upstream = Upstream::start();
    upstream.reply(Reply::Silence);
    let house = house(&format!("{}\nmax_in_flight = 2", url(upstream.address)));
    let mut waiting = Vec::new();
    for number in 1..=2 {
        let mut client = Client::connect(house.address);
        client.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        waiting.push(client);
        eventually(|| upstream.count() == number);
    }
    let answer = house.get("/", &[]);
    assert_eq!(
        refused(&answer),
        (503, "upstream_unavailable".into(), false)
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(upstream.count(), 2);
    // Places come back when clients go away.
    upstream.reply(Reply::Ok);
    drop(waiting);
    eventually(|| house.get("/", &[]).status == 200);
}

#[test]
fn what_is_no_answer_is_502() {
    for bytes in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX-Long",
        "",
    ] {
        let upstream = Upstream::start();
        upstream.reply(Reply::bytes_and_close(bytes));
        let house = house(&url(upstream.address));
        let answer = house.get("/", &[]);
        assert_eq!(
            refused(&answer),
            (502, "upstream_protocol_error".into(), true),
            "{bytes}"
        );
        assert_eq!(house.get("/", &[]).status, 502);
    }
    let upstream = Upstream::start();
    upstream.reply(Reply::bytes(&format!(
        "HTTP/1.1 200 OK\r\nX-Long: {}\r\n\r\n",
        "x".repeat(200_000)
    )));
    let house = house(&url(upstream.address));
    assert_eq!(house.get("/", &[]).code(), "upstream_protocol_error");
}

#[test]
fn both_length_and_chunks_are_read_as_chunks_and_told_as_one() {
    let upstream = Upstream::start();
    upstream.reply(Reply::bytes("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"));
    let house = house(&url(upstream.address));
    let answer = house.get("/", &[]);
    assert_eq!(
        (&*answer.text(), answer.header("content-length")),
        ("hello", None)
    );
}

#[test]
fn a_base_path_and_the_query_go_before_and_behind() {
    let upstream = Upstream::start();
    let house = house(&format!("url = \"{}/base\"", upstream.url()));
    assert_eq!(house.get("/a?b=c&b=d", &[]).status, 200);
    assert_eq!(upstream.only().path(), "/base/a?b=c&b=d");
}
