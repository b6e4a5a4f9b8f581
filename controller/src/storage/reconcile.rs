//! One round: decide about everything that a change touched.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use berth_api::{Bytes, Volume};
use berth_plan::{
    capacity,
    claims::{self, ClaimKey},
    volumes::{Action, ClaimWait, ClaimWaitKind, Notice, Refused, Step},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim};
use kube::{Resource, ResourceExt};

use super::{queue::Item, reconciler::Reconciler, write::Write};
use crate::events::Kind;

impl Reconciler {
    /// Decides about everything that is dirty and starts the writes.
    pub(super) fn reconcile(&mut self) {
        self.state.withhold(Timestamp::now());
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
        self.capacities_due |= placed.rooms | self.state.capacities_dirty;
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
        let now = Timestamp::now();
        let (decision, claim) = self.state.decide(name, now);
        let volume = self.state.volumes.get("", name).cloned();
        let pv = self.state.pvs_of(name).into_iter().next();
        if decision.step == Step::Nothing {
            self.queue.done(&item);
        }
        if let Some(again) = decision.again {
            self.look_again(name, again, now);
        }
        // Without a volume, the text comes from looking for room, below.
        let told = decision.wait.is_some() || volume.is_some() || pv.is_some();
        if let Some(claim) = claim.as_ref().filter(|_| told) {
            let no_room = decision.wait.as_ref().map(|wait| wait.kind);
            if no_room == Some(ClaimWaitKind::NoRoom) {
                self.waiting.insert(name.to_owned());
            }
            self.wait(claim, decision.wait.clone());
        }
        if let Some(notice) = &decision.notice {
            self.tell(claim.as_deref(), volume.as_deref(), notice);
        }
        let action = match decision.step {
            Step::Nothing | Step::Place => {
                if let Some(claim) = claim.filter(|_| pv.is_none()) {
                    let refused = decision.wait.is_some() && volume.is_none();
                    if !refused {
                        self.open_claim(name, &claim, volume.is_some(), now);
                    }
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
                if let Some(claim) = &claim {
                    self.state.forget_tries(&ClaimKey::of(claim));
                    self.state.withhold(now);
                }
            }
            Action::DropVolume {
                refused: Some(Refused { pool, size }),
                ..
            } => {
                let ceiling = self.state.ceilings.entry(pool.clone()).or_insert(*size);
                *ceiling = (*size).min(*ceiling);
                self.state.rooms_dirty.insert(pool.clone());
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
            Action::Reschedule { volume, pool, .. } => {
                if let Some(claim) = &claim {
                    let incarnation = volume.uid.as_deref().unwrap_or_default();
                    let key = ClaimKey::of(claim);
                    self.state.pool_failed(key, pool, incarnation, now);
                }
            }
            _ => {}
        }
        self.start(item, Write::Volume(action));
    }

    /// Carries out what is decided about a claim that has no PersistentVolume.
    fn open_claim(
        &mut self,
        name: &str,
        claim: &Arc<PersistentVolumeClaim>,
        has_volume: bool,
        now: Timestamp,
    ) {
        let queue = &self.queue;
        let busy = |name: &str| queue.is_busy(&Item::Volume(name.to_owned()));
        let mut plan = claims::decide(&self.state.claim_view(claim, now, busy));
        if !has_volume {
            plan.waits.entry(ClaimKey::of(claim)).or_default();
        }
        for (key, why) in plan.waits {
            self.ctx.waits.set(&key.namespace, &key.name, why);
        }
        for (key, notice) in &plan.notices {
            let claim = self.state.claim_of_uid(&key.uid).cloned();
            self.tell(claim.as_deref(), None, notice);
        }
        for (key, tries) in plan.tries {
            self.state.remember_tries(key, tries, now);
        }
        let for_room = plan.for_room.iter().map(ClaimKey::volume);
        self.waiting.extend(for_room);
        if plan.after_write {
            // Its answer brings us back here.
            self.state.dirty.insert(Item::Volume(name.to_owned()));
        }
        if let Some(again) = plan.again {
            self.look_again(name, again, now);
        }
        for step in plan.steps {
            self.carry_out(step);
        }
    }

    fn look_again(&mut self, name: &str, at: Timestamp, now: Timestamp) {
        let pause = at.duration_since(now).unsigned_abs();
        let item = Item::Volume(name.to_owned());
        self.queue.look_again(item, Instant::now() + pause);
    }

    fn carry_out(&mut self, step: claims::Step) {
        match step {
            claims::Step::Create { claim, volume } => {
                let name = claim.volume();
                let (pool, node) = (&volume.spec.pool, &volume.spec.node);
                tracing::info!(volume = %name, %pool, %node, "placed");
                self.waiting.remove(&name);
                self.state.assume(Volume::clone(&volume));
                let action = Action::CreateVolume(volume);
                self.start(Item::Volume(name), Write::Volume(action));
            }
            claims::Step::Select { key, claim, node } => {
                let action = Action::Select { claim, node };
                self.start(Item::Volume(key.volume()), Write::Volume(action));
            }
            claims::Step::Publish((class, node)) => {
                self.pending.insert(capacity::object_name(&class, &node));
                self.capacities_due = true;
            }
        }
    }

    fn wait(&self, claim: &PersistentVolumeClaim, why: Option<ClaimWait>) {
        let namespace = claim.namespace().unwrap_or_default();
        self.ctx.waits.set(&namespace, &claim.name_any(), why);
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
