//! Cookie fields: read in place, and rewritten without the cookies that must not travel on.
//! Never interprets a value and never writes a Set-Cookie. Splitting follows RFC 6265 §5.4 as the `cookie` package of
//! npm reads it, so that the gateway and the application behind it see the same cookies.

use http::header::{COOKIE, GetAll, HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::collections::HashSet;

/// Cookies looked at in one request; what stands behind them is not read. Browsers keep about 180 for a site.
pub const PAIRS_MAX: usize = 512;

/// Longest cookie name that is compared in its percent-decoded form as well.
const ENCODED_NAME_BYTES_MAX: usize = 1024;

/// The cookies of a request in the order in which they stand, over all Cookie fields (RFC 9113 §8.2.3 lets HTTP/2
/// clients send one field for each). Parts without `=` and cookies without a name are left out. Values are as sent:
/// not decoded, quotes kept. A name may come more than once; the first one counts.
pub fn pairs(headers: &HeaderMap) -> Pairs<'_> {
    Pairs {
        parts: Parts::new(headers),
        left: PAIRS_MAX,
    }
}

/// The Cookie field, when there is just one. Several are rare over HTTP/1.1.
pub fn only_field(headers: &HeaderMap) -> Option<&[u8]> {
    let mut fields = headers.get_all(COOKIE).iter();
    match (fields.next(), fields.next()) {
        (Some(field), None) => Some(field.as_bytes()),
        _ => None,
    }
}

/// What [`pairs`] yields: name and value, without the spaces and tabs around them.
#[derive(Debug)]
pub struct Pairs<'a> {
    parts: Parts<'a>,
    left: usize,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let part = self.parts.next()?;
            if let Some((name, value)) = split(part).filter(|(name, _)| !name.is_empty()) {
                self.left -= 1;
                return Some((name, value));
            }
        }
        None
    }
}

/// What became of the Cookie fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// Send them on as they came.
    Unchanged,
    /// Nothing is left: send no Cookie field.
    Removed,
    /// Send this one field in their place.
    Replaced(HeaderValue),
}

/// The Cookie fields without every cookie whose name `keep` refuses, duplicates included. All others stay byte for byte
/// and in order. Several fields become one, as HTTP/1.1 demands. There is no bound on the count here: what [`pairs`]
/// no longer reads must still not pass.
///
/// Servers disagree about names, and a refused cookie must not pass because of it. So a part without `=` is judged by
/// its whole text, and a name with escapes also by what it decodes to.
pub fn without(headers: &HeaderMap, keep: impl Fn(&[u8]) -> bool) -> Rewritten {
    let passes = |part: &[u8]| {
        let name = trim_wide(split(part).map_or(part, |(name, _)| name));
        keep(name)
            && (!name.contains(&b'%')
                || (name.len() <= ENCODED_NAME_BYTES_MAX && keep(trim_wide(&percent_decode(name)))))
    };
    let single = headers.get_all(COOKIE).iter().nth(1).is_none();
    if single && Parts::new(headers).all(passes) {
        return Rewritten::Unchanged;
    }
    rewritten(headers, passes)
}

/// The Cookie fields with each cookie whose name `own` accepts only once: the first, the one that [`pairs`] readers take.
/// Servers disagree about which of two counts, and none may read another than we did. All others stay byte for byte.
pub fn first_of_each(headers: &HeaderMap, own: impl Fn(&[u8]) -> bool) -> Rewritten {
    let mut seen = HashSet::new();
    let mut left = PAIRS_MAX;
    rewritten(headers, |part| {
        let pair = split(part).filter(|(name, _)| !name.is_empty());
        let read = pair.is_some() && left > 0;
        left -= usize::from(read);
        let name = pair.map_or(part, |(name, _)| name);
        let wide = trim_wide(name);
        let decoded = percent_decode(wide);
        if own(name) {
            // A part without `=` is a cookie to some servers only, and behind the bound nothing was read: never ours.
            read && seen.insert(name)
        } else {
            !own(wide) && !own(trim_wide(&decoded))
        }
    })
}

/// One field of the parts that pass.
fn rewritten<'h>(headers: &'h HeaderMap, mut passes: impl FnMut(&'h [u8]) -> bool) -> Rewritten {
    let fields = headers.get_all(COOKIE);
    let Some(first) = fields.iter().next() else {
        return Rewritten::Unchanged;
    };
    let mut kept = Vec::with_capacity(fields.iter().map(|field| field.len() + 2).sum());
    for part in Parts::new(headers).filter(|part| passes(part)) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        kept.extend_from_slice(part);
    }
    if kept.is_empty() {
        return Rewritten::Removed;
    }
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(kept)) {
        Ok(mut value) => {
            value.set_sensitive(first.is_sensitive());
            Rewritten::Replaced(value)
        }
        // Cannot happen with bytes of valid fields; if it did, no cookie is the safe answer.
        Err(_) => Rewritten::Removed,
    }
}

/// The name under which a browser will send back what this Set-Cookie sets. A cookie without a name comes back as its
/// bare value, so `=name=x` is `name` here, and so is `name` alone.
pub fn set_cookie_name(field: &HeaderValue) -> &[u8] {
    let bytes = field.as_bytes();
    let pair = bytes.split(|&byte| byte == b';').next().unwrap_or_default();
    let mut pair = trim_wide(pair);
    while let Some(rest) = pair.strip_prefix(b"=") {
        pair = trim_wide(rest);
    }
    trim_wide(pair.split(|&byte| byte == b'=').next().unwrap_or_default())
}

/// Percent-decodes a value as JavaScript's `decodeURIComponent` does: as a whole, `+` is no space, and a value with an
/// invalid escape, or with escapes that are not UTF-8, stays as it is. Borrows when there is nothing to decode.
pub fn percent_decode(value: &[u8]) -> Cow<'_, [u8]> {
    if !value.contains(&b'%') {
        return Cow::Borrowed(value);
    }
    try_percent_decode(value).map_or(Cow::Borrowed(value), Cow::Owned)
}

fn try_percent_decode(value: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        decoded.extend_from_slice(rest.get(..at)?);
        rest = rest.get(at..)?;
        let run = decoded.len();
        while let [b'%', high, low, tail @ ..] = rest {
            decoded.push(hex(*high)? << 4 | hex(*low)?);
            rest = tail;
        }
        // A character is escaped in all its bytes or in none, so each run of escapes is UTF-8 by itself.
        std::str::from_utf8(decoded.get(run..)?).ok()?;
        if rest.first() == Some(&b'%') {
            return None;
        }
    }
    decoded.extend_from_slice(rest);
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// What stands between the semicolons of all Cookie fields, trimmed, empty parts left out.
#[derive(Debug)]
struct Parts<'a> {
    fields: http::header::ValueIter<'a, HeaderValue>,
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn new(headers: &'a HeaderMap) -> Self {
        let fields: GetAll<'a, HeaderValue> = headers.get_all(COOKIE);
        Self {
            fields: fields.iter(),
            rest: &[],
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            while self.rest.is_empty() {
                self.rest = self.fields.next()?.as_bytes();
            }
            let (part, rest) = cut(self.rest, b';');
            self.rest = rest.unwrap_or_default();
            let part = trim(part);
            if !part.is_empty() {
                return Some(part);
            }
        }
    }
}

/// Name and value of a part; `None` without `=`.
fn split(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, value) = cut(part, b'=');
    value.map(|value| (trim(name), trim(value)))
}

/// What stands before and after the first `separator`.
fn cut(bytes: &[u8], separator: u8) -> (&[u8], Option<&[u8]>) {
    // Many bytes at a time: a session cookie has thousands.
    match memchr::memchr(separator, bytes) {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

fn trim(bytes: &[u8]) -> &[u8] {
    trim_if(bytes, |byte| matches!(byte, b' ' | b'\t'))
}

/// Also what servers that read header fields as Latin-1 take for white space (U+0085, U+00A0).
fn trim_wide(bytes: &[u8]) -> &[u8] {
    trim_if(bytes, |byte| matches!(byte, b' ' | b'\t' | 0x85 | 0xA0))
}

fn trim_if(mut bytes: &[u8], space: impl Fn(u8) -> bool) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && space(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && space(*last)
    {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(fields: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(COOKIE, HeaderValue::from_bytes(field).unwrap());
        }
        headers
    }

    fn read(fields: &[&str]) -> Vec<(String, String)> {
        let fields: Vec<&[u8]> = fields.iter().map(|field| field.as_bytes()).collect();
        pairs(&headers(&fields))
            .map(|(name, value)| {
                (
                    String::from_utf8_lossy(name).into(),
                    String::from_utf8_lossy(value).into(),
                )
            })
            .collect()
    }

    #[test]
    fn a_cookie_field_is_split_as_the_client_library_splits_it() {
        let check = |fields: &[&str], expected: &[(&str, &str)]| {
            let expected: Vec<(String, String)> = expected
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect();
            assert_eq!(read(fields), expected, "{fields:?}");
        };
        check(&[], &[]);
        check(&[""], &[]);
        check(&["a=1; b=2"], &[("a", "1"), ("b", "2")]);
        check(
            &["a=1;b=2;;\t; c\t= 3 \t;"],
            &[("a", "1"), ("b", "2"), ("c", "3")],
        );
        check(&["flag; a=1; =nameless; b="], &[("a", "1"), ("b", "")]);
        check(&["a=b=c; a=\"q\""], &[("a", "b=c"), ("a", "\"q\"")]);
        check(
            &["a=1", "", "b=2", "c=3;"],
            &[("a", "1"), ("b", "2"), ("c", "3")],
        );
        check(&["a%3D=1"], &[("a%3D", "1")]);
    }

    #[test]
    fn no_more_than_the_bound_is_read() {
        let long = "a=1;".repeat(PAIRS_MAX) + "b=2";
        assert_eq!(read(&[&long]).len(), PAIRS_MAX);
        assert!(read(&[&long]).iter().all(|(name, _)| name == "a"));
        let nameless = ";x;=y".repeat(2000) + ";b=2";
        assert_eq!(read(&[&nameless]), [("b".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn removal_takes_every_duplicate_and_leaves_the_rest_byte_for_byte() {
        let check = |fields: &[&[u8]], expected: Option<&[u8]>| {
            let keep = |name: &[u8]| name != b"s" && name != b"t";
            let expected = match expected {
                None => Rewritten::Unchanged,
                Some(b"") => Rewritten::Removed,
                Some(value) => Rewritten::Replaced(HeaderValue::from_bytes(value).unwrap()),
            };
            assert_eq!(without(&headers(fields), keep), expected, "{fields:?}");
        };
        check(&[], None);
        check(&[b"a=1;  b = \"2\" ;;flag; =x"], None);
        check(&[b"S=1; ss=2; a=s; b=s=1"], None);
        check(&[b"s=1"], Some(b""));
        check(&[b"s=1; a=1; t=2; s=3;b=2"], Some(b"a=1; b=2"));
        check(&[b" a = \"x y\" ;s=1; flag"], Some(b"a = \"x y\"; flag"));
        check(&[b"s; a=1"], Some(b"a=1"));
        check(&[b"%73=1; \xA0s=1; t\x85=1; \xE9=\xFF"], Some(b"\xE9=\xFF"));
        check(&[b"a=1", b"b=2"], Some(b"a=1; b=2"));
        check(&[b"a=1", b"s=2"], Some(b"a=1"));
        check(&[b"s=1", b"s=2"], Some(b""));
        let beyond = [b"a=1;".repeat(PAIRS_MAX), b"s=2".to_vec()].concat();
        let Rewritten::Replaced(value) = without(&headers(&[&beyond]), |name| name != b"s") else {
            panic!("a cookie beyond the bound passed");
        };
        assert!(!value.as_bytes().contains(&b's'));
    }

    #[test]
    fn of_own_cookies_only_the_first_of_each_name_stays() {
        let check = |fields: &[&[u8]], expected: &[u8]| {
            let own = |name: &[u8]| name == b"s" || name == b"t";
            let value = HeaderValue::from_bytes(expected).unwrap();
            let expected = Rewritten::Replaced(value);
            assert_eq!(first_of_each(&headers(fields), own), expected, "{fields:?}");
        };
        check(&[b"a=1; s=1; a=2; t=1; s=2; t=2"], b"a=1; s=1; a=2; t=1");
        check(&[b"s=; a=1", b"s=2"], b"s=; a=1");
        check(&[b"s; s=1; %73=2; \xA0s=3; s = 4"], b"s=1");
        // Behind the bound stand cookies that we never read.
        let filler = b"a=1;".repeat(PAIRS_MAX - 1);
        let beyond = [&filler[..], b"s=1; t=2; a=3; s=4"].concat();
        check(
            &[&beyond],
            &[&b"a=1; ".repeat(PAIRS_MAX - 1)[..], b"s=1; a=3"].concat(),
        );
        assert_eq!(first_of_each(&headers(&[]), |_| true), Rewritten::Unchanged);
        assert_eq!(
            first_of_each(&headers(&[b"s"]), |_| true),
            Rewritten::Removed
        );
    }

    #[test]
    fn a_replaced_field_is_as_sensitive_as_the_one_that_came() {
        let mut headers = headers(&[b"s=1; a=1"]);
        headers.get_mut(COOKIE).unwrap().set_sensitive(true);
        let Rewritten::Replaced(value) = without(&headers, |name| name != b"s") else {
            panic!("unchanged")
        };
        assert!(value.is_sensitive());
    }

    #[test]
    fn values_decode_as_a_whole_or_not_at_all() {
        let check = |value: &[u8], expected: &[u8]| {
            assert_eq!(
                percent_decode(value).as_ref(),
                expected,
                "{}",
                value.escape_ascii()
            );
        };
        check(b"", b"");
        check(b"a+b", b"a+b");
        check(b"%7B%22a%22%3a1%7d", b"{\"a\":1}");
        check(b"%C3%A9%e2%82%ac%F0%9F%98%80!", "é€😀!".as_bytes());
        check(b"%00", b"\0");
        check(b"%2541", b"%41");
        for raw in [
            &b"%41%"[..],
            b"%41%4",
            b"%41%GG",
            b"%",
            b"%41 %FF",
            b"%C3",
            b"%C3\xA9",
            b"%ED%A0%80",
            b"%C0%80",
        ] {
            check(raw, raw);
        }
        check(b"\xE9%41", b"\xE9A");
    }

    #[test]
    fn a_set_cookie_is_known_by_the_name_that_will_come_back() {
        let check = |field: &'static str, expected: &str| {
            assert_eq!(
                set_cookie_name(&HeaderValue::from_static(field)),
                expected.as_bytes(),
                "{field}"
            );
        };
        check("a=1; Path=/", "a");
        check(" a\t= 1", "a");
        check("a", "a");
        check("=a=1", "a");
        check("= = a=1; b=2", "a");
        check("", "");
        check("; Path=/", "");
    }

    proptest! {
        #[test]
        fn any_field_is_read_and_rewritten_without_panic(
            fields in prop::collection::vec(prop::collection::vec(
                prop_oneof![4 => prop::sample::select(b"ab=;% \t\"s73".to_vec()), 1 => 0x80u8..=0xFF, 1 => 0x20u8..0x7F], 0..40), 0..4),
        ) {
            let fields: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            let before = headers(&fields);
            let keep = |name: &[u8]| name != b"s";
            let mut after = before.clone();
            match without(&before, keep) {
                Rewritten::Unchanged => {}
                Rewritten::Removed => { after.remove(COOKIE); }
                Rewritten::Replaced(value) => { after.insert(COOKIE, value); }
            }
            let kept: Vec<_> = pairs(&before).filter(|(name, _)| {
                let name = trim_wide(name);
                keep(name) && keep(trim_wide(&percent_decode(name)))
            }).collect();
            prop_assert_eq!(pairs(&after).collect::<Vec<_>>(), kept);
            prop_assert_eq!(without(&after, keep), Rewritten::Unchanged);
        }

        #[test]
        fn what_is_encoded_decodes_to_what_it_was(text in any::<String>()) {
            let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let decoded = percent_decode(encoded.as_bytes());
            prop_assert_eq!(decoded.as_ref(), text.as_bytes());
        }
    }
}
