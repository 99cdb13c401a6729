//! Doors of the process: no two of them at one address, and clients that can be told apart.

use super::parse;
use super::read::{Entries, Kind, Node, Reader};
use super::server::Server;
use super::value::ListenAddr;
use super::{check, diagnostic::Place};
use std::net::SocketAddr;

/// An address, the key that names it, and where. `None`: it is the key's default.
struct Door {
    key: &'static str,
    address: ListenAddr,
    place: Option<Place>,
}

/// Two doors at one address: the second could not be bound, or would take half of the first one's connections.
pub(super) fn same_address(
    server: &Entries,
    listeners: &[&Entries],
    admin: &Entries,
    text: &str,
    reader: &Reader<'_>,
) {
    let mut doors: Vec<Door> = Vec::new();
    let short = Some("127.0.0.1:8080").filter(|_| listeners.is_empty());
    let long = listeners
        .iter()
        .map(|own| (*own, "listeners.address", "address", None));
    for (entries, key, own, default) in [(server, "server.listen", "listen", short)]
        .into_iter()
        .chain(long)
        .chain([
            (admin, "admin.listen", "listen", Some("127.0.0.1:9901")),
            (admin, "admin.probes", "probes", None),
        ])
    {
        match entries.get(own) {
            Some(entry) => doors.extend(addresses(&entry.node).map(|(address, place)| Door {
                key,
                address,
                place: Some(place),
            })),
            None => doors.extend(default.and_then(|text| parse::listen(text).ok()).map(
                |address| Door {
                    key,
                    address,
                    place: None,
                },
            )),
        }
    }
    for (at, door) in doors.iter().enumerate() {
        let same = |other: &&Door| overlap(&door.address, &other.address);
        let Some(other) = doors[..at].iter().find(same) else {
            continue;
        };
        // A default stands nowhere: then the one that was written is shown.
        let (shown, other) = if door.place.is_some() {
            (door, other)
        } else {
            (other, door)
        };
        let Some(place) = &shown.place else {
            continue;
        };
        let by = match &other.place {
            Some(place) => format!("`{}` on line {}", other.key, check::line_of(text, place)),
            None => format!("the default of `{}`", other.key),
        };
        let hint = if shown.address == other.address {
            "two doors cannot share an address; write another one, or leave it out here"
        } else {
            "0.0.0.0 and [::] stand for every address, [::] for IPv4 as well; write another port"
        };
        let message = format!("`{}` repeats {by}", shown.key);
        reader.error("repeated-address", place, message, hint);
    }
}

/// Without a name for the peers of a unix socket, every client is the same unknown one.
pub(super) fn unix_without_trust(
    server: &Server,
    entries: &Entries,
    listeners: &[&Entries],
    reader: &Reader<'_>,
) {
    let unknown = |node: &Node| matches!(&node.kind, Kind::Text(text) if !text.known);
    let hidden = entries
        .get("trusted_proxies")
        .is_some_and(|entry| match &entry.node.kind {
            Kind::List(nodes) => nodes.iter().any(unknown),
            _ => unknown(&entry.node),
        });
    if server.trusted_proxies.unix || hidden {
        return;
    }
    let long = listeners.iter().filter_map(|own| own.get("address"));
    for (address, place) in entries
        .get("listen")
        .into_iter()
        .chain(long)
        .flat_map(|entry| addresses(&entry.node))
    {
        if matches!(address, ListenAddr::Unix(_)) {
            let hint = "limits by ip do not apply: add \"unix\" to `trusted_proxies` if a proxy of yours is in front";
            let message = "every client of this unix socket is the same unknown one";
            reader.warn("unix-without-trust", &place, message, hint);
        }
    }
}

/// The addresses that a value names; what is not known or wrong is left out.
fn addresses(node: &Node) -> impl Iterator<Item = (ListenAddr, Place)> {
    let whole;
    let nodes: &[Node] = match &node.kind {
        Kind::List(nodes) => nodes,
        Kind::Text(text) => {
            whole = super::read::split(text, &node.place);
            &whole
        }
        _ => &[],
    };
    let found: Vec<_> = nodes
        .iter()
        .filter_map(|node| match &node.kind {
            Kind::Text(text) if text.known => {
                Some((parse::listen(&text.value).ok()?, node.place.clone()))
            }
            _ => None,
        })
        .collect();
    found.into_iter()
}

fn overlap(one: &ListenAddr, other: &ListenAddr) -> bool {
    match (one, other) {
        (ListenAddr::Tcp(one), ListenAddr::Tcp(other)) => {
            let same = one.ip().to_canonical() == other.ip().to_canonical();
            one.port() == other.port()
                && one.port() != 0
                && (same || covers(one, other) || covers(other, one))
        }
        (ListenAddr::Unix(one), ListenAddr::Unix(other)) => one == other,
        _ => false,
    }
}

/// Whether a socket at `all` gets what is meant for `one`: `[::]` is bound for both families.
fn covers(all: &SocketAddr, one: &SocketAddr) -> bool {
    all.ip().is_unspecified() && (all.is_ipv6() || one.ip().to_canonical().is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_every_address_is_a_port_of_each() {
        let check = |one: &str, other: &str, wanted: bool| {
            let (a, b) = (parse::listen(one).unwrap(), parse::listen(other).unwrap());
            assert_eq!(overlap(&a, &b), wanted, "{one} {other}");
            assert_eq!(overlap(&b, &a), wanted, "{other} {one}");
        };
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:81", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("127.0.0.1:0", "127.0.0.1:0", false);
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("0.0.0.0:80", "[::1]:80", false);
        check("[::]:80", "[::1]:80", true);
        check("[::]:80", "127.0.0.1:80", true);
        check("[::]:80", "0.0.0.0:80", true);
        check("[::]:80", "0.0.0.0:81", false);
        check("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true);
        check("unix:/run/a", "unix:/run/a", true);
        check("unix:/run/a", "unix:/run//a", true);
        check("unix:/run/a", "unix:/run/b", false);
        check("unix:/run/a", "127.0.0.1:80", false);
    }
}
