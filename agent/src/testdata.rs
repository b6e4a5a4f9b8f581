//! Fixed reports for the tests of decisions and of printing.

use berth_api::{
    Bytes, ClaimRef, ContentRef, SetRef, SnapshotSpec, VolumeMode, VolumeSpec, VolumeState,
};
use berth_provisioner as disk;
use disk::{Backend, Health, PoolId, PoolReport, SnapshotReport, VolumeHealth, VolumeReport};

pub(crate) fn pool(health: Health) -> PoolReport {
    PoolReport {
        id: Some(PoolId::new("disk0-0123456789ab").expect("valid")),
        dir: "disk0".to_owned(),
        path: "/var/lib/berth/pools/disk0".into(),
        taken_at: "2026-01-02T03:04:05Z".to_owned(),
        health,
        message: String::new(),
        troubles: Vec::new(),
        io_errors: 0,
        filesystem: "btrfs".to_owned(),
        fs_uuid: Some("5e0d1c1a-0000-4000-8000-000000000001".to_owned()),
        backends: vec![Backend::Btrfs],
        why_not: vec![(
            Backend::ProjectQuota,
            "btrfs has no project quotas".to_owned(),
        )],
        capacity: 100 << 30,
        reserved: 1 << 30,
        reserved_by_volumes: 1 << 30,
        room: 99 << 30,
        free: 90 << 30,
        volumes: 1,
        snapshots: 0,
        trash: 0,
    }
}

pub(crate) fn volume() -> VolumeReport {
    VolumeReport {
        id: "pvc-1".to_owned(),
        pool: PoolId::new("disk0-0123456789ab").expect("valid"),
        claim: Some(ClaimRef {
            namespace: "shop".to_owned(),
            name: "data-web-0".to_owned(),
            uid: "1".to_owned(),
        }),
        set: Some(SetRef {
            kind: "OrdinalSet".to_owned(),
            name: "web".to_owned(),
            ordinal: 0,
        }),
        size: 1 << 30,
        enforced: 1 << 30,
        backend: Backend::Btrfs,
        mode: VolumeMode::Filesystem,
        created: "2026-01-02T03:04:05Z".to_owned(),
        path: "/var/lib/berth/pools/disk0/volumes/pvc-1/data".into(),
        source: None,
        health: VolumeHealth::Ready,
        troubles: Vec::new(),
        used: Some(64 << 20),
        published: Vec::new(),
        staged: Vec::new(),
    }
}

pub(crate) fn spec() -> VolumeSpec {
    VolumeSpec {
        pool: "disk0-0123456789ab".to_owned(),
        node: "n1".to_owned(),
        size: Bytes(1 << 30),
        mode: VolumeMode::Filesystem,
        claim: ClaimRef {
            namespace: "shop".to_owned(),
            name: "data-web-0".to_owned(),
            uid: "1".to_owned(),
        },
        owner: Some(SetRef {
            kind: "OrdinalSet".to_owned(),
            name: "web".to_owned(),
            ordinal: 0,
        }),
        source: None,
        backend: None,
        sparse: false,
        adopt: false,
        exposed: false,
        bound: None,
        state: VolumeState::Present,
    }
}

pub(crate) fn snapshot() -> SnapshotReport {
    SnapshotReport {
        id: "snap-1".to_owned(),
        volume: "pvc-1".to_owned(),
        pool: PoolId::new("disk0-0123456789ab").expect("valid"),
        size: 1 << 30,
        reserved: 64 << 20,
        backend: Backend::Btrfs,
        mode: VolumeMode::Filesystem,
        created: "2026-01-02T03:04:05Z".to_owned(),
        path: "/var/lib/berth/pools/disk0/snapshots/snap-1/data".into(),
        health: VolumeHealth::Ready,
    }
}

pub(crate) fn snapshot_spec() -> SnapshotSpec {
    SnapshotSpec {
        volume: "pvc-1".to_owned(),
        pool: "disk0-0123456789ab".to_owned(),
        node: "n1".to_owned(),
        content: ContentRef::default(),
        adopt: false,
        exposed: false,
        state: VolumeState::Present,
    }
}
