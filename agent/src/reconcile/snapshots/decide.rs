//! What to do about one Snapshot, decided from what its object says and what the
//! disk holds. Pure, and tested as a table, as for volumes.
//!
//! What was taken once is never taken again: a later snapshot would be of other
//! data, and whoever restores it would not know.

use berth_api::{SnapshotPhase, SnapshotSpec, SnapshotStatus, VolumeState};
use berth_provisioner::{PoolReport, SnapshotReport, VolumeHealth};

use crate::reconcile::decide::{read_only, unusable};

/// What the node holds of a snapshot.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The snapshot's pool, if any directory of this node has its id.
    pub pool: Option<&'a PoolReport>,
    /// The snapshot, if any pool has a record of its id.
    pub snapshot: Option<&'a SnapshotReport>,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The status says all there is to say.
    Nothing,
    /// Take it; the ledger decides whether there is room.
    Take,
    /// It is there: say so.
    Report,
    /// Erase the data.
    Erase,
    /// There is nothing left to erase.
    Erased,
    /// Say why nothing can be done now, and try again.
    Wait {
        /// Phase to show meanwhile.
        phase: SnapshotPhase,
        /// For people.
        message: String,
    },
}

/// Decides the next step.
pub fn decide(spec: &SnapshotSpec, status: Option<&SnapshotStatus>, seen: &Seen<'_>) -> Step {
    match spec.state {
        VolumeState::Deleted => erase(spec, status, seen),
        VolumeState::Present => keep(spec, status, seen),
    }
}

fn keep(spec: &SnapshotSpec, status: Option<&SnapshotStatus>, seen: &Seen<'_>) -> Step {
    let failed = |message| Step::Wait {
        phase: SnapshotPhase::Failed,
        message,
    };
    if let Some(there) = seen.snapshot {
        if there.pool.as_str() != spec.pool {
            return failed(format!(
                "pool {} should hold the snapshot, and pool {} does: its object names the wrong pool",
                spec.pool, there.pool
            ));
        }
        // A pool that is not there does not prove that the data is gone.
        if let Some(message) = unusable(&spec.pool, seen.pool) {
            return failed(message);
        }
        return match &there.health {
            VolumeHealth::Ready if there.volume != spec.volume => failed(format!(
                "the pool holds a snapshot of this name that is of volume {}",
                there.volume
            )),
            VolumeHealth::Ready => Step::Report,
            VolumeHealth::Lost(why) => failed(format!("the snapshot's data is lost: {why}")),
            VolumeHealth::Damaged(why) => failed(format!("the snapshot is damaged: {why}")),
        };
    }
    if let Some(message) = unusable(&spec.pool, seen.pool) {
        return failed(message);
    }
    let taken = status.is_some_and(|status| {
        status.created.is_some()
            || matches!(status.phase, SnapshotPhase::Ready | SnapshotPhase::Deleted)
    });
    if spec.adopt || taken {
        return failed(format!(
            "pool {} has no record of the snapshot; none is taken in its place, since it would be of other data",
            spec.pool
        ));
    }
    match read_only(seen.pool) {
        true => failed(format!("pool {} is mounted read-only", spec.pool)),
        false => Step::Take,
    }
}

fn erase(spec: &SnapshotSpec, status: Option<&SnapshotStatus>, seen: &Seen<'_>) -> Step {
    let phase = status.map_or(SnapshotPhase::Pending, |status| status.phase);
    let wait = |message| Step::Wait { phase, message };
    let Some(there) = seen.snapshot else {
        return match unusable(&spec.pool, seen.pool) {
            _ if phase == SnapshotPhase::Deleted => Step::Nothing,
            Some(message) => wait(format!("cannot be erased now: {message}")),
            None => Step::Erased,
        };
    };
    if there.pool.as_str() != spec.pool {
        return wait(format!(
            "not erased: pool {} holds a snapshot of this name, and its object names pool {}",
            there.pool, spec.pool
        ));
    }
    if let Some(message) = unusable(&spec.pool, seen.pool) {
        return wait(format!("cannot be erased now: {message}"));
    }
    if read_only(seen.pool) {
        return wait(format!(
            "cannot be erased now: pool {} is mounted read-only",
            spec.pool
        ));
    }
    Step::Erase
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::{pool, snapshot, snapshot_spec};
    use berth_provisioner::{Health, PoolId};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn show(step: &Step) -> String {
        match step {
            Step::Wait { phase, message } => format!("{phase:?}: {message}"),
            step => format!("{step:?}"),
        }
    }

    #[test]
    fn what_is_taken_reported_missed_and_erased() {
        let healthy = pool(Health::Healthy);
        let read_only = pool(Health::ReadOnly);
        let mut unmounted = pool(Health::LostMount);
        unmounted.message = "the disk is not mounted".to_owned();
        let here = snapshot();
        let with = |health| SnapshotReport {
            health,
            ..snapshot()
        };
        let lost = with(VolumeHealth::Lost("no data".to_owned()));
        let damaged = with(VolumeHealth::Damaged("checksum".to_owned()));
        let strange = SnapshotReport {
            volume: "pvc-2".to_owned(),
            ..snapshot()
        };
        let elsewhere = SnapshotReport {
            pool: PoolId::new("other-1").expect("valid"),
            ..snapshot()
        };

        let present = snapshot_spec();
        let adopted = SnapshotSpec {
            adopt: true,
            ..snapshot_spec()
        };
        let deleted = SnapshotSpec {
            state: VolumeState::Deleted,
            ..snapshot_spec()
        };
        let none = None;
        let status = |phase, taken: bool| {
            Some(SnapshotStatus {
                phase,
                created: taken.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
                ..SnapshotStatus::default()
            })
        };
        use SnapshotPhase::{Deleted, Failed, Ready};
        let (ready, failed) = (status(Ready, true), status(Failed, false));
        let (missed, erased) = (status(Failed, true), status(Deleted, true));
        let no_record = "Failed: pool disk0-0123456789ab has no record of the snapshot; none is taken in its place, since it would be of other data";
        for (spec, status, pool, there, expected) in [
            (&present, &none, &healthy, None, "Take"),
            (&present, &failed, &healthy, None, "Take"),
            (&present, &ready, &healthy, None, no_record),
            (&present, &missed, &healthy, None, no_record),
            (&adopted, &none, &healthy, None, no_record),
            (
                &present,
                &none,
                &read_only,
                None,
                "Failed: pool disk0-0123456789ab is mounted read-only",
            ),
            (
                &present,
                &none,
                &unmounted,
                None,
                "Failed: pool disk0-0123456789ab: the disk is not mounted",
            ),
            // What is there is reported, whatever the object remembers.
            (&present, &none, &healthy, Some(&here), "Report"),
            (&adopted, &none, &read_only, Some(&here), "Report"),
            (&present, &missed, &healthy, Some(&here), "Report"),
            (
                &present,
                &ready,
                &unmounted,
                Some(&lost),
                "Failed: pool disk0-0123456789ab: the disk is not mounted",
            ),
            (
                &present,
                &ready,
                &healthy,
                Some(&lost),
                "Failed: the snapshot's data is lost: no data",
            ),
            (
                &present,
                &ready,
                &healthy,
                Some(&damaged),
                "Failed: the snapshot is damaged: checksum",
            ),
            (
                &present,
                &none,
                &healthy,
                Some(&strange),
                "Failed: the pool holds a snapshot of this name that is of volume pvc-2",
            ),
            (
                &present,
                &none,
                &healthy,
                Some(&elsewhere),
                "Failed: pool disk0-0123456789ab should hold the snapshot, and pool other-1 does: its object names the wrong pool",
            ),
            (&deleted, &ready, &healthy, Some(&here), "Erase"),
            (&deleted, &ready, &healthy, Some(&damaged), "Erase"),
            (&deleted, &none, &healthy, None, "Erased"),
            (&deleted, &none, &read_only, None, "Erased"),
            (&deleted, &erased, &healthy, None, "Nothing"),
            (&deleted, &erased, &unmounted, None, "Nothing"),
            // A write that came late took it once more.
            (&deleted, &erased, &healthy, Some(&here), "Erase"),
            (
                &deleted,
                &ready,
                &unmounted,
                None,
                "Ready: cannot be erased now: pool disk0-0123456789ab: the disk is not mounted",
            ),
            (
                &deleted,
                &ready,
                &read_only,
                Some(&here),
                "Ready: cannot be erased now: pool disk0-0123456789ab is mounted read-only",
            ),
            (
                &deleted,
                &ready,
                &healthy,
                Some(&elsewhere),
                "Ready: not erased: pool other-1 holds a snapshot of this name, and its object names pool disk0-0123456789ab",
            ),
        ] {
            let seen = Seen {
                pool: Some(pool),
                snapshot: there,
            };
            let step = decide(spec, status.as_ref(), &seen);
            assert_eq!(show(&step), expected, "{spec:?} {status:?} {there:?}");
        }
        let away = Seen {
            pool: None,
            snapshot: None,
        };
        assert_eq!(
            show(&decide(&present, None, &away)),
            "Failed: pool disk0-0123456789ab is not on this node: mount its disk under the pools directory"
        );
        assert_eq!(
            show(&decide(&deleted, ready.as_ref(), &away)),
            "Ready: cannot be erased now: pool disk0-0123456789ab is not on this node: mount its disk under the pools directory"
        );
    }
}
