//! Key sets over a real socket: who is asked, how often, and what serves while nobody answers.

use super::*;

fn unknown(kid: &str) -> String {
    let header = json!({"alg": "ES256", "kid": kid});
    format!(
        "{}.{}.{}",
        b64(header.to_string()),
        b64(claims().to_string()),
        b64([7; 64])
    )
}

fn unavailable(result: Result<Identity, TokenError>) -> bool {
    matches!(result, Err(TokenError::KeysUnavailable { .. }))
}

#[tokio::test]
async fn twenty_thousand_unknown_kids_cause_one_fetch_a_cooldown() {
    let signer = Signer::new("ES256", "known");
    let server = KeyServer::start(key_set(&[&signer])).await;
    let clock = Clock::frozen(NOW);
    let tokens = Arc::new(tokens(&[provider(Some(&server.url))], &clock));
    let good = signer.token(&claims());
    assert!(tokens.verify(good.as_bytes()).await.is_ok());
    assert_eq!(server.hits(), 1);
    let callers: Vec<_> = (0..20_000)
        .map(|number| {
            let tokens = tokens.clone();
            tokio::spawn(async move { refusal(&tokens, &unknown(&format!("kid-{number}"))).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Reason::UnknownKey);
    }
    assert_eq!(server.hits(), 2);
    clock.advance(Duration::from_millis(9_999));
    refusal(&tokens, &unknown("again")).await;
    assert_eq!(server.hits(), 2);
    clock.advance(Duration::from_millis(1));
    refusal(&tokens, &unknown("again")).await;
    assert_eq!(server.hits(), 3);
    assert!(tokens.verify(good.as_bytes()).await.is_ok());
    assert_eq!(server.hits(), 3);
}

#[tokio::test]
async fn the_first_tokens_wait_for_the_first_key_set() {
    let signer = Signer::new("ES256", "k");
    let server = KeyServer::holding(key_set(&[&signer])).await;
    let tokens = Arc::new(tokens(&[provider(Some(&server.url))], &Clock::frozen(NOW)));
    assert!(!tokens.ready());
    server.asked().await;
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (tokens, token) = (tokens.clone(), signer.token(&claims()));
            tokio::spawn(async move { tokens.verify(token.as_bytes()).await })
        })
        .collect();
    tokio::task::yield_now().await;
    server.let_one_go();
    for caller in callers {
        assert!(caller.await.unwrap().is_ok());
    }
    assert_eq!(server.hits(), 1);
    assert!(tokens.ready());
}

#[tokio::test]
async fn a_wait_for_keys_has_a_deadline_and_the_fetch_outlives_it() {
    let signer = Signer::new("ES256", "k");
    let server = KeyServer::holding(key_set(&[&signer])).await;
    let mut slow = provider(Some(&server.url));
    slow.http_timeout = Duration::from_millis(50);
    let tokens = tokens(&[slow], &Clock::frozen(NOW));
    let token = signer.token(&claims());
    assert!(unavailable(tokens.verify(token.as_bytes()).await));
    assert!(!tokens.ready());
}

#[tokio::test]
async fn a_provider_that_is_down_at_start_is_found_again_without_a_restart() {
    let signer = Signer::new("ES256", "k");
    let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = held.local_addr().unwrap();
    drop(held);
    let url: Url = format!("http://{address}/jwks").parse().unwrap();
    let clock = Clock::frozen(NOW);
    let up = Signer::new("ES256", "up");
    let second = KeyServer::start(key_set(&[&up])).await;
    let mut other = provider(Some(&second.url));
    (other.name, other.issuer) = ("other".into(), Some("https://other.example".into()));
    let tokens = tokens(&[provider(Some(&url)), other], &clock);
    let token = signer.token(&claims());
    assert!(unavailable(tokens.verify(token.as_bytes()).await));
    assert!(!tokens.ready());
    let status = &tokens.providers()[0];
    assert_eq!((status.keys, status.fetched_ago), (0, None));
    assert!(status.last_error.is_some());
    // The other provider does not notice.
    let of_other = up.token(&with(json!({"iss": "https://other.example"})));
    assert!(tokens.verify(of_other.as_bytes()).await.is_ok());

    let server = KeyServer::on(
        TcpListener::bind(address).await.unwrap(),
        key_set(&[&signer]),
    );
    server.let_one_go();
    // Within a second of the last attempt nobody asks.
    assert!(unavailable(tokens.verify(token.as_bytes()).await));
    assert_eq!(server.hits(), 0);
    clock.advance(Duration::from_secs(1));
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    assert_eq!(server.hits(), 1);
    assert!(tokens.ready());
    let status = &tokens.providers()[0];
    assert_eq!((status.keys, status.last_error.clone()), (1, None));
}

#[tokio::test]
async fn junk_never_replaces_good_keys() {
    let signer = Signer::new("ES256", "k");
    let elsewhere = KeyServer::start(key_set(&[&Signer::new("ES256", "evil")])).await;
    let server = KeyServer::start(key_set(&[&signer])).await;
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[provider(Some(&server.url))], &clock);
    let good = signer.token(&claims());
    assert!(tokens.verify(good.as_bytes()).await.is_ok());
    let weak = json!({"keys": [{"kty": "RSA", "n": b64([0xff; 64]), "e": "AQAB"}]});
    let moved = Answer {
        status: 302,
        location: Some(elsewhere.url.to_string()),
        ..Answer::ok("")
    };
    let broken = Answer {
        status: 500,
        ..Answer::ok(key_set(&[]))
    };
    let odd = Answer {
        status: 203,
        ..Answer::ok(key_set(&[]))
    };
    let large = format!("{}{}", key_set(&[&signer]), " ".repeat(256 * 1024));
    for (number, junk) in [
        Answer::ok("<html>maintenance</html>"),
        Answer::ok(""),
        Answer::ok("{}"),
        Answer::ok(r#"{"keys":[]}"#),
        Answer::ok(weak.to_string()),
        Answer::ok(large),
        broken,
        odd,
        moved,
    ]
    .into_iter()
    .enumerate()
    {
        server.set(junk);
        clock.advance(Duration::from_secs(10));
        let epoch = tokens.epoch(Issuer::Provider(0));
        assert_eq!(
            refusal(&tokens, &unknown("other")).await,
            Reason::UnknownKey
        );
        assert_eq!(server.hits(), number + 2);
        assert!(tokens.verify(good.as_bytes()).await.is_ok());
        assert_eq!(tokens.epoch(Issuer::Provider(0)), epoch);
        assert!(tokens.providers()[0].last_error.is_some());
    }
    assert_eq!(elsewhere.hits(), 0);
    let (_, counts) = tokens.refresh_counts().next().unwrap();
    assert_eq!(
        counts.each(),
        [("ok", 1), ("unreachable", 0), ("unusable", 9)]
    );
}

#[tokio::test]
async fn a_new_key_is_found_at_once_and_a_withdrawn_one_dies_with_the_fetch() {
    let (old, new) = (Signer::new("ES256", "old"), Signer::new("ES256", "new"));
    let server = KeyServer::start(key_set(&[&old])).await;
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[provider(Some(&server.url))], &clock);
    let (by_old, by_new) = (old.token(&claims()), new.token(&claims()));
    assert!(tokens.verify(by_old.as_bytes()).await.is_ok());
    let first = tokens.epoch(Issuer::Provider(0));

    server.set(Answer::ok(key_set(&[&new, &old])));
    assert!(tokens.verify(by_new.as_bytes()).await.is_ok());
    assert!(tokens.verify(by_old.as_bytes()).await.is_ok());
    assert_eq!(
        tokens.epoch(Issuer::Provider(0)),
        first,
        "nothing was withdrawn"
    );
    assert_eq!(server.hits(), 2);

    server.set(Answer::ok(key_set(&[&new])));
    clock.advance(Duration::from_secs(10));
    refusal(&tokens, &unknown("x")).await;
    assert_ne!(tokens.epoch(Issuer::Provider(0)), first);
    assert_eq!(refusal(&tokens, &by_old).await, Reason::UnknownKey);
    assert!(tokens.verify(by_new.as_bytes()).await.is_ok());

    // The same `kid` with other numbers is another key.
    let second = tokens.epoch(Issuer::Provider(0));
    server.set(Answer::ok(key_set(&[&Signer::new("ES256", "new")])));
    clock.advance(Duration::from_secs(10));
    refusal(&tokens, &unknown("x")).await;
    assert_ne!(tokens.epoch(Issuer::Provider(0)), second);
    assert_eq!(refusal(&tokens, &by_new).await, Reason::Signature);
}

#[tokio::test]
async fn keys_are_refreshed_in_the_background_and_nobody_waits_for_it() {
    let signer = Signer::new("ES256", "k");
    let server = KeyServer::holding(key_set(&[&signer])).await;
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[provider(Some(&server.url))], &clock);
    server.let_one_go();
    let token = signer.token(&with(json!({"exp": NOW + 100_000})));
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    server.asked().await;
    clock.advance(Duration::from_secs(601));
    // The answer is held back, yet this does not wait; the question alone is seen at the server.
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    server.asked().await;
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn keys_without_a_good_fetch_serve_until_the_stale_limit_and_not_after() {
    let signer = Signer::new("ES256", "k");
    let server = KeyServer::start(key_set(&[&signer])).await;
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[provider(Some(&server.url))], &clock);
    let token = signer.token(&with(json!({"exp": NOW + 1_000_000})));
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    let epoch = tokens.epoch(Issuer::Provider(0));
    server.set(Answer {
        status: 503,
        ..Answer::ok("")
    });
    clock.advance(Duration::from_secs(24 * 3600));
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    assert_eq!(tokens.epoch(Issuer::Provider(0)), epoch);
    clock.advance(Duration::from_millis(1));
    assert!(unavailable(tokens.verify(token.as_bytes()).await));
    assert_ne!(tokens.epoch(Issuer::Provider(0)), epoch);
    assert!(tokens.ready(), "it has had keys once");
    // And back.
    server.set(Answer::ok(key_set(&[&signer])));
    clock.advance(Duration::from_secs(1));
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
}

#[tokio::test]
async fn an_empty_set_is_good_for_a_project_that_signs_with_its_secret() {
    let server = KeyServer::start(key_set(&[])).await;
    let tokens = tokens(
        &[with_secret(provider(Some(&server.url)))],
        &Clock::frozen(NOW),
    );
    let token = Signer::new("HS256", "k").raw(r#"{"alg":"HS256"}"#, &claims().to_string());
    assert!(tokens.verify(token.as_bytes()).await.is_ok());
    assert_eq!(refusal(&tokens, &unknown("k")).await, Reason::UnknownKey);
    assert_eq!(tokens.providers()[0].last_error, None);
}

#[tokio::test]
async fn a_reload_keeps_keys_and_forgets_what_was_verified() {
    let signer = Signer::new("ES256", "k");
    let server = KeyServer::start(key_set(&[&signer])).await;
    let clock = Clock::frozen(NOW);
    let first = tokens(&[provider(Some(&server.url))], &clock);
    let token = signer.token(&claims());
    assert!(first.verify(token.as_bytes()).await.is_ok());
    // Other rules, same keys; then another lifetime of keys, while the provider is down.
    let mut strict = provider(Some(&server.url));
    strict.leeway = Duration::ZERO;
    let second = Tokens::new(
        &[strict.clone()],
        clock.clone(),
        Handle::current(),
        Some(&first),
    )
    .unwrap();
    assert!(second.verify(token.as_bytes()).await.is_ok());
    assert_ne!(
        first.epoch(Issuer::Provider(0)),
        second.epoch(Issuer::Provider(0))
    );
    assert_eq!(server.hits(), 1);
    server.set(Answer {
        status: 503,
        ..Answer::ok("")
    });
    strict.jwks_ttl = Duration::from_secs(60);
    let third = Tokens::new(
        &[strict.clone()],
        clock.clone(),
        Handle::current(),
        Some(&second),
    )
    .unwrap();
    assert!(third.verify(token.as_bytes()).await.is_ok());
    // Another address is another provider.
    strict.keys.jwks_url = Some("http://127.0.0.1:1/".parse().unwrap());
    let fourth = Tokens::new(&[strict], clock, Handle::current(), Some(&third)).unwrap();
    assert!(unavailable(fourth.verify(token.as_bytes()).await));
}

#[tokio::test]
async fn a_configuration_that_cannot_be_safe_does_not_start() {
    let start = |change: &dyn Fn(&mut Provider)| {
        let mut wrong = provider(None);
        change(&mut wrong);
        Tokens::new(&[wrong], Clock::system(), Handle::current(), None)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let address = |url: &str| start(&|p| p.keys.jwks_url = Some(url.parse().unwrap()));
    assert!(address("https://auth.example.com/jwks").is_ok());
    assert!(address("http://127.0.0.1:1/jwks").is_ok());
    assert!(address("http://[::1]:1/jwks").is_ok());
    assert!(address("http://localhost:1/jwks").is_ok());
    for (url, why) in [
        (
            "http://auth.example.com/jwks",
            "plain http is only for loopback",
        ),
        ("http://10.0.0.1/jwks", "plain http is only for loopback"),
        ("file:///etc/passwd", "neither https nor http"),
        ("https://169.254.169.254/", "a link-local address"),
        ("https://[fe80::1]/", "a link-local address"),
        ("https://[::ffff:169.254.1.1]/", "a link-local address"),
    ] {
        let error = address(url).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
    assert!(
        start(&|p| {
            p.keys.jwks_url = Some("http://auth.internal/jwks".parse().unwrap());
            p.allow_insecure_http = true;
        })
        .is_ok()
    );
    let short = start(&|p| p.keys.secret = Some(Secret::new(vec![1; 31])));
    assert!(short.unwrap_err().contains("at least 32 bytes"));
    let pem = start(&|p| p.keys.public_key = Some("-----BEGIN NONSENSE-----".into()));
    assert!(pem.unwrap_err().contains("public_key_file"));
    let missing = start(&|p| {
        p.keys.jwks_url = Some("https://auth.example.com/jwks".parse().unwrap());
        p.ca_file = Some("/nonexistent/ca.pem".into());
    });
    assert!(missing.unwrap_err().contains("ca_file"));
}
