//! `tollhouse check`: is this file right?

use super::failures::{self, Source};
use super::load::{self, LoadError};
use super::{File, Outcome, chain, fail, run};
use crate::base::clock::Clock;
use crate::gateway::rehearse;
use crate::redis::Reach;
use crate::snapshot::{Ground, Snapshot};
use clap::Args;
use serde_json::json;
use std::io::{self, Write};
use std::sync::Arc;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: File,
    /// Unset variables count as set, so that CI needs no secrets
    #[arg(long)]
    placeholders: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn execute(self) -> io::Result<Outcome> {
        let loaded = match load::load(&self.file, self.placeholders) {
            Ok(loaded) => loaded,
            Err(LoadError::Problems(problems)) if self.json => {
                writeln!(
                    io::stdout(),
                    "{}",
                    json!({"ok": false, "problems": problems.to_json()})
                )?;
                return Ok(Outcome::Failed);
            }
            Err(error) if self.json => {
                writeln!(
                    io::stdout(),
                    "{}",
                    json!({"ok": false, "error": chain(&error)})
                )?;
                return Ok(Outcome::Failed);
            }
            Err(error) => return run::report(&error),
        };
        let config = Arc::new(loaded.config);
        // Nothing drives this runtime but the tests, which never wait: what compiling would fetch is not fetched.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let ground = Ground {
            clock: Clock::system(),
            control: runtime.handle().clone(),
            workers: 1,
            redis: Reach::None,
        };
        let compiled = Snapshot::compile(config.clone(), &ground);
        let snapshot = match compiled {
            Ok(snapshot) => snapshot,
            Err(error) => {
                if self.json {
                    let problem =
                        json!({"severity": "error", "id": "compile", "message": chain(&error)});
                    writeln!(
                        io::stdout(),
                        "{}",
                        json!({"ok": false, "problems": [problem]})
                    )?;
                    return Ok(Outcome::Failed);
                }
                return fail(chain(&error));
            }
        };
        let failed = runtime.block_on(rehearse::run(&snapshot));
        if !failed.is_empty() {
            let source = Source {
                text: &loaded.text,
                path: &loaded.path,
            };
            if self.json {
                let problems = failures::json(&failed, &snapshot, source);
                writeln!(
                    io::stdout(),
                    "{}",
                    json!({"ok": false, "problems": problems})
                )?;
            } else {
                io::stderr().write_all(failures::text(&failed, &snapshot, source).as_bytes())?;
            }
            return Ok(Outcome::Failed);
        }
        let routes = config.routes.iter().filter(|route| !route.ours).count();
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(
                out,
                "{}",
                json!({"ok": true, "routes": routes, "tests": config.tests.len(), "warnings": config.problems.to_json()})
            )?;
            return Ok(Outcome::Fine);
        }
        for warning in &config.warnings {
            writeln!(out, "{warning}")?;
        }
        let tests = match config.tests.len() {
            0 => "no [[tests]]".to_owned(),
            n => format!("{n} of {n} [[tests]] passed"),
        };
        writeln!(
            out,
            "{} is right: {}, {}, {tests}",
            loaded.path.display(),
            count(routes, "route"),
            count(config.upstreams.len(), "upstream")
        )?;
        Ok(Outcome::Fine)
    }
}

/// `1 route`, `2 routes`.
fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
