//! What a write is for: the one object, as the decision saw it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object that a decision wants changed or removed. The write is conditional on UID
/// and resourceVersion, so that one that lands late, or twice, or from a second leader,
/// does nothing to an object that is another by then.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Its namespace, where its kind has namespaces.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// UID that it must have.
    pub uid: Option<String>,
    /// Version that it must have.
    pub resource_version: Option<String>,
}

impl Target {
    /// The object that has this metadata.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
        }
    }
}

/// The name alone: what `explain` and tests show has no use for versions.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
