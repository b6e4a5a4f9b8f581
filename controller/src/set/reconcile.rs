//! One reconcile of one set: read the caches, plan, execute, publish.

use std::time::{Duration, Instant};

use berth_api::names::reason;
use berth_plan::set::{Action as Planned, Plan, Step, View, plan};
use futures::{StreamExt, stream};
use kube::{api::Patch, runtime::controller::Action};
use serde_json::{Value, json};

use super::{
    Context,
    apply::{Done, Executor, note_refusals},
    cache::version,
    calls::patch_part,
    object::SetObject,
    state::SetState,
    view,
};
use crate::{
    context::CallError,
    events::Kind,
    metrics::{Loop, Outcome},
};

/// A set is looked at this often even when nothing happens.
pub(super) const RESYNC: Duration = Duration::from_secs(600);

/// How soon a reconcile looks again for its own writes in the caches.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Creations in flight begin with one and double up to this, so that a refused template
/// costs one call, not a hundred.
const MAX_CONCURRENT: usize = 32;

/// Reconciles a set; when to do it next although nothing changes.
pub(super) async fn run<K: SetObject>(context: &Context, object: &K) -> Action {
    let started = Instant::now();
    let set = object.set();
    let (kind, namespace, name) = (set.kind, set.namespace.clone(), set.name.clone());
    let mut state = context.states.take(kind, &namespace, &name);
    state.reset_if_changed(&set.uid, set.generation);
    let seen = version(Some(&set.resource_version));
    let next = if state.wrote.is_seen(&context.caches, seen, started) {
        let next = Reconcile {
            context,
            object,
            view: view::build(context, set, &state),
            state: &mut state,
        }
        .run()
        .await;
        context
            .ctx
            .metrics
            .round(Loop::Set, started.elapsed().as_secs_f64());
        next
    } else {
        CATCH_UP
    };
    context.states.put(kind, &namespace, &name, state);
    Action::requeue(next)
}

struct Reconcile<'a, K> {
    context: &'a Context,
    object: &'a K,
    view: View,
    state: &'a mut SetState,
}

impl<K: SetObject> Reconcile<'_, K> {
    async fn run(mut self) -> Duration {
        if let Some(pause) = self.stand_down() {
            return pause;
        }
        let plan = plan(&self.view);
        self.publish_waits(&plan);
        let mut next = RESYNC;
        if let Some(ms) = plan.requeue_after_ms {
            next = next.min(Duration::from_millis(ms));
        }
        if let Some(due) = self.state.recheck(Instant::now()) {
            next = next.min(due.max(CATCH_UP));
        }
        let status = self.object.status_patch(&plan.status, self.view.now);
        if plan.status_first {
            // Nothing is done before this stands: the next reconcile reads it.
            if let Some(status) = status
                && !self.write_status(status).await
            {
                return next.min(Duration::from_millis(200));
            }
            return next.min(CATCH_UP);
        }
        let busy = self.execute(plan.steps).await;
        if busy {
            next = next.min(CATCH_UP);
        }
        if let Some(hold) = self.state.hold(Instant::now()) {
            next = next.min(
                hold.until
                    .saturating_duration_since(Instant::now())
                    .max(CATCH_UP),
            );
        }
        if let Some(status) = status {
            let due = self.state.status_due(Instant::now());
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
        let competing = &self.context.competing;
        let found = competing.of(&set.namespace, &set.name, self.view.now);
        let Some((other, until)) = found else {
            self.state.stands_down = false;
            return None;
        };
        if !std::mem::replace(&mut self.state.stands_down, true) {
            let note = format!(
                "{} writes the status of this set, so Berth leaves it alone until 10 minutes after the last such write; a set needs one controller: run kube-controller-manager with --controllers=*,-statefulset-controller, or Berth without --native-statefulsets",
                other.manager
            );
            self.publish(Kind::Warning, reason::STANDS_DOWN, &note);
        }
        let left = until.duration_since(self.view.now);
        Some(Duration::try_from(left).unwrap_or_default() + CATCH_UP)
    }

    /// Executes the steps that are not on hold. Whether to look again soon.
    async fn execute(&mut self, steps: Vec<Step>) -> bool {
        let hold = self.state.hold(Instant::now());
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
            for chunk in chunks(rest, |_| MAX_CONCURRENT) {
                failed = failed.or(self.batch(chunk).await);
            }
            for chunk in chunks(creations, |index| 1 << index.min(5)) {
                if failed.is_some() {
                    break;
                }
                failed = self.batch(chunk).await;
            }
        }
        match failed {
            Some(creations) => self.state.failed(creations, Instant::now()),
            None => self.state.succeeded(),
        }
        true
    }

    /// Executes steps side by side. `Some` when one failed; whether only
    /// creations did.
    async fn batch(&mut self, steps: Vec<Step>) -> Option<bool> {
        let executor = Executor {
            client: &self.context.ctx.client,
            set: &self.view.set,
        };
        let done: Vec<(bool, Done)> = stream::iter(steps)
            .map(|step| {
                let executor = &executor;
                async move {
                    let creation = is_creation(&step.action);
                    tracing::info!(
                        namespace = executor.set.namespace,
                        set = executor.set.name,
                        ordinal = step.ordinal,
                        reason = step.reason,
                        "acting"
                    );
                    (creation, executor.execute(step.action).await)
                }
            })
            .buffer_unordered(MAX_CONCURRENT)
            .collect()
            .await;
        let mut failed = None;
        for (creation, done) in done {
            self.note(&done);
            if done.error.is_some() && !done.superseded {
                failed = Some(failed.unwrap_or(true) && creation);
            }
        }
        failed
    }

    /// Remembers the outcome of an action and publishes its events.
    fn note(&mut self, done: &Done) {
        let now = Instant::now();
        let wrote = &mut self.state.wrote;
        wrote.pods = wrote.pods.max(done.wrote.pods);
        wrote.claims = wrote.claims.max(done.wrote.claims);
        wrote.revisions = wrote.revisions.max(done.wrote.revisions);
        wrote.touch(now);
        note_refusals(&mut self.state.refusals, done);
        if done.normal_form.is_some() {
            self.state.normal_form.clone_from(&done.normal_form);
        }
        if let Some(check) = &done.check {
            self.state.checked(check.clone(), now);
        }
        let outcome = match (&done.error, done.superseded) {
            (_, true) => Outcome::Conflict,
            (Some(_), false) => Outcome::Failed,
            (None, false) => Outcome::Done,
        };
        self.context.ctx.metrics.wrote(Loop::Set, outcome);
        if let Some(error) = &done.error {
            tracing::info!(
                namespace = self.view.set.namespace,
                set = self.view.set.name,
                superseded = done.superseded,
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
        self.context.ctx.events.publish(about, kind, reason, note);
    }

    /// One event for each wait that is new.
    fn publish_waits(&mut self, plan: &Plan) {
        let waits: Vec<_> = plan.waits.iter().map(|w| (w.ordinal, w.reason)).collect();
        for wait in &plan.waits {
            if !self.state.published.contains(&(wait.ordinal, wait.reason)) {
                let warning = wait.reason.is_warning();
                let kind = Kind::of(warning);
                self.publish(kind, wait.reason.as_str(), &wait.message);
            }
        }
        self.state.published = waits;
        for notice in &plan.notices {
            if !self.state.noticed.contains(&notice.message) {
                self.publish(Kind::Warning, notice.reason, &notice.message);
            }
        }
        self.state.noticed = plan.notices.iter().map(|n| n.message.clone()).collect();
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
        let (client, namespace) = (&self.context.ctx.client, &set.namespace);
        let written = patch_part::<K>(client, namespace, &set.name, Some("status"), patch).await;
        let now = Instant::now();
        self.state.status_was_written(now);
        let outcome = match &written {
            Ok(version) => {
                self.state.wrote.set = *version;
                self.state.wrote.touch(now);
                Outcome::Done
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Outcome::Conflict,
            Err(error) => {
                tracing::warn!(error = error.chain(), "status not written");
                Outcome::Failed
            }
        };
        self.context.ctx.metrics.wrote(Loop::Set, outcome);
        // An unknown write may have landed: the next reconcile sees by the version.
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

/// `items` in pieces; `size` is the length of each.
fn chunks<T>(items: Vec<T>, size: impl Fn(u32) -> usize) -> Vec<Vec<T>> {
    let mut rest = items.into_iter().peekable();
    let mut out = Vec::new();
    let mut index = 0;
    while rest.peek().is_some() {
        out.push(rest.by_ref().take(size(index)).collect());
        index += 1;
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
