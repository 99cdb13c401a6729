//! What goes on after its request was proven (a WebSocket, an event stream, a download), tied to the session that it was
//! opened with. A session takes its streams along: at once when it is ended here, and a minute after its token is over when
//! no newer token of it has verified meanwhile. Bounded by the connections: each tie is an open stream's.
//!
//! Nothing here is on the path of a request. A tie is made when an answer turns out to last; the end of a token is looked
//! for once a second for all sessions, not by a timer for each stream.

use crate::base::clock::Clock;
use crate::exchange::{Identity, Verified};
use crate::limit::keyed;
use foldhash::fast::RandomState;
use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use tokio::runtime::Handle;

/// How long a stream goes on after the token of its session is over: another request of the session may bring the next one.
/// Seconds.
pub const GRACE: u64 = 60;
/// A session that is renewed for its streams is renewed so long before its token is over, or when a fifth of what the token
/// had left is left, whichever is later. Seconds.
const AHEAD: u64 = 30;
const PART_OF_LIFE: u64 = 5;
/// After a renewal that brought nothing, the next is tried. Seconds.
const RETRY: u64 = 10;
/// Renewals under way at once.
const RENEWALS_MAX: usize = 64;
/// Locks, so that workers do not wait for each other.
const SHARDS: usize = 16;

/// Why a stream is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its session was ended: a logout.
    Ended,
    /// Its session's token is over, and no newer one has come.
    Expired,
}

/// Renews sessions for the streams that are open, where the gateway may do so without being asked by a browser (mode
/// `stored`). Kept beyond the configuration that it belongs to: it must not own a [`super::Tokens`].
pub trait Renewer: fmt::Debug + Send + Sync {
    /// Renews the session that `newest` was proven by, and gives the `exp` of its new token, in Unix seconds. `None`: not
    /// now; it is asked again, until a minute after the end of the token. Runs on the control runtime with a deadline of
    /// its own, and for one session once at a time.
    fn renew(&self, newest: Arc<Verified>) -> BoxFuture<'static, Option<u64>>;
}

impl super::Tokens {
    /// How many sessions have streams that are tied to them.
    pub fn sessions_with_streams(&self) -> usize {
        self.streams.sessions.load(Ordering::Relaxed)
    }
}

/// The open streams of the process, by session.
pub(super) struct Streams {
    shards: [Mutex<HashMap<u128, Session, RandomState>>; SHARDS],
    /// Sessions in them. 0 spares the look-up.
    sessions: AtomicUsize,
    /// How many had no session to share.
    alone: AtomicU64,
    renewer: RwLock<Option<Arc<dyn Renewer>>>,
    renewing: AtomicUsize,
    clock: Clock,
    control: Handle,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("sessions", &self.sessions.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// A session with open streams.
struct Session {
    /// The latest `exp` of a token of it that verified. Unix seconds.
    exp: u64,
    /// When it should be renewed, if somebody does.
    due: u64,
    renewing: bool,
    /// What proved the stream whose token lasts longest.
    newest: Arc<Verified>,
    seats: Vec<Arc<Seat>>,
}

/// A stream's place in its session.
struct Seat {
    key: u128,
    /// Its index there. Changes only under the shard's lock.
    at: AtomicUsize,
    over: AtomicU8,
    waker: AtomicWaker,
}

const GOES_ON: u8 = 0;
const ENDED: u8 = 1;
const EXPIRED: u8 = 2;

/// What ties a stream to its session. The stream is forgotten when this is dropped.
pub struct Tie {
    streams: Arc<Streams>,
    seat: Arc<Seat>,
}

impl fmt::Debug for Tie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tie").field(&self.over()).finish()
    }
}

impl Tie {
    /// Why the stream is to end, if it is.
    pub fn over(&self) -> Option<Over> {
        match self.seat.over.load(Ordering::Acquire) {
            ENDED => Some(Over::Ended),
            EXPIRED => Some(Over::Expired),
            _ => None,
        }
    }

    /// As [`Tie::over`]; if it is not, the task is woken when it is. One task waits at a time.
    pub fn poll_over(&self, cx: &mut Context<'_>) -> Option<Over> {
        self.seat.waker.register(cx.waker());
        self.over()
    }

    pub(super) fn end(&self, why: Over) {
        self.seat.end(why);
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.streams.loosen(&self.seat);
    }
}

impl Seat {
    fn end(&self, why: Over) {
        let why = match why {
            Over::Ended => ENDED,
            Over::Expired => EXPIRED,
        };
        self.over.store(why, Ordering::Release);
        self.waker.wake();
    }
}

impl Session {
    /// A token of it that ends then has verified.
    fn heard(&mut self, exp: u64, now: u64) {
        if exp > self.exp {
            self.exp = exp;
            let left = exp.saturating_sub(now);
            self.due = exp.saturating_sub(AHEAD.min(left / PART_OF_LIFE));
        }
    }
}

impl Streams {
    pub(super) fn new(clock: Clock, control: Handle) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            sessions: AtomicUsize::new(0),
            alone: AtomicU64::new(0),
            renewer: RwLock::default(),
            renewing: AtomicUsize::new(0),
            clock,
            control,
        })
    }

    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, Session, RandomState>> {
        &self.shards[(key % SHARDS as u128) as usize]
    }

    /// Who renews sessions from now on.
    pub(super) fn renew_with(&self, renewer: Option<Arc<dyn Renewer>>) {
        *self.renewer.write() = renewer;
    }

    /// Ties a stream to the session that proved it. A token that names no session is one of its own: no other says that it
    /// goes on, and no logout can name it.
    pub(super) fn tie(self: &Arc<Self>, proof: &Arc<Verified>) -> Tie {
        let key = key(&proof.identity)
            .unwrap_or_else(|| u128::from(self.alone.fetch_add(1, Ordering::Relaxed)));
        let now = self.clock.unix();
        let exp = proof.identity.expires_at;
        let mut sessions = self.shard(key).lock();
        let session = sessions.entry(key).or_insert_with(|| {
            self.sessions.fetch_add(1, Ordering::Relaxed);
            Session {
                exp: 0,
                due: 0,
                renewing: false,
                newest: proof.clone(),
                seats: Vec::new(),
            }
        });
        // One that cannot be renewed by us is no better for being newer.
        let renewable = proof.kept.is_some() || session.newest.kept.is_none();
        if renewable && exp > session.newest.identity.expires_at {
            session.newest = proof.clone();
        }
        session.heard(exp, now);
        let seat = Arc::new(Seat {
            key,
            at: AtomicUsize::new(session.seats.len()),
            over: AtomicU8::new(GOES_ON),
            waker: AtomicWaker::new(),
        });
        session.seats.push(seat.clone());
        drop(sessions);
        let streams = self.clone();
        Tie { streams, seat }
    }

    fn loosen(&self, seat: &Arc<Seat>) {
        let mut sessions = self.shard(seat.key).lock();
        let Some(session) = sessions.get_mut(&seat.key) else {
            return;
        };
        let at = seat.at.load(Ordering::Relaxed);
        // The session may have ended, and another one under its name have begun.
        if !session.seats.get(at).is_some_and(|s| Arc::ptr_eq(s, seat)) {
            return;
        }
        session.seats.swap_remove(at);
        if let Some(moved) = session.seats.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
        if session.seats.is_empty() {
            sessions.remove(&seat.key);
            self.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A token has verified: its session lasts at least as long.
    pub(super) fn heard(&self, identity: &Identity) {
        if self.sessions.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(key) = key(identity) else { return };
        if let Some(session) = self.shard(key).lock().get_mut(&key) {
            session.heard(identity.expires_at, self.clock.unix());
        }
    }

    /// Ends the streams of a session.
    pub(super) fn end(&self, provider: &str, session: &str) {
        let key = key_of(provider, session);
        let gone = self.shard(key).lock().remove(&key);
        if let Some(session) = gone {
            self.sessions.fetch_sub(1, Ordering::Relaxed);
            // Not under the lock: who is woken may let go at once.
            session.seats.iter().for_each(|seat| seat.end(Over::Ended));
        }
    }

    /// Ends the streams of sessions that are over, and renews those that can be. To be called every second.
    pub(super) fn sweep(self: &Arc<Self>) {
        if self.sessions.load(Ordering::Relaxed) == 0 {
            return;
        }
        let now = self.clock.unix();
        let renewer = self.renewer.read().clone();
        for shard in &self.shards {
            let (mut over, mut due) = (Vec::new(), Vec::new());
            shard.lock().retain(|key, session| {
                if now >= session.exp.saturating_add(GRACE) {
                    over.append(&mut session.seats);
                    self.sessions.fetch_sub(1, Ordering::Relaxed);
                    return false;
                }
                if renewer.is_some() && now >= session.due && !session.renewing {
                    if self.renewing.fetch_add(1, Ordering::Relaxed) < RENEWALS_MAX {
                        session.renewing = true;
                        due.push((*key, session.newest.clone()));
                    } else {
                        self.renewing.fetch_sub(1, Ordering::Relaxed);
                    }
                }
                true
            });
            over.iter().for_each(|seat| seat.end(Over::Expired));
            for (key, newest) in due {
                if let Some(renewer) = renewer.clone() {
                    let renewal = Renewal {
                        streams: self.clone(),
                        key,
                        brought: None,
                    };
                    self.control.spawn(renewal.run(renewer, newest));
                }
            }
        }
    }

    fn renewed(&self, key: u128, exp: Option<u64>) {
        self.renewing.fetch_sub(1, Ordering::Relaxed);
        let now = self.clock.unix();
        if let Some(session) = self.shard(key).lock().get_mut(&key) {
            session.renewing = false;
            session.heard(exp.unwrap_or(0), now);
            let brought = exp.is_some_and(|exp| exp > now);
            session.due = session.due.max(now + if brought { 1 } else { RETRY });
        }
    }
}

/// One renewal under way. One that panics has brought nothing.
struct Renewal {
    streams: Arc<Streams>,
    key: u128,
    brought: Option<u64>,
}

impl Renewal {
    async fn run(mut self, renewer: Arc<dyn Renewer>, newest: Arc<Verified>) {
        self.brought = renewer.renew(newest).await;
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.streams.renewed(self.key, self.brought);
    }
}

/// What a session is known by here; `None`: its token names none.
fn key(identity: &Identity) -> Option<u128> {
    let session = identity.session_id.as_deref()?;
    Some(key_of(&identity.provider, session))
}

fn key_of(provider: &str, session: &str) -> u128 {
    keyed(&[provider.as_bytes(), session.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Claims, Credential};
    use std::sync::atomic::AtomicBool;
    use std::task::{Wake, Waker};
    use std::time::Duration;

    const NOW: u64 = 1_000_000;

    struct Scene {
        clock: Clock,
        streams: Arc<Streams>,
    }

    fn scene() -> Scene {
        let clock = Clock::frozen(NOW);
        let streams = Streams::new(clock.clone(), Handle::current());
        Scene { clock, streams }
    }

    fn proof(session: Option<&str>, lives: u64) -> Arc<Verified> {
        Arc::new(Verified {
            identity: Identity {
                provider: "main".into(),
                user_id: "ada".into(),
                roles: Vec::new(),
                scopes: Vec::new(),
                claims: Claims::new(),
                expires_at: NOW + lives,
                session_id: session.map(Into::into),
                anonymous: false,
                api_key_id: None,
            },
            credential: Credential::Session,
            authorization: None,
            headers: Vec::new(),
            provider: 0,
            epoch: 0,
            renew_at: u64::MAX,
            kept: None,
            user_key: 0,
            weight: 0,
        })
    }

    impl Scene {
        fn tie(&self, session: &str, lives: u64) -> Tie {
            self.streams.tie(&proof(Some(session), lives))
        }

        /// The clock stands so many seconds after its start, and sessions are looked at.
        async fn at(&self, seconds: u64) {
            let ahead = NOW + seconds - self.clock.unix();
            self.clock.advance(Duration::from_secs(ahead));
            self.streams.sweep();
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
        }

        fn sessions(&self) -> usize {
            let there: usize = self.streams.shards.iter().map(|s| s.lock().len()).sum();
            assert_eq!(there, self.streams.sessions.load(Ordering::Relaxed));
            there
        }
    }

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_session_that_is_ended_takes_all_its_streams_along_and_no_others() {
        let scene = scene();
        let ties = [scene.tie("a", 3600), scene.tie("a", 1800)];
        let other = scene.tie("b", 3600);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        for tie in ties.iter().chain([&other]) {
            assert_eq!(tie.poll_over(&mut Context::from_waker(&waker)), None);
        }
        scene.streams.end("another", "a");
        assert!(!flag.0.load(Ordering::Relaxed));
        scene.streams.end("main", "a");
        // Nobody had to look: the tasks are woken by whoever ends the session.
        assert!(flag.0.load(Ordering::Relaxed));
        assert!(ties.iter().all(|tie| tie.over() == Some(Over::Ended)));
        assert_eq!((other.over(), scene.sessions()), (None, 1));
        drop(ties);
        assert_eq!(scene.sessions(), 1);
    }

    #[tokio::test]
    async fn a_stream_ends_a_minute_after_the_token_unless_a_newer_one_has_verified() {
        let scene = scene();
        let (first, second) = (scene.tie("a", 100), scene.tie("b", 100));
        let flag = Arc::new(Flag::default());
        first.poll_over(&mut Context::from_waker(&Waker::from(flag.clone())));
        scene.at(159).await;
        assert_eq!((first.over(), second.over()), (None, None));
        scene.streams.heard(&proof(Some("b"), 259).identity);
        scene.at(160).await;
        assert_eq!((first.over(), second.over()), (Some(Over::Expired), None));
        assert!(flag.0.load(Ordering::Relaxed));
        // An older token says nothing.
        scene.streams.heard(&proof(Some("b"), 50).identity);
        scene.at(318).await;
        assert_eq!(second.over(), None);
        scene.at(319).await;
        assert_eq!(second.over(), Some(Over::Expired));
        assert_eq!(scene.sessions(), 0);
    }

    #[tokio::test]
    async fn a_stream_that_is_opened_with_a_newer_token_keeps_the_older_ones_too() {
        let scene = scene();
        let old = scene.tie("a", 100);
        let new = scene.tie("a", 200);
        scene.at(200).await;
        assert_eq!((old.over(), new.over()), (None, None));
        // The one with the newer token may be gone.
        drop(new);
        scene.at(259).await;
        assert_eq!(old.over(), None);
        scene.at(260).await;
        assert_eq!(old.over(), Some(Over::Expired));
    }

    #[tokio::test]
    async fn without_a_session_id_only_the_own_token_counts() {
        let scene = scene();
        let short = scene.streams.tie(&proof(None, 100));
        let long = scene.streams.tie(&proof(None, 200));
        scene.streams.heard(&proof(None, 300).identity);
        scene.at(160).await;
        assert_eq!((short.over(), long.over()), (Some(Over::Expired), None));
    }

    #[tokio::test]
    async fn who_lets_go_is_forgotten_in_any_order() {
        let scene = scene();
        let mut ties: Vec<Tie> = (0..5).map(|_| scene.tie("a", 100)).collect();
        drop(ties.swap_remove(0));
        drop(ties.swap_remove(1));
        drop(ties.pop());
        assert_eq!(scene.sessions(), 1);
        scene.streams.end("main", "a");
        assert!(ties.iter().all(|tie| tie.over() == Some(Over::Ended)));
        // Another stream under the same name is not taken along by those who let go late.
        let late = scene.tie("a", 100);
        drop(ties);
        assert_eq!(scene.sessions(), 1);
        drop(late);
        assert_eq!(scene.sessions(), 0);
    }

    /// Gives each session so many seconds more, so many times.
    #[derive(Debug)]
    struct Gives {
        seconds: u64,
        times: AtomicUsize,
        asked: AtomicUsize,
        clock: Clock,
    }

    impl Renewer for Gives {
        fn renew(&self, newest: Arc<Verified>) -> BoxFuture<'static, Option<u64>> {
            assert_eq!(newest.identity.session_id.as_deref(), Some("a"));
            self.asked.fetch_add(1, Ordering::Relaxed);
            let left = self.times.load(Ordering::Relaxed);
            self.times.store(left.saturating_sub(1), Ordering::Relaxed);
            let exp = (left > 0).then(|| self.clock.unix() + self.seconds);
            Box::pin(async move { exp })
        }
    }

    fn gives(scene: &Scene, seconds: u64, times: usize) -> Arc<Gives> {
        let renewer = Arc::new(Gives {
            seconds,
            times: AtomicUsize::new(times),
            asked: AtomicUsize::new(0),
            clock: scene.clock.clone(),
        });
        scene.streams.renew_with(Some(renewer.clone()));
        renewer
    }

    #[tokio::test]
    async fn a_session_is_renewed_once_for_all_its_streams_shortly_before_its_token_is_over() {
        let scene = scene();
        let renewer = gives(&scene, 100, 1);
        let asked = || renewer.asked.load(Ordering::Relaxed);
        let ties = [scene.tie("a", 1000), scene.tie("a", 1000)];
        scene.at(969).await;
        assert_eq!(asked(), 0);
        scene.at(970).await;
        scene.at(971).await;
        assert_eq!(asked(), 1);
        // The new token lives for a hundred seconds: a fifth of them is left.
        scene.at(970 + 79).await;
        assert_eq!(asked(), 1);
        scene.at(970 + 80).await;
        assert_eq!(asked(), 2);
        // That one brought nothing; it is tried again, and in the end the session is over.
        scene.at(970 + 89).await;
        assert_eq!(asked(), 2);
        scene.at(970 + 90).await;
        assert_eq!(asked(), 3);
        scene.at(970 + 159).await;
        assert!(ties.iter().all(|tie| tie.over().is_none()));
        scene.at(970 + 160).await;
        assert!(ties.iter().all(|tie| tie.over() == Some(Over::Expired)));
    }

    #[derive(Debug)]
    struct Panics(AtomicUsize);

    impl Renewer for Panics {
        fn renew(&self, _: Arc<Verified>) -> BoxFuture<'static, Option<u64>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { panic!("a renewer that fails") })
        }
    }

    #[tokio::test]
    async fn a_renewal_that_panics_is_one_that_brought_nothing_and_only_so_many_run_at_once() {
        let scene = scene();
        let renewer = Arc::new(Panics(AtomicUsize::new(0)));
        scene.streams.renew_with(Some(renewer.clone()));
        let ties: Vec<Tie> = (0..2 * RENEWALS_MAX)
            .map(|number| scene.tie(&number.to_string(), 100))
            .collect();
        scene.at(90).await;
        assert_eq!(renewer.0.load(Ordering::Relaxed), RENEWALS_MAX);
        scene.at(91).await;
        assert_eq!(renewer.0.load(Ordering::Relaxed), 2 * RENEWALS_MAX);
        assert_eq!(scene.streams.renewing.load(Ordering::Relaxed), 0);
        assert!(ties.iter().all(|tie| tie.over().is_none()));
        scene.at(100).await;
        assert_eq!(renewer.0.load(Ordering::Relaxed), 3 * RENEWALS_MAX);
    }
}
