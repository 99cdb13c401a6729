//! The bottom of an HTTP/2 connection: the dial, the socket, the settings, and the task that drives it. A connection
//! counts as made when the peer's SETTINGS are there: only then is it known to speak HTTP/2 and how much it takes.

use crate::base::body::Body;
use crate::upstream::dial::{MAX_HEAD, tcp};
use crate::upstream::endpoint::Address;
use futures_util::task::AtomicWaker;
use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::AlertDescription;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Bytes of one answer that may be on their way unread. What a slow reader can hold of the gateway's memory, and what a
/// stream can carry in one round trip.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all answers of a connection. More than its streams can fill together: a reader that stalls takes nothing
/// from the others. And h2 allows half of this, in bytes, as overhead of small frames that nobody has read yet (256 less
/// the length of each); when it is used up, the connection dies with every stream on it. 32 MiB is what 80 stalled readers
/// of events of 100 bytes use.
const CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

/// Bytes of one request that h2 holds before they are written.
const SEND_BUFFER: usize = 64 * 1024;

/// The length of a frame's header (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;

/// The largest frame that we allow a peer, in bytes: what RFC 9113 §6.5.2 starts with.
const FRAME_MAX: usize = 16 * 1024;

/// The type of a SETTINGS frame (RFC 9113 §6.5).
const SETTINGS: u8 = 4;

/// Any stream of bytes. One type for all, so that hyper's HTTP/2 is compiled once.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

type Driven = Connection<TokioIo<Wire>, Body, TokioExecutor>;

/// A fresh connection: the end that takes requests, and what can be known and done from below.
pub(super) struct Fresh {
    pub(super) sender: SendRequest<Body>,
    pub(super) pulse: Arc<Pulse>,
}

/// What the socket, the task that drives it and the pool know together.
#[derive(Default)]
pub(super) struct Pulse {
    /// The peer's first frame is here whole, and it is SETTINGS.
    greeted: AtomicBool,
    /// What came first was something else.
    strange: AtomicBool,
    /// The streams that the peer allows at once (RFC 9113 §5.1.2), as of the driver's last turn.
    allows: AtomicUsize,
    /// How often something was read.
    heard: AtomicU64,
    /// Wakes the driver when the peer has greeted.
    driver: AtomicWaker,
    /// Nothing is read or written any more.
    cut: AtomicBool,
    /// Wakes who reads when it is cut.
    reader: AtomicWaker,
}

impl Pulse {
    pub(super) fn allows(&self) -> usize {
        self.allows.load(Ordering::Relaxed)
    }

    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Ends the connection without waiting for the peer, which may be gone: a farewell might never be written.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        self.reader.wake();
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }
}

/// Cuts what is not handed on.
struct Unfinished(Arc<Pulse>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.cut();
    }
}

/// Connects. The caller bounds the whole; `patience` is only shared out between the addresses of a name.
///
/// Cancel-safe: a caller that goes away ends the attempt.
pub(super) async fn connect(address: &Address, patience: Duration) -> io::Result<Box<dyn Socket>> {
    Ok(match address {
        Address::Tcp(site) => Box::new(tcp(site, patience).await?),
        Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Address::Tls(site, name, tls) => {
            let stream = tcp(site, patience).await?;
            let stream = tls.h2.connect(name.clone(), stream).await?;
            if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
                return Err(other("the upstream did not choose HTTP/2 by ALPN"));
            }
            Box::new(stream)
        }
    })
}

/// Puts HTTP/2 on a stream and waits for the peer to do the same.
///
/// Cancel-safe, like `connect`.
pub(super) async fn greet(socket: Box<dyn Socket>) -> io::Result<Fresh> {
    let pulse = Arc::<Pulse>::default();
    let wire = Wire {
        socket,
        pulse: pulse.clone(),
        first: First::default(),
    };
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(TokioIo::new(wire))
        .await
        .map_err(io::Error::other)?;
    let unfinished = Unfinished(pulse.clone());
    let (greeting, greeted) = oneshot::channel();
    tokio::spawn(drive(connection, pulse.clone(), greeting));
    match greeted.await {
        Ok(()) => {
            std::mem::forget(unfinished);
            Ok(Fresh { sender, pulse })
        }
        Err(_) if pulse.strange.load(Ordering::Relaxed) => {
            Err(other("the upstream does not speak HTTP/2"))
        }
        Err(_) => Err(io::Error::new(
            io::ErrorKind::ConnectionReset,
            "the upstream closed the connection before its HTTP/2 settings came",
        )),
    }
}

/// The upstream spoke, and not in HTTP/2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Other(&'static str);

fn other(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Other(what))
}

/// Whether an upstream has shown that it speaks something else.
pub(super) fn speaks_other(error: &io::Error) -> bool {
    const ALERT: rustls::Error =
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    error.get_ref().is_some_and(|inner| {
        inner.is::<Other>() || inner.downcast_ref::<rustls::Error>() == Some(&ALERT)
    })
}

/// Drives a connection until it has ended, or nobody can send on it and its streams are over.
async fn drive(connection: Driven, pulse: Arc<Pulse>, greeting: oneshot::Sender<()>) {
    let mut connection = pin!(connection);
    let mut greeting = Some(greeting);
    let ended = std::future::poll_fn(|cx| {
        pulse.driver.register(cx.waker());
        let polled = connection.as_mut().poll(cx);
        if pulse.greeted.load(Ordering::Relaxed) {
            let allows = connection.current_max_send_streams();
            pulse.allows.store(allows, Ordering::Relaxed);
            if let Some(greeting) = greeting.take() {
                // Whoever dialled may have gone away.
                let _ = greeting.send(());
            }
        }
        polled
    });
    if let Err(error) = ended.await {
        // Whoever waited for an answer has been told; this is for connections nobody was waiting on.
        tracing::debug!(error = &error as &dyn Error, "upstream connection ended");
    }
}

/// The peer's first frame, as it arrives.
#[derive(Default)]
struct First {
    header: [u8; FRAME_HEADER],
    /// Bytes of the frame that have come.
    come: usize,
}

impl First {
    /// More bytes have come. Whether the frame is complete; an error when it is not SETTINGS (RFC 9113 §3.4).
    fn read(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let missing = FRAME_HEADER.saturating_sub(self.come);
        for (to, from) in self.header[FRAME_HEADER - missing..].iter_mut().zip(bytes) {
            *to = *from;
        }
        self.come = self.come.saturating_add(bytes.len());
        if self.come < FRAME_HEADER {
            return Ok(false);
        }
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let acknowledges = flags & 1 == 1;
        if kind != SETTINGS || acknowledges || stream != [0; 4] || length > FRAME_MAX {
            return Err(other("the first frame is not SETTINGS"));
        }
        Ok(self.come >= FRAME_HEADER + length)
    }
}

/// The socket of a connection: watched until the peer has greeted, and ended when it is cut.
struct Wire {
    socket: Box<dyn Socket>,
    pulse: Arc<Pulse>,
    first: First,
}

impl Wire {
    fn whole(&self) -> io::Result<()> {
        if self.pulse.is_cut() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.pulse.reader.register(cx.waker());
        this.whole()?;
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        this.pulse.heard.fetch_add(1, Ordering::Relaxed);
        if !this.pulse.greeted.load(Ordering::Relaxed) {
            let news = buffer.filled().get(before..).unwrap_or_default();
            match this.first.read(news) {
                // h2 takes the frame in before it asks for more, so that the driver finds it done.
                Ok(complete) if complete => {
                    this.pulse.greeted.store(true, Ordering::Relaxed);
                    this.pulse.driver.wake();
                }
                Ok(_) => {}
                Err(error) => {
                    this.pulse.strange.store(true, Ordering::Relaxed);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.whole()?;
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.whole()?;
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.whole()?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_is_settings_however_it_is_cut() {
        let check = |pieces: &[&[u8]], expected: Option<bool>| {
            let mut first = First::default();
            let mut last = Some(false);
            for piece in pieces {
                last = first.read(piece).ok();
            }
            assert_eq!(last, expected, "{pieces:?}");
        };
        let empty = b"\0\0\0\x04\0\0\0\0\0";
        check(&[empty], Some(true));
        check(&[&empty[..8]], Some(false));
        check(&[&empty[..3], &empty[3..7], &empty[7..]], Some(true));
        check(&[b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0"], Some(false));
        check(
            &[b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0", b"\x0a"],
            Some(true),
        );
        check(
            &[b"\0\0\x06\x04\0\0\0\0\0", b"\0\x03\0\0\0\x0a more"],
            Some(true),
        );
        check(&[b"HTTP/1.1 400 Bad Request\r\n\r\n"], None);
        check(&[b"HTT", b"P/1.1 400"], None);
        check(&[b"\0\0\0\x04\x01\0\0\0\0"], None);
        check(&[b"\0\0\0\x04\0\0\0\0\x01"], None);
        check(&[b"\0\0\x08\x06\0\0\0\0\0"], None);
        check(&[b"\xff\xff\xff\x04\0\0\0\0\0"], None);
    }
}
