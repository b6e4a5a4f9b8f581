//! Carries out the steps for the Volumes of this node. Everything that is
//! decided is decided in [`super::decide`] and [`super::report`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use berth_api::{Volume, VolumePhase, VolumeStatus};
use berth_kube::{Backoff, CallError, WriteThrottle, watch};
use berth_provisioner::{PoolId, PoolReport, ProblemKind, VolumeHealth, VolumeReport};
use berth_telemetry::causes;
use futures::{StreamExt, TryStreamExt, stream};
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
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    convert,
    decide::{Seen, Step, decide, pool_of},
    events::Events,
    report::{self, Outcome},
    within,
};
use crate::{
    disks::{Disks, Failure},
    metrics::Operation,
};

/// Volumes that are worked on at once: deletions may take their time.
pub(super) const AT_ONCE: u16 = 8;

/// How often a volume that is well is looked at.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Pauses after something went wrong.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(120),
};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Disk(#[from] Failure),
    #[error("the status is not written")]
    Api(#[from] CallError),
}

struct Context {
    disks: Disks,
    api: Api<Volume>,
    events: Events,
    /// Per volume: failures in a row, the throttle of its status, and its troubles.
    memory: Mutex<BTreeMap<String, Memory>>,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    failures: u32,
    throttle: WriteThrottle,
    troubles: Vec<(PoolId, ProblemKind)>,
}

impl Context {
    fn remember<T>(&self, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(name.to_owned()).or_default())
    }

    fn forget(&self, name: &str) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(name);
        self.count_troubles(&memory);
    }

    fn remember_troubles(&self, name: &str, outcome: &Outcome) {
        let troubles = match outcome {
            Outcome::There(report, _) => report.kinds_of_problem().collect(),
            Outcome::NotThere { .. } => Vec::new(),
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.entry(name.to_owned()).or_default().troubles = troubles;
        self.count_troubles(&memory);
    }

    fn count_troubles(&self, memory: &BTreeMap<String, Memory>) {
        let troubles = memory.values().flat_map(|memory| memory.troubles.clone());
        self.disks.metrics().volumes(troubles);
    }

    /// Comes back later, and later each time.
    fn back_off(&self, name: &str) -> Action {
        Action::requeue(self.remember(name, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            BACKOFF.pause(memory.failures)
        }))
    }
}

/// Reconciles until the token is cancelled; a step that runs is finished.
pub async fn run(
    client: Client,
    disks: Disks,
    changes: mpsc::Receiver<String>,
    token: CancellationToken,
) {
    let api: Api<Volume> = Api::all(client.clone());
    let selector = format!("spec.node={}", disks.node_name);
    let config = watch::config().fields(&selector);
    let (store, writer) = reflector::store();
    let watched = watcher(api.clone(), config)
        .default_backoff()
        .modify(|volume| volume.metadata.managed_fields = None)
        .reflect(writer)
        .applied_objects()
        .map_ok(|volume| ReconcileRequest::from(ObjectRef::from_obj(&volume)));
    // A volume without an object is not in the store, and so passed over.
    let changed = ReceiverStream::new(changes)
        .map(|name| Ok(ReconcileRequest::from(ObjectRef::<Volume>::new(&name))));
    let queue = stream::select(watched, changed)
        .map(log_watch_errors)
        .take_until(token.cancelled_owned());
    let context = Arc::new(Context {
        events: Events::new(client, &disks.node_name),
        disks,
        api,
        memory: Mutex::default(),
    });
    let config = Config::default().concurrency(AT_ONCE);
    applier(
        |volume, context| Box::pin(reconcile(volume, context)),
        |volume: Arc<Volume>, error: &Error, context: Arc<Context>| {
            let name = volume.name_any();
            tracing::warn!(volume = name, error = causes(error), "will be tried again");
            context.back_off(&name)
        },
        context,
        store,
        queue,
        config,
    )
    .for_each(async |_| ())
    .await;
}

fn log_watch_errors(
    request: Result<ReconcileRequest<Volume>, watcher::Error>,
) -> Result<ReconcileRequest<Volume>, watcher::Error> {
    if let Err(error) = &request {
        tracing::warn!(
            error = causes(error),
            "watching volumes failed; it is tried again"
        );
    }
    request
}

/// What one look at the disk shows.
struct Look {
    pool: Option<PoolReport>,
    volume: Option<VolumeReport>,
}

/// Looks for the volume first and at the pool after it: a pool that is well
/// *afterwards* proves that a volume which was not found is not there.
async fn look(disks: &Disks, name: &str, pool: &str) -> Result<Look, Failure> {
    let (id, home) = (name.to_owned(), PoolId::new(pool)?);
    let volume = disks.read(move |disk| disk.find(&id)).await?;
    let well = volume
        .as_ref()
        .is_some_and(|volume| volume.health == VolumeHealth::Ready);
    let pools = match well {
        true => disks.recent_pools().await?,
        false => disks.rescan().await?,
    };
    let pool = pool_of(&pools, &home).cloned();
    Ok(Look { pool, volume })
}

async fn reconcile(volume: Arc<Volume>, context: Arc<Context>) -> Result<Action, Error> {
    let name = volume.name_any();
    let spec = &volume.spec;
    let phase = volume
        .status
        .as_ref()
        .map_or(VolumePhase::Pending, |status| status.phase);
    let seen = look(&context.disks, &name, &spec.pool).await?;
    let step = decide(
        spec,
        volume.status.as_ref(),
        &Seen {
            pool: seen.pool.as_ref(),
            volume: seen.volume.as_ref(),
        },
    );
    let outcome = match step {
        Step::Nothing => {
            context.forget(&name);
            return Ok(Action::await_change());
        }
        Step::Create => {
            let pool = PoolId::new(spec.pool.as_str()).map_err(Failure::from)?;
            let want = convert::wanted(&name, spec);
            let work = context
                .disks
                .operate(Operation::Create, &name, move |disk| {
                    disk.create(&pool, &want)
                })
                .await;
            match work {
                Ok(report) => Outcome::There(Box::new(report), None),
                Err(Failure::Disk(error)) => Outcome::of_error(phase, &error),
                Err(failure) => return Err(failure.into()),
            }
        }
        Step::Grow(size) => {
            let id = name.clone();
            let work = context
                .disks
                .operate(Operation::Grow, &name, move |disk| disk.expand(&id, size))
                .await;
            changed(work, seen.volume, "cannot grow")?
        }
        Step::Assign => {
            let (id, claim, set) = (name.clone(), spec.claim.clone(), spec.owner.clone());
            let work = context
                .disks
                .operate(Operation::Assign, &name, move |disk| {
                    disk.assign(&id, claim, set)
                })
                .await;
            changed(work, seen.volume, "cannot be given to its claim")?
        }
        Step::Erase => {
            let pool = PoolId::new(spec.pool.as_str()).map_err(Failure::from)?;
            let id = name.clone();
            let work = context
                .disks
                .operate(Operation::Erase, &name, move |disk| {
                    disk.delete_from(&pool, &id)
                })
                .await;
            match work {
                Ok(()) => erased(),
                // Mounted since it was looked at: as if it had been then.
                Err(Failure::Disk(error)) => Outcome::NotThere {
                    phase,
                    message: format!("not erased: {error}"),
                },
                Err(failure) => return Err(failure.into()),
            }
        }
        Step::Erased => erased(),
        Step::Report => match seen.volume {
            Some(report) => Outcome::There(Box::new(report), None),
            None => return Ok(Action::requeue(BACKOFF.first)),
        },
        Step::Wait { phase, message } => Outcome::NotThere { phase, message },
        Step::Lost(message) => Outcome::NotThere {
            phase: VolumePhase::Lost,
            message,
        },
    };
    context.remember_troubles(&name, &outcome);
    let held = write(&context, &volume, &name, &outcome).await?;
    Ok(match &outcome {
        Outcome::There(_, None) => {
            context.remember(&name, |memory| memory.failures = 0);
            Action::requeue(held.unwrap_or(LOOK_AGAIN))
        }
        Outcome::NotThere {
            phase: VolumePhase::Deleted | VolumePhase::NoRoom,
            ..
        } => Action::await_change(),
        Outcome::There(_, Some(_)) | Outcome::NotThere { .. } => context.back_off(&name),
    })
}

/// What came of changing a volume that is there: it still is, whatever failed.
fn changed(
    work: Result<VolumeReport, Failure>,
    before: Option<VolumeReport>,
    cannot: &str,
) -> Result<Outcome, Failure> {
    match (work, before) {
        (Ok(report), _) => Ok(Outcome::There(Box::new(report), None)),
        (Err(Failure::Disk(error)), Some(report)) => Ok(Outcome::There(
            Box::new(report),
            Some(format!("{cannot}: {error}")),
        )),
        (Err(failure), _) => Err(failure),
    }
}

fn erased() -> Outcome {
    Outcome::NotThere {
        phase: VolumePhase::Deleted,
        message: String::new(),
    }
}

/// Writes the status if that is worth a write, and if it is time; answers how
/// long it is held otherwise. A conflict means that the object changed: the watch
/// brings it here again.
async fn write(
    context: &Context,
    volume: &Volume,
    name: &str,
    outcome: &Outcome,
) -> Result<Option<Duration>, CallError> {
    let new = report::status(volume, outcome, Timestamp::now());
    let old = volume.status.as_ref();
    let now = Instant::now();
    let due = context.remember(name, |memory| {
        let since = match memory.throttle.written() {
            Some(written) => now.duration_since(written),
            None => Duration::MAX,
        };
        if report::worth_writing(old, &new, since) {
            Some(memory.throttle.due(report::urgency(old, &new), now))
        } else {
            memory.throttle.settled();
            None
        }
    });
    match due {
        None => return Ok(None),
        Some(due) if due > now => return Ok(Some(due - now)),
        Some(_) => {}
    }
    let changed = Volume {
        status: Some(new.clone()),
        ..volume.clone()
    };
    let parameters = PostParams::default();
    let request = context.api.replace_status(name, &parameters, &changed);
    match within(format!("write status of Volume {name}"), request).await {
        Ok(_) => {}
        // Gone or changed meanwhile; nothing on the disk depends on it.
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    }
    context.disks.metrics().status_written();
    context.remember(name, |memory| memory.throttle.wrote(Instant::now()));
    if new.phase == VolumePhase::NoRoom {
        context.disks.set_refused();
    }
    log_change(name, old, &new);
    context.events.status_changed(volume, &new).await;
    Ok(None)
}

fn log_change(name: &str, old: Option<&VolumeStatus>, new: &VolumeStatus) {
    let old_phase = old.map_or(VolumePhase::Pending, |old| old.phase);
    if old_phase != new.phase {
        let message = new.message.as_deref();
        tracing::info!(volume = name, from = ?old_phase, to = ?new.phase, message, "phase changed");
    }
}
