//! WebSocket by hand (RFC 6455): handshakes and frames.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;

/// The key of every handshake here.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The fields of a handshake; more may follow.
pub const FIELDS: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", KEY),
];

/// A handshake as a client sends it.
pub fn handshake(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n");
    for (name, value) in FIELDS.iter().chain(more) {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The upstream's yes to a handshake with [`KEY`]; `more` are fields with their line ends.
pub fn accepted(more: &str) -> Vec<u8> {
    let text = format!("{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let accept = STANDARD.encode(aws_lc_rs::digest::digest(algorithm, text.as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
    .into_bytes()
}

/// One whole message in one frame; a client's are masked.
pub fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..=125 => bytes.push(bit | short as u8),
        middle @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend((middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(bit | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    let mask = if masked { [1, 2, 3, 4] } else { [0; 4] };
    if masked {
        bytes.extend(mask);
    }
    bytes.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

/// Reads one frame with this: its opcode and payload, unmasked. `None`: there is no whole one.
pub fn read(mut exactly: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<(u8, Vec<u8>)> {
    let head = exactly(2)?;
    let extended = match head[1] & 0x7f {
        126 => exactly(2)?,
        127 => exactly(8)?,
        short => vec![short],
    };
    let length = extended
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let mask = if head[1] & 0x80 != 0 {
        exactly(4)?
    } else {
        vec![0]
    };
    let payload = exactly(length)?;
    let payload = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, mask)| byte ^ mask);
    Some((head[0] & 0x0f, payload.collect()))
}
