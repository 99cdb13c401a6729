//! The protocol as a client sees it.

mod codes;

use super::*;
use crate::base::clock::Clock;
use http::Method;
use http_body_util::{BodyExt, Full};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::json;

const ISSUER: &str = "http://127.0.0.1:9999/auth/v1";
const KEY: &str = "sb_publishable_test";
const PASSWORD: &str = "correct-horse-9";

struct World {
    provider: Provider,
    clock: Clock,
}

struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl World {
    fn new() -> Self {
        let clock = Clock::frozen(1_800_000_000);
        let mut settings = Settings::new(ISSUER, KEY);
        settings.clock = clock.clone();
        let provider = Provider::new(settings).unwrap();
        provider
            .add_user("ada@example.com", PASSWORD, Some("user"))
            .unwrap();
        Self { provider, clock }
    }

    async fn send(&self, request: http::request::Builder, body: &str) -> Answer {
        let request = request.body(Full::new(bytes::Bytes::from(body.to_owned())));
        let response = self.provider.handle(request.unwrap()).await;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        let request = request(Method::POST, path).header("x-supabase-api-version", "2024-01-01");
        self.send(request, &body.to_string()).await
    }

    async fn with_token(&self, method: Method, path: &str, token: &str) -> Answer {
        let request = request(method, path)
            .header("x-supabase-api-version", "2024-01-01")
            .header("authorization", format!("Bearer {token}"));
        self.send(request, "").await
    }

    async fn log_in(&self) -> Value {
        let credentials = json!({"email": "Ada@example.com", "password": PASSWORD});
        let answer = self.post("/token?grant_type=password", credentials).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    async fn refresh(&self, token: &Value) -> Answer {
        let body = json!({"refresh_token": token});
        self.post("/token?grant_type=refresh_token", body).await
    }
}

fn request(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("/auth/v1{path}"))
        .header("apikey", KEY)
}

impl Answer {
    fn refused(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], code);
        assert_eq!(self.headers["x-sb-error-code"], code);
    }
}

#[tokio::test]
async fn a_login_yields_a_session_whose_token_verifies_with_the_published_keys() {
    let world = World::new();
    let session = world.log_in().await;
    assert_eq!(session["token_type"], "bearer");
    assert_eq!(session["expires_in"], 3600);
    assert_eq!(session["expires_at"], 1_800_003_600);
    let jwks = world
        .send(request(Method::GET, "/.well-known/jwks.json"), "")
        .await;
    assert_eq!(jwks.headers["cache-control"], "public, max-age=600");
    let set: JwkSet = serde_json::from_value(jwks.body).unwrap();
    let token = session["access_token"].as_str().unwrap();
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(set.find(&kid).unwrap()).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.set_issuer(&[ISSUER]);
    rules.set_audience(&["authenticated"]);
    rules.validate_exp = false; // the clock is frozen
    let claims = jsonwebtoken::decode::<Value>(token, &key, &rules)
        .unwrap()
        .claims;
    assert_eq!(claims["sub"], session["user"]["id"]);
    assert_eq!(claims["exp"], 1_800_003_600);
    assert_eq!(claims["iat"], 1_800_000_000);
    assert_eq!(claims["role"], "authenticated");
    assert_eq!(claims["aal"], "aal1");
    assert_eq!(claims["amr"][0]["method"], "password");
    assert_eq!(claims["email"], "ada@example.com");
    assert_eq!(claims["phone"], "");
    assert_eq!(claims["app_metadata"]["role"], "user");
    assert_eq!(claims["app_metadata"]["providers"], json!(["email"]));
    assert_eq!(claims["is_anonymous"], false);
    assert!(claims["session_id"].is_string());
}

#[tokio::test]
async fn the_session_text_has_the_real_servers_order() {
    let world = World::new();
    let text = world.provider.sign_in("ada@example.com").unwrap();
    let at = |name: &str| text.find(&format!("\"{name}\":")).unwrap();
    let order = [
        "access_token",
        "token_type",
        "expires_in",
        "expires_at",
        "refresh_token",
        "user",
    ];
    assert!(order.map(at).is_sorted(), "{text}");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_not_told_apart() {
    let world = World::new();
    let wrong = json!({"email": "ada@example.com", "password": "nope"});
    let unknown = json!({"email": "eve@example.com", "password": PASSWORD});
    let path = "/token?grant_type=password";
    let (wrong, unknown) = (
        world.post(path, wrong).await,
        world.post(path, unknown).await,
    );
    wrong.refused(400, "invalid_credentials");
    unknown.refused(400, "invalid_credentials");
    assert_eq!(wrong.body, unknown.body);
}

#[tokio::test]
async fn malformed_requests_have_their_codes() {
    let world = World::new();
    let check = async |path: &str, body: Value, status: u16, code: &str| {
        world.post(path, body).await.refused(status, code);
    };
    check("/token?grant_type=password", json!([]), 400, "bad_json").await;
    check(
        "/token?grant_type=password",
        json!({}),
        400,
        "validation_failed",
    )
    .await;
    let phone = json!({"phone": "123", "password": "x"});
    check(
        "/token?grant_type=password",
        phone,
        422,
        "phone_provider_disabled",
    )
    .await;
    check(
        "/token?grant_type=magic",
        json!({}),
        400,
        "invalid_credentials",
    )
    .await;
    check(
        "/token?grant_type=pkce",
        json!({}),
        400,
        "validation_failed",
    )
    .await;
    check(
        "/token?grant_type=pkce",
        json!({"auth_code": "x", "code_verifier": "y"}),
        404,
        "flow_state_not_found",
    )
    .await;
    check(
        "/token?grant_type=refresh_token",
        json!({}),
        400,
        "validation_failed",
    )
    .await;
    check("/signup", json!({}), 422, "anonymous_provider_disabled").await;
    let huge = json!({"email": "x".repeat(1024 * 1024)});
    check("/signup", huge, 413, "request_entity_too_large").await;
}

#[tokio::test]
async fn refresh_rotates_and_reuse_ends_the_family() {
    let world = World::new();
    let first = world.log_in().await;
    let second = world.refresh(&first["refresh_token"]).await;
    assert_eq!(second.status, 200);
    assert_ne!(second.body["refresh_token"], first["refresh_token"]);
    assert_eq!(second.body["user"]["id"], first["user"]["id"]);
    // Two that race get the same refresh token.
    let race = world.refresh(&first["refresh_token"]).await;
    assert_eq!(race.body["refresh_token"], second.body["refresh_token"]);
    let third = world.refresh(&second.body["refresh_token"]).await;
    world.clock.advance(Duration::from_secs(11));
    let reuse = world.refresh(&first["refresh_token"]).await;
    reuse.refused(400, "refresh_token_already_used");
    let after = world.refresh(&third.body["refresh_token"]).await;
    after.refused(400, "refresh_token_already_used");
    let unknown = world.refresh(&json!("aaaaaaaaaaaa")).await;
    unknown.refused(400, "refresh_token_not_found");
    world
        .refresh(&json!("short"))
        .await
        .refused(400, "validation_failed");
    assert_eq!(world.provider.count("token.refresh"), 7);
}

#[tokio::test]
async fn a_refreshed_token_knows_a_changed_role() {
    let world = World::new();
    let first = world.log_in().await;
    assert!(world.provider.set_role("ada@example.com", Some("admin")));
    let second = world.refresh(&first["refresh_token"]).await;
    assert_eq!(second.body["user"]["app_metadata"]["role"], "admin");
    assert!(world.provider.ban("ada@example.com", true));
    let third = world.refresh(&second.body["refresh_token"]).await;
    third.refused(400, "user_banned");
}

#[tokio::test]
async fn user_wants_a_token_that_is_ours_young_and_of_a_living_session() {
    let world = World::new();
    let session = world.log_in().await;
    let token = session["access_token"].as_str().unwrap();
    let user = world.with_token(Method::GET, "/user", token).await;
    assert_eq!(user.body["email"], "ada@example.com");
    let bare = request(Method::GET, "/user").header("x-supabase-api-version", "2024-01-01");
    world.send(bare, "").await.refused(401, "no_authorization");
    let garbage = world.with_token(Method::GET, "/user", "a.b.c").await;
    garbage.refused(403, "bad_jwt");
    assert!(world.provider.end_sessions("ada@example.com"));
    let gone = world.with_token(Method::GET, "/user", token).await;
    gone.refused(403, "session_not_found");
    world.clock.advance(Duration::from_secs(3600));
    let old = world.with_token(Method::GET, "/user", token).await;
    old.refused(403, "bad_jwt");
}

#[tokio::test]
async fn logout_takes_its_scope_and_refuses_others() {
    let world = World::new();
    let (here, there) = (world.log_in().await, world.log_in().await);
    let token = here["access_token"].as_str().unwrap();
    let odd = world
        .with_token(Method::POST, "/logout?scope=all", token)
        .await;
    odd.refused(400, "validation_failed");
    let others = world
        .with_token(Method::POST, "/logout?scope=others", token)
        .await;
    assert_eq!(others.status, 204);
    let there = world.refresh(&there["refresh_token"]).await;
    there.refused(400, "refresh_token_not_found");
    let local = world
        .with_token(Method::POST, "/logout?scope=local", token)
        .await;
    assert_eq!(local.status, 204);
    let again = world.with_token(Method::POST, "/logout", token).await;
    again.refused(403, "session_not_found");
    assert_eq!(world.provider.session_count(), 0);
}

#[tokio::test]
async fn sign_up_confirms_at_once_and_an_address_is_taken_once() {
    let world = World::new();
    let new = json!({"email": "eve@example.com", "password": PASSWORD, "data": {"role": "admin"}});
    let answer = world.post("/signup", new.clone()).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body["access_token"].is_string());
    // What a user says of itself never becomes what the operator says of it.
    assert!(answer.body["user"]["app_metadata"].get("role").is_none());
    world
        .post("/signup", new)
        .await
        .refused(422, "user_already_exists");
    let weak = json!({"email": "mallory@example.com", "password": "x"});
    let weak = world.post("/signup", weak).await;
    weak.refused(422, "weak_password");
    assert_eq!(weak.body["weak_password"]["reasons"], json!(["length"]));
}

#[tokio::test]
async fn the_api_key_is_wanted_everywhere_but_at_the_keys() {
    let world = World::new();
    let check = async |key: Option<&str>, path: &str, status: u16| {
        let mut request = Request::builder().uri(format!("/auth/v1{path}"));
        if let Some(key) = key {
            request = request.header("apikey", key);
        }
        let answer = world.send(request, "").await;
        assert_eq!(answer.status, status, "{key:?} {path}");
        if status == 401 {
            assert!(answer.body["message"].is_string());
            assert!(!answer.headers.contains_key("x-sb-error-code"));
        }
    };
    check(None, "/health", 401).await;
    check(Some("wrong"), "/health", 401).await;
    check(Some(KEY), "/health", 200).await;
    check(Some(KEY), "/settings", 200).await;
    check(Some(KEY), "/nothing", 404).await;
    check(None, "/.well-known/openid-configuration", 401).await;
    check(Some(KEY), "/.well-known/openid-configuration", 200).await;
    check(None, "/.well-known/jwks.json", 200).await;
}

#[tokio::test]
async fn planned_troubles_happen_and_a_lost_answer_has_done_its_work() {
    let world = World::new();
    let session = world.log_in().await;
    let token = &session["refresh_token"];
    let provider = &world.provider;
    let over = Fault::Code(StatusCode::TOO_MANY_REQUESTS, "over_request_rate_limit");
    provider.fail_next("token.refresh", &over, 1);
    let limited = world.refresh(token).await;
    limited.refused(429, "over_request_rate_limit");
    provider.fail_next("token.refresh", &Fault::Status(StatusCode::BAD_GATEWAY), 1);
    assert_eq!(world.refresh(token).await.status, 502);
    provider.fail_next("token.refresh", &Fault::LoseAnswer, 1);
    assert_eq!(world.refresh(token).await.status, 502);
    // The client never saw the new token; its old one is the parent of the active one.
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.refresh(token).await.status, 200);
}

#[tokio::test]
async fn nothing_printed_for_debugging_holds_a_secret() {
    let world = World::new();
    let session = world.log_in().await;
    let shown = format!("{:?}", world.provider);
    for secret in [
        PASSWORD,
        session["refresh_token"].as_str().unwrap(),
        "argon2",
    ] {
        assert!(!shown.contains(secret));
    }
}
