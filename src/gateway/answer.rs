//! The one door out: a refusal becomes a problem (RFC 9457), a page or a gRPC status; every answer gets its id, its CORS,
//! rate-limit and security headers, and its record.

use super::Connection;
use super::bond::Bond;
use super::facts::Exchange;
use super::perform::{Performed, is_bodiless, without_body};
use super::record::Record;
use crate::base::body::Body;
use crate::config::route::OnUnauthenticated;
use crate::cors;
use crate::exchange::{Code, Reject};
use crate::headers::{grpc, security};
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::telemetry::request_id::X_REQUEST_ID;
use http::header::{
    ACCEPT, ALLOW, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use serde::Serialize;

/// In what shape the client wants a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `application/problem+json`.
    Problem,
    /// A browser shows it to a person.
    Page {
        /// The query it came with.
        query: Option<String>,
        /// Asking again after a login would be the same.
        repeatable: bool,
    },
    /// `grpc-status` in the headers.
    Grpc,
}

/// Bytes of an answer that hyper gets at once for an HTTP/2 stream. It lets go of a stream as soon as it has the last
/// piece, and h2 keeps that piece for as long as the client opens no window (CVE-2019-9517).
const HTTP_2_PIECE: usize = 16 << 10;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

impl Style {
    pub(super) fn of(head: &Parts) -> Self {
        let value = |name: &HeaderName| head.headers.get(name).map_or(&b""[..], |v| v.as_bytes());
        if grpc::is_grpc(&head.headers) {
            return Self::Grpc;
        }
        // A navigation: the browser says so, or is too old to say and asks for HTML first.
        let mode = value(&SEC_FETCH_MODE);
        let navigates = match mode {
            b"" => value(&ACCEPT).starts_with(b"text/html"),
            _ => mode == b"navigate" && matches!(value(&SEC_FETCH_DEST), b"" | b"document"),
        };
        if navigates {
            return Self::Page {
                query: head.uri.query().map(str::to_owned),
                repeatable: matches!(head.method, Method::GET | Method::HEAD),
            };
        }
        Self::Problem
    }
}

/// Makes the answer ready to go and hands the record to its body.
pub(super) fn finish(
    snapshot: &Snapshot,
    mut record: Box<Record>,
    result: Result<Performed, Reject>,
    style: &Style,
    connection: &Connection,
) -> Response<Body> {
    let ex = &mut record.ex;
    let route = ex.route.and_then(|index| snapshot.routes.get(index));
    let Performed {
        mut answer,
        arranged,
    } = match result {
        Ok(performed) => performed,
        Err(reject) => {
            ex.code = Some(reject.code());
            log(&reject, ex, route);
            let login = route.is_some_and(|r| r.on_unauthenticated == OnUnauthenticated::Login)
                && reject.code().status() == StatusCode::UNAUTHORIZED;
            match (style, &snapshot.config.session) {
                (
                    Style::Page {
                        query,
                        repeatable: true,
                    },
                    Some(session),
                ) if login => {
                    to_login(&session.login_url, ex.path.as_deref(), query.as_deref()).into()
                }
                _ => refuse(&reject, ex, style).into(),
            }
        }
    };
    let status = answer.status();
    let headers = answer.headers_mut();
    if ex.version == Version::HTTP_2 {
        headers.remove(CONNECTION); // it has no such field, and streams end alone
    } else if ex.path.is_none() {
        // The head had no single reading: nothing that stands behind it is read.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    match route {
        Some(route) => {
            security::apply(headers, &route.security_headers);
            // The upstream's own CORS fields are replaced; those of a preflight's answer are ours already.
            if let Some(rule) = route.cors.as_ref().filter(|_| !ex.preflight) {
                cors::answer(rule, ex.origin.as_ref(), headers);
            }
        }
        None => security::apply(headers, &snapshot.config.security_headers),
    }
    if connection.peer.redirects_to.is_some() && !ex.secure {
        headers.remove(STRICT_TRANSPORT_SECURITY); // nobody believes it in the clear (RFC 6797 §7.2)
    }
    if ex.limits.tightest.is_some() {
        let mut told = Vec::new();
        snapshot
            .limits
            .write_headers(&ex.limits, snapshot.rate_limit_headers, &mut told);
        for (name, value) in told {
            headers.insert(name, value);
        }
    }
    if !ex.told.set.is_empty() {
        for cookie in std::mem::take(&mut ex.told.set) {
            headers.append(SET_COOKIE, cookie);
        }
        security::never_cache(headers);
    }
    headers.insert(X_REQUEST_ID, ex.request_id.clone());
    *answer.version_mut() = Version::HTTP_11;
    if ex.method == Method::HEAD && !is_bodiless(status) {
        without_body(&mut answer);
    }
    if let Some(arranged) = arranged {
        // The record goes on with the connection.
        connection.pulse.became_a_tunnel();
        let bond = Bond::of_tunnel(route, ex);
        let record = record.switched(status, bond);
        connection.berth.put(arranged, record);
        return answer;
    }
    let http_2 = ex.version == Version::HTTP_2;
    let bond = Bond::of_answer(route, ex, &answer);
    let (parts, body) = answer.into_parts();
    let mut body = record.answered(status, bond, body);
    if http_2 {
        body = body.in_pieces(HTTP_2_PIECE);
    }
    Response::from_parts(parts, body)
}

/// One line for each refusal: what a person must see at `warn` and above, what a client may do wrong all day below it.
fn log(reject: &Reject, ex: &Exchange, route: Option<&Route>) {
    use crate::exchange::Code::{
        AuthUnavailable, CsrfRejected, Forbidden, Internal, Misdirected, RateLimited,
    };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = ex.request_id.to_str().unwrap_or(""),
                client_ip = %ex.client.ip,
                route = route.map_or("", |route| &*route.name),
                code = reject.code().as_str(),
                reason = reject.reason(),
                "refused"
            )
        };
    }
    match reject.code() {
        AuthUnavailable | Internal => line!(error),
        CsrfRejected | Forbidden | RateLimited | Misdirected => line!(info),
        // Nothing was sent: nothing went wrong.
        Code::MissingCredentials if reject.reason().is_empty() => line!(debug),
        code if code.status() == StatusCode::UNAUTHORIZED => line!(warn),
        code if code.status().is_server_error() => line!(warn),
        _ => line!(debug),
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    request_id: &'a str,
    forwarded: bool,
}

/// A refusal as the client wants it.
fn refuse(reject: &Reject, ex: &Exchange, style: &Style) -> Response<Body> {
    let code = reject.code();
    let request_id = ex.request_id.to_str().unwrap_or("");
    let (status, content_type, body) = match style {
        Style::Grpc => (StatusCode::OK, "application/grpc", Body::empty()),
        Style::Page { .. } => (
            code.status(),
            "text/html; charset=utf-8",
            Body::full(page(reject, request_id)),
        ),
        Style::Problem => {
            let problem = Problem {
                r#type: format!("urn:tollhouse:problem:{}", code.as_str()),
                title: code.title(),
                status: code.status().as_u16(),
                detail: reject.detail(),
                code: code.as_str(),
                request_id,
                forwarded: reject.was_forwarded(),
            };
            (
                code.status(),
                "application/problem+json",
                Body::full(serde_json::to_vec(&problem).unwrap_or_default()),
            )
        }
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    security::own(headers);
    if *style == Style::Grpc {
        headers.insert(
            "grpc-status",
            HeaderValue::from_static(grpc_status(code.status())),
        );
        headers.insert("grpc-message", HeaderValue::from_static(code.as_str()));
    }
    if code.status() == StatusCode::UNAUTHORIZED {
        let challenge = if reject.token_sent() {
            r#"Bearer realm="tollhouse", error="invalid_token""#
        } else {
            r#"Bearer realm="tollhouse""#
        };
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if code == Code::Internal {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(seconds) = reject.retry_after_seconds() {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Some(allow) = reject.allowed() {
        headers.insert(ALLOW, allow.clone());
    }
    answer
}

/// The status that a gRPC client expects for an HTTP status of ours (the gRPC core's mapping).
fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 413 | 414 | 417 | 422 | 431 => "3",
        401 => "16",
        403 => "7",
        404 | 405 | 421 => "12",
        408 | 504 => "4",
        429 => "8",
        502 | 503 => "14",
        _ => "13",
    }
}

/// To the login page, and back afterwards to where the browser wanted to go: the canonical path, which never starts with
/// `//`, so that a page which follows it blindly stays on this host.
fn to_login(login_url: &str, path: Option<&str>, query: Option<&str>) -> Response<Body> {
    let encoded =
        |text| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC);
    let mut to = String::from(login_url);
    to.push(if login_url.contains('?') { '&' } else { '?' });
    to.push_str("return_to=");
    to.extend(encoded(path.unwrap_or("/")));
    if let Some(query) = query {
        to.extend(encoded("?"));
        to.extend(encoded(query));
    }
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SEE_OTHER;
    if let Ok(to) = HeaderValue::try_from(to) {
        answer.headers_mut().insert(LOCATION, to);
    }
    security::own(answer.headers_mut());
    answer
}

/// A short page for a person. Everything in it is ours: the client's input is never shown.
fn page(reject: &Reject, request_id: &str) -> String {
    let code = reject.code();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{status} {title}</title><h1>{title}</h1><p>{detail}</p><p><small>{status} {code} · request {request_id}</small></p></html>\n",
        status = code.status().as_u16(),
        title = code.title(),
        detail = escape(reject.detail()),
        code = code.as_str(),
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The refusal of a request whose handling panicked.
pub(super) fn panicked(ex: &Exchange) -> Reject {
    let reject = Reject::new(
        Code::Internal,
        "The gateway failed on this request; others are not affected.",
    )
    .because("panic");
    // Nobody can tell any more how far it got.
    if ex.upstream.is_some() {
        reject.forwarded()
    } else {
        reject
    }
}
