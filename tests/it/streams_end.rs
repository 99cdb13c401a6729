//! What lasts ends with the session that opened it (contract, section 5, "Streams"), in the way in which its reader takes
//! it for what it is; and what no session opened goes on.

use crate::support::frames::{self, Frames, Outcome};
use crate::support::http2::Http2;
use crate::support::keys::{self, Signer, jwt_provider, key_server};
use crate::support::upstream2::{Answering, Call, Upstream2};
use crate::support::websocket::{self, CLOSE, TEXT, accepted, handshake};
use crate::support::{
    Client, House, Identity, NOW, PATIENCE, Wire, cookie, eventually, pair, scripted,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;

/// A token of the development provider lives for an hour.
const LIFE: u64 = 3600;
const OURS: &str = "http://app.test";

struct Scene {
    clock: Clock,
    identity: Identity,
    house: House,
    /// The path of each connection to the upstream that has ended.
    ended: Receiver<String>,
}

/// A session as a browser has it.
struct Login {
    cookie: String,
    token: String,
}

/// Does what the path says, for as long as it is let.
fn upstream() -> (SocketAddr, Receiver<String>) {
    let (tell, told) = pair();
    let address = scripted(move |mut wire: Wire| {
        loop {
            let head = wire.head();
            let Some(path) = head.split(' ').nth(1).map(str::to_owned) else {
                return;
            };
            match path.rsplit('/').next().unwrap_or_default() {
                "socket" => {
                    wire.say_bytes(&accepted(""));
                    while let Some((opcode, payload)) = websocket::read(|n| wire.exactly(n)) {
                        wire.say_bytes(&websocket::frame(opcode, false, &payload));
                    }
                }
                "attach" => {
                    wire.say(
                        "HTTP/1.1 101 Upgraded\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello",
                    );
                }
                "events" => {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n");
                }
                "lines" => {
                    wire.say(
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n",
                    );
                }
                "file" => {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nstart");
                }
                "flood" => {
                    wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
                    while wire.say(&chunk) {}
                }
                "short" => {
                    // The end comes when the next request would.
                    wire.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab");
                    std::thread::sleep(Duration::from_millis(500));
                    wire.say("cd");
                    continue;
                }
                "pieces" => {
                    wire.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
                    std::thread::sleep(Duration::from_millis(200));
                    wire.say("2\r\ncd\r\n0\r\n\r\n");
                    continue;
                }
                _ => {
                    wire.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
            }
            wire.rest();
            let _ = tell.lock().send(path);
            return;
        }
    });
    (address, told)
}

fn scene() -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let (upstream, ended) = upstream();
    let tables = identity.tables().replace(
        "[session]",
        "publishable_key = \"sb_publishable_test\"\n[session]",
    );
    let house = House::start_at(
        &format!(
            "{tables}[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\n\
             [[routes]]\npath = \"/kept/*\"\nend_streams_with_session = false\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
        ),
        clock.clone(),
    );
    Scene {
        clock,
        identity,
        house,
        ended,
    }
}

fn login(identity: &Identity, email: &str) -> Login {
    let session = identity.session(email);
    Login {
        cookie: cookie(&session.to_string()),
        token: session["access_token"].as_str().unwrap().to_owned(),
    }
}

/// Ends a session, as a logout does.
fn log_out(house: &House, login: &Login) {
    let payload = login.token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let exp = claims["exp"].as_u64().unwrap();
    let tokens = &house.snapshot().tokens;
    tokens.end_session(0, claims["session_id"].as_str().unwrap(), exp);
}

/// A browser's connection on which the head of an answer has come.
fn open(house: &House, path: &str, fields: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(house.address);
    ask(&mut client, path, fields);
    let mut line = client.read_line();
    assert!(
        line.starts_with("HTTP/1.1 200") || line.starts_with("HTTP/1.1 101"),
        "{line}"
    );
    while !line.trim().is_empty() {
        line = client.read_line();
    }
    client
}

fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n");
    for (name, value) in fields {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    client.write(format!("{text}\r\n").as_bytes());
}

/// The next chunk of a body; `None`: it broke off.
fn chunk(client: &mut Client) -> Option<String> {
    let mut size = String::new();
    while !size.ends_with("\r\n") {
        size.push(char::from(client.exactly(1)?[0]));
    }
    let size = usize::from_str_radix(size.trim(), 16).unwrap();
    let bytes = client.exactly(size + 2)?;
    Some(String::from_utf8(bytes[..size].to_vec()).unwrap())
}

/// A WebSocket that says everything back.
fn socket(house: &House, path: &str, fields: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(house.address);
    let fields = [fields, &[("Origin", OURS)]].concat();
    client.write(&handshake(path, &fields));
    assert_eq!(client.read().status, 101);
    client
}

fn echoes(client: &mut Client) -> bool {
    client.write(&websocket::frame(TEXT, true, b"still there?"));
    let said = websocket::read(|count| client.exactly(count));
    said == Some((TEXT, b"still there?".to_vec()))
}

/// The client hears that its session is over, and then nothing more.
fn hears_4401(client: &mut Client) {
    let (opcode, payload) = websocket::read(|count| client.exactly(count)).unwrap();
    assert_eq!(opcode, CLOSE);
    assert_eq!(payload[..2], 4401_u16.to_be_bytes());
    assert_eq!(&payload[2..], b"the session is over");
    assert_eq!(client.rest(), b"");
}

impl Scene {
    fn login(&self, email: &str) -> Login {
        login(&self.identity, email)
    }

    fn open(&self, path: &str, login: &Login) -> Client {
        open(&self.house, path, &[("Cookie", &login.cookie)])
    }

    fn socket(&self, login: &Login) -> Client {
        socket(&self.house, "/socket", &[("Cookie", &login.cookie)])
    }

    fn log_out(&self, login: &Login) {
        log_out(&self.house, login);
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// The upstream of this path is let go.
    fn upstream_ended(&self, path: &str) {
        assert_eq!(self.ended.recv_timeout(PATIENCE).unwrap(), path);
    }

    fn ended_for(&self, reason: &str) -> f64 {
        let series = format!("tollhouse_streams_ended_total{{reason=\"{reason}\"}}");
        self.house.metric(&series)
    }
}

#[test]
fn a_websocket_hears_4401_when_its_session_is_ended_and_others_go_on() {
    let scene = scene();
    let (ada, grace) = (
        scene.login("ada@example.com"),
        scene.login("grace@example.com"),
    );
    let mut tabs = [scene.socket(&ada), scene.socket(&ada)];
    let mut other = scene.socket(&grace);
    let bearer = format!("Bearer {}", ada.token);
    // Whoever shows the token itself has no session that could be ended under it.
    let mut explicit = socket(&scene.house, "/socket", &[("Authorization", &bearer)]);
    let mut kept = socket(&scene.house, "/kept/socket", &[("Cookie", &ada.cookie)]);
    assert!(tabs.iter_mut().all(echoes));
    scene.log_out(&ada);
    for tab in &mut tabs {
        hears_4401(tab);
    }
    scene.upstream_ended("/socket");
    scene.upstream_ended("/socket");
    for client in [&mut other, &mut explicit, &mut kept] {
        assert!(echoes(client));
    }
    // Written when the client has answered or gone.
    drop(tabs);
    for record in scene.house.log.wait_for(2) {
        assert_eq!(
            (&record["status"], &record["code"], &record["credential"]),
            (&json!(101), &json!("session_expired"), &json!("session"))
        );
    }
    assert_eq!(
        (scene.ended_for("ended"), scene.ended_for("expired")),
        (2.0, 0.0)
    );
    // And nobody gets in with that cookie again.
    let mut client = Client::connect(scene.house.address);
    let fields = [("Cookie", &*ada.cookie), ("Origin", OURS)];
    client.write(&handshake("/socket", &fields));
    assert_eq!(client.read().status, 401);
}

#[test]
fn a_logout_at_the_gateway_ends_what_that_login_opened_and_no_other_login_of_the_user() {
    let scene = scene();
    let (here, there) = (
        scene.login("ada@example.com"),
        scene.login("ada@example.com"),
    );
    let (mut gone, mut stays) = (scene.socket(&here), scene.socket(&there));
    let fields = [
        ("Host", "app.test"),
        ("Origin", OURS),
        ("Cookie", &*here.cookie),
    ];
    let path = "/.auth/logout?scope=local";
    let answer = scene.house.request("POST", path, &fields, "");
    assert_eq!(answer.status, 204, "{answer:?}");
    hears_4401(&mut gone);
    assert!(echoes(&mut stays));
}

#[test]
fn what_a_client_says_after_the_end_of_its_session_reaches_nobody() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut client = scene.socket(&ada);
    assert!(echoes(&mut client));
    scene.log_out(&ada);
    hears_4401(&mut client);
    // It stays and talks on: for that it has some seconds, and nobody listens.
    let began = Instant::now();
    while client.try_write(&websocket::frame(TEXT, true, b"more")) {
        assert!(began.elapsed() < Duration::from_secs(15));
        std::thread::sleep(Duration::from_millis(50));
    }
    let record = &scene.house.log.wait_for(1)[0];
    let once = websocket::frame(TEXT, true, b"still there?").len();
    assert_eq!(record["bytes_in"], once);
}

#[test]
fn another_protocol_is_cut() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let fields = [
        ("Cookie", &*ada.cookie),
        ("Connection", "Upgrade"),
        ("Upgrade", "tcp"),
    ];
    let mut client = open(&scene.house, "/attach", &fields);
    assert_eq!(client.exactly(5).unwrap(), b"hello");
    scene.log_out(&ada);
    assert_eq!(client.rest(), b"");
    scene.upstream_ended("/attach");
    assert_eq!(scene.house.log.wait_for(1)[0]["code"], "session_expired");
}

#[test]
fn events_end_well_and_the_browser_that_asks_again_hears_401() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut client = scene.open("/events", &ada);
    assert_eq!(chunk(&mut client).unwrap(), "data: 1\n\n");
    scene.log_out(&ada);
    assert_eq!(chunk(&mut client).unwrap(), "", "the last one");
    scene.upstream_ended("/events");
    // On the same connection.
    ask(&mut client, "/events", &[("Cookie", &ada.cookie)]);
    assert_eq!(client.read().status, 401);
    let record = &scene.house.log.wait_for(2)[0];
    assert_eq!(
        (&record["status"], &record["code"], &record["bytes_out"]),
        (&json!(200), &json!("session_expired"), &json!(9))
    );
}

#[test]
fn what_is_no_stream_of_events_is_cut_so_that_nobody_takes_it_for_the_whole() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut lines = scene.open("/lines", &ada);
    assert_eq!(chunk(&mut lines).unwrap(), "line\n");
    let mut file = scene.open("/file", &ada);
    assert_eq!(file.exactly(5).unwrap(), b"start");
    // One whose upstream is never waited for, and whose client reads when it likes.
    let mut flood = scene.open("/flood", &ada);
    for _ in 0..20 {
        assert_ne!(chunk(&mut flood).unwrap(), "");
    }
    scene.log_out(&ada);
    assert_eq!(chunk(&mut lines), None);
    assert_eq!(file.rest(), b"");
    while let Some(chunk) = chunk(&mut flood) {
        assert_ne!(chunk, "", "it looks like the whole");
    }
    let mut ended = Vec::from_iter((0..3).map(|_| scene.ended.recv_timeout(PATIENCE).unwrap()));
    ended.sort_unstable();
    assert_eq!(ended[..], ["/file", "/flood", "/lines"]);
    let codes = scene.house.log.wait_for(3);
    assert!(
        codes
            .iter()
            .all(|record| record["code"] == "session_expired")
    );
}

#[test]
fn an_answer_of_a_few_bytes_is_no_stream_and_comes_to_its_end() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut client = scene.open("/short", &ada);
    assert_eq!(client.exactly(2).unwrap(), b"ab");
    scene.log_out(&ada);
    assert_eq!(client.exactly(2).unwrap(), b"cd");
    assert_eq!(scene.house.log.wait_for(1)[0]["code"], Value::Null);
}

#[test]
fn an_answer_in_pieces_that_is_soon_over_is_never_tied_and_one_that_stays_open_is() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let snapshot = scene.house.snapshot();
    let tied = || snapshot.tokens.sessions_with_streams();
    let mut looked = 0;
    while looked < 3 {
        let began = Instant::now();
        let mut client = scene.open("/pieces", &ada);
        assert_eq!(chunk(&mut client).unwrap(), "ab");
        // Time to wait for more.
        std::thread::sleep(Duration::from_millis(50));
        let tied = tied();
        // On a machine that took a second for this, it may be.
        if began.elapsed() < Duration::from_millis(900) {
            assert_eq!(tied, 0);
            looked += 1;
        }
        assert_eq!(chunk(&mut client).unwrap(), "cd");
        assert_eq!(chunk(&mut client).unwrap(), "");
    }
    let mut lines = scene.open("/lines", &ada);
    assert_eq!(chunk(&mut lines).unwrap(), "line\n");
    eventually(|| tied() == 1);
    scene.log_out(&ada);
    assert_eq!(chunk(&mut lines), None);
}

#[test]
fn streams_of_bearers_and_of_routes_that_say_so_go_on() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let bearer = format!("Bearer {}", ada.token);
    let mut explicit = open(&scene.house, "/events", &[("Authorization", &bearer)]);
    let mut kept = scene.open("/kept/events", &ada);
    let mut ends = scene.open("/events", &ada);
    scene.log_out(&ada);
    scene.upstream_ended("/events");
    for client in [&mut explicit, &mut kept, &mut ends] {
        assert_eq!(chunk(client).unwrap(), "data: 1\n\n");
    }
    assert_eq!(chunk(&mut ends).unwrap(), "");
    for client in [&mut explicit, &mut kept] {
        let stream = client.stream();
        stream
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        assert!(!client.is_closed());
    }
    assert_eq!(scene.ended_for("ended"), 1.0);
}

#[test]
fn on_http_2_events_end_well_and_other_streams_are_reset_and_the_connection_goes_on() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut client = Frames::connect(scene.house.doors[0]);
    let asked = |path| [frames::request("GET", path), vec![("cookie", &*ada.cookie)]].concat();
    client.headers(1, &asked("/events"), true);
    client.headers(3, &asked("/lines"), true);
    let mut first = [
        client.until(frames::DATA).unwrap(),
        client.until(frames::DATA).unwrap(),
    ];
    first.sort_unstable_by_key(|frame| frame.stream);
    assert_eq!(first[0].payload, b"data: 1\n\n");
    assert_eq!(first[1].payload, b"line\n");
    scene.log_out(&ada);
    // The end of both, in whichever order it comes.
    let mut ends = Vec::new();
    while ends.len() < 2 {
        let frame = client.read().unwrap();
        match frame.kind {
            frames::DATA if frame.flags & frames::END_STREAM != 0 => {
                assert_eq!(frame.payload, b"");
                ends.push((frame.stream, "ends"));
            }
            frames::RST_STREAM => ends.push((frame.stream, "reset")),
            _ => {}
        }
    }
    ends.sort_unstable();
    assert_eq!(ends, [(1, "ends"), (3, "reset")]);
    let again = client.ask(5, &asked("/x"));
    assert!(matches!(again, Outcome::Answered(401, _)), "{again:?}");
}

#[test]
fn a_call_of_grpc_ends_with_a_status() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let (tell, told) = pair();
    let upstream = Upstream2::start(move |_: Call, mut answering: Answering| {
        let tell = tell.lock().clone();
        async move {
            answering.head(&[("content-type", "application/grpc")], false);
            answering.data(b"\0\0\0\0\x01a");
            let _ = tell.send(());
            std::future::pending::<()>().await;
        }
    });
    let house = House::start_at(
        &format!(
            "{}[upstreams.app]\nurl = \"http://{}\"\nprotocol = \"h2c\"\n[[routes]]\npath = \"/*\"\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
            identity.tables(),
            upstream.address
        ),
        clock,
    );
    let ada = login(&identity, "ada@example.com");
    let mut client = Http2::connect(house.doors[0]);
    let fields = [
        ("host", "app.test"),
        ("origin", OURS),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("cookie", &*ada.cookie),
    ];
    let call = client.open("POST", "/users.Users/Watch", &fields, true);
    told.recv_timeout(PATIENCE).unwrap();
    log_out(&house, &ada);
    let answer = call.answer().unwrap();
    assert_eq!(answer.status, 200);
    let trailer = |name: &str| {
        let mut found = answer.trailers.iter().filter(|(n, _)| n == name);
        found.next().map(|(_, value)| &**value)
    };
    assert_eq!(
        (trailer("grpc-status"), trailer("grpc-message")),
        (Some("16"), Some("session_expired"))
    );
    let record = &house.log.wait_for(1)[0];
    assert_eq!(
        (&record["status"], &record["code"]),
        (&json!(200), &json!("session_expired"))
    );
}

#[test]
fn a_stream_lives_as_long_as_others_bring_newer_tokens_and_never_spends_one_itself() {
    let scene = scene();
    let grace = scene.login("grace@example.com");
    let mut oldest = scene.socket(&grace);
    scene.pass(30);
    let (ada, second) = (
        scene.login("ada@example.com"),
        scene.login("ada@example.com"),
    );
    let (mut lives, mut ends) = (scene.socket(&ada), scene.socket(&second));
    let refreshes = || scene.identity.provider.count("token.refresh");

    // That the first has ended says that all have been looked at.
    scene.pass(LIFE + 60 - 30);
    hears_4401(&mut oldest);
    // Their tokens are over since half a minute; nobody has asked for new ones.
    assert!(echoes(&mut lives) && echoes(&mut ends));
    assert_eq!(refreshes(), 0);
    let answer = scene.house.get("/x", &[("Cookie", &ada.cookie)]);
    assert_eq!((answer.status, refreshes()), (200, 1));
    scene.pass(30);
    hears_4401(&mut ends);
    assert!(echoes(&mut lives));

    // The new token is an hour old when half an hour more has passed than its cousins had.
    let mut later = scene.socket(&scene.login("grace@example.com"));
    scene.pass(LIFE + 60 - 30);
    hears_4401(&mut lives);
    assert!(echoes(&mut later));
    assert_eq!(refreshes(), 1);
    drop((oldest, lives, ends));
    eventually(|| scene.ended_for("expired") == 3.0);
    assert_eq!(scene.ended_for("ended"), 0.0);
}

#[test]
fn silent_streams_end_when_the_token_is_over_as_well() {
    let scene = scene();
    let ada = scene.login("ada@example.com");
    let mut events = scene.open("/events", &ada);
    let mut lines = scene.open("/lines", &ada);
    assert_eq!(chunk(&mut events).unwrap(), "data: 1\n\n");
    assert_eq!(chunk(&mut lines).unwrap(), "line\n");
    scene.pass(LIFE + 60);
    assert_eq!(chunk(&mut events).unwrap(), "");
    assert_eq!(chunk(&mut lines), None);
    assert_eq!(scene.identity.provider.count("token.refresh"), 0);
}

#[test]
fn a_session_without_an_id_is_as_long_as_its_own_token() {
    let clock = Clock::frozen(NOW);
    let signer = Signer::p256("k1");
    let keys = key_server(&[signer.jwk()]);
    let (upstream, _ended) = upstream();
    let house = House::start_at(
        &format!(
            "{}cookie_name = \"app_jwt\"\n[session]\nmode = \"shared\"\n\
             [upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\n",
            jwt_provider("main", &keys)
        ),
        clock.clone(),
    );
    let cookie = |exp: u64| {
        let claims = keys::claims_with(json!({"exp": exp}));
        format!("app_jwt={}", signer.token(&claims))
    };
    let (short, long) = (cookie(NOW + 100), cookie(NOW + 900));
    let mut one = socket(&house, "/socket", &[("Cookie", &short)]);
    let mut other = socket(&house, "/socket", &[("Cookie", &long)]);
    clock.advance(Duration::from_secs(160));
    hears_4401(&mut one);
    assert!(echoes(&mut other));
    clock.advance(Duration::from_secs(800));
    hears_4401(&mut other);
}
