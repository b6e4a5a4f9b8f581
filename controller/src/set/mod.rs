//! Sets: the loop that makes pods and claims as the planner says.
//!
//! One reflector per kind keeps what decisions need ([`cache`]); a change of any
//! object asks for a round of its set; a round builds a View, asks
//! `berth_plan::set`, and carries the answer out ([`round`], [`apply`]). Nothing
//! is decided here. What a round must remember for the next one (refusals, its
//! own writes, backoff) is in [`memory`]; all of it can be lost at any time.

mod apply;
mod cache;
mod calls;
mod explain;
mod memory;
mod round;
mod triggers;
mod view;

use std::sync::Arc;

use berth_api::OrdinalSet;
use futures::StreamExt;
use kube::runtime::{
    controller::{Action, Config, applier},
    reflector::{self, ObjectRef, Store},
};
use tokio::task::JoinSet;

pub use explain::explain;

use crate::context::Ctx;

/// Rounds that run at once.
const CONCURRENCY: u16 = 16;

/// What every round shares.
pub(crate) struct Shell {
    ctx: Arc<Ctx>,
    caches: cache::Caches,
    memories: memory::Memories,
}

/// Why a round gave no answer.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The round panicked.
    #[error("the round did not end")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs until `ctx.shutdown`.
///
/// # Errors
/// A watch ended although nobody stopped it.
pub async fn run(ctx: Arc<Ctx>) -> anyhow::Result<()> {
    let (sets, writer) = reflector::store::<OrdinalSet>();
    let (queue, requests) = futures::channel::mpsc::unbounded::<ObjectRef<OrdinalSet>>();
    let shell = Arc::new(Shell {
        ctx: ctx.clone(),
        caches: cache::Caches::default(),
        memories: memory::Memories::default(),
    });
    let mut watches = JoinSet::new();
    triggers::spawn(&mut watches, &shell, &sets, writer, &queue);
    drop(queue);
    tokio::select! {
        () = ready(&shell, &sets) => {}
        error = broken_watch(&ctx, &mut watches) => return Err(error),
        () = ctx.shutdown.cancelled() => return Ok(()),
    }
    tracing::info!(sets = sets.state().len(), "sets are known");
    let rounds = applier(
        |set: Arc<OrdinalSet>, shell: Arc<Shell>| {
            // In a task of its own: rounds run side by side, not interleaved in one.
            let round = tokio::spawn(async move { round::run(&shell, &set).await });
            Box::pin(async move { round.await.map_err(RoundError::Task) })
        },
        |_, _, _| Action::requeue(round::RESYNC),
        shell,
        sets,
        requests.map(Ok::<_, std::convert::Infallible>),
        Config::default().concurrency(CONCURRENCY),
    );
    // The watches end at shutdown, and with them the queue; rounds that have
    // begun are ended first.
    let rounds = rounds.for_each(|result| async move {
        if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, set)) = result {
            tracing::error!(%set, %error, "round failed");
        }
    });
    tokio::select! {
        () = rounds => Ok(()),
        error = broken_watch(&ctx, &mut watches) => Err(error),
    }
}

/// Without one of its watches the loop would work on old news: better to end.
async fn broken_watch(ctx: &Ctx, watches: &mut JoinSet<()>) -> anyhow::Error {
    while let Some(ended) = watches.join_next().await {
        match ended {
            Err(error) => return error.into(),
            Ok(()) if ctx.shutdown.is_cancelled() => {}
            Ok(()) => return anyhow::anyhow!("a watch ended by itself"),
        }
    }
    std::future::pending().await
}

async fn ready(shell: &Shell, sets: &Store<OrdinalSet>) {
    // An error means that the writer is gone: the process is stopping.
    let _ = sets.wait_until_ready().await;
    shell.caches.ready().await;
}
