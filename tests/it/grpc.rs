//! gRPC (its "gRPC over HTTP2" document): what the gateway refuses, a client of gRPC understands.

use crate::support::frames::{self, Frames};
use crate::support::http2::Http2;
use crate::support::keys::{self, Signer, jwt_provider, key_server};
use crate::support::upstream2::{Answering, Call, Upstream2};
use crate::support::{Answer, Client, Closed, House, Reply, Upstream, Wire, about, app, scripted};
use std::net::SocketAddr;

const TYPE: (&str, &str) = ("content-type", "application/grpc+proto");
const TE: (&str, &str) = ("te", "trailers");

struct Scene {
    house: House,
    upstream: Upstream,
    signer: Signer,
    _keys: Upstream,
}

fn scene() -> Scene {
    let signer = Signer::p256("k1");
    let keys = key_server(&[signer.jwk()]);
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}{}[upstreams.gone]\nurl = \"http://{}\"\nretries = 0\n\
         [rate_limits.once]\nrate = \"1/h\"\nby = \"ip\"\n\
         [[routes]]\npath = \"/users.Users/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/admin.Admin/*\"\nrequire = {{ any_role = [\"admin\"] }}\nupstream = \"app\"\n\
         [[routes]]\npath = \"/once.Once/*\"\nauth = \"public\"\nrate_limits = [\"once\"]\nrespond = {{ status = 200, body = \"ok\" }}\n\
         [[routes]]\npath = \"/gone.Gone/*\"\nauth = \"public\"\nupstream = \"gone\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
        jwt_provider("main", &keys),
        app(&upstream),
        Closed::new().address(),
    ));
    Scene {
        house,
        upstream,
        signer,
        _keys: keys,
    }
}

impl Scene {
    fn call(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut all = vec![TYPE, TE];
        all.extend(headers);
        Http2::connect(self.house.doors[0]).request("POST", path, &all, "\0\0\0\0\0")
    }

    /// The answer that a client of gRPC takes for this status: 200, and nothing but a head.
    fn check(&self, path: &str, headers: &[(&str, &str)], status: &str, code: &str) {
        let answer = self.call(path, headers);
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(
            answer.header("grpc-status"),
            Some(status),
            "{path} {answer:?}"
        );
        assert_eq!(answer.header("grpc-message"), Some(code), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert!(answer.head_alone && answer.body.is_empty(), "{answer:?}");
        assert!(answer.header("x-request-id").is_some());
    }
}

#[test]
fn refusals_are_statuses_of_grpc_in_a_head_that_ends_the_stream() {
    let scene = scene();
    scene.check("/users.Users/Get", &[], "16", "missing_credentials");
    let bearer = |token: String| format!("Bearer {token}");
    let broken = bearer(scene.signer.token(&keys::claims()) + "x");
    scene.check(
        "/users.Users/Get",
        &[("authorization", &broken)],
        "16",
        "invalid_token",
    );
    let good = bearer(scene.signer.token(&keys::claims()));
    scene.check(
        "/admin.Admin/Get",
        &[("authorization", &good)],
        "7",
        "forbidden",
    );
    scene.check("/nobody.Nobody/Get", &[], "12", "no_route");
    scene.check("/gone.Gone/Get", &[], "14", "upstream_unreachable");
    assert_eq!(scene.upstream.count(), 0);
    assert_eq!(scene.call("/once.Once/Get", &[]).text(), "ok");
    scene.check("/once.Once/Get", &[], "8", "rate_limited");
    // The operator sees why.
    let statuses: Vec<_> = scene
        .house
        .log
        .wait_for(7)
        .iter()
        .map(|r| r["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [401, 401, 403, 404, 502, 200, 429]);
}

#[test]
fn a_refused_call_on_http_1_1_is_answered_in_the_same_way() {
    let scene = scene();
    let mut client = Client::connect(scene.house.address);
    client.write(b"POST /users.Users/Get HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n");
    let answer = client.read();
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("16"))
    );
}

#[test]
fn an_upload_that_is_refused_is_not_waited_for() {
    let scene = scene();
    let mut client = Http2::connect(scene.house.doors[0]);
    let mut call = client.open("POST", "/users.Users/Put", &[TYPE, TE], false);
    call.send(vec![0; 10_000], false);
    let answer = call.answer().unwrap();
    assert_eq!(answer.header("grpc-status"), Some("16"));
    assert!(answer.head_alone);
}

/// A call through a gateway of its own to this upstream.
fn call_to(upstream: SocketAddr, headers: &[(&str, &str)]) -> (Answer, House) {
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"http://{upstream}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n"
    ));
    let headers = [&[TYPE, TE], headers].concat();
    let mut client = Http2::connect(house.doors[0]);
    let answer = client.request("POST", "/users.Users/Get", &headers, "\0\0\0\0\0");
    assert_eq!(answer.status, 200);
    assert!(answer.head_alone, "{answer:?}");
    (answer, house)
}

#[test]
fn an_upstream_that_breaks_off_is_unavailable() {
    for said in [
        "",
        "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-",
        "nonsense\r\n\r\n",
    ] {
        let upstream = scripted(move |mut wire: Wire| {
            wire.head();
            wire.say(said);
        });
        let (answer, _) = call_to(upstream, &[]);
        assert_eq!(
            answer.header("grpc-status"),
            Some("14"),
            "{said}: {answer:?}"
        );
    }
}

/// A gateway before an upstream that speaks HTTP/2.
fn before(upstream: &Upstream2, keys: &str) -> House {
    House::start(&format!(
        "[upstreams.app]\nurl = \"http://{}\"\n{keys}[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
        upstream.address
    ))
}

fn echo() -> Upstream2 {
    Upstream2::start(|call: Call, mut answer: Answering| async move {
        answer.head(
            &[
                ("content-type", "application/grpc+proto"),
                ("x-served", "yes"),
            ],
            false,
        );
        answer.data(&call.body);
        answer.trailers(&[
            ("grpc-status", "0"),
            ("grpc-message", "fine"),
            ("x-checksum", "abc"),
            ("x-user-id", "root"),
            ("set-cookie", "a=b"),
        ]);
    })
}

#[test]
fn a_call_passes_whole_and_its_status_comes_back_in_the_trailers() {
    let upstream = echo();
    // For gRPC, HTTP/2 is the default; and it can be said.
    for keys in ["", "protocol = \"h2c\"\n"] {
        let house = before(&upstream, keys);
        let mut client = Http2::connect(house.doors[0]);
        let headers = [TYPE, TE, ("x-user-id", "root"), ("grpc-timeout", "5S")];
        let answer = client.request("POST", "/users.Users/Get", &headers, "\0\0\0\0\x05hello");
        assert_eq!(
            (answer.status, answer.header("x-served")),
            (200, Some("yes"))
        );
        assert_eq!(answer.body, b"\0\0\0\0\x05hello");
        let trailers: Vec<_> = answer
            .trailers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(
            trailers,
            [
                ("grpc-status", "0"),
                ("grpc-message", "fine"),
                ("x-checksum", "abc")
            ]
        );
        let call = upstream.calls().pop().unwrap();
        assert_eq!(call.header("te"), Some("trailers"));
        assert_eq!(call.header("content-type"), Some("application/grpc+proto"));
        assert_eq!(call.header("grpc-timeout"), Some("5S"));
        assert_eq!(call.header("x-user-id"), None);
        assert_eq!(call.head.uri.path(), "/users.Users/Get");
        let record = &house.log.wait_for(1)[0];
        assert_eq!(
            (&record["status"], &record["bytes_in"], &record["bytes_out"]),
            (&200.into(), &10.into(), &10.into())
        );
    }
}

#[test]
fn an_error_of_the_upstream_that_is_a_head_alone_stays_one() {
    let upstream = Upstream2::start(|_: Call, mut answer: Answering| async move {
        let fields = [
            ("content-type", "application/grpc"),
            ("grpc-status", "5"),
            ("grpc-message", "no such user"),
        ];
        answer.head(&fields, true);
    });
    let house = before(&upstream, "");
    let answer = Http2::connect(house.doors[0]).request(
        "POST",
        "/users.Users/Get",
        &[TYPE, TE],
        "\0\0\0\0\0",
    );
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("5"))
    );
    assert_eq!(answer.header("grpc-message"), Some("no such user"));
    assert!(answer.head_alone);
}

#[test]
fn of_a_callers_trailers_those_of_grpc_reach_the_upstream() {
    let upstream = echo();
    let house = before(&upstream, "");
    let mut client = Http2::connect(house.doors[0]);
    let mut call = client.open("POST", "/users.Users/Put", &[TYPE, TE], false);
    call.send("\0\0\0\0\0", false);
    call.send_trailers(&[
        ("grpc-extra", "1"),
        ("x-user-id", "root"),
        ("authorization", "Bearer x"),
        ("x-a", "b"),
    ]);
    assert_eq!(call.answer().unwrap().status, 200);
    let trailers = &upstream.calls()[0].trailers;
    let names: Vec<_> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["grpc-extra"]);
}

#[test]
fn messages_pass_one_by_one() {
    let (go, wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(wait));
    let upstream = Upstream2::start(move |_: Call, mut answer: Answering| {
        let wait = wait.clone();
        async move {
            answer.head(&[("content-type", "application/grpc")], false);
            while wait.lock().await.recv().await.is_some() {
                answer.data(b"\0\0\0\0\x01x");
            }
            answer.trailers(&[("grpc-status", "0")]);
        }
    });
    let house = before(&upstream, "");
    let mut client = Frames::connect(house.doors[0]);
    let mut fields = frames::request("POST", "/chat.Chat/Listen");
    fields.extend([TYPE, TE]);
    client.headers(1, &fields, true);
    let head = client.until(frames::HEADERS).unwrap();
    assert_eq!(head.status(), 200);
    for _ in 0..3 {
        go.send(()).unwrap();
        let message = client.until(frames::DATA).unwrap();
        assert_eq!(message.payload, b"\0\0\0\0\x01x");
    }
    drop(go);
    let end = client.until(frames::HEADERS).unwrap();
    assert_eq!(end.flags & frames::END_STREAM, frames::END_STREAM);
}

#[test]
fn the_time_that_a_client_waits_shortens_that_of_the_route() {
    let upstream = Upstream2::start(|_: Call, answer: Answering| async move {
        let _silent = answer;
        std::future::pending().await
    });
    let began = std::time::Instant::now();
    let (answer, house) = call_to(upstream.address, &[("grpc-timeout", "300m")]);
    about(began, 300);
    assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    assert_eq!(house.log.wait_for(1)[0]["status"], 504);
}

#[test]
fn an_upstream_that_resets_a_call_is_unavailable() {
    let upstream = Upstream2::start(|_: Call, mut answer: Answering| async move {
        answer.reset(h2::Reason::INTERNAL_ERROR);
    });
    let house = before(&upstream, "");
    let answer = Http2::connect(house.doors[0]).request(
        "POST",
        "/users.Users/Get",
        &[TYPE, TE],
        "\0\0\0\0\0",
    );
    assert_eq!(
        (answer.status, answer.header("grpc-status")),
        (200, Some("14"))
    );
    assert!(answer.head_alone);
}

#[test]
fn a_call_to_an_upstream_that_speaks_http_1_1_alone_is_refused_as_a_call() {
    let upstream = Upstream::start();
    let not_http2 = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    upstream.reply(Reply::bytes_and_close(not_http2));
    for keys in ["", "protocol = \"h2c\"\n"] {
        let house = House::start(&format!(
            "{}{keys}[[routes]]\npath = \"/*\"\nauth = \"public\"\n[[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
            app(&upstream)
        ));
        let answer = Http2::connect(house.doors[0]).request(
            "POST",
            "/users.Users/Get",
            &[TYPE, TE],
            "\0\0\0\0\0",
        );
        assert_eq!(
            (answer.status, answer.header("grpc-status")),
            (200, Some("14")),
            "{answer:?}"
        );
        assert!(answer.head_alone);
    }
}

#[test]
fn a_client_that_does_not_read_small_messages_harms_nobody_on_the_same_upstream_connection() {
    const COUNT: usize = 20_000;
    let upstream = Upstream2::start(|call: Call, mut answer: Answering| async move {
        answer.head(&[("content-type", "application/grpc")], false);
        if call.head.uri.path() == "/chat.Chat/Listen" {
            for _ in 0..COUNT {
                answer.data(b"x");
            }
        }
        answer.trailers(&[("grpc-status", "0")]);
    });
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"http://{}\"\n[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nh2c = true\n",
        upstream.address
    ));
    // One connection, so one worker and one connection to the upstream.
    let mut client = Frames::with(house.doors[0], &[(frames::INITIAL_WINDOW_SIZE, 0)]);
    let listen = [
        &frames::request("POST", "/chat.Chat/Listen")[..],
        &[TYPE, TE],
    ]
    .concat();
    client.headers(1, &listen, true);
    assert_eq!(client.until(frames::HEADERS).unwrap().status(), 200);
    let get = [
        &frames::request("POST", "/users.Users/Get")[..],
        &[TYPE, TE],
    ]
    .concat();
    for number in 1..=20 {
        let outcome = client.ask(1 + 2 * number, &get);
        assert_eq!(outcome.status(), Some(200), "{outcome:?}");
    }
    assert_eq!(upstream.connections(), 1);
    client.give(COUNT, 1);
    let mut read = 0;
    loop {
        let frame = client.read().expect("the stream lives");
        match (frame.kind, frame.stream) {
            (frames::DATA, 1) => read += frame.payload.len(),
            (frames::HEADERS, 1) => break,
            (frames::RST_STREAM | frames::GOAWAY, _) => panic!("{frame:?}"),
            _ => {}
        }
    }
    assert_eq!(read, COUNT);
}
