//! Host, path and method to the one route that answers. The most specific route wins, and nothing depends on the order in
//! the file. Paths come in canonical form; nothing here decodes, changes or forwards anything.

mod fold;
mod leaf;
mod trie;

use crate::config::route::Route;
use crate::config::value::{HostPattern, PathPattern, Segment};
use fold::fold;
use http::{HeaderValue, Method};
use leaf::{Leaf, Names};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use trie::{Exactly, Folded, Hit, Span, Step, Trie};

/// `{param}`s of one path whose values are kept.
pub const PATH_CAPTURES_MAX: usize = 16;

/// The routes of one configuration, compiled.
#[derive(Debug)]
pub struct Table {
    exact: HashMap<Arc<str>, usize, foldhash::fast::RandomState>,
    /// `{name}.suffix` and `*.suffix`, longest suffix first, of equal ones `{name}` first.
    patterns: Vec<(Suffix, usize)>,
    /// Routes for any host.
    any: Option<usize>,
    hosts: Vec<HostTable>,
    leaves: Vec<Leaf>,
    /// Whether a literal differs from its folded form, so that even a path in lower case has to be looked up twice.
    mixed_case: bool,
}

/// What a request belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This route.
    Route {
        /// The number under which it was given to [`Table::build`].
        index: usize,
        /// What its pattern captured.
        captures: Captures,
    },
    /// No pattern matches; or only in another case would the path have matched a more specific one.
    NoRoute,
    /// The most specific pattern has no route with this method.
    MethodNotAllowed {
        /// For `Allow` (RFC 9110 §10.2.1): sorted, `HEAD` wherever `GET` is.
        allow: HeaderValue,
    },
}

/// Where the captures of a match stand. Keeps places, not text: ask with the host and path of the lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    names: Option<Arc<Names>>,
    path: [Span; PATH_CAPTURES_MAX],
    /// Bytes of the host's label.
    host: usize,
    rest: Option<usize>,
}

impl Captures {
    /// The value of `{name}` as it stands in the canonical path, or in the host.
    pub fn get<'a>(&self, name: &str, host: &'a str, path: &'a str) -> Option<&'a str> {
        let names = self.names.as_deref()?;
        if let Some(position) = names.path.iter().position(|known| **known == *name) {
            let &(start, end) = self.path.get(position)?;
            return path.get(start as usize..end as usize);
        }
        names.host.as_ref().filter(|known| ***known == *name)?;
        host.get(..self.host)
    }

    /// What the `*` of a prefix pattern matched: without a slash before it, empty for the prefix itself. `None` when
    /// the pattern is no prefix.
    pub fn rest<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.get(self.rest?..)
    }
}

/// Two routes that match the same requests, by their numbers, the smaller first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict(pub usize, pub usize);

/// One pattern of a route, for listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub route: usize,
    /// `None`: any host.
    pub host: Option<HostPattern>,
    pub path: PathPattern,
}

impl Table {
    /// Compiles routes, each with the number that [`Found::Route`] will tell. Routes may share a pattern when each has
    /// its own methods; a route for all methods then answers the others.
    ///
    /// # Errors
    /// All pairs of routes that match the same requests.
    pub fn build<'a>(
        routes: impl IntoIterator<Item = (usize, &'a Route)>,
    ) -> Result<Self, Vec<Conflict>> {
        let mut table = Self {
            exact: HashMap::default(),
            patterns: Vec::new(),
            any: None,
            hosts: Vec::new(),
            leaves: Vec::new(),
            mixed_case: false,
        };
        let mut conflicts = Vec::new();
        for (index, route) in routes {
            let hosts: Vec<Option<&HostPattern>> = if route.hosts.is_empty() {
                vec![None]
            } else {
                route.hosts.iter().map(Some).collect()
            };
            for host in hosts {
                for path in &route.paths {
                    if let Some(leaf) = table.leaf(host, path) {
                        leaf.add(index, route, host, path, &mut conflicts);
                    }
                }
            }
        }
        if !conflicts.is_empty() {
            conflicts.sort_unstable();
            conflicts.dedup();
            return Err(conflicts);
        }
        table.patterns.sort_unstable_by(|(a, _), (b, _)| {
            b.text
                .len()
                .cmp(&a.text.len())
                .then(b.single.cmp(&a.single))
                .then_with(|| a.text.cmp(&b.text))
        });
        table.leaves.iter_mut().for_each(Leaf::finish);
        Ok(table)
    }

    /// Finds the route of a request. `host` is lower case, without port; `path` is canonical. Allocates nothing, but for
    /// paths with escapes.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Found {
        let mut captures = Captures::default();
        let found = self.hosts_for(host).find_map(|(table, label)| {
            Some((
                label,
                table.exact.find::<Exactly>(path, &mut captures.path)?,
            ))
        });
        let Some((label, Hit { value, rest })) = found.filter(|_| path.starts_with('/')) else {
            return Found::NoRoute;
        };
        let Some(leaf) = self.leaves.get(value) else {
            return Found::NoRoute;
        };
        let entry = leaf.entry(method);
        let case_allowed = entry.map_or(leaf.case_allowed, |entry| entry.case_allowed);
        if !case_allowed
            && self.case_matters(path)
            && self.folded_class(host, path) != Some(leaf.class)
        {
            return Found::NoRoute;
        }
        let Some(entry) = entry else {
            return Found::MethodNotAllowed {
                allow: leaf.allow.clone(),
            };
        };
        captures.names.clone_from(&entry.names);
        captures.host = label;
        captures.rest = rest;
        Found::Route {
            index: entry.route,
            captures,
        }
    }

    /// Every pattern of every route in the order in which they are tried.
    pub fn order(&self) -> Vec<Listed> {
        let mut exact: Vec<(&Arc<str>, usize)> = self
            .exact
            .iter()
            .map(|(name, &host)| (name, host))
            .collect();
        exact.sort_unstable();
        let hosts = exact.into_iter().map(|(_, host)| host);
        let hosts = hosts
            .chain(self.patterns.iter().map(|&(_, host)| host))
            .chain(self.any);
        hosts
            .filter_map(|host| self.hosts.get(host))
            .flat_map(|host| host.exact.in_order())
            .filter_map(|leaf| self.leaves.get(leaf))
            .flat_map(|leaf| leaf.listed.iter().map(|(_, listed)| listed.clone()))
            .collect()
    }

    /// The tables to be asked for a host, the most specific first, with the length of what `{name}` captures there.
    fn hosts_for<'a>(&'a self, host: &'a str) -> impl Iterator<Item = (&'a HostTable, usize)> {
        let exact = if self.exact.is_empty() {
            None
        } else {
            self.exact.get(host)
        };
        let patterns = self
            .patterns
            .iter()
            .filter_map(move |(suffix, table)| Some((*table, suffix.label(host)?)));
        exact
            .map(|&table| (table, 0))
            .into_iter()
            .chain(patterns)
            .chain(self.any.map(|table| (table, 0)))
            .filter_map(|(table, label)| Some((self.hosts.get(table)?, label)))
    }

    /// False when folding changes neither this path nor any literal: then the second lookup would be the first one.
    fn case_matters(&self, path: &str) -> bool {
        self.mixed_case
            || path
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte == b'%' || !byte.is_ascii())
    }

    /// The class of the pattern that would win if case did not count, in paths and patterns alike.
    fn folded_class(&self, host: &str, path: &str) -> Option<usize> {
        // Folding ASCII is done by the comparison.
        let path = if path.bytes().any(|byte| byte == b'%' || !byte.is_ascii()) {
            Cow::Owned(fold(path))
        } else {
            Cow::Borrowed(path)
        };
        let mut spans = [Span::default(); PATH_CAPTURES_MAX];
        self.hosts_for(host)
            .find_map(|(table, _)| table.folded.find::<Folded>(&path, &mut spans))
            .map(|hit| hit.value)
    }

    /// The leaf of a pattern, made when it is new.
    fn leaf(&mut self, host: Option<&HostPattern>, path: &PathPattern) -> Option<&mut Leaf> {
        let new = self.hosts.len();
        let at = match host {
            None => *self.any.get_or_insert(new),
            Some(HostPattern::Exact(name)) => *self.exact.entry(name.clone()).or_insert(new),
            Some(HostPattern::Wildcard { suffix }) => self.suffix(suffix, false, new),
            Some(HostPattern::Capture { suffix, .. }) => self.suffix(suffix, true, new),
        };
        if at == new {
            self.hosts.push(HostTable {
                exact: Trie::new(),
                folded: Trie::new(),
            });
        }
        let table = self.hosts.get_mut(at)?;
        // `/a/` is the pattern `/a`: both match with and without the slash.
        let segments = match path.segments.as_slice() {
            [segments @ .., Segment::Literal(last)] if last.is_empty() => segments,
            segments => segments,
        };
        let folded: Vec<Option<String>> = segments
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => Some(fold(text)),
                Segment::Param(_) => None,
            })
            .collect();
        self.mixed_case |=
            segments
                .iter()
                .zip(&folded)
                .any(|(segment, folded)| match (segment, folded) {
                    (Segment::Literal(text), Some(folded)) => **text != **folded,
                    _ => false,
                });
        let next = self.leaves.len();
        // A leaf's class is the number of the first leaf with the same folded pattern.
        let steps = folded
            .iter()
            .map(|text| text.as_deref().map_or(Step::Param, Step::Literal));
        let class = *table.folded.place(steps, path.prefix)?.get_or_insert(next);
        let steps = segments.iter().map(|segment| match segment {
            Segment::Literal(text) => Step::Literal(text),
            Segment::Param(_) => Step::Param,
        });
        let at = *table.exact.place(steps, path.prefix)?.get_or_insert(next);
        if at == next {
            self.leaves.push(Leaf::new(class));
        }
        self.leaves.get_mut(at)
    }

    fn suffix(&mut self, text: &Arc<str>, single: bool, new: usize) -> usize {
        let known = self
            .patterns
            .iter()
            .find(|(suffix, _)| suffix.text == *text && suffix.single == single);
        known.map(|&(_, table)| table).unwrap_or_else(|| {
            self.patterns.push((
                Suffix {
                    text: text.clone(),
                    single,
                },
                new,
            ));
            new
        })
    }
}

/// The patterns of one host: as written, and folded to lower case.
#[derive(Debug)]
struct HostTable {
    exact: Trie,
    folded: Trie,
}

#[derive(Debug)]
struct Suffix {
    /// With its leading dot.
    text: Arc<str>,
    /// One label only: `{name}.suffix`.
    single: bool,
}

impl Suffix {
    /// Bytes before the suffix; `None` when it does not match.
    fn label(&self, host: &str) -> Option<usize> {
        let label = host.strip_suffix(&*self.text)?;
        let labels_fit = !self.single || !label.contains('.');
        (!label.is_empty() && labels_fit).then_some(label.len())
    }
}

#[cfg(test)]
mod tests;
