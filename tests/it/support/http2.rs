//! A client of HTTP/2 that keeps to the rules, over TLS or in the clear. One that breaks them is in `frames`.

use super::client::Answer;
use super::tls;
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Http2 {
    runtime: Runtime,
    requests: SendRequest<Bytes>,
    ended: Option<JoinHandle<Result<(), h2::Error>>>,
    scheme: &'static str,
    host: String,
}

/// One request whose body may still be sent and whose answer is on its way.
pub struct Stream {
    connection: Handle,
    pub body: SendStream<Bytes>,
    answer: JoinHandle<Result<Answer, h2::Error>>,
}

impl Http2 {
    /// Without TLS, with prior knowledge (RFC 9113 §3.3).
    pub fn connect(address: SocketAddr) -> Self {
        let runtime = runtime();
        let stream = runtime.block_on(TcpStream::connect(address)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::on(runtime, stream, "http", address.to_string())
    }

    /// Over TLS, chosen by ALPN.
    pub fn secure(address: SocketAddr, name: &str) -> Self {
        let runtime = runtime();
        let config = Arc::new(tls::offer(&["h2"], tls::BOTH));
        let asked = ServerName::try_from(name.to_owned()).unwrap();
        let stream = runtime.block_on(async {
            let stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let connector = tokio_rustls::TlsConnector::from(config);
            connector.connect(asked, stream).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self::on(runtime, stream, "https", name.to_owned())
    }

    fn on<S>(runtime: Runtime, stream: S, scheme: &'static str, host: String) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20);
        builder.initial_connection_window_size(8 << 20);
        let (requests, connection) = runtime.block_on(builder.handshake(stream)).unwrap();
        let ended = runtime.spawn(connection);
        Self {
            runtime,
            requests,
            ended: Some(ended),
            scheme,
            host,
        }
    }

    pub fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "")
    }

    /// Sends one request with its body and reads its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut stream = self.open(method, path, headers, body.is_empty());
        if !body.is_empty() {
            stream.send(body, true);
        }
        stream.answer().unwrap()
    }

    /// Begins a request; `ends`: it has no body. A field `host` stands for `:authority`.
    pub fn open(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        ends: bool,
    ) -> Stream {
        let host = headers.iter().find(|(name, _)| *name == "host");
        let host = host.map_or(&*self.host, |(_, host)| host);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://{host}{path}", self.scheme));
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let ready = async {
            let ready = self.requests.clone().ready();
            tokio::time::timeout(PATIENCE, ready).await.unwrap()
        };
        self.requests = self.runtime.block_on(ready).unwrap();
        let _inside = self.runtime.enter();
        let (answer, body) = self.requests.send_request(request, ends).unwrap();
        Stream {
            connection: self.runtime.handle().clone(),
            body,
            answer: self.runtime.spawn(read(answer)),
        }
    }

    /// Begins requests that have no body, and reads their answers when all have begun.
    pub fn all_at_once(&mut self, paths: &[String]) -> Vec<Answer> {
        let mut answers = Vec::new();
        for path in paths {
            answers.push(self.open("GET", path, &[], true).answer);
        }
        let mut read = Vec::new();
        for answer in answers {
            read.push(self.runtime.block_on(within(answer)).unwrap());
        }
        read
    }

    /// Waits until the connection has ended without an error of the protocol. Both sides may close at the same time.
    pub fn ended(&mut self) {
        let ended = self.ended.take().unwrap();
        let how = self.runtime.block_on(within(ended));
        assert!(how.as_ref().err().is_none_or(h2::Error::is_io), "{how:?}");
    }
}

impl Stream {
    /// Sends a piece of the body, whether there is room for it or not.
    pub fn send(&mut self, bytes: impl Into<Vec<u8>>, ends: bool) {
        let _inside = self.connection.enter();
        // The other side may have answered already and want no more.
        let _ = self.body.send_data(Bytes::from(bytes.into()), ends);
    }

    pub fn send_trailers(&mut self, trailers: &[(&'static str, &str)]) {
        let mut map = HeaderMap::new();
        for (name, value) in trailers {
            map.append(*name, value.parse().unwrap());
        }
        let _ = self.body.send_trailers(map);
    }

    /// Waits for the answer to its end.
    pub fn answer(self) -> Result<Answer, h2::Error> {
        self.connection.block_on(within(self.answer))
    }

    pub fn has_answer(&self) -> bool {
        self.answer.is_finished()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

async fn within<T>(task: JoinHandle<T>) -> T {
    let done = tokio::time::timeout(PATIENCE, task).await;
    done.expect("it never came").unwrap()
}

async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, mut body) = answer.await?.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        headers: fields(&head.headers),
        head_alone: body.is_end_stream(),
        ..Answer::default()
    };
    while let Some(data) = body.data().await {
        take(&mut body, &mut answer.body, &data?);
    }
    if let Some(trailers) = body.trailers().await? {
        answer.trailers = fields(&trailers);
    }
    Ok(answer)
}

fn take(body: &mut RecvStream, whole: &mut Vec<u8>, data: &Bytes) {
    whole.extend_from_slice(data);
    let _ = body.flow_control().release_capacity(data.len());
}

fn fields(map: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}
