use berth_api::{Backend, Bytes, NodePool, NodeStorageStatus, PoolHealth, Source};
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;

fn state() -> ClusterState {
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
            backends: vec![Backend::Btrfs],
            capacity: Bytes(100),
            reserved: Bytes(0),
            reserved_by_volumes: None,
            room: None,
            free: Bytes(100),
            orphans: Vec::new(),
            volumes: 0,
        }],
        ..NodeStorageStatus::default()
    });
    let node = json!({"metadata": {"name": "n1"}, "spec": {}});
    let node = serde_json::from_value(node).expect("a Node");
    let mut state = ClusterState::default();
    state.take(Update::Node(Event::Apply(node)));
    state.take(Update::Report(Event::Apply(report)));
    state
}

#[test]
fn room_that_is_taken_is_news_once() {
    let mut state = state();
    assert!(state.refresh().rooms);
    assert_eq!(state.rooms["p1"].free(), 100);
    assert!(!state.refresh().rooms);

    let volume: Volume = serde_json::from_value(json!({
        "metadata": {"name": "pvc-u"},
        "spec": {
            "pool": "p1", "node": "n1", "size": "10",
            "claim": {"namespace": "ns", "name": "a", "uid": "u"},
        },
    }))
    .expect("a Volume");
    state.assume(volume.clone());
    assert_eq!(state.rooms["p1"].free(), 90, "the next claim sees it");
    let refreshed = state.refresh();
    assert!(refreshed.rooms && refreshed.pools, "and others are told");
    assert_eq!(state.rooms["p1"].free(), 90);

    // The object itself says nothing new.
    state.observe_volume(volume);
    assert!(!state.refresh().rooms);
    assert_eq!(state.rooms["p1"].free(), 90);
}

#[test]
fn only_the_pool_that_changed_is_computed_anew() {
    let mut state = state();
    state.refresh();
    let volume = |used: u64, size: u64| -> Volume {
        serde_json::from_value(json!({
            "metadata": {"name": "pvc-u", "resourceVersion": format!("{}", used + size)},
            "spec": {
                "pool": "p1", "node": "n1", "size": size.to_string(),
                "claim": {"namespace": "ns", "name": "a", "uid": "u"},
            },
            "status": {"phase": "Ready", "size": size.to_string(), "used": used.to_string()},
        }))
        .expect("a Volume")
    };
    state.take(Update::Volume(Event::Apply(volume(0, 10))));
    assert_eq!(state.rooms_dirty, ["p1".to_owned()].into());
    assert!(state.refresh().rooms);
    assert_eq!(state.rooms["p1"].free(), 90);
    state.take(Update::Volume(Event::Apply(volume(5, 10))));
    assert!(state.rooms_dirty.is_empty(), "bytes in use take no room");
    state.take(Update::Volume(Event::Apply(volume(5, 30))));
    assert!(state.refresh().rooms);
    assert_eq!(state.rooms["p1"].free(), 70);
    state.take(Update::Volume(Event::Delete(volume(9, 30))));
    assert!(state.refresh().rooms && state.volumes_by_pool.is_empty());
    assert_eq!(state.rooms["p1"].free(), 100);
    // A pool whose node is gone has none.
    let node = json!({"metadata": {"name": "n1"}, "spec": {}});
    let node = serde_json::from_value(node).expect("a Node");
    state.take(Update::Node(Event::Delete(node)));
    assert!(state.refresh().rooms && state.rooms.is_empty());
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
    let mut state = state();
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
        state.take(Update::Claim(Event::Apply(claim)));
    }
    state.take(Update::Volume(Event::Apply(volume)));
    let waits = state.source_of(&honest).expect_err("not bound yet");
    assert!(waits.text.contains("to be bound"), "{waits:?}");

    // The binding is news for the copies of the claim that is bound.
    state.dirty.clear();
    state.take(Update::Pv(Event::Apply(pv)));
    let item = Item::Volume("pvc-u-shop-copy".to_owned());
    assert!(state.dirty.contains(&item), "{:?}", state.dirty);
    let origin = state.source_of(&honest).expect("a source").expect("one");
    assert_eq!(origin.source, Source::Volume(handle.to_owned()));
    let refused = state.source_of(&loot).expect_err("the thief has nothing");
    assert_eq!(
        refused.text,
        "waiting for its data source, claim thief, to be bound"
    );
}
