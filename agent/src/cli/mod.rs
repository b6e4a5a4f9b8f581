//! The command line: the daemon, and what people use on a node. The latter works
//! from the disks alone, so it works without the API server, beside a running
//! agent, and from the copy on the host.

mod check;
mod common;
mod inspect;
mod ls;
mod pools;
mod table;
mod volumes;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use self::common::Common;
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
    /// List the names in directories, such as /var/lib/berth/by-claim/<namespace>/<claim>
    Ls {
        /// Directories; links to them are followed
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
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

impl Cli {
    /// Reads the command line; a program called `ls` is `berth-agent ls`.
    pub fn read() -> Self {
        Self::parse_from(arguments(std::env::args_os()))
    }

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
            Command::Ls { paths } => ls::list(&paths),
            Command::Check(common) => check::check(&common),
        }
    }
}

/// The arguments, with the subcommand that a name of the program stands for.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<_> = given.collect();
    let name = all.first().map(PathBuf::from);
    if name.is_some_and(|name| name.file_name().is_some_and(|name| name == "ls")) {
        all.insert(1, "ls".into());
    }
    all
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
