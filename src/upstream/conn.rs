//! One connection to an upstream, from the dial to its end, and what looks on while bodies pass over it: one deadline
//! for both directions, and nothing allocated for a request but the watch of an upload.

use super::dial::Line;
use super::pool::{Gauges, Home};
use crate::base::body::{Body, BodyError, End, Watch};
use crate::base::deadline::{Deadline, Elapsed};
use http::{HeaderMap, HeaderName};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::SendRequest;
use hyper::upgrade::{OnUpgrade, Upgraded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use std::time::Duration;
use tokio::task::JoinHandle;

/// What `Keep-Alive: timeout=N` may set the idle limit to, at most. Milliseconds.
const IDLE_MAX: u64 = 60_000;

/// What stands in for a client's own deadlines while an upload waits for it. They are far shorter.
pub(super) const CLIENT_SILENCE: Duration = Duration::from_secs(3600);

/// What hyper says about a request: an answer, or an error that gives the request back if none of it was written.
type Exchanged = Result<http::Response<Incoming>, TrySendError<http::Request<Body>>>;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// When a connection is too old. All in the sweeper's milliseconds.
pub(super) struct Ages {
    /// When it is not taken again.
    pub(super) dies_at: u64,
    /// Since when it has had no request, or only the rest of one.
    pub(super) idle_since: u64,
    /// How long it may have none.
    pub(super) idle_limit: u64,
}

/// A connection to an upstream. In its box it is on a shelf, with a request, or, as the watch of an answer's body, on
/// its way back: the same allocation for all its life.
pub(super) struct Conn {
    sender: SendRequest<Body>,
    task: JoinHandle<()>,
    /// Tells the socket that what passes is no HTTP any more.
    raw: Arc<AtomicBool>,
    gauges: Arc<Gauges>,
    /// Where to go back to, while it has a request. Then it holds a place at its endpoint, and dropping it closes it
    /// at once: what is left unread cannot be told from the next answer.
    home: Option<Arc<Home>>,
    at: usize,
    /// For the head of an answer, then for silence in its body.
    deadline: Deadline,
    /// No answer has come yet; shared with the request's body.
    awaits_head: Arc<AtomicBool>,
    idle_timeout: Duration,
    /// The body has nothing to give and the deadline is set.
    waiting: bool,
    ages: Ages,
    /// The first answer has been asked how long the upstream waits.
    heeded: bool,
}

impl Conn {
    pub(super) fn new(
        line: Line,
        at: usize,
        deadline: Deadline,
        ages: Ages,
        gauges: &Arc<Gauges>,
    ) -> Self {
        gauges.opened();
        Self {
            sender: line.sender,
            task: line.task,
            raw: line.raw,
            gauges: gauges.clone(),
            home: None,
            at,
            deadline,
            awaits_head: Arc::new(AtomicBool::new(false)),
            idle_timeout: Duration::ZERO,
            waiting: false,
            ages,
            heeded: false,
        }
    }

    /// Which endpoint it leads to.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Both messages are over and the upstream has not closed it.
    pub(super) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it may carry another request.
    pub(super) fn usable(&self, now: u64) -> bool {
        self.is_ready() && now < self.ages.dies_at && self.rested(now) < self.ages.idle_limit
    }

    /// It has no request from now on.
    pub(super) fn rest(&mut self, now: u64) {
        self.ages.idle_since = now;
    }

    /// How long it has had none.
    pub(super) fn rested(&self, now: u64) -> u64 {
        now.saturating_sub(self.ages.idle_since)
    }

    /// Gives it a request to carry. Its place at the endpoint is the connection's from here on.
    pub(super) fn engage(&mut self, home: Arc<Home>) {
        self.home = Some(home);
    }

    /// Takes the request away again. Whoever does so gives the place back.
    pub(super) fn disengage(&mut self) -> Option<Arc<Home>> {
        self.home.take()
    }

    /// The head of the answer, or the deadline.
    ///
    /// The request is handed over by the call itself, so that the future need not hold it.
    pub(super) fn exchange(
        &mut self,
        mut request: http::Request<Body>,
        timeout: Duration,
    ) -> impl Future<Output = Result<Exchanged, Elapsed>> + Send {
        self.awaits_head.store(true, Ordering::Relaxed);
        if !request.body().is_end_stream() {
            let upload = Box::new(Upload {
                deadline: self.deadline.clone(),
                awaits_head: self.awaits_head.clone(),
                timeout,
            });
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = body.watched(upload);
        }
        let answer = self.sender.try_send_request(request);
        async move {
            let answer = self.deadline.within(timeout, answer).await;
            self.awaits_head.store(false, Ordering::Relaxed);
            answer
        }
    }

    /// What an upstream that switched protocols goes on with. Nothing of it is HTTP any more, and the connection can only be
    /// dropped.
    pub(super) async fn switch(
        &mut self,
        switching: OnUpgrade,
        timeout: Duration,
    ) -> Result<Result<Upgraded, hyper::Error>, Elapsed> {
        self.raw.store(true, Ordering::Relaxed);
        self.deadline.within(timeout, switching).await
    }

    /// Believes an upstream that says how long it keeps an idle connection; a second less, to be first.
    pub(super) fn heed(&mut self, headers: &HeaderMap) {
        if std::mem::replace(&mut self.heeded, true) {
            return;
        }
        let seconds = headers
            .get(KEEP_ALIVE)
            .and_then(|value| value.to_str().ok())
            .and_then(keep_alive_timeout);
        if let Some(seconds) = seconds {
            self.ages.idle_limit = (seconds.saturating_sub(1) * 1000).min(IDLE_MAX);
        }
    }

    /// The answer is read to its end.
    pub(super) fn release(mut self: Box<Self>) {
        self.deadline.disarm();
        self.waiting = false;
        if let Some(home) = self.home.take() {
            home.take_back(self);
        }
    }

    /// The body of the answer may be silent for this long. It comes back when the body has ended.
    pub(super) fn follow(mut self: Box<Self>, idle_timeout: Duration) -> Box<dyn Watch> {
        self.idle_timeout = idle_timeout;
        self
    }
}

impl Watch for Conn {
    fn data(&mut self, _bytes: usize) -> Result<(), BodyError> {
        self.waiting = false;
        Ok(())
    }

    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        if !self.waiting {
            self.waiting = true;
            self.deadline.arm(self.idle_timeout);
        }
        if self.deadline.poll_passed(cx) {
            return Err(BodyError::Stalled);
        }
        Ok(())
    }

    fn end(self: Box<Self>, how: End) {
        if how == End::Whole {
            self.release();
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.gauges.closed();
        if let Some(home) = self.home.take() {
            home.core.leave(self.at);
            self.task.abort();
        }
    }
}

/// Looks on while a request's body goes to the upstream. The time to the answer's head counts only while it is the
/// upstream's turn: a slow client has its own deadlines, and must not look like a slow upstream.
struct Upload {
    deadline: Deadline,
    awaits_head: Arc<AtomicBool>,
    timeout: Duration,
}

impl Upload {
    fn arm(&self, after: Duration) {
        if self.awaits_head.load(Ordering::Relaxed) {
            self.deadline.arm(after);
        }
    }
}

impl Watch for Upload {
    fn data(&mut self, _bytes: usize) -> Result<(), BodyError> {
        self.arm(self.timeout);
        Ok(())
    }

    fn pending(&mut self, _cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.arm(self.timeout.max(CLIENT_SILENCE));
        Ok(())
    }

    fn end(self: Box<Self>, _how: End) {
        self.arm(self.timeout);
    }
}

/// `timeout=N` of a `Keep-Alive` field (RFC 2068 §19.7.1; still what Node and Apache send). Seconds.
fn keep_alive_timeout(value: &str) -> Option<u64> {
    value.split(',').find_map(|part| {
        let (name, seconds) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("timeout")
            .then(|| seconds.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alive_is_read_as_servers_write_it() {
        let check = |value, expected| assert_eq!(keep_alive_timeout(value), expected, "{value}");
        check("timeout=5", Some(5));
        check("timeout=5, max=100", Some(5));
        check("max=100, Timeout = 15", Some(15));
        check("max=100", None);
        check("timeout=", None);
        check("timeout=-1", None);
        check("timeout", None);
        check("", None);
    }
}
