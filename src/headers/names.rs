//! Which header names are not for everybody to say, in any spelling: Tollhouse's own, credentials, what proxies say about
//! clients, what concerns two neighbours only. Knows names; `strip` removes.

use http::HeaderName;
use http::header::AUTHORIZATION;

/// The names that Tollhouse says, compiled: identity headers, its own, API-key headers, the client's address.
#[derive(Debug)]
pub struct Forgeable {
    guarded: Box<[(Box<[u8]>, Group)]>,
    /// Bit for each first byte of a guarded name. Names are ASCII.
    firsts: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Ours alone, in requests and responses.
    Identity,
    /// A client may send it; an upstream sees it only where credentials are forwarded.
    ApiKey,
    /// A trusted proxy may send it.
    Client,
}

impl Forgeable {
    /// `identity`: every name in `[identity_headers]`; `api_keys`: every `api_keys.*.header`; `client_ip`: `server.client_ip_header`.
    pub fn compile<'a>(
        identity: impl IntoIterator<Item = &'a HeaderName>,
        api_keys: impl IntoIterator<Item = &'a HeaderName>,
        client_ip: &HeaderName,
    ) -> Self {
        let ours = ["x-request-id", "traceparent", "x-auth-provider"];
        let names = ours
            .into_iter()
            .map(|name| (name, Group::Identity))
            .chain(identity.into_iter().map(|n| (n.as_str(), Group::Identity)))
            .chain(api_keys.into_iter().map(|n| (n.as_str(), Group::ApiKey)))
            .chain([(client_ip.as_str(), Group::Client)])
            // `Authorization` has a rule of its own.
            .filter(|(name, _)| *name != AUTHORIZATION.as_str());
        let guarded: Box<[_]> = names
            .map(|(name, group)| (name.bytes().map(fold).collect::<Box<[u8]>>(), group))
            .collect();
        let firsts = guarded
            .iter()
            .filter_map(|(name, _)| name.first())
            .fold(0, |bits, first| bits | 1_u128 << (first & 0x7f));
        Self { guarded, firsts }
    }

    /// The group of a name in any spelling, also as gRPC's binary twin (`-bin`).
    pub(super) fn find(&self, name: &[u8]) -> Option<Group> {
        let first = fold(*name.first()?);
        if self.firsts >> (first & 0x7f) & 1 == 0 {
            return None;
        }
        let twin = match name.split_last_chunk::<4>() {
            Some((stem, end)) if same(end, b"-bin") => stem,
            _ => name,
        };
        self.guarded
            .iter()
            .find(|(guarded, _)| same(name, guarded) || same(twin, guarded))
            .map(|(_, group)| *group)
    }
}

/// Servers that hand fields to programs as variables (CGI and its heirs) write `_` for `-`, some for any other mark.
fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte
    } else {
        b'-'
    }
}

pub(super) fn same(name: &[u8], folded: &[u8]) -> bool {
    name.len() == folded.len() && begins(name, folded)
}

fn begins(name: &[u8], folded: &[u8]) -> bool {
    name.len() >= folded.len() && name.iter().zip(folded).all(|(a, b)| fold(*a) == *b)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Between two neighbours only, or dangerous beyond them.
    Hop,
    /// Fine as it is, but not in another spelling.
    Spelling,
    /// What a proxy says about the client.
    Forwarding,
    /// What steers an upstream's routing, past the route that was authorised.
    Steering,
}

/// Names with a rule of their own, by first byte, so that most names are done after one look.
fn built_in(first: u8) -> &'static [(&'static [u8], Kind)] {
    use Kind::{Forwarding, Hop, Spelling, Steering};
    match first {
        b'c' => &[
            (b"connection", Hop),
            (b"content-length", Spelling),
            (b"cf-connecting-ip", Forwarding),
        ],
        b'e' => &[(b"expect", Hop)],
        b'f' => &[(b"forwarded", Forwarding)],
        b'h' => &[(b"http2-settings", Hop)],
        b'k' => &[(b"keep-alive", Hop)],
        b'p' => &[
            // Programs started by CGI take it for HTTP_PROXY (CVE-2016-5385).
            (b"proxy", Hop),
            (b"proxy-connection", Hop),
            (b"proxy-authorization", Hop),
            (b"proxy-authenticate", Hop),
        ],
        b't' => &[
            (b"te", Hop),
            (b"trailer", Hop),
            (b"transfer-encoding", Hop),
            (b"true-client-ip", Forwarding),
        ],
        b'u' => &[(b"upgrade", Hop)],
        b'x' => &[
            (b"x-real-ip", Forwarding),
            (b"x-client-ip", Forwarding),
            (b"x-cluster-client-ip", Forwarding),
            (b"x-original-url", Steering),
            (b"x-original-host", Steering),
            (b"x-rewrite-url", Steering),
            (b"x-http-method", Steering),
            (b"x-http-method-override", Steering),
            (b"x-method-override", Steering),
            (b"x-matched-path", Steering),
            (b"x-now-route-matches", Steering),
        ],
        _ => &[],
    }
}

pub(super) fn kind(name: &[u8]) -> Option<Kind> {
    let first = *name.first()?;
    let exact = built_in(first).iter().find(|(known, _)| same(name, known));
    match exact {
        Some((_, kind)) => Some(*kind),
        None if first != b'x' => None,
        None if begins(name, b"x-forwarded") => Some(Kind::Forwarding),
        None if begins(name, b"x-middleware-") || begins(name, b"x-invoke-") => {
            Some(Kind::Steering)
        }
        None => None,
    }
}

/// Whether a name is written as its owner writes it: `-` between words and nothing else.
pub(super) fn plain(name: &[u8]) -> bool {
    name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// Whether a name says something about the client that only a trusted proxy may say.
pub(super) fn is_forwarding(name: &HeaderName) -> bool {
    kind(name.as_str().as_bytes()) == Some(Kind::Forwarding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_name_is_found_in_every_spelling_and_no_other_is() {
        let identity = HeaderName::from_static("x_user-id");
        let forgeable = Forgeable::compile([&identity], [], &HeaderName::from_static("x-ip"));
        for name in [
            "x-user-id",
            "x_user_id",
            "x.user!id",
            "x-user-id-bin",
            "x_user_id_bin",
        ] {
            assert_eq!(
                forgeable.find(name.as_bytes()),
                Some(Group::Identity),
                "{name}"
            );
        }
        for name in [
            "",
            "-",
            "x",
            "x-user",
            "x-user-idx",
            "xx-user-id",
            "-x-user-id",
            "-bin",
            "\u{ff}",
        ] {
            assert_eq!(forgeable.find(name.as_bytes()), None, "{name}");
        }
        assert_eq!(forgeable.find(b"x_ip"), Some(Group::Client));
    }

    #[test]
    fn built_in_names_stand_under_their_first_byte() {
        for first in 0..=255 {
            for (name, _) in built_in(first) {
                assert_eq!(name.first(), Some(&first));
                assert!(plain(name));
            }
        }
    }
}
