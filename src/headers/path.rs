//! The one canonical path (contract, section 3.4): what is matched, authorised, limited, logged and forwarded.
//! Never sees the query; nothing is decoded after this. RFC 3986 §6.2.2, with everything refused that has two readings.

use crate::config::route::AllowInPath;
use crate::exchange::{Code, Reject};
use std::borrow::Cow;

/// How often a path may be encoded beyond once, where a route allows that at all.
const ROUNDS_MAX: usize = 3;

/// A path with one reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    /// Starts with `/`, no `//`, no dot segments, unreserved characters plain, other escapes in upper case, ASCII only.
    /// Borrowed when it came like this.
    pub path: Cow<'a, str>,
    /// What it holds that is refused unless the route found allows it ([`refuse`]). `case` is never set here.
    pub has: AllowInPath,
}

/// Why a path is refused on every route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It does not start with `/`.
    #[error("the path must start with `/`")]
    NotAbsolute,
    /// `%` without two hex digits.
    #[error("the path holds `%` without two hex digits; write `%25` for a percent sign")]
    BadEscape,
    /// `?` or `#`, which end a path.
    #[error("the path holds a character that ends paths")]
    Delimiter,
    /// A control character or white space, plain or encoded.
    #[error("the path holds a control character")]
    Control,
    /// What the escapes stand for is not UTF-8.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// `\`, plain or encoded.
    #[error("the path holds a backslash")]
    Backslash,
    /// `.` or `..` as a segment, in any spelling.
    #[error("the path holds a dot segment; resolve `.` and `..` before sending")]
    DotSegment,
    /// Encoded again and again.
    #[error("the path is encoded too many times")]
    Nested,
}

impl From<Problem> for Reject {
    fn from(problem: Problem) -> Self {
        Self::new(Code::BadRequest, format!("This is refused: {problem}."))
    }
}

/// The canonical form of a path as it came, without its query. One scan and no allocation when it came canonical.
pub fn canonical(raw: &str) -> Result<Canonical<'_>, Problem> {
    if !raw.starts_with('/') {
        return Err(Problem::NotAbsolute);
    }
    if is_canonical(raw.as_bytes())? {
        return Ok(Canonical {
            path: Cow::Borrowed(raw),
            has: AllowInPath::default(),
        });
    }
    let (path, has) = rewrite(raw.as_bytes())?;
    let path = if path == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(path)
    };
    Ok(Canonical { path, has })
}

/// Refuses what a path holds beyond what its route allows.
pub fn refuse(has: AllowInPath, allowed: AllowInPath) -> Result<(), Reject> {
    let detail = if has.encoded_slash && !allowed.encoded_slash {
        "The path holds an encoded slash (`%2F`), which this address does not accept."
    } else if has.double_encoding && !allowed.double_encoding {
        "The path is encoded twice (`%25` and two hex digits), which this address does not accept."
    } else if has.params && !allowed.params {
        "The path holds a semicolon, which this address does not accept."
    } else {
        return Ok(());
    };
    Err(Reject::new(Code::BadRequest, detail))
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Bytes that stand for themselves wherever they are: no slash, no escape, nothing that is refused or encoded.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        table[byte as usize] = !matches!(byte, b'/' | b'%' | b';' | b'\\' | b'?' | b'#');
        byte += 1;
    }
    table
};

/// Whether nothing needs a closer look. Says no too often rather than too seldom.
fn is_canonical(bytes: &[u8]) -> Result<bool, Problem> {
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        if PLAIN[usize::from(byte)] {
            continue;
        }
        match (byte, bytes.get(at)) {
            (b'/', Some(b'/')) => return Ok(false),
            (b'/', Some(b'.')) => {
                if let [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..] =
                    &bytes[at..]
                {
                    return Err(Problem::DotSegment);
                }
            }
            (b'/', _) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

fn rewrite(bytes: &[u8]) -> Result<(String, AllowInPath), Problem> {
    let mut has = AllowInPath::default();
    let mut out = String::with_capacity(bytes.len() + 16);
    // What an upstream reads that decodes once. Slashes merge here as they do in the output.
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => {
                let byte = escape(bytes, at - 1).ok_or(Problem::BadEscape)?;
                at += 2;
                match byte {
                    b'/' => has.encoded_slash = true,
                    b';' => has.params = true,
                    b'\\' => return Err(Problem::Backslash),
                    _ => {}
                }
                decoded.push(byte);
                if is_unreserved(byte) {
                    out.push(char::from(byte));
                } else {
                    push_escape(&mut out, byte);
                }
                continue;
            }
            b'/' if out.ends_with('/') => continue,
            b';' => has.params = true,
            b'\\' => return Err(Problem::Backslash),
            b'?' | b'#' => return Err(Problem::Delimiter),
            0..=b' ' | 0x7f => return Err(Problem::Control),
            _ => {}
        }
        decoded.push(byte);
        if byte.is_ascii() {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    let text = std::str::from_utf8(&decoded).map_err(|_| Problem::NotUtf8)?;
    if text.chars().any(char::is_control) {
        return Err(Problem::Control);
    }
    has.double_encoding = has_escape(&decoded);
    no_dot_segments(decoded)?;
    Ok((out, has))
}

/// No segment may be `.` or `..` for an upstream that decodes once more, takes `%2F` for a slash or cuts at `;`.
fn no_dot_segments(mut text: Vec<u8>) -> Result<(), Problem> {
    for _ in 0..=ROUNDS_MAX {
        let dots = |segment: &[u8]| {
            let name = segment.split(|b| *b == b';').next().unwrap_or_default();
            matches!(name, b"." | b"..")
        };
        if text.split(|b| matches!(b, b'/' | b'\\')).any(dots) {
            return Err(Problem::DotSegment);
        }
        if !has_escape(&text) {
            return Ok(());
        }
        let mut next = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            match escape(&text, at) {
                Some(decoded) => {
                    next.push(decoded);
                    at += 3;
                }
                None => {
                    next.push(byte);
                    at += 1;
                }
            }
        }
        text = next;
    }
    Err(Problem::Nested)
}

/// The byte that `%XX` at this place stands for.
fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    match bytes.get(at..at + 3)? {
        [b'%', high, low] => u8::try_from(digit(*high)? << 4 | digit(*low)?).ok(),
        _ => None,
    }
}

fn has_escape(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| bytes[at] == b'%' && escape(bytes, at).is_some())
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOTHING: AllowInPath = AllowInPath {
        encoded_slash: false,
        double_encoding: false,
        params: false,
        case: false,
    };

    fn check(raw: &str, expected: &str, has: AllowInPath) {
        let found = canonical(raw).unwrap_or_else(|problem| panic!("{raw}: {problem}"));
        assert_eq!(found.path, expected, "{raw}");
        assert_eq!(found.has, has, "{raw}");
        let borrowed = matches!(found.path, Cow::Borrowed(_));
        assert_eq!(borrowed, raw == expected, "{raw}");
    }

    #[test]
    fn one_form_for_every_way_to_write_a_path() {
        for (raw, expected) in [
            ("/", "/"),
            ("/api/users", "/api/users"),
            ("/api/", "/api/"),
            ("/a.b/..c/.well-known/...", "/a.b/..c/.well-known/..."),
            ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
            ("/%61%2D%2e%5F%7Eb", "/a-._~b"),
            ("/%41pi", "/Api"),
            ("//a///b//", "/a/b/"),
            ("//evil.test/x", "/evil.test/x"),
            ("/%c3%a9", "/%C3%A9"),
            ("/é", "/%C3%A9"),
            ("/a%20b%3ac", "/a%20b%3Ac"),
            ("/100%25", "/100%25"),
            ("/%25zz", "/%25zz"),
            ("/%3F%23", "/%3F%23"),
        ] {
            check(raw, expected, NOTHING);
        }
    }

    #[test]
    fn what_a_route_may_allow_is_named() {
        let slash = AllowInPath {
            encoded_slash: true,
            ..NOTHING
        };
        let double = AllowInPath {
            double_encoding: true,
            ..NOTHING
        };
        let params = AllowInPath {
            params: true,
            ..NOTHING
        };
        check("/a%2fb", "/a%2Fb", slash);
        check("/%2F/", "/%2F/", slash);
        check("/%2541", "/%2541", double);
        check("/%25%34%31", "/%2541", double);
        check("/%252f", "/%252f", double);
        check("/a;b=c", "/a;b=c", params);
        check("/a%3bb", "/a%3Bb", params);
        for has in [slash, double, params] {
            assert_eq!(refuse(has, NOTHING).unwrap_err().code(), Code::BadRequest);
            assert!(refuse(has, has).is_ok());
        }
        assert!(refuse(slash, params).is_err());
        assert!(refuse(NOTHING, NOTHING).is_ok());
    }

    #[test]
    fn what_has_two_readings_is_refused_everywhere() {
        use Problem::*;
        for (raw, problem) in [
            ("", NotAbsolute),
            ("a", NotAbsolute),
            ("*", NotAbsolute),
            ("%2Fa", NotAbsolute),
            ("/%", BadEscape),
            ("/%2", BadEscape),
            ("/%zz", BadEscape),
            ("/%2%35", BadEscape),
            ("/%u002e", BadEscape),
            ("/a?b", Delimiter),
            ("/a;#b", Delimiter),
            ("/a b", Control),
            ("/a\0", Control),
            ("/a\u{7f}", Control),
            ("/%00", Control),
            ("/%0d%0a", Control),
            ("/%7F", Control),
            ("/%C2%85", Control),
            ("/%ff", NotUtf8),
            ("/%C3", NotUtf8),
            ("/%C3é", NotUtf8),
            // Overlong forms of `/` and `.`, and a surrogate.
            ("/%c0%af", NotUtf8),
            ("/%c0%ae%c0%ae/", NotUtf8),
            ("/%ed%a0%80", NotUtf8),
            ("/a\\b", Backslash),
            ("/a%5cb", Backslash),
            ("/a%5C..", Backslash),
        ] {
            assert_eq!(canonical(raw), Err(problem), "{raw}");
        }
    }

    #[test]
    fn dot_segments_are_refused_in_any_spelling() {
        let spellings = "/. /.. /./ /../ /a/. /a/.. /a/./b /a/../b //.. /..// /%2e /%2E%2e /.%2e/a /a/%2e./b \
            /..; /..;/a /..;x=y/a /.;a /%2e%2e;/ /..%3B/a /..%3b /a%2F.. /a%2f..%2fb /..%2Fa \
            /%2e%2e%2fa /%252e%252e/a /%252e /.%252e /%25%32%65%2e /a%252F.. /a%255C.. \
            /%25252e%25252e /..%253Bx";
        for raw in spellings.split(' ') {
            assert_eq!(canonical(raw), Err(Problem::DotSegment), "{raw}");
        }
        assert_eq!(canonical("/%252525252541"), Err(Problem::Nested));
    }

    /// Paths made of the pieces that matter.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(
            "/ // . .. % %2 %25 %2e %2E %2f %5c %00 %41 %7e %c3 %a9 %c0 ; %3b \\ a A é 2e 41 ? - ~"
                .split(' ')
                .chain([" "])
                .collect::<Vec<_>>(),
        );
        prop_oneof![
            prop::collection::vec(piece, 0..12).prop_map(|v| format!("/{}", v.concat())),
            "\\PC{0,40}",
            any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_canonical_form_is_its_own_and_means_the_same(raw in hostile()) {
            let Ok(once) = canonical(&raw) else { return Ok(()) };
            let path = &*once.path;
            prop_assert_eq!(&canonical(path), &Ok(once.clone()));
            prop_assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"));
            prop_assert!(!path.contains('\\') && !path.contains("%5C"));
            prop_assert!(path.split('/').all(|s| !matches!(s.split(';').next(), Some("." | ".."))));
            // Both decode to the same text, but for merged slashes.
            let decode = |s: &str| percent_encoding::percent_decode_str(s).collect::<Vec<u8>>();
            let mut merged = raw.clone();
            while merged.contains("//") {
                merged = merged.replace("//", "/");
            }
            prop_assert_eq!(decode(&merged), decode(path));
            // An escape in the output is upper case and of a character that needs it.
            for (at, _) in path.match_indices('%') {
                let byte = escape(path.as_bytes(), at).unwrap();
                prop_assert!(!is_unreserved(byte));
                prop_assert!(!path[at + 1..at + 3].bytes().any(|b| b.is_ascii_lowercase()));
            }
            // Without anything for a route to allow, one more decoding changes nothing.
            if once.has == NOTHING {
                let text = decode(path);
                prop_assert!(!has_escape(&text) && !text.contains(&b';'));
            }
        }
    }
}
