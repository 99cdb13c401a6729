//! What each endpoint does. Status codes, error codes and bodies are those of Supabase Auth.

use super::codes;
use super::errors::ApiError;
use super::faults::{Endpoint, parameter};
use super::refresh::{Grant, RefreshError, Scope};
use super::users::{self, User};
use super::{Inner, json, json_text};
use crate::base::body::Body;
use crate::base::secret::Secret;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Largest request body that is read.
const BODY_BYTES_MAX: usize = 1024 * 1024;
const PUBLIC_FOR_TEN_MINUTES: HeaderValue = HeaderValue::from_static("public, max-age=600");

pub(super) async fn answer<B>(
    inner: &Inner,
    endpoint: Endpoint,
    head: &Parts,
    body: B,
) -> Result<Response<Body>, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match endpoint {
        Endpoint::Password => password(inner, read(body).await?).await,
        Endpoint::Refresh => refresh(inner, read(body).await?),
        Endpoint::Pkce => codes::exchange(inner, body).await?.response(),
        Endpoint::OtherGrant => Err(ApiError::bad_request(
            "invalid_credentials",
            "unsupported_grant_type",
        )),
        Endpoint::Otp => codes::otp(inner, body).await,
        Endpoint::Verify => codes::verify(inner, body).await?.response(),
        Endpoint::Authorize => codes::authorize(inner, head.uri.query()),
        Endpoint::Signup => signup(inner, read(body).await?).await,
        Endpoint::User => {
            let (user, _) = authenticate(inner, &head.headers)?;
            Ok(json(StatusCode::OK, &user.view()))
        }
        Endpoint::Logout => logout(inner, head),
        Endpoint::Jwks => Ok(cached(inner.keys.lock().set())),
        Endpoint::OpenId => Ok(cached(openid(&inner.settings.issuer))),
        Endpoint::Health => Ok(json(
            StatusCode::OK,
            &json!({
                "version": concat!("tollhouse-demo-", env!("CARGO_PKG_VERSION")),
                "name": "GoTrue",
                "description": "A development stand-in for a user registration and authentication API",
            }),
        )),
        Endpoint::Settings => Ok(json(StatusCode::OK, &settings())),
        Endpoint::Unknown => Ok(json(
            StatusCode::NOT_FOUND,
            &json!({"message": "no Route matched with those values"}),
        )),
    }
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(default)]
    email: String,
    #[serde(default)]
    phone: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    data: Option<Map<String, Value>>,
}

async fn password(inner: &Inner, given: Credentials) -> Result<Response<Body>, ApiError> {
    if given.email.is_empty() {
        return Err(if given.phone.is_empty() {
            ApiError::bad_request("validation_failed", "missing email or phone")
        } else {
            ApiError::unprocessable("phone_provider_disabled", "Phone logins are disabled")
        });
    }
    let hash = inner.state.lock().users.hash_of(&given.email);
    let password = Secret::new(given.password);
    let matches = hashing(inner, move || {
        users::password_matches(password.expose(), hash.as_ref())
    })
    .await?;
    let id = {
        let state = inner.state.lock();
        let user = state.users.find(&given.email).filter(|_| matches);
        let user = user.ok_or_else(bad_login)?;
        if user.banned {
            return Err(banned(StatusCode::BAD_REQUEST));
        }
        user.id
    };
    open_session(inner, id)?.response()
}

async fn signup(inner: &Inner, given: Credentials) -> Result<Response<Body>, ApiError> {
    if given.email.is_empty() {
        return Err(if given.phone.is_empty() {
            ApiError::unprocessable(
                "anonymous_provider_disabled",
                "Anonymous sign-ins are disabled",
            )
        } else {
            ApiError::unprocessable("phone_provider_disabled", "Phone signups are disabled")
        });
    }
    users::check_password(&given.password)?;
    users::normal_email(&given.email)?;
    if inner.state.lock().users.find(&given.email).is_some() {
        return Err(users::exists());
    }
    let password = Secret::new(given.password);
    let hash = hashing(inner, move || users::hash_password(password.expose())).await??;
    let data = given.data.unwrap_or_default();
    let id = {
        let mut state = inner.state.lock();
        let clock = &inner.settings.clock;
        state.users.add(&given.email, hash, None, data, clock)?
    };
    open_session(inner, id)?.response()
}

#[derive(Deserialize)]
struct RefreshBody {
    #[serde(default)]
    refresh_token: String,
}

fn refresh(inner: &Inner, given: RefreshBody) -> Result<Response<Body>, ApiError> {
    if given.refresh_token.is_empty() {
        return Err(ApiError::bad_request(
            "validation_failed",
            "refresh_token required",
        ));
    }
    let settings = &inner.settings;
    let mut state = inner.state.lock();
    let owner = state.sessions.owner(&given.refresh_token);
    if owner
        .and_then(|id| state.users.get(id))
        .is_some_and(|user| user.banned)
    {
        return Err(banned(StatusCode::BAD_REQUEST));
    }
    let grant = state
        .sessions
        .refresh(
            &given.refresh_token,
            settings.clock.now(),
            settings.reuse_interval,
        )
        .map_err(|error| match error {
            RefreshError::Malformed => {
                ApiError::bad_request("validation_failed", "Refresh token is not valid")
            }
            RefreshError::NotFound => ApiError::bad_request(
                "refresh_token_not_found",
                "Invalid Refresh Token: Refresh Token Not Found",
            ),
            RefreshError::AlreadyUsed => ApiError::bad_request(
                "refresh_token_already_used",
                "Invalid Refresh Token: Already Used",
            ),
            RefreshError::Crypto(error) => error.into(),
        })?;
    let user = state.users.get(grant.user).cloned();
    drop(state);
    Issued::new(inner, &grant, &user.ok_or_else(user_not_found)?)?.response()
}

fn logout(inner: &Inner, head: &Parts) -> Result<Response<Body>, ApiError> {
    let (user, session) = authenticate(inner, &head.headers)?;
    let scope = match parameter(head.uri.query(), "scope").as_deref() {
        None | Some("" | "global") => Scope::Global,
        Some("local") => Scope::Local,
        Some("others") => Scope::Others,
        Some(_) => {
            return Err(ApiError::bad_request(
                "validation_failed",
                "Unsupported logout scope",
            ));
        }
    };
    let mut state = inner.state.lock();
    state.sessions.log_out(user.id, session, scope);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// The user and the session of a Bearer token: signed here, not expired, session and user still there.
fn authenticate(inner: &Inner, headers: &HeaderMap) -> Result<(User, Uuid), ApiError> {
    let token = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let token = token.ok_or_else(|| {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "no_authorization",
            "This endpoint requires a valid Bearer token",
        )
    })?;
    let bad = || {
        let message = "invalid JWT: unable to parse or verify signature, or the token has expired";
        ApiError::forbidden("bad_jwt", message)
    };
    let now = inner.settings.clock.unix();
    let claims = inner.keys.lock().check(token, now).ok_or_else(bad)?;
    let uuid = |claim: &str| {
        let text = claims
            .get(claim)
            .and_then(Value::as_str)
            .unwrap_or_default();
        Uuid::parse_str(text).ok()
    };
    let user = uuid("sub")
        .ok_or_else(|| ApiError::forbidden("bad_jwt", "invalid claim: sub claim must be a UUID"))?;
    let state = inner.state.lock();
    let user = state.users.get(user).ok_or_else(user_not_found)?;
    if user.banned {
        return Err(banned(StatusCode::FORBIDDEN));
    }
    let session = uuid("session_id").filter(|session| state.sessions.contains(*session));
    let session = session.ok_or_else(|| {
        ApiError::forbidden(
            "session_not_found",
            "Session from session_id claim in JWT does not exist",
        )
    })?;
    Ok((user.clone(), session))
}

/// Opens a session for a user who has proven to be one.
pub(super) fn open_session(inner: &Inner, user: Uuid) -> Result<Issued, ApiError> {
    let clock = &inner.settings.clock;
    let (grant, user) = {
        let mut state = inner.state.lock();
        state.users.signed_in(user, clock);
        let known = state.users.get(user).cloned().ok_or_else(user_not_found)?;
        (state.sessions.open(user, clock.unix())?, known)
    };
    Issued::new(inner, &grant, &user)
}

/// A session as it goes to the client.
pub(super) struct Issued {
    pub(super) text: String,
    user: Uuid,
    session: Uuid,
}

/// Members in the order in which the real server writes them: applications keep this text in their cookies.
#[derive(Serialize)]
struct SessionView<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u64,
    expires_at: u64,
    refresh_token: &'a str,
    user: Value,
    weak_password: Option<()>,
}

impl Issued {
    fn new(inner: &Inner, grant: &Grant, user: &User) -> Result<Self, ApiError> {
        let settings = &inner.settings;
        let issued_at = settings.clock.unix();
        let expires_in = settings.token_life.as_secs();
        let expires_at = issued_at.saturating_add(expires_in);
        let claims = json!({
            "iss": settings.issuer,
            "sub": user.id.to_string(),
            "aud": "authenticated",
            "exp": expires_at,
            "iat": issued_at,
            "email": user.email,
            "phone": "",
            "app_metadata": user.app_metadata(),
            "user_metadata": user.user_metadata(),
            "role": "authenticated",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": grant.signed_in}],
            "session_id": grant.session.to_string(),
            "is_anonymous": false,
        });
        let access_token = inner.keys.lock().sign(&claims)?;
        let view = SessionView {
            access_token: &access_token,
            token_type: "bearer",
            expires_in,
            expires_at,
            refresh_token: &grant.refresh_token,
            user: user.view(),
            weak_password: None,
        };
        Ok(Self {
            text: serde_json::to_string(&view).map_err(|_| ApiError::unexpected())?,
            user: user.id,
            session: grant.session,
        })
    }

    fn response(self) -> Result<Response<Body>, ApiError> {
        let mut response = json_text(StatusCode::OK, self.text);
        for (name, id) in [
            ("sb-auth-user-id", self.user),
            ("sb-auth-session-id", self.session),
        ] {
            let id = HeaderValue::from_str(&id.to_string()).map_err(|_| ApiError::unexpected())?;
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), id);
        }
        Ok(response)
    }
}

/// A JSON object of at most [`BODY_BYTES_MAX`].
pub(super) async fn read<B, T>(body: B) -> Result<T, ApiError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    T: for<'de> Deserialize<'de>,
{
    let bad = || ApiError::bad_request("bad_json", "Could not parse request body as JSON");
    match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => {
            // By way of a map, because a struct would take an array as well.
            let object: Result<Map<String, Value>, _> = serde_json::from_slice(&body.to_bytes());
            object
                .and_then(|object| serde_json::from_value(Value::Object(object)))
                .map_err(|_| bad())
        }
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request_entity_too_large",
            "Request body too large",
        )),
        Err(_) => Err(bad()),
    }
}

/// Runs slow work on a thread of its own, a few at a time. Work once begun ends even when its caller goes away.
async fn hashing<T: Send + 'static>(
    inner: &Inner,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    let permit = inner.hashing.clone().acquire_owned().await;
    let permit = permit.map_err(|_| ApiError::unexpected())?;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    })
    .await
    .map_err(|_| ApiError::unexpected())
}

pub(super) fn bad_login() -> ApiError {
    ApiError::bad_request("invalid_credentials", "Invalid login credentials")
}

pub(super) fn banned(status: StatusCode) -> ApiError {
    ApiError::new(status, "user_banned", "User is banned")
}

fn user_not_found() -> ApiError {
    ApiError::forbidden(
        "user_not_found",
        "User from sub claim in JWT does not exist",
    )
}

fn cached(body: Value) -> Response<Body> {
    let mut response = json(StatusCode::OK, &body);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, PUBLIC_FOR_TEN_MINUTES);
    response
}

fn openid(issuer: &str) -> Value {
    json!({
        "issuer": issuer,
        "authorization_endpoint": format!("{issuer}/oauth/authorize"),
        "token_endpoint": format!("{issuer}/oauth/token"),
        "userinfo_endpoint": format!("{issuer}/oauth/userinfo"),
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "scopes_supported": ["openid", "email", "profile"],
        "token_endpoint_auth_methods_supported": ["none"],
        "code_challenge_methods_supported": ["S256"],
    })
}

fn settings() -> Value {
    json!({
        "external": {
            "anonymous_users": false,
            "email": true,
            "github": false,
            "google": false,
            "phone": false,
        },
        "disable_signup": false,
        "mailer_autoconfirm": true,
        "phone_autoconfirm": false,
        "sms_provider": "",
        "saml_enabled": false,
    })
}
