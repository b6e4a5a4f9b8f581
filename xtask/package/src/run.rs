//! Other programs, run to their end.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Runs a program that prints little, demands success and returns its output.
pub(crate) fn stdout(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| xtask::missing(&program))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
