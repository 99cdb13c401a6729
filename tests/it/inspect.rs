//! `tollhouse token inspect`: what it says of a credential is what the gateway would do with it, in every form in which it can
//! be pasted; nothing that it prints gives anything away, nothing is renewed, and nothing is fetched unasked.

use crate::process::{Ended, run_with};
use crate::support::keys::{self, Signer, base64url, jwt_provider, key_server};
use crate::support::redis::{self as server, RedisServer};
use crate::support::{Answer, House, Identity, NOW, Reply, Upstream, cookie, read, taken};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tollhouse::base::clock::Clock;
use tollhouse::cli::token::{input, look};
use tollhouse::redis::Redis;

const SECRET: &str = "a shared secret of 32 bytes, yes";
const ISSUER: &str = "https://p.supabase.co/auth/v1";
const REFRESH_TOKEN: &str = "refresh-token-that-nobody-may-see";
const SHARED: &str = "[session]\nmode = \"shared\"\n";

/// A file whose provider signs with a secret, so that nothing has to be fetched.
fn file(session: &str) -> String {
    format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"https://p.supabase.co\"\njwt_secret = \"{SECRET}\"\n{session}\
         [upstreams.app]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n"
    )
}

fn folder(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tollhouse.toml"), text).unwrap();
    folder
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn signer() -> Signer {
    Signer::secret(SECRET.as_bytes())
}

/// Claims of a user who signed in just now, some of them changed.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "authenticated", "sub": "0b6dfd1c-0a55-4a1f-9c5e-5a1b5c1f7a10", "role": "authenticated",
        "iat": now(), "exp": now() + 3600, "aal": "aal1", "session_id": "d5c2af38-d523-412d-8808-d63e3718991d",
        "email": "ada@example.com", "is_anonymous": false, "app_metadata": {"role": "admin", "roles": ["editor"]},
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn token() -> String {
    signer().token(&claims(json!({})))
}

/// The text of a session, as the library keeps it.
fn session(token: &str) -> String {
    json!({
        "access_token": token, "refresh_token": REFRESH_TOKEN, "expires_at": now() + 3600, "token_type": "bearer",
        "user": {"id": "u", "email": "ada@example.com"},
    })
    .to_string()
}

/// Its cookies in two pieces.
fn pieces(token: &str) -> String {
    let value = format!("base64-{}", base64url(session(token)));
    let (one, other) = value.split_at(value.len() / 2);
    format!("sb-p-auth-token.0={one}; sb-p-auth-token.1={other}")
}

/// Runs the command for people and for machines; nothing secret may be in what it says.
fn inspect(folder: &TempDir, more: &[&str], pasted: &str, secrets: &[&str]) -> (Ended, Value) {
    let arguments = [&["token", "inspect"][..], more].concat();
    let text = run_with(folder.path(), &arguments, pasted);
    let json = run_with(
        folder.path(),
        &[&arguments[..], &["--json"]].concat(),
        pasted,
    );
    assert_eq!(text.code, json.code, "{text:?}");
    for ended in [&text, &json] {
        assert_eq!(ended.err, "", "{pasted}");
        gives_nothing_away(&ended.out, secrets);
    }
    (text, serde_json::from_str(&json.out).unwrap())
}

/// No sixteen characters of a secret stand in a text.
fn gives_nothing_away(text: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(secret.len() >= 16, "too short to be looked for");
        for window in secret.as_bytes().windows(16) {
            let window = std::str::from_utf8(window).unwrap();
            assert!(!text.contains(window), "{window} is in:\n{text}");
        }
    }
}

/// How a check came out.
fn check(report: &Value, name: &str) -> String {
    let checks = report["credentials"][0]["token"]["checks"].as_array();
    let mut found = checks
        .unwrap()
        .iter()
        .filter(|check| check["check"] == name);
    found.next().unwrap()["result"].as_str().unwrap().to_owned()
}

/// What would come of the first credential: as a session cookie, and as a Bearer token.
fn verdicts(report: &Value) -> [String; 2] {
    ["as_session", "as_bearer"].map(|form| {
        let verdict = &report["credentials"][0][form];
        match (verdict["code"].as_str(), verdict["status"].as_u64()) {
            (Some(code), Some(status)) => format!("{status} {code}"),
            _ => verdict["verdict"].as_str().unwrap().to_owned(),
        }
    })
}

#[test]
fn a_good_credential_is_accepted_in_every_form_in_which_it_is_pasted() {
    let folder = folder(&file(SHARED));
    let token = token();
    let cookies = pieces(&token);
    let value = format!("base64-{}", base64url(session(&token)));
    let plain = session(&token);
    let percent = plain
        .replace('%', "%25")
        .replace('"', "%22")
        .replace('{', "%7B");
    let secrets = [&*token, REFRESH_TOKEN, &*value];
    for (pasted, read_as, from) in [
        (token.clone(), "token", "token"),
        (
            format!("{}\n{}\n", &token[..80], &token[80..]),
            "token",
            "token",
        ),
        (format!("Bearer {token}"), "bearer", "authorization"),
        (
            format!("authorization: bearer {token}\n"),
            "fields",
            "authorization",
        ),
        (
            format!("GET /api HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"),
            "fields",
            "authorization",
        ),
        (format!("Cookie: a=b; {cookies}"), "fields", "cookie"),
        (
            format!("accept\n*/*\ncookie\na=b; {cookies}\nuser-agent\nx"),
            "fields",
            "cookie",
        ),
        (cookies.clone(), "cookies", "cookie"),
        (value.clone(), "cookie_value", "cookie"),
        (plain, "cookie_value", "cookie"),
        (percent, "cookie_value", "cookie"),
        (
            format!(
                "curl 'https://a.test/api' \\\n  -H 'accept: */*' \\\n  -b 'a=b; {cookies}' \\\n  --compressed"
            ),
            "curl",
            "cookie",
        ),
        (
            format!("curl 'https://a.test/' -H $'cookie: a=\\u0021; {cookies}'"),
            "curl",
            "cookie",
        ),
        (
            format!("curl https://a.test/ -sS -H \"Authorization: Bearer {token}\""),
            "curl",
            "authorization",
        ),
        (
            format!("curl --oauth2-bearer {token} https://a.test/"),
            "curl",
            "authorization",
        ),
        (
            format!(
                "curl ^\"https://a.test/^\" ^\r\n  -H ^\"accept: */*^\" ^\r\n  -b ^\"a=b; {cookies}^\""
            ),
            "curl_cmd",
            "cookie",
        ),
        (
            format!("curl \"https://a.test/\" ^\r\n  -H \"cookie: {cookies}\" ^\r\n  --compressed"),
            "curl_cmd",
            "cookie",
        ),
    ] {
        let (text, report) = inspect(&folder, &[], &pasted, &secrets);
        assert_eq!(text.code, Some(0), "{text:?}");
        assert_eq!(report["accepted"], true);
        let credential = &report["credentials"][0];
        assert_eq!(
            (&report["read_as"], &credential["from"]),
            (&json!(read_as), &json!(from))
        );
        assert_eq!(verdicts(&report), ["accepted", "accepted"], "{pasted}");
        let said = &credential["token"];
        assert_eq!(
            (&said["provider"], &said["proven"]),
            (&json!("main"), &json!(true))
        );
        assert_eq!(said["header"], json!({"alg": "HS256", "typ": "JWT"}));
        assert_eq!(said["identity"]["roles"], json!(["admin", "editor"]));
        assert!(said["claims"]["exp"].as_u64().unwrap() > now() + 3000);
        assert_eq!(said["other_claims"], json!(["app_metadata", "email"]));
        let checks = said["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 15);
        assert!(
            checks.iter().all(|check| check["result"] == "ok"),
            "{checks:?}"
        );
        for shown in [
            "admin, editor",
            ISSUER,
            "aal1",
            "ok    signature",
            "Bearer",
            "accepted\n",
        ] {
            assert!(text.out.contains(shown), "{shown}: {}", text.out);
        }
        assert!(!text.out.contains("ada@example.com"));
    }
}

#[test]
fn how_a_session_is_kept_is_told() {
    let folder = folder(&file(SHARED));
    let token = token();
    let secrets = [&*token, REFRESH_TOKEN];
    let kept = |pasted: &str, expected: Value, cookies: usize, refresh: Value| {
        let (_, report) = inspect(&folder, &[], pasted, &secrets);
        let session = &report["credentials"][0]["session"];
        assert_eq!(session["kept"], expected, "{pasted}");
        assert_eq!(session["cookies"].as_array().unwrap().len(), cookies);
        assert_eq!(session["refresh_token_bytes"], refresh);
        assert_eq!(session["looked_for"], true);
        assert_eq!(verdicts(&report)[0], "accepted");
    };
    let of = |form: &str, encoding: &str, user: bool| json!({"kind": "supabase", "form": form, "encoding": encoding, "user": user});
    let length = json!(REFRESH_TOKEN.len());
    let text = session(&token);
    kept(
        &pieces(&token),
        of("object", "base64url", true),
        2,
        length.clone(),
    );
    kept(
        &format!("sb-p-auth-token={}", text.replace(';', "%3B")),
        of("object", "raw", true),
        1,
        length.clone(),
    );
    let only_tokens = text.replace("\"user\"", "\"nobody\"");
    kept(
        &format!("sb-p-auth-token=base64-{}", base64url(only_tokens)),
        of("object", "base64url", false),
        1,
        length.clone(),
    );
    kept(
        &format!("supabase-auth-token=%5B%22{token}%22%2C%22{REFRESH_TOKEN}%22%5D"),
        of("array", "raw", true),
        1,
        length.clone(),
    );
    kept(
        &format!("sb-access-token={token}; sb-refresh-token={REFRESH_TOKEN}"),
        of("two_cookies", "raw", true),
        2,
        length,
    );
    kept(
        &format!("sb-access-token={token}"),
        of("two_cookies", "raw", true),
        1,
        json!(null),
    );
}

#[test]
fn a_bad_credential_is_refused_for_the_reason_that_is_named() {
    let folder = folder(&file(SHARED));
    let with = |changes: Value| signer().token(&claims(changes));
    let mut forged = token();
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    for (token, name, code) in [
        (forged, "signature", "401 invalid_token"),
        (
            signer().with_header(
                &json!({"alg": "HS256", "typ": "logout+jwt"}),
                &claims(json!({})),
            ),
            "header",
            "401 invalid_token",
        ),
        (
            signer().with_header(&json!({"alg": "none"}), &claims(json!({}))),
            "header",
            "401 invalid_token",
        ),
        (
            signer().with_header(&json!({"alg": "HS512"}), &claims(json!({}))),
            "algorithm",
            "401 invalid_token",
        ),
        (
            signer().compact("HS256", br#"{"alg":"HS256"}"#, b"[]"),
            "payload",
            "401 invalid_token",
        ),
        (
            "a-word-that-is-no-token-at-all".to_owned(),
            "shape",
            "401 invalid_token",
        ),
        ("x".repeat(9000), "size", "401 invalid_token"),
        (
            with(json!({"iss": "https://other.supabase.co/auth/v1"})),
            "issuer",
            "401 invalid_token",
        ),
        (
            with(json!({"aud": "anon"})),
            "audience",
            "401 invalid_token",
        ),
        (with(json!({"exp": "soon"})), "expiry", "401 invalid_token"),
        (
            with(json!({"exp": now() - 3600})),
            "expiry",
            "401 token_expired",
        ),
        (
            with(json!({"nbf": now() + 3600})),
            "not_before",
            "401 invalid_token",
        ),
        (
            with(json!({"iat": now() + 3600})),
            "issued_at",
            "401 invalid_token",
        ),
        (with(json!({"sub": ""})), "subject", "401 invalid_token"),
        (
            with(json!({"role": "service_role"})),
            "role",
            "401 invalid_token",
        ),
        (
            with(json!({"is_anonymous": true})),
            "anonymous",
            "403 forbidden",
        ),
    ] {
        let (text, report) = inspect(&folder, &[], &token, &[&token]);
        assert_eq!(text.code, Some(1), "{name}: {text:?}");
        assert_eq!(check(&report, name), "fail", "{name}");
        assert_eq!(verdicts(&report)[1], code, "{name}");
        assert!(text.out.contains("FAIL  "), "{name}");
        // In a session it fares no better.
        let (text, report) = inspect(&folder, &[], &pieces(&token), &[&token, REFRESH_TOKEN]);
        assert_eq!(text.code, Some(1), "{name}: {text:?}");
        assert_eq!(check(&report, name), "fail", "{name}");
        assert_eq!(verdicts(&report)[0], code, "{name}");
    }
}

#[test]
fn what_the_file_says_of_cookies_decides_whether_they_are_looked_at() {
    let token = token();
    let secrets = [&*token, REFRESH_TOKEN];
    let bare = folder(&file(""));
    let (text, report) = inspect(&bare, &[], &pieces(&token), &secrets);
    assert_eq!(verdicts(&report), ["not_looked_at", "accepted"]);
    assert_eq!(report["credentials"][0]["session"]["looked_for"], false);
    assert!(
        text.out.contains("no [session]") && text.code == Some(0),
        "{text:?}"
    );
    // Of another project.
    let shared = folder(&file(SHARED));
    let other = pieces(&token).replace("sb-p-", "sb-other-");
    let (text, report) = inspect(&shared, &[], &other, &secrets);
    assert_eq!(verdicts(&report), ["401 missing_credentials", "accepted"]);
    assert!(
        text.out.contains("looks for the cookie `sb-p-auth-token`"),
        "{text:?}"
    );
    // Without a session at all.
    let (text, report) = inspect(&shared, &[], "Cookie: a=b", &secrets);
    assert_eq!(
        verdicts(&report),
        ["401 missing_credentials", "not_looked_at"]
    );
    assert_eq!(text.code, Some(1));
    // One that cannot be read.
    let broken = pieces(&token).replace("auth-token.0=base64-", "auth-token.0=base64-!");
    let (text, report) = inspect(&shared, &[], &broken, &secrets);
    assert_eq!(
        verdicts(&report),
        ["401 missing_credentials", "not_looked_at"]
    );
    assert!(text.out.contains("cannot be read"), "{text:?}");
    // Where no route takes it.
    let only = |what: &str| {
        let routes = format!("path = \"/*\"\ncredentials = [\"{what}\"]");
        folder(&file(SHARED).replace("path = \"/*\"", &routes))
    };
    let (_, report) = inspect(&only("bearer"), &[], &pieces(&token), &secrets);
    assert_eq!(verdicts(&report), ["not_looked_at", "accepted"]);
    let (_, report) = inspect(&only("session"), &[], &token, &secrets);
    assert_eq!(verdicts(&report), ["accepted", "not_looked_at"]);
    // A cookie that is the token.
    let jwt = format!(
        "[providers.main]\nkind = \"jwt\"\nissuer = \"{ISSUER}\"\naudiences = false\nsecret = \"{SECRET}\"\ncookie_name = \"app_jwt\"\n{SHARED}\
         [upstreams.app]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n"
    );
    let (_, report) = inspect(&folder(&jwt), &[], &format!("app_jwt={token}"), &secrets);
    assert_eq!(report["credentials"][0]["session"]["kept"]["kind"], "raw");
    assert_eq!(verdicts(&report), ["accepted", "accepted"]);
}

#[test]
fn of_a_cookie_and_a_bearer_token_both_are_told() {
    let folder = folder(&file(SHARED));
    let token = token();
    let pasted = format!(
        "curl https://a.test/ -b '{}' -H 'authorization: Bearer nonsense'",
        pieces(&token)
    );
    let (text, report) = inspect(&folder, &[], &pasted, &[&token, REFRESH_TOKEN]);
    let from = |at: usize| report["credentials"][at]["from"].clone();
    assert_eq!(
        (from(0), from(1)),
        (json!("authorization"), json!("cookie"))
    );
    assert_eq!(
        report["credentials"][0]["as_bearer"]["code"],
        "invalid_token"
    );
    assert_eq!(
        report["credentials"][1]["as_session"]["verdict"],
        "accepted"
    );
    assert!(text.out.contains("the Bearer token counts"), "{text:?}");
    let (text, report) = inspect(&folder, &[], "authorization: Basic abc", &[]);
    assert_eq!(verdicts(&report), ["not_looked_at", "not_looked_at"]);
    assert_eq!(text.code, Some(1));
    let twice = format!("authorization: Bearer {token}\nauthorization: Bearer {token}");
    let (text, _) = inspect(&folder, &[], &twice, &[&token]);
    assert!(text.out.contains("400 `bad_request`"), "{text:?}");
}

#[test]
fn keys_are_fetched_when_that_is_asked_for_and_otherwise_nothing_is() {
    let signer = Signer::p256("k1");
    let server = key_server(&[signer.jwk()]);
    let text = format!(
        "{}[upstreams.app]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n",
        jwt_provider("main", &server)
    );
    let folder = folder(&text);
    let claims = |exp: u64| json!({"iss": keys::ISSUER, "sub": "u-1", "aud": "app", "exp": exp});
    let good = signer.token(&claims(now() + 600));
    let (said, report) = inspect(&folder, &[], &good, &[&good]);
    assert_eq!(
        (said.code, check(&report, "signature")),
        (Some(1), "no_keys".to_owned())
    );
    assert_eq!(verdicts(&report)[1], "unknown");
    assert_eq!(
        report["credentials"][0]["as_bearer"]["accepted"],
        json!(null)
    );
    assert!(said.out.contains("--online"), "{said:?}");
    let over = signer.token(&claims(now() - 600));
    let (_, report) = inspect(&folder, &[], &over, &[&over]);
    assert_eq!(report["credentials"][0]["as_bearer"]["accepted"], false);
    assert_eq!(server.count(), 0);
    let (said, report) = inspect(&folder, &["--online"], &good, &[&good]);
    assert_eq!(
        (said.code, check(&report, "signature")),
        (Some(0), "ok".to_owned())
    );
    assert_eq!(server.count(), 2, "one for each run");
    let forged = Signer::p256("k1").token(&claims(now() + 600));
    let (_, report) = inspect(&folder, &["--online"], &forged, &[&forged]);
    assert_eq!(check(&report, "signature"), "fail");
    server.reply(Reply::bytes("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"));
    let (said, report) = inspect(&folder, &["--online"], &good, &[&good]);
    assert_eq!(
        (said.code, check(&report, "key")),
        (Some(1), "fail".to_owned())
    );
    assert_eq!(verdicts(&report)[1], "503 auth_unavailable");
}

#[test]
fn what_cannot_be_read_is_wrong_usage_and_is_not_repeated() {
    let folder = folder(&file(SHARED));
    let token = token();
    for (pasted, why) in [
        (String::new(), "nothing on standard input"),
        ("who is there?".to_owned(), "neither a token nor"),
        (
            format!("curl 'https://a.test/ -H cookie: {token}"),
            "never closed",
        ),
        (
            format!("curl -H \"authorization: Bearer $TOKEN{token}\" x"),
            "variable",
        ),
        ("curl https://a.test/".to_owned(), "neither a Cookie nor"),
        (
            "curl -b cookies.txt https://a.test/".to_owned(),
            "names a file",
        ),
        (format!("cookie: a=\u{1}{token}"), "characters"),
        ("x".repeat(300 << 10), "more than"),
    ] {
        let ended = run_with(folder.path(), &["token", "inspect"], &pasted);
        assert_eq!((ended.code, &*ended.out), (Some(2), ""), "{ended:?}");
        assert!(ended.err.contains(why), "{why}: {}", ended.err);
        gives_nothing_away(&ended.err, &[&token]);
    }
    for arguments in [
        vec!["token", "inspect", &token],
        vec!["token", "inspect", "--", &token],
        vec!["token", "inspect", "--json", &token, "--x"],
    ] {
        let ended = run_with(folder.path(), &arguments, "");
        assert_eq!((ended.code, &*ended.out), (Some(2), ""), "{ended:?}");
        assert!(ended.err.contains("history"), "{}", ended.err);
        gives_nothing_away(&ended.err, &[&token]);
    }
    assert_eq!(run_with(folder.path(), &["token"], "").code, Some(2));
    let nowhere = tempfile::tempdir().unwrap();
    let ended = run_with(nowhere.path(), &["token", "inspect"], &token);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("no configuration found"),
        "{}",
        ended.err
    );
}

/// What the library's function says, by a clock of the test's.
fn report(text: &str, clock: &Clock, pasted: &str) -> Value {
    let given = input::read(pasted.as_bytes()).unwrap();
    let report = look(read(text), clock.clone(), &given, true).unwrap();
    report.to_json()
}

/// Whether a verdict is what the gateway has done.
fn agrees(verdict: &Value, answer: &Answer) -> bool {
    match verdict["accepted"].as_bool() {
        Some(true) => answer.status == 200,
        Some(false) => {
            verdict["status"] == answer.status && verdict["code"].as_str() == Some(&answer.code())
        }
        None => false,
    }
}

#[test]
fn every_recorded_cookie_is_judged_as_the_gateway_judges_it() {
    let recorded: Value =
        serde_json::from_str(include_str!("../vectors/supabase-cookies.json")).unwrap();
    let keys = Upstream::start();
    keys.reply(keys::json_reply(&recorded["jwt"]["jwks"].to_string()));
    let upstream = Upstream::start();
    let (mut wrong, mut accepted, mut houses) = (Vec::new(), 0, BTreeMap::new());
    let cases = recorded["cases"].as_array().unwrap();
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap();
        let file = format!(
            "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\ninternal_url = \"{}\"\njwt_secret = \"{}\"\ncookie_name = \"{}\"\n{SHARED}\
             [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
            text("supabase_url"),
            keys.url(),
            recorded["jwt"]["hs256_secret"].as_str().unwrap(),
            text("storage_key"),
            upstream.url(),
        );
        let clock = Clock::frozen(case["now"].as_u64().unwrap_or(4_102_441_800));
        let header = text("cookie_header");
        let house = houses
            .entry((file.clone(), clock.unix()))
            .or_insert_with(|| House::start_at(&file, clock.clone()));
        let answer = house.get("/me", &[("cookie", header)]);
        let report = report(&file, &clock, &format!("Cookie: {header}"));
        let verdict = &report["credentials"][0]["as_session"];
        if !agrees(verdict, &answer) {
            wrong.push(format!(
                "{}: {verdict}, and not {}",
                text("id"),
                answer.status
            ));
        }
        accepted += usize::from(answer.status == 200);
        if let Some(token) = case["expect"]["access_token"].as_str() {
            gives_nothing_away(&report.to_string(), &[token]);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(accepted > 60 && accepted < cases.len(), "{accepted}");
}

/// A gateway with the development provider, and the same file for the command.
struct Scene {
    clock: Clock,
    identity: Identity,
    file: String,
    house: House,
}

fn scene(session: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n{session}\
         [upstreams.app]\nurl = \"{}\"\n[[routes]]\npath = \"/*\"\n",
        identity.url,
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    Scene {
        clock,
        identity,
        file,
        house,
    }
}

impl Scene {
    fn report(&self, pasted: &str) -> Value {
        report(&self.file, &self.clock, pasted)
    }

    /// The verdict over the session, which must be what the gateway then does; and nobody was asked to renew it.
    fn verdict(&self, cookies: &str) -> String {
        let before = self.identity.provider.count("token.refresh");
        let report = self.report(&format!("cookie: {cookies}"));
        assert_eq!(self.identity.provider.count("token.refresh"), before);
        let headers = [("cookie", cookies), ("sec-fetch-site", "same-origin")];
        let answer = self.house.get("/me", &headers);
        let verdict = &report["credentials"][0]["as_session"];
        assert!(agrees(verdict, &answer), "{verdict}: {answer:?}");
        verdict["text"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_session_that_would_be_renewed_is_said_to_be_and_is_not_renewed() {
    let scene = scene(SHARED);
    let cookies = scene.identity.cookie("ada@example.com");
    assert_eq!(scene.verdict(&cookies), "accepted");
    scene.clock.advance(Duration::from_secs(3600 - 60));
    let other = scene.identity.cookie("grace@example.com");
    assert_eq!(scene.verdict(&cookies), "accepted, and renewed on the way");
    scene.clock.advance(Duration::from_secs(4000));
    let text = scene.verdict(&other);
    assert_eq!(text, "renewed on the way; the provider has the last word");
    // By itself its token is over, and without a refresh token so is the session.
    let session = scene.identity.session("ada@example.com");
    scene.clock.advance(Duration::from_secs(4000));
    let token = session["access_token"].as_str().unwrap();
    let report = scene.report(token);
    assert_eq!(
        verdicts(&report),
        ["401 token_expired", "401 token_expired"]
    );
    let mut poor = session.clone();
    poor["refresh_token"] = json!("");
    let text = scene.verdict(&cookie(&poor.to_string()));
    assert_eq!(text, "401 token_expired: it has no refresh token of ours");
}

const FIRST_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY";
const SECOND_KEY: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA";

#[test]
fn a_sealed_session_names_the_key_that_opens_it() {
    let sealed = |keys: &str| {
        format!(
            "[session]\nmode = \"sealed\"\nadopt = true\nidle_timeout = \"2h\"\nkeys = [{keys}]\n"
        )
    };
    let mut scene = scene(&sealed(&format!("\"{FIRST_KEY}\"")));
    let library = scene.identity.cookie("ada@example.com");
    let report = scene.report(&format!("cookie: {library}"));
    assert_eq!(
        report["credentials"][0]["as_session"]["text"],
        "accepted, and taken over and renewed on the way"
    );
    let page = [("cookie", &*library), ("sec-fetch-site", "same-origin")];
    let cookies = taken(&library, &scene.house.get("/me", &page));
    assert!(
        cookies.starts_with("tollhouse") || cookies.starts_with("__Host-"),
        "{cookies}"
    );
    assert_eq!(scene.verdict(&cookies), "accepted");
    let value = cookies.split_once('=').unwrap().1;
    let report = scene.report(&cookies);
    gives_nothing_away(&report.to_string(), &[value]);
    let kept = |report: &Value| report["credentials"][0]["session"]["kept"].clone();
    assert_eq!(
        kept(&report),
        json!({"kind": "sealed", "key": 1, "created_at": NOW, "seen_at": NOW})
    );
    // A key before it.
    let first = scene.file.clone();
    scene.file = first.replace(
        &format!("[\"{FIRST_KEY}\"]"),
        &format!("[\"{SECOND_KEY}\", \"{FIRST_KEY}\"]"),
    );
    assert_eq!(kept(&scene.report(&cookies))["key"], 2);
    // And none that opens it.
    scene.file = first.replace(FIRST_KEY, SECOND_KEY);
    let report = scene.report(&cookies);
    assert_eq!(
        kept(&report)["why"],
        "no session key opens the session cookie"
    );
    assert_eq!(
        verdicts(&report),
        ["401 missing_credentials", "not_looked_at"]
    );
    scene.file = first;
    // It was not used for too long.
    scene.clock.advance(Duration::from_secs(2 * 3600 + 1));
    let text = scene.verdict(&cookies);
    assert_eq!(
        text,
        "401 session_expired: nobody has used it for `session.idle_timeout`"
    );
    // A token by itself is no session here.
    let report = scene.report(&scene.identity.token("ada@example.com"));
    assert_eq!(verdicts(&report), ["not_looked_at", "accepted"]);
}

/// A file whose sessions are behind an id, in this server.
fn stored(redis: &str) -> String {
    format!("[session]\nmode = \"stored\"\nkeys = [\"{FIRST_KEY}\"]\n{redis}")
}

#[test]
fn the_store_of_sessions_is_asked_when_that_is_asked_for() {
    let redis = RedisServer::start();
    let scene = scene(&stored(&redis.table()));
    let origin = format!("http://{}", scene.house.address);
    let json = ("content-type", "application/json");
    let post = |path: &str, fields: &[(&str, &str)], body: &str| {
        let fields = [&[("origin", &*origin), json], fields].concat();
        scene.house.request("POST", path, &fields, body)
    };
    let login = json!({"email": "ada@example.com", "password": "correct-horse-9"}).to_string();
    let cookies = taken("", &post("/.auth/login", &[], &login));
    assert_eq!(scene.verdict(&cookies), "accepted");
    let report = scene.report(&cookies);
    let session = &report["credentials"][0]["session"];
    assert_eq!(session["kept"], json!({"kind": "stored", "asked": true}));
    assert!(session["refresh_token_bytes"].as_u64() > Some(0));
    let id = cookies.split_once('=').unwrap().1;
    gives_nothing_away(&report.to_string(), &[id]);
    let out = post("/.auth/logout", &[("cookie", &cookies)], "{}");
    assert_eq!(out.status, 204, "{out:?}");
    let text = scene.verdict(&cookies);
    assert!(text.starts_with("401 session_expired"), "{text}");
}

#[test]
fn the_store_of_sessions_is_left_alone_when_nobody_asks_for_it() {
    let nobody = Upstream::start();
    let redis = format!("[redis]\nurl = \"redis://{}\"\n", nobody.address);
    let folder = folder(&file(&stored(&redis)));
    let id = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY";
    let (text, report) = inspect(&folder, &[], &format!("tollhouse={id}"), &[id]);
    assert_eq!(verdicts(&report), ["unknown", "not_looked_at"]);
    assert_eq!(text.code, Some(1));
    let session = &report["credentials"][0]["session"];
    assert_eq!(session["kept"], json!({"kind": "stored", "asked": false}));
    assert!(text.out.contains("--online asks the store"), "{text:?}");
    assert_eq!(nobody.connections(), 0);
    let (text, report) = inspect(&folder, &[], "other=1", &[]);
    assert_eq!(verdicts(&report)[0], "401 missing_credentials");
    assert_eq!((text.code, nobody.connections()), (Some(1), 0));
}

/// A file whose sessions are in the Redis of this table.
fn stored_at(identity: &Identity, redis: &str) -> String {
    format!(
        "[providers.main]\nkind = \"supabase\"\nurl = \"{}\"\npublishable_key = \"sb_publishable_test\"\n\
         [session]\nmode = \"stored\"\ncache_ttl = \"0s\"\n\
         keys = [\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"]\n\
         [upstreams.app]\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n{redis}",
        identity.url
    )
}

/// What the library's function says for people and for machines.
fn both(text: &str, clock: &Clock, pasted: &str, online: bool) -> (String, Value) {
    let given = input::read(pasted.as_bytes()).unwrap();
    let report = look(read(text), clock.clone(), &given, online).unwrap();
    (report.to_string(), report.to_json())
}

fn command(words: &[&str]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    command.arg(words);
    command
}

/// Asks a Redis behind the gateway's back.
fn with_redis<T>(server: &RedisServer, ask: impl AsyncFnOnce(&Redis) -> T) -> T {
    let mut said = None;
    server::run(async || said = Some(ask(&server.connect().await).await));
    said.unwrap()
}

#[test]
fn an_id_is_looked_up_once_and_only_online_and_its_session_lives_no_longer_for_it() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let redis = RedisServer::start();
    let file = stored_at(&identity, &redis.table());
    let house = House::start_at(&file, clock.clone());
    let origin = format!("http://{}", house.address);
    let body = json!({"email": "ada@example.com", "password": "correct-horse-9"}).to_string();
    let fields = [("origin", &*origin), ("content-type", "application/json")];
    let answer = house.request("POST", "/.auth/login", &fields, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let jar = taken("", &answer);
    let pasted = format!("Cookie: {jar}");
    let (_, id) = jar.split_once('=').unwrap();

    // A life that whoever uses the session would set anew.
    const LEFT: i64 = 1_000_000;
    let name = with_redis(&redis, async |handle| {
        let keys = command(&["KEYS", "*"]);
        let keys: Vec<String> = handle.ask(keys).await.unwrap();
        let mut lives = Vec::new();
        for key in keys {
            let set = command(&["PEXPIRE", &key, &LEFT.to_string()]);
            let get = command(&["TYPE", &key]);
            if handle.ask::<String>(get).await.unwrap() == "string" {
                assert_eq!(handle.ask::<i64>(set).await, Ok(1));
                lives.push(key);
            }
        }
        assert_eq!(lives.len(), 1, "{lives:?}");
        lives.remove(0)
    });
    let reads = || {
        with_redis(&redis, async |handle| {
            let info = command(&["INFO", "commandstats"]);
            let said: String = handle.ask(info).await.unwrap();
            let of_get = said.split("cmdstat_get:calls=").nth(1).unwrap_or("0,");
            let count = of_get.split(',').next().unwrap();
            count.parse::<u32>().unwrap()
        })
    };

    let before = reads();
    let (text, report) = both(&file, &clock, &pasted, false);
    assert_eq!(reads(), before);
    gives_nothing_away(&text, &[id]);
    assert!(text.contains("--online asks the store"), "{text}");
    assert!(!text.contains("refresh token"), "{text}");
    let session = &report["credentials"][0]["session"];
    assert_eq!(session["kept"], json!({"kind": "stored", "asked": false}));
    assert_eq!(verdicts(&report), ["unknown", "not_looked_at"]);
    assert_eq!(report["accepted"], false);

    let (text, report) = both(&file, &clock, &pasted, true);
    assert_eq!(reads(), before + 1);
    gives_nothing_away(&text, &[id]);
    let session = &report["credentials"][0]["session"];
    assert_eq!(session["kept"], json!({"kind": "stored", "asked": true}));
    assert!(session["refresh_token_bytes"].as_u64().unwrap() > 0);
    assert_eq!(verdicts(&report), ["accepted", "accepted"], "{text}");
    let left = with_redis(&redis, async |handle| server::life(handle, &name).await);
    assert!((1..=LEFT).contains(&left), "{left}");
}

#[test]
fn nobody_connects_to_redis_unasked() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let file = stored_at(
        &identity,
        &format!("[redis]\nurl = \"redis://127.0.0.1:{port}\"\ntimeout = \"100ms\"\n"),
    );
    let id = format!("tollhouse={}", "A".repeat(43));
    for pasted in [&*id, "Cookie: tollhouse=no-id", &token()] {
        both(&file, &clock, pasted, false);
        let nobody = listener.accept().unwrap_err();
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    }
    // Who is asked to does, and says that it was in vain.
    let (text, report) = both(&file, &clock, &id, true);
    assert!(listener.accept().is_ok());
    assert!(text.contains("its id is one, but Redis is away"), "{text}");
    assert_eq!(verdicts(&report)[0], "503 auth_unavailable");
}
