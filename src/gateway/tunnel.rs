//! Handshakes and what becomes of them (RFC 6455 §4, RFC 9110 §7.8): which requests ask for another protocol, how many
//! connections may have become tunnels, and where a tunnel waits until its connection has stopped speaking HTTP.

use super::record::Record;
use crate::base::deadline::Sweeper;
use crate::csrf;
use crate::exchange::{Code, Reject};
use crate::upstream::Switched;
use crate::upstream::upgrade::{self, Farewell, Protocol, SESSION_OVER};
use base64::Engine as _;
use http::header::{
    CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING,
    UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Context;

/// What a request asks its connection to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The token of `Upgrade`, as the upstream gets it.
    pub token: HeaderValue,
    /// What is spoken afterwards.
    pub protocol: Protocol,
}

/// What a request asks for. `None`: nothing that is done here, and `Upgrade` is ignored, as a server may (RFC 9110
/// §7.8): HTTP/2 in the clear and TLS are matters of the listener, and on HTTP/2 the field means nothing.
///
/// A WebSocket handshake that is not one is refused, rather than answered as the plain GET that it looks like.
pub(super) fn asked(head: &Parts, passes: bool) -> Result<Option<Handshake>, Reject> {
    if head.version != Version::HTTP_11 || !head.headers.contains_key(UPGRADE) {
        return Ok(None);
    }
    if csrf::is_websocket(&head.headers) {
        if !passes {
            return Err(Reject::new(
                Code::NotSupported,
                "No WebSocket connections are accepted at this address.",
            ));
        }
        check_websocket(head)?;
        return Ok(Some(Handshake {
            token: HeaderValue::from_static("websocket"),
            protocol: Protocol::WebSocket,
        }));
    }
    let mut tokens = head.headers.get_all(UPGRADE).iter();
    let token = match (tokens.next(), tokens.next()) {
        (Some(token), None)
            if passes && names_upgrade(&head.headers) && !has_body(&head.headers) =>
        {
            token
        }
        _ => return Ok(None),
    };
    let name = token.as_bytes();
    let ours = ["h2c", "h2", "http/", "tls/"];
    let ignored = ours.iter().any(|start| {
        name.get(..start.len())
            .is_some_and(|part| part.eq_ignore_ascii_case(start.as_bytes()))
    });
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(b);
    if ignored || name.is_empty() || !name.iter().all(is_token) {
        return Ok(None);
    }
    Ok(Some(Handshake {
        token: token.clone(),
        protocol: Protocol::Opaque,
    }))
}

/// The refusal of a handshake on a connection that cannot stop speaking HTTP.
pub(super) fn impossible() -> Reject {
    Reject::new(
        Code::NotSupported,
        "This connection cannot be upgraded to another protocol.",
    )
}

/// A body is announced. What it would mean before another protocol begins, nobody says.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers
            .get(CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
}

/// `Connection` names `Upgrade`.
fn names_upgrade(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

/// RFC 6455 §4.2.1. What else it asks for is between the client and the upstream.
fn check_websocket(head: &Parts) -> Result<(), Reject> {
    let bad = |detail: &'static str| Err(Reject::new(Code::BadRequest, detail));
    if head.method != Method::GET {
        return bad("A WebSocket handshake is a GET.");
    }
    if has_body(&head.headers) {
        return bad("A WebSocket handshake has no body.");
    }
    if !names_upgrade(&head.headers) {
        return bad("A WebSocket handshake has `Connection: Upgrade`.");
    }
    let only = |name| {
        let mut values = head.headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())
    };
    if only(&SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return bad("Send `Sec-WebSocket-Version: 13`.");
    }
    let key = only(&SEC_WEBSOCKET_KEY)
        .and_then(|key| base64::prelude::BASE64_STANDARD.decode(key.as_bytes()).ok());
    if key.is_none_or(|key| key.len() != 16) {
        return bad("`Sec-WebSocket-Key` must be 16 bytes in base64.");
    }
    Ok(())
}

/// How many connections of the process may be tunnels at once (`server.max_upgrades`).
#[derive(Debug)]
pub struct Berths {
    taken: AtomicUsize,
    max: usize,
}

impl Berths {
    /// So many.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            max,
        })
    }

    /// A place, if there is one; given back when it is dropped.
    pub(super) fn take(self: &Arc<Self>) -> Result<Taken, Reject> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Reject::new(
                Code::Overloaded,
                "As many connections as the gateway allows have been upgraded already.",
            )
            .because("max_upgrades"));
        }
        Ok(Taken(self.clone()))
    }
}

/// A place among the tunnels.
#[derive(Debug)]
pub(super) struct Taken(Arc<Berths>);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The upstream has switched; the client is told, and then its connection as well.
pub(super) struct Arranged {
    pub(super) client: OnUpgrade,
    pub(super) upstream: Switched,
    pub(super) protocol: Protocol,
    pub(super) place: Taken,
}

impl std::fmt::Debug for Arranged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arranged")
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

/// Where a connection keeps the tunnel that it becomes.
#[derive(Debug, Default)]
pub struct Berth(Mutex<Option<Tunnel>>);

impl Berth {
    pub(super) fn put(&self, arranged: Arranged, record: Box<Record>) {
        *self.0.lock() = Some(Tunnel { arranged, record });
    }

    /// What the connection is to become, when it has stopped speaking HTTP.
    pub fn take(&self) -> Option<Tunnel> {
        self.0.lock().take()
    }
}

/// A tunnel that is to run.
pub struct Tunnel {
    arranged: Arranged,
    record: Box<Record>,
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.arranged.fmt(f)
    }
}

impl Tunnel {
    /// Runs until it ends, also with its session, and writes the request's record. `farewell`: see [`upgrade::tunnel`].
    pub async fn run(
        self,
        sweeper: &Arc<Sweeper>,
        mut farewell: impl FnMut(&mut Context<'_>) -> Option<Farewell>,
    ) {
        let Self {
            arranged,
            mut record,
        } = self;
        match arranged.client.await {
            Ok(client) => {
                let tie = record.tie();
                let mut over = None;
                let farewell = |cx: &mut Context<'_>| {
                    over = tie.as_ref().and_then(|tie| tie.poll_over(cx));
                    over.map_or_else(|| farewell(cx), |_| Some(SESSION_OVER))
                };
                let passed = upgrade::tunnel(
                    TokioIo::new(client),
                    arranged.upstream,
                    arranged.protocol,
                    sweeper.deadline(),
                    farewell,
                )
                .await;
                record.passed(passed, over);
            }
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no tunnel");
            }
        }
        drop(arranged.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const VERSION: (&str, &str) = ("sec-websocket-version", "13");
    const UPGRADES: (&str, &str) = ("connection", "keep-alive, Upgrade");

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn check(method: &str, fields: &[(&str, &str)], expected: Result<Option<&str>, Code>) {
        let outcome = asked(&head(method, fields), true);
        let token = outcome
            .as_ref()
            .map(|asked| asked.as_ref().map(|asked| asked.token.to_str().unwrap()));
        assert_eq!(token.map_err(Reject::code), expected, "{method} {fields:?}");
    }

    #[test]
    fn a_websocket_handshake_is_one_or_it_is_refused() {
        let asks = ("upgrade", "WebSocket");
        check(
            "GET",
            &[asks, UPGRADES, KEY, VERSION],
            Ok(Some("websocket")),
        );
        let refused = Err(Code::BadRequest);
        check("POST", &[asks, UPGRADES, KEY, VERSION], refused);
        check("GET", &[asks, KEY, VERSION], refused);
        check("GET", &[asks, UPGRADES, KEY], refused);
        check("GET", &[asks, UPGRADES, VERSION], refused);
        check("GET", &[asks, UPGRADES, VERSION, KEY, KEY], refused);
        let body = ("content-length", "5");
        check("GET", &[asks, UPGRADES, KEY, VERSION, body], refused);
        let old = ("sec-websocket-version", "8");
        check("GET", &[asks, UPGRADES, KEY, old], refused);
        let short = ("sec-websocket-key", "c2hvcnQ=");
        check("GET", &[asks, UPGRADES, short, VERSION], refused);
    }

    #[test]
    fn other_protocols_are_asked_for_by_one_token() {
        check("GET", &[], Ok(None));
        check("POST", &[("upgrade", "tcp"), UPGRADES], Ok(Some("tcp")));
        check(
            "POST",
            &[("upgrade", "SPDY/3.1"), UPGRADES],
            Ok(Some("SPDY/3.1")),
        );
        check("POST", &[("upgrade", "tcp")], Ok(None));
        let chunked = ("transfer-encoding", "chunked");
        check("POST", &[("upgrade", "tcp"), UPGRADES, chunked], Ok(None));
        let none = ("content-length", "0");
        check(
            "POST",
            &[("upgrade", "tcp"), UPGRADES, none],
            Ok(Some("tcp")),
        );
        check("POST", &[("upgrade", "a, b"), UPGRADES], Ok(None));
        check(
            "POST",
            &[("upgrade", "a"), ("upgrade", "b"), UPGRADES],
            Ok(None),
        );
        for ours in ["h2c", "H2C", "h2", "HTTP/2.0", "TLS/1.0"] {
            check("GET", &[("upgrade", ours), UPGRADES], Ok(None));
        }
    }

    #[test]
    fn where_upgrades_do_not_pass_a_handshake_is_refused_and_the_rest_ignored() {
        let handshake = head("GET", &[("upgrade", "websocket"), UPGRADES, KEY, VERSION]);
        let refused = asked(&handshake, false).unwrap_err();
        assert_eq!(refused.code(), Code::NotSupported);
        let other = head("GET", &[("upgrade", "tcp"), UPGRADES]);
        assert_eq!(asked(&other, false).unwrap(), None);
    }

    #[test]
    fn there_are_only_so_many_places() {
        let berths = Berths::new(2);
        let places = (berths.take().unwrap(), berths.take().unwrap());
        assert_eq!(berths.take().unwrap_err().code(), Code::Overloaded);
        drop(places.0);
        assert!(berths.take().is_ok());
    }
}
