//! `endpoints::body`: what a login says is read as serde and as a reader of forms read it, once or not at all, and never
//! repeated in a refusal.
#![no_main]

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tollhouse::endpoints::body::{Account, Given, read};

fuzz_target!(|data: &[u8]| {
    for content_type in ["application/json", "application/x-www-form-urlencoded"] {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        match read(&headers, data) {
            Ok(given) => look(&given, data),
            Err(reject) => {
                assert_eq!(reject.code().as_str(), "bad_request");
                assert!(reject.detail().is_ascii() && reject.detail().len() < 300);
            }
        }
    }
});

fn look(given: &Given, data: &[u8]) {
    let said = |name: &str| -> Option<String> {
        if given.by_form {
            let mut pairs = url::form_urlencoded::parse(data).filter(|(n, _)| n == name);
            let value = pairs.next().map(|(_, value)| value.into_owned());
            assert_eq!(pairs.next(), None, "{name} twice");
            value
        } else {
            let value: Value = serde_json::from_slice(data).expect("JSON to others, too");
            value[name].as_str().map(str::to_owned)
        }
    };
    if let Ok(password) = given.password() {
        assert_eq!(Some(password.expose()), said("password").as_ref());
        assert!(password.expose().len() <= 1024);
    }
    assert_eq!(given.return_to, said("return_to"));
    let account = given.account().ok();
    if let Some(account) = &account {
        let (text, name, other) = match account {
            Account::Email(text) => (text, "email", "phone"),
            Account::Phone(text) => (text, "phone", "email"),
        };
        assert_eq!(*text, said(name).unwrap().trim());
        assert!(said(other).is_none_or(|other| other.trim().is_empty()));
        assert!(!text.is_empty() && text.len() <= 320 && !text.contains(char::is_control));
        assert!(given.names_account() && account.key() == account.key().to_lowercase());
    }
    let _ = given.proof(account.as_ref());
    let _ = (given.captcha(), given.data(), given.create_user());
    assert!(format!("{given:?}").len() < 60);
}
