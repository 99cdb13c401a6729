//! One refresh and what may become of it.

use super::*;

const REFUSED: Reply = Reply::Json(
    400,
    r#"{"code":"refresh_token_not_found","message":"Invalid Refresh Token"}"#,
);
const OUTAGE: Reply = Reply::Json(503, r#"{"message":"upstream connect error"}"#);

/// A refresh at a provider that replies so: what it comes to, and how many requests there were.
async fn check(replies: &[Reply], timeout_ms: u64, expected: &str, calls: usize) {
    let raw = Raw::start(replies).await;
    let client = client(&raw, timeout_ms);
    let outcome = client.refresh(&secret("abcdefghijkl"), &browser()).await;
    assert_eq!(told(outcome), expected, "{replies:?}");
    assert_eq!(raw.calls(), calls, "{replies:?}");
}

#[tokio::test]
async fn a_refresh_is_sent_as_the_reference_client_sends_it() {
    let raw = Raw::start([Reply::Json(200, SESSION)]).await;
    let grant = client(&raw, 5000)
        .refresh(&secret("abcdefghijkl"), &browser())
        .await
        .unwrap();
    assert_eq!(grant.text.expose(), SESSION);
    assert_eq!(grant.refresh_token.expose(), "secret-next00");
    assert_eq!(grant.expires_at, NOW + 3600);
    let request = raw.only();
    let line = "POST /auth/v1/token?grant_type=refresh_token HTTP/1.1";
    assert_eq!(request_line(&request), line);
    for (name, value) in [
        ("apikey", Some(KEY)),
        ("authorization", Some("Bearer sb_publishable_test")),
        ("content-type", Some("application/json;charset=UTF-8")),
        ("x-supabase-api-version", Some("2024-01-01")),
        ("user-agent", Some("Mozilla/5.0 (test)")),
        ("x-forwarded-for", Some("192.0.2.7")),
        ("sb-forwarded-for", None),
        ("cookie", None),
    ] {
        assert_eq!(header(&request, name), value, "{name}");
    }
    assert_eq!(body(&request), r#"{"refresh_token":"abcdefghijkl"}"#);
}

#[tokio::test]
async fn with_a_secret_key_the_browser_is_told_by_address_and_not_by_name() {
    for (key, forwarded) in [
        ("sb_secret_abc", Some("192.0.2.7")),
        ("eyJ.service.role", None),
    ] {
        let raw = Raw::start([Reply::Json(200, SESSION)]).await;
        let provider = provider(&raw.url, Duration::from_secs(5));
        let client = client_with(&provider, Some(key), 10, &Clock::frozen(NOW));
        client
            .refresh(&secret("abcdefghijkl"), &browser())
            .await
            .unwrap();
        let request = raw.only();
        assert_eq!(header(&request, "apikey"), Some(key));
        let bearer = format!("Bearer {key}");
        assert_eq!(header(&request, "authorization"), Some(&*bearer));
        assert_eq!(header(&request, "sb-forwarded-for"), forwarded);
        let agent = header(&request, "user-agent").unwrap();
        assert!(agent.starts_with("tollhouse/"), "{agent}");
    }
}

#[tokio::test]
async fn without_a_key_none_is_sent() {
    let raw = Raw::start([Reply::Json(200, SESSION)]).await;
    let mut provider = provider(&raw.url, Duration::from_secs(5));
    if let ProviderKind::Supabase {
        publishable_key, ..
    } = &mut provider.kind
    {
        *publishable_key = None;
    }
    let client = client_with(&provider, None, 10, &Clock::frozen(NOW));
    let nobody = Browser::default();
    client
        .refresh(&secret("abcdefghijkl"), &nobody)
        .await
        .unwrap();
    let request = raw.only();
    for name in ["apikey", "authorization", "x-forwarded-for"] {
        assert_eq!(header(&request, name), None, "{name}");
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_asked_once() {
    check(&[REFUSED], 5000, "over refresh_token_not_found", 1).await;
    let client = Reply::Json(400, r#"{"error":"invalid_client"}"#);
    check(&[client], 5000, "not ours", 1).await;
    let key = Reply::Json(401, r#"{"message":"Invalid API key"}"#);
    check(&[key], 5000, "misconfigured", 1).await;
}

#[tokio::test]
async fn what_may_pass_is_tried_again_within_the_deadline() {
    let session = Reply::Json(200, SESSION);
    let busy = Reply::Json(409, r#"{"code":"conflict","message":"x"}"#);
    check(&[OUTAGE, session.clone()], 5000, "session", 2).await;
    check(&[busy, session.clone()], 5000, "session", 2).await;
    check(&[Reply::Cut, session.clone()], 5000, "session", 2).await;
    let half = format!("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{SESSION}");
    check(&[Reply::Bytes(half), session], 5000, "session", 2).await;
    check(&[OUTAGE, REFUSED], 5000, "over refresh_token_not_found", 2).await;
}

#[tokio::test]
async fn attempts_are_bounded_by_number_and_by_time() {
    check(&[OUTAGE], 20_000, "later", 5).await;
    // 200 ms fit, 400 ms more do not.
    check(&[OUTAGE], 590, "later", 2).await;
    check(&[OUTAGE], 100, "later", 1).await;
}

#[tokio::test]
async fn a_provider_that_hangs_is_left_at_the_deadline() {
    let begun = std::time::Instant::now();
    check(&[Reply::Hang], 300, "later", 1).await;
    check(&[OUTAGE, Reply::Hang], 1000, "later", 2).await;
    let trickle = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_owned();
    check(&[Reply::Bytes(trickle)], 100, "later", 1).await;
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn nobody_at_the_address_is_an_outage() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/auth/v1", listener.local_addr().unwrap());
    drop(listener);
    let provider = provider(&url.parse().unwrap(), Duration::from_millis(500));
    let client = client_with(&provider, None, 10, &Clock::frozen(NOW));
    let outcome = client.refresh(&secret("abcdefghijkl"), &browser()).await;
    let Err(RefreshError::Later { why, .. }) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(!why.contains("127.0.0.1"), "{why}");
}

#[tokio::test]
async fn a_limit_is_not_pushed_against() {
    let limited = "HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    check(&[Reply::Bytes(limited.into())], 5000, "later 7", 1).await;
    let down = limited.replace("429", "503");
    check(&[Reply::Bytes(down)], 5000, "later 7", 1).await;
    let bare = Reply::Json(429, r#"{"code":"over_request_rate_limit","message":"x"}"#);
    check(&[bare], 5000, "later", 1).await;
}

#[tokio::test]
async fn a_success_without_a_session_is_an_outage() {
    for body in [
        r#"{"token_type":"bearer"}"#,
        r#"{"access_token":"a","expires_in":60}"#,
        "<html>welcome to the hotel's network</html>",
        "",
    ] {
        check(&[Reply::Json(200, body)], 5000, "later", 1).await;
    }
    check(&[Reply::Json(204, "")], 5000, "later", 1).await;
}

#[tokio::test]
async fn a_huge_answer_is_not_read_to_its_end() {
    for status in [200, 400, 503] {
        let huge = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\n\r\n{{\"a\":\"{}",
            "a".repeat(2 * call::BODY_BYTES_MAX)
        );
        check(&[Reply::Bytes(huge)], 5000, "later", 1).await;
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Raw::start([Reply::Json(200, SESSION)]).await;
    for status in [301, 302, 307, 308] {
        let location = format!(
            "HTTP/1.1 {status} X\r\nlocation: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            elsewhere.url
        );
        check(&[Reply::Bytes(location)], 5000, "misconfigured", 1).await;
    }
    assert_eq!(elsewhere.calls(), 0);
}
