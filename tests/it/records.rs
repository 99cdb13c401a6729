//! One access record for each request, whatever becomes of it, and nothing secret in any.

use crate::support::{Client, House, Identity, NOW, Reply, Upstream, eventually, free_port};
use serde_json::Value;
use std::time::Duration;
use tollhouse::base::clock::Clock;

struct Scene {
    identity: Identity,
    upstream: Upstream,
    house: House,
}

fn scene(extra: &str) -> Scene {
    let clock = Clock::frozen(NOW);
    let identity = Identity::start(&clock);
    let upstream = Upstream::start();
    let house = House::start_at(
        &format!(
            "{}[upstreams.app]\nurl = \"{}\"\n[upstreams.down]\nurl = \"http://127.0.0.1:{}\"\n\
             [[routes]]\nname = \"public\"\npath = \"/public/*\"\nauth = \"public\"\nupstream = \"app\"\n\
             [[routes]]\nname = \"api\"\npath = \"/api/*\"\nupstream = \"app\"\n\
             [[routes]]\nname = \"admin\"\npath = \"/admin\"\nupstream = \"app\"\nrequire = {{ any_role = [\"admin\"] }}\n\
             [[routes]]\nname = \"down\"\npath = \"/down\"\nauth = \"public\"\nupstream = \"down\"\n\
             [[routes]]\nname = \"ours\"\npath = \"/ours\"\nauth = \"public\"\nrespond = {{ status = 200, body = \"ours\" }}\n{extra}",
            identity.tables(),
            upstream.url(),
            free_port()
        ),
        clock,
    );
    Scene {
        identity,
        upstream,
        house,
    }
}

/// The records once there are so many, and a moment later still as many.
fn settled(house: &House, count: usize) -> Vec<Value> {
    house.log.wait_for(count);
    std::thread::sleep(Duration::from_millis(50));
    let records = house.log.records();
    assert_eq!(records.len(), count, "{records:#?}");
    records
}

#[test]
fn a_record_has_the_contracts_fields_in_its_order() {
    let Scene {
        identity,
        upstream,
        house,
    } = scene("");
    upstream.reply(Reply::bytes(
        "HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nhello",
    ));
    let session = identity.session("ada@example.com");
    let cookie = crate::support::cookie(&session.to_string());
    let answer = house.request(
        "POST",
        "/api//%7eme?token=secret-query",
        &[("Cookie", &cookie), ("Sec-Fetch-Site", "same-origin")],
        "12345678",
    );
    assert_eq!(answer.status, 201);
    let record = &settled(&house, 1)[0];
    let text = record.to_string();
    let expected = serde_json::json!({
        "ts": "2026-01-01T00:00:00.000Z",
        "level": "info",
        "msg": "request",
        "request_id": answer.header("x-request-id"),
        "trace_id": record["trace_id"],
        "method": "POST",
        "path": "/api/~me",
        "route": "api",
        "status": 201,
        "duration_ms": record["duration_ms"],
        "upstream": "app",
        "upstream_ms": record["upstream_ms"],
        "client_ip": "127.0.0.1",
        "user_id": session["user"]["id"],
        "credential": "session",
        "bytes_in": 8,
        "bytes_out": 5,
    });
    assert_eq!(*record, expected);
    let trace = upstream.only().header("traceparent").unwrap().to_owned();
    assert_eq!(
        Some(record["trace_id"].as_str().unwrap()),
        trace.split('-').nth(1)
    );
    for secret in [
        "secret-query",
        session["access_token"].as_str().unwrap(),
        session["refresh_token"].as_str().unwrap(),
        &cookie,
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    // The order is that of the line; the parsed form does not keep it.
    let line = house.log.text();
    let names = "ts level msg request_id trace_id method path route status duration_ms upstream upstream_ms client_ip \
                 user_id credential bytes_in bytes_out";
    let places: Vec<_> = names
        .split_whitespace()
        .map(|name| line.find(&format!("\"{name}\":")).expect(name))
        .collect();
    assert!(places.is_sorted(), "{line}");
}

#[test]
fn every_end_of_a_request_leaves_one() {
    let Scene {
        identity,
        upstream,
        house,
    } = scene("");
    let token = format!("Bearer {}", identity.token("ada@example.com"));
    let mut number = 0;
    let mut check = |status: u64, route: Option<&str>, code: Option<&str>| {
        number += 1;
        let record = settled(&house, number).pop().unwrap();
        assert_eq!(record["status"], status, "{record}");
        assert_eq!(record["route"].as_str(), route, "{record}");
        assert_eq!(record["code"].as_str(), code, "{record}");
        record
    };
    house.get("/ours", &[]);
    check(200, Some("ours"), None);
    house.get("/nowhere", &[]);
    check(404, None, Some("no_route"));
    house.get("/api/me", &[]);
    check(401, Some("api"), Some("missing_credentials"));
    house.get(
        "/api/me",
        &[("Authorization", "Bearer secret.secret.secret")],
    );
    check(401, Some("api"), Some("invalid_token"));
    house.get("/admin", &[("Authorization", &token)]);
    let record = check(403, Some("admin"), Some("forbidden"));
    assert_eq!(record["credential"], "bearer");
    assert!(record["user_id"].is_string() && record["upstream"].is_null());
    house.get("/down", &[]);
    let record = check(502, Some("down"), Some("upstream_unreachable"));
    assert_eq!(record["upstream"], "down");
    house.get("/a/../ours", &[]);
    // A path with two readings is not written down.
    assert!(check(400, None, Some("bad_request"))["path"].is_null());
    house.request("TRACE", "/ours", &[], "");
    check(405, None, Some("method_not_allowed"));
    upstream.reply(Reply::Close);
    house.get("/public/x", &[]);
    check(502, Some("public"), Some("upstream_protocol_error"));
    // An answer that is cut in the middle keeps the status that was sent.
    upstream.reply(Reply::bytes_and_close(
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
    ));
    house.get("/public/x", &[]);
    check(200, Some("public"), None);
    // The client went away: in the middle of its body, before the answer.
    upstream.reply(Reply::Silence);
    let mut client = Client::connect(house.address);
    client.write(b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    drop(client);
    // Whoever notices first: the body that was cut (400), or the request that nobody waits for (499).
    number += 1;
    let record = settled(&house, number).pop().unwrap();
    assert!(
        record["status"] == 499 || record["status"] == 400,
        "{record}"
    );
    let mut client = Client::connect(house.address);
    let before = upstream.count();
    client.write(b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually(|| upstream.count() > before);
    drop(client);
    number += 1;
    let record = settled(&house, number).pop().unwrap();
    assert_eq!(
        (&record["status"], &record["upstream"]),
        (&499.into(), &"app".into())
    );
    let text = house.log.text();
    assert!(!text.contains("secret") && !text.contains("eyJ"), "{text}");
}

#[test]
fn a_hundred_at_once_leave_a_hundred_with_ids_of_their_own() {
    let Scene {
        identity, house, ..
    } = scene("");
    let token = format!("Bearer {}", identity.token("ada@example.com"));
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let (house, token) = (&house, &token);
            scope.spawn(move || {
                for request in 0..10 {
                    let path = format!(
                        "/{}/{thread}-{request}",
                        if request % 2 == 0 { "api" } else { "nowhere" }
                    );
                    house.get(&path, &[("Authorization", token)]);
                }
            });
        }
    });
    let records = settled(&house, 100);
    let all = |name: &str| {
        let values: std::collections::HashSet<_> =
            records.iter().map(|r| r[name].to_string()).collect();
        values.len()
    };
    assert_eq!(
        (all("request_id"), all("path"), all("trace_id")),
        (100, 100, 100)
    );
    assert_eq!(records.iter().filter(|r| r["status"] == 200).count(), 50);
}

#[test]
fn records_can_be_off() {
    let Scene { house, .. } = scene("[log]\naccess = false\n");
    assert_eq!(house.get("/ours", &[]).status, 200);
    assert_eq!(house.get("/nowhere", &[]).status, 404);
    eventually(|| {
        house.metric("tollhouse_requests_total{route=\"none\",method=\"GET\",status=\"404\"}")
            == 1.0
    });
    settled(&house, 0);
}

#[test]
fn users_can_be_left_out() {
    let Scene {
        identity, house, ..
    } = scene("[log]\nuser_id = false\n");
    let token = format!("Bearer {}", identity.token("ada@example.com"));
    assert_eq!(
        house.get("/api/me", &[("Authorization", &token)]).status,
        200
    );
    let record = &settled(&house, 1)[0];
    assert_eq!(record["credential"], "bearer");
    assert!(record["user_id"].is_null());
}

#[test]
fn a_long_path_is_cut_and_a_strange_method_is_written_safely() {
    let Scene { house, .. } = scene("");
    house.get(&format!("/public/{}", "x".repeat(7000)), &[]);
    house.request("WEIRD-METHOD", "/ours", &[], "");
    let records = settled(&house, 2);
    assert!(records[0]["path"].as_str().unwrap().len() < 3000);
    assert_eq!(records[1]["method"], "WEIRD-METHOD");
}
