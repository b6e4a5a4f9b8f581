//! What is decided about claims without a volume: writes, words for people, and what is
//! remembered until the next look.

use std::collections::BTreeMap;

use berth_api::Volume;
use jiff::Timestamp;

use super::{
    key::{ClaimKey, ClassOnNode},
    tries::Tries,
};
use crate::{
    place::Request,
    target::Target,
    volumes::{ClaimWait, Notice},
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the intent: a volume for a claim that was placed.
    Create {
        /// The claim.
        claim: ClaimKey,
        /// Its volume.
        volume: Box<Volume>,
    },
    /// Name a node for a claim, or take its node away, so that the scheduler chooses
    /// again.
    Select {
        /// The claim.
        key: ClaimKey,
        /// The claim whose annotation is written.
        claim: Target,
        /// The node to name; `None` removes the annotation.
        node: Option<String>,
    },
    /// Tell the scheduler how little is free, before anything else: it would choose the
    /// node again. The claim is looked at anew when that is done.
    Publish(ClassOnNode),
}

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Writes, each for an object of its own.
    pub steps: Vec<Step>,
    /// Why claims wait, short, for the WAITING column of their set; `None` ends what was
    /// said before.
    pub waits: BTreeMap<ClaimKey, Option<ClaimWait>>,
    /// Events on claims.
    pub notices: Vec<(ClaimKey, Notice)>,
    /// What is remembered of each of these claims, instead of what was.
    pub tries: BTreeMap<ClaimKey, Tries>,
    /// Claims to look at again when free space changes.
    pub for_room: Vec<ClaimKey>,
    /// When to look again at the latest.
    pub again: Option<Timestamp>,
    /// Another write about one of the claims is under way: decide anew after it.
    pub after_write: bool,
    /// The claims that were placed together, as they were asked for.
    pub together: Option<Request>,
}

impl Plan {
    /// The claim waits.
    pub(super) fn wait(mut self, claim: &ClaimKey, why: impl Into<ClaimWait>) -> Self {
        self.waits.insert(claim.clone(), Some(why.into()));
        self
    }

    /// An event that somebody should look at.
    pub(super) fn warn(&mut self, claim: &ClaimKey, reason: &'static str, text: String) {
        let notice = Notice {
            warning: true,
            reason,
            text,
        };
        self.notices.push((claim.clone(), notice));
    }

    /// Looks again at `at`, or earlier.
    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }
}
