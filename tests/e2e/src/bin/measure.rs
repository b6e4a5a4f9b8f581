//! `cargo measure`: how long a claim takes and who takes the time, how many API
//! writes it costs, and how much memory the two programs use. Prints numbers of
//! one run; asserts none.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use berth_api::{Volume, VolumePhase, names};
use berth_cluster::Cluster;
use berth_e2e::{
    ctx::{Ctx, SYSTEM, is_ready},
    install, rig,
    steps::{data::claim_manifest, refusal::user_of},
    wait::{check, until},
};
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{ListParams, WatchEvent, WatchParams},
};
use serde::de::DeserializeOwned;

/// Measures claims on a cluster of its own, or on one that runs.
#[derive(Parser)]
#[command(name = "cargo measure", version)]
struct Args {
    /// Use the running cluster of this name, with Berth on it, and leave it.
    #[arg(long)]
    name: Option<String>,
    /// Number of claims, each with a pod.
    #[arg(long, default_value_t = 50)]
    claims: usize,
}

const NAMESPACE: &str = "berth-measure";

/// Figures that are told late count too: writes are counted once none was made
/// for this long, which is longer than any pause between two of them.
const QUIET: Duration = Duration::from_secs(20);

/// The moments of one claim, in the order in which they happen.
const MOMENTS: [&str; 6] = [
    "applied",
    "selected-node",
    "volume intent",
    "volume ready",
    "PV",
    "bound",
];

type Log = Arc<Mutex<BTreeMap<String, BTreeMap<&'static str, Instant>>>>;

fn main() -> Result<()> {
    berth_cluster::take_role();
    let args = Args::parse();
    let cluster = match &args.name {
        Some(name) => Cluster::attach(Some(name))?,
        None => rig::up("m")?,
    };
    let outcome = tokio::runtime::Runtime::new()?.block_on(run(&args, &cluster));
    if args.name.is_none() {
        cluster.remove()?;
    }
    outcome
}

async fn run(args: &Args, cluster: &Cluster) -> Result<()> {
    let ctx = Ctx::of(cluster).await?;
    if args.name.is_none() {
        install::install(&ctx, None).await?;
        install::init_all_pools(&ctx).await?;
    }
    let outcome = measure(&ctx, args.claims).await;
    ctx.delete_namespace(NAMESPACE).await?;
    outcome
}

async fn measure(ctx: &Ctx, claims: usize) -> Result<()> {
    ctx.create_namespace(NAMESPACE).await?;
    println!("memory idle: {}", memory(ctx).await?);
    println!("\none claim at a time ({}):", claims.min(10));
    let writes = quiet(ctx).await?;
    let log = Log::default();
    let watchers = watch_all(ctx, &log).await?;
    for i in 0..claims.min(10) {
        one(ctx, &log, &format!("single-{i}")).await?;
    }
    report(&log, "single-");
    let singles = quiet(ctx).await?;
    print_writes(&writes, &singles, claims.min(10));

    println!("\n{claims} claims at once:");
    let names: Vec<_> = (0..claims).map(|i| format!("burst-{i}")).collect();
    let mut manifest = String::new();
    for name in &names {
        manifest += &format!(
            "{}\n---\n{}\n---\n",
            claim_manifest(name, "berth", "16Mi"),
            user_of(name)
        );
    }
    let now = Instant::now();
    for name in &names {
        mark(&log, name, "applied", now);
    }
    ctx.kubectl
        .run_with_input(&["-n", NAMESPACE, "apply", "-f", "-"], &manifest)
        .await?;
    for name in &names {
        wait_done(&log, name).await?;
    }
    report(&log, "burst-");
    print_writes(&singles, &quiet(ctx).await?, claims);
    println!(
        "\nmemory with {} volumes: {}",
        claims + claims.min(10),
        memory(ctx).await?
    );
    watchers.into_iter().for_each(|w| w.abort());
    Ok(())
}

async fn one(ctx: &Ctx, log: &Log, name: &str) -> Result<()> {
    let manifest = format!(
        "{}\n---\n{}\n",
        claim_manifest(name, "berth", "16Mi"),
        user_of(name)
    );
    mark(log, name, "applied", Instant::now());
    ctx.kubectl
        .run_with_input(&["-n", NAMESPACE, "apply", "-f", "-"], &manifest)
        .await?;
    wait_done(log, name).await
}

async fn wait_done(log: &Log, name: &str) -> Result<()> {
    until(
        &format!("the pod of claim {name} to be ready"),
        async || {
            let log = log
                .lock()
                .map_err(|_| anyhow::anyhow!("a watcher panicked"))?;
            let seen = log.get(name);
            check(seen.is_some_and(|s| s.contains_key("pod ready")), || {
                format!("{seen:?}")
            })
        },
    )
    .await
}

fn mark(log: &Log, claim: &str, moment: &'static str, at: Instant) {
    if let Ok(mut log) = log.lock() {
        log.entry(claim.to_owned())
            .or_default()
            .entry(moment)
            .or_insert(at);
    }
}

async fn watch_all(ctx: &Ctx, log: &Log) -> Result<Vec<tokio::task::JoinHandle<()>>> {
    let client = ctx.client.clone();
    Ok(vec![
        watch(
            ctx.claims(NAMESPACE),
            log,
            |log, claim: &PersistentVolumeClaim, now| {
                let name = claim.metadata.name.clone().unwrap_or_default();
                let annotations = claim.metadata.annotations.clone().unwrap_or_default();
                if annotations.contains_key(names::SELECTED_NODE) {
                    mark(log, &name, "selected-node", now);
                }
                if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
                    mark(log, &name, "bound", now);
                }
            },
        )
        .await?,
        watch(
            Api::all(client.clone()),
            log,
            |log, volume: &Volume, now| {
                if volume.spec.claim.namespace != NAMESPACE {
                    return;
                }
                mark(log, &volume.spec.claim.name, "volume intent", now);
                if volume
                    .status
                    .as_ref()
                    .is_some_and(|s| s.phase == VolumePhase::Ready)
                {
                    mark(log, &volume.spec.claim.name, "volume ready", now);
                }
            },
        )
        .await?,
        watch(Api::all(client), log, |log, pv: &PersistentVolume, now| {
            let claim = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
            if let Some(claim) = claim.filter(|c| c.namespace.as_deref() == Some(NAMESPACE)) {
                mark(log, claim.name.as_deref().unwrap_or_default(), "PV", now);
            }
        })
        .await?,
        watch(ctx.pods(NAMESPACE), log, |log, pod: &Pod, now| {
            let name = pod.metadata.name.clone().unwrap_or_default();
            if is_ready(pod) {
                mark(log, name.trim_start_matches("user-of-"), "pod ready", now);
            }
        })
        .await?,
    ])
}

async fn watch<K>(
    api: Api<K>,
    log: &Log,
    see: impl Fn(&Log, &K, Instant) + Send + 'static,
) -> Result<tokio::task::JoinHandle<()>>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let list = api.list(&ListParams::default()).await?;
    let version = list.metadata.resource_version.unwrap_or_default();
    let params = WatchParams::default().timeout(290);
    let mut events = api.watch(&params, &version).await?.boxed();
    let log = log.clone();
    Ok(tokio::spawn(async move {
        let _keep = api;
        while let Ok(Some(event)) = events.try_next().await {
            if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event {
                see(&log, &object, Instant::now());
            }
        }
    }))
}

fn report(log: &Log, prefix: &str) {
    let Ok(log) = log.lock() else { return };
    let claims: Vec<_> = log
        .iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    let share = |title: &str, from: &str, to: &str| {
        let mut times: Vec<Duration> = claims
            .iter()
            .filter_map(|(_, seen)| Some(seen.get(to)?.saturating_duration_since(*seen.get(from)?)))
            .collect();
        times.sort();
        let at =
            |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
        let ms = |time: Option<&Duration>| {
            time.map_or_else(|| "-".into(), |t| t.as_millis().to_string())
        };
        println!(
            "  {title:<44} p50 {:>6} ms  p90 {:>6} ms  max {:>6} ms  (n={})",
            ms(at(50)),
            ms(at(90)),
            ms(times.last()),
            times.len()
        );
    };
    share(
        "applied -> selected-node (scheduler)",
        "applied",
        "selected-node",
    );
    share("selected-node -> PV (Berth)", "selected-node", "PV");
    share(
        "  of it: selected-node -> intent",
        "selected-node",
        "volume intent",
    );
    share(
        "  of it: intent -> ready (agent, disk)",
        "volume intent",
        "volume ready",
    );
    share("  of it: ready -> PV", "volume ready", "PV");
    share("PV -> claim bound (controller-manager)", "PV", "bound");
    share(
        "bound -> pod ready (scheduler, kubelet)",
        "bound",
        "pod ready",
    );
    share("applied -> bound", "applied", "bound");
    share("applied -> pod ready", "applied", "pod ready");
    for (name, seen) in &claims {
        let missing: Vec<_> = MOMENTS.iter().filter(|m| !seen.contains_key(*m)).collect();
        if !missing.is_empty() {
            println!("  {name}: not seen: {missing:?}");
        }
    }
}

/// How long that is waited for: volumes in use are written about now and then.
const AT_MOST: Duration = Duration::from_secs(180);

/// The writes so far, once no more of ours are made.
async fn quiet(ctx: &Ctx) -> Result<BTreeMap<String, u64>> {
    let ours = |all: &BTreeMap<String, u64>| -> u64 {
        all.iter().filter(|(k, _)| is_ours(k)).map(|(_, n)| n).sum()
    };
    let mut last = writes(ctx).await?;
    let begun = Instant::now();
    let mut since = begun;
    while since.elapsed() < QUIET && begun.elapsed() < AT_MOST {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = writes(ctx).await?;
        if ours(&now) != ours(&last) {
            since = Instant::now();
        }
        last = now;
    }
    Ok(last)
}

/// Successful writes that the API server counted, by resource and verb.
async fn writes(ctx: &Ctx) -> Result<BTreeMap<String, u64>> {
    let text = ctx.raw("GET", "/metrics", "").await?;
    let mut counts = BTreeMap::new();
    for line in text
        .lines()
        .filter(|l| l.starts_with("apiserver_request_total{"))
    {
        let label = |name: &str| {
            let start = line.find(&format!("{name}=\""))? + name.len() + 2;
            Some(&line[start..start + line[start..].find('"')?])
        };
        let (Some(verb), Some(code), Some(resource)) =
            (label("verb"), label("code"), label("resource"))
        else {
            continue;
        };
        let write = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&verb);
        if !write || !code.starts_with('2') {
            continue;
        }
        let sub = label("subresource")
            .filter(|s| !s.is_empty())
            .map(|s| format!("/{s}"));
        let key = format!("{verb} {resource}{}", sub.unwrap_or_default());
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|n| n.parse::<f64>().ok())
            .unwrap_or_default();
        *counts.entry(key).or_default() += count as u64;
    }
    Ok(counts)
}

/// Writes that only Berth makes. Of PVs that is their making: what follows is
/// kube-controller-manager's; claims have many writers.
fn is_ours(key: &str) -> bool {
    let resource = key.split(' ').nth(1).unwrap_or_default();
    let resource = resource.split('/').next().unwrap_or_default();
    let all = ["volumes", "pools", "nodestorages", "csistoragecapacities"];
    all.contains(&resource) || key == "POST persistentvolumes"
}

fn print_writes(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>, claims: usize) {
    println!("  API writes per claim:");
    let mut sum = 0;
    for (key, count) in after.iter().filter(|(key, _)| is_ours(key)) {
        let delta = count - before.get(key).copied().unwrap_or_default();
        sum += delta;
        if delta > 0 {
            println!("    {key:<36} {:.2}", delta as f64 / claims as f64);
        }
    }
    println!("    {:<36} {:.2}", "in all", sum as f64 / claims as f64);
}

async fn memory(ctx: &Ctx) -> Result<String> {
    let mut parts = Vec::new();
    for (app, port) in [("berth-controller", 9808), ("berth-agent", 9809)] {
        let params = ListParams::default().labels(&format!("app.kubernetes.io/name={app}"));
        let mut sizes = Vec::new();
        for pod in ctx.pods(SYSTEM).list(&params).await?.items {
            let name = pod.metadata.name.context("a stored pod has a name")?;
            let uri = format!("/api/v1/namespaces/{SYSTEM}/pods/{name}:{port}/proxy/metrics");
            let text = ctx.raw("GET", &uri, "").await?;
            let line = text
                .lines()
                .find(|l| l.starts_with("process_resident_memory_bytes"));
            let bytes = line
                .and_then(|l| l.rsplit(' ').next())
                .and_then(|n| n.parse::<f64>().ok());
            sizes.push(berth_api::Bytes(bytes.context("no RSS in the metrics")? as u64).human());
        }
        parts.push(format!("{app} {}", sizes.join(", ")));
    }
    Ok(parts.join("; "))
}
