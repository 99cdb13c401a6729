//! HTTP/1.1 on one connection, by hyper (RFC 9112).

use super::connection::{FIRST_REQUEST, Stream};
use super::paced::Paced;
use crate::base::body::Body;
use crate::config::server::Server;
use crate::gateway::{Beat, Connection, Gateway};
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// How connections of this server speak.
#[derive(Clone, Debug)]
pub(super) struct Http1(http1::Builder);

impl Http1 {
    /// hyper's own limits stand above ours, so that most refusals can be explained.
    pub(super) fn new(server: &Server) -> Self {
        let head = server.max_header_bytes + server.max_uri_bytes + 16 * 1024;
        let mut builder = http1::Builder::new();
        builder.half_close(false).max_buf_size(head.max(64 * 1024));
        // hyper parses up to 100 fields without touching the heap.
        if server.max_headers > 100 {
            builder.max_headers(server.max_headers + 28);
        }
        Self(builder)
    }

    /// Serves one connection until it ends or is to become a tunnel. `true` when the parser refused what came.
    pub(super) async fn serve(
        &self,
        stream: impl Stream,
        gateway: Arc<Gateway>,
        connection: Arc<Connection>,
        draining: &AtomicBool,
    ) -> bool {
        let pulse = connection.pulse.clone();
        let io = TokioIo::new(Paced::new(stream, pulse.clone()));
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let beat = Beat::Line(connection.pulse.clone());
            let request = request.map(Body::incoming);
            // Mapped, not awaited in a block of its own, which would hold the future twice.
            let answer = gateway.clone().handle(request, connection.clone(), beat);
            answer.map(Ok::<_, Infallible>)
        });
        let mut serving = pin!(self.0.serve_connection(io, service).with_upgrades());
        let accepted = Instant::now();
        let mut told = false;
        let result = poll_fn(|cx| {
            let mut done = serving.as_mut().poll(cx);
            // hyper closes a connection without a request at once; one that has just come gets the time to send its own.
            if done.is_pending()
                && !told
                && draining.load(Ordering::Relaxed)
                && (pulse.has_served() || accepted.elapsed() > FIRST_REQUEST)
            {
                told = true;
                serving.as_mut().graceful_shutdown();
                done = serving.as_mut().poll(cx);
            }
            done
        })
        .await;
        match result {
            Ok(()) => false,
            Err(error) => {
                tracing::trace!(error = &error as &dyn std::error::Error, "connection ended");
                error.is_parse() || error.is_parse_too_large()
            }
        }
    }
}
