//! `cargo upstream-e2e`: Kubernetes' own StatefulSet tests, unmodified, on a cluster
//! whose StatefulSets Berth runs.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use berth_cluster::{
    Cluster, Options,
    conformance::{self, Choice, Report},
};
use berth_e2e::{
    ctx::{Ctx, SYSTEM},
    install::{self, Mode},
    rig,
    writers::{Tally, Watch},
};
use clap::Parser;

/// All that upstream tests of StatefulSets.
const FOCUS: &str = r"\[sig-apps\] StatefulSet";

/// Needs images that nobody serves any more.
const WITHOUT: &str = "Deploy clustered applications";

/// Runs Kubernetes' own end-to-end tests of StatefulSets, unmodified, against Berth
/// in native mode: Kubernetes' StatefulSet controller is off, Berth's class is the
/// default one.
#[derive(Parser)]
#[command(name = "cargo upstream-e2e", version)]
struct Args {
    /// Which specs, a regular expression.
    #[arg(long, default_value = FOCUS)]
    focus: String,
    /// How many specs run side by side.
    #[arg(long, default_value_t = 6)]
    processes: usize,
    #[command(flatten)]
    cluster: rig::Which,
    /// The same tests with Kubernetes' own controller on; Berth only stores.
    #[arg(long)]
    under_upstream: bool,
    /// Where each spec's log goes.
    #[arg(long, default_value_os_t = std::env::temp_dir().join("berth-upstream-e2e"))]
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
    let options = Options {
        // The API server drops maxUnavailable without it.
        feature_gates: [("MaxUnavailableStatefulSet".to_owned(), true)].into(),
        kcm_controllers: Some(controllers(args).to_owned()),
        ..Options::default()
    };
    rig::with(&args.cluster, "u", options, async |cluster, fresh| {
        judge(args, cluster, fresh).await
    })
}

fn controllers(args: &Args) -> &'static str {
    if args.under_upstream {
        "*"
    } else {
        "*,-statefulset-controller"
    }
}

/// Installs, runs the specs and prints what became of them.
async fn judge(args: &Args, cluster: &Cluster, fresh: bool) -> Result<()> {
    let ctx = Ctx::of(cluster).await?;
    let (mode, maker) = if args.under_upstream {
        (Mode::OrdinalSets, "kube-controller-manager")
    } else {
        (Mode::NativeStatefulSets, "berth-controller")
    };
    install::apply(&ctx, mode).await?;
    if !fresh {
        cluster.set_controllers(controllers(args))?;
        install::restart(&ctx).await?;
    }
    install::ready(&ctx).await?;
    install::init_all_pools(&ctx).await?;
    install::make_default_class(&ctx).await?;
    let watch = Watch::start(ctx.client.clone()).await?;
    let choice = Choice {
        without: vec![WITHOUT.to_owned()],
        processes: args.processes,
        logs: Some(args.logs.clone()),
        ..Choice::of(&args.focus)
    };
    let report = tokio::task::block_in_place(|| conformance::run(cluster, &choice))?;
    let tally = watch.stop();
    println!("\n{report}");
    println!("kube-controller-manager, from its process:");
    for flag in cluster.controller_manager_flags()? {
        println!("  {flag}");
    }
    println!("{tally}");
    let verdict = verdict(&report, &tally, maker);
    if verdict.is_err() {
        keep_logs(&ctx, args).await?;
    }
    verdict
}

/// Everything passed, and nobody but `maker` made the pods.
fn verdict(report: &Report, tally: &Tally, maker: &str) -> Result<()> {
    ensure!(report.is_success(), "not every spec passed");
    ensure!(
        tally.made.keys().eq([maker]),
        "the pods were to be made by {maker} and nobody else: {tally}"
    );
    Ok(())
}

/// What Berth said meanwhile, beside the logs of the specs.
async fn keep_logs(ctx: &Ctx, args: &Args) -> Result<()> {
    for name in ["berth-controller", "berth-agent"] {
        let label = format!("app.kubernetes.io/name={name}");
        let logs = ["logs", "-l", &label, "--prefix", "--tail=-1"];
        let text = ctx
            .kubectl
            .run(&[&["-n", SYSTEM][..], &logs].concat())
            .await?;
        let file = args.logs.join(format!("{name}.log"));
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    eprintln!("logs: {}", args.logs.display());
    Ok(())
}
