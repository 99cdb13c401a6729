//! `config::load` in a world that has nothing: an answer for every text, the same each time, and problems that can be
//! shown at a place that exists.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::path::Path;
use tollhouse::config::diagnostic::{Severity, WARNINGS};
use tollhouse::config::interpolate::Environment;
use tollhouse::config::{Config, Options, Problems, load};

struct Nothing;

impl Environment for Nothing {
    fn var(&self, _: &str) -> Option<OsString> {
        None
    }
    fn file(&self, _: &Path, _: usize) -> Result<String, String> {
        Err("does not exist".into())
    }
}

fuzz_target!(|text: &str| {
    let strict = read(text, false);
    assert_eq!(
        read(text, false).map(drop),
        strict.as_ref().map(drop).map_err(Clone::clone)
    );
    let lenient = read(text, true);
    if let Ok(strict) = strict {
        let lenient = lenient.expect("placeholders refuse nothing");
        assert_eq!(lenient.routes.len(), strict.routes.len());
    }
});

fn read(text: &str, placeholders: bool) -> Result<Config, Problems> {
    let read = load(
        text,
        Path::new("fuzz.toml"),
        &Nothing,
        Options { placeholders },
    );
    let problems = match &read {
        Ok(config) => {
            assert_eq!(config.problems.errors(), 0);
            assert_eq!(config.warnings.len(), config.problems.list().len());
            assert!(config.files.is_empty(), "there was nothing to read");
            &config.problems
        }
        Err(problems) => {
            assert!(problems.errors() > 0);
            problems
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    for one in problems.list() {
        assert!(
            one.id.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
            "{}",
            one.id
        );
        assert!(
            one.severity == Severity::Error || WARNINGS.contains(&one.id),
            "{}",
            one.id
        );
        assert!(
            !one.message.is_empty() && !one.message.contains('\n'),
            "{:?}",
            one.message
        );
        assert_eq!(one.line == 0, one.column == 0);
        if one.line > 0 {
            let line = lines.get(one.line - 1).expect("the line exists");
            assert!(one.column <= line.chars().count() + 1, "{one}");
        }
        assert!(one.to_string().contains("fuzz.toml"));
    }
    assert_eq!(
        problems.to_json().as_array().map(Vec::len),
        Some(problems.list().len())
    );
    read
}
