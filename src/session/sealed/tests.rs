//! Tests of [`super`]: what is a session and what is not, and that what is written fits into a browser.

use super::*;
use crate::base::secret::Secret;
use crate::session::own::{PIECES_MAX, usual_name};
use crate::session::set_cookie::{Attributes, COOKIE_BYTES_MAX, SameSite};
use http::header::COOKIE;
use proptest::prelude::*;

const NAME: &str = "__Host-tollhouse";
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

fn attributes() -> Attributes {
    Attributes {
        domain: None,
        path: "/".into(),
        secure: true,
        http_only: true,
        partitioned: false,
        same_site: SameSite::Lax,
    }
}

fn ring(number: u8) -> KeyRing {
    let text = URL_SAFE_NO_PAD.encode([number; 32]);
    KeyRing::new(&[SealingKey::parse(&text).unwrap()]).unwrap()
}

fn of(name: &str, attributes: Attributes, ring: KeyRing) -> SealedCookies {
    SealedCookies::new(OwnCookies::new(name, attributes).unwrap(), ring)
}

fn sealed() -> SealedCookies {
    of(NAME, attributes(), ring(1))
}

/// A session that needs `bytes` of payload.
fn session(bytes: usize) -> SealedSession {
    SealedSession {
        access_token: Secret::new("a".repeat(bytes - 28 - 12)),
        refresh_token: Some(Secret::new("refreshtoken".to_owned())),
        expires_at: 1_790_003_600,
        created_at: 1_790_000_000,
        seen_at: 1_790_000_001,
    }
}

fn headers(field: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_str(field).unwrap());
    headers
}

fn texts(fields: &[HeaderValue]) -> Vec<&str> {
    fields.iter().map(|field| field.to_str().unwrap()).collect()
}

fn write(cookies: &SealedCookies, came: &str, session: &SealedSession) -> Vec<String> {
    let fields = cookies.write(&headers(came), session, MONTH).unwrap();
    texts(&fields).into_iter().map(str::to_owned).collect()
}

/// The cookies that were set, as a browser sends them.
fn sent(fields: &[String]) -> Vec<String> {
    let set = fields.iter().filter(|field| !field.contains("Max-Age=0"));
    set.map(|field| field.split(';').next().unwrap().to_owned())
        .collect()
}

fn open(field: &str) -> Result<Option<SealedSession>, NotOpened> {
    sealed().open(&headers(field))
}

#[test]
fn a_session_comes_back_as_it_was() {
    for bytes in [41, 1000, 3000, 6000, 20_000] {
        let fields = write(&sealed(), "", &session(bytes));
        let came = format!("a=1; {}", sent(&fields).join("; b=2; "));
        assert_eq!(open(&came), Ok(Some(session(bytes))), "{bytes}");
    }
    assert_eq!(open("a=1"), Ok(None));
    assert_eq!(sealed().open(&HeaderMap::new()), Ok(None));
    let bare = SealedSession {
        refresh_token: None,
        ..session(41)
    };
    assert_eq!(open(&sent(&write(&sealed(), "", &bare))[0]), Ok(Some(bare)));
}

#[test]
fn the_field_says_how_the_cookie_is_kept() {
    let check = |change: fn(&mut Attributes), name: &str, expected: &str| {
        let mut attributes = attributes();
        change(&mut attributes);
        assert_eq!(usual_name(&attributes), name);
        let cookies = of(name, attributes, ring(1));
        let field = write(&cookies, "", &session(50)).remove(0);
        let (pair, rest) = field.split_once("; ").unwrap();
        assert!(pair.starts_with(&format!("{name}=")), "{pair}");
        assert_eq!(rest, expected);
    };
    let nothing: fn(&mut Attributes) = |_| {};
    check(
        nothing,
        NAME,
        "HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=2592000",
    );
    check(
        |a| a.domain = Some("example.com".into()),
        "tollhouse",
        "HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; Max-Age=2592000",
    );
    check(
        |a| (a.path, a.same_site) = ("/app".into(), SameSite::Strict),
        "tollhouse",
        "HttpOnly; SameSite=Strict; Secure; Path=/app; Max-Age=2592000",
    );
    check(
        |a| (a.secure, a.http_only) = (false, false),
        "tollhouse",
        "SameSite=Lax; Path=/; Max-Age=2592000",
    );
    check(
        |a| (a.partitioned, a.same_site) = (true, SameSite::None),
        NAME,
        "HttpOnly; SameSite=None; Partitioned; Secure; Path=/; Max-Age=2592000",
    );
    let wrong = Attributes {
        domain: Some("example.com".into()),
        ..attributes()
    };
    assert!(OwnCookies::new(NAME, wrong).is_err());
}

#[test]
fn no_browser_is_asked_to_keep_a_cookie_for_longer_than_it_would() {
    let fields = sealed().write(&HeaderMap::new(), &session(50), Duration::MAX);
    let fields = fields.unwrap();
    assert!(texts(&fields)[0].ends_with("; Max-Age=34560000"));
    assert!(fields.iter().all(HeaderValue::is_sensitive));
}

#[test]
fn every_cookie_fits_with_its_attributes_and_eight_are_the_most() {
    let domain = Attributes {
        domain: Some("a.long.domain.example.com".into()),
        ..attributes()
    };
    let both = [sealed(), of("tollhouse", domain, ring(1))];
    for cookies in both {
        let count = |bytes: usize| {
            let fields = cookies.write(&HeaderMap::new(), &session(bytes), MONTH);
            fields.map(|fields| {
                assert!(fields.iter().all(|field| field.len() <= COOKIE_BYTES_MAX));
                let came = sent(
                    &texts(&fields)
                        .iter()
                        .map(|text| (*text).to_owned())
                        .collect::<Vec<_>>(),
                );
                assert_eq!(
                    cookies.open(&headers(&came.join("; "))),
                    Ok(Some(session(bytes)))
                );
                fields.len()
            })
        };
        // The largest session of each count, found by halving; one byte more needs another cookie.
        let mut last = 0;
        for pieces in 1..=PIECES_MAX {
            let (mut low, mut high) = (50, 40_000);
            while high - low > 1 {
                let middle = (low + high) / 2;
                match count(middle) {
                    Ok(found) if found <= pieces => low = middle,
                    _ => high = middle,
                }
            }
            assert_eq!(count(low).unwrap(), pieces);
            assert!(low > last + 2800, "{pieces} pieces hold {low} bytes");
            last = low;
        }
        let refused = count(last + 1).unwrap_err();
        let value = (last + 1 + 2 + 12 + 16) * 4;
        let bytes = value.div_ceil(3);
        assert_eq!(refused, NotSealed::DoesNotFit(DoesNotFit { bytes }));
    }
}

#[test]
fn one_flipped_bit_anywhere_is_no_session() {
    let whole = sent(&write(&sealed(), "", &session(60))).remove(0);
    let value = whole.split_once('=').unwrap().1;
    assert!(open(&whole).unwrap().is_some());
    for at in 0..value.len() {
        for bit in 0..8 {
            let mut bytes = value.as_bytes().to_vec();
            bytes[at] ^= 1 << bit;
            let field = [NAME.as_bytes(), b"=", &bytes].concat();
            let Ok(field) = HeaderValue::from_bytes(&field) else {
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.insert(COOKIE, field);
            let opened = sealed().open(&headers);
            assert!(opened.is_err(), "bit {bit} of character {at}: {opened:?}");
        }
    }
    let bytes = URL_SAFE_NO_PAD.decode(value).unwrap();
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        let field = format!("{NAME}={}", URL_SAFE_NO_PAD.encode(&flipped));
        let expected = if at < 8 {
            NotOpened::Version
        } else {
            NotOpened::Sealed
        };
        assert_eq!(open(&field), Err(expected), "bit {at}");
    }
}

#[test]
fn another_name_or_another_key_is_no_session() {
    let field = sent(&write(&sealed(), "", &session(60))).remove(0);
    let value = field.split_once('=').unwrap().1;
    let other = of("tollhouse", attributes(), ring(1));
    assert_eq!(
        other.open(&headers(&format!("tollhouse={value}"))),
        Err(NotOpened::Sealed)
    );
    let rotated = of(NAME, attributes(), ring(2));
    assert_eq!(rotated.open(&headers(&field)), Err(NotOpened::Sealed));
}

#[test]
fn only_what_we_would_write_is_a_session() {
    let whole = sent(&write(&sealed(), "", &session(60))).remove(0);
    let pieces = sent(&write(&sealed(), "", &session(7000)));
    let [a, b, c] = &pieces[..] else {
        panic!("three pieces")
    };
    let check =
        |field: &str, expected: NotOpened| assert_eq!(open(field), Err(expected), "{field}");
    assert_eq!(open(&format!("{c}; {a}; {b}")), Ok(Some(session(7000))));
    check(&format!("{whole}; {whole}"), Strange::Ambiguous.into());
    check(&format!("{whole}; {NAME}="), Strange::Ambiguous.into());
    check(
        &format!("{whole}; {a}; {b}; {c}"),
        Strange::Ambiguous.into(),
    );
    check(&format!("{a}; {b}; {c}; {b}"), Strange::Ambiguous.into());
    check(&format!("{a}; {c}"), Strange::Pieces.into());
    check(&format!("{b}; {c}"), Strange::Pieces.into());
    check(a, Strange::Pieces.into());
    check(
        &whole.replace(NAME, &format!("{NAME}.0")),
        Strange::Pieces.into(),
    );
    check(
        &format!("{a}; {b}; {c}; {NAME}.4=x"),
        Strange::Pieces.into(),
    );
    check(
        &format!("{a}; {b}; {c}; {NAME}.8=x"),
        Strange::Pieces.into(),
    );
    check(&format!("{whole}; {NAME}.00=x"), Strange::Pieces.into());
    check(
        &format!("{whole}; {NAME}.99999999999999999999=x"),
        Strange::Pieces.into(),
    );
    check(&format!("{a}; {b}"), NotOpened::Sealed);
    check(&format!("{a}; {b}; {c}; {NAME}.3=AAAA"), NotOpened::Sealed);
    check(&format!("{a}; {b}; {c}; {NAME}.3=="), NotOpened::Encoding);
    check(&format!("{NAME}="), NotOpened::Version);
    check(&format!("{NAME}=AQ"), NotOpened::Sealed);
    check(&format!("{whole}="), NotOpened::Encoding);
    check(
        &format!("{NAME}=\"{}\"", &whole[NAME.len() + 1..]),
        NotOpened::Encoding,
    );
    // Somebody else's cookies.
    for other in [
        "__host-tollhouse",
        "tollhouse",
        "__Host-tollhouse.",
        "__Host-tollhouse.x",
        "__Host-tollhouse2",
    ] {
        assert_eq!(
            open(&format!("{whole}; {other}=x")),
            Ok(Some(session(60))),
            "{other}"
        );
        assert!(!sealed().own().owns(other.as_bytes()));
    }
}

#[test]
fn what_is_stale_goes_and_what_cannot_be_read_does_not_stay_in_the_way() {
    let cleared =
        |name: &str| format!("{name}=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0");
    let came = format!("{NAME}.1=x; a=1; {NAME}.0=x; {NAME}.07=x; {NAME}.1=y");
    let fields = write(&sealed(), &came, &session(60));
    let names = [".1", ".0", ".07"].map(|index| cleared(&format!("{NAME}{index}")));
    assert_eq!(fields[..3], names);
    assert_eq!(fields.len(), 4);
    assert_eq!(open(&sent(&fields).join("; ")), Ok(Some(session(60))));

    let fields = write(&sealed(), &format!("{NAME}=x; {NAME}.0=x"), &session(7000));
    assert_eq!(fields[0], cleared(NAME));
    assert_eq!(fields.len(), 4);

    let fields = sealed().own().clear(&headers(&came));
    assert_eq!(texts(&fields), names);
    assert!(sealed().own().clear(&headers("a=1")).is_empty());
}

#[test]
fn with_a_domain_the_host_is_cleared_too() {
    let domain = Attributes {
        domain: Some("example.com".into()),
        ..attributes()
    };
    let cookies = of("tollhouse", domain, ring(1));
    let host = "tollhouse=; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=0";
    let both = "tollhouse=; HttpOnly; SameSite=Lax; Secure; Path=/; Domain=example.com; Max-Age=0";
    assert_eq!(
        texts(&cookies.own().clear(&headers("tollhouse=x"))),
        [host, both]
    );
    // Two of them would be no session for good.
    let fields = write(&cookies, "tollhouse=x; tollhouse=y", &session(60));
    assert_eq!(fields[0], host);
    assert_eq!(fields.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sessions_of_any_text_come_back(
        access in "\\PC{1,6000}", refresh in prop::option::of("\\PC{1,200}"), times: [u64; 3],
    ) {
        let [expires_at, created_at, seen_at] = times;
        let session = SealedSession {
            access_token: Secret::new(access), refresh_token: refresh.map(Secret::new), expires_at, created_at, seen_at,
        };
        let fields = write(&sealed(), "a=1", &session);
        prop_assert!(fields.iter().all(|field| field.len() <= COOKIE_BYTES_MAX));
        prop_assert_eq!(open(&sent(&fields).join("; ")), Ok(Some(session)));
    }

    #[test]
    fn any_cookies_are_no_session_and_no_panic(
        parts in prop::collection::vec((prop::sample::select(vec!["", ".0", ".1", ".2", ".7", ".8", ".01"]), "[A-Za-z0-9_=-]{0,80}"), 0..5),
    ) {
        let field: Vec<_> = parts.iter().map(|(index, value)| format!("{NAME}{index}={value}")).collect();
        let opened = open(&field.join("; "));
        prop_assert!(opened.is_err() || (opened == Ok(None) && parts.is_empty()));
    }
}
