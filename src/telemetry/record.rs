//! What the log says of one request: `ts level msg="request" request_id …`, in the contract's order, as JSON or for
//! people. Never a query, token, cookie or key.

use super::line::{JsonLine, Millis, VALUE_MAX, escape, push, timestamp};
use super::request_id::Trace;
use crate::exchange::{Code, Credential};
use http::{HeaderValue, Method, StatusCode};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What the log says of one request. Absent facts are left out of the line.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the record is written, at the end of the answer, in milliseconds since 1970: lines stand in this order.
    pub unix_millis: u64,
    /// `X-Request-Id`.
    pub request_id: HeaderValue,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
    /// As sent.
    pub method: Method,
    /// Canonical, without the query; cut after 2 KiB.
    pub path: Option<Arc<str>>,
    /// Name of the route.
    pub route: Option<Arc<str>>,
    /// What the client got.
    pub status: StatusCode,
    /// From the head of the request to the end of the answer's body.
    pub duration: Duration,
    /// Name of the upstream asked.
    pub upstream: Option<Arc<str>>,
    /// Microseconds until the upstream's response head.
    pub upstream_micros: Option<u64>,
    /// The client's address.
    pub client_ip: IpAddr,
    /// The verified user; left out when the operator says `log.user_id = false`.
    pub user_id: Option<Arc<str>>,
    /// What proved the user.
    pub credential: Option<Credential>,
    /// Why we refused, if we did.
    pub code: Option<Code>,
    /// Bytes of the request's body that were read.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were sent.
    pub bytes_out: u64,
}

/// The contract's fields, in the contract's order.
pub(super) fn json(record: &Record, out: &mut Vec<u8>) {
    let mut line = JsonLine::begin(out);
    line.text("ts", &timestamp(record.unix_millis).to_string());
    line.text("level", "info");
    line.text("msg", "request");
    line.text("request_id", record.request_id.to_str().unwrap_or("-"));
    if let Some(trace) = &record.trace {
        line.text("trace_id", trace.trace_id());
    }
    line.text("method", record.method.as_str());
    if let Some(path) = &record.path {
        line.text("path", path);
    }
    if let Some(route) = &record.route {
        line.text("route", route);
    }
    line.raw("status", record.status.as_u16());
    line.raw("duration_ms", Millis(micros(record.duration)));
    if let Some(upstream) = &record.upstream {
        line.text("upstream", upstream);
    }
    if let Some(micros) = record.upstream_micros {
        line.raw("upstream_ms", Millis(micros));
    }
    // A unix peer that named no client has no address.
    if !record.client_ip.is_unspecified() {
        let ip = record.client_ip.to_canonical();
        line.raw("client_ip", format_args!("\"{ip}\""));
    }
    if let Some(user) = &record.user_id {
        line.text("user_id", user);
    }
    if let Some(credential) = record.credential {
        line.text("credential", credential.as_str());
    }
    if let Some(code) = record.code {
        line.text("code", code.as_str());
    }
    line.raw("bytes_in", record.bytes_in);
    line.raw("bytes_out", record.bytes_out);
    line.end();
}

/// `08:00:00.000 200 GET /api/me 1.234ms route=api upstream=api …`
pub(super) fn pretty(record: &Record, colour: bool, out: &mut Vec<u8>) {
    let ts = timestamp(record.unix_millis).to_string();
    let (on, off) = match record.status.as_u16() / 100 {
        _ if !colour => ("", ""),
        5 => ("\x1b[31m", "\x1b[0m"),
        4 => ("\x1b[33m", "\x1b[0m"),
        _ => ("\x1b[32m", "\x1b[0m"),
    };
    push(
        out,
        format_args!(
            "{} {on}{}{off} ",
            ts.get(11..23).unwrap_or(&ts),
            record.status.as_u16()
        ),
    );
    escape(out, record.method.as_str(), 32);
    out.push(b' ');
    escape(out, record.path.as_deref().unwrap_or("-"), VALUE_MAX);
    push(out, format_args!(" {}ms", Millis(micros(record.duration))));
    let facts = [
        ("route", record.route.as_deref()),
        ("upstream", record.upstream.as_deref()),
        ("code", record.code.map(Code::as_str)),
        ("user", record.user_id.as_deref()),
        ("credential", record.credential.map(Credential::as_str)),
        ("id", record.request_id.to_str().ok()),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            push(out, format_args!(" {name}="));
            escape(out, value, 256);
        }
    }
    push(
        out,
        format_args!(" client={}\n", record.client_ip.to_canonical()),
    );
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::telemetry::request_id::RequestIds;
    use http::HeaderMap;
    use std::net::Ipv4Addr;

    pub(in crate::telemetry) fn bare() -> Record {
        Record {
            unix_millis: 1_700_000_000_000,
            request_id: HeaderValue::from_static("r-1"),
            trace: None,
            method: Method::GET,
            path: None,
            route: None,
            status: StatusCode::NOT_FOUND,
            duration: Duration::from_micros(1234),
            upstream: None,
            upstream_micros: None,
            client_ip: Ipv4Addr::LOCALHOST.into(),
            user_id: None,
            credential: None,
            code: None,
            bytes_in: 0,
            bytes_out: 7,
        }
    }

    pub(in crate::telemetry) fn full() -> Record {
        Record {
            trace: Some(RequestIds::default().begin(&HeaderMap::new(), false).1),
            path: Some("/api/\"me\"\u{7}".into()),
            route: Some("api".into()),
            upstream: Some("backend".into()),
            upstream_micros: Some(900),
            user_id: Some("u-1".into()),
            credential: Some(Credential::Session),
            code: Some(Code::Forbidden),
            ..bare()
        }
    }

    #[test]
    fn a_line_has_the_contracts_fields_in_its_order() {
        let mut out = Vec::new();
        json(&full(), &mut out);
        let text = String::from_utf8(out).unwrap();
        let names = "ts level msg request_id trace_id method path route status duration_ms upstream upstream_ms \
                     client_ip user_id credential code bytes_in bytes_out";
        let at: Vec<_> = names
            .split_whitespace()
            .map(|name| text.find(&format!("\"{name}\":")).expect(name))
            .collect();
        assert!(at.is_sorted(), "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.as_object().unwrap().len(), 18);
        assert_eq!(value["ts"], "2023-11-14T22:13:20.000Z");
        assert_eq!(value["path"], "/api/\"me\"\u{7}");
        assert_eq!(value["duration_ms"], 1.234);
        assert_eq!(value["upstream_ms"], 0.9);
        assert_eq!(value["client_ip"], "127.0.0.1");
        assert_eq!(value["code"], "forbidden");
    }

    #[test]
    fn absent_facts_are_left_out() {
        let mut out = Vec::new();
        json(&bare(), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"ts\":\"2023-11-14T22:13:20.000Z\",\"level\":\"info\",\"msg\":\"request\",\"request_id\":\"r-1\",\
             \"method\":\"GET\",\"status\":404,\"duration_ms\":1.234,\"client_ip\":\"127.0.0.1\",\"bytes_in\":0,\
             \"bytes_out\":7}\n"
        );
    }

    #[test]
    fn for_people_it_is_one_line_without_commands_to_the_terminal() {
        let mut out = Vec::new();
        pretty(&full(), false, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with("22:13:20.000 404 GET /api/\\\"me\\\"\\u0007 1.234ms route=api"),
            "{text}"
        );
        assert_eq!(text.bytes().filter(|b| *b < 0x20).count(), 1);
        let mut out = Vec::new();
        pretty(&full(), true, &mut out);
        assert!(
            String::from_utf8(out)
                .unwrap()
                .contains("\x1b[33m404\x1b[0m")
        );
    }
}
