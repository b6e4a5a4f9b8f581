//! Pods that are not ready while a template changes: which are replaced out of turn, and
//! how many at once.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::model::World;
use crate::set::{Action, Kind, Pod, plan};

fn parallel(kind: Kind, fields: Value) -> World {
    let mut spec = json!({"replicas": 6, "podManagementPolicy": "Parallel"});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let mut world = World::new(spec);
    world.view.set.kind = kind;
    world.settle();
    world
}

fn falter(world: &mut World, ordinal: i32, edit: impl FnOnce(&mut Pod)) {
    let now = world.view.now;
    world.edit(ordinal, |p| {
        p.ready = None;
        p.unready = Some(now);
        edit(p);
    });
}

fn deleted(world: &World) -> Vec<String> {
    let steps = plan(&world.view).steps;
    let names = steps.iter().filter_map(|s| match &s.action {
        Action::DeletePod { name, .. } => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// A node loses its link for a minute while a rollout runs: its pods run and serve.
#[test]
fn pods_of_a_silent_node_are_left_alone() {
    for kind in [Kind::OrdinalSet, Kind::StatefulSet] {
        let mut world = parallel(kind, json!({}));
        world.image("two");
        while !world.pod(5).unwrap().terminating() {
            world.step();
        }
        for ordinal in [1, 4] {
            falter(&mut world, ordinal, |p| p.node_silent = true);
        }
        for _ in 0..10 {
            assert!(deleted(&world).is_empty(), "{:?}", deleted(&world));
            world.step();
            world.pass(30);
        }
        let waits = plan(&world.view).waits;
        assert!(waits.iter().any(|w| w.short.contains("does not answer")));
    }
}

/// A moment of unreadiness of a revision that works costs no pod, and a long one no more
/// than the budget, from the top.
#[test]
fn unready_pods_of_a_good_revision_are_replaced_late_and_within_the_budget() {
    let mut world = parallel(Kind::OrdinalSet, json!({}));
    world.image("two");
    while !world.pod(5).unwrap().terminating() {
        world.step();
    }
    for ordinal in [1, 4] {
        falter(&mut world, ordinal, |_| {});
    }
    assert!(deleted(&world).is_empty());
    world.pass(120);
    assert!(deleted(&world).is_empty(), "web-5 uses up the budget");
    world.remove(5);
    world.step();
    world.run(5);
    assert_eq!(deleted(&world), ["web-4"]);
    world.step();
    assert!(deleted(&world).is_empty());
}

/// A set whose first template never worked is corrected by editing it, one budget at a
/// time and from the top.
#[test]
fn a_revision_that_never_worked_is_replaced_at_once() {
    let mut world = World::new(json!({"replicas": 3, "podManagementPolicy": "Parallel"}));
    world.step();
    world.step();
    (0..3).for_each(|o| world.break_pod(o));
    world.image("two");
    world.step();
    world.step();
    assert_eq!(deleted(&world), ["web-2"]);
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 3);
}

/// A native Parallel set does as upstream: a sick pod below the partition stops no canary.
#[test]
fn a_native_canary_does_not_look_below_its_partition() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 4}});
    let mut world = parallel(Kind::StatefulSet, json!({"updateStrategy": strategy}));
    falter(&mut world, 0, |_| {});
    world.image("two");
    for _ in 0..6 {
        world.step();
    }
    assert!(world.pod(5).unwrap().terminating());
    assert!(!world.pod(4).unwrap().terminating());
}

/// The policy protects every claim from the moment on that it says so.
#[test]
fn retain_frees_the_claims_of_ordinals_without_a_pod() {
    for kind in [Kind::OrdinalSet, Kind::StatefulSet] {
        let policy = |deleted| json!({"whenDeleted": deleted, "whenScaled": "Retain"});
        let mut world = parallel(
            kind,
            json!({"replicas": 3, "persistentVolumeClaimRetentionPolicy": policy("Delete")}),
        );
        world.change(json!({"replicas": 1}));
        world.settle();
        let owners = |w: &World| -> Vec<usize> {
            let claims = w.view.claims.values().map(Arc::clone);
            claims.map(|c| c.owners.len()).collect()
        };
        assert_eq!(owners(&world), [1, 1, 1]);
        world.change(json!({"persistentVolumeClaimRetentionPolicy": policy("Retain")}));
        world.settle();
        assert_eq!(owners(&world), [0, 0, 0]);
        world.view.now += SignedDuration::from_secs(1);
        assert!(plan(&world.view).steps.is_empty());
    }
}

/// The collector takes a claim that an earlier pod owned whatever the policy says by now.
#[test]
fn a_doomed_claim_is_not_mounted_under_any_policy() {
    let policy = json!({"whenScaled": "Delete"});
    let mut world = World::settled(json!({
        "replicas": 2, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    world.change(json!({"replicas": 1}));
    while world.pod(1).is_some_and(|p| !p.terminating()) {
        world.step();
    }
    let claim = world.view.claims["data-web-1"].clone();
    world.remove(1);
    // The collector is slow.
    world.view.claims.insert("data-web-1".into(), claim);
    world.change(json!({
        "replicas": 2, "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Retain"},
    }));
    world.step();
    assert!(world.pod(1).is_none());
    assert_eq!(
        plan(&world.view).waits[0].short,
        "data-web-1: being deleted"
    );
}
