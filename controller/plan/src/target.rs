//! The object that a write is for, as the decision saw it.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object that a decision wants changed or removed. The write is conditional on UID
/// and resourceVersion, so that one that lands late, or twice, or from a second leader,
/// does nothing to an object that is another by then.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Namespace of the object; `None` for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: String,
    /// UID that the object must still have.
    pub uid: Option<String>,
    /// resourceVersion that the object must still have.
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

/// Shows the name alone: versions would be noise in `explain` and in tests.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
