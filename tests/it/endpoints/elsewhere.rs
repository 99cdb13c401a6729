//! Logins elsewhere (PKCE): there and back.

use super::*;
use http::{Request, StatusCode};
use tollhouse::demo::provider::Fault;
use url::Url;

/// Begins a login; where the browser is sent.
async fn start(endpoints: &Endpoints, client: &mut Client, more: &str) -> Url {
    let text = format!("provider=github{more}");
    let answer = client
        .send(endpoints, Endpoint::Start, &query(&text))
        .await
        .unwrap();
    Url::parse(answer.location()).unwrap()
}

fn parameter(url: &Url, name: &str) -> String {
    let mut values = url.query_pairs().filter(|(found, _)| found == name);
    let (_, value) = values
        .next()
        .unwrap_or_else(|| panic!("no {name} in {url}"));
    assert!(values.next().is_none());
    value.into_owned()
}

/// Goes there; the query that the browser comes back with.
async fn there(room: &Room, url: &Url) -> String {
    let to = &url[url::Position::BeforePath..];
    let request = Request::get(to).body(Body::empty()).unwrap();
    let answer = room.identity.provider.handle(request).await;
    assert_eq!(answer.status(), 302);
    let back = Url::parse(answer.headers()["location"].to_str().unwrap()).unwrap();
    assert_eq!(back.path(), "/.auth/callback");
    back.query().unwrap().to_owned()
}

async fn back(endpoints: &Endpoints, client: &mut Client, with: &str) -> Result<Answer, Reject> {
    client
        .send(endpoints, Endpoint::Callback, &query(with))
        .await
}

#[test]
fn a_login_elsewhere_ends_where_it_was_meant_to() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let to = start(
            &endpoints,
            &mut ada,
            "&return_to=%2Fapp%3Fa%3D1&scopes=repo%20user",
        )
        .await;
        assert_eq!(
            format!("{}{}", room.identity.url, "/auth/v1/authorize"),
            to[..url::Position::AfterPath]
        );
        assert_eq!(parameter(&to, "provider"), "github");
        assert_eq!(
            parameter(&to, "redirect_to"),
            "https://app.test/.auth/callback"
        );
        assert_eq!(parameter(&to, "scopes"), "repo user");
        assert_eq!(parameter(&to, "code_challenge_method"), "s256");
        assert_eq!(ada.attempts().len(), 1);
        assert!(ada.attempts()[0].starts_with("__Host-tollhouse-login-"));
        // The verifier stays here.
        let kept = URL_SAFE_NO_PAD.decode(&ada.cookies[0].1).unwrap();
        let kept: Value = serde_json::from_slice(&kept).unwrap();
        assert!(!to.as_str().contains(kept["verifier"].as_str().unwrap()));

        let code = there(&room, &to).await;
        let copied = ada.cookies.clone();
        let answer = back(&endpoints, &mut ada, &code).await.unwrap();
        assert_eq!(answer.location(), "/app?a=1");
        assert!(ada.has_session() && ada.attempts().is_empty());
        assert_eq!(ada.session.as_ref().unwrap().expires_at, NOW + 3600);

        // A code is spent once, by this browser or by one with a copy of its cookies.
        let reject = back(&endpoints, &mut ada, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::BadRequest);
        let mut thief = Client::new();
        thief.cookies = copied;
        let reject = back(&endpoints, &mut thief, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::LoginFailed);
        assert!(!thief.has_session());
        assert_eq!(room.identity.provider.session_count(), 1);
    });
}

#[test]
fn each_code_finds_the_attempt_that_began_it() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let mut codes = Vec::new();
        for tab in 0..3 {
            let to = start(&endpoints, &mut ada, &format!("&return_to=/{tab}")).await;
            codes.push(there(&room, &to).await);
            room.later();
        }
        assert_eq!(ada.attempts().len(), 3);
        let jar = ada.cookies.clone();
        for tab in [0, 2, 1] {
            ada.cookies.clone_from(&jar);
            let before = room.asked("token.pkce");
            let answer = back(&endpoints, &mut ada, &codes[tab]).await.unwrap();
            assert_eq!(answer.location(), format!("/{tab}"));
            // The newest is tried first, and none after the right one.
            assert_eq!(room.asked("token.pkce") - before, 3 - tab as u64);
            assert_eq!(ada.attempts().len(), 2, "those of other tabs go on");
            room.later();
        }
    });
}

#[test]
fn five_attempts_are_kept_and_the_oldest_goes() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let mut codes = Vec::new();
        for tab in 0..6 {
            let to = start(&endpoints, &mut ada, &format!("&return_to=/{tab}")).await;
            codes.push(there(&room, &to).await);
            room.later();
        }
        assert_eq!(ada.attempts().len(), 5);
        let jar = ada.cookies.clone();
        let reject = back(&endpoints, &mut ada, &codes[0]).await.unwrap_err();
        assert_eq!(reject.code(), Code::LoginFailed);
        assert_eq!(room.asked("token.pkce"), 5);
        assert_eq!(ada.cookies, jar, "a stranger's code takes nothing away");
        let answer = back(&endpoints, &mut ada, &codes[1]).await.unwrap();
        assert_eq!(answer.location(), "/1");
        assert_eq!(room.asked("token.pkce"), 10);
    });
}

#[test]
fn a_code_that_somebody_else_began_logs_nobody_in() {
    run(async |room| {
        let endpoints = room.usual();
        room.identity
            .provider
            .log_in_elsewhere_as(Some("grace@example.com"));
        let mut attacker = Client::new();
        let to = start(&endpoints, &mut attacker, "").await;
        let code = there(&room, &to).await;

        let mut victim = Client::new();
        let reject = back(&endpoints, &mut victim, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::BadRequest);
        assert!(
            reject.detail().contains("start again"),
            "{}",
            reject.detail()
        );
        assert_eq!(room.asked("token.pkce"), 0);
        start(&endpoints, &mut victim, "").await;
        let reject = back(&endpoints, &mut victim, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::LoginFailed);
        assert!(!victim.has_session() && victim.opened == 0);

        // A neighbour's page can set cookies, but none with the prefix: over https no other counts.
        for (name, value) in &attacker.cookies {
            let name = name.strip_prefix("__Host-").unwrap().to_owned();
            victim.cookies = vec![(name, value.clone())];
        }
        let reject = back(&endpoints, &mut victim, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::BadRequest);
        assert_eq!(room.identity.provider.session_count(), 0);
    });
}

#[test]
fn what_the_browser_keeps_for_us_is_not_believed() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let to = start(&endpoints, &mut ada, "&return_to=/app").await;
        let code = there(&room, &to).await;
        let json = String::from_utf8(URL_SAFE_NO_PAD.decode(&ada.cookies[0].1).unwrap()).unwrap();
        let jar = ada.cookies.clone();
        for (from, to) in [
            ("\"v\":1", "\"v\":9"),
            ("\"return_to\"", "\"returned\""),
            ("\"verifier\":\"", "\"verifier\":\"!"),
            (&*NOW.to_string(), "99999999999"),
        ] {
            ada.cookies[0].1 = URL_SAFE_NO_PAD.encode(json.replace(from, to));
            assert_ne!(ada.cookies, jar);
            let reject = back(&endpoints, &mut ada, &code).await.unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{to}");
        }
        assert_eq!(room.asked("token.pkce"), 0);
        let evil = json.replace("/app", "https://evil.test/");
        ada.cookies[0].1 = URL_SAFE_NO_PAD.encode(evil);
        let answer = back(&endpoints, &mut ada, &code).await.unwrap();
        assert_eq!(answer.location(), "/home");
    });
}

#[test]
fn an_attempt_lasts_for_ten_minutes() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        start(&endpoints, &mut ada, "").await;
        room.clock.advance(Duration::from_secs(601));
        let reject = back(&endpoints, &mut ada, "code=abc").await.unwrap_err();
        assert_eq!(reject.code(), Code::BadRequest);
        assert_eq!(room.asked("token.pkce"), 0);
        // It goes with the next one, and with an error.
        start(&endpoints, &mut ada, "").await;
        assert_eq!(ada.attempts().len(), 1);
        room.clock.advance(Duration::from_secs(601));
        back(&endpoints, &mut ada, "error=access_denied")
            .await
            .unwrap();
        assert!(ada.attempts().is_empty());
    });
}

#[test]
fn an_error_leads_to_the_login_page_in_one_of_two_words() {
    run(async |room| {
        let endpoints = room.endpoints(&["https://app.test"], "/login?lang=en#form");
        let mut ada = Client::new();
        start(&endpoints, &mut ada, "").await;
        let jar = ada.cookies.clone();
        for (with, word) in [
            (
                "error=access_denied&error_code=x&error_description=evil",
                "access_denied",
            ),
            ("error=server_error", "login_failed"),
            ("error=", "login_failed"),
            ("error=access_denied&error=access_denied", "login_failed"),
            ("error=%3Cscript%3E&code=abc", "login_failed"),
        ] {
            let answer = back(&endpoints, &mut ada, with).await.unwrap();
            assert_eq!(
                answer.location(),
                format!("/login?lang=en&error={word}#form")
            );
        }
        assert_eq!(ada.cookies, jar, "another tab may still come back");
        assert_eq!(room.asked("token.pkce"), 0);

        // The person declines, really.
        room.identity
            .provider
            .log_in_elsewhere_as(Some("stranger@example.com"));
        let to = start(&endpoints, &mut ada, "").await;
        let with = there(&room, &to).await;
        let answer = back(&endpoints, &mut ada, &with).await.unwrap();
        assert!(answer.location().contains("error=access_denied"));

        // A login page that is the start itself does not go in circles.
        let circular = room.endpoints(&["https://app.test"], "/.auth/login?provider=github");
        let answer = back(&circular, &mut ada, "error=access_denied")
            .await
            .unwrap();
        let (path, with) = answer.location().split_once('?').unwrap();
        assert_eq!(path, "/.auth/login");
        let reject = ada
            .send(&circular, Endpoint::Start, &query(with))
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::LoginFailed);
    });
}

#[test]
fn only_navigations_begin_and_end_a_login() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let to = start(&endpoints, &mut ada, "").await;
        let code = there(&room, &to).await;
        let jar = ada.cookies.clone();
        let framed: &[_] = &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")];
        let fetched: &[_] = &[("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")];
        let ahead: &[_] = &[("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch")];
        for headers in [framed, fetched, ahead] {
            for (endpoint, with) in [
                (Endpoint::Start, "provider=github"),
                (Endpoint::Callback, &code),
            ] {
                let request = Sent {
                    headers,
                    ..query(with)
                };
                let reject = ada.send(&endpoints, endpoint, &request).await.unwrap_err();
                assert_eq!(reject.code(), Code::BadRequest);
            }
        }
        for (endpoint, with, allow) in [
            (Endpoint::Start, "provider=github", "GET, POST"),
            (Endpoint::Callback, &*code, "GET"),
        ] {
            let request = Sent {
                head: true,
                ..query(with)
            };
            let reject = ada.send(&endpoints, endpoint, &request).await.unwrap_err();
            assert_eq!(reject.code(), Code::MethodNotAllowed);
            assert_eq!(reject.allowed().unwrap(), allow);
        }
        assert_eq!(ada.cookies, jar);
        assert_eq!(room.asked("token.pkce"), 0);
        // A browser that says nothing is an old one.
        let request = Sent {
            headers: &[],
            ..query(&code)
        };
        let answer = ada
            .send(&endpoints, Endpoint::Callback, &request)
            .await
            .unwrap();
        assert_eq!(answer.location(), "/home");
    });
}

#[test]
fn a_start_that_says_too_little_or_too_much_is_refused() {
    run(async |room| {
        let endpoints = room.usual();
        for with in [
            "",
            "provider=",
            "provider=git%20hub",
            "provider=github&provider=github",
            "provider=github&scopes=a%0Ab",
            "provider=github&scopes=a&scopes=b",
        ] {
            let mut client = Client::new();
            let reject = client
                .send(&endpoints, Endpoint::Start, &query(with))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{with}");
            assert!(client.cookies.is_empty());
        }
        let mut client = Client::new();
        start(&endpoints, &mut client, "&return_to=/a&return_to=/b").await;
        let kept = URL_SAFE_NO_PAD.decode(&client.cookies[0].1).unwrap();
        assert!(
            String::from_utf8(kept)
                .unwrap()
                .contains("\"return_to\":\"/home\"")
        );
        for with in ["", "code=", "code=a&code=b", "code=a%00b", "code=%FF"] {
            let reject = back(&endpoints, &mut client, with).await.unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{with}");
        }
        assert_eq!(room.asked("token.pkce"), 0);
    });
}

#[test]
fn where_browsers_come_back_to_is_what_the_file_says() {
    run(async |room| {
        let none = room.endpoints(&[], "/login");
        let mut client = Client::new();
        for (endpoint, with) in [
            (Endpoint::Start, "provider=github"),
            (Endpoint::Callback, "code=a"),
        ] {
            let reject = client
                .send(&none, endpoint, &query(with))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::NotSupported);
            assert!(reject.detail().contains("`server.public_url`"));
        }
        let both = room.endpoints(&["https://app.test", "http://127.0.0.1:8080"], "/login");
        for (host, secure, expected) in [
            ("app.test", true, "https://app.test/.auth/callback"),
            (
                "127.0.0.1:8080",
                false,
                "http://127.0.0.1:8080/.auth/callback",
            ),
            // Behind something that ends TLS, or on another port.
            ("app.test:8000", false, "https://app.test/.auth/callback"),
            ("127.0.0.1", false, "http://127.0.0.1:8080/.auth/callback"),
            ("evil.test", true, "https://app.test/.auth/callback"),
        ] {
            let mut client = Client::new();
            (client.host, client.secure) = (host, secure);
            let to = start(&both, &mut client, "").await;
            assert_eq!(parameter(&to, "redirect_to"), expected, "{host}");
            let guarded = client.attempts()[0].starts_with("__Host-");
            assert_eq!(guarded, expected.starts_with("https:"), "{host}");
        }
    });
}

#[test]
fn an_outage_on_the_way_back_leaves_the_attempt() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        room.identity
            .provider
            .log_in_elsewhere_as(Some("ada@example.com"));
        let to = start(&endpoints, &mut ada, "&return_to=/app").await;
        let code = there(&room, &to).await;
        let down = Fault::Status(StatusCode::SERVICE_UNAVAILABLE);
        room.identity.provider.fail_next("token.pkce", &down, 1);
        let reject = back(&endpoints, &mut ada, &code).await.unwrap_err();
        assert_eq!(reject.code(), Code::AuthUnavailable);
        assert_eq!(room.asked("token.pkce"), 1);
        let answer = back(&endpoints, &mut ada, &code).await.unwrap();
        assert_eq!(answer.location(), "/app");
    });
}

#[test]
fn whoever_makes_codes_up_is_stopped_before_the_provider_is_asked() {
    run(async |room| {
        let (endpoints, mut client) = (room.usual(), Client::new());
        start(&endpoints, &mut client, "").await;
        for asked in 1..=3 {
            let reject = back(&endpoints, &mut client, "code=made-up")
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::LoginFailed);
            assert_eq!(room.asked("token.pkce"), asked);
        }
        let reject = back(&endpoints, &mut client, "code=made-up")
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::RateLimited);
        assert_eq!(room.asked("token.pkce"), 3);
    });
}
