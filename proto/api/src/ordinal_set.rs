//! The set: a superset of `apps/v1` StatefulSetSpec with the same field names.

use k8s_openapi::apimachinery::pkg::{
    apis::meta::v1::{Condition, LabelSelector, Time},
    util::intstr::IntOrString,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;

/// Replicas with names, claims and disks of their own.
///
/// A StatefulSet manifest converts by its first two lines (`apiVersion` and
/// `kind`). **People** write the spec, the **controller** the status. The pod
/// template and the claim templates stay opaque JSON from here to the POST, so
/// fields of newer servers survive.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "berth.dev",
    version = "v1alpha1",
    kind = "OrdinalSet",
    plural = "ordinalsets",
    shortname = "oset",
    category = "all",
    category = "berth",
    namespaced,
    status = "OrdinalSetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "OrdinalSet runs replicas that each have a name, claims and a disk of their own. A StatefulSet manifest converts by its first two lines.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready"),
    printcolumn(
        name = "Updated",
        type_ = "integer",
        json_path = ".status.updatedReplicas"
    ),
    printcolumn(name = "Waiting", type_ = "string", json_path = ".status.waiting"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.updateRevision",
        priority = 1
    ),
    printcolumn(
        name = "Containers",
        type_ = "string",
        json_path = ".spec.template.spec.containers[*].name",
        priority = 1
    ),
    printcolumn(
        name = "Images",
        type_ = "string",
        json_path = ".spec.template.spec.containers[*].image",
        priority = 1
    )
)]
pub struct OrdinalSetSpec {
    /// Number of replicas; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Selects the set's pods; it must match the labels of the template.
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: LabelSelector,
    /// The pod that each replica is made from.
    #[schemars(schema_with = "schema::pod_template")]
    pub template: Value,
    /// Claims that each replica gets; the claim `data` of replica 2 of set `web`
    /// is `data-web-2`.
    #[serde(
        default,
        deserialize_with = "blank_is_none",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "schema::claim_templates")]
    pub volume_claim_templates: Vec<Value>,
    /// Headless Service that gives each replica its DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// One replica after the other, or all at once; OrderedReady when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_management_policy: Option<PodManagementPolicy>,
    /// How replicas get a changed template; RollingUpdate when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
    /// Old revisions that are kept for a rollback; 10 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history_limit: Option<i32>,
    /// Seconds that a replica must be ready before it counts as available; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_ready_seconds: Option<i32>,
    /// What happens to claims when the set is scaled down or deleted; they are
    /// kept when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim_retention_policy: Option<ClaimRetentionPolicy>,
    /// Ordinals of the replicas: where the numbering starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinals: Option<Ordinals>,
    /// Rolls back: the name of a ControllerRevision of this set. While it is set,
    /// replicas get that revision's template instead of `template`; remove it to return
    /// to `template`. `kubectl get controllerrevisions` lists the names. apps/v1 has no
    /// such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<String>,
    /// Restarts: replicas whose pod was created before this time are replaced, by the
    /// rules of `updateStrategy` and without a new revision. A time in the future takes
    /// effect when it comes. apps/v1 has no such field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted_at: Option<Time>,
    /// Seconds without progress after which the set counts as stalled: the conditions
    /// Progressing and Stalled say so, and nothing is undone. 600 when absent. apps/v1
    /// has no such field for sets; it is a Deployment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_deadline_seconds: Option<i32>,
}

/// A field that is there and blank, as charts leave it.
fn blank_is_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// One replica after the other, or all at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodManagementPolicy {
    /// Each replica waits for the one below it to be available; deletion goes
    /// from the top.
    #[default]
    OrderedReady,
    /// No replica waits for another.
    Parallel,
}

/// How replicas get a changed template.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// Type of update; RollingUpdate when absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<UpdateStrategyType>,
    /// Bounds of a rolling update; only with type RollingUpdate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling_update: Option<RollingUpdate>,
}

/// The two ways of updating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdateStrategyType {
    /// Replicas are replaced from the highest ordinal down.
    #[default]
    RollingUpdate,
    /// A replica takes the new template when a person deletes its pod.
    OnDelete,
    /// One of a newer Kubernetes, on a native set. It must not keep the others from being
    /// read; its pods are updated as with OnDelete.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Bounds of a rolling update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollingUpdate {
    /// Replicas below this index (counted from the first ordinal) keep the old
    /// template; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<i32>,
    /// Replicas that may be unavailable at once, as a number or a percentage of
    /// all; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::int_or_string")]
    pub max_unavailable: Option<IntOrString>,
}

/// What happens to claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRetentionPolicy {
    /// What happens to the claims when the set is deleted; Retain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_deleted: Option<ClaimRetention>,
    /// What happens to a replica's claims when it is scaled away; Retain when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_scaled: Option<ClaimRetention>,
}

/// Keep claims or delete them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClaimRetention {
    /// Keep the claim and its data.
    #[default]
    Retain,
    /// Delete the claim, and by the class's reclaim policy its data.
    Delete,
}

/// Where the numbering starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ordinals {
    /// The first ordinal; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i32>,
}

/// What the controller reports about a set. The counters mean what they mean in
/// `apps/v1` StatefulSetStatus.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrdinalSetStatus {
    /// Generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that exist, terminating ones included.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that run and are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods that have been ready for minReadySeconds.
    #[serde(default)]
    pub available_replicas: i32,
    /// Pods of the current revision.
    #[serde(default)]
    pub current_replicas: i32,
    /// Pods of the update revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Name of the ControllerRevision that all pods had when the last rollout ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    /// Name of the ControllerRevision of the template as it is now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_revision: Option<String>,
    /// Number of collisions of revision names so far; it never decreases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    /// Ready and wanted replicas as `2/3`, for the READY column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// The first thing that the set waits for, for the WAITING column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// The selector as text, for the scale subresource (HPA and PDB read it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Available pods that a rollout may take down now. Written with the set's
    /// resourceVersion before any of them is deleted, so that two controllers
    /// cannot spend one budget twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disrupting: Vec<Disruption>,
    /// When the set last came closer to its spec; `progressDeadlineSeconds` counts from
    /// here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
    /// Conditions: Available, Progressing, Ready, Reconciling, Stalled, Waiting,
    /// TemplateRefused, RolledBack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A pod that a rollout is about to take down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Name of the pod.
    pub pod: String,
    /// UID of the pod: a later pod of the same name is not meant.
    pub uid: String,
    /// resourceVersion of the pod: the permission ends when the pod changes. A deletion
    /// is conditional on it, so one that lands late, after the permission was taken back
    /// by a change of the pod, does nothing. Empty as older versions wrote it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
}
