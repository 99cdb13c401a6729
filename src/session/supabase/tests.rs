//! Tests of [`super`]: the rules one by one. The recorded headers of the real library are in `tests/supabase_vectors.rs`.

use super::*;
use http::{HeaderValue, header::COOKIE};
use proptest::prelude::*;

const KEY: &str = "sb-abc-auth-token";

fn reader() -> SupabaseCookies {
    SupabaseCookies::new(KEY)
}

pub(super) fn headers(field: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_bytes(field).unwrap());
    headers
}

fn read(field: &str) -> Result<Option<SessionCookie>, Malformed> {
    reader().read(&headers(field.as_bytes()))
}

fn key_of(field: &str) -> Option<Vec<u8>> {
    let headers = headers(field.as_bytes());
    let raw = reader().raw(&headers)?;
    let mut key = Vec::new();
    raw.append_key(&mut key);
    Some(key)
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

fn session(token: &str, user: &str) -> String {
    format!(r#"{{"access_token":"{token}","refresh_token":"r","expires_at":4102444800{user}}}"#)
}

#[test]
fn session_cookies_are_owned_and_verifiers_are_not() {
    let check =
        |name: &str, expected: bool| assert_eq!(reader().owns(name.as_bytes()), expected, "{name}");
    for name in [
        "sb-abc-auth-token",
        "sb-abc-auth-token.0",
        "sb-abc-auth-token.7",
        "sb-abc-auth-token.31",
        "sb-abc-auth-token.99999999999999999999999999",
        "sb-access-token",
        "sb-refresh-token",
        "supabase-auth-token",
        "supabase-auth-token.0",
    ] {
        check(name, true);
    }
    for name in [
        "",
        "sb-abc-auth-token.",
        "sb-abc-auth-token.00",
        "sb-abc-auth-token.01",
        "sb-abc-auth-token.1x",
        "sb-abc-auth-token.-1",
        "sb-abc-auth-token.0.0",
        "sb-abc-auth-token0",
        "SB-ABC-AUTH-TOKEN",
        "sb-abd-auth-token",
        "sb-abc-auth-token-code-verifier",
        "sb-abc-auth-token-flow-0123456789abcdef-code-verifier",
        "sb-abc-auth-token-flows-code-verifier",
        "supabase-auth-token-code-verifier",
        "sb-access-token.0",
    ] {
        check(name, false);
    }
}

#[test]
fn verifiers_are_known_by_both_ends_of_their_name() {
    for (name, expected) in [
        ("sb-abc-auth-token-code-verifier", true),
        (
            "sb-abc-auth-token-flow-0123456789abcdef-code-verifier",
            true,
        ),
        ("supabase-auth-token-code-verifier", true),
        ("sb-abc-auth-token", false),
        ("sb-abc-auth-token.0", false),
        ("sb-abc-auth-tokencode-verifier", false),
        ("sb-abd-auth-token-code-verifier", false),
        ("code-verifier", false),
    ] {
        assert_eq!(reader().is_verifier(name.as_bytes()), expected, "{name}");
    }
}

#[test]
fn which_values_make_up_the_session() {
    let check = |field: &str, expected: &[&str]| {
        let headers = headers(field.replace('K', KEY).as_bytes());
        let raw = reader().raw(&headers);
        let values: Vec<&[u8]> = raw
            .iter()
            .flat_map(|raw| raw.values().collect::<Vec<_>>())
            .collect();
        let expected: Vec<&[u8]> = expected.iter().map(|value| value.as_bytes()).collect();
        assert_eq!(values, expected, "{field}");
    };
    check("a=1", &[]);
    check("K=x; K=y", &["x"]);
    check("K=; K=y", &[]);
    check("K.1=b; K.0=a; K.2=c; K.4=e", &["a", "b", "c"]);
    check("K.0=a; K.1=; K.2=c", &["a"]);
    check("K.0=a; K.0=b", &["a"]);
    check("K.1=b", &[]);
    check("K=x; K.0=a", &["x"]);
    check("K=; K.0=a", &["a"]);
    check("sb-access-token=a; sb-refresh-token=r", &["a", "r"]);
    check("sb-access-token=a", &["a", ""]);
    check("sb-refresh-token=r", &[]);
    check("sb-access-token=a; supabase-auth-token=l", &["l"]);
    check("supabase-auth-token=l; K.0=x", &["x"]);
    check("supabase-auth-token=l; K=; K.1=x", &["l"]);
}

#[test]
fn keys_are_equal_only_where_the_session_is() {
    let fields = [
        "K=ab",
        "K=a; x=b",
        "K.0=ab",
        "K.0=a; K.1=b",
        "K.0=a; K.1=b; K.2=c",
        "K.0=ab; K.1=c",
        "sb-access-token=a; sb-refresh-token=b",
        "sb-access-token=ab",
    ];
    let keys: Vec<_> = fields
        .iter()
        .map(|field| key_of(&field.replace('K', KEY)).unwrap())
        .collect();
    for (i, a) in keys.iter().enumerate() {
        for (j, b) in keys.iter().enumerate() {
            // A whole cookie and a single piece decode alike.
            let same = i == j || [i, j] == [0, 2] || [i, j] == [2, 0];
            assert_eq!(a == b, same, "{} and {}", fields[i], fields[j]);
        }
    }
    let other = format!("theme=dark; {KEY}=ab; {KEY}=other; {KEY}.0=x");
    assert_eq!(key_of(&other), key_of(&format!("{KEY}=ab")));
}

#[test]
fn thirty_two_pieces_are_a_session_and_one_more_is_an_error() {
    let text = session("t", "");
    let (start, end) = text.split_at(text.len() - (PIECES_MAX - 1));
    let pieces: Vec<&str> = std::iter::once(start)
        .chain(end.split("").filter(|part| !part.is_empty()))
        .collect();
    assert_eq!(pieces.len(), PIECES_MAX);
    let mut field = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        field.push_str(&format!("{KEY}.{index}={piece}; "));
    }
    assert_eq!(read(&field).unwrap().unwrap().access_token.expose(), "t");
    assert!(
        read(&format!("{field}{KEY}.{}=x", PIECES_MAX + 1))
            .unwrap()
            .is_some(),
        "behind a gap"
    );
    assert!(
        read(&format!("{field}{KEY}.{PIECES_MAX}="))
            .unwrap()
            .is_some(),
        "empty"
    );
    assert_eq!(
        read(&format!("{field}{KEY}.{PIECES_MAX}=x")).unwrap_err(),
        Malformed::TooManyPieces
    );
    assert_eq!(
        read(&format!("{KEY}={}", "x".repeat(VALUE_BYTES_MAX + 1))).unwrap_err(),
        Malformed::TooLarge
    );
    assert_eq!(
        read(&format!("{KEY}={}", "x".repeat(VALUE_BYTES_MAX))).unwrap_err(),
        Malformed::NotJson
    );
}

#[test]
fn what_is_no_session_is_told_apart() {
    let check = |value: &str, expected: Malformed| {
        assert_eq!(
            read(&format!("{KEY}={value}")).unwrap_err(),
            expected,
            "{value}"
        );
    };
    check("base64-e30+", Malformed::Encoding);
    check("base64-_w", Malformed::Encoding);
    check("base64-", Malformed::NotJson);
    check("Base64-e30", Malformed::NotJson);
    check("null", Malformed::NotJson);
    check("{}", Malformed::NotASession);
    check("base64-e30", Malformed::NotASession);
    check("\"x\"", Malformed::NotASession);
    check("[]", Malformed::NotASession);
    check("[null,\"r\"]", Malformed::NotASession);
    check("[\"\",\"r\"]", Malformed::NotASession);
    check(&session("", ""), Malformed::NotASession);
    check(&session("\\ud800", ""), Malformed::NotASession);
    // The format of 0.6.0, which no release reads, not even that one.
    check(
        &format!("base64l-2r-{}", encode(session("t", "").as_bytes())),
        Malformed::NotJson,
    );
}

#[test]
fn fields_are_taken_as_javascript_takes_them() {
    let read = |text: &str| {
        read(&format!("{KEY}=base64-{}", encode(text.as_bytes())))
            .unwrap()
            .unwrap()
    };
    let plain = read(&session(
        "t",
        r#","user":{"id":"u","id":"v","x":{"id":"w"}}"#,
    ));
    assert_eq!(
        (plain.user_id.as_deref(), plain.had_user, plain.form),
        (Some("v"), true, Form::Object)
    );
    assert_eq!(plain.expires_at, Some(4_102_444_800.0));
    assert_eq!(
        plain.text.expose(),
        &session("t", r#","user":{"id":"u","id":"v","x":{"id":"w"}}"#)
    );
    let tokens_only = read(&session("t", ""));
    assert_eq!((tokens_only.user_id, tokens_only.had_user), (None, false));
    let null_user = read(&session("t", r#","user":null"#));
    assert_eq!((null_user.user_id, null_user.had_user), (None, true));
    for (expires_at, expected) in [
        ("0", None),
        ("null", None),
        ("\"12\"", Some(12.0)),
        ("1.5", Some(1.5)),
        ("{}", None),
    ] {
        let text =
            format!(r#"{{"access_token":"t","refresh_token":null,"expires_at":{expires_at}}}"#);
        let session = read(&text);
        assert_eq!(session.expires_at, expected, "{expires_at}");
        assert!(session.refresh_token.is_none());
    }
}

#[test]
fn older_forms_take_expiry_and_user_from_the_token() {
    let token = format!("e30.{}.sig", encode(br#"{"exp":99,"sub":"u","sub":"v"}"#));
    for (field, form) in [
        (
            format!("{KEY}=[\"{token}\",\"r\",null,null,null]"),
            Form::Array,
        ),
        (
            format!("sb-access-token={token}; sb-refresh-token=r"),
            Form::TwoCookies,
        ),
    ] {
        let session = read(&field).unwrap().unwrap();
        assert_eq!(session.form, form);
        assert_eq!(
            (session.expires_at, session.user_id.as_deref()),
            (Some(99.0), Some("v"))
        );
        assert_eq!(session.refresh_token.unwrap().expose(), "r");
    }
    let opaque = read("sb-access-token=opaque").unwrap().unwrap();
    assert_eq!(
        (opaque.expires_at, opaque.user_id, opaque.refresh_token),
        (None, None, None)
    );
}

#[test]
fn debug_shows_no_token() {
    let field = format!("{KEY}={}", session("hunter2", ""));
    let headers = headers(field.as_bytes());
    let raw = reader().raw(&headers).unwrap();
    let shown = format!("{raw:?} {:?}", raw.decode().unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

/// Writes as the library writes: one cookie up to 3180 characters of URI-encoded value, else pieces that are cut at a
/// character of the decoded text.
fn write(text: &str, raw: bool) -> String {
    const ESCAPED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'!')
        .remove(b'~')
        .remove(b'*')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')');
    let value = if raw {
        text.to_owned()
    } else {
        format!("base64-{}", encode(text.as_bytes()))
    };
    let encode_uri = |text: &str| percent_encoding::utf8_percent_encode(text, ESCAPED).to_string();
    if encode_uri(&value).len() <= 3180 {
        return format!("a=1; {KEY}={}", encode_uri(&value));
    }
    let mut pieces = vec![String::new()];
    for character in value.chars() {
        let encoded = encode_uri(character.encode_utf8(&mut [0; 4]));
        let last = pieces.last_mut().unwrap();
        if last.len() + encoded.len() <= 3180 {
            last.push_str(&encoded);
        } else {
            pieces.push(encoded);
        }
    }
    let cookies: Vec<_> = pieces
        .iter()
        .enumerate()
        .map(|(index, piece)| format!("{KEY}.{index}={piece}"))
        .collect();
    cookies.join("; ")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_cookie_field_is_read_without_panic(
        parts in prop::collection::vec(
            (prop::sample::select(vec![KEY, "sb-abc-auth-token.0", "sb-abc-auth-token.1", "supabase-auth-token", "sb-access-token", "sb-refresh-token"]),
             prop_oneof![
                prop::collection::vec(prop_oneof![Just(b'\t'), 0x20u8..0x7F, 0x80u8..=0xFF], 0..40),
                "(base64-)?[\\[{]?(\"access_token\"|\"refresh_token\"|\"expires_at\"|\"user\"|[:,\\[\\]{}\" 1%]|%22|%7B){0,12}".prop_map(String::into_bytes),
                any::<String>().prop_map(|text| format!("base64-{}", encode(text.as_bytes())).into_bytes()),
             ]), 0..5),
    ) {
        let field = parts.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()).collect::<Vec<_>>().join(&b"; "[..]);
        let headers = headers(&field);
        let read = reader().read(&headers);
        prop_assert_eq!(reader().raw(&headers).is_some(), !matches!(read, Ok(None)));
        if let Ok(Some(session)) = read {
            prop_assert!(!session.access_token.expose().is_empty());
        }
    }

    #[test]
    fn what_the_library_writes_is_read_back(
        token in "[A-Za-z0-9_-]{1,900}", refresh in "[a-z0-9]{12}", name in "\\PC{0,1500}", expires_at in 1u32.., raw: bool,
    ) {
        let text = serde_json::json!({
            "access_token": token, "refresh_token": refresh, "expires_at": expires_at,
            "user": {"id": "u", "user_metadata": {"name": name}},
        }).to_string();
        let session = read(&write(&text, raw)).unwrap().unwrap();
        prop_assert_eq!(session.access_token.expose(), &token);
        prop_assert_eq!(session.refresh_token.as_ref().unwrap().expose(), &refresh);
        prop_assert_eq!(session.expires_at, Some(f64::from(expires_at)));
        prop_assert_eq!(session.user_id.as_deref(), Some("u"));
        prop_assert_eq!(session.text.expose(), &text);
    }
}
