//! `tollhouse completions`: what a shell needs to complete our commands and flags.

use super::{Arguments, Outcome};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::{self, Write};

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell to write for
    shell: Shell,
}

impl Completions {
    pub(super) fn execute(&self) -> io::Result<Outcome> {
        io::stdout().write_all(&script(self.shell))?;
        Ok(Outcome::Fine)
    }
}

/// Written to memory first: the generator panics where a reader has gone.
fn script(shell: Shell) -> Vec<u8> {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn the_script_of_each_shell_names_every_command() {
        let shells = Shell::value_variants();
        assert_eq!(shells.len(), 5);
        for shell in shells {
            let script = String::from_utf8(script(*shell)).unwrap();
            let command = Arguments::command();
            let names = command.get_subcommands().map(clap::Command::get_name);
            let missing: Vec<_> = names.filter(|name| !script.contains(name)).collect();
            assert!(missing.is_empty(), "{shell}: {missing:?}");
            assert!(script.contains("placeholders"), "{shell}");
        }
    }
}
