//! How one line of the log is written: JSON members or text for a terminal, control characters escaped, values
//! bounded. Knows nothing of what a line says.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

/// Longest value of one member, in bytes of its text; what is longer ends in `…`.
pub(super) const VALUE_MAX: usize = 2048;

/// The last millisecond of the year 9999: RFC 3339 has no later one.
const LAST_MILLI: u64 = 253_402_300_799_999;

/// One JSON object on one line.
pub(super) struct JsonLine<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> JsonLine<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        escape(self.out, name, VALUE_MAX);
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        self.out.push(b'"');
        escape(self.out, value, VALUE_MAX);
        self.out.push(b'"');
    }

    /// A value whose `Display` is a JSON number or boolean, or plain ASCII in quotes.
    pub(super) fn raw(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        push(self.out, value);
    }

    pub(super) fn end(self) {
        self.out.extend_from_slice(b"}\n");
    }
}

/// Writes `value` as it displays itself. A `Vec` takes every byte.
pub(super) fn push(out: &mut Vec<u8>, value: impl fmt::Display) {
    let _ = write!(out, "{value}");
}

/// `2026-11-20T08:00:00.000Z` (RFC 3339).
pub fn timestamp(unix_millis: u64) -> impl fmt::Display {
    humantime::format_rfc3339_millis(
        UNIX_EPOCH + Duration::from_millis(unix_millis.min(LAST_MILLI)),
    )
}

/// Milliseconds with three places.
pub(super) struct Millis(pub(super) u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Text that can be neither the end of a JSON string nor a command to a terminal: quotes, backslashes, control
/// characters, line separators and marks that change the direction of writing are escaped as JSON does it.
pub(super) fn escape(out: &mut Vec<u8>, text: &str, max: usize) {
    let cut = text.len() > max;
    let text = &text[..text.floor_char_boundary(max)];
    let mut from = 0;
    for (at, c) in text.char_indices() {
        let short: Option<&[u8]> = match c {
            '"' => Some(b"\\\""),
            '\\' => Some(b"\\\\"),
            '\n' => Some(b"\\n"),
            '\r' => Some(b"\\r"),
            '\t' => Some(b"\\t"),
            _ if c.is_control() || steers(c) => None,
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + c.len_utf8();
        match short {
            Some(short) => out.extend_from_slice(short),
            None => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
    if cut {
        out.extend_from_slice("…".as_bytes());
    }
}

/// Line separators and bidirectional marks. All in the basic plane: one `\u` escape is enough.
fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text that stops growing at [`VALUE_MAX`]: somebody's `Debug` may be of any length.
#[derive(Default)]
pub(super) struct Bounded(pub(super) String);

impl Bounded {
    pub(super) fn of(value: fmt::Arguments<'_>) -> Self {
        let mut text = Self::default();
        // An error means that it is full, or that the value's own formatting failed: what is there is kept.
        let _ = text.write_fmt(value);
        text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        // One character over, so that `escape` sees that something is missing.
        let room = (VALUE_MAX + 4).saturating_sub(self.0.len());
        let fits = part.floor_char_boundary(room);
        self.0.push_str(&part[..fits]);
        if fits < part.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(name: &str, value: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = JsonLine::begin(&mut out);
        line.text(name, value);
        line.raw("n", 1);
        line.end();
        out
    }

    #[test]
    fn what_could_steer_a_terminal_or_a_parser_is_escaped() {
        let check = |text: &str, expected: &str| {
            let mut out = Vec::new();
            escape(&mut out, text, VALUE_MAX);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check("plain ü 日", "plain ü 日");
        check("a\"b\\c", r#"a\"b\\c"#);
        check("a\nb\r\t", r"a\nb\r\t");
        check(
            "\u{1b}[31m\u{0}\u{7f}\u{9b}",
            r"\u001b[31m\u0000\u007f\u009b",
        );
        check("\u{202e}\u{2028}", r"\u202e\u2028");
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_says_so() {
        let mut out = Vec::new();
        escape(&mut out, "aü", 2);
        assert_eq!(String::from_utf8(out).unwrap(), "a…");
        let text = Bounded::of(format_args!("{}{}", "ü".repeat(5000), 1)).0;
        assert!((VALUE_MAX + 1..=VALUE_MAX + 4).contains(&text.len()));
    }

    #[test]
    fn times_are_rfc_3339_in_utc_and_never_out_of_range() {
        assert_eq!(
            timestamp(1_700_000_000_123).to_string(),
            "2023-11-14T22:13:20.123Z"
        );
        assert_eq!(timestamp(u64::MAX).to_string(), "9999-12-31T23:59:59.999Z");
        assert_eq!(Millis(1_234_005).to_string(), "1234.005");
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_of_json_that_reads_back_the_same(name: String, value: String) {
            prop_assume!(name != "n");
            let line = object(&name, &value);
            prop_assert_eq!(line.iter().filter(|b| **b < 0x20).count(), 1);
            let read: serde_json::Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(read[&name].as_str(), Some(&*value));
        }
    }
}
