//! From what happened on the disk to what the Volume's status says, and whether
//! that is worth a write. Pure.

use berth_api::{
    Bytes, Publication, Volume, VolumePhase, VolumeStatus,
    condition::{Said, of_problems},
    names::{condition, reason},
};
use berth_model::Urgency;
use berth_provisioner::{Backend, Error, VolumeReport};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What the disk answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The volume is there; with a message when something that was wanted of it
    /// could not be done, which takes nothing from what it is.
    There(Box<VolumeReport>, Option<String>),
    /// It is not usable now, and why.
    NotThere {
        /// Phase to show.
        phase: VolumePhase,
        /// For people.
        message: String,
    },
}

impl Outcome {
    /// What an error of the disk means for a volume that is to be made.
    pub fn of_error(phase: VolumePhase, error: &Error) -> Self {
        let phase = match error {
            // Nothing was made, and nothing will be for this object.
            Error::NoRoom { .. } => VolumePhase::NoRoom,
            Error::Lost { .. } | Error::Tombstoned { .. } => VolumePhase::Lost,
            // Only the data itself ends this.
            _ if phase == VolumePhase::Lost => VolumePhase::Lost,
            _ => VolumePhase::Failed,
        };
        Self::NotThere {
            phase,
            message: error.to_string(),
        }
    }
}

/// The status that answers `outcome`. What was known of a volume that is not
/// there now (path, size, backend) stays, as the proof that it was made.
pub fn status(volume: &Volume, outcome: &Outcome, now: Timestamp) -> VolumeStatus {
    let old = volume.status.clone().unwrap_or_default();
    let generation = volume.metadata.generation;
    let conditions = |said: Vec<Said>| {
        said.into_iter()
            .map(|said| said.since(&old.conditions, generation, Time(now)))
            .collect()
    };
    let ready = |holds, reason: &str, message: &str| Said {
        type_: condition::READY,
        holds,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    match outcome {
        Outcome::There(report, message) => {
            let (holds, reason, text) = match report.backend {
                Backend::Directory => (false, "NoLimit", "the backend has no limit"),
                _ => (true, "Enforced", "the filesystem enforces the size"),
            };
            let limited = Said {
                type_: condition::LIMITED,
                holds,
                reason: reason.to_owned(),
                message: text.to_owned(),
            };
            let mut said = vec![
                ready(true, "Ready", message.as_deref().unwrap_or_default()),
                limited,
            ];
            said.extend(of_problems(&report.troubles));
            VolumeStatus {
                phase: VolumePhase::Ready,
                message: message.clone(),
                observed_generation: generation,
                path: Some(report.path.to_string_lossy().into_owned()),
                size: Some(Bytes(report.enforced)),
                used: report.used.map(Bytes),
                backend: Some(report.backend),
                published: report
                    .published
                    .iter()
                    .map(|publication| Publication {
                        pod_uid: publication.pod_uid.clone(),
                        pod: publication.pod.clone(),
                        target: publication.target.to_string_lossy().into_owned(),
                    })
                    .collect(),
                conditions: conditions(said),
            }
        }
        Outcome::NotThere { phase, message } => {
            let why = match phase {
                VolumePhase::NoRoom => reason::NO_ROOM,
                VolumePhase::Lost => reason::DATA_LOST,
                VolumePhase::Deleted => "Erased",
                VolumePhase::Failed if old.path.is_none() => reason::PROVISIONING_FAILED,
                _ => reason::UNHEALTHY,
            };
            // A volume that cannot be erased yet is as ready as it was.
            let as_ready = *phase == VolumePhase::Ready;
            let why = if as_ready { "Ready" } else { why };
            let limited = old
                .conditions
                .iter()
                .find(|condition| condition.type_ == condition::LIMITED)
                .cloned();
            let mut status = VolumeStatus {
                phase: *phase,
                message: (!message.is_empty()).then(|| message.clone()),
                observed_generation: generation,
                conditions: conditions(vec![ready(as_ready, why, message)]),
                ..old.clone()
            };
            status.conditions.extend(limited);
            if *phase == VolumePhase::Deleted {
                status.used = None;
                status.published.clear();
            }
            status
        }
    }
}

/// By what part of a volume's size the bytes in use move before they are written: what
/// fills up costs ten writes in its life, and what is merely used costs none. Who wants
/// them exactly has metrics (`kubelet_volume_stats_used_bytes`).
const USED_STEPS: u64 = 10;

/// Whether `new` is worth a write: anything is but the bytes in use, which must have moved
/// far, and that a new generation of the spec changed nothing, which goes with whatever is
/// written next.
pub fn worth_writing(old: Option<&VolumeStatus>, new: &VolumeStatus) -> bool {
    let Some(old) = old else { return true };
    let same_but_used = VolumeStatus {
        used: new.used,
        ..answering(old, new)
    } == *new;
    if !same_but_used {
        return true;
    }
    match (old.used, new.used) {
        (Some(old), Some(now)) if old != now => {
            let size = new.size.map_or(0, |size| size.0);
            now.0.abs_diff(old.0) > size / USED_STEPS
        }
        (old, now) => old != now,
    }
}

/// `old` as the answer to the generation that `new` answers. The controller marks every
/// volume that it binds in the spec, which asks for nothing: a write for that alone would be
/// one per claim. It waits for the generation of a message alone, which says why a spec is
/// not followed.
fn answering(old: &VolumeStatus, new: &VolumeStatus) -> VolumeStatus {
    let mut same = old.clone();
    if new.message.is_none() {
        same.observed_generation = new.observed_generation;
        for condition in &mut same.conditions {
            condition.observed_generation = new.observed_generation;
        }
    }
    same
}

/// How soon others need to know. Nobody waits to hear which pods have the volume
/// mounted, or how full it is: what guards a mount is what the node itself knows.
pub fn urgency(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Urgency {
    let refreshed = old.map(|old| VolumeStatus {
        used: new.used,
        published: new.published.clone(),
        ..answering(old, new)
    });
    match refreshed.as_ref() == Some(new) {
        true => Urgency::Later,
        false => Urgency::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata;
    use berth_provisioner::PoolId;

    fn volume(status: Option<VolumeStatus>) -> Volume {
        let mut volume = Volume::new("pvc-1", testdata::spec());
        volume.metadata.generation = Some(3);
        volume.status = status;
        volume
    }

    fn there() -> Outcome {
        Outcome::There(Box::new(testdata::volume()), None)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn yaml(status: &VolumeStatus) -> String {
        serde_json::to_string_pretty(status).expect("serialises")
    }

    #[test]
    fn a_ready_volume_reports_everything() {
        expect_test::expect![[r#"
            {
              "phase": "Ready",
              "observedGeneration": 3,
              "path": "/var/lib/berth/pools/disk0/volumes/pvc-1/data",
              "size": "1Gi",
              "used": "64Mi",
              "backend": "btrfs",
              "conditions": [
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "",
                  "observedGeneration": 3,
                  "reason": "Ready",
                  "status": "True",
                  "type": "Ready"
                },
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "the filesystem enforces the size",
                  "observedGeneration": 3,
                  "reason": "Enforced",
                  "status": "True",
                  "type": "Limited"
                },
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "",
                  "observedGeneration": 3,
                  "reason": "Healthy",
                  "status": "True",
                  "type": "Healthy"
                },
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "",
                  "observedGeneration": 3,
                  "reason": "RoomLeft",
                  "status": "False",
                  "type": "Full"
                }
              ]
            }"#]]
        .assert_eq(&yaml(&status(&volume(None), &there(), at(0))));
    }

    #[test]
    fn what_was_made_stays_known() {
        let ready = status(&volume(None), &there(), at(0));
        let failed = Outcome::NotThere {
            phase: VolumePhase::Failed,
            message: "the disk is not mounted".to_owned(),
        };
        let failed = status(&volume(Some(ready.clone())), &failed, at(60));
        expect_test::expect![[r#"
            {
              "phase": "Failed",
              "message": "the disk is not mounted",
              "observedGeneration": 3,
              "path": "/var/lib/berth/pools/disk0/volumes/pvc-1/data",
              "size": "1Gi",
              "used": "64Mi",
              "backend": "btrfs",
              "conditions": [
                {
                  "lastTransitionTime": "1970-01-01T00:01:00Z",
                  "message": "the disk is not mounted",
                  "observedGeneration": 3,
                  "reason": "Unhealthy",
                  "status": "False",
                  "type": "Ready"
                },
                {
                  "lastTransitionTime": "1970-01-01T00:00:00Z",
                  "message": "the filesystem enforces the size",
                  "observedGeneration": 3,
                  "reason": "Enforced",
                  "status": "True",
                  "type": "Limited"
                }
              ]
            }"#]]
        .assert_eq(&yaml(&failed));

        let back = status(&volume(Some(failed)), &there(), at(120));
        let since = |status: &VolumeStatus| status.conditions[0].last_transition_time.0;
        assert_eq!((since(&ready), since(&back)), (at(0), at(120)));
        assert_eq!(back.message, None);
    }

    #[test]
    fn transition_times_move_only_with_the_status() {
        let first = status(&volume(None), &there(), at(0));
        let second = status(&volume(Some(first.clone())), &there(), at(60));
        assert_eq!(first, second);
    }

    #[test]
    fn a_volume_that_cannot_grow_is_ready_and_says_so() {
        let message = Some("no room to grow".to_owned());
        let outcome = Outcome::There(Box::new(testdata::volume()), message.clone());
        let status = status(&volume(None), &outcome, at(0));
        assert_eq!(status.phase, VolumePhase::Ready);
        assert_eq!(status.message, message);
        assert_eq!(status.conditions[0].status, "True");
    }

    #[test]
    fn errors_have_phases() {
        let pool = PoolId::new("p").expect("valid");
        let id = || "v".to_owned();
        let no_room = Error::NoRoom {
            pool: pool.clone(),
            needed: 2,
            room: 1,
        };
        let lost = Error::Lost {
            id: id(),
            why: id(),
        };
        let tombstoned = Error::Tombstoned {
            id: id(),
            erased: id(),
        };
        let missing = Error::PoolMissing { pool };
        use VolumePhase::{Failed, Lost, NoRoom, Pending, Ready};
        for (phase, error, expected) in [
            (Pending, &no_room, NoRoom),
            (Pending, &lost, Lost),
            (Pending, &tombstoned, Lost),
            (Pending, &missing, Failed),
            (Ready, &missing, Failed),
            (Lost, &missing, Lost),
        ] {
            let Outcome::NotThere { phase: got, .. } = Outcome::of_error(phase, error) else {
                panic!("an error is no volume");
            };
            assert_eq!(got, expected, "{phase:?} {error}");
        }
    }

    #[test]
    fn small_changes_of_use_are_not_written() {
        let old = status(&volume(None), &there(), at(0));
        let with = |used: u64| VolumeStatus {
            used: Some(Bytes(used)),
            ..old.clone()
        };
        // Far enough from zero to fall by a step.
        let size = old.size.expect("known").0;
        let (old, step) = (with(size / 2), size / USED_STEPS);
        for (used, expected) in [
            (size / 2, false),
            (size / 2 + step, false),
            (size / 2 + step + 1, true),
            (size / 2 - step, false),
            (size / 2 - step - 1, true),
        ] {
            assert_eq!(worth_writing(Some(&old), &with(used)), expected, "{used}");
        }
        let mut published = old.clone();
        published.published.push(Publication {
            pod_uid: "p".to_owned(),
            pod: String::new(),
            target: "/t".to_owned(),
        });
        assert!(worth_writing(Some(&old), &published));
        assert!(worth_writing(None, &old));
    }

    #[test]
    fn a_generation_that_changes_nothing_goes_with_the_next_write() {
        let mut volume = volume(None);
        let old = status(&volume, &there(), at(0));
        volume.metadata.generation = Some(4);
        volume.status = Some(old.clone());
        let mut new = status(&volume, &there(), at(1));
        assert_ne!(old, new);
        assert!(!worth_writing(Some(&old), &new));
        new.published.push(Publication {
            pod_uid: "p".to_owned(),
            pod: String::new(),
            target: "/t".to_owned(),
        });
        assert!(worth_writing(Some(&old), &new));
        assert_eq!(urgency(Some(&old), &new), Urgency::Later);

        // The same refusal, of another size: the controller waits for that.
        let refused = Outcome::There(Box::new(testdata::volume()), Some("no room".to_owned()));
        let old = status(&volume, &refused, at(1));
        volume.metadata.generation = Some(5);
        volume.status = Some(old.clone());
        let new = status(&volume, &refused, at(2));
        assert!(worth_writing(Some(&old), &new));
        assert_eq!(urgency(Some(&old), &new), Urgency::Now);
    }

    #[test]
    fn who_uses_it_and_how_much_can_wait() {
        let old = status(&volume(None), &there(), at(0));
        let mut new = old.clone();
        new.used = None;
        new.published.push(Publication {
            pod_uid: "p".to_owned(),
            pod: String::new(),
            target: "/t".to_owned(),
        });
        assert_eq!(urgency(Some(&old), &new), Urgency::Later);
        assert_eq!(urgency(None, &new), Urgency::Now);
        new.message = Some("cannot grow".to_owned());
        assert_eq!(urgency(Some(&old), &new), Urgency::Now);
    }
}
