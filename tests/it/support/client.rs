//! A client that sends bytes as it is told and reads one HTTP/1.1 answer after the other.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// On HTTP/2.
    pub trailers: Vec<(String, String)>,
    /// On HTTP/2: the frame of the head ended the stream.
    pub head_alone: bool,
}

impl Answer {
    /// The one field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.all(name).into_iter();
        let first = found.next();
        assert!(found.next().is_none(), "{name} came twice");
        first
    }

    /// Every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The `code` of a problem; empty when it is none.
    pub fn code(&self) -> String {
        if self.header("content-type") != Some("application/problem+json") {
            return String::new();
        }
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One connection.
pub struct Client<S = TcpStream> {
    stream: BufReader<S>,
}

/// A connection to this address; what is not read within twenty seconds will not come.
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(dial(address))
    }

    /// Says that nothing more will be sent.
    pub fn half_close(&mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    /// On a stream of any kind.
    pub fn on(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub fn stream(&mut self) -> &mut S {
        self.stream.get_mut()
    }

    /// So many bytes; `None` when the connection ends before they have come.
    pub fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    pub fn write(&mut self, bytes: &[u8]) {
        // The other side may have answered and closed already: what it said is still to be read.
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// Reads an answer; `None` when the connection ended without one.
    pub fn try_read(&mut self, head_only: bool) -> Option<Answer> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let status: u16 = line.split(' ').nth(1)?.parse().ok()?;
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                self.stream.read_line(&mut line).ok()?;
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':')?;
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let mut answer = Answer {
                status,
                headers,
                ..Answer::default()
            };
            if !head_only && !matches!(status, 101 | 204 | 304) {
                self.read_body(&mut answer).ok()?;
            }
            return Some(answer);
        }
    }

    pub fn read(&mut self) -> Answer {
        self.try_read(false).expect("an answer")
    }

    fn read_body(&mut self, answer: &mut Answer) -> io::Result<()> {
        if answer.header("transfer-encoding").is_some() {
            loop {
                let mut line = String::new();
                self.stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; size + 2];
                self.stream.read_exact(&mut chunk)?;
                answer.body.extend_from_slice(&chunk[..size]);
                if size == 0 {
                    return Ok(());
                }
            }
        }
        match answer.header("content-length") {
            Some(length) => {
                answer.body = vec![0; length.parse().map_err(io::Error::other)?];
                self.stream.read_exact(&mut answer.body)
            }
            None => self.stream.read_to_end(&mut answer.body).map(|_| ()),
        }
    }

    /// One line as it comes, for streams that do not end.
    pub fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    /// Whether the other side has closed.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.get_mut().read(&mut byte) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ),
        }
    }
}

/// Sends these bytes on a connection of their own and reads the answer; status 0 when there was none.
pub fn send(address: SocketAddr, bytes: &[u8], head_only: bool) -> Answer {
    let mut client = Client::connect(address);
    client.write(bytes);
    client.try_read(head_only).unwrap_or_default()
}

impl Client {
    /// On a connection that the test has made.
    pub fn over(stream: TcpStream) -> Self {
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }
}

impl<S: Read + Write> Client<S> {
    /// Everything that comes until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Whether a write is still taken.
    pub fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.get_mut().write_all(bytes).is_ok()
    }
}

impl<S: Read + Write> Client<S> {
    /// Reads so many bytes and forgets them.
    pub fn skip(&mut self, bytes: u64) {
        let mut part = Read::by_ref(&mut self.stream).take(bytes);
        io::copy(&mut part, &mut io::sink()).unwrap();
    }
}

/// The Cookie field of a browser that has taken these Set-Cookie fields.
pub fn taken(before: &str, answer: &Answer) -> String {
    let mut jar: Vec<(String, String)> = before
        .split("; ")
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for line in answer.all("set-cookie") {
        let (name, rest) = line.split_once('=').unwrap();
        let (value, attributes) = rest.split_once(';').unwrap();
        jar.retain(|(known, _)| known != name);
        if !attributes.contains("Max-Age=0") {
            jar.push((name.to_owned(), value.to_owned()));
        }
    }
    let pairs: Vec<String> = jar.iter().map(|(n, v)| format!("{n}={v}")).collect();
    pairs.join("; ")
}
