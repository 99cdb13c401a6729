//! Tests of [`super`]: the rules one by one, and that we read what we write. The recorded fields of the real library are
//! in `tests/supabase_vectors.rs`.

use super::*;
use crate::session::supabase::{Style, tests::headers};
use proptest::prelude::*;

const KEY: &str = "sb-abc-auth-token";
const NOW: u64 = 1_790_000_000_000;
const SET: &str = "; Max-Age=34560000; Path=/; SameSite=Lax";
const CLEAR: &str = "=; Max-Age=0; Path=/; SameSite=Lax";

fn writer() -> SupabaseWriter {
    SupabaseWriter::new(KEY, SupabaseWriter::library_attributes()).unwrap()
}

fn with_domain() -> SupabaseWriter {
    let attributes = Attributes {
        domain: Some("example.com".into()),
        ..SupabaseWriter::library_attributes()
    };
    SupabaseWriter::new(KEY, attributes).unwrap()
}

fn raw() -> Style {
    Style {
        encoding: Encoding::Raw,
        ..Style::default()
    }
}

/// A session whose JSON text is `length` bytes long.
fn session_of(length: usize, filler: &str, style: Style) -> SessionCookie {
    let start = r#"{"access_token":"a","refresh_token":"r","expires_in":60,"expires_at":9,"x":""#;
    let room = length - start.len() - 2;
    let filler = filler.repeat(room / filler.len()) + &"x".repeat(room % filler.len());
    let session =
        SessionCookie::from_response(&format!("{start}{filler}\"}}"), style, NOW).unwrap();
    assert_eq!(session.text.expose().len(), length);
    session
}

fn small(style: Style) -> SessionCookie {
    session_of(90, "x", style)
}

fn texts(fields: Vec<HeaderValue>) -> Vec<String> {
    fields
        .iter()
        .map(|field| field.to_str().unwrap().to_owned())
        .collect()
}

fn write(writer: &SupabaseWriter, came: &str, session: &SessionCookie) -> Vec<String> {
    texts(writer.write(&headers(came.as_bytes()), session).unwrap())
}

/// What a browser sends after an answer.
fn jar(came: &str, fields: &[String]) -> String {
    let mut jar: Vec<(String, String)> = Vec::new();
    let set = |jar: &mut Vec<(String, String)>, name: &str, value: Option<&str>| {
        let at = jar.iter().position(|(known, _)| known == name);
        match (at, value) {
            (Some(at), Some(value)) => jar[at].1 = value.to_owned(),
            (Some(at), None) => drop(jar.remove(at)),
            (None, Some(value)) => jar.push((name.to_owned(), value.to_owned())),
            (None, None) => {}
        }
    };
    for pair in came.split("; ").filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap();
        set(&mut jar, name, Some(value));
    }
    for field in fields {
        let (pair, attributes) = field.split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        let gone = attributes.starts_with("Max-Age=0;");
        set(&mut jar, name, (!gone).then_some(value));
    }
    let pairs: Vec<_> = jar
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("; ")
}

#[test]
fn a_value_of_3180_characters_is_one_cookie_and_one_more_makes_two() {
    // `base64-` and four characters for three bytes.
    for (length, count) in [(2379, 1), (2380, 2), (4764, 2), (4765, 3)] {
        let fields = write(&writer(), "", &session_of(length, "x", Style::default()));
        assert_eq!(fields.len(), count, "{length}");
        let name = if count == 1 {
            KEY.to_owned()
        } else {
            format!("{KEY}.0")
        };
        assert!(
            fields[0].starts_with(&format!("{name}=base64-")),
            "{}",
            fields[0]
        );
        for field in &fields {
            let value = field.split_once('=').unwrap().1.strip_suffix(SET).unwrap();
            assert!(value.len() <= 3180);
        }
    }
}

#[test]
fn no_piece_ends_within_a_character() {
    for filler in ["é", "漢", "😀", "😀é漢x", "%", "\\\\"] {
        for length in 1500..1530 {
            let session = session_of(length * 2, filler, raw());
            let pairs = writer().pairs(&session).unwrap();
            assert!(pairs.len() > 1, "{filler}");
            for (index, (name, value)) in pairs.iter().enumerate() {
                assert_eq!(*name, format!("{KEY}.{index}"));
                // No shorter than the longest character would make it.
                let last = index + 1 == pairs.len();
                assert!(
                    value.len() <= 3180 && (last || value.len() > 3180 - 12),
                    "{filler}"
                );
                let decoded = percent_decode(value.as_bytes()).into_owned();
                let decoded = String::from_utf8(decoded).unwrap();
                assert_eq!(utf8_percent_encode(&decoded, ESCAPED).to_string(), *value);
            }
        }
    }
}

#[test]
fn stale_cookies_go_first_each_once_in_the_order_of_the_request() {
    let session = small(Style::default());
    let [set] = &write(&writer(), "", &session)[..] else {
        panic!("one cookie")
    };
    let came = format!(
        "a=1; {KEY}.4=orphan; {KEY}.0=x; {KEY}-code-verifier=v; {KEY}.00=x; {KEY}.4=again; supabase-auth-token=y; {KEY}.1="
    );
    let cleared = [
        format!("{KEY}.4{CLEAR}"),
        format!("{KEY}.0{CLEAR}"),
        format!("supabase-auth-token{CLEAR}"),
        format!("{KEY}.1{CLEAR}"),
    ];
    assert_eq!(
        write(&writer(), &came, &session),
        [&cleared[..], std::slice::from_ref(set)].concat()
    );
}

#[test]
fn what_the_browser_has_is_not_written_again() {
    for style in [Style::default(), raw()] {
        for length in [90, 9000] {
            let session = session_of(length, "é", style);
            let first = write(&writer(), "", &session);
            let came = jar("", &first);
            assert!(write(&writer(), &came, &session).is_empty(), "{style:?}");
            let unescaped = came.replace("%22", "\"").replace("%7B", "{");
            let again = write(&writer(), &unescaped, &session);
            assert!(again.is_empty(), "spelt in another way: {style:?}");
            // In pieces of which only the first is another, only that is written.
            let changed = came.replacen("=", "=x", 1);
            assert_eq!(write(&writer(), &changed, &session), first[..1]);
        }
    }
}

#[test]
fn bytes_beyond_ascii_are_never_what_we_would_write() {
    let session = session_of(120, "é", raw());
    let value = session.text.expose();
    assert_eq!(
        write(&writer(), &format!("{KEY}={value}"), &session).len(),
        1
    );
}

#[test]
fn with_a_domain_every_removal_comes_twice_and_for_this_host_first() {
    let session = small(Style::default());
    let fields = write(&with_domain(), &format!("{KEY}.0=a; {KEY}.1=b"), &session);
    assert_eq!(
        fields[..4],
        [
            format!("{KEY}.0{CLEAR}"),
            format!("{KEY}.1{CLEAR}"),
            format!("{KEY}.0=; Max-Age=0; Domain=example.com; Path=/; SameSite=Lax"),
            format!("{KEY}.1=; Max-Age=0; Domain=example.com; Path=/; SameSite=Lax"),
        ]
    );
    assert_eq!(fields.len(), 5);
    assert!(fields[4].contains("; Max-Age=34560000; Domain=example.com; Path=/;"));
}

#[test]
fn with_a_domain_the_twin_of_this_host_does_not_outlive_a_write() {
    let session = small(Style::default());
    let value = writer().pairs(&session).unwrap().remove(0).1;
    let came = format!("{KEY}={value}; {KEY}=old");
    let fields = write(&with_domain(), &came, &session);
    assert_eq!(fields.len(), 2, "{fields:?}");
    assert_eq!(fields[0], format!("{KEY}{CLEAR}"));
    assert!(fields[1].starts_with(&format!("{KEY}={value}; Max-Age=34560000; Domain=")));
}

#[test]
fn two_cookies_stay_two_and_others_stay_beside_them() {
    let style = Style {
        form: Form::TwoCookies,
        ..raw()
    };
    let response = r#"{"access_token":"a.b.c","refresh_token":"r é","expires_in":60}"#;
    let session = SessionCookie::from_response(response, style, NOW).unwrap();
    let came = format!("sb-access-token=old; {KEY}.3=orphan; sb-refresh-token=old");
    assert_eq!(
        write(&writer(), &came, &session),
        [
            format!("sb-access-token=a.b.c{SET}"),
            format!("sb-refresh-token=r%20%C3%A9{SET}"),
        ]
    );
    let long = response.replace("a.b.c", &"a".repeat(4096 - "sb-access-token=".len()));
    let session = SessionCookie::from_response(&long, style, NOW).unwrap();
    assert!(writer().pairs(&session).is_ok());
    let longer = response.replace("a.b.c", &"a".repeat(4097 - "sb-access-token=".len()));
    let session = SessionCookie::from_response(&longer, style, NOW).unwrap();
    assert!(
        writer().pairs(&session).is_err(),
        "no browser would keep it"
    );
}

#[test]
fn older_forms_become_an_object_under_the_key_in_their_own_encoding() {
    let array = "%5B%22a%22%2C%22r%22%2Cnull%2Cnull%2Cnull%5D";
    let response = r#"{"access_token":"b","refresh_token":"s","expires_in":60,"expires_at":9}"#;
    for (came, expected) in [
        (
            format!("supabase-auth-token={array}"),
            vec!["supabase-auth-token"],
        ),
        (
            "supabase-auth-token.0=%5B%22a%22%2C; supabase-auth-token.1=%22r%22%5D".to_owned(),
            vec!["supabase-auth-token.0", "supabase-auth-token.1"],
        ),
        (format!("{KEY}={array}"), vec![]),
    ] {
        let found = SupabaseCookies::new(KEY).read(&headers(came.as_bytes()));
        let found = found.unwrap().unwrap();
        assert_eq!(found.form, Form::Array);
        let next = SessionCookie::from_response(response, found.style(), NOW).unwrap();
        let mut fields: Vec<_> = expected
            .iter()
            .map(|name| format!("{name}{CLEAR}"))
            .collect();
        let value = utf8_percent_encode(response, ESCAPED);
        fields.push(format!("{KEY}={value}{SET}"));
        assert_eq!(write(&writer(), &came, &next), fields);
    }
}

#[test]
fn clearing_takes_every_session_cookie_and_no_verifier() {
    let came = format!(
        "a=1; {KEY}=x; sb-refresh-token=r; {KEY}.7=y; {KEY}-code-verifier=v; {KEY}-flows-code-verifier=f; sb-access-token=a; supabase-auth-token.0=z; {KEY}=x"
    );
    let names = [
        KEY,
        "sb-refresh-token",
        &format!("{KEY}.7"),
        "sb-access-token",
        "supabase-auth-token.0",
    ];
    let expected: Vec<_> = names.iter().map(|name| format!("{name}{CLEAR}")).collect();
    let headers = headers(came.as_bytes());
    assert_eq!(texts(writer().clear(&headers)), expected);
    let both = texts(with_domain().clear(&headers));
    assert_eq!(both[..5], expected);
    assert!(
        both[5..]
            .iter()
            .all(|field| field.contains("; Domain=example.com;"))
    );
    assert_eq!(both.len(), 10);
    assert!(writer().clear(&HeaderMap::new()).is_empty());
}

#[test]
fn attributes_stand_in_the_order_of_the_library() {
    let attributes = Attributes {
        domain: Some(".example.com".into()),
        path: "/gw".into(),
        secure: true,
        http_only: true,
        partitioned: true,
        same_site: SameSite::Strict,
    };
    let writer = SupabaseWriter::new("acme", attributes.clone()).unwrap();
    let fields = write(&writer, "", &small(Style::default()));
    assert!(fields[0].ends_with(
        "; Max-Age=34560000; Domain=.example.com; Path=/gw; HttpOnly; Secure; Partitioned; SameSite=Strict"
    ));
    assert!(SupabaseWriter::new("a b", attributes.clone()).is_err());
    assert!(SupabaseWriter::new("__Host-a", attributes).is_err());
}

#[test]
fn what_we_could_not_read_back_is_not_written() {
    // base64url of 64 KiB less the prefix.
    let largest = (VALUE_BYTES_MAX - 7) * 3 / 4;
    let session = session_of(largest, "x", Style::default());
    let came = jar("", &write(&writer(), "", &session));
    let read = SupabaseCookies::new(KEY).read(&headers(came.as_bytes()));
    assert_eq!(read.unwrap().unwrap().text, session.text);
    let session = session_of(largest + 1, "x", Style::default());
    let refused = writer().write(&HeaderMap::new(), &session).unwrap_err();
    assert_eq!(refused.bytes, VALUE_BYTES_MAX + 1);
}

#[test]
fn fields_are_marked_as_secrets() {
    let fields = writer().write(&HeaderMap::new(), &small(raw())).unwrap();
    assert!(fields.iter().all(HeaderValue::is_sensitive));
}

/// Text of a JSON value that strangers may have put into their profile.
fn hostile() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        "\\PC{0,300}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "(\\\\u[dD][89abAB][0-9a-f]{2}|[😀é%\\+;=, \"]|\\\\\\\\|x){0,200}"
            .prop_map(|text| format!("\"{}\"", text.replace('"', "\\\""))),
        Just("\"%\\u0000%2\\uDEAD; Max-Age=0; \\\"%22\"".to_owned()),
        (0usize..20_000).prop_map(|count| format!("\"{}\"", "a%é漢😀".repeat(count / 10))),
    ];
    let nested = (1usize..4000).prop_map(|deep| "[".repeat(deep) + &"]".repeat(deep));
    prop_oneof![4 => string, 1 => nested, 1 => Just("null".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_session_that_is_written_is_read_as_the_same_session(
        token in "[A-Za-z0-9_-]{1,900}", refresh in "\\PC{1,40}", metadata in hostile(), spaces in "[ \t\r\n]{0,2}",
        is_raw: bool, with_user: bool, before in prop::sample::select(vec![
            "".to_owned(), "a=1; b=\"2\"".to_owned(), format!("{KEY}=null"), format!("{KEY}=x; {KEY}.0=y"),
            (0..40).map(|index| format!("{KEY}.{index}=old")).collect::<Vec<_>>().join("; "),
            "supabase-auth-token=[]; sb-access-token=t".to_owned(),
        ]),
    ) {
        let style = Style { encoding: if is_raw { Encoding::Raw } else { Encoding::Base64Url }, with_user, form: Form::Object };
        let refresh_text = serde_json::to_string(&refresh).unwrap();
        let response = format!(
            "{spaces}{{{spaces}\"access_token\":\"{token}\",\"user\":{{\"id\":\"u\",\"m\":{metadata}}},\"refresh_token\"{spaces}:{refresh_text},\"expires_in\":3600}}");
        let session = SessionCookie::from_response(&response, style, NOW).unwrap();
        match writer().write(&headers(before.as_bytes()), &session) {
            Ok(fields) => {
                let came = jar(&before, &texts(fields));
                let read = SupabaseCookies::new(KEY).read(&headers(came.as_bytes())).unwrap().unwrap();
                prop_assert_eq!(read.access_token.expose(), &token);
                prop_assert_eq!(read.refresh_token.as_ref().unwrap().expose(), &refresh);
                prop_assert_eq!(read.expires_at, Some(1_790_003_600.0));
                prop_assert_eq!(read.user_id.as_deref(), with_user.then_some("u"));
                prop_assert_eq!(read.style(), style);
                prop_assert_eq!(read.text.expose(), session.text.expose());
                // Nothing stale is left, and nothing is left to do.
                prop_assert!(texts(writer().write(&headers(came.as_bytes()), &session).unwrap()).is_empty());
            }
            Err(DoesNotFit { bytes }) => prop_assert!(bytes > 60_000 || session.text.expose().len() > 20_000),
        }
    }

    #[test]
    fn any_answer_is_taken_or_refused_without_panic(
        parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "\"access_token\":", "\"refresh_token\":", "\"expires_in\":", "\"expires_at\":", "\"user\":",
            "\"t\"", "60", "0", "null", ",", "\\ud800", "\"", "[", "]", " ", "é",
        ]), 0..24),
    ) {
        let text = parts.concat();
        for style in [Style::default(), raw(), Style { form: Form::TwoCookies, ..raw() }] {
            if let Ok(session) = SessionCookie::from_response(&text, style, NOW) {
                prop_assert!(writer().write(&HeaderMap::new(), &session).is_ok());
            }
        }
    }
}
