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

pub use crate::config::endpoint::Endpoint;
pub use answer::{Endpoints, Setup};
pub use attempt::is_attempt;
pub use revoke::{Pace, Revocable, Revocations};

use crate::exchange::{Identity, Reject, Verified};
use crate::headers::host::Host;
use crate::provider::supabase::Scope;
use crate::provider::{Browser, Grant};
use http::{HeaderMap, HeaderValue, Method};
use std::fmt;
use std::future::Future;
use std::sync::Arc;

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
    /// An error where it is not known whether the session lives on: nobody is told that it does not.
    ///
    /// What the provider must still hear: only of a session whose token is signed by it (it may be over), so that nobody
    /// can make us ask the provider with made-up tokens.
    fn end(
        &mut self,
        asked: &Asked<'_>,
        scope: Scope,
    ) -> impl Future<Output = Result<Option<Revocable>, Reject>> + Send;

    /// Lets nobody show codes whose last ones were made up, before the provider is asked: one address cannot use up what all
    /// logins share.
    fn may_try(&self, asked: &Asked<'_>) -> Result<(), Reject>;

    /// Counts a code that the provider did not give.
    fn made_up(&mut self, asked: &Asked<'_>);

    /// Counts an attempt on an account: its address as [`body::Account::key`] writes it.
    fn account_limit(&mut self, account: &str) -> Result<(), Reject>;

    /// A Set-Cookie field for the answer, whatever it will be.
    fn tell(&mut self, set_cookie: HeaderValue);
}
