//! One address of an upstream: where it is, how many requests it has, whether it was out of reach a moment ago.
//! Shared by all workers; knows nothing of connections.

use super::dial::ClientTls;
use crate::config::value::Endpoint as Configured;
use http::HeaderValue;
use http::uri::{Authority, Scheme};
use rustls_pki_types::ServerName;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio_rustls::TlsConnector;

/// How long an address that refused a connection is passed over while another one can be had. Milliseconds.
const REST: u64 = 1_000;

/// How long an address that has shown that it does not speak HTTP/2 is not asked to. Milliseconds.
const WITHOUT_H2: u64 = 10_000;

/// Where to dial.
pub(super) enum Address {
    Tcp(Site),
    Tls(Site, ServerName<'static>, Tls),
    Unix(PathBuf),
}

/// One for each protocol that ALPN may offer.
pub(super) struct Tls {
    pub(super) http1: TlsConnector,
    pub(super) h2: TlsConnector,
}

/// A name or an address literal, with its port.
pub(super) struct Site {
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    /// The host when it is an address literal: nothing to resolve.
    pub(super) ip: Option<IpAddr>,
}

/// One address with its counts. Aligned so that the counts of neighbours do not share a cache line.
#[repr(align(128))]
pub(super) struct Endpoint {
    /// Requests under way, of all workers.
    in_flight: AtomicUsize,
    /// Until when it is passed over: milliseconds on the upstream's own clock, 0 when it answered last.
    rests_until: AtomicU64,
    /// Until when it is not asked for HTTP/2, on the same clock. Says nothing about HTTP/1.1.
    without_h2_until: AtomicU64,
    address: Address,
    /// As an operator would write it; for logs and the admin page.
    text: Arc<str>,
    /// Its own name for `Host` (RFC 9110 §7.2).
    host: HeaderValue,
    /// The same for `:authority` (RFC 9113 §8.3.1).
    authority: Authority,
    /// Its place in the hash order of `balance = "hash:ip"`: depends on the address alone, so that all workers and
    /// replicas agree.
    seed: u64,
}

impl Endpoint {
    /// `None` when the host is no name that can stand in a `Host` field or a certificate.
    pub(super) fn new(configured: &Configured, tls: Option<&ClientTls>) -> Option<Self> {
        let (address, text, host) = match (configured, tls) {
            (Configured::Http { host, port }, _) => {
                let authority = authority(host, *port, 80);
                let text = ["http://", &authority].concat();
                (Address::Tcp(Site::new(host, *port)), text, authority)
            }
            (Configured::Https { host, port }, Some(tls)) => {
                let authority = authority(host, *port, 443);
                let text = ["https://", &authority].concat();
                let name = ServerName::try_from(host.as_ref()).ok()?.to_owned();
                let tls = Tls {
                    http1: tls.http1(),
                    h2: tls.h2(),
                };
                let address = Address::Tls(Site::new(host, *port), name, tls);
                (address, text, authority)
            }
            (Configured::Https { .. }, None) => return None,
            (Configured::Unix(path), _) => {
                let text = ["unix:", &path.to_string_lossy()].concat();
                (Address::Unix(path.clone()), text, "localhost".into())
            }
        };
        Some(Self {
            in_flight: AtomicUsize::new(0),
            rests_until: AtomicU64::new(0),
            without_h2_until: AtomicU64::new(0),
            address,
            seed: super::balance::hash(text.as_bytes()),
            text: text.into(),
            host: HeaderValue::from_str(&host).ok()?,
            authority: host.parse().ok()?,
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What `:scheme` says (RFC 9113 §8.3.1).
    pub(super) fn scheme(&self) -> Scheme {
        match self.address {
            Address::Tls(..) => Scheme::HTTPS,
            Address::Tcp(_) | Address::Unix(_) => Scheme::HTTP,
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection could not be made.
    pub(super) fn failed(&self, now: u64) {
        self.rests_until.store(now + REST, Ordering::Relaxed);
    }

    /// A connection was made.
    pub(super) fn reached(&self) {
        self.rests_until.store(0, Ordering::Relaxed);
    }

    /// It was reached, and did not speak HTTP/2; `shown`: it spoke something else, so that asking again soon is no use.
    pub(super) fn spoke_no_h2(&self, now: u64, shown: bool) {
        self.reached();
        let time = if shown { WITHOUT_H2 } else { REST };
        self.without_h2_until.store(now + time, Ordering::Relaxed);
    }

    /// Whether it did not speak HTTP/2 a moment ago.
    pub(super) fn is_without_h2(&self, now: u64) -> bool {
        self.without_h2_until.load(Ordering::Relaxed) > now
    }

    /// Whether it is passed over while another one can be had.
    pub(super) fn rests(&self, now: u64) -> bool {
        self.rests_until.load(Ordering::Relaxed) > now
    }

    /// Whether the last connection that was tried came about.
    pub(super) fn reachable(&self) -> bool {
        self.rests_until.load(Ordering::Relaxed) == 0
    }
}

impl Site {
    fn new(host: &Arc<str>, port: u16) -> Self {
        Self {
            host: host.clone(),
            port,
            ip: host.parse().ok(),
        }
    }
}

/// Host and port as `Host` has them: IPv6 in brackets, the default port left out.
fn authority(host: &str, port: u16, default: u16) -> String {
    let mut text = if host.contains(':') {
        ["[", host, "]"].concat()
    } else {
        host.to_owned()
    };
    if port != default {
        text.push(':');
        text.push_str(&port.to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_endpoint_is_written_as_rfc_9110_has_it() {
        let check = |host: &str, port, expected: &str| {
            let configured = Configured::Http {
                host: host.into(),
                port,
            };
            let endpoint = Endpoint::new(&configured, None).unwrap();
            assert_eq!(endpoint.host(), expected);
        };
        check("api.internal", 80, "api.internal");
        check("api.internal", 8000, "api.internal:8000");
        check("::1", 8000, "[::1]:8000");
        let unix = Endpoint::new(&Configured::Unix("/run/x.sock".into()), None).unwrap();
        assert_eq!(unix.host(), "localhost");
        assert_eq!(unix.text().as_ref(), "unix:/run/x.sock");
    }

    #[test]
    fn a_host_that_cannot_stand_in_a_header_is_no_endpoint() {
        let configured = Configured::Http {
            host: "a\r\nb".into(),
            port: 80,
        };
        assert!(Endpoint::new(&configured, None).is_none());
    }

    #[test]
    fn an_endpoint_that_failed_rests_until_it_is_reached_or_the_time_is_over() {
        let endpoint = Endpoint::new(&Configured::Unix("/x".into()), None).unwrap();
        endpoint.failed(5_000);
        assert!(endpoint.rests(5_999) && !endpoint.reachable());
        assert!(!endpoint.rests(6_000) && !endpoint.reachable());
        endpoint.reached();
        assert!(!endpoint.rests(5_500) && endpoint.reachable());
    }

    #[test]
    fn that_an_endpoint_speaks_no_http_2_is_remembered_for_a_while_and_is_no_failure() {
        let endpoint = Endpoint::new(&Configured::Unix("/x".into()), None).unwrap();
        assert!(!endpoint.is_without_h2(0));
        for (shown, until) in [(false, 6_000), (true, 15_000)] {
            endpoint.spoke_no_h2(5_000, shown);
            assert!(endpoint.is_without_h2(until - 1) && !endpoint.is_without_h2(until));
            assert!(!endpoint.rests(5_000) && endpoint.reachable());
        }
    }
}
