//! Session cookies by the line, so that the real library can be held against ours in great numbers: each line of the file
//! that `TOLLHOUSE_COOKIE_LINES` names is a question in JSON, and the same line of `<file>.answers` is the answer.
//! `tests/e2e/session-cookies.test.mjs` asks; without the variable the lines below are asked.

#![allow(clippy::unwrap_used, reason = "a test")]

use http::{HeaderMap, HeaderValue, header::COOKIE};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::{env, fs};
use tollhouse::session::set_cookie::{Attributes, SameSite};
use tollhouse::session::supabase::{
    Encoding, SessionCookie, Style, SupabaseCookies, SupabaseWriter,
};

#[derive(Deserialize)]
struct Question {
    storage_key: String,
    /// What the browser sends.
    cookie: String,
    #[serde(flatten)]
    action: Action,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Action {
    /// Which session is it?
    Read {},
    /// The provider has answered with this text: what is set?
    Write {
        response: String,
        unix_millis: u64,
        raw: bool,
        tokens_only: bool,
        options: Options,
    },
    /// What is removed?
    Clear { options: Options },
}

/// `cookieOptions` of the library.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Options {
    domain: Option<String>,
    path: Option<String>,
    secure: bool,
    http_only: bool,
    partitioned: bool,
    same_site: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Session {
        access_token: String,
        refresh_token: Option<String>,
        expires_at: Option<f64>,
        user_id: Option<String>,
        text: String,
    },
    NoSession,
    SetCookie(Vec<String>),
    Refused(String),
}

fn answer(question: Question) -> Answer {
    let mut headers = HeaderMap::new();
    if !question.cookie.is_empty() {
        let cookie = HeaderValue::from_bytes(question.cookie.as_bytes()).unwrap();
        headers.insert(COOKIE, cookie);
    }
    let key = &question.storage_key;
    match question.action {
        Action::Read {} => match SupabaseCookies::new(key).read(&headers) {
            Ok(Some(session)) => Answer::Session {
                access_token: session.access_token.expose().clone(),
                refresh_token: session.refresh_token.map(|token| token.expose().clone()),
                expires_at: session.expires_at,
                user_id: session.user_id,
                text: session.text.expose().clone(),
            },
            Ok(None) => Answer::NoSession,
            Err(why) => Answer::Refused(why.to_string()),
        },
        Action::Write {
            response,
            unix_millis,
            raw,
            tokens_only,
            options,
        } => {
            let style = Style {
                encoding: if raw {
                    Encoding::Raw
                } else {
                    Encoding::Base64Url
                },
                with_user: !tokens_only,
                ..Style::default()
            };
            let session = match SessionCookie::from_response(&response, style, unix_millis) {
                Ok(session) => session,
                Err(why) => return Answer::Refused(why.to_string()),
            };
            match options.writer(key).write(&headers, &session) {
                Ok(fields) => set_cookie(&fields),
                Err(why) => Answer::Refused(why.to_string()),
            }
        }
        Action::Clear { options } => set_cookie(&options.writer(key).clear(&headers)),
    }
}

impl Options {
    fn writer(self, key: &str) -> SupabaseWriter {
        let attributes = Attributes {
            domain: self.domain.map(Into::into),
            path: self.path.as_deref().unwrap_or("/").into(),
            secure: self.secure,
            http_only: self.http_only,
            partitioned: self.partitioned,
            same_site: match self.same_site.as_deref() {
                Some("strict") => SameSite::Strict,
                Some("none") => SameSite::None,
                _ => SameSite::Lax,
            },
        };
        SupabaseWriter::new(key, attributes).unwrap()
    }
}

fn set_cookie(fields: &[HeaderValue]) -> Answer {
    let text = |field: &HeaderValue| field.to_str().unwrap().to_owned();
    Answer::SetCookie(fields.iter().map(text).collect())
}

fn answers(questions: impl BufRead, mut to: impl Write) {
    for line in questions.lines() {
        let answer = answer(serde_json::from_str(&line.unwrap()).unwrap());
        writeln!(to, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
    }
    to.flush().unwrap();
}

#[test]
fn every_line_is_answered() {
    if let Some(file) = env::var_os("TOLLHOUSE_COOKIE_LINES") {
        let questions = BufReader::new(fs::File::open(&file).unwrap());
        let mut to = file;
        to.push(".answers");
        return answers(questions, BufWriter::new(fs::File::create(to).unwrap()));
    }
    let questions = [
        r#"{"storage_key":"k","cookie":"k.3=x","write":{"response":"{\"access_token\":\"a\",\"refresh_token\":\"r\",\"expires_in\":60}","unix_millis":1000,"raw":true,"tokens_only":false,"options":{"secure":true}}}"#,
        r#"{"storage_key":"k","cookie":"a=1; k.0=x","clear":{"options":{"domain":"example.com"}}}"#,
        r#"{"storage_key":"k","cookie":"k=%7B%22access_token%22:%22a%22,%22refresh_token%22:%22r%22,%22expires_at%22:61}","read":{}}"#,
        r#"{"storage_key":"k","cookie":"","read":{}}"#,
        r#"{"storage_key":"k","cookie":"k=x","read":{}}"#,
    ];
    let expected = [
        r#"{"set_cookie":["k.3=; Max-Age=0; Path=/; Secure; SameSite=Lax","k=%7B%22access_token%22%3A%22a%22%2C%22refresh_token%22%3A%22r%22%2C%22expires_in%22%3A60%2C%22expires_at%22%3A61%7D; Max-Age=34560000; Path=/; Secure; SameSite=Lax"]}"#,
        r#"{"set_cookie":["k.0=; Max-Age=0; Path=/; SameSite=Lax","k.0=; Max-Age=0; Domain=example.com; Path=/; SameSite=Lax"]}"#,
        r#"{"session":{"access_token":"a","refresh_token":"r","expires_at":61.0,"user_id":null,"text":"{\"access_token\":\"a\",\"refresh_token\":\"r\",\"expires_at\":61}"}}"#,
        r#""no_session""#,
        r#"{"refused":"the session cookie is not JSON"}"#,
    ];
    let mut written = Vec::new();
    answers(questions.join("\n").as_bytes(), &mut written);
    let written = String::from_utf8(written).unwrap();
    assert_eq!(written.lines().collect::<Vec<_>>(), expected);
}
