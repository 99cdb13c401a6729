//! Streams and the sessions that they were opened with: who tells them that it goes on, and who that it is over.

use super::*;
use crate::exchange::Credential;

fn proof(identity: Identity) -> Arc<Verified> {
    Arc::new(Verified {
        identity,
        credential: Credential::Session,
        authorization: None,
        headers: Vec::new(),
        provider: 0,
        epoch: 0,
        renew_at: u64::MAX,
        kept: None,
        user_key: 1,
        weight: 0,
    })
}

fn session() -> String {
    claims()["session_id"].as_str().unwrap().to_owned()
}

async fn setting() -> (Tokens, Clock, Arc<Verified>) {
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[with_secret(provider(None))], &clock);
    let token = Signer::new("HS256", "k").token(&claims());
    let identity = tokens.verify(token.as_bytes()).await.unwrap();
    (tokens, clock, proof(identity))
}

#[tokio::test]
async fn a_logout_ends_streams_that_are_open_and_those_that_come_later() {
    let (tokens, _, proof) = setting().await;
    let early = tokens.tie(&proof);
    tokens.end_session(0, "somebody else's", NOW + 3600);
    assert_eq!(early.over(), None);
    tokens.end_session(0, &session(), NOW + 3600);
    assert_eq!(early.over(), Some(Over::Ended));
    assert_eq!(tokens.tie(&proof).over(), Some(Over::Ended));
}

#[tokio::test]
async fn a_newer_token_of_the_session_that_verifies_keeps_its_streams_open_and_no_other_does() {
    let (tokens, clock, proof) = setting().await;
    let tie = tokens.tie(&proof);
    let signer = Signer::new("HS256", "k");
    clock.advance(Duration::from_secs(3500));
    let newer = with(json!({"exp": NOW + 7200}));
    let other = with(json!({"exp": NOW + 9000, "session_id": "another"}));
    let forged = with(json!({"exp": NOW + 9000, "aud": "another"}));
    let verify = async |claims: &Value| tokens.verify_for(0, signer.token(claims).as_bytes()).await;
    verify(&newer).await.unwrap();
    verify(&other).await.unwrap();
    verify(&forged).await.unwrap_err();
    clock.advance(Duration::from_secs(3700 + GRACE - 1));
    tokens.sweep_streams();
    assert_eq!(tie.over(), None);
    clock.advance(Duration::from_secs(1));
    tokens.sweep_streams();
    assert_eq!(tie.over(), Some(Over::Expired));
}

#[tokio::test]
async fn streams_outlive_a_new_configuration() {
    let (tokens, clock, proof) = setting().await;
    let tie = tokens.tie(&proof);
    let next = Tokens::new(
        &[with_secret(provider(None))],
        clock,
        Handle::current(),
        Some(&tokens),
    )
    .unwrap();
    drop(tokens);
    next.end_session(0, &session(), NOW + 3600);
    assert_eq!(tie.over(), Some(Over::Ended));
}
