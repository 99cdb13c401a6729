//! `[session]`.

use super::value::Origin;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    pub mode: SessionMode,
    /// Index into `Config::providers`.
    pub provider: usize,
    pub login_url: Arc<str>,
    pub trusted_origins: Vec<Origin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionMode {
    /// The provider's own cookies.
    Shared,
}
