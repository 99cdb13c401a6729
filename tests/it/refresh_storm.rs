//! A storm of due sessions: browsers with many tabs and one jar each, replicas that know nothing of each other, tokens that
//! live for seconds, a provider that is slow, loses answers after it has rotated, and is out for moments. Nobody may be
//! logged out by it, see somebody else's answer, or make the provider take a token for stolen.
//!
//! `TOLLHOUSE_STORM_SEED` says which storm, `TOLLHOUSE_STORM_REQUESTS` how many requests it has; a failure names both.
//! What the clock says during a request is the same from its start to its end: time passes between the rounds. What was on
//! the way meanwhile, a request or its answer, is at most a second late: no rule of a provider saves a browser that loses
//! two generations of its token.

use crate::support::{Answer, Client, House, Identity, NOW, cookie, scripted};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};
use tollhouse::base::body::Body;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::{Fault, Provider};

/// A storm whose tokens live for four seconds, less than an answer is handed out again.
const SEED: u64 = 11;
const REQUESTS: usize = 520;
const REPLICAS: usize = 3;
const BROWSERS: usize = 6;
const TABS_MAX: usize = 20;
const COOKIE: &str = "sb-127-auth-token";
/// One in so many answers to refreshes is lost.
const LOST: usize = 20;
/// For how long a gateway gives a new session to whoever still brings the old token.
const REPLAYED: u64 = 10;
/// For how long it does not ask again after a failure.
const FAILED: Duration = Duration::from_secs(1);
/// `http_timeout` of the gateways. With it a call is tried at most so many times.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 4;
/// In which a gateway has read what is on its way to it.
const SETTLES: Duration = Duration::from_millis(100);

/// xorshift64* (Vigna): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        // Spread, so that seeds beside each other give different storms; zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn millis(&mut self, below: usize) -> Duration {
        Duration::from_millis(self.below(below) as u64)
    }
}

/// What stands between the gateways and the provider: the wire with its delays and losses, and a book of what passed.
struct Front {
    clock: Clock,
    dice: Mutex<Random>,
    outage: Mutex<Option<StatusCode>>,
    book: Mutex<Book>,
    /// A planned fault is for the request that it was planned for.
    turn: tokio::sync::Mutex<()>,
}

/// Calls for one refresh token from one replica.
#[derive(Default)]
struct Calls {
    made: usize,
    lost: usize,
    /// When a new session reached the replica, in Unix milliseconds.
    delivered: Vec<u64>,
    /// Since the last answer that reached it: each of them is followed by another attempt.
    failed: usize,
    failed_at: Option<Instant>,
}

#[derive(Default)]
struct Book {
    calls: HashMap<(String, String), Calls>,
    /// Error codes of the provider's answers.
    codes: BTreeMap<String, usize>,
    under_way: usize,
    made: usize,
}

impl Book {
    /// Nobody is asking, and nobody is about to ask again.
    fn quiet(&self) -> bool {
        let about_to = |calls: &Calls| {
            let since = calls.failed_at.map(|at| at.elapsed());
            calls.failed < ATTEMPTS && since.is_some_and(|since| since < TIMEOUT)
        };
        self.under_way == 0 && !self.calls.values().any(about_to)
    }
}

impl Front {
    async fn answer(&self, provider: Provider, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        if !query.contains("grant_type=refresh_token") {
            // The keys: a clock that jumps makes them older than they ever get, and their outages are told elsewhere.
            return provider.handle(Request::from_parts(head, body)).await;
        }
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Response::new(Body::empty()),
        };
        let words: Value = serde_json::from_slice(&body).unwrap();
        let token = words["refresh_token"].as_str().unwrap().to_owned();
        let replica = head.headers["user-agent"].to_str().unwrap().to_owned();
        let key = (replica, token);
        let (before, after) = {
            let mut dice = self.dice.lock();
            (dice.millis(26), dice.millis(26))
        };
        let lose = {
            let mut book = self.book.lock();
            book.under_way += 1;
            book.made += 1;
            let lose = book.made % LOST == LOST / 2;
            let calls = book.calls.entry(key.clone()).or_default();
            calls.made += 1;
            // Never twice: three in a row would be an outage.
            let lose = lose && calls.lost == 0;
            calls.lost += usize::from(lose);
            lose
        };
        let leaving = Leaving(self);
        tokio::time::sleep(before).await;
        let response = {
            let _turn = self.turn.lock().await;
            let outage = *self.outage.lock();
            let fault = match outage {
                Some(status) => Some(Fault::Status(status)),
                None => lose.then_some(Fault::LoseAnswer),
            };
            if let Some(fault) = fault {
                provider.fail_next("token.refresh", &fault, 1);
            }
            let request = Request::from_parts(head, Body::full(body));
            provider.handle(request).await
        };
        tokio::time::sleep(after).await;
        self.note(&key, &response);
        drop(leaving);
        response
    }

    fn note(&self, key: &(String, String), response: &Response<Body>) {
        let mut book = self.book.lock();
        if let Some(code) = response.headers().get("x-sb-error-code") {
            let code = code.to_str().unwrap().to_owned();
            *book.codes.entry(code).or_default() += 1;
        }
        let calls = book.calls.entry(key.clone()).or_default();
        let status = response.status();
        if status.is_success() {
            calls.delivered.push(self.clock.unix_millis());
        }
        // 505 is none after which a gateway tries again.
        if status.is_server_error() && status != StatusCode::HTTP_VERSION_NOT_SUPPORTED {
            calls.failed += 1;
            calls.failed_at = Some(Instant::now());
        } else {
            calls.failed = 0;
            calls.failed_at = None;
        }
    }
}

/// One call less under way, also when whoever made it gives it up.
struct Leaving<'a>(&'a Front);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.book.lock().under_way -= 1;
    }
}

/// A browser's cookies.
#[derive(Clone)]
struct Jar(Vec<(String, String)>);

impl Jar {
    fn new(header: &str) -> Self {
        let pairs = header.split("; ").filter_map(|pair| pair.split_once('='));
        Self(pairs.map(|(n, v)| (n.into(), v.into())).collect())
    }

    fn header(&self) -> String {
        let pairs: Vec<String> = self.0.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    fn take(&mut self, lines: &[String]) {
        for line in lines {
            let (name, rest) = line.split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
            self.0.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.0.push((name.into(), value.into()));
            }
        }
    }

    /// The session as a library reads it.
    fn session(&self) -> Option<Value> {
        let of = |wanted: &str| self.0.iter().find(|(name, _)| name == wanted);
        let mut text = of(COOKIE).map(|(_, value)| value.clone());
        if text.is_none() {
            let pieces = (0..).map_while(|n| of(&format!("{COOKIE}.{n}")));
            let joined: String = pieces.map(|(_, piece)| piece.as_str()).collect();
            text = (!joined.is_empty()).then_some(joined);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text?.strip_prefix("base64-")?)
            .ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// When its access token is over, in Unix seconds.
    fn expires_at(&self) -> u64 {
        self.session()
            .map_or(0, |session| session["expires_at"].as_u64().unwrap())
    }
}

/// One person with many tabs.
struct Browser {
    email: String,
    user: String,
    tabs: usize,
    jar: Mutex<Jar>,
    /// Requests that were told to come again later.
    again: Mutex<usize>,
}

/// A request of one tab.
struct Shot {
    browser: usize,
    replica: usize,
    /// It leaves the browser within the round.
    start: Duration,
    /// The cookies with which it left the browser before the round.
    left_with: Option<Jar>,
    hangs_up: Option<Duration>,
    /// What its answer says to the jar is heard of in the next round only.
    late: bool,
}

#[derive(Default)]
struct Tally {
    answered: usize,
    hung_up: usize,
    unavailable: usize,
    late: usize,
    left_before: usize,
    outages: usize,
}

struct Storm {
    clock: Clock,
    /// Of an access token.
    life: Duration,
    /// In the access log of each replica at the end of the last round.
    records: Mutex<[usize; REPLICAS]>,
    front: Arc<Front>,
    identity: Identity,
    houses: Vec<House>,
    browsers: Vec<Browser>,
    tally: Mutex<Tally>,
    faults: Mutex<Vec<String>>,
    /// The monotonic moment of the last outage.
    out: Mutex<Option<Instant>>,
    /// What comes late: the browser and its Set-Cookie fields.
    late: Mutex<Vec<(usize, Vec<String>)>>,
}

impl Storm {
    fn start(dice: &mut Random, life: u64) -> Self {
        let clock = Clock::frozen(NOW);
        let front = Arc::new(Front {
            clock: clock.clone(),
            dice: Mutex::new(Random::new(dice.next())),
            outage: Mutex::default(),
            book: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        });
        let serving = front.clone();
        let life = Duration::from_secs(life);
        let identity = Identity::behind(&clock, life, move |provider, request| {
            let front = serving.clone();
            async move { front.answer(provider, request).await }
        });
        let upstream = upstream();
        let tables = identity.tables().replace(
            "[session]",
            &format!(
                "publishable_key = \"sb_publishable_test\"\nhttp_timeout = \"{}s\"\n[session]",
                TIMEOUT.as_secs()
            ),
        );
        let file = format!(
            "{tables}[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\n"
        );
        let houses = (0..REPLICAS).map(|_| House::start_at(&file, clock.clone()));
        let houses = houses.collect();
        let browsers = (0..BROWSERS)
            .map(|n| Browser::new(&identity, n, dice))
            .collect();
        Self {
            clock,
            life,
            records: Mutex::default(),
            front,
            identity,
            houses,
            browsers,
            tally: Mutex::default(),
            faults: Mutex::default(),
            out: Mutex::default(),
            late: Mutex::default(),
        }
    }

    fn fault(&self, what: String) {
        self.faults.lock().push(what);
    }

    /// Whether a session whose token is over may be told to come again.
    fn may_be_unavailable(&self) -> bool {
        let since = self.out.lock().map(|out| self.clock.now() - out);
        since.is_some_and(|since| since < FAILED)
    }

    fn shoot(&self, shot: &Shot) {
        let browser = &self.browsers[shot.browser];
        sleep(shot.start);
        let jar = match &shot.left_with {
            Some(jar) => jar.clone(),
            None => browser.jar.lock().clone(),
        };
        let at = self.clock.unix();
        let address = self.houses[shot.replica].address;
        let mut client = Client::connect(address);
        client.write(request(address, shot.replica, at, &jar).as_bytes());
        if let Some(after) = shot.hangs_up {
            sleep(after);
            self.tally.lock().hung_up += 1;
            return;
        }
        let Some(answer) = client.try_read(false) else {
            self.fault(format!("{}: no answer", browser.email));
            return;
        };
        self.check(browser, &jar, at, &answer);
        let set: Vec<String> = answer
            .all("set-cookie")
            .iter()
            .map(|s| (*s).into())
            .collect();
        if set.is_empty() {
            return;
        }
        if shot.late {
            self.tally.lock().late += 1;
            self.late.lock().push((shot.browser, set));
        } else {
            self.tell(shot.browser, &set);
        }
    }

    fn tell(&self, browser: usize, set: &[String]) {
        let browser = &self.browsers[browser];
        let mut jar = browser.jar.lock();
        jar.take(set);
        if jar.session().is_none() {
            self.fault(format!("{}: logged out by {set:?}", browser.email));
        }
    }

    fn check(&self, browser: &Browser, jar: &Jar, at: u64, answer: &Answer) {
        let mut tally = self.tally.lock();
        tally.answered += 1;
        let who = &browser.email;
        match (answer.status, &*answer.code()) {
            (200, "") => {
                let said: Value = answer.json();
                if said["user"] != browser.user.as_str() {
                    self.fault(format!("{who} got the answer of another: {said}"));
                }
                if said["fine"] != true {
                    self.fault(format!("at {at} the upstream got for {who}: {said}"));
                }
            }
            (503, "auth_unavailable") => {
                tally.unavailable += 1;
                *browser.again.lock() += 1;
                if answer.header("retry-after").is_none() {
                    self.fault(format!("{who}: a 503 without Retry-After"));
                }
                if !self.may_be_unavailable() {
                    self.fault(format!("{who}: 503 at {at} without an outage"));
                }
                if jar.expires_at() > at {
                    self.fault(format!("{who}: 503 at {at} while its token serves"));
                }
            }
            (status, code) => {
                let ends = jar.expires_at();
                self.fault(format!(
                    "{who}: {status} {code} at {at}, its token's end {ends}"
                ));
            }
        }
    }

    /// The requests of a round. `short`: nothing that is still on the way will be more than a second late.
    fn shots(&self, dice: &mut Random, before: Option<&[Jar]>, short: bool) -> Vec<Shot> {
        let mut shots = Vec::new();
        // Now and then nobody stays to hear the answer.
        let hanging_up = if dice.chance(12) { 100 } else { 12 };
        for (index, browser) in self.browsers.iter().enumerate() {
            let again = std::mem::take(&mut *browser.again.lock());
            let fresh = if dice.chance(60) {
                1 + dice.below(browser.tabs)
            } else {
                0
            };
            for _ in 0..(again + fresh).min(TABS_MAX) {
                let left_before = before.filter(|_| dice.chance(15));
                let left_with = left_before.map(|jars| jars[index].clone());
                shots.push(Shot {
                    browser: index,
                    replica: dice.below(REPLICAS),
                    start: dice.millis(40),
                    hangs_up: dice.chance(hanging_up).then(|| dice.millis(30)),
                    late: short && left_with.is_none() && dice.chance(25),
                    left_with,
                });
            }
        }
        self.tally.lock().left_before += shots.iter().filter(|s| s.left_with.is_some()).count();
        shots
    }

    /// All shots at once, and an outage in their midst when there is to be one.
    fn round(&self, shots: &[Shot], outage: Option<(StatusCode, Duration)>) {
        let late = std::mem::take(&mut *self.late.lock());
        if outage.is_some() {
            *self.out.lock() = Some(self.clock.now());
            self.tally.lock().outages += 1;
        }
        std::thread::scope(|scope| {
            if let Some((status, length)) = outage {
                *self.front.outage.lock() = Some(status);
                scope.spawn(move || {
                    sleep(length);
                    *self.front.outage.lock() = None;
                });
            }
            for (n, (browser, set)) in late.into_iter().enumerate() {
                scope.spawn(move || {
                    sleep(Duration::from_millis((n as u64 * 17) % 40));
                    self.tell(browser, &set);
                });
            }
            for shot in shots {
                scope.spawn(move || self.shoot(shot));
            }
        });
        // Those who hung up have left requests and calls behind, which belong to this moment, too.
        for (replica, house) in self.houses.iter().enumerate() {
            let sent = shots.iter().filter(|shot| shot.replica == replica).count();
            let mut records = self.records.lock();
            let expected = records[replica] + sent;
            within(SETTLES, || lines(house) >= expected);
            records[replica] = lines(house);
        }
        self.settle();
    }

    fn settle(&self) {
        within(2 * TIMEOUT, || self.front.book.lock().quiet());
    }

    /// Time passes. When it is long, the last answers must have been read: what they hold would be over at once.
    fn pass(&self, by: Duration) {
        if by >= self.life {
            sleep(SETTLES);
            self.settle();
            sleep(SETTLES);
        }
        self.clock.advance(by);
    }

    fn blow(&self, dice: &mut Random, life: u64, requests: usize) {
        let (mut shot, mut round) = (0, 0);
        let mut before: Option<Vec<Jar>> = None;
        while shot < requests && self.faults.lock().is_empty() {
            let short = dice.chance(40);
            let shots = self.shots(dice, before.as_deref(), short);
            round += 1;
            let outage = (round == 5 || dice.chance(8)).then(|| {
                let statuses = [429, 503, 502, 505];
                let status = statuses[dice.below(statuses.len())];
                let status = StatusCode::from_u16(status).unwrap();
                (status, Duration::from_millis(80 + dice.below(400) as u64))
            });
            let jars = self.browsers.iter().map(|b| b.jar.lock().clone()).collect();
            self.round(&shots, outage);
            shot += shots.len();
            before = short.then_some(jars);
            let passes = if short {
                dice.millis(1000)
            } else {
                match dice.below(20) {
                    0 => Duration::from_secs(3600 * (1 + dice.below(72) as u64)),
                    1..5 => Duration::from_secs(life),
                    5..10 => Duration::from_secs(life / 2),
                    _ => dice.millis(3000),
                }
            };
            self.pass(passes);
        }
        self.round(&[], None);
    }

    /// Every browser on every replica, when all of it is long over.
    fn all_are_still_there(&self) {
        self.pass(Duration::from_secs(86_400));
        for browser in 0..BROWSERS {
            for replica in 0..REPLICAS {
                self.shoot(&Shot {
                    browser,
                    replica,
                    start: Duration::ZERO,
                    left_with: None,
                    hangs_up: None,
                    late: false,
                });
            }
        }
    }

    /// What a logout looks like: were it to happen in the storm, it would have been seen.
    fn one_who_is_logged_out_is_seen_to_be(&self) {
        let browser = &self.browsers[0];
        self.identity.provider.end_sessions(&browser.email);
        self.pass(Duration::from_secs(86_400));
        self.shoot(&Shot {
            browser: 0,
            replica: 0,
            start: Duration::ZERO,
            left_with: None,
            hangs_up: None,
            late: false,
        });
        let faults = std::mem::take(&mut *self.faults.lock());
        let said = |what: &str| faults.iter().any(|fault| fault.contains(what));
        assert!(
            said("401 session_expired") && said("logged out by"),
            "{faults:?}"
        );
    }

    /// What the provider was asked: the sum for the reader.
    fn audit(&self, life: u64) -> String {
        let book = self.front.book.lock();
        let tokens: std::collections::HashSet<&String> =
            book.calls.keys().map(|(_, token)| token).collect();
        let sum = |of: fn(&Calls) -> usize| book.calls.values().map(of).sum::<usize>();
        for ((replica, token), calls) in &book.calls {
            let again = calls.delivered.windows(2).any(|two| {
                // No longer than the token lives that came with it, whose times are whole seconds.
                let end = (two[0] / 1000 + life) * 1000;
                two[1] < end.min(two[0] + REPLAYED * 1000)
            });
            if again {
                let when = &calls.delivered;
                self.fault(format!(
                    "{replica} asked again for {token}, which it knew: {when:?}"
                ));
            }
        }
        if !book.codes.is_empty() {
            self.fault(format!("the provider refused: {:?}", book.codes));
        }
        let (made, lost) = (sum(|calls| calls.made), sum(|calls| calls.lost));
        let tally = self.tally.lock();
        let ratio = made as f64 / tokens.len().max(1) as f64;
        if tally.answered >= REQUESTS / 2 {
            // A storm of the usual size has some of everything.
            let enough = tokens.len() >= 10 && lost > 0 && tally.hung_up > 20;
            let enough = enough && tally.late > 0 && tally.left_before > 0 && tally.outages > 0;
            assert!(
                enough,
                "no storm: {tokens} refresh tokens, {lost} answers lost",
                tokens = tokens.len()
            );
        }
        format!(
            "life {life} s: {} answered, {} hung up, {} left before, {} late, {} outages with {} 503; {made} calls for {} \
             refresh tokens ({ratio:.2} each), {lost} answers lost",
            tally.answered,
            tally.hung_up,
            tally.left_before,
            tally.late,
            tally.outages,
            tally.unavailable,
            tokens.len(),
        )
    }
}

impl Browser {
    fn new(identity: &Identity, number: usize, dice: &mut Random) -> Self {
        let email = match number {
            0 => "ada@example.com".to_owned(),
            1 => "grace@example.com".to_owned(),
            _ => format!("user{number}@example.com"),
        };
        let provider = &identity.provider;
        if number > 1 {
            provider
                .add_user(&email, "correct-horse-9", Some("user"))
                .unwrap();
        }
        if dice.chance(30) {
            let mut profile = Map::new();
            profile.insert("bio".into(), json!("x".repeat(2000)));
            provider.set_user_metadata(&email, profile);
        }
        let session = identity.session(&email);
        let user = session["user"]["id"].as_str().unwrap().to_owned();
        Self {
            email,
            user,
            tabs: 1 + dice.below(TABS_MAX),
            jar: Mutex::new(Jar::new(&cookie(&session.to_string()))),
            again: Mutex::default(),
        }
    }
}

/// Waits until it holds, and no longer than this.
fn within(most: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + most;
    while !holds() && Instant::now() < until {
        sleep(Duration::from_millis(2));
    }
}

/// Of the access log.
fn lines(house: &House) -> usize {
    house.log.text().lines().count()
}

fn request(address: SocketAddr, replica: usize, at: u64, jar: &Jar) -> String {
    let cookies = jar.header();
    let mut text = format!("GET /tab HTTP/1.1\r\nHost: {address}\r\nX-At: {at}\r\n");
    write!(
        text,
        "User-Agent: replica-{replica}\r\nCookie: {cookies}\r\n\r\n"
    )
    .unwrap();
    text
}

/// Says for whom a request came, and whether its token is that user's and was good when the request was made.
fn upstream() -> SocketAddr {
    scripted(|mut wire| {
        loop {
            let head = wire.head();
            if head.is_empty() {
                return;
            }
            let field = |name: &str| {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                let found = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
                found.map_or("", |(_, value)| value)
            };
            let token = field("authorization").strip_prefix("Bearer ");
            let claims = token.map_or(Value::Null, claims);
            let user = field("x-user-id");
            let at: u64 = field("x-at").parse().unwrap();
            let fine = claims["sub"] == user && claims["exp"].as_u64().is_some_and(|e| e > at);
            let body = json!({"user": user, "fine": fine, "exp": claims["exp"]}).to_string();
            let length = body.len();
            if !wire.say(&format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )) {
                return;
            }
        }
    })
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or(Value::Null)
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
        Err(_) => default,
    }
}

#[test]
#[expect(
    clippy::print_stderr,
    reason = "what a storm of another size came to is asked for"
)]
fn no_storm_of_tabs_logs_anybody_out() {
    let seed = number("TOLLHOUSE_STORM_SEED", SEED);
    let requests = number("TOLLHOUSE_STORM_REQUESTS", REQUESTS);
    let mut dice = Random::new(seed);
    let life = 4 + dice.below(17) as u64;
    let storm = Storm::start(&mut dice, life);
    storm.blow(&mut dice, life, requests);
    storm.all_are_still_there();
    let told = storm.audit(life);
    let faults = storm.faults.lock().clone();
    eprintln!("{told}");
    assert!(
        faults.is_empty(),
        "TOLLHOUSE_STORM_SEED={seed} TOLLHOUSE_STORM_REQUESTS={requests}: {told}\n{} faults:\n{}",
        faults.len(),
        faults[..faults.len().min(10)].join("\n")
    );
    storm.one_who_is_logged_out_is_seen_to_be();
}
