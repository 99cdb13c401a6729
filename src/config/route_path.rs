//! How a route changes the path, and what its patterns capture.

use super::decode::Either;
use super::diagnostic::{Place, suggest};
use super::parse;
use super::read::{Entries, Reader};
use super::route::{PathChange, RewritePart};
use super::route_keys::RouteKeys;
use super::value::{HostPattern, PathPattern, Segment};

impl RouteKeys {
    pub(super) fn path_change(
        &self,
        entries: &Entries,
        captures: &Captures<'_>,
        reader: &Reader<'_>,
    ) -> PathChange {
        let strips = !matches!(self.strip_prefix, Either::Flag(false));
        if strips && entries.has("rewrite") {
            let message = "a route has both `strip_prefix` and `rewrite`";
            reader.error(
                "contradiction",
                &entries.key_place("rewrite"),
                message,
                "keep one of them",
            );
            return PathChange::Keep;
        }
        if (self.redirect.is_some() || self.respond.is_some()) && (strips || self.rewrite.is_some())
        {
            let key = if strips { "strip_prefix" } else { "rewrite" };
            let message = format!("`{key}` needs an upstream");
            reader.error(
                "contradiction",
                &entries.key_place(key),
                message,
                "the gateway itself answers here",
            );
        }
        if let Some(rewrite) = &self.rewrite {
            for part in &rewrite.value {
                match part {
                    RewritePart::Capture(name) => {
                        captures.check(name, &rewrite.place, rewrite.literal, reader)
                    }
                    RewritePart::Rest => captures.check_rest(&rewrite.place, reader),
                    RewritePart::Text(_) => {}
                }
            }
            return PathChange::Rewrite(rewrite.value.clone());
        }
        let wrong = |message: &str, hint: &str| {
            reader.error(
                "strip-prefix",
                &entries.value_place("strip_prefix"),
                message,
                hint,
            );
            PathChange::Keep
        };
        let own: Vec<Option<String>> = captures.paths.iter().map(literal_prefix).collect();
        match &self.strip_prefix {
            Either::Flag(false) => PathChange::Keep,
            Either::Flag(true) if !captures.known => PathChange::Keep,
            Either::Flag(true) => match own.as_slice() {
                [Some(first), rest @ ..]
                    if rest.iter().all(|other| other.as_ref() == Some(first)) =>
                {
                    strip(first)
                }
                [Some(_), rest @ ..] if rest.iter().all(Option::is_some) => wrong(
                    "the paths of this route have different prefixes",
                    "write the one to cut off, or two routes",
                ),
                _ => wrong(
                    "`strip_prefix = true` needs a path such as \"/api/*\"",
                    "write the prefix to cut off",
                ),
            },
            Either::Other(prefix) => {
                let pattern = match parse::path(&prefix.value) {
                    Ok(pattern) => pattern,
                    Err(hint) => {
                        let message =
                            "`strip_prefix` must be true, false, or a path such as \"/api\"";
                        return wrong(message, &hint);
                    }
                };
                if pattern.prefix
                    || pattern
                        .segments
                        .iter()
                        .any(|s| matches!(s, Segment::Param(_)))
                {
                    return wrong("`strip_prefix` must be literal", "leave `*` and `{…}` out");
                }
                let below = |path: &PathPattern| path.segments.starts_with(&pattern.segments);
                if captures.known && prefix.known && !captures.paths.iter().all(below) {
                    return wrong(
                        "not every path of this route begins with this prefix",
                        "nothing would be cut off there",
                    );
                }
                strip(&literal(&pattern.segments))
            }
        }
    }
}

/// What a route's patterns capture.
pub(super) struct Captures<'a> {
    pub(super) paths: &'a [PathPattern],
    pub(super) hosts: &'a [HostPattern],
    pub(super) known: bool,
    /// No variable in them: their names may be shown.
    pub(super) literal: bool,
}

impl Captures<'_> {
    /// Every path, or every host, must define the name: else there would be requests without it.
    pub(super) fn check(&self, name: &str, place: &Place, literal: bool, reader: &Reader<'_>) {
        let in_path = |path: &PathPattern| {
            path.segments
                .iter()
                .any(|s| matches!(s, Segment::Param(own) if **own == *name))
        };
        let in_host = |host: &HostPattern| matches!(host, HostPattern::Capture { name: own, .. } if **own == *name);
        let defined = self.paths.iter().all(in_path)
            || (!self.hosts.is_empty() && self.hosts.iter().all(in_host));
        if self.known && !defined && !(literal && self.literal) {
            let message = "not every path or host of this route defines what this captures";
            reader.error("unknown-capture", place, message, "");
        } else if self.known && !defined {
            let mut names: Vec<&str> = Vec::new();
            for path in self.paths {
                names.extend(path.segments.iter().filter_map(|s| match s {
                    Segment::Param(name) => Some(&**name),
                    Segment::Literal(_) => None,
                }));
            }
            for host in self.hosts {
                if let HostPattern::Capture { name, .. } = host {
                    names.push(name);
                }
            }
            names.sort_unstable();
            names.dedup();
            let hint = match suggest(name, names) {
                hint if hint.is_empty() => format!("write `{{{name}}}` in `path` or `host`"),
                hint => hint,
            };
            let message = format!("not every path or host of this route defines `{{{name}}}`");
            reader.error("unknown-capture", place, message, hint);
        }
    }

    pub(super) fn check_rest(&self, place: &Place, reader: &Reader<'_>) {
        if self.known && !self.paths.iter().all(|path| path.prefix) {
            let message = "not every path of this route ends in `/*`, which `{*}` stands for";
            reader.error("unknown-capture", place, message, "write `/*` in `path`");
        }
    }
}

/// The prefix of `/api/*`, when it is literal.
fn literal_prefix(path: &PathPattern) -> Option<String> {
    let plain = path
        .segments
        .iter()
        .all(|s| matches!(s, Segment::Literal(_)));
    (path.prefix && plain).then(|| literal(&path.segments))
}

fn literal(segments: &[Segment]) -> String {
    let mut text = String::new();
    for segment in segments {
        if let Segment::Literal(part) = segment {
            text.push('/');
            text.push_str(part);
        }
    }
    text
}

fn strip(prefix: &str) -> PathChange {
    if prefix.is_empty() {
        PathChange::Keep
    } else {
        PathChange::Strip(prefix.into())
    }
}
