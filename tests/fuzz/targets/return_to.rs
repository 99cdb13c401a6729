//! `endpoints::return_to`: wherever a browser is sent after a login, it is a page of ours or of a trusted origin, to the
//! parser of URLs and to whoever looks at the text alone. The first byte says which gateway it is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollhouse::config::value::Origin;
use tollhouse::endpoints::return_to::{BYTES_MAX, Here, Places};
use tollhouse::headers::host::Host;
use url::Url;

const OURS: &str = "https://app.test";
const TRUSTED: &str = "https://admin.test";

fuzz_target!(|data: &[u8]| {
    let Some((gateway, wanted)) = data.split_first() else {
        return;
    };
    let wanted = String::from_utf8_lossy(wanted);
    let wanted = &*wanted;
    let (public, secure) = (gateway & 1 == 0, gateway & 2 == 0);
    let origins = |list: &[&str]| list.iter().map(|o| Origin((*o).into())).collect::<Vec<_>>();
    let ours = origins(if public { &[OURS] } else { &[] });
    let places = Places::compile(&ours, &origins(&[TRUSTED]), "/home");
    let host = Host::parse("app.test").unwrap();
    let here = Here {
        host: &host,
        secure,
    };
    let found = places.judge(Some(wanted), here);
    let text = found.as_str();
    assert!(text.len() <= BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic()));

    let base = Url::parse(if secure { OURS } else { "http://app.test" }).unwrap();
    let led = base.join("/.auth/callback?code=x").unwrap();
    let led = led.join(text).expect("a browser can follow it");
    let origin = led.origin().ascii_serialization();
    assert!(led.username().is_empty() && led.password().is_none());
    if text.starts_with('/') {
        assert_eq!(led.origin(), base.origin(), "{wanted:?}: {text}");
        let rest = text[1..].to_ascii_lowercase();
        for away in ["/", "\\", "%2f", "%5c", "%09", "%0a", "%0d"] {
            assert!(!rest.starts_with(away), "{wanted:?}: {text}");
        }
    } else {
        assert!([OURS, TRUSTED].contains(&&*origin), "{wanted:?}: {text}");
        assert!(text.starts_with(&format!("{origin}/")), "{wanted:?}: {text}");
    }
    assert_eq!(places.judge(Some(text), here), found, "judged twice");
});
