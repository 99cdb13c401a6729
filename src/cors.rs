//! Cross-origin resource sharing (Fetch standard, "CORS protocol"): preflights are answered here, without
//! authentication and without the upstream; every other answer of such a route gets its fields from here alone.

use crate::config::rate_limit::{AllowOrigins, Cors};
use crate::config::value::Origin;
use crate::headers::security::vary;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

/// `[cors]` or a route's `cors`, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Origin as it is compared, and whether it may send credentials.
    origins: Box<[(Box<[u8]>, bool)]>,
    /// Any other origin, without credentials.
    any: bool,
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    max_age: HeaderValue,
}

/// What an origin gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Nothing,
    /// `*`
    Anybody,
    /// Itself.
    Itself {
        credentials: bool,
    },
}

impl Rule {
    /// `trusted_origins` of the session are part of every rule: their pages may send the cookie, so they may read the
    /// answers, unless `allow_credentials = false`. Credentials never go with `*`.
    pub fn compile(cors: &Cors, trusted_origins: &[Origin]) -> Self {
        let (any, listed) = match &cors.allow_origins {
            AllowOrigins::Any => (true, &[][..]),
            AllowOrigins::List(origins) => (false, &origins[..]),
        };
        let mut origins: Vec<(Box<[u8]>, bool)> = Vec::new();
        for origin in listed.iter().chain(trusted_origins) {
            let trusted = trusted_origins.contains(origin);
            let text: Box<[u8]> = origin.0.as_bytes().into();
            if origins.iter().all(|(known, _)| *known != text) {
                origins.push((text, cors.allow_credentials.unwrap_or(trusted)));
            }
        }
        Self {
            origins: origins.into(),
            any,
            methods: cors.allow_methods.as_deref().and_then(methods_value),
            headers: list(cors.allow_headers.iter().map(HeaderName::as_str)),
            expose: list(cors.expose_headers.iter().map(HeaderName::as_str)),
            max_age: HeaderValue::from(cors.max_age.as_secs()),
        }
    }

    /// Exact comparison of whole origins: no suffix, no pattern, no case. `null` is nobody's, not even under `*`.
    fn grant(&self, origin: Option<&HeaderValue>) -> Grant {
        let Some(origin) = origin.map(HeaderValue::as_bytes) else {
            return Grant::Nothing;
        };
        match self.origins.iter().find(|(known, _)| **known == *origin) {
            Some((_, credentials)) => Grant::Itself {
                credentials: *credentials,
            },
            None if self.any && origin != b"null" => Grant::Anybody,
            None => Grant::Nothing,
        }
    }

    fn allow(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) -> bool {
        match (self.grant(origin), origin) {
            (Grant::Anybody, _) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                true
            }
            (Grant::Itself { credentials }, Some(origin)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                if credentials {
                    headers.insert(
                        ACCESS_CONTROL_ALLOW_CREDENTIALS,
                        HeaderValue::from_static("true"),
                    );
                }
                true
            }
            _ => false,
        }
    }
}

/// Whether a request is a preflight: `OPTIONS` with `Origin` and `Access-Control-Request-Method`.
pub fn is_preflight(head: &Parts) -> bool {
    head.method == Method::OPTIONS
        && head.headers.contains_key(ORIGIN)
        && head.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The method a preflight asks for: the one to route it by. `None` when it asks for none or for several.
pub fn requested_method(head: &Parts) -> Option<Method> {
    let mut values = head.headers.get_all(ACCESS_CONTROL_REQUEST_METHOD).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Method::from_bytes(value.as_bytes()).ok(),
        _ => None,
    }
}

/// The answer to a preflight; `None` when the request is none or the route has no rule. `route_methods` is what the
/// route accepts, for rules that do not name methods ([`methods_value`]).
pub fn preflight(
    rule: Option<&Rule>,
    head: &Parts,
    route_methods: &HeaderValue,
) -> Option<Response<()>> {
    let rule = rule.filter(|_| is_preflight(head))?;
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(
        VARY,
        HeaderValue::from_static(
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    );
    if rule.allow(only_origin(&head.headers), headers) {
        let methods = rule.methods.as_ref().unwrap_or(route_methods);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        if let Some(names) = &rule.headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(ACCESS_CONTROL_MAX_AGE, rule.max_age.clone());
    }
    Some(answer)
}

/// Gives an answer of a route with a rule its fields, whoever made it and whatever it says. `origin` is the request's
/// ([`only_origin`]). An upstream's own fields are replaced: two answers to one question are none.
pub fn answer(rule: &Rule, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    let theirs = |name: &&HeaderName| name.as_str().starts_with("access-control-");
    while let Some(name) = headers.keys().find(theirs).cloned() {
        headers.remove(name);
    }
    vary(headers, "Origin");
    if rule.allow(origin, headers)
        && let Some(names) = &rule.expose
    {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
    }
}

/// The request's `Origin`, when it sends exactly one.
pub fn only_origin(request: &HeaderMap) -> Option<&HeaderValue> {
    let mut values = request.get_all(ORIGIN).iter();
    values.next().filter(|_| values.next().is_none())
}

/// `GET, HEAD, POST`; `None` for none at all.
pub fn methods_value(methods: &[Method]) -> Option<HeaderValue> {
    list(methods.iter().map(Method::as_str))
}

fn list<'a>(members: impl Iterator<Item = &'a str>) -> Option<HeaderValue> {
    let text = members.collect::<Vec<_>>().join(", ");
    if text.is_empty() {
        return None;
    }
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use std::time::Duration;

    fn origin(text: &str) -> Origin {
        Origin(text.into())
    }

    fn config(origins: &[&str], credentials: Option<bool>) -> Cors {
        Cors {
            allow_origins: match origins {
                ["*"] => AllowOrigins::Any,
                _ => AllowOrigins::List(origins.iter().map(|o| origin(o)).collect()),
            },
            allow_methods: None,
            allow_headers: vec![
                HeaderName::from_static("x-a"),
                HeaderName::from_static("x-b"),
            ],
            expose_headers: vec![HeaderName::from_static("x-request-id")],
            allow_credentials: credentials,
            max_age: Duration::from_secs(600),
        }
    }

    fn rule(origins: &[&str], credentials: Option<bool>) -> Rule {
        Rule::compile(
            &config(origins, credentials),
            &[origin("https://trusted.test")],
        )
    }

    fn answered(rule: &Rule, from: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [
            "access-control-allow-origin",
            "access-control-allow-credentials",
            "access-control-allow-private-network",
        ] {
            headers.append(name, HeaderValue::from_static("true"));
        }
        headers.append(
            "access-control-allow-origin",
            HeaderValue::from_static("https://evil.test"),
        );
        answer(
            rule,
            from.map(HeaderValue::from_static).as_ref(),
            &mut headers,
        );
        headers
    }

    /// What the origin gets: its `Access-Control-Allow-Origin`, and whether with credentials.
    fn check(rule: &Rule, from: Option<&'static str>, expected: Option<(&str, bool)>) {
        let headers = answered(rule, from);
        let values: Vec<_> = headers
            .get_all(ACCESS_CONTROL_ALLOW_ORIGIN)
            .iter()
            .collect();
        assert!(values.len() <= 1, "{from:?}");
        let credentials = headers.get(ACCESS_CONTROL_ALLOW_CREDENTIALS).is_some();
        let given = values.first().map(|v| (v.to_str().unwrap(), credentials));
        assert_eq!(given, expected, "{from:?}");
        assert_eq!(headers[VARY], "Origin", "{from:?}");
        let exposed = headers.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS);
        assert_eq!(exposed, expected.is_some(), "{from:?}");
        assert!(!headers.contains_key("access-control-allow-private-network"));
    }

    #[test]
    fn only_a_listed_origin_is_let_in_compared_whole() {
        let rule = rule(&["https://a.test", "http://a.test:8080"], None);
        check(
            &rule,
            Some("https://a.test"),
            Some(("https://a.test", false)),
        );
        check(
            &rule,
            Some("http://a.test:8080"),
            Some(("http://a.test:8080", false)),
        );
        for other in [
            "null",
            "",
            "*",
            "https://A.test",
            "https://a.test.",
            "https://a.test:443",
            "http://a.test",
            "https://a.test.evil",
            "https://evila.test",
            "https://a.test ",
            "https://a.test,https://b.test",
        ] {
            check(&rule, Some(other), None);
        }
        check(&rule, None, None);
    }

    #[test]
    fn credentials_go_to_trusted_origins_unless_the_rule_says_otherwise() {
        let own = |credentials| rule(&["https://a.test"], credentials);
        let trusted = "https://trusted.test";
        check(&own(None), Some(trusted), Some((trusted, true)));
        check(
            &own(Some(true)),
            Some("https://a.test"),
            Some(("https://a.test", true)),
        );
        check(&own(Some(false)), Some(trusted), Some((trusted, false)));
    }

    #[test]
    fn a_star_is_for_anybody_and_never_with_credentials() {
        for credentials in [None, Some(true), Some(false)] {
            let rule = rule(&["*"], credentials);
            check(&rule, Some("https://x.test"), Some(("*", false)));
            check(&rule, Some("null"), None);
        }
        let trusted = "https://trusted.test";
        check(&rule(&["*"], None), Some(trusted), Some((trusted, true)));
    }

    fn head(method: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri("/x");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    const ASK: (&str, &str) = ("access-control-request-method", "PUT");

    #[test]
    fn a_preflight_is_answered_with_the_routes_methods() {
        let methods = HeaderValue::from_static("GET, PUT");
        let head = head("OPTIONS", &[("origin", "https://a.test"), ASK]);
        assert_eq!(requested_method(&head), Some(Method::PUT));
        let own = rule(&["https://a.test"], None);
        let answer = preflight(Some(&own), &head, &methods).unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        let headers = answer.headers();
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.test");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(headers[ACCESS_CONTROL_ALLOW_HEADERS], "x-a, x-b");
        assert_eq!(headers[ACCESS_CONTROL_MAX_AGE], "600");
        let narrow = Cors {
            allow_methods: Some(vec![Method::GET]),
            ..config(&["https://a.test"], None)
        };
        let answer = preflight(Some(&Rule::compile(&narrow, &[])), &head, &methods).unwrap();
        assert_eq!(answer.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET");
        assert!(
            preflight(None, &head, &methods).is_none(),
            "no rule, no answer"
        );
    }

    #[test]
    fn a_preflight_of_a_stranger_gets_nothing_but_vary() {
        let methods = HeaderValue::from_static("GET");
        let own = rule(&["https://a.test"], None);
        for fields in [
            &[("origin", "https://evil.test"), ASK][..],
            &[("origin", "null"), ASK],
            &[
                ("origin", "https://a.test"),
                ("origin", "https://a.test"),
                ASK,
            ],
        ] {
            let answer = preflight(Some(&own), &head("OPTIONS", fields), &methods).unwrap();
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
            assert_eq!(answer.headers().len(), 1, "{fields:?}");
            assert!(
                answer.headers()[VARY]
                    .to_str()
                    .unwrap()
                    .starts_with("Origin")
            );
        }
    }

    #[test]
    fn only_a_preflight_is_one() {
        let methods = HeaderValue::from_static("GET");
        let own = rule(&["https://a.test"], None);
        let origin = ("origin", "https://a.test");
        for (method, fields) in [
            ("GET", &[origin, ASK][..]),
            ("OPTIONS", &[origin]),
            ("OPTIONS", &[ASK]),
        ] {
            assert!(
                preflight(Some(&own), &head(method, fields), &methods).is_none(),
                "{method}"
            );
        }
        assert_eq!(requested_method(&head("OPTIONS", &[ASK, ASK])), None);
    }

    #[test]
    fn a_doubled_origin_is_nobodys() {
        let own = rule(&["https://a.test"], None);
        let granted = |fields: &[(&'static str, &'static str)]| {
            own.grant(only_origin(&head("GET", fields).headers)) != Grant::Nothing
        };
        let one = ("origin", "https://a.test");
        assert!(granted(&[one]));
        assert!(!granted(&[one, one]));
        assert!(!granted(&[("origin", "https://b.test")]));
    }
}
