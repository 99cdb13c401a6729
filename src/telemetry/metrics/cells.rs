//! What counts: a cell for each worker under one name, tables of statuses, histograms. Relaxed atomics only; nothing
//! here waits or allocates while it counts.

use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the histograms' buckets, in microseconds: 0.5 ms to 60 s.
pub(super) const BOUNDS: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Counts under one name, a cell for each worker.
pub(super) struct Series<T> {
    pub(super) name: Arc<str>,
    cells: Box<[Padded<T>]>,
}

/// Two cache lines of its own: workers that count do not take lines from each other.
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Series<T> {
    pub(super) fn new(name: &Arc<str>, cells: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.clone(),
            cells: (0..cells.max(1)).map(|_| Padded::default()).collect(),
        })
    }
}

impl<T> Series<T> {
    pub(super) fn cell(&self, worker: usize) -> &T {
        &self.cells[worker.min(self.cells.len() - 1)].0
    }

    pub(super) fn cells(&self) -> impl Iterator<Item = &T> {
        self.cells.iter().map(|cell| &cell.0)
    }

    pub(super) fn sum(&self, read: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.cells().map(|cell| read(cell).load(Relaxed)).sum()
    }
}

pub(super) fn carry<T: Default>(
    names: &[Arc<str>],
    cells: usize,
    previous: impl Fn(&str) -> Option<Arc<Series<T>>>,
) -> Vec<Arc<Series<T>>> {
    names
        .iter()
        .map(|name| previous(name).unwrap_or_else(|| Series::new(name, cells)))
        .collect()
}

pub(super) fn find<'a, T: 'a>(
    series: impl IntoIterator<Item = &'a Arc<Series<T>>>,
    name: &str,
) -> Option<Arc<Series<T>>> {
    series.into_iter().find(|s| &*s.name == name).cloned()
}

pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Statuses with a count of their own for each route, method and worker. Upstreams choose statuses, so there is a bound.
pub(super) const STATUSES: usize = 24;

/// How often each status was seen. A slot holds the status above and the count below bit 48; 0 is free. Slots fill
/// from the front and are never given back, so the usual status is found first.
#[derive(Default)]
pub(super) struct Statuses {
    slots: [AtomicU64; STATUSES],
    /// What found no slot.
    pub(super) other: AtomicU64,
}

impl Statuses {
    pub(super) fn count(&self, status: StatusCode) {
        let tag = u64::from(status.as_u16()) << 48;
        for slot in &self.slots {
            let held = slot.load(Relaxed);
            if held == 0 && slot.compare_exchange(0, tag | 1, Relaxed, Relaxed).is_ok() {
                return;
            }
            // Read again: the slot may have been taken meanwhile, perhaps for this very status.
            if slot.load(Relaxed) >> 48 == tag >> 48 {
                add(slot);
                return;
            }
        }
        add(&self.other);
    }

    /// (status, count)
    pub(super) fn read(&self) -> impl Iterator<Item = (u64, u64)> {
        const COUNT: u64 = (1 << 48) - 1;
        self.slots
            .iter()
            .map(|slot| slot.load(Relaxed))
            .take_while(|held| *held != 0)
            .map(|held| (held >> 48, held & COUNT))
    }
}

#[derive(Default)]
pub(super) struct Histogram {
    /// Observations in each bucket alone; the last one is above all bounds.
    pub(super) buckets: [AtomicU64; BOUNDS.len() + 1],
    pub(super) micros: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        // `le` is "less or equal".
        add(&self.buckets[BOUNDS.partition_point(|bound| *bound < micros)]);
        self.micros.fetch_add(micros, Relaxed);
    }
}
