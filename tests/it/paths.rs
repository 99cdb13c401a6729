//! One canonical path: what is matched is what is forwarded, byte for byte, and what has two readings goes nowhere
//! (contract, sections 2 and 3.4). Targets are written as they stand on the wire.

use crate::support::{Answer, House, Upstream, app, open_house, problem, send};

fn ask(house: &House, host: &str, target: &str) -> Answer {
    let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    send(house.address, text.as_bytes(), false)
}

/// Forwarded as this.
fn check(house: &House, upstream: &Upstream, host: &str, target: &str, expected: &str) {
    let before = upstream.count();
    let answer = ask(house, host, target);
    assert_eq!(answer.status, 200, "{target} {}", answer.text());
    assert_eq!(upstream.count(), before + 1);
    assert_eq!(upstream.last().path(), expected, "{target}");
}

fn refused(house: &House, upstream: &Upstream, target: &str) {
    let before = upstream.count();
    let answer = ask(house, "a", target);
    assert_eq!(
        (answer.status, &*problem(&answer)),
        (400, "bad_request"),
        "{target}"
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(!detail.contains("probe"), "{detail}");
    assert_eq!(upstream.count(), before, "{target} reached the upstream");
}

const DOTS: [&str; 24] = [
    "/probe/.",
    "/probe/..",
    "/..",
    "/.",
    "/../probe",
    "/./probe",
    "/probe/../x",
    "/probe/./x",
    "/probe//../x",
    "/%2e%2e/probe",
    "/%2E./probe",
    "/.%2e/probe",
    "/probe/%2e",
    "/probe/%2e%2e",
    "/probe/..;/x",
    "/probe/.;/x",
    "/probe/..;a=b/x",
    "/probe/..%3b/x",
    "/probe/..%2fx",
    "/probe%2f..%2fx",
    "/probe/..%5cx",
    "/probe/%252e%252e/x",
    "/probe/..%252fx",
    "/probe/%25252e%25252e/x",
];

#[test]
fn whatever_has_two_readings_is_refused() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for target in DOTS {
        refused(&house, &upstream, target);
        refused(&house, &upstream, &format!("{target}?q"));
    }
    for target in [
        "/probe%2fx",
        "/probe%2Fx",
        "/probe%5cx",
        "/probe%5Cx",
        "/probe\\x",
        "/\\probe",
        "/probe/\\..\\x",
        "/probe%00",
        "/probe%0a",
        "/probe%0d%0aX-User-Id:%20root",
        "/probe%09",
        "/probe%1f",
        "/probe%7f",
        "/probe%c2%85",
        "/probe%ff",
        "/probe%80",
        "/probe%c0%ae%c0%ae/",
        "/probe%c0%af",
        "/probe%ed%a0%80",
        "/probe%e2%82",
        "/probe%",
        "/probe%2",
        "/probe%zz",
        "/probe%2g",
        "/probe%u002f",
        "/probe%%32e",
        "/probe%252f",
        "/probe%2541",
        "/probe%252e",
        "/probe%25%32%65",
        "/probe;x",
        "/probe;",
        "/probe;jsessionid=1/x",
        "/probe%3bx",
        "/probe%3B",
    ] {
        refused(&house, &upstream, target);
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn the_canonical_form_is_what_goes_on() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for (target, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/", "/a/"),
        ("//a", "/a"),
        ("//evil.test/x", "/evil.test/x"),
        ("/a//b///c//", "/a/b/c/"),
        ("/%61%2d%2E%5f%7e%39", "/a-._~9"),
        ("/%c3%a9%20%3a", "/%C3%A9%20%3A"),
        ("/a%3Fb%23c", "/a%3Fb%23c"),
        ("/100%25", "/100%25"),
        ("/%25zz", "/%25zz"),
        ("/...", "/..."),
        ("/.well-known/..a/b..", "/.well-known/..a/b.."),
        ("/a:b@c!$&'()*+,=d", "/a:b@c!$&'()*+,=d"),
        ("/A/b", "/A/b"),
        ("/a\"b", "/a\"b"),
        ("http://a//x/%61", "/x/a"),
    ] {
        check(&house, &upstream, "a", target, expected);
    }
}

#[test]
fn the_query_goes_as_it_came() {
    let upstream = Upstream::start();
    let house = open_house(&upstream, "");
    for query in [
        "?",
        "?a",
        "?a=b&a=c",
        "?/../..//;",
        "?%2e%2E%2f%5c\\%00%zz%",
        "?a=%252e&b=+",
        "??",
        "?a=http://b/../c",
        "?'|{}",
    ] {
        check(
            &house,
            &upstream,
            "a",
            &format!("/a{query}"),
            &format!("/a{query}"),
        );
        check(
            &house,
            &upstream,
            "a",
            &format!("//%61{query}"),
            &format!("/a{query}"),
        );
    }
}

#[test]
fn a_route_lets_through_what_it_allows_and_nothing_else() {
    let upstream = Upstream::start();
    let route = |name: &str, allowed: &str| {
        format!(
            "[[routes]]\npath = \"/{name}/*\"\nauth = \"public\"\nallow_in_path = [\"{allowed}\"]\n"
        )
    };
    let house = House::start(&format!(
        "{}{}{}{}[[routes]]\npath = \"/plain/{{x}}\"\nauth = \"public\"\nallow_in_path = [\"encoded_slash\", \"params\"]\n",
        app(&upstream),
        route("slash", "encoded_slash"),
        route("double", "double_encoding"),
        route("params", "params"),
    ));
    let spellings = [
        ("slash", "a%2fb", "a%2Fb"),
        ("double", "a%2541", "a%2541"),
        ("params", "a;b=c%3bd", "a;b=c%3Bd"),
    ];
    for (route, _, _) in spellings {
        for (allowed, came, goes) in spellings {
            let target = format!("/{route}/{came}");
            if route == allowed {
                check(&house, &upstream, "a", &target, &format!("/{route}/{goes}"));
            } else {
                refused(&house, &upstream, &target);
            }
        }
        for tail in [
            "..%2fx",
            "%2e%2e/x",
            "..;/x",
            "%252e%252e/x",
            "..%252fx",
            "a%5cb",
            "a\\b",
            "a%00",
            "a%ff",
            "a%255cb",
            "a%2f..%2fb",
            "..%3bx",
            "%25252e",
            "a%2500",
        ] {
            // What none of the three stands for is refused by each of them.
            let answer = ask(&house, "a", &format!("/{route}/{tail}"));
            assert!(
                answer.code() == "bad_request"
                    || (route == "double" && answer.status == 200 && !tail.contains("2e")),
                "/{route}/{tail} {answer:?}"
            );
        }
    }
    // An encoded slash is inside its segment.
    check(&house, &upstream, "a", "/plain/a%2Fb;c", "/plain/a%2Fb;c");
    // Where no route matches, nothing allows it.
    refused(&house, &upstream, "/probe/a%2fb");
}

#[test]
fn prefixes_end_at_segments_and_trailing_slashes_match() {
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}[[routes]]\npath = [\"/api/*\", \"/exact\", \"/users/{{id}}/role\"]\nauth = \"public\"\n",
        app(&upstream)
    ));
    for target in [
        "/api",
        "/api/",
        "/api/x",
        "/api/x/y/",
        "/exact",
        "/exact/",
        "/users/7/role",
        "/users/7/role/",
        "/users/a%20b/role",
    ] {
        check(&house, &upstream, "a", target, target);
    }
    check(&house, &upstream, "a", "//api//x", "/api/x");
    let passed = upstream.count();
    for target in [
        "/",
        "/ap",
        "/apix",
        "/api.evil",
        "/api%20",
        "/api-x",
        "/exact/x",
        "/exactx",
        "/users/7",
        "/users//role",
        "/users/7/8/role",
        "/users/7/role/x",
        "/x/api",
    ] {
        let answer = ask(&house, "a", target);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (404, "no_route"),
            "{target}"
        );
    }
    assert_eq!(upstream.count(), passed);
}

#[test]
fn a_path_that_only_folded_would_match_a_more_specific_route_is_404() {
    let upstream = Upstream::start();
    let house = House::start(&format!(
        "{}[[routes]]\npath = \"/*\"\nauth = \"public\"\n\
         [[routes]]\npath = [\"/admin/*\", \"/Mixed/x\"]\nauth = \"public\"\nclient_ips = [\"192.0.2.1\"]\n\
         [[routes]]\npath = \"/free/*\"\nauth = \"public\"\nallow_in_path = [\"case\"]\n\
         [[routes]]\npath = \"/free/secret\"\nauth = \"public\"\nclient_ips = [\"192.0.2.1\"]\n",
        app(&upstream)
    ));
    for target in [
        "/Admin",
        "/ADMIN/x",
        "/aDmin/",
        "/admi%4e/x",
        "/mixed/x",
        "/MIXED/X",
    ] {
        let answer = ask(&house, "a", target);
        assert_eq!(
            (answer.status, &*problem(&answer)),
            (404, "no_route"),
            "{target}"
        );
    }
    for target in ["/admin/X", "/%61dmin/x", "/Mixed/x", "/free/secret"] {
        assert_eq!(ask(&house, "a", target).code(), "forbidden", "{target}");
    }
    check(&house, &upstream, "a", "/Other/x", "/Other/x");
    check(&house, &upstream, "a", "/free/SECRET", "/free/SECRET");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn the_upstream_gets_the_path_that_the_route_makes() {
    let upstream = Upstream::start();
    let route = |path: &str, more: &str| {
        format!("[[routes]]\npath = \"{path}\"\nauth = \"public\"\n{more}\n")
    };
    let house = House::start(&format!(
        "[upstreams.app]\nurl = \"{0}\"\n[upstreams.based]\nurl = \"{0}/base/v1\"\n{1}{2}{3}{4}{5}{6}{7}{8}",
        upstream.url(),
        route("/strip/*", "upstream = \"app\"\nstrip_prefix = true"),
        route("/api/part/*", "upstream = \"app\"\nstrip_prefix = \"/api\""),
        route("/rest/*", "upstream = \"app\"\nrewrite = \"/v2/{*}\""),
        route(
            "/users/{id}/role",
            "upstream = \"app\"\nrewrite = \"/roles/{id}\"\nallow_in_path = [\"encoded_slash\"]"
        ),
        route("/based/*", "upstream = \"based\""),
        route("/both/*", "upstream = \"based\"\nstrip_prefix = true"),
        route("/fixed", "upstream = \"based\"\nrewrite = \"/\""),
        "[[routes]]\npath = \"/t/*\"\nhost = \"{tenant}.example.com\"\nauth = \"public\"\nupstream = \"app\"\nrewrite = \"/{tenant}/{*}\"\n",
    ));
    for (target, expected) in [
        ("/strip", "/"),
        ("/strip/", "/"),
        ("/strip?q=/strip", "/?q=/strip"),
        ("/strip/a%20b?q", "/a%20b?q"),
        ("/strip//evil.test/x", "/evil.test/x"),
        ("/strip/strip/x", "/strip/x"),
        ("/api/part/x", "/part/x"),
        ("/rest", "/v2/"),
        ("/rest/", "/v2/"),
        ("/rest/a/b/?q", "/v2/a/b/?q"),
        ("/users/a%2Fb/role", "/roles/a%2Fb"),
        ("/users/%41/role/?q", "/roles/A?q"),
        ("/based/x", "/base/v1/based/x"),
        ("/both", "/base/v1/"),
        ("/both/x?q", "/base/v1/x?q"),
        ("/fixed", "/base/v1/"),
    ] {
        check(&house, &upstream, "a", target, expected);
    }
    check(&house, &upstream, "Acme.example.com", "/t/x", "/acme/x");
    let passed = upstream.count();
    for host in ["a", "example.com", ".example.com", "a.b.example.com"] {
        assert_ne!(ask(&house, host, "/t/x").status, 200, "{host}");
    }
    refused(&house, &upstream, "/strip/../probe");
    assert_eq!(upstream.count(), passed);
}

#[test]
fn the_most_specific_route_wins_wherever_it_stands() {
    let routes = [
        ("any", "", "/*"),
        ("api", "", "/api/*"),
        ("param", "", "/api/{x}"),
        ("exact", "", "/api/me"),
        ("deep", "", "/api/{x}/deep/*"),
        ("host", "app.test", "/*"),
        ("host-api", "app.test", "/api/*"),
        ("wild", "*.app.test", "/*"),
        ("long", "*.eu.app.test", "/*"),
        ("tenant", "{tenant}.app.test", "/*"),
    ];
    let file = |routes: &mut dyn Iterator<Item = &(&str, &str, &str)>| {
        routes
            .map(|(name, host, path)| {
                let host = match *host {
                    "" => String::new(),
                    host => format!("host = \"{host}\"\n"),
                };
                format!("[[routes]]\npath = \"{path}\"\n{host}auth = \"public\"\nrespond = {{ body = \"{name}\" }}\n")
            })
            .collect::<String>()
    };
    for text in [file(&mut routes.iter()), file(&mut routes.iter().rev())] {
        let house = House::start(&text);
        for (host, target, expected) in [
            ("a", "/", "any"),
            ("a", "/x/api/me", "any"),
            ("a", "/api", "api"),
            ("a", "/api/x/y", "api"),
            ("a", "/api/x", "param"),
            ("a", "/api/x/", "param"),
            ("a", "/api/me", "exact"),
            ("a", "/api/me/", "exact"),
            ("a", "/api/%6de", "exact"),
            ("a", "/api/me/x", "api"),
            ("a", "/api/x/deep", "deep"),
            ("a", "/api/me/deep/y", "deep"),
            // A host of its own stands over any path without one.
            ("app.test", "/api/me", "host-api"),
            ("APP.test:8080", "/", "host"),
            ("app.test", "/x", "host"),
            ("x.app.test", "/api/me", "tenant"),
            ("x.y.app.test", "/", "wild"),
            ("x.eu.app.test", "/", "long"),
            ("xapp.test", "/", "any"),
        ] {
            assert_eq!(ask(&house, host, target).text(), expected, "{host}{target}");
        }
    }
}

#[test]
fn a_matched_path_with_no_such_method_names_all_methods() {
    let upstream = Upstream::start();
    let route = |methods: &str, path: &str| {
        format!("[[routes]]\npath = \"{path}\"\nauth = \"public\"\nmethods = {methods}\n")
    };
    let house = House::start(&format!(
        "{}{}{}{}",
        app(&upstream),
        route("[\"GET\"]", "/x"),
        route("[\"POST\", \"PUT\"]", "/x"),
        route("[\"DELETE\"]", "/only/*"),
    ));
    for (method, path, status, allow) in [
        ("GET", "/x", 200, None),
        ("HEAD", "/x", 200, None),
        ("PUT", "/x/", 200, None),
        ("DELETE", "/x", 405, Some("GET, HEAD, POST, PUT")),
        ("OPTIONS", "/x", 405, Some("GET, HEAD, POST, PUT")),
        ("get", "/x", 405, Some("GET, HEAD, POST, PUT")),
        ("GET", "/only/y", 405, Some("DELETE")),
        ("HEAD", "/only", 405, Some("DELETE")),
    ] {
        let before = upstream.count();
        let answer = house.request(method, path, &[], "");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (status, allow),
            "{method} {path}"
        );
        assert_eq!(
            upstream.count() - before,
            usize::from(status == 200),
            "{method} {path}"
        );
        if status == 405 && method != "HEAD" {
            assert_eq!(problem(&answer), "method_not_allowed");
        }
    }
}
