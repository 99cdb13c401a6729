//! Secrets and key files of a provider: decoded, long enough, of the right kind. None of them is ever printed.

use super::decode::{At, Kept};
use super::diagnostic::Place;
use super::parse;
use super::read::{Entries, Reader};
use crate::base::certificate::PEM_BYTES_MAX;
use crate::base::secret::Secret;
use base64::Engine as _;
use std::path::Path;
use std::sync::Arc;

/// Shortest HMAC secret (RFC 7518 §3.2: as long as the hash), in bytes.
pub(super) const SECRET_BYTES_MIN: usize = 32;

pub(super) fn one_key_source(name: &str, entries: &Entries, reader: &Reader<'_>) {
    let keys = ["jwks_url", "discovery_url", "secret", "public_key_file"];
    let mut given = keys.iter().filter(|key| entries.has(key));
    match (given.next(), given.next()) {
        (None, _) => {
            let hint = "add one of `jwks_url`, `secret`, `public_key_file`";
            let message = format!("the provider `{name}` has no key to verify with");
            reader.error("missing-key", &entries.place, message, hint);
        }
        (Some(first), Some(second)) => {
            let message = format!("a provider has both `{first}` and `{second}`");
            reader.error(
                "contradiction",
                &entries.key_place(second),
                message,
                "keep one of them",
            );
        }
        (Some(_), None) => {}
    }
}

/// Text, or `base64:` and either alphabet. `None`: wrong.
pub(super) fn decode_secret(kept: &Kept, reader: &Reader<'_>) -> Option<(Secret<Vec<u8>>, Place)> {
    use base64::alphabet::{STANDARD, URL_SAFE};
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let text = kept.secret.expose();
    let bytes = match text.strip_prefix("base64:") {
        None => text.as_bytes().to_vec(),
        Some(coded) => {
            let any = GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent);
            let decoded = [&STANDARD, &URL_SAFE]
                .iter()
                .find_map(|alphabet| GeneralPurpose::new(alphabet, any).decode(coded).ok());
            let Some(decoded) = decoded else {
                let hint = "after `base64:` comes base64 or base64url";
                reader.error(
                    "bad-value",
                    &kept.place,
                    "the secret is not valid base64",
                    hint,
                );
                return None;
            };
            decoded
        }
    };
    let secret = Secret::new(bytes);
    if secret.expose().len() < SECRET_BYTES_MIN {
        let hint = format!(
            "at least {SECRET_BYTES_MIN} bytes; a short one can be guessed from a single token"
        );
        reader.error("weak-secret", &kept.place, "the secret is too short", hint);
        return None;
    }
    Some((secret, kept.place.clone()))
}

/// The key that is meant for browsers; the other one opens everything.
pub(super) fn publishable(kept: Option<Kept>, reader: &Reader<'_>) -> Option<Secret<String>> {
    let kept = kept.and_then(Kept::given)?;
    let text = kept.secret.expose();
    if text.starts_with("sb_secret_") || is_jwt_of(text, "service_role") {
        let hint = "use the anon or sb_publishable_ key";
        reader.error(
            "secret-as-publishable",
            &kept.place,
            "`publishable_key` holds a secret key of the project",
            hint,
        );
    } else if parse::header_value(text).is_err() {
        reader.error(
            "bad-value",
            &kept.place,
            "`publishable_key` holds characters that no key has",
            "",
        );
    }
    Some(kept.secret)
}

/// The key that opens everything; with the other one the project would go on counting by gateway.
pub(super) fn secret_key(
    kept: Option<Kept>,
    publishable: Option<&Secret<String>>,
    reader: &Reader<'_>,
) -> Option<Secret<String>> {
    let kept = kept.and_then(Kept::given)?;
    let text = kept.secret.expose();
    let same = kept.known && publishable == Some(&kept.secret);
    if same || text.starts_with("sb_publishable_") || is_jwt_of(text, "anon") {
        let hint = "use the sb_secret_ key, or leave it out";
        let message = "`secret_key` holds the publishable key of the project";
        reader.error("publishable-as-secret", &kept.place, message, hint);
    } else if parse::header_value(text).is_err() {
        let message = "`secret_key` holds characters that no key has";
        reader.error("bad-value", &kept.place, message, "");
    } else if publishable.is_none() {
        let hint = "without `publishable_key` sessions are neither begun nor renewed here";
        let message = "`secret_key` does nothing here";
        reader.warn("no-effect", &kept.place, message, hint);
    }
    Some(kept.secret)
}

/// Whether a key of a project is one of the old kind, a JWT, with this role.
fn is_jwt_of(key: &str, role: &str) -> bool {
    let claims = key
        .split('.')
        .nth(1)
        .and_then(|part| base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<serde_json::Value> =
        claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    claims.is_some_and(|claims| claims.get("role").is_some_and(|own| own == role))
}

pub(super) fn public_key(path: &At<String>, reader: &Reader<'_>) -> Option<Arc<str>> {
    if path.known {
        read_pem(path, "PUBLIC KEY", reader)
    } else {
        None
    }
}

pub(super) fn read_pem(path: &At<String>, wanted: &str, reader: &Reader<'_>) -> Option<Arc<str>> {
    match reader.file(Path::new(&path.value), PEM_BYTES_MAX) {
        Err(why) => {
            reader.error(
                "unreadable-file",
                &path.place,
                format!("`{}` {why}", path.shown),
                "",
            );
            None
        }
        Ok(text) if text.contains("PRIVATE KEY-----") && wanted == "PUBLIC KEY" => {
            let hint = "give the public half; the private one belongs to the issuer alone";
            reader.error(
                "bad-value",
                &path.place,
                format!("`{}` holds a private key", path.shown),
                hint,
            );
            None
        }
        Ok(text) if !text.contains("-----BEGIN ") || !text.contains(&format!("{wanted}-----")) => {
            let hint = format!("it should hold a block `-----BEGIN {wanted}-----`");
            reader.error(
                "bad-value",
                &path.place,
                format!("`{}` is not PEM of the right kind", path.shown),
                hint,
            );
            None
        }
        Ok(text) => Some(text.into()),
    }
}
