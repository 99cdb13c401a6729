//! The cache of verified credentials: it must never know more than a fresh verification would.

use super::*;
use crate::exchange::{Credential, Verified};
use verified::{Cache, Issuer, Slot};

const BEARER: Slot = Slot {
    credential: Credential::Bearer,
    index: 0,
};

fn verified(tokens: &Tokens, identity: Identity, issuer: Issuer) -> Arc<Verified> {
    Arc::new(Verified {
        identity,
        credential: Credential::Bearer,
        authorization: None,
        headers: Vec::new(),
        provider: 0,
        epoch: tokens.epoch(issuer),
        renew_at: u64::MAX,
        kept: None,
        user_key: 1,
        weight: 1024,
    })
}

async fn setting() -> (Tokens, Clock, String, Arc<Verified>) {
    let clock = Clock::frozen(NOW);
    let tokens = tokens(&[with_secret(provider(None))], &clock);
    let token = Signer::new("HS256", "k").token(&claims());
    let identity = tokens.verify(token.as_bytes()).await.unwrap();
    let entry = verified(&tokens, identity, Issuer::Provider(0));
    (tokens, clock, token, entry)
}

#[tokio::test]
async fn only_the_very_same_bytes_in_the_same_place_are_found() {
    let (tokens, _, token, entry) = setting().await;
    let cache = Cache::new(verified::DEFAULT_BYTES);
    let bytes = token.as_bytes();
    assert!(cache.get(&tokens, BEARER, bytes).is_none());
    cache.put(&tokens, BEARER, Issuer::Provider(0), bytes, entry.clone());
    assert!(Arc::ptr_eq(
        &cache.get(&tokens, BEARER, bytes).unwrap(),
        &entry
    ));
    let session = Slot {
        credential: Credential::Session,
        index: 0,
    };
    let second = Slot { index: 1, ..BEARER };
    let mut other = bytes.to_vec();
    *other.last_mut().unwrap() ^= 1;
    assert!(cache.get(&tokens, session, bytes).is_none());
    assert!(cache.get(&tokens, second, bytes).is_none());
    assert!(cache.get(&tokens, BEARER, &other).is_none());
    assert!(cache.get(&tokens, BEARER, &bytes[1..]).is_none());
    assert_eq!((cache.hits(), cache.misses()), (1, 5));
}

#[tokio::test]
async fn an_entry_ends_with_the_token_without_leeway() {
    let (tokens, clock, token, entry) = setting().await;
    let cache = Cache::new(verified::DEFAULT_BYTES);
    cache.put(
        &tokens,
        BEARER,
        Issuer::Provider(0),
        token.as_bytes(),
        entry.clone(),
    );
    clock.advance(Duration::from_secs(3599));
    assert!(cache.get(&tokens, BEARER, token.as_bytes()).is_some());
    clock.advance(Duration::from_secs(1));
    assert!(cache.get(&tokens, BEARER, token.as_bytes()).is_none());
    assert!(cache.is_empty());
    cache.put(
        &tokens,
        BEARER,
        Issuer::Provider(0),
        token.as_bytes(),
        entry,
    );
    assert!(cache.is_empty(), "what is over is not even kept");
}

#[tokio::test]
async fn an_entry_goes_with_its_key_its_session_and_its_rules() {
    let (tokens, clock, token, entry) = setting().await;
    let cache = Cache::new(verified::DEFAULT_BYTES);
    let bytes = token.as_bytes();
    let keep = |tokens: &Tokens| {
        let entry = verified(tokens, entry.identity.clone(), Issuer::Provider(0));
        cache.put(tokens, BEARER, Issuer::Provider(0), bytes, entry);
    };
    // A key was withdrawn, or somebody says that all must be looked at again.
    keep(&tokens);
    tokens.bump(0);
    assert!(cache.get(&tokens, BEARER, bytes).is_none());
    // It was withdrawn while the token was being verified.
    cache.put(&tokens, BEARER, Issuer::Provider(0), bytes, entry.clone());
    assert!(cache.is_empty());
    // A reload: nothing of the old rules counts, also when it comes late.
    keep(&tokens);
    let next = Tokens::new(
        &[with_secret(provider(None))],
        clock,
        Handle::current(),
        Some(&tokens),
    )
    .unwrap();
    assert!(cache.get(&next, BEARER, bytes).is_none());
    keep(&tokens);
    assert!(cache.get(&next, BEARER, bytes).is_none());
    // A logout ends that session's entries and no others.
    keep(&next);
    let version = next.ended_version();
    next.end_session(0, "somebody else's", NOW + 3600);
    assert_ne!(next.ended_version(), version);
    assert!(cache.get(&next, BEARER, bytes).is_some());
    next.end_session(0, entry.identity.session_id.as_deref().unwrap(), NOW + 3600);
    assert!(cache.get(&next, BEARER, bytes).is_none());
}

#[tokio::test]
async fn the_cache_never_outgrows_its_bytes() {
    let (tokens, _, _, entry) = setting().await;
    let bound = 256 * 1024;
    let cache = Cache::new(bound);
    for number in 0..5_000_u32 {
        cache.put(
            &tokens,
            BEARER,
            Issuer::Provider(0),
            &number.to_be_bytes().repeat(50),
            entry.clone(),
        );
        assert!(cache.bytes() <= bound);
    }
    assert!(cache.len() > 20);
}
