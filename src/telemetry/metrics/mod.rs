//! Counters and histograms. Labels come from the configuration and are resolved when it is compiled: the request
//! path knows indexes, each worker counts in cells of its own, and a scrape adds them up.

mod cells;
mod text;

use crate::exchange::Credential;
use cells::{Histogram, Series, Statuses, add, carry, find};
use http::{Method, StatusCode};
use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub use text::CONTENT_TYPE;

/// Label of what has no route, provider or other source.
const NONE: &str = "none";

/// Methods with a label of their own; every other is `other`.
const METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

/// How an authentication went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthOutcome {
    /// Verified.
    Ok,
    /// Verified once, over now.
    Expired,
    /// Does not verify.
    Invalid,
    /// Verifies, but is none that counts here: an anonymous sign-in, a service key, two different users.
    Refused,
    /// Keys, provider or verifier out of reach.
    Unavailable,
}

impl AuthOutcome {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Ok, "ok"),
        (Self::Expired, "expired"),
        (Self::Invalid, "invalid"),
        (Self::Refused, "refused"),
        (Self::Unavailable, "unavailable"),
    ];
}

/// Where a verified credential was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheOutcome {
    /// The connection remembered it.
    Connection,
    /// In the process's cache.
    Hit,
    /// It had to be verified.
    Miss,
}

impl CacheOutcome {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Connection, "connection"),
        (Self::Hit, "hit"),
        (Self::Miss, "miss"),
    ];
}

/// Why streams ended with their sessions.
const STREAM_ENDS: [&str; 2] = ["ended", "expired"];

const CREDENTIALS: [Credential; 3] = [Credential::Session, Credential::Bearer, Credential::ApiKey];

/// The label sets of a configuration. Names within one list are unique.
#[derive(Clone, Debug, Default)]
pub struct Labels {
    /// In the order of the plan.
    pub routes: Vec<Arc<str>>,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<str>>,
    /// Providers and other sources of credentials.
    pub providers: Vec<Arc<str>>,
    /// Rate limit policies.
    pub policies: Vec<Arc<str>>,
}

/// What is counted where it happens and only told here.
#[derive(Clone, Debug, Default)]
pub struct Counted<'a> {
    /// Fetches of public keys: provider, then outcome and count.
    pub key_fetches: Vec<(&'a str, [(&'static str, u64); 3])>,
    /// Calls that renew sessions: outcome and count.
    pub session_refreshes: [(&'static str, u64); 4],
    /// Whether Redis is away, where there is one.
    pub redis_away: Option<bool>,
    /// Lines lost because the log could not keep up.
    pub log_lines_dropped: u64,
}

/// The metrics of one configuration. What keeps its name keeps its counts over a reload; what is gone is forgotten.
pub struct Metrics {
    /// One cell for each worker and one for everybody else.
    cells: usize,
    routes: Vec<Arc<Series<Requests>>>,
    /// What no route was found for.
    unrouted: Arc<Series<Requests>>,
    upstreams: Vec<Arc<Series<Histogram>>>,
    providers: Vec<Arc<Series<Source>>>,
    /// What no provider was found for.
    unknown_source: Arc<Series<Source>>,
    policies: Vec<Arc<Series<AtomicU64>>>,
    process: Arc<Series<Process>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics for these labels; counts of `previous` go on where names are the same. `workers` does not change
    /// within a process. A worker's index that is out of range counts as "everybody else".
    pub fn new(labels: &Labels, workers: usize, previous: Option<&Self>) -> Self {
        let cells = workers + 1;
        let none = [Arc::from(NONE)];
        let routes = carry(&labels.routes, cells, |name| {
            previous.and_then(|p| find(p.routes.iter().chain([&p.unrouted]), name))
        });
        let providers = carry(&labels.providers, cells, |name| {
            previous.and_then(|p| find(p.providers.iter().chain([&p.unknown_source]), name))
        });
        // A route or provider of that very name shares the series: two lines of one name spoil a scrape.
        let unrouted = find(&routes, NONE).or_else(|| previous.map(|p| p.unrouted.clone()));
        let unknown = find(&providers, NONE).or_else(|| previous.map(|p| p.unknown_source.clone()));
        Self {
            cells,
            unrouted: unrouted.unwrap_or_else(|| Series::new(&none[0], cells)),
            unknown_source: unknown.unwrap_or_else(|| Series::new(&none[0], cells)),
            upstreams: carry(&labels.upstreams, cells, |name| {
                previous.and_then(|p| find(&p.upstreams, name))
            }),
            policies: carry(&labels.policies, cells, |name| {
                previous.and_then(|p| find(&p.policies, name))
            }),
            process: previous.map_or_else(|| Series::new(&none[0], cells), |p| p.process.clone()),
            routes,
            providers,
        }
    }

    /// The index for work that belongs to no worker.
    pub fn elsewhere(&self) -> usize {
        self.cells - 1
    }

    /// A request was answered to its end; `route` is the index in [`Labels::routes`].
    pub fn request(
        &self,
        worker: usize,
        route: Option<usize>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let series = route
            .and_then(|r| self.routes.get(r))
            .unwrap_or(&self.unrouted);
        let cell = series.cell(worker);
        let at = METHODS
            .iter()
            .position(|m| m == method)
            .unwrap_or(METHODS.len());
        if let Some(statuses) = cell.methods.get(at) {
            statuses.get_or_init(Box::default).count(status);
        }
        cell.duration.observe(took);
    }

    /// An upstream answered with its response head.
    pub fn upstream(&self, worker: usize, upstream: usize, took: Duration) {
        if let Some(series) = self.upstreams.get(upstream) {
            series.cell(worker).observe(took);
        }
    }

    /// A credential was judged; `provider` is the index in [`Labels::providers`], if one claims it.
    pub fn auth(
        &self,
        worker: usize,
        provider: Option<usize>,
        credential: Credential,
        outcome: AuthOutcome,
    ) {
        let series = provider
            .and_then(|p| self.providers.get(p))
            .unwrap_or(&self.unknown_source);
        let kind = match credential {
            Credential::Session => 0,
            Credential::Bearer => 1,
            Credential::ApiKey => 2,
        };
        add(&series.cell(worker).auth[kind][outcome as usize]);
    }

    /// A credential was looked up.
    pub fn token_cache(&self, worker: usize, outcome: CacheOutcome) {
        add(&self.process.cell(worker).token_cache[outcome as usize]);
    }

    /// A policy refused a request.
    pub fn rate_limited(&self, worker: usize, policy: usize) {
        if let Some(series) = self.policies.get(policy) {
            add(series.cell(worker));
        }
    }

    /// A client's connection was accepted.
    pub fn connection_opened(&self, worker: usize) {
        self.process.cell(worker).connections.fetch_add(1, Relaxed);
    }

    /// A client's connection is gone.
    pub fn connection_closed(&self, worker: usize) {
        self.process.cell(worker).connections.fetch_sub(1, Relaxed);
    }

    /// The HTTP parser refused what came.
    pub fn malformed(&self, worker: usize) {
        add(&self.process.cell(worker).malformed);
    }

    /// A stream ended with its session: that was ended, or its token was over.
    pub fn stream_ended(&self, worker: usize, expired: bool) {
        add(&self.process.cell(worker).streams_ended[usize::from(expired)]);
    }

    /// A reload took effect, or was refused.
    pub fn reloaded(&self, ok: bool) {
        add(&self.process.cell(self.elsewhere()).reloads[usize::from(!ok)]);
    }

    /// Everything in the Prometheus text format (version 0.0.4, [`CONTENT_TYPE`]), with what others count.
    pub fn render(&self, counted: &Counted<'_>) -> String {
        text::render(self, counted)
    }
}

#[derive(Default)]
struct Requests {
    /// In the order of `METHODS`, then `other`. Made when first needed: most routes see two or three.
    methods: [OnceLock<Box<Statuses>>; METHODS.len() + 1],
    duration: Histogram,
}

#[derive(Default)]
struct Source {
    auth: [[AtomicU64; AuthOutcome::ALL.len()]; CREDENTIALS.len()],
}

#[derive(Default)]
struct Process {
    token_cache: [AtomicU64; CacheOutcome::ALL.len()],
    /// Opened less closed here; a connection may close elsewhere, only the sum means something.
    connections: AtomicI64,
    malformed: AtomicU64,
    /// By [`STREAM_ENDS`].
    streams_ended: [AtomicU64; STREAM_ENDS.len()],
    /// ok, failed
    reloads: [AtomicU64; 2],
}

#[cfg(test)]
mod tests {
    use super::cells::STATUSES;
    use super::*;

    fn labels(routes: &[&str]) -> Labels {
        let names = |of: &[&str]| of.iter().map(|n| Arc::from(*n)).collect();
        Labels {
            routes: names(routes),
            upstreams: names(&["backend"]),
            providers: names(&["main"]),
            policies: names(&["per_ip"]),
        }
    }

    fn has(metrics: &Metrics, line: &str) {
        let text = metrics.render(&Counted::default());
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }

    const TOOK: Duration = Duration::from_millis(2);

    #[test]
    fn workers_counts_are_added_up() {
        let metrics = Metrics::new(&labels(&["api"]), 2, None);
        for worker in [0, 1, 2, 99] {
            metrics.request(worker, Some(0), &Method::GET, StatusCode::OK, TOOK);
        }
        metrics.request(0, Some(0), &Method::GET, StatusCode::NOT_FOUND, TOOK);
        metrics.request(
            0,
            None,
            &Method::from_bytes(b"BREW").unwrap(),
            StatusCode::NOT_FOUND,
            TOOK,
        );
        has(
            &metrics,
            r#"tollhouse_requests_total{route="api",method="GET",status="200"} 4"#,
        );
        has(
            &metrics,
            r#"tollhouse_requests_total{route="api",method="GET",status="404"} 1"#,
        );
        has(
            &metrics,
            r#"tollhouse_requests_total{route="none",method="other",status="404"} 1"#,
        );
        has(
            &metrics,
            r#"tollhouse_request_duration_seconds_count{route="api"} 5"#,
        );
    }

    #[test]
    fn a_name_that_stays_keeps_its_counts_and_one_that_goes_is_forgotten() {
        let first = Metrics::new(&labels(&["a", "b"]), 1, None);
        first.request(0, Some(0), &Method::GET, StatusCode::OK, TOOK);
        first.request(0, Some(1), &Method::GET, StatusCode::OK, TOOK);
        first.connection_opened(0);
        let second = Metrics::new(&labels(&["b", "c"]), 1, Some(&first));
        // A request that began before the reload ends after it.
        first.request(0, Some(1), &Method::GET, StatusCode::OK, TOOK);
        first.connection_closed(0);
        has(
            &second,
            r#"tollhouse_requests_total{route="b",method="GET",status="200"} 2"#,
        );
        has(&second, "tollhouse_connections 0");
        assert!(!second.render(&Counted::default()).contains(r#"route="a""#));
    }

    #[test]
    fn a_route_that_is_called_none_makes_no_second_line_of_one_name() {
        let metrics = Metrics::new(&labels(&["none"]), 1, None);
        metrics.request(0, Some(0), &Method::GET, StatusCode::OK, TOOK);
        metrics.request(0, None, &Method::GET, StatusCode::OK, TOOK);
        has(
            &metrics,
            r#"tollhouse_requests_total{route="none",method="GET",status="200"} 2"#,
        );
        let text = metrics.render(&Counted::default());
        assert_eq!(
            text.matches("tollhouse_request_duration_seconds_sum")
                .count(),
            1
        );
    }

    #[test]
    fn an_upstream_that_makes_statuses_up_fills_no_memory() {
        let metrics = Metrics::new(&labels(&["api"]), 1, None);
        for status in 100..1000 {
            let status = StatusCode::from_u16(status).unwrap();
            metrics.request(0, Some(0), &Method::GET, status, TOOK);
        }
        let text = metrics.render(&Counted::default());
        let lines = text
            .lines()
            .filter(|l| l.starts_with("tollhouse_requests_total{"));
        assert_eq!(lines.count(), STATUSES + 1);
        has(
            &metrics,
            r#"tollhouse_requests_total{route="api",method="GET",status="other"} 876"#,
        );
    }

    #[test]
    fn threads_that_share_a_cell_lose_nothing() {
        let metrics = Metrics::new(&labels(&["api"]), 0, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..1000u16 {
                        let status = StatusCode::from_u16(200 + i % 4).unwrap();
                        metrics.request(0, Some(0), &Method::GET, status, TOOK);
                    }
                });
            }
        });
        for status in 200..204 {
            has(
                &metrics,
                &format!(
                    r#"tollhouse_requests_total{{route="api",method="GET",status="{status}"}} 1000"#
                ),
            );
        }
    }

    #[test]
    fn the_tables_of_words_are_in_the_order_of_their_enums() {
        for (at, (outcome, _)) in AuthOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, at);
        }
        for (at, (outcome, _)) in CacheOutcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, at);
        }
        let metrics = Metrics::new(&labels(&[]), 1, None);
        for (times, credential) in CREDENTIALS.iter().enumerate() {
            for _ in 0..=times {
                metrics.auth(0, Some(0), *credential, AuthOutcome::Invalid);
            }
        }
        has(
            &metrics,
            r#"tollhouse_auth_total{provider="main",credential="session",outcome="invalid"} 1"#,
        );
        has(
            &metrics,
            r#"tollhouse_auth_total{provider="main",credential="api_key",outcome="invalid"} 3"#,
        );
    }
}
