//! One pattern and the routes that share it: which of them answers a method, and what `Allow` says when none does.

use super::{Conflict, Listed};
use crate::config::route::Route;
use crate::config::value::{HostPattern, PathPattern, Segment};
use http::{HeaderValue, Method};
use std::sync::Arc;

/// Names of a pattern's captures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) host: Option<Arc<str>>,
    /// In order.
    pub(super) path: Vec<Arc<str>>,
}

/// A pattern: who answers which method.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) class: usize,
    methods: Vec<(Method, Entry)>,
    /// A route for every method.
    all: Option<Entry>,
    pub(super) allow: HeaderValue,
    /// Every route here allows another case.
    pub(super) case_allowed: bool,
    /// By their methods, so that the file's order does not show.
    pub(super) listed: Vec<(Vec<String>, Listed)>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) route: usize,
    pub(super) case_allowed: bool,
    pub(super) names: Option<Arc<Names>>,
}

impl Leaf {
    pub(super) fn new(class: usize) -> Self {
        Self {
            class,
            methods: Vec::new(),
            all: None,
            allow: HeaderValue::from_static(""),
            case_allowed: true,
            listed: Vec::new(),
        }
    }

    pub(super) fn entry(&self, method: &Method) -> Option<&Entry> {
        let own = self
            .methods
            .iter()
            .find(|(known, _)| known == method)
            .map(|(_, entry)| entry);
        own.or(self.all.as_ref())
    }

    pub(super) fn add(
        &mut self,
        index: usize,
        route: &Route,
        host: Option<&HostPattern>,
        path: &PathPattern,
        conflicts: &mut Vec<Conflict>,
    ) {
        if self.listed.iter().any(|(_, listed)| listed.route == index) {
            return;
        }
        let host_name = match host {
            Some(HostPattern::Capture { name, .. }) => Some(name.clone()),
            _ => None,
        };
        let path_names: Vec<_> = params(&path.segments).cloned().collect();
        let names = (host_name.is_some() || !path_names.is_empty()).then(|| {
            Arc::new(Names {
                host: host_name,
                path: path_names,
            })
        });
        let entry = Entry {
            route: index,
            case_allowed: route.allow_in_path.case,
            names,
        };
        let mut conflict = |other: &Entry| {
            conflicts.push(Conflict(index.min(other.route), index.max(other.route)))
        };
        match &route.methods {
            None => match &self.all {
                Some(other) => conflict(other),
                None => self.all = Some(entry),
            },
            Some(methods) => {
                for method in methods {
                    match self.methods.iter().find(|(known, _)| known == method) {
                        Some((_, other)) if other.route != index => conflict(other),
                        Some(_) => {}
                        None => self.methods.push((method.clone(), entry.clone())),
                    }
                }
            }
        }
        self.case_allowed &= route.allow_in_path.case;
        let mut methods: Vec<String> = route
            .methods
            .iter()
            .flatten()
            .map(Method::to_string)
            .collect();
        methods.sort_unstable();
        // After every method: a route for all of them comes last.
        methods.extend(route.methods.is_none().then(|| "~".to_owned()));
        self.listed.push((
            methods,
            Listed {
                route: index,
                host: host.cloned(),
                path: path.clone(),
            },
        ));
    }

    /// `GET` brings `HEAD` unless a route names it; the list for `Allow`.
    pub(super) fn finish(&mut self) {
        if let Some((_, get)) = self
            .methods
            .iter()
            .find(|(method, _)| method == Method::GET)
            && !self
                .methods
                .iter()
                .any(|(method, _)| method == Method::HEAD)
        {
            self.methods.push((Method::HEAD, get.clone()));
        }
        let mut names: Vec<&str> = self
            .methods
            .iter()
            .map(|(method, _)| method.as_str())
            .collect();
        names.sort_unstable();
        // Methods are tokens, so the list is always a valid field value.
        self.allow =
            HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""));
        self.listed.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
}

fn params(segments: &[Segment]) -> impl Iterator<Item = &Arc<str>> {
    segments.iter().filter_map(|segment| match segment {
        Segment::Param(name) => Some(name),
        Segment::Literal(_) => None,
    })
}
