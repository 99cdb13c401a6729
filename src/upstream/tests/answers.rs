//! What an upstream may say, and what becomes of the rest.

use super::fixture::{Fixture, Worker, read};
use crate::base::body::BodyError;
use crate::upstream::{Fault, SendError};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use std::time::Duration;

#[tokio::test]
async fn an_answer_with_two_framings_goes_on_with_one() {
    let fixture = Fixture::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    for _ in 0..2 {
        let response = worker.get().await.unwrap();
        assert!(!response.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(response.headers()[TRANSFER_ENCODING], "chunked");
        assert_eq!(read(response).await.unwrap().1, "hello");
    }
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn what_is_not_a_plain_answer_is_a_protocol_error() {
    let check = async |answer: &'static str, expected: fn(&Fault) -> bool| {
        let fixture = Fixture::tcp(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
        })
        .await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        let error = worker.get().await.unwrap_err();
        assert!(error.forwarded());
        match error {
            SendError::Protocol { source, .. } if expected(&source) => {}
            other => panic!("{answer:?}: {other:?}"),
        }
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
        assert_eq!(fixture.connections(), 1);
    };
    let http: fn(&Fault) -> bool = |fault| matches!(fault, Fault::Http(_));
    check("", http).await;
    check("HTTP/1.1 200 OK\r\nContent-Le", http).await;
    check("SSH-2.0-OpenSSH_9.9\r\n\r\n", http).await;
    check("HTTP/1.1 999999 OK\r\n\r\n", http).await;
    check("HTTP/1.1 200 OK\r\nA b: c\r\n\r\n", http).await;
    check("HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n", http).await;
    check("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", http).await;
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        http,
    )
    .await;
    let lengths: fn(&Fault) -> bool = |fault| matches!(fault, Fault::Lengths);
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        lengths,
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
        lengths,
    )
    .await;
    let coding: fn(&Fault) -> bool = |fault| matches!(fault, Fault::TransferCoding);
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        coding,
    )
    .await;
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        coding,
    )
    .await;
    check(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        |fault| matches!(fault, Fault::UnaskedUpgrade),
    )
    .await;
}

#[tokio::test]
async fn a_head_without_end_is_given_up() {
    let fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 OK\r\n").await;
        let line = ["X-Long: ", &"a".repeat(1000), "\r\n"].concat();
        while peer.write(&line).await {}
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let error = worker.get().await.unwrap_err();
    assert!(matches!(error, SendError::Protocol { .. }), "{error:?}");
    assert_eq!(worker.open(), 0);
}

#[tokio::test]
async fn a_large_head_passes_and_a_larger_one_does_not() {
    for (kilobytes, passes) in [(60, true), (66, false)] {
        let fixture = Fixture::tcp(move |mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 204 No Content\r\n").await;
            for _ in 0..kilobytes {
                let line = ["X-Long: ", &"a".repeat(1014), "\r\n"].concat();
                peer.write(&line).await;
            }
            peer.write("\r\n").await;
            peer.closed().await;
        })
        .await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        assert_eq!(worker.get().await.is_ok(), passes, "{kilobytes}");
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let fixture = Fixture::answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    )
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    for _ in 0..2 {
        let response = worker.get().await.unwrap();
        assert!(!response.headers().contains_key("link"));
        assert_eq!(read(response).await.unwrap().1, "hello");
    }
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_ends_early_is_cut_and_costs_the_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ] {
        let fixture = Fixture::tcp(move |mut peer| async move {
            peer.head().await;
            peer.write(answer).await;
        })
        .await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        let error = read(worker.get().await.unwrap()).await.unwrap_err();
        assert!(matches!(error, BodyError::Cut(_)), "{answer:?}: {error:?}");
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_given_up() {
    let mut fixture = Fixture::tcp(|mut peer| async move { peer.closed().await }).await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.terms.timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = worker.get().await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert!(error.forwarded());
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
}

#[tokio::test]
async fn silence_within_an_answer_ends_it() {
    let mut fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello")
            .await;
        peer.closed().await;
    })
    .await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.terms.idle_timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = read(worker.get().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, BodyError::Stalled), "{error:?}");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
}
