//! Health of volumes and pools in the words of CSI: an empty list means that
//! nothing is known to be wrong. Pure.

use std::collections::BTreeMap;

use berth_csi::csi::{
    StorageHealthErrorType, VolumeHealth, VolumeHealthErrorType,
    node_get_storage_health_response::StorageBackendHealth, volume_health::VolumeHealthEntry,
};
use berth_provisioner::{self as disk, Health, PoolReport, ProblemKind, VolumeReport};

/// Health of a volume.
///
/// What cannot be found or trusted may be on a disk that somebody unplugged, so it
/// is inaccessible; that data is lost permanently is for a person to say.
pub(super) fn volume(report: &VolumeReport) -> VolumeHealth {
    let wrong = match &report.health {
        disk::VolumeHealth::Ready => None,
        disk::VolumeHealth::Lost(why) => Some(("Lost", why)),
        disk::VolumeHealth::Damaged(why) => Some(("Damaged", why)),
    };
    let inaccessible = wrong.into_iter().map(|(reason, why)| VolumeHealthEntry {
        status: VolumeHealthErrorType::Inaccessible.into(),
        reason: reason.to_owned(),
        message: why.clone(),
    });
    // Each reason comes once, as the specification demands.
    let troubles: BTreeMap<_, _> = report.troubles.iter().map(|it| (it.kind, it)).collect();
    let degraded = troubles.into_values().map(|trouble| VolumeHealthEntry {
        status: VolumeHealthErrorType::Degraded.into(),
        reason: trouble.kind.as_str().to_owned(),
        message: trouble.message.clone(),
    });
    VolumeHealth {
        volume_id: report.id.clone(),
        health_statuses: inaccessible.chain(degraded).collect(),
    }
}

/// Health of the pools: an entry for each kind of thing that is wrong with some. A
/// directory that is not a pool yet is nothing wrong.
pub(super) fn pools(reports: &[PoolReport]) -> Vec<StorageBackendHealth> {
    let mut all: Vec<StorageBackendHealth> = Vec::new();
    for pool in reports {
        use StorageHealthErrorType::{StorageDegraded, StorageUnreachable};
        let status = match &pool.health {
            Health::Healthy | Health::Uninitialized | Health::Unsupported(_) => None,
            Health::ReadOnly => Some(StorageDegraded),
            Health::LostMount | Health::Damaged(_) | Health::Unresponsive => {
                Some(StorageUnreachable)
            }
        };
        let state = status.map(|status| (status, pool.health.as_str(), &pool.message));
        // Room that is used up is no matter of health.
        let troubles = pool
            .troubles
            .iter()
            .filter(|it| it.kind != ProblemKind::Full);
        let troubles = troubles.map(|it| (StorageDegraded, it.kind.as_str(), &it.message));
        for (status, reason, message) in state.into_iter().chain(troubles) {
            let message = format!("{}: {message}", pool.dir);
            // Each reason comes once, whatever the number of pools.
            match all.iter_mut().find(|entry| entry.reason == reason) {
                Some(entry) => entry.message = format!("{}; {message}", entry.message),
                None => all.push(StorageBackendHealth {
                    status: status.into(),
                    reason: reason.to_owned(),
                    message,
                    volume_capability: None,
                }),
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_is_said() {
        let mut report = crate::testdata::volume();
        assert_eq!(volume(&report).health_statuses, []);
        report.health = disk::VolumeHealth::Lost("no data".to_owned());
        let said = volume(&report);
        assert_eq!(said.volume_id, "pvc-1");
        assert_eq!(said.health_statuses[0].reason, "Lost");
        assert_eq!(said.health_statuses[0].message, "no data");
        report.health = disk::VolumeHealth::Ready;
        report.troubles = [
            ProblemKind::IoErrors,
            ProblemKind::ReadOnly,
            ProblemKind::IoErrors,
        ]
        .map(|kind| disk::Problem {
            kind,
            message: "see the log".to_owned(),
        })
        .into();
        let said: Vec<_> = volume(&report)
            .health_statuses
            .into_iter()
            .map(|it| (it.status(), it.reason))
            .collect();
        let degraded = |reason: &str| (VolumeHealthErrorType::Degraded, reason.to_owned());
        assert_eq!(said, [degraded("ReadOnly"), degraded("IoErrors")]);
    }

    #[test]
    fn each_reason_comes_once() {
        let pool = |health, message: &str| PoolReport {
            message: message.to_owned(),
            ..crate::testdata::pool(health)
        };
        let said = pools(&[
            pool(Health::Healthy, ""),
            pool(Health::LostMount, "a"),
            pool(Health::Uninitialized, ""),
            pool(Health::LostMount, "b"),
            pool(Health::ReadOnly, "c"),
            PoolReport {
                troubles: [ProblemKind::IoErrors, ProblemKind::Full]
                    .map(|kind| disk::Problem {
                        kind,
                        message: "d".to_owned(),
                    })
                    .into(),
                ..pool(Health::Healthy, "")
            },
        ]);
        let said: Vec<_> = said
            .iter()
            .map(|entry| (entry.reason.as_str(), entry.message.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("LostMount", "disk0: a; disk0: b"),
                ("ReadOnly", "disk0: c"),
                ("IoErrors", "disk0: d")
            ]
        );
    }
}
