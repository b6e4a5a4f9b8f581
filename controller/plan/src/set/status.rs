//! The status: counters as clients of StatefulSet read them. What the set does and
//! waits for, in words, is in `conditions`.

use berth_api::{Disruption, OrdinalSetStatus};

use super::{
    conditions,
    draft::Draft,
    members::Members,
    plan::Plan,
    revisions::Revisions,
    selector,
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
    let done = complete(view, members, revisions, &mut status);
    status.disrupting = disrupting;
    status.waiting = draft.waits.first().map(|w| w.short.clone());
    status.conditions = conditions::of(view, &draft.waits, &status, done);
    let status_first = draft.status_first && status != view.set.status;
    Plan {
        requeue_after_ms: next_moment(view, members),
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
        conditions: old.conditions.clone(),
    }
}

/// End the rollout when every pod is of the update revision and available.
/// Whether the set is as it should be.
fn complete(
    view: &View,
    members: &Members,
    revisions: &Revisions<'_>,
    status: &mut OrdinalSetStatus,
) -> bool {
    let wanted = view.set.replicas();
    if !revisions.settled || view.set.deleting {
        return false;
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
    let mut ordinals = view.set.wanted();
    let outside = members.pods.keys().any(|o| !view.set.wanted().contains(o));
    !outside
        && ordinals.all(|ordinal| {
            let held = view.set.rolling() && ordinal < view.set.first_updated();
            let right = |p: &Pod| {
                if held {
                    p.revision() == revisions.target(view, ordinal).0
                } else {
                    !revisions.outdated(view, p)
                }
            };
            let pod = members.pods.get(&ordinal);
            pod.is_some_and(|p| p.available(view) && right(p))
        })
}

/// Milliseconds until something changes by the passing of time alone: a ready pod
/// becomes available, or the moment of a restart comes.
fn next_moment(view: &View, members: &Members) -> Option<u64> {
    let restart = view.set.spec.restarted_at.as_ref().map(|at| at.0);
    let waiting = members
        .pods
        .values()
        .filter(|p| p.is_ready() && !p.terminating());
    waiting
        .filter(|p| !p.available(view))
        .filter_map(|p| p.available_at(&view.set))
        .chain(restart.filter(|at| *at > view.now))
        .map(|at| u64::try_from(at.duration_since(view.now).as_millis()).unwrap_or(0) + 1)
        .min()
}
