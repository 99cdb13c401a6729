//! The declaration of a table: [`table!`] makes keys, defaults, comments and decoding of one list.

use super::read::{Entries, Reader};

/// `r#as` is written `as`.
pub(super) fn plain(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// Whether a key must be given, and what stands in the reference for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// TOML of the value that holds when the key is left out.
    Default(&'static str),
    /// Must be given; TOML of an example.
    Required(&'static str),
    /// May be left out, and then does nothing or follows from other keys; TOML of an example.
    Optional(&'static str),
}

/// One key of a table, as it was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// Its comment: meaning, unit, bounds.
    pub doc: &'static str,
    /// Whether it must be given.
    pub presence: Presence,
    /// What its value looks like, for a sentence.
    pub expected: String,
    /// What its value looks like, for editors.
    pub schema: serde_json::Value,
}

/// A table that was declared with [`table!`].
pub(super) trait Table: Sized {
    /// Its name in [`later`] and in the reference.
    const SCOPE: &'static str;
    /// Its name in a sentence.
    const WHAT: &'static str;
    /// Its keys, in the order of declaration.
    fn keys() -> Vec<Key>;
    /// Reads it. `None`: something that has no default is missing or wrong, and was told.
    fn read(entries: &Entries, reader: &Reader<'_>) -> Option<Self>;
}

/// Declares a table: `name: Type = default("10s"), decoder;`, with `required(example)` and `optional(example)`, too.
/// An optional key has the type `Option<…>`.
macro_rules! table {
    (
        $(#[$meta:meta])* $vis:vis struct $Name:ident ($scope:literal, $what:literal) {
            $( $(#[doc = $doc:literal])+ $fvis:vis $field:ident : $T:ty = $mode:ident ($value:tt), $decoder:expr; )*
        }
    ) => {
        $(#[$meta])* $vis struct $Name { $( $(#[doc = $doc])+ $fvis $field: $T, )* }

        impl $crate::config::table::Table for $Name {
            const SCOPE: &'static str = $scope;
            const WHAT: &'static str = $what;

            fn keys() -> Vec<$crate::config::table::Key> {
                vec![$( $crate::config::table::Key {
                    name: $crate::config::table::plain(stringify!($field)),
                    doc: concat!($($doc, "\n"),+),
                    presence: $crate::config::table::presence!($mode, stringify!($value)),
                    expected: $crate::config::decode::Decode::expected(&$decoder),
                    schema: $crate::config::decode::Decode::schema(&$decoder),
                } ),*]
            }

            fn read(
                entries: &$crate::config::read::Entries,
                reader: &$crate::config::read::Reader<'_>,
            ) -> Option<Self> {
                reader.known_keys(entries, $scope, $what, &[$($crate::config::table::plain(stringify!($field))),*]);
// One tuple: every key is read before one that is missing ends it.
                let ( $( $field, )* ) = ( $(
                    $crate::config::table::field!($mode, reader, entries, $what, $crate::config::table::plain(stringify!($field)), &$decoder, stringify!($value)),
                )* );
                Some(Self { $( $field: $field?, )* })
            }
        }
    };
}

macro_rules! presence {
    (default, $value:expr) => {
        $crate::config::table::Presence::Default($value)
    };
    (required, $value:expr) => {
        $crate::config::table::Presence::Required($value)
    };
    (optional, $value:expr) => {
        $crate::config::table::Presence::Optional($value)
    };
}

macro_rules! field {
    (default, $reader:ident, $entries:ident, $what:expr, $key:expr, $decoder:expr, $value:expr) => {
        $reader.or_default($entries, $key, $decoder, $value)
    };
    (required, $reader:ident, $entries:ident, $what:expr, $key:expr, $decoder:expr, $value:expr) => {
        $reader.required($entries, $what, $key, $decoder)
    };
    (optional, $reader:ident, $entries:ident, $what:expr, $key:expr, $decoder:expr, $value:expr) => {
        Some($reader.optional($entries, $key, $decoder))
    };
}

pub(super) use {field, presence, table};
