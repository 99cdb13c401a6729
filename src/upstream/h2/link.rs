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
use std::time::Duration;

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
    /// Streams whose request is over and whose upload hyper still has. It lets go when the stream has room to send or is
    /// reset; a peer that does neither keeps it for ever.
    strays: AtomicUsize,
    /// Since when there has been one, in the sweeper's milliseconds.
    astray_since: AtomicU64,
    /// All in the sweeper's milliseconds: since when it has no stream, how long it may have none, when it is too old.
    idle_since: AtomicU64,
    idle_limit: u64,
    dies_at: u64,
    /// It has been given a request.
    asked: AtomicBool,
    /// It is given no more requests.
    retired: AtomicBool,
    /// It was silent for too long when something was due, as a peer that has vanished is, or has a stream that it neither
    /// reads nor resets.
    suspect: AtomicBool,
    /// The first wait of those that ended in vain since something was read.
    in_vain: Mutex<Option<Wait>>,
}

/// Since when something is waited for. A peer that says anything at all meanwhile is there.
#[derive(Clone, Copy)]
pub(super) struct Wait {
    /// What the pulse had heard then.
    heard: u64,
    /// The sweeper's milliseconds.
    since: u64,
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
            strays: AtomicUsize::new(0),
            astray_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now),
            idle_limit: home.limits.idle_h2,
            dies_at: home.dies_at(now),
            asked: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            in_vain: Mutex::new(None),
        }
    }

    /// Whether it is to be given requests.
    pub(super) fn usable(&self, now: u64) -> bool {
        let rested = now.saturating_sub(self.idle_since.load(Ordering::Relaxed));
        let young = if self.asked.load(Ordering::Relaxed) {
            now < self.dies_at && (self.streams() > 0 || rested < self.idle_limit)
        } else {
            // Whoever waited for it is about to take it.
            rested < self.idle_limit.max(FRESH)
        };
        young && self.takes()
    }

    /// Whether it can be given requests, however old it is.
    pub(super) fn takes(&self) -> bool {
        !self.retired.load(Ordering::Relaxed) && !self.sender.lock().is_closed()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    fn strays(&self) -> usize {
        self.strays.load(Ordering::Relaxed)
    }

    /// Whether it carries anything.
    pub(super) fn busy(&self) -> bool {
        self.streams() + self.strays() > 0
    }

    /// Whether another stream fits on it.
    pub(super) fn fits(&self) -> bool {
        self.streams() + self.strays() < self.capacity()
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

    /// Something is waited for from now on.
    pub(super) fn wait(&self, now: u64) -> Wait {
        Wait {
            heard: self.pulse.heard(),
            since: now,
        }
    }

    /// A wait has ended in vain. Makes it suspect when nothing was read since it began, or since an earlier one did, for as
    /// long as the route waits: that a client waits less must not cost others their connection.
    pub(super) fn waited(&self, wait: Wait, limit: Duration, now: u64) {
        if self.pulse.heard() != wait.heard {
            return;
        }
        let mut first = self.in_vain.lock();
        let first = match &mut *first {
            Some(first) if first.heard == wait.heard => first,
            other => other.insert(wait),
        };
        let silent = Duration::from_millis(now.saturating_sub(first.since));
        if silent >= limit {
            self.give_up();
        }
    }

    /// It is given no more requests and is cut when the last of them is over.
    fn give_up(&self) {
        self.retire();
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// A stream is to be left before its upload is over.
    pub(super) fn goes_astray(&self, now: u64) {
        if self.strays.fetch_add(1, Ordering::Relaxed) == 0 {
            self.astray_since.store(now, Ordering::Relaxed);
        }
    }

    /// hyper has let go of such an upload.
    pub(super) fn came_back(&self) {
        self.strays.fetch_sub(1, Ordering::Relaxed);
    }

    /// A stream that has been astray for `limit` milliseconds cannot be reset from here. No others join it, and when it has
    /// outlasted them the connection is cut.
    pub(super) fn reap(&self, now: u64, limit: u64) {
        let astray = now.saturating_sub(self.astray_since.load(Ordering::Relaxed));
        if self.strays() > 0 && astray >= limit {
            self.give_up();
            if self.streams() == 0 {
                self.pulse.cut();
            }
        }
    }

    /// Nothing new is wanted of it: it is retired, and does not wait for what is astray.
    pub(super) fn close(&self) {
        self.retire();
        if self.streams() == 0 && self.strays() > 0 {
            self.pulse.cut();
        }
    }

    /// One stream less. Whether it was the last one and the connection is not to be kept.
    pub(super) fn leave(&self, home: &Home) -> bool {
        if self.streams.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        let now = home.sweeper.coarse_millis();
        self.idle_since.store(now, Ordering::Relaxed);
        let too_many = self.gauges.rests() > home.max_idle;
        if home.over() {
            self.close();
        } else if too_many {
            self.retire();
        }
        if self.suspect.load(Ordering::Relaxed) {
            self.pulse.cut();
        }
        // What is astray is looked after as long as it is.
        self.retired.load(Ordering::Relaxed) && self.strays() == 0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gauges.rests_no_more();
        self.gauges.closed();
    }
}
