//! `berth-controller run`: health endpoints, the lease, and the loops that run
//! while this replica leads.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use berth_kube::{
    events::{Events, Reporter},
    lease::{Election, Timing},
    process::stop_on_signal,
};
use kube::{Client, Config};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    context::{ClaimWaits, Ctx, FIELD_MANAGER},
    metrics::Metrics,
    set, storage,
};

/// How long the loops may take to end what they are doing when told to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Flags of `berth-controller run`; each can be given in the environment.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// Namespace of the lease and of the capacity objects
    #[arg(long, env = "POD_NAMESPACE", default_value = "berth-system")]
    namespace: String,
    /// Name of this replica: the lease's holder, and the reporter of events
    #[arg(long, env = "POD_NAME", default_value_t = default_identity())]
    identity: String,
    /// Where /livez, /readyz and /metrics are served
    #[arg(
        long,
        env = "BERTH_LISTEN_ADDRESS",
        default_value = "0.0.0.0:9808",
        value_name = "IP:PORT"
    )]
    listen_address: SocketAddr,
    /// Name of the Lease that replicas elect a leader by
    #[arg(long, env = "BERTH_LEASE_NAME", default_value = "berth-controller")]
    lease_name: String,
    /// Deployment that owns the capacity objects, so that they go with it
    #[arg(long, env = "BERTH_DEPLOYMENT", default_value = "berth-controller")]
    deployment: String,
    /// Run StatefulSets of apps/v1 too. Only where kube-controller-manager runs
    /// with --controllers=*,-statefulset-controller: a set needs one controller
    #[arg(long, env = "BERTH_NATIVE_STATEFULSETS")]
    native_statefulsets: bool,
}

fn default_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

/// Runs until told to stop, or until the lease is lost.
///
/// # Errors
/// What stopped it: no cluster, a port in use, a lost lease, a loop that ended.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    berth_telemetry::init_tracing()?;
    tracing::info!(version = berth_telemetry::version(), identity = %args.identity, "starting");
    let shutdown = CancellationToken::new();
    stop_on_signal(&shutdown)?;

    let mut registry = berth_telemetry::registry();
    let metrics = Arc::new(Metrics::register(&mut registry));
    let reached = Arc::new(AtomicBool::new(false));
    let ready = reached.clone();
    let router = berth_telemetry::router(registry, move || match ready.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err("the API server has not answered yet".to_owned()),
    });
    let listener = berth_telemetry::bind(args.listen_address).await?;
    // Health outlives the loops: the pod is alive while it drains.
    let health_stop = CancellationToken::new();
    let health = tokio::spawn(berth_telemetry::serve(
        listener,
        router,
        health_stop.clone(),
    ));

    let config = Config::infer().await.context("no cluster to work for")?;
    let client = Client::try_from(config.clone())?;
    let version = client
        .apiserver_version()
        .await
        .context("the API server does not answer")?;
    tracing::info!(api_server = %version.git_version, "connected");
    reached.store(true, Ordering::SeqCst);

    let mut lease_config = config;
    lease_config.default_retry = false;
    lease_config.read_timeout = Some(Timing::default().renew_deadline);
    let mut election = Election::new(
        Client::try_from(lease_config)?,
        &args.namespace,
        &args.lease_name,
        &args.identity,
        FIELD_MANAGER,
        Timing::default(),
    );
    if !election.acquire(&shutdown).await {
        return Ok(());
    }
    tracing::info!(lease = %args.lease_name, "leading");
    metrics.leader.set(1);
    let reporter = Reporter {
        controller: "berth.dev/controller",
        instance: args.identity.clone(),
        manager: FIELD_MANAGER,
    };
    let events = || Events::new(client.clone(), reporter.clone(), health_stop.clone());
    let ctx = Ctx {
        events: events(),
        client: client.clone(),
        namespace: args.namespace,
        identity: args.identity,
        deployment: args.deployment,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
        waits: ClaimWaits::default(),
    };
    let of_sets = Ctx {
        events: events(),
        ..ctx.clone()
    };
    let mut loops = JoinSet::new();
    loops.spawn(storage::run(Arc::new(ctx)));
    loops.spawn(set::run(Arc::new(of_sets), args.native_statefulsets));
    tokio::select! {
        lost = election.keep() => bail!(lost),
        Some(ended) = loops.join_next() => {
            ended??;
            if !shutdown.is_cancelled() {
                bail!("a loop ended by itself");
            }
        }
        () = shutdown.cancelled() => {}
    }
    // The lease is kept while the loops end what they had begun.
    let drained = async { while loops.join_next().await.is_some() {} };
    tokio::select! {
        lost = election.keep() => bail!(lost),
        () = drained => {}
        () = tokio::time::sleep(DRAIN) => tracing::warn!("loops did not end in time"),
    }
    loops.shutdown().await;
    metrics.leader.set(0);
    election.release().await;
    health_stop.cancel();
    health.await??;
    tracing::info!("stopped");
    Ok(())
}
