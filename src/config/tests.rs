//! `[[tests]]`: tests of the policy, written by the operator.

use super::diagnostic::Place;
use crate::exchange::Credential;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTest {
    /// Where it stands, for the report.
    pub place: Place,
    pub method: Method,
    /// Path and query; with a host when the request was written as a URL.
    pub target: Arc<str>,
    pub host: Option<Arc<str>>,
    /// `None`: nobody.
    pub caller: Option<InventedCaller>,
    pub expect: Expect,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InventedCaller {
    pub user: Arc<str>,
    pub roles: Vec<Arc<str>>,
    pub scopes: Vec<Arc<str>>,
    pub claims: serde_json::Map<String, serde_json::Value>,
    /// `session` or `bearer` (`with`), or `api_key`.
    pub with: Credential,
    pub provider: Option<Arc<str>>,
}

/// What must hold; at least one of them is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// An answer of the gateway itself.
    pub status: Option<StatusCode>,
    pub upstream: Option<Arc<str>>,
    pub upstream_path: Option<Arc<str>>,
    pub route: Option<Arc<str>>,
    /// Headers the upstream would receive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
