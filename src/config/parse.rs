//! From text to the values of [`super::value`]. Each error is a hint: what to write instead, never the value itself.

pub(super) use super::parse_pattern::{capture, host, path};
use super::value::{ClaimPath, Endpoint, IdentityValue, LimitBy, ListenAddr, Origin, Rate};
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// `"250ms"`, `"30s"`, `"10m"`, `"24h"`, `"7d"`, also `"1h30m"`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return Err("it is empty".into());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits]
            .parse()
            .map_err(|_| "write a whole number and a unit: ms, s, m, h or d")?;
        let unit = &rest[digits..];
        let unit = &unit[..unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len())];
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err("it has no unit; use ms, s, m, h or d".into()),
            _ => return Err("the unit is one of ms, s, m, h, d".into()),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis);
        total = part
            .and_then(|part| total.checked_add(part))
            .ok_or("it is too long")?;
        rest = &rest[digits + unit.len()..];
    }
    Ok(total)
}

/// `"500B"`, `"16KiB"`, `"10MiB"`, `"1GiB"`, and the decimal `KB`, `MB`, `GB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits]
        .parse()
        .map_err(|_| "write a whole number and a unit: B, KiB, MiB or GiB")?;
    let unit: u64 = match text[digits..].trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "" => return Err("it has no unit; use B, KiB, MiB or GiB".into()),
        _ => return Err("the unit is one of B, KiB, MiB, GiB".into()),
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| "it is too large".into())
}

/// `"500B/s"`, `"16KiB/s"`; `"0B/s"` is none.
pub(super) fn bytes_per_second(text: &str) -> Result<u64, String> {
    size(text.strip_suffix("/s").ok_or("it ends in `/s`")?)
}

/// `"60/min"`, `"10/s"`, `"60/5m"`.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let (count, per) = text
        .split_once('/')
        .ok_or("write a count, `/` and a span: \"60/min\"")?;
    let count = count.trim().parse().ok().and_then(NonZeroU32::new);
    let count = count.ok_or("the count before `/` is a whole number of at least 1")?;
    let per = match per.trim() {
        "s" | "sec" | "second" => Duration::from_secs(1),
        "m" | "min" | "minute" => Duration::from_secs(60),
        "h" | "hour" => Duration::from_secs(3600),
        "d" | "day" => Duration::from_secs(86_400),
        other => {
            span(other).map_err(|_| "after `/` comes s, min, h, d, or a duration such as 5m")?
        }
    };
    if per.is_zero() || per > Duration::from_secs(31 * 86_400) {
        return Err("the span is from 1ms to 31 days".into());
    }
    Ok(Rate { count, per })
}

/// `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/tollhouse.sock`.
pub(super) fn listen(text: &str) -> Result<ListenAddr, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("after `unix:` comes an absolute path".into());
        }
        return Ok(ListenAddr::Unix(PathBuf::from(path)));
    }
    if let Ok(address) = text.parse() {
        return Ok(ListenAddr::Tcp(address));
    }
    Err(
        if text.starts_with(':') || text.bytes().all(|b| b.is_ascii_digit()) {
            "write the address, too: 127.0.0.1 for this machine only, 0.0.0.0 for every network"
                .into()
        } else if text.starts_with("localhost") {
            "write 127.0.0.1 or [::1] instead of localhost".into()
        } else if text.contains("://") {
            "leave the scheme out".into()
        } else if text.parse::<std::net::IpAddr>().is_ok() {
            "the port is missing".into()
        } else {
            "an IP address and a port, or unix: and a path".into()
        },
    )
}

/// A URL that names an origin and nothing else.
pub(super) fn origin(text: &str) -> Result<Origin, String> {
    let url = http_url(text)?;
    if url.path() != "/" || text.ends_with("//") {
        return Err("leave the path out: only scheme, host and port count".into());
    }
    Ok(Origin(url.origin().ascii_serialization().into()))
}

/// An http or https URL without user, query and fragment.
pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            String::from("begin it with https:// or http://")
        }
        error => error.to_string(),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("begin it with https:// or http://".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password out".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("leave out what follows `?` or `#`".into());
    }
    Ok(url)
}

/// Where an upstream is, and the path of its URL without a trailing slash.
pub(super) fn endpoint(text: &str) -> Result<(Endpoint, Arc<str>), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        if !path.starts_with('/') {
            return Err("after `unix:` comes an absolute path".into());
        }
        return Ok((Endpoint::Unix(PathBuf::from(path)), "".into()));
    }
    let url = http_url(text)?;
    let host: Arc<str> = match url.host() {
        Some(url::Host::Domain(name)) => name.into(),
        Some(url::Host::Ipv4(ip)) => ip.to_string().into(),
        Some(url::Host::Ipv6(ip)) => ip.to_string().into(),
        None => return Err("it has no host".into()),
    };
    let port = url.port_or_known_default().ok_or("it has no port")?;
    let base = url.path().trim_end_matches('/').into();
    Ok((
        if url.scheme() == "https" {
            Endpoint::Https { host, port }
        } else {
            Endpoint::Http { host, port }
        },
        base,
    ))
}

/// `app_metadata.role`.
pub(super) fn claim(text: &str) -> Result<ClaimPath, String> {
    let steps: Vec<Arc<str>> = text.split('.').map(Into::into).collect();
    if steps.iter().any(|step| step.is_empty()) || steps.len() > 16 {
        return Err("names of claims, separated by single dots".into());
    }
    Ok(ClaimPath(steps))
}

/// A claim path, or `@roles` and its kin.
pub(super) fn identity_value(text: &str) -> Result<IdentityValue, String> {
    match text {
        "@roles" => Ok(IdentityValue::Roles),
        "@scopes" => Ok(IdentityValue::Scopes),
        "@provider" => Ok(IdentityValue::Provider),
        "@credential" => Ok(IdentityValue::Credential),
        "@api_key_id" => Err("API keys are not supported yet".into()),
        other if other.starts_with('@') => {
            Err("known: `@roles`, `@scopes`, `@provider`, `@credential`".into())
        }
        other => claim(other).map(IdentityValue::Claim),
    }
}

/// One part of a limiter's key.
pub(super) fn limit_by(text: &str) -> Result<LimitBy, String> {
    match text {
        "ip" => Ok(LimitBy::Ip),
        "user" => Ok(LimitBy::User),
        "api_key" => Err("API keys are not supported yet".into()),
        other => match other.split_once(':') {
            Some(("claim", path)) => claim(path).map(LimitBy::Claim),
            Some(("header", name)) => header_name(name).map(LimitBy::Header),
            _ => Err(String::new()),
        },
    }
}

/// A header's name.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| "letters, digits and `-`".into())
}

/// A header's value: visible ASCII and spaces.
pub(super) fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "visible ASCII characters and spaces".into())
}

/// A method that a route may serve.
pub(super) fn method(text: &str) -> Result<Method, String> {
    match text {
        "TRACE" | "CONNECT" => Err("this method is always refused".into()),
        _ if text.bytes().any(|b| b.is_ascii_lowercase()) => {
            Err("methods are written in capitals".into())
        }
        _ => Method::from_bytes(text.as_bytes()).map_err(|_| "such as GET or POST".into()),
    }
}

/// A network, or an address alone.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map(|net| net.trunc())
        .map_err(|_| "such as 10.0.0.0/8 or 2001:db8::/32".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_have_units() {
        let check = |text: &str, millis: Option<u64>| {
            assert_eq!(span(text).ok(), millis.map(Duration::from_millis), "{text}");
        };
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("10m", 600_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            check(text, Some(millis));
        }
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10sec",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_and_rates_have_units() {
        assert_eq!(size("16KiB"), Ok(16 * 1024));
        assert_eq!(size("500B"), Ok(500));
        assert!(
            size("16").is_err()
                && size("KiB").is_err()
                && size("16K").is_err()
                && size("99999999999GiB").is_err()
        );
        assert_eq!(bytes_per_second("500B/s"), Ok(500));
        let check = |text: &str, wanted: Option<(u32, u64)>| {
            assert_eq!(
                rate(text).ok().map(|r| (r.count.get(), r.per.as_secs())),
                wanted,
                "{text}"
            );
        };
        check("60/min", Some((60, 60)));
        check("10/s", Some((10, 1)));
        check("60/5m", Some((60, 300)));
        check("0/s", None);
        check("60", None);
        check("60/0s", None);
        check("60/week", None);
    }

    #[test]
    fn an_origin_has_no_path() {
        assert_eq!(
            origin("https://App.example.com:443/"),
            Ok(Origin("https://app.example.com".into()))
        );
        for text in [
            "app.example.com",
            "https://a/b",
            "https://a?x",
            "https://u:p@a",
            "ftp://a",
            "*",
        ] {
            assert!(origin(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC{0,24}|[0-9a-z%/{}*.:\\[\\]-]{0,24}") {
            let _ = (span(&text), size(&text), rate(&text), listen(&text), origin(&text), endpoint(&text));
            let _ = (path(&text), host(&text), claim(&text), identity_value(&text), limit_by(&text), network(&text));
        }
    }
}
