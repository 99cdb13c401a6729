//! What ends when (contract, section 5), where sessions are in cookies and several replicas serve: with Redis a logout at one
//! is heard at all; without, a copied cookie serves elsewhere until its token ends, and never gets another one.

use crate::support::redis::RedisServer;
use crate::support::{Answer, Client, House, Identity, NOW, Upstream, eventually, taken};
use serde_json::json;
use std::time::Duration;
use tollhouse::base::clock::Clock;

const LIFE: u64 = 3600;
const DAY: u64 = 86_400;
const MODES: [&str; 2] = ["shared", "sealed"];
const ADA: &str = "ada@example.com";
const GRACE: &str = "grace@example.com";

struct Scene {
    clock: Clock,
    identity: Identity,
    upstream: Upstream,
    redis: Option<RedisServer>,
    file: String,
    houses: Vec<House>,
    mode: &'static str,
}

/// Two replicas.
fn scene_with(mode: &'static str, redis: bool) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let redis = redis.then(RedisServer::start);
    let keys = match mode {
        "shared" => "",
        _ => "keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]",
    };
    let file = format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         [session]\nmode = \"{mode}\"\n{keys}\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n{}",
        identity.url,
        upstream.url(),
        redis.as_ref().map(RedisServer::table).unwrap_or_default(),
    );
    let houses = (0..2)
        .map(|_| House::start_at(&file, clock.clone()))
        .collect();
    Scene {
        clock,
        identity,
        upstream,
        redis,
        file,
        houses,
        mode,
    }
}

impl Scene {
    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn refreshes(&self) -> u64 {
        self.identity.provider.count("token.refresh")
    }

    fn get(&self, replica: usize, jar: &str) -> Answer {
        self.houses[replica].get("/a", &[("cookie", jar)])
    }

    fn post(&self, replica: usize, path: &str, jar: &str, body: &str) -> Answer {
        let house = &self.houses[replica];
        let origin = format!("http://{}", house.address);
        let mut fields = vec![("origin", &*origin), ("content-type", "application/json")];
        if !jar.is_empty() {
            fields.push(("cookie", jar));
        }
        if body.is_empty() {
            fields.push(("content-length", "0"));
        }
        house.request("POST", path, &fields, body)
    }

    fn logged_in(&self, replica: usize, email: &str) -> String {
        let body = json!({ "email": email, "password": "correct-horse-9" }).to_string();
        let answer = self.post(replica, "/.auth/login", "", &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        taken("", &answer)
    }

    /// Logs out, and says what the browser has then.
    fn log_out(&self, replica: usize, scope: &str, jar: &str) -> String {
        let path = format!("/.auth/logout?scope={scope}");
        let answer = self.post(replica, &path, jar, "");
        assert_eq!(answer.status, 204, "{}", answer.text());
        taken(jar, &answer)
    }

    /// It lets the user in and leaves the browser's cookies as they are.
    fn serves(&self, replica: usize, jar: &str) {
        let answer = self.get(replica, jar);
        let context = format!("{} at {replica}: {}", self.mode, answer.text());
        assert_eq!(answer.status, 200, "{context}");
        assert!(answer.all("set-cookie").is_empty(), "{context}");
    }

    /// It lets the user in, with a newer session: what the browser has then.
    fn goes_on(&self, replica: usize, jar: &str) -> String {
        let answer = self.get(replica, jar);
        assert_eq!(answer.status, 200, "{}: {}", self.mode, answer.text());
        let new = taken(jar, &answer);
        assert_ne!(new, jar, "{}", self.mode);
        new
    }

    /// Whoever asks for a renewal hears that there will be none.
    fn is_not_renewed(&self, replica: usize, jar: &str) {
        let answer = self.post(replica, "/.auth/refresh", jar, "");
        assert_eq!(answer.status, 401, "{}: {}", self.mode, answer.text());
        let mut set = answer.all("set-cookie").into_iter();
        assert!(set.all(|line| line.contains("=; Max-Age=0")), "{answer:?}");
    }

    fn is_over(&self, replica: usize, jar: &str) -> bool {
        let answer = self.get(replica, jar);
        (answer.status, &*answer.code()) == (401, "session_expired")
    }

    /// It lets nobody in, the application hears nothing of it, and its cookies go.
    fn is_over_for_good(&self, replica: usize, jar: &str) {
        let before = self.upstream.count();
        let answer = self.get(replica, jar);
        assert_eq!(
            (answer.status, &*answer.code()),
            (401, "session_expired"),
            "{} at {replica}",
            self.mode
        );
        assert_eq!(taken(jar, &answer), "");
        assert_eq!(self.upstream.count(), before);
    }
}

#[test]
fn without_redis_a_copied_cookie_serves_elsewhere_until_its_token_ends_and_is_never_renewed() {
    for mode in MODES {
        let scene = scene_with(mode, false);
        let copied = scene.logged_in(0, ADA);
        scene.serves(1, &copied);
        assert_eq!(scene.log_out(0, "local", &copied), "");
        assert_eq!(scene.identity.provider.session_count(), 0);
        scene.is_over_for_good(0, &copied);

        scene.pass(LIFE - 91);
        scene.serves(1, &copied);
        assert_eq!(scene.refreshes(), 0);
        // Now it would be renewed, and the provider says that it is over.
        scene.pass(31);
        scene.serves(1, &copied);
        assert_eq!(scene.refreshes(), 1);
        scene.is_not_renewed(1, &copied);
        scene.pass(59);
        scene.serves(1, &copied);
        scene.pass(1);
        for _ in 0..2 {
            scene.is_over_for_good(1, &copied);
            scene.is_over_for_good(0, &copied);
            scene.pass(DAY);
        }
    }
}

/// Asks once more on a connection that stays.
fn on(connection: &mut Client, jar: &str) -> Answer {
    let request = format!("GET /a HTTP/1.1\r\nHost: a.test\r\nCookie: {jar}\r\n\r\n");
    connection.write(request.as_bytes());
    connection.read()
}

#[test]
fn with_redis_a_logout_is_heard_by_every_replica_whatever_it_remembers() {
    for mode in MODES {
        let scene = scene_with(mode, true);
        for (here, there) in [(0, 1), (1, 0)] {
            let (copied, other) = (scene.logged_in(here, ADA), scene.logged_in(here, ADA));
            // There it is known to the process, and to a connection that stays.
            let mut connection = Client::connect(scene.houses[there].address);
            for jar in [&copied, &other, &copied] {
                assert_eq!(on(&mut connection, jar).status, 200);
            }
            assert_eq!(scene.log_out(here, "local", &copied), "");
            scene.is_over_for_good(here, &copied);
            eventually(|| scene.is_over(there, &copied));
            scene.is_over_for_good(there, &copied);
            let answer = on(&mut connection, &copied);
            assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
            // The user's other session is none of this.
            assert_eq!(on(&mut connection, &other).status, 200);
            scene.serves(here, &other);
            // Who starts later hears it as well.
            let late = House::start_at(&scene.file, scene.clock.clone());
            let get = |jar: &str| late.get("/a", &[("cookie", jar)]);
            eventually(|| get(&copied).code() == "session_expired");
            assert_eq!(get(&other).status, 200);
        }
        assert_eq!(scene.refreshes(), 0, "nobody had to ask the provider");
    }
}

#[test]
fn a_logout_while_redis_is_away_counts_here_at_once_and_elsewhere_when_it_is_back() {
    for mode in MODES {
        let mut scene = scene_with(mode, true);
        let copied = scene.logged_in(0, ADA);
        scene.serves(1, &copied);
        scene.redis.as_mut().unwrap().stop();
        assert_eq!(scene.log_out(0, "local", &copied), "");
        scene.is_over_for_good(0, &copied);
        scene.serves(1, &copied);
        scene.redis.as_mut().unwrap().start_again();
        eventually(|| scene.is_over(1, &copied));
        scene.is_over_for_good(1, &copied);
        assert_eq!(scene.refreshes(), 0, "it was told");
    }
}

#[test]
fn a_logout_of_the_others_or_of_all_ends_each_at_its_next_renewal() {
    for (mode, redis) in MODES.map(|mode| [(mode, false), (mode, true)]).concat() {
        let scene = scene_with(mode, redis);
        let own = scene.logged_in(0, ADA);
        let others = [scene.logged_in(0, ADA), scene.logged_in(1, ADA)];
        let grace = scene.logged_in(1, GRACE);
        assert_eq!(scene.log_out(0, "others", &own), own, "this one stays");
        assert_eq!(scene.identity.provider.session_count(), 2);
        for jar in [&others[0], &others[1], &own] {
            scene.serves(0, jar);
            scene.serves(1, jar);
        }
        // Whoever asks for the renewal hears of it at once; the token serves on.
        for jar in &others {
            scene.is_not_renewed(1, jar);
            scene.serves(1, jar);
        }
        scene.pass(LIFE - 60);
        for jar in &others {
            scene.serves(1, jar);
        }
        let own = scene.goes_on(0, &own);
        let grace = scene.goes_on(1, &grace);
        scene.pass(60);
        for jar in &others {
            scene.is_over_for_good(0, jar);
            scene.is_over_for_good(1, jar);
        }
        scene.serves(1, &own);

        let another = scene.logged_in(0, ADA);
        assert_eq!(scene.log_out(1, "global", &own), "");
        assert_eq!(scene.identity.provider.session_count(), 1);
        scene.is_over_for_good(1, &own);
        match redis {
            true => eventually(|| scene.is_over(0, &own)),
            false => scene.serves(0, &own),
        }
        scene.serves(0, &another);
        scene.serves(1, &another);
        scene.pass(LIFE - 60);
        scene.serves(0, &another);
        scene.pass(60);
        scene.is_over_for_good(0, &another);
        scene.is_over_for_good(0, &own);
        let grace = scene.goes_on(0, &grace);
        scene.serves(1, &grace);
    }
}
