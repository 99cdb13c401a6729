//! The configuration as its users meet it: files that are right, files that are wrong and what they are told, the
//! reference. `UPDATE_GOLDEN=1` writes the expected messages anew; read the difference before you commit it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use http::Method;
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tollhouse::config::endpoint::Endpoint;
use tollhouse::config::interpolate::Environment;
use tollhouse::config::provider::ProviderKind;
use tollhouse::config::rate_limit::{AppliesTo, Count, RateLimit};
use tollhouse::config::route::Target;
use tollhouse::config::session::{ProviderBudget, SameSite, Session, SessionMode};
use tollhouse::config::value::{HostPattern, LimitBy};
use tollhouse::config::{self, Config, Options, diagnostic::Problems, redis, reference};

/// What the golden files may name.
struct World;

const VARIABLES: &[(&str, &str)] = &[
    ("SUPABASE_URL", "https://xyz.supabase.co"),
    ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_abc"),
    ("JWT_SECRET", "a-secret-of-more-than-thirty-two-bytes"),
    ("SHORT_SECRET", "hunter2"),
    ("WORKERS", "3"),
    ("NOT_A_NUMBER", "hunter2"),
    ("HOSTS", "a.example.com, b.example.com,\nc.example.com,"),
    ("EMPTY", ""),
    ("UPSTREAM", "hunter2"),
    ("SUPABASE_SECRET_KEY", "sb_secret_abc"),
    ("SESSION_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
    (
        "SESSION_KEYS",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8,\n+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=,",
    ),
    ("REDIS_URL", "rediss://gateway:hunter2@redis.example.com/3"),
    ("WRONG_REDIS_URL", "redis://:hunter2@"),
    ("HIDDEN_PATH", "/hunter2"),
];

impl Environment for World {
    fn var(&self, name: &str) -> Option<OsString> {
        VARIABLES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into())
    }

    fn file(&self, path: &Path, _limit: usize) -> Result<String, String> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("jwt-secret") => Ok("a-secret-of-more-than-thirty-two-bytes\n".into()),
            Some("issuer.pem") => {
                Ok("-----BEGIN PUBLIC KEY-----\nMCowBQ==\n-----END PUBLIC KEY-----\n".into())
            }
            Some("private.pem") => {
                Ok("-----BEGIN PRIVATE KEY-----\nMCow\n-----END PRIVATE KEY-----\n".into())
            }
            Some(name) if name.contains(".test") && name.ends_with(".pem") => {
                let path = root().join("tests/vectors/tls").join(name);
                fs::read_to_string(path).map_err(|error| error.to_string())
            }
            _ => Err("does not exist".into()),
        }
    }
}

fn load(text: &str, file: &str, placeholders: bool) -> Result<Config, Problems> {
    config::load(text, Path::new(file), &World, Options { placeholders })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(root().join("tests/config").join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn good_files_load_without_a_word() {
    for (name, text) in files("good") {
        match load(&text, &format!("{name}.toml"), false) {
            Ok(config) => assert_eq!(config.problems.to_string(), "", "{name}"),
            Err(problems) => panic!("{name}:\n{problems}"),
        }
    }
}

#[test]
fn bad_files_are_told_what_is_wrong() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for (name, text) in files("bad") {
        let told = match load(&text, &format!("{name}.toml"), false) {
            Ok(config) => config.problems.to_string(),
            Err(problems) => problems.to_string(),
        };
        assert!(
            !told.contains("hunter2"),
            "{name}: a value of a variable is printed:\n{told}"
        );
        let golden = root().join("tests/config/bad").join(format!("{name}.txt"));
        if update {
            fs::write(&golden, &told).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(format!("--- {name}\n{told}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "these differ; UPDATE_GOLDEN=1 writes them:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_shortest_file_is_right_without_its_variables() {
    let text = fs::read_to_string(root().join("config/tollhouse.toml")).unwrap();
    struct Bare;
    impl Environment for Bare {
        fn var(&self, _: &str) -> Option<OsString> {
            None
        }
        fn file(&self, _: &Path, _: usize) -> Result<String, String> {
            Err("does not exist".into())
        }
    }
    let file = Path::new("tollhouse.toml");
    let config = config::load(&text, file, &Bare, Options { placeholders: true })
        .map_err(|p| p.to_string())
        .unwrap();
    assert_eq!(config.problems.to_string(), "");
    let ours = config.routes.iter().filter(|route| route.ours).count();
    assert_eq!((config.routes.len() - ours, config.tests.len()), (2, 2));
    assert_eq!(ours, 3, "who the caller is, the logout, and nothing else");
    let problems = config::load(&text, file, &Bare, Options::default()).unwrap_err();
    assert_eq!(problems.errors(), 1, "SUPABASE_URL has no default");
}

#[test]
fn the_reference_equals_the_code() {
    let path = root().join("config/reference.toml");
    let text = reference::text();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        text,
        "UPDATE_GOLDEN=1 writes config/reference.toml"
    );
    // What stands there as the default is what holds when nothing stands there.
    let told = |p: Problems| p.to_string();
    let whole = load(&text, "reference.toml", false).map_err(told).unwrap();
    let minimal = load(reference::MINIMAL, "minimal.toml", false)
        .map_err(told)
        .unwrap();
    let parts = |c: &Config| {
        format!(
            "{:#?}",
            (
                &c.server,
                &c.admin,
                &c.log,
                &c.providers,
                &c.session,
                &c.upstreams,
                &c.rate_limits
            )
        ) + &format!(
            "{:#?}",
            (&c.cors, &c.identity_headers, &c.security_headers, &c.routes)
        )
    };
    assert_eq!(parts(&whole), parts(&minimal));
}

fn loaded(text: &str) -> Config {
    load(text, "a.toml", false)
        .map_err(|p| p.to_string())
        .unwrap()
}

const ROUTE: &str =
    "[[routes]]\npath = \"/api/*\"\n[upstreams.api]\nurl = \"http://127.0.0.1:8000\"\n";
const SUPABASE: &str =
    "[providers.main]\nkind = \"supabase\"\nurl = \"https://xyz.supabase.co/\"\n";

#[test]
fn everything_of_a_supabase_project_follows_from_its_url() {
    let config = loaded(&format!(
        "{SUPABASE}internal_url = \"http://127.0.0.1:54321\"\n{ROUTE}"
    ));
    let provider = &config.providers[0];
    assert_eq!(
        provider.issuer.as_deref(),
        Some("https://xyz.supabase.co/auth/v1")
    );
    assert_eq!(
        provider.audiences.as_deref(),
        Some(&["authenticated".into()][..])
    );
    assert_eq!(provider.cookie_name.as_deref(), Some("sb-xyz-auth-token"));
    let jwks = provider.keys.jwks_url.as_ref().unwrap().as_str();
    assert_eq!(jwks, "http://127.0.0.1:54321/auth/v1/.well-known/jwks.json");
    let ProviderKind::Supabase {
        auth_api,
        public_api,
        anonymous_users: false,
        service_role: false,
        ..
    } = &provider.kind
    else {
        panic!("{:?}", provider.kind);
    };
    assert_eq!(auth_api.as_str(), "http://127.0.0.1:54321/auth/v1");
    assert_eq!(public_api.as_str(), "https://xyz.supabase.co/auth/v1");
    assert_eq!(
        provider.algorithms,
        [Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA]
    );
    let with_secret = loaded(&format!(
        "{SUPABASE}jwt_secret = \"${{JWT_SECRET}}\"\n{ROUTE}"
    ));
    assert!(
        with_secret.providers[0]
            .algorithms
            .contains(&Algorithm::HS256)
    );
}

#[test]
fn the_limit_on_failures_is_there_until_a_policy_takes_its_place() {
    let built_in = loaded(&format!("{SUPABASE}{ROUTE}")).rate_limits;
    let rate = built_in[0].rate.unwrap();
    assert_eq!(
        (
            rate.count.get(),
            rate.per.as_secs(),
            built_in[0].burst.get()
        ),
        (30, 60, 30)
    );
    assert_eq!(
        (built_in[0].count, built_in[0].applies_to),
        (Count::Failures, AppliesTo::All)
    );
    let off = "[rate_limits.mine]\nrate = \"off\"\ncount = \"failures\"\napplies_to = \"all\"\n";
    let mine = loaded(&format!("{SUPABASE}{off}{ROUTE}")).rate_limits;
    assert_eq!(
        mine.iter().map(|l| (&*l.name, l.rate)).collect::<Vec<_>>(),
        [("mine", None)]
    );
}

#[test]
fn the_limits_on_logins_are_there_where_somebody_logs_in_until_a_policy_takes_their_place() {
    let names = |text: &str| -> Vec<String> {
        let limits = loaded(&format!("{text}{ROUTE}")).rate_limits;
        limits.iter().map(|limit| limit.name.to_string()).collect()
    };
    let session = "[session]\nmode = \"shared\"\n";
    let key = "publishable_key = \"sb_publishable_abc\"\n";
    let logins = format!("{SUPABASE}{key}{session}");
    assert_eq!(names(&logins), ["login", "login_account", "failures"]);
    for text in [
        format!("{SUPABASE}{key}"),
        format!("{SUPABASE}{session}"),
        format!("{logins}endpoints = \"off\"\n"),
    ] {
        assert_eq!(names(&text), ["failures"], "{text}");
    }
    let mine = "[rate_limits.mine]\nrate = \"off\"\napplies_to = \"login\"\n";
    assert_eq!(names(&format!("{logins}{mine}")), ["mine", "failures"]);
    let taken = "[rate_limits.login]\nrate = \"9/s\"\napplies_to = \"all\"\n";
    assert_eq!(
        names(&format!("{logins}{taken}")),
        ["login", "builtin_login", "login_account", "failures"]
    );
    let limits = loaded(&format!("{logins}{ROUTE}")).rate_limits;
    let said = |limit: &RateLimit| {
        let rate = limit.rate.unwrap();
        let numbers = (rate.count.get(), rate.per.as_secs(), limit.burst.get());
        (numbers, limit.by.clone(), limit.applies_to, limit.count)
    };
    let login = (AppliesTo::Login, Count::Requests);
    let by_ip = ((10, 60, 10), vec![LimitBy::Ip], login.0, login.1);
    let by_account = ((10, 600, 10), vec![LimitBy::Account], login.0, login.1);
    assert_eq!([said(&limits[0]), said(&limits[1])], [by_ip, by_account]);
}

/// A session of this mode, with these lines before its table and in it.
fn session(mode: &str, before: &str, lines: &str) -> Session {
    let key = "publishable_key = \"${SUPABASE_PUBLISHABLE_KEY}\"\n";
    let redis = "[redis]\nurl = \"${REDIS_URL}\"\n";
    loaded(&format!(
        "{before}{SUPABASE}{key}{redis}[session]\nmode = \"{mode}\"\n{lines}{ROUTE}"
    ))
    .session
    .unwrap()
}

const KEYS: &str = "keys = [\"${SESSION_KEY}\"]\n";

#[test]
fn a_session_has_the_defaults_of_its_mode() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    for (mode, lines, wanted) in [
        ("shared", "", SessionMode::Shared),
        ("sealed", KEYS, SessionMode::Sealed),
        ("stored", KEYS, SessionMode::Stored),
    ] {
        let session = session(mode, "", lines);
        assert_eq!(session.mode, wanted);
        assert_eq!(session.keys.len(), usize::from(mode != "shared"));
        assert_eq!(session.endpoints.as_deref(), Some("/.auth"));
        assert_eq!(
            (&*session.login_url, &*session.after_login),
            ("/login", "/")
        );
        assert_eq!((session.max_age, session.idle_timeout), (days(30), days(7)));
        assert_eq!(session.cache_ttl, Duration::from_secs(5));
        assert_eq!(session.provider_budget, ProviderBudget::default());
        assert!(!session.adopt);
        let cookie = &session.cookie;
        assert_eq!(
            (&cookie.name, &cookie.domain, &*cookie.path),
            (&None, &None, "/")
        );
        assert_eq!((cookie.secure, cookie.http_only), (false, mode != "shared"));
        assert_eq!(cookie.same_site, SameSite::Lax);
    }
    let budget = session("shared", "", "provider_budget = {}\n").provider_budget;
    assert_eq!(budget, ProviderBudget::default());
    let short = session("sealed", "", &format!("{KEYS}max_age = \"1d\"\n"));
    assert_eq!((short.max_age, short.idle_timeout), (days(1), days(1)));
}

#[test]
fn several_keys_come_from_one_variable() {
    let check = |keys: &str, wanted: &[u8]| {
        let session = session("sealed", "", &format!("keys = {keys}\n"));
        let last: Vec<u8> = session.keys.iter().map(|key| key.expose()[31]).collect();
        assert_eq!(last, wanted, "{keys}");
    };
    check("[\"${SESSION_KEY}\"]", &[31]);
    check("\"${SESSION_KEYS}\"", &[31, 251]);
    check(
        "[\"${SESSION_KEYS}\", \"${EMPTY}\", \"${SESSION_KEY}\"]",
        &[31, 251, 31],
    );
    check("[\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]", &[0]);
    let text = format!("{SUPABASE}[session]\nmode = \"sealed\"\nkeys = [\"${{NONE}}\"]\n{ROUTE}");
    let session = load(&text, "a.toml", true).unwrap().session.unwrap();
    assert_eq!(session.keys.len(), 1, "a placeholder is a key");
}

#[test]
fn cookies_of_ours_are_secure_where_browsers_come_over_tls() {
    let check = |before: &str, lines: &str, secure: bool| {
        let text = format!("{KEYS}{lines}");
        assert_eq!(
            session("sealed", before, &text).cookie.secure,
            secure,
            "{before}"
        );
        assert!(!session("shared", before, "").cookie.secure, "{before}");
    };
    let url = |urls: &str| format!("[server]\npublic_url = {urls}\n");
    check(&url("\"https://a.example.com\""), "", true);
    check(&url("\"http://localhost:8080\""), "", false);
    check(
        &url("[\"https://a.example.com\", \"http://localhost:8080\"]"),
        "",
        false,
    );
    check(
        &url("\"http://localhost:8080\""),
        "cookie = { secure = true }\n",
        true,
    );
    check(
        &url("\"https://a.example.com\""),
        "cookie = { secure = false }\n",
        false,
    );
    let listen = |at: &str| format!("[server]\nlisten = {at}\n");
    check("", "", false);
    check(&listen("\"[::1]:8080\""), "", false);
    check(&listen("\"unix:/run/a.sock\""), "", false);
    check(&listen("\"0.0.0.0:8080\""), "", true);
    check(&listen("[\"127.0.0.1:8080\", \"192.0.2.1:80\"]"), "", true);
    let tls = "tls = [{ cert = \"app.test.pem\", key = \"app.test-key.pem\" }]";
    check(
        &format!("[[listeners]]\naddress = \"127.0.0.1:8443\"\n{tls}\n"),
        "",
        true,
    );
}

#[test]
fn redis_is_named_by_a_url() {
    let config = loaded(&format!(
        "{SUPABASE}[redis]\nurl = \"${{REDIS_URL}}\"\nca_file = \"app.test.pem\"\n{ROUTE}"
    ));
    let redis = config.redis.unwrap();
    let address = redis::Address::Tcp {
        host: "redis.example.com".into(),
        port: 6379,
        tls: true,
    };
    assert_eq!((&redis.address, redis.database), (&address, 3));
    assert_eq!(redis.username.as_deref(), Some("gateway"));
    assert_eq!(redis.password.unwrap().expose(), "hunter2");
    assert_eq!(redis.timeout, Duration::from_millis(250));
    assert_eq!(redis.ca_file, Some("app.test.pem".into()));
    assert_eq!(loaded(&format!("{SUPABASE}{ROUTE}")).redis, None);
}

#[test]
fn the_who_am_i_answer_is_for_reading() {
    let text = format!(
        "{SUPABASE}[session]\nmode = \"shared\"\n[[routes]]\npath = \"/me\"\nendpoint = \"session\"\n{ROUTE}"
    );
    let routes = loaded(&text).routes;
    assert_eq!(routes[0].target, Target::Endpoint(Endpoint::Session));
    assert_eq!(routes[0].methods.as_deref(), Some(&[Method::GET][..]));
    assert_eq!(
        (&routes[1].methods, routes[1].end_streams_with_session),
        (&None, true)
    );
}

#[test]
fn public_url_decides_hosts_and_hsts() {
    let names = |config: &Config| {
        config
            .security_headers
            .iter()
            .map(|(n, _)| n.to_string())
            .collect::<Vec<_>>()
    };
    let https = loaded(&format!(
        "[server]\npublic_url = \"https://App.example.com\"\n{SUPABASE}{ROUTE}"
    ));
    assert!(names(&https).contains(&"strict-transport-security".into()));
    assert_eq!(
        https.server.hosts,
        [HostPattern::Exact("app.example.com".into())]
    );
    let http = loaded(&format!(
        "[server]\npublic_url = \"http://localhost:8080\"\n{SUPABASE}{ROUTE}"
    ));
    assert!(!names(&http).contains(&"strict-transport-security".into()));
    assert!(
        loaded(&format!("{SUPABASE}{ROUTE}"))
            .server
            .hosts
            .is_empty()
    );
}

#[test]
fn upstreams_are_told_the_provider_when_there_are_several() {
    let names = |config: &Config| {
        config
            .identity_headers
            .iter()
            .map(|(n, _)| n.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&loaded(&format!("{SUPABASE}{ROUTE}"))),
        ["x-user-id", "x-user-role"]
    );
    let two = format!(
        "{SUPABASE}{}{ROUTE}",
        SUPABASE.replace("main", "other").replace("xyz", "abc")
    );
    assert_eq!(
        names(&loaded(&two)),
        ["x-user-id", "x-user-role", "x-auth-provider"]
    );
    assert!(
        loaded(&format!("identity_headers = false\n{SUPABASE}{ROUTE}"))
            .identity_headers
            .is_empty()
    );
}

#[test]
fn a_variable_takes_the_type_of_its_key_and_may_hold_a_list() {
    let config = loaded(&format!(
        "[server]\nworkers = \"${{WORKERS}}\"\nhosts = [\"x.example.com\", \"${{HOSTS}}\", \"${{EMPTY}}\"]\n{SUPABASE}{ROUTE}"
    ));
    assert_eq!(config.server.workers, 3);
    assert_eq!(config.server.hosts.len(), 4);
    let whole = loaded(&format!(
        "[server]\nhosts = \"${{HOSTS}}\"\n{SUPABASE}{ROUTE}"
    ));
    assert_eq!(whole.server.hosts.len(), 3);
}

#[test]
fn a_url_in_a_route_is_an_upstream_of_its_own() {
    let text = format!(
        "{SUPABASE}{ROUTE}[[routes]]\npath = \"/a\"\nupstream = \"http://127.0.0.1:9/base/\"\n[[routes]]\npath = \"/b\"\nupstream = \"http://127.0.0.1:9/base/\"\n"
    );
    let config = loaded(&text);
    assert_eq!(config.upstreams.len(), 2);
    assert_eq!(&*config.upstreams[1].base_path, "/base");
    assert_eq!(config.routes[1].target, Target::Upstream(1));
    assert_eq!(config.routes[2].target, Target::Upstream(1));
}

#[test]
fn route_names_are_unique() {
    let text = format!("{SUPABASE}{ROUTE}methods = [\"GET\"]\n")
        .replace("[upstreams.api]\nurl = \"http://127.0.0.1:8000\"\n", "");
    let text = format!(
        "{text}[[routes]]\npath = \"/api/*\"\nmethods = [\"PUT\", \"POST\"]\n[upstreams.api]\nurl = \"http://127.0.0.1:8000\"\n"
    );
    let names: Vec<_> = loaded(&text)
        .routes
        .iter()
        .map(|route| route.name.to_string())
        .collect();
    assert_eq!(names, ["/api/*", "PUT,POST /api/*"]);
}

#[test]
fn files_that_were_read_are_known_so_that_they_can_be_watched() {
    let text = "[providers.a]\nkind = \"jwt\"\nissuer = \"i\"\naudiences = [\"a\"]\nsecret = \"${file:jwt-secret}\"\n";
    let config = load(&format!("{text}{ROUTE}"), "/etc/th/a.toml", false).unwrap();
    assert_eq!(config.files, [PathBuf::from("/etc/th/jwt-secret")]);
}

#[test]
fn problems_are_json_for_machines() {
    let problems = load("[server]\nlisen = 1\n", "a.toml", false).unwrap_err();
    let json = problems.to_json();
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["id"], "unknown-key");
    assert_eq!(
        (json[0]["line"].as_u64(), json[0]["column"].as_u64()),
        (Some(2), Some(1))
    );
    assert_eq!(json[0]["hint"], "did you mean `listen`?");
    assert_eq!(json[0]["file"], "a.toml");
}

#[test]
fn a_secret_is_in_no_debug_output() {
    let text = "[providers.a]\nkind = \"jwt\"\nissuer = \"i\"\naudiences = [\"a\"]\nsecret = \"${JWT_SECRET}\"\n";
    let shown = format!("{:?}", loaded(&format!("{text}{ROUTE}")));
    assert!(!shown.contains("thirty-two"), "{shown}");
    let text = format!(
        "[redis]\nurl = \"${{REDIS_URL}}\"\n{SUPABASE}publishable_key = \"sb_publishable_abc\"\nsecret_key = \"sb_secret_hunter2\"\n[session]\nmode = \"stored\"\n{KEYS}{ROUTE}"
    );
    let config = loaded(&text);
    let shown = format!("{config:?}");
    let key = format!("{:?}", config.session.unwrap().keys[0].expose());
    let key = key.trim_matches(['[', ']']);
    assert!(
        !shown.contains("hunter2") && !shown.contains(key),
        "{shown}"
    );
}

/// A piece of a good file, cut, doubled or changed.
fn mutated() -> impl Strategy<Value = String> {
    let texts: Vec<String> = files("good").into_iter().map(|(_, text)| text).collect();
    let words = "path|auth|\\[\\[routes\\]\\]|\\[session\\]|= 1|= true|\\[\\]|\"\\$\\{WORKERS\\}\"|\\$\\{|\\{|\\}|\"|\n|=|é|[a-z]{1,3}";
    (
        proptest::sample::select(texts),
        any::<prop::sample::Index>(),
        0..40_usize,
        words,
    )
        .prop_map(|(text, at, cut, word)| {
            let chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            chars[..at]
                .iter()
                .copied()
                .chain(word.chars())
                .chain(chars[(at + cut).min(chars.len())..].iter().copied())
                .collect()
        })
}

proptest! {
    #[test]
    fn no_text_makes_load_panic(text in "\\PC{0,200}") {
        if let Err(problems) = load(&text, "any.toml", false) {
            prop_assert!(!problems.to_string().is_empty());
        }
    }

    #[test]
    fn no_change_of_a_good_file_makes_load_panic(text in mutated(), placeholders: bool) {
        if let Err(problems) = load(&text, "any.toml", placeholders) {
            prop_assert!(problems.errors() > 0);
            prop_assert!(!problems.to_string().is_empty() && problems.to_json().is_array());
        }
    }
}
