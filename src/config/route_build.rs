//! From the keys of a route to a route: names become indexes, contradictions are told.

use super::check;
use super::decode::{At, Either};
use super::diagnostic::{Place, WARNINGS, suggest};
use super::rate_limit::RateLimit;
use super::read::{Entries, Reader};
use super::route::{
    AllowInPath, ForwardCookies, HeaderChange, Require, Route, RouteCors, RouteLimits, Target,
};
use super::route_auth::require;
use super::route_keys::{Ambiguity, HeaderChangeKeys, RouteKeys};
use super::route_path::Captures;
use super::server::{SecurityHeaders, header_map, lay_over};
use super::upstream::Upstream;
use super::value::{HostPattern, LimitBy, PathPattern};
use http::{HeaderName, Method};
use std::sync::Arc;

/// What a route may name.
pub(super) struct Known<'a> {
    /// Grows when a route names a URL.
    pub(super) upstreams: Vec<Upstream>,
    /// Names of the tables, also of those that could not be read.
    pub(super) upstream_names: Vec<&'a str>,
    pub(super) limits: &'a [RateLimit],
    pub(super) limit_names: Vec<&'a str>,
    pub(super) provider_names: Vec<&'a str>,
    /// Whether there is a `[session]`, right or wrong.
    pub(super) session: bool,
    pub(super) security_headers: &'a SecurityHeaders,
    pub(super) identity_headers: Vec<HeaderName>,
}

/// A route and where its parts stand.
pub(super) struct Built {
    pub(super) route: Route,
    pub(super) entries: Entries,
    pub(super) paths: Vec<At<()>>,
    pub(super) allowed: Vec<String>,
    /// Whether `name` was given.
    pub(super) named: bool,
}

impl Built {
    /// A warning, unless the route allows it.
    pub(super) fn warn(
        &self,
        reader: &Reader<'_>,
        id: &'static str,
        key: &str,
        message: &str,
        hint: &str,
    ) {
        if !self.allowed.iter().any(|allowed| allowed == id) {
            reader.warn(id, &self.entries.key_place(key), message, hint);
        }
    }
}

impl RouteKeys {
    pub(super) fn build(
        self,
        entries: &Entries,
        known: &mut Known<'_>,
        reader: &Reader<'_>,
    ) -> Option<Built> {
        for (key, empty) in [
            ("path", self.path.is_empty()),
            ("host", self.host.as_ref().is_some_and(Vec::is_empty)),
            ("methods", self.methods.as_ref().is_some_and(Vec::is_empty)),
            (
                "credentials",
                self.credentials.as_ref().is_some_and(Vec::is_empty),
            ),
            (
                "client_ips",
                self.client_ips.as_ref().is_some_and(Vec::is_empty),
            ),
        ] {
            if empty {
                let hint = "name at least one, or leave the key out";
                reader.error(
                    "empty-list",
                    &entries.value_place(key),
                    format!("`{key}` is empty"),
                    hint,
                );
            }
        }
        let target = self.target(entries, known, reader);
        let paths: Vec<PathPattern> = self.path.iter().map(|path| path.value.clone()).collect();
        let hosts: Vec<HostPattern> = self
            .host
            .iter()
            .flatten()
            .map(|host| host.value.clone())
            .collect();
        let captures = Captures {
            paths: &paths,
            hosts: &hosts,
            known: self.captures_known(),
            literal: self.path.iter().all(|path| path.literal)
                && self.host.iter().flatten().all(|host| host.literal),
        };
        let path_change = self.path_change(entries, &captures, reader);
        self.check_auth(entries, known, reader);
        let require = match &self.require {
            Some((keys, own)) => require(keys, own, &captures, known, reader),
            None => Require::default(),
        };
        let rate_limits = match &self.rate_limits {
            Either::Flag(false) => RouteLimits::None,
            Either::Flag(true) => {
                let hint = "write the names in brackets, or false for none";
                reader.error(
                    "bad-value",
                    &entries.value_place("rate_limits"),
                    "`rate_limits` must be a list of names, or false",
                    hint,
                );
                RouteLimits::Add(Vec::new())
            }
            Either::Other(names) => RouteLimits::Add(
                names
                    .iter()
                    .filter_map(|name| limit(name, known, reader))
                    .collect(),
            ),
        };
        let credentials = self.credentials(known, reader);
        let cors = match self.cors {
            None => RouteCors::Inherit,
            Some(Either::Flag(false)) => RouteCors::Off,
            Some(Either::Flag(true)) => {
                let hint = "write a table like `[cors]`, or false; leave the key out for `[cors]`";
                reader.error(
                    "bad-value",
                    &entries.value_place("cors"),
                    "`cors` must be a table, or false",
                    hint,
                );
                RouteCors::Inherit
            }
            Some(Either::Other((cors, own))) => RouteCors::Own(cors.checked(&own, reader)),
        };
        let security_headers = match &self.security_headers {
            None => None,
            Some(Either::Flag(false)) => Some(Vec::new()),
            Some(Either::Flag(true)) => Some(known.security_headers.clone()),
            Some(Either::Other(own)) => Some(lay_over(known.security_headers, own, reader)),
        };
        let response = |name: &HeaderName| check::set_by_us_on_responses(name.as_str());
        let identity = known.identity_headers.clone();
        let request = |name: &HeaderName| check::set_by_us_on_requests(name.as_str(), &identity);
        let default_name = default_name(&paths, &hosts);
        let named = self.name.is_some();
        let route = Route {
            name: self.name.map_or(default_name, |name| name.value.into()),
            hosts,
            methods: match &target {
                Some(Target::Endpoint(_)) if self.methods.is_none() => Some(vec![Method::GET]),
                _ => self.methods,
            },
            target: target?,
            path_change,
            auth: self.auth,
            forward_credentials: self.forward_credentials,
            credentials,
            several_credentials: self.several_credentials,
            require,
            forward_session: self.forward_session,
            on_unauthenticated: self.on_unauthenticated,
            rate_limits,
            client_ips: self.client_ips.unwrap_or_default(),
            max_body: self.max_body,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            retries: self.retries,
            cors,
            security_headers,
            forward_cookies: match self.forward_cookies {
                Either::Flag(true) => ForwardCookies::All,
                Either::Flag(false) => ForwardCookies::None,
                Either::Other(names) => ForwardCookies::Named(names),
            },
            request_headers: header_change(self.request_headers, request, reader),
            response_headers: header_change(self.response_headers, response, reader),
            cache_public: self.cache,
            websocket: self.websocket,
            end_streams_with_session: self.end_streams_with_session,
            allow_in_path: AllowInPath {
                encoded_slash: self.allow_in_path.contains(&Ambiguity::EncodedSlash),
                double_encoding: self.allow_in_path.contains(&Ambiguity::DoubleEncoding),
                params: self.allow_in_path.contains(&Ambiguity::Params),
                case: self.allow_in_path.contains(&Ambiguity::Case),
            },
            ours: false,
            paths,
        };
        for lint in &self.allow_lints {
            known_lint(lint.value.as_str(), &lint.place, lint.literal, reader);
        }
        let paths = self.path.into_iter().map(|path| At {
            value: (),
            place: path.place,
            shown: path.shown,
            known: path.known,
            literal: path.literal,
        });
        let allowed = self
            .allow_lints
            .into_iter()
            .map(|lint| lint.value)
            .collect();
        Some(Built {
            route,
            entries: entries.clone(),
            paths: paths.collect(),
            allowed,
            named,
        })
    }

    fn captures_known(&self) -> bool {
        self.path.iter().all(|path| path.known) && self.host.iter().flatten().all(|host| host.known)
    }
}

/// Whether a name may stand in `[lints]` or `allow_lints`.
pub(super) fn known_lint(name: &str, place: &Place, literal: bool, reader: &Reader<'_>) {
    if !WARNINGS.contains(&name) {
        let hint = if literal {
            suggest(name, WARNINGS.iter().copied())
        } else {
            String::new()
        };
        reader.error(
            "unknown-lint",
            place,
            "there is no warning of this name",
            hint,
        );
    }
}

fn limit(name: &At<String>, known: &Known<'_>, reader: &Reader<'_>) -> Option<usize> {
    // What is counted by account has a meaning only where somebody logs in.
    let by_account = |limit: &RateLimit| limit.by.contains(&LimitBy::Account);
    let found = known
        .limits
        .iter()
        .position(|limit| *limit.name == *name.value && !by_account(limit));
    if found.is_none() && name.known && !known.limit_names.contains(&name.value.as_str()) {
        let hint = match name.suggest(known.limit_names.iter().copied()) {
            hint if hint.is_empty() => "add [rate_limits.NAME]".into(),
            hint => hint,
        };
        reader.error(
            "unknown-rate-limit",
            &name.place,
            format!("there is no rate limit `{}`", name.shown),
            hint,
        );
    }
    found
}

fn header_change(
    given: Option<(HeaderChangeKeys, Entries)>,
    reserved: impl Fn(&HeaderName) -> Option<&'static str>,
    reader: &Reader<'_>,
) -> HeaderChange {
    let Some((keys, _)) = given else {
        return HeaderChange::default();
    };
    let mut change = HeaderChange::default();
    for (name, mut value) in keys
        .set
        .iter()
        .flat_map(|entries| header_map(entries, reader))
    {
        if let Some(why) = reserved(&name.value) {
            reader.error(
                "reserved-header",
                &name.place,
                format!("`{}` cannot be set here", name.shown),
                why,
            );
        }
        value.set_sensitive(true);
        change.set.push((name.value, value));
    }
    for name in keys.remove.into_iter().filter(|name| name.known) {
        if let Some(why) = reserved(&name.value) {
            reader.error(
                "reserved-header",
                &name.place,
                format!("`{}` cannot be removed here", name.shown),
                why,
            );
        }
        change.remove.push(name.value);
    }
    change
}

fn default_name(paths: &[PathPattern], hosts: &[HostPattern]) -> Arc<str> {
    let path = paths.first().map_or("", |path| &*path.text);
    match hosts.first() {
        None => path.into(),
        Some(HostPattern::Exact(name)) => format!("{name}{path}").into(),
        Some(HostPattern::Wildcard { suffix }) => format!("*{suffix}{path}").into(),
        Some(HostPattern::Capture { name, suffix }) => format!("{{{name}}}{suffix}{path}").into(),
    }
}
