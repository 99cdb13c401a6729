//! What the contract names and this version does not do yet. Such a key is refused, never accepted and ignored.
//! Whoever builds one of them deletes its line here.

use super::read::{Kind, Node};

/// How much of a key is refused.
enum Refuse {
    /// Every value.
    Always,
    /// Every value but these, which ask for nothing. The first is the default.
    Except(&'static [&'static str]),
    /// These values; the key itself is declared in its table.
    Only(&'static [&'static str]),
    /// Every value but this default; the key itself is declared in its table.
    Unless(&'static str),
}
use Refuse::{Always, Except, Only, Unless};

/// Table, key, what is refused.
const LATER: &[(&str, &str, Refuse)] = &[
    ("", "api_keys", Always),
    ("server", "state_dir", Except(&[""])),
    ("listeners", "proxy_protocol", Except(&["false"])),
    ("admin", "token", Except(&[""])),
    ("telemetry", "otlp_endpoint", Except(&[""])),
    ("providers", "kind", Only(&["better-auth"])),
    ("providers", "discovery_url", Always),
    ("upstreams", "health", Always),
    ("upstreams", "outlier", Always),
    ("upstreams", "tls", Always),
    ("rate_limits", "store", Except(&["memory"])),
    ("routes", "several_credentials", Unless("all")),
    ("routes", "capture_session", Always),
    ("tests.as", "api_key", Always),
];

/// What is known of a key.
pub(super) enum Answer {
    /// Not supported: this.
    Refused(String),
    /// A value that asks for nothing.
    Fine,
    /// The table's own declaration knows.
    NotListed,
}

/// Whether a key, or the value it has, is refused.
pub(super) fn refuses(table: &str, key: &str, node: &Node) -> Answer {
    let Some((_, _, refuse)) = LATER.iter().find(|(t, k, _)| *t == table && *k == key) else {
        return Answer::NotListed;
    };
    let value = match &node.kind {
        Kind::Text(text) => Some(text.value.clone()),
        Kind::Bool(value) => Some(value.to_string()),
        Kind::Int(Some(value)) => Some(value.to_string()),
        _ => None,
    };
    let listed = |values: &[&str]| {
        value
            .as_deref()
            .is_some_and(|value| values.contains(&value))
    };
    match refuse {
        Always if table.is_empty() => Answer::Refused(format!("`[{key}]`")),
        Always => Answer::Refused(format!("`{key}`")),
        Except(values) if listed(values) => Answer::Fine,
        Except(_) => Answer::Refused(format!("`{key}`")),
        Only(values) if listed(values) => match &node.kind {
            Kind::Text(text) => Answer::Refused(format!("`{key} = \"{}\"`", text.shown)),
            _ => Answer::Refused(format!("`{key}`")),
        },
        Unless(value) if !listed(&[value]) => Answer::Refused(format!("another `{key}`")),
        Only(_) | Unless(_) => Answer::NotListed,
    }
}

/// Whether every value of a key is refused.
pub(super) fn is_refused(table: &str, key: &str) -> bool {
    LATER
        .iter()
        .any(|(t, k, refuse)| *t == table && *k == key && matches!(refuse, Always))
}

/// Keys of a table of which only the default is accepted: name and TOML of that value. For the reference.
pub(super) fn defaults(table: &str) -> impl Iterator<Item = (&'static str, String)> {
    LATER
        .iter()
        .filter(move |(t, ..)| *t == table)
        .filter_map(|(_, key, refuse)| match refuse {
            Except([value @ ("true" | "false"), ..]) => Some((*key, (*value).to_owned())),
            Except([value, ..]) => Some((*key, format!("\"{value}\""))),
            _ => None,
        })
}

/// Keys that a table does not declare and of which some values are accepted all the same: name and those values. For
/// the schema.
pub(super) fn accepted(
    table: &str,
) -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    LATER
        .iter()
        .filter(move |(t, ..)| *t == table)
        .filter_map(|(_, key, refuse)| match refuse {
            Except(values) => Some((*key, *values)),
            _ => None,
        })
}

/// Whether a key that its table declares accepts nothing but its default. For the reference.
pub(super) fn only_default(table: &str, key: &str) -> bool {
    LATER
        .iter()
        .any(|(t, k, refuse)| *t == table && *k == key && matches!(refuse, Unless(_)))
}
