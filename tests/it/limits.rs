//! Rate limits through the whole gateway: whose budget a request draws on, what it is told, and that what is refused
//! reaches nobody. The clock stands still unless a test moves it, so every count is exact.

use crate::support::keys::{Signer, claims, claims_with, jwt_provider, key_server};
use crate::support::{Answer, House, Identity, NOW, Upstream, cookie};
use serde_json::{Value, json};
use std::sync::Barrier;
use std::time::Duration;
use tollhouse::base::clock::Clock;

struct Scene {
    signer: Signer,
    upstream: Upstream,
    house: House,
    clock: Clock,
}

const PLAIN: &str = "[[routes]]\npath = \"/*\"\nauth = \"public\"\nrate_limits = [\"p\"]\n";

/// A gateway with these `[server]` keys and this rest of the file, for tokens of a `jwt` provider.
fn scene(server: &str, rest: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let signer = Signer::p256("k1");
    let keys = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let file = format!(
        "[server]\n{server}{}cookie_name = \"app_jwt\"\n[session]\nmode = \"shared\"\n[upstreams.app]\nurl = \"{}\"\n{rest}",
        jwt_provider("main", &keys),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        signer,
        upstream,
        house,
        clock,
    }
}

const BEHIND_A_PROXY: &str = "trusted_proxies = [\"127.0.0.0/8\"]\n";

impl Scene {
    fn token(&self, changes: Value) -> String {
        format!("Bearer {}", self.signer.token(&claims_with(changes)))
    }

    /// How many of so many requests pass; the others are 429, and what passes is what the upstream sees.
    fn passing(&self, count: usize, path: &str, headers: &[(&str, &str)]) -> usize {
        let before = self.upstream.count();
        let mut passed = 0;
        for _ in 0..count {
            let answer = self.house.get(path, headers);
            match answer.status {
                200 => passed += 1,
                _ => refused(&answer),
            }
        }
        assert_eq!(self.upstream.count() - before, passed);
        passed
    }
}

/// It is a 429 as the contract has it; gives its `Retry-After`.
fn refused(answer: &Answer) {
    wait_of(answer);
}

fn wait_of(answer: &Answer) -> u64 {
    assert_eq!(
        (answer.status, &*answer.code()),
        (429, "rate_limited"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.json()["forwarded"], false);
    let wait = answer
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .unwrap();
    assert!(wait > 0);
    wait
}

#[test]
fn the_sixty_first_of_sixty_a_minute_is_refused_and_the_clock_gives_back() {
    let scene = scene("", &format!("[rate_limits.p]\nrate = \"60/min\"\n{PLAIN}"));
    assert_eq!(scene.passing(60, "/", &[]), 60);
    let answer = scene.house.get("/", &[]);
    assert_eq!(wait_of(&answer), 1);
    // What Retry-After says is true.
    scene.clock.advance(Duration::from_millis(999));
    assert_eq!(scene.passing(3, "/", &[]), 0);
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.passing(3, "/", &[]), 1);
    scene.clock.advance(Duration::from_secs(10));
    assert_eq!(scene.passing(20, "/", &[]), 10);
    scene.clock.advance(Duration::from_secs(3600));
    assert_eq!(scene.passing(100, "/", &[]), 60);
    let limited = scene
        .house
        .metric("tollhouse_rate_limited_total{policy=\"p\"}");
    assert_eq!(limited, f64::from(1 + 3 + 2 + 10 + 40));
    let record = scene.house.log.wait_for(1).pop().unwrap();
    assert_eq!(record["code"], "rate_limited");
}

#[test]
fn burst_says_how_many_may_come_at_once() {
    for (policy, at_once, wait) in [
        ("rate = \"60/min\"\nburst = 5\n", 5, 1),
        ("rate = \"1/10s\"\nburst = 3\n", 3, 10),
        ("rate = \"2/min\"\n", 2, 30),
        ("rate = \"10/s\"\nburst = 1\n", 1, 1),
    ] {
        let scene = scene("", &format!("[rate_limits.p]\n{policy}{PLAIN}"));
        assert_eq!(scene.passing(at_once, "/", &[]), at_once, "{policy}");
        assert_eq!(wait_of(&scene.house.get("/", &[])), wait, "{policy}");
        scene.clock.advance(Duration::from_secs(wait));
        assert!(scene.passing(1, "/", &[]) == 1, "{policy}");
    }
    let scene = scene("", &format!("[rate_limits.p]\nrate = \"off\"\n{PLAIN}"));
    assert_eq!(scene.passing(200, "/", &[]), 200);
}

#[test]
fn a_client_is_told_its_budget_in_the_manner_of_the_file() {
    let draft = ["ratelimit-policy", "ratelimit"];
    let x = [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ];
    for (style, with_draft, with_x) in [
        ("", true, false),
        ("rate_limit_headers = \"draft\"\n", true, false),
        ("rate_limit_headers = \"x\"\n", false, true),
        ("rate_limit_headers = \"both\"\n", true, true),
        ("rate_limit_headers = \"off\"\n", false, false),
    ] {
        let scene = scene(
            style,
            &format!(
                "[rate_limits.p]\nrate = \"10/min\"\nburst = 2\n{PLAIN}[[routes]]\npath = \"/free\"\nauth = \"public\"\n"
            ),
        );
        let check = |answer: &Answer, values: [&str; 5]| {
            for (names, given, values) in [
                (&draft[..], with_draft, &values[..2]),
                (&x, with_x, &values[2..]),
            ] {
                for (name, value) in names.iter().zip(values) {
                    assert_eq!(
                        answer.header(name),
                        given.then_some(*value),
                        "{style}: {name}"
                    );
                }
            }
        };
        check(
            &scene.house.get("/", &[]),
            ["\"p\";q=2;w=12", "\"p\";r=1;t=6", "2", "1", "6"],
        );
        check(
            &scene.house.get("/", &[]),
            ["\"p\";q=2;w=12", "\"p\";r=0;t=12", "2", "0", "12"],
        );
        let answer = scene.house.get("/", &[]);
        assert_eq!(wait_of(&answer), 6);
        check(
            &answer,
            ["\"p\";q=2;w=12", "\"p\";r=0;t=12", "2", "0", "12"],
        );
        let free = scene.house.get("/free", &[]);
        for name in draft.iter().chain(&x) {
            assert_eq!(free.header(name), None, "{name}");
        }
    }
}

#[test]
fn of_several_policies_each_holds_and_the_tightest_is_told() {
    let scene = scene(
        "",
        "[rate_limits.wide]\nrate = \"100/min\"\n[rate_limits.tight]\nrate = \"3/min\"\nby = \"user\"\n\
         [[routes]]\npath = \"/*\"\nrate_limits = [\"wide\", \"tight\"]\n",
    );
    let (ada, grace) = (
        scene.token(json!({"sub": "ada"})),
        scene.token(json!({"sub": "grace"})),
    );
    let answer = scene.house.get("/", &[("authorization", &ada)]);
    assert_eq!(answer.header("ratelimit"), Some("\"tight\";r=2;t=20"));
    assert_eq!(scene.passing(5, "/", &[("authorization", &ada)]), 2);
    assert_eq!(scene.passing(5, "/", &[("authorization", &grace)]), 3);
    // 11 of 100 are taken; 89 more pass the first policy, whoever asks, and then nobody.
    for _ in 0..89 {
        assert_eq!(scene.house.get("/", &[]).code(), "missing_credentials");
    }
    assert_eq!(scene.house.get("/", &[]).code(), "rate_limited");
    let fresh = scene.token(json!({"sub": "new"}));
    refused(&scene.house.get("/", &[("authorization", &fresh)]));
}

#[test]
fn a_limit_holds_for_the_routes_it_applies_to() {
    let routes = "[[routes]]\npath = \"/public\"\nauth = \"public\"\n[[routes]]\npath = \"/optional\"\nauth = \"optional\"\n\
        [[routes]]\npath = \"/required\"\n[[routes]]\npath = \"/named\"\nauth = \"public\"\nrate_limits = [\"p\"]\n\
        [[routes]]\npath = \"/none\"\nrate_limits = false\n[[routes]]\npath = \"/public/none\"\nauth = \"public\"\nrate_limits = false\n";
    for (applies_to, limited) in [
        ("", &["/named"][..]),
        ("applies_to = \"named\"\n", &["/named"]),
        (
            "applies_to = \"protected\"\n",
            &["/named", "/optional", "/required"],
        ),
        (
            "applies_to = \"all\"\n",
            &["/named", "/optional", "/required", "/public"],
        ),
    ] {
        for path in [
            "/public",
            "/optional",
            "/required",
            "/named",
            "/none",
            "/public/none",
        ] {
            let scene = scene(
                "",
                &format!("[rate_limits.p]\nrate = \"2/min\"\n{applies_to}{routes}"),
            );
            let token = scene.token(json!({}));
            let expected = if limited.contains(&path) { 2 } else { 5 };
            let passed = scene.passing(5, path, &[("authorization", &token)]);
            assert_eq!(passed, expected, "{applies_to}{path}");
        }
    }
    // One policy is one budget, on however many routes.
    let scene = scene(
        "",
        &format!("[rate_limits.p]\nrate = \"4/min\"\napplies_to = \"all\"\n{routes}"),
    );
    assert_eq!(scene.passing(2, "/public", &[]), 2);
    assert_eq!(scene.passing(5, "/named", &[]), 2);
}

#[test]
fn by_user_a_person_has_one_budget_with_every_login_device_and_credential() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "[server]\n{BEHIND_A_PROXY}{}[rate_limits.p]\nrate = \"6/min\"\nby = \"user\"\napplies_to = \"protected\"\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        identity.tables(),
        upstream.url()
    );
    let house = House::start_at(&file, clock);
    let mut passed = 0;
    for n in 0..5 {
        // A new session each time, from another address.
        let session = identity.session("ada@example.com");
        let bearer = format!("Bearer {}", session["access_token"].as_str().unwrap());
        let cookies = cookie(&session.to_string());
        let address = format!("192.0.2.{n}");
        for credential in [("authorization", &*bearer), ("cookie", &*cookies)] {
            let answer = house.get("/", &[credential, ("x-forwarded-for", &address)]);
            match answer.status {
                200 => passed += 1,
                _ => refused(&answer),
            }
        }
    }
    assert_eq!(passed, 6);
    let grace = identity.cookie("grace@example.com");
    assert_eq!(house.get("/", &[("cookie", &grace)]).status, 200);
    assert_eq!(upstream.count(), 7);
}

#[test]
fn what_nobody_verified_draws_on_nobodys_budget() {
    let scene = scene(
        "",
        "[rate_limits.p]\nrate = \"5/min\"\nby = \"user\"\napplies_to = \"all\"\n\
         [rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n\
         [[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/optional\"\nauth = \"optional\"\n",
    );
    let forged = format!(
        "Bearer {}",
        Signer::p256("k1").token(&claims_with(json!({"sub": "ada"})))
    );
    let expired = scene.token(json!({"sub": "ada", "exp": NOW - 60}));
    for _ in 0..20 {
        assert_eq!(
            scene.house.get("/", &[("authorization", &forged)]).code(),
            "invalid_token"
        );
        assert_eq!(
            scene.house.get("/", &[("authorization", &expired)]).code(),
            "token_expired"
        );
    }
    let ada = scene.token(json!({"sub": "ada"}));
    assert_eq!(scene.passing(7, "/", &[("authorization", &ada)]), 5);
    // Without a user there is the address, and that is not a user's budget.
    assert_eq!(scene.passing(7, "/optional", &[]), 5);
    assert_eq!(scene.passing(7, "/optional", &[("x-user-id", "grace")]), 0);
    let grace = scene.token(json!({"sub": "grace"}));
    assert_eq!(
        scene.passing(7, "/optional", &[("authorization", &grace)]),
        5
    );
}

#[test]
fn the_same_user_id_of_two_providers_is_two_users() {
    let clock = Clock::frozen(NOW);
    let (one, two) = (Signer::p256("k"), Signer::p256("k"));
    let (first, second) = (key_server(&[one.jwk()]), key_server(&[two.jwk()]));
    let upstream = Upstream::start();
    let other = "https://second.example";
    let file = format!(
        "{}{}[rate_limits.p]\nrate = \"2/min\"\nby = \"user\"\napplies_to = \"all\"\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        jwt_provider("first", &first),
        jwt_provider("second", &second).replace(crate::support::keys::ISSUER, other),
        upstream.url()
    );
    let house = House::start_at(&file, clock);
    for token in [
        one.token(&claims()),
        two.token(&claims_with(json!({"iss": other}))),
    ] {
        let value = format!("Bearer {token}");
        let statuses: Vec<u16> = (0..3)
            .map(|_| house.get("/", &[("authorization", &value)]).status)
            .collect();
        assert_eq!(statuses, [200, 200, 429]);
    }
}

#[test]
fn by_claim_all_who_share_it_share_a_budget() {
    let scene = scene(
        "",
        "[rate_limits.p]\nrate = \"4/min\"\nby = \"claim:app_metadata.tenant\"\napplies_to = \"protected\"\n[[routes]]\npath = \"/*\"\n",
    );
    let of = |user: &str, tenant: Value| {
        scene.token(json!({"sub": user, "app_metadata": {"tenant": tenant}}))
    };
    let passing =
        |count: usize, token: &str| scene.passing(count, "/", &[("authorization", token)]);
    assert_eq!(passing(3, &of("ada", json!("acme"))), 3);
    assert_eq!(passing(3, &of("grace", json!("acme"))), 1);
    assert_eq!(passing(5, &of("ada", json!("other"))), 4);
    // Without the claim each user is alone, and no tenant can be called like a user.
    assert_eq!(passing(5, &of("ada", Value::Null)), 4);
    assert_eq!(passing(5, &of("grace", Value::Null)), 4);
    assert_eq!(passing(5, &of("eve", json!("ada"))), 4);
    assert_eq!(passing(5, &of("eve", json!(42))), 4);
    assert_eq!(passing(5, &of("bob", json!(42))), 0);
}

#[test]
fn by_header_the_values_are_kept_apart_but_nobody_gets_rich_by_making_them_up() {
    let policy = "[rate_limits.p]\nrate = \"2/min\"\nby = \"header:X-Tenant\"\n";
    let direct = scene("", &format!("{policy}{PLAIN}"));
    let passing = |scene: &Scene, count: usize, tenant: &str, ip: &str| {
        scene.passing(count, "/", &[("x-tenant", tenant), ("x-forwarded-for", ip)])
    };
    assert_eq!(passing(&direct, 3, "a", "192.0.2.1"), 2);
    assert_eq!(passing(&direct, 3, "b", "192.0.2.1"), 2);
    // An untrusted peer cannot choose another address for itself.
    assert_eq!(passing(&direct, 3, "a", "192.0.2.2"), 0);
    let invented: usize = (0..100)
        .map(|n| passing(&direct, 1, &format!("t{n}"), "192.0.2.1"))
        .sum();
    assert!(invented < 40, "{invented}");
    // A trusted proxy's word counts for itself, wherever its client is.
    let behind = scene(BEHIND_A_PROXY, &format!("{policy}{PLAIN}"));
    assert_eq!(passing(&behind, 3, "a", "192.0.2.1"), 2);
    assert_eq!(passing(&behind, 3, "a", "192.0.2.2"), 0);
    let honest: usize = (0..100)
        .map(|n| passing(&behind, 1, &format!("t{n}"), "192.0.2.1"))
        .sum();
    assert_eq!(honest, 100);
    // Without the header it is the address.
    assert_eq!(
        behind.passing(3, "/", &[("x-forwarded-for", "192.0.2.1")]),
        2
    );
    assert_eq!(
        behind.passing(3, "/", &[("x-forwarded-for", "192.0.2.2")]),
        2
    );
}

#[test]
fn a_list_is_one_key_of_all_its_parts() {
    let scene = scene(
        BEHIND_A_PROXY,
        "[rate_limits.p]\nrate = \"2/min\"\nby = [\"ip\", \"user\"]\napplies_to = \"all\"\n[[routes]]\npath = \"/*\"\n",
    );
    for user in ["ada", "grace"] {
        let token = scene.token(json!({ "sub": user }));
        for ip in ["192.0.2.1", "192.0.2.2"] {
            let headers = [("authorization", &*token), ("x-forwarded-for", ip)];
            assert_eq!(scene.passing(4, "/", &headers), 2, "{user} {ip}");
        }
    }
}

#[test]
fn addresses_are_those_a_trusted_proxy_names_and_ipv6_counts_by_64_bits() {
    let policy = "[rate_limits.p]\nrate = \"4/min\"\n";
    let behind = scene(BEHIND_A_PROXY, &format!("{policy}{PLAIN}"));
    let passing = |forwarded: &str| behind.passing(3, "/", &[("x-forwarded-for", forwarded)]);
    for (first, same, another) in [
        (
            "2001:db8:0:1::1",
            "2001:db8:0:1:ffff:ffff:ffff:ffff",
            "2001:db8:0:2::1",
        ),
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        (
            "192.0.2.3",
            "198.51.100.1, 192.0.2.3",
            "192.0.2.3, 198.51.100.9",
        ),
        ("192.0.2.4", "192.0.2.4, 127.0.0.9", "192.0.2.5, 127.0.0.9"),
        ("192.0.2.6", "192.0.2.6:4711", "192.0.2.7"),
        ("2001:db8:1::", "[2001:db8:1::5]:443", "2001:db8:1:1::"),
    ] {
        assert_eq!(passing(first), 3, "{first}");
        assert_eq!(passing(same), 1, "{same} is {first}");
        assert_eq!(passing(another), 3, "{another} is not {first}");
    }
    // From anybody else the field is not read.
    let direct = scene("", &format!("{policy}{PLAIN}"));
    let passed: usize = (0..10)
        .map(|n| direct.passing(1, "/", &[("x-forwarded-for", &format!("192.0.2.{n}"))]))
        .sum();
    assert_eq!(passed, 4);
}

#[test]
fn of_two_hundred_at_once_against_twenty_exactly_twenty_pass() {
    for by in ["ip", "user"] {
        let scene = scene(
            "",
            &format!(
                "[rate_limits.p]\nrate = \"20/min\"\nby = \"{by}\"\napplies_to = \"all\"\n[[routes]]\npath = \"/*\"\n"
            ),
        );
        let token = scene.token(json!({}));
        let start = Barrier::new(200);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..200)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let answer = scene.house.get("/", &[("authorization", &token)]);
                        if answer.status != 200 {
                            refused(&answer);
                        }
                        usize::from(answer.status == 200)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(passed, 20, "{by}");
        assert_eq!(scene.upstream.count(), 20, "{by}");
    }
}

#[test]
fn limits_by_address_come_before_any_cryptography() {
    let scene = scene(
        "",
        "[rate_limits.p]\nrate = \"3/min\"\napplies_to = \"all\"\n[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n[[routes]]\npath = \"/*\"\n",
    );
    let forged = format!("Bearer {}", Signer::p256("k1").token(&claims()));
    for _ in 0..3 {
        assert_eq!(
            scene.house.get("/", &[("authorization", &forged)]).status,
            401
        );
    }
    for _ in 0..5 {
        refused(&scene.house.get("/", &[("authorization", &forged)]));
        refused(&scene.house.get("/", &[]));
    }
    assert_eq!(judged(&scene), 3.0);
    assert_eq!(scene.upstream.count(), 0);
}

/// How many credentials did not verify.
fn judged(scene: &Scene) -> f64 {
    let count = |provider: &str, credential: &str| {
        scene.house.metric(&format!(
            "tollhouse_auth_total{{provider=\"{provider}\",credential=\"{credential}\",outcome=\"invalid\"}}"
        ))
    };
    ["main", "none"]
        .iter()
        .flat_map(|provider| ["bearer", "session"].map(|credential| count(provider, credential)))
        .sum()
}

const FAILING: &str = "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/optional\"\nauth = \"optional\"\n\
    [[routes]]\npath = \"/public\"\nauth = \"public\"\n";

#[test]
fn thirty_credentials_that_do_not_verify_are_enough_for_a_minute() {
    let scene = scene(BEHIND_A_PROXY, FAILING);
    let good = scene.token(json!({}));
    assert_eq!(
        scene.house.get("/", &[("authorization", &good)]).status,
        200
    );
    let bad = |n: usize| match n % 4 {
        0 => (
            "authorization",
            format!("Bearer {}", Signer::p256("k1").token(&claims())),
        ),
        1 => ("authorization", "Bearer rubbish".into()),
        2 => (
            "authorization",
            scene.token(json!({"iss": "https://nobody.example"})),
        ),
        _ => (
            "cookie",
            format!("app_jwt={}", Signer::p256("k1").token(&claims())),
        ),
    };
    for n in 0..30 {
        let (name, value) = bad(n);
        let path = if n % 2 == 0 { "/" } else { "/me" };
        let answer = scene.house.get(path, &[(name, &value)]);
        assert_eq!(
            (answer.status, &*answer.code()),
            (401, "invalid_token"),
            "{n}"
        );
    }
    assert_eq!(judged(&scene), 30.0);
    for n in 30..40 {
        let (name, value) = bad(n);
        let answer = scene.house.get("/", &[(name, &value)]);
        assert_eq!(wait_of(&answer), 2, "{n}");
    }
    // Not one of them was looked at, nor a good one that nobody knew yet.
    let unknown = scene.token(json!({"sub": "late"}));
    refused(&scene.house.get("/", &[("authorization", &unknown)]));
    assert_eq!(judged(&scene), 30.0);
    // What is known already still passes, and so does everything that needs no credential.
    assert_eq!(
        scene.house.get("/", &[("authorization", &good)]).status,
        200
    );
    assert_eq!(
        scene
            .house
            .get("/public", &[("authorization", "Bearer rubbish")])
            .status,
        200
    );
    assert_eq!(scene.house.get("/optional", &[]).status, 200);
    assert_eq!(scene.house.get("/", &[]).code(), "missing_credentials");
    // Others are not to blame.
    let elsewhere = [
        ("authorization", &*unknown),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    assert_eq!(scene.house.get("/", &elsewhere).status, 200);
    // One every two seconds.
    scene.clock.advance(Duration::from_secs(2));
    assert_eq!(
        scene
            .house
            .get("/", &[("authorization", "Bearer rubbish")])
            .status,
        401
    );
    refused(&scene.house.get("/", &[("authorization", "Bearer rubbish")]));
    scene.clock.advance(Duration::from_secs(2));
    let later = scene.token(json!({"sub": "later"}));
    assert_eq!(
        scene.house.get("/", &[("authorization", &later)]).status,
        200
    );
    let limited = scene
        .house
        .metric("tollhouse_rate_limited_total{policy=\"failures\"}");
    assert_eq!(limited, 12.0);
}

#[test]
fn only_what_does_not_verify_counts_as_a_failure() {
    let scene = scene("", FAILING);
    let expired = scene.token(json!({"exp": NOW - 3600}));
    let expired_cookie = expired.replace("Bearer ", "app_jwt=");
    for n in 0..40 {
        let good = scene.token(json!({ "jti": n }));
        assert_eq!(
            scene.house.get("/", &[("authorization", &good)]).status,
            200
        );
        assert_eq!(
            scene.house.get("/", &[("authorization", &expired)]).code(),
            "token_expired"
        );
        assert_eq!(
            scene.house.get("/", &[("cookie", &expired_cookie)]).code(),
            "session_expired"
        );
        assert_eq!(
            scene
                .house
                .get("/optional", &[("cookie", &expired_cookie)])
                .status,
            200
        );
        assert_eq!(scene.house.get("/", &[]).code(), "missing_credentials");
        assert_eq!(
            scene.house.get("/", &[("cookie", "app_jwt=")]).code(),
            "missing_credentials"
        );
        assert_eq!(
            scene
                .house
                .get("/public", &[("authorization", "Bearer x")])
                .status,
            200
        );
    }
    assert_eq!(judged(&scene), 0.0);
}

#[test]
fn a_policy_of_ones_own_takes_the_place_of_the_built_in_one() {
    let guess = |applies_to: &str| {
        format!(
            "[rate_limits.guess]\nrate = \"3/min\"\ncount = \"failures\"\n{applies_to}{FAILING}[[routes]]\npath = \"/named\"\nrate_limits = [\"guess\"]\n"
        )
    };
    let bad = [("authorization", "Bearer rubbish")];
    let statuses = |scene: &Scene, path: &str| -> Vec<u16> {
        (0..40)
            .map(|_| scene.house.get(path, &bad).status)
            .collect()
    };
    let limited_after = |statuses: &[u16], count: usize| {
        assert!(statuses[..count].iter().all(|s| *s == 401), "{statuses:?}");
        assert!(statuses[count..].iter().all(|s| *s == 429), "{statuses:?}");
    };
    let all = scene("", &guess("applies_to = \"all\"\n"));
    limited_after(&statuses(&all, "/"), 3);
    limited_after(&statuses(&all, "/optional"), 0);
    let named = scene("", &guess(""));
    limited_after(&statuses(&named, "/"), 40);
    limited_after(&statuses(&named, "/named"), 3);
    let off = scene("", &guess("").replace("3/min", "off"));
    limited_after(&statuses(&off, "/named"), 40);
}
