//! What is sent, to which endpoint, and how a request's body and the answer meet.

use super::fixture::{self, Fixture, Peer, Worker, http, nobody, read, request, upload};
use crate::base::body::{Body, BodyError};
use crate::config::upstream::Balance;
use crate::config::value::Endpoint;
use crate::upstream::{BodyFault, SendError, Unavailable};
use http::header::HOST;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Answers with the head it got, for as long as the connection lasts.
async fn mirror(mut peer: Peer) {
    while let Some(head) = peer.head().await {
        let length = head.len().to_string();
        let answer = [
            "HTTP/1.1 200 OK\r\nContent-Length: ",
            &length,
            "\r\n\r\n",
            &head,
        ]
        .concat();
        peer.write(&answer).await;
    }
}

#[tokio::test]
async fn a_request_goes_out_in_origin_form_as_http_1_1_with_the_host_it_has() {
    let fixture = Fixture::tcp(mirror).await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let mut from_h2 = request("GET", Body::empty());
    *from_h2.version_mut() = http::Version::HTTP_2;
    *from_h2.uri_mut() = "https://elsewhere.example/a%20b?c=d".parse().unwrap();
    let sent = read(worker.send(from_h2).await.unwrap()).await.unwrap().1;
    assert_eq!(
        sent,
        "GET /a%20b?c=d HTTP/1.1\r\nhost: app.example.com\r\n\r\n"
    );
}

#[tokio::test]
async fn a_request_without_a_host_gets_that_of_the_endpoint_it_goes_to() {
    let fixture = Fixture::tcp(mirror).await;
    let worker = Worker::of(&[&nobody().await, &fixture.endpoint]).start();
    let own = fixture.endpoint.clone();
    let Endpoint::Http { host, port } = own else {
        panic!("not http");
    };
    let expected = ["\r\nhost: ", &host, ":", &port.to_string(), "\r\n"].concat();
    for _ in 0..3 {
        let mut bare = request("GET", Body::empty());
        bare.headers_mut().remove(HOST);
        let sent = read(worker.send(bare).await.unwrap()).await.unwrap().1;
        let sent = String::from_utf8(sent.to_vec()).unwrap();
        assert!(sent.contains(&expected), "{sent}");
    }
}

#[tokio::test]
async fn an_upstream_on_a_unix_socket_is_reached() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let fixture = Fixture::unix(&path, |peer| peer.answer_all(HELLO));
    let worker = Worker::of(&[&fixture.endpoint]).start();
    for _ in 0..2 {
        assert_eq!(worker.read().await.1, "hello");
    }
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn a_name_is_resolved() {
    let fixture = Fixture::answering(HELLO).await;
    let Endpoint::Http { port, .. } = fixture.endpoint else {
        panic!("not http");
    };
    let host = "localhost".into();
    let named = Endpoint::Http { host, port };
    let worker = Worker::of(&[&named]).start();
    assert_eq!(worker.read().await.1, "hello");
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable_and_not_forwarded() {
    let unix = Endpoint::Unix("/nowhere/app.sock".into());
    for endpoint in [nobody().await, unix] {
        let worker = Worker::of(&[&endpoint]).start();
        let error = worker.get().await.unwrap_err();
        assert!(matches!(error, SendError::Unreachable { .. }), "{error:?}");
        assert!(!error.forwarded());
        assert!(!worker.upstream.targets()[0].reachable);
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn one_of_two_endpoints_down_is_not_seen_by_clients() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, Balance::HashIp] {
        let fixture = Fixture::answering(HELLO).await;
        let mut worker = Worker::of(&[&nobody().await, &fixture.endpoint]);
        worker.config.balance = balance;
        let worker = worker.start();
        for _ in 0..50 {
            let (method, body) = ("POST", Body::full("data"));
            let mut with_body = request(method, body);
            with_body
                .headers_mut()
                .insert("content-length", "4".parse().unwrap());
            let answer = worker.send(with_body).await.unwrap();
            assert_eq!(answer.status(), 200);
            drop(answer);
        }
    }
}

#[tokio::test]
async fn without_retries_an_endpoint_down_is_seen_once_and_then_passed_over() {
    let fixture = Fixture::answering(HELLO).await;
    let mut worker = Worker::of(&[&nobody().await, &fixture.endpoint]);
    worker.terms.retries = 0;
    let worker = worker.start();
    let mut failures = 0;
    for _ in 0..10 {
        match worker.get().await {
            Ok(response) => drop(read(response).await.unwrap()),
            Err(error) => {
                assert!(!error.forwarded());
                failures += 1;
            }
        }
    }
    assert_eq!(failures, 1);
}

#[tokio::test]
async fn the_busy_endpoint_is_left_alone() {
    // Whichever gets the first request keeps it.
    let (asked, taken) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let script = || {
        let (asked, taken) = (asked.clone(), taken.clone());
        move |mut peer: Peer| {
            let (asked, taken) = (asked.clone(), taken.clone());
            async move {
                if taken.swap(true, Ordering::SeqCst) {
                    return peer.answer_all(HELLO).await;
                }
                asked.notify_one();
                peer.closed().await;
            }
        }
    };
    let fixtures = [Fixture::tcp(script()).await, Fixture::tcp(script()).await];
    let mut worker = Worker::of(&[&fixtures[0].endpoint, &fixtures[1].endpoint]);
    worker.config.balance = Balance::LeastRequests;
    let worker = Arc::new(worker.start());
    let first = worker.clone();
    let stuck = tokio::spawn(async move { first.get().await.map(drop) });
    asked.notified().await;
    for _ in 0..20 {
        assert_eq!(worker.read().await.1, "hello");
    }
    let targets = worker.upstream.targets();
    let busy = targets.iter().position(|t| t.in_flight == 1).unwrap();
    assert_eq!(targets[1 - busy].in_flight, 0);
    assert_eq!(fixtures[busy].connections(), 1);
    stuck.abort();
}

#[tokio::test]
async fn over_max_in_flight_a_request_is_refused_at_once() {
    let fixture = Fixture::answering(HELLO).await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.config.max_in_flight = Some(1);
    let worker = worker.start();
    for _ in 0..3 {
        let first = worker.get().await.unwrap();
        let error = worker.get().await.unwrap_err();
        assert!(!error.forwarded());
        let SendError::Unavailable { reason, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(reason, Unavailable::Full);
        // Also when the body is not read, the place is free again.
        drop(first);
    }
    assert_eq!(worker.read().await.0, 200);
}

#[tokio::test]
async fn the_fault_of_a_request_body_is_the_clients() {
    let cut = {
        let fixture = Fixture::tcp(|mut peer| async move {
            peer.head().await;
            peer.write("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhello")
                .await;
        })
        .await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        worker.get().await.unwrap().into_body()
    };
    let (stalls, stalled) = upload();
    stalls.send(Ok("some")).unwrap();
    stalls.send(Err(BodyError::Stalled)).unwrap();
    for (body, expected) in [
        (
            Body::full("too much").limited(4),
            BodyFault::TooLarge { limit: 4 },
        ),
        (stalled, BodyFault::Stalled),
        (cut, BodyFault::Cut),
    ] {
        let fixture = Fixture::tcp(|mut peer| async move { peer.closed().await }).await;
        let worker = Worker::of(&[&fixture.endpoint]).start();
        match worker.send(request("POST", body)).await.unwrap_err() {
            SendError::RequestBody(fault) => assert_eq!(fault, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}

#[tokio::test]
async fn an_early_answer_passes_and_the_connection_waits_for_the_upload() {
    let fixture = Fixture::tcp(|mut peer| async move {
        while let Some(head) = peer.head().await {
            peer.write(HELLO).await;
            if head.starts_with("POST") {
                peer.chunks().await;
            }
        }
    })
    .await;
    let worker = Worker::of(&[&fixture.endpoint]).start();
    let (sender, body) = upload();
    sender.send(Ok("some")).unwrap();
    let answer = worker.send(request("POST", body)).await.unwrap();
    assert_eq!(read(answer).await.unwrap().1, "hello");
    assert_eq!((worker.idle(), worker.in_flight()), (0, 1));
    worker.read().await;
    assert_eq!(fixture.connections(), 2);
    assert_eq!((worker.idle(), worker.in_flight()), (1, 1));
    drop(sender);
    tokio::task::yield_now().await;
    worker.pools.reap();
    assert_eq!((worker.idle(), worker.in_flight()), (2, 0));
    let (one, two) = tokio::join!(worker.read(), worker.read());
    assert_eq!((one.0, two.0), (200, 200));
    assert_eq!(fixture.connections(), 2);
}

#[tokio::test]
async fn an_upload_that_goes_on_too_long_after_its_answer_is_cut() {
    let mut fixture = Fixture::tcp(|mut peer| async move {
        peer.head().await;
        peer.write(HELLO).await;
        peer.closed().await;
    })
    .await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.limits.settle = 0;
    let worker = worker.start();
    let (sender, body) = upload();
    let answer = worker.send(request("POST", body)).await.unwrap();
    assert_eq!(read(answer).await.unwrap().1, "hello");
    worker.pools.reap();
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
    drop(sender);
}

#[tokio::test]
async fn a_slow_client_is_not_a_slow_upstream() {
    let fixture = Fixture::tcp(|mut peer| async move {
        if peer.head().await.unwrap().starts_with("POST") {
            peer.chunks().await;
            peer.write(HELLO).await;
        }
        peer.closed().await;
    })
    .await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.terms.timeout = Duration::from_millis(1);
    let worker = worker.start();
    let (sender, body) = upload();
    let slow = async {
        // As long as it takes for other requests to be given up, twice.
        for _ in 0..2 {
            let error = worker.get().await.unwrap_err();
            assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
            sender.send(Ok("some")).unwrap();
        }
        drop(sender);
    };
    let (answer, ()) = tokio::join!(worker.send(request("POST", body)), slow);
    assert_eq!(read(answer.unwrap()).await.unwrap().1, "hello");
}

#[tokio::test]
async fn after_the_upload_the_upstream_has_its_time_and_no_more() {
    let fixture = Fixture::tcp(|mut peer| async move { peer.closed().await }).await;
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.terms.timeout = Duration::from_millis(1);
    let worker = worker.start();
    let (sender, body) = upload();
    sender.send(Ok("some")).unwrap();
    drop(sender);
    let error = worker.send(request("POST", body)).await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
}

#[tokio::test]
async fn an_address_that_swallows_packets_is_given_up() {
    // A listener whose queue is full: the kernel no longer answers.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let stream = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(50));
        waiting.push(stream);
    }
    let mut worker = Worker::of(&[&http(address)]);
    worker.config.connect_timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = worker.get().await.unwrap_err();
    let SendError::Unreachable { ref source, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    assert!(!error.forwarded());
    assert_eq!(worker.in_flight(), 0);
}

#[tokio::test]
async fn many_requests_at_once_leave_nothing_behind() {
    let fixture = Fixture::answering(HELLO).await;
    let worker = Arc::new(Worker::of(&[&fixture.endpoint]).start());
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let worker = worker.clone();
            tokio::spawn(async move {
                let response = worker.get().await.unwrap();
                if n % 7 != 0 {
                    read(response).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(worker.in_flight(), 0);
    assert_eq!(worker.open(), worker.idle());
    assert!(worker.idle() <= 8);
}

#[tokio::test]
async fn an_https_upstream_is_believed_only_with_a_name_and_a_root_we_trust() {
    let fixture = Fixture::tls(|peer| peer.answer_all(HELLO)).await;
    let trusting = Worker::of(&[&fixture.endpoint]).start_with(fixture::tls_client);
    for _ in 0..2 {
        assert_eq!(trusting.read().await.1, "hello");
    }
    assert_eq!(trusting.upstream.totals().dials, 1);

    let by_address = match &fixture.endpoint {
        Endpoint::Https { port, .. } => Endpoint::Https {
            host: "127.0.0.1".into(),
            port: *port,
        },
        other => panic!("{other:?}"),
    };
    let wrong_name = Worker::of(&[&by_address]).start_with(fixture::tls_client);
    let wrong_root = Worker::of(&[&fixture.endpoint]).start();
    for worker in [wrong_name, wrong_root] {
        let error = worker.get().await.unwrap_err();
        assert!(matches!(error, SendError::Unreachable { .. }), "{error:?}");
        assert!(!error.forwarded());
        assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    }
}
