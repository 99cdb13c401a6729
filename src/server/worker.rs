//! One worker: its listeners, its connections, its upstream pools, its deadlines, all on one thread.

use super::connection::{self, Stream};
use super::door::Door;
use super::drain::State;
use super::http1::Http1;
use super::http2::Http2;
use super::listener::Bound;
use crate::base::deadline::Sweeper;
use crate::gateway::{Gateway, Pace};
use crate::session::Session;
use crate::snapshot::Snapshot;
use crate::telemetry::AccessLog;
use crate::upstream::Pools;
use arc_swap::ArcSwap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// After an accept that failed for want of descriptors or memory: wait, do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often budgets are swept of keys that are full again.
const SWEEP_LIMITS: Duration = Duration::from_secs(5);
/// How often sessions with open streams are looked at; also how late one may be found over.
const SWEEP_STREAMS: Duration = Duration::from_secs(1);

/// What each connection of a worker starts with.
pub(super) struct Start {
    pub(super) gateway: Arc<Gateway>,
    pub(super) state: Arc<State>,
    pub(super) sweeper: Arc<Sweeper>,
    pub(super) pace: Arc<Pace>,
    pub(super) http1: Http1,
    pub(super) http2: Http2,
    pub(super) tls_handshake_timeout: Duration,
}

/// Serves until the process has drained.
pub(super) async fn run(
    index: usize,
    listeners: Vec<(Bound, Door)>,
    state: Arc<State>,
    access: AccessLog,
) {
    let sweeper = Sweeper::new();
    state.sweepers.lock().push(sweeper.clone());
    tokio::spawn(sweeper.clone().run());
    let snapshot = state.current.load_full();
    let server = &snapshot.config.server;
    let pools = Pools::new(sweeper.clone(), super::workers(&snapshot.config));
    tokio::spawn(pools.clone().run());
    let gateway = Gateway::new(
        state.current.clone(),
        pools,
        state.berths.clone(),
        access,
        index,
    );
    let start = Arc::new(Start {
        gateway: Arc::new(gateway),
        state: state.clone(),
        sweeper,
        pace: Arc::new(Pace {
            head: server.header_timeout,
            keep_alive: server.keep_alive,
            body_idle: server.body_idle_timeout,
            body_min_rate: server.body_min_rate,
            write_idle: server.write_idle_timeout,
        }),
        http1: Http1::new(server),
        http2: Http2::new(server),
        tls_handshake_timeout: server.tls_handshake_timeout,
    });
    for (listener, door) in listeners {
        let (start, door) = (start.clone(), Arc::new(door));
        match listener {
            Bound::Tcp(listener) => match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => drop(tokio::spawn(accept_tcp(listener, start, door))),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "listener lost")
                }
            },
            Bound::Unix(listener) => match tokio::net::UnixListener::from_std(listener) {
                Ok(listener) => drop(tokio::spawn(accept_unix(listener, start, door))),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "listener lost")
                }
            },
        }
    }
    drop(snapshot);
    state.ended.cancelled().await;
}

async fn accept_tcp(listener: tokio::net::TcpListener, start: Arc<Start>, door: Arc<Door>) {
    let _accepting = start.state.accepting();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => begin_tcp(&start, &door, stream, address),
                Err(error) => pause(&error).await,
            },
            () = start.state.stop_accepting.cancelled() => break,
        }
    }
    // What waits in the queue would be reset when the listener closes.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, address)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::TcpStream::from_std(stream)
            {
                begin_tcp(&start, &door, stream, address);
            }
        }
    }
}

fn begin_tcp(
    start: &Arc<Start>,
    door: &Arc<Door>,
    stream: tokio::net::TcpStream,
    address: SocketAddr,
) {
    let _ = stream.set_nodelay(true);
    begin(start, door, stream, Some(address.ip().to_canonical()));
}

async fn accept_unix(listener: tokio::net::UnixListener, start: Arc<Start>, door: Arc<Door>) {
    let _accepting = start.state.accepting();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => begin(&start, &door, stream, None),
                Err(error) => pause(&error).await,
            },
            () = start.state.stop_accepting.cancelled() => break,
        }
    }
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            if stream.set_nonblocking(true).is_ok()
                && let Ok(stream) = tokio::net::UnixStream::from_std(stream)
            {
                begin(&start, &door, stream, None);
            }
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(error = error as &dyn std::error::Error, "accept failed");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn begin(start: &Arc<Start>, door: &Arc<Door>, stream: impl Stream, ip: Option<IpAddr>) {
    let Some(place) = start.state.admit(ip) else {
        tracing::debug!("connection refused: no place left");
        return;
    };
    let (start, door) = (start.clone(), door.clone());
    tokio::spawn(async move {
        let worker = start.gateway.worker();
        start.state.current.load().metrics.connection_opened(worker);
        let refused = connection::serve(&start, &door, stream, ip).await;
        let snapshot = start.state.current.load();
        snapshot.metrics.connection_closed(worker);
        if refused {
            snapshot.metrics.malformed(worker);
        }
        drop(place);
    });
}

/// Ends streams whose sessions are over.
pub(super) async fn sweep_streams(current: Arc<ArcSwap<Snapshot>>) {
    let mut tick = tokio::time::interval(SWEEP_STREAMS);
    loop {
        tick.tick().await;
        current.load().tokens.sweep_streams();
    }
}

/// Keeps the tables of budgets small.
pub(super) async fn sweep_limits(current: Arc<ArcSwap<Snapshot>>) {
    let mut tick = tokio::time::interval(SWEEP_LIMITS);
    loop {
        tick.tick().await;
        let snapshot = current.load_full();
        snapshot.limits.sweep();
        snapshot.refreshes.sweep();
        if let Some(store) = snapshot.session.as_ref().and_then(Session::store) {
            store.sweep();
        }
    }
}
