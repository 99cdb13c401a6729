//! Streams and connections of HTTP/2 that one side gives up, and what that costs the others.

use super::fixture::{Fixture, read, request, upload};
use super::peer::{Conn, h2c, heads_first, hello, ok, send, serve, worker as of};
use crate::base::body::{Body, BodyError};
use crate::upstream::SendError;
use ::h2::Reason;
use ::h2::server::Builder;
use http_body_util::BodyExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

#[tokio::test]
async fn after_goaway_a_connection_gets_no_requests_and_those_it_has_finish() {
    let go_on = Arc::new(Notify::new());
    let going = go_on.clone();
    let fixture = h2c(Builder::new(), move |mut conn: Conn, number| {
        let answer = heads_first(going.clone());
        async move {
            if number > 0 {
                return serve(conn, hello).await;
            }
            while let Some(Ok((asked, reply))) = conn.accept().await {
                tokio::spawn(answer(asked, reply));
                conn.graceful_shutdown();
            }
        }
    })
    .await;
    let mut worker = of(&fixture);
    worker.terms.retries = 0;
    let worker = worker.start();
    let first = worker.get().await.unwrap();
    // The first request may meet the GOAWAY unwritten; a fresh connection is no retry.
    for _ in 0..3 {
        assert_eq!(worker.read().await.1, "hello");
    }
    assert_eq!(fixture.connections(), 2);
    go_on.notify_one();
    assert_eq!(read(first).await.unwrap().1, "hello");
    assert_eq!((worker.open(), worker.in_flight()), (1, 0));
}

#[tokio::test]
async fn what_goaway_says_was_not_taken_up_is_sent_again() {
    // SETTINGS; then GOAWAY with 1 as the last stream, and `:status: 200` on that one.
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const LAST_IS_ONE: &[u8] =
        b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88";
    let fixture = Fixture::tcp(|peer| async move {
        if peer.number > 0 {
            let conn = Builder::new().handshake(peer.into_io()).await.unwrap();
            return serve(conn, hello).await;
        }
        let mut io = peer.into_io();
        io.write_all(SETTINGS).await.unwrap();
        io.read_exact(&mut [0; 24]).await.unwrap();
        let mut heads = 0;
        while heads < 2 {
            let mut frame = [0; 9];
            io.read_exact(&mut frame).await.unwrap();
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            let mut payload = vec![0; length as usize];
            io.read_exact(&mut payload).await.unwrap();
            heads += usize::from(frame[3] == 1);
        }
        io.write_all(LAST_IS_ONE).await.unwrap();
        while io.read_u8().await.is_ok() {}
    })
    .await;
    let worker = of(&fixture).start();
    let (one, two) = tokio::join!(worker.get(), worker.get());
    let (one, two) = (read(one.unwrap()).await, read(two.unwrap()).await);
    let mut bodies = [one.unwrap().1, two.unwrap().1];
    bodies.sort();
    assert_eq!(bodies, ["", "hello"]);
    assert_eq!(fixture.connections(), 2);
    worker.pools.reap();
    assert_eq!((worker.open(), worker.in_flight()), (1, 0));
}

#[tokio::test]
async fn when_a_connection_is_lost_its_requests_fail_and_the_next_finds_another() {
    let fixture = h2c(Builder::new(), |mut conn: Conn, number| async move {
        if number > 0 {
            return serve(conn, hello).await;
        }
        let (_, mut reply) = conn.accept().await.unwrap().unwrap();
        let body = reply.send_response(ok(), false).unwrap();
        let second = conn.accept().await;
        drop((body, second, conn));
    })
    .await;
    let worker = of(&fixture).start();
    let first = worker.get().await.unwrap();
    let error = worker.get().await.unwrap_err();
    assert!(matches!(error, SendError::Protocol { .. }), "{error:?}");
    assert!(error.forwarded());
    let error = read(first).await.unwrap_err();
    assert!(matches!(error, BodyError::Cut(_)), "{error:?}");
    assert_eq!(worker.read().await.1, "hello");
    assert_eq!((worker.open(), worker.in_flight()), (1, 0));
    assert_eq!(fixture.connections(), 2);
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_if_nothing_of_its_body_is_gone() {
    let check = async |retries, body: fn(Arc<AtomicUsize>) -> Body, answered: bool| {
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let fixture = h2c(Builder::new(), move |mut conn: Conn, _| {
            let count = count.clone();
            async move {
                while let Some(Ok((asked, mut reply))) = conn.accept().await {
                    if count.fetch_add(1, Ordering::SeqCst) == 0 {
                        reply.send_reset(Reason::REFUSED_STREAM);
                        continue;
                    }
                    tokio::spawn(hello(asked, reply));
                }
            }
        })
        .await;
        let mut worker = of(&fixture);
        worker.terms.retries = retries;
        let worker = worker.start();
        let result = worker.send(request("POST", body(seen.clone()))).await;
        assert_eq!(result.is_ok(), answered, "{result:?}");
        assert_eq!(seen.load(Ordering::SeqCst), 1 + usize::from(answered));
        drop(result);
        assert_eq!((worker.open(), worker.in_flight()), (1, 0));
        assert_eq!(fixture.connections(), 1);
    };
    check(1, |_| Body::empty(), true).await;
    check(0, |_| Body::empty(), false).await;
    check(1, |_| Body::full("gone"), false).await;
    let late = |seen: Arc<AtomicUsize>| {
        let (sender, body) = upload();
        tokio::spawn(async move {
            while seen.load(Ordering::SeqCst) < 2 {
                tokio::task::yield_now().await;
            }
            sender.send(Ok("late")).unwrap();
        });
        body
    };
    check(1, late, true).await;
}

#[tokio::test]
async fn a_peer_that_went_silent_is_not_asked_again_and_its_connection_closes() {
    let mut fixture = h2c(Builder::new(), |mut conn: Conn, number| async move {
        if number > 0 {
            return serve(conn, hello).await;
        }
        let (asked, reply) = conn.accept().await.unwrap().unwrap();
        hello(asked, reply).await;
        let mut kept = Vec::new();
        while let Some(Ok(one)) = conn.accept().await {
            kept.push(one);
        }
    })
    .await;
    let mut worker = of(&fixture).start();
    assert_eq!(worker.read().await.1, "hello");
    worker.terms.timeout = Duration::from_millis(1);
    let error = worker.get().await.unwrap_err();
    assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
    fixture.ended(1).await;
    worker.terms.timeout = Duration::from_secs(60);
    assert_eq!(worker.read().await.1, "hello");
    assert_eq!(fixture.connections(), 2);
}

/// Answers `GET` with a body that stays open; to anything else it says nothing but, if it may, one more word in that body.
async fn mute(says_something: bool) -> Fixture {
    h2c(Builder::new(), move |mut conn: Conn, _| async move {
        let (mut open, mut kept) = (Vec::new(), Vec::new());
        while let Some(Ok((asked, mut reply))) = conn.accept().await {
            if asked.method() == "GET" {
                let mut body = reply.send_response(ok(), false).unwrap();
                send(&mut body, "open", false);
                open.push(body);
                continue;
            }
            if says_something {
                send(open.last_mut().unwrap(), "more", false);
            }
            kept.push((asked, reply));
        }
    })
    .await
}

#[tokio::test]
async fn only_silence_for_as_long_as_the_route_waits_makes_a_connection_suspect() {
    let short = Duration::from_millis(1);
    let long = Duration::from_secs(60);
    let check = async |timeout, patience, says_something, kept: bool| {
        let fixture = mute(says_something).await;
        let mut worker = of(&fixture).start();
        let mut first = worker.get().await.unwrap();
        first.body_mut().frame().await.unwrap().unwrap();
        worker.terms.timeout = timeout;
        worker.terms.patience = patience;
        for _ in 0..2 {
            let asked = worker.send(request("POST", Body::empty())).await;
            let error = asked.unwrap_err();
            assert!(matches!(error, SendError::Timeout { .. }), "{error:?}");
            if !kept {
                break;
            }
        }
        assert_eq!(worker.in_flight(), 1);
        worker.terms.timeout = long;
        worker.terms.patience = None;
        drop(worker.get().await.unwrap());
        assert_eq!(fixture.connections(), if kept { 1 } else { 2 });
        drop(first);
        assert_eq!(worker.open(), 1);
    };
    // A client in a hurry; an upstream that is slow with one answer of several; one that may be gone.
    check(long, Some(short), false, true).await;
    check(short, None, true, true).await;
    check(short, None, false, false).await;
    // Hurried clients find out, too, in time.
    check(short * 2, Some(short), false, false).await;
}

#[tokio::test]
async fn connections_that_only_finish_what_they_have_are_not_without_number() {
    let mut fixture = h2c(Builder::new(), |mut conn: Conn, _| async move {
        let (_, mut reply) = conn.accept().await.unwrap().unwrap();
        let mut body = reply.send_response(ok(), false).unwrap();
        send(&mut body, "open", false);
        conn.graceful_shutdown();
        while let Some(Ok(_)) = conn.accept().await {}
        drop(body);
    })
    .await;
    let worker = of(&fixture).start();
    let mut open = Vec::new();
    let error = loop {
        match worker.get().await {
            Ok(mut answer) => {
                answer.body_mut().frame().await.unwrap().unwrap();
                open.push(answer);
                assert!(open.len() <= 200);
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SendError::Unavailable { .. }), "{error:?}");
    assert!(open.len() >= 100, "{}", open.len());
    assert_eq!(worker.open(), open.len());
    // When one has finished there is room again.
    open.pop();
    open.push(worker.get().await.unwrap());
    drop(open);
    assert_eq!((worker.open(), worker.in_flight()), (1, 0));
    worker.pools.close();
    fixture.ended(100).await;
}

#[tokio::test]
async fn silence_within_an_answer_ends_it() {
    let fixture = h2c(Builder::new(), |conn, _| {
        serve(conn, heads_first(Arc::default()))
    })
    .await;
    let mut worker = of(&fixture);
    worker.terms.idle_timeout = Duration::from_millis(1);
    let worker = worker.start();
    let error = read(worker.get().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, BodyError::Stalled), "{error:?}");
    assert_eq!((worker.open(), worker.in_flight()), (0, 0));
}

/// Tells why each stream was reset, after its head has come or, for `POST`, before: then it first tells that it came.
async fn resets() -> (Fixture, mpsc::UnboundedReceiver<Reason>) {
    let (tell, told) = mpsc::unbounded_channel();
    let fixture = h2c(Builder::new(), move |conn, _| {
        let tell = tell.clone();
        serve(conn, move |asked, mut reply| {
            let tell = tell.clone();
            async move {
                let (head, mut upload) = asked.into_parts();
                let drain = async move { while let Some(Ok(_)) = upload.data().await {} };
                let reason = if head.method == "POST" {
                    tell.send(Reason::NO_ERROR).unwrap();
                    std::future::poll_fn(|cx| reply.poll_reset(cx)).await
                } else {
                    let mut body = reply.send_response(ok(), false).unwrap();
                    send(&mut body, "hello", false);
                    let reset = std::future::poll_fn(|cx| body.poll_reset(cx));
                    tokio::join!(reset, drain).0
                };
                tell.send(reason.unwrap()).unwrap();
            }
        })
    })
    .await;
    (fixture, told)
}

#[tokio::test]
async fn an_answer_dropped_early_resets_its_stream_and_frees_its_place_at_once() {
    let (fixture, mut told) = resets().await;
    let worker = of(&fixture).start();
    let kept = worker.get().await.unwrap();
    let dropped = worker.get().await.unwrap();
    assert_eq!(worker.in_flight(), 2);
    drop(dropped);
    assert_eq!(worker.in_flight(), 1);
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    // Also while the request's body is still on its way.
    let (sender, body) = upload();
    sender.send(Ok("some")).unwrap();
    let dropped = worker.send(request("PUT", body)).await.unwrap();
    drop(dropped);
    assert_eq!(worker.in_flight(), 1);
    told.recv().await.unwrap();
    sender.closed().await;
    drop(kept);
    assert_eq!(told.recv().await, Some(Reason::CANCEL));
    assert_eq!(
        (worker.open(), worker.idle(), worker.in_flight()),
        (1, 1, 0)
    );
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_resets_its_stream() {
    let (fixture, mut told) = resets().await;
    let worker = of(&fixture).start();
    let kept = worker.get().await.unwrap();
    let (sender, body) = upload();
    for body in [Body::empty(), body] {
        let _ = sender.send(Ok("some"));
        tokio::select! {
            answer = worker.send(request("POST", body)) => panic!("{answer:?}"),
            came = told.recv() => assert_eq!(came, Some(Reason::NO_ERROR)),
        }
        assert_eq!(worker.in_flight(), 1);
        assert_eq!(told.recv().await, Some(Reason::CANCEL));
    }
    sender.closed().await;
    drop(kept);
    assert_eq!(fixture.connections(), 1);
}
