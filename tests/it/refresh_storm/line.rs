//! What leads to the provider's API. When the provider restarts, whoever was connected is cut off, and nobody is taken in
//! until it is back.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub struct Line {
    pub url: String,
    up: watch::Sender<bool>,
    _runtime: Runtime,
}

impl Line {
    pub fn to(target: SocketAddr) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (up, seen) = watch::channel(true);
        runtime.spawn(relay(listener, target, seen));
        Self {
            url,
            up,
            _runtime: runtime,
        }
    }

    /// Takes so long.
    pub fn restart(&self, length: Duration) {
        self.up.send_replace(false);
        std::thread::sleep(length);
        self.up.send_replace(true);
    }
}

async fn relay(listener: TcpListener, target: SocketAddr, mut up: watch::Receiver<bool>) {
    let mut connected = JoinSet::new();
    loop {
        tokio::select! {
            Ok(()) = up.changed() => connected.abort_all(),
            Some(_) = connected.join_next() => {}
            Ok((mut here, _)) = listener.accept() => {
                // The port stays ours: what comes meanwhile is closed at once.
                if !*up.borrow() {
                    continue;
                }
                connected.spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(target).await {
                        let _ = here.set_nodelay(true);
                        let _ = there.set_nodelay(true);
                        let _ = copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        }
    }
}
