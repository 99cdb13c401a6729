//! Where sessions are kept: what each mode reads out of a request's cookies, and what it writes into them.

use super::own::OwnCookies;
use super::raw::RawCookie;
use super::sealed::{NotOpened, SealedCookies, SealedSession};
use super::stored::{Found, Record, Replaced, SessionId, StoreError, StoredSessions};
use super::supabase::{SessionCookie, Style, SupabaseCookies, SupabaseWriter};
use super::{Brought, From, Held, Lifetimes, NotKept, Opened, Told, Unreadable};
use crate::base::secret::Secret;
use crate::exchange::Identity;
use crate::provider::Grant;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;
use std::time::Duration;

/// The place of a mode.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each configuration"
)]
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
    /// Mode `stored`.
    Stored {
        /// The cookie with the id.
        cookies: OwnCookies,
        /// What the id stands for.
        store: StoredSessions,
        /// How long a session may last.
        lifetimes: Lifetimes,
        /// For how long what was read of a session counts.
        cache_ttl: Duration,
    },
}

impl Jar {
    pub(super) fn owns(&self, name: &[u8]) -> bool {
        match self {
            Self::Supabase { cookies, .. } => cookies.owns(name),
            Self::RawToken(cookie) => cookie.name.as_bytes() == name,
            Self::Sealed { cookies, .. } => cookies.own().owns(name),
            Self::Stored { cookies, .. } => cookies.owns(name),
        }
    }

    pub(super) fn is_verifier(&self, name: &[u8]) -> bool {
        match self {
            Self::Supabase { cookies, .. } => cookies.is_verifier(name),
            Self::RawToken(_) | Self::Sealed { .. } | Self::Stored { .. } => false,
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
            Self::Sealed { cookies, .. } => cookies.own().append_raw(headers, key),
            Self::Stored { cookies, .. } => cookies.append_raw(headers, key),
        }
    }

    pub(super) async fn read(&self, headers: &HeaderMap, now: u64) -> Held {
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
            Self::Stored { cookies, store, .. } => {
                let id = match id_of(cookies, headers) {
                    Ok(Some(id)) => id,
                    Ok(None) => return Held::Nothing,
                    Err(why) => return Held::Unreadable(why),
                };
                match store.read(&id).await {
                    Ok(Some(found)) => Held::Session(Box::new(Brought::stored(id, found))),
                    Ok(None) => Held::Over("it is not in the store, or no longer"),
                    Err(StoreError::Unopened) => Held::Unreadable(NotOpened::Sealed.into()),
                    Err(why) => Held::Away(why),
                }
            }
        }
    }

    pub(super) async fn recall(&self, id: &Secret<String>) -> Result<Option<Brought>, StoreError> {
        let id = SessionId::parse(id.expose().as_bytes());
        let (Self::Stored { store, .. }, Some(id)) = (self, id) else {
            return Ok(None);
        };
        let found = store.read(&id).await?;
        Ok(found.map(|found| Brought::stored(id, found)))
    }

    pub(super) fn look_again(&self, brought: &Brought, now: u64) -> u64 {
        match (self, &brought.from) {
            (Self::Sealed { lifetimes, .. }, From::Sealed(times)) => {
                lifetimes.look_again(times.created_at, times.seen_at)
            }
            (Self::Stored { .. }, From::Stored { found, .. }) => self.look_again_new(found.read_at),
            _ => self.look_again_new(now),
        }
    }

    pub(super) fn look_again_renewed(&self, brought: &Brought, now: u64) -> u64 {
        match (self, &brought.from) {
            (Self::Sealed { lifetimes, .. }, From::Sealed(times)) => {
                lifetimes.look_again(times.created_at, now)
            }
            _ => self.look_again_new(now),
        }
    }

    pub(super) fn look_again_new(&self, now: u64) -> u64 {
        match self {
            Self::Supabase { .. } | Self::RawToken(_) => u64::MAX,
            Self::Sealed { lifetimes, .. } => lifetimes.look_again(now, now),
            // In whole seconds, and rather too early: less than one is none.
            Self::Stored { cache_ttl, .. } => now.saturating_add(cache_ttl.as_secs()),
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

    /// `from`: the refresh token that a session was taken over with, so that all who bring it get the same one.
    pub(super) async fn open(
        &self,
        headers: &HeaderMap,
        grant: &Grant,
        identity: &Identity,
        unix_millis: u64,
        from: Option<&Secret<String>>,
    ) -> Result<Opened, NotKept> {
        let now = unix_millis / 1000;
        match self {
            Self::Supabase { writer, .. } => {
                let style = Style::default();
                let mut told = write_shared(writer, headers, grant, style, unix_millis)?;
                // Older forms that a browser had, or was given, would be read again once this session is over.
                told.set.extend(writer.clear_other_forms(headers));
                Ok(told.into())
            }
            Self::RawToken(_) => Err(NotKept::because(&"nobody logs in with this cookie here")),
            Self::Sealed { cookies, lifetimes } => {
                let session = granted(grant, now, now);
                Ok(write_sealed(cookies, lifetimes, headers, &session, now)?.into())
            }
            Self::Stored {
                cookies,
                store,
                lifetimes,
                ..
            } => {
                let record = record(granted(grant, now, now), identity);
                let id = match from {
                    Some(from) => store.create_once(from, &record).await?.0,
                    None => store.create(&record).await?,
                };
                // What a browser had before a login is none any more, whoever put it there.
                let mut replaced = None;
                if let Ok(Some(before)) = id_of(cookies, headers)
                    && before != id
                {
                    match store.delete(&before).await {
                        Ok(record) => {
                            replaced = record.and_then(|record| record.provider_session);
                        }
                        Err(why) => {
                            tracing::warn!(%why, "a session before a login was not removed");
                        }
                    }
                }
                let text = id.text();
                let set = cookies.write(headers, text.expose(), lifetimes.max_age);
                let set = set.map_err(|why| NotKept::because(&why))?;
                let told = Told { set, pairs: None };
                Ok(Opened { told, replaced })
            }
        }
    }

    pub(super) async fn go_on(
        &self,
        headers: &HeaderMap,
        brought: &Brought,
        grant: &Grant,
        identity: &Identity,
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
            (Self::Stored { store, .. }, From::Stored { id, found }) => {
                let created_at = found.record.session.created_at;
                let record = record(granted(grant, created_at, now), identity);
                match store.replace(id, found, &record).await? {
                    // What somebody else has written meanwhile came from the same provider, and not earlier.
                    Replaced::Done | Replaced::Changed => Ok(Told::default()),
                    Replaced::Gone => Err(NotKept::Gone),
                }
            }
            _ => Err(NotKept::because(&"it is of another mode")),
        }
    }

    pub(super) fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        match self {
            Self::Supabase { writer, .. } => writer.clear(headers),
            Self::RawToken(cookie) => cookie.clear(headers),
            Self::Sealed { cookies, .. } => cookies.own().clear(headers),
            Self::Stored { cookies, .. } => cookies.clear(headers),
        }
    }

    pub(super) async fn discard(&self, headers: &HeaderMap) -> Result<(), StoreError> {
        let Self::Stored { cookies, store, .. } = self else {
            return Ok(());
        };
        match id_of(cookies, headers) {
            Ok(Some(id)) => store.delete(&id).await.map(|_| ()),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    /// The store, where there is one.
    pub(super) fn store(&self) -> Option<&StoredSessions> {
        match self {
            Self::Stored { store, .. } => Some(store),
            Self::Supabase { .. } | Self::RawToken(_) | Self::Sealed { .. } => None,
        }
    }
}

impl Brought {
    fn sealed(session: SealedSession) -> Self {
        let from = From::Sealed(super::Times {
            expires_at: session.expires_at,
            created_at: session.created_at,
            seen_at: session.seen_at,
        });
        Self {
            access_token: session.access_token,
            refresh_token: session.refresh_token,
            from,
        }
    }

    pub(super) fn stored(id: SessionId, found: Arc<Found>) -> Self {
        let session = &found.record.session;
        Self {
            access_token: session.access_token.clone(),
            refresh_token: session.refresh_token.clone(),
            from: From::Stored { id, found },
        }
    }
}

fn id_of(cookies: &OwnCookies, headers: &HeaderMap) -> Result<Option<SessionId>, Unreadable> {
    let Some(value) = cookies.value(headers)? else {
        return Ok(None);
    };
    let id = SessionId::parse(&value);
    id.map(Some).ok_or(Unreadable::NotAnId)
}

fn sealed(session: SealedSession, lifetimes: &Lifetimes, now: u64) -> Held {
    match lifetimes.over(session.created_at, session.seen_at, now) {
        Some(why) => Held::Over(why),
        None => Held::Session(Box::new(Brought::sealed(session))),
    }
}

fn record(session: SealedSession, identity: &Identity) -> Record {
    Record {
        session,
        user: user_of(identity),
        provider_session: identity
            .session_id
            .clone()
            .filter(|session| !session.is_empty()),
    }
}

/// Provider and user as one word. No provider's name has a space.
fn user_of(identity: &Identity) -> Box<str> {
    format!("{} {}", identity.provider, identity.user_id).into()
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
