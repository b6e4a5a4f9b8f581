//! Bursts: claims, each with a pod, made at once with one provisioner and then with the
//! other, until all pods run; then all are deleted. Who took the time, and who wrote how
//! often.

use std::time::{Duration, Instant};

use anyhow::Result;
use berth_cluster::progress;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde::Serialize;
use serde_json::json;

use super::{
    NAMESPACE, audit,
    audit::{Log, Writer, Writes},
    local_path,
    stats::{Spread, median, percentile, spread},
    table::{self, Table},
    timeline::{BOUND, Event, Moment, PROVISIONER, RUNNING, SHARES, intervals},
    watch::Watches,
};
use crate::{
    ctx::Ctx,
    steps::{data::claim_manifest, refusal::user_of},
};

/// Smallest size at which an image holds a filesystem.
pub const CLAIM: &str = "16Mi";

/// How many requests of a burst are under way at the same time.
const CLIENTS: usize = 16;

/// No write of a provisioner for so long ends what belongs to a burst.
const QUIET: Duration = Duration::from_secs(5);

/// Volumes in use are written about now and then, so the quiet is not waited for forever.
const QUIET_AT_MOST: Duration = Duration::from_secs(30);

/// How long deletions may take.
const DELETED: Duration = Duration::from_secs(1200);

/// A provisioner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// Berth.
    Berth,
    /// local-path-provisioner.
    LocalPath,
}

impl System {
    /// Both, in the order in which they take turns.
    pub const ALL: [Self; 2] = [Self::Berth, Self::LocalPath];

    fn class(self) -> &'static str {
        match self {
            Self::Berth => "berth",
            Self::LocalPath => local_path::CLASS,
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Berth => "Berth",
            Self::LocalPath => "local-path",
        }
    }

    /// Its own programs.
    pub fn writers(self) -> &'static [Writer] {
        match self {
            Self::Berth => &[Writer::BerthController, Writer::BerthAgent],
            Self::LocalPath => &[Writer::LocalPath],
        }
    }
}

/// One burst.
#[derive(Clone, Debug)]
pub struct Burst {
    /// Of which provisioner.
    pub system: System,
    /// How many claims.
    pub claims: usize,
    /// What was seen of them.
    pub events: Vec<Event>,
    /// Milliseconds from the first deletion until the last PV was gone.
    pub deleted: f64,
    /// Writes until all pods ran and no more came; `None` without an audit log.
    pub made: Option<Writes>,
    /// Writes of the deletion.
    pub unmade: Option<Writes>,
}

/// Runs the bursts of all sizes, the provisioners by turns.
///
/// # Errors
/// When claims do not get their volumes.
pub async fn run(
    ctx: &Ctx,
    sizes: &[usize],
    repeats: usize,
    mut log: Option<Log>,
) -> Result<Vec<Burst>> {
    let watches = Watches::begin(ctx);
    let mut bursts = Vec::new();
    // Images are unpacked at their first use, and caches are filled.
    for system in System::ALL {
        one(ctx, &watches, system, 3, "warm", &mut None).await?;
    }
    for claims in sizes {
        for repeat in 1..=repeats {
            for system in System::ALL {
                let name = format!("{}-{claims}-{repeat}", system.class());
                let burst = one(ctx, &watches, system, *claims, &name, &mut log).await?;
                progress::say(format!(
                    "{} of {claims}, {repeat} of {repeats}: last Bound after {} ms, last Running after {} ms",
                    system.name(),
                    table::maybe(percentile(&intervals(&burst.events, BOUND), 100)),
                    table::maybe(percentile(&intervals(&burst.events, RUNNING), 100)),
                ));
                bursts.push(burst);
            }
        }
    }
    Ok(bursts)
}

async fn one(
    ctx: &Ctx,
    watches: &Watches,
    system: System,
    claims: usize,
    name: &str,
    log: &mut Option<Log>,
) -> Result<Burst> {
    let names: Vec<_> = (0..claims).map(|n| format!("{name}-{n}")).collect();
    since(log)?;
    watches.start()?;
    create(ctx, &names, system.class(), true).await?;
    watches.reach(Moment::Running, claims).await?;
    // Every pod runs; the watch of PVs and claims may be a little behind that of pods.
    let events = watches.reach(Moment::Bound, claims).await?;
    let made = settled(log, system).await?;
    let begun = Instant::now();
    delete(ctx).await?;
    let deleted = begun.elapsed().as_secs_f64() * 1e3;
    let unmade = settled(log, system).await?;
    Ok(Burst {
        system,
        claims,
        events,
        deleted,
        made,
        unmade,
    })
}

fn since(log: &mut Option<Log>) -> Result<Option<Writes>> {
    log.as_mut().map(Log::since).transpose()
}

/// The writes since the last call, once the provisioner makes no more.
async fn settled(log: &mut Option<Log>, system: System) -> Result<Option<Writes>> {
    let Some(mut all) = since(log)? else {
        // What belongs to this burst must not slow down the next.
        tokio::time::sleep(QUIET).await;
        return Ok(None);
    };
    let begun = Instant::now();
    let mut last = begun;
    while last.elapsed() < QUIET && begun.elapsed() < QUIET_AT_MOST {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let more = since(log)?.unwrap_or_default();
        let (objects, events) = (
            audit::objects(&more, system.writers()),
            audit::events(&more, system.writers()),
        );
        if objects + events > 0 {
            last = Instant::now();
        }
        audit::add(&mut all, &more);
    }
    Ok(Some(all))
}

/// Makes claims of a class, each with a pod where they are to have one.
///
/// # Errors
/// The API server's.
pub async fn create(ctx: &Ctx, names: &[String], class: &str, pods: bool) -> Result<()> {
    let params = &PostParams::default();
    stream::iter(names)
        .map(Ok)
        .try_for_each_concurrent(CLIENTS, |name| async move {
            let claim: PersistentVolumeClaim =
                serde_json::from_value(claim_manifest(name, class, CLAIM))?;
            ctx.claims(NAMESPACE).create(params, &claim).await?;
            if pods {
                let pod: Pod = serde_json::from_value(user_of(name))?;
                ctx.pods(NAMESPACE).create(params, &pod).await?;
            }
            Ok(())
        })
        .await
}

/// Deletes all claims and pods, and returns when no PV is left of them.
///
/// # Errors
/// When some remain.
pub async fn delete(ctx: &Ctx) -> Result<()> {
    let (params, list) = (DeleteParams::default(), ListParams::default());
    ctx.pods(NAMESPACE)
        .delete_collection(&params, &list)
        .await?;
    ctx.claims(NAMESPACE)
        .delete_collection(&params, &list)
        .await?;
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    let begun = Instant::now();
    let mut told = begun;
    loop {
        let left = pvs.list(&list).await?.items;
        let ours = left.iter().filter(|pv| {
            let claim = pv.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
            claim.and_then(|c| c.namespace.as_deref()) == Some(NAMESPACE)
        });
        let pods = ctx.pods(NAMESPACE).list(&list).await?.items.len();
        let ours = ours.count();
        if ours == 0 && pods == 0 {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < DELETED,
            "{ours} PVs and {pods} pods are still there {} s after their deletion",
            DELETED.as_secs()
        );
        if told.elapsed() > Duration::from_secs(20) {
            told = Instant::now();
            progress::say(format!("{ours} PVs to be deleted"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Bursts of one provisioner and size.
fn of(bursts: &[Burst], system: System, claims: usize) -> Vec<&Burst> {
    let mut found: Vec<_> = bursts.iter().collect();
    found.retain(|b| b.system == system && b.claims == claims);
    found
}

/// Over the repeats, the median claim's milliseconds to a moment.
pub fn typical(
    bursts: &[Burst],
    system: System,
    claims: usize,
    to_running: bool,
) -> Option<Spread> {
    over(bursts, system, claims, |burst| {
        median(&intervals(
            &burst.events,
            if to_running { RUNNING } else { BOUND },
        ))
    })
}

fn over(
    bursts: &[Burst],
    system: System,
    claims: usize,
    value: impl Fn(&Burst) -> Option<f64>,
) -> Option<Spread> {
    let values: Vec<_> = of(bursts, system, claims)
        .into_iter()
        .filter_map(value)
        .collect();
    spread(&values)
}

/// All claims' milliseconds of the provisioner's own share, of all repeats of a size.
pub fn own(bursts: &[Burst], system: System, claims: usize) -> Vec<f64> {
    let bursts = of(bursts, system, claims);
    bursts
        .iter()
        .flat_map(|b| intervals(&b.events, PROVISIONER))
        .collect()
}

/// Writes per claim over all bursts of a provisioner: its own objects, its own events, and
/// the objects of everybody but who measures; made, and unmade. `None` without a log.
pub fn writes(bursts: &[Burst], system: System) -> Option<[f64; 6]> {
    let mut sums = [0; 6];
    let mut claims = 0;
    let all = [
        Writer::BerthController,
        Writer::BerthAgent,
        Writer::LocalPath,
        Writer::Kubernetes,
    ];
    for burst in bursts.iter().filter(|b| b.system == system) {
        for (at, writes) in [(0, burst.made.as_ref()?), (3, burst.unmade.as_ref()?)] {
            let own = system.writers();
            let values = [
                audit::objects(writes, own),
                audit::events(writes, own),
                audit::objects(writes, &all),
            ];
            sums.iter_mut()
                .skip(at)
                .zip(values)
                .for_each(|(sum, value)| *sum += value);
        }
        claims += burst.claims;
    }
    (claims > 0).then(|| sums.map(|sum| sum as f64 / claims as f64))
}

/// What each writer of a provisioner wrote per claim, by kind of write.
fn kinds(bursts: &[Burst], system: System) -> Table {
    let mut table = Table::new(&["writes per claim", "made", "deleted"]);
    let (mut made, mut unmade) = (Writes::new(), Writes::new());
    let mut claims = 0;
    for burst in bursts.iter().filter(|b| b.system == system) {
        burst
            .made
            .iter()
            .for_each(|more| audit::add(&mut made, more));
        burst
            .unmade
            .iter()
            .for_each(|more| audit::add(&mut unmade, more));
        claims += burst.claims;
    }
    for writer in system.writers() {
        let count = |writes: &Writes, what: &str| {
            let count = writes.get(writer).and_then(|counts| counts.get(what));
            count.copied().unwrap_or_default() as f64 / claims.max(1) as f64
        };
        let whats: std::collections::BTreeSet<_> = [&made, &unmade]
            .into_iter()
            .filter_map(|writes| writes.get(writer))
            .flat_map(|counts| counts.keys())
            .collect();
        for what in whats {
            table.row(vec![
                format!("{writer:?}: {what}"),
                table::number(count(&made, what)),
                table::number(count(&unmade, what)),
            ]);
        }
    }
    table
}

/// The tables of the bursts.
pub fn tables(bursts: &[Burst], sizes: &[usize]) -> String {
    let mut times = Table::new(&[
        "ms; median (min-max) of the repeats",
        "Berth",
        "local-path",
        "ratio",
    ]);
    let mut shares = Table::new(&["ms; p50 / p99 of all claims", "Berth", "local-path"]);
    for claims in sizes {
        let mut row = |title: &str, value: &dyn Fn(&Burst) -> Option<f64>| {
            let [ours, theirs] = System::ALL.map(|system| over(bursts, system, *claims, value));
            let ratio = theirs.zip(ours).map(|(t, o)| t.median / o.median);
            times.row(vec![
                format!("{claims} at once: {title}"),
                table::spread(ours),
                table::spread(theirs),
                ratio.map_or("-".to_owned(), |r| format!("{}x", table::number(r))),
            ]);
        };
        row("Bound, median claim", &|b| {
            median(&intervals(&b.events, BOUND))
        });
        row("Bound, last claim", &|b| {
            percentile(&intervals(&b.events, BOUND), 100)
        });
        row("Running, median pod", &|b| {
            median(&intervals(&b.events, RUNNING))
        });
        row("Running, last pod", &|b| {
            percentile(&intervals(&b.events, RUNNING), 100)
        });
        row("deleted, last PV gone", &|b| Some(b.deleted));
        for share in SHARES {
            let cells = System::ALL.map(|system| {
                let bursts = of(bursts, system, *claims);
                let all: Vec<_> = bursts
                    .iter()
                    .flat_map(|b| intervals(&b.events, share))
                    .collect();
                let at = |percent| table::maybe(percentile(&all, percent));
                format!("{} / {}", at(50), at(99))
            });
            shares.row(vec![
                format!("{claims} at once, {}", share.title),
                cells[0].clone(),
                cells[1].clone(),
            ]);
        }
    }
    let mut text = format!("{times}\n{shares}");
    let mut per_claim = Table::new(&["API writes per claim", "Berth", "local-path"]);
    let counts = System::ALL.map(|system| writes(bursts, system));
    let rows = [
        "own objects, made",
        "own events, made",
        "objects of all programs, made",
        "own objects, deleted",
        "own events, deleted",
        "objects of all programs, deleted",
    ];
    if counts.iter().any(Option::is_some) {
        for (at, title) in rows.into_iter().enumerate() {
            let cell = |counts: &Option<[f64; 6]>| table::maybe(counts.map(|c| c[at]));
            per_claim.row(vec![title.to_owned(), cell(&counts[0]), cell(&counts[1])]);
        }
        text += &format!("\n{per_claim}");
        for system in System::ALL {
            text += &format!("\n{}", kinds(bursts, system));
        }
    } else {
        text += "\nAPI writes: not counted, the API server of this cluster keeps no audit log\n";
    }
    text
}

/// The bursts, for programs.
pub fn json(bursts: &[Burst]) -> serde_json::Value {
    let one = |burst: &Burst| {
        let shares: serde_json::Map<_, _> = SHARES
            .into_iter()
            .chain([BOUND, RUNNING])
            .map(|share| {
                let title = share.title.trim().to_owned();
                (title, json!(intervals(&burst.events, share)))
            })
            .collect();
        json!({
            "system": burst.system, "claims": burst.claims, "milliseconds": shares,
            "deletedMilliseconds": burst.deleted, "writesMade": burst.made,
            "writesDeleted": burst.unmade,
        })
    };
    bursts.iter().map(one).collect()
}
