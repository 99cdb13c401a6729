//! Whom a request is for: the authority of `Host` or `:authority` (RFC 9110 §7.2), read strictly. What stands in both, and
//! which one counts, is decided in `inbound`; which hosts are ours, in the route table.

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use std::borrow::Cow;
use std::net::Ipv6Addr;

/// Bytes of a name (RFC 1035 §3.1 in text).
const NAME_BYTES_MAX: usize = 253;

/// A name, a colon and a port.
const AUTHORITY_BYTES_MAX: usize = NAME_BYTES_MAX + 6;

/// Whom a request is for, checked: a host name or an address literal, perhaps a port, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host<'a> {
    /// Lower case, without the port; an IPv6 address keeps its brackets. Borrowed when it came in lower case.
    pub name: Cow<'a, str>,
    /// When one was given; 1–65535.
    pub port: Option<u16>,
    /// Name and port as they came. Visible ASCII, without user information.
    pub authority: &'a str,
}

impl<'a> Host<'a> {
    /// Reads `name[:port]`. `None` for anything that two parsers could read in two ways: user information, a list,
    /// an empty or zero port, a trailing dot, empty labels, characters outside letters, digits, `-` and `_`.
    pub fn parse(authority: &'a str) -> Option<Self> {
        if authority.len() > AUTHORITY_BYTES_MAX {
            return None;
        }
        let (name, port) = if authority.starts_with('[') {
            let (name, rest) = authority.split_at(authority.find(']')? + 1);
            name[1..name.len() - 1].parse::<Ipv6Addr>().ok()?;
            match rest {
                "" => (name, None),
                _ => (name, Some(rest.strip_prefix(':')?)),
            }
        } else {
            let (name, rest) = authority.split_at(name_end(authority.as_bytes())?);
            (name, rest.strip_prefix(':'))
        };
        Some(Self {
            name: if name.bytes().any(|b| b.is_ascii_uppercase()) {
                Cow::Owned(name.to_ascii_lowercase())
            } else {
                Cow::Borrowed(name)
            },
            port: match port {
                Some(digits) => Some(port_number(digits)?),
                None => None,
            },
            authority,
        })
    }

    /// The authority as a field value. Shares the bytes of the request's own `Host` when that is where it came from.
    pub fn to_value(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match headers.get(HOST) {
            Some(host) if host.as_bytes() == self.authority.as_bytes() => Some(host.clone()),
            _ => HeaderValue::from_str(self.authority).ok(),
        }
    }
}

/// Bytes that labels are made of.
static LABEL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        byte += 1;
    }
    table
};

/// Where the name ends: at the first colon, or with the text. `None` when that is no name. One look at each byte.
fn name_end(authority: &[u8]) -> Option<usize> {
    let mut label_is_empty = true;
    let mut end = authority.len();
    for (at, &byte) in authority.iter().enumerate() {
        match byte {
            _ if LABEL[usize::from(byte)] => label_is_empty = false,
            b'.' if !label_is_empty => label_is_empty = true,
            b':' => {
                end = at;
                break;
            }
            _ => return None,
        }
    }
    (!label_is_empty && end <= NAME_BYTES_MAX).then_some(end)
}

fn port_number(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    // The length is bounded by the number itself.
    if plain { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_reading() {
        let host = Host::parse("App_1.example-x.test:443").unwrap();
        assert_eq!(
            (&*host.name, host.port),
            ("app_1.example-x.test", Some(443))
        );
        assert!(matches!(Host::parse("a.b").unwrap().name, Cow::Borrowed(_)));
        assert_eq!(
            Host::parse("[::FFFF:1.2.3.4]").unwrap().name,
            "[::ffff:1.2.3.4]"
        );
        let odd = "a,b a. .a a..b a: a:0 a:080 a:65536 a:+80 a:80:80 u@a a/b a?b a#b a\\b a%2eb é ::1 [::1 [::1]x \
            [::1]80 [a] [] [fe80::1%25eth0] http://a :80 *";
        for text in odd.split(' ').chain(["", " ", "a b", "a:8 0"]) {
            assert_eq!(Host::parse(text), None, "{text}");
        }
        assert_eq!(Host::parse(&"a".repeat(254)), None);
        assert_eq!(Host::parse(&"1".repeat(300)), None);
    }

    #[test]
    fn the_host_value_is_the_one_that_came() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("APP.test"));
        let host = Host::parse("APP.test").unwrap();
        assert_eq!(host.to_value(&headers).unwrap(), "APP.test");
        assert_eq!(host.to_value(&HeaderMap::new()).unwrap(), "APP.test");
    }
}
