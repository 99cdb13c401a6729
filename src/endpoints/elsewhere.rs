//! Logins elsewhere (PKCE, RFC 7636): to the provider with a challenge, and back with a code that only the browser which
//! began can turn into a session. A code that somebody else began meets no verifier here, so nobody can be logged in as
//! another by a link (RFC 9700 §4.7).

use super::answer::{Endpoints, no_head};
use super::attempt::{ATTEMPTS_MAX, Attempts};
use super::query::{self, Parameter};
use super::return_to::{Here, Location};
use super::{Asked, Sessions, refusal, reply};
use crate::base::body::Body;
use crate::base::secret::Secret;
use crate::config::value::Origin;
use crate::exchange::{Code, Reject};
use crate::provider::LoginError;
use crate::provider::supabase::pkce::Verifier;
use http::{HeaderMap, Response};
use url::Url;

const PROVIDER_BYTES_MAX: usize = 64;
const SCOPES_BYTES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 512;
/// The verifier is another attempt's.
const NOT_THIS_ONE: &str = "bad_code_verifier";

/// An origin of ours, and where browsers come back to.
#[derive(Debug)]
pub(super) struct Home {
    callback: Url,
    secure: bool,
}

impl Home {
    /// `server.public_url` and the endpoints' path, never what a request says.
    pub(super) fn new(origin: &Origin, base: &str) -> Option<Self> {
        let mut callback = Url::parse(&origin.0).ok()?;
        callback.set_path(&format!("{base}/callback"));
        Some(Self {
            secure: callback.scheme() == "https",
            callback,
        })
    }
}

impl Endpoints {
    /// Which of our origins the browser is at: the same one, else the nearest (something may end TLS for us, or change
    /// ports), else the first.
    fn home(&self, asked: &Asked<'_>) -> Result<&Home, Reject> {
        let here = Here {
            host: asked.host,
            secure: asked.secure,
        };
        let distance = |home: &&Home| {
            let same_host = here.is_host_of(&home.callback);
            match (same_host, home.secure == asked.secure) {
                (true, true) => 0,
                (true, false) => 1,
                _ if home.callback.host_str() == Some(&*asked.host.name) => 2,
                _ => 3,
            }
        };
        self.homes.iter().min_by_key(distance).ok_or_else(|| {
            Reject::new(
                Code::NotSupported,
                "Logins elsewhere need `server.public_url`: the address that the provider sends browsers back to.",
            )
        })
    }

    /// `GET login?provider=github&return_to=/x&scopes=…`
    pub(super) fn start(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        no_head(asked, "GET, POST")?;
        navigates(asked.headers)?;
        if query::parameter(asked.query, "error") != Parameter::Absent {
            // `login_url` is this address, and the browser was sent here by the callback: not in circles.
            return Err(not_completed());
        }
        let named = query::parameter(asked.query, "provider").only("provider")?;
        let named = named.filter(|name| is_provider(name)).ok_or_else(|| {
            refusal::bad(
                "Say with whom to log in: `?provider=github`. With a password, send a POST.",
            )
        })?;
        let scopes = query::parameter(asked.query, "scopes").only("scopes")?;
        if scopes.as_deref().is_some_and(|scopes| !are_scopes(scopes)) {
            return Err(refusal::bad(
                "`scopes` are names between spaces, at most 1024 bytes (RFC 6749 §3.3).",
            ));
        }
        let provider = self.provider()?;
        let home = self.home(asked)?;
        let wanted = query::parameter(asked.query, "return_to").plain();
        let place = self.place(wanted.as_deref(), asked);
        let verifier = Verifier::generate().map_err(|error| {
            Reject::new(Code::Internal, "No login can be begun now.").caused_by(&error)
        })?;
        let challenge = verifier.challenge();
        let to = provider.authorize(&named, &home.callback, scopes.as_deref(), &challenge);
        let now = self.clock.unix();
        let attempts = Attempts::read(asked.headers, home.secure, now);
        for field in attempts.begin(&verifier, &place, now) {
            sessions.tell(field);
        }
        Ok(reply::see_other(&Location::of_url(&to)))
    }

    /// `GET callback?code=…`, or `?error=…` when nobody was logged in there.
    pub(super) async fn callback(
        &self,
        asked: &Asked<'_>,
        sessions: &mut impl Sessions,
    ) -> Result<Response<Body>, Reject> {
        no_head(asked, "GET")?;
        navigates(asked.headers)?;
        let home = self.home(asked)?;
        let attempts = Attempts::read(asked.headers, home.secure, self.clock.unix());
        match query::parameter(asked.query, "error") {
            Parameter::Absent => {}
            error => {
                for field in attempts.clear_dead() {
                    sessions.tell(field);
                }
                return Ok(reply::see_other(&self.told_at_login(&error)));
            }
        }
        let code = query::parameter(asked.query, "code").only("code")?;
        let code = code.filter(|code| {
            code.len() <= CODE_BYTES_MAX && code.bytes().all(|b| b.is_ascii_graphic())
        });
        let code = Secret::new(code.ok_or_else(|| {
            refusal::bad("This address is where a login elsewhere comes back to, with a `code`.")
        })?);
        if attempts.living.is_empty() {
            return Err(refusal::bad(
                "This browser has begun no login in the last ten minutes. Go to the login page and start again, in this browser.",
            ));
        }
        let provider = self.provider()?;
        sessions.may_try(asked)?;
        // A code says nothing of which attempt it belongs to; with a wrong verifier it is not spent.
        for attempt in attempts.living.iter().take(ATTEMPTS_MAX) {
            let outcome = provider
                .exchange(&code, &attempt.verifier, &asked.browser)
                .await;
            match outcome {
                Ok(grant) => {
                    sessions.open(grant, asked).await?;
                    for field in attempts.clear_done(attempt) {
                        sessions.tell(field);
                    }
                    let place = self.place(Some(&attempt.return_to), asked);
                    return Ok(reply::see_other(&place));
                }
                Err(LoginError::Refused { code }) if code == NOT_THIS_ONE => {}
                Err(error) => {
                    if matches!(error, LoginError::Refused { .. }) {
                        sessions.made_up(asked);
                    }
                    return Err(refusal::of(error));
                }
            }
        }
        sessions.made_up(asked);
        Err(refusal::of(LoginError::Refused { code: NOT_THIS_ONE }))
    }

    /// The login page, told in one of two words what became of it: anybody can write the link that brings a browser here,
    /// so nothing of it is shown.
    fn told_at_login(&self, error: &Parameter) -> Location {
        let denied = matches!(error, Parameter::Once(word) if word == "access_denied");
        let word = if denied {
            "access_denied"
        } else {
            "login_failed"
        };
        self.login_url.with("error", word)
    }
}

fn not_completed() -> Reject {
    Reject::new(
        Code::LoginFailed,
        "The login was not completed. Go back and start again.",
    )
    .because("the login elsewhere was not completed")
}

/// Lets top-level navigations through: a browser that a frame, a script or an image of a page has sent here shows nobody
/// what happens, and one that fetches ahead has not been asked to (Fetch Metadata). Old browsers say nothing.
fn navigates(headers: &HeaderMap) -> Result<(), Reject> {
    let only = |name: &str, value: &str| headers.get_all(name).iter().all(|found| found == value);
    let ahead = headers
        .get_all("sec-purpose")
        .iter()
        .any(|purpose| purpose.as_bytes().starts_with(b"prefetch"));
    if ahead || !only("sec-fetch-mode", "navigate") || !only("sec-fetch-dest", "document") {
        return Err(refusal::bad(
            "A login elsewhere is a navigation of the browser itself: link to this address, or set `location`.",
        ));
    }
    Ok(())
}

/// `github`, `linkedin_oidc`, `custom:acme`.
fn is_provider(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b':' | b'.');
    name.len() <= PROVIDER_BYTES_MAX && name.bytes().all(fine)
}

/// RFC 6749 §3.3.
fn are_scopes(text: &str) -> bool {
    let fine = |b: u8| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
    text.len() <= SCOPES_BYTES_MAX && text.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    #[test]
    fn only_top_level_navigations_are_followed() {
        let check = |fields: &[(&str, &str)], expected: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let name: HeaderName = name.parse().unwrap();
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(navigates(&headers).is_ok(), expected, "{fields:?}");
        };
        let (mode, dest) = ("sec-fetch-mode", "sec-fetch-dest");
        check(&[], true);
        check(&[(mode, "navigate")], true);
        check(&[(mode, "navigate"), (dest, "document")], true);
        check(&[(mode, "navigate"), (dest, "iframe")], false);
        check(&[(mode, "cors"), (dest, "empty")], false);
        check(&[(mode, "no-cors"), (dest, "image")], false);
        check(&[(mode, "websocket")], false);
        check(&[(mode, "navigate"), (mode, "cors")], false);
        check(&[(dest, "empty")], false);
        for purpose in ["prefetch", "prefetch;prerender"] {
            check(&[(mode, "navigate"), ("sec-purpose", purpose)], false);
        }
    }

    #[test]
    fn providers_and_scopes_are_short_words() {
        for name in ["github", "linkedin_oidc", "custom:acme", "Azure"] {
            assert!(is_provider(name));
        }
        for name in ["git hub", "git/hub", "git&hub", "é", "a\n", &"a".repeat(65)] {
            assert!(!is_provider(name), "{name}");
        }
        assert!(are_scopes("repo user:email https://x.test/a"));
        for scopes in ["a\nb", "é", "a\"b", "a\\b", &"a".repeat(1025)] {
            assert!(!are_scopes(scopes), "{scopes}");
        }
    }
}
