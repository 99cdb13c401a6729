//! HTTP/2 on one connection, by hyper and h2 (RFC 9113). What of the limits that such a connection needs they do not
//! have is here: a stream whose client takes nothing, a client that cuts its requests short as fast as it sends them, a
//! connection without requests; frames that carry nothing are counted in `meter`. A stream's own task takes its request
//! body in while nobody reads it yet, and for a while when nobody will. hyper lets nobody choose the reason of a GOAWAY:
//! such a connection just ends.

use super::connection::Stream;
use super::meter::Metered;
use super::paced::Paced;
use crate::base::body::{Body, BodyError};
use crate::base::reservoir::{self, Inlet};
use crate::config::server::Server;
use crate::gateway::{Beat, Connection, Flow, Gateway, LINGER_BYTES};
use futures_util::FutureExt;
use http::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

/// Requests of one connection at once (RFC 9113 §5.1.2).
const STREAMS: u32 = 100;
/// Bytes of a request body that a client may send unasked.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all of them. It bounds nothing, since the streams do: 100 of them cannot hold more than 25 MiB. But h2 lets
/// small DATA frames that nobody has read cost half of it, each as much as 256 bytes, and then ends the connection with all
/// its streams; one call whose upstream pauses must not do that to the others.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Bytes of an answer that wait for the socket, for each stream.
const SEND_BUFFER: usize = 64 << 10;
/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_PATIENCE: Duration = Duration::from_secs(10);
/// Streams that a client has reset before we could look at them (CVE-2023-44487).
const RESET_UNSEEN: usize = 20;
/// Streams of one connection that we reset for an error of the client's (CVE-2025-8671).
const RESET_BY_ERROR: usize = 200;

/// How connections of this server speak.
#[derive(Clone, Debug)]
pub(super) struct Http2 {
    max_head: u32,
}

impl Http2 {
    /// hyper's own limits stand above ours, so that most refusals can be explained.
    pub(super) fn new(server: &Server) -> Self {
        // HTTP/2 counts 32 bytes more for each field (RFC 9113 §6.5.2).
        let fields = 32 * (server.max_headers + 28);
        let head = server.max_header_bytes + server.max_uri_bytes + fields + 16 * 1024;
        Self {
            max_head: u32::try_from(head).unwrap_or(u32::MAX),
        }
    }

    /// Serves one connection to its end. `true` when it ended because the client broke the protocol.
    pub(super) async fn serve(
        &self,
        stream: impl Stream,
        gateway: Arc<Gateway>,
        connection: Arc<Connection>,
        draining: &AtomicBool,
    ) -> bool {
        let pulse = connection.pulse.clone();
        // A proxy of the operator's speaks for many clients.
        let stranger = !connection.peer.trusted;
        let paced = Paced::new(stream, pulse.clone());
        let io = TokioIo::new(Metered::new(paced, pulse.clone()));
        let streams = Streams::default();
        let mut builder = http2::Builder::new(streams.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(self.max_head)
            .max_pending_accept_reset_streams(RESET_UNSEEN)
            .max_local_error_reset_streams(RESET_BY_ERROR)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_PATIENCE);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let flow = Flow::begin(&connection.pulse);
            let (request, inlet) = take_in(request);
            streams.expect(Parts {
                flow: flow.clone(),
                inlet,
            });
            let beat = Beat::Stream(flow);
            // Mapped, not awaited in a block of its own, which would hold the future twice.
            let answer = gateway.clone().handle(request, connection.clone(), beat);
            answer.map(Ok::<_, Infallible>)
        });
        let mut serving = pin!(builder.serve_connection(io, service));
        let mut told = false;
        let result = poll_fn(|cx| {
            let mut done = serving.as_mut().poll(cx);
            if done.is_pending() && stranger && pulse.is_flooded() {
                return Poll::Ready(None);
            }
            let drains = draining.load(Ordering::Relaxed);
            let over = done.is_pending() && pulse.is_over(drains);
            if done.is_pending() && !told && (drains || over) {
                told = true;
                serving.as_mut().graceful_shutdown();
                done = serving.as_mut().poll(cx);
            }
            done.map(Some)
        })
        .await;
        match result {
            Some(Ok(())) => false,
            Some(Err(error)) => {
                tracing::trace!(error = &error as &dyn Error, "connection ended");
                is_broken(&error)
            }
            None => {
                tracing::debug!("a client resets too many streams: connection closed");
                true
            }
        }
    }
}

/// Puts a reservoir between a request's body and whoever will read it.
fn take_in(request: Request<Incoming>) -> (Request<Body>, Option<Inlet<Incoming>>) {
    if request.body().is_end_stream() {
        return (request.map(|_| Body::empty()), None);
    }
    let (head, body) = request.into_parts();
    let (inlet, reader) = reservoir::reservoir(body, LINGER_BYTES);
    let request = Request::from_parts(head, Body::stream(reader));
    (request, Some(inlet))
}

/// Whether we ended the connection for what the client sent.
fn is_broken(error: &hyper::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(h2) = inner.downcast_ref::<h2::Error>() {
            let flood = |error: &std::io::Error| error.kind() == std::io::ErrorKind::InvalidData;
            return h2.is_library() || h2.get_io().is_some_and(flood);
        }
        cause = inner.source();
    }
    false
}

/// What belongs to a stream besides hyper's future.
struct Parts {
    flow: Arc<Flow>,
    inlet: Option<Inlet<Incoming>>,
}

/// Where the streams of one connection run: each in a task of its own, together with what belongs to it.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Option<Parts>>>);

impl Streams {
    /// hyper calls the service for a request and runs its future right afterwards, with nothing in between.
    fn expect(&self, parts: Parts) {
        *self.0.lock() = Some(parts);
    }
}

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        match self.0.lock().take() {
            Some(parts) => drop(tokio::spawn(stream(future, parts))),
            None => drop(tokio::spawn(future)),
        }
    }
}

/// One stream. It is reset when hyper's future and the inlet are gone and either side has not ended.
async fn stream(future: impl Future<Output = ()>, parts: Parts) {
    let Parts { flow, mut inlet } = parts;
    {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let done = future.as_mut().poll(cx);
            if let Some(inlet) = &mut inlet {
                let _ = inlet.poll(cx, BodyError::Cut);
            }
            if done.is_pending() && flow.is_stalled(cx) {
                tracing::debug!("a client takes nothing of its answer: stream reset");
                flow.excuse();
                inlet = None;
                return Poll::Ready(());
            }
            done
        })
        .await;
    }
    // An answer can come before the end of its request. Where somebody still reads that, the stream is not over; where
    // nobody does, the client gets the time to find the answer. If it goes on sending after that, h2 tells it to stop,
    // with NO_ERROR and behind all of the answer (RFC 9113 §8.1).
    if let Some(inlet) = &mut inlet {
        poll_fn(|cx| {
            let done = inlet.poll(cx, BodyError::Cut);
            if done.is_pending() && !inlet.has_reader() && flow.has_lingered(cx) {
                return Poll::Ready(());
            }
            done
        })
        .await;
    }
    drop(inlet);
    drop(flow);
}
