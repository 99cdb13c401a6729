//! Who logs out in a storm, and copies of their cookies: once the answer is 204 nobody gets in with one, at that replica at
//! once, at the others as soon as they hear of it, and without Redis when its token is over.

use super::Mode;
use super::REPLICAS;
use super::browser::{Jar, Login, Over};
use super::rounds::{Shot, Weather, note};
use super::scene::{Copy, Storm, set_by};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// In which replicas hear of a logout, through Redis: a second, and two for a machine that is busy. What it took is told.
const HEARD: Duration = Duration::from_secs(3);
/// Of sessions that have ended, so many are tried again.
const COPIES_MAX: usize = 12;

impl Storm {
    /// Whether the replicas hear of a logout from each other.
    pub fn tells(&self, weather: Weather) -> bool {
        self.beside.is_some() && weather.trouble.is_none()
    }

    /// Whether a session has ended as far as this replica must know.
    pub fn is_out(&self, login: &Login, replica: usize) -> bool {
        login.over.get().is_some_and(|over| {
            over.replica == replica
                || over.told && over.at.elapsed() > HEARD
                || self.clock.unix() >= over.ends
        })
    }

    /// Somebody logs out, and somebody else has copied the cookies.
    pub fn log_out(
        &self,
        browser: usize,
        login: &Arc<Login>,
        replica: usize,
        jar: &Jar,
        weather: Weather,
    ) {
        login.asked.store(true, Ordering::SeqCst);
        let what = ("POST", "/.auth/logout?scope=local");
        let answer = self.exchange(replica, what, jar, "", true);
        let answer = answer.expect("an answer to a logout");
        let copies = [jar.clone(), login.copy()];
        if answer.status == 503 && self.kind.mode == Mode::Stored && weather.trouble.is_some() {
            // Nobody is told to be logged out who may not be.
            note(&mut self.tally.lock(), &answer, " to a logout");
            return;
        }
        if answer.status != 204 {
            return self.fault(format!("a logout: {} {}", answer.status, answer.code()));
        }
        login.jar.lock().take(&set_by(&answer), 0);
        login.over.get_or_init(|| Over {
            replica,
            at: Instant::now(),
            told: self.tells(weather),
            ends: self.clock.unix() + self.kind.life,
        });
        self.tally.lock().logouts += 1;
        for jar in copies {
            for other in 0..REPLICAS {
                let replica = (replica + other) % REPLICAS;
                self.is_let_in_no_more(browser, login, replica, &jar);
            }
            let mut copies = self.copies.lock();
            if copies.len() == COPIES_MAX {
                copies.remove(0);
            }
            copies.push(Copy {
                browser,
                login: login.clone(),
                jar,
            });
        }
    }

    /// Until it is refused, where it must be; once, where it may still serve.
    fn is_let_in_no_more(&self, browser: usize, login: &Arc<Login>, replica: usize, jar: &Jar) {
        let over = login.over.get().unwrap();
        loop {
            let shot = Shot {
                login: login.clone(),
                left_with: Some(jar.clone()),
                ..self.page(browser, replica)
            };
            let (at, since) = (self.clock.unix(), over.at.elapsed());
            let out = self.is_out(login, replica);
            let answer = self.exchange(replica, ("GET", "/copy"), jar, "", true);
            let answer = answer.expect("an answer to a copy");
            self.check(&shot, jar, at, out, &answer, Weather::default());
            if answer.status != 200 && over.told && replica != over.replica {
                let mut tally = self.tally.lock();
                tally.heard = tally.heard.max(since);
            }
            if answer.status != 200 || out || !over.told {
                return;
            }
            sleep(Duration::from_millis(20));
        }
    }

    /// Whoever got no answer to a logout, or none that says that it was one, tries again.
    pub fn finish_logouts(&self) {
        for (index, browser) in self.browsers.iter().enumerate() {
            let login = browser.login();
            if login.ending.load(Ordering::SeqCst) && login.over.get().is_none() {
                let jar = login.copy();
                self.log_out(index, &login, index % REPLICAS, &jar, Weather::default());
            }
        }
    }
}
