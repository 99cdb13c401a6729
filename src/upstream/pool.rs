//! The connections of one worker: kept on a shelf for each endpoint, newest on top, and given back by the body of the
//! answer when it ends. Nothing here crosses threads on the request path; the locks are there for the type system.

use super::balance::{self, Draw};
use super::conn::{Ages, Conn};
use super::dial;
use super::endpoint::Address;
use super::h2::streams::Streams;
use super::retry::Budget;
use super::{Core, Upstream};
use crate::base::deadline::{Elapsed, Sweeper};
use crate::config::upstream::Balance;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How long connections are kept.
///
/// A request that is written just as the upstream closes an idle connection is lost: it may have been read, so it is
/// not repeated. The only cure is to close first. Node and uvicorn, what plain http upstreams usually are, close after
/// 5 s: 4 s it is. An upstream that is worth TLS usually has a load balancer with 60 s or more in front, and a
/// handshake is dear: 20 s. One that says how long it waits (`Keep-Alive: timeout=N`) is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Milliseconds without a request, plain TCP and unix sockets.
    pub(super) idle_plain: u64,
    /// Milliseconds without a request, TLS.
    pub(super) idle_tls: u64,
    /// Milliseconds without a request, HTTP/2. No request is lost to a close here, because GOAWAY says which were taken
    /// (RFC 9113 §6.8), so that plain connections can wait, too.
    pub(super) idle_h2: u64,
    /// Milliseconds from the first request on, at most; up to a fifth less, so that what was opened together is not
    /// closed together. Lets changes of DNS and load balancing take effect.
    pub(super) life: u64,
    /// Milliseconds an upload may go on after its answer has ended, and a stream after its upload was given up.
    pub(super) settle: u64,
}

/// How often the shelves are looked through.
const REAP_EVERY: Duration = Duration::from_secs(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            idle_plain: 4_000,
            idle_tls: 20_000,
            idle_h2: 20_000,
            life: 300_000,
            settle: 30_000,
        }
    }
}

/// The upstream connections of one worker. Made on its runtime, used only there.
pub struct Pools {
    sweeper: Arc<Sweeper>,
    workers: usize,
    limits: Limits,
    homes: Mutex<HashMap<usize, Arc<Home>, FixedState>>,
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pools")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Pools {
    /// Deadlines are kept by `sweeper`, the worker's; `workers` share what `max_idle` allows.
    pub fn new(sweeper: Arc<Sweeper>, workers: usize) -> Arc<Self> {
        Self::with_limits(sweeper, workers, Limits::default())
    }

    pub(super) fn with_limits(sweeper: Arc<Sweeper>, workers: usize, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            sweeper,
            workers: workers.max(1),
            limits,
            homes: Mutex::default(),
        })
    }

    /// Closes what is idle or old, once a second, until it is dropped. Runs as one task of the worker.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(REAP_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            self.reap();
        }
    }

    /// Closes every idle connection; those with a request are closed when it is over. Also done when the pools go.
    pub fn close(&self) {
        for (_, home) in self.homes.lock().drain() {
            home.close();
        }
    }

    pub(super) fn reap(&self) {
        self.homes.lock().retain(|_, home| {
            let keep = !home.core.retired();
            if keep {
                home.reap();
            } else {
                home.close();
            }
            keep
        });
    }

    /// This worker's part of an upstream.
    pub(super) fn home(&self, upstream: &Upstream) -> Arc<Home> {
        // The address cannot be given to another upstream while its home, which holds it, is in the map.
        let key = Arc::as_ptr(&upstream.core) as usize;
        let mut homes = self.homes.lock();
        if let Some(home) = homes.get(&key) {
            return home.clone();
        }
        let home = Arc::new(Home::new(self, &upstream.core));
        homes.insert(key, home.clone());
        home
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        self.close();
    }
}

/// One worker's counts for one upstream. Aligned so that workers do not share cache lines.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Gauges {
    open: AtomicUsize,
    /// HTTP/1.1 connections on a shelf.
    idle: AtomicUsize,
    /// HTTP/2 connections without a stream.
    idle_h2: AtomicUsize,
    dials: AtomicU64,
    reused: AtomicU64,
}

impl Gauges {
    pub(super) fn opened(&self) {
        self.dials.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// An HTTP/2 connection has no stream now. How many connections have no request.
    pub(super) fn rests(&self) -> usize {
        self.idle_h2.fetch_add(1, Ordering::Relaxed) + 1 + self.idle.load(Ordering::Relaxed)
    }

    /// It has one again, or is gone.
    pub(super) fn rests_no_more(&self) {
        self.idle_h2.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request found a connection ready.
    pub(super) fn found(&self) {
        self.reused.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the connections of an upstream are doing and have done, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections now.
    pub open: usize,
    /// Those without a request.
    pub idle: usize,
    /// Connections made since the start.
    pub dials: u64,
    /// Requests that found one ready.
    pub reused: u64,
}

impl Totals {
    pub(super) fn of(workers: &[Arc<Gauges>]) -> Self {
        workers.iter().fold(Self::default(), |sum, worker| Self {
            open: sum.open + worker.open.load(Ordering::Relaxed),
            idle: sum.idle
                + worker.idle.load(Ordering::Relaxed)
                + worker.idle_h2.load(Ordering::Relaxed),
            dials: sum.dials + worker.dials.load(Ordering::Relaxed),
            reused: sum.reused + worker.reused.load(Ordering::Relaxed),
        })
    }
}

/// One worker's part of an upstream.
pub(super) struct Home {
    pub(super) core: Arc<Core>,
    pub(super) budget: Budget,
    pub(super) gauges: Arc<Gauges>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) limits: Limits,
    /// Connections kept without a request, at most.
    pub(super) max_idle: usize,
    /// Draws for the balancing; written by this worker alone.
    number: AtomicU64,
    closed: AtomicBool,
    shelves: Mutex<Shelves>,
    /// The connections that speak HTTP/2.
    pub(super) streams: Streams,
}

#[expect(
    clippy::vec_box,
    reason = "the box is the connection's for life: it becomes the watch of a body and comes back"
)]
struct Shelves {
    /// For each endpoint, oldest first.
    ready: Box<[Vec<Box<Conn>>]>,
    /// How many `ready` holds.
    count: usize,
    /// The answer is over, the request's body is not.
    settling: Vec<Box<Conn>>,
}

impl Home {
    fn new(pools: &Pools, core: &Arc<Core>) -> Self {
        let gauges = Arc::<Gauges>::default();
        core.gauges.lock().push(gauges.clone());
        let seed = balance::mix(Arc::as_ptr(&gauges) as u64);
        Self {
            core: core.clone(),
            budget: Budget::default(),
            gauges,
            sweeper: pools.sweeper.clone(),
            limits: pools.limits,
            max_idle: core.max_idle.div_ceil(pools.workers),
            number: AtomicU64::new(seed),
            closed: AtomicBool::new(false),
            shelves: Mutex::new(Shelves {
                ready: core.endpoints.iter().map(|_| Vec::new()).collect(),
                count: 0,
                settling: Vec::new(),
            }),
            streams: Streams::new(core.endpoints.len()),
        }
    }

    fn next_number(&self) -> u64 {
        let number = self.number.load(Ordering::Relaxed).wrapping_add(1);
        self.number.store(number, Ordering::Relaxed);
        number
    }

    /// The endpoint for a request; `h2` when it can only be sent in HTTP/2.
    pub(super) fn pick(&self, client: Option<IpAddr>, tried: &[usize], h2: bool) -> usize {
        if self.core.endpoints.len() < 2 {
            return 0;
        }
        let number = self.next_number();
        let draw = Draw {
            balance: self.core.balance,
            number: match self.core.balance {
                Balance::RoundRobin => number,
                Balance::LeastRequests | Balance::HashIp => {
                    balance::mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                }
            },
            client,
            tried,
            h2,
            now: self.core.millis(),
        };
        balance::pick(&self.core.endpoints, &draw)
    }

    /// The newest ready connection to an endpoint. Dead and old ones are dropped on the way.
    pub(super) fn checkout(&self, at: usize) -> Option<Box<Conn>> {
        let now = self.sweeper.coarse_millis();
        let mut shelves = self.shelves.lock();
        if !shelves.settling.is_empty() {
            self.settle(&mut shelves, now);
        }
        let mut found = None;
        while let Some(conn) = shelves.ready[at].pop() {
            shelves.count -= 1;
            if conn.usable(now) {
                self.gauges.found();
                found = Some(conn);
                break;
            }
        }
        self.gauges.idle.store(shelves.count, Ordering::Relaxed);
        found
    }

    /// A new connection.
    ///
    /// Cancel-safe: a caller that goes away ends the attempt.
    pub(super) async fn open(&self, at: usize) -> io::Result<Box<Conn>> {
        let endpoint = &self.core.endpoints[at];
        let deadline = self.sweeper.deadline();
        let patience = self.core.connect_timeout;
        // In a box of its own: most requests find a connection, and their futures need not have room for a handshake.
        let dialled = deadline
            .within(patience, Box::pin(dial::dial(endpoint.address(), patience)))
            .await
            .unwrap_or_else(|Elapsed| Err(io::ErrorKind::TimedOut.into()));
        match dialled {
            Ok(line) => {
                endpoint.reached();
                let ages = self.ages(endpoint.address());
                Ok(Box::new(Conn::new(line, at, deadline, ages, &self.gauges)))
            }
            Err(error) => {
                endpoint.failed(self.core.millis());
                Err(error)
            }
        }
    }

    /// When a connection that is made now is too old.
    pub(super) fn dies_at(&self, now: u64) -> u64 {
        let spread = balance::mix(self.next_number()) % (self.limits.life / 5).max(1);
        now.saturating_add(self.limits.life - spread)
    }

    /// Whether what becomes idle now is to be closed: no request will come this way again.
    pub(super) fn over(&self) -> bool {
        self.closed.load(Ordering::Acquire) || self.core.retired()
    }

    fn ages(&self, address: &Address) -> Ages {
        let now = self.sweeper.coarse_millis();
        Ages {
            dies_at: self.dies_at(now),
            idle_since: now,
            idle_limit: match address {
                Address::Tls(..) => self.limits.idle_tls,
                Address::Tcp(_) | Address::Unix(_) => self.limits.idle_plain,
            },
        }
    }

    /// Takes a connection back whose answer has come to its end. It still holds its place.
    pub(super) fn take_back(self: &Arc<Self>, mut conn: Box<Conn>) {
        let now = self.sweeper.coarse_millis();
        let closed = self.over();
        let mut shelves = self.shelves.lock();
        if conn.is_ready() {
            self.core.leave(conn.at());
            if !closed {
                conn.rest(now);
                self.shelve(&mut shelves, conn);
            }
            return;
        }
        // Either the upstream closes it, or the request's body is still on its way: an answer can come early.
        let dying = closed || conn.is_closed();
        conn.rest(now);
        conn.engage(self.clone());
        if !dying && shelves.settling.len() < self.max_idle {
            shelves.settling.push(conn);
        }
    }

    fn shelve(&self, shelves: &mut Shelves, conn: Box<Conn>) {
        if shelves.count < self.max_idle {
            shelves.ready[conn.at()].push(conn);
            shelves.count += 1;
            self.gauges.idle.store(shelves.count, Ordering::Relaxed);
        }
    }

    /// Shelves what has settled, and gives up what is dead or takes too long.
    fn settle(&self, shelves: &mut Shelves, now: u64) {
        let mut next = 0;
        while let Some(conn) = shelves.settling.get(next) {
            if conn.is_ready() {
                let mut conn = shelves.settling.swap_remove(next);
                if conn.disengage().is_some() {
                    self.core.leave(conn.at());
                }
                conn.rest(now);
                self.shelve(shelves, conn);
            } else if conn.is_closed() || conn.rested(now) >= self.limits.settle {
                drop(shelves.settling.swap_remove(next));
            } else {
                next += 1;
            }
        }
    }

    fn reap(&self) {
        let now = self.sweeper.coarse_millis();
        self.streams.reap(now, self.limits.settle);
        let mut shelves = self.shelves.lock();
        self.settle(&mut shelves, now);
        let shelves = &mut *shelves;
        for shelf in &mut shelves.ready {
            shelf.retain(|conn| conn.usable(now));
        }
        shelves.count = shelves.ready.iter().map(Vec::len).sum();
        self.gauges.idle.store(shelves.count, Ordering::Relaxed);
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.streams.close();
        let mut shelves = self.shelves.lock();
        let settling = std::mem::take(&mut shelves.settling);
        for shelf in &mut shelves.ready {
            shelf.clear();
        }
        shelves.count = 0;
        self.gauges.idle.store(0, Ordering::Relaxed);
        drop(shelves);
        drop(settling);
    }
}
