//! The storage loop: it grants pools, places claims, takes volumes and snapshots through
//! their lives, and publishes free space for the scheduler.
//!
//! One loop owns all knowledge ([`state`]). Changes come from watches and from
//! the answers to own writes; each round ([`reconcile`]) decides about what they touch,
//! with the pure functions of `berth-plan`, and hands the writes to tasks ([`apply`]).
//! At most one write per object is under way, and what it answers is known before
//! the object is looked at again.

mod apply;
mod capacity;
mod explain;
mod figures;
mod node;
mod peers;
mod pod;
mod pools;
mod proof;
mod queue;
mod reconcile;
mod reconciler;
mod snapshots;
mod sourced;
mod sources;
mod space;
mod state;
mod status;
mod tries;
mod update;
mod view;
mod volumes;
mod watch;
mod write;

use std::{sync::Arc, time::Instant};

use berth_kube::process::sleep_until;
use futures::{FutureExt, StreamExt};

use self::reconciler::Reconciler;
use crate::{context::Ctx, metrics::Loop as LoopName};

pub use explain::explain;

/// Most changes taken in before a round: a flood must not delay decisions.
const BATCH: usize = 1000;

/// Runs until `ctx.shutdown`.
///
/// # Errors
/// A task that panicked, or watches that ended.
pub async fn run(ctx: Arc<Ctx>) -> anyhow::Result<()> {
    let mut updates = watch::all(&ctx);
    let owner = capacity::deployment_owner(&ctx).await;
    let mut reconciler = Reconciler::new(ctx.clone(), owner);
    let mut known = false;
    loop {
        let timer = reconciler.queue.next_timer();
        tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            update = updates.next() => match update {
                Some(update) => reconciler.state.take(update),
                None => anyhow::bail!("the storage watches ended"),
            },
            Some(answer) = reconciler.tasks.join_next() => reconciler.answered(answer)?,
            () = sleep_until(timer) => {}
        }
        for _ in 0..BATCH {
            if let Some(Some(update)) = updates.next().now_or_never() {
                reconciler.state.take(update);
            } else if let Some(answer) = reconciler.tasks.try_join_next() {
                reconciler.answered(answer)?;
            } else {
                break;
            }
        }
        let unlisted = reconciler.state.unlisted();
        if known != unlisted.is_empty() {
            known = true;
            tracing::info!(volumes = reconciler.state.volumes.len(), "storage is known");
        }
        if !known {
            tracing::debug!(?unlisted, "not decided yet");
        }
        if known {
            let started = Instant::now();
            reconciler.wake(started);
            reconciler.reconcile();
            let seconds = started.elapsed().as_secs_f64();
            ctx.metrics.round(LoopName::Storage, seconds);
        }
    }
    // Finish the writes that have begun: an intent without its PV would only be found
    // later.
    while reconciler.tasks.join_next().await.is_some() {}
    Ok(())
}
