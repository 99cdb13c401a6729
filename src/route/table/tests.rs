//! Tests of [`super`]: a table of requests, and a naive matcher that must agree on made-up ones.

mod naive;
mod routes;

use super::*;
use routes::{build, route};

/// The route's text, `404`, or `405` with the methods allowed.
fn find(routes: &[&str], request: &str) -> String {
    let table = build(routes).unwrap();
    let words: Vec<&str> = request.split(' ').collect();
    match table.find(words[1], words[2], &words[0].parse().unwrap()) {
        Found::Route { index, .. } => routes[index].to_owned(),
        Found::NoRoute => "404".to_owned(),
        Found::MethodNotAllowed { allow } => format!("405 {}", allow.to_str().unwrap()),
    }
}

#[test]
fn the_most_specific_path_wins() {
    let routes = [
        "ANY - /*",
        "ANY - /api/*",
        "ANY - /api/admin/*",
        "ANY - /api/users/{id}",
        "ANY - /api/users/me",
        "ANY - /api/users/{id}/role",
        "ANY - /api/{kind}/x/*",
        "ANY - /api/{kind}/x/{y}",
        "ANY - /health",
        "ANY - /",
    ];
    let check = |path: &str, expected: usize| {
        assert_eq!(
            find(&routes, &format!("GET h {path}")),
            routes[expected],
            "{path}"
        );
    };
    check("/", 9);
    check("/x", 0);
    check("/x/", 0);
    check("/apix", 0);
    check("/api", 1);
    check("/api/", 1);
    check("/api/x", 1);
    check("/api/admin", 2);
    check("/api/admin/", 2);
    check("/api/admin/a/b/c", 2);
    check("/api/adminx", 1);
    check("/api/users", 1);
    check("/api/users/", 1);
    check("/api/users/7", 3);
    check("/api/users/7/", 3);
    check("/api/users/me", 4);
    check("/api/users/me/", 4);
    check("/api/users/7/role", 5);
    check("/api/users/me/role", 5);
    check("/api/users/me/roles", 1);
    check("/api/users/7/x", 1);
    check("/api/things/x", 6);
    check("/api/things/x/", 6);
    check("/api/things/x/1", 7);
    check("/api/things/x/1/2", 6);
    check("/api/users/x/1", 7);
    check("/health", 8);
    check("/health/", 8);
    check("/health/x", 0);
    check("/healthx", 0);
}

#[test]
fn what_matches_nothing_is_no_route() {
    let routes = ["ANY - /api/*", "ANY - /a/{b}", "ANY - /c"];
    for path in [
        "/", "/apix", "/a", "/a/", "/a/b/c", "/c/d", "*", "", "api", "/a//",
    ] {
        assert_eq!(find(&routes, &format!("GET h {path}")), "404", "{path}");
    }
    assert_eq!(find(&[], "GET h /"), "404");
}

#[test]
fn the_most_specific_host_wins_and_falls_back_when_it_has_no_such_path() {
    let routes = [
        "ANY - /x",
        "ANY *.example.com /x",
        "ANY *.eu.example.com /x",
        "ANY {t}.example.com /x",
        "ANY app.example.com,www.example.com /x",
        "ANY *.example.com /wild",
        "ANY - /any/*",
    ];
    let check = |host: &str, path: &str, expected: &str| {
        assert_eq!(
            find(&routes, &format!("GET {host} {path}")),
            expected,
            "{host}{path}"
        );
    };
    check("app.example.com", "/x", routes[4]);
    check("www.example.com", "/x", routes[4]);
    check("acme.example.com", "/x", routes[3]);
    check("a.b.example.com", "/x", routes[1]);
    check("a.eu.example.com", "/x", routes[2]);
    check("example.com", "/x", routes[0]);
    check(".example.com", "/x", routes[0]);
    check("badexample.com", "/x", routes[0]);
    check("", "/x", routes[0]);
    check("app.example.com", "/wild", routes[5]);
    check("app.example.com", "/any/1", routes[6]);
    check("app.example.com", "/none", "404");
    check("example.com", "/wild", "404");
}

#[test]
fn methods_are_decided_at_the_most_specific_pattern() {
    let routes = [
        "ANY - /*",
        "GET - /users/{id}",
        "DELETE,PUT - /users/{id}",
        "POST - /users/me",
        "GET - /mixed",
        "ANY - /mixed",
        "HEAD - /head",
        "GET - /head",
    ];
    let check =
        |request: &str, expected: &str| assert_eq!(find(&routes, request), expected, "{request}");
    check("GET h /users/1", routes[1]);
    check("HEAD h /users/1", routes[1]);
    check("PUT h /users/1/", routes[2]);
    check("POST h /users/1", "405 DELETE, GET, HEAD, PUT");
    check("OPTIONS h /users/1", "405 DELETE, GET, HEAD, PUT");
    check("GET h /users/me", "405 POST");
    check("HEAD h /users/me", "405 POST");
    check("GET h /mixed", routes[4]);
    check("HEAD h /mixed", routes[4]);
    check("POST h /mixed", routes[5]);
    check("PURGE h /mixed", routes[5]);
    check("HEAD h /head", routes[6]);
    check("GET h /head", routes[7]);
    check("PURGE h /other", routes[0]);
}

#[test]
fn a_method_is_not_looked_for_in_a_less_specific_host() {
    let routes = ["GET a.example /x", "POST - /x"];
    assert_eq!(find(&routes, "POST a.example /x"), "405 GET, HEAD");
    assert_eq!(find(&routes, "POST b.example /x"), routes[1]);
}

#[test]
fn another_case_never_slips_past_a_more_specific_route() {
    let routes = [
        "ANY - /api/*",
        "GET - /api/admin/*",
        "ANY - /Docs",
        "ANY - /docs",
        "ANY - /caf%C3%A9",
        "ANY - /kiss",
        "ANY - /*",
        "~ANY - /files/*",
        "ANY - /files/private",
        "ANY a.example /only/here",
        "ANY - /items/{id}",
        "ANY - /Items/{id}/Edit",
    ];
    let check = |path: &str, expected: &str| {
        assert_eq!(
            find(&routes, &format!("GET a.example {path}")),
            expected,
            "{path}"
        );
    };
    check("/api/admin/x", routes[1]);
    check("/api/ADMIN/x", "404");
    check("/API/admin", "404");
    check("/API/x", "404");
    check("/api/Users", routes[0]);
    check("/api/a%2Fb", routes[0]);
    check("/Docs", routes[2]);
    check("/docs", routes[3]);
    check("/DOCS", "404");
    check("/caf%C3%A9", routes[4]);
    check("/caf%C3%89", "404");
    check("/CAF%C3%89", "404");
    check("/%E2%84%AAiss", "404");
    check("/ki%C5%BF%C5%BF", "404");
    check("/kisses", routes[6]);
    check("/Files", "404");
    check("/files/Private", routes[7]);
    check("/files/private", routes[8]);
    check("/Only/Here", "404");
    check("/items/AbC", routes[10]);
    check("/Items/AbC", "404");
    check("/items/AbC/edit", "404");
    check("/Items/AbC/Edit", routes[11]);
    check("/Other", routes[6]);
    assert_eq!(find(&routes, "POST a.example /api/ADMIN"), "404");
    assert_eq!(find(&routes, "POST a.example /api/admin"), "405 GET, HEAD");
    assert_eq!(find(&routes, "GET b.example /Only/Here"), routes[6]);
    // The literal in upper case counts for a path in lower case, too.
    assert_eq!(
        find(&["ANY - /Admin/x", "ANY - /*"], "GET h /admin/x"),
        "404"
    );
    assert_eq!(
        find(&["GET - /a", "PUT - /a", "ANY - /*"], "POST h /A"),
        "404"
    );
}

#[test]
fn captures_are_what_stands_in_the_path_and_host() {
    let check = |pattern: &str,
                 host: &str,
                 path: &str,
                 expected: &[(&str, Option<&str>)],
                 rest: Option<&str>| {
        let table = build(&[pattern, "ANY - /{z}/{y}/{x}/nothing"]).unwrap();
        let Found::Route { index: 0, captures } = table.find(host, path, &Method::GET) else {
            panic!("{path}")
        };
        for (name, value) in expected {
            assert_eq!(captures.get(name, host, path), *value, "{name} of {path}");
        }
        assert_eq!(captures.rest(path), rest, "{path}");
    };
    check("ANY - /a/b", "h", "/a/b", &[("a", None)], None);
    check(
        "ANY - /u/{id}/r/{role}",
        "h",
        "/u/7%2F/r/ad%20min/",
        &[("id", Some("7%2F")), ("role", Some("ad%20min"))],
        None,
    );
    check(
        "ANY {t}.example.com /u/{id}",
        "acme.example.com",
        "/u/1",
        &[("t", Some("acme")), ("id", Some("1"))],
        None,
    );
    check(
        "ANY {t}.example.com /u",
        "acme.example.com",
        "/u",
        &[("t", Some("acme")), ("u", None)],
        None,
    );
    check(
        "ANY *.example.com /u/*",
        "a.b.example.com",
        "/u/x/y/",
        &[("t", None)],
        Some("x/y/"),
    );
    check("ANY - /*", "h", "/", &[], Some(""));
    check("ANY - /*", "h", "/a/b/c/d", &[], Some("a/b/c/d"));
    check("ANY - /api/*", "h", "/api", &[], Some(""));
    check("ANY - /api/*", "h", "/api/", &[], Some(""));
    check(
        "ANY - /{a}/{b}/*",
        "h",
        "/1/2/3/4",
        &[("a", Some("1")), ("b", Some("2"))],
        Some("3/4"),
    );
    // A branch that led nowhere leaves no trace.
    check(
        "ANY - /{a}/x/*",
        "h",
        "/1/x/3/4",
        &[("a", Some("1")), ("y", None)],
        Some("3/4"),
    );
    let many: String = (0..20).map(|n| format!("/{{p{n}}}")).collect();
    let path: String = (0..20).map(|n| format!("/{n}")).collect();
    check(
        &format!("ANY - {many}"),
        "h",
        &path,
        &[("p15", Some("15")), ("p16", None)],
        None,
    );
}

#[test]
fn routes_that_share_a_pattern_keep_their_own_names() {
    let table = build(&["GET - /u/{id}", "PUT - /u/{name}"]).unwrap();
    for (method, name, other) in [(Method::GET, "id", "name"), (Method::PUT, "name", "id")] {
        let Found::Route { captures, .. } = table.find("h", "/u/7", &method) else {
            panic!("{method}")
        };
        assert_eq!(
            (
                captures.get(name, "h", "/u/7"),
                captures.get(other, "h", "/u/7")
            ),
            (Some("7"), None)
        );
    }
}

#[test]
fn two_routes_for_the_same_requests_are_a_conflict() {
    let check = |routes: &[&str], expected: &[Conflict]| {
        assert_eq!(
            build(routes).err().unwrap_or_default(),
            expected,
            "{routes:?}"
        );
    };
    check(
        &[
            "ANY - /a",
            "GET - /a",
            "POST - /a",
            "ANY h /a",
            "ANY - /a/*",
        ],
        &[],
    );
    check(&["GET,HEAD - /a", "POST - /a /a/ /a", "ANY - /b /b/"], &[]);
    check(&["ANY - /a", "ANY - /a/"], &[Conflict(0, 1)]);
    check(
        &["ANY - /{x}/*", "GET - /{x}/*", "ANY - /{y}/*"],
        &[Conflict(0, 2)],
    );
    check(
        &["GET,PUT - /a", "PUT,GET - /a", "PUT - /b"],
        &[Conflict(0, 1)],
    );
    check(
        &["ANY {a}.e.x /a", "ANY {b}.e.x,*.e.x /a"],
        &[Conflict(0, 1)],
    );
}

#[test]
fn the_order_is_the_order_of_matching() {
    let routes = [
        "ANY - /*",
        "ANY - /a/{id} /a",
        "ANY - /a/b",
        "ANY *.e.x /a",
        "ANY - /a/*",
        "POST - /a/b",
        "ANY {t}.e.x /a",
        "ANY b.e.x /z/* /z",
        "ANY a.e.x /a",
    ];
    let listed = build(&routes).unwrap().order();
    let order: Vec<(usize, &str)> = listed
        .iter()
        .map(|listed| (listed.route, &*listed.path.text))
        .collect();
    let expected = [
        (8, "/a"),
        (7, "/z"),
        (7, "/z/*"),
        (6, "/a"),
        (3, "/a"),
        (1, "/a"),
        (5, "/a/b"),
        (2, "/a/b"),
        (1, "/a/{id}"),
        (4, "/a/*"),
        (0, "/*"),
    ];
    assert_eq!(order, expected);
    assert_eq!(listed[0].host, Some(HostPattern::Exact("a.e.x".into())));
    assert_eq!(listed[10].host, None);
}
