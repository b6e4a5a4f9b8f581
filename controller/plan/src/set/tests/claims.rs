//! Tables about claims: missing, leaving, without room, of another pod.

use std::sync::Arc;

use expect_test::expect;
use serde_json::json;

use super::model::World;
use crate::set::{PodPhase, WaitReason};
use crate::volumes::ClaimWait;

#[test]
fn the_missing_claim_of_a_pending_pod_is_made_again() {
    let mut world = World::settled(json!({}));
    world.edit(1, |pod| {
        pod.phase = Some(PodPhase::Pending);
        pod.ready = None;
    });
    world.view.claims.remove("data-web-1");
    world.step();
    assert_eq!(world.log, ["create claim data-web-1"]);
}

#[test]
fn a_claim_that_is_being_deleted_is_waited_for() {
    let mut world = World::new(json!({}));
    world.step();
    world.step();
    world.view.pods.clear();
    Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap()).deleting = true;
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 0 exist, 0 ready, 0 available, 0 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: data-web-0: being deleted; pod web-0 and a new claim are made when it is gone (ClaimDeleting)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
}

#[test]
fn a_claim_without_room_tells_what_the_storage_part_said() {
    let mut world = World::new(json!({}));
    world.step();
    world.step();
    Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap()).bound = false;
    let why = "largest free pool 7.2Gi < 10Gi";
    world
        .view
        .claim_waits
        .insert("data-web-0".into(), ClaimWait::no_room(why));
    let plan = world.step();
    assert_eq!(
        plan.status.waiting.as_deref(),
        Some("data-web-0: largest free pool 7.2Gi < 10Gi")
    );
    let conditions: Vec<String> = (plan.status.conditions.iter())
        .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message))
        .collect();
    expect![[r#"
        Available=False NotAllAvailable: 0 of 3 replicas are available, 1 of the newest revision
        Progressing=False ClaimPending: data-web-0: largest free pool 7.2Gi < 10Gi; the pod starts when the claim has a volume: free some room, add a pool, or ask for less
        Ready=False NotReady: 0 of 3 replicas are available, 1 of the newest revision
        Reconciling=True Working: 0 of 3 replicas are available, 1 of the newest revision
        Stalled=False NotStalled: 0 of 3 replicas are available, 1 of the newest revision
        Waiting=True ClaimPending: data-web-0: largest free pool 7.2Gi < 10Gi; the pod starts when the claim has a volume: free some room, add a pool, or ask for less"#]].assert_eq(&conditions.join("\n"));
}

/// Who can end a wait is a value, and no word of the text decides it.
#[test]
fn a_claim_that_needs_a_person_is_a_warning_whatever_its_text() {
    let reason = |wait: ClaimWait| {
        let mut world = World::new(json!({}));
        world.step();
        world.step();
        Arc::make_mut(world.view.claims.get_mut("data-web-0").unwrap()).bound = false;
        world.view.claim_waits.insert("data-web-0".into(), wait);
        let wait = world.step().waits[0].clone();
        assert!(!wait.message.contains("free some room"), "{}", wait.message);
        wait.reason
    };
    for text in [
        "waiting for its data source, claim old: make it",
        "its StorageClass is gone; make it again",
    ] {
        assert_eq!(reason(text.into()), WaitReason::ClaimPending);
    }
    let text = "the agent on n1 is at work";
    let found = reason(ClaimWait::in_progress(text));
    assert_eq!(found, WaitReason::ClaimProvisioning);
}

#[test]
fn a_pod_that_mounts_another_claim_is_left_to_a_person() {
    let mut world = World::settled(json!({"replicas": 1}));
    world.edit(0, |pod| {
        pod.claims.insert("data".into(), "other".into());
    });
    expect![[r#"
        OrdinalSet ns/web: 1 wanted, 1 exist, 1 ready, 1 available, 1 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-0: volume data is other, not data-web-0; delete the pod, and the set makes it with the right claim (WrongClaim)
    "#]].assert_eq(&world.explain());
}
