//! The session endpoints (contract, section 5): people log in, sign up, log out and ask who they are, at addresses of
//! ours. Knows neither the gateway nor its routes, nor where sessions are kept: the line asks before it comes here (limits,
//! CSRF, who calls), and [`Sessions`] opens, renews and ends. No answer from here holds a token, and none may be stored.

mod answer;
mod attempt;
pub mod body;
mod confirm;
mod elsewhere;
mod login;
mod query;
mod refusal;
mod reply;
pub mod return_to;
mod revoke;
mod view;

pub use answer::{Endpoints, Setup};
pub use attempt::is_attempt;
pub use revoke::{Pace, Revocable, Revocations};

use crate::config::provider::ProviderKind;
use crate::exchange::{Identity, Reject, Verified};
use crate::headers::host::Host;
use crate::provider::supabase::Scope;
use crate::provider::{Browser, Grant};
use http::{HeaderMap, HeaderValue, Method};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// One address below `session.endpoints`, with its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An address and a password for a session.
    Login,
    /// A new user.
    Signup,
    /// Sends a one-time code or link.
    Otp,
    /// What was sent, for a session.
    Verify,
    /// The page behind a link in a message, whose button goes to `Verify`.
    Confirm,
    /// To a login elsewhere (PKCE).
    Start,
    /// Back from there.
    Callback,
    /// Who am I.
    Session,
    /// Renews the session now.
    Refresh,
    /// Ends it.
    Logout,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Login,
        Self::Signup,
        Self::Otp,
        Self::Verify,
        Self::Confirm,
        Self::Start,
        Self::Callback,
        Self::Session,
        Self::Refresh,
        Self::Logout,
    ];

    /// Its path below `session.endpoints`. `Login` and `Start` share one.
    pub fn tail(self) -> &'static str {
        match self {
            Self::Login | Self::Start => "/login",
            Self::Signup => "/signup",
            Self::Otp => "/otp",
            Self::Verify => "/verify",
            Self::Confirm => "/confirm",
            Self::Callback => "/callback",
            Self::Session => "/session",
            Self::Refresh => "/refresh",
            Self::Logout => "/logout",
        }
    }

    /// `GET` or `POST`. Every `POST` goes through the CSRF check, also without a cookie: a page that is not ours must not
    /// be able to log its visitors in or out.
    pub fn method(self) -> Method {
        match self {
            Self::Confirm | Self::Start | Self::Callback | Self::Session => Method::GET,
            Self::Login
            | Self::Signup
            | Self::Otp
            | Self::Verify
            | Self::Refresh
            | Self::Logout => Method::POST,
        }
    }

    /// Whether the limits for logins count it: a secret is tried, or the provider is asked, for somebody who has proven
    /// nothing. `Callback`, too: codes can be made up, and each asks the provider.
    pub fn tries_secrets(self) -> bool {
        !matches!(self, Self::Session | Self::Refresh | Self::Logout)
    }

    /// Whether it reads a body, of at most [`body::BYTES_MAX`]. All others leave it alone.
    pub fn reads_body(self) -> bool {
        matches!(self, Self::Login | Self::Signup | Self::Otp | Self::Verify)
    }

    /// Whether only a session gets an answer: the line proves the caller first.
    pub fn needs_caller(self) -> bool {
        self == Self::Session
    }

    /// Whether a provider of this kind can serve it. `clears`: the session's cookies are ours to take away, which those of
    /// a bare token that somebody else has set are not.
    ///
    /// A Supabase project without its key can be asked for nothing, but whoever wants to log out must not be kept in.
    pub fn exists(self, kind: &ProviderKind, clears: bool) -> bool {
        match kind {
            ProviderKind::Supabase {
                publishable_key: Some(_),
                ..
            } => true,
            ProviderKind::Supabase { .. } | ProviderKind::Jwt => {
                self == Self::Session || (self == Self::Logout && clears)
            }
        }
    }
}

/// A request to an endpoint, after the line has let it through.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its header fields.
    pub headers: &'a HeaderMap,
    /// Its query, undecoded.
    pub query: Option<&'a str>,
    /// Its whole body; empty where [`Endpoint::reads_body`] is false.
    pub body: &'a [u8],
    /// What the provider may know of who sent it.
    pub browser: Browser,
    /// The admitted host.
    pub host: &'a Host<'a>,
    /// Whether the client's own connection is TLS.
    pub secure: bool,
    /// Who calls, if the line has proven it.
    pub caller: Option<&'a Identity>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("method", self.method)
            .field("host", &self.host.authority)
            .finish_non_exhaustive()
    }
}

/// What the endpoints ask of wherever sessions are kept, for one request.
pub trait Sessions: Send {
    /// Puts a new session into the browser: the grant's token verified, its cookies told, and whatever session the browser
    /// had before is none any more (no value planted before a login becomes a session).
    fn open(
        &mut self,
        grant: Grant,
        asked: &Asked<'_>,
    ) -> impl Future<Output = Result<Arc<Verified>, Reject>> + Send;

    /// Renews the session of the request, old or not, and tells its cookies; also those that remove one that is over. One
    /// that was renewed a moment ago need not be renewed again: a browser must not be able to use up what all sessions
    /// share of the provider.
    fn renew(
        &mut self,
        asked: &Asked<'_>,
    ) -> impl Future<Output = Result<Arc<Verified>, Reject>> + Send;

    /// Lets nobody in with the session of the request any more, and tells the removal of every cookie of it, whatever they
    /// hold. With [`Scope::Others`] it is the other way round: this session goes on, and is renewed when it is over.
    ///
    /// What the provider must still hear: only of a session whose token is signed by it (it may be over), so that nobody
    /// can make us ask the provider with made-up tokens.
    fn end(
        &mut self,
        asked: &Asked<'_>,
        scope: Scope,
    ) -> impl Future<Output = Option<Revocable>> + Send;

    /// Counts an attempt on an account: its address as [`body::Account::key`] writes it.
    fn account_limit(&mut self, account: &str) -> Result<(), Reject>;

    /// A Set-Cookie field for the answer, whatever it will be.
    fn tell(&mut self, set_cookie: HeaderValue);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use std::collections::HashSet;

    #[test]
    fn no_two_endpoints_answer_the_same_request() {
        let places: HashSet<_> = Endpoint::ALL.map(|e| (e.method(), e.tail())).into();
        assert_eq!(places.len(), Endpoint::ALL.len());
    }

    #[test]
    fn only_what_the_provider_can_serve_exists() {
        let supabase = |key: Option<&str>| ProviderKind::Supabase {
            auth_api: "https://xyz.supabase.co/auth/v1".parse().unwrap(),
            publishable_key: key.map(|key| Secret::new(key.to_owned())),
            anonymous_users: false,
            service_role: false,
        };
        let found = |kind: &ProviderKind, clears| {
            let all = Endpoint::ALL.into_iter();
            all.filter(|e| e.exists(kind, clears)).collect::<Vec<_>>()
        };
        let (session, logout) = (Endpoint::Session, Endpoint::Logout);
        assert_eq!(found(&supabase(Some("k")), true), Endpoint::ALL);
        assert_eq!(found(&supabase(None), true), [session, logout]);
        assert_eq!(found(&ProviderKind::Jwt, false), [session]);
        assert_eq!(found(&ProviderKind::Jwt, true), [session, logout]);
    }

    #[test]
    fn what_reads_a_body_is_a_post_and_tries_secrets() {
        for endpoint in Endpoint::ALL {
            if endpoint.reads_body() {
                assert_eq!(endpoint.method(), Method::POST);
                assert!(endpoint.tries_secrets());
            }
        }
        for endpoint in [Endpoint::Confirm, Endpoint::Start, Endpoint::Callback] {
            assert!(endpoint.tries_secrets());
        }
    }
}
