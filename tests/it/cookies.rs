//! Cookies of the real libraries in every form that was ever written, through the whole gateway: what the library takes
//! for a session becomes that very Bearer token, everything else is nobody, and nothing is ever a failure of ours.

use crate::support::keys::{Signer, base64url, claims, claims_with, jwt_provider, key_server};
use crate::support::{Answer, Client, House, Identity, NOW, Reply, Upstream, cookie, keys};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tollhouse::base::clock::Clock;

/// The recorded tokens are valid in the last hour of 2099.
const RECORDED: u64 = 4_102_441_200 + 600;

fn recorded() -> Value {
    serde_json::from_str(include_str!("../vectors/supabase-cookies.json")).unwrap()
}

fn text<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key]
        .as_str()
        .unwrap_or_else(|| panic!("{key} of {}", case["id"]))
}

/// One request with these cookies, as bytes.
fn with_cookies(house: &House, path: &str, cookies: &str) -> Vec<u8> {
    let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", house.address).into_bytes();
    bytes.extend_from_slice(b"Cookie: ");
    bytes.extend_from_slice(cookies.as_bytes());
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// Whether a cookie of this name holds a session of this storage key, by the words of the library's documentation.
fn is_session(key: &str, name: &str) -> bool {
    let of = |key: &str| {
        name.strip_prefix(key).is_some_and(|rest| {
            rest.is_empty()
                || rest
                    .strip_prefix('.')
                    .is_some_and(|n| n.parse::<u64>().is_ok_and(|index| index.to_string() == n))
        })
    };
    of(key) || of("supabase-auth-token") || name == "sb-access-token" || name == "sb-refresh-token"
}

/// The cookies of a field that are no session, as they stand.
fn others(key: &str, field: &str) -> Vec<String> {
    field
        .split(';')
        .map(|part| part.trim_matches([' ', '\t']))
        .filter(|part| !part.is_empty())
        .filter(|part| {
            !is_session(
                key,
                part.split('=').next().unwrap().trim_matches([' ', '\t']),
            )
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_recorded_cookie_becomes_the_bearer_that_the_library_would_use_or_nobody() {
    let recorded = recorded();
    let cases = recorded["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 131);
    // Each case with its storage key configured, and, where the library derives it from the URL, without.
    let mut groups: BTreeMap<(String, Option<String>, u64), Vec<&Value>> = BTreeMap::new();
    for case in cases {
        let (url, key) = (text(case, "supabase_url"), text(case, "storage_key"));
        let now = case["now"].as_u64().unwrap_or(RECORDED);
        let mut add = |key| {
            let group = groups.entry((url.to_owned(), key, now)).or_default();
            group.push(case);
        };
        add(Some(key.to_owned()));
        if !text(case, "id").starts_with("name-custom") {
            add(None);
        }
    }
    let keys = Upstream::start();
    keys.reply(keys::json_reply(&recorded["jwt"]["jwks"].to_string()));
    let secret = text(&recorded["jwt"], "hs256_secret");
    let upstream = Upstream::start();
    let (mut wrong, mut passed) = (Vec::new(), 0);
    for ((url, key, now), cases) in &groups {
        let named = key
            .as_ref()
            .map_or(String::new(), |key| format!("cookie_name = \"{key}\"\n"));
        let file = format!(
            "[providers.main]\nkind = \"supabase\"\nurl = \"{url}\"\ninternal_url = \"{}\"\njwt_secret = \"{secret}\"\n{named}\
             [session]\nmode = \"shared\"\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
            keys.url(),
            upstream.url()
        );
        let house = House::start_at(&file, Clock::frozen(*now));
        for case in cases {
            let id = text(case, "id");
            let header = text(case, "cookie_header");
            let mut client = Client::connect(house.address);
            // The second time the connection remembers it; that must make no difference.
            for round in 1..=2 {
                upstream.forget();
                client.write(&with_cookies(&house, "/me", header));
                let answer = client.read();
                match judge(case, &answer, &upstream, *now, header) {
                    Ok(through) => passed += usize::from(through),
                    Err(problem) => wrong.push(format!(
                        "{id} (round {round}, storage key {key:?}): {problem}; {} {}",
                        answer.status,
                        answer.text()
                    )),
                }
            }
        }
        assert_eq!(house.log.wait_for(cases.len() * 2).len(), cases.len() * 2);
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    // Not all alike: most of them are sessions.
    assert!(passed > 300, "{passed}");
}

/// Whether the answer and what the upstream got are those of this case; `Ok(true)` when it went through.
fn judge(
    case: &Value,
    answer: &Answer,
    upstream: &Upstream,
    now: u64,
    header: &str,
) -> Result<bool, String> {
    let expect = case["expect"].as_object();
    // Only the recorded cases with a time of their own are ever over.
    let over = |expect: &serde_json::Map<String, Value>| {
        case["now"].is_u64() && expect["expires_at"].as_u64().unwrap() <= now
    };
    let code = match expect {
        Some(expect) if !over(expect) => {
            let token = expect["access_token"].as_str().unwrap();
            let received = upstream.received();
            let [received] = received.as_slice() else {
                return Err(format!("{} requests upstream", received.len()));
            };
            if answer.status != 200 {
                return Err("not let through".into());
            }
            if received.header("authorization") != Some(&*bearer(token)) {
                return Err("another token".into());
            }
            if received.header("x-user-id") != case["jwt_sub"].as_str() {
                return Err(format!("user {:?}", received.header("x-user-id")));
            }
            let rest = others(text(case, "storage_key"), header).join("; ");
            if received.header("cookie").unwrap_or("") != rest {
                return Err(format!(
                    "cookies {:?}, not {rest:?}",
                    received.header("cookie")
                ));
            }
            return Ok(true);
        }
        Some(_) => "token_expired",
        None => "missing_credentials",
    };
    if (answer.status, &*answer.code()) != (401, code) {
        return Err(format!("not {code}"));
    }
    if upstream.count() != 0 {
        return Err("it reached the upstream".into());
    }
    Ok(false)
}

/// A gateway before one upstream, with the development provider's sessions.
struct Scene {
    identity: Identity,
    upstream: Upstream,
    house: House,
    clock: Clock,
}

fn scene(routes: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "{}[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n[upstreams.app]\nurl = \"{}\"\n{routes}",
        identity.tables(),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        identity,
        upstream,
        house,
        clock,
    }
}

const PROTECTED: &str = "[[routes]]\npath = \"/*\"\n";

impl Scene {
    fn get(&self, path: &str, cookies: &str) -> Answer {
        self.house.get(path, &[("cookie", cookies)])
    }

    fn refused(&self, cookies: &str, status: u16, code: &str) {
        let before = self.upstream.count();
        let answer = self.get("/me", cookies);
        assert_eq!((answer.status, &*answer.code()), (status, code));
        assert_eq!(self.upstream.count(), before, "it reached the upstream");
    }
}

/// The session cut into pieces of so many characters.
fn pieces(session: &Value, size: usize) -> Vec<String> {
    let value = format!("base64-{}", base64url(session.to_string()));
    let pieces = value.as_bytes().chunks(size).enumerate();
    pieces
        .map(|(n, piece)| format!("sb-127-auth-token.{n}={}", String::from_utf8_lossy(piece)))
        .collect()
}

#[test]
fn up_to_32_pieces_are_a_session_and_33_are_none() {
    let scene = scene(PROTECTED);
    let session = scene.identity.session("ada@example.com");
    let length = format!("base64-{}", base64url(session.to_string())).len();
    for count in [2, 20, 32] {
        let pieces = pieces(&session, length.div_ceil(count));
        assert_eq!(pieces.len(), count);
        assert_eq!(scene.get("/me", &pieces.join("; ")).status, 200, "{count}");
        assert_eq!(scene.upstream.last().header("cookie"), None);
    }
    let size = (1..length)
        .find(|size| length.div_ceil(*size) == 33)
        .unwrap();
    let pieces = pieces(&session, size);
    assert_eq!(pieces.len(), 33);
    scene.refused(&pieces.join("; "), 401, "missing_credentials");
}

#[test]
fn a_session_near_64_kib_passes_and_a_larger_one_is_none() {
    let scene = scene(PROTECTED);
    let mut session = scene.identity.session("ada@example.com");
    let base = format!("base64-{}", base64url(session.to_string())).len();
    let mut of_size = |size: usize| {
        session["user"]["user_metadata"]["padding"] = json!("x".repeat((size - base) * 3 / 4));
        pieces(&session, 3180).join("; ")
    };
    let large = of_size(63_000);
    assert!(large.len() > 63_000);
    assert_eq!(scene.get("/me", &large).status, 200);
    let too_large = of_size(66_500);
    assert!(
        too_large.len() > 65_536 && too_large.len() < 80_000,
        "{}",
        too_large.len()
    );
    scene.refused(&too_large, 401, "missing_credentials");
    // Over `max_header_bytes`.
    scene.refused(&of_size(90_000), 431, "headers_too_large");
}

#[test]
fn of_two_cookies_of_one_name_the_first_counts_whoever_is_in_the_other() {
    let scene = scene(PROTECTED);
    let (ada, grace) = (
        scene.identity.session("ada@example.com"),
        scene.identity.session("grace@example.com"),
    );
    let (of_ada, of_grace) = (cookie(&ada.to_string()), cookie(&grace.to_string()));
    for (first, second, user) in [(&of_ada, &of_grace, &ada), (&of_grace, &of_ada, &grace)] {
        assert_eq!(scene.get("/me", &format!("{first}; {second}")).status, 200);
        let received = scene.upstream.last();
        assert_eq!(received.header("x-user-id"), user["user"]["id"].as_str());
        assert_eq!(received.header("cookie"), None);
        // Two fields are one list.
        let answer = scene
            .house
            .get("/me", &[("cookie", first), ("cookie", second)]);
        assert_eq!(answer.status, 200);
        let received = scene.upstream.last();
        assert_eq!(received.header("x-user-id"), user["user"]["id"].as_str());
        assert_eq!(received.header("cookie"), None);
    }
    scene.refused(
        &format!("sb-127-auth-token=; {of_ada}"),
        401,
        "missing_credentials",
    );
    scene.refused(
        &format!("sb-127-auth-token=base64-e30; {of_ada}"),
        401,
        "missing_credentials",
    );
}

#[test]
fn what_the_cookie_says_of_its_user_is_never_believed() {
    let scene = scene(
        "[[routes]]\npath = \"/*\"\n[[routes]]\npath = \"/admin\"\nrequire = { any_role = [\"admin\"] }\n",
    );
    let mut session = scene.identity.session("ada@example.com");
    let ada = session["user"]["id"].as_str().unwrap().to_owned();
    session["user"]["id"] = json!("root");
    session["user"]["app_metadata"] = json!({"role": "admin"});
    session["user"]["role"] = json!("admin");
    session["expires_at"] = json!(NOW * 2);
    let cookies = cookie(&session.to_string());
    assert_eq!(scene.get("/me", &cookies).status, 200);
    assert_eq!(scene.upstream.last().header("x-user-id"), Some(&*ada));
    assert_eq!(scene.upstream.last().header("x-user-role"), Some("user"));
    assert_eq!(scene.get("/admin", &cookies).code(), "forbidden");
    scene.clock.advance(Duration::from_secs(3600));
    assert_eq!(scene.get("/me", &cookies).code(), "token_expired");
}

#[test]
fn a_cookie_with_a_token_that_does_not_verify_is_401_and_no_failure_of_ours() {
    let scene = scene(PROTECTED);
    let session = scene.identity.session("ada@example.com");
    let good = session["access_token"].as_str().unwrap();
    let with = |token: &str| {
        let mut session = session.clone();
        session["access_token"] = json!(token);
        cookie(&session.to_string())
    };
    let forger = Signer::p256("forged");
    let mut stolen: Value = claims();
    stolen["iss"] = json!(format!("{}/auth/v1", scene.identity.url));
    stolen["aud"] = json!("authenticated");
    for token in [
        forger.token(&stolen),
        forger.token(&claims()),
        format!("{good}x"),
        good[..good.len() - 4].to_owned(),
        "not a token".into(),
        ".".into(),
        "..".into(),
        "é.é.é".into(),
        "a".repeat(20_000),
    ] {
        scene.refused(&with(&token), 401, "invalid_token");
    }
    assert_eq!(scene.get("/me", &with(good)).status, 200);
}

#[test]
fn cookies_of_another_project_and_verifiers_pass_untouched() {
    let scene = scene(PROTECTED);
    let own = scene.identity.cookie("ada@example.com");
    let foreign = own.replace("sb-127-auth-token", "sb-other-auth-token");
    let kept = [
        &*foreign,
        "sb-other-auth-token.0=x",
        "sb-127-auth-token-code-verifier=base64-IjEi",
        "sb-127-auth-token-flow-0123456789abcdef-code-verifier=base64-IjIi",
        "sb-127-auth-token-flows-code-verifier=%5B%5D",
        "sb-127-auth-token-user=x",
        "SB-127-AUTH-TOKEN=x",
        "sb-127-auth-token.00=x",
        "theme=dark mode; lang=\"en\"",
    ]
    .join("; ");
    assert_eq!(scene.get("/me", &format!("{kept}; {own}")).status, 200);
    assert_eq!(scene.upstream.last().header("cookie"), Some(&*kept));
    // Without a session of ours they are nobody's.
    scene.refused(&kept, 401, "missing_credentials");
}

const FORWARDING: &str = "[[routes]]\npath = \"/bearer\"\n\
    [[routes]]\npath = \"/cookies\"\nforward_session = \"cookies\"\n\
    [[routes]]\npath = \"/both\"\nforward_session = \"both\"\n\
    [[routes]]\npath = \"/none\"\nforward_session = \"none\"\n\
    [[routes]]\npath = \"/optional\"\nauth = \"optional\"\nforward_session = \"both\"\n\
    [[routes]]\npath = \"/public\"\nauth = \"public\"\n";

#[test]
fn the_upstream_gets_of_a_session_what_the_route_says() {
    let scene = scene(FORWARDING);
    let session = scene.identity.session("ada@example.com");
    let own = cookie(&session.to_string());
    let token = bearer(session["access_token"].as_str().unwrap());
    let verifier = "sb-127-auth-token-code-verifier=v";
    let all = format!("a=1; {own}; {verifier}; sb-access-token=x; b=2");
    let rest = format!("a=1; {verifier}; b=2");
    // On one connection, which remembers the field: each route still gets its own.
    let mut client = Client::connect(scene.house.address);
    for (path, with_bearer, with_cookies, identified) in [
        ("/bearer", true, false, true),
        ("/cookies", false, true, true),
        ("/both", true, true, true),
        ("/none", false, false, true),
        ("/optional", true, true, true),
        ("/public", false, false, false),
        ("/bearer", true, false, true),
        ("/both", true, true, true),
        ("/none", false, false, true),
    ] {
        // What a client adds by hand is none of it.
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nCookie: {all}\r\nX-User-Id: root\r\n\r\n");
        client.write(request.as_bytes());
        assert_eq!(client.read().status, 200, "{path}");
        let received = scene.upstream.last();
        let expected = with_bearer.then_some(&*token);
        assert_eq!(received.header("authorization"), expected, "{path}");
        let user = session["user"]["id"].as_str().filter(|_| identified);
        assert_eq!(received.header("x-user-id"), user, "{path}");
        let cookies = received.header("cookie").unwrap();
        if with_cookies {
            assert!(
                cookies.contains(&own) && cookies.contains(verifier),
                "{path}"
            );
        } else {
            assert_eq!(cookies, rest, "{path}");
        }
    }
}

#[test]
fn other_cookies_pass_as_the_route_says_also_when_the_connection_remembers_them() {
    let scene = scene(
        "[[routes]]\npath = \"/all\"\n[[routes]]\npath = \"/none\"\nforward_cookies = false\n\
         [[routes]]\npath = \"/named\"\nforward_cookies = [\"b\"]\n\
         [[routes]]\npath = \"/both\"\nforward_cookies = [\"c\"]\nforward_session = \"both\"\n",
    );
    let own = scene.identity.cookie("ada@example.com");
    let field = format!("a=1; {own}; b=2; b=3; c=4");
    let mut client = Client::connect(scene.house.address);
    for _ in 0..2 {
        for (path, expected) in [
            ("/all", Some("a=1; b=2; b=3; c=4")),
            ("/none", None),
            ("/named", Some("b=2; b=3")),
            ("/both", Some(&*format!("{own}; c=4"))),
        ] {
            client.write(&with_cookies(&scene.house, path, &field));
            assert_eq!(client.read().status, 200, "{path}");
            assert_eq!(scene.upstream.last().header("cookie"), expected, "{path}");
        }
    }
}

#[test]
fn a_forwarded_session_has_one_copy_of_each_cookie_the_one_that_was_verified() {
    let scene = scene(FORWARDING);
    let (ada, grace) = (
        scene.identity.cookie("ada@example.com"),
        scene.identity.cookie("grace@example.com"),
    );
    // Readers disagree which of two counts: the upstream must not read another user than we did.
    for cookies in [
        format!("{ada}; a=1; {grace}"),
        format!("{ada}; a=1; {}", grace.replace("sb-127", "sb%2D127")),
    ] {
        for path in ["/cookies", "/both"] {
            assert_eq!(scene.get(path, &cookies).status, 200);
            let received = scene.upstream.last();
            assert_eq!(
                received.header("cookie"),
                Some(&*format!("{ada}; a=1")),
                "{path}"
            );
        }
    }
}

#[test]
fn cookies_are_not_forwarded_when_they_did_not_count() {
    let scene = scene(FORWARDING);
    let (ada, grace) = (
        scene.identity.cookie("ada@example.com"),
        scene.identity.token("grace@example.com"),
    );
    for path in ["/cookies", "/both", "/optional"] {
        let answer = scene.house.get(
            path,
            &[
                ("cookie", &format!("{ada}; a=1")),
                ("authorization", &bearer(&grace)),
            ],
        );
        assert_eq!(answer.status, 200);
        let received = scene.upstream.last();
        assert_eq!(received.header("cookie"), Some("a=1"), "{path}");
        assert_eq!(
            received.header("authorization"),
            Some(&*bearer(&grace)),
            "{path}"
        );
    }
}

#[test]
fn set_cookie_of_session_names_passes_only_where_cookies_are_forwarded() {
    let scene = scene(FORWARDING);
    let own = scene.identity.cookie("ada@example.com");
    scene.upstream.reply(Reply::bytes(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: sb-127-auth-token=evil; Path=/\r\n\
         Set-Cookie: sb-127-auth-token.1=; Max-Age=0\r\nSet-Cookie: sb-access-token=evil\r\nSet-Cookie: =sb-127-auth-token=evil\r\n\
         Set-Cookie: sb-127-auth-token-code-verifier=; Max-Age=0\r\nSet-Cookie: theme=dark\r\n\r\nok",
    ));
    let harmless = ["sb-127-auth-token-code-verifier=; Max-Age=0", "theme=dark"];
    for (path, passes) in [
        ("/bearer", false),
        ("/cookies", true),
        ("/both", true),
        ("/none", false),
        ("/optional", true),
        ("/public", false),
    ] {
        let answer = scene.get(path, &own);
        let set = answer.all("set-cookie");
        assert!(harmless.iter().all(|field| set.contains(field)), "{path}");
        let evil = set.len() - harmless.len();
        assert_eq!(evil > 0, passes, "{path}: {set:?}");
    }
    // Where cookies are forwarded the application may also begin a session: its login sets cookies for nobody.
    let answer = scene.get("/optional", "a=1");
    assert!(answer.all("set-cookie").len() > harmless.len());
    assert_eq!(answer.header("cache-control"), Some("private, no-store"));
}

#[test]
fn optional_routes_take_a_broken_or_expired_session_for_nobody() {
    let scene = scene("[[routes]]\npath = \"/*\"\nauth = \"optional\"\n");
    let session = scene.identity.session("ada@example.com");
    let own = cookie(&session.to_string());
    assert_eq!(scene.get("/", &own).status, 200);
    assert_eq!(
        scene.upstream.last().header("x-user-id"),
        session["user"]["id"].as_str()
    );
    let mut forged = session.clone();
    forged["access_token"] = json!(Signer::p256("k").token(&claims()));
    for broken in [
        "sb-127-auth-token=base64-!!!",
        "sb-127-auth-token=",
        "sb-access-token=x",
        &cookie(&forged.to_string()),
    ] {
        assert_eq!(scene.get("/", broken).status, 200, "{broken}");
        let received = scene.upstream.last();
        assert_eq!(received.header("x-user-id"), None, "{broken}");
        assert_eq!(received.header("authorization"), None, "{broken}");
        assert_eq!(received.header("cookie"), None, "{broken}");
    }
    // Explicit ones must verify, here too.
    let explicit = [("cookie", &*own), ("authorization", "Bearer x")];
    assert_eq!(scene.house.get("/", &explicit).code(), "invalid_token");
    scene.clock.advance(Duration::from_secs(3600));
    assert_eq!(scene.get("/", &own).status, 200);
    assert_eq!(scene.upstream.last().header("x-user-id"), None);
    assert_eq!(scene.upstream.last().header("authorization"), None);
}

#[test]
fn a_session_ends_with_its_token_and_not_a_leeway_later() {
    let scene = scene(PROTECTED);
    let session = scene.identity.session("ada@example.com");
    let own = cookie(&session.to_string());
    let token = session["access_token"].as_str().unwrap();
    let mut client = Client::connect(scene.house.address);
    scene.clock.advance(Duration::from_secs(3599));
    for expected in [200, 401] {
        client.write(&with_cookies(&scene.house, "/me", &own));
        assert_eq!(client.read().status, expected);
        scene.clock.advance(Duration::from_secs(1));
    }
    // A bearer token has the leeway, for clocks that differ; the same token in the cookie never.
    let answer = scene.house.get("/me", &[("authorization", &bearer(token))]);
    assert_eq!(answer.status, 200);
    scene.refused(&own, 401, "token_expired");
    scene.clock.advance(Duration::from_secs(30));
    let answer = scene.house.get("/me", &[("authorization", &bearer(token))]);
    assert_eq!(answer.code(), "token_expired");
}

#[test]
fn a_cookie_may_hold_the_raw_token_of_a_jwt_provider() {
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}cookie_name = \"app_jwt\"\n[session]\nmode = \"shared\"\n[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        jwt_provider("main", &server),
        upstream.url()
    ));
    let token = signer.token(&claims());
    let get = |cookies: &str| house.get("/", &[("cookie", cookies)]);
    assert_eq!(get(&format!("a=1; app_jwt={token}; b=2")).status, 200);
    let received = upstream.last();
    assert_eq!(received.header("authorization"), Some(&*bearer(&token)));
    assert_eq!(received.header("x-user-id"), Some("u-1"));
    assert_eq!(received.header("cookie"), Some("a=1; b=2"));
    let expired = signer.token(&claims_with(json!({"iat": NOW - 100, "exp": NOW})));
    for (cookies, code) in [
        ("app_jwt=".to_owned(), "missing_credentials"),
        (format!("App_jwt={token}"), "missing_credentials"),
        (format!("app_jwt.0={token}"), "missing_credentials"),
        (format!("app_jwt=; app_jwt={token}"), "missing_credentials"),
        (format!("app_jwt=x; app_jwt={token}"), "invalid_token"),
        (format!("app_jwt=\"{token}\""), "invalid_token"),
        (
            format!("app_jwt={}", Signer::p256("k1").token(&claims())),
            "invalid_token",
        ),
        (format!("app_jwt={expired}"), "session_expired"),
    ] {
        let answer = get(&cookies);
        assert_eq!((answer.status, &*answer.code()), (401, code), "{cookies}");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_session_cookie_holds_only_tokens_of_the_sessions_own_provider() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}provider = \"main\"\n{}[upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
            identity.tables(),
            jwt_provider("other", &server),
            upstream.url()
        ),
        clock,
    );
    let token = signer.token(&claims());
    let answer = house.get("/", &[("authorization", &bearer(&token))]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut session = identity.session("ada@example.com");
    session["access_token"] = json!(token);
    for cookies in [
        cookie(&session.to_string()),
        format!("sb-access-token={token}; sb-refresh-token=x"),
    ] {
        let answer = house.get("/", &[("cookie", &cookies)]);
        assert_eq!((answer.status, &*answer.code()), (401, "invalid_token"));
    }
    assert_eq!(upstream.count(), 1);
}
