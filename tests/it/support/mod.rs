//! What every test stands on: a gateway in this process on a port of its own with a clock that stands still, a
//! development provider that counts, an upstream that keeps what it received, and a client that sends bytes as told.

mod client;
pub mod events;
pub mod frames;
pub mod http2;
pub mod keys;
mod provider;
pub mod redis;
pub mod tls;
mod upstream;
pub mod upstream2;
pub mod websocket;

pub use client::{Answer, Client, dial, send, taken};
pub use provider::{Identity, cookie};
pub use upstream::{Closed, Received, Reply, Upstream, Wire, scripted};

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tollhouse::base::clock::Clock;
use tollhouse::config::value::ListenAddr;
use tollhouse::config::{self, Config, Options};
use tollhouse::server::{self, Control, Drained, Running};
use tollhouse::snapshot::Snapshot;
use tollhouse::telemetry::{AccessLog, Format};

/// When the frozen clock starts: 2026-01-01T00:00:00Z.
pub const NOW: u64 = 1_767_225_600;

/// A file that is right.
pub fn read(text: &str) -> Config {
    let environment = config::interpolate::ProcessEnvironment::default();
    config::load(
        text,
        Path::new("test.toml"),
        &environment,
        Options {
            placeholders: false,
        },
    )
    .unwrap_or_else(|problems| panic!("the test's file is wrong:\n{problems}"))
}

/// A gateway under test. Dropping it drains it.
pub struct House {
    pub address: SocketAddr,
    /// Of each `[[listeners]]`, in their order.
    pub doors: Vec<SocketAddr>,
    pub admin: SocketAddr,
    pub log: Log,
    running: Option<Running>,
}

impl House {
    /// Starts a gateway with this file. `[server]` and `[admin]` listen on free ports unless the text says otherwise.
    pub fn start(text: &str) -> Self {
        Self::start_at(text, Clock::frozen(NOW))
    }

    /// Starts a gateway with a clock that the test shares with its provider.
    pub fn start_at(text: &str, clock: Clock) -> Self {
        let mut text = text.to_owned();
        if !text.contains("[server]") {
            text.insert_str(0, "[server]\n");
        }
        text = text.replacen(
            "[server]\n",
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\n",
            1,
        );
        if !text.contains("[admin]") {
            text.push_str("\n[admin]\nlisten = \"127.0.0.1:0\"\n");
        }
        let config = Arc::new(read(&text));
        let log = Log::default();
        let access = AccessLog::start(Format::Json, Box::new(log.clone())).unwrap();
        access.configure(config.log.access, config.log.user_id);
        let control = Control::start().unwrap();
        let snapshot = Snapshot::compile(
            config.clone(),
            &server::ground(&config, clock.clone(), &control),
        )
        .unwrap();
        let failures = control
            .handle()
            .block_on(tollhouse::gateway::rehearse::run(&snapshot));
        assert!(failures.is_empty(), "{failures:?}");
        let running = server::start(snapshot, access, control).unwrap();
        let tcp = |address: &ListenAddr| match address {
            ListenAddr::Tcp(address) => *address,
            ListenAddr::Unix(_) => panic!("not a port"),
        };
        Self {
            address: tcp(&running.addresses[0]),
            doors: running.addresses[1..].iter().map(tcp).collect(),
            admin: running
                .admin
                .as_ref()
                .map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), tcp),
            log,
            running: Some(running),
        }
    }

    /// Sends one request and reads its answer.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", path, headers, "")
    }

    /// Sends one request with a body and reads its answer.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if !headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        send(self.address, text.as_bytes(), method == "HEAD")
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        send(
            self.admin,
            b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
            false,
        )
        .text()
    }

    /// The value of one series; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let page = self.metrics();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// The configuration in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.running.as_ref().unwrap().current.load_full()
    }

    /// Drains it and says how that went.
    pub fn stop(mut self) -> Drained {
        self.running.take().unwrap().stop()
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(running) = self.running.take()
            && !std::thread::panicking()
        {
            running.stop();
        }
    }
}

/// The access log of a gateway under test.
#[derive(Clone, Default)]
pub struct Log(Arc<parking_lot::Mutex<Vec<u8>>>, Arc<AtomicUsize>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        self.1.fetch_add(lines, Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The records written so far.
    pub fn records(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until there are so many records.
    pub fn wait_for(&self, count: usize) -> Vec<serde_json::Value> {
        eventually(|| self.records().len() >= count);
        self.records()
    }
}

/// Timers are looked at ten times a second, and the machine may be busy: this took about so many milliseconds.
pub fn about(began: std::time::Instant, expected: u64) {
    let took = began.elapsed().as_millis();
    let (low, high) = (u128::from(expected), u128::from(expected) + 2_000);
    assert!((low..high).contains(&took), "{took} ms, not {expected}");
}

/// Lets a script tell the test something, and wait for it.
pub fn pair<T: Send + 'static>() -> (parking_lot::Mutex<mpsc::Sender<T>>, mpsc::Receiver<T>) {
    let (tell, told) = mpsc::channel();
    (parking_lot::Mutex::new(tell), told)
}

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until it holds, for at most ten seconds.
pub fn eventually(mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < until, "it never came true");
        std::thread::yield_now();
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// `[upstreams.app]` for a gateway's file; keys of the upstream may follow.
pub fn app(upstream: &Upstream) -> String {
    format!("[upstreams.app]\nurl = \"{}\"\n", upstream.url())
}

/// A gateway that lets everything through to this upstream; `server` holds keys of `[server]`.
pub fn open_house(upstream: &Upstream, server: &str) -> House {
    House::start(&format!(
        "[server]\n{server}\n{}[[routes]]\npath = \"/*\"\nauth = \"public\"\n",
        app(upstream)
    ))
}

/// The members that every problem has (contract, section 4): checked, and the code given back.
pub fn problem(answer: &Answer) -> String {
    let json = answer.json();
    let code = answer.code();
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    assert_eq!(json["type"], format!("urn:tollhouse:problem:{code}"));
    assert_eq!(json["status"], answer.status);
    assert_eq!(
        json["request_id"].as_str(),
        answer.header("x-request-id"),
        "{json}"
    );
    assert!(json["title"].as_str().is_some_and(|t| !t.is_empty()));
    assert!(json["detail"].as_str().is_some_and(|d| !d.is_empty()));
    assert!(json["forwarded"].is_boolean());
    assert_eq!(
        json.as_object().map(serde_json::Map::len),
        Some(7),
        "{json}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    code
}

/// A TCP port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Log {
    /// How many lines were written.
    pub fn lines(&self) -> usize {
        self.1.load(Ordering::SeqCst)
    }

    /// The lines as they were written.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}
