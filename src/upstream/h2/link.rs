//! One HTTP/2 connection to an upstream, and what looks on while requests and answers pass over it, each on a stream of
//! its own. A stream that is given up is reset and takes nothing with it.

use super::wire::{Fresh, Pulse};
use crate::base::body::{Body, BodyError, End, Watch};
use crate::base::deadline::{Deadline, Elapsed};
use crate::upstream::conn::CLIENT_SILENCE;
use crate::upstream::pool::{Gauges, Home};
use crate::upstream::retry::BodyFault;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http2::SendRequest;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Streams at once on one connection, at most; a peer may allow fewer. What a lost connection can cost.
pub(super) const MAX_STREAMS: usize = 100;

/// Milliseconds that a new connection waits for its first request, at least.
const FRESH: u64 = 1_000;

/// What hyper says about a request.
type Exchanged = Result<Response<Incoming>, TrySendError<Request<Body>>>;

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

    fn suspect(&self) {
        self.retire();
        self.suspect.store(true, Ordering::Relaxed);
    }

    /// One stream less. Whether it was the last one and the connection is not to be kept.
    fn leave(&self, home: &Home) -> bool {
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

/// One request on a connection: its place there and at the endpoint, until the answer and the upload are both over, or
/// one of them is given up.
pub(super) struct Seat {
    home: Arc<Home>,
    link: Arc<Link>,
    at: usize,
    /// For the head of the answer, then for silence in its body, then for what is left of the upload.
    deadline: Deadline,
    awaits_head: AtomicBool,
    /// The answer is read to its end.
    answered: AtomicBool,
    /// The places are given back.
    left: AtomicBool,
    upload: Mutex<Load>,
    /// Wakes who sends the upload.
    sends: AtomicWaker,
}

/// The body of a request, where it can be had back as long as nothing of it is gone.
#[derive(Default)]
struct Load {
    body: Body,
    touched: bool,
    fault: Option<BodyFault>,
}

impl Seat {
    /// Both places are the seat's from here on.
    pub(super) fn new(
        home: Arc<Home>,
        link: Arc<Link>,
        at: usize,
        deadline: Deadline,
    ) -> Arc<Self> {
        Arc::new(Self {
            home,
            link,
            at,
            deadline,
            awaits_head: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            left: AtomicBool::new(false),
            upload: Mutex::default(),
            sends: AtomicWaker::new(),
        })
    }

    /// The connection.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// The head of the answer, or the deadline.
    ///
    /// Cancel-safe: a caller that goes away resets the stream.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        request: Request<Body>,
        timeout: Duration,
    ) -> Result<Exchanged, Elapsed> {
        let cutting = Cutting(self);
        self.awaits_head.store(true, Ordering::Relaxed);
        let request = if request.body().is_end_stream() {
            request
        } else {
            let (head, body) = request.into_parts();
            self.upload.lock().body = body;
            let upload = Upload {
                seat: self.clone(),
                timeout,
            };
            Request::from_parts(head, Body::stream(upload))
        };
        let answer = self.link.sender.lock().try_send_request(request);
        let answer = self.deadline.within(timeout, answer).await;
        self.awaits_head.store(false, Ordering::Relaxed);
        match answer {
            Ok(Ok(response)) => {
                std::mem::forget(cutting);
                Ok(Ok(response))
            }
            Ok(Err(failed)) => Ok(Err(failed)),
            Err(elapsed) => {
                self.link.suspect();
                Err(elapsed)
            }
        }
    }

    /// What was wrong with the request's body, if that is why there is no answer.
    pub(super) fn fault(&self) -> Option<BodyFault> {
        self.upload.lock().fault
    }

    /// The request's body, if nothing of it is gone.
    pub(super) fn take_back(&self) -> Option<Body> {
        let mut upload = self.upload.lock();
        (!upload.touched).then(|| std::mem::take(&mut upload.body))
    }

    /// The answer is read to its end. What is left of an upload has a while to follow.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
        self.deadline
            .arm(Duration::from_millis(self.home.limits.settle));
        self.sends.wake();
    }

    /// The stream is given up: its places are free at once, and the upload ends.
    pub(super) fn cut(&self) {
        self.leave();
        self.sends.wake();
    }

    fn leave(&self) {
        if self.left.swap(true, Ordering::Relaxed) {
            return;
        }
        self.home.core.leave(self.at);
        if self.link.leave(&self.home) {
            self.home.streams.remove(self.at, &self.link);
        }
    }

    fn arm(&self, after: Duration) {
        if self.awaits_head.load(Ordering::Relaxed) {
            self.deadline.arm(after);
        }
    }

    /// Whether nobody wants the rest of the upload; the task is woken when that comes to be.
    fn unwanted(&self, cx: &mut Context<'_>) -> bool {
        self.sends.register(cx.waker());
        self.left.load(Ordering::Relaxed)
            || (self.answered.load(Ordering::Relaxed) && self.deadline.poll_passed(cx))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.home.streams.recycle(&self.deadline);
    }
}

/// Gives the stream up unless the head of an answer has come.
struct Cutting<'a>(&'a Arc<Seat>);

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// A request's body on its way. The time to the answer's head counts only while it is the upstream's turn, as for
/// HTTP/1.1.
struct Upload {
    seat: Arc<Seat>,
    timeout: Duration,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let seat = &self.seat;
        if seat.unwanted(cx) {
            // Ends the stream; nobody is told.
            return Poll::Ready(Some(Err(BodyError::Stalled)));
        }
        let mut upload = seat.upload.lock();
        let next = Pin::new(&mut upload.body).poll_frame(cx);
        match &next {
            Poll::Pending => seat.arm(self.timeout.max(CLIENT_SILENCE)),
            Poll::Ready(next) => {
                upload.touched = true;
                if let Some(Err(error)) = next {
                    upload.fault = Some(BodyFault::of(error));
                }
                seat.arm(self.timeout);
            }
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.seat.upload.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.seat.upload.lock().body.size_hint()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut upload = self.seat.upload.lock();
        // One that came back whole may be sent again.
        let over = upload.touched || !self.seat.awaits_head.load(Ordering::Relaxed);
        let body = over.then(|| std::mem::take(&mut upload.body));
        drop(upload);
        drop(body);
    }
}

/// Watches the body of an answer.
pub(super) struct Answer {
    pub(super) seat: Arc<Seat>,
    /// How long it may be silent.
    pub(super) idle_timeout: Duration,
    /// The body has nothing to give and the deadline is set.
    pub(super) waiting: bool,
}

impl Watch for Answer {
    fn data(&mut self, _bytes: usize) -> Result<(), BodyError> {
        self.waiting = false;
        Ok(())
    }

    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if !self.waiting {
            self.waiting = true;
            self.seat.deadline.arm(self.idle_timeout);
        }
        if self.seat.deadline.poll_passed(cx) {
            self.seat.link.suspect();
            return Err(BodyError::Stalled);
        }
        Ok(())
    }

    fn end(self: Box<Self>, how: End) {
        if how == End::Whole {
            self.seat.answered();
        } else {
            self.seat.cut();
        }
    }
}
