//! Why a claim waits: what a set makes of it depends on who can end the wait, so the
//! kind is a value of its own and never read from the text.

use std::fmt::{Display, Formatter, Result};

/// Who ends a claim's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimWaitKind {
    /// Somebody is at work on it: an agent, the scheduler, another controller.
    InProgress,
    /// No pool has the room.
    NoRoom,
    /// A person has to do what the text says.
    NeedsAction,
}

/// Why a claim has no volume yet, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimWait {
    /// Who ends the wait.
    pub kind: ClaimWaitKind,
    /// A short text: `largest free pool 7.2Gi < 10Gi`.
    pub text: String,
}

impl ClaimWait {
    /// Somebody is at work on it.
    pub fn in_progress(text: impl Into<String>) -> ClaimWait {
        ClaimWait {
            kind: ClaimWaitKind::InProgress,
            text: text.into(),
        }
    }

    /// No pool has the room.
    pub fn no_room(text: impl Into<String>) -> ClaimWait {
        ClaimWait {
            kind: ClaimWaitKind::NoRoom,
            text: text.into(),
        }
    }
}

/// What says nothing of its kind needs a person: silence about that would be worse.
impl From<String> for ClaimWait {
    fn from(text: String) -> ClaimWait {
        ClaimWait {
            kind: ClaimWaitKind::NeedsAction,
            text,
        }
    }
}

impl From<&str> for ClaimWait {
    fn from(text: &str) -> ClaimWait {
        text.to_owned().into()
    }
}

impl Display for ClaimWait {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.text)
    }
}
