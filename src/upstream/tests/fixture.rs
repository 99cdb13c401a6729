//! An upstream that does what it is told, byte by byte, on a real socket: hyper would refuse to misbehave.

use crate::base::body::{Body, BodyError};
use crate::base::deadline::Sweeper;
use crate::config;
use crate::config::upstream::{Balance, ForwardedFor, HostHeader, Protocol};
use crate::config::value::Endpoint as Configured;
use crate::upstream::pool::{Limits, Pools};
use crate::upstream::{ClientTls, SendError, Sent, Terms, Upstream};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// One accepted connection, seen from the upstream.
pub(super) struct Peer {
    io: Box<dyn Io>,
    buffer: Vec<u8>,
    /// 0 for the first connection of the fixture.
    pub(super) number: usize,
}

impl Peer {
    /// The next head, with its blank line; `None` at the end of the connection.
    pub(super) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            self.more().await?;
        }
    }

    /// Exactly `length` bytes of a body.
    pub(super) async fn body(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Bytes up to and with the last chunk of a chunked body.
    pub(super) async fn chunks(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.windows(5).position(|w| w == b"0\r\n\r\n") {
                return Some(self.buffer.drain(..end + 5).collect());
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        match self.io.read_buf(&mut self.buffer).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(()),
        }
    }

    pub(super) async fn write(&mut self, bytes: &str) -> bool {
        self.io.write_all(bytes.as_bytes()).await.is_ok()
    }

    /// The socket itself, of which nothing has been read.
    pub(super) fn into_io(self) -> Box<dyn Io> {
        assert!(self.buffer.is_empty());
        self.io
    }

    /// Waits until the other side has closed.
    pub(super) async fn closed(&mut self) {
        while self.more().await.is_some() {}
    }

    /// Answers every request without a body alike.
    pub(super) async fn answer_all(mut self, answer: &str) {
        while self.head().await.is_some() && self.write(answer).await {}
    }
}

/// Connections accepted, and those whose script is over.
type Counts = watch::Receiver<(usize, usize)>;

/// Bound to a socket; every connection runs the script.
pub(super) struct Fixture {
    pub(super) endpoint: Configured,
    counts: Counts,
}

impl Fixture {
    pub(super) async fn tcp<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = http(listener.local_addr().unwrap());
        let (accepted, counts) = stage(script);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                accepted(Box::new(io));
            }
        });
        Self { endpoint, counts }
    }

    /// TLS, for `localhost`, as a server that can speak both.
    pub(super) async fn tls<F>(script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::tls_with(&["h2", "http/1.1"], "http/1.1", script).await
    }

    /// TLS, for `localhost`. `chosen` is what must come of what ALPN has to choose from; nothing when it is empty.
    pub(super) async fn tls_with<F>(
        alpn: &[&str],
        chosen: &'static str,
        script: impl Fn(Peer) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Configured::Https {
            host: "localhost".into(),
            port: listener.local_addr().unwrap().port(),
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
                PrivateKeyDer::from_pem_slice(KEY).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (accepted, counts) = stage(script);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                if let Ok(io) = acceptor.accept(io).await {
                    let protocol = io.get_ref().1.alpn_protocol().unwrap_or_default();
                    assert_eq!(protocol, chosen.as_bytes());
                    accepted(Box::new(io));
                }
            }
        });
        Self { endpoint, counts }
    }

    pub(super) fn unix<F>(path: &Path, script: impl Fn(Peer) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = UnixListener::bind(path).unwrap();
        let (accepted, counts) = stage(script);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                accepted(Box::new(io));
            }
        });
        let endpoint = Configured::Unix(path.to_owned());
        Self { endpoint, counts }
    }

    /// Answers every request alike.
    pub(super) async fn answering(answer: &'static str) -> Self {
        Self::tcp(move |peer| peer.answer_all(answer)).await
    }

    pub(super) fn connections(&self) -> usize {
        self.counts.borrow().0
    }

    /// Waits until the scripts of `count` connections are over.
    pub(super) async fn ended(&mut self, count: usize) {
        self.counts.wait_for(|c| c.1 >= count).await.unwrap();
    }
}

fn stage<F>(script: impl Fn(Peer) -> F + Send + 'static) -> (impl Fn(Box<dyn Io>) + Send, Counts)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = watch::channel((0, 0));
    let accepted = move |io| {
        let number = sender.borrow().0;
        sender.send_modify(|counts| counts.0 += 1);
        let buffer = Vec::new();
        let running = script(Peer { io, buffer, number });
        let sender = sender.clone();
        tokio::spawn(async move {
            running.await;
            sender.send_modify(|counts| counts.1 += 1);
        });
    };
    (accepted, receiver)
}

pub(super) fn http(address: SocketAddr) -> Configured {
    Configured::Http {
        host: address.ip().to_string().into(),
        port: address.port(),
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Trusts the fixture and nobody else.
pub(super) fn tls_client() -> Result<ClientTls, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(CERTIFICATE).unwrap())?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(ClientTls::new(config))
}

/// For `localhost`, signed by itself, good for a hundred years. Protects nothing.
const CERTIFICATE: &[u8] = include_bytes!("localhost.crt");
const KEY: &[u8] = include_bytes!("localhost.key");

/// An address where nobody listens.
pub(super) async fn nobody() -> Configured {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    http(listener.local_addr().unwrap())
}

/// A worker with one upstream, whose settings tests change before they send.
pub(super) struct Worker {
    pub(super) config: config::upstream::Upstream,
    pub(super) limits: Limits,
    pub(super) terms: Terms,
}

impl Worker {
    pub(super) fn of(endpoints: &[&Configured]) -> Self {
        let long = Duration::from_secs(60);
        Self {
            config: config::upstream::Upstream {
                name: "api".into(),
                endpoints: endpoints.iter().map(|&e| e.clone()).collect(),
                base_path: "".into(),
                protocol: Protocol::Auto,
                connect_timeout: long,
                timeout: long,
                idle_timeout: long,
                max_idle: 8,
                max_in_flight: None,
                balance: Balance::RoundRobin,
                retries: 1,
                host_header: HostHeader::Auto,
                forwarded_for: ForwardedFor::Append,
            },
            limits: Limits::default(),
            terms: Terms {
                timeout: long,
                patience: None,
                idle_timeout: long,
                retries: 1,
                client_ip: None,
                upgrade: None,
            },
        }
    }

    pub(super) fn start(self) -> Started {
        self.start_with(crate::upstream::client_tls)
    }

    pub(super) fn start_with(
        self,
        tls: impl FnOnce() -> Result<ClientTls, rustls::Error>,
    ) -> Started {
        let sweeper = Sweeper::new();
        tokio::spawn(sweeper.clone().run());
        Started {
            pools: Pools::with_limits(sweeper, 1, self.limits),
            upstream: Upstream::new(&self.config, tls).unwrap(),
            terms: self.terms,
        }
    }
}

pub(super) struct Started {
    pub(super) pools: Arc<Pools>,
    pub(super) upstream: Arc<Upstream>,
    pub(super) terms: Terms,
}

impl Started {
    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Body>, SendError> {
        match self.ask(request).await? {
            Sent::Answer(answer) => Ok(answer),
            Sent::Switched { head, .. } => panic!("{head:?}"),
        }
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Result<Sent, SendError> {
        self.pools.send(&self.upstream, request, &self.terms).await
    }

    pub(super) async fn get(&self) -> Result<Response<Body>, SendError> {
        self.send(request("GET", Body::empty())).await
    }

    /// A GET, its answer read to the end.
    pub(super) async fn read(&self) -> (u16, Bytes) {
        read(self.get().await.unwrap()).await.unwrap()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.upstream.targets().iter().map(|t| t.in_flight).sum()
    }

    pub(super) fn open(&self) -> usize {
        self.upstream.totals().open
    }

    pub(super) fn idle(&self) -> usize {
        self.upstream.totals().idle
    }
}

pub(super) fn request(method: &str, body: Body) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/path?query")
        .header("host", "app.example.com")
        .body(body)
        .unwrap()
}

pub(super) async fn read(response: Response<Body>) -> Result<(u16, Bytes), BodyError> {
    let (head, body) = response.into_parts();
    Ok((head.status.as_u16(), body.collect().await?.to_bytes()))
}

/// A body that comes as the test sends it.
pub(super) fn upload() -> (mpsc::UnboundedSender<Result<&'static str, BodyError>>, Body) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<Result<&'static str, BodyError>>();
    let stream = futures_util::stream::poll_fn(move |cx| {
        receiver.poll_recv(cx).map(|next| {
            next.map(|data| data.map(|d| Frame::data(Bytes::from_static(d.as_bytes()))))
        })
    });
    (sender, Body::stream(StreamBody::new(stream)))
}
