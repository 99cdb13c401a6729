//! What has ended here is told to all that share our Redis, and told again when Redis is back: the other half of
//! [`super::ended_elsewhere`].

use super::ended_elsewhere::{Ended, PAGE, STREAM};
use crate::base::clock::Clock;
use crate::redis::{Failure, Redis};
use ::redis::{Cmd, cmd, pipe};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Entries that are kept; older ones go. As many as a gateway remembers.
const KEPT: usize = 100_000;
/// Waits before what was not told is told again; doubles up to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(500);
const AGAIN_LAST: Duration = Duration::from_secs(10);
/// Tellings that wait for Redis to come back; further ones are given up, and logged.
const PENDING_MAX: usize = 1000;

/// Tells, and remembers what is still to be told. Cheap to clone; what is pending goes on without it, and is lost when the
/// process ends.
#[derive(Clone)]
pub struct Telling {
    redis: Redis,
    clock: Clock,
    pending: Arc<Semaphore>,
}

impl fmt::Debug for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling")
            .field("pending", &self.pending())
            .finish_non_exhaustive()
    }
}

impl Telling {
    /// Nothing pending. The control runtime of `redis` must run for as long as anything is.
    pub fn new(redis: Redis, clock: Clock) -> Self {
        Self {
            redis,
            clock,
            pending: Arc::new(Semaphore::new(PENDING_MAX)),
        }
    }

    /// How many tellings wait for Redis to come back.
    pub fn pending(&self) -> usize {
        PENDING_MAX - self.pending.available_permits()
    }

    /// As [`tell`], and again and again in the background when it fails, for as long as it may matter: until the last of
    /// them is over by itself, in Unix seconds. Says whether it was told at once.
    pub async fn tell_until(&self, ended: Vec<Ended>, until: u64) -> bool {
        let Err(why) = tell(&self.redis, &ended).await else {
            return true;
        };
        let Ok(place) = self.pending.clone().try_acquire_owned() else {
            tracing::error!(%why, "other replicas are not told of a logout: too many wait for that");
            return false;
        };
        tracing::warn!(%why, "other replicas are told of a logout later");
        let (redis, clock) = (self.redis.clone(), self.clock.clone());
        self.redis.control().spawn(async move {
            let _place = place;
            let mut wait = AGAIN_FIRST;
            while clock.unix() < until {
                sleep(wait).await;
                if tell(&redis, &ended).await.is_ok() {
                    return;
                }
                wait = (wait * 2).min(AGAIN_LAST);
            }
        });
        false
    }
}

/// Tells all gateways, this one among them. After an error some may have been told.
///
/// Cancel-safe: what was begun goes on; each page of 500 takes at most as long as one command may.
pub async fn tell(redis: &Redis, ended: &[Ended]) -> Result<(), Failure> {
    for page in ended.chunks(PAGE) {
        let mut commands = pipe();
        for one in page {
            commands.add_command(add(one)).ignore();
        }
        redis.ask_all::<()>(commands).await?;
    }
    Ok(())
}

fn add(ended: &Ended) -> Cmd {
    let mut command = cmd("XADD");
    command
        .arg(STREAM)
        .arg("MAXLEN")
        .arg("~")
        .arg(KEPT)
        .arg("*");
    match ended {
        Ended::Session {
            provider,
            session,
            until,
        } => command
            .arg("provider")
            .arg(&**provider)
            .arg("session")
            .arg(&**session)
            .arg("until")
            .arg(*until),
        Ended::Record { name } => command.arg("record").arg(&**name),
    };
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::{Address, Reach, Settings};
    use tokio::runtime::Handle;

    const NOW: u64 = 1_000_000;

    /// To a Redis that never comes.
    fn telling(clock: &Clock) -> Telling {
        let settings = Settings {
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port: 9,
                tls: false,
            },
            username: None,
            password: None,
            database: 0,
            timeout: Duration::from_millis(100),
            ca_file: None,
        };
        let redis = Redis::start_for(Reach::None, &settings, Handle::current()).unwrap();
        Telling::new(redis, clock.clone())
    }

    fn record() -> Vec<Ended> {
        vec![Ended::Record { name: "r".into() }]
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_wait_and_each_until_it_matters_no_more() {
        let clock = Clock::frozen(NOW);
        let (full, other) = (telling(&clock), telling(&clock));
        for number in 0..PENDING_MAX + 10 {
            let until = NOW + if number < 10 { 100 } else { 200 };
            assert!(!full.tell_until(record(), until).await);
        }
        assert_eq!(full.pending(), PENDING_MAX);
        // What waits for one Redis takes no place from another.
        assert!(!other.tell_until(record(), NOW + 100).await);
        assert_eq!((full.pending(), other.pending()), (PENDING_MAX, 1));
        for (passes, left) in [(99, PENDING_MAX), (1, PENDING_MAX - 10), (100, 0)] {
            clock.advance(Duration::from_secs(passes));
            sleep(AGAIN_LAST * 2).await;
            assert_eq!(full.pending(), left);
        }
        assert_eq!(other.pending(), 0);
    }

    #[tokio::test]
    async fn nothing_is_told_at_once() {
        assert!(
            telling(&Clock::frozen(NOW))
                .tell_until(Vec::new(), NOW)
                .await
        );
    }
}
