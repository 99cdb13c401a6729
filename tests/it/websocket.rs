//! Handshakes and what becomes of them (contract, section 3; RFC 6455): everything is decided before the upstream hears a
//! word, and afterwards bytes pass in both directions until one side ends.

use crate::support::http2::Http2;
use crate::support::websocket::{self, BINARY, CLOSE, KEY, TEXT, accepted, handshake};
use crate::support::{
    Answer, Client, House, Identity, NOW, PATIENCE, Reply, Upstream, Wire, app, eventually, pair,
    problem, scripted, send, tls,
};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tollhouse::base::clock::Clock;
use tollhouse::server::Drained;

const OURS: &str = "http://app.test";

/// A gateway before an upstream that does as it is told.
struct Scene {
    house: House,
    upstream: Upstream,
    identity: Identity,
    cookie: String,
}

fn scene() -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}trusted_origins = [\"https://trusted.test\"]\n{}[[routes]]\npath = \"/*\"\n\
             [[routes]]\npath = \"/admin\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\npath = \"/public\"\nauth = \"public\"\n\
             [[routes]]\npath = \"/plain\"\nauth = \"public\"\nwebsocket = false\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
            identity.tables(),
            app(&upstream)
        ),
        clock,
    );
    let cookie = identity.cookie("ada@example.com");
    Scene {
        house,
        upstream,
        identity,
        cookie,
    }
}

impl Scene {
    fn shake(&self, path: &str, more: &[(&str, &str)]) -> Answer {
        send(self.house.address, &handshake(path, more), false)
    }

    /// It is refused with this, and the upstream was not asked.
    fn refused(&self, path: &str, more: &[(&str, &str)], status: u16, code: &str) {
        let answer = self.shake(path, more);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (status, code),
            "{path} {more:?}"
        );
        assert_eq!(self.upstream.count(), 0, "{path} {more:?}");
    }

    /// It is put to the upstream.
    fn passes(&self, path: &str, more: &[(&str, &str)]) {
        self.upstream.forget();
        self.upstream.reply(Reply::bytes(
            "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 4\r\n\r\nlate",
        ));
        let answer = self.shake(path, more);
        // What the upstream answers instead of 101 is an answer like others.
        assert_eq!(
            (answer.status, &*answer.text()),
            (426, "late"),
            "{path} {more:?}"
        );
        assert_eq!(self.upstream.count(), 1);
        self.upstream.forget();
    }
}

#[test]
fn a_handshake_goes_on_only_when_everything_is_decided() {
    let scene = scene();
    let bearer = |email: &str| format!("Bearer {}", scene.identity.token(email));
    let (ada, grace) = (bearer("ada@example.com"), bearer("grace@example.com"));
    let broken = format!("{ada}x");
    scene.refused("/x", &[], 401, "missing_credentials");
    scene.refused("/x", &[("Authorization", &broken)], 401, "invalid_token");
    scene.refused("/admin", &[("Authorization", &ada)], 403, "forbidden");
    scene.passes("/x", &[("Authorization", &ada)]);
    scene.passes("/admin", &[("Authorization", &grace)]);
    scene.passes("/public", &[]);
}

#[test]
fn a_handshake_with_a_cookie_comes_from_a_page_of_ours_and_one_with_a_token_from_anywhere() {
    let scene = scene();
    let cookie = ("Cookie", &*scene.cookie);
    let from = |origin| [cookie, ("Origin", origin)];
    scene.refused("/x", &[cookie], 403, "csrf_rejected");
    scene.refused("/x", &from("null"), 403, "csrf_rejected");
    scene.refused("/x", &from("http://evil.test"), 403, "csrf_rejected");
    scene.refused(
        "/x",
        &from("http://app.test.evil.test"),
        403,
        "csrf_rejected",
    );
    scene.refused("/x", &from("http://app.test:81"), 403, "csrf_rejected");
    // A Referer says nothing about a handshake.
    let referer = [cookie, ("Referer", "http://app.test/page")];
    scene.refused("/x", &referer, 403, "csrf_rejected");
    let same_site = [cookie, ("Sec-Fetch-Site", "same-origin")];
    scene.refused("/x", &same_site, 403, "csrf_rejected");
    scene.passes("/x", &from(OURS));
    scene.passes("/x", &from("https://trusted.test"));
    let token = format!("Bearer {}", scene.identity.token("ada@example.com"));
    scene.passes("/x", &[("Authorization", &token)]);
    scene.passes(
        "/x",
        &[("Authorization", &token), ("Origin", "http://evil.test")],
    );
    // Whoever carries both is known by the token.
    scene.passes("/x", &[("Authorization", &token), cookie]);
}

#[test]
fn a_handshake_that_is_none_is_refused_and_not_taken_for_a_plain_request() {
    let scene = scene();
    let all = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", KEY),
    ];
    let ask = |line: &str, fields: &[(&str, &str)]| {
        let mut text = format!("{line}\r\nHost: app.test\r\nContent-Length: 0\r\n");
        for (name, value) in fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        send(scene.house.address, format!("{text}\r\n").as_bytes(), false)
    };
    let but = |name: &str, value: &'static str| {
        let mut fields = all.to_vec();
        fields.retain(|(given, _)| *given != name);
        if !value.is_empty() {
            fields.push((
                all.iter().find(|(given, _)| *given == name).unwrap().0,
                value,
            ));
        }
        fields
    };
    for (why, line, fields) in [
        ("another method", "POST /public HTTP/1.1", all.to_vec()),
        (
            "no Connection",
            "GET /public HTTP/1.1",
            but("Connection", ""),
        ),
        (
            "Connection without it",
            "GET /public HTTP/1.1",
            but("Connection", "close"),
        ),
        (
            "no version",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", ""),
        ),
        (
            "an old version",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", "8"),
        ),
        (
            "several versions",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Version", "13, 8"),
        ),
        (
            "no key",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", ""),
        ),
        (
            "a short key",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", "c2hvcnQ="),
        ),
        (
            "a key that is no base64",
            "GET /public HTTP/1.1",
            but("Sec-WebSocket-Key", "***"),
        ),
    ] {
        let answer = ask(line, &fields);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (400, "bad_request"),
            "{why}"
        );
        assert_eq!(scene.upstream.count(), 0, "{why}");
    }
    let twice = [&all[..], &[("Sec-WebSocket-Key", KEY)]].concat();
    assert_eq!(ask("GET /public HTTP/1.1", &twice).status, 400);
    assert_eq!(scene.upstream.count(), 0);
}

#[test]
fn http_1_0_and_http_2_know_no_handshake() {
    let scene = scene();
    let text = String::from_utf8(handshake("/public", &[])).unwrap();
    let answer = send(
        scene.house.address,
        text.replace("HTTP/1.1", "HTTP/1.0").as_bytes(),
        false,
    );
    // An upgrade means nothing there (RFC 9110 §7.8): a plain GET, or refused; in no case is the upstream told of it.
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    for received in scene.upstream.received() {
        assert_eq!(received.header("upgrade"), None);
    }
    let answer = Http2::connect(scene.house.doors[0]).get("/public", &[("sec-websocket-key", KEY)]);
    assert_eq!(answer.status, 200);
}

#[test]
fn where_no_handshakes_pass_one_is_404_and_other_requests_go_on() {
    let scene = scene();
    scene.refused("/plain", &[], 404, "not_supported");
    assert_eq!(scene.house.get("/plain", &[]).text(), "ok");
}

#[test]
fn a_switch_that_nobody_asked_for_is_no_answer() {
    let scene = scene();
    scene.upstream.reply(Reply::Bytes(accepted("").into()));
    let answer = scene.house.get("/public", &[]);
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (502, "upstream_protocol_error")
    );
    let mut client = Client::connect(scene.house.address);
    client.write(
        b"GET /public HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    );
    assert_eq!(client.read().status, 502);
    let all = scene.upstream.received();
    assert!(
        all.iter()
            .all(|received| received.header("upgrade").is_none())
    );
}

/// An upstream that says yes to every handshake and then does as this script; the head it got is told.
fn switching(
    script: impl Fn(Wire) + Send + Sync + 'static,
) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let (tell, told) = pair();
    let address = scripted(move |mut wire: Wire| {
        let head = wire.head();
        if head.is_empty() {
            return;
        }
        let _ = tell.lock().send(head);
        wire.say_bytes(&accepted(""));
        script(wire);
    });
    (address, told)
}

/// A gateway that lets every handshake through to this upstream.
fn open(server: &str, upstream: SocketAddr) -> House {
    House::start(&format!(
        "[server]\n{server}\n[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n"
    ))
}

/// A client whose handshake was accepted.
fn joined(house: &House, more: &[(&str, &str)]) -> Client {
    let mut client = Client::connect(house.address);
    client.write(&handshake("/socket", more));
    let answer = client.read();
    assert_eq!(answer.status, 101, "{answer:?}");
    client
}

fn frame_of(client: &mut Client) -> Option<(u8, Vec<u8>)> {
    websocket::read(|count| client.exactly(count))
}

/// Says every frame back, unmasked.
fn echo(mut wire: Wire) {
    while let Some((opcode, payload)) = websocket::read(|count| wire.exactly(count)) {
        if !wire.say_bytes(&websocket::frame(opcode, false, &payload)) {
            return;
        }
    }
}

#[test]
fn after_101_frames_pass_both_ways_whatever_their_size() {
    let (upstream, told) = switching(echo);
    let house = open("", upstream);
    let mut client = Client::connect(house.address);
    client.write(&handshake("/socket", &[]));
    let answer = client.read();
    assert_eq!(answer.status, 101);
    let field = |name| answer.header(name).unwrap().to_ascii_lowercase();
    assert_eq!(
        (&*field("connection"), &*field("upgrade")),
        ("upgrade", "websocket")
    );
    let yes = String::from_utf8(accepted("")).unwrap();
    assert!(yes.contains(answer.header("sec-websocket-accept").unwrap()));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(answer.header("x-request-id").is_some());
    let head = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-version: 13\r\n",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{head}");
    }
    assert!(head.contains(&KEY.to_lowercase()));
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        // Not before it is read: a megabyte fits into no buffer on the way back.
        let bytes = websocket::frame(BINARY, true, &payload);
        let mut sender = client.stream().try_clone().unwrap();
        let sending = std::thread::spawn(move || sender.write_all(&bytes).unwrap());
        assert_eq!(frame_of(&mut client), Some((BINARY, payload)), "{size}");
        sending.join().unwrap();
    }
}

#[test]
fn both_directions_flow_at_once() {
    const SIZE: usize = 8 << 20;
    let (upstream, _) = switching(|mut wire: Wire| {
        let mut writer = wire.duplicate();
        let sending = std::thread::spawn(move || writer.say_bytes(&vec![b'd'; SIZE]));
        let up = wire.exactly(SIZE).unwrap();
        assert!(up.iter().all(|byte| *byte == b'u'));
        assert!(sending.join().unwrap());
        wire.rest();
    });
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    let mut sender = client.stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || sender.write_all(&vec![b'u'; SIZE]).unwrap());
    let down = client.exactly(SIZE).unwrap();
    assert!(down.iter().all(|byte| *byte == b'd'));
    sending.join().unwrap();
    drop(client);
    let record = &house.log.wait_for(1)[0];
    assert_eq!(record["status"], 101);
    assert_eq!(
        (&record["bytes_in"], &record["bytes_out"]),
        (&SIZE.into(), &SIZE.into())
    );
}

#[test]
fn bytes_right_behind_the_handshake_and_right_behind_the_101_are_not_lost() {
    let upstream = scripted(|mut wire: Wire| {
        wire.head();
        let hello = websocket::frame(TEXT, false, b"first");
        wire.say_bytes(&[accepted(""), hello].concat());
        echo(wire);
    });
    let house = open("", upstream);
    let mut client = Client::connect(house.address);
    let early = websocket::frame(TEXT, true, b"early");
    client.write(&[handshake("/socket", &[]), early].concat());
    assert_eq!(client.read().status, 101);
    assert_eq!(frame_of(&mut client), Some((TEXT, b"first".to_vec())));
    assert_eq!(frame_of(&mut client), Some((TEXT, b"early".to_vec())));
}

#[test]
fn a_side_that_ends_may_still_hear_the_other_out() {
    let (upstream, _) = switching(|mut wire: Wire| {
        assert_eq!(wire.rest(), b"question");
        wire.say("answer");
    });
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    client.write(b"question");
    client.half_close();
    assert_eq!(client.rest(), b"answer");
    // And the other way round.
    let (tell, told) = pair();
    let (upstream, _) = switching(move |mut wire: Wire| {
        wire.say("goodbye");
        wire.half_close();
        let _ = tell.lock().send(wire.rest());
    });
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    assert_eq!(client.exactly(7).unwrap(), b"goodbye");
    assert!(client.is_closed());
    client.write(b"last words");
    client.half_close();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"last words");
    assert_eq!(house.log.wait_for(1)[0]["bytes_in"], 10);
}

#[test]
fn no_deadline_of_requests_ends_a_tunnel_and_silence_is_allowed() {
    let (upstream, _) = switching(echo);
    let house = House::start(&format!(
        "[server]\nkeep_alive = \"300ms\"\nheader_timeout = \"300ms\"\nbody_idle_timeout = \"300ms\"\nwrite_idle_timeout = \"300ms\"\n\
         [upstreams.app]\nurl = \"http://{upstream}\"\nidle_timeout = \"300ms\"\ntimeout = \"300ms\"\n\
         [[routes]]\npath = \"/*\"\nauth = \"public\"\ntimeout = \"300ms\"\nidle_timeout = \"300ms\"\n"
    ));
    let mut client = joined(&house, &[]);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(700));
        client.write(&websocket::frame(TEXT, true, b"still here"));
        assert_eq!(frame_of(&mut client), Some((TEXT, b"still here".to_vec())));
    }
    assert!(house.log.records().is_empty());
}

#[test]
fn a_client_that_reads_nothing_ends_its_tunnel() {
    let (tell, told) = pair();
    let (upstream, _) = switching(move |mut wire: Wire| {
        let chunk = vec![b'x'; 64 * 1024];
        while wire.say_bytes(&chunk) {}
        let _ = tell.lock().send(());
    });
    let house = open("write_idle_timeout = \"400ms\"", upstream);
    let began = Instant::now();
    let client = joined(&house, &[]);
    told.recv_timeout(PATIENCE)
        .expect("the upstream's connection is closed");
    assert!(began.elapsed() >= Duration::from_millis(400));
    assert_eq!(house.log.wait_for(1)[0]["status"], 101);
    drop(client);
}

#[test]
fn only_so_many_connections_are_tunnels_and_places_come_back() {
    let (upstream, _) = switching(echo);
    let house = open("max_upgrades = 2", upstream);
    let first = joined(&house, &[]);
    let _second = joined(&house, &[]);
    let answer = send(house.address, &handshake("/socket", &[]), false);
    assert_eq!((answer.status, &*problem(&answer)), (503, "overloaded"));
    assert!(answer.header("retry-after").is_some());
    drop(first);
    eventually(|| send(house.address, &handshake("/socket", &[]), false).status == 101);
}

#[test]
fn the_record_is_written_when_the_tunnel_ends() {
    let (upstream, _) = switching(echo);
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    let said = websocket::frame(TEXT, true, b"hello");
    client.write(&said);
    frame_of(&mut client).unwrap();
    assert!(house.log.records().is_empty());
    drop(client);
    let records = house.log.wait_for(1);
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(
        (&record["status"], &record["upstream"]),
        (&101.into(), &"app".into())
    );
    assert_eq!(record["bytes_in"], said.len());
    assert_eq!(record["bytes_out"], said.len() - 4);
    let series = "tollhouse_requests_total{route=\"/*\",method=\"GET\",status=\"101\"}";
    assert_eq!(house.metric(series), 1.0);
}

/// An upstream that is in the middle of a frame of so many bytes until it is told to go on.
fn interrupted(size: usize) -> (SocketAddr, std::sync::mpsc::Sender<()>) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = parking_lot::Mutex::new(wait);
    let (upstream, _) = switching(move |mut wire: Wire| {
        let bytes = websocket::frame(BINARY, false, &vec![7; size]);
        let (start, end) = bytes.split_at(size / 2);
        wire.say_bytes(start);
        let _ = wait.lock().recv();
        wire.say_bytes(end);
        // More than the client should get to hear.
        wire.say_bytes(&websocket::frame(TEXT, false, b"too late"));
        wire.rest();
    });
    (upstream, go)
}

#[test]
fn a_drain_says_goodbye_between_two_frames() {
    const SIZE: usize = 300_000;
    let (upstream, go) = interrupted(SIZE);
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    assert_eq!(client.exactly(10 + SIZE / 4).unwrap()[..2], [0x82, 127]);
    let stopping = std::thread::spawn(move || house.stop());
    std::thread::sleep(Duration::from_millis(200));
    assert!(!stopping.is_finished());
    go.send(()).unwrap();
    let rest = client.exactly(SIZE - SIZE / 4).unwrap();
    assert!(rest.iter().all(|byte| *byte == 7));
    let (opcode, payload) = frame_of(&mut client).unwrap();
    assert_eq!(
        (opcode, &payload[..2]),
        (CLOSE, &1001_u16.to_be_bytes()[..])
    );
    // The client answers as it must, and the connection is over.
    client.write(&websocket::frame(CLOSE, true, &1001_u16.to_be_bytes()));
    client.half_close();
    assert!(client.is_closed());
    assert_eq!(stopping.join().unwrap(), Drained::Clean);
}

#[test]
fn an_idle_websocket_hears_at_once_that_the_gateway_stops() {
    let (upstream, _) = switching(echo);
    let house = open("", upstream);
    let mut client = joined(&house, &[]);
    let began = Instant::now();
    let stopping = std::thread::spawn(move || house.stop());
    let (opcode, payload) = frame_of(&mut client).unwrap();
    assert_eq!(
        (opcode, &payload[..2]),
        (CLOSE, &1001_u16.to_be_bytes()[..])
    );
    assert!(began.elapsed() < Duration::from_secs(2));
    client.write(&websocket::frame(CLOSE, true, &payload));
    assert!(client.is_closed());
    assert_eq!(stopping.join().unwrap(), Drained::Clean);
}

#[test]
fn another_protocol_is_passed_as_bytes_and_cut_when_the_drains_time_is_over() {
    let upstream = scripted(|mut wire: Wire| {
        let head = wire.head();
        assert!(head.starts_with("POST /attach"), "{head}");
        assert!(
            head.to_lowercase().contains("\r\nupgrade: tcp\r\n"),
            "{head}"
        );
        wire.say("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nbanner");
        let mut buffer = [0; 64];
        loop {
            match wire.some(&mut buffer) {
                0 => return,
                read => wire.say_bytes(&buffer[..read]),
            };
        }
    });
    let house = open("drain_timeout = \"500ms\"", upstream);
    let mut client = Client::connect(house.address);
    client.write(
        b"POST /attach HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    );
    let answer = client.read();
    assert_eq!(
        (answer.status, answer.header("upgrade")),
        (101, Some("tcp"))
    );
    assert_eq!(client.exactly(6).unwrap(), b"banner");
    // What would be a head of a frame is none here.
    let bytes = [0x88, 0x02, 0x03, 0xe8, 0xff, 0x00];
    client.write(&bytes);
    assert_eq!(client.exactly(6).unwrap(), bytes);
    let began = Instant::now();
    let stopping = std::thread::spawn(move || house.stop());
    client.write(b"still");
    assert_eq!(client.exactly(5).unwrap(), b"still");
    assert_eq!(client.rest(), b"", "nothing of ours is put between");
    assert_eq!(stopping.join().unwrap(), Drained::Cut(1));
    crate::support::about(began, 500);
}

#[test]
fn an_upstream_that_switches_to_something_else_is_no_answer() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let house = open(
            "",
            scripted(move |mut wire: Wire| {
                wire.head();
                wire.say(answer);
                wire.rest();
            }),
        );
        let refused = send(house.address, &handshake("/socket", &[]), false);
        assert_eq!(
            (refused.status, &*problem(&refused)),
            (502, "upstream_protocol_error"),
            "{answer}"
        );
        // The place is free again.
        assert_eq!(house.log.wait_for(1)[0]["status"], 502);
    }
}

#[test]
fn the_upstream_hears_who_it_is_and_nothing_that_is_not_the_clients_to_say() {
    let scene = scene();
    scene.upstream.reply(Reply::Bytes(
        accepted("Set-Cookie: sb-127-auth-token=stolen; Path=/\r\nSet-Cookie: own=1\r\nX-User-Id: root\r\nServer: old\r\nKeep-Alive: timeout=5\r\n").into(),
    ));
    let cookie = format!("theme=dark; {}", scene.cookie);
    let mut client = Client::connect(scene.house.address);
    client.write(&handshake(
        "/x",
        &[
            ("Cookie", &cookie),
            ("Origin", OURS),
            ("X-User-Id", "root"),
            ("X-Forwarded-For", "6.6.6.6"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ],
    ));
    let answer = client.read();
    assert_eq!(answer.status, 101);
    let received = scene.upstream.only();
    assert!(
        received
            .header("authorization")
            .unwrap()
            .starts_with("Bearer ")
    );
    assert_ne!(received.header("x-user-id").unwrap(), "root");
    assert_eq!(received.header("cookie"), Some("theme=dark"));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("origin"), Some(OURS));
    assert_eq!(received.header("sec-websocket-protocol"), Some("chat"));
    assert_eq!(
        received.header("sec-websocket-extensions"),
        Some("permessage-deflate")
    );
    assert_eq!(received.header("keep-alive"), None);
    assert_eq!(received.header("proxy-authorization"), None);
    assert!(
        received
            .header("connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert!(
        received
            .header("upgrade")
            .unwrap()
            .eq_ignore_ascii_case("websocket")
    );
    // The answer is cleaned like any other.
    assert_eq!(answer.all("set-cookie"), ["own=1"]);
    for name in ["x-user-id", "server", "keep-alive"] {
        assert_eq!(answer.header(name), None, "{answer:?}");
    }
    drop(client);
    let record = &scene.house.log.wait_for(1)[0];
    assert_eq!(
        (&record["credential"], &record["status"]),
        (&"session".into(), &101.into())
    );
}

#[test]
fn a_handshake_can_come_over_tls() {
    let (upstream, told) = switching(echo);
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n{}",
        tls::listener(&["app.test"])
    ));
    let mut client = Client::on(tls::connect(house.doors[0], "app.test", &["http/1.1"]));
    let early = websocket::frame(TEXT, true, b"early");
    client.write(&[handshake("/socket", &[]), early].concat());
    assert_eq!(client.read().status, 101);
    let said = websocket::read(|count| client.exactly(count));
    assert_eq!(said, Some((TEXT, b"early".to_vec())));
    let head = told.recv_timeout(PATIENCE).unwrap().to_lowercase();
    assert!(head.contains("x-forwarded-proto: https"), "{head}");
    let stopping = std::thread::spawn(move || house.stop());
    let (opcode, _) = websocket::read(|count| client.exactly(count)).unwrap();
    assert_eq!(opcode, CLOSE);
    drop(client);
    assert_eq!(stopping.join().unwrap(), Drained::Clean);
}
