//! Sessions without a password: a code sent to an address, and a login elsewhere (PKCE). Messages go nowhere, and elsewhere
//! nobody is asked: tests read the message, and say who logs in. Switched on by nothing that `tollhouse demo` does.

use super::answers::{Issued, banned, open_session, read};
use super::errors::ApiError;
use super::faults::parameter;
use super::users::{self, User};
use super::{Inner, json};
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::demo::random;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::LOCATION;
use http::{HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, json};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use url::Url;
use uuid::Uuid;

/// Life of what is sent, as on the platform.
const CODE_LIFE: Duration = Duration::from_secs(3600);
/// Wrong codes after which the right one is none either.
const TRIES_MAX: u8 = 10;
/// Life of a login elsewhere, from its start.
const FLOW_LIFE: Duration = Duration::from_secs(300);
/// Logins elsewhere under way; the oldest makes room.
const FLOWS_MAX: usize = 1000;

/// A message to an address.
#[derive(Clone, PartialEq, Eq)]
pub struct Mail {
    /// Six digits to type.
    pub code: String,
    /// `token_hash` of the link.
    pub hash: String,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mail")
    }
}

/// Everything that was sent or begun and not used yet.
#[derive(Default)]
pub(super) struct Codes {
    /// By user, of whom there are not many: the newest counts.
    sent: HashMap<Uuid, Sent>,
    /// Oldest first.
    flows: VecDeque<Flow>,
    /// Who logs in elsewhere.
    pub(super) elsewhere: Option<String>,
}

struct Sent {
    mail: Mail,
    at: Instant,
    wrong: u8,
}

struct Flow {
    code: String,
    user: Uuid,
    challenge: Challenge,
    begun: Instant,
}

enum Challenge {
    S256(String),
    Plain(String),
}

impl Codes {
    pub(super) fn mail(&self, user: Uuid) -> Option<Mail> {
        self.sent.get(&user).map(|sent| sent.mail.clone())
    }

    /// Whether this was sent to the user.
    fn try_code(&mut self, user: Uuid, code: &str) -> bool {
        let Some(sent) = self.sent.get_mut(&user) else {
            return false;
        };
        if sent.mail.code == code {
            return true;
        }
        sent.wrong += 1;
        if sent.wrong >= TRIES_MAX {
            self.sent.remove(&user);
        }
        false
    }
}

#[derive(Deserialize)]
pub(super) struct OtpBody {
    #[serde(default)]
    email: String,
    #[serde(default)]
    phone: String,
    #[serde(default = "yes")]
    create_user: bool,
}

fn yes() -> bool {
    true
}

/// `POST /otp`
pub(super) async fn otp<B>(inner: &Inner, body: B) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let given: OtpBody = read(body).await?;
    if given.email.is_empty() {
        return Err(if given.phone.is_empty() {
            invalid("One of email or phone must be set")
        } else {
            ApiError::unprocessable("phone_provider_disabled", "Unsupported phone provider")
        });
    }
    users::normal_email(&given.email)?;
    let mail = Mail {
        code: random::text(b"0123456789", 6)?,
        hash: random::text(b"0123456789abcdef", 56)?,
    };
    let clock = &inner.settings.clock;
    let mut state = inner.state.lock();
    let known = state.users.find(&given.email).map(|user| user.id);
    let user = match known {
        Some(user) => user,
        None if given.create_user => {
            // A hash that no password has.
            let hash = Secret::new(String::new());
            let users = &mut state.users;
            users.add(&given.email, hash, None, Map::new(), clock)?
        }
        None => {
            return Err(ApiError::unprocessable(
                "otp_disabled",
                "Signups not allowed for otp",
            ));
        }
    };
    let sent = Sent {
        mail,
        at: clock.now(),
        wrong: 0,
    };
    state.codes.sent.insert(user, sent);
    Ok(json(StatusCode::OK, &json!({})))
}

#[derive(Deserialize)]
struct VerifyBody {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    token_hash: String,
    #[serde(default)]
    email: String,
}

/// `POST /verify`
pub(super) async fn verify<B>(inner: &Inner, body: B) -> Result<Issued, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let given: VerifyBody = read(body).await?;
    if given.kind.is_empty() {
        return Err(invalid("Verify requires a verification type"));
    }
    let by_hash = !given.token_hash.is_empty();
    if by_hash && !(given.email.is_empty() && given.token.is_empty()) {
        return Err(invalid("Only the token_hash and type should be provided"));
    }
    if !by_hash && (given.email.is_empty() || given.token.is_empty()) {
        return Err(invalid(
            "Only an email address or phone number should be provided on verify",
        ));
    }
    let user = {
        let now = inner.settings.clock.now();
        let mut state = inner.state.lock();
        let found = if by_hash {
            let mut sent = state.codes.sent.iter();
            sent.find(|(_, sent)| sent.mail.hash == given.token_hash)
                .map(|(user, _)| *user)
        } else {
            let user = state.users.find(&given.email).map(|user| user.id);
            user.filter(|user| state.codes.try_code(*user, &given.token))
        };
        // What was sent by `otp` is both; other messages are not sent here.
        let fits = matches!(given.kind.as_str(), "email" | "magiclink" | "signup");
        let user = found.filter(|_| fits).ok_or_else(expired)?;
        if state.users.get(user).is_none_or(|user: &User| user.banned) {
            return Err(banned(StatusCode::FORBIDDEN));
        }
        let sent = state.codes.sent.remove(&user).ok_or_else(expired)?;
        if now.saturating_duration_since(sent.at) > CODE_LIFE {
            return Err(expired());
        }
        user
    };
    open_session(inner, user)
}

/// `GET /authorize`, and in one step with it the way there and back.
pub(super) fn authorize(inner: &Inner, query: Option<&str>) -> Result<Response<Body>, ApiError> {
    let given = |name| parameter(query, name).filter(|value| !value.is_empty());
    let back = given("redirect_to").and_then(|url| Url::parse(&url).ok());
    let mut back = back.ok_or_else(|| invalid("redirect_to must be a URL"))?;
    let challenge = given("code_challenge").filter(|challenge| {
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        (43..=128).contains(&challenge.len()) && challenge.bytes().all(fine)
    });
    let challenge = challenge
        .ok_or_else(|| invalid("code challenge has to be between 43 and 128 characters"))?
        .into_owned();
    let method = given("code_challenge_method").unwrap_or_default();
    let challenge = match method.to_ascii_lowercase().as_str() {
        "s256" => Challenge::S256(challenge),
        "plain" => Challenge::Plain(challenge),
        _ => return Err(invalid("code challenge method must be s256 or plain")),
    };
    let disabled = || invalid("Unsupported provider: provider is not enabled");
    given("provider").ok_or_else(disabled)?;
    let mut state = inner.state.lock();
    let email = state.codes.elsewhere.clone().ok_or_else(disabled)?;
    let user = state.users.find(&email).map(|user| user.id);
    let code = random::uuid()?.to_string();
    match user {
        Some(user) => {
            back.query_pairs_mut().append_pair("code", &code);
            let flows = &mut state.codes.flows;
            if flows.len() >= FLOWS_MAX {
                flows.pop_front();
            }
            flows.push_back(Flow {
                code,
                user,
                challenge,
                begun: inner.settings.clock.now(),
            });
        }
        None => {
            // As when the person says no.
            let words = [
                ("error", "access_denied"),
                ("error_code", "unexpected_failure"),
                ("error_description", "the user has denied access"),
            ];
            back.query_pairs_mut().extend_pairs(words);
        }
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::FOUND;
    let location = HeaderValue::from_str(back.as_str()).map_err(|_| ApiError::unexpected())?;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

#[derive(Deserialize)]
struct PkceBody {
    #[serde(default)]
    auth_code: String,
    #[serde(default)]
    code_verifier: String,
}

/// `POST /token?grant_type=pkce`
pub(super) async fn exchange<B>(inner: &Inner, body: B) -> Result<Issued, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let given: PkceBody = read(body).await?;
    if given.auth_code.is_empty() || given.code_verifier.is_empty() {
        return Err(invalid(
            "invalid request: both auth code and code verifier should be non-empty",
        ));
    }
    let user = {
        let now = inner.settings.clock.now();
        let mut state = inner.state.lock();
        let flows = &mut state.codes.flows;
        let at = flows.iter().position(|flow| flow.code == given.auth_code);
        let (at, flow) = at
            .and_then(|at| Some((at, flows.get(at)?)))
            .ok_or_else(|| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    "flow_state_not_found",
                    "invalid flow state, no valid flow state found",
                )
            })?;
        if now.saturating_duration_since(flow.begun) > FLOW_LIFE {
            return Err(ApiError::unprocessable(
                "flow_state_expired",
                "invalid flow state, flow state has expired",
            ));
        }
        let fits = match &flow.challenge {
            Challenge::Plain(challenge) => *challenge == given.code_verifier,
            Challenge::S256(challenge) => {
                let hash = digest(&SHA256, given.code_verifier.as_bytes());
                *challenge == URL_SAFE_NO_PAD.encode(hash)
            }
        };
        if !fits {
            return Err(ApiError::bad_request(
                "bad_code_verifier",
                "code challenge does not match previously saved code verifier",
            ));
        }
        let user = flow.user;
        flows.remove(at);
        if state.users.get(user).is_none_or(|user| user.banned) {
            return Err(banned(StatusCode::FORBIDDEN));
        }
        user
    };
    open_session(inner, user)
}

fn invalid(message: &'static str) -> ApiError {
    ApiError::bad_request("validation_failed", message)
}

fn expired() -> ApiError {
    ApiError::forbidden("otp_expired", "Token has expired or is invalid")
}
