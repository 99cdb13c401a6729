//! What was found of each credential, and what would come of it. `text` writes it for people, `json` for machines.

use super::find::Seen;
use super::input::Form;
use super::peek::Peek;
use crate::exchange::{Code, Reject};
use crate::token::TokenError;
use crate::token::inspect::{Check, Finding, Inspection};
use std::sync::Arc;

/// All of it.
#[derive(Debug)]
pub struct Report {
    pub(super) form: Form,
    pub(super) entries: Vec<Entry>,
    /// What else is to be known of the input.
    pub(super) notes: Vec<String>,
    /// When it was looked at, in Unix seconds.
    pub(super) now: u64,
}

/// Where a credential stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the Authorization field.
    Authorization,
    /// In the Cookie field.
    Cookie,
    /// By itself.
    Word,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::Cookie => "cookie",
            Self::Word => "token",
        }
    }
}

/// One credential.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// The session of a cookie.
    pub(super) session: Option<Seen>,
    pub(super) token: Option<Examined>,
    pub(super) as_session: Verdict,
    pub(super) as_bearer: Verdict,
}

/// A token.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) peek: Peek,
    pub(super) inspection: Inspection,
    /// Name of the provider that it is of.
    pub(super) provider: Option<Arc<str>>,
    pub(super) wanted: Wanted,
    pub(super) max_bytes: usize,
    /// Why its keys could not be fetched.
    pub(super) keys_error: Option<Arc<str>>,
}

/// What the file wants to find in a token, in words.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Of every provider.
    pub(super) issuers: String,
    /// Of its own.
    pub(super) algorithms: String,
    pub(super) audiences: String,
}

/// What would come of it, on a route that lets nobody in without a credential and demands nothing else.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is taken.
    Accepted,
    /// It is taken, and its session gets a new token on the way.
    Renewed {
        /// Its token serves until then; else all depends on the provider.
        serving: bool,
        /// It becomes a session of ours.
        adopted: bool,
    },
    /// It is refused with this code, for this reason.
    Refused { code: Code, why: String },
    /// It is refused whatever its signature is, which nobody could check.
    Doomed { why: String },
    /// It depends on keys that are not at hand.
    Unknown { why: String },
    /// Nobody looks at it.
    NotLookedAt { why: String },
}

impl Verdict {
    /// `None`: nobody knows.
    pub(super) fn accepted(&self) -> Option<bool> {
        match self {
            Self::Accepted | Self::Renewed { .. } => Some(true),
            Self::Unknown { .. } => None,
            Self::Refused { .. } | Self::Doomed { .. } | Self::NotLookedAt { .. } => Some(false),
        }
    }

    /// Where it cannot be said what the signature is worth: what can be said. `renewable`: its session could get a new token.
    pub(super) fn without_keys(inspection: &Inspection, renewable: bool) -> Option<Self> {
        if *inspection.of(Check::Signature) != Finding::Withheld {
            return None;
        }
        let unknown = |why: &str| Self::Unknown {
            why: format!("{why}; --online fetches the keys"),
        };
        Some(match inspection.fault() {
            None => unknown("everything else holds"),
            Some(TokenError::Expired { .. }) if renewable => {
                unknown("its token is over, and it would be renewed if that is genuine")
            }
            Some(error) => Self::Doomed { why: reason(error) },
        })
    }

    pub(super) fn refused(reject: &Reject) -> Self {
        Self::Refused {
            code: reject.code(),
            why: reject.reason().to_owned(),
        }
    }

    pub(super) fn not_looked_at(why: &str) -> Self {
        Self::NotLookedAt {
            why: why.to_owned(),
        }
    }

    pub(super) fn no_session() -> Self {
        Self::not_looked_at("cookies are not looked at: the file has no [session]")
    }

    /// One word.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Renewed { .. } => "renewed",
            Self::Refused { .. } | Self::Doomed { .. } => "refused",
            Self::Unknown { .. } => "unknown",
            Self::NotLookedAt { .. } => "not_looked_at",
        }
    }
}

impl Report {
    /// Whether it would be taken in some form.
    pub fn is_accepted(&self) -> bool {
        let verdicts = self
            .entries
            .iter()
            .flat_map(|entry| [&entry.as_session, &entry.as_bearer]);
        verdicts
            .into_iter()
            .any(|verdict| verdict.accepted() == Some(true))
    }
}

impl Examined {
    /// Whether what it says is the provider's word.
    pub(super) fn is_proven(&self) -> bool {
        *self.inspection.of(Check::Signature) == Finding::Holds
    }
}

/// Why a token is refused, in a few words.
pub(super) fn reason(error: &TokenError) -> String {
    match error {
        TokenError::Refused { reason, .. } => reason.as_str().to_owned(),
        TokenError::Expired { .. } => "it is over".to_owned(),
        TokenError::Anonymous { .. } => {
            "an anonymous sign-in, and `anonymous_users` is \"deny\"".to_owned()
        }
        other => other.to_string(),
    }
}
