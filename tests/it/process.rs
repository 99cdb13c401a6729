//! The built binary: what it prints, how it ends, what signals do.

use crate::support::{Answer, Client, eventually, free_port, scripted, send};
use parking_lot::Mutex;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The binary, in a folder without a configuration and without variables of ours.
fn tollhouse(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollhouse"));
    command.current_dir(folder).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TOLLHOUSE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end, which must be soon.
pub fn run(folder: &Path, arguments: &[&str]) -> Ended {
    run_with(folder, arguments, "")
}

/// The same, with this text on its standard input.
pub fn run_with(folder: &Path, arguments: &[&str], text: &str) -> Ended {
    let mut child = tollhouse(folder)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, text) = (child.stdin.take().unwrap(), text.to_owned());
    // It may end without having read it.
    std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    // Read while it runs: a pipe holds less than some commands print.
    let out = kept(child.stdout.take().unwrap());
    let err = kept(child.stderr.take().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    // A gateway that runs although it should not: the code says so.
    let _ = child.kill();
    Ended {
        code: child.wait().unwrap().code(),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

/// Everything that a pipe brings.
fn kept(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// `None`: a signal.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A gateway in a process of its own. Dropping it kills it.
pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub banner: serde_json::Value,
    out: Arc<Mutex<String>>,
    folder: TempDir,
}

impl Gateway {
    /// Runs a file with these lines in `[server]` and this text after it, on free ports. Returns when it is ready.
    pub fn start(server: &str, rest: &str) -> Self {
        let listen = if server.contains("listen =") {
            ""
        } else {
            "listen = \"127.0.0.1:0\"\n"
        };
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[server]\nworkers = 2\n{listen}{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n{rest}"
        );
        std::fs::write(folder.path().join("tollhouse.toml"), text).unwrap();
        let command = tollhouse(folder.path());
        Self::launch(command, &["run"], folder).unwrap_or_else(|ended| panic!("{ended:?}"))
    }

    /// Waits for the line that says ready.
    fn launch(mut command: Command, arguments: &[&str], folder: TempDir) -> Result<Self, Ended> {
        let mut child = command
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Arc::new(Mutex::new(String::new()));
        let (tell, told) = std::sync::mpsc::channel();
        let (lines, kept) = (BufReader::new(child.stdout.take().unwrap()), out.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let value: Option<serde_json::Value> = serde_json::from_str(&line).ok();
                kept.lock().push_str(&(line + "\n"));
                if let Some(value) = value.filter(|value| value["msg"] == "ready") {
                    let _ = tell.send(value);
                }
            }
        });
        let Ok(banner) = told.recv_timeout(Duration::from_secs(20)) else {
            let _ = child.kill();
            let mut ended = Ended::from(child.wait_with_output().unwrap());
            ended.out = out.lock().clone();
            return Err(ended);
        };
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let address = |value: &serde_json::Value| {
            let text = value.as_str().unwrap().trim_start_matches("http://");
            text.parse().unwrap_or(nowhere)
        };
        Ok(Self {
            child,
            address: address(&banner["listen"][0]),
            admin: address(&banner["admin"]),
            banner,
            out,
            folder,
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        send(self.address, head.as_bytes(), false)
    }

    /// Status and body of an admin page; status 0 when nobody answers.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let Ok(stream) = std::net::TcpStream::connect(self.admin) else {
            return (0, String::new());
        };
        let mut client = Client::over(stream);
        client.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        client
            .try_read(false)
            .map_or((0, String::new()), |answer| (answer.status, answer.text()))
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(folder).unwrap().count()
    }

    /// A size of `/proc/PID/status` in KiB: `VmRSS`, `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Lines of standard output so far.
    pub fn out(&self) -> String {
        self.out.lock().clone()
    }

    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    pub fn signal(&self, signal: &str) {
        // The shell's own `kill` is everywhere.
        let script = format!("kill -{signal} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .status()
                .unwrap()
                .success()
        );
    }

    /// The exit code, once it has ended; `None`: it died of a signal.
    pub fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    pub fn err(&mut self) -> String {
        let mut text = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut text);
        text
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const HELLO: &str =
    "[[routes]]\npath = \"/*\"\nauth = \"public\"\nrespond = { status = 200, body = \"hello\" }\n";

fn file(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tollhouse.toml"), text).unwrap();
    folder
}

// What is typed wrong

#[test]
fn wrong_usage_is_exit_2_and_help_is_0() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &[][..],
        &["fly"],
        &["run", "--no-such-flag"],
        &["run", "-c"],
        &["run", "-c", "a.toml", "--upstream", "http://127.0.0.1:1"],
        &["demo", "--listen", "nonsense"],
        &["healthcheck", "--admin", "nonsense"],
    ] {
        let ended = run(folder.path(), arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?} {ended:?}");
        assert!(
            ended.err.contains("--help") || ended.err.contains("Usage"),
            "{ended:?}"
        );
    }
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"]] {
        let ended = run(folder.path(), arguments);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.out.is_empty() && ended.err.is_empty());
    }
}

#[test]
fn without_a_configuration_it_says_what_to_type() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["run", "check", "routes"] {
        let ended = run(folder.path(), &[command]);
        assert_eq!(ended.code, Some(1));
        for said in [
            "no configuration found",
            "./tollhouse.toml",
            "./config/tollhouse.toml",
            "/etc/tollhouse/tollhouse.toml",
            "tollhouse run --upstream http://127.0.0.1:8000 --supabase https://xyz.supabase.co",
            "tollhouse run -c config/tollhouse.toml",
            "tollhouse demo",
        ] {
            assert!(ended.err.contains(said), "{said}: {ended:?}");
        }
    }
    let ended = run(folder.path(), &["run", "-c", "missing.toml"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("missing.toml"), "{ended:?}");
}

#[test]
fn half_of_the_flags_is_not_enough() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["run", "--upstream", "http://127.0.0.1:1"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("--supabase"), "{ended:?}");
}

// Files

#[test]
fn a_file_is_found_by_flag_variable_and_place() {
    let folder = file(HELLO);
    let moved = folder.path().join("other.toml");
    let routes = |command: &mut Command| Ended::from(command.output().unwrap()).out;
    let usual = routes(tollhouse(folder.path()).arg("routes"));
    assert!(usual.contains("/*"), "{usual}");
    std::fs::rename(folder.path().join("tollhouse.toml"), &moved).unwrap();
    let flag = routes(tollhouse(folder.path()).args(["routes", "-c", "other.toml"]));
    let variable = routes(
        tollhouse(folder.path())
            .arg("routes")
            .env("TOLLHOUSE_CONFIG", &moved),
    );
    std::fs::create_dir(folder.path().join("config")).unwrap();
    std::fs::rename(&moved, folder.path().join("config/tollhouse.toml")).unwrap();
    let place = routes(tollhouse(folder.path()).arg("routes"));
    assert_eq!([&flag, &variable, &place], [&usual; 3]);
}

#[test]
fn check_says_whether_a_file_is_right() {
    let folder = file(HELLO);
    let ended = run(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.contains("is right"), "{ended:?}");
    let ended = run(folder.path(), &["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &value["ok"]), (Some(0), &true.into()));

    let folder = file(&format!(
        "{HELLO}colour = \"red\"\n[[routes]]\npath = \"/a\"\nauht = \"public\"\n"
    ));
    let ended = run(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(1));
    // All problems at once, each with its place.
    for said in [
        "tollhouse.toml:5:1",
        "tollhouse.toml:8:1",
        "did you mean `auth`?",
    ] {
        assert!(ended.err.contains(said), "{said}: {ended:?}");
    }
    let ended = run(folder.path(), &["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &value["ok"]), (Some(1), &false.into()));
    assert!(value["problems"].as_array().unwrap().len() >= 2, "{value}");
    assert_eq!(run(folder.path(), &["run"]).code, Some(1));

    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder.path(), &["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((ended.code, &value["ok"]), (Some(1), &false.into()));
}

#[test]
fn placeholders_stand_for_variables_that_are_not_set() {
    let folder = file(&format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"${{PROJECT_URL}}\"\njwt_secret = \"${{JWT_SECRET}}\"\n\
         [session]\nmode = \"shared\"\n[upstreams.app]\nurl = \"${{APP}}\"\n{HELLO}"
    ));
    let ended = run(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(1));
    for name in ["PROJECT_URL", "JWT_SECRET", "APP"] {
        assert!(ended.err.contains(name), "{name}: {ended:?}");
    }
    let ended = run(folder.path(), &["check", "--placeholders"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    std::fs::write(
        folder.path().join("env"),
        "PROJECT_URL=https://xyz.supabase.co\nJWT_SECRET=0123456789-0123456789-0123456789-xyz\nAPP=http://127.0.0.1:1\n",
    )
    .unwrap();
    let ended = run(folder.path(), &["check", "--env-file", "env"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    std::fs::write(folder.path().join("env"), "PROJECT_URL\n").unwrap();
    let ended = run(folder.path(), &["check", "--env-file", "env"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("env:1"), "{ended:?}");
}

#[test]
fn a_test_of_the_policy_that_fails_stops_check_and_run() {
    let folder = file(&format!(
        "{HELLO}[[tests]]\nrequest = \"GET /x\"\nas = \"nobody\"\nstatus = 401\n"
    ));
    for (command, code) in [(&["check"][..], Some(1)), (&["run"], Some(1))] {
        let ended = run(folder.path(), command);
        assert_eq!(ended.code, code);
        assert!(ended.err.contains("error[test-failed]"), "{ended:?}");
        assert!(ended.err.contains("401"), "{ended:?}");
        assert!(!ended.out.contains("ready"), "{ended:?}");
    }
    let ended = run(folder.path(), &["check", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(value["problems"][0]["id"], "test-failed");
    assert_eq!(value["problems"][0]["line"], 5);
}

#[test]
fn routes_are_listed_in_the_order_in_which_they_match() {
    let folder = file(
        "[upstreams.app]\nurl = \"http://127.0.0.1:1\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/users/{id}\"\nauth = \"public\"\nmethods = [\"GET\"]\n\
         [[routes]]\npath = \"/users/me\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/users/*\"\nhost = \"a.example\"\nauth = \"public\"\n\
         [[routes]]\npath = \"/users/*\"\nauth = \"public\"\nredirect = { to = \"/\", status = 308 }\n",
    );
    let ended = run(folder.path(), &["routes"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let places: Vec<&str> = ended
        .out
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(1).unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "a.example/users/*",
            "/users/me",
            "/users/{id}",
            "/users/*",
            "/*"
        ],
        "{}",
        ended.out
    );
    assert!(
        ended
            .out
            .lines()
            .any(|l| l.starts_with("GET ") && l.ends_with("app"))
    );
    assert!(ended.out.contains("308 → /"));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let folder = file(HELLO);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended: Ended = tollhouse(folder.path())
        .arg("routes")
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap()
        .into();
    assert_eq!((ended.code, &*ended.err), (Some(0), ""));
}

// Without a file

#[test]
fn the_flags_write_a_file_that_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let flags = run(
        folder.path(),
        &[
            "run",
            "--upstream",
            "http://127.0.0.1:8000",
            "--supabase",
            "https://xyz.supabase.co",
            "--publishable-key",
            "sb_publishable_${x}",
            "--listen",
            "127.0.0.1:0",
            "--public",
            "/health",
            "/docs/*",
            "--print-config",
        ],
    );
    assert_eq!(flags.code, Some(0), "{flags:?}");
    let variables: Ended = tollhouse(folder.path())
        .args(["run", "--print-config"])
        .env("TOLLHOUSE_UPSTREAM", "http://127.0.0.1:8000")
        .env("TOLLHOUSE_SUPABASE", "https://xyz.supabase.co")
        .env("TOLLHOUSE_PUBLISHABLE_KEY", "sb_publishable_${x}")
        .env("TOLLHOUSE_LISTEN", "127.0.0.1:0")
        .env("TOLLHOUSE_PUBLIC", "/health,/docs/*")
        .output()
        .unwrap()
        .into();
    assert_eq!(variables.out, flags.out);
    std::fs::write(folder.path().join("tollhouse.toml"), &flags.out).unwrap();
    let ended = run(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = run(folder.path(), &["routes"]);
    let auth: Vec<_> = ended
        .out
        .lines()
        .skip(1)
        .map(|line| {
            let mut words = line.split_whitespace().skip(1);
            (words.next().unwrap(), words.next().unwrap())
        })
        .filter(|(path, _)| !path.starts_with("/.auth/"))
        .collect();
    assert_eq!(
        auth,
        [
            ("/docs/*", "public"),
            ("/health", "public"),
            ("/*", "required")
        ]
    );
    // What is printed for a file is the file.
    let ended = run(folder.path(), &["run", "--print-config"]);
    assert_eq!(ended.out, flags.out);
}

#[test]
fn it_runs_with_two_addresses_alone() {
    let upstream = scripted(|mut wire| {
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let upstream = format!("http://{upstream}");
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let folder = tempfile::tempdir().unwrap();
        let mut command = tollhouse(folder.path());
        command.env("TOLLHOUSE_LISTEN", "127.0.0.1:0");
        let arguments = [
            "run",
            "--upstream",
            &upstream,
            "--supabase",
            "http://127.0.0.1:9",
            "--public",
            "/health",
        ];
        match Gateway::launch(command, &arguments, folder) {
            Ok(gateway) => {
                assert_eq!(gateway.banner["source"], "flags");
                assert_eq!(gateway.get("/health").text(), "ok");
                assert_eq!(gateway.get("/me").code(), "missing_credentials");
                return;
            }
            // The admin address has no flag: somebody else on this machine may have it for a while.
            Err(ended) if ended.err.contains("127.0.0.1:9901") && Instant::now() < until => {}
            Err(ended) => panic!("{ended:?}"),
        }
    }
}

// The demo

#[test]
fn the_demo_prints_a_file_that_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let demo = run(folder.path(), &["demo", "--print-config"]);
    assert_eq!(demo.code, Some(0), "{demo:?}");
    std::fs::write(folder.path().join("tollhouse.toml"), &demo.out).unwrap();
    let ended = run(folder.path(), &["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(demo.out.contains("mode = \"sealed\""));
    // Each has a sealing key of its own, and no password stands in it.
    let again = run(folder.path(), &["demo", "--print-config"]).out;
    let key = |file: &str| {
        let keys = file.lines().find(|line| line.starts_with("keys = "));
        keys.unwrap().to_owned()
    };
    assert_ne!(key(&demo.out), key(&again));
    assert!(!demo.out.contains("@example.com"));
}

#[test]
fn the_demo_stays_on_loopback() {
    let folder = tempfile::tempdir().unwrap();
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
        let ended = run(folder.path(), &["demo", "--listen", listen]);
        assert_eq!(ended.code, Some(2));
        assert!(ended.err.contains("loopback"), "{ended:?}");
    }
}

#[test]
fn the_demo_runs_shows_its_users_and_refuses_foreign_hosts() {
    let (mut gateway, listen) = demo();
    let out = gateway.out();
    for said in [
        "ada@example.com",
        "grace@example.com",
        "sb_publishable_",
        "For development only",
        &*listen,
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    let (ada, grace) = (word_after(&out, "ada@"), word_after(&out, "grace@"));
    let link = format!("http://{listen}/#ada={ada}&grace={grace}\n");
    assert!(out.contains(&link), "{link}: {out}");
    let ask = |host: &str, path: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        send(gateway.address, head.as_bytes(), false)
    };
    let page = ask(&listen, "/");
    assert_eq!(page.status, 200);
    assert!(!page.text().contains(&ada) && !page.text().contains("sb_publishable_"));
    assert_eq!(ask("localhost", "/api/me").code(), "missing_credentials");
    assert_eq!(ask("evil.example", "/").code(), "misdirected");
    assert_eq!(ask("evil.example", "/.auth/session").code(), "misdirected");
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
}

#[test]
fn the_demo_seals_sessions_and_ends_them() {
    let (mut gateway, listen) = demo();
    let out = gateway.out();
    let ask = |line: &str, cookie: &str, body: &str| {
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {listen}\r\nSec-Fetch-Site: same-origin\r\nCookie: {cookie}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        send(gateway.address, head.as_bytes(), false)
    };
    let log_in = |user: &str, password: &str| {
        let body = format!("{{\"email\":\"{user}@example.com\",\"password\":\"{password}\"}}");
        ask("POST /.auth/login", "theme=dark", &body)
    };
    // More often than the limit that is built in would have it: people click around.
    for _ in 0..12 {
        assert_eq!(log_in("ada", "wrong").code(), "login_failed");
    }
    let answer = log_in("ada", &word_after(&out, "ada@"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let set = answer.all("set-cookie");
    let [line] = &*set else {
        panic!("one cookie: {set:?}")
    };
    assert!(line.starts_with("tollhouse=") && line.contains("; HttpOnly"));
    assert!(line.contains("; SameSite=Lax") && line.contains("; Path=/"));
    let cookie = line.split(';').next().unwrap();
    // How every token of the provider begins: ten letters do not come about by chance in what is sealed.
    let token = "eyJhbGciOi";
    assert!(!answer.text().contains(token) && !cookie.contains(token));

    let both = format!("theme=dark; {cookie}");
    let me = ask("GET /api/me", &both, "");
    assert_eq!(me.status, 200, "{me:?}");
    let received: serde_json::Value = serde_json::from_str(&me.text()).unwrap();
    let got = |name: &str| {
        let fields = received["headers"].as_array().unwrap().iter();
        let named = fields.filter(|field| field[0] == name);
        named
            .map(|f| f[1].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert!(got("authorization")[0].starts_with("Bearer eyJ"));
    assert_eq!(got("x-user-email"), ["ada@example.com"]);
    assert_eq!(got("cookie"), ["theme=dark"]);
    assert_eq!(ask("GET /api/admin/users", cookie, "").code(), "forbidden");

    assert_eq!(ask("POST /.auth/logout", cookie, "").status, 204);
    // A copy of the cookie is good for nothing, either.
    assert_eq!(ask("GET /api/me", cookie, "").status, 401);
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
}

/// A demo that runs, and where.
fn demo() -> (Gateway, String) {
    let folder = tempfile::tempdir().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let gateway = Gateway::launch(
        tollhouse(folder.path()),
        &["demo", "--listen", &listen],
        folder,
    );
    (gateway.unwrap(), listen)
}

/// The word behind the one that begins with `start`.
fn word_after(text: &str, start: &str) -> String {
    let mut words = text.split_whitespace();
    words.find(|word| word.starts_with(start)).unwrap();
    words.next().unwrap().to_owned()
}

// Running

#[test]
fn the_banner_is_one_line_of_json() {
    let gateway = Gateway::start(
        "",
        &format!(
            "{HELLO}[[routes]]\npath = \"/me\"\n[upstreams.app]\nurl = \"http://127.0.0.1:9\"\n\
             [providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:9\"\n[session]\nmode = \"shared\"\n\
             [rate_limits.per_ip]\nrate = \"60/min\"\nby = \"ip\"\n"
        ),
    );
    let banner = &gateway.banner;
    assert_eq!(banner["listen"][0], format!("http://{}", gateway.address));
    assert_eq!(banner["admin"], format!("http://{}", gateway.admin));
    assert_eq!(banner["source"], "./tollhouse.toml");
    assert_eq!(banner["providers"][0]["name"], "main");
    assert_eq!(
        banner["providers"][0]["keys"],
        "http://127.0.0.1:9/auth/v1/.well-known/jwks.json"
    );
    assert_eq!(banner["upstreams"][0]["name"], "app");
    let target = &banner["upstreams"][0]["targets"][0];
    assert_eq!(target["url"], "http://127.0.0.1:9");
    assert_eq!(target["up"], false);
    assert!(banner["warnings"].is_array());
    assert_eq!(banner["routes"]["protected"], 1);
    assert_eq!(banner["routes"]["public"], 1);
    assert_eq!(banner["rate_limits"][0], "per_ip");
    assert!(banner["session"].as_str().unwrap().starts_with("shared"));
    assert!(banner["ready_ms"].as_u64().is_some());
    assert!(banner["ts"].as_str().unwrap().ends_with('Z'));
    assert_eq!(gateway.get("/").text(), "hello");
    assert_eq!(gateway.admin("/livez"), (200, "ok\n".into()));
    eventually(|| gateway.out().contains("\"msg\":\"request\""));
}

#[test]
fn an_address_in_use_is_an_error_that_names_the_way_out() {
    let first = Gateway::start("", HELLO);
    let taken = first.address;
    let again = |extra: &str| {
        file(&format!(
            "[server]\nlisten = \"{taken}\"\n{extra}\n[admin]\nlisten = \"off\"\n{HELLO}"
        ))
    };
    let ended = run(again("").path(), &["run"]);
    assert_eq!(ended.code, Some(1));
    for said in [&*taken.to_string(), "in use", "server.takeover"] {
        assert!(ended.err.contains(said), "{said}: {ended:?}");
    }
    // The first one is none the worse for it.
    assert_eq!(first.get("/").status, 200);
    let folder = again("takeover = true");
    let second = Gateway::launch(tollhouse(folder.path()), &["run"], folder).unwrap();
    assert_eq!(second.address, taken);
    drop(first);
    eventually(|| second.get("/").status == 200);
}

#[test]
fn a_rolling_restart_takes_over_every_address_of_the_same_file() {
    let (public, admin) = (free_port(), free_port());
    let text = format!(
        "[server]\nlisten = \"127.0.0.1:{public}\"\ntakeover = true\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n{HELLO}"
    );
    let start = || {
        let folder = file(&text);
        Gateway::launch(tollhouse(folder.path()), &["run"], folder)
            .unwrap_or_else(|ended| panic!("{ended:?}"))
    };
    let mut first = start();
    let second = start();
    first.signal("TERM");
    assert_eq!(first.ended(), Some(0));
    for _ in 0..20 {
        assert_eq!(second.get("/").status, 200);
        assert_eq!(second.admin("/livez").0, 200);
    }
}

#[test]
fn an_admin_address_in_use_is_an_error() {
    let first = Gateway::start("", HELLO);
    let folder = file(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{}\"\n{HELLO}",
        first.admin
    ));
    let ended = run(folder.path(), &["run"]);
    assert_eq!(ended.code, Some(1));
    for said in ["admin", &*first.admin.to_string(), "in use"] {
        assert!(ended.err.contains(said), "{said}: {ended:?}");
    }
}

fn over_unix(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_unix_socket_is_listened_on_and_one_left_behind_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.sock");
    // A listener that is gone leaves its file.
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("listen = \"unix:{}\"", path.display());
    let mut gateway = Gateway::start(&listen, HELLO);
    assert!(over_unix(&path).ends_with("hello"));
    let second = file(&format!(
        "[server]\n{listen}\n[admin]\nlisten = \"off\"\n{HELLO}"
    ));
    let ended = run(second.path(), &["run"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("in use"), "{ended:?}");
    assert!(over_unix(&path).ends_with("hello"));
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_socket_is_never_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let config = file(&format!(
        "[server]\nlisten = \"unix:{}\"\n[admin]\nlisten = \"off\"\n{HELLO}",
        path.display()
    ));
    let ended = run(config.path(), &["run"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}

// The health check

#[test]
fn healthcheck_asks_whether_it_is_ready() {
    let nobody = free_port();
    let folder = tempfile::tempdir().unwrap();
    let check = |arguments: &[&str]| run(folder.path(), &[&["healthcheck"], arguments].concat());
    let ended = check(&["--admin", &format!("127.0.0.1:{nobody}")]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("no answer"), "{ended:?}");

    let ready = Gateway::start("", HELLO);
    let ended = check(&["--admin", &ready.admin.to_string()]);
    assert_eq!((ended.code, &*ended.out), (Some(0), "ready\n"));

    // A provider that never had keys keeps it from being ready, for 30 s.
    let starting = Gateway::start(
        "",
        &format!("{HELLO}[providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:9\"\n"),
    );
    let ended = check(&["--admin", &starting.admin.to_string()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("503"), "{ended:?}");
    assert_eq!(starting.get("/").status, 200);
}

#[test]
fn healthcheck_finds_the_address_in_the_file_without_its_secrets() {
    let gateway = Gateway::start("", HELLO);
    let folder = file(&format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"{}\"\n{HELLO}\
         [upstreams.app]\nurl = \"${{NOT_SET_HERE}}\"\n",
        gateway.admin
    ));
    let ended = run(folder.path(), &["healthcheck"]);
    assert_eq!((ended.code, &*ended.out), (Some(0), "ready\n"), "{ended:?}");
    let folder = file(&format!("[admin]\nlisten = \"off\"\n{HELLO}"));
    let ended = run(folder.path(), &["healthcheck"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("admin.listen"), "{ended:?}");
}

// The way out

/// An upstream that answers when it is told to, and says when it was asked.
pub fn gated() -> (
    SocketAddr,
    std::sync::mpsc::Receiver<()>,
    std::sync::mpsc::Sender<()>,
) {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let (let_go, wait) = std::sync::mpsc::channel::<()>();
    let (asked, wait) = (Mutex::new(asked), Mutex::new(wait));
    let address = scripted(move |mut wire| {
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nslow");
            let _ = asked.lock().send(());
            let _ = wait.lock().recv();
            wire.say("down");
        }
    });
    (address, was_asked, let_go)
}

fn to(upstream: SocketAddr) -> String {
    format!(
        "{HELLO}[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/slow\"\nauth = \"public\"\nupstream = \"app\"\n"
    )
}

#[test]
fn sigterm_lets_requests_finish_and_closes_idle_connections() {
    for signal in ["TERM", "INT"] {
        let (upstream, was_asked, let_go) = gated();
        let mut gateway = Gateway::start("", &to(upstream));
        let mut idle = Client::connect(gateway.address);
        idle.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(idle.read().status, 200);
        let mut silent = Client::connect(gateway.address);
        let mut busy = Client::connect(gateway.address);
        busy.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        was_asked.recv().unwrap();
        let began = Instant::now();
        gateway.signal(signal);
        assert!(idle.is_closed());
        assert!(silent.is_closed());
        assert!(began.elapsed() < Duration::from_secs(5));
        // Nobody else comes in while it drains.
        eventually(|| std::net::TcpStream::connect(gateway.address).is_err());
        assert_eq!(gateway.admin("/readyz").0, 503);
        assert!(gateway.child.try_wait().unwrap().is_none());
        let_go.send(()).unwrap();
        assert_eq!(busy.read().text(), "slowdown");
        assert!(busy.is_closed());
        assert_eq!(gateway.ended(), Some(0), "{}", gateway.err());
        // The last records are written.
        let out = gateway.out();
        assert_eq!(out.matches("\"msg\":\"request\"").count(), 2, "{out}");
    }
}

#[test]
fn what_is_in_flight_when_the_time_is_over_is_cut_and_the_exit_code_says_so() {
    let (upstream, was_asked, _let_go) = gated();
    let mut gateway = Gateway::start("drain_timeout = \"300ms\"", &to(upstream));
    let mut busy = Client::connect(gateway.address);
    busy.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    was_asked.recv().unwrap();
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(1));
    assert!(gateway.err().contains("1 connection"));
    assert!(busy.try_read(false).is_none());
    // It has its record all the same.
    eventually(|| gateway.out().matches("\"msg\":\"request\"").count() == 1);
}

#[test]
fn the_drain_delay_is_not_ready_but_still_accepts() {
    let mut gateway = Gateway::start("drain_delay = \"1s\"", HELLO);
    assert_eq!(gateway.admin("/readyz").0, 200);
    let began = Instant::now();
    gateway.signal("TERM");
    eventually(|| gateway.admin("/readyz").0 == 503);
    assert_eq!(gateway.admin("/livez").0, 200);
    assert_eq!(gateway.get("/").status, 200);
    assert!(began.elapsed() < Duration::from_secs(1), "too slow to tell");
    assert_eq!(gateway.ended(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn whoever_reads_ready_may_end_it_at_once() {
    for _ in 0..5 {
        let mut gateway = Gateway::start("", HELLO);
        gateway.signal("TERM");
        assert_eq!(gateway.ended(), Some(0));
    }
}

#[test]
fn an_idle_upstream_connection_does_not_hold_a_drain_up() {
    let upstream = scripted(|mut wire| {
        while !wire.head().is_empty() {
            wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let mut gateway = Gateway::start("", &to(upstream));
    assert_eq!(gateway.get("/slow").text(), "ok");
    assert!(gateway.folder().exists());
    let began = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}
