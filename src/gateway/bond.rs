//! Which answers end with the session that they were asked for with, and how (contract, section 5, "Streams"): those that
//! last. Whether one does is seen from its head and as it passes. Nearly all are over before they are tied: what those cost
//! is a deadline that is armed when the upstream is first waited for. On HTTP/1.1 it is the connection's own; a stream of
//! HTTP/2 makes one.

use super::facts::Exchange;
use super::flow::Beat;
use crate::base::body::{Body, Ending};
use crate::exchange::{Credential, Verified};
use crate::headers::{events, grpc};
use crate::route::{Route, Target};
use crate::token::{Over, Tie, Tokens};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Body as _;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

/// Bytes of an answer that is not held to last: when it has no more by its length, or has not passed more yet.
const SHORT: u64 = 64 << 10;
/// One that is waited for lasts when it is still open after so long, to within two ticks of the sweeper. Whoever logs out
/// meanwhile is not missed: that is asked when it is tied.
const BRIEF: Duration = Duration::from_secs(1);
/// Providers' libraries renew a token when so much of it is left, or less. Seconds.
const RENEWED_AHEAD: u64 = 120;
/// How long before that an answer is tied at once. Seconds.
const MARGIN: u64 = 5;

/// How an answer is bound to its session.
#[derive(Debug)]
pub(super) enum Bond {
    /// Not at all: no session asked for it, its route leaves it alone, or it is short.
    Free,
    /// It is tied as soon as it turns out to last.
    Loose(Manner),
    /// It is waited for, and is tied when it is still open after [`BRIEF`].
    Timed(Manner),
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
        beat: &Beat,
        tokens: &Tokens,
        user: Option<&Arc<Verified>>,
    ) -> Option<Over> {
        match self {
            Self::Free => None,
            Self::Loose(_) if bytes <= SHORT => None,
            Self::Timed(_) if bytes <= SHORT && !beat.lasting().has_passed() => None,
            Self::Loose(_) | Self::Timed(_) | Self::Tied(..) => self.tie(tokens, user)?.over(),
        }
    }

    /// More of an answer is waited for. Says why it should not be; if there is no reason, the task is woken when there is
    /// one, or when it is time to look for one.
    pub(super) fn waits(
        &mut self,
        cx: &mut Context<'_>,
        beat: &Beat,
        tokens: &Tokens,
        user: Option<&Arc<Verified>>,
    ) -> Option<Over> {
        match self {
            Self::Free => return None,
            Self::Loose(manner) if *manner != Manner::Whole && !is_renewed_soon(tokens, user?) => {
                *self = Self::Timed(*manner);
                let lasting = beat.lasting();
                lasting.arm(BRIEF);
                lasting.poll_passed(cx);
                return None;
            }
            Self::Timed(_) if !beat.lasting().poll_passed(cx) => return None,
            Self::Loose(_) | Self::Timed(_) | Self::Tied(..) => {}
        }
        self.tie(tokens, user)?.poll_over(cx)
    }

    fn tie(&mut self, tokens: &Tokens, user: Option<&Arc<Verified>>) -> Option<&Tie> {
        if let Self::Loose(manner) | Self::Timed(manner) = self {
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
            Self::Free | Self::Loose(_) | Self::Timed(_) | Self::Tied(_, Manner::Cut) => None,
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

/// Whether the session may get a new token any moment. Only what is tied hears of it: else this one would be taken for the
/// session's last. Those that we keep are renewed for what is open of them, and hear of it then.
fn is_renewed_soon(tokens: &Tokens, user: &Verified) -> bool {
    let by_others = user.identity.expires_at.saturating_sub(RENEWED_AHEAD);
    let renewal = match user.kept {
        Some(_) => by_others,
        None => by_others.min(user.renew_at),
    };
    tokens.clock().unix() >= renewal.saturating_sub(MARGIN)
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
    use crate::base::deadline::Sweeper;
    use crate::config::{self, provider::Provider};
    use crate::exchange::{Claims, Identity};
    use crate::gateway::{Flow, Pace, Pulse};
    use crate::headers::outbound::IdentityHeaders;
    use http::header::CONTENT_TYPE;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
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

    /// A session with an answer on a connection.
    struct Scene {
        tokens: Tokens,
        user: Arc<Verified>,
        clock: Clock,
        sweeper: Arc<Sweeper>,
        beat: Beat,
        woken: Arc<Count>,
    }

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn provider() -> Provider {
        let text = "[providers.main]\nkind = \"supabase\"\nurl = \"https://p.supabase.co\"\n\
                    jwt_secret = \"a shared secret of 32 bytes, yes\"\n\
                    [upstreams.app]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n";
        let file = std::path::Path::new("tollhouse.toml");
        let world = config::interpolate::ProcessEnvironment::default();
        let loaded = config::load(text, file, &world, config::Options::default());
        loaded.unwrap().providers[0].clone()
    }

    const NOW: u64 = 1000;
    const LIFE: u64 = 3600;

    fn scene(http_2: bool) -> Scene {
        let clock = Clock::frozen(NOW);
        let identity = Identity {
            provider: "main".into(),
            user_id: "ada".into(),
            roles: Vec::new(),
            scopes: Vec::new(),
            claims: Claims::new(),
            expires_at: NOW + LIFE,
            session_id: Some("s".into()),
            anonymous: false,
            api_key_id: None,
        };
        let headers = IdentityHeaders::compile(&[], false);
        let caller = authn::rehearse(identity, Credential::Session, &headers).unwrap();
        let mut user = caller.verified().unwrap().clone();
        drop(caller);
        Arc::get_mut(&mut user).unwrap().renew_at = u64::MAX;
        let sweeper = Sweeper::new();
        let pace = Arc::new(Pace {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            body_min_rate: 0,
            write_idle: Duration::from_secs(60),
        });
        let beat = match http_2 {
            true => Beat::Stream(Flow::begin(&Arc::new(Pulse::shared(&sweeper, pace)))),
            false => Beat::Line(Arc::new(Pulse::new(&sweeper, pace))),
        };
        Scene {
            tokens: Tokens::new(&[provider()], clock.clone(), Handle::current(), None).unwrap(),
            user,
            clock,
            sweeper,
            beat,
            woken: Arc::default(),
        }
    }

    impl Scene {
        fn passes(&self, bond: &mut Bond, bytes: u64) -> Option<Over> {
            bond.passes(bytes, &self.beat, &self.tokens, Some(&self.user))
        }

        fn waits(&self, bond: &mut Bond) -> Option<Over> {
            let waker = Waker::from(self.woken.clone());
            let mut cx = Context::from_waker(&waker);
            bond.waits(&mut cx, &self.beat, &self.tokens, Some(&self.user))
        }

        fn at(&self, millis: u64) {
            self.sweeper.tick_at(Duration::from_millis(millis));
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }

        fn tied(&self) -> usize {
            self.tokens.sessions_with_streams()
        }

        fn log_out(&self) {
            self.tokens.end_session(0, "s", NOW + LIFE);
        }

        /// Its token is over for a minute.
        fn expire(&self) {
            self.clock.advance(Duration::from_secs(LIFE + 60));
            self.tokens.sweep_streams();
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_never_waited_for_is_tied_when_it_is_no_longer_short() {
        let scene = scene(false);
        let mut bond = Bond::Loose(Manner::Cut);
        assert_eq!(scene.passes(&mut bond, SHORT), None);
        assert_eq!(scene.tied(), 0);
        assert_eq!(scene.passes(&mut bond, SHORT + 1), None);
        assert_eq!(scene.tied(), 1);
        scene.expire();
        assert_eq!(scene.passes(&mut bond, SHORT + 2), Some(Over::Expired));
        assert!(bond.ending().is_none());
    }

    #[tokio::test]
    async fn events_are_tied_as_soon_as_they_are_waited_for() {
        let scene = scene(false);
        let mut bond = Bond::Loose(Manner::Whole);
        assert_eq!(scene.waits(&mut bond), None);
        assert_eq!(scene.tied(), 1);
        scene.expire();
        assert_eq!(scene.woken(), 1);
        assert_eq!(scene.passes(&mut bond, 0), Some(Over::Expired));
        assert_eq!(scene.waits(&mut bond), Some(Over::Expired));
        assert!(matches!(bond.ending(), Some(Ending::Whole)));
    }

    #[tokio::test]
    async fn an_answer_that_comes_in_pieces_and_is_soon_over_is_never_tied() {
        for http_2 in [false, true] {
            let scene = scene(http_2);
            // One after the other, and the deadline of each begins anew.
            for start in [0, 900, 1800] {
                scene.at(start);
                let mut bond = Bond::Loose(Manner::Cut);
                for millis in [0, 100, 400, 800] {
                    scene.at(start + millis);
                    assert_eq!(scene.waits(&mut bond), None);
                    assert_eq!(scene.passes(&mut bond, 100), None);
                    assert_eq!((scene.tied(), scene.woken()), (0, 0));
                }
            }
        }
    }

    #[tokio::test]
    async fn an_answer_that_stays_silent_is_woken_to_be_tied_and_ends_with_its_session() {
        for http_2 in [false, true] {
            for manner in [Manner::Cut, Manner::Status] {
                let scene = scene(http_2);
                let mut bond = Bond::Loose(manner);
                assert_eq!(scene.waits(&mut bond), None);
                scene.at(1000);
                assert_eq!((scene.tied(), scene.woken()), (0, 0));
                scene.at(1200);
                assert_eq!(scene.woken(), 1);
                assert_eq!(scene.waits(&mut bond), None);
                assert_eq!(scene.tied(), 1);
                scene.log_out();
                assert_eq!(scene.woken(), 2);
                assert_eq!(scene.waits(&mut bond), Some(Over::Ended));
                assert_eq!(bond.ending().is_some(), manner == Manner::Status);
            }
        }
    }

    #[tokio::test]
    async fn a_logout_before_it_is_tied_is_not_missed() {
        for waits in [true, false] {
            let scene = scene(false);
            let mut bond = Bond::Loose(Manner::Cut);
            assert_eq!(scene.waits(&mut bond), None);
            scene.log_out();
            scene.at(1200);
            assert_eq!(scene.woken(), 1);
            // Woken while more has come, or has not.
            let over = match waits {
                true => scene.waits(&mut bond),
                false => scene.passes(&mut bond, 100),
            };
            assert_eq!(over, Some(Over::Ended));
        }
    }

    #[tokio::test]
    async fn where_a_new_token_may_come_any_moment_it_is_tied_at_once_to_hear_of_it() {
        for (left, tied) in [(RENEWED_AHEAD + MARGIN + 1, 0), (RENEWED_AHEAD + MARGIN, 1)] {
            let scene = scene(false);
            scene.clock.advance(Duration::from_secs(LIFE - left));
            let mut bond = Bond::Loose(Manner::Cut);
            assert_eq!(scene.waits(&mut bond), None);
            assert_eq!(scene.tied(), tied, "{left}");
        }
    }
}
