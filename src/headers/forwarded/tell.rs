//! What the upstream is told about the client: `X-Forwarded-For`, `-Proto`, `-Host`. Only what is believed; built without
//! an allocation but the field's own.

use super::{Client, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};
use crate::config::upstream::ForwardedFor;
use crate::exchange::Peer;
use http::{HeaderMap, HeaderValue};
use std::fmt::Write;
use std::net::IpAddr;

/// Tells the upstream whom the request comes from: `X-Forwarded-For`, `-Proto` and `-Host`, replacing what is there.
///
/// `host` is the value of the admitted [`Host`]. With [`ForwardedFor::Append`] the believed part of the chain (from the
/// client to the right) and the peer; with `Single` the client alone. A client that is nowhere known is not told.
pub fn tell(
    headers: &mut HeaderMap,
    peer: &Peer,
    client: &Client,
    host: HeaderValue,
    secure: bool,
    how: ForwardedFor,
) {
    let proto = if secure { "https" } else { "http" };
    match chain(headers, peer, client, how).value() {
        Some(value) => headers.insert(&X_FORWARDED_FOR, value),
        None => headers.remove(&X_FORWARDED_FOR),
    };
    headers.insert(&X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(&X_FORWARDED_HOST, host);
}

fn chain(headers: &HeaderMap, peer: &Peer, client: &Client, how: ForwardedFor) -> Line {
    let told = !client.ip.is_unspecified();
    let mut line = Line::default();
    if how == ForwardedFor::Single {
        if told {
            line.address(client.ip);
        }
        return line;
    }
    let peer = peer.ip.map(|ip| ip.to_canonical());
    if client.hops > 0 {
        line.believed(headers, client.hops);
        if line.overflow {
            line = Line::default();
            line.address(client.ip);
        }
    } else if told && peer != Some(client.ip) {
        line.address(client.ip);
    }
    if let Some(peer) = peer {
        line.address(peer);
    }
    line
}

/// A short list under construction, without an allocation of its own.
struct Line {
    bytes: [u8; 320],
    used: usize,
    overflow: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            bytes: [0; 320],
            used: 0,
            overflow: false,
        }
    }
}

impl Line {
    fn push(&mut self, text: &[u8]) {
        match self.bytes[self.used..].get_mut(..text.len()) {
            Some(space) => {
                space.copy_from_slice(text);
                self.used += text.len();
            }
            None => self.overflow = true,
        }
    }

    fn member(&mut self) {
        if self.used > 0 {
            self.push(b", ");
        }
    }

    fn address(&mut self, ip: IpAddr) {
        self.member();
        match ip {
            // By hand: nearly every request tells one, and the formatter's machinery costs ten times the digits.
            IpAddr::V4(ip) => {
                let [first, rest @ ..] = ip.octets();
                self.decimal(first);
                for octet in rest {
                    self.push(b".");
                    self.decimal(octet);
                }
            }
            // Cannot fail: an address is short, and a full line is noted.
            IpAddr::V6(ip) => drop(write!(self, "{ip}")),
        }
    }

    fn decimal(&mut self, number: u8) {
        let digits = [number / 100, number / 10 % 10, number % 10].map(|digit| b'0' + digit);
        let leading = usize::from(number < 100) + usize::from(number < 10);
        self.push(&digits[leading..]);
    }

    /// The last `hops` elements of the chain that came, in their order.
    fn believed(&mut self, headers: &HeaderMap, hops: usize) {
        let elements = || {
            headers
                .get_all(&X_FORWARDED_FOR)
                .iter()
                .flat_map(|v| v.as_bytes().split(|b| *b == b','))
        };
        let total = elements().count();
        for hop in elements().skip(total.saturating_sub(hops)) {
            self.member();
            self.push(hop.trim_ascii());
        }
        // Room for the peer.
        self.overflow |= self.bytes.len() - self.used < 48;
    }

    fn value(&self) -> Option<HeaderValue> {
        match &self.bytes[..self.used] {
            [] => None,
            text => HeaderValue::from_bytes(text).ok(),
        }
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::HOPS_MAX;
    use super::super::Trust;
    use super::super::tests::{fields, peer, trust};
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    fn told(from: &str, chain: &[&str], how: ForwardedFor) -> Option<String> {
        let mut headers = fields(&X_FORWARDED_FOR, chain);
        let client = trust().client(&peer(from), &headers);
        let host = HeaderValue::from_static("app.test");
        tell(&mut headers, &peer(from), &client, host, true, how);
        assert_eq!(headers[&X_FORWARDED_PROTO], "https");
        assert_eq!(headers[&X_FORWARDED_HOST], "app.test");
        assert!(headers.get_all(&X_FORWARDED_FOR).iter().count() <= 1);
        headers
            .get(&X_FORWARDED_FOR)
            .map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_upstream_is_told_the_believed_chain_and_the_peer() {
        for (from, chain, append, single) in [
            ("1.1.1.1", &["6.6.6.6"][..], "1.1.1.1", "1.1.1.1"),
            ("2001:db8::1", &[], "2001:db8::1", "2001:db8::1"),
            ("::ffff:1.1.1.1", &[], "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1, 10.0.0.1", "1.1.1.1"),
            (
                "10.0.0.1",
                &["6.6.6.6, 1.1.1.1:80,10.0.0.2"],
                "1.1.1.1:80, 10.0.0.2, 10.0.0.1",
                "1.1.1.1",
            ),
            (
                "10.0.0.1",
                &["6.6.6.6", "1.1.1.1", "10.0.0.2"],
                "1.1.1.1, 10.0.0.2, 10.0.0.1",
                "1.1.1.1",
            ),
            ("10.0.0.1", &["garbage"], "10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", &[], "10.0.0.1", "10.0.0.1"),
            ("unix", &["1.1.1.1"], "1.1.1.1", "1.1.1.1"),
        ] {
            assert_eq!(
                told(from, chain, ForwardedFor::Append).as_deref(),
                Some(append),
                "{from}"
            );
            assert_eq!(
                told(from, chain, ForwardedFor::Single).as_deref(),
                Some(single),
                "{from}"
            );
        }
        assert_eq!(told("unix", &[], ForwardedFor::Append), None);
        assert_eq!(told("unix", &["garbage"], ForwardedFor::Single), None);
    }

    #[test]
    fn a_chain_too_long_to_tell_keeps_its_ends() {
        let chain = format!(
            "1.1.1.1, {}",
            vec!["fd00::1111:2222:3333:4444:5555"; 30].join(",")
        );
        let text = told("10.0.0.1", &[&chain], ForwardedFor::Append);
        assert_eq!(text.as_deref(), Some("1.1.1.1, 10.0.0.1"));
    }

    #[test]
    fn another_header_than_x_forwarded_for_is_told_as_the_client() {
        let name = HeaderName::from_static("cf-connecting-ip");
        let trust = Trust {
            client_ip: name.clone(),
            ..trust()
        };
        let mut headers = fields(&name, &["1.1.1.1"]);
        headers.insert(&X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"));
        let client = trust.client(&peer("10.0.0.1"), &headers);
        let host = HeaderValue::from_static("a");
        tell(
            &mut headers,
            &peer("10.0.0.1"),
            &client,
            host,
            false,
            ForwardedFor::Append,
        );
        assert_eq!(headers[&X_FORWARDED_FOR], "1.1.1.1, 10.0.0.1");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_give_an_address_and_a_field(chain in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..4)) {
            let mut headers = HeaderMap::new();
            for value in chain.iter().filter_map(|v| HeaderValue::from_bytes(v).ok()) {
                headers.append(&X_FORWARDED_FOR, value);
            }
            let client = trust().client(&peer("10.0.0.1"), &headers);
            prop_assert!(client.known || client.ip == IpAddr::from([10, 0, 0, 1]));
            tell(&mut headers, &peer("10.0.0.1"), &client, HeaderValue::from_static("a"), true, ForwardedFor::Append);
            prop_assert!(headers[&X_FORWARDED_FOR].to_str().unwrap().ends_with("10.0.0.1"));
        }

        #[test]
        fn whatever_a_client_writes_before_it_its_own_address_is_found(
            lies in "[0-9a-f.:, \\[\\]]{0,60}", octets in any::<[u8; 4]>()
        ) {
            let ip = IpAddr::from(octets);
            prop_assume!(!trust().proxies.contains(ip) && !ip.is_unspecified());
            prop_assume!(lies.matches(',').count() < HOPS_MAX - 2);
            let chain = format!("{lies}, {ip}, 10.0.0.2");
            let client = trust().client(&peer("10.0.0.1"), &fields(&X_FORWARDED_FOR, &[&chain]));
            prop_assert_eq!((client.ip, client.known), (ip, true));
            let text = told("10.0.0.1", &[&chain], ForwardedFor::Append).unwrap();
            prop_assert_eq!(text, format!("{ip}, 10.0.0.2, 10.0.0.1"));
        }
    }
}
