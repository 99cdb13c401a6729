//! A client of HTTP/2 that writes the frames it is told to (RFC 9113 §4 and §6), hostile ones included, and reads frames
//! back. Its header blocks are literals (RFC 7541 §6.2.2); of an answer's it reads the status.

use super::client::dial;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

// RFC 9113 §7.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const HEADER_TABLE_SIZE: u16 = 1;
pub const INITIAL_WINDOW_SIZE: u16 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// An answer to its end.
    Answered(u16, Vec<u8>),
    /// The stream was reset with this code.
    Reset(u32),
    /// The connection ended, with this code if one was said.
    Gone(Option<u32>),
}

impl Outcome {
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered(status, _) => Some(*status),
            _ => None,
        }
    }

    /// The `code` of a problem.
    pub fn code(&self) -> String {
        match self {
            Self::Answered(_, body) => {
                let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                json["code"].as_str().unwrap_or_default().to_owned()
            }
            _ => String::new(),
        }
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block of literals that nobody remembers.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            // An integer with a prefix of seven bits (RFC 7541 §5.1).
            let mut left = text.len();
            if left < 127 {
                bytes.push(left as u8);
            } else {
                bytes.push(127);
                left -= 127;
                while left >= 128 {
                    bytes.push((left % 128) as u8 | 128);
                    left /= 128;
                }
                bytes.push(left as u8);
            }
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The fields of a plain request; more may follow.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "app.test"),
    ]
}

/// One connection.
pub struct Frames<S = TcpStream> {
    stream: S,
    /// What came on streams that nobody had asked for yet.
    kept: VecDeque<Frame>,
}

impl Frames {
    /// Without TLS; the preface and settings are said.
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, &[])
    }

    /// With these settings besides.
    pub fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut this = Self {
            stream: dial(address),
            kept: VecDeque::new(),
        };
        let mut payload = Vec::new();
        for (name, value) in [(HEADER_TABLE_SIZE, 0)].iter().chain(settings) {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        this.write(PREFACE);
        this.write(&frame(SETTINGS, 0, 0, &payload));
        this
    }

    pub fn tcp(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: Read + Write> Frames<S> {
    /// `false`: the other side does not take it any more.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// The head of a request, or trailers.
    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) -> bool {
        let end = if ends { END_STREAM } else { 0 };
        self.send(HEADERS, END_HEADERS | end, stream, &block(fields))
    }

    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) -> bool {
        self.send(DATA, if ends { END_STREAM } else { 0 }, stream, bytes)
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> bool {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// The next frame; `None`: the connection has ended. Settings and pings are acknowledged on the way.
    pub fn read(&mut self) -> Option<Frame> {
        match self.try_read() {
            Ok(frame) => Some(frame),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("neither a frame nor an end has come")
            }
            Err(_) => None,
        }
    }

    /// The next frame, or why there is none.
    pub fn try_read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b));
        let mut payload = vec![0; number(&head[..3]) as usize];
        self.stream.read_exact(&mut payload)?;
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream: number(&head[5..]),
            payload,
        };
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = match frame.kind {
                PING => frame.payload.clone(),
                _ => Vec::new(),
            };
            self.send(frame.kind, ACK, 0, &payload);
        }
        Ok(frame)
    }

    /// What has come on this stream when the other side has read all that was said, windows aside.
    pub fn settled(&mut self, stream: u32) -> Vec<Frame> {
        let mut seen = Vec::new();
        self.send(PING, 0, 0, b"settled?");
        loop {
            let frame = self.read().unwrap();
            if frame.kind == PING && frame.flags & ACK != 0 {
                return seen;
            }
            if frame.stream == stream && frame.kind != WINDOW_UPDATE {
                seen.push(frame);
            }
        }
    }

    /// The first frame that was kept for later and is asked for now.
    fn kept(&mut self, is_asked: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let at = self.kept.iter().position(is_asked)?;
        self.kept.remove(at)
    }

    /// Reads until a frame of this kind comes.
    pub fn until(&mut self, kind: u8) -> Option<Frame> {
        if let Some(frame) = self.kept(|frame| frame.kind == kind) {
            return Some(frame);
        }
        loop {
            let frame = self.read()?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Reads until it is known what became of this stream.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body, mut gone) = (0, Vec::new(), None);
        loop {
            let kept = self.kept(|frame| frame.stream == stream);
            let Some(frame) = kept.or_else(|| self.read()) else {
                return Outcome::Gone(gone);
            };
            if frame.kind == GOAWAY {
                gone = Some(frame.code());
            }
            if frame.stream != stream {
                self.kept
                    .extend(Some(frame).filter(|frame| frame.stream != 0));
                continue;
            }
            match frame.kind {
                HEADERS if status == 0 => status = frame.status(),
                DATA => {
                    body.extend(&frame.payload);
                    self.give(frame.payload.len(), stream);
                }
                RST_STREAM => return Outcome::Reset(frame.code()),
                _ => {}
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return Outcome::Answered(status, body);
            }
        }
    }

    /// Opens the windows for so many bytes more.
    pub fn give(&mut self, bytes: usize, stream: u32) {
        if bytes > 0 {
            let bytes = u32::try_from(bytes).unwrap().to_be_bytes();
            self.send(WINDOW_UPDATE, 0, 0, &bytes);
            self.send(WINDOW_UPDATE, 0, stream, &bytes);
        }
    }

    /// Sends a request without a body and says what became of it.
    pub fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> Outcome {
        self.headers(stream, fields, true);
        self.outcome(stream)
    }
}

impl Frame {
    /// Of a `RST_STREAM` or `GOAWAY`: the error code.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    /// Of a `HEADERS`: the status, which comes first.
    pub fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        // The size of the table (RFC 7541 §6.3).
        while block[0] & 0xe0 == 0x20 {
            block = &block[1..];
        }
        match block[0] {
            // Of the static table (RFC 7541 appendix A).
            indexed @ 0x88..=0x8e => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
            }
            // A literal whose name is the eighth.
            0x48 | 0x08 | 0x18 => digits(
                block[1] & 0x80 != 0,
                &block[2..2 + usize::from(block[1] & 0x7f)],
            ),
            other => panic!("no status: {other:x}"),
        }
    }
}

/// Three digits, in Huffman's code (RFC 7541 appendix B) or as they are.
fn digits(huffman: bool, bytes: &[u8]) -> u16 {
    if !huffman {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut code = bits.by_ref().take(5).fold(0, |sum, bit| sum << 1 | bit);
        let digit = if code < 3 {
            code // `0`, `1` and `2` have five bits, the others six.
        } else {
            code = code << 1 | bits.next().unwrap();
            code - 0b01_1001 + 3
        };
        number = number * 10 + digit;
    }
    number
}
