//! One round: decide about everything that a change touched.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_api::{Bytes, Volume, names, names::reason};
use berth_kube::Backoff;
use berth_plan::{
    place::{self, Placement},
    target::Target,
    volumes::{Action, ClaimWait, ClaimWaitKind, Notice, Refused, Step, claim},
};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use kube::{Resource, ResourceExt};

use super::{queue::Item, reconciler::Reconciler, view::Group, write::Write};
use crate::events::Kind;

/// How long the claims of one pod may name different nodes before their nodes are taken
/// away.
const SPLIT: Duration = Duration::from_secs(2);

/// Pauses before the scheduler is asked again for one claim.
const RESELECT: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

impl Reconciler {
    /// Decides about everything that is dirty and starts the writes.
    pub(super) fn reconcile(&mut self) {
        let refreshed = self.state.refresh();
        self.pools_due |= refreshed.pools;
        self.capacities_due |= refreshed.rooms | self.state.capacities_dirty;
        if refreshed.rooms || std::mem::take(&mut self.state.capacities_dirty) {
            let waiting = std::mem::take(&mut self.waiting);
            self.state
                .dirty
                .extend(waiting.into_iter().map(Item::Volume));
        }
        for (namespace, name) in std::mem::take(&mut self.state.gone) {
            self.ctx.waits.set(&namespace, &name, None);
        }
        let dirty = std::mem::take(&mut self.state.dirty);
        let (busy, due): (BTreeSet<_>, BTreeSet<_>) =
            dirty.into_iter().partition(|item| self.queue.is_busy(item));
        self.state.dirty = busy;
        for item in due {
            // A group that was placed in this round covers several.
            if self.queue.is_busy(&item) {
                continue;
            }
            match item {
                Item::Volume(name) => self.decide(&name),
                Item::Snapshot(name) => self.decide_snapshot(&name),
                other => self.is_due(other),
            }
        }
        // Placements of this round count for the next one.
        let placed = self.state.refresh();
        self.pools_due |= placed.pools;
        self.capacities_due |= placed.rooms;
        if std::mem::take(&mut self.pools_due) {
            self.pools();
        }
        if std::mem::take(&mut self.capacities_due) {
            self.capacities();
        }
        let metrics = &self.ctx.metrics;
        metrics.volumes.set(self.state.volumes.len() as i64);
        metrics.claims_waiting.set(self.waiting.len() as i64);
    }

    fn decide(&mut self, name: &str) {
        let item = Item::Volume(name.to_owned());
        let (decision, claim) = self.state.decide(name);
        let volume = self.state.volumes.get("", name).cloned();
        let pv = self.state.pvs_of(name).into_iter().next();
        if decision.step == Step::Nothing {
            self.queue.done(&item);
        }
        // Without a volume, the text comes from looking for room, below.
        if let Some(claim) = claim.as_ref().filter(|_| volume.is_some() || pv.is_some()) {
            let no_room = decision.wait.as_ref().map(|wait| wait.kind);
            if no_room == Some(ClaimWaitKind::NoRoom) {
                self.waiting.insert(name.to_owned());
            }
            self.wait(claim, decision.wait.clone());
        }
        if let Some(notice) = &decision.notice {
            self.tell(claim.as_deref(), volume.as_deref(), notice);
        }
        if matches!(decision.step, Step::Nothing | Step::Place) && pv.is_none() {
            if let Some(claim) = claim.as_ref().filter(|c| self.state.is_split(c)) {
                return self.split(name, claim);
            }
            self.split.remove(name);
        }
        let action = match decision.step {
            Step::Nothing => {
                if let Some(claim) = claim.filter(|_| volume.is_none() && pv.is_none()) {
                    let found = self.undecided(name, &claim);
                    self.wait(&claim, decision.wait.or(found));
                }
                return;
            }
            Step::Place => {
                if let Some(claim) = claim {
                    self.place(name, &claim);
                }
                return;
            }
            Step::Act(action) => action,
        };
        match &action {
            Action::Adopt { volume, .. } => {
                let pool = &volume.spec.pool;
                tracing::info!(volume = name, %pool, "Volume recreated from its PersistentVolume");
            }
            Action::Expose { .. } => {
                self.requested.remove(name);
            }
            Action::DropVolume {
                refused: Some(Refused { pool, size }),
                ..
            } => {
                let ceiling = self.state.ceilings.entry(pool.clone()).or_insert(*size);
                *ceiling = (*size).min(*ceiling);
                self.state.rooms_dirty = true;
            }
            Action::Resize { size, .. } => {
                if let Some(volume) = &volume {
                    let mut grown = Volume::clone(volume);
                    grown.spec.size = Bytes(*size);
                    // Nobody has refused this size yet.
                    grown.metadata.generation = None;
                    self.state.assume(grown);
                }
            }
            Action::Reschedule { excluded, .. } => {
                let pools = self.state.excluded_pools.entry(excluded.claim_uid.clone());
                pools.or_default().insert(excluded.pool.clone());
            }
            _ => {}
        }
        self.start(item, Write::Volume(action));
    }

    /// Why an open claim that is not due waits, and why the scheduler finds no node for
    /// it.
    fn undecided(&mut self, name: &str, claim: &Arc<PersistentVolumeClaim>) -> Option<ClaimWait> {
        if claim::volume_name(claim).is_some() {
            return None;
        }
        if let Some(error) = self.state.class_error(claim).map(str::to_owned) {
            self.warn(claim, reason::PROVISIONING_FAILED, error.clone());
            return Some(error.into());
        }
        let Some(class) = self.state.class_of(claim).cloned() else {
            let classes = &self.state.classes;
            return claim::missing_class(claim, |name| classes.get("", name).is_some());
        };
        let namespace = claim.namespace().unwrap_or_default();
        let used = !self.state.pods_of(&namespace, &claim.name_any()).is_empty();
        if class.immediate || !used || claim::refusal(claim).is_some() {
            return None;
        }
        self.waiting.insert(name.to_owned());
        let group = self.state.group(claim, &class, None).ok()?;
        match place::place(&group.request, &self.state.rooms) {
            Placement::Placed { .. } => None,
            Placement::NoRoom { text, .. } => {
                self.warn(claim, reason::NO_ROOM, format!("no node has room: {text}"));
                Some(ClaimWait::no_room(text))
            }
        }
    }

    /// Another claim of the pod was taken back from the node: this one follows,
    /// or the scheduler could choose no other node. It is given a moment, since
    /// a scheduler that chooses again writes one claim after the other.
    fn split(&mut self, name: &str, claim: &Arc<PersistentVolumeClaim>) {
        let why = ClaimWait::in_progress("waiting for the pod's other claims");
        self.wait(claim, Some(why));
        let now = Instant::now();
        let due = *self.split.entry(name.to_owned()).or_insert(now) + SPLIT;
        if now < due {
            return self.queue.look_again(Item::Volume(name.to_owned()), due);
        }
        self.split.remove(name);
        self.select(claim, None);
    }

    fn place(&mut self, name: &str, claim: &Arc<PersistentVolumeClaim>) {
        let Some(class) = self.state.class_of(claim).cloned() else {
            return;
        };
        let node = claim::selected_node(claim).filter(|_| !class.immediate);
        let group = match self.state.group(claim, &class, node) {
            Ok(group) => group,
            Err(wait) => {
                if claim::source(claim).is_ok_and(|source| source.is_some()) {
                    self.warn(claim, reason::PROVISIONING_FAILED, wait.text.clone());
                }
                return self.wait(claim, Some(wait));
            }
        };
        let mut members = group.members.iter();
        if members.any(|member| self.queue.is_busy(&item_of(member))) {
            // Its answer brings us back here.
            self.state.dirty.insert(Item::Volume(name.to_owned()));
            return;
        }
        match place::place(&group.request, &self.state.rooms) {
            Placement::Placed { node, pools } => {
                for (member, pool) in group.members.iter().zip(pools) {
                    self.intend(member, &node, &pool);
                }
            }
            Placement::NoRoom { text, .. } => self.no_room(&group, &text),
        }
    }

    fn intend(&mut self, member: &Arc<PersistentVolumeClaim>, node: &str, pool: &str) {
        let Some(volume) = self.state.intent(member, node, pool) else {
            return;
        };
        let name = volume.name_any();
        self.waiting.remove(&name);
        self.state.assume(volume.clone());
        let why = ClaimWait::in_progress(format!("waiting for the agent on {node}"));
        self.wait(member, Some(why));
        let notice = Notice {
            warning: false,
            reason: reason::PROVISIONING,
            text: format!("volume {name} goes to pool {pool} on {node}"),
        };
        self.tell(Some(member), None, &notice);
        tracing::info!(volume = %name, pool, node, "placed");
        let action = Action::CreateVolume(Box::new(volume));
        self.start(Item::Volume(name), Write::Volume(action));
    }

    /// Names a node for a claim, or takes its node away.
    fn select(&mut self, claim: &PersistentVolumeClaim, node: Option<String>) {
        let item = item_of(claim);
        let claim = Target::of(claim.meta());
        self.start(item, Write::Volume(Action::Select { claim, node }));
    }

    /// No pool on the node has room: asks the scheduler again, once the capacity objects
    /// show it why.
    fn no_room(&mut self, group: &Group, text: &str) {
        let now = Instant::now();
        for member in &group.members {
            let name = names::volume_name(claim::uid(member));
            self.wait(member, Some(ClaimWait::no_room(text)));
            self.waiting.insert(name.clone());
            let Some(node) = claim::selected_node(member).map(str::to_owned) else {
                self.warn(member, reason::NO_ROOM, format!("no node has room: {text}"));
                continue;
            };
            let note = format!("node {node}: {text}; the scheduler is asked for another node");
            self.warn(member, reason::NO_ROOM, note);
            if let Some(untold) = self.untold(member, &node).filter(|_| group.home.is_none()) {
                self.pending.insert(untold);
                self.capacities_due = true;
                continue;
            }
            let (last, times) = self.requested.get(&name).copied().unwrap_or((now, 0));
            let due = last + RESELECT.pause(times);
            if due > now {
                self.queue.look_again(Item::Volume(name), due);
                continue;
            }
            self.requested.insert(name.clone(), (now, times + 1));
            self.select(member, group.home.clone().filter(|home| *home != node));
        }
    }

    fn wait(&self, claim: &PersistentVolumeClaim, why: Option<ClaimWait>) {
        let namespace = claim.namespace().unwrap_or_default();
        self.ctx.waits.set(&namespace, &claim.name_any(), why);
    }

    fn warn(&self, claim: &PersistentVolumeClaim, reason: &'static str, text: String) {
        let notice = Notice {
            warning: true,
            reason,
            text,
        };
        self.tell(Some(claim), None, &notice);
    }

    fn tell(
        &self,
        claim: Option<&PersistentVolumeClaim>,
        volume: Option<&Volume>,
        notice: &Notice,
    ) {
        let about: ObjectReference = match (claim, volume) {
            (Some(claim), _) => claim.object_ref(&()),
            (None, Some(volume)) => volume.object_ref(&()),
            (None, None) => return,
        };
        let kind = Kind::of(notice.warning);
        let events = &self.ctx.events;
        events.publish(about, kind, notice.reason, &notice.text);
    }
}

/// The item of a claim's volume.
fn item_of(claim: &PersistentVolumeClaim) -> Item {
    Item::Volume(names::volume_name(claim::uid(claim)))
}
