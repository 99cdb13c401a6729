//! What was decided is done: forward, redirect, answer.

use super::facts::Exchange;
use super::tunnel::{self, Arranged, Handshake};
use super::{Connection, Gateway, Local, visit};
use crate::base::body::Body;
use crate::config::route::{Auth, ForwardSession};
use crate::endpoints;
use crate::exchange::{Code, Reject};
use crate::headers::{cookies, grpc, security, strip};
use crate::route::{Forward, Route, Target};
use crate::upstream::{BodyFault, SendError, Sent, Terms};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;

/// What `decide` found.
#[derive(Debug)]
pub enum Plan<'s> {
    /// A CORS preflight has its answer. In a box, for it is rare and large.
    Preflight(Box<Response<()>>),
    /// It came in the clear and belongs to https: there.
    ToHttps(HeaderValue),
    /// The route's target is to be done.
    Do {
        /// The route.
        route: &'s Route,
        /// What the connection is to become.
        handshake: Option<Handshake>,
        /// The host that was asked for.
        host: HeaderValue,
    },
}

/// What came of it.
pub(super) struct Performed {
    pub(super) answer: Response<Body>,
    /// The tunnel that the connection is to become.
    pub(super) arranged: Option<Arranged>,
}

impl From<Response<Body>> for Performed {
    fn from(answer: Response<Body>) -> Self {
        Self {
            answer,
            arranged: None,
        }
    }
}

/// Does what was decided.
pub(super) async fn perform(
    gateway: &Gateway,
    (local, connection): (&Arc<Local>, &Arc<Connection>),
    plan: Plan<'_>,
    ex: &mut Exchange,
    head: Parts,
    body: Body,
) -> Result<Performed, Reject> {
    let (route, handshake, host) = match plan {
        Plan::Preflight(answer) => return Ok(answer.map(|()| Body::empty()).into()),
        Plan::ToHttps(to) => return Ok(to_https(to).into()),
        Plan::Do {
            route,
            handshake,
            host,
        } => (route, handshake, host),
    };
    match &route.target {
        Target::Upstream(forward) => {
            let request = Request::from_parts(head, body);
            upstream(gateway, local, route, forward, ex, request, handshake).await
        }
        Target::Redirect { to, status } => {
            Ok(short(route, ex, *status, LOCATION, to.clone(), Body::empty()).into())
        }
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
        )
        .into()),
        Target::Endpoint(endpoint) => {
            let errand = visit::Errand {
                local: local.clone(),
                connection: connection.clone(),
                head,
                host,
            };
            let mut answer = Box::pin(visit::answer(errand, *endpoint, ex, body)).await?;
            let headers = answer.headers_mut();
            as_the_route_says(route, ex, headers);
            // Whatever the route says of caches: it is about one person, and over when the session is.
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(answer.into())
        }
    }
}

fn to_https(to: HeaderValue) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    security::own(answer.headers_mut());
    answer.headers_mut().insert(LOCATION, to);
    answer
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
    mut request: Request<Body>,
    handshake: Option<Handshake>,
) -> Result<Performed, Reject> {
    let snapshot = &local.snapshot;
    match route.max_body {
        Some(limit) if request.body().size_hint().lower() > limit => return Err(too_large(limit)),
        Some(limit) if !request.body().is_end_stream() => {
            request = request.map(|body| body.limited(limit));
        }
        _ => {}
    }
    ex.upstream = Some(forward.index);
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let place = match handshake {
        None => None,
        Some(_) if client.is_none() => return Err(tunnel::impossible()),
        Some(_) => Some(gateway.berths.take()?),
    };
    let terms = Terms {
        timeout: forward.timeout,
        patience: grpc::patience(request.headers()),
        idle_timeout: forward.idle_timeout,
        retries: forward.retries,
        client_ip: Some(ex.client.ip).filter(|_| ex.client.known),
        upgrade: handshake.as_ref().map(|handshake| handshake.token.clone()),
    };
    let asked = snapshot.clock.now();
    let sent = gateway.pools.send(&forward.upstream, request, &terms).await;
    let took = snapshot.clock.now().saturating_duration_since(asked);
    let sent = sent.map_err(|error| refusal(&error))?;
    ex.upstream_micros = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    snapshot.metrics.upstream(local.worker, forward.index, took);
    let (mut answer, arranged) = match sent {
        Sent::Answer(answer) => (answer, None),
        Sent::Switched { head, stream } => {
            let (Some(client), Some(place), Some(handshake)) = (client, place, &handshake) else {
                return Err(tunnel::impossible().forwarded());
            };
            let arranged = Arranged {
                client,
                upstream: stream,
                protocol: handshake.protocol,
                place,
            };
            (head.map(|()| Body::empty()), Some(arranged))
        }
    };
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
    security::remove_set_cookies(headers, endpoints::is_attempt);
    if sets_session && !session_passes {
        security::remove_set_cookies(headers, |name| session.is_some_and(|s| s.owns(name)));
    }
    as_the_route_says(route, ex, headers);
    if sets_session && session_passes {
        security::never_cache(headers);
        // The application knows better: a login or a logout of its own is newer than what we found in the request.
        ex.told.set.clear();
    }
    if let Some(handshake) = handshake.filter(|_| arranged.is_some()) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, handshake.token);
    }
    Ok(Performed { answer, arranged })
}

pub(super) fn too_large(limit: u64) -> Reject {
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
