//! Passwords, sign-ups, codes.

use super::*;
use http::StatusCode;
use tollhouse::demo::provider::Fault;

const ADA: &str = r#"{"email":" Ada@Example.com","password":"correct-horse-9"}"#;

#[test]
fn a_password_opens_a_session_and_no_token_leaves() {
    run(async |room| {
        let (endpoints, mut ada) = (room.usual(), Client::new());
        let answer = ada
            .send(&endpoints, Endpoint::Login, &json(ADA))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        let view = answer.json();
        assert_eq!(view["user"]["email"], "ada@example.com");
        assert_eq!(view["provider"], "main");
        assert_eq!(view["expires_at"], NOW + 3600);
        let grant = ada.session.as_ref().unwrap();
        for token in [&grant.access_token, &grant.refresh_token] {
            assert!(!answer.body.contains(token.expose()));
        }
        assert!(ada.has_session());
        assert_eq!(ada.accounts, ["ada@example.com"]);
        assert_eq!(room.identity.provider.session_count(), 1);
    });
}

#[test]
fn an_unknown_user_and_a_wrong_password_look_the_same() {
    run(async |room| {
        let endpoints = room.usual();
        let mut refused = Vec::new();
        room.identity.provider.ban("grace@example.com", true);
        for body in [
            r#"{"email":"ada@example.com","password":"wrong-horse-9"}"#,
            r#"{"email":"nobody@example.com","password":"correct-horse-9"}"#,
            // Even with the right password.
            r#"{"email":"grace@example.com","password":"correct-horse-9"}"#,
        ] {
            let mut client = Client::new();
            let reject = client
                .send(&endpoints, Endpoint::Login, &json(body))
                .await
                .unwrap_err();
            assert!(client.cookies.is_empty() && client.opened == 0);
            refused.push(seen(&reject));
        }
        assert!(refused[0].starts_with("login_failed "), "{}", refused[0]);
        assert!(refused.iter().all(|one| *one == refused[0]), "{refused:?}");
    });
}

#[test]
fn a_form_goes_where_it_says_if_that_is_ours() {
    run(async |room| {
        let endpoints = room.usual();
        for (more, expected) in [
            ("&return_to=%2Fapp%3Fa%3Db", "/app?a=b"),
            ("&return_to=https%3A%2F%2Fapp.test%2Fx", "/x"),
            (
                "&return_to=https%3A%2F%2Fadmin.test%2Fx",
                "https://admin.test/x",
            ),
            ("&return_to=", "/home"),
            ("&return_to=%2F%2Fevil.test", "/home"),
            ("&return_to=%2F%09%2Fevil.test", "/home"),
            ("&return_to=https%3A%2F%2Fevil.test%2F", "/home"),
        ] {
            let body = format!("email=ada%40example.com&password={PASSWORD}{more}");
            let mut ada = Client::new();
            let answer = ada
                .send(&endpoints, Endpoint::Login, &form(&body))
                .await
                .unwrap();
            assert_eq!(answer.location(), expected, "{more}");
            assert!(ada.has_session());
            room.later();
        }
        // A script reads its answer itself, and a form that says nothing gets what a script gets.
        let said = r#"{"email":"ada@example.com","password":"correct-horse-9","return_to":"/x"}"#;
        let silent = format!("email=ada%40example.com&password={PASSWORD}");
        for request in [json(said), form(&silent)] {
            let answer = Client::new()
                .send(&endpoints, Endpoint::Login, &request)
                .await
                .unwrap();
            assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
        }
    });
}

#[test]
fn a_body_that_says_too_little_costs_no_call() {
    run(async |room| {
        let endpoints = room.usual();
        for (endpoint, body) in [
            (Endpoint::Login, r#"{"email":"ada@example.com"}"#),
            (Endpoint::Login, r#"{"password":"correct-horse-9"}"#),
            (
                Endpoint::Login,
                r#"{"email":"a@b.c","phone":"1","password":"x"}"#,
            ),
            (Endpoint::Signup, "{}"),
            (Endpoint::Otp, r#"{"create_user":true}"#),
            (Endpoint::Verify, r#"{"type":"email"}"#),
            (Endpoint::Verify, r#"{"type":"email","token":"123456"}"#),
        ] {
            let mut client = Client::new();
            let reject = client
                .send(&endpoints, endpoint, &json(body))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{body}");
            assert!(client.accounts.is_empty());
            let text = Sent {
                content_type: "text/plain",
                ..json(ADA)
            };
            let reject = client.send(&endpoints, endpoint, &text).await.unwrap_err();
            assert!(reject.detail().contains(JSON), "{}", reject.detail());
        }
        for endpoint in ["token.password", "signup", "otp", "verify"] {
            assert_eq!(room.asked(endpoint), 0, "{endpoint}");
        }
    });
}

#[test]
fn an_account_over_its_limit_costs_no_call() {
    run(async |room| {
        let endpoints = room.usual();
        let code = r#"{"type":"sms","token":"123456","phone":"+49 30 123"}"#;
        let hash = r#"{"type":"email","token_hash":"abc"}"#;
        let mut client = Client::new();
        client.limited = true;
        for (endpoint, body) in [
            (Endpoint::Login, ADA),
            (Endpoint::Signup, ADA),
            (Endpoint::Otp, ADA),
            (Endpoint::Verify, code),
        ] {
            let reject = client
                .send(&endpoints, endpoint, &json(body))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::RateLimited);
            assert_eq!(reject.retry_after_seconds(), Some(60));
        }
        let ada = "ada@example.com";
        assert_eq!(client.accounts, [ada, ada, ada, "4930123"]);
        for endpoint in ["token.password", "signup", "otp", "verify"] {
            assert_eq!(room.asked(endpoint), 0, "{endpoint}");
        }
        // A hash names no account.
        let reject = client
            .send(&endpoints, Endpoint::Verify, &json(hash))
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::LoginFailed);
    });
}

#[test]
fn what_the_provider_says_no_to_is_told_in_its_words() {
    run(async |room| {
        let endpoints = room.usual();
        let weak = r#"{"email":"new@example.com","password":"short"}"#;
        let reject = Client::new()
            .send(&endpoints, Endpoint::Signup, &json(weak))
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::ProviderRefused);
        assert!(reject.detail().contains("Password"), "{}", reject.detail());
        assert!(!reject.reason().contains("Password"), "{}", reject.reason());

        let check = async |fault: Fault, code: Code, wait: Option<u32>| {
            room.identity
                .provider
                .fail_next("token.password", &fault, 1);
            let reject = Client::new()
                .send(&endpoints, Endpoint::Login, &json(ADA))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), code, "{fault:?}");
            assert_eq!(reject.retry_after_seconds(), wait, "{fault:?}");
        };
        let of = |status, code| Fault::Code(StatusCode::from_u16(status).unwrap(), code);
        check(
            of(429, "over_request_rate_limit"),
            Code::RateLimited,
            Some(10),
        )
        .await;
        check(of(400, "captcha_failed"), Code::ProviderRefused, None).await;
        check(of(400, "email_not_confirmed"), Code::LoginFailed, None).await;
        check(of(401, "no_authorization"), Code::AuthUnavailable, Some(1)).await;
        check(
            Fault::Status(StatusCode::BAD_GATEWAY),
            Code::AuthUnavailable,
            Some(1),
        )
        .await;
        check(Fault::LoseAnswer, Code::AuthUnavailable, Some(1)).await;
    });
}

#[test]
fn a_sign_up_is_told_the_same_for_an_address_that_somebody_has() {
    run(async |room| {
        let endpoints = room.usual();
        let user = r#"{"id":"5f5b5d0e-0000-4000-8000-000000000000","email":"new@example.com"}"#;
        let pending = Fault::Answer(StatusCode::OK, user.to_owned());
        room.identity.provider.fail_next("signup", &pending, 1);
        let new = r#"{"email":"new@example.com","password":"correct-horse-9"}"#;
        let mut client = Client::new();
        let fresh = client
            .send(&endpoints, Endpoint::Signup, &json(new))
            .await
            .unwrap();
        assert_eq!(fresh.json(), serde_json::json!({"pending": true}));

        let known = client
            .send(&endpoints, Endpoint::Signup, &json(ADA))
            .await
            .unwrap();
        assert_eq!(known, fresh);
        for code in ["email_exists", "phone_exists", "user_already_exists"] {
            let fault = Fault::Code(StatusCode::UNPROCESSABLE_ENTITY, code);
            room.identity.provider.fail_next("signup", &fault, 1);
            let known = client
                .send(&endpoints, Endpoint::Signup, &json(new))
                .await
                .unwrap();
            assert_eq!(known, fresh, "{code}");
        }
        let with_form = format!("email=ada%40example.com&password={PASSWORD}&return_to=%2Fsent");
        let answer = client
            .send(&endpoints, Endpoint::Signup, &form(&with_form))
            .await
            .unwrap();
        assert_eq!(answer.location(), "/sent");
        assert!(client.cookies.is_empty() && client.opened == 0);
    });
}

#[test]
fn a_sign_up_that_needs_no_confirmation_is_a_login() {
    run(async |room| {
        let endpoints = room.usual();
        let new =
            r#"{"email":"new@example.com","password":"correct-horse-9","data":{"name":"New"}}"#;
        let mut client = Client::new();
        let answer = client
            .send(&endpoints, Endpoint::Signup, &json(new))
            .await
            .unwrap();
        assert_eq!(answer.json()["user"]["email"], "new@example.com");
        assert!(client.has_session());
        let token = client
            .session
            .as_ref()
            .unwrap()
            .access_token
            .expose()
            .clone();
        assert!(!answer.body.contains(&token));
        assert_eq!(claims(&token)["user_metadata"]["name"], "New");
    });
}

#[test]
fn a_code_is_asked_for_in_one_way_by_known_and_unknown() {
    run(async |room| {
        let endpoints = room.usual();
        let of =
            |email: &str, create: bool| format!(r#"{{"email":"{email}","create_user":{create}}}"#);
        let mut client = Client::new();
        let known = of("ada@example.com", false);
        let sent = client
            .send(&endpoints, Endpoint::Otp, &json(&known))
            .await
            .unwrap();
        assert_eq!(sent.json(), serde_json::json!({"pending": true}));
        assert!(room.identity.provider.mail("ada@example.com").is_some());

        let unknown = of("nobody@example.com", false);
        let answer = client
            .send(&endpoints, Endpoint::Otp, &json(&unknown))
            .await
            .unwrap();
        assert_eq!(answer, sent);
        assert!(room.identity.provider.mail("nobody@example.com").is_none());
        assert_eq!(room.asked("otp"), 2);

        // Signing up is switched off, and only known addresses reach the limit for one address.
        for (status, code, create, told) in [
            (422, "signup_disabled", true, true),
            (422, "otp_disabled", true, true),
            (429, "over_email_send_rate_limit", false, true),
            (429, "over_email_send_rate_limit", true, false),
            (422, "email_provider_disabled", false, false),
        ] {
            let fault = Fault::Code(StatusCode::from_u16(status).unwrap(), code);
            room.identity.provider.fail_next("otp", &fault, 1);
            let body = of("ada@example.com", create);
            match client.send(&endpoints, Endpoint::Otp, &json(&body)).await {
                Ok(answer) => assert!(told && answer == sent, "{code} {create}"),
                Err(reject) => assert!(!told, "{code} {create}: {reject}"),
            }
        }
        assert!(client.cookies.is_empty());
    });
}

#[test]
fn a_code_or_a_hash_that_was_sent_opens_a_session_once() {
    run(async |room| {
        let endpoints = room.usual();
        let mail = async || {
            let ask = r#"{"email":"ada@example.com"}"#;
            Client::new()
                .send(&endpoints, Endpoint::Otp, &json(ask))
                .await
                .unwrap();
            room.identity.provider.mail("ada@example.com").unwrap()
        };
        let code = mail().await.code;
        let by_code = format!(r#"{{"type":"email","token":"{code}","email":"Ada@example.com"}}"#);
        let mut ada = Client::new();
        let answer = ada
            .send(&endpoints, Endpoint::Verify, &json(&by_code))
            .await
            .unwrap();
        assert_eq!(answer.json()["user"]["email"], "ada@example.com");
        assert!(ada.has_session());
        assert_eq!(ada.accounts, ["ada@example.com"]);

        let wrong = [
            by_code,
            r#"{"type":"email","token":"000000","email":"nobody@example.com"}"#.to_owned(),
            r#"{"type":"email","token_hash":"0123"}"#.to_owned(),
        ];
        let mut refused = Vec::new();
        for body in &wrong {
            let mut client = Client::new();
            let reject = client
                .send(&endpoints, Endpoint::Verify, &json(body))
                .await
                .unwrap_err();
            assert!(!client.has_session());
            refused.push(seen(&reject));
        }
        assert!(refused[0].starts_with("login_failed "));
        assert!(refused.iter().all(|one| *one == refused[0]), "{refused:?}");

        let hash = mail().await.hash;
        let by_hash = format!("type=magiclink&token_hash={hash}&return_to=/app");
        let mut ada = Client::new();
        let answer = ada
            .send(&endpoints, Endpoint::Verify, &form(&by_hash))
            .await
            .unwrap();
        assert_eq!(answer.location(), "/app");
        assert!(ada.has_session());

        // The other address of a pair is still to be confirmed.
        let half = r#"{"msg":"confirm the other","code":"200"}"#.to_owned();
        let fault = Fault::Answer(StatusCode::OK, half);
        room.identity.provider.fail_next("verify", &fault, 1);
        let body = r#"{"type":"email_change","token_hash":"abc"}"#;
        let answer = Client::new()
            .send(&endpoints, Endpoint::Verify, &json(body))
            .await
            .unwrap();
        assert_eq!(answer.json(), serde_json::json!({"pending": true}));
    });
}

#[test]
fn a_link_alone_logs_nobody_in_and_its_button_does() {
    run(async |room| {
        let endpoints = room.usual();
        let ask = r#"{"email":"ada@example.com"}"#;
        Client::new()
            .send(&endpoints, Endpoint::Otp, &json(ask))
            .await
            .unwrap();
        let hash = room.identity.provider.mail("ada@example.com").unwrap().hash;

        let mut ada = Client::new();
        let link = format!(
            "token_hash={hash}&type=email&return_to=https%3A%2F%2Fadmin.test%2Fx%3Fa%3D1%26b"
        );
        for head in [true, false, false] {
            let request = Sent {
                head,
                ..query(&link)
            };
            let page = ada
                .send(&endpoints, Endpoint::Confirm, &request)
                .await
                .unwrap();
            assert_eq!(page.status, 200);
            assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
            let policy = page.header("content-security-policy");
            assert!(
                policy.starts_with("default-src 'none'; style-src 'sha256-"),
                "{policy}"
            );
            assert!(
                policy.contains("form-action 'self' https://admin.test;"),
                "{policy}"
            );
            assert_eq!(page.header("referrer-policy"), "strict-origin");
            assert!(ada.cookies.is_empty());
        }
        assert_eq!(room.asked("verify"), 0);

        let page = ada
            .send(&endpoints, Endpoint::Confirm, &query(&link))
            .await
            .unwrap();
        let answer = ada
            .send(&endpoints, Endpoint::Verify, &form(&button(&page.body)))
            .await
            .unwrap();
        assert_eq!(answer.location(), "https://admin.test/x?a=1&b");
        assert!(ada.has_session());

        // Without a place of ours the button leads to `after_login`.
        for more in ["", "&return_to=//evil.test", "&return_to=/a&return_to=/b"] {
            let link = format!("token_hash=abc&type=signup{more}");
            let page = ada
                .send(&endpoints, Endpoint::Confirm, &query(&link))
                .await
                .unwrap();
            assert!(button(&page.body).ends_with("return_to=%2Fhome"), "{more}");
            let policy = page.header("content-security-policy");
            assert!(policy.contains("form-action 'self';"), "{policy}");
        }
    });
}

/// What the page's form sends.
fn button(page: &str) -> String {
    assert!(page.contains("<form method=\"post\" action=\"/.auth/verify\">"));
    let mut sent = url::form_urlencoded::Serializer::new(String::new());
    for input in page.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = input.split_once("\" value=\"").unwrap();
        let (value, _) = rest.split_once('"').unwrap();
        sent.append_pair(name, &value.replace("&amp;", "&"));
    }
    sent.finish()
}

#[test]
fn a_link_that_is_not_whole_has_no_page() {
    run(async |room| {
        let endpoints = room.usual();
        for link in [
            "",
            "token_hash=abc",
            "type=email",
            "token_hash=&type=email",
            "token_hash=abc&type=Email",
            "token_hash=abc&type=nonsense",
            "token_hash=abc&token_hash=abc&type=email",
            "token_hash=abc&type=email&type=email",
            "token_hash=%3Cscript%3E&type=email",
            "token_hash=a%20b&type=email",
        ] {
            let reject = Client::new()
                .send(&endpoints, Endpoint::Confirm, &query(link))
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::BadRequest, "{link}");
            assert!(!reject.detail().contains("script"));
        }
    });
}

#[test]
fn who_calls_is_told_who_they_are() {
    run(async |room| {
        let endpoints = room.usual();
        let mut client = Client::new();
        let reject = client
            .send(&endpoints, Endpoint::Session, &query(""))
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::MissingCredentials);
        let ada = who(&room.identity.token("ada@example.com"));
        let request = Sent {
            caller: Some(&ada),
            ..Sent::default()
        };
        let answer = client
            .send(&endpoints, Endpoint::Session, &request)
            .await
            .unwrap();
        assert_eq!(answer.json()["user"]["id"], *ada.user_id);

        let reject = client
            .send(&endpoints, Endpoint::Refresh, &query(""))
            .await
            .unwrap_err();
        assert_eq!(reject.code(), Code::SessionExpired);
        client
            .send(&endpoints, Endpoint::Login, &json(ADA))
            .await
            .unwrap();
        let answer = client
            .send(&endpoints, Endpoint::Refresh, &query(""))
            .await
            .unwrap();
        assert_eq!(answer.json()["user"]["email"], "ada@example.com");
        assert_eq!(client.renewed, 2);
    });
}

#[test]
fn without_a_provider_to_log_in_with_only_the_session_is_told() {
    run(async |room| {
        let endpoints = Endpoints::new(Setup {
            base: "/.auth",
            ours: &[],
            trusted: &[],
            login_url: "/login",
            after_login: "/",
            provider: None,
            revocations: room.revocations.clone(),
            clock: room.clock.clone(),
        });
        let confirm = "token_hash=abc&type=email";
        let hash = r#"{"type":"email","token_hash":"abc"}"#;
        for (endpoint, request) in [
            (Endpoint::Login, json(ADA)),
            (Endpoint::Signup, json(ADA)),
            (Endpoint::Otp, json(ADA)),
            (Endpoint::Verify, json(hash)),
            (Endpoint::Confirm, query(confirm)),
            (Endpoint::Start, query("provider=github")),
            (Endpoint::Callback, query("code=abc")),
        ] {
            let reject = Client::new()
                .send(&endpoints, endpoint, &request)
                .await
                .unwrap_err();
            assert_eq!(reject.code(), Code::NotSupported, "{endpoint:?}");
        }
        let ada = who(&room.identity.token("ada@example.com"));
        let request = Sent {
            caller: Some(&ada),
            ..Sent::default()
        };
        assert!(
            Client::new()
                .send(&endpoints, Endpoint::Session, &request)
                .await
                .is_ok()
        );
        let answer = Client::new()
            .send(&endpoints, Endpoint::Logout, &Sent::default())
            .await
            .unwrap();
        assert_eq!(answer.status, 204);
    });
}
