//! What came in the clear is sent to https (`redirect_https`).

use super::perform::Plan;
use crate::exchange::{Code, Peer, Reject};
use crate::headers::host::Host;
use crate::snapshot::Snapshot;
use http::HeaderValue;
use http::request::Parts;

const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// 308 (RFC 9110 §15.4.9) to the same address over TLS.
pub(super) fn redirect<'s>(
    snapshot: &Snapshot,
    peer: &Peer,
    host: &Host<'_>,
    head: &Parts,
) -> Result<Plan<'s>, Reject> {
    let ours = snapshot.config.server.public_url.iter();
    let ours = ours.map(|origin| &*origin.0);
    let origin = origin(ours, host, peer.redirects_to.unwrap_or(0));
    let rest = head.uri.path_and_query().map_or("/", |rest| rest.as_str());
    let to = HeaderValue::try_from([&origin, rest].concat())
        .map_err(|_| Reject::new(Code::BadRequest, "The address cannot be redirected."))?;
    Ok(Plan::ToHttps(to))
}

/// The origin of a host over TLS: the public one of that name, if there is one. Else a client that came to a port of its
/// own choice finds TLS at our port, and one that came to the usual port at the usual one, since what stands between it
/// and us maps ports.
fn origin<'a>(ours: impl Iterator<Item = &'a str>, host: &Host<'_>, port: u16) -> String {
    let mut public = ours.filter(|origin| {
        origin.strip_prefix("https://").is_some_and(|authority| {
            Host::parse(authority).is_some_and(|public| public.name == host.name)
        })
    });
    if let Some(origin) = public.next() {
        return origin.to_owned();
    }
    let usual = host.port.is_none_or(|port| port == HTTP);
    if usual || port == 0 || port == HTTPS {
        return format!("https://{}", host.name);
    }
    format!("https://{}:{port}", host.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_over_tls_follows_from_what_is_known_of_it() {
        let check = |ours: &[&str], host: &str, port, expected: &str| {
            let host = Host::parse(host).unwrap();
            assert_eq!(origin(ours.iter().copied(), &host, port), expected);
        };
        check(&[], "app.test", 8443, "https://app.test");
        check(&[], "app.test:80", 8443, "https://app.test");
        check(&[], "app.test:8080", 8443, "https://app.test:8443");
        check(&[], "app.test:8080", 443, "https://app.test");
        check(&[], "app.test:8080", 0, "https://app.test");
        check(&[], "[::1]:8080", 8443, "https://[::1]:8443");
        let ours = ["http://app.test", "https://app.test:9443", "https://b.test"];
        check(&ours, "app.test:8080", 8443, "https://app.test:9443");
        check(&ours, "B.test", 8443, "https://b.test");
        check(&ours, "c.test", 8443, "https://c.test");
    }
}
