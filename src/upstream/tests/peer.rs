//! An upstream that speaks HTTP/2 frame by frame, with the h2 crate: what it counts, refuses and closes is the test's.

use super::fixture::{Fixture, Io, Worker, request};
use crate::base::body::Body;
use crate::config::upstream::Protocol;
use ::h2::server::{Builder, Connection, SendResponse};
use ::h2::{RecvStream, SendStream};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

pub(super) type Conn = Connection<Box<dyn Io>, Bytes>;
pub(super) type Asked = Request<RecvStream>;
pub(super) type Reply = SendResponse<Bytes>;

/// On a socket without TLS. The script has each connection once its preface has come, and its number.
pub(super) async fn h2c<F>(
    builder: Builder,
    script: impl Fn(Conn, usize) -> F + Clone + Send + Sync + 'static,
) -> Fixture
where
    F: Future<Output = ()> + Send + 'static,
{
    Fixture::tcp(move |peer| {
        let (builder, script) = (builder.clone(), script.clone());
        async move {
            let number = peer.number;
            if let Ok(conn) = builder.handshake(peer.into_io()).await {
                script(conn, number).await;
            }
        }
    })
    .await
}

/// Gives every request to `answer`, in a task of its own, until the connection ends.
pub(super) async fn serve<F>(mut conn: Conn, answer: impl Fn(Asked, Reply) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    while let Some(Ok((asked, reply))) = conn.accept().await {
        tokio::spawn(answer(asked, reply));
    }
}

/// Answers every request alike, at once.
pub(super) async fn hello(_: Asked, reply: Reply) {
    hello_after(reply).await;
}

/// The same, after whatever the test had to do with the request.
pub(super) async fn hello_after(mut reply: Reply) {
    let mut body = reply.send_response(ok(), false).unwrap();
    send(&mut body, "hello", true);
}

pub(super) fn ok() -> Response<()> {
    Response::new(())
}

pub(super) fn send(body: &mut SendStream<Bytes>, text: &'static str, end: bool) {
    // A client that has gone away is the test's business.
    let _ = body.send_data(Bytes::from_static(text.as_bytes()), end);
}

/// The whole body of a request, and its trailers.
pub(super) async fn whole(asked: Asked) -> (Vec<u8>, Option<http::HeaderMap>) {
    let mut body = asked.into_body();
    let mut bytes = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    (bytes, body.trailers().await.unwrap_or_default())
}

/// How many there are, and how many there were at most.
#[derive(Clone, Default)]
pub(super) struct Crowd(Arc<(AtomicUsize, AtomicUsize)>);

impl Crowd {
    pub(super) fn enter(&self) {
        let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.1.fetch_max(now, Ordering::SeqCst);
    }

    pub(super) fn leave(&self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn most(&self) -> usize {
        self.0.1.load(Ordering::SeqCst)
    }
}

/// A worker that asks it in HTTP/2, for whatever it is asked.
pub(super) fn worker(fixture: &Fixture) -> Worker {
    speaking(fixture, Protocol::H2c)
}

/// Answers the head of each request; bodies follow when the test says so.
pub(super) fn heads_first(go_on: Arc<Notify>) -> impl Fn(Asked, Reply) -> BoxFuture + Clone {
    move |_, mut reply| {
        let go_on = go_on.clone();
        Box::pin(async move {
            let mut body = reply.send_response(ok(), false).unwrap();
            go_on.notified().await;
            send(&mut body, "hello", true);
        })
    }
}

pub(super) type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call of gRPC.
pub(super) fn grpc(body: Body) -> Request<Body> {
    let mut call = request("POST", body);
    let headers = call.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    call
}

/// A worker whose upstream is asked in this protocol.
pub(super) fn speaking(fixture: &Fixture, protocol: Protocol) -> Worker {
    let mut worker = Worker::of(&[&fixture.endpoint]);
    worker.config.protocol = protocol;
    worker
}
