//! `cargo sanity`: csi-sanity against the standalone agent.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use berth_provisioner::Backend;
use berth_sanity::{
    bench,
    inside::Inside,
    outside::{Filesystem, Outside},
};
use clap::{Args, Parser, Subcommand};

/// Runs upstream's csi-sanity against the standalone agent: twice on the same pool,
/// with the agent killed in between. Exit code 0: every spec passed but those that
/// may be skipped, and nothing was left behind. 1: not so. 2: it could not be run.
#[derive(Debug, Parser)]
#[command(name = "sanity", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Inner>,
    /// Filesystem of the pool, made on a loop device
    #[arg(long, value_enum, default_value = "btrfs")]
    filesystem: Filesystem,
    #[command(flatten)]
    what: What,
}

#[derive(Debug, Args)]
struct What {
    /// Backend of the volumes [default: btrfs on btrfs, image elsewhere]
    #[arg(long, value_parser = backend)]
    backend: Option<Backend>,
    /// Raw block volumes instead of mounted ones
    #[arg(long)]
    block: bool,
}

#[derive(Debug, Subcommand)]
enum Inner {
    /// Run on disks that are mounted already, with programs that are built already
    Inside {
        /// The agent's program
        #[arg(long)]
        agent: PathBuf,
        /// The program csi-sanity
        #[arg(long)]
        csi_sanity: PathBuf,
        /// Berth's root: the disks are mounted on directories of its pools/
        #[arg(long)]
        root: PathBuf,
        /// Directory below which volumes are mounted [default: <root>/kubelet]
        #[arg(long)]
        kubelet_dir: Option<PathBuf>,
        /// Backend of the volumes
        #[arg(long, value_parser = backend)]
        backend: Backend,
        /// Raw block volumes instead of mounted ones
        #[arg(long)]
        block: bool,
    },
    /// Measure instead: milliseconds of each CSI call beside the plain operations
    /// that it costs, and the agent's memory, on each backend of this machine
    Bench {
        /// Times that each call is made
        #[arg(long, value_name = "N", default_value_t = 50)]
        rounds: usize,
    },
}

fn backend(name: &str) -> Result<Backend, String> {
    let found = Backend::ALL.into_iter().find(|kind| kind.as_str() == name);
    found.ok_or_else(|| {
        format!(
            "use one of {}",
            Backend::ALL.map(Backend::as_str).join(", ")
        )
    })
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let verdict = match cli.command {
        Some(Inner::Inside {
            agent,
            csi_sanity,
            root,
            kubelet_dir,
            backend,
            block,
        }) => Inside {
            agent,
            csi_sanity,
            kubelet: kubelet_dir.unwrap_or_else(|| root.join("kubelet")),
            root,
            backend,
            block,
        }
        .run()
        .map(Some),
        Some(Inner::Bench { rounds }) => bench::run(rounds).map(|()| None),
        None => Outside {
            filesystem: cli.filesystem,
            // An image is the only thing that is a device.
            backend: cli.what.backend.unwrap_or(match cli.what.block {
                true => Backend::Image,
                false => cli.filesystem.usual_backend(),
            }),
            block: cli.what.block,
        }
        .run()
        .map(Some),
    };
    match verdict {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(verdict)) => {
            print!("{verdict}");
            ExitCode::from(u8::from(!verdict.is_success()))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
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
            "sanity",
            "sanity --filesystem ext4 --backend image --block",
            "sanity inside --agent a --csi-sanity s --root r --backend btrfs --block",
            "sanity bench --rounds 5",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "sanity --filesystem zfs",
            "sanity --backend zfs",
            "sanity inside --root r",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
