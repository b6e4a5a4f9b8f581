//! Carries out the steps for the Snapshots of this node. Everything that is decided
//! is decided in [`decide`] and [`report`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use berth_api::{Snapshot, SnapshotPhase};
use berth_kube::{CallError, watch};
use berth_provisioner::{PoolId, PoolReport, SnapshotReport, SnapshotSpec};
use berth_telemetry::causes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{
        WatchStreamExt, applier,
        controller::{Action, Config, ReconcileRequest},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Seen, Step, decide},
    report::Outcome,
};
use super::{
    decide::pool_of,
    events::Events,
    volumes::{AT_ONCE, BACKOFF, LOOK_AGAIN},
    within,
};
use crate::{
    disks::{Disks, Failure},
    metrics::Operation,
};

pub mod decide;
pub mod report;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Disk(#[from] Failure),
    #[error("the status is not written")]
    Api(#[from] CallError),
}

struct Context {
    disks: Disks,
    api: Api<Snapshot>,
    events: Events,
    /// Failures in a row, by snapshot.
    failures: Mutex<BTreeMap<String, u32>>,
}

impl Context {
    /// Comes back later, and later each time.
    fn back_off(&self, name: &str) -> Action {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = all.entry(name.to_owned()).or_default();
        *failures = failures.saturating_add(1);
        Action::requeue(BACKOFF.pause(*failures))
    }

    fn forget(&self, name: &str) {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(name);
    }
}

/// Reconciles until the token is cancelled; a step that runs is finished.
pub async fn run(client: Client, disks: Disks, token: CancellationToken) {
    let api: Api<Snapshot> = Api::all(client.clone());
    let selector = format!("spec.node={}", disks.node_name);
    let config = watch::config().fields(&selector);
    let (store, writer) = reflector::store();
    let queue = watcher(api.clone(), config)
        .default_backoff()
        .modify(|snapshot| snapshot.metadata.managed_fields = None)
        .reflect(writer)
        .applied_objects()
        .map_ok(|snapshot| ReconcileRequest::from(ObjectRef::from_obj(&snapshot)))
        .inspect_err(|error| {
            let error = causes(error);
            tracing::warn!(error, "watching snapshots failed; it is tried again");
        })
        .take_until(token.cancelled_owned());
    let context = Arc::new(Context {
        events: Events::new(client, &disks.node_name),
        disks,
        api,
        failures: Mutex::default(),
    });
    applier(
        |snapshot, context| Box::pin(reconcile(snapshot, context)),
        |snapshot: Arc<Snapshot>, error: &Error, context: Arc<Context>| {
            let name = snapshot.name_any();
            tracing::warn!(
                snapshot = name,
                error = causes(error),
                "will be tried again"
            );
            context.back_off(&name)
        },
        context,
        store,
        queue,
        Config::default().concurrency(AT_ONCE),
    )
    .for_each(async |_| ())
    .await;
}

/// Looks for the snapshot first and at the pool after it: a pool that is well
/// *afterwards* proves that a snapshot which was not found is not there.
async fn look(
    disks: &Disks,
    name: &str,
    pool: &str,
) -> Result<(Option<PoolReport>, Option<SnapshotReport>), Failure> {
    let (id, home) = (name.to_owned(), PoolId::new(pool)?);
    let snapshot = disks.read(move |disk| disk.find_snapshot(&id)).await?;
    let pools = match snapshot {
        Some(_) => disks.recent_pools().await?,
        None => disks.rescan().await?,
    };
    let pool = pool_of(&pools, &home).cloned();
    Ok((pool, snapshot))
}

async fn reconcile(snapshot: Arc<Snapshot>, context: Arc<Context>) -> Result<Action, Error> {
    let name = snapshot.name_any();
    let spec = &snapshot.spec;
    let (pool, there) = look(&context.disks, &name, &spec.pool).await?;
    let seen = Seen {
        pool: pool.as_ref(),
        snapshot: there.as_ref(),
    };
    let id = name.clone();
    let outcome = match decide(spec, snapshot.status.as_ref(), &seen) {
        Step::Nothing => {
            context.forget(&name);
            return Ok(Action::await_change());
        }
        Step::Take => {
            let volume = spec.volume.clone();
            let work = move |disk: &berth_provisioner::Provisioner| {
                disk.snapshot(&SnapshotSpec { id, volume })
            };
            let operation = Operation::Snapshot;
            match context.disks.operate(operation, &name, work).await {
                Ok(report) => Outcome::There(Box::new(report)),
                Err(Failure::Disk(error)) => Outcome::NotThere {
                    phase: SnapshotPhase::Failed,
                    message: error.to_string(),
                },
                Err(failure) => return Err(failure.into()),
            }
        }
        Step::Erase => {
            let operation = Operation::EraseSnapshot;
            let work = move |disk: &berth_provisioner::Provisioner| disk.delete_snapshot(&id);
            match context.disks.operate(operation, &name, work).await {
                Ok(()) => erased(),
                Err(Failure::Disk(error)) => Outcome::NotThere {
                    phase: snapshot
                        .status
                        .as_ref()
                        .map(|s| s.phase)
                        .unwrap_or_default(),
                    message: format!("not erased: {error}"),
                },
                Err(failure) => return Err(failure.into()),
            }
        }
        Step::Erased => erased(),
        Step::Report => match there {
            Some(report) => Outcome::There(Box::new(report)),
            None => return Ok(context.back_off(&name)),
        },
        Step::Wait { phase, message } => Outcome::NotThere { phase, message },
    };
    write(&context, &snapshot, &name, &outcome).await?;
    Ok(match &outcome {
        Outcome::There(_) => {
            context.forget(&name);
            Action::requeue(LOOK_AGAIN)
        }
        Outcome::NotThere {
            phase: SnapshotPhase::Deleted,
            ..
        } => {
            context.forget(&name);
            Action::await_change()
        }
        Outcome::NotThere { .. } => context.back_off(&name),
    })
}

fn erased() -> Outcome {
    Outcome::NotThere {
        phase: SnapshotPhase::Deleted,
        message: String::new(),
    }
}

/// Writes the status if it changed, and publishes an event. A conflict means that the
/// object changed: the watch brings it here again.
async fn write(
    context: &Context,
    snapshot: &Snapshot,
    name: &str,
    outcome: &Outcome,
) -> Result<(), CallError> {
    let new = report::status(snapshot, outcome, Timestamp::now());
    let old = snapshot.status.as_ref();
    if old == Some(&new) {
        return Ok(());
    }
    let changed = Snapshot {
        status: Some(new.clone()),
        ..snapshot.clone()
    };
    let parameters = PostParams::default();
    let request = context.api.replace_status(name, &parameters, &changed);
    match within(format!("write status of Snapshot {name}"), request).await {
        Ok(_) => {}
        // Gone meanwhile; nothing on the disk depends on it.
        Err(error) if error.is_not_found() => return Ok(()),
        Err(error) => return Err(error),
    }
    context.disks.metrics().status_written();
    let message = new.message.as_deref();
    tracing::info!(snapshot = name, phase = ?new.phase, message, "status written");
    if let Some(event) = report::event(old, &new) {
        context.events.publish(snapshot, event).await;
    }
    Ok(())
}
