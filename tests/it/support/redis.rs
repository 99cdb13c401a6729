//! The real `redis-server`, as a child on a port of its own that keeps nothing on disk. It can be stopped, started again on
//! the same port, and frozen.

use super::tls;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tollhouse::base::secret::Secret;
use tollhouse::redis::{Address, Redis, Settings};

/// How it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Tcp,
    /// With the certificate of the vectors, for app.test and 127.0.0.1.
    Tls,
    Unix,
}

/// A server that runs until it is dropped or stopped.
pub struct RedisServer {
    folder: TempDir,
    door: Door,
    port: u16,
    password: Option<String>,
    child: Option<Child>,
}

impl RedisServer {
    /// On a free port, open to all.
    pub fn start() -> Self {
        Self::start_with(Door::Tcp, None)
    }

    /// With another door, or a password of the user `default`.
    pub fn start_with(door: Door, password: Option<&str>) -> Self {
        // A port that was free a moment ago may be somebody else's by now: then another one.
        for _ in 0..20 {
            let mut server = Self {
                folder: tempfile::tempdir().unwrap(),
                door,
                port: super::free_port(),
                password: password.map(str::to_owned),
                child: None,
            };
            if server.spawn() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("redis.sock")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// False: it ended at once.
    fn spawn(&mut self) -> bool {
        let _ = std::fs::remove_file(self.log());
        let mut command = Command::new("redis-server");
        let port = self.port.to_string();
        command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]);
        command.arg("--dir").arg(self.folder.path());
        command.arg("--logfile").arg(self.log());
        match self.door {
            Door::Tcp => drop(command.args(["--port", &port])),
            Door::Unix => {
                command.args(["--port", "0", "--unixsocket"]);
                command.arg(self.socket());
            }
            Door::Tls => {
                command.args(["--port", "0", "--tls-port", &port]);
                command.args(["--tls-auth-clients", "no"]);
                for (option, file) in [
                    ("--tls-cert-file", "app.test.pem"),
                    ("--tls-key-file", "app.test-key.pem"),
                    ("--tls-ca-cert-file", "app.test.pem"),
                ] {
                    command.arg(option).arg(tls::file(file));
                }
            }
        }
        if let Some(password) = &self.password {
            command.args(["--requirepass", password]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| {
            panic!("redis-server is needed (apt-get install redis-server): {error}")
        });
        let mut alive = false;
        super::eventually(|| {
            alive = child.try_wait().unwrap().is_none();
            !alive || self.listens()
        });
        self.child = Some(child);
        alive
    }

    /// It says so itself: whoever answers on its port may be somebody else.
    fn listens(&self) -> bool {
        let said = std::fs::read_to_string(self.log()).unwrap_or_default();
        said.contains("eady to accept connections")
    }

    /// Where it is, for a command of at most two seconds: these tests are not about its speed.
    pub fn settings(&self) -> Settings {
        Settings {
            address: match self.door {
                Door::Unix => Address::Unix(self.socket()),
                Door::Tcp | Door::Tls => Address::Tcp {
                    host: "127.0.0.1".into(),
                    port: self.port,
                    tls: self.door == Door::Tls,
                },
            },
            username: None,
            password: self.password.clone().map(Secret::new),
            database: 0,
            timeout: Duration::from_secs(2),
            ca_file: (self.door == Door::Tls).then(|| tls::file("app.test.pem")),
        }
    }

    /// The table of a file that names it.
    pub fn table(&self) -> String {
        let port = self.port;
        format!("[redis]\nurl = \"redis://127.0.0.1:{port}\"\ntimeout = \"2s\"\n")
    }

    /// A handle that is connected.
    pub async fn connect(&self) -> Redis {
        let redis = Redis::start(&self.settings(), tokio::runtime::Handle::current()).unwrap();
        let ready = tokio::time::timeout(super::PATIENCE, redis.ready());
        ready.await.expect("the handle never connected");
        redis
    }

    /// What has names like these is gone, from one moment to the next.
    pub fn forget(&self, names: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let redis = self.connect().await;
            let mut found = ::redis::cmd("KEYS");
            found.arg(names);
            for name in redis.ask::<Vec<String>>(found).await.unwrap() {
                let mut gone = ::redis::cmd("DEL");
                gone.arg(name);
                redis.ask::<i64>(gone).await.unwrap();
            }
        });
    }

    /// Ends it, with all that it holds.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was, empty.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        super::eventually(|| self.spawn());
    }

    /// Connections are taken and nothing is answered until [`RedisServer::go_on`].
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(status.success(), "{:?}", status.signal());
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One runtime for whatever a test and its handles do.
pub fn run(test: impl AsyncFnOnce()) {
    let control = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    control.block_on(test());
}

/// Waits until it holds, without keeping the runtime from anything.
pub async fn soon(mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + super::PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < until, "it never came true");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What is kept under a name.
pub async fn get(redis: &Redis, name: &str) -> Option<Vec<u8>> {
    let mut command = ::redis::cmd("GET");
    command.arg(name);
    redis.ask(command).await.unwrap()
}

/// How many milliseconds it is kept; below zero: for ever, or it is not there.
pub async fn life(redis: &Redis, name: &str) -> i64 {
    let mut command = ::redis::cmd("PTTL");
    command.arg(name);
    redis.ask(command).await.unwrap()
}
