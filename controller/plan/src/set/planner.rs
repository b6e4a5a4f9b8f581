//! One round: replicas in ascending order, then what is to be scaled away in
//! descending order, then the rollout. Each part runs only when the parts before
//! it did not stop (`updateStatefulSet` upstream).

use std::{collections::BTreeSet, sync::Arc};

use super::{
    claims, manifest,
    members::{self, Members},
    plan::{Action, Notice, Object, Plan, Step},
    revisions::{self, Revisions},
    rollout, status,
    view::{Pod, PodPhase, TemplateCheck, Verdict, View},
    waits::{self, Wait, WaitReason},
};

/// Most pods created in one round; the next round makes more.
const CREATE_LIMIT: usize = 500;

/// What a round has decided so far.
pub(super) struct Round<'a> {
    pub(super) view: &'a View,
    pub(super) steps: Vec<Step>,
    pub(super) waits: Vec<Wait>,
    pub(super) notices: Vec<Notice>,
    /// Ordinals that have their one action of this round.
    acted: BTreeSet<i32>,
    pub(super) status_first: bool,
    /// The dry run of this round has been asked for.
    check_asked: bool,
    created: usize,
}

impl Round<'_> {
    /// Plan an action on an ordinal, unless it has one already.
    pub(super) fn act(&mut self, ordinal: i32, action: Action, reason: String) {
        if self.acted.insert(ordinal) {
            self.steps.push(Step {
                ordinal: Some(ordinal),
                action,
                reason,
            });
        }
    }

    /// Plan an action that concerns no ordinal.
    pub(super) fn act_on_set(&mut self, action: Action, reason: String) {
        self.steps.push(Step {
            ordinal: None,
            action,
            reason,
        });
    }

    /// Delete a pod with its own grace, or one second where that is 0.
    pub(super) fn delete(&mut self, ordinal: i32, pod: &Pod, reason: String) {
        let own_grace = pod.grace_seconds >= 1;
        let action = Action::DeletePod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            resource_version: pod.resource_version.clone(),
            grace_seconds: (!own_grace).then_some(std::num::NonZeroU32::MIN),
        };
        self.act(ordinal, action, reason);
    }

    pub(super) fn has_acted(&self, ordinal: i32) -> bool {
        self.acted.contains(&ordinal)
    }

    /// Whether pods may go down for the update revision: only after a dry run
    /// of it. Asks for one where none was made.
    pub(super) fn may_update(&mut self, revisions: &Revisions<'_>, ordinal: i32) -> bool {
        let view = self.view;
        let update = revisions.update.as_deref().unwrap_or_default();
        match view
            .template_check
            .as_ref()
            .filter(|c| c.revision == update)
        {
            Some(TemplateCheck { verdict, .. }) => match verdict {
                Verdict::Passed | Verdict::Unknown(_) => true,
                Verdict::Refused(message) => {
                    if !self.waits.iter().any(|w| w.ordinal.is_none()) {
                        self.waits.push(template_refused(view, message));
                    }
                    false
                }
            },
            None => {
                if !self.check_asked {
                    self.check_asked = true;
                    let pod = manifest::pod(&view.set, ordinal, update, &revisions.update_template);
                    let action = Action::CheckTemplate {
                        revision: update.to_owned(),
                        pod,
                    };
                    let reason = format!(
                        "no pod goes down for {update} before the API server has said that it would take its pods"
                    );
                    self.act_on_set(action, reason);
                }
                false
            }
        }
    }
}

fn template_refused(view: &View, message: &str) -> Wait {
    let set = &view.set.name;
    let mut wait = Wait::new(
        0,
        WaitReason::TemplateRefused,
        format!(
            "{set}: template refused (API server: {})",
            waits::essence(message)
        ),
        "no pod was taken down for it; correct spec.template",
    );
    wait.ordinal = None;
    wait
}

/// What to do next for the set of `view`.
pub fn plan(view: &View) -> Plan {
    let mut round = Round {
        view,
        steps: Vec::new(),
        waits: Vec::new(),
        notices: Vec::new(),
        acted: BTreeSet::new(),
        status_first: false,
        check_asked: false,
        created: 0,
    };
    let members = members::classify_pods(&mut round);
    let revisions = revisions::resolve(&mut round, &members);
    let mut disrupting = view.set.status.disrupting.clone();
    if !view.set.deleting && members.settled && revisions.settled {
        if replicas(&mut round, &members, &revisions) && condemned(&mut round, &members) {
            disrupting = rollout::run(&mut round, &members, &revisions);
        } else {
            disrupting.retain(|d| rollout::still_there(&members, d));
        }
        revisions::truncate(&mut round, &revisions, &members);
    }
    status::finish(round, &members, &revisions, disrupting)
}

/// Creates and repairs the wanted replicas. `false` stops the round.
fn replicas(round: &mut Round<'_>, members: &Members, revisions: &Revisions<'_>) -> bool {
    let ordered = round.view.set.ordered();
    for ordinal in round.view.set.wanted() {
        let healthy = match members.pods.get(&ordinal) {
            Some(pod) => replica(round, members, revisions, ordinal, pod),
            None => {
                missing(round, members, revisions, ordinal);
                false
            }
        };
        if ordered && !healthy {
            return false;
        }
        if round.created >= CREATE_LIMIT {
            return false;
        }
    }
    true
}

/// A wanted replica without a pod.
fn missing(round: &mut Round<'_>, members: &Members, revisions: &Revisions<'_>, ordinal: i32) {
    let view = round.view;
    let set = &view.set;
    let name = set.pod_name(ordinal);
    if let Some(owner) = members.foreign_pods.get(&ordinal) {
        let what_to_do = format!(
            "{owner}; delete or rename pod {name} of namespace {}, or give it the set's labels and no other owner",
            set.namespace
        );
        let short = format!("{name}: a foreign pod has this name (NameConflict)");
        round.waits.push(Wait::new(
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
            round.waits.push(Wait::new(
                ordinal,
                WaitReason::ClaimDeleting,
                short,
                &what_to_do,
            ));
            return;
        }
    }
    if let Some(refusal) = view.refusals.get(&name) {
        let (reason, what_to_do) = if refusal.template {
            (
                WaitReason::TemplateRefused,
                "correct spec.template or volumeClaimTemplates",
            )
        } else {
            (WaitReason::CreateRefused, "it is tried again")
        };
        let short = format!(
            "{name}: refused (API server: {})",
            waits::essence(&refusal.message)
        );
        round
            .waits
            .push(Wait::new(ordinal, reason, short, what_to_do));
    }
    let (revision, template) = revisions.target(view, ordinal);
    let action = Action::CreatePod {
        claims: missing_claims(view, ordinal),
        pod: manifest::pod(set, ordinal, revision, template),
    };
    round.created += 1;
    round.act(
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
    round: &mut Round<'_>,
    members: &Members,
    revisions: &Revisions<'_>,
    ordinal: i32,
    pod: &Arc<Pod>,
) -> bool {
    let view = round.view;
    if pod.terminating() {
        keep_claims(round, ordinal, pod, false);
        round.waits.push(waits::terminating(ordinal, pod));
        return false;
    }
    if pod.ended() {
        let how = match pod.phase {
            Some(PodPhase::Succeeded) => "succeeded",
            _ => "failed",
        };
        let short = format!("{}: {how}, it is being replaced", pod.name);
        round
            .waits
            .push(Wait::new(ordinal, WaitReason::PodEnded, short, ""));
        round.delete(ordinal, pod, format!("{} has {how}", pod.name));
        return false;
    }
    if !matches!(pod.phase, Some(PodPhase::Running)) {
        let claims = missing_claims(view, ordinal);
        if !claims.is_empty() {
            let reason = format!("{} is pending, and its claim is missing", pod.name);
            round.act(ordinal, Action::CreateClaims { claims }, reason);
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
        round.act(
            ordinal,
            action,
            format!("{} lacks the labels of its identity", pod.name),
        );
    }
    wrong_claims(round, ordinal, pod);
    keep_claims(round, ordinal, pod, false);
    if pod.available(view) {
        return true;
    }
    if rollout::is_hopeless(view, members, revisions, ordinal, pod)
        && round.may_update(revisions, ordinal)
    {
        let reason = format!("{} is not ready and {}", pod.name, revisions.age(view, pod));
        round.delete(ordinal, pod, reason);
    }
    round.waits.push(waits::unavailable(view, ordinal, pod));
    false
}

/// A pod that mounts another claim than its identity demands. Volumes of a pod
/// cannot be changed, so a person decides about the pod.
fn wrong_claims(round: &mut Round<'_>, ordinal: i32, pod: &Pod) {
    for (volume, claim) in round.view.set.claim_names(ordinal) {
        let mounted = pod.claims.get(volume).map(String::as_str);
        if mounted != Some(claim.as_str()) {
            let mounted = mounted.unwrap_or("no claim");
            let short = format!("{}: volume {volume} is {mounted}, not {claim}", pod.name);
            let what_to_do = "delete the pod, and the set makes it with the right claim";
            round.waits.push(Wait::new(
                ordinal,
                WaitReason::WrongClaim,
                short,
                what_to_do,
            ));
        }
    }
}

/// Applies the retention policy to an ordinal's claims. Whether they already complied.
fn keep_claims(round: &mut Round<'_>, ordinal: i32, pod: &Pod, condemned: bool) -> bool {
    let view = round.view;
    for (_, name) in view.set.claim_names(ordinal) {
        if view
            .claims
            .get(&name)
            .is_some_and(|c| claims::conflicting(&view.set, c, pod))
        {
            round.notices.push(Notice {
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
        round.act(ordinal, Action::UpdateClaimOwners { claims }, reason);
    }
    right
}

/// Deletes the pods outside the wanted range, from the top. `false` stops the round.
fn condemned(round: &mut Round<'_>, members: &Members) -> bool {
    let view = round.view;
    let wanted = view.set.wanted();
    let pods: Vec<(i32, &Arc<Pod>)> = (members.pods.iter().rev())
        .filter(|(ordinal, _)| !wanted.contains(ordinal))
        .map(|(ordinal, pod)| (*ordinal, pod))
        .collect();
    // Claims first, all of them: a pod that is gone can own nothing.
    let mut claims_right = true;
    for (ordinal, pod) in &pods {
        claims_right &= keep_claims(round, *ordinal, pod, true);
    }
    if !claims_right {
        return false;
    }
    if !view.set.ordered() {
        for (ordinal, pod) in pods {
            if pod.terminating() {
                round.waits.push(waits::terminating(ordinal, pod));
            } else {
                round.delete(ordinal, pod, format!("{} is scaled away", pod.name));
            }
        }
        return true;
    }
    let Some((ordinal, pod)) = pods.first().copied() else {
        return true;
    };
    if pod.terminating() {
        round.waits.push(waits::terminating(ordinal, pod));
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
            round.waits.push(Wait::new(
                ordinal,
                WaitReason::ScaleDownHalted,
                short,
                &what_to_do,
            ));
        }
        _ => round.delete(ordinal, pod, format!("{} is scaled away", pod.name)),
    }
    false
}
