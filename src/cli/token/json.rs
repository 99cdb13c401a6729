//! The report for machines.

use super::find::{Kept, Seen};
use super::input::Form;
use super::report::{Entry, Examined, Report, Verdict, reason};
use super::shell::Shell;
use crate::session::supabase::{Encoding, Form as Written};
use crate::token::inspect::Finding;
use serde_json::{Map, Value, json};

impl Report {
    /// One document.
    pub fn to_json(&self) -> Value {
        json!({
            "accepted": self.is_accepted(),
            "read_as": form(self.form),
            "notes": self.notes,
            "credentials": self.entries.iter().map(entry).collect::<Vec<_>>(),
        })
    }
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Token => "token",
        Form::Bearer => "bearer",
        Form::Fields => "fields",
        Form::Cookies => "cookies",
        Form::CookieValue => "cookie_value",
        Form::Curl(Shell::Posix) => "curl",
        Form::Curl(Shell::Cmd) => "curl_cmd",
    }
}

fn entry(entry: &Entry) -> Value {
    json!({
        "from": entry.place.as_str(),
        "session": entry.session.as_ref().map(session),
        "token": entry.token.as_ref().map(token),
        "as_session": verdict(&entry.as_session),
        "as_bearer": verdict(&entry.as_bearer),
    })
}

fn session(seen: &Seen) -> Value {
    let kept = match &seen.kept {
        Kept::Supabase {
            form,
            encoding,
            with_user,
        } => json!({
            "kind": "supabase",
            "form": match form {
                Written::Object => "object",
                Written::Array => "array",
                Written::TwoCookies => "two_cookies",
            },
            "encoding": match encoding {
                Encoding::Base64Url => "base64url",
                Encoding::Raw => "raw",
            },
            "user": with_user,
        }),
        Kept::Raw => json!({"kind": "raw"}),
        Kept::Sealed {
            key,
            created_at,
            seen_at,
        } => {
            json!({"kind": "sealed", "key": key, "created_at": created_at, "seen_at": seen_at})
        }
        Kept::Stored { asked } => json!({"kind": "stored", "asked": asked}),
        Kept::Unreadable(why) => json!({"kind": "unreadable", "why": why}),
    };
    let cookies = seen.cookies.iter();
    json!({
        "kept": kept,
        "looked_for": seen.looked_for,
        "cookies": cookies
            .map(|(name, bytes)| json!({"name": name, "bytes": bytes}))
            .collect::<Vec<_>>(),
        "refresh_token_bytes": seen.refresh_token,
        "expires_at": seen.expires_at,
    })
}

fn token(token: &Examined) -> Value {
    let pairs = |pairs: &[(&str, Value)]| -> Map<String, Value> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect()
    };
    let checks = token.inspection.findings().map(|(check, finding)| {
        let (result, why) = match finding {
            Finding::Holds => ("ok", None),
            Finding::Fails(error) => ("fail", Some(reason(error))),
            Finding::Withheld => ("no_keys", None),
            Finding::NotReached => ("not_reached", None),
        };
        json!({"check": check.as_str(), "result": result, "why": why})
    });
    let identity = token.inspection.identity.as_ref().map(|identity| {
        json!({
            "user_id": &*identity.user_id,
            "roles": identity.roles,
            "scopes": identity.scopes,
        })
    });
    json!({
        "bytes": token.peek.bytes,
        "header": pairs(&token.peek.header),
        "claims": pairs(&token.peek.claims),
        "other_claims": token.peek.others,
        "provider": token.provider.as_deref(),
        "identity": identity,
        "proven": token.is_proven(),
        "checks": checks.collect::<Vec<_>>(),
    })
}

fn verdict(verdict: &Verdict) -> Value {
    let (status, code) = match verdict {
        Verdict::Refused { code, .. } => (Some(code.status().as_u16()), Some(code.as_str())),
        _ => (None, None),
    };
    json!({
        "accepted": verdict.accepted(),
        "verdict": verdict.as_str(),
        "status": status,
        "code": code,
        "text": super::text::verdict(verdict),
    })
}
