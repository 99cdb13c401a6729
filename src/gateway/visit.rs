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
use crate::limit::Outcome;
use crate::provider::supabase::Scope;
use crate::provider::{Browser, Grant};
use crate::route::Route;
use crate::session::{Session, Told};
use bytes::Bytes;
use http::header::USER_AGENT;
use http::request::Parts;
use http::{HeaderValue, Response};
use http_body::Body as _;
use http_body_util::{BodyExt, Collected};
use std::sync::Arc;

/// A request, as it goes on when its client has gone: what a login, a renewal or a logout has begun it ends.
pub(super) struct Errand {
    pub(super) local: Arc<Local>,
    pub(super) connection: Arc<Connection>,
    pub(super) head: Parts,
    /// The host that was asked for.
    pub(super) host: HeaderValue,
}

/// What came of one.
struct Done {
    answer: Result<Response<Body>, Reject>,
    told: Told,
    user: Option<Arc<Verified>>,
    limits: Outcome,
}

/// Answers a request to an endpoint.
pub(super) async fn answer(
    errand: Errand,
    endpoint: Endpoint,
    ex: &mut Exchange,
    body: Body,
) -> Result<Response<Body>, Reject> {
    let body = match endpoint.reads_body() {
        true => read(body).await?,
        false => Bytes::new(),
    };
    let control = errand.local.snapshot.control.clone();
    let (route, client) = (ex.route.unwrap_or(usize::MAX), ex.client);
    let (secure, user) = (ex.secure, ex.user.clone());
    let task = control.spawn(async move {
        let from = From {
            route,
            client,
            secure,
            user,
        };
        errand.run(endpoint, from, &body).await
    });
    let done = task
        .await
        .map_err(|_| Reject::new(Code::Internal, "The gateway failed on this request."))??;
    ex.told.set.extend(done.told.set);
    ex.user = done.user;
    ex.limits = ex.limits.and(done.limits);
    done.answer
}

/// What is known of a request besides its head.
struct From {
    /// Index of its route.
    route: usize,
    client: Client,
    secure: bool,
    user: Option<Arc<Verified>>,
}

impl Errand {
    async fn run(self, endpoint: Endpoint, from: From, body: &[u8]) -> Result<Done, Reject> {
        let snapshot = &self.local.snapshot;
        let endpoints = snapshot.endpoints.as_ref().ok_or_else(nowhere)?;
        let route = snapshot.routes.get(from.route).ok_or_else(nowhere)?;
        let host = self.host.to_str().ok().and_then(Host::parse);
        let caller = from.user.clone();
        let headers = &self.head.headers;
        let asked = Asked {
            method: &self.head.method,
            headers,
            query: self.head.uri.query(),
            body,
            browser: Browser {
                user_agent: headers.get(USER_AGENT).cloned(),
                address: Some(from.client.ip).filter(|_| from.client.known),
            },
            host: &host.ok_or_else(nowhere)?,
            secure: from.secure,
            caller: caller.as_ref().map(|verified| &verified.identity),
        };
        let mut visit = Visit {
            local: &self.local,
            route,
            prover: prover(&self.local, &self.connection, route),
            client: &from.client,
            told: Told::default(),
            user: from.user,
            limits: Outcome::default(),
        };
        let answer = match self.may_keep(endpoint).await {
            true => endpoints.answer(endpoint, &asked, &mut visit).await,
            // A login that could not be kept would be one for nothing, and a code is good only once.
            false => Err(Reject::new(
                Code::AuthUnavailable,
                "Sessions are out of reach at the moment. Try again soon.",
            )
            .because("the session store is away")),
        };
        Ok(Done {
            answer,
            told: visit.told,
            user: visit.user,
            limits: visit.limits,
        })
    }
}

impl Errand {
    /// Whether a session that begins now could be kept.
    async fn may_keep(&self, endpoint: Endpoint) -> bool {
        let snapshot = &self.local.snapshot;
        let stored = snapshot.session.as_ref().and_then(Session::store);
        match (&snapshot.redis, stored) {
            (Some(redis), Some(_))
                if endpoint.tries_secrets() || endpoint == Endpoint::Callback =>
            {
                redis.answers().await
            }
            _ => true,
        }
    }
}

/// What sessions are to the endpoints, for one request.
struct Visit<'a> {
    local: &'a Local,
    route: &'a Route,
    prover: Prover<'a>,
    client: &'a Client,
    told: Told,
    user: Option<Arc<Verified>>,
    limits: Outcome,
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
        self.user = Some(verified.clone());
        Ok(verified)
    }

    async fn renew(&mut self, asked: &Asked<'_>) -> Result<Arc<Verified>, Reject> {
        let mut told = Told::default();
        let renewed = self.prover.renew_now(self.request(asked), &mut told).await;
        self.add(told);
        let verified = renewed?;
        self.user = Some(verified.clone());
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
            user: ended.user,
        }))
    }

    fn may_try(&self, asked: &Asked<'_>) -> Result<(), Reject> {
        self.prover.may_fail(self.request(asked))
    }

    fn made_up(&mut self, asked: &Asked<'_>) {
        self.prover.failed(self.request(asked));
    }

    fn account_limit(&mut self, account: &str) -> Result<(), Reject> {
        let snapshot = &self.local.snapshot;
        let limits = &snapshot.limits;
        let outcome = limits.check_account(&self.route.limits.account, account);
        self.limits = self.limits.and(outcome);
        let Some(refused) = outcome.refused else {
            return Ok(());
        };
        snapshot
            .metrics
            .rate_limited(self.local.worker, refused.policy);
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
