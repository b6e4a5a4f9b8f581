//! Sets: the loop that makes pods and claims as the planner says.
//!
//! One reflector per kind keeps what decisions need ([`cache`]); a change of any
//! object requests a reconcile of its set, which builds a View, asks
//! `berth_plan::set`, and executes the plan ([`reconcile`], [`apply`]). What one
//! reconcile leaves for the next (refusals, its own writes, backoff) is in [`state`];
//! all of it can be lost at any time.

mod answer;
mod apply;
mod cache;
mod calls;
mod competing;
mod context;
mod explain;
mod object;
mod reconcile;
mod state;
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

use self::{context::Context, object::SetObject};
use crate::context::Ctx;

/// Sets that are reconciled at once.
const CONCURRENCY: u16 = 16;

/// Why a reconcile gave no answer.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    /// It panicked.
    #[error("the reconcile did not end")]
    Task(#[source] tokio::task::JoinError),
}

/// Runs until `ctx.shutdown`; native sets only where `native` says so.
///
/// # Errors
/// A watch ended although nobody stopped it.
pub async fn run(ctx: Arc<Ctx>, native: bool) -> anyhow::Result<()> {
    let context = Arc::new(Context::new(ctx.clone()));
    let mut watches = JoinSet::new();
    let mut kinds: Vec<Box<dyn triggers::Ask>> = Vec::new();
    let mut loops: Vec<BoxFuture<'static, ()>> = Vec::new();
    let (kind, reconciles) = kind::<OrdinalSet>(&context, &mut watches);
    kinds.push(kind);
    loops.push(reconciles);
    if native {
        let (kind, reconciles) = self::kind::<NativeSet>(&context, &mut watches);
        kinds.push(kind);
        loops.push(reconciles);
    }
    triggers::spawn(&mut watches, &context, &Arc::new(kinds));
    // The watches end at shutdown, and with them the queues; reconciles that have
    // begun finish first.
    tokio::select! {
        _ = futures::future::join_all(loops) => Ok(()),
        error = broken_watch(&ctx, &mut watches) => Err(error),
    }
}

/// The watch, the queue and the reconciles of one kind.
fn kind<K: SetObject>(
    context: &Arc<Context>,
    watches: &mut JoinSet<()>,
) -> (Box<dyn triggers::Ask>, BoxFuture<'static, ()>) {
    let (sets, writer) = reflector::store::<K>();
    let (queue, requests) = futures::channel::mpsc::unbounded::<ObjectRef<K>>();
    watches.spawn(triggers::watch_sets(
        context.clone(),
        sets.clone(),
        writer,
        queue.clone(),
    ));
    let ask = Box::new(triggers::Queue {
        sets: sets.clone(),
        requests: queue,
    });
    let context = context.clone();
    let reconciles = async move {
        tokio::select! {
            () = ready(&context, &sets) => {}
            () = context.ctx.shutdown.cancelled() => return,
        }
        tracing::info!(
            kind = K::KIND.name(),
            sets = sets.state().len(),
            "sets are known"
        );
        let reconciles = applier(
            |set: Arc<K>, context: Arc<Context>| {
                // In a task of its own: reconciles run side by side, not interleaved in one.
                let task = tokio::spawn(async move { reconcile::run(&context, &*set).await });
                Box::pin(async move { task.await.map_err(ReconcileError::Task) })
            },
            |_, _, _| Action::requeue(reconcile::RESYNC),
            context,
            sets,
            requests.map(Ok::<_, std::convert::Infallible>),
            Config::default().concurrency(CONCURRENCY),
        );
        let reconciles = reconciles.for_each(|result| async move {
            if let Err(kube::runtime::controller::Error::ReconcilerFailed(error, set)) = result {
                tracing::error!(%set, %error, "reconcile failed");
            }
        });
        reconciles.await;
    };
    (ask, reconciles.boxed())
}

/// Without one of its watches the loop would work on stale data: better to end.
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

async fn ready<K: SetObject>(context: &Context, sets: &Store<K>) {
    // An error means that the writer is gone: the process is stopping.
    let _ = sets.wait_until_ready().await;
    context.caches.ready().await;
}

#[cfg(test)]
mod tests {
    /// What OwnerReferencesPermissionEnforcement asks of who changes owners: without it no
    /// retention policy could be carried out where that plugin is on.
    #[test]
    fn the_role_may_change_the_owners_of_claims() {
        let roles = include_str!("../../../deploy/base/rbac-controller.yaml");
        let verbs = |resource: &str| {
            let line = format!("resources: [{resource}]\n");
            let (_, rest) = roles.split_once(&line).expect(resource);
            rest.lines().next().unwrap_or_default().to_owned()
        };
        assert!(verbs("persistentvolumeclaims").contains("delete"));
        assert!(verbs("pods/finalizers").contains("update"));
        assert!(verbs("ordinalsets/finalizers").contains("update"));
        assert!(verbs("podtemplates").contains("create"));
    }
}
