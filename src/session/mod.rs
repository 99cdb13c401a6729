//! What a browser keeps for us between requests: which cookies make up the session, what is in them, and the Set-Cookie
//! fields that replace or remove them. Mode `shared`: the provider's own cookies, read and written as its own library
//! does it. Mode `sealed`: cookies of ours that only we can read. Mode `stored`: an id, and Redis (contract, section 5).

pub mod adopt;
mod jar;
mod json;
mod life;
pub mod own;
pub mod raw;
pub mod renewal;
pub mod sealed;
pub mod set_cookie;
pub mod stored;
pub mod supabase;
pub mod view;

pub use jar::Jar;
pub use life::Lifetimes;

use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::exchange::Identity;
use crate::provider::Grant;
use adopt::Adopt;
use http::{HeaderMap, HeaderValue};
use own::Strange;
use renewal::Renewal;
use sealed::NotOpened;
use std::fmt;
use std::sync::Arc;
use stored::{Found, SessionId, StoreError, StoredSessions};
use supabase::{Malformed, SessionCookie, Style};

/// For as long as a used refresh token gets the same new session again: the reuse interval of Supabase.
const JUST_SECONDS: u64 = 10;

/// The sessions of a configuration: where they are kept, and how they go on.
#[derive(Debug)]
pub struct Session {
    /// Index of the provider whose tokens they hold.
    pub provider: usize,
    jar: Jar,
    renewal: Option<Renewal>,
    adopt: Option<Adopt>,
    clock: Clock,
}

/// What the cookies of a request hold.
#[derive(Debug)]
pub enum Held {
    /// No session.
    Nothing,
    /// Cookies that are none, and why. To the client it is no session.
    Unreadable(Unreadable),
    /// A session that has lasted too long, or that nobody has used for too long.
    Over(&'static str),
    /// An access token, not verified, and nothing besides.
    Token(Secret<String>),
    /// Where sessions are kept is out of reach. Whether there is one nobody knows.
    Away(StoreError),
    /// A whole session, of which no token is verified.
    Session(Box<Brought>),
}

/// Why cookies of the session's name are no session. For the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Those of the provider's library.
    #[error(transparent)]
    Shared(#[from] Malformed),
    /// Sealed ones.
    #[error(transparent)]
    Sealed(#[from] NotOpened),
    /// Those with an id.
    #[error(transparent)]
    Strange(#[from] Strange),
    /// A value that no id has.
    #[error("the session cookie holds no id")]
    NotAnId,
}

/// A session as a request brought it.
#[derive(Debug)]
pub struct Brought {
    /// Never empty.
    pub access_token: Secret<String>,
    /// `None`: this session cannot be renewed. Never empty.
    pub refresh_token: Option<Secret<String>>,
    from: From,
}

/// What is to be known to write it back.
#[derive(Debug)]
enum From {
    /// Written like this by the provider's library.
    Shared(Style),
    /// Written by us.
    Sealed(Times),
    /// Kept by us, under this id.
    Stored { id: SessionId, found: Arc<Found> },
}

/// Unix seconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// When its access token is over, as the provider said.
    expires_at: u64,
    /// When it began.
    created_at: u64,
    /// When it was last used, as far as its cookie knows.
    seen_at: u64,
}

impl Brought {
    /// Whether only we can have written it, so that what it holds is a provider's word though nothing of it is verified.
    pub fn is_ours(&self) -> bool {
        !matches!(self.from, From::Shared(_))
    }

    /// Its id, where we keep it.
    pub fn id(&self) -> Option<Secret<String>> {
        match &self.from {
            From::Stored { id, .. } => Some(id.text()),
            From::Shared(_) | From::Sealed(_) => None,
        }
    }

    /// When it was last renewed, where we keep that, in Unix seconds.
    fn renewed_at(&self) -> Option<u64> {
        let From::Stored { found, .. } = &self.from else {
            return None;
        };
        let session = &found.record.session;
        Some(session.seen_at).filter(|at| *at > session.created_at)
    }

    /// Whether equal cookies may hold another session the next time they are read.
    pub fn may_change(&self) -> bool {
        matches!(self.from, From::Stored { .. })
    }

    fn shared(cookie: SessionCookie) -> Self {
        Self {
            from: From::Shared(cookie.style()),
            access_token: cookie.access_token,
            refresh_token: cookie.refresh_token,
        }
    }
}

/// What a browser and the upstream are told of a session besides who it is.
#[derive(Default)]
pub struct Told {
    /// Set-Cookie fields for the answer, whatever it will be.
    pub set: Vec<HeaderValue>,
    /// The session's cookies as they are from now on, when they are no longer those of the request: names and
    /// percent-encoded values.
    pub pairs: Option<Vec<(String, String)>>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told")
            .field("set", &self.set.len())
            .field("renewed", &self.pairs.is_some())
            .finish()
    }
}

/// What has become of a session since it was read.
#[derive(Debug)]
pub enum Anew {
    /// Nothing.
    Same,
    /// It has other tokens.
    Newer(Box<Brought>),
    /// It has ended.
    Gone,
}

/// A session that has begun.
#[derive(Debug, Default)]
pub struct Opened {
    /// What its browser is told.
    pub told: Told,
    /// The provider's id of the session that the browser had, where it was ended by us.
    pub replaced: Option<Box<str>>,
}

impl std::convert::From<Told> for Opened {
    fn from(told: Told) -> Self {
        Self {
            told,
            replaced: None,
        }
    }
}

/// Why a new session was not kept. For the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The session before it was ended meanwhile, and stays ended.
    #[error("the session was ended")]
    Gone,
    /// The session before it stays.
    #[error("the session cannot be kept: {0}")]
    Unable(Box<str>),
}

impl NotKept {
    fn because(why: &dyn fmt::Display) -> Self {
        Self::Unable(why.to_string().into())
    }
}

impl std::convert::From<StoreError> for NotKept {
    fn from(error: StoreError) -> Self {
        Self::because(&error)
    }
}

impl Session {
    /// Sessions of this provider, kept in `jar`. Without `renewal` one lasts as long as its token.
    pub fn new(provider: usize, jar: Jar, renewal: Option<Renewal>, clock: Clock) -> Self {
        Self {
            provider,
            jar,
            renewal,
            adopt: None,
            clock,
        }
    }

    /// Takes sessions of the provider's own library over.
    #[must_use]
    pub fn adopting(mut self, adopt: Adopt) -> Self {
        self.adopt = Some(adopt);
        self
    }

    /// Where they are kept.
    pub fn jar(&self) -> &Jar {
        &self.jar
    }

    /// How it is renewed, when it can be.
    pub fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }

    /// How sessions of others are taken over, if they are.
    pub fn adopt(&self) -> Option<&Adopt> {
        self.adopt.as_ref()
    }

    /// Whether a cookie of this name belongs to the session: removed on the way to an upstream, and from its `Set-Cookie`.
    pub fn owns(&self, name: &[u8]) -> bool {
        self.jar.owns(name) || self.adopt.as_ref().is_some_and(|adopt| adopt.owns(name))
    }

    /// Whether a cookie of this name is a PKCE verifier, which the application behind us needs for its own logins.
    pub fn is_verifier(&self, name: &[u8]) -> bool {
        self.jar.is_verifier(name)
    }

    /// Appends every value that makes up the session to `key`, in order; false when there is none.
    /// Equal keys hold equal sessions, so the key serves the cache of verified credentials.
    pub fn append_raw(&self, headers: &HeaderMap, key: &mut Vec<u8>) -> bool {
        self.jar.append_raw(headers, key)
    }

    /// The request's session.
    pub async fn read(&self, headers: &HeaderMap) -> Held {
        self.jar.read(headers, self.clock.unix()).await
    }

    /// The session of an id, where we keep sessions.
    pub async fn recall(&self, id: &Secret<String>) -> Result<Option<Brought>, StoreError> {
        self.jar.recall(id).await
    }

    /// Whether a session that we keep was renewed a moment ago: whoever asks for that now came too late to share in it.
    pub fn is_just_renewed(&self, brought: &Brought) -> bool {
        let now = self.clock.unix();
        let renewed_at = brought.renewed_at();
        renewed_at.is_some_and(|at| now.saturating_sub(at) < JUST_SECONDS)
    }

    /// What a session is by now, where it may have become another one since it was read.
    pub async fn anew(&self, brought: &Brought) -> Result<Anew, StoreError> {
        let (Some(store), From::Stored { id, found }) = (self.jar.store(), &brought.from) else {
            return Ok(Anew::Same);
        };
        store.forget(&store.name(id));
        let Some(now) = store.read(id).await? else {
            return Ok(Anew::Gone);
        };
        if now.record == found.record {
            return Ok(Anew::Same);
        }
        Ok(Anew::Newer(Box::new(Brought::stored(id.clone(), now))))
    }

    /// From when on what was read must be read again, whatever its token says, in Unix seconds.
    pub fn look_again(&self, brought: &Brought) -> u64 {
        self.jar.look_again(brought, self.clock.unix())
    }

    /// As [`Session::look_again`], for what a renewal of this session makes of it now.
    pub fn look_again_renewed(&self, brought: &Brought) -> u64 {
        self.jar.look_again_renewed(brought, self.clock.unix())
    }

    /// As [`Session::look_again`], for a session that begins now.
    pub fn look_again_new(&self) -> u64 {
        self.jar.look_again_new(self.clock.unix())
    }

    /// What keeps a session that is used from being forgotten for want of use, when it is time for that.
    pub fn touch(&self, headers: &HeaderMap, brought: &Brought) -> Option<Result<Told, NotKept>> {
        self.jar.touch(headers, brought, self.clock.unix())
    }

    /// What a login gave, for a browser that may have had another session. `from`: the refresh token that it was taken over
    /// with, if it was: all who bring that at the same time get the same session.
    pub async fn open(
        &self,
        headers: &HeaderMap,
        grant: &Grant,
        identity: &Identity,
        from: Option<&Secret<String>>,
    ) -> Result<Opened, NotKept> {
        let now = self.clock.unix_millis();
        let mut opened = self.jar.open(headers, grant, identity, now, from).await?;
        self.clear_adopted(headers, &mut opened.told);
        Ok(opened)
    }

    /// What a renewal gave, in the place of the session that it came from.
    pub async fn go_on(
        &self,
        headers: &HeaderMap,
        brought: &Brought,
        grant: &Grant,
        identity: &Identity,
    ) -> Result<Told, NotKept> {
        let now = self.clock.unix_millis();
        self.jar.go_on(headers, brought, grant, identity, now).await
    }

    /// Ends a session where it is kept by us; one that its browser keeps lives on in copies until its token is over.
    pub async fn end(&self, brought: &Brought) -> Result<(), StoreError> {
        match (self.jar.store(), &brought.from) {
            (Some(store), From::Stored { id, .. }) => store.delete(id).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    /// What others are told of a session that we keep, so that they read it again.
    pub fn record(&self, brought: &Brought) -> Option<String> {
        match (self.jar.store(), &brought.from) {
            (Some(store), From::Stored { id, .. }) => Some(store.name(id)),
            _ => None,
        }
    }

    /// Ends what a request's cookie stands for where it is kept by us, though we cannot read it.
    pub async fn discard(&self, headers: &HeaderMap) -> Result<(), StoreError> {
        self.jar.discard(headers).await
    }

    /// Ends all sessions that we keep of this one's user, itself included or not; returns the provider's ids of those that
    /// were ended, and whether all were.
    pub async fn end_all(
        &self,
        brought: &Brought,
        included: bool,
    ) -> (Vec<Box<str>>, Result<(), StoreError>) {
        let (Some(store), From::Stored { id, found }) = (self.jar.store(), &brought.from) else {
            return (Vec::new(), Ok(()));
        };
        let spared = Some(id).filter(|_| !included);
        let deleted = store.delete_all_of(&found.record.user, spared).await;
        (deleted.provider_sessions, deleted.complete)
    }

    /// The store behind them, in mode `stored`.
    pub fn store(&self) -> Option<&StoredSessions> {
        self.jar.store()
    }

    /// The Set-Cookie fields that remove every cookie of the request's session.
    pub fn clear(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        let mut told = Told {
            set: self.jar.clear(headers),
            pairs: None,
        };
        self.clear_adopted(headers, &mut told);
        told.set
    }

    fn clear_adopted(&self, headers: &HeaderMap, told: &mut Told) {
        if let Some(adopt) = &self.adopt {
            told.set.extend(adopt.clear(headers));
        }
    }
}
