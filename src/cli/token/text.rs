//! The report for people.

use super::find::{Kept, Seen};
use super::input::Form;
use super::peek::{clean, line};
use super::report::{Entry, Examined, Place, Report, Verdict, reason};
use super::shell::Shell;
use crate::session::supabase::{Encoding, Form as Written};
use crate::token::TokenError;
use crate::token::inspect::{Check, Finding};
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, UNIX_EPOCH};

/// Claims that are moments.
const TIMES: [&str; 3] = ["exp", "nbf", "iat"];

/// The last second that RFC 3339 can write: the end of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "read as {}", form(self.form))?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for entry in &self.entries {
            writeln!(f)?;
            self.entry(f, entry)?;
        }
        Ok(())
    }
}

impl Report {
    fn entry(&self, f: &mut Formatter<'_>, entry: &Entry) -> fmt::Result {
        match (entry.place, &entry.session) {
            (Place::Authorization, _) => writeln!(f, "the Authorization field")?,
            (Place::Word, _) => writeln!(f, "the token")?,
            (Place::Cookie, None) => writeln!(f, "the cookies: no session")?,
            (Place::Cookie, Some(seen)) => {
                writeln!(f, "the cookies: {}", kept(seen))?;
                self.session(f, seen)?;
            }
        }
        if let Some(token) = &entry.token {
            self.token(f, token)?;
        }
        writeln!(f)?;
        field(f, "as a session cookie", &verdict(&entry.as_session))?;
        let as_bearer = match entry.place {
            Place::Cookie => "its token as Bearer",
            _ => "as a Bearer token",
        };
        field(f, as_bearer, &verdict(&entry.as_bearer))
    }

    fn session(&self, f: &mut Formatter<'_>, seen: &Seen) -> fmt::Result {
        for (name, bytes) in &seen.cookies {
            field(f, "cookie", &format!("{name}, {bytes} bytes"))?;
        }
        if let Kept::Sealed {
            created_at,
            seen_at,
            ..
        } = &seen.kept
        {
            field(f, "began", &when(*created_at, self.now))?;
            field(f, "last seen", &when(*seen_at, self.now))?;
        }
        if !seen.is_readable() {
            return Ok(());
        }
        let refresh = match seen.refresh_token {
            Some(bytes) => format!("yes, {bytes} bytes"),
            None => "no".to_owned(),
        };
        field(f, "refresh token", &refresh)?;
        match seen.expires_at {
            Some(at) => field(f, "says it ends", &when(at, self.now)),
            None => Ok(()),
        }
    }

    fn token(&self, f: &mut Formatter<'_>, token: &Examined) -> fmt::Result {
        for (name, value) in token.peek.header.iter().chain(&token.peek.claims) {
            let text = line(value);
            match value.as_f64() {
                // A float is cut: a second does not matter here.
                Some(at) if TIMES.contains(name) && at >= 0.0 => {
                    field(f, name, &format!("{text}: {}", when(at as u64, self.now)))?;
                }
                _ => field(f, name, &text)?,
            }
        }
        if !token.peek.others.is_empty() {
            field(f, "and", &token.peek.others.join(", "))?;
        }
        if let Some(identity) = &token.inspection.identity {
            field(f, "user id", &clean(&identity.user_id))?;
            for (name, list) in [("roles", &identity.roles), ("scopes", &identity.scopes)] {
                if !list.is_empty() || name == "roles" {
                    field(f, name, &words(list))?;
                }
            }
        }
        if !token.is_proven() && !token.peek.claims.is_empty() {
            field(f, "", "(nothing of this is proven)")?;
        }
        writeln!(f)?;
        let mut not_reached = Vec::new();
        for (check, finding) in token.inspection.findings() {
            let name = check.as_str().replace('_', " ");
            match finding {
                Finding::Holds => checked(f, "ok", &name, &self.detail(token, check))?,
                Finding::Fails(error) => checked(f, "FAIL", &name, &failure(token, check, error))?,
                Finding::Withheld => checked(f, "skip", &name, "no keys at hand: use --online")?,
                Finding::NotReached => not_reached.push(name),
            }
        }
        match not_reached.is_empty() {
            true => Ok(()),
            false => writeln!(f, "  skip  not reached: {}", not_reached.join(", ")),
        }
    }

    /// What is to be said of a check that holds.
    fn detail(&self, token: &Examined, check: Check) -> String {
        match check {
            Check::Size => size(token),
            Check::Issuer => match &token.provider {
                Some(name) => format!("provider `{name}`"),
                None => String::new(),
            },
            Check::Expiry => match token.peek.expires_at {
                Some(at) => relative(at, self.now),
                None => String::new(),
            },
            _ => String::new(),
        }
    }
}

fn field(f: &mut Formatter<'_>, name: &str, value: &str) -> fmt::Result {
    writeln!(f, "  {name:<20}  {value}")
}

fn checked(f: &mut Formatter<'_>, mark: &str, name: &str, detail: &str) -> fmt::Result {
    writeln!(
        f,
        "{}",
        format!("  {mark:<4}  {name:<12}  {detail}").trim_end()
    )
}

fn form(form: Form) -> &'static str {
    match form {
        Form::Token => "a token",
        Form::Bearer => "the value of an Authorization field",
        Form::Fields => "header fields",
        Form::Cookies => "the value of a Cookie field",
        Form::CookieValue => "the value of a session cookie",
        Form::Curl(Shell::Posix) => "a curl command",
        Form::Curl(Shell::Cmd) => "a curl command for Windows",
    }
}

fn kept(seen: &Seen) -> String {
    let pieces = match seen.cookies.len() {
        0 | 1 => String::new(),
        n => format!(", in {n} cookies"),
    };
    match &seen.kept {
        Kept::Supabase {
            form,
            encoding,
            with_user,
        } => {
            let encoding = match encoding {
                Encoding::Base64Url => "base64url",
                Encoding::Raw => "plain",
            };
            let form = match form {
                Written::Object if *with_user => format!("{encoding} JSON with its user"),
                Written::Object => format!("{encoding} JSON of tokens only"),
                Written::Array => format!("{encoding} JSON array, the older form"),
                Written::TwoCookies => "a cookie for each token, the oldest form".to_owned(),
            };
            format!("a Supabase session, {form}{pieces}")
        }
        Kept::Raw => "a token".to_owned(),
        Kept::Sealed { key, .. } => {
            format!("a sealed session, opened by key {key} of `session.keys`{pieces}")
        }
        Kept::Stored { .. } => format!("a stored session, by its id{pieces}"),
        Kept::Unreadable(why) => format!("a session that cannot be read{pieces}: {why}"),
    }
}

pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accepted => "accepted".to_owned(),
        Verdict::Renewed { serving, adopted } => {
            let how = match adopted {
                true => "taken over and renewed",
                false => "renewed",
            };
            match serving {
                true => format!("accepted, and {how} on the way"),
                false => format!("{how} on the way; the provider has the last word"),
            }
        }
        Verdict::Refused { code, why } => {
            let because = if why.is_empty() { "" } else { ": " };
            let status = code.status();
            format!("{} {}{because}{why}", status.as_u16(), code.as_str())
        }
        Verdict::Doomed { why } => format!("refused, whatever its signature is: {why}"),
        Verdict::Unknown { why } => format!("not known: {why}"),
        Verdict::NotLookedAt { why } => why.clone(),
    }
}

fn failure(token: &Examined, check: Check, error: &TokenError) -> String {
    let more = match (check, error, &token.keys_error) {
        (Check::Key, TokenError::KeysUnavailable { .. }, Some(why)) => clean(why),
        (Check::Size, ..) => size(token),
        (Check::Issuer, ..) => format!("the file has {}", clean(&token.wanted.issuers)),
        (Check::Algorithm, ..) => format!("the file has {}", clean(&token.wanted.algorithms)),
        (Check::Audience, ..) => format!("the file has {}", clean(&token.wanted.audiences)),
        _ => return reason(error),
    };
    format!("{}; {more}", reason(error))
}

fn size(token: &Examined) -> String {
    format!("{} bytes, at most {}", token.peek.bytes, token.max_bytes)
}

fn words(list: &[Box<str>]) -> String {
    match list {
        [] => "none".to_owned(),
        list => clean(&list.join(", ")),
    }
}

/// A moment, and how far it is.
fn when(at: u64, now: u64) -> String {
    let shown = at.min(LAST_SECOND);
    let moment = UNIX_EPOCH + Duration::from_secs(shown);
    format!(
        "{}, {}",
        humantime::format_rfc3339_seconds(moment),
        relative(at, now)
    )
}

/// How far a moment is, in its two largest units.
fn relative(at: u64, now: u64) -> String {
    let seconds = at.abs_diff(now);
    let far = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut parts = Vec::new();
    let mut left = seconds;
    for (unit, name) in far {
        if left >= unit && parts.len() < 2 {
            parts.push(format!("{} {name}", left / unit));
        }
        left %= unit;
    }
    match (at == now, at > now) {
        (true, _) => "now".to_owned(),
        (_, true) => format!("in {}", parts.join(" ")),
        _ => format!("{} ago", parts.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_two_units() {
        for (at, expected) in [
            (1_000_000, "now"),
            (1_000_001, "in 1 s"),
            (1_000_090, "in 1 min 30 s"),
            (999_940, "1 min ago"),
            (1_003_661, "in 1 h 1 min"),
            (0, "11 d 13 h ago"),
        ] {
            assert_eq!(relative(at, 1_000_000), expected);
        }
        assert_eq!(when(60, 0), "1970-01-01T00:01:00Z, in 1 min");
        assert!(when(u64::MAX, 0).starts_with("9999-12-31T23:59:59Z"));
    }
}
