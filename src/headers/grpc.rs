//! What gRPC says in header fields (the "gRPC over HTTP2" document of the gRPC project).

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a message is one of gRPC: `application/grpc`, alone or with a suffix or parameters. gRPC-Web is another protocol,
/// made for HTTP/1.1, and `application/grpcx` is nobody's.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let parted = value.as_bytes().split_at_checked(GRPC.len());
        parted.is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';'))
        })
    })
}

/// How long the client of a call waits for all of it. It may be anything; what a call may take at most is the route's.
pub fn patience(headers: &HeaderMap) -> Option<Duration> {
    let timeout = headers.get(GRPC_TIMEOUT)?;
    parse_timeout(timeout).filter(|_| is_grpc(headers))
}

/// One to eight digits and a unit. What is malformed is the upstream's to refuse.
fn parse_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_its_type_alone_or_with_a_suffix_or_parameters() {
        let check = |content_type: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            assert_eq!(is_grpc(&headers), expected, "{content_type}");
        };
        check("application/grpc", true);
        check("application/grpc+proto", true);
        check("Application/GRPC;x=y", true);
        for other in [
            "",
            "application/grp",
            "application/grpcx",
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc, text/html",
            "application/json",
        ] {
            check(other, false);
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let check = |text: &'static str, expected| {
            let found = parse_timeout(&HeaderValue::from_static(text));
            assert_eq!(found, expected, "{text}");
        };
        check("500m", Some(Duration::from_millis(500)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3600)));
        check("1S", Some(Duration::from_secs(1)));
        check("2M", Some(Duration::from_secs(120)));
        check("3u", Some(Duration::from_micros(3)));
        check("4n", Some(Duration::from_nanos(4)));
        for text in ["", "S", "5", "123456789S", "-1S", "1 S", "1s", "1.5S"] {
            check(text, None);
        }
    }

    #[test]
    fn only_a_call_of_grpc_has_a_client_that_says_how_long_it_waits() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("1S"));
        assert_eq!(patience(&headers), None);
        let grpc = HeaderValue::from_static("application/grpc+proto");
        headers.insert(CONTENT_TYPE, grpc);
        assert_eq!(patience(&headers), Some(Duration::from_secs(1)));
        headers.insert(GRPC_TIMEOUT, HeaderValue::from_static("soon"));
        assert_eq!(patience(&headers), None);
        headers.remove(GRPC_TIMEOUT);
        assert_eq!(patience(&headers), None);
    }
}
