//! Cookie headers as browsers send them, and what the real client library makes of each: ours must make the same. And
//! what a server client writes back: ours must write the same bytes in the same order.
//! `vectors/supabase-cookies.json` and `vectors/supabase-set-cookies.json` were produced by running the library; their
//! legends explain the fields.

#![allow(clippy::unwrap_used, clippy::panic)]

use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tollhouse::headers::cookies::{self, Rewritten};
use tollhouse::session::set_cookie::{Attributes, SameSite};
use tollhouse::session::supabase::{
    Encoding, Form, SessionCookie, Style, SupabaseCookies, SupabaseWriter,
};

fn cases() -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("vectors/supabase-cookies.json")).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {}", case["id"]))
}

/// One Cookie field, or one field for each cookie as HTTP/2 clients may send them.
fn headers(case: &Value, crumbs: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let field = text(case, "cookie_header");
    let separator = if crumbs { "; " } else { "\0" };
    for crumb in field.split(separator) {
        headers.append(COOKIE, HeaderValue::from_bytes(crumb.as_bytes()).unwrap());
    }
    headers
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

fn check(case: &Value, session: Option<SessionCookie>) -> Result<(), String> {
    let Some(expect) = case["expect"].as_object() else {
        return if session.is_none() {
            Ok(())
        } else {
            Err("a session, where the library has none".into())
        };
    };
    let session = session.ok_or("no session, where the library has one")?;
    let refresh = session
        .refresh_token
        .as_ref()
        .map(|token| token.expose().as_str());
    if Some(session.access_token.expose().as_str()) != expect["access_token"].as_str() {
        return Err("another access token".into());
    }
    if refresh != expect["refresh_token"].as_str() {
        return Err("another refresh token".into());
    }
    if session.expires_at != number(&expect["expires_at"]) {
        return Err(format!("expires at {:?}", session.expires_at));
    }
    if session.user_id.as_deref() != expect["user_id"].as_str() {
        return Err(format!("user {:?}", session.user_id));
    }
    Ok(())
}

#[test]
fn every_recorded_header_gives_the_session_that_the_library_gives() {
    let cases = cases();
    assert_eq!(cases.len(), 131);
    let mut wrong = Vec::new();
    for case in &cases {
        let cookies = SupabaseCookies::new(text(case, "storage_key"));
        for crumbs in [false, true] {
            let session = cookies.read(&headers(case, crumbs)).ok().flatten();
            if let Err(problem) = check(case, session) {
                wrong.push(format!(
                    "{} (crumbs: {crumbs}): {problem}",
                    text(case, "id")
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn without_its_session_cookies_no_recorded_header_holds_a_session_and_all_others_stay() {
    for case in &cases() {
        let own = SupabaseCookies::new(text(case, "storage_key"));
        let before = headers(case, false);
        let mut after = before.clone();
        match cookies::without(&before, |name| !own.owns(name)) {
            Rewritten::Unchanged => {}
            Rewritten::Removed => {
                after.remove(COOKIE);
            }
            Rewritten::Replaced(value) => {
                after.insert(COOKIE, value);
            }
        }
        let id = text(case, "id");
        assert!(own.raw(&after).is_none(), "{id}");
        let others: Vec<_> = cookies::pairs(&before)
            .filter(|(name, _)| !own.owns(name))
            .collect();
        assert_eq!(cookies::pairs(&after).collect::<Vec<_>>(), others, "{id}");
        let verifiers = |headers: &HeaderMap| {
            cookies::pairs(headers)
                .filter(|(name, _)| name.ends_with(b"code-verifier"))
                .count()
        };
        assert_eq!(verifiers(&after), verifiers(&before), "{id}");
    }
}

/// One run of the library that may write cookies.
#[derive(Deserialize)]
struct Run {
    id: String,
    storage_key: String,
    client_options: Value,
    /// Unix seconds.
    now: u64,
    request_cookie_header: String,
    /// In the spelling of the file, because the order of members counts.
    server_session: Option<Box<RawValue>>,
    set_cookie: Vec<String>,
    cookie_header_after: String,
}

impl Run {
    fn request(&self) -> HeaderMap {
        cookie_header(&self.request_cookie_header)
    }

    fn writer(&self) -> SupabaseWriter {
        let options = &self.client_options["cookieOptions"];
        let flag = |name: &str| options[name] == true;
        let attributes = Attributes {
            domain: options["domain"].as_str().map(Into::into),
            path: options["path"].as_str().unwrap_or("/").into(),
            secure: flag("secure"),
            http_only: flag("httpOnly"),
            partitioned: flag("partitioned"),
            same_site: match options["sameSite"].as_str() {
                None => SameSite::Lax,
                Some("none") => SameSite::None,
                Some(other) => panic!("{other}"),
            },
        };
        SupabaseWriter::new(&self.storage_key, attributes).unwrap()
    }

    fn style(&self) -> Style {
        Style {
            encoding: match self.client_options["cookieEncoding"].as_str() {
                Some("raw") => Encoding::Raw,
                _ => Encoding::Base64Url,
            },
            with_user: self.client_options["encode"] != "tokens-only",
            ..Style::default()
        }
    }

    /// What we write when the provider gives this session.
    fn written(&self) -> Vec<String> {
        let response = self.server_session.as_ref().unwrap().get();
        let session = SessionCookie::from_response(response, self.style(), self.now * 1000);
        let fields = self.writer().write(&self.request(), &session.unwrap());
        texts(fields.unwrap())
    }

    fn cleared(&self) -> Vec<String> {
        texts(self.writer().clear(&self.request()))
    }

    /// The recorded fields but for those of PKCE verifiers.
    fn recorded(&self) -> Vec<String> {
        let own = SupabaseCookies::new(&self.storage_key);
        let verifier = |field: &&String| {
            let name = field.split('=').next().unwrap();
            !own.is_verifier(name.as_bytes())
        };
        self.set_cookie.iter().filter(verifier).cloned().collect()
    }
}

fn cookie_header(text: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, HeaderValue::from_str(text).unwrap());
    headers
}

fn texts(fields: Vec<HeaderValue>) -> Vec<String> {
    let text = |field: &HeaderValue| field.to_str().unwrap().to_owned();
    fields.iter().map(text).collect()
}

/// What a run of the library has to do with us.
enum Ours {
    /// The provider's answer is the session that is written.
    Written,
    /// The session that is written is put together elsewhere; the fields for it are the same.
    WrittenFromCookie,
    /// Every session cookie is removed.
    Cleared,
    /// The library writes nothing, because it keeps what it has, and neither would we.
    Nothing,
    /// As `Cleared`, but the library reads the cookie twice and removes it each time. We take this one, an array, for
    /// a session, and write it back as an object.
    ClearedTwice,
    /// The fields are those of `Cleared`, and the gateway does not come to write them: 409 and 429 end no session.
    ClearedButNotByUs,
    /// Only verifiers are written, and those are the application's own.
    VerifiersOnly,
}

fn ours(id: &str) -> Ours {
    match id {
        "signin-single"
        | "signin-2-chunks"
        | "signin-3-chunks"
        | "signin-raw"
        | "signin-raw-unicode-chunked"
        | "signin-tokens-only"
        | "signin-attributes"
        | "signin-custom-name"
        | "refresh-single-to-single"
        | "refresh-3-to-2-chunks"
        | "refresh-3-chunks-to-single"
        | "refresh-single-to-chunks"
        | "refresh-3-to-2-with-domain"
        | "refresh-only-changed-chunks"
        | "refresh-with-gap-stale"
        | "refresh-v2-token"
        | "refresh-raw"
        | "refresh-raw-to-base64"
        | "refresh-3-to-2-by-0.5.2"
        | "refresh-3-to-2-by-0.10.0"
        | "pkce-exchange"
        | "pkce-exchange-flow-id"
        | "verify-otp-token-hash"
        | "identical-session-again"
        | "browser-signin-chunked"
        | "browser-refresh-shrinks" => Ours::Written,
        "set-session" | "update-user" => Ours::WrittenFromCookie,
        "refresh-not-found"
        | "refresh-already-used"
        | "refresh-user-banned"
        | "refresh-session-not-found-chunked"
        | "signout-global"
        | "signout-local-domain"
        | "signout-session-already-gone"
        | "signout-with-pending-verifiers" => Ours::Cleared,
        "refresh-rejected-still-valid"
        | "refresh-503"
        | "signout-others"
        | "signout-500"
        | "pkce-exchange-fails" => Ours::Nothing,
        "invalid-cookie-cleared" => Ours::ClearedTwice,
        "refresh-rate-limited" | "refresh-conflict" => Ours::ClearedButNotByUs,
        "pkce-start-oauth" | "pkce-start-recovery" => Ours::VerifiersOnly,
        other => panic!("{other} is new"),
    }
}

#[test]
fn what_the_library_writes_is_written_byte_for_byte() {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Run>,
    }
    let file: File =
        serde_json::from_str(include_str!("vectors/supabase-set-cookies.json")).unwrap();
    assert_eq!(file.cases.len(), 46);
    let mut written = 0;
    for run in &file.cases {
        let id = &run.id;
        match ours(id) {
            Ours::Written => assert_eq!(run.written(), run.recorded(), "{id}"),
            Ours::WrittenFromCookie => {
                let after = cookie_header(&run.cookie_header_after);
                let session = SupabaseCookies::new(&run.storage_key).read(&after);
                let session = session.unwrap().unwrap();
                let fields = run.writer().write(&run.request(), &session);
                assert_eq!(texts(fields.unwrap()), run.recorded(), "{id}");
            }
            Ours::Cleared | Ours::ClearedButNotByUs => {
                assert!(!run.cleared().is_empty(), "{id}");
                assert_eq!(run.cleared(), run.recorded(), "{id}");
            }
            Ours::Nothing => assert!(run.set_cookie.is_empty(), "{id}"),
            Ours::ClearedTwice => {
                assert_eq!(
                    [run.cleared(), run.cleared()].concat(),
                    run.recorded(),
                    "{id}"
                );
            }
            Ours::VerifiersOnly => {
                assert!(
                    !run.set_cookie.is_empty() && run.recorded().is_empty(),
                    "{id}"
                );
            }
        }
        written += run.recorded().len();
    }
    assert!(written > 60, "{written} fields");
}

#[test]
fn what_was_found_in_one_form_goes_on_in_the_form_that_the_library_reads() {
    for case in &cases() {
        let own = SupabaseCookies::new(text(case, "storage_key"));
        let before = headers(case, true);
        let Ok(Some(found)) = own.read(&before) else {
            continue;
        };
        let id = text(case, "id");
        let response = r#"{"access_token":"new.to.ken","expires_in":60,"refresh_token":"new","user":{"id":"u"}}"#;
        let next =
            SessionCookie::from_response(response, found.style(), 1_790_000_000_000).unwrap();
        let writer = SupabaseWriter::new(
            text(case, "storage_key"),
            SupabaseWriter::library_attributes(),
        );
        let fields = writer.unwrap().write(&before, &next).unwrap();
        // As a browser applies them.
        let mut jar: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, value) in cookies::pairs(&before) {
            if !jar.iter().any(|(known, _)| known == name) {
                jar.push((name.to_vec(), value.to_vec()));
            }
        }
        for field in &fields {
            let field = field.to_str().unwrap();
            let (pair, attributes) = field.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            jar.retain(|(known, _)| known != name.as_bytes());
            if !attributes.contains("Max-Age=0;") {
                jar.push((name.into(), value.into()));
            }
        }
        let sent: Vec<Vec<u8>> = jar
            .iter()
            .map(|(name, value)| [name, &b"="[..], value].concat())
            .collect();
        let mut after = HeaderMap::new();
        after.insert(
            COOKIE,
            HeaderValue::from_bytes(&sent.join(&b"; "[..])).unwrap(),
        );
        let read = own.read(&after).unwrap().unwrap();
        assert_eq!(read.access_token.expose(), "new.to.ken", "{id}");
        assert_eq!(read.refresh_token.unwrap().expose(), "new", "{id}");
        assert_eq!(
            (read.encoding, read.had_user),
            (found.encoding, found.had_user),
            "{id}"
        );
        let form = match found.form {
            Form::TwoCookies => Form::TwoCookies,
            Form::Object | Form::Array => Form::Object,
        };
        assert_eq!(read.form, form, "{id}");
    }
}
