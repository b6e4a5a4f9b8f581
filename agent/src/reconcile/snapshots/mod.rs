//! Snapshots in the frame of [`super::reconciler`]: carries out the steps for the
//! Snapshots of this node. Everything that is decided is decided in [`decide`] and
//! [`report`].

use berth_api::{Snapshot, SnapshotPhase, SnapshotStatus};
use berth_kube::Urgency;
use berth_provisioner::{PoolId, ProblemKind, Provisioner, SnapshotReport, SnapshotSpec};
use futures::stream;
use jiff::Timestamp;
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Seen, Step, decide},
    report::Outcome,
};
use super::{
    events::Events,
    reconciler::{self, Acted, Kind, Look, Next},
};
use crate::{
    disks::{Disks, Failure},
    lanes::Lane,
    metrics::Operation,
};

pub mod decide;
pub mod report;

/// Reconciles until the token is cancelled; a step that runs is finished.
pub async fn run(client: Client, disks: Disks, token: CancellationToken) {
    // Nothing but the object changes a snapshot.
    let objects = kube::runtime::reflector::store();
    reconciler::run::<Snapshots>(client, disks, stream::pending(), objects, token).await;
}

struct Snapshots;

impl Kind for Snapshots {
    type Object = Snapshot;
    type Status = SnapshotStatus;
    type Found = SnapshotReport;
    type Outcome = Outcome;

    const NAME: &'static str = "Snapshot";

    fn pool(snapshot: &Snapshot) -> &str {
        &snapshot.spec.pool
    }

    fn find(disk: &Provisioner, name: &str) -> Option<SnapshotReport> {
        disk.find_snapshot(name)
    }

    fn is_well(_: &SnapshotReport) -> bool {
        true
    }

    async fn act(
        disks: &Disks,
        name: &str,
        snapshot: &Snapshot,
        seen: Look<SnapshotReport>,
    ) -> Result<Acted<Outcome>, Failure> {
        let spec = &snapshot.spec;
        let there = Seen {
            pool: seen.pool.as_ref(),
            snapshot: seen.found.as_ref(),
        };
        let step = decide(spec, snapshot.status.as_ref(), &there);
        let id = name.to_owned();
        Ok(Acted::Outcome(match step {
            Step::Nothing => return Ok(Acted::Nothing),
            Step::Take => {
                let pool = PoolId::new(spec.pool.as_str())?;
                let volume = spec.volume.clone();
                let work = move |disk: &Provisioner| disk.snapshot(&SnapshotSpec { id, volume });
                let operation = Operation::Snapshot;
                let taken = disks.operate_in(Some(&pool), Lane::Copy, operation, name, work);
                match taken.await {
                    Ok(report) => Outcome::There(Box::new(report)),
                    Err(Failure::Disk(error)) => Outcome::NotThere {
                        phase: SnapshotPhase::Failed,
                        message: error.to_string(),
                    },
                    Err(failure) => return Err(failure),
                }
            }
            Step::Erase => {
                let work = move |disk: &Provisioner| disk.delete_snapshot(&id);
                match disks.operate(Operation::EraseSnapshot, name, work).await {
                    Ok(()) => erased(),
                    Err(Failure::Disk(error)) => Outcome::NotThere {
                        phase: snapshot
                            .status
                            .as_ref()
                            .map(|s| s.phase)
                            .unwrap_or_default(),
                        message: format!("not erased: {error}"),
                    },
                    Err(failure) => return Err(failure),
                }
            }
            Step::Erased => erased(),
            Step::Report => match seen.found {
                Some(report) => Outcome::There(Box::new(report)),
                None => return Ok(Acted::Changed),
            },
            Step::Wait { phase, message } => Outcome::NotThere { phase, message },
        }))
    }

    fn next(outcome: &Outcome) -> Next {
        match outcome {
            Outcome::There(_) => Next::Well,
            Outcome::NotThere {
                phase: SnapshotPhase::Deleted,
                ..
            } => Next::Change,
            Outcome::NotThere { .. } => Next::BackOff,
        }
    }

    fn troubles(_: &Outcome) -> Vec<(PoolId, ProblemKind)> {
        Vec::new()
    }

    fn show_troubles(_: &Disks, _: &mut dyn Iterator<Item = (PoolId, ProblemKind)>) {}

    fn old(snapshot: &Snapshot) -> Option<&SnapshotStatus> {
        snapshot.status.as_ref()
    }

    fn status(snapshot: &Snapshot, outcome: &Outcome, now: Timestamp) -> SnapshotStatus {
        report::status(snapshot, outcome, now)
    }

    fn urgency(old: Option<&SnapshotStatus>, new: &SnapshotStatus) -> Option<Urgency> {
        (old != Some(new)).then_some(Urgency::Now)
    }

    fn with(snapshot: &Snapshot, status: SnapshotStatus) -> Snapshot {
        Snapshot {
            status: Some(status),
            ..snapshot.clone()
        }
    }

    fn told(_: &Disks, events: &Events, snapshot: &Snapshot, new: &SnapshotStatus) {
        let (name, message) = (snapshot.name_any(), new.message.as_deref());
        tracing::info!(snapshot = name, phase = ?new.phase, message, "status written");
        if let Some(event) = report::event(snapshot.status.as_ref(), new) {
            events.publish(snapshot, &event);
        }
    }
}

fn erased() -> Outcome {
    Outcome::NotThere {
        phase: SnapshotPhase::Deleted,
        message: String::new(),
    }
}
