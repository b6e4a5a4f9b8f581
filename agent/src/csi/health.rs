//! Health of volumes and pools in the words of CSI: an empty list means that
//! nothing is known to be wrong. Pure.

use berth_csi::csi::{
    StorageHealthErrorType, VolumeHealth, VolumeHealthErrorType,
    node_get_storage_health_response::StorageBackendHealth, volume_health::VolumeHealthEntry,
};
use berth_provisioner::{self as disk, Health, PoolReport, VolumeReport};

/// Health of a volume.
///
/// What cannot be found or trusted may be on a disk that somebody unplugged, so it
/// is inaccessible; that data is lost for ever is for a person to say.
pub(super) fn volume(report: &VolumeReport) -> VolumeHealth {
    let wrong = match &report.health {
        disk::VolumeHealth::Ready => None,
        disk::VolumeHealth::Lost(why) => Some(("Lost", why)),
        disk::VolumeHealth::Damaged(why) => Some(("Damaged", why)),
    };
    VolumeHealth {
        volume_id: report.id.clone(),
        health_statuses: wrong
            .into_iter()
            .map(|(reason, why)| VolumeHealthEntry {
                status: VolumeHealthErrorType::Inaccessible.into(),
                reason: reason.to_owned(),
                message: why.clone(),
            })
            .collect(),
    }
}

/// Health of the pools: an entry for each kind of thing that is wrong with some. A
/// directory that is not a pool yet is nothing wrong.
pub(super) fn pools(reports: &[PoolReport]) -> Vec<StorageBackendHealth> {
    let mut all: Vec<StorageBackendHealth> = Vec::new();
    for pool in reports {
        use StorageHealthErrorType::{StorageDegraded, StorageUnreachable};
        let (status, reason) = match &pool.health {
            Health::Healthy | Health::Uninitialized | Health::Unsupported(_) => continue,
            Health::LostMount => (StorageUnreachable, "LostMount"),
            Health::ReadOnly => (StorageDegraded, "ReadOnly"),
            Health::Damaged(_) => (StorageUnreachable, "Damaged"),
        };
        let message = format!("{}: {}", pool.dir, pool.message);
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
        ]);
        let said: Vec<_> = said
            .iter()
            .map(|entry| (entry.reason.as_str(), entry.message.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("LostMount", "disk0: a; disk0: b"),
                ("ReadOnly", "disk0: c")
            ]
        );
    }
}
