//! A request to a session endpoint: its body is read, and what the endpoints want of sessions is done.

use super::facts::Exchange;
use super::live::prover;
use super::perform::too_large;
use super::{Connection, Local};
use crate::authn::{Prover, Request};
use crate::base::body::{Body, BodyError};
use crate::endpoints::{Asked, Endpoint, Revocable, Sessions, body};
use crate::exchange::{Code, Reject, Verified};
use crate::headers::forwarded::Client;
use crate::headers::host::Host;
use crate::limit::{Outcome, keyed};
use crate::provider::supabase::Scope;
use crate::provider::{Browser, Grant};
use crate::route::Route;
use crate::session::Told;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Collected};
use std::sync::Arc;

/// Where a request is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) local: &'a Local,
    pub(super) connection: &'a Connection,
    pub(super) route: &'a Route,
    /// The host that was asked for.
    pub(super) host: &'a HeaderValue,
}

/// Answers a request to an endpoint.
pub(super) async fn answer(
    place: Place<'_>,
    endpoint: Endpoint,
    ex: &mut Exchange,
    head: &Parts,
    body: Body,
) -> Result<Response<Body>, Reject> {
    let snapshot = &place.local.snapshot;
    let endpoints = snapshot.endpoints.as_ref().ok_or_else(nowhere)?;
    let body = match endpoint.reads_body() {
        true => read(body).await?,
        false => Bytes::new(),
    };
    let host = place.host.to_str().ok().and_then(Host::parse);
    let caller = ex.user.clone();
    let asked = Asked {
        method: &head.method,
        headers: &head.headers,
        query: head.uri.query(),
        body: &body,
        browser: Browser {
            user_agent: head.headers.get(USER_AGENT).cloned(),
            address: Some(ex.client.ip).filter(|_| ex.client.known),
        },
        host: &host.ok_or_else(nowhere)?,
        secure: ex.secure,
        caller: caller.as_ref().map(|verified| &verified.identity),
    };
    let mut visit = Visit {
        place,
        prover: prover(place.local, place.connection, place.route),
        client: &ex.client,
        told: &mut ex.told,
        user: &mut ex.user,
        limits: &mut ex.limits,
    };
    endpoints.answer(endpoint, &asked, &mut visit).await
}

/// What sessions are to the endpoints, for one request.
struct Visit<'a> {
    place: Place<'a>,
    prover: Prover<'a>,
    client: &'a Client,
    told: &'a mut Told,
    user: &'a mut Option<Arc<Verified>>,
    limits: &'a mut Outcome,
}

impl<'a> Visit<'a> {
    fn request<'r>(&'r self, asked: &'r Asked<'_>) -> Request<'r> {
        Request {
            headers: asked.headers,
            client: self.client,
        }
    }

    /// Behind what was told before.
    fn add(&mut self, told: Told) {
        self.told.set.extend(told.set);
        self.told.pairs = told.pairs;
    }
}

impl Sessions for Visit<'_> {
    async fn open(&mut self, grant: Grant, asked: &Asked<'_>) -> Result<Arc<Verified>, Reject> {
        let mut told = Told::default();
        let opened = self
            .prover
            .open(&grant, self.request(asked), &mut told)
            .await;
        self.add(told);
        let verified = opened?;
        *self.user = Some(verified.clone());
        Ok(verified)
    }

    async fn renew(&mut self, asked: &Asked<'_>) -> Result<Arc<Verified>, Reject> {
        let mut told = Told::default();
        let renewed = self.prover.renew_now(self.request(asked), &mut told).await;
        self.add(told);
        let verified = renewed?;
        *self.user = Some(verified.clone());
        Ok(verified)
    }

    async fn end(&mut self, asked: &Asked<'_>, scope: Scope) -> Result<Option<Revocable>, Reject> {
        let mut told = Told::default();
        let ended = self.prover.end(scope, self.request(asked), &mut told).await;
        self.add(told);
        Ok(ended?.map(|ended| Revocable {
            access_token: ended.access_token,
            expires_at: ended.expires_at,
            refresh_token: ended.refresh_token.filter(|_| scope != Scope::Others),
            user: keyed(&[ended.user.as_bytes()]),
        }))
    }

    fn may_try(&self, asked: &Asked<'_>) -> Result<(), Reject> {
        self.prover.may_fail(self.request(asked))
    }

    fn made_up(&mut self, asked: &Asked<'_>) {
        self.prover.failed(self.request(asked));
    }

    fn account_limit(&mut self, account: &str) -> Result<(), Reject> {
        let snapshot = &self.place.local.snapshot;
        let limits = &snapshot.limits;
        let outcome = limits.check_account(&self.place.route.limits.account, account);
        *self.limits = self.limits.and(outcome);
        let Some(refused) = outcome.refused else {
            return Ok(());
        };
        snapshot
            .metrics
            .rate_limited(self.place.local.worker, refused.policy);
        Err(Reject::new(
            Code::RateLimited,
            "Too many attempts for this account. Wait as long as Retry-After says.",
        )
        .because(format!("policy `{}`", limits.name(refused.policy)))
        .retry_after(refused.retry_after))
    }

    fn tell(&mut self, set_cookie: HeaderValue) {
        self.told.set.push(set_cookie);
    }
}

/// The whole body, up to what a login may have.
async fn read(body: Body) -> Result<Bytes, Reject> {
    if body.size_hint().lower() > body::BYTES_MAX {
        return Err(too_large(body::BYTES_MAX));
    }
    let body = body.limited(body::BYTES_MAX).collect().await;
    body.map(Collected::to_bytes).map_err(|error| match error {
        BodyError::TooLarge { limit } => too_large(limit),
        BodyError::Stalled => Reject::new(
            Code::RequestTimeout,
            "The body of the request did not come in time.",
        ),
        BodyError::Cut(_) | BodyError::Abandoned | BodyError::Withdrawn => Reject::new(
            Code::BadRequest,
            "The body of the request was cut short or badly framed.",
        ),
    })
}

fn nowhere() -> Reject {
    Reject::new(Code::NotSupported, "This gateway has no sessions.")
}
