//! Other programs, run so that a failure says which command failed and what it
//! printed last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// How much of a failed program's output an error carries, in bytes.
const TAIL: usize = 2000;

/// A command to be run to its end.
#[derive(Debug)]
pub struct Run {
    command: Command,
}

impl Run {
    /// A command that runs `program`, found on the path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets environment variables.
    pub fn envs(mut self, vars: &[(String, String)]) -> Self {
        self.command.envs(vars.iter().map(|(k, v)| (k, v)));
        self
    }

    /// Sets the working directory.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Reads standard input from a file.
    pub fn stdin_file(mut self, path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("cannot open", path))?;
        self.command.stdin(file);
        Ok(self)
    }

    /// Runs it and returns whatever it printed and however it ended.
    pub fn output(mut self) -> Result<Output> {
        self.command.output().map_err(|e| self.not_started(&e))
    }

    /// Runs it, demands success, and returns its standard output.
    pub fn stdout(mut self) -> Result<String> {
        let output = self.command.output().map_err(|e| self.not_started(&e))?;
        self.check(&output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with `input` on its standard input and demands success.
    pub fn feed(mut self, input: &[u8]) -> Result<String> {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| self.not_started(&e))?;
        if let Some(mut pipe) = child.stdin.take() {
            // A program that ends without reading shows that by its status.
            let _ = pipe.write_all(input);
        }
        let output = child.wait_with_output().map_err(|e| self.not_started(&e))?;
        self.check(&output)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it with its output in a file and demands success.
    pub fn logged(mut self, log: &Path) -> Result<()> {
        let file = File::create(log).map_err(Error::io("cannot create", log))?;
        let second = file.try_clone().map_err(Error::io("cannot share", log))?;
        let status = self
            .command
            .stdout(file)
            .stderr(second)
            .status()
            .map_err(|e| self.not_started(&e))?;
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read(log).unwrap_or_default();
        Err(self.failed(&status.to_string(), &tail(&text)))
    }

    /// Takes the place of this program; returns only if that fails.
    pub fn exec(mut self) -> Error {
        use std::os::unix::process::CommandExt;
        let error = self.command.stdin(Stdio::inherit()).exec();
        self.not_started(&error)
    }

    /// Gives the command away, for a caller that pipes it.
    pub fn into_command(self) -> Command {
        self.command
    }

    fn check(&self, output: &Output) -> Result<()> {
        if output.status.success() {
            return Ok(());
        }
        let mut text = output.stdout.clone();
        text.extend_from_slice(&output.stderr);
        Err(self.failed(&output.status.to_string(), &tail(&text)))
    }

    fn failed(&self, status: &str, output: &str) -> Error {
        Error::Command {
            program: self.command.get_program().to_string_lossy().into_owned(),
            status: status.to_owned(),
            output: output.to_owned(),
            command: self.line(),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> Error {
        self.failed("not started", &error.to_string())
    }

    fn line(&self) -> String {
        std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(|w| w.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// The end of a program's output, on a character boundary.
fn tail(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    let mut from = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

/// Whether `program` is found on the path.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(program).is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_quotes_its_output() {
        let error = Run::new("sh")
            .args(["-c", "echo broken >&2; exit 3"])
            .stdout();
        let text = error.unwrap_err().to_string();
        assert!(text.contains("broken") && text.contains("sh -c"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let text = Run::new("no-such-program-here")
            .stdout()
            .unwrap_err()
            .to_string();
        assert!(text.contains("no-such-program-here"), "{text}");
    }

    #[test]
    fn a_long_output_is_cut_at_its_front() {
        let text = "ä".repeat(TAIL) + "end";
        let cut = tail(text.as_bytes());
        assert!(cut.len() <= TAIL && cut.ends_with("end"));
    }

    #[test]
    fn input_reaches_the_program() {
        assert_eq!(Run::new("cat").feed(b"abc").unwrap(), "abc");
    }
}
