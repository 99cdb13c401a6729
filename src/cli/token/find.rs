//! The session among the cookies that were pasted: how it is kept and what is in it. Where the file looks for another one, or
//! for none, a session of Supabase's library is still recognised by its name.

use super::peek::clean;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::headers::cookies;
use crate::session::supabase::{Encoding, Form, SupabaseCookies};
use crate::session::{Held, Jar, Session};
use http::HeaderMap;

/// Cookies that are listed.
const LISTED_MAX: usize = 40;

/// A session, as it was found.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) kept: Kept,
    /// Names and bytes of its cookies.
    pub(super) cookies: Vec<(String, usize)>,
    pub(super) access_token: Option<Secret<String>>,
    /// Bytes of its refresh token.
    pub(super) refresh_token: Option<usize>,
    /// When it says that its token ends, in Unix seconds.
    pub(super) expires_at: Option<u64>,
    /// The file looks for it.
    pub(super) looked_for: bool,
}

/// How it is kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// By Supabase's library.
    Supabase {
        form: Form,
        encoding: Encoding,
        with_user: bool,
    },
    /// As a token in a cookie.
    Raw,
    /// By us. Times in Unix seconds.
    Sealed {
        /// Of `session.keys`, counted from 1.
        key: usize,
        created_at: u64,
        seen_at: u64,
    },
    /// In Redis; the cookie holds its id.
    Stored {
        /// The store was asked what it is.
        asked: bool,
    },
    /// Not so that it could be read.
    Unreadable(String),
}

/// The session of these fields. `online`: its store may be asked.
pub(super) async fn session(
    config: &Config,
    session: Option<&Session>,
    headers: &HeaderMap,
    online: bool,
) -> Option<Seen> {
    if let Some(session) = session
        && let Some(seen) = ours(session, headers, online).await
    {
        return Some(seen);
    }
    let provider = |index: usize| config.providers.get(index);
    let adopted = session
        .filter(|session| session.adopt().is_some())
        .and_then(|session| provider(session.provider)?.cookie_name.as_deref());
    if let Some(key) = adopted
        && let Some(seen) = supabase(&SupabaseCookies::new(key), headers)
    {
        return Some(Seen {
            looked_for: true,
            ..seen
        });
    }
    keys(headers)
        .iter()
        .find_map(|key| supabase(&SupabaseCookies::new(key), headers))
}

/// The value of a session cookie, as it would stand under the name that the file looks for.
pub(super) fn named(config: &Config, session: Option<&Session>, value: &str) -> String {
    let name = session.and_then(|session| {
        let provider = config.providers.get(session.provider)?;
        provider.cookie_name.as_deref()
    });
    let name = name.unwrap_or("sb-pasted-auth-token");
    if value.starts_with(['{', '[']) {
        let value = percent_encoding::utf8_percent_encode(value, IN_A_COOKIE);
        return format!("{name}={value}");
    }
    format!("{name}={value}")
}

/// What stands in JSON and would be read otherwise in a cookie (RFC 6265 §4.1.1).
const IN_A_COOKIE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b',')
    .add(b';')
    .add(b'\\');

async fn ours(session: &Session, headers: &HeaderMap, online: bool) -> Option<Seen> {
    let seen = match session.jar() {
        Jar::Supabase { cookies, .. } => supabase(cookies, headers)?,
        Jar::RawToken(cookie) => {
            let access_token = match session.read(headers).await {
                Held::Token(token) => token,
                _ => return None,
            };
            Seen {
                access_token: Some(access_token),
                ..Seen::new(Kept::Raw, headers, |name| name == cookie.name.as_bytes())
            }
        }
        Jar::Sealed { cookies, .. } => {
            let unreadable = |why: &dyn std::fmt::Display| Kept::Unreadable(why.to_string());
            let (kept, opened) = match (cookies.key(headers), cookies.open(headers)) {
                (Ok(Some(key)), Ok(Some(opened))) => {
                    let kept = Kept::Sealed {
                        key: key + 1,
                        created_at: opened.created_at,
                        seen_at: opened.seen_at,
                    };
                    (kept, Some(opened))
                }
                (_, Err(why)) | (Err(why), _) => (unreadable(&why), None),
                (Ok(None), _) | (_, Ok(None)) => return None,
            };
            let seen = Seen::new(kept, headers, |name| session.owns(name));
            match opened {
                None => seen,
                Some(opened) => Seen {
                    refresh_token: opened.refresh_token.as_ref().map(|t| t.expose().len()),
                    expires_at: Some(opened.expires_at),
                    access_token: Some(opened.access_token),
                    ..seen
                },
            }
        }
        Jar::Stored { cookies, .. } if !online => {
            if !session.append_raw(headers, &mut Vec::new()) {
                return None;
            }
            let kept = Kept::Stored { asked: false };
            Seen::new(kept, headers, |name| cookies.owns(name))
        }
        Jar::Stored { cookies, .. } => {
            let seen = |kept| Seen::new(kept, headers, |name| cookies.owns(name));
            match session.read(headers).await {
                Held::Nothing => return None,
                Held::Session(brought) => Seen {
                    refresh_token: brought.refresh_token.as_ref().map(|t| t.expose().len()),
                    access_token: Some(brought.access_token),
                    ..seen(Kept::Stored { asked: true })
                },
                Held::Unreadable(why) => seen(Kept::Unreadable(why.to_string())),
                Held::Away(why) => seen(Kept::Unreadable(format!("its id is one, but {why}"))),
                Held::Over(_) | Held::Token(_) => {
                    seen(Kept::Unreadable("no session of that id is stored".into()))
                }
            }
        }
    };
    Some(Seen {
        looked_for: true,
        ..seen
    })
}

fn supabase(cookies: &SupabaseCookies, headers: &HeaderMap) -> Option<Seen> {
    let raw = cookies.raw(headers)?;
    let owns = |name: &[u8]| cookies.owns(name);
    Some(match raw.decode() {
        Err(why) => Seen::new(Kept::Unreadable(why.to_string()), headers, owns),
        Ok(session) => {
            let kept = Kept::Supabase {
                form: session.form,
                encoding: session.encoding,
                with_user: session.had_user,
            };
            Seen {
                refresh_token: session.refresh_token.as_ref().map(|t| t.expose().len()),
                // A float is cut: a second does not matter here.
                expires_at: session.expires_at.map(|seconds| seconds as u64),
                access_token: Some(session.access_token),
                ..Seen::new(kept, headers, owns)
            }
        }
    })
}

impl Seen {
    /// Whether it is known what is in it.
    pub(super) fn is_readable(&self) -> bool {
        !matches!(
            self.kept,
            Kept::Unreadable(_) | Kept::Stored { asked: false }
        )
    }

    fn new(kept: Kept, headers: &HeaderMap, owns: impl Fn(&[u8]) -> bool) -> Self {
        let cookies = cookies::pairs(headers)
            .filter(|(name, _)| owns(name))
            .take(LISTED_MAX)
            .map(|(name, value)| (clean(&String::from_utf8_lossy(name)), value.len()))
            .collect();
        Self {
            kept,
            cookies,
            access_token: None,
            refresh_token: None,
            expires_at: None,
            looked_for: false,
        }
    }
}

/// The storage keys whose sessions may be there: `sb-…-auth-token`, whole or in pieces.
fn keys(headers: &HeaderMap) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (name, _) in cookies::pairs(headers) {
        let Ok(name) = std::str::from_utf8(name) else {
            continue;
        };
        let key = match name.rsplit_once('.') {
            Some((key, piece)) if piece.bytes().all(|b| b.is_ascii_digit()) => key,
            _ => name,
        };
        let is_key = key.starts_with("sb-") && key.ends_with("-auth-token");
        if is_key && keys.len() < LISTED_MAX && !keys.iter().any(|known| known == key) {
            keys.push(key.to_owned());
        }
    }
    // The library's older names, which belong to every key.
    keys.push("sb-any-auth-token".to_owned());
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::COOKIE;

    fn headers(cookie: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(cookie).unwrap());
        headers
    }

    #[test]
    fn storage_keys_are_known_by_their_names() {
        let found = |cookie: &str| {
            let mut keys = keys(&headers(cookie));
            keys.pop();
            keys
        };
        assert_eq!(
            found("a=b; sb-x-auth-token.0=1; sb-x-auth-token.1=2; sb-y-auth-token=3"),
            ["sb-x-auth-token", "sb-y-auth-token"]
        );
        assert!(found("sb-x-auth-token-code-verifier=v; sb-x-auth-token.x=1; a=1").is_empty());
    }

    #[test]
    fn a_session_in_pieces_is_listed_with_its_sizes_and_nothing_of_what_is_in_it() {
        let cookie = r#"sb-x-auth-token.0={"access_token":"zz","refresh_; sb-x-auth-token.1=token":"hidden","expires_at":7}; o=1"#;
        let key = SupabaseCookies::new("sb-x-auth-token");
        let seen = supabase(&key, &headers(cookie)).unwrap();
        let names = seen
            .cookies
            .iter()
            .map(|(name, bytes)| format!("{name} {bytes}"));
        assert_eq!(
            names.collect::<Vec<_>>(),
            ["sb-x-auth-token.0 30", "sb-x-auth-token.1 31"]
        );
        assert_eq!((seen.refresh_token, seen.expires_at), (Some(6), Some(7)));
        let shown = format!("{seen:?}");
        assert!(
            !shown.contains("hidden") && !shown.contains("zz"),
            "{shown}"
        );
    }
}
