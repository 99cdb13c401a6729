//! What a login, a sign-up or a code says: a JSON object or a form, bounded, each thing once. Nothing of it is ever
//! repeated in an answer.

use super::query::is_garbled;
use super::refusal::bad;
use crate::base::secret::Secret;
use crate::exchange::Reject;
use crate::provider::supabase::{Address, CodeKind, Proof};
use crate::token::json;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Map, Value};
use std::fmt;
use url::form_urlencoded;

/// Longest body, in bytes.
pub const BYTES_MAX: u64 = 64 << 10;

/// Bytes of one text. Addresses: RFC 5321 §4.5.3.1 allows 254. Passwords: Supabase takes 72. Captcha answers are the
/// longest of all.
const ADDRESS_BYTES_MAX: usize = 320;
const PASSWORD_BYTES_MAX: usize = 1024;
const CODE_BYTES_MAX: usize = 256;
const CAPTCHA_BYTES_MAX: usize = 8192;

const WHAT_TO_SEND: &str = "Send a JSON object with `Content-Type: application/json`, or a form (`application/x-www-form-urlencoded`).";

/// What a body says. Members that nobody here knows are left out.
#[derive(Default)]
pub struct Given {
    /// It is a form: a browser will show the answer to a person.
    pub by_form: bool,
    /// Where that person wants to go, not judged.
    pub return_to: Option<String>,
    email: Option<String>,
    phone: Option<String>,
    password: Option<Secret<String>>,
    kind: Option<String>,
    token: Option<Secret<String>>,
    token_hash: Option<Secret<String>>,
    captcha: Option<String>,
    create_user: Option<bool>,
    data: Option<Map<String, Value>>,
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given")
            .field("by_form", &self.by_form)
            .finish_non_exhaustive()
    }
}

/// Whose account, as it was typed but for the white space around it.
#[derive(Clone, PartialEq, Eq)]
pub enum Account {
    /// An email address.
    Email(String),
    /// A telephone number.
    Phone(String),
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Account")
    }
}

impl Account {
    /// For the provider.
    pub fn address(&self) -> Address<'_> {
        match self {
            Self::Email(email) => Address::Email(email),
            Self::Phone(phone) => Address::Phone(phone),
        }
    }

    /// For limits: one text for every spelling of an account. Supabase makes addresses lower case, and takes numbers with
    /// and without `+` and spaces.
    pub fn key(&self) -> String {
        match self {
            Self::Email(email) => email.to_lowercase(),
            Self::Phone(phone) => phone.chars().filter(char::is_ascii_digit).collect(),
        }
    }
}

/// Reads a body of at most [`BYTES_MAX`] bytes.
pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Given, Reject> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else {
        return Err(bad(WHAT_TO_SEND));
    };
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(bad("Send the body as it is, without `Content-Encoding`."));
    }
    let essence = content_type.as_bytes().split(|b| *b == b';').next();
    let essence = essence.unwrap_or_default().trim_ascii();
    let mut given = Given::default();
    if essence.eq_ignore_ascii_case(b"application/json") {
        let members = json::object(body).ok_or_else(|| {
            bad("The body must be one JSON object in UTF-8, in which no member stands twice.")
        })?;
        for (name, value) in members {
            given.put(&name, value)?;
        }
    } else if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        given.by_form = true;
        for (name, value) in form_urlencoded::parse(body) {
            if is_garbled(&name) || is_garbled(&value) {
                return Err(bad("The form must be in UTF-8."));
            }
            given.put(&name, Value::String(value.into_owned()))?;
        }
    } else {
        return Err(bad(WHAT_TO_SEND));
    }
    Ok(given)
}

impl Given {
    fn put(&mut self, name: &str, value: Value) -> Result<(), Reject> {
        // Libraries write what they do not have as null.
        if value.is_null() {
            return Ok(());
        }
        match name {
            "email" => set(&mut self.email, "email", address("email", value)?),
            "phone" => set(&mut self.phone, "phone", address("phone", value)?),
            "password" => {
                let password = text("password", PASSWORD_BYTES_MAX, value)?;
                set(&mut self.password, "password", Secret::new(password))
            }
            "type" => set(&mut self.kind, "type", text("type", CODE_BYTES_MAX, value)?),
            "token" => {
                let token = text("token", CODE_BYTES_MAX, value)?;
                set(
                    &mut self.token,
                    "token",
                    Secret::new(token.trim().to_owned()),
                )
            }
            "token_hash" => {
                let hash = text("token_hash", CODE_BYTES_MAX, value)?;
                set(&mut self.token_hash, "token_hash", Secret::new(hash))
            }
            "captcha_token" => {
                let captcha = text("captcha_token", CAPTCHA_BYTES_MAX, value)?;
                set(&mut self.captcha, "captcha_token", captcha)
            }
            // As Supabase's own library says it.
            "gotrue_meta_security" => match value {
                Value::Object(mut members) => match members.remove("captcha_token") {
                    Some(captcha) => self.put("captcha_token", captcha),
                    None => Ok(()),
                },
                _ => Err(bad("`gotrue_meta_security` must be an object.")),
            },
            "create_user" => match value.as_bool().or_else(|| self.spelt(&value)) {
                Some(create) => set(&mut self.create_user, "create_user", create),
                None => Err(bad("`create_user` must be true or false.")),
            },
            "data" => match value {
                Value::Object(data) => set(&mut self.data, "data", data),
                _ => Err(bad("`data` must be an object, in a JSON body.")),
            },
            "return_to" => match value {
                // However long: it is judged, not refused.
                Value::String(to) => set(&mut self.return_to, "return_to", to),
                _ => Err(bad("`return_to` must be a string.")),
            },
            _ => Ok(()),
        }
    }

    /// A form has no booleans.
    fn spelt(&self, value: &Value) -> Option<bool> {
        value.as_str().filter(|_| self.by_form)?.parse().ok()
    }

    /// Whose account it is about.
    pub fn account(&self) -> Result<Account, Reject> {
        match (filled(&self.email), filled(&self.phone)) {
            (Some(email), None) => Ok(Account::Email(email)),
            (None, Some(phone)) => Ok(Account::Phone(phone)),
            _ => Err(bad("Send exactly one of `email` and `phone`.")),
        }
    }

    /// The password.
    pub fn password(&self) -> Result<&Secret<String>, Reject> {
        let password = self.password.as_ref();
        password
            .filter(|password| !password.expose().is_empty())
            .ok_or_else(|| bad("Send `password`."))
    }

    /// The answer of a captcha.
    pub fn captcha(&self) -> Option<&str> {
        self.captcha.as_deref().filter(|answer| !answer.is_empty())
    }

    /// What a new user says of itself.
    pub fn data(&self) -> Option<&Map<String, Value>> {
        self.data.as_ref()
    }

    /// Whether somebody without an account gets one. As at the provider, unless it says no.
    pub fn create_user(&self) -> bool {
        self.create_user.unwrap_or(true)
    }

    /// What shows that a message arrived, and whose account it went to, when it says that. `account` is
    /// [`Given::account`], kept by whoever asks.
    pub fn proof<'a>(&'a self, account: Option<&'a Account>) -> Result<Proof<'a>, Reject> {
        let kind = CodeKind::named(self.kind.as_deref().unwrap_or_default()).ok_or_else(|| {
            bad("Send `type`: email, signup, magiclink, recovery, invite, email_change, sms or phone_change.")
        })?;
        let there = |secret: &Secret<String>| !secret.expose().is_empty();
        let hash = self.token_hash.as_ref().filter(|hash| there(hash));
        let code = self.token.as_ref().filter(|code| there(code));
        match (hash, code, account) {
            (Some(hash), None, None) => Ok(Proof::Hash { kind, hash }),
            (None, Some(code), Some(account)) => Ok(Proof::Code {
                kind,
                address: account.address(),
                code,
            }),
            _ => Err(bad(
                "Send `token_hash` alone, or `token` with one of `email` and `phone`.",
            )),
        }
    }

    /// Whether it names an account at all.
    pub fn names_account(&self) -> bool {
        filled(&self.email).is_some() || filled(&self.phone).is_some()
    }
}

fn filled(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn set<T>(place: &mut Option<T>, name: &str, value: T) -> Result<(), Reject> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(format!("Say `{name}` once."))),
    }
}

fn text(name: &str, most: usize, value: Value) -> Result<String, Reject> {
    match value {
        Value::String(text) if text.len() <= most => Ok(text),
        Value::String(text) => {
            drop(Secret::new(text));
            Err(bad(format!("`{name}` may have at most {most} bytes.")))
        }
        _ => Err(bad(format!("`{name}` must be a string."))),
    }
}

fn address(name: &str, value: Value) -> Result<String, Reject> {
    let text = text(name, ADDRESS_BYTES_MAX, value)?;
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(bad(format!("`{name}` has characters that no address has.")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const JSON: &str = "application/json";
    const FORM: &str = "application/x-www-form-urlencoded";

    fn of(content_type: &str, body: &str) -> Result<Given, Reject> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        read(&headers, body.as_bytes())
    }

    fn refusal(content_type: &str, body: &str) -> String {
        let reject = of(content_type, body).unwrap_err();
        assert_eq!(reject.code(), crate::exchange::Code::BadRequest);
        assert!(reject.reason().is_empty());
        reject.detail().to_owned()
    }

    fn json(body: &str) -> Given {
        of(JSON, body).unwrap()
    }

    fn form(body: &str) -> Given {
        of(FORM, body).unwrap()
    }

    #[test]
    fn json_and_forms_say_the_same() {
        let json = json(
            r#"{"email":" Ada@Example.com ","password":" p ","return_to":"/x","new":[1],"phone":null,"data":{"a":{"b":1}},
            "gotrue_meta_security":{"captcha_token":"solved"},"create_user":false}"#,
        );
        let form = form(
            "email=+Ada%40Example.com+&password=+p+&return_to=%2Fx&new=1&new=2&captcha_token=solved&create_user=false",
        );
        assert!(form.by_form && !json.by_form);
        for given in [&json, &form] {
            let account = given.account().unwrap();
            assert_eq!(account, Account::Email("Ada@Example.com".into()));
            assert_eq!(account.key(), "ada@example.com");
            assert_eq!(given.password().unwrap().expose(), " p ");
            assert_eq!(given.return_to.as_deref(), Some("/x"));
            assert_eq!(given.captcha(), Some("solved"));
            assert!(!given.create_user());
        }
        assert_eq!(json.data().unwrap()["a"]["b"], 1);
        assert!(form.data().is_none());
        assert!(of("Application/JSON ; charset=utf-8", "{}").is_ok());
        assert!(of("APPLICATION/x-www-form-urlencoded;charset=UTF-8", "").is_ok());
        assert!(json.account().unwrap().address() == Address::Email("Ada@Example.com"));
        let shown = format!("{json:?} {:?}", json.account());
        assert!(!shown.to_lowercase().contains("ada"), "{shown}");
    }

    #[test]
    fn a_number_is_one_account_however_it_is_written() {
        let key = |phone: &str| {
            let body = serde_json::json!({"phone": phone}).to_string();
            json(&body).account().unwrap().key()
        };
        assert_eq!(key("+49 30 123"), "4930123");
        assert_eq!(key("4930123"), "4930123");
    }

    #[test]
    fn exactly_one_address_and_a_password_are_needed() {
        let both = "Send exactly one of `email` and `phone`.";
        for body in [
            "{}",
            r#"{"email":"a","phone":"1"}"#,
            r#"{"email":""}"#,
            r#"{"email":"  "}"#,
            r#"{"email":null}"#,
        ] {
            assert_eq!(json(body).account().unwrap_err().detail(), both, "{body}");
        }
        assert!(json(r#"{"email":"a","phone":""}"#).account().is_ok());
        for body in ["{}", r#"{"password":""}"#, r#"{"password":null}"#] {
            let refused = json(body).password().unwrap_err();
            assert_eq!(refused.detail(), "Send `password`.");
        }
        assert!(json("{}").create_user());
    }

    #[test]
    fn other_bodies_are_told_what_to_send() {
        for content_type in [
            "",
            "text/plain",
            "text/json",
            "multipart/form-data; boundary=x",
            "application/jsonx",
            "application/json, text/plain",
        ] {
            assert_eq!(refusal(content_type, "{}"), WHAT_TO_SEND, "{content_type}");
        }
        let mut headers = HeaderMap::new();
        let refused = |headers: &HeaderMap| read(headers, b"{}").unwrap_err().detail().to_owned();
        assert_eq!(refused(&headers), WHAT_TO_SEND);
        headers.append(CONTENT_TYPE, HeaderValue::from_static(JSON));
        assert!(read(&headers, b"{}").is_ok());
        headers.append(CONTENT_TYPE, HeaderValue::from_static(FORM));
        assert_eq!(refused(&headers), WHAT_TO_SEND);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert!(refused(&headers).contains("Content-Encoding"));
    }

    #[test]
    fn what_stands_twice_or_has_the_wrong_shape_is_refused_and_never_repeated() {
        for body in [
            "",
            "[]",
            "null",
            "{",
            r#"{"email":"zebra","email":"zebra"}"#,
            r#"{"email":"zebra","\u0065mail":"b"}"#,
            r#"{"email":"zebra"} x"#,
            r#"{"email":["zebra"]}"#,
            r#"{"email":"ze\u0000bra"}"#,
            r#"{"email":"ze\nbra"}"#,
            r#"{"password":12}"#,
            r#"{"password":{"zebra":1}}"#,
            r#"{"create_user":"false"}"#,
            r#"{"create_user":0}"#,
            r#"{"data":"zebra"}"#,
            r#"{"data":[]}"#,
            r#"{"return_to":["zebra"]}"#,
            r#"{"gotrue_meta_security":"zebra"}"#,
            r#"{"gotrue_meta_security":{"captcha_token":1}}"#,
            r#"{"gotrue_meta_security":{"captcha_token":"zebra"},"captcha_token":"zebra"}"#,
            r#"{"data":{"zebra":1,"zebra":2}}"#,
        ] {
            assert!(!refusal(JSON, body).contains("zebra"), "{body}");
        }
        for body in [
            "email=zebra&email=zebra",
            "email=zebra&%65mail=b",
            "email=ze%FFbra",
            "x=%FF",
            "data=zebra",
            "data=%7B%7D",
            "create_user=zebra",
            "return_to=zebra&return_to=zebra",
        ] {
            assert!(!refusal(FORM, body).contains("zebra"), "{body}");
        }
        let long = |name: &str, bytes: usize| format!(r#"{{"{name}":"{}"}}"#, "x".repeat(bytes));
        for (name, most) in [
            ("email", ADDRESS_BYTES_MAX),
            ("phone", ADDRESS_BYTES_MAX),
            ("password", PASSWORD_BYTES_MAX),
            ("token", CODE_BYTES_MAX),
            ("token_hash", CODE_BYTES_MAX),
            ("type", CODE_BYTES_MAX),
            ("captcha_token", CAPTCHA_BYTES_MAX),
        ] {
            assert!(of(JSON, &long(name, most)).is_ok(), "{name}");
            let detail = refusal(JSON, &long(name, most + 1));
            assert_eq!(detail, format!("`{name}` may have at most {most} bytes."));
        }
    }

    #[test]
    fn a_proof_is_a_hash_alone_or_a_code_with_its_address() {
        let proof = |body: &str| {
            let given = json(body);
            let account = given.names_account().then(|| given.account().unwrap());
            given.proof(account.as_ref()).map(|proof| match proof {
                Proof::Hash { kind, hash } => (kind, hash.expose().clone()),
                Proof::Code { kind, code, .. } => (kind, code.expose().clone()),
            })
        };
        assert_eq!(
            proof(r#"{"type":"recovery","token_hash":"abc"}"#).unwrap(),
            (CodeKind::Recovery, "abc".into())
        );
        assert_eq!(
            proof(r#"{"type":"sms","token":" 123456 ","phone":"1"}"#).unwrap(),
            (CodeKind::Sms, "123456".into())
        );
        for body in [
            "{}",
            r#"{"type":"email"}"#,
            r#"{"type":"email","token":"1"}"#,
            r#"{"type":"email","email":"a"}"#,
            r#"{"type":"email","email":"a","token":""}"#,
            r#"{"type":"email","token_hash":"a","token":"1"}"#,
            r#"{"type":"email","token_hash":"a","email":"a"}"#,
            r#"{"type":"Email","token_hash":"a"}"#,
            r#"{"token_hash":"a"}"#,
        ] {
            let refused = proof(body).unwrap_err();
            assert_eq!(refused.code(), crate::exchange::Code::BadRequest, "{body}");
        }
    }
}
