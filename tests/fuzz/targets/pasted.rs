//! `cli::token`: whatever somebody pastes is read or refused. What is read can stand in a request, and read again from there
//! it is the same.
#![no_main]

use http::header::{AUTHORIZATION, COOKIE};
use libfuzzer_sys::fuzz_target;
use tollhouse::cli::token::input::{INPUT_BYTES_MAX, read};
use tollhouse::cli::token::shell::{Shell, words};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        for shell in [Shell::Posix, Shell::Cmd] {
            if let Ok(words) = words(text, shell) {
                let bytes: usize = words.iter().map(|word| word.bytes.len()).sum();
                assert!(bytes <= 4 * text.len());
            }
        }
    }
    let Ok(given) = read(data) else {
        return;
    };
    assert!(data.len() <= INPUT_BYTES_MAX);
    let mut text = String::new();
    for (name, value) in &given.fields {
        assert!([AUTHORIZATION.as_str(), COOKIE.as_str(), "sec-fetch-site"].contains(&name.as_str()));
        assert!(value.is_sensitive());
        let Ok(value) = value.to_str() else {
            return;
        };
        text.push_str(&format!("{name}: {value}\n"));
    }
    if !text.is_empty() {
        let again = read(text.as_bytes()).unwrap();
        assert_eq!(again.fields, given.fields);
    }
});
