//! Many waiters, one detached task, one shared answer.

use futures_util::future::{FutureExt, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Handle;

type Answer<V> = Shared<Pin<Box<dyn Future<Output = Option<V>> + Send>>>;

/// Runs one piece of work for each key at a time. Everybody who asks while it runs gets its answer.
///
/// Cancel-safe: the work runs as a task of its own on the given runtime, so that a caller that goes away
/// neither ends it nor makes the next caller start again.
pub struct SingleFlight<K, V> {
    flights: Arc<Mutex<HashMap<K, Answer<V>>>>,
    runtime: Handle,
    most: usize,
}

impl<K, V> std::fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleFlight")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Eq + Hash + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Work runs on `runtime`; at most `most` keys are in flight, further ones are refused.
    pub fn new(runtime: Handle, most: usize) -> Self {
        Self {
            flights: Arc::default(),
            runtime,
            most,
        }
    }

    /// The answer of the work for `key`, started by whoever comes first. `None` when too many keys are in flight
    /// or the work panicked: the caller answers as for a provider out of reach.
    pub async fn run<F>(&self, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let answer = {
            let mut flights = self.flights.lock();
            if let Some(running) = flights.get(&key) {
                running.clone()
            } else {
                if flights.len() >= self.most {
                    return None;
                }
                let landing = Landing {
                    flights: self.flights.clone(),
                    key: key.clone(),
                };
                let work = work();
                let task = self.runtime.spawn(async move {
                    let _landing = landing;
                    work.await
                });
                let answer: Answer<V> = task.map(Result::ok).boxed().shared();
                flights.insert(key, answer.clone());
                answer
            }
        };
        answer.await
    }
}

/// Takes the key out of the map when the work ends, also when it panics.
struct Landing<K: Eq + Hash, V> {
    flights: Arc<Mutex<HashMap<K, Answer<V>>>>,
    key: K,
}

impl<K: Eq + Hash, V> Drop for Landing<K, V> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn fifty_callers_cause_one_piece_of_work() {
        let flights = Arc::new(SingleFlight::new(Handle::current(), 8));
        let runs = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let (flights, runs, go) = (flights.clone(), runs.clone(), go.clone());
                tokio::spawn(async move {
                    flights
                        .run("k", || async move {
                            go.notified().await;
                            runs.fetch_add(1, Ordering::SeqCst)
                        })
                        .await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        go.notify_one();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Some(0));
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_leader_that_hangs_up_does_not_end_the_work() {
        let flights = Arc::new(SingleFlight::new(Handle::current(), 8));
        let go = Arc::new(Notify::new());
        let leader = {
            let (flights, go) = (flights.clone(), go.clone());
            tokio::spawn(async move {
                flights
                    .run(1, || async move {
                        go.notified().await;
                        7
                    })
                    .await
            })
        };
        tokio::task::yield_now().await;
        leader.abort();
        let follower = {
            let flights = flights.clone();
            tokio::spawn(async move { flights.run(1, || async { 8 }).await })
        };
        tokio::task::yield_now().await;
        go.notify_one();
        assert_eq!(follower.await.unwrap(), Some(7));
    }

    #[tokio::test]
    async fn the_number_of_flights_is_bounded_and_a_panic_is_no_answer() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new(Handle::current(), 0);
        assert_eq!(flights.run(1, || async { 1 }).await, None);
        let flights: SingleFlight<u8, u8> = SingleFlight::new(Handle::current(), 1);
        assert_eq!(
            flights
                .run(1, || async { std::panic::resume_unwind(Box::new(())) })
                .await,
            None
        );
        assert_eq!(flights.run(1, || async { 2 }).await, Some(2));
    }
}
