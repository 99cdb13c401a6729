//! One client connection, from the accepted socket to its end: TLS if the door has it, then the protocol that ALPN or
//! the client's first bytes name (RFC 7301, RFC 9113 §3), then perhaps a tunnel.

use super::door::Door;
use super::preface::{self, Heralded};
use super::worker::Start;
use crate::authn::Memory;
use crate::base::deadline::Elapsed;
use crate::exchange::Peer;
use crate::gateway::{Berth, Connection, Pulse};
use crate::upstream::upgrade::GOING_AWAY;
use std::error::Error;
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

/// While draining, a connection that was accepted but has sent nothing is told to end after this.
pub(super) const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A socket, or what stands in for one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Serves a connection to its end. `true`: the parser refused what came.
pub(super) async fn serve(
    start: &Start,
    door: &Door,
    stream: impl Stream,
    ip: Option<IpAddr>,
) -> bool {
    let peer = Peer {
        ip,
        trusted: start.state.current.load().trust.trusts(ip),
        secure: door.tls.is_some(),
        redirects_to: door.redirects_to,
    };
    match &door.tls {
        // In boxes of their own, so that plain HTTP/1.1 does not carry their size.
        Some(tls) => Box::pin(encrypted(start, tls.clone(), stream, peer)).await,
        None if door.h2c => Box::pin(announced(start, stream, peer)).await,
        None => http1(start, stream, peer).await,
    }
}

/// TLS first; ALPN has named the protocol when its handshake is over.
async fn encrypted(start: &Start, tls: TlsAcceptor, stream: impl Stream, peer: Peer) -> bool {
    let deadline = start.sweeper.deadline();
    let handshake = deadline.within(start.tls_handshake_timeout, tls.accept(stream));
    let done = unless_draining(start, handshake).await;
    let stream = match done.unwrap_or(Err(Elapsed)) {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn Error, peer = ?peer.ip, "no TLS handshake");
            return false;
        }
        Err(Elapsed) => {
            tracing::debug!(peer = ?peer.ip, "no TLS handshake in time");
            return false;
        }
    };
    drop(deadline);
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(start, stream, peer).await
    } else {
        http1(start, stream, peer).await
    }
}

/// Without TLS the client says by its first bytes that it speaks HTTP/2.
async fn announced(start: &Start, mut stream: impl Stream, peer: Peer) -> bool {
    let deadline = start.sweeper.deadline();
    let (idle, head) = (start.pace.keep_alive, start.pace.head);
    let first = preface::read(&mut stream, &deadline, idle, head);
    let Some((first, is_http2)) = unless_draining(start, first).await.flatten() else {
        return false;
    };
    drop(deadline);
    let stream = Heralded::new(first, stream);
    if is_http2 {
        http2(start, stream, peer).await
    } else {
        http1(start, stream, peer).await
    }
}

/// What comes before a protocol. `None`: the process drains, and the client has had the time to begin. The future waits
/// on a deadline of the worker, which is woken then.
async fn unless_draining<T>(start: &Start, future: impl Future<Output = T>) -> Option<T> {
    let accepted = Instant::now();
    let mut future = pin!(future);
    poll_fn(|cx| {
        let done = future.as_mut().poll(cx).map(Some);
        let draining = start.state.draining.load(Ordering::Relaxed);
        if done.is_pending() && draining && accepted.elapsed() > FIRST_REQUEST {
            return Poll::Ready(None);
        }
        done
    })
    .await
}

async fn http1(start: &Start, stream: impl Stream, peer: Peer) -> bool {
    let pulse = Pulse::new(&start.sweeper, start.pace.clone());
    let connection = connection(peer, pulse);
    let draining = &start.state.draining;
    let refused = start
        .http1
        .serve(stream, start.gateway.clone(), connection.clone(), draining)
        .await;
    if let Some(tunnel) = connection.berth.take() {
        let farewell = |_: &mut Context<'_>| draining.load(Ordering::Relaxed).then_some(GOING_AWAY);
        Box::pin(tunnel.run(&start.sweeper, farewell)).await;
    }
    refused
}

async fn http2(start: &Start, stream: impl Stream, peer: Peer) -> bool {
    let pulse = Pulse::shared(&start.sweeper, start.pace.clone());
    let connection = connection(peer, pulse);
    let draining = &start.state.draining;
    let gateway = start.gateway.clone();
    start
        .http2
        .serve(stream, gateway, connection, draining)
        .await
}

fn connection(peer: Peer, pulse: Pulse) -> Arc<Connection> {
    Arc::new(Connection {
        peer,
        memory: Memory::default(),
        pulse: Arc::new(pulse),
        berth: Berth::default(),
    })
}
