//! Storage: pools are granted, claims placed, volumes carried through their
//! life, and the scheduler told about room.
//!
//! One loop owns all knowledge ([`world`]). Changes come from watches and from
//! the answers to own writes; each round decides about what they touch, with the
//! pure functions of `berth-plan`, and hands the writes to tasks ([`apply`]). At
//! most one write per object is under way, and what it answers is known before
//! the object is looked at again.

mod apply;
mod cache;
mod explain;
mod publish;
mod queue;
mod round;
mod slim;
mod snapshots;
mod sources;
mod watch;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use berth_api::pace::{Hurry, Pace};
use futures::{FutureExt, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use tokio::{
    sync::Semaphore,
    task::{JoinError, JoinSet},
};

use self::{
    apply::{Failure, Put, Work},
    queue::{Item, Queue},
    world::World,
};
use crate::{
    context::Ctx,
    metrics::{Loop as LoopName, Outcome},
};

pub use explain::explain;

/// Writes under way at once; the API server's own fairness governs beyond that.
const AT_ONCE: usize = 64;

/// Changes taken in before a round, at most: a flood must not keep decisions off.
const BATCH: usize = 1000;

/// Held figures are looked at no more often than this, however many there are.
const HELD: Duration = Duration::from_millis(100);

/// What one write answered.
struct Answer {
    item: Item,
    result: Result<Vec<Put>, Failure>,
}

/// The loop's state beside its knowledge.
struct Loop {
    ctx: Arc<Ctx>,
    world: World,
    owner: Option<OwnerReference>,
    permits: Arc<Semaphore>,
    tasks: JoinSet<Answer>,
    queue: Queue,
    /// Volumes whose claims wait for room.
    waiting: BTreeSet<String>,
    /// When the scheduler was asked again for a claim, and how often.
    asked: BTreeMap<String, (Instant, u32)>,
    /// Since when a claim is on another node than its pod's other claims.
    split: BTreeMap<String, Instant>,
    /// The pace of each Pool's status and each capacity object.
    paces: BTreeMap<Item, Pace>,
    /// Capacity objects that a claim waits for: it is taken back from its node
    /// once the scheduler can know why.
    awaited: BTreeSet<String>,
    /// Pools and labels are to be compared again.
    pools_due: bool,
    /// Capacity objects are to be compared again.
    capacities_due: bool,
}

/// Runs until `ctx.shutdown`.
///
/// # Errors
/// A task that panicked, or watches that ended.
pub async fn run(ctx: Arc<Ctx>) -> anyhow::Result<()> {
    let mut news = watch::all(&ctx);
    let owner = publish::deployment_owner(&ctx).await;
    let mut state = Loop::new(ctx.clone(), owner);
    let mut known = false;
    loop {
        let timer = state.queue.next_timer();
        tokio::select! {
            () = ctx.shutdown.cancelled() => break,
            item = news.next() => match item {
                Some(item) => state.world.take(item),
                None => anyhow::bail!("the watches of storage ended"),
            },
            Some(answer) = state.tasks.join_next() => state.answered(answer)?,
            () = sleep_until(timer) => {}
        }
        for _ in 0..BATCH {
            if let Some(Some(item)) = news.next().now_or_never() {
                state.world.take(item);
            } else if let Some(answer) = state.tasks.try_join_next() {
                state.answered(answer)?;
            } else {
                break;
            }
        }
        let unlisted = state.world.unlisted();
        if known != unlisted.is_empty() {
            known = true;
            tracing::info!(volumes = state.world.volumes.len(), "storage is known");
        }
        if !known {
            tracing::debug!(?unlisted, "not decided yet");
        }
        if known {
            let started = Instant::now();
            state.wake(started);
            state.round();
            let seconds = started.elapsed().as_secs_f64();
            ctx.metrics.round(LoopName::Storage, seconds);
        }
    }
    // What has begun is ended: an intent without its PV would only be found later.
    while state.tasks.join_next().await.is_some() {}
    Ok(())
}

async fn sleep_until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Loop {
    fn new(ctx: Arc<Ctx>, owner: Option<OwnerReference>) -> Self {
        Self {
            ctx,
            owner,
            world: World::default(),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            tasks: JoinSet::new(),
            queue: Queue::default(),
            waiting: BTreeSet::new(),
            asked: BTreeMap::new(),
            split: BTreeMap::new(),
            paces: BTreeMap::new(),
            awaited: BTreeSet::new(),
            pools_due: true,
            capacities_due: true,
        }
    }

    /// Marks what is due at `now`.
    fn wake(&mut self, now: Instant) {
        while let Some(item) = self.queue.pop(now) {
            self.is_due(item);
        }
    }

    /// Has an item looked at in the next round.
    fn is_due(&mut self, item: Item) {
        match item {
            Item::Pool(_) | Item::NodeLabels(_) | Item::Pools => self.pools_due = true,
            Item::Capacity(_) | Item::Capacities => self.capacities_due = true,
            Item::Volume(_) | Item::Snapshot(_) => {
                self.world.dirty.insert(item);
            }
        }
    }

    /// Whether a status that changed may be written now; if not, until when it is
    /// held.
    fn pace(&mut self, item: &Item, hurry: Hurry, now: Instant) -> Result<(), Instant> {
        let pace = self.paces.entry(item.clone()).or_default();
        let due = pace.due(hurry, now);
        if due > now {
            return Err(due);
        }
        pace.wrote(now);
        Ok(())
    }

    /// Looks at all items of a kind again when the first held one is due.
    fn look_again_at_held(&mut self, all: Item, due: Option<Instant>, now: Instant) {
        if let Some(due) = due {
            self.queue.look_again(all, due.max(now + HELD));
        }
    }

    /// Starts a write.
    fn start(&mut self, item: Item, work: Work) {
        let (ctx, permits) = (self.ctx.clone(), self.permits.clone());
        self.queue.begin(item.clone());
        self.tasks.spawn(async move {
            let _permit = permits.acquire().await;
            let result = apply::apply(&ctx, work).await;
            Answer { item, result }
        });
    }

    fn answered(&mut self, answer: Result<Answer, JoinError>) -> anyhow::Result<()> {
        let Answer { item, result } = answer?;
        let outcome = match &result {
            Ok(_) => Outcome::Done,
            Err(failure) if failure.is_conflict() => Outcome::Conflict,
            Err(_) => Outcome::Failed,
        };
        self.ctx.metrics.wrote(LoopName::Storage, outcome);
        match result {
            Ok(puts) => {
                self.queue.done(&item);
                for put in puts {
                    self.put(put);
                }
            }
            Err(failure) => {
                // What we assumed to be placed is not, as far as we know.
                if let Item::Volume(name) = &item
                    && self.world.assumed.remove(name).is_some()
                {
                    self.world.rooms_dirty = true;
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

    fn put(&mut self, put: Put) {
        match put {
            Put::Volume(object) => self.world.put_volume(*object),
            Put::Pv(object) => self.world.put_pv(*object),
            Put::Claim(object) => self.world.put_claim(*object),
            Put::Pool(object) => self.world.put_pool(*object),
            Put::Node(object) => self.world.put_node(*object),
            Put::Capacity(object) => self.world.put_capacity(*object),
            Put::Snapshot(object) => self.world.put_snapshot(*object),
            Put::Content(object) => self.world.put_content(*object),
        }
    }
}
