//! HTTP/2 to upstreams (RFC 9113), with hyper's own connection below: `wire` makes one, `link` is one, `seat` a request on
//! it, `streams` are those of a worker. Here one request is sent: the rules are those of HTTP/1.1, and a stream that
//! the peer has refused or not taken up counts as unwritten, as RFC 9113 §8.7 has it.

mod link;
mod seat;
pub(super) mod streams;
mod wire;

use super::Upstream;
use super::endpoint::Endpoint;
use super::pool::Pools;
use super::retry::{Fault, SendError, Unavailable};
use super::send::{Terms, settle_framing, silence};
use crate::base::body::Body;
use crate::headers::grpc;
use ::h2::Reason;
use http::header::HOST;
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use seat::{Answer, Outcome, Seat};
use std::error::Error;
use std::io;
use std::sync::Arc;
use streams::{MAX_LINKS, NoRoom, Streams};

/// Whether a request can only be sent in HTTP/2: a call of gRPC.
pub(super) fn is_grpc(request: &Request<Body>) -> bool {
    *request.method() == Method::POST && grpc::is_grpc(request.headers())
}

/// Sends a request and returns the answer when its head is there. The body of the answer gives the stream back when it
/// ends, and resets it when it is dropped before.
///
/// Cancel-safe: a caller that goes away resets the stream.
pub(super) async fn send(
    pools: &Pools,
    upstream: &Upstream,
    request: Request<Body>,
    terms: &Terms,
) -> Result<Response<Body>, SendError> {
    let core = &upstream.core;
    let home = pools.home(upstream);
    home.budget.deposit();
    let (mut head, mut body) = request.into_parts();
    head.version = Version::HTTP_2;
    drop(std::mem::take(&mut head.extensions));
    // What `Host` would have been is `:authority` (RFC 9113 §8.3.1), and only that.
    let asked = head.headers.remove(HOST);
    let mut retries = terms.retries;
    let mut tried = Vec::new();
    let mut stale = 0;
    loop {
        let at = home.pick(terms.client_ip, &tried, true);
        let endpoint = &core.endpoints[at];
        let unavailable = |reason| SendError::Unavailable {
            upstream: core.name.clone(),
            reason,
        };
        let place = core.enter(at).map_err(unavailable)?;
        let deadline = home.streams.deadline(&home);
        let (source, unsent) = match Streams::room(&home, at, &deadline).await {
            Err(NoRoom::Full) => {
                home.streams.recycle(&deadline);
                drop(place);
                tried.push(at);
                if tried.len() == core.endpoints.len() {
                    return Err(unavailable(Unavailable::Full));
                }
                continue;
            }
            Err(NoRoom::Unreachable(source)) => {
                home.streams.recycle(&deadline);
                (source, false)
            }
            Ok((link, reused)) => {
                place.hand_over();
                let seat = Seat::new(home.clone(), link, at, deadline);
                address(&mut head, asked.as_ref(), endpoint)?;
                // What was written does not come back, and only a retry could want it.
                let spare = (retries > 0).then(|| head.clone());
                let failed = match seat.exchange(head, body, terms).await {
                    Outcome::Answer(response) => {
                        return accept(seat, response, terms, endpoint.text());
                    }
                    Outcome::Elapsed => {
                        let address = endpoint.text().clone();
                        return Err(SendError::Timeout { address });
                    }
                    Outcome::Failed(failed) => *failed,
                };
                if let Some(fault) = failed.fault {
                    return Err(SendError::RequestBody(fault));
                }
                let why = Unsent::of(&failed.error);
                if why == Some(Unsent::Closing) {
                    seat.link().retire();
                }
                let mut error = failed.error;
                let unwritten = error.take_message().map(|request| request.into_parts().0);
                let error = error.into_error();
                (head, body) = match (why, unwritten.or(spare), failed.body) {
                    (Some(_), Some(head), Some(body)) => (head, body),
                    (Some(_), None, Some(_)) => {
                        let address = endpoint.text().clone();
                        let source = io::Error::other(error);
                        return Err(SendError::Unreachable { address, source });
                    }
                    _ => return Err(SendError::of(error, endpoint.text())),
                };
                if why == Some(Unsent::Closing) && reused && stale < MAX_LINKS {
                    // It was closing before it was asked for anything. As for HTTP/1.1, another one is no retry.
                    stale += 1;
                    continue;
                }
                (io::Error::other(error), true)
            }
        };
        tried.push(at);
        let last = tried.len() == core.endpoints.len();
        if (last && !unsent) || retries == 0 || !home.budget.withdraw(core.millis()) {
            let address = endpoint.text().clone();
            return Err(SendError::Unreachable { address, source });
        }
        retries -= 1;
        if last {
            // The endpoint can be reached: the same may be asked again.
            tried.clear();
        }
    }
}

/// Why a request was not taken up, when that is sure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unsent {
    /// The connection takes no more: it was closed before a byte was written, or the peer's GOAWAY named an earlier
    /// stream as the last (RFC 9113 §6.8).
    Closing,
    /// REFUSED_STREAM: nothing was done with this one (RFC 9113 §8.7).
    Refused,
}

impl Unsent {
    /// `None`: it was, or nobody can tell.
    fn of(failed: &TrySendError<Request<Body>>) -> Option<Self> {
        if failed.message().is_some() {
            return Some(Self::Closing);
        }
        let mut cause = failed.error().source();
        while let Some(inner) = cause {
            if let Some(error) = inner.downcast_ref::<::h2::Error>() {
                // h2 gives a stream the peer's GOAWAY as its error only when it is behind the last one named there.
                return if error.is_go_away() && error.is_remote() {
                    Some(Self::Closing)
                } else if error.is_reset()
                    && error.is_remote()
                    && error.reason() == Some(Reason::REFUSED_STREAM)
                {
                    Some(Self::Refused)
                } else {
                    None
                };
            }
            cause = inner.source();
        }
        None
    }
}

/// Makes the head what HTTP/2 to this endpoint has: an absolute URI, of which hyper makes the pseudo-header fields. hyper
/// removes what is the connection's (RFC 9113 §8.2.2) and keeps `te: trailers`.
fn address(
    head: &mut Parts,
    asked: Option<&HeaderValue>,
    endpoint: &Endpoint,
) -> Result<(), SendError> {
    let invalid = |error: http::Error| SendError::Unreachable {
        address: endpoint.text().clone(),
        source: io::Error::new(io::ErrorKind::InvalidInput, error),
    };
    let mut uri = std::mem::take(&mut head.uri).into_parts();
    uri.scheme = Some(endpoint.scheme());
    uri.authority = Some(match asked {
        Some(host) => Authority::try_from(host.as_bytes()).map_err(|e| invalid(e.into()))?,
        None => endpoint.authority().clone(),
    });
    uri.path_and_query
        .get_or_insert(PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).map_err(|e| invalid(e.into()))?;
    Ok(())
}

/// Checks the head of an answer and arranges for the stream to be given back when its body ends.
fn accept(
    seat: Arc<Seat>,
    response: Response<Incoming>,
    terms: &Terms,
    address: &Arc<str>,
) -> Result<Response<Body>, SendError> {
    let (mut head, incoming) = response.into_parts();
    let framing = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // There is no such answer in HTTP/2 (RFC 9113 §8.6).
        Err(Fault::UnaskedUpgrade)
    } else {
        settle_framing(&mut head.headers)
    };
    if let Err(source) = framing {
        seat.cut();
        let address = address.clone();
        return Err(SendError::Protocol { address, source });
    }
    let body = if incoming.is_end_stream() {
        seat.answered();
        Body::empty()
    } else {
        let idle_timeout = silence(&head.headers, terms);
        Body::incoming(incoming).watched(Box::new(Answer {
            seat,
            idle_timeout,
            waiting: false,
        }))
    };
    Ok(Response::from_parts(head, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_call_of_grpc_needs_http_2() {
        let check = |method: &str, content_type: &str, expected| {
            let request = Request::builder()
                .method(method)
                .header("content-type", content_type)
                .body(Body::empty())
                .unwrap();
            assert_eq!(is_grpc(&request), expected, "{method} {content_type}");
        };
        check("POST", "application/grpc", true);
        check("GET", "application/grpc", false);
        check("POST", "application/grpc-web", false);
        check("POST", "application/json", false);
    }
}
