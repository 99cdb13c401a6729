//! A connection on which an upstream switched protocols (RFC 9110 §7.8): raw bytes from here on, as for WebSocket.

use super::conn::Conn;
use super::retry::{Fault, SendError};
use super::send::{Sent, Terms};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Response};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection to an upstream that speaks another protocol now. It holds its place at the endpoint, so that
/// `max_in_flight` and the balance count it, until it is dropped: then it is closed.
pub struct Switched {
    stream: TokioIo<Upgraded>,
    /// Dropped last: its place is free when the socket is closed.
    _conn: Box<Conn>,
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switched").finish_non_exhaustive()
    }
}

/// Takes a 101, if it is the one that was asked for. Not a byte has passed raw before.
pub(super) async fn accept(
    mut conn: Box<Conn>,
    mut response: Response<Incoming>,
    terms: &Terms,
    address: &Arc<str>,
) -> Result<Sent, SendError> {
    if !agrees(terms.upgrade.as_ref(), response.headers()) {
        return Err(SendError::Protocol {
            address: address.clone(),
            source: Fault::UnaskedUpgrade,
        });
    }
    let switching = hyper::upgrade::on(&mut response);
    let stream = match conn.switch(switching, terms.timeout).await {
        Ok(Ok(stream)) => TokioIo::new(stream),
        Ok(Err(error)) => return Err(SendError::of(error, address)),
        Err(_elapsed) => {
            let address = address.clone();
            return Err(SendError::Timeout { address });
        }
    };
    let mut head = response.map(|_| ());
    // A 101 has no body, whatever it says (RFC 9110 §8.6, RFC 9112 §6.1).
    head.headers_mut().remove(CONTENT_LENGTH);
    head.headers_mut().remove(TRANSFER_ENCODING);
    let stream = Switched {
        stream,
        _conn: conn,
    };
    Ok(Sent::Switched { head, stream })
}

/// Whether a 101 names what was asked for, and nothing else. Names of protocols are compared without regard to case
/// (RFC 9110 §7.8).
fn agrees(asked: Option<&HeaderValue>, answer: &HeaderMap) -> bool {
    let mut named = answer.get_all(UPGRADE).iter();
    let (Some(asked), Some(named), None) = (asked, named.next(), named.next()) else {
        return false;
    };
    asked.as_bytes().eq_ignore_ascii_case(named.as_bytes())
}

impl AsyncRead for Switched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Switched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
    fn a_101_must_name_the_protocol_that_was_asked_for_and_no_other() {
        let check = |asked: Option<&'static str>, named: &[&'static str], expected| {
            let mut headers = HeaderMap::new();
            for name in named {
                headers.append(UPGRADE, HeaderValue::from_static(name));
            }
            let asked = asked.map(HeaderValue::from_static);
            assert_eq!(
                agrees(asked.as_ref(), &headers),
                expected,
                "{asked:?} {named:?}"
            );
        };
        check(Some("websocket"), &["websocket"], true);
        check(Some("websocket"), &["WebSocket"], true);
        check(Some("websocket"), &["h2c"], false);
        check(Some("websocket"), &["websocket, h2c"], false);
        check(Some("websocket"), &["websocket", "h2c"], false);
        check(Some("websocket"), &[], false);
        check(None, &["websocket"], false);
    }
}
