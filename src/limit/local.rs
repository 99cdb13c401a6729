//! Budgets in memory: GCRA (by governor) over a table of our own. governor keeps any number of keys and cannot look
//! without taking; this table is bounded, swept, and can be looked at. No clock of its own, no policy, no HTTP.

use crate::base::clock::Clock;
use crate::config::value::Rate;
use governor::clock::Clock as Ticking;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys a budget keeps apart.
const KEYS_MAX: usize = 100_000;
/// Coarse keys that take what comes above that; above these there is one for all.
const COARSE_MAX: usize = 4096;
const SHARDS: usize = 64;
/// How often a full shard looks for keys whose budget is whole again, in nanoseconds.
const SWEEP_PAUSE: u64 = 1_000_000_000;
/// Longest time in which a budget fills up. Keeps governor's arithmetic, which does not saturate, far from overflow.
const FILL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whose budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Address bits, or a keyed hash.
    pub exact: u128,
    /// The group that shares a budget when the table is full: the /24 or /48, or 0 for everybody.
    pub coarse: u128,
}

/// What is left after one was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// How many more may come at once.
    pub remaining: u32,
    /// When the budget is whole again, to the next full second.
    pub whole_in_secs: u32,
}

/// One rate for any number of keys. Counting is atomic: of any number that come at once, exactly `burst` pass.
pub struct Budget {
    limiter: RateLimiter<Key, Store, Ticks, StateInformationMiddleware>,
    store: Store,
    ticks: Ticks,
    /// Nanoseconds until one more may come.
    period: u64,
    burst: u32,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("period", &Duration::from_nanos(self.period))
            .field("burst", &self.burst)
            .field("keys", &self.store.len())
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// `burst` at once, then `rate`. A budget that would take over ten years to fill is cut to that.
    pub fn new(rate: Rate, burst: NonZeroU32, clock: &Clock) -> Self {
        let period = (rate.per / rate.count.get()).clamp(Duration::from_nanos(1), FILL_MAX);
        let fits = FILL_MAX.as_nanos() / period.as_nanos();
        let burst = NonZeroU32::new(u32::try_from(fits).unwrap_or(u32::MAX))
            .map_or(NonZeroU32::MIN, |fits| fits.min(burst));
        let quota = Quota::with_period(period)
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        let ticks = Ticks {
            clock: clock.clone(),
            epoch: clock.now(),
        };
        let store = Store(Arc::new(Table::new(ticks.clone())));
        Self {
            limiter: RateLimiter::new(quota, store.clone(), ticks.clone()),
            store,
            ticks,
            period: u64::try_from(period.as_nanos()).unwrap_or(u64::MAX),
            burst: burst.get(),
        }
    }

    /// How many may come at once when the budget is whole.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Time in which an empty budget fills, in whole seconds; at least 1.
    pub fn window_secs(&self) -> u32 {
        self.fill_secs(self.burst)
    }

    /// Takes one; the error says when the next may come.
    pub fn take(&self, key: &Key) -> Result<Left, Duration> {
        match self.limiter.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Ok(Left {
                    remaining,
                    whole_in_secs: self.fill_secs(self.burst.saturating_sub(remaining)),
                })
            }
            Err(until) => Err(until.wait_time_from(self.ticks.now())),
        }
    }

    /// Takes nothing; says how long there is none to take.
    pub fn empty_for(&self, key: &Key) -> Option<Duration> {
        // governor counts from when its limiter was made, some nanoseconds after our epoch: nobody can tell.
        let now = self.ticks.now().as_u64();
        let free_at = self
            .store
            .0
            .arrival(key)?
            .saturating_sub(self.period.saturating_mul(u64::from(self.burst) - 1));
        (now < free_at).then(|| Duration::from_nanos(free_at - now))
    }

    /// Forgets keys whose budget is whole. To be called every few seconds.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }

    /// Keys kept now, coarse ones included.
    pub fn keys(&self) -> usize {
        self.store.len()
    }

    fn fill_secs(&self, cells: u32) -> u32 {
        let nanos = u128::from(self.period) * u128::from(cells);
        u32::try_from(nanos.div_ceil(1_000_000_000))
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

/// Our clock for governor: nanoseconds since the budget was made.
#[derive(Clone, Debug)]
struct Ticks {
    clock: Clock,
    epoch: Instant,
}

impl Ticking for Ticks {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        let since = self.clock.now().saturating_duration_since(self.epoch);
        // Good for 584 years.
        Nanos::new(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// The table as governor and we share it.
#[derive(Clone)]
struct Store(Arc<Table>);

type Arrivals = HashMap<u128, u64, foldhash::quality::RandomState>;

/// Theoretical arrival times (GCRA's whole state) by key, in nanoseconds on the clock of [`Ticks`].
struct Table {
    ticks: Ticks,
    hash: foldhash::quality::RandomState,
    shards: [Mutex<Shard>; SHARDS],
    coarse: Mutex<Arrivals>,
}

#[derive(Default)]
struct Shard {
    arrivals: Arrivals,
    swept: u64,
}

impl Table {
    fn new(ticks: Ticks) -> Self {
        Self {
            ticks,
            hash: foldhash::quality::RandomState::default(),
            shards: std::array::from_fn(|_| Mutex::default()),
            coarse: Mutex::default(),
        }
    }

    fn shard(&self, key: u128) -> &Mutex<Shard> {
        let hash = self.hash.hash_one(key);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }

    /// The arrival time that the next `take` of this key would meet.
    fn arrival(&self, key: &Key) -> Option<u64> {
        let shard = self.shard(key.exact).lock();
        if let Some(at) = shard.arrivals.get(&key.exact) {
            return Some(*at);
        }
        if shard.arrivals.len() < KEYS_MAX / SHARDS {
            return None;
        }
        drop(shard);
        let coarse = self.coarse.lock();
        coarse.get(&coarse_key(&coarse, key)).copied()
    }
}

/// The key's group, or everybody's when there are too many groups as well.
fn coarse_key(coarse: &Arrivals, key: &Key) -> u128 {
    if coarse.len() < COARSE_MAX || coarse.contains_key(&key.coarse) {
        key.coarse
    } else {
        0
    }
}

/// Puts back what governor makes of the arrival time, unless it refuses.
fn replace<T, E>(
    arrivals: &mut Arrivals,
    key: u128,
    decide: impl Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
) -> Result<T, E> {
    let (out, arrival) = decide(arrivals.get(&key).map(|at| Nanos::new(*at)))?;
    arrivals.insert(key, arrival.as_u64());
    Ok(out)
}

impl StateStore for Store {
    type Key = Key;

    fn measure_and_replace<T, F, E>(&self, key: &Key, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let table = &*self.0;
        let mut shard = table.shard(key.exact).lock();
        if !shard.arrivals.contains_key(&key.exact) && shard.arrivals.len() >= KEYS_MAX / SHARDS {
            let now = table.ticks.now().as_u64();
            if now.saturating_sub(shard.swept) >= SWEEP_PAUSE {
                shard.swept = now;
                shard.arrivals.retain(|_, at| *at > now);
            }
            if shard.arrivals.len() >= KEYS_MAX / SHARDS {
                drop(shard);
                // Closed, not open: newcomers share a budget rather than get one each.
                let mut coarse = table.coarse.lock();
                let key = coarse_key(&coarse, key);
                return replace(&mut coarse, key, decide);
            }
        }
        replace(&mut shard.arrivals, key.exact, decide)
    }
}

impl ShrinkableKeyedStateStore<Key> for Store {
    fn retain_recent(&self, drop_below: Nanos) {
        let below = drop_below.as_u64();
        for shard in &self.0.shards {
            shard.lock().arrivals.retain(|_, at| *at > below);
        }
        self.0.coarse.lock().retain(|_, at| *at > below);
    }

    fn shrink_to_fit(&self) {
        for shard in &self.0.shards {
            shrink(&mut shard.lock().arrivals);
        }
        shrink(&mut self.0.coarse.lock());
    }

    fn len(&self) -> usize {
        let shards: usize = self.0.shards.iter().map(|s| s.lock().arrivals.len()).sum();
        shards + self.0.coarse.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Gives memory back after a flood, not after every lull.
fn shrink(arrivals: &mut Arrivals) {
    if arrivals.capacity() > 64 && arrivals.len() < arrivals.capacity() / 4 {
        arrivals.shrink_to(arrivals.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn rate(count: u32, secs: u64) -> Rate {
        Rate {
            count: NonZeroU32::new(count).unwrap(),
            per: Duration::from_secs(secs),
        }
    }

    fn budget(count: u32, secs: u64, burst: u32, clock: &Clock) -> Budget {
        Budget::new(rate(count, secs), NonZeroU32::new(burst).unwrap(), clock)
    }

    fn key(exact: u128) -> Key {
        Key { exact, coarse: 0 }
    }

    #[test]
    fn the_sixty_first_at_once_is_refused_and_one_comes_back_each_second() {
        let clock = Clock::frozen(1_700_000_000);
        let budget = budget(60, 60, 60, &clock);
        for left in (0..60).rev() {
            let state = budget.take(&key(1)).unwrap();
            assert_eq!((state.remaining, state.whole_in_secs), (left, 60 - left));
        }
        assert_eq!(budget.take(&key(1)), Err(Duration::from_secs(1)));
        assert!(budget.take(&key(2)).is_ok());
        clock.advance(Duration::from_millis(999));
        assert_eq!(budget.take(&key(1)), Err(Duration::from_millis(1)));
        clock.advance(Duration::from_millis(1));
        assert!(budget.take(&key(1)).is_ok());
        assert!(budget.take(&key(1)).is_err());
        clock.advance(Duration::from_secs(3600));
        assert_eq!(budget.take(&key(1)).unwrap().remaining, 59);
    }

    #[test]
    fn looking_takes_nothing_and_agrees_with_taking() {
        let clock = Clock::frozen(1_700_000_000);
        let budget = budget(2, 10, 3, &clock);
        for _ in 0..3 {
            assert_eq!(budget.empty_for(&key(1)), None);
            assert!(budget.take(&key(1)).is_ok());
        }
        let wait = Duration::from_secs(5);
        assert_eq!(budget.empty_for(&key(1)), Some(wait));
        assert_eq!(budget.take(&key(1)), Err(wait));
        clock.advance(wait);
        assert_eq!(budget.empty_for(&key(1)), None);
        assert!(budget.take(&key(1)).is_ok());
    }

    #[test]
    fn of_two_hundred_at_once_exactly_twenty_pass() {
        let budget = budget(1, 3600, 20, &Clock::system());
        let passed = AtomicU32::new(0);
        let start = Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..25 {
                        if budget.take(&key(7)).is_ok() {
                            passed.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 20);
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_newcomers_share_a_budget() {
        let clock = Clock::frozen(1_700_000_000);
        let budget = budget(1, 60, 2, &clock);
        assert!(budget.take(&key(1)).is_ok());
        let mut refused = 0;
        for exact in 2..150_000u128 {
            // As many groups as there are: even they are too many.
            let coarse = exact | 1 << 100;
            refused += u32::from(budget.take(&Key { exact, coarse }).is_err());
        }
        assert!(
            budget.keys() <= KEYS_MAX + COARSE_MAX + 1,
            "{}",
            budget.keys()
        );
        assert!(refused > 40_000, "{refused}");
        let late = Key {
            exact: u128::MAX,
            coarse: u128::MAX,
        };
        assert!(budget.take(&late).is_err());
        assert!(budget.empty_for(&late).is_some());
        // Who was there before keeps what he had.
        assert!(budget.take(&key(1)).is_ok());
        assert!(budget.take(&key(1)).is_err());
        // A full table makes room by itself once budgets are whole, before anybody sweeps.
        clock.advance(Duration::from_secs(120));
        assert!(budget.take(&late).is_ok());
    }

    #[test]
    fn sweeping_forgets_whole_budgets_only_and_gives_memory_back() {
        let clock = Clock::frozen(1_700_000_000);
        let budget = budget(1, 10, 10, &clock);
        for exact in 0..10_000 {
            assert!(budget.take(&key(exact)).is_ok());
        }
        for _ in 0..5 {
            assert!(budget.take(&key(1)).is_ok());
        }
        budget.sweep();
        assert_eq!(budget.keys(), 10_000);
        clock.advance(Duration::from_secs(21));
        budget.sweep();
        assert_eq!(budget.keys(), 1);
        assert_eq!(budget.take(&key(1)).unwrap().remaining, 5);
        let capacity: usize = budget
            .store
            .0
            .shards
            .iter()
            .map(|s| s.lock().arrivals.capacity())
            .sum();
        assert!(capacity < 10_000, "{capacity}");
    }

    #[test]
    fn no_rate_of_an_operator_overflows() {
        let clock = Clock::frozen(1_700_000_000);
        let absurd = Rate {
            count: NonZeroU32::MIN,
            per: Duration::MAX,
        };
        let slow = Budget::new(absurd, NonZeroU32::MAX, &clock);
        assert_eq!(slow.burst(), 1);
        assert!(slow.take(&key(1)).is_ok());
        assert!(slow.take(&key(1)).is_err());
        assert!(slow.empty_for(&key(1)).is_some());
        let fast = Rate {
            count: NonZeroU32::MAX,
            per: Duration::from_nanos(1),
        };
        let fast = Budget::new(fast, NonZeroU32::MAX, &clock);
        assert!(fast.take(&key(1)).is_ok());
        assert_eq!(fast.window_secs(), 5);
    }
}
