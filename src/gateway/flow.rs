//! What a request tells the connection that it came on: alone on it (HTTP/1.1), or one of many (HTTP/2).

use super::pace::{LINGER, Pace, Pulse};
use crate::base::body::End;
use crate::base::deadline::{Deadline, Sweeper};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Context;

/// The connection as one request sees it.
#[derive(Clone, Debug)]
pub enum Beat {
    /// The connection's only request.
    Line(Arc<Pulse>),
    /// One stream of several.
    Stream(Arc<Flow>),
}

/// One request of an HTTP/2 connection (RFC 9113 §5). When the last one who has it lets go, it is over.
#[derive(Debug)]
pub struct Flow {
    connection: Arc<Pulse>,
    /// A piece of the answer was handed over and no other has been asked for: it waits for the client's window.
    waits: AtomicBool,
    /// `write` is armed.
    armed: AtomicBool,
    /// Made when it is first needed: most answers never wait.
    write: OnceLock<Deadline>,
    /// Made when the answer is out and the request is not over.
    linger: OnceLock<Deadline>,
    /// Made when the answer is waited for.
    lasting: OnceLock<Deadline>,
    /// The answer went out to its end, or failed on our side.
    excused: AtomicBool,
}

impl Flow {
    /// A request begins on a connection.
    pub fn begin(connection: &Arc<Pulse>) -> Arc<Self> {
        connection.stream_began();
        Arc::new(Self {
            connection: connection.clone(),
            waits: AtomicBool::new(false),
            armed: AtomicBool::new(false),
            write: OnceLock::new(),
            linger: OnceLock::new(),
            lasting: OnceLock::new(),
            excused: AtomicBool::new(false),
        })
    }

    /// Whether the client has taken nothing of the answer for as long as `write_idle_timeout` allows, its window being
    /// shut (CVE-2019-9517); if not, the task is woken when that is so. To be asked by the stream's own task.
    pub fn is_stalled(&self, cx: &mut Context<'_>) -> bool {
        if !self.waits.load(Ordering::Relaxed) {
            return false;
        }
        let write = self
            .write
            .get_or_init(|| self.connection.sweeper().deadline());
        if !self.armed.swap(true, Ordering::Relaxed) {
            write.arm(self.connection.pace.write_idle);
        }
        write.poll_passed(cx)
    }

    /// Whether a request that nobody reads any more has been let go on after its answer for as long as it may, counted
    /// from the first call; if not, the task is woken when that is so. To be asked by the stream's own task.
    pub fn has_lingered(&self, cx: &mut Context<'_>) -> bool {
        let linger = self.linger.get_or_init(|| {
            let linger = self.connection.sweeper().deadline();
            linger.arm(LINGER);
            linger
        });
        linger.poll_passed(cx)
    }

    /// It is not the client that ends it before its end.
    pub fn excuse(&self) {
        self.excused.store(true, Ordering::Relaxed);
    }

    fn handed(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
        if self.armed.swap(false, Ordering::Relaxed)
            && let Some(write) = self.write.get()
        {
            write.disarm();
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.connection
            .stream_ended(!self.excused.load(Ordering::Relaxed));
    }
}

impl Beat {
    fn pulse(&self) -> &Arc<Pulse> {
        match self {
            Self::Line(pulse) => pulse,
            Self::Stream(flow) => &flow.connection,
        }
    }

    /// The timers.
    pub(super) fn pace(&self) -> &Pace {
        &self.pulse().pace
    }

    /// The worker's deadlines.
    pub(super) fn sweeper(&self) -> &Arc<Sweeper> {
        self.pulse().sweeper()
    }

    /// A head is complete.
    pub(super) fn request_began(&self) {
        if let Self::Line(pulse) = self {
            pulse.request_began();
        }
    }

    /// The answer went out to its end.
    pub(super) fn request_ended(&self) {
        match self {
            Self::Line(pulse) => pulse.request_ended(),
            Self::Stream(flow) => flow.excuse(),
        }
    }

    /// The answer failed, and not for the client.
    pub(super) fn request_failed(&self) {
        if let Self::Stream(flow) = self {
            flow.excuse();
        }
    }

    /// A piece of the answer was handed over.
    pub(super) fn handed_over(&self) {
        if let Self::Stream(flow) = self {
            flow.handed(true);
        }
    }

    /// Another piece of the answer is asked for, and there is none.
    pub(super) fn asked(&self) {
        if let Self::Stream(flow) = self {
            flow.handed(false);
        }
    }

    /// The body of the request is still to come.
    pub(super) fn body_began(&self) {
        if let Self::Line(pulse) = self {
            pulse.body_began();
        }
    }

    /// The deadline for the body of the request: the connection's own, or one that is made for a stream that has a body.
    pub(super) fn body(&self) -> Deadline {
        match self {
            Self::Line(pulse) => pulse.body(),
            Self::Stream(flow) => flow.connection.sweeper().deadline(),
        }
    }

    /// When an answer that is waited for has lasted; whoever waits for it arms it.
    pub(super) fn lasting(&self) -> &Deadline {
        match self {
            Self::Line(pulse) => pulse.lasting(),
            Self::Stream(flow) => flow
                .lasting
                .get_or_init(|| flow.connection.sweeper().deadline()),
        }
    }

    /// The body of the request is over.
    pub(super) fn body_ended(&self, how: End) {
        if let Self::Line(pulse) = self {
            pulse.body_ended(how);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;
    use std::time::Duration;

    fn connection(sweeper: &Arc<Sweeper>) -> Arc<Pulse> {
        let pace = Pace {
            head: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            body_idle: Duration::from_secs(30),
            body_min_rate: 0,
            write_idle: Duration::from_secs(60),
        };
        Arc::new(Pulse::shared(sweeper, Arc::new(pace)))
    }

    #[test]
    fn an_answer_waits_for_its_client_only_so_long() {
        let sweeper = Sweeper::new();
        let flow = Flow::begin(&connection(&sweeper));
        let beat = Beat::Stream(flow.clone());
        let mut cx = Context::from_waker(Waker::noop());
        let mut now = 0;
        let mut pass = |seconds| {
            now += seconds;
            sweeper.tick_at(Duration::from_secs(now));
        };
        beat.asked();
        assert!(!flow.is_stalled(&mut cx), "it waits for the upstream");
        pass(100);
        assert!(!flow.is_stalled(&mut cx));
        beat.handed_over();
        assert!(!flow.is_stalled(&mut cx));
        pass(59);
        assert!(!flow.is_stalled(&mut cx));
        beat.handed_over();
        assert!(!flow.is_stalled(&mut cx), "it moved");
        pass(59);
        assert!(!flow.is_stalled(&mut cx));
        pass(2);
        assert!(flow.is_stalled(&mut cx));
    }

    #[test]
    fn an_upload_goes_on_after_its_answer_only_so_long_counted_from_then() {
        let sweeper = Sweeper::new();
        let flow = Flow::begin(&connection(&sweeper));
        let mut cx = Context::from_waker(Waker::noop());
        sweeper.tick_at(Duration::from_secs(100));
        assert!(!flow.has_lingered(&mut cx));
        sweeper.tick_at(Duration::from_millis(101_900));
        assert!(!flow.has_lingered(&mut cx));
        sweeper.tick_at(Duration::from_secs(103));
        assert!(flow.has_lingered(&mut cx));
    }

    #[test]
    fn a_connection_is_over_when_it_has_had_no_stream_for_long_enough() {
        let sweeper = Sweeper::new();
        let connection = connection(&sweeper);
        let (one, other) = (Flow::begin(&connection), Flow::begin(&connection));
        sweeper.tick_at(Duration::from_secs(100));
        drop(one);
        assert!(!connection.is_over(false) && !connection.is_over(true));
        drop(other);
        sweeper.tick_at(Duration::from_secs(174));
        assert!(!connection.is_over(false) && !connection.read_has_passed());
        sweeper.tick_at(Duration::from_secs(176));
        assert!(!connection.read_has_passed(), "it is told first");
        assert!(!connection.poll_read_passed(&mut Context::from_waker(Waker::noop())));
        assert!(connection.is_over(false));
        sweeper.tick_at(Duration::from_secs(180));
        assert!(connection.read_has_passed());
    }

    #[test]
    fn a_client_that_says_nothing_is_cut_when_a_head_would_be_and_one_that_has_begun_is_told() {
        let sweeper = Sweeper::new();
        let (silent, greeted) = (connection(&sweeper), connection(&sweeper));
        sweeper.tick_at(Duration::from_secs(9));
        greeted.greeted();
        assert!(!silent.read_has_passed());
        sweeper.tick_at(Duration::from_secs(11));
        assert!(silent.read_has_passed() && !silent.is_over(false));
        assert!(!greeted.read_has_passed() && !greeted.is_over(false));
        sweeper.tick_at(Duration::from_secs(85));
        assert!(greeted.is_over(false));
    }

    #[test]
    fn a_client_that_cuts_many_answers_at_once_is_noticed_and_one_that_does_so_now_and_then_is_not()
    {
        let sweeper = Sweeper::new();
        let connection = connection(&sweeper);
        for second in 0..50 {
            sweeper.tick_at(Duration::from_secs(second));
            (0..50).for_each(|_| drop(Flow::begin(&connection)));
        }
        assert!(!connection.is_flooded());
        for _ in 0..200 {
            Beat::Stream(Flow::begin(&connection)).request_ended();
            Beat::Stream(Flow::begin(&connection)).request_failed();
        }
        assert!(!connection.is_flooded());
        (0..100).for_each(|_| drop(Flow::begin(&connection)));
        assert!(connection.is_flooded());
    }
}
