//! What a browser may know of its session: who it is, and until when. Never a token.

use crate::exchange::Identity;
use serde_json::{Map, Value};

/// Claims that are shown as they are, when they say something.
const SHOWN: &[&str] = &["email", "phone", "aal", "user_metadata"];

/// `{user: {id, roles, email, phone, aal, user_metadata, anonymous}, provider, expires_at}`; members of `user` that nobody
/// knows are left out. `expires_at` is in Unix seconds, of the access token: a session that can be renewed goes on.
pub(super) fn of(identity: &Identity) -> Value {
    let mut user = Map::new();
    user.insert("id".into(), (*identity.user_id).into());
    let roles = identity.roles.iter().map(|role| Value::from(&**role));
    user.insert("roles".into(), roles.collect());
    for name in SHOWN {
        if let Some(value) = identity.claims.get(*name).filter(|value| says(value)) {
            user.insert((*name).into(), value.clone());
        }
    }
    if identity.anonymous {
        user.insert("anonymous".into(), true.into());
    }
    let mut view = Map::new();
    view.insert("user".into(), user.into());
    view.insert("provider".into(), (*identity.provider).into());
    view.insert("expires_at".into(), identity.expires_at.into());
    view.into()
}

/// Supabase writes empty texts for what a user does not have.
fn says(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_view_says_who_and_until_when_and_nothing_else() {
        let claims = json!({
            "sub": "u", "email": "ada@example.com", "phone": "", "aal": "aal1", "session_id": "s", "iat": 1, "exp": 9,
            "app_metadata": {"role": "user"}, "user_metadata": {"name": "Ada"}, "role": "authenticated",
        });
        let mut identity = Identity {
            provider: "main".into(),
            user_id: "u".into(),
            roles: vec!["user".into()],
            scopes: Vec::new(),
            claims: claims.as_object().unwrap().clone(),
            expires_at: 9,
            session_id: Some("s".into()),
            anonymous: false,
            api_key_id: None,
        };
        let expected = json!({
            "user": {"id": "u", "roles": ["user"], "email": "ada@example.com", "aal": "aal1", "user_metadata": {"name": "Ada"}},
            "provider": "main",
            "expires_at": 9,
        });
        assert_eq!(of(&identity), expected);
        identity.claims = json!({"email": 7, "user_metadata": {}, "access_token": "t"})
            .as_object()
            .unwrap()
            .clone();
        identity.anonymous = true;
        let user = json!({"id": "u", "roles": ["user"], "anonymous": true});
        assert_eq!(of(&identity)["user"], user);
    }
}
