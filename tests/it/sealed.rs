//! Sessions in a cookie that only the gateway can read, and the change to them from the cookies of the provider's own
//! library: nobody is logged out by it, and no cookie that was copied before becomes a session after.

use crate::support::{Answer, House, Identity, NOW, Upstream, cookie, eventually, taken};
use http::StatusCode;
use std::time::Duration;
use tollhouse::base::clock::Clock;
use tollhouse::demo::provider::Fault;

/// A token of the development provider lives for an hour.
const LIFE: u64 = 3600;
const DAY: u64 = 86_400;

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
const OTHER_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA";

struct Scene {
    clock: Clock,
    identity: Identity,
    upstream: Upstream,
    house: House,
}

/// A gateway in front of this provider. `session`: more of that table.
fn house(clock: &Clock, identity: &Identity, upstream: &Upstream, session: &str) -> House {
    let keys = if session.contains("keys") {
        ""
    } else {
        "keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]\n"
    };
    let file = format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         http_timeout = \"1s\"\n[session]\nmode = \"sealed\"\n{keys}{session}\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/public\"\nauth = \"public\"\n[[routes]]\npath = \"/maybe\"\nauth = \"optional\"\n",
        identity.url,
        upstream.url()
    );
    House::start_at(&file, clock.clone())
}

fn scene_with(session: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = house(&clock, &identity, &upstream, session);
    Scene {
        clock,
        identity,
        upstream,
        house,
    }
}

fn scene() -> Scene {
    scene_with("adopt = true")
}

impl Scene {
    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn refreshes(&self) -> u64 {
        self.identity.provider.count("token.refresh")
    }

    fn get(&self, path: &str, cookie: &str) -> Answer {
        let page = [("cookie", cookie), ("sec-fetch-site", "same-origin")];
        self.house.get(path, &page)
    }

    /// The Cookie field of a browser whose session has just become ours.
    fn sealed(&self, email: &str) -> String {
        let before = self.identity.cookie(email);
        let answer = self.get("/a", &before);
        assert_eq!(answer.status, 200, "{answer:?}");
        taken(&before, &answer)
    }

    /// What the upstream got last as the token.
    fn forwarded(&self) -> String {
        let last = self.upstream.last();
        let value = last.header("authorization").expect("a token");
        value.strip_prefix("Bearer ").unwrap().to_owned()
    }
}

#[test]
fn a_session_of_the_library_becomes_ours_at_once_and_its_cookies_go() {
    let scene = scene();
    let before = scene.identity.session("ada@example.com");
    let old = format!(
        "theme=dark; {}; sb-127-auth-token-code-verifier=v",
        cookie(&before.to_string())
    );
    let answer = scene.get("/a", &old);
    assert_eq!((answer.status, scene.refreshes()), (200, 1));
    let new = scene.forwarded();
    assert_ne!(new, before["access_token"].as_str().unwrap());
    let upstream = scene.upstream.last();
    assert_eq!(
        upstream.header("cookie"),
        Some("theme=dark; sb-127-auth-token-code-verifier=v")
    );
    assert!(answer.header("cache-control").unwrap().contains("no-store"));
    let set = answer.all("set-cookie");
    let ours: Vec<_> = set.iter().filter(|l| l.starts_with("tollhouse")).collect();
    assert!(!ours.is_empty());
    for line in ours {
        assert!(
            line.contains("; HttpOnly") && line.contains("; SameSite=Lax"),
            "{line}"
        );
        assert!(
            line.contains("; Path=/") && !line.contains("Domain"),
            "{line}"
        );
    }
    assert!(
        set.iter()
            .any(|line| line.starts_with("sb-127-auth-token=; Max-Age=0"))
    );
    assert!(!set.iter().any(|line| line.contains("verifier")));
    // Nothing that a script or a thief could read: neither token, whole or in part.
    let text = set.join("\n");
    for secret in ["access_token", "refresh_token"] {
        let secret = before[secret].as_str().unwrap();
        assert!(!text.contains(secret));
    }
    assert!(!text.contains(&new[..20]) && !text.contains(new.split('.').nth(1).unwrap()));

    let fresh = taken(&old, &answer);
    assert!(
        fresh.contains("theme=dark") && fresh.contains("code-verifier=v"),
        "{fresh}"
    );
    let answer = scene.house.get("/b", &[("cookie", &fresh)]);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
    assert_eq!((scene.forwarded(), scene.refreshes()), (new, 1));
    assert_eq!(
        scene.upstream.last().header("cookie"),
        Some("theme=dark; sb-127-auth-token-code-verifier=v")
    );
}

#[test]
fn the_tabs_of_a_page_become_ours_together_and_a_copy_that_comes_later_does_not() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    let hold = scene.identity.provider.hold("token.refresh");
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let tabs: Vec<_> = (0..10)
            .map(|_| scope.spawn(|| scene.get("/tab", &old).status))
            .collect();
        eventually(|| scene.refreshes() == 1);
        drop(hold);
        tabs.into_iter().map(|tab| tab.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(scene.refreshes(), 1);
    scene.pass(11);
    let late = scene.get("/late", &old);
    assert_eq!((late.status, late.code()), (401, "session_expired".into()));
    assert_eq!(scene.refreshes(), 1, "the provider is not asked again");
    assert!(
        !late
            .all("set-cookie")
            .iter()
            .any(|line| line.starts_with("tollhouse"))
    );
    assert!(taken(&old, &late).is_empty(), "its cookies go");
}

#[test]
fn only_a_page_of_ours_brings_a_session_over_and_only_without_one_of_ours() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    for site in [None, Some("cross-site"), Some("same-site")] {
        let mut fields = vec![("cookie", &*old)];
        fields.extend(site.map(|site| ("sec-fetch-site", site)));
        let answer = scene.house.get("/a", &fields);
        assert_eq!(answer.code(), "missing_credentials", "{site:?}");
        assert!(answer.all("set-cookie").is_empty());
    }
    let ada = scene.sealed("ada@example.com");
    let both = format!("{ada}; {}", scene.identity.cookie("grace@example.com"));
    let answer = scene.get("/a", &both);
    assert_eq!((answer.status, scene.refreshes()), (200, 1));
    let grace = scene.identity.session("grace@example.com");
    assert_ne!(
        scene.upstream.last().header("x-user-id"),
        grace["user"]["id"].as_str()
    );
    // Nobody else reads them, either.
    assert!(scene.upstream.last().header("cookie").is_none());
}

#[test]
fn a_session_that_cannot_be_taken_over_now_serves_until_it_can() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    let provider = &scene.identity.provider;
    provider.fail_next("token.refresh", &Fault::Status(StatusCode::BAD_GATEWAY), 50);
    let answer = scene.get("/a", &old);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 0));
    provider.stop_failing();
    scene.pass(2);
    let answer = scene.get("/a", &old);
    assert_eq!(answer.status, 200);
    assert!(taken(&old, &answer).starts_with("tollhouse"));
    // One that is over, and cannot be renewed, is kept for later.
    let old = scene.identity.cookie("grace@example.com");
    scene.pass(LIFE + 1);
    provider.fail_next("token.refresh", &Fault::Status(StatusCode::BAD_GATEWAY), 50);
    let answer = scene.get("/a", &old);
    assert_eq!(
        (answer.code(), answer.all("set-cookie").len()),
        ("auth_unavailable".into(), 0)
    );
}

#[test]
fn without_adoption_the_cookies_of_the_library_are_other_cookies() {
    let scene = scene_with("");
    let old = scene.identity.cookie("ada@example.com");
    assert_eq!(scene.get("/a", &old).code(), "missing_credentials");
    let answer = scene.get("/public", &old);
    assert_eq!(answer.status, 200);
    assert_eq!(scene.upstream.last().header("cookie"), Some(&*old));
}

#[test]
fn a_sealed_session_is_renewed_before_its_token_is_over_and_afterwards() {
    let scene = scene();
    let first = scene.sealed("ada@example.com");
    let token = scene.forwarded();
    scene.pass(LIFE - 91);
    assert_eq!(scene.get("/a", &first).all("set-cookie").len(), 0);
    assert_eq!((scene.forwarded(), scene.refreshes()), (token.clone(), 1));
    scene.pass(1);
    let answer = scene.get("/a", &first);
    assert_ne!(scene.forwarded(), token);
    let second = taken(&first, &answer);
    scene.pass(3 * DAY);
    let answer = scene.get("/a", &second);
    assert_eq!((answer.status, scene.refreshes()), (200, 3));
    let third = taken(&second, &answer);
    assert_eq!(scene.get("/a", &third).status, 200);
    // Who it is never changes on the way.
    let ada = scene.identity.session("ada@example.com");
    assert_eq!(
        scene.upstream.last().header("x-user-id"),
        ada["user"]["id"].as_str()
    );
}

#[test]
fn a_session_ends_with_its_age_and_for_want_of_use() {
    let scene = scene_with("adopt = true\nmax_age = \"10d\"\nidle_timeout = \"2d\"");
    let left = scene.sealed("ada@example.com");
    let mut used = scene.sealed("grace@example.com");
    for day in 1..10 {
        scene.pass(DAY);
        let answer = scene.get("/a", &used);
        assert_eq!(answer.status, 200, "day {day}");
        used = taken(&used, &answer);
    }
    let answer = scene.get("/a", &left);
    assert_eq!(
        (answer.status, answer.code()),
        (401, "session_expired".into())
    );
    assert!(taken(&left, &answer).is_empty());
    scene.pass(DAY - 60);
    assert_eq!(scene.get("/a", &used).status, 200);
    scene.pass(120);
    let answer = scene.get("/a", &used);
    assert_eq!(answer.code(), "session_expired", "however much it is used");
    assert!(taken(&used, &answer).is_empty());
}

#[test]
fn a_session_that_is_used_within_one_token_is_not_forgotten() {
    // Tokens that live longer than nobody may rest: the cookie must be written though nothing is renewed.
    let scene = scene_with("adopt = true\nidle_timeout = \"10m\"");
    let mut used = scene.sealed("ada@example.com");
    let token = scene.forwarded();
    for _ in 0..9 {
        scene.pass(5 * 60);
        let answer = scene.get("/a", &used);
        assert_eq!(answer.status, 200);
        assert!(!answer.all("set-cookie").is_empty());
        used = taken(&used, &answer);
        assert!(
            scene.get("/a", &used).all("set-cookie").is_empty(),
            "once is enough"
        );
    }
    assert_eq!((scene.forwarded(), scene.refreshes()), (token, 1));
    scene.pass(10 * 60);
    assert_eq!(scene.get("/a", &used).code(), "session_expired");
}

#[test]
fn one_bit_that_is_changed_makes_it_no_session() {
    let scene = scene();
    let good = scene.sealed("ada@example.com");
    let (name, value) = good.split_once('=').unwrap();
    for at in [0, 1, 2, 10, value.len() / 2, value.len() - 2] {
        let mut bad = value.as_bytes().to_vec();
        bad[at] = if bad[at] == b'A' { b'B' } else { b'A' };
        let bad = format!("{name}={}", String::from_utf8(bad).unwrap());
        let answer = scene.get("/a", &bad);
        assert_eq!(answer.code(), "missing_credentials", "{at}");
        assert_eq!(scene.get("/maybe", &bad).status, 200, "{at}");
        assert!(scene.upstream.last().header("x-user-id").is_none());
    }
    let twice = format!("{good}; {good}");
    assert_eq!(scene.get("/a", &twice).code(), "missing_credentials");
    assert_eq!(scene.get("/a", &good).status, 200);
}

#[test]
fn a_new_key_logs_nobody_out_and_a_key_that_is_removed_does() {
    let scene = scene();
    let old = scene.sealed("ada@example.com");
    let house = |keys: &str| {
        let session = format!("keys = [{keys}]");
        house(&scene.clock, &scene.identity, &scene.upstream, &session)
    };
    let rotated = house(&format!("\"{OTHER_KEY}\", \"{KEY}\""));
    assert_eq!(rotated.get("/a", &[("cookie", &old)]).status, 200);
    scene.pass(LIFE);
    let answer = rotated.get("/a", &[("cookie", &old)]);
    let new = taken(&old, &answer);
    let removed = house(&format!("\"{OTHER_KEY}\""));
    assert_eq!(removed.get("/a", &[("cookie", &new)]).status, 200);
    assert_eq!(
        removed.get("/a", &[("cookie", &old)]).code(),
        "missing_credentials"
    );
}

#[test]
fn a_session_outlives_the_key_that_signed_its_token() {
    let scene = scene();
    let old = scene.sealed("ada@example.com");
    scene.identity.provider.rotate_keys().unwrap();
    scene.identity.provider.revoke_previous_keys();
    // The key set is fetched again after ten minutes.
    scene.pass(11 * 60);
    let mut jar = old;
    eventually(|| {
        let answer = scene.get("/a", &jar);
        assert_eq!(answer.status, 200, "{answer:?}");
        jar = taken(&jar, &answer);
        scene.refreshes() == 2
    });
    assert_eq!(scene.get("/a", &jar).status, 200);
}

#[test]
fn a_logout_ends_what_would_have_been_taken_over() {
    let scene = scene();
    let old = scene.identity.cookie("ada@example.com");
    let origin = format!("http://{}", scene.house.address);
    let fields = [
        ("cookie", &*old),
        ("origin", &*origin),
        ("sec-fetch-site", "same-origin"),
        ("content-length", "0"),
    ];
    let answer = scene.house.request("POST", "/.auth/logout", &fields, "");
    assert_eq!(answer.status, 204);
    assert_eq!(taken(&old, &answer), "");
    assert_eq!(scene.identity.provider.session_count(), 0);
    let answer = scene.get("/a", &old);
    assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
    assert!(!taken(&old, &answer).contains("tollhouse"));
}

#[test]
fn what_has_no_refresh_token_is_not_taken_over_and_a_dead_cookie_is_not_in_the_way() {
    let scene = scene();
    let session = scene.identity.session("ada@example.com");
    let token = session["access_token"].as_str().unwrap();
    let lone = format!("sb-access-token={token}");
    let answer = scene.get("/a", &lone);
    assert_eq!((answer.status, &*answer.code()), (401, "session_expired"));
    assert_eq!(taken(&lone, &answer), "");

    let both = format!("tollhouse=garbage; {}", cookie(&session.to_string()));
    let answer = scene.get("/a", &both);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let jar = taken(&both, &answer);
    assert!(jar.starts_with("tollhouse=") && !jar.contains("garbage") && !jar.contains("sb-"));
}
