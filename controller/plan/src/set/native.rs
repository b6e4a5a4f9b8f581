//! The status of a native set: what Kubernetes' clients read of it, and what
//! Berth adds as conditions, since `apps/v1` has no fields for it.

use berth_api::{Disruption, NativeSet, OrdinalSetStatus, names::condition};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry};
use serde_json::{Map, Value, json};

/// Counters and names of an `apps/v1` status, as both kinds spell them. Who
/// writes one of these runs the set.
const FIELDS: [&str; 9] = [
    "observedGeneration",
    "replicas",
    "readyReplicas",
    "availableReplicas",
    "currentReplicas",
    "updatedReplicas",
    "currentRevision",
    "updateRevision",
    "collisionCount",
];

/// Conditions that Berth writes; any other belongs to somebody else and is kept.
const OURS: [&str; 6] = [
    condition::AVAILABLE,
    condition::PROGRESSING,
    condition::WAITING,
    condition::TEMPLATE_REFUSED,
    condition::ROLLED_BACK,
    condition::DISRUPTING,
];

/// How long a set is left alone after another controller has last written its status.
const COMPETING_QUIET: SignedDuration = SignedDuration::from_mins(10);

/// The status as the planner reads it.
pub(super) fn read(set: &NativeSet) -> OrdinalSetStatus {
    let mut fields = Map::new();
    for name in FIELDS {
        if let Some(value) = set.status.get(name) {
            fields.insert(name.to_owned(), value.clone());
        }
    }
    let mut status: OrdinalSetStatus =
        serde_json::from_value(Value::Object(fields)).unwrap_or_default();
    let conditions = set.status["conditions"].as_array();
    for value in conditions.into_iter().flatten() {
        let Ok(condition) = serde_json::from_value::<Condition>(value.clone()) else {
            continue;
        };
        match condition.type_.as_str() {
            condition::DISRUPTING => status.disrupting = victims(&condition.message),
            name if OURS.contains(&name) => status.conditions.push(condition),
            _ => {}
        }
    }
    status
}

/// The status to write: `status` in the fields of `apps/v1`, with the conditions
/// that others put there as they are. `None` when `set` has it already.
pub fn native_status(set: &NativeSet, status: &OrdinalSetStatus, now: Timestamp) -> Option<Value> {
    // As read, not as written: the API server leaves zeros out.
    let mut published = status.clone();
    (published.ready, published.waiting, published.selector) = (None, None, None);
    if read(set) == published {
        return None;
    }
    let all = serde_json::to_value(status).unwrap_or_default();
    let mut wanted = match &set.status {
        Value::Object(old) => old.clone(),
        _ => Map::new(),
    };
    for name in FIELDS {
        match all.get(name) {
            Some(value) => wanted.insert(name.to_owned(), value.clone()),
            None => wanted.remove(name),
        };
    }
    let old = set.status["conditions"].as_array();
    let is_ours = |c: &Value| c["type"].as_str().is_some_and(|t| OURS.contains(&t));
    let mut conditions: Vec<Value> = old.into_iter().flatten().cloned().collect();
    conditions.retain(|c| !is_ours(c));
    for condition in &status.conditions {
        conditions.push(json!({
            "type": condition.type_, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": condition.last_transition_time,
        }));
    }
    if !status.disrupting.is_empty() {
        let message = victims_text(&status.disrupting);
        let before = old.into_iter().flatten();
        let before = before
            .into_iter()
            .find(|c| c["type"] == condition::DISRUPTING);
        let since = before.map_or_else(|| json!(now), |c| c["lastTransitionTime"].clone());
        conditions.push(json!({
            "type": condition::DISRUPTING, "status": "True", "reason": "RollingUpdate",
            "message": message, "lastTransitionTime": since,
        }));
    }
    match conditions.is_empty() {
        true => wanted.remove("conditions"),
        false => wanted.insert("conditions".to_owned(), Value::Array(conditions)),
    };
    Some(Value::Object(wanted))
}

/// Victims as the condition's message names them: `web-2=<uid>@<resourceVersion> ...`.
fn victims_text(victims: &[Disruption]) -> String {
    let each = victims
        .iter()
        .map(|v| format!("{}={}@{}", v.pod, v.uid, v.resource_version));
    each.collect::<Vec<_>>().join(" ")
}

fn victims(text: &str) -> Vec<Disruption> {
    text.split(' ')
        .filter_map(|each| each.split_once('='))
        .map(|(pod, id)| {
            let (uid, version) = id.split_once('@').unwrap_or((id, ""));
            Disruption {
                pod: pod.to_owned(),
                uid: uid.to_owned(),
                resource_version: version.to_owned(),
            }
        })
        .collect()
}

/// Somebody else who writes the status of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompetingController {
    /// Its name, as the API server recorded it.
    pub manager: String,
    /// When it last changed something there.
    pub at: Timestamp,
}

/// Who, other than `me`, last wrote counters of the status.
pub fn competing_controller(
    fields: &[ManagedFieldsEntry],
    me: &str,
) -> Option<CompetingController> {
    let foreign = fields.iter().filter(|entry| {
        let written = entry.fields_v1.as_ref().map(|f| &f.0["f:status"]);
        let counts = |status: &Value| {
            FIELDS
                .iter()
                .any(|f| status.get(format!("f:{f}")).is_some())
        };
        entry.subresource.as_deref() == Some("status")
            && entry.manager.as_deref() != Some(me)
            && written.is_some_and(counts)
    });
    let others = foreign.filter_map(|entry| {
        Some(CompetingController {
            manager: entry.manager.clone()?,
            at: entry.time.as_ref()?.0,
        })
    });
    others.max_by_key(|r| r.at)
}

/// Until when a set is left alone, where another controller runs it: one that has
/// written its status since `first`, when this process first looked.
///
/// Two controllers that run one set would not make a second pod of an ordinal
/// (names are deterministic), but they would overwrite each other's status and
/// might count one budget twice.
pub fn stands_down(
    first: Option<Timestamp>,
    latest: Option<&CompetingController>,
    now: Timestamp,
) -> Option<Timestamp> {
    let latest = latest?;
    // The first look found no other controller at all: this one is new.
    let since = first.unwrap_or(Timestamp::MIN);
    let until = latest.at.checked_add(COMPETING_QUIET).ok()?;
    (latest.at > since && now < until).then_some(until)
}
