//! What becomes of a command.

use std::io;
use std::process::ExitStatus;

/// Why a command did not succeed.
pub(crate) enum Failure {
    /// A program that this one ran has said why; its exit code.
    Said(i32),
    /// A sentence.
    Told(String),
}

pub(crate) type Outcome = Result<(), Failure>;

/// What became of a program.
pub(crate) fn done(status: io::Result<ExitStatus>, program: &str) -> Outcome {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::Said(status.code().unwrap_or(1))),
        Err(error) => Err(Failure::Told(format!("cannot start {program}: {error}"))),
    }
}
