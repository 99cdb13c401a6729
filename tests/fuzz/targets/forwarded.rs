//! `headers::forwarded`: a chain is believed from trusted peers only, from the right, and no client can reach past the
//! hop that a trusted proxy wrote. The first byte chooses the peer, each line after it is a field.
#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;
use std::sync::LazyLock;
use tollhouse::config::interpolate::Environment;
use tollhouse::config::{Options, load};
use tollhouse::exchange::Peer;
use tollhouse::headers::forwarded::{Client, Trust};
use tollhouse::headers::host::Host;

static CHAIN: HeaderName = HeaderName::from_static("x-forwarded-for");
static TRUST: LazyLock<Trust> = LazyLock::new(|| {
    let text = "[server]\n\
        trusted_proxies = [\"10.0.0.0/8\", \"fd00::/8\", \"unix\"]\n\
        trust_forwarded_host = true\n";
    let config = load(text, Path::new("f.toml"), &Nothing, Options::default());
    Trust::compile(
        &config
            .unwrap_or_else(|problems| panic!("{problems}"))
            .server,
    )
});
const HOPS_MAX: usize = 32;

struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<OsString> {
        None
    }
    fn file(&self, _: &Path, _: usize) -> Result<String, String> {
        Err("does not exist".into())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let ip: Option<IpAddr> = match choice % 5 {
        0 => None,
        1 => "203.0.113.1".parse().ok(),
        2 => "10.0.0.1".parse().ok(),
        3 => "fd00::1".parse().ok(),
        _ => "::ffff:10.0.0.1".parse().ok(),
    };
    let peer = Peer {
        ip,
        trusted: TRUST.trusts(ip),
        secure: false,
        redirects_to: None,
    };
    assert_eq!(peer.trusted, choice % 5 != 1);
    let headers = tollhouse_fuzz::fields(&CHAIN, data);
    let client = TRUST.client(&peer, &headers);
    let own = ip.map(|ip| ip.to_canonical());
    assert_eq!(client.ip, client.ip.to_canonical());

    if !peer.trusted {
        assert_eq!(client, Client::at(own.unwrap(), true));
    }
    if !client.known {
        assert_eq!(client.ip, own.unwrap_or([0, 0, 0, 0].into()));
    }

    let fields: Vec<&[u8]> = headers
        .get_all(&CHAIN)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let line = fields.join(&b","[..]);
    let hops = line.split(|b| *b == b',').count();
    if !fields.is_empty() {
        // Several fields are one list.
        let one = HeaderMap::from_iter([(CHAIN.clone(), HeaderValue::from_bytes(&line).unwrap())]);
        assert_eq!(TRUST.client(&peer, &one), client);
        if peer.trusted && client.known {
            assert!(hops <= HOPS_MAX);
            let text = String::from_utf8_lossy(&line);
            assert!(
                text.split(',').any(|hop| plain(hop) == Some(client.ip)),
                "{text}"
            );
        }
    }

    if hops < HOPS_MAX && !fields.is_empty() {
        // What the client wrote in front of it changes nothing.
        let told = client.known && !TRUST.trusts(Some(client.ip));
        for front in ["6.6.6.6", "10.6.6.6", "garbage"] {
            let longer = list(&[front.as_bytes(), &line]);
            if told {
                assert_eq!(TRUST.client(&peer, &longer), client);
            }
        }
        // A trusted proxy more on the right hides nobody.
        let behind = TRUST.client(&peer, &list(&[&line, b"10.0.0.2"]));
        if peer.trusted && client.known {
            assert_eq!((behind.ip, behind.known), (client.ip, client.known));
        }
        // A stranger on the right is the client.
        let stranger = TRUST.client(&peer, &list(&[&line, b"[2001:db8::1]:80"]));
        assert!(!peer.trusted || stranger.ip == "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    let names = tollhouse_fuzz::fields(&HeaderName::from_static("x-forwarded-host"), data);
    let own = Host::parse("own.test").unwrap();
    match TRUST.host(&peer, &names, own.clone()) {
        Some(host) if !peer.trusted => assert_eq!(host, own),
        Some(host) => assert!(Host::parse(host.authority).is_some_and(|again| again == host)),
        None => assert!(peer.trusted),
    }
    let schemes = tollhouse_fuzz::fields(&HeaderName::from_static("x-forwarded-proto"), data);
    assert!(peer.trusted || !TRUST.secure(&peer, &schemes));
});

fn list(parts: &[&[u8]]) -> HeaderMap {
    let line = HeaderValue::from_bytes(&parts.join(&b", "[..])).unwrap();
    HeaderMap::from_iter([(CHAIN.clone(), line)])
}

/// Generous where the parser is strict: an address, with or without brackets and port.
fn plain(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim();
    let ip = hop.parse::<IpAddr>().ok();
    let ip = ip.or_else(|| {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|socket| socket.ip())
    });
    let bare = hop.rsplit_once(':').map_or(hop, |(address, _)| address);
    let ip = ip.or_else(|| {
        [hop, bare]
            .iter()
            .find_map(|h| h.trim_matches(['[', ']']).parse().ok())
    });
    ip.map(|ip| ip.to_canonical())
}
