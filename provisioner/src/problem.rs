//! What can be wrong with a pool or a volume that is usable all the same.

use serde::{Deserialize, Serialize};

/// A problem of a pool or a volume that is usable all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Its kind.
    pub kind: ProblemKind,
    /// What is wrong and what to do, as a sentence.
    pub message: String,
}

/// Kinds of [`Problem`], the most severe first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ProblemKind {
    /// A volume can be read, and nothing can be written to it.
    ReadOnly,
    /// The filesystem met I/O errors or corrupt data.
    IoErrors,
    /// The filesystem has less free than what volumes may still write.
    SpaceShort,
    /// Something deleted cannot be erased.
    TrashStuck,
    /// There is no room for anything more. This is not a fault.
    Full,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::ReadOnly,
        Self::IoErrors,
        Self::SpaceShort,
        Self::TrashStuck,
        Self::Full,
    ];

    /// The name that conditions and metrics use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "ReadOnly",
            Self::IoErrors => "IoErrors",
            Self::SpaceShort => "SpaceShort",
            Self::TrashStuck => "TrashStuck",
            Self::Full => "Full",
        }
    }

    pub(crate) fn with(self, message: impl Into<String>) -> Problem {
        Problem {
            kind: self,
            message: message.into(),
        }
    }
}
