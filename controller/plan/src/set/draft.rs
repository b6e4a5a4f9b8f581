//! A plan in the making: what the parts of the planner have decided so far.
//!
//! It stands in a module of its own so that the parts depend on it and not on the
//! planner that calls them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{
    memory::Class,
    plan::{Action, Notice, Step},
    view::{Pod, View},
    waits::{self, Wait, WaitReason},
};

/// Failures in a row from which on people are told: one alone is everyday.
const TOLD_FAILURES: u32 = 2;

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
    /// The next moment at which the plan would differ though nothing changes.
    look_again: Option<Timestamp>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(view: &'a View) -> Draft<'a> {
        Draft {
            view,
            steps: Vec::new(),
            waits: Vec::new(),
            notices: Vec::new(),
            acted: BTreeSet::new(),
            status_first: false,
            check_asked: false,
            created: 0,
            look_again: None,
        }
    }

    /// Look again at `moment`, or earlier.
    pub(super) fn look_again(&mut self, moment: Timestamp) {
        let earliest = self.look_again.map_or(moment, |at| at.min(moment));
        self.look_again = Some(earliest);
    }

    /// The earliest moment that was asked for.
    pub(super) fn next_look(&self) -> Option<Timestamp> {
        self.look_again
    }

    /// Takes out the steps that pause after failures and conflicts, and says what fails.
    pub(super) fn hold_back(&mut self) {
        let (memory, now) = (&self.view.memory, self.view.now);
        let mut failing = BTreeSet::new();
        let mut kept = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let class = step.action.class();
            failing.insert(class);
            let paused = memory.paused_until(class);
            let target = step.action.target();
            let conflicted =
                target.and_then(|(name, version)| memory.conflicted_until(name, version));
            match paused.max(conflicted).filter(|until| *until > now) {
                Some(until) => self.look_again(until),
                None => kept.push(step),
            }
        }
        self.steps = kept;
        for class in failing {
            let setback = memory
                .setback(class)
                .filter(|s| s.failures >= TOLD_FAILURES);
            let Some(setback) = setback else { continue };
            let what = class.as_str();
            let why = waits::essence(&setback.message);
            match class {
                // Each pod has a wait of its own, which quotes what was said to it.
                Class::Creation => {}
                // Nothing waits for it.
                Class::History => self.notices.push(Notice {
                    reason: "CallFailed",
                    message: format!("{what} fails (API server: {why}); it is tried again"),
                }),
                _ => {
                    let short = format!("{}: {what} fails (API server: {why})", self.view.set.name);
                    let wait = Wait::of_set(WaitReason::CallFailed, short, "it is tried again");
                    self.waits.push(wait);
                }
            }
        }
    }

    /// Plan an action on an ordinal, unless it has one already.
    pub(super) fn act(&mut self, ordinal: i32, action: Action, reason: String) {
        if self.acted.insert(ordinal) {
            self.steps.push(Step {
                ordinal: Some(ordinal),
                action,
                reason,
                replaces_ended: false,
            });
        }
    }

    /// Plan an action that concerns no ordinal.
    pub(super) fn act_on_set(&mut self, action: Action, reason: String) {
        self.steps.push(Step {
            ordinal: None,
            action,
            reason,
            replaces_ended: false,
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

    /// Replace a pod that ended by itself.
    pub(super) fn replace_ended(&mut self, ordinal: i32, pod: &Pod, reason: String) {
        let steps = self.steps.len();
        self.delete(ordinal, pod, reason);
        for step in &mut self.steps[steps..] {
            step.replaces_ended = true;
        }
    }

    pub(super) fn has_acted(&self, ordinal: i32) -> bool {
        self.acted.contains(&ordinal)
    }
}
