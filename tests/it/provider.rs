//! The client of the provider's API against the development provider, whose sessions rotate as the real one's do.

use crate::support::{Identity, NOW};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tollhouse::base::clock::Clock;
use tollhouse::base::secret::Secret;
use tollhouse::config::{self, Options};
use tollhouse::demo::provider::Fault;
use tollhouse::provider::supabase::pkce::Verifier;

/// A user for each token.
fn of(token: &Secret<String>) -> u128 {
    let bytes = token.expose().bytes();
    bytes.fold(0, |sum: u128, byte| {
        sum.wrapping_mul(257) + u128::from(byte)
    })
}
use tollhouse::provider::supabase::{
    Address, CodeKind, Credentials, Opened, Proof, Request, Scope, Setup, Supabase,
};
use tollhouse::provider::{
    Browser, Grant, LoginError, LogoutError, ProviderBudget, RefreshError, Refreshes,
};

const PASSWORD: &str = "correct-horse-9";

struct Room {
    identity: Identity,
    client: Arc<Supabase>,
    refreshes: Refreshes,
    clock: Clock,
}

/// The keys that a provider needs here.
const KEYS: &str = "publishable_key = \"sb_publishable_test\"\nhttp_timeout = \"2s\"\n";

/// Runs a test on a control runtime of its own.
fn run(keys: &str, test: impl AsyncFnOnce(Arc<Room>)) {
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Held here to the end: the provider has a runtime as well, and none may end inside another.
    let room = Arc::new(Room::new(keys, control.handle()));
    control.block_on(test(room.clone()));
    drop(control);
}

impl Room {
    /// With these further keys of the provider.
    fn new(keys: &str, control: &Handle) -> Self {
        let clock = Clock::frozen(NOW);
        let identity = Identity::start(&clock);
        let text = format!(
            "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\n{keys}[[routes]]\npath = \"/\"\nrespond = {{ body = \"hi\" }}\nauth = \"public\"\n",
            identity.url
        );
        let environment = config::interpolate::ProcessEnvironment::default();
        let options = Options {
            placeholders: false,
        };
        let config = config::load(&text, Path::new("test.toml"), &environment, options)
            .unwrap_or_else(|problems| panic!("the test's file is wrong:\n{problems}"));
        let setup = Setup {
            public_api: None,
            secret_key: None,
            budget: Arc::new(ProviderBudget::standard(&clock)),
            clock: clock.clone(),
            control: control.clone(),
        };
        let client = Supabase::new(&config.providers[0], setup).unwrap().unwrap();
        Self {
            client: Arc::new(client),
            refreshes: Refreshes::new(clock.clone(), control.clone()).unwrap(),
            identity,
            clock,
        }
    }

    /// A refresh token of a new session.
    fn token(&self) -> Secret<String> {
        let session = self.identity.session("ada@example.com");
        Secret::new(session["refresh_token"].as_str().unwrap().to_owned())
    }

    async fn refresh(&self, token: &Secret<String>) -> Result<Arc<Grant>, RefreshError> {
        let browser = Browser::default();
        self.refreshes
            .refresh(&self.client, token, of(token), &browser)
            .await
    }

    async fn password(&self, email: &str, password: &str) -> Result<Grant, LoginError> {
        let password = Secret::new(password.to_owned());
        let given = credentials(email, &password);
        self.client.password(&given, &Browser::default()).await
    }

    fn refresh_calls(&self) -> u64 {
        self.identity.provider.count("token.refresh")
    }
}

fn credentials<'a>(email: &'a str, password: &'a Secret<String>) -> Credentials<'a> {
    Credentials {
        address: Address::Email(email),
        password,
        captcha: None,
    }
}

#[test]
fn fifty_tabs_at_expiry_cause_one_refresh() {
    run(KEYS, async |room| {
        let token = room.token();
        let hold = room.identity.provider.hold("token.refresh");
        let tabs: Vec<_> = (0..50)
            .map(|_| {
                let (room, token) = (room.clone(), token.clone());
                tokio::spawn(async move { room.refresh(&token).await })
            })
            .collect();
        hold.arrived(1).await;
        tabs[0].abort();
        drop(hold);
        let mut grants = Vec::new();
        for tab in tabs.into_iter().skip(1) {
            grants.push(tab.await.unwrap().unwrap());
        }
        assert!(grants.iter().all(|grant| grant == &grants[0]));
        assert_eq!(room.refresh_calls(), 1);

        let session: Value = serde_json::from_str(grants[0].text.expose()).unwrap();
        assert_eq!(session["refresh_token"], **grants[0].refresh_token.expose());
        assert_eq!(session["access_token"], **grants[0].access_token.expose());
        assert_eq!(session["expires_at"], NOW + 3600);
        assert_eq!(grants[0].expires_at, NOW + 3600);
        assert_eq!(session["user"]["email"], "ada@example.com");

        // The next link of the chain, and the old token once more: replayed within 10 s, the provider's own rule afterwards.
        room.refresh(&grants[0].refresh_token).await.unwrap();
        assert_eq!(room.refresh(&token).await.unwrap(), grants[0]);
        assert_eq!(room.refresh_calls(), 2);
        room.clock.advance(Duration::from_secs(11));
        let error = room.refresh(&token).await.unwrap_err();
        let code = "refresh_token_already_used";
        assert_eq!(error, RefreshError::Over { code });
    });
}

#[test]
fn a_refresh_whose_answer_was_lost_yields_the_session_all_the_same() {
    run(KEYS, async |room| {
        let token = room.token();
        let provider = &room.identity.provider;
        provider.fail_next("token.refresh", &Fault::LoseAnswer, 2);
        let grant = room.refresh(&token).await.unwrap();
        assert_eq!(room.refresh_calls(), 3);
        room.clock.advance(Duration::from_secs(60));
        assert!(room.refresh(&grant.refresh_token).await.is_ok());
    });
}

#[test]
fn a_session_that_ended_at_the_provider_is_over() {
    let check = |end: fn(&Room), expected: &'static str| {
        run(KEYS, async |room| {
            let token = room.token();
            end(&room);
            let error = room.refresh(&token).await.unwrap_err();
            assert_eq!(error, RefreshError::Over { code: expected });
            assert_eq!(room.refresh(&token).await.unwrap_err(), error);
            assert_eq!(room.refresh_calls(), 1, "{expected}");
        });
    };
    check(
        |room| assert!(room.identity.provider.end_sessions("ada@example.com")),
        "refresh_token_not_found",
    );
    check(
        |room| assert!(room.identity.provider.remove_user("ada@example.com")),
        "refresh_token_not_found",
    );
    check(
        |room| assert!(room.identity.provider.ban("ada@example.com", true)),
        "user_banned",
    );
    run(KEYS, async |room| {
        let error = room
            .refresh(&Secret::new("short".into()))
            .await
            .unwrap_err();
        let code = "validation_failed";
        assert_eq!(error, RefreshError::Over { code });
    });
}

#[test]
fn a_session_outlives_every_trouble_of_its_provider() {
    run(KEYS, async |room| {
        let token = room.token();
        let provider = &room.identity.provider;
        let status = |status: u16| http::StatusCode::from_u16(status).unwrap();
        for fault in [
            Fault::Code(status(409), "conflict"),
            Fault::Code(status(429), "over_request_rate_limit"),
            Fault::Code(status(500), "unexpected_failure"),
            Fault::Status(status(503)),
            Fault::Hang,
            Fault::Answer(status(200), "{}".into()),
        ] {
            provider.fail_next("token.refresh", &fault, 10);
            let error = room.refresh(&token).await.unwrap_err();
            assert!(matches!(error, RefreshError::Later { .. }), "{fault:?}");
            room.clock.advance(Duration::from_secs(10));
            provider.stop_failing();
        }
        for fault in [Fault::Status(status(403)), Fault::Status(status(401))] {
            provider.fail_next("token.refresh", &fault, 1);
            let error = room.refresh(&token).await.unwrap_err();
            let fault_of_ours = matches!(error, RefreshError::Misconfigured { .. });
            assert!(fault_of_ours, "{fault:?}");
            room.clock.advance(Duration::from_secs(10));
        }
        assert!(room.refresh(&token).await.is_ok());
    });
}

#[test]
fn a_missing_or_wrong_key_ends_nobodys_session() {
    for keys in ["", "publishable_key = \"sb_publishable_other\"\n"] {
        run(keys, async |room| {
            let error = room.refresh(&room.token()).await.unwrap_err();
            assert!(matches!(error, RefreshError::Misconfigured { .. }));
            let error = room.password("ada@example.com", PASSWORD).await;
            let error = error.unwrap_err();
            assert!(matches!(error, LoginError::Misconfigured { .. }));
        });
    }
}

#[test]
fn a_password_opens_a_session_or_is_refused_in_one_way() {
    run(KEYS, async |room| {
        let grant = room.password("ada@example.com", PASSWORD).await.unwrap();
        assert!(room.refresh(&grant.refresh_token).await.is_ok());
        let refused = LoginError::Refused {
            code: "invalid_credentials",
        };
        for (email, password) in [
            ("ada@example.com", "wrong-horse-9"),
            ("nobody@example.com", PASSWORD),
        ] {
            let error = room.password(email, password).await.unwrap_err();
            assert_eq!(error, refused, "{email}");
        }
        assert!(room.identity.provider.ban("ada@example.com", true));
        let error = room.password("ada@example.com", PASSWORD).await;
        let banned = LoginError::Refused {
            code: "user_banned",
        };
        assert_eq!(error.unwrap_err(), banned);
    });
}

#[test]
fn a_sign_up_says_what_is_wrong_with_it() {
    run(KEYS, async |room| {
        let sign_up = async |email: &str, password: &str| {
            let password = Secret::new(password.to_owned());
            let (request, browser) = (Request::default(), Browser::default());
            let given = credentials(email, &password);
            room.client.signup(&given, &request, &browser).await
        };
        let opened = sign_up("new@example.com", PASSWORD).await;
        assert!(matches!(opened, Ok(Opened::Session(_))));
        for (email, password, expected) in [
            ("weak@example.com", "short", "weak_password"),
            ("ada@example.com", PASSWORD, "user_already_exists"),
            ("no address", PASSWORD, "validation_failed"),
        ] {
            let error = sign_up(email, password).await.unwrap_err();
            let LoginError::Rejected { code, message } = error else {
                panic!("{error:?}");
            };
            assert_eq!(code.as_str(), expected);
            assert!(!message.expose().is_empty());
        }
    });
}

#[test]
fn a_logout_ends_the_session_at_the_provider() {
    run(KEYS, async |room| {
        let (grant, other) = (
            room.password("ada@example.com", PASSWORD).await.unwrap(),
            room.token(),
        );
        let log_out = async |scope| {
            let browser = Browser::default();
            room.client
                .logout(&grant.access_token, scope, &browser)
                .await
        };
        log_out(Scope::Local).await.unwrap();
        let error = room.refresh(&grant.refresh_token).await.unwrap_err();
        assert!(matches!(error, RefreshError::Over { .. }));
        // Once more: it is gone, and that is what was wanted.
        log_out(Scope::Local).await.unwrap();
        assert!(room.refresh(&other).await.is_ok());
        room.clock.advance(Duration::from_secs(3601));
        let error = log_out(Scope::Global).await.unwrap_err();
        assert!(matches!(error, LogoutError::TokenRefused { .. }));
    });
}

#[test]
fn metadata_goes_through_as_the_provider_wrote_it() {
    run(KEYS, async |room| {
        let mut metadata = Map::new();
        metadata.insert("bio".into(), json!("<b>\u{e9}\u{1f600}\u{2028}</b> \\ \""));
        metadata.insert("large".into(), json!("x".repeat(20_000)));
        let provider = &room.identity.provider;
        assert!(provider.set_user_metadata("ada@example.com", metadata.clone()));
        let grant = room.refresh(&room.token()).await.unwrap();
        let session: Value = serde_json::from_str(grant.text.expose()).unwrap();
        for (key, value) in metadata {
            assert_eq!(session["user"]["user_metadata"][key], value);
        }
    });
}

#[test]
fn a_code_that_was_sent_opens_a_session_once() {
    run(KEYS, async |room| {
        let (request, browser) = (Request::default(), Browser::default());
        let ada = Address::Email("ada@example.com");
        let provider = &room.identity.provider;
        let send = async |address, create_user| {
            room.client
                .otp(address, create_user, &request, &browser)
                .await
        };
        send(ada, true).await.unwrap();
        let code = Secret::new(provider.mail("ada@example.com").unwrap().code);
        let proof = Proof::Code {
            kind: CodeKind::Email,
            address: ada,
            code: &code,
        };
        let opened = room.client.verify(&proof, &browser).await.unwrap();
        let Opened::Session(grant) = opened else {
            panic!("{opened:?}");
        };
        assert!(room.refresh(&grant.refresh_token).await.is_ok());
        let spent = room.client.verify(&proof, &browser).await.unwrap_err();
        let expected = LoginError::Refused {
            code: "otp_expired",
        };
        assert_eq!(spent, expected);

        send(ada, true).await.unwrap();
        let hash = Secret::new(provider.mail("ada@example.com").unwrap().hash);
        let proof = Proof::Hash {
            kind: CodeKind::MagicLink,
            hash: &hash,
        };
        let opened = room.client.verify(&proof, &browser).await;
        assert!(matches!(opened, Ok(Opened::Session(_))));

        let nobody = Address::Email("nobody@example.com");
        let error = send(nobody, false).await.unwrap_err();
        assert!(
            matches!(error, LoginError::Rejected { code, .. } if code.as_str() == "otp_disabled")
        );
    });
}

#[test]
fn a_login_elsewhere_ends_in_a_session_for_whoever_began_it() {
    run(KEYS, async |room| {
        let provider = &room.identity.provider;
        provider.log_in_elsewhere_as(Some("grace@example.com"));
        let verifier = Verifier::generate().unwrap();
        let back = "https://app.example.com/.auth/callback".parse().unwrap();
        let url = room
            .client
            .authorize("github", &back, None, &verifier.challenge());
        // As the browser would, without a key and without following.
        let answer = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap()
            .get(url)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 302);
        let location = answer.headers()["location"].to_str().unwrap();
        let code = location
            .strip_prefix("https://app.example.com/.auth/callback?code=")
            .unwrap();
        let code = Secret::new(code.to_owned());
        let browser = Browser::default();
        let stranger = Verifier::generate().unwrap();
        let refused = room.client.exchange(&code, &stranger, &browser).await;
        let expected = LoginError::Refused {
            code: "bad_code_verifier",
        };
        assert_eq!(refused.unwrap_err(), expected);
        let grant = room.client.exchange(&code, &verifier, &browser).await;
        let session: Value = serde_json::from_str(grant.unwrap().text.expose()).unwrap();
        assert_eq!(session["user"]["email"], "grace@example.com");
        let spent = room.client.exchange(&code, &verifier, &browser).await;
        assert!(matches!(spent, Err(LoginError::Refused { .. })));
    });
}
