//! The command line: the daemon, and what people use on a node. The latter works
//! from the disks alone, so it works without the API server, beside a running
//! agent, and from the copy on the host.

mod check;
mod inspect;
mod pools;
mod table;
mod volumes;

use std::{io::Write, path::PathBuf, process::ExitCode};

use anyhow::Context;
use berth_provisioner::{Config, Provisioner};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::run::RunArgs;

/// Berth's agent: serves this node's disks to pods, and shows what is on them.
///
/// Each directory under /var/lib/berth/pools is a pool, once `pools init` has
/// been run on it. A volume is an ordinary directory, or an image file; by-claim links
/// lead to it: ls /var/lib/berth/by-claim/<namespace>/<claim>.
#[derive(Debug, Parser)]
#[command(name = "berth-agent", version = berth_telemetry::version())]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve this node's pools to Kubernetes (the DaemonSet's command), or with
    /// --standalone to whoever speaks CSI
    Run(RunArgs),
    /// List the pools of this node, or make new ones
    Pools(PoolsArgs),
    /// List the volumes on this node, with their set, claim, size and place
    Volumes(Common),
    /// Show all that is known of one volume
    Inspect {
        /// Volume id (pvc-…) or claim (namespace/name)
        #[arg(value_name = "VOLUME|NAMESPACE/CLAIM")]
        volume: String,
        #[command(flatten)]
        common: Common,
    },
    /// Compare records, data, links and mounts; change nothing
    ///
    /// Exit code 0: all is as it should be. 1: there are findings. 2: the check
    /// itself failed.
    Check(Common),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
struct PoolsArgs {
    #[command(subcommand)]
    command: Option<PoolsCommand>,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum PoolsCommand {
    /// Make pools of directories under <root>/pools
    ///
    /// The directory must be a mount point of a supported filesystem, and empty.
    /// Without a disk to spare, --allow-root-fs and --capacity make a pool on the
    /// node's own filesystem.
    /// A running agent notices the new pool by itself.
    Init(pools::InitArgs),
}

/// What every command for people takes.
#[derive(Debug, Args)]
struct Common {
    /// Directory that holds Berth's pools
    #[arg(long, env = "BERTH_ROOT", default_value = "/var/lib/berth")]
    root: PathBuf,
    /// Kubelet's directory, to tell whose mounts are whose
    #[arg(long, env = "BERTH_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// How to print
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs: every field, sizes in bytes
    Json,
}

impl Common {
    fn config(&self) -> Config {
        Config {
            root: self.root.clone(),
            kubelet_dir: self.kubelet_dir.clone(),
            allow_root_fs: false,
            create_pools: false,
        }
    }

    /// Looks at the disks without changing or locking anything.
    fn inspect(&self) -> anyhow::Result<Provisioner> {
        Provisioner::inspect(self.config())
            .with_context(|| format!("cannot look at {}", self.root.display()))
    }

    fn print<T: serde::Serialize + ?Sized>(
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

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// Whatever went wrong, to be shown with its causes.
    pub fn execute(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Run(args) => crate::run::main(args).map(|()| ExitCode::SUCCESS),
            Command::Pools(PoolsArgs {
                command: Some(PoolsCommand::Init(args)),
                ..
            }) => pools::init(&args),
            Command::Pools(PoolsArgs { common, .. }) => pools::list(&common),
            Command::Volumes(common) => volumes::list(&common),
            Command::Inspect { volume, common } => inspect::show(&volume, &common),
            Command::Check(common) => check::check(&common),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
        for line in [
            "berth-agent pools",
            "berth-agent pools --output json --root /x",
            "berth-agent pools init disk0 --capacity 10Gi",
            "berth-agent pools init --all",
            "berth-agent volumes -o json",
            "berth-agent inspect shop/data-web-0",
            "berth-agent check",
            "berth-agent pools init shared --allow-root-fs --capacity 20Gi",
            "berth-agent run --node-name n1 --create-pools",
            "berth-agent run --standalone",
            "berth-agent run --standalone --node-name n1 --csi-socket /s",
            "berth-agent run --node-name n1 --shared-pool shared=20Gi",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "berth-agent",
            "berth-agent pools init",
            "berth-agent pools init disk0 --all",
            "berth-agent pools init disk0 --capacity lots",
            "berth-agent pools init shared --allow-root-fs",
            "berth-agent run --node-name n1 --shared-pool 20Gi",
            "berth-agent run --standalone --shared-pool shared=20Gi",
            "berth-agent inspect",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
