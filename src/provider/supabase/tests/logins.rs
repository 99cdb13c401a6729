//! Passwords, codes, logins elsewhere, logout.

use super::*;
use crate::provider::Purpose;

fn ada(password: &Secret<String>) -> Credentials<'_> {
    Credentials {
        address: Address::Email("ada@example.com"),
        password,
        captcha: None,
    }
}

#[tokio::test]
async fn each_login_says_what_the_reference_client_says() {
    let raw = Raw::start([Reply::Json(200, SESSION)]).await;
    let client = client(&raw, 5000);
    let (password, browser) = (secret("correct-horse-9"), browser());
    let check = |line: &str, expected: &str| {
        let request = raw.received.lock().last().unwrap().clone();
        let line = format!("POST /auth/v1{line} HTTP/1.1");
        assert_eq!(request_line(&request), line);
        assert_eq!(body(&request), expected);
        assert_eq!(header(&request, "apikey"), Some(KEY));
        let bearer = Some("Bearer sb_publishable_test");
        assert_eq!(header(&request, "authorization"), bearer);
        assert_eq!(
            header(&request, "x-supabase-api-version"),
            Some("2024-01-01")
        );
        assert_eq!(header(&request, "user-agent"), Some("Mozilla/5.0 (test)"));
    };

    client.password(&ada(&password), &browser).await.unwrap();
    check(
        "/token?grant_type=password",
        r#"{"email":"ada@example.com","password":"correct-horse-9"}"#,
    );
    let by_phone = Credentials {
        address: Address::Phone("+4930123"),
        captcha: Some("solved"),
        ..ada(&password)
    };
    client.password(&by_phone, &browser).await.unwrap();
    check(
        "/token?grant_type=password",
        r#"{"phone":"+4930123","password":"correct-horse-9","gotrue_meta_security":{"captcha_token":"solved"}}"#,
    );

    let challenge = Verifier::generate().unwrap().challenge();
    let back = Url::parse("https://app.example.com/.auth/callback?x=1").unwrap();
    let data = serde_json::Map::from_iter([("name".to_owned(), "Ada".into())]);
    let request = Request {
        data: Some(&data),
        captcha: None,
        redirect_to: Some(&back),
        challenge: Some(&challenge),
    };
    let opened = client.signup(&ada(&password), &request, &browser).await;
    assert!(matches!(opened, Ok(Opened::Session(_))));
    let challenge = challenge.as_str();
    check(
        "/signup?redirect_to=https%3A%2F%2Fapp.example.com%2F.auth%2Fcallback%3Fx%3D1",
        &format!(
            r#"{{"email":"ada@example.com","password":"correct-horse-9","data":{{"name":"Ada"}},"code_challenge":"{challenge}","code_challenge_method":"s256"}}"#
        ),
    );

    let address = Address::Email("ada@example.com");
    let bare = Request {
        captcha: Some("solved"),
        ..Request::default()
    };
    client.otp(address, false, &bare, &browser).await.unwrap();
    check(
        "/otp",
        r#"{"email":"ada@example.com","create_user":false,"gotrue_meta_security":{"captcha_token":"solved"}}"#,
    );

    let code = secret("123456");
    let proof = Proof::Code {
        kind: CodeKind::Email,
        address,
        code: &code,
    };
    let opened = client.verify(&proof, &browser).await;
    assert!(matches!(opened, Ok(Opened::Session(_))));
    check(
        "/verify",
        r#"{"email":"ada@example.com","type":"email","token":"123456"}"#,
    );
    let hash = secret("abc");
    let proof = Proof::Hash {
        kind: CodeKind::Recovery,
        hash: &hash,
    };
    client.verify(&proof, &browser).await.unwrap();
    check("/verify", r#"{"type":"recovery","token_hash":"abc"}"#);

    let verifier = Verifier::kept(secret(&"v".repeat(43))).unwrap();
    client
        .exchange(&secret("the-code"), &verifier, &browser)
        .await
        .unwrap();
    check(
        "/token?grant_type=pkce",
        &format!(
            r#"{{"auth_code":"the-code","code_verifier":"{}"}}"#,
            "v".repeat(43)
        ),
    );
}

#[tokio::test]
async fn a_success_may_leave_something_to_confirm() {
    let password = secret("correct-horse-9");
    let check = async |body: &'static str| {
        let raw = Raw::start([Reply::Json(200, body)]).await;
        let client = client(&raw, 5000);
        let request = Request::default();
        client.signup(&ada(&password), &request, &browser()).await
    };
    let user = check(r#"{"id":"u","email":"ada@example.com"}"#).await;
    assert_eq!(user, Ok(Opened::Pending));
    let msg = check(r#"{"msg":"confirm the other","code":"200"}"#).await;
    assert_eq!(msg, Ok(Opened::Pending));
    let broken = check("<html></html>").await;
    assert!(matches!(broken, Err(LoginError::Later { .. })));
}

#[tokio::test]
async fn a_login_that_may_have_been_done_is_not_repeated() {
    let password = secret("correct-horse-9");
    for reply in [Reply::Cut, Reply::Json(503, "{}"), Reply::Json(409, "{}")] {
        let raw = Raw::start([reply.clone(), Reply::Json(200, SESSION)]).await;
        let outcome = client(&raw, 5000)
            .password(&ada(&password), &browser())
            .await;
        assert!(
            matches!(outcome, Err(LoginError::Later { .. })),
            "{reply:?}"
        );
        assert_eq!(raw.calls(), 1, "{reply:?}");
    }
}

#[tokio::test]
async fn a_login_of_which_nothing_was_sent_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let api = format!("http://{address}/auth/v1").parse().unwrap();
    let provider = provider(&api, Duration::from_secs(5));
    let client = client_with(&provider, None, 10, &Clock::frozen(NOW));
    let trying = tokio::spawn(async move {
        let password = secret("correct-horse-9");
        client.password(&ada(&password), &browser()).await
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let listener = TcpListener::bind(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    serve(stream, &[Reply::Json(200, SESSION)], &Mutex::default()).await;
    assert!(trying.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_spent_budget_refuses_without_a_call_and_refreshes_go_on() {
    let raw = Raw::start([Reply::Json(200, SESSION)]).await;
    let clock = Clock::frozen(NOW);
    let provider = provider(&raw.url, Duration::from_secs(5));
    let client = client_with(&provider, None, 2, &clock);
    let (password, browser) = (secret("correct-horse-9"), browser());
    let verifier = Verifier::generate().unwrap();
    let code = secret("123456");
    client.password(&ada(&password), &browser).await.unwrap();
    client.exchange(&code, &verifier, &browser).await.unwrap();
    let spent = LoginError::RateLimited {
        retry_after: Some(Duration::from_secs(1800)),
    };
    let refused = client.password(&ada(&password), &browser).await;
    assert_eq!(refused.unwrap_err(), spent);
    let refused = client.exchange(&code, &verifier, &browser).await;
    assert_eq!(refused.unwrap_err(), spent);

    // What sends messages has its own, and what checks them.
    let address = Address::Email("ada@example.com");
    let request = Request::default();
    client.otp(address, true, &request, &browser).await.unwrap();
    client
        .signup(&ada(&password), &request, &browser)
        .await
        .unwrap();
    let refused = client.otp(address, true, &request, &browser).await;
    assert_eq!(refused.unwrap_err(), spent);
    let refused = client.signup(&ada(&password), &request, &browser).await;
    assert_eq!(refused.unwrap_err(), spent);
    let proof = Proof::Hash {
        kind: CodeKind::Email,
        hash: &code,
    };
    client.verify(&proof, &browser).await.unwrap();
    client.verify(&proof, &browser).await.unwrap();
    assert_eq!(client.verify(&proof, &browser).await.unwrap_err(), spent);

    assert_eq!(raw.calls(), 6);
    for _ in 0..5 {
        client
            .refresh(&secret("abcdefghijkl"), &browser)
            .await
            .unwrap();
    }
    let token = secret("user.access.token");
    client.logout(&token, Scope::Local, &browser).await.unwrap();
    assert_eq!(raw.calls(), 12);
    clock.advance(Duration::from_secs(1800));
    assert!(client.budget.take(Purpose::Login).is_ok());
}

#[tokio::test]
async fn a_logout_is_the_users_own_call() {
    let raw = Raw::start([Reply::Json(204, "")]).await;
    let token = secret("user.access.token");
    let client = client(&raw, 5000);
    client
        .logout(&token, Scope::Others, &browser())
        .await
        .unwrap();
    let request = raw.only();
    let line = "POST /auth/v1/logout?scope=others HTTP/1.1";
    assert_eq!(request_line(&request), line);
    let bearer = Some("Bearer user.access.token");
    assert_eq!(header(&request, "authorization"), bearer);
    assert_eq!(header(&request, "apikey"), Some(KEY));
    assert_eq!(body(&request), "");
}

#[tokio::test]
async fn a_session_that_is_gone_is_logged_out() {
    let check = async |status, json| {
        let raw = Raw::start([Reply::Json(status, json)]).await;
        let token = secret("user.access.token");
        let client = client(&raw, 2000);
        client.logout(&token, Scope::Local, &browser()).await
    };
    assert_eq!(check(403, r#"{"code":"session_not_found"}"#).await, Ok(()));
    assert_eq!(check(403, r#"{"code":"user_not_found"}"#).await, Ok(()));
    let refused = check(403, r#"{"code":"bad_jwt"}"#).await;
    assert!(matches!(refused, Err(LogoutError::TokenRefused { .. })));
    let down = check(503, "").await;
    assert!(matches!(down, Err(LogoutError::Later { .. })));
    let raw = Raw::start([Reply::Json(204, "")]).await;
    let odd = secret("line\nfeed");
    let refused = client(&raw, 2000)
        .logout(&odd, Scope::Local, &browser())
        .await;
    assert!(matches!(refused, Err(LogoutError::TokenRefused { .. })));
    assert_eq!(raw.calls(), 0);
}

#[tokio::test]
async fn browsers_are_sent_to_the_public_address() {
    let api = Url::parse("http://127.0.0.1:1/auth/v1").unwrap();
    let public = Url::parse("https://xyz.supabase.co/auth/v1/").unwrap();
    let clock = Clock::frozen(NOW);
    let setup = Setup {
        public_api: Some(&public),
        secret_key: None,
        budget: Arc::new(ProviderBudget::standard(&clock)),
        clock,
        control: Handle::current(),
    };
    let provider = provider(&api, Duration::from_secs(5));
    let client = Supabase::new(&provider, setup).unwrap().unwrap();
    let back = Url::parse("https://app.example.com/.auth/callback").unwrap();
    let verifier = Verifier::kept(secret("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")).unwrap();
    let challenge = verifier.challenge();
    let url = client.authorize("git&hub", &back, Some("repo user"), &challenge);
    let expected = "https://xyz.supabase.co/auth/v1/authorize?provider=git%26hub&redirect_to=https%3A%2F%2Fapp.example.com%2F.auth%2Fcallback&scopes=repo+user&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=s256";
    assert_eq!(url.as_str(), expected);
}

#[tokio::test]
async fn a_key_that_no_header_can_have_is_an_error_of_the_setup() {
    let api = Url::parse("https://xyz.supabase.co/auth/v1").unwrap();
    let clock = Clock::frozen(NOW);
    let key = secret("sb_secret_\n");
    let setup = Setup {
        public_api: None,
        secret_key: Some(&key),
        budget: Arc::new(ProviderBudget::standard(&clock)),
        clock,
        control: Handle::current(),
    };
    let provider = provider(&api, Duration::from_secs(5));
    let error = Supabase::new(&provider, setup).unwrap_err();
    assert!(!error.to_string().contains("sb_secret"), "{error}");
}
