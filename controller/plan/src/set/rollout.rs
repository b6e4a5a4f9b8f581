//! Rolling update: from the highest ordinal down, within a budget of
//! unavailable pods, and only for victims that the set's status has claimed.

use std::{ops::Range, sync::Arc};

use berth_api::Disruption;
use jiff::SignedDuration;

use super::{
    draft::Draft,
    manifest,
    members::Members,
    plan::Action,
    revisions::Revisions,
    view::{Kind, Pod, Verdict, View},
    waits::{self, Wait, WaitReason},
};

/// A refused template is tried again after this: the policy may have changed.
const REFUSAL_AGE: SignedDuration = SignedDuration::from_secs(60);

/// The victim still exists and is not on its way out.
pub(super) fn still_there(members: &Members, victim: &Disruption) -> bool {
    let mut pods = members.pods.values();
    pods.any(|p| p.uid == victim.uid && !p.terminating())
}

/// How long an outdated pod of a revision that works may be unready before it is
/// replaced out of turn: a node or a probe that was silent for a moment costs no pod.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// An outdated pod that is not ready and will hardly become so. Without its replacement a
/// bad template could never be corrected.
///
/// That is one of a revision of which no pod is available. Where others of it are, the
/// revision is good and the pod may recover: a native set waits for it, as upstream does,
/// and an OrdinalSet for a while. A pod on a silent node may run and serve, and stays.
pub(super) fn is_hopeless(
    draft: &mut Draft<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
    ordinal: i32,
    pod: &Pod,
) -> bool {
    let view = draft.view;
    let set = &view.set;
    let due = set.rolling() && ordinal >= set.first_updated() && revisions.outdated(view, pod);
    if !due || pod.is_ready() || pod.terminating() || pod.ended() || pod.node_silent {
        return false;
    }
    let works = (members.pods.values())
        .any(|other| other.revision() == pod.revision() && other.available(view));
    if !works {
        return true;
    }
    let patience = pod.unready.and_then(|at| at.checked_add(PATIENCE).ok());
    match patience.filter(|_| set.kind == Kind::OrdinalSet) {
        Some(end) if end <= view.now => true,
        Some(end) => {
            draft.look_again(end);
            false
        }
        None => false,
    }
}

/// Deletes a hopeless pod.
pub(super) fn replace_hopeless(
    draft: &mut Draft<'_>,
    revisions: &Revisions<'_>,
    ordinal: i32,
    pod: &Pod,
) {
    let reason = format!(
        "{} is not ready and {}",
        pod.name,
        revisions.age(draft.view, pod)
    );
    draft.delete(ordinal, pod, reason);
}

/// The ordinals of a range that have no pod for which `test` holds. (A range may be huge.)
fn count_but(members: &Members, ordinals: Range<i32>, test: impl Fn(&Pod) -> bool) -> i64 {
    if ordinals.is_empty() {
        return 0;
    }
    let all = i64::from(ordinals.end) - i64::from(ordinals.start);
    let pods = members.pods.range(ordinals).filter(|(_, pod)| test(pod));
    all - i64::try_from(pods.count()).unwrap_or(i64::MAX)
}

/// Replaces hopeless pods of a Parallel set from the top down, while no more than
/// maxUnavailable replacements are on their way.
fn heal(draft: &mut Draft<'_>, members: &Members, revisions: &Revisions<'_>) {
    let view = draft.view;
    let set = &view.set;
    let stays =
        |pod: &Pod| !pod.terminating() && (revisions.outdated(view, pod) || pod.available(view));
    let mut replacing = count_but(members, set.first_updated()..set.wanted().end, stays);
    let budget = i64::from(set.max_unavailable());
    for (ordinal, pod) in members.pods.range(set.wanted()).rev() {
        if replacing >= budget {
            return;
        }
        if !draft.has_acted(*ordinal)
            && is_hopeless(draft, members, revisions, *ordinal, pod)
            && may_update(draft, revisions, *ordinal)
        {
            replace_hopeless(draft, revisions, *ordinal, pod);
            replacing += 1;
        }
    }
}

/// Whether pods may go down for the update revision: only after a dry run
/// of it. Asks for one where none was made.
pub(super) fn may_update(draft: &mut Draft<'_>, revisions: &Revisions<'_>, ordinal: i32) -> bool {
    let view = draft.view;
    let update = revisions.update.as_deref().unwrap_or_default();
    let check = view.template_check.as_ref();
    match check
        .filter(|c| c.revision == update)
        .map(|c| (&c.verdict, c.at))
    {
        Some((Verdict::Passed | Verdict::Unknown(_), _)) => true,
        Some((Verdict::Refused(message), at)) => {
            if !(draft.waits.iter()).any(|w| w.reason == WaitReason::TemplateRefused) {
                draft.waits.push(template_refused(view, message));
            }
            // The policy that refused it may have changed.
            match at.checked_add(REFUSAL_AGE) {
                Ok(end) if end > view.now => draft.look_again(end),
                _ => check_template(draft, revisions, ordinal),
            }
            false
        }
        None => {
            check_template(draft, revisions, ordinal);
            false
        }
    }
}

/// Asks for a dry run, once in a plan.
fn check_template(draft: &mut Draft<'_>, revisions: &Revisions<'_>, ordinal: i32) {
    if std::mem::replace(&mut draft.check_asked, true) {
        return;
    }
    let update = revisions.update.as_deref().unwrap_or_default();
    let set = &draft.view.set;
    let action = Action::CheckTemplate {
        revision: update.to_owned(),
        pod: manifest::pod(set, ordinal, update, &revisions.update_template),
    };
    let reason = format!(
        "no pod goes down for {update} before the API server has said that it would take its pods"
    );
    draft.act_on_set(action, reason);
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

/// Replicas that are down for a rollout, if their number is within its budget.
pub(super) fn down_by_rollout(view: &View, members: &Members, revisions: &Revisions<'_>) -> i32 {
    let set = &view.set;
    let rolls = set.rolling()
        && revisions.settled
        && (revisions.current != revisions.update
            || members.pods.values().any(|p| revisions.outdated(view, p)));
    if !rolls {
        return 0;
    }
    let down = count_but(members, set.first_updated()..set.wanted().end, |p| {
        p.available(view)
    });
    i32::try_from(down).map_or(0, |down| {
        if down <= set.max_unavailable() {
            down
        } else {
            0
        }
    })
}

/// Whether the set's status permits this pod, as it is, to be taken down.
fn is_claimed(view: &View, pod: &Pod) -> bool {
    let claims = &view.set.status.disrupting;
    claims.iter().any(|claim| {
        claim.uid == pod.uid
            && [pod.resource_version.as_str(), ""].contains(&claim.resource_version.as_str())
    })
}

/// Replace pods of old revisions. Returns the victims to publish.
///
/// A permission that was published stays until its pod is gone or changed: another
/// controller, which has read it, may act on it late. A pod that is to stay after all is
/// changed first, and counts as down until then.
pub(super) fn run(
    draft: &mut Draft<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
) -> Vec<Disruption> {
    let view = draft.view;
    let mut victims = replace_outdated(draft, members, revisions);
    for (ordinal, pod) in &members.pods {
        if pod.terminating() || !is_claimed(view, pod) || victims.iter().any(|v| v.uid == pod.uid) {
            continue;
        }
        victims.push(victim(pod));
        let action = Action::KeepPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
        };
        let reason = format!("{} was to be replaced and stays after all", pod.name);
        draft.act(*ordinal, action, reason);
    }
    victims
}

fn victim(pod: &Pod) -> Disruption {
    Disruption {
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        resource_version: pod.resource_version.clone(),
    }
}

/// Replaces what is due of the pods of old revisions, as far as the budget goes. Returns
/// the pods that may be taken down.
fn replace_outdated(
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
    if !set.ordered() {
        heal(draft, members, revisions);
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
    let claimed = |pod: &Pod| is_claimed(view, pod);
    // A native Parallel set does not look below its partition, as upstream does not.
    let counted = if set.kind == Kind::StatefulSet && !set.ordered() {
        set.first_updated().clamp(wanted.start, wanted.end)..wanted.end
    } else {
        wanted.clone()
    };
    let up = (members.pods.range(counted.clone()))
        .filter(|(ordinal, pod)| pod.available(view) && !draft.has_acted(**ordinal));
    let up = i64::try_from(up.count()).unwrap_or(i64::MAX);
    let down = i64::from(counted.end) - i64::from(counted.start) - up;
    // Pods that are up and that another controller may still take down.
    let threatened = (members.pods.range(counted)).filter(|(ordinal, pod)| {
        pod.available(view)
            && !draft.has_acted(**ordinal)
            && claimed(pod)
            && !due.iter().any(|(other, _)| other == *ordinal)
    });
    let threatened = i64::try_from(threatened.count()).unwrap_or(i64::MAX);
    let mut budget = i64::from(set.max_unavailable()) - down - threatened;
    let mut victims = Vec::new();
    // Claimed victims first; one that no longer fits (a pod failed meanwhile, the
    // set grew) is given back.
    let (old, new): (Vec<_>, Vec<_>) = due.into_iter().partition(|(_, pod)| claimed(pod));
    for (ordinal, pod) in old.into_iter().chain(new) {
        if budget <= 0 || draft.has_acted(ordinal) {
            continue;
        }
        budget -= 1;
        victims.push(victim(pod));
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
