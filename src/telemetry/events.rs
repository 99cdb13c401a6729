//! Events of the process (`tracing`) as lines of the log: `ts level msg`, then the event's own fields. Shares the
//! ring and the writer of the access log, so an event never blocks either.

use super::access_log::{AccessLog, Format};
use super::line::{Bounded, JsonLine, VALUE_MAX, escape, push, timestamp};
use crate::base::clock::Clock;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Members an event may have besides its message.
const FIELDS_MAX: usize = 32;

/// Writes each event into the log.
#[derive(Debug)]
pub(super) struct Events {
    log: AccessLog,
    format: Format,
    clock: Clock,
}

impl Events {
    pub(super) fn new(log: AccessLog, format: Format, clock: Clock) -> Self {
        Self { log, format, clock }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut members = Members::default();
        event.record(&mut members);
        let ts = timestamp(self.clock.unix_millis()).to_string();
        let mut out = Vec::with_capacity(256);
        match self.format {
            Format::Json => json(&ts, event, &members, &mut out),
            Format::Pretty { colour } => pretty(&ts, event, &members, colour, &mut out),
        }
        self.log.line(out);
    }
}

#[derive(Default)]
struct Members {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

enum Value {
    Text(String),
    /// Displays as JSON: a number or a boolean.
    Raw(String),
}

impl Members {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text) | Value::Raw(text)) => self.message = text,
            (name, value) if self.fields.len() < FIELDS_MAX => self.fields.push((name, value)),
            _ => {}
        }
    }

    fn text(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.add(field, Value::Text(Bounded::of(value).0));
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Raw(value.to_string()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Raw(value.to_string()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Raw(value.to_string()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.add(field, Value::Raw(value.to_string()));
        } else {
            self.text(field, format_args!("{value}"));
        }
    }

    /// With its causes: `try failed: connection refused`.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = Bounded::of(format_args!("{value}"));
        let mut cause = value.source();
        // Eight are more than any error of ours has; a chain that is a circle ends here.
        for _ in 0..8 {
            let Some(error) = cause else { break };
            if fmt::write(&mut text, format_args!(": {error}")).is_err() {
                break;
            }
            cause = error.source();
        }
        self.add(field, Value::Text(text.0));
    }
}

fn json(ts: &str, event: &Event<'_>, members: &Members, out: &mut Vec<u8>) {
    let level = match *event.metadata().level() {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    };
    let mut line = JsonLine::begin(out);
    line.text("ts", ts);
    line.text("level", level);
    line.text("msg", &members.message);
    line.text("target", event.metadata().target());
    for (name, value) in &members.fields {
        // A name that is there already would make two members of one name.
        let own;
        let name = if matches!(*name, "ts" | "level" | "msg" | "target") {
            own = ["field.", name].concat();
            &own
        } else {
            *name
        };
        match value {
            Value::Text(text) => line.text(name, text),
            Value::Raw(text) => line.raw(name, text),
        }
    }
    line.end();
}

fn pretty(ts: &str, event: &Event<'_>, members: &Members, colour: bool, out: &mut Vec<u8>) {
    let (on, word) = match *event.metadata().level() {
        Level::ERROR => ("\x1b[31m", "ERROR"),
        Level::WARN => ("\x1b[33m", "WARN "),
        Level::INFO => ("\x1b[32m", "INFO "),
        Level::DEBUG => ("\x1b[34m", "DEBUG"),
        Level::TRACE => ("\x1b[35m", "TRACE"),
    };
    let (on, off) = if colour { (on, "\x1b[0m") } else { ("", "") };
    push(
        out,
        format_args!("{} {on}{word}{off} ", ts.get(11..23).unwrap_or(ts)),
    );
    escape(out, &members.message, VALUE_MAX);
    for (name, value) in &members.fields {
        push(out, format_args!(" {name}="));
        match value {
            Value::Text(text) => escape(out, text, VALUE_MAX),
            Value::Raw(text) => push(out, text),
        }
    }
    out.push(b'\n');
}
