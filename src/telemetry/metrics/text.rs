//! The Prometheus text format, version 0.0.4: `# HELP`, `# TYPE`, then `name{label="value"} number`.

use super::cells::{BOUNDS, Histogram, Series};
use super::{
    AuthOutcome, CREDENTIALS, CacheOutcome, Counted, METHODS, Metrics, Requests, STREAM_ENDS,
};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The media type of what [`Metrics::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const OK_FAILED: [&str; 2] = ["ok", "failed"];

pub(super) fn render(metrics: &Metrics, counted: &Counted<'_>) -> String {
    let mut out = Text(String::with_capacity(16 * 1024));
    let routes = with_last(&metrics.routes, &metrics.unrouted);
    let sources = with_last(&metrics.providers, &metrics.unknown_source);
    let process = &metrics.process;

    out.family(
        "tollhouse_requests_total",
        "counter",
        "Requests answered to their end.",
    );
    for route in &routes {
        requests(&mut out, route);
    }
    out.family(
        "tollhouse_request_duration_seconds",
        "histogram",
        "From the head of a request to the end of its answer.",
    );
    for route in &routes {
        let cells = route.cells().map(|cell| &cell.duration);
        out.histogram(
            "tollhouse_request_duration_seconds",
            "route",
            &route.name,
            cells,
        );
    }
    out.family(
        "tollhouse_upstream_duration_seconds",
        "histogram",
        "From sending a request on to the upstream's response head.",
    );
    for upstream in &metrics.upstreams {
        out.histogram(
            "tollhouse_upstream_duration_seconds",
            "upstream",
            &upstream.name,
            upstream.cells(),
        );
    }
    out.family("tollhouse_auth_total", "counter", "Credentials judged.");
    for source in &sources {
        for (kind, credential) in CREDENTIALS.iter().enumerate() {
            for (at, (_, outcome)) in AuthOutcome::ALL.iter().enumerate() {
                let labels = [
                    ("provider", &*source.name),
                    ("credential", credential.as_str()),
                    ("outcome", outcome),
                ];
                out.counted(
                    "tollhouse_auth_total",
                    &labels,
                    source.sum(|cell| &cell.auth[kind][at]),
                );
            }
        }
    }
    out.family(
        "tollhouse_token_cache_total",
        "counter",
        "Where verified credentials were found.",
    );
    for (at, (_, outcome)) in CacheOutcome::ALL.iter().enumerate() {
        out.line(
            "tollhouse_token_cache_total",
            &[("outcome", outcome)],
            process.sum(|cell| &cell.token_cache[at]),
        );
    }
    out.family(
        "tollhouse_jwks_refresh_total",
        "counter",
        "Fetches of public keys.",
    );
    for (provider, counts) in &counted.key_fetches {
        for (outcome, count) in counts {
            let labels = [("provider", *provider), ("outcome", *outcome)];
            out.line("tollhouse_jwks_refresh_total", &labels, count);
        }
    }
    out.family(
        "tollhouse_session_refresh_total",
        "counter",
        "Calls to providers that renew sessions.",
    );
    for (outcome, count) in &counted.session_refreshes {
        let labels = [("outcome", *outcome)];
        out.line("tollhouse_session_refresh_total", &labels, count);
    }
    if let Some(away) = counted.redis_away {
        out.family("tollhouse_redis_up", "gauge", "Whether Redis answers.");
        out.line("tollhouse_redis_up", &[], u64::from(!away));
    }
    out.family(
        "tollhouse_rate_limited_total",
        "counter",
        "Requests refused by a rate limit.",
    );
    for policy in &metrics.policies {
        out.line(
            "tollhouse_rate_limited_total",
            &[("policy", &policy.name)],
            policy.sum(|count| count),
        );
    }
    out.family(
        "tollhouse_connections",
        "gauge",
        "Open connections of clients.",
    );
    let open: i64 = process
        .cells()
        .map(|cell| cell.connections.load(Relaxed))
        .sum();
    out.line("tollhouse_connections", &[], open.max(0));
    out.family(
        "tollhouse_streams_ended_total",
        "counter",
        "WebSockets and other streams that ended with their session.",
    );
    for (at, reason) in STREAM_ENDS.iter().enumerate() {
        out.line(
            "tollhouse_streams_ended_total",
            &[("reason", reason)],
            process.sum(|cell| &cell.streams_ended[at]),
        );
    }
    out.family(
        "tollhouse_config_reloads_total",
        "counter",
        "Reloads of the configuration.",
    );
    for (at, outcome) in OK_FAILED.iter().enumerate() {
        out.line(
            "tollhouse_config_reloads_total",
            &[("outcome", outcome)],
            process.sum(|cell| &cell.reloads[at]),
        );
    }
    out.family(
        "tollhouse_malformed_requests_total",
        "counter",
        "What the HTTP parser refused.",
    );
    out.line(
        "tollhouse_malformed_requests_total",
        &[],
        process.sum(|cell| &cell.malformed),
    );
    out.family(
        "tollhouse_log_lines_dropped_total",
        "counter",
        "Lines lost because the log could not keep up.",
    );
    out.line(
        "tollhouse_log_lines_dropped_total",
        &[],
        counted.log_lines_dropped,
    );
    out.family(
        "tollhouse_build_info",
        "gauge",
        "The version that runs; always 1.",
    );
    out.line(
        "tollhouse_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    out.0
}

/// The series of the configuration and the one for what belongs to none of them, once each.
fn with_last<'a, T>(series: &'a [Arc<Series<T>>], last: &'a Arc<Series<T>>) -> Vec<&'a Series<T>> {
    let known = series.iter().any(|s| Arc::ptr_eq(s, last));
    let last = (!known).then_some(last);
    series.iter().chain(last).map(AsRef::as_ref).collect()
}

fn requests(out: &mut Text, route: &Series<Requests>) {
    let names = METHODS.iter().map(|m| m.as_str()).chain(["other"]);
    for (at, method) in names.enumerate() {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        let mut other = 0;
        for cell in route.cells() {
            if let Some(statuses) = cell.methods[at].get() {
                for (status, count) in statuses.read() {
                    *counts.entry(status).or_default() += count;
                }
                other += statuses.other.load(Relaxed);
            }
        }
        for (status, count) in counts {
            let status = status.to_string();
            let labels = [
                ("route", &*route.name),
                ("method", method),
                ("status", &status),
            ];
            out.line("tollhouse_requests_total", &labels, count);
        }
        let labels = [
            ("route", &*route.name),
            ("method", method),
            ("status", "other"),
        ];
        out.counted("tollhouse_requests_total", &labels, other);
    }
}

struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.write(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.value(text);
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        self.write(format_args!(" {value}\n"));
    }

    /// A line, once there is something to count: most combinations never occur.
    fn counted(&mut self, name: &str, labels: &[(&str, &str)], count: u64) {
        if count > 0 {
            self.line(name, labels, count);
        }
    }

    fn histogram<'a>(
        &mut self,
        name: &str,
        label: &str,
        value: &str,
        cells: impl Iterator<Item = &'a Histogram>,
    ) {
        let mut buckets = [0u64; BOUNDS.len() + 1];
        let mut micros = 0u64;
        for cell in cells {
            for (sum, bucket) in buckets.iter_mut().zip(&cell.buckets) {
                *sum += bucket.load(Relaxed);
            }
            micros = micros.wrapping_add(cell.micros.load(Relaxed));
        }
        let bounds = BOUNDS
            .iter()
            .map(|b| Seconds(*b).to_string())
            .chain(["+Inf".into()]);
        let bucket_name = [name, "_bucket"].concat();
        let mut so_far = 0;
        for (count, bound) in buckets.iter().zip(bounds) {
            so_far += count;
            self.line(&bucket_name, &[(label, value), ("le", &bound)], so_far);
        }
        self.line(&[name, "_sum"].concat(), &[(label, value)], Seconds(micros));
        self.line(&[name, "_count"].concat(), &[(label, value)], so_far);
    }

    /// A label's value: backslash, quote and newline are escaped.
    fn value(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                c => self.0.push(c),
            }
        }
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        // A `String` takes everything.
        let _ = self.0.write_fmt(text);
    }
}

/// Microseconds as seconds, without zeros at the end.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, mut part) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if part == 0 {
            return write!(f, "{whole}");
        }
        let mut places = 6;
        while part.is_multiple_of(10) {
            part /= 10;
            places -= 1;
        }
        write!(f, "{whole}.{part:0places$}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::Labels;
    use super::*;
    use http::{Method, StatusCode};
    use std::collections::HashSet;
    use std::time::Duration;

    #[test]
    fn seconds_are_short_and_exact() {
        let check = |micros, text: &str| assert_eq!(Seconds(micros).to_string(), text);
        check(0, "0");
        check(500, "0.0005");
        check(2_500_000, "2.5");
        check(60_000_000, "60");
        check(1_000_001, "1.000001");
    }

    #[test]
    fn buckets_count_everything_up_to_and_with_their_bound() {
        let metrics = Metrics::new(
            &Labels {
                upstreams: vec!["b".into()],
                ..Labels::default()
            },
            1,
            None,
        );
        for micros in [500, 501, 60_000_000, 60_000_001] {
            metrics.upstream(0, 0, Duration::from_micros(micros));
        }
        let text = metrics.render(&Counted::default());
        for line in [
            "_bucket{upstream=\"b\",le=\"0.0005\"} 1",
            "_bucket{upstream=\"b\",le=\"0.001\"} 2",
            "_bucket{upstream=\"b\",le=\"60\"} 3",
            "_bucket{upstream=\"b\",le=\"+Inf\"} 4",
            "_sum{upstream=\"b\"} 120.001002",
            "_count{upstream=\"b\"} 4",
        ] {
            let line = format!("tollhouse_upstream_duration_seconds{line}\n");
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn the_format_holds_no_line_twice_and_escapes_what_operators_write() {
        let name = "a\"b\\c\nd";
        let metrics = Metrics::new(
            &Labels {
                routes: vec![name.into()],
                upstreams: vec![name.into()],
                providers: vec![name.into()],
                policies: vec![name.into()],
            },
            3,
            None,
        );
        metrics.request(0, Some(0), &Method::GET, StatusCode::OK, Duration::ZERO);
        metrics.reloaded(true);
        metrics.rate_limited(1, 0);
        metrics.malformed(0);
        let text = metrics.render(&Counted {
            key_fetches: vec![(name, [("ok", 1), ("unreachable", 2), ("unusable", 0)])],
            session_refreshes: [("ok", 0), ("over", 0), ("later", 0), ("refused", 2)],
            redis_away: Some(true),
            log_lines_dropped: 5,
        });
        let (mut families, mut seen) = (HashSet::new(), HashSet::new());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family}");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(family), "{line}");
                assert!(seen.insert(series), "{line}");
                value.parse::<f64>().unwrap();
            }
        }
        assert!(
            text.contains(r#"tollhouse_rate_limited_total{policy="a\"b\\c\nd"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(
                r#"tollhouse_jwks_refresh_total{provider="a\"b\\c\nd",outcome="unreachable"} 2"#
            ),
            "{text}"
        );
        assert!(text.contains("tollhouse_log_lines_dropped_total 5\n"));
        assert!(text.contains(r#"tollhouse_config_reloads_total{outcome="ok"} 1"#));
        assert!(text.ends_with('\n'));
    }
}
