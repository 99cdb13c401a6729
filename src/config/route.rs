//! `[[routes]]`.

use super::rate_limit::Cors;
use super::server::SecurityHeaders;
use super::value::{ClaimPath, HostPattern, PathPattern};
use crate::exchange::Credential;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// For logs and metrics; unique. Default: host and pattern.
    pub name: Arc<str>,
    pub paths: Vec<PathPattern>,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// `None`: every method. `GET` brings `HEAD`.
    pub methods: Option<Vec<Method>>,
    pub target: Target,
    pub path_change: PathChange,
    pub auth: Auth,
    pub forward_credentials: bool,
    /// Credentials accepted here.
    pub credentials: Vec<Accept>,
    pub several_credentials: Several,
    pub require: Require,
    pub forward_session: ForwardSession,
    pub on_unauthenticated: OnUnauthenticated,
    pub rate_limits: RouteLimits,
    /// Empty: anybody.
    pub client_ips: Vec<IpNet>,
    /// Outer `None`: `server.max_body`; inner `None`: unlimited.
    pub max_body: Option<Option<u64>>,
    pub timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub retries: Option<u32>,
    pub cors: RouteCors,
    /// `None`: the file's `[security_headers]`; `false` is an empty list.
    pub security_headers: Option<SecurityHeaders>,
    pub forward_cookies: ForwardCookies,
    pub request_headers: HeaderChange,
    pub response_headers: HeaderChange,
    pub cache_public: bool,
    pub allow_in_path: AllowInPath,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Index into `Config::upstreams` (a URL in a route becomes an upstream of its own).
    Upstream(usize),
    Redirect {
        to: Arc<str>,
        status: StatusCode,
    },
    Respond {
        status: StatusCode,
        body: Arc<str>,
        content_type: HeaderValue,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    Keep,
    /// `strip_prefix`: this prefix (no trailing slash) is cut off; what is left starts with `/`.
    Strip(Arc<str>),
    /// `rewrite`: literal text, `{name}` and `{*}` in order.
    Rewrite(Vec<RewritePart>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewritePart {
    Text(Arc<str>),
    /// A capture of the path pattern or the host.
    Capture(Arc<str>),
    /// `{*}`: what the prefix pattern's `*` matched.
    Rest,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    Required,
    Optional,
    Public,
}

/// `"session"`, `"bearer"`, `"api_key"`, or by source: `"bearer:main"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    pub credential: Credential,
    /// `None`: every source.
    pub source: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Several {
    All,
    Any,
}

/// All of it must hold; empty parts ask nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Require {
    pub any_role: Vec<Arc<str>>,
    pub all_scopes: Vec<Arc<str>>,
    pub aal: Option<Arc<str>>,
    pub provider: Vec<Arc<str>>,
    pub claims: Vec<(ClaimPath, Wanted)>,
}

/// What a claim must equal (a string) or contain (an array).
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// This value: a string, number or boolean.
    Value(serde_json::Value),
    /// A capture of the path or host: `"{tenant}"`.
    Capture(Arc<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardSession {
    Bearer,
    Cookies,
    Both,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnauthenticated {
    Status401,
    Login,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteLimits {
    /// Indexes into `Config::rate_limits`, added to those that apply anyway.
    Add(Vec<usize>),
    /// `false`.
    None,
}

#[derive(Clone, Debug, PartialEq)]
pub enum RouteCors {
    /// The file's `[cors]`.
    Inherit,
    /// `false`.
    Off,
    Own(Cors),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardCookies {
    All,
    None,
    Named(Vec<Arc<str>>),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderChange {
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub remove: Vec<HeaderName>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowInPath {
    pub encoded_slash: bool,
    pub double_encoding: bool,
    pub params: bool,
    pub case: bool,
}
