//! Who is out in the storm: people with many tabs and one jar for all of them.

use super::{COOKIE, Mode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// What the cookies of sealed and stored sessions begin with.
const OURS: &str = "tollhouse";

/// A browser's cookies.
#[derive(Clone, Default)]
pub struct Jar {
    pairs: Vec<(String, String)>,
    /// When the token is over that is in them, in Unix seconds, as far as they came to this browser's ears.
    ends: u64,
}

impl Jar {
    pub fn new(header: &str) -> Self {
        let pairs = header.split("; ").filter_map(|pair| pair.split_once('='));
        Self {
            pairs: pairs.map(|(n, v)| (n.into(), v.into())).collect(),
            ends: 0,
        }
    }

    pub fn header(&self) -> String {
        let pairs: Vec<String> = self.pairs.iter().map(|(n, v)| format!("{n}={v}")).collect();
        pairs.join("; ")
    }

    /// `ends`: of the token that came with it.
    pub fn take(&mut self, lines: &[String], ends: u64) {
        for line in lines {
            let (name, rest) = line.split_once('=').unwrap();
            let (value, attributes) = rest.split_once(';').unwrap_or((rest, ""));
            self.pairs.retain(|(known, _)| known != name);
            if !attributes.contains("Max-Age=0") {
                self.pairs.push((name.into(), value.into()));
            }
        }
        self.ends = ends;
    }

    fn of(&self, wanted: &str) -> Option<&str> {
        let found = self.pairs.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.as_str())
    }

    /// The session as the provider's library reads it.
    fn session(&self) -> Option<Value> {
        let mut text = self.of(COOKIE).map(str::to_owned);
        if text.is_none() {
            let pieces = (0..).map_while(|n| self.of(&format!("{COOKIE}.{n}")));
            let joined: String = pieces.collect();
            text = (!joined.is_empty()).then_some(joined);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text?.strip_prefix("base64-")?)
            .ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether there is a session in it, as far as a browser can tell.
    pub fn is_somebody(&self, mode: Mode) -> bool {
        match mode {
            Mode::Shared => self.session().is_some(),
            Mode::Sealed | Mode::Stored => self.pairs.iter().any(|(n, _)| n.starts_with(OURS)),
        }
    }

    /// When its access token is over, in Unix seconds. An id says nothing of that.
    pub fn ends(&self, mode: Mode) -> u64 {
        match mode {
            Mode::Shared => self
                .session()
                .map_or(0, |session| session["expires_at"].as_u64().unwrap()),
            Mode::Sealed => self.ends,
            Mode::Stored => 0,
        }
    }
}

/// One person with many tabs.
pub struct Browser {
    pub email: String,
    pub user: String,
    pub tabs: usize,
    login: Mutex<Arc<Login>>,
    /// Requests that were told to come again later.
    pub again: Mutex<usize>,
}

/// From a login to a logout.
#[derive(Default)]
pub struct Login {
    pub jar: Mutex<Jar>,
    /// Somebody is to log out in this round.
    pub ending: AtomicBool,
    /// The logout is on its way, or was answered.
    pub asked: AtomicBool,
    pub over: OnceLock<Over>,
}

/// A logout that was answered.
pub struct Over {
    pub replica: usize,
    pub at: Instant,
    /// The others hear of it.
    pub told: bool,
    /// When nobody can know a token of it any more that serves, in Unix seconds.
    pub ends: u64,
}

impl Browser {
    pub fn new(email: String, user: String, tabs: usize, jar: Jar) -> Self {
        Self {
            email,
            user,
            tabs,
            login: Mutex::new(Login::new(jar)),
            again: Mutex::default(),
        }
    }

    pub fn login(&self) -> Arc<Login> {
        self.login.lock().clone()
    }

    pub fn log_in(&self, jar: Jar) {
        *self.login.lock() = Login::new(jar);
    }
}

impl Login {
    fn new(jar: Jar) -> Arc<Self> {
        Arc::new(Self {
            jar: Mutex::new(jar),
            ..Self::default()
        })
    }

    pub fn copy(&self) -> Jar {
        self.jar.lock().clone()
    }
}

/// What a tab sends. `X-At` is when.
pub fn request(
    address: SocketAddr,
    replica: usize,
    at: u64,
    what: (&str, &str),
    jar: &Jar,
    body: &str,
) -> String {
    let (method, path) = what;
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nX-At: {at}\r\n");
    write!(text, "User-Agent: replica-{replica}\r\n").unwrap();
    if !jar.pairs.is_empty() {
        write!(text, "Cookie: {}\r\n", jar.header()).unwrap();
    }
    if method == "POST" {
        write!(text, "Origin: http://{address}\r\n").unwrap();
        write!(text, "Content-Type: application/json\r\n").unwrap();
        write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    write!(text, "\r\n{body}").unwrap();
    text
}
