//! A process of a control plane: started with its output in a file, measured by /proc, and
//! killed when it is dropped.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{stat::parse_stat, state::State};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor seconds, user and system.
    pub cpu: f64,
    /// Resident memory now, in KiB.
    pub rss: u64,
    /// The most resident memory since [`Process::forget_peak`], in KiB.
    pub peak: u64,
}

/// A process that runs until it is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to a file of `state`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(state: &State, name: &str, mut command: Command) -> Result<Self> {
        let log = state.dir().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let process = Self {
            name: name.to_owned(),
            child,
            log,
        };
        state.note_process(process.child.id())?;
        Ok(process)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Fails where it has ended by itself, with the end of what it printed.
    ///
    /// # Errors
    /// It has.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let text = fs::read(&self.log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().rev().take(8).collect();
            let last: Vec<&str> = lines.into_iter().rev().collect();
            bail!("{} ended ({status}):\n{}", self.name, last.join("\n"));
        }
        Ok(())
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// It is gone.
    pub fn usage(&self) -> Result<Usage> {
        let dir = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = |file: &str| {
            fs::read_to_string(dir.join(file)).with_context(|| format!("{} is gone", self.name))
        };
        let ticks = parse_stat(&read("stat")?).context("/proc/PID/stat has another form")?;
        let status = read("status")?;
        Ok(Usage {
            cpu: ticks.cpu as f64 / ticks_per_second(),
            rss: kib(&status, "VmRSS:").unwrap_or_default(),
            peak: kib(&status, "VmHWM:").unwrap_or_default(),
        })
    }

    /// The most memory is counted from now on.
    pub fn forget_peak(&self) {
        // Without it the peak is the process's whole life's, which is never less.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ticks_per_second() -> f64 {
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    ticks.ok().flatten().map_or(100.0, |ticks| ticks as f64)
}

fn kib(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::started;

    #[test]
    fn memory_is_in_kib() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(kib(status, "VmHWM:"), Some(2048));
        assert_eq!(kib(status, "VmRSS:"), Some(1024));
        assert_eq!(kib(status, "VmSwap:"), None);
    }

    #[test]
    fn a_process_is_measured_and_ends_with_its_owner() {
        let state = State::make().expect("a directory");
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut process = Process::start(&state, "sleep", command).expect("starts");
        let pid = process.child.id();
        process.check().expect("it runs");
        process.usage().expect("it can be measured");
        assert!(started(pid).is_some());
        drop(process);
        assert_eq!(started(pid), None);
    }

    #[test]
    fn an_end_is_told_with_what_was_printed() {
        let state = State::make().expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let mut process = Process::start(&state, "sh", command).expect("starts");
        process.child.wait().expect("it ends");
        let text = process.check().expect_err("it ended").to_string();
        assert!(
            text.contains("broken") && text.contains("sh ended"),
            "{text}"
        );
    }
}
