//! One call to Supabase Auth: its headers, its one deadline, its attempts. All calls run on the control runtime, so that
//! one whose caller has gone still ends, and what it brought is known.

use super::answer::{Again, Answer, Failure, retry_after};
use crate::base::cause;
use crate::base::http_client::{self, BodyError};
use crate::base::secret::Secret;
use crate::provider::Browser;
use crate::provider::error::Code;
use http::HeaderValue;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use reqwest::RequestBuilder;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use url::Url;

/// Largest answer, in bytes. The cookies of a session hold less.
pub(super) const BODY_BYTES_MAX: usize = 128 * 1024;
/// Attempts of one call; with the waits between them some 3 s.
const ATTEMPTS_MAX: u32 = 5;
/// Before the second attempt; doubles with each, as in the reference client.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Refreshes that are on the wire at the same time.
const REFRESHES_AT_ONCE: usize = 64;
/// All other calls that are: apart, so that they cannot keep refreshes waiting.
const OTHERS_AT_ONCE: usize = 32;
/// How long after its deadline the end of a call is awaited.
const GRACE: Duration = Duration::from_millis(500);
/// Selects the error bodies with words for codes.
const API_VERSION: &str = "2024-01-01";
const CLIENT_INFO: &str = concat!("tollhouse/", env!("CARGO_PKG_VERSION"));
/// The only keys with which `Sb-Forwarded-For` counts.
const SECRET_KEY_PREFIX: &str = "sb_secret_";

/// How calls reach one project.
#[derive(Debug)]
pub(super) struct Line {
    client: reqwest::Client,
    api: Url,
    /// `apikey`, and as `Authorization` where there is no user's. Sensitive.
    key: Option<(HeaderValue, HeaderValue)>,
    /// The key is a secret one: refused when the User-Agent is a browser's.
    secret: bool,
    /// It is one with which the browser's address counts.
    names_client: bool,
    deadline: Duration,
    refreshes: Semaphore,
    others: Semaphore,
    control: Handle,
}

/// What is asked.
pub(super) struct Call {
    /// Below the API, with `/`.
    pub(super) path: &'static str,
    pub(super) query: Vec<(&'static str, String)>,
    /// JSON; `None`: no body.
    pub(super) body: Option<Secret<String>>,
    /// Access token of the user for whom it is made.
    pub(super) user: Option<HeaderValue>,
    pub(super) browser: Browser,
    pub(super) lane: Lane,
}

/// What a call competes with, and whether it may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Harmless to repeat: a token whose answer was lost yields the same session again.
    Refresh,
    /// Repeated only when nothing was sent: it may send a message, spend a code or open a session.
    Login,
    /// Harmless to repeat.
    Logout,
}

/// A key that cannot be sent.
#[derive(Debug)]
pub(super) struct BadKey;

impl Line {
    pub(super) fn new(
        client: reqwest::Client,
        api: Url,
        publishable: Option<&Secret<String>>,
        secret: Option<&Secret<String>>,
        deadline: Duration,
        control: Handle,
    ) -> Result<Self, BadKey> {
        let key = match secret.or(publishable) {
            Some(key) => Some((
                sensitive(key.expose()).ok_or(BadKey)?,
                bearer(key).ok_or(BadKey)?,
            )),
            None => None,
        };
        Ok(Self {
            client,
            api,
            key,
            secret: secret.is_some(),
            names_client: secret.is_some_and(|key| key.expose().starts_with(SECRET_KEY_PREFIX)),
            deadline,
            refreshes: Semaphore::new(REFRESHES_AT_ONCE),
            others: Semaphore::new(OTHERS_AT_ONCE),
            control,
        })
    }

    /// The body of a success.
    ///
    /// Cancel-safe: the call is a task of the control runtime and goes on.
    pub(super) async fn call(self: &Arc<Self>, call: Call) -> Result<String, Failure> {
        let line = self.clone();
        let task = self
            .control
            .spawn(async move { line.attempts(&call).await });
        // The call keeps the deadline itself; this one is for a control runtime that is stuck.
        match timeout(self.patience(), task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Failure::broken("the call ended without an answer")),
            Err(_) => Err(Failure::broken("no answer in time")),
        }
    }

    /// Longest that anybody waits for a call.
    pub(super) fn patience(&self) -> Duration {
        self.deadline + GRACE
    }

    async fn attempts(&self, call: &Call) -> Result<String, Failure> {
        let end = Instant::now() + self.deadline;
        let lane = match call.lane {
            Lane::Refresh => &self.refreshes,
            Lane::Login | Lane::Logout => &self.others,
        };
        let Ok(Ok(_permit)) = timeout_at(end, lane.acquire()).await else {
            return Err(Failure::broken("too many calls are under way"));
        };
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            let failure = match timeout_at(end, self.attempt(call)).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(Failure::broken("no answer in time")),
            };
            let again = match &failure {
                // It asked to be left alone for longer.
                Failure::Later { retry_after, .. } if retry_after.is_some_and(|r| r > wait) => {
                    Again::No
                }
                Failure::Later { again, .. } => *again,
                _ => Again::No,
            };
            let allowed = match again {
                Again::No => false,
                Again::IfHarmless => call.lane != Lane::Login,
                Again::Yes => true,
            };
            if !allowed || attempt == ATTEMPTS_MAX || Instant::now() + wait >= end {
                return Err(failure);
            }
            sleep(wait).await;
            wait *= 2;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<String, Failure> {
        let response = self.request(call).send().await.map_err(unreachable)?;
        let text = |name: &str| response.headers().get(name)?.to_str().ok();
        let (status, code, retry_after) = (
            response.status().as_u16(),
            text("x-sb-error-code").and_then(Code::read),
            text(RETRY_AFTER.as_str()).and_then(retry_after),
        );
        let body =
            http_client::body(response, BODY_BYTES_MAX)
                .await
                .map_err(|error| match error {
                    BodyError::Broken(source) => unreachable(source),
                    BodyError::TooLarge(_) => Failure::broken(&error.to_string()),
                })?;
        let answer = Answer {
            status,
            code,
            retry_after,
            body,
        };
        answer.success()
    }

    fn request(&self, call: &Call) -> RequestBuilder {
        let mut url = self.api.clone();
        url.set_path(&format!(
            "{}{}",
            url.path().trim_end_matches('/'),
            call.path
        ));
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self
            .client
            .post(url)
            .header("x-supabase-api-version", API_VERSION)
            .header("x-client-info", CLIENT_INFO);
        if let Some((key, _)) = &self.key {
            request = request.header("apikey", key.clone());
        }
        let authorization = match (&call.user, &self.key) {
            (Some(user), _) => Some(user),
            (None, Some((_, key))) => Some(key),
            (None, None) => None,
        };
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(agent) = call.browser.user_agent.as_ref().filter(|_| !self.secret) {
            request = request.header(USER_AGENT, agent.clone());
        }
        if let Some(address) = call.browser.address {
            // Kept with the session, as the User-Agent is; the second counts for limits.
            let address = address.to_canonical().to_string();
            if self.names_client {
                request = request.header("sb-forwarded-for", &address);
            }
            request = request.header("x-forwarded-for", address);
        }
        match &call.body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json;charset=UTF-8")
                .body(body.expose().clone()),
            None => request,
        }
    }
}

/// `Authorization` of a token. `None` when it has bytes that no header can have.
pub(super) fn bearer(token: &Secret<String>) -> Option<HeaderValue> {
    let text = Secret::new(format!("Bearer {}", token.expose()));
    sensitive(text.expose())
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The address is left out: it may say where a user wants to go.
fn unreachable(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    Failure::Later {
        retry_after: None,
        again: if error.is_connect() {
            Again::Yes
        } else {
            Again::IfHarmless
        },
        why: cause::chain(&error).into(),
    }
}
