//! What has ended at one gateway and is heard at the others, through a real Redis.

use crate::support::redis::{RedisServer, run, soon};
use crate::support::{Identity, NOW, PATIENCE};
use ::redis::cmd;
use parking_lot::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Handle};
use tollhouse::base::clock::Clock;
use tollhouse::config::{self, Options};
use tollhouse::redis::{Failure, Redis};
use tollhouse::token::ended_elsewhere::{Ended, Hearing};
use tollhouse::token::tell_elsewhere::tell;
use tollhouse::token::{Reason, TokenError, Tokens};

fn session(number: usize) -> Ended {
    Ended::Session {
        provider: "main".into(),
        session: format!("s{number}").into(),
        until: NOW + 3600,
    }
}

fn sessions(numbers: impl IntoIterator<Item = usize>) -> Vec<Ended> {
    numbers.into_iter().map(session).collect()
}

/// Somebody who listens, and what was heard.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Ended>>>);

impl Heard {
    fn at(&self, redis: &Redis) -> Hearing {
        let heard = self.0.clone();
        Hearing::start(redis.clone(), Clock::frozen(NOW), move |ended| {
            heard.lock().push(ended);
        })
    }

    /// Waits until it is exactly this.
    async fn becomes(&self, expected: &[Ended]) {
        let until = Instant::now() + PATIENCE;
        while *self.0.lock() != expected {
            if Instant::now() >= until {
                let heard = self.0.lock();
                panic!("{}, the last of them {:?}", heard.len(), heard.last());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn add(redis: &Redis, id: &str, fields: &[&str]) {
    let mut command = cmd("XADD");
    command.arg("tollhouse:ended").arg(id).arg(fields);
    redis.ask::<()>(command).await.unwrap();
}

async fn add_session(redis: &Redis, id: &str, number: usize) {
    let (name, until) = (format!("s{number}"), (NOW + 3600).to_string());
    let fields = ["provider", "main", "session", &name, "until", &until];
    add(redis, id, &fields).await;
}

#[test]
fn what_one_gateway_tells_all_hear_in_its_order() {
    run(async || {
        let server = RedisServer::start();
        let (here, there) = (server.connect().await, server.connect().await);
        let (heard_here, heard_there) = (Heard::default(), Heard::default());
        let _here = heard_here.at(&here);
        let _listener = heard_there.at(&there);
        tell(&here, &sessions([1])).await.unwrap();
        heard_there.becomes(&sessions([1])).await;
        let record = Ended::Record {
            name: "tollhouse:session:x".into(),
        };
        let more = [session(2), record.clone(), session(3)];
        tell(&here, &more).await.unwrap();
        let all = [session(1), session(2), record, session(3)];
        heard_there.becomes(&all).await;
        heard_here.becomes(&all).await;
        assert_eq!(tell(&here, &[]).await, Ok(()));
    });
}

#[test]
fn whoever_starts_hears_what_ended_before_page_by_page() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        // So many pages that one at a time would take longer than anybody waits here.
        let many = 20_003;
        tell(&redis, &sessions(0..many)).await.unwrap();
        let late = Heard::default();
        let _listener = late.at(&redis);
        late.becomes(&sessions(0..many)).await;
        tell(&redis, &sessions([many])).await.unwrap();
        late.becomes(&sessions(0..=many)).await;
    });
}

#[test]
fn what_says_nothing_is_skipped() {
    run(async || {
        let server = RedisServer::start();
        let redis = server.connect().await;
        add_session(&redis, "1-1", 1).await;
        add(&redis, "1-2", &["provider", "main"]).await;
        add(&redis, "1-3", &["session", "x", "until", "never"]).await;
        let over = (NOW - 1000).to_string();
        let fields = ["provider", "main", "session", "x", "until", &over];
        add(&redis, "1-4", &fields).await;
        add_session(&redis, "1-5", 2).await;
        let heard = Heard::default();
        let _listener = heard.at(&redis);
        heard.becomes(&sessions([1, 2])).await;
    });
}

#[test]
fn after_an_outage_it_goes_on_where_it_stopped() {
    run(async || {
        let server = RedisServer::start();
        let (redis, other) = (server.connect().await, server.connect().await);
        let heard = Heard::default();
        let _listener = heard.at(&redis);
        add_session(&other, "5-1", 1).await;
        heard.becomes(&sessions([1])).await;
        for number in 2..5 {
            let mut kill = cmd("CLIENT");
            kill.arg("KILL").arg("TYPE").arg("normal");
            kill.arg("SKIPME").arg("yes");
            assert_eq!(other.ask::<i64>(kill).await, Ok(1));
            add_session(&other, &format!("5-{number}"), number).await;
            heard.becomes(&sessions(1..=number)).await;
        }
    });
}

#[test]
fn a_stream_that_began_anew_is_read_from_its_beginning() {
    run(async || {
        let mut server = RedisServer::start();
        let (redis, other) = (server.connect().await, server.connect().await);
        let heard = Heard::default();
        let _listener = heard.at(&redis);
        add_session(&other, "9000-5", 1).await;
        heard.becomes(&sessions([1])).await;
        // Emptied, and filled again before anybody looked: with places that were read already.
        let mut all = ::redis::pipe();
        all.atomic().cmd("DEL").arg("tollhouse:ended");
        let fields = ["provider", "main", "session", "s2", "until", "9999999999"];
        all.cmd("XADD")
            .arg("tollhouse:ended")
            .arg("7-1")
            .arg(&fields);
        other.ask_all::<()>(all).await.unwrap();
        let second = Ended::Session {
            provider: "main".into(),
            session: "s2".into(),
            until: 9_999_999_999,
        };
        heard.becomes(&[session(1), second.clone()]).await;
        // Emptied, and seen to be.
        server.stop();
        soon(|| redis.is_away() && other.is_away()).await;
        server.start_again();
        other.ready().await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        add_session(&other, "3-1", 3).await;
        heard.becomes(&[session(1), second, session(3)]).await;
    });
}

#[test]
fn nothing_reads_on_when_its_owner_has_gone() {
    run(async || {
        let server = RedisServer::start();
        let watcher = server.connect().await;
        let connected = async || {
            let mut list = cmd("CLIENT");
            list.arg("LIST");
            let text = watcher.ask::<String>(list).await.unwrap();
            text.lines().count()
        };
        let heard = Heard::default();
        let listener = heard.at(&server.connect().await);
        add_session(&watcher, "1-1", 1).await;
        heard.becomes(&sessions([1])).await;
        assert_eq!(connected().await, 2);
        drop(listener);
        let until = Instant::now() + PATIENCE;
        while connected().await > 1 || Arc::strong_count(&heard.0) > 1 {
            assert!(Instant::now() < until, "it reads on");
        }
    });
}

#[test]
fn without_redis_nobody_can_be_told_and_whoever_tells_learns_of_it() {
    run(async || {
        let mut server = RedisServer::start();
        let redis = server.connect().await;
        server.stop();
        soon(|| redis.is_away()).await;
        assert_eq!(tell(&redis, &sessions([1])).await, Err(Failure::Away));
    });
}

#[test]
fn a_session_that_was_ended_at_one_gateway_is_refused_at_another() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let control = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let server = RedisServer::start();
    let tokens = || {
        let text = format!(
            "{}[[routes]]\npath = \"/\"\nrespond = {{ body = \"hi\" }}\n",
            identity.tables()
        );
        let environment = config::interpolate::ProcessEnvironment::default();
        let options = Options {
            placeholders: false,
        };
        let config = config::load(&text, Path::new("test.toml"), &environment, options)
            .unwrap_or_else(|problems| panic!("the test's file is wrong:\n{problems}"));
        let tokens = Tokens::new(&config.providers, clock.clone(), Handle::current(), None);
        Arc::new(tokens.unwrap())
    };
    control.block_on(async {
        let gateway = async || {
            let (tokens, redis) = (tokens(), server.connect().await);
            let hearing = tokens.clone();
            let ended = Hearing::start(redis.clone(), clock.clone(), move |ended| {
                if let Ended::Session {
                    provider,
                    session,
                    until,
                } = ended
                    && let Some(index) = hearing.index(&provider)
                {
                    hearing.end_session(index, &session, until);
                }
            });
            (tokens, redis, ended)
        };
        let (here, there) = (gateway().await, gateway().await);
        let (token, other) = (
            identity.token("ada@example.com"),
            identity.token("ada@example.com"),
        );
        let ada = here.0.verify(token.as_bytes()).await.unwrap();
        assert!(there.0.verify(token.as_bytes()).await.is_ok());
        let ended = Ended::Session {
            provider: (&*ada.provider).into(),
            session: ada.session_id.as_deref().unwrap().into(),
            until: ada.expires_at,
        };
        tell(&here.1, &[ended]).await.unwrap();
        soon(|| there.0.is_ended(&ada) && here.0.is_ended(&ada)).await;
        let refused = there.0.verify(token.as_bytes()).await.unwrap_err();
        let reason = Reason::SessionEnded;
        assert!(
            matches!(refused, TokenError::Refused { reason: r, .. } if r == reason),
            "{refused}"
        );
        assert!(there.0.verify(other.as_bytes()).await.is_ok());
    });
}
