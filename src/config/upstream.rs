//! `[upstreams.*]`.

use super::value::Endpoint;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    pub name: Arc<str>,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Path of the URL, without a trailing slash; usually empty. Put before the request's path.
    pub base_path: Arc<str>,
    pub connect_timeout: Duration,
    pub timeout: Duration,
    pub idle_timeout: Duration,
    pub max_idle: usize,
    /// `None`: no limit.
    pub max_in_flight: Option<usize>,
    pub balance: Balance,
    pub retries: u32,
    pub host_header: HostHeader,
    pub forwarded_for: ForwardedFor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastRequests,
    RoundRobin,
    HashIp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's for http, the upstream's for https.
    Auto,
    Preserve,
    Upstream,
    Literal(HeaderValue),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFor {
    Append,
    Single,
}
