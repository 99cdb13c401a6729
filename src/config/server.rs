//! `[server]`, `[admin]`, `[log]`, `[telemetry]`, `[security_headers]`: the process and its doors.

use super::decode::{
    At, DAY, Decode, at, choice, count, flag, list, none_or, one_or_list, parsed, size, span, word,
};
use super::diagnostic::nearest;
use super::parse;
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::{HostPattern, ListenAddr, Origin, TrustedProxies};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use std::time::Duration;

table! {
    /// The process and its public door.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Server("server", "`[server]`") {
        /// Where to listen: an address and port, a list of them, or `unix:` and a path.
        pub listen: Vec<ListenAddr> = default(["127.0.0.1:8080"]), one_or_list(parsed(parse::listen, "an address such as \"127.0.0.1:8080\"", "127.0.0.1:8080").like(like::LISTEN));
        /// How browsers reach us, one origin or a list: decides what is ours for CSRF, redirects, cookie names and HSTS. Empty when it is not given.
        pub public_url: Vec<Origin> = default([]), one_or_list(parsed(parse::origin, "an origin such as \"https://app.example.com\"", "https://placeholder.invalid").like(like::URL));
        /// Names we answer to, others get 421; empty: the hosts of `public_url`, or any.
        pub hosts: Vec<HostPattern> = default([]), one_or_list(parsed(parse::host, "a host name such as \"app.example.com\"", "placeholder.invalid").like(like::HOST));
        /// Networks whose forwarding headers are believed: CIDRs, "private" (RFC 1918, RFC 4193, loopback), "unix".
        pub trusted_proxies: TrustedProxies = default([]), Proxies;
        /// The header in which trusted proxies name the client.
        pub client_ip_header: HeaderName = default("X-Forwarded-For"), parsed(parse::header_name, "the name of a header", "X-Forwarded-For").like(like::HEADER_NAME);
        /// Believe `X-Forwarded-Host` of trusted proxies.
        pub trust_forwarded_host: bool = default(false), flag();
        /// Threads that serve requests; 0: one for each core the process may use.
        pub workers: usize = default(0), count(0, 1024);
        /// Take an address over that another process listens on, for a rolling restart; else that is an error.
        pub takeover: bool = default(false), flag();
        /// Connections at once, in the whole process.
        pub max_connections: usize = default(20000), count(1, 10_000_000);
        /// Connections at once from one address; 0: no limit.
        pub max_connections_per_ip: usize = default(0), count(0, 10_000_000);
        /// Upgraded connections (WebSocket) at once.
        pub max_upgrades: usize = default(4096), count(0, 10_000_000);
        /// Time for a TLS handshake.
        pub tls_handshake_timeout: Duration = default("10s"), span(1, 600_000);
        /// Time from the first byte of a request to the end of its head.
        pub header_timeout: Duration = default("10s"), span(1, 600_000);
        /// Silence allowed while a request body arrives.
        pub body_idle_timeout: Duration = default("30s"), span(1, DAY);
        /// Slowest request body, in bytes a second after the first 10 s; "0B/s": no minimum.
        pub body_min_rate: u64 = default("500B/s"), parsed(parse::bytes_per_second, "a rate such as \"500B/s\"", "500B/s").like(like::BYTES_PER_SECOND);
        /// Time for a client that reads nothing of its response.
        pub write_idle_timeout: Duration = default("60s"), span(1, DAY);
        /// Silence allowed between two requests of a connection.
        pub keep_alive: Duration = default("75s"), span(1, DAY);
        /// Largest request head.
        pub max_header_bytes: usize = default("80KiB"), size(8 << 10, 1 << 20);
        /// Most header fields of a request.
        pub max_headers: usize = default(100), count(8, 1000);
        /// Longest request target.
        pub max_uri_bytes: usize = default("8KiB"), size(256, 1 << 16);
        /// Largest request body, or "unlimited"; a route may override it.
        pub max_body: Option<u64> = default("10MiB"), none_or("unlimited", parsed(parse::size, "a size such as \"10MiB\"", "10MiB").like(like::SIZE));
        /// After SIGTERM: how long to go on accepting while already not ready.
        pub drain_delay: Duration = default("0s"), span(0, DAY);
        /// How long requests in flight may take to end after that.
        pub drain_timeout: Duration = default("30s"), span(0, DAY);
        /// Headers that tell of rate limits: draft (RateLimit-Policy, RateLimit), x (X-RateLimit-Limit, -Remaining, -Reset), both, off.
        pub rate_limit_headers: RateLimitHeaders = default("draft"), choice(&[("draft", RateLimitHeaders::Draft), ("x", RateLimitHeaders::X), ("both", RateLimitHeaders::Both), ("off", RateLimitHeaders::Off)]);
    }
}

impl Server {
    /// Without `hosts`, those of `public_url`.
    pub(super) fn with_hosts(mut self) -> Self {
        if self.hosts.is_empty() {
            let host =
                |origin: &Origin| parse::host(url::Url::parse(&origin.0).ok()?.host_str()?).ok();
            self.hosts = self.public_url.iter().filter_map(host).collect();
            self.hosts.dedup();
        }
        self
    }
}

/// Which headers tell a client of its rate limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitHeaders {
    /// `RateLimit-Policy` and `RateLimit` of the IETF draft.
    Draft,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`.
    X,
    /// All of them.
    Both,
    /// None.
    Off,
}

/// The operator's door. Read-only.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `/livez`, `/readyz`, `/metrics`, `/status`, `/status.json`, `/config`. `None`: off.
    pub listen: Option<ListenAddr>,
    /// A second address with `/livez`, `/readyz` and `/metrics` alone.
    pub probes: Option<ListenAddr>,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct AdminKeys("admin", "`[admin]`") {
        /// Where /livez, /readyz, /metrics, /status and /config are answered, or "off". Read-only.
        pub(super) listen: Option<ListenAddr> = default("127.0.0.1:9901"), none_or("off", parsed(parse::listen, "an address such as \"127.0.0.1:9901\"", "127.0.0.1:9901").like(like::LISTEN));
        /// A second address with /livez, /readyz and /metrics alone, for kubelets and scrapers.
        pub(super) probes: Option<ListenAddr> = default(""), none_or("", parsed(parse::listen, "an address such as \"0.0.0.0:9902\"", "127.0.0.1:9902").like(like::LISTEN));
    }
}

impl AdminKeys {
    /// Beyond loopback `/status` and `/config` need a token, which there is not yet: the admin door refuses them there.
    pub(super) fn build(self, entries: &Entries, reader: &Reader<'_>) -> Admin {
        if let Some(ListenAddr::Tcp(address)) = &self.listen
            && !address.ip().to_canonical().is_loopback()
        {
            let hint = "use `probes` for kubelets and scrapers";
            let message = "`[admin]` listens beyond loopback";
            reader.warn(
                "admin-beyond-loopback",
                &entries.value_place("listen"),
                message,
                hint,
            );
        }
        Admin {
            listen: self.listen,
            probes: self.probes,
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

table! {
    /// What is written down.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Log("log", "`[log]`") {
        /// How lines look: auto (pretty on a terminal, JSON otherwise), json, pretty.
        pub format: LogFormat = default("auto"), choice(&[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)]);
        /// Least level that is written: error, warn, info, debug or trace.
        pub level: tracing::Level = default("info"), choice(&[("error", tracing::Level::ERROR), ("warn", tracing::Level::WARN), ("info", tracing::Level::INFO), ("debug", tracing::Level::DEBUG), ("trace", tracing::Level::TRACE)]);
        /// Write a line for each request.
        pub access: bool = default(true), flag();
        /// Write a line for each successful authentication, too.
        pub auth: bool = default(false), flag();
        /// Name the user in the access log.
        pub user_id: bool = default(true), flag();
    }
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct TelemetryKeys("telemetry", "`[telemetry]`") {}
}

/// Response headers set where the upstream set none; those the operator emptied are left out.
pub type SecurityHeaders = Vec<(HeaderName, HeaderValue)>;

/// Header, value, whether it is set only where `public_url` is https.
pub(super) const SECURITY_HEADERS: &[(&str, &str, bool)] = &[
    ("Strict-Transport-Security", "max-age=31536000", true),
    ("X-Content-Type-Options", "nosniff", false),
    ("Referrer-Policy", "strict-origin-when-cross-origin", false),
    ("X-Frame-Options", "DENY", false),
    ("Content-Security-Policy", "", false),
];

/// What holds without `[security_headers]`.
pub(super) fn default_security_headers(https: bool) -> SecurityHeaders {
    let given = SECURITY_HEADERS
        .iter()
        .filter(|(_, value, only_https)| !value.is_empty() && (https || !only_https));
    given
        .filter_map(|(name, value, _)| {
            Some((
                parse::header_name(name).ok()?,
                HeaderValue::from_static(value),
            ))
        })
        .collect()
}

/// Lays a table over what holds without it; `""` takes a header away.
pub(super) fn lay_over(
    base: &SecurityHeaders,
    entries: &Entries,
    reader: &Reader<'_>,
) -> SecurityHeaders {
    let mut headers = base.clone();
    for (name, value) in header_map(entries, reader) {
        if let Some(reason) = super::check::set_by_us_on_responses(name.value.as_str()) {
            reader.error(
                "reserved-header",
                &name.place,
                format!("`{}` cannot be set here", name.shown),
                reason,
            );
            continue;
        }
        headers.retain(|(known, _)| *known != name.value);
        if !value.is_empty() {
            headers.push((name.value, value));
        }
    }
    headers
}

/// A table from header names to header values. Two spellings of one name are an error.
pub(super) fn header_map(
    entries: &Entries,
    reader: &Reader<'_>,
) -> Vec<(At<HeaderName>, HeaderValue)> {
    let mut headers: Vec<(At<HeaderName>, HeaderValue)> = Vec::new();
    for entry in &entries.list {
        let Some(name) = header_key(
            &entry.key,
            &entry.key_place,
            headers.iter().map(|(name, _)| &name.value),
            reader,
        ) else {
            continue;
        };
        let value = parsed(parse::header_value, "a header's value", "placeholder").read(
            &entry.node,
            &entry.key,
            reader,
        );
        if let Some(value) = value {
            headers.push((name, value));
        }
    }
    headers
}

/// A key that is the name of a header, and not yet among `before`.
pub(super) fn header_key<'a>(
    key: &str,
    place: &super::diagnostic::Place,
    mut before: impl Iterator<Item = &'a HeaderName>,
    reader: &Reader<'_>,
) -> Option<At<HeaderName>> {
    match parse::header_name(key) {
        Err(hint) => {
            reader.error(
                "bad-value",
                place,
                format!("`{key}` is not the name of a header"),
                hint,
            );
            None
        }
        // `_` and `-` are one to many upstreams (CGI, WSGI).
        Ok(name)
            if before.any(|b| b.as_str().replace('_', "-") == name.as_str().replace('_', "-")) =>
        {
            reader.error(
                "duplicate-header",
                place,
                format!("the header `{key}` is named twice"),
                "header names have no case",
            );
            None
        }
        Ok(value) => Some(At {
            value,
            place: place.clone(),
            shown: key.to_owned(),
            known: true,
            literal: true,
        }),
    }
}

/// `server.trusted_proxies`.
struct Proxies;

impl Decode for Proxies {
    type Out = TrustedProxies;

    fn read(
        &self,
        node: &super::read::Node,
        key: &str,
        reader: &Reader<'_>,
    ) -> Option<TrustedProxies> {
        let mut proxies = TrustedProxies::default();
        let mut wrong = false;
        for word in trusted().read(node, key, reader)? {
            match word.value.as_str() {
                _ if !word.known => {}
                "private" => proxies.nets.extend(private()),
                "unix" => proxies.unix = true,
                text => match parse::network(text) {
                    Ok(net) => {
                        if net.prefix_len() == 0 {
                            let hint =
                                "anybody could name any client address; list your proxies instead";
                            reader.warn(
                                "trusts-everyone",
                                &word.place,
                                "`trusted_proxies` trusts everyone",
                                hint,
                            );
                        }
                        proxies.nets.push(net);
                    }
                    Err(hint) => {
                        let near = if word.literal {
                            nearest(text, ["private", "unix"])
                        } else {
                            None
                        };
                        let hint = near.map_or(hint, |name| format!("did you mean \"{name}\"?"));
                        let message =
                            format!("`{key}` must be a list of networks, \"private\" or \"unix\"");
                        reader.error("bad-value", &word.place, message, hint);
                        wrong = true;
                    }
                },
            }
        }
        (!wrong).then_some(proxies)
    }

    fn expected(&self) -> String {
        "a list; each is a network such as \"10.0.0.0/8\", \"private\" or \"unix\"".into()
    }

    fn schema(&self) -> serde_json::Value {
        trusted().schema()
    }
}

fn trusted() -> impl Decode<Out = Vec<At<String>>> {
    list(at(word().like(like::TRUSTED)))
}

/// RFC 1918, RFC 4193, loopback.
fn private() -> impl Iterator<Item = IpNet> {
    const NETS: [&str; 6] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "127.0.0.0/8",
        "::1/128",
    ];
    NETS.iter().filter_map(|net| net.parse().ok())
}
