//! The status: counters as clients of StatefulSet read them. What the set does and
//! waits for, in words, is in `conditions`.

use berth_api::{Disruption, OrdinalSetStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    conditions::{self, State},
    draft::Draft,
    members::Members,
    plan::Plan,
    revisions::Revisions,
    rollout, selector,
    view::{Pod, View},
};

/// Completes the plan: orders the waits, counts, and writes the status.
pub(super) fn finish(
    mut draft: Draft<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
    disrupting: Vec<Disruption>,
) -> Plan {
    let view = draft.view;
    draft.waits.sort_by_key(|w| w.reason.rank());
    let mut status = count(view, members, revisions);
    let state = state(view, members, revisions, &mut status);
    status.disrupting = disrupting;
    status.waiting = draft.waits.first().map(|w| w.short.clone());
    let progress = progress(view, &status, state);
    status.last_progress_time = progress.map(Time);
    let deadline = progress.and_then(|at| at.checked_add(view.set.progress_deadline()?).ok());
    let deadline = deadline.filter(|_| state == State::Working);
    let late = deadline.is_some_and(|at| at <= view.now);
    if let Some(at) = deadline.filter(|_| !late) {
        draft.look_again(at);
    }
    let facts = conditions::Facts {
        view,
        waits: &draft.waits,
        status: &status,
        state,
        late,
        budget: rollout::down_by_rollout(view, members, revisions),
    };
    status.conditions = conditions::of(&facts);
    let status_first = draft.status_first && status != view.set.status;
    Plan {
        requeue_after_ms: next_moment(view, members, draft.next_look()),
        steps: draft.steps,
        status,
        status_first,
        waits: draft.waits,
        notices: draft.notices,
    }
}

fn count(view: &View, members: &Members, revisions: &Revisions<'_>) -> OrdinalSetStatus {
    let old = &view.set.status;
    let count = |test: &dyn Fn(&Pod) -> bool| {
        let pods = members.pods.values().filter(|p| test(p)).count();
        i32::try_from(pods).unwrap_or(i32::MAX)
    };
    let of = |revision: &Option<String>| {
        count(&|p| {
            p.phase.is_some() && !p.terminating() && Some(p.revision()) == revision.as_deref()
        })
    };
    let ready = count(&|p| p.is_ready());
    // Clients that see their generation here read the revisions as the answer to
    // it: not before the template has its revision.
    let answered = revisions.settled || view.set.deleting;
    let generation = answered.then_some(view.set.generation);
    OrdinalSetStatus {
        observed_generation: generation.max(old.observed_generation),
        replicas: count(&|p| p.phase.is_some()),
        ready_replicas: ready,
        available_replicas: count(&|p| p.ready_for_long(view)),
        current_replicas: of(&revisions.current),
        updated_replicas: count(&|p| {
            p.phase.is_some() && !p.terminating() && !revisions.outdated(view, p)
        }),
        current_revision: revisions.current.clone(),
        update_revision: revisions.update.clone(),
        collision_count: revisions.collisions,
        ready: Some(format!("{ready}/{}", view.set.replicas())),
        waiting: None,
        selector: Some(selector::text(&view.set.spec.selector)),
        disrupting: Vec::new(),
        last_progress_time: None,
        conditions: old.conditions.clone(),
    }
}

/// Ends the rollout when every pod is of the update revision and available, and says how
/// far the set is.
fn state(
    view: &View,
    members: &Members,
    revisions: &Revisions<'_>,
    status: &mut OrdinalSetStatus,
) -> State {
    let wanted = view.set.replicas();
    if !revisions.settled || !members.settled || view.set.deleting {
        return State::Working;
    }
    let counters = [
        status.updated_replicas,
        status.available_replicas,
        status.replicas,
    ];
    if counters.iter().all(|c| *c == wanted) && members.pods.len() == counters[2] as usize {
        status.current_revision.clone_from(&revisions.update);
        status.current_replicas = status.updated_replicas;
    }
    if members.pods.keys().any(|o| !view.set.wanted().contains(o)) {
        return State::Working;
    }
    let mut state = State::Complete;
    for ordinal in view.set.wanted() {
        let Some(pod) = members.pods.get(&ordinal).filter(|p| p.available(view)) else {
            return State::Working;
        };
        if revisions.outdated(view, pod) {
            if view.set.rolling() && ordinal >= view.set.first_updated() {
                return State::Working;
            }
            state = State::Held;
        }
    }
    state
}

/// When the set last came closer to what it should be.
fn progress(view: &View, status: &OrdinalSetStatus, state: State) -> Option<Timestamp> {
    view.set.progress_deadline()?;
    let old = &view.set.status;
    let last = old.last_progress_time.as_ref().map(|at| at.0);
    // Pods that are made and end again are no progress.
    let shrinks = old.replicas > view.set.replicas() && status.replicas < old.replicas;
    let closer = status.observed_generation != old.observed_generation
        || status.available_replicas > old.available_replicas
        || shrinks
        || state != State::Working && !was_done(old);
    if closer {
        Some(view.now)
    } else {
        last.or(Some(view.now))
    }
}

fn was_done(old: &OrdinalSetStatus) -> bool {
    let ready = (old.conditions.iter()).find(|c| c.type_ == berth_api::names::condition::READY);
    ready.is_some_and(|c| c.status == "True")
}

/// Milliseconds until something changes by the passing of time alone: a ready pod
/// becomes available, the moment of a restart comes, a pause or a deadline ends.
fn next_moment(view: &View, members: &Members, asked: Option<Timestamp>) -> Option<u64> {
    let restart = view.set.spec.restarted_at.as_ref().map(|at| at.0);
    let waiting = members
        .pods
        .values()
        .filter(|p| p.is_ready() && !p.terminating());
    waiting
        .filter(|p| !p.available(view))
        .filter_map(|p| p.available_at(&view.set))
        .chain(restart.filter(|at| *at > view.now))
        .chain(asked)
        .map(|at| u64::try_from(at.duration_since(view.now).as_millis()).unwrap_or(0) + 1)
        .min()
}
