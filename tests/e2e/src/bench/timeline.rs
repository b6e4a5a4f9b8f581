//! Who took the time: moments of claims, as watches told them, and the intervals between
//! them, each of which belongs to one program.

use std::{collections::BTreeMap, time::Duration};

/// What can be seen of a claim on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The scheduler wrote the node into the claim.
    NodeSelected,
    /// Berth's controller made the Volume.
    VolumeMade,
    /// Berth's agent said that the Volume is on the disk.
    VolumeReady,
    /// The PV was made.
    PvMade,
    /// The claim is bound.
    Bound,
    /// The pod's containers run.
    Running,
}

/// Something that was seen of a claim.
#[derive(Clone, Debug)]
pub struct Event {
    /// The claim's name.
    pub claim: String,
    /// What was seen.
    pub moment: Moment,
    /// When, since the burst began.
    pub at: Duration,
}

/// An interval of a claim's way, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// What it is called.
    pub title: &'static str,
    /// Where it begins; `None` is the burst's beginning.
    pub from: Option<Moment>,
    /// Where it ends.
    pub to: Moment,
}

const fn share(title: &'static str, from: Option<Moment>, to: Moment) -> Share {
    Share { title, from, to }
}

/// From the node to the PV: what the provisioner takes of a claim's time.
pub const PROVISIONER: Share = share(
    "provisioner: node -> PV",
    Some(Moment::NodeSelected),
    Moment::PvMade,
);

/// From the burst's beginning to the bound claim.
pub const BOUND: Share = share("start -> Bound", None, Moment::Bound);

/// From the burst's beginning to the running pod.
pub const RUNNING: Share = share("start -> Running", None, Moment::Running);

/// The shares, in the order of a claim's way. Those of Volumes are Berth's alone, and parts
/// of the provisioner's.
pub const SHARES: [Share; 7] = [
    share(
        "client, scheduler: start -> node",
        None,
        Moment::NodeSelected,
    ),
    PROVISIONER,
    share(
        "  controller: node -> Volume made",
        Some(Moment::NodeSelected),
        Moment::VolumeMade,
    ),
    share(
        "  agent, disk: -> Volume Ready",
        Some(Moment::VolumeMade),
        Moment::VolumeReady,
    ),
    share(
        "  controller: -> PV made",
        Some(Moment::VolumeReady),
        Moment::PvMade,
    ),
    share(
        "controller-manager: PV -> Bound",
        Some(Moment::PvMade),
        Moment::Bound,
    ),
    share(
        "scheduler, kubelet: Bound -> Running",
        Some(Moment::Bound),
        Moment::Running,
    ),
];

/// How long a share took of each claim that has both of its ends, in milliseconds. A moment
/// that is told again counts once. Two watches may tell the ends the wrong way round when
/// they lie close together: that is an interval of nothing.
pub fn intervals(events: &[Event], share: Share) -> Vec<f64> {
    let mut first: BTreeMap<(&str, Moment), Duration> = BTreeMap::new();
    for event in events {
        first
            .entry((&event.claim, event.moment))
            .and_modify(|at| *at = event.at.min(*at))
            .or_insert(event.at);
    }
    let ends = first.iter().filter(|((_, moment), _)| *moment == share.to);
    ends.filter_map(|((claim, _), end)| {
        let begin = match share.from {
            Some(moment) => *first.get(&(*claim, moment))?,
            None => Duration::ZERO,
        };
        Some(end.saturating_sub(begin).as_secs_f64() * 1e3)
    })
    .collect()
}

/// How many claims reached a moment.
pub fn reached(events: &[Event], moment: Moment) -> usize {
    let claims: std::collections::BTreeSet<_> = events
        .iter()
        .filter(|event| event.moment == moment)
        .map(|event| event.claim.as_str())
        .collect();
    claims.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(claim: &str, moment: Moment, ms: u64) -> Event {
        Event {
            claim: claim.to_owned(),
            moment,
            at: Duration::from_millis(ms),
        }
    }

    #[test]
    fn each_interval_has_its_owner() {
        let events = [
            event("a", Moment::NodeSelected, 100),
            event("a", Moment::VolumeMade, 110),
            event("a", Moment::VolumeReady, 150),
            event("a", Moment::PvMade, 170),
            event("a", Moment::Bound, 200),
            event("a", Moment::Running, 900),
        ];
        let all: Vec<_> = SHARES.map(|s| intervals(&events, s)).concat();
        assert_eq!(all, [100.0, 70.0, 10.0, 40.0, 20.0, 30.0, 700.0]);
        assert_eq!(intervals(&events, BOUND), [200.0]);
    }

    #[test]
    fn the_first_sight_counts() {
        let events = [
            event("a", Moment::PvMade, 300),
            event("a", Moment::NodeSelected, 100),
            event("a", Moment::PvMade, 200),
        ];
        assert_eq!(intervals(&events, PROVISIONER), [100.0]);
        assert_eq!(reached(&events, Moment::PvMade), 1);
    }

    #[test]
    fn a_claim_without_both_ends_has_no_interval() {
        let events = [
            event("a", Moment::PvMade, 200),
            event("b", Moment::NodeSelected, 1),
        ];
        assert!(intervals(&events, PROVISIONER).is_empty());
    }

    #[test]
    fn ends_that_are_told_the_wrong_way_round_are_no_time() {
        let events = [
            event("a", Moment::PvMade, 99),
            event("a", Moment::NodeSelected, 100),
        ];
        assert_eq!(intervals(&events, PROVISIONER), [0.0]);
    }
}
