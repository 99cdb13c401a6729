//! Sessions and their refresh tokens, with the rotation rules of Supabase Auth (its first token form: 12 characters,
//! parent links). No HTTP and no access tokens here.

use crate::demo::random::{self, CryptoError};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Sessions kept; the oldest makes room.
const SESSIONS_MAX: usize = 2000;
/// Refresh tokens remembered of one session; the oldest is then as unknown as one that never was.
const TOKENS_MAX: usize = 100;
const TOKEN_CHARACTERS: usize = 12;

/// Every session that has not ended.
#[derive(Default)]
pub(super) struct Sessions {
    // Keys are version 7 UUIDs: the first is the oldest.
    sessions: BTreeMap<Uuid, Session>,
    owners: HashMap<String, Uuid>,
}

struct Session {
    user: Uuid,
    /// Seconds since 1970.
    signed_in: u64,
    /// Oldest first.
    tokens: VecDeque<Token>,
}

struct Token {
    text: String,
    parent: Option<String>,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Active,
    /// Exchanged first at this moment.
    Used(Instant),
    /// Ended together with its family.
    Revoked,
}

/// What a sign-in or a refresh yields.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) session: Uuid,
    pub(super) user: Uuid,
    /// Seconds since 1970.
    pub(super) signed_in: u64,
    pub(super) refresh_token: String,
}

/// Why a refresh token yields nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RefreshError {
    /// Shorter than any token.
    #[error("not a refresh token")]
    Malformed,
    /// Never issued, or its session has ended.
    #[error("unknown refresh token")]
    NotFound,
    /// Reused outside the rules: its whole family is revoked.
    #[error("refresh token already used")]
    AlreadyUsed,
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

/// Which sessions a logout ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// All of the user's.
    Global,
    /// This one.
    Local,
    /// All but this one.
    Others,
}

impl Sessions {
    /// Opens a session.
    pub(super) fn open(&mut self, user: Uuid, now: u64) -> Result<Grant, CryptoError> {
        while self.sessions.len() >= SESSIONS_MAX {
            let Some(oldest) = self.sessions.keys().next().copied() else {
                break;
            };
            self.end(oldest);
        }
        let id = Uuid::now_v7();
        let session = Session {
            user,
            signed_in: now,
            tokens: VecDeque::new(),
        };
        self.sessions.insert(id, session);
        self.issue(id, None)?.ok_or(CryptoError)
    }

    /// Exchanges a refresh token. A token not yet used yields a child. A used one yields
    /// the active token when it is that one's parent (the client could not keep the answer), at any age; another
    /// child when it was first used less than `reuse_interval` ago; else nothing, and its family is revoked.
    pub(super) fn refresh(
        &mut self,
        text: &str,
        now: Instant,
        reuse_interval: Duration,
    ) -> Result<Grant, RefreshError> {
        if text.len() < TOKEN_CHARACTERS {
            return Err(RefreshError::Malformed);
        }
        let id = *self.owners.get(text).ok_or(RefreshError::NotFound)?;
        let session = self.sessions.get_mut(&id).ok_or(RefreshError::NotFound)?;
        let active = session
            .tokens
            .iter()
            .rev()
            .find(|token| token.state == State::Active);
        if let Some(active) = active
            && active.parent.as_deref() == Some(text)
        {
            return Ok(session.grant(id, active.text.clone()));
        }
        let token = session
            .tokens
            .iter_mut()
            .find(|token| token.text == text)
            .ok_or(RefreshError::NotFound)?;
        match token.state {
            State::Active => token.state = State::Used(now),
            State::Used(at) if now.saturating_duration_since(at) <= reuse_interval => {}
            State::Used(_) | State::Revoked => {
                for token in &mut session.tokens {
                    token.state = State::Revoked;
                }
                return Err(RefreshError::AlreadyUsed);
            }
        }
        self.issue(id, Some(text))?.ok_or(RefreshError::NotFound)
    }

    /// The user whose session this refresh token is of.
    pub(super) fn owner(&self, text: &str) -> Option<Uuid> {
        Some(self.sessions.get(self.owners.get(text)?)?.user)
    }

    /// Whether it has not ended.
    pub(super) fn contains(&self, session: Uuid) -> bool {
        self.sessions.contains_key(&session)
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Ends sessions of `user`, as seen from `session`.
    pub(super) fn log_out(&mut self, user: Uuid, session: Uuid, scope: Scope) {
        let ended: Vec<Uuid> = self
            .sessions
            .iter()
            .filter(|(id, one)| {
                one.user == user
                    && match scope {
                        Scope::Global => true,
                        Scope::Local => **id == session,
                        Scope::Others => **id != session,
                    }
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ended {
            self.end(id);
        }
    }

    fn end(&mut self, id: Uuid) {
        if let Some(session) = self.sessions.remove(&id) {
            for token in session.tokens {
                self.owners.remove(&token.text);
            }
        }
    }

    fn issue(&mut self, id: Uuid, parent: Option<&str>) -> Result<Option<Grant>, CryptoError> {
        let text = random::text(random::LOWER_ALPHANUMERIC, TOKEN_CHARACTERS)?;
        let Some(session) = self.sessions.get_mut(&id) else {
            return Ok(None);
        };
        if session.tokens.len() >= TOKENS_MAX
            && let Some(oldest) = session.tokens.pop_front()
        {
            self.owners.remove(&oldest.text);
        }
        session.tokens.push_back(Token {
            text: text.clone(),
            parent: parent.map(String::from),
            state: State::Active,
        });
        self.owners.insert(text.clone(), id);
        Ok(Some(session.grant(id, text)))
    }
}

impl Session {
    fn grant(&self, id: Uuid, refresh_token: String) -> Grant {
        Grant {
            session: id,
            user: self.user,
            signed_in: self.signed_in,
            refresh_token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;

    const INTERVAL: Duration = Duration::from_secs(10);

    struct Room {
        sessions: Sessions,
        clock: Clock,
    }

    impl Room {
        fn new() -> (Self, String) {
            let mut sessions = Sessions::default();
            let first = sessions.open(Uuid::nil(), 1_000).unwrap();
            let clock = Clock::frozen(1_000);
            (Self { sessions, clock }, first.refresh_token)
        }

        fn refresh(&mut self, token: &str) -> Result<String, RefreshError> {
            self.sessions
                .refresh(token, self.clock.now(), INTERVAL)
                .map(|grant| grant.refresh_token)
        }

        fn wait(&self, seconds: u64) {
            self.clock.advance(Duration::from_secs(seconds));
        }
    }

    #[test]
    fn a_token_is_twelve_lower_case_letters_and_digits_and_rotates() {
        let (mut room, first) = Room::new();
        assert_eq!(first.len(), 12);
        assert!(
            first
                .bytes()
                .all(|b| random::LOWER_ALPHANUMERIC.contains(&b))
        );
        let second = room.refresh(&first).unwrap();
        assert_ne!(first, second);
        assert_ne!(room.refresh(&second).unwrap(), second);
    }

    #[test]
    fn the_parent_of_the_active_token_yields_the_active_token_at_any_age() {
        let (mut room, first) = Room::new();
        let second = room.refresh(&first).unwrap();
        assert_eq!(room.refresh(&first), Ok(second.clone()));
        room.wait(1_000_000);
        assert_eq!(room.refresh(&first), Ok(second));
    }

    #[test]
    fn an_older_token_yields_a_new_child_within_the_interval_only() {
        let (mut room, first) = Room::new();
        let second = room.refresh(&first).unwrap();
        let third = room.refresh(&second).unwrap();
        room.wait(10);
        let branch = room.refresh(&first).unwrap();
        assert!(![&first, &second, &third].contains(&&branch));
        room.wait(1);
        // `first` is now the parent of the newest active token: the rule for lost answers holds again.
        assert_eq!(room.refresh(&first), Ok(branch));
        assert_eq!(room.refresh(&second), Err(RefreshError::AlreadyUsed));
    }

    #[test]
    fn reuse_outside_the_rules_revokes_the_family() {
        let (mut room, first) = Room::new();
        let second = room.refresh(&first).unwrap();
        let third = room.refresh(&second).unwrap();
        room.wait(11);
        assert_eq!(room.refresh(&first), Err(RefreshError::AlreadyUsed));
        for token in [&second, &third] {
            assert_eq!(room.refresh(token), Err(RefreshError::AlreadyUsed));
        }
    }

    #[test]
    fn what_was_never_issued_is_not_found_and_what_is_too_short_is_malformed() {
        let (mut room, _) = Room::new();
        assert_eq!(room.refresh("aaaaaaaaaaaa"), Err(RefreshError::NotFound));
        assert_eq!(room.refresh("aaaa"), Err(RefreshError::Malformed));
    }

    #[test]
    fn logout_ends_what_its_scope_says() {
        let check = |scope, expected: [bool; 3]| {
            let (ada, grace) = (Uuid::from_u128(1), Uuid::from_u128(2));
            let mut sessions = Sessions::default();
            let here = sessions.open(ada, 1).unwrap();
            let there = sessions.open(ada, 1).unwrap();
            let other = sessions.open(grace, 1).unwrap();
            sessions.log_out(ada, here.session, scope);
            let now = Instant::now();
            let alive = [here, there, other].map(|grant| {
                let refreshed = sessions.refresh(&grant.refresh_token, now, INTERVAL);
                assert_eq!(refreshed.is_ok(), sessions.contains(grant.session));
                refreshed.is_ok()
            });
            assert_eq!(alive, expected, "{scope:?}");
        };
        check(Scope::Global, [false, false, true]);
        check(Scope::Local, [false, true, true]);
        check(Scope::Others, [true, false, true]);
    }

    #[test]
    fn sessions_and_their_tokens_are_bounded() {
        let mut sessions = Sessions::default();
        let first = sessions.open(Uuid::nil(), 1).unwrap();
        for _ in 0..SESSIONS_MAX {
            sessions.open(Uuid::nil(), 1).unwrap();
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert!(!sessions.contains(first.session));
        let (mut room, mut token) = Room::new();
        for _ in 0..TOKENS_MAX * 2 {
            token = room.refresh(&token).unwrap();
        }
        assert_eq!(room.sessions.owners.len(), TOKENS_MAX);
    }
}
