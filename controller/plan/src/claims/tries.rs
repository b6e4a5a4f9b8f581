//! What was tried for a claim before. Without it, a claim that was refused once would
//! be sent the same way again at once, and without an end.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::key::{ClaimKey, ClassOnNode};

/// Shortest and longest pause before the scheduler is asked again for one claim.
const ASK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Shortest and longest time for which a pool that failed a claim is left out.
const FAILED: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(600));

/// How long the scheduler is told that a node has less than it has. It looks at a pod
/// again at the latest after ten seconds (its longest back-off).
const WITHHOLD: Duration = Duration::from_secs(60);

/// A pool that failed a claim: its agent could not make the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// UID of the Volume object that failed. The next object of the same name is another
    /// incarnation, and its failure counts anew.
    pub incarnation: String,
    /// When that was found.
    pub at: Timestamp,
    /// Failures in a row.
    pub times: u32,
}

/// The scheduler was asked for another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// When it was asked last.
    pub at: Timestamp,
    /// How often it was asked.
    pub times: u32,
    /// The node that was taken away.
    pub node: String,
    /// Why, for people.
    pub why: String,
}

/// Less free space than there is, as the scheduler is told.
///
/// It compares each claim of a pod with the figures alone, and cannot know that two of
/// them do not fit together: it would choose the node again without an end. So the
/// largest of them is told, for a while, that it does not fit there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// What is told is less than this many bytes.
    pub below: u64,
    /// When the whole figure is told again.
    pub until: Timestamp,
}

/// What was tried for one claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// The scheduler was asked again.
    pub asked: Option<Asked>,
    /// Since when the claim has a node on which no pod can use it.
    pub apart: Option<Timestamp>,
    /// Free space that is kept from the scheduler for the claim's sake, now or before.
    pub withheld: BTreeMap<ClassOnNode, Withheld>,
    /// Pools that failed the claim, by id.
    pub failed: BTreeMap<String, Failed>,
}

impl Tries {
    /// Notes that a pool failed the claim.
    pub fn fail(&mut self, pool: &str, incarnation: &str, now: Timestamp) {
        let times = match self.failed.get(pool) {
            Some(before) if before.incarnation == incarnation => return,
            Some(before) => before.times.saturating_add(1),
            None => 1,
        };
        let failed = Failed {
            incarnation: incarnation.to_owned(),
            at: now,
            times,
        };
        self.failed.insert(pool.to_owned(), failed);
    }

    /// Pools that are left out at `now`, with the time at which each is tried again.
    pub(super) fn left_out(&self, now: Timestamp) -> BTreeMap<&str, Timestamp> {
        let until = |failed: &Failed| after(failed.at, pause(FAILED, failed.times));
        self.failed
            .iter()
            .map(|(pool, failed)| (pool.as_str(), until(failed)))
            .filter(|(_, until)| *until > now)
            .collect()
    }

    /// When the scheduler may be asked again.
    pub(super) fn may_ask(&self) -> Timestamp {
        let asked = self.asked.as_ref();
        asked.map_or(Timestamp::MIN, |asked| {
            after(asked.at, pause(ASK, asked.times))
        })
    }

    /// Notes that the scheduler is asked for another node than `node`.
    pub(super) fn ask(&mut self, node: &str, why: &str, now: Timestamp) {
        let times = self.asked.as_ref().map_or(0, |asked| asked.times);
        self.asked = Some(Asked {
            at: now,
            times: times.saturating_add(1),
            node: node.to_owned(),
            why: why.to_owned(),
        });
    }

    /// Keeps free space from the scheduler, and answers until when. What was withheld
    /// before is withheld as long: otherwise it would go to and fro between two nodes.
    pub(super) fn withhold(&mut self, of: ClassOnNode, below: u64, now: Timestamp) -> Timestamp {
        let until = after(now, WITHHOLD);
        self.withheld.insert(of, Withheld { below, until });
        for withheld in self.withheld.values_mut() {
            withheld.until = until;
        }
        until
    }
}

/// What the scheduler must not be told at `now`: for each figure, a bound in bytes.
pub fn withheld(tries: &BTreeMap<ClaimKey, Tries>, now: Timestamp) -> BTreeMap<ClassOnNode, u64> {
    let mut all: BTreeMap<ClassOnNode, u64> = BTreeMap::new();
    let each = tries.values().flat_map(|tries| &tries.withheld);
    for (of, withheld) in each.filter(|(_, withheld)| withheld.until > now) {
        let most = withheld.below.saturating_sub(1);
        let told = all.entry(of.clone()).or_insert(most);
        *told = most.min(*told);
    }
    all
}

/// The pause before try number `times` + 1: it doubles from the shortest to the longest.
fn pause((shortest, longest): (Duration, Duration), times: u32) -> Duration {
    let factor = 2_u32.saturating_pow(times.saturating_sub(1));
    shortest.saturating_mul(factor).min(longest)
}

/// A time after another; the end of time where there is none.
pub(super) fn after(time: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by)
        .ok()
        .and_then(|by| time.checked_add(by).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let seconds = |times| pause(ASK, times).as_secs();
        assert_eq!([1, 2, 3, 9, 99].map(seconds), [1, 2, 4, 60, 60]);
    }

    #[test]
    fn a_pool_is_left_out_for_a_while_and_an_object_counts_once() {
        let mut tries = Tries::default();
        let start = Timestamp::UNIX_EPOCH;
        let at = |seconds| after(start, Duration::from_secs(seconds));
        tries.fail("p1", "first", start);
        tries.fail("p1", "first", at(10));
        assert_eq!(tries.left_out(at(14)).get("p1"), Some(&at(15)));
        assert!(tries.left_out(at(15)).is_empty(), "it is tried again");
        tries.fail("p1", "second", at(20));
        assert_eq!(tries.left_out(at(21)).get("p1"), Some(&at(50)));
    }

    #[test]
    fn the_least_of_what_is_withheld_counts_while_it_lasts() {
        let key = |uid: &str| ClaimKey {
            namespace: "ns".to_owned(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
        };
        let of = || ("berth".to_owned(), "n1".to_owned());
        let start = Timestamp::UNIX_EPOCH;
        let mut all: BTreeMap<ClaimKey, Tries> = BTreeMap::new();
        for (uid, below) in [("a", 7), ("b", 5), ("c", 9)] {
            let tries = all.entry(key(uid)).or_default();
            tries.withhold(of(), below, start);
        }
        assert_eq!(withheld(&all, start), [(of(), 4)].into());
        assert!(withheld(&all, after(start, WITHHOLD)).is_empty());
    }
}
