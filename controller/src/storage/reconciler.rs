//! The loop's own state beside its knowledge of the cluster: what is queued, being written,
//! awaited and throttled; how a write is started and how its answer is handled.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_kube::{Urgency, WriteThrottle};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};

use super::{
    apply,
    queue::{Item, Queue},
    state::ClusterState,
    write::{Failure, Observed, Write},
};
use crate::{
    context::Ctx,
    metrics::{Loop as LoopName, Outcome},
};

/// Writes under way at once; the API server's own fairness governs beyond that.
const MAX_CONCURRENT: usize = 64;

/// Figures that are held back are looked at no more often than this, however many there
/// are.
const BATCH_WINDOW: Duration = Duration::from_millis(100);

/// What one write answered.
pub(super) struct Answer {
    item: Item,
    result: Result<Vec<Observed>, Failure>,
}

/// The loop's state beside its knowledge.
pub(super) struct Reconciler {
    pub(super) ctx: Arc<Ctx>,
    pub(super) state: ClusterState,
    pub(super) owner: Option<OwnerReference>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) tasks: JoinSet<Answer>,
    pub(super) queue: Queue,
    /// Volumes whose claims wait for room.
    pub(super) waiting: BTreeSet<String>,
    /// The throttle of each Pool's status and each capacity object.
    pub(super) throttles: BTreeMap<Item, WriteThrottle>,
    /// Capacity objects that a claim waits for: it is taken back from its node
    /// once the scheduler can know why.
    pub(super) pending: BTreeSet<String>,
    /// Pools and labels must be compared again.
    pub(super) pools_due: bool,
    /// Capacity objects must be compared again.
    pub(super) capacities_due: bool,
}

impl Reconciler {
    pub(super) fn new(ctx: Arc<Ctx>, owner: Option<OwnerReference>) -> Self {
        Self {
            ctx,
            owner,
            state: ClusterState::default(),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            tasks: JoinSet::new(),
            queue: Queue::default(),
            waiting: BTreeSet::new(),
            throttles: BTreeMap::new(),
            pending: BTreeSet::new(),
            pools_due: true,
            capacities_due: true,
        }
    }

    /// Marks what is due at `now`.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(item) = self.queue.pop(now) {
            self.is_due(item);
        }
    }

    /// Marks an item, so that the next round looks at it.
    pub(super) fn is_due(&mut self, item: Item) {
        match item {
            Item::Pool(_) | Item::NodeLabels(_) | Item::Pools => self.pools_due = true,
            Item::Capacity(_) | Item::Capacities => self.capacities_due = true,
            Item::Volume(_) | Item::Snapshot(_) => {
                self.state.dirty.insert(item);
            }
        }
    }

    /// Whether a status that changed may be written now; if not, until when it is
    /// held.
    pub(super) fn throttle(
        &mut self,
        item: &Item,
        urgency: Urgency,
        now: Instant,
    ) -> Result<(), Instant> {
        let throttle = self.throttles.entry(item.clone()).or_default();
        let due = throttle.due(urgency, now);
        if due > now {
            return Err(due);
        }
        throttle.wrote(now);
        Ok(())
    }

    /// Looks at all items of a kind again when the first held one is due.
    pub(super) fn look_again_at_held(&mut self, all: Item, due: Option<Instant>, now: Instant) {
        if let Some(due) = due {
            self.queue.look_again(all, due.max(now + BATCH_WINDOW));
        }
    }

    /// Starts a write.
    pub(super) fn start(&mut self, item: Item, write: Write) {
        let (ctx, permits) = (self.ctx.clone(), self.permits.clone());
        self.queue.begin(item.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await;
            let result = apply::apply(&ctx, write).await;
            Answer { item, result }
        });
    }

    pub(super) fn answered(&mut self, answer: Result<Answer, JoinError>) -> anyhow::Result<()> {
        let Answer { item, result } = answer?;
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(failure) if failure.is_conflict() => Outcome::Conflict,
            Err(_) => Outcome::Failed,
        };
        self.ctx.metrics.wrote(LoopName::Storage, outcome);
        match result {
            Ok(all) => {
                self.queue.done(&item);
                for observed in all {
                    self.observe(observed);
                }
            }
            Err(failure) => {
                // As far as we know, what we assumed to be placed is not.
                if let Item::Volume(name) = &item
                    && let Some(volume) = self.state.assumed.remove(name)
                {
                    self.state.rooms_dirty.insert(volume.spec.pool);
                }
                let pause = self.queue.failed(item.clone(), Instant::now());
                if failure.is_conflict() {
                    tracing::debug!(?item, reason = failure.chain(), "decided anew");
                } else {
                    tracing::warn!(
                        ?item,
                        error = failure.chain(),
                        ?pause,
                        "not done; tried again"
                    );
                }
            }
        }
        // Changes that came while the write was under way were put off; those of
        // volumes and snapshots were kept.
        if !matches!(item, Item::Volume(_) | Item::Snapshot(_)) {
            self.is_due(item);
        }
        Ok(())
    }

    pub(super) fn observe(&mut self, observed: Observed) {
        match observed {
            Observed::Volume(object) => self.state.observe_volume(*object),
            Observed::Pv(object) => self.state.observe_pv(*object),
            Observed::Claim(object) => self.state.observe_claim(*object),
            Observed::Pool(object) => self.state.observe_pool(*object),
            Observed::Node(object) => self.state.observe_node(*object),
            Observed::Capacity(object) => self.state.observe_capacity(*object),
            Observed::Snapshot(object) => self.state.observe_snapshot(*object),
            Observed::Content(object) => self.state.observe_content(*object),
        }
    }
}
