//! What answers carry for the browser's and the caches' sake: security headers where the upstream set none, who may
//! keep an answer that was made for one user (RFC 9111 §3.5, §5.2.2; contract, section 3.14), what our own always say.

use super::cookies::set_cookie_name;
use crate::config::server::SecurityHeaders;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, EXPIRES, Entry, PRAGMA, REFERRER_POLICY, SET_COOKIE,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Sets each header that the upstream did not set.
pub fn apply(headers: &mut HeaderMap, configured: &SecurityHeaders) {
    for (name, value) in configured {
        if let Entry::Vacant(entry) = headers.entry(name) {
            entry.insert(value.clone());
        }
    }
}

/// What our own answers always carry. Comes before [`apply`], which then adds the rest.
pub fn own(headers: &mut HeaderMap) {
    for (name, value) in [
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// For every answer that was made with an identity, unless its route is `cache = "public"`: only the user's own browser
/// may keep it, and only if the upstream said something about keeping it at all.
pub fn private_cache(headers: &mut HeaderMap, route_public: bool) {
    if route_public {
        return;
    }
    forget_shared_caches(headers);
    let mut any = false;
    let mut closed = false;
    let mut shared = false;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in directives(value.as_bytes()) {
            any = true;
            closed |= is(directive, b"private") && !directive.contains(&b'=');
            closed |= is(directive, b"no-store");
            shared |= is_shared(directive);
        }
    }
    if !any {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    } else if shared || !closed {
        let mut text = b"private".to_vec();
        for value in headers.get_all(CACHE_CONTROL) {
            for directive in directives(value.as_bytes()) {
                if !is_shared(directive) && !is(directive, b"private") {
                    text.extend_from_slice(b", ");
                    text.extend_from_slice(directive);
                }
            }
        }
        // Pieces of valid values are valid; were they not, nothing may keep the answer.
        let value =
            HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("private, no-store"));
        headers.insert(CACHE_CONTROL, value);
        if headers.contains_key(VARY) {
            vary(headers, "Cookie");
            vary(headers, "Authorization");
        } else {
            headers.insert(VARY, HeaderValue::from_static("Cookie, Authorization"));
        }
    }
}

/// For every answer that sets session cookies: nobody keeps it.
pub fn never_cache(headers: &mut HeaderMap) {
    forget_shared_caches(headers);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(EXPIRES, HeaderValue::from_static("0"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}

/// Adds a name to `Vary`, unless it or `*` is there.
pub fn vary(headers: &mut HeaderMap, name: &'static str) {
    let there = headers.get_all(VARY).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|member| {
            let member = member.trim_ascii();
            member == b"*" || member.eq_ignore_ascii_case(name.as_bytes())
        })
    });
    if !there {
        headers.append(VARY, HeaderValue::from_static(name));
    }
}

/// Removes the `Set-Cookie` fields whose cookie's name is one of `ours`. Others keep their order.
pub fn remove_set_cookies(headers: &mut HeaderMap, ours: impl Fn(&[u8]) -> bool) {
    let is_ours = |value: &HeaderValue| ours(set_cookie_name(value));
    if !headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return;
    }
    let kept: Vec<_> = headers
        .get_all(SET_COOKIE)
        .iter()
        .filter(|value| !is_ours(value))
        .cloned()
        .collect();
    headers.remove(SET_COOKIE);
    for value in kept {
        headers.append(SET_COOKIE, value);
    }
}

/// Some caches obey a field of their own before `Cache-Control` (RFC 9213 and its older kin).
fn forget_shared_caches(headers: &mut HeaderMap) {
    let theirs = |name: &&HeaderName| {
        let name = name.as_str();
        match name.as_bytes().first() {
            Some(b's') => name == "surrogate-control",
            Some(b'x') => name == "x-accel-expires",
            _ => name.ends_with("cdn-cache-control"),
        }
    };
    while let Some(name) = headers.keys().find(theirs).cloned() {
        headers.remove(name);
    }
}

fn is_shared(directive: &[u8]) -> bool {
    is(directive, b"public") || is(directive, b"s-maxage")
}

/// Whether a directive has this name, with or without an argument.
fn is(directive: &[u8], name: &[u8]) -> bool {
    let own = directive.split(|b| *b == b'=').next().unwrap_or_default();
    own.trim_ascii_end().eq_ignore_ascii_case(name)
}

/// The directives of a value: between commas outside quotes, not empty.
fn directives(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value
        .split(move |byte| {
            let end = *byte == b',' && !quoted;
            quoted ^= *byte == b'"' && !escaped;
            escaped = quoted && *byte == b'\\' && !escaped;
            end
        })
        .map(<[u8]>::trim_ascii)
        .filter(|directive| !directive.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn all(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
        let values = headers.get_all(name);
        values.iter().map(|v| v.to_str().unwrap()).collect()
    }

    #[test]
    fn an_upstreams_own_header_stays() {
        let configured = vec![
            (
                HeaderName::from_static("x-frame-options"),
                HeaderValue::from_static("DENY"),
            ),
            (REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        ];
        let mut headers = map(&[("x-frame-options", "SAMEORIGIN")]);
        apply(&mut headers, &configured);
        assert_eq!(
            all(&headers, HeaderName::from_static("x-frame-options")),
            ["SAMEORIGIN"]
        );
        assert_eq!(headers[REFERRER_POLICY], "same-origin");
    }

    #[test]
    fn our_own_answers_are_strict() {
        let mut headers = HeaderMap::new();
        own(&mut headers);
        apply(
            &mut headers,
            &vec![(REFERRER_POLICY, HeaderValue::from_static("unsafe-url"))],
        );
        assert_eq!(
            headers[CONTENT_SECURITY_POLICY],
            "default-src 'none'; frame-ancestors 'none'"
        );
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }

    #[test]
    fn an_answer_for_one_user_is_kept_by_nobody_else() {
        // What came, what goes, and whether `Vary` says why.
        for (came, goes, varies) in [
            (&[][..], "private, no-store", false),
            (&[""], "private, no-store", false),
            (&["private"], "private", false),
            (&["private, max-age=60"], "private, max-age=60", false),
            (&["No-Store"], "No-Store", false),
            (&["public"], "private", true),
            (&["PUBLIC, max-age=60"], "private, max-age=60", true),
            (&["s-maxage=60, max-age=5"], "private, max-age=5", true),
            (&["max-age=60"], "private, max-age=60", true),
            (&["no-cache"], "private, no-cache", true),
            (&["private, public"], "private", true),
            (&["no-store, public"], "private, no-store", true),
            (&["max-age=60", "public"], "private, max-age=60", true),
            (
                &["private=\"x-a, public\", max-age=1"],
                "private, max-age=1",
                true,
            ),
            (
                &["ext=\"a\\\", public\", immutable"],
                "private, ext=\"a\\\", public\", immutable",
                true,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in came {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(value));
            }
            private_cache(&mut headers, false);
            assert_eq!(all(&headers, CACHE_CONTROL), [goes], "{came:?}");
            let expected: &[&str] = if varies {
                &["Cookie, Authorization"]
            } else {
                &[]
            };
            assert_eq!(all(&headers, VARY), expected, "{came:?}");
        }
        let mut headers = map(&[("cache-control", "public"), ("vary", "Accept, cookie")]);
        private_cache(&mut headers, false);
        assert_eq!(all(&headers, VARY), ["Accept, cookie", "Authorization"]);
    }

    #[test]
    fn caches_with_a_field_of_their_own_are_told_nothing() {
        let mut headers = map(&[
            ("cdn-cache-control", "max-age=60"),
            ("cloudflare-cdn-cache-control", "max-age=60"),
            ("surrogate-control", "max-age=60"),
            ("x-accel-expires", "60"),
            ("cache-control", "private"),
        ]);
        private_cache(&mut headers, false);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn a_public_route_keeps_its_word() {
        let mut headers = map(&[("cache-control", "public, max-age=60")]);
        private_cache(&mut headers, true);
        assert_eq!(all(&headers, CACHE_CONTROL), ["public, max-age=60"]);
        assert!(!headers.contains_key(VARY));
    }

    #[test]
    fn an_answer_with_a_session_cookie_is_kept_by_nobody() {
        let mut headers = map(&[
            ("cache-control", "public"),
            ("expires", "tomorrow"),
            ("cdn-cache-control", "public"),
        ]);
        never_cache(&mut headers);
        assert_eq!(all(&headers, CACHE_CONTROL), ["private, no-store"]);
        assert_eq!(all(&headers, EXPIRES), ["0"]);
        assert_eq!(all(&headers, PRAGMA), ["no-cache"]);
        assert_eq!(headers.len(), 3);
    }

    #[test]
    fn vary_names_each_field_once() {
        let mut headers = map(&[("vary", "Accept, Cookie")]);
        vary(&mut headers, "cookie");
        vary(&mut headers, "Origin");
        vary(&mut headers, "origin");
        assert_eq!(all(&headers, VARY), ["Accept, Cookie", "Origin"]);
        let mut headers = map(&[("vary", "*")]);
        vary(&mut headers, "origin");
        assert_eq!(all(&headers, VARY), ["*"]);
    }

    #[test]
    fn only_cookies_of_ours_are_taken_out() {
        let mut headers = map(&[
            ("set-cookie", "a=1; Path=/"),
            ("set-cookie", "sid=1"),
            ("set-cookie", " sid =2; HttpOnly"),
            ("set-cookie", "=sid=3"),
            ("set-cookie", "sid"),
            ("set-cookie", "sidx=1"),
            ("set-cookie", "b=sid=1"),
        ]);
        remove_set_cookies(&mut headers, |name| name == b"sid");
        assert_eq!(
            all(&headers, SET_COOKIE),
            ["a=1; Path=/", "sidx=1", "b=sid=1"]
        );
    }
}
