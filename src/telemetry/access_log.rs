//! The way of a line to its sink: a bounded ring and one thread that writes. Never blocks a request: what does not fit
//! is dropped and counted. What a record says is in `record`.

use super::record::{self, Record};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

/// Lines that may wait for the writer.
const RING: usize = 8192;
/// Bytes written at once, about.
const BATCH: usize = 64 * 1024;
/// How long the writer lets lines gather while they keep coming. Nobody wakes it meanwhile, so under load a line
/// costs its sender no system call.
const GATHER: Duration = Duration::from_millis(10);

/// What may be in the ring.
#[expect(
    clippy::large_enum_variant,
    reason = "moved into the ring as it is: no allocation a request"
)]
enum Item {
    Record(Record),
    /// A finished line of somebody else's, with its newline.
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty {
        /// With ANSI colours.
        colour: bool,
    },
}

/// The way to the log. Cheap to clone; when the last handle goes, what waits is written and the thread ends.
#[derive(Clone, Debug)]
pub struct AccessLog {
    sender: SyncSender<Item>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dropped: AtomicU64,
    access: AtomicBool,
    user_id: AtomicBool,
}

impl AccessLog {
    /// Starts the writer's thread.
    pub fn start(format: Format, sink: Box<dyn Write + Send>) -> io::Result<Self> {
        Self::start_with(format, sink, RING)
    }

    fn start_with(format: Format, sink: Box<dyn Write + Send>, ring: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(ring);
        let shared = Arc::new(Shared {
            dropped: AtomicU64::new(0),
            access: AtomicBool::new(true),
            user_id: AtomicBool::new(true),
        });
        let writer = Writer {
            format,
            sink,
            buffer: Vec::with_capacity(BATCH),
            lines: 0,
            shared: shared.clone(),
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, shared })
    }

    /// `log.access` and `log.user_id`, now and at each reload.
    pub fn configure(&self, access: bool, user_id: bool) {
        self.shared.access.store(access, Ordering::Relaxed);
        self.shared.user_id.store(user_id, Ordering::Relaxed);
    }

    /// Whether records are written at all: who asks first need not build them.
    pub fn wants_records(&self) -> bool {
        self.shared.access.load(Ordering::Relaxed)
    }

    /// Hands a record to the writer. Never waits.
    pub fn record(&self, mut record: Record) {
        if !self.wants_records() {
            return;
        }
        if !self.shared.user_id.load(Ordering::Relaxed) {
            record.user_id = None;
        }
        self.send(Item::Record(record));
    }

    /// Hands a finished line, with its newline, to the writer. Never waits.
    pub(super) fn line(&self, line: Vec<u8>) {
        self.send(Item::Line(line));
    }

    fn send(&self, item: Item) {
        if self.sender.try_send(item).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines that were lost since the start: the ring was full, or the sink failed.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything handed over so far is written, at most `patience`; says whether it is. Blocks its
    /// thread: for the end of a drain.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let (sender, done) = sync_channel(1);
        let mut item = Item::Flush(sender);
        loop {
            match self.sender.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) if Instant::now() < deadline => {
                    item = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => return false,
            }
        }
        done.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .is_ok()
    }
}

struct Writer {
    format: Format,
    sink: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, receiver: &Receiver<Item>) {
        while let Ok(first) = receiver.recv() {
            let mut next = Some(first);
            while next.is_some() {
                while let Some(item) = next.take().or_else(|| receiver.try_recv().ok()) {
                    self.take(item);
                }
                self.write();
                std::thread::sleep(GATHER);
                next = receiver.try_recv().ok();
            }
        }
        self.write();
        let _ = self.sink.flush();
    }

    fn take(&mut self, item: Item) {
        match item {
            Item::Record(record) => match self.format {
                Format::Json => record::json(&record, &mut self.buffer),
                Format::Pretty { colour } => record::pretty(&record, colour, &mut self.buffer),
            },
            Item::Line(line) => self.buffer.extend_from_slice(&line),
            Item::Flush(done) => {
                self.write();
                let _ = self.sink.flush();
                let _ = done.try_send(());
                return;
            }
        }
        self.lines += 1;
        if self.buffer.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        if self.lines > 0 && self.sink.write_all(&self.buffer).is_err() {
            self.shared.dropped.fetch_add(self.lines, Ordering::Relaxed);
        }
        self.buffer.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::record::tests::{bare, full};
    use parking_lot::Mutex;
    use std::sync::mpsc::{Sender, channel};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().clone()).unwrap()
        }
    }

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn the_operator_may_leave_out_users_or_all_records() {
        let sink = Sink::default();
        let log = AccessLog::start(Format::Json, Box::new(sink.clone())).unwrap();
        log.configure(true, false);
        log.record(full());
        log.configure(false, true);
        assert!(!log.wants_records());
        log.record(full());
        log.line(b"line\n".to_vec());
        assert!(log.flush(PATIENCE));
        let text = sink.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.contains("user_id"), "{text}");
        assert!(text.ends_with("line\n"), "{text}");
        assert_eq!(log.dropped(), 0);
    }

    /// Says that it was asked to write, then waits to be let go.
    struct Stuck(Sender<()>, Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(());
            let _ = self.1.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_sink_costs_lines_not_requests_and_they_are_counted() {
        let (asked, was_asked) = channel();
        let (let_go, wait) = channel();
        let log = AccessLog::start_with(Format::Json, Box::new(Stuck(asked, wait)), 4).unwrap();
        log.record(bare());
        was_asked.recv().unwrap();
        for _ in 0..7 {
            log.record(bare());
        }
        assert_eq!(log.dropped(), 3);
        assert!(!log.flush(Duration::ZERO));
        drop(let_go);
        assert!(log.flush(PATIENCE));
        assert_eq!(log.dropped(), 3);
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_a_broken_sink_refuses_are_counted() {
        let log = AccessLog::start(Format::Json, Box::new(Broken)).unwrap();
        log.record(bare());
        log.record(bare());
        assert!(log.flush(PATIENCE));
        assert_eq!(log.dropped(), 2);
    }
}
