//! Decoders around decoders: something or a word, something or a flag, a table in a table; and secrets.

use super::decode::{Decode, read_text, wrong_type};
use super::diagnostic::Place;
use super::interpolate::Written;
use super::read::{Entries, Kind, Node, Reader};
use super::schema;
use super::table::Table;
use crate::base::secret::Secret;
use serde_json::Value;

/// A word that stands for `None`, or something.
pub(super) struct Or<D>(&'static str, D);

/// `None` for this word (often `""`, `"off"` or `"unlimited"`), else something.
pub(super) fn none_or<D>(word: &'static str, decoder: D) -> Or<D> {
    Or(word, decoder)
}

impl<D: Decode> Decode for Or<D> {
    type Out = Option<D::Out>;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        match &node.kind {
            Kind::Text(text) if text.known && text.value == self.0 => Some(None),
            _ => self.1.read(node, key, reader).map(Some),
        }
    }
    fn expected(&self) -> String {
        format!("{}, or \"{}\"", self.1.expected(), self.0)
    }
    fn schema(&self) -> Value {
        schema::any_of([self.1.schema(), schema::words(&[self.0])])
    }
}

/// `true` or `false`, or something.
pub(super) struct FlagOr<D>(D);

/// A flag, or something.
#[derive(Clone, Debug)]
pub(super) enum Either<T> {
    Flag(bool),
    Other(T),
}

/// `true`, `false`, or something.
pub(super) fn flag_or<D>(decoder: D) -> FlagOr<D> {
    FlagOr(decoder)
}

impl<D: Decode> Decode for FlagOr<D> {
    type Out = Either<D::Out>;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        match &node.kind {
            Kind::Bool(value) => Some(Either::Flag(*value)),
            Kind::Text(text)
                if text.written == Written::Variable
                    && matches!(text.value.trim(), "true" | "false") =>
            {
                Some(Either::Flag(text.value.trim() == "true"))
            }
            _ => self.0.read(node, key, reader).map(Either::Other),
        }
    }
    fn expected(&self) -> String {
        format!("true, false, or {}", self.0.expected())
    }
    fn schema(&self) -> Value {
        schema::any_of([schema::flag(), self.0.schema()])
    }
}

/// A value that is never shown, not even as it stands in the file.
pub(super) struct Hidden;

/// A secret string. Empty counts as not given: see [`Kept::given`].
pub(super) fn secret() -> Hidden {
    Hidden
}

/// A secret and its place.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) secret: Secret<String>,
    pub(super) place: Place,
    /// `false`: a placeholder.
    pub(super) known: bool,
}

impl Kept {
    /// `None` when it is empty.
    pub(super) fn given(self) -> Option<Self> {
        (!self.known || !self.secret.expose().is_empty()).then_some(self)
    }
}

impl Decode for Hidden {
    type Out = Kept;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Kept> {
        reader.hide(node);
        let text = read_text(node, key, "a string", reader)?;
        let secret = Secret::new(text.value.clone());
        Some(Kept {
            secret,
            place: node.place.clone(),
            known: text.known,
        })
    }
    fn expected(&self) -> String {
        "a string".into()
    }
    fn schema(&self) -> Value {
        schema::string()
    }
}

/// Something that is never shown, not even as it stands in the file, and not when it is of the wrong type either.
pub(super) struct Masked<D>(D);

/// Something that may hold a secret.
pub(super) fn masked<D>(decoder: D) -> Masked<D> {
    Masked(decoder)
}

impl<D: Decode> Decode for Masked<D> {
    type Out = D::Out;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        reader.hide(node);
        self.0.read(node, key, reader)
    }
    fn expected(&self) -> String {
        self.0.expected()
    }
    fn schema(&self) -> Value {
        self.0.schema()
    }
}

/// A table of its own.
pub(super) struct Nested<T>(std::marker::PhantomData<T>);

/// A table of its own.
pub(super) fn nested<T: Table>() -> Nested<T> {
    Nested(std::marker::PhantomData)
}

impl<T: Table> Decode for Nested<T> {
    type Out = (T, Entries);
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Self::Out> {
        let Kind::Table(entries) = &node.kind else {
            wrong_type(node, key, "a table", "", reader);
            return None;
        };
        T::read(entries, reader).map(|table| (table, entries.clone()))
    }
    fn expected(&self) -> String {
        let keys: Vec<String> = T::keys()
            .iter()
            .map(|key| format!("`{}`", key.name))
            .collect();
        format!("a table with {}", keys.join(", "))
    }
    fn schema(&self) -> Value {
        schema::definition(T::SCOPE)
    }
}

/// The entries of a table whose keys are the operator's.
pub(super) struct Map(fn() -> Value);

/// A table whose keys are the operator's; for the schema: what it holds.
pub(super) fn map(holds: fn() -> Value) -> Map {
    Map(holds)
}

impl Decode for Map {
    type Out = Entries;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Entries> {
        let Kind::Table(entries) = &node.kind else {
            wrong_type(node, key, "a table", "", reader);
            return None;
        };
        Some(entries.clone())
    }
    fn expected(&self) -> String {
        "a table".into()
    }
    fn schema(&self) -> Value {
        (self.0)()
    }
}
