//! The page at `/`: four files compiled in, served with a policy that lets nothing else run or load.

use crate::base::body::Body;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                   form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The page, with what it needs to know of this run.
#[derive(Clone, Debug)]
pub struct Page {
    html: Bytes,
}

impl Page {
    /// Both go into attributes of the page: the key that every page of an application carries, and the name under
    /// which the Supabase library keeps its session.
    pub fn new(api_key: &str, storage_key: &str) -> Self {
        let html = include_str!("page.html")
            .replace("{{api_key}}", &escape(api_key))
            .replace("{{storage_key}}", &escape(storage_key));
        Self { html: html.into() }
    }

    /// Answers one request.
    pub fn handle<B>(&self, request: &Request<B>) -> Response<Body> {
        let (content_type, body) = match request.uri().path() {
            "/" => ("text/html; charset=utf-8", self.html.clone()),
            "/demo.css" => (
                "text/css; charset=utf-8",
                Bytes::from_static(include_bytes!("page.css")),
            ),
            "/demo.js" => (
                "text/javascript; charset=utf-8",
                Bytes::from_static(include_bytes!("page.js")),
            ),
            "/demo-session.js" => (
                "text/javascript; charset=utf-8",
                Bytes::from_static(include_bytes!("session.js")),
            ),
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
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in set {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Safe inside a double-quoted attribute.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    fn get(path: &str) -> Response<Body> {
        let page = Page::new("sb_publishable_\"<x>", "sb-127-auth-token");
        page.handle(&Request::get(path).body(()).unwrap())
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
        let script = text("/demo.js").await + &text("/demo-session.js").await;
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "https://",
        ] {
            assert!(!script.contains(forbidden), "{forbidden}");
        }
        let style = text("/demo.css").await;
        assert!(!style.contains("@import") && !style.contains("url("));
    }

    #[tokio::test]
    async fn what_goes_into_the_page_is_escaped() {
        let html = text("/").await;
        assert!(html.contains("data-api-key=\"sb_publishable_&quot;&lt;x&gt;\""));
        assert!(html.contains("data-storage-key=\"sb-127-auth-token\""));
        assert!(!html.contains("{{"));
    }

    #[test]
    fn other_methods_are_refused() {
        let page = Page::new("k", "s");
        let post = page.handle(&Request::post("/").body(()).unwrap());
        assert_eq!(post.status(), 405);
        assert_eq!(post.headers()["allow"], "GET, HEAD");
    }
}
