//! The answers that are no refusals. None of them may be stored.

use super::return_to::Location;
use crate::base::body::Body;
use crate::headers::security;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

/// 200 with JSON.
pub(super) fn json(value: &Value) -> Response<Body> {
    let mut answer = with(StatusCode::OK, Body::full(value.to_string()));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

/// 204.
pub(super) fn nothing() -> Response<Body> {
    with(StatusCode::NO_CONTENT, Body::empty())
}

/// 303: the browser goes on there with a `GET`, whatever this request was (RFC 9110 §15.4.4).
pub(super) fn see_other(to: &Location) -> Response<Body> {
    let mut answer = with(StatusCode::SEE_OTHER, Body::empty());
    answer.headers_mut().insert(LOCATION, to.value());
    answer
}

/// 200 with a page under a policy of its own, whose forms tell where they come from.
pub(super) fn page(html: String, policy: HeaderValue) -> Response<Body> {
    let mut answer = with(StatusCode::OK, Body::full(html));
    let headers = answer.headers_mut();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    headers.insert(CONTENT_TYPE, html);
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    // With `no-referrer` a browser says `Origin: null` when the form is sent, which is no page of ours (Fetch §3.2). This
    // one tells nobody more than the origin.
    let origin = HeaderValue::from_static("strict-origin");
    headers.insert(REFERRER_POLICY, origin);
    answer
}

fn with(status: StatusCode, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    security::own(answer.headers_mut());
    answer
}
