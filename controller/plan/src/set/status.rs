//! The status: counters as clients of StatefulSet read them, and conditions that
//! say in words what the set does and waits for.

use berth_api::{Disruption, OrdinalSetStatus, names::condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    members::Members,
    plan::Plan,
    planner::Round,
    revisions::Revisions,
    selector,
    view::{Pod, Verdict, View},
    waits::{Wait, clip},
};

/// Waits that the condition's message spells out.
const LISTED_WAITS: usize = 5;

/// Completes the plan: orders the waits, counts, and writes the status.
pub(super) fn finish(
    mut round: Round<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
    disrupting: Vec<Disruption>,
) -> Plan {
    let view = round.view;
    round.waits.sort_by_key(|w| w.reason.rank());
    let mut status = count(view, members, revisions);
    let done = complete(view, members, revisions, &mut status);
    status.disrupting = disrupting;
    status.waiting = round.waits.first().map(|w| w.short.clone());
    status.conditions = conditions(&round, &status, done);
    let status_first = round.status_first && status != view.set.status;
    Plan {
        requeue_after_ms: next_moment(view, members),
        steps: round.steps,
        status,
        status_first,
        waits: round.waits,
        notices: round.notices,
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
            let right = |p: &Pod| match held {
                true => p.revision() == revisions.target(view, ordinal).0,
                false => !revisions.outdated(view, p),
            };
            let pod = members.pods.get(&ordinal);
            pod.is_some_and(|p| p.available(view) && right(p))
        })
}

fn conditions(round: &Round<'_>, status: &OrdinalSetStatus, done: bool) -> Vec<Condition> {
    let view = round.view;
    let mut conditions = status.conditions.clone();
    let mut set = |type_: &str, value: &str, reason: &str, message: String| {
        let old = conditions.iter().position(|c| c.type_ == type_);
        let since = old.map(|i| &conditions[i]).filter(|c| c.status == value);
        let condition = Condition {
            last_transition_time: since.map_or(Time(view.now), |c| c.last_transition_time.clone()),
            message: clip(message, 8000),
            observed_generation: None,
            reason: reason.to_owned(),
            status: value.to_owned(),
            type_: type_.to_owned(),
        };
        match old {
            Some(index) => conditions[index] = condition,
            None => conditions.push(condition),
        }
    };
    let wanted = view.set.replicas();
    let available = status.available_replicas;
    let progress = format!(
        "{available} of {wanted} replicas are available, {} of the newest revision",
        status.updated_replicas
    );
    if done {
        set(
            condition::AVAILABLE,
            "True",
            "AllAvailable",
            progress.clone(),
        );
    } else {
        set(
            condition::AVAILABLE,
            "False",
            "NotAllAvailable",
            progress.clone(),
        );
    }
    let blocker = round.waits.iter().find(|w| w.reason.blocks());
    match blocker {
        _ if view.set.deleting => set(
            condition::PROGRESSING,
            "False",
            "Deleting",
            "the set is being deleted".to_owned(),
        ),
        _ if done => set(condition::PROGRESSING, "False", "Complete", progress),
        Some(wait) => set(
            condition::PROGRESSING,
            "False",
            wait.reason.as_str(),
            wait.message.clone(),
        ),
        None => set(condition::PROGRESSING, "True", "Working", progress),
    }
    match round.waits.first() {
        Some(first) => set(
            condition::WAITING,
            "True",
            first.reason.as_str(),
            listed(&round.waits),
        ),
        None => set(
            condition::WAITING,
            "False",
            "NothingToWaitFor",
            "nothing waits".to_owned(),
        ),
    }
    let refused = round
        .waits
        .iter()
        .find(|w| w.reason == super::WaitReason::TemplateRefused);
    let checked = view.template_check.as_ref();
    let checked = checked.filter(|c| Some(&c.revision) == status.update_revision.as_ref());
    let has = |name: &str| status.conditions.iter().any(|c| c.type_ == name);
    match (refused, checked.map(|c| &c.verdict)) {
        (Some(wait), _) => set(
            condition::TEMPLATE_REFUSED,
            "True",
            "Refused",
            wait.message.clone(),
        ),
        (None, Some(Verdict::Unknown(why))) => set(
            condition::TEMPLATE_REFUSED,
            "Unknown",
            "NotChecked",
            format!("the API server could not check the template beforehand: {why}"),
        ),
        _ if has(condition::TEMPLATE_REFUSED) => set(
            condition::TEMPLATE_REFUSED,
            "False",
            "Accepted",
            "the template is accepted".to_owned(),
        ),
        _ => {}
    }
    let back = view.set.spec.rollback_to.as_ref();
    match back.filter(|name| status.update_revision.as_ref() == Some(name)) {
        Some(name) => set(
            condition::ROLLED_BACK,
            "True",
            "RollbackTo",
            format!(
                "replicas get revision {name}; spec.template is not used until spec.rollbackTo is removed"
            ),
        ),
        None if has(condition::ROLLED_BACK) => set(
            condition::ROLLED_BACK,
            "False",
            "NotAsked",
            "replicas get spec.template".to_owned(),
        ),
        None => {}
    }
    conditions
}

fn listed(waits: &[Wait]) -> String {
    let messages: Vec<&str> = waits
        .iter()
        .take(LISTED_WAITS)
        .map(|w| w.message.as_str())
        .collect();
    let mut text = messages.join("\n");
    if waits.len() > LISTED_WAITS {
        text.push_str(&format!("\nand {} more", waits.len() - LISTED_WAITS));
    }
    text
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
