//! A plan in the making: what the parts of the planner have decided so far.
//!
//! It stands in a module of its own so that the parts depend on it and not on the
//! planner that calls them.

use std::collections::BTreeSet;

use super::{
    plan::{Action, Notice, Step},
    view::{Pod, View},
    waits::Wait,
};

/// What is decided so far.
pub(super) struct Draft<'a> {
    pub(super) view: &'a View,
    pub(super) steps: Vec<Step>,
    pub(super) waits: Vec<Wait>,
    pub(super) notices: Vec<Notice>,
    /// Ordinals that have their one action of this plan.
    pub(super) acted: BTreeSet<i32>,
    pub(super) status_first: bool,
    /// The dry run of this plan has been asked for.
    pub(super) check_asked: bool,
    pub(super) created: usize,
}

impl Draft<'_> {
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
}
