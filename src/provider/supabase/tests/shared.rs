//! Refreshes that many wait for, and what is seen of them.

use super::*;
use crate::provider::Refreshes;
use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;

/// A user for each token.
fn of(token: &Secret<String>) -> u128 {
    let bytes = token.expose().bytes();
    bytes.fold(0, |sum: u128, byte| {
        sum.wrapping_mul(257) + u128::from(byte)
    })
}

struct Room {
    raw: Raw,
    client: Arc<Supabase>,
    refreshes: Arc<Refreshes>,
    clock: Clock,
}

impl Room {
    async fn new(replies: impl Into<Vec<Reply>>) -> Self {
        let raw = Raw::start(replies).await;
        let clock = Clock::frozen(NOW);
        Self {
            client: client_with(
                &provider(&raw.url, Duration::from_secs(2)),
                None,
                10,
                &clock,
            ),
            refreshes: Arc::new(Refreshes::new(clock.clone(), Handle::current()).unwrap()),
            raw,
            clock,
        }
    }

    async fn refresh(&self, token: &str) -> String {
        let token = secret(token);
        let outcome = self
            .refreshes
            .refresh(&self.client, &token, of(&token), &browser())
            .await;
        told(outcome.map(|grant| (*grant).clone()))
    }

    async fn refresh_of(&self, user: u128, token: &str) -> String {
        let token = secret(token);
        let outcome = self
            .refreshes
            .refresh(&self.client, &token, user, &browser())
            .await;
        told(outcome.map(|grant| (*grant).clone()))
    }

    fn advance(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }
}

#[tokio::test]
async fn fifty_who_bring_one_token_make_one_call() {
    let room = Arc::new(Room::new([Reply::Json(200, SESSION)]).await);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let room = room.clone();
            tokio::spawn(async move { room.refresh("abcdefghijkl").await })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.unwrap(), "session");
    }
    assert_eq!(room.raw.calls(), 1);
    assert_eq!(room.refresh("abcdefghijkm").await, "session");
    assert_eq!(room.raw.calls(), 2);
}

#[tokio::test]
async fn a_session_is_given_again_for_ten_seconds_and_not_longer() {
    let room = Room::new([Reply::Json(200, SESSION)]).await;
    assert_eq!(room.refresh("abcdefghijkl").await, "session");
    room.advance(9_999);
    assert_eq!(room.refresh("abcdefghijkl").await, "session");
    assert_eq!(room.raw.calls(), 1);
    room.advance(1);
    assert_eq!(room.refresh("abcdefghijkl").await, "session");
    assert_eq!(room.raw.calls(), 2);
    room.advance(10_000);
    room.refreshes.sweep();
    assert!(room.refreshes.is_empty());
}

#[tokio::test]
async fn a_browser_that_goes_away_loses_nothing() {
    let room = Arc::new(Room::new([Reply::Json(200, SESSION)]).await);
    let gone = {
        let room = room.clone();
        tokio::spawn(async move { room.refresh("abcdefghijkl").await })
    };
    while room.refreshes.is_empty() {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(room.refresh("abcdefghijkl").await, "session");
    assert_eq!(room.raw.calls(), 1);
}

#[tokio::test]
async fn a_refusal_is_remembered_and_an_outage_only_for_a_moment() {
    let refused = Reply::Json(400, r#"{"code":"session_expired","message":"x"}"#);
    let room = Room::new([refused]).await;
    assert_eq!(room.refresh("abcdefghijkl").await, "over session_expired");
    room.advance(29_999);
    assert_eq!(room.refresh("abcdefghijkl").await, "over session_expired");
    assert_eq!(room.raw.calls(), 1);

    let limited = Reply::Json(429, "");
    let room = Room::new([limited, Reply::Json(200, SESSION)]).await;
    assert_eq!(room.refresh("abcdefghijkl").await, "later");
    room.advance(999);
    assert_eq!(room.refresh("abcdefghijkl").await, "later");
    assert_eq!(room.raw.calls(), 1);
    room.advance(1);
    assert_eq!(room.refresh("abcdefghijkl").await, "session");
}

#[tokio::test]
async fn everybody_who_waits_for_an_outage_learns_of_it() {
    let room = Arc::new(Room::new([Reply::Hang]).await);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let room = room.clone();
            tokio::spawn(async move { room.refresh("abcdefghijkl").await })
        })
        .collect();
    for one in waiting {
        assert_eq!(one.await.unwrap(), "later");
    }
    assert_eq!(room.raw.calls(), 1);
}

#[test]
fn nobody_waits_longer_for_a_control_runtime_that_is_stuck() {
    // Alive, and driven by nobody.
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let worker = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let clock = Clock::frozen(NOW);
    let setup = Setup {
        public_api: None,
        secret_key: None,
        budget: Arc::new(ProviderBudget::standard(&clock)),
        clock: clock.clone(),
        control: control.handle().clone(),
    };
    let api = "http://127.0.0.1:1/auth/v1".parse().unwrap();
    let provider = provider(&api, Duration::from_millis(100));
    let client = Arc::new(Supabase::new(&provider, setup).unwrap().unwrap());
    let refreshes = Refreshes::new(clock, control.handle().clone()).unwrap();
    worker.block_on(async {
        let token = secret("abcdefghijkl");
        let outcome = refreshes
            .refresh(&client, &token, of(&token), &browser())
            .await;
        assert!(matches!(outcome, Err(RefreshError::Later { .. })));
        let outcome = client.logout(&token, Scope::Local, &browser()).await;
        assert!(matches!(outcome, Err(LogoutError::Later { .. })));
    });
}

#[tokio::test]
async fn whoever_makes_tokens_up_for_one_user_is_stopped_and_others_are_not() {
    let over = Reply::Json(400, r#"{"code":"refresh_token_not_found","message":"x"}"#);
    let room = Room::new([over]).await;
    for number in 0..30 {
        let outcome = room.refresh_of(7, &format!("made-up-token-{number}")).await;
        assert!(outcome.contains("refresh_token_not_found"), "{outcome}");
    }
    let calls = room.raw.received.lock().len();
    let outcome = room.refresh_of(7, "one-more-made-up").await;
    assert!(outcome.starts_with("later"), "{outcome}");
    assert_eq!(
        room.raw.received.lock().len(),
        calls,
        "the provider is not asked"
    );
    let outcome = room.refresh_of(8, "somebody-elses").await;
    assert!(outcome.contains("refresh_token_not_found"), "{outcome}");
}

/// Every event of every level, with all its fields.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<String>>);

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        event.record(&mut Fields(&mut self.0.lock()));
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

#[tokio::test]
async fn no_secret_is_seen_in_the_log_or_in_debug() {
    let events = Events::default();
    let _guard =
        tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
    let key = "sb_secret_key0";
    let mut shown = String::new();
    for reply in [
        Reply::Json(200, SESSION),
        Reply::Json(400, r#"{"code":"user_banned","message":"secret-said"}"#),
        Reply::Json(
            400,
            r#"{"error":"invalid_client","error_description":"secret-said"}"#,
        ),
        Reply::Json(401, "<html>secret-said</html>"),
        Reply::Json(200, r#"{"access_token":"secret-access"}"#),
        Reply::Json(503, "secret-said"),
        Reply::Cut,
    ] {
        let room = Room::new([reply]).await;
        let provider = provider(&room.raw.url, Duration::from_secs(1));
        let client = client_with(&provider, Some(key), 10, &room.clock);
        let (token, password) = (secret("secret-refresh"), secret("secret-password"));
        let credentials = Credentials {
            address: Address::Email("secret-address@example.com"),
            password: &password,
            captcha: None,
        };
        let refreshed = room
            .refreshes
            .refresh(&client, &token, of(&token), &browser())
            .await;
        let opened = client.password(&credentials, &browser()).await;
        let ended = client
            .logout(&secret("secret-user"), Scope::Local, &browser())
            .await;
        write!(
            shown,
            "{refreshed:?} {opened:?} {ended:?} {client:?} {credentials:?} {:?} {:?}",
            room.refreshes,
            browser()
        )
        .unwrap();
        for error in [
            refreshed.err().map(|error| error.to_string()),
            opened.err().map(|error| error.to_string()),
            ended.err().map(|error| error.to_string()),
        ] {
            shown.push_str(&error.unwrap_or_default());
        }
    }
    let log = events.0.lock().clone();
    assert!(log.contains("no session can be refreshed"), "{log}");
    assert!(log.contains("a session is over"), "{log}");
    for text in [log, shown] {
        for secret in ["secret-", key, "Mozilla", "192.0.2.7"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}
