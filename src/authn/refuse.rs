//! What is said of a session that lets nobody in, and counted.

use super::prove::Prover;
use super::session::Request;
use crate::exchange::{Code, Credential, Reject};
use crate::session::renewal::NotRenewed;
use crate::session::stored::StoreError;
use crate::session::{Session, Told};
use crate::telemetry::metrics::AuthOutcome;
use crate::token::TokenError;
use http::HeaderMap;
use std::borrow::Cow;

impl Prover<'_> {
    /// Nothing serves, and nothing came of the renewal.
    pub(super) fn not_renewed(
        &self,
        session: &Session,
        why: NotRenewed,
        from: Request<'_>,
        told: &mut Told,
    ) -> Reject {
        match why {
            NotRenewed::Over { code } => {
                let why = format!("the provider ended it: {code}");
                self.gone(session, from.headers, told, why)
            }
            NotRenewed::Cannot => self.without_refresh_token(session),
            NotRenewed::TooOften(wait) => Reject::new(
                Code::RateLimited,
                "The session was renewed a moment ago. Wait as long as Retry-After says.",
            )
            .because("budget of renewals on demand is spent")
            .retry_after_in(wait),
            NotRenewed::Later { retry_after, why } => {
                self.count(session, AuthOutcome::Unavailable);
                not_now()
                    .because(why.to_string())
                    .retry_after_in(retry_after.unwrap_or_default())
            }
        }
    }

    /// A session that is over for good: its cookies go.
    pub(super) fn gone(
        &self,
        session: &Session,
        headers: &HeaderMap,
        told: &mut Told,
        why: impl Into<Cow<'static, str>>,
    ) -> Reject {
        told.set = session.clear(headers);
        self.count(session, AuthOutcome::Expired);
        ended().because(why)
    }

    /// Fails closed: a session of which nothing is known is neither one nor none.
    pub(super) fn away(&self, session: &Session, why: &StoreError) -> Reject {
        self.count(session, AuthOutcome::Unavailable);
        Reject::new(
            Code::AuthUnavailable,
            "Sessions are out of reach at the moment. Try again soon; yours is kept.",
        )
        .because(why.to_string())
    }

    /// Cookies that cannot be read. To the client they are no session, as they are to the real library; the operator wants to
    /// know.
    pub(super) fn unreadable(&self, session: &Session, why: &dyn std::fmt::Display) -> Reject {
        self.count(session, AuthOutcome::Invalid);
        missing().because(format!("the session cookie cannot be read: {why}"))
    }

    pub(super) fn not_renewable(&self, session: &Session) -> Reject {
        self.past(session, "it cannot be renewed here")
    }

    pub(super) fn without_refresh_token(&self, session: &Session) -> Reject {
        self.past(session, "it has no refresh token of ours")
    }

    pub(super) fn past(&self, session: &Session, why: impl Into<Cow<'static, str>>) -> Reject {
        self.count(session, AuthOutcome::Expired);
        expired().because(why)
    }

    pub(super) fn count(&self, session: &Session, outcome: AuthOutcome) {
        let (provider, kind) = (Some(session.provider), Credential::Session);
        self.metrics.auth(self.worker, provider, kind, outcome);
    }
}

/// It is over for good.
pub(super) fn ended() -> Reject {
    Reject::new(Code::SessionExpired, "The session is over. Sign in again.")
}

fn not_now() -> Reject {
    Reject::new(
        Code::AuthUnavailable,
        "The session cannot be renewed at the moment. Try again soon; it is kept.",
    )
}

pub(super) fn unusable(why: &str) -> Reject {
    not_now().because(format!("the renewed token: {why}"))
}

pub(super) fn missing() -> Reject {
    Reject::new(
        Code::MissingCredentials,
        "This address needs a session cookie or an Authorization: Bearer token.",
    )
}

pub(super) fn invalid() -> Reject {
    Reject::new(
        Code::InvalidToken,
        "The access token is not valid. Sign in again or send a valid one.",
    )
}

pub(super) fn expired() -> Reject {
    Reject::new(
        Code::TokenExpired,
        "The access token has expired. Refresh it or sign in again.",
    )
}

/// What the client is told: never which check failed.
pub(super) fn refusal(error: &TokenError) -> Reject {
    let reject = match error {
        TokenError::Expired { .. } => expired(),
        TokenError::KeysUnavailable { .. } => Reject::new(
            Code::AuthUnavailable,
            "The keys that verify credentials are out of reach. Try again soon.",
        )
        .retry_after(5),
        TokenError::Anonymous { .. } => Reject::new(
            Code::Forbidden,
            "Anonymous users are not allowed here. Sign in with an account.",
        ),
        _ => invalid(),
    };
    reject.because(error.to_string())
}
