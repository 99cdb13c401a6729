//! What was decided is done: forward, redirect, answer.

use super::facts::Exchange;
use super::tunnel::{self, Arranged, Handshake};
use super::{Connection, Gateway, Local, visit};
use crate::base::body::Body;
use crate::config::route::{Auth, ForwardSession};
use crate::endpoints;
use crate::exchange::{Code, Reject};
use crate::headers::{grpc, security, strip};
use crate::route::{Forward, Route, Target};
use crate::session::Session;
use crate::upstream::{BodyFault, SendError, Sent, Terms};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, SET_COOKIE, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use std::cell::Cell;
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
            // In a box: few requests come here, and all would have to make room for it.
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
    let sets_session = sift_cookies(headers, snapshot.session.as_ref(), session_passes);
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

/// Removes the cookies that are not an upstream's to set: those of a login that is under way, and those of the session unless
/// they pass. Says whether there were any of the session.
fn sift_cookies(headers: &mut HeaderMap, session: Option<&Session>, session_passes: bool) -> bool {
    if !headers.contains_key(SET_COOKIE) {
        return false;
    }
    let sets_session = Cell::new(false);
    security::remove_set_cookies(headers, |name| {
        let of_session = session.is_some_and(|session| session.owns(name));
        sets_session.set(sets_session.get() | of_session);
        of_session && !session_passes || endpoints::is_attempt(name)
    });
    sets_session.get()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::session::Jar;
    use crate::session::raw::RawCookie;
    use crate::session::set_cookie::{Attributes, SameSite};

    fn session() -> Session {
        let attributes = Attributes {
            domain: None,
            path: "/".into(),
            secure: true,
            http_only: true,
            partitioned: false,
            same_site: SameSite::Lax,
        };
        let jar = Jar::RawToken(RawCookie {
            name: "sid".into(),
            attributes,
        });
        Session::new(0, jar, None, Clock::frozen(0))
    }

    /// `passes`: whether the session's cookies do; `None`: there is no session.
    fn check(set: &[&'static str], passes: Option<bool>, left: &[&str], sets_session: bool) {
        let session = passes.map(|_| session());
        let mut headers = HeaderMap::new();
        for field in set {
            headers.append(SET_COOKIE, HeaderValue::from_static(field));
        }
        let said = sift_cookies(&mut headers, session.as_ref(), passes == Some(true));
        let found: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(found, left, "{set:?} {passes:?}");
        assert_eq!(said, sets_session, "{set:?} {passes:?}");
    }

    #[test]
    fn cookies_that_are_not_the_upstreams_to_set_are_removed_and_others_keep_their_order() {
        const LOGIN: &str = "__Host-tollhouse-login-x=1";
        for passes in [None, Some(false), Some(true)] {
            check(&[], passes, &[], false);
            check(
                &["b=1; Path=/", "a=2"],
                passes,
                &["b=1; Path=/", "a=2"],
                false,
            );
            check(&["b=1", LOGIN, "a=2"], passes, &["b=1", "a=2"], false);
        }
        let all = ["b=1", "sid=x", "a=2"];
        check(&all, None, &all, false);
        check(&all, Some(true), &all, true);
        check(&all, Some(false), &["b=1", "a=2"], true);
        // The first that is removed does not hide what comes after it.
        check(
            &[LOGIN, "a=2", "sid=x"],
            Some(true),
            &["a=2", "sid=x"],
            true,
        );
        check(&[LOGIN, "a=2", "sid=x"], Some(false), &["a=2"], true);
        check(&["sid=x", LOGIN], Some(false), &[], true);
    }
}
