//! The JSON Schema of the file (draft 2020-12), made from the declarations: what editors complete and check with.
//!
//! It says what can be said of one value alone. What holds between keys, and whether a name exists, only `check` knows.
//! Two rules, held by tests: whatever `check` takes, the schema takes, and an unknown key or a wrong type it refuses.

use super::diagnostic::WARNINGS;
use super::table::{Key, Presence};
use super::{later, reference, schema_text as like, tables};
use serde_json::{Map, Value, json};

/// The whole schema.
pub fn document() -> Value {
    let mut definitions = Map::new();
    for (scope, _, keys) in tables() {
        definitions.insert(scope.to_owned(), table(scope, &keys));
    }
    for (name, schema) in shared() {
        definitions.insert(name.to_owned(), schema);
    }
    let mut properties = Map::new();
    for (scope, head, about) in reference::SECTIONS {
        let mut schema = section(scope, head);
        describe(&mut schema, about);
        properties.insert((*scope).to_owned(), schema);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:tollhouse:config",
        "title": "Tollhouse configuration",
        "description": "Strings may hold ${VAR}, ${VAR:-default} and ${file:PATH}; $${ is a literal ${. `tollhouse check` knows more than this schema.",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// One table of the file: its head in the reference says whether it stands alone, has names, or is a list.
fn section(scope: &str, head: &str) -> Value {
    match scope {
        "identity_headers" => {
            let value = any_of([words(&["false"]), text(like::IDENTITY_VALUE)]);
            any_of([flag(), of_headers(value)])
        }
        "security_headers" => any_of([flag(), headers()]),
        "lints" => lints(),
        _ if head.starts_with("[[") => json!({"type": "array", "items": definition(scope)}),
        _ if head.contains('.') => json!({
            "type": "object",
            "propertyNames": {"pattern": like::NAME},
            "additionalProperties": definition(scope),
        }),
        _ => definition(scope),
    }
}

/// The keys of a declared table, and those of which only some values are taken yet.
fn table(scope: &str, keys: &[Key]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for (name, values) in later::accepted(scope) {
        let mut schema = only(words(values));
        describe(&mut schema, reference::NOTHING_ELSE);
        properties.insert(name.to_owned(), schema);
    }
    for key in keys {
        properties.insert(key.name.to_owned(), property(scope, key));
        if matches!(key.presence, Presence::Required(_)) {
            required.push(key.name);
        }
    }
    let mut table = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        insert(&mut table, "required", json!(required));
    }
    table
}

fn property(scope: &str, key: &Key) -> Value {
    let mut schema = key.schema.clone();
    let mut about = reference::comment(key);
    let (Presence::Default(text) | Presence::Required(text) | Presence::Optional(text)) =
        key.presence;
    let value = toml_value(text);
    if later::only_default(scope, key.name) {
        schema = only(json!({"enum": [value]}));
        about = format!("{about} {}", reference::NOTHING_ELSE);
    }
    describe(&mut schema, &about);
    match key.presence {
        Presence::Default(_) => insert(&mut schema, "default", value),
        _ => insert(&mut schema, "examples", json!([value])),
    }
    schema
}

/// Values of a key of which nothing else is taken yet, or a variable that holds one.
fn only(values: Value) -> Value {
    let text = values["enum"][0].is_string();
    any_of([values, if text { interpolated() } else { variable() }])
}

/// What the declarations refer to.
fn shared() -> [(&'static str, Value); 3] {
    let scalar = ["string", "number", "boolean"].map(|name| json!({"type": name}));
    let inner = any_of(scalar.into_iter().chain([definition("claims")]));
    let claims = json!({
        "type": "object",
        "propertyNames": {"pattern": like::CLAIM},
        "additionalProperties": inner,
    });
    let variable = json!({
        "type": "string",
        "pattern": like::VARIABLE,
        "description": "A variable or a file: ${VAR}, ${VAR:-default}, ${file:PATH}.",
    });
    let interpolated = json!({
        "type": "string",
        "pattern": like::INTERPOLATED,
        "description": "Text with ${VAR}, ${VAR:-default} or ${file:PATH} in it.",
    });
    [
        ("claims", claims),
        ("variable", variable),
        ("interpolated", interpolated),
    ]
}

/// A definition of the document.
pub(super) fn definition(name: &str) -> Value {
    json!({"$ref": format!("#/$defs/{name}")})
}

/// A string that is wholly one variable: takes the place of any value but a table.
pub(super) fn variable() -> Value {
    definition("variable")
}

/// A string with a variable in it: takes the place of any string.
pub(super) fn interpolated() -> Value {
    definition("interpolated")
}

/// Any string.
pub(super) fn string() -> Value {
    json!({"type": "string"})
}

/// A string that this regular expression finds something in, or that a variable completes.
pub(super) fn text(pattern: &str) -> Value {
    any_of([
        json!({"type": "string", "pattern": pattern}),
        interpolated(),
    ])
}

/// One of these words.
pub(super) fn words(words: &[&str]) -> Value {
    let word = |word: &&str| match *word {
        "true" => json!(true),
        "false" => json!(false),
        word => json!(word),
    };
    json!({"enum": words.iter().map(word).collect::<Vec<_>>()})
}

/// `true` or `false`.
pub(super) fn flag() -> Value {
    any_of([json!({"type": "boolean"}), variable()])
}

/// A whole number. Beyond `u32` no key counts.
pub(super) fn whole(least: u32, most: u32) -> Value {
    let mut number = json!({"type": "integer", "minimum": least});
    if most < u32::MAX {
        insert(&mut number, "maximum", json!(most));
    }
    any_of([number, variable()])
}

/// A table from names of headers to what `value` says.
pub(super) fn of_headers(value: Value) -> Value {
    json!({
        "type": "object",
        "propertyNames": {"pattern": like::HEADER_NAME},
        "additionalProperties": value,
    })
}

/// A table from names of headers to their values.
pub(super) fn headers() -> Value {
    of_headers(text(like::HEADER_VALUE))
}

/// Claims that are compared: a path, or tables that spell it, and a single value.
pub(super) fn wanted_claims() -> Value {
    definition("claims")
}

/// Claims as a token would hold them: anything.
pub(super) fn any_claims() -> Value {
    json!({"type": "object"})
}

/// `[lints]`: each warning by its name, so that editors can list them.
fn lints() -> Value {
    let names = WARNINGS.iter().map(|name| {
        let mut reason = text(like::REASON);
        describe(&mut reason, "Why this warning is fine here.");
        ((*name).to_owned(), reason)
    });
    json!({
        "type": "object",
        "properties": names.collect::<Map<_, _>>(),
        "additionalProperties": false,
    })
}

/// Any of these. Nested alternatives become one list, and what another one takes anyway is left out.
pub(super) fn any_of(parts: impl IntoIterator<Item = Value>) -> Value {
    let mut flat: Vec<Value> = Vec::new();
    for part in parts {
        let inner = match part.as_object() {
            Some(object) if object.len() == 1 => object.get("anyOf").and_then(Value::as_array),
            _ => None,
        };
        match inner {
            Some(inner) => flat.extend(inner.iter().cloned()),
            None => flat.push(part),
        }
    }
    let every_string = |one: &Value| one["type"] == "string" && one.get("pattern").is_none();
    let strings = flat.iter().any(every_string);
    let mixed = strings || flat.contains(&interpolated());
    let mut kept: Vec<Value> = Vec::new();
    for part in flat {
        let covered = (mixed && part == variable()) || (strings && part == interpolated());
        if !covered && !kept.contains(&part) {
            kept.push(part);
        }
    }
    match <[Value; 1]>::try_from(kept) {
        Ok([one]) => one,
        Err(several) => json!({"anyOf": several}),
    }
}

fn describe(schema: &mut Value, about: &str) {
    insert(schema, "description", json!(about));
}

fn insert(schema: &mut Value, key: &str, value: Value) {
    if let Some(object) = schema.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

/// The value that a piece of TOML stands for. Null, which no key takes, for what is none: a test looks for it.
fn toml_value(text: &str) -> Value {
    let table: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    let value = table.and_then(|mut table| table.remove("value"));
    value
        .and_then(|value| serde_json::to_value(value).ok())
        .unwrap_or_default()
}
