//! Everything live that the file describes, compiled once and carried behind one `Arc`. A request sees one snapshot from
//! its first step to its last.

mod session;

use crate::authn::Accepts;
use crate::authz::Policy;
use crate::base::clock::Clock;
use crate::config::rate_limit::Cors;
use crate::config::route::{Auth, RouteCors, Target as Wanted};
use crate::config::server::RateLimitHeaders;
use crate::config::upstream::HostHeader;
use crate::config::value::{Endpoint, HostPattern};
use crate::config::{Config, route};
use crate::endpoints::Endpoints;
use crate::exchange::Peer;
use crate::headers::forwarded::Trust;
use crate::headers::inbound::{self, Limits as HeadLimits};
use crate::headers::names::Forgeable;
use crate::headers::outbound::IdentityHeaders;
use crate::limit::{Limits, Place};
use crate::provider::Refreshes;
use crate::redis::{self, Reach, Redis};
use crate::route::rewrite::Rewrite;
use crate::route::table::Table;
use crate::route::{Forward, HostField, Route, Target};
use crate::session::Session;
use crate::session::sealed::NotARing;
use crate::telemetry::RequestIds;
use crate::telemetry::metrics::{Labels, Metrics};
use crate::token::SetupError;
use crate::token::tell_elsewhere::Telling;
use crate::token::{Cache, Tokens};
use crate::upstream::{BuildError, ClientTls, Upstream, client_tls};
use crate::{cors, csrf};
use bytes::Bytes;
use http::{HeaderValue, Method};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Handle;

/// A compiled configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// What it was compiled from.
    pub config: Arc<Config>,
    /// Host and path to route.
    pub table: Table,
    /// The plans, by index.
    pub routes: Vec<Route>,
    /// The upstreams, by index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Verification and keys.
    pub tokens: Tokens,
    /// Verified credentials.
    pub verified: Cache,
    /// The session, when there is one.
    pub session: Option<Session>,
    /// Its endpoints, when there are any, or one of them at a path of the operator's.
    pub endpoints: Option<Endpoints>,
    /// What replicas share, when there is anything.
    pub redis: Option<Redis>,
    /// What they are told has ended here.
    pub telling: Option<Telling>,
    /// Its renewals, under way and just over.
    pub refreshes: Arc<Refreshes>,
    /// Budgets.
    pub limits: Limits,
    /// How budgets are told to clients.
    pub rate_limit_headers: RateLimitHeaders,
    /// Whose word on addresses is believed.
    pub trust: Trust,
    /// Header names that are never the client's.
    pub forgeable: Forgeable,
    /// What upstreams are told of the caller.
    pub identity_headers: IdentityHeaders,
    /// Which pages may send unsafe requests with the cookie.
    pub csrf: csrf::Rule,
    /// Size limits of a request head.
    pub head_limits: HeadLimits,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Peers that speak about clients without being trusted.
    pub strangers: Strangers,
    /// Mints ids.
    pub ids: RequestIds,
    /// Judges expiry.
    pub clock: Clock,
    /// Where that runs which outlives its request.
    pub control: Handle,
}

/// What a snapshot is compiled with, besides the file.
#[derive(Clone, Debug)]
pub struct Ground {
    /// Time.
    pub clock: Clock,
    /// The control runtime: keys are fetched and verified credentials outlive their requests there.
    pub control: Handle,
    /// How many workers will count.
    pub workers: usize,
    /// What may be done with Redis.
    pub redis: Reach,
}

/// Counts requests whose peer sent `X-Forwarded-*` and the like without being a trusted proxy (contract, section 3.3), and
/// names it: most often a proxy that `server.trusted_proxies` forgot.
#[derive(Debug, Default)]
pub struct Strangers(AtomicU64);

impl Strangers {
    /// One more. Told at the first, the tenth, the hundredth, so that a flood of them is no flood of lines.
    pub fn note(&self, peer: &Peer) {
        let count = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        if std::iter::successors(Some(1_u64), |n| n.checked_mul(10)).any(|n| n == count) {
            let peer = peer
                .ip
                .map_or_else(|| "unix".to_owned(), |ip| ip.to_string());
            tracing::warn!(
                peer,
                count,
                "forwarding headers from a peer that `server.trusted_proxies` does not name were ignored"
            );
        }
    }
}

/// Why a valid file cannot be made live.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A provider's keys or certificates.
    #[error("a provider cannot be set up")]
    Provider(#[source] SetupError),
    /// An upstream's certificates.
    #[error(transparent)]
    Upstream(#[from] BuildError),
    /// The trust for https cannot be set up.
    #[error("the system's certificates cannot be used")]
    Tls(#[source] rustls::Error),
    /// There is no store for them.
    #[error("sessions of the mode `stored` need `[redis]`")]
    NoRedis,
    /// Redis can never be reached as it is configured.
    #[error("`[redis]` cannot be used")]
    Redis(#[source] redis::SetupError),
    /// The keys that seal sessions.
    #[error("the keys of `[session]` cannot be used")]
    SessionKeys(#[source] NotARing),
    /// No cookie can have this name.
    #[error("a session cookie cannot be named `{0}`")]
    Cookie(Box<str>),
    /// The system gives no random bytes.
    #[error("the system has no randomness to give")]
    Randomness,
    /// Two routes that match the same requests.
    #[error("routes `{0}` and `{1}` match the same requests")]
    Conflict(Arc<str>, Arc<str>),
    /// A value that is no header value after all.
    #[error("route `{0}`: the redirect target is not a valid header value")]
    Redirect(Arc<str>),
}

impl Snapshot {
    /// Compiles a validated file. Fetches nothing before the first request needs it, but starts the fetching of keys.
    pub fn compile(config: Arc<Config>, ground: &Ground) -> Result<Self, CompileError> {
        let labels = Labels {
            routes: config.routes.iter().map(|r| r.name.clone()).collect(),
            upstreams: config.upstreams.iter().map(|u| u.name.clone()).collect(),
            providers: config.providers.iter().map(|p| p.name.clone()).collect(),
            policies: config.rate_limits.iter().map(|l| l.name.clone()).collect(),
        };
        let metrics = Arc::new(Metrics::new(&labels, ground.workers, None));
        let tokens = Tokens::new(
            &config.providers,
            ground.clock.clone(),
            ground.control.clone(),
            None,
        )
        .map_err(CompileError::Provider)?;
        let refreshes = Refreshes::new(ground.clock.clone(), ground.control.clone())
            .map_err(|_| CompileError::Randomness)?;
        let redis = match &config.redis {
            Some(settings) => Some(
                Redis::start_for(ground.redis, settings, ground.control.clone())
                    .map_err(CompileError::Redis)?,
            ),
            None => None,
        };
        let refreshes = Arc::new(match &redis {
            Some(redis) => refreshes.shared(redis.clone()),
            None => refreshes,
        });
        let session = session::compile(&config, ground, &refreshes, redis.as_ref())?;
        let endpoints = session::endpoints(&config, session.as_ref(), ground, &refreshes);
        let mut tls = None;
        let mut upstreams = Vec::new();
        for upstream in &config.upstreams {
            upstreams.push(Upstream::new(upstream, || match &tls {
                Some(shared) => Ok(ClientTls::clone(shared)),
                None => Ok(tls.insert(client_tls()?).clone()),
            })?);
        }
        let limits = Limits::compile(&config.rate_limits, &ground.clock, None);
        let routes = config
            .routes
            .iter()
            .map(|route| plan(&config, &upstreams, &limits, route))
            .collect::<Result<Vec<_>, _>>()?;
        let table = Table::build(config.routes.iter().enumerate()).map_err(|conflicts| {
            let name = |index: usize| {
                config
                    .routes
                    .get(index)
                    .map_or_else(|| Arc::from("?"), |r| r.name.clone())
            };
            conflicts.first().map_or_else(
                || CompileError::Conflict(name(0), name(0)),
                |conflict| CompileError::Conflict(name(conflict.0), name(conflict.1)),
            )
        })?;
        let trusted_origins = config
            .session
            .as_ref()
            .map_or(&[][..], |s| &s.trusted_origins);
        Ok(Self {
            table,
            routes,
            upstreams,
            tokens,
            verified: Cache::new(crate::token::verified::DEFAULT_BYTES),
            session,
            endpoints,
            telling: redis
                .clone()
                .map(|redis| Telling::new(redis, ground.clock.clone())),
            redis,
            refreshes,
            limits,
            rate_limit_headers: config.server.rate_limit_headers,
            trust: Trust::compile(&config.server),
            forgeable: Forgeable::compile(
                config.identity_headers.iter().map(|(name, _)| name),
                [],
                &config.server.client_ip_header,
            ),
            identity_headers: IdentityHeaders::compile(
                &config.identity_headers,
                config.providers.len() > 1,
            ),
            csrf: csrf::Rule::compile(&config.server.public_url, trusted_origins),
            head_limits: HeadLimits::compile(&config.server),
            metrics,
            strangers: Strangers::default(),
            ids: RequestIds::new(ground.clock.clone()),
            clock: ground.clock.clone(),
            control: ground.control.clone(),
            config,
        })
    }

    /// Whether we answer to this host name (lower case, without its port).
    pub fn answers_to(&self, host: &str) -> bool {
        let hosts = &self.config.server.hosts;
        hosts.is_empty() || hosts.iter().any(|pattern| host_matches(pattern, host))
    }
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => **name == *host,
        HostPattern::Wildcard { suffix } => host.len() > suffix.len() && host.ends_with(&**suffix),
        HostPattern::Capture { suffix, .. } => host
            .strip_suffix(&**suffix)
            .is_some_and(|label| !label.is_empty() && !label.contains('.')),
    }
}

fn plan(
    config: &Config,
    upstreams: &[Arc<Upstream>],
    limits: &Limits,
    route: &route::Route,
) -> Result<Route, CompileError> {
    let session_provider = config
        .session
        .as_ref()
        .and_then(|session| config.providers.get(session.provider))
        .map(|provider| &*provider.name);
    let trusted = config.session.as_ref().map(|s| &*s.trusted_origins);
    // Pages that are trusted with the session may ask for it, whatever the file says of CORS elsewhere.
    let of_trusted = trusted
        .filter(|trusted| route.ours && !trusted.is_empty())
        .map(Cors::of);
    let cors = match &route.cors {
        RouteCors::Off => None,
        RouteCors::Inherit => config.cors.as_ref().or(of_trusted.as_ref()),
        RouteCors::Own(cors) => Some(cors),
    };
    let trusted_origins = config
        .session
        .as_ref()
        .map_or(&[][..], |s| &s.trusted_origins);
    Ok(Route {
        name: route.name.clone(),
        preflight_methods: preflight_methods(route.methods.as_deref()),
        target: target(config, upstreams, route)?,
        accepts: Accepts::compile(route.auth, &route.credentials, session_provider),
        policy: Policy::compile(&route.require, &route.client_ips, route.auth),
        limits: limits.for_route(
            &route.rate_limits,
            Place {
                protected: route.auth != Auth::Public,
                login: matches!(route.target, Wanted::Endpoint(e) if e.tries_secrets()),
            },
        ),
        cors: cors.map(|cors| cors::Rule::compile(cors, trusted_origins)),
        allow_in_path: route.allow_in_path,
        max_body: route.max_body.unwrap_or(config.server.max_body),
        security_headers: Arc::new(
            route
                .security_headers
                .clone()
                .unwrap_or_else(|| config.security_headers.clone()),
        ),
        forward_session: route.forward_session,
        forward_credentials: route.forward_credentials,
        forward_cookies: route.forward_cookies.clone(),
        request_headers: route.request_headers.clone(),
        response_headers: route.response_headers.clone(),
        cache_public: route.cache_public,
        websocket: route.websocket,
        csrf_always: matches!(route.target, Wanted::Endpoint(e) if e.method() == Method::POST),
        end_streams_with_session: route.end_streams_with_session,
        on_unauthenticated: route.on_unauthenticated,
    })
}

/// What a preflight is told: the route's methods, or all that browsers send.
fn preflight_methods(methods: Option<&[Method]>) -> HeaderValue {
    methods
        .and_then(cors::methods_value)
        .unwrap_or(inbound::METHODS)
}

fn target(
    config: &Config,
    upstreams: &[Arc<Upstream>],
    route: &route::Route,
) -> Result<Target, CompileError> {
    Ok(match &route.target {
        Wanted::Endpoint(endpoint) => Target::Endpoint(*endpoint),
        Wanted::Redirect { to, status } => Target::Redirect {
            to: HeaderValue::from_str(to)
                .map_err(|_| CompileError::Redirect(route.name.clone()))?,
            status: *status,
        },
        Wanted::Respond {
            status,
            body,
            content_type,
        } => Target::Respond {
            status: *status,
            body: Bytes::copy_from_slice(body.as_bytes()),
            content_type: content_type.clone(),
        },
        Wanted::Upstream(index) => {
            let upstream = &config.upstreams[*index];
            Target::Upstream(Box::new(Forward {
                upstream: upstreams[*index].clone(),
                index: *index,
                base_path: upstream.base_path.clone(),
                rewrite: Rewrite::new(route.path_change.clone()),
                timeout: route.timeout.unwrap_or(upstream.timeout),
                idle_timeout: route.idle_timeout.unwrap_or(upstream.idle_timeout),
                retries: route.retries.unwrap_or(upstream.retries),
                host: host(&upstream.host_header, upstream.endpoints.first()),
                forwarded_for: upstream.forwarded_for,
            }))
        }
    })
}

fn host(wanted: &HostHeader, endpoint: Option<&Endpoint>) -> HostField {
    match (wanted, endpoint) {
        (HostHeader::Literal(value), _) => HostField::Fixed(value.clone()),
        (HostHeader::Upstream, _) | (HostHeader::Auto, Some(Endpoint::Https { .. })) => {
            HostField::Endpoint
        }
        (HostHeader::Auto | HostHeader::Preserve, _) => HostField::Client,
    }
}
