//! The reference: every key with its default and its comment, made from the declarations. A test holds
//! `config/reference.toml` to it.

use super::later;
use super::table::{Key, Presence};
use super::tables;

/// What the reference needs besides defaults. The two mean the same.
pub const MINIMAL: &str = r#"
[server]
listen = ["127.0.0.1:8080"]

[[listeners]]
address = "0.0.0.0:8443"

[redis]
url = "redis://127.0.0.1:6379"

[providers.main]
kind = "supabase"
url = "https://xyz.supabase.co"

[session]
mode = "shared"

[upstreams.api]
url = "http://127.0.0.1:8000"

[rate_limits.per_ip]
rate = "60/min"

[cors]
allow_origins = ["https://app.example.com"]

[[routes]]
path = "/api/*"

[[tests]]
request = "GET /api/me"
status = 401

[lints]
unused-rate-limit = "it is an example"
"#;

/// Optional keys that the reference gives all the same.
const GIVEN: &[(&str, &str)] = &[
    ("providers", "url"),
    ("upstreams", "url"),
    ("tests", "status"),
];

/// Scope, head, introduction: the tables of the file. The schema is made of this list, too.
pub(super) const SECTIONS: &[(&str, &str, &str)] = &[
    ("server", "[server]", "The process and its public door."),
    (
        "listeners",
        "[[listeners]]",
        "Doors that say more than an address; any number. With one of them, `server.listen` has no default.",
    ),
    ("admin", "[admin]", "The operator's door."),
    ("log", "[log]", "What is written down, on standard output."),
    ("telemetry", "[telemetry]", "Where traces go."),
    (
        "redis",
        "[redis]",
        "Where sessions of the mode `stored` are, and what replicas tell each other: Redis 6 or later, or Valkey. Absent: nothing is stored.",
    ),
    (
        "providers",
        "[providers.main]",
        "Whoever issues credentials; any number, with names of yours.",
    ),
    (
        "session",
        "[session]",
        "Cookies as credentials. Absent: cookies are not looked at.",
    ),
    (
        "upstreams",
        "[upstreams.api]",
        "The services behind the gateway; any number, with names of yours.",
    ),
    (
        "rate_limits",
        "[rate_limits.per_ip]",
        "How often something may happen; any number, with names of yours.",
    ),
    (
        "cors",
        "[cors]",
        "Which pages of other origins may call us. Absent: none.",
    ),
    (
        "identity_headers",
        "[identity_headers]",
        "What upstreams are told. Laid over these two; `false` takes one away, `identity_headers = false` all.",
    ),
    (
        "security_headers",
        "[security_headers]",
        "Set where the upstream set none. Laid over these; \"\" takes one away, `security_headers = false` all.",
    ),
    (
        "routes",
        "[[routes]]",
        "Who may ask what. The most specific route wins, wherever it stands; every one is protected until it says otherwise.",
    ),
    (
        "tests",
        "[[tests]]",
        "Tests of the policy: run by `check`, and before `run` serves.",
    ),
    (
        "lints",
        "[lints]",
        "Warnings that are fine here, by name, with the reason.",
    ),
];

/// Said of a key that has only its default.
pub(super) const NOTHING_ELSE: &str = "Nothing else is supported yet.";

/// Tables within tables: scope, sentence.
const INNER: &[(&str, &str)] = &[
    ("listeners.tls", "tls = [{ … }]"),
    ("session.cookie", "cookie = { … }"),
    ("session.provider_budget", "provider_budget = { … }"),
    ("routes.require", "require = { … }"),
    ("routes.redirect", "redirect = { … }"),
    ("routes.respond", "respond = { … }"),
    (
        "routes.headers",
        "request_headers = { … }, response_headers = { … }",
    ),
    ("tests.as", "as = { … }"),
];

/// The text of `config/reference.toml`.
pub fn text() -> String {
    let all = tables();
    let keys = |scope: &str| {
        all.iter()
            .find(|(own, ..)| *own == scope)
            .map(|(.., keys)| keys.as_slice())
            .unwrap_or_default()
    };
    let mut out = String::from(
        "# Every key with its default. A line that begins with `#` and a key shows an example of a key without a default.\n\
         # Made from the code, and held to it by a test. The shortest useful file is tollhouse.toml.\n\
         # Durations \"250ms\", \"30s\", \"10m\", \"24h\", \"7d\"; sizes \"16KiB\"; rates \"60/min\", \"10/s\", \"60/5m\".\n\
         # Strings may hold ${VAR}, ${VAR:-default}, ${file:PATH}; $${ is a literal ${.\n",
    );
    for (scope, head, about) in SECTIONS {
        out.push_str(&format!("\n# {about}\n{head}\n"));
        match *scope {
            "identity_headers" => out.push_str("X-User-Id = \"sub\"\nX-User-Role = \"@roles\"\n"),
            "security_headers" => security_headers(&mut out),
            "lints" => out.push_str("unused-rate-limit = \"it is an example\"\n"),
            _ => {}
        }
        for key in keys(scope) {
            line(&mut out, scope, key);
        }
        for (key, value) in later::defaults(scope) {
            out.push_str(&format!("{key} = {value}    # {NOTHING_ELSE}\n"));
        }
        for (inner, sentence) in INNER
            .iter()
            .filter(|(inner, _)| inner.split('.').next() == Some(scope))
        {
            out.push_str(&format!("# {sentence}:\n"));
            for key in keys(inner) {
                let (Presence::Default(value)
                | Presence::Required(value)
                | Presence::Optional(value)) = key.presence;
                out.push_str(&format!(
                    "#     {} = {value}    # {}\n",
                    key.name,
                    comment(key)
                ));
            }
        }
    }
    out
}

fn line(out: &mut String, scope: &str, key: &Key) {
    let (hash, value) = match key.presence {
        Presence::Default(value) | Presence::Required(value) => ("", value),
        Presence::Optional(value) if GIVEN.contains(&(scope, key.name)) => ("", value),
        Presence::Optional(value) => ("# ", value),
    };
    let note = if later::only_default(scope, key.name) {
        format!(" {NOTHING_ELSE}")
    } else {
        String::new()
    };
    out.push_str(&format!(
        "{hash}{} = {value}    # {}{note}\n",
        key.name,
        comment(key)
    ));
}

fn security_headers(out: &mut String) {
    for (name, value, only_https) in super::server::SECURITY_HEADERS {
        let hash = if *only_https { "# " } else { "" };
        let note = if *only_https {
            "    # Only where every `public_url` is https."
        } else {
            ""
        };
        out.push_str(&format!("{hash}{name} = \"{value}\"{note}\n"));
    }
}

pub(super) fn comment(key: &Key) -> String {
    key.doc.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}
