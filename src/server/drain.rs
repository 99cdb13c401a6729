//! The state of the process that connections, probes and the way out share.

use super::admin::{self, AdminView, Readiness};
use super::tls::Certificates;
use crate::base::clock::Clock;
use crate::base::deadline::Sweeper;
use crate::config::Config;
use crate::gateway::Berths;
use crate::redis::Redis;
use crate::snapshot::Snapshot;
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::Counted;
use crate::token::ProviderStatus;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// After this long a provider without keys no longer keeps the process from being ready.
const READY_WITHOUT_KEYS: Duration = Duration::from_secs(30);

/// How a drain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything finished.
    Clean,
    /// So many connections were still busy when `drain_timeout` ended.
    Cut(usize),
}

/// What all threads of the process know of it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) current: Arc<ArcSwap<Snapshot>>,
    pub(super) access: AccessLog,
    /// Connections are told to end after their request.
    pub(super) draining: Arc<AtomicBool>,
    not_ready: AtomicBool,
    /// Listeners close.
    pub(super) stop_accepting: CancellationToken,
    /// Workers end.
    pub(super) ended: CancellationToken,
    pub(super) sweepers: Mutex<Vec<Arc<Sweeper>>>,
    /// Accept loops at work.
    acceptors: AtomicUsize,
    connections: AtomicUsize,
    per_ip: Mutex<HashMap<IpAddr, usize>>,
    /// Places for upgraded connections.
    pub(super) berths: Arc<Berths>,
    certificates: Vec<Arc<Certificates>>,
    one_left: Notify,
    max_connections: usize,
    max_per_ip: usize,
    drain_delay: Duration,
    drain_timeout: Duration,
    started: Instant,
    clock: Clock,
}

/// A place among the connections, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    state: Arc<State>,
    ip: Option<IpAddr>,
}

impl State {
    pub(super) fn new(
        config: &Config,
        current: Arc<ArcSwap<Snapshot>>,
        access: AccessLog,
        clock: Clock,
        certificates: Vec<Arc<Certificates>>,
    ) -> Self {
        Self {
            current,
            access,
            draining: Arc::default(),
            not_ready: AtomicBool::new(false),
            stop_accepting: CancellationToken::new(),
            ended: CancellationToken::new(),
            sweepers: Mutex::default(),
            acceptors: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            per_ip: Mutex::default(),
            berths: Berths::new(config.server.max_upgrades),
            certificates,
            one_left: Notify::new(),
            max_connections: config.server.max_connections,
            max_per_ip: config.server.max_connections_per_ip,
            drain_delay: config.server.drain_delay,
            drain_timeout: config.server.drain_timeout,
            started: clock.now(),
            clock,
        }
    }

    /// A place for a connection, or `None` when there is none left: it is closed unheard.
    pub(super) fn admit(self: &Arc<Self>, ip: Option<IpAddr>) -> Option<Place> {
        if self.connections.fetch_add(1, Ordering::Relaxed) >= self.max_connections {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let ip = ip.filter(|_| self.max_per_ip > 0).map(whose);
        if let Some(ip) = ip {
            let mut per_ip = self.per_ip.lock();
            let count = per_ip.entry(ip).or_insert(0);
            if *count >= self.max_per_ip {
                drop(per_ip);
                self.connections.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            *count += 1;
        }
        Some(Place {
            state: self.clone(),
            ip,
        })
    }

    /// An accept loop begins; it has ended when this is dropped.
    pub(super) fn accepting(self: &Arc<Self>) -> Accepting {
        self.acceptors.fetch_add(1, Ordering::SeqCst);
        Accepting(self.clone())
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Whom an address belongs to: an IPv6 subscriber has a /64.
fn whose(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// An accept loop at work.
#[derive(Debug)]
pub(super) struct Accepting(Arc<State>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.acceptors.fetch_sub(1, Ordering::SeqCst);
        self.0.one_left.notify_waiters();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ip) = self.ip {
            let mut per_ip = self.state.per_ip.lock();
            if let Some(count) = per_ip.get_mut(&ip) {
                *count -= 1;
                if *count == 0 {
                    per_ip.remove(&ip);
                }
            }
        }
        self.state.connections.fetch_sub(1, Ordering::Relaxed);
        self.state.one_left.notify_waiters();
    }
}

/// The way out (contract, section 6): not ready, delay, no new connections, those in flight finish, then the end.
pub(super) async fn drain(state: &State) -> Drained {
    state.not_ready.store(true, Ordering::Relaxed);
    tokio::time::sleep(state.drain_delay).await;
    state.stop_accepting.cancel();
    state.draining.store(true, Ordering::Relaxed);
    for sweeper in state.sweepers.lock().iter() {
        sweeper.wake_all();
    }
    let all_gone = async {
        loop {
            let left = state.one_left.notified();
            let accepting = state.acceptors.load(Ordering::SeqCst) > 0;
            if !accepting && state.connections() == 0 {
                return;
            }
            // A connection may have looked just before the flag was set: wake them again.
            let _ = tokio::time::timeout(Duration::from_millis(100), left).await;
            for sweeper in state.sweepers.lock().iter() {
                sweeper.wake_all();
            }
        }
    };
    let clean = tokio::time::timeout(state.drain_timeout, all_gone)
        .await
        .is_ok();
    let left = state.connections();
    state.ended.cancel();
    if clean {
        Drained::Clean
    } else {
        Drained::Cut(left)
    }
}

/// What `/readyz` tells of a provider whose keys are missing or getting old.
fn trouble(provider: &ProviderStatus) -> Option<String> {
    match (&provider.last_error, provider.keys) {
        (_, 0) => Some(format!("provider `{}` has no keys", provider.name)),
        (Some(_), _) => Some(format!(
            "the keys of provider `{}` cannot be renewed",
            provider.name
        )),
        (None, _) => None,
    }
}

impl AdminView for State {
    fn readiness(&self) -> Readiness {
        let snapshot = self.current.load();
        let providers = snapshot.tokens.providers();
        let keys = providers.iter().filter_map(trouble);
        let certificates = self.certificates.iter().flat_map(|shown| shown.troubles());
        let redis = snapshot.redis.as_ref().filter(|redis| redis.is_away());
        let redis = redis.map(|_| "Redis is away".to_owned());
        let reasons = keys.chain(certificates).chain(redis).collect();
        let waited = self.clock.now().saturating_duration_since(self.started) >= READY_WITHOUT_KEYS;
        let state = if self.not_ready.load(Ordering::Relaxed) {
            admin::State::Draining
        } else if snapshot.tokens.ready() || waited {
            admin::State::Serving
        } else {
            admin::State::Starting
        };
        Readiness { state, reasons }
    }

    fn metrics(&self) -> String {
        let snapshot = self.current.load();
        let fetches = snapshot.tokens.refresh_counts();
        snapshot.metrics.render(&Counted {
            key_fetches: fetches
                .map(|(provider, counts)| (&**provider, counts.each()))
                .collect(),
            session_refreshes: snapshot.refreshes.counts(),
            redis_away: snapshot.redis.as_ref().map(Redis::is_away),
            log_lines_dropped: self.access.dropped(),
        })
    }
}
