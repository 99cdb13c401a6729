//! Every refusal we can give, and the only place that knows its status (contract, section 4).

use http::StatusCode;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $status:ident, $title:literal;)*) => {
        /// The word of a refusal: in the problem document, the access log and the metrics.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// `bad_request`, `missing_credentials`, …
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// A few words for a person (RFC 9457 §3.1.3 `title`).
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }
        }
    };
}

codes! {
    /// Syntax, ambiguity, two readings.
    BadRequest = "bad_request", BAD_REQUEST, "The request is malformed";
    /// No credential on a protected route.
    MissingCredentials = "missing_credentials", UNAUTHORIZED, "Sign in first";
    /// A token that does not verify, whatever the reason.
    InvalidToken = "invalid_token", UNAUTHORIZED, "The access token is not valid";
    /// A token that verified but is over.
    TokenExpired = "token_expired", UNAUTHORIZED, "The access token has expired";
    /// A session that is over; its cookies are cleared.
    SessionExpired = "session_expired", UNAUTHORIZED, "The session is over";
    /// An API key that does not verify.
    InvalidApiKey = "invalid_api_key", UNAUTHORIZED, "The API key is not valid";
    /// Two credentials of two users.
    IdentityMismatch = "identity_mismatch", UNAUTHORIZED, "The credentials name different users";
    /// Unknown user or wrong password; the two are not told apart.
    LoginFailed = "login_failed", UNAUTHORIZED, "The login failed";
    /// `require` or `client_ips` says no.
    Forbidden = "forbidden", FORBIDDEN, "Not allowed";
    /// A cookie sent from a page that is not ours.
    CsrfRejected = "csrf_rejected", FORBIDDEN, "The request does not come from an allowed page";
    /// No route matches.
    NoRoute = "no_route", NOT_FOUND, "No such address";
    /// The provider or mode cannot do this.
    NotSupported = "not_supported", NOT_FOUND, "Not supported here";
    /// The path matches, the method does not.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The method is not allowed here";
    /// A request body that does not come in time.
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT, "The request body came too slowly";
    /// A request body over `max_body`.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The request body is too large";
    /// A target over `max_uri_bytes`.
    UriTooLong = "uri_too_long", URI_TOO_LONG, "The address is too long";
    /// `Expect` with anything but `100-continue`.
    ExpectationFailed = "expectation_failed", EXPECTATION_FAILED, "The expectation cannot be met";
    /// A host name that is not ours.
    Misdirected = "misdirected", MISDIRECTED_REQUEST, "This server does not answer to that host name";
    /// The provider refuses what was sent (weak password, …).
    ProviderRefused = "provider_refused", UNPROCESSABLE_ENTITY, "The provider refused the request";
    /// Over a rate limit.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// A head over `max_header_bytes` or `max_headers`.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "The request head is too large";
    /// A panic of ours; ends this request only.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// No connection to the upstream.
    UpstreamUnreachable = "upstream_unreachable", BAD_GATEWAY, "The service behind the gateway cannot be reached";
    /// The upstream's answer is not HTTP.
    UpstreamProtocolError = "upstream_protocol_error", BAD_GATEWAY, "The service behind the gateway answered with an error";
    /// None healthy, all ejected, or `max_in_flight` reached.
    UpstreamUnavailable = "upstream_unavailable", SERVICE_UNAVAILABLE, "The service behind the gateway is not available";
    /// Keys, provider, verifier or session store out of reach.
    AuthUnavailable = "auth_unavailable", SERVICE_UNAVAILABLE, "Credentials cannot be checked at the moment";
    /// The gateway itself has too much to do.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "The gateway is overloaded";
    /// No response head in time.
    UpstreamTimeout = "upstream_timeout", GATEWAY_TIMEOUT, "The service behind the gateway did not answer in time";
}

/// A refusal: what the client is told, and what only the log is told.
#[derive(Debug)]
pub struct Reject(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    detail: Cow<'static, str>,
    reason: Cow<'static, str>,
    retry_after: Option<u32>,
    allow: Option<http::HeaderValue>,
    token_sent: bool,
    forwarded: bool,
}

impl Reject {
    /// `detail` is for the client: it says what to do, and never which check on a signature failed, nor an upstream's
    /// address, a role or the client's own input.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let retry_after = (code.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self(Box::new(Inner {
            code,
            detail: detail.into(),
            reason: Cow::Borrowed(""),
            retry_after,
            allow: None,
            token_sent: matches!(code, Code::InvalidToken | Code::TokenExpired),
            forwarded: false,
        }))
    }

    /// What the log is told: which check failed, for whom, why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = reason.into();
        self
    }

    /// What the log is told: an error with everything behind it, on one line.
    #[must_use]
    pub fn caused_by(self, error: &dyn std::error::Error) -> Self {
        self.because(crate::base::cause::chain(error))
    }

    /// Whole seconds after which to try again (RFC 9110 §10.2.3); at least 1.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after = Some(seconds.max(1));
        self
    }

    /// As [`Reject::retry_after`]; what is left of a second counts as one, so that whoever obeys does not come too early.
    #[must_use]
    pub fn retry_after_in(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The methods of `Allow` (RFC 9110 §10.2.1).
    #[must_use]
    pub fn allow(mut self, methods: http::HeaderValue) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// Says that bytes of the request reached an upstream, so that repeating it is not known to be safe.
    #[must_use]
    pub fn forwarded(mut self) -> Self {
        self.0.forwarded = true;
        self
    }

    /// Which refusal.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What the client is told.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// What the log is told; empty when the code says all.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// `Retry-After` in seconds.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.0.retry_after
    }

    /// `Allow`.
    pub fn allowed(&self) -> Option<&http::HeaderValue> {
        self.0.allow.as_ref()
    }

    /// Whether a token was sent: `error="invalid_token"` in `WWW-Authenticate` (RFC 6750 §3.1).
    pub fn token_sent(&self) -> bool {
        self.0.token_sent
    }

    /// Whether any byte reached an upstream.
    pub fn was_forwarded(&self) -> bool {
        self.0.forwarded
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.code.as_str())?;
        if !self.0.reason.is_empty() {
            write!(f, ": {}", self.0.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_code_has_its_own_word_and_an_error_status() {
        let words: HashSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(words.len(), Code::ALL.len());
        assert!(
            Code::ALL
                .iter()
                .all(|c| c.status().is_client_error() || c.status().is_server_error())
        );
    }

    #[test]
    fn every_503_says_when_to_try_again() {
        for code in Code::ALL.iter().filter(|c| c.status() == 503) {
            assert!(Reject::new(*code, "").retry_after_seconds().is_some());
        }
    }
}
