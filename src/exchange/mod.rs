//! The words of one request: what is known of it so far.

pub mod identity;
pub mod reject;

use http::{HeaderName, HeaderValue};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

pub use identity::{Caller, Claims, Credential, Identity, Verified};
pub use reject::{Code, Reject};

/// Who is at the other end of the connection. Lives as long as the connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The socket's address; `None` on a unix socket.
    pub ip: Option<IpAddr>,
    /// Whether the operator's `trusted_proxies` name this peer: only then are its `X-Forwarded-*` believed.
    pub trusted: bool,
    /// Whether the connection is TLS.
    pub secure: bool,
}

/// What is known of one exchange so far. Filled from the top of the line to its end; read by the record.
#[derive(Debug)]
pub struct Exchange {
    /// When the head was complete.
    pub started: Instant,
    /// `X-Request-Id`: ours, or a trusted proxy's. Visible ASCII, 1–128 bytes.
    pub request_id: HeaderValue,
    /// `traceparent` to send on (W3C Trace Context), and its trace id for the record.
    pub trace: Option<Arc<str>>,
    /// The client's address (contract, section 3.3); `0.0.0.0` when the peer is a unix socket that told none.
    pub client: IpAddr,
    /// Method as the metrics know it.
    pub method: http::Method,
    /// The canonical path, without the query; `None` until it is known to have one reading.
    pub path: Option<Arc<str>>,
    /// Index of the route in the snapshot's plan.
    pub route: Option<usize>,
    /// Verified user for the record.
    pub user: Option<Arc<Verified>>,
    /// The request's own `Origin` is one that the route's CORS rule allows (set by `cors`).
    pub cors_origin: Option<HeaderValue>,
    /// Header fields that `finish` adds to whatever answer follows: rate limits, cookies.
    pub answer_headers: Vec<(HeaderName, HeaderValue)>,
    /// Error code for the record.
    pub code: Option<Code>,
    /// Name of the upstream asked, for the record.
    pub upstream: Option<Arc<str>>,
    /// Microseconds until the upstream's response head.
    pub upstream_micros: Option<u64>,
}
