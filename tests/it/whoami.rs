//! `endpoint = "session"`: who the caller is, at a path of the operator's.

use crate::support::{House, Identity, NOW};
use serde_json::json;
use tollhouse::base::clock::Clock;

fn house(clock: &Clock, identity: &Identity, more: &str) -> House {
    let file = format!(
        "{}\n[[routes]]\npath = \"/me\"\nendpoint = \"session\"\n{more}\n\
         [[routes]]\npath = \"/maybe\"\nendpoint = \"session\"\nauth = \"optional\"\n\
         [[routes]]\npath = \"/me\"\nmethods = [\"POST\"]\nrespond = {{ status = 202 }}\nauth = \"public\"\n\
         [[tests]]\nrequest = \"GET /me\"\nas = {{ with = \"session\" }}\nstatus = 200\n\
         [[tests]]\nrequest = \"GET /me\"\nas = \"nobody\"\nstatus = 401\n\
         [[tests]]\nrequest = \"GET /maybe\"\nas = \"nobody\"\nstatus = 401\n",
        identity.tables()
    );
    House::start_at(&file, clock.clone())
}

#[test]
fn it_tells_who_the_caller_is_and_never_a_token() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let house = house(
        &clock,
        &identity,
        "cache = \"public\"\nresponse_headers = { set = { Cache-Control = \"public\" } }\nallow_lints = [\"public-cache\"]",
    );
    let session = identity.session("grace@example.com");
    let cookie = crate::support::cookie(&session.to_string());
    let answer = house.get("/me", &[("cookie", &cookie)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.all("cache-control"), ["no-store"]);
    let wanted = json!({
        "user": {
            "id": session["user"]["id"],
            "email": "grace@example.com",
            "roles": ["admin"],
            "user_metadata": session["user"]["user_metadata"],
        },
        "provider": "main",
        "expires_at": session["expires_at"],
    });
    assert_eq!(answer.json(), wanted);
    let token = identity.token("grace@example.com");
    let bearer = house.get("/me", &[("authorization", &format!("Bearer {token}"))]);
    assert_eq!(bearer.json()["user"], wanted["user"]);
    for answer in [answer, bearer] {
        let text = answer.text();
        for secret in ["access_token", "refresh_token"] {
            assert!(!text.contains(session[secret].as_str().unwrap()), "{text}");
        }
    }
    let head = house.request("HEAD", "/me", &[("cookie", &cookie)], "");
    assert_eq!((head.status, head.text().len()), (200, 0));
}

#[test]
fn nobody_is_told_nothing_and_only_reading_is_answered() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let house = house(&clock, &identity, "");
    for path in ["/me", "/maybe"] {
        let answer = house.get(path, &[]);
        assert_eq!(
            (answer.status, &*answer.code()),
            (401, "missing_credentials"),
            "{path}"
        );
        assert_eq!(
            answer.header("www-authenticate"),
            Some("Bearer realm=\"tollhouse\"")
        );
    }
    let cookie = identity.cookie("ada@example.com");
    assert_eq!(house.get("/maybe", &[("cookie", &cookie)]).status, 200);
    // Another route may have the other methods of the path.
    assert_eq!(house.request("POST", "/me", &[], "").status, 202);
    let refused = house.request("PUT", "/me", &[], "");
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD, POST"))
    );
}
