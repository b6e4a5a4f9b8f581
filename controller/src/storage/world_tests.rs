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

fn claim(namespace: &str, name: &str, more: serde_json::Value) -> PersistentVolumeClaim {
    let mut object = json!({
        "metadata": {"namespace": namespace, "name": name, "uid": format!("u-{namespace}-{name}")},
        "spec": {"resources": {"requests": {"storage": "10"}}},
    });
    for (part, fields) in more.as_object().expect("an object") {
        for (field, value) in fields.as_object().expect("an object") {
            object[part][field] = value.clone();
        }
    }
    serde_json::from_value(object).expect("a claim")
}

/// The victim's claim is bound; the thief names its PersistentVolume.
#[test]
fn a_claim_that_names_a_foreign_volume_is_no_source() {
    let mut world = world();
    let handle = "pvc-u-shop-data";
    let pv: PersistentVolume = serde_json::from_value(json!({
        "metadata": {"name": handle},
        "spec": {
            "csi": {"driver": berth_api::DRIVER, "volumeHandle": handle},
            "claimRef": {"namespace": "shop", "name": "data", "uid": "u-shop-data"},
        },
        "status": {"phase": "Bound"},
    }))
    .expect("a PersistentVolume");
    let volume: Volume = serde_json::from_value(json!({
        "metadata": {"name": handle},
        "spec": {
            "pool": "p1", "node": "n1", "size": "10",
            "claim": {"namespace": "shop", "name": "data", "uid": "u-shop-data"},
        },
    }))
    .expect("a Volume");
    let open = json!({names::STORAGE_PROVISIONER: berth_api::DRIVER});
    let copy = |namespace: &str, of: &str| {
        let source = json!({"kind": "PersistentVolumeClaim", "name": of});
        let more = json!({"metadata": {"annotations": open}, "spec": {"dataSource": source}});
        claim(namespace, "copy", more)
    };
    let (loot, honest) = (copy("evil", "thief"), copy("shop", "data"));
    let bound = json!({"spec": {"volumeName": handle}, "status": {"phase": "Bound"}});
    let thief = json!({"spec": {"volumeName": handle}, "status": {"phase": "Pending"}});
    let claims = [
        claim("shop", "data", bound),
        claim("evil", "thief", thief),
        loot.clone(),
        honest.clone(),
    ];
    for claim in claims {
        world.take(News::Claim(Event::Apply(claim)));
    }
    world.take(News::Volume(Event::Apply(volume)));
    let waits = world.source_of(&honest).expect_err("not bound yet");
    assert!(waits.text.contains("to be bound"), "{waits:?}");

    // The binding is news for the copies of the claim that is bound.
    world.dirty.clear();
    world.take(News::Pv(Event::Apply(pv)));
    let item = Item::Volume("pvc-u-shop-copy".to_owned());
    assert!(world.dirty.contains(&item), "{:?}", world.dirty);
    let origin = world.source_of(&honest).expect("a source").expect("one");
    assert_eq!(origin.source.volume.as_deref(), Some(handle));
    let refused = world.source_of(&loot).expect_err("the thief has nothing");
    assert_eq!(
        refused.text,
        "waiting for its data source, claim thief, to be bound"
    );
}
