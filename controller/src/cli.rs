//! The command line.

use anyhow::{Context as _, bail};
use berth_plan::set::Kind;
use clap::{Parser, Subcommand};
use kube::{Client, Config};

use crate::{run, set, storage};

/// Runs sets and their disks; see `berth-controller <command> --help`.
#[derive(Debug, Parser)]
#[command(name = "berth-controller", version = berth_telemetry::version(), max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller; the replica that holds the lease works, the others stand by
    Run(run::RunArgs),
    /// Print what the controller would do about one object now, and why, without doing it
    ///
    /// Reads the cluster with your kubeconfig and asks the same planner.
    Explain {
        /// `oset/<name>`, `sts/<name>` or `pvc/<name>`
        object: String,
        /// Namespace of the object; the kubeconfig's when absent
        #[arg(short, long)]
        namespace: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// What stopped it, for people.
pub async fn main(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Run(args) => run::run(args).await,
        Command::Explain { object, namespace } => {
            let config = Config::infer().await.context("no cluster to ask")?;
            let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
            let client = Client::try_from(config)?;
            let text = match object.split_once('/') {
                Some(("oset" | "osets" | "ordinalset" | "ordinalsets", name)) => {
                    set::explain(client, Kind::OrdinalSet, &namespace, name).await?
                }
                Some(("sts" | "statefulset" | "statefulsets", name)) => {
                    set::explain(client, Kind::StatefulSet, &namespace, name).await?
                }
                Some(("pvc" | "pvcs" | "persistentvolumeclaim", name)) => {
                    storage::explain(client, &namespace, name).await?
                }
                _ => {
                    bail!("cannot explain {object:?}; write oset/<name>, sts/<name> or pvc/<name>")
                }
            };
            println!("{}", text.trim_end());
            Ok(())
        }
    }
}
