//! What a client is told of its budget: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10),
//! or the older `X-RateLimit-*`. What does not change is made once for each policy.

use crate::config::server::RateLimitHeaders;
use http::{HeaderName, HeaderValue};

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The headers of one policy.
#[derive(Debug)]
pub(super) struct Answer {
    /// `"name";q=60;w=60`
    policy: HeaderValue,
    limit: HeaderValue,
    /// `"name"`
    name: String,
}

impl Answer {
    pub(super) fn new(name: &str, limit: u32, window_secs: u32) -> Self {
        let name = quoted(name);
        // A quoted name is visible ASCII and spaces, so is the rest.
        let policy = HeaderValue::try_from(format!("{name};q={limit};w={window_secs}"))
            .unwrap_or_else(|_| HeaderValue::from_static("\"policy\""));
        Self {
            policy,
            limit: HeaderValue::from(limit),
            name,
        }
    }

    pub(super) fn write(
        &self,
        remaining: u32,
        reset_secs: u32,
        style: RateLimitHeaders,
        out: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        if matches!(style, RateLimitHeaders::Draft | RateLimitHeaders::Both) {
            let mut value = Vec::with_capacity(self.name.len() + 26);
            value.extend_from_slice(self.name.as_bytes());
            value.extend_from_slice(b";r=");
            digits(&mut value, remaining);
            value.extend_from_slice(b";t=");
            digits(&mut value, reset_secs);
            if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
                out.push((RATELIMIT_POLICY, self.policy.clone()));
                out.push((RATELIMIT, value));
            }
        }
        if matches!(style, RateLimitHeaders::X | RateLimitHeaders::Both) {
            out.push((X_LIMIT, self.limit.clone()));
            out.push((X_REMAINING, HeaderValue::from(remaining)));
            out.push((X_RESET, HeaderValue::from(reset_secs)));
        }
    }
}

/// A structured-field string (RFC 9651 §3.3.3); what it cannot hold becomes `_`.
fn quoted(name: &str) -> String {
    let mut text = String::from("\"");
    for c in name.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            ' '..='~' => text.push(c),
            _ => text.push('_'),
        }
    }
    text.push('"');
    text
}

fn digits(out: &mut Vec<u8>, number: u32) {
    let mut text = [0; 10];
    let mut at = text.len();
    let mut rest = number;
    loop {
        at -= 1;
        // Below 10.
        text[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, style: RateLimitHeaders, expected: &[&str]) {
        let mut out = Vec::new();
        Answer::new(name, 60, 60).write(59, u32::MAX, style, &mut out);
        let lines: Vec<_> = out
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn each_style_has_its_headers() {
        let draft = [
            r#"ratelimit-policy: "per_ip";q=60;w=60"#,
            r#"ratelimit: "per_ip";r=59;t=4294967295"#,
        ];
        let x = [
            "x-ratelimit-limit: 60",
            "x-ratelimit-remaining: 59",
            "x-ratelimit-reset: 4294967295",
        ];
        check("per_ip", RateLimitHeaders::Draft, &draft);
        check("per_ip", RateLimitHeaders::X, &x);
        check(
            "per_ip",
            RateLimitHeaders::Both,
            &[&draft[..], &x[..]].concat(),
        );
        check("per_ip", RateLimitHeaders::Off, &[]);
    }

    #[test]
    fn any_name_of_a_policy_makes_a_valid_field() {
        check(
            "a\"b\\ü\n",
            RateLimitHeaders::Draft,
            &[
                r#"ratelimit-policy: "a\"b\\__";q=60;w=60"#,
                r#"ratelimit: "a\"b\\__";r=59;t=4294967295"#,
            ],
        );
    }

    #[test]
    fn numbers_are_written_whole() {
        for number in [0, 9, 10, 100, u32::MAX] {
            let mut out = Vec::new();
            digits(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
