//! `[[routes]]`.

use super::endpoint::Endpoint;
use super::rate_limit::Cors;
use super::server::SecurityHeaders;
use super::value::{ClaimPath, HostPattern, PathPattern};
use crate::exchange::Credential;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use std::sync::Arc;
use std::time::Duration;

/// What happens to the requests that match.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// For logs and metrics; unique. Default: host and pattern.
    pub name: Arc<str>,
    /// An endpoint of ours at its own address, which stands in no file.
    pub ours: bool,
    /// At least one.
    pub paths: Vec<PathPattern>,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// `None`: every method. `GET` brings `HEAD`.
    pub methods: Option<Vec<Method>>,
    /// Who answers.
    pub target: Target,
    /// How the path changes on its way to the upstream; default not at all.
    pub path_change: PathChange,
    /// Whether a credential is needed; default required.
    pub auth: Auth,
    /// On a public route: credentials pass unverified; default false.
    pub forward_credentials: bool,
    /// Credentials accepted here; default all. Others are removed unread.
    pub credentials: Vec<Accept>,
    /// When Bearer and key come together; default all.
    pub several_credentials: Several,
    /// What a caller must have, else 403; default nothing.
    pub require: Require,
    /// What the upstream gets of a session; default the Bearer token.
    pub forward_session: ForwardSession,
    /// What a browser without a credential gets; default 401.
    pub on_unauthenticated: OnUnauthenticated,
    /// Policies added here.
    pub rate_limits: RouteLimits,
    /// Networks that may ask; others get 403. Empty: anybody.
    pub client_ips: Vec<IpNet>,
    /// Largest request body in bytes. Outer `None`: `server.max_body`; inner `None`: unlimited.
    pub max_body: Option<Option<u64>>,
    /// Time to the response head. `None`: the upstream's.
    pub timeout: Option<Duration>,
    /// Silence allowed in a response body. `None`: the upstream's.
    pub idle_timeout: Option<Duration>,
    /// Further tries. `None`: the upstream's.
    pub retries: Option<u32>,
    /// CORS here.
    pub cors: RouteCors,
    /// `None`: the file's `[security_headers]`; `false` is an empty list.
    pub security_headers: Option<SecurityHeaders>,
    /// Which cookies besides session cookies pass; default all.
    pub forward_cookies: ForwardCookies,
    /// Headers set or removed on the way to the upstream.
    pub request_headers: HeaderChange,
    /// Headers set or removed on the way back.
    pub response_headers: HeaderChange,
    /// `cache = "public"`: shared caches may keep answers even when an identity was used; default false.
    pub cache_public: bool,
    /// WebSocket handshakes and other upgrades pass; default true.
    pub websocket: bool,
    /// WebSockets, event streams and other long answers end when the session does that opened them; default true.
    pub end_streams_with_session: bool,
    /// Ambiguities of a path that are let through here; default none.
    pub allow_in_path: AllowInPath,
}

impl Route {
    /// A route that no file has: an endpoint of ours at its own address. Everything else is as by default.
    pub(super) fn of_ours(endpoint: Endpoint, path: PathPattern) -> Self {
        let method = endpoint.method();
        let auth = match endpoint.needs_caller() {
            true => Auth::Required,
            false => Auth::Public,
        };
        Self {
            // Two endpoints may have one path, and each has a name of its own.
            name: match endpoint {
                Endpoint::Nothing => path.text.clone(),
                _ => format!("{method} {}", path.text).into(),
            },
            ours: true,
            paths: vec![path],
            hosts: Vec::new(),
            methods: (endpoint != Endpoint::Nothing).then(|| vec![method]),
            target: Target::Endpoint(endpoint),
            path_change: PathChange::Keep,
            auth,
            forward_credentials: false,
            credentials: [Credential::Session, Credential::Bearer, Credential::ApiKey]
                .map(|credential| Accept {
                    credential,
                    source: None,
                })
                .into(),
            several_credentials: Several::All,
            require: Require::default(),
            forward_session: ForwardSession::None,
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
            websocket: false,
            end_streams_with_session: true,
            allow_in_path: AllowInPath::default(),
        }
    }
}

/// Who answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// Index into `Config::upstreams` (a URL in a route becomes an upstream of its own).
    Upstream(usize),
    /// A redirect, as it stands.
    Redirect {
        /// `Location`.
        to: Arc<str>,
        /// 301, 302, 303, 307 or 308; default 302.
        status: StatusCode,
    },
    /// A fixed answer.
    Respond {
        /// Default 200.
        status: StatusCode,
        /// Default empty.
        body: Arc<str>,
        /// Default `text/plain; charset=utf-8`.
        content_type: HeaderValue,
    },
    /// An endpoint of ours, at a path of the operator's.
    Endpoint(Endpoint),
}

/// How the path changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// Not at all.
    Keep,
    /// `strip_prefix`: this prefix (no trailing slash) is cut off; what is left starts with `/`.
    Strip(Arc<str>),
    /// `rewrite`: literal text, `{name}` and `{*}` in order.
    Rewrite(Vec<RewritePart>),
}

/// One part of a rewritten path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RewritePart {
    /// As it stands.
    Text(Arc<str>),
    /// A capture of the path pattern or the host.
    Capture(Arc<str>),
    /// `{*}`: what the prefix pattern's `*` matched.
    Rest,
}

/// Whether a credential is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Nobody passes without one.
    Required,
    /// Nobody, or somebody; a wrong explicit credential is refused.
    Optional,
    /// Credentials are not looked at.
    Public,
}

/// `"session"`, `"bearer"`, `"api_key"`, or by source: `"bearer:main"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept {
    /// Which kind.
    pub credential: Credential,
    /// `None`: every source.
    pub source: Option<Arc<str>>,
}

/// When several explicit credentials come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Several {
    /// Each must verify, for the same user.
    All,
    /// One that verifies is enough.
    Any,
}

/// All of it must hold; empty parts ask nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Require {
    /// One of these roles.
    pub any_role: Vec<Arc<str>>,
    /// All of these scopes.
    pub all_scopes: Vec<Arc<str>>,
    /// `aal1`, `aal2` or `aal3`.
    pub aal: Option<Arc<str>>,
    /// A credential of one of these providers.
    pub provider: Vec<Arc<str>>,
    /// All of these claims.
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

/// What the upstream gets of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardSession {
    /// `Authorization: Bearer`.
    Bearer,
    /// The cookies, as refreshed in this exchange.
    Cookies,
    /// Both of them.
    Both,
    /// Neither.
    None,
}

/// What a browser without a credential gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnauthenticated {
    /// 401.
    Status401,
    /// A top-level navigation is redirected to `session.login_url`, everything else gets 401.
    Login,
}

/// Rate limits of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteLimits {
    /// Indexes into `Config::rate_limits`, added to those that apply anyway.
    Add(Vec<usize>),
    /// `false`: none at all, not even those that apply anyway.
    None,
}

/// CORS of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteCors {
    /// The file's `[cors]`.
    Inherit,
    /// `false`.
    Off,
    /// The route's own.
    Own(Cors),
}

/// Which cookies pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardCookies {
    /// All but session cookies.
    All,
    /// None.
    None,
    /// These.
    Named(Vec<Arc<str>>),
}

/// Headers to set and to remove.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderChange {
    /// Replaces whatever is there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Taken away, before `set`.
    pub remove: Vec<HeaderName>,
}

/// Ambiguities that are let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllowInPath {
    /// `%2F` and `%5C`.
    pub encoded_slash: bool,
    /// `%25` and two hexadecimal digits.
    pub double_encoding: bool,
    /// `;`
    pub params: bool,
    /// A path that only with its case folded would match a more specific route.
    pub case: bool,
}
