//! The native set, read the way Berth reads its own: with a template that stays
//! opaque, so that a revision made from it is byte for byte what Kubernetes' own
//! controller makes.

use k8s_openapi::{api::apps::v1::StatefulSet, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::OrdinalSetSpec;

/// An `apps/v1` StatefulSet. **People** write the spec; the status is written by
/// Kubernetes' own controller, or, in native mode, by Berth's.
#[derive(Resource, Clone, Debug, Deserialize, Serialize)]
#[resource(inherit = StatefulSet)]
pub struct NativeSet {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its spec; an OrdinalSet's has the same fields and some more.
    pub spec: OrdinalSetSpec,
    /// Its status as it stands: what others put there is kept.
    #[serde(default)]
    pub status: Value,
}
