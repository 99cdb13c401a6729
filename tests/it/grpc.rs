//! gRPC (its "gRPC over HTTP2" document): what the gateway refuses, a client of gRPC understands.

use crate::support::http2::Http2;
use crate::support::keys::{self, Signer, jwt_provider, key_server};
use crate::support::{Answer, Client, Closed, House, Upstream, Wire, app, scripted};
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
