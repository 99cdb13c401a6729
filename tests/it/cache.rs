//! Credentials that were verified are known: on their connection, and in the process. Never longer than they are good, and
//! never anything that differs by a bit.

use crate::support::keys::{Signer, claims, claims_with, jwt_provider, key_server, key_set};
use crate::support::{Answer, Client, House, Identity, NOW, Upstream, cookie, eventually};
use serde_json::json;
use std::time::Duration;
use tollhouse::base::clock::Clock;

struct Scene {
    signer: Signer,
    server: Upstream,
    upstream: Upstream,
    house: House,
    clock: Clock,
}

/// A `jwt` provider whose token may also come in a cookie.
fn scene() -> Scene {
    let clock = Clock::frozen(NOW);
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let file = format!(
        "{}cookie_name = \"app_jwt\"\n[session]\nmode = \"shared\"\n[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/admin\"\nrequire = {{ any_role = [\"admin\"] }}\n\
         [[routes]]\npath = \"/session\"\ncredentials = [\"session\"]\n",
        jwt_provider("main", &server),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        signer,
        server,
        upstream,
        house,
        clock,
    }
}

/// Where credentials were found, and how many proved a caller.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    connection: f64,
    process: f64,
    miss: f64,
    proven: f64,
}

impl Scene {
    fn counts(&self) -> Counts {
        let found = |outcome| {
            let series = format!("tollhouse_token_cache_total{{outcome=\"{outcome}\"}}");
            self.house.metric(&series)
        };
        let proven = |credential| {
            let series = format!(
                "tollhouse_auth_total{{provider=\"main\",credential=\"{credential}\",outcome=\"ok\"}}"
            );
            self.house.metric(&series)
        };
        Counts {
            connection: found("connection"),
            process: found("hit"),
            miss: found("miss"),
            proven: proven("bearer") + proven("session"),
        }
    }

    /// How the counts change by this.
    fn change(&self, act: impl FnOnce()) -> [f64; 4] {
        let before = self.counts();
        act();
        let now = self.counts();
        [
            now.connection - before.connection,
            now.process - before.process,
            now.miss - before.miss,
            now.proven - before.proven,
        ]
    }

    fn get(&self, token: &str) -> Answer {
        self.house
            .get("/", &[("authorization", &format!("Bearer {token}"))])
    }
}

fn on(client: &mut Client, path: &str, field: &str, value: &str) -> Answer {
    client.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{field}: {value}\r\n\r\n").as_bytes());
    client.read()
}

const VERIFIED: [f64; 4] = [0.0, 0.0, 1.0, 1.0];
const BY_CONNECTION: [f64; 4] = [1.0, 0.0, 0.0, 1.0];
const BY_PROCESS: [f64; 4] = [0.0, 1.0, 0.0, 1.0];

#[test]
fn a_credential_is_verified_once_then_known_to_its_connection_and_to_all_others() {
    let scene = scene();
    let token = scene.signer.token(&claims());
    for (field, value) in [
        ("Authorization", format!("Bearer {token}")),
        ("Cookie", format!("a=1; app_jwt={token}")),
    ] {
        let mut first = Client::connect(scene.house.address);
        let mut second = Client::connect(scene.house.address);
        let pass = |client: &mut Client| {
            let answer = on(client, "/", field, &value);
            assert_eq!(answer.status, 200);
            assert_eq!(scene.upstream.last().header("x-user-id"), Some("u-1"));
        };
        assert_eq!(scene.change(|| pass(&mut first)), VERIFIED, "{field}");
        assert_eq!(scene.change(|| pass(&mut first)), BY_CONNECTION, "{field}");
        assert_eq!(scene.change(|| pass(&mut second)), BY_PROCESS, "{field}");
        assert_eq!(scene.change(|| pass(&mut second)), BY_CONNECTION, "{field}");
    }
    // Other cookies beside it, or another spelling of the scheme, are the same credential.
    let known = |headers: &[(&str, &str)]| {
        assert_eq!(scene.house.get("/", headers).status, 200);
    };
    let cookies = format!("app_jwt={token}; b=2");
    assert_eq!(scene.change(|| known(&[("cookie", &cookies)])), BY_PROCESS);
    let spelled = format!("bearer   {token}");
    assert_eq!(
        scene.change(|| known(&[("authorization", &spelled)])),
        BY_PROCESS
    );
}

#[test]
fn a_known_credential_still_meets_every_rule_of_its_route() {
    let scene = scene();
    let token = format!(
        "Bearer {}",
        scene.signer.token(&claims_with(json!({"role": "user"})))
    );
    let mut client = Client::connect(scene.house.address);
    assert_eq!(on(&mut client, "/", "Authorization", &token).status, 200);
    assert_eq!(
        on(&mut client, "/admin", "Authorization", &token).code(),
        "forbidden"
    );
    // A route that takes no bearer tokens does not look at what the connection knows.
    let answer = on(&mut client, "/session", "Authorization", &token);
    assert_eq!(answer.code(), "missing_credentials");
    assert_eq!(
        on(&mut client, "/", "X-Nothing", "x").code(),
        "missing_credentials"
    );
    assert_eq!(
        on(&mut client, "/", "Authorization", "Bearer x").code(),
        "invalid_token"
    );
    assert_eq!(on(&mut client, "/", "Authorization", &token).status, 200);
    assert_eq!(scene.upstream.count(), 2);
}

#[test]
fn two_users_on_one_connection_are_never_mixed_up() {
    let scene = scene();
    let mut client = Client::connect(scene.house.address);
    let tokens: Vec<String> = (0..5)
        .map(|n| {
            scene
                .signer
                .token(&claims_with(json!({"sub": format!("u-{n}")})))
        })
        .collect();
    for round in 0..3 {
        for (n, token) in tokens.iter().enumerate() {
            let cookie = (n + round) % 2 == 0;
            let (field, value) = if cookie {
                ("Cookie", format!("app_jwt={token}"))
            } else {
                ("Authorization", format!("Bearer {token}"))
            };
            assert_eq!(on(&mut client, "/", field, &value).status, 200);
            let user = format!("u-{n}");
            assert_eq!(scene.upstream.last().header("x-user-id"), Some(&*user));
        }
    }
}

#[test]
fn nothing_is_known_past_its_end() {
    let scene = scene();
    let token = scene.signer.token(&claims_with(json!({"exp": NOW + 100})));
    let bearer = format!("Bearer {token}");
    let cookie = format!("app_jwt={token}");
    let mut one = Client::connect(scene.house.address);
    let mut two = Client::connect(scene.house.address);
    assert_eq!(on(&mut one, "/", "Authorization", &bearer).status, 200);
    assert_eq!(on(&mut two, "/", "Cookie", &cookie).status, 200);
    scene.clock.advance(Duration::from_millis(99_999));
    let known = scene.change(|| {
        assert_eq!(on(&mut one, "/", "Authorization", &bearer).status, 200);
        assert_eq!(on(&mut two, "/", "Cookie", &cookie).status, 200);
    });
    assert_eq!(known, [2.0, 0.0, 0.0, 2.0]);
    scene.clock.advance(Duration::from_millis(1));
    // Within the leeway a bearer token is good, but verified each time; a session is over.
    for _ in 0..2 {
        let verified =
            scene.change(|| assert_eq!(on(&mut one, "/", "Authorization", &bearer).status, 200));
        assert_eq!(verified, VERIFIED);
    }
    assert_eq!(
        on(&mut two, "/", "Cookie", &cookie).code(),
        "session_expired"
    );
    scene.clock.advance(Duration::from_secs(30));
    assert_eq!(
        on(&mut one, "/", "Authorization", &bearer).code(),
        "token_expired"
    );
    assert_eq!(
        on(&mut two, "/", "Cookie", &cookie).code(),
        "session_expired"
    );
    assert_eq!(scene.get(&token).code(), "token_expired");
}

#[test]
fn a_token_that_differs_in_one_bit_from_a_known_one_is_another_token() {
    let scene = scene();
    let token = scene.signer.token(&claims());
    let mut client = Client::connect(scene.house.address);
    let good = format!("Bearer {token}");
    assert_eq!(on(&mut client, "/", "Authorization", &good).status, 200);
    let mut tried = 0;
    for at in 0..token.len() {
        for bit in [0x01, 0x20] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= bit;
            let Ok(other) = String::from_utf8(bytes) else {
                continue;
            };
            if !other
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b',' && b != b';')
            {
                continue;
            }
            let value = format!("Bearer {other}");
            let answer = on(&mut client, "/", "Authorization", &value);
            assert_eq!(
                (answer.status, &*answer.code()),
                (401, "invalid_token"),
                "{at} {bit}"
            );
            let value = format!("app_jwt={other}");
            let answer = on(&mut client, "/", "Cookie", &value);
            assert_eq!(answer.status, 401, "{at} {bit}, as a cookie");
            tried += 1;
        }
    }
    assert!(tried > 300, "{tried}");
    assert_eq!(on(&mut client, "/", "Authorization", &good).status, 200);
    assert_eq!(scene.upstream.count(), 2);
}

#[test]
fn the_same_bytes_as_a_cookie_and_as_a_bearer_are_two_credentials() {
    let scene = scene();
    let token = scene.signer.token(&claims());
    let bearer = || assert_eq!(scene.get(&token).status, 200);
    let cookies = format!("app_jwt={token}");
    let cookie = || assert_eq!(scene.house.get("/", &[("cookie", &cookies)]).status, 200);
    assert_eq!(scene.change(bearer), VERIFIED);
    assert_eq!(scene.change(cookie), VERIFIED);
    assert_eq!(scene.change(bearer), BY_PROCESS);
    assert_eq!(scene.change(cookie), BY_PROCESS);
    let records = scene.house.log.wait_for(4);
    let credentials: Vec<_> = records
        .iter()
        .map(|r| r["credential"].as_str().unwrap())
        .collect();
    assert_eq!(credentials, ["bearer", "session", "bearer", "session"]);
    // The key of a cookie's cache entry, sent as a token, is no token.
    assert_eq!(scene.get(&cookies).code(), "invalid_token");
}

#[test]
fn a_failure_is_never_remembered_neither_as_success_nor_as_failure() {
    let scene = scene();
    let late = Signer::p256("k2");
    let token = late.token(&claims());
    let mut client = Client::connect(scene.house.address);
    let value = format!("Bearer {token}");
    for _ in 0..2 {
        let change =
            scene.change(|| assert_eq!(on(&mut client, "/", "Authorization", &value).status, 401));
        assert_eq!(change, [0.0, 0.0, 1.0, 0.0]);
    }
    // Too early: it becomes good by waiting.
    let early = scene.signer.token(&claims_with(json!({"nbf": NOW + 60})));
    assert_eq!(scene.get(&early).status, 401);
    scene
        .server
        .reply(key_set(&[scene.signer.jwk(), late.jwk()]));
    scene.clock.advance(Duration::from_secs(30));
    assert_eq!(on(&mut client, "/", "Authorization", &value).status, 200);
    assert_eq!(scene.get(&early).status, 200);
}

#[test]
fn a_changed_key_ends_what_it_verified_and_a_good_token_is_verified_anew() {
    let scene = scene();
    let other = Signer::p256("k2");
    scene
        .server
        .reply(key_set(&[scene.signer.jwk(), other.jwk()]));
    let (of_one, of_other) = (scene.signer.token(&claims()), other.token(&claims()));
    let (one, two) = (format!("Bearer {of_one}"), format!("app_jwt={of_other}"));
    let mut client = Client::connect(scene.house.address);
    let mut second = Client::connect(scene.house.address);
    assert_eq!(on(&mut client, "/", "Authorization", &one).status, 200);
    assert_eq!(on(&mut second, "/", "Cookie", &two).status, 200);
    scene.server.reply(key_set(&[scene.signer.jwk()]));
    let before = scene.server.count();
    scene.clock.advance(Duration::from_secs(601));
    // A new token looks at the keys and finds that they are due.
    let another = scene.signer.token(&claims_with(json!({"sub": "u-2"})));
    assert_eq!(scene.get(&another).status, 200);
    eventually(|| scene.server.count() > before);
    eventually(|| on(&mut second, "/", "Cookie", &two).code() == "invalid_token");
    assert_eq!(
        scene.house.get("/", &[("cookie", &two)]).code(),
        "invalid_token"
    );
    let change = scene.change(|| {
        let answer = on(&mut client, "/", "Authorization", &one);
        assert_eq!(answer.status, 200);
    });
    assert_eq!(change, VERIFIED);
}

#[test]
fn a_supabase_session_is_known_by_all_its_cookies() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let metadata = json!({"padding": "x".repeat(4000)});
    let metadata = metadata.as_object().unwrap().clone();
    assert!(
        identity
            .provider
            .set_user_metadata("ada@example.com", metadata)
    );
    let upstream = Upstream::start();
    let file = format!(
        "{}[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        identity
            .tables()
            .replace("[session]", "max_token_bytes = \"16KiB\"\n[session]"),
        upstream.url()
    );
    let house = House::start_at(&file, clock);
    let misses = || house.metric("tollhouse_token_cache_total{outcome=\"miss\"}");
    let own = cookie(&identity.session("ada@example.com").to_string());
    let mut parts: Vec<&str> = own.split("; ").collect();
    assert!(parts.len() > 2);
    let ask = |cookies: &str| house.get("/", &[("cookie", cookies)]).status;
    assert_eq!(ask(&own), 200);
    assert_eq!(misses(), 1.0);
    // In any order, with anything between.
    parts.reverse();
    assert_eq!(ask(&parts.join("; theme=dark; ")), 200);
    assert_eq!(misses(), 1.0);
    // Without a piece, or with one that is cut elsewhere, it is not the same session.
    assert_eq!(ask(parts[1]), 401);
    assert_eq!(ask(&own.replacen("; sb-127-auth-token.1=", "", 1)), 401);
}
