//! Routes written in one line.

use super::super::*;
use crate::config::route::{
    AllowInPath, Auth, ForwardCookies, ForwardSession, HeaderChange, OnUnauthenticated, PathChange,
    Require, RouteCors, RouteLimits, Several, Target,
};

pub(super) fn path_pattern(text: &str) -> PathPattern {
    let (body, prefix) = text
        .strip_suffix("/*")
        .map_or((text, false), |body| (body, true));
    let segments = body
        .split('/')
        .skip(1)
        .filter(|segment| !segment.is_empty())
        .map(|segment| {
            match segment
                .strip_prefix('{')
                .and_then(|name| name.strip_suffix('}'))
            {
                Some(name) => Segment::Param(name.into()),
                None => Segment::Literal(segment.into()),
            }
        });
    PathPattern {
        text: text.into(),
        segments: segments.collect(),
        prefix,
    }
}

pub(super) fn host_pattern(text: &str) -> HostPattern {
    match (
        text.strip_prefix('*'),
        text.strip_prefix('{').and_then(|rest| rest.split_once('}')),
    ) {
        (Some(suffix), _) => HostPattern::Wildcard {
            suffix: suffix.into(),
        },
        (_, Some((name, suffix))) => HostPattern::Capture {
            name: name.into(),
            suffix: suffix.into(),
        },
        _ => HostPattern::Exact(text.into()),
    }
}

/// `"GET,POST host /path /path"`; methods `ANY` are all, host `-` is any, a leading `~` allows another case.
pub(super) fn route(text: &str) -> Route {
    let (text, case) = text
        .strip_prefix('~')
        .map_or((text, false), |text| (text, true));
    let mut words = text.split(' ');
    let methods = words.next().unwrap();
    let host = words.next().unwrap();
    Route {
        ours: false,
        name: text.into(),
        paths: words.map(path_pattern).collect(),
        hosts: if host == "-" {
            Vec::new()
        } else {
            host.split(',').map(host_pattern).collect()
        },
        methods: (methods != "ANY").then(|| {
            methods
                .split(',')
                .map(|method| method.parse().unwrap())
                .collect()
        }),
        target: Target::Upstream(0),
        path_change: PathChange::Keep,
        auth: Auth::Required,
        forward_credentials: false,
        credentials: Vec::new(),
        several_credentials: Several::All,
        require: Require::default(),
        forward_session: ForwardSession::Bearer,
        on_unauthenticated: OnUnauthenticated::Status401,
        rate_limits: RouteLimits::Add(Vec::new()),
        client_ips: Vec::new(),
        max_body: None,
        timeout: None,
        idle_timeout: None,
        retries: None,
        cors: RouteCors::Inherit,
        security_headers: None,
        forward_cookies: ForwardCookies::All,
        request_headers: HeaderChange::default(),
        response_headers: HeaderChange::default(),
        cache_public: false,
        websocket: true,
        end_streams_with_session: true,
        allow_in_path: AllowInPath {
            case,
            ..AllowInPath::default()
        },
    }
}

pub(super) fn build(routes: &[&str]) -> Result<Table, Vec<Conflict>> {
    let routes: Vec<Route> = routes.iter().map(|text| route(text)).collect();
    Table::build(routes.iter().enumerate())
}
