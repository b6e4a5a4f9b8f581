//! The frame for objects of this node that describe something on its disks: look, decide,
//! act, write the status, and come back. Volumes and Snapshots differ in what is in the
//! frame, see [`Kind`].
//!
//! As many objects are worked on at once as there are: what bounds the work is each pool's
//! own lanes ([`crate::lanes`]), so that those of one pool wait for no other's.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use berth_kube::{Backoff, CallError, Urgency, WriteThrottle, watch};
use berth_provisioner::{PoolId, PoolReport, ProblemKind, Provisioner};
use berth_telemetry::causes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::PostParams,
    runtime::{
        WatchStreamExt, applier,
        controller::{Action, Config, ReconcileRequest},
        reflector::{ObjectRef, Store, store::Writer},
        watcher,
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{events::Events, within};
use crate::disks::{Disks, Failure, pool_of};

/// How often what is well is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Pauses after something went wrong.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(120),
};

/// Requests to the API server at once, events aside.
const WRITES: usize = 8;

/// What one look at the disk shows.
#[derive(Debug)]
pub(super) struct Look<Found> {
    /// The pool that the object names, if any directory of this node has its id.
    pub(super) pool: Option<PoolReport>,
    /// What was looked for, if any pool has a record of it.
    pub(super) found: Option<Found>,
}

/// What came of acting on an object.
pub(super) enum Acted<Outcome> {
    /// There was nothing to do, and there will be nothing until the object changes.
    Nothing,
    /// It is gone since it was looked at: look again.
    Changed,
    /// This is to be reported.
    Outcome(Outcome),
}

/// When an object is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is well: after a while.
    Well,
    /// Something is wrong: soon, and later each time.
    BackOff,
    /// All is said: when the object changes.
    Change,
}

/// A kind of object that describes something on this node's disks.
pub(super) trait Kind: Send + Sync + 'static {
    /// The object.
    type Object: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// Its status.
    type Status: Clone + Send + Sync;
    /// What the provisioner reports of it.
    type Found: Send + 'static;
    /// What the status is made of.
    type Outcome: Send + Sync;

    /// Its name in messages.
    const NAME: &'static str;

    /// The pool that the object names.
    fn pool(object: &Self::Object) -> &str;
    /// Looks for it on the disk.
    fn find(disk: &Provisioner, name: &str) -> Option<Self::Found>;
    /// Whether what was found needs no look at its pool.
    fn is_well(found: &Self::Found) -> bool;
    /// Decides, and does what was decided.
    fn act(
        disks: &Disks,
        name: &str,
        object: &Self::Object,
        seen: Look<Self::Found>,
    ) -> impl Future<Output = Result<Acted<Self::Outcome>, Failure>> + Send;
    /// When to look again after an outcome.
    fn next(outcome: &Self::Outcome) -> Next;
    /// What is wrong with it although it can be used.
    fn troubles(outcome: &Self::Outcome) -> Vec<(PoolId, ProblemKind)>;
    /// Shows the troubles of all objects.
    fn show_troubles(disks: &Disks, troubles: &mut dyn Iterator<Item = (PoolId, ProblemKind)>);
    /// The object's status.
    fn old(object: &Self::Object) -> Option<&Self::Status>;
    /// The status that says the outcome.
    fn status(object: &Self::Object, outcome: &Self::Outcome, now: Timestamp) -> Self::Status;
    /// How soon it must be written, if it is worth a write.
    fn urgency(old: Option<&Self::Status>, new: &Self::Status) -> Option<Urgency>;
    /// The object with another status.
    fn with(object: &Self::Object, status: Self::Status) -> Self::Object;
    /// Tells others of a status that was written.
    fn told(disks: &Disks, events: &Events, object: &Self::Object, new: &Self::Status);
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Disk(#[from] Failure),
    #[error("the status is not written")]
    Api(#[from] CallError),
}

struct Context<K: Kind> {
    disks: Disks,
    api: Api<K::Object>,
    events: Events,
    writes: Semaphore,
    /// Per object: failures in a row, the throttle of its status, and its troubles.
    memory: Mutex<BTreeMap<String, Memory>>,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    failures: u32,
    throttle: WriteThrottle,
    troubles: Vec<(PoolId, ProblemKind)>,
}

impl<K: Kind> Context<K> {
    fn remember<T>(&self, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(name.to_owned()).or_default())
    }

    fn forget(&self, name: &str) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(name);
        self.count_troubles(&memory);
    }

    fn remember_troubles(&self, name: &str, troubles: Vec<(PoolId, ProblemKind)>) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.entry(name.to_owned()).or_default().troubles = troubles;
        self.count_troubles(&memory);
    }

    fn count_troubles(&self, memory: &BTreeMap<String, Memory>) {
        let mut troubles = memory.values().flat_map(|memory| memory.troubles.clone());
        K::show_troubles(&self.disks, &mut troubles);
    }

    /// Comes back later, and later each time.
    fn back_off(&self, name: &str) -> Action {
        Action::requeue(self.remember(name, |memory| {
            memory.failures = memory.failures.saturating_add(1);
            BACKOFF.pause(memory.failures)
        }))
    }
}

/// Reconciles the objects of this node until the token is cancelled; a step that runs is
/// finished. `changes` are names of what changed on the disks; a name without an object is
/// passed over. `objects` is filled with this node's objects.
pub(super) async fn run<K: Kind>(
    client: Client,
    disks: Disks,
    changes: impl Stream<Item = String> + Send + 'static,
    (store, writer): (Store<K::Object>, Writer<K::Object>),
    token: CancellationToken,
) {
    let api: Api<K::Object> = Api::all(client.clone());
    let selector = format!("spec.node={}", disks.node_name);
    let config = watch::config().fields(&selector);
    let watched = watcher(api.clone(), config)
        .default_backoff()
        .modify(|object: &mut K::Object| object.meta_mut().managed_fields = None)
        .reflect(writer)
        .applied_objects()
        .map_ok(|object| ReconcileRequest::from(ObjectRef::from_obj(&object)));
    // What has no object is not in the store, and so passed over.
    let changed =
        changes.map(|name| Ok(ReconcileRequest::from(ObjectRef::<K::Object>::new(&name))));
    let queue = stream::select(watched, changed.boxed())
        .inspect_err(|error| {
            let (kind, error) = (K::NAME, causes(error));
            tracing::warn!(kind, error, "watching failed; it is tried again");
        })
        .take_until(token.clone().cancelled_owned());
    let context = Arc::new(Context::<K> {
        events: Events::new(client, &disks.node_name, token.clone()),
        disks,
        api,
        writes: Semaphore::new(WRITES),
        memory: Mutex::default(),
    });
    applier(
        |object, context| Box::pin(reconcile(object, context)),
        |object: Arc<K::Object>, error: &Error, context: Arc<Context<K>>| {
            let (kind, name) = (K::NAME, object.name_any());
            tracing::warn!(kind, name, error = causes(error), "will be tried again");
            context.back_off(&name)
        },
        context,
        store,
        queue,
        // No bound: see above.
        Config::default().concurrency(0),
    )
    .for_each(async |_| ())
    .await;
}

/// Looks for it first and at its pool after that: a pool that is well *afterwards* proves
/// that what was not found is not there. Asks no other pool.
async fn look<K: Kind>(disks: &Disks, name: &str, pool: &str) -> Result<Look<K::Found>, Failure> {
    let (id, home) = (name.to_owned(), PoolId::new(pool)?);
    let found = match disks.read_of(name, move |disk| K::find(disk, &id)).await {
        // From memory, now that the disk is known to be silent.
        Err(Failure::Silent { .. }) => {
            let id = name.to_owned();
            disks.read(move |disk| K::find(disk, &id)).await?
        }
        answer => answer?,
    };
    let pool = match found.as_ref().is_some_and(K::is_well) {
        true => pool_of(&disks.pools(), &home).cloned(),
        false => disks.look_at(&home).await?,
    };
    Ok(Look { pool, found })
}

async fn reconcile<K: Kind>(
    object: Arc<K::Object>,
    context: Arc<Context<K>>,
) -> Result<Action, Error> {
    let name = object.name_any();
    let seen = look::<K>(&context.disks, &name, K::pool(&object)).await?;
    let outcome = match K::act(&context.disks, &name, &object, seen).await? {
        Acted::Nothing => {
            context.forget(&name);
            return Ok(Action::await_change());
        }
        Acted::Changed => return Ok(context.back_off(&name)),
        Acted::Outcome(outcome) => outcome,
    };
    context.remember_troubles(&name, K::troubles(&outcome));
    let held = write(&context, &object, &name, &outcome).await?;
    Ok(match K::next(&outcome) {
        Next::Well => {
            context.remember(&name, |memory| memory.failures = 0);
            Action::requeue(held.unwrap_or(LOOK_AGAIN))
        }
        Next::BackOff => context.back_off(&name),
        Next::Change => {
            context.forget(&name);
            Action::await_change()
        }
    })
}

/// Writes the status if that is worth a write, and if it is time; answers how
/// long it is held otherwise. A conflict means that the object changed: the watch
/// brings it here again.
async fn write<K: Kind>(
    context: &Context<K>,
    object: &K::Object,
    name: &str,
    outcome: &K::Outcome,
) -> Result<Option<Duration>, CallError> {
    let new = K::status(object, outcome, Timestamp::now());
    let now = Instant::now();
    let due = context.remember(name, |memory| {
        let urgency = K::urgency(K::old(object), &new);
        if urgency.is_none() {
            memory.throttle.settled();
        }
        urgency.map(|urgency| memory.throttle.due(urgency, now))
    });
    match due {
        None => return Ok(None),
        Some(due) if due > now => return Ok(Some(due - now)),
        Some(_) => {}
    }
    let changed = K::with(object, new.clone());
    let parameters = PostParams::default();
    let request = async {
        // It is never closed.
        let _place = context.writes.acquire().await;
        let request = context.api.replace_status(name, &parameters, &changed);
        within(format!("write status of {} {name}", K::NAME), request).await
    };
    match request.await {
        Ok(_) => {}
        // Gone meanwhile; nothing on the disk depends on it.
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    }
    context.disks.metrics().status_written();
    context.remember(name, |memory| memory.throttle.wrote(Instant::now()));
    K::told(&context.disks, &context.events, object, &new);
    Ok(None)
}
