//! What a proven caller may do: `require` and `client_ips` of a route, compiled. The reason of a refusal is for the log;
//! the client learns neither roles nor claims. Knows no HTTP beyond the refusal.

use crate::config::route::{Auth, Require, Wanted};
use crate::config::value::ClaimPath;
use crate::exchange::{Caller, Code, Identity, Reject};
use crate::headers::forwarded::Client;
use crate::headers::outbound::claim;
use ipnet::IpNet;
use serde_json::Value;

/// A route's rules. All parts must hold; one that names nothing asks nothing.
#[derive(Clone, Debug)]
pub struct Policy {
    require: Require,
    client_ips: Box<[IpNet]>,
    /// Nobody is refused, whatever `authn` let through.
    identity: bool,
}

impl Policy {
    /// From a route's `require`, `client_ips` and `auth`.
    pub fn compile(require: &Require, client_ips: &[IpNet], auth: Auth) -> Self {
        Self {
            require: require.clone(),
            client_ips: client_ips.into(),
            identity: auth == Auth::Required || *require != Require::default(),
        }
    }

    /// An address that `client_ips` lets in; `None`: any is. For rehearsals.
    pub fn an_address(&self) -> Option<std::net::IpAddr> {
        self.client_ips.first().map(ipnet::IpNet::addr)
    }

    /// Lets a caller through, or says why not. `capture` gives what a name of the path or host pattern matched, as it
    /// stands in the canonical path. An empty `require` asks for any verified caller on a protected route.
    pub fn check<'a>(
        &self,
        caller: &Caller,
        client: &Client,
        capture: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<(), Reject> {
        match caller.identity() {
            Some(identity) => self.check_identity(identity, capture)?,
            None if self.identity => {
                return Err(Reject::new(
                    Code::MissingCredentials,
                    "This address needs a session cookie or an Authorization: Bearer token.",
                ));
            }
            None => {}
        }
        // An address that is only the proxy's must not open what was opened for the proxy's network.
        let allowed = client.known && self.client_ips.iter().any(|net| net.contains(&client.ip));
        if !self.client_ips.is_empty() && !allowed {
            let known = if client.known {
                ""
            } else {
                " (not the client's)"
            };
            return Err(Reject::new(
                Code::Forbidden,
                "Requests from this address are not allowed here.",
            )
            .because(format!("address {}{known} is not in client_ips", client.ip)));
        }
        Ok(())
    }

    fn check_identity<'a>(
        &self,
        identity: &Identity,
        capture: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<(), Reject> {
        let Require {
            any_role,
            all_scopes,
            aal,
            provider,
            claims,
        } = &self.require;
        if !provider.is_empty() && !provider.contains(&identity.provider) {
            return Err(forbidden(format!(
                "provider `{}` is not one of {provider:?}",
                identity.provider
            )));
        }
        let has_role = |role: &str| identity.roles.iter().any(|own| **own == *role);
        if !any_role.is_empty() && !any_role.iter().any(|role| has_role(role)) {
            return Err(forbidden(format!("has none of the roles {any_role:?}")));
        }
        for scope in all_scopes {
            if !identity.scopes.iter().any(|own| **own == **scope) {
                return Err(forbidden(format!("has not the scope {scope:?}")));
            }
        }
        if let Some(wanted) = aal {
            let own = identity.claims.get("aal").and_then(Value::as_str);
            if !own.is_some_and(|own| assures(own, wanted)) {
                return Err(Reject::new(
                    Code::Forbidden,
                    "This needs a stronger sign-in, with a second factor.",
                )
                .because(format!("has not the assurance level {wanted:?}")));
            }
        }
        for (path, wanted) in claims {
            let holds = claim(&identity.claims, path).is_some_and(|own| match wanted {
                Wanted::Value(wanted) => holds(own, |one| equal(one, wanted)),
                Wanted::Capture(name) => capture(name).is_some_and(|text| {
                    let text = percent_encoding::percent_decode_str(text).decode_utf8();
                    text.is_ok_and(|text| holds(own, |one| is_written(one, &text)))
                }),
            });
            if !holds {
                return Err(forbidden(format!(
                    "the claim `{}` is missing or not the one wanted",
                    dotted(path)
                )));
            }
        }
        Ok(())
    }
}

fn forbidden(reason: String) -> Reject {
    Reject::new(
        Code::Forbidden,
        "You are signed in, but this is not allowed for you.",
    )
    .because(reason)
}

/// A single value must hold; of an array, one member.
fn holds(own: &Value, one: impl Fn(&Value) -> bool) -> bool {
    match own {
        Value::Array(members) => members.iter().any(one),
        own => one(own),
    }
}

/// Same type, same value; `1` and `1.0` are one number.
fn equal(own: &Value, wanted: &Value) -> bool {
    match (own, wanted) {
        (Value::Number(own), Value::Number(wanted)) => {
            own == wanted || (own.is_f64() || wanted.is_f64()) && own.as_f64() == wanted.as_f64()
        }
        _ => own == wanted,
    }
}

/// Whether a claim is what a path says: text as it is, numbers and truth values as JSON writes them.
fn is_written(own: &Value, text: &str) -> bool {
    match own {
        Value::String(own) => own == text,
        Value::Number(own) => own.to_string() == text,
        Value::Bool(own) => own.to_string() == text,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// `aal2` satisfies `aal1`; levels of another form must be equal (NIST SP 800-63B, as Supabase writes it).
fn assures(own: &str, wanted: &str) -> bool {
    let level = |text: &str| text.strip_prefix("aal")?.parse::<u8>().ok();
    match (level(own), level(wanted)) {
        (Some(own), Some(wanted)) => own >= wanted,
        _ => own == wanted,
    }
}

fn dotted(path: &ClaimPath) -> String {
    path.0.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Credential, Verified};
    use serde_json::json;
    use std::net::IpAddr;
    use std::sync::Arc;

    fn caller(roles: &[&str], scopes: &[&str], claims: Value) -> Caller {
        let Value::Object(claims) = claims else {
            panic!("claims are an object")
        };
        let identity = Identity {
            provider: "main".into(),
            user_id: "u".into(),
            roles: roles.iter().map(|r| (*r).into()).collect(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            claims,
            expires_at: 0,
            session_id: None,
            anonymous: false,
            api_key_id: None,
        };
        Caller::proven(Arc::new(Verified {
            identity,
            credential: Credential::Bearer,
            authorization: None,
            headers: Vec::new(),
            provider: 0,
            epoch: 0,
            renew_at: u64::MAX,
            kept: None,
            user_key: 0,
            weight: 0,
        }))
    }

    fn client(ip: &str, known: bool) -> Client {
        Client::at(ip.parse::<IpAddr>().unwrap(), known)
    }

    fn outcome(require: Require, caller: &Caller) -> Result<(), Reject> {
        let capture = |name: &str| match name {
            "tenant" => Some("acme%20%C3%A9"),
            "number" => Some("42"),
            _ => None,
        };
        let policy = Policy::compile(&require, &[], Auth::Required);
        policy.check(caller, &client("1.1.1.1", true), capture)
    }

    fn check(require: Require, caller: &Caller, expected: bool) {
        let outcome = outcome(require.clone(), caller);
        assert_eq!(outcome.is_ok(), expected, "{require:?} {caller:?}");
        if let Err(reject) = outcome {
            assert_eq!(reject.code(), Code::Forbidden);
            assert!(!reject.reason().is_empty());
        }
    }

    fn names(list: &[&str]) -> Vec<Arc<str>> {
        list.iter().map(|n| (*n).into()).collect()
    }

    #[test]
    fn an_empty_require_asks_for_any_verified_caller() {
        check(Require::default(), &caller(&[], &[], json!({})), true);
        let reject = outcome(Require::default(), &Caller::nobody()).unwrap_err();
        assert_eq!(reject.code(), Code::MissingCredentials);
    }

    #[test]
    fn nobody_passes_only_where_nobody_is_required() {
        let client = client("1.1.1.1", true);
        for (auth, require, expected) in [
            (Auth::Public, Require::default(), true),
            (Auth::Optional, Require::default(), true),
            (Auth::Required, Require::default(), false),
            (
                Auth::Optional,
                Require {
                    any_role: names(&["a"]),
                    ..Require::default()
                },
                false,
            ),
        ] {
            let policy = Policy::compile(&require, &[], auth);
            let outcome = policy.check(&Caller::nobody(), &client, |_| None);
            assert_eq!(outcome.is_ok(), expected, "{auth:?} {require:?}");
        }
    }

    #[test]
    fn one_role_is_enough_and_it_is_compared_exactly() {
        let require = |roles: &[&str]| Require {
            any_role: names(roles),
            ..Require::default()
        };
        let admin = caller(&["user", "admin"], &[], json!({"role": "root"}));
        check(require(&["admin"]), &admin, true);
        check(require(&["root", "admin"]), &admin, true);
        for role in ["Admin", "adm", "admin ", "administrator", "root", ""] {
            check(require(&[role]), &admin, false);
        }
        check(
            require(&["admin"]),
            &caller(&[], &["admin"], json!({})),
            false,
        );
    }

    #[test]
    fn every_scope_is_needed() {
        let require = |scopes: &[&str]| Require {
            all_scopes: names(scopes),
            ..Require::default()
        };
        let reader = caller(&[], &["orders:read", "users:read"], json!({}));
        check(require(&["orders:read", "users:read"]), &reader, true);
        check(require(&["orders:read", "orders:write"]), &reader, false);
        check(require(&["orders"]), &reader, false);
    }

    #[test]
    fn the_assurance_level_is_at_least_the_one_wanted() {
        for (own, wanted, expected) in [
            (json!({"aal": "aal2"}), "aal2", true),
            (json!({"aal": "aal3"}), "aal2", true),
            (json!({"aal": "aal1"}), "aal2", false),
            (json!({"aal": "aal2"}), "aal1", true),
            (json!({"aal": "gold"}), "gold", true),
            (json!({"aal": "gold"}), "aal1", false),
            (json!({"aal": 2}), "aal2", false),
            (json!({"aal": ["aal2"]}), "aal2", false),
            (json!({}), "aal1", false),
        ] {
            let require = Require {
                aal: Some(wanted.into()),
                ..Require::default()
            };
            check(require, &caller(&[], &[], own), expected);
        }
    }

    #[test]
    fn the_provider_is_one_of_those_named() {
        let require = |providers: &[&str]| Require {
            provider: names(providers),
            ..Require::default()
        };
        let main = caller(&[], &[], json!({}));
        check(require(&["other", "main"]), &main, true);
        check(require(&["other"]), &main, false);
    }

    fn claims(path: &str, wanted: Wanted) -> Require {
        Require {
            claims: vec![(ClaimPath(path.split('.').map(Into::into).collect()), wanted)],
            ..Require::default()
        }
    }

    #[test]
    fn a_claim_equals_or_contains_what_is_wanted() {
        for (own, wanted, expected) in [
            (json!("x"), json!("x"), true),
            (json!("x"), json!("X"), false),
            (json!("xy"), json!("x"), false),
            (json!(["x", "y"]), json!("y"), true),
            (json!([]), json!("y"), false),
            (json!([["y"]]), json!("y"), false),
            (json!(42), json!(42), true),
            (json!(42.0), json!(42), true),
            (json!("42"), json!(42), false),
            (json!(42), json!("42"), false),
            (json!(true), json!(true), true),
            (json!("true"), json!(true), false),
            (json!(null), json!("x"), false),
            (json!({"x": 1}), json!("x"), false),
        ] {
            let require = claims("a.b", Wanted::Value(wanted));
            check(
                require,
                &caller(&[], &[], json!({"a": {"b": own}})),
                expected,
            );
        }
        let wanted = || claims("a.b", Wanted::Value(json!("x")));
        check(wanted(), &caller(&[], &[], json!({"a": "x"})), false);
        check(wanted(), &caller(&[], &[], json!({"a.b": "x"})), false);
        check(wanted(), &caller(&[], &[], json!({})), false);
    }

    #[test]
    fn a_claim_is_the_tenant_of_the_path() {
        for (own, name, expected) in [
            (json!("acme é"), "tenant", true),
            (json!(["other", "acme é"]), "tenant", true),
            (json!("acme%20%C3%A9"), "tenant", false),
            (json!("other"), "tenant", false),
            (json!(42), "number", true),
            (json!("42"), "number", true),
            (json!(""), "unknown", false),
            (json!(null), "unknown", false),
        ] {
            let require = claims("t", Wanted::Capture(name.into()));
            check(require, &caller(&[], &[], json!({"t": own})), expected);
        }
        let require = claims("t", Wanted::Capture("tenant".into()));
        check(require, &caller(&[], &[], json!({})), false);
    }

    #[test]
    fn all_parts_must_hold() {
        let require = Require {
            any_role: names(&["admin"]),
            ..claims("a", Wanted::Value(json!("x")))
        };
        check(
            require.clone(),
            &caller(&["admin"], &[], json!({"a": "x"})),
            true,
        );
        check(
            require.clone(),
            &caller(&["user"], &[], json!({"a": "x"})),
            false,
        );
        check(require, &caller(&["admin"], &[], json!({"a": "y"})), false);
    }

    #[test]
    fn only_listed_addresses_pass_and_only_if_they_are_the_clients() {
        let nets = [
            "10.0.0.0/8".parse().unwrap(),
            "2001:db8::/32".parse().unwrap(),
        ];
        let policy = Policy::compile(&Require::default(), &nets, Auth::Public);
        for (ip, known, expected) in [
            ("10.1.2.3", true, true),
            ("2001:db8::1", true, true),
            ("11.0.0.1", true, false),
            ("2001:db9::1", true, false),
            // A chain made too long to read leaves the proxy's address.
            ("10.1.2.3", false, false),
        ] {
            let outcome = policy.check(&Caller::nobody(), &client(ip, known), |_| None);
            assert_eq!(outcome.is_ok(), expected, "{ip}");
        }
    }

    #[test]
    fn a_refusal_tells_the_client_no_role_and_no_claim() {
        let admin = Require {
            any_role: names(&["superuser"]),
            ..Require::default()
        };
        let secret = claims("secret_plan", Wanted::Value(json!("gold")));
        for require in [admin, secret] {
            let reject = outcome(require, &caller(&["user"], &[], json!({}))).unwrap_err();
            for word in ["superuser", "secret_plan", "gold", "role"] {
                assert!(!reject.detail().contains(word), "{}", reject.detail());
            }
        }
    }
}
