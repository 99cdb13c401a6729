//! The people the provider knows: in memory, bounded, passwords as Argon2id hashes (RFC 9106) and never in clear.

use super::errors::ApiError;
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::demo::random;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};
use uuid::Uuid;

/// Users kept; further sign-ups are refused.
pub(super) const USERS_MAX: usize = 1000;
/// `user_metadata` of one user, as JSON text.
const METADATA_BYTES_MAX: usize = 64 * 1024;
const EMAIL_BYTES_MAX: usize = 254;
const PASSWORD_CHARACTERS_MIN: usize = 6;
const PASSWORD_BYTES_MAX: usize = 72;

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: Uuid,
    /// Lower case.
    pub(super) email: String,
    /// PHC string.
    hash: Secret<String>,
    /// `app_metadata.role`: only the operator sets it.
    pub(super) role: Option<String>,
    /// What the user said at sign-up. Nothing may be allowed because of it.
    pub(super) metadata: Map<String, Value>,
    pub(super) banned: bool,
    created_ms: u64,
    signed_in_ms: u64,
}

impl User {
    pub(super) fn app_metadata(&self) -> Value {
        let mut metadata = json!({"provider": "email", "providers": ["email"]});
        if let Some(role) = &self.role {
            metadata["role"] = json!(role);
        }
        metadata
    }

    pub(super) fn user_metadata(&self) -> Value {
        let mut metadata = self.metadata.clone();
        metadata.insert("email".into(), json!(self.email));
        metadata.insert("email_verified".into(), json!(true));
        metadata.insert("phone_verified".into(), json!(false));
        metadata.insert("sub".into(), json!(self.id.to_string()));
        Value::Object(metadata)
    }

    /// The object that `GET /user` and every session answer carry.
    pub(super) fn view(&self) -> Value {
        let (created, signed_in) = (rfc3339(self.created_ms), rfc3339(self.signed_in_ms));
        json!({
            "id": self.id.to_string(),
            "aud": "authenticated",
            "role": "authenticated",
            "email": self.email,
            "email_confirmed_at": created,
            "phone": "",
            "confirmed_at": created,
            "last_sign_in_at": signed_in,
            "app_metadata": self.app_metadata(),
            "user_metadata": self.user_metadata(),
            "identities": [{
                "identity_id": self.id.to_string(),
                "id": self.id.to_string(),
                "user_id": self.id.to_string(),
                "identity_data": {
                    "email": self.email,
                    "email_verified": false,
                    "phone_verified": false,
                    "sub": self.id.to_string(),
                },
                "provider": "email",
                "last_sign_in_at": created,
                "created_at": created,
                "updated_at": created,
                "email": self.email,
            }],
            "created_at": created,
            "updated_at": signed_in,
            "is_anonymous": false,
        })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Users {
    by_id: HashMap<Uuid, User>,
    by_email: HashMap<String, Uuid>,
}

impl Users {
    /// Takes a new user in. `hash` comes from [`hash_password`].
    pub(super) fn add(
        &mut self,
        email: &str,
        hash: Secret<String>,
        role: Option<&str>,
        metadata: Map<String, Value>,
        clock: &Clock,
    ) -> Result<Uuid, ApiError> {
        let email = normal_email(email)?;
        if self.by_email.contains_key(&email) {
            return Err(exists());
        }
        if self.by_id.len() >= USERS_MAX {
            return Err(ApiError::unprocessable(
                "signup_disabled",
                "Signups not allowed for this instance",
            ));
        }
        if serde_json::to_vec(&metadata).map_or(usize::MAX, |text| text.len()) > METADATA_BYTES_MAX
        {
            return Err(ApiError::bad_request(
                "validation_failed",
                "User metadata is too large",
            ));
        }
        let id = random::uuid()?;
        let now = clock.unix_millis();
        let user = User {
            id,
            email: email.clone(),
            hash,
            role: role.map(String::from),
            metadata,
            banned: false,
            created_ms: now,
            signed_in_ms: now,
        };
        self.by_id.insert(id, user);
        self.by_email.insert(email, id);
        Ok(id)
    }

    pub(super) fn get(&self, id: Uuid) -> Option<&User> {
        self.by_id.get(&id)
    }

    pub(super) fn find(&self, email: &str) -> Option<&User> {
        let email = normal_email(email).ok()?;
        self.by_id.get(self.by_email.get(&email)?)
    }

    pub(super) fn find_mut(&mut self, email: &str) -> Option<&mut User> {
        let email = normal_email(email).ok()?;
        self.by_id.get_mut(self.by_email.get(&email)?)
    }

    pub(super) fn signed_in(&mut self, id: Uuid, clock: &Clock) {
        if let Some(user) = self.by_id.get_mut(&id) {
            user.signed_in_ms = clock.unix_millis();
        }
    }

    pub(super) fn remove(&mut self, email: &str) -> Option<User> {
        let email = normal_email(email).ok()?;
        self.by_id.remove(&self.by_email.remove(&email)?)
    }

    /// What a password given for `email` must match; `None` for an address nobody has.
    pub(super) fn hash_of(&self, email: &str) -> Option<Secret<String>> {
        self.find(email).map(|user| user.hash.clone())
    }
}

/// What is compared for an address nobody has, so that both take the same time. Nothing matches it.
static NOBODY: LazyLock<Secret<String>> = LazyLock::new(|| {
    // Without entropy there is no hash, and an empty one matches nothing either.
    let hash = random::text(random::READABLE, 20)
        .ok()
        .and_then(|password| hash_password(&password).ok());
    hash.unwrap_or_else(|| Secret::new(String::new()))
});

pub(super) fn exists() -> ApiError {
    ApiError::unprocessable("user_already_exists", "User already registered")
}

/// The rules for a password of a new user.
pub(super) fn check_password(password: &str) -> Result<(), ApiError> {
    if password.is_empty() {
        return Err(ApiError::bad_request(
            "validation_failed",
            "Signup requires a valid password",
        ));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err(ApiError::bad_request(
            "validation_failed",
            "Password cannot be longer than 72 characters",
        ));
    }
    if password.chars().count() < PASSWORD_CHARACTERS_MIN {
        return Err(ApiError {
            weak: &["length"],
            ..ApiError::unprocessable("weak_password", "Password should be at least 6 characters.")
        });
    }
    Ok(())
}

/// Lower case, bounded, and with something on both sides of one `@`.
pub(super) fn normal_email(email: &str) -> Result<String, ApiError> {
    let email = email.trim().to_lowercase();
    let shaped = email.len() <= EMAIL_BYTES_MAX
        && email.split_once('@').is_some_and(|(name, host)| {
            !name.is_empty() && !host.is_empty() && !host.contains('@')
        })
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    if shaped {
        Ok(email)
    } else {
        Err(ApiError::bad_request(
            "validation_failed",
            "Unable to validate email address: invalid format",
        ))
    }
}

/// Slow on purpose (some 20 ms): not for a thread that serves others.
pub(super) fn hash_password(password: &str) -> Result<Secret<String>, ApiError> {
    let salt: [u8; 16] = random::bytes()?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| ApiError::unexpected())?;
    let hash = argon2::Argon2::default()
        .hash_password(password.as_bytes(), &salt)
        .map_err(|_| ApiError::unexpected())?;
    Ok(Secret::new(hash.to_string()))
}

/// As slow as [`hash_password`], whether there is a hash or not.
pub(super) fn password_matches(password: &str, hash: Option<&Secret<String>>) -> bool {
    let text = hash.unwrap_or_else(|| &*NOBODY).expose();
    password.len() <= PASSWORD_BYTES_MAX
        && PasswordHash::new(text).is_ok_and(|hash| {
            argon2::Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok()
        })
}

fn rfc3339(unix_ms: u64) -> String {
    // The formatter knows years of four digits only.
    let ms = unix_ms.min(253_402_300_799_000);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_kept_only_as_a_hash() {
        let mut users = Users::default();
        let hash = hash_password("correct-horse-9").unwrap();
        assert!(hash.expose().starts_with("$argon2id$"));
        assert!(password_matches("correct-horse-9", Some(&hash)));
        assert!(!password_matches("correct-horse-8", Some(&hash)));
        let clock = Clock::frozen(1_000);
        users
            .add("Ada@Example.com", hash, Some("admin"), Map::new(), &clock)
            .unwrap();
        let shown = format!("{users:?}");
        assert!(!shown.contains("argon2id") && !shown.contains("correct-horse"));
        assert!(users.find("ADA@example.COM").is_some());
        assert!(users.hash_of("nobody@example.com").is_none());
        assert!(!password_matches("", None));
    }

    #[test]
    fn addresses_and_passwords_are_checked() {
        for email in [
            "",
            "ada",
            "@example.com",
            "ada@",
            "a@b@c",
            "a b@c.d",
            "a\u{0}@c.d",
        ] {
            assert!(normal_email(email).is_err(), "{email:?}");
        }
        assert_eq!(
            normal_email(" Ada@Example.com ").unwrap(),
            "ada@example.com"
        );
        assert_eq!(check_password("12345").unwrap_err().code, "weak_password");
        assert_eq!(check_password("").unwrap_err().code, "validation_failed");
        assert!(check_password(&"x".repeat(73)).is_err());
        assert!(check_password("123456").is_ok());
    }

    #[test]
    fn the_number_of_users_is_bounded() {
        let mut users = Users::default();
        let clock = Clock::frozen(1_000);
        let mut add = |n: usize| {
            let hash = Secret::new(String::from("x"));
            users.add(&format!("u{n}@example.com"), hash, None, Map::new(), &clock)
        };
        for n in 0..USERS_MAX {
            add(n).unwrap();
        }
        assert_eq!(add(0).unwrap_err().code, "user_already_exists");
        assert_eq!(add(USERS_MAX).unwrap_err().code, "signup_disabled");
    }
}
