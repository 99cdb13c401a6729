//! `headers::path::canonical`: one form, that of no other path, and nothing in it that has two readings.
#![no_main]

use http::Uri;
use libfuzzer_sys::fuzz_target;
use std::borrow::Cow;
use tollhouse::config::route::AllowInPath;
use tollhouse::headers::path::{canonical, refuse};

fuzz_target!(|raw: &str| {
    let Ok(found) = canonical(raw) else { return };
    let path = &*found.path;
    assert!(path.starts_with('/') && !path.contains("//"), "{path}");
    assert!(path.bytes().all(|b| b.is_ascii_graphic()), "{path}");
    assert!(!path.contains(['\\', '?', '#']), "{path}");
    // What can come as a URI can go on as one.
    if raw.parse::<Uri>().is_ok_and(|uri| uri.path() == raw) {
        assert_eq!(path.parse::<Uri>().unwrap().path(), path);
    }

    let escapes: Vec<&str> = path.split('%').skip(1).collect();
    for rest in escapes {
        let byte = u8::from_str_radix(&rest[..2], 16).unwrap();
        assert!(
            rest[..2]
                .bytes()
                .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
        );
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!(
            !unreserved && !byte.is_ascii_control() && byte != b'\\',
            "{path}"
        );
    }

    assert_eq!(matches!(found.path, Cow::Borrowed(_)), path == raw);
    let again = canonical(path).expect("the canonical form is canonical");
    assert_eq!(again, found);

    // It means what came: only slashes that stand for themselves have merged.
    let mut merged = raw.to_owned();
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    assert_eq!(decode(path.as_bytes()), decode(merged.as_bytes()));

    // However often an upstream decodes, whatever it takes for a slash and wherever it cuts, no segment climbs.
    let mut text = path.as_bytes().to_vec();
    for _ in 0..6 {
        for segment in text.split(|b| matches!(b, b'/' | b'\\')) {
            let name = segment.split(|b| *b == b';').next().unwrap();
            assert!(name != b"." && name != b"..", "{path}");
        }
        text = decode(&text);
    }

    let has = found.has;
    assert!(!has.case);
    assert_eq!(has.encoded_slash, path.contains("%2F"));
    assert_eq!(has.params, path.contains(';') || path.contains("%3B"));
    let nothing = AllowInPath::default();
    assert_eq!(refuse(has, nothing).is_ok(), has == nothing);
    assert!(refuse(has, has).is_ok());
});

/// Once; what is no escape stays.
fn decode(mut text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        let digits = rest
            .get(..2)
            .filter(|d| *first == b'%' && d.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        text = if byte.is_some() { &rest[2..] } else { rest };
    }
    out
}
