//! What the set does and waits for, as conditions: one function each.

use berth_api::{OrdinalSetStatus, names::condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{
    view::{Verdict, View},
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

/// The conditions of a set that waits for `waits` and has the counters of `status`,
/// beside those that it has already. `done`: the set is as it should be.
pub(super) fn of(
    view: &View,
    waits: &[Wait],
    status: &OrdinalSetStatus,
    done: bool,
) -> Vec<Condition> {
    let mut conditions = status.conditions.clone();
    let drafts = [
        Some(available(view, status, done)),
        Some(progressing(view, waits, status, done)),
        Some(waiting(waits)),
        template_refused(view, waits, status),
        rolled_back(view, status),
    ];
    for draft in drafts.into_iter().flatten() {
        set(&mut conditions, draft, view);
    }
    conditions
}

/// Writes one condition. Its time is that of the last change of its status.
fn set(conditions: &mut Vec<Condition>, draft: Draft, view: &View) {
    let old = conditions.iter().position(|c| c.type_ == draft.type_);
    let since = old
        .map(|i| &conditions[i])
        .filter(|c| c.status == draft.status);
    let condition = Condition {
        last_transition_time: since.map_or(Time(view.now), |c| c.last_transition_time.clone()),
        message: clip(draft.message, 8000),
        observed_generation: None,
        reason: draft.reason.to_owned(),
        status: draft.status.to_owned(),
        type_: draft.type_.to_owned(),
    };
    match old {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}

fn counts(view: &View, status: &OrdinalSetStatus) -> String {
    format!(
        "{} of {} replicas are available, {} of the newest revision",
        status.available_replicas,
        view.set.replicas(),
        status.updated_replicas
    )
}

fn available(view: &View, status: &OrdinalSetStatus, done: bool) -> Draft {
    let message = counts(view, status);
    if done {
        Draft::new(condition::AVAILABLE, "True", "AllAvailable", message)
    } else {
        Draft::new(condition::AVAILABLE, "False", "NotAllAvailable", message)
    }
}

fn progressing(view: &View, waits: &[Wait], status: &OrdinalSetStatus, done: bool) -> Draft {
    let type_ = condition::PROGRESSING;
    if view.set.deleting {
        return Draft::new(type_, "False", "Deleting", "the set is being deleted");
    }
    if done {
        return Draft::new(type_, "False", "Complete", counts(view, status));
    }
    match waits.iter().find(|w| w.reason.blocks()) {
        Some(wait) => Draft::new(type_, "False", wait.reason.as_str(), wait.message.clone()),
        None => Draft::new(type_, "True", "Working", counts(view, status)),
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
fn template_refused(view: &View, waits: &[Wait], status: &OrdinalSetStatus) -> Option<Draft> {
    let type_ = condition::TEMPLATE_REFUSED;
    let refused = waits
        .iter()
        .find(|w| w.reason == WaitReason::TemplateRefused);
    if let Some(wait) = refused {
        return Some(Draft::new(type_, "True", "Refused", wait.message.clone()));
    }
    let checked = view.template_check.as_ref();
    let checked = checked.filter(|c| Some(&c.revision) == status.update_revision.as_ref());
    if let Some(Verdict::Unknown(why)) = checked.map(|c| &c.verdict) {
        let message = format!("the API server could not check the template beforehand: {why}");
        return Some(Draft::new(type_, "Unknown", "NotChecked", message));
    }
    has(status, type_).then(|| Draft::new(type_, "False", "Accepted", "the template is accepted"))
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
