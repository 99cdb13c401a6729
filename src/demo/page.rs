//! The page at `/`: five files compiled in, served with a policy that lets nothing else run or load.

use crate::base::body::Body;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Answers one request.
pub fn handle<B>(request: &Request<B>) -> Response<Body> {
    let (content_type, body) = match request.uri().path() {
        "/" => ("text/html; charset=utf-8", include_str!("page.html")),
        "/demo.css" => ("text/css; charset=utf-8", include_str!("page.css")),
        "/demo.js" => (SCRIPT, include_str!("page.js")),
        "/demo-result.js" => (SCRIPT, include_str!("result.js")),
        "/demo-session.js" => (SCRIPT, include_str!("session.js")),
        _ => return refusal(StatusCode::NOT_FOUND),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED);
        let allow = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allow);
        return response;
    }
    answer(StatusCode::OK, content_type, Body::full(body))
}

fn refusal(status: StatusCode) -> Response<Body> {
    let text = status.canonical_reason().unwrap_or_default();
    answer(status, "text/plain; charset=utf-8", Body::full(text))
}

fn answer(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let set: [(HeaderName, &'static str); 6] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, CSP),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer` what is posted might say that it comes from nowhere (Fetch §3.2), and be refused.
        (REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in set {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn get(path: &str) -> Response<Body> {
        handle(&Request::get(path).body(()).unwrap())
    }

    async fn text(path: &str) -> String {
        let body = get(path).into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn every_file_has_its_type_the_strict_policy_and_is_never_stored() {
        let check = |path: &str, status: u16, content_type: &str| {
            let response = get(path);
            assert_eq!(response.status(), status, "{path}");
            let headers = response.headers();
            assert_eq!(headers["content-type"], content_type);
            assert_eq!(headers["cache-control"], "no-store");
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
        };
        check("/", 200, "text/html; charset=utf-8");
        check("/demo.css", 200, "text/css; charset=utf-8");
        check("/demo.js", 200, "text/javascript; charset=utf-8");
        check("/demo-result.js", 200, "text/javascript; charset=utf-8");
        check("/demo-session.js", 200, "text/javascript; charset=utf-8");
        check("/other", 404, "text/plain; charset=utf-8");
    }

    #[tokio::test]
    async fn the_page_runs_no_inline_code_and_loads_nothing_from_elsewhere() {
        let html = text("/").await;
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains("<script src=\"/demo.js\" type=\"module\"></script>"));
        for forbidden in [
            " style=",
            "<style",
            " onclick",
            " onload",
            " onsubmit",
            "javascript:",
            "https://",
        ] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        // Nothing is filled in, so that there is nothing to escape.
        assert!(!html.contains("{{"));
        let mut script = String::new();
        for path in ["/demo.js", "/demo-result.js", "/demo-session.js"] {
            script += &text(path).await;
        }
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "localStorage",
            "sessionStorage",
            "eval(",
            "https://",
        ] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
        let style = text("/demo.css").await;
        assert!(!style.contains("@import") && !style.contains("url("));
    }

    #[test]
    fn other_methods_are_refused() {
        let post = handle(&Request::post("/").body(()).unwrap());
        assert_eq!(post.status(), 405);
        assert_eq!(post.headers()["allow"], "GET, HEAD");
    }
}
