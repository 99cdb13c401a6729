//! An upstream that speaks HTTP/2 in the clear, and does with each request what the test says.

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Call {
    pub head: Arc<http::request::Parts>,
    pub body: Vec<u8>,
    pub trailers: HeaderMap,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .headers
            .get(name)
            .map(|value| value.to_str().unwrap())
    }
}

/// The upstream. Ends when it is dropped.
pub struct Upstream2 {
    pub address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

/// What a script answers with.
pub struct Answering {
    send: SendResponse<Bytes>,
    body: Option<SendStream<Bytes>>,
}

impl Upstream2 {
    /// The script sees each call when its body has ended.
    pub fn start<F, O>(script: F) -> Self
    where
        F: Fn(Call, Answering) -> O + Send + Sync + 'static,
        O: Future<Output = ()> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (kept, script) = (calls.clone(), Arc::new(script));
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = connections.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (kept, script) = (kept.clone(), script.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, send))) = connection.accept().await {
                        let (kept, script) = (kept.clone(), script.clone());
                        tokio::spawn(async move {
                            let call = take(request).await;
                            kept.lock().push(call.clone());
                            script(call, Answering { send, body: None }).await;
                        });
                    }
                });
            }
        });
        Self {
            address,
            calls,
            connections,
            _runtime: runtime,
        }
    }

    /// How many connections were made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().clone()
    }
}

async fn take(request: Request<h2::RecvStream>) -> Call {
    let (head, mut body) = request.into_parts();
    let mut call = Call {
        head: Arc::new(head),
        body: Vec::new(),
        trailers: HeaderMap::new(),
    };
    while let Some(Ok(data)) = body.data().await {
        call.body.extend_from_slice(&data);
        let _ = body.flow_control().release_capacity(data.len());
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        call.trailers = trailers;
    }
    call
}

impl Answering {
    /// The head; `ends`: nothing follows.
    pub fn head(&mut self, fields: &[(&str, &str)], ends: bool) {
        let mut answer = Response::builder().status(200);
        for (name, value) in fields {
            answer = answer.header(*name, *value);
        }
        self.body = self.send.send_response(answer.body(()).unwrap(), ends).ok();
    }

    pub fn data(&mut self, bytes: &[u8]) {
        let body = self.body.as_mut().unwrap();
        let _ = body.send_data(Bytes::copy_from_slice(bytes), false);
    }

    pub fn trailers(&mut self, fields: &[(&'static str, &str)]) {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, value.parse().unwrap());
        }
        let _ = self.body.as_mut().unwrap().send_trailers(map);
    }

    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }
}
