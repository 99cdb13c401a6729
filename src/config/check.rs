//! Rules that hold between tables: routes that match the same requests, names that Tollhouse itself sets, what nothing uses.

use super::diagnostic::Place;
use super::read::{Entries, Kind, Reader};
use super::route::{Auth, OnUnauthenticated, Route};
use super::route_build::Built;
use super::session::Session;
use super::value::{HostPattern, PathPattern, Segment};
use http::{HeaderName, Method};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// RFC 9110 §7.6.1, and what frames a message.
const FRAMING: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
];

/// Why a request header cannot be changed by a route. `_` and `-` are one to many upstreams.
pub(super) fn set_by_us_on_requests(name: &str, identity: &[HeaderName]) -> Option<&'static str> {
    let name = name.replace('_', "-");
    if FRAMING.contains(&name.as_str()) {
        return Some("it belongs to one connection");
    }
    if identity
        .iter()
        .any(|own| own.as_str().replace('_', "-") == name)
    {
        return Some("it tells the upstream who calls; see [identity_headers]");
    }
    match name.as_str() {
        "authorization" => Some("Tollhouse sets it from the verified credential"),
        "cookie" => Some("see `forward_session` and `forward_cookies`"),
        "host" => Some("see `host_header` of the upstream"),
        "x-request-id" | "traceparent" | "tracestate" | "x-auth-provider" => {
            Some("Tollhouse sets it")
        }
        "forwarded" | "x-real-ip" => {
            Some("Tollhouse sets it from the connection and `trusted_proxies`")
        }
        _ if name.starts_with("x-forwarded-") => {
            Some("Tollhouse sets it from the connection and `trusted_proxies`")
        }
        _ => None,
    }
}

/// Why a response header cannot be changed.
pub(super) fn set_by_us_on_responses(name: &str) -> Option<&'static str> {
    if FRAMING.contains(&name) {
        return Some("it belongs to one connection");
    }
    match name {
        "set-cookie" => Some("cookies of the session are set by Tollhouse, others by the upstream"),
        "x-request-id" | "date" => Some("Tollhouse sets it"),
        _ if name.starts_with("access-control-") => Some("see [cors]"),
        _ if name.starts_with("ratelimit") || name.starts_with("x-ratelimit-") => {
            Some("see `server.rate_limit_headers`")
        }
        _ => None,
    }
}

/// Why an identity header cannot have this name.
pub(super) fn no_identity_header(name: &HeaderName) -> Option<&'static str> {
    match name.as_str() {
        "content-type" | "content-encoding" | "accept" | "origin" | "referer" | "user-agent" => {
            Some("clients send it for other reasons, and it would be removed from every request")
        }
        other => set_by_us_on_requests(other, &[]),
    }
}

/// The same for two patterns that match the same paths: parameters count as equal, whatever their names.
fn path_shape(path: &PathPattern) -> (Vec<Option<Arc<str>>>, bool) {
    let part = |segment: &Segment| match segment {
        Segment::Literal(text) => Some(text.clone()),
        Segment::Param(_) => None,
    };
    (path.segments.iter().map(part).collect(), path.prefix)
}

/// The same for two patterns that match the same hosts.
fn host_shape(host: &HostPattern) -> (u8, Arc<str>) {
    match host {
        HostPattern::Exact(name) => (0, name.clone()),
        HostPattern::Capture { suffix, .. } => (1, suffix.clone()),
        HostPattern::Wildcard { suffix } => (2, suffix.clone()),
    }
}

fn methods_overlap(one: Option<&[Method]>, other: Option<&[Method]>) -> bool {
    let (Some(one), Some(other)) = (one, other) else {
        return true;
    };
    let serves = |methods: &[Method], method: &Method| {
        methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET))
    };
    one.iter().any(|method| serves(other, method)) || other.iter().any(|method| serves(one, method))
}

/// Two routes that match the same requests: which one answers would be an accident.
pub(super) fn same_requests(routes: &[Built], text: &str, reader: &Reader<'_>) {
    type Shape = (Option<(u8, Arc<str>)>, (Vec<Option<Arc<str>>>, bool));
    let mut seen: HashMap<Shape, Vec<(usize, usize)>> = HashMap::new();
    for (at, built) in routes.iter().enumerate() {
        let hosts: Vec<_> = match built.route.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().map(|host| Some(host_shape(host))).collect(),
        };
        for (number, (pattern, place)) in built.route.paths.iter().zip(&built.paths).enumerate() {
            for host in hosts.iter().filter(|_| place.known) {
                let before = seen.entry((host.clone(), path_shape(pattern))).or_default();
                let same = before
                    .iter()
                    .filter_map(|(n, p)| Some((n, routes.get(*n)?, p)))
                    .find(|(n, other, p)| {
                        (**n != at || **p != number)
                            && methods_overlap(
                                built.route.methods.as_deref(),
                                other.route.methods.as_deref(),
                            )
                    });
                if let Some((_, other, p)) = same {
                    let line = other
                        .paths
                        .get(*p)
                        .map_or(0, |other| line_of(text, &other.place));
                    let message = format!(
                        "`{}` matches the same requests as a path on line {line}",
                        place.shown
                    );
                    let hint = "tell them apart by path, `host` or `methods`, or remove one";
                    reader.error("duplicate-route", &place.place, message, hint);
                }
                before.push((at, number));
            }
        }
    }
}

pub(super) fn line_of(text: &str, place: &Place) -> usize {
    text.bytes()
        .take(place.start)
        .filter(|b| *b == b'\n')
        .count()
        + 1
}

/// Names are labels of logs and metrics: unique. Defaults are made so, given ones must be.
pub(super) fn unique_names(routes: &mut [Built], reader: &Reader<'_>) {
    let mut taken: HashSet<Arc<str>> = HashSet::new();
    for built in routes.iter().filter(|built| built.named) {
        if !taken.insert(built.route.name.clone()) {
            let hint = "names are labels of logs and metrics";
            reader.error(
                "duplicate-name",
                &built.entries.value_place("name"),
                "two routes have the same name",
                hint,
            );
        }
    }
    for built in routes.iter_mut().filter(|built| !built.named) {
        let plain = built.route.name.clone();
        let methods = built
            .route
            .methods
            .iter()
            .flatten()
            .map(Method::as_str)
            .collect::<Vec<_>>()
            .join(",");
        let with_methods = if methods.is_empty() {
            plain.to_string()
        } else {
            format!("{methods} {plain}")
        };
        let mut candidates = [plain.to_string(), with_methods.clone()]
            .into_iter()
            .map(Arc::from)
            .chain((2_usize..).map(|n| Arc::from(format!("{with_methods} ({n})"))));
        if let Some(free) = candidates.find(|name| !taken.contains(name)) {
            taken.insert(Arc::clone(&free));
            built.route.name = free;
        }
    }
}

/// A browser that is sent to log in must be let in there.
pub(super) fn login_url(routes: &[Built], session: &Session, place: &Place, reader: &Reader<'_>) {
    if !session.login_url.starts_with('/') {
        return;
    }
    let path = session
        .login_url
        .split(['?', '#'])
        .next()
        .unwrap_or_default();
    let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let endpoints = session.endpoints.as_deref();
    if endpoints.is_some_and(|own| path.strip_prefix(own).is_some_and(|p| p.starts_with('/'))) {
        return;
    }
    for built in routes
        .iter()
        .filter(|built| built.route.on_unauthenticated == OnUnauthenticated::Login)
    {
        let hosts: Vec<Option<&HostPattern>> = match built.route.hosts.as_slice() {
            [] => vec![None],
            hosts => hosts.iter().map(Some).collect(),
        };
        for host in hosts {
            let of_host = |route: &&Route| match host {
                Some(host) => route
                    .hosts
                    .iter()
                    .any(|own| host_shape(own) == host_shape(host)),
                None => route.hosts.is_empty(),
            };
            let find = |wanted: &dyn Fn(&&Route) -> bool| {
                let found = routes
                    .iter()
                    .map(|built| &built.route)
                    .filter(|r| wanted(r) && serves_get(r));
                found
                    .flat_map(|r| r.paths.iter().map(move |p| (p, r)))
                    .filter(|(p, _)| matches(p, &segments))
                    .max_by_key(|(p, _)| rank(p))
            };
            let best = find(&of_host).or_else(|| find(&|route: &&Route| route.hosts.is_empty()));
            match best {
                Some((_, route)) if route.auth == Auth::Required => {
                    let hint = "whoever is not logged in would be sent there for ever; add a public route for it";
                    reader.error(
                        "protected-login-url",
                        place,
                        "`login_url` leads to a protected route",
                        hint,
                    );
                    return;
                }
                None => {
                    let hint = "add a public route for it";
                    reader.warn(
                        "login-url-without-route",
                        place,
                        "`login_url` leads to no route",
                        hint,
                    );
                    return;
                }
                Some(_) => {}
            }
        }
    }
}

/// Below `session.endpoints` the gateway itself answers: a route there would be reached or not by accident. A wider one,
/// such as `/*`, is fine.
pub(super) fn below_endpoints(
    routes: &[Built],
    session: &Session,
    own: &Entries,
    reader: &Reader<'_>,
) {
    let Some(endpoints) = &session.endpoints else {
        return;
    };
    let shown = match own.get("endpoints").map(|entry| &entry.node.kind) {
        Some(Kind::Text(text)) if !text.known => return,
        Some(Kind::Text(text)) => &text.shown,
        _ => &**endpoints,
    };
    let parts: Vec<&str> = endpoints.split('/').skip(1).collect();
    let below = |path: &PathPattern| {
        let literal = |(segment, part): (&Segment, &&str)| matches!(segment, Segment::Literal(text) if **text == **part);
        path.segments.len() >= parts.len() && path.segments.iter().zip(&parts).all(literal)
    };
    for built in routes {
        for (path, place) in built.route.paths.iter().zip(&built.paths) {
            if place.known && below(path) {
                let message = format!(
                    "`{}` lies where the session endpoints are, `{shown}`",
                    place.shown
                );
                let hint =
                    "choose another path for it, or for `session.endpoints`, which may be \"off\"";
                reader.error("reserved-path", &place.place, message, hint);
            }
        }
    }
}

fn serves_get(route: &Route) -> bool {
    route
        .methods
        .as_ref()
        .is_none_or(|methods| methods.contains(&Method::GET))
}

fn matches(pattern: &PathPattern, path: &[&str]) -> bool {
    let length = if pattern.prefix {
        path.len() >= pattern.segments.len()
    } else {
        path.len() == pattern.segments.len()
    };
    length
        && pattern
            .segments
            .iter()
            .zip(path)
            .all(|(segment, part)| match segment {
                Segment::Literal(text) => **text == **part,
                Segment::Param(_) => true,
            })
}

/// Exact over parameter over `*`, longer over shorter, from the left.
fn rank(pattern: &PathPattern) -> Vec<u8> {
    let mut rank: Vec<u8> = pattern
        .segments
        .iter()
        .map(|s| {
            if matches!(s, Segment::Literal(_)) {
                3
            } else {
                2
            }
        })
        .collect();
    rank.push(u8::from(!pattern.prefix));
    rank
}
