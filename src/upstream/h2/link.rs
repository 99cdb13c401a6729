//! One HTTP/2 connection to an upstream: how many streams it has, and for how long it is given more.

use super::wire::{Fresh, Pulse};
use crate::base::body::Body;
use crate::upstream::pool::{Gauges, Home};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Streams at once on one connection, at most; a peer may allow fewer. What a lost connection can cost.
pub(super) const MAX_STREAMS: usize = 100;

/// Milliseconds that a new connection waits for its first request, at least.
const FRESH: u64 = 1_000;

/// What hyper says about a request.
pub(super) type Exchanged = Result<Response<Incoming>, TrySendError<Request<Body>>>;

/// A connection. The pool has it while it may be given more requests, each stream as long as it lasts; when the last of
/// them lets go, it is closed.
pub(super) struct Link {
    sender: Mutex<SendRequest<Body>>,
    pulse: Arc<Pulse>,
    gauges: Arc<Gauges>,
    /// Under way.
    streams: AtomicUsize,
    /// All in the sweeper's milliseconds: since when it has no stream, how long it may have none, when it is too old.
    idle_since: AtomicU64,
    idle_limit: u64,
    dies_at: u64,
    /// It has been given a request.
    asked: AtomicBool,
    /// It is given no more requests.
    retired: AtomicBool,
    /// A request on it was given up for silence. A peer that has vanished looks like this, and only this.
    suspect: AtomicBool,
}

impl Link {
    pub(super) fn new(fresh: Fresh, home: &Home) -> Self {
        let now = home.sweeper.coarse_millis();
        home.gauges.opened();
        home.gauges.rests();
        Self {
            sender: Mutex::new(fresh.sender),
            pulse: fresh.pulse,
            gauges: home.gauges.clone(),
            streams: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now),
            idle_limit: home.limits.idle_h2,
            dies_at: home.dies_at(now),
            asked: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
        }
    }

    /// Whether it may be given requests at all.
    pub(super) fn usable(&self, now: u64) -> bool {
        let rested = now.saturating_sub(self.idle_since.load(Ordering::Relaxed));
        let young = if self.asked.load(Ordering::Relaxed) {
            now < self.dies_at && (self.streams() > 0 || rested < self.idle_limit)
        } else {
            // Whoever waited for it is about to take it.
            rested < self.idle_limit.max(FRESH)
        };
        young && !self.retired.load(Ordering::Relaxed) && !self.sender.lock().is_closed()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Streams that fit on it, those that it has included.
    pub(super) fn capacity(&self) -> usize {
        self.pulse.allows().min(MAX_STREAMS)
    }

    /// One stream more. The caller has seen that it fits.
    pub(super) fn enter(&self) {
        self.asked.store(true, Ordering::Relaxed);
        if self.streams.fetch_add(1, Ordering::Relaxed) == 0 {
            self.gauges.rests_no_more();
        }
    }

    /// It is given no more requests; those that it has go on.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }

    /// Hands a request over; the future is for the head of its answer.
    pub(super) fn ask(&self, request: Request<Body>) -> impl Future<Output = Exchanged> + Send {
        self.sender.lock().try_send_request(request)
    }

    pub(super) fn suspect(&self) {
        self.retire();
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// One stream less. Whether it was the last one and the connection is not to be kept.
    pub(super) fn leave(&self, home: &Home) -> bool {
        if self.streams.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        let now = home.sweeper.coarse_millis();
        self.idle_since.store(now, Ordering::Relaxed);
        if self.suspect.load(Ordering::Relaxed) {
            self.pulse.cut();
        }
        let too_many = self.gauges.rests() > home.max_idle;
        too_many || home.over() || self.retired.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gauges.rests_no_more();
        self.gauges.closed();
    }
}
