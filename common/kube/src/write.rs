//! What writes carry, and how the version that they answer is read.

use kube::api::{PatchParams, PostParams};

/// Parameters of a POST or PUT by `manager`, the name that the API server records
/// beside every field.
pub fn post(manager: &str) -> PostParams {
    PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    }
}

/// Parameters of a patch by `manager`.
pub fn patch(manager: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(manager.to_owned()),
        ..PatchParams::default()
    }
}

/// A resourceVersion as a number; those of one API server count upwards (KEP-5504).
/// Zero, which is older than any, for what is no number.
pub fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}
