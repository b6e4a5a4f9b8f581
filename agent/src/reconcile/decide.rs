//! What to do about one Volume, decided from what its object says and what the
//! disk holds. Pure: every rule about making, adopting, losing and erasing data
//! is in this one function, and is tested as a table.

use berth_api::{VolumePhase, VolumeSpec, VolumeState, VolumeStatus};
use berth_provisioner::{Health, PoolReport, VolumeHealth, VolumeReport};

/// What the node holds of a volume.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// The volume's pool, if any directory of this node has its id.
    pub pool: Option<&'a PoolReport>,
    /// The volume, if any pool has a record of its id.
    pub volume: Option<&'a VolumeReport>,
}

/// The one thing to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The status says all there is to say.
    Nothing,
    /// Make the volume; the ledger decides whether there is room.
    Create,
    /// The volume is there: adopt it, or refresh what is reported.
    Report,
    /// The volume was given to another claim: record that, then report it.
    Assign,
    /// Raise the volume's limit to this many bytes, then report it.
    Grow(u64),
    /// Erase the data.
    Erase,
    /// There is nothing left to erase.
    Erased,
    /// Say why nothing can be done now, and try again.
    Wait {
        /// Phase to show meanwhile.
        phase: VolumePhase,
        /// For people.
        message: String,
    },
    /// The data should be here and is not: say so, and make nothing in its place.
    Lost(String),
}

/// Decides the next step. It never answers [`Step::Create`] for a volume that was
/// ever made, as far as object and record tell; one that was erased is refused by
/// the provisioner itself, which looks for a tombstone under its own lock.
pub fn decide(spec: &VolumeSpec, status: Option<&VolumeStatus>, seen: &Seen<'_>) -> Step {
    let phase = status.map_or(VolumePhase::Pending, |status| status.phase);
    match spec.state {
        VolumeState::Deleted => erase(spec, phase, seen),
        VolumeState::Present => keep(spec, status, phase, seen),
    }
}

fn keep(
    spec: &VolumeSpec,
    status: Option<&VolumeStatus>,
    phase: VolumePhase,
    seen: &Seen<'_>,
) -> Step {
    if let Some(volume) = seen.volume {
        if volume.pool.as_str() != spec.pool {
            return Step::Lost(format!(
                "pool {} should hold the data, and pool {} does: the volume's object names the wrong pool",
                spec.pool, volume.pool
            ));
        }
        return match &volume.health {
            VolumeHealth::Ready if is_handed_on(spec, volume) && writable(seen) => Step::Assign,
            VolumeHealth::Ready if volume.size < spec.size.0 && writable(seen) => {
                Step::Grow(spec.size.0)
            }
            VolumeHealth::Ready => Step::Report,
            // A pool that is not there does not prove that the data is gone.
            VolumeHealth::Lost(why) => unusable(&spec.pool, seen.pool)
                .map_or_else(|| Step::Lost(why.clone()), |message| failed(phase, message)),
            VolumeHealth::Damaged(why) => failed(phase, why.clone()),
        };
    }
    if let Some(message) = unusable(&spec.pool, seen.pool) {
        return failed(phase, message);
    }
    // A path in the status is the proof that there was a volume once.
    let made = status.is_some_and(|status| status.path.is_some());
    if spec.adopt || made || matches!(phase, VolumePhase::Ready | VolumePhase::Lost) {
        return Step::Lost(format!(
            "pool {} has no record of the volume; nothing is made in its place",
            spec.pool
        ));
    }
    match phase {
        // Answered once and for all: the controller places the claim anew by a
        // new object, and this one must not come to life behind its back.
        VolumePhase::NoRoom => Step::Nothing,
        _ if read_only(seen.pool) => {
            failed(phase, format!("pool {} is mounted read-only", spec.pool))
        }
        _ => Step::Create,
    }
}

/// Whether the object names another claim than the disk. An object that was recreated from
/// a PersistentVolume without a claim names none.
fn is_handed_on(spec: &VolumeSpec, volume: &VolumeReport) -> bool {
    !spec.claim.uid.is_empty() && volume.claim.as_ref() != Some(&spec.claim)
}

fn erase(spec: &VolumeSpec, phase: VolumePhase, seen: &Seen<'_>) -> Step {
    if phase == VolumePhase::Deleted {
        return Step::Nothing;
    }
    let wait = |message| Step::Wait { phase, message };
    let Some(volume) = seen.volume else {
        return match unusable(&spec.pool, seen.pool) {
            Some(message) => wait(format!("cannot be erased now: {message}")),
            // It was searched and has nothing, and nothing can be made there.
            None if read_only(seen.pool) => Step::Erased,
            // Leaves a tombstone, so that nothing is made of this id later.
            None => Step::Erase,
        };
    };
    if volume.pool.as_str() != spec.pool {
        return wait(format!(
            "not erased: pool {} holds a volume of this id, and the volume's object names pool {}",
            volume.pool, spec.pool
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
    if let Some(publication) = volume.published.first() {
        return wait(format!(
            "not erased while {} has it mounted at {}",
            publication.user(),
            publication.target.display()
        ));
    }
    Step::Erase
}

/// Keeps [`VolumePhase::Lost`]: only the data itself ends that.
fn failed(phase: VolumePhase, message: String) -> Step {
    let phase = match phase {
        VolumePhase::Lost => VolumePhase::Lost,
        _ => VolumePhase::Failed,
    };
    Step::Wait { phase, message }
}

/// Why the pool cannot even be read, if so.
pub(super) fn unusable(id: &str, pool: Option<&PoolReport>) -> Option<String> {
    let Some(pool) = pool else {
        return Some(format!(
            "pool {id} is not on this node: mount its disk under the pools directory"
        ));
    };
    match pool.health {
        Health::Healthy | Health::ReadOnly => None,
        Health::Uninitialized
        | Health::LostMount
        | Health::Unresponsive
        | Health::Damaged(_)
        | Health::Unsupported(_) => Some(format!("pool {id}: {}", pool.message)),
    }
}

pub(super) fn read_only(pool: Option<&PoolReport>) -> bool {
    pool.is_some_and(|pool| pool.health == Health::ReadOnly)
}

fn writable(seen: &Seen<'_>) -> bool {
    seen.pool.is_some_and(|pool| pool.health == Health::Healthy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::{pool, spec, volume};
    use berth_api::{Bytes, Source};
    use berth_provisioner::{PoolId, Publication};

    fn status(phase: VolumePhase, path: Option<&str>) -> VolumeStatus {
        VolumeStatus {
            phase,
            path: path.map(str::to_owned),
            ..VolumeStatus::default()
        }
    }

    fn show(step: &Step) -> String {
        match step {
            Step::Wait { phase, message } => format!("{phase:?}: {message}"),
            Step::Lost(message) => format!("Lost! {message}"),
            step => format!("{step:?}"),
        }
    }

    #[test]
    fn what_is_made_adopted_lost_and_erased() {
        let healthy = pool(Health::Healthy);
        let read_only = pool(Health::ReadOnly);
        let mut unmounted = pool(Health::LostMount);
        unmounted.message = "the disk is not mounted".to_owned();
        let here = volume();
        let lost = VolumeReport {
            health: VolumeHealth::Lost("no data directory".to_owned()),
            ..volume()
        };
        let damaged = VolumeReport {
            health: VolumeHealth::Damaged("checksum".to_owned()),
            ..volume()
        };
        let busy = VolumeReport {
            published: vec![Publication {
                pod_uid: "p1".to_owned(),
                pod: String::new(),
                target: "/t".into(),
                readonly: false,
            }],
            ..volume()
        };
        let elsewhere = VolumeReport {
            pool: PoolId::new("other-1").expect("valid"),
            ..volume()
        };

        let present = spec();
        let adopted = VolumeSpec {
            adopt: true,
            ..spec()
        };
        let grown = VolumeSpec {
            size: Bytes(2 << 30),
            ..spec()
        };
        let mut handed_on = spec();
        handed_on.claim.name = "other".to_owned();
        handed_on.claim.uid = "2".to_owned();
        let mut unnamed = spec();
        unnamed.claim.uid = String::new();
        let cloned = VolumeSpec {
            source: Some(Source::Snapshot("s".to_owned())),
            ..spec()
        };
        let deleted = VolumeSpec {
            state: VolumeState::Deleted,
            ..spec()
        };

        let none = None;
        let pending = Some(status(VolumePhase::Pending, None));
        let no_room = Some(status(VolumePhase::NoRoom, None));
        let failed_before = Some(status(VolumePhase::Failed, None));
        let failed_after = Some(status(VolumePhase::Failed, Some("/v")));
        let ready = Some(status(VolumePhase::Ready, Some("/v")));
        let was_lost = Some(status(VolumePhase::Lost, None));
        let gone = Some(status(VolumePhase::Deleted, None));

        type Row<'a> = (
            &'a str,
            &'a VolumeSpec,
            &'a Option<VolumeStatus>,
            Option<&'a PoolReport>,
            Option<&'a VolumeReport>,
        );
        let p = Some(&healthy);
        let rows: Vec<Row<'_>> = vec![
            ("new", &present, &none, p, None),
            ("new, pending", &present, &pending, p, None),
            (
                "new, failed before it was made",
                &present,
                &failed_before,
                p,
                None,
            ),
            ("new, no pool", &present, &none, None, None),
            ("new, unmounted", &present, &none, Some(&unmounted), None),
            ("new, read-only", &present, &none, Some(&read_only), None),
            ("new, with source", &cloned, &none, p, None),
            ("no room stays answered", &present, &no_room, p, None),
            ("record without status", &present, &none, p, Some(&here)),
            (
                "record in another pool",
                &present,
                &none,
                p,
                Some(&elsewhere),
            ),
            ("adopt, there", &adopted, &none, p, Some(&here)),
            ("adopt, not there", &adopted, &none, p, None),
            ("adopt, unmounted", &adopted, &none, Some(&unmounted), None),
            ("ready, there", &present, &ready, p, Some(&here)),
            (
                "ready, read-only",
                &present,
                &ready,
                Some(&read_only),
                Some(&here),
            ),
            ("ready, grown", &grown, &ready, p, Some(&here)),
            (
                "ready, grown, read-only",
                &grown,
                &ready,
                Some(&read_only),
                Some(&here),
            ),
            ("ready, handed on", &handed_on, &ready, p, Some(&here)),
            (
                "ready, handed on, read-only",
                &handed_on,
                &ready,
                Some(&read_only),
                Some(&here),
            ),
            ("ready, without a claim", &unnamed, &ready, p, Some(&here)),
            ("ready, no record", &present, &ready, p, None),
            ("ready, no data", &present, &ready, p, Some(&lost)),
            ("ready, unmounted", &present, &ready, Some(&unmounted), None),
            (
                "ready, unmounted, remembered",
                &present,
                &ready,
                Some(&unmounted),
                Some(&lost),
            ),
            ("ready, damaged", &present, &ready, p, Some(&damaged)),
            ("failed after it was made", &present, &failed_after, p, None),
            (
                "failed, there again",
                &present,
                &failed_after,
                p,
                Some(&here),
            ),
            (
                "lost, unmounted",
                &present,
                &was_lost,
                Some(&unmounted),
                None,
            ),
            ("lost, there again", &present, &was_lost, p, Some(&here)),
            ("lost, still", &present, &was_lost, p, None),
            ("delete", &deleted, &ready, p, Some(&here)),
            ("delete, mounted", &deleted, &ready, p, Some(&busy)),
            ("delete, other pool", &deleted, &ready, p, Some(&elsewhere)),
            (
                "delete, unmounted",
                &deleted,
                &ready,
                Some(&unmounted),
                None,
            ),
            (
                "delete, read-only",
                &deleted,
                &ready,
                Some(&read_only),
                Some(&here),
            ),
            ("delete, no pool", &deleted, &ready, None, None),
            (
                "delete, no record, read-only",
                &deleted,
                &ready,
                Some(&read_only),
                None,
            ),
            ("delete, never made", &deleted, &none, p, None),
            (
                "delete, damaged",
                &deleted,
                &failed_after,
                p,
                Some(&damaged),
            ),
            ("deleted", &deleted, &gone, p, None),
        ];
        let mut table = String::new();
        for (name, spec, status, pool, volume) in rows {
            let seen = Seen { pool, volume };
            let step = decide(spec, status.as_ref(), &seen);
            table.push_str(&format!("{name:32} {}\n", show(&step)));
        }
        expect_test::expect![[r#"
            new                              Create
            new, pending                     Create
            new, failed before it was made   Create
            new, no pool                     Failed: pool disk0-0123456789ab is not on this node: mount its disk under the pools directory
            new, unmounted                   Failed: pool disk0-0123456789ab: the disk is not mounted
            new, read-only                   Failed: pool disk0-0123456789ab is mounted read-only
            new, with source                 Create
            no room stays answered           Nothing
            record without status            Report
            record in another pool           Lost! pool disk0-0123456789ab should hold the data, and pool other-1 does: the volume's object names the wrong pool
            adopt, there                     Report
            adopt, not there                 Lost! pool disk0-0123456789ab has no record of the volume; nothing is made in its place
            adopt, unmounted                 Failed: pool disk0-0123456789ab: the disk is not mounted
            ready, there                     Report
            ready, read-only                 Report
            ready, grown                     Grow(2147483648)
            ready, grown, read-only          Report
            ready, handed on                 Assign
            ready, handed on, read-only      Report
            ready, without a claim           Report
            ready, no record                 Lost! pool disk0-0123456789ab has no record of the volume; nothing is made in its place
            ready, no data                   Lost! no data directory
            ready, unmounted                 Failed: pool disk0-0123456789ab: the disk is not mounted
            ready, unmounted, remembered     Failed: pool disk0-0123456789ab: the disk is not mounted
            ready, damaged                   Failed: checksum
            failed after it was made         Lost! pool disk0-0123456789ab has no record of the volume; nothing is made in its place
            failed, there again              Report
            lost, unmounted                  Lost: pool disk0-0123456789ab: the disk is not mounted
            lost, there again                Report
            lost, still                      Lost! pool disk0-0123456789ab has no record of the volume; nothing is made in its place
            delete                           Erase
            delete, mounted                  Ready: not erased while pod p1 has it mounted at /t
            delete, other pool               Ready: not erased: pool other-1 holds a volume of this id, and the volume's object names pool disk0-0123456789ab
            delete, unmounted                Ready: cannot be erased now: pool disk0-0123456789ab: the disk is not mounted
            delete, read-only                Ready: cannot be erased now: pool disk0-0123456789ab is mounted read-only
            delete, no pool                  Ready: cannot be erased now: pool disk0-0123456789ab is not on this node: mount its disk under the pools directory
            delete, no record, read-only     Erased
            delete, never made               Erase
            delete, damaged                  Erase
            deleted                          Nothing
        "#]].assert_eq(&table);
    }
}
