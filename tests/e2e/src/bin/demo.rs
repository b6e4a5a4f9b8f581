//! `cargo demo`: Berth on a real cluster, from nothing to a proof, and away again.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use berth_cluster::Cluster;
use berth_e2e::{
    ctx::Ctx,
    install::{self, Mode},
    kubectl::Kubectl,
    rig,
    story::{NAMESPACE, Story},
};
use clap::Parser;
use tokio::runtime::Runtime;

/// Brings up a real Kubernetes cluster on this machine, installs Berth, runs a set
/// of three replicas on three disks, proves that the data survives, and cleans up.
#[derive(Parser)]
#[command(name = "cargo demo", version)]
struct Args {
    /// Leave the cluster running, and say what to try next.
    #[arg(long)]
    keep: bool,
    /// Without disks: install deploy/quick-start, which makes a pool on each node's own
    /// filesystem. The cluster is a plain one then.
    #[arg(long)]
    quick_start: bool,
    /// Use this existing cluster instead (any kind, k3s); nodes are not killed there.
    #[arg(long, value_name = "FILE", requires = "image")]
    kubeconfig: Option<PathBuf>,
    /// With --kubeconfig: the image of Berth that the cluster's nodes have or can pull.
    #[arg(long, value_name = "REF", requires = "kubeconfig")]
    image: Option<String>,
    /// With --kubeconfig: the kubectl to use.
    #[arg(long, value_name = "PROGRAM", default_value = "kubectl")]
    kubectl: PathBuf,
    /// Also write what is printed to this file, if all proofs hold.
    #[arg(long, value_name = "FILE", conflicts_with = "keep")]
    transcript: Option<PathBuf>,
}

fn main() -> ExitCode {
    berth_cluster::take_role();
    let args = Args::parse();
    if let Some(file) = &args.transcript {
        return match record(file) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("\nerror: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let start = Instant::now();
    let outcome =
        Runtime::new()
            .context("cannot start")
            .and_then(|runtime| match &args.kubeconfig {
                Some(kubeconfig) => runtime.block_on(existing(&args, kubeconfig.clone())),
                None => own(&args, &runtime),
            });
    match outcome {
        Ok(()) => {
            println!("\nAll proofs hold ({} s).", start.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the same demo as a process of its own and keeps what it prints. That way
/// the transcript is what a person would have seen, whoever printed it.
fn record(file: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut child = Command::new(program)
        .args(without_transcript(std::env::args_os().skip(1)))
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the demo")?;
    let output = child.stdout.take().context("the demo has no output")?;
    let mut transcript = String::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what the demo prints")?;
        writeln!(io::stdout(), "{line}")?;
        // Tables are padded; nobody sees that in a file.
        transcript.push_str(line.trim_end());
        transcript.push('\n');
    }
    let ended = child.wait().context("cannot wait for the demo")?;
    ensure!(
        ended.success(),
        "the demo failed; {} is left as it was",
        file.display()
    );
    fs::write(file, transcript).with_context(|| format!("cannot write {}", file.display()))
}

/// The arguments without `--transcript` and its value.
fn without_transcript(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        if arg == "--transcript" {
            args.next();
        } else if !arg.to_string_lossy().starts_with("--transcript=") {
            kept.push(arg);
        }
    }
    kept
}

fn own(args: &Args, runtime: &Runtime) -> Result<()> {
    println!(
        "A real Kubernetes cluster on this machine: one control plane, three workers, {}.",
        if args.quick_start {
            "no disks to spare"
        } else {
            "two disks each"
        }
    );
    println!(
        "{}",
        berth_cluster::preflight::judge(&berth_cluster::preflight::look()).plan
    );
    let cluster = if args.quick_start {
        rig::up_plain("q")?
    } else {
        rig::up("d")?
    };
    let outcome = runtime.block_on(async {
        let ctx = Ctx::of(&cluster).await?;
        install_step(&ctx, args, None).await?;
        tell(&ctx, Some(&cluster)).await
    });
    if args.keep {
        let name = cluster.name();
        println!("\nThe cluster is kept. Try:");
        println!("  cargo cluster --name {name} kubectl -- -n {NAMESPACE} get oset,pods,pvc");
        println!("  cargo cluster --name {name} kubectl -- describe bpool");
        println!("  cargo cluster --name {name} down");
        return outcome;
    }
    cluster.remove().context("clean-up")?;
    println!("\nCleaned up: the cluster, its disks and its networks are gone.");
    outcome
}

async fn existing(args: &Args, kubeconfig: PathBuf) -> Result<()> {
    println!(
        "Installs Berth on the cluster of {} and runs a set in namespace {NAMESPACE}.",
        kubeconfig.display()
    );
    println!("Left out here: killing a node. Berth stays installed; the set is removed.");
    let ctx = Ctx::connect(Kubectl::new(&args.kubectl, kubeconfig)).await?;
    install_step(&ctx, args, args.image.as_deref()).await?;
    let outcome = tell(&ctx, None).await;
    if !args.keep {
        ctx.delete_namespace(NAMESPACE).await?;
    }
    outcome
}

async fn install_step(ctx: &Ctx, args: &Args, image: Option<&str>) -> Result<()> {
    let mode = if args.quick_start {
        Mode::QuickStart
    } else {
        Mode::OrdinalSets
    };
    println!("\nInstalling Berth");
    println!(
        "   $ kubectl apply -k deploy/crds && kubectl apply -k {}",
        mode.path()
    );
    install::install_in(ctx, mode, image).await?;
    if args.quick_start {
        for node in install::shared_pools(ctx).await? {
            println!("   {node}: has a pool on its own filesystem");
        }
        return Ok(());
    }
    println!("   $ berth-agent pools init --all     (on each node with disks)");
    for node in install::init_all_pools(ctx).await? {
        println!("   {node}: ready");
    }
    Ok(())
}

async fn tell(ctx: &Ctx, cluster: Option<&Cluster>) -> Result<()> {
    ctx.create_namespace(NAMESPACE).await?;
    let mut story = Story::new(ctx);
    story.three_replicas().await?;
    story.peers().await?;
    story.write().await?;
    story.delete_pod().await?;
    story.scale().await?;
    if let Some(cluster) = cluster {
        story.node_crash(cluster).await?;
    }
    story.on_the_node().await?;
    story.picture().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recorded_demo_records_nothing_itself() {
        let kept = |line: &str| {
            let args = line.split(' ').map(OsString::from);
            let kept: Vec<_> = without_transcript(args)
                .into_iter()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect();
            kept.join(" ")
        };
        let rest = "--kubeconfig a --image b";
        for line in [
            format!("--transcript out.txt {rest}"),
            format!("{rest} --transcript=out.txt"),
            rest.to_owned(),
        ] {
            assert_eq!(kept(&line), rest);
        }
    }
}
