//! Logins elsewhere that a browser has begun and not ended: each in a cookie of its own, which only this browser can bring
//! back. The browser owns it, so nothing in it is trusted: a verifier proves itself at the provider, a place to go is
//! judged again, an age is only ever a reason to refuse.

use super::return_to::{self, Location};
use crate::base::secret::Secret;
use crate::headers::cookies;
use crate::provider::supabase::pkce::Verifier;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Attempts of one browser at once; the oldest makes room.
pub(super) const ATTEMPTS_MAX: usize = 5;
/// Seconds for which one lasts.
const LIFE: u64 = 600;
/// Seconds by which the clocks of two gateways may differ.
const SKEW: u64 = 60;
/// Removals in one answer. Who has more cookies of this name has made them.
const CLEARED_MAX: usize = 20;

const NAME: &str = "tollhouse-login-";
/// Browsers take it only from us, over https (RFC 6265bis §4.1.3.2): no page of a neighbour can put an attempt of its own
/// into another's browser.
const NAME_OF_HOST: &str = "__Host-tollhouse-login-";
/// Characters of the challenge that make a name of its own.
const ID_BYTES: usize = 16;
const ID_BYTES_MAX: usize = 32;
const VERSION: u8 = 1;
/// Longest value that can be one of ours, in base64url.
const VALUE_BYTES_MAX: usize = (return_to::BYTES_MAX + 256) * 4 / 3;

/// Whether a cookie of this name is an attempt, begun over https or not: never forwarded, never an upstream's to set.
pub fn is_attempt(name: &[u8]) -> bool {
    [NAME_OF_HOST, NAME]
        .iter()
        .any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// What the cookie holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept<'a> {
    v: u8,
    verifier: &'a str,
    /// Unix seconds.
    at: u64,
    /// The operator's own `after_login` may need escapes.
    #[serde(borrow)]
    return_to: Cow<'a, str>,
}

/// One that may still succeed.
pub(super) struct Attempt {
    name: String,
    pub(super) verifier: Verifier,
    /// Unix seconds.
    at: u64,
    /// Where to go then; not judged.
    pub(super) return_to: String,
}

/// The attempts of a request.
pub(super) struct Attempts {
    /// Newest first, as many as there are.
    pub(super) living: Vec<Attempt>,
    /// Names of those that are too old or nonsense.
    dead: Vec<String>,
    secure: bool,
}

impl Attempts {
    /// Those in a request, at `now` (Unix seconds). `secure`: we are reached over https.
    pub(super) fn read(headers: &HeaderMap, secure: bool, now: u64) -> Self {
        let mut found = Self {
            living: Vec::new(),
            dead: Vec::new(),
            secure,
        };
        let mut seen: Vec<&[u8]> = Vec::new();
        for (name, value) in cookies::pairs(headers) {
            let id = name.strip_prefix(prefix(secure).as_bytes());
            if !id.is_some_and(is_id) || seen.contains(&name) {
                continue;
            }
            seen.push(name);
            let name = String::from_utf8_lossy(name).into_owned();
            match Attempt::read(name.clone(), value) {
                Some(attempt) if attempt.lives(now) => found.living.push(attempt),
                _ => found.dead.push(name),
            }
        }
        found
            .living
            .sort_by_key(|attempt| std::cmp::Reverse(attempt.at));
        found
    }

    /// Set-Cookie fields that remove all that can never succeed.
    pub(super) fn clear_dead(&self) -> Vec<HeaderValue> {
        self.clear(self.dead.iter())
    }

    /// Set-Cookie fields that remove one that has succeeded, and all that never can. Others go on in other tabs.
    pub(super) fn clear_done(&self, done: &Attempt) -> Vec<HeaderValue> {
        self.clear(std::iter::once(&done.name).chain(&self.dead))
    }

    /// Set-Cookie fields that begin one more and let go of what has no room beside it.
    pub(super) fn begin(
        &self,
        verifier: &Verifier,
        return_to: &Location,
        now: u64,
    ) -> Vec<HeaderValue> {
        let oldest = self.living.iter().skip(ATTEMPTS_MAX - 1);
        let mut fields = self.clear(oldest.map(|attempt| &attempt.name).chain(&self.dead));
        let challenge = verifier.challenge();
        let id = challenge.as_str().get(..ID_BYTES).unwrap_or_default();
        let kept = Kept {
            v: VERSION,
            verifier: verifier.secret().expose(),
            at: now,
            return_to: return_to.as_str().into(),
        };
        // Texts and numbers: nothing of it can fail to be written.
        let text = Secret::new(serde_json::to_vec(&kept).unwrap_or_default());
        let value = URL_SAFE_NO_PAD.encode(text.expose());
        let name = format!("{}{id}", prefix(self.secure));
        fields.extend(self.field(&name, &value, LIFE));
        fields
    }

    fn clear<'a>(&self, names: impl Iterator<Item = &'a String>) -> Vec<HeaderValue> {
        let names = names.take(CLEARED_MAX);
        names.filter_map(|name| self.field(name, "", 0)).collect()
    }

    fn field(&self, name: &str, value: &str, max_age: u64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let field =
            format!("{name}={value}; Max-Age={max_age}; Path=/; HttpOnly; SameSite=Lax{secure}");
        let mut field = HeaderValue::try_from(field).ok()?;
        field.set_sensitive(true);
        Some(field)
    }
}

impl Attempt {
    fn read(name: String, value: &[u8]) -> Option<Self> {
        if value.len() > VALUE_BYTES_MAX {
            return None;
        }
        let text = Secret::new(URL_SAFE_NO_PAD.decode(value).ok()?);
        let kept: Kept<'_> = serde_json::from_slice(text.expose()).ok()?;
        if kept.v != VERSION {
            return None;
        }
        Some(Self {
            name,
            verifier: Verifier::kept(Secret::new(kept.verifier.to_owned()))?,
            at: kept.at,
            return_to: kept.return_to.into_owned(),
        })
    }

    fn lives(&self, now: u64) -> bool {
        self.at <= now.saturating_add(SKEW) && now.saturating_sub(self.at) <= LIFE
    }
}

fn prefix(secure: bool) -> &'static str {
    if secure { NAME_OF_HOST } else { NAME }
}

fn is_id(id: &[u8]) -> bool {
    let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.iter().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    const NOW: u64 = 1_767_225_600;

    fn headers(cookies: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(cookies.join("; ")).unwrap());
        headers
    }

    /// Name, value and the rest of a field.
    fn parts(field: &HeaderValue) -> (String, String, String) {
        let (pair, rest) = field.to_str().unwrap().split_once("; ").unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        (name.to_owned(), value.to_owned(), rest.to_owned())
    }

    /// A browser after one more attempt.
    fn begun(cookies: &mut Vec<String>, secure: bool, now: u64, return_to: &str) -> Verifier {
        let verifier = Verifier::generate().unwrap();
        let found = Attempts::read(&headers(cookies), secure, now);
        for field in found.begin(&verifier, &Location::of_operator(return_to), now) {
            let (name, value, rest) = parts(&field);
            cookies.retain(|cookie| !cookie.starts_with(&format!("{name}=")));
            if !rest.starts_with("Max-Age=0;") {
                cookies.push(format!("{name}={value}"));
            }
        }
        verifier
    }

    fn value(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn an_attempt_comes_back_as_it_was_begun() {
        for (secure, prefix, end) in [
            (true, "__Host-tollhouse-login-", "; Secure"),
            (false, "tollhouse-login-", ""),
        ] {
            let verifier = Verifier::generate().unwrap();
            let none = Attempts::read(&HeaderMap::new(), secure, NOW);
            let fields = none.begin(&verifier, &Location::of_operator("/x?y"), NOW);
            assert_eq!(fields.len(), 1);
            assert!(fields[0].is_sensitive());
            let (name, value, rest) = parts(&fields[0]);
            assert!(
                name.starts_with(prefix) && is_attempt(name.as_bytes()),
                "{name}"
            );
            let expected = format!("Max-Age=600; Path=/; HttpOnly; SameSite=Lax{end}");
            assert_eq!(rest, expected);
            let json = URL_SAFE_NO_PAD.decode(&value).unwrap();
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            let members: Vec<&String> = json.as_object().unwrap().keys().collect();
            assert_eq!(members, ["at", "return_to", "v", "verifier"]);

            let cookie = [format!("{name}={value}")];
            let found = Attempts::read(&headers(&cookie), secure, NOW + LIFE);
            assert_eq!(found.living.len(), 1);
            assert_eq!(found.living[0].return_to, "/x?y");
            let kept = found.living[0].verifier.secret().expose();
            assert_eq!(kept, verifier.secret().expose());
            // Of the other kind it is none: over https only a name that browsers guard counts.
            let other = Attempts::read(&headers(&cookie), !secure, NOW);
            assert!(other.living.is_empty() && other.dead.is_empty());
        }
    }

    #[test]
    fn it_lasts_for_ten_minutes_whatever_the_browser_says() {
        let mut cookies = Vec::new();
        begun(&mut cookies, true, NOW, "/");
        let living = |now| Attempts::read(&headers(&cookies), true, now).living.len();
        assert_eq!(living(NOW + 600), 1);
        assert_eq!(living(NOW + 601), 0);
        assert_eq!(living(NOW - 60), 1);
        assert_eq!(living(NOW - 61), 0);
        let old = Attempts::read(&headers(&cookies), true, NOW + 601);
        let cleared = old.clear_dead();
        assert_eq!(cleared.len(), 1);
        let (name, value, rest) = parts(&cleared[0]);
        assert_eq!(
            format!("{name}={}", cookies[0].split_once('=').unwrap().1),
            cookies[0]
        );
        assert!(value.is_empty() && rest.starts_with("Max-Age=0; Path=/;"));
    }

    #[test]
    fn the_oldest_of_five_makes_room() {
        let mut cookies = Vec::new();
        let verifiers: Vec<Verifier> = (0..8)
            .map(|n| begun(&mut cookies, true, NOW + n, &format!("/{n}")))
            .collect();
        assert_eq!(cookies.len(), ATTEMPTS_MAX);
        let found = Attempts::read(&headers(&cookies), true, NOW + 8);
        let places: Vec<&str> = found.living.iter().map(|a| &*a.return_to).collect();
        assert_eq!(places, ["/7", "/6", "/5", "/4", "/3"]);
        let newest = found.living[0].verifier.secret();
        assert_eq!(newest, verifiers[7].secret());
        assert_eq!(
            found.clear_done(&found.living[0]).len(),
            1,
            "the others go on"
        );
    }

    #[test]
    fn nonsense_is_no_attempt_and_goes_with_the_next_one() {
        let verifier = "v".repeat(43);
        let good = format!(r#"{{"v":1,"verifier":"{verifier}","at":{NOW},"return_to":"/x"}}"#);
        let name = |n: usize| format!("__Host-tollhouse-login-{n}");
        let mut cookies = vec![format!("{}={}", name(0), value(&good))];
        let bad = [
            String::new(),
            "!".into(),
            value("[]"),
            value("{}"),
            value(&good.replace("\"v\":1", "\"v\":2")),
            value(&good.replace(&verifier, "short")),
            value(&good.replace("\"/x\"", "7")),
            value(&good.replace(&NOW.to_string(), "-1")),
            value(&good.replace(&NOW.to_string(), "1e300")),
            value(&good.replace('}', ",\"more\":1}")),
            value(&format!("{good} ")) + "=",
            value(&good.replace("/x", &"x".repeat(4000))),
        ];
        cookies.extend(
            bad.iter()
                .enumerate()
                .map(|(n, bad)| format!("{}={bad}", name(n + 1))),
        );
        cookies.push("__Host-tollhouse-login-=x".into());
        cookies.push(format!("__Host-tollhouse-login-{}=x", "a".repeat(33)));
        cookies.push("__Host-tollhouse-login-a.b=x".into());
        cookies.push("__host-tollhouse-login-a=x".into());
        // The first of a name counts.
        cookies.push(format!("{}=x", name(0)));
        let found = Attempts::read(&headers(&cookies), true, NOW);
        assert_eq!(found.living.len(), 1);
        assert_eq!(found.dead.len(), bad.len());
        let fields = found.begin(
            &Verifier::generate().unwrap(),
            &Location::of_operator("/"),
            NOW,
        );
        assert_eq!(fields.len(), bad.len() + 1);
    }

    #[test]
    fn a_place_with_escapes_comes_back() {
        let mut cookies = Vec::new();
        begun(&mut cookies, true, NOW, "/a\"b\\c");
        let found = Attempts::read(&headers(&cookies), true, NOW);
        assert_eq!(found.living[0].return_to, "/a\"b\\c");
    }

    #[test]
    fn who_has_made_hundreds_gets_a_bounded_answer() {
        let cookies: Vec<String> = (0..400).map(|n| format!("tollhouse-login-{n}=x")).collect();
        let found = Attempts::read(&headers(&cookies), false, NOW);
        assert_eq!(found.clear_dead().len(), CLEARED_MAX);
    }

    #[test]
    fn the_longest_place_fits_into_what_browsers_keep() {
        let mut cookies = Vec::new();
        let place = format!("/{}", "x".repeat(return_to::BYTES_MAX - 1));
        begun(&mut cookies, true, NOW, &place);
        assert!(cookies[0].len() + 80 <= 4096, "{}", cookies[0].len());
        let found = Attempts::read(&headers(&cookies), true, NOW);
        assert_eq!(found.living[0].return_to, place);
    }
}
