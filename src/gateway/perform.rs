//! What was decided is done: forward, redirect, answer.

use super::facts::Exchange;
use super::{Gateway, Local};
use crate::base::body::{Body, End, Watch};
use crate::config::route::{Auth, ForwardSession};
use crate::exchange::{Code, Reject};
use crate::headers::{cookies, security, strip};
use crate::route::{Forward, Route, Target};
use crate::snapshot::Snapshot;
use crate::upstream::{BodyFault, SendError, Terms};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE, TRAILER};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use std::sync::Arc;

/// What `decide` found.
#[derive(Debug)]
pub enum Plan<'s> {
    /// A CORS preflight has its answer. In a box, for it is rare and large.
    Preflight(Box<Response<()>>),
    /// The route's target is to be done.
    Do(&'s Route),
}

/// Does what was decided.
pub(super) async fn perform(
    gateway: &Gateway,
    local: &Arc<Local>,
    plan: Plan<'_>,
    ex: &mut Exchange,
    head: Parts,
    body: Body,
) -> Result<Response<Body>, Reject> {
    let route = match plan {
        Plan::Preflight(answer) => return Ok(answer.map(|()| Body::empty())),
        Plan::Do(route) => route,
    };
    match &route.target {
        Target::Upstream(forward) => upstream(gateway, local, route, forward, ex, head, body).await,
        Target::Redirect { to, status } => Ok(short(
            route,
            ex,
            *status,
            LOCATION,
            to.clone(),
            Body::empty(),
        )),
        Target::Respond {
            status,
            body,
            content_type,
        } => Ok(short(
            route,
            ex,
            *status,
            CONTENT_TYPE,
            content_type.clone(),
            Body::full(body.clone()),
        )),
    }
}

/// What holds for every answer of a route: who may keep it, and the operator's changes.
fn as_the_route_says(route: &Route, ex: &Exchange, headers: &mut HeaderMap) {
    if ex.user.is_some() {
        security::private_cache(headers, route.cache_public);
    }
    for name in &route.response_headers.remove {
        headers.remove(name);
    }
    for (name, value) in &route.response_headers.set {
        headers.insert(name, value.clone());
    }
}

/// An answer of the plan, as strict as a refusal; caches may keep what is public or said to be.
fn short(
    route: &Route,
    ex: &Exchange,
    status: StatusCode,
    name: HeaderName,
    value: HeaderValue,
    body: Body,
) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    security::own(headers);
    if route.accepts.auth == Auth::Public || route.cache_public {
        headers.remove(CACHE_CONTROL);
    }
    headers.insert(name, value);
    as_the_route_says(route, ex, headers);
    answer
}

async fn upstream(
    gateway: &Gateway,
    local: &Arc<Local>,
    route: &Route,
    forward: &Forward,
    ex: &mut Exchange,
    head: Parts,
    body: Body,
) -> Result<Response<Body>, Reject> {
    let snapshot = &local.snapshot;
    let body = match route.max_body {
        Some(limit) if body.size_hint().lower() > limit => return Err(too_large(limit)),
        Some(limit) if !body.is_end_stream() => body.limited(limit),
        _ => body,
    };
    ex.upstream = Some(forward.index);
    let terms = Terms {
        timeout: forward.timeout,
        idle_timeout: forward.idle_timeout,
        retries: forward.retries,
        client_ip: Some(ex.client.ip).filter(|_| ex.client.known),
    };
    let asked = snapshot.clock.now();
    let request = Request::from_parts(head, body);
    let sent = gateway.pools.send(&forward.upstream, request, &terms).await;
    let took = snapshot.clock.now().saturating_duration_since(asked);
    let mut answer = sent.map_err(|error| refusal(&error))?;
    ex.upstream_micros = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    snapshot.metrics.upstream(local.worker, forward.index, took);
    let headers = answer.headers_mut();
    strip::strip_response(headers, &snapshot.forgeable);
    let session_passes = route.forward_credentials
        || matches!(
            route.forward_session,
            ForwardSession::Cookies | ForwardSession::Both
        );
    let session = snapshot.session.as_ref();
    let sets_session = session.is_some_and(|session| {
        let set = headers.get_all(SET_COOKIE).iter();
        set.map(cookies::set_cookie_name)
            .any(|name| session.owns(name))
    });
    if sets_session && !session_passes {
        security::remove_set_cookies(headers, |name| session.is_some_and(|s| s.owns(name)));
    }
    as_the_route_says(route, ex, headers);
    if sets_session && session_passes {
        security::never_cache(headers);
    }
    if headers.contains_key(TRAILER) {
        let snapshot = snapshot.clone();
        answer = answer.map(|body| body.watched(Box::new(Trailers(snapshot))));
    }
    Ok(answer)
}

/// Lets only those trailers by that a client may see. Those of requests end here: hyper writes none that the head did not
/// announce.
struct Trailers(Arc<Snapshot>);

impl Watch for Trailers {
    fn trailers(&mut self, trailers: &mut HeaderMap) {
        strip::clean_trailers_to_client(trailers, &self.0.forgeable);
    }

    fn end(self: Box<Self>, _how: End) {}
}

fn too_large(limit: u64) -> Reject {
    Reject::new(
        Code::PayloadTooLarge,
        format!("The body may have at most {limit} bytes here."),
    )
}

/// What the client is told of a failed try; the log is told the rest.
fn refusal(error: &SendError) -> Reject {
    let reject = match error {
        SendError::Unreachable { .. } => Reject::new(
            Code::UpstreamUnreachable,
            "No connection could be made to the service behind the gateway.",
        ),
        SendError::Protocol { .. } => Reject::new(
            Code::UpstreamProtocolError,
            "The service behind the gateway broke off or did not speak HTTP.",
        ),
        SendError::Timeout { .. } => Reject::new(
            Code::UpstreamTimeout,
            "The service behind the gateway took too long to answer.",
        ),
        SendError::Unavailable { .. } => Reject::new(
            Code::UpstreamUnavailable,
            "The service behind the gateway has no room for this request now.",
        ),
        SendError::RequestBody(BodyFault::TooLarge { limit }) => too_large(*limit),
        SendError::RequestBody(BodyFault::Stalled) => Reject::new(
            Code::RequestTimeout,
            "The body of the request did not come in time.",
        ),
        SendError::RequestBody(BodyFault::Cut) => Reject::new(
            Code::BadRequest,
            "The body of the request was cut short or badly framed.",
        ),
    };
    let reject = reject.caused_by(error);
    if error.forwarded() {
        reject.forwarded()
    } else {
        reject
    }
}

/// Whether a status carries no body by itself (RFC 9110 §6.4.1).
pub(super) fn is_bodiless(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

/// Keeps the length of a body that a `HEAD` answer does not carry.
pub(super) fn without_body(answer: &mut Response<Body>) {
    let length = answer.body().size_hint().exact();
    if let Some(length) = length.filter(|length| *length > 0) {
        answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    *answer.body_mut() = Body::empty();
}
