//! Entry point: parse, execute, exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match berth_agent::cli::Cli::parse().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // Not 1, which is `check`'s word for findings.
            ExitCode::from(2)
        }
    }
}
