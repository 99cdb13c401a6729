//! The session endpoints: which there are, where they are, and the routes that lead to them (contract, section 5).

use super::parse_pattern;
use super::provider::{Provider, ProviderKind};
use super::route::Route;
use super::session::Session;
use http::Method;

/// One address below `session.endpoints`, with its method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An address and a password for a session.
    Login,
    /// A new user.
    Signup,
    /// Sends a one-time code or link.
    Otp,
    /// What was sent, for a session.
    Verify,
    /// The page behind a link in a message, whose button goes to `Verify`.
    Confirm,
    /// To a login elsewhere (PKCE).
    Start,
    /// Back from there.
    Callback,
    /// Who the caller is. The only one that may also stand at a path of the operator's: `endpoint = "session"`.
    Session,
    /// Renews the session now.
    Refresh,
    /// Ends it.
    Logout,
    /// Whatever else is asked for below the path of the endpoints: a password that goes astray must not go on to an
    /// application.
    Nothing,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Login,
        Self::Signup,
        Self::Otp,
        Self::Verify,
        Self::Confirm,
        Self::Start,
        Self::Callback,
        Self::Session,
        Self::Refresh,
        Self::Logout,
        Self::Nothing,
    ];

    /// Its path below `session.endpoints`. `Login` and `Start` share one.
    pub fn tail(self) -> &'static str {
        match self {
            Self::Login | Self::Start => "/login",
            Self::Signup => "/signup",
            Self::Otp => "/otp",
            Self::Verify => "/verify",
            Self::Confirm => "/confirm",
            Self::Callback => "/callback",
            Self::Session => "/session",
            Self::Refresh => "/refresh",
            Self::Logout => "/logout",
            Self::Nothing => "/*",
        }
    }

    /// `GET` or `POST`. Every `POST` goes through the CSRF check, also without a cookie: a page that is not ours must not
    /// be able to log its visitors in or out.
    pub fn method(self) -> Method {
        match self {
            Self::Confirm | Self::Start | Self::Callback | Self::Session | Self::Nothing => {
                Method::GET
            }
            Self::Login
            | Self::Signup
            | Self::Otp
            | Self::Verify
            | Self::Refresh
            | Self::Logout => Method::POST,
        }
    }

    /// Whether the limits for logins count it: a secret is tried, or the provider is asked, for somebody who has proven
    /// nothing. `Callback` does not ask without an attempt that this browser has begun, which was counted.
    pub fn tries_secrets(self) -> bool {
        !matches!(
            self,
            Self::Session | Self::Refresh | Self::Logout | Self::Callback | Self::Nothing
        )
    }

    /// Whether it reads a body. All others leave it alone.
    pub fn reads_body(self) -> bool {
        matches!(self, Self::Login | Self::Signup | Self::Otp | Self::Verify)
    }

    /// Whether only a caller gets an answer: the line proves one first.
    pub fn needs_caller(self) -> bool {
        self == Self::Session
    }

    /// Whether a provider can serve it. A Supabase project without its key can be asked for nothing, but whoever wants to
    /// log out must not be kept in.
    pub fn exists(self, kind: &ProviderKind) -> bool {
        match kind {
            ProviderKind::Supabase {
                publishable_key: Some(_),
                ..
            } => true,
            ProviderKind::Supabase { .. } | ProviderKind::Jwt => {
                matches!(self, Self::Session | Self::Logout | Self::Nothing)
            }
        }
    }
}

/// The routes to the endpoints that a session has.
pub(super) fn routes(session: &Session, providers: &[Provider]) -> Vec<Route> {
    let kind = providers.get(session.provider).map(|p| &p.kind);
    let (Some(base), Some(kind)) = (&session.endpoints, kind) else {
        return Vec::new();
    };
    Endpoint::ALL
        .into_iter()
        .filter(|endpoint| endpoint.exists(kind))
        .filter_map(|endpoint| {
            let path = parse_pattern::path(&format!("{base}{}", endpoint.tail())).ok()?;
            Some(Route::of_ours(endpoint, path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use std::collections::HashSet;

    #[test]
    fn no_two_endpoints_answer_the_same_request() {
        let places: HashSet<_> = Endpoint::ALL.map(|e| (e.method(), e.tail())).into();
        assert_eq!(places.len(), Endpoint::ALL.len());
    }

    #[test]
    fn only_what_the_provider_can_serve_exists() {
        let supabase = |key: Option<&str>| {
            let api: url::Url = "https://xyz.supabase.co/auth/v1".parse().unwrap();
            ProviderKind::Supabase {
                auth_api: api.clone(),
                public_api: api,
                publishable_key: key.map(|key| Secret::new(key.to_owned())),
                secret_key: None,
                anonymous_users: false,
                service_role: false,
            }
        };
        let found = |kind: &ProviderKind| {
            let all = Endpoint::ALL.into_iter();
            all.filter(|e| e.exists(kind)).collect::<Vec<_>>()
        };
        assert_eq!(found(&supabase(Some("k"))), Endpoint::ALL);
        for kind in [supabase(None), ProviderKind::Jwt] {
            let few = [Endpoint::Session, Endpoint::Logout, Endpoint::Nothing];
            assert_eq!(found(&kind), few);
        }
    }

    #[test]
    fn what_reads_a_body_is_a_post_and_tries_secrets() {
        for endpoint in Endpoint::ALL {
            if endpoint.reads_body() {
                assert_eq!(endpoint.method(), Method::POST);
                assert!(endpoint.tries_secrets());
            }
        }
        assert!(Endpoint::Confirm.tries_secrets() && Endpoint::Start.tries_secrets());
    }
}
