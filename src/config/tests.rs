//! `[[tests]]`: tests of the policy, written by the operator.

use super::diagnostic::Place;
use crate::exchange::Credential;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::sync::Arc;

/// A request, who makes it, and what must come of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTest {
    /// Where it stands, for the report.
    pub place: Place,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: Arc<str>,
    /// The host, when the request was written as a URL.
    pub host: Option<Arc<str>>,
    /// `None`: nobody.
    pub caller: Option<InventedCaller>,
    pub expect: Expect,
}

/// Somebody who does not exist.
#[derive(Clone, Debug, PartialEq)]
pub struct InventedCaller {
    /// User id; default `test-user`.
    pub user: Arc<str>,
    /// Roles.
    pub roles: Vec<Arc<str>>,
    /// Scopes.
    pub scopes: Vec<Arc<str>>,
    /// Further claims.
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// `session` or `bearer` (`with`), or `api_key`.
    pub with: Credential,
    /// Whose credential. `None`: the session's provider, or the first.
    pub provider: Option<Arc<str>>,
}

/// What must hold; at least one of them is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// An answer of the gateway itself.
    pub status: Option<StatusCode>,
    /// Name of the upstream that is asked.
    pub upstream: Option<Arc<str>>,
    /// Path and query with which it is asked.
    pub upstream_path: Option<Arc<str>>,
    /// Name of the route that matches.
    pub route: Option<Arc<str>>,
    /// Headers the upstream would receive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
