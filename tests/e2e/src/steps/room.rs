//! A burst of claims for more than there is.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use berth_api::{Bytes, Pool};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;

use super::{
    backends::delete_class,
    data::{claim_manifest, class_manifest},
    refusal::expect_event,
    rival, snapshots,
};
use crate::{
    ctx::Ctx,
    wait::{check, until},
};

/// How many claims are made at once.
const CLAIMS: usize = 100;

/// How many of them one pool has room for.
const PER_POOL: u64 = 10;

/// A hundred claims onto room for about sixty, with a snapshot and trash in the pools, and
/// with two controllers alive: exactly as many are bound as fit, no pool promises more than it
/// has, the rest say why, and follow when room is freed.
pub async fn a_burst_takes_what_there_is(ctx: &Ctx, ns: &str) -> Result<()> {
    rival::start(ctx).await?;
    let burst = burst(ctx, ns).await;
    let stopped = rival::stop(ctx).await;
    burst.and(stopped)
}

async fn burst(ctx: &Ctx, ns: &str) -> Result<()> {
    let _controller = snapshots::install(ctx).await?;
    let snapshot = snapshots::of_volume_that_is_gone(ctx, ns).await?;
    // What earlier tests deleted is counted until it is freed. (One of them retains a volume.)
    until("the pools to have nothing in the trash", async || {
        let taken: Vec<_> = rooms(ctx)
            .await?
            .into_values()
            .map(|(_, taken)| taken)
            .collect();
        check(taken.iter().all(|taken| *taken <= 128 << 20), || {
            format!("{taken:?}")
        })
    })
    .await?;
    let rooms = rooms(ctx).await?;
    let room = |(capacity, taken): &(u64, u64)| capacity - taken;
    let smallest = rooms.values().map(room).min();
    let size = smallest.context("there are pools")? / PER_POOL / 4096 * 4096;
    let fit: u64 = rooms.values().map(|it| room(it) / size).sum();
    let fit = usize::try_from(fit)?;
    ensure!(
        fit < CLAIMS,
        "{CLAIMS} claims are no burst for room for {fit}"
    );
    let class = format!("burst-{ns}");
    let mut object = class_manifest(&class, json!({"backend": "btrfs"}), "Delete");
    object["volumeBindingMode"] = json!("Immediate");
    ctx.apply(ns, &object).await?;
    // What is deleted just before the burst is still being erased in it.
    let early: Vec<String> = (0..6).map(|n| format!("early-{n}")).collect();
    for name in &early {
        let claim = claim_manifest(name, &class, &size.to_string());
        ctx.apply(ns, &claim).await?;
    }
    settled(ctx, ns, early.len()).await?;
    for name in &early {
        ctx.claims(ns)
            .delete(name, &DeleteParams::default())
            .await?;
    }
    let names: Vec<String> = (0..CLAIMS).map(|n| format!("claim-{n:02}")).collect();
    for name in &names {
        let claim = claim_manifest(name, &class, &size.to_string());
        ctx.apply(ns, &claim).await?;
    }
    let bound = settled(ctx, ns, fit).await?;
    let left = names.iter().find(|name| !bound.contains(name));
    let left = left.context("not all fit")?;
    expect_event(ctx, ns, left, "room").await?;
    // Room is freed: as many follow.
    let claims = ctx.claims(ns);
    for name in bound.iter().take(7) {
        claims.delete(name, &DeleteParams::default()).await?;
    }
    settled(ctx, ns, fit).await?;
    claims
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await?;
    until("the claims to be gone", async || {
        let left = claims.list(&ListParams::default()).await?.items.len();
        check(left == 0, || left.to_string())
    })
    .await?;
    delete_class(ctx, &class).await?;
    snapshots::delete_with_class(ctx, ns, &snapshot).await
}

/// Waits until exactly `fit` claims are bound, and no pool has room for one more or
/// promises more than it has; the names of the bound claims.
async fn settled(ctx: &Ctx, ns: &str, fit: usize) -> Result<Vec<String>> {
    until(&format!("{fit} claims to be bound"), async || {
        let claims = ctx.claims(ns).list(&ListParams::default()).await?.items;
        let bound: Vec<_> = claims
            .iter()
            .filter(|claim| {
                let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
                phase == Some("Bound") && claim.metadata.deletion_timestamp.is_none()
            })
            .map(ResourceExt::name_any)
            .collect();
        ensure!(bound.len() <= fit, "{} claims are bound", bound.len());
        for (pool, (capacity, taken)) in rooms(ctx).await? {
            ensure!(taken <= capacity, "{pool} promises {taken} of {capacity}");
        }
        Ok(match bound.len() == fit {
            true => crate::wait::Seen::Done(bound),
            false => crate::wait::Seen::NotYet(format!("{} are bound", bound.len())),
        })
    })
    .await
}

/// Capacity and promised bytes of each pool.
async fn rooms(ctx: &Ctx) -> Result<BTreeMap<String, (u64, u64)>> {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    let bytes = |value: Option<Bytes>| value.unwrap_or_default().0;
    let pools = pools.list(&ListParams::default()).await?.items;
    Ok(pools
        .into_iter()
        .map(|pool| {
            let status = pool.status.clone().unwrap_or_default();
            (
                pool.name_any(),
                (bytes(status.capacity), bytes(status.reserved)),
            )
        })
        .collect())
}
