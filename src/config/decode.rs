//! How a value of the file becomes a value of ours: small decoders that are put together in the declaration of a table.
//! They name the key and what was expected, and never print a value.

use super::diagnostic::{Place, suggest};
use super::interpolate::Written;
use super::read::{Kind, Node, Reader, Text, split};
use super::schema;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) use super::decode_bounded::{DAY, count, int, size, span};
pub(super) use super::decode_nested::{
    Either, Kept, flag_or, map, masked, nested, none_or, secret,
};

/// Turns a node into a value.
pub(super) trait Decode {
    type Out;
    /// `None`: it is wrong, and was told.
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out>;
    /// End of the sentence "`key` must be …".
    fn expected(&self) -> String;
    /// JSON Schema of what is read, variables included. Never narrower than [`Self::read`].
    fn schema(&self) -> Value;
}

pub(super) fn wrong_type(node: &Node, key: &str, expected: &str, hint: &str, reader: &Reader<'_>) {
    if matches!(node.kind, Kind::Broken { .. }) {
        return;
    }
    let is = match &node.kind {
        Kind::Text(text) if text.written == Written::Variable => {
            "what the variable holds is something else".into()
        }
        kind => format!("this is {}", kind.is()),
    };
    let hint = if hint.is_empty() {
        is
    } else {
        format!("{is}; {hint}")
    };
    reader.error(
        "wrong-type",
        &node.place,
        format!("`{key}` must be {expected}"),
        hint,
    );
}

/// A string that is parsed.
pub(super) struct Parsed<T> {
    parse: fn(&str) -> Result<T, String>,
    expected: &'static str,
    /// Stands in for a placeholder, and is shown as an example.
    sample: &'static str,
    look: Look,
}

/// What a text looks like, for the schema.
#[derive(Clone, Copy)]
enum Look {
    Any,
    Filled,
    Like(&'static str),
    Words(&'static [&'static str]),
}

/// A string that `parse` understands. Its error is a hint that must not repeat the value.
pub(super) fn parsed<T>(
    parse: fn(&str) -> Result<T, String>,
    expected: &'static str,
    sample: &'static str,
) -> Parsed<T> {
    Parsed {
        parse,
        expected,
        sample,
        look: Look::Any,
    }
}

impl<T> Parsed<T> {
    /// For the schema: a regular expression of [`super::schema_text`].
    pub(super) fn like(self, pattern: &'static str) -> Self {
        let look = Look::Like(pattern);
        Self { look, ..self }
    }

    /// For the schema: the words that are understood.
    pub(super) fn words(self, words: &'static [&'static str]) -> Self {
        let look = Look::Words(words);
        Self { look, ..self }
    }

    /// For the schema: not empty.
    pub(super) fn filled(self) -> Self {
        let look = Look::Filled;
        Self { look, ..self }
    }
}

impl<T> Decode for Parsed<T> {
    type Out = T;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<T> {
        let Kind::Text(text) = &node.kind else {
            let hint = match node.kind {
                Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
                    format!("write a string such as \"{}\"", self.sample)
                }
                _ => String::new(),
            };
            wrong_type(node, key, self.expected, &hint, reader);
            return None;
        };
        if !text.known {
            return (self.parse)(self.sample).ok();
        }
        match (self.parse)(&text.value) {
            Ok(value) => Some(value),
            Err(hint) => {
                // A URL with a password.
                if text.shown.contains("://") && text.shown.contains('@') {
                    reader.hide(node);
                }
                reader.error(
                    "bad-value",
                    &node.place,
                    format!("`{key}` must be {}", self.expected),
                    hint,
                );
                None
            }
        }
    }
    fn expected(&self) -> String {
        self.expected.into()
    }
    fn schema(&self) -> Value {
        match self.look {
            Look::Any => schema::string(),
            Look::Filled => json!({"type": "string", "minLength": 1}),
            Look::Like(pattern) => schema::text(pattern),
            Look::Words(words) => schema::any_of([schema::words(words), schema::interpolated()]),
        }
    }
}

/// Any string.
pub(super) fn string() -> Parsed<String> {
    parsed(|s| Ok(s.to_owned()), "a string", "placeholder")
}

/// Any string, shared.
pub(super) fn text() -> Parsed<Arc<str>> {
    parsed(|s| Ok(s.into()), "a string", "placeholder")
}

/// Any string that is not empty.
pub(super) fn word() -> Parsed<String> {
    parsed(
        |s| {
            if s.is_empty() {
                Err("it is empty".into())
            } else {
                Ok(s.to_owned())
            }
        },
        "a string",
        "placeholder",
    )
    .filled()
}

/// `true` or `false`.
pub(super) struct Flag;

/// `true` or `false`.
pub(super) fn flag() -> Flag {
    Flag
}

impl Decode for Flag {
    type Out = bool;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<bool> {
        match &node.kind {
            Kind::Bool(value) => return Some(*value),
            Kind::Text(text) if text.written == Written::Variable => {
                if !text.known {
                    return Some(false);
                }
                if let Ok(value) = text.value.trim().parse() {
                    return Some(value);
                }
                wrong_type(node, key, "true or false", "", reader);
            }
            Kind::Text(text) if text.value == "true" || text.value == "false" => {
                wrong_type(node, key, "true or false", "leave the quotes out", reader);
            }
            _ => wrong_type(node, key, "true or false", "", reader),
        }
        None
    }
    fn expected(&self) -> String {
        "true or false".into()
    }
    fn schema(&self) -> Value {
        schema::flag()
    }
}

/// One of some words.
pub(super) struct Choice<T: 'static>(&'static [(&'static str, T)]);

/// One of these words.
pub(super) fn choice<T: Copy>(words: &'static [(&'static str, T)]) -> Choice<T> {
    Choice(words)
}

impl<T: Copy> Decode for Choice<T> {
    type Out = T;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<T> {
        let text = read_text(node, key, &self.expected(), reader)?;
        if !text.known {
            return self.0.first().map(|(_, value)| *value);
        }
        let found = self
            .0
            .iter()
            .find(|(word, _)| *word == text.value)
            .map(|(_, value)| *value);
        if found.is_none() {
            let hint = match text.written {
                Written::Literal => {
                    super::diagnostic::nearest(&text.value, self.0.iter().map(|(word, _)| *word))
                }
                _ => None,
            };
            let hint = hint.map_or_else(String::new, |word| format!("did you mean `{word}`?"));
            reader.error(
                "bad-value",
                &node.place,
                format!("`{key}` must be {}", self.expected()),
                hint,
            );
        }
        found
    }
    fn expected(&self) -> String {
        let words: Vec<String> = self
            .0
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        match words.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, first)) => format!("{} or {last}", first.join(", ")),
            None => String::new(),
        }
    }
    fn schema(&self) -> Value {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        schema::any_of([json!({"enum": words}), schema::interpolated()])
    }
}

/// The text of a string node.
pub(super) fn read_text<'n>(
    node: &'n Node,
    key: &str,
    expected: &str,
    reader: &Reader<'_>,
) -> Option<&'n Text> {
    match &node.kind {
        Kind::Text(text) => Some(text),
        _ => {
            wrong_type(node, key, expected, "", reader);
            None
        }
    }
}

/// A list of something.
pub(super) struct List<D> {
    element: D,
    single: bool,
}

/// A list.
pub(super) fn list<D>(element: D) -> List<D> {
    List {
        element,
        single: false,
    }
}

/// One, or a list.
pub(super) fn one_or_list<D>(element: D) -> List<D> {
    List {
        element,
        single: true,
    }
}

impl<D: Decode> Decode for List<D> {
    type Out = Vec<D::Out>;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        let parts;
        let nodes = match &node.kind {
            Kind::List(nodes) => nodes,
            Kind::Text(text) if text.written == Written::Variable => {
                parts = split(text, &node.place);
                &parts
            }
            _ if self.single => return self.element.read(node, key, reader).map(|one| vec![one]),
            _ => {
                let hint = if matches!(node.kind, Kind::Text(_)) {
                    "put it in brackets: `[…]`"
                } else {
                    ""
                };
                wrong_type(node, key, "a list", hint, reader);
                return None;
            }
        };
        let read: Vec<Option<D::Out>> = nodes
            .iter()
            .map(|n| self.element.read(n, key, reader))
            .collect();
        read.into_iter().collect()
    }
    fn expected(&self) -> String {
        let one = self.element.expected();
        if self.single {
            format!("{one}, or a list of such")
        } else {
            format!("a list; each is {one}")
        }
    }
    fn schema(&self) -> Value {
        let one = self.element.schema();
        let list = json!({"type": "array", "items": one});
        let single = self.single.then_some(one);
        schema::any_of(single.into_iter().chain([list, schema::variable()]))
    }
}

/// A value that remembers where it stands and how it was written.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
    /// For messages: as it stands in the file.
    pub(super) shown: String,
    /// `false`: a placeholder.
    pub(super) known: bool,
    /// Holds no variable: may be compared with known names aloud.
    pub(super) literal: bool,
}

impl At<String> {
    /// ``did you mean `x`?`` for a name that is not known.
    pub(super) fn suggest<'a>(&self, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
        if self.literal {
            suggest(&self.value, known)
        } else {
            String::new()
        }
    }
}

/// Keeps the place.
pub(super) struct Placed<D>(D);

/// Keeps the place.
pub(super) fn at<D>(decoder: D) -> Placed<D> {
    Placed(decoder)
}

impl<D: Decode> Decode for Placed<D> {
    type Out = At<D::Out>;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        let value = self.0.read(node, key, reader)?;
        let (shown, known, literal) = match &node.kind {
            Kind::Text(text) => (
                text.shown.clone(),
                text.known,
                text.written == Written::Literal,
            ),
            _ => (String::new(), true, true),
        };
        Some(At {
            value,
            place: node.place.clone(),
            shown,
            known,
            literal,
        })
    }
    fn expected(&self) -> String {
        self.0.expected()
    }
    fn schema(&self) -> Value {
        self.0.schema()
    }
}
