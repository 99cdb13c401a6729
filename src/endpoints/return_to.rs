//! Where a browser goes after a login: a path of ours, or a URL of ours or of a trusted origin, judged as browsers read it
//! (WHATWG URL) and written by the same parser. Everything else is `session.after_login`; nothing here is ever refused.

use crate::config::value::Origin;
use crate::headers::host::Host;
use http::HeaderValue;
use std::sync::LazyLock;
use url::{Position, Url};

/// Longest `return_to`, in bytes, as it came and as it goes out.
pub const BYTES_MAX: usize = 2048;

/// Against what a path is read. No host has this name (RFC 6761 §6.4).
static NOWHERE: LazyLock<Option<Url>> = LazyLock::new(|| Url::parse("https://invalid").ok());

/// Where browsers may be sent.
#[derive(Clone, Debug)]
pub struct Places {
    /// `server.public_url`; empty: the request's own host.
    ours: Box<[Origin]>,
    /// `session.trusted_origins`.
    trusted: Box<[Origin]>,
    after_login: Location,
}

/// The origin that a browser has asked.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// The admitted host.
    pub host: &'a Host<'a>,
    /// Whether the client's own connection is TLS.
    pub secure: bool,
}

/// A value for `Location` (RFC 9110 §10.2.2): visible ASCII, a path that begins with one `/` or a whole URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location(Box<str>);

impl Location {
    /// One that the operator wrote: a path or a URL. Anything else is `/`.
    pub(super) fn of_operator(text: &str) -> Self {
        let url = text.starts_with("https://") || text.starts_with("http://");
        let path = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
        let plain = text.bytes().all(|b| b.is_ascii_graphic());
        Self(if plain && (url || path) { text } else { "/" }.into())
    }

    /// A URL that the parser wrote.
    pub(super) fn of_url(url: &Url) -> Self {
        Self(url.as_str().into())
    }

    /// The same with one more parameter in its query.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let more = |mut url: Url| {
            url.query_pairs_mut().append_pair(name, value);
            url
        };
        let text = match Url::parse(&self.0) {
            Ok(url) => Some(more(url).into()),
            Err(_) => {
                let url = NOWHERE.as_ref().and_then(|base| base.join(&self.0).ok());
                url.map(more).as_ref().and_then(own)
            }
        };
        text.map_or_else(|| self.clone(), |text: String| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Scheme, host and port of a whole URL; `None` for a path.
    pub(super) fn origin(&self) -> Option<String> {
        let url = Url::parse(&self.0).ok()?;
        Some(url.origin().ascii_serialization())
    }

    /// As a field value.
    pub(super) fn value(&self) -> HeaderValue {
        // Visible ASCII throughout.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("/"))
    }
}

impl Places {
    /// From `server.public_url`, `session.trusted_origins` and `session.after_login`.
    pub fn compile(ours: &[Origin], trusted: &[Origin], after_login: &str) -> Self {
        Self {
            ours: ours.into(),
            trusted: trusted.into(),
            after_login: Location::of_operator(after_login),
        }
    }

    /// Where to go: `wanted` (decoded once), if a browser may be sent there, else `session.after_login`.
    pub fn judge(&self, wanted: Option<&str>, here: Here<'_>) -> Location {
        wanted
            .and_then(|wanted| self.find(wanted, here))
            .unwrap_or_else(|| self.after_login.clone())
    }

    fn find(&self, wanted: &str, here: Here<'_>) -> Option<Location> {
        // Parsers drop or change these, each in its own way.
        let odd = |c: char| c == '\\' || c.is_control();
        if wanted.len() > BYTES_MAX || wanted.contains(odd) {
            return None;
        }
        let text = match wanted.strip_prefix('/') {
            Some(rest) if rest.starts_with('/') => return None,
            Some(_) => own(&NOWHERE.as_ref()?.join(wanted).ok()?)?,
            None => self.url(wanted, here)?,
        };
        let fine = text.len() <= BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic());
        fine.then(|| Location(text.into()))
    }

    /// A whole URL. Spelt in full: what a parser would complete, such as `https:x`, has two readings.
    fn url(&self, wanted: &str, here: Here<'_>) -> Option<String> {
        let (scheme, rest) = wanted.split_once("://")?;
        if !["https", "http"]
            .iter()
            .any(|s| scheme.eq_ignore_ascii_case(s))
        {
            return None;
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.is_empty() || authority.contains('@') {
            return None;
        }
        let url = Url::parse(wanted).ok()?;
        let origin = url.origin().ascii_serialization();
        let listed = |list: &[Origin]| list.iter().any(|known| *known.0 == *origin);
        if self.ours.is_empty() && here.is_host_of(&url) {
            // Which scheme the browser sees we may not know (a proxy may end TLS for us), so it keeps its own.
            let clear = url.scheme() == "http";
            return own(&url).filter(|_| !(clear && here.secure));
        }
        if listed(&self.ours) && here.is_host_of(&url) && here.secure == (url.scheme() == "https") {
            return own(&url);
        }
        (listed(&self.ours) || listed(&self.trusted)).then(|| url.into())
    }
}

impl Here<'_> {
    /// Whether a URL names the host and the port that were asked.
    pub(super) fn is_host_of(&self, url: &Url) -> bool {
        let usual = if url.scheme() == "https" { 443 } else { 80 };
        url.host_str() == Some(&*self.host.name)
            && url.port_or_known_default() == Some(self.host.port.unwrap_or(usual))
    }
}

/// Path, query and fragment, where they alone lead to the same place: a browser takes a path that begins with two slashes
/// for another host, and so may an application that decodes it once more.
fn own(url: &Url) -> Option<String> {
    let rest = url.path().strip_prefix('/')?;
    let first = match rest.as_bytes() {
        [b'%', high, low, ..] => {
            let digit = |b: u8| char::from(b).to_digit(16);
            u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?
        }
        [first, ..] => *first,
        [] => b' ',
    };
    let elsewhere = matches!(first, b'/' | b'\\') || first.is_ascii_control();
    (!elsewhere).then(|| url[Position::BeforePath..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: &str = "https://app.test";
    const TRUSTED: &str = "https://admin.test";

    fn places(ours: &[&str]) -> Places {
        let origins = |list: &[&str]| list.iter().map(|o| Origin((*o).into())).collect::<Vec<_>>();
        Places::compile(&origins(ours), &origins(&[TRUSTED]), "/home?x=1")
    }

    fn judged(ours: &[&str], host: &str, secure: bool, wanted: &str) -> String {
        let host = Host::parse(host).unwrap();
        let here = Here {
            host: &host,
            secure,
        };
        let found = places(ours).judge(Some(wanted), here);
        found.as_str().to_owned()
    }

    /// At a gateway whose public URL is the one that was asked.
    fn check(wanted: &str, expected: &str) {
        let found = judged(&[OURS], "app.test", true, wanted);
        assert_eq!(found, expected, "{wanted:?}");
    }

    #[test]
    fn paths_and_urls_of_ours_and_trusted_ones_are_kept() {
        check("/", "/");
        check("/x", "/x");
        check("/x/y?a=b&c=%2Fd#e", "/x/y?a=b&c=%2Fd#e");
        check("/?next=//evil.test", "/?next=//evil.test");
        check("/x?u=https://evil.test#//y", "/x?u=https://evil.test#//y");
        check("/a/../b/./c", "/b/c");
        check("/a//b", "/a//b");
        check("/files/a%2Fb", "/files/a%2Fb");
        check("/é x\"<>", "/%C3%A9%20x%22%3C%3E");
        check("/@evil.test", "/@evil.test");
        check("/:80", "/:80");
        check("https://app.test", "/");
        check("https://app.test/x?y#z", "/x?y#z");
        check("HTTPS://APP.test:443/x", "/x");
        check("https://app.test:/x", "/x");
        check("https://app.test?x", "/?x");
        check("https://app.test#x", "/#x");
        check("https://ａｐｐ.test/x", "/x");
        check("https://admin.test", "https://admin.test/");
        check("https://admin.test//x y", "https://admin.test//x%20y");
        check("https://admin.test:0443/x", "https://admin.test/x");
    }

    #[test]
    fn every_disguise_of_another_place_goes_home() {
        for wanted in [
            "",
            " ",
            "x",
            " /x",
            "?x",
            "#x",
            ".",
            "..//evil.test",
            "//evil.test",
            "///evil.test",
            "////app.test",
            "//app.test/x",
            "/\\evil.test",
            "\\/evil.test",
            "\\\\evil.test",
            "/x\\y",
            "/x?y=\\",
            "https:\\\\app.test",
            "https://app.test\\@evil.test",
            "https://evil.test\\@app.test",
            "/\t/evil.test",
            "/\n/evil.test",
            "\t//evil.test",
            "/x\ry",
            "/x\0",
            "/x\u{7f}",
            "/x\u{85}",
            "ht\ntps://app.test",
            "/%09/evil.test",
            "/%0a/evil.test",
            "/%2Fevil.test",
            "/%2f/evil.test",
            "/%5Cevil.test",
            "/%5c%5cevil.test",
            "/.//evil.test",
            "/..//evil.test",
            "/%2e//evil.test",
            "/%2E%2e//evil.test",
            "/x/..//evil.test",
            "/./%2Fevil.test",
            "/x/../%5cevil.test",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "vbscript:x",
            "file:///etc/passwd",
            "blob:https://app.test/x",
            "ftp://app.test/x",
            "ws://app.test/",
            "https:",
            "https:/",
            "https://",
            "https:///app.test/x",
            "https:x",
            "https:/x",
            "https:app.test",
            "https:/app.test/x",
            "https:////app.test",
            "https://?app.test",
            "https://evil.test",
            "https://evil.test/https://app.test/",
            "https://evil.test#@app.test",
            "https://evil.test?app.test",
            "https://app.test@evil.test/",
            "https://app.test:443@evil.test/",
            "https://evil.test@app.test/",
            "https://u:p@app.test/",
            "https://@app.test/",
            "https://:@app.test/",
            "https://app.test%40evil.test/",
            "https://app.test%2eevil.test/",
            "https://app.test.evil.test/",
            "https://evilapp.test/",
            "https://app.test./x",
            "https://app.test:444/x",
            "https://app.test:80/x",
            "https://app.test:443443/x",
            "https://app.test:0/x",
            "https://app.test:x/",
            "https://app.test /x",
            "https://app。test.evil.test/x",
            "https://xn--pp-uia.test/x",
            "https://äpp.test/x",
            "https://app.test\u{ff0f}.evil.test/",
            "https://app\u{ad}.test.evil/",
            "http://app.test/x",
            "http://admin.test/x",
            "https://sub.admin.test/x",
            "https://[::1]/x",
            "https://0x7f.1/x",
            "null",
        ] {
            check(wanted, "/home?x=1");
        }
        // The parser takes these for the trusted origin itself: full stops, and characters that count for nothing.
        check("https://admin。test/x", "https://admin.test/x");
        check("https://ad\u{ad}min.test/x", "https://admin.test/x");
    }

    #[test]
    fn a_long_one_goes_home_as_it_came_or_as_it_would_go_out() {
        let fits = format!("/{}", "x".repeat(BYTES_MAX - 1));
        check(&fits, &fits);
        check(&format!("{fits}x"), "/home?x=1");
        check(&format!("/{}", "é".repeat(BYTES_MAX / 4)), "/home?x=1");
    }

    #[test]
    fn a_url_of_ours_at_another_origin_of_ours_stays_whole() {
        let both = [OURS, "https://www.app.test"];
        let at = |host: &str, secure, wanted| judged(&both, host, secure, wanted);
        assert_eq!(at("www.app.test", true, "https://www.app.test/x"), "/x");
        assert_eq!(
            at("www.app.test", true, "https://app.test/x"),
            "https://app.test/x"
        );
        // Something ends TLS for us and does not say so: the browser must stay there.
        assert_eq!(
            at("app.test", false, "https://app.test/x"),
            "https://app.test/x"
        );
        assert_eq!(at("app.test", true, "https://other.test/"), "/home?x=1");
        assert_eq!(at("app.test", true, "https://app.test//x"), "/home?x=1");
    }

    #[test]
    fn without_a_public_url_the_host_that_was_asked_is_ours() {
        for (host, secure, wanted, expected) in [
            ("app.test", true, "https://app.test/x", "/x"),
            ("app.test:443", true, "https://app.test/x", "/x"),
            ("APP.test", true, "https://app.test/x", "/x"),
            ("app.test", false, "http://app.test/x", "/x"),
            ("app.test", false, "https://app.test/x", "/x"),
            ("app.test:8080", false, "http://app.test:8080/x", "/x"),
            ("[::1]:8080", false, "http://[::1]:8080/x", "/x"),
            ("app.test", true, "http://app.test/x", "/home?x=1"),
            ("app.test:80", true, "https://app.test/x", "/home?x=1"),
            ("app.test:8080", false, "http://app.test/x", "/home?x=1"),
            ("app.test", true, "https://evil.test/x", "/home?x=1"),
            ("app.test", true, "https://app.test//evil.test", "/home?x=1"),
            (
                "app.test",
                true,
                "https://admin.test/x",
                "https://admin.test/x",
            ),
        ] {
            assert_eq!(
                judged(&[], host, secure, wanted),
                expected,
                "{host} {wanted}"
            );
        }
    }

    #[test]
    fn the_operators_place_is_a_path_or_a_url() {
        let of = |text| Location::of_operator(text).as_str().to_owned();
        for text in ["/", "/app?x#y", "https://other.test/x"] {
            assert_eq!(of(text), text);
        }
        for text in [
            "",
            "x",
            "//evil.test",
            "/\\evil.test",
            "/a b",
            "javascript:x",
        ] {
            assert_eq!(of(text), "/");
        }
        let with = |text| {
            let place = Location::of_operator(text).with("error", "a b");
            place.as_str().to_owned()
        };
        assert_eq!(with("/login"), "/login?error=a+b");
        assert_eq!(with("/login?x=1#top"), "/login?x=1&error=a+b#top");
        assert_eq!(with("https://a.test"), "https://a.test/?error=a+b");
        // As it stands, it does not lead away; read and written once more, it would.
        assert_eq!(with("/.//evil.test"), "/.//evil.test");
        let origin = |text| Location::of_operator(text).origin();
        assert_eq!(
            origin("https://a.test:8443/x").unwrap(),
            "https://a.test:8443"
        );
        assert_eq!(origin("/x"), None);
    }

    /// Pieces that disguises are made of, and anything at all.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "/",
                "//",
                "\\",
                ":",
                "@",
                "?",
                "#",
                ".",
                "..",
                "%2f",
                "%5C",
                "%2e",
                "%09",
                "%00",
                "\t",
                "\n",
                "\r",
                " ",
                "https:",
                "http:",
                "HTTPS://",
                "javascript:",
                "data:",
                "app.test",
                "admin.test",
                "evil.test",
                "443",
                "[",
                "]",
                "。",
                "\u{ff0f}",
                "\u{ad}",
                "\u{2028}",
                "xn--",
                "x",
                "é",
                ";",
                ",",
                "%",
            ])
            .prop_map(str::to_owned),
            any::<char>().prop_map(String::from),
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn wherever_it_leads_is_ours_or_trusted(
            start in proptest::sample::select(vec!["", "/", "https://app.test", "https://admin.test", "https://"]),
            rest in hostile(),
            public in any::<bool>(),
            secure in any::<bool>(),
        ) {
            let wanted = format!("{start}{rest}");
            let ours: &[&str] = if public { &[OURS] } else { &[] };
            let found = judged(ours, "app.test", secure, &wanted);
            prop_assert!(found.len() <= BYTES_MAX && found.bytes().all(|b| b.is_ascii_graphic()), "{found}");
            let here = Url::parse(if secure { OURS } else { "http://app.test" }).unwrap();
            let led = here.join("/.auth/callback?code=x").unwrap().join(&found).unwrap();
            let origin = led.origin().ascii_serialization();
            let at_home = led.origin() == here.origin();
            prop_assert!(at_home || origin == OURS || origin == TRUSTED, "{wanted:?} leads to {led}");
            // A reader that knows only paths and whole URLs sees the same.
            if found.starts_with('/') {
                prop_assert!(at_home && !found.starts_with("//"), "{wanted:?} leads to {found}");
            } else {
                prop_assert!(found.starts_with("https://"), "{found}");
                prop_assert!(led.username().is_empty() && led.password().is_none());
                prop_assert_eq!(led.as_str(), &found);
            }
            // Judged again, as when it comes back in a cookie, it is the same.
            prop_assert_eq!(judged(ours, "app.test", secure, &found), found);
        }
    }
}
