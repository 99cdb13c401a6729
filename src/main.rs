//! Parses arguments, calls `cli`, turns the answer into an exit code.

use clap::Parser;
use std::process::ExitCode;

/// Half the price of the C library's for what a request allocates and frees.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match tollhouse::cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // 0: help and version; 2: wrong usage.
            return if error.use_stderr() {
                ExitCode::from(2)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    tollhouse::cli::main(arguments)
}
