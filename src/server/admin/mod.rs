//! The admin socket: `/livez`, `/readyz`, `/metrics`. Its own address, read-only, apart from everything public. Answers
//! only to hosts that no web page can make a browser send here under another name (DNS rebinding).

mod answer;

use super::listener::SocketFile;
use crate::config::value::ListenAddr;
use http::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once; more wait in the accept queue.
const CONNECTIONS_MAX: usize = 64;
/// For the head of a request, and for the silence between two.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection: a reader that does not read holds no place for ever.
const LIFE_MAX: Duration = Duration::from_secs(120);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// For answers under way when the socket closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Whether the process wants requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Listeners are not bound yet, or a provider never had keys and the time for that is not over.
    Starting,
    /// It serves.
    Serving,
    /// It ends.
    Draining,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Decides the status.
    pub state: State,
    /// What is in trouble; changes only the body.
    pub reasons: Vec<String>,
}

/// What the admin socket shows.
pub trait AdminView: Send + Sync {
    /// For `/readyz`.
    fn readiness(&self) -> Readiness;
    /// For `/metrics`: the text of [`crate::telemetry::Metrics::render`].
    fn metrics(&self) -> String;
}

/// A bound admin address.
#[derive(Debug)]
pub struct AdminListener {
    socket: Socket,
    #[allow(dead_code, reason = "removes the file when the listener goes")]
    file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl AdminListener {
    /// Binds. A unix socket that nobody listens on any more is replaced; ours is for its owner and group only.
    /// `takeover`: beside another process on the same port, for a rolling restart.
    pub async fn bind(address: &ListenAddr, takeover: bool) -> io::Result<Self> {
        match address {
            ListenAddr::Tcp(address) => {
                let listener = super::listener::socket(*address, takeover)?;
                Ok(Self {
                    socket: Socket::Tcp(TcpListener::from_std(listener)?),
                    file: None,
                })
            }
            ListenAddr::Unix(path) => {
                let listener = super::listener::unix_socket(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
                Ok(Self {
                    socket: Socket::Unix(UnixListener::from_std(listener)?),
                    file: SocketFile::of(address),
                })
            }
        }
    }

    /// The address bound, with its real port; `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Serves until `stop`, then lets what is under way end, for a second. Belongs on the control runtime.
    pub async fn serve(self, view: Arc<dyn AdminView>, stop: CancellationToken) {
        let own_name: Arc<str> = host_name().into();
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place,
            };
            // The semaphore is never closed.
            let Ok(place) = place else { break };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                stream = self.accept() => stream,
            };
            let Ok(stream) = stream else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let connection = connection(stream, view.clone(), own_name.clone(), stop.clone());
            connections.spawn(async move {
                // Whoever is too slow is cut off; an error is the peer's and is nobody's news.
                let _ = tokio::time::timeout(LIFE_MAX, connection).await;
                drop(place);
            });
        }
        connections.close();
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connections.wait()).await;
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // A wish: a peer that is gone already shows when it is read.
                let _ = stream.set_nodelay(true);
                Box::new(stream)
            }
            Socket::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connection(
    stream: Box<dyn Stream>,
    view: Arc<dyn AdminView>,
    own_name: Arc<str>,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = answer::answer(&*view, &own_name, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        done = connection.as_mut() => return done,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

/// The machine's own name, or nothing where it cannot be read.
fn host_name() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
    name.map(|n| n.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::answer::tests::View;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpStream, UnixStream};

    async fn exchange(mut stream: impl Stream, bytes: &str) -> String {
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn it_serves_on_a_socket_of_its_own_until_it_is_told_to_stop() {
        let listener = AdminListener::bind(&ListenAddr::Tcp("127.0.0.1:0".parse().unwrap()), false)
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let view = Arc::new(View::new(State::Serving, &[]));
        let task = tokio::spawn(listener.serve(view.clone(), stop.clone()));
        let connect = || async { TcpStream::connect(address).await.unwrap() };

        let text = exchange(
            connect().await,
            "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(
            text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            "{text}"
        );
        assert!(text.ends_with("tollhouse_build_info 1\n"), "{text}");

        let text = exchange(
            connect().await,
            "HEAD /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(text.ends_with("\r\n\r\n"), "{text}");

        // The body that is promised never comes, and nothing waits for it.
        let text = exchange(
            connect().await,
            "GET /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n",
        )
        .await;
        assert!(text.contains("connection: close"), "{text}");

        view.0.lock().state = State::Draining;
        let text = exchange(connect().await, "GET /readyz HTTP/1.0\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.0 503"), "{text}");

        // An idle connection does not keep it from ending.
        let idle = connect().await;
        stop.cancel();
        task.await.unwrap();
        drop(idle);
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_socket_file_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let address = ListenAddr::Unix(path.clone());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = AdminListener::bind(&address, false).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        assert_eq!(
            AdminListener::bind(&address, false)
                .await
                .unwrap_err()
                .kind(),
            io::ErrorKind::AddrInUse
        );
        let stop = CancellationToken::new();
        let task =
            tokio::spawn(listener.serve(Arc::new(View::new(State::Serving, &[])), stop.clone()));
        let text = exchange(
            UnixStream::connect(&path).await.unwrap(),
            "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(text.starts_with("HTTP/1.1 421"), "{text}");
        stop.cancel();
        task.await.unwrap();
        assert!(!path.exists());
    }
}
