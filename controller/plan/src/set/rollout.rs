//! Rolling update: from the highest ordinal down, within a budget of
//! unavailable pods, and only for victims that the set's status has claimed.

use std::sync::Arc;

use berth_api::Disruption;

use super::{
    members::Members,
    planner::Round,
    revisions::Revisions,
    view::{Kind, Pod, View},
    waits::{Wait, WaitReason},
};

/// The victim still exists and is not on its way out.
pub(super) fn still_there(members: &Members, victim: &Disruption) -> bool {
    let mut pods = members.pods.values();
    pods.any(|p| p.uid == victim.uid && !p.terminating())
}

/// An outdated pod that is not ready, for which waiting might never end: it is
/// replaced at once, outside the budget, since it serves nobody. Without this a
/// bad template could never be corrected.
///
/// An ordered native set waits for it where other pods of the same revision are
/// available, as upstream does: the revision is good, and the pod may recover.
pub(super) fn is_hopeless(
    view: &View,
    members: &Members,
    revisions: &Revisions<'_>,
    ordinal: i32,
    pod: &Pod,
) -> bool {
    let set = &view.set;
    let due = set.rolling() && ordinal >= set.first_updated() && revisions.outdated(view, pod);
    if !due || pod.is_ready() || pod.terminating() {
        return false;
    }
    let waits_as_upstream = set.kind == Kind::StatefulSet && set.ordered();
    !waits_as_upstream
        || !(members.pods.values())
            .any(|other| other.revision() == pod.revision() && other.available(view))
}

/// Replace pods of old revisions. Returns the victims to publish.
pub(super) fn run(
    round: &mut Round<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
) -> Vec<Disruption> {
    let view = round.view;
    let set = &view.set;
    let wanted = set.wanted();
    let outdated: Vec<(i32, &Arc<Pod>)> = (members.pods.range(wanted.clone()).rev())
        .filter(|(_, pod)| !pod.terminating() && revisions.outdated(view, pod))
        .map(|(ordinal, pod)| (*ordinal, pod))
        .collect();
    if !set.rolling() {
        for (ordinal, pod) in outdated.iter().rev() {
            let short = format!("{}: is outdated (OnDelete)", pod.name);
            let what_to_do =
                "delete the pod when it suits you, and it comes back from the newest template";
            round
                .waits
                .push(Wait::new(*ordinal, WaitReason::OnDelete, short, what_to_do));
        }
        return Vec::new();
    }
    let due =
        |(ordinal, pod): &&(i32, &Arc<Pod>)| *ordinal >= set.first_updated() && pod.available(view);
    let due: Vec<(i32, &Arc<Pod>)> = outdated.iter().filter(due).copied().collect();
    let Some((top, _)) = due.first() else {
        return Vec::new();
    };
    if !round.may_update(revisions, *top) {
        return Vec::new();
    }
    let claimed = |pod: &Pod| set.status.disrupting.iter().any(|d| d.uid == pod.uid);
    let up = (members.pods.range(wanted.clone()))
        .filter(|(ordinal, pod)| pod.available(view) && !round.has_acted(**ordinal));
    let down = i64::from(set.replicas()) - i64::try_from(up.count()).unwrap_or(i64::MAX);
    let mut budget = i64::from(set.max_unavailable()) - down;
    let mut victims = Vec::new();
    // Claimed victims first; one that no longer fits (a pod failed meanwhile, the
    // set grew) is given back.
    let (old, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, pod)| claimed(pod));
    for (ordinal, pod) in old.into_iter().chain(new) {
        if budget <= 0 || round.has_acted(ordinal) {
            continue;
        }
        budget -= 1;
        victims.push(Disruption {
            pod: pod.name.clone(),
            uid: pod.uid.clone(),
        });
        if claimed(pod) {
            let reason = format!(
                "{} {}, and at most {} may be unavailable",
                pod.name,
                revisions.age(view, pod),
                set.max_unavailable()
            );
            round.delete(ordinal, pod, reason);
        } else {
            round.status_first = true;
        }
    }
    victims
}
