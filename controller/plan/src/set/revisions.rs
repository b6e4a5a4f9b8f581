//! Revisions: the template as data, its name, and which one each ordinal gets.
//!
//! Data, hash and name are byte for byte those of Kubernetes'
//! (`pkg/controller/history`, `pkg/controller/statefulset/stateful_set_utils.go`),
//! so that labels mean the same everywhere and a set can change hands.

use std::{borrow::Cow, collections::BTreeSet, sync::Arc};

use berth_api::names::pod::REVISION_HASH;
use serde_json::{Value, json};

use super::{
    draft::Draft,
    go_json, manifest,
    members::Members,
    plan::Action,
    selector,
    view::{Candidate, Kind, Pod, RefusalKind, Revision, Verdict, View},
    waits::{Wait, WaitReason},
};

/// The alphabet of `k8s.io/apimachinery/pkg/util/rand`: no vowels, no words.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Longest part of the set's name in a revision's name.
const PREFIX_LIMIT: usize = 223;

/// Kept revisions when the set does not say.
const HISTORY_LIMIT: i32 = 10;

/// The data of a template's revision: compact JSON with sorted keys, escaped as
/// Go escapes it.
pub fn encode_template(template: &Value) -> String {
    let mut template = template.clone();
    if let Value::Object(fields) = &mut template {
        fields.insert("$patch".to_owned(), json!("replace"));
    }
    go_json::encode(&json!({"spec": {"template": template}}))
}

/// Hash of a revision's data: FNV-1 (32 bits) over the data and the decimal
/// collision count, in an alphabet without vowels.
pub fn hash(data: &str, collisions: i32) -> String {
    let count = collisions.to_string();
    let bytes = data.bytes().chain(count.bytes());
    let sum = bytes.fold(0x811c_9dc5_u32, |sum, byte| {
        sum.wrapping_mul(0x0100_0193) ^ u32::from(byte)
    });
    let digits = sum.to_string();
    let letter = |c: u8| char::from(ALPHABET[usize::from(c) % ALPHABET.len()]);
    digits.bytes().map(letter).collect()
}

fn name(set: &str, hash: &str) -> String {
    let end = set.len().min(PREFIX_LIMIT);
    format!("{}-{hash}", &set[..end])
}

/// The two revisions of a set.
pub(super) struct Revisions<'a> {
    /// Name of the revision that the last finished rollout ended with.
    pub(super) current: Option<String>,
    /// Name of the revision that pods should have: that of the template as it is,
    /// or the one that `rollbackTo` names.
    pub(super) update: Option<String>,
    /// Template of `current`.
    pub(super) current_template: Cow<'a, Value>,
    /// Template of `update`.
    pub(super) update_template: Cow<'a, Value>,
    /// Pods of `current` that exist and stay; bounds an update without bounds.
    current_pods: i32,
    /// The API server has refused pods of `update`.
    refused: bool,
    /// Raised when a name was taken by other data.
    pub(super) collisions: Option<i32>,
    /// Both revisions exist, and nothing is to be done before they are used.
    pub(super) settled: bool,
    ours: Vec<Arc<Revision>>,
}

/// Revisions that the set owns or may adopt, oldest first.
fn ours(view: &View) -> Vec<Arc<Revision>> {
    let mut list: Vec<Arc<Revision>> = view
        .revisions
        .iter()
        .filter(|r| match &r.controller {
            Some(uid) => *uid == view.set.uid,
            None => selector::matches(&view.set.spec.selector, &r.labels),
        })
        .cloned()
        .collect();
    list.sort_by(|a, b| (a.revision, a.created, &a.name).cmp(&(b.revision, b.created, &b.name)));
    list
}

/// Find the set's revisions, or plan what makes them exist.
pub(super) fn resolve<'a>(draft: &mut Draft<'a>, members: &Members) -> Revisions<'a> {
    let view = draft.view;
    let set = &view.set;
    let mut found = Revisions {
        current: set.status.current_revision.clone(),
        update: set.status.update_revision.clone(),
        current_template: Cow::Borrowed(&set.spec.template),
        update_template: Cow::Borrowed(&set.spec.template),
        current_pods: 0,
        refused: false,
        collisions: set.status.collision_count,
        settled: false,
        ours: ours(view),
    };
    if set.deleting {
        return found;
    }
    adopt(draft, &found);
    if found.ours.iter().any(|r| r.controller.is_none()) {
        return found;
    }
    if !wanted_template(draft, &mut found) {
        return found;
    }
    let data = encode_template(&found.update_template);
    let newest = found.ours.last().cloned();
    let last = newest.as_ref().map_or(0, |r| r.revision);
    match found
        .ours
        .iter()
        .rfind(|r| go_json::encode(&r.data) == data)
    {
        Some(revision) if revision.revision == last => {
            found.update = Some(revision.name.clone());
        }
        Some(old) => {
            let action = Action::RenumberRevision {
                name: old.name.clone(),
                resource_version: old.resource_version.clone(),
                revision: last.saturating_add(1),
            };
            let reason = format!("the template is again that of revision {}", old.name);
            draft.act_on_set(action, reason);
            return found;
        }
        None => match newest.map(|newest| (semantically_equal(view, &newest, &data), newest)) {
            Some((Some(true), newest)) => found.update = Some(newest.name.clone()),
            Some((None, newest)) => {
                let template = found.update_template.clone().into_owned();
                normalize(draft, &newest, data, template);
                return found;
            }
            _ => {
                create(draft, &mut found, data, last.saturating_add(1));
                return found;
            }
        },
    }
    let named = (set.status.current_revision.as_ref())
        .and_then(|name| found.ours.iter().find(|r| r.name == *name));
    match named {
        Some(current) => {
            found.current = Some(current.name.clone());
            found.current_template = Cow::Owned(template_of(current));
        }
        None => {
            found.current.clone_from(&found.update);
            found.current_template = found.update_template.clone();
        }
    }
    let stays = |p: &&Arc<Pod>| !p.terminating() && Some(p.revision()) == found.current.as_deref();
    let pods = members.pods.values().filter(stays).count();
    found.current_pods = i32::try_from(pods).unwrap_or(i32::MAX);
    let check = view.template_check.as_ref();
    let check = check.filter(|c| Some(&c.revision) == found.update.as_ref());
    found.refused = match check.map(|c| &c.verdict) {
        Some(Verdict::Refused(_)) => true,
        Some(Verdict::Passed) => false,
        _ => (view.refusals.values()).any(|r| r.kind == RefusalKind::Template),
    };
    found.settled = true;
    found
}

fn adopt(draft: &mut Draft<'_>, found: &Revisions<'_>) {
    for orphan in found.ours.iter().filter(|r| r.controller.is_none()) {
        let action = Action::AdoptRevision {
            name: orphan.name.clone(),
            uid: orphan.uid.clone(),
            owner: manifest::owner(&draft.view.set),
        };
        let reason = format!(
            "revision {} is an orphan that matches the selector",
            orphan.name
        );
        draft.act_on_set(action, reason);
    }
}

/// Settle which template pods should have: `rollbackTo` goes before `template`.
/// Where it names no revision, replicas stay at the revision they had; `false`
/// when there is none.
fn wanted_template(draft: &mut Draft<'_>, found: &mut Revisions<'_>) -> bool {
    let set = &draft.view.set;
    let Some(name) = set.spec.rollback_to.as_ref().filter(|n| !n.is_empty()) else {
        return true;
    };
    let named = |name: &String| found.ours.iter().find(|r| r.name == *name);
    let revision = named(name).or_else(|| {
        let known: Vec<&str> = found.ours.iter().map(|r| r.name.as_str()).collect();
        let short = format!("{}: no revision {name} to go back to", set.name);
        let what_to_do = format!(
            "the template stays as it was until spec.rollbackTo names one of [{}] or is removed",
            known.join(", ")
        );
        let wait = Wait::of_set(WaitReason::RevisionUnknown, short, &what_to_do);
        draft.waits.push(wait);
        set.status.update_revision.as_ref().and_then(named)
    });
    let Some(revision) = revision else {
        return false;
    };
    found.update_template = Cow::Owned(template_of(revision));
    true
}

/// Whether `newest` says what `data` says, once the API server has completed it
/// with the defaults of today: fields that an upgrade of Kubernetes added or
/// dropped, a default that a chart's new version writes down, or another spelling of
/// a quantity change the bytes of a template and not its meaning, and restart
/// nothing (semantic revision comparison upstream). `None`: to be asked.
///
/// The API server has completed the template of a native set already; that of an
/// OrdinalSet stands as it was written, so both are completed.
fn semantically_equal(view: &View, newest: &Revision, data: &str) -> Option<bool> {
    let known = view
        .normal_form
        .as_ref()
        .filter(|n| n.revision == newest.name && n.resource_version == newest.resource_version)?;
    let stored = known.template.as_ref().map(encode_template);
    let wanted = if view.set.kind == Kind::StatefulSet {
        Some(data.to_owned())
    } else {
        let candidate = known.candidate.as_ref().filter(|c| c.data == data)?;
        candidate.template.as_ref().map(encode_template)
    };
    Some(stored.is_some() && stored == wanted)
}

fn normalize(draft: &mut Draft<'_>, newest: &Revision, data: String, template: Value) {
    let own = draft.view.set.kind == Kind::OrdinalSet;
    let action = Action::NormalizeRevision {
        revision: newest.name.clone(),
        resource_version: newest.resource_version.clone(),
        template: template_of(newest),
        candidate: own.then_some(Candidate {
            data,
            template: Some(template),
        }),
    };
    let reason = format!(
        "the template differs from revision {}; perhaps only in defaults",
        newest.name
    );
    draft.act_on_set(action, reason);
}

/// The template that a revision holds.
fn template_of(revision: &Revision) -> Value {
    let mut template = revision.data["spec"]["template"].clone();
    if let Value::Object(fields) = &mut template {
        fields.remove("$patch");
    }
    template
}

fn create(draft: &mut Draft<'_>, found: &mut Revisions<'_>, data: String, number: i64) {
    let view = draft.view;
    let set = &view.set;
    let seen = set.status.collision_count.unwrap_or(0);
    let taken = |name: &str| view.revisions.iter().any(|r| r.name == name);
    let mut collisions = seen;
    let mut digest = hash(&data, collisions);
    while taken(&name(&set.name, &digest)) {
        collisions += 1;
        digest = hash(&data, collisions);
    }
    if collisions != seen {
        // Remembered before it is used, so that it can never fall.
        found.collisions = Some(collisions);
        draft.status_first = true;
        return;
    }
    let mut labels = manifest::template_labels(&found.update_template);
    labels.insert(REVISION_HASH.to_owned(), digest.clone());
    let action = Action::CreateRevision {
        name: name(&set.name, &digest),
        labels,
        annotations: set.annotations.clone(),
        owner: manifest::owner(set),
        revision: number,
        data,
    };
    let reason = if number == 1 {
        "the template has no revision yet".to_owned()
    } else {
        "the template has changed".to_owned()
    };
    draft.act_on_set(action, reason);
}

impl Revisions<'_> {
    /// The revision that a new pod of `ordinal` gets: name and template.
    ///
    /// In a native set whose RollingUpdate has no bounds, a pod that is lost
    /// during a rollout returns as it was, as upstream has it, as long as the
    /// rollout has not come down to it.
    pub(super) fn target(&self, view: &View, ordinal: i32) -> (&str, &Value) {
        let set = &view.set;
        let mut held = set.rolling() && ordinal < set.first_updated();
        if set.kind == Kind::StatefulSet && set.rolling_without_bounds() {
            held = ordinal < set.start().saturating_add(self.current_pods);
        }
        // Nothing is created from a template that is known to be refused while the one
        // before it still serves.
        held |= self.refused && self.current != self.update;
        match &self.current {
            Some(current) if held => (current, &self.current_template),
            _ => (
                self.update.as_deref().unwrap_or_default(),
                &self.update_template,
            ),
        }
    }

    /// A rollout has to replace this pod.
    pub(super) fn outdated(&self, view: &View, pod: &Pod) -> bool {
        Some(pod.revision()) != self.update.as_deref() || pod.before_restart(view)
    }

    /// Why an outdated pod is.
    pub(super) fn age(&self, view: &View, pod: &Pod) -> String {
        match &view.set.spec.restarted_at {
            Some(at) if Some(pod.revision()) == self.update.as_deref() => {
                format!("was made before restartedAt {}", at.0)
            }
            _ => format!("is of the old revision {}", pod.revision()),
        }
    }
}

/// Plan the deletion of revisions that nothing uses and that are over the limit.
pub(super) fn truncate(draft: &mut Draft<'_>, found: &Revisions<'_>, members: &Members) {
    let limit = draft.view.set.spec.revision_history_limit;
    let Ok(limit) = usize::try_from(limit.unwrap_or(HISTORY_LIMIT)) else {
        return; // A negative limit keeps all.
    };
    let mut live: BTreeSet<&str> = members.pods.values().map(|p| p.revision()).collect();
    live.extend(found.current.as_deref());
    live.extend(found.update.as_deref());
    let old: Vec<Arc<Revision>> = (found.ours.iter())
        .filter(|r| !live.contains(r.name.as_str()))
        .cloned()
        .collect();
    let surplus = old.len().saturating_sub(limit);
    for revision in old.into_iter().take(surplus) {
        let action = Action::DeleteRevision {
            name: revision.name.clone(),
            uid: revision.uid.clone(),
            resource_version: revision.resource_version.clone(),
        };
        let reason = format!("revisionHistoryLimit is {limit}, and no pod uses it");
        draft.act_on_set(action, reason);
    }
}
