//! When a connection is used again, and when it is closed.

use super::fixture::{Fixture, Worker, nobody, read, request};
use crate::base::body::Body;
use crate::upstream::{SendError, Totals};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nhello";

#[tokio::test]
async fn three_requests_use_one_connection() {
    for answer in [HELLO, CHUNKED] {
        let fixture = Fixture::answering(answer).await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        for _ in 0..3 {
            let (status, body) = worker.read().await;
            assert_eq!((status, body.as_ref()), (200, &b"hello"[..]));
            assert_eq!(worker.in_flight(), 0);
        }
        assert_eq!(fixture.connections(), 1);
        let totals = Totals {
            open: 1,
            idle: 1,
            dials: 1,
            reused: 2,
        };
        assert_eq!(worker.upstream.totals(), totals);
    }
}

#[tokio::test]
async fn an_answer_without_a_body_gives_the_connection_back_at_once() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let fixture = Fixture::answering(answer).await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        for _ in 0..3 {
            let response = worker.send(request(method, Body::empty())).await.unwrap();
            assert_eq!((worker.idle(), worker.in_flight()), (1, 0), "{answer}");
            assert_eq!(read(response).await.unwrap().1, "");
        }
        assert_eq!(fixture.connections(), 1);
    }
}

#[tokio::test]
async fn a_body_dropped_early_costs_the_connection_at_once() {
    let mut fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write(LONG).await;
        peer.closed().await;
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let response = worker.get().await.unwrap();
    assert_eq!((worker.open(), worker.in_flight()), (1, 1));
    drop(response);
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
    drop(worker.get().await.unwrap());
    assert_eq!(fixture.connections(), 2);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_closes_the_connection() {
    let asked = Arc::new(Notify::new());
    let told = asked.clone();
    let mut fixture = Fixture::tcp(move |mut peer| {
        let told = told.clone();
        async move {
            peer.head().await;
            told.notify_one();
            peer.closed().await;
        }
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    tokio::select! {
        _ = worker.get() => panic!("there is no answer"),
        () = asked.notified() => {}
    }
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
}

#[tokio::test]
async fn no_more_connections_are_kept_than_max_idle() {
    let fixture = Fixture::answering(HELLO).await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.config.max_idle = 2;
    let worker = worker.start();
    let answers: Vec<_> = {
        let all = (0..5).map(|_| worker.get());
        futures_util::future::join_all(all).await
    };
    assert_eq!((worker.open(), worker.in_flight()), (5, 5));
    for answer in answers {
        read(answer.unwrap()).await.unwrap();
    }
    assert_eq!((worker.open(), worker.idle()), (2, 2));
    assert_eq!(fixture.connections(), 5);
}

#[tokio::test]
async fn the_newest_connection_is_taken_first() {
    let fixture = Fixture::tcp(|mut peer| async move {
        while peer.head().await.is_some() {
            let number = peer.number;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n".to_owned();
            peer.write(&(head + &number.to_string())).await;
        }
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let (first, second) = tokio::join!(worker.get(), worker.get());
    let (_, first) = read(first.unwrap()).await.unwrap();
    let (_, second) = read(second.unwrap()).await.unwrap();
    assert_ne!(first, second);
    for _ in 0..3 {
        assert_eq!(worker.read().await.1, second);
    }
}

#[tokio::test]
async fn a_connection_idle_too_long_or_too_old_is_not_used_again() {
    type Change = fn(&mut Worker);
    let changes: [Change; 2] = [|w| w.limits.idle_plain = 0, |w| w.limits.life = 0];
    for change in changes {
        let mut fixture = Fixture::answering(HELLO).await;
        let mut worker = Worker::of(&[&fixture.endpoint]);
        change(&mut worker);
        let worker = worker.start();
        for _ in 0..3 {
            worker.read().await;
        }
        assert_eq!(fixture.connections(), 3);
        assert_eq!(worker.idle(), 1);
        worker.pools.reap();
        assert_eq!((worker.open(), worker.idle()), (0, 0));
        fixture.ended(3).await;
    }
}

#[tokio::test]
async fn reaping_leaves_what_is_fresh() {
    let fixture = Fixture::answering(HELLO).await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    worker.read().await;
    worker.pools.reap();
    worker.read().await;
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn an_upstream_that_says_how_long_it_waits_is_believed() {
    let fixture = Fixture::answering(
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1, max=9\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    worker.read().await;
    worker.read().await;
    // A second less than one second is no time at all.
    assert_eq!(fixture.connections(), 2);

    let fixture = Fixture::answering(
        "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=30\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.limits.idle_plain = 0;
    let worker = worker.start();
    worker.read().await;
    worker.read().await;
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn an_upstream_that_closes_after_each_answer_is_dialled_each_time() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\n\r\nhello",
    ] {
        let fixture = Fixture::tcp(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
        })
        .await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        for count in 1..=3 {
            assert_eq!(worker.read().await.1, "hello", "{answer}");
            assert_eq!(fixture.connections(), count);
        }
        worker.pools.reap();
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

/// The upstream closes an idle connection, and before this worker can have seen it, the next request comes: both
/// become known in one turn of the reactor, and the request is first.
#[tokio::test]
async fn a_request_that_meets_a_closed_connection_unwritten_is_sent_on_a_fresh_one() {
    for (method, retries) in [("GET", 1), ("POST", 1), ("POST", 0)] {
        let (mut here, there) = tokio::net::UnixStream::pair().unwrap();
        let (close, there) = (
            Arc::new(Notify::new()),
            Arc::new(tokio::sync::Mutex::new(there)),
        );
        let closing = close.clone();
        let fixture = Fixture::tcp(move |mut peer| {
            let (close, there) = (closing.clone(), there.clone());
            async move {
                if peer.number > 0 {
                    return peer.answer_all(HELLO).await;
                }
                let head = peer.head().await.unwrap();
                if head.starts_with("POST") {
                    peer.body(4).await;
                }
                peer.write(HELLO).await;
                close.notified().await;
                drop(peer);
                there.lock().await.write_all(b"x").await.unwrap();
            }
        })
        .await;
        let mut worker = Worker::of(&[&fixture.endpoint]);
        worker.terms.retries = retries;
        let worker = worker.start();
        let body = || match method {
            "POST" => Body::full("data"),
            _ => Body::empty(),
        };
        let first = worker.send(request(method, body())).await.unwrap();
        read(first).await.unwrap();
        assert_eq!(worker.idle(), 1);
        close.notify_one();
        here.read_u8().await.unwrap();
        let second = worker.send(request(method, body())).await.unwrap();
        assert_eq!(read(second).await.unwrap().0, 200);
        let totals = worker.upstream.totals();
        assert_eq!((totals.dials, totals.reused), (2, 1), "it met no idle one");
        assert_eq!((worker.open(), worker.in_flight()), (1, 0));
    }
}

#[tokio::test]
async fn a_request_of_which_bytes_were_written_is_never_repeated() {
    for method in ["GET", "POST"] {
        let fixture = Fixture::tcp(|mut peer| async move {
            peer.head().await;
            peer.write(HELLO).await;
            peer.head().await;
        })
        .await;
        let mut worker = Worker::of(&[&fixture.endpoint]);
        worker.terms.retries = 5;
        let worker = worker.start();
        worker.read().await;
        let error = worker
            .send(request(method, Body::full("data")))
            .await
            .unwrap_err();
        assert!(matches!(error, SendError::Protocol { .. }), "{error:?}");
        assert!(error.forwarded());
        assert_eq!(fixture.connections(), 1);
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn bytes_that_come_unasked_close_the_connection() {
    let mut fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write(HELLO).await;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
            .await;
        peer.closed().await;
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    assert_eq!(worker.read().await.1, "hello");
    fixture.ended(1).await;
    assert_eq!(worker.read().await.1, "hello");
    assert_eq!(fixture.connections(), 2);
}

#[tokio::test]
async fn when_an_upstream_leaves_the_configuration_its_connections_close() {
    let mut fixture = Fixture::answering(HELLO).await;
    let mut worker = Worker::of(&[&fixture.endpoint]).start();
    let under_way = worker.get().await.unwrap();
    worker.read().await;
    let other = Worker::of(&[&nobody().await]).start();
    worker.upstream = other.upstream;
    worker.pools.reap();
    fixture.ended(1).await;
    assert_eq!(read(under_way).await.unwrap().1, "hello");
    fixture.ended(2).await;
}

#[tokio::test]
async fn closing_the_pools_closes_what_is_idle_and_then_what_was_under_way() {
    let mut fixture = Fixture::answering(HELLO).await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let under_way = worker.get().await.unwrap();
    worker.read().await;
    assert_eq!((worker.open(), worker.idle()), (2, 1));
    worker.pools.close();
    assert_eq!((worker.open(), worker.idle()), (1, 0));
    fixture.ended(1).await;
    let body = under_way.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(2).await;
}
