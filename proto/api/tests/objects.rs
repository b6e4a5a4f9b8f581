//! Objects have the form that clusters hold: what is written here must stay readable,
//! and must be written in the same way.

use berth_api::{Backend, NodePool, ProblemKind, Snapshot, Source, Volume};
use serde_json::{Value, from_value, json, to_value};

fn volume(source: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Volume",
        "metadata": {"name": "pvc-1"},
        "spec": {
            "pool": "disk0-0123456789ab",
            "node": "n1",
            "size": "10Gi",
            "mode": "Block",
            "claim": {"namespace": "shop", "name": "data-web-0", "uid": "1"},
            "owner": {"kind": "OrdinalSet", "name": "web", "ordinal": 0},
            "source": source,
            "backend": "project-quota",
            "sparse": true,
            "adopt": false,
            "exposed": true,
            "state": "Present",
        },
    })
}

#[test]
fn a_volume_keeps_its_form() {
    for (written, source) in [
        (
            json!({"snapshot": "snap-1"}),
            Source::Snapshot("snap-1".to_owned()),
        ),
        (
            json!({"volume": "pvc-2"}),
            Source::Volume("pvc-2".to_owned()),
        ),
    ] {
        let written = volume(&written);
        let object: Volume = from_value(written.clone()).unwrap();
        assert_eq!(object.spec.source, Some(source));
        assert_eq!(object.spec.backend, Some(Backend::ProjectQuota));
        assert_eq!(to_value(&object).unwrap(), written);
    }
}

#[test]
fn a_snapshot_keeps_its_form() {
    let written = json!({
        "apiVersion": "berth.dev/v1alpha1",
        "kind": "Snapshot",
        "metadata": {"name": "snap-1"},
        "spec": {
            "volume": "pvc-1",
            "pool": "disk0-0123456789ab",
            "node": "n1",
            "content": {"name": "c", "uid": "1", "namespace": "shop", "snapshot": "s"},
            "adopt": true,
            "exposed": true,
            "state": "Deleted",
        },
        "status": {"phase": "Ready", "size": "1Gi", "reserved": "64Mi", "mode": "Filesystem"},
    });
    let object: Snapshot = from_value(written.clone()).unwrap();
    assert_eq!(to_value(&object).unwrap(), written);
}

#[test]
fn a_nodes_pool_keeps_its_form() {
    let written = json!({
        "id": "disk0-0123456789ab",
        "path": "/var/lib/berth/pools/disk0",
        "health": "Healthy",
        "troubles": [{"kind": "IoErrors", "message": "look at the disk"}],
        "filesystem": "btrfs",
        "backends": ["btrfs", "image"],
        "capacity": "100Gi",
        "reserved": "1Gi",
        "free": "90Gi",
        "volumes": 1,
    });
    let pool: NodePool = from_value(written.clone()).unwrap();
    assert_eq!(pool.troubles[0].kind, ProblemKind::IoErrors);
    assert_eq!(to_value(&pool).unwrap(), written);
}
