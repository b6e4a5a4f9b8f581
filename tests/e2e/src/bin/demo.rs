//! `cargo demo`: Berth on a real cluster, from nothing to a proof, and away again.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context, Result};
use berth_cluster::{Cluster, Options};
use berth_e2e::{
    ctx::Ctx,
    install,
    kubectl::Kubectl,
    story::{NAMESPACE, Story},
};
use clap::Parser;

/// Brings up a real Kubernetes cluster on this machine, installs Berth, runs a set
/// of three replicas on three disks, proves that the data survives, and cleans up.
#[derive(Parser)]
#[command(name = "cargo demo", version)]
struct Args {
    /// Leave the cluster running, and say what to try next.
    #[arg(long)]
    keep: bool,
    /// Use this existing cluster instead (any kind, k3s); nodes are not killed there.
    #[arg(long, value_name = "FILE", requires = "image")]
    kubeconfig: Option<PathBuf>,
    /// With --kubeconfig: the image of Berth that the cluster's nodes have or can pull.
    #[arg(long, value_name = "REF", requires = "kubeconfig")]
    image: Option<String>,
    /// With --kubeconfig: the kubectl to use.
    #[arg(long, value_name = "PROGRAM", default_value = "kubectl")]
    kubectl: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let start = Instant::now();
    let outcome = match &args.kubeconfig {
        Some(kubeconfig) => existing(&args, kubeconfig.clone()).await,
        None => own(&args).await,
    };
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

async fn own(args: &Args) -> Result<()> {
    let name = Cluster::default_name("demo");
    let options = Options { name: name.clone(), ..Options::default() };
    println!("{}", berth_cluster::preflight::announce(&options)?);
    let outcome = async {
        let cluster = tokio::task::block_in_place(|| {
            let cluster = Cluster::up(options)?;
            cluster.load_image(&berth_cluster::image::build()?)?;
            anyhow::Ok(cluster)
        })?;
        let ctx = Ctx::connect(Kubectl::new(cluster.kubectl_path(), cluster.kubeconfig())).await?;
        install_step(&ctx, None).await?;
        tell(&ctx, Some(&cluster)).await
    }
    .await;
    if args.keep && outcome.is_ok() {
        println!("\nThe cluster is kept. Try:");
        println!("  cargo cluster --name {name} kubectl -- -n {NAMESPACE} get oset,pods,pvc");
        println!("  cargo cluster --name {name} kubectl -- describe bpool");
        println!("  cargo cluster --name {name} down");
        return Ok(());
    }
    if outcome.is_err() && args.keep {
        println!("\nThe cluster is kept for a look: cargo cluster --name {name} status");
        return outcome;
    }
    tokio::task::block_in_place(|| Cluster::down(&name)).context("clean-up")?;
    println!("\nCleaned up: the cluster, its disks and its networks are gone.");
    outcome
}

async fn existing(args: &Args, kubeconfig: PathBuf) -> Result<()> {
    println!("Installs Berth on the cluster of {} and runs a set in namespace {NAMESPACE}.", kubeconfig.display());
    println!("Left out here: killing a node. Berth stays installed; the set is removed.");
    let ctx = Ctx::connect(Kubectl::new(&args.kubectl, kubeconfig)).await?;
    install_step(&ctx, args.image.as_deref()).await?;
    let outcome = tell(&ctx, None).await;
    if !args.keep {
        ctx.delete_namespace(NAMESPACE).await?;
    }
    outcome
}

async fn install_step(ctx: &Ctx, image: Option<&str>) -> Result<()> {
    println!("\nInstalling Berth");
    println!("   $ kubectl apply -k deploy/crds && kubectl apply -k deploy");
    install::install(ctx, image).await?;
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
