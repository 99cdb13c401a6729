//! One record for each request, whatever becomes of it: written when the body of its answer has ended, or when the
//! request is dropped on the way.

use super::Local;
use super::bond::Bond;
use super::facts::Exchange;
use super::flow::Beat;
use crate::base::body::{Body, BodyError, End, Ending, Watch};
use crate::exchange::Code;
use crate::headers::strip;
use crate::telemetry;
use crate::token::{Over, Tie};
use crate::upstream::upgrade::Passed;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

/// The client went away before it had its answer; the word is nginx's, no such status is ever sent.
const CLIENT_GONE: u16 = 499;

/// What will be written of this request. Dropping it writes it.
pub(super) struct Record {
    pub(super) ex: Exchange,
    local: Arc<Local>,
    beat: Beat,
    status: Option<StatusCode>,
    /// Of the request's body; `None`: it has none.
    bytes_in: Option<Arc<AtomicU64>>,
    bytes_out: u64,
    whole: bool,
    bond: Bond,
    /// It ended with its session.
    over: Option<Over>,
}

impl Record {
    /// In its box from the start: it will be the watch of a body, and until then it need not be moved about.
    pub(super) fn open(local: &Arc<Local>, ex: Exchange, beat: Beat) -> Box<Self> {
        beat.request_began();
        Box::new(Self {
            ex,
            local: local.clone(),
            beat,
            status: None,
            bytes_in: None,
            bytes_out: 0,
            whole: false,
            bond: Bond::Free,
            over: None,
        })
    }

    /// Holds the client to its pace while the body of its request is awaited, and counts the bytes.
    pub(super) fn watch(&mut self, body: Body) -> Body {
        super::upload::watch(body, &self.beat, &self.local.snapshot, &mut self.bytes_in)
    }

    /// The answer's head goes out with this status; the record follows its body, which may end with its session.
    pub(super) fn answered(
        mut self: Box<Self>,
        status: StatusCode,
        bond: Bond,
        body: Body,
    ) -> Body {
        self.status = Some(status);
        self.bond = bond;
        body.watched(self)
    }

    /// The connection became a tunnel, which may end with its session; the record is written when it ends.
    pub(super) fn switched(mut self: Box<Self>, status: StatusCode, bond: Bond) -> Box<Self> {
        self.status = Some(status);
        self.bond = bond;
        self
    }

    /// What tells a tunnel that its session is over; `None`: it has none to end with.
    pub(super) fn tie(&self) -> Option<Tie> {
        let user = self.ex.user.as_ref();
        let user = user.filter(|_| !self.bond.is_free())?;
        Some(self.local.snapshot.tokens.tie(user))
    }

    /// What went through the tunnel, and whether it ended with its session.
    pub(super) fn passed(&mut self, passed: Passed, over: Option<Over>) {
        self.bytes_out = passed.down;
        self.bytes_in = Some(Arc::new(AtomicU64::new(passed.up)));
        self.over = over;
    }

    /// Ends the answer when its session is over.
    fn unless(&mut self, over: Option<Over>) -> Result<(), BodyError> {
        self.over = over;
        over.map_or(Ok(()), |_| Err(BodyError::Withdrawn))
    }
}

impl Watch for Record {
    fn data(&mut self, bytes: usize) -> Result<(), BodyError> {
        let tokens = &self.local.snapshot.tokens;
        let over = self
            .bond
            .passes(self.bytes_out, &self.beat, tokens, self.ex.user.as_ref());
        self.unless(over)?;
        self.bytes_out += bytes as u64;
        self.beat.handed_over();
        Ok(())
    }

    fn pending(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        self.beat.asked();
        let tokens = &self.local.snapshot.tokens;
        let user = self.ex.user.as_ref();
        let over = self.bond.waits(cx, &self.beat, tokens, user);
        self.unless(over)
    }

    fn instead(&mut self, _error: &BodyError) -> Option<Ending> {
        self.over?;
        let ending = self.bond.ending();
        self.whole = ending.is_some();
        ending
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) {
        strip::clean_trailers_to_client(trailers, &self.local.snapshot.forgeable);
    }

    fn end(mut self: Box<Self>, how: End) {
        self.whole |= how == End::Whole;
        if how == End::Failed {
            self.beat.request_failed();
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let Local {
            snapshot,
            access,
            worker,
        } = &*self.local;
        let elapsed = snapshot
            .clock
            .now()
            .saturating_duration_since(self.ex.started);
        let gone = || StatusCode::from_u16(CLIENT_GONE).unwrap_or(StatusCode::BAD_REQUEST);
        // A gRPC refusal goes out as 200; what the operator wants to see is why.
        let refused = self.status.and(self.ex.code).map(|code| code.status());
        let status = refused.or(self.status).unwrap_or_else(gone);
        snapshot
            .metrics
            .request(*worker, self.ex.route, &self.ex.method, status, elapsed);
        if self.whole {
            self.beat.request_ended();
        }
        if let Some(over) = self.over {
            snapshot
                .metrics
                .stream_ended(*worker, over == Over::Expired);
        }
        if !access.wants_records() {
            return;
        }
        let ex = &mut self.ex;
        let route = ex.route.and_then(|index| snapshot.routes.get(index));
        let upstream = ex.upstream.and_then(|index| snapshot.upstreams.get(index));
        access.record(telemetry::Record {
            unix_millis: snapshot.clock.unix_millis(),
            request_id: ex.request_id.clone(),
            trace: Some(ex.trace),
            method: ex.method.clone(),
            path: ex.path.take(),
            route: route.map(|route| route.name.clone()),
            status,
            duration: elapsed,
            upstream: upstream.map(|upstream| upstream.name().clone()),
            upstream_micros: ex.upstream_micros,
            client_ip: ex.client.ip,
            user_id: ex.user.as_ref().map(|user| user.identity.user_id.clone()),
            credential: ex.user.as_ref().map(|user| user.credential),
            code: ex.code.or(self.over.map(|_| Code::SessionExpired)),
            bytes_in: self
                .bytes_in
                .as_ref()
                .map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            bytes_out: self.bytes_out,
        });
    }
}
