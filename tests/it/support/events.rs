//! What the log is told on one thread, a line each; nothing of it is for debugging.
//!
//! One subscriber serves the whole process: of those that come and go with a thread, one misses what was first said on
//! another thread (tracing keeps for each place in the code whether anybody wants to hear of it).

use parking_lot::Mutex;
use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Once};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

thread_local! {
    static LISTENS: RefCell<Option<Events>> = const { RefCell::new(None) };
}

/// Lines that were heard.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<String>>);

/// Hears for as long as it lives.
pub struct Listening(());

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.set(None);
    }
}

impl Events {
    /// Hears what is said on this thread.
    pub fn listen(&self) -> Listening {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let subscriber = tracing_subscriber::registry()
                .with(LevelFilter::INFO)
                .with(OfThread);
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        LISTENS.set(Some(self.clone()));
        Listening(())
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines().map(str::to_owned).collect()
    }
}

struct OfThread;

impl<S: tracing::Subscriber> Layer<S> for OfThread {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        LISTENS.with_borrow(|listens| {
            if let Some(events) = listens {
                let mut lines = events.0.lock();
                event.record(&mut Fields(&mut lines));
                lines.push('\n');
            }
        });
    }
}

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}
