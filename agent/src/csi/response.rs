//! What volumes and snapshots look like in responses. Pure.

use std::collections::HashMap;

use berth_csi::csi::{
    Snapshot, Volume, VolumeContentSource,
    volume_content_source::{self, SnapshotSource, VolumeSource},
};
use berth_provisioner::{SnapshotReport, Source, VolumeHealth, VolumeReport};

use super::{capacity::bytes, placement::topology};

/// A volume on `node`. Its capacity is what was asked for: what the backend rounded
/// it up to is nothing that a caller may count on.
pub(super) fn volume(report: &VolumeReport, node: &str) -> Volume {
    Volume {
        capacity_bytes: bytes(report.size),
        volume_id: report.id.clone(),
        volume_context: HashMap::new(),
        content_source: report.source.as_ref().map(source),
        accessible_topology: vec![topology(node)],
    }
}

fn source(source: &Source) -> VolumeContentSource {
    use volume_content_source::Type;
    let r#type = match source {
        Source::Snapshot(id) => Type::Snapshot(SnapshotSource {
            snapshot_id: id.clone(),
        }),
        Source::Volume(id) => Type::Volume(VolumeSource {
            volume_id: id.clone(),
        }),
    };
    VolumeContentSource {
        r#type: Some(r#type),
    }
}

/// A snapshot. Where it can be used is not said: that is for drivers that declare
/// SNAPSHOT_ACCESSIBILITY_CONSTRAINTS. A volume is made of it here or not at all.
pub(super) fn snapshot(report: &SnapshotReport) -> Snapshot {
    Snapshot {
        size_bytes: bytes(report.size),
        snapshot_id: report.id.clone(),
        source_volume_id: report.volume.clone(),
        creation_time: Some(time(&report.created)),
        ready_to_use: report.health == VolumeHealth::Ready,
        group_snapshot_id: String::new(),
        accessible_topology: Vec::new(),
    }
}

/// A record's time. One that cannot be read is the epoch: callers want a time, and
/// a damaged record is told by its health.
fn time(created: &str) -> prost_types::Timestamp {
    let at: jiff::Timestamp = created.parse().unwrap_or_default();
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

#[cfg(test)]
mod tests {
    use berth_provisioner::{Backend, PoolId, VolumeMode};

    use super::*;

    #[test]
    fn a_volume_is_as_large_as_was_asked_for() {
        let mut report = crate::testdata::volume();
        report.enforced = report.size + 4096;
        report.source = Some(Source::Snapshot("s".to_owned()));
        let shown = volume(&report, "n1");
        assert_eq!(shown.capacity_bytes, 1 << 30);
        assert_eq!(shown.accessible_topology, [topology("n1")]);
        assert!(matches!(
            shown.content_source.and_then(|source| source.r#type),
            Some(volume_content_source::Type::Snapshot(s)) if s.snapshot_id == "s"
        ));
    }

    #[test]
    fn a_snapshot_has_a_time() {
        let mut report = SnapshotReport {
            id: "s".to_owned(),
            volume: "v".to_owned(),
            pool: PoolId::new("p-1").expect("valid"),
            size: 5,
            reserved: 7,
            backend: Backend::Btrfs,
            mode: VolumeMode::Filesystem,
            created: "2026-01-02T03:04:05Z".to_owned(),
            path: "/p".into(),
            health: VolumeHealth::Ready,
        };
        let shown = snapshot(&report);
        assert_eq!((shown.size_bytes, shown.ready_to_use), (5, true));
        assert_eq!(
            shown.creation_time.map(|time| time.seconds),
            Some(1_767_323_045)
        );
        report.health = VolumeHealth::Damaged("x".to_owned());
        report.created = "?".to_owned();
        let shown = snapshot(&report);
        assert!(!shown.ready_to_use);
        assert_eq!(shown.creation_time, Some(prost_types::Timestamp::default()));
    }
}
