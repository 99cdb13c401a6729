//! From the provider's answer to the session that its library would keep (auth-js 2.119, `_sessionResponse` and
//! `_saveSession`). Nothing is verified here, and what the answer holds besides tokens passes through.

use super::{Encoding, Form, Malformed, SessionCookie, Style};
use crate::session::json;

impl SessionCookie {
    /// The session in a successful answer of `/token` or `/verify`. `unix_millis` is when the answer came: it gives
    /// `expires_at` where the answer has none. An answer without both tokens and `expires_in` holds no session.
    pub fn from_response(
        response: &str,
        style: Style,
        unix_millis: u64,
    ) -> Result<Self, Malformed> {
        let root = json::document(response).ok_or(Malformed::NotJson)?;
        let keys = ["access_token", "refresh_token", "expires_in", "expires_at"];
        let [access, refresh, expires_in, expires_at] = root.members(keys);
        let token = |value: Option<json::Value<'_>>| {
            let token = value.and_then(super::owned_string);
            token.filter(|token| !token.is_empty())
        };
        let (Some(access), Some(refresh), Some(expires_in)) = (
            token(access),
            token(refresh),
            expires_in.filter(|value| !value.is_falsy()),
        ) else {
            return Err(Malformed::NotASession);
        };
        if style.form == Form::TwoCookies {
            let no_text = (String::new(), Encoding::Raw);
            return Self::from_tokens(Form::TwoCookies, access, Some(refresh), no_text);
        }
        let expires_at = match expires_at.filter(|value| !value.is_falsy()) {
            Some(_) => None,
            None => Some(expiry(expires_in, unix_millis).ok_or(Malformed::NotASession)?),
        };
        Self::from_text(
            text(root, style.with_user, expires_at.as_deref()),
            style.encoding,
        )
    }
}

/// The text as the library keeps it: `expires_at`, when it is not given, in its place or behind all others.
fn text(root: json::Value<'_>, with_user: bool, mut expires_at: Option<&str>) -> String {
    let mut out = String::from("{");
    let given = expires_at;
    for (key, value) in root.entries() {
        let name = key.string();
        if !with_user && name.as_deref() == Some("user") {
            continue;
        }
        if out.len() > 1 {
            out.push(',');
        }
        key.append_compact(&mut out);
        out.push(':');
        match given.filter(|_| name.as_deref() == Some("expires_at")) {
            Some(seconds) => {
                out.push_str(seconds);
                expires_at = None;
            }
            None => value.append_compact(&mut out),
        }
    }
    if let Some(seconds) = expires_at {
        out.push_str(",\"expires_at\":");
        out.push_str(seconds);
    }
    out.push('}');
    out
}

/// The second in which a token expires that lives for `expires_in` seconds; the library rounds the clock, not the sum.
fn expiry(expires_in: json::Value<'_>, unix_millis: u64) -> Option<String> {
    /// Beyond it JavaScript would write an exponent; and no token lives for millions of years.
    const SECONDS_MAX: f64 = 1e15;
    let now = unix_millis.saturating_add(500) / 1000;
    let seconds = now as f64 + expires_in.number()?;
    (seconds.abs() < SECONDS_MAX).then(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 790 000 000.4 s, which rounds down.
    const NOW: u64 = 1_790_000_000_400;

    fn kept(response: &str, style: Style) -> Result<String, Malformed> {
        let session = SessionCookie::from_response(response, style, NOW)?;
        Ok(session.text.expose().clone())
    }

    #[test]
    fn the_answer_is_kept_and_gets_its_expiry() {
        let check = |rest: &str, expected: &str| {
            let of = |rest: &str| {
                format!(
                    "{{\"access_token\":\"a\",\"refresh_token\":\"r\",\"expires_in\":60{rest}}}"
                )
            };
            let kept = kept(&of(rest), Style::default());
            assert_eq!(kept.unwrap(), of(expected), "{rest}");
        };
        check("", r#","expires_at":1790000060"#);
        check(r#","expires_at":5,"x":1"#, r#","expires_at":5,"x":1"#);
        check(r#","expires_at":"5""#, r#","expires_at":"5""#);
        for falsy in ["0", "null", "false", "\"\"", "-0.0"] {
            check(
                &format!(r#","expires_at":{falsy},"x":1"#),
                r#","expires_at":1790000060,"x":1"#,
            );
        }
        // Of equal keys the last one counts, and so it does for whoever reads what is kept.
        check(
            r#","expires_at":5,"expires_at":0"#,
            r#","expires_at":1790000060,"expires_at":1790000060"#,
        );
        check(
            " , \"user\" : { \"name\" : \"\\u0026\" }",
            r#","user":{"name":"&"},"expires_at":1790000060"#,
        );
    }

    #[test]
    fn the_clock_is_rounded_and_the_sum_is_not() {
        let check = |expires_in: &str, millis: u64, expected: &str| {
            let response =
                format!(r#"{{"access_token":"a","refresh_token":"r","expires_in":{expires_in}}}"#);
            let session = SessionCookie::from_response(&response, Style::default(), millis);
            let text = session.unwrap().text.expose().clone();
            assert!(
                text.ends_with(&format!("\"expires_at\":{expected}}}")),
                "{text}"
            );
        };
        check("3600", 1_000_499, "4600");
        check("3600", 1_000_500, "4601");
        check("0.25", 1_000_000, "1000.25");
        check("\"60\"", 1_000_000, "1060");
        check("-60", 1_000_000, "940");
    }

    #[test]
    fn tokens_only_leaves_the_user_out() {
        let response = r#"{"user":{"id":"u"},"access_token":"a","\u0075ser":1,"refresh_token":"r","expires_in":60}"#;
        let style = Style {
            with_user: false,
            ..Style::default()
        };
        assert_eq!(
            kept(response, style).unwrap(),
            r#"{"access_token":"a","refresh_token":"r","expires_in":60,"expires_at":1790000060}"#
        );
        let session = SessionCookie::from_response(response, style, NOW).unwrap();
        assert_eq!(session.style(), style);
        let all = SessionCookie::from_response(response, Style::default(), NOW).unwrap();
        assert!(all.had_user);
    }

    #[test]
    fn two_cookies_hold_the_tokens_alone() {
        let style = Style {
            form: Form::TwoCookies,
            ..Style::default()
        };
        let response = r#"{"access_token":"a","refresh_token":"r","expires_in":60,"user":{}}"#;
        let session = SessionCookie::from_response(response, style, NOW).unwrap();
        assert_eq!(session.access_token.expose(), "a");
        assert_eq!(session.refresh_token.unwrap().expose(), "r");
        assert!(session.text.expose().is_empty());
        assert_eq!(session.form, Form::TwoCookies);
    }

    #[test]
    fn an_answer_that_is_no_session_is_none() {
        let good = r#"{"access_token":"a","refresh_token":"r","expires_in":60}"#;
        assert!(kept(good, Style::default()).is_ok());
        for (from, to) in [
            ("\"a\"", "\"\""),
            ("\"a\"", "1"),
            ("\"a\"", "\"\\ud800\""),
            ("\"r\"", "null"),
            ("\"r\"", "\"\""),
            ("refresh_token", "token"),
            ("expires_in", "x"),
            ("60", "0"),
            ("60", "null"),
            ("60", "{}"),
            ("60", "true"),
            ("60", "1e300"),
        ] {
            let bad = good.replace(from, to);
            assert_eq!(
                kept(&bad, Style::default()),
                Err(Malformed::NotASession),
                "{bad}"
            );
        }
        for (text, why) in [
            ("", Malformed::NotJson),
            ("<html>", Malformed::NotJson),
            ("null", Malformed::NotASession),
            ("[\"a\",\"r\"]", Malformed::NotASession),
            ("{}", Malformed::NotASession),
        ] {
            assert_eq!(kept(text, Style::default()), Err(why), "{text}");
        }
    }
}
