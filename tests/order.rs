//! The house keeps its order: floors, who may prove a caller, who knows statuses, how long a file may be.
//! The floors are the `mod` lines of `src/lib.rs`, from the ground up. ARCHITECTURE.md says why.

#![allow(clippy::unwrap_used, reason = "what cannot be read cannot be in order")]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines after which a file has become two: above its unit tests, and in all.
const LINES_MAX: usize = 450;
const LINES_WITH_TESTS_MAX: usize = 650;

/// Files that may name a status, and why. All others say a `Code`, and `exchange/reject.rs` knows its status.
const STATUS: &[(&str, &str)] = &[
    ("exchange/reject.rs", "the table of the contract"),
    ("config", "reads the statuses that operators write"),
    ("cors.rs", "204 answers a preflight"),
    (
        "gateway",
        "fixed answers and redirects of the plan are not refusals",
    ),
    (
        "endpoints/reply.rs",
        "a login that succeeds, a logout and a redirect are not refusals",
    ),
    ("upstream", "judges the statuses of upstreams"),
    ("token", "judges the statuses of key servers"),
    (
        "server/admin",
        "another socket, another contract: /livez, /readyz",
    ),
    (
        "server/connection.rs",
        "answers before there is an exchange",
    ),
    ("demo", "a provider and an upstream of its own"),
    ("cli", "speaks HTTP as a client"),
];

struct Source {
    /// Relative to `src`, with `/`.
    path: String,
    /// Without comment lines, so that prose may point upwards.
    code: String,
    /// Above the unit tests, and in all.
    lines: (usize, usize),
}

impl Source {
    /// The top-level module that the file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The code above the file's unit tests.
    fn shipped(&self) -> &str {
        above_tests(&self.code)
    }
}

fn above_tests(text: &str) -> &str {
    // `mod tests` may be visible to the tests of its siblings.
    let tests = ["#[cfg(test)]\nmod ", "#[cfg(test)]\npub(super) mod "];
    let end = tests.iter().filter_map(|start| text.find(start)).min();
    &text[..end.unwrap_or(text.len())]
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let path = path
                    .strip_prefix(&root)
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .replace('\\', "/");
                let code: Vec<&str> = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .collect();
                found.push(Source {
                    path,
                    code: code.join("\n"),
                    lines: (above_tests(&text).lines().count(), text.lines().count()),
                });
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

fn floors() -> Vec<String> {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let name = |line: &str| {
        let line = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    lib.lines().filter_map(name).collect()
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default()
}

/// The top-level modules that `code` names: `crate::x`, `crate::{x, y::z}`, `super::super::x` from a file in a folder.
fn mentions(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for marker in ["crate::", "super::super::"] {
        for (at, _) in code.match_indices(marker) {
            let rest = &code[at + marker.len()..];
            let Some(group) = rest.strip_prefix('{') else {
                found.push(word(rest));
                continue;
            };
            let (mut depth, mut start) = (1, true);
            for (at, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => start = true,
                    c if start && !c.is_whitespace() => {
                        found.push(word(&group[at..]));
                        start = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        }
    }
    found
}

/// Fails with every complaint at once.
fn none(complaints: impl Iterator<Item = String>) {
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn a_file_uses_only_what_is_declared_above_its_own_module() {
    let floors = floors();
    let mut broken = Vec::new();
    for source in sources() {
        if matches!(source.module(), "main" | "lib") {
            continue;
        }
        let Some(own) = floors.iter().position(|floor| floor == source.module()) else {
            broken.push(format!(
                "src/{}: its module is not declared in src/lib.rs",
                source.path
            ));
            continue;
        };
        for name in mentions(&source.code) {
            if floors
                .iter()
                .position(|floor| floor == name)
                .is_some_and(|floor| floor > own)
            {
                broken.push(format!(
                    "src/{} uses `{name}`, which stands above it",
                    source.path
                ));
            }
        }
    }
    none(broken.into_iter());
}

#[test]
fn only_authn_proves_a_caller() {
    let others = sources()
        .into_iter()
        .filter(|source| source.module() != "authn");
    let provers = others.filter(|source| source.shipped().contains("Caller::proven("));
    none(provers.map(|source| format!("src/{} proves a caller", source.path)));
}

#[test]
fn only_the_listed_files_name_a_status() {
    let listed = |path: &str| STATUS.iter().any(|(prefix, _why)| path.starts_with(prefix));
    let constant = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_uppercase()) || rest.starts_with("from_u16")
    };
    let others = sources().into_iter().filter(|source| !listed(&source.path));
    let naming =
        others.filter(|source| source.shipped().split("StatusCode::").skip(1).any(constant));
    none(naming.map(|source| format!("src/{} names a status", source.path)));
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    none(sources().into_iter().filter_map(|source| {
        let (shipped, all) = source.lines;
        let long = shipped > LINES_MAX || all > LINES_WITH_TESTS_MAX;
        long.then(|| format!("src/{}: {shipped} lines, {all} with its tests", source.path))
    }));
}

#[test]
fn mentions_are_found_in_every_spelling() {
    let code = "use crate::base::clock; use crate::{config::Config, limit::{local, shared},\n token}; super::super::authz::check()";
    let mut found = mentions(code);
    found.sort_unstable();
    assert_eq!(found, ["authz", "base", "config", "limit", "token"]);
}
