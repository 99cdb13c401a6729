//! The end of a session, here and at its provider.

use super::*;
use http::StatusCode;
use tollhouse::demo::provider::Fault;

/// A browser that Ada is logged in with.
async fn ada(room: &Room, endpoints: &Endpoints) -> Client {
    let mut client = Client::new();
    let body = format!(r#"{{"email":"ada@example.com","password":"{PASSWORD}"}}"#);
    client
        .send(endpoints, Endpoint::Login, &json(&body))
        .await
        .unwrap();
    room.later();
    client
}

async fn leave(endpoints: &Endpoints, client: &mut Client, with: &str) -> Result<Answer, Reject> {
    client.send(endpoints, Endpoint::Logout, &query(with)).await
}

/// Waits for the background.
async fn until(mut done: impl FnMut() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), waiting).await;
    assert!(waited.is_ok(), "it never happened");
}

#[test]
fn a_logout_ends_the_session_here_and_there() {
    run(async |room| {
        let endpoints = room.usual();
        let (mut one, mut other, mut third) = (
            ada(&room, &endpoints).await,
            ada(&room, &endpoints).await,
            ada(&room, &endpoints).await,
        );
        let sessions = || room.identity.provider.session_count();
        assert_eq!(sessions(), 3);
        let answer = leave(&endpoints, &mut one, "").await.unwrap();
        assert_eq!((answer.status, &*answer.body), (204, ""));
        assert!(!one.has_session() && one.ended == [Scope::Local]);
        assert_eq!(sessions(), 2);
        // The others go, and this one stays.
        let answer = leave(&endpoints, &mut other, "scope=others").await.unwrap();
        assert_eq!(answer.status, 204);
        assert!(other.has_session() && other.ended == [Scope::Others]);
        assert_eq!(sessions(), 1);
        leave(&endpoints, &mut third, "scope=local").await.unwrap();
        assert_eq!(sessions(), 1, "its session was one of the others");
        ada(&room, &endpoints).await;
        leave(&endpoints, &mut other, "scope=global").await.unwrap();
        assert!(!other.has_session());
        assert_eq!(sessions(), 0);
        // Nothing is left to end, and that is fine.
        for client in [&mut one, &mut Client::new()] {
            let answer = leave(&endpoints, client, "").await.unwrap();
            assert_eq!(answer.status, 204);
        }
        assert_eq!(room.asked("logout"), 4);
        assert_eq!(room.revocations.pending(), 0);
    });
}

#[test]
fn another_scope_ends_nothing() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        for with in [
            "scope=all",
            "scope=Global",
            "scope=local&scope=local",
            "scope=%FF",
        ] {
            let reject = leave(&endpoints, &mut client, with).await.unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{with}");
        }
        assert!(client.has_session() && client.ended.is_empty());
        assert_eq!(room.asked("logout"), 0);
    });
}

#[test]
fn a_provider_that_is_down_hears_of_it_later() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        let provider = &room.identity.provider;
        let down = Fault::Status(StatusCode::SERVICE_UNAVAILABLE);
        provider.fail_next("logout", &down, 200);
        let answer = leave(&endpoints, &mut client, "").await.unwrap();
        assert_eq!(answer.status, 204);
        assert!(!client.has_session());
        assert_eq!(provider.session_count(), 1);
        until(|| room.revocations.pending() == 1).await;
        provider.stop_failing();
        until(|| provider.session_count() == 0 && room.revocations.pending() == 0).await;
    });
}

#[test]
fn a_provider_that_refuses_us_hears_of_it_when_it_no_longer_does() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        let provider = &room.identity.provider;
        provider.fail_next("logout", &Fault::Status(StatusCode::FORBIDDEN), 200);
        leave(&endpoints, &mut client, "scope=global")
            .await
            .unwrap();
        until(|| room.revocations.pending() == 1).await;
        provider.stop_failing();
        until(|| provider.session_count() == 0).await;
    });
}

#[test]
fn a_session_whose_token_is_over_is_ended_with_a_new_one() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        room.clock.advance(Duration::from_secs(3601));
        leave(&endpoints, &mut client, "").await.unwrap();
        assert_eq!(room.identity.provider.session_count(), 0);
        assert_eq!((room.asked("token.refresh"), room.asked("logout")), (1, 1));

        // The provider takes a token for none that we take for good: its keys have changed.
        let mut client = ada(&room, &endpoints).await;
        let refused = Fault::Code(StatusCode::FORBIDDEN, "bad_jwt");
        room.identity.provider.fail_next("logout", &refused, 1);
        leave(&endpoints, &mut client, "").await.unwrap();
        assert_eq!(room.identity.provider.session_count(), 0);
        assert_eq!((room.asked("token.refresh"), room.asked("logout")), (2, 3));

        // The session is over there: nothing is left to do.
        let mut client = ada(&room, &endpoints).await;
        room.identity.provider.end_sessions("ada@example.com");
        room.clock.advance(Duration::from_secs(3601));
        leave(&endpoints, &mut client, "").await.unwrap();
        assert_eq!((room.asked("token.refresh"), room.asked("logout")), (3, 3));
        assert_eq!(room.revocations.pending(), 0);
    });
}

#[test]
fn the_refresh_token_of_a_session_that_goes_on_is_never_spent() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        let refused = Fault::Code(StatusCode::FORBIDDEN, "bad_jwt");
        room.identity.provider.fail_next("logout", &refused, 1);
        leave(&endpoints, &mut client, "scope=others")
            .await
            .unwrap();
        assert_eq!((room.asked("token.refresh"), room.asked("logout")), (0, 1));
        assert_eq!(room.revocations.pending(), 0);
    });
}

#[test]
fn a_pending_logout_ends_with_its_token() {
    run(async |room| {
        let provider = &room.identity.provider;
        let down = Fault::Status(StatusCode::SERVICE_UNAVAILABLE);
        provider.fail_next("logout", &down, 200);
        let token = room.identity.token("ada@example.com");
        let what = Revocable {
            expires_at: who(&token).expires_at,
            access_token: secret(&token),
            refresh_token: None,
            user: 7,
        };
        let browser = Browser::default();
        room.revocations
            .revoke(&room.provider, what, Scope::Local, &browser)
            .await;
        until(|| room.revocations.pending() == 1).await;
        room.clock.advance(Duration::from_secs(3601));
        until(|| room.revocations.pending() == 0).await;
        assert_eq!(provider.session_count(), 1);
    });
}

#[test]
fn no_more_logouts_are_pending_than_there_is_room_for() {
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let room = Arc::new(Room::new(control.handle(), "5s", 2));
    control.block_on(async {
        let endpoints = room.usual();
        let provider = &room.identity.provider;
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(ada(&room, &endpoints).await);
        }
        let down = Fault::Status(StatusCode::BAD_GATEWAY);
        provider.fail_next("logout", &down, 200);
        for client in &mut clients {
            let answer = leave(&endpoints, client, "").await.unwrap();
            assert_eq!(answer.status, 204);
        }
        until(|| room.revocations.pending() == 2).await;
        provider.stop_failing();
        until(|| room.revocations.pending() == 0).await;
        assert_eq!(provider.session_count(), 1);
    });
    drop(control);
}

#[test]
fn a_client_that_hangs_up_is_logged_out_all_the_same() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = ada(&room, &endpoints).await;
        let hold = room.identity.provider.hold("logout");
        {
            let request = query("");
            let leaving = client.send(&endpoints, Endpoint::Logout, &request);
            tokio::select! {
                _ = leaving => panic!("the provider has not answered"),
                () = hold.arrived(1) => {}
            }
        }
        assert_eq!(client.ended, [Scope::Local]);
        drop(hold);
        until(|| room.identity.provider.session_count() == 0).await;
    });
}
