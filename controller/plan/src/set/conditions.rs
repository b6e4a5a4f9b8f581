//! What the set does and waits for, as conditions: one function each.

use berth_api::{OrdinalSetStatus, names::condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    view::{Kind, Verdict, View},
    waits::{Wait, WaitReason, clip},
};

/// Waits that the message of the condition Waiting spells out.
const LISTED_WAITS: usize = 5;

/// What one condition is to say.
struct Draft {
    type_: &'static str,
    status: &'static str,
    reason: &'static str,
    message: String,
}

impl Draft {
    fn new(
        type_: &'static str,
        status: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Draft {
        Draft {
            type_,
            status,
            reason,
            message: message.into(),
        }
    }
}

/// How far the set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Something is left to do, or to wait for.
    Working,
    /// Every replica is available, and the rest of a rollout is held back: by the
    /// partition, or because people delete the pods (OnDelete).
    Held,
    /// Every replica is available and of the newest revision.
    Complete,
}

/// What conditions are made of.
pub(super) struct Facts<'a> {
    pub(super) view: &'a View,
    /// What the set waits for, the most telling first.
    pub(super) waits: &'a [Wait],
    /// Its counters, and the conditions that it has so far.
    pub(super) status: &'a OrdinalSetStatus,
    pub(super) state: State,
    /// There was no progress for progressDeadlineSeconds.
    pub(super) late: bool,
    /// Replicas that are down because a rollout replaces them, within its budget.
    pub(super) budget: i32,
}

/// The conditions of a set, beside those that it has already.
pub(super) fn of(facts: &Facts<'_>) -> Vec<Condition> {
    let mut conditions = facts.status.conditions.clone();
    let drafts = [
        Some(available(facts)),
        Some(progressing(facts)),
        ready(facts),
        reconciling(facts),
        stalled(facts),
        Some(waiting(facts.waits)),
        template_refused(facts),
        rolled_back(facts.view, facts.status),
    ];
    for draft in drafts.into_iter().flatten() {
        set(&mut conditions, draft, facts);
    }
    conditions
}

/// Writes one condition. Its time is that of the last change of its status.
fn set(conditions: &mut Vec<Condition>, draft: Draft, facts: &Facts<'_>) {
    let old = conditions.iter().position(|c| c.type_ == draft.type_);
    let since = old
        .map(|i| &conditions[i])
        .filter(|c| c.status == draft.status);
    let own = facts.view.set.kind == Kind::OrdinalSet;
    let condition = Condition {
        last_transition_time: since
            .map_or(Time(facts.view.now), |c| c.last_transition_time.clone()),
        message: clip(draft.message, 8000),
        // apps/v1 has no such field in its conditions.
        observed_generation: facts.status.observed_generation.filter(|_| own),
        reason: draft.reason.to_owned(),
        status: draft.status.to_owned(),
        type_: draft.type_.to_owned(),
    };
    match old {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

impl Facts<'_> {
    fn counts(&self) -> String {
        format!(
            "{} of {} replicas are available, {} of the newest revision",
            self.status.available_replicas,
            self.view.set.replicas(),
            self.status.updated_replicas
        )
    }

    fn held(&self) -> String {
        let set = &self.view.set;
        let by = if set.rolling() {
            format!(
                "the partition holds the rollout at ordinal {}",
                set.first_updated()
            )
        } else {
            "OnDelete: each pod is updated when a person deletes it".to_owned()
        };
        format!("{}; {by}", self.counts())
    }

    /// What nothing but a change by a person ends.
    fn dead_end(&self) -> Option<&Wait> {
        self.waits.iter().find(|w| w.reason.is_dead_end())
    }
}

/// Every replica is available, but for those that a rollout replaces within its budget.
/// Which revision they have does not matter.
fn available(facts: &Facts<'_>) -> Draft {
    let type_ = condition::AVAILABLE;
    let wanted = facts.view.set.replicas();
    let up = facts.status.available_replicas;
    let message = facts.counts();
    if facts.state != State::Working || up >= wanted {
        Draft::new(type_, "True", "AllAvailable", message)
    } else if facts.budget > 0 && up >= wanted - facts.budget {
        Draft::new(type_, "True", "RollingUpdate", message)
    } else {
        Draft::new(type_, "False", "NotAllAvailable", message)
    }
}

/// As a Deployment has it: true while work goes on and when it is done, false when it is
/// stuck.
fn progressing(facts: &Facts<'_>) -> Draft {
    let type_ = condition::PROGRESSING;
    if facts.view.set.deleting {
        return Draft::new(type_, "False", "Deleting", "the set is being deleted");
    }
    match facts.state {
        State::Complete => return Draft::new(type_, "True", "Complete", facts.counts()),
        State::Held => return Draft::new(type_, "True", "Held", facts.held()),
        State::Working => {}
    }
    match facts.waits.iter().find(|w| w.reason.blocks()) {
        Some(wait) => Draft::new(type_, "False", wait.reason.as_str(), wait.message.clone()),
        None if facts.late => Draft::new(type_, "False", DEADLINE, facts.overdue()),
        None => Draft::new(type_, "True", "Working", facts.counts()),
    }
}

/// kstatus: the set is as its spec says, as far as nobody holds it back.
fn ready(facts: &Facts<'_>) -> Option<Draft> {
    let type_ = condition::READY;
    let draft = match facts.state {
        State::Complete => Draft::new(type_, "True", "Complete", facts.counts()),
        State::Held => Draft::new(type_, "True", "Held", facts.held()),
        State::Working => Draft::new(type_, "False", "NotReady", facts.counts()),
    };
    facts.for_kstatus(draft)
}

/// kstatus: work is under way.
fn reconciling(facts: &Facts<'_>) -> Option<Draft> {
    let type_ = condition::RECONCILING;
    let stuck = facts.dead_end().is_some() || facts.late;
    let draft = if facts.state == State::Working && !stuck {
        Draft::new(type_, "True", "Working", facts.counts())
    } else {
        Draft::new(type_, "False", "NotWorking", facts.counts())
    };
    facts.for_kstatus(draft)
}

/// kstatus: nothing goes on without a person, or nothing went on for too long.
fn stalled(facts: &Facts<'_>) -> Option<Draft> {
    let type_ = condition::STALLED;
    let draft = match facts.dead_end() {
        Some(wait) => Draft::new(type_, "True", wait.reason.as_str(), wait.message.clone()),
        None if facts.late => Draft::new(type_, "True", DEADLINE, facts.overdue()),
        None => Draft::new(type_, "False", "NotStalled", facts.counts()),
    };
    facts.for_kstatus(draft)
}

/// The reason that a Deployment gives for the same.
const DEADLINE: &str = "ProgressDeadlineExceeded";

impl Facts<'_> {
    fn overdue(&self) -> String {
        let first = self.waits.first().map(|w| w.message.as_str());
        let deadline = self.view.set.progress_deadline().unwrap_or_default();
        format!(
            "no progress for {} s; {}",
            deadline.as_secs(),
            first.unwrap_or("nothing is waited for")
        )
    }

    /// Tools read these conditions of custom resources only.
    fn for_kstatus(&self, draft: Draft) -> Option<Draft> {
        (self.view.set.kind == Kind::OrdinalSet).then_some(draft)
    }
}

fn waiting(waits: &[Wait]) -> Draft {
    match waits.first() {
        Some(first) => Draft::new(
            condition::WAITING,
            "True",
            first.reason.as_str(),
            listed(waits),
        ),
        None => Draft::new(
            condition::WAITING,
            "False",
            "NothingToWaitFor",
            "nothing waits",
        ),
    }
}

/// Absent until there was something to say about the template.
fn template_refused(facts: &Facts<'_>) -> Option<Draft> {
    let type_ = condition::TEMPLATE_REFUSED;
    let mut waits = facts.waits.iter();
    if let Some(wait) = waits.find(|w| w.reason == WaitReason::TemplateRefused) {
        return Some(Draft::new(type_, "True", "Refused", wait.message.clone()));
    }
    let checked = facts.view.template_check.as_ref();
    let checked = checked.filter(|c| Some(&c.revision) == facts.status.update_revision.as_ref());
    match checked.map(|c| &c.verdict) {
        Some(Verdict::Refused(why)) => {
            let message = format!("the API server refuses the template: {why}");
            Some(Draft::new(type_, "True", "Refused", message))
        }
        Some(Verdict::Unknown(why)) => {
            let message = format!("the API server could not check the template beforehand: {why}");
            Some(Draft::new(type_, "Unknown", "NotChecked", message))
        }
        _ => has(facts.status, type_)
            .then(|| Draft::new(type_, "False", "Accepted", "the template is accepted")),
    }
}

/// Absent until the set was rolled back once.
fn rolled_back(view: &View, status: &OrdinalSetStatus) -> Option<Draft> {
    let type_ = condition::ROLLED_BACK;
    let name = view.set.spec.rollback_to.as_ref();
    match name.filter(|name| status.update_revision.as_ref() == Some(name)) {
        Some(name) => {
            let message = format!(
                "replicas get revision {name}; spec.template is not used until spec.rollbackTo is removed"
            );
            Some(Draft::new(type_, "True", "RollbackTo", message))
        }
        None => has(status, type_)
            .then(|| Draft::new(type_, "False", "NotAsked", "replicas get spec.template")),
    }
}

fn has(status: &OrdinalSetStatus, type_: &str) -> bool {
    status.conditions.iter().any(|c| c.type_ == type_)
}

fn listed(waits: &[Wait]) -> String {
    let messages: Vec<&str> = (waits.iter().take(LISTED_WAITS))
        .map(|w| w.message.as_str())
        .collect();
    let mut text = messages.join("\n");
    if waits.len() > LISTED_WAITS {
        text.push_str(&format!("\nand {} more", waits.len() - LISTED_WAITS));
    }
    text
}
