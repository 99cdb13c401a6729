//! What is said to Supabase Auth: the members of its request bodies, and the types that callers say them with.

use super::pkce::Challenge;
use crate::base::secret::Secret;
use crate::provider::Grant;
use serde::Serialize;
use serde_json::{Map, Value};
use std::fmt;
use url::Url;

/// `code_challenge_method`, as the library writes it.
pub(super) const S256: &str = "s256";

/// Whom a message reaches. Personal: `Debug` shows none of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Address<'a> {
    /// An email address.
    Email(&'a str),
    /// A telephone number.
    Phone(&'a str),
}

impl fmt::Debug for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email(_) => "Email",
            Self::Phone(_) => "Phone",
        })
    }
}

/// An address and a password.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Whose.
    pub address: Address<'a>,
    /// As it was typed.
    pub password: &'a Secret<String>,
    /// The answer of a captcha, where the project asks for one.
    pub captcha: Option<&'a str>,
}

/// What a sign-up or a code may say besides.
#[derive(Clone, Copy, Default)]
pub struct Request<'a> {
    /// `user_metadata` of a new user.
    pub data: Option<&'a Map<String, Value>>,
    /// The answer of a captcha. For a sign-up the one in its credentials counts.
    pub captcha: Option<&'a str>,
    /// Where the link in the message leads; the project must allow it.
    pub redirect_to: Option<&'a Url>,
    /// Makes the link bring a code for `exchange` instead of tokens.
    pub challenge: Option<&'a Challenge>,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request")
    }
}

/// What a code is for: `type` of `/verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeKind {
    /// Sign-up or magic link.
    Email,
    /// Sign-up.
    Signup,
    /// Magic link.
    MagicLink,
    /// A forgotten password.
    Recovery,
    /// An invitation.
    Invite,
    /// A new email address.
    EmailChange,
    /// A text message.
    Sms,
    /// A new telephone number.
    PhoneChange,
}

impl CodeKind {
    const ALL: &'static [(&'static str, Self)] = &[
        ("email", Self::Email),
        ("signup", Self::Signup),
        ("magiclink", Self::MagicLink),
        ("recovery", Self::Recovery),
        ("invite", Self::Invite),
        ("email_change", Self::EmailChange),
        ("sms", Self::Sms),
        ("phone_change", Self::PhoneChange),
    ];

    /// The kind with this name; `None`: there is none.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind)
    }

    fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.map_or("email", |(name, _)| name)
    }
}

/// What shows that a message arrived.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// The hash in a link.
    Hash {
        /// Of which message.
        kind: CodeKind,
        /// `token_hash`.
        hash: &'a Secret<String>,
    },
    /// The code that a person typed.
    Code {
        /// Of which message.
        kind: CodeKind,
        /// Where it went.
        address: Address<'a>,
        /// The digits.
        code: &'a Secret<String>,
    },
}

/// What a call that may open a session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It did.
    Session(Grant),
    /// Something must be confirmed first.
    Pending,
}

/// Which sessions a logout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This one.
    Local,
    /// All of the user's.
    Global,
    /// All of the user's but this one.
    Others,
}

impl Scope {
    /// The scope with this name; `None`: there is none.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Local, Self::Global, Self::Others]
            .into_iter()
            .find(|scope| scope.as_str() == name)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Global => "global",
            Self::Others => "others",
        }
    }
}

/// The body of any call: what is there is sent.
#[derive(Default, Serialize)]
#[serde(default)]
pub(super) struct Words<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) create_user: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<&'a Map<String, Value>>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) auth_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_verifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_challenge: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) code_challenge_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gotrue_meta_security: Option<Captcha<'a>>,
}

#[derive(Serialize)]
pub(super) struct Captcha<'a> {
    captcha_token: &'a str,
}

impl Words<'_> {
    /// Borrowed texts and numbers: nothing of it can fail to be written.
    pub(super) fn json(&self) -> Secret<String> {
        Secret::new(serde_json::to_string(self).unwrap_or_default())
    }
}

impl<'a> Address<'a> {
    pub(super) fn words(self) -> Words<'a> {
        let (email, phone) = match self {
            Self::Email(email) => (Some(email), None),
            Self::Phone(phone) => (None, Some(phone)),
        };
        Words {
            email,
            phone,
            ..Words::default()
        }
    }
}

impl<'a> Credentials<'a> {
    pub(super) fn words(&self) -> Words<'a> {
        Words {
            password: Some(self.password.expose()),
            gotrue_meta_security: self.captcha.map(|captcha_token| Captcha { captcha_token }),
            ..self.address.words()
        }
    }
}

impl<'a> Request<'a> {
    pub(super) fn add_to(&self, words: &mut Words<'a>) {
        words.data = self.data;
        if words.gotrue_meta_security.is_none() {
            words.gotrue_meta_security =
                self.captcha.map(|captcha_token| Captcha { captcha_token });
        }
        if let Some(challenge) = self.challenge {
            words.code_challenge = Some(challenge.as_str());
            words.code_challenge_method = Some(S256);
        }
    }

    pub(super) fn query(&self) -> Vec<(&'static str, String)> {
        let redirect = self.redirect_to.map(|url| ("redirect_to", url.to_string()));
        redirect.into_iter().collect()
    }
}

impl<'a> Proof<'a> {
    pub(super) fn words(&self) -> Words<'a> {
        match self {
            Self::Hash { kind, hash } => Words {
                kind: Some(kind.as_str()),
                token_hash: Some(hash.expose()),
                ..Words::default()
            },
            Self::Code {
                kind,
                address,
                code,
            } => Words {
                kind: Some(kind.as_str()),
                token: Some(code.expose()),
                ..address.words()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_scopes_are_known_by_name() {
        for (name, kind) in CodeKind::ALL {
            assert_eq!(CodeKind::named(name), Some(*kind));
            assert_eq!(kind.as_str(), *name);
        }
        assert_eq!(CodeKind::named("Email"), None);
        for name in ["local", "global", "others"] {
            assert_eq!(Scope::named(name).unwrap().as_str(), name);
        }
        assert_eq!(Scope::named(""), None);
    }
}
