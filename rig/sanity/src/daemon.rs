//! The agent as a child process.

use std::{
    fs::File,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{sys::signal::Signal, unistd::Pid};

/// How long the agent may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts the agent on a root, and waits until it listens.
    pub(crate) fn start(
        program: &Path,
        root: &Path,
        kubelet: &Path,
        socket: &Path,
        log: PathBuf,
    ) -> Result<Self> {
        let file = File::create(&log).context("cannot make a log")?;
        let child = Command::new(program)
            .args(["run", "--standalone", "--node-name", "sanity"])
            .args(["--listen-address", "127.0.0.1:0"])
            .arg("--root")
            .arg(root)
            .arg("--kubelet-dir")
            .arg(kubelet)
            .arg("--csi-socket")
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut daemon = Self { child, log };
        let started = Instant::now();
        // The socket of a killed agent refuses, until this one's is in its place.
        while UnixStream::connect(socket).is_err() {
            if let Some(ended) = daemon.child.try_wait()? {
                bail!("the agent ended with {ended}: {}", daemon.last_words());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "the agent does not listen at {}: {}",
                socket.display(),
                daemon.last_words()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Kills it with SIGKILL: it can finish nothing.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill().context("cannot kill the agent")?;
        self.child.wait().context("cannot wait for the agent")?;
        Ok(())
    }

    /// Stops it with SIGTERM; it must end well.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("no process id")?;
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM)
            .context("cannot stop the agent")?;
        let ended = self.child.wait().context("cannot wait for the agent")?;
        ensure!(
            ended.success(),
            "the agent ended with {ended}: {}",
            self.last_words()
        );
        Ok(())
    }

    /// Bytes of memory that it takes now (`VmRSS`, proc_pid_status(5)).
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = format!("/proc/{}/status", self.child.id());
        let text =
            std::fs::read_to_string(&status).with_context(|| format!("cannot read {status}"))?;
        resident(&text).with_context(|| format!("{status} has no VmRSS: the agent has ended"))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// The resident memory in a status of /proc, in bytes.
fn resident(status: &str) -> Option<u64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail once it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_and_not_of_who_has_ended() {
        let status = "Name:\tberth-agent\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n";
        assert_eq!(resident(status), Some(10 << 20));
        assert_eq!(resident("Name:\tberth-agent\nState:\tZ (zombie)\n"), None);
    }
}
