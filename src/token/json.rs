//! JSON as tokens and key sets may hold it: one object, no member twice at any level, bounded nesting.
//! RFC 7515 §4 and RFC 7519 §4 leave a choice between refusing duplicate members and taking the last; two readers
//! that choose differently see two tokens, so here they are refused.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Objects and arrays inside one another, the outermost counted.
pub const MAX_DEPTH: u8 = 32;

/// Reads one JSON object and nothing after it. `None` for everything else, invalid UTF-8 included.
pub fn object(bytes: &[u8]) -> Option<Map<String, Value>> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { left: MAX_DEPTH }.deserialize(&mut reader).ok()?;
    reader.end().ok()?;
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// A value below which `left` more levels may stand.
#[derive(Clone, Copy)]
struct Strict {
    left: u8,
}

impl Strict {
    fn below<E: de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(below)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let below = self.below()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(de::Error::custom("a member stands twice"));
            }
            let value = members.next_value_seed(below)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], accepted: bool) {
        assert_eq!(
            object(text).is_some(),
            accepted,
            "{}",
            String::from_utf8_lossy(text)
        );
    }

    #[test]
    fn one_object_without_duplicates_is_read() {
        for (text, accepted) in [
            (&b"{}"[..], true),
            (br#" {"a":[1,2.5,-3,null,true,"x"],"b":{"a":1}} "#, true),
            (br#"{"a":1,"a":1}"#, false),
            (br#"{"a":1,"\u0061":2}"#, false),
            (br#"{"a":{"b":1,"b":2}}"#, false),
            (br#"{"a":[{"b":1,"b":2}]}"#, false),
            (br#"{"a":1}{"#, false),
            (br#"{"a":1} x"#, false),
            (b"[]", false),
            (b"null", false),
            (b"\"x\"", false),
            (b"", false),
            (b"{", false),
            (b"\xef\xbb\xbf{}", false),
            (b"{\"a\":\"\xff\"}", false),
            (br#"{"a":"\ud800"}"#, false),
            (br#"{"a":NaN}"#, false),
            (br#"{"a":Infinity}"#, false),
            (br#"{"a":1e999}"#, false),
            (br#"{"a":01}"#, false),
            (br#"{'a':1}"#, false),
            (br#"{"a":1,}"#, false),
        ] {
            check(text, accepted);
        }
    }

    #[test]
    fn thirty_two_levels_are_read_and_thirty_three_are_not() {
        let nested = |arrays: usize| {
            format!(r#"{{"a":{}{}}}"#, "[".repeat(arrays), "]".repeat(arrays)).into_bytes()
        };
        check(&nested(31), true);
        check(&nested(32), false);
        check(&nested(4_000), false);
        let objects = |levels: usize| {
            format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)).into_bytes()
        };
        check(&objects(32), true);
        check(&objects(33), false);
    }
}
