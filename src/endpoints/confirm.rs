//! The page behind a link in a message. Programs follow links before people do, so a link spends nothing: only its button
//! does, with a form that goes to `POST verify`. Works without scripts.

use super::answer::Endpoints;
use super::return_to::Location;
use super::{Asked, query, refusal, reply};
use crate::base::body::Body;
use crate::exchange::Reject;
use crate::provider::supabase::CodeKind;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Response};
use std::sync::LazyLock;

const HASH_BYTES_MAX: usize = 256;

const STYLE: &str = ":root{color-scheme:light dark;--ink:#1a1d21;--soft:#5b636d;--paper:#fff;--ground:#f3f4f6;--line:#d9dde2;--act:#1d5fd1;--on:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#eceff3;--soft:#a5adb8;--paper:#1c1f24;--ground:#121417;--line:#343a42;--act:#7fb0ff;--on:#0b1220}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.5rem;background:var(--ground);color:var(--ink);font:1.0625rem/1.5 system-ui,sans-serif}\
main{width:100%;max-width:26rem;padding:2.25rem 2rem;background:var(--paper);border:1px solid var(--line);border-radius:.75rem;text-align:center}\
h1{margin:0 0 .5rem;font-size:1.375rem;line-height:1.25}\
p{margin:0 0 1.5rem;color:var(--soft)}\
button{width:100%;padding:.75rem 1rem;border:0;border-radius:.5rem;background:var(--act);color:var(--on);font:inherit;font-weight:600;cursor:pointer}\
button:hover{filter:brightness(1.08)}\
button:focus-visible{outline:3px solid var(--ink);outline-offset:3px}";

/// What the policy calls the style by (CSP Level 3 §2.3.1).
static STYLE_HASH: LazyLock<String> =
    LazyLock::new(|| STANDARD.encode(digest(&SHA256, STYLE.as_bytes())));

impl Endpoints {
    /// `GET confirm?token_hash&type[&return_to]`
    pub(super) fn confirm(&self, asked: &Asked<'_>) -> Result<Response<Body>, Reject> {
        let once = |name| query::parameter(asked.query, name).only(name);
        let incomplete =
            || refusal::bad("This link is not complete. Open it as it stands in the message.");
        let named = once("type")?.unwrap_or_default();
        let kind = CodeKind::named(&named).ok_or_else(incomplete)?;
        let hash = once("token_hash")?.filter(|hash| is_hash(hash));
        let hash = hash.ok_or_else(incomplete)?;
        self.provider()?;
        let wanted = query::parameter(asked.query, "return_to").plain();
        let place = self.place(wanted.as_deref(), asked);
        let html = page(kind, &named, &hash, &place, &self.base);
        Ok(reply::page(html, policy(&place)))
    }
}

fn is_hash(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.len() <= HASH_BYTES_MAX && text.bytes().all(fine)
}

/// Nothing but the page's own style and form. The way on after the form is part of sending it to some browsers, so another
/// origin that it leads to is named (CSP Level 3 §6.4.2).
fn policy(place: &Location) -> HeaderValue {
    // Characters that would end a source or a directive stand in no host that anybody has.
    let plain = |origin: &String| !origin.contains([';', ',', ' ', '\'']);
    let further = place.origin().filter(plain);
    let further = further.map(|origin| format!(" {origin}"));
    let text = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self'{}; base-uri 'none'; frame-ancestors 'none'",
        *STYLE_HASH,
        further.unwrap_or_default(),
    );
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

/// Title, a sentence, and the word on the button.
fn words(kind: CodeKind) -> [&'static str; 3] {
    let sign_in = "You asked to sign in.";
    match kind {
        CodeKind::Signup => [
            "Confirm your address",
            "One more step, and your account is ready.",
            "Confirm and sign in",
        ],
        CodeKind::Email | CodeKind::MagicLink | CodeKind::Sms => ["Sign in", sign_in, "Sign in"],
        CodeKind::Recovery => [
            "Set a new password",
            "You asked to set a new password.",
            "Continue",
        ],
        CodeKind::Invite => [
            "Accept the invitation",
            "You have been invited.",
            "Accept and sign in",
        ],
        CodeKind::EmailChange => [
            "Confirm your new address",
            "You asked to change your email address.",
            "Confirm",
        ],
        CodeKind::PhoneChange => [
            "Confirm your new number",
            "You asked to change your telephone number.",
            "Confirm",
        ],
    }
}

fn page(kind: CodeKind, named: &str, hash: &str, place: &Location, base: &str) -> String {
    let [title, sentence, button] = words(kind);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head>\n\
         <body><main><h1>{title}</h1><p>{sentence} If you did not expect this, close this page.</p>\n\
         <form method=\"post\" action=\"{base}/verify\">\
         <input type=\"hidden\" name=\"token_hash\" value=\"{hash}\">\
         <input type=\"hidden\" name=\"type\" value=\"{named}\">\
         <input type=\"hidden\" name=\"return_to\" value=\"{place}\">\
         <button>{button}</button></form></main></body></html>\n",
        base = escaped(base),
        hash = escaped(hash),
        named = escaped(named),
        place = escaped(place.as_str()),
    )
}

/// Safe inside a double-quoted attribute.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(place: &str) -> String {
        let place = Location::of_operator(place);
        page(CodeKind::Email, "email", "ab12", &place, "/.auth")
    }

    #[test]
    fn the_page_holds_one_form_with_what_the_link_said() {
        let html = html("/x?a=\"b&c='<script>");
        for part in [
            "<form method=\"post\" action=\"/.auth/verify\">",
            "name=\"token_hash\" value=\"ab12\"",
            "name=\"type\" value=\"email\"",
            "name=\"return_to\" value=\"/x?a=&quot;b&amp;c=&#39;&lt;script&gt;\"",
            "<button>Sign in</button>",
            "<html lang=\"en\">",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert_eq!(html.matches("<form").count(), 1);
        assert!(!html.contains("<script") && !html.contains(" on"), "{html}");
    }

    #[test]
    fn the_policy_names_the_style_and_where_the_form_may_lead() {
        let of = |place| {
            let policy = policy(&Location::of_operator(place));
            policy.to_str().unwrap().to_owned()
        };
        let html = html("/");
        let start = html.find("<style>").unwrap() + "<style>".len();
        let style = &html[start..html.find("</style>").unwrap()];
        let hash = STANDARD.encode(digest(&SHA256, style.as_bytes()));
        let own = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        assert_eq!(of("/x"), own);
        assert_eq!(
            of("https://admin.test:8443/x;y"),
            own.replace("'self'", "'self' https://admin.test:8443")
        );
        // The parser leaves this in a host.
        assert_eq!(of("https://a;script-src.test/"), own);
    }

    #[test]
    fn every_kind_has_words_of_its_own_meaning() {
        for name in [
            "email",
            "signup",
            "magiclink",
            "recovery",
            "invite",
            "email_change",
            "sms",
            "phone_change",
        ] {
            let kind = CodeKind::named(name).unwrap();
            let place = Location::of_operator("/");
            let html = page(kind, name, "h", &place, "/.auth");
            for word in words(kind) {
                assert!(html.contains(word), "{name}");
            }
        }
        assert!(is_hash("pkce_0123abcDEF-~."));
        for bad in ["a b", "a\"", "é", &"a".repeat(257)] {
            assert!(!is_hash(bad), "{bad}");
        }
    }
}
