//! Which answers end with the session that they were asked for with, and how (contract, section 5, "Streams"): those that
//! last. Whether one does is seen from its head and as it passes, so that short ones, nearly all, cost nothing.

use super::facts::Exchange;
use crate::base::body::{Body, Ending};
use crate::exchange::{Credential, Verified};
use crate::headers::{events, grpc};
use crate::route::{Route, Target};
use crate::token::{Over, Tie, Tokens};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Body as _;
use std::sync::Arc;
use std::task::Context;

/// Bytes of an answer that is not held to last: when it has no more by its length, or has not passed more and was never
/// waited for.
const SHORT: u64 = 64 << 10;

/// How an answer is bound to its session.
#[derive(Debug)]
pub(super) enum Bond {
    /// Not at all: no session asked for it, its route leaves it alone, or it is short.
    Free,
    /// It is tied as soon as it turns out to last.
    Loose(Manner),
    /// It ends when its tie says so.
    Tied(Tie, Manner),
}

/// How an answer ends whose session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Like one that was cut short: nobody should take it for the whole.
    Cut,
    /// Like any other. A browser asks again for events that end, and hears 401 then; a connection that breaks may make its
    /// developer look for a fault in the network.
    Whole,
    /// With a status of gRPC.
    Status,
}

impl Bond {
    /// Of an answer as it goes out.
    pub(super) fn of_answer(route: Option<&Route>, ex: &Exchange, answer: &Response<Body>) -> Self {
        if !has_session(route, ex) {
            return Self::Free;
        }
        let length = answer.body().size_hint().exact();
        if length.is_some_and(|length| length <= SHORT) {
            return Self::Free;
        }
        Self::Loose(manner(ex.version, answer.headers()))
    }

    /// Of a connection that has become a tunnel.
    pub(super) fn of_tunnel(route: Option<&Route>, ex: &Exchange) -> Self {
        if has_session(route, ex) {
            Self::Loose(Manner::Cut)
        } else {
            Self::Free
        }
    }

    /// More of an answer is about to pass, of which so many bytes have. Says why it must not. `user`: who asked.
    pub(super) fn passes(
        &mut self,
        bytes: u64,
        tokens: &Tokens,
        user: Option<&Arc<Verified>>,
    ) -> Option<Over> {
        match self {
            Self::Free => None,
            Self::Loose(_) if bytes <= SHORT => None,
            Self::Loose(_) | Self::Tied(..) => self.tie(tokens, user)?.over(),
        }
    }

    /// More of an answer is waited for. Says why it should not be; if there is no reason, the task is woken when there is
    /// one.
    pub(super) fn waits(
        &mut self,
        cx: &mut Context<'_>,
        tokens: &Tokens,
        user: Option<&Arc<Verified>>,
    ) -> Option<Over> {
        match self {
            Self::Free => None,
            Self::Loose(_) | Self::Tied(..) => self.tie(tokens, user)?.poll_over(cx),
        }
    }

    fn tie(&mut self, tokens: &Tokens, user: Option<&Arc<Verified>>) -> Option<&Tie> {
        if let Self::Loose(manner) = self {
            *self = Self::Tied(tokens.tie(user?), *manner);
        }
        match self {
            Self::Tied(tie, _) => Some(tie),
            _ => None,
        }
    }

    /// Whether it has to do with a session.
    pub(super) fn is_free(&self) -> bool {
        matches!(self, Self::Free)
    }

    /// What the reader gets when the session is over; `None`: an error.
    pub(super) fn ending(&self) -> Option<Ending> {
        match self {
            Self::Free | Self::Loose(_) | Self::Tied(_, Manner::Cut) => None,
            Self::Tied(_, Manner::Whole) => Some(Ending::Whole),
            Self::Tied(_, Manner::Status) => {
                let mut trailers = HeaderMap::with_capacity(2);
                // UNAUTHENTICATED, as for any 401.
                trailers.insert("grpc-status", HeaderValue::from_static("16"));
                let code = HeaderValue::from_static("session_expired");
                trailers.insert("grpc-message", code);
                Some(Ending::Trailers(trailers))
            }
        }
    }
}

/// Bearer tokens and API keys are no sessions: whoever holds one has nothing that a logout here could end.
fn has_session(route: Option<&Route>, ex: &Exchange) -> bool {
    let by = ex.user.as_ref().map(|user| user.credential);
    by == Some(Credential::Session)
        && route.is_some_and(|route| {
            route.end_streams_with_session && matches!(route.target, Target::Upstream(_))
        })
}

fn manner(version: Version, headers: &HeaderMap) -> Manner {
    if events::is_event_stream(headers) {
        Manner::Whole
    } else if version == Version::HTTP_2 && grpc::is_grpc(headers) {
        Manner::Status
    } else {
        Manner::Cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn;
    use crate::base::clock::Clock;
    use crate::exchange::{Claims, Identity};
    use crate::headers::outbound::IdentityHeaders;
    use http::header::CONTENT_TYPE;
    use std::task::Waker;
    use std::time::Duration;
    use tokio::runtime::Handle;

    #[test]
    fn events_end_well_grpc_with_a_status_and_everything_else_is_cut() {
        let check = |version, content_type: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(manner(version, &headers), expected, "{content_type}");
        };
        for version in [Version::HTTP_11, Version::HTTP_2] {
            check(version, "text/event-stream", Manner::Whole);
            check(version, "text/event-stream; charset=utf-8", Manner::Whole);
            check(version, "application/x-ndjson", Manner::Cut);
            check(version, "application/grpc-web", Manner::Cut);
        }
        check(Version::HTTP_2, "application/grpc+proto", Manner::Status);
        // There it could only be told in trailers that few clients read.
        check(Version::HTTP_11, "application/grpc", Manner::Cut);
    }

    /// A session whose token is over for more than a minute.
    struct Scene {
        tokens: Tokens,
        user: Arc<Verified>,
        clock: Clock,
    }

    fn scene() -> Scene {
        let clock = Clock::frozen(1000);
        let identity = Identity {
            provider: "main".into(),
            user_id: "ada".into(),
            roles: Vec::new(),
            scopes: Vec::new(),
            claims: Claims::new(),
            expires_at: 2000,
            session_id: Some("s".into()),
            anonymous: false,
            api_key_id: None,
        };
        let headers = IdentityHeaders::compile(&[], false);
        let caller = authn::rehearse(identity, Credential::Session, &headers).unwrap();
        Scene {
            tokens: Tokens::new(&[], clock.clone(), Handle::current(), None).unwrap(),
            user: caller.verified().unwrap().clone(),
            clock,
        }
    }

    impl Scene {
        fn end(&self) {
            self.clock.advance(Duration::from_secs(2000));
            self.tokens.sweep_streams();
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_never_waited_for_is_tied_when_it_is_no_longer_short() {
        let scene = scene();
        let (tokens, user) = (&scene.tokens, Some(&scene.user));
        let mut bond = Bond::Loose(Manner::Cut);
        assert_eq!(bond.passes(SHORT, tokens, user), None);
        assert!(matches!(bond, Bond::Loose(_)));
        assert_eq!(bond.passes(SHORT + 1, tokens, user), None);
        scene.end();
        assert_eq!(bond.passes(SHORT + 2, tokens, user), Some(Over::Expired));
        assert!(bond.ending().is_none());
    }

    #[tokio::test]
    async fn an_answer_that_is_waited_for_is_tied_at_once() {
        let scene = scene();
        let (tokens, user) = (&scene.tokens, Some(&scene.user));
        let mut cx = Context::from_waker(Waker::noop());
        let mut bond = Bond::Loose(Manner::Whole);
        assert_eq!(bond.waits(&mut cx, tokens, user), None);
        assert!(matches!(bond, Bond::Tied(..)));
        scene.end();
        assert_eq!(bond.passes(0, tokens, user), Some(Over::Expired));
        assert_eq!(bond.waits(&mut cx, tokens, user), Some(Over::Expired));
        assert!(matches!(bond.ending(), Some(Ending::Whole)));
    }
}
