//! The line walked with an invented caller: `[[tests]]` and `explain` ask what would happen without sending anything.

use super::facts::Exchange;
use super::{Plan, World, decide, open};
use crate::authn::{self, Candidate, Memory};
use crate::config::endpoint::Endpoint;
use crate::config::route::Auth;
use crate::config::tests::{InventedCaller, PolicyTest};
use crate::exchange::{Caller, Code, Credential, Identity, Peer, Reject};
use crate::route::{Route, Target};
use crate::snapshot::Snapshot;
use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Request};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// Where invented callers are, unless the route wants them elsewhere: `client_ips` is not what these tests ask about.
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What would happen to a request.
#[derive(Debug)]
pub struct Outcome {
    /// The route, when one was found.
    pub route: Option<Arc<str>>,
    /// The gateway's own answer: a refusal, a redirect or a fixed text.
    pub status: Option<u16>,
    /// Its code, when it is a refusal, and the reason of the log.
    pub refused: Option<(Code, String)>,
    /// The upstream it would reach, and the head it would get.
    pub upstream: Option<(Arc<str>, Box<Parts>)>,
}

/// A test whose expectation does not hold.
#[derive(Debug)]
pub struct Failure {
    /// Index in `Config::tests`.
    pub test: usize,
    /// What was expected and what would happen.
    pub problem: String,
}

impl Failure {
    /// Where the test stands, in bytes of the file.
    pub fn place(&self, snapshot: &Snapshot) -> usize {
        let test = snapshot.config.tests.get(self.test);
        test.map_or(0, |test| test.place.start)
    }
}

/// Runs every test of the configuration against its own snapshot; returns those that fail.
pub async fn run(snapshot: &Snapshot) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (index, test) in snapshot.config.tests.iter().enumerate() {
        let problems = match walk(snapshot, test).await {
            Ok(outcome) => compare(test, &outcome),
            Err(problem) => vec![problem],
        };
        failures.extend(problems.into_iter().map(|problem| Failure {
            test: index,
            problem,
        }));
    }
    failures
}

/// Walks the line for one test.
async fn walk(snapshot: &Snapshot, test: &PolicyTest) -> Result<Outcome, String> {
    let host = test
        .host
        .as_deref()
        .or_else(|| own_host(snapshot))
        .unwrap_or("localhost");
    let request = Request::builder()
        .method(test.method.clone())
        .uri(&*test.target)
        .header(HOST, host)
        .body(())
        .map_err(|error| format!("the request cannot be built: {error}"))?;
    let (mut head, ()) = request.into_parts();
    let caller = test
        .caller
        .as_ref()
        .map(|invented| invent(snapshot, invented))
        .transpose()?;
    if test
        .caller
        .as_ref()
        .is_some_and(|c| c.with == Credential::Session)
        && let Some(origin) = snapshot.config.server.public_url.first()
        && let Ok(origin) = HeaderValue::from_str(&origin.0)
    {
        head.headers.insert(http::header::ORIGIN, origin);
    }
    // Where the route wants to be asked from is known only when it is found.
    let world = Rehearsal { caller };
    let (ex, _) = attempt(snapshot, &mut head.clone(), &world, LOCALHOST).await;
    let policy = ex.route.and_then(|index| snapshot.routes.get(index));
    let from = policy.and_then(|route| route.policy.an_address());
    let (ex, decided) = attempt(snapshot, &mut head, &world, from.unwrap_or(LOCALHOST)).await;
    let route = ex.route.and_then(|index| snapshot.routes.get(index));
    let mut outcome = Outcome {
        route: route.map(|r| r.name.clone()),
        status: None,
        refused: None,
        upstream: None,
    };
    match decided {
        Err(reject) => {
            outcome.status = Some(reject.code().status().as_u16());
            outcome.refused = Some((reject.code(), reject.reason().to_owned()));
        }
        Ok(Plan::Preflight(answer)) => outcome.status = Some(answer.status().as_u16()),
        Ok(Plan::ToHttps(_)) => outcome.status = Some(308),
        Ok(Plan::Do { route, .. }) => match &route.target {
            Target::Upstream(forward) => {
                outcome.upstream = Some((forward.upstream.name().clone(), Box::new(head)))
            }
            Target::Redirect { status, .. } | Target::Respond { status, .. } => {
                outcome.status = Some(status.as_u16())
            }
            // What a provider would say nobody knows; what needs a caller answers when there is one.
            Target::Endpoint(endpoint) if endpoint.needs_caller() => {
                outcome.status = Some(match ex.user {
                    Some(_) => 200,
                    None => 401,
                });
            }
            Target::Endpoint(Endpoint::Nothing) => outcome.status = Some(404),
            Target::Endpoint(_) => {}
        },
    }
    Ok(outcome)
}

/// The line, for a request that comes from this address.
async fn attempt<'s>(
    snapshot: &'s Snapshot,
    head: &mut Parts,
    world: &Rehearsal,
    from: IpAddr,
) -> (Exchange, Result<Plan<'s>, Reject>) {
    let peer = Peer {
        ip: Some(from),
        trusted: false,
        secure: false,
        redirects_to: None,
    };
    let mut ex = open(snapshot, &peer, head);
    let decided = decide(snapshot, &mut ex, head, &peer, world).await;
    (ex, decided)
}

fn own_host(snapshot: &Snapshot) -> Option<&str> {
    use crate::config::value::HostPattern;
    let origin = snapshot
        .config
        .server
        .public_url
        .first()
        .and_then(|origin| origin.0.split_once("://"))
        .map(|(_, host)| host);
    origin.or_else(|| {
        snapshot
            .config
            .server
            .hosts
            .iter()
            .find_map(|pattern| match pattern {
                HostPattern::Exact(name) => Some(&**name),
                _ => None,
            })
    })
}

fn invent(snapshot: &Snapshot, invented: &InventedCaller) -> Result<Caller, String> {
    let config = &snapshot.config;
    let provider = invented
        .provider
        .clone()
        .or_else(|| {
            let session = config.session.as_ref().map(|session| session.provider);
            config
                .providers
                .get(session.unwrap_or(0))
                .map(|provider| provider.name.clone())
        })
        .unwrap_or_else(|| Arc::from("main"));
    let mut claims = invented.claims.clone();
    claims
        .entry("sub")
        .or_insert_with(|| invented.user.to_string().into());
    let boxed = |list: &[Arc<str>]| list.iter().map(|s| Box::from(&**s)).collect();
    let identity = Identity {
        provider,
        user_id: invented.user.clone(),
        roles: boxed(&invented.roles),
        scopes: boxed(&invented.scopes),
        claims,
        expires_at: u64::MAX,
        session_id: None,
        anonymous: false,
        api_key_id: None,
    };
    authn::rehearse(identity, invented.with, &snapshot.identity_headers)
        .map_err(|reject| reject.to_string())
}

/// What is expected and does not hold.
fn compare(test: &PolicyTest, outcome: &Outcome) -> Vec<String> {
    let mut problems = Vec::new();
    let happens = match (&outcome.upstream, outcome.status, &outcome.refused) {
        (Some((name, _)), _, _) => format!("it goes to upstream `{name}`"),
        (None, Some(status), Some((code, _))) => {
            format!("the gateway answers {status} ({})", code.as_str())
        }
        (None, Some(status), None) => format!("the gateway answers {status}"),
        (None, None, _) => "nothing happens".to_owned(),
    };
    let mut expect = |holds: bool, what: String| {
        if !holds {
            problems.push(format!("expected {what}, but {happens}"));
        }
    };
    let want = &test.expect;
    if let Some(status) = want.status {
        expect(
            outcome.status == Some(status.as_u16()),
            format!("status {}", status.as_u16()),
        );
    }
    if let Some(upstream) = &want.upstream {
        expect(
            outcome
                .upstream
                .as_ref()
                .is_some_and(|(name, _)| name == upstream),
            format!("upstream `{upstream}`"),
        );
    }
    if let Some(route) = &want.route {
        let found = outcome.route.as_deref().unwrap_or("none");
        expect(
            found == &**route,
            format!("route `{route}` (it is `{found}`)"),
        );
    }
    let head = outcome.upstream.as_ref().map(|(_, head)| head);
    if let Some(path) = &want.upstream_path {
        let found = head
            .and_then(|head| head.uri.path_and_query())
            .map_or("none", |p| p.as_str());
        expect(
            found == &**path,
            format!("upstream path `{path}` (it is `{found}`)"),
        );
    }
    for (name, value) in &want.headers {
        let found = head.and_then(|head| head.headers.get(name));
        expect(
            found == Some(value),
            format!(
                "header `{name}: {}` (it is `{}`)",
                value.to_str().unwrap_or("?"),
                found.map_or("not sent", |found| found.to_str().unwrap_or("?")),
            ),
        );
    }
    problems
}

/// An invented caller, no limits, nothing spent.
struct Rehearsal {
    caller: Option<Caller>,
}

impl World for Rehearsal {
    fn limit(&self, _: &[usize], _: &mut Exchange, _: &Caller, _: &Parts) -> Result<(), Reject> {
        Ok(())
    }

    async fn prove(
        &self,
        route: &Route,
        _: Candidate<'_>,
        _: &mut Exchange,
        _: &Parts,
    ) -> Result<Caller, Reject> {
        match (&self.caller, route.accepts.auth) {
            (_, Auth::Public) => Ok(Caller::nobody()),
            (Some(caller), _) if accepted(route, caller) => Ok(caller.clone()),
            (_, Auth::Optional) => Ok(Caller::nobody()),
            (_, Auth::Required) => Err(Reject::new(Code::MissingCredentials, "")),
        }
    }

    fn memory(&self) -> Option<&Memory> {
        None
    }
}

fn accepted(route: &Route, caller: &Caller) -> bool {
    caller
        .verified()
        .is_some_and(|verified| match verified.credential {
            Credential::Session => route.accepts.session,
            Credential::Bearer => {
                route.accepts.bearer
                    && route
                        .accepts
                        .bearer_from
                        .as_ref()
                        .is_none_or(|from| from.contains(&verified.identity.provider))
            }
            Credential::ApiKey => false,
        })
}
