//! Where sessions are kept: what each mode reads out of a request's cookies, and what it writes into them.

use super::raw::RawCookie;
use super::sealed::{SealedCookies, SealedSession};
use super::supabase::{SessionCookie, Style, SupabaseCookies, SupabaseWriter};
use super::{Brought, From, Held, NotKept, Times, Told};
use crate::base::secret::Secret;
use crate::provider::Grant;
use http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// A session that is used is kept alive when this part of `idle_timeout` has passed.
const PART_OF_IDLE: u64 = 10;

/// The place of a mode.
#[derive(Debug)]
pub enum Jar {
    /// Mode `shared`: the cookies of `@supabase/ssr` and its ancestors.
    Supabase {
        /// Reads.
        cookies: SupabaseCookies,
        /// Writes.
        writer: SupabaseWriter,
    },
    /// Mode `shared`: a cookie whose value is the token itself. Never written.
    RawToken(RawCookie),
    /// Mode `sealed`.
    Sealed {
        /// Reads and writes.
        cookies: SealedCookies,
        /// How long a session may last.
        lifetimes: Lifetimes,
    },
}

/// How long a session may last that is of our making.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// From its beginning.
    pub max_age: Duration,
    /// Without being used.
    pub idle_timeout: Duration,
}

impl Lifetimes {
    /// Why a session is over, if it is. Times in Unix seconds.
    fn over(&self, created_at: u64, seen_at: u64, now: u64) -> Option<&'static str> {
        if now.saturating_sub(created_at) >= self.max_age.as_secs() {
            Some("it has lasted for `session.max_age`")
        } else if now.saturating_sub(seen_at) >= self.idle_timeout.as_secs() {
            Some("nobody has used it for `session.idle_timeout`")
        } else {
            None
        }
    }

    /// When the first of the two ends it.
    fn end(&self, created_at: u64, seen_at: u64) -> u64 {
        let by_age = created_at.saturating_add(self.max_age.as_secs());
        let by_rest = seen_at.saturating_add(self.idle_timeout.as_secs());
        by_age.min(by_rest)
    }

    /// When either has to be looked at.
    fn look_again(&self, created_at: u64, seen_at: u64) -> u64 {
        self.touch_at(seen_at).min(self.end(created_at, seen_at))
    }

    /// When it is time to say that it is used.
    fn touch_at(&self, seen_at: u64) -> u64 {
        let part = (self.idle_timeout.as_secs() / PART_OF_IDLE).max(1);
        seen_at.saturating_add(part)
    }
}

impl Jar {
    pub(super) fn owns(&self, name: &[u8]) -> bool {
        match self {
            Self::Supabase { cookies, .. } => cookies.owns(name),
            Self::RawToken(cookie) => cookie.name.as_bytes() == name,
            Self::Sealed { cookies, .. } => cookies.owns(name),
        }
    }

    pub(super) fn is_verifier(&self, name: &[u8]) -> bool {
        match self {
            Self::Supabase { cookies, .. } => cookies.is_verifier(name),
            Self::RawToken(_) | Self::Sealed { .. } => false,
        }
    }

    pub(super) fn append_raw(&self, headers: &HeaderMap, key: &mut Vec<u8>) -> bool {
        match self {
            Self::Supabase { cookies, .. } => match cookies.raw(headers) {
                Some(raw) => {
                    raw.append_key(key);
                    true
                }
                None => false,
            },
            Self::RawToken(cookie) => match cookie.value(headers) {
                Some(value) => {
                    key.extend_from_slice(value);
                    true
                }
                None => false,
            },
            Self::Sealed { cookies, .. } => cookies.append_raw(headers, key),
        }
    }

    pub(super) fn read(&self, headers: &HeaderMap, now: u64) -> Held {
        match self {
            Self::Supabase { cookies, .. } => match cookies.read(headers) {
                Ok(Some(session)) => Held::Session(Box::new(Brought::shared(session))),
                Ok(None) => Held::Nothing,
                Err(why) => Held::Unreadable(why.into()),
            },
            Self::RawToken(cookie) => cookie
                .value(headers)
                .and_then(|value| String::from_utf8(value.to_vec()).ok())
                .map_or(Held::Nothing, |token| Held::Token(Secret::new(token))),
            Self::Sealed { cookies, lifetimes } => match cookies.open(headers) {
                Ok(Some(session)) => sealed(session, lifetimes, now),
                Ok(None) => Held::Nothing,
                Err(why) => Held::Unreadable(why.into()),
            },
        }
    }

    pub(super) fn look_again(&self, brought: &Brought) -> u64 {
        match (self, &brought.from) {
            (Self::Sealed { lifetimes, .. }, From::Sealed(times)) => {
                lifetimes.look_again(times.created_at, times.seen_at)
            }
            _ => u64::MAX,
        }
    }

    pub(super) fn look_again_renewed(&self, brought: &Brought, now: u64) -> u64 {
        match (self, &brought.from) {
            (Self::Sealed { lifetimes, .. }, From::Sealed(times)) => {
                lifetimes.look_again(times.created_at, now)
            }
            _ => u64::MAX,
        }
    }

    pub(super) fn look_again_new(&self, now: u64) -> u64 {
        match self {
            Self::Sealed { lifetimes, .. } => lifetimes.look_again(now, now),
            Self::Supabase { .. } | Self::RawToken(_) => u64::MAX,
        }
    }

    pub(super) fn touch(
        &self,
        headers: &HeaderMap,
        brought: &Brought,
        now: u64,
    ) -> Option<Result<Told, NotKept>> {
        let (Self::Sealed { cookies, lifetimes }, From::Sealed(times)) = (self, &brought.from)
        else {
            return None;
        };
        if lifetimes.touch_at(times.seen_at) > now {
            return None;
        }
        let session = SealedSession {
            access_token: brought.access_token.clone(),
            refresh_token: brought.refresh_token.clone(),
            expires_at: times.expires_at,
            created_at: times.created_at,
            seen_at: now,
        };
        Some(write_sealed(cookies, lifetimes, headers, &session, now))
    }

    pub(super) fn open(
        &self,
        headers: &HeaderMap,
        grant: &Grant,
        unix_millis: u64,
    ) -> Result<Told, NotKept> {
        match self {
            Self::Supabase { writer, .. } => {
                write_shared(writer, headers, grant, Style::default(), unix_millis)
            }
            Self::RawToken(_) => Err(NotKept::because(&"nobody logs in with this cookie here")),
            Self::Sealed { cookies, lifetimes } => {
                let now = unix_millis / 1000;
                let session = granted(grant, now, now);
                write_sealed(cookies, lifetimes, headers, &session, now)
            }
        }
    }

    pub(super) fn go_on(
        &self,
        headers: &HeaderMap,
        brought: &Brought,
        grant: &Grant,
        unix_millis: u64,
    ) -> Result<Told, NotKept> {
        let now = unix_millis / 1000;
        match (self, &brought.from) {
            (Self::Supabase { writer, .. }, From::Shared(style)) => {
                write_shared(writer, headers, grant, *style, unix_millis)
            }
            (Self::Sealed { cookies, lifetimes }, From::Sealed(times)) => {
                let session = granted(grant, times.created_at, now);
                write_sealed(cookies, lifetimes, headers, &session, now)
            }
            _ => Err(NotKept::because(&"it is of another mode")),
        }
    }

    pub(super) fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        match self {
            Self::Supabase { writer, .. } => writer.clear(headers),
            Self::RawToken(cookie) => cookie.clear(headers),
            Self::Sealed { cookies, .. } => cookies.clear(headers),
        }
    }
}

impl Brought {
    fn sealed(session: SealedSession) -> Self {
        Self {
            access_token: session.access_token,
            refresh_token: session.refresh_token,
            from: From::Sealed(Times {
                expires_at: session.expires_at,
                created_at: session.created_at,
                seen_at: session.seen_at,
            }),
        }
    }
}

fn sealed(session: SealedSession, lifetimes: &Lifetimes, now: u64) -> Held {
    match lifetimes.over(session.created_at, session.seen_at, now) {
        Some(why) => Held::Over(why),
        None => Held::Session(Box::new(Brought::sealed(session))),
    }
}

fn granted(grant: &Grant, created_at: u64, seen_at: u64) -> SealedSession {
    SealedSession {
        access_token: grant.access_token.clone(),
        refresh_token: Some(grant.refresh_token.clone()),
        expires_at: grant.expires_at,
        created_at,
        seen_at,
    }
}

fn write_sealed(
    cookies: &SealedCookies,
    lifetimes: &Lifetimes,
    headers: &HeaderMap,
    session: &SealedSession,
    now: u64,
) -> Result<Told, NotKept> {
    let end = lifetimes.end(session.created_at, session.seen_at);
    let rest = Duration::from_secs(end.saturating_sub(now));
    let set = cookies
        .write(headers, session, rest)
        .map_err(|why| NotKept::because(&why))?;
    Ok(Told { set, pairs: None })
}

fn write_shared(
    writer: &SupabaseWriter,
    headers: &HeaderMap,
    grant: &Grant,
    style: Style,
    unix_millis: u64,
) -> Result<Told, NotKept> {
    let cookie = SessionCookie::from_response(grant.text.expose(), style, unix_millis)
        .map_err(|why| NotKept::because(&why))?;
    let set = writer
        .write(headers, &cookie)
        .map_err(|why| NotKept::because(&why))?;
    let pairs = writer
        .pairs(&cookie)
        .map_err(|why| NotKept::because(&why))?;
    Ok(Told {
        set,
        pairs: Some(pairs),
    })
}
