//! What the provider hears of the gateway: how often logins may ask it, and with which key and for which browser they and
//! renewals do (`session.provider_budget`, `providers.*.secret_key`). Through a whole gateway, in every mode.

use crate::support::redis::RedisServer;
use crate::support::{Answer, House, Identity, NOW, Upstream, taken};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tollhouse::base::body::Body;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::Provider;

const LIFE: u64 = 3600;
const MODES: [&str; 3] = ["shared", "sealed", "stored"];
const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
const PUBLISHABLE: &str = "sb_publishable_test";
const SECRET: &str = "sb_secret_0123456789abcdef";
/// `service_role`, as projects had it before: `{"role":"service_role"}`.
const OLD_SECRET: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJlLXRoYXQtbm9ib2R5LWNoZWNrcw";

/// A call as it came to the provider.
struct Call {
    target: String,
    headers: HeaderMap,
}

impl Call {
    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        assert!(values.next().is_none(), "{name} came twice");
        first.map(|value| value.to_str().unwrap())
    }
}

struct Scene {
    clock: Clock,
    identity: Identity,
    calls: Arc<Mutex<Vec<Call>>>,
    upstream: Upstream,
    house: House,
    _redis: Option<RedisServer>,
}

/// Takes this key alone, and a secret one from no browser, as the platform does.
async fn in_front(provider: Provider, key: &str, mut request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers_mut();
    let agent = headers.get(USER_AGENT);
    let browser = agent.is_some_and(|agent| agent.to_str().unwrap().contains("Mozilla"));
    if browser && key != PUBLISHABLE {
        let mut refusal = Response::new(Body::full("Forbidden use of secret API key in browser"));
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        return refusal;
    }
    // The development provider knows one key.
    if headers.get("apikey").is_some_and(|given| given == key) {
        headers.insert("apikey", HeaderValue::from_static(PUBLISHABLE));
    } else {
        headers.remove("apikey");
    }
    provider.handle(request).await
}

/// A gateway behind a proxy that names its clients, which reaches its provider with this key.
fn scene_with(mode: &str, key: &'static str, session: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let heard = calls.clone();
    let identity = Identity::behind(
        &clock,
        Duration::from_secs(LIFE),
        move |provider, request| {
            heard.lock().push(Call {
                target: request.uri().to_string(),
                headers: request.headers().clone(),
            });
            in_front(provider, key, request)
        },
    );
    let upstream = Upstream::start();
    let keys = match mode {
        "shared" => "",
        _ => "keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]",
    };
    let secret = match key {
        PUBLISHABLE => String::new(),
        secret => format!("secret_key = \"{secret}\""),
    };
    let redis = (mode == "stored").then(RedisServer::start);
    let file = format!(
        "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n\
         [providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"{PUBLISHABLE}\"\n{secret}\n\
         [session]\nmode = \"{mode}\"\n{keys}\n{session}\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n{}",
        identity.url,
        upstream.url(),
        redis.as_ref().map(RedisServer::table).unwrap_or_default(),
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        clock,
        identity,
        calls,
        upstream,
        house,
        _redis: redis,
    }
}

impl Scene {
    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn asked(&self, endpoint: &str) -> u64 {
        self.identity.provider.count(endpoint)
    }

    /// A browser at this address asks. It also says what only we may say.
    fn ask(&self, from: &str, method: &str, path: &str, jar: &str, body: &str) -> Answer {
        let origin = format!("http://{}", self.house.address);
        let hops = format!("192.0.2.66, {from}");
        let mut fields = vec![
            ("user-agent", BROWSER),
            ("x-forwarded-for", &*hops),
            ("sb-forwarded-for", "192.0.2.67"),
            ("sec-fetch-site", "same-origin"),
        ];
        if !jar.is_empty() {
            fields.push(("cookie", jar));
        }
        if method == "POST" {
            fields.push(("origin", &origin));
            fields.push(("content-type", "application/json"));
            if body.is_empty() {
                fields.push(("content-length", "0"));
            }
        }
        self.house.request(method, path, &fields, body)
    }

    fn post(&self, from: &str, path: &str, body: &Value) -> Answer {
        self.ask(from, "POST", path, "", &body.to_string())
    }

    fn log_in(&self, from: &str) -> Answer {
        let body = json!({ "email": "ada@example.com", "password": "correct-horse-9" });
        self.post(from, "/.auth/login", &body)
    }

    /// The jar of a browser that has just logged in.
    fn logged_in(&self, from: &str) -> String {
        let answer = self.log_in(from);
        assert_eq!(answer.status, 200, "{}", answer.text());
        taken("", &answer)
    }
}

/// Refused for its number, with the seconds after which it may be tried again.
fn is_limited(answer: &Answer, seconds: &str) {
    assert_eq!(
        (answer.status, &*answer.code(), answer.header("retry-after")),
        (429, "rate_limited", Some(seconds)),
        "{}",
        answer.text()
    );
    assert!(answer.all("set-cookie").is_empty());
}

#[test]
fn logins_and_messages_each_take_what_is_theirs_and_renewals_go_on() {
    for mode in MODES {
        let budget = "provider_budget = { login = \"3/5m\", otp = \"2/5m\" }";
        let scene = scene_with(mode, PUBLISHABLE, budget);
        let mut number = 0;
        // From everywhere: what an address may try is another matter.
        let mut somewhere = || {
            number += 1;
            format!("203.0.113.{number}")
        };
        let early = scene.logged_in(&somewhere());
        scene.pass(LIFE - 60);
        let jars: Vec<String> = (0..3).map(|_| scene.logged_in(&somewhere())).collect();
        for _ in 0..3 {
            is_limited(&scene.log_in(&somewhere()), "100");
        }
        assert_eq!(
            scene.asked("token.password"),
            4,
            "the provider is not asked"
        );

        let address = json!({ "email": "grace@example.com" });
        let stranger = json!({ "email": "new@example.com", "password": "correct-horse-9" });
        let send = |from: String| scene.post(&from, "/.auth/otp", &address);
        for _ in 0..2 {
            let answer = send(somewhere());
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        is_limited(&send(somewhere()), "150");
        is_limited(&scene.post(&somewhere(), "/.auth/signup", &stranger), "150");
        assert_eq!((scene.asked("otp"), scene.asked("signup")), (2, 0));
        // What was sent is checked as often as there may be messages, and not instead of them.
        let guess = json!({ "type": "email", "token": "000000", "email": "grace@example.com" });
        let check = |from: String| scene.post(&from, "/.auth/verify", &guess);
        for _ in 0..2 {
            assert_eq!(check(somewhere()).code(), "login_failed");
        }
        is_limited(&check(somewhere()), "150");
        assert_eq!(scene.asked("verify"), 2);

        assert_eq!(scene.asked("token.refresh"), 0);
        let answer = scene.ask(&somewhere(), "GET", "/a", &early, "");
        assert_eq!((answer.status, scene.asked("token.refresh")), (200, 1));
        for jar in &jars {
            let answer = scene.ask(&somewhere(), "POST", "/.auth/refresh", jar, "");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(scene.asked("token.refresh"), 4);

        scene.pass(100);
        scene.logged_in(&somewhere());
        is_limited(&scene.log_in(&somewhere()), "100");
        is_limited(&send(somewhere()), "50");
        scene.pass(50);
        assert_eq!(send(somewhere()).status, 200);
        is_limited(&scene.log_in(&somewhere()), "50");
        assert_eq!((scene.asked("token.password"), scene.asked("otp")), (5, 3));
    }
}

/// A login, both kinds of renewal and a logout, each from an address of its own, and the calls that they made.
fn a_life(scene: &Scene, froms: [&str; 4]) -> Vec<(&'static str, Call)> {
    let mut jar = scene.logged_in(froms[0]);
    let answer = scene.ask(froms[1], "POST", "/.auth/refresh", &jar, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    jar = taken(&jar, &answer);
    scene.pass(LIFE + 5);
    let answer = scene.ask(froms[2], "GET", "/a", &jar, "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    jar = taken(&jar, &answer);
    let answer = scene.ask(froms[3], "POST", "/.auth/logout", &jar, "");
    assert_eq!(answer.status, 204);
    assert_eq!(scene.identity.provider.session_count(), 0, "it has heard");
    let calls = std::mem::take(&mut *scene.calls.lock());
    let mut calls = calls
        .into_iter()
        .filter(|call| !call.target.contains("/.well-known/"));
    let expected = [
        "/auth/v1/token?grant_type=password",
        "/auth/v1/token?grant_type=refresh_token",
        "/auth/v1/token?grant_type=refresh_token",
        "/auth/v1/logout?scope=local",
    ];
    let life = expected.map(|target| (target, calls.next().expect(target)));
    let more = calls.next().map(|call| call.target);
    assert_eq!(more, None, "nothing else is asked");
    for (target, call) in &life {
        assert_eq!(call.target, *target);
    }
    life.into()
}

#[test]
fn with_a_secret_key_the_provider_hears_of_the_browsers_address_and_not_its_name() {
    let froms = ["203.0.113.1", "203.0.113.2", "2001:db8::3", "203.0.113.4"];
    for mode in MODES {
        for key in [PUBLISHABLE, SECRET, OLD_SECRET] {
            let scene = scene_with(mode, key, "");
            let user = |call: &Call| call.target.contains("/logout");
            for ((target, call), from) in a_life(&scene, froms).iter().zip(froms) {
                let what = format!("{mode}, {key}, {target}");
                assert_eq!(call.header("apikey"), Some(key), "{what}");
                let bearer = call.header(AUTHORIZATION.as_str()).unwrap();
                let own = bearer == format!("Bearer {key}");
                assert_eq!(own, !user(call), "{what}");
                // Only a key of the new kind makes the project believe it.
                let believed = Some(from).filter(|_| key == SECRET);
                assert_eq!(call.header("sb-forwarded-for"), believed, "{what}");
                assert_eq!(call.header("x-forwarded-for"), Some(from), "{what}");
                let agent = call.header("user-agent").unwrap();
                match key {
                    PUBLISHABLE => assert_eq!(agent, BROWSER, "{what}"),
                    _ => assert!(agent.starts_with("tollhouse/"), "{what}: {agent}"),
                }
            }
        }
    }
}

#[test]
fn a_secret_key_stays_between_us_and_the_provider() {
    for mode in MODES {
        let scene = scene_with(mode, SECRET, "");
        let login = scene.log_in("203.0.113.1");
        let jar = taken("", &login);
        let page = scene.ask("203.0.113.1", "GET", "/a", &jar, "");
        let view = scene.ask("203.0.113.1", "GET", "/.auth/session", &jar, "");
        for answer in [&login, &page, &view] {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let text = format!("{:?}{}", answer.headers, answer.text());
            assert!(!text.contains("sb_secret_"), "{text}");
        }
        let upstream = format!("{:?}", scene.upstream.last());
        assert!(upstream.contains("x-user-id") && !upstream.contains("sb_secret_"));
        scene.house.log.wait_for(3);
        assert!(!scene.house.log.text().contains("sb_secret_"));
        assert!(!scene.house.metrics().contains("sb_secret_"));
    }
}
