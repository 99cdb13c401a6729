//! The plan: what the file says of one route, compiled so that a request finds everything ready.

pub mod rewrite;
pub mod table;

use crate::authn::Accepts;
use crate::authz::Policy;
use crate::config::endpoint::Endpoint;
use crate::config::route::{
    AllowInPath, ForwardCookies, ForwardSession, HeaderChange, OnUnauthenticated,
};
use crate::config::server::SecurityHeaders;
use crate::upstream::Upstream;
use crate::{cors, limit};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use rewrite::Rewrite;
use std::sync::Arc;
use std::time::Duration;

/// One compiled route.
#[derive(Debug)]
pub struct Route {
    /// For logs and metrics.
    pub name: Arc<str>,
    /// What a preflight may ask for.
    pub preflight_methods: HeaderValue,
    /// What it does with a request that passed.
    pub target: Target,
    /// Which credentials count, and whether one is needed.
    pub accepts: Accepts,
    /// Who may.
    pub policy: Policy,
    /// Its rate limits.
    pub limits: limit::RouteLists,
    /// `None`: no CORS.
    pub cors: Option<cors::Rule>,
    /// What may stand in the path here.
    pub allow_in_path: AllowInPath,
    /// Bytes of a request body; `None`: unlimited.
    pub max_body: Option<u64>,
    /// Set where the upstream set none.
    pub security_headers: Arc<SecurityHeaders>,
    /// What goes upstream of a session.
    pub forward_session: ForwardSession,
    /// A public route whose credentials pass untouched.
    pub forward_credentials: bool,
    /// Other cookies.
    pub forward_cookies: ForwardCookies,
    /// Operator's changes of the request.
    pub request_headers: HeaderChange,
    /// Operator's changes of the answer.
    pub response_headers: HeaderChange,
    /// Authenticated answers may be stored by shared caches.
    pub cache_public: bool,
    /// Handshakes pass.
    pub websocket: bool,
    /// The CSRF rule holds also without a cookie: what a request does here, it does to the browser that sends it.
    pub csrf_always: bool,
    /// What lasts ends with the session that opened it.
    pub end_streams_with_session: bool,
    /// Where a browser without a session is sent.
    pub on_unauthenticated: OnUnauthenticated,
}

/// What a route does.
#[derive(Debug)]
pub enum Target {
    /// Forwards.
    Upstream(Box<Forward>),
    /// Answers with a redirect.
    Redirect {
        /// `Location`.
        to: HeaderValue,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode,
    },
    /// Answers with a fixed text.
    Respond {
        /// Any final status.
        status: StatusCode,
        /// The text.
        body: Bytes,
        /// `Content-Type`.
        content_type: HeaderValue,
    },
    /// A session endpoint.
    Endpoint(Endpoint),
}

/// How a route forwards.
#[derive(Debug)]
pub struct Forward {
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// Index of the upstream, for the metrics.
    pub index: usize,
    /// Put before the path.
    pub base_path: Arc<str>,
    /// What becomes of the path.
    pub rewrite: Rewrite,
    /// To the response head.
    pub timeout: Duration,
    /// Silence in the response body; event streams have at least an hour.
    pub idle_timeout: Duration,
    /// Further tries.
    pub retries: u32,
    /// What the upstream gets as `Host`.
    pub host: HostField,
    /// One hop or the chain in `X-Forwarded-For`.
    pub forwarded_for: crate::config::upstream::ForwardedFor,
}

/// What an upstream gets as `Host`.
#[derive(Clone, Debug)]
pub enum HostField {
    /// The client's.
    Client,
    /// That of the address which the pool picks.
    Endpoint,
    /// This.
    Fixed(HeaderValue),
}
