//! Sessions without a password.

use super::*;

const ADA: &str = "ada@example.com";
/// RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

impl World {
    async fn send_code(&self, email: &str) -> Mail {
        let answer = self.post("/otp", json!({"email": email})).await;
        assert_eq!((answer.status, answer.body), (200, json!({})));
        self.provider.mail(email).unwrap()
    }

    async fn authorize(&self, query: &str) -> Answer {
        let uri = format!("/auth/v1/authorize?{query}");
        let browser = Request::builder().method(Method::GET).uri(uri);
        self.send(browser.header("x-supabase-api-version", "2024-01-01"), "")
            .await
    }

    /// The `code` that a login elsewhere comes back with.
    async fn code(&self) -> String {
        let query = format!(
            "provider=github&redirect_to=http%3A%2F%2Fapp.test%2Fcallback%3Fx%3D1&code_challenge={CHALLENGE}&code_challenge_method=s256"
        );
        let answer = self.authorize(&query).await;
        assert_eq!(answer.status, 302, "{}", answer.body);
        let location = answer.headers["location"].to_str().unwrap();
        let code = location.strip_prefix("http://app.test/callback?x=1&code=");
        code.unwrap().to_owned()
    }

    async fn exchange(&self, code: &str, verifier: &str) -> Answer {
        let body = json!({"auth_code": code, "code_verifier": verifier});
        self.post("/token?grant_type=pkce", body).await
    }
}

#[tokio::test]
async fn a_code_opens_one_session_by_hand_or_by_link() {
    let world = World::new();
    let mail = world.send_code(ADA).await;
    let typed = json!({"type": "email", "email": ADA, "token": mail.code});
    let answer = world.post("/verify", typed.clone()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["user"]["email"], ADA);
    let refreshed = world.refresh(&answer.body["refresh_token"]).await;
    assert_eq!(refreshed.status, 200);
    let again = world.post("/verify", typed).await;
    again.refused(403, "otp_expired");

    let mail = world.send_code(ADA).await;
    let link = json!({"type": "magiclink", "token_hash": mail.hash});
    assert_eq!(world.post("/verify", link.clone()).await.status, 200);
    world
        .post("/verify", link)
        .await
        .refused(403, "otp_expired");
}

#[tokio::test]
async fn a_code_that_is_old_replaced_or_guessed_at_opens_nothing() {
    let world = World::new();
    let check = async |mail: &Mail| {
        let typed = json!({"type": "email", "email": ADA, "token": mail.code});
        world.post("/verify", typed).await
    };
    let mail = world.send_code(ADA).await;
    world.clock.advance(Duration::from_secs(3601));
    check(&mail).await.refused(403, "otp_expired");

    let first = world.send_code(ADA).await;
    let second = world.send_code(ADA).await;
    let link = json!({"type": "email", "token_hash": first.hash});
    world
        .post("/verify", link)
        .await
        .refused(403, "otp_expired");
    for _ in 0..10 {
        let wrong = json!({"type": "email", "email": ADA, "token": "none"});
        world
            .post("/verify", wrong)
            .await
            .refused(403, "otp_expired");
    }
    check(&second).await.refused(403, "otp_expired");

    let mail = world.send_code(ADA).await;
    let other = json!({"type": "recovery", "token_hash": mail.hash});
    world
        .post("/verify", other)
        .await
        .refused(403, "otp_expired");
    assert!(world.provider.ban(ADA, true));
    check(&mail).await.refused(403, "user_banned");
}

#[tokio::test]
async fn a_code_signs_up_only_who_may() {
    let world = World::new();
    let new = json!({"email": "new@example.com", "create_user": false});
    world.post("/otp", new).await.refused(422, "otp_disabled");
    let mail = world.send_code("new@example.com").await;
    let typed = json!({"type": "signup", "email": "new@example.com", "token": mail.code});
    assert_eq!(world.post("/verify", typed).await.status, 200);
    let empty = json!({"email": "new@example.com", "password": ""});
    let answer = world.post("/token?grant_type=password", empty).await;
    answer.refused(400, "invalid_credentials");

    for body in [json!({}), json!({"email": "no address"})] {
        world
            .post("/otp", body)
            .await
            .refused(400, "validation_failed");
    }
    for body in [
        json!({}),
        json!({"type": "email"}),
        json!({"type": "email", "token": "1"}),
        json!({"type": "email", "token_hash": "1", "email": ADA}),
    ] {
        let answer = world.post("/verify", body).await;
        answer.refused(400, "validation_failed");
    }
}

#[tokio::test]
async fn a_login_elsewhere_brings_a_code_for_whoever_has_the_verifier() {
    let world = World::new();
    world.provider.log_in_elsewhere_as(Some(ADA));
    let code = world.code().await;
    let other = "a".repeat(43);
    let answer = world.exchange(&code, &other).await;
    answer.refused(400, "bad_code_verifier");
    let answer = world.exchange(&code, VERIFIER).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.body["user"]["email"], ADA);
    let answer = world.exchange(&code, VERIFIER).await;
    answer.refused(404, "flow_state_not_found");

    let code = world.code().await;
    world.clock.advance(Duration::from_secs(301));
    let answer = world.exchange(&code, VERIFIER).await;
    answer.refused(422, "flow_state_expired");
    assert_eq!(world.provider.count("token.pkce"), 4);
}

#[tokio::test]
async fn a_login_elsewhere_that_is_wrong_or_declined_brings_none() {
    let world = World::new();
    let back = "redirect_to=http%3A%2F%2Fapp.test%2Fcallback";
    let good = format!("provider=x&{back}&code_challenge={CHALLENGE}&code_challenge_method=S256");
    // Nobody was named: there is no such provider.
    let answer = world.authorize(&good).await;
    answer.refused(400, "validation_failed");
    world
        .provider
        .log_in_elsewhere_as(Some("nobody@example.com"));
    let declined = world.authorize(&good).await;
    assert_eq!(declined.status, 302);
    let location = declined.headers["location"].to_str().unwrap();
    assert!(location.starts_with("http://app.test/callback?error=access_denied&"));
    for query in [
        format!("{back}&code_challenge={CHALLENGE}&code_challenge_method=s256"),
        format!("provider=x&code_challenge={CHALLENGE}&code_challenge_method=s256"),
        format!("provider=x&{back}&code_challenge=short&code_challenge_method=s256"),
        format!("provider=x&{back}&code_challenge={CHALLENGE}&code_challenge_method=md5"),
        format!("provider=x&{back}&code_challenge={CHALLENGE}"),
    ] {
        let answer = world.authorize(&query).await;
        answer.refused(400, "validation_failed");
    }
}
