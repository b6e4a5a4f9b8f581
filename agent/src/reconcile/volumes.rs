//! Volumes in the frame of [`super::reconciler`]: carries out the steps for the Volumes of
//! this node. Everything that is decided is decided in [`super::decide`] and
//! [`super::report`].

use berth_api::{Volume, VolumePhase, VolumeStatus};
use berth_kube::Urgency;
use berth_provisioner::{PoolId, ProblemKind, Provisioner, VolumeHealth, VolumeReport};
use jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    runtime::reflector::{Store, store::Writer},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{
    convert,
    decide::{Seen, Step, decide},
    events::Events,
    reconciler::{self, Acted, Kind, Look, Next},
    report::{self, Outcome},
};
use crate::{
    disks::{Disks, Failure},
    lanes::Lane,
    metrics::Operation,
};

/// Reconciles until the token is cancelled; a step that runs is finished. `objects` is filled
/// with this node's Volumes.
pub async fn run(
    client: Client,
    disks: Disks,
    changes: mpsc::Receiver<String>,
    objects: (Store<Volume>, Writer<Volume>),
    token: CancellationToken,
) {
    let changes = ReceiverStream::new(changes);
    reconciler::run::<Volumes>(client, disks, changes, objects, token).await;
}

struct Volumes;

impl Kind for Volumes {
    type Object = Volume;
    type Status = VolumeStatus;
    type Found = VolumeReport;
    type Outcome = Outcome;

    const NAME: &'static str = "Volume";

    fn pool(volume: &Volume) -> &str {
        &volume.spec.pool
    }

    fn find(disk: &Provisioner, name: &str) -> Option<VolumeReport> {
        disk.find(name)
    }

    fn is_well(volume: &VolumeReport) -> bool {
        volume.health == VolumeHealth::Ready
    }

    async fn act(
        disks: &Disks,
        name: &str,
        volume: &Volume,
        seen: Look<VolumeReport>,
    ) -> Result<Acted<Outcome>, Failure> {
        let spec = &volume.spec;
        let phase = volume
            .status
            .as_ref()
            .map_or(VolumePhase::Pending, |status| status.phase);
        let step = decide(
            spec,
            volume.status.as_ref(),
            &Seen {
                pool: seen.pool.as_ref(),
                volume: seen.found.as_ref(),
            },
        );
        let id = name.to_owned();
        Ok(Acted::Outcome(match step {
            Step::Nothing => return Ok(Acted::Nothing),
            Step::Create => {
                let pool = PoolId::new(spec.pool.as_str())?;
                let want = convert::wanted(name, volume);
                let lane = match want.source {
                    Some(_) => Lane::Copy,
                    None => Lane::Work,
                };
                let home = pool.clone();
                let work = move |disk: &Provisioner| disk.create(&pool, &want);
                let operation = Operation::Create;
                let made = disks.operate_in(Some(&home), lane, operation, name, work);
                match made.await {
                    Ok(report) => Outcome::There(Box::new(report), None),
                    Err(Failure::Disk(error)) => Outcome::of_error(phase, &error),
                    Err(failure) => return Err(failure),
                }
            }
            Step::Grow(size) => {
                let work = move |disk: &Provisioner| disk.expand(&id, size);
                let grown = disks.operate(Operation::Grow, name, work).await;
                changed(grown, seen.found, "cannot grow")?
            }
            Step::Assign => {
                let (claim, set) = (spec.claim.clone(), spec.owner.clone());
                let work = move |disk: &Provisioner| disk.assign(&id, claim, set);
                let given = disks.operate(Operation::Assign, name, work).await;
                changed(given, seen.found, "cannot be given to its claim")?
            }
            Step::Erase => {
                let pool = PoolId::new(spec.pool.as_str())?;
                let home = pool.clone();
                let erasure = convert::erasure(volume);
                let work = move |disk: &Provisioner| disk.delete_from(&pool, &id, &erasure);
                let operation = Operation::Erase;
                let gone = disks.operate_in(Some(&home), Lane::Work, operation, name, work);
                match gone.await {
                    Ok(()) => erased(),
                    // Mounted since it was looked at: as if it had been then.
                    Err(Failure::Disk(error)) => Outcome::NotThere {
                        phase,
                        message: format!("not erased: {error}"),
                    },
                    Err(failure) => return Err(failure),
                }
            }
            Step::Erased => erased(),
            Step::Report => match seen.found {
                Some(report) => Outcome::There(Box::new(report), None),
                None => return Ok(Acted::Changed),
            },
            Step::Wait { phase, message } => Outcome::NotThere { phase, message },
            Step::Lost(message) => Outcome::NotThere {
                phase: VolumePhase::Lost,
                message,
            },
        }))
    }

    fn next(outcome: &Outcome) -> Next {
        match outcome {
            Outcome::There(_, None) => Next::Well,
            Outcome::NotThere {
                phase: VolumePhase::Deleted | VolumePhase::NoRoom,
                ..
            } => Next::Change,
            Outcome::There(_, Some(_)) | Outcome::NotThere { .. } => Next::BackOff,
        }
    }

    fn troubles(outcome: &Outcome) -> Vec<(PoolId, ProblemKind)> {
        match outcome {
            Outcome::There(report, _) => report.kinds_of_problem().collect(),
            Outcome::NotThere { .. } => Vec::new(),
        }
    }

    fn show_troubles(disks: &Disks, troubles: &mut dyn Iterator<Item = (PoolId, ProblemKind)>) {
        disks.metrics().volumes(troubles);
    }

    fn old(volume: &Volume) -> Option<&VolumeStatus> {
        volume.status.as_ref()
    }

    fn status(volume: &Volume, outcome: &Outcome, now: Timestamp) -> VolumeStatus {
        report::status(volume, outcome, now)
    }

    fn urgency(old: Option<&VolumeStatus>, new: &VolumeStatus) -> Option<Urgency> {
        report::worth_writing(old, new).then(|| report::urgency(old, new))
    }

    fn with(volume: &Volume, status: VolumeStatus) -> Volume {
        Volume {
            status: Some(status),
            ..volume.clone()
        }
    }

    fn told(disks: &Disks, events: &Events, volume: &Volume, new: &VolumeStatus) {
        if new.phase == VolumePhase::NoRoom {
            disks.set_refused();
        }
        log_change(&volume.name_any(), volume.status.as_ref(), new);
        events.status_changed(volume, new);
    }
}

/// What came of changing a volume that is there: it still is, whatever failed.
fn changed(
    work: Result<VolumeReport, Failure>,
    before: Option<VolumeReport>,
    cannot: &str,
) -> Result<Outcome, Failure> {
    match (work, before) {
        (Ok(report), _) => Ok(Outcome::There(Box::new(report), None)),
        (Err(Failure::Disk(error)), Some(report)) => Ok(Outcome::There(
            Box::new(report),
            Some(format!("{cannot}: {error}")),
        )),
        (Err(failure), _) => Err(failure),
    }
}

fn erased() -> Outcome {
    Outcome::NotThere {
        phase: VolumePhase::Deleted,
        message: String::new(),
    }
}

fn log_change(name: &str, old: Option<&VolumeStatus>, new: &VolumeStatus) {
    let old_phase = old.map_or(VolumePhase::Pending, |old| old.phase);
    if old_phase != new.phase {
        let message = new.message.as_deref();
        tracing::info!(volume = name, from = ?old_phase, to = ?new.phase, message, "phase changed");
    }
}
