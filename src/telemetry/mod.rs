//! Eyes: the log's start-up, request ids, metrics, the access log. Knows names and numbers of requests, never their
//! secrets. Field names of the access log are in `record`, names of metrics in `metrics`.

pub mod access_log;
mod events;
mod line;
pub mod metrics;
mod record;
pub mod request_id;

use crate::base::clock::Clock;
use crate::config::server::{Log, LogFormat};
use std::io::{self, IsTerminal};
use std::time::Duration;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

pub use access_log::{AccessLog, Format};
pub use line::timestamp;
pub use metrics::Metrics;
pub use record::Record;
pub use request_id::{RequestIds, Trace};

/// Prefixes of libraries that tell of every frame and connection; only their warnings are news.
const NOISY: [&str; 7] = ["hyper", "h2", "rustls", "tokio", "reqwest", "tower", "mio"];

/// Why the log could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no thread.
    #[error("the log's thread cannot be started")]
    Thread(#[source] io::Error),
    /// Somebody else's subscriber is in place.
    #[error("the log was started before")]
    Twice,
}

/// The running log of the process.
#[derive(Clone, Debug)]
pub struct Logs {
    access: AccessLog,
    filter: reload::Handle<Targets, Registry>,
    format: Format,
}

/// Starts the log: events and records go to standard output, one line each, through one bounded ring. Once a process.
pub fn start(log: &Log) -> Result<Logs, StartError> {
    let terminal = io::stdout().is_terminal();
    let format = match log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Auto if !terminal => Format::Json,
        // https://no-color.org
        LogFormat::Auto | LogFormat::Pretty => Format::Pretty {
            colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        },
    };
    let access = AccessLog::start(format, Box::new(io::stdout())).map_err(StartError::Thread)?;
    access.configure(log.access, log.user_id);
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let events = events::Events::new(access.clone(), format, Clock::system());
    let subscriber = tracing_subscriber::registry().with(filter).with(events);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| StartError::Twice)?;
    Ok(Logs {
        access,
        filter: handle,
        format,
    })
}

impl Logs {
    /// Where records go.
    pub fn access(&self) -> &AccessLog {
        &self.access
    }

    /// How lines look; the start-up message follows it.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Takes over what a reload may change: level, `access`, `user_id`. The format stays.
    pub fn configure(&self, log: &Log) {
        self.access.configure(log.access, log.user_id);
        // Fails only when the subscriber is gone, and it is global.
        let _ = self.filter.reload(targets(log.level));
    }

    /// Waits until all lines so far are written, at most `patience`. Blocks its thread.
    pub fn flush(&self, patience: Duration) -> bool {
        self.access.flush(patience)
    }
}

fn targets(level: Level) -> Targets {
    let noisy = LevelFilter::from_level(level.min(Level::WARN));
    Targets::new()
        .with_default(LevelFilter::from_level(level))
        .with_targets(NOISY.map(|target| (target, noisy)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `tell` leaves in the log.
    fn written(format: Format, level: Level, tell: impl FnOnce()) -> String {
        let sink = Sink::default();
        let log = AccessLog::start(format, Box::new(sink.clone())).unwrap();
        let events = events::Events::new(log.clone(), format, Clock::frozen(1_700_000_000));
        let subscriber = tracing_subscriber::registry()
            .with(targets(level))
            .with(events);
        tracing::subscriber::with_default(subscriber, tell);
        assert!(log.flush(Duration::from_secs(20)));
        let bytes = sink.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_with_the_same_names_as_a_record() {
        let error = io::Error::other("refused");
        let text = written(Format::Json, Level::INFO, || {
            tracing::warn!(
                provider = "main",
                attempt = 2,
                ready = false,
                level = "odd",
                error = &error as &dyn std::error::Error,
                "keys \"gone\"\n"
            );
        });
        assert_eq!(
            text,
            "{\"ts\":\"2023-11-14T22:13:20.000Z\",\"level\":\"warn\",\"msg\":\"keys \\\"gone\\\"\\n\",\
             \"target\":\"tollhouse::telemetry::tests\",\"provider\":\"main\",\"attempt\":2,\"ready\":false,\
             \"field.level\":\"odd\",\"error\":\"refused\"}\n"
        );
    }

    #[test]
    fn for_people_it_is_time_level_message_and_fields() {
        let text = written(Format::Pretty { colour: false }, Level::INFO, || {
            tracing::info!(port = 8080, "listening\u{1b}[2J");
        });
        assert_eq!(text, "22:13:20.000 INFO  listening\\u001b[2J port=8080\n");
    }

    #[test]
    fn the_level_holds_and_libraries_are_heard_only_when_they_warn() {
        let text = written(Format::Pretty { colour: false }, Level::DEBUG, || {
            tracing::debug!("ours");
            tracing::trace!("too fine");
            tracing::info!(target: "hyper::proto", "chatter");
            tracing::warn!(target: "h2", "odd frame");
        });
        let said: Vec<_> = text.lines().map(|l| l[19..].to_owned()).collect();
        assert_eq!(said, ["ours", "odd frame"]);
        let text = written(Format::Json, Level::ERROR, || {
            tracing::warn!(target: "h2", "odd frame");
        });
        assert_eq!(text, "");
    }

    #[test]
    fn a_field_of_any_length_is_cut() {
        let text = written(Format::Json, Level::INFO, || {
            tracing::info!(long = ?vec![1u8; 100_000], "x");
        });
        assert!(text.len() < 3000, "{}", text.len());
        assert!(text.ends_with("…\"}\n"), "{text}");
    }
}
