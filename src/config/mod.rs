//! The operator's words: pure data, no sockets, no clients. What is here has been validated; nothing below asks again.

pub mod diagnostic;
pub mod provider;
pub mod rate_limit;
pub mod route;
pub mod server;
pub mod session;
pub mod tests;
pub mod upstream;
pub mod value;

use http::HeaderName;
use std::sync::Arc;

/// A whole file, validated.
#[derive(Clone, Debug)]
pub struct Config {
    pub server: server::Server,
    pub admin: server::Admin,
    pub log: server::Log,
    /// In the order of the file.
    pub providers: Vec<provider::Provider>,
    pub session: Option<session::Session>,
    /// In the order of the file; then those that routes name by URL.
    pub upstreams: Vec<upstream::Upstream>,
    /// In the order of the file; the built-in ones that no policy replaced come last.
    pub rate_limits: Vec<rate_limit::RateLimit>,
    pub cors: Option<rate_limit::Cors>,
    pub identity_headers: Vec<(HeaderName, value::IdentityValue)>,
    pub security_headers: server::SecurityHeaders,
    pub routes: Vec<route::Route>,
    pub tests: Vec<tests::PolicyTest>,
    /// Warnings, already rendered.
    pub warnings: Vec<Arc<str>>,
}
