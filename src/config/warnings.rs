//! What looks like a mistake, but may be meant: each has a name, and can be silenced by it.

use super::Config;
use super::provider_build::is_loopback;
use super::rate_limit::AppliesTo;
use super::read::Reader;
use super::root::Root;
use super::route::{Accept, Auth, RouteLimits, Target};
use super::route_build::Built;
use super::upstream::is_url;
use super::value::Origin;
use crate::exchange::Credential;
use std::collections::HashSet;

/// Looks at a file that has been read. With errors in it, much would seem unused that is not: then only routes are looked at.
pub(super) fn look(
    config: &Config,
    routes: &[Built],
    root: &Root,
    whole: bool,
    reader: &Reader<'_>,
) {
    if whole {
        unused(config, routes, root, reader);
    }
    let open = |origin: &Origin| {
        url::Url::parse(&origin.0).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url))
    };
    if config.session.is_some() && config.server.public_url.iter().any(open) {
        let place = root.place_in("server", "public_url");
        let hint = "session cookies travel unprotected and without `Secure`";
        let message = "`public_url` is plain http while there are sessions";
        reader.warn("insecure-public-url", &place, message, hint);
    }
    if whole && config.redis.is_some() && config.session.is_none() {
        let place = root.entries.get("redis").map(|own| own.key_place.clone());
        let hint = "sessions would be; remove it, or add [session]";
        let message = "nothing is stored in `[redis]`";
        reader.warn("no-effect", &place.unwrap_or_default(), message, hint);
    }
    let nobody = config.providers.is_empty() && !root.entries.has("providers");
    for built in routes {
        let route = &built.route;
        if nobody && route.auth == Auth::Required {
            let message = "this route is protected, and there is no provider";
            let hint = "nobody can pass; add [providers.main], or say `auth = \"public\"`";
            built.warn(reader, "no-provider", "path", message, hint);
        }
        let answers = !matches!(route.target, Target::Upstream(_));
        if route.forward_credentials && route.auth == Auth::Public && !answers {
            let hint = "the upstream must verify them itself";
            let message = "credentials pass unverified";
            built.warn(
                reader,
                "unverified-credentials",
                "forward_credentials",
                message,
                hint,
            );
        }
        if route.cache_public && route.auth != Auth::Public {
            let hint = "right only where everybody gets the same answer";
            let message = "shared caches may keep what one user was answered";
            built.warn(reader, "public-cache", "cache", message, hint);
        }
        no_effect(built, answers, config.session.is_some(), reader);
    }
}

/// What only a request to an upstream would feel.
const OF_UPSTREAMS: &[&str] = &[
    "max_body",
    "timeout",
    "idle_timeout",
    "retries",
    "forward_cookies",
    "request_headers",
    "forward_credentials",
    "forward_session",
    "websocket",
    "end_streams_with_session",
];

/// Keys that the rest of their route leaves nothing to do.
fn no_effect(built: &Built, answers: bool, session: bool, reader: &Reader<'_>) {
    let warn = |key: &str, hint: &str| {
        let message = format!("`{key}` does nothing here");
        built.warn(reader, "no-effect", key, &message, hint);
    };
    let given = |key: &str| built.entries.has(key);
    let of_session = |accept: &Accept| accept.credential == Credential::Session;
    if answers {
        for key in OF_UPSTREAMS.iter().filter(|key| given(key)) {
            warn(key, "the gateway itself answers here, no upstream is asked");
        }
    }
    if built.route.auth == Auth::Public {
        for key in ["credentials", "several_credentials"] {
            if given(key) {
                warn(key, "on a public route credentials are not looked at");
            }
        }
    }
    if given("end_streams_with_session") && !answers {
        if !session {
            warn(
                "end_streams_with_session",
                "without [session] there is none to end",
            );
        } else if built.route.auth == Auth::Public {
            let hint = "on a public route credentials are not looked at";
            warn("end_streams_with_session", hint);
        } else if !built.route.credentials.iter().any(of_session) {
            let hint = "`credentials` leaves sessions out here";
            warn("end_streams_with_session", hint);
        }
    }
    if given("forward_session") && !answers {
        if built.route.auth == Auth::Public {
            let hint = "on a public route credentials are not looked at";
            warn("forward_session", hint);
        } else if !built.route.credentials.iter().any(of_session) {
            warn("forward_session", "`credentials` leaves sessions out here");
        }
    }
}

/// What is declared and asked by nobody.
fn unused(config: &Config, routes: &[Built], root: &Root, reader: &Reader<'_>) {
    if routes.is_empty() {
        let hint = "add [[routes]]: without one every request gets 404";
        reader.warn("no-routes", &(0..0), "there are no routes", hint);
        return;
    }
    let target = |built: &Built| match built.route.target {
        Target::Upstream(at) => Some(at),
        _ => None,
    };
    let used: HashSet<usize> = routes.iter().filter_map(target).collect();
    for (at, one) in config.upstreams.iter().enumerate() {
        if !used.contains(&at) && !is_url(&one.name) {
            let place = root.place_in("upstreams", &one.name);
            let message = format!("no route uses the upstream `{}`", one.name);
            reader.warn(
                "unused-upstream",
                &place,
                message,
                "name it in a route's `upstream`, or remove it",
            );
        }
    }
    let limits = |built: &Built| match &built.route.rate_limits {
        RouteLimits::Add(limits) => limits.clone(),
        RouteLimits::None => Vec::new(),
    };
    let named: HashSet<usize> = routes.iter().flat_map(limits).collect();
    let tries_secrets = config
        .session
        .as_ref()
        .is_some_and(|session| session.tries_secrets(&config.providers));
    for (at, limit) in config.rate_limits.iter().enumerate() {
        if limit.applies_to == AppliesTo::Named && limit.rate.is_some() && !named.contains(&at) {
            let place = root.place_in("rate_limits", &limit.name);
            let message = format!("no route names the rate limit `{}`", limit.name);
            let hint = "name it in a route's `rate_limits`, or set `applies_to`";
            reader.warn("unused-rate-limit", &place, message, hint);
        }
        if limit.applies_to == AppliesTo::Login
            && limit.rate.is_some()
            && !tries_secrets
            && !named.contains(&at)
        {
            let place = root.place_in("rate_limits", &limit.name);
            let message = format!("nobody logs in where the rate limit `{}` holds", limit.name);
            let hint = "it needs [session] with `endpoints`, and a provider with `publishable_key`";
            reader.warn("no-effect", &place, message, hint);
        }
    }
}
