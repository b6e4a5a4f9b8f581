//! `cargo bench-volumes`: what a claim costs with Berth and with local-path-provisioner,
//! what a volume costs beside a bare file, and how much memory the programs take. Prints
//! the numbers of one run beside what is aimed at; asserts none.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, ensure};
use berth_cluster::{Cluster, Filesystem, Options, progress};
use berth_e2e::{
    bench::{
        NAMESPACE,
        aims::{self, Aim, Side},
        audit::Log,
        bursts::{self, Burst, System},
        fio,
        io::{self, Amount, Disk, Place},
        local_path, memory,
        stats::percentile,
    },
    ctx::Ctx,
    install, rig,
};
use clap::{Parser, ValueEnum};
use serde_json::json;
use tokio::runtime::Runtime;

/// Measures volumes: claims until their pods run, with Berth and with rancher's
/// local-path-provisioner on the same disks; API writes; fio through volumes and beside
/// them; memory. On a cluster of its own, of the release image.
#[derive(Parser)]
#[command(name = "cargo bench-volumes", version)]
struct Args {
    /// Use the running cluster of this name, with Berth and its pools on it, and leave it
    /// running. Such a cluster has no audit log, so writes are not counted.
    #[arg(long)]
    name: Option<String>,
    /// Leave the cluster running.
    #[arg(long)]
    keep: bool,
    /// Which parts.
    #[arg(long, value_delimiter = ',', default_values_t = [Part::Bursts, Part::Fio, Part::Memory])]
    only: Vec<Part>,
    /// How many claims are made at once, one burst after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 100])]
    bursts: Vec<usize>,
    /// How often each burst and each fio job is repeated.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds of each fio job.
    #[arg(long, default_value_t = 5)]
    fio_seconds: u64,
    /// MiB of each file that fio uses.
    #[arg(long, default_value_t = 256)]
    fio_mib: u64,
    /// How many volumes one node has when memory is looked at, besides none.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 500])]
    volumes: Vec<usize>,
    /// A file for all of it as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A part of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Claims with pods, one and many at once, and who writes how often.
    Bursts,
    /// Reads and writes through volumes, and beside them.
    Fio,
    /// Memory of the agent and the controller.
    Memory,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bursts => "bursts",
            Self::Fio => "fio",
            Self::Memory => "memory",
        })
    }
}

/// Everything that was measured.
#[derive(Default)]
struct Results {
    node: String,
    bursts: Vec<Burst>,
    places: Vec<Place>,
    memory: Vec<memory::Point>,
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
    ensure!(args.repeats > 0, "--repeats 0 measures nothing");
    ensure!(
        args.volumes.is_sorted() && !args.bursts.contains(&0),
        "--volumes has to grow, and a burst has at least one claim"
    );
    if args.only.contains(&Part::Fio) {
        fio::find()?;
    }
    let cluster = match &args.name {
        Some(name) => Cluster::attach(Some(name))?,
        None => rig::up_with(&Options {
            name: Some(Cluster::checkout_name("b")?),
            more_pools: vec![Filesystem::Ext4, Filesystem::Xfs],
            audit: true,
            ..Options::default()
        })?,
    };
    let outcome = Runtime::new()?.block_on(measure(args, &cluster));
    if args.name.is_some() || args.keep {
        println!("kept: cargo cluster --name {} status", cluster.name());
        return outcome;
    }
    let removed = cluster.remove().context("clean-up");
    outcome.and(removed)
}

async fn measure(args: &Args, cluster: &Cluster) -> Result<()> {
    let ctx = Ctx::of(cluster).await?;
    if args.name.is_none() {
        progress::say("installing Berth");
        install::install(&ctx, None).await?;
        install::init_all_pools(&ctx).await?;
    }
    let disks = io::disks(&ctx).await?;
    // Left by a run that was killed.
    clean(&ctx, &disks).await?;
    ctx.create_namespace(NAMESPACE).await?;
    let results = parts(args, &ctx, cluster, &disks).await;
    let cleaned = clean(&ctx, &disks).await;
    let results = results?;
    print(args, &results);
    if let Some(path) = &args.json {
        let all = json!({
            "bursts": bursts::json(&results.bursts),
            "fio": results.places,
            "memory": results.memory,
            "node": results.node,
        });
        fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    cleaned
}

/// Takes everything off the cluster that this program puts on it.
async fn clean(ctx: &Ctx, disks: &[Disk]) -> Result<()> {
    ctx.delete_namespace(NAMESPACE).await?;
    local_path::remove(ctx).await?;
    io::only(ctx, disks, |_| true).await
}

async fn parts(args: &Args, ctx: &Ctx, cluster: &Cluster, disks: &[Disk]) -> Result<Results> {
    let first = disks.first().context("the cluster has no pools")?;
    // Bursts are of one kind of disk, the one that the first pool is of.
    let usual = |disk: &Disk| disk.filesystem == first.filesystem;
    let mut results = Results {
        node: first.node.clone(),
        ..Results::default()
    };
    let log = match cluster.audit_log() {
        Some(path) => Some(Log::open(path)?),
        None => None,
    };
    let mut paths: Vec<_> = disks
        .iter()
        .filter(|d| usual(d))
        .map(|d| d.path.clone())
        .collect();
    paths.sort();
    paths.dedup();
    io::only(ctx, disks, usual).await?;
    // First, on programs that have done nothing yet.
    if args.only.contains(&Part::Memory) {
        results.memory = memory::run(ctx, &results.node, &args.volumes).await?;
        println!("\n{}", memory::table(&results.memory, &results.node));
    }
    let theirs = cluster.log_dir().join("local-path-provisioner.log");
    // Ends with this function.
    let _provisioner = local_path::install(ctx, &paths, &theirs).await?;
    if args.only.contains(&Part::Bursts) {
        results.bursts = bursts::run(ctx, &args.bursts, args.repeats, log).await?;
        println!("\n{}", bursts::tables(&results.bursts, &args.bursts));
    }
    if args.only.contains(&Part::Fio) {
        let amount = Amount {
            mib: args.fio_mib,
            seconds: args.fio_seconds,
            repeats: args.repeats,
        };
        results.places = io::run(ctx, disks, &results.node, amount).await?;
        println!("\n{}", io::table(&results.places));
    }
    Ok(results)
}

/// The aims; the tables were printed as they came.
fn print(args: &Args, results: &Results) {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<_> = load.split(' ').take(3).collect();
    println!(
        "One machine of {cores} cores for all nodes, with a load of {} in the last 1, 5 and 15 \
         minutes; the disks are files behind loop devices.\n",
        load.join(", ")
    );
    println!("{}", aims::table(&aims(args, results)));
}

/// What is aimed at. Nothing fails when it is missed: a busy machine misses all of it.
fn aims(args: &Args, results: &Results) -> Vec<Aim> {
    let mut all = Vec::new();
    let mut add = |title: String, side, aim, measured| {
        all.push(Aim {
            title,
            side,
            aim,
            measured,
        });
    };
    let bursts = &results.bursts;
    for claims in &args.bursts {
        let [ours, theirs] = System::ALL.map(|s| bursts::typical(bursts, s, *claims, false));
        let faster = theirs.zip(ours).map(|(t, o)| t.median / o.median);
        add(
            format!("{claims} at once: Bound, times faster than local-path"),
            Side::AtLeast,
            5.0,
            faster,
        );
        let own = bursts::own(bursts, System::Berth, *claims);
        add(
            format!("{claims} at once: Berth's own share, ms, p50"),
            Side::AtMost,
            100.0,
            percentile(&own, 50),
        );
    }
    let writes = bursts::writes(bursts, System::Berth).map(|counts| counts[0]);
    add(
        "objects that Berth writes per claim".to_owned(),
        Side::AtMost,
        4.0,
        writes,
    );
    for (title, images, aim) in [("images", true, 0.90), ("directories", false, 0.98)] {
        add(
            format!("fio, {title}: least ratio to a bare file"),
            Side::AtLeast,
            aim,
            io::least(&results.places, images),
        );
    }
    add(
        "agent, idle, MiB resident".to_owned(),
        Side::AtMost,
        12.0,
        memory::idle_agent(&results.memory, &results.node),
    );
    all
}
