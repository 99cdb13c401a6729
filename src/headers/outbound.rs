//! What the upstream is told about who calls: the access token and the identity headers of the configuration. Values are
//! made once per verified credential, not per request; a value that cannot be a field is a refusal, never shortened.

use crate::config::value::{ClaimPath, IdentityValue};
use crate::exchange::{Claims, Credential, Identity};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

/// Bytes of one identity header.
const VALUE_BYTES_MAX: usize = 16 * 1024;

/// What cannot stand in a member of a list: the comma, the escape itself, white space. Non-ASCII always is escaped.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b',').add(b'%');

/// Why something cannot be said in a header.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// Over 16 KiB.
    #[error("the value of `{name}` is too long for a header")]
    TooLong {
        /// The header.
        name: HeaderName,
    },
    /// Not visible ASCII.
    #[error("the value of `{name}` cannot be a header")]
    Invisible {
        /// The header.
        name: HeaderName,
    },
}

/// `[identity_headers]`, compiled.
#[derive(Clone, Debug)]
pub struct IdentityHeaders(Vec<(HeaderName, IdentityValue)>);

impl IdentityHeaders {
    /// With several providers a user id alone is no identity: `X-Auth-Provider` is added unless the operator named it.
    pub fn compile(configured: &[(HeaderName, IdentityValue)], several_providers: bool) -> Self {
        let mut headers = configured.to_vec();
        let provider = HeaderName::from_static("x-auth-provider");
        if several_providers && headers.iter().all(|(name, _)| *name != provider) {
            headers.push((provider, IdentityValue::Provider));
        }
        Self(headers)
    }

    /// The finished fields of an identity. A claim that is missing, empty or an object has none.
    ///
    /// The user id goes as it is; every other text is a list member and escaped like one, alone or not, so that no
    /// claim can look like two.
    pub fn prepare(
        &self,
        identity: &Identity,
        credential: Credential,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, OutboundError> {
        let mut fields = Vec::with_capacity(self.0.len());
        for (name, what) in &self.0 {
            let text = text_of(what, identity, credential);
            if text.is_empty() {
                continue;
            }
            if text.len() > VALUE_BYTES_MAX {
                return Err(OutboundError::TooLong { name: name.clone() });
            }
            let value = visible(&text).ok_or(OutboundError::Invisible { name: name.clone() })?;
            fields.push((name.clone(), value));
        }
        Ok(fields)
    }
}

/// `Bearer <token>` (RFC 6750 §2.1), marked sensitive.
pub fn bearer(token: &str) -> Result<HeaderValue, OutboundError> {
    let invisible = || OutboundError::Invisible {
        name: AUTHORIZATION,
    };
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(invisible());
    }
    let mut value = HeaderValue::from_maybe_shared(bytes::Bytes::from(["Bearer ", token].concat()))
        .map_err(|_| invisible())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Puts the finished fields of a verified credential into a request that was stripped before.
pub fn apply(
    headers: &mut HeaderMap,
    fields: &[(HeaderName, HeaderValue)],
    authorization: Option<&HeaderValue>,
) {
    for (name, value) in fields {
        headers.insert(name, value.clone());
    }
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value.clone());
    }
}

/// The claim at a path. Steps go through objects only.
pub fn claim<'a>(claims: &'a Claims, path: &ClaimPath) -> Option<&'a Value> {
    let (first, rest) = path.0.split_first()?;
    rest.iter()
        .try_fold(claims.get(&**first)?, |value, step| value.get(&**step))
}

fn text_of(what: &IdentityValue, identity: &Identity, credential: Credential) -> String {
    match what {
        IdentityValue::Claim(path) if matches!(&*path.0, [only] if **only == *"sub") => {
            identity.user_id.to_string()
        }
        IdentityValue::Claim(path) => match claim(&identity.claims, path) {
            Some(Value::Array(members)) => list(members.iter().filter_map(scalar)),
            Some(value) => list(scalar(value)),
            None => String::new(),
        },
        IdentityValue::Roles => list(&identity.roles),
        IdentityValue::Scopes => list(&identity.scopes),
        IdentityValue::Provider => list([&identity.provider]),
        IdentityValue::Credential => credential.as_str().to_owned(),
        IdentityValue::ApiKeyId => list(&identity.api_key_id),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn list<T: AsRef<str>>(members: impl IntoIterator<Item = T>) -> String {
    let mut text = String::new();
    for member in members {
        let member = member.as_ref();
        if member.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(utf8_percent_encode(member, ESCAPED));
    }
    text
}

/// The last step: nothing but visible ASCII becomes a field.
fn visible(text: &str) -> Option<HeaderValue> {
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    HeaderValue::from_str(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(text: &str) -> ClaimPath {
        ClaimPath(text.split('.').map(Into::into).collect())
    }

    fn identity(claims: Value) -> Identity {
        let Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        Identity {
            provider: "main".into(),
            user_id: "u,1%".into(),
            roles: vec!["admin".into(), "a,b".into(), "ü %".into()],
            scopes: vec![],
            claims,
            expires_at: 0,
            session_id: None,
            anonymous: false,
            api_key_id: Some("ci".into()),
        }
    }

    fn check(what: IdentityValue, claims: Value, expected: Option<&str>) {
        let name = HeaderName::from_static("x-test");
        let headers = IdentityHeaders::compile(&[(name, what.clone())], false);
        let fields = headers
            .prepare(&identity(claims), Credential::ApiKey)
            .unwrap();
        let value = fields.first().map(|(_, v)| v.to_str().unwrap());
        assert_eq!(value, expected, "{what:?}");
    }

    #[test]
    fn each_value_comes_from_where_it_says() {
        let none = || json!({});
        check(IdentityValue::Claim(path("sub")), none(), Some("u,1%"));
        check(
            IdentityValue::Roles,
            none(),
            Some("admin,a%2Cb,%C3%BC%20%25"),
        );
        check(IdentityValue::Scopes, none(), None);
        check(IdentityValue::Provider, none(), Some("main"));
        check(IdentityValue::Credential, none(), Some("api_key"));
        check(IdentityValue::ApiKeyId, none(), Some("ci"));
    }

    #[test]
    fn a_claim_is_a_list_member_whether_alone_or_not() {
        for (claims, expected) in [
            (json!({"a": {"b": "x"}}), Some("x")),
            (json!({"a": {"b": "user,admin"}}), Some("user%2Cadmin")),
            (
                json!({"a": {"b": "Ada L\r\nx: y"}}),
                Some("Ada%20L%0D%0Ax:%20y"),
            ),
            (
                json!({"a": {"b": ["x", 1, true, null, {}, "", "y z"]}}),
                Some("x,1,true,y%20z"),
            ),
            (json!({"a": {"b": 1.5}}), Some("1.5")),
            (json!({"a": {"b": null}}), None),
            (json!({"a": {"b": {}}}), None),
            (json!({"a": {"b": []}}), None),
            (json!({"a": {"b": ""}}), None),
            (json!({"a": "b"}), None),
            (json!({"a.b": "x"}), None),
            (json!({}), None),
        ] {
            check(IdentityValue::Claim(path("a.b")), claims, expected);
        }
    }

    #[test]
    fn with_several_providers_the_provider_is_told() {
        let name = HeaderName::from_static("x-auth-provider");
        let names = |headers: IdentityHeaders| headers.0.len();
        assert_eq!(names(IdentityHeaders::compile(&[], true)), 1);
        assert_eq!(names(IdentityHeaders::compile(&[], false)), 0);
        let own = [(name, IdentityValue::Provider)];
        assert_eq!(names(IdentityHeaders::compile(&own, true)), 1);
    }

    #[test]
    fn what_cannot_be_a_field_is_refused() {
        let headers = IdentityHeaders::compile(
            &[
                (
                    HeaderName::from_static("x-id"),
                    IdentityValue::Claim(path("sub")),
                ),
                (
                    HeaderName::from_static("x-a"),
                    IdentityValue::Claim(path("a")),
                ),
            ],
            false,
        );
        let mut bad = identity(json!({}));
        bad.user_id = "a b".into();
        let outcome = headers.prepare(&bad, Credential::Bearer);
        assert!(matches!(outcome, Err(OutboundError::Invisible { .. })));
        let long = identity(json!({"a": "ü".repeat(VALUE_BYTES_MAX / 6 + 1)}));
        let outcome = headers.prepare(&long, Credential::Bearer);
        assert!(matches!(outcome, Err(OutboundError::TooLong { .. })));
    }

    #[test]
    fn a_bearer_is_sensitive_and_visible() {
        let value = bearer("a.b-c_d").unwrap();
        assert_eq!(value, "Bearer a.b-c_d");
        assert!(value.is_sensitive());
        for token in ["", "a b", "a\r\nx: y", "ü"] {
            assert!(bearer(token).is_err(), "{token}");
        }
    }

    #[test]
    fn applied_fields_replace_what_was_there() {
        let mut headers = HeaderMap::new();
        headers.append("x-user-id", HeaderValue::from_static("evil"));
        headers.append("x-user-id", HeaderValue::from_static("evil too"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
        let fields = [(
            HeaderName::from_static("x-user-id"),
            HeaderValue::from_static("u"),
        )];
        apply(&mut headers, &fields, Some(&bearer("t").unwrap()));
        assert_eq!(headers.get_all("x-user-id").iter().count(), 1);
        assert_eq!(headers["x-user-id"], "u");
        assert_eq!(headers[AUTHORIZATION], "Bearer t");
    }
}
