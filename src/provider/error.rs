//! Why a provider gave nothing, in the words that sessions and endpoints act on. No status and no text for clients here.

use crate::base::secret::Secret;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Characters of a code that are kept.
const CODE_MAX: usize = 64;

/// Why a refresh token gave no new session. Shared by all who waited for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The grant is over for good. Ends the session.
    #[error("the provider refused the refresh token: {code}")]
    Over {
        /// The provider's word for why: `refresh_token_not_found`, `refresh_token_already_used`, `session_expired`,
        /// `session_not_found`, `user_not_found`, `user_banned`, `validation_failed` or `invalid_grant`.
        code: &'static str,
    },
    /// The session was made for an OAuth client of the provider (`invalid_client`): it lives, and can never be renewed
    /// here.
    #[error("the session belongs to an OAuth client and cannot be renewed here")]
    NotOurs,
    /// Out of reach, overloaded or busy. The session stays; another attempt may succeed.
    #[error("the provider could not renew the session now: {why}")]
    Later {
        /// How long it asks to be left alone, if it said.
        retry_after: Option<Duration>,
        /// For the log.
        why: Arc<str>,
    },
    /// The provider refuses us, not the session: a wrong key or address, or a refusal nobody knows. The session stays; a
    /// person must act.
    #[error("the provider refused the gateway: {why}")]
    Misconfigured {
        /// For the log.
        why: Arc<str>,
    },
}

/// Why nobody was logged in, signed up or sent a code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// What was shown proves nobody: wrong password, unknown or unconfirmed address, spent code, banned user. All of them
    /// are one answer for the client.
    #[error("the provider refused the credentials: {code}")]
    Refused {
        /// For the log: which of them it was.
        code: &'static str,
    },
    /// The provider does not take what was asked for (a weak password, sign-ups switched off, an address it does not
    /// send to), and says why. Tells who has an account: `user_already_exists`.
    #[error("the provider rejected the request: {code}")]
    Rejected {
        /// Its code.
        code: Code,
        /// Its sentence, written for people: one line of at most 300 characters. It may repeat what they typed, so no log
        /// has it.
        message: Secret<String>,
    },
    /// Too many attempts, by the provider's count or by `provider_budget`.
    #[error("too many attempts")]
    RateLimited {
        /// Until when, if known.
        retry_after: Option<Duration>,
    },
    /// Out of reach, overloaded or busy. Whether anything was done is not known.
    #[error("the provider could not answer now: {why}")]
    Later {
        /// How long it asks to be left alone, if it said.
        retry_after: Option<Duration>,
        /// For the log.
        why: Arc<str>,
    },
    /// The provider refuses us, not the user: a wrong key or address. A person must act.
    #[error("the provider refused the gateway: {why}")]
    Misconfigured {
        /// For the log.
        why: Arc<str>,
    },
}

/// Why the provider ended no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogoutError {
    /// It takes the access token for none or for an expired one, and so ended nothing. A renewed one may do.
    #[error("the provider refused the access token: {code}")]
    TokenRefused {
        /// For the log.
        code: Code,
    },
    /// Out of reach, overloaded or busy.
    #[error("the provider could not end the session now: {why}")]
    Later {
        /// How long it asks to be left alone, if it said.
        retry_after: Option<Duration>,
        /// For the log.
        why: Arc<str>,
    },
    /// The provider refuses us: a wrong key or address. A person must act.
    #[error("the provider refused the gateway: {why}")]
    Misconfigured {
        /// For the log.
        why: Arc<str>,
    },
}

/// A code of a provider's: at most 64 lower-case letters, digits and `_`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Code(Box<str>);

impl Code {
    /// `None`: it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        let shaped = !text.is_empty() && text.len() <= CODE_MAX && text.bytes().all(fine);
        shaped.then(|| Self(text.into()))
    }

    /// The code.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
