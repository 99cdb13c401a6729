//! WebSocket by hand (RFC 6455): handshakes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

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
