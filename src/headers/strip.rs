//! What is removed from a message on its way through: hop-by-hop fields (RFC 9110 §7.6.1), names that only Tollhouse
//! may say, and what an untrusted peer says about the client. Runs before Tollhouse adds its own fields, so that nothing
//! that came in can remove one. Session cookies are not removed here.

use super::names::{Forgeable, Group, Kind, is_forwarding, kind, plain, same};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, HOST, ORIGIN, SERVER, SET_COOKIE, TE, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that `Connection` may name, at most. More are not looked at: they can only be the sender's own.
const NAMED_MAX: usize = 64;

/// Fields that `Connection` can never remove, besides those that are [`Forgeable`] and those about the client.
const END_TO_END: [HeaderName; 10] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    ORIGIN,
    SET_COOKIE,
    VARY,
];

/// What of a request may stay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// What the peer says about the client and to the upstream's router: only from trusted proxies.
    pub forwarding: bool,
    /// `Authorization` and API-key headers: only where the route forwards them as they came.
    pub credentials: bool,
    /// `tracestate`: only with the `traceparent` it came with (W3C Trace Context §3.3).
    pub trace: bool,
}

fn condemned(name: &HeaderName, keep: Keep, forgeable: &Forgeable) -> bool {
    let name = name.as_str().as_bytes();
    if name == b"tracestate" {
        return !keep.trace;
    }
    match kind(name) {
        Some(Kind::Hop) => return true,
        Some(Kind::Spelling) => return !plain(name),
        Some(Kind::Forwarding | Kind::Steering) => return !(keep.forwarding && plain(name)),
        None => {}
    }
    match forgeable.find(name) {
        Some(Group::Identity) => true,
        Some(Group::ApiKey) => !(keep.credentials && plain(name)),
        Some(Group::Client) => !(keep.forwarding && plain(name)),
        None => false,
    }
}

/// Cleans a request's fields for an upstream. Nothing is allocated unless something other than `Connection` goes.
/// True when a peer that is no trusted proxy spoke about the client.
pub fn strip(headers: &mut HeaderMap, keep: Keep, forgeable: &Forgeable) -> bool {
    let mut doomed = Vec::new();
    let mut connection = false;
    let mut authorization = false;
    let mut trailers = false;
    let mut told = false;
    for name in headers.keys() {
        if *name == CONNECTION {
            connection = true;
        } else if *name == AUTHORIZATION {
            authorization = !keep.credentials;
        } else if condemned(name, keep, forgeable) {
            trailers |= *name == TE;
            told |= !keep.forwarding && is_forwarding(name);
            doomed.push(name.clone());
        }
    }
    // gRPC servers refuse clients that do not say this, and it stays true: responses' trailers are relayed.
    trailers = trailers && headers.get_all(TE).iter().any(takes_trailers);
    if connection {
        remove_named(headers, forgeable);
    }
    if authorization {
        headers.remove(AUTHORIZATION);
    }
    for name in doomed {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    told
}

fn takes_trailers(te: &HeaderValue) -> bool {
    te.as_bytes()
        .split(|b| *b == b',')
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Cleans a response's fields for a client. `Trailer` stays: trailers are relayed. For a 101, copy `Upgrade` first.
pub fn strip_response(headers: &mut HeaderMap, forgeable: &Forgeable) {
    let mut doomed = Vec::new();
    let (mut connection, mut server) = (false, false);
    for name in headers.keys() {
        if *name == CONNECTION {
            connection = true;
        } else if *name == SERVER {
            server = true; // nearly always: not worth a list
        } else if condemned_of_response(name, forgeable) {
            doomed.push(name.clone());
        }
    }
    if connection {
        remove_named(headers, forgeable);
    }
    if server {
        headers.remove(SERVER);
    }
    for name in doomed {
        if name == TRANSFER_ENCODING {
            // hyper reads such a body as chunked but leaves the length in the map, and refuses to write both.
            headers.remove(CONTENT_LENGTH);
        }
        headers.remove(name);
    }
}

fn condemned_of_response(name: &HeaderName, forgeable: &Forgeable) -> bool {
    let name = name.as_str().as_bytes();
    let general = match name.first() {
        Some(b'a') => name == b"authorization",
        Some(b'x') => same(name, b"x-powered-by"),
        Some(b't') if name == b"trailer" => false,
        _ => kind(name) == Some(Kind::Hop),
    };
    general || forgeable.find(name) == Some(Group::Identity)
}

/// Of a client's trailers only gRPC's go on (RFC 9110 §6.5.1).
pub fn clean_trailers_to_upstream(trailers: &mut HeaderMap, forgeable: &Forgeable) {
    remove_where(trailers, |name| {
        let name = name.as_str().as_bytes();
        !name.starts_with(b"grpc-") || forgeable.find(name).is_some()
    });
}

/// Of an upstream's trailers everything goes on but what belongs into a head: framing, routing, authentication,
/// caching, cookies and identity (RFC 9110 §6.5.1).
pub fn clean_trailers_to_client(trailers: &mut HeaderMap, forgeable: &Forgeable) {
    const HEAD_ONLY: [&[u8]; 20] = [
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-security-policy",
        b"content-type",
        b"date",
        b"expires",
        b"host",
        b"location",
        b"pragma",
        b"retry-after",
        b"server",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
        b"x-powered-by",
    ];
    remove_where(trailers, |name| {
        let name = name.as_str().as_bytes();
        HEAD_ONLY.contains(&name)
            || kind(name).is_some()
            || name.starts_with(b"access-control-")
            || forgeable.find(name).is_some()
    });
}

fn remove_where(headers: &mut HeaderMap, condemned: impl Fn(&HeaderName) -> bool) {
    let doomed: Vec<_> = headers.keys().filter(|n| condemned(n)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Removes `Connection` and the fields it names.
fn remove_named(headers: &mut HeaderMap, forgeable: &Forgeable) {
    let usual = |value: &HeaderValue| {
        let value = value.as_bytes();
        value.eq_ignore_ascii_case(b"keep-alive")
            || value.eq_ignore_ascii_case(b"close")
            || value.eq_ignore_ascii_case(b"upgrade")
    };
    if !headers.get_all(CONNECTION).iter().all(usual) {
        let named: Vec<_> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .take(NAMED_MAX)
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| {
                !END_TO_END.contains(name)
                    && *name != http::header::TRAILER
                    && !is_forwarding(name)
                    && forgeable.find(name.as_str().as_bytes()).is_none()
            })
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgeable() -> Forgeable {
        Forgeable::compile(
            &[
                HeaderName::from_static("x-user-id"),
                HeaderName::from_static("acme-role"),
                HeaderName::from_static("grpc-user"),
            ],
            &[HeaderName::from_static("x-api-key"), AUTHORIZATION],
            &HeaderName::from_static("fly-client-ip"),
        )
    }

    fn map(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("v"),
            );
        }
        headers
    }

    fn left(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    const TRUSTED: Keep = Keep {
        forwarding: true,
        credentials: false,
        trace: false,
    };
    const ORDINARY: [&str; 12] = [
        "accept",
        "accept-encoding",
        "cache-control",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "origin",
        "sec-fetch-site",
        "user-agent",
        "x-csrf-token",
        "x-forwardable",
    ];

    #[test]
    fn ordinary_fields_pass() {
        // The last one only begins like `x-forwarded`.
        let mut headers = map(&ORDINARY);
        strip(&mut headers, Keep::default(), &forgeable());
        assert_eq!(left(&headers), ORDINARY);
    }

    #[test]
    fn hop_by_hop_fields_and_those_that_connection_names_end_here() {
        let mut headers = map(&[
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "proxy",
            "te",
            "trailer",
            "transfer-encoding",
            "transfer_encoding",
            "content_length",
            "upgrade",
            "expect",
            "http2-settings",
            "x-secret",
            "accept",
        ]);
        headers.append(CONNECTION, HeaderValue::from_static("close"));
        headers.append(CONNECTION, HeaderValue::from_static(" X-Secret , ,TE"));
        strip(&mut headers, TRUSTED, &forgeable());
        assert_eq!(left(&headers), ["accept"]);
    }

    #[test]
    fn connection_cannot_remove_what_matters() {
        let names = [
            "authorization",
            "content-length",
            "content-type",
            "cookie",
            "host",
            "x-api-key",
            "x-forwarded-for",
        ];
        let mut headers = map(&names);
        headers.insert(
            CONNECTION,
            HeaderValue::from_static(
                "host, content-length, content-type, authorization, cookie, x-api-key, x-forwarded-for, x-user-id",
            ),
        );
        let keep = Keep {
            forwarding: true,
            credentials: true,
            trace: true,
        };
        strip(&mut headers, keep, &forgeable());
        assert_eq!(left(&headers), names);
    }

    #[test]
    fn names_that_only_we_say_are_removed_in_every_spelling() {
        let names = "x-user-id x_user_id x-user_id X-USER-ID x.user.id x-user-id-bin x_user_id_bin \
            acme-role acme_role x-request-id x_request_id x-auth-provider traceparent";
        let names: Vec<_> = names.split(' ').collect();
        for keep in [Keep::default(), TRUSTED] {
            let mut headers = map(&names);
            // Repeated, too.
            headers.append("x-user-id", HeaderValue::from_static("w"));
            strip(&mut headers, keep, &forgeable());
            assert!(headers.is_empty(), "{headers:?}");
        }
        let near = ["x-user", "x-user-id2", "x-user-id-bind", "xuserid"];
        let mut headers = map(&near);
        strip(&mut headers, Keep::default(), &forgeable());
        assert_eq!(headers.len(), near.len());
    }

    #[test]
    fn credentials_stay_only_where_they_are_forwarded() {
        let names = ["authorization", "x-api-key", "x_api_key"];
        let mut headers = map(&names);
        strip(&mut headers, Keep::default(), &forgeable());
        assert!(headers.is_empty());
        let mut headers = map(&names);
        let keep = Keep {
            credentials: true,
            ..Keep::default()
        };
        strip(&mut headers, keep, &forgeable());
        assert_eq!(left(&headers), ["authorization", "x-api-key"]);
    }

    #[test]
    fn only_a_trusted_peer_speaks_about_the_client() {
        let names = [
            "cf-connecting-ip",
            "fly-client-ip",
            "forwarded",
            "true-client-ip",
            "x-forwarded-client-cert",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-http-method",
            "x-http-method-override",
            "x-invoke-path",
            "x-matched-path",
            "x-method-override",
            "x-middleware-subrequest",
            "x-now-route-matches",
            "x-original-url",
            "x-real-ip",
            "x-rewrite-url",
        ];
        let mut headers = map(&names);
        strip(&mut headers, Keep::default(), &forgeable());
        assert!(headers.is_empty(), "{headers:?}");
        let mut headers = map(&names);
        strip(&mut headers, TRUSTED, &forgeable());
        assert_eq!(left(&headers), names);
        // A proxy that rewrites `X-Forwarded-For` lets this pass.
        let mut headers = map(&["x_forwarded_for", "x_real_ip", "fly_client_ip"]);
        strip(&mut headers, TRUSTED, &forgeable());
        assert!(headers.is_empty(), "{headers:?}");
    }

    #[test]
    fn the_state_of_a_trace_goes_on_only_with_the_trace() {
        for trace in [true, false] {
            let mut headers = map(&["tracestate"]);
            let keep = Keep {
                trace,
                ..Keep::default()
            };
            strip(&mut headers, keep, &forgeable());
            assert_eq!(headers.contains_key("tracestate"), trace);
        }
    }

    #[test]
    fn te_goes_on_as_trailers_or_not_at_all() {
        for (value, expected) in [
            ("trailers", Some("trailers")),
            ("gzip, Trailers", Some("trailers")),
            ("gzip", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(TE, HeaderValue::from_static(value));
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
            strip(&mut headers, Keep::default(), &forgeable());
            let te = headers.get(TE).map(|v| v.to_str().unwrap());
            assert_eq!(te, expected, "{value}");
        }
    }

    #[test]
    fn a_response_loses_its_hops_its_identity_and_its_makers() {
        let mut headers = map(&[
            "transfer-encoding",
            "content-length",
            "keep-alive",
            "server",
            "x-powered-by",
            "authorization",
            "x-user-id",
            "x_user_id",
            "upgrade",
            "x-named",
            "accept-ranges",
            "set-cookie",
            "trailer",
            "x-api-key",
        ]);
        headers.insert(
            CONNECTION,
            HeaderValue::from_static("x-named, set-cookie, trailer"),
        );
        strip_response(&mut headers, &forgeable());
        assert_eq!(
            left(&headers),
            ["accept-ranges", "set-cookie", "trailer", "x-api-key"]
        );
        let mut headers = map(&["content-length"]);
        strip_response(&mut headers, &forgeable());
        assert_eq!(left(&headers), ["content-length"]);
    }

    #[test]
    fn trailers_carry_no_head() {
        let names = [
            "grpc-status",
            "grpc-user",
            "x-user-id",
            "x-checksum",
            "content-length",
            "transfer-encoding",
            "set-cookie",
            "host",
            "authorization",
            "x-forwarded-for",
            "access-control-allow-origin",
        ];
        let mut trailers = map(&names);
        clean_trailers_to_upstream(&mut trailers, &forgeable());
        assert_eq!(left(&trailers), ["grpc-status"]);
        let mut trailers = map(&names);
        clean_trailers_to_client(&mut trailers, &forgeable());
        assert_eq!(left(&trailers), ["grpc-status", "x-checksum"]);
    }

    #[test]
    fn a_connection_field_full_of_names_is_bounded() {
        let mut headers = map(&["accept"]);
        let many = "a,".repeat(40_000) + "accept";
        headers.insert(CONNECTION, HeaderValue::from_str(&many).unwrap());
        strip(&mut headers, Keep::default(), &forgeable());
        assert_eq!(left(&headers), ["accept"]);
    }
}
