//! Coarse deadlines that cost two atomic stores to set. A worker has one [`Sweeper`]; it looks at every armed
//! deadline ten times a second and wakes those that have passed, so that no request needs a timer of its own.

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// How often deadlines are looked at; also how late one may fire.
pub const TICK: Duration = Duration::from_millis(100);

const DISARMED: u64 = u64::MAX;

/// Looks after the deadlines of one worker.
#[derive(Debug)]
pub struct Sweeper {
    start: Instant,
    /// Milliseconds since `start` at the last tick.
    now: AtomicU64,
    deadlines: Mutex<Vec<Weak<Inner>>>,
}

#[derive(Debug)]
struct Inner {
    /// Milliseconds since the sweeper's start, or `DISARMED`.
    at: AtomicU64,
    waker: AtomicWaker,
}

/// A moment that can be set and set again. One task waits on it at a time.
#[derive(Clone, Debug)]
pub struct Deadline {
    inner: Arc<Inner>,
    sweeper: Arc<Sweeper>,
}

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Elapsed;

impl Sweeper {
    /// A sweeper whose [`Sweeper::run`] the caller spawns on the worker.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            now: AtomicU64::new(0),
            deadlines: Mutex::default(),
        })
    }

    /// Sweeps until it is dropped. Runs as one task of the worker.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            self.sweep();
        }
    }

    /// A fresh deadline, not armed. Made once for each connection, not for each request.
    pub fn deadline(self: &Arc<Self>) -> Deadline {
        let inner = Arc::new(Inner {
            at: AtomicU64::new(DISARMED),
            waker: AtomicWaker::new(),
        });
        self.deadlines.lock().push(Arc::downgrade(&inner));
        Deadline {
            inner,
            sweeper: self.clone(),
        }
    }

    /// Wakes every task that waits on a deadline, so that it looks at the world again: used when a worker drains.
    pub fn wake_all(&self) {
        for inner in self.deadlines.lock().iter().filter_map(Weak::upgrade) {
            inner.waker.wake();
        }
    }

    /// Milliseconds since this sweeper began, as of the last tick.
    pub fn coarse_millis(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    fn sweep(&self) {
        self.sweep_at(millis(self.start.elapsed()));
    }

    /// A tick at this time, for tests of sweepers that do not run.
    #[cfg(test)]
    pub(crate) fn tick_at(&self, after: Duration) {
        self.sweep_at(millis(after));
    }

    fn sweep_at(&self, now: u64) {
        self.now.store(now, Ordering::Relaxed);
        self.deadlines.lock().retain(|weak| {
            let Some(inner) = weak.upgrade() else {
                return false;
            };
            if inner.at.load(Ordering::Acquire) <= now {
                inner.waker.wake();
            }
            true
        });
    }
}

impl Deadline {
    /// Sets it to `after` from now, to within a tick and never early.
    pub fn arm(&self, after: Duration) {
        let at = self.sweeper.coarse_millis() + millis(after) + millis(TICK);
        self.inner.at.store(at, Ordering::Release);
    }

    /// Takes it back.
    pub fn disarm(&self) {
        self.inner.at.store(DISARMED, Ordering::Release);
    }

    /// Whether it has passed, without waiting for it.
    pub fn has_passed(&self) -> bool {
        let at = self.inner.at.load(Ordering::Acquire);
        at != DISARMED && at <= self.sweeper.coarse_millis()
    }

    /// Whether it has passed; if not, the task is woken when it does. Also when it is not armed now: who arms it later need
    /// not be the task that waits.
    pub fn poll_passed(&self, cx: &mut Context<'_>) -> bool {
        self.inner.waker.register(cx.waker());
        self.has_passed()
    }

    /// Wakes the task that waits on it, so that it looks at the world again.
    pub fn wake(&self) {
        self.inner.waker.wake();
    }

    /// Waits for `future`, but no longer than `after`. Disarmed when it returns or is dropped.
    pub async fn within<F: Future>(
        &self,
        after: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        self.arm(after);
        let _disarm = Disarm(self);
        let mut future = pin!(future);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = Pin::as_mut(&mut future).poll(cx) {
                return Poll::Ready(Ok(output));
            }
            if self.poll_passed(cx) {
                Poll::Ready(Err(Elapsed))
            } else {
                Poll::Pending
            }
        })
        .await
    }
}

struct Disarm<'a>(&'a Deadline);

impl Drop for Disarm<'_> {
    fn drop(&mut self) {
        self.0.disarm();
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis())
        .unwrap_or(u64::MAX / 4)
        .min(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_future_that_is_ready_beats_its_deadline() {
        let sweeper = Sweeper::new();
        let deadline = sweeper.deadline();
        assert_eq!(
            deadline.within(Duration::from_secs(1), async { 5 }).await,
            Ok(5)
        );
        assert!(!deadline.has_passed());
    }

    #[tokio::test]
    async fn a_future_that_hangs_is_given_up() {
        let sweeper = Sweeper::new();
        let sweeping = tokio::spawn(sweeper.clone().run());
        let deadline = sweeper.deadline();
        let hang = std::future::pending::<()>();
        assert_eq!(
            deadline.within(Duration::from_millis(10), hang).await,
            Err(Elapsed)
        );
        sweeping.abort();
    }

    #[tokio::test]
    async fn a_task_that_waited_before_it_was_armed_is_woken() {
        let sweeper = Sweeper::new();
        let deadline = sweeper.deadline();
        let waits = deadline.clone();
        let task = tokio::spawn(std::future::poll_fn(move |cx| {
            if waits.poll_passed(cx) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }));
        tokio::task::yield_now().await;
        deadline.arm(Duration::ZERO);
        let sweeping = tokio::spawn(sweeper.clone().run());
        task.await.unwrap();
        sweeping.abort();
    }

    #[tokio::test]
    async fn dropped_deadlines_leave_the_list() {
        let sweeper = Sweeper::new();
        let kept = sweeper.deadline();
        for _ in 0..100 {
            drop(sweeper.deadline());
        }
        sweeper.sweep();
        assert_eq!(sweeper.deadlines.lock().len(), 1);
        kept.disarm();
    }
}
