//! Which requests go out in HTTP/2, and what becomes of those whose upstream does not speak it.

use super::fixture::{self, Fixture, Worker, nobody, read, request};
use super::peer::{grpc, h2c, hello, serve, speaking as of};
use crate::base::body::Body;
use crate::config::upstream::Protocol;
use crate::upstream::SendError;
use ::h2::server::Builder;
use std::time::Duration;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn the_protocol_says_which_requests_go_out_in_http_2() {
    let check = async |protocol, grpc_in_h2: bool, plain_in_h2: bool| {
        for (call, in_h2) in [
            (grpc(Body::empty()), grpc_in_h2),
            (request("GET", Body::empty()), plain_in_h2),
        ] {
            let fixture = Fixture::tcp(move |mut peer| async move {
                let head = peer.head().await.unwrap();
                assert_eq!(head == "PRI * HTTP/2.0\r\n\r\n", in_h2, "{head}");
                peer.write(HELLO).await;
            })
            .await;
            let worker = of(&fixture, protocol).start();
            assert_eq!(worker.send(call).await.is_ok(), !in_h2, "{protocol:?}");
        }
    };
    check(Protocol::Auto, true, false).await;
    check(Protocol::Http1, false, false).await;
    check(Protocol::H2c, true, true).await;
}

#[tokio::test]
async fn a_peer_that_does_not_speak_http_2_is_found_out_before_it_is_asked_for_anything() {
    let said = |error: &SendError| match error {
        SendError::Unreachable { source, .. } => source.to_string(),
        other => panic!("{other:?}"),
    };
    let http1 = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let worker = of(&http1, Protocol::H2c).start();
    let error = worker.get().await.unwrap_err();
    assert_eq!(said(&error), "the upstream does not speak HTTP/2");
    assert!(!error.forwarded());
    assert!(!worker.upstream.targets()[0].reachable);
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));

    let closes = Fixture::tcp(|mut peer| async move { drop(peer.head().await) }).await;
    let worker = of(&closes, Protocol::H2c).start();
    let error = worker.get().await.unwrap_err();
    assert!(
        said(&error).contains("closed the connection before"),
        "{error:?}"
    );

    let mut silent = Fixture::tcp(|mut peer| async move { peer.closed().await }).await;
    let mut worker = of(&silent, Protocol::H2c);
    worker.config.connect_timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = worker.get().await.unwrap_err();
    assert_eq!(said(&error), "timed out");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    silent.ended(1).await;
}

/// HTTP/1.1 alone. Whoever begins with HTTP/2 is told so, or sent away, or not heard.
async fn http1_only(manner: &'static str) -> Fixture {
    Fixture::tcp(move |mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("GET") {
                peer.write(HELLO).await;
                continue;
            }
            match manner {
                "refuses" => {
                    peer.write("HTTP/1.1 505 No\r\nContent-Length: 0\r\n\r\n")
                        .await
                }
                "closes" => return,
                _ => continue,
            };
        }
    })
    .await
}

#[tokio::test]
async fn an_upstream_without_http_2_is_not_dialled_for_each_call_and_stays_where_it_is_for_http_1_1()
 {
    for manner in ["refuses", "closes", "is silent"] {
        let fixture = http1_only(manner).await;
        let mut worker = of(&fixture, Protocol::Auto);
        worker.terms.retries = 3;
        if manner == "is silent" {
            worker.config.connect_timeout = Duration::from_millis(200);
        }
        let worker = worker.start();
        for _ in 0..5 {
            let error = worker.send(grpc(Body::empty())).await.unwrap_err();
            assert!(matches!(error, SendError::Unreachable { .. }), "{error:?}");
            assert!(!error.forwarded());
            assert!(worker.upstream.targets()[0].reachable, "{manner}");
        }
        assert_eq!(fixture.connections(), 1, "{manner}");
        assert_eq!(worker.read().await.1, "hello");
        assert_eq!((fixture.connections(), worker.in_flight()), (2, 0));
    }
    // Nobody there at all is another matter.
    let worker = Worker::of(&[&nobody().await]).start();
    worker.send(grpc(Body::empty())).await.unwrap_err();
    assert!(!worker.upstream.targets()[0].reachable);
}

#[tokio::test]
async fn calls_go_to_the_endpoints_that_speak_http_2_and_the_others_go_to_all() {
    let http1 = http1_only("refuses").await;
    let http2 = h2c(Builder::new(), |conn, _| serve(conn, hello)).await;
    let mut worker = Worker::of(&[&http1.endpoint, &http2.endpoint]);
    worker.terms.retries = 1;
    let worker = worker.start();
    for _ in 0..6 {
        let answer = worker.send(grpc(Body::empty())).await.unwrap();
        assert_eq!(read(answer).await.unwrap().1, "hello");
    }
    assert_eq!((http1.connections(), http2.connections()), (1, 1));
    let targets = worker.upstream.targets();
    assert!(targets.iter().all(|target| target.reachable));
}

#[tokio::test]
async fn over_tls_alpn_chooses_http_2_or_there_is_no_connection() {
    let serving = |peer: fixture::Peer| async move {
        if let Ok(conn) = Builder::new().handshake(peer.into_io()).await {
            serve(conn, hello).await;
        }
    };
    let fixture = Fixture::tls_with(&["http/1.1", "h2"], "h2", serving).await;
    let worker = of(&fixture, Protocol::H2).start_with(fixture::tls_client);
    for _ in 0..2 {
        assert_eq!(worker.read().await.1, "hello");
    }
    assert_eq!(worker.upstream.totals().dials, 1);

    // gRPC in HTTP/2 and all else in HTTP/1.1, at one address that can do both.
    let fixture = Fixture::tls_with(&["h2", "http/1.1"], "h2", serving).await;
    let worker = of(&fixture, Protocol::Auto).start_with(fixture::tls_client);
    let answer = worker.send(grpc(Body::empty())).await.unwrap();
    assert_eq!(read(answer).await.unwrap().1, "hello");
    let fixture = Fixture::tls(|peer| peer.answer_all(HELLO)).await;
    let worker = of(&fixture, Protocol::Auto).start_with(fixture::tls_client);
    assert_eq!(worker.read().await.1, "hello");

    // One says so in the handshake, the other by choosing nothing.
    for (alpn, told) in [
        (&["http/1.1"][..], "NoApplicationProtocol"),
        (&[][..], "the upstream did not choose HTTP/2 by ALPN"),
    ] {
        let fixture =
            Fixture::tls_with(alpn, "", |mut peer| async move { peer.closed().await }).await;
        let worker = of(&fixture, Protocol::H2).start_with(fixture::tls_client);
        let error = worker.get().await.unwrap_err();
        let SendError::Unreachable { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert!(source.to_string().contains(told), "{source}");
        assert!(!error.forwarded());
        assert!(!worker.upstream.targets()[0].reachable);

        let worker = of(&fixture, Protocol::Auto).start_with(fixture::tls_client);
        for _ in 0..3 {
            worker.send(grpc(Body::empty())).await.unwrap_err();
            assert!(worker.upstream.targets()[0].reachable);
        }
    }
}
