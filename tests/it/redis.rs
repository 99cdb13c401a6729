//! The handle to a real Redis: what a command may take, what is said of an outage, and every way in.

use crate::support::PATIENCE;
use crate::support::events::Events;
use crate::support::redis::{Door, RedisServer, run, soon};
use ::redis::{Cmd, cmd, pipe};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tollhouse::base::secret::Secret;
use tollhouse::redis::{Address, Failure, Redis, Settings};

fn ping() -> Cmd {
    cmd("PING")
}

fn set(key: &str, value: &str) -> Cmd {
    let mut command = cmd("SET");
    command.arg(key).arg(value);
    command
}

fn get(key: &str) -> Cmd {
    let mut command = cmd("GET");
    command.arg(key);
    command
}

async fn pong(redis: &Redis) -> bool {
    redis.ask::<String>(ping()).await == Ok("PONG".to_owned())
}

/// A handle with commands of at most `ms` milliseconds.
async fn quick(server: &RedisServer, ms: u64) -> Redis {
    let mut settings = server.settings();
    settings.timeout = Duration::from_millis(ms);
    let redis = Redis::start(&settings, Handle::current()).unwrap();
    redis.ready().await;
    redis
}

#[test]
fn commands_pipelines_and_scripts_are_answered() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        assert!(!redis.is_away());
        assert!(pong(&redis).await);
        assert_eq!(redis.ask::<()>(set("a", "1")).await, Ok(()));
        let mut both = pipe();
        both.add_command(get("a")).cmd("PTTL").arg("a");
        assert_eq!(
            redis.ask_all::<(Option<String>, i64)>(both).await,
            Ok((Some("1".to_owned()), -1))
        );
        // Unknown to the server the first time, known the second, and again after it has forgotten.
        static SCRIPT: std::sync::LazyLock<::redis::Script> = std::sync::LazyLock::new(|| {
            ::redis::Script::new("return redis.call('GET', KEYS[1]) .. ARGV[1]")
        });
        for _ in 0..2 {
            for _ in 0..2 {
                let mut call = SCRIPT.key("a");
                call.arg("2");
                assert_eq!(redis.run::<String>(call).await, Ok("12".to_owned()));
            }
            let mut flush = cmd("SCRIPT");
            flush.arg("FLUSH");
            assert_eq!(redis.ask::<()>(flush).await, Ok(()));
        }
    });
}

#[test]
fn what_redis_refuses_is_told_apart_from_its_absence() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        redis.ask::<()>(set("a", "x")).await.unwrap();
        let mut wrong = cmd("LPUSH");
        wrong.arg("a").arg("secret-argument");
        let refused = |code: &str| Err(Failure::Refused { code: code.into() });
        assert_eq!(redis.ask::<i64>(wrong.clone()).await, refused("WRONGTYPE"));
        let mut all = pipe();
        all.add_command(get("a")).add_command(wrong);
        let answer = redis.ask_all::<(String, i64)>(all).await;
        assert_eq!(answer, Err(refused("WRONGTYPE").unwrap_err()));
        let mut full = cmd("CONFIG");
        full.arg("SET").arg("maxmemory").arg("1");
        redis.ask::<()>(full).await.unwrap();
        assert_eq!(redis.ask::<()>(set("b", "x")).await, refused_unit("OOM"));
        assert!(!redis.is_away());
    });
}

fn refused_unit(code: &str) -> Result<(), Failure> {
    Err(Failure::Refused { code: code.into() })
}

#[test]
fn no_command_takes_longer_than_it_may_from_a_redis_that_hangs() {
    run(async || {
        let server = RedisServer::start();
        let redis = quick(&server, 250).await;
        server.freeze();
        let began = Instant::now();
        let waiting: Vec<_> = (0..200)
            .map(|_| {
                let redis = redis.clone();
                tokio::spawn(async move {
                    let began = Instant::now();
                    (redis.ask::<String>(ping()).await, began.elapsed())
                })
            })
            .collect();
        for one in waiting {
            let (answer, took) = one.await.unwrap();
            assert_eq!(answer, Err(Failure::Away));
            assert!(took >= Duration::from_millis(200), "{took:?}");
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
        // It is found out, by what they met and not by chance, and from then on nobody waits.
        soon(|| redis.is_away()).await;
        assert!(began.elapsed() < Duration::from_secs(4), "no heartbeat yet");
        while redis.ask::<String>(ping()).await.is_err() && began.elapsed() < PATIENCE {
            let asked = Instant::now();
            let _ = redis.ask::<String>(ping()).await;
            if asked.elapsed() < Duration::from_millis(100) {
                break;
            }
        }
        let asked = Instant::now();
        for _ in 0..1000 {
            assert_eq!(redis.ask::<String>(ping()).await, Err(Failure::Away));
        }
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "each would wait for 250 ms"
        );
        server.go_on();
        soon(|| !redis.is_away()).await;
        assert!(pong(&redis).await);
    });
}

#[test]
fn it_comes_back_by_itself_and_the_log_is_told_once_each() {
    let events = Events::default();
    let _guard = events.listen();
    // One thread, which has the subscriber.
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    control.block_on(async {
        let mut server = RedisServer::start_with(Door::Tcp, Some("secret-word"));
        let redis = server.connect().await;
        assert_eq!(events.lines(), [""; 0]);
        for round in 1..3 {
            server.stop();
            soon(|| redis.is_away()).await;
            for _ in 0..50 {
                assert_eq!(redis.ask::<String>(ping()).await, Err(Failure::Away));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(events.lines().len(), 2 * round - 1, "{:?}", events.lines());
            server.start_again();
            soon(|| !redis.is_away()).await;
            assert!(pong(&redis).await);
            let lines = events.lines();
            assert_eq!(lines.len(), 2 * round, "{lines:?}");
            assert!(lines[2 * round - 2].contains("Redis is away"), "{lines:?}");
            assert!(lines[2 * round - 1].contains("Redis is back"), "{lines:?}");
        }
        let all = format!("{:?} {redis:?}", events.lines());
        assert!(!all.contains("secret"), "{all}");
    });
}

#[test]
fn a_redis_that_starts_later_than_we_do_is_found() {
    run(async || {
        let mut server = RedisServer::start();
        server.stop();
        let redis = Redis::start(&server.settings(), Handle::current()).unwrap();
        soon(|| !pong_now(&redis)).await;
        assert!(redis.is_away());
        server.start_again();
        redis.ready().await;
        assert!(pong(&redis).await);
    });
}

fn pong_now(redis: &Redis) -> bool {
    !redis.is_away()
}

#[test]
fn a_command_whose_client_has_gone_is_carried_out() {
    let server = RedisServer::start();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (control, worker) = (runtime(), runtime());
    let redis = control.block_on(server.connect());
    for number in 0..20 {
        let key = format!("k{number}");
        let command = set(&key, "kept");
        let redis = redis.clone();
        // Polled once on its worker, and dropped before the control runtime had a turn.
        worker.block_on(async move {
            let mut asked = std::pin::pin!(redis.ask::<()>(command));
            let once = std::future::poll_fn(|cx| {
                std::task::Poll::Ready(asked.as_mut().poll(cx).is_pending())
            });
            assert!(once.await);
        });
    }
    control.block_on(async {
        for number in 0..20 {
            let key = format!("k{number}");
            let until = Instant::now() + PATIENCE;
            while redis.ask::<Option<String>>(get(&key)).await != Ok(Some("kept".to_owned())) {
                assert!(Instant::now() < until, "{key}");
            }
        }
    });
    // And from a worker that waits, while the control runtime runs on a thread of its own.
    let asked = redis.clone();
    let waiting = std::thread::spawn(move || worker.block_on(asked.ask::<String>(ping())));
    control.block_on(soon(|| waiting.is_finished()));
    assert_eq!(waiting.join().unwrap(), Ok("PONG".to_owned()));
}

#[test]
fn a_password_opens_and_a_wrong_one_or_none_does_not() {
    run(async || {
        let server = RedisServer::start_with(Door::Tcp, Some("hunter2"));
        let admin = server.connect().await;
        assert!(pong(&admin).await);
        let mut user = cmd("ACL");
        user.arg("SETUSER")
            .arg(&["gate", "on", ">word", "~a*", "+@all"][..]);
        admin.ask::<()>(user).await.unwrap();

        let with = async |username: Option<&str>, password: Option<&str>| {
            let settings = Settings {
                username: username.map(Into::into),
                password: password.map(|word| Secret::new(word.to_owned())),
                ..server.settings()
            };
            let redis = Redis::start(&settings, Handle::current()).unwrap();
            // Waits for the first attempt.
            let open = redis.ask::<String>(ping()).await.is_ok();
            (open, redis)
        };
        for (username, password) in [
            (None, None),
            (None, Some("hunter3")),
            (Some("gate"), Some("hunter2")),
            (Some("nobody"), Some("word")),
        ] {
            let (open, redis) = with(username, password).await;
            assert!(!open && redis.is_away(), "{username:?} {password:?}");
        }
        let (open, gate) = with(Some("gate"), Some("word")).await;
        assert!(open);
        assert_eq!(gate.ask::<()>(set("a1", "x")).await, Ok(()));
        assert_eq!(gate.ask::<()>(set("b1", "x")).await, refused_unit("NOPERM"));
    });
}

#[test]
fn a_database_has_its_own_keys() {
    run(async || {
        let server = RedisServer::start();
        let first = server.connect().await;
        let settings = Settings {
            database: 3,
            ..server.settings()
        };
        let third = Redis::start(&settings, Handle::current()).unwrap();
        third.ready().await;
        third.ask::<()>(set("a", "third")).await.unwrap();
        assert_eq!(first.ask::<Option<String>>(get("a")).await, Ok(None));
        let mut select = cmd("SELECT");
        select.arg(3);
        assert_eq!(first.ask::<()>(select).await, Ok(()));
        let found = first.ask::<Option<String>>(get("a")).await;
        assert_eq!(found, Ok(Some("third".to_owned())));
    });
}

#[test]
fn a_socket_file_leads_to_it_as_well() {
    run(async || {
        let mut server = RedisServer::start_with(Door::Unix, Some("hunter2"));
        let redis = server.connect().await;
        assert!(pong(&redis).await);
        server.stop();
        soon(|| redis.is_away()).await;
        server.start_again();
        soon(|| !redis.is_away()).await;
        assert!(pong(&redis).await);
    });
}

#[test]
fn tls_is_spoken_with_whoever_shows_a_certificate_that_is_trusted_for_its_host() {
    run(async || {
        let server = RedisServer::start_with(Door::Tls, Some("hunter2"));
        let redis = server.connect().await;
        assert!(pong(&redis).await);
        redis
            .ask::<()>(set("a", &"x".repeat(200_000)))
            .await
            .unwrap();
        let found = redis.ask::<String>(get("a")).await.unwrap();
        assert_eq!(found.len(), 200_000);

        let address = |host: &str, tls| Address::Tcp {
            host: host.into(),
            port: server.port(),
            tls,
        };
        let other = crate::support::tls::file("other.test.pem");
        for (what, settings) in [
            (
                "another's certificate is trusted",
                Settings {
                    ca_file: Some(other),
                    ..server.settings()
                },
            ),
            (
                "the system's certificates do not vouch for it",
                Settings {
                    ca_file: None,
                    ..server.settings()
                },
            ),
            (
                "it is not for this host",
                Settings {
                    address: address("localhost", true),
                    ..server.settings()
                },
            ),
            (
                "it is spoken to in the clear",
                Settings {
                    address: address("127.0.0.1", false),
                    ..server.settings()
                },
            ),
        ] {
            let stranger = Redis::start(&settings, Handle::current()).unwrap();
            let answer = stranger.ask::<String>(ping()).await;
            assert_eq!(answer, Err(Failure::Away), "{what}");
            assert!(stranger.is_away(), "{what}");
        }
    });
}

#[test]
fn the_connection_ends_with_the_last_handle() {
    run(async || {
        let server = RedisServer::start();
        let watcher = server.connect().await;
        let clients = async || {
            let mut list = cmd("CLIENT");
            list.arg("LIST");
            let text = watcher.ask::<String>(list).await.unwrap();
            text.lines().count()
        };
        let first = server.connect().await;
        let second = first.clone();
        assert_eq!(clients().await, 2);
        drop(first);
        assert!(pong(&second).await);
        drop(second);
        let until = Instant::now() + Duration::from_secs(10);
        while clients().await > 1 {
            assert!(Instant::now() < until, "it stays");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}
