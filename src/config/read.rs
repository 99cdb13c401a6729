//! The reader over spanned tables: finds keys, fills in defaults, and goes on after a problem so that all of them are told.
//! What a table has is declared with `table!`.

use super::decode::Decode;
use super::diagnostic::{Finding, Place, Severity, suggest};
use super::interpolate::{Environment, Written, expand};
use super::later;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value with its place, after interpolation.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Text(Text),
    /// `None`: does not fit.
    Int(Option<i64>),
    Float(Option<f64>),
    Bool(bool),
    Date,
    List(Vec<Node>),
    Table(Entries),
    /// Interpolation failed and said so. Whether there is text besides the variable.
    Broken {
        mixed: bool,
    },
}

impl Kind {
    pub(super) fn is(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Broken { .. } => "a string",
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Date => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Text {
    pub(super) value: String,
    pub(super) written: Written,
    pub(super) known: bool,
    /// As it stands in the file.
    pub(super) shown: String,
}

/// The entries of a table, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    pub(super) list: Vec<Entry>,
    /// The table's head, or the braces of an inline table.
    pub(super) place: Place,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) node: Node,
}

impl Entries {
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.list.iter().find(|e| e.key == key)
    }

    /// Where a key stands; the table's head when it is not given.
    pub(super) fn key_place(&self, key: &str) -> Place {
        self.get(key)
            .map_or_else(|| self.place.clone(), |e| e.key_place.clone())
    }

    /// Where a value stands; the table's head when it is not given.
    pub(super) fn value_place(&self, key: &str) -> Place {
        self.get(key)
            .map_or_else(|| self.place.clone(), |e| e.node.place.clone())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
}

/// What reading needs, and what it finds.
pub(super) struct Reader<'a> {
    world: &'a dyn Environment,
    placeholders: bool,
    /// Relative paths start here: the folder of the file.
    pub(super) dir: PathBuf,
    pub(super) findings: RefCell<Vec<Finding>>,
    /// Literal secrets.
    pub(super) hidden: RefCell<Vec<Place>>,
    /// Files that were read.
    pub(super) files: RefCell<Vec<PathBuf>>,
    /// Keys that were refused: not read again.
    refused: RefCell<Vec<Place>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &Path, world: &'a dyn Environment, placeholders: bool) -> Self {
        Self {
            world,
            placeholders,
            dir: file.parent().map(Path::to_path_buf).unwrap_or_default(),
            findings: RefCell::default(),
            hidden: RefCell::default(),
            files: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Tells of an error. The hint may be empty.
    pub(super) fn error(
        &self,
        id: &'static str,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.tell(Severity::Error, id, place, message.into(), hint.into());
    }

    /// Tells of something to look at. The id is one of [`super::diagnostic::WARNINGS`].
    pub(super) fn warn(
        &self,
        id: &'static str,
        place: &Place,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        debug_assert!(super::diagnostic::WARNINGS.contains(&id));
        self.tell(Severity::Warning, id, place, message.into(), hint.into());
    }

    /// How many errors have been told.
    pub(super) fn errors(&self) -> usize {
        self.findings
            .borrow()
            .iter()
            .filter(|one| one.severity == Severity::Error)
            .count()
    }

    fn tell(
        &self,
        severity: Severity,
        id: &'static str,
        place: &Place,
        message: String,
        hint: String,
    ) {
        self.findings.borrow_mut().push(Finding {
            severity,
            id,
            message,
            place: place.clone(),
            hint,
        });
    }

    /// Reads a file that the configuration names, relative to its own folder.
    pub(super) fn file(&self, path: &Path, limit: usize) -> Result<String, String> {
        let full = self.dir.join(path);
        let text = self.world.file(&full, limit)?;
        self.files.borrow_mut().push(full);
        Ok(text)
    }

    /// Takes over a parsed table: file order, strings interpolated.
    pub(super) fn entries(&self, table: &DeTable<'_>, place: Place) -> Entries {
        let mut list: Vec<Entry> = table
            .iter()
            .map(|(key, value)| Entry {
                key: key.get_ref().to_string(),
                key_place: key.span(),
                node: self.node(value),
            })
            .collect();
        list.sort_by_key(|e| (e.key_place.start, e.node.place.start));
        Entries { list, place }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        let place = value.span();
        let kind = match value.get_ref() {
            DeValue::String(text) => self.text(text, &place),
            DeValue::Integer(int) => Kind::Int(i64::from_str_radix(int.as_str(), int.radix()).ok()),
            DeValue::Float(float) => Kind::Float(float.as_str().parse().ok()),
            DeValue::Boolean(bool) => Kind::Bool(*bool),
            DeValue::Datetime(_) => Kind::Date,
            DeValue::Array(array) => {
                Kind::List(array.iter().flat_map(|v| self.elements(v)).collect())
            }
            DeValue::Table(table) => Kind::Table(self.entries(table, place.clone())),
        };
        Node { kind, place }
    }

    /// One element of a list, or as many as a variable holds.
    fn elements(&self, value: &Spanned<DeValue<'_>>) -> Vec<Node> {
        let node = self.node(value);
        match &node.kind {
            Kind::Text(text) if text.written == Written::Variable => split(text, &node.place),
            _ => vec![node],
        }
    }

    fn text(&self, text: &str, place: &Place) -> Kind {
        let files = &mut *self.files.borrow_mut();
        match expand(text, &self.dir, self.world, self.placeholders, files) {
            Ok(got) => Kind::Text(Text {
                value: got.value,
                written: got.written,
                known: got.known,
                shown: text.to_owned(),
            }),
            Err(problems) => {
                for problem in problems {
                    self.error(problem.0, place, problem.1, problem.2);
                }
                let whole = text.starts_with("${") && text.find('}') == Some(text.len() - 1);
                Kind::Broken { mixed: !whole }
            }
        }
    }

    /// Masks literal secrets wherever their lines are shown: values alone, never the head of a table. A variable may
    /// be shown: it is not its value.
    pub(super) fn hide(&self, node: &Node) {
        match &node.kind {
            Kind::Broken { mixed: false } => {}
            Kind::Text(text) if text.written == Written::Variable || text.shown.is_empty() => {}
            Kind::List(nodes) => nodes.iter().for_each(|node| self.hide(node)),
            Kind::Table(entries) => entries.list.iter().for_each(|entry| self.hide(&entry.node)),
            _ => self.hidden.borrow_mut().push(node.place.clone()),
        }
    }

    /// Refuses keys that the table does not have, and those whose behaviour is not there yet.
    pub(super) fn known_keys(
        &self,
        entries: &Entries,
        scope: &'static str,
        what: &str,
        keys: &[&'static str],
    ) {
        for entry in &entries.list {
            let key = entry.key.as_str();
            if looks_secret(key) && !keys.contains(&key) {
                self.hide(&entry.node);
            }
            match later::refuses(scope, key, &entry.node) {
                later::Answer::Refused(what) => {
                    self.refused.borrow_mut().push(entry.key_place.clone());
                    self.error(
                        "not-supported-yet",
                        &entry.key_place,
                        format!("{what} is not supported yet"),
                        "remove it",
                    );
                }
                later::Answer::Fine => {}
                later::Answer::NotListed if keys.contains(&key) => {}
                later::Answer::NotListed => {
                    let hint = super::belongs_to(key, scope)
                        .unwrap_or_else(|| suggest(key, keys.iter().copied()));
                    self.error(
                        "unknown-key",
                        &entry.key_place,
                        format!("{what} has no key `{key}`"),
                        hint,
                    );
                }
            }
        }
    }

    /// A key that must be there.
    pub(super) fn required<D: Decode>(
        &self,
        entries: &Entries,
        what: &str,
        key: &str,
        decoder: &D,
    ) -> Option<D::Out> {
        let Some(entry) = entries.get(key) else {
            let hint = format!("`{key}` is {}", decoder.expected());
            self.error(
                "missing-key",
                &entries.place,
                format!("{what} needs `{key}`"),
                hint,
            );
            return None;
        };
        self.value(entry, decoder)
    }

    fn value<D: Decode>(&self, entry: &Entry, decoder: &D) -> Option<D::Out> {
        let refused = self.refused.borrow().contains(&entry.key_place);
        if refused {
            None
        } else {
            decoder.read(&entry.node, &entry.key, self)
        }
    }

    /// A key that may be left out: `Some(None)`. `None`: given, but wrong.
    pub(super) fn optional<D: Decode>(
        &self,
        entries: &Entries,
        key: &str,
        decoder: &D,
    ) -> Option<D::Out> {
        entries
            .get(key)
            .and_then(|entry| self.value(entry, decoder))
    }

    /// A key with a default. What is wrong counts as the default, so that reading goes on.
    pub(super) fn or_default<D: Decode>(
        &self,
        entries: &Entries,
        key: &str,
        decoder: &D,
        default: &str,
    ) -> Option<D::Out> {
        self.optional(entries, key, decoder).or_else(|| {
            let parsed = DeValue::parse(default).ok()?;
            let node = self.node(&parsed);
            decoder.read(&node, key, self)
        })
    }
}

/// Whether a key, right or mistyped, may hold a secret.
fn looks_secret(key: &str) -> bool {
    ["secret", "secert", "key", "token", "password"]
        .iter()
        .any(|word| key.contains(word))
}

/// Strings that look like secrets, in text that is not TOML: the values of keys named so.
pub(super) fn literal_secrets(text: &str) -> Vec<Place> {
    let mut places = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let key = line
            .split('=')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        let secret = looks_secret(&key);
        if let Some(at) = line
            .find('=')
            .filter(|at| secret && !is_variable(&line[at + 1..]))
        {
            let space = line.len() - at - 1 - line[at + 1..].trim_start().len();
            places.push(start + at + 1 + space..start + line.len());
        }
        start += line.len();
    }
    places
}

/// A string that is one variable and nothing else.
fn is_variable(value: &str) -> bool {
    let quote = ['"', '\''];
    let inner = value.trim_start().strip_prefix(quote);
    inner
        .and_then(|inner| inner.strip_prefix("${")?.split_once('}'))
        .is_some_and(|(_, rest)| rest.starts_with(quote))
}

/// The elements that one variable holds: separated by commas or lines, empty ones dropped.
pub(super) fn split(text: &Text, place: &Place) -> Vec<Node> {
    let element = |value: &str| Node {
        kind: Kind::Text(Text {
            value: value.to_owned(),
            ..text.clone()
        }),
        place: place.clone(),
    };
    if !text.known {
        return vec![element("")];
    }
    text.value
        .split([',', '\n'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(element)
        .collect()
}
