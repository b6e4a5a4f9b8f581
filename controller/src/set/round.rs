//! One round of one set: look, plan, do, say.

use std::time::{Duration, Instant};

use berth_api::names::reason;
use berth_plan::set::{Action as Planned, Plan, Step, View, plan};
use futures::{StreamExt, stream};
use kube::{api::Patch, runtime::controller::Action};
use serde_json::{Value, json};

use super::{
    Shell,
    apply::{Done, Hand, note_refusals},
    cache::version,
    calls::patch_part,
    memory::Memory,
    object::SetObject,
    view,
};
use crate::{
    context::CallError,
    events::Kind,
    metrics::{Loop, Outcome},
};

/// A set is looked at this often even when nothing happens.
pub(super) const RESYNC: Duration = Duration::from_secs(600);

/// How soon a round looks again for its own writes in the caches.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Creations at once begin with one and double, so that a refused template costs
/// one call, not a hundred.
const MOST_AT_ONCE: usize = 32;

/// Runs a round; when to run the next although nothing changes.
pub(super) async fn run<K: SetObject>(shell: &Shell, object: &K) -> Action {
    let started = Instant::now();
    let set = object.set();
    let (kind, namespace, name) = (set.kind, set.namespace.clone(), set.name.clone());
    let mut memory = shell.memories.take(kind, &namespace, &name);
    memory.meet(&set.uid, set.generation);
    let seen = version(Some(&set.resource_version));
    let next = if memory.wrote.is_seen(&shell.caches, seen, started) {
        let next = Round {
            shell,
            object,
            view: view::build(shell, set, &memory),
            memory: &mut memory,
        }
        .run()
        .await;
        shell
            .ctx
            .metrics
            .round(Loop::Set, started.elapsed().as_secs_f64());
        next
    } else {
        CATCH_UP
    };
    shell.memories.put(kind, &namespace, &name, memory);
    Action::requeue(next)
}

struct Round<'a, K> {
    shell: &'a Shell,
    object: &'a K,
    view: View,
    memory: &'a mut Memory,
}

impl<K: SetObject> Round<'_, K> {
    async fn run(mut self) -> Duration {
        if let Some(pause) = self.stand_down() {
            return pause;
        }
        let plan = plan(&self.view);
        self.tell_waits(&plan);
        let mut next = RESYNC;
        if let Some(ms) = plan.requeue_after_ms {
            next = next.min(Duration::from_millis(ms));
        }
        if let Some(due) = self.memory.recheck(Instant::now()) {
            next = next.min(due.max(CATCH_UP));
        }
        let status = self.object.status_patch(&plan.status, self.view.now);
        if plan.status_first {
            // Nothing is done before this stands: the next round reads it.
            if let Some(status) = status
                && !self.write_status(status).await
            {
                return next.min(Duration::from_millis(200));
            }
            return next.min(CATCH_UP);
        }
        let busy = self.carry_out(plan.steps).await;
        if busy {
            next = next.min(CATCH_UP);
        }
        if let Some(hold) = self.memory.hold(Instant::now()) {
            next = next.min(
                hold.until
                    .saturating_duration_since(Instant::now())
                    .max(CATCH_UP),
            );
        }
        if let Some(status) = status {
            let due = self.memory.status_due(Instant::now());
            if !due.is_zero() {
                next = next.min(due);
            } else if !self.write_status(status).await {
                next = next.min(Duration::from_secs(1));
            }
        }
        next
    }

    /// How long the set is left to another controller that writes its status.
    fn stand_down(&mut self) -> Option<Duration> {
        let set = &self.view.set;
        let rivals = &self.shell.rivals;
        let found = rivals.of(&set.namespace, &set.name, self.view.now);
        let Some((rival, until)) = found else {
            self.memory.stands_down = false;
            return None;
        };
        if !std::mem::replace(&mut self.memory.stands_down, true) {
            let note = format!(
                "{} writes the status of this set, so Berth leaves it alone until 10 minutes after the last such write; a set needs one controller: run kube-controller-manager with --controllers=*,-statefulset-controller, or Berth without --native-statefulsets",
                rival.manager
            );
            self.publish(Kind::Warning, reason::STANDS_DOWN, &note);
        }
        let left = until.duration_since(self.view.now);
        Some(Duration::try_from(left).unwrap_or_default() + CATCH_UP)
    }

    /// Carries the steps out that are not on hold. Whether to look again soon.
    async fn carry_out(&mut self, steps: Vec<Step>) -> bool {
        let hold = self.memory.hold(Instant::now());
        let free = |step: &Step| match hold {
            None => true,
            Some(hold) => hold.creations && !is_creation(&step.action),
        };
        let steps: Vec<Step> = steps.into_iter().filter(free).collect();
        if steps.is_empty() {
            return false;
        }
        let (set, ordinals): (Vec<Step>, Vec<Step>) =
            steps.into_iter().partition(|s| s.ordinal.is_none());
        let (creations, rest): (Vec<Step>, Vec<Step>) =
            ordinals.into_iter().partition(|s| is_creation(&s.action));
        let mut failed = None;
        for step in set {
            let done = self.batch(vec![step]).await;
            failed = failed.or(done);
        }
        if failed.is_none() {
            for chunk in chunks(rest, |_| MOST_AT_ONCE) {
                failed = failed.or(self.batch(chunk).await);
            }
            for chunk in chunks(creations, |round| 1 << round.min(5)) {
                if failed.is_some() {
                    break;
                }
                failed = self.batch(chunk).await;
            }
        }
        match failed {
            Some(creations) => self.memory.failed(creations, Instant::now()),
            None => self.memory.succeeded(),
        }
        true
    }

    /// Carries out steps side by side. `Some` when one failed; whether only
    /// creations did.
    async fn batch(&mut self, steps: Vec<Step>) -> Option<bool> {
        let hand = Hand {
            client: &self.shell.ctx.client,
            set: &self.view.set,
        };
        let done: Vec<(bool, Done)> = stream::iter(steps)
            .map(|step| {
                let hand = &hand;
                async move {
                    let creation = is_creation(&step.action);
                    tracing::info!(
                        namespace = hand.set.namespace,
                        set = hand.set.name,
                        ordinal = step.ordinal,
                        reason = step.reason,
                        "acting"
                    );
                    (creation, hand.carry_out(step.action).await)
                }
            })
            .buffer_unordered(MOST_AT_ONCE)
            .collect()
            .await;
        let mut failed = None;
        for (creation, done) in done {
            self.note(&done);
            if done.error.is_some() && !done.outrun {
                failed = Some(failed.unwrap_or(true) && creation);
            }
        }
        failed
    }

    /// Remembers what an action came to, and tells it.
    fn note(&mut self, done: &Done) {
        let now = Instant::now();
        let wrote = &mut self.memory.wrote;
        wrote.pods = wrote.pods.max(done.wrote.pods);
        wrote.claims = wrote.claims.max(done.wrote.claims);
        wrote.revisions = wrote.revisions.max(done.wrote.revisions);
        wrote.touch(now);
        note_refusals(&mut self.memory.refusals, done);
        if done.normal_form.is_some() {
            self.memory.normal_form.clone_from(&done.normal_form);
        }
        if let Some(check) = &done.check {
            self.memory.checked(check.clone(), now);
        }
        let outcome = match (&done.error, done.outrun) {
            (_, true) => Outcome::Conflict,
            (Some(_), false) => Outcome::Failed,
            (None, false) => Outcome::Done,
        };
        self.shell.ctx.metrics.wrote(Loop::Set, outcome);
        if let Some(error) = &done.error {
            tracing::info!(
                namespace = self.view.set.namespace,
                set = self.view.set.name,
                outrun = done.outrun,
                error = error.chain(),
                "not done"
            );
        }
        for (kind, reason, note) in &done.events {
            self.publish(*kind, reason, note);
        }
    }

    fn publish(&self, kind: Kind, reason: &str, note: &str) {
        let about = self.object.object_ref(&());
        self.shell.ctx.events.publish(about, kind, reason, note);
    }

    /// One event for each wait that is new.
    fn tell_waits(&mut self, plan: &Plan) {
        let waits: Vec<_> = plan.waits.iter().map(|w| (w.ordinal, w.reason)).collect();
        for wait in &plan.waits {
            if !self.memory.told.contains(&(wait.ordinal, wait.reason)) {
                let warning = wait.reason.is_warning();
                let kind = Kind::of(warning);
                self.publish(kind, wait.reason.as_str(), &wait.message);
            }
        }
        self.memory.told = waits;
        for notice in &plan.notices {
            if !self.memory.noticed.contains(&notice.message) {
                self.publish(Kind::Warning, notice.reason, &notice.message);
            }
        }
        self.memory.noticed = plan.notices.iter().map(|n| n.message.clone()).collect();
    }

    /// Writes the status onto the version of the set that was seen, so that a
    /// planner with an older view cannot overwrite it. Whether it stands.
    async fn write_status(&mut self, status: Value) -> bool {
        let set = &self.view.set;
        let patch = json!({
            "metadata": {"uid": set.uid, "resourceVersion": set.resource_version},
            "status": status,
        });
        let patch = Patch::Merge(patch);
        let (client, namespace) = (&self.shell.ctx.client, &set.namespace);
        let written = patch_part::<K>(client, namespace, &set.name, Some("status"), patch).await;
        let now = Instant::now();
        self.memory.status_was_written(now);
        let outcome = match &written {
            Ok(version) => {
                self.memory.wrote.set = *version;
                self.memory.wrote.touch(now);
                Outcome::Done
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Outcome::Conflict,
            Err(error) => {
                tracing::warn!(error = error.chain(), "status not written");
                Outcome::Failed
            }
        };
        self.shell.ctx.metrics.wrote(Loop::Set, outcome);
        // An unknown write may have landed: the version tells in the next round.
        !matches!(
            written,
            Err(CallError::Api { .. } | CallError::Unknown { .. })
        )
    }
}

fn is_creation(action: &Planned) -> bool {
    matches!(
        action,
        Planned::CreatePod { .. } | Planned::CreateClaims { .. }
    )
}

/// `items` in pieces; `size` tells how long each is.
fn chunks<T>(items: Vec<T>, size: impl Fn(u32) -> usize) -> Vec<Vec<T>> {
    let mut rest = items.into_iter().peekable();
    let mut out = Vec::new();
    let mut round = 0;
    while rest.peek().is_some() {
        out.push(rest.by_ref().take(size(round)).collect());
        round += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_start_slowly() {
        let sizes: Vec<usize> = chunks((0..100).collect::<Vec<i32>>(), |r| 1 << r.min(5))
            .iter()
            .map(Vec::len)
            .collect();
        assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 32, 5]);
    }
}
