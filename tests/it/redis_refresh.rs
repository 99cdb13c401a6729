//! Refreshes of gateways that share a Redis: one call for each token among all of them, whoever of them dies and whatever
//! Redis does meanwhile.

use crate::support::events::Events;
use crate::support::redis::{Door, RedisServer, get, life};
use crate::support::{Identity, NOW, eventually};
use ::redis::cmd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tollhouse::base::clock::Clock;
use tollhouse::base::secret::Secret;
use tollhouse::config::{self, Options};
use tollhouse::demo::provider::Fault;
use tollhouse::provider::supabase::{Setup, Supabase};
use tollhouse::provider::{Browser, Grant, ProviderBudget, RefreshError, Refreshes};
use tollhouse::redis::{Redis, Settings};

type Outcome = Result<Arc<Grant>, RefreshError>;

/// A provider, a Redis, and somebody who looks into it.
struct Room {
    identity: Identity,
    clock: Clock,
    server: RedisServer,
    redis: Redis,
    runtime: Runtime,
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn client(identity: &Identity, clock: &Clock, timeout: &str, control: &Handle) -> Arc<Supabase> {
    let text = format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         http_timeout = \"{timeout}\"\n[[routes]]\npath = \"/\"\nrespond = {{ body = \"hi\" }}\nauth = \"public\"\n",
        identity.url
    );
    let environment = config::interpolate::ProcessEnvironment::default();
    let options = Options {
        placeholders: false,
    };
    let config = config::load(&text, Path::new("test.toml"), &environment, options)
        .unwrap_or_else(|problems| panic!("the test's file is wrong:\n{problems}"));
    let setup = Setup {
        public_api: None,
        secret_key: None,
        budget: Arc::new(ProviderBudget::standard(clock)),
        clock: clock.clone(),
        control: control.clone(),
    };
    Arc::new(Supabase::new(&config.providers[0], setup).unwrap().unwrap())
}

impl Room {
    fn new() -> Self {
        Self::with_tokens_of(3600)
    }

    fn with_tokens_of(seconds: u64) -> Self {
        let clock = Clock::frozen(NOW);
        let life = Duration::from_secs(seconds);
        let (server, runtime) = (RedisServer::start(), runtime());
        Self {
            identity: Identity::behind(&clock, life, |provider, request| async move {
                provider.handle(request).await
            }),
            redis: runtime.block_on(server.connect()),
            clock,
            server,
            runtime,
        }
    }

    fn token(&self) -> Secret<String> {
        let session = self.identity.session("ada@example.com");
        Secret::new(session["refresh_token"].as_str().unwrap().to_owned())
    }

    /// Calls that came to the provider.
    fn calls(&self) -> u64 {
        self.identity.provider.count("token.refresh")
    }

    fn gateway(&self) -> Gateway {
        self.gateway_with(&self.server.settings(), "5s")
    }

    fn gateway_with(&self, settings: &Settings, timeout: &str) -> Gateway {
        let runtime = runtime();
        let redis = Redis::start(settings, runtime.handle().clone()).unwrap();
        runtime.block_on(redis.ready());
        Gateway {
            client: client(&self.identity, &self.clock, timeout, runtime.handle()),
            refreshes: Arc::new(
                Refreshes::new(self.clock.clone(), runtime.handle().clone())
                    .unwrap()
                    .shared(redis.clone()),
            ),
            redis,
            runtime,
        }
    }

    fn wait(&self, asked: JoinHandle<Outcome>) -> Outcome {
        self.runtime.block_on(asked).unwrap()
    }

    /// The names of leases and outcomes.
    fn leases(&self) -> Vec<String> {
        let mut keys = cmd("KEYS");
        keys.arg("tollhouse:lease:*");
        self.runtime.block_on(self.redis.ask(keys)).unwrap()
    }

    fn only_lease(&self) -> String {
        let leases = self.leases();
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases[0].clone()
    }

    fn value(&self, name: &str) -> Vec<u8> {
        let value = self.runtime.block_on(get(&self.redis, name));
        value.unwrap_or_default()
    }

    /// In milliseconds.
    fn life(&self, name: &str) -> i64 {
        self.runtime.block_on(life(&self.redis, name))
    }

    fn set(&self, name: &str, value: &[u8], life: Option<u64>) {
        let mut command = cmd("SET");
        command.arg(name).arg(value);
        if let Some(life) = life {
            command.arg("PX").arg(life);
        }
        let done = self.runtime.block_on(self.redis.ask::<()>(command));
        done.unwrap();
    }
}

/// What refreshes in one process.
struct Gateway {
    redis: Redis,
    refreshes: Arc<Refreshes>,
    client: Arc<Supabase>,
    runtime: Runtime,
}

impl Gateway {
    fn ask(&self, token: &Secret<String>) -> JoinHandle<Outcome> {
        let (refreshes, client, token) =
            (self.refreshes.clone(), self.client.clone(), token.clone());
        self.runtime.spawn(async move {
            let browser = Browser::default();
            refreshes.refresh(&client, &token, 7, &browser).await
        })
    }

    /// Calls it has made itself, that brought a session.
    fn made(&self) -> u64 {
        self.refreshes.counts()[0].1
    }

    /// In the middle of whatever it does.
    fn die(self) {
        self.runtime.shutdown_background();
    }
}

#[test]
fn forty_who_come_to_two_gateways_cause_one_call() {
    let room = Room::new();
    let (one, two) = (room.gateway(), room.gateway());
    let token = room.token();
    let hold = room.identity.provider.hold("token.refresh");
    let asked: Vec<_> = (0..40)
        .map(|number| if number % 2 == 0 { &one } else { &two }.ask(&token))
        .collect();
    eventually(|| room.calls() == 1 && one.refreshes.len() + two.refreshes.len() == 2);
    drop(hold);
    let grants: Vec<_> = asked.into_iter().map(|a| room.wait(a).unwrap()).collect();
    assert!(grants.iter().all(|grant| *grant == grants[0]));
    assert_eq!(room.calls(), 1);
    assert_eq!(one.made() + two.made(), 1, "only calls are counted");
    // And who comes a moment later, to a third.
    let three = room.gateway();
    assert_eq!(room.wait(three.ask(&token)).unwrap(), grants[0]);
    assert_eq!((room.calls(), three.made()), (1, 0));
    // Other tokens are other calls.
    assert!(room.wait(three.ask(&grants[0].refresh_token)).is_ok());
    assert!(room.wait(two.ask(&room.token())).is_ok());
    assert_eq!(room.calls(), 3);
}

#[test]
fn redis_has_nothing_to_read_and_not_for_long() {
    for (seconds, longest) in [(3600, 10_000), (4, 4_000)] {
        let room = Room::with_tokens_of(seconds);
        let token = room.token();
        let grant = room.wait(room.gateway().ask(&token)).unwrap();
        let lease = room.only_lease();
        let left = room.life(&lease);
        assert!((1..=longest).contains(&left), "{left}");
        let shown = String::from_utf8_lossy(&room.value(&lease)).into_owned() + &lease;
        for secret in [&token, &grant.refresh_token, &grant.access_token] {
            assert!(!shown.contains(secret.expose()));
        }
        assert!(!shown.contains("ada@"));
    }
}

#[test]
fn a_refusal_is_told_to_all_and_a_failure_that_may_pass_to_nobody() {
    let room = Room::new();
    let (one, two) = (room.gateway(), room.gateway());
    let token = room.token();
    assert!(room.identity.provider.end_sessions("ada@example.com"));
    let over = RefreshError::Over {
        code: "refresh_token_not_found",
    };
    for gateway in [&one, &two] {
        let error = room.wait(gateway.ask(&token)).unwrap_err();
        assert_eq!(error, over);
    }
    assert_eq!(room.calls(), 1);
    let left = room.life(&room.only_lease());
    assert!((10_001..=30_000).contains(&left), "{left}");

    let token = room.token();
    let busy = Fault::Code(
        http::StatusCode::TOO_MANY_REQUESTS,
        "over_request_rate_limit",
    );
    room.identity.provider.fail_next("token.refresh", &busy, 1);
    let error = room.wait(one.ask(&token)).unwrap_err();
    assert!(matches!(error, RefreshError::Later { .. }), "{error}");
    assert!(room.wait(two.ask(&token)).is_ok());
    assert_eq!(room.calls(), 3);
}

#[test]
fn a_call_that_takes_long_keeps_its_lease() {
    let room = Room::new();
    let (one, two) = (room.gateway(), room.gateway());
    let token = room.token();
    let hold = room.identity.provider.hold("token.refresh");
    let first = one.ask(&token);
    eventually(|| room.calls() == 1);
    let second = two.ask(&token);
    let lease = room.only_lease();
    // Down, up, down, up: taken anew twice.
    for _ in 0..2 {
        eventually(|| room.life(&lease) < 1_800);
        eventually(|| room.life(&lease) > 1_900);
    }
    assert_eq!(room.calls(), 1);
    drop(hold);
    assert_eq!(room.wait(first).unwrap(), room.wait(second).unwrap());
    assert_eq!((room.calls(), two.made()), (1, 0));
}

#[test]
fn whoever_dies_in_the_middle_of_a_call_is_replaced() {
    let room = Room::new();
    let (one, two) = (room.gateway(), room.gateway());
    let token = room.token();
    let hold = room.identity.provider.hold("token.refresh");
    let _lost = one.ask(&token);
    eventually(|| room.calls() == 1);
    let second = two.ask(&token);
    eventually(|| two.refreshes.len() == 1);
    let lease = room.only_lease();
    let theirs = room.value(&lease);
    one.die();
    eventually(|| room.calls() == 2);
    assert_ne!(room.value(&lease), theirs);
    drop(hold);
    assert!(room.wait(second).is_ok());
    assert_eq!((room.calls(), two.made()), (2, 1));
    // What the dead one would have been told is told by the other.
    assert!(room.wait(room.gateway().ask(&token)).is_ok());
    assert_eq!(room.calls(), 2);
}

#[test]
fn what_comes_of_a_lease_that_was_lost_does_not_undo_anothers() {
    let room = Room::new();
    let gateway = room.gateway();
    let token = room.token();
    let hold = room.identity.provider.hold("token.refresh");
    let asked = gateway.ask(&token);
    eventually(|| room.calls() == 1);
    let lease = room.only_lease();
    room.set(&lease, b"Lsomebody-else", Some(30_000));
    drop(hold);
    assert!(room.wait(asked).is_ok());
    assert_eq!(room.value(&lease), b"Lsomebody-else");
}

#[test]
fn without_redis_each_gateway_goes_on_for_itself() {
    let mut room = Room::new();
    let (one, two) = (room.gateway(), room.gateway());
    // From the beginning.
    room.server.stop();
    eventually(|| one.redis.is_away() && two.redis.is_away());
    let token = room.token();
    let (first, second) = (one.ask(&token), two.ask(&token));
    assert!(room.wait(first).is_ok() && room.wait(second).is_ok());
    assert_eq!(room.calls(), 2);
    // And back.
    room.server.start_again();
    eventually(|| !one.redis.is_away() && !two.redis.is_away());
    let token = room.token();
    let (first, second) = (one.ask(&token), two.ask(&token));
    assert_eq!(room.wait(first).unwrap(), room.wait(second).unwrap());
    assert_eq!(room.calls(), 3);
    // Away in the middle: for the one that asks, and the one that waits for it.
    let token = room.token();
    let hold = room.identity.provider.hold("token.refresh");
    let first = one.ask(&token);
    eventually(|| room.calls() == 4);
    let second = two.ask(&token);
    // With what it remembers of the two before.
    eventually(|| two.refreshes.len() == 3);
    room.server.stop();
    eventually(|| room.calls() == 5);
    drop(hold);
    assert!(room.wait(first).is_ok() && room.wait(second).is_ok());
    assert_eq!(room.calls(), 5);
}

#[test]
fn a_redis_that_hangs_costs_no_more_than_its_commands_may_take() {
    let room = Room::new();
    let settings = Settings {
        timeout: Duration::from_millis(250),
        ..room.server.settings()
    };
    let gateway = room.gateway_with(&settings, "5s");
    room.server.freeze();
    let began = Instant::now();
    assert!(room.wait(gateway.ask(&room.token())).is_ok());
    assert!(began.elapsed() < Duration::from_secs(3));
    room.server.go_on();
}

#[test]
fn what_somebody_else_wrote_in_place_of_a_lease_keeps_nobody_waiting() {
    let room = Room::new();
    let token = room.token();
    let grant = room.wait(room.gateway().ask(&token)).unwrap();
    let lease = room.only_lease();
    let mut outcome = room.value(&lease);
    *outcome.last_mut().unwrap() ^= 1;
    let mut calls = room.calls();
    for (value, life) in [
        (&b"L"[..], None),
        (b"L", Some(3_600_000)),
        (b"", Some(5_000)),
        (b"x", Some(5_000)),
        (b"O", Some(5_000)),
        (&outcome, Some(5_000)),
    ] {
        room.set(&lease, value, life);
        let renewed = room.wait(room.gateway().ask(&token)).unwrap();
        assert_eq!(renewed.refresh_token, grant.refresh_token);
        calls += 1;
        assert_eq!(room.calls(), calls, "{value:?}");
        assert_eq!(room.value(&lease), value, "it is not ours to change");
    }
}

#[test]
fn nobody_waits_for_another_gateway_longer_than_for_the_provider() {
    let room = Room::new();
    let token = room.token();
    assert!(room.wait(room.gateway().ask(&token)).is_ok());
    let lease = room.only_lease();
    room.set(&lease, b"Lsomebody-else", Some(60_000));
    let began = Instant::now();
    let gateway = room.gateway_with(&room.server.settings(), "500ms");
    let error = room.wait(gateway.ask(&token)).unwrap_err();
    assert!(matches!(error, RefreshError::Later { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!((room.calls(), gateway.refreshes.counts()[2].1), (1, 0));
}

#[test]
fn the_log_is_told_once_that_refreshes_are_not_shared() {
    let events = Events::default();
    let _guard = events.listen();
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let mut server = RedisServer::start_with(Door::Tcp, None);
    // One thread, which has the subscriber.
    let control = Builder::new_current_thread().enable_all().build().unwrap();
    control.block_on(async {
        let redis = server.connect().await;
        let client = client(&identity, &clock, "5s", &Handle::current());
        let refreshes = Refreshes::new(clock.clone(), Handle::current()).unwrap();
        let refreshes = refreshes.shared(redis.clone());
        let refresh = async || {
            let session = identity.session("ada@example.com");
            let token = Secret::new(session["refresh_token"].as_str().unwrap().to_owned());
            let browser = Browser::default();
            let outcome = refreshes.refresh(&client, &token, 7, &browser).await;
            assert!(outcome.is_ok());
        };
        let lines = || {
            let lines = events.lines();
            let ours = lines.iter().filter(|line| line.contains("not shared"));
            ours.count()
        };
        refresh().await;
        assert_eq!(lines(), 0);
        for round in 1..3 {
            server.stop();
            crate::support::redis::soon(|| redis.is_away()).await;
            for _ in 0..3 {
                refresh().await;
                assert_eq!(lines(), round);
            }
            server.start_again();
            redis.ready().await;
            refresh().await;
        }
    });
    drop(control);
}
