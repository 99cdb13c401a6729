//! What a browser may know of its own session: who it is, never by what that is proven. No token, nothing of
//! `app_metadata` but the roles.

use crate::exchange::Identity;
use serde_json::{Map, Value, json};

/// `{"user": {"id", "email", "phone", "roles", "user_metadata", "scopes", "anonymous"}, "provider", "expires_at"}`: `email` and `phone` where
/// the token names one, `scopes` where there are any, `anonymous` only when it is true; `expires_at` in Unix seconds.
pub fn view(identity: &Identity) -> Value {
    let mut user = Map::new();
    user.insert("id".to_owned(), json!(&*identity.user_id));
    for name in ["email", "phone"] {
        let text = identity.claims.get(name).and_then(Value::as_str);
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            user.insert(name.to_owned(), json!(text));
        }
    }
    // What users say of themselves: for a page that greets them, never for a decision.
    let metadata = identity.claims.get("user_metadata");
    if let Some(metadata) = metadata.filter(|m| m.as_object().is_some_and(|m| !m.is_empty())) {
        user.insert("user_metadata".to_owned(), metadata.clone());
    }
    let texts = |list: &[Box<str>]| Value::from_iter(list.iter().map(|text| &**text));
    user.insert("roles".to_owned(), texts(&identity.roles));
    if !identity.scopes.is_empty() {
        user.insert("scopes".to_owned(), texts(&identity.scopes));
    }
    if identity.anonymous {
        user.insert("anonymous".to_owned(), json!(true));
    }
    json!({
        "user": user,
        "provider": &*identity.provider,
        "expires_at": identity.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(claims: Value) -> Identity {
        Identity {
            provider: "main".into(),
            user_id: "u-1".into(),
            roles: vec!["admin".into(), "user".into()],
            scopes: Vec::new(),
            claims: claims.as_object().cloned().unwrap(),
            expires_at: 1_700_000_000,
            session_id: Some("s-1".into()),
            anonymous: false,
            api_key_id: None,
        }
    }

    #[test]
    fn it_tells_who_somebody_is_and_nothing_else_of_the_token() {
        let claims = json!({
            "sub": "u-1", "email": "ada@example.com", "phone": "", "aal": "aal1", "jti": "secret",
            "user_metadata": {"name": "Ada"}, "app_metadata": {"provider": "email"},
        });
        let wanted = json!({
            "user": {
                "id": "u-1", "email": "ada@example.com", "roles": ["admin", "user"],
                "user_metadata": {"name": "Ada"},
            },
            "provider": "main",
            "expires_at": 1_700_000_000,
        });
        assert_eq!(view(&identity(claims)), wanted);
    }

    #[test]
    fn what_is_not_a_text_is_left_out_and_the_rare_is_told_when_it_is_there() {
        let somebody = Identity {
            roles: Vec::new(),
            scopes: vec!["orders:read".into()],
            anonymous: true,
            ..identity(json!({"email": null, "phone": 491234}))
        };
        let user = json!({"id": "u-1", "roles": [], "scopes": ["orders:read"], "anonymous": true});
        assert_eq!(view(&somebody)["user"], user);
    }
}
