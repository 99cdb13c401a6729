//! `[upstreams.*]`: the services behind the gateway.

use super::decode::{At, DAY, at, choice, count, int, list, parsed, span};
use super::parse;
use super::read::{Entries, Reader};
use super::schema_text as like;
use super::table::table;
use super::value::Endpoint;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// A service, and how it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// Of the table, or the URL in a route.
    pub name: Arc<str>,
    /// At least one.
    pub endpoints: Vec<Endpoint>,
    /// Path of the URL, without a trailing slash; usually empty. Put before the request's path.
    pub base_path: Arc<str>,
    /// Which HTTP it is asked in; fits the addresses.
    pub protocol: Protocol,
    /// Time to connect, TLS included; default 3 s.
    pub connect_timeout: Duration,
    /// Time to the response head; default 60 s.
    pub timeout: Duration,
    /// Silence allowed in a response body; default 60 s.
    pub idle_timeout: Duration,
    /// Idle connections kept, of the whole process; default 256.
    pub max_idle: usize,
    /// Requests at once. `None`: no limit.
    pub max_in_flight: Option<usize>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Further tries of what is safe to repeat, before a response head; default 1.
    pub retries: u32,
    /// The `Host` it is asked with.
    pub host_header: HostHeader,
    /// What `X-Forwarded-For` it receives.
    pub forwarded_for: ForwardedFor,
}

table! {
    #[derive(Clone, Debug)]
    pub(super) struct UpstreamKeys("upstreams", "an upstream") {
        /// Where it is: http, https, or `unix:` and a path. A path of the URL is put before the request's.
        pub(super) url: Option<At<(Endpoint, Arc<str>)>> = optional("http://127.0.0.1:8000"), at(where_it_is());
        /// Several addresses of one service, instead of `url`.
        pub(super) urls: Option<Vec<At<(Endpoint, Arc<str>)>>> = optional(["http://127.0.0.1:8000", "http://127.0.0.1:8001"]), list(at(where_it_is()));
        /// http1, h2c (HTTP/2 without TLS, by prior knowledge), h2 (HTTP/2 over TLS, by ALPN), or auto: HTTP/2 for gRPC requests, h2c or h2 as the address is, HTTP/1.1 for all others. Upgrades such as WebSocket always use HTTP/1.1. In HTTP/2 at most 800 requests at once for each address and worker.
        pub(super) protocol: At<Protocol> = default("auto"), at(choice(&[("auto", Protocol::Auto), ("http1", Protocol::Http1), ("h2c", Protocol::H2c), ("h2", Protocol::H2)]));
        /// Time to connect, TLS included.
        pub(super) connect_timeout: Duration = default("3s"), span(1, 600_000);
        /// Time to the response head.
        pub(super) timeout: Duration = default("60s"), span(1, DAY);
        /// Silence allowed in a response body; one hour for event streams and gRPC.
        pub(super) idle_timeout: Duration = default("60s"), span(1, DAY);
        /// Idle connections kept for the next request.
        pub(super) max_idle: usize = default(256), count(0, 100_000);
        /// Requests at once; no limit unless given.
        pub(super) max_in_flight: Option<usize> = optional(1000), count(1, 10_000_000);
        /// How an address is chosen: least_requests (of two), round_robin, hash:ip.
        pub(super) balance: Balance = default("least_requests"), choice(&[("least_requests", Balance::LeastRequests), ("round_robin", Balance::RoundRobin), ("hash:ip", Balance::HashIp)]);
        /// Further tries of what is safe to repeat, only before a response head.
        pub(super) retries: u32 = default(1), int(0, 10);
        /// The Host it is asked with: auto (the client's for http, the upstream's for https), preserve, upstream, or a name.
        pub(super) host_header: HostHeader = default("auto"), parsed(host_header, "\"auto\", \"preserve\", \"upstream\" or a host name", "auto").like(like::HOST_HEADER);
        /// X-Forwarded-For it receives: append to what trusted proxies sent, or single: the client's address alone.
        pub(super) forwarded_for: ForwardedFor = default("append"), choice(&[("append", ForwardedFor::Append), ("single", ForwardedFor::Single)]);
    }
}

/// Which HTTP an upstream is asked in. An upgrade (WebSocket) is asked for in HTTP/1.1 whatever this says: the way of
/// HTTP/2 (RFC 8441) is not supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2 for gRPC, which needs it: without TLS by prior knowledge, with TLS by ALPN. HTTP/1.1 for all others.
    Auto,
    /// HTTP/1.1 (RFC 9112).
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3), over TCP or a unix socket.
    H2c,
    /// HTTP/2 over TLS (RFC 9113 §3.2): nothing else is offered.
    H2,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Of two picked at random, the one with fewer requests in flight.
    LeastRequests,
    /// One after the other.
    RoundRobin,
    /// The same for the same client address.
    HashIp,
}

/// The `Host` an upstream is asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's for http, the upstream's for https.
    Auto,
    /// The client's.
    Preserve,
    /// The upstream's.
    Upstream,
    /// This one.
    Literal(HeaderValue),
}

/// What `X-Forwarded-For` an upstream receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardedFor {
    /// What trusted proxies sent, and the peer.
    Append,
    /// The client's address alone.
    Single,
}

fn where_it_is() -> super::decode::Parsed<(Endpoint, Arc<str>)> {
    parsed(
        parse::endpoint,
        "a URL such as \"http://127.0.0.1:8000\"",
        "http://placeholder.invalid",
    )
    .like(like::ENDPOINT)
}

fn host_header(text: &str) -> Result<HostHeader, String> {
    match text {
        "auto" => Ok(HostHeader::Auto),
        "preserve" => Ok(HostHeader::Preserve),
        "upstream" => Ok(HostHeader::Upstream),
        name => {
            let authority: http::uri::Authority =
                name.parse().map_err(|_| "a name, with a port if need be")?;
            if authority.as_str().contains('@') {
                return Err("a name, with a port if need be".into());
            }
            parse::header_value(authority.as_str()).map(HostHeader::Literal)
        }
    }
}

impl UpstreamKeys {
    pub(super) fn build(
        self,
        name: &str,
        entries: &Entries,
        reader: &Reader<'_>,
    ) -> Option<Upstream> {
        let urls = match (self.url, self.urls) {
            (Some(_), Some(_)) => {
                let hint = "keep one of them";
                reader.error(
                    "contradiction",
                    &entries.key_place("urls"),
                    "an upstream has both `url` and `urls`",
                    hint,
                );
                return None;
            }
            (Some(url), None) => vec![url],
            (None, Some(urls)) => urls,
            (None, None) if entries.has("url") || entries.has("urls") => return None,
            (None, None) => {
                let message = format!("the upstream `{name}` needs `url`");
                reader.error(
                    "missing-key",
                    &entries.place,
                    message,
                    "`url` is a URL such as \"http://127.0.0.1:8000\"",
                );
                return None;
            }
        };
        let Some(first) = urls.first() else {
            reader.error(
                "empty-list",
                &entries.value_place("urls"),
                "`urls` is empty",
                "name at least one address",
            );
            return None;
        };
        let base_path = first.value.1.clone();
        if let Some(other) = urls
            .iter()
            .find(|url| url.value.1 != base_path && url.known && first.known)
        {
            let hint = "they are addresses of one service";
            reader.error(
                "contradiction",
                &other.place,
                "the addresses of an upstream have different paths",
                hint,
            );
        }
        check_protocol(&self.protocol, &urls, reader);
        Some(Upstream {
            name: name.into(),
            endpoints: urls.into_iter().map(|url| url.value.0).collect(),
            base_path,
            protocol: self.protocol.value,
            connect_timeout: self.connect_timeout,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            max_idle: self.max_idle,
            max_in_flight: self.max_in_flight,
            balance: self.balance,
            retries: self.retries,
            host_header: self.host_header,
            forwarded_for: self.forwarded_for,
        })
    }

    /// An upstream that a route names by its URL: everything else as by default.
    pub(super) fn of_url(url: &str, reader: &Reader<'_>) -> Option<Upstream> {
        let (endpoint, base_path) = parse::endpoint(url).ok()?;
        let keys = <Self as super::table::Table>::read(&Entries::default(), reader)?;
        let at = At {
            value: (endpoint, base_path),
            place: 0..0,
            shown: String::new(),
            known: true,
            literal: true,
        };
        Self {
            url: Some(at),
            ..keys
        }
        .build(url, &Entries::default(), reader)
    }
}

/// TLS or none is the address's to say; the protocol must agree with it.
fn check_protocol(protocol: &At<Protocol>, urls: &[At<(Endpoint, Arc<str>)>], reader: &Reader<'_>) {
    let https = |url: &&At<(Endpoint, Arc<str>)>| matches!(url.value.0, Endpoint::Https { .. });
    let known = || urls.iter().filter(|url| url.known && protocol.known);
    let (stray, message, hint) = match protocol.value {
        Protocol::Auto | Protocol::Http1 => return,
        Protocol::H2c => (
            known().find(https),
            "`protocol = \"h2c\"` is HTTP/2 without TLS, and an address is https",
            "say \"h2\", or give http and unix addresses only",
        ),
        Protocol::H2 => (
            known().find(|url| !https(url)),
            "`protocol = \"h2\"` is HTTP/2 over TLS, and an address has none",
            "say \"h2c\", or give https addresses only",
        ),
    };
    if stray.is_some() {
        reader.error("contradiction", &protocol.place, message, hint);
    }
}

/// What an `upstream` of a route looks like when it is a URL.
pub(super) fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("unix:")
}
