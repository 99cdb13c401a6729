//! A trie of path segments with one rule of precedence: literal over `{param}` over `/*`, segment by segment from the
//! left, and back again when a branch leads nowhere. Holds numbers, knows nothing of routes.

use super::PATH_CAPTURES_MAX;
use std::cmp::Ordering;

/// Where a capture stands in the text that it was found in, in bytes.
pub(super) type Span = (u32, u32);

#[derive(Debug)]
pub(super) struct Trie {
    /// The first is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by text.
    literals: Vec<(Box<str>, usize)>,
    param: Option<usize>,
    /// What the pattern that ends here stands for.
    exact: Option<usize>,
    /// What the pattern that ends in `/*` here stands for.
    prefix: Option<usize>,
}

/// One step of a pattern.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Literal(&'a str),
    Param,
}

/// How literals are compared. Both are total orders, so the sorted search works with both.
pub(super) trait Compare {
    fn compare(literal: &str, segment: &str) -> Ordering;
}

/// Byte for byte.
pub(super) struct Exactly;

/// The segment in lower case; the literals of the trie must be so already.
pub(super) struct Folded;

impl Compare for Exactly {
    fn compare(literal: &str, segment: &str) -> Ordering {
        literal.cmp(segment)
    }
}

impl Compare for Folded {
    fn compare(literal: &str, segment: &str) -> Ordering {
        literal
            .bytes()
            .cmp(segment.bytes().map(|byte| byte.to_ascii_lowercase()))
    }
}

/// What was found: the pattern's value, and where the `*` of a prefix pattern begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) value: usize,
    pub(super) rest: Option<usize>,
}

impl Trie {
    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::default()],
        }
    }

    /// The place for what a pattern stands for; the same place for patterns that match the same paths.
    pub(super) fn place<'a>(
        &mut self,
        steps: impl Iterator<Item = Step<'a>>,
        prefix: bool,
    ) -> Option<&mut Option<usize>> {
        let mut at = 0;
        for step in steps {
            let new = self.nodes.len();
            let node = self.nodes.get_mut(at)?;
            at = match step {
                Step::Literal(text) => match node
                    .literals
                    .binary_search_by(|(literal, _)| (**literal).cmp(text))
                {
                    Ok(found) => node.literals.get(found)?.1,
                    Err(gap) => {
                        node.literals.insert(gap, (text.into(), new));
                        new
                    }
                },
                Step::Param => *node.param.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(Node::default());
            }
        }
        let node = self.nodes.get_mut(at)?;
        Some(if prefix {
            &mut node.prefix
        } else {
            &mut node.exact
        })
    }

    /// The most specific pattern that matches `path`, which starts with `/`. Writes the parameters' places in order;
    /// those beyond the array are not kept. Visits no node twice; allocates nothing.
    pub(super) fn find<C: Compare>(
        &self,
        path: &str,
        spans: &mut [Span; PATH_CAPTURES_MAX],
    ) -> Option<Hit> {
        self.walk::<C>(0, path, 0, spans, 0)
    }

    /// `at` is the place of the slash before the next segment, or the end of the path.
    fn walk<C: Compare>(
        &self,
        node: usize,
        path: &str,
        at: usize,
        spans: &mut [Span; PATH_CAPTURES_MAX],
        params: usize,
    ) -> Option<Hit> {
        let node = self.nodes.get(node)?;
        // Behind the slash; the end of the path when there is none.
        let start = (at + 1).min(path.len());
        let rest = path.get(start..)?;
        if rest.is_empty() {
            let exact = node.exact.map(|value| Hit { value, rest: None });
            return exact.or_else(|| {
                node.prefix.map(|value| Hit {
                    value,
                    rest: Some(start),
                })
            });
        }
        let length = rest
            .bytes()
            .position(|byte| byte == b'/')
            .unwrap_or(rest.len());
        let (segment, end) = (rest.get(..length)?, start + length);
        if let Ok(found) = node
            .literals
            .binary_search_by(|(literal, _)| C::compare(literal, segment))
            && let Some(&(_, child)) = node.literals.get(found)
            && let Some(hit) = self.walk::<C>(child, path, end, spans, params)
        {
            return Some(hit);
        }
        if let Some(child) = node.param
            && !segment.is_empty()
        {
            if let (Some(span), Ok(start), Ok(end)) = (
                spans.get_mut(params),
                u32::try_from(start),
                u32::try_from(end),
            ) {
                *span = (start, end);
            }
            if let Some(hit) = self.walk::<C>(child, path, end, spans, params + 1) {
                return Some(hit);
            }
        }
        node.prefix.map(|value| Hit {
            value,
            rest: Some(start),
        })
    }

    /// All values in the order in which their patterns are tried.
    pub(super) fn in_order(&self) -> Vec<usize> {
        enum Task {
            Visit(usize),
            Emit(usize),
        }
        let mut order = Vec::new();
        let mut tasks = vec![Task::Visit(0)];
        while let Some(task) = tasks.pop() {
            match task {
                Task::Emit(value) => order.push(value),
                Task::Visit(node) => {
                    let Some(node) = self.nodes.get(node) else {
                        continue;
                    };
                    order.extend(node.exact);
                    tasks.extend(node.prefix.map(Task::Emit));
                    tasks.extend(node.param.map(Task::Visit));
                    tasks.extend(
                        node.literals
                            .iter()
                            .rev()
                            .map(|&(_, child)| Task::Visit(child)),
                    );
                }
            }
        }
        order
    }
}
