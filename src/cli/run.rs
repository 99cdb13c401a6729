//! `tollhouse run`: with a file, or with two addresses.

use super::failures::{self, Source};
use super::load::{self, LoadError};
use super::{File, Outcome, banner, chain, fail};
use crate::base::clock::Clock;
use crate::config::Config;
use crate::gateway::rehearse;
use crate::server::{self, Control, Drained, Running};
use crate::snapshot::Snapshot;
use crate::telemetry::{self, Format};
use clap::Args;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    flags: Flags,
    /// Print the configuration that would run, and stop
    #[arg(long)]
    print_config: bool,
}

/// What stands for a file. Each is also read from the environment, where no file is named.
#[derive(Debug, Default, Args)]
struct Flags {
    /// Without a file: the backend [env: TOLLHOUSE_UPSTREAM]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    upstream: Option<String>,
    /// Without a file: the Supabase project [env: TOLLHOUSE_SUPABASE]
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    supabase: Option<String>,
    /// Without a file: the anon or sb_publishable_ key [env: TOLLHOUSE_PUBLISHABLE_KEY]
    #[arg(long, value_name = "KEY", conflicts_with = "config")]
    publishable_key: Option<String>,
    /// Without a file: where to listen [env: TOLLHOUSE_LISTEN]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    listen: Option<String>,
    /// Without a file: paths that need no session [env: TOLLHOUSE_PUBLIC]
    #[arg(long, value_name = "PATH", num_args = 1.., value_delimiter = ',', conflicts_with = "config")]
    public: Vec<String>,
}

impl Flags {
    /// Whether any was typed.
    fn typed(&self) -> bool {
        let one = [
            &self.upstream,
            &self.supabase,
            &self.publishable_key,
            &self.listen,
        ];
        one.into_iter().any(Option::is_some) || !self.public.is_empty()
    }

    /// Fills in from the environment what was not typed.
    fn with_environment(mut self) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        self.upstream = self.upstream.or_else(|| variable("TOLLHOUSE_UPSTREAM"));
        self.supabase = self.supabase.or_else(|| variable("TOLLHOUSE_SUPABASE"));
        self.publishable_key = self
            .publishable_key
            .or_else(|| variable("TOLLHOUSE_PUBLISHABLE_KEY"));
        self.listen = self.listen.or_else(|| variable("TOLLHOUSE_LISTEN"));
        if self.public.is_empty() {
            let paths = variable("TOLLHOUSE_PUBLIC").unwrap_or_default();
            self.public = paths
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|p| !p.is_empty())
                .map(str::to_owned)
                .collect();
        }
        self
    }
}

impl Run {
    pub(super) fn execute(self) -> io::Result<Outcome> {
        let began = Instant::now();
        let typed = self.flags.typed();
        let named = self.file.named().is_some() && !typed;
        let flags = if named {
            Flags::default()
        } else {
            self.flags.with_environment()
        };
        match (&flags.upstream, &flags.supabase) {
            (Some(upstream), Some(supabase)) => {
                let text = flags.written(upstream, supabase);
                let source = Source {
                    text: &text,
                    path: Path::new("(flags)"),
                };
                let config = match load::parse(&text, source.path, BTreeMap::new(), false) {
                    Ok(config) => config,
                    Err(error) => return report(&error),
                };
                if self.print_config {
                    io::stdout().write_all(text.as_bytes())?;
                    return Ok(Outcome::Fine);
                }
                if let Some(file) = load::in_usual_places() {
                    writeln!(
                        io::stderr(),
                        "warning: {} is not read: --upstream and --supabase stand in its place",
                        file.display()
                    )?;
                }
                serve(config, source, |running, format| {
                    banner::print(running, "flags", format, began)
                })
            }
            (None, None) if !typed => match load::load(&self.file, false) {
                Ok(loaded) if self.print_config => {
                    io::stdout().write_all(loaded.text.as_bytes())?;
                    Ok(Outcome::Fine)
                }
                Ok(loaded) => {
                    let source = Source {
                        text: &loaded.text,
                        path: &loaded.path,
                    };
                    let name = loaded.path.display().to_string();
                    if flags.typed() {
                        writeln!(
                            io::stderr(),
                            "warning: TOLLHOUSE_LISTEN, TOLLHOUSE_PUBLIC and TOLLHOUSE_PUBLISHABLE_KEY count only without a file; {name} is read"
                        )?;
                    }
                    serve(loaded.config, source, |running, format| {
                        banner::print(running, &name, format, began)
                    })
                }
                Err(error) => report(&error),
            },
            _ => {
                let file = load::in_usual_places().map_or_else(String::new, |file| {
                    format!(
                        " ({} is there, but flags and a file do not go together)",
                        file.display()
                    )
                });
                fail(format!(
                    "without a file, `run` needs both --upstream URL (your backend) and --supabase URL (your project){file}"
                ))?;
                Ok(Outcome::Misused)
            }
        }
    }
}

impl Flags {
    /// The file that the flags stand for.
    fn written(&self, upstream: &str, supabase: &str) -> String {
        let quoted = |text: &str| toml::Value::String(text.replace("${", "$${")).to_string();
        let mut text = String::from(
            "# Written by `tollhouse run`; save it as tollhouse.toml and go on from there.\n\n",
        );
        if let Some(listen) = &self.listen {
            text.push_str(&format!("[server]\nlisten = {}\n\n", quoted(listen)));
        }
        text.push_str(&format!(
            "[providers.main]\nkind = \"supabase\"\nurl = {}\n",
            quoted(supabase)
        ));
        if let Some(key) = &self.publishable_key {
            text.push_str(&format!("publishable_key = {}\n", quoted(key)));
        }
        text.push_str("\n[session]\nmode = \"shared\"\n");
        text.push_str(&format!("\n[upstreams.app]\nurl = {}\n", quoted(upstream)));
        if !self.public.is_empty() {
            let paths: Vec<_> = self.public.iter().map(|path| quoted(path)).collect();
            text.push_str(&format!(
                "\n[[routes]]\npath = [{}]\nauth = \"public\"\n",
                paths.join(", ")
            ));
        }
        if !self.public.iter().any(|path| path == "/*") {
            text.push_str(
                "\n[[routes]]\npath = \"/*\"        # protected: it needs a session or a token\n",
            );
        }
        text
    }
}

/// Says why there is no configuration.
pub(super) fn report(error: &LoadError) -> io::Result<Outcome> {
    match error {
        LoadError::Problems(problems) => {
            write!(io::stderr(), "{problems}")?;
            Ok(Outcome::Failed)
        }
        other => fail(chain(other)),
    }
}

/// Runs a configuration until a signal ends it. `greet` is called once it listens.
pub(super) fn serve(
    config: Config,
    source: Source<'_>,
    greet: impl FnOnce(&Running, Format) -> io::Result<()>,
) -> io::Result<Outcome> {
    let logs = telemetry::start(&config.log).map_err(io::Error::other)?;
    let config = Arc::new(config);
    let control = Control::start()?;
    let ground = server::ground(&config, Clock::system(), &control);
    let snapshot = match Snapshot::compile(config.clone(), &ground) {
        Ok(snapshot) => snapshot,
        Err(error) => return fail(chain(&error)),
    };
    let failed = control.handle().block_on(rehearse::run(&snapshot));
    if !failed.is_empty() {
        io::stderr().write_all(failures::text(&failed, &snapshot, source).as_bytes())?;
        return Ok(Outcome::Failed);
    }
    // From here on a signal drains, and never kills what has just been accepted.
    let signals = Signals::listen()?;
    let running = match server::start(snapshot, logs.access().clone(), control) {
        Ok(running) => running,
        Err(error) => return fail(chain(&error)),
    };
    let greeted = greet(&running, logs.format());
    if let Err(error) = greeted {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "the start-up message could not be written"
        );
    }
    signals.wait();
    match running.stop() {
        Drained::Clean => Ok(Outcome::Fine),
        Drained::Cut(left) => fail(format!(
            "drain_timeout is over: {left} connections were cut"
        )),
    }
}

/// The signals that end the process.
struct Signals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (terminate, interrupt, hang_up) = {
            let _on = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        Ok(Self {
            runtime,
            terminate,
            interrupt,
            hang_up,
        })
    }

    /// Blocks until SIGTERM or SIGINT. A second one ends the process at once.
    fn wait(mut self) {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => break,
                    _ = self.interrupt.recv() => break,
                    _ = self.hang_up.recv() => {
                        tracing::warn!("SIGHUP does nothing yet: restart to take a changed file over");
                    }
                }
            }
        });
        let _ = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                self.runtime.block_on(async {
                    tokio::select! {
                        _ = self.terminate.recv() => {}
                        _ = self.interrupt.recv() => {}
                    }
                });
                std::process::exit(1);
            });
    }
}
