//! One pass: replicas in ascending order, then what is to be scaled away in
//! descending order, then the rollout. Each part runs only when the parts before
//! it did not stop (`updateStatefulSet` upstream).

use std::sync::Arc;

use super::{
    claims,
    draft::Draft,
    manifest,
    members::{self, Members},
    plan::{Action, Notice, Object, Plan},
    revisions::{self, Revisions},
    rollout, status,
    view::{Pod, PodPhase, View},
    waits::{self, Wait, WaitReason},
};

/// Most pods that one plan creates; the next one makes more.
const CREATE_LIMIT: usize = 500;

/// What to do next for the set of `view`.
pub fn plan(view: &View) -> Plan {
    let mut draft = Draft::new(view);
    let members = members::classify_pods(&mut draft);
    let revisions = revisions::resolve(&mut draft, &members);
    if view.set.unknown_strategy() {
        let short = format!(
            "{}: updateStrategy.type is not known to Berth",
            view.set.name
        );
        let what_to_do =
            "pods are updated when a person deletes them; use RollingUpdate or OnDelete";
        let wait = Wait::of_set(WaitReason::StrategyUnknown, short, what_to_do);
        draft.waits.push(wait);
    }
    let mut disrupting = view.set.status.disrupting.clone();
    if !view.set.deleting && members.settled && revisions.settled {
        if replicas(&mut draft, &members, &revisions) && condemned(&mut draft, &members) {
            disrupting = rollout::run(&mut draft, &members, &revisions);
        } else {
            disrupting.retain(|d| rollout::still_there(&members, d));
        }
        release_claims(&mut draft, &members);
        revisions::truncate(&mut draft, &revisions, &members);
    }
    draft.hold_back();
    status::finish(draft, &members, &revisions, disrupting)
}

/// Creates and repairs the wanted replicas. `false` ends the pass.
fn replicas(draft: &mut Draft<'_>, members: &Members, revisions: &Revisions<'_>) -> bool {
    let ordered = draft.view.set.ordered();
    for ordinal in draft.view.set.wanted() {
        let healthy = match members.pods.get(&ordinal) {
            Some(pod) => replica(draft, members, revisions, ordinal, pod),
            None => {
                missing(draft, members, revisions, ordinal);
                false
            }
        };
        if ordered && !healthy {
            return false;
        }
        if draft.created >= CREATE_LIMIT {
            return false;
        }
    }
    true
}

/// A wanted replica without a pod.
fn missing(draft: &mut Draft<'_>, members: &Members, revisions: &Revisions<'_>, ordinal: i32) {
    let view = draft.view;
    let set = &view.set;
    let name = set.pod_name(ordinal);
    if let Some(owner) = members.foreign_pods.get(&ordinal) {
        let what_to_do = format!(
            "{owner}; delete or rename pod {name} of namespace {}, or give it the set's labels and no other owner",
            set.namespace
        );
        let short = format!("{name}: a foreign pod has this name (NameConflict)");
        draft.waits.push(Wait::of_ordinal(
            ordinal,
            WaitReason::NameConflict,
            short,
            &what_to_do,
        ));
        return;
    }
    for (_, claim) in set.claim_names(ordinal) {
        let Some(found) = view.claims.get(&claim) else {
            continue;
        };
        if found.deleting || claims::belongs_to_old_pod(set, found, ordinal) {
            let short = format!("{claim}: being deleted");
            let what_to_do = format!("pod {name} and a new claim are made when it is gone");
            draft.waits.push(Wait::of_ordinal(
                ordinal,
                WaitReason::ClaimDeleting,
                short,
                &what_to_do,
            ));
            return;
        }
    }
    if let Some(refusal) = view.refusals.get(&name) {
        draft.waits.push(waits::refused(ordinal, &name, refusal));
    }
    let (revision, template) = revisions.target(view, ordinal);
    let action = Action::CreatePod {
        claims: missing_claims(view, ordinal),
        pod: manifest::pod(set, ordinal, revision, template),
    };
    draft.created += 1;
    draft.act(
        ordinal,
        action,
        format!("{name} is wanted and does not exist"),
    );
}

fn missing_claims(view: &View, ordinal: i32) -> Vec<Object> {
    let mut claims = manifest::claims(&view.set, ordinal);
    claims.retain(|c| !view.claims.contains_key(&c.name));
    claims
}

/// A wanted replica with a pod. Whether the next ones may go on.
fn replica(
    draft: &mut Draft<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
    ordinal: i32,
    pod: &Arc<Pod>,
) -> bool {
    let view = draft.view;
    if pod.terminating() {
        keep_claims(draft, ordinal, pod, false);
        draft.waits.push(waits::terminating(ordinal, pod));
        return false;
    }
    if pod.ended() {
        let how = match pod.phase {
            Some(PodPhase::Succeeded) => "succeeded",
            _ => "failed",
        };
        let until = view.memory.ended_until(ordinal, view.now);
        let until = until.filter(|until| *until > view.now);
        draft.waits.push(waits::ended(ordinal, pod, how, until));
        match until {
            Some(until) => draft.look_again(until),
            None => draft.replace_ended(ordinal, pod, format!("{} has {how}", pod.name)),
        }
        return false;
    }
    if !matches!(pod.phase, Some(PodPhase::Running)) {
        let claims = missing_claims(view, ordinal);
        if !claims.is_empty() {
            if let Some(refusal) = view.refusals.get(&pod.name) {
                draft
                    .waits
                    .push(waits::refused(ordinal, &pod.name, refusal));
            }
            let reason = format!("{} is pending, and its claim is missing", pod.name);
            let pod = pod.name.clone();
            draft.act(ordinal, Action::CreateClaims { pod, claims }, reason);
        }
    }
    let wanted = manifest::identity_labels(&pod.name, ordinal);
    let name_label = berth_api::names::pod::POD_NAME;
    if pod.labels.get(name_label) != wanted.get(name_label) {
        let action = Action::RepairPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            labels: wanted,
        };
        draft.act(
            ordinal,
            action,
            format!("{} lacks the labels of its identity", pod.name),
        );
    }
    wrong_claims(draft, ordinal, pod);
    keep_claims(draft, ordinal, pod, false);
    if pod.available(view) {
        return true;
    }
    // In order, the lowest pod that is not available stops everything: where it cannot
    // recover, nothing else may stand in the way of its replacement.
    if view.set.ordered()
        && rollout::is_hopeless(draft, members, revisions, ordinal, pod)
        && rollout::may_update(draft, revisions, ordinal)
    {
        rollout::replace_hopeless(draft, revisions, ordinal, pod);
    }
    draft.waits.push(waits::unavailable(view, ordinal, pod));
    false
}

/// A pod that mounts another claim than its identity demands. Volumes of a pod
/// cannot be changed, so a person decides about the pod.
fn wrong_claims(draft: &mut Draft<'_>, ordinal: i32, pod: &Pod) {
    for (volume, claim) in draft.view.set.claim_names(ordinal) {
        let mounted = pod.claims.get(volume).map(String::as_str);
        if mounted != Some(claim.as_str()) {
            let mounted = mounted.unwrap_or("no claim");
            let short = format!("{}: volume {volume} is {mounted}, not {claim}", pod.name);
            let what_to_do = "delete the pod, and the set makes it with the right claim";
            draft.waits.push(Wait::of_ordinal(
                ordinal,
                WaitReason::WrongClaim,
                short,
                what_to_do,
            ));
        }
    }
}

/// Applies the retention policy to an ordinal's claims. Whether they already complied.
fn keep_claims(draft: &mut Draft<'_>, ordinal: i32, pod: &Pod, condemned: bool) -> bool {
    let view = draft.view;
    for (_, name) in view.set.claim_names(ordinal) {
        if view
            .claims
            .get(&name)
            .is_some_and(|c| claims::conflicting(&view.set, c, pod))
        {
            draft.notices.push(Notice {
                reason: "ConflictingController",
                message: format!(
                    "claim {name} is controlled by another owner, so the retention policy of the set does not apply to it"
                ),
            });
        }
    }
    let claims = claims::updates(view, ordinal, pod, condemned);
    let right = claims.is_empty();
    if !right {
        let reason = if condemned {
            format!(
                "{} is scaled away: its claims follow persistentVolumeClaimRetentionPolicy",
                pod.name
            )
        } else {
            format!(
                "claims of {} do not have the owners of persistentVolumeClaimRetentionPolicy",
                pod.name
            )
        };
        draft.act(ordinal, Action::UpdateClaimOwners { claims }, reason);
    }
    right
}

/// Frees the claims of ordinals without a pod from the set, once the policy says that
/// they outlive it: no pod's turn would ever come to it, and the garbage collector would
/// take them with the set. (Upstream leaves them to it.)
fn release_claims(draft: &mut Draft<'_>, members: &Members) {
    let view = draft.view;
    let set = &view.set;
    if set.delete_when_deleted() {
        return;
    }
    for (ordinal, claims) in
        claims::without_pod(view, |ordinal| members.pods.contains_key(&ordinal))
    {
        let reason = format!(
            "whenDeleted is Retain, and claims of {} belong to the set still",
            set.pod_name(ordinal)
        );
        draft.act(ordinal, Action::UpdateClaimOwners { claims }, reason);
    }
}

/// Deletes the pods outside the wanted range, from the top. `false` ends the pass.
fn condemned(draft: &mut Draft<'_>, members: &Members) -> bool {
    let view = draft.view;
    let wanted = view.set.wanted();
    let pods: Vec<(i32, &Arc<Pod>)> = (members.pods.iter().rev())
        .filter(|(ordinal, _)| !wanted.contains(ordinal))
        .map(|(ordinal, pod)| (*ordinal, pod))
        .collect();
    // Claims first, all of them: a pod that is gone can own nothing.
    let mut claims_right = true;
    for (ordinal, pod) in &pods {
        claims_right &= keep_claims(draft, *ordinal, pod, true);
    }
    if !claims_right {
        return false;
    }
    if !view.set.ordered() {
        for (ordinal, pod) in pods {
            if pod.terminating() {
                draft.waits.push(waits::terminating(ordinal, pod));
            } else {
                draft.delete(ordinal, pod, format!("{} is scaled away", pod.name));
            }
        }
        return true;
    }
    let Some((ordinal, pod)) = pods.first().copied() else {
        return true;
    };
    if pod.terminating() {
        draft.waits.push(waits::terminating(ordinal, pod));
        return false;
    }
    // An ended pod never recovers, so waiting for it would never end.
    let is_sick = |p: &Pod| !p.available(view) && !p.ended();
    let sick = pods.iter().rev().find(|(_, p)| is_sick(p));
    match sick {
        Some((lowest, other)) if is_sick(pod) && *lowest != ordinal => {
            let short = format!(
                "{}: not deleted while {} is unavailable too",
                pod.name, other.name
            );
            let what_to_do = format!(
                "an ordered set does not scale down while more than one of its pods is unavailable; repair or delete {}",
                other.name
            );
            draft.waits.push(Wait::of_ordinal(
                ordinal,
                WaitReason::ScaleDownHalted,
                short,
                &what_to_do,
            ));
        }
        _ => draft.delete(ordinal, pod, format!("{} is scaled away", pod.name)),
    }
    false
}
