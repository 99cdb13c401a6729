//! `[rate_limits.*]` and `[cors]`.

use super::value::{LimitBy, Origin, Rate};
use http::{HeaderName, Method};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    pub name: Arc<str>,
    /// `None`: `"off"`.
    pub rate: Option<Rate>,
    /// Default: the count of `rate`.
    pub burst: NonZeroU32,
    /// At least one part.
    pub by: Vec<LimitBy>,
    pub applies_to: AppliesTo,
    pub count: Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppliesTo {
    Named,
    Protected,
    All,
    Login,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Requests,
    /// Only credentials that did not verify.
    Failures,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    pub allow_origins: AllowOrigins,
    /// `None`: the route's.
    pub allow_methods: Option<Vec<Method>>,
    pub allow_headers: Vec<HeaderName>,
    pub expose_headers: Vec<HeaderName>,
    /// `None`: true for origins in `session.trusted_origins`, else false.
    pub allow_credentials: Option<bool>,
    pub max_age: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AllowOrigins {
    Any,
    List(Vec<Origin>),
}
