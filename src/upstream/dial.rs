//! From an address to a connection that speaks HTTP/1.1: TCP (every address of a name in turn), unix sockets, TLS. What
//! speaks HTTP/2 is put together in `h2::wire`, on the same sockets.
//! The cryptography is always aws-lc-rs, passed by hand; the process default is never asked.

use super::endpoint::{Address, Site};
use crate::base::body::Body;
use crate::base::pieces;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_platform_verifier::BuilderVerifierExt;
use socket2::{SockRef, TcpKeepalive};
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// The largest response head, in bytes. Some backends set many cookies; nothing honest needs more.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// hyper's read and write buffer for one connection, in bytes; what an unfinished head may grow to.
const MAX_BUFFER: usize = 128 * 1024;

/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 8;

/// What notices a peer that has vanished without a word while nothing is written to it: a probe after a minute of silence,
/// and the end after a second one without an answer.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(10))
    .with_retries(6);

/// A fresh connection: the end that takes requests, and the task that drives it.
pub(super) struct Line {
    pub(super) sender: SendRequest<Body>,
    pub(super) task: JoinHandle<()>,
    /// Set when it has switched protocols: bytes pass raw, and who writes them is told when nobody reads.
    pub(super) raw: Arc<AtomicBool>,
}

/// What https upstreams are connected with: one trust, in two forms that differ in what ALPN offers (RFC 7301). Each
/// offers one protocol alone, so that the connection speaks what the request needs or does not come about.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Offers `http/1.1`.
    http1: Arc<ClientConfig>,
    /// Offers `h2`.
    h2: Arc<ClientConfig>,
}

impl ClientTls {
    /// Both forms of a configuration. They share its verifier and client certificate; what it says of ALPN does not
    /// count.
    pub fn new(config: ClientConfig) -> Self {
        let offer = |protocol: &[u8], resumption| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            config.resumption = resumption;
            Arc::new(config)
        };
        Self {
            http1: offer(b"http/1.1", config.resumption.clone()),
            // Tickets of its own: a session is resumed with the protocol it was made for.
            h2: offer(b"h2", Resumption::default()),
        }
    }

    pub(super) fn http1(&self) -> TlsConnector {
        self.http1.clone().into()
    }

    pub(super) fn h2(&self) -> TlsConnector {
        self.h2.clone().into()
    }
}

/// The trust and cryptography for https upstreams: the platform's roots, TLS 1.2 and 1.3.
///
/// Reads the system's certificates, so make it once and share it.
pub fn client_tls() -> Result<ClientTls, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    Ok(ClientTls::new(config))
}

/// Connects. The caller bounds the whole; `patience` is only shared out between the addresses of a name.
pub(super) async fn dial(address: &Address, patience: Duration) -> io::Result<Line> {
    match address {
        Address::Tcp(site) => speak(tcp(site, patience).await?).await,
        Address::Tls(site, name, tls) => {
            let stream = tcp(site, patience).await?;
            speak(tls.http1.connect(name.clone(), stream).await?).await
        }
        Address::Unix(path) => speak(UnixStream::connect(path).await?).await,
    }
}

pub(super) async fn tcp(site: &Site, patience: Duration) -> io::Result<TcpStream> {
    let stream = match site.ip {
        Some(ip) => TcpStream::connect((ip, site.port)).await?,
        None => {
            let found = lookup_host((site.host.as_ref(), site.port)).await?;
            first_of(interleave(found.take(MAX_ADDRESSES)), patience).await?
        }
    };
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(stream)
}

/// Tries one address after the other. Each gets an equal share of the time that is left, so that one which swallows
/// packets cannot take all of it.
async fn first_of(addresses: Vec<SocketAddr>, patience: Duration) -> io::Result<TcpStream> {
    let end = Instant::now() + patience;
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut left = addresses.len() as u32;
    for address in addresses {
        let share = end.saturating_duration_since(Instant::now()) / left;
        left -= 1;
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => failure = error,
            Err(_) => failure = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(failure)
}

/// The families by turns, the resolver's first choice first (RFC 8305 §4).
fn interleave(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = {
        let all: Vec<_> = addresses.collect();
        let first = all.first().map(|address| address.is_ipv6());
        all.into_iter()
            .partition(|address| Some(matches!(address.ip(), IpAddr::V6(_))) == first)
    };
    let mut turns = Vec::with_capacity(v6.len() + v4.len());
    let (mut these, mut those) = (v6.into_iter(), v4.into_iter());
    loop {
        let (this, that) = (these.next(), those.next());
        if this.is_none() && that.is_none() {
            return turns;
        }
        turns.extend(this);
        turns.extend(that);
    }
}

/// Puts HTTP/1.1 on a stream. One task drives it for as long as it lives.
async fn speak<S>(stream: S) -> io::Result<Line>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let raw = Arc::<AtomicBool>::default();
    let (sender, connection) = http1::Builder::new()
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .preserve_header_case(false)
        .handshake(TokioIo::new(Heard {
            stream,
            deaf: false,
            raw: raw.clone(),
        }))
        .await
        .map_err(io::Error::other)?;
    let task = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            // Whoever waited for an answer has been told; this is for connections nobody was waiting on.
            tracing::debug!(error = &error as &dyn Error, "upstream connection ended");
        }
    });
    Ok(Line { sender, task, raw })
}

/// A stream that is read although it can no longer be written: an upstream may answer an upload early (413, 401) and
/// close, and that answer is worth more than the error of the write. Without one, the read fails as the write did. Once it
/// has switched protocols there is no such answer, and the write fails.
struct Heard<S> {
    stream: S,
    /// The upstream reads no more: what is written goes nowhere.
    deaf: bool,
    raw: Arc<AtomicBool>,
}

impl<S> Heard<S> {
    /// What is said of bytes that go nowhere.
    fn unheard<T>(&self, offered: T) -> Poll<io::Result<T>> {
        Poll::Ready(if self.raw.load(Ordering::Relaxed) {
            Err(io::ErrorKind::BrokenPipe.into())
        } else {
            Ok(offered)
        })
    }

    fn written(
        &mut self,
        result: Poll<io::Result<usize>>,
        offered: usize,
    ) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match result {
            Poll::Ready(Err(error)) if matches!(error.kind(), BrokenPipe | ConnectionReset) => {
                self.deaf = true;
                self.unheard(offered)
            }
            other => other,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return self.unheard(bytes.len());
        }
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(result, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        if self.deaf {
            return self.unheard(offered);
        }
        let result = pieces::poll_write(&mut self.stream, cx, slices);
        self.written(result, offered)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return self.unheard(());
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_are_tried_by_turns() {
        let check = |given: &[&str], expected: &[&str]| {
            let given = given.iter().map(|text| text.parse().unwrap());
            let expected: Vec<SocketAddr> =
                expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(interleave(given), expected);
        };
        check(&[], &[]);
        check(
            &["[::1]:1", "[::2]:1", "10.0.0.1:1"],
            &["[::1]:1", "10.0.0.1:1", "[::2]:1"],
        );
        check(
            &["10.0.0.1:1", "10.0.0.2:1", "[::1]:1"],
            &["10.0.0.1:1", "[::1]:1", "10.0.0.2:1"],
        );
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_keep_the_next_from_being_tried() {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refuses = gone.local_addr().unwrap();
        drop(gone);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepts = listener.local_addr().unwrap();
        let stream = first_of(vec![refuses, accepts], Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), accepts);
        assert!(
            first_of(vec![refuses], Duration::from_secs(5))
                .await
                .is_err()
        );
        assert!(first_of(Vec::new(), Duration::ZERO).await.is_err());
    }

    #[tokio::test]
    async fn a_peer_that_has_vanished_is_noticed_within_two_minutes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let site = Site {
            host: "127.0.0.1".into(),
            port: address.port(),
            ip: Some(address.ip()),
        };
        let stream = tcp(&site, Duration::from_secs(5)).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let (first, each) = (
            socket.tcp_keepalive_time().unwrap(),
            socket.tcp_keepalive_interval().unwrap(),
        );
        let probes = socket.tcp_keepalive_retries().unwrap();
        assert_eq!(first + each * probes, Duration::from_secs(120));
    }

    #[test]
    fn the_trust_of_the_platform_makes_clients_that_each_ask_for_one_protocol() {
        let tls = client_tls().unwrap();
        assert_eq!(tls.http1.alpn_protocols, [b"http/1.1".to_vec()]);
        assert_eq!(tls.h2.alpn_protocols, [b"h2".to_vec()]);
    }
}
