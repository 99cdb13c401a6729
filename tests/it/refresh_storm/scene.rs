//! Everything that a storm blows over, and how somebody gets in and out.

use super::beside::Beside;
use super::browser::{Browser, Jar, Login, request};
use super::front::{Front, claims};
use super::line::Line;
use super::random::Random;
use super::{Kind, Mode, REPLICAS, SETTLES, Size, TABS_MAX, TIMEOUT};
use crate::support::{Answer, Client, House, Identity, NOW, cookie, scripted};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;

const PASSWORD: &str = "correct-horse-9";
/// Connections that are kept for the next who wants one. Whoever gets one may be somebody else: so it is behind a proxy.
const POOLED_MAX: usize = 32;

#[derive(Default)]
pub struct Tally {
    pub answered: usize,
    /// Answers that are no success, by status and code.
    pub refused: BTreeMap<String, usize>,
    pub hung_up: usize,
    pub late: usize,
    pub left_before: usize,
    pub outages: usize,
    pub restarts: usize,
    pub troubles: usize,
    pub logouts: usize,
    /// Copies of sessions that had ended, and were not let in.
    pub copies: usize,
    /// From the answer to a logout until another replica, which could hear of it, let nobody in.
    pub heard: Duration,
}

/// What comes late: to whom, its Set-Cookie fields, and the end of the token that came with it.
pub struct Late {
    pub login: Arc<Login>,
    pub set: Vec<String>,
    pub ends: u64,
}

/// A copy of the cookies of a session that has ended.
pub struct Copy {
    pub browser: usize,
    pub login: Arc<Login>,
    pub jar: Jar,
}

pub struct Storm {
    pub kind: Kind,
    pub size: Size,
    pub clock: Clock,
    pub front: Arc<Front>,
    pub line: Line,
    pub identity: Identity,
    pub beside: Option<Beside>,
    pub houses: Vec<House>,
    pub browsers: Vec<Browser>,
    pub tally: Mutex<Tally>,
    pub faults: Mutex<Vec<String>>,
    /// The monotonic moment of the last outage.
    pub out: Mutex<Option<Instant>>,
    pub late: Mutex<Vec<Late>>,
    pub copies: Mutex<Vec<Copy>>,
    /// In the access log of each replica at the end of the last round.
    records: Mutex<[usize; REPLICAS]>,
    /// Calls for refreshes at the end of the last round.
    made: AtomicUsize,
    pools: [Mutex<Vec<Client>>; REPLICAS],
}

impl Storm {
    pub fn start(dice: &mut Random, kind: Kind, size: Size) -> Self {
        let clock = Clock::frozen(NOW);
        let front = Front::new(clock.clone(), dice.next(), size.takes, kind.lead());
        let front = Arc::new(front);
        let serving = front.clone();
        let life = Duration::from_secs(kind.life);
        let identity = Identity::behind(&clock, life, move |provider, request| {
            let front = serving.clone();
            async move { front.answer(provider, request).await }
        });
        let direct = identity.url.strip_prefix("http://").unwrap();
        let line = Line::to(direct.parse().unwrap());
        let beside = kind.redis.map(Beside::start);
        let file = file(kind, &identity, &line, beside.as_ref());
        let house = |_| House::start_at(&file, clock.clone());
        let houses = (0..REPLICAS).map(house).collect();
        let mut storm = Self {
            kind,
            size,
            clock,
            front,
            line,
            identity,
            beside,
            houses,
            browsers: Vec::new(),
            tally: Mutex::default(),
            faults: Mutex::default(),
            out: Mutex::default(),
            late: Mutex::default(),
            copies: Mutex::default(),
            records: Mutex::default(),
            made: AtomicUsize::default(),
            pools: Default::default(),
        };
        for number in 0..size.browsers {
            let browser = storm.browser(number, dice);
            storm.browsers.push(browser);
        }
        storm
    }

    fn browser(&self, number: usize, dice: &mut Random) -> Browser {
        // One in four is somebody else's second.
        let people = self.size.browsers * 3 / 4;
        let email = format!("user{}@example.com", number % people);
        let provider = &self.identity.provider;
        if number < people {
            provider.add_user(&email, PASSWORD, Some("user")).unwrap();
            if dice.chance(30) {
                let mut profile = Map::new();
                profile.insert("bio".into(), json!("x".repeat(2000)));
                provider.set_user_metadata(&email, profile);
            }
        }
        let tabs = 1 + dice.below(TABS_MAX);
        let (jar, user) = if self.kind.mode == Mode::Shared {
            let session = self.identity.session(&email);
            self.front.book.lock().enter(&session);
            let user = session["user"]["id"].as_str().unwrap().to_owned();
            (Jar::new(&cookie(&session.to_string())), user)
        } else {
            // What all logins share of the provider comes back with the time.
            self.pass(Duration::from_secs(1));
            self.log_in(&email, dice.below(REPLICAS), &Jar::default())
        };
        Browser::new(email, user, tabs, jar)
    }

    /// Logs somebody in who has these cookies, and says who it is.
    pub fn log_in(&self, email: &str, replica: usize, before: &Jar) -> (Jar, String) {
        let body = json!({ "email": email, "password": PASSWORD }).to_string();
        let what = ("POST", "/.auth/login");
        let answer = self.exchange(replica, what, before, &body, true);
        let answer = answer.expect("an answer to a login");
        assert_eq!(answer.status, 200, "{email}: {}", answer.text());
        let view: Value = answer.json();
        let mut jar = before.clone();
        jar.take(&set_by(&answer), view["expires_at"].as_u64().unwrap());
        (jar, view["user"]["id"].as_str().unwrap().to_owned())
    }

    /// Whoever has logged out comes back.
    pub fn log_in_again(&self, dice: &mut Random) {
        for browser in &self.browsers {
            let login = browser.login();
            if !login.ending.load(Ordering::SeqCst) {
                continue;
            }
            let before = if dice.chance(50) {
                login.copy()
            } else {
                Jar::default()
            };
            let (jar, user) = self.log_in(&browser.email, dice.below(REPLICAS), &before);
            assert_eq!(user, browser.user);
            browser.log_in(jar);
        }
    }

    /// One request and its answer. `None`: the connection ended without one.
    pub fn exchange(
        &self,
        replica: usize,
        what: (&str, &str),
        jar: &Jar,
        body: &str,
        pooled: bool,
    ) -> Option<Answer> {
        let address = self.houses[replica].address;
        let text = request(address, replica, self.clock.unix(), what, jar, body);
        let pool = &self.pools[replica];
        let kept = pooled.then(|| pool.lock().pop());
        if let Some(mut client) = kept.flatten() {
            client.write(text.as_bytes());
            if let Some(answer) = client.try_read(false) {
                self.put_back(pool, client, &answer);
                return Some(answer);
            }
            // It was closed while nobody used it.
        }
        let mut client = Client::connect(address);
        client.write(text.as_bytes());
        let answer = client.try_read(false)?;
        self.put_back(pool, client, &answer);
        Some(answer)
    }

    fn put_back(&self, pool: &Mutex<Vec<Client>>, client: Client, answer: &Answer) {
        let mut pool = pool.lock();
        if answer.header("connection") != Some("close") && pool.len() < POOLED_MAX {
            pool.push(client);
        }
    }

    pub fn fault(&self, what: String) {
        self.faults.lock().push(what);
    }

    pub fn take_faults(&self) -> Vec<String> {
        let mut faults = std::mem::take(&mut *self.faults.lock());
        faults.append(&mut self.front.book.lock().faults);
        faults
    }

    pub fn is_faultless(&self) -> bool {
        self.faults.lock().is_empty() && self.front.book.lock().faults.is_empty()
    }

    /// Those who hung up have left requests and calls behind, which belong to this moment, too. `sent`: to each replica.
    pub fn settle(&self, sent: [usize; REPLICAS]) {
        let mut records = self.records.lock();
        for ((house, sent), records) in self.houses.iter().zip(sent).zip(&mut *records) {
            let expected = *records + sent;
            within(SETTLES, || house.log.lines() >= expected);
            *records = house.log.lines();
        }
        within(2 * TIMEOUT, || self.front.book.lock().quiet());
    }

    /// Time passes. Before that the last answers must have been read: what they hold would be over at once, or count from then.
    pub fn pass(&self, by: Duration) {
        let made = self.front.book.lock().made;
        if self.made.swap(made, Ordering::SeqCst) < made {
            sleep(SETTLES);
            // With Redis some wait for what others have asked, and look only now and then.
            if self.beside.is_some() && by >= Duration::from_secs(self.kind.life) {
                sleep(2 * SETTLES);
            }
        }
        self.clock.advance(by);
        if let Some(beside) = &self.beside {
            beside.pass(by);
        }
    }
}

/// The Set-Cookie fields of an answer.
pub fn set_by(answer: &Answer) -> Vec<String> {
    let set = answer.all("set-cookie");
    set.into_iter().map(str::to_owned).collect()
}

/// Waits until it holds, and no longer than this.
pub fn within(most: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + most;
    while !holds() && Instant::now() < until {
        sleep(Duration::from_millis(2));
    }
}

fn file(kind: Kind, identity: &Identity, line: &Line, beside: Option<&Beside>) -> String {
    let (mode, ours) = match kind.mode {
        Mode::Shared => ("shared", String::new()),
        Mode::Sealed => ("sealed", OURS.to_owned()),
        Mode::Stored => (
            "stored",
            format!("{OURS}cache_ttl = \"{}s\"\n", kind.cache_ttl),
        ),
    };
    format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{url}\"\ninternal_url = \"{line}\"\n\
         jwks_url = \"{url}/auth/v1/.well-known/jwks.json\"\npublishable_key = \"sb_publishable_test\"\n\
         http_timeout = \"{timeout}s\"\n\
         [session]\nmode = \"{mode}\"\nprovider_budget = {{ login = \"100000/5m\", otp = \"20/5m\" }}\n{ours}\
         {redis}[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n\
         [rate_limits.logins]\nrate = \"off\"\napplies_to = \"login\"\n\
         [upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\n",
        url = identity.url,
        line = line.url,
        timeout = TIMEOUT.as_secs(),
        redis = beside.map(Beside::table).unwrap_or_default(),
        upstream = upstream(),
    )
}

/// Nothing ends by itself in a storm that passes over days.
const OURS: &str = "keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]\nmax_age = \"400d\"\nidle_timeout = \"400d\"\n";

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
