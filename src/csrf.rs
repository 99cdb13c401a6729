//! Cross-site request forgery (contract, section 3.9): only for credentials that a browser sends by itself. The browser's
//! own account of where a request comes from decides: `Sec-Fetch-Site` (Fetch Metadata), `Origin` (RFC 6454 §7), `Referer`.
//! No token, no state.

use crate::config::value::Origin;
use crate::exchange::{Code, Reject};
use crate::headers::host::Host;
use http::header::{ORIGIN, REFERER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Characters of the client's own words in a log line.
const QUOTE_CHARS_MAX: usize = 100;

/// Whose pages may send unsafe requests with the cookie.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `server.public_url`; empty: the request's own host.
    ours: Box<[Origin]>,
    /// `session.trusted_origins`.
    trusted: Box<[Origin]>,
}

/// What a browser says about the origin of a request.
enum Told<'a> {
    Nothing,
    Once(&'a str),
    /// Twice, or not in ASCII.
    Garbled,
}

/// Whether a request needs the check when a cookie is its credential: it may change something, or it opens a WebSocket,
/// which no same-origin policy guards.
pub fn applies(head: &Parts) -> bool {
    !matches!(
        head.method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE
    ) || is_websocket(&head.headers)
}

/// Whether a request asks for a WebSocket (RFC 6455 §4.1).
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    })
}

impl Rule {
    /// From `server.public_url` and `session.trusted_origins`.
    pub fn compile(ours: &[Origin], trusted: &[Origin]) -> Self {
        Self {
            ours: ours.into(),
            trusted: trusted.into(),
        }
    }

    /// Lets a request through that comes from a page of ours or a trusted one. `host` is the admitted host, `secure`
    /// whether the client's connection is TLS. Ask [`applies`] first; session endpoints check every POST.
    pub fn check(&self, head: &Parts, host: &Host<'_>, secure: bool) -> Result<(), Reject> {
        let headers = &head.headers;
        let (site, origin, referer) = (
            told(headers, &SEC_FETCH_SITE),
            told(headers, &ORIGIN),
            told(headers, &REFERER),
        );
        let refuse = |why: &'static str| Err(self.reject(why, (&site, &origin, &referer), host));
        if let (Told::Garbled, _, _) | (_, Told::Garbled, _) | (_, _, Told::Garbled) =
            (&site, &origin, &referer)
        {
            return refuse("a signal appears twice or is not text");
        }
        let from_ours = |origin: &str| self.is_ours(origin, host, secure);
        match (&origin, &site) {
            (Told::Once("null"), _) => return refuse("the page has no origin"),
            (Told::Once(origin), site) => {
                if !from_ours(origin) && !self.is_trusted(origin) {
                    return refuse("the page is neither ours nor trusted");
                }
                let elsewhere = matches!(site, Told::Once(site) if !is_near(site));
                if elsewhere && !self.is_trusted(origin) {
                    return refuse("the page is of another origin and not trusted");
                }
                if let Told::Once(referer) = referer
                    && origin_of(referer) != *origin
                {
                    return refuse("the signals contradict each other");
                }
            }
            (_, _) if is_websocket(headers) => return refuse("a handshake without an origin"),
            (_, Told::Once(site)) if is_near(site) => match referer {
                Told::Once(referer)
                    if !from_ours(origin_of(referer)) && !self.is_trusted(origin_of(referer)) =>
                {
                    return refuse("the signals contradict each other");
                }
                _ => {}
            },
            (_, Told::Once(_)) => return refuse("the page is of another origin"),
            _ => match referer {
                Told::Once(referer) if from_ours(origin_of(referer)) => {}
                _ => return refuse("nothing says which page sent it"),
            },
        }
        Ok(())
    }

    fn is_trusted(&self, origin: &str) -> bool {
        self.trusted.iter().any(|trusted| *trusted.0 == *origin)
    }

    /// Scheme, host and port of `public_url`; without one, host and port of the request itself. A page that came without
    /// TLS is never ours on a connection with it: anybody on the way could have written that page.
    fn is_ours(&self, origin: &str, host: &Host<'_>, secure: bool) -> bool {
        if !self.ours.is_empty() {
            return self.ours.iter().any(|ours| *ours.0 == *origin);
        }
        let (default_port, rest) = if let Some(rest) = origin.strip_prefix("https://") {
            (443, rest)
        } else if let Some(rest) = origin.strip_prefix("http://").filter(|_| !secure) {
            (80, rest)
        } else {
            return false;
        };
        Host::parse(rest).is_some_and(|from| {
            from.name == host.name
                && from.port.unwrap_or(default_port) == host.port.unwrap_or(default_port)
        })
    }

    fn reject(
        &self,
        why: &str,
        (site, origin, referer): (&Told<'_>, &Told<'_>, &Told<'_>),
        host: &Host<'_>,
    ) -> Reject {
        let ours = match self.ours.first() {
            Some(origin) => &*origin.0,
            None => host.authority,
        };
        Reject::new(
            Code::CsrfRejected,
            "Send this request from a page of this site, so that the browser says `Origin` and `Sec-Fetch-Site: same-origin`. \
             Other sites must be listed in session.trusted_origins, and programs should send `Authorization: Bearer` instead of a cookie.",
        )
        .because(format!(
            "{why}: Origin {}, Sec-Fetch-Site {}, Referer {}, ours is `{ours}`",
            quoted(origin, |text| text),
            quoted(site, |text| text),
            // Its path may hold secrets.
            quoted(referer, origin_of),
        ))
    }
}

/// The page is of the origin that the browser asked, or there is no page: a person typed it.
fn is_near(site: &str) -> bool {
    matches!(site, "same-origin" | "none")
}

fn told<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Told<'a> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Told::Nothing,
        (Some(Ok(text)), None) => Told::Once(text),
        _ => Told::Garbled,
    }
}

/// Scheme and authority of a URL as browsers write it, without its path.
fn origin_of(url: &str) -> &str {
    let authority = url.find("://").map_or(url.len(), |at| at + 3);
    let end = url[authority..]
        .find(['/', '?', '#'])
        .map_or(url.len(), |at| authority + at);
    &url[..end]
}

fn quoted<'a>(told: &Told<'a>, part: impl Fn(&'a str) -> &'a str) -> String {
    match told {
        Told::Nothing => "absent".to_owned(),
        Told::Garbled => "garbled".to_owned(),
        Told::Once(text) => {
            let text: String = part(text).chars().take(QUOTE_CHARS_MAX).collect();
            format!("`{}`", text.escape_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const OURS: &str = "https://app.test";
    const TRUSTED: &str = "https://admin.test";
    const EVIL: &str = "https://evil.test";

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri("/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn rule(ours: &[&str]) -> Rule {
        let origins = |list: &[&str]| list.iter().map(|o| Origin((*o).into())).collect::<Vec<_>>();
        Rule::compile(&origins(ours), &origins(&[TRUSTED]))
    }

    fn passes(rule: &Rule, host: &str, secure: bool, fields: &[(&str, &str)]) -> bool {
        let outcome = rule.check(&head("POST", fields), &Host::parse(host).unwrap(), secure);
        if let Err(reject) = &outcome {
            assert_eq!(reject.code(), Code::CsrfRejected);
        }
        outcome.is_ok()
    }

    /// With a public URL. Empty text: the field is absent.
    fn check(site: &str, origin: &str, referer: &str, expected: bool) {
        let fields = [
            ("sec-fetch-site", site),
            ("origin", origin),
            ("referer", referer),
        ];
        let sent: Vec<_> = fields.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        assert_eq!(
            passes(&rule(&[OURS]), "app.test", true, &sent),
            expected,
            "{sent:?}"
        );
    }

    #[test]
    fn sec_fetch_site_decides_unless_the_origin_is_trusted() {
        check("same-origin", "", "", true);
        check("none", "", "", true);
        check("same-site", "", "", false);
        check("cross-site", "", "", false);
        check("Same-Origin", "", "", false);
        check("whatever", "", "", false);
        check("cross-site", TRUSTED, "", true);
        check("same-site", TRUSTED, "", true);
        check("cross-site", EVIL, "", false);
        // A `Referer` never makes up for it.
        check("cross-site", "", "https://app.test/x", false);
    }

    #[test]
    fn an_origin_is_ours_or_trusted_compared_whole() {
        check("", OURS, "", true);
        check("same-origin", OURS, "", true);
        check("none", OURS, "", true);
        check("", TRUSTED, "", true);
        // A development server that hands its own pages' requests on to us.
        check("same-origin", TRUSTED, "", true);
        for origin in [
            EVIL,
            "null",
            "NULL",
            "http://app.test",
            "https://app.test:444",
            "https://app.test:443",
            "https://app.test.evil.test",
            "https://evilapp.test",
            "https://APP.test",
            "https://app.test/",
            "app.test",
            "https://app.test https://evil.test",
        ] {
            check("", origin, "", false);
            check("same-origin", origin, "", false);
            check("none", origin, "", false);
        }
    }

    #[test]
    fn without_both_a_referer_of_ours_is_needed() {
        check("", "", "https://app.test/page?x", true);
        check("", "", "https://app.test", true);
        check("", "", "", false);
        for referer in [
            "https://evil.test/",
            "https://app.test.evil.test/",
            "https://app.test@evil.test/",
            "https://app.test\\@evil.test/",
            "http://app.test/",
            "https://app.test:444/",
            "/page",
            "app.test",
            "https://evil.test/https://app.test/",
            "https://evil.test?https://app.test/",
            "https://admin.test/",
        ] {
            check("", "", referer, false);
        }
    }

    #[test]
    fn signals_that_contradict_each_other_are_refused() {
        check("cross-site", OURS, "", false);
        check("same-site", OURS, "", false);
        check("same-origin", OURS, "https://evil.test/", false);
        check("", OURS, "https://evil.test/", false);
        check("same-origin", "", "https://evil.test/", false);
        check("none", "", "https://evil.test/", false);
        check("same-origin", "", "https://app.test/x", true);
        check("same-origin", OURS, "https://app.test/x", true);
        check("cross-site", TRUSTED, "https://admin.test/x", true);
    }

    #[test]
    fn signals_that_appear_twice_are_refused() {
        let once = [
            ("sec-fetch-site", "same-origin"),
            ("origin", OURS),
            ("referer", "https://app.test/"),
        ];
        assert!(passes(&rule(&[OURS]), "app.test", true, &once));
        for twice in once {
            let fields: Vec<_> = once.into_iter().chain([twice]).collect();
            assert!(
                !passes(&rule(&[OURS]), "app.test", true, &fields),
                "{twice:?}"
            );
        }
        assert!(!passes(
            &rule(&[OURS]),
            "app.test",
            true,
            &[("origin", "https://äpp.test")]
        ));
    }

    #[test]
    fn without_a_public_url_the_origin_must_be_the_host() {
        for (origin, host, secure, expected) in [
            ("http://localhost:3000", "localhost:3000", false, true),
            ("https://app.test", "app.test", true, true),
            ("https://app.test", "APP.test", true, true),
            ("https://app.test", "app.test:443", true, true),
            ("http://app.test", "app.test:80", false, true),
            ("https://[::1]:8443", "[::1]:8443", true, true),
            // Behind something that ends TLS and does not say so.
            ("https://app.test", "app.test", false, true),
            ("http://app.test", "app.test", true, false),
            ("http://localhost:3001", "localhost:3000", false, false),
            ("http://localhost", "localhost:3000", false, false),
            ("https://app.test", "app.test:80", false, false),
            ("https://evil.test", "app.test", true, false),
            ("https://u@app.test", "app.test", true, false),
            ("ftp://app.test", "app.test", false, false),
            ("null", "app.test", false, false),
        ] {
            let fields = [("origin", origin)];
            assert_eq!(
                passes(&rule(&[]), host, secure, &fields),
                expected,
                "{origin} {host}"
            );
        }
        assert!(passes(
            &rule(&[]),
            "app.test",
            true,
            &[("referer", "https://app.test/x")]
        ));
        assert!(!passes(
            &rule(&[]),
            "app.test",
            true,
            &[("referer", "https://evil.test/x")]
        ));
    }

    #[test]
    fn unsafe_methods_and_handshakes_are_checked() {
        for (method, fields, expected) in [
            ("GET", &[][..], false),
            ("HEAD", &[], false),
            ("OPTIONS", &[], false),
            ("POST", &[], true),
            ("PUT", &[], true),
            ("DELETE", &[], true),
            ("get", &[], true),
            ("PROPFIND", &[], true),
            ("GET", &[("upgrade", "WebSocket")], true),
            ("GET", &[("upgrade", "h2c, websocket")], true),
            ("GET", &[("upgrade", "h2c")], false),
        ] {
            assert_eq!(
                applies(&head(method, fields)),
                expected,
                "{method} {fields:?}"
            );
        }
    }

    #[test]
    fn a_handshake_needs_an_origin() {
        let handshake = ("upgrade", "websocket");
        let rule = rule(&[OURS]);
        let passes = |fields: &[_]| passes(&rule, "app.test", true, fields);
        assert!(passes(&[handshake, ("origin", OURS)]));
        assert!(passes(&[handshake, ("origin", TRUSTED)]));
        assert!(!passes(&[handshake, ("origin", EVIL)]));
        assert!(!passes(&[handshake]));
        assert!(!passes(&[handshake, ("sec-fetch-site", "same-origin")]));
        assert!(!passes(&[handshake, ("referer", "https://app.test/")]));
    }

    #[test]
    fn the_log_names_both_origins_and_stays_short() {
        let long = format!("https://evil.test/{}", "x".repeat(5000));
        let fields = [
            ("origin", &*long),
            ("referer", "https://evil.test/secret?token=1"),
        ];
        let host = Host::parse("app.test").unwrap();
        let reject = rule(&[OURS])
            .check(&head("POST", &fields), &host, true)
            .unwrap_err();
        let reason = reject.reason();
        assert!(
            reason.contains("`https://evil.test/xxx") && reason.contains(OURS),
            "{reason}"
        );
        assert!(!reason.contains("secret") && reason.len() < 500, "{reason}");
        assert!(
            !reject.detail().contains("evil"),
            "the client's own words stay in the log"
        );
    }
}
