//! What somebody pasted: a token, an Authorization or Cookie field, some fields of a request, a cookie's value, or a copied
//! `curl` command. Whatever it is, it becomes what a request would have brought.

use super::curl::{self, Kind};
use super::shell::{self, Shell};
use crate::base::secret::Secret;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Bytes of input that are looked at.
pub const INPUT_BYTES_MAX: usize = 256 << 10;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// In which form it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One word.
    Token,
    /// `Bearer` and a word.
    Bearer,
    /// Header fields, one on each line.
    Fields,
    /// Pairs of a Cookie field.
    Cookies,
    /// The value of a session cookie without its name.
    CookieValue,
    /// A `curl` command.
    Curl(Shell),
}

/// What was read.
pub struct Given {
    /// In which form it came.
    pub form: Form,
    /// The fields of the request that matter: Authorization, Cookie, Sec-Fetch-Site. Marked sensitive.
    pub fields: HeaderMap,
    /// A token by itself, or the value of a cookie.
    pub word: Option<Secret<String>>,
    /// The command names a file of cookies, which is not read.
    pub cookie_file: bool,
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Given")
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// Why nothing was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// Nothing at all.
    #[error("there is nothing on standard input")]
    Empty,
    /// More than [`INPUT_BYTES_MAX`].
    #[error("there are more than {INPUT_BYTES_MAX} bytes on standard input")]
    TooLarge,
    /// Not UTF-8.
    #[error("standard input is not text")]
    NotText,
    /// None of the forms.
    #[error("this is neither a token nor a Cookie or Authorization field nor a curl command")]
    Unknown,
    /// A quote that nothing closes.
    #[error("a quote of the curl command is never closed; was all of it copied?")]
    Unclosed,
    /// A variable stands where the credential should.
    #[error(
        "the command takes its credential from a variable, which only your shell can fill in; paste the value itself"
    )]
    Unexpanded,
    /// No header field can hold it.
    #[error("the credential holds characters that no header field can hold")]
    NotAField,
}

/// Reads it.
pub fn read(input: &[u8]) -> Result<Given, NotRead> {
    if input.len() > INPUT_BYTES_MAX {
        return Err(NotRead::TooLarge);
    }
    let text = std::str::from_utf8(input).map_err(|_| NotRead::NotText)?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Err(NotRead::Empty);
    }
    if let Some(command) = curl_command(text) {
        return from_curl(command);
    }
    let mut given = Given::new(Form::Token);
    // Before the fields: an escaped value looks like one.
    if is_cookie_value(text) {
        given.form = Form::CookieValue;
        given.word = Some(Secret::new(joined(text, "")));
    } else if let Some(fields) = from_fields(text)? {
        return Ok(fields);
    } else if is_bearer(text) {
        given.form = Form::Bearer;
        given.put(AUTHORIZATION, &joined(text, " "))?;
    } else if is_word(text) {
        given.word = Some(Secret::new(joined(text, "")));
    } else if text.contains('=') {
        given.form = Form::Cookies;
        given.put(COOKIE, &joined(text, " "))?;
    } else {
        return Err(NotRead::Unknown);
    }
    Ok(given)
}

impl Given {
    fn new(form: Form) -> Self {
        Self {
            form,
            fields: HeaderMap::new(),
            word: None,
            cookie_file: false,
        }
    }

    /// Whether there is anything to look at.
    pub fn has_credential(&self) -> bool {
        self.word.is_some()
            || self.fields.contains_key(AUTHORIZATION)
            || self.fields.contains_key(COOKIE)
    }

    fn put(&mut self, name: HeaderName, value: &str) -> Result<(), NotRead> {
        self.put_bytes(name, value.as_bytes())
    }

    fn put_bytes(&mut self, name: HeaderName, value: &[u8]) -> Result<(), NotRead> {
        let value = HeaderValue::from_bytes(value.trim_ascii());
        let mut value = value.map_err(|_| NotRead::NotAField)?;
        value.set_sensitive(true);
        // A map of two names never has too many.
        let put = self.fields.try_append(name, value);
        put.map(drop).map_err(|_| NotRead::NotAField)
    }

    /// Keeps a field if it matters. `unexpanded`: not all of it is there.
    fn put_field(&mut self, name: &[u8], value: &[u8], unexpanded: bool) -> Result<(), NotRead> {
        let Some(name) = [AUTHORIZATION, COOKIE, SEC_FETCH_SITE]
            .into_iter()
            .find(|known| name.eq_ignore_ascii_case(known.as_str().as_bytes()))
        else {
            return Ok(());
        };
        if unexpanded {
            return Err(NotRead::Unexpanded);
        }
        self.put_bytes(name, value)
    }
}

/// A command behind the prompt of a shell.
fn curl_command(text: &str) -> Option<&str> {
    let text = text.strip_prefix("$ ").unwrap_or(text).trim_start();
    let first = text.split_ascii_whitespace().next()?;
    let is_curl = ["curl", "curl.exe"]
        .iter()
        .any(|name| first.eq_ignore_ascii_case(name));
    is_curl.then_some(text)
}

fn from_curl(command: &str) -> Result<Given, NotRead> {
    let is_cmd = command.contains("^\"")
        || command
            .lines()
            .any(|line| line.trim_end().ends_with('^') && !line.contains("$'"));
    let shell = if is_cmd { Shell::Cmd } else { Shell::Posix };
    let words = shell::words(command, shell).map_err(|_| NotRead::Unclosed)?;
    let mut given = Given::new(Form::Curl(shell));
    for part in curl::parts(words.get(1..).unwrap_or_default()) {
        match part.kind {
            Kind::Field => {
                let mut halves = part.value.splitn(2, |byte| *byte == b':');
                if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
                    given.put_field(name.trim_ascii(), value, part.unexpanded)?;
                }
            }
            Kind::Cookies if part.unexpanded || part.value.contains(&b'=') => {
                given.put_field(COOKIE.as_str().as_bytes(), part.value, part.unexpanded)?;
            }
            Kind::Cookies => given.cookie_file = true,
            Kind::Bearer => {
                let value = [b"Bearer ", part.value].concat();
                let name = AUTHORIZATION.as_str().as_bytes();
                given.put_field(name, &value, part.unexpanded)?;
            }
        }
    }
    Ok(given)
}

/// `None`: no line is a field. Lines that are none, as the first of a request, are passed over.
fn from_fields(text: &str) -> Result<Option<Given>, NotRead> {
    let mut given = Given::new(Form::Fields);
    let mut lines = text.lines().map(str::trim).peekable();
    let mut found = false;
    while let Some(line) = lines.next() {
        let Some((name, mut value)) = field(line) else {
            continue;
        };
        found = true;
        // Where the tools of a browser are copied from, a value stands below its name.
        if value.is_empty()
            && let Some(next) = lines.next_if(|next| field(next).is_none())
        {
            value = next;
        }
        given.put_field(name.as_bytes(), value.as_bytes(), false)?;
    }
    Ok(found.then_some(given))
}

/// Name and value of a line: a token of RFC 9110 §5.6.2 before the colon, or one of the names that matter by itself.
fn field(line: &str) -> Option<(&str, &str)> {
    let by_itself = ["authorization", "cookie"]
        .iter()
        .any(|name| line.eq_ignore_ascii_case(name));
    if by_itself {
        return Some((line, ""));
    }
    let (name, value) = line.split_once(':')?;
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let fine = !name.is_empty() && name.len() <= 64 && name.bytes().all(is_name);
    fine.then_some((name, value.trim()))
}

fn is_bearer(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let scheme = words.next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("bearer") && words.next().is_some()
}

/// A session as Supabase's libraries keep it, encoded in one way or another.
fn is_cookie_value(text: &str) -> bool {
    ["base64-", "{", "[", "%7B", "%5B", "%7b", "%5b"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// One word, perhaps broken into lines: no pair, for `=` stands only at its end.
fn is_word(text: &str) -> bool {
    let inside = text.trim_end_matches('=');
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~+/\r\n\t ".contains(&b);
    // Words beside each other on one line are prose.
    !inside.is_empty()
        && inside.bytes().all(fine)
        && inside
            .lines()
            .all(|line| !line.trim().contains([' ', '\t']))
}

/// The lines as one.
fn joined(text: &str, between: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines.join(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Form, Authorization fields, Cookie fields, word.
    fn check(text: &str, form: Form, authorization: &[&str], cookie: &[&str], word: Option<&str>) {
        let given = read(text.as_bytes()).unwrap_or_else(|why| panic!("{why}: {text}"));
        let values = |name| -> Vec<_> {
            let all = given.fields.get_all(name).iter();
            all.map(|value: &HeaderValue| value.to_str().unwrap())
                .collect()
        };
        assert_eq!(given.form, form, "{text}");
        assert_eq!(values(AUTHORIZATION), authorization, "{text}");
        assert_eq!(values(COOKIE), cookie, "{text}");
        let got = given.word.as_ref().map(|word| word.expose().as_str());
        assert_eq!(got, word, "{text}");
        assert!(given.fields.values().all(HeaderValue::is_sensitive));
    }

    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl";

    #[test]
    fn one_word_is_a_token_whatever_becomes_of_it() {
        for text in [
            JWT.to_owned(),
            format!("\u{feff}  {JWT}\r\n"),
            format!("{}\n  {}\n", &JWT[..20], &JWT[20..]),
        ] {
            check(&text, Form::Token, &[], &[], Some(JWT));
        }
        for text in ["opaque", "a.b", "a.b.c.d.e", "YWJj==", "thk_12_ab"] {
            check(text, Form::Token, &[], &[], Some(text));
        }
    }

    #[test]
    fn a_field_and_the_value_of_one_are_told_apart() {
        let bearer = format!("Bearer {JWT}");
        check(&bearer, Form::Bearer, &[&bearer], &[], None);
        let lower = format!("bearer\n{JWT}");
        check(&lower, Form::Bearer, &[&format!("bearer {JWT}")], &[], None);
        let field = format!("Authorization: {bearer}");
        check(&field, Form::Fields, &[&bearer], &[], None);
        check("Cookie: a=b; c=d", Form::Fields, &[], &["a=b; c=d"], None);
        check("a=b; c=d:e", Form::Cookies, &[], &["a=b; c=d:e"], None);
        check("a=b;\n c=d", Form::Cookies, &[], &["a=b; c=d"], None);
        check("a=", Form::Token, &[], &[], Some("a="));
    }

    #[test]
    fn the_value_of_a_session_cookie_needs_no_name() {
        for text in [
            "base64-eyJh",
            "{\"access_token\":\"a; b=c\"}",
            "%7B%22a%22",
            "[\"a\"]",
        ] {
            check(text, Form::CookieValue, &[], &[], Some(text));
        }
    }

    #[test]
    fn of_the_fields_of_a_request_those_that_matter_are_kept() {
        let text = "GET /x?a=b:c HTTP/1.1\nHost: a\nCOOKIE: a=b\ncookie:c=d\n\
                    authorization: Bearer t\nSec-Fetch-Site: none\n:path: /x\n\nbody=x";
        check(text, Form::Fields, &["Bearer t"], &["a=b", "c=d"], None);
        let given = read(text.as_bytes()).unwrap();
        assert_eq!(given.fields[SEC_FETCH_SITE], "none");
        assert_eq!(given.fields.len(), 4);
        // As the tools of a browser give them.
        let text = "accept\n*/*\ncookie\na=b; c=d\nauthorization:\nBearer t\nuser-agent:\nx";
        check(text, Form::Fields, &["Bearer t"], &["a=b; c=d"], None);
        check("accept: */*", Form::Fields, &[], &[], None);
        assert!(!read(b"accept: */*").unwrap().has_credential());
    }

    #[test]
    fn a_copied_command_is_what_it_would_have_sent() {
        let posix = Form::Curl(Shell::Posix);
        let text = "curl 'https://a.test/x' \\\n  -H 'accept: */*' \\\n  -b 'a=b; c=d' \\\n  -H 'authorization: Bearer t'";
        check(text, posix, &["Bearer t"], &["a=b; c=d"], None);
        let text = "$ curl -H $'cookie: a=\\u0021b' --oauth2-bearer t x";
        check(text, posix, &["Bearer t"], &["a=!b"], None);
        let text = "curl.exe \"https://a.test/\" ^\r\n  -H \"cookie: a=b\" ^\r\n  --compressed";
        check(text, Form::Curl(Shell::Cmd), &[], &["a=b"], None);
        check("curl https://a.test/", posix, &[], &[], None);
        let file = read(b"curl -b jar.txt x").unwrap();
        assert!(file.cookie_file && !file.has_credential());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        for (text, why) in [
            ("", NotRead::Empty),
            (" \n\t ", NotRead::Empty),
            ("curl 'x", NotRead::Unclosed),
            (
                "curl -H \"authorization: Bearer $T\" x",
                NotRead::Unexpanded,
            ),
            ("curl -b \"$COOKIES\" x", NotRead::Unexpanded),
            (
                "curl -H $'cookie: a=\\n' -H $'cookie: a\\nb' x",
                NotRead::NotAField,
            ),
            ("what is this", NotRead::Unknown),
        ] {
            assert_eq!(read(text.as_bytes()).err(), Some(why), "{text}");
        }
        assert!(read(b"curl -H \"x-id: $ID\" -H a:b x").is_ok());
        assert_eq!(read(b"\xff").err(), Some(NotRead::NotText));
        let large = vec![b'a'; INPUT_BYTES_MAX + 1];
        assert!(read(&large[1..]).is_ok());
        assert_eq!(read(&large).err(), Some(NotRead::TooLarge));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fail_otherwise(text in "(curl |cookie: |Bearer |base64-|)(\\PC|[\n\r'\"\\\\$^;=:.]){0,60}") {
            let _ = read(text.as_bytes());
        }

        #[test]
        fn cookies_come_back_as_a_browser_would_have_sent_them(
            pairs in prop::collection::vec(("[a-z-]{1,9}", "[!#-+.-:<-\\[\\]-~]{0,30}"), 1..6)
        ) {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let field = pairs.join("; ");
            let quoted = field.replace('\'', "'\\''");
            for text in [format!("Cookie: {field}"), format!("curl 'http://a/' -b '{quoted}'"), format!("curl x -H 'cookie: {quoted}'")] {
                let given = read(text.as_bytes()).unwrap();
                prop_assert_eq!(given.fields[COOKIE].to_str().unwrap(), &field, "{}", text);
            }
        }
    }
}
