//! For tests of whoever talks to the provider: what each endpoint was asked, and trouble on demand.
//! Never switched on by `tollhouse demo`.

use http::{Method, StatusCode};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Troubles that may wait at once; more are dropped.
const PLANNED_MAX: usize = 256;

macro_rules! endpoints {
    ($($variant:ident = $name:literal,)*) => {
        /// What can be asked of the provider.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Endpoint { $($variant,)* }

        impl Endpoint {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

endpoints! {
    Password = "token.password",
    Refresh = "token.refresh",
    Pkce = "token.pkce",
    OtherGrant = "token.other",
    Authorize = "authorize",
    Otp = "otp",
    Verify = "verify",
    Jwks = "jwks",
    OpenId = "openid",
    User = "user",
    Logout = "logout",
    Signup = "signup",
    Health = "health",
    Settings = "settings",
    Unknown = "unknown",
}

impl Endpoint {
    pub(super) fn of(method: &Method, path: &str, query: Option<&str>) -> Self {
        let Some(path) = path.strip_prefix("/auth/v1") else {
            return Self::Unknown;
        };
        match (method.as_str(), path) {
            ("POST", "/token") => match parameter(query, "grant_type").as_deref() {
                Some("password") => Self::Password,
                Some("refresh_token") => Self::Refresh,
                Some("pkce") => Self::Pkce,
                _ => Self::OtherGrant,
            },
            ("GET", "/.well-known/jwks.json") => Self::Jwks,
            ("GET", "/.well-known/openid-configuration") => Self::OpenId,
            ("GET", "/user") => Self::User,
            ("POST", "/logout") => Self::Logout,
            ("GET", "/authorize") => Self::Authorize,
            ("POST", "/otp") => Self::Otp,
            ("POST", "/verify") => Self::Verify,
            ("POST", "/signup") => Self::Signup,
            ("GET", "/health") => Self::Health,
            ("GET", "/settings") => Self::Settings,
            _ => Self::Unknown,
        }
    }

    fn named(name: &str) -> Self {
        let found = Self::ALL.iter().find(|endpoint| endpoint.name() == name);
        debug_assert!(found.is_some(), "the provider has no endpoint {name}");
        found.copied().unwrap_or(Self::Unknown)
    }
}

/// The first value of a query parameter, decoded.
pub(super) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    url::form_urlencoded::parse(query?.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody in front of Auth answers: this status and an HTML body.
    Status(StatusCode),
    /// Auth answers: this status and error code.
    Code(StatusCode, &'static str),
    /// This JSON text with this status.
    Answer(StatusCode, String),
    /// No answer ever.
    Hang,
    /// The work is done, but its answer is lost on the way: 502.
    LoseAnswer,
}

/// Requests to one endpoint wait while this lives.
#[derive(Debug)]
pub struct Hold(watch::Sender<Gate>);

#[derive(Clone, Copy, Debug, Default)]
struct Gate {
    open: bool,
    arrived: usize,
}

impl Hold {
    /// Waits until `requests` have come since the hold began.
    pub async fn arrived(&self, requests: usize) {
        let mut gate = self.0.subscribe();
        // The sender is `self`: it cannot go away.
        let _ = gate.wait_for(|gate| gate.arrived >= requests).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|gate| gate.open = true);
    }
}

/// Counters and planned troubles of every endpoint.
#[derive(Debug, Default)]
pub(super) struct Faults {
    counts: [AtomicU64; Endpoint::ALL.len()],
    planned: Mutex<VecDeque<(Endpoint, Fault)>>,
    holds: Mutex<Vec<(Endpoint, watch::Sender<Gate>)>>,
}

impl Faults {
    /// Counts a request, waits while the endpoint is held, and says what is to go wrong with it.
    pub(super) async fn meet(self: &Arc<Self>, endpoint: Endpoint) -> Option<Fault> {
        if let Some(count) = self.counts.get(endpoint as usize) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let gate = {
            let mut holds = self.holds.lock();
            holds.retain(|(_, gate)| !gate.borrow().open);
            holds
                .iter()
                .find(|(held, _)| *held == endpoint)
                .map(|(_, gate)| gate.clone())
        };
        if let Some(gate) = gate {
            let mut seen = gate.subscribe();
            gate.send_modify(|gate| gate.arrived += 1);
            let _ = seen.wait_for(|gate| gate.open).await;
        }
        let mut planned = self.planned.lock();
        let at = planned
            .iter()
            .position(|(planned, _)| *planned == endpoint)?;
        planned.remove(at).map(|(_, fault)| fault)
    }

    pub(super) fn count(&self, endpoint: &str) -> u64 {
        self.counts
            .get(Endpoint::named(endpoint) as usize)
            .map_or(0, |count| count.load(Ordering::SeqCst))
    }

    pub(super) fn plan(&self, endpoint: &str, fault: &Fault, times: usize) {
        let endpoint = Endpoint::named(endpoint);
        let mut planned = self.planned.lock();
        let room = PLANNED_MAX.saturating_sub(planned.len());
        planned.extend(std::iter::repeat_n(
            (endpoint, fault.clone()),
            times.min(room),
        ));
    }

    pub(super) fn forget(&self) {
        self.planned.lock().clear();
    }

    pub(super) fn hold(&self, endpoint: &str) -> Hold {
        let (gate, _) = watch::channel(Gate::default());
        let mut holds = self.holds.lock();
        holds.retain(|(_, gate)| !gate.borrow().open);
        holds.push((Endpoint::named(endpoint), gate.clone()));
        Hold(gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_found_by_method_path_and_grant() {
        let check = |method: Method, target: &str, expected: &str| {
            let uri: http::Uri = target.parse().unwrap();
            let found = Endpoint::of(&method, uri.path(), uri.query());
            assert_eq!(found.name(), expected, "{method} {target}");
        };
        check(
            Method::POST,
            "/auth/v1/token?grant_type=password",
            "token.password",
        );
        check(
            Method::POST,
            "/auth/v1/token?x=1&grant_type=refresh%5Ftoken",
            "token.refresh",
        );
        check(Method::POST, "/auth/v1/token?grant_type=pkce", "token.pkce");
        check(Method::POST, "/auth/v1/token", "token.other");
        check(Method::GET, "/auth/v1/token?grant_type=password", "unknown");
        check(Method::GET, "/auth/v1/.well-known/jwks.json", "jwks");
        check(Method::GET, "/user", "unknown");
        check(Method::GET, "/auth/v1/user", "user");
    }

    #[tokio::test]
    async fn troubles_come_in_order_and_only_where_planned() {
        let faults = Arc::new(Faults::default());
        faults.plan("jwks", &Fault::Hang, 2);
        faults.plan("jwks", &Fault::LoseAnswer, 1);
        assert_eq!(faults.meet(Endpoint::User).await, None);
        assert_eq!(faults.meet(Endpoint::Jwks).await, Some(Fault::Hang));
        assert_eq!(faults.meet(Endpoint::Jwks).await, Some(Fault::Hang));
        assert_eq!(faults.meet(Endpoint::Jwks).await, Some(Fault::LoseAnswer));
        assert_eq!(faults.meet(Endpoint::Jwks).await, None);
        assert_eq!((faults.count("jwks"), faults.count("user")), (4, 1));
    }

    #[tokio::test]
    async fn a_held_endpoint_lets_go_when_the_hold_is_dropped() {
        let faults = Arc::new(Faults::default());
        let hold = faults.hold("token.refresh");
        let waiting = {
            let faults = faults.clone();
            tokio::spawn(async move { faults.meet(Endpoint::Refresh).await })
        };
        hold.arrived(1).await;
        assert!(!waiting.is_finished());
        drop(hold);
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(faults.meet(Endpoint::Refresh).await, None);
    }
}
