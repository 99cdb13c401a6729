//! The operator's words: pure data, no sockets, no clients. What is here has been validated; nothing below asks again.
//!
//! Text becomes a spanned tree (`read`), in which strings name variables and files (`interpolate`); each table has one
//! declaration of its keys, defaults and comments; `check` holds tables against each other. Every problem of a file is told at once.

mod check;
mod check_listen;
mod decode;
mod decode_bounded;
mod decode_nested;
pub mod diagnostic;
pub mod endpoint;
pub mod interpolate;
mod later;
pub mod listener;
mod parse;
mod parse_pattern;
pub mod provider;
mod provider_build;
mod provider_claims;
mod provider_secret;
pub mod rate_limit;
mod read;
pub mod redis;
pub mod reference;
mod root;
pub mod route;
mod route_auth;
mod route_build;
mod route_keys;
mod route_path;
mod route_target;
pub mod schema;
mod schema_text;
pub mod server;
pub mod session;
mod session_build;
mod session_cookie;
pub mod table;
mod test_keys;
pub mod tests;
pub mod upstream;
pub mod value;
mod warnings;

pub use diagnostic::Problems;
use diagnostic::{Finding, Severity, place_all};
use http::HeaderName;
use interpolate::Environment;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest file, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 20;

/// A whole file, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`.
    pub server: server::Server,
    /// Every door: those of `server.listen`, then `[[listeners]]`. At least one.
    pub listeners: Vec<listener::Listener>,
    /// `[admin]`.
    pub admin: server::Admin,
    /// `[log]`.
    pub log: server::Log,
    /// `[redis]`. `None`: nothing is stored, and replicas do not know of each other.
    pub redis: Option<redis::Redis>,
    /// In the order of the file.
    pub providers: Vec<provider::Provider>,
    /// `[session]`. `None`: cookies are not looked at.
    pub session: Option<session::Session>,
    /// In the order of the file; then those that routes name by URL.
    pub upstreams: Vec<upstream::Upstream>,
    /// In the order of the file; the built-in ones that no policy replaced come last.
    pub rate_limits: Vec<rate_limit::RateLimit>,
    /// `[cors]`. `None`: no CORS.
    pub cors: Option<rate_limit::Cors>,
    /// What upstreams are told. `[identity_headers]` is laid over `X-User-Id` and `X-User-Role`.
    pub identity_headers: Vec<(HeaderName, value::IdentityValue)>,
    /// What holds for routes without their own.
    pub security_headers: server::SecurityHeaders,
    /// In the order of the file, which means nothing.
    pub routes: Vec<route::Route>,
    /// `[[tests]]`.
    pub tests: Vec<tests::PolicyTest>,
    /// Warnings, already rendered.
    pub warnings: Vec<Arc<str>>,
    /// The same warnings, for `check --json`.
    pub problems: Problems,
    /// Files that were read: `${file:…}`, keys and certificates.
    pub files: Vec<PathBuf>,
}

/// How a file is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Unset variables count as set, so that a file can be checked without its secrets.
    pub placeholders: bool,
}

/// Reads a configuration. `file` is its name for messages, and where relative paths start.
///
/// # Errors
/// Every problem of the text at once, warnings included.
pub fn load(
    text: &str,
    file: &Path,
    world: &dyn Environment,
    options: Options,
) -> Result<Config, Problems> {
    let one = |id, message: String, place, hint: String, hidden: &[diagnostic::Place]| {
        let finding = Finding {
            severity: Severity::Error,
            id,
            message,
            place,
            hint,
        };
        Problems::new(place_all(text, file, vec![finding], hidden))
    };
    if text.len() > TEXT_BYTES_MAX {
        return Err(one(
            "too-large",
            "the file is larger than 4 MiB".into(),
            0..0,
            String::new(),
            &[],
        ));
    }
    let table = toml::de::DeTable::parse(text).map_err(|error| {
        let place = error.span().unwrap_or(0..0);
        let place = if place == (0..0) {
            0..text.len().min(1)
        } else {
            place
        };
        let hidden = read::literal_secrets(text);
        one(
            "syntax",
            "this is not TOML".into(),
            place,
            match error.message() {
                "duplicate key" => "it is there twice".into(),
                message => message.to_owned(),
            },
            &hidden,
        )
    })?;
    let reader = read::Reader::new(file, world, options.placeholders);
    let root = root::Root {
        entries: reader.entries(table.get_ref(), 0..0),
    };
    let config = root.build(text, &reader);
    let hidden = reader.hidden.borrow();
    let problems = Problems::new(place_all(
        text,
        file,
        reader.findings.borrow().clone(),
        &hidden,
    ));
    match config {
        Some(mut config) if problems.errors() == 0 => {
            config.warnings = problems
                .list()
                .iter()
                .map(|one| one.to_string().into())
                .collect();
            config.problems = problems;
            if let Some(session) = &config.session {
                let ours = endpoint::routes(session, &config.providers);
                config.routes.extend(ours);
            }
            config.files = reader.files.borrow().clone();
            Ok(config)
        }
        _ => Err(problems),
    }
}

/// Every declared table: scope, name in a sentence, keys.
pub fn tables() -> Vec<(&'static str, &'static str, Vec<table::Key>)> {
    fn one<T: table::Table>() -> (&'static str, &'static str, Vec<table::Key>) {
        (T::SCOPE, T::WHAT, T::keys())
    }
    vec![
        one::<server::Server>(),
        one::<listener::ListenerKeys>(),
        one::<listener::TlsKeys>(),
        one::<server::AdminKeys>(),
        one::<server::Log>(),
        one::<server::TelemetryKeys>(),
        one::<redis::RedisKeys>(),
        one::<provider::ProviderKeys>(),
        one::<session::SessionKeys>(),
        one::<session_cookie::CookieKeys>(),
        one::<session::ProviderBudget>(),
        one::<upstream::UpstreamKeys>(),
        one::<rate_limit::RateLimitKeys>(),
        one::<rate_limit::Cors>(),
        one::<route_keys::RouteKeys>(),
        one::<route_keys::RequireKeys>(),
        one::<route_keys::RedirectKeys>(),
        one::<route_keys::RespondKeys>(),
        one::<route_keys::HeaderChangeKeys>(),
        one::<test_keys::TestKeys>(),
        one::<test_keys::CallerKeys>(),
    ]
}

/// Whether the contract names a key, or with the scope `""` a table, that this version refuses.
pub fn is_later(scope: &str, key: &str) -> bool {
    later::is_refused(scope, key)
}

/// ``it belongs to `[server]` ``, for a key that another table has.
fn belongs_to(key: &str, scope: &str) -> Option<String> {
    let wanted = [
        "server",
        "listeners",
        "admin",
        "log",
        "redis",
        "providers",
        "session",
        "upstreams",
        "rate_limits",
        "cors",
        "routes",
    ];
    let all = tables();
    let mut owners = all.iter().filter(|(own, _, keys)| {
        *own != scope && wanted.contains(own) && keys.iter().any(|known| known.name == key)
    });
    let names: Vec<&str> = owners.by_ref().map(|(_, what, _)| *what).collect();
    (!names.is_empty() && names.len() <= 3)
        .then(|| format!("it is a key of {}", names.join(" and of ")))
}
