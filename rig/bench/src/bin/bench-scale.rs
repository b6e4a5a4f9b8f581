//! `cargo bench-scale`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use berth_bench::{
    case::Case,
    contender::{Contender, Limits, Side},
    measure,
    report::Report,
    state,
};
use berth_cluster::{programs, progress};
use berth_package::Arch;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Measures upstream's StatefulSet controller and Berth's on equal control planes: etcd,
/// API server, scheduler and the rest of kube-controller-manager as processes on loopback,
/// with nodes that kwok plays, fresh for each measurement. Prints tables; asserts nothing.
#[derive(Debug, Parser)]
#[command(name = "cargo bench-scale", version)]
struct Args {
    /// What to measure: parallel-PODS, ordered-PODS, rolling-PODS-by-MAXUNAVAILABLE (with
    /// -ordered of an OrderedReady set), sets-SETSxPODS, cold-SETSxPODS,
    /// idle-PODS-for-SECONDS; several with commas.
    #[arg(long, value_delimiter = ',', value_name = "CASE")]
    only: Vec<Case>,
    /// Limits of the API's clients, the same on all sides.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["default", "raised"])]
    limits: Vec<Limits>,
    /// Who is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["upstream", "berth"])]
    sides: Vec<Side>,
    /// How often; tables show the median and the ends.
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    repeats: u32,
    /// Every case at both limits, three times: some hours.
    #[arg(long, conflicts_with_all = ["only", "repeats"])]
    full: bool,
    /// Nodes of each control plane.
    #[arg(long, default_value_t = 50)]
    nodes: usize,
    /// Berth's controller; built for release when absent.
    #[arg(long, value_name = "FILE")]
    controller: Option<PathBuf>,
    /// Keep the logs of every control plane, the API server's audit log among them.
    #[arg(long)]
    keep: bool,
    /// Every measurement goes into this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn cases(&self, limits: Limits) -> Vec<Case> {
        if self.full {
            return Case::FULL.to_vec();
        }
        if !self.only.is_empty() {
            return self.only.clone();
        }
        let mut cases = Case::DEFAULT.to_vec();
        if limits == Limits::Raised {
            cases.extend(Case::DEFAULT_RAISED);
        }
        cases
    }

    fn repeats(&self) -> u32 {
        if self.full { 3 } else { self.repeats }
    }
}

fn main() -> ExitCode {
    berth_cluster::take_role();
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let removed = state::remove_leftovers()?;
    if removed > 0 {
        progress::say(format!("removed what {removed} killed control planes left"));
    }
    let programs = programs::control_plane()?;
    let controller = match &args.controller {
        Some(path) => path.clone(),
        None => berth_package::programs::build(Arch::here()?, false)?.controller,
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let mut report = Report::default();
    let outcome = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        // What is dropped here ends every process.
        tokio::select! {
            outcome = measure_all(args, &programs, controller, &mut report) => outcome,
            _ = interrupt.recv() => bail!("interrupted"),
            _ = terminate.recv() => bail!("stopped"),
        }
    });
    println!("{}", report.table());
    println!("\nWrites of the controllers, by kind:\n{}", report.writes());
    println!("Aims, beside what was measured:\n{}", report.aims());
    if let Some(file) = &args.json {
        let rows = serde_json::to_vec_pretty(&report.rows())?;
        std::fs::write(file, rows).with_context(|| format!("cannot write {}", file.display()))?;
    }
    outcome
}

async fn measure_all(
    args: &Args,
    programs: &programs::ControlPlanePrograms,
    controller: PathBuf,
    report: &mut Report,
) -> Result<()> {
    for _ in 0..args.repeats() {
        for &limits in &args.limits {
            for case in args.cases(limits) {
                for &side in &args.sides {
                    let how = Contender {
                        side,
                        limits,
                        controller: controller.clone(),
                    };
                    let name = format!("{case}, {} limits, {}", limits.name(), side.name());
                    progress::say(&name);
                    let figures = measure::run(case, how, programs, args.nodes, args.keep).await;
                    let figures = figures.with_context(|| name.clone())?;
                    progress::say(format!(
                        "{name}: {:.1} s, {} writes, {:.1} CPU s, {:.0} MiB",
                        figures.seconds,
                        figures.writes.own(),
                        figures.cpu,
                        figures.peak
                    ));
                    report.add(limits, case, side, figures);
                }
            }
        }
    }
    Ok(())
}
