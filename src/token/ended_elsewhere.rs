//! What has ended at one gateway is told to all that share its Redis: a stream that each of them reads for itself, a few
//! times a second, from where it stopped. So nothing is lost while a connection is, and a gateway that starts hears what
//! ended before.

use crate::base::clock::Clock;
use crate::redis::{Failure, Redis};
use ::redis::{Value, pipe};
use std::fmt;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::{CancellationToken, DropGuard};

pub(super) const STREAM: &str = "tollhouse:ended";
/// How often each gateway asks for news.
const EVERY: Duration = Duration::from_millis(400);
/// Entries that are read, or told, at once.
pub(super) const PAGE: usize = 500;
/// Pages that are read without a pause: all that is kept, and some.
const PAGES_MAX: usize = 300;
/// Longest name or id that is believed, in bytes.
const TEXT_MAX: usize = 512;
/// How long after its end an entry may still say something: the most that clocks are forgiven, twice. In seconds.
const FORGIVEN: u64 = 120;

/// What has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A session of a provider: its tokens are refused from now on.
    Session {
        /// The provider's name in the configuration.
        provider: Box<str>,
        /// The provider's id of the session.
        session: Box<str>,
        /// When the newest of its tokens is over, in Unix seconds.
        until: u64,
    },
    /// A stored session: what was read of its record is not trusted any more.
    Record {
        /// The record's name, which is no secret.
        name: Box<str>,
    },
}

/// Hears. Ends with the task that reads when it is dropped.
pub struct Hearing {
    _stop: DropGuard,
}

impl fmt::Debug for Hearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hearing")
    }
}

impl Hearing {
    /// Starts to read, from the beginning, on the control runtime. `hear` is given everything that is told, by whomever, in
    /// its order; after an outage perhaps twice. It must not block.
    pub fn start(redis: Redis, clock: Clock, hear: impl FnMut(Ended) + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let until = stop.clone();
        let control = redis.control().clone();
        let reader = Reader {
            redis,
            clock,
            last: Id::default(),
            hear,
        };
        control.spawn(async move { until.run_until_cancelled(reader.run()).await });
        Self {
            _stop: stop.drop_guard(),
        }
    }
}

/// An entry's place in the stream: `milliseconds-number`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u64, u64);

impl Id {
    fn parse(value: &Value) -> Option<Self> {
        let (millis, number) = text(value)?.split_once('-')?;
        Some(Self(millis.parse().ok()?, number.parse().ok()?))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

struct Reader<F> {
    redis: Redis,
    clock: Clock,
    /// Up to here everything was read.
    last: Id,
    hear: F,
}

impl<F: FnMut(Ended)> Reader<F> {
    async fn run(mut self) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            for _ in 0..PAGES_MAX {
                // An outage is told by the handle. What is missed is read when it is over.
                if self.page().await != Ok(true) {
                    break;
                }
            }
        }
    }

    /// Reads on. True: there is more.
    async fn page(&mut self) -> Result<bool, Failure> {
        let mut both = pipe();
        both.cmd("XREAD").arg("COUNT").arg(PAGE);
        both.arg("STREAMS").arg(STREAM).arg(self.last.to_string());
        both.cmd("XREVRANGE").arg(STREAM).arg("+").arg("-");
        both.arg("COUNT").arg(1);
        let (read, top): (Value, Value) = self.redis.ask_all(both).await?;
        let top = array(&top).first().and_then(id);
        if self.last != Id::default() && top.is_none_or(|top| top < self.last) {
            // Another stream than the one that was read: emptied, or of a Redis that knew less. Its places may come again.
            self.last = Id::default();
            return Ok(true);
        }
        let entries = entries(&read);
        for entry in entries {
            if let Some(id) = id(entry) {
                self.last = self.last.max(id);
            }
            if let Some(ended) = ended(entry, self.clock.unix()) {
                (self.hear)(ended);
            }
        }
        Ok(entries.len() >= PAGE)
    }
}

/// Of the only stream in an answer to XREAD.
fn entries(answer: &Value) -> &[Value] {
    let stream = array(answer).first().map_or(&[][..], array);
    stream.get(1).map_or(&[], array)
}

fn id(entry: &Value) -> Option<Id> {
    Id::parse(array(entry).first()?)
}

/// What an entry says; `None` when it says nothing, or nothing any more.
fn ended(entry: &Value, now: u64) -> Option<Ended> {
    let fields = array(array(entry).get(1)?);
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        let value = pairs.find_map(|pair| match pair {
            [key, value] if text(key) == Some(name) => Some(value),
            _ => None,
        });
        text(value?).filter(|text| !text.is_empty() && text.len() <= TEXT_MAX)
    };
    if let Some(name) = field("record") {
        return Some(Ended::Record { name: name.into() });
    }
    let until: u64 = field("until")?.parse().ok()?;
    (until.saturating_add(FORGIVEN) >= now).then_some(())?;
    Some(Ended::Session {
        provider: field("provider")?.into(),
        session: field("session")?.into(),
        until,
    })
}

fn array(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, fields: &[&str]) -> Value {
        let fields = fields.iter().map(|text| word(text)).collect();
        Value::Array(vec![word(id), Value::Array(fields)])
    }

    const NOW: u64 = 1_000_000;

    fn said(fields: &[&str]) -> Option<Ended> {
        ended(&entry("1-1", fields), NOW)
    }

    #[test]
    fn an_entry_says_what_has_ended() {
        let session = Ended::Session {
            provider: "main".into(),
            session: "s".into(),
            until: NOW + 10,
        };
        let until = (NOW + 10).to_string();
        let fields = ["provider", "main", "session", "s", "until", &until];
        assert_eq!(said(&fields), Some(session.clone()));
        let other_order = [
            "x", "y", "until", &until, "session", "s", "provider", "main",
        ];
        assert_eq!(said(&other_order), Some(session));
        let record = Ended::Record { name: "r".into() };
        assert_eq!(said(&["record", "r"]), Some(record));
    }

    #[test]
    fn what_is_malformed_or_over_says_nothing() {
        let long = "x".repeat(TEXT_MAX + 1);
        let over = (NOW - FORGIVEN - 1).to_string();
        for fields in [
            &[][..],
            &["provider"],
            &["provider", "main", "session", "s"],
            &["provider", "main", "session", "s", "until"],
            &["provider", "main", "session", "s", "until", "soon"],
            &["provider", "main", "session", "s", "until", "-1"],
            &["provider", "main", "session", "", "until", "2000000"],
            &["provider", "main", "session", &long, "until", "2000000"],
            &["provider", "main", "session", "s", "until", &over],
            &["session", "s", "until", "2000000"],
            &["record", ""],
            &["record", &long],
        ] {
            assert_eq!(said(fields), None, "{fields:?}");
        }
        for entry in [
            Value::Nil,
            Value::Int(1),
            Value::Array(Vec::new()),
            Value::Array(vec![word("1-1"), Value::Nil]),
            Value::Array(vec![
                word("1-1"),
                Value::Array(vec![Value::BulkString(vec![0xff]), word("x")]),
            ]),
        ] {
            assert_eq!(ended(&entry, NOW), None, "{entry:?}");
        }
    }

    #[test]
    fn places_are_in_the_order_of_their_numbers() {
        let id = |text: &str| id(&entry(text, &[]));
        assert_eq!(id("10-2"), Some(Id(10, 2)));
        assert!(id("9-9") < id("10-0") && id("10-2") < id("10-10"));
        for text in [
            "",
            "1",
            "-",
            "a-1",
            "1-a",
            "1-1-1",
            "99999999999999999999-0",
        ] {
            assert_eq!(id(text), None, "{text}");
        }
        assert_eq!(Id(10, 2).to_string(), "10-2");
    }

    #[test]
    fn entries_are_found_in_an_answer_or_there_are_none() {
        let answer = |entries| Value::Array(vec![Value::Array(vec![word(STREAM), entries])]);
        let one = entry("1-1", &[]);
        let found = answer(Value::Array(vec![one.clone()]));
        assert_eq!(entries(&found), [one]);
        for nothing in [Value::Nil, Value::Array(Vec::new()), answer(Value::Nil)] {
            assert!(entries(&nothing).is_empty());
        }
    }
    #[test]
    fn what_ends_is_heard_within_a_second() {
        // Told and read in a command each, which Redis may take 250 ms for (`redis.timeout`), just after a reading.
        let command = Duration::from_millis(250);
        assert!(EVERY <= Duration::from_millis(400));
        assert!(command + EVERY + command <= Duration::from_secs(1));
    }
}
