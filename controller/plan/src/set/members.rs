//! Which pods are the set's: adoption, release, and foreign pods that have its names.

use std::{collections::BTreeMap, sync::Arc};

use super::{draft::Draft, manifest, plan::Action, selector, view::Pod};

/// The set's pods by ordinal.
pub(super) struct Members {
    /// Pods that the set controls.
    pub(super) pods: BTreeMap<i32, Arc<Pod>>,
    /// Ordinals whose name a foreign pod has, and who that is.
    pub(super) foreign_pods: BTreeMap<i32, String>,
    /// Nothing is to be adopted or released first.
    pub(super) settled: bool,
}

/// Sorts the pods of the view into the set's own and foreign ones, and plans adoption and
/// release.
pub(super) fn classify_pods(draft: &mut Draft<'_>) -> Members {
    let view = draft.view;
    let set = &view.set;
    let mut members = Members {
        pods: BTreeMap::new(),
        foreign_pods: BTreeMap::new(),
        settled: true,
    };
    for pod in &view.pods {
        let Some(ordinal) = set.ordinal(&pod.name) else {
            continue;
        };
        let matches = selector::matches(&set.spec.selector, &pod.labels);
        match &pod.controller {
            Some(owner) if owner.uid == set.uid && (matches || set.deleting) => {
                members.pods.insert(ordinal, Arc::clone(pod));
            }
            Some(owner) if owner.uid == set.uid => {
                members.settled = false;
                let action = Action::ReleasePod {
                    name: pod.name.clone(),
                    uid: pod.uid.clone(),
                    owner_uid: set.uid.clone(),
                };
                let reason = "its labels no longer match the selector".to_owned();
                draft.act(ordinal, action, reason);
            }
            Some(owner) => {
                let owner = format!("it belongs to {} {}", owner.kind, owner.name);
                members.foreign_pods.insert(ordinal, owner);
            }
            None if matches && !pod.terminating() && !set.deleting => {
                members.settled = false;
                let action = Action::AdoptPod {
                    name: pod.name.clone(),
                    uid: pod.uid.clone(),
                    owner: manifest::owner(set),
                };
                let reason = "an orphan that the selector matches".to_owned();
                draft.act(ordinal, action, reason);
            }
            None => {
                let why = if matches {
                    "it is a terminating orphan"
                } else {
                    "it belongs to nobody, and the selector does not match its labels"
                };
                members.foreign_pods.insert(ordinal, why.to_owned());
            }
        }
    }
    members
}
