//! Many who want the same thing, one task that gets it, one answer for all: those who wait while it flies, and those who
//! come within the time for which its answer is kept. The task belongs to nobody who waits, so it ends whoever goes away.

use super::clock::Clock;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What a flight brings, and for how long it is the answer for those who come later. Zero: for nobody.
#[derive(Clone, Debug)]
pub struct Landed<V> {
    /// The answer.
    pub value: V,
    /// From the moment it is there.
    pub keep: Duration,
}

/// Why there is no answer. Nothing is known then of what the task did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crash {
    /// As many flights as there may be are in the air.
    #[error("too many calls are under way")]
    Full,
    /// The task panicked, or its runtime ended.
    #[error("the call ended without an answer")]
    Died,
}

/// Flights by key. Cheap to clone; all clones are one.
///
/// Whoever sees a key's answer sees what its holder may see: the key must be made of everything that the answer depends on.
pub struct SingleFlight<K, V>(Arc<Inner<K, V>>);

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("entries", &self.0.board.lock().entries.len())
            .field("entries_max", &self.0.entries_max)
            .finish_non_exhaustive()
    }
}

struct Inner<K, V> {
    board: Mutex<Board<K, V>>,
    entries_max: usize,
    clock: Clock,
    control: Handle,
}

struct Board<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// Kept answers, the one that is over soonest first.
    over: BTreeMap<Over, K>,
    landed: u64,
}

/// When an answer is over, and a number that keeps equal moments apart.
type Over = (Instant, u64);

enum Entry<V> {
    Flying(watch::Receiver<Option<V>>),
    Kept(V, Over),
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// At most `entries_max` flights and kept answers together. Flights run on `control`.
    pub fn new(entries_max: usize, clock: Clock, control: Handle) -> Self {
        Self(Arc::new(Inner {
            board: Mutex::new(Board {
                entries: HashMap::new(),
                over: BTreeMap::new(),
                landed: 0,
            }),
            entries_max,
            clock,
            control,
        }))
    }

    /// The answer for `key`: the kept one, that of the flight under way, or that of `work`, which is begun only then.
    ///
    /// Cancel-safe: the flight goes on, and its answer is kept. Has no deadline but that of `work`.
    pub async fn get<F>(&self, key: K, work: impl FnOnce() -> F) -> Result<V, Crash>
    where
        F: Future<Output = Landed<V>> + Send + 'static,
    {
        let mut waiting = match self.look(&key)? {
            Found::Kept(value) => return Ok(value),
            Found::Flying(receiver) => receiver,
            // Begun without the lock: the runtime drops a task at once when it has ended, and the seat takes the lock.
            Found::Seat(seat, receiver) => {
                self.0.control.spawn(seat.fly(work()));
                receiver
            }
        };
        // An error says that the sender has gone without an answer.
        match waiting.wait_for(Option::is_some).await {
            Ok(value) => value.clone().ok_or(Crash::Died),
            Err(_) => Err(Crash::Died),
        }
    }

    /// Whether [`SingleFlight::get`] would begin nothing for `key`.
    pub fn has(&self, key: &K) -> bool {
        let now = self.0.clock.now();
        match self.0.board.lock().entries.get(key) {
            Some(Entry::Kept(_, (end, _))) => now < *end,
            Some(Entry::Flying(_)) => true,
            None => false,
        }
    }

    /// Lets go of answers that are over. Each new flight does so, too; to be called every few seconds, so that answers
    /// that are secret do not stay until then.
    pub fn sweep(&self) {
        let now = self.0.clock.now();
        self.0.board.lock().sweep(now);
    }

    /// Flights and kept answers.
    pub fn len(&self) -> usize {
        self.0.board.lock().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn look(&self, key: &K) -> Result<Found<K, V>, Crash> {
        let now = self.0.clock.now();
        let mut board = self.0.board.lock();
        match board.entries.get(key) {
            Some(Entry::Kept(value, (end, _))) if now < *end => {
                return Ok(Found::Kept(value.clone()));
            }
            Some(Entry::Flying(receiver)) => return Ok(Found::Flying(receiver.clone())),
            _ => {}
        }
        board.sweep(now);
        if board.entries.len() >= self.0.entries_max && !board.forget_soonest() {
            return Err(Crash::Full);
        }
        let (sender, receiver) = watch::channel(None);
        board
            .entries
            .insert(key.clone(), Entry::Flying(receiver.clone()));
        let seat = Seat {
            flights: self.0.clone(),
            key: key.clone(),
            sender,
        };
        Ok(Found::Seat(seat, receiver))
    }
}

enum Found<K: Eq + Hash, V> {
    Kept(V),
    Flying(watch::Receiver<Option<V>>),
    /// Nobody flies: whoever finds this begins.
    Seat(Seat<K, V>, watch::Receiver<Option<V>>),
}

/// The right to answer for a key. Dropped without an answer, it frees the key, and those who wait learn of it.
struct Seat<K: Eq + Hash, V> {
    flights: Arc<Inner<K, V>>,
    key: K,
    sender: watch::Sender<Option<V>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Seat<K, V> {
    async fn fly(self, work: impl Future<Output = Landed<V>>) {
        let Landed { value, keep } = work.await;
        let end = self.flights.clock.now() + keep;
        {
            let mut board = self.flights.board.lock();
            board.landed = board.landed.wrapping_add(1);
            let over = (end, board.landed);
            board.over.insert(over, self.key.clone());
            board
                .entries
                .insert(self.key.clone(), Entry::Kept(value.clone(), over));
        }
        // After the board: who comes now finds the kept answer, and nobody begins anew. That nobody waits is no error.
        self.sender.send_replace(Some(value));
    }
}

impl<K: Eq + Hash, V> Drop for Seat<K, V> {
    fn drop(&mut self) {
        let mut board = self.flights.board.lock();
        if let Some(Entry::Flying(_)) = board.entries.get(&self.key) {
            board.entries.remove(&self.key);
        }
    }
}

impl<K: Eq + Hash, V> Board<K, V> {
    fn sweep(&mut self, now: Instant) {
        while let Some(first) = self.over.first_entry() {
            if now < first.key().0 {
                return;
            }
            self.entries.remove(&first.remove());
        }
    }

    /// Makes room. False: everything flies.
    fn forget_soonest(&mut self) -> bool {
        match self.over.pop_first() {
            Some((_, key)) => self.entries.remove(&key).is_some(),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    /// Counts how often work began, and lets none of it end before it may.
    #[derive(Clone)]
    struct Work {
        begun: Arc<AtomicUsize>,
        may_end: Arc<Semaphore>,
    }

    impl Work {
        fn held() -> Self {
            Self {
                begun: Arc::default(),
                may_end: Arc::new(Semaphore::new(0)),
            }
        }

        fn free() -> Self {
            let work = Self::held();
            work.may_end.add_permits(Semaphore::MAX_PERMITS);
            work
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }

        /// Answers with the number of the work.
        fn run(&self, keep: Duration) -> impl Future<Output = Landed<usize>> + Send + 'static {
            let work = self.clone();
            async move {
                let value = work.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let _permit = work.may_end.acquire().await.unwrap();
                Landed { value, keep }
            }
        }
    }

    const TEN: Duration = Duration::from_secs(10);

    fn flights(entries_max: usize, clock: &Clock) -> SingleFlight<&'static str, usize> {
        SingleFlight::new(entries_max, clock.clone(), Handle::current())
    }

    #[tokio::test]
    async fn fifty_who_ask_at_once_share_one_flight() {
        let (flights, work) = (flights(8, &Clock::frozen(1)), Work::held());
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let (flights, work) = (flights.clone(), work.clone());
                tokio::spawn(async move { flights.get("a", || work.run(Duration::ZERO)).await })
            })
            .collect();
        while work.begun() == 0 {
            tokio::task::yield_now().await;
        }
        work.may_end.add_permits(1);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(1));
        }
        assert_eq!(work.begun(), 1);
    }

    #[tokio::test]
    async fn keys_fly_apart() {
        let (flights, work) = (flights(8, &Clock::frozen(1)), Work::free());
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(1));
        assert_eq!(flights.get("b", || work.run(TEN)).await, Ok(2));
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(1));
    }

    #[tokio::test]
    async fn an_answer_is_kept_for_its_time_and_not_longer() {
        let clock = Clock::frozen(1);
        let (flights, work) = (flights(8, &clock), Work::free());
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(1));
        clock.advance(TEN - Duration::from_millis(1));
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(1));
        clock.advance(Duration::from_millis(1));
        assert_eq!(
            flights.get("a", || work.run(Duration::ZERO)).await,
            Ok(2),
            "the look at a kept answer does not lengthen its life"
        );
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(3));
    }

    #[tokio::test]
    async fn whoever_goes_away_takes_nothing_with_him() {
        let (flights, work) = (flights(8, &Clock::frozen(1)), Work::held());
        let first = {
            let (flights, work) = (flights.clone(), work.clone());
            tokio::spawn(async move { flights.get("a", || work.run(TEN)).await })
        };
        while work.begun() == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let second = {
            let (flights, work) = (flights.clone(), work.clone());
            tokio::spawn(async move { flights.get("a", || work.run(TEN)).await })
        };
        work.may_end.add_permits(1);
        assert_eq!(second.await.unwrap(), Ok(1));
        assert_eq!(work.begun(), 1);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_for_those_who_wait_and_the_next_begins_anew() {
        let flights = flights(8, &Clock::frozen(1));
        let start = Arc::new(Semaphore::new(0));
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let (flights, start) = (flights.clone(), start.clone());
                tokio::spawn(async move {
                    let work = || async move {
                        start.acquire().await.unwrap().forget();
                        panic!("planned by a test")
                    };
                    flights.get("a", work).await
                })
            })
            .collect();
        while flights.is_empty() {
            tokio::task::yield_now().await;
        }
        start.add_permits(1);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Err(Crash::Died));
        }
        assert!(flights.is_empty());
        let work = Work::free();
        assert_eq!(flights.get("a", || work.run(TEN)).await, Ok(1));
    }

    #[test]
    fn without_its_runtime_a_flight_is_an_error_and_no_wait() {
        let control = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let flights: SingleFlight<&str, usize> =
            SingleFlight::new(8, Clock::frozen(1), control.handle().clone());
        drop(control);
        let worker = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let work = Work::free();
        let answer = worker.block_on(flights.get("a", || work.run(TEN)));
        assert_eq!(answer, Err(Crash::Died));
        assert!(flights.is_empty());
    }

    #[tokio::test]
    async fn the_number_of_entries_is_bounded_and_what_is_over_soonest_makes_room() {
        let clock = Clock::frozen(1);
        let (flights, work) = (flights(2, &clock), Work::free());
        assert_eq!(flights.get("long", || work.run(TEN)).await, Ok(1));
        let short = Duration::from_secs(1);
        assert_eq!(flights.get("short", || work.run(short)).await, Ok(2));
        assert_eq!(flights.get("third", || work.run(TEN)).await, Ok(3));
        assert_eq!(flights.len(), 2);
        assert_eq!(flights.get("long", || work.run(TEN)).await, Ok(1));
        assert_eq!(flights.get("short", || work.run(short)).await, Ok(4));
        assert_eq!(flights.len(), 2);
    }

    #[tokio::test]
    async fn flights_make_no_room_for_one_another() {
        let (flights, work) = (flights(1, &Clock::frozen(1)), Work::held());
        let first = {
            let (flights, work) = (flights.clone(), work.clone());
            tokio::spawn(async move { flights.get("a", || work.run(TEN)).await })
        };
        while work.begun() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(flights.get("b", || work.run(TEN)).await, Err(Crash::Full));
        work.may_end.add_permits(1);
        assert_eq!(first.await.unwrap(), Ok(1));
    }

    #[tokio::test]
    async fn sweeping_lets_go_of_what_is_over_only() {
        let clock = Clock::frozen(1);
        let (flights, work) = (flights(8, &clock), Work::free());
        let short = Duration::from_secs(1);
        assert!(flights.get("a", || work.run(short)).await.is_ok());
        assert!(flights.get("b", || work.run(TEN)).await.is_ok());
        clock.advance(short);
        flights.sweep();
        assert_eq!(flights.len(), 1);
        assert_eq!(flights.get("b", || work.run(TEN)).await, Ok(2));
        assert!(!format!("{flights:?}").contains("\"b\""));
    }
}
