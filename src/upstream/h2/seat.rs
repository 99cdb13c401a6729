//! One request on an HTTP/2 connection, from the moment it is handed over until its answer and its upload are both over,
//! or one of them is given up. A stream that is given up is reset and takes nothing with it.

use super::link::{Link, Wait};
use crate::base::body::{Body, BodyError, End, Watch};
use crate::base::deadline::Deadline;
use crate::upstream::conn::CLIENT_SILENCE;
use crate::upstream::pool::Home;
use crate::upstream::retry::BodyFault;
use crate::upstream::send::Terms;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::request::Parts;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The place of a request on a connection and at the endpoint.
pub(super) struct Seat {
    home: Arc<Home>,
    link: Arc<Link>,
    at: usize,
    /// For the head of the answer, then for silence in its body, then for what is left of the upload.
    deadline: Deadline,
    state: Mutex<State>,
    /// Wakes who sends the upload.
    sends: AtomicWaker,
}

/// How far a request has come. It only ever goes down this list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The head of the answer is awaited, and nothing of the request's body is gone: it can be had back.
    Untouched,
    /// The head is awaited, and some of the body is gone.
    Asked,
    /// The body of the answer is read.
    Answers,
    /// The answer is read to its end; what is left of the upload has a while to follow.
    Settles,
    /// The places are given back, but for that on the connection while hyper has the upload.
    Left,
}

struct State {
    stage: Stage,
    /// Since when the upstream owes something: the head, or more of the body.
    wait: Wait,
    /// The request's body; `None` when it is over or was had back.
    body: Option<Body>,
    /// hyper has not let go of the body.
    sending: bool,
    /// What was wrong with the body.
    fault: Option<BodyFault>,
}

impl State {
    /// Goes on to a later stage. Gives what is to be dropped, outside the lock.
    fn proceed(&mut self, to: Stage) -> Option<Body> {
        self.stage = self.stage.max(to);
        // Whoever could have it back will not ask any more.
        if self.sending { None } else { self.body.take() }
    }
}

/// What became of a request.
pub(super) enum Outcome {
    /// The head of an answer.
    Answer(Response<Incoming>),
    /// Something else.
    Failed(Box<Failure>),
    /// Nothing in time.
    Elapsed,
}

/// Why there is no answer, and what is left of the request.
pub(super) struct Failure {
    /// What hyper says.
    pub(super) error: TrySendError<Request<Body>>,
    /// What was wrong with the request's body, if that is why.
    pub(super) fault: Option<BodyFault>,
    /// The request's body, if nothing of it is gone.
    pub(super) body: Option<Body>,
}

impl Seat {
    /// Both places are the seat's from here on.
    pub(super) fn new(
        home: Arc<Home>,
        link: Arc<Link>,
        at: usize,
        deadline: Deadline,
    ) -> Arc<Self> {
        let wait = link.wait(home.sweeper.coarse_millis());
        Arc::new(Self {
            home,
            link,
            at,
            deadline,
            state: Mutex::new(State {
                stage: Stage::Untouched,
                wait,
                body: None,
                sending: false,
                fault: None,
            }),
            sends: AtomicWaker::new(),
        })
    }

    /// The connection.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends the request and waits for the head of the answer, or the deadline.
    ///
    /// Cancel-safe: a caller that goes away resets the stream.
    pub(super) async fn exchange(
        self: &Arc<Self>,
        head: Parts,
        body: Body,
        terms: &Terms,
    ) -> Outcome {
        let _asking = Asking(self);
        let timeout = terms.wait();
        let (body, kept) = if body.is_end_stream() {
            (body, Body::empty())
        } else {
            self.state.lock().sending = true;
            let upload = Upload {
                seat: self.clone(),
                timeout,
            };
            (Body::stream(upload), body)
        };
        self.state.lock().body = Some(kept);
        let answer = self.link.ask(Request::from_parts(head, body));
        match self.deadline.within(timeout, answer).await {
            Ok(Ok(response)) => {
                let gone = self.state.lock().proceed(Stage::Answers);
                drop(gone);
                Outcome::Answer(response)
            }
            Ok(Err(error)) => {
                let mut state = self.state.lock();
                let untouched = state.stage == Stage::Untouched;
                Outcome::Failed(Box::new(Failure {
                    error,
                    fault: state.fault,
                    body: state.body.take_if(|_| untouched),
                }))
            }
            Err(_elapsed) => {
                self.waited(terms.timeout);
                Outcome::Elapsed
            }
        }
    }

    fn arm(&self, state: &mut State, after: Duration) {
        state.wait = self.link.wait(self.home.sweeper.coarse_millis());
        self.deadline.arm(after);
    }

    /// Nothing came. `limit` is how long the route waits.
    fn waited(&self, limit: Duration) {
        let wait = self.state.lock().wait;
        let now = self.home.sweeper.coarse_millis();
        self.link.waited(wait, limit, now);
    }

    /// The answer is read to its end. What is left of an upload has a while to follow.
    pub(super) fn answered(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let gone = state.proceed(Stage::Settles);
        let sending = state.sending;
        drop(state);
        drop(gone);
        if sending && self.home.over() {
            return self.cut();
        }
        self.deadline
            .arm(Duration::from_millis(self.home.limits.settle));
        self.sends.wake();
        if sending {
            self.home.streams.settles(self);
        }
    }

    /// Whether what is left of the upload has had its while. hyper looks at the upload only when there is room to send.
    pub(super) fn overdue(&self) -> bool {
        self.deadline.has_passed()
    }

    /// The stream is given up: its places are free at once, and the upload ends.
    pub(super) fn cut(&self) {
        self.leave();
        self.sends.wake();
    }

    fn leave(&self) {
        let mut state = self.state.lock();
        if state.stage == Stage::Left {
            return;
        }
        let gone = state.proceed(Stage::Left);
        if state.sending {
            self.link.goes_astray(self.home.sweeper.coarse_millis());
        }
        drop(state);
        drop(gone);
        self.home.core.leave(self.at);
        if self.link.leave(&self.home) {
            self.home.streams.remove(self.at, &self.link);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
        self.home.streams.recycle(&self.deadline);
    }
}

/// Gives the stream up unless the head of an answer has come.
struct Asking<'a>(&'a Arc<Seat>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let stage = self.0.state.lock().stage;
        if stage <= Stage::Asked {
            self.0.cut();
        }
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
        seat.sends.register(cx.waker());
        let mut state = seat.state.lock();
        let unwanted = match state.stage {
            Stage::Untouched | Stage::Asked | Stage::Answers => false,
            Stage::Settles => seat.deadline.poll_passed(cx),
            Stage::Left => true,
        };
        let Some(body) = state.body.as_mut().filter(|_| !unwanted) else {
            // Ends the stream; nobody is told.
            return Poll::Ready(Some(Err(BodyError::Abandoned)));
        };
        let next = Pin::new(body).poll_frame(cx);
        let patience = match &next {
            Poll::Pending => self.timeout.max(CLIENT_SILENCE),
            Poll::Ready(next) => {
                state.stage = state.stage.max(Stage::Asked);
                if let Some(Err(error)) = next {
                    state.fault = Some(BodyFault::of(error));
                }
                self.timeout
            }
        };
        if state.stage <= Stage::Asked {
            seat.arm(&mut state, patience);
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        let state = self.seat.state.lock();
        state.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.seat.state.lock();
        let hint = state.body.as_ref().map(|body| body.size_hint());
        hint.unwrap_or_default()
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let mut state = self.seat.state.lock();
        state.sending = false;
        if state.stage == Stage::Left {
            self.seat.link.came_back();
        }
        // One that came back whole may be sent again.
        let over = state.stage > Stage::Untouched;
        let gone = state.body.take_if(|_| over);
        drop(state);
        drop(gone);
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
            let mut state = self.seat.state.lock();
            self.seat.arm(&mut state, self.idle_timeout);
        }
        if self.seat.deadline.poll_passed(cx) {
            self.seat.waited(self.idle_timeout);
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
