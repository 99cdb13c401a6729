//! Supabase Auth (`URL/auth/v1`): passwords, codes, logins elsewhere, refresh and logout. What it answers, by status and
//! code, is in `answer`; how it is called in `call`.

mod answer;
mod call;
mod members;
pub mod pkce;
mod words;

pub use words::{Address, CodeKind, Credentials, Opened, Proof, Request, Scope};

use super::budget::{ProviderBudget, Purpose};
use super::error::{Code, LoginError, LogoutError, RefreshError};
use super::{Browser, Grant};
use crate::base::clock::Clock;
use crate::base::http_client::{self, Terms};
use crate::base::secret::Secret;
use crate::config::provider::{Provider, ProviderKind};
use crate::token::SetupError;
use answer::Failure;
use call::{Call, Lane, Line};
use pkce::{Challenge, Verifier};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use url::Url;
use words::Words;

/// Connections kept while nobody logs in or refreshes.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// Codes of a logout that say that there is nothing left to end.
const GONE: &[&str] = &["session_not_found", "user_not_found"];

/// What the configuration of a provider does not hold.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The API as browsers reach it, when that is not where we do.
    pub public_api: Option<&'a Url>,
    /// An `sb_secret_` (or the `service_role`) key, to be used in place of the publishable one: with it limits count for
    /// each browser's address, if the project is set so.
    pub secret_key: Option<&'a Secret<String>>,
    /// To be kept over reloads.
    pub budget: Arc<ProviderBudget>,
    /// Tells when tokens are over that come with a life instead of an end.
    pub clock: Clock,
    /// Where calls run; must run for as long as anybody logs in.
    pub control: Handle,
}

/// One project's Auth API.
#[derive(Debug)]
pub struct Supabase {
    name: Arc<str>,
    line: Arc<Line>,
    public_api: Url,
    budget: Arc<ProviderBudget>,
    clock: Clock,
}

impl Supabase {
    /// The API of a provider. `Ok(None)`: it is not of this kind.
    pub fn new(provider: &Provider, setup: Setup<'_>) -> Result<Option<Self>, SetupError> {
        let ProviderKind::Supabase {
            auth_api,
            publishable_key,
            ..
        } = &provider.kind
        else {
            return Ok(None);
        };
        let terms = Terms {
            deadline: provider.http_timeout,
            ca_file: provider.ca_file.as_deref(),
            plain_http: provider.allow_insecure_http,
            idle_max: IDLE_CONNECTIONS_MAX,
        };
        let client = http_client::client(auth_api, &terms)
            .map_err(|error| SetupError::of_client(&provider.name, auth_api, error))?;
        let line = Line::new(
            client,
            auth_api.clone(),
            publishable_key.as_ref(),
            setup.secret_key,
            provider.http_timeout,
            setup.control,
        )
        .map_err(|call::BadKey| SetupError::Key {
            provider: provider.name.clone(),
            what: "the API key",
            why: "it has characters that no header can have",
        })?;
        Ok(Some(Self {
            name: provider.name.clone(),
            line: Arc::new(line),
            public_api: setup.public_api.unwrap_or(auth_api).clone(),
            budget: setup.budget,
            clock: setup.clock,
        }))
    }

    /// The provider's name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Longest that anybody waits for a call: `http_timeout` and a little.
    pub fn patience(&self) -> Duration {
        self.line.patience()
    }

    /// A new session for a refresh token. Spends the token; use [`super::Refreshes`], so that nobody spends it twice.
    pub async fn refresh(
        &self,
        token: &Secret<String>,
        browser: &Browser,
    ) -> Result<Grant, RefreshError> {
        let words = Words {
            refresh_token: Some(token.expose()),
            ..Words::default()
        };
        let body = self
            .line
            .call(self.token_call("refresh_token", &words, browser, Lane::Refresh))
            .await?;
        Ok(self.grant(&body)?)
    }

    /// A session for an address and a password.
    pub async fn password(
        &self,
        given: &Credentials<'_>,
        browser: &Browser,
    ) -> Result<Grant, LoginError> {
        let words = given.words();
        let call = self.token_call("password", &words, browser, Lane::Login);
        let body = self.login(Purpose::Login, call).await?;
        self.opened(&body)
    }

    /// A session for the code that a login elsewhere came back with.
    pub async fn exchange(
        &self,
        code: &Secret<String>,
        verifier: &Verifier,
        browser: &Browser,
    ) -> Result<Grant, LoginError> {
        let words = Words {
            auth_code: Some(code.expose()),
            code_verifier: Some(verifier.secret().expose()),
            ..Words::default()
        };
        let call = self.token_call("pkce", &words, browser, Lane::Login);
        let body = self.login(Purpose::Login, call).await?;
        self.opened(&body)
    }

    /// A new user. Without a session when the address must be confirmed first, or is somebody's already and the provider
    /// does not say so.
    pub async fn signup(
        &self,
        given: &Credentials<'_>,
        request: &Request<'_>,
        browser: &Browser,
    ) -> Result<Opened, LoginError> {
        let mut words = given.words();
        request.add_to(&mut words);
        let call = login_call("/signup", request.query(), &words, browser);
        let body = self.login(Purpose::Send, call).await?;
        self.maybe_opened(&body)
    }

    /// Sends a one-time code or link to an address. `create_user`: also to one nobody has, who signs up with it.
    pub async fn otp(
        &self,
        address: Address<'_>,
        create_user: bool,
        request: &Request<'_>,
        browser: &Browser,
    ) -> Result<(), LoginError> {
        let mut words = Words {
            create_user: Some(create_user),
            ..address.words()
        };
        request.add_to(&mut words);
        let call = login_call("/otp", request.query(), &words, browser);
        let body = self.login(Purpose::Send, call).await?;
        if answer::is_object(&body) {
            Ok(())
        } else {
            Err(self.told(Failure::broken("a 200 without an answer of Auth")))
        }
    }

    /// A session for what was sent. Without one when the other address of a changed pair must be confirmed as well.
    pub async fn verify(&self, proof: &Proof<'_>, browser: &Browser) -> Result<Opened, LoginError> {
        let call = login_call("/verify", Vec::new(), &proof.words(), browser);
        let body = self.login(Purpose::Check, call).await?;
        self.maybe_opened(&body)
    }

    /// Where to send a browser that wants to log in at `provider` (`github`, …). It comes back to `redirect_to`, which the
    /// project must allow, with a code for [`Supabase::exchange`].
    pub fn authorize(
        &self,
        provider: &str,
        redirect_to: &Url,
        scopes: Option<&str>,
        challenge: &Challenge,
    ) -> Url {
        let mut url = self.public_api.clone();
        url.set_path(&format!("{}/authorize", url.path().trim_end_matches('/')));
        {
            let mut query = url.query_pairs_mut();
            query.clear().append_pair("provider", provider);
            query.append_pair("redirect_to", redirect_to.as_str());
            if let Some(scopes) = scopes {
                query.append_pair("scopes", scopes);
            }
            query.append_pair("code_challenge", challenge.as_str());
            query.append_pair("code_challenge_method", words::S256);
        }
        url
    }

    /// Ends sessions of the user whose access token this is. Fine when there is nothing left to end. Failures are for the
    /// caller to log, who may try again.
    pub async fn logout(
        &self,
        access_token: &Secret<String>,
        scope: Scope,
        browser: &Browser,
    ) -> Result<(), LogoutError> {
        let Some(user) = call::bearer(access_token) else {
            return Err(LogoutError::TokenRefused {
                code: Code::read("bad_jwt").unwrap_or_default(),
            });
        };
        let call = Call {
            path: "/logout",
            query: vec![("scope", scope.as_str().to_owned())],
            body: None,
            user: Some(user),
            browser: browser.clone(),
            lane: Lane::Logout,
        };
        match self.line.call(call).await {
            Ok(_) => Ok(()),
            Err(Failure::Refusal { code, .. }) if GONE.contains(&code.as_str()) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    fn token_call(
        &self,
        grant_type: &'static str,
        words: &Words<'_>,
        browser: &Browser,
        lane: Lane,
    ) -> Call {
        Call {
            lane,
            ..login_call(
                "/token",
                vec![("grant_type", grant_type.to_owned())],
                words,
                browser,
            )
        }
    }

    /// A call that draws on the budget. Refused by that, nothing is sent.
    async fn login(&self, purpose: Purpose, call: Call) -> Result<String, LoginError> {
        if let Err(wait) = self.budget.take(purpose) {
            return Err(LoginError::RateLimited {
                retry_after: Some(wait),
            });
        }
        self.line.call(call).await.map_err(|f| self.told(f))
    }

    /// The failure for the caller; what a person must know is logged.
    fn told(&self, failure: Failure) -> LoginError {
        let error = LoginError::from(failure);
        match &error {
            LoginError::Misconfigured { .. } => {
                tracing::error!(provider = %self.name, %error, "nobody can log in");
            }
            LoginError::Later { .. } => {
                tracing::warn!(provider = %self.name, %error, "a login failed");
            }
            LoginError::Refused { .. }
            | LoginError::Rejected { .. }
            | LoginError::RateLimited { .. } => {}
        }
        error
    }

    fn grant(&self, body: &str) -> Result<Grant, Failure> {
        answer::grant(body, self.clock.unix())
            .ok_or_else(|| Failure::broken("a success without a session"))
    }

    fn opened(&self, body: &str) -> Result<Grant, LoginError> {
        self.grant(body).map_err(|failure| self.told(failure))
    }

    /// Sign-up and verification may succeed without a session.
    fn maybe_opened(&self, body: &str) -> Result<Opened, LoginError> {
        match answer::grant(body, self.clock.unix()) {
            Some(grant) => Ok(Opened::Session(grant)),
            None if answer::is_object(body) => Ok(Opened::Pending),
            None => Err(self.told(Failure::broken("a 200 without an answer of Auth"))),
        }
    }
}

/// The code of [`RefreshError::Over`] that is written so: what another gateway says of a refusal.
pub(super) fn over(code: &str) -> Option<&'static str> {
    answer::over(code)
}

fn login_call(
    path: &'static str,
    query: Vec<(&'static str, String)>,
    words: &Words<'_>,
    browser: &Browser,
) -> Call {
    Call {
        path,
        query,
        body: Some(words.json()),
        user: None,
        browser: browser.clone(),
        lane: Lane::Login,
    }
}

#[cfg(test)]
mod tests;
