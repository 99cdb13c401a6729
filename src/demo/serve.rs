//! HTTP/1.1 on loopback for the demo's own servers: bounded, and answering only to names of this machine, so that no
//! page elsewhere reaches them by pointing its own name here (DNS rebinding).

use crate::base::body::Body;
use http::header::HOST;
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections of one server; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may go on after a stop.
const DRAIN: Duration = Duration::from_secs(2);
/// After a failed accept, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The servers and their connections.
#[derive(Debug, Default)]
pub(super) struct Servers {
    tasks: TaskTracker,
    /// Finish what is in flight.
    drain: CancellationToken,
    /// Finish now.
    end: CancellationToken,
}

impl Servers {
    /// Serves `listener` until [`Servers::stop`].
    pub(super) fn spawn<H, F>(&self, listener: TcpListener, handler: H)
    where
        H: Fn(Request<Incoming>, SocketAddr) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let (tasks, drain, end) = (self.tasks.clone(), self.drain.clone(), self.end.clone());
        let accept = async move {
            let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
            while let Ok(permit) = room.clone().acquire_owned().await {
                let (stream, remote) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(_) => {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                };
                let connection = connection(stream, remote, handler.clone(), drain.clone());
                let end = end.clone();
                tasks.spawn(async move {
                    let _permit = permit;
                    end.run_until_cancelled(connection).await;
                });
            }
        };
        let drain = self.drain.clone();
        self.tasks
            .spawn(async move { drain.run_until_cancelled(accept).await });
    }

    /// Stops accepting, waits a moment for what is in flight, then ends it.
    pub(super) async fn stop(self) {
        self.tasks.close();
        self.drain.cancel();
        if tokio::time::timeout(DRAIN, self.tasks.wait())
            .await
            .is_err()
        {
            self.end.cancel();
            self.tasks.wait().await;
        }
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    remote: SocketAddr,
    handler: H,
    drain: CancellationToken,
) where
    H: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Response<Body>>,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let answer = is_local(request.headers()).then(|| handler(request, remote));
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer.await,
                None => misdirected(),
            })
        }
    });
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // What a connection died of is of interest to nobody here.
    tokio::select! {
        _ = serving.as_mut() => {}
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            let _ = serving.await;
        }
    }
}

fn misdirected() -> Response<Body> {
    let mut response = Response::new(Body::full("this server answers only to names of loopback"));
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    response
}

/// Whether the one `Host` is `localhost` or a loopback address, with or without a port.
fn is_local(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bracketed = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let address = match bracketed {
        Some(name) => name.parse().map(IpAddr::V6),
        None => name.parse().map(IpAddr::V4),
    };
    address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_names_of_loopback_are_local() {
        let check = |host: &'static str, expected: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(is_local(&headers), expected, "{host}");
        };
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.9.9.9",
            "[::1]",
            "[::1]:8080",
        ] {
            check(host, true);
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "10.0.0.1",
            "::1",
            "[::2]",
        ] {
            check(host, false);
        }
        assert!(!is_local(&HeaderMap::new()));
        let mut twice = HeaderMap::new();
        twice.append(HOST, HeaderValue::from_static("localhost"));
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(!is_local(&twice));
    }
}
