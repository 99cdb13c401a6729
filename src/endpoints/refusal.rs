//! What a client is told when the provider gave nothing. The same for an address that nobody has and for a wrong password.

use crate::exchange::{Code, Reject};
use crate::provider::LoginError;
use std::time::Duration;

/// `Retry-After` of a limit that does not say how long it lasts: Supabase's buckets fill by one every ten seconds at most.
const UNKNOWN_WAIT: Duration = Duration::from_secs(10);

/// The refusal for a call that failed.
pub(super) fn of(error: LoginError) -> Reject {
    match error {
        LoginError::Refused { code } => Reject::new(
            Code::LoginFailed,
            "Nobody can be signed in with what was sent. Check it, or ask for a new code or link, and try again.",
        )
        .because(format!("the provider refused: {code}")),
        LoginError::Rejected { code, message } => {
            let sentence = message.expose().trim();
            let detail = match sentence {
                "" => "The provider does not accept this request.",
                sentence => sentence,
            };
            // Not the sentence: it may repeat what somebody typed.
            Reject::new(Code::ProviderRefused, detail.to_owned())
                .because(format!("the provider rejected: {code}"))
        }
        LoginError::RateLimited { retry_after } => Reject::new(
            Code::RateLimited,
            "Too many attempts. Wait as long as Retry-After says.",
        )
        .because("the provider's limit, or session.provider_budget")
        .retry_after_in(retry_after.unwrap_or(UNKNOWN_WAIT)),
        LoginError::Later { retry_after, why } => unavailable()
            .because(why.to_string())
            .retry_after_in(retry_after.unwrap_or_default()),
        LoginError::Misconfigured { why } => unavailable().because(why.to_string()),
    }
}

/// The provider gave nothing that can be used.
pub(super) fn unavailable() -> Reject {
    Reject::new(
        Code::AuthUnavailable,
        "The sign-in service cannot answer at the moment. Try again soon.",
    )
}

/// A request that says too little or too much.
pub(super) fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Reject {
    Reject::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;

    fn rejected(message: &str) -> LoginError {
        LoginError::Rejected {
            code: crate::provider::Code::default(),
            message: Secret::new(message.to_owned()),
        }
    }

    #[test]
    fn every_refused_credential_reads_the_same() {
        let one = of(LoginError::Refused {
            code: "invalid_credentials",
        });
        let other = of(LoginError::Refused {
            code: "user_banned",
        });
        assert_eq!(one.code(), Code::LoginFailed);
        assert_eq!(one.detail(), other.detail());
        assert_eq!(one.retry_after_seconds(), other.retry_after_seconds());
        assert!(!one.token_sent() && !other.token_sent());
        assert_ne!(one.reason(), other.reason(), "the log knows");
    }

    #[test]
    fn the_providers_sentence_is_for_the_client_alone() {
        let reject = of(rejected("Password should be at least 6 characters."));
        assert_eq!(reject.code(), Code::ProviderRefused);
        assert_eq!(reject.detail(), "Password should be at least 6 characters.");
        assert!(!reject.reason().contains("Password"));
        assert!(!of(rejected(" ")).detail().is_empty());
    }

    #[test]
    fn limits_and_outages_say_when_to_come_back() {
        let limited = |wait| of(LoginError::RateLimited { retry_after: wait });
        let told = |reject: Reject| reject.retry_after_seconds();
        assert_eq!(told(limited(Some(Duration::from_millis(1500)))), Some(2));
        assert_eq!(told(limited(Some(Duration::ZERO))), Some(1));
        assert_eq!(told(limited(None)), Some(10));
        let later = of(LoginError::Later {
            retry_after: Some(Duration::from_secs(7)),
            why: "status 503".into(),
        });
        assert_eq!(later.code(), Code::AuthUnavailable);
        assert_eq!(told(later), Some(7));
        let fault = of(LoginError::Misconfigured {
            why: "status 401".into(),
        });
        assert_eq!(fault.code(), Code::AuthUnavailable);
        assert!(!fault.detail().contains("401") && fault.reason().contains("401"));
        assert_eq!(told(fault), Some(1));
    }
}
