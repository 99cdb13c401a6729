//! Upstreams and the connections to them. `Upstream` is the process's: its addresses and their counts. `Pools` is a
//! worker's: the connections. Requests come in finished (path, `Host`, headers); nothing here looks at who sends them.
//! HTTP/1.1 as of RFC 9112, a connection for each request at a time, and in `h2` HTTP/2 as of RFC 9113.

mod balance;
mod conn;
mod dial;
mod endpoint;
mod frames;
mod h2;
mod pool;
mod retry;
mod send;
mod switched;
pub mod upgrade;
#[cfg(test)]
mod tests;

pub use dial::{ClientTls, client_tls};
pub use pool::{Pools, Totals};
pub use retry::{BodyFault, Fault, SendError, Unavailable};
pub use send::{Sent, Terms};
pub use switched::Switched;

use crate::config;
use crate::config::upstream::{Balance, Protocol};
use crate::config::value::Endpoint as Configured;
use endpoint::Endpoint;
use parking_lot::Mutex;
use pool::Gauges;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One upstream of the configuration, shared by all workers. A reload that did not change its section carries the
/// `Arc` over, and with it counts and connections; when the last one goes, the workers close what they have.
#[derive(Debug)]
pub struct Upstream {
    core: Arc<Core>,
}

/// What connections and workers hold on to; an `Upstream` can go before them.
struct Core {
    name: Arc<str>,
    endpoints: Box<[Endpoint]>,
    balance: Balance,
    protocol: Protocol,
    connect_timeout: Duration,
    max_idle: usize,
    max_in_flight: Option<usize>,
    /// Requests under way; counted only when there is a `max_in_flight`.
    in_flight: AtomicUsize,
    /// No snapshot has it any more.
    retired: AtomicBool,
    /// What `Endpoint::rests` counts from.
    start: Instant,
    /// One for each worker.
    gauges: Mutex<Vec<Arc<Gauges>>>,
}

/// Why an upstream cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The trust for https cannot be set up.
    #[error("tls for upstream `{upstream}` cannot be set up")]
    Tls {
        /// Its name.
        upstream: Arc<str>,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// A host that no `Host` field or certificate can have.
    #[error("upstream `{upstream}` has an address whose host is not a valid name")]
    Host {
        /// Its name.
        upstream: Arc<str>,
    },
}

/// One address, for the admin page and metrics.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://host:port`, `https://…`, `unix:/path`.
    pub address: Arc<str>,
    /// Requests under way.
    pub in_flight: usize,
    /// Whether the last connection that was tried came about.
    pub reachable: bool,
}

impl Upstream {
    /// Builds one. `tls` is called only when there is an https address; share what [`client_tls`] makes.
    pub fn new(
        config: &config::upstream::Upstream,
        tls: impl FnOnce() -> Result<ClientTls, rustls::Error>,
    ) -> Result<Arc<Self>, BuildError> {
        let upstream = config.name.clone();
        let https = |endpoint: &Configured| matches!(endpoint, Configured::Https { .. });
        let tls = if config.endpoints.iter().any(https) {
            Some(tls().map_err(|source| BuildError::Tls {
                upstream: upstream.clone(),
                source,
            })?)
        } else {
            None
        };
        let endpoints: Option<Box<[_]>> = config
            .endpoints
            .iter()
            .map(|endpoint| Endpoint::new(endpoint, tls.as_ref()))
            .collect();
        let Some(endpoints) = endpoints.filter(|endpoints| !endpoints.is_empty()) else {
            return Err(BuildError::Host { upstream });
        };
        Ok(Arc::new(Self {
            core: Arc::new(Core {
                name: upstream,
                endpoints,
                balance: config.balance,
                protocol: config.protocol,
                connect_timeout: config.connect_timeout,
                max_idle: config.max_idle,
                max_in_flight: config.max_in_flight,
                in_flight: AtomicUsize::new(0),
                retired: AtomicBool::new(false),
                start: Instant::now(),
                gauges: Mutex::default(),
            }),
        }))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.core.name
    }

    /// Its addresses, in the order of the configuration.
    pub fn targets(&self) -> Vec<Target> {
        let target = |endpoint: &Endpoint| Target {
            address: endpoint.text().clone(),
            in_flight: endpoint.in_flight(),
            reachable: endpoint.reachable(),
        };
        self.core.endpoints.iter().map(target).collect()
    }

    /// Its connections, over all workers.
    pub fn totals(&self) -> Totals {
        Totals::of(&self.core.gauges.lock())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.core.retired.store(true, Ordering::Release);
    }
}

impl Core {
    /// Milliseconds since it was built.
    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Takes a place at an endpoint, if there is one. Nobody waits for one: a queue would only be a slower refusal.
    fn enter(&self, at: usize) -> Result<Place<'_>, Unavailable> {
        if let Some(max) = self.max_in_flight
            && self.in_flight.fetch_add(1, Ordering::AcqRel) >= max
        {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
            return Err(Unavailable::Full);
        }
        self.endpoints[at].enter();
        Ok(Place { core: self, at })
    }

    fn leave(&self, at: usize) {
        self.endpoints[at].leave();
        if self.max_in_flight.is_some() {
            self.in_flight.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A place at an endpoint, given back when dropped.
struct Place<'a> {
    core: &'a Core,
    at: usize,
}

impl Place<'_> {
    /// From here on the connection has it.
    fn hand_over(self) {
        std::mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.core.leave(self.at);
    }
}
