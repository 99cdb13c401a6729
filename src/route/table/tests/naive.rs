//! A matcher that tries everything: the table must agree with it.

use super::*;
use proptest::prelude::*;

/// How specific a pattern is that matches: compared from the left. `None` when it does not match.
type Rank = (u8, usize, Vec<u8>);

fn rank(
    host: Option<&HostPattern>,
    pattern: &PathPattern,
    fold: bool,
    in_host: &str,
    in_path: &str,
) -> Option<Rank> {
    let same = |a: &str, b: &str| {
        if fold {
            a.eq_ignore_ascii_case(b)
        } else {
            a == b
        }
    };
    let (kind, length) = match host {
        None => (0, 0),
        Some(HostPattern::Exact(name)) => (**name == *in_host).then_some((3, 0))?,
        Some(HostPattern::Capture { suffix, .. }) => {
            let label = in_host.strip_suffix(&**suffix)?;
            (!label.is_empty() && !label.contains('.')).then_some((2, suffix.len()))?
        }
        Some(HostPattern::Wildcard { suffix }) => {
            (!in_host.strip_suffix(&**suffix)?.is_empty()).then_some((1, suffix.len()))?
        }
    };
    let mut segments: Vec<&str> = in_path.split('/').skip(1).collect();
    if segments.last() == Some(&"") {
        segments.pop();
    }
    let enough = if pattern.prefix {
        segments.len() >= pattern.segments.len()
    } else {
        segments.len() == pattern.segments.len()
    };
    let mut ranks = Vec::new();
    for (segment, text) in pattern.segments.iter().zip(&segments) {
        ranks.push(match segment {
            Segment::Literal(literal) => same(literal, text).then_some(3)?,
            Segment::Param(_) => 2,
        });
    }
    ranks.push(if pattern.prefix { 1 } else { 4 });
    enough.then_some((kind, length, ranks))
}

/// What the table answers, found by trying everything.
fn naive(routes: &[Route], host: &str, path: &str, method: &Method) -> Result<usize, Vec<String>> {
    let best = |fold: bool| {
        let mut all: Vec<(Rank, usize)> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let hosts: Vec<_> = if route.hosts.is_empty() {
                vec![None]
            } else {
                route.hosts.iter().map(Some).collect()
            };
            for in_host in hosts {
                all.extend(route.paths.iter().filter_map(|pattern| {
                    Some((rank(in_host, pattern, fold, host, path)?, index))
                }));
            }
        }
        let top = all.iter().map(|(rank, _)| rank.clone()).max()?;
        all.retain(|(rank, _)| *rank == top);
        Some((
            top,
            all.into_iter().map(|(_, index)| index).collect::<Vec<_>>(),
        ))
    };
    let (top, routes_here) = best(false).ok_or_else(Vec::new)?;
    let has = |index: &&usize, method: &Method| {
        routes[**index]
            .methods
            .as_ref()
            .is_some_and(|list| list.contains(method))
    };
    let found = routes_here
        .iter()
        .find(|index| has(index, method))
        .or_else(|| {
            routes_here
                .iter()
                .find(|index| method == Method::HEAD && has(index, &Method::GET))
        })
        .or_else(|| {
            routes_here
                .iter()
                .find(|index| routes[**index].methods.is_none())
        });
    let case = found.map_or(
        routes_here
            .iter()
            .all(|index| routes[*index].allow_in_path.case),
        |index| routes[*index].allow_in_path.case,
    );
    if !case && best(true).is_some_and(|(folded, _)| folded > top) {
        return Err(Vec::new());
    }
    found.copied().ok_or_else(|| {
        let mut allow: Vec<String> = routes_here
            .iter()
            .flat_map(|index| routes[*index].methods.iter().flatten())
            .map(Method::to_string)
            .collect();
        allow.extend(allow.contains(&"GET".to_owned()).then(|| "HEAD".to_owned()));
        allow.sort();
        allow.dedup();
        allow
    })
}

fn any_route() -> impl Strategy<Value = String> {
    let segment = prop::sample::select(vec!["/a", "/A", "/b", "/{x}", "/{y}", "/ab"]);
    let path =
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, prefix)| {
            let text = segments.concat() + if prefix { "/*" } else { "" };
            if text.is_empty() {
                "/".to_owned()
            } else {
                text
            }
        });
    let host = prop::sample::select(vec!["-", "-", "h.x", "*.x", "{t}.x", "*.h.x", "a.x,-.y"]);
    let methods = prop::sample::select(vec!["ANY", "~ANY", "GET", "POST", "~GET,PUT", "HEAD"]);
    (methods, host, path).prop_map(|(methods, host, path)| format!("{methods} {host} {path}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_naive_matcher_agrees_in_every_order(
        routes in prop::collection::vec(any_route(), 1..14),
        requests in prop::collection::vec((
            prop::sample::select(vec!["h.x", "a.x", "b.h.x", "x", "z"]),
            prop::collection::vec(prop::sample::select(vec!["/a", "/A", "/b", "/B", "/ab", "/c", "/Ab"]), 0..5),
            any::<bool>(),
            prop::sample::select(vec![Method::GET, Method::HEAD, Method::POST, Method::DELETE]),
        ), 1..12),
        seed in any::<prop::sample::Index>(),
    ) {
        // Without those that are in conflict with one before them.
        let mut kept: Vec<String> = Vec::new();
        for text in routes {
            kept.push(text);
            if build(&kept.iter().map(String::as_str).collect::<Vec<_>>()).is_err() {
                kept.pop();
            }
        }
        let routes: Vec<Route> = kept.iter().map(|text| route(text)).collect();
        let table = Table::build(routes.iter().enumerate()).unwrap();
        let mut shuffled: Vec<(usize, &Route)> = routes.iter().enumerate().collect();
        shuffled.reverse();
        shuffled.rotate_left(seed.index(routes.len()));
        let shuffled = Table::build(shuffled).unwrap();
        prop_assert_eq!(table.order(), shuffled.order());
        for (host, segments, slash, method) in requests {
            let path = segments.concat() + if slash || segments.is_empty() { "/" } else { "" };
            let found = table.find(host, &path, &method);
            prop_assert_eq!(&found, &shuffled.find(host, &path, &method));
            let found = match found {
                Found::Route { index, .. } => Ok(index),
                Found::NoRoute => Err(Vec::new()),
                Found::MethodNotAllowed { allow } => Err(allow.to_str().unwrap().split(", ").map(str::to_owned).collect()),
            };
            prop_assert_eq!(found, naive(&routes, host, &path, &method), "{} {}{} in {:?}", method, host, path, kept);
        }
    }

    #[test]
    fn any_host_and_path_is_looked_up_without_panic(host in any::<String>(), path in "(/|%|[aA]|\\PC|%[0-9A-F]{2}){0,12}") {
        let table = build(&["ANY *.x /a/{b}/*", "ANY - /A/%C3%A9", "ANY {t}.x /{a}/{b}", "ANY - /*"]).unwrap();
        if let Found::Route { captures, .. } = table.find(&host, &path, &Method::GET) {
            let _ = (captures.get("a", &host, &path), captures.get("t", &host, &path), captures.rest(&path));
        }
    }
}
