//! Which specs may be skipped, by upstream's own words. Pure.

use std::fmt;

use crate::spec::Spec;

/// Why a spec was skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Berth attaches nothing, so it has no ControllerPublishVolume.
    ControllerPublish,
    /// Berth has no group controller.
    GroupController,
    /// Berth's volumes have no parameters that can be changed.
    ModifyVolume,
    /// A snapshot's topology. No driver can pass that spec of csi-test 5.6: it
    /// compares a message that was sent with one that was received field by field,
    /// and the size that protobuf notes in a sent message differs. Declared without
    /// an answer, the capability would promise snapshots that every node can restore.
    SnapshotTopology,
    /// Upstream has switched the spec off.
    DisabledUpstream,
    /// Anything else: a capability went missing, or upstream has a new spec.
    Unexpected,
}

impl Why {
    /// Whether a run with such a skip is a success.
    pub fn is_allowed(self) -> bool {
        self != Self::Unexpected
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControllerPublish => "controller publish",
            Self::GroupController => "group controller",
            Self::ModifyVolume => "modify volume",
            Self::SnapshotTopology => "topology of a snapshot, which no driver can pass",
            Self::DisabledUpstream => "disabled upstream",
            Self::Unexpected => "NOT EXPECTED",
        })
    }
}

/// The group in which everything needs ControllerPublishVolume, whatever a spec's
/// own reason.
const PUBLISH_GROUPS: [&str; 2] = [" ControllerPublishVolume ", " ControllerUnpublishVolume "];

/// Upstream's words for a capability that the driver does not have.
const WORDS: [(&str, Why); 8] = [
    (
        "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
        Why::SnapshotTopology,
    ),
    (
        "ControllerPublishVolume not supported",
        Why::ControllerPublish,
    ),
    (
        "ControllerUnpublishVolume not supported",
        Why::ControllerPublish,
    ),
    (
        "Controller Publish, UnpublishVolume not supported",
        Why::ControllerPublish,
    ),
    ("GroupControllerService not supported", Why::GroupController),
    ("ControllerModifyVolume not supported", Why::ModifyVolume),
    ("Modify volume not supported", Why::ModifyVolume),
    ("Modify Volume not supported", Why::ModifyVolume),
];

/// Why a spec was skipped; nothing if it was not.
pub(crate) fn why(spec: &Spec) -> Option<Why> {
    match spec.state.as_str() {
        "pending" => Some(Why::DisabledUpstream),
        "skipped" if PUBLISH_GROUPS.iter().any(|group| spec.name.contains(group)) => {
            Some(Why::ControllerPublish)
        }
        "skipped" => {
            let found = WORDS.iter().find(|(words, _)| spec.message == *words);
            Some(found.map_or(Why::Unexpected, |(_, why)| *why))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(state: &str, name: &str, message: &str) -> Spec {
        Spec {
            name: name.to_owned(),
            state: state.to_owned(),
            message: message.to_owned(),
        }
    }

    #[test]
    fn only_what_is_known_may_be_skipped() {
        for (state, name, message, expected) in [
            ("passed", "x", "", None),
            ("failed", "x", "Modify volume not supported", None),
            ("pending", "x", "", Some(Why::DisabledUpstream)),
            (
                "skipped",
                "x",
                "ControllerModifyVolume not supported",
                Some(Why::ModifyVolume),
            ),
            (
                "skipped",
                "Controller Service ControllerPublishVolume should fail",
                "testnodevolumeattachlimit not enabled",
                Some(Why::ControllerPublish),
            ),
            (
                "skipped",
                "x",
                "ListSnapshots not supported",
                Some(Why::Unexpected),
            ),
            ("skipped", "x", "", Some(Why::Unexpected)),
        ] {
            assert_eq!(why(&spec(state, name, message)), expected, "{message}");
        }
        assert!(!Why::Unexpected.is_allowed() && Why::GroupController.is_allowed());
    }
}
