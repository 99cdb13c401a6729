//! A storm of good and hostile requests over many connections, the same one each time. A small oracle of its own says
//! what must become of each; what reaches the upstream is held against it, and so is the access log.

use crate::support::keys::{Signer, base64url, claims_with, jwt_provider};
use crate::support::{
    Answer, Client, Closed, House, Identity, NOW, Received, Upstream, cookie, send,
};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::time::Duration;
use tollhouse::base::clock::Clock;

const SEED: u64 = 0x746f_6c6c_686f_7573;
const THREADS: u64 = 4;
const EACH: u64 = 600;
/// When the second half blows; tokens marked `Short` have ended by then.
const LATER: Duration = Duration::from_secs(1800);

/// xorshift64* (Vigna): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Public,
    Api,
    Admin,
    ReadOnly,
    Optional,
    /// Its upstream is not there.
    Broken,
    Nowhere,
    /// Two readings, or none.
    Bad,
}

const PATHS: &[(&str, Place)] = &[
    ("/public/x", Place::Public),
    ("/public", Place::Public),
    ("/public/../public", Place::Bad),
    ("/api/x", Place::Api),
    ("/api/y/z", Place::Api),
    ("/api/", Place::Api),
    ("/api", Place::Api),
    ("/api//x", Place::Api),
    ("//api/x", Place::Api),
    ("/%61pi/x", Place::Api),
    ("/api/a%20b", Place::Api),
    ("/api/administrator", Place::Api),
    ("/api/admin", Place::Admin),
    ("/api/admin/x", Place::Admin),
    ("/api/admin/users/1", Place::Admin),
    ("/api/%61dmin/x", Place::Admin),
    ("/api//admin//x", Place::Admin),
    ("/api/Admin/x", Place::Nowhere),
    ("/api/ADMIN", Place::Nowhere),
    ("/API/x", Place::Nowhere),
    ("/api/readonly", Place::ReadOnly),
    ("/optional/x", Place::Optional),
    ("/broken/x", Place::Broken),
    ("/broken", Place::Broken),
    ("/broken/y", Place::Broken),
    ("/nowhere", Place::Nowhere),
    ("/", Place::Nowhere),
    ("/apix", Place::Nowhere),
    ("/api.evil/x", Place::Nowhere),
    ("/publicity", Place::Nowhere),
    ("/public/../api/admin/x", Place::Bad),
    ("/public/%2e%2e/api/admin/x", Place::Bad),
    ("/public/..%2fapi", Place::Bad),
    ("/public/..;/api/admin", Place::Bad),
    ("/public/%2fapi", Place::Bad),
    ("/public/x;y=1", Place::Bad),
    ("/api/./admin", Place::Bad),
    ("/api/%00", Place::Bad),
    ("/api/%0d%0aX-User-Id:%20root", Place::Bad),
    ("/api/a%5cb", Place::Bad),
    ("/api/%zz", Place::Bad),
    ("/api/%", Place::Bad),
    ("/api/%252e%252e/x", Place::Bad),
    ("/api/%ff", Place::Bad),
    ("/api/%c0%ae%c0%ae/x", Place::Bad),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum HostKind {
    Ours,
    Other,
    Wrong,
}

const HOSTS: &[(&str, HostKind)] = &[
    ("Host: app.test\r\n", HostKind::Ours),
    ("Host: APP.test\r\n", HostKind::Ours),
    ("host: app.test:8080\r\n", HostKind::Ours),
    ("Host: evil.test\r\n", HostKind::Other),
    ("Host: app.test.evil\r\n", HostKind::Other),
    ("Host: 127.0.0.1\r\n", HostKind::Other),
    ("", HostKind::Wrong),
    ("Host: \r\n", HostKind::Wrong),
    ("Host: app.test\r\nHost: app.test\r\n", HostKind::Wrong),
    ("Host: app.test\r\nHost: evil.test\r\n", HostKind::Wrong),
    ("Host: user@app.test\r\n", HostKind::Wrong),
    ("Host: app.test:99999\r\n", HostKind::Wrong),
    ("Host: app.test/x\r\n", HostKind::Wrong),
];

/// What a token is worth.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Worth {
    /// Good for this user of the list.
    Good(usize),
    /// Good for this user until the second half.
    Short(usize),
    Expired,
    Invalid,
    /// Its provider is down.
    Unknown,
}

/// What stands in a header.
#[derive(Clone, Debug)]
struct Credential {
    text: String,
    worth: Worth,
}

struct User {
    id: String,
    role: &'static str,
}

/// Everything the storm throws, and who is who.
struct Arsenal {
    users: Vec<User>,
    bearers: Vec<Credential>,
    /// `None`: cookies that are no session.
    cookies: Vec<(String, Option<Worth>)>,
    /// Every token that may ever reach the upstream.
    good: HashMap<String, usize>,
}

impl Arsenal {
    fn new(identity: &Identity) -> Self {
        let mut arsenal = Self {
            users: Vec::new(),
            bearers: Vec::new(),
            cookies: Vec::new(),
            good: HashMap::new(),
        };
        let forger = Signer::p256("forged");
        let mut sample = None;
        for (email, role) in [("ada@example.com", "user"), ("grace@example.com", "admin")] {
            let user = arsenal.users.len();
            for _ in 0..2 {
                let session = identity.session(email);
                let token = session["access_token"].as_str().unwrap();
                arsenal.add(&session, token, Worth::Good(user));
                sample = Some((session.clone(), decode(token)));
            }
            let (session, claims) = sample.clone().unwrap();
            arsenal.users.push(User {
                id: session["user"]["id"].as_str().unwrap().to_owned(),
                role,
            });
            let signed = |changes: &[(&str, Value)]| {
                let mut claims = claims.clone();
                for (name, value) in changes {
                    claims[*name] = value.clone();
                }
                (
                    identity.provider.sign(&claims).unwrap(),
                    forger.token(&claims),
                )
            };
            let (short, forged) = signed(&[("exp", json!(NOW + 900))]);
            arsenal.add(&session, &short, Worth::Short(user));
            arsenal.add(&session, &forged, Worth::Invalid);
            let (expired, forged) = signed(&[("exp", json!(NOW - 60)), ("iat", json!(NOW - 3600))]);
            arsenal.add(&session, &expired, Worth::Expired);
            arsenal.add(&session, &forged, Worth::Invalid);
            for changes in [
                [("aud", json!("other"))],
                [("sub", json!("forged\nx"))],
                [("role", json!("service_role"))],
                [("nbf", json!(NOW + 86_400))],
                [("exp", json!("never"))],
            ] {
                arsenal.add(&session, &signed(&changes).0, Worth::Invalid);
            }
            let token = session["access_token"].as_str().unwrap();
            let [_, payload, signature]: [&str; 3] =
                token.split('.').collect::<Vec<_>>().try_into().unwrap();
            let none = base64url(json!({"alg": "none"}).to_string());
            let mut tampered = claims.clone();
            tampered["app_metadata"]["role"] = json!("forged");
            let tampered = base64url(tampered.to_string());
            for bad in [
                format!("{none}.{payload}."),
                format!("{none}.{payload}.{signature}"),
                format!(
                    "{}.{tampered}.{signature}",
                    token.split('.').next().unwrap()
                ),
                token[..token.len() - 1].to_owned(),
                format!("{token}A"),
                "forged".into(),
                "..".into(),
                "a".repeat(9000),
            ] {
                arsenal.add(&session, &bad, Worth::Invalid);
            }
        }
        for text in ["Bearer ", "bearer", "Bearer a b", "BEARER forged"] {
            arsenal.bearers.push(Credential {
                text: text.into(),
                worth: Worth::Invalid,
            });
        }
        let down = Signer::p256("down").token(&claims_with(json!({"iss": "https://down.example"})));
        arsenal.bearers.push(Credential {
            text: format!("Bearer {down}"),
            worth: Worth::Unknown,
        });
        for nothing in [
            "sb-127-auth-token=",
            "sb-127-auth-token=base64-!!!",
            "sb-127-auth-token=base64-e30",
            "sb-127-auth-token.1=x",
            "sb-127-auth-token=%7B%22access_token%22%3A1%7D",
            "sb-refresh-token=forged",
        ] {
            arsenal.cookies.push((nothing.into(), None));
        }
        arsenal
    }

    /// As a bearer token, and as a session.
    fn add(&mut self, session: &Value, token: &str, worth: Worth) {
        if let Worth::Good(user) | Worth::Short(user) = worth {
            self.good.insert(token.to_owned(), user);
        }
        self.bearers.push(Credential {
            text: format!("Bearer {token}"),
            worth,
        });
        let mut session = session.clone();
        session["access_token"] = json!(token);
        session["user"]["id"] = json!("forged");
        self.cookies
            .push((cookie(&session.to_string()), Some(worth)));
        let two = format!("sb-access-token={token}; sb-refresh-token=forged");
        self.cookies.push((two, Some(worth)));
    }
}

fn decode(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, payload);
    serde_json::from_slice(&bytes.unwrap()).unwrap()
}

/// How a request ends, seen from its client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// It waits for its answer.
    Waits,
    /// It sends everything and is gone.
    Leaves,
    /// It says how long its body is and is gone before that.
    Truncates,
    /// It never speaks HTTP.
    Malformed,
}

/// One request, with what must become of it.
#[derive(Clone, Debug)]
struct Shot {
    number: u64,
    bytes: Vec<u8>,
    end: End,
    head: bool,
    body: bool,
    place: Place,
    status: u16,
    code: &'static str,
    /// Who the upstream may see; `None`: nobody.
    user: Option<usize>,
}

impl Shot {
    fn reaches_the_upstream(&self) -> bool {
        self.status == 200
    }
}

const METHODS: &[&str] = &[
    "GET", "GET", "GET", "GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS",
    "PURGE", "TRACE",
];

const FORGED: &[&str] = &[
    "X-User-Id: forged",
    "x-user-id: forged",
    "X_User_Id: forged",
    "X-USER_ID: forged",
    "X-User-Role: forged",
    "x_user_role: forged",
    "X-Auth-Provider: forged",
    "Connection: X-User-Id, Authorization",
    "Connection: keep-alive, x-request-id, cookie",
    "X-Forwarded-For: 6.6.6.6",
    "X-Real-IP: 6.6.6.6",
    "Forwarded: for=6.6.6.6;host=forged",
    "X-Forwarded-Host: forged",
    "X-Original-URL: /public/forged",
    "X-Rewrite-URL: /public/forged",
    "X-HTTP-Method-Override: DELETE",
    "X-Middleware-Subrequest: forged",
    "X-Request-Id: forged",
    "Proxy-Authorization: Bearer forged",
    "X-API-Key: forged",
    "Accept: */*",
    "Accept-Language: en",
];

/// Names that only the gateway may write, `_` read as `-`.
const OURS: &[&str] = &[
    "x-user-id",
    "x-user-role",
    "x-auth-provider",
    "authorization",
];

const MALFORMED: &[&[u8]] = &[
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /api/x HTTP/9.9\r\nHost: app.test\r\n\r\n",
    b"GET /api/x\r\nHost: app.test\r\n\r\n",
    b"GET /api/x HTTP/1.1\r\nHost: app.test\r\nX-User-Id : forged\r\n\r\n",
    b"GET /api/x HTTP/1.1\r\nHost: app.test\r\nno colon\r\n\r\n",
    b"GET /api/x HTTP/1.1\r\nHost: app.test\r\nX: a\0b\r\n\r\n",
    b"GET /api/x HTTP/1.1\r\nHost: app.test\r\n: nameless\r\n\r\n",
    b"G\x01T /api/x HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"GET /api/\x01 HTTP/1.1\r\nHost: app.test\r\n\r\n",
    b"POST /api/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: forged\r\n\r\n",
    b"POST /api/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST /api/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: -1\r\n\r\n",
];

/// Makes one request and says what must become of it. The order of the questions is the contract's, section 3.
fn shoot(random: &mut Random, arsenal: &Arsenal, number: u64, later: bool) -> Shot {
    if random.chance(4) {
        return Shot {
            number,
            bytes: random.of(MALFORMED).to_vec(),
            end: End::Malformed,
            head: false,
            body: false,
            place: Place::Bad,
            status: 400,
            code: "",
            user: None,
        };
    }
    let method = *random.of(METHODS);
    let &(path, place) = random.of(PATHS);
    let &(host, host_kind) = if random.chance(85) {
        &HOSTS[0]
    } else {
        random.of(HOSTS)
    };
    let mut fields = String::from(host);
    let mut two_credentials = false;
    let bearer = match random.below(10) {
        0..4 => Some(random.of(&arsenal.bearers)),
        4 => {
            fields.push_str("Authorization: Basic Zm9yZ2Vk\r\n");
            None
        }
        _ => None,
    };
    if let Some(bearer) = bearer {
        fields.push_str(&format!("Authorization: {}\r\n", bearer.text));
        if random.chance(5) {
            two_credentials = true;
            fields.push_str(&format!("Authorization: {}\r\n", bearer.text));
        }
    }
    let cookies = random.chance(50).then(|| random.of(&arsenal.cookies));
    match cookies {
        Some((text, _)) if random.chance(50) => {
            fields.push_str(&format!("Cookie: theme=dark; {text}; lang=en\r\n"));
        }
        Some((text, _)) => fields.push_str(&format!("Cookie: {text}\r\n")),
        None if random.chance(20) => fields.push_str("Cookie: theme=dark\r\n"),
        None => {}
    }
    let same_origin = match random.below(6) {
        0..3 => {
            fields.push_str("Sec-Fetch-Site: same-origin\r\n");
            true
        }
        3 => {
            fields.push_str("Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.test\r\n");
            false
        }
        4 => {
            fields.push_str("Origin: null\r\n");
            false
        }
        _ => false,
    };
    for _ in 0..random.below(5) {
        fields.push_str(random.of::<&str>(FORGED));
        fields.push_str("\r\n");
    }
    let (status, code, user) = oracle(Asked {
        method,
        two_credentials,
        host: host_kind,
        place,
        bearer: bearer.map(|bearer| bearer.worth),
        cookies: cookies.map(|(_, worth)| *worth),
        same_origin,
        later,
        users: &arsenal.users,
    });
    let mut end = if random.chance(5) {
        End::Leaves
    } else {
        End::Waits
    };
    let mut body = String::new();
    if matches!(method, "POST" | "PUT" | "PATCH") {
        let text = "forged=1&".repeat(random.below(40));
        if random.chance(10) {
            end = End::Truncates;
            fields.push_str(&format!("Content-Length: {}\r\n", text.len() + 100));
            body = text;
        } else if random.chance(50) {
            fields.push_str(&format!("Content-Length: {}\r\n", text.len()));
            body = text;
        } else {
            fields.push_str("Transfer-Encoding: chunked\r\n");
            if !text.is_empty() {
                body = format!("{:x}\r\n{text}\r\n", text.len());
            }
            body.push_str("0\r\n\r\n");
        }
    }
    Shot {
        number,
        bytes: format!("{method} {path}?n={number} HTTP/1.1\r\n{fields}\r\n{body}").into_bytes(),
        end,
        head: method == "HEAD",
        body: !body.is_empty(),
        place,
        status,
        code,
        user,
    }
}

/// What the oracle is told.
struct Asked<'a> {
    method: &'a str,
    two_credentials: bool,
    host: HostKind,
    place: Place,
    bearer: Option<Worth>,
    cookies: Option<Option<Worth>>,
    same_origin: bool,
    later: bool,
    users: &'a [User],
}

fn oracle(asked: Asked<'_>) -> (u16, &'static str, Option<usize>) {
    let no = |status, code| (status, code, None);
    if asked.method == "TRACE" {
        return no(405, "method_not_allowed");
    }
    if asked.two_credentials || asked.host == HostKind::Wrong {
        return no(400, "bad_request");
    }
    if asked.host == HostKind::Other {
        return no(421, "misdirected");
    }
    match asked.place {
        Place::Bad => return no(400, "bad_request"),
        Place::Nowhere => return no(404, "no_route"),
        Place::ReadOnly if !matches!(asked.method, "GET" | "HEAD") => {
            return no(405, "method_not_allowed");
        }
        Place::Public => return no(200, ""),
        _ => {}
    }
    let safe = matches!(asked.method, "GET" | "HEAD" | "OPTIONS");
    let ambient = asked.bearer.is_none() && asked.cookies.is_some();
    if ambient && !safe && !asked.same_origin {
        return no(403, "csrf_rejected");
    }
    let optional = asked.place == Place::Optional;
    let worth = match (asked.bearer, asked.cookies) {
        (Some(worth), _) => Some(worth),
        (None, Some(worth)) => worth,
        (None, None) => None,
    };
    let worth = match worth {
        Some(Worth::Short(_)) if asked.later => Some(Worth::Expired),
        Some(Worth::Short(user)) => Some(Worth::Good(user)),
        other => other,
    };
    let user = match worth {
        Some(Worth::Good(user) | Worth::Short(user)) => Some(user),
        Some(Worth::Unknown) => return no(503, "auth_unavailable"),
        _ if optional && (ambient || worth.is_none()) => None,
        Some(Worth::Expired) => return no(401, "token_expired"),
        Some(Worth::Invalid) => return no(401, "invalid_token"),
        None => return no(401, "missing_credentials"),
    };
    let role = user.map(|user| asked.users[user].role);
    match asked.place {
        Place::Admin if role != Some("admin") => no(403, "forbidden"),
        Place::Broken => no(502, "upstream_unreachable"),
        _ => (200, "", user),
    }
}

/// What one thread saw.
#[derive(Default)]
struct Seen {
    shots: Vec<Shot>,
    /// Ids of the answers.
    ids: Vec<String>,
    /// Requests without an answer that were heads nevertheless.
    silent: usize,
    malformed: usize,
    wrong: Vec<String>,
}

fn blow(house: &House, arsenal: &Arsenal, thread: u64, later: bool) -> Seen {
    let mut random =
        Random(SEED ^ (thread + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(later));
    let mut seen = Seen::default();
    let mut client = None;
    for n in 0..EACH {
        let number = (u64::from(later) * THREADS + thread) * EACH + n;
        let shot = shoot(&mut random, arsenal, number, later);
        let mut on = client
            .take()
            .unwrap_or_else(|| Client::connect(house.address));
        on.write(&shot.bytes);
        match shot.end {
            End::Leaves | End::Truncates => seen.silent += 1,
            End::Malformed => {
                seen.malformed += 1;
                if let Some(answer) = on.try_read(false)
                    && (!matches!(answer.status, 400..=499 | 505)
                        || answer.header("x-request-id").is_some())
                {
                    let line = String::from_utf8_lossy(&shot.bytes).into_owned();
                    seen.wrong.push(format!("{line:?} got {}", answer.status));
                }
            }
            End::Waits => match on.try_read(shot.head) {
                Some(answer) => {
                    if let Err(problem) = judge(&shot, &answer) {
                        let head = String::from_utf8_lossy(&shot.bytes).into_owned();
                        seen.wrong.push(format!("{problem}: {head:?}"));
                    }
                    seen.ids
                        .extend(answer.header("x-request-id").map(str::to_owned));
                    // After a refusal the rest of a body is not read, and the connection may end.
                    let goes_on = answer.header("connection") != Some("close")
                        && !(shot.body && answer.status != 200);
                    if goes_on && random.chance(95) {
                        client = Some(on);
                    }
                }
                None => seen.wrong.push(format!(
                    "no answer to {}",
                    String::from_utf8_lossy(&shot.bytes)
                )),
            },
        }
        seen.shots.push(shot);
    }
    seen
}

fn judge(shot: &Shot, answer: &Answer) -> Result<(), String> {
    let code = if shot.head {
        String::new()
    } else {
        answer.code()
    };
    let expected = if shot.head { "" } else { shot.code };
    if (answer.status, &*code) != (shot.status, expected) {
        return Err(format!(
            "{} {code}, not {} {expected}",
            answer.status, shot.status
        ));
    }
    if answer
        .header("x-request-id")
        .is_none_or(|id| id == "forged" || id.is_empty())
    {
        return Err("no id".into());
    }
    let text = answer.text();
    if answer.status != 200 && (text.contains("forged") || text.contains("eyJ")) {
        return Err("the answer repeats the request".into());
    }
    Ok(())
}

/// What the upstream got must be what the oracle lets through, and say of its user what is true.
fn inspect(
    received: &Received,
    shots: &HashMap<u64, &Shot>,
    arsenal: &Arsenal,
) -> Result<u64, String> {
    let number = received
        .path()
        .rsplit_once("?n=")
        .and_then(|(_, n)| n.parse().ok())
        .ok_or("no number")?;
    let shot = shots.get(&number).ok_or("a request that nobody sent")?;
    if !shot.reaches_the_upstream() {
        return Err(format!("it should have been {} {}", shot.status, shot.code));
    }
    for (name, value) in &received.headers {
        let read = name.to_ascii_lowercase().replace('_', "-");
        if OURS.contains(&&*read) && (value.contains("forged") || name.contains('_')) {
            return Err(format!("forged {name}: {value}"));
        }
        if read == "cookie" && value.contains("sb-") {
            return Err("a session cookie".into());
        }
    }
    if received
        .header("x-request-id")
        .is_none_or(|id| id == "forged")
    {
        return Err("the client's request id".into());
    }
    if received.header("x-forwarded-for") != Some("127.0.0.1") {
        return Err("the client's own word on its address".into());
    }
    let told = OURS.map_told(received);
    let expected = match shot.user {
        None => [None, None, None, None],
        Some(user) => {
            let token = told[3]
                .and_then(|value| value.strip_prefix("Bearer "))
                .ok_or("no bearer token")?;
            if arsenal.good.get(token) != Some(&user) {
                return Err("a token of somebody else".into());
            }
            let User { id, role } = &arsenal.users[user];
            [Some(&**id), Some(*role), Some("main"), told[3]]
        }
    };
    if told != expected {
        return Err(format!("told {told:?}, not {expected:?}"));
    }
    let protected = matches!(shot.place, Place::Api | Place::Admin | Place::ReadOnly);
    if protected && shot.user.is_none() {
        return Err("nobody on a protected route".into());
    }
    Ok(number)
}

trait Told {
    fn map_told<'r>(&self, received: &'r Received) -> [Option<&'r str>; 4];
}

impl Told for [&str] {
    fn map_told<'r>(&self, received: &'r Received) -> [Option<&'r str>; 4] {
        [0, 1, 2, 3].map(|at| received.header(self[at]))
    }
}

#[test]
fn in_a_storm_nothing_passes_that_must_not_and_everything_is_recorded_once() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let closed = Closed::new();
    let nobody = closed.address();
    let down = Upstream::start();
    down.reply(crate::support::Reply::Close);
    let file = format!(
        "[server]\nhosts = [\"app.test\"]\n{}provider = \"main\"\n{}[rate_limits.bad]\nrate = \"off\"\ncount = \"failures\"\n\
         [upstreams.app]\nurl = \"{}\"\n[upstreams.nobody]\nurl = \"http://{nobody}\"\n\
         [[routes]]\npath = \"/public/*\"\nauth = \"public\"\nupstream = \"app\"\n[[routes]]\npath = \"/api/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/api/admin/*\"\nupstream = \"app\"\nrequire = {{ any_role = [\"admin\"] }}\n\
         [[routes]]\npath = \"/api/readonly\"\nupstream = \"app\"\nmethods = [\"GET\"]\n\
         [[routes]]\npath = \"/optional/*\"\nauth = \"optional\"\nupstream = \"app\"\n[[routes]]\npath = \"/broken/*\"\nupstream = \"nobody\"\n",
        identity.tables(),
        jwt_provider("down", &down).replace(crate::support::keys::ISSUER, "https://down.example"),
        upstream.url()
    );
    let house = House::start_at(&file, clock.clone());
    let arsenal = Arsenal::new(&identity);
    let mut all = Seen::default();
    for later in [false, true] {
        let seen: Vec<Seen> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn({
                        let (house, arsenal) = (&house, &arsenal);
                        move || blow(house, arsenal, thread, later)
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        for one in seen {
            all.shots.extend(one.shots);
            all.ids.extend(one.ids);
            all.wrong.extend(one.wrong);
            all.silent += one.silent;
            all.malformed += one.malformed;
        }
        // Those who left may still be on their way: their time is the first half's.
        house.log.wait_for(all.ids.len() + all.silent);
        clock.advance(LATER);
    }
    let seed = format!("seed {SEED:#x}");
    assert!(
        all.wrong.is_empty(),
        "{seed}: {} wrong:\n{}",
        all.wrong.len(),
        all.wrong[..all.wrong.len().min(20)].join("\n")
    );

    let malformed = house.metric("tollhouse_malformed_requests_total");
    let counted: f64 = house
        .metrics()
        .lines()
        .filter(|line| line.starts_with("tollhouse_requests_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    let keys = send(
        identity.url.trim_start_matches("http://").parse().unwrap(),
        b"GET /auth/v1/.well-known/jwks.json HTTP/1.1\r\nHost: a\r\n\r\n",
        false,
    );
    let log = house.log.clone();
    house.stop();

    // Each request leaves one record, and an answer's id is in the log once.
    let records = log.records();
    assert_eq!(
        records.len(),
        all.ids.len() + all.silent,
        "{seed}: one record for each request"
    );
    assert_eq!(records.len() + all.malformed, all.shots.len(), "{seed}");
    assert_eq!(
        counted,
        records.len() as f64,
        "{seed}: the metrics count the same"
    );
    assert_eq!(malformed, all.malformed as f64, "{seed}");
    let logged: HashSet<&str> = records
        .iter()
        .map(|r| r["request_id"].as_str().unwrap())
        .collect();
    assert_eq!(logged.len(), records.len(), "{seed}: an id came twice");
    assert!(all.ids.iter().all(|id| logged.contains(&**id)), "{seed}");
    for record in &records {
        let text = record.to_string();
        assert!(!text.contains("eyJ"), "{seed}: a token in the log: {text}");
        let status = record["status"].as_u64().unwrap();
        let expected = matches!(
            record["code"].as_str(),
            Some("auth_unavailable" | "upstream_unreachable")
        );
        assert!(status < 500 || expected, "{seed}: {text}");
    }

    // What the upstream got is what the oracle let through: all of it that was waited for, each once.
    let shots: HashMap<u64, &Shot> = all.shots.iter().map(|shot| (shot.number, shot)).collect();
    let mut reached = HashSet::new();
    for received in upstream.received() {
        match inspect(&received, &shots, &arsenal) {
            Ok(number) => assert!(
                reached.insert(number),
                "{seed}: it came twice: {received:?}"
            ),
            Err(problem) => panic!("{seed}: {problem}: {received:?}"),
        }
    }
    let waited: Vec<&Shot> = all.shots.iter().filter(|s| s.end == End::Waits).collect();
    for shot in &waited {
        assert_eq!(
            reached.contains(&shot.number),
            shot.reaches_the_upstream(),
            "{seed}: {shot:?}"
        );
    }

    // The tokens it got verify with a library of their own, and were good when they came.
    let set: JwkSet = serde_json::from_slice(&keys.body).unwrap();
    let key = DecodingKey::from_jwk(&set.keys[0]).unwrap();
    let mut rules = Validation::new(Algorithm::ES256);
    rules.validate_exp = false;
    rules.set_audience(&["authenticated"]);
    let tokens: HashMap<String, String> = upstream
        .received()
        .iter()
        .filter_map(|r| {
            Some((
                r.header("authorization")?[7..].to_owned(),
                r.header("x-user-id")?.to_owned(),
            ))
        })
        .collect();
    for (token, user) in &tokens {
        let claims = jsonwebtoken::decode::<Value>(token, &key, &rules)
            .unwrap()
            .claims;
        assert_eq!(claims["sub"].as_str(), Some(&**user));
        assert!(claims["exp"].as_u64().unwrap() > NOW);
    }

    // And it was a storm: enough of everything.
    let count = |status: u16| waited.iter().filter(|shot| shot.status == status).count();
    for status in [200, 400, 401, 403, 404, 405, 421, 502, 503] {
        assert!(count(status) > 5, "{seed}: {} of {status}", count(status));
    }
    assert!(
        tokens.len() >= 6 && all.silent > 50 && all.malformed > 50,
        "{seed}"
    );
}
