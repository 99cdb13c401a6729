//! Doors with TLS (contract, sections 2 and 6): protocol and certificate by what the client asks, certificates that change
//! while the gateway runs, and everything behind the door as without it. And the door that sends to one with TLS.

use crate::process::gated;
use crate::support::tls::{self, BOTH, Tls};
use crate::support::{
    Answer, Client, House, Identity, NOW, Reply, Upstream, about, app, dial, eventually,
    http2::Http2, open_house, problem, send,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tollhouse::base::clock::Clock;
use tollhouse::server::Drained;

const ROUTE: &str = "[[routes]]\npath = \"/*\"\nauth = \"public\"\n";
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n";

/// A gateway with a door for TLS that lets everything through.
fn house(server: &str, upstream: &Upstream) -> House {
    open_house(
        upstream,
        &format!("{server}\n{}", tls::listener(&["app.test", "other.test"])),
    )
}

fn client(address: SocketAddr) -> Client<Tls> {
    Client::on(tls::connect(address, "app.test", &["http/1.1"]))
}

/// One request on a connection.
fn get(client: &mut Client<Tls>) -> Answer {
    client.write(GET);
    client.read()
}

#[test]
fn alpn_names_the_protocol_and_without_it_http_1_1_is_spoken() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let door = house.doors[0];
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["spdy/3", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let tls = tls::connect(door, "app.test", offered);
        let found = tls.conn.alpn_protocol();
        assert_eq!(found, chosen.map(str::as_bytes), "{offered:?}");
        if chosen != Some("h2") {
            assert_eq!(get(&mut Client::on(tls)).text(), "ok");
        }
    }
    assert_eq!(Http2::secure(door, "app.test").get("/", &[]).text(), "ok");
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_client_that_speaks_none_of_our_protocols_is_told_so_in_the_handshake() {
    let house = house("", &Upstream::start());
    let config = Arc::new(tls::offer(&["spdy/3"], BOTH));
    let error = tls::shake(dial(house.doors[0]), "app.test", config).unwrap_err();
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let house = house("", &Upstream::start());
    for (version, name) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let config = Arc::new(tls::offer(&[], &[version]));
        let tls = tls::shake(dial(house.doors[0]), "app.test", config).unwrap();
        assert_eq!(tls.conn.protocol_version(), Some(name));
        assert_eq!(get(&mut Client::on(tls)).text(), "ok");
    }
    // A greeting of TLS 1.1: ECDHE-ECDSA-AES128-SHA on P-256, signatures of ECDSA with SHA-256.
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 23, 0, 11, 0, 2, 1, 0, 0, 13, 0, 4, 0, 2, 4, 3,
    ];
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x09, 1, 0, 0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![
        22,
        3,
        1,
        0,
        hello.len() as u8 + 4,
        1,
        0,
        0,
        hello.len() as u8,
    ];
    record.extend(hello);
    let mut stream = dial(house.doors[0]);
    stream.write_all(&record).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    // An alert (RFC 8446 §6): fatal, protocol_version.
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
}

#[test]
fn a_client_comes_back_with_a_ticket_but_cannot_send_before_the_handshake_is_over() {
    let house = house("", &Upstream::start());
    let mut config = tls::offer(&[], BOTH);
    config.enable_early_data = true;
    let config = Arc::new(config);
    let first = tls::shake(dial(house.doors[0]), "app.test", config.clone()).unwrap();
    let full = first.conn.handshake_kind();
    assert_eq!(full, Some(rustls::HandshakeKind::Full));
    // Tickets come with the answer.
    let mut first = Client::on(first);
    get(&mut first);
    let name = "app.test".try_into().unwrap();
    let mut connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
    assert!(connection.early_data().is_none());
    drop(connection);
    get(&mut first);
    let second = tls::shake(dial(house.doors[0]), "app.test", config).unwrap();
    let resumed = second.conn.handshake_kind();
    assert_eq!(resumed, Some(rustls::HandshakeKind::Resumed));
    assert_eq!(get(&mut Client::on(second)).text(), "ok");
}

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate_and_the_first_is_for_all_others() {
    let house = house("", &Upstream::start());
    for (asked, shown) in [
        ("app.test", "app.test"),
        ("APP.test", "app.test"),
        ("deep.app.test", "app.test"),
        ("other.test", "other.test"),
        ("nobody.test", "app.test"),
        // No name is told with an address.
        ("127.0.0.1", "app.test"),
    ] {
        let tls = tls::connect(house.doors[0], asked, &[]);
        assert_eq!(tls::shown(&tls), tls::certificate(shown), "{asked}");
    }
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_closed_when_its_time_is_over() {
    let house = house("tls_handshake_timeout = \"250ms\"", &Upstream::start());
    // The beginning of a greeting: a record of 512 bytes, of which one comes.
    for said in [&b""[..], &[22, 3, 1, 2, 0, 1]] {
        let mut client = Client::connect(house.doors[0]);
        let began = Instant::now();
        client.write(said);
        assert!(client.is_closed());
        about(began, 250);
    }
    eventually(|| house.metric("tollhouse_connections") == 0.0);
    assert!(house.log.records().is_empty());
    // One that has shaken hands has the time that any connection has.
    let mut client = client(house.doors[0]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(get(&mut client).text(), "ok");
}

#[test]
fn what_comes_in_the_clear_to_a_door_with_tls_is_closed_without_an_answer() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    let mut client = Client::connect(house.doors[0]);
    client.write(GET);
    let said = client.rest();
    assert!(!said.starts_with(b"HTTP/"), "{said:?}");
    assert_eq!(upstream.count(), 0);
    assert_eq!(get(&mut self::client(house.doors[0])).text(), "ok");
}

/// Puts a pair of the vectors into a folder; each file appears whole.
fn put(folder: &Path, file: &str, from: &str) {
    let new = folder.join("new");
    fs::copy(tls::file(from), &new).unwrap();
    fs::rename(new, folder.join(file)).unwrap();
}

fn reloading(folder: &Path, upstream: &Upstream) -> House {
    open_house(
        upstream,
        &format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = [{{ cert = {:?}, key = {:?} }}]\n",
            folder.join("cert.pem"),
            folder.join("key.pem")
        ),
    )
}

fn shows(house: &House) -> rustls::pki_types::CertificateDer<'static> {
    tls::shown(&tls::connect(house.doors[0], "app.test", &[]))
}

fn readyz(house: &House) -> serde_json::Value {
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = send(house.admin, request, false);
    assert_eq!(answer.status, 200, "later trouble changes only the body");
    answer.json()
}

#[test]
fn a_certificate_is_renewed_when_its_files_are_and_a_pair_that_does_not_fit_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "cert.pem", "app.test.pem");
    put(folder.path(), "key.pem", "app.test-key.pem");
    let house = reloading(folder.path(), &Upstream::start());
    let mut before = client(house.doors[0]);
    assert_eq!(get(&mut before).text(), "ok");
    assert_eq!(readyz(&house)["status"], "ok");

    put(folder.path(), "cert.pem", "other.test.pem");
    eventually(|| readyz(&house)["status"] == "degraded");
    let reasons = readyz(&house)["reasons"].to_string();
    assert!(reasons.contains("cert.pem"), "{reasons}");
    assert_eq!(shows(&house), tls::certificate("app.test"));

    put(folder.path(), "key.pem", "other.test-key.pem");
    eventually(|| shows(&house) == tls::certificate("other.test"));
    eventually(|| readyz(&house)["status"] == "ok");
    // Connections live on with the certificate they were shown.
    assert_eq!(get(&mut before).text(), "ok");
}

#[test]
fn a_swap_of_the_link_above_the_files_renews_a_certificate() {
    // As Kubernetes does it: the files are links into `..data`, itself a link to the folder in force.
    let folder = tempfile::tempdir().unwrap();
    for name in ["app.test", "other.test"] {
        let version = folder.path().join(name);
        fs::create_dir(&version).unwrap();
        put(&version, "cert.pem", &format!("{name}.pem"));
        put(&version, "key.pem", &format!("{name}-key.pem"));
    }
    let data = folder.path().join("..data");
    symlink("app.test", &data).unwrap();
    for file in ["cert.pem", "key.pem"] {
        symlink(format!("..data/{file}"), folder.path().join(file)).unwrap();
    }
    let house = reloading(folder.path(), &Upstream::start());
    assert_eq!(shows(&house), tls::certificate("app.test"));
    let swap = folder.path().join("..data_tmp");
    symlink("other.test", &swap).unwrap();
    fs::rename(swap, data).unwrap();
    eventually(|| shows(&house) == tls::certificate("other.test"));
}

#[test]
fn behind_tls_the_scheme_is_https_and_in_the_clear_it_is_http() {
    let upstream = Upstream::start();
    let house = house("", &upstream);
    assert_eq!(get(&mut client(house.doors[0])).status, 200);
    let received = upstream.last();
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    Http2::secure(house.doors[0], "app.test").get("/", &[]);
    let received = upstream.last();
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("host"), Some("app.test"));
    house.get("/", &[]);
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("http"));
}

#[test]
fn a_page_of_our_own_came_over_tls_when_its_request_does() {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let file = format!(
        "{}{}{}[[routes]]\npath = \"/*\"\n",
        identity.tables(),
        app(&upstream),
        tls::listener(&["app.test"])
    );
    let house = House::start_at(&file, clock);
    let cookie = identity.cookie("ada@example.com");
    for (origin, status) in [
        ("https://app.test", 200),
        ("https://app.test:8443", 403),
        ("http://app.test", 403),
        ("https://other.test", 403),
    ] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: app.test\r\nOrigin: {origin}\r\nCookie: {cookie}\r\nContent-Length: 0\r\n\r\n"
        );
        let mut client = client(house.doors[0]);
        client.write(head.as_bytes());
        assert_eq!(client.read().status, status, "{origin}");
        let headers = [("origin", origin), ("cookie", &*cookie)];
        let answer = Http2::secure(house.doors[0], "app.test").request("POST", "/", &headers, "");
        assert_eq!(answer.status, status, "{origin}");
    }
}

#[test]
fn every_door_leads_to_the_same_gateway() {
    let upstream = Upstream::start();
    let house = open_house(
        &upstream,
        &format!(
            "{}{}[[listeners]]\naddress = \"127.0.0.1:0\"\n",
            tls::listener(&["app.test"]),
            tls::listener(&["other.test"])
        ),
    );
    assert_eq!(house.doors.len(), 3);
    for (door, name) in [(0, "app.test"), (1, "other.test")] {
        let tls = tls::connect(house.doors[door], name, &[]);
        assert_eq!(tls::shown(&tls), tls::certificate(name));
        assert_eq!(get(&mut Client::on(tls)).text(), "ok");
    }
    assert_eq!(send(house.doors[2], GET, false).text(), "ok");
    assert_eq!(house.get("/", &[]).text(), "ok");
    assert_eq!(upstream.count(), 4);
    assert_eq!(house.log.wait_for(4).len(), 4);
}

#[test]
fn a_drain_lets_requests_over_tls_finish_and_says_goodbye_to_idle_clients() {
    let (upstream, was_asked, let_go) = gated();
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"http://{upstream}\"\n{ROUTE}\
         [[routes]]\npath = \"/x\"\nauth = \"public\"\nrespond = {{ status = 200, body = \"ours\" }}\n{}",
        tls::listener(&["app.test"])
    ));
    let mut idle = client(house.doors[0]);
    assert_eq!(get(&mut idle).text(), "ours");
    // In the middle of its handshake: not waited for longer than the drain.
    let mut shaking = dial(house.doors[0]);
    shaking.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let mut busy = client(house.doors[0]);
    busy.write(b"GET /slow HTTP/1.1\r\nHost: app.test\r\n\r\n");
    was_asked.recv().unwrap();
    let stopping = std::thread::spawn(move || house.stop());
    // With close_notify (RFC 8446 §6.1): without it, rustls says `UnexpectedEof`.
    assert_eq!(idle.stream().read(&mut [0]).unwrap(), 0);
    drop(shaking);
    let_go.send(()).unwrap();
    assert_eq!(busy.read().text(), "slowdown");
    assert_eq!(stopping.join().unwrap(), Drained::Clean);
}

/// A connection from this address of ours.
fn from(host: u8, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let own = SocketAddr::from(([127, 0, 0, host], 0));
    socket.bind(&own.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let timeout = Some(std::time::Duration::from_secs(20));
    socket.set_read_timeout(timeout).unwrap();
    socket.into()
}

#[test]
fn behind_tls_the_clients_address_is_still_its_own() {
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}[rate_limits.per_ip]\nrate = \"2/h\"\nby = \"ip\"\napplies_to = \"all\"\n{ROUTE}\
         [[routes]]\npath = \"/near\"\nauth = \"public\"\nclient_ips = [\"127.0.0.3/32\"]\n{}",
        app(&upstream),
        tls::listener(&["app.test"])
    ));
    let ask = |host: u8, path: &str| {
        let config = Arc::new(tls::offer(&[], BOTH));
        let tls = tls::shake(from(host, house.doors[0]), "app.test", config).unwrap();
        let mut client = Client::on(tls);
        client.write(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n").as_bytes());
        client.read().status
    };
    assert_eq!(ask(2, "/near"), 403);
    assert_eq!(ask(3, "/near"), 200);
    assert_eq!(ask(2, "/"), 200);
    assert_eq!(ask(2, "/"), 429);
    assert_eq!(ask(3, "/"), 200);
    let records = house.log.wait_for(5);
    let addresses: Vec<_> = records
        .iter()
        .map(|r| r["client_ip"].as_str().unwrap())
        .collect();
    assert!(
        addresses.contains(&"127.0.0.2") && addresses.contains(&"127.0.0.3"),
        "{addresses:?}"
    );
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.3"));
}

#[test]
fn places_are_counted_over_all_doors() {
    let house = house("max_connections = 2", &Upstream::start());
    let first = client(house.doors[0]);
    let mut second = Client::connect(house.address);
    second.write(GET);
    assert_eq!(second.read().text(), "ok");
    let config = Arc::new(tls::offer(&[], BOTH));
    assert!(tls::shake(dial(house.doors[0]), "app.test", config).is_err());
    drop(first);
    eventually(|| {
        let config = Arc::new(tls::offer(&[], BOTH));
        tls::shake(dial(house.doors[0]), "app.test", config).is_ok()
    });
}

#[test]
fn a_client_that_reads_nothing_of_its_answer_over_tls_is_let_go() {
    let upstream = Upstream::start();
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 64 << 20);
    let body = [big.as_bytes(), &vec![b'x'; 64 << 20]].concat();
    upstream.reply(Reply::Bytes(body.into()));
    let house = house("write_idle_timeout = \"300ms\"", &upstream);
    let mut client = client(house.doors[0]);
    client.write(GET);
    let record = &house.log.wait_for(1)[0];
    assert!(record["bytes_out"].as_u64().unwrap() < 64 << 20);
    eventually(|| house.metric("tollhouse_connections") == 0.0);
    let mut rest = Vec::new();
    let cut = client.stream().read_to_end(&mut rest);
    assert!(matches!(
        cut.map_err(|e| e.kind()),
        Err(ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)
    ));
}

/// A gateway whose second door sends to https; every route of it wants a credential.
fn redirecting(server: &str, upstream: &Upstream) -> House {
    House::start(&format!(
        "[server]\n{server}\n{}[providers.main]\nkind = \"supabase\"\nurl = \"http://127.0.0.1:9\"\n[[routes]]\npath = \"/*\"\n\
         [[routes]]\npath = \"/open/*\"\nauth = \"public\"\n\
         [[listeners]]\naddress = \"127.0.0.1:0\"\nredirect_https = true\n",
        app(upstream)
    ))
}

fn ask(house: &House, method: &str, target: &str, more: &str) -> Answer {
    let text = format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n{more}\r\n");
    send(house.doors[0], text.as_bytes(), method == "HEAD")
}

#[test]
fn what_comes_in_the_clear_is_sent_to_https_with_its_path_and_query() {
    let upstream = Upstream::start();
    let house = redirecting("", &upstream);
    for method in ["GET", "POST", "HEAD", "DELETE", "OPTIONS"] {
        let answer = ask(&house, method, "/a/b?c=d&e=%20", "Content-Length: 0\r\n");
        assert_eq!(answer.status, 308, "{method}");
        let to = "https://app.test/a/b?c=d&e=%20";
        assert_eq!(answer.header("location"), Some(to), "{method}");
        assert!(answer.body.is_empty());
        assert!(answer.header("x-request-id").is_some());
    }
    // A public route as well; and an upload is not waited for.
    let answer = ask(&house, "POST", "/open/x", "Content-Length: 5\r\n");
    assert_eq!(answer.status, 308);
    assert_eq!(upstream.count(), 0);
    let records = house.log.wait_for(6);
    assert!(records.iter().all(|r| r["status"] == 308), "{records:?}");
    // The other door is not concerned.
    assert_eq!(house.get("/open/x", &[]).text(), "ok");
}

#[test]
fn where_a_redirect_leads_is_never_the_clients_to_say() {
    let house = redirecting("", &Upstream::start());
    for target in [
        "//evil.test/",
        "///evil.test",
        "/%2F/evil.test",
        "//evil.test//x?y",
    ] {
        let answer = ask(&house, "GET", target, "");
        if answer.status == 308 {
            let to = answer.header("location").unwrap();
            assert!(to.starts_with("https://app.test/"), "{target}: {to}");
        } else {
            assert_eq!(answer.status, 400, "{target}");
        }
    }
    let answer = ask(
        &house,
        "GET",
        "/x",
        "X-Forwarded-Host: evil.test\r\nForwarded: host=evil.test\r\n",
    );
    assert_eq!(answer.header("location"), Some("https://app.test/x"));
}

#[test]
fn what_is_wrong_with_a_request_is_said_before_any_redirect() {
    let house = redirecting("hosts = [\"app.test\"]", &Upstream::start());
    let request = b"GET /x HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    let answer = send(house.doors[0], request, false);
    assert_eq!((answer.status, &*problem(&answer)), (421, "misdirected"));
    for target in ["/a/../b", "/%zz", "/a%00b"] {
        let answer = ask(&house, "GET", target, "");
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.header("location").is_none());
    }
    let answer = ask(&house, "TRACE", "/", "");
    assert_eq!(answer.status, 405);
}

#[test]
fn only_a_trusted_proxy_can_say_that_a_request_came_over_tls() {
    let upstream = Upstream::start();
    let said = "X-Forwarded-Proto: https\r\n";
    let strangers = redirecting("", &upstream);
    assert_eq!(ask(&strangers, "GET", "/open/x", said).status, 308);
    let house = redirecting("trusted_proxies = [\"127.0.0.0/8\"]", &upstream);
    assert_eq!(ask(&house, "GET", "/open/x", said).text(), "ok");
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
    for other in [
        "",
        "X-Forwarded-Proto: http\r\n",
        "X-Forwarded-Proto: ftp\r\n",
    ] {
        assert_eq!(ask(&house, "GET", "/open/x", other).status, 308, "{other}");
    }
}

#[test]
fn a_redirect_leads_to_the_port_of_the_public_address() {
    let house = redirecting("public_url = \"https://app.test:9443\"", &Upstream::start());
    let answer = ask(&house, "GET", "/x?y", "");
    let to = "https://app.test:9443/x?y";
    assert_eq!(answer.header("location"), Some(to));
}
