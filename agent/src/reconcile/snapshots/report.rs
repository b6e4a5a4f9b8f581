//! From what happened on the disk to what the Snapshot's status and its events say.
//! Pure.

use berth_api::{
    Bytes, Snapshot, SnapshotPhase, SnapshotStatus,
    condition::Said,
    names::{condition, reason},
};
use berth_kube::events::Kind;
use berth_provisioner::SnapshotReport;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::reconcile::events::Event;

/// What the disk answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The snapshot is there.
    There(Box<SnapshotReport>),
    /// It is not usable now, and why.
    NotThere {
        /// Phase to show.
        phase: SnapshotPhase,
        /// For people.
        message: String,
    },
}

/// The status that answers `outcome`. What was known of a snapshot that is not there
/// now stays, as the proof that it was taken.
pub fn status(snapshot: &Snapshot, outcome: &Outcome, now: Timestamp) -> SnapshotStatus {
    let old = snapshot.status.clone().unwrap_or_default();
    let generation = snapshot.metadata.generation;
    let ready = |holds: bool, why: &str, message: &str| {
        let said = Said {
            type_: condition::READY,
            holds,
            reason: why.to_owned(),
            message: message.to_owned(),
        };
        vec![said.since(&old.conditions, generation, Time(now))]
    };
    match outcome {
        Outcome::There(report) => SnapshotStatus {
            phase: SnapshotPhase::Ready,
            message: None,
            observed_generation: generation,
            // A record without a time is none of ours; it is dated when it is found.
            created: Some(Time(report.created.parse().unwrap_or(now))),
            size: Some(Bytes(report.size)),
            reserved: Some(Bytes(report.reserved)),
            mode: Some(report.mode),
            conditions: ready(true, "Ready", ""),
        },
        Outcome::NotThere { phase, message } => {
            let (holds, why) = match phase {
                // What cannot be erased yet is as ready as it was.
                SnapshotPhase::Ready => (true, "Ready"),
                SnapshotPhase::Deleted => (false, "Erased"),
                _ if old.created.is_some() => (false, reason::UNHEALTHY),
                _ => (false, reason::SNAPSHOT_FAILED),
            };
            SnapshotStatus {
                phase: *phase,
                message: (!message.is_empty()).then(|| message.clone()),
                observed_generation: generation,
                conditions: ready(holds, why, message),
                reserved: old.reserved.filter(|_| *phase != SnapshotPhase::Deleted),
                ..old
            }
        }
    }
}

/// The event for what changed between two statuses, published once.
pub(super) fn event(old: Option<&SnapshotStatus>, new: &SnapshotStatus) -> Option<Event> {
    let phase = old.map_or(SnapshotPhase::Pending, |old| old.phase);
    let same_message = old.is_some_and(|old| old.message == new.message);
    if phase == new.phase && (same_message || new.message.is_none()) {
        return None;
    }
    let taken = old.is_some_and(|old| old.created.is_some());
    let (kind, reason, action) = match new.phase {
        SnapshotPhase::Ready if new.message.is_some() => {
            (Kind::Warning, reason::UNHEALTHY, "Erase")
        }
        SnapshotPhase::Ready if taken => (Kind::Normal, "Recovered", "Keep"),
        SnapshotPhase::Ready => (Kind::Normal, reason::SNAPSHOT_TAKEN, "Take"),
        SnapshotPhase::Failed if taken => (Kind::Warning, reason::UNHEALTHY, "Keep"),
        SnapshotPhase::Failed => (Kind::Warning, reason::SNAPSHOT_FAILED, "Take"),
        SnapshotPhase::Deleted => (Kind::Normal, "Erased", "Erase"),
        SnapshotPhase::Pending => return None,
    };
    let note = new.message.clone().or_else(|| match new.phase {
        SnapshotPhase::Ready => {
            let bytes = new.reserved.unwrap_or_default();
            Some(format!("the snapshot holds {} of the pool", bytes.human()))
        }
        SnapshotPhase::Deleted => Some("the snapshot is erased".to_owned()),
        _ => None,
    });
    Some(Event {
        kind,
        reason: reason.to_owned(),
        note: note.unwrap_or_default(),
        action,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata;

    fn snapshot(status: Option<SnapshotStatus>) -> Snapshot {
        let mut snapshot = Snapshot::new("snap-1", testdata::snapshot_spec());
        snapshot.metadata.generation = Some(2);
        snapshot.status = status;
        snapshot
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn published(old: Option<&SnapshotStatus>, new: &SnapshotStatus) -> String {
        event(old, new).map_or("nothing".to_owned(), |event| {
            format!("{}: {}", event.reason, event.note)
        })
    }

    #[test]
    fn what_was_taken_stays_known() {
        let there = Outcome::There(Box::new(testdata::snapshot()));
        let ready = status(&snapshot(None), &there, at(0));
        expect_test::expect![[r#"
            {
              "phase": "Ready",
              "observedGeneration": 2,
              "created": "2026-01-02T03:04:05Z",
              "size": "1Gi",
              "reserved": "64Mi",
              "mode": "Filesystem",
              "conditions": [
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "",
                  "observedGeneration": 2,
                  "reason": "Ready",
                  "status": "True",
                  "type": "Ready"
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&ready).expect("serialises"));
        let not = |phase, message: &str| Outcome::NotThere {
            phase,
            message: message.to_owned(),
        };
        let ready_again = status(&snapshot(Some(ready.clone())), &there, at(9));
        assert_eq!(ready_again, ready, "looking again changes nothing");

        let gone = not(SnapshotPhase::Failed, "no record");
        let failed = status(&snapshot(Some(ready.clone())), &gone, at(60));
        assert_eq!(failed.created, ready.created);
        assert_eq!(failed.conditions[0].reason, "Unhealthy");
        let erased = not(SnapshotPhase::Deleted, "");
        let erased = status(&snapshot(Some(ready.clone())), &erased, at(60));
        assert_eq!((erased.reserved, erased.message.as_deref()), (None, None));
        let refused = not(SnapshotPhase::Failed, "full");
        let refused = status(&snapshot(None), &refused, at(0));
        assert_eq!(refused.created, None);

        for (old, new, expected) in [
            (
                None,
                &ready,
                "SnapshotTaken: the snapshot holds 64Mi of the pool",
            ),
            (Some(&ready), &ready, "nothing"),
            (None, &refused, "SnapshotFailed: full"),
            (Some(&ready), &failed, "Unhealthy: no record"),
            (Some(&failed), &failed, "nothing"),
            (
                Some(&failed),
                &ready,
                "Recovered: the snapshot holds 64Mi of the pool",
            ),
            (Some(&ready), &erased, "Erased: the snapshot is erased"),
        ] {
            assert_eq!(published(old, new), expected);
        }
    }
}
