//! The connections below the streams: how many, how full, how long.

use super::fixture::{Fixture, Started, Worker, nobody, read};
use super::peer::{Crowd, h2c, heads_first, hello, ok, serve, worker as of};
use crate::config::upstream::Protocol;
use crate::upstream::{SendError, Unavailable};
use ::h2::server::Builder;
use bytes::Bytes;
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::{Notify, Semaphore};

fn allowing(streams: u32) -> Builder {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(streams);
    builder
}

fn is_full(error: &SendError) -> bool {
    matches!(
        error,
        SendError::Unavailable {
            reason: Unavailable::Full,
            ..
        }
    )
}

/// Starts `count` requests at once; each waits for a permit of the peer. How many were answered, how many refused.
async fn storm(worker: &Arc<Started>, count: usize) -> (usize, usize) {
    let all = (0..count).map(|_| {
        let worker = worker.clone();
        tokio::spawn(async move {
            match worker.get().await {
                Ok(answer) => {
                    assert_eq!(read(answer).await.unwrap().1, "hello");
                    true
                }
                Err(error) if is_full(&error) => false,
                Err(error) => panic!("{error:?}"),
            }
        })
    });
    let all: Vec<_> = all.collect();
    let mut answered = 0;
    for one in all {
        answered += usize::from(one.await.unwrap());
    }
    (answered, count - answered)
}

/// Answers when it may, and counts how many wait.
async fn patient(allows: u32, open: Arc<Semaphore>) -> (Fixture, Crowd) {
    let crowd = Crowd::default();
    let crowded = crowd.clone();
    let fixture = h2c(allowing(allows), move |conn, _| {
        let (open, all) = (open.clone(), crowded.clone());
        serve(conn, move |asked, reply| {
            let (open, all) = (open.clone(), all.clone());
            async move {
                all.enter();
                let _open = open.acquire().await.unwrap();
                hello(asked, reply).await;
                all.leave();
            }
        })
    })
    .await;
    (fixture, crowd)
}

#[tokio::test]
async fn requests_that_come_during_a_dial_share_it() {
    let (fixture, _) = patient(100, Arc::new(Semaphore::new(1000))).await;
    let worker = Arc::new(of(&fixture).start());
    assert_eq!(storm(&worker, 100).await, (100, 0));
    assert_eq!(fixture.connections(), 1);
    assert_eq!(
        (worker.open(), worker.idle(), worker.in_flight()),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_connection_is_filled_to_its_cap_and_then_there_is_another() {
    let open = Arc::new(Semaphore::new(1));
    let (fixture, crowd) = patient(1000, open.clone()).await;
    let worker = Arc::new(of(&fixture).start());
    assert_eq!(storm(&worker, 1).await, (1, 0));
    open.acquire().await.unwrap().forget();
    let requests = tokio::spawn({
        let worker = worker.clone();
        async move { storm(&worker, 250).await }
    });
    while crowd.most() < 250 {
        tokio::task::yield_now().await;
    }
    // Never more than a hundred on one, whatever the peer allows.
    assert_eq!(fixture.connections(), 3);
    assert_eq!(worker.in_flight(), 250);
    requests.abort();
}

#[tokio::test]
async fn three_hundred_requests_to_a_peer_that_allows_ten_streams_are_answered_or_refused() {
    let open = Arc::new(Semaphore::new(0));
    let (fixture, crowd) = patient(10, open.clone()).await;
    let worker = Arc::new(of(&fixture).start());
    let requests = tokio::spawn({
        let worker = worker.clone();
        async move { storm(&worker, 300).await }
    });
    while crowd.most() < 80 {
        tokio::task::yield_now().await;
    }
    open.add_permits(1000);
    let (answered, refused) = requests.await.unwrap();
    assert_eq!((answered, refused), (80, 220));
    assert_eq!(crowd.most(), 80);
    assert_eq!(fixture.connections(), 8);
    assert_eq!(
        (worker.open(), worker.idle(), worker.in_flight()),
        (8, 8, 0)
    );
    // What was found out about the peer holds for the next.
    assert_eq!(storm(&worker, 80).await, (80, 0));
    assert_eq!(fixture.connections(), 8);
}

#[tokio::test]
async fn a_peer_that_allows_nothing_is_full() {
    let fixture = h2c(allowing(0), |conn, _| serve(conn, hello)).await;
    let worker = of(&fixture).start();
    for _ in 0..3 {
        assert!(is_full(&worker.get().await.unwrap_err()));
    }
    assert_eq!(fixture.connections(), 8);
    assert_eq!(worker.in_flight(), 0);
}

#[tokio::test]
async fn where_one_endpoint_is_full_another_is_asked() {
    let full = h2c(allowing(0), |conn, _| serve(conn, hello)).await;
    let free = h2c(Builder::new(), |conn, _| serve(conn, hello)).await;
    let mut worker = Worker::of(&[&full.endpoint, &free.endpoint]);
    worker.config.protocol = Protocol::H2c;
    worker.terms.retries = 0;
    let worker = worker.start();
    for _ in 0..4 {
        assert_eq!(worker.read().await.1, "hello");
    }
    assert_eq!(worker.in_flight(), 0);
}

#[tokio::test]
async fn over_max_in_flight_a_request_is_refused_at_once() {
    let (fixture, _) = patient(100, Arc::new(Semaphore::new(1000))).await;
    let mut worker = of(&fixture);
    worker.config.max_in_flight = Some(1);
    let worker = worker.start();
    for _ in 0..3 {
        let first = worker.get().await.unwrap();
        assert!(is_full(&worker.get().await.unwrap_err()));
        drop(first);
    }
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_down_is_passed_over_and_all_who_waited_are_told() {
    let fixture = h2c(Builder::new(), |conn, _| serve(conn, hello)).await;
    let mut worker = Worker::of(&[&nobody().await, &fixture.endpoint]);
    worker.config.protocol = Protocol::H2c;
    let worker = Arc::new(worker.start());
    assert_eq!(storm(&worker, 4).await, (4, 0));
    assert!(!worker.upstream.targets()[0].reachable);

    let mut worker = Worker::of(&[&nobody().await]);
    worker.config.protocol = Protocol::H2c;
    let worker = worker.start();
    let (one, two) = tokio::join!(worker.get(), worker.get());
    for error in [one.unwrap_err(), two.unwrap_err()] {
        let SendError::Unreachable { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(!error.forwarded());
    }
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
}

#[tokio::test]
async fn a_dial_survives_the_request_that_began_it() {
    let let_in = Arc::new(Notify::new());
    let gate = let_in.clone();
    let fixture = Fixture::tcp(move |peer| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            if let Ok(conn) = Builder::new().handshake(peer.into_io()).await {
                serve(conn, hello).await;
            }
        }
    })
    .await;
    let worker = Arc::new(of(&fixture).start());
    let first = tokio::spawn({
        let worker = worker.clone();
        async move { worker.get().await.map(drop) }
    });
    let second = tokio::spawn({
        let worker = worker.clone();
        async move { worker.read().await }
    });
    while fixture.connections() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    let_in.notify_one();
    assert_eq!(second.await.unwrap().1, "hello");
    assert_eq!(fixture.connections(), 1);
    assert_eq!(worker.in_flight(), 0);
}

#[tokio::test]
async fn a_connection_idle_too_long_or_too_old_is_closed() {
    type Change = fn(&mut Worker);
    let changes: [Change; 3] = [
        |w| w.limits.idle_h2 = 0,
        |w| w.limits.life = 0,
        |w| w.config.max_idle = 0,
    ];
    for change in changes {
        let mut fixture = h2c(Builder::new(), |conn, _| serve(conn, hello)).await;
        let mut worker = of(&fixture);
        change(&mut worker);
        let worker = worker.start();
        for count in 1..=3 {
            assert_eq!(worker.read().await.1, "hello");
            assert_eq!(fixture.connections(), count);
        }
        worker.pools.reap();
        assert_eq!(
            (worker.open(), worker.idle(), worker.in_flight()),
            (0, 0, 0)
        );
        fixture.ended(3).await;
    }
    let fixture = h2c(Builder::new(), |conn, _| serve(conn, hello)).await;
    let worker = of(&fixture).start();
    worker.read().await;
    worker.pools.reap();
    worker.read().await;
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn closing_the_pools_closes_what_is_idle_and_then_what_was_under_way() {
    let go_on = Arc::new(Notify::new());
    let going = go_on.clone();
    let mut fixture = h2c(Builder::new(), move |conn, _| {
        serve(conn, heads_first(going.clone()))
    })
    .await;
    let worker = of(&fixture).start();
    let under_way = worker.get().await.unwrap();
    worker.pools.close();
    assert_eq!((worker.open(), worker.in_flight()), (1, 1));
    go_on.notify_one();
    assert_eq!(read(under_way).await.unwrap().1, "hello");
    assert_eq!(
        (worker.open(), worker.idle(), worker.in_flight()),
        (0, 0, 0)
    );
    fixture.ended(1).await;
}

#[tokio::test]
async fn a_slow_reader_of_thousands_of_small_frames_does_not_cut_the_others() {
    const FRAMES: usize = 20_000;
    let fixture = h2c(Builder::new(), |conn, _| {
        serve(conn, |_, mut reply| async move {
            let mut body = reply.send_response(ok(), false).unwrap();
            for at in 0..FRAMES {
                body.reserve_capacity(1);
                while body.capacity() == 0 {
                    let more = std::future::poll_fn(|cx| body.poll_capacity(cx)).await;
                    more.unwrap().unwrap();
                }
                body.send_data(Bytes::from_static(b"."), at + 1 == FRAMES)
                    .unwrap();
                if at % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    })
    .await;
    let worker = of(&fixture).start();
    let slow = worker.get().await.unwrap();
    // All of its frames wait, unread, while another one is read to its end.
    for _ in 0..3 {
        assert_eq!(worker.read().await.1.len(), FRAMES);
    }
    let slow = slow.into_body().collect().await.unwrap();
    assert_eq!(slow.to_bytes().len(), FRAMES);
    assert_eq!(fixture.connections(), 1);
}
