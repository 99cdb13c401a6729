//! The life of a session from its login to its logout, through the gateway's own endpoints, in every mode.

use crate::support::redis::RedisServer;
use crate::support::{Answer, House, Identity, NOW, Upstream, eventually, taken};
use http::StatusCode;
use serde_json::json;
use std::time::Duration;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::Fault;

const LIFE: u64 = 3600;
const PASSWORD: &str = "correct-horse-9";

struct Scene {
    clock: Clock,
    identity: Identity,
    upstream: Upstream,
    house: House,
    mode: &'static str,
    _redis: Option<RedisServer>,
}

fn scene_with(mode: &'static str, session: &str, more: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let keys = match mode {
        "shared" => "",
        _ => "keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]",
    };
    let file = format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         http_timeout = \"5s\"\n[session]\nmode = \"{mode}\"\n{keys}\n{session}\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/public\"\nauth = \"public\"\n{more}",
        identity.url,
        upstream.url()
    );
    let redis = (mode == "stored").then(RedisServer::start);
    let file = match &redis {
        Some(redis) => format!("{file}\n{}", redis.table()),
        None => file,
    };
    let house = House::start_at(&file, clock.clone());
    Scene {
        clock,
        identity,
        upstream,
        house,
        mode,
        _redis: redis,
    }
}

/// Does the same in every mode.
fn in_every_mode(test: impl Fn(Scene)) {
    in_modes(&["shared", "sealed", "stored"], test);
}

fn in_modes(modes: &[&'static str], test: impl Fn(Scene)) {
    for mode in modes {
        test(scene_with(mode, "", ""));
    }
}

impl Scene {
    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn asked(&self, endpoint: &str) -> u64 {
        self.identity.provider.count(endpoint)
    }

    fn browser(&self) -> Browser<'_> {
        Browser {
            scene: self,
            jar: String::new(),
        }
    }

    fn logged_in(&self, email: &str) -> Browser<'_> {
        let mut browser = self.browser();
        let answer = browser.log_in(email, PASSWORD);
        assert_eq!(answer.status, 200, "{}", answer.text());
        browser
    }
}

/// A browser that shows pages of the gateway's own host.
struct Browser<'s> {
    scene: &'s Scene,
    jar: String,
}

impl Browser<'_> {
    fn ask(&mut self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let origin = format!("http://{}", self.scene.house.address);
        let mut fields = vec![("sec-fetch-site", "same-origin")];
        let jar = self.jar.clone();
        if !jar.is_empty() {
            fields.push(("cookie", &jar));
        }
        if method == "POST" {
            fields.push(("origin", &origin));
        }
        fields.extend(more);
        let answer = self.scene.house.request(method, path, &fields, body);
        self.jar = taken(&jar, &answer);
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], "")
    }

    fn post(&mut self, path: &str) -> Answer {
        self.ask("POST", path, &[("content-length", "0")], "")
    }

    fn log_in(&mut self, email: &str, password: &str) -> Answer {
        let body = json!({ "email": email, "password": password }).to_string();
        let json = [("content-type", "application/json")];
        self.ask("POST", "/.auth/login", &json, &body)
    }
}

#[test]
fn a_password_opens_a_session_and_a_logout_ends_it() {
    in_every_mode(|scene| {
        let mut browser = scene.browser();
        assert_eq!(browser.get("/a").code(), "missing_credentials");
        let answer = browser.log_in("ada@example.com", PASSWORD);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let view = answer.json();
        assert_eq!(view["user"]["email"], "ada@example.com");
        assert_eq!(view["provider"], "main");
        assert_eq!(view["expires_at"], NOW + LIFE);
        assert!(answer.header("cache-control").unwrap().contains("no-store"));
        assert!(!answer.text().contains("eyJ") && !answer.text().contains("refresh_token"));

        assert_eq!(browser.get("/a").status, 200);
        assert_eq!(
            scene.upstream.last().header("x-user-id"),
            view["user"]["id"].as_str()
        );
        assert!(scene.upstream.last().header("authorization").is_some());
        assert_eq!(browser.get("/.auth/session").json(), view);

        let copied = browser.jar.clone();
        let answer = browser.post("/.auth/logout");
        assert_eq!((answer.status, answer.text().len()), (204, 0));
        assert_eq!(browser.jar, "", "every cookie is gone");
        assert_eq!(
            (
                scene.asked("logout"),
                scene.identity.provider.session_count()
            ),
            (1, 0)
        );
        // Whoever copied the cookies has nothing: here at once, and at the provider for good.
        let answer = scene.house.get("/a", &[("cookie", &copied)]);
        assert_eq!(
            (answer.status, &*answer.code()),
            (401, "session_expired"),
            "{}",
            scene.mode
        );
        scene.pass(LIFE + 60);
        let answer = scene.house.get("/a", &[("cookie", &copied)]);
        assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
    });
}

#[test]
fn a_logout_is_one_also_when_the_provider_is_down_or_nobody_was_logged_in() {
    in_every_mode(|scene| {
        let mut browser = scene.browser();
        assert_eq!(browser.post("/.auth/logout").status, 204);
        let mut browser = scene.logged_in("ada@example.com");
        let copied = browser.jar.clone();
        let provider = &scene.identity.provider;
        provider.fail_next("logout", &Fault::Status(StatusCode::BAD_GATEWAY), 1000);
        assert_eq!(browser.post("/.auth/logout").status, 204);
        assert_eq!(browser.jar, "");
        let answer = scene.house.get("/a", &[("cookie", &copied)]);
        assert_eq!(answer.code(), "session_expired");
        provider.stop_failing();
    });
}

#[test]
fn a_login_takes_the_place_of_whatever_was_there() {
    in_every_mode(|scene| {
        let mut browser = scene.logged_in("ada@example.com");
        let planted = browser.jar.clone();
        let answer = browser.log_in("grace@example.com", PASSWORD);
        assert_eq!(answer.status, 200);
        assert_ne!(browser.jar, planted);
        assert_eq!(
            browser.get("/.auth/session").json()["user"]["email"],
            "grace@example.com"
        );
        assert_eq!(browser.get("/a").status, 200);
        let grace = scene.identity.session("grace@example.com");
        assert_eq!(
            scene.upstream.last().header("x-user-id"),
            grace["user"]["id"].as_str()
        );
    });
}

#[test]
fn wrong_passwords_and_unknown_users_are_told_alike_and_do_not_last() {
    in_every_mode(|scene| {
        let mut browser = scene.browser();
        let mut wrong = browser.log_in("ada@example.com", "no").json();
        let mut unknown = browser.log_in("nobody@example.com", "no").json();
        assert_eq!(wrong["code"], "login_failed");
        for problem in [&mut wrong, &mut unknown] {
            problem["request_id"] = json!(null);
        }
        assert_eq!(wrong, unknown);
        assert_eq!(browser.jar, "");
        // Ten for an address in a minute, two of which are gone.
        let codes: Vec<_> = (0..10)
            .map(|number| {
                browser
                    .log_in(&format!("a{number}@example.com"), "no")
                    .code()
            })
            .collect();
        assert!(
            codes[..8].iter().all(|code| code == "login_failed"),
            "{codes:?}"
        );
        assert!(
            codes[8..].iter().all(|code| code == "rate_limited"),
            "{codes:?}"
        );
        assert_eq!(browser.get("/public").status, 200);
    });
}

#[test]
fn an_account_is_tried_ten_times_in_ten_minutes_from_wherever() {
    let scene = scene_with(
        "sealed",
        "",
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n",
    );
    let attempt = |number: u32, email: &str| {
        let origin = format!("http://{}", scene.house.address);
        let from = format!("198.51.100.{number}");
        let body = json!({ "email": email, "password": "no" }).to_string();
        let fields = [
            ("origin", &*origin),
            ("x-forwarded-for", &from),
            ("content-type", "application/json"),
        ];
        scene
            .house
            .request("POST", "/.auth/login", &fields, &body)
            .code()
    };
    let codes: Vec<_> = (0..12).map(|n| attempt(n, "Ada@Example.com ")).collect();
    assert!(
        codes[..10].iter().all(|code| code == "login_failed"),
        "{codes:?}"
    );
    assert!(
        codes[10..].iter().all(|code| code == "rate_limited"),
        "{codes:?}"
    );
    assert_eq!(attempt(90, "ada@example.com"), "rate_limited");
    assert_eq!(attempt(91, "grace@example.com"), "login_failed");
    scene.pass(61);
    assert_eq!(
        attempt(92, "ada@example.com"),
        "login_failed",
        "one a minute comes back"
    );
}

#[test]
fn a_session_is_renewed_when_it_is_asked_for_but_not_all_day() {
    in_modes(&["shared", "sealed"], |scene| {
        let mut browser = scene.logged_in("ada@example.com");
        let before = browser.jar.clone();
        scene.pass(60);
        let answer = browser.post("/.auth/refresh");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["expires_at"], NOW + 60 + LIFE);
        assert_eq!(scene.asked("token.refresh"), 1);
        assert_ne!(browser.jar, before);
        assert_eq!(browser.get("/a").status, 200);
        // Ten a minute for a user, of which one is gone; in whichever of their sessions, and nobody else's.
        let codes: Vec<u16> = (0..30)
            .map(|_| browser.post("/.auth/refresh").status)
            .collect();
        assert_eq!(codes, [&[200; 9][..], &[429; 21][..]].concat());
        assert_eq!(scene.asked("token.refresh"), 10);
        assert_eq!(browser.get("/a").status, 200);
        let mut other = scene.logged_in("ada@example.com");
        assert_eq!(other.post("/.auth/refresh").code(), "rate_limited");
        let mut grace = scene.logged_in("grace@example.com");
        assert_eq!(grace.post("/.auth/refresh").status, 200);
        // Whoever waits as long as they are told to gets one more, and no more than that.
        scene.clock.advance(Duration::from_millis(500));
        let answer = other.post("/.auth/refresh");
        assert_eq!((answer.status, &*answer.code()), (429, "rate_limited"));
        scene.pass(answer.header("retry-after").unwrap().parse().unwrap());
        assert_eq!(other.post("/.auth/refresh").status, 200);
        assert_eq!(browser.post("/.auth/refresh").status, 429);
        assert_eq!(scene.asked("token.refresh"), 12);

        scene.pass(120);
        let provider = &scene.identity.provider;
        provider.fail_next(
            "token.refresh",
            &Fault::Status(StatusCode::BAD_GATEWAY),
            1000,
        );
        let answer = browser.post("/.auth/refresh");
        assert_eq!(answer.code(), "auth_unavailable");
        assert_eq!(browser.get("/a").status, 200, "it is kept");
        provider.stop_failing();
        assert_eq!(
            scene.browser().post("/.auth/refresh").code(),
            "missing_credentials"
        );
    });
}

#[test]
fn another_site_can_neither_log_in_nor_out_nor_renew() {
    in_every_mode(|scene| {
        let browser = scene.logged_in("ada@example.com");
        for path in ["login", "logout", "refresh", "signup", "otp", "verify"] {
            for jar in ["", &*browser.jar] {
                let mut fields = vec![
                    ("sec-fetch-site", "cross-site"),
                    ("origin", "https://evil.example"),
                    ("content-type", "application/json"),
                ];
                if !jar.is_empty() {
                    fields.push(("cookie", jar));
                }
                let path = format!("/.auth/{path}");
                let body = json!({ "email": "grace@example.com", "password": PASSWORD });
                let answer = scene
                    .house
                    .request("POST", &path, &fields, &body.to_string());
                assert_eq!(answer.code(), "csrf_rejected", "{path}");
                assert!(answer.all("set-cookie").is_empty());
            }
        }
        assert_eq!(scene.asked("logout") + scene.asked("token.refresh"), 0);
    });
}

#[test]
fn endpoints_can_be_elsewhere_or_off() {
    let scene = scene_with("sealed", "endpoints = \"/account/session\"", "");
    let mut browser = scene.browser();
    assert_eq!(
        browser.get("/.auth/session").code(),
        "missing_credentials",
        "a route like others"
    );
    assert_eq!(
        browser.get("/account/session/session").code(),
        "missing_credentials"
    );
    let answer = browser.ask("GET", "/account/session/logout", &[], "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let scene = scene_with("sealed", "endpoints = \"off\"", "");
    let answer = scene.browser().log_in("ada@example.com", PASSWORD);
    assert_eq!(answer.code(), "missing_credentials");
}

#[test]
fn a_session_lives_on_with_its_cookies_for_days() {
    in_every_mode(|scene| {
        let mut browser = scene.logged_in("ada@example.com");
        for _ in 0..20 {
            scene.pass(6 * 3600);
            assert_eq!(browser.get("/a").status, 200);
        }
        assert_eq!(scene.asked("token.refresh"), 20);
        eventually(|| browser.post("/.auth/logout").status == 204);
        assert_eq!(scene.identity.provider.session_count(), 0);
    });
}

#[test]
fn fifty_that_ask_for_a_renewal_at_once_get_one() {
    in_every_mode(|scene| {
        let browser = scene.logged_in("ada@example.com");
        scene.pass(60);
        let hold = scene.identity.provider.hold("token.refresh");
        let origin = format!("http://{}", scene.house.address);
        let fields = [
            ("cookie", &*browser.jar),
            ("origin", &*origin),
            ("content-length", "0"),
        ];
        let codes: Vec<u16> = std::thread::scope(|scope| {
            let asking: Vec<_> = (0..50)
                .map(|_| {
                    scope.spawn(|| {
                        scene
                            .house
                            .request("POST", "/.auth/refresh", &fields, "")
                            .status
                    })
                })
                .collect();
            eventually(|| scene.asked("token.refresh") == 1);
            drop(hold);
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(
            codes.iter().all(|code| *code == 200),
            "{}: {codes:?}",
            scene.mode
        );
        assert_eq!(scene.asked("token.refresh"), 1);
    });
}

#[test]
fn what_is_no_endpoint_goes_to_no_application() {
    let scene = scene_with("sealed", "", "");
    let mut browser = scene.logged_in("ada@example.com");
    let before = scene.upstream.count();
    for (method, path) in [
        ("GET", "/.auth"),
        ("GET", "/.auth/nothing"),
        ("POST", "/.auth/sign-in"),
    ] {
        let answer = browser.ask(method, path, &[("content-length", "0")], "");
        assert_eq!(
            (answer.status, &*answer.code()),
            (404, "not_supported"),
            "{path}"
        );
    }
    // Nor what the provider cannot do: a password that is sent there stays here.
    let clock = Clock::frozen(NOW);
    let file = format!(
        "{}[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n",
        scene.identity.tables(),
        scene.upstream.url()
    );
    let house = House::start_at(&file, clock);
    let origin = format!("http://{}", house.address);
    let fields = [("origin", &*origin), ("content-type", "application/json")];
    let answer = house.request("POST", "/.auth/login", &fields, r#"{"password":"secret"}"#);
    assert_eq!(answer.code(), "not_supported");
    assert_eq!(scene.upstream.count(), before);
}

#[test]
fn a_session_that_the_provider_refuses_to_renew_is_told_to_be_over_to_who_asks() {
    in_every_mode(|scene| {
        let mut browser = scene.logged_in("ada@example.com");
        scene.identity.provider.end_sessions("ada@example.com");
        let answer = browser.post("/.auth/refresh");
        assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
        assert_eq!(
            browser.get("/a").status,
            200,
            "its token serves until its end"
        );
        scene.pass(LIFE + 1);
        assert_eq!(browser.get("/a").code(), "session_expired");
        assert_eq!(browser.jar, "");
    });
}

#[test]
fn pages_that_are_trusted_may_ask_for_the_session() {
    let trusted = "trusted_origins = [\"https://admin.example.com\"]";
    let scene = scene_with("sealed", trusted, "");
    let browser = scene.logged_in("ada@example.com");
    let ask = |origin: &str| {
        let fields = [("origin", origin), ("cookie", &*browser.jar)];
        scene.house.get("/.auth/session", &fields)
    };
    let answer = ask("https://admin.example.com");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://admin.example.com")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    let answer = ask("https://evil.example.com");
    assert_eq!(answer.header("access-control-allow-origin"), None);
    let preflight = [
        ("origin", "https://admin.example.com"),
        ("access-control-request-method", "POST"),
    ];
    let answer = scene
        .house
        .request("OPTIONS", "/.auth/logout", &preflight, "");
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-methods"), Some("POST"));
}

#[test]
fn a_session_that_is_kept_here_and_was_renewed_a_moment_ago_is_not_renewed_again() {
    let scene = scene_with("stored", "", "");
    let mut browser = scene.logged_in("ada@example.com");
    let before = browser.jar.clone();
    scene.pass(60);
    for _ in 0..30 {
        let answer = browser.post("/.auth/refresh");
        assert_eq!(answer.json()["expires_at"], NOW + 60 + LIFE);
    }
    assert_eq!(
        (scene.asked("token.refresh"), browser.jar == before),
        (1, true)
    );
    scene.pass(10);
    assert_eq!(browser.post("/.auth/refresh").status, 200);
    assert_eq!(scene.asked("token.refresh"), 2);
}
