//! Upgrades: who may switch protocols, and what the connection is then.

use super::fixture::{Fixture, Worker, read, request};
use crate::base::body::Body;
use crate::config::upstream::Protocol;
use crate::upstream::{Fault, SendError, Sent, Switched, Unavailable};
use http::HeaderValue;
use http::header::{CONNECTION, UPGRADE};
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\nX-More: yes\r\n\r\n";

/// Switches when it is asked to, with the first bytes in the same packet, and sends back what comes.
async fn echo() -> Fixture {
    Fixture::tcp(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if !head.contains("upgrade: websocket\r\n") {
                peer.write(HELLO).await;
                continue;
            }
            peer.write(&[SWITCHED, "early"].concat()).await;
            while let Some(bytes) = peer.body(4).await {
                peer.write(std::str::from_utf8(&bytes).unwrap()).await;
            }
        }
    })
    .await
}

fn asking(endpoint: &crate::config::value::Endpoint) -> Worker {
    let mut worker = Worker::of(&[endpoint]);
    worker.terms.upgrade = Some(HeaderValue::from_static("websocket"));
    worker
}

async fn switched(worker: &super::fixture::Started) -> Switched {
    match worker.ask(request("GET", Body::empty())).await.unwrap() {
        Sent::Switched { stream, .. } => stream,
        Sent::Answer(answer) => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn an_upstream_that_is_asked_may_switch_and_bytes_pass_as_they_are() {
    let mut fixture = echo().await;
    let mut worker = asking(&fixture.endpoint).start();
    // A connection that was used before may be the one.
    let upgrade = worker.terms.upgrade.take();
    assert_eq!(worker.read().await.1, "hello");
    worker.terms.upgrade = upgrade;
    let sent = worker.ask(request("GET", Body::empty())).await.unwrap();
    let Sent::Switched { head, mut stream } = sent else {
        panic!("{sent:?}");
    };
    assert_eq!(fixture.connections(), 1);
    assert_eq!(head.headers()[UPGRADE], "WebSocket");
    assert_eq!(head.headers()["x-more"], "yes");
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    for word in [b"ping", b"\0\r\n\0"] {
        stream.write_all(word).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
    drop(stream);
    fixture.ended(1).await;
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
}

#[tokio::test]
async fn who_writes_to_a_switched_connection_that_the_upstream_has_closed_is_told() {
    let mut fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write(SWITCHED).await;
    })
    .await;
    let worker = asking(&fixture.endpoint).start();
    let mut stream = switched(&worker).await;
    fixture.ended(1).await;
    // The first bytes may still go; what comes back for them says that nobody reads.
    let writing = async {
        loop {
            if let Err(error) = stream.write_all(b"ping").await {
                break error;
            }
            tokio::task::yield_now().await;
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(5), writing).await;
    let kind = error.unwrap().kind();
    assert!(
        matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset),
        "{kind}"
    );
    assert!(stream.flush().await.is_err());
}

#[tokio::test]
async fn the_handshake_has_our_upgrade_alone_and_is_http_1_1_whatever_the_protocol() {
    for protocol in [Protocol::Auto, Protocol::Http1, Protocol::H2c] {
        let fixture = Fixture::tcp(|mut peer| async move {
            let head = peer.head().await.unwrap();
            assert_eq!(
                head,
                "GET /path?query HTTP/1.1\r\nhost: app.example.com\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            );
            peer.write(SWITCHED).await;
            peer.closed().await;
        })
        .await;
        let mut worker = asking(&fixture.endpoint);
        worker.config.protocol = protocol;
        let worker = worker.start();
        let mut handshake = request("GET", Body::empty());
        let headers = handshake.headers_mut();
        headers.append(CONNECTION, HeaderValue::from_static("close"));
        headers.append(UPGRADE, HeaderValue::from_static("h2c"));
        let sent = worker.ask(handshake).await.unwrap();
        assert!(matches!(sent, Sent::Switched { .. }), "{sent:?}");
    }
}

#[tokio::test]
async fn a_tunnel_holds_its_place_as_long_as_it_lives() {
    let fixture = echo().await;
    let mut worker = asking(&fixture.endpoint);
    worker.config.max_in_flight = Some(1);
    let worker = worker.start();
    for _ in 0..2 {
        let tunnel = switched(&worker).await;
        assert_eq!(
            (worker.open(), worker.idle(), worker.in_flight()),
            (1, 0, 1)
        );
        worker.pools.reap();
        let full = worker.ask(request("GET", Body::empty())).await.unwrap_err();
        let SendError::Unavailable { reason, .. } = full else {
            panic!("{full:?}");
        };
        assert_eq!(reason, Unavailable::Full);
        drop(tunnel);
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn a_tunnel_ends_where_the_upstream_ends_it() {
    let fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write(&[SWITCHED, "last words"].concat()).await;
    })
    .await;
    let worker = asking(&fixture.endpoint).start();
    let mut tunnel = switched(&worker).await;
    let mut words = String::new();
    tunnel.read_to_string(&mut words).await.unwrap();
    assert_eq!(words, "last words");
}

#[tokio::test]
async fn a_101_of_another_protocol_is_a_protocol_error() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut fixture = Fixture::tcp(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
            peer.closed().await;
        })
        .await;
        let worker = asking(&fixture.endpoint).start();
        let error = worker.ask(request("GET", Body::empty())).await.unwrap_err();
        let SendError::Protocol { source, .. } = error else {
            panic!("{error:?}");
        };
        assert!(matches!(source, Fault::UnaskedUpgrade), "{source:?}");
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
        fixture.ended(1).await;
    }
}

#[tokio::test]
async fn any_other_answer_to_a_handshake_is_an_ordinary_one() {
    for (answer, status) in [
        (HELLO, 200),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        (
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
            426,
        ),
    ] {
        let fixture = Fixture::answering(answer).await;
        let worker = asking(&fixture.endpoint).start();
        for _ in 0..2 {
            match worker.ask(request("GET", Body::empty())).await.unwrap() {
                Sent::Answer(answer) => assert_eq!(read(answer).await.unwrap().0, status),
                Sent::Switched { head, .. } => panic!("{head:?}"),
            }
        }
        assert_eq!(fixture.connections(), 1);
        assert_eq!((worker.idle(), worker.in_flight()), (1, 0));
    }
}

#[tokio::test]
async fn a_handshake_without_an_answer_is_given_up_like_any_request() {
    let mut fixture = Fixture::tcp(|mut peer| async move { peer.closed().await }).await;
    let mut worker = asking(&fixture.endpoint);
    worker.terms.timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = worker.ask(request("GET", Body::empty())).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
}
