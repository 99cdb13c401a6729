//! The process: binds, spawns, waits. Owns every long-lived task: one current-thread runtime for each worker, and one
//! control runtime for everything that is not a request.

pub mod admin;
mod connection;
mod door;
mod drain;
mod http1;
mod http2;
mod listener;
mod meter;
mod paced;
mod preface;
mod tls;
mod worker;

use crate::base::clock::Clock;
use crate::config::Config;
use crate::config::value::ListenAddr;
use crate::gateway::Keeper;
use crate::redis::Reach;
use crate::session::Session;
use crate::snapshot::{CompileError, Ground, Snapshot};
use crate::telemetry::AccessLog;
use crate::token::ended_elsewhere::{Ended, Hearing};
use admin::{AdminListener, AdminView};
use arc_swap::ArcSwap;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

use door::Door;
pub use drain::Drained;
use drain::State;
pub use listener::BindError;
use listener::{Bound, SocketFile, bind};
pub use tls::TlsError;

/// How long the last lines of the log may take.
const FLUSH: Duration = Duration::from_secs(2);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The configuration cannot be made live.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The system gives no thread or no event queue.
    #[error("the system refuses a thread or an event queue")]
    System(#[from] io::Error),
}

/// The control runtime: a thread of its own for keys, admin, sweeping and drain. Started first, stopped last.
#[derive(Debug)]
pub struct Control {
    handle: Handle,
    stop: tokio_util::sync::CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Starts it.
    pub fn start() -> io::Result<Self> {
        let runtime = runtime()?;
        let handle = runtime.handle().clone();
        let stop = tokio_util::sync::CancellationToken::new();
        let until = stop.clone();
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                runtime.block_on(until.cancelled());
                // A resolver that hangs must not keep the process from ending.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            stop,
            thread: Some(thread),
        })
    }

    /// Where control tasks are spawned.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// How many workers a configuration asks for.
pub fn workers(config: &Config) -> usize {
    match config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}

/// What a configuration is compiled with in this process.
pub fn ground(config: &Config, clock: Clock, control: &Control) -> Ground {
    Ground {
        clock,
        control: control.handle().clone(),
        workers: workers(config),
        redis: Reach::Whole,
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Running {
    /// Where it listens, in the order of `Config::listeners`; ports that were 0 are filled in.
    pub addresses: Vec<ListenAddr>,
    /// Where the admin socket listens.
    pub admin: Option<ListenAddr>,
    /// The configuration in force.
    pub current: Arc<ArcSwap<Snapshot>>,
    /// Socket files that go with the process.
    files: Vec<SocketFile>,
    state: Arc<State>,
    workers: Vec<JoinHandle<()>>,
    access: AccessLog,
    /// What ends elsewhere, while we serve.
    _hearing: Option<Hearing>,
    control: Control,
}

/// Starts to serve a compiled configuration.
pub fn start(
    snapshot: Snapshot,
    access: AccessLog,
    control: Control,
) -> Result<Running, StartError> {
    let config = snapshot.config.clone();
    let clock = snapshot.clock.clone();
    let count = workers(&config);
    // Everything is bound before anything serves: a server listens on all of its addresses or on none.
    let (doors, certificates) = Door::all(&config.listeners)?;
    let mut for_worker: Vec<Vec<(Bound, Door)>> = (0..count).map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for (listener, door) in config.listeners.iter().zip(doors) {
        let (bound, at) = bind(&listener.address, count, config.server.takeover)?;
        for (worker, listener) in for_worker.iter_mut().zip(bound) {
            worker.push((listener, door.clone()));
        }
        addresses.push(at);
    }
    let current = Arc::new(ArcSwap::from_pointee(snapshot));
    let state = Arc::new(State::new(
        &config,
        current.clone(),
        access.clone(),
        clock.clone(),
        certificates.clone(),
    ));
    for certificates in certificates {
        control.handle().spawn(certificates.watch());
    }
    let mut admin = None;
    for (number, wanted) in [&config.admin.listen, &config.admin.probes]
        .into_iter()
        .enumerate()
    {
        let Some(address) = wanted else { continue };
        let listener = control
            .handle()
            .block_on(AdminListener::bind(address, config.server.takeover))
            .map_err(|source| BindError::admin(address, source))?;
        if number == 0 {
            admin = Some(
                listener
                    .local_addr()
                    .map_or_else(|| address.clone(), ListenAddr::Tcp),
            );
        }
        let view: Arc<dyn AdminView> = state.clone();
        control
            .handle()
            .spawn(listener.serve(view, state.ended.clone()));
    }
    control
        .handle()
        .spawn(worker::sweep_limits(current.clone()));
    let hearing = hear(&current);
    let snapshot = current.load();
    if snapshot.session.as_ref().and_then(Session::store).is_some() {
        snapshot
            .tokens
            .renew_with(Some(Arc::new(Keeper::new(&current))));
    }
    drop(snapshot);
    control
        .handle()
        .spawn(worker::sweep_streams(current.clone()));
    let mut threads = Vec::new();
    for (index, listeners) in for_worker.into_iter().enumerate() {
        let runtime = runtime()?;
        let (state, access) = (state.clone(), access.clone());
        threads.push(
            std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    runtime.block_on(worker::run(index, listeners, state, access));
                    runtime.shutdown_background();
                })?,
        );
    }
    Ok(Running {
        files: addresses.iter().filter_map(SocketFile::of).collect(),
        addresses,
        admin,
        current,
        state,
        workers: threads,
        access,
        _hearing: hearing,
        control,
    })
}

/// Sessions that end at one of those who share our Redis end here.
fn hear(current: &Arc<ArcSwap<Snapshot>>) -> Option<Hearing> {
    let snapshot = current.load();
    let redis = snapshot.redis.clone()?;
    let current = current.clone();
    Some(Hearing::start(
        redis,
        snapshot.clock.clone(),
        move |ended| {
            let snapshot = current.load();
            match ended {
                Ended::Session {
                    provider,
                    session,
                    until,
                } => {
                    if let Some(provider) = snapshot.tokens.index(&provider) {
                        snapshot.tokens.end_session(provider, &session, until);
                    }
                }
                Ended::Record { name } => {
                    if let Some(store) = snapshot.session.as_ref().and_then(Session::store) {
                        store.forget(&name);
                    }
                }
            }
        },
    ))
}

impl Running {
    /// Stops: not ready, `drain_delay`, no new connections, what is in flight may finish within `drain_timeout`.
    /// Blocks until everything has ended.
    pub fn stop(mut self) -> Drained {
        let state = self.state.clone();
        let (tell, told) = std::sync::mpsc::channel();
        self.control.handle().spawn(async move {
            let drained = drain::drain(&state).await;
            let _ = tell.send(drained);
        });
        let drained = told.recv().unwrap_or(Drained::Cut(0));
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
        self.files.clear();
        self.access.flush(FLUSH);
        drained
    }
}
