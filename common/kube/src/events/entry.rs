//! What an event says.

use k8s_openapi::api::core::v1::ObjectReference;

/// Whether an event is good news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Something was done.
    Normal,
    /// Something cannot be done, or not yet.
    Warning,
}

impl Kind {
    /// What a notice is that does, or does not, need attention.
    pub fn of(warning: bool) -> Self {
        if warning { Self::Warning } else { Self::Normal }
    }
}

/// One event, on its way.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) about: ObjectReference,
    pub(super) kind: Kind,
    pub(super) action: &'static str,
    pub(super) reason: String,
    pub(super) note: String,
}
