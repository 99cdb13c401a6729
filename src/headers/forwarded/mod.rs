//! Whose word about the client is believed (contract, section 3.3), and what the upstream is told. Addresses only from
//! trusted peers, read from the right; the left end of a chain is whatever the client wrote there.

mod tell;

pub use tell::tell;

use super::host::Host;
use crate::config::server::Server;
use crate::config::value::TrustedProxies;
use crate::exchange::Peer;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::{IpAddr, Ipv4Addr};

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Hops a chain may have. A longer one was made by somebody, not by proxies.
const HOPS_MAX: usize = 32;

/// Whom the operator trusts to speak about clients.
#[derive(Clone, Debug)]
pub struct Trust {
    proxies: TrustedProxies,
    client_ip: HeaderName,
    host: bool,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// IPv4-mapped addresses as IPv4; `0.0.0.0` when a unix peer told none.
    pub ip: IpAddr,
    /// False when a trusted peer's chain cannot be read, or a unix peer told none: then `ip` is the peer's and says
    /// nothing about the client. Rules that let addresses in must not go by it.
    pub known: bool,
    /// Right-most hops of `X-Forwarded-For` that are believed.
    hops: usize,
}

impl Client {
    /// A client at an address, without a chain of hops.
    pub fn at(ip: IpAddr, known: bool) -> Self {
        Self {
            ip: ip.to_canonical(),
            known,
            hops: 0,
        }
    }
}

impl Trust {
    /// From `[server]`.
    pub fn compile(server: &Server) -> Self {
        Self {
            proxies: server.trusted_proxies.clone(),
            client_ip: server.client_ip_header.clone(),
            host: server.trust_forwarded_host,
        }
    }

    /// Whether a peer is a trusted proxy; `None` is a unix socket. For [`Peer::trusted`], once per connection.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.proxies.contains(ip),
            None => self.proxies.unix,
        }
    }

    /// The client's address: the peer, or the right-most untrusted hop when the peer is trusted; when every hop is, the
    /// left-most. A chain of over 32 hops, or malformed where it is read, leaves the peer, and not `known`.
    pub fn client(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        let address = peer.ip;
        let mut client = Client::at(
            address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            address.is_some(),
        );
        if !peer.trusted {
            return client;
        }
        let fields = headers.get_all(&self.client_ip);
        let commas = |v: &HeaderValue| v.as_bytes().iter().filter(|b| **b == b',').count();
        let total: usize = fields.iter().map(|v| commas(v) + 1).sum();
        if total == 0 {
            return client;
        }
        let unclear = Client {
            known: false,
            ..client
        };
        if total > HOPS_MAX {
            return unclear;
        }
        // Several fields are one list (RFC 9110 §5.3).
        let chain = fields
            .iter()
            .rev()
            .flat_map(|v| v.as_bytes().rsplit(|b| *b == b','));
        for (index, hop) in chain.enumerate() {
            let Some(ip) = hop_address(hop) else {
                return unclear;
            };
            client = Client {
                ip,
                known: true,
                hops: if self.client_ip == X_FORWARDED_FOR {
                    index + 1
                } else {
                    0
                },
            };
            if !self.proxies.contains(ip) {
                break;
            }
        }
        client
    }

    /// Whether the client's own connection is TLS: this one, or as a trusted peer says (its last word, if it says several).
    pub fn secure(&self, peer: &Peer, headers: &HeaderMap) -> bool {
        if !peer.trusted {
            return peer.secure;
        }
        last(headers, &X_FORWARDED_PROTO)
            .map_or(peer.secure, |proto| proto.eq_ignore_ascii_case(b"https"))
    }

    /// The host the client asked for: as a trusted peer says with `trust_forwarded_host`, else the request's own.
    /// `None` when what the peer says is malformed: that is a bad request.
    pub fn host<'a>(&self, peer: &Peer, headers: &'a HeaderMap, own: Host<'a>) -> Option<Host<'a>> {
        if !(self.host && peer.trusted) {
            return Some(own);
        }
        match last(headers, &X_FORWARDED_HOST) {
            Some(host) => Host::parse(std::str::from_utf8(host).ok()?),
            None => Some(own),
        }
    }
}

/// The last element of a list field.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let value = headers.get_all(name).iter().next_back()?;
    value
        .as_bytes()
        .rsplit(|b| *b == b',')
        .next()
        .map(<[u8]>::trim_ascii)
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn hop_address(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let (address, port) = if let Some(rest) = hop.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port = match rest {
            "" => None,
            _ => Some(rest.strip_prefix(':')?),
        };
        (IpAddr::V6(address.parse().ok()?), port)
    } else if let Some((address, port)) = hop.split_once(':').filter(|(_, p)| !p.contains(':')) {
        (IpAddr::V4(address.parse().ok()?), Some(port))
    } else {
        (hop.parse().ok()?, None)
    };
    if let Some(port) = port
        && (!port.bytes().all(|b| b.is_ascii_digit()) || port.parse::<u16>().is_err())
    {
        return None;
    }
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn trust() -> Trust {
        Trust {
            proxies: TrustedProxies {
                nets: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
                unix: true,
            },
            client_ip: X_FORWARDED_FOR.clone(),
            host: true,
        }
    }

    pub(super) fn peer(ip: &str) -> Peer {
        let ip = ip.parse().ok();
        Peer {
            ip,
            trusted: trust().trusts(ip),
            secure: false,
            redirects_to: None,
        }
    }

    pub(super) fn fields(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    /// `?` before the address: the chain says nothing about the client. `unix` is no address.
    fn check(from: &str, chain: &[&str], expected: &str) {
        let client = trust().client(&peer(from), &fields(&X_FORWARDED_FOR, chain));
        let mark = if client.known { "" } else { "?" };
        assert_eq!(format!("{mark}{}", client.ip), expected, "{from} {chain:?}");
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        check("203.0.113.1", &[], "203.0.113.1");
        check("203.0.113.1", &["1.1.1.1"], "203.0.113.1");
        check("10.0.0.1", &["1.1.1.1"], "1.1.1.1");
        check("10.0.0.1", &[], "10.0.0.1");
        check("fd00::1", &["1.1.1.1"], "1.1.1.1");
        check("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1");
        check("::ffff:203.0.113.1", &["1.1.1.1"], "203.0.113.1");
        check("unix", &["1.1.1.1"], "1.1.1.1");
        check("unix", &[], "?0.0.0.0");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        check("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1");
        check("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.2"], "1.1.1.1");
        check("10.0.0.1", &["6.6.6.6,1.1.1.1", "10.0.0.2"], "1.1.1.1");
        check("10.0.0.1", &["1.1.1.1", "2.2.2.2"], "2.2.2.2");
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        check("10.0.0.1", &["1.1.1.1, ::ffff:10.0.0.2"], "1.1.1.1");
        // What stands left of it is whatever the client wrote.
        check("10.0.0.1", &["garbage, 1.1.1.1"], "1.1.1.1");
        check("10.0.0.1", &["é, 1.1.1.1, 10.0.0.2"], "1.1.1.1");
    }

    #[test]
    fn ports_and_brackets_are_tolerated() {
        check("10.0.0.1", &["1.1.1.1:4711"], "1.1.1.1");
        check("10.0.0.1", &["2001:db8::1"], "2001:db8::1");
        check("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1");
        check("10.0.0.1", &["\t[2001:db8::1]:4711 "], "2001:db8::1");
        check("10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1");
    }

    #[test]
    fn a_chain_that_cannot_be_read_leaves_the_peer_and_says_so() {
        let single = "garbage unknown 1.1.1.1, 1.1.1 1.1.1.1:x 1.1.1.1: 1.1.1.1:65536 1.1.1.1:+1 [::1 [::1]x [1.1.1.1] fe80::1%eth0 01.1.1.1 \"1.1.1.1\"";
        for text in single.split(' ').chain([
            "",
            "1.1.1.1, ,10.0.0.2",
            "1.1.1.1 2.2.2.2",
            "1.1.1.1, garbage, 10.0.0.2",
        ]) {
            check("10.0.0.1", &[text], "?10.0.0.1");
        }
        let hops = |n: usize, hop: &str| vec![hop; n].join(",");
        check("10.0.0.1", &[&hops(32, "1.1.1.1")], "1.1.1.1");
        check("10.0.0.1", &[&hops(33, "1.1.1.1")], "?10.0.0.1");
        check("10.0.0.1", &[&hops(33, "10.0.0.2")], "?10.0.0.1");
        check("10.0.0.1", &["1.1.1.1", &hops(32, "10.0.0.2")], "?10.0.0.1");
    }

    #[test]
    fn scheme_and_host_are_believed_from_trusted_peers_only() {
        let mut headers = fields(&X_FORWARDED_PROTO, &["http, https"]);
        headers.insert(&X_FORWARDED_HOST, HeaderValue::from_static("App.test"));
        let own = Host::parse("own.test").unwrap();
        let near = trust().host(&peer("10.0.0.1"), &headers, own.clone());
        assert_eq!(near.unwrap().name, "app.test");
        let far = trust().host(&peer("1.1.1.1"), &headers, own.clone());
        assert_eq!(far.unwrap().name, "own.test");
        assert!(trust().secure(&peer("10.0.0.1"), &headers));
        assert!(!trust().secure(&peer("1.1.1.1"), &headers));
        let tls = Peer {
            secure: true,
            redirects_to: None,
            ..peer("10.0.0.1")
        };
        assert!(trust().secure(&tls, &HeaderMap::new()));
        headers.insert(&X_FORWARDED_HOST, HeaderValue::from_static("u@app.test"));
        assert_eq!(trust().host(&peer("10.0.0.1"), &headers, own.clone()), None);
        let deaf = Trust {
            host: false,
            ..trust()
        };
        let kept = deaf.host(&peer("10.0.0.1"), &headers, own);
        assert_eq!(kept.unwrap().name, "own.test");
    }
}
