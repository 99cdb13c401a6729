//! JSON as JavaScript reads it, over text that was written by strangers: nesting without a limit but the text's length,
//! lone surrogates allowed, and of equal keys the last one counts. Values stay where they are; nothing is built.
//! Grammar: RFC 8259, as strict as `JSON.parse`. Never recursive.

use std::borrow::Cow;

/// A valid JSON value: its text without the white space around it.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(&'a str);

/// The value of a whole document; `None` when it is not JSON from end to end.
pub(super) fn document(text: &str) -> Option<Value<'_>> {
    let bytes = text.as_bytes();
    let start = skip_space(bytes, 0);
    let end = value_end(bytes, start)?;
    if skip_space(bytes, end) != bytes.len() {
        return None;
    }
    text.get(start..end).map(Value)
}

impl<'a> Value<'a> {
    pub(super) fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    pub(super) fn is_array(self) -> bool {
        self.0.starts_with('[')
    }

    pub(super) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The values of these keys, of equal keys the last. All `None` when this is no object.
    pub(super) fn members<const N: usize>(self, wanted: [&str; N]) -> [Option<Value<'a>>; N] {
        let mut found = [None; N];
        if self.is_object() {
            let mut at = 1;
            while let Some((key, value, end)) = self.member_at(at) {
                if let Some(key) = Value(key).string() {
                    for (name, slot) in wanted.iter().zip(&mut found) {
                        if *name == key {
                            *slot = Some(value);
                        }
                    }
                }
                at = end;
            }
        }
        found
    }

    /// The first `N` elements. All `None` when this is no array.
    pub(super) fn elements<const N: usize>(self) -> [Option<Value<'a>>; N] {
        let mut found = [None; N];
        if self.is_array() {
            let bytes = self.0.as_bytes();
            let mut at = skip_space(bytes, 1);
            for slot in &mut found {
                let Some(end) = value_end(bytes, at) else {
                    break;
                };
                *slot = self.0.get(at..end).map(Value);
                at = skip_space(bytes, end);
                if bytes.get(at) != Some(&b',') {
                    break;
                }
                at = skip_space(bytes, at + 1);
            }
        }
        found
    }

    /// A string's content; `None` for anything else, and for a string with a lone surrogate, which no UTF-8 can hold.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let content = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if content.contains('\\') {
            unescape(content).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(content))
        }
    }

    /// A number, or a string that holds one: JavaScript makes no difference when it compares. Finite or nothing.
    pub(super) fn number(self) -> Option<f64> {
        let string = self.string();
        let text = match &string {
            Some(text) => text.trim(),
            None => self.0,
        };
        // Rust also reads `inf` and `nan`; a number's letters are only those of an exponent.
        let numeric = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        text.parse()
            .ok()
            .filter(|number: &f64| numeric && number.is_finite())
    }

    /// Key, value and the place behind them, from the place behind `{`, or behind the member before.
    fn member_at(self, at: usize) -> Option<(&'a str, Value<'a>, usize)> {
        let bytes = self.0.as_bytes();
        let mut key = skip_space(bytes, at);
        if bytes.get(key) == Some(&b',') {
            key = skip_space(bytes, key + 1);
        }
        let key_end = string_end(bytes, key)?;
        let start = after_colon(bytes, key_end)?;
        let end = value_end(bytes, start)?;
        Some((
            self.0.get(key..key_end)?,
            Value(self.0.get(start..end)?),
            end,
        ))
    }
}

/// Where the value that starts at `at` ends; `None` when there is none. One pass; memory is one byte for each level.
fn value_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    /// What is open.
    enum Open {
        Object,
        Array,
    }
    let mut open: Vec<Open> = Vec::new();
    loop {
        match *bytes.get(at)? {
            b'{' => {
                at = skip_space(bytes, at + 1);
                if bytes.get(at) != Some(&b'}') {
                    open.push(Open::Object);
                    at = after_key(bytes, at)?;
                    continue;
                }
                at += 1;
            }
            b'[' => {
                at = skip_space(bytes, at + 1);
                if bytes.get(at) != Some(&b']') {
                    open.push(Open::Array);
                    continue;
                }
                at += 1;
            }
            b'"' => at = string_end(bytes, at)?,
            b't' => at = literal_end(bytes, at, b"true")?,
            b'f' => at = literal_end(bytes, at, b"false")?,
            b'n' => at = literal_end(bytes, at, b"null")?,
            _ => at = number_end(bytes, at)?,
        }
        // A value has just ended: close what ends with it, then go on to the next one.
        loop {
            let Some(innermost) = open.last() else {
                return Some(at);
            };
            at = skip_space(bytes, at);
            match (*bytes.get(at)?, innermost) {
                (b',', Open::Object) => {
                    at = after_key(bytes, skip_space(bytes, at + 1))?;
                    break;
                }
                (b',', Open::Array) => {
                    at = skip_space(bytes, at + 1);
                    break;
                }
                (b'}', Open::Object) | (b']', Open::Array) => {
                    at += 1;
                    open.pop();
                }
                _ => return None,
            }
        }
    }
}

fn after_key(bytes: &[u8], at: usize) -> Option<usize> {
    after_colon(bytes, string_end(bytes, at)?)
}

fn after_colon(bytes: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(bytes, at);
    (bytes.get(at) == Some(&b':')).then(|| skip_space(bytes, at + 1))
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn literal_end(bytes: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    bytes
        .get(at..)?
        .starts_with(literal)
        .then_some(at + literal.len())
}

fn number_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let digits = |mut at: usize| {
        let start = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        (at > start).then_some(at)
    };
    if bytes.get(at) == Some(&b'-') {
        at += 1;
    }
    at = if bytes.get(at) == Some(&b'0') {
        at + 1
    } else {
        digits(at)?
    };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(bytes.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = digits(at)?;
    }
    Some(at)
}

fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        at += match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => match *bytes.get(at + 1)? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                _ => return None,
            },
            0x00..=0x1F => return None,
            _ => 1,
        };
    }
}

/// The content of a valid string; `None` where a surrogate stands alone.
fn unescape(content: &str) -> Option<String> {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at)?);
        let escape = *rest.as_bytes().get(at + 1)?;
        rest = rest.get(at + 2..)?;
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut unit = code_unit(rest)?;
                rest = rest.get(4..)?;
                if (0xD800..0xDC00).contains(&unit) {
                    let low = code_unit(rest.strip_prefix("\\u")?)?;
                    rest = rest.get(6..)?;
                    if !(0xDC00..0xE000).contains(&low) {
                        return None;
                    }
                    unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                }
                char::from_u32(unit)?
            }
            other => char::from(other),
        });
    }
    out.push_str(rest);
    Some(out)
}

fn code_unit(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_document_is_json_from_end_to_end() {
        for good in [
            "{}",
            " [ ] ",
            "null",
            "true",
            "false",
            "0",
            "-0.5e+3",
            "1E9",
            "\"\"",
            r#""\ud800 \" \\ \/ \u0041""#,
            "\t\r\n{\"a\" : [1 , {\"b\":[]} , \"x\"] , \"c\":null}",
            "\"\u{7f}é\u{2028}\"",
        ] {
            assert!(document(good).is_some(), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "[",
            "]",
            "{]",
            "[1,]",
            "{,}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\" 1}",
            "{a:1}",
            "[1 2]",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "0x1",
            "nul",
            "NaN",
            "Infinity",
            "tru e",
            "\"",
            "\"\n\"",
            r#""\x""#,
            r#""\u12g4""#,
            "{} x",
            "{}{}",
            "\u{feff}{}",
            "\u{a0}{}",
            "'a'",
            "[1]]",
            "//\n1",
        ] {
            assert!(document(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn of_equal_keys_the_last_one_counts_however_it_is_spelt() {
        let text = r#"{"a":1,"b":{"a":9},"\u0061":"two","c":[{"a":8}]}"#;
        let [a, b, missing] = document(text).unwrap().members(["a", "b", "d"]);
        assert_eq!(a.unwrap().string().unwrap(), "two");
        assert_eq!(b.unwrap().members(["a"])[0].unwrap().number(), Some(9.0));
        assert!(missing.is_none());
        assert!(document("[1]").unwrap().members(["a"])[0].is_none());
    }

    #[test]
    fn elements_are_counted_from_the_front() {
        let [first, second, third] = document(r#" [ "x" ,[1,2], null ,4]"#).unwrap().elements();
        assert_eq!(first.unwrap().string().unwrap(), "x");
        assert!(second.unwrap().is_array());
        assert!(third.unwrap().string().is_none());
        assert!(document("[]").unwrap().elements::<1>()[0].is_none());
    }

    #[test]
    fn numbers_are_finite_and_may_be_written_as_strings() {
        let check = |text: &str, expected: Option<f64>| {
            assert_eq!(document(text).unwrap().number(), expected, "{text}");
        };
        check("4102444800", Some(4_102_444_800.0));
        check("1.5e3", Some(1500.0));
        check("\" 12 \"", Some(12.0));
        check("1e999", None);
        check("\"inf\"", None);
        check("\"\"", None);
        check("true", None);
        check("{}", None);
    }

    #[test]
    fn nesting_has_no_limit_of_its_own() {
        let text = "[".repeat(40_000) + &"]".repeat(40_000);
        assert!(document(&text).is_some());
        assert!(document(&"{\"a\":".repeat(10_000)).is_none());
    }

    proptest! {
        #[test]
        fn strangers_text_is_judged_as_a_strict_parser_judges_it(
            text in prop_oneof![
                proptest::collection::vec(prop::sample::select(
                    vec!["{", "}", "[", "]", ",", ":", "\"", "\"a\"", "1", "-", ".", "e", "0", " ", "null", "tru", "true", "\\", "\\u00e9", "\n", "é"]), 0..14)
                    .prop_map(|parts| parts.concat()),
                any::<String>(),
            ]
        ) {
            let ours = document(&text);
            if let Some(value) = ours {
                let _ = (value.string(), value.number(), value.members(["a"]), value.elements::<3>());
            }
            // Numbers beyond f64 are JSON to JavaScript; the reference refuses them.
            match serde_json::from_str::<serde::de::IgnoredAny>(&text) {
                Ok(_) => prop_assert!(ours.is_some(), "{}", text),
                Err(error) if error.to_string().contains("out of range") => {}
                Err(_) => prop_assert!(ours.is_none(), "{}", text),
            }
        }

        #[test]
        fn strings_come_back_as_they_were(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(document(&written).unwrap().string().unwrap(), text.as_str());
        }
    }
}
