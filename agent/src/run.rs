//! `berth-agent run`: puts the services together, and takes them apart in order.

use std::{future::Future, net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use berth_csi::{
    csi::{
        controller_server::ControllerServer, identity_server::IdentityServer,
        node_server::NodeServer,
    },
    registration::registration_server::RegistrationServer,
};
use berth_kube::process::stop_on_signal;
use berth_provisioner::{Config, KnownPool, Provisioner, SharedPool, VolumeReport};
use berth_telemetry::causes;
use clap::Args;
use kube::Client;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::{
    csi::{controller::ControllerService, identity::Identity, node::NodeService, server},
    disks::Disks,
    install, lanes,
    metrics::Metrics,
    privileges,
    readiness::Readiness,
    reconcile,
    registration::{self, Registration},
    shared_pool,
};

/// Arguments of `berth-agent run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Name of this node in the API [default with --standalone: the host's name]
    #[arg(long, env = "NODE_NAME", required_unless_present = "standalone")]
    pub node_name: Option<String>,
    /// Serve CSI alone: no API server, no kubelet to register with
    ///
    /// For orchestrators other than Kubernetes, for Kubernetes with the sidecars of
    /// its CSI project, and for trying things out. Volumes are made and erased by
    /// calls of the CSI controller service on the same socket. Health and metrics
    /// are served as ever.
    #[arg(long, env = "BERTH_STANDALONE")]
    pub standalone: bool,
    /// Directory that holds Berth's pools
    #[arg(long, env = "BERTH_ROOT", default_value = "/var/lib/berth")]
    pub root: PathBuf,
    /// Kubelet's directory, at the same path as on the host; with --standalone the
    /// directory below which volumes may be staged and published. Nothing is
    /// mounted outside it
    #[arg(long, env = "BERTH_KUBELET_DIR", default_value = "/var/lib/kubelet")]
    pub kubelet_dir: PathBuf,
    /// CSI socket [default: <kubelet-dir>/plugins/csi.berth.dev/csi.sock]
    #[arg(long, env = "BERTH_CSI_SOCKET")]
    pub csi_socket: Option<PathBuf>,
    /// Where /livez, /readyz and /metrics are served
    #[arg(long, env = "BERTH_LISTEN_ADDRESS", default_value = "0.0.0.0:9809")]
    pub listen_address: SocketAddr,
    /// How many of Berth's volumes the scheduler may bring to this node [default: as many as
    /// fit into its pools]
    #[arg(long, env = "BERTH_MAX_VOLUMES", value_name = "COUNT")]
    pub max_volumes: Option<NonZeroU16>,
    /// Make a pool of every mount point under <root>/pools that is empty
    #[arg(long, env = "BERTH_CREATE_POOLS")]
    pub create_pools: bool,
    /// Have a pool on the node's own filesystem, which it shares with the system:
    /// <root>/pools/<NAME>, whose volumes take SIZE in all, shared=20Gi for example.
    /// Another SIZE changes the pool's; another NAME makes another pool. With
    /// --standalone nobody remembers which pools the node had: `pools init` does it
    #[arg(
        long,
        env = "BERTH_SHARED_POOL",
        value_name = "NAME=SIZE",
        value_parser = shared_pool::parse,
        conflicts_with = "standalone"
    )]
    pub shared_pool: Option<SharedPool>,
}

impl RunArgs {
    /// The node's name, as given or as the host's.
    fn node_name(&self) -> anyhow::Result<String> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let host = nix::sys::utsname::uname().context("cannot ask for the host's name")?;
        let name = host.nodename().to_string_lossy().into_owned();
        if name.is_empty() {
            bail!("this host has no name: say one with --node-name");
        }
        Ok(name)
    }

    fn csi_socket(&self) -> PathBuf {
        self.csi_socket.clone().unwrap_or_else(|| {
            self.kubelet_dir
                .join("plugins")
                .join(berth_api::DRIVER)
                .join("csi.sock")
        })
    }

    fn config(&self) -> Config {
        Config {
            root: self.root.clone(),
            kubelet_dir: self.kubelet_dir.clone(),
            // A shared pool is made by name, and no other directory.
            allow_root_fs: false,
            create_pools: self.create_pools,
        }
    }
}

/// How long one try to reach the API server may wait for the next.
const API_PAUSE: Duration = Duration::from_secs(5);

/// How often a standalone agent looks whether disks were mounted or made pools.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// How often each disk is asked for a sign of life, so that silence is told in time.
const ASK: Duration = Duration::from_secs(5);

/// How long requests that run when the agent is to stop have to finish; less than
/// the 30 s that kubelet gives a pod.
const DRAIN: Duration = Duration::from_secs(10);

/// How long operations on disks have to end after that. One that waits for a disk which
/// does not answer cannot be ended, and is left to the kernel.
const FAREWELL: Duration = Duration::from_secs(5);

/// Threads for calls that block: as many as [`lanes::PER_POOL`] for 40 pools. They are made
/// when they are needed.
const BLOCKING: usize = 40 * lanes::PER_POOL;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, or made it end.
pub fn main(args: RunArgs) -> anyhow::Result<()> {
    berth_telemetry::init_tracing()?;
    let name = args.node_name()?;
    tracing::info!(
        version = berth_telemetry::version(),
        node = name,
        standalone = args.standalone,
        "starting"
    );
    // Before any other thread starts: threads inherit what is left.
    privileges::drop_unneeded();
    if !args.standalone {
        // Out of a container; without one, whoever starts the program has it.
        let program = std::env::current_exe().context("cannot find the program's own file")?;
        match install::copy_to_host(&program, &args.root) {
            Ok(true) => tracing::info!("copied the program to the host"),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = causes(&error), "no copy on the host"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Kubelet's calls come one by one; two threads keep memory small.
        .worker_threads(2)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(args, &name));
    runtime.shutdown_timeout(FAREWELL);
    result
}

async fn serve(args: RunArgs, name: &str) -> anyhow::Result<()> {
    let token = CancellationToken::new();
    let readiness = Readiness::default();
    let mut registry = berth_telemetry::registry();
    let metrics = Metrics::new(&mut registry);
    let router = berth_telemetry::router(registry, {
        let readiness = readiness.clone();
        move || readiness.check()
    });
    let listener = berth_telemetry::bind(args.listen_address).await?;

    let mut tasks = JoinSet::new();
    stop_on_signal(&token).context("cannot listen to signals")?;
    let health = berth_telemetry::serve(listener, router, token.clone());
    spawn(&mut tasks, "health", async { Ok(health.await?) });

    let mut disks = None;
    let result = tokio::select! {
        () = token.cancelled() => Ok(()),
        started = start(&args, name, &readiness, metrics, &token, &mut tasks) => {
            started.map(|started| disks = Some(started))
        }
    };
    let result = match result {
        Ok(()) => first_to_end(&mut tasks).await,
        failed => failed,
    };
    // Whatever ended first ends the rest; requests that run are finished.
    token.cancel();
    let rest = async {
        while let Some(ended) = tasks.join_next().await {
            if let Ok((task, Err(error))) = ended {
                tracing::error!(task, "{error:#}");
            }
        }
    };
    // A client that holds its connection open and says nothing holds up a server.
    if tokio::time::timeout(DRAIN, rest).await.is_err() {
        tracing::info!("some connections are still open; they are closed");
    }
    // The next agent starts although calls of this one may wait for a disk for ever.
    if let Some(disks) = disks
        && let Err(error) = disks.close().await
    {
        tracing::error!(%error, "the disks are not released");
    }
    tracing::info!("stopped; volumes stay mounted");
    result
}

/// Starts everything. Serves at once, whatever the disks do: each pool is opened in the
/// background, and what needs one that is not open yet is refused until it is.
async fn start(
    args: &RunArgs,
    name: &str,
    readiness: &Readiness,
    metrics: Metrics,
    token: &CancellationToken,
    tasks: &mut Tasks,
) -> anyhow::Result<Disks> {
    let config = args.config();
    let provisioner = tokio::task::spawn_blocking(move || Provisioner::start(config))
        .await
        .context("opening the pools did not end")?
        .with_context(|| format!("cannot open the pools under {}", args.root.display()))?;
    let (disks, changes) = Disks::new(name, provisioner, metrics);

    let socket = args.csi_socket();
    let incoming = server::listen(&socket)?;
    spawn(
        tasks,
        "csi",
        serve_csi(
            incoming,
            disks.clone(),
            args.max_volumes,
            readiness.clone(),
            token.clone(),
        ),
    );
    spawn(
        tasks,
        "disks",
        ask_disks(disks.clone(), readiness.clone(), token.clone()),
    );
    if args.standalone {
        // There is nobody to register with, and nobody to report to.
        readiness.set_registered(true);
        readiness.set_reported();
        spawn(tasks, "pools", watch_pools(disks.clone(), token.clone()));
        return Ok(disks);
    }
    // Kubelet calls the CSI socket as soon as it sees this one.
    let (service, refused) = Registration::new(&socket, readiness.clone());
    let incoming = server::listen(&registration::socket(&args.kubelet_dir))?;
    spawn(
        tasks,
        "registration",
        serve_registration(incoming, service, refused, token.clone()),
    );
    // Kubelet is served even while the API server cannot be reached.
    spawn(
        tasks,
        "reconcile",
        reconcile(
            disks.clone(),
            changes,
            args.shared_pool.clone(),
            readiness.clone(),
            token.clone(),
        ),
    );
    Ok(disks)
}

/// Asks each disk for a sign of life, again and again, so that others need not wait to
/// learn that there is none. Depends on nothing but the disks.
async fn ask_disks(
    disks: Disks,
    readiness: Readiness,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let ask = async {
        if let Err(error) = disks.wait_open().await {
            tracing::error!(%error, "the pools are not opened");
        }
        readiness.set_pools_open();
        loop {
            if let Err(error) = disks.ask().await {
                tracing::error!(%error, "the disks are not asked how they are");
            }
            tokio::time::sleep(ASK).await;
        }
    };
    tokio::select! {
        () = token.cancelled() => Ok(()),
        () = ask => Ok(()),
    }
}

/// Keeps the API and the disks together, once the API has told which pools this
/// node had: without that, a disk that is not mounted could not be told from a
/// new one.
async fn reconcile(
    disks: Disks,
    changes: mpsc::Receiver<String>,
    shared: Option<SharedPool>,
    readiness: Readiness,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let client = client().await?;
    let known = tokio::select! {
        () = token.cancelled() => return Ok(()),
        known = known_pools(&client, &disks.node_name) => known,
    };
    disks
        .read(move |disk| {
            disk.remember(known);
            shared.map_or(Ok(()), |pool| disk.share(pool))
        })
        .await??;
    let (volumes, writer) = kube::runtime::reflector::store();
    let objects = (volumes.clone(), writer);
    tokio::join!(
        reconcile::volumes::run(
            client.clone(),
            disks.clone(),
            changes,
            objects,
            token.clone()
        ),
        reconcile::snapshots::run(client.clone(), disks.clone(), token.clone()),
        reconcile::node_storage::run(client, disks, volumes, readiness, token),
    );
    Ok(())
}

/// Looks at pools and volumes now and then, where nothing else does: disks come and go.
async fn watch_pools(disks: Disks, token: CancellationToken) -> anyhow::Result<()> {
    let mut timer = tokio::time::interval(LOOK_AGAIN);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let volumes_too = tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = timer.tick() => true,
            () = disks.pools_changed() => false,
        };
        match disks.rescan().await {
            Ok(pools) => disks.metrics().pools(&pools),
            Err(error) => tracing::error!(%error, "the pools could not be looked at"),
        }
        if volumes_too && let Ok(volumes) = disks.read_each(Provisioner::list_of).await {
            let troubles = volumes.iter().flat_map(VolumeReport::kinds_of_problem);
            disks.metrics().volumes(troubles);
        }
    }
}

type Tasks = JoinSet<(&'static str, anyhow::Result<()>)>;

fn spawn(
    tasks: &mut Tasks,
    name: &'static str,
    task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) {
    tasks.spawn(async move { (name, task.await) });
}

async fn first_to_end(tasks: &mut Tasks) -> anyhow::Result<()> {
    match tasks.join_next().await {
        None => Ok(()),
        Some(Ok((task, result))) => result.with_context(|| format!("{task} failed")),
        Some(Err(panic)) => Err(panic).context("a task ended badly"),
    }
}

/// A client that leaves retries to its callers, and no request unbounded.
async fn client() -> anyhow::Result<Client> {
    let mut config = kube::Config::infer()
        .await
        .context("no configuration for the API server; is the service account mounted?")?;
    config.default_retry = false;
    Client::try_from(config).context("cannot make a client of the API server")
}

/// Asks until the server answers.
async fn known_pools(client: &Client, node: &str) -> Vec<KnownPool> {
    loop {
        match reconcile::node_storage::known(client.clone(), node).await {
            Ok(known) => return known,
            Err(error) => {
                let error = causes(&error);
                tracing::warn!(
                    error,
                    "waiting for the API server to tell which pools this node had"
                );
                tokio::time::sleep(API_PAUSE).await;
            }
        }
    }
}

/// Serves CSI until the token is cancelled, and then what was begun. `max_volumes` is told
/// to the scheduler.
///
/// # Errors
/// When the server itself fails.
pub async fn serve_csi(
    incoming: UnixListenerStream,
    disks: Disks,
    max_volumes: Option<NonZeroU16>,
    readiness: Readiness,
    token: CancellationToken,
) -> anyhow::Result<()> {
    Server::builder()
        .add_service(IdentityServer::new(Identity::new(readiness)))
        .add_service(ControllerServer::new(ControllerService::new(disks.clone())))
        .add_service(NodeServer::new(NodeService::new(disks, max_volumes)))
        .serve_with_incoming_shutdown(incoming, token.cancelled_owned())
        .await
        .context("the CSI server failed")
}

/// Serves kubelet's plugin watcher.
///
/// # Errors
/// When kubelet refuses the registration: the next start tries again.
pub async fn serve_registration(
    incoming: UnixListenerStream,
    service: Registration,
    mut refused: mpsc::Receiver<String>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let server = Server::builder()
        .add_service(RegistrationServer::new(service))
        .serve_with_incoming_shutdown(incoming, token.cancelled_owned());
    tokio::select! {
        ended = server => ended.context("the registration server failed"),
        Some(reason) = refused.recv() => bail!(
            "kubelet refused to register {}: {reason}",
            berth_api::DRIVER
        ),
    }
}
