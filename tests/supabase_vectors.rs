//! Cookie headers as browsers send them, and what the real client library makes of each: ours must make the same.
//! `vectors/supabase-cookies.json` was produced by running the library; its legend explains the fields.

#![allow(clippy::unwrap_used, clippy::panic)]

use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde_json::Value;
use tollhouse::headers::cookies::{self, Rewritten};
use tollhouse::session::supabase::{SessionCookie, SupabaseCookies};

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
