//! The two kinds of set as the loop sees them: where they are read, how their
//! status is written. Everything else of them is a `Set`.

use std::fmt::Debug;

use berth_api::{NativeSet, OrdinalSet, OrdinalSetStatus};
use berth_plan::set::{CompetingController, Kind, Set, competing_controller, native_status};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::context::FIELD_MANAGER;

/// A kind of set.
pub(super) trait SetObject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Which kind.
    const KIND: Kind;

    /// What the planner reads of it.
    fn set(&self) -> Set;

    /// The status to write where it differs from what stands there, as a merge
    /// patch of the status.
    fn status_patch(&self, status: &OrdinalSetStatus, now: Timestamp) -> Option<Value>;

    /// Another controller that writes its status.
    fn competing(&self) -> Option<CompetingController> {
        None
    }
}

impl SetObject for OrdinalSet {
    const KIND: Kind = Kind::OrdinalSet;

    fn set(&self) -> Set {
        Set::from(self)
    }

    fn status_patch(&self, status: &OrdinalSetStatus, _: Timestamp) -> Option<Value> {
        (self.status.as_ref() != Some(status)).then(|| {
            let old = serde_json::to_value(&self.status).unwrap_or_default();
            let new = serde_json::to_value(status).unwrap_or_default();
            replacing(&old, new)
        })
    }
}

impl SetObject for NativeSet {
    const KIND: Kind = Kind::StatefulSet;

    fn set(&self) -> Set {
        Set::from(self)
    }

    fn status_patch(&self, status: &OrdinalSetStatus, now: Timestamp) -> Option<Value> {
        let new = native_status(self, status, now)?;
        Some(replacing(&self.status, new))
    }

    fn competing(&self) -> Option<CompetingController> {
        competing_controller(self.managed_fields(), FIELD_MANAGER)
    }
}

/// `new` as a merge patch that leaves nothing of `old` behind.
fn replacing(old: &Value, new: Value) -> Value {
    let mut patch = match new {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for field in old.as_object().into_iter().flat_map(Map::keys) {
        if !patch.contains_key(field) {
            patch.insert(field.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_removes_what_is_no_longer_said() {
        let patch = replacing(
            &json!({"waiting": "x", "replicas": 1}),
            json!({"replicas": 2}),
        );
        assert_eq!(patch, json!({"waiting": null, "replicas": 2}));
        assert_eq!(
            replacing(&Value::Null, json!({"replicas": 2})),
            json!({"replicas": 2})
        );
    }
}
