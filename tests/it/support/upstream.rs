//! An upstream on a raw socket: it keeps every request byte for byte and answers as it is told, also badly.

use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str());
        let first = found.next();
        assert!(found.next().is_none(), "{name} came twice");
        first
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }
}

/// What it does with a request.
#[derive(Clone)]
pub enum Reply {
    /// 200 with a short body.
    Ok,
    /// These bytes, then keep the connection.
    Bytes(Arc<[u8]>),
    /// These bytes, then close.
    BytesAndClose(Arc<[u8]>),
    /// Close without a word.
    Close,
    /// Never answer.
    Silence,
}

impl Reply {
    pub fn bytes(text: &str) -> Self {
        Self::Bytes(text.as_bytes().into())
    }

    pub fn bytes_and_close(text: &str) -> Self {
        Self::BytesAndClose(text.as_bytes().into())
    }
}

/// The upstream. Ends with the process.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    reply: Arc<Mutex<Reply>>,
    connections: Arc<Mutex<usize>>,
    open: Arc<Mutex<usize>>,
    trailers: Arc<Mutex<Vec<(String, String)>>>,
}

impl Upstream {
    pub fn start() -> Self {
        Self::accepting(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn accepting(listener: TcpListener) -> Self {
        let upstream = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            reply: Arc::new(Mutex::new(Reply::Ok)),
            connections: Arc::default(),
            open: Arc::default(),
            trailers: Arc::default(),
        };
        let this = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                *this.connections.lock() += 1;
                let this = this.clone();
                *this.open.lock() += 1;
                std::thread::spawn(move || {
                    this.serve(stream);
                    *this.open.lock() -= 1;
                });
            }
        });
        upstream
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on it answers like this.
    pub fn reply(&self, reply: Reply) {
        *self.reply.lock() = reply;
    }

    /// Everything it has received.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    /// The one request it received.
    pub fn only(&self) -> Received {
        let all = self.received();
        assert_eq!(all.len(), 1, "{all:?}");
        all[0].clone()
    }

    pub fn last(&self) -> Received {
        self.received().last().cloned().expect("a request")
    }

    pub fn count(&self) -> usize {
        self.received.lock().len()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut received = Received {
                line: line.trim_end().to_owned(),
                headers: Vec::new(),
                body: Vec::new(),
            };
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim_end().is_empty() {
                    break;
                }
                if let Some((name, value)) = line.trim_end().split_once(':') {
                    received
                        .headers
                        .push((name.to_owned(), value.trim().to_owned()));
                }
            }
            if let Some(length) = received
                .header("content-length")
                .and_then(|l| l.parse().ok())
            {
                received.body = vec![0; length];
                if reader.read_exact(&mut received.body).is_err() {
                    return;
                }
            } else if received.header("transfer-encoding").is_some() {
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    let Ok(size) = usize::from_str_radix(line.trim(), 16) else {
                        return;
                    };
                    if size == 0 {
                        break;
                    }
                    let mut chunk = vec![0; size + 2];
                    if reader.read_exact(&mut chunk).is_err() {
                        return;
                    }
                    received.body.extend_from_slice(&chunk[..size]);
                }
                loop {
                    let mut line = String::new();
                    if reader.read_line(&mut line).unwrap_or(0) == 0 {
                        return;
                    }
                    let Some((name, value)) = line.trim_end().split_once(':') else {
                        break;
                    };
                    let trailer = (name.to_owned(), value.trim().to_owned());
                    self.trailers.lock().push(trailer);
                }
            }
            let head = received.line.starts_with("HEAD ");
            self.received.lock().push(received);
            let reply = self.reply.lock().clone();
            let stream = reader.get_mut();
            match reply {
                Reply::Ok => {
                    let body = if head { "" } else { "ok" };
                    // In one write: two small ones would wait for each other.
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\n{body}"
                    );
                    if stream.write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
                Reply::Bytes(bytes) => {
                    if stream.write_all(&bytes).is_err() {
                        return;
                    }
                }
                Reply::BytesAndClose(bytes) => {
                    let _ = stream.write_all(&bytes);
                    return;
                }
                Reply::Close => return,
                Reply::Silence => {}
            }
        }
    }
}

impl Upstream {
    /// Connections that are open now.
    pub fn open(&self) -> usize {
        *self.open.lock()
    }

    /// Every trailer field that came behind a body.
    pub fn trailers(&self) -> Vec<(String, String)> {
        self.trailers.lock().clone()
    }

    /// Forgets what it received.
    pub fn forget(&self) {
        self.received.lock().clear();
    }
}

/// An upstream that does with each connection what the test says. Ends with the process.
pub fn scripted(script: impl Fn(Wire) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let script = script.clone();
            std::thread::spawn(move || script(Wire::new(stream)));
        }
    });
    address
}

/// One connection of a scripted upstream.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// The head of the next request, with its empty line; empty when the connection has ended.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head).unwrap_or(0) == 0 {
                return String::new();
            }
        }
        head
    }

    /// Bytes as they come, at most so many; 0 when the connection has ended.
    pub fn some(&mut self, buffer: &mut [u8]) -> usize {
        self.0.read(buffer).unwrap_or(0)
    }

    /// So many bytes; `None` when the connection ends before they have come.
    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Everything until the other side says that it has no more.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&mut self) {
        let _ = self.0.get_mut().shutdown(std::net::Shutdown::Write);
    }

    /// The same connection, for another thread to write to.
    pub fn duplicate(&self) -> Self {
        Self::new(self.0.get_ref().try_clone().unwrap())
    }

    /// A line of a body.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.0.read_line(&mut line);
        line
    }

    pub fn say(&mut self, text: &str) -> bool {
        self.0.get_mut().write_all(text.as_bytes()).is_ok()
    }

    pub fn say_bytes(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).is_ok()
    }
}

/// An address of our own at which nobody listens yet: connections are refused, and no other test can have it.
pub struct Closed(socket2::Socket);

impl Closed {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        socket.bind(&any.into()).unwrap();
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// Begins to listen.
    pub fn open(self) -> Upstream {
        self.0.listen(128).unwrap();
        Upstream::accepting(self.0.into())
    }
}
