//! Durations, sizes and numbers, each within its bounds.

use super::decode::{Decode, parsed, wrong_type};
use super::interpolate::Written;
use super::parse;
use super::read::{Kind, Node, Reader};
use super::{schema, schema_text as like};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A duration within bounds.
pub(super) struct Span(RangeInclusive<Duration>);

/// A duration from `least` to `most` milliseconds.
pub(super) fn span(least: u64, most: u64) -> Span {
    Span(Duration::from_millis(least)..=Duration::from_millis(most))
}

/// One day in milliseconds.
pub(super) const DAY: u64 = 86_400_000;

impl Decode for Span {
    type Out = Duration;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<Duration> {
        let what = "a duration such as \"30s\"";
        let value = parsed(parse::span, what, "30s").read(node, key, reader)?;
        let known = !matches!(&node.kind, Kind::Text(text) if !text.known);
        if known && !self.0.contains(&value) {
            let (least, most) = (show_span(*self.0.start()), show_span(*self.0.end()));
            let message = format!("`{key}` must be a duration from {least} to {most}");
            reader.error("out-of-range", &node.place, message, "");
            return None;
        }
        Some(if known {
            value
        } else {
            value.clamp(*self.0.start(), *self.0.end())
        })
    }
    fn expected(&self) -> String {
        format!(
            "a duration from {} to {}",
            show_span(*self.0.start()),
            show_span(*self.0.end())
        )
    }
    fn schema(&self) -> Value {
        bounded(like::DURATION, &self.expected())
    }
}

fn show_span(span: Duration) -> String {
    let millis = span.as_millis();
    for (unit, length) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ] {
        if millis >= length && millis.is_multiple_of(length) && (unit != "d" || millis > length) {
            return format!("{}{unit}", millis / length);
        }
    }
    if millis == 0 {
        "0s".into()
    } else {
        format!("{millis}ms")
    }
}

/// Text whose bounds no regular expression can hold: they are told.
fn bounded(pattern: &str, bounds: &str) -> Value {
    let text = json!({"type": "string", "pattern": pattern, "description": bounds});
    schema::any_of([text, schema::interpolated()])
}

/// A size within bounds.
pub(super) struct Size(RangeInclusive<u64>);

/// A size from `least` to `most` bytes.
pub(super) fn size(least: u64, most: u64) -> Size {
    Size(least..=most)
}

impl Decode for Size {
    type Out = usize;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<usize> {
        let what = "a size such as \"16KiB\"";
        let value = parsed(parse::size, what, "16KiB").read(node, key, reader)?;
        let known = !matches!(&node.kind, Kind::Text(text) if !text.known);
        if known && !self.0.contains(&value) {
            reader.error(
                "out-of-range",
                &node.place,
                format!("`{key}` must be {}", self.expected()),
                "",
            );
            return None;
        }
        usize::try_from(value.clamp(*self.0.start(), *self.0.end())).ok()
    }
    fn expected(&self) -> String {
        format!(
            "a size from {} to {}",
            show_size(*self.0.start()),
            show_size(*self.0.end())
        )
    }
    fn schema(&self) -> Value {
        bounded(like::SIZE, &self.expected())
    }
}

fn show_size(bytes: u64) -> String {
    for (unit, length) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= length && bytes.is_multiple_of(length) {
            return format!("{}{unit}", bytes / length);
        }
    }
    format!("{bytes}B")
}

/// A whole number within bounds.
pub(super) struct Int(RangeInclusive<u32>);

/// A whole number from `least` to `most`.
pub(super) fn int(least: u32, most: u32) -> Int {
    Int(least..=most)
}

impl Decode for Int {
    type Out = u32;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<u32> {
        let value = match &node.kind {
            Kind::Int(value) => *value,
            Kind::Text(text) if text.written == Written::Variable => {
                if !text.known {
                    return Some(*self.0.start());
                }
                let Ok(value) = text.value.trim().parse() else {
                    wrong_type(node, key, &self.expected(), "", reader);
                    return None;
                };
                Some(value)
            }
            _ => {
                wrong_type(node, key, &self.expected(), "", reader);
                return None;
            }
        };
        let value = value
            .and_then(|v| u32::try_from(v).ok())
            .filter(|v| self.0.contains(v));
        if value.is_none() {
            reader.error(
                "out-of-range",
                &node.place,
                format!("`{key}` must be {}", self.expected()),
                "",
            );
        }
        value
    }
    fn expected(&self) -> String {
        match (self.0.start(), self.0.end()) {
            (least, &u32::MAX) => format!("a whole number of at least {least}"),
            (least, most) => format!("a whole number from {least} to {most}"),
        }
    }
    fn schema(&self) -> Value {
        schema::whole(*self.0.start(), *self.0.end())
    }
}

/// A whole number as a count of things in memory.
pub(super) struct Count(Int);

/// Like [`int`], as `usize`.
pub(super) fn count(least: u32, most: u32) -> Count {
    Count(int(least, most))
}

impl Decode for Count {
    type Out = usize;
    fn read(&self, node: &Node, key: &str, reader: &Reader<'_>) -> Option<usize> {
        self.0
            .read(node, key, reader)
            .and_then(|n| usize::try_from(n).ok())
    }
    fn expected(&self) -> String {
        self.0.expected()
    }
    fn schema(&self) -> Value {
        self.0.schema()
    }
}
