//! csi-sanity twice on a pool that is mounted already, with the agent killed in
//! between. Wants two programs and a directory, and builds and mounts nothing.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use berth_provisioner::Backend;
use serde_json::Value;

use crate::{
    daemon::Daemon,
    residue::Residue,
    suite::{Report, Suite},
};

/// How long the kernel may take to let go of what was unmounted.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Inside {
    /// The agent's program.
    pub agent: PathBuf,
    /// The program csi-sanity.
    pub csi_sanity: PathBuf,
    /// Berth's root: each directory of its `pools/` is a mounted disk, and made a
    /// pool if it is none.
    pub root: PathBuf,
    /// The directory below which volumes are mounted.
    pub kubelet: PathBuf,
    /// Backend of the volumes.
    pub backend: Backend,
    /// Raw block volumes instead of mounted ones.
    pub block: bool,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// One report per round.
    pub rounds: Vec<Report>,
    /// What was left behind: volumes, mounts, loop devices, processes.
    pub left: Vec<String>,
    /// Logs of the agent and of csi-sanity.
    pub logs: PathBuf,
}

impl Verdict {
    /// Whether all rounds succeeded and nothing was left behind.
    pub fn is_success(&self) -> bool {
        self.rounds.len() == ROUNDS
            && self.rounds.iter().all(Report::is_success)
            && self.left.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, round) in self.rounds.iter().enumerate() {
            write!(f, "round {}: {round}", n + 1)?;
        }
        for left in &self.left {
            writeln!(f, "left behind: {left}")?;
        }
        if !self.is_success() {
            writeln!(f, "logs are in {}", self.logs.display())?;
        }
        Ok(())
    }
}

/// Times that everything runs on the same pool.
const ROUNDS: usize = 2;

impl Inside {
    /// Runs everything.
    ///
    /// # Errors
    /// What kept it from running; what specs say is in the verdict.
    pub fn run(&self) -> Result<Verdict> {
        std::fs::create_dir_all(&self.kubelet).context("cannot make kubelet's directory")?;
        self.init_pools()?;
        let dirs = [self.root.as_path(), self.kubelet.as_path()];
        let before = Residue::look(&self.agent, &dirs)?;
        // Kept, also when everything went well: it is small, and in a directory for
        // such things.
        let logs = tempfile::Builder::new()
            .prefix("berth-sanity-")
            .tempdir()
            .context("cannot make a directory for logs")?
            .keep();
        let mut verdict = Verdict {
            logs,
            ..Verdict::default()
        };
        for round in 1..=ROUNDS {
            let work = verdict.logs.join(round.to_string());
            std::fs::create_dir_all(&work).context("cannot make a directory for logs")?;
            let (report, daemon) = self.round(&work)?;
            verdict.rounds.push(report);
            if round == ROUNDS {
                daemon.stop()?;
            } else {
                daemon.kill()?;
            }
        }
        verdict.left = self.volumes()?;
        verdict.left.extend(self.settled(&before)?);
        if verdict.is_success() {
            std::fs::remove_dir_all(&verdict.logs).context("cannot remove the logs")?;
        }
        Ok(verdict)
    }

    fn round(&self, work: &Path) -> Result<(Report, Daemon)> {
        let socket = self.kubelet.join("plugins/csi.berth.dev/csi.sock");
        let log = work.join("agent.log");
        let daemon = Daemon::start(&self.agent, &self.root, &self.kubelet, &socket, log)?;
        let report = Suite {
            program: &self.csi_sanity,
            socket: &socket,
            kubelet: &self.kubelet,
            parameters: &parameters(self.backend),
            block: self.block,
            work,
        }
        .run()?;
        Ok((report, daemon))
    }

    /// Makes what is no pool yet one.
    fn init_pools(&self) -> Result<()> {
        let pools = self.ask(&["pools", "--output", "json"])?;
        let pools = pools.as_array().context("the agent lists no pools")?;
        ensure!(
            !pools.is_empty(),
            "there is nothing in {}/pools: mount a disk on a directory there",
            self.root.display()
        );
        for pool in pools {
            if pool["health"]["state"] == "uninitialized" {
                let dir = pool["dir"].as_str().context("a pool without a name")?;
                self.ask(&["pools", "init", dir, "--output", "json"])?;
            }
        }
        Ok(())
    }

    /// The volumes that there are, one line each.
    fn volumes(&self) -> Result<Vec<String>> {
        let volumes = self.ask(&["volumes", "--output", "json"])?;
        let volumes = volumes.as_array().context("the agent lists no volumes")?;
        Ok(volumes
            .iter()
            .map(|v| format!("volume {}", v["id"]))
            .collect())
    }

    /// What is left since `before`, once the kernel has let go of what it will.
    fn settled(&self, before: &Residue) -> Result<Vec<String>> {
        let started = Instant::now();
        loop {
            let dirs = [self.root.as_path(), self.kubelet.as_path()];
            let left = Residue::look(&self.agent, &dirs)?.since(before);
            if left.is_empty() || started.elapsed() > PATIENCE {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the agent's command line answers.
    fn ask(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(&self.agent)
            .args(arguments)
            .env("BERTH_ROOT", &self.root)
            .env("BERTH_KUBELET_DIR", &self.kubelet)
            .output()
            .with_context(|| format!("cannot run {}", self.agent.display()))?;
        ensure!(
            output.status.success(),
            "berth-agent {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        serde_json::from_slice(&output.stdout).context("the agent's answer is no JSON")
    }
}

/// Parameters that ask for a backend.
pub(crate) fn parameters(backend: Backend) -> BTreeMap<&'static str, String> {
    let mut parameters = BTreeMap::from([("backend", backend.to_string())]);
    if backend == Backend::Directory {
        parameters.insert("limit", "none".to_owned());
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_needs_both_rounds_and_leaves_nothing() {
        let good = Report {
            specs: vec![crate::spec::Spec {
                name: "x".to_owned(),
                state: "passed".to_owned(),
                message: String::new(),
            }],
        };
        let verdict = |rounds: &[&Report], left: &[&str]| Verdict {
            rounds: rounds.iter().map(|report| (*report).clone()).collect(),
            left: left.iter().map(|left| (*left).to_owned()).collect(),
            logs: PathBuf::new(),
        };
        assert!(verdict(&[&good, &good], &[]).is_success());
        assert!(!verdict(&[&good], &[]).is_success());
        assert!(!verdict(&[&good, &Report::default()], &[]).is_success());
        assert!(!verdict(&[&good, &good], &["mount /x"]).is_success());
    }

    #[test]
    fn a_plain_directory_is_asked_for_in_full() {
        assert_eq!(parameters(Backend::Directory)["limit"], "none");
        assert!(!parameters(Backend::Image).contains_key("limit"));
    }
}
