//! By what claims and capacity figures are known: typed, so that no key is ever taken apart.

use berth_api::names;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::volumes::claim;

/// A claim, as the key of what is decided, remembered and said about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimKey {
    /// Namespace of the claim.
    pub namespace: String,
    /// Name of the claim.
    pub name: String,
    /// UID of the claim: a claim of the same name that comes later is another one.
    pub uid: String,
}

impl ClaimKey {
    /// The key of a claim.
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        Self {
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            uid: claim::uid(claim).to_owned(),
        }
    }

    /// Name of the claim's Volume.
    pub fn volume(&self) -> String {
        names::volume_name(&self.uid)
    }
}

/// A StorageClass and a node: what one capacity object is about.
pub type ClassOnNode = (String, String);
