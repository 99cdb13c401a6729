//! What a token says before anything of it is proven.

use crate::limit::keyed;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// Whose refresh tokens are counted that a provider refuses: one of its users.
pub(super) fn whose(sub: &str) -> u128 {
    keyed(&[sub.as_bytes()])
}

/// What a token says, unverified: only to be compared with what another one proves.
pub(super) fn claims_of(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}
