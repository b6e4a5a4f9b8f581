//! What upstream reports of one spec.

/// What became of one spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its whole name.
    pub name: String,
    /// `passed`, `failed`, `skipped`, `pending` or another state of ginkgo's.
    pub state: String,
    /// Why it failed or was skipped, in upstream's words.
    pub message: String,
}
