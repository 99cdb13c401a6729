//! The JSON Schema of the file, held to the program from both sides: what `check` takes it takes, for every key; and a
//! key that does not exist, a wrong type or a wrong word it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tollhouse::config::interpolate::Environment;
use tollhouse::config::{self, Options, reference, schema};
use toml::{Table, Value as Toml};

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::document);
static VALIDATOR: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::validator_for(&SCHEMA).unwrap());

/// What the files of this test may name.
struct World;

impl Environment for World {
    fn var(&self, name: &str) -> Option<OsString> {
        let value = match name {
            "YES" => "true",
            "THREE" => "3",
            "WORD" => "word",
            "EMPTY" => "",
            _ => return None,
        };
        Some(value.into())
    }

    fn file(&self, _: &Path, _: usize) -> Result<String, String> {
        Err("does not exist".into())
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every TOML file below these folders.
fn files(folders: &[&str]) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = folders.iter().map(|name| root().join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "toml") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// What an editor makes of a file. `None`: it is not TOML.
fn read(text: &str) -> Option<Value> {
    let table: Table = toml::from_str(text).ok()?;
    Some(serde_json::to_value(table).unwrap())
}

/// What the schema says against a file.
fn complaints(file: &Value) -> Vec<String> {
    match VALIDATOR.validate(file) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect(),
    }
}

/// What `check` says against a file: identifier and message.
fn told(text: &str) -> Vec<(String, String)> {
    let loaded = config::load(text, Path::new("a.toml"), &World, Options::default());
    let Err(problems) = loaded else {
        return Vec::new();
    };
    let problems = problems.to_json();
    let errors = problems.as_array().unwrap().iter();
    errors
        .filter(|problem| problem["severity"] == "error")
        .map(|problem| {
            let text = |key: &str| problem[key].as_str().unwrap().to_owned();
            (text("id"), text("message"))
        })
        .collect()
}

// The files of this repository

#[test]
fn right_files_pass() {
    let files = files(&["config", "examples", "tests/config/good"]);
    assert!(files.len() > 6, "{files:?}");
    for path in files {
        let file = read(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(complaints(&file), [""; 0], "{}", path.display());
    }
}

/// What a schema can see. The other problems lie between keys, in names, in the values of variables or in bounds of
/// durations and sizes.
const VISIBLE: [&str; 3] = ["unknown-key", "wrong-type", "not-supported-yet"];

/// Wrong files of a visible kind that pass all the same, and why.
const UNSEEN: &[(&str, &str)] = &[(
    "variable-of-the-wrong-type",
    "an editor does not know what a variable holds",
)];

/// Wrong files that have nothing of a visible kind, but a word or a form that the schema knows.
const WORDS: &[&str] = &[
    "auth-rules",
    "cors",
    "limits",
    "listen",
    "out-of-range",
    "paths",
    "redirects",
    "reserved-headers",
    "session-without-mode",
    "warnings",
];

#[test]
fn unknown_keys_wrong_types_and_wrong_words_fail() {
    let mut failed = 0;
    for path in files(&["tests/config/bad"]) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let Some(file) = read(&fs::read_to_string(&path).unwrap()) else {
            continue;
        };
        let told = fs::read_to_string(path.with_extension("txt")).unwrap();
        let visible = VISIBLE.iter().any(|id| told.contains(&format!("[{id}]")));
        let unseen = UNSEEN.iter().any(|(own, _why)| *own == name);
        if (visible && !unseen) || WORDS.contains(&name) {
            assert!(!complaints(&file).is_empty(), "{name} passes:\n{told}");
            failed += 1;
        }
    }
    assert!(failed > 15, "{failed}");
}

#[test]
fn one_fault_is_enough() {
    let check = |text: &str, passes: bool| {
        let file = read(text).unwrap();
        let complaints = complaints(&file);
        assert_eq!(complaints.is_empty(), passes, "{text}: {complaints:?}");
    };
    let fine = |text: &str| check(text, true);
    let wrong = |text: &str| check(text, false);
    fine("[server]\ntakeover = true");
    fine("[server]\ntakeover = \"${TAKEOVER}\"");
    fine("[server]\ntakeover = \"${TAKEOVER:-false}\"");
    wrong("[server]\ntakeover = \"true\"");
    wrong("[server]\ntakeover = \"x${TAKEOVER}\"");
    wrong("[server]\ntakeover = \"$${TAKEOVER}\"");
    wrong("[server]\ntakeover = 1");
    fine("[server]\nworkers = 4");
    fine("[server]\nworkers = \"${file:workers}\"");
    wrong("[server]\nworkers = -1");
    wrong("[server]\nworkers = 2000");
    wrong("[server]\nworkers = \"4\"");
    fine("[server]\nkeep_alive = \"1h30m\"");
    fine("[server]\nkeep_alive = \"${MINUTES}m\"");
    wrong("[server]\nkeep_alive = \"75\"");
    wrong("[server]\nkeep_alive = 75");
    wrong("[server]\nkeep_alive = \"$${MINUTES}m\"");
    wrong("[server]\nkeep_alive = \"${MINUTES\"");
    fine("[server]\nmax_body = \"unlimited\"");
    fine("[server]\nmax_body = \"10MiB\"");
    wrong("[server]\nmax_body = \"10M\"");
    fine("[server]\nhosts = \"${HOSTS}\"");
    fine("[server]\nhosts = [\"a.example.com\", \"${HOSTS}\"]");
    fine("[server]\ntrusted_proxies = \"${PROXIES}\"");
    wrong("[server]\ntrusted_proxies = \"private\"");
    wrong("[server]\ntrusted_proxies = [\"privat\"]");
    wrong("[server]\nlisen = \"127.0.0.1:8080\"");
    wrong("[servers]\n");
    wrong("[[server]]\n");
    fine("[log]\nlevel = \"debug\"");
    fine("[log]\nlevel = \"${LEVEL}\"");
    wrong("[log]\nlevel = \"verbose\"");
    fine("[rate_limits.a]\nrate = \"60/5m\"");
    fine("[rate_limits.a]\nrate = \"off\"");
    wrong("[rate_limits.a]\nrate = \"60\"");
    wrong("[rate_limits.a]\nrate = \"0/s\"");
    wrong("[rate_limits.a]\nburst = 60");
    wrong("[rate_limits]\nrate = \"60/min\"");
    wrong("[rate_limits.\"a b\"]\nrate = \"60/min\"");
    fine("[providers.a]\nkind = \"jwt\"\nissuer = false");
    fine("[providers.a]\nkind = \"jwt\"\naudiences = \"api\"");
    fine("[providers.a]\nkind = \"jwt\"\nsecret = \"${SECRET}\"");
    wrong("[providers.a]\nkind = \"jwt\"\nsecret = 1");
    wrong("[providers.a]\nkind = \"jwt\"\nalgorithms = [\"none\"]");
    wrong("[providers.a]\nkind = \"better-auth\"");
    wrong("[providers.a]\nurl = \"https://xyz.supabase.co\"");
    fine("[session]\nmode = \"sealed\"\nkeys = [\"k\"]");
    fine("[session]\nmode = \"${MODE}\"\nkeys = \"${KEYS}\"");
    wrong("[session]\nmode = \"seald\"");
    wrong("[session]\nmode = \"sealed\"\nkeys = \"k\"");
    fine("[session]\nmode = \"shared\"\nendpoints = \"off\"");
    fine("[session]\nmode = \"shared\"\nendpoints = \"/.auth\"");
    wrong("[session]\nmode = \"shared\"\nendpoints = \"/.auth/\"");
    wrong("[session]\nmode = \"shared\"\nendpoints = false");
    wrong("[session]\nmode = \"shared\"\nafter_login = \"//a\"");
    fine("[session]\nmode = \"shared\"\ncookie = { name = \"a\", http_only = true }");
    fine("[session]\nmode = \"shared\"\nprovider_budget = { otp = \"1/s\" }");
    wrong("[session]\nmode = \"shared\"\nprovider_budget = { login = \"off\" }");
    fine("[redis]\nurl = \"unix:/run/redis.sock\"");
    fine("[redis]\nurl = \"redis://:${PASSWORD}@127.0.0.1\"");
    wrong("[redis]\nurl = \"http://127.0.0.1\"");
    wrong("[redis]\ntimeout = \"1s\"");
    fine("[[routes]]\npath = \"/a\"\nendpoint = \"session\"");
    wrong("[[routes]]\npath = \"/a\"\nendpoint = \"login\"");
    fine("[[listeners]]\naddress = \"[::]:8443\"\ntls = [{ cert = \"c\", key = \"k\" }]");
    wrong("[[listeners]]\naddress = \"[::]:8443\"\ntls = { cert = \"c\", key = \"k\" }");
    wrong("[[listeners]]\naddress = \"[::]:8443\"\nproxy_protocol = true");
    fine("identity_headers = false");
    fine("[identity_headers]\nX-User-Role = false\nX-Roles = \"@roles\"");
    wrong("[identity_headers]\nX-User-Role = true");
    wrong("[identity_headers]\nX-Roles = \"@role\"");
    wrong("[identity_headers]\n\"bad name\" = \"sub\"");
    fine("[security_headers]\nX-Frame-Options = \"\"");
    wrong("[security_headers]\nX-Frame-Options = false");
    fine("[lints]\nno-routes = \"it is a test\"");
    wrong("[lints]\nno-routes = \" \"");
    wrong("[lints]\nno-such-lint = \"it is a test\"");
    fine(
        "[[routes]]\npath = \"/a\"\nrequire = { claims = { app_metadata.tenant = \"x\", plan = 3 } }",
    );
    wrong("[[routes]]\npath = \"/a\"\nrequire = { claims = { plan = [3] } }");
    wrong("[[routes]]\npath = \"/a\"\nrequire = { any_roles = [\"x\"] }");
    wrong("[[routes]]\nauth = \"public\"");
    wrong("[[routes]]\npath = \"/a\"\nauth = \"publik\"");
    wrong("[[routes]]\npath = \"a\"");
    wrong("[routes]\npath = \"/a\"");
    fine("[[routes]]\npath = \"/a\"\nredirect = { to = \"/b\", status = 308 }");
    wrong("[[routes]]\npath = \"/a\"\nredirect = { to = \"//b\" }");
    wrong("[[routes]]\npath = \"/a\"\nredirect = { to = \"/b\", status = 200 }");
    fine("[[routes]]\npath = \"/a\"\ncors = { allow_origins = \"*\" }");
    wrong("[[routes]]\npath = \"/a\"\ncors = { allow_methods = [\"GET\"] }");
    fine("[[tests]]\nrequest = \"GET /a\"\nas = \"nobody\"");
    fine("[[tests]]\nrequest = \"GET /a\"\nas = { claims = { a = [1, { b = true }] } }");
    wrong("[[tests]]\nrequest = \"GET /a\"\nas = \"somebody\"");
    wrong("[[tests]]\nrequest = \"get /a\"");
}

// The schema itself

/// Every schema within a schema, and where it stands.
fn inner(schema: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    let Some(object) = schema.as_object() else {
        assert_eq!(schema, &json!(false), "{at} takes anything");
        return;
    };
    found.push((at.to_owned(), schema.clone()));
    for (word, value) in object {
        let at = format!("{at}/{word}");
        match word.as_str() {
            "properties" | "$defs" => value
                .as_object()
                .unwrap()
                .iter()
                .for_each(|(name, schema)| inner(schema, &format!("{at}/{name}"), found)),
            "anyOf" => value
                .as_array()
                .unwrap()
                .iter()
                .for_each(|schema| inner(schema, &at, found)),
            "items" | "additionalProperties" | "propertyNames" => inner(value, &at, found),
            "$schema" | "$id" | "$ref" | "title" | "description" | "type" | "enum" | "pattern"
            | "minimum" | "maximum" | "minLength" | "required" | "default" | "examples" => {}
            other => panic!("{at}: nobody here knows `{other}`"),
        }
    }
}

fn all_inner() -> Vec<(String, Value)> {
    let mut found = Vec::new();
    inner(&SCHEMA, "", &mut found);
    assert!(found.len() > 300, "{}", found.len());
    found
}

#[test]
fn the_meta_schema_takes_it() {
    const META: &str = "https://json-schema.org/draft/2020-12/schema";
    assert_eq!(SCHEMA["$schema"], META);
    let meta = jsonschema::validator_for(&json!({"$schema": META, "$ref": META})).unwrap();
    assert!(!meta.is_valid(&json!({"type": "text"})) && !meta.is_valid(&json!({"enum": 1})));
    // Each of them on its own: the validator follows the meta-schema's dynamic references only one step.
    for (at, schema) in all_inner() {
        assert!(meta.is_valid(&schema), "{at}: {schema}");
    }
}

#[test]
fn nothing_is_open_and_every_reference_leads_somewhere() {
    for (at, schema) in all_inner() {
        let says = ["type", "enum", "anyOf", "$ref", "pattern"];
        assert!(says.iter().any(|word| schema.get(word).is_some()), "{at}");
        if schema["type"] == "object" {
            // What a token of a test holds is anything.
            let open = at == "/$defs/tests.as/properties/claims";
            assert_ne!(schema.get("additionalProperties").is_some(), open, "{at}");
        }
        if let Some(to) = schema.get("$ref") {
            let to = to.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(SCHEMA.pointer(to).is_some(), "{at}: {to}");
        }
    }
}

#[test]
fn every_declared_key_is_there_with_its_comment_and_a_value_that_it_takes() {
    let mut keys = 0;
    for (scope, _, declared) in config::tables() {
        let table = &SCHEMA["$defs"][scope];
        assert_eq!(table["type"], "object", "{scope}");
        for key in declared {
            let at = format!("{scope}.{}", key.name);
            let schema = &table["properties"][key.name];
            let about = schema["description"].as_str().unwrap_or_default();
            let first = key.doc.lines().next().unwrap().trim();
            assert!(about.contains(first) && !first.is_empty(), "{at}: {about}");
            let required = json!(key.name);
            let listed = table["required"].as_array();
            let listed = listed.is_some_and(|names| names.contains(&required));
            let (shown, must) = match key.presence {
                config::table::Presence::Default(_) => (&schema["default"], false),
                config::table::Presence::Required(_) => (&schema["examples"][0], true),
                config::table::Presence::Optional(_) => (&schema["examples"][0], false),
            };
            assert_eq!(listed, must, "{at}");
            assert!(!shown.is_null(), "{at}");
            let file = placed(scope, key.name, shown);
            assert_eq!(complaints(&file), [""; 0], "{at}: {file}");
            keys += 1;
        }
    }
    assert!(keys > 100, "{keys}");
}

#[test]
fn the_tables_of_the_schema_are_those_of_the_file() {
    let told = told("no-such-table = 1");
    assert_eq!(told[0].0, "unknown-key");
    let properties = SCHEMA["properties"].as_object().unwrap();
    for name in properties.keys() {
        let told = self::told(&format!("{name} = 1.5"));
        assert!(told.iter().all(|(id, _)| id != "unknown-key"), "{name}");
    }
    // And nothing that the reference shows is missing: see `right_files_pass`.
    let text = fs::read_to_string(root().join("config/reference.toml")).unwrap();
    let reference = read(&text).unwrap();
    let shown: BTreeSet<&String> = reference.as_object().unwrap().keys().collect();
    assert_eq!(shown, properties.keys().collect());
}

// Key by key, beside the program

/// The table of the file that holds a table of this definition, and the key in it, when it is not that table itself.
fn way(scope: &str) -> (String, Option<String>) {
    let Some((outer, _)) = scope.rsplit_once('.') else {
        return (scope.to_owned(), None);
    };
    let to = definition(scope);
    let keys = SCHEMA["$defs"][outer]["properties"].as_object().unwrap();
    let refers = |schema: &Value| schema.to_string().contains(&to);
    let (key, _) = keys.iter().find(|(_, schema)| refers(schema)).unwrap();
    (outer.to_owned(), Some(key.clone()))
}

/// As a reference to it is written.
fn definition(scope: &str) -> String {
    format!("\"#/$defs/{scope}\"")
}

/// The smallest table of this definition.
fn smallest(scope: &str) -> Value {
    let table = &SCHEMA["$defs"][scope];
    let names = table["required"].as_array().into_iter().flatten();
    let of = |name: &Value| {
        let name = name.as_str().unwrap();
        let example = table["properties"][name]["examples"][0].clone();
        (name.to_owned(), example)
    };
    names.map(of).collect::<serde_json::Map<_, _>>().into()
}

/// The minimal file of the reference, with this value for this key of a table.
fn placed(scope: &str, key: &str, value: &Value) -> Value {
    let mut file = read(reference::MINIMAL).unwrap();
    let (outer, step) = way(scope);
    let section = &SCHEMA["properties"][&outer];
    let own = &mut file[&outer];
    let mut at = if section["type"] == "array" {
        if own.is_null() {
            *own = json!([smallest(&outer)]);
        }
        &mut own[0]
    } else if section.get("additionalProperties").is_some() {
        if own.is_null() {
            *own = json!({"one": smallest(&outer)});
        }
        own.as_object_mut().unwrap().values_mut().next().unwrap()
    } else {
        if own.is_null() {
            *own = smallest(&outer);
        }
        own
    };
    if let Some(step) = step {
        let holder = SCHEMA["$defs"][&outer]["properties"][&step].to_string();
        let list = format!("\"items\":{{\"$ref\":{}}}", definition(scope));
        let inner = smallest(scope);
        at = &mut at[&step];
        if holder.contains(&list) {
            *at = json!([inner]);
            at = &mut at[0];
        } else {
            *at = inner;
        }
    }
    at[key] = value.clone();
    file
}

/// Every key of every table.
fn keys() -> Vec<(String, String)> {
    let mut keys = Vec::new();
    for (scope, ..) in config::tables() {
        let properties = SCHEMA["$defs"][scope]["properties"].as_object().unwrap();
        for key in properties.keys() {
            keys.push((scope.to_owned(), key.clone()));
        }
    }
    keys
}

/// The file as an operator would have written it.
fn written(file: &Value) -> String {
    let table: Toml = serde_json::from_value(file.clone()).unwrap();
    toml::to_string(&table).unwrap()
}

/// Holds the schema's word against the program's, for one value of one key.
fn compare(scope: &str, key: &str, value: &Value) {
    let file = placed(scope, key, value);
    let text = written(&file);
    let (told, complaints) = (told(&text), complaints(&file));
    let shown = || format!("{scope}.{key} = {value}\n{told:?}\n{complaints:?}");
    if told.is_empty() {
        assert!(
            complaints.is_empty(),
            "the schema is narrower:\n{}",
            shown()
        );
        return;
    }
    if value.to_string().contains("${") {
        return;
    }
    let visible = |(id, message): &(String, String)| match id.as_str() {
        // Which keys a provider has depends on its kind.
        "unknown-key" => !message.starts_with("a provider of kind"),
        "wrong-type" | "not-supported-yet" => true,
        "out-of-range" => value.is_number(),
        "bad-value" => one_of_words(scope, key),
        _ => false,
    };
    if told.iter().any(visible) {
        assert!(!complaints.is_empty(), "the schema is wider:\n{}", shown());
    }
}

/// Whether a key takes nothing but words.
fn one_of_words(scope: &str, key: &str) -> bool {
    let schema = &SCHEMA["$defs"][scope]["properties"][key];
    let Some(any) = schema["anyOf"].as_array() else {
        return schema.get("enum").is_some();
    };
    any.len() == 2 && any.iter().any(|one| one.get("enum").is_some())
}

const VALUES: &str = r##"[
    true, false, 0, 1, -1, 3, 16, 60, 301, 302, 404, 4096, 100000, 10000000, 3000000000, 99999999999, 1.5,
    "", " ", "x", "true", "3", "10s", "1h30m", "10 s", "16KiB", "16 KiB", "500B/s", "60/min", "+60 / 5m", "off", "unlimited",
    "auto", "json", "info", "debug", "shared", "sealed", "supabase", "jwt", "better-auth", "deny", "allow", "draft",
    "requests", "failures", "named", "protected", "all", "login", "any", "public", "private", "optional", "required",
    "bearer", "session", "nobody", "aal2", "401", "append", "single", "round_robin", "hash:ip", "memory", "redis",
    "http1", "h2", "stored", "strict", "1d", "401d", "/.auth", "/.auth/", "/a/./b", "/a~b/c", "redis://127.0.0.1:6379", "rediss://u:p%40@a.example.com/1", "redis://",
    "REDIS://127.0.0.1", "redis+unix:///run/a.sock?db=1", "redis://u@a", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "x"],
    {"name": "a"}, {"name": "a b"}, {"same_site": "none"}, {"login": "60/5m"}, {"otp": "off"}, {"domain": "a.example.com", "http_only": false},
    "/", "/a", "/a/", "/a/*", "/{id}", "//a", "a/b", "/a b", "/caf\u00e9", "/v2/{*}", "?a",
    "127.0.0.1:8080", "[::1]:8080", "[fe80::1%1]:80", "localhost:80", "unix:/run/a.sock", "unix:a", "10.0.0.0/8", "::1", "2001:db8::/32", "::ffff:1.2.3.4",
    "https://a.example.com", "HTTP://A.example.com:443/", "http://127.0.0.1:8000/base", "https:a.example.com", "ftp://a",
    "app.example.com", "*.example.com", "{tenant}.example.com", "[::1]", "a.example.com:443", "*",
    "X-A", "x_a", "bad name", "GET", "get", "GET /api/x", "GET  https://a.example.com", "ip", "user", "claim:a.b", "header:X-A", "sub", "a.b", "a..b", "@roles",
    "ES256", "none", "bearer:main", "api_key", "no-effect", "text/plain", "caf\u00e9", "a\tb", "a\nb",
    "${YES}", "${THREE}", "${WORD}", "${EMPTY}", "x${WORD}", "${NONE:-10s}", "${NONE:-a,b}", "$${YES}", "${WORD", "$$${YES}",
    [], [1], [true], [[]], [{}], ["x"], ["GET"], ["/a"], ["10.0.0.0/8"], ["private"], ["X-A"], ["a.b"], ["ip"], ["case"], ["no-effect"], ["session"], ["api_key"],
    ["https://a.example.com"], ["app.example.com"], ["127.0.0.1:1", "127.0.0.1:2"], ["${EMPTY}"], ["${WORD}", "x"], ["ES256"], ["none"], [""],
    {}, {"a": 1}, {"X-A": "b"}, {"X-A": 1}, {"X-A": false}, {"a": "b"}, {"a": {"b": true}}, {"a": [1]}, {"bad name": "b"}, {"set": {"X-A": "b"}}, {"remove": ["X-A"]},
    {"to": "/x"}, {"to": "/x", "status": 200}, {"status": 204}, {"status": 99}, {"any_role": ["a"]}, {"roles": ["a"]}, {"allow_origins": ["*"]}, {"allow_origins": "https://a.example.com", "max_age": 3}
]"##;

#[test]
fn key_by_key_it_agrees_with_the_program() {
    let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
    let keys = keys();
    assert!(keys.len() > 100, "{}", keys.len());
    for (scope, key) in &keys {
        for value in &values {
            compare(scope, key, value);
        }
    }
    for (scope, ..) in config::tables() {
        compare(scope, "no_such_key", &json!(1));
        let file = placed(scope, "no_such_key", &json!(1));
        assert!(!complaints(&file).is_empty(), "{scope}");
    }
}

/// For the tables whose keys are the operator's there is no declaration to compare with.
#[test]
fn the_operators_own_keys_agree_with_the_program() {
    let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
    let names = ["X-A", "bad name", "no-effect", "a.b", "Content-Type"];
    for section in ["identity_headers", "security_headers", "lints"] {
        for value in &values {
            let mut files = vec![value.clone()];
            files.extend(names.map(|name| json!({name: value})));
            for own in files {
                let mut file = read(reference::MINIMAL).unwrap();
                file[section] = own;
                let text = written(&file);
                let (told, complaints) = (told(&text), complaints(&file));
                let shown = || format!("{section}: {}\n{told:?}\n{complaints:?}", file[section]);
                if told.is_empty() {
                    assert!(
                        complaints.is_empty(),
                        "the schema is narrower:\n{}",
                        shown()
                    );
                }
                let visible =
                    |(id, _): &(String, String)| id == "wrong-type" || id == "unknown-lint";
                if told.iter().any(visible) && !text.contains("${") {
                    assert!(!complaints.is_empty(), "the schema is wider:\n{}", shown());
                }
            }
        }
    }
}

/// A text that some key takes, changed in a place or two.
fn changed() -> impl Strategy<Value = String> {
    let mut texts: Vec<String> = Vec::new();
    let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
    let shown = |(scope, key): (String, String)| {
        let schema = &SCHEMA["$defs"][&scope]["properties"][&key];
        [schema["default"].clone(), schema["examples"][0].clone()]
    };
    let mut left: Vec<Value> = values;
    left.extend(keys().into_iter().flat_map(shown));
    while let Some(value) = left.pop() {
        match value {
            Value::String(text) => texts.push(text),
            Value::Array(list) => left.extend(list),
            _ => {}
        }
    }
    let one = "[ /:.@*$_%#?,;='~!&+A-Za-z0-9é\u{a0}{}\\[\\]\\\\\"-]{0,2}";
    let edit = (any::<prop::sample::Index>(), 0..2_usize, one);
    (
        proptest::sample::select(texts),
        proptest::collection::vec(edit, 0..3),
    )
        .prop_map(|(text, edits)| {
            edits.into_iter().fold(text, |text, (at, cut, put)| {
                let chars: Vec<char> = text.chars().collect();
                let at = at.index(chars.len() + 1);
                let rest = chars.iter().skip(at + cut);
                let mut text: String = chars.iter().take(at).collect();
                text.push_str(&put);
                text.extend(rest);
                text
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_text_that_the_program_takes_is_refused(
        (scope, key) in proptest::sample::select(keys()),
        text in changed(),
        listed: bool,
    ) {
        let value = if listed { json!([text]) } else { json!(text) };
        compare(&scope, &key, &value);
    }
}
