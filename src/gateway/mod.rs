//! The straight line. `handle` answers one request and cannot fail; `decide` says whether and how it goes on; `perform`
//! does it; `finish` is the one door out.

mod answer;
mod bond;
pub mod facts;
mod flow;
mod forward;
mod https;
mod keep;
mod live;
mod pace;
mod perform;
mod record;
pub mod rehearse;
mod tunnel;
mod upload;
mod visit;

use crate::authn::{self, Memory};
use crate::base::body::Body;
use crate::config::route::AllowInPath;
use crate::exchange::{Caller, Code, Peer, Reject};
use crate::headers::host::Host;
use crate::headers::inbound;
use crate::headers::path;
use crate::limit;
use crate::route::Route;
use crate::route::table::{Captures, Found};
use crate::session::Told;
use crate::snapshot::Snapshot;
use crate::telemetry::AccessLog;
use crate::upstream::Pools;
use crate::{cors, csrf};
use arc_swap::ArcSwap;
use facts::Exchange;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

pub use flow::{Beat, Flow};
pub use keep::Keeper;
pub(crate) use pace::LINGER_BYTES;
pub use pace::{Connection, Pace, Pulse};
pub use perform::Plan;
use record::Record;
pub use tunnel::{Berth, Berths, Tunnel};

/// What answers requests: one for each worker, sharing the process's snapshot.
#[derive(Debug)]
pub struct Gateway {
    current: Arc<ArcSwap<Snapshot>>,
    local: Mutex<Arc<Local>>,
    pools: Arc<Pools>,
    berths: Arc<Berths>,
}

/// What each request of a worker holds on to: one count on the worker's own cache line, none on the process's.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) access: AccessLog,
    /// Index of the worker.
    pub(crate) worker: usize,
}

/// What the line asks of the world outside it. `Live` proves and counts; `Rehearsal` invents and only looks.
pub(crate) trait World: Sync {
    /// Counts the request against policies.
    fn limit(
        &self,
        policies: &[usize],
        ex: &mut Exchange,
        caller: &Caller,
        head: &Parts,
    ) -> Result<(), Reject>;

    /// Proves the credential that counts. What its browser is to be told goes into `ex`.
    fn prove(
        &self,
        route: &Route,
        candidate: authn::Candidate<'_>,
        ex: &mut Exchange,
        head: &Parts,
    ) -> impl Future<Output = Result<Caller, Reject>> + Send;

    /// What the connection remembers, if there is one.
    fn memory(&self) -> Option<&Memory>;
}

impl Gateway {
    /// The gateway of one worker: `current` is the configuration in force, `pools` are the worker's upstream connections,
    /// `berths` the process's places for upgraded connections.
    pub fn new(
        current: Arc<ArcSwap<Snapshot>>,
        pools: Arc<Pools>,
        berths: Arc<Berths>,
        access: AccessLog,
        worker: usize,
    ) -> Self {
        let local = Local {
            snapshot: current.load_full(),
            access,
            worker,
        };
        Self {
            current,
            local: Mutex::new(Arc::new(local)),
            pools,
            berths,
        }
    }

    /// Index of the worker.
    pub fn worker(&self) -> usize {
        self.local.lock().worker
    }

    /// The configuration in force, for the whole of one request.
    fn local(&self) -> Arc<Local> {
        let mut local = self.local.lock();
        let current = self.current.load();
        if !Arc::ptr_eq(&local.snapshot, &current) {
            *local = Arc::new(Local {
                snapshot: Arc::clone(&current),
                access: local.access.clone(),
                worker: local.worker,
            });
        }
        local.clone()
    }

    /// Answers one request. Cannot fail: every problem becomes a response, and every request leaves one record: also one
    /// whose client is gone before the future that is returned here is polled, so the record is opened by the call itself.
    pub fn handle(
        self: Arc<Self>,
        request: Request<Body>,
        connection: Arc<Connection>,
        beat: Beat,
    ) -> impl Future<Output = Response<Body>> + Send {
        let local = self.local(); // one view for the whole request
        let (mut head, body) = request.into_parts();
        let joined = inbound::join_crumbs(&mut head);
        let ex = open(&local.snapshot, &connection.peer, &head);
        let mut record = Record::open(&local, ex, beat);
        async move {
            let snapshot = &local.snapshot;
            let body = record.watch(body);
            let style = answer::Style::of(&head);
            let world = live::Live {
                local: &local,
                connection: &connection,
            };
            let ex = &mut record.ex;
            let line = async {
                joined?;
                let plan = decide(snapshot, ex, &mut head, &connection.peer, &world).await?;
                perform::perform(&self, (&local, &connection), plan, ex, head, body).await
            };
            // A panic ends its request, and nothing else.
            let result = AssertUnwindSafe(line).catch_unwind().await;
            let result = result.unwrap_or_else(|_| Err(answer::panicked(&record.ex)));
            answer::finish(snapshot, record, result, &style, &connection)
        }
    }
}

/// What is known before the first question: id, trace, client.
fn open(snapshot: &Snapshot, peer: &Peer, head: &Parts) -> Exchange {
    let (request_id, trace) = snapshot.ids.begin(&head.headers, peer.trusted);
    Exchange {
        started: snapshot.clock.now(),
        request_id,
        trace,
        client: snapshot.trust.client(peer, &head.headers),
        secure: snapshot.trust.secure(peer, &head.headers),
        method: head.method.clone(),
        version: head.version,
        path: None,
        route: None,
        user: None,
        origin: None,
        limits: limit::Outcome::default(),
        code: None,
        upstream: None,
        preflight: false,
        upstream_micros: None,
        told: Told::default(),
    }
}

/// The straight line. Each step lets the request on or says why not. Sends nothing, buffers nothing.
pub(crate) async fn decide<'s>(
    snapshot: &'s Snapshot,
    ex: &mut Exchange,
    head: &mut Parts,
    peer: &Peer,
    world: &impl World,
) -> Result<Plan<'s>, Reject> {
    let asked = asked_host(snapshot, head, peer)?;
    let host = Host::parse(asked.to_str().unwrap_or_default()).ok_or_else(bad_host)?;
    if !snapshot.answers_to(&host.name) {
        return Err(misdirected());
    }
    let canonical = path::canonical(head.uri.path())?;
    let has = canonical.has;
    let path: Arc<str> = Arc::from(canonical.path);
    ex.path = Some(path.clone());
    if peer.redirects_to.is_some() && !ex.secure {
        return https::redirect(snapshot, peer, &host, head);
    }
    let found = find(snapshot, &host.name, &path, head);
    if found == Found::NoRoute {
        path::refuse(has, AllowInPath::default())?; // what no route allows has two readings still
    }
    let (route, captures) = enter(snapshot, ex, found)?;
    let capture = |name: &str| match name {
        "*" => captures.rest(&path),
        name => captures.get(name, &host.name, &path),
    };
    if route.cors.is_some() {
        ex.origin = cors::only_origin(&head.headers).cloned();
    }
    path::refuse(has, route.allow_in_path)?;
    if let Some(answer) = cors::preflight(route.cors.as_ref(), head, &route.preflight_methods) {
        ex.preflight = true;
        return Ok(Plan::Preflight(Box::new(answer)));
    }
    world.limit(&route.limits.before, ex, &Caller::nobody(), head)?;
    let candidate = authn::select(
        &route.accepts,
        snapshot.session.as_ref(),
        &head.headers,
        world.memory(),
    )?; // no network, no cryptography
    if route.csrf_always || candidate.is_ambient() && csrf::applies(head) {
        snapshot.csrf.check(head, &host, ex.secure)?; // before a refresh can be spent
    }
    let caller = world.prove(route, candidate, ex, head).await?;
    ex.user = caller.verified().cloned();
    world.limit(&route.limits.after, ex, &caller, head)?;
    route.policy.check(&caller, &ex.client, capture)?;
    let parties = forward::Parties {
        peer,
        asked: &asked,
        caller: &caller,
        memory: world.memory(),
    };
    let handshake = forward::prepare(snapshot, route, ex, head, &parties, capture)?;
    Ok(Plan::Do {
        route,
        handshake,
        host: asked,
    })
}

/// A preflight is routed by the method it asks for, where the route found answers preflights; any other `OPTIONS` is a
/// request like others.
fn find(snapshot: &Snapshot, host: &str, path: &str, head: &Parts) -> Found {
    if cors::is_preflight(head)
        && let Some(method) = cors::requested_method(head)
        && let found @ Found::Route { index, .. } = snapshot.table.find(host, path, &method)
        && snapshot
            .routes
            .get(index)
            .is_some_and(|route| route.cors.is_some())
    {
        return found;
    }
    snapshot.table.find(host, path, &head.method)
}

/// The host the client asked for, checked. A field value of its own, so that the head can change later.
fn asked_host(snapshot: &Snapshot, head: &Parts, peer: &Peer) -> Result<HeaderValue, Reject> {
    let own = inbound::admit(head, &snapshot.head_limits)?;
    let asked = snapshot
        .trust
        .host(peer, &head.headers, own)
        .ok_or_else(bad_host)?;
    asked.to_value(&head.headers).ok_or_else(bad_host)
}

fn bad_host() -> Reject {
    Reject::new(Code::BadRequest, "The host name is malformed.")
}

fn misdirected() -> Reject {
    Reject::new(
        Code::Misdirected,
        "This gateway does not answer to that host name. If it should, add the name to `server.hosts` (or to `server.public_url`).",
    )
}

/// The route, or 404 and 405. Once it is known, answers of ours carry its CORS headers.
fn enter<'s>(
    snapshot: &'s Snapshot,
    ex: &mut Exchange,
    found: Found,
) -> Result<(&'s Route, Captures), Reject> {
    match found {
        Found::Route { index, captures } => {
            ex.route = Some(index);
            let route = snapshot
                .routes
                .get(index)
                .ok_or_else(|| Reject::new(Code::Internal, "The route table is inconsistent."))?;
            Ok((route, captures))
        }
        Found::NoRoute => Err(Reject::new(
            Code::NoRoute,
            "No route of this gateway matches that path.",
        )),
        Found::MethodNotAllowed { allow } => Err(Reject::new(
            Code::MethodNotAllowed,
            "This address takes other methods; see the Allow header.",
        )
        .allow(allow)),
    }
}

/// A gateway on one connection, for `tower`: what embeds Tollhouse or wraps it in layers of its own calls this.
#[derive(Clone, Debug)]
pub struct OnConnection {
    /// Answers.
    pub gateway: Arc<Gateway>,
    /// Who asks.
    pub connection: Arc<Connection>,
}

impl tower::Service<Request<Incoming>> for OnConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let beat = Beat::Line(self.connection.pulse.clone());
        let answer =
            self.gateway
                .clone()
                .handle(request.map(Body::incoming), self.connection.clone(), beat);
        Box::pin(answer.map(Ok))
    }
}
