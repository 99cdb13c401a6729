//! A storm of due sessions: browsers with many tabs and one jar each, three replicas with a Redis and without, tokens that
//! live for seconds, a provider that is slow, loses answers after it has rotated, refuses for moments and restarts, people
//! who log out, a Redis that hangs or is lost. Nobody may be logged out who does not want to be, see somebody else's answer,
//! or make the provider take a token for stolen; and who has logged out is out, whoever has copied the cookie.
//!
//! `TOLLHOUSE_STORM_SEED` says which storm, `TOLLHOUSE_STORM_REQUESTS` how many requests each of them has; a failure names
//! both. From 5000 on the provider takes 50 ms to 2 s for an answer, otherwise a tenth of that. What a storm came to is
//! written to stderr (`--nocapture`); docs/sessions.md says what the figures mean.
//!
//! What the clock says during a request is the same from its start to its end: time passes between the rounds, also for
//! Redis. What was on the way meanwhile, a request or its answer, is at most a second late: no rule of a provider saves a
//! browser that loses two generations of its token.

mod beside;
mod browser;
mod front;
mod line;
mod logout;
mod random;
mod rounds;
mod scene;
mod sum;

use beside::Care;
use random::Random;
use scene::Storm;
use std::time::Duration;

const SEED: u64 = 11;
const REQUESTS: usize = 520;
/// From so many requests on it is a long one.
const LONG: usize = 5_000;
const REPLICAS: usize = 3;
const TABS_MAX: usize = 20;
const COOKIE: &str = "sb-127-auth-token";
/// Seconds for which a token lives, as the goal has it: due four seconds before its end.
const LIFE: u64 = 20;
const SHORT_LIFE: u64 = 4;
/// For how long a gateway gives a new session to whoever still brings the old token, in ms.
const REPLAYED: u64 = 10_000;
/// For how long it does not ask again after a failure.
const FAILED: Duration = Duration::from_secs(1);
/// `http_timeout` of the gateways. With it a call is tried at most so many times.
const TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPTS: usize = 5;
/// In which a gateway has read what is on its way to it.
const SETTLES: Duration = Duration::from_millis(100);

/// Where sessions are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Shared,
    Sealed,
    Stored,
}

/// Which storm.
#[derive(Clone, Copy, Debug)]
struct Kind {
    mode: Mode,
    /// Whether there is a Redis, and how well it is.
    redis: Option<Care>,
    /// Of an access token, in seconds.
    life: u64,
    /// `session.cache_ttl`, in seconds.
    cache_ttl: u64,
}

impl Kind {
    fn new(mode: Mode, redis: Option<Care>) -> Self {
        Self {
            mode,
            redis,
            life: LIFE,
            cache_ttl: 5,
        }
    }

    /// How long before its end a token is due, in seconds.
    fn lead(self) -> u64 {
        self.life / 5
    }
}

/// How much of it there is.
#[derive(Clone, Copy, Debug)]
struct Size {
    requests: usize,
    browsers: usize,
    /// For an answer of the provider.
    takes: (Duration, Duration),
    /// In which the requests of a round leave their browsers, in ms.
    window: usize,
    /// In which those hang up who do, in ms.
    hangs_up: usize,
    /// Longest outage, in ms.
    outage: usize,
}

impl Size {
    fn of(requests: usize) -> Self {
        let long = requests >= LONG;
        let tenths = if long { 10 } else { 1 };
        Self {
            requests,
            browsers: (requests / 600).clamp(6, 48),
            takes: (
                Duration::from_millis(5 * tenths),
                Duration::from_millis(200 * tenths),
            ),
            window: if long { 400 } else { 40 },
            hangs_up: if long { 400 } else { 30 },
            outage: if long { 1500 } else { 200 },
        }
    }
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
        Err(_) => default,
    }
}

/// What it came to; the error says what must not have been.
fn storm(kind: Kind, seed: u64, requests: usize) -> Result<String, String> {
    let storm = Storm::start(&mut Random::new(!seed), kind, Size::of(requests));
    storm.blow(&mut Random::new(seed));
    storm.all_are_still_there();
    let told = storm.sum();
    let faults = storm.take_faults();
    if !faults.is_empty() {
        return Err(format!(
            "TOLLHOUSE_STORM_SEED={seed} TOLLHOUSE_STORM_REQUESTS={requests} {kind:?}: {told}\n{} faults:\n{}",
            faults.len(),
            faults[..faults.len().min(10)].join("\n")
        ));
    }
    storm.one_who_is_logged_out_is_seen_to_be();
    Ok(told)
}

/// Side by side: what takes long is the provider.
#[expect(
    clippy::print_stderr,
    reason = "what a storm of another size came to is asked for"
)]
fn storms(kinds: &[Kind]) {
    let seed = number("TOLLHOUSE_STORM_SEED", SEED);
    let requests = number("TOLLHOUSE_STORM_REQUESTS", REQUESTS);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let begin = |kind: &Kind| {
            let kind = *kind;
            scope.spawn(move || storm(kind, seed, requests))
        };
        let blowing: Vec<_> = kinds.iter().map(begin).collect();
        blowing
            .into_iter()
            .map(|storm| storm.join().unwrap())
            .collect()
    });
    for told in outcomes.iter().flatten() {
        eprintln!("{told}");
    }
    let faults: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn without_redis() {
    storms(&[
        Kind::new(Mode::Shared, None),
        Kind::new(Mode::Sealed, None),
        // Less than an answer is handed out again.
        Kind {
            life: SHORT_LIFE,
            ..Kind::new(Mode::Shared, None)
        },
    ]);
}

#[test]
fn with_redis() {
    storms(&[
        Kind::new(Mode::Shared, Some(Care::Well)),
        Kind::new(Mode::Sealed, Some(Care::Well)),
        Kind::new(Mode::Stored, Some(Care::Well)),
        // What was read counts for longer than the tokens in it.
        Kind {
            life: SHORT_LIFE,
            cache_ttl: 300,
            ..Kind::new(Mode::Stored, Some(Care::Well))
        },
    ]);
}

#[test]
fn while_redis_comes_and_goes() {
    storms(&[
        Kind::new(Mode::Shared, Some(Care::Lost)),
        Kind::new(Mode::Sealed, Some(Care::Lost)),
        // What it loses is over: it only hangs.
        Kind::new(Mode::Stored, Some(Care::Hangs)),
    ]);
}
