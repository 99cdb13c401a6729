//! Keeps the connection: makes it, watches it, and makes it again. One task on the control runtime.

use super::State;
use super::dial::{DialError, Driver, Target, ping};
use crate::base::cause;
use ::redis::aio::MultiplexedConnection;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// Before the second attempt; doubles with each up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LAST_WAIT: Duration = Duration::from_secs(2);
/// Longest attempt. A Redis that hangs is noticed again when it goes on.
const ATTEMPT_MAX: Duration = Duration::from_secs(3);
/// A connection that did not live for so long is not made again at once.
const SHORT_LIFE: Duration = Duration::from_secs(5);
/// How often a connection is asked whether it lives when no command has cast doubt on it.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Shortest time for that answer, however little commands have: a busy machine is not an outage.
const PATIENCE_MIN: Duration = Duration::from_millis(500);

pub(super) struct Keeper {
    target: Target,
    /// Longest time for a command.
    timeout: Duration,
    state: watch::Sender<State>,
    suspicion: Arc<Notify>,
    /// The last that the log was told: it is away.
    told: bool,
    wait: Duration,
}

impl Keeper {
    pub(super) fn new(
        target: Target,
        timeout: Duration,
        state: watch::Sender<State>,
        suspicion: Arc<Notify>,
    ) -> Self {
        Self {
            target,
            timeout,
            state,
            suspicion,
            told: false,
            wait: FIRST_WAIT,
        }
    }

    /// Until it is dropped, and the connection with it.
    pub(super) async fn run(mut self) {
        loop {
            let (connection, mut driver) = self.connect().await;
            let since = Instant::now();
            self.state.send_replace(State::Up(connection.clone()));
            if std::mem::take(&mut self.told) {
                tracing::info!("Redis is back");
            } else {
                tracing::debug!("connected to Redis");
            }
            let why = self.watch(connection, &mut driver).await;
            // Whoever waits for an answer learns of it when the driver goes.
            drop(driver);
            self.tell(&why);
            if since.elapsed() < SHORT_LIFE {
                self.state.send_replace(State::Away);
                self.pause().await;
            } else {
                self.wait = FIRST_WAIT;
                self.state.send_replace(State::Connecting);
            }
        }
    }

    async fn connect(&mut self) -> (MultiplexedConnection, Driver) {
        loop {
            let error = {
                let limit = ATTEMPT_MAX.max(self.timeout);
                let mut attempt = pin!(timeout(limit, self.target.connect(limit)));
                let outcome = match timeout(self.timeout, &mut attempt).await {
                    Ok(outcome) => outcome,
                    // Commands do not wait longer than that. It may come about all the same.
                    Err(_) => {
                        away(&self.state);
                        attempt.await
                    }
                };
                match outcome {
                    Ok(Ok(made)) => return made,
                    Ok(Err(error)) => error,
                    Err(_) => late(),
                }
            };
            away(&self.state);
            self.tell(&error);
            self.pause().await;
        }
    }

    /// Until the connection is lost or says nothing.
    async fn watch(&self, mut connection: MultiplexedConnection, driver: &mut Driver) -> DialError {
        let lost = || DialError::Io(std::io::ErrorKind::ConnectionReset.into());
        loop {
            tokio::select! {
                () = &mut *driver => return lost(),
                () = self.suspicion.notified() => {}
                () = sleep(HEARTBEAT) => {}
            }
            let patience = self.timeout.max(PATIENCE_MIN);
            tokio::select! {
                () = &mut *driver => return lost(),
                answer = timeout(patience, ping(&mut connection)) => match answer {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return error,
                    Err(_) => return late(),
                },
            }
        }
    }

    /// Once for each time that it goes away.
    fn tell(&mut self, why: &DialError) {
        if !std::mem::replace(&mut self.told, true) {
            let why = cause::chain(why);
            tracing::error!(why, "Redis is away");
        }
    }

    async fn pause(&mut self) {
        sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LAST_WAIT);
    }
}

fn late() -> DialError {
    DialError::Io(std::io::ErrorKind::TimedOut.into())
}

fn away(state: &watch::Sender<State>) {
    state.send_if_modified(|state| {
        let news = !matches!(state, State::Away);
        *state = State::Away;
        news
    });
}
