//! The commands, each a thin layer over the library.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use berth_cluster::{
    Cluster, Filesystem, Options, conformance, parse_gate, parse_size, preflight, residue,
};
use clap::{Args, Parser, Subcommand};

/// A real Kubernetes cluster on this machine: kind, with workers that have disks of their own.
///
/// Everything is built from source on the first run and kept in ~/.cache/berth
/// (or $BERTH_CACHE). Clusters live below /var/lib/berth-cluster (or $BERTH_STATE).
/// Needs root: a worker's disks are filesystems on loop devices.
#[derive(Debug, Parser)]
#[command(name = "cargo cluster", version)]
pub(crate) struct Cli {
    /// Which instance; by default this checkout's own.
    #[arg(long, global = true, env = "BERTH_CLUSTER", value_name = "NAME")]
    name: Option<String>,
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Debug, Subcommand)]
enum Cmd {
    /// Say everything that this machine lacks, and what a cluster would take.
    Preflight,
    /// Build the programs and the node image, so that `up` is quick.
    Build,
    /// Make a cluster and wait until it is ready.
    Up(Up),
    /// Remove a cluster with all that belongs to it, also after a killed run.
    Down {
        /// Every instance on this machine.
        #[arg(long)]
        all: bool,
    },
    /// Show nodes, pools and where things are.
    Status,
    /// Run kubectl on the cluster.
    Kubectl {
        /// kubectl's arguments, after `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Open a shell in a node, or run a command there.
    Shell {
        /// The node, such as `worker2` or `control-plane`.
        node: String,
        /// The command; a shell if there is none.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Collect the nodes' logs into a directory and print its path.
    Logs,
    /// End a node at once, as a crash does.
    KillNode { node: String },
    /// Start a killed node and wait until it is ready.
    StartNode { node: String },
    /// Take a node off the network.
    Partition { node: String },
    /// Put a partitioned node back.
    Heal { node: String },
    /// Unmount a pool in its node, as when a disk is missing after a boot.
    UnmountPool { node: String, pool: String },
    /// Mount an unmounted pool in its node again.
    MountPool { node: String, pool: String },
    /// Print the flags that kube-controller-manager runs with, or first have it run
    /// with another list of controllers, such as `*,-statefulset-controller`.
    Controllers {
        /// The list; those that nodes need to join are added.
        #[arg(allow_hyphen_values = true)]
        list: Option<String>,
    },
    /// Load an image archive into every node.
    Load { archive: PathBuf },
    /// Print the variables with which docker, kind and kubectl mean this cluster, for `eval`.
    Env,
    /// Run upstream's StatefulSet conformance specs on the cluster.
    Conformance {
        /// Which specs, a regular expression.
        #[arg(long, default_value = conformance::FOCUS)]
        focus: String,
        /// How many processes share the specs.
        #[arg(long, default_value_t = 4)]
        processes: usize,
    },
    /// Print what clusters have on this machine: containers, mounts, loop devices,
    /// networks, cgroups, processes. Nothing is printed where nothing is left. With
    /// --name, of that instance only.
    Residue,
}

#[derive(Debug, Args)]
struct Up {
    /// How many workers.
    #[arg(long, default_value_t = Options::default().workers)]
    workers: usize,
    /// How many pools each worker has.
    #[arg(long, default_value_t = Options::default().pools)]
    pools: usize,
    /// The size of each pool; its file is sparse.
    #[arg(long, default_value = "300GiB", value_parser = parse_size)]
    pool_size: u64,
    /// The pools' filesystem: btrfs, xfs or ext4.
    #[arg(long, default_value = "btrfs", value_parser = Filesystem::parse)]
    filesystem: Filesystem,
    /// A feature gate of Kubernetes, Name=true; may be repeated.
    #[arg(long, value_name = "GATE", value_parser = parse_gate)]
    feature_gate: Vec<(String, bool)>,
    /// kube-controller-manager's --controllers, such as `*,-statefulset-controller`;
    /// those that nodes need to join are added.
    #[arg(long, value_name = "LIST")]
    kcm_controllers: Option<String>,
}

/// Runs one command; its exit code is the program's.
pub(crate) fn run(cli: Cli) -> Result<ExitCode> {
    let name = cli.name.as_deref();
    match cli.command {
        Cmd::Preflight => return show_preflight(),
        Cmd::Build => {
            as_root()?;
            preflight::require(&preflight::judge(&preflight::look()))?;
            berth_cluster::build_all()?;
        }
        Cmd::Up(up) => {
            as_root()?;
            return start(cli.name, up);
        }
        Cmd::Down { all } => {
            as_root()?;
            match all {
                true => Cluster::down_all()?,
                false => Cluster::down(cli.name.as_deref())?,
            }
        }
        Cmd::Status => print!("{}", view(name)?.status()?),
        Cmd::Kubectl { args } => {
            let cluster = view(name)?;
            let mut kubectl = Command::new(cluster.kubectl_path());
            return replace(kubectl.args(args).env("KUBECONFIG", cluster.kubeconfig()));
        }
        Cmd::Shell { node, command } => {
            let cluster = view(name)?;
            let interactive = std::io::IsTerminal::is_terminal(&std::io::stdin());
            let mut docker = Command::new("docker");
            docker.envs(cluster.env()).args(["exec", "-i"]);
            if interactive {
                docker.arg("-t");
            }
            docker.arg(cluster.node_name(&node)?);
            if command.is_empty() {
                docker.arg("bash");
            }
            return replace(docker.args(command));
        }
        Cmd::Logs => println!("{}", view(name)?.export_logs()?.display()),
        Cmd::KillNode { node } => hold(name)?.kill_node(&node)?,
        Cmd::StartNode { node } => {
            let cluster = hold(name)?;
            cluster.start_node(&node)?;
            cluster.wait_node_ready(&node)?;
        }
        Cmd::Partition { node } => hold(name)?.partition(&node)?,
        Cmd::Heal { node } => hold(name)?.heal(&node)?,
        Cmd::UnmountPool { node, pool } => hold(name)?.unmount_pool(&node, &pool)?,
        Cmd::MountPool { node, pool } => hold(name)?.mount_pool(&node, &pool)?,
        Cmd::Controllers { list } => {
            let flags = match list {
                Some(list) => {
                    let cluster = hold(name)?;
                    cluster.set_controllers(&list)?;
                    cluster.controller_manager_flags()?
                }
                None => view(name)?.controller_manager_flags()?,
            };
            for flag in flags {
                println!("{flag}");
            }
        }
        Cmd::Load { archive } => hold(name)?.load_image(&archive)?,
        Cmd::Env => {
            for (key, value) in view(name)?.env() {
                println!("export {key}='{}'", value.replace('\'', r"'\''"));
            }
        }
        Cmd::Conformance { focus, processes } => {
            let choice = conformance::Choice {
                processes,
                ..conformance::Choice::of(focus)
            };
            let report = conformance::run(&hold(name)?, &choice)?;
            print!("{report}");
            if !report.is_success() {
                return Ok(ExitCode::FAILURE);
            }
        }
        Cmd::Residue => {
            as_root()?;
            for line in residue::lines(name)? {
                println!("{line}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn start(name: Option<String>, up: Up) -> Result<ExitCode> {
    let options = Options {
        name,
        workers: up.workers,
        pools: up.pools,
        pool_bytes: up.pool_size,
        filesystem: up.filesystem,
        feature_gates: BTreeMap::from_iter(up.feature_gate),
        kcm_controllers: up.kcm_controllers,
        ..Options::default()
    };
    let cluster = match Cluster::up(&options) {
        Err(berth_cluster::Error::AlreadyUp(name)) => {
            eprintln!("instance {name} is already up");
            Cluster::view(Some(&name))?
        }
        other => other?,
    };
    print!("{}", cluster.status()?);
    Ok(ExitCode::SUCCESS)
}

fn show_preflight() -> Result<ExitCode> {
    let facts = preflight::look();
    let verdict = preflight::judge(&facts);
    println!("{}", verdict.plan);
    if verdict.problems.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &verdict.problems {
        println!("  - {problem}");
    }
    if !verdict.packages.is_empty() {
        println!(
            "Debian packages: {} (`cargo xtask setup` installs them)",
            verdict.packages.join(" ")
        );
    }
    Ok(ExitCode::FAILURE)
}

fn view(name: Option<&str>) -> Result<Cluster> {
    as_root()?;
    Ok(Cluster::view(name)?)
}

fn hold(name: Option<&str>) -> Result<Cluster> {
    as_root()?;
    Ok(Cluster::attach(name)?)
}

/// Becomes another program.
fn replace(command: &mut Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).context(format!("cannot start {}", command.get_program().display()))
}

/// Runs this same program again through sudo unless it is root: only this built
/// program, never cargo, so that nothing in the checkout comes to belong to root.
fn as_root() -> Result<()> {
    if preflight::is_root() {
        return Ok(());
    }
    if !preflight::has_sudo() {
        bail!("a cluster needs root for its loop devices, and there is no sudo; run this as root");
    }
    eprintln!("a cluster needs root for its loop devices; asking sudo");
    let keep = "--preserve-env=PATH,HOME,BERTH_CACHE,BERTH_STATE,BERTH_CLUSTER,BERTH_NODE_IMAGE,BERTH_ENGINE,\
                XDG_CACHE_HOME,CARGO_MANIFEST_DIR,GOPROXY,GOFLAGS,GOPATH,GOMODCACHE,GOCACHE";
    let me = std::env::current_exe().context("cannot find this program's own file")?;
    replace(
        Command::new("sudo")
            .arg(keep)
            .arg("--")
            .arg(me)
            .args(std::env::args_os().skip(1)),
    )?;
    Ok(())
}
