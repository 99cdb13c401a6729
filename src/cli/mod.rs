//! The hands: what a person types.

mod banner;
mod check;
mod completions;
mod demo;
mod healthcheck;
mod keygen;
mod load;
mod routes;
mod run;
mod schema;
pub mod token;
mod failures;

pub(crate) use crate::base::cause::chain;
use clap::{Args, Parser, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// Takes your cookies and hands your backend a Bearer token.
#[derive(Debug, Parser)]
#[command(
    name = "tollhouse",
    version,
    about,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway, with a file or with --upstream and --supabase
    Run(run::Run),
    /// See it work with nothing else installed
    Demo(demo::Demo),
    /// Check a configuration and run its [[tests]]; starts nothing
    Check(check::Check),
    /// List the routes in the order in which they match
    Routes(File),
    /// Ask a running gateway whether it is ready; for containers without a shell
    Healthcheck(healthcheck::Healthcheck),
    /// Find out why a token or a session cookie is refused
    Token(token::Token),
    /// Make a sealing key for session.keys, or an API key with its hash; keeps nothing
    Keygen(keygen::Keygen),
    /// Print the JSON Schema of the configuration, for editors
    Schema,
    /// Print the completion script of a shell
    #[command(arg_required_else_help = true)]
    Completions(completions::Completions),
}

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct File {
    /// The file; default: ./tollhouse.toml, ./config/tollhouse.toml, /etc/tollhouse/tollhouse.toml
    /// [env: TOLLHOUSE_CONFIG]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variables for ${…}, as NAME=value lines; the environment's own values win
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1; what went wrong has been said.
    Failed,
    /// Exit code 2; what goes together has been said.
    Misused,
}

/// Does what was typed.
pub fn main(arguments: Arguments) -> ExitCode {
    let result = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::Demo(demo) => demo.execute(),
        Command::Check(check) => check.execute(),
        Command::Routes(file) => routes::execute(&file),
        Command::Healthcheck(healthcheck) => healthcheck.execute(),
        Command::Token(token) => token.execute(),
        Command::Keygen(keygen) => keygen.execute(),
        Command::Schema => schema::execute(),
        Command::Completions(completions) => completions.execute(),
    };
    match result {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::from(1),
        Ok(Outcome::Misused) => ExitCode::from(2),
        // A reader that has gone (`tollhouse routes | head`) is not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(1)
        }
    }
}

/// Says what went wrong.
pub(crate) fn fail(problem: impl std::fmt::Display) -> io::Result<Outcome> {
    writeln!(io::stderr(), "error: {problem}")?;
    Ok(Outcome::Failed)
}
