//! The echo upstream: tells whoever asks what arrived, header by header. A path that ends in `/sse` streams a few
//! events. Knows nothing of the gateway in front of it.

use crate::base::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf, Bytes};
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::Serialize;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

/// Of a body, as much is told; the rest is only counted.
const BODY_BYTES_SHOWN: usize = 64 * 1024;
/// Of a body, as much is read at all.
const BODY_BYTES_READ: u64 = 64 * 1024 * 1024;
const EVENTS: u32 = 5;
const EVENT_INTERVAL: Duration = Duration::from_millis(400);

#[derive(Serialize)]
struct Received<'a> {
    method: &'a str,
    /// With its query, as it came.
    path: &'a str,
    version: &'static str,
    /// In the order of arrival; names in lower case.
    headers: Vec<[String; 2]>,
    body: Payload,
    /// Address of whoever connected.
    remote: String,
}

#[derive(Serialize)]
struct Payload {
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// When it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Only its beginning is here.
    truncated: bool,
}

/// Answers one request.
pub async fn handle<B>(request: Request<B>, remote: SocketAddr) -> Response<Body>
where
    B: http_body::Body,
{
    let (head, body) = request.into_parts();
    if head.uri.path().ends_with("/sse") {
        return events();
    }
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            [name.as_str().to_owned(), value]
        })
        .collect();
    let received = Received {
        method: head.method.as_str(),
        path: head.uri.path_and_query().map_or("/", |path| path.as_str()),
        version: match head.version {
            http::Version::HTTP_10 => "HTTP/1.0",
            http::Version::HTTP_11 => "HTTP/1.1",
            http::Version::HTTP_2 => "HTTP/2",
            _ => "HTTP",
        },
        headers,
        body: payload(body).await,
        remote: remote.to_string(),
    };
    let text = serde_json::to_vec(&received).unwrap_or_default();
    answer("application/json", Body::full(text))
}

async fn payload<B: http_body::Body>(body: B) -> Payload {
    let mut body = pin!(body);
    let mut shown = Vec::new();
    let mut bytes = 0_u64;
    while bytes <= BODY_BYTES_READ
        && let Some(Ok(frame)) = body.frame().await
    {
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        bytes = bytes.saturating_add(data.remaining() as u64);
        let room = BODY_BYTES_SHOWN - shown.len();
        let part = data.copy_to_bytes(data.remaining().min(room));
        shown.extend_from_slice(&part);
    }
    let truncated = bytes > shown.len() as u64;
    let (text, base64) = if bytes == 0 {
        (None, None)
    } else {
        match String::from_utf8(shown) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
        }
    };
    Payload {
        bytes,
        text,
        base64,
        truncated,
    }
}

/// Server-sent events (WHATWG HTML §9.2): the first at once, then one each interval.
fn events() -> Response<Body> {
    let events = stream::unfold(1, |number| async move {
        if number > EVENTS {
            return None;
        }
        if number > 1 {
            tokio::time::sleep(EVENT_INTERVAL).await;
        }
        let event =
            format!("id: {number}\nevent: tick\ndata: {{\"tick\":{number},\"of\":{EVENTS}}}\n\n");
        Some((Ok(Frame::data(Bytes::from(event))), number + 1))
    });
    answer("text/event-stream", Body::stream(StreamBody::new(events)))
}

fn answer(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use serde_json::{Value, json};

    const REMOTE: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 4000);

    async fn echo(request: http::request::Builder, body: Vec<u8>) -> Value {
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = handle(request, REMOTE).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    #[tokio::test]
    async fn it_tells_what_arrived_in_its_order() {
        let request = Request::post("/api/me?x=%20")
            .header("x-user-id", "ada")
            .header("accept", "a/b")
            .header("x-odd", &b"\xff"[..]);
        let seen = echo(request, b"hello".to_vec()).await;
        assert_eq!(seen["method"], "POST");
        assert_eq!(seen["path"], "/api/me?x=%20");
        let headers = json!([
            ["x-user-id", "ada"],
            ["accept", "a/b"],
            ["x-odd", "\u{fffd}"]
        ]);
        assert_eq!(seen["headers"], headers);
        let body = json!({"bytes": 5, "text": "hello", "truncated": false});
        assert_eq!(seen["body"], body);
        assert_eq!(seen["remote"], "127.0.0.1:4000");
    }

    #[tokio::test]
    async fn a_body_is_told_as_base64_when_binary_and_cut_when_long() {
        let binary = echo(Request::post("/"), vec![0xff, 0]).await;
        let body = json!({"bytes": 2, "base64": "/wA=", "truncated": false});
        assert_eq!(binary["body"], body);
        let long = echo(Request::post("/"), vec![b'x'; BODY_BYTES_SHOWN + 1]).await;
        assert_eq!(long["body"]["truncated"], true);
        assert_eq!(long["body"]["bytes"], BODY_BYTES_SHOWN + 1);
        assert_eq!(
            long["body"]["text"].as_str().unwrap().len(),
            BODY_BYTES_SHOWN
        );
    }

    #[tokio::test(start_paused = true)]
    async fn events_come_one_by_one_and_end() {
        let request = Request::get("/api/sse").body(Body::empty()).unwrap();
        let response = handle(request, REMOTE).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body();
        let mut texts = Vec::new();
        while let Some(frame) = body.frame().await {
            texts.push(frame.unwrap().into_data().unwrap());
        }
        assert_eq!(texts.len(), EVENTS as usize);
        assert!(texts.iter().all(|text| text.ends_with(b"\n\n")));
    }
}
