//! What a connection may take: time for heads, bodies and reads, and places. `body_min_rate` is tested beside the code.

use crate::process::Gateway;
use crate::support::{Client, House, Wire, about, eventually, scripted};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A gateway with these lines in `[server]` and a public route to an upstream of this address.
fn house(server: &str, upstream: SocketAddr) -> House {
    House::start(&format!(
        "[server]\n{server}\n[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/ours\"\nauth = \"public\"\nrespond = {{ status = 200, body = \"ours\" }}\n"
    ))
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9))
}

const OURS: &[u8] = b"GET /ours HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_head_that_drips_in_does_not_put_its_deadline_off() {
    let house = house("header_timeout = \"400ms\"", nowhere());
    let mut client = Client::connect(house.address);
    // Silence before the first byte is not the head's.
    sleep(Duration::from_millis(200));
    let began = Instant::now();
    client.write(b"GET /ours HTTP/1.1\r\nHost: a\r\nX-Slow: ");
    let mut dripped = 0;
    while client.try_write(b"a") {
        dripped += 1;
        sleep(Duration::from_millis(20));
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "it drips for ever"
        );
    }
    about(began, 400);
    assert!(dripped > 5);
    assert!(client.is_closed());
}

#[test]
fn a_head_that_stops_is_closed_and_leaves_no_record() {
    let house = house("header_timeout = \"200ms\"", nowhere());
    let mut client = Client::connect(house.address);
    let began = Instant::now();
    client.write(b"GET /ours HTTP/1.1\r\nHost");
    assert!(client.is_closed());
    about(began, 200);
    assert!(house.log.records().is_empty());
}

#[test]
fn the_second_head_of_a_connection_has_the_same_time() {
    let house = house("header_timeout = \"200ms\"", nowhere());
    let mut client = Client::connect(house.address);
    client.write(OURS);
    assert_eq!(client.read().status, 200);
    let began = Instant::now();
    client.write(b"GET /ours HTTP/1.1\r\n");
    assert!(client.is_closed());
    about(began, 200);
}

#[test]
fn keep_alive_counts_from_the_last_answer() {
    let house = house("keep_alive = \"400ms\"", nowhere());
    let mut client = Client::connect(house.address);
    for _ in 0..4 {
        client.write(OURS);
        assert_eq!(client.read().status, 200);
        sleep(Duration::from_millis(150));
    }
    client.write(OURS);
    assert_eq!(client.read().status, 200);
    let began = Instant::now();
    assert!(client.is_closed());
    about(began, 350);
}

#[test]
fn a_connection_that_never_says_a_word_is_closed() {
    let house = house("keep_alive = \"200ms\"", nowhere());
    let began = Instant::now();
    let mut client = Client::connect(house.address);
    assert!(client.is_closed());
    about(began, 200);
    eventually(|| house.metric("tollhouse_connections") == 0.0);
}

#[test]
fn a_request_in_progress_is_not_idle() {
    let upstream = scripted(|mut wire: Wire| {
        wire.head();
        sleep(Duration::from_millis(200));
        sleep(Duration::from_millis(200));
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow");
    });
    let house = house(
        "keep_alive = \"100ms\"\nheader_timeout = \"100ms\"",
        upstream,
    );
    assert_eq!(house.get("/slow", &[]).text(), "slow");
}

#[test]
fn a_body_that_stops_is_answered_with_408() {
    let house = house(
        "body_idle_timeout = \"300ms\"",
        scripted(|mut wire| while wire.some(&mut [0; 1024]) > 0 {}),
    );
    for head in [
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
        "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "POST /up HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n",
    ] {
        let mut client = Client::connect(house.address);
        let began = Instant::now();
        client.write(head.as_bytes());
        let answer = client.read();
        about(began, 300);
        assert_eq!((answer.status, &*answer.code()), (408, "request_timeout"));
        assert_eq!(answer.json()["forwarded"], true);
        // The rest of the body may still come: nothing else can be read from this connection.
        assert!(client.is_closed());
    }
    let records = house.log.wait_for(3);
    assert!(records.iter().all(|r| r["code"] == "request_timeout"));
}

#[test]
fn a_body_that_goes_on_slowly_is_taken() {
    let house = house(
        "body_idle_timeout = \"300ms\"",
        scripted(|mut wire| {
            wire.head();
            let mut bytes = [0; 10];
            let mut read = 0;
            while read < 10 {
                read += wire.some(&mut bytes[read..]);
            }
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }),
    );
    let mut client = Client::connect(house.address);
    client.write(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        sleep(Duration::from_millis(60));
        client.write(b"x");
    }
    assert_eq!(client.read().status, 200);
}

#[test]
fn a_client_that_reads_nothing_is_let_go_and_so_is_its_upstream() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = parking_lot::Mutex::new(tell);
    let upstream = scripted(move |mut wire: Wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let chunk = vec![b'x'; 64 * 1024];
        while wire.say_bytes(&chunk) {}
        let _ = tell.lock().send(());
    });
    let house = house("write_idle_timeout = \"300ms\"", upstream);
    let mut client = Client::connect(house.address);
    let began = Instant::now();
    client.write(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
    told.recv_timeout(Duration::from_secs(10))
        .expect("the upstream's connection is closed");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let record = &house.log.wait_for(1)[0];
    assert_eq!(record["status"], 200);
    assert!(record["bytes_out"].as_u64().unwrap() < 100_000_000);
    eventually(|| house.metric("tollhouse_connections") == 0.0);
    drop(client);
}

#[test]
fn a_client_that_reads_slowly_is_served() {
    let upstream = scripted(|mut wire: Wire| {
        wire.head();
        wire.say("HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n");
        wire.say_bytes(&vec![b'x'; 16 << 20]);
    });
    let house = house("write_idle_timeout = \"500ms\"", upstream);
    let mut client = Client::connect(house.address);
    client.write(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    // Longer than the timeout all in all, never as long without reading. Reads are large: a kernel opens the window
    // of a full buffer only when a good part of it is free.
    for _ in 0..5 {
        sleep(Duration::from_millis(150));
        client.skip(2 << 20);
    }
    assert!(client.rest().len() > 5 << 20);
    assert_eq!(house.log.wait_for(1)[0]["bytes_out"], 16 << 20);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_places_come_back() {
    let house = house("max_connections = 2", nowhere());
    let mut first = Client::connect(house.address);
    first.write(OURS);
    assert_eq!(first.read().status, 200);
    let mut second = Client::connect(house.address);
    second.write(OURS);
    assert_eq!(second.read().status, 200);
    assert!(Client::connect(house.address).is_closed());
    drop(first);
    eventually(|| {
        let mut client = Client::connect(house.address);
        client.write(OURS);
        client
            .try_read(false)
            .is_some_and(|answer| answer.status == 200)
    });
    second.write(OURS);
    assert_eq!(second.read().status, 200);
}

#[test]
fn one_address_cannot_take_the_places_of_others() {
    let house = house("max_connections_per_ip = 2", nowhere());
    let from = |host: u8| {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, host], 0)).into())
            .unwrap();
        socket.connect(&house.address.into()).unwrap();
        let mut client = Client::over(socket.into());
        client.write(OURS);
        let served = client.try_read(false).is_some();
        (client, served)
    };
    let (first, served) = from(2);
    assert!(served);
    let (_second, served) = from(2);
    assert!(served);
    assert!(!from(2).1);
    assert!(from(3).1);
    drop(first);
    eventually(|| from(2).1);
}

#[test]
fn silent_clients_leave_no_descriptors_behind() {
    let gateway = Gateway::start(
        "keep_alive = \"1s\"",
        "[[routes]]\npath = \"/*\"\nauth = \"public\"\nrespond = { status = 200, body = \"ours\" }\n",
    );
    assert_eq!(gateway.get("/").status, 200);
    // The connection of this request may still be among them.
    let baseline = gateway.descriptors();
    let clients: Vec<_> = (0..200).map(|_| Client::connect(gateway.address)).collect();
    eventually(|| gateway.descriptors() >= baseline + 190);
    eventually(|| gateway.descriptors() <= baseline);
    drop(clients);
    assert_eq!(gateway.get("/").status, 200);
}
