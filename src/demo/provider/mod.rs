//! A development identity provider that speaks the Supabase Auth protocol under `/auth/v1`: sign-up, password login,
//! ES256 access tokens, refresh with rotation, logout. Everything is in memory and bounded; nothing is sent anywhere.
//! Tests use it too, with a frozen clock, counters and planned troubles.

mod answers;
mod codes;
mod errors;
mod faults;
mod refresh;
mod tokens;
mod users;

pub use crate::demo::random::CryptoError;
pub use codes::Mail;
pub use faults::{Fault, Hold};

use crate::base::body::Body;
use crate::base::clock::Clock;
use codes::Codes;
use errors::ApiError;
use faults::{Endpoint, Faults};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use parking_lot::Mutex;
use refresh::Sessions;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;
use tokens::Keys;
use tokio::sync::Semaphore;
use users::Users;

/// Passwords hashed at the same time; each takes a thread and 19 MiB.
const HASHES_AT_ONCE: usize = 2;

/// How the provider behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `iss` of its tokens: the URL it is reached at, with `/auth/v1`.
    pub issuer: String,
    /// What it calls now.
    pub clock: Clock,
    /// Life of an access token; default 1 h, as on the platform.
    pub token_life: Duration,
    /// How long a used refresh token yields another one; default 10 s, as on the platform.
    pub reuse_interval: Duration,
    /// The publishable key. Not a secret: every page of an application carries it.
    pub api_key: String,
}

impl Settings {
    /// The platform's defaults.
    pub fn new(issuer: impl Into<String>, api_key: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            clock: Clock::system(),
            token_life: Duration::from_secs(3600),
            reuse_interval: Duration::from_secs(10),
            api_key: api_key.into(),
        }
    }
}

/// Why a user could not be added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct UserError {
    message: String,
}

impl From<ApiError> for UserError {
    fn from(error: ApiError) -> Self {
        Self {
            message: error.message.into_owned(),
        }
    }
}

/// The provider. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    settings: Settings,
    keys: Mutex<Keys>,
    /// Never held while a password is hashed or anything is waited for.
    state: Mutex<State>,
    hashing: Arc<Semaphore>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct State {
    users: Users,
    sessions: Sessions,
    codes: Codes,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider")
            .field("issuer", &self.0.settings.issuer)
            .finish_non_exhaustive()
    }
}

impl Provider {
    /// A provider without users, with a fresh signing key.
    pub fn new(settings: Settings) -> Result<Self, CryptoError> {
        Ok(Self(Arc::new(Inner {
            settings,
            keys: Mutex::new(Keys::generate()?),
            state: Mutex::default(),
            hashing: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
            faults: Arc::default(),
        })))
    }

    /// Takes in a confirmed user and returns the id. `role` becomes `app_metadata.role`. Hashes on this thread (20 ms).
    pub fn add_user(
        &self,
        email: &str,
        password: &str,
        role: Option<&str>,
    ) -> Result<String, UserError> {
        users::check_password(password)?;
        let hash = users::hash_password(password)?;
        let clock = &self.0.settings.clock;
        let mut state = self.0.state.lock();
        let id = state.users.add(email, hash, role, Map::new(), clock)?;
        Ok(id.to_string())
    }

    /// Changes `app_metadata.role`. Seen in tokens from the next refresh on. False: no such user.
    pub fn set_role(&self, email: &str, role: Option<&str>) -> bool {
        let mut state = self.0.state.lock();
        let user = state.users.find_mut(email);
        user.map(|user| user.role = role.map(String::from))
            .is_some()
    }

    /// Replaces `user_metadata`, which makes a session as large as a test needs it. False: no such user.
    pub fn set_user_metadata(&self, email: &str, metadata: Map<String, Value>) -> bool {
        let mut state = self.0.state.lock();
        let user = state.users.find_mut(email);
        user.map(|user| user.metadata = metadata).is_some()
    }

    /// Bans a user, or lifts the ban. Sessions stay but yield nothing. False: no such user.
    pub fn ban(&self, email: &str, banned: bool) -> bool {
        let mut state = self.0.state.lock();
        let user = state.users.find_mut(email);
        user.map(|user| user.banned = banned).is_some()
    }

    /// Deletes a user and every session of theirs. False: no such user.
    pub fn remove_user(&self, email: &str) -> bool {
        let mut state = self.0.state.lock();
        let Some(user) = state.users.remove(email) else {
            return false;
        };
        let (id, scope) = (user.id, refresh::Scope::Global);
        state.sessions.log_out(id, uuid::Uuid::nil(), scope);
        true
    }

    /// Ends every session of a user. False: no such user.
    pub fn end_sessions(&self, email: &str) -> bool {
        let mut state = self.0.state.lock();
        let Some(id) = state.users.find(email).map(|user| user.id) else {
            return false;
        };
        let scope = refresh::Scope::Global;
        state.sessions.log_out(id, uuid::Uuid::nil(), scope);
        true
    }

    /// Sessions that have not ended.
    pub fn session_count(&self) -> usize {
        self.0.state.lock().sessions.len()
    }

    /// Signs a user in without a password: the JSON text that the token endpoint answers with.
    pub fn sign_in(&self, email: &str) -> Result<String, UserError> {
        let id = {
            let state = self.0.state.lock();
            let user = state.users.find(email);
            user.map(|user| user.id).ok_or_else(answers::bad_login)?
        };
        Ok(answers::open_session(&self.0, id)?.text)
    }

    /// The newest message to a user that was not used yet.
    pub fn mail(&self, email: &str) -> Option<Mail> {
        let state = self.0.state.lock();
        let user = state.users.find(email)?;
        state.codes.mail(user.id)
    }

    /// Who logs in at every provider elsewhere, without being asked; somebody unknown declines. `None`, as at first: there
    /// is no such provider.
    pub fn log_in_elsewhere_as(&self, email: Option<&str>) {
        self.0.state.lock().codes.elsewhere = email.map(String::from);
    }

    /// A token with these claims and the provider's own header and key.
    pub fn sign(&self, claims: &Value) -> Result<String, CryptoError> {
        self.0.keys.lock().sign(claims)
    }

    /// A token with a header of the caller's, signed with the provider's key whatever that header says.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> Result<String, CryptoError> {
        self.0.keys.lock().sign_with(header, claims)
    }

    /// Signs with a new key from now on; the older keys stay published.
    pub fn rotate_keys(&self) -> Result<(), CryptoError> {
        self.0.keys.lock().rotate()
    }

    /// Publishes only the key that signs.
    pub fn revoke_previous_keys(&self) {
        self.0.keys.lock().revoke_previous();
    }

    /// Requests that came to an endpoint: `token.password`, `token.refresh`, `token.pkce`, `token.other`, `jwks`, `openid`,
    /// `user`, `logout`, `signup`, `otp`, `verify`, `authorize`, `health`, `settings` or `unknown`.
    pub fn count(&self, endpoint: &str) -> u64 {
        self.0.faults.count(endpoint)
    }

    /// Lets the next `times` requests to an endpoint (as in [`Provider::count`]) go wrong, after those planned before.
    pub fn fail_next(&self, endpoint: &str, fault: &Fault, times: usize) {
        self.0.faults.plan(endpoint, fault, times);
    }

    /// Takes back what [`Provider::fail_next`] planned.
    pub fn stop_failing(&self) {
        self.0.faults.forget();
    }

    /// Lets requests to an endpoint wait until the returned hold is dropped.
    #[must_use]
    pub fn hold(&self, endpoint: &str) -> Hold {
        self.0.faults.hold(endpoint)
    }

    /// Answers one request. Cannot fail: every problem becomes a response.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = request.into_parts();
        let endpoint = Endpoint::of(&head.method, head.uri.path(), head.uri.query());
        match self.0.faults.meet(endpoint).await {
            None => {}
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::Status(status)) => return in_front(status),
            Some(Fault::Answer(status, text)) => return json_text(status, text),
            Some(Fault::Code(status, code)) => {
                return ApiError::new(status, code, "planned by a test").response(&head.headers);
            }
            Some(Fault::LoseAnswer) => {
                let _ = answers::answer(&self.0, endpoint, &head, body).await;
                return in_front(StatusCode::BAD_GATEWAY);
            }
        }
        // What browsers are sent to carries no key.
        if !matches!(
            endpoint,
            Endpoint::Jwks | Endpoint::Authorize | Endpoint::Verify
        ) && let Some(refusal) = self.check_api_key(&head.headers)
        {
            return refusal;
        }
        match answers::answer(&self.0, endpoint, &head, body).await {
            Ok(response) => response,
            Err(error) => error.response(&head.headers),
        }
    }

    fn check_api_key(&self, headers: &http::HeaderMap) -> Option<Response<Body>> {
        let Some(key) = headers.get("apikey") else {
            return Some(errors::api_key(true));
        };
        (key.as_bytes() != self.0.settings.api_key.as_bytes()).then(|| errors::api_key(false))
    }
}

/// What a load balancer in front of the platform would say.
fn in_front(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::full("<html><body>no luck</body></html>"));
    *response.status_mut() = status;
    let html = HeaderValue::from_static("text/html");
    response.headers_mut().insert(CONTENT_TYPE, html);
    response
}

fn json(status: StatusCode, body: &Value) -> Response<Body> {
    json_text(status, body.to_string())
}

fn json_text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests;
