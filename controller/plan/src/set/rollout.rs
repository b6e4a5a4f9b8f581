//! Rolling update: from the highest ordinal down, within a budget of
//! unavailable pods, and only for victims that the set's status has claimed.

use std::sync::Arc;

use berth_api::Disruption;

use super::{
    draft::Draft,
    manifest,
    members::Members,
    plan::Action,
    revisions::Revisions,
    view::{Kind, Pod, TemplateCheck, Verdict, View},
    waits::{self, Wait, WaitReason},
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

/// Whether pods may go down for the update revision: only after a dry run
/// of it. Asks for one where none was made.
pub(super) fn may_update(draft: &mut Draft<'_>, revisions: &Revisions<'_>, ordinal: i32) -> bool {
    let view = draft.view;
    let update = revisions.update.as_deref().unwrap_or_default();
    match view
        .template_check
        .as_ref()
        .filter(|c| c.revision == update)
    {
        Some(TemplateCheck { verdict, .. }) => match verdict {
            Verdict::Passed | Verdict::Unknown(_) => true,
            Verdict::Refused(message) => {
                if !draft.waits.iter().any(|w| w.ordinal.is_none()) {
                    draft.waits.push(template_refused(view, message));
                }
                false
            }
        },
        None => {
            if !draft.check_asked {
                draft.check_asked = true;
                let pod = manifest::pod(&view.set, ordinal, update, &revisions.update_template);
                let action = Action::CheckTemplate {
                    revision: update.to_owned(),
                    pod,
                };
                let reason = format!(
                    "no pod goes down for {update} before the API server has said that it would take its pods"
                );
                draft.act_on_set(action, reason);
            }
            false
        }
    }
}

fn template_refused(view: &View, message: &str) -> Wait {
    let set = &view.set.name;
    Wait::of_set(
        WaitReason::TemplateRefused,
        format!(
            "{set}: template refused (API server: {})",
            waits::essence(message)
        ),
        "no pod was taken down for it; correct spec.template",
    )
}

/// Replace pods of old revisions. Returns the victims to publish.
pub(super) fn run(
    draft: &mut Draft<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
) -> Vec<Disruption> {
    let view = draft.view;
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
            draft.waits.push(Wait::of_ordinal(
                *ordinal,
                WaitReason::OnDelete,
                short,
                what_to_do,
            ));
        }
        return Vec::new();
    }
    let due =
        |(ordinal, pod): &&(i32, &Arc<Pod>)| *ordinal >= set.first_updated() && pod.available(view);
    let due: Vec<(i32, &Arc<Pod>)> = outdated.iter().filter(due).copied().collect();
    let Some((top, _)) = due.first() else {
        return Vec::new();
    };
    if !may_update(draft, revisions, *top) {
        return Vec::new();
    }
    let claimed = |pod: &Pod| set.status.disrupting.iter().any(|d| d.uid == pod.uid);
    let up = (members.pods.range(wanted.clone()))
        .filter(|(ordinal, pod)| pod.available(view) && !draft.has_acted(**ordinal));
    let down = i64::from(set.replicas()) - i64::try_from(up.count()).unwrap_or(i64::MAX);
    let mut budget = i64::from(set.max_unavailable()) - down;
    let mut victims = Vec::new();
    // Claimed victims first; one that no longer fits (a pod failed meanwhile, the
    // set grew) is given back.
    let (old, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, pod)| claimed(pod));
    for (ordinal, pod) in old.into_iter().chain(new) {
        if budget <= 0 || draft.has_acted(ordinal) {
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
            draft.delete(ordinal, pod, reason);
        } else {
            draft.status_first = true;
        }
    }
    victims
}
