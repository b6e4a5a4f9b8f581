//! The whole owner-reference table of persistentVolumeClaimRetentionPolicy.

use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::model::World;
use crate::set::{Action, plan};

/// Owners of the claims of 2 replicas, then while it scales down to 1, then
/// after the garbage collector has done its work.
fn check(when_scaled: &str, when_deleted: &str, expected: Expect) {
    let policy = json!({"whenScaled": when_scaled, "whenDeleted": when_deleted});
    let mut world = World::settled(json!({
        "replicas": 2, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    let mut text = claims(&world);
    world.change(json!({"replicas": 1}));
    while !world.pod(1).unwrap().terminating() {
        world.step();
    }
    text.push_str(&format!("scaling: {}", claims(&world)));
    world.settle();
    text.push_str(&format!("scaled: {}", claims(&world)));
    expected.assert_eq(&text);
}

fn claims(world: &World) -> String {
    let one = |c: &Arc<crate::set::Claim>| {
        let owners: Vec<&str> = c.owners.iter().map(|o| o.kind.as_str()).collect();
        format!("{}[{}]", c.name, owners.join(" "))
    };
    let all: Vec<String> = world.view.claims.values().map(one).collect();
    format!("{}\n", all.join(" "))
}

#[test]
fn retain_retain() {
    check(
        "Retain",
        "Retain",
        expect![[r#"
        data-web-0[] data-web-1[]
        scaling: data-web-0[] data-web-1[]
        scaled: data-web-0[] data-web-1[]
    "#]],
    );
}

#[test]
fn retain_delete() {
    check(
        "Retain",
        "Delete",
        expect![[r#"
        data-web-0[OrdinalSet] data-web-1[OrdinalSet]
        scaling: data-web-0[OrdinalSet] data-web-1[OrdinalSet]
        scaled: data-web-0[OrdinalSet] data-web-1[OrdinalSet]
    "#]],
    );
}

#[test]
fn delete_retain() {
    check(
        "Delete",
        "Retain",
        expect![[r#"
        data-web-0[] data-web-1[]
        scaling: data-web-0[] data-web-1[Pod]
        scaled: data-web-0[]
    "#]],
    );
}

#[test]
fn delete_delete() {
    check(
        "Delete",
        "Delete",
        expect![[r#"
        data-web-0[OrdinalSet] data-web-1[OrdinalSet]
        scaling: data-web-0[OrdinalSet] data-web-1[Pod]
        scaled: data-web-0[OrdinalSet]
    "#]],
    );
}

fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> OwnerReference {
    let api_version = if kind == "OrdinalSet" {
        "berth.dev/v1alpha1"
    } else {
        "v1"
    };
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        controller: Some(controller),
        block_owner_deletion: None,
    }
}

/// What the planner makes of the owners that claim data-web-0 has, under the
/// policy Delete/Delete. `None` leaves them.
fn mended(owners: Vec<OwnerReference>) -> Option<Vec<String>> {
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    let mut world = World::settled(json!({
        "replicas": 1, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap()).owners = owners;
    plan(&world.view)
        .steps
        .into_iter()
        .find_map(|s| match s.action {
            Action::UpdateClaimOwners { claims } => {
                let owners = claims[0].owners.iter();
                Some(
                    owners
                        .map(|o| format!("{}/{} {:?}", o.kind, o.uid, o.controller))
                        .collect(),
                )
            }
            _ => None,
        })
}

#[test]
fn stale_references_are_left_alone() {
    assert_eq!(mended(vec![owner("OrdinalSet", "web", "old", true)]), None);
    assert_eq!(mended(vec![owner("Pod", "web-0", "old", true)]), None);
}

#[test]
fn a_foreign_controller_stays_and_only_our_traces_go() {
    let other = || owner("Other", "x", "other", true);
    assert_eq!(mended(vec![other()]), None);
    assert_eq!(
        mended(vec![other(), owner("OrdinalSet", "web", "set", true)]),
        Some(vec!["Other/other Some(true)".to_owned()])
    );
}

#[test]
fn a_foreign_owner_without_control_stays_beside_ours() {
    assert_eq!(
        mended(vec![owner("Other", "x", "other", false)]),
        Some(vec![
            "Other/other Some(false)".to_owned(),
            "OrdinalSet/set Some(true)".to_owned()
        ])
    );
}

#[test]
fn a_reference_of_ours_without_control_is_mended() {
    assert_eq!(
        mended(vec![owner("OrdinalSet", "web", "set", false)]),
        Some(vec!["OrdinalSet/set Some(true)".to_owned()])
    );
}

#[test]
fn a_foreign_controller_is_told() {
    let policy = json!({"whenScaled": "Delete", "whenDeleted": "Retain"});
    let mut world = World::settled(json!({
        "replicas": 1, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    let claim = Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap());
    claim.owners = vec![owner("Other", "x", "other", true)];
    assert_eq!(plan(&world.view).notices[0].reason, "ConflictingController");
}

/// A claim that the garbage collector is about to delete is not mounted again.
#[test]
fn a_claim_of_an_earlier_pod_holds_its_ordinal_back() {
    let policy = json!({"whenScaled": "Delete"});
    let mut world = World::settled(json!({
        "replicas": 1, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    let claim = Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap());
    claim.owners = vec![owner("Pod", "web-0", "old", true)];
    world.view.pods.clear();
    let plan = plan(&world.view);
    assert!(plan.steps.is_empty());
    assert_eq!(plan.waits[0].short, "data-web-0: being deleted");
}

/// Scaled up again while the old pod still terminates: the data is kept.
#[test]
fn scaling_up_in_time_saves_the_claim() {
    let policy = json!({"whenScaled": "Delete"});
    let mut world = World::settled(json!({
        "replicas": 2, "persistentVolumeClaimRetentionPolicy": policy,
    }));
    let uid = world.view.claims["data-web-1"].uid.clone();
    world.change(json!({"replicas": 1}));
    while !world.pod(1).unwrap().terminating() {
        world.step();
    }
    world.change(json!({"replicas": 2}));
    world.settle();
    assert_eq!(world.view.claims["data-web-1"].uid, uid);
}
