//! One call for each refresh token among all gateways that share a Redis: whoever gets the lease makes it, the others wait
//! for what it came to. Lease and outcome are one key, so that the one becomes the other in one step.
//!
//! The key's name and the key that seals the outcome are both made of the old refresh token (HKDF, RFC 5869): who reads
//! Redis can open nothing, who has the token could have had the same session from the provider.
//!
//! None of this is needed for what is right: without Redis each gateway makes the call, and within its reuse interval the
//! provider gives all of them the same session. So nobody waits longer for Redis than one command may take.

use super::Grant;
use super::error::RefreshError;
use super::random;
use super::refreshes::Outcome;
use super::supabase;
use crate::base::secret::Secret;
use crate::redis::{Failure, Redis};
use ::redis::Script;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// For how long a lease is taken: so late is one replaced that has died with it.
const LEASE: Duration = Duration::from_secs(2);
/// How often it is taken anew while the call is under way.
const RENEW: Duration = Duration::from_millis(500);
/// How soon those who wait look again; doubles up to the last.
const FIRST_LOOK: Duration = Duration::from_millis(25);
const LAST_LOOK: Duration = Duration::from_millis(200);
/// No lease and no outcome of ours is kept for longer.
const LIFE_MAX: Duration = Duration::from_secs(60);

/// First byte of a value: somebody asks, and who.
const LEASED: u8 = b'L';
/// Or what it came to.
const OUTCOME: u8 = b'O';
/// First byte of an outcome.
const GRANT: u8 = 0;
const OVER: u8 = 1;
const NOT_OURS: u8 = 2;

/// Takes the lease, or says what stands there and for how many ms still. KEYS: lease. ARGV: ours, its life in ms.
static TURN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local found = redis.call('GET', KEYS[1])
if found then return {found, redis.call('PTTL', KEYS[1])} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return false",
    )
});

/// Keeps the lease, if it is ours still. KEYS: lease. ARGV: ours, its life in ms.
static KEEP: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// Ends the lease unless it has become somebody else's. KEYS: lease. ARGV: ours; the outcome, or nothing; its life in ms.
static END: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"local found = redis.call('GET', KEYS[1])
if found and found ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
elseif found then
  redis.call('DEL', KEYS[1])
end
return 1",
    )
});

/// The leases of a process.
pub(super) struct Leases {
    redis: Redis,
    /// The log has been told that calls are not shared.
    told: AtomicBool,
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leases")
    }
}

/// What somebody who wants a refresh is to do.
pub(super) enum Turn {
    /// Nothing: this is what it came to, and for how long that may be handed out.
    Told(Outcome, Duration),
    /// Make the call; the others wait.
    Ours(Box<Lease>),
    /// Make the call, as if there were no others.
    Alone,
    /// Give up: somebody has been asking for longer than a call may take.
    Late,
}

impl Leases {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            told: AtomicBool::new(false),
        }
    }

    /// Whose turn it is. Waits for somebody else's call at most for `patience`, and then for one command.
    pub(super) async fn turn(
        self: &Arc<Self>,
        provider: &str,
        token: &Secret<String>,
        patience: Duration,
    ) -> Turn {
        let (Some(name), Ok(nonce)) = (Name::of(provider, token), random::bytes::<16>()) else {
            return Turn::Alone;
        };
        let ours = [&[LEASED][..], &nonce].concat();
        let end = Instant::now() + patience;
        let mut wait = FIRST_LOOK;
        loop {
            let mut call = TURN.key(&*name.key);
            call.arg(&ours[..]).arg(millis(LEASE));
            let found = self.redis.run::<Option<(Vec<u8>, i64)>>(call).await;
            let Some((found, left)) = (match self.heard(found) {
                Some(found) => found,
                None => return Turn::Alone,
            }) else {
                return Turn::Ours(Box::new(Lease {
                    leases: self.clone(),
                    name,
                    ours,
                    end: Instant::now() + patience + LEASE,
                }));
            };
            // What stands there for ever, or says nothing that we say, is somebody's who wants to keep us waiting.
            let left = u64::try_from(left).map(Duration::from_millis).ok();
            let Some(left) = left.filter(|left| *left <= LIFE_MAX) else {
                return Turn::Alone;
            };
            match found.split_first() {
                Some((&LEASED, _)) => {}
                Some((&OUTCOME, sealed)) => {
                    let told = name.open(sealed);
                    return told.map_or(Turn::Alone, |outcome| Turn::Told(outcome, left));
                }
                _ => return Turn::Alone,
            }
            if Instant::now() + wait >= end {
                return Turn::Late;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LAST_LOOK);
        }
    }

    /// What Redis has said; `None` when it has said nothing, of which the log is told once.
    fn heard<T>(&self, answer: Result<T, Failure>) -> Option<T> {
        match answer {
            Ok(answer) => Some(answer),
            Err(error) => {
                if !self.told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "refreshes are not shared with other gateways");
                }
                None
            }
        }
    }
}

/// The right to make the call. Left alone, it ends by itself.
pub(super) struct Lease {
    leases: Arc<Leases>,
    name: Name,
    /// The value of the key for as long as it is ours.
    ours: Vec<u8>,
    /// Beyond this it is not kept, whatever the call does.
    end: Instant,
}

impl Lease {
    /// Makes the call, keeps the lease meanwhile, and tells the others what it came to; for how long they may hand that
    /// out, `keep` says. A failure that may pass is not told: it is for each of them to try.
    pub(super) async fn during(
        self,
        call: impl Future<Output = Outcome>,
        keep: impl Fn(&Outcome) -> Duration,
    ) -> Outcome {
        let outcome = {
            let mut call = pin!(call);
            tokio::select! {
                outcome = &mut call => outcome,
                () = self.keep() => call.await,
            }
        };
        let told = self.name.seal(&outcome).unwrap_or_default();
        let mut end = END.key(&*self.name.key);
        end.arg(&self.ours[..])
            .arg(told)
            .arg(millis(keep(&outcome).min(LIFE_MAX)));
        let answer = self.leases.redis.run::<i64>(end).await;
        if self.leases.heard(answer).is_some() {
            // The whole way has worked.
            self.leases.told.store(false, Ordering::Relaxed);
        }
        outcome
    }

    /// Until it is somebody else's, or too old.
    async fn keep(&self) {
        while Instant::now() < self.end {
            sleep(RENEW).await;
            let mut call = KEEP.key(&*self.name.key);
            call.arg(&self.ours[..]).arg(millis(LEASE));
            let answer = self.leases.redis.run::<i64>(call).await;
            if self.leases.heard(answer) == Some(0) {
                return;
            }
        }
    }
}

/// What is made of a refresh token: a name for it, and a key that only its holders have.
struct Name {
    key: String,
    seal: RandomizedNonceKey,
}

/// 32 bytes.
#[derive(Clone, Copy)]
struct Bytes;

impl KeyType for Bytes {
    fn len(&self) -> usize {
        32
    }
}

impl Name {
    /// `None` only when the cryptographic library fails.
    fn of(provider: &str, token: &Secret<String>) -> Option<Self> {
        let extracted =
            Salt::new(HKDF_SHA256, b"tollhouse refresh").extract(token.expose().as_bytes());
        let made = |prk: &Prk, what: &[u8]| {
            let mut bytes = [0; 32];
            let info = [what, provider.as_bytes()];
            prk.expand(&info, Bytes).ok()?.fill(&mut bytes).ok()?;
            Some(Secret::new(bytes))
        };
        let name = made(&extracted, b"name\0")?;
        let seal = made(&extracted, b"key\0")?;
        Some(Self {
            key: format!("tollhouse:lease:{}", URL_SAFE_NO_PAD.encode(name.expose())),
            seal: RandomizedNonceKey::new(&AES_256_GCM, seal.expose()).ok()?,
        })
    }

    fn authenticated(&self) -> Aad<&[u8]> {
        Aad::from(self.key.as_bytes())
    }

    /// The value that tells it; `None` when it is not to be told.
    fn seal(&self, outcome: &Outcome) -> Option<Vec<u8>> {
        let plain = written(outcome)?;
        let mut text = Vec::with_capacity(plain.expose().len() + AES_256_GCM.tag_len());
        text.extend_from_slice(plain.expose());
        let nonce = self
            .seal
            .seal_in_place_append_tag(self.authenticated(), &mut text)
            .ok()?;
        Some([&[OUTCOME][..], nonce.as_ref(), &text].concat())
    }

    fn open(&self, sealed: &[u8]) -> Option<Outcome> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self
            .seal
            .open_in_place(nonce, self.authenticated(), &mut text);
        let outcome = read(plain.ok()?);
        zeroize::Zeroize::zeroize(&mut text);
        outcome
    }
}

/// Lengths and times are big-endian.
fn written(outcome: &Outcome) -> Option<Secret<Vec<u8>>> {
    Some(match outcome {
        Ok(grant) => {
            let (access, refresh) = (grant.access_token.expose(), grant.refresh_token.expose());
            let length = |text: &str| u32::try_from(text.len()).ok().map(u32::to_be_bytes);
            joined(&[
                &[GRANT],
                &grant.expires_at.to_be_bytes(),
                &length(access)?,
                access.as_bytes(),
                &length(refresh)?,
                refresh.as_bytes(),
                grant.text.expose().as_bytes(),
            ])
        }
        Err(RefreshError::Over { code }) => joined(&[&[OVER], code.as_bytes()]),
        Err(RefreshError::NotOurs) => joined(&[&[NOT_OURS]]),
        Err(RefreshError::Later { .. } | RefreshError::Misconfigured { .. }) => return None,
    })
}

/// Room for all of it: growing would leave copies behind.
fn joined(parts: &[&[u8]]) -> Secret<Vec<u8>> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    Secret::new(out)
}

fn read(bytes: &[u8]) -> Option<Outcome> {
    let text = |bytes: &[u8]| Some(Secret::new(std::str::from_utf8(bytes).ok()?.to_owned()));
    match bytes.split_first()? {
        (&GRANT, rest) => {
            let (expires_at, rest) = rest.split_first_chunk()?;
            let (access, rest) = part(rest)?;
            let (refresh, rest) = part(rest)?;
            Some(Ok(Arc::new(Grant {
                text: text(rest)?,
                access_token: text(access)?,
                refresh_token: text(refresh)?,
                expires_at: u64::from_be_bytes(*expires_at),
            })))
        }
        (&OVER, code) => {
            let code = supabase::over(std::str::from_utf8(code).ok()?)?;
            Some(Err(RefreshError::Over { code }))
        }
        (&NOT_OURS, []) => Some(Err(RefreshError::NotOurs)),
        _ => None,
    }
}

fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    fn name(provider: &str, token: &str) -> Name {
        Name::of(provider, &secret(token)).unwrap()
    }

    fn outcomes() -> [Outcome; 3] {
        [
            Ok(Arc::new(Grant {
                text: secret("{\"expires_at\":7}"),
                access_token: secret("secret-access"),
                refresh_token: secret("secret-refresh"),
                expires_at: 7,
            })),
            Err(RefreshError::Over {
                code: "user_banned",
            }),
            Err(RefreshError::NotOurs),
        ]
    }

    #[test]
    fn an_outcome_is_for_holders_of_the_same_token_of_the_same_provider() {
        let here = name("main", "abcdefghijkl");
        for outcome in outcomes() {
            let sealed = here.seal(&outcome).unwrap();
            assert_eq!(sealed[0], OUTCOME);
            let shown = String::from_utf8_lossy(&sealed).into_owned();
            assert!(!shown.contains("secret-") && !shown.contains("banned"));
            let told = name("main", "abcdefghijkl").open(&sealed[1..]);
            assert_eq!(told, Some(outcome));
            for other in [name("main", "abcdefghijkm"), name("mai", "nabcdefghijkl")] {
                assert_eq!(other.open(&sealed[1..]), None);
                assert_ne!(other.key, here.key);
            }
            let mut changed = sealed.clone();
            *changed.last_mut().unwrap() ^= 1;
            assert_eq!(here.open(&changed[1..]), None);
            for length in 1..sealed.len() {
                assert_eq!(here.open(&sealed[1..length]), None);
            }
        }
        assert!(!here.key.contains("abcdef"));
        assert_ne!(name("a", "t").key, name("b", "t").key);
    }

    #[test]
    fn what_may_pass_is_not_told() {
        let later = RefreshError::Later {
            retry_after: None,
            why: "x".into(),
        };
        let ours = RefreshError::Misconfigured { why: "x".into() };
        for error in [later, ours] {
            assert!(name("main", "t").seal(&Err(error)).is_none());
        }
    }

    #[test]
    fn a_code_that_nobody_says_is_no_outcome() {
        for bytes in [
            &b"\x01"[..],
            b"\x01unknown",
            b"\x01\xff",
            b"\x02x",
            b"\x03",
            b"",
        ] {
            assert_eq!(read(bytes), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_in_one_way(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(outcome) = read(&bytes) {
                let written = written(&outcome).unwrap();
                prop_assert_eq!(written.expose(), &bytes);
            }
        }

        #[test]
        fn grants_come_back_as_they_were(text in "\\PC{0,40}", access in "\\PC{0,40}", refresh in "\\PC{0,40}", expires_at: u64) {
            let outcome = Ok(Arc::new(Grant {
                text: secret(&text),
                access_token: secret(&access),
                refresh_token: secret(&refresh),
                expires_at,
            }));
            prop_assert_eq!(read(written(&outcome).unwrap().expose()), Some(outcome));
        }
    }
}
