//! How keys are doing, for people and for metrics. Never the keys themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Fetches by outcome, for `tollhouse_jwks_refresh_total`.
#[derive(Debug, Default)]
pub struct RefreshCounts {
    /// A set with a usable key came.
    pub ok: AtomicU64,
    /// No answer in time.
    pub unreachable: AtomicU64,
    /// An answer that is no key set.
    pub unusable: AtomicU64,
}

impl RefreshCounts {
    /// Label `outcome` and count.
    pub fn each(&self) -> [(&'static str, u64); 3] {
        [
            ("ok", &self.ok),
            ("unreachable", &self.unreachable),
            ("unusable", &self.unusable),
        ]
        .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }
}

/// State of one provider's keys, for the banner, `/readyz` and `/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    /// Name in the configuration.
    pub name: Arc<str>,
    /// Keys that can verify now: the shared secret, the key of the file, and those of the set.
    pub keys: usize,
    /// Keys of the set that are never used: weak, of another use, not understood.
    pub ignored: usize,
    /// Age of the set; `None` without one.
    pub fetched_ago: Option<Duration>,
    /// Why the last fetch failed; `None` after a good one.
    pub last_error: Option<Arc<str>>,
}
