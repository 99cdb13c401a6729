//! `tollhouse schema`: the JSON Schema of the file, for editors.

use super::Outcome;
use crate::config::schema;
use std::io::{self, Write};

/// Prints it.
pub(super) fn execute() -> io::Result<Outcome> {
    writeln!(io::stdout(), "{:#}", schema::document())?;
    Ok(Outcome::Fine)
}
