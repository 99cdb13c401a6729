//! The claims of RFC 7519 §4.1, one row for each way in which they can be wrong.

use super::*;

/// What became of a token: the user and the roles, or the word of the refusal.
async fn outcome(tokens: &Tokens, token: &str) -> String {
    looks_alike(tokens, token).await;
    match tokens.verify(token.as_bytes()).await {
        Ok(identity) => format!("ok {} [{}]", identity.user_id, identity.roles.join("|")),
        Err(TokenError::Refused { reason, .. }) => format!("{reason:?}"),
        Err(error) => error.outcome().to_owned(),
    }
}

async fn check(provider: Provider, rows: Vec<(Value, &str)>) {
    let signer = Signer::new("HS256", "k");
    let tokens = tokens(&[with_secret(provider)], &Clock::frozen(NOW));
    for (patch, expected) in rows {
        let got = outcome(&tokens, &signer.token(&with(patch.clone()))).await;
        let good = got == expected || expected == "ok" && got.starts_with("ok ");
        assert!(good, "{patch}: got {got}, expected {expected}");
    }
}

#[tokio::test]
async fn each_registered_claim_is_required_and_typed() {
    let longest = "u".repeat(256);
    let too_long = "u".repeat(257);
    check(
        provider(None),
        vec![
            (
                json!({}),
                "ok 3f0c9a52-7d3d-4f10-b7f0-6e2f4f6d1a11 [editor|admin]",
            ),
            // exp: a number of seconds, fractions legal, leeway 30 s
            (json!({"exp": null}), "Expiry"),
            (json!({"exp": (NOW + 3600).to_string()}), "Expiry"),
            (json!({"exp": [NOW + 3600]}), "Expiry"),
            (json!({"exp": true}), "Expiry"),
            (json!({"exp": -1}), "Expiry"),
            (json!({"exp": -1.5}), "Expiry"),
            (json!({"exp": 1e300}), "Expiry"),
            (json!({"exp": u64::MAX}), "Expiry"),
            (json!({"exp": NOW as f64 + 0.5}), "ok"),
            (json!({"exp": 0}), "expired"),
            (json!({"exp": NOW}), "ok"),
            (json!({"exp": NOW - 29}), "ok"),
            (json!({"exp": NOW - 30}), "expired"),
            (json!({"exp": NOW as f64 - 29.5}), "ok"),
            (json!({"exp": NOW - 45}), "expired"),
            // nbf and iat: may not lie ahead by more than the leeway
            (json!({"nbf": NOW + 30}), "ok"),
            (json!({"nbf": NOW + 31}), "NotBefore"),
            (json!({"nbf": NOW + 3600}), "NotBefore"),
            (json!({"nbf": "0"}), "NotBefore"),
            (json!({"nbf": {}}), "NotBefore"),
            (json!({"iat": null}), "ok"),
            (json!({"iat": NOW + 30}), "ok"),
            (json!({"iat": NOW + 31}), "IssuedAt"),
            (json!({"iat": "now"}), "IssuedAt"),
            // iss: this string, byte for byte
            (json!({"iss": null}), "unknown_issuer"),
            (json!({"iss": format!("{ISSUER}/")}), "unknown_issuer"),
            (json!({"iss": ISSUER.to_uppercase()}), "unknown_issuer"),
            (json!({"iss": "https://evil.example"}), "unknown_issuer"),
            (json!({"iss": [ISSUER]}), "Issuer"),
            (json!({"iss": {}}), "Issuer"),
            (json!({"iss": 7}), "Issuer"),
            // aud: a string or strings, one of them ours
            (json!({"aud": null}), "Audience"),
            (json!({"aud": ""}), "Audience"),
            (json!({"aud": []}), "Audience"),
            (json!({"aud": 42}), "Audience"),
            (json!({"aud": {"authenticated": true}}), "Audience"),
            (json!({"aud": "other"}), "Audience"),
            (json!({"aud": "authenticated "}), "Audience"),
            (json!({"aud": ["other", "authenticated"]}), "ok"),
            (json!({"aud": ["authenticated", 42]}), "Audience"),
            (json!({"aud": [["authenticated"]]}), "Audience"),
            // sub: becomes a header
            (json!({"sub": null}), "Subject"),
            (json!({"sub": ""}), "Subject"),
            (json!({"sub": 7}), "Subject"),
            (json!({"sub": ["u"]}), "Subject"),
            (json!({"sub": "a b"}), "Subject"),
            (json!({"sub": "a\r\nX-Admin: 1"}), "Subject"),
            (json!({"sub": "ü"}), "Subject"),
            (json!({"sub": "u\u{0}"}), "Subject"),
            (json!({"sub": " u"}), "Subject"),
            (json!({"sub": longest}), "ok"),
            (json!({"sub": too_long}), "Subject"),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_over_is_said_to_be_over_only_when_all_else_is_good() {
    check(
        provider(None),
        vec![
            (json!({"exp": NOW - 3600}), "expired"),
            (json!({"exp": NOW - 3600, "is_anonymous": true}), "expired"),
            (json!({"exp": NOW - 3600, "aud": "other"}), "Audience"),
            (json!({"exp": NOW - 3600, "sub": ""}), "Subject"),
            (json!({"exp": NOW - 3600, "role": "anon"}), "ServiceRole"),
        ],
    )
    .await;
}

#[tokio::test]
async fn keys_without_a_user_and_anonymous_users_are_nobody_unless_allowed() {
    let set = |anonymous: bool, service: bool| {
        let mut provider = provider(None);
        if let ProviderKind::Supabase {
            anonymous_users,
            service_role,
            ..
        } = &mut provider.kind
        {
            (*anonymous_users, *service_role) = (anonymous, service);
        }
        provider
    };
    let rows = |anonymous, service| {
        vec![
            (json!({"role": "anon"}), "ServiceRole"),
            (json!({"role": "anon", "sub": null}), "Subject"),
            (json!({"role": "service_role", "sub": null}), "Subject"),
            (json!({"role": "service_role"}), service),
            (json!({"is_anonymous": true}), anonymous),
            (json!({"is_anonymous": "true"}), anonymous),
            (json!({"is_anonymous": false}), "ok"),
            (json!({"is_anonymous": null}), "ok"),
            (json!({"client_id": "third-party"}), "ok"),
        ]
    };
    check(set(false, false), rows("anonymous", "ServiceRole")).await;
    check(set(true, true), rows("ok", "ok")).await;
    // Other kinds give these claims no meaning.
    let mut plain = provider(None);
    plain.kind = ProviderKind::Jwt;
    check(
        plain,
        vec![
            (json!({"role": "anon"}), "ok"),
            (json!({"is_anonymous": true}), "ok"),
        ],
    )
    .await;
}

#[tokio::test]
async fn roles_are_the_union_of_the_listed_claims_and_nothing_else() {
    let row = |claims: Value, roles: &str| {
        (
            claims,
            format!("ok 3f0c9a52-7d3d-4f10-b7f0-6e2f4f6d1a11 [{roles}]"),
        )
    };
    let rows = [
        row(json!({"user_role": "owner"}), "owner|editor|admin"),
        row(json!({"app_metadata": {"roles": ["a", "b", "a"]}}), "a|b"),
        row(json!({"app_metadata": {"role": "a b, c"}}), "a b, c"),
        row(
            json!({"app_metadata": {"role": ["x"], "roles": "y"}}),
            "x|y",
        ),
        row(json!({"app_metadata": {"roles": 7}}), ""),
        row(json!({"app_metadata": {"roles": {"admin": true}}}), ""),
        row(json!({"app_metadata": {"roles": ["admin", 7]}}), ""),
        row(json!({"app_metadata": {"roles": [["admin"]]}}), ""),
        row(json!({"app_metadata": {"role": ""}}), ""),
        row(json!({"app_metadata": "admin"}), ""),
        row(json!({"app_metadata": ["admin"]}), ""),
        row(json!({"app_metadata": null}), ""),
        row(
            json!({"app_metadata": null, "user_metadata": {"role": "admin", "roles": ["admin"]}}),
            "",
        ),
        row(json!({"app_metadata": {"Role": "admin"}}), ""),
    ];
    check(
        provider(None),
        rows.iter().map(|(c, e)| (c.clone(), e.as_str())).collect(),
    )
    .await;
}

#[tokio::test]
async fn an_identity_carries_what_was_signed() {
    let signer = Signer::new("HS256", "k");
    let mut other = with_secret(provider(None));
    other.user_prefix = "sb|".into();
    other.user_id_claim = ClaimPath(vec!["app_metadata".into(), "id".into()]);
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[other], &clock);
    let signed = with(json!({
        "app_metadata": {"id": "u1"}, "scope": "orders:read  orders:write", "scopes": ["a", "orders:read"],
        "scp": "b", "exp": NOW as f64 + 60.9
    }));
    let identity = tokens
        .verify(signer.token(&signed).as_bytes())
        .await
        .unwrap();
    assert_eq!(&*identity.provider, "main");
    assert_eq!(&*identity.user_id, "sb|u1");
    assert_eq!(identity.scopes.join(" "), "orders:read orders:write a b");
    assert_eq!(identity.expires_at, NOW + 60);
    assert_eq!(
        identity.session_id.as_deref(),
        Some("0b6dfd1c-0a55-4a1f-9c5e-5a1b5c1f7a10")
    );
    assert_eq!(Value::Object(identity.claims), signed);

    let too_long = with(json!({"app_metadata": {"id": "u".repeat(254)}}));
    assert_eq!(
        refusal(&tokens, &signer.token(&too_long)).await,
        Reason::Subject
    );
}

#[tokio::test]
async fn an_ended_session_verifies_no_more_while_others_do() {
    let signer = Signer::new("HS256", "k");
    let clock = Clock::frozen(NOW);
    let list = [with_secret(provider(None))];
    let first = tokens(&list, &clock);
    let token = signer.token(&claims());
    let session = claims()["session_id"].as_str().unwrap().to_owned();
    assert!(first.verify(token.as_bytes()).await.is_ok());
    first.end_session(0, &session, NOW + 3600);
    assert_eq!(refusal(&first, &token).await, Reason::SessionEnded);
    let other = signer.token(&with(json!({"session_id": "another"})));
    assert!(first.verify(other.as_bytes()).await.is_ok());
    // Also after a reload.
    let second = Tokens::new(&list, clock, Handle::current(), Some(&first)).unwrap();
    assert_eq!(refusal(&second, &token).await, Reason::SessionEnded);
}

#[tokio::test]
async fn a_token_that_is_over_still_tells_whose_it_was() {
    let signer = Signer::new("HS256", "k");
    let tokens = tokens(&[with_secret(provider(None))], &Clock::frozen(NOW));
    let over = signer.token(&with(json!({"exp": NOW - 3600})));
    let past = tokens.verify_past(0, over.as_bytes()).await.unwrap();
    assert_eq!(past.expires_at, NOW - 3600);
    assert!(matches!(
        tokens.verify_for(0, over.as_bytes()).await,
        Err(TokenError::Expired { .. })
    ));
    let foreign = signer.token(&with(json!({"exp": NOW - 3600, "aud": "x"})));
    assert!(tokens.verify_past(0, foreign.as_bytes()).await.is_err());
}

#[tokio::test]
async fn a_token_goes_to_the_provider_of_its_issuer_and_to_no_other() {
    let signer = Signer::new("HS256", "k");
    let mut second = with_secret(provider(None));
    second.name = "second".into();
    second.issuer = Some("https://second.example".into());
    second.keys.secret = Some(Secret::new(b"another secret of 32 bytes, too.".to_vec()));
    let mut any = with_secret(provider(None));
    any.name = "any".into();
    any.issuer = None;
    let clock = Clock::frozen(NOW);
    let two = tokens(&[with_secret(provider(None)), second.clone()], &clock);
    let three = tokens(&[any, with_secret(provider(None)), second], &clock);

    let who = |tokens: Result<Identity, TokenError>| match tokens {
        Ok(identity) => identity.provider.to_string(),
        Err(error) => error.to_string(),
    };
    let main = signer.token(&claims());
    let of_second = signer.token(&with(json!({"iss": "https://second.example"})));
    let of_none = signer.token(&with(json!({"iss": "https://third.example"})));
    let without = signer.token(&with(json!({"iss": null})));
    let wrong = "token refused: the signature does not hold";
    let nobody = "no provider has the token's issuer";
    for (tokens, token, expected) in [
        (&two, &main, "main"),
        (&two, &of_second, wrong),
        (&two, &of_none, nobody),
        (&two, &without, nobody),
        (&three, &main, "main"),
        // Never the one that takes any: the issuer is somebody's.
        (&three, &of_second, wrong),
        (&three, &of_none, "any"),
        (&three, &without, "any"),
    ] {
        assert_eq!(who(tokens.verify(token.as_bytes()).await), expected);
    }
    assert_eq!(who(two.verify_for(1, main.as_bytes()).await), wrong);
    assert_eq!(who(two.verify_for(0, main.as_bytes()).await), "main");
    assert_eq!(who(two.verify_for(9, main.as_bytes()).await), nobody);
}
