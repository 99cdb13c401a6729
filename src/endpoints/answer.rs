//! The endpoints of one configuration, and which of them does what.

use super::elsewhere::Home;
use super::return_to::{Here, Location, Places};
use super::revoke::Revocations;
use super::{Asked, Endpoint, Sessions, query, refusal, reply};
use crate::base::body::Body;
use crate::base::clock::Clock;
use crate::config::value::Origin;
use crate::exchange::{Code, Reject};
use crate::provider::supabase::{Scope, Supabase};
use crate::session::view::view;
use http::{HeaderValue, Method, Response};
use std::sync::Arc;

/// What endpoints are made of.
#[derive(Debug)]
pub struct Setup<'a> {
    /// `session.endpoints`: a path, such as `/.auth`.
    pub base: &'a str,
    /// `server.public_url`.
    pub ours: &'a [Origin],
    /// `session.trusted_origins`.
    pub trusted: &'a [Origin],
    /// `session.login_url`: a path of ours, or a URL.
    pub login_url: &'a str,
    /// `session.after_login`: the same.
    pub after_login: &'a str,
    /// Whom people log in with. `None`: nobody can here, and only `Session` and `Logout` may be asked.
    pub provider: Option<Arc<Supabase>>,
    /// To be kept over reloads.
    pub revocations: Arc<Revocations>,
    /// Judges the age of what a browser keeps for us.
    pub clock: Clock,
}

/// The session endpoints of one configuration.
#[derive(Debug)]
pub struct Endpoints {
    pub(super) base: Box<str>,
    pub(super) homes: Box<[Home]>,
    pub(super) places: Places,
    pub(super) login_url: Location,
    pub(super) clock: Clock,
    provider: Option<Arc<Supabase>>,
    revocations: Arc<Revocations>,
}

impl Endpoints {
    /// Prepares what does not differ from request to request.
    pub fn new(setup: Setup<'_>) -> Self {
        let base = setup.base.trim_end_matches('/');
        Self {
            homes: setup
                .ours
                .iter()
                .filter_map(|origin| Home::new(origin, base))
                .collect(),
            places: Places::compile(setup.ours, setup.trusted, setup.after_login),
            login_url: Location::of_operator(setup.login_url),
            clock: setup.clock,
            provider: setup.provider,
            revocations: setup.revocations,
            base: base.into(),
        }
    }

    /// Answers a request that the line has let through: within the limits by address, by a page of ours where it is a
    /// `POST`, and with its caller where [`Endpoint::needs_caller`].
    ///
    /// When the client hangs up, a call to the provider goes on and what it brought is lost: nobody has seen that session.
    /// A logout is not lost.
    pub async fn answer(
        &self,
        endpoint: Endpoint,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        match endpoint {
            Endpoint::Login => Box::pin(self.login(asked, sessions)).await,
            Endpoint::Signup => Box::pin(self.signup(asked, sessions)).await,
            Endpoint::Otp => Box::pin(self.otp(asked, sessions)).await,
            Endpoint::Verify => Box::pin(self.verify(asked, sessions)).await,
            Endpoint::Confirm => self.confirm(asked),
            Endpoint::Start => self.start(asked, sessions),
            Endpoint::Callback => Box::pin(self.callback(asked, sessions)).await,
            Endpoint::Session => match asked.caller {
                Some(identity) => Ok(reply::json(&view(identity))),
                None => Err(Reject::new(Code::MissingCredentials, "Sign in first.")),
            },
            Endpoint::Refresh => {
                let verified = Box::pin(sessions.renew(asked)).await?;
                Ok(reply::json(&view(&verified.identity)))
            }
            Endpoint::Logout => Box::pin(self.logout(asked, sessions)).await,
            Endpoint::Nothing => Err(Reject::new(
                Code::NotSupported,
                "There is no such session endpoint here: which there are depends on the provider and its `publishable_key`.",
            )),
        }
    }

    /// Whom to log in with.
    pub(super) fn provider(&self) -> Result<&Arc<Supabase>, Reject> {
        self.provider.as_ref().ok_or_else(|| {
            Reject::new(
                Code::NotSupported,
                "The session's provider cannot log anybody in from here.",
            )
        })
    }

    /// Where a browser goes that wants to go to `wanted`.
    pub(super) fn place(&self, wanted: Option<&str>, asked: &Asked<'_>) -> Location {
        let here = Here {
            host: asked.host,
            secure: asked.secure,
        };
        self.places.judge(wanted, here)
    }

    /// 204 whatever the provider says: whoever wants to be logged out is. Not so where sessions are out of reach.
    async fn logout(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let scope = match query::parameter(asked.query, "scope").only("scope")? {
            None => Scope::Local,
            Some(name) => Scope::named(&name)
                .ok_or_else(|| refusal::bad("`scope` is local, global or others."))?,
        };
        let revocable = Box::pin(sessions.end(asked, scope)).await?;
        if let (Some(revocable), Some(provider)) = (revocable, &self.provider) {
            self.revocations
                .revoke(provider, revocable, scope, &asked.browser)
                .await;
        }
        Ok(reply::nothing())
    }
}

/// `HEAD` would do what `GET` does, and links are looked at with it that nobody followed.
pub(super) fn no_head(asked: &Asked<'_>, allow: &'static str) -> Result<(), Reject> {
    if *asked.method == Method::HEAD {
        let allow = HeaderValue::from_static(allow);
        return Err(Reject::new(
            Code::MethodNotAllowed,
            "This address takes other methods; see the Allow header.",
        )
        .allow(allow));
    }
    Ok(())
}
