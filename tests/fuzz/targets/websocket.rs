//! `upstream::upgrade`: whatever an upstream sends in whatever pieces, a client that is told to go reads whole frames and
//! then ours, or everything up to where the upstream stopped in the middle of one. The first byte says when it is told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tollhouse::base::deadline::Sweeper;
use tollhouse::upstream::upgrade::{GOING_AWAY, Protocol, tunnel};

/// Where frames end (RFC 6455 §5.2), and whether one of them closes; read in one go, unlike the gateway does it.
fn ends(bytes: &[u8]) -> (Vec<usize>, Option<usize>) {
    let (mut ends, mut closes, mut at) = (vec![0], None, 0_usize);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 2) {
        let mask = if rest[1] & 0x80 == 0 { 0 } else { 4 };
        let (head, length) = match rest[1] & 0x7f {
            126 if rest.len() >= 4 => (4, u64::from(u16::from_be_bytes([rest[2], rest[3]]))),
            127 if rest.len() >= 10 => (10, u64::from_be_bytes(rest[2..10].try_into().unwrap())),
            126 | 127 => break,
            short => (2, u64::from(short)),
        };
        if rest.len() < head + mask {
            break;
        }
        if rest[0] & 0x0f == 8 && closes.is_none() {
            closes = Some(at);
        }
        let Ok(length) = usize::try_from(length) else { break };
        let Some(end) = at.checked_add(head + mask).and_then(|at| at.checked_add(length)) else {
            break;
        };
        if end > bytes.len() {
            break;
        }
        at = end;
        ends.push(at);
    }
    (ends, closes)
}

fuzz_target!(|data: &[u8]| {
    let Some((&when, bytes)) = data.split_first() else {
        return;
    };
    let told_at = usize::from(when) % (bytes.len() + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let came = runtime.block_on(async {
        let (mut client, near_client) = tokio::io::duplex(1 << 20);
        let (mut upstream, near_upstream) = tokio::io::duplex(1 << 20);
        let (sweeper, parting) = (Sweeper::new(), Arc::new(AtomicBool::new(false)));
        let asked = parting.clone();
        let farewell = move |_: &mut Context<'_>| asked.load(Ordering::Relaxed).then_some(GOING_AWAY);
        let linger = sweeper.deadline();
        let running = tokio::spawn(tunnel(
            near_client,
            near_upstream,
            Protocol::WebSocket,
            linger,
            farewell,
        ));
        for piece in bytes[..told_at].chunks(usize::from(when) + 1) {
            upstream.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        parting.store(true, Ordering::Relaxed);
        sweeper.wake_all();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        for piece in bytes[told_at..].chunks(usize::from(when) + 1) {
            let _ = upstream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        drop(upstream);
        client.shutdown().await.unwrap();
        let mut came = Vec::new();
        client.read_to_end(&mut came).await.unwrap();
        running.await.unwrap();
        came
    });
    let ours = [&[0x88, 2 + GOING_AWAY.reason.len() as u8, 0x03, 0xe9], GOING_AWAY.reason.as_bytes()].concat();
    let (ends, closes) = ends(bytes);
    let end = ends.iter().copied().find(|end| *end >= told_at);
    match end {
        // Told between two frames, or in the middle of one that has an end.
        Some(end) if closes.is_none_or(|closes| closes >= end) => {
            assert_eq!(came, [&bytes[..end], &ours].concat());
        }
        // The upstream had said goodbye itself.
        Some(end) => assert_eq!(came, &bytes[..end]),
        // It stopped in the middle: what there was of the frame, and perhaps nothing else.
        None => assert!(bytes.starts_with(&came) && came.len() >= told_at),
    }
});
