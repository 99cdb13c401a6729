//! The door: which request heads are let in (contract, section 3.1). What the HTTP parser let through and has two
//! readings ends here (RFC 9112 §3.2 and §6.1, RFC 9113 §8.3.1). Changes nothing; see `strip` for what is removed.

use super::host::Host;
use crate::config::server::Server;
use crate::exchange::{Code, Reject};
use http::header::{AUTHORIZATION, COOKIE, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Version};

/// The methods a gateway without a narrower rule lets through, as `Allow` lists them.
pub const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Sizes of a head. hyper's own limits stand above these, so that going over them is answered with a problem.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all fields as HTTP/1.1 writes them: name, colon, space, value, line end. The target does not count.
    pub max_header_bytes: usize,
    /// Fields, repeated ones each.
    pub max_headers: usize,
    /// Bytes of path and query.
    pub max_uri_bytes: usize,
}

impl Limits {
    /// From `[server]`.
    pub fn compile(server: &Server) -> Self {
        Self {
            max_header_bytes: server.max_header_bytes,
            max_headers: server.max_headers,
            max_uri_bytes: server.max_uri_bytes,
        }
    }
}

/// Lets a request head in, or says what is wrong with it, and tells whom it is for. Reads the head once; allocates only
/// to refuse, or to lower the case of a host name.
pub fn admit<'a>(head: &'a Parts, limits: &Limits) -> Result<Host<'a>, Reject> {
    if head.method == Method::TRACE || head.method == Method::CONNECT {
        return Err(
            Reject::new(Code::MethodNotAllowed, "This method is not allowed here.").allow(METHODS),
        );
    }
    let seen = admit_size(head, limits)?;
    admit_target(head)?;
    if seen.framing {
        admit_framing(&head.headers)?;
    }
    if seen.authorization {
        admit_authorization(&head.headers)?;
    }
    host(head)
}

/// Puts the crumbs of an HTTP/2 client's cookies together into the one field that they are (RFC 9113 §8.2.3). To be done
/// before anything reads them.
pub fn join_crumbs(head: &mut Parts) -> Result<(), Reject> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    let mut crumbs = head.headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return Ok(());
    };
    let mut joined = [first.as_bytes(), b"; ", second.as_bytes()].concat();
    for crumb in crumbs {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    let joined = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined))
        .map_err(|_| bad("The cookies are malformed."))?;
    head.headers.insert(COOKIE, joined);
    Ok(())
}

/// Which fields with rules of their own there are: most requests have none, and need no look-up for each.
#[derive(Default)]
struct Seen {
    /// `Transfer-Encoding` or `Expect`.
    framing: bool,
    authorization: bool,
}

fn admit_size(head: &Parts, limits: &Limits) -> Result<Seen, Reject> {
    let target = head.uri.path_and_query().map_or(0, |p| p.as_str().len());
    if target > limits.max_uri_bytes {
        return Err(Reject::new(
            Code::UriTooLong,
            "Shorten the path or the query.",
        ));
    }
    if head.headers.len() > limits.max_headers {
        return Err(Reject::new(
            Code::HeadersTooLarge,
            "Send fewer header fields.",
        ));
    }
    let mut seen = Seen::default();
    let mut bytes = 0;
    for (name, value) in &head.headers {
        bytes += name.as_str().len() + value.len() + 4;
        seen.framing |= *name == TRANSFER_ENCODING || *name == EXPECT;
        seen.authorization |= *name == AUTHORIZATION;
    }
    if bytes > limits.max_header_bytes {
        return Err(Reject::new(
            Code::HeadersTooLarge,
            "Send smaller header fields; large cookies are the usual cause.",
        ));
    }
    Ok(seen)
}

fn admit_target(head: &Parts) -> Result<(), Reject> {
    // A target like `foo` is read as an authority without a scheme, and `*` as a path.
    let absolute = head.uri.authority().is_none()
        || matches!(head.uri.scheme_str(), Some("http") | Some("https"));
    if absolute && head.uri.path().starts_with('/') {
        Ok(())
    } else {
        Err(bad(
            "The request target must be a path that starts with `/`.",
        ))
    }
}

fn admit_framing(headers: &HeaderMap) -> Result<(), Reject> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(first) = codings.next()
        && (codings.next().is_some() || !first.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(bad("`Transfer-Encoding` may only be `chunked`."));
    }
    let understood = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !headers.get_all(EXPECT).iter().all(understood) {
        return Err(Reject::new(
            Code::ExpectationFailed,
            "`Expect` may only be `100-continue`.",
        ));
    }
    Ok(())
}

/// One credential in one field (RFC 6750 §2, RFC 9110 §11.6.2). Schemes whose parameters are lists (Digest, signatures)
/// may use commas; Bearer and Basic have no place for one, and no scheme has one for a second credential.
fn admit_authorization(headers: &HeaderMap) -> Result<(), Reject> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = fields.next() else {
        return Ok(());
    };
    if fields.next().is_some() {
        return Err(bad("Send one `Authorization` field."));
    }
    let value = first.as_bytes();
    let mut rest = value;
    while let Some(comma) = memchr::memchr(b',', rest) {
        rest = rest[comma + 1..].trim_ascii_start();
        if has_scheme(value, b"bearer")
            || has_scheme(value, b"basic")
            || has_scheme(rest, b"bearer")
            || has_scheme(rest, b"basic")
        {
            return Err(bad("Send one credential in `Authorization`."));
        }
    }
    Ok(())
}

fn has_scheme(value: &[u8], scheme: &[u8]) -> bool {
    value
        .split_at_checked(scheme.len())
        .is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(scheme) && matches!(rest.first(), None | Some(b' ' | b'\t'))
        })
}

fn host(head: &Parts) -> Result<Host<'_>, Reject> {
    let mut fields = head.headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (Some(_), Some(_)) => return Err(bad("Send one `Host` field.")),
        (Some(value), None) => Some(value.to_str().map_err(|_| malformed_host())?),
        (None, _) => None,
    };
    let authority = match (head.uri.authority(), field) {
        (Some(target), Some(field)) if !target.as_str().eq_ignore_ascii_case(field) => {
            return Err(bad("The request target and `Host` name different hosts."));
        }
        (_, Some(field)) => field,
        // HTTP/2 says it in `:authority`; HTTP/1.1 demands the field whatever the target says (RFC 9112 §3.2).
        (Some(target), None) if head.version >= Version::HTTP_2 => target.as_str(),
        (_, None) => return Err(bad("Send a `Host` field.")),
    };
    Host::parse(authority).ok_or_else(malformed_host)
}

fn malformed_host() -> Reject {
    bad("`Host` must be a host name or an address, and perhaps a port.")
}

fn bad(detail: &'static str) -> Reject {
    Reject::new(Code::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    const LIMITS: Limits = Limits {
        max_header_bytes: 1000,
        max_headers: 5,
        max_uri_bytes: 100,
    };

    fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut builder = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    fn check(method: &str, target: &str, fields: &[(&str, &str)], expected: Result<&str, Code>) {
        let head = head(method, target, fields);
        let outcome = admit(&head, &LIMITS);
        let short = outcome.as_ref().map(|host| &*host.name);
        assert_eq!(
            short.map_err(Reject::code),
            expected,
            "{method} {target} {fields:?}"
        );
    }

    #[test]
    fn a_plain_request_is_let_in() {
        check("GET", "/", &[("host", "app.test")], Ok("app.test"));
        check("GET", "/?a=b", &[("host", "APP.test:8080")], Ok("app.test"));
        check("OPTIONS", "/a", &[("host", "[::1]:8080")], Ok("[::1]"));
        check(
            "PURGE",
            "/a",
            &[("host", "a"), ("expect", "100-Continue")],
            Ok("a"),
        );
        check(
            "POST",
            "/a",
            &[("host", "a"), ("transfer-encoding", "Chunked")],
            Ok("a"),
        );
    }

    #[test]
    fn a_request_names_exactly_one_host() {
        check("GET", "/", &[], Err(Code::BadRequest));
        check(
            "GET",
            "/",
            &[("host", "a"), ("host", "b")],
            Err(Code::BadRequest),
        );
        check(
            "GET",
            "/",
            &[("host", "a"), ("host", "a")],
            Err(Code::BadRequest),
        );
        check("GET", "http://a/x", &[("host", "b")], Err(Code::BadRequest));
        check(
            "GET",
            "http://a:80/x",
            &[("host", "a")],
            Err(Code::BadRequest),
        );
        check("GET", "http://a/x", &[], Err(Code::BadRequest));
        check("GET", "http://A/x", &[("host", "a")], Ok("a"));
        check(
            "GET",
            "http://u@a/x",
            &[("host", "u@a")],
            Err(Code::BadRequest),
        );
    }

    #[test]
    fn http_2_says_its_host_in_the_authority() {
        let mut head = head("GET", "https://app.test/x", &[]);
        head.version = Version::HTTP_2;
        assert_eq!(admit(&head, &LIMITS).unwrap().name, "app.test");
        head.headers.insert(HOST, HeaderValue::from_static("evil"));
        assert_eq!(
            admit(&head, &LIMITS).unwrap_err().code(),
            Code::BadRequest,
            "they disagree"
        );
        head.uri = "https://u:p@app.test/x".parse().unwrap();
        head.headers.clear();
        assert_eq!(admit(&head, &LIMITS).unwrap_err().code(), Code::BadRequest);
    }

    #[test]
    fn the_crumbs_of_http_2_become_one_field_and_other_fields_stay() {
        let crumbs = [
            ("cookie", "a=1"),
            ("x", "y"),
            ("cookie", "b=2; c"),
            ("cookie", "d=4"),
        ];
        let mut head = head("GET", "https://app.test/", &crumbs);
        join_crumbs(&mut head).unwrap();
        assert_eq!(
            head.headers.get_all(COOKIE).iter().count(),
            3,
            "HTTP/1.1 has none"
        );
        head.version = Version::HTTP_2;
        join_crumbs(&mut head).unwrap();
        let all: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(all, ["a=1; b=2; c; d=4"]);
        assert_eq!(head.headers.len(), 2);
    }

    #[test]
    fn trace_and_connect_are_405_and_say_what_is_allowed() {
        for method in [Method::TRACE, Method::CONNECT] {
            let mut head = head("GET", "/", &[("host", "a")]);
            head.method = method;
            let reject = admit(&head, &LIMITS).unwrap_err();
            assert_eq!(reject.code(), Code::MethodNotAllowed);
            assert!(reject.allowed().is_some());
        }
    }

    #[test]
    fn odd_targets_are_refused() {
        check("OPTIONS", "*", &[("host", "a")], Err(Code::BadRequest));
        check("GET", "a", &[("host", "a")], Err(Code::BadRequest));
        check("GET", "a:80", &[("host", "a:80")], Err(Code::BadRequest));
        check("GET", "ftp://a/x", &[("host", "a")], Err(Code::BadRequest));
    }

    #[test]
    fn framing_that_two_parsers_read_differently_is_refused() {
        for value in [
            "gzip, chunked",
            "identity",
            "chunked, chunked",
            "",
            "xchunked",
        ] {
            check(
                "POST",
                "/",
                &[("host", "a"), ("transfer-encoding", value)],
                Err(Code::BadRequest),
            );
        }
        check(
            "POST",
            "/",
            &[
                ("host", "a"),
                ("transfer-encoding", "chunked"),
                ("transfer-encoding", "chunked"),
            ],
            Err(Code::BadRequest),
        );
        check(
            "POST",
            "/",
            &[("host", "a"), ("expect", "200-ok")],
            Err(Code::ExpectationFailed),
        );
        check(
            "POST",
            "/",
            &[("host", "a"), ("expect", "100-continue"), ("expect", "x")],
            Err(Code::ExpectationFailed),
        );
    }

    #[test]
    fn authorization_is_one_credential() {
        let with = |value, expected| {
            check(
                "GET",
                "/",
                &[("host", "a"), ("authorization", value)],
                expected,
            );
        };
        let refused = Err(Code::BadRequest);
        with("Bearer a.b.c", Ok("a"));
        with("Digest username=\"u\", realm=\"bearer of, news\"", Ok("a"));
        with("AWS4-HMAC-SHA256 Credential=x, Signature=y", Ok("a"));
        with("Bearer a,b", refused);
        with("bearer a, Bearer b", refused);
        with("Basic a, Bearer b", refused);
        with("Basic a,", refused);
        with("Digest realm=\"x\",bearer b", refused);
        with(",Bearer b", refused);
        check(
            "GET",
            "/",
            &[
                ("host", "a"),
                ("authorization", "Bearer a"),
                ("authorization", "Bearer a"),
            ],
            refused,
        );
    }

    #[test]
    fn sizes_are_bounded() {
        let long = "x".repeat(101);
        check(
            "GET",
            &format!("/{long}"),
            &[("host", "a")],
            Err(Code::UriTooLong),
        );
        check(
            "GET",
            &format!("/?{long}"),
            &[("host", "a")],
            Err(Code::UriTooLong),
        );
        let many: Vec<_> = [("host", "a")].into_iter().chain([("a", "1"); 5]).collect();
        check("GET", "/", &many, Err(Code::HeadersTooLarge));
        check("GET", "/", &many[..5], Ok("a"));
        // 9 bytes of `host: a` and its line end, 5 around the value.
        let fits = "x".repeat(1000 - 9 - 5);
        check("GET", "/", &[("host", "a"), ("b", &fits)], Ok("a"));
        let over = format!("{fits}x");
        check(
            "GET",
            "/",
            &[("host", "a"), ("b", &over)],
            Err(Code::HeadersTooLarge),
        );
    }

    #[test]
    fn control_characters_cannot_be_in_a_value() {
        for byte in (0..0x20).chain([0x7f]).filter(|b| *b != b'\t') {
            assert!(HeaderValue::from_bytes(&[b'a', byte]).is_err(), "{byte}");
        }
    }
}
