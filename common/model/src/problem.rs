//! What can be wrong with a pool or a volume that can be used all the same.

use serde::{Deserialize, Serialize};

/// One thing that is wrong with a pool or a volume that can be used all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The kind of thing.
    pub kind: ProblemKind,
    /// For people: what is wrong and what to do. It has no figures that change by
    /// themselves, so that an unchanged problem is not written again.
    pub message: String,
}

/// Kinds of [`Problem`], the worst first. Their names are reasons of conditions and
/// values of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ProblemKind {
    /// A volume can be read, and nothing can be written to it.
    ReadOnly,
    /// The filesystem met errors of its disk, or wrong data on it.
    IoErrors,
    /// The filesystem has less free than what volumes may still write.
    SpaceShort,
    /// Something deleted cannot be erased.
    TrashStuck,
    /// A volume has grown, and the filesystem inside its image has not.
    NotGrown,
    /// There is no room for anything more. Nothing is wrong with that.
    Full,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::ReadOnly,
        Self::IoErrors,
        Self::SpaceShort,
        Self::TrashStuck,
        Self::NotGrown,
        Self::Full,
    ];

    /// The name that objects, conditions and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "ReadOnly",
            Self::IoErrors => "IoErrors",
            Self::SpaceShort => "SpaceShort",
            Self::TrashStuck => "TrashStuck",
            Self::NotGrown => "NotGrown",
            Self::Full => "Full",
        }
    }

    /// A problem of this kind.
    pub fn with(self, message: impl Into<String>) -> Problem {
        Problem {
            kind: self,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_written_by_its_name() {
        for kind in ProblemKind::ALL {
            let written = serde_json::to_value(kind).expect("JSON");
            assert_eq!(written, serde_json::json!(kind.as_str()));
        }
    }
}
