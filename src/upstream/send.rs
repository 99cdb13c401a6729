//! One request: pick an endpoint, take or make a connection, send, and maybe do it again. A request is repeated only
//! when no byte of it was written: then any method may be, and no answer can have been lost.

use super::conn::Conn;
use super::pool::Pools;
use super::retry::{Fault, SendError};
use super::switched::{self, Switched};
use super::{Core, Upstream, h2};
use crate::base::body::Body;
use crate::config::upstream::Protocol;
use crate::headers::{events, grpc};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Silence allowed in event streams, where silence is usual.
const STREAM_SILENCE: Duration = Duration::from_secs(3600);

/// What the route says about one request to an upstream.
#[derive(Clone, Debug)]
pub struct Terms {
    /// To the head of the answer, counted while it is the upstream's turn: from the request's last byte, and
    /// between those before it.
    pub timeout: Duration,
    /// How long the client waits for it, if it says so; the shorter of both counts. What a client says decides about its
    /// own request, never about what is shared.
    pub patience: Option<Duration>,
    /// Silence in the body of the answer; at least an hour for event streams and gRPC.
    pub idle_timeout: Duration,
    /// How often another endpoint may be tried.
    pub retries: u32,
    /// For `balance = "hash:ip"`; `None` for peers without an address.
    pub client_ip: Option<IpAddr>,
    /// The protocol to switch to, as `Upgrade` names it (RFC 9110 §7.8), such as `websocket`. Such a request goes out as
    /// HTTP/1.1 whatever the upstream's `protocol` says, and has no body.
    pub upgrade: Option<HeaderValue>,
}

impl Terms {
    /// How long the head of the answer is waited for.
    pub(super) fn wait(&self) -> Duration {
        let patience = self.patience.unwrap_or(Duration::MAX);
        patience.min(self.timeout)
    }
}

/// What an upstream did with a request.
#[derive(Debug)]
pub enum Sent {
    /// It answered. Also when it was asked to switch protocols and did not.
    Answer(Response<Body>),
    /// It switched to the protocol that was asked for.
    Switched {
        /// Its 101, with the hop-by-hop fields that it has.
        head: Response<()>,
        /// The connection: raw bytes from here on.
        stream: Switched,
    },
}

impl Pools {
    /// Sends a request and returns the answer when its head is there. The body of the answer gives the connection
    /// back when it ends.
    ///
    /// The request is sent as it is, with the path and query of its URI; without a `Host` it gets the endpoint's. In
    /// HTTP/1.1 trailers of its body end here, in HTTP/2 they go on. The answer has a `Content-Length` or a
    /// `Transfer-Encoding: chunked`, never both; one in HTTP/2 may have neither.
    ///
    /// Must be called on the worker's runtime. Cancel-safe: a caller that goes away closes the connection, or resets the
    /// stream.
    pub async fn send(
        &self,
        upstream: &Upstream,
        mut request: Request<Body>,
        terms: &Terms,
    ) -> Result<Sent, SendError> {
        let core = &upstream.core;
        if in_http2(core, &request, terms) {
            // In a box of its own, so that requests in HTTP/1.1 need not have room for it.
            let answer = Box::pin(h2::send(self, upstream, request, terms)).await?;
            return Ok(Sent::Answer(answer));
        }
        let mut home = self.home(upstream);
        home.budget.deposit();
        *request.version_mut() = Version::HTTP_11;
        origin_form(request.uri_mut());
        match &terms.upgrade {
            None => frame(&mut request),
            Some(protocol) => ask_to_switch(&mut request, protocol),
        }
        let own_host = !request.headers().contains_key(HOST);
        let mut retries = terms.retries;
        let mut tried = Vec::new();
        let mut redial = false;
        loop {
            let at = home.pick(terms.client_ip, &tried, false);
            let endpoint = &core.endpoints[at];
            let place = core.enter(at).map_err(|reason| SendError::Unavailable {
                upstream: core.name.clone(),
                reason,
            })?;
            if own_host {
                let host = endpoint.host().clone();
                request.headers_mut().insert(HOST, host);
            }
            let ready = if redial { None } else { home.checkout(at) };
            let reused = ready.is_some();
            let opened = match ready {
                Some(conn) => Ok(conn),
                None => Box::pin(home.open(at)).await,
            };
            let source = match opened {
                Err(source) => source,
                Ok(mut conn) => {
                    place.hand_over();
                    conn.engage(home);
                    let mut failed = match conn.exchange(request, terms.wait()).await {
                        Ok(Ok(response))
                            if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
                        {
                            let switching =
                                switched::accept(conn, response, terms, endpoint.text());
                            return Box::pin(switching).await;
                        }
                        Ok(Ok(response)) => {
                            return accept(conn, response, terms, endpoint.text())
                                .map(Sent::Answer);
                        }
                        Ok(Err(failed)) => failed,
                        Err(_elapsed) => {
                            let address = endpoint.text().clone();
                            return Err(SendError::Timeout { address });
                        }
                    };
                    let Some(unsent) = failed.take_message() else {
                        return Err(SendError::of(failed.into_error(), endpoint.text()));
                    };
                    request = unsent;
                    home = match conn.disengage() {
                        Some(home) => home,
                        None => self.home(upstream),
                    };
                    core.leave(at);
                    if reused {
                        // The upstream had closed it while it was idle. That says nothing about the endpoint, and
                        // nothing was asked of it: a fresh connection is no retry.
                        redial = true;
                        continue;
                    }
                    io::Error::other(failed.into_error())
                }
            };
            tried.push(at);
            let last = tried.len() == core.endpoints.len();
            if last || retries == 0 || !home.budget.withdraw(core.millis()) {
                let address = endpoint.text().clone();
                return Err(SendError::Unreachable { address, source });
            }
            retries -= 1;
        }
    }
}

/// Whether this request goes out in HTTP/2.
fn in_http2(core: &Core, request: &Request<Body>, terms: &Terms) -> bool {
    terms.upgrade.is_none()
        && match core.protocol {
            Protocol::Http1 => false,
            Protocol::H2c | Protocol::H2 => true,
            Protocol::Auto => h2::is_grpc(request),
        }
}

/// Says that a body of unknown length is chunked. hyper takes such a body of a `GET` or `HEAD` for none and drops it.
/// Without `Trailer` it writes no trailers: of clients' trailers only gRPC's may go on, and gRPC is HTTP/2.
fn frame(request: &mut Request<Body>) {
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        request.headers_mut().remove(TRAILER);
    }
}

/// Both fields are ours: whatever the client's said of its own connection has been removed (RFC 9110 §7.6.1).
fn ask_to_switch(request: &mut Request<Body>, protocol: &HeaderValue) {
    let headers = request.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol.clone());
}

/// Checks the head of an answer and arranges for the connection to come back when its body ends.
fn accept(
    mut conn: Box<Conn>,
    response: Response<Incoming>,
    terms: &Terms,
    address: &Arc<str>,
) -> Result<Response<Body>, SendError> {
    let (mut head, incoming) = response.into_parts();
    if let Err(source) = settle_framing(&mut head.headers) {
        let address = address.clone();
        return Err(SendError::Protocol { address, source });
    }
    conn.heed(&head.headers);
    let body = if incoming.is_end_stream() {
        conn.release();
        Body::empty()
    } else {
        let idle_timeout = silence(&head.headers, terms);
        Body::incoming(incoming).watched(conn.follow(idle_timeout))
    };
    Ok(Response::from_parts(head, body))
}

/// One framing, beyond doubt: hyper reads an answer that has both fields as chunked and leaves both in place, and
/// takes several equal lengths for one (RFC 9112 §6.3). What goes on must not be read otherwise by anyone.
pub(super) fn settle_framing(headers: &mut HeaderMap) -> Result<(), Fault> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::TransferCoding);
        }
        headers.remove(CONTENT_LENGTH);
        return Ok(());
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(Fault::Lengths);
    }
    Ok(())
}

/// How long the body of an answer may be silent.
pub(super) fn silence(headers: &HeaderMap, terms: &Terms) -> Duration {
    if events::is_event_stream(headers) || grpc::is_grpc(headers) {
        terms.idle_timeout.max(STREAM_SILENCE)
    } else {
        terms.idle_timeout
    }
}

/// Path and query alone, as a request to an origin has it (RFC 9112 §3.2.1).
fn origin_form(uri: &mut Uri) {
    if uri.authority().is_some() {
        *uri = uri
            .path_and_query()
            .cloned()
            .map_or_else(Uri::default, Uri::from);
    }
}
