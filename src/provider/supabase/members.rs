//! Some members of a JSON object, their text untouched, and nothing built of the rest: users put what they like into their
//! metadata, nested as deep as they like, and the text goes on to their browser as it came. Of equal keys the last counts,
//! as in JavaScript.

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The values of these keys; `None` when `text` is no JSON object from end to end.
pub(super) fn members<'a, const N: usize>(
    text: &'a str,
    wanted: [&str; N],
) -> Option<[Option<&'a str>; N]> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader.deserialize_map(Wanted(wanted)).ok()?;
    reader.end().ok()?;
    Some(found.map(|value| value.map(RawValue::get)))
}

/// A string's content; `None` for anything else.
pub(super) fn string(value: Option<&str>) -> Option<String> {
    serde_json::from_str(value?).ok()
}

/// Whole seconds of a number, or of a string that holds one: JavaScript makes no difference. `None` for anything else and
/// for 0, which counts as missing there.
pub(super) fn seconds(value: Option<&str>) -> Option<u64> {
    let number: f64 = match string(value) {
        Some(text) => text.trim().parse().ok()?,
        None => serde_json::from_str(value?).ok()?,
    };
    // Beyond this no integer of JavaScript is exact, and no clock stands.
    let sane = (1.0..9.0e15).contains(&number);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range was just checked"
    )]
    sane.then_some(number as u64)
}

struct Wanted<'w, const N: usize>([&'w str; N]);

impl<'de, const N: usize> Visitor<'de> for Wanted<'_, N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(key) = map.next_key::<String>()? {
            match self.0.iter().position(|wanted| *wanted == key) {
                Some(at) => {
                    let value = map.next_value()?;
                    if let Some(slot) = found.get_mut(at) {
                        *slot = Some(value);
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_text_and_of_equal_keys_the_last_counts() {
        let text = r#" {"a": {"b" : 1.50}, "x": [], "c":"\u00e9", "a" : [ 2 ]} "#;
        let found = members(text, ["a", "c", "missing"]).unwrap();
        assert_eq!(found, [Some("[ 2 ]"), Some(r#""\u00e9""#), None]);
        assert_eq!(string(found[1]).unwrap(), "é");
        assert_eq!(string(found[0]), None);
    }

    #[test]
    fn what_users_write_does_not_stand_in_the_way() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(r#"{{"user":{{"m":{deep},"s":"\ud800"}},"a":"b"}}"#);
        assert_eq!(members(&text, ["a"]).unwrap(), [Some(r#""b""#)]);
        assert_eq!(
            members(&text, ["user"]).unwrap()[0].unwrap().len(),
            deep.len() + r#"{"m":,"s":"\ud800"}"#.len()
        );
    }

    #[test]
    fn what_is_no_object_has_no_members() {
        for text in [
            "",
            "[]",
            "null",
            "\"a\"",
            "{",
            "{\"a\":1}x",
            "{\"a\"}",
            "<html>",
        ] {
            assert_eq!(members(text, ["a"]), None, "{text}");
        }
    }

    #[test]
    fn seconds_are_read_as_javascript_reads_them() {
        for (text, expected) in [
            ("3600", Some(3600)),
            ("3599.9", Some(3599)),
            ("1.7e9", Some(1_700_000_000)),
            ("\"1700000000\"", Some(1_700_000_000)),
            ("0", None),
            ("-1", None),
            ("1e300", None),
            ("null", None),
            ("true", None),
            ("[1]", None),
            ("\"nan\"", None),
            ("\"inf\"", None),
        ] {
            assert_eq!(seconds(Some(text)), expected, "{text}");
        }
        assert_eq!(seconds(None), None);
    }
}
