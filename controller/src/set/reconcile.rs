//! One reconcile of one set: read the caches, plan, execute, publish.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use berth_api::{
    OrdinalSetStatus,
    names::{self, reason},
};
use berth_plan::set::{
    Attempt, Outcome as StepOutcome, Plan, Step, View, announcements, groups, plan,
};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::{api::Patch, runtime::controller::Action};
use serde_json::{Value, json};

use super::{
    answer::note_refusals,
    apply::{Done, Executor},
    cache::version,
    calls::patch_part,
    context::Context,
    object::SetObject,
    state::SetState,
    view,
};
use crate::{
    events::Kind,
    metrics::{Loop, Outcome},
};

/// A set is looked at this often even when nothing happens.
pub(super) const RESYNC: Duration = Duration::from_secs(600);

/// How soon a reconcile looks again for its own writes in the caches.
const CATCH_UP: Duration = Duration::from_millis(50);

/// How soon a set is looked at again whose status was written by another meanwhile.
const CONFLICT: Duration = Duration::from_millis(200);

/// How soon a status is written again after a failure.
const STATUS_RETRY: Duration = Duration::from_secs(1);

/// Calls of one batch at once.
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
            next = next.min(Duration::from_millis(ms).max(CATCH_UP));
        }
        let mut status = self.object.status_patch(&plan.status, self.view.now);
        if status.is_none() {
            self.state.status_is_right();
        }
        let turns = is_complete(&plan.status) != is_complete(&self.view.set.status);
        if plan.status_first
            && let Some(status) = status.take()
        {
            match self.write_status(status).await {
                StatusWrite::Stands => next = next.min(CATCH_UP),
                // The view was old.
                StatusWrite::Conflict => return next.min(CONFLICT),
                StatusWrite::Failed => next = next.min(STATUS_RETRY),
            }
        }
        if self.execute(plan.steps).await {
            next = next.min(CATCH_UP);
        }
        if let Some(status) = status {
            let due = self.state.status_due(turns, Instant::now());
            if !due.is_zero() {
                next = next.min(due);
            } else if self.write_status(status).await != StatusWrite::Stands {
                next = next.min(STATUS_RETRY);
            }
        }
        next
    }

    /// How long the set is left to another controller that writes its status.
    fn stand_down(&mut self) -> Option<Duration> {
        let set = &self.view.set;
        let competing = &self.context.competing;
        let found = competing.of(set.kind, &set.namespace, &set.name, self.view.now);
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

    /// Executes the steps of a plan, class by class. Whether any succeeded: then the
    /// caches will soon show something else.
    async fn execute(&mut self, steps: Vec<Step>) -> bool {
        let mut busy = false;
        for group in groups(steps) {
            let mut outcomes = Vec::new();
            for batch in flow(group.batches) {
                outcomes.extend(self.batch(batch).await);
                if outcomes.iter().any(|(_, outcome)| is_failure(outcome)) {
                    break;
                }
            }
            busy |= (outcomes.iter()).any(|(_, o)| *o == StepOutcome::Done);
            let now = Timestamp::now();
            self.state.memory.record(group.class, &outcomes, now);
        }
        busy
    }

    /// Executes steps side by side, and begins with none after one failed.
    async fn batch(&mut self, steps: Vec<Step>) -> Vec<(Attempt, StepOutcome)> {
        let executor = Executor {
            client: &self.context.ctx.client,
            set: &self.view.set,
        };
        let failed = AtomicBool::new(false);
        let begun = steps
            .into_iter()
            .take_while(|_| !failed.load(Ordering::Relaxed));
        let done: Vec<(Step, Done)> = stream::iter(begun)
            .map(|step| {
                let (executor, failed) = (&executor, &failed);
                async move {
                    tracing::info!(
                        namespace = executor.set.namespace,
                        set = executor.set.name,
                        ordinal = step.ordinal,
                        reason = step.reason,
                        "acting"
                    );
                    let done = executor.execute(step.action.clone()).await;
                    if is_failure(&done.outcome()) {
                        failed.store(true, Ordering::Relaxed);
                    }
                    (step, done)
                }
            })
            .buffer_unordered(MAX_CONCURRENT)
            .collect()
            .await;
        let mut outcomes = Vec::new();
        for (step, done) in done {
            self.note(&done);
            outcomes.push((step.attempt(), done.outcome()));
        }
        outcomes
    }

    /// Remembers the outcome of an action and publishes its events.
    fn note(&mut self, done: &Done) {
        let now = Instant::now();
        let wrote = &mut self.state.wrote;
        wrote.pods = wrote.pods.max(done.wrote.pods);
        wrote.claims = wrote.claims.max(done.wrote.claims);
        wrote.revisions = wrote.revisions.max(done.wrote.revisions);
        wrote.touch(now);
        note_refusals(&mut self.state.refusals, done.created.as_ref());
        if done.normal_form.is_some() {
            self.state.normal_form.clone_from(&done.normal_form);
        }
        if done.check.is_some() {
            self.state.check.clone_from(&done.check);
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

    /// Answers whether it is told; otherwise too many events wait.
    fn publish(&self, kind: Kind, reason: &str, note: &str) -> bool {
        let about = self.object.object_ref(&());
        self.context.ctx.events.publish(about, kind, reason, note)
    }

    /// Events for what is new: one for each wait, or one for many of a kind.
    fn publish_waits(&mut self, plan: &Plan) {
        let known = &self.state.published;
        let news = plan
            .waits
            .iter()
            .filter(|w| !known.contains(&(w.ordinal, w.reason)));
        // What found no place in the queue is news at the next look too.
        let mut untold = Vec::new();
        for (reason, message) in announcements(news) {
            let kind = Kind::of(reason.is_warning());
            if !self.publish(kind, reason.as_str(), &message) {
                untold.push(reason);
            }
        }
        let waits = plan.waits.iter().map(|w| (w.ordinal, w.reason));
        let told = waits.filter(|it| known.contains(it) || !untold.contains(&it.1));
        self.state.published = told.collect();
        let known = &self.state.noticed;
        let told = plan.notices.iter().filter(|notice| {
            known.contains(&notice.message)
                || self.publish(Kind::Warning, notice.reason, &notice.message)
        });
        self.state.noticed = told.map(|notice| notice.message.clone()).collect();
    }

    /// Writes the status onto the version of the set that was seen, so that a
    /// planner with an older view cannot overwrite it.
    async fn write_status(&mut self, status: Value) -> StatusWrite {
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
        // An unknown write may have landed: the next reconcile sees by the version.
        let (outcome, stands) = match &written {
            Ok(version) => {
                self.state.wrote.set = *version;
                self.state.wrote.touch(now);
                (Outcome::Done, StatusWrite::Stands)
            }
            Err(error) if error.is_conflict() || error.is_not_found() => {
                (Outcome::Conflict, StatusWrite::Conflict)
            }
            Err(error) => {
                tracing::warn!(error = error.chain(), "status not written");
                (Outcome::Failed, StatusWrite::Failed)
            }
        };
        self.context.ctx.metrics.wrote(Loop::Set, outcome);
        stands
    }
}

fn is_failure(outcome: &StepOutcome) -> bool {
    matches!(outcome, StepOutcome::Failed(_))
}

/// Batches for execution: those that are as large as any are one, of which so many run at
/// once. None of them then waits for the slowest call of the one before.
fn flow(batches: Vec<Vec<Step>>) -> Vec<Vec<Step>> {
    let mut flow: Vec<Vec<Step>> = Vec::new();
    for batch in batches {
        match flow.last_mut() {
            Some(last) if last.len() >= MAX_CONCURRENT => last.extend(batch),
            _ => flow.push(batch),
        }
    }
    flow
}

/// Whether a status says that everything is as the set wants it.
fn is_complete(status: &OrdinalSetStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.type_ == names::condition::READY && c.status == "True")
}

/// What a status write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StatusWrite {
    Stands,
    /// The set was not the one that was seen.
    Conflict,
    /// Refused, or without an answer.
    Failed,
}

#[cfg(test)]
mod tests {
    use berth_plan::set::Action;

    use super::*;

    #[test]
    fn calls_begin_slowly_and_then_flow() {
        let steps = |count: usize| {
            let step = |n: usize| Step {
                ordinal: i32::try_from(n).ok(),
                action: Action::CreateClaims {
                    pod: format!("web-{n}"),
                    claims: Vec::new(),
                },
                reason: String::new(),
                replaces_ended: false,
            };
            (0..count).map(step).collect::<Vec<_>>()
        };
        let sizes = |count: usize| -> Vec<usize> {
            let groups = groups(steps(count)).into_iter();
            let batches = groups.flat_map(|group| flow(group.batches));
            batches.map(|batch| batch.len()).collect()
        };
        assert_eq!(sizes(3), [1, 2]);
        assert_eq!(sizes(40), [1, 2, 4, 8, 16, 9]);
        assert_eq!(sizes(500), [1, 2, 4, 8, 16, 469]);
        let all = groups(steps(500)).into_iter();
        let all = all.flat_map(|group| flow(group.batches)).flatten();
        assert_eq!(all.collect::<Vec<_>>(), steps(500));
    }
}
