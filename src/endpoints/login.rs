//! Passwords and codes: log in, sign up, send a code, show it. Whether an address has an account is never told, as far as
//! the provider lets us.

use super::answer::Endpoints;
use super::body::{self, Given};
use super::{Asked, Sessions, refusal, reply};
use crate::base::body::Body;
use crate::exchange::Reject;
use crate::provider::supabase::{Credentials, Opened, Request};
use crate::provider::{Grant, LoginError};
use crate::session::view::view;
use http::Response;
use serde_json::json;

/// Codes of a sign-up that say that the address is somebody's.
const TAKEN: &[&str] = &["user_already_exists", "email_exists", "phone_exists"];
/// Codes of a one-time code that say that the address is nobody's, and nobody new is let in.
const NOBODYS: &[&str] = &["otp_disabled", "signup_disabled", "user_not_found"];

impl Endpoints {
    /// `POST login`: `{email|phone, password}`.
    pub(super) async fn login(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let given = body::read(asked.headers, asked.body)?;
        let account = given.account()?;
        let credentials = Credentials {
            address: account.address(),
            password: given.password()?,
            captcha: given.captcha(),
        };
        let provider = self.provider()?;
        sessions.account_limit(&account.key())?;
        let grant = provider
            .password(&credentials, &asked.browser)
            .await
            .map_err(refusal::of)?;
        self.opened(grant, &given, asked, sessions).await
    }

    /// `POST signup`: the same, and `data`. A session where the project asks for no confirmation.
    pub(super) async fn signup(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let given = body::read(asked.headers, asked.body)?;
        let account = given.account()?;
        let credentials = Credentials {
            address: account.address(),
            password: given.password()?,
            captcha: given.captcha(),
        };
        let request = Request {
            data: given.data(),
            ..Request::default()
        };
        let provider = self.provider()?;
        sessions.account_limit(&account.key())?;
        let outcome = provider
            .signup(&credentials, &request, &asked.browser)
            .await;
        match outcome {
            Ok(Opened::Session(grant)) => self.opened(grant, &given, asked, sessions).await,
            Ok(Opened::Pending) => Ok(self.pending(&given, asked)),
            Err(LoginError::Rejected { code, .. }) if TAKEN.contains(&code.as_str()) => {
                Ok(self.pending(&given, asked))
            }
            Err(error) => Err(refusal::of(error)),
        }
    }

    /// `POST otp`: `{email|phone, create_user, data}`. A code is on its way, or would be.
    pub(super) async fn otp(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let given = body::read(asked.headers, asked.body)?;
        let account = given.account()?;
        let request = Request {
            data: given.data(),
            captcha: given.captcha(),
            ..Request::default()
        };
        let create = given.create_user();
        let provider = self.provider()?;
        sessions.account_limit(&account.key())?;
        let outcome = provider
            .otp(account.address(), create, &request, &asked.browser)
            .await;
        match outcome {
            Ok(()) => Ok(self.pending(&given, asked)),
            Err(error) if tells_who_is_known(&error, create) => {
                tracing::info!(provider = %provider.name(), %error, "no code was sent, and the client is not told");
                Ok(self.pending(&given, asked))
            }
            Err(error) => Err(refusal::of(error)),
        }
    }

    /// `POST verify`: `{type, token_hash}` or `{type, token, email|phone}`.
    pub(super) async fn verify(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let given = body::read(asked.headers, asked.body)?;
        let account = match given.names_account() {
            true => Some(given.account()?),
            false => None,
        };
        let proof = given.proof(account.as_ref())?;
        let provider = self.provider()?;
        if let Some(account) = &account {
            sessions.account_limit(&account.key())?;
        }
        let outcome = provider.verify(&proof, &asked.browser).await;
        match outcome.map_err(refusal::of)? {
            Opened::Session(grant) => self.opened(grant, &given, asked, sessions).await,
            Opened::Pending => Ok(self.pending(&given, asked)),
        }
    }

    /// Somebody is logged in.
    async fn opened(
        &self,
        grant: Grant,
        given: &Given,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        let verified = sessions.open(grant, asked).await?;
        Ok(match self.onwards(given, asked) {
            Some(answer) => answer,
            None => reply::json(&view(&verified.identity)),
        })
    }

    /// Something must be confirmed first.
    fn pending(&self, given: &Given, asked: &Asked<'_>) -> Response<Body> {
        self.onwards(given, asked)
            .unwrap_or_else(|| reply::json(&json!({"pending": true})))
    }

    /// A form that says where to go is answered with the way there: its browser shows the answer to a person.
    fn onwards(&self, given: &Given, asked: &Asked<'_>) -> Option<Response<Body>> {
        let wanted = given.return_to.as_deref().filter(|_| given.by_form)?;
        Some(reply::see_other(&self.place(Some(wanted), asked)))
    }
}

/// Whether a failed code says whether the address has an account. Where nobody new is let in, the provider's own limit for
/// one address does, too: an address that nobody has never reaches it. It comes without a time, ours with one.
fn tells_who_is_known(error: &LoginError, create: bool) -> bool {
    match error {
        LoginError::Rejected { code, .. } => NOBODYS.contains(&code.as_str()),
        LoginError::Refused { code } => NOBODYS.contains(code),
        LoginError::RateLimited { retry_after: None } => !create,
        _ => false,
    }
}
