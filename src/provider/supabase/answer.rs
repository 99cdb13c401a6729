//! What an answer of Supabase Auth says, whoever it was that answered: Auth itself in one of its three error forms, the API
//! gateway in front of it, or something on the way that knows neither. Bytes in, data out: no network, no log.

use super::members::{members, seconds, string};
use crate::base::secret::Secret;
use crate::provider::Grant;
use crate::provider::error::{Code, LoginError, LogoutError, RefreshError};
use crate::token::{jose, json};
use std::sync::Arc;
use std::time::Duration;

/// Longest `Retry-After` that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// Characters of a message that are kept.
const MESSAGE_MAX: usize = 300;

/// Codes that end a session for good when its refresh token is refused with them.
const OVER: &[&str] = &[
    "refresh_token_not_found",
    "refresh_token_already_used",
    "session_expired",
    "session_not_found",
    "user_not_found",
    "user_banned",
    "validation_failed",
    // RFC 6749 §5.2
    "invalid_grant",
];

/// Codes of credentials that prove nobody. Clients are told of them in one way.
const REFUSED: &[&str] = &[
    "invalid_credentials",
    "email_not_confirmed",
    "phone_not_confirmed",
    "user_banned",
    "user_not_found",
    "otp_expired",
    "bad_code_verifier",
    "flow_state_not_found",
    "flow_state_expired",
    "flow_state_already_used",
    "invalid_grant",
];

/// Codes that say that we asked wrongly, whatever the user gave.
const OURS: &[&str] = &["bad_json", "no_authorization", "bad_jwt", "not_admin"];

/// An answer as it came.
pub(super) struct Answer {
    pub(super) status: u16,
    /// `x-sb-error-code`: Auth's word in every version of its bodies.
    pub(super) code: Option<Code>,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Whether another attempt may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    No,
    /// If the call may be made twice: it may have been done.
    IfHarmless,
    /// Nothing was sent.
    Yes,
}

/// What an answer that is no success says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Out of reach, broken on the way, or busy.
    Later {
        retry_after: Option<Duration>,
        why: Arc<str>,
        again: Again,
    },
    /// 429.
    Limited { retry_after: Option<Duration> },
    /// Auth refused, with a code.
    Refusal {
        status: u16,
        code: Code,
        message: Secret<String>,
    },
    /// A refusal without a code of Auth's: the API gateway, an edge, or another server.
    Foreign { status: u16 },
}

/// Seconds only (RFC 9110 §10.2.3): Auth sends none, and what stands in front of it sends no dates.
pub(super) fn retry_after(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

impl Failure {
    /// A success that does not hold what it must.
    pub(super) fn broken(what: &str) -> Self {
        Self::Later {
            retry_after: None,
            why: what.into(),
            again: Again::No,
        }
    }
}

impl Answer {
    /// The body of a success.
    pub(super) fn success(self) -> Result<String, Failure> {
        if (200..300).contains(&self.status) {
            return String::from_utf8(self.body)
                .map_err(|_| Failure::broken("an answer in no UTF-8"));
        }
        Err(self.failure())
    }

    fn failure(self) -> Failure {
        let status = self.status;
        let (code, message) = self.words();
        match status {
            429 => Failure::Limited {
                retry_after: self.retry_after,
            },
            // Request timeout, conflict (somebody else holds the session's row), too early, and outages.
            408 | 409 | 425 | 500..=599 => Failure::Later {
                retry_after: self.retry_after,
                why: match &code {
                    Some(code) => format!("status {status}, {code}").into(),
                    None => format!("status {status}").into(),
                },
                again: match status {
                    409 | 500..=504 | 520..=530 => Again::IfHarmless,
                    _ => Again::No,
                },
            },
            400..=499 => match code {
                Some(code) => Failure::Refusal {
                    status,
                    code,
                    message,
                },
                None => Failure::Foreign { status },
            },
            _ => Failure::Foreign { status },
        }
    }

    /// Code and message, from whichever of the forms this is.
    fn words(&self) -> (Option<Code>, Secret<String>) {
        let keys = [
            "error_code",
            "code",
            "error",
            "message",
            "msg",
            "error_description",
        ];
        let found = std::str::from_utf8(&self.body)
            .ok()
            .and_then(|text| members(text, keys))
            .unwrap_or_default();
        let [older, newer, oauth, message, msg, description] = found.map(string);
        // In the newer form `code` is the word, in the older one a number. OAuth errors always come as 400; elsewhere
        // `error` is anybody's.
        let code = self.code.clone().or_else(|| {
            [older, newer, oauth.filter(|_| self.status == 400)]
                .into_iter()
                .flatten()
                .find_map(|text| Code::read(&text))
        });
        let message = Secret::new(message.or(msg).or(description).unwrap_or_default());
        (code, Secret::new(one_line(message.expose())))
    }
}

fn one_line(message: &str) -> String {
    let clean = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MESSAGE_MAX).collect()
}

/// Whether the body is a JSON object at all: what a login call that opens no session answers with.
pub(super) fn is_object(body: &str) -> bool {
    members::<0>(body, []).is_some()
}

/// The session in a body; `None` when there is none, or only half of one.
pub(super) fn grant(body: &str, now: u64) -> Option<Grant> {
    let body = body.trim();
    let wanted = ["access_token", "refresh_token", "expires_in", "expires_at"];
    let [access, refresh, expires_in, given] = members(body, wanted)?;
    let token = |value| {
        string(value)
            .filter(|token| !token.is_empty())
            .map(Secret::new)
    };
    let (access_token, refresh_token) = (token(access)?, token(refresh)?);
    let expires_at = match (seconds(given), seconds(expires_in)) {
        (Some(at), _) => at,
        (None, Some(life)) => now.saturating_add(life),
        (None, None) => exp(access_token.expose())?,
    };
    let text = if seconds(given).is_some() {
        body.to_owned()
    } else {
        with_expiry(body, given, expires_at)?
    };
    Some(Grant {
        text: Secret::new(text),
        access_token,
        refresh_token,
        expires_at,
    })
}

/// As the library adds it: in place of a value that says nothing, else at the end.
fn with_expiry(body: &str, given: Option<&str>, expires_at: u64) -> Option<String> {
    if let Some(value) = given {
        let start = (value.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        let (before, rest) = body.split_at_checked(start)?;
        return Some(format!("{before}{expires_at}{}", rest.get(value.len()..)?));
    }
    // There are members: the tokens.
    let open = body.strip_suffix('}')?.trim_end();
    Some(format!("{open},\"expires_at\":{expires_at}}}"))
}

/// `exp` of a token, unverified: better than to lose a session whose answer names no time.
fn exp(token: &str) -> Option<u64> {
    let jws = jose::Jws::parse(token.as_bytes()).ok()?;
    json::object(&jws.payload)?.get("exp")?.as_u64()
}

fn misconfigured(failure: &Failure) -> Arc<str> {
    match failure {
        Failure::Refusal { status, code, .. } => format!("status {status}, {code}").into(),
        Failure::Foreign { status } => {
            format!("status {status} without an error code of Auth: a wrong key, or another server")
                .into()
        }
        Failure::Later { why, .. } => why.clone(),
        Failure::Limited { .. } => "rate limit".into(),
    }
}

fn listed(codes: &[&'static str], code: &Code) -> Option<&'static str> {
    known(codes, code.as_str())
}

fn known(codes: &[&'static str], code: &str) -> Option<&'static str> {
    codes.iter().find(|known| **known == code).copied()
}

/// The code of [`RefreshError::Over`] that is written so.
pub(super) fn over(code: &str) -> Option<&'static str> {
    known(OVER, code)
}

impl From<Failure> for RefreshError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Later {
                retry_after, why, ..
            } => Self::Later { retry_after, why },
            Failure::Limited { retry_after } => Self::Later {
                retry_after,
                why: "rate limit".into(),
            },
            Failure::Refusal { ref code, .. } if code.as_str() == "invalid_client" => Self::NotOurs,
            Failure::Refusal { ref code, .. } => match listed(OVER, code) {
                Some(code) => Self::Over { code },
                // A code of a later version. Whether it is for good nobody knows, and a session is not thrown away for
                // a guess: its token serves until it is over, and no longer.
                None => Self::Misconfigured {
                    why: misconfigured(&failure),
                },
            },
            Failure::Foreign { .. } => Self::Misconfigured {
                why: misconfigured(&failure),
            },
        }
    }
}

impl From<Failure> for LoginError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Later {
                retry_after, why, ..
            } => Self::Later { retry_after, why },
            Failure::Limited { retry_after } => Self::RateLimited { retry_after },
            Failure::Foreign { .. } => Self::Misconfigured {
                why: misconfigured(&failure),
            },
            Failure::Refusal {
                status,
                code,
                message,
            } => {
                if let Some(code) = listed(REFUSED, &code) {
                    return Self::Refused { code };
                }
                if status == 401 || listed(OURS, &code).is_some() {
                    return Self::Misconfigured {
                        why: format!("status {status}, {code}").into(),
                    };
                }
                Self::Rejected { code, message }
            }
        }
    }
}

impl From<Failure> for LogoutError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Later {
                retry_after, why, ..
            } => Self::Later { retry_after, why },
            Failure::Limited { retry_after } => Self::Later {
                retry_after,
                why: "rate limit".into(),
            },
            Failure::Refusal {
                status: 401 | 403,
                code,
                ..
            } => Self::TokenRefused { code },
            Failure::Refusal { .. } | Failure::Foreign { .. } => Self::Misconfigured {
                why: misconfigured(&failure),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_767_225_600;

    fn failure(status: u16, body: &str) -> Failure {
        let answer = Answer {
            status,
            code: None,
            retry_after: None,
            body: body.as_bytes().to_vec(),
        };
        answer.success().unwrap_err()
    }

    fn newer(code: &str) -> String {
        format!(r#"{{"code":"{code}","message":"Invalid Refresh Token"}}"#)
    }

    #[test]
    fn a_refused_refresh_is_over_later_or_a_fault_as_the_table_says() {
        let check = |status: u16, body: &str, expected: &str| {
            let found = match RefreshError::from(failure(status, body)) {
                RefreshError::Over { code } => format!("over {code}"),
                RefreshError::NotOurs => "not ours".into(),
                RefreshError::Later { .. } => "later".into(),
                RefreshError::Misconfigured { .. } => "misconfigured".into(),
            };
            assert_eq!(found, expected, "{status} {body}");
        };
        for code in [
            "refresh_token_not_found",
            "refresh_token_already_used",
            "session_expired",
            "session_not_found",
            "user_banned",
            "validation_failed",
        ] {
            check(400, &newer(code), &format!("over {code}"));
            let older = format!(r#"{{"code":400,"error_code":"{code}","msg":"x"}}"#);
            check(400, &older, &format!("over {code}"));
        }
        for code in ["user_not_found", "session_not_found"] {
            check(403, &newer(code), &format!("over {code}"));
        }
        check(400, r#"{"error":"invalid_grant"}"#, "over invalid_grant");
        let client = r#"{"error":"invalid_client","error_description":"x"}"#;
        check(400, client, "not ours");
        check(409, &newer("conflict"), "later");
        check(429, &newer("over_request_rate_limit"), "later");
        // Whatever an outage says, it says nothing of the session.
        check(503, &newer("refresh_token_not_found"), "later");
        for status in [408, 425, 500, 502, 503, 504, 520, 530, 599] {
            check(status, "<html>no luck</html>", "later");
        }
        for status in [401, 403] {
            check(status, r#"{"message":"Invalid API key"}"#, "misconfigured");
            check(status, "<html>blocked</html>", "misconfigured");
        }
        // `error` means something only where OAuth puts it.
        check(401, r#"{"error":"invalid_grant"}"#, "misconfigured");
        // Nobody knows: the session stays.
        check(400, &newer("a_code_of_tomorrow"), "misconfigured");
        check(400, "", "misconfigured");
        check(404, "<html>not found</html>", "misconfigured");
        for status in [101, 301, 302, 307, 600] {
            check(status, "", "misconfigured");
        }
    }

    #[test]
    fn the_header_carries_the_code_when_the_body_does_not() {
        let answer = Answer {
            status: 400,
            code: Code::read("session_expired"),
            retry_after: None,
            body: b"<html>".to_vec(),
        };
        let error = RefreshError::from(answer.success().unwrap_err());
        let code = "session_expired";
        assert_eq!(error, RefreshError::Over { code });
    }

    #[test]
    fn a_refused_login_is_told_apart_from_a_rejected_one_and_from_a_fault() {
        let check = |status: u16, body: &str, expected: &str| {
            let found = match LoginError::from(failure(status, body)) {
                LoginError::Refused { code } => format!("refused {code}"),
                LoginError::Rejected { code, .. } => format!("rejected {code}"),
                LoginError::RateLimited { .. } => "limited".into(),
                LoginError::Later { .. } => "later".into(),
                LoginError::Misconfigured { .. } => "misconfigured".into(),
            };
            assert_eq!(found, expected, "{status} {body}");
        };
        for (status, code) in [
            (400, "invalid_credentials"),
            (400, "email_not_confirmed"),
            (400, "phone_not_confirmed"),
            (400, "user_banned"),
            (403, "otp_expired"),
            (403, "user_banned"),
            (404, "flow_state_not_found"),
            (422, "flow_state_expired"),
            (400, "bad_code_verifier"),
        ] {
            check(status, &newer(code), &format!("refused {code}"));
        }
        for (status, code) in [
            (422, "weak_password"),
            (422, "user_already_exists"),
            (422, "signup_disabled"),
            (422, "email_provider_disabled"),
            (422, "otp_disabled"),
            (400, "captcha_failed"),
            (400, "validation_failed"),
            (400, "email_address_invalid"),
        ] {
            check(status, &newer(code), &format!("rejected {code}"));
        }
        check(429, &newer("over_email_send_rate_limit"), "limited");
        check(429, "<html>", "limited");
        for status in [409, 500, 503, 522] {
            check(status, "", "later");
        }
        check(
            401,
            r#"{"message":"No API key found in request"}"#,
            "misconfigured",
        );
        check(403, "<html>blocked</html>", "misconfigured");
        check(400, &newer("bad_json"), "misconfigured");
        check(401, &newer("no_authorization"), "misconfigured");
        check(302, "", "misconfigured");
    }

    #[test]
    fn a_message_is_one_bounded_line() {
        let body = r#"{"code":"weak_password","message":"Password\r\nshould \u0007be longer"}"#;
        let LoginError::Rejected { message, .. } = failure(422, body).into() else {
            panic!("not rejected");
        };
        assert_eq!(message.expose(), "Password  should  be longer");
        let body = format!(
            r#"{{"code":"weak_password","message":"{}"}}"#,
            "é".repeat(1000)
        );
        let LoginError::Rejected { message, .. } = failure(422, &body).into() else {
            panic!("not rejected");
        };
        assert_eq!(message.expose().chars().count(), 300);
    }

    #[test]
    fn a_refused_logout_says_whether_the_token_was_at_fault() {
        let check = |status: u16, body: &str| LogoutError::from(failure(status, body));
        let refused = check(403, &newer("bad_jwt"));
        assert!(matches!(refused, LogoutError::TokenRefused { .. }));
        let refused = check(401, &newer("no_authorization"));
        assert!(matches!(refused, LogoutError::TokenRefused { .. }));
        let fault = check(401, r#"{"message":"Invalid API key"}"#);
        assert!(matches!(fault, LogoutError::Misconfigured { .. }));
        assert!(matches!(check(503, ""), LogoutError::Later { .. }));
        assert!(matches!(check(429, ""), LogoutError::Later { .. }));
    }

    #[test]
    fn a_session_keeps_its_text_byte_for_byte() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let text = format!(
            r#"{{"access_token":"a.b.c","token_type":"bearer","expires_in":3600,"expires_at":1800000000, "refresh_token":"abcdefghijkl","user":{{"m":{deep},"s":"\ud800"}},"weak_password":null}}"#
        );
        let grant = grant(&format!("\n{text} \r\n"), NOW).unwrap();
        assert_eq!(grant.text.expose(), &text);
        assert_eq!(grant.access_token.expose(), "a.b.c");
        assert_eq!(grant.refresh_token.expose(), "abcdefghijkl");
        assert_eq!(grant.expires_at, 1_800_000_000);
    }

    #[test]
    fn a_missing_end_is_added_as_the_library_adds_it() {
        let check = |body: &str, expected: Option<&str>| {
            let found = grant(body, NOW).map(|grant| grant.text.expose().clone());
            assert_eq!(found.as_deref(), expected, "{body}");
        };
        check(
            r#"{"access_token":"a","refresh_token":"r","expires_in":3600}"#,
            Some(
                r#"{"access_token":"a","refresh_token":"r","expires_in":3600,"expires_at":1767229200}"#,
            ),
        );
        check(
            r#"{"access_token":"a","expires_at":null,"refresh_token":"r","expires_in":"60" }"#,
            Some(
                r#"{"access_token":"a","expires_at":1767225660,"refresh_token":"r","expires_in":"60" }"#,
            ),
        );
        // Neither: the token's own word. {"alg":"ES256"} {"exp":1800000000}
        let token = "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjE4MDAwMDAwMDB9.AA";
        check(
            &format!(r#"{{"access_token":"{token}","refresh_token":"r"}}"#),
            Some(&format!(
                r#"{{"access_token":"{token}","refresh_token":"r","expires_at":1800000000}}"#
            )),
        );
        check(r#"{"access_token":"a","refresh_token":"r"}"#, None);
    }

    #[test]
    fn half_a_session_is_none() {
        for body in [
            "",
            "{}",
            "[]",
            "<html></html>",
            r#"{"access_token":"a","expires_in":3600}"#,
            r#"{"refresh_token":"r","expires_in":3600}"#,
            r#"{"access_token":"","refresh_token":"r","expires_in":3600}"#,
            r#"{"access_token":null,"refresh_token":"r","expires_in":3600}"#,
            r#"{"access_token":["a"],"refresh_token":"r","expires_in":3600}"#,
            r#"{"access_token":"a","refresh_token":"r","expires_in":3600"#,
        ] {
            assert_eq!(grant(body, NOW), None, "{body}");
        }
    }

    #[test]
    fn a_grant_shows_no_token_in_debug() {
        let body = r#"{"access_token":"secret-a","refresh_token":"secret-r","expires_in":3600}"#;
        let shown = format!("{:?}", grant(body, NOW).unwrap());
        assert_eq!(shown, "Grant { expires_at: 1767229200, .. }");
    }

    #[test]
    fn retry_after_is_seconds_and_bounded() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(RETRY_AFTER_MAX));
        for text in ["", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_panic(
            status in any::<u16>(),
            header in proptest::option::of("[ -~]{0,80}"),
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                r#"\{"(code|error_code|error|message|access_token|expires_at|expires_in)":("[ -~é]{0,20}"|-?[0-9e.]{0,9}|null|\[\])(,"refresh_token":"r")?\}?"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            let answer = Answer {
                status,
                code: header.as_deref().and_then(Code::read),
                retry_after: header.as_deref().and_then(retry_after),
                body,
            };
            match answer.success() {
                Ok(text) => {
                    prop_assert!((200..300).contains(&status));
                    if let Some(grant) = grant(&text, NOW) {
                        prop_assert!(members(grant.text.expose(), ["expires_at"]).is_some());
                    }
                    is_object(&text);
                }
                Err(failure) => {
                    if (500..600).contains(&status) || status == 429 {
                        let kept = matches!(RefreshError::from(failure.clone()), RefreshError::Later { .. });
                        prop_assert!(kept);
                    }
                    let _ = (LoginError::from(failure.clone()), LogoutError::from(failure));
                }
            }
        }
    }
}
