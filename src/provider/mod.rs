//! Whom people log in with: the calls to a provider's own API that open, renew and end sessions, and what its answers mean.
//! Never verifies a token and never sees a cookie; all calls run on the control runtime, each with one deadline, and go on
//! when whoever asked has gone.

mod budget;
mod error;
mod lease;
mod random;
mod refreshes;
pub mod supabase;

pub use budget::{ProviderBudget, Purpose};
pub use error::{Code, LoginError, LogoutError, RefreshError};
pub use random::NoRandomness;
pub(crate) use random::bytes as random_bytes;
pub use refreshes::Refreshes;

use crate::base::secret::Secret;
use http::HeaderValue;
use std::fmt;
use std::net::IpAddr;

/// The browser a call is made for, as far as its provider may know.
#[derive(Clone, Default)]
pub struct Browser {
    /// Its `User-Agent`, which providers keep with the session.
    pub user_agent: Option<HeaderValue>,
    /// Its address, after the trusted proxies.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for Browser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Browser")
    }
}

/// What a provider gives for a session that is opened or renewed. Nothing of it is verified.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    /// The session's JSON, the provider's own text byte for byte, with `expires_at` if that was missing: what the
    /// provider's own library would keep.
    pub text: Secret<String>,
    /// The new access token.
    pub access_token: Secret<String>,
    /// What renews it next time.
    pub refresh_token: Secret<String>,
    /// When the provider says that the access token is over, in Unix seconds. What counts is the `exp` that verifies.
    pub expires_at: u64,
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
