//! What a token says, for a person: its header and those claims whose values give nothing away. Nothing here is verified,
//! nothing is decided by it, and nothing of it is a token: no signature, and of most claims only the name.

use crate::token::json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// Fields of the header that are shown.
const HEADER: [&str; 3] = ["alg", "kid", "typ"];
/// Claims that are shown with their values, in this order.
const CLAIMS: [&str; 10] = [
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
    "sub",
    "role",
    "aal",
    "session_id",
    "is_anonymous",
];
/// Characters of a value or of a name that are shown.
const SHOWN_MAX: usize = 120;
/// Names of other claims that are shown.
const NAMES_MAX: usize = 40;

/// What a token says.
#[derive(Debug, Default)]
pub(super) struct Peek {
    /// Of the whole token.
    pub(super) bytes: usize,
    /// Numbers and truth values as they are, everything else as a short text.
    pub(super) header: Vec<(&'static str, Value)>,
    pub(super) claims: Vec<(&'static str, Value)>,
    /// Names of the claims whose values are not shown.
    pub(super) others: Vec<String>,
    /// Unix seconds.
    pub(super) expires_at: Option<u64>,
}

/// Looks at a token, whatever is wrong with it.
pub(super) fn peek(token: &str) -> Peek {
    let mut segments = token.split('.');
    let header = segments.next().and_then(object).unwrap_or_default();
    let claims = segments.next().and_then(object).unwrap_or_default();
    let pick = |from: &Map<String, Value>, name: &'static str| Some((name, shown(from.get(name)?)));
    let names = claims.keys().filter(|name| !CLAIMS.contains(&&***name));
    Peek {
        bytes: token.len(),
        header: HEADER
            .into_iter()
            .filter_map(|name| pick(&header, name))
            .collect(),
        claims: CLAIMS
            .into_iter()
            .filter_map(|name| pick(&claims, name))
            .collect(),
        others: names.take(NAMES_MAX).map(|name| clean(name)).collect(),
        // A float is cut: a second does not matter here.
        expires_at: claims
            .get("exp")
            .and_then(Value::as_f64)
            .map(|seconds| seconds as u64),
    }
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    json::object(&URL_SAFE_NO_PAD.decode(segment).ok()?)
}

/// A value that is short.
fn shown(value: &Value) -> Value {
    match value {
        Value::Number(_) | Value::Bool(_) => value.clone(),
        Value::String(text) => Value::String(clean(text)),
        other => Value::String(clean(&other.to_string())),
    }
}

/// A value in one line.
pub(super) fn line(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A text that can do nothing to a terminal, and is short.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_MAX {
            out.push('…');
            break;
        }
        if c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, payload: &str) -> String {
        let [header, payload] = [header, payload].map(|text| URL_SAFE_NO_PAD.encode(text));
        format!("{header}.{payload}.c2lnbmF0dXJl")
    }

    #[test]
    fn values_that_give_nothing_away_are_shown_and_of_the_others_the_names() {
        let token = token(
            r#"{"alg":"ES256","kid":"k1","typ":"JWT","x5c":["secret"]}"#,
            r#"{"sub":"u","email":"ada@example.com","aud":["a","b"],"exp":1700000000.5,"is_anonymous":false}"#,
        );
        let peek = peek(&token);
        let text = |pairs: &[(&str, Value)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| format!("{name}={}", line(value)))
                .collect();
            pairs.join(" ")
        };
        assert_eq!(text(&peek.header), "alg=ES256 kid=k1 typ=JWT");
        assert_eq!(
            text(&peek.claims),
            r#"aud=["a","b"] exp=1700000000.5 sub=u is_anonymous=false"#
        );
        assert_eq!(peek.others, ["email"]);
        assert_eq!(
            (peek.bytes, peek.expires_at),
            (token.len(), Some(1_700_000_000))
        );
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for text in ["", "a.b.c", "..", "e30", "e30.e30", "ää.ää"] {
            let peek = peek(text);
            assert!(peek.header.is_empty() && peek.claims.is_empty(), "{text}");
        }
        // A member twice: who reads it otherwise would see another token.
        assert!(
            peek(&token("{}", r#"{"sub":"a","sub":"b"}"#))
                .claims
                .is_empty()
        );
    }

    #[test]
    fn nothing_that_is_shown_moves_the_cursor_or_goes_on_for_ever() {
        let hostile = "\u{1b}[2J\r\n\u{202e}a\u{7}é";
        assert_eq!(clean(hostile), r"\u{1b}[2J\u{d}\u{a}\u{202e}a\u{7}é");
        assert_eq!(clean(&"x".repeat(5000)).chars().count(), SHOWN_MAX + 1);
    }
}
