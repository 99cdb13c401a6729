//! How far a handle reaches: the gateway changes what is there, a tool that explains something only looks, or not even that.

use super::Failure;
use ::redis::{Arg, Cmd};

/// Commands that change nothing.
const READS: [&[u8]; 2] = [b"GET", b"PTTL"];

/// What may be done with Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Nothing is sent and nobody connects: it is away for good.
    None,
    /// What is there is read, and lives no longer for it. Commands that could change something are refused here.
    Reading,
    /// Everything.
    #[default]
    Whole,
}

impl Reach {
    /// Whether commands may be sent. The check of [`Reach::None`] is that there is no connection.
    pub(super) fn allows<'a>(
        self,
        commands: impl IntoIterator<Item = &'a Cmd>,
    ) -> Result<(), Failure> {
        let fine = self != Self::Reading || commands.into_iter().all(reads);
        fine.then_some(()).ok_or_else(changes)
    }

    /// Whether scripts may be run. What one does nobody can tell.
    pub(super) fn allows_scripts(self) -> Result<(), Failure> {
        (self != Self::Reading).then_some(()).ok_or_else(changes)
    }
}

fn reads(command: &Cmd) -> bool {
    matches!(command.args_iter().next(), Some(Arg::Simple(name)) if READS.contains(&name))
}

fn changes() -> Failure {
    Failure::Refused {
        code: "it is only read".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::{cmd, pipe};

    #[test]
    fn who_only_reads_changes_nothing() {
        let get = || cmd("GET").arg("a").clone();
        let mut mixed = pipe();
        mixed.add_command(get()).cmd("PEXPIRE").arg("a").arg(1);
        let mut both = pipe();
        both.add_command(get()).cmd("PTTL").arg("a");
        for (reach, changes) in [(Reach::Whole, true), (Reach::Reading, false)] {
            assert!(reach.allows([&get()]).is_ok());
            assert!(reach.allows(both.cmd_iter()).is_ok());
            assert_eq!(reach.allows(mixed.cmd_iter()).is_ok(), changes);
            for other in ["DEL", "get", "GETDEL", "PEXPIRE", ""] {
                assert_eq!(reach.allows([&cmd(other)]).is_ok(), changes, "{other}");
            }
            assert_eq!(reach.allows_scripts().is_ok(), changes);
        }
    }
}
