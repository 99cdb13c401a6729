//! `headers::cookies` and `session::supabase`: what is taken out is out for every reader, what stays is what came, and
//! nobody behind us reads another session than we did. Each line is a Cookie field. The bytes are also an answer of the
//! provider: what is written of it is what is read.
#![no_main]

use http::HeaderMap;
use http::header::COOKIE;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollhouse::headers::cookies::{
    PAIRS_MAX, Rewritten, first_of_each, pairs, percent_decode, set_cookie_name, without,
};
use tollhouse::session::supabase::{
    Encoding, Form, SessionCookie, Style, SupabaseCookies, SupabaseWriter,
};

fuzz_target!(|data: &[u8]| {
    let headers = tollhouse_fuzz::fields(&COOKIE, data);
    let session = SupabaseCookies::new("sb-p-auth-token");
    let came: Vec<(&[u8], &[u8])> = pairs(&headers).collect();
    assert!(came.len() <= PAIRS_MAX);
    for (name, value) in &came {
        assert!(!name.is_empty() && !name.contains(&b'='));
        for text in [name, value] {
            assert!(!text.contains(&b';'));
            let edges = [text.first(), text.last()];
            assert!(
                !edges
                    .iter()
                    .flatten()
                    .any(|edge| matches!(edge, b' ' | b'\t'))
            );
        }
        let decoded = percent_decode(value);
        assert!(decoded.len() <= value.len());
        assert!(value.contains(&b'%') || *decoded == **value);
    }
    for field in headers.get_all(COOKIE) {
        assert!(
            !set_cookie_name(field)
                .iter()
                .any(|b| matches!(b, b';' | b'='))
        );
    }

    let owned = |name: &[u8]| session.owns(name) || session.owns(&percent_decode(name));
    let stripped = rewritten(&headers, without(&headers, |name| !session.owns(name)));
    assert!(session.raw(&stripped).is_none());
    assert!(!all(&stripped).iter().any(|(name, _)| owned(name)));
    assert_eq!(
        without(&stripped, |name| !session.owns(name)),
        Rewritten::Unchanged
    );
    let strange =
        |(name, _): &(&[u8], &[u8])| owned(name) || name.iter().any(|b| !b.is_ascii_graphic());
    let plain = |headers| {
        all(headers)
            .into_iter()
            .filter(|pair| !strange(pair))
            .collect::<Vec<_>>()
    };
    assert_eq!(plain(&headers), plain(&stripped), "others stay, in order");

    let single = rewritten(&headers, first_of_each(&headers, |name| session.owns(name)));
    let mut seen = std::collections::HashSet::new();
    for (name, value) in all(&single) {
        if owned(name) {
            assert!(seen.insert(name), "twice");
            let first = came.iter().find(|(other, _)| *other == name);
            assert_eq!(first, Some(&(name, value)), "not the one that we read");
        }
    }

    let raw = session.raw(&headers);
    let key = |headers| {
        let raw = session.raw(headers)?;
        let mut key = Vec::new();
        raw.append_key(&mut key);
        Some(key)
    };
    assert_eq!(key(&headers), key(&single));
    match session.read(&headers) {
        Ok(None) => assert!(raw.is_none()),
        Err(_) => assert!(raw.is_some()),
        Ok(Some(read)) => {
            assert!(raw.is_some());
            let access = read.access_token.expose();
            assert!(!access.is_empty());
            assert!(
                read.refresh_token
                    .is_none_or(|token| !token.expose().is_empty())
            );
            // Where both read it, we read what serde reads.
            let text: Option<Value> = serde_json::from_str(read.text.expose()).ok();
            match (read.form, text) {
                (Form::Object, Some(text)) => {
                    assert_eq!(text["access_token"], **access);
                    assert_eq!(text.get("user").is_some(), read.had_user);
                    assert_eq!(text["user"]["id"].as_str(), read.user_id.as_deref());
                }
                (Form::Array, Some(text)) => assert_eq!(text[0], **access),
                (Form::TwoCookies, _) => assert!(read.text.expose().is_empty()),
                _ => {}
            }
        }
    }
    if let Ok(response) = std::str::from_utf8(data) {
        written(&HeaderMap::new(), response);
        written(&headers, response);
    }
});

/// A session in the place of whatever the browser had.
fn written(headers: &HeaderMap, response: &str) {
    for encoding in [Encoding::Base64Url, Encoding::Raw] {
        let style = Style {
            encoding,
            ..Style::default()
        };
        let Ok(session) = SessionCookie::from_response(response, style, 1_790_000_000_000) else {
            return;
        };
        let attributes = SupabaseWriter::library_attributes();
        let writer = SupabaseWriter::new("sb-p-auth-token", attributes).unwrap();
        let Ok(fields) = writer.write(headers, &session) else {
            continue;
        };
        let mut after = HeaderMap::new();
        for field in fields {
            let (pair, attributes) = field.to_str().unwrap().split_once("; ").unwrap();
            if !attributes.starts_with("Max-Age=0;") {
                after.append(COOKIE, pair.parse().unwrap());
            }
        }
        if headers.is_empty() {
            let read = SupabaseCookies::new("sb-p-auth-token").read(&after);
            let read = read.unwrap().unwrap();
            assert_eq!(read.text, session.text);
            assert_eq!(read.style(), session.style());
        }
    }
}

/// The request as it goes on.
fn rewritten(headers: &HeaderMap, to: Rewritten) -> HeaderMap {
    let mut headers = headers.clone();
    match to {
        Rewritten::Unchanged => {}
        Rewritten::Removed => drop(headers.remove(COOKIE)),
        Rewritten::Replaced(value) => drop(headers.insert(COOKIE, value)),
    }
    headers
}

/// All pairs, as a reader without a bound sees them.
fn all(headers: &HeaderMap) -> Vec<(&[u8], &[u8])> {
    let fields = headers.get_all(COOKIE).into_iter();
    let parts = fields.flat_map(|field| field.as_bytes().split(|b| *b == b';'));
    let pair = |part: &[u8]| part.iter().position(|b| *b == b'=');
    let halves = parts.filter_map(|part| pair(part).map(|at| (&part[..at], &part[at + 1..])));
    halves
        .map(|(name, value)| (name.trim_ascii(), value.trim_ascii()))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}
