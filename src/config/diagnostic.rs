//! A problem in the file: place, what is wrong, what to do. Collects all of them; renders each with the offending line.
//! Never prints a value that came from `${…}`, and masks literal secrets.

use serde_json::json;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Byte range in the file; `0..0` is the file as a whole.
pub type Place = std::ops::Range<usize>;

/// Most columns of a line that are shown: a window around the place.
const SHOWN_CHARS_MAX: usize = 160;

/// What stands before the place in such a window.
const BEFORE_CHARS_MAX: usize = 60;

/// Stands for a literal secret, whatever its length.
const MASK: &str = "*****";

/// Whether a file with this problem may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used; the operator should look. `[lints]` silences it by name.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// Every warning that `[lints]` and `allow_lints` may name.
pub const WARNINGS: &[&str] = &[
    "admin-beyond-loopback",
    "adopt",
    "any-audience",
    "any-issuer",
    "certificate-out-of-time",
    "insecure-http",
    "insecure-public-url",
    "login-url-without-route",
    "no-effect",
    "no-provider",
    "no-routes",
    "no-session-source",
    "public-cache",
    "service-role-allowed",
    "trusts-everyone",
    "unix-without-trust",
    "unused-rate-limit",
    "unused-upstream",
    "unverified-credentials",
    "user-metadata-header",
    "user-metadata-limit",
];

/// A problem while it is being collected.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) id: &'static str,
    pub(super) message: String,
    pub(super) place: Place,
    pub(super) hint: String,
}

/// One problem, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Its name in kebab-case; stable.
    pub id: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// The file, as the operator named it.
    pub file: Arc<str>,
    /// From 1; 0 when the problem is the file as a whole.
    pub line: usize,
    /// In characters, from 1; 0 when the problem is the file as a whole.
    pub column: usize,
    /// What to do; may be empty.
    pub hint: String,
    snippet: Option<Snippet>,
}

/// The line as it is shown; its underline in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snippet {
    line: String,
    indent: usize,
    length: usize,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}[{}]: {}",
            self.severity.as_str(),
            self.id,
            self.message
        )?;
        let Some(snippet) = &self.snippet else {
            write!(f, "  {}", self.file)?;
            return match self.hint.as_str() {
                "" => Ok(()),
                hint => write!(f, ": {hint}"),
            };
        };
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "  {}:{}:{}", self.file, self.line, self.column)?;
        writeln!(f, "  {number} | {}", snippet.line)?;
        let (indent, underline) = (" ".repeat(snippet.indent), "^".repeat(snippet.length));
        write!(f, "  {gutter} | {indent}{underline}")?;
        match self.hint.as_str() {
            "" => Ok(()),
            hint => write!(f, " {hint}"),
        }
    }
}

/// Everything that is to be said about a file, in the order of its lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Diagnostic>);

impl Problems {
    /// The single ones.
    pub fn list(&self) -> &[Diagnostic] {
        &self.0
    }

    /// Nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .count()
    }

    /// A list of `{severity, id, message, file, line, column, hint}`.
    pub fn to_json(&self) -> serde_json::Value {
        let one = |d: &Diagnostic| {
            json!({
                "severity": d.severity.as_str(), "id": d.id, "message": d.message, "file": &*d.file,
                "line": d.line, "column": d.column, "hint": d.hint,
            })
        };
        self.0.iter().map(one).collect()
    }

    pub(super) fn new(list: Vec<Diagnostic>) -> Self {
        Self(list)
    }
}

impl fmt::Display for Problems {
    /// Lines, each with its end; an empty one between two problems.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, one) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            writeln!(f, "{one}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Gives findings their lines. `hidden` are literal secrets: masked wherever a line is shown.
pub(super) fn place_all(
    text: &str,
    file: &Path,
    mut findings: Vec<Finding>,
    hidden: &[Place],
) -> Vec<Diagnostic> {
    findings.sort_by(|a, b| {
        (a.place.start, a.place.end, a.id).cmp(&(b.place.start, b.place.end, b.id))
    });
    findings.dedup_by(|a, b| a.place == b.place && a.id == b.id && a.message == b.message);
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect();
    let file: Arc<str> = file.display().to_string().into();
    findings
        .into_iter()
        .map(|finding| place_one(text, &starts, &file, finding, hidden))
        .collect()
}

fn place_one(
    text: &str,
    starts: &[usize],
    file: &Arc<str>,
    finding: Finding,
    hidden: &[Place],
) -> Diagnostic {
    let Finding {
        severity,
        id,
        message,
        place,
        hint,
    } = finding;
    let mut diagnostic = Diagnostic {
        severity,
        id,
        message,
        file: file.clone(),
        line: 0,
        column: 0,
        hint,
        snippet: None,
    };
    if place == (0..0) {
        return diagnostic;
    }
    let start = floor(text, place.start);
    let line = starts.partition_point(|s| *s <= start);
    let from = starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
    let to = text[from..].find('\n').map_or(text.len(), |n| from + n);
    // A place at the line's own end (something is missing there) still gets one caret.
    let mut start = start.min(to);
    if let Some(secret) = hidden.iter().find(|secret| secret.contains(&start)) {
        // A place within a secret would tell how long it is.
        start = secret.start.max(from);
    }
    let end = floor(text, place.end).clamp(start, to);
    diagnostic.line = line;
    diagnostic.column = text[from..start].chars().count() + 1;
    diagnostic.snippet = Some(snippet(text, from..to, start..end, hidden));
    diagnostic
}

/// A line with its secrets masked, cut to a window around the place.
fn snippet(text: &str, line: Place, place: Place, hidden: &[Place]) -> Snippet {
    // Characters, each with where it comes from: all of a mask from where its secret begins.
    let mut shown: Vec<(usize, char)> = Vec::new();
    let mut at = line.start;
    for (offset, c) in text[line.clone()].char_indices() {
        let offset = line.start + offset;
        if offset < at {
            continue;
        }
        let secret = hidden.iter().filter(|secret| secret.contains(&offset));
        if let Some(end) = secret.map(|secret| secret.end).max() {
            shown.extend(MASK.chars().map(|c| (offset, c)));
            at = end;
        } else {
            shown.push((offset, if c.is_control() { ' ' } else { c }));
        }
    }
    let last = shown.iter().rposition(|(_, c)| !c.is_whitespace());
    let width = last.map_or(0, |last| last + 1);
    let before = |offset: usize| shown.partition_point(|(from, _)| *from < offset);
    let indent = before(place.start);
    let length = before(place.end).min(width).saturating_sub(indent).max(1);
    shown.truncate(width);
    let (from, to) = window(width, indent, length);
    let mut line = String::new();
    if from > 0 {
        line.push('…');
    }
    line.extend(shown[from..to].iter().map(|(_, c)| c));
    if to < width {
        line.push('…');
    }
    Snippet {
        line,
        indent: indent - from + usize::from(from > 0),
        length: length.min(to.saturating_sub(indent)).max(1),
    }
}

/// Which columns of a line are shown: all of them, or what is around the place and two marks.
fn window(width: usize, indent: usize, length: usize) -> (usize, usize) {
    if width <= SHOWN_CHARS_MAX {
        return (0, width);
    }
    let room = SHOWN_CHARS_MAX - 2;
    let from = if indent + length.min(BEFORE_CHARS_MAX) <= room {
        0
    } else {
        indent.saturating_sub(BEFORE_CHARS_MAX).min(width - room)
    };
    (from, (from + room).min(width))
}

/// The nearest character boundary at or below `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The known name that was probably meant.
pub(super) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let normal = |s: &str| s.to_ascii_lowercase().replace('-', "_");
    let wrong = normal(wrong);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong, &normal(name)), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).min(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// ``did you mean `x`?``, or what is known when nothing is near.
pub(super) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = nearest(wrong, known.clone()) {
        return format!("did you mean `{name}`?");
    }
    let names: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => String::new(),
        1..=16 => format!("known: {}", names.join(", ")),
        _ => String::from("there is no such name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, place: Place, hidden: &[Place]) -> String {
        let finding = Finding {
            severity: Severity::Error,
            id: "unknown-key",
            message: "m".into(),
            place,
            hint: "h".into(),
        };
        Problems::new(place_all(text, Path::new("a.toml"), vec![finding], hidden)).to_string()
    }

    #[test]
    fn the_line_is_shown_and_underlined() {
        assert_eq!(
            render("a = 1\nbc = 2\n", 6..8, &[]),
            "error[unknown-key]: m\n  a.toml:2:1\n  2 | bc = 2\n    | ^^ h\n"
        );
    }

    #[test]
    fn columns_count_characters_and_underlines_end_with_the_line() {
        assert_eq!(
            render("ä = \"öö\nx\"", 5..13, &[]),
            "error[unknown-key]: m\n  a.toml:1:5\n  1 | ä = \"öö\n    |     ^^^ h\n"
        );
    }

    #[test]
    fn a_hidden_place_is_masked() {
        assert_eq!(
            render("k = \"s\"\n", 4..7, std::slice::from_ref(&(4..7))),
            "error[unknown-key]: m\n  a.toml:1:5\n  1 | k = *****\n    |     ^^^^^ h\n"
        );
    }

    #[test]
    fn a_mask_says_nothing_of_the_length() {
        let line = |text: &str, place: Place, secret: Place| {
            let told = render(text, place, std::slice::from_ref(&secret));
            told.lines().skip(1).collect::<Vec<_>>().join("\n")
        };
        // A place within a secret is shown as where it begins.
        assert_eq!(
            line("k = \"hunter2\n", 12..12, 4..13),
            "  a.toml:1:5\n  1 | k = *****\n    |     ^^^^^ h"
        );
        // What follows a secret keeps its own column, and its underline.
        assert_eq!(
            line("k = \"hunter2\", l = 1\n", 15..16, 4..13),
            "  a.toml:1:16\n  1 | k = *****, l = 1\n    |            ^ h"
        );
        // Lines of one secret are masked one by one.
        assert_eq!(
            line("k = '''a\nbcdefghi'''\n", 10..11, 4..20),
            "  a.toml:2:1\n  2 | *****\n    | ^^^^^ h"
        );
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("a = [{}\"here\"{}]\n", "1, ".repeat(100), ", 2".repeat(100));
        let at = text.find("\"here").unwrap();
        let told = render(&text, at..at + 6, &[]);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines[1], "  a.toml:1:306");
        let shown = lines[2].strip_prefix("  1 | ").unwrap();
        assert_eq!(shown.chars().count(), SHOWN_CHARS_MAX);
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        let under = lines[3].strip_prefix("    | ").unwrap();
        let caret = under.find('^').unwrap();
        let marked: String = shown.chars().skip(caret).take(6).collect();
        assert_eq!(
            (marked.as_str(), under.trim_start()),
            ("\"here\"", "^^^^^^ h")
        );

        // At the beginning, at the end, and when all of it is meant.
        let told = |place: Place| render(&text, place, &[]);
        assert!(told(0..1).contains("  1 | a = [1, 1"));
        assert!(told(text.len() - 2..text.len() - 1).contains("2]\n"));
        let longest = told(0..text.len()).lines().map(|l| l.chars().count()).max();
        assert!(longest <= Some(SHOWN_CHARS_MAX + 10), "{longest:?}");
    }

    #[test]
    fn the_nearest_name_is_near() {
        assert_eq!(
            nearest("rate_limit", ["retries", "rate_limits"]),
            Some("rate_limits")
        );
        assert_eq!(nearest("base-path", ["base_path"]), Some("base_path"));
        assert_eq!(nearest("colour", ["path", "host"]), None);
    }
}
