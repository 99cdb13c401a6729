//! The rounds of a storm: who asks when, what happens meanwhile, and what everybody must be told.

use super::beside::{Care, Trouble};
use super::browser::{Jar, Login, request};
use super::random::Random;
use super::scene::{Late, Storm, Tally, set_by};
use super::{FAILED, Mode, REPLICAS, SETTLES, TABS_MAX};
use crate::support::{Answer, Client};
use http::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Who logs out, of a hundred browsers in a round.
const LOG_OUT: usize = 4;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    Page,
    LogOut,
}

/// A request of one tab, or of somebody who has copied its cookies.
pub struct Shot {
    pub browser: usize,
    pub login: Arc<Login>,
    pub errand: Errand,
    pub replica: usize,
    /// It leaves the browser within the round.
    pub start: Duration,
    /// The cookies with which it left the browser before the round.
    pub left_with: Option<Jar>,
    pub hangs_up: Option<Duration>,
    /// What its answer says to the jar is heard of in the next round only.
    pub late: bool,
    /// On a connection that others have used.
    pub pooled: bool,
}

/// How the provider is out.
#[derive(Clone, Copy)]
pub enum Outage {
    Says(StatusCode, Duration),
    Restarts(Duration),
}

/// What happens in a round besides requests.
#[derive(Clone, Copy, Default)]
pub struct Weather {
    /// Nothing that is still on the way will be more than a second late.
    pub short: bool,
    pub outage: Option<Outage>,
    pub trouble: Option<Trouble>,
    /// When that begins.
    pub from: Duration,
}

impl Storm {
    pub fn blow(&self, dice: &mut Random) {
        let (mut shot, mut round) = (0, 0);
        let mut before: Option<Vec<(Arc<Login>, Jar)>> = None;
        while shot < self.size.requests && self.is_faultless() {
            round += 1;
            self.log_in_again(dice);
            let weather = self.weather(dice, round);
            // A storm that is short has some, too.
            let log_out = round % 8 == 3;
            let shots = self.shots(dice, before.as_deref(), weather, log_out);
            let jars = self.browsers.iter().map(|browser| {
                let login = browser.login();
                let jar = login.copy();
                (login, jar)
            });
            let jars = jars.collect();
            self.round(&shots, weather);
            shot += shots.len();
            before = weather.short.then_some(jars);
            let passes = if weather.short {
                dice.millis(1000)
            } else {
                match dice.below(20) {
                    0 => Duration::from_secs(3600 * (1 + dice.below(72) as u64)),
                    1..5 => Duration::from_secs(self.kind.life),
                    5..10 => Duration::from_secs(self.kind.life / 2),
                    _ => dice.millis(3000),
                }
            };
            self.pass(passes);
        }
        self.round(&[], Weather::default());
        self.log_in_again(dice);
    }

    /// Every browser on every replica, when all of it is long over.
    pub fn all_are_still_there(&self) {
        self.pass(Duration::from_secs(86_400));
        let mut shots = Vec::new();
        for browser in 0..self.browsers.len() {
            for replica in 0..REPLICAS {
                shots.push(self.page(browser, replica));
            }
        }
        self.round(&shots, Weather::default());
    }

    /// What a logout looks like that nobody wanted: were it to happen in the storm, it would have been seen.
    pub fn one_who_is_logged_out_is_seen_to_be(&self) {
        let browser = &self.browsers[0];
        self.identity.provider.end_sessions(&browser.email);
        self.pass(Duration::from_secs(86_400));
        self.shoot(&self.page(0, 0));
        let faults = self.take_faults();
        let said = |what: &str| faults.iter().any(|fault| fault.contains(what));
        assert!(
            said("401 session_expired") && said("logged out by"),
            "{faults:?}"
        );
    }

    pub fn page(&self, browser: usize, replica: usize) -> Shot {
        Shot {
            browser,
            login: self.browsers[browser].login(),
            errand: Errand::Page,
            replica,
            start: Duration::ZERO,
            left_with: None,
            hangs_up: None,
            late: false,
            pooled: false,
        }
    }

    fn weather(&self, dice: &mut Random, round: usize) -> Weather {
        let care = self.beside.as_ref().map(|beside| beside.care);
        let trouble = match care {
            Some(Care::Hangs) if round % 6 == 2 => Some(Trouble::Hangs(dice.millis(600))),
            Some(Care::Lost) if round % 12 == 2 => Some(Trouble::Hangs(dice.millis(600))),
            Some(Care::Lost) if round % 12 == 8 => Some(Trouble::StartsAnew(dice.millis(300))),
            _ => None,
        };
        let trouble = trouble.map(|trouble| match trouble {
            // Longer than a command may take.
            Trouble::Hangs(length) => Trouble::Hangs(length + Duration::from_millis(600)),
            other => other,
        });
        let length = Duration::from_millis(80) + dice.millis(self.size.outage);
        let statuses = [429, 503, 502, 505];
        let status = StatusCode::from_u16(statuses[dice.below(statuses.len())]).unwrap();
        let outage = match dice.below(200) {
            _ if round == 5 => Some(Outage::Says(status, length)),
            _ if round == 9 => Some(Outage::Restarts(length)),
            0..12 => Some(Outage::Says(status, length)),
            12..20 => Some(Outage::Restarts(length)),
            _ => None,
        };
        Weather {
            short: dice.chance(40),
            // One thing at a time: what an outage forgives, a Redis must not cause.
            outage: outage.filter(|_| trouble.is_none()),
            trouble,
            from: dice.millis(self.size.window * 2),
        }
    }

    /// The requests of a round.
    fn shots(
        &self,
        dice: &mut Random,
        before: Option<&[(Arc<Login>, Jar)]>,
        weather: Weather,
        mut log_out: bool,
    ) -> Vec<Shot> {
        let mut shots = Vec::new();
        // Now and then nobody stays to hear the answer.
        let hanging_up = if dice.chance(3) { 100 } else { 12 };
        // Without Redis only the provider can keep a copy from being renewed elsewhere: it must hear of a logout.
        let may_log_out = weather.outage.is_none() || self.tells(weather);
        for (index, browser) in self.browsers.iter().enumerate() {
            let again = std::mem::take(&mut *browser.again.lock());
            let fresh = if dice.chance(60) {
                1 + dice.below(browser.tabs)
            } else {
                0
            };
            let count = (again + fresh).min(TABS_MAX);
            let login = browser.login();
            // What left before a logout and comes after the next login takes its cookies with it: nobody can tell them apart.
            let before = before.map(|before| &before[index]);
            let before = before.filter(|(before, _)| Arc::ptr_eq(before, &login));
            let may_log_out = may_log_out && count > 0;
            let logs_out = may_log_out && (dice.chance(LOG_OUT) || log_out);
            log_out &= !logs_out;
            for number in 0..count {
                let errand = if logs_out && number == 0 {
                    Errand::LogOut
                } else {
                    Errand::Page
                };
                let left_before = before.filter(|_| dice.chance(15));
                let left_with = left_before.map(|(_, jar)| jar.clone());
                shots.push(Shot {
                    errand,
                    start: dice.millis(self.size.window),
                    hangs_up: dice
                        .chance(hanging_up)
                        .then(|| dice.millis(self.size.hangs_up)),
                    late: weather.short && left_with.is_none() && dice.chance(40),
                    left_with,
                    pooled: dice.chance(50),
                    ..self.page(index, dice.below(REPLICAS))
                });
            }
            if logs_out {
                login.ending.store(true, Ordering::SeqCst);
            }
        }
        self.tally.lock().left_before += shots.iter().filter(|s| s.left_with.is_some()).count();
        for copy in &*self.copies.lock() {
            if dice.chance(25) {
                shots.push(Shot {
                    login: copy.login.clone(),
                    left_with: Some(copy.jar.clone()),
                    start: dice.millis(self.size.window),
                    ..self.page(copy.browser, dice.below(REPLICAS))
                });
            }
        }
        shots
    }

    /// All shots at once, and the weather in their midst.
    fn round(&self, shots: &[Shot], weather: Weather) {
        let late = std::mem::take(&mut *self.late.lock());
        if weather.outage.is_some() {
            *self.out.lock() = Some(self.clock.now());
        }
        std::thread::scope(|scope| {
            if let Some(outage) = weather.outage {
                scope.spawn(move || self.be_out(outage, weather.from));
            }
            if let (Some(trouble), Some(beside)) = (weather.trouble, &self.beside) {
                self.tally.lock().troubles += 1;
                scope.spawn(move || {
                    sleep(weather.from);
                    beside.meet(trouble);
                });
            }
            for (n, late) in late.into_iter().enumerate() {
                scope.spawn(move || {
                    sleep(Duration::from_millis((n as u64 * 17) % 40));
                    self.tell(&late);
                });
            }
            for shot in shots {
                scope.spawn(move || self.shoot_in(shot, weather));
            }
        });
        if let Some(Outage::Restarts(length)) = weather.outage {
            // Whoever was turned away comes again, and nobody has seen them yet.
            sleep(2 * length + 3 * SETTLES);
        }
        let sent = |replica| shots.iter().filter(|s| s.replica == replica).count();
        self.settle(std::array::from_fn(sent));
        if weather.trouble.is_some()
            && !self
                .beside
                .as_ref()
                .is_none_or(|beside| beside.is_well_again())
        {
            self.fault("a replica does not come back to Redis".to_owned());
        }
        self.finish_logouts();
    }

    fn be_out(&self, outage: Outage, from: Duration) {
        match outage {
            Outage::Says(status, length) => {
                *self.front.outage.lock() = Some(status);
                self.tally.lock().outages += 1;
                sleep(length);
                *self.front.outage.lock() = None;
            }
            Outage::Restarts(length) => {
                sleep(from);
                self.tally.lock().restarts += 1;
                self.front.book.lock().cuts.push(Instant::now());
                self.line.restart(length);
            }
        }
    }

    fn shoot(&self, shot: &Shot) {
        self.shoot_in(shot, Weather::default());
    }

    fn shoot_in(&self, shot: &Shot, weather: Weather) {
        sleep(shot.start);
        let jar = match &shot.left_with {
            Some(jar) => jar.clone(),
            None => shot.login.copy(),
        };
        if let Some(after) = shot.hangs_up {
            return self.hang_up(shot, &jar, after);
        }
        if shot.errand == Errand::LogOut {
            return self.log_out(shot.browser, &shot.login, shot.replica, &jar, weather);
        }
        let at = self.clock.unix();
        let out = self.is_out(&shot.login, shot.replica);
        let answer = self.exchange(shot.replica, ("GET", "/tab"), &jar, "", shot.pooled);
        let Some(answer) = answer else {
            let email = &self.browsers[shot.browser].email;
            return self.fault(format!("{email}: no answer"));
        };
        let ends = self.check(shot, &jar, at, out, &answer, weather);
        let set = set_by(&answer);
        if set.is_empty() {
            return;
        }
        let late = Late {
            login: shot.login.clone(),
            set,
            ends,
        };
        if shot.late {
            self.tally.lock().late += 1;
            self.late.lock().push(late);
        } else {
            self.tell(&late);
        }
    }

    fn hang_up(&self, shot: &Shot, jar: &Jar, after: Duration) {
        let what = match shot.errand {
            Errand::Page => ("GET", "/tab"),
            Errand::LogOut => ("POST", "/.auth/logout"),
        };
        if shot.errand == Errand::LogOut {
            shot.login.asked.store(true, Ordering::SeqCst);
        }
        let (replica, at) = (shot.replica, self.clock.unix());
        let address = self.houses[replica].address;
        let mut client = Client::connect(address);
        client.write(request(address, replica, at, what, jar, "").as_bytes());
        sleep(after);
        self.tally.lock().hung_up += 1;
    }

    /// What an answer says to a jar.
    fn tell(&self, late: &Late) {
        let mut jar = late.login.jar.lock();
        jar.take(&late.set, late.ends);
        let asked = late.login.asked.load(Ordering::SeqCst);
        if !asked && !jar.is_somebody(self.kind.mode) {
            self.fault(format!("logged out by {:?}", late.set));
        }
    }

    /// Whether a session whose token is over may be told to come again.
    fn may_be_unavailable(&self) -> bool {
        let since = self.out.lock().map(|out| self.clock.now() - out);
        since.is_some_and(|since| since < FAILED)
    }

    /// When the token is over with which the request was forwarded, if it was.
    pub fn check(
        &self,
        shot: &Shot,
        jar: &Jar,
        at: u64,
        out: bool,
        answer: &Answer,
        weather: Weather,
    ) -> u64 {
        let browser = &self.browsers[shot.browser];
        let (who, mode) = (&browser.email, self.kind.mode);
        let asked = shot.login.asked.load(Ordering::SeqCst);
        let code = answer.code();
        let why = match (asked, weather.trouble.is_some()) {
            (true, _) => " after a logout",
            (false, true) => " while Redis was out",
            (false, false) => "",
        };
        note(&mut self.tally.lock(), answer, why);
        match (answer.status, &*code) {
            (200, "") => {
                let said: Value = answer.json();
                if said["user"] != browser.user.as_str() {
                    self.fault(format!("{who} got the answer of another: {said}"));
                }
                if said["fine"] != true {
                    self.fault(format!("at {at} the upstream got for {who}: {said}"));
                }
                if out {
                    let replica = shot.replica;
                    self.fault(format!("{who} got in at {replica} after a logout: {said}"));
                }
                return said["exp"].as_u64().unwrap();
            }
            (401, _) if asked => self.tally.lock().copies += usize::from(out),
            (503, "auth_unavailable") => {
                if answer.header("retry-after").is_none() {
                    self.fault(format!("{who}: a 503 without Retry-After"));
                }
                if asked {
                    return 0;
                }
                *browser.again.lock() += 1;
                let hangs = mode == Mode::Stored && weather.trouble.is_some();
                if !self.may_be_unavailable() && !hangs {
                    self.fault(format!("{who}: 503 at {at} without an outage"));
                }
                if jar.ends(mode) > at {
                    self.fault(format!("{who}: 503 at {at} while its token serves"));
                }
            }
            (status, code) => {
                let (ends, replica) = (jar.ends(mode), shot.replica);
                self.fault(format!(
                    "{who}: {status} {code} from {replica} at {at}, its token's end {ends}"
                ));
            }
        }
        0
    }
}

pub fn note(tally: &mut Tally, answer: &Answer, why: &str) {
    tally.answered += 1;
    if answer.status != 200 {
        let what = format!("{} {}{why}", answer.status, answer.code());
        *tally.refused.entry(what).or_default() += 1;
    }
}
