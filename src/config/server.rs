//! `[server]`, `[[listeners]]`, `[admin]`, `[log]`, `[security_headers]`: the process and its doors.

use super::value::{HostPattern, ListenAddr, Origin, TrustedProxies};
use http::{HeaderName, HeaderValue};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub listen: Vec<ListenAddr>,
    /// Origins of `public_url`; empty when it is not given.
    pub public_url: Vec<Origin>,
    /// Empty: any.
    pub hosts: Vec<HostPattern>,
    pub trusted_proxies: TrustedProxies,
    pub client_ip_header: HeaderName,
    pub trust_forwarded_host: bool,
    /// 0: one for each core the process may use.
    pub workers: usize,
    pub takeover: bool,
    pub max_connections: usize,
    /// 0: no limit.
    pub max_connections_per_ip: usize,
    pub max_upgrades: usize,
    pub tls_handshake_timeout: Duration,
    pub header_timeout: Duration,
    pub body_idle_timeout: Duration,
    /// Bytes a second, after the first 10 s; 0: no minimum.
    pub body_min_rate: u64,
    pub write_idle_timeout: Duration,
    pub keep_alive: Duration,
    pub max_header_bytes: usize,
    pub max_headers: usize,
    pub max_uri_bytes: usize,
    /// `None`: unlimited.
    pub max_body: Option<u64>,
    pub drain_delay: Duration,
    pub drain_timeout: Duration,
    pub rate_limit_headers: RateLimitHeaders,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitHeaders {
    Draft,
    X,
    Both,
    Off,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `None`: off.
    pub listen: Option<ListenAddr>,
    pub probes: Option<ListenAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Json,
    Pretty,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub level: tracing::Level,
    pub access: bool,
    pub auth: bool,
    pub user_id: bool,
}

/// Response headers set where the upstream set none; those the operator emptied are left out.
pub type SecurityHeaders = Vec<(HeaderName, HeaderValue)>;
