//! What a request and its answer are in HTTP/2.

use super::fixture::{Fixture, Worker, nobody, read, request, upload};
use super::peer::{
    Asked, Reply, grpc, h2c, hello, hello_after, ok, send, serve, speaking as of, whole,
};
use crate::base::body::{Body, BodyError};
use crate::config::upstream::Protocol;
use crate::upstream::{BodyFault, SendError};
use ::h2::server::Builder;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use std::collections::BTreeMap;
use std::time::Duration;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, HeaderValue::from_static(value));
    trailers
}

/// A body of known parts with trailers.
fn with_trailers(parts: &[&'static str]) -> Body {
    let data = parts
        .iter()
        .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    let end = Ok(Frame::trailers(trailers("grpc-note", "from us")));
    let frames: Vec<Result<_, BodyError>> = data.chain([end]).collect();
    Body::stream(StreamBody::new(futures_util::stream::iter(frames)))
}

/// Answers with what it was asked, and trailers.
async fn mirror(asked: Asked, mut reply: Reply) {
    let sorted: BTreeMap<_, _> = asked
        .headers()
        .iter()
        .map(|(n, v)| (n.as_str(), v))
        .collect();
    assert_eq!(sorted.len(), asked.headers().len());
    let head = format!("{} {}\n{sorted:?}\n", asked.method(), asked.uri());
    let (body, trailers) = whole(asked).await;
    let told = format!("{head}{}\n{trailers:?}", String::from_utf8(body).unwrap());
    let mut body = reply.send_response(ok(), false).unwrap();
    body.send_data(told.into(), false).unwrap();
    body.send_trailers(self::trailers("grpc-status", "0"))
        .unwrap();
}

#[tokio::test]
async fn a_grpc_call_goes_out_in_http_2_and_trailers_pass_both_ways() {
    let fixture = h2c(Builder::new(), |conn, _| serve(conn, mirror)).await;
    let worker = of(&fixture, Protocol::Auto).start();
    for _ in 0..2 {
        let answer = worker
            .send(grpc(with_trailers(&["one ", "two"])))
            .await
            .unwrap();
        let answer = answer.into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(
            answer.to_bytes(),
            "POST http://app.example.com/path?query\n{\"content-type\": \"application/grpc\", \"te\": \"trailers\"}\none two\nSome({\"grpc-note\": \"from us\"})"
        );
    }
    assert_eq!(
        (
            worker.upstream.totals().dials,
            worker.upstream.totals().reused
        ),
        (1, 1)
    );
    assert_eq!(
        (worker.open(), worker.idle(), worker.in_flight()),
        (1, 1, 0)
    );
}

#[tokio::test]
async fn a_request_has_no_host_no_field_of_a_connection_and_the_length_it_said() {
    let fixture = h2c(Builder::new(), |conn, _| serve(conn, mirror)).await;
    let worker = of(&fixture, Protocol::H2c).start();
    let mut put = request("PUT", Body::full("data"));
    let headers = put.headers_mut();
    headers.insert("content-length", HeaderValue::from_static("4"));
    headers.insert(
        "connection",
        HeaderValue::from_static("keep-alive, x-named"),
    );
    headers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
    headers.insert("proxy-connection", HeaderValue::from_static("keep-alive"));
    headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    headers.insert("x-named", HeaderValue::from_static("hop"));
    headers.insert("te", HeaderValue::from_static("gzip"));
    headers.insert("cookie", HeaderValue::from_static("a=b"));
    let sent = read(worker.send(put).await.unwrap()).await.unwrap().1;
    assert_eq!(
        sent,
        "PUT http://app.example.com/path?query\n{\"content-length\": \"4\", \"cookie\": \"a=b\"}\ndata\nNone"
    );
}

#[tokio::test]
async fn without_a_host_the_authority_is_that_of_the_endpoint_it_goes_to() {
    let fixture = h2c(Builder::new(), |conn, _| serve(conn, mirror)).await;
    let mut worker = Worker::of(&[&nobody().await, &fixture.endpoint]);
    worker.config.protocol = Protocol::H2c;
    let worker = worker.start();
    let crate::config::value::Endpoint::Http { host, port } = &fixture.endpoint else {
        panic!("not http");
    };
    let expected = format!("GET http://{host}:{port}/path?query\n");
    for _ in 0..3 {
        let mut bare = request("GET", Body::empty());
        bare.headers_mut().remove("host");
        let sent = read(worker.send(bare).await.unwrap()).await.unwrap().1;
        assert!(sent.starts_with(expected.as_bytes()), "{sent:?}");
    }
}

#[tokio::test]
async fn http_1_1_upstreams_get_no_trailers() {
    let fixture = Fixture::tcp(|mut peer| async move {
        let head = peer.head().await.unwrap();
        assert!(!head.contains("trailer:"), "{head}");
        let body = peer.chunks().await.unwrap();
        assert_eq!(body, b"3\r\none\r\n0\r\n\r\n");
        peer.write(HELLO).await;
    })
    .await;
    let worker = of(&fixture, Protocol::Auto).start();
    let mut put = request("PUT", with_trailers(&["one"]));
    put.headers_mut()
        .insert("trailer", HeaderValue::from_static("grpc-note"));
    assert_eq!(
        read(worker.send(put).await.unwrap()).await.unwrap().1,
        "hello"
    );
}

#[tokio::test]
async fn answers_without_a_body_give_the_stream_back_at_once() {
    let fixture = h2c(Builder::new(), |conn, _| {
        serve(conn, |asked, mut reply| async move {
            let mut answer = Response::builder().header("content-length", "500");
            if asked.method() == "GET" {
                answer = Response::builder().status(204);
            }
            reply.send_response(answer.body(()).unwrap(), true).unwrap();
        })
    })
    .await;
    let worker = of(&fixture, Protocol::H2c).start();
    for method in ["HEAD", "GET", "HEAD"] {
        let answer = worker.send(request(method, Body::empty())).await.unwrap();
        assert_eq!((worker.idle(), worker.in_flight()), (1, 0), "{method}");
        assert_eq!(read(answer).await.unwrap().1, "");
    }
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn an_answer_with_several_lengths_is_a_protocol_error_of_its_stream_alone() {
    let fixture = h2c(Builder::new(), |conn, _| {
        serve(conn, |asked, mut reply| async move {
            if asked.method() == "GET" {
                return hello(asked, reply).await;
            }
            let answer = Response::builder()
                .header("content-length", "5")
                .header("content-length", "5");
            let mut body = reply
                .send_response(answer.body(()).unwrap(), false)
                .unwrap();
            send(&mut body, "hello", true);
        })
    })
    .await;
    let worker = of(&fixture, Protocol::H2c).start();
    let error = worker
        .send(request("POST", Body::empty()))
        .await
        .unwrap_err();
    assert!(matches!(error, SendError::Protocol { .. }), "{error:?}");
    assert_eq!(worker.in_flight(), 0);
    assert_eq!(worker.read().await.1, "hello");
    assert_eq!(fixture.connections(), 1);
}

#[tokio::test]
async fn a_large_head_passes_and_a_larger_one_does_not() {
    for (kilobytes, passes) in [(60, true), (66, false)] {
        let fixture = h2c(Builder::new(), move |conn, _| {
            serve(conn, move |_, mut reply| async move {
                let mut answer = Response::builder();
                for _ in 0..kilobytes {
                    answer = answer.header("x-long", "a".repeat(1024 - 32 - 6));
                }
                reply.send_response(answer.body(()).unwrap(), true).unwrap();
            })
        })
        .await;
        let worker = of(&fixture, Protocol::H2c).start();
        assert_eq!(worker.get().await.is_ok(), passes, "{kilobytes}");
        assert_eq!(worker.in_flight(), 0);
    }
}

#[tokio::test]
async fn the_fault_of_a_request_body_is_the_clients() {
    let (stalls, stalled) = upload();
    stalls.send(Ok("some")).unwrap();
    stalls.send(Err(BodyError::Stalled)).unwrap();
    for (body, expected) in [
        (
            Body::full("too much").limited(4),
            BodyFault::TooLarge { limit: 4 },
        ),
        (stalled, BodyFault::Stalled),
    ] {
        let fixture = h2c(Builder::new(), |conn, _| {
            serve(conn, |asked, reply| async move {
                whole(asked).await;
                drop(reply);
            })
        })
        .await;
        let worker = of(&fixture, Protocol::H2c).start();
        match worker.send(request("POST", body)).await.unwrap_err() {
            SendError::RequestBody(fault) => assert_eq!(fault, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!((worker.open(), worker.in_flight()), (1, 0));
        let again = worker.send(request("GET", Body::empty()));
        drop(tokio::time::timeout(Duration::from_millis(1), again).await);
        assert_eq!(fixture.connections(), 1);
    }
}

#[tokio::test]
async fn a_slow_client_is_not_a_slow_upstream() {
    let fixture = h2c(Builder::new(), |conn, _| {
        serve(conn, |asked, reply| async move {
            if asked.method() == "POST" {
                let (body, _) = whole(asked).await;
                assert_eq!(body, b"somesome");
                return hello_after(reply).await;
            }
            std::future::pending::<()>().await;
            drop(reply);
        })
    })
    .await;
    let mut worker = of(&fixture, Protocol::H2c);
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
