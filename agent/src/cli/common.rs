//! What every command but the daemon shares: where the disks are, and how results
//! are printed.

use std::{io::Write, path::PathBuf};

use anyhow::Context;
use berth_provisioner::{Config, Provisioner};
use clap::{Args, ValueEnum};

/// What every command for people takes.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Directory that holds Berth's pools
    #[arg(long, env = "BERTH_ROOT", default_value = "/var/lib/berth")]
    pub(super) root: PathBuf,
    /// Kubelet's directory, to tell whose mounts are whose
    #[arg(long, env = "BERTH_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: every field, sizes in bytes
    Json,
}

impl Common {
    pub(super) fn config(&self) -> Config {
        Config {
            root: self.root.clone(),
            kubelet_dir: self.kubelet_dir.clone(),
            allow_root_fs: false,
            create_pools: false,
        }
    }

    /// Looks at the disks without changing or locking anything.
    pub(super) fn inspect(&self) -> anyhow::Result<Provisioner> {
        Provisioner::inspect(self.config())
            .with_context(|| format!("cannot look at {}", self.root.display()))
    }

    pub(super) fn print<T: serde::Serialize + ?Sized>(
        &self,
        result: &T,
        table: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        let mut text = match self.output {
            Output::Table => table(result),
            Output::Json => serde_json::to_string_pretty(result)?,
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        match std::io::stdout().write_all(text.as_bytes()) {
            // `berth-agent volumes | head` is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            result => Ok(result?),
        }
    }
}
