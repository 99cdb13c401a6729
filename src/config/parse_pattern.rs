//! Patterns of paths and hosts, in the one form in which requests are matched (RFC 3986 §6.2.2).

use super::value::{HostPattern, PathPattern, Segment};
use std::sync::Arc;

/// Longest path pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1024;

/// `/exact`, `/users/{id}/role`, `/api/*`.
pub(super) fn path(text: &str) -> Result<PathPattern, String> {
    if text.len() > PATTERN_BYTES_MAX {
        return Err(format!("it is longer than {PATTERN_BYTES_MAX} bytes"));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err("it begins with `/`".into());
    };
    let mut pattern = PathPattern {
        text: text.into(),
        segments: Vec::new(),
        prefix: false,
    };
    if rest.is_empty() {
        return Ok(pattern);
    }
    let parts: Vec<&str> = rest.split('/').collect();
    for (n, part) in parts.iter().enumerate() {
        let last = n + 1 == parts.len();
        if *part == "*" && last {
            pattern.prefix = true;
        } else if part.is_empty() && last {
            return Err("leave the slash at the end out: without it both forms match; for all below write `/*`".into());
        } else {
            pattern.segments.push(segment(part)?);
        }
    }
    for (n, one) in pattern.segments.iter().enumerate() {
        if matches!(one, Segment::Param(_)) && pattern.segments[..n].contains(one) {
            return Err("two parts have the same name".into());
        }
    }
    Ok(pattern)
}

fn segment(part: &str) -> Result<Segment, String> {
    if part.is_empty() {
        return Err("it has two slashes in a row".into());
    }
    if let Some(name) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        return Ok(Segment::Param(capture(name)?.into()));
    }
    if part.contains('*') {
        return Err("`*` stands only at the end, as `/*`".into());
    }
    if part.contains(['{', '}']) {
        return Err("`{name}` stands for one whole part between slashes".into());
    }
    if part.contains(char::is_whitespace) {
        return Err("white space is written encoded: a space is `%20`".into());
    }
    if part.contains(['?', '#']) {
        return Err("`?` and `#` are no part of a path".into());
    }
    let literal = canonical(part)?;
    if literal == "." || literal == ".." {
        return Err("`.` and `..` are never part of a path here".into());
    }
    Ok(Segment::Literal(literal.into()))
}

/// Unreserved characters decoded, everything else that needs it encoded (RFC 3986 §6.2.2), as paths are matched.
fn canonical(part: &str) -> Result<String, String> {
    let mut out = String::with_capacity(part.len());
    let mut bytes = part.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let hex = |b: Option<u8>| {
                b.and_then(|b| char::from(b).to_digit(16))
                    .and_then(|d| u8::try_from(d).ok())
            };
            let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                return Err("after `%` come two hexadecimal digits".into());
            };
            let decoded = high * 16 + low;
            if !is_unreserved(decoded) {
                push_escaped(&mut out, decoded);
                continue;
            }
            decoded
        } else {
            byte
        };
        if byte.is_ascii_graphic()
            && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|')
        {
            out.push(char::from(byte));
        } else if byte.is_ascii_control() || byte == b'\\' {
            return Err("control characters and `\\` are never part of a path here".into());
        } else {
            push_escaped(&mut out, byte);
        }
    }
    Ok(out)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_escaped(out: &mut String, byte: u8) {
    const HEX: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    out.push('%');
    out.push(HEX[usize::from(byte >> 4)]);
    out.push(HEX[usize::from(byte & 15)]);
}

/// The name of a capture.
pub(super) fn capture(name: &str) -> Result<&str, String> {
    let mut letters = name.chars();
    let fine = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= 64;
    if fine {
        Ok(name)
    } else {
        Err("the name in braces is made of letters, digits and `_`".into())
    }
}

/// `app.example.com`, `*.example.com`, `{tenant}.example.com`.
pub(super) fn host(text: &str) -> Result<HostPattern, String> {
    if text.contains("://") || text.contains('/') {
        return Err("write the name alone, without scheme and path".into());
    }
    let name = |text: &str| -> Result<Arc<str>, String> {
        if text.ends_with('.') {
            return Err("leave the dot at the end out".into());
        }
        match url::Host::parse(text) {
            Ok(url::Host::Domain(name)) if !is_plain(&name) => Err(if name.contains(['*', '{']) {
                "`*` or `{name}` stands only for the first label: `*.example.com`".into()
            } else {
                "it is not a host name".into()
            }),
            Ok(host) => Ok(host.to_string().into()),
            Err(_) if text.contains(':') => Err("write the name alone, without a port".into()),
            Err(_) => Err("it is not a host name".into()),
        }
    };
    let suffix = |rest: &str| match url::Host::parse(rest) {
        Ok(url::Host::Ipv4(_) | url::Host::Ipv6(_)) => Err("an address has no labels".into()),
        _ => name(rest).map(|name| Arc::from(format!(".{name}"))),
    };
    if let Some(rest) = text.strip_prefix("*.") {
        return Ok(HostPattern::Wildcard {
            suffix: suffix(rest)?,
        });
    }
    if let Some((label, rest)) = text.strip_prefix('{').and_then(|t| t.split_once("}.")) {
        return Ok(HostPattern::Capture {
            name: capture(label)?.into(),
            suffix: suffix(rest)?,
        });
    }
    Ok(HostPattern::Exact(name(text)?))
}

/// Labels of letters, digits, `-` and `_`: what a URL parser takes beyond that is no name that a request could have.
fn is_plain(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_patterns_are_canonical() {
        let check = |text: &str, wanted: Option<(&[&str], bool)>| {
            let got = path(text).ok().map(|p| {
                let names = p.segments.iter().map(|s| match s {
                    Segment::Literal(text) => text.to_string(),
                    Segment::Param(name) => format!("{{{name}}}"),
                });
                (names.collect::<Vec<_>>(), p.prefix)
            });
            assert_eq!(
                got,
                wanted.map(|(s, p)| (s.iter().map(ToString::to_string).collect(), p)),
                "{text}"
            );
        };
        check("/", Some((&[], false)));
        check("/*", Some((&[], true)));
        check("/api/*", Some((&["api"], true)));
        check(
            "/users/{id}/role",
            Some((&["users", "{id}", "role"], false)),
        );
        check("/%61pi/caf\u{e9}", Some((&["api", "caf%C3%A9"], false)));
        check("/a%2fb", Some((&["a%2Fb"], false)));
        for text in [
            "",
            "api",
            "/api/",
            "//api",
            "/a/../b",
            "/%2e%2e/a",
            "/a*",
            "/*/a",
            "/x{id}",
            "/{id}/{id}",
            "/a?b",
            "/a%4",
            "/{}",
            "/a b",
            "/a\u{a0}b",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn host_patterns_are_lower_case_names() {
        assert_eq!(
            host("App.Example.com"),
            Ok(HostPattern::Exact("app.example.com".into()))
        );
        assert_eq!(
            host("*.Example.com"),
            Ok(HostPattern::Wildcard {
                suffix: ".example.com".into()
            })
        );
        let capture = HostPattern::Capture {
            name: "tenant".into(),
            suffix: ".example.com".into(),
        };
        assert_eq!(host("{tenant}.example.com"), Ok(capture));
        assert_eq!(host("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
        for text in [
            "",
            "a.example.com:443",
            "https://a",
            "a.*.com",
            "*",
            "a.b.",
            "{t}",
            "a b",
            "*.*.example.com",
            "*.{t}.example.com",
            "{t}.*.example.com",
            "{t}.{u}.example.com",
            "{t}.a}.com",
            "*.192.0.2.1",
            "*.[::1]",
            "a..b",
            "a!b.com",
            "*.",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }
}
