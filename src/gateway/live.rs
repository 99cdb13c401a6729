//! The world as it is: credentials are proven, limits are counted.

use super::facts::Exchange;
use super::{Connection, Local, World};
use crate::authn::{Candidate, Memory, Prover};
use crate::exchange::{Caller, Code, Reject};
use crate::limit::Who;
use crate::route::Route;
use crate::snapshot::Snapshot;
use http::request::Parts;

/// The real world of one request.
pub(super) struct Live<'a> {
    pub(super) local: &'a Local,
    pub(super) connection: &'a Connection,
}

impl World for Live<'_> {
    fn limit(
        &self,
        policies: &[usize],
        ex: &mut Exchange,
        caller: &Caller,
        head: &Parts,
    ) -> Result<(), Reject> {
        if policies.is_empty() {
            return Ok(());
        }
        let limits = &self.local.snapshot.limits;
        let who = Who {
            client: ex.client.ip,
            peer_trusted: self.connection.peer.trusted,
            headers: &head.headers,
            verified: caller.verified().map(|verified| &**verified),
        };
        ex.limits = ex.limits.and(limits.check(policies, &who));
        match ex.limits.refused {
            None => Ok(()),
            Some(refused) => {
                self.local
                    .snapshot
                    .metrics
                    .rate_limited(self.local.worker, refused.policy);
                Err(Reject::new(
                    Code::RateLimited,
                    "Too many requests. Wait as long as Retry-After says.",
                )
                .because(format!("policy `{}`", limits.name(refused.policy)))
                .retry_after(refused.retry_after))
            }
        }
    }

    async fn prove(
        &self,
        route: &Route,
        candidate: Candidate<'_>,
        ex: &mut Exchange,
        head: &Parts,
    ) -> Result<Caller, Reject> {
        if candidate == Candidate::Nothing
            && route.accepts.auth != crate::config::route::Auth::Required
        {
            return Ok(Caller::nobody());
        }
        let Exchange { client, told, .. } = ex;
        prover(self.local, self.connection, route)
            .prove(&route.accepts, candidate, &head.headers, client, told)
            .await
    }

    fn memory(&self) -> Option<&Memory> {
        Some(&self.connection.memory)
    }
}

/// Proves what a request to this route brings.
pub(super) fn prover<'a>(
    local: &'a Local,
    connection: &'a Connection,
    route: &'a Route,
) -> Prover<'a> {
    Prover {
        failures: &route.limits.failures,
        peer_trusted: connection.peer.trusted,
        worker: local.worker,
        ..keeper(&local.snapshot, &connection.memory)
    }
}

/// Renews what we keep, for nobody's request.
pub(super) fn keeper<'a>(snapshot: &'a Snapshot, memory: &'a Memory) -> Prover<'a> {
    Prover {
        tokens: &snapshot.tokens,
        cache: &snapshot.verified,
        memory,
        session: snapshot.session.as_ref(),
        telling: snapshot.telling.as_ref(),
        identity_headers: &snapshot.identity_headers,
        limits: &snapshot.limits,
        failures: &[],
        peer_trusted: false,
        providers: snapshot.config.providers.len(),
        clock: &snapshot.clock,
        metrics: &snapshot.metrics,
        worker: snapshot.metrics.elsewhere(),
        log_success: snapshot.config.log.auth,
    }
}
