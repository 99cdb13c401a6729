//! `tollhouse demo`: the gateway, an echo upstream, an identity provider and a page, in one process.

use super::failures::Source;
use super::load::{self, LoadError};
use super::{Outcome, banner, chain, fail, run};
use crate::demo::{self, Listen};
use crate::telemetry::Format;
use clap::Args;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Instant;

/// How many ports after one in use are tried, to name a free one.
const PORTS_TRIED: u16 = 50;

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where the gateway listens, on loopback; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: Listen,
    /// Log each request on a terminal as well
    #[arg(long)]
    log: bool,
    /// Print the configuration of the demo, and stop
    #[arg(long)]
    print_config: bool,
}

impl Demo {
    pub(super) fn execute(self) -> io::Result<Outcome> {
        let began = Instant::now();
        // Tokens name the address, so the port must be known before the first is made. It is free again until the
        // gateway binds it; whoever takes it in between makes that fail.
        let port = match free(self.listen.address()) {
            Ok(port) => port,
            Err(_) if self.print_config && self.listen.address().port() != 0 => {
                self.listen.address().port()
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return self.in_use(),
            Err(error) => return fail(format!("cannot listen on {}: {error}", self.listen)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let running = match runtime.block_on(demo::start(self.listen.with_port(port))) {
            Ok(running) => running,
            Err(error) => return fail(chain(&error)),
        };
        let text = running.file(None);
        if self.print_config {
            io::stdout().write_all(text.as_bytes())?;
            return Ok(Outcome::Fine);
        }
        let mut config = match load::parse(&text, Path::new("(demo)"), BTreeMap::new(), false) {
            Ok(config) => config,
            Err(error @ LoadError::Problems(_)) => return run::report(&error),
            Err(error) => return fail(chain(&error)),
        };
        let quiet = !self.log && io::stdout().is_terminal();
        if quiet {
            // The passwords must stay in sight.
            config.log.access = false;
            config.log.level = tracing::Level::ERROR;
        }
        let (listen, accounts) = (running.listen.clone(), running.accounts.clone());
        let publishable_key = running.keys.publishable.clone();
        // The demo's own servers live on a thread of their own, beside the gateway's.
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let servers = std::thread::Builder::new()
            .name("demo".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let _ = stopped.await;
                    running.stop().await;
                });
            })?;
        let outcome = run::serve(
            config,
            Source {
                text: &text,
                path: Path::new("(demo)"),
            },
            |gateway, format| {
                welcome(&listen, &accounts, &publishable_key, format, quiet)?;
                if format == Format::Json {
                    banner::print(gateway, "demo", format, began)?;
                }
                Ok(())
            },
        );
        drop(stop);
        let _ = servers.join();
        outcome
    }

    fn in_use(&self) -> io::Result<Outcome> {
        let from = self.listen.address().port().saturating_add(1);
        let other = (from..=from.saturating_add(PORTS_TRIED))
            .map(|port| self.listen.with_port(port))
            .find(|listen| free(listen.address()).is_ok())
            .unwrap_or_else(|| self.listen.with_port(0));
        fail(format!(
            "{} is in use by another process; this one is free: tollhouse demo --listen {other}",
            self.listen
        ))
    }
}

/// The port at which nobody listens yet: the one asked for, or for 0 one that the system chooses.
fn free(address: SocketAddr) -> io::Result<u16> {
    Ok(TcpListener::bind(address)?.local_addr()?.port())
}

/// Says what a person needs to begin. Scripts may rely on lines of an address and its password, and on the word that
/// begins with `sb_publishable_`.
fn welcome(
    listen: &Listen,
    accounts: &[demo::Account],
    publishable_key: &str,
    format: Format,
    quiet: bool,
) -> io::Result<()> {
    let (bold, dim, plain) = match format {
        Format::Pretty { colour: true } => ("\x1b[1m", "\x1b[2m", "\x1b[0m"),
        _ => ("", "", ""),
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "\n  {bold}Tollhouse{plain} takes your cookies and hands your backend a Bearer token."
    )?;
    writeln!(
        out,
        "\n  Open {bold}{}{plain} and log in as\n",
        listen.url()
    )?;
    for account in accounts {
        // Spaces on both sides of the password, so that the word is the password where colours are codes, too.
        writeln!(
            out,
            "    {bold}{:<18}  {}  {plain}{dim}({}){plain}",
            account.email,
            account.password.expose(),
            account.role
        )?;
    }
    writeln!(
        out,
        "\n  With both passwords filled in:\n\n    {}/#{}",
        listen.url(),
        fragment(accounts)
    )?;
    writeln!(
        out,
        "\n  {dim}Applications that take it for their Supabase project need its publishable key:{plain}\n\n    \
         {publishable_key}"
    )?;
    writeln!(
        out,
        "\n  For development only: users and keys live in this process and end with it."
    )?;
    if quiet {
        writeln!(
            out,
            "  {dim}Ctrl-C ends it; `tollhouse demo --log` shows each request.{plain}"
        )?;
    }
    writeln!(out)?;
    out.flush()
}

/// `ada=PASSWORD&grace=PASSWORD`: what the page takes the passwords from. Browsers keep what stands behind a `#` to
/// themselves, so no server and no log sees it.
fn fragment(accounts: &[demo::Account]) -> String {
    let word = |account: &demo::Account| {
        let name = account.email.split('@').next().unwrap_or_default();
        format!("{name}={}", account.password.expose())
    };
    accounts.iter().map(word).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_until_somebody_listens_there() {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        assert_ne!(free(anywhere).unwrap(), 0);
        let taken = TcpListener::bind(anywhere).unwrap();
        let error = free(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
