//! `cargo upstream-storage`: Kubernetes' own tests of storage drivers (External.Storage),
//! unmodified, against Berth's class.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Result, ensure};
use berth_cluster::{Cluster, Options, conformance::Choice};
use berth_e2e::{
    ctx::Ctx,
    external_storage,
    install::{self, Mode},
    rig,
};
use clap::Parser;
use serde_json::Value;

/// Runs Kubernetes' own end-to-end tests of storage drivers, unmodified, on a cluster with
/// Berth and upstream's snapshot-controller. Specs that upstream skips are listed with its
/// reason.
#[derive(Parser)]
#[command(name = "cargo upstream-storage", version)]
struct Args {
    /// Which specs, a regular expression.
    #[arg(long, default_value = external_storage::FOCUS)]
    focus: String,
    /// Leave out specs whose names contain this; may be repeated.
    #[arg(long)]
    without: Vec<String>,
    /// How many specs run side by side.
    #[arg(long, default_value_t = 6)]
    processes: usize,
    /// A parameter of the class, such as backend=btrfs; may be repeated. Without any, the
    /// class is the one of `deploy`.
    #[arg(long, value_name = "KEY=VALUE")]
    parameter: Vec<String>,
    #[command(flatten)]
    cluster: rig::Which,
    /// Where each spec's log goes.
    #[arg(long, default_value_os_t = std::env::temp_dir().join("berth-upstream-storage"))]
    logs: PathBuf,
}

fn main() -> ExitCode {
    berth_cluster::take_role();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let class = external_storage::class(&args.parameter)?;
    rig::with(
        &args.cluster,
        "s",
        Options::default(),
        async |cluster, fresh| judge(args, &class, cluster, fresh).await,
    )
}

/// Installs, runs the specs and prints what became of them.
async fn judge(args: &Args, class: &Value, cluster: &Cluster, fresh: bool) -> Result<()> {
    let ctx = Ctx::of(cluster).await?;
    install::apply(&ctx, Mode::OrdinalSets).await?;
    external_storage::limit_volumes(&ctx).await?;
    if !fresh {
        install::restart(&ctx).await?;
    }
    install::ready(&ctx).await?;
    install::init_all_pools(&ctx).await?;
    let choice = Choice {
        without: args.without.clone(),
        processes: args.processes,
        ..Choice::of(&args.focus)
    };
    let report = external_storage::run(&ctx, cluster, class, choice, &args.logs).await?;
    println!("\n{report}");
    ensure!(report.is_success(), "not every spec passed");
    Ok(())
}
