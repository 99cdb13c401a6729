//! The one connection of the process to Redis 6 or later, or Valkey: stored sessions, what replicas tell each other, shared
//! limits. It comes back by itself, and while it is away whoever asks is told so at once. No cluster.
//!
//! Of the crate `redis` only the wire is used: commands, replies, and a multiplexer that takes any stream. So sockets,
//! TLS (rustls with aws-lc-rs, no other), reconnection and every bound are ours and stand in this folder. `fred` was the
//! other choice: it has a router of its own between the caller and the socket, with its own queue, retries and back-off,
//! to be switched off one by one.
//!
//! The socket is driven on the control runtime, and so is every command: once sent it does not depend on whoever asked.

mod dial;
mod keeper;
mod reach;
mod settings;

pub use reach::Reach;
pub use settings::{Address, Settings, SetupError};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation};
use dial::Target;
use keeper::Keeper;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Commands under way at the same time, those that wait for a connection among them. A Redis that is well answers so many
/// in some 40 ms; what comes beyond is refused as if it were away.
const COMMANDS_MAX: usize = 4096;
/// How much longer than a command may take its answer is awaited: for a control runtime that is stuck.
const GRACE: Duration = Duration::from_millis(50);
/// How often at most the log is told that Redis refuses commands, in seconds.
const REFUSALS_EVERY: u64 = 10;
/// Letters of an error code that are kept.
const CODE_MAX: usize = 32;

/// Why a command has no answer. Whether it was carried out is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Not connected, lost on the way, no answer in time, or too many commands under way.
    #[error("Redis is away")]
    Away,
    /// It answered, and does not do it.
    #[error("Redis refused a command: {code}")]
    Refused {
        /// Its word for why: `OOM`, `READONLY`, `NOPERM`, `ERR`. Never its sentence, which may repeat what was sent.
        code: Box<str>,
    },
}

/// The handle. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    reach: Reach,
    state: watch::Receiver<State>,
    /// Told when an answer did not come in time: the connection may be dead.
    suspicion: Arc<Notify>,
    room: Arc<Semaphore>,
    timeout: Duration,
    control: Handle,
    start: Instant,
    /// When the log may be told of a refusal again, in seconds since `start`.
    refusals_told: AtomicU64,
    _stop: DropGuard,
}

/// What the keeper says of the connection.
enum State {
    /// It has just been lost, or never was there, and the first attempt is under way.
    Connecting,
    Up(MultiplexedConnection),
    /// An attempt failed, or takes longer than a command may.
    Away,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("away", &self.is_away())
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Starts to connect, on `control`, and does not wait for it: see [`Redis::ready`].
    pub fn start(settings: &Settings, control: Handle) -> Result<Self, SetupError> {
        Self::start_for(Reach::Whole, settings, control)
    }

    /// As [`Redis::start`], for whoever may do only so much there. [`Reach::None`] does not connect.
    pub fn start_for(
        reach: Reach,
        settings: &Settings,
        control: Handle,
    ) -> Result<Self, SetupError> {
        let (state, seen) = watch::channel(match reach {
            Reach::None => State::Away,
            Reach::Reading | Reach::Whole => State::Connecting,
        });
        let (suspicion, stop) = (Arc::<Notify>::default(), CancellationToken::new());
        let keeper = Keeper::new(
            Target::new(settings)?,
            settings.timeout,
            state,
            suspicion.clone(),
        );
        if reach != Reach::None {
            let until = stop.clone();
            control.spawn(async move { until.run_until_cancelled(keeper.run()).await });
        }
        Ok(Self(Arc::new(Inner {
            reach,
            state: seen,
            suspicion,
            room: Arc::new(Semaphore::new(COMMANDS_MAX)),
            timeout: settings.timeout,
            control,
            start: Instant::now(),
            refusals_told: AtomicU64::new(0),
            _stop: stop.drop_guard(),
        })))
    }

    /// Whether commands would be refused or would have to wait. True until the first connection.
    pub fn is_away(&self) -> bool {
        !matches!(*self.0.state.borrow(), State::Up(_))
    }

    /// Waits until it is connected. Has no deadline.
    ///
    /// Cancel-safe.
    pub async fn ready(&self) {
        let mut state = self.0.state.clone();
        let up = state.wait_for(|state| matches!(state, State::Up(_))).await;
        if up.is_err() {
            // The control runtime has ended: it never will be.
            std::future::pending().await
        }
    }

    /// Whether it answers now.
    pub async fn answers(&self) -> bool {
        self.ask::<()>(::redis::cmd("PING")).await.is_ok()
    }

    /// Longest time for one command.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// The runtime on which commands run: what belongs together, and must not be cut in two when a client hangs up, is
    /// one task there.
    pub fn control(&self) -> &Handle {
        &self.0.control
    }

    /// The answer to one command.
    ///
    /// Cancel-safe: the command is sent all the same. Ends within [`Redis::timeout`], at once while Redis is away.
    pub async fn ask<T>(&self, command: Cmd) -> Result<T, Failure>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.0.reach.allows([&command])?;
        self.send(|mut connection| async move { command.query_async::<T>(&mut connection).await })
            .await
    }

    /// The answers to commands that are sent together. When one of them is refused, none is given.
    ///
    /// Cancel-safe and bounded as [`Redis::ask`].
    pub async fn ask_all<T>(&self, commands: Pipeline) -> Result<T, Failure>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.0.reach.allows(commands.cmd_iter())?;
        self.send(|mut connection| async move { commands.query_async::<T>(&mut connection).await })
            .await
    }

    /// What a script returns. One that Redis does not know is loaded first.
    ///
    /// Cancel-safe and bounded as [`Redis::ask`].
    pub async fn run<T>(&self, script: ScriptInvocation<'static>) -> Result<T, Failure>
    where
        T: FromRedisValue + Send + 'static,
    {
        self.0.reach.allows_scripts()?;
        self.send(|mut connection| async move { script.invoke_async::<T>(&mut connection).await })
            .await
    }

    async fn send<T, F>(
        &self,
        question: impl FnOnce(MultiplexedConnection) -> F + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send,
    {
        let inner = &self.0;
        if matches!(*inner.state.borrow(), State::Away) {
            return Err(Failure::Away);
        }
        let Ok(place) = inner.room.clone().try_acquire_owned() else {
            return Err(Failure::Away);
        };
        let end = Instant::now() + inner.timeout;
        let (mut state, suspicion) = (inner.state.clone(), inner.suspicion.clone());
        let task = inner.control.spawn(async move {
            let _place = place;
            let answer = timeout_at(end, async {
                let connection = connected(&mut state).await?;
                question(connection).await.map_err(Failure::of)
            });
            answer.await.unwrap_or_else(|_late| {
                suspicion.notify_one();
                Err(Failure::Away)
            })
        });
        // The task keeps the deadline itself; this one is for a control runtime that is stuck or has ended.
        let answer = match timeout_at(end + GRACE, task).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => Err(Failure::Away),
        };
        if let Err(Failure::Refused { code }) = &answer {
            inner.tell_of_refusal(code);
        }
        answer
    }
}

impl Inner {
    /// Once in a while, however many are refused.
    fn tell_of_refusal(&self, code: &str) {
        let now = self.start.elapsed().as_secs();
        let next = self.refusals_told.load(Ordering::Relaxed);
        let told = &self.refusals_told;
        if now >= next
            && told
                .compare_exchange(
                    next,
                    now + REFUSALS_EVERY,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
        {
            tracing::error!(code, "Redis refuses commands");
        }
    }
}

/// The connection, when it is there or on its way.
async fn connected(state: &mut watch::Receiver<State>) -> Result<MultiplexedConnection, Failure> {
    let settled = state.wait_for(|state| !matches!(state, State::Connecting));
    match settled.await.as_deref() {
        Ok(State::Up(connection)) => Ok(connection.clone()),
        Ok(State::Connecting | State::Away) | Err(_) => Err(Failure::Away),
    }
}

impl Failure {
    fn of(error: RedisError) -> Self {
        if let Some(code) = error.code() {
            return Self::Refused { code: word(code) };
        }
        if error.is_io_error() || error.is_unrecoverable_error() {
            return Self::Away;
        }
        // Of commands that were sent together, the first that was refused.
        let refused = error.into_server_errors();
        let first = refused.as_deref().and_then(<[_]>::first);
        Self::Refused {
            code: first.map_or("an answer of another kind".into(), |(_, e)| word(e.code())),
        }
    }
}

/// An error code, and nothing that is none.
fn word(code: &str) -> Box<str> {
    let letters = code.chars().filter(char::is_ascii_alphanumeric);
    letters.take(CODE_MAX).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::ErrorKind;

    fn settings(port: u16) -> Settings {
        Settings {
            address: Address::Tcp {
                host: "127.0.0.1".into(),
                port,
                tls: false,
            },
            username: None,
            password: None,
            database: 0,
            timeout: Duration::from_millis(100),
            ca_file: None,
        }
    }

    #[test]
    fn failures_say_what_redis_said_in_a_word_and_never_in_a_sentence() {
        let io = RedisError::from(std::io::Error::other("x"));
        assert_eq!(Failure::of(io), Failure::Away);
        let wrong = RedisError::from((ErrorKind::UnexpectedReturnType, "secret-argument"));
        let shown = format!("{:?}", Failure::of(wrong));
        assert!(shown.contains("another kind"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(&*word("OOM"), "OOM");
        assert_eq!(&*word("A'B\n "), "AB");
        assert_eq!(word(&"X".repeat(100)).len(), CODE_MAX);
    }

    #[tokio::test]
    async fn where_nobody_listens_it_is_away_and_says_so_at_once() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let redis = Redis::start(&settings(port), Handle::current()).unwrap();
        assert!(redis.is_away());
        let ping = || redis.ask::<String>(::redis::cmd("PING"));
        // The first may wait for the first attempt.
        assert_eq!(ping().await, Err(Failure::Away));
        let before = Instant::now();
        for _ in 0..100 {
            assert_eq!(ping().await, Err(Failure::Away));
        }
        assert!(before.elapsed() < Duration::from_secs(5), "each would wait");
    }

    #[test]
    fn nobody_waits_for_a_control_runtime_that_is_stuck_or_gone() {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let (control, worker) = (runtime(), runtime());
        let redis = Redis::start(&settings(1), control.handle().clone()).unwrap();
        let ping = || worker.block_on(redis.ask::<String>(::redis::cmd("PING")));
        assert_eq!(ping(), Err(Failure::Away));
        drop(control);
        assert_eq!(ping(), Err(Failure::Away));
    }

    #[tokio::test]
    async fn no_more_commands_wait_than_may() {
        // Accepts, and never says anything.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(silent.local_addr().unwrap().port());
        settings.timeout = Duration::from_secs(60);
        let redis = Redis::start(&settings, Handle::current()).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..COMMANDS_MAX {
            let redis = redis.clone();
            waiting.push(tokio::spawn(async move {
                redis.ask::<String>(::redis::cmd("PING")).await
            }));
        }
        while redis.0.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let one_more = redis.ask::<String>(::redis::cmd("PING")).await;
        assert_eq!(one_more, Err(Failure::Away));
        assert!(waiting.iter().all(|task| !task.is_finished()));
    }
}
