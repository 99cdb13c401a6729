//! Stored sessions in a real Redis: what is there, for how long, and that nothing brings back what has ended.

use crate::support::redis::{RedisServer, get, life, run, soon};
use crate::support::{NOW, PATIENCE};
use ::redis::cmd;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;
use tollhouse::base::secret::Secret;
use tollhouse::redis::{Failure, Redis};
use tollhouse::session::sealed::{KeyRing, SealedSession, SealingKey};
use tollhouse::session::stored::{
    Found, Record, Replaced, Rules, SessionId, StoreError, StoredSessions,
};

const DAY: u64 = 86_400;
const RULES: Rules = Rules {
    idle_timeout: Duration::from_secs(7 * DAY),
    max_age: Duration::from_secs(30 * DAY),
    cache_ttl: Duration::ZERO,
};
const CACHED: Rules = Rules {
    cache_ttl: Duration::from_secs(5),
    ..RULES
};
const AWAY: StoreError = StoreError::Redis(Failure::Away);

fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// A ring of keys that are one letter each.
fn ring(letters: &str) -> KeyRing {
    let keys = letters.chars().map(|letter| {
        let text = String::from_iter([letter; 42]) + "A";
        SealingKey::parse(&text).unwrap()
    });
    KeyRing::new(&keys.collect::<Vec<_>>()).unwrap()
}

fn store(redis: &Redis, rules: Rules, clock: &Clock) -> StoredSessions {
    StoredSessions::new(redis.clone(), ring("a"), rules, clock.clone())
}

fn record(user: &str, number: usize) -> Record {
    Record {
        session: SealedSession {
            access_token: secret(&format!("secret-access-{number}")),
            refresh_token: Some(secret(&format!("secret-refresh-{number}"))),
            expires_at: NOW + 3600,
            created_at: NOW,
            seen_at: NOW,
        },
        user: user.into(),
        provider_session: Some(format!("session-{number}").into()),
    }
}

async fn found(store: &StoredSessions, id: &SessionId) -> Option<Record> {
    let found = store.read(id).await.unwrap();
    found.map(|found| found.record.clone())
}

async fn must(store: &StoredSessions, id: &SessionId) -> Arc<Found> {
    store.read(id).await.unwrap().expect("there is no session")
}

async fn names(redis: &Redis) -> Vec<String> {
    let mut keys = cmd("KEYS");
    keys.arg("*");
    redis.ask(keys).await.unwrap()
}

async fn expire(redis: &Redis, name: &str, millis: u64) {
    let mut command = cmd("PEXPIRE");
    command.arg(name).arg(millis);
    assert_eq!(redis.ask::<i64>(command).await, Ok(1));
}

async fn set(redis: &Redis, name: &str, value: &[u8]) {
    let mut command = cmd("SET");
    command.arg(name).arg(value);
    redis.ask::<()>(command).await.unwrap();
}

/// About so many milliseconds, of which the test has taken some.
fn about(left: i64, expected: Duration) {
    let expected = i64::try_from(expected.as_millis()).unwrap();
    assert!(
        (expected - 10_000..=expected).contains(&left),
        "{left} of {expected}"
    );
}

#[test]
fn a_session_comes_back_as_it_was_and_redis_holds_nothing_to_read() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, RULES, &Clock::frozen(NOW));
        let record = record("main/ada@example.com", 1);
        let id = store.create(&record).await.unwrap();
        let other = store.create(&record).await.unwrap();
        assert_ne!(id, other);
        assert_eq!(found(&store, &id).await, Some(record.clone()));
        // As the next request brings it.
        let again = SessionId::parse(id.text().expose().as_bytes()).unwrap();
        assert_eq!(found(&store, &again).await, Some(record));

        let names = names(&redis).await;
        assert_eq!(names.len(), 3, "{names:?}");
        let mut all = names.join("\n").into_bytes();
        for name in names.iter().filter(|name| name.contains(":session:")) {
            all.extend(get(&redis, name).await.unwrap());
        }
        let all = String::from_utf8_lossy(&all).into_owned();
        for word in [
            "secret-",
            "ada@",
            "session-1",
            id.text().expose(),
            other.text().expose(),
        ] {
            assert!(!all.contains(word), "{word} in {all}");
        }
        assert!(!format!("{store:?} {id:?} {:?}", store.read(&id).await).contains("secret-"));
    });
}

#[test]
fn what_is_unknown_foreign_or_sealed_by_a_removed_key_is_no_session() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let store = store(&redis, RULES, &clock);
        let (ada, grace) = (record("ada", 1), record("grace", 2));
        let (ada, grace) = (
            store.create(&ada).await.unwrap(),
            store.create(&grace).await.unwrap(),
        );
        let nobody = SessionId::parse("A".repeat(43).as_bytes()).unwrap();
        assert_eq!(found(&store, &nobody).await, None);

        // A ring where the key is not the first opens it, one without it does not.
        let of = |letters| StoredSessions::new(redis.clone(), ring(letters), RULES, clock.clone());
        assert!(found(&of("ba"), &ada).await.is_some());
        let unopened = async |store: &StoredSessions, id: &SessionId| {
            matches!(store.read(id).await, Err(StoreError::Unopened))
        };
        assert!(unopened(&of("b"), &ada).await);

        // Who writes to Redis cannot make one person another.
        let sealed = get(&redis, &store.name(&grace)).await.unwrap();
        set(&redis, &store.name(&ada), &sealed).await;
        assert!(unopened(&store, &ada).await);
        for garbage in [&b""[..], b"x", &sealed[..20], &[&sealed[..], b"x"].concat()] {
            set(&redis, &store.name(&grace), garbage).await;
            assert!(unopened(&store, &grace).await);
        }
    });
}

#[test]
fn a_session_that_is_used_lives_on_and_one_that_is_not_ends() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let store = store(&redis, RULES, &clock);
        let id = store.create(&record("ada", 1)).await.unwrap();
        let name = store.name(&id);
        let week = RULES.idle_timeout;
        about(life(&redis, &name).await, week);

        // Nine tenths and more are left as they are.
        expire(&redis, &name, 7 * DAY * 910).await;
        assert!(found(&store, &id).await.is_some());
        about(life(&redis, &name).await, week.mul_f64(0.91));
        expire(&redis, &name, 7 * DAY * 890).await;
        assert!(found(&store, &id).await.is_some());
        about(life(&redis, &name).await, week);

        // Near its end it lives no longer than that.
        clock.advance(Duration::from_secs(29 * DAY));
        assert!(found(&store, &id).await.is_some());
        about(life(&redis, &name).await, Duration::from_secs(DAY));
        clock.advance(Duration::from_secs(DAY - 1));
        assert!(found(&store, &id).await.is_some());
        clock.advance(Duration::from_secs(1));
        assert_eq!(found(&store, &id).await, None);

        let brief = Rules {
            idle_timeout: Duration::from_millis(200),
            ..RULES
        };
        let clock = Clock::frozen(NOW);
        let store = StoredSessions::new(redis.clone(), ring("a"), brief, clock.clone());
        let id = store.create(&record("ada", 2)).await.unwrap();
        let until = Instant::now() + PATIENCE;
        while get(&redis, &store.name(&id)).await.is_some() {
            assert!(Instant::now() < until, "it never ends");
        }
        assert_eq!(found(&store, &id).await, None);
        // One that is over before it has begun, and one of nobody.
        clock.advance(Duration::from_secs(30 * DAY));
        let late = store.create(&record("ada", 3)).await;
        assert_eq!(late.unwrap_err(), StoreError::Over);
        let nobody = store.create(&record("", 3)).await;
        assert_eq!(nobody.unwrap_err(), StoreError::Over);
    });
}

#[test]
fn what_no_provider_gives_is_not_stored() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, RULES, &Clock::frozen(NOW));
        let mut large = record("ada", 1);
        large.session.access_token = secret(&"x".repeat(70_000));
        for record in [record("", 1), large] {
            let error = store.create(&record).await.unwrap_err();
            assert_eq!(error, StoreError::Unstorable);
        }
        assert_eq!(names(&redis).await, [""; 0]);
    });
}

#[test]
fn the_session_that_follows_has_the_life_that_was_left() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, RULES, &Clock::frozen(NOW));
        let id = store.create(&record("ada", 1)).await.unwrap();
        let old = must(&store, &id).await;
        expire(&redis, &store.name(&id), 100_000).await;
        let replaced = store.replace(&id, &old, &record("ada", 2)).await;
        assert_eq!(replaced, Ok(Replaced::Done));
        about(
            life(&redis, &store.name(&id)).await,
            Duration::from_secs(100),
        );
        assert_eq!(found(&store, &id).await, Some(record("ada", 2)));
    });
}

#[test]
fn a_logout_wins_over_a_renewal_that_comes_late() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, CACHED, &Clock::frozen(NOW));
        let id = store.create(&record("ada", 1)).await.unwrap();
        let old = must(&store, &id).await;
        let ended = store.delete(&id).await.unwrap();
        assert_eq!(ended, Some(record("ada", 1)));
        let replaced = store.replace(&id, &old, &record("ada", 2)).await;
        assert_eq!(replaced, Ok(Replaced::Gone));
        assert_eq!(found(&store, &id).await, None);
        assert_eq!(names(&redis).await, [""; 0]);
        assert_eq!(store.delete(&id).await, Ok(None));
    });
}

#[test]
fn a_renewal_that_comes_late_does_not_undo_a_later_one() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let (here, there) = (store(&redis, CACHED, &clock), store(&redis, RULES, &clock));
        let id = here.create(&record("ada", 1)).await.unwrap();
        let (first, second) = (must(&here, &id).await, must(&there, &id).await);
        let replaced = there.replace(&id, &second, &record("ada", 2)).await;
        assert_eq!(replaced, Ok(Replaced::Done));
        let replaced = here.replace(&id, &first, &record("ada", 9)).await;
        assert_eq!(replaced, Ok(Replaced::Changed));
        assert_eq!(found(&here, &id).await, Some(record("ada", 2)));
        let third = must(&here, &id).await;
        let replaced = here.replace(&id, &third, &record("ada", 3)).await;
        assert_eq!(replaced, Ok(Replaced::Done));
        assert_eq!(found(&there, &id).await, Some(record("ada", 3)));
    });
}

#[test]
fn all_sessions_of_one_user_end_and_nobody_elses() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, CACHED, &Clock::frozen(NOW));
        // Three batches and some.
        let mut ids = Vec::new();
        for number in 0..200 {
            ids.push(store.create(&record("ada", number)).await.unwrap());
        }
        let grace = store.create(&record("grace", 1000)).await.unwrap();
        // One that is over, one that no key opens any more, one that was read a moment ago.
        let mut delete = cmd("DEL");
        delete.arg(store.name(&ids[0]));
        assert_eq!(redis.ask::<i64>(delete).await, Ok(1));
        set(&redis, &store.name(&ids[1]), b"sealed by somebody else").await;
        assert!(found(&store, &ids[150]).await.is_some());

        let kept = &ids[7];
        let ended = store.delete_all_of("ada", Some(kept)).await;
        assert_eq!(ended.complete, Ok(()));
        let told: HashSet<String> = ended
            .provider_sessions
            .iter()
            .map(|s| s.to_string())
            .collect();
        let expected = (2..200).filter(|number| *number != 7);
        assert_eq!(told, expected.map(|n| format!("session-{n}")).collect());
        assert_eq!(ended.provider_sessions.len(), told.len());
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(found(&store, id).await.is_some(), number == 7, "{number}");
        }
        assert!(found(&store, &grace).await.is_some());

        let ended = store.delete_all_of("ada", None).await;
        assert_eq!(ended.provider_sessions, [Box::from("session-7")]);
        assert_eq!(found(&store, kept).await, None);
        let ended = store.delete_all_of("ada", None).await;
        assert!(ended.provider_sessions.is_empty() && ended.complete.is_ok());
        assert_eq!(names(&redis).await.len(), 2, "grace and her index");
    });
}

#[test]
fn the_index_of_a_user_is_bounded_and_what_falls_out_of_it_ends() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let store = store(&redis, RULES, &clock);
        let mut ids = Vec::new();
        for number in 0..1003 {
            let mut record = record("ada", number);
            record.session.created_at = clock.unix();
            ids.push(store.create(&record).await.unwrap());
            clock.advance(Duration::from_secs(1));
        }
        for (number, id) in ids.iter().enumerate() {
            let is_there = get(&redis, &store.name(id)).await.is_some();
            assert_eq!(is_there, number >= 3, "{number}");
        }
        let index = names(&redis).await;
        let index = index.iter().find(|name| name.contains(":user:")).unwrap();
        about(life(&redis, index).await, RULES.max_age);
        // What is over makes room by itself.
        clock.advance(Duration::from_secs(29 * DAY + DAY - 500));
        let mut last = record("ada", 2000);
        last.session.created_at = clock.unix();
        let last = store.create(&last).await.unwrap();
        let mut count = cmd("ZCARD");
        count.arg(index);
        let left = redis.ask::<i64>(count).await.unwrap();
        assert!((400..700).contains(&left), "{left}");
        let ended = store.delete_all_of("ada", None).await;
        assert!(ended.complete.is_ok());
        assert_eq!(found(&store, &last).await, None);
    });
}

#[test]
fn two_gateways_that_take_one_session_over_make_one_record() {
    run(async || {
        let server = RedisServer::start();
        let clock = Clock::frozen(NOW);
        let (first, second) = (server.connect().await, server.connect().await);
        for round in 0..20 {
            let token = secret(&format!("token-{round}"));
            let made = async |redis: &Redis, number: usize| {
                let store = store(redis, RULES, &clock);
                let made = store.create_once(&token, &record("ada", number)).await;
                made.unwrap()
            };
            let (here, there) = tokio::join!(made(&first, 1), made(&second, 2));
            assert_eq!(here.0, there.0);
            assert_ne!(here.1, there.1, "one of them has stored it");
            let stored = found(&store(&first, RULES, &clock), &here.0).await;
            let number = if here.1 { 1 } else { 2 };
            assert_eq!(stored, Some(record("ada", number)));
        }
        let store = store(&first, RULES, &clock);
        let with = async |token: &str, user: &str| {
            let token = secret(token);
            store.create_once(&token, &record(user, 1)).await.unwrap()
        };
        let (id, new) = with("token-0", "ada").await;
        assert!(!new);
        assert_ne!(with("token-x", "ada").await.0, id);
        assert_ne!(with("token-0", "grace").await.0, id);
        // Who has another first key cannot tell the id.
        let stranger = StoredSessions::new(first.clone(), ring("b"), RULES, clock.clone());
        let token = secret("token-0");
        let other = stranger.create_once(&token, &record("ada", 1)).await;
        assert_ne!(other.unwrap().0, id);
    });
}

#[test]
fn what_was_read_is_trusted_for_its_time_and_no_longer() {
    run(async || {
        let mut server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let (cached, asking) = (store(&redis, CACHED, &clock), store(&redis, RULES, &clock));
        let id = cached.create(&record("ada", 1)).await.unwrap();
        let other = cached.create(&record("ada", 2)).await.unwrap();
        assert!(found(&cached, &id).await.is_some());
        assert!(found(&asking, &id).await.is_some());
        server.stop();
        soon(|| redis.is_away()).await;
        assert!(found(&cached, &id).await.is_some());
        assert_eq!(asking.read(&id).await.unwrap_err(), AWAY);
        assert_eq!(cached.read(&other).await.unwrap_err(), AWAY);
        clock.advance(CACHED.cache_ttl - Duration::from_millis(1));
        assert!(found(&cached, &id).await.is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(cached.read(&id).await.unwrap_err(), AWAY);
    });
}

#[test]
fn a_session_that_ends_or_changes_is_read_again() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        let clock = Clock::frozen(NOW);
        let (here, there) = (store(&redis, CACHED, &clock), store(&redis, CACHED, &clock));
        let id = here.create(&record("ada", 1)).await.unwrap();
        let old = must(&here, &id).await;
        must(&there, &id).await;
        here.replace(&id, &old, &record("ada", 2)).await.unwrap();
        assert_eq!(found(&here, &id).await, Some(record("ada", 2)));
        assert_eq!(found(&there, &id).await, Some(record("ada", 1)));
        there.forget("tollhouse:session:nonsense");
        there.forget(&there.name(&id));
        assert_eq!(found(&there, &id).await, Some(record("ada", 2)));

        assert!(here.delete(&id).await.unwrap().is_some());
        assert_eq!(found(&here, &id).await, None);
        // Not told, and told.
        assert!(found(&there, &id).await.is_some());
        there.forget(&here.name(&id));
        assert_eq!(found(&there, &id).await, None);
    });
}

#[test]
fn without_redis_there_is_no_telling() {
    run(async || {
        let mut server = RedisServer::start();
        let redis = server.connect().await;
        let store = store(&redis, CACHED, &Clock::frozen(NOW));
        let id = store.create(&record("ada", 1)).await.unwrap();
        let old = must(&store, &id).await;
        server.stop();
        soon(|| redis.is_away()).await;
        assert_eq!(store.create(&record("ada", 2)).await.unwrap_err(), AWAY);
        let once = store.create_once(&secret("x"), &record("ada", 2)).await;
        assert_eq!(once.unwrap_err(), AWAY);
        let replaced = store.replace(&id, &old, &record("ada", 2)).await;
        assert_eq!(replaced.unwrap_err(), AWAY);
        assert_eq!(store.delete(&id).await.unwrap_err(), AWAY);
        // What was to be deleted is not trusted any more, although it was read.
        assert_eq!(store.read(&id).await.unwrap_err(), AWAY);
        let ended = store.delete_all_of("ada", None).await;
        assert_eq!(ended.complete, Err(AWAY));
    });
}

#[test]
fn a_logout_whose_client_has_gone_is_carried_out() {
    let server = RedisServer::start();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let (control, worker) = (runtime(), runtime());
    let redis = control.block_on(server.connect());
    let store = store(&redis, CACHED, &Clock::frozen(NOW));
    let (one, two) = control.block_on(async {
        let one = store.create(&record("ada", 1)).await.unwrap();
        let two = store.create(&record("grace", 2)).await.unwrap();
        must(&store, &one).await;
        must(&store, &two).await;
        (one, two)
    });
    // Polled once on its worker, and dropped before the control runtime had a turn.
    worker.block_on(async {
        let mut delete = std::pin::pin!(store.delete(&one));
        let mut all = std::pin::pin!(store.delete_all_of("grace", None));
        std::future::poll_fn(|cx| {
            assert!(delete.as_mut().poll(cx).is_pending());
            assert!(all.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    });
    control.block_on(async {
        let until = Instant::now() + PATIENCE;
        while found(&store, &one).await.is_some() || found(&store, &two).await.is_some() {
            assert!(Instant::now() < until, "it is still there");
            tokio::task::yield_now().await;
        }
    });
}
