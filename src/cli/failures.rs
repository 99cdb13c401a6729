//! `[[tests]]` that fail, as `run` and `check` tell of them.

use crate::gateway::rehearse::Failure;
use crate::snapshot::Snapshot;
use serde_json::{Value, json};
use std::path::Path;

/// A file's text and name, for places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) text: &'a str,
    pub(super) path: &'a Path,
}

/// For a person.
pub(super) fn text(failures: &[Failure], snapshot: &Snapshot, source: Source<'_>) -> String {
    failures
        .iter()
        .map(|failure| {
            let (line, column) = source.place(failure.place(snapshot));
            let file = source.path.display();
            format!(
                "error[test-failed]: {}\n  {file}:{line}:{column}\n",
                failure.problem
            )
        })
        .collect()
}

/// For `check --json`, in the shape of all other problems.
pub(super) fn json(failures: &[Failure], snapshot: &Snapshot, source: Source<'_>) -> Value {
    let one = |failure: &Failure| {
        let (line, column) = source.place(failure.place(snapshot));
        json!({
            "severity": "error",
            "id": "test-failed",
            "message": failure.problem,
            "file": source.path.display().to_string(),
            "line": line,
            "column": column,
            "hint": "",
        })
    };
    failures.iter().map(one).collect()
}

impl Source<'_> {
    /// Line and column of a byte, counted from 1; columns in characters.
    fn place(self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(start..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_one() {
        let source = Source {
            text: "ä = 1\nb\n",
            path: Path::new("x"),
        };
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(2), (1, 2));
        assert_eq!(source.place(7), (2, 1));
        assert_eq!(source.place(99), (1, 1));
    }
}
