//! What stands in front of the provider: the way with its delays, losses and outages, and a book of what passed.

use super::random::Random;
use super::{ATTEMPTS, TIMEOUT};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};
use tollhouse::base::body::Body;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::{Fault, Provider};

/// One in so many answers to refreshes is lost.
const LOST: usize = 20;

pub struct Front {
    clock: Clock,
    /// How long an answer takes.
    takes: (Duration, Duration),
    /// How long before its end a token is due, in seconds.
    lead: u64,
    dice: Mutex<Random>,
    pub outage: Mutex<Option<StatusCode>>,
    pub book: Mutex<Book>,
    /// A planned fault is for the request that it was planned for.
    turn: tokio::sync::Mutex<()>,
}

/// A replica and a refresh token that it asked with.
type Key = (String, String);

/// Calls for one refresh token from one replica.
#[derive(Default)]
pub struct Calls {
    pub made: usize,
    pub lost: usize,
    /// When a new session reached the replica: in Unix milliseconds, and when that really was.
    pub delivered: Vec<(u64, Instant)>,
    /// Since the last answer that reached it: each of them is followed by another attempt.
    failed: usize,
    failed_at: Option<Instant>,
}

/// A refresh token and what came with it.
struct Issued {
    session: String,
    /// The first end of an access token that came with it, in Unix seconds.
    ends: u64,
}

#[derive(Default)]
pub struct Book {
    pub calls: HashMap<Key, Calls>,
    /// Error codes of the provider's answers.
    pub codes: BTreeMap<String, usize>,
    issued: HashMap<String, Issued>,
    /// Sessions that the provider was asked to end.
    ended: HashSet<String>,
    under_way: usize,
    pub made: usize,
    /// When the way was cut: what was delivered at such a moment may not have come.
    pub cuts: Vec<Instant>,
    pub faults: Vec<String>,
}

impl Book {
    /// Nobody is asking, and nobody is about to ask again.
    pub fn quiet(&self) -> bool {
        let about_to = |calls: &Calls| {
            let since = calls.failed_at.map(|at| at.elapsed());
            calls.failed < ATTEMPTS && since.is_some_and(|since| since < TIMEOUT)
        };
        self.under_way == 0 && !self.calls.values().any(about_to)
    }

    /// What a login or a refresh gave.
    pub fn enter(&mut self, session: &Value) {
        let text = |name: &str| session[name].as_str().map(str::to_owned);
        let (Some(access), Some(refresh)) = (text("access_token"), text("refresh_token")) else {
            return;
        };
        let claims = claims(&access);
        let (session, ends) = (&claims["session_id"], &claims["exp"]);
        let ends = ends.as_u64().unwrap();
        let issued = self.issued.entry(refresh).or_insert_with(|| Issued {
            session: session.as_str().unwrap().to_owned(),
            ends,
        });
        issued.ends = issued.ends.min(ends);
    }

    /// Somebody asks with a refresh token.
    fn look_at(&mut self, (replica, token): &Key, now: u64, lead: u64) {
        // Unknown is one whose answer was lost: nobody can have it.
        let ends = self.issued.get(token).map(|issued| issued.ends);
        let due = ends.map(|ends| ends - lead);
        if due.is_none_or(|due| now < due) {
            let what = format!("{replica} asked with {token} at {now}, which was due at {due:?}");
            self.faults.push(what);
        }
    }

    fn refused(&mut self, token: &str, code: &str) {
        *self.codes.entry(code.to_owned()).or_default() += 1;
        let session = self.issued.get(token).map(|issued| &issued.session);
        let ended = session.is_some_and(|session| self.ended.contains(session));
        if !ended || code == "refresh_token_already_used" {
            self.faults
                .push(format!("the provider refused {token}: {code}"));
        }
    }
}

impl Front {
    pub fn new(clock: Clock, seed: u64, takes: (Duration, Duration), lead: u64) -> Self {
        Self {
            clock,
            takes,
            lead,
            dice: Mutex::new(Random::new(seed)),
            outage: Mutex::default(),
            book: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    pub async fn answer(&self, provider: Provider, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return Response::new(Body::empty());
        };
        let request = Request::from_parts(head.clone(), Body::full(body.to_bytes()));
        let query = head.uri.query().unwrap_or_default();
        if query.contains("grant_type=refresh_token") {
            return self.refresh(&provider, request).await;
        }
        if head.uri.path().ends_with("/logout") {
            return self.logout(&provider, &head, request).await;
        }
        // The keys: a clock that jumps makes them older than they ever get, and their outages are told elsewhere. Logins.
        self.entered(provider.handle(request).await).await
    }

    async fn refresh(&self, provider: &Provider, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let words: Value = serde_json::from_slice(&body).unwrap();
        let token = words["refresh_token"].as_str().unwrap().to_owned();
        let replica = head.headers["user-agent"].to_str().unwrap().to_owned();
        let key = (replica, token);
        let (before, after) = self.delays();
        let lose = {
            let mut book = self.book.lock();
            book.look_at(&key, self.clock.unix(), self.lead);
            book.under_way += 1;
            book.made += 1;
            let lose = book.made % LOST == LOST / 2;
            let calls = book.calls.entry(key.clone()).or_default();
            calls.made += 1;
            // Never twice: three in a row would be an outage.
            let lose = lose && calls.lost == 0;
            calls.lost += usize::from(lose);
            lose
        };
        let mut leaving = Leaving(self, Some(key.clone()));
        tokio::time::sleep(before).await;
        let request = Request::from_parts(head, Body::full(body));
        let response = self.handled(provider, "token.refresh", request, lose).await;
        let response = self.entered(response).await;
        tokio::time::sleep(after).await;
        self.note(&key, &response);
        leaving.1 = None;
        response
    }

    async fn logout(
        &self,
        provider: &Provider,
        head: &Parts,
        request: Request<Body>,
    ) -> Response<Body> {
        let (before, after) = self.delays();
        tokio::time::sleep(before).await;
        let bearer = head.headers["authorization"].to_str().unwrap();
        let claims = claims(bearer.trim_start_matches("Bearer "));
        let session = claims["session_id"].as_str().unwrap().to_owned();
        self.book.lock().ended.insert(session);
        let response = self.handled(provider, "logout", request, false).await;
        tokio::time::sleep(after).await;
        response
    }

    async fn handled(
        &self,
        provider: &Provider,
        endpoint: &str,
        request: Request<Body>,
        lose: bool,
    ) -> Response<Body> {
        let _turn = self.turn.lock().await;
        // Planned for somebody who was cut off meanwhile.
        provider.stop_failing();
        let outage = *self.outage.lock();
        let fault = match outage {
            Some(status) => Some(Fault::Status(status)),
            None => lose.then_some(Fault::LoseAnswer),
        };
        if let Some(fault) = fault {
            provider.fail_next(endpoint, &fault, 1);
        }
        provider.handle(request).await
    }

    async fn entered(&self, response: Response<Body>) -> Response<Body> {
        if !response.status().is_success() {
            return response;
        }
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if let Ok(session) = serde_json::from_slice::<Value>(&body) {
            self.book.lock().enter(&session);
        }
        Response::from_parts(head, Body::full(body))
    }

    /// Before the provider does anything, and after that.
    fn delays(&self) -> (Duration, Duration) {
        let mut dice = self.dice.lock();
        let all = dice.spread(self.takes.0, self.takes.1);
        let before = all.mul_f64(dice.below(101) as f64 / 100.0);
        (before, all - before)
    }

    fn note(&self, key: &Key, response: &Response<Body>) {
        let mut book = self.book.lock();
        if let Some(code) = response.headers().get("x-sb-error-code") {
            book.refused(&key.1, code.to_str().unwrap());
        }
        let calls = book.calls.entry(key.clone()).or_default();
        let status = response.status();
        if status.is_success() {
            calls
                .delivered
                .push((self.clock.unix_millis(), Instant::now()));
        }
        // 505 is none after which a gateway tries again.
        if status.is_server_error() && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED {
            calls.failed += 1;
            calls.failed_at = Some(Instant::now());
        } else {
            calls.failed = 0;
            calls.failed_at = None;
        }
    }
}

/// One call less under way, also when it is cut off: then its replica tries again.
struct Leaving<'a>(&'a Front, Option<Key>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut book = self.0.book.lock();
        book.under_way -= 1;
        if let Some(calls) = self.1.take().and_then(|key| book.calls.get_mut(&key)) {
            calls.failed += 1;
            calls.failed_at = Some(Instant::now());
        }
    }
}

/// What an access token says.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}
