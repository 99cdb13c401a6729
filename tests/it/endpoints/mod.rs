//! The session endpoints against the development provider, without a gateway around them: a browser's cookies, and
//! sessions that are kept in a list.

mod elsewhere;
mod logins;
mod logout;

use crate::support::{Identity, NOW};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tollhouse::base::body::Body;
use tollhouse::base::clock::Clock;
use tollhouse::base::secret::Secret;
use tollhouse::config::value::{Origin, Rate};
use tollhouse::config::{self, Options};
use tollhouse::endpoints::{
    Asked, Endpoint, Endpoints, Pace, Revocable, Revocations, Sessions, Setup,
};
use tollhouse::exchange::{Code, Credential, Identity as Who, Reject, Verified};
use tollhouse::headers::host::Host;
use tollhouse::provider::supabase::{self, Scope, Supabase};
use tollhouse::provider::{Browser, Grant, ProviderBudget, Refreshes};

const PASSWORD: &str = "correct-horse-9";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
/// A browser that was told to go somewhere.
const NAVIGATES: &[(&str, &str)] = &[
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-dest", "document"),
];

/// Endpoints at `https://app.test/.auth`, and their provider.
struct Room {
    identity: Identity,
    provider: Arc<Supabase>,
    revocations: Arc<Revocations>,
    clock: Clock,
}

/// Runs a test on a control runtime of its own.
fn run(test: impl AsyncFnOnce(Arc<Room>)) {
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Held here to the end: the provider has a runtime as well, and none may end inside another.
    let room = Arc::new(Room::new(control.handle(), "2s", 1000));
    control.block_on(test(room.clone()));
    drop(control);
}

impl Room {
    fn new(control: &Handle, http_timeout: &str, pending_max: usize) -> Self {
        let clock = Clock::frozen(NOW);
        let identity = Identity::start(&clock);
        let text = format!(
            "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\nhttp_timeout = \"{http_timeout}\"\n\
             [[routes]]\npath = \"/\"\nrespond = {{ body = \"hi\" }}\nauth = \"public\"\n",
            identity.url
        );
        let environment = config::interpolate::ProcessEnvironment::default();
        let options = Options {
            placeholders: false,
        };
        let config = config::load(&text, Path::new("test.toml"), &environment, options)
            .unwrap_or_else(|problems| panic!("the test's file is wrong:\n{problems}"));
        let rate = Rate {
            count: NonZeroU32::new(1000).unwrap(),
            per: Duration::from_millis(1),
        };
        let setup = supabase::Setup {
            public_api: None,
            secret_key: None,
            budget: Arc::new(ProviderBudget::new(rate, rate, &clock)),
            clock: clock.clone(),
            control: control.clone(),
        };
        let provider = Supabase::new(&config.providers[0], setup).unwrap().unwrap();
        let refreshes = Arc::new(Refreshes::new(clock.clone(), control.clone()).unwrap());
        let pace = Pace {
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(4),
            pending_max,
        };
        Self {
            identity,
            provider: Arc::new(provider),
            revocations: Arc::new(Revocations::new(
                refreshes,
                clock.clone(),
                control.clone(),
                pace,
            )),
            clock,
        }
    }

    fn endpoints(&self, ours: &[&str], login_url: &str) -> Endpoints {
        let origins = |list: &[&str]| list.iter().map(|o| Origin((*o).into())).collect::<Vec<_>>();
        Endpoints::new(Setup {
            base: "/.auth",
            ours: &origins(ours),
            trusted: &origins(&["https://admin.test"]),
            login_url,
            after_login: "/home",
            provider: Some(self.provider.clone()),
            revocations: self.revocations.clone(),
            clock: self.clock.clone(),
        })
    }

    fn usual(&self) -> Endpoints {
        self.endpoints(&["https://app.test"], "/login")
    }

    /// Refills what the provider may be asked for.
    fn later(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    fn asked(&self, endpoint: &str) -> u64 {
        self.identity.provider.count(endpoint)
    }
}

/// A browser, and what the gateway behind the endpoints did for it.
struct Client {
    host: &'static str,
    secure: bool,
    cookies: Vec<(String, String)>,
    /// The session that the cookies stand for.
    session: Option<Grant>,
    opened: usize,
    /// Accounts that were counted.
    accounts: Vec<String>,
    made_up: usize,
    /// Whether the next account is one too many.
    limited: bool,
    ended: Vec<Scope>,
    renewed: usize,
    told: Vec<HeaderValue>,
}

impl Client {
    fn new() -> Self {
        Self {
            host: "app.test",
            secure: true,
            cookies: Vec::new(),
            session: None,
            opened: 0,
            accounts: Vec::new(),
            made_up: 0,
            limited: false,
            ended: Vec::new(),
            renewed: 0,
            told: Vec::new(),
        }
    }

    /// Sends one request, and keeps the cookies of its answer.
    async fn send(
        &mut self,
        endpoints: &Endpoints,
        endpoint: Endpoint,
        request: &Sent<'_>,
    ) -> Result<Answer, Reject> {
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        if !request.content_type.is_empty() {
            let value = HeaderValue::from_str(request.content_type).unwrap();
            headers.insert(http::header::CONTENT_TYPE, value);
        }
        let cookies = self.cookies.iter().map(|(n, v)| format!("{n}={v}"));
        let cookies: Vec<String> = cookies.collect();
        if !cookies.is_empty() {
            headers.insert(COOKIE, HeaderValue::try_from(cookies.join("; ")).unwrap());
        }
        let host = Host::parse(self.host).unwrap();
        let method = if request.head {
            Method::HEAD
        } else {
            endpoint.method()
        };
        let asked = Asked {
            method: &method,
            headers: &headers,
            query: Some(request.query).filter(|query| !query.is_empty()),
            body: request.body.as_bytes(),
            browser: Browser::default(),
            host: &host,
            secure: self.secure,
            caller: request.caller,
        };
        let outcome = endpoints.answer(endpoint, &asked, self).await;
        let told = std::mem::take(&mut self.told);
        for field in &told {
            let (pair, rest) = field.to_str().unwrap().split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !rest.starts_with("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok(Answer::read(outcome?, told).await)
    }

    /// The names of its cookies but for the session's.
    fn attempts(&self) -> Vec<&str> {
        let names = self.cookies.iter().map(|(name, _)| &**name);
        names.filter(|name| *name != "session").collect()
    }

    fn has_session(&self) -> bool {
        self.cookies.iter().any(|(name, _)| name == "session")
    }
}

/// What is sent besides the method and the cookies.
#[derive(Clone, Copy, Default)]
struct Sent<'a> {
    head: bool,
    query: &'a str,
    headers: &'a [(&'a str, &'a str)],
    content_type: &'a str,
    body: &'a str,
    caller: Option<&'a Who>,
}

fn json(body: &str) -> Sent<'_> {
    Sent {
        content_type: JSON,
        body,
        ..Sent::default()
    }
}

fn form(body: &str) -> Sent<'_> {
    Sent {
        content_type: FORM,
        body,
        ..Sent::default()
    }
}

fn query(query: &str) -> Sent<'_> {
    Sent {
        query,
        headers: NAVIGATES,
        ..Sent::default()
    }
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn read(answer: Response<Body>, told: Vec<HeaderValue>) -> Self {
        let (mut head, body) = answer.into_parts();
        for field in told {
            head.headers.append(SET_COOKIE, field);
        }
        let body = body.collect().await.unwrap().to_bytes();
        let answer = Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        answer
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), JSON);
        serde_json::from_str(&self.body).unwrap()
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, 303);
        assert!(self.body.is_empty());
        self.header("location")
    }
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// Who a token names; its signature is not this test's matter.
fn who(token: &str) -> Who {
    let claims = claims(token);
    Who {
        provider: "main".into(),
        user_id: claims["sub"].as_str().unwrap().into(),
        roles: vec!["user".into()],
        scopes: Vec::new(),
        expires_at: claims["exp"].as_u64().unwrap(),
        session_id: claims["session_id"].as_str().map(Into::into),
        claims: claims.as_object().unwrap().clone(),
        anonymous: false,
        api_key_id: None,
    }
}

fn verified(token: &str) -> Arc<Verified> {
    Arc::new(Verified {
        identity: who(token),
        credential: Credential::Session,
        authorization: None,
        headers: Vec::new(),
        provider: 0,
        epoch: 0,
        renew_at: u64::MAX,
        kept: None,
        user_key: 0,
        weight: 0,
    })
}

impl Sessions for Client {
    async fn open(&mut self, grant: Grant, _: &Asked<'_>) -> Result<Arc<Verified>, Reject> {
        self.opened += 1;
        let verified = verified(grant.access_token.expose());
        self.session = Some(grant);
        self.tell(HeaderValue::from_static("session=1; Path=/"));
        Ok(verified)
    }

    async fn renew(&mut self, _: &Asked<'_>) -> Result<Arc<Verified>, Reject> {
        self.renewed += 1;
        match &self.session {
            Some(grant) => Ok(verified(grant.access_token.expose())),
            None => {
                self.tell(HeaderValue::from_static("session=; Max-Age=0; Path=/"));
                Err(Reject::new(Code::SessionExpired, "The session is over."))
            }
        }
    }

    async fn end(&mut self, _: &Asked<'_>, scope: Scope) -> Result<Option<Revocable>, Reject> {
        self.ended.push(scope);
        let goes_on = scope == Scope::Others;
        let grant = match goes_on {
            true => self.session.clone(),
            false => self.session.take(),
        };
        if !goes_on {
            self.tell(HeaderValue::from_static("session=; Max-Age=0; Path=/"));
        }
        Ok(grant.map(|grant| Revocable {
            expires_at: who(grant.access_token.expose()).expires_at,
            access_token: grant.access_token.clone(),
            refresh_token: Some(grant.refresh_token.clone()).filter(|_| !goes_on),
            user: 7,
        }))
    }

    fn may_try(&self, _: &Asked<'_>) -> Result<(), Reject> {
        match self.made_up < 3 {
            true => Ok(()),
            false => Err(Reject::new(Code::RateLimited, "Too many made-up codes.")),
        }
    }

    fn made_up(&mut self, _: &Asked<'_>) {
        self.made_up += 1;
    }

    fn account_limit(&mut self, account: &str) -> Result<(), Reject> {
        self.accounts.push(account.to_owned());
        if self.limited {
            let wait = Reject::new(Code::RateLimited, "Too many requests.");
            return Err(wait.retry_after(60));
        }
        Ok(())
    }

    fn tell(&mut self, set_cookie: HeaderValue) {
        self.told.push(set_cookie);
    }
}

/// Everything of a refusal that a client sees but its request id.
fn seen(reject: &Reject) -> String {
    format!(
        "{} {:?} {:?} {} {:?}",
        reject.code().as_str(),
        reject.detail(),
        reject.retry_after_seconds(),
        reject.token_sent(),
        reject.allowed()
    )
}

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}
