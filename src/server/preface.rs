//! HTTP/2 with prior knowledge beside HTTP/1.1 (RFC 9113 §3.3 and §3.4): the first bytes tell, and they have to come in
//! time.

use crate::base::deadline::Deadline;
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is known which protocol begins: the bytes that were read for that, and whether it is HTTP/2. The first
/// byte may take `idle`, as on any connection, and the rest of a preface `head`. `None`: the client has gone, or took too
/// long.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    deadline: &Deadline,
    idle: Duration,
    head: Duration,
) -> Option<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(1024);
    let count = deadline.within(idle, stream.read_buf(&mut first)).await;
    if count.ok()?.ok()? == 0 {
        return None;
    }
    let rest = async {
        while is_open(&first) {
            if stream.read_buf(&mut first).await.ok()? == 0 {
                return None;
            }
        }
        Some(())
    };
    deadline.within(head, rest).await.ok()??;
    let is_http2 = first.starts_with(PREFACE);
    Some((first.freeze(), is_http2))
}

/// Whether what came so far may still become a preface.
fn is_open(first: &[u8]) -> bool {
    first.len() < PREFACE.len() && PREFACE.starts_with(first)
}

/// A stream of which the beginning has been read.
#[derive(Debug)]
pub(super) struct Heralded<S> {
    first: Bytes,
    stream: S,
}

impl<S> Heralded<S> {
    pub(super) fn new(first: Bytes, stream: S) -> Self {
        Self { first, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heralded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..count]);
        self.first.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heralded<S> {
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
    use crate::base::deadline::Sweeper;
    use tokio::io::AsyncWriteExt;

    async fn check(parts: &[&[u8]], expected: Option<bool>) {
        let sweeper = Sweeper::new();
        let (mut client, mut server) = tokio::io::duplex(1024);
        let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
        let all = parts.concat();
        let says = tokio::spawn(async move {
            for part in parts {
                client.write_all(&part).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let day = Duration::from_secs(86_400);
        let found = read(&mut server, &sweeper.deadline(), day, day).await;
        says.await.unwrap();
        assert_eq!(found.as_ref().map(|(_, http2)| *http2), expected);
        if let Some((first, _)) = found {
            let mut whole = Vec::new();
            Heralded::new(first, server)
                .read_to_end(&mut whole)
                .await
                .unwrap();
            assert_eq!(whole, all, "no byte is lost");
        }
    }

    #[tokio::test]
    async fn the_first_bytes_name_the_protocol() {
        check(&[PREFACE, b"frames"], Some(true)).await;
        check(
            &[&PREFACE[..1], &PREFACE[1..10], &PREFACE[10..]],
            Some(true),
        )
        .await;
        check(&[b"GET / HTTP/1.1\r\n\r\n"], Some(false)).await;
        check(&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Some(false)).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"], Some(false)).await;
        check(&[], None).await;
        check(&[b"PRI * HT"], None).await;
    }

    #[tokio::test]
    async fn a_client_that_stops_in_the_middle_is_not_waited_for() {
        let sweeper = Sweeper::new();
        let sweeping = tokio::spawn(sweeper.clone().run());
        for said in [&b""[..], b"PRI * HT"] {
            let (mut client, mut server) = tokio::io::duplex(1024);
            client.write_all(said).await.unwrap();
            let brief = Duration::from_millis(1);
            let found = read(&mut server, &sweeper.deadline(), brief, brief).await;
            assert!(found.is_none());
            drop(client);
        }
        sweeping.abort();
    }
}
