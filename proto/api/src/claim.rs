//! Who a volume belongs to: the claim it is bound to, and the set and ordinal
//! behind the claim.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The PersistentVolumeClaim that a volume was made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRef {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim, `<template>-<set>-<ordinal>` for a set's claim.
    pub name: String,
    /// UID of the claim: a later claim of the same name is another claim.
    pub uid: String,
}

/// The set whose ordinal uses a volume, where there is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRef {
    /// Kind of the set: `OrdinalSet` or `StatefulSet`.
    pub kind: String,
    /// Name of the set, in the claim's namespace.
    pub name: String,
    /// The replica's number.
    pub ordinal: i32,
}
