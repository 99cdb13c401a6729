//! From the keys of `[session]` to a session: what each mode needs, and what it does not look at.

use super::decode::Kept;
use super::listener::Listener;
use super::provider::{Provider, ProviderKind};
use super::read::{Entries, Reader};
use super::server::Server;
use super::session::{
    CACHE_TTL, IDLE_TIMEOUT, KEYS_MAX, MAX_AGE, Session, SessionKeys, SessionMode,
};
use super::session_cookie::CookieKeys;
use super::table::Table as _;
use crate::base::key::{self, KEY_BYTES};
use crate::base::secret::Secret;

/// What a session is built among.
pub(super) struct Around<'a> {
    pub(super) providers: &'a [Provider],
    /// Names of the tables, also of those that could not be read.
    pub(super) declared: &'a [&'a str],
    /// `None`: wrong, and told.
    pub(super) server: Option<&'a Server>,
    pub(super) listeners: &'a [Listener],
    /// Whether there is a `[redis]`, right or wrong.
    pub(super) redis: bool,
}

impl SessionKeys {
    pub(super) fn build(
        self,
        entries: &Entries,
        around: &Around<'_>,
        reader: &Reader<'_>,
    ) -> Option<Session> {
        let index = self.provider(entries, around, reader)?;
        let provider = around.providers.get(index)?;
        let mode = self.mode.value;
        let keys = self.keys(entries, reader);
        if mode == SessionMode::Shared {
            self.check_shared(entries, provider, reader);
        } else {
            self.check_own(entries, provider, around.redis, reader);
        }
        self.check_ends(entries, reader);
        self.no_effect(entries, reader);
        let cookie = match self.cookie {
            Some((keys, own)) => keys.build(&own, &self.mode, provider, around, reader),
            None => {
                let own = Entries::default();
                CookieKeys::read(&own, reader)?.build(&own, &self.mode, provider, around, reader)
            }
        };
        Some(Session {
            mode,
            provider: index,
            keys: if mode == SessionMode::Shared {
                Vec::new()
            } else {
                keys
            },
            cookie,
            refresh_ahead: self.refresh_ahead,
            max_age: self.max_age.value,
            idle_timeout: self.idle_timeout.value.min(self.max_age.value),
            cache_ttl: self.cache_ttl,
            adopt: self.adopt && mode != SessionMode::Shared,
            endpoints: self.endpoints,
            login_url: self.login_url,
            after_login: self.after_login,
            trusted_origins: self.trusted_origins,
            provider_budget: self
                .provider_budget
                .map(|(budget, _)| budget)
                .unwrap_or_default(),
        })
    }

    /// The keys that could be read; the others were told.
    fn keys(&self, entries: &Entries, reader: &Reader<'_>) -> Vec<Secret<[u8; KEY_BYTES]>> {
        let given = self.keys.as_deref().unwrap_or_default();
        if given.len() > KEYS_MAX {
            let hint = "remove those whose sessions have all ended";
            let message = format!("`keys` holds more than {KEYS_MAX} keys");
            reader.error("out-of-range", &entries.value_place("keys"), message, hint);
        }
        let read = |kept: &Kept| {
            if !kept.known {
                return Some(Secret::new([0; KEY_BYTES]));
            }
            let read = key::decode(kept.secret.expose());
            if read.is_none() {
                let hint = "make one with `tollhouse keygen`";
                let message = "`keys` must hold keys of 32 bytes, in base64 or base64url";
                reader.error("bad-value", &kept.place, message, hint);
            }
            read
        };
        given.iter().filter_map(read).collect()
    }

    fn check_shared(&self, entries: &Entries, provider: &Provider, reader: &Reader<'_>) {
        if provider.kind == ProviderKind::Jwt && provider.cookie_name.is_none() {
            let place = if self.provider.is_some() {
                entries.value_place("provider")
            } else {
                entries.value_place("mode")
            };
            let message = format!("the session's provider `{}` has no cookie", provider.name);
            let hint = "give that provider `cookie_name`, the cookie that holds its token";
            reader.error("no-session-cookie", &place, message, hint);
        }
    }

    /// What `sealed` and `stored` need.
    fn check_own(&self, entries: &Entries, provider: &Provider, redis: bool, reader: &Reader<'_>) {
        let (mode, place) = (self.mode.value.as_str(), &self.mode.place);
        match &self.keys {
            None if entries.has("keys") => {}
            Some(keys) if !keys.is_empty() => {}
            given => {
                let (id, place, message) = match given {
                    None => ("missing-key", place.clone(), "needs `keys`"),
                    Some(_) => ("empty-list", entries.value_place("keys"), "needs a key"),
                };
                let hint = "make one with `tollhouse keygen`, and say keys = [\"${TOLLHOUSE_SESSION_KEY}\"]";
                let message = format!("`mode = \"{mode}\"` {message}");
                reader.error(id, &place, message, hint);
            }
        }
        if self.mode.value == SessionMode::Stored && !redis {
            let hint = "add [redis] with its `url`, or say \"sealed\", which needs no store";
            let message = "`mode = \"stored\"` needs `[redis]`";
            reader.error("missing-key", place, message, hint);
        }
        let ProviderKind::Supabase {
            publishable_key, ..
        } = &provider.kind
        else {
            let message = format!(
                "`mode = \"{mode}\"` needs a provider that logs people in, and `{}` does not",
                provider.name
            );
            let hint = "one of kind \"supabase\"; tokens of other issuers are read with \"shared\"";
            reader.error("contradiction", place, message, hint);
            return;
        };
        if self.adopt {
            let place = entries.key_place("adopt");
            if publishable_key.is_none() {
                let message = "`adopt` needs the provider's `publishable_key`";
                let hint = "what is taken over is renewed at once, so that nobody else can use it";
                reader.error("missing-key", &place, message, hint);
            }
            let message = "cookies of the provider's own library begin sessions";
            let hint =
                "a host beside yours could plant them; turn `adopt` off when the change is over";
            reader.warn("adopt", &place, message, hint);
        } else if publishable_key.is_none() {
            let hint = "give the provider its `publishable_key`";
            no_source(place, hint, reader);
        } else if self.endpoints.is_none() {
            let hint = "turn `endpoints` on, or say `adopt = true`";
            no_source(place, hint, reader);
        }
    }

    fn check_ends(&self, entries: &Entries, reader: &Reader<'_>) {
        let (idle, most) = (&self.idle_timeout, &self.max_age);
        let longer = idle.known && most.known && idle.value > most.value;
        if longer && entries.has("idle_timeout") && self.mode.value != SessionMode::Shared {
            let hint = "no session lives longer than that; make `idle_timeout` at most as long";
            let message = "`idle_timeout` is longer than `max_age`";
            reader.error("out-of-range", &idle.place, message, hint);
        }
    }

    /// Keys that the mode leaves nothing to do.
    fn no_effect(&self, entries: &Entries, reader: &Reader<'_>) {
        let warn = |key: &str, hint: &str| {
            let message = format!("`{key}` does nothing here");
            reader.warn("no-effect", &entries.key_place(key), message, hint);
        };
        let stored_only = "only \"stored\" keeps sessions where others may end them";
        match self.mode.value {
            _ if !self.mode.known => {}
            SessionMode::Stored => {}
            SessionMode::Sealed if self.cache_ttl != CACHE_TTL => warn("cache_ttl", stored_only),
            SessionMode::Sealed => {}
            SessionMode::Shared => {
                let hint = "in \"shared\" the cookies are the provider's own";
                for (key, given) in [
                    ("keys", self.keys.is_some()),
                    ("max_age", self.max_age.value != MAX_AGE),
                    ("idle_timeout", self.idle_timeout.value != IDLE_TIMEOUT),
                    ("cache_ttl", self.cache_ttl != CACHE_TTL),
                    ("adopt", self.adopt),
                ] {
                    if given {
                        warn(key, hint);
                    }
                }
            }
        }
    }

    fn provider(
        &self,
        entries: &Entries,
        around: &Around<'_>,
        reader: &Reader<'_>,
    ) -> Option<usize> {
        let (providers, declared) = (around.providers, around.declared);
        match (&self.provider, providers) {
            (Some(name), _) if name.known => {
                let found = providers
                    .iter()
                    .position(|provider| *provider.name == *name.value);
                if found.is_none() && !declared.contains(&name.value.as_str()) {
                    let hint = name.suggest(declared.iter().copied());
                    reader.error(
                        "unknown-provider",
                        &name.place,
                        format!("there is no provider `{}`", name.shown),
                        hint,
                    );
                }
                found
            }
            (_, []) if !declared.is_empty() => None,
            (_, []) => {
                let hint = "add [providers.main]";
                reader.error(
                    "unknown-provider",
                    &entries.place,
                    "`[session]` needs a provider",
                    hint,
                );
                None
            }
            (Some(_), _) => Some(0),
            (None, [_]) if declared.len() == 1 => Some(0),
            (None, _) => {
                let hint = "say `provider = \"…\"`";
                reader.error(
                    "missing-key",
                    &entries.place,
                    "`[session]` must say which of the providers it is for",
                    hint,
                );
                None
            }
        }
    }
}

fn no_source(place: &super::diagnostic::Place, hint: &str, reader: &Reader<'_>) {
    let message = "nothing here can begin a session";
    reader.warn("no-session-source", place, message, hint);
}
