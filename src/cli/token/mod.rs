//! `tollhouse token inspect`: why is this token or cookie refused?
//!
//! It comes on standard input and never as an argument, which would stay in the history of the shell. What is printed gives
//! nothing away: no token, no signature, no cookie. Nothing is renewed, and no network is touched unless that is asked for.

mod curl;
mod find;
pub mod input;
mod json;
mod judge;
mod peek;
mod report;
pub mod shell;
mod text;

pub use report::Report;

use super::{File, Outcome, chain, fail, load, run};
use crate::base::clock::Clock;
use crate::base::secret::Secret;
use crate::config::Config;
use crate::redis::Reach;
use crate::snapshot::{CompileError, Ground, Snapshot};
use clap::{Args, Subcommand};
use input::{Given, INPUT_BYTES_MAX, NotRead};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::time::Duration;

/// How long a look may take.
const ONE_LOOK: Duration = Duration::from_secs(60);
/// A line that a terminal hands over has at most so many bytes on Linux: the rest of a longer one is lost.
const TERMINAL_LINE_BYTES: usize = 4095;

#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(super) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say why a token or a session cookie is refused; reads it from standard input
    ///
    /// Takes a token, a Cookie or Authorization field, or a command copied from a browser ("Copy as cURL").
    /// Prints no secret, renews nothing. The exit code is 0 when it would be accepted as a session
    /// cookie or as a Bearer token.
    Inspect(Inspect),
}

#[derive(Debug, Args)]
struct Inspect {
    #[command(flatten)]
    file: File,
    /// Fetch the providers' public keys, so that signatures can be checked, and ask the store of sessions, if there is one
    #[arg(long)]
    online: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// Nothing is read from here: so that a token that is put here is not repeated in an error.
    #[arg(hide = true, trailing_var_arg = true)]
    stray: Vec<OsString>,
}

impl Token {
    pub(super) fn execute(self) -> io::Result<Outcome> {
        match self.command {
            Command::Inspect(inspect) => inspect.execute(),
        }
    }
}

impl Inspect {
    fn execute(self) -> io::Result<Outcome> {
        if !self.stray.is_empty() {
            return misused(
                "a token as an argument stays in the history of your shell; give it on standard input:\n  pbpaste | tollhouse token inspect",
            );
        }
        let loaded = match load::load(&self.file, false) {
            Ok(loaded) => loaded,
            Err(error) => return run::report(&error),
        };
        let (input, cut) = read_input()?;
        let given = match input::read(input.expose()) {
            Ok(given) => given,
            Err(NotRead::Unclosed) if cut => return misused(CUT),
            Err(why) => return misused(&why.to_string()),
        };
        if cut {
            return misused(CUT);
        }
        if !given.has_credential() {
            return misused(if given.cookie_file {
                "`-b` names a file of cookies, which is not read; paste the cookies themselves"
            } else {
                "there is neither a Cookie nor an Authorization field in it"
            });
        }
        let report = match look(loaded.config, Clock::system(), &given, self.online) {
            Ok(report) => report,
            Err(error) => return fail(chain(&error)),
        };
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(out, "{}", report.to_json())?;
        } else {
            write!(out, "{report}")?;
        }
        Ok(if report.is_accepted() {
            Outcome::Fine
        } else {
            Outcome::Failed
        })
    }
}

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum NotLooked {
    /// The file cannot be made live.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The system gives no event queue.
    #[error("this system has no resources left")]
    Runtime(#[source] io::Error),
}

/// Looks at what was given by the rules of a file. Without `online` no network is touched.
pub fn look(
    mut config: Config,
    clock: Clock,
    given: &Given,
    online: bool,
) -> Result<Report, NotLooked> {
    let mut withheld = Vec::new();
    for provider in &mut config.providers {
        let keys = &mut provider.keys.jwks_url;
        withheld.push(!online && keys.is_some());
        if !online {
            *keys = None;
        }
    }
    if let Some(session) = &mut config.session {
        // All that is said of a session is said of the same one, and it is asked for once.
        session.cache_ttl = session.cache_ttl.max(ONE_LOOK);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(NotLooked::Runtime)?;
    let ground = Ground {
        clock,
        control: runtime.handle().clone(),
        workers: 1,
        redis: match online {
            true => Reach::Reading,
            false => Reach::None,
        },
    };
    let snapshot = Snapshot::compile(Arc::new(config), &ground)?;
    Ok(runtime.block_on(judge::judge(&snapshot, given, &withheld, online)))
}

const CUT: &str = "a terminal cuts long lines; use a pipe instead:\n  pbpaste | tollhouse token inspect      (macOS; on Linux: wl-paste or xclip -o -selection clipboard)";

/// What is on standard input, and whether a terminal has cut it.
fn read_input() -> io::Result<(Secret<Vec<u8>>, bool)> {
    let input = io::stdin();
    let terminal = input.is_terminal();
    if terminal {
        writeln!(
            io::stderr(),
            "Paste a token, a Cookie field or a copied curl command, then press Enter and Ctrl-D."
        )?;
    }
    // Room for all of it: growing would leave copies behind.
    let mut bytes = Vec::with_capacity(INPUT_BYTES_MAX + 1);
    let limit = u64::try_from(INPUT_BYTES_MAX + 1).unwrap_or(u64::MAX);
    input.lock().take(limit).read_to_end(&mut bytes)?;
    let cut = terminal
        && bytes
            .split(|byte| *byte == b'\n')
            .any(|line| line.len() >= TERMINAL_LINE_BYTES);
    Ok((Secret::new(bytes), cut))
}

fn misused(why: &str) -> io::Result<Outcome> {
    writeln!(io::stderr(), "error: {why}")?;
    Ok(Outcome::Misused)
}
