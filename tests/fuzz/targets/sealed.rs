//! `session::sealed`: nobody but us writes a session, what we write comes back, and nothing else does. Each line is a
//! Cookie field; the bytes are also the tokens of a session and say what becomes of its cookies on the way.
#![no_main]

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;
use tollhouse::base::secret::Secret;
use tollhouse::session::own::{OwnCookies, PIECES_MAX, usual_name};
use tollhouse::session::sealed::{KeyRing, SealedCookies, SealedSession, SealingKey};
use tollhouse::session::set_cookie::{Attributes, COOKIE_BYTES_MAX, SameSite};

static COOKIES: LazyLock<SealedCookies> = LazyLock::new(|| {
    let key = |letter: &str| SealingKey::parse(&format!("{}A", letter.repeat(42))).unwrap();
    let attributes = Attributes {
        domain: None,
        path: "/".into(),
        secure: true,
        http_only: true,
        partitioned: false,
        same_site: SameSite::Lax,
    };
    let ring = KeyRing::new(&[key("k"), key("l")]).unwrap();
    let own = OwnCookies::new(usual_name(&attributes), attributes).unwrap();
    SealedCookies::new(own, ring)
});

fuzz_target!(|data: &[u8]| {
    let strangers = tollhouse_fuzz::fields(&COOKIE, data);
    // To guess one that opens is to break AES-GCM.
    assert!(!matches!(COOKIES.open(&strangers), Ok(Some(_))));
    for field in COOKIES.own().clear(&strangers) {
        assert!(field.to_str().unwrap().contains("=; "));
    }

    let (control, text) = data.split_at(data.len().min(8));
    let text = String::from_utf8_lossy(text);
    let mut middle = text.len() / 2;
    while !text.is_char_boundary(middle) {
        middle -= 1;
    }
    let (access, refresh) = text.split_at(middle);
    let times = control
        .iter()
        .fold(7, |sum: u64, byte| sum << 8 | u64::from(*byte));
    let session = SealedSession {
        access_token: Secret::new(format!("{access}t")),
        refresh_token: (!refresh.is_empty()).then(|| Secret::new(refresh.to_owned())),
        expires_at: times,
        created_at: times / 3,
        seen_at: u64::MAX - times,
    };
    let Ok(fields) = COOKIES.write(&strangers, &session, Duration::from_secs(times)) else {
        assert!(text.len() > 20_000, "it fits");
        return;
    };
    let mut sent = Vec::new();
    for field in &fields {
        let field = field.to_str().unwrap();
        assert!(field.len() <= COOKIE_BYTES_MAX);
        let (pair, attributes) = field.split_once("; ").unwrap();
        assert!(COOKIES.owns(pair.split('=').next().unwrap().as_bytes()));
        if !pair.ends_with('=') {
            sent.push(pair.to_owned());
        }
        assert_eq!(attributes.matches("Max-Age=").count(), 1);
    }
    assert!(!sent.is_empty() && sent.len() <= PIECES_MAX);
    assert_eq!(COOKIES.open(&headers(&sent)), Ok(Some(session)));

    // One character, one piece or one order less or more.
    let place = usize::from(u16::from_le_bytes([byte(control, 0), byte(control, 1)]));
    let piece = place % sent.len();
    let mut changed = sent.clone();
    match byte(control, 2) % 4 {
        0 => drop(changed.remove(piece)),
        1 => changed.push(sent[piece].clone()),
        2 => drop(changed[piece].pop()),
        _ => {
            let at = changed[piece].find('=').unwrap() + 1;
            let at = at + place % (changed[piece].len() - at);
            let new = if changed[piece].as_bytes()[at] == b'A' {
                "B"
            } else {
                "A"
            };
            changed[piece].replace_range(at..=at, new);
        }
    }
    assert!(!matches!(COOKIES.open(&headers(&changed)), Ok(Some(_))));
});

fn byte(control: &[u8], at: usize) -> u8 {
    control.get(at).copied().unwrap_or_default()
}

fn headers(pairs: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for pair in pairs {
        headers.append(COOKIE, HeaderValue::from_str(pair).unwrap());
    }
    headers
}
