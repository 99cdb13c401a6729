//! What is known of one exchange so far.

use crate::exchange::{Code, Verified};
use crate::headers::forwarded::Client;
use crate::limit::Outcome;
use crate::session::Told;
use crate::telemetry::Trace;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Instant;

/// Filled from the top of the line to its end; read by the record.
#[derive(Debug)]
pub struct Exchange {
    /// When the head was complete.
    pub started: Instant,
    /// `X-Request-Id`: ours, or a trusted proxy's. Visible ASCII, 1–128 bytes.
    pub request_id: HeaderValue,
    /// The trace it belongs to.
    pub trace: Trace,
    /// Where it comes from (contract, section 3.3).
    pub client: Client,
    /// The client's own connection is TLS.
    pub secure: bool,
    /// As sent.
    pub method: http::Method,
    /// What the client speaks.
    pub version: http::Version,
    /// The canonical path, without the query; `None` until it is known to have one reading.
    pub path: Option<Arc<str>>,
    /// Index of the route in the snapshot's plan.
    pub route: Option<usize>,
    /// The verified caller.
    pub user: Option<Arc<Verified>>,
    /// The request's `Origin`, which the route's CORS rule will judge.
    pub origin: Option<HeaderValue>,
    /// It is a CORS preflight, whose answer has fields of its own.
    pub preflight: bool,
    /// What the rate limits said.
    pub limits: Outcome,
    /// Why we refused, if we did.
    pub code: Option<Code>,
    /// Index of the upstream asked.
    pub upstream: Option<usize>,
    /// Microseconds until the upstream's response head.
    pub upstream_micros: Option<u64>,
    /// What became of the session.
    pub told: Told,
}
