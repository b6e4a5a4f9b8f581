//! Why a claim waits. How a set reacts depends on who can end the wait, so that is a
//! value of its own and is never guessed from the text.

use std::fmt::{Display, Formatter, Result};

/// Who ends a claim's wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimWaitKind {
    /// A program is working on it: an agent, the scheduler, another controller.
    InProgress,
    /// No pool has enough room.
    NoRoom,
    /// A person has to do what the text says.
    NeedsAction,
}

/// Why a claim has no volume yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimWait {
    /// Who ends the wait.
    pub kind: ClaimWaitKind,
    /// A short text for people: `largest free pool 7.2Gi < 10Gi`.
    pub text: String,
}

impl ClaimWait {
    /// A program is working on it.
    pub fn in_progress(text: impl Into<String>) -> ClaimWait {
        ClaimWait {
            kind: ClaimWaitKind::InProgress,
            text: text.into(),
        }
    }

    /// No pool has enough room.
    pub fn no_room(text: impl Into<String>) -> ClaimWait {
        ClaimWait {
            kind: ClaimWaitKind::NoRoom,
            text: text.into(),
        }
    }
}

/// A text without a kind needs a person: to keep quiet about it would be worse.
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
