//! An error with everything behind it, on one line: for logs and for people at a terminal.

use std::error::Error;

/// `error`, then what caused it, and what caused that, with colons between them.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
