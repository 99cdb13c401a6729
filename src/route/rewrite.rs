//! The path an upstream gets: `strip_prefix`, `rewrite`, and the upstream's own base path. Captures are put in as they
//! stand in the canonical path, so that nothing is decoded twice.

use crate::config::route::{PathChange, RewritePart};

/// A compiled change of the path.
#[derive(Clone, Debug)]
pub struct Rewrite(PathChange);

impl Rewrite {
    /// Compiles it.
    pub fn new(change: PathChange) -> Self {
        Self(change)
    }

    /// Whether the path goes on as it is.
    pub fn is_identity(&self) -> bool {
        self.0 == PathChange::Keep
    }

    /// Appends the new path for the canonical `path` to `out`; always starts with `/`.
    pub fn append<'c>(
        &self,
        path: &str,
        capture: impl Fn(&str) -> Option<&'c str>,
        out: &mut String,
    ) {
        let start = out.len();
        match &self.0 {
            PathChange::Keep => out.push_str(path),
            PathChange::Strip(prefix) => {
                let rest = path.strip_prefix(&**prefix).unwrap_or(path);
                if !rest.starts_with('/') {
                    out.push('/');
                }
                out.push_str(rest);
            }
            PathChange::Rewrite(parts) => {
                for part in parts {
                    match part {
                        RewritePart::Text(text) => out.push_str(text),
                        RewritePart::Capture(name) => {
                            out.push_str(capture(name).unwrap_or_default())
                        }
                        RewritePart::Rest => {
                            let rest = capture("*").unwrap_or_default();
                            // `/v2/{*}` with `/api/*` and the path `/api/x` is `/v2/x`, never `/v2//x`.
                            let rest = if out.ends_with('/') {
                                rest.trim_start_matches('/')
                            } else {
                                rest
                            };
                            out.push_str(rest);
                        }
                    }
                }
            }
        }
        if !out[start..].starts_with('/') {
            out.insert(start, '/');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        change: PathChange,
        path: &str,
        captures: &[(&'static str, &'static str)],
        expected: &str,
    ) {
        let mut out = String::new();
        Rewrite::new(change).append(
            path,
            |name| captures.iter().find(|c| c.0 == name).map(|c| c.1),
            &mut out,
        );
        assert_eq!(out, expected);
    }

    #[test]
    fn a_prefix_is_stripped_and_a_slash_stays() {
        let strip = || PathChange::Strip("/api".into());
        check(strip(), "/api/users", &[], "/users");
        check(strip(), "/api", &[], "/");
        check(strip(), "/api/", &[], "/");
        check(strip(), "/other", &[], "/other");
    }

    #[test]
    fn captures_are_put_in_as_they_stand() {
        let parts = vec![
            RewritePart::Text("/v2/users/".into()),
            RewritePart::Capture("id".into()),
        ];
        check(
            PathChange::Rewrite(parts),
            "/users/a%2Fb/role",
            &[("id", "a%2Fb")],
            "/v2/users/a%2Fb",
        );
        let rest =
            || PathChange::Rewrite(vec![RewritePart::Text("/v2/".into()), RewritePart::Rest]);
        check(rest(), "/api/x/y", &[("*", "x/y")], "/v2/x/y");
        check(rest(), "/api/x/y", &[("*", "/x/y")], "/v2/x/y");
        check(rest(), "/api", &[("*", "")], "/v2/");
    }
}
