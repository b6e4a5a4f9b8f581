use berth_api::{BackendKind, Bytes, NodePool, NodeStorageStatus, PoolHealth};
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;

fn world() -> World {
    let mut report = NodeStorage::new("n1", Default::default());
    report.status = Some(NodeStorageStatus {
        pools: vec![NodePool {
            id: Some("p1".to_owned()),
            path: "/pools/a".to_owned(),
            health: PoolHealth::Healthy,
            message: None,
            troubles: Vec::new(),
            filesystem: "btrfs".to_owned(),
            filesystem_uuid: None,
            backends: vec![BackendKind::Btrfs],
            capacity: Bytes(100),
            reserved: Bytes(0),
            free: Bytes(100),
            volumes: 0,
        }],
        ..NodeStorageStatus::default()
    });
    let mut node = PartialObjectMeta::<Node>::default();
    node.metadata.name = Some("n1".to_owned());
    let mut world = World::default();
    world.take(News::Node(Event::Apply(node)));
    world.take(News::Report(Event::Apply(report)));
    world
}

#[test]
fn room_that_is_taken_is_news_once() {
    let mut world = world();
    assert!(world.refresh().rooms);
    assert_eq!(world.rooms["p1"].free(), 100);
    assert!(!world.refresh().rooms);

    let volume: Volume = serde_json::from_value(json!({
        "metadata": {"name": "pvc-u"},
        "spec": {
            "pool": "p1", "node": "n1", "size": "10",
            "claim": {"namespace": "ns", "name": "a", "uid": "u"},
        },
    }))
    .expect("a Volume");
    world.assume(volume.clone());
    assert_eq!(world.rooms["p1"].free(), 90, "the next claim sees it");
    let refreshed = world.refresh();
    assert!(refreshed.rooms && refreshed.pools, "and others are told");
    assert_eq!(world.rooms["p1"].free(), 90);

    // The object itself says nothing new.
    world.put_volume(volume);
    assert!(!world.refresh().rooms);
    assert_eq!(world.rooms["p1"].free(), 90);
}
