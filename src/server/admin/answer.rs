//! What the admin socket answers: a pure function of the request's head and the view. Read-only.

use super::{AdminView, Readiness, State};
use crate::base::body::Body;
use crate::telemetry::metrics;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use serde_json::json;
use std::net::IpAddr;

/// One request of the admin socket.
pub(super) fn answer<B: http_body::Body>(
    view: &dyn AdminView,
    own_name: &str,
    request: &Request<B>,
) -> Response<Body> {
    if let Err(status) = check_host(request, own_name) {
        return plain(
            status,
            "this address answers to IP literals, localhost and its own host name\n",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "read-only\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        close_if_body(request, &mut response);
        return response;
    }
    let mut response = match request.uri().path() {
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => ready(&view.readiness()),
        "/metrics" => respond(StatusCode::OK, metrics::CONTENT_TYPE, view.metrics()),
        _ => plain(StatusCode::NOT_FOUND, "not found\n"),
    };
    close_if_body(request, &mut response);
    response
}

/// A body is never read, so the connection cannot go on behind it.
fn close_if_body<B: http_body::Body>(request: &Request<B>, response: &mut Response<Body>) {
    if !request.body().is_end_stream() {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn ready(readiness: &Readiness) -> Response<Body> {
    let (status, word) = match readiness.state {
        State::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        State::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        State::Serving if readiness.reasons.is_empty() => (StatusCode::OK, "ok"),
        State::Serving => (StatusCode::OK, "degraded"),
    };
    let body = json!({ "status": word, "reasons": readiness.reasons });
    respond(status, "application/json", format!("{body}\n"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<bytes::Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let fields: [(HeaderName, &'static str); 3] = [
        (CONTENT_TYPE, media_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fields {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Exactly one Host, and one of ours; HTTP/1.0 may leave it out (RFC 9112 §3.2).
fn check_host<B>(request: &Request<B>, own_name: &str) -> Result<(), StatusCode> {
    let allowed = |authority: &str| {
        is_ours(authority, own_name)
            .then_some(())
            .ok_or(StatusCode::MISDIRECTED_REQUEST)
    };
    match host(request.headers())? {
        Some(host) => allowed(host)?,
        None if request.version() == Version::HTTP_10 => {}
        None => return Err(StatusCode::BAD_REQUEST),
    }
    request
        .uri()
        .authority()
        .map_or(Ok(()), |a| allowed(a.as_str()))
}

fn host(headers: &HeaderMap) -> Result<Option<&str>, StatusCode> {
    let mut values = headers.get_all(HOST).iter();
    let Some(host) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    host.to_str().map(Some).map_err(|_| StatusCode::BAD_REQUEST)
}

fn is_ours(authority: &str, own_name: &str) -> bool {
    // `Uri` knows authorities: brackets, ports, user information (which is none of ours).
    let Ok(uri) = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query("/")
        .build()
    else {
        return false;
    };
    let Some(host) = uri.host().filter(|_| !authority.contains('@')) else {
        return false;
    };
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let name = host.strip_suffix('.').unwrap_or(host);
    literal.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || (!own_name.is_empty() && name.eq_ignore_ascii_case(own_name))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use parking_lot::Mutex;

    pub(in crate::server) struct View(pub(in crate::server) Mutex<Readiness>);

    impl View {
        pub(in crate::server) fn new(state: State, reasons: &[&str]) -> Self {
            let reasons = reasons.iter().map(|r| (*r).to_owned()).collect();
            Self(Mutex::new(Readiness { state, reasons }))
        }
    }

    impl AdminView for View {
        fn readiness(&self) -> Readiness {
            self.0.lock().clone()
        }
        fn metrics(&self) -> String {
            "tollhouse_build_info 1\n".into()
        }
    }

    fn request(method: &str, target: &str, host: Option<&str>) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(Body::empty()).unwrap()
    }

    #[test]
    fn each_path_has_its_answer_and_everything_else_is_404() {
        let check = |method, path, status| {
            let response = answer(
                &View::new(State::Serving, &[]),
                "box",
                &request(method, path, Some("127.0.0.1:9901")),
            );
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        };
        check("GET", "/livez", 200);
        check("HEAD", "/livez", 200);
        check("GET", "/readyz", 200);
        check("GET", "/metrics?x=1", 200);
        check("GET", "/", 404);
        check("GET", "/status", 404);
        check("GET", "/livez/", 404);
        check("POST", "/livez", 405);
        check("OPTIONS", "/nothing", 405);
    }

    #[test]
    fn only_hosts_that_no_page_can_forge_are_answered() {
        let check = |host: Option<&str>, status: u16| {
            let response = answer(
                &View::new(State::Serving, &[]),
                "box.local",
                &request("GET", "/livez", host),
            );
            assert_eq!(response.status(), status, "{host:?}");
        };
        for host in [
            "127.0.0.1",
            "10.1.2.3:9901",
            "[::1]",
            "[::1]:9901",
            "localhost",
            "LOCALHOST:1",
            "localhost.",
            "Box.local:9901",
        ] {
            check(Some(host), 200);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "a@localhost",
            "127.0.0.1/x",
            "",
            "box",
        ] {
            check(Some(host), 421);
        }
        check(None, 400);
        let mut two = request("GET", "/livez", Some("localhost"));
        two.headers_mut()
            .append(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(
            answer(&View::new(State::Serving, &[]), "", &two).status(),
            400
        );
        let mut old = request("GET", "/livez", None);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(
            answer(&View::new(State::Serving, &[]), "", &old).status(),
            200
        );
        let absolute = request("GET", "http://evil.example/livez", Some("localhost"));
        assert_eq!(
            answer(&View::new(State::Serving, &[]), "", &absolute).status(),
            421
        );
    }

    #[tokio::test]
    async fn readiness_is_the_state_and_trouble_changes_only_the_body() {
        for (state, reasons, status, body) in [
            (
                State::Serving,
                &[][..],
                200,
                "{\"reasons\":[],\"status\":\"ok\"}\n",
            ),
            (
                State::Serving,
                &["keys of `main` are stale"][..],
                200,
                "{\"reasons\":[\"keys of `main` are stale\"],\"status\":\"degraded\"}\n",
            ),
            (
                State::Starting,
                &[][..],
                503,
                "{\"reasons\":[],\"status\":\"starting\"}\n",
            ),
            (
                State::Draining,
                &["x"][..],
                503,
                "{\"reasons\":[\"x\"],\"status\":\"draining\"}\n",
            ),
        ] {
            let response = answer(
                &View::new(state, reasons),
                "",
                &request("GET", "/readyz", Some("localhost")),
            );
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let (found, expected): (serde_json::Value, serde_json::Value) = (
                serde_json::from_slice(&bytes).unwrap(),
                serde_json::from_str(body).unwrap(),
            );
            assert_eq!(found, expected);
        }
    }
}
