//! Refusals in the words of Supabase Auth: two bodies, chosen by the request's API version, and one header that
//! carries the code in both. Also the answers of the API gateway that stands in front of Auth on the platform.

use crate::base::body::Body;
use crate::demo::random::{self, CryptoError};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;
use std::borrow::Cow;

const API_VERSION: HeaderName = HeaderName::from_static("x-supabase-api-version");
const ERROR_CODE: HeaderName = HeaderName::from_static("x-sb-error-code");
/// The version from which on `code` is a word.
const WORDS_SINCE: &str = "2024-01-01";

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// `refresh_token_not_found`, …
    pub(super) code: Cow<'static, str>,
    pub(super) message: Cow<'static, str>,
    /// Reasons of `weak_password`; empty otherwise.
    pub(super) weak: &'static [&'static str],
}

impl ApiError {
    pub(super) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            weak: &[],
        }
    }

    pub(super) fn bad_request(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(super) fn forbidden(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    pub(super) fn unprocessable(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(super) fn unexpected() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "unexpected_failure",
            "Unexpected failure, please check server logs for more information",
        )
    }

    /// The answer in the form that the request's headers ask for.
    pub(super) fn response(&self, asked: &HeaderMap) -> Response<Body> {
        let version = asked.get(API_VERSION).and_then(words_version);
        let mut body = if version.is_some() {
            json!({"code": self.code, "message": self.message})
        } else {
            json!({"code": self.status.as_u16(), "error_code": self.code, "msg": self.message})
        };
        if !self.weak.is_empty() {
            body["weak_password"] = json!({"reasons": self.weak});
        }
        if version.is_none() && self.status.is_server_error() {
            body["error_id"] =
                random::uuid().map_or_else(|_| json!(""), |id| json!(id.to_string()));
        }
        let mut response = super::json(self.status, &body);
        if let Ok(code) = HeaderValue::from_str(&self.code) {
            response.headers_mut().insert(ERROR_CODE, code);
        }
        if version.is_some() {
            let version = HeaderValue::from_static(WORDS_SINCE);
            response.headers_mut().insert(API_VERSION, version);
        }
        response
    }
}

impl From<CryptoError> for ApiError {
    fn from(_: CryptoError) -> Self {
        Self::unexpected()
    }
}

/// `Some` when the header names a date from [`WORDS_SINCE`] on. Dates of this form sort as text.
fn words_version(value: &HeaderValue) -> Option<()> {
    let text = value.to_str().ok()?;
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    (shaped && text >= WORDS_SINCE).then_some(())
}

/// What the platform's API gateway says when `apikey` is missing or wrong: not one of Auth's bodies.
pub(super) fn api_key(missing: bool) -> Response<Body> {
    let body = if missing {
        json!({
            "message": "No API key found in request",
            "hint": "No `apikey` request header or url param was found.",
        })
    } else {
        json!({
            "message": "Invalid API key",
            "hint": "Double check your Supabase `anon` or `service_role` API key.",
        })
    };
    super::json(StatusCode::UNAUTHORIZED, &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn check(version: Option<&'static str>, expected: &str) {
        let mut asked = HeaderMap::new();
        if let Some(version) = version {
            asked.insert(API_VERSION, HeaderValue::from_static(version));
        }
        let error = ApiError::bad_request("refresh_token_not_found", "gone");
        let response = error.response(&asked);
        assert_eq!(response.status(), 400);
        assert_eq!(
            response.headers()["x-sb-error-code"],
            "refresh_token_not_found"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body.to_string(), expected, "{version:?}");
    }

    #[tokio::test]
    async fn the_api_version_chooses_the_body() {
        let words = r#"{"code":"refresh_token_not_found","message":"gone"}"#;
        let older = r#"{"code":400,"error_code":"refresh_token_not_found","msg":"gone"}"#;
        for version in ["2024-01-01", "2026-11-20"] {
            check(Some(version), words).await;
        }
        for version in [None, Some("2023-12-31"), Some("2024"), Some("2024-01-0x")] {
            check(version, older).await;
        }
    }
}
