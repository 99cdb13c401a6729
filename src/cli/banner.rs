//! What `run` says when it starts: where it listens, whom it trusts, what it guards.

use crate::config::Config;
use crate::config::listener::Listener;
use crate::config::provider::{Provider, ProviderKind};
use crate::config::route::Auth;
use crate::config::session::{Session, SessionMode};
use crate::config::value::{Endpoint, ListenAddr};
use crate::server::Running;
use crate::telemetry::Format;
use futures_util::future::join_all;
use serde_json::json;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// How long the start-up message waits for upstreams to answer a connection, all of them together.
const PATIENCE: Duration = Duration::from_millis(300);

/// Prints it: some lines for a person, one line of JSON where the log is JSON.
pub(super) fn print(
    running: &Running,
    source: &str,
    format: Format,
    began: Instant,
) -> io::Result<()> {
    let snapshot = running.current.load();
    let config = &snapshot.config;
    let ready_ms = began.elapsed().as_millis();
    let doors = running.addresses.iter().zip(&config.listeners);
    let doors = || doors.clone().map(|(at, door)| (listens(at, door), door));
    let admin = running
        .admin
        .as_ref()
        .map_or_else(|| "off".to_owned(), address);
    let counts = [Auth::Required, Auth::Optional, Auth::Public].map(|auth| {
        config
            .routes
            .iter()
            .filter(|route| !route.ours && route.auth == auth)
            .count()
    });
    let mut out = io::stdout().lock();
    if format == Format::Json {
        let mut up = reach(config.upstreams.iter().flat_map(|u| &u.endpoints))?.into_iter();
        let upstreams: Vec<_> = config
            .upstreams
            .iter()
            .map(|upstream| {
                let targets = upstream.endpoints.iter().zip(&mut up);
                let targets: Vec<_> = targets
                    .map(|(e, up)| json!({"url": endpoint(e), "up": up}))
                    .collect();
                json!({"name": &*upstream.name, "targets": targets})
            })
            .collect();
        let line = json!({
            "ts": crate::telemetry::timestamp(snapshot.clock.unix_millis()).to_string(),
            "level": "info",
            "msg": "ready",
            "version": env!("CARGO_PKG_VERSION"),
            "source": source,
            "listen": doors().map(|(at, _)| at).collect::<Vec<_>>(),
            "admin": admin,
            "providers": config.providers.iter().map(|p| json!({"name": &*p.name, "keys": keys(p)})).collect::<Vec<_>>(),
            "session": session(config),
            "upstreams": upstreams,
            "routes": {"protected": counts[0], "optional": counts[1], "public": counts[2]},
            "rate_limits": config.rate_limits.iter().map(|l| &*l.name).collect::<Vec<_>>(),
            "warnings": config.problems.to_json(),
            "ready_ms": u64::try_from(ready_ms).unwrap_or(u64::MAX),
        });
        return writeln!(out, "{line}");
    }
    writeln!(out, "tollhouse {}  {source}", env!("CARGO_PKG_VERSION"))?;
    for (at, door) in doors() {
        writeln!(out, "  listens    {at}{}", spoken(door))?;
    }
    writeln!(out, "  admin      {admin}")?;
    for provider in &config.providers {
        let keys = keys(provider);
        writeln!(out, "  provider   {}: keys from {keys}", provider.name)?;
    }
    writeln!(out, "  session    {}", session(config))?;
    let mut up = reach(config.upstreams.iter().flat_map(|u| &u.endpoints))?.into_iter();
    for upstream in &config.upstreams {
        let urls: Vec<_> = upstream
            .endpoints
            .iter()
            .zip(&mut up)
            .map(|(e, up)| format!("{} ({})", endpoint(e), if up { "up" } else { "not up yet" }))
            .collect();
        writeln!(out, "  upstream   {}: {}", upstream.name, urls.join(", "))?;
    }
    writeln!(
        out,
        "  routes     {} protected, {} optional, {} public",
        counts[0], counts[1], counts[2]
    )?;
    let limits: Vec<_> = config.rate_limits.iter().map(|l| &*l.name).collect();
    writeln!(out, "  limits     {}", limits.join(", "))?;
    for warning in &config.warnings {
        writeln!(out, "{warning}")?;
    }
    writeln!(out, "ready in {ready_ms} ms")
}

fn keys(provider: &Provider) -> String {
    match (&provider.keys.jwks_url, &provider.keys.secret) {
        (Some(url), Some(_)) => format!("{url} and an HS256 secret"),
        (Some(url), None) => url.to_string(),
        (None, Some(_)) => "an HS256 secret".to_owned(),
        (None, None) => "a public key".to_owned(),
    }
}

fn session(config: &Config) -> String {
    match &config.session {
        None => "none: cookies are not looked at".to_owned(),
        Some(session) if session.mode != SessionMode::Shared => {
            let place = match session.mode {
                SessionMode::Stored => "in Redis, and an id in a cookie of ours",
                _ => "in a cookie of ours",
            };
            format!("{}: {place}{}", session.mode.as_str(), endpoints(session))
        }
        Some(session) => {
            let cookie = config
                .providers
                .get(session.provider)
                .and_then(|p| p.cookie_name.as_deref())
                .unwrap_or("");
            let renewed = match config.providers.get(session.provider).map(|p| &p.kind) {
                Some(ProviderKind::Supabase {
                    publishable_key: None,
                    ..
                }) => "; not renewed, since the provider has no `publishable_key`",
                _ => "",
            };
            let endpoints = endpoints(session);
            format!(
                "shared: the cookies {cookie} of the provider's own library{renewed}{endpoints}"
            )
        }
    }
}

fn endpoints(session: &Session) -> String {
    let base = session.endpoints.as_deref();
    base.map_or_else(String::new, |at| format!("; endpoints below {at}"))
}

fn address(address: &ListenAddr) -> String {
    match address {
        ListenAddr::Tcp(address) => format!("http://{address}"),
        ListenAddr::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Where a listener answers, as a URL.
fn listens(at: &ListenAddr, door: &Listener) -> String {
    match at {
        ListenAddr::Tcp(at) if !door.tls.is_empty() => format!("https://{at}"),
        at => address(at),
    }
}

/// What besides HTTP/1.1 happens there.
fn spoken(door: &Listener) -> &'static str {
    match (!door.tls.is_empty(), door.h2c, door.redirect_https) {
        (true, ..) => " (HTTP/2 and HTTP/1.1)",
        (_, true, true) => " (HTTP/2 and HTTP/1.1 in the clear, redirected to https)",
        (_, true, false) => " (HTTP/2 and HTTP/1.1 in the clear)",
        (_, false, true) => " (redirected to https)",
        _ => "",
    }
}

fn endpoint(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Http { host, port } => format!("http://{}:{port}", bracketed(host)),
        Endpoint::Https { host, port } => format!("https://{}:{port}", bracketed(host)),
        Endpoint::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Where somebody listens now, in the order asked. Only told: an upstream may come up later. All are tried at once,
/// and [`PATIENCE`] is for all together, names that do not resolve included.
fn reach<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> io::Result<Vec<bool>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let up = runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        join_all(endpoints.map(|endpoint| async move {
            tokio::time::timeout_at(deadline, connects(endpoint))
                .await
                .unwrap_or(false)
        }))
        .await
    });
    // A name server that does not answer would keep its thread for seconds.
    runtime.shutdown_background();
    Ok(up)
}

async fn connects(endpoint: &Endpoint) -> bool {
    match endpoint {
        Endpoint::Http { host, port } | Endpoint::Https { host, port } => {
            tokio::net::TcpStream::connect((&**host, *port))
                .await
                .is_ok()
        }
        Endpoint::Unix(path) => tokio::net::UnixStream::connect(path).await.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_dead_upstreams_cost_no_more_patience_than_one() {
        let here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let http = |host: &str, port: u16| Endpoint::Http {
            host: host.into(),
            port,
        };
        // RFC 5737: an address that nobody has, which drops what is sent to it or has no route.
        let mut endpoints = vec![http("192.0.2.1", 9); 20];
        endpoints.push(http("127.0.0.1", here.local_addr().unwrap().port()));
        endpoints.push(Endpoint::Unix("/nonexistent/socket".into()));
        let began = Instant::now();
        let up = reach(endpoints.iter()).unwrap();
        assert!(began.elapsed() < PATIENCE * 3, "{:?}", began.elapsed());
        let found: Vec<_> = (0..up.len()).filter(|at| up[*at]).collect();
        assert_eq!(found, [20]);
    }
}
