//! Public keys of providers while they are fetched, late, wrong, exchanged or gone: what is known goes on, what cannot be
//! known is 503, and what was withdrawn ends.

use crate::support::keys::{
    ISSUER, Signer, base64url, claims, claims_with, json_reply, jwt_provider, key_server, key_set,
};
use crate::support::{Answer, Client, Closed, House, NOW, Reply, Upstream, eventually, send};
use serde_json::json;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;

const ROUTES: &str = "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/health\"\nauth = \"public\"\n\
    [[routes]]\npath = \"/optional\"\nauth = \"optional\"\n";
const TTL: Duration = Duration::from_secs(600);

/// A gateway that fetches the keys of one provider, with a clock that the test moves.
struct Scene {
    server: Upstream,
    upstream: Upstream,
    house: House,
    clock: Clock,
}

fn scene(server: Upstream, more: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let upstream = Upstream::start();
    let file = format!(
        "{}{more}[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n[upstreams.app]\nurl = \"{}\"\n{ROUTES}",
        jwt_provider("main", &server),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        server,
        upstream,
        house,
        clock,
    }
}

fn get(house: &House, path: &str, token: &str) -> Answer {
    house.get(path, &[("authorization", &format!("Bearer {token}"))])
}

/// A token that was never sent before and lives as long as any test.
fn fresh(signer: &Signer) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let jti = NEXT.fetch_add(1, Ordering::Relaxed);
    signer.token(&claims_with(json!({"jti": jti, "exp": NOW + 30 * 86_400})))
}

impl Scene {
    fn status(&self, token: &str) -> u16 {
        get(&self.house, "/", token).status
    }

    fn fetched(&self, outcome: &str) -> f64 {
        let series =
            format!("tollhouse_jwks_refresh_total{{provider=\"main\",outcome=\"{outcome}\"}}");
        self.house.metric(&series)
    }

    fn failed(&self) -> f64 {
        self.fetched("unreachable") + self.fetched("unusable")
    }

    /// Lets the keys become due and waits until the next fetch has ended well or badly.
    fn until_refetched(&self, signer: &Signer) {
        let before = self.fetched("ok") + self.failed();
        self.clock.advance(TTL + Duration::from_secs(60));
        // Whoever asks wakes the background; nobody waits for it.
        self.status(&fresh(signer));
        eventually(|| self.fetched("ok") + self.failed() > before);
    }
}

#[test]
fn twenty_thousand_tokens_with_unknown_keys_cause_one_fetch() {
    const THREADS: usize = 4;
    const EACH: usize = 5_000;
    const AT_ONCE: usize = 50;
    let signer = Signer::p256("k1");
    let scene = scene(key_server(&[signer.jwk()]), "");
    assert_eq!(scene.status(&fresh(&signer)), 200);
    assert_eq!(scene.server.count(), 1);
    let payload = base64url(claims().to_string());
    let signature = base64url([1; 64]);
    let address = scene.house.address;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (payload, signature) = (&payload, &signature);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for batch in 0..EACH / AT_ONCE {
                    let mut bytes = String::new();
                    for n in 0..AT_ONCE {
                        let kid = format!("{thread}-{batch}-{n}");
                        let header = base64url(json!({"alg": "ES256", "kid": kid}).to_string());
                        bytes.push_str(&format!(
                            "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {header}.{payload}.{signature}\r\n\r\n"
                        ));
                    }
                    client.write(bytes.as_bytes());
                    for _ in 0..AT_ONCE {
                        assert_eq!(client.read().code(), "invalid_token");
                    }
                }
            });
        }
    });
    assert_eq!(scene.server.count(), 2);
    assert_eq!(scene.status(&fresh(&signer)), 200);
    // Ten seconds later the next one may ask again: once.
    scene.clock.advance(Duration::from_secs(10));
    for kid in ["a", "b", "c"] {
        assert_eq!(scene.status(&fresh(&signer.named(kid))), 401);
    }
    assert_eq!(scene.server.count(), 3);
    assert_eq!(scene.upstream.count(), 2);
}

#[test]
fn the_gateway_starts_while_its_provider_is_down_and_recovers_by_itself() {
    let signer = Signer::p256("k1");
    let closed = Closed::new();
    let address = closed.address();
    let clock = Clock::frozen(NOW);
    let upstream = Upstream::start();
    let file = format!(
        "[providers.main]\nkind = \"jwt\"\nissuer = \"{ISSUER}\"\naudiences = [\"app\"]\njwks_url = \"http://{address}/keys\"\n\
         [upstreams.app]\nurl = \"{}\"\n{ROUTES}",
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    let ready = || {
        send(
            house.admin,
            b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            false,
        )
    };
    let token = fresh(&signer);
    assert_eq!(house.get("/health", &[]).status, 200);
    assert_eq!(house.get("/optional", &[]).status, 200);
    assert_eq!(house.get("/", &[]).code(), "missing_credentials");
    assert_eq!(upstream.count(), 2);
    for path in ["/", "/optional"] {
        for _ in 0..2 {
            let answer = get(&house, path, &token);
            assert_eq!(
                (answer.status, &*answer.code()),
                (503, "auth_unavailable"),
                "{path}"
            );
            let wait: u32 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
            assert_eq!(answer.header("www-authenticate"), None);
            assert_eq!(answer.json()["forwarded"], false);
        }
    }
    assert_eq!(upstream.count(), 2);
    assert_eq!(ready().status, 503);
    // An outage is nobody's failure: nobody is locked out for it.
    for _ in 0..40 {
        assert_eq!(get(&house, "/", &token).status, 503);
    }
    clock.advance(Duration::from_secs(30));
    let late = ready();
    assert_eq!(
        (late.status, late.json()["status"].as_str()),
        (200, Some("degraded"))
    );
    let server = closed.open();
    server.reply(key_set(&[signer.jwk()]));
    eventually(|| get(&house, "/", &token).status == 200);
    let ready = ready();
    assert_eq!(
        (ready.status, ready.json()["status"].as_str()),
        (200, Some("ok"))
    );
}

#[test]
fn known_keys_serve_through_an_outage_until_they_are_too_old() {
    let signer = Signer::p256("k1");
    let scene = scene(key_server(&[signer.jwk()]), "jwks_max_stale = \"1h\"\n");
    let cached = fresh(&signer);
    let mut client = Client::connect(scene.house.address);
    let mut again = |expected: u16| {
        client.write(
            format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {cached}\r\n\r\n")
                .as_bytes(),
        );
        assert_eq!(client.read().status, expected);
    };
    again(200);
    scene.server.reply(Reply::Close);
    for _ in 0..4 {
        scene.until_refetched(&signer);
        assert_eq!(scene.status(&fresh(&signer)), 200, "a new token");
        again(200);
        // A key that nobody has is not "unavailable": there are keys.
        assert_eq!(scene.status(&fresh(&Signer::p256("k2"))), 401);
    }
    assert!(scene.failed() >= 4.0);
    let readyz = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(
        send(scene.house.admin, readyz, false).json()["status"],
        "degraded"
    );
    // 44 minutes have passed. At one hour it ends, for what is cached as well.
    scene.clock.advance(Duration::from_secs(16 * 60));
    again(200);
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.status(&fresh(&signer)), 503);
    again(503);
    assert_eq!(scene.status(&cached), 503);
    scene.server.reply(key_set(&[signer.jwk()]));
    scene.clock.advance(Duration::from_secs(60));
    eventually(|| scene.status(&fresh(&signer)) == 200);
    again(200);
}

#[test]
fn an_outage_does_not_keep_the_control_thread_busy() {
    let signer = Signer::p256("k1");
    let scene = scene(key_server(&[signer.jwk()]), "");
    assert_eq!(scene.status(&fresh(&signer)), 200);
    scene.server.reply(Reply::Close);
    scene.until_refetched(&signer);
    for _ in 0..3 {
        assert_eq!(scene.status(&fresh(&signer)), 200);
        let started = Instant::now();
        let alive = send(
            scene.house.admin,
            b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
            false,
        );
        assert_eq!(alive.status, 200);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    scene.house.stop();
}

#[test]
fn junk_never_replaces_good_keys() {
    let signer = Signer::p256("k1");
    let other = Signer::p256("k1");
    let elsewhere = key_server(&[other.jwk()]);
    let scene = scene(key_server(&[signer.jwk()]), "");
    assert_eq!(scene.status(&fresh(&signer)), 200);
    let with_status = |status: &str, body: &str| {
        Reply::bytes(&format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let good = json!({"keys": [other.jwk()]}).to_string();
    let mut too_many = vec![other.jwk(); 101];
    too_many[0] = signer.jwk();
    let large = json!({"keys": [other.jwk()], "padding": "x".repeat(300_000)}).to_string();
    let only_unusable = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}]}).to_string();
    for (reply, why) in [
        (json_reply("{\"keys\":[]}"), "no keys"),
        (json_reply("{}"), "no list"),
        (json_reply("null"), "null"),
        (json_reply("<html>sorry</html>"), "HTML"),
        (json_reply(&good[..good.len() - 3]), "cut off"),
        (json_reply(&only_unusable), "none to use"),
        (key_set(&too_many), "too many"),
        (json_reply(&large), "too large"),
        (with_status("500 Oops", &good), "500"),
        (with_status("404 Not Found", &good), "404"),
        (with_status("203 Changed", &good), "203"),
        (
            Reply::bytes(&format!(
                "HTTP/1.1 302 Found\r\nLocation: {}/keys\r\nContent-Length: 0\r\n\r\n",
                elsewhere.url()
            )),
            "a redirect",
        ),
        (
            Reply::bytes_and_close("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{\"keys\":[]}"),
            "broken off",
        ),
        (Reply::bytes_and_close("nonsense\r\n\r\n"), "not HTTP"),
        (Reply::Close, "closed"),
    ] {
        scene.server.reply(reply);
        let before = scene.failed();
        scene.until_refetched(&signer);
        assert!(scene.failed() > before, "{why}");
        assert_eq!(scene.status(&fresh(&signer)), 200, "{why}");
        assert_eq!(scene.status(&fresh(&other)), 401, "{why}");
    }
    assert_eq!(elsewhere.connections(), 0);
    assert_eq!(scene.fetched("ok"), 1.0);
    // And a good set replaces them.
    scene.server.reply(key_set(&[other.jwk()]));
    scene.until_refetched(&signer);
    assert_eq!(scene.status(&fresh(&signer)), 401);
    assert_eq!(scene.status(&fresh(&other)), 200);
}

#[test]
fn a_new_key_is_found_with_its_first_token_and_a_withdrawn_one_ends_with_the_next_fetch() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let scene = scene(key_server(&[old.jwk()]), "");
    let (of_old, of_new) = (fresh(&old), fresh(&new));
    let mut client = Client::connect(scene.house.address);
    let mut on_the_connection = |token: &str| {
        client.write(
            format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")
                .as_bytes(),
        );
        client.read()
    };
    assert_eq!(on_the_connection(&of_old).status, 200);
    scene.server.reply(key_set(&[new.jwk(), old.jwk()]));
    assert_eq!(scene.status(&of_new), 200);
    assert_eq!(scene.server.count(), 2);
    assert_eq!(on_the_connection(&of_old).status, 200);
    scene.server.reply(key_set(&[new.jwk()]));
    // Nobody has told us yet.
    assert_eq!(on_the_connection(&of_old).status, 200);
    scene.until_refetched(&new);
    // On the connection that remembered it, in the process that knew it, and verified anew.
    assert_eq!(on_the_connection(&of_old).code(), "invalid_token");
    assert_eq!(get(&scene.house, "/", &of_old).code(), "invalid_token");
    assert_eq!(get(&scene.house, "/", &fresh(&old)).code(), "invalid_token");
    assert_eq!(on_the_connection(&of_new).status, 200);
    // The same name with another key is another key.
    let imposter = Signer::p256("new");
    scene.server.reply(key_set(&[imposter.jwk()]));
    scene.until_refetched(&new);
    assert_eq!(on_the_connection(&of_new).code(), "invalid_token");
    assert_eq!(scene.status(&fresh(&imposter)), 200);
}

#[test]
fn an_unknown_key_also_finds_out_what_was_withdrawn() {
    let (old, new) = (Signer::p256("old"), Signer::p256("new"));
    let scene = scene(key_server(&[old.jwk()]), "");
    let of_old = fresh(&old);
    assert_eq!(scene.status(&of_old), 200);
    scene.server.reply(key_set(&[new.jwk()]));
    assert_eq!(scene.status(&fresh(&new)), 200);
    assert_eq!(scene.status(&of_old), 401);
}

#[test]
fn the_order_of_keys_and_new_ones_do_not_disturb_what_is_known() {
    let (a, b) = (Signer::p256("a"), Signer::p256("b"));
    let scene = scene(key_server(&[a.jwk(), b.jwk()]), "");
    let token = fresh(&a);
    assert_eq!(scene.status(&token), 200);
    let misses = || {
        scene
            .house
            .metric("tollhouse_token_cache_total{outcome=\"miss\"}")
    };
    for keys in [
        vec![b.jwk(), a.jwk()],
        vec![Signer::p256("c").jwk(), b.jwk(), a.jwk()],
    ] {
        scene.server.reply(key_set(&keys));
        scene.until_refetched(&a);
        let before = misses();
        assert_eq!(scene.status(&token), 200);
        assert_eq!(misses(), before);
    }
}

#[test]
fn providers_are_isolated_from_each_other() {
    let (good, other) = (Signer::p256("same"), Signer::p256("same"));
    let fine = key_server(&[good.jwk()]);
    let silent = Upstream::start();
    silent.reply(Reply::Silence);
    let other_issuer = "https://silent.example";
    let upstream = Upstream::start();
    let file = format!(
        "{}{}http_timeout = \"300ms\"\n[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n[upstreams.app]\nurl = \"{}\"\n{ROUTES}",
        jwt_provider("fine", &fine),
        jwt_provider("silent", &silent).replace(ISSUER, other_issuer),
        upstream.url()
    );
    let house = House::start(&file);
    assert_eq!(get(&house, "/", &fresh(&good)).status, 200);
    let of_silent = other.token(&claims_with(json!({"iss": other_issuer})));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| get(&house, "/", &of_silent));
        let started = Instant::now();
        for _ in 0..10 {
            assert_eq!(get(&house, "/", &fresh(&good)).status, 200);
        }
        assert!(started.elapsed() < Duration::from_secs(3));
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, &*answer.code()), (503, "auth_unavailable"));
    });
    // The other's unknown keys are not looked for here.
    let before = fine.count();
    for n in 0..20 {
        let kid = format!("unknown-{n}");
        let claims = claims_with(json!({"iss": other_issuer}));
        let token = other.named(&kid).token(&claims);
        assert_eq!(get(&house, "/", &token).status, 503);
    }
    assert_eq!(fine.count(), before);
    let token = good.token(&claims_with(json!({"iss": "https://nobody.example"})));
    assert_eq!(get(&house, "/", &token).status, 401);
    assert_eq!(fine.count(), before);
}

#[test]
fn known_keys_never_wait_while_a_fetch_hangs() {
    let signer = Signer::p256("k1");
    let scene = scene(key_server(&[signer.jwk()]), "http_timeout = \"2s\"\n");
    assert_eq!(scene.status(&fresh(&signer)), 200);
    scene.server.reply(Reply::Silence);
    let unknown = fresh(&signer.named("unknown"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (scene.status(&unknown), Instant::now()));
        eventually(|| scene.server.count() == 2);
        for _ in 0..20 {
            assert_eq!(scene.status(&fresh(&signer)), 200);
        }
        let done = Instant::now();
        // And while a routine fetch is due, too.
        scene.clock.advance(TTL + Duration::from_secs(1));
        assert_eq!(scene.status(&fresh(&signer)), 200);
        let (status, ended) = waiting.join().unwrap();
        assert_eq!(status, 401);
        assert!(
            done < ended,
            "the known ones came after the one that waited"
        );
    });
}

#[test]
fn many_who_wait_for_the_first_keys_share_one_fetch() {
    let signer = Signer::p256("k1");
    let server = Upstream::start();
    server.reply(Reply::Close);
    let scene = scene(server, "");
    assert_eq!(scene.status(&fresh(&signer)), 503);
    let before = scene.server.count();
    scene.server.reply(key_set(&[signer.jwk()]));
    scene.clock.advance(Duration::from_secs(2));
    std::thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| assert_eq!(scene.status(&fresh(&signer)), 200));
        }
    });
    // The background may have come first, with a fetch of its own.
    assert!(
        scene.server.count() - before <= 2,
        "{}",
        scene.server.count() - before
    );
}
