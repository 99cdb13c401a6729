//! Sessions whose token gets old go on: the provider is asked once, the upstream gets the new token, the browser the new
//! cookies, and nobody is logged out who need not be.

use crate::support::{Answer, House, Identity, NOW, Upstream, cookie, eventually, taken};
use http::StatusCode;
use std::time::Duration;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::Fault;

/// A token of the development provider lives for an hour.
const LIFE: u64 = 3600;

struct Scene {
    clock: Clock,
    identity: Identity,
    upstream: Upstream,
    house: House,
}

fn scene_with(session: &str, routes: &str) -> Scene {
    scene_that_waits("1s", session, routes)
}

/// For so long for the provider.
fn scene_that_waits(http_timeout: &str, session: &str, routes: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "{}\n{session}\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/public\"\nauth = \"public\"\n[[routes]]\npath = \"/maybe\"\nauth = \"optional\"\n{routes}",
        identity.tables().replace(
            "[session]",
            &format!("publishable_key = \"sb_publishable_test\"\nhttp_timeout = \"{http_timeout}\"\n[session]")
        ),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        clock,
        identity,
        upstream,
        house,
    }
}

fn scene() -> Scene {
    scene_with("", "")
}

impl Scene {
    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn refreshes(&self) -> u64 {
        self.identity.provider.count("token.refresh")
    }

    fn get(&self, path: &str, cookie: &str) -> Answer {
        self.house.get(path, &[("cookie", cookie)])
    }

    /// What the upstream got last as the token.
    fn forwarded(&self) -> String {
        let last = self.upstream.last();
        let value = last.header("authorization").expect("a token");
        value.strip_prefix("Bearer ").unwrap().to_owned()
    }
}

#[test]
fn a_session_is_renewed_when_its_end_is_near_and_not_before() {
    let scene = scene();
    let before = scene.identity.session("ada@example.com");
    let old = format!("theme=dark; {}", cookie(&before.to_string()));
    scene.pass(LIFE - 91);
    let answer = scene.get("/a", &old);
    assert_eq!(answer.status, 200);
    assert_eq!((scene.refreshes(), answer.all("set-cookie").len()), (0, 0));
    assert_eq!(scene.forwarded(), before["access_token"].as_str().unwrap());

    scene.pass(1);
    let answer = scene.get("/b", &old);
    assert_eq!(answer.status, 200);
    assert_eq!(scene.refreshes(), 1);
    let new = scene.forwarded();
    assert_ne!(new, before["access_token"].as_str().unwrap());
    assert_eq!(scene.upstream.last().header("cookie"), Some("theme=dark"));
    // In the same exchange the browser is told, and nobody may keep the answer.
    let set = answer.all("set-cookie");
    assert!(!set.is_empty() && set.iter().all(|line| line.starts_with("sb-127-auth-token")));
    assert!(
        set.iter()
            .all(|line| line.ends_with("; Path=/; SameSite=Lax")),
        "{set:?}"
    );
    assert!(answer.header("cache-control").unwrap().contains("no-store"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));

    let renewed = "tollhouse_session_refresh_total{outcome=\"ok\"}";
    assert_eq!(scene.house.metric(renewed), 1.0);

    let fresh = taken(&old, &answer);
    let answer = scene.get("/c", &fresh);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
    assert_eq!(scene.forwarded(), new, "the browser has the very session");
    assert_eq!(scene.refreshes(), 1);
}

#[test]
fn a_session_whose_token_is_over_goes_on_all_the_same() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 3 * 86_400);
    let answer = scene.get("/a", &old);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(scene.upstream.last().header("x-user-id").is_some());
    let answer = scene.get("/b", &taken(&old, &answer));
    assert_eq!((answer.status, scene.refreshes()), (200, 1));
}

#[test]
fn twenty_tabs_at_the_end_cause_one_call_and_get_one_session() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let hold = scene.identity.provider.hold("token.refresh");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let tabs: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| scene.get("/tab", &old)))
            .collect();
        eventually(|| scene.refreshes() == 1);
        drop(hold);
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer.status == 200));
    let told: Vec<_> = answers.iter().map(|a| a.all("set-cookie")).collect();
    assert!(told.iter().all(|set| !set.is_empty() && *set == told[0]));
    // A request that left the browser before it knew gets the same; much later it is the provider's to judge.
    assert_eq!(scene.get("/late", &old).all("set-cookie"), told[0]);
    assert_eq!(scene.refreshes(), 1);
}

#[test]
fn a_client_that_hangs_up_loses_nothing() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let hold = scene.identity.provider.hold("token.refresh");
    let mut client = crate::support::Client::connect(scene.house.address);
    client.write(format!("GET /a HTTP/1.1\r\nHost: a\r\nCookie: {old}\r\n\r\n").as_bytes());
    eventually(|| scene.refreshes() == 1);
    drop(client);
    scene.house.log.wait_for(1);
    drop(hold);
    let answer = scene.get("/b", &old);
    assert_eq!((answer.status, scene.refreshes()), (200, 1));
    assert!(!answer.all("set-cookie").is_empty());
}

#[test]
fn a_session_that_the_provider_has_ended_serves_until_its_token_is_over_and_then_its_cookies_go() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.identity.provider.end_sessions("ada@example.com");
    scene.pass(LIFE - 60);
    let answer = scene.get("/a", &old);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
    assert_eq!(scene.refreshes(), 1);
    assert_eq!(scene.get("/b", &old).status, 200);
    assert_eq!(scene.refreshes(), 1, "a refusal is remembered");

    scene.pass(60);
    let answer = scene.get("/c", &format!("{old}; theme=dark"));
    assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
    let set = answer.all("set-cookie");
    assert!(
        !set.is_empty() && set.iter().all(|line| line.contains("Max-Age=0")),
        "{set:?}"
    );
    assert_eq!(taken(&format!("{old}; theme=dark"), &answer), "theme=dark");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
    // Where nobody is welcome, it is nobody, and the cookies go as well.
    let answer = scene.get("/maybe", &old);
    assert_eq!(answer.status, 200);
    assert!(answer.all("set-cookie")[0].contains("Max-Age=0"));
    assert_eq!(scene.upstream.last().header("x-user-id"), None);
}

#[test]
fn a_provider_in_trouble_logs_nobody_out() {
    for fault in [
        Fault::Status(StatusCode::BAD_GATEWAY),
        Fault::Status(StatusCode::TOO_MANY_REQUESTS),
        Fault::Code(StatusCode::CONFLICT, "conflict"),
        Fault::Status(StatusCode::UNAUTHORIZED),
        Fault::Answer(StatusCode::OK, "{}".to_owned()),
    ] {
        let scene = scene();
        let old = scene.identity.cookie("ada@example.com");
        scene.pass(LIFE - 30);
        let provider = &scene.identity.provider;
        provider.fail_next("token.refresh", &fault, 200);
        let answer = scene.get("/a", &old);
        assert_eq!(
            (answer.status, answer.all("set-cookie").len()),
            (200, 0),
            "{fault:?}"
        );
        // Its token is over, and it is still kept.
        scene.pass(31);
        let answer = scene.get("/b", &old);
        assert_eq!(
            (answer.status, &*answer.code()),
            (503, "auth_unavailable"),
            "{fault:?}"
        );
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.all("set-cookie").len(), 0);
        assert_eq!(scene.get("/maybe", &old).status, 503);
        assert_eq!(scene.get("/public", &old).status, 200);
        provider.stop_failing();
        scene.pass(11);
        let answer = scene.get("/c", &old);
        assert_eq!(answer.status, 200, "{fault:?}");
        assert!(!answer.all("set-cookie").is_empty());
    }
}

#[test]
fn a_token_that_ends_while_its_renewal_is_waited_for_is_not_forwarded() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE - 1);
    let hold = scene.identity.provider.hold("token.refresh");
    let answer = std::thread::scope(|scope| {
        let asking = scope.spawn(|| scene.get("/a", &old));
        eventually(|| scene.refreshes() == 1);
        scene.pass(1);
        asking.join().unwrap()
    });
    assert_eq!((answer.status, &*answer.code()), (503, "auth_unavailable"));
    assert_eq!(scene.upstream.count(), 0);
    drop(hold);
    scene.pass(2);
    assert_eq!(scene.get("/b", &old).status, 200);
}

#[test]
fn an_answer_of_the_provider_that_is_lost_costs_no_session() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let provider = &scene.identity.provider;
    provider.fail_next("token.refresh", &Fault::LoseAnswer, 1);
    // The token is spent, and whoever brings it again gets the session that came of it.
    let mut answer = scene.get("/a", &old);
    if answer.status == 503 {
        scene.pass(2);
        answer = scene.get("/a", &old);
    }
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = scene.get("/b", &taken(&old, &answer));
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
}

#[test]
fn a_request_that_is_refused_before_its_proof_spends_nothing() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let foreign = [
        ("cookie", &*old),
        ("origin", "https://evil.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    let answer = scene.house.request("POST", "/a", &foreign, "x");
    assert_eq!(answer.code(), "csrf_rejected");
    assert_eq!(scene.get("/public", &old).status, 200);
    let bearer = format!("Bearer {}", scene.identity.token("grace@example.com"));
    let explicit = [("cookie", &*old), ("authorization", &*bearer)];
    assert_eq!(scene.house.get("/a", &explicit).status, 200);
    assert_eq!(scene.refreshes(), 0);
}

#[test]
fn the_cookies_of_a_renewed_session_come_with_a_refusal_as_well() {
    let scene = scene_with(
        "",
        "[[routes]]\npath = \"/admin\"\nrequire = { any_role = [\"admin\"] }\n",
    );
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let answer = scene.get("/admin", &old);
    assert_eq!((answer.status, &*answer.code()), (403, "forbidden"));
    let answer = scene.get("/a", &taken(&old, &answer));
    assert_eq!((answer.status, scene.refreshes()), (200, 1));
}

#[test]
fn an_upstream_that_gets_cookies_gets_those_of_the_renewed_session() {
    let scene = scene_with(
        "",
        "[[routes]]\npath = \"/next\"\nforward_session = \"cookies\"\n",
    );
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let answer = scene.get("/next", &format!("theme=dark; {old}"));
    assert_eq!(answer.status, 200);
    let fresh = taken(&old, &answer);
    let last = scene.upstream.last();
    assert_eq!(
        last.header("cookie"),
        Some(&*format!("theme=dark; {fresh}"))
    );
    assert_eq!(last.header("authorization"), None);
}

#[test]
fn without_a_key_of_the_project_a_session_lasts_as_long_as_its_token() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "{}[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        identity.tables(),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    let cookie = identity.cookie("ada@example.com");
    clock.advance(Duration::from_secs(LIFE - 10));
    assert_eq!(house.get("/a", &[("cookie", &cookie)]).status, 200);
    clock.advance(Duration::from_secs(60));
    assert_eq!(
        house.get("/a", &[("cookie", &cookie)]).code(),
        "token_expired"
    );
    assert_eq!(identity.provider.count("token.refresh"), 0);
}

#[test]
fn a_new_token_of_somebody_else_is_not_taken() {
    let scene = scene();
    let ada = scene.identity.session("ada@example.com");
    let grace = scene.identity.session("grace@example.com");
    // Pieces of two sessions: the refresh token is Grace's.
    let mut mixed = ada.clone();
    mixed["refresh_token"] = grace["refresh_token"].clone();
    let mixed = cookie(&mixed.to_string());
    scene.pass(LIFE - 60);
    let answer = scene.get("/a", &mixed);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
    assert_eq!(scene.forwarded(), ada["access_token"].as_str().unwrap());
    scene.pass(61);
    let answer = scene.get("/b", &mixed);
    assert_eq!(
        (answer.status, answer.all("set-cookie").len()),
        (401, 0),
        "{answer:?}"
    );
}

#[test]
fn a_login_or_a_logout_of_the_application_is_not_overwritten() {
    let scene = scene_with(
        "",
        "[[routes]]\npath = \"/app/*\"\nauth = \"optional\"\nforward_session = \"both\"\n",
    );
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    scene.upstream.reply(crate::support::Reply::bytes(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: sb-127-auth-token=; Max-Age=0; Path=/\r\n\r\n",
    ));
    let answer = scene.get("/app/signout", &old);
    assert_eq!(
        answer.all("set-cookie"),
        ["sb-127-auth-token=; Max-Age=0; Path=/"]
    );
    assert!(answer.header("cache-control").unwrap().contains("no-store"));
    // A session that is over is cleared, unless the application has just begun a new one.
    scene.identity.provider.end_sessions("ada@example.com");
    scene.pass(LIFE + 60);
    scene.upstream.reply(crate::support::Reply::bytes(
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: sb-127-auth-token=base64-new; Path=/\r\n\r\n",
    ));
    let answer = scene.get("/app/login", &old);
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.all("set-cookie"),
        ["sb-127-auth-token=base64-new; Path=/"]
    );
}

#[test]
fn the_cookies_have_the_attributes_that_the_application_gives_its_own() {
    let scene = scene_with(
        "cookie = { domain = \"example.com\", secure = true, http_only = true, same_site = \"strict\" }\n",
        "",
    );
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE + 1);
    let answer = scene.get("/a", &old);
    let set = answer.all("set-cookie");
    let new: Vec<_> = set
        .iter()
        .filter(|line| !line.contains("Max-Age=0"))
        .collect();
    assert!(!new.is_empty());
    for line in new {
        let expected =
            "; Max-Age=34560000; Domain=example.com; Path=/; HttpOnly; Secure; SameSite=Strict";
        assert!(line.ends_with(expected), "{line}");
    }
}

#[test]
fn a_provider_that_is_slow_is_waited_for_once_while_the_token_serves() {
    let scene = scene_that_waits("5s", "", "");
    let old = scene.identity.cookie("ada@example.com");
    scene.pass(LIFE - 60);
    let later = || {
        scene
            .house
            .metric("tollhouse_session_refresh_total{outcome=\"later\"}")
    };
    let serves = |calls: u64| {
        let answer = scene.get("/a", &old);
        assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
        assert_eq!(scene.refreshes(), calls);
    };
    let hold = scene.identity.provider.hold("token.refresh");
    serves(1);
    eventually(|| later() == 1.0);
    // That it failed is long forgotten; that it let somebody wait is not. Whoever asked it now would wait as well.
    for seconds in [12, 12, 5] {
        scene.pass(seconds);
        serves(1);
        serves(1);
    }
    assert_eq!(later(), 1.0);
    scene.pass(2);
    drop(hold);
    let answer = scene.get("/a", &old);
    assert_eq!((answer.status, scene.refreshes()), (200, 2));
    assert_ne!(taken(&old, &answer), old);
}

#[test]
fn a_session_outlives_the_key_that_signed_its_token_and_made_up_ones_gain_nothing() {
    let scene = scene();
    let mut jar = scene.identity.cookie("ada@example.com");
    assert_eq!(scene.get("/a", &jar).status, 200);
    scene.identity.provider.rotate_keys().unwrap();
    scene.identity.provider.revoke_previous_keys();
    // A token of the new key is why the keys are fetched, and so the old one is gone.
    scene.pass(11 * 60);
    assert_eq!(
        scene
            .get("/a", &scene.identity.cookie("grace@example.com"))
            .status,
        200
    );
    eventually(|| {
        let answer = scene.get("/a", &jar);
        assert_eq!(answer.status, 200, "{answer:?}");
        jar = taken(&jar, &answer);
        scene.refreshes() == 1
    });
    assert_eq!(scene.get("/a", &jar).status, 200);

    // Tokens signed by nobody, with refresh tokens that nobody gave: the address runs out of attempts long before the
    // provider is bothered by them.
    let before = scene.refreshes();
    let answers: Vec<String> = (0..200)
        .map(|number| {
            let token = scene.identity.provider.sign_with(
                &serde_json::json!({ "alg": "ES256", "kid": "gone", "typ": "JWT" }),
                &serde_json::json!({ "sub": format!("user-{number}"), "exp": NOW + 2 * LIFE }),
            );
            let session = serde_json::json!({
                "access_token": token.unwrap(), "refresh_token": format!("made-up-{number}"), "expires_at": NOW + 2 * LIFE,
            });
            scene.get("/a", &cookie(&session.to_string())).code()
        })
        .collect();
    assert!(scene.refreshes() - before <= 30, "{}", scene.refreshes());
    assert_eq!(answers.last().unwrap(), "rate_limited");
    assert_eq!(scene.get("/a", &jar).status, 200, "others go on");
}
