//! Bodies of requests in HTTP/2 that do not go the whole way: given back, longer than their answer, read by nobody.

use super::fixture::{Fixture, read, request, upload};
use super::peer::{Conn, h2c, hello_after, ok, send, serve, whole, worker as of};
use crate::base::body::Body;
use ::h2::server::Builder;
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::sync::mpsc;

#[tokio::test]
async fn an_upload_that_meets_a_goaway_arrives_whole_at_the_next_connection_or_fails() {
    let body = |streamed: bool| {
        if !streamed {
            return Body::full("the whole");
        }
        let (sender, body) = upload();
        sender.send(Ok("the ")).unwrap();
        sender.send(Ok("whole")).unwrap();
        body
    };
    for (streamed, retries) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let fixture = h2c(Builder::new(), move |mut conn: Conn, number| {
            let tell = tell.clone();
            async move {
                if number > 0 {
                    return serve(conn, move |asked, reply| {
                        let tell = tell.clone();
                        async move {
                            let (body, _) = whole(asked).await;
                            tell.send(String::from_utf8(body).unwrap()).unwrap();
                            hello_after(reply).await;
                        }
                    })
                    .await;
                }
                // The first answer stays open, so that the connection does.
                let (_, mut reply) = conn.accept().await.unwrap().unwrap();
                let mut body = reply.send_response(ok(), false).unwrap();
                send(&mut body, "open", false);
                conn.graceful_shutdown();
                while let Some(Ok(_)) = conn.accept().await {}
                drop(body);
            }
        })
        .await;
        let mut worker = of(&fixture);
        worker.terms.retries = retries;
        let worker = worker.start();
        let mut first = worker.get().await.unwrap();
        // GOAWAY is here; nobody has told the end that takes requests.
        first.body_mut().frame().await.unwrap().unwrap();
        for _ in 0..3 {
            let post = request("POST", body(streamed));
            let answer = worker.send(post).await.unwrap();
            assert_eq!(read(answer).await.unwrap().1, "hello");
            assert_eq!(told.recv().await.unwrap(), "the whole");
        }
        assert_eq!(fixture.connections(), 2);
        drop(first);
        assert_eq!((worker.open(), worker.in_flight()), (1, 0));
    }
}

#[tokio::test]
async fn an_upload_may_go_on_after_its_answer_but_not_for_ever() {
    for (settle, cut) in [(60_000, false), (0, true)] {
        let (tell, mut told) = mpsc::unbounded_channel();
        let fixture = h2c(Builder::new(), move |conn, _| {
            let tell = tell.clone();
            serve(conn, move |asked, mut reply| {
                let tell = tell.clone();
                async move {
                    reply.send_response(ok(), true).unwrap();
                    tell.send(whole(asked).await.0).unwrap();
                }
            })
        })
        .await;
        let mut worker = of(&fixture);
        worker.limits.settle = settle;
        let worker = worker.start();
        let (sender, body) = upload();
        sender.send(Ok("some")).unwrap();
        let answer = worker.send(request("POST", body)).await.unwrap();
        assert_eq!(read(answer).await.unwrap().1, "");
        assert_eq!(worker.in_flight(), 1);
        if cut {
            sender.closed().await;
        } else {
            sender.send(Ok("more")).unwrap();
        }
        drop(sender);
        let came = told.recv().await.unwrap();
        assert_eq!(came, if cut { &b"some"[..] } else { b"somemore" });
        while worker.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads nothing of a `POST`, answers it whole or half, and never resets it. `GET` is answered in the head.
async fn unread(whole: bool) -> Fixture {
    let mut builder = Builder::new();
    builder.initial_window_size(4);
    h2c(builder, move |mut conn: Conn, _| async move {
        let mut kept = Vec::new();
        while let Some(Ok((asked, mut reply))) = conn.accept().await {
            let whole = whole && asked.method() == "POST";
            let mut body = reply.send_response(ok(), false).unwrap();
            send(&mut body, "open", whole);
            kept.push((asked, reply, body));
        }
    })
    .await
}

#[tokio::test]
async fn an_upload_that_nobody_reads_gives_its_place_back_and_its_connection_ends_with_the_others()
{
    let check = async |whole: bool, others: bool| {
        let mut fixture = unread(whole).await;
        let mut worker = of(&fixture);
        worker.limits.settle = 0;
        let worker = worker.start();
        let mut other = None;
        if others {
            other = Some(worker.get().await.unwrap());
        }
        let (sender, body) = upload();
        // h2 takes the first as soon as there is any room, hyper holds the second until there is more.
        sender.send(Ok("more than may be sent")).unwrap();
        sender.send(Ok("and more")).unwrap();
        let mut answer = worker.send(request("POST", body)).await.unwrap();
        if whole {
            assert_eq!(read(answer).await.unwrap().1, "open");
            assert_eq!(worker.in_flight(), 1 + usize::from(others));
        } else {
            answer.body_mut().frame().await.unwrap().unwrap();
            drop(answer);
        }
        let mut ticks = 0;
        while worker.in_flight() > usize::from(others) || ticks < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            worker.pools.reap();
            ticks += 1;
            assert!(ticks < 100);
        }
        if others {
            // What cannot be reset takes no more with it: the next goes elsewhere.
            drop(worker.get().await.unwrap());
            assert_eq!((fixture.connections(), worker.in_flight()), (2, 1));
        }
        drop(other);
        fixture.ended(1).await;
        sender.closed().await;
        worker.pools.reap();
        assert_eq!(worker.in_flight(), 0);
        assert_eq!(worker.open(), usize::from(others));
    };
    for (whole, others) in [(true, false), (true, true), (false, false), (false, true)] {
        let checked = check(whole, others);
        tokio::time::timeout(Duration::from_secs(10), checked)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn closing_the_pools_ends_uploads_that_nobody_reads() {
    for close_first in [true, false] {
        let mut fixture = unread(true).await;
        let worker = of(&fixture).start();
        let (sender, body) = upload();
        // h2 takes the first as soon as there is any room, hyper holds the second until there is more.
        sender.send(Ok("more than may be sent")).unwrap();
        sender.send(Ok("and more")).unwrap();
        let answer = worker.send(request("POST", body)).await.unwrap();
        if close_first {
            worker.pools.close();
        }
        read(answer).await.unwrap();
        worker.pools.close();
        assert_eq!(worker.in_flight(), 0);
        let ended = fixture.ended(1);
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .unwrap();
        sender.closed().await;
    }
}
