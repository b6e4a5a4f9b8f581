//! Entry point: parse, execute, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match berth_agent::cli::Cli::read().execute() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            // Not 1, which is `check`'s word for findings.
            ExitCode::from(2)
        }
    }
}
