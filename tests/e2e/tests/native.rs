//! Native mode on a real cluster: sets that run under Kubernetes' own controller
//! are taken over and handed back, and while Berth has them, a quick part of
//! upstream's own tests. `cargo upstream-e2e` runs all of those.
//!
//! Berth is installed by the quick start first, as on nodes without disks; then the
//! disks are made pools, and those of the quick start are left out.
//!
//! `BERTH_KEEP=1` leaves the cluster running for a look; `BERTH_E2E_CLUSTER=<name>`
//! runs on a cluster that has Berth's image, and leaves it.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use berth_cluster::{
    Cluster,
    conformance::{self, Choice, Report},
};
use berth_e2e::{
    ctx::Ctx,
    evidence,
    install::{self, Mode},
    rig,
    steps::{
        quick_start,
        takeover::{self, Manager},
    },
    writers::{Tally, Watch},
};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// The ends of the names of upstream's specs that run here.
const SPECS: &[&str] = &[
    "should perform rolling updates and roll backs of template modifications [Conformance]",
    "should perform canary updates and phased rolling updates of template modifications [Conformance]",
    "should adopt matching orphans and release non-matching pods",
    "should have a working scale subresource [Conformance]",
    "should delete PVCs with a OnScaledown policy",
    "Should recreate evicted statefulset [Conformance]",
    "Increasing .start.ordinal",
];

/// Names a cluster to use instead of a new one.
const EXISTING: &str = "BERTH_E2E_CLUSTER";

const QUICK_START: &str = "quick_start_without_disks";
const TAKEN_OVER: &str = "taken_over";
const STANDS_DOWN: &str = "stands_down_for_another_controller";
const HANDED_BACK: &str = "handed_back";
const WRITERS: &str = "berth_alone_made_the_pods";

/// Where the sets are that change hands.
const NAMESPACE: &str = "takeover";

type Outcome = (String, Result<(), String>);

fn main() -> ExitCode {
    berth_cluster::take_role();
    let args = Arguments::from_args();
    let names = [QUICK_START, TAKEN_OVER, STANDS_DOWN, HANDED_BACK, WRITERS]
        .into_iter()
        .chain(SPECS.iter().copied());
    let wanted = names.clone().any(|name| {
        args.filter
            .as_ref()
            .is_none_or(|f| name.contains(f.as_str()))
            && !args.skip.iter().any(|s| name.contains(s.as_str()))
    });
    if args.list || !wanted {
        let list = names.map(|name| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&args, list).exit_code();
    }
    // The stages build on one another, so all run and the harness tells what came of each.
    let outcomes = match run() {
        Ok(outcomes) => outcomes,
        Err(error) => {
            eprintln!("error: the cluster for the tests did not come up or go away: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let trials = outcomes
        .into_iter()
        .map(|(name, outcome)| Trial::test(name, || outcome.map_err(Failed::from)))
        .collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn run() -> Result<Vec<Outcome>> {
    let existing = std::env::var(EXISTING).ok();
    let cluster = match &existing {
        Some(name) => {
            let cluster = Cluster::attach(Some(name))?;
            cluster.set_controllers("*")?;
            cluster
        }
        None => rig::up("n")?,
    };
    let runtime = Runtime::new()?;
    let outcomes = runtime.block_on(async {
        let ctx = Ctx::of(&cluster).await?;
        stages(&ctx, &cluster, existing.is_none()).await
    });
    if existing.is_some() || std::env::var_os("BERTH_KEEP").is_some() {
        eprintln!("kept: cargo cluster --name {} status", cluster.name());
        return outcomes;
    }
    let removed = cluster.remove();
    let outcomes = outcomes?;
    removed?;
    Ok(outcomes)
}

/// Upstream, Berth, upstream: what became of each promise on the way.
///
/// Only the disks of a `fresh` cluster are no pools yet.
async fn stages(ctx: &Ctx, cluster: &Cluster, fresh: bool) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    if fresh {
        outcomes.push(quick_start(ctx).await?);
    } else {
        install::install(ctx, None).await?;
    }
    install::init_all_pools(ctx).await?;
    quick_start::cordon(ctx).await?;
    install::make_default_class(ctx).await?;
    ctx.create_namespace(NAMESPACE).await?;
    let before = takeover::create(ctx, NAMESPACE).await?;

    set_controllers(cluster, "*,-statefulset-controller")?;
    install::install_in(ctx, Mode::NativeStatefulSets, None).await?;
    let outcome = takeover::in_charge(ctx, NAMESPACE, Manager::Berth, 20, &before).await;
    outcomes.push((TAKEN_OVER.to_owned(), told(ctx, NAMESPACE, outcome).await));

    let watch = Watch::start(ctx.client.clone()).await?;
    let report = tokio::task::block_in_place(|| conformance::run(cluster, &choice()))?;
    let tally = watch.stop();
    println!("{report}\n{tally}");
    outcomes.extend(SPECS.iter().map(|name| of_spec(name, &report)));
    let alone = alone(&tally).map_err(|e| format!("{e:#}"));
    outcomes.push((WRITERS.to_owned(), alone));

    let disputed = "disputed";
    ctx.create_namespace(disputed).await?;
    let outcome = takeover::stands_down(ctx, disputed).await;
    outcomes.push((STANDS_DOWN.to_owned(), told(ctx, disputed, outcome).await));

    install::install_in(ctx, Mode::OrdinalSets, None).await?;
    set_controllers(cluster, "*")?;
    let outcome = takeover::in_charge(ctx, NAMESPACE, Manager::Upstream, 30, &before).await;
    outcomes.push((HANDED_BACK.to_owned(), told(ctx, NAMESPACE, outcome).await));
    if outcomes.iter().all(|(_, outcome)| outcome.is_ok()) {
        ctx.delete_namespace(NAMESPACE).await?;
        ctx.delete_namespace(disputed).await?;
    }
    Ok(outcomes)
}

/// Installs Berth as a new user without disks does, before the disks that are there
/// are made pools.
async fn quick_start(ctx: &Ctx) -> Result<Outcome> {
    install::install_in(ctx, Mode::QuickStart, None).await?;
    install::shared_pools(ctx).await?;
    let ns = "quick-start";
    ctx.create_namespace(ns).await?;
    let outcome = quick_start::set_without_disks(ctx, ns).await;
    let outcome = told(ctx, ns, outcome).await;
    if outcome.is_ok() {
        ctx.delete_namespace(ns).await?;
    }
    Ok((QUICK_START.to_owned(), outcome))
}

/// The rig waits by sleeping, which must not hold up the other tasks of this thread.
fn set_controllers(cluster: &Cluster, list: &str) -> Result<()> {
    Ok(tokio::task::block_in_place(|| {
        cluster.set_controllers(list)
    })?)
}

/// The outcome of a stage, with what a person would look at first.
async fn told(ctx: &Ctx, ns: &str, outcome: Result<()>) -> Result<(), String> {
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => Err(format!("{error:#}\n{}", evidence::of(ctx, ns).await)),
    }
}

fn choice() -> Choice {
    let ends: Vec<_> = SPECS.iter().map(|s| conformance::quote(s)).collect();
    Choice {
        processes: SPECS.len(),
        ..Choice::of(format!(r"\[sig-apps\] StatefulSet.*({})$", ends.join("|")))
    }
}

fn of_spec(name: &str, report: &Report) -> Outcome {
    let mut found = report.specs.iter().filter(|s| s.name.ends_with(name));
    let outcome = match found.next() {
        None => Err("upstream has no such spec, or it did not run".to_owned()),
        Some(spec) if spec.state == "passed" => Ok(()),
        Some(spec) => {
            let log = std::fs::read_to_string(&spec.log).unwrap_or_default();
            Err(format!("{}: {}\n{log}", spec.state, spec.failure))
        }
    };
    (name.to_owned(), outcome)
}

fn alone(tally: &Tally) -> Result<()> {
    ensure!(tally.made.keys().eq([Manager::Berth.name()]), "{tally}");
    Ok(())
}
