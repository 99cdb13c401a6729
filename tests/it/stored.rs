//! Sessions behind an opaque id, on several replicas: one that ends anywhere ends everywhere, and when Redis is away there
//! is no session and nobody is taken for anybody.

use crate::support::redis::RedisServer;
use crate::support::{
    Answer, Client, House, Identity, NOW, Reply, Upstream, eventually, send, taken,
};
use serde_json::json;
use std::time::Duration;
use tollhouse::base::clock::Clock;

const LIFE: u64 = 3600;

struct Scene {
    clock: Clock,
    identity: Identity,
    upstream: Upstream,
    redis: RedisServer,
    houses: Vec<House>,
}

fn scene_with(replicas: usize, session: &str, timeout: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let redis = RedisServer::start();
    let file = file(&identity, &upstream, &redis, session, timeout);
    let houses = (0..replicas)
        .map(|_| House::start_at(&file, clock.clone()))
        .collect();
    Scene {
        clock,
        identity,
        upstream,
        redis,
        houses,
    }
}

fn file(
    identity: &Identity,
    upstream: &Upstream,
    redis: &RedisServer,
    session: &str,
    timeout: &str,
) -> String {
    format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         http_timeout = \"5s\"\n[session]\nmode = \"stored\"\n\
         keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]\n{session}\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/public\"\nauth = \"public\"\n[[routes]]\npath = \"/maybe\"\nauth = \"optional\"\n{}",
        identity.url,
        upstream.url(),
        redis.table().replace("2s", timeout),
    )
}

fn scene(replicas: usize) -> Scene {
    scene_with(replicas, "", "2s")
}

impl Scene {
    /// The file of its replicas.
    fn file(&self, session: &str) -> String {
        file(&self.identity, &self.upstream, &self.redis, session, "2s")
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn get(&self, replica: usize, path: &str, jar: &str) -> Answer {
        self.houses[replica].get(path, &[("cookie", jar)])
    }

    /// The token with which a request is forwarded.
    fn upstream_token(&self, replica: usize, jar: &str) -> String {
        assert_eq!(self.get(replica, "/a", jar).status, 200);
        let last = self.upstream.last();
        last.header("authorization").unwrap().to_owned()
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
}

#[test]
fn the_browser_has_an_id_and_nothing_else() {
    let scene = scene(2);
    let jar = scene.logged_in(0, "ada@example.com");
    let (name, value) = jar.split_once('=').unwrap();
    assert_eq!((name, value.len()), ("tollhouse", 43));
    for replica in [0, 1] {
        assert_eq!(scene.get(replica, "/a", &jar).status, 200);
        let token = scene.upstream.last();
        assert!(
            token
                .header("authorization")
                .unwrap()
                .starts_with("Bearer eyJ")
        );
        assert!(token.header("cookie").is_none());
    }
    let other = scene.logged_in(1, "ada@example.com");
    assert_ne!(jar, other, "an id for each login");
}

#[test]
fn a_login_makes_an_id_of_its_own_and_ends_what_was_planted() {
    let scene = scene_with(1, "cache_ttl = \"0s\"", "2s");
    let planted = scene.logged_in(0, "ada@example.com");
    let body = json!({ "email": "grace@example.com", "password": "correct-horse-9" }).to_string();
    let answer = scene.post(0, "/.auth/login", &planted, &body);
    let jar = taken(&planted, &answer);
    assert_ne!(jar, planted);
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
    assert_eq!(scene.get(0, "/a", &planted).code(), "session_expired");
    // An id that nobody has given out is none, before a login and after.
    let made_up = format!("tollhouse={}", "A".repeat(43));
    assert_eq!(scene.get(0, "/a", &made_up).code(), "session_expired");
    let answer = scene.post(0, "/.auth/login", &made_up, &body);
    assert_ne!(taken(&made_up, &answer), made_up);
}

#[test]
fn a_session_is_renewed_by_one_replica_and_goes_on_at_all() {
    let scene = scene(3);
    let jar = scene.logged_in(0, "ada@example.com");
    for replica in 0..3 {
        assert_eq!(scene.get(replica, "/a", &jar).status, 200);
    }
    scene.pass(LIFE + 5);
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let tabs: Vec<_> = (0..12)
            .map(|tab| {
                scope.spawn({
                    let (scene, jar) = (&scene, &jar);
                    move || scene.get(tab % 3, "/a", jar)
                })
            })
            .collect();
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    for answer in statuses {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.all("set-cookie").is_empty(), "the id stays");
    }
    assert_eq!(scene.identity.provider.count("token.refresh"), 1);
    for day in 0..5 {
        scene.pass(86_400);
        assert_eq!(scene.get(day % 3, "/a", &jar).status, 200);
    }
}

#[test]
fn a_logout_ends_the_session_at_every_replica() {
    let scene = scene(2);
    let jar = scene.logged_in(0, "ada@example.com");
    assert_eq!(scene.get(1, "/a", &jar).status, 200);
    let answer = scene.post(0, "/.auth/logout", &jar, "");
    assert_eq!(answer.status, 204);
    assert_eq!(
        scene.get(0, "/a", &jar).code(),
        "session_expired",
        "here at once"
    );
    eventually(|| scene.get(1, "/a", &jar).code() == "session_expired");
    let answer = scene.get(1, "/a", &jar);
    assert_eq!(taken(&jar, &answer), "");
    assert_eq!(scene.identity.provider.session_count(), 0);
}

#[test]
fn a_logout_everywhere_ends_all_of_a_user_and_nobody_elses() {
    let scene = scene(2);
    let jars: Vec<_> = (0..4)
        .map(|n| scene.logged_in(n % 2, "ada@example.com"))
        .collect();
    let grace = scene.logged_in(0, "grace@example.com");
    let answer = scene.post(1, "/.auth/logout?scope=others", &jars[0], "");
    assert_eq!((answer.status, answer.all("set-cookie").len()), (204, 0));
    assert_eq!(scene.get(1, "/a", &jars[0]).status, 200);
    for jar in &jars[1..] {
        assert_eq!(scene.get(1, "/a", jar).code(), "session_expired");
        eventually(|| scene.get(0, "/a", jar).code() == "session_expired");
    }
    let jar = scene.logged_in(0, "ada@example.com");
    assert_eq!(
        scene
            .post(0, "/.auth/logout?scope=global", &jars[0], "")
            .status,
        204
    );
    for jar in [&jars[0], &jar] {
        assert_eq!(scene.get(0, "/a", jar).code(), "session_expired");
        eventually(|| scene.get(1, "/a", jar).code() == "session_expired");
    }
    assert_eq!(scene.get(0, "/a", &grace).status, 200);
}

#[test]
fn when_redis_is_away_there_is_no_telling_and_when_it_is_back_all_goes_on() {
    let scene = scene_with(1, "cache_ttl = \"0s\"", "200ms");
    let jar = scene.logged_in(0, "ada@example.com");
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
    let before = scene.upstream.count();
    scene.redis.freeze();
    for path in ["/a", "/maybe"] {
        let answer = scene.get(0, path, &jar);
        assert_eq!(
            (answer.status, &*answer.code()),
            (503, "auth_unavailable"),
            "{path}"
        );
        assert!(answer.header("retry-after").is_some());
        assert!(answer.all("set-cookie").is_empty(), "the cookie is kept");
    }
    let answer = scene.post(0, "/.auth/logout", &jar, "");
    assert_eq!(
        answer.code(),
        "auth_unavailable",
        "nobody is told to be logged out who is not"
    );
    assert!(answer.all("set-cookie").is_empty());
    let body = json!({ "email": "ada@example.com", "password": "correct-horse-9" }).to_string();
    assert_eq!(
        scene.post(0, "/.auth/login", "", &body).code(),
        "auth_unavailable"
    );
    assert_eq!(
        scene.upstream.count(),
        before,
        "nothing of it reached the application"
    );
    assert_eq!(scene.get(0, "/public", &jar).status, 200);
    scene.redis.go_on();
    eventually(|| scene.get(0, "/a", &jar).status == 200);
}

#[test]
fn what_redis_has_lost_is_over() {
    let mut scene = scene_with(1, "cache_ttl = \"0s\"", "500ms");
    let jar = scene.logged_in(0, "ada@example.com");
    scene.redis.stop();
    scene.redis.start_again();
    eventually(|| scene.get(0, "/a", &jar).status != 503);
    let answer = scene.get(0, "/a", &jar);
    assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
    assert_eq!(taken(&jar, &answer), "");
    assert_eq!(
        scene.get(0, "/maybe", &jar).status,
        200,
        "and nobody where nobody is welcome"
    );
    assert!(scene.upstream.last().header("x-user-id").is_none());
}

#[test]
fn sessions_of_the_library_are_taken_over_by_all_replicas_as_one() {
    let scene = scene_with(3, "adopt = true", "2s");
    let old = scene.identity.cookie("ada@example.com");
    let jars: Vec<String> = std::thread::scope(|scope| {
        let tabs: Vec<_> = (0..9)
            .map(|tab| {
                let (scene, old) = (&scene, &old);
                scope.spawn(move || {
                    let page = [("cookie", &**old), ("sec-fetch-site", "same-origin")];
                    let answer = scene.houses[tab % 3].get("/a", &page);
                    assert_eq!(answer.status, 200, "{}", answer.text());
                    taken(old, &answer)
                })
            })
            .collect();
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    assert!(
        jars.iter()
            .all(|jar| *jar == jars[0] && jar.starts_with("tollhouse=")),
        "{jars:?}"
    );
    assert_eq!(scene.identity.provider.count("token.refresh"), 1);
}

#[test]
fn what_is_open_keeps_its_session_going_without_a_browser_until_the_logout() {
    let scene = scene_with(2, "max_age = \"30d\"", "2s");
    let jar = scene.logged_in(0, "ada@example.com");
    // Events that come for as long as anybody listens.
    scene.upstream.reply(Reply::bytes("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"));
    let mut events = Client::connect(scene.houses[0].address);
    let host = scene.houses[0].address;
    events.write(
        format!(
            "GET /events HTTP/1.1\r\nHost: {host}\r\nCookie: {jar}\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    assert!(events.read_line().starts_with("HTTP/1.1 200"));
    scene.upstream.reply(Reply::Ok);
    let refreshes = || scene.identity.provider.count("token.refresh");
    for _ in 1..=3 {
        let before = refreshes();
        scene.pass(LIFE - 20);
        // What comes of the last renewal may be written down after the clock has jumped: then a second must pass.
        eventually(|| {
            scene.clock.advance(Duration::from_millis(20));
            refreshes() > before
        });
    }
    scene.pass(60);
    // An hour's token has ended three times; the stream is there, and so is the session.
    assert_eq!(scene.get(1, "/events", &jar).status, 200);
    assert_eq!(scene.post(1, "/.auth/logout", &jar, "").status, 204);
    let rest = String::from_utf8(events.rest()).unwrap();
    assert!(
        rest.ends_with("0\r\n\r\n"),
        "an end that an EventSource takes for one: {rest:?}"
    );
}

#[test]
fn a_replica_without_the_key_lets_nobody_in_and_logs_nobody_out() {
    let scene = scene(1);
    let jar = scene.logged_in(0, "ada@example.com");
    let file = scene.file("").replace("MDEyMzQ1", "ZmVkY2Jh");
    let other = House::start_at(&file, scene.clock.clone());
    let answer = other.get("/a", &[("cookie", &jar)]);
    assert_eq!(answer.code(), "missing_credentials");
    assert!(
        answer.all("set-cookie").is_empty(),
        "the key may be on its way"
    );
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
}

#[test]
fn whoever_asks_whether_it_is_well_is_told_of_redis() {
    let scene = scene_with(1, "", "200ms");
    let house = &scene.houses[0];
    eventually(|| house.metric("tollhouse_redis_up") == 1.0);
    let ready = || {
        send(
            house.admin,
            b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            false,
        )
    };
    eventually(|| ready().json()["status"] == "ok");
    scene.redis.freeze();
    let jar = format!("tollhouse={}", "A".repeat(43));
    assert_eq!(scene.get(0, "/a", &jar).status, 503);
    eventually(|| house.metric("tollhouse_redis_up") == 0.0);
    let answer = ready();
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!("degraded"))
    );
    assert!(answer.text().contains("Redis is away"));
    scene.redis.go_on();
    eventually(|| ready().json()["status"] == "ok");
}

#[test]
fn a_logout_that_fails_leaves_the_cookie_for_another_one() {
    let scene = scene_with(1, "", "200ms");
    let jar = scene.logged_in(0, "ada@example.com");
    // Read a moment ago: what it is is known here, and cannot be ended.
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
    scene.redis.freeze();
    let answer = scene.post(0, "/.auth/logout", &jar, "");
    assert_eq!((answer.status, &*answer.code()), (503, "auth_unavailable"));
    assert!(answer.all("set-cookie").is_empty());
    scene.redis.go_on();
    eventually(|| scene.post(0, "/.auth/logout", &jar, "").status == 204);
    scene.pass(6);
    assert_eq!(scene.get(0, "/a", &jar).code(), "session_expired");
}

#[test]
fn a_logout_at_a_replica_that_cannot_read_the_session_ends_it_all_the_same() {
    let scene = scene(1);
    let jar = scene.logged_in(0, "ada@example.com");
    let file = scene.file("").replace("MDEyMzQ1", "ZmVkY2Jh");
    let other = House::start_at(&file, scene.clock.clone());
    let origin = format!("http://{}", other.address);
    let fields = [
        ("cookie", &*jar),
        ("origin", &*origin),
        ("content-length", "0"),
    ];
    assert_eq!(
        other.request("POST", "/.auth/logout", &fields, "").status,
        204
    );
    scene.pass(6);
    assert_eq!(scene.get(0, "/a", &jar).code(), "session_expired");
}

#[test]
fn a_logout_whose_client_hangs_up_is_one() {
    let scene = scene_with(2, "", "5s");
    let jar = scene.logged_in(0, "ada@example.com");
    assert_eq!(scene.get(1, "/a", &jar).status, 200);
    scene.redis.freeze();
    let host = scene.houses[0].address;
    let mut client = Client::connect(host);
    client.write(
        format!("POST /.auth/logout HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nCookie: {jar}\r\nContent-Length: 0\r\n\r\n").as_bytes(),
    );
    // It has come as far as it can, and goes.
    std::thread::sleep(Duration::from_millis(300));
    drop(client);
    scene.redis.go_on();
    eventually(|| scene.identity.provider.session_count() == 0);
    eventually(|| scene.get(1, "/a", &jar).code() == "session_expired");
}

#[test]
fn events_on_the_connection_that_renewed_the_session_keep_it_going_as_well() {
    let scene = scene(1);
    let jar = scene.logged_in(0, "ada@example.com");
    scene.pass(LIFE + 1);
    let host = scene.houses[0].address;
    let mut client = Client::connect(host);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {jar}\r\n\r\n");
    client.write(ask("/first").as_bytes());
    assert_eq!(client.read().status, 200);
    scene.upstream.reply(Reply::bytes("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n"));
    client.write(ask("/events").as_bytes());
    assert!(client.read_line().starts_with("HTTP/1.1 200"));
    scene.upstream.reply(Reply::Ok);
    scene.pass(LIFE - 20);
    let refreshes = || scene.identity.provider.count("token.refresh");
    eventually(|| {
        scene.clock.advance(Duration::from_millis(20));
        refreshes() > 1
    });
}

#[test]
fn a_replica_never_spends_a_refresh_token_that_another_has_spent() {
    let scene = scene_with(2, "cache_ttl = \"1m\"", "2s");
    let jar = scene.logged_in(0, "ada@example.com");
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
    for _ in 0..2 {
        assert_eq!(scene.post(1, "/.auth/refresh", &jar, "").status, 200);
        // Longer than an outcome is handed out again.
        scene.pass(11);
    }
    assert_eq!(scene.post(0, "/.auth/refresh", &jar, "").status, 200);
    for replica in [0, 1] {
        assert_eq!(scene.post(replica, "/.auth/refresh", &jar, "").status, 200);
        assert_eq!(scene.get(replica, "/a", &jar).status, 200);
    }
}

#[test]
fn a_replica_renews_what_a_session_is_and_not_what_it_was_when_it_was_read() {
    let scene = scene_with(2, "cache_ttl = \"300s\"", "2s");
    let jar = scene.logged_in(0, "ada@example.com");
    scene.pass(LIFE - 95);
    let first = scene.upstream_token(1, &jar);
    // Due: the other renews it, and once more because somebody asks for it.
    scene.pass(10);
    assert_eq!(scene.get(0, "/a", &jar).status, 200);
    scene.pass(15);
    assert_eq!(scene.post(0, "/.auth/refresh", &jar, "").status, 200);
    let refreshes = || scene.identity.provider.count("token.refresh");
    assert_eq!(refreshes(), 2);
    // What came of the first renewal is told no longer, and its token may not be used again.
    scene.redis.forget("tollhouse:lease:*");
    scene.pass(15);
    assert_ne!(scene.upstream_token(1, &jar), first);
    assert_eq!(refreshes(), 2);
    scene.pass(2 * LIFE);
    for replica in [1, 0] {
        assert_eq!(scene.get(replica, "/a", &jar).status, 200);
    }
    assert_eq!(refreshes(), 3);
}
