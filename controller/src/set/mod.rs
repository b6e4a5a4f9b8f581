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
mod object;
mod rivals;
mod round;
mod triggers;
mod view;

use std::sync::Arc;

use berth_api::{NativeSet, OrdinalSet};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use kube::runtime::{
    controller::{Action, Config, applier},
    reflector::{self, ObjectRef, Store},
};
use tokio::task::JoinSet;

pub use explain::explain;

use self::object::SetObject;
use crate::context::Ctx;

/// Rounds that run at once.
const CONCURRENCY: u16 = 16;

/// What every round shares.
pub(crate) struct Shell {
    ctx: Arc<Ctx>,
    caches: cache::Caches,
    memories: memory::Memories,
    rivals: rivals::Rivals,
}

/// Why a round gave no answer.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The round panicked.
    #[error("the round did not end")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs until `ctx.shutdown`; native sets only where `native` says so.
///
/// # Errors
/// A watch ended although nobody stopped it.
pub async fn run(ctx: Arc<Ctx>, native: bool) -> anyhow::Result<()> {
    let shell = Arc::new(Shell {
        ctx: ctx.clone(),
        caches: cache::Caches::default(),
        memories: memory::Memories::default(),
        rivals: rivals::Rivals::default(),
    });
    let mut watches = JoinSet::new();
    let mut kinds: Vec<Box<dyn triggers::Ask>> = Vec::new();
    let mut loops: Vec<BoxFuture<'static, ()>> = Vec::new();
    let (kind, rounds) = kind::<OrdinalSet>(&shell, &mut watches);
    kinds.push(kind);
    loops.push(rounds);
    if native {
        let (kind, rounds) = self::kind::<NativeSet>(&shell, &mut watches);
        kinds.push(kind);
        loops.push(rounds);
    }
    triggers::spawn(&mut watches, &shell, &Arc::new(kinds));
    // The watches end at shutdown, and with them the queues; rounds that have
    // begun are ended first.
    tokio::select! {
        _ = futures::future::join_all(loops) => Ok(()),
        error = broken_watch(&ctx, &mut watches) => Err(error),
    }
}

/// The watch, the queue and the rounds of one kind.
fn kind<K: SetObject>(
    shell: &Arc<Shell>,
    watches: &mut JoinSet<()>,
) -> (Box<dyn triggers::Ask>, BoxFuture<'static, ()>) {
    let (sets, writer) = reflector::store::<K>();
    let (queue, requests) = futures::channel::mpsc::unbounded::<ObjectRef<K>>();
    watches.spawn(triggers::watch_sets(shell.clone(), writer, queue.clone()));
    let ask = Box::new(triggers::Queue {
        sets: sets.clone(),
        requests: queue,
    });
    let shell = shell.clone();
    let rounds = async move {
        tokio::select! {
            () = ready(&shell, &sets) => {}
            () = shell.ctx.shutdown.cancelled() => return,
        }
        tracing::info!(
            kind = K::KIND.name(),
            sets = sets.state().len(),
            "sets are known"
        );
        let rounds = applier(
            |set: Arc<K>, shell: Arc<Shell>| {
                // In a task of its own: rounds run side by side, not interleaved in one.
                let round = tokio::spawn(async move { round::run(&shell, &*set).await });
                Box::pin(async move { round.await.map_err(RoundError::Task) })
            },
            |_, _, _| Action::requeue(round::RESYNC),
            shell,
            sets,
            requests.map(Ok::<_, std::convert::Infallible>),
            Config::default().concurrency(CONCURRENCY),
        );
        let rounds = rounds.for_each(|result| async move {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, set)) = result {
                tracing::error!(%set, %error, "round failed");
            }
        });
        rounds.await;
    };
    (ask, rounds.boxed())
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

async fn ready<K: SetObject>(shell: &Shell, sets: &Store<K>) {
    // An error means that the writer is gone: the process is stopping.
    let _ = sets.wait_until_ready().await;
    shell.caches.ready().await;
}
