//! Rollouts: order, budget, partition, OnDelete, and the ways out of a bad template.

use expect_test::expect;
use serde_json::json;

use super::model::World;
use crate::set::{Action, plan};

#[test]
fn a_rollout_goes_from_the_top_one_at_a_time() {
    let mut world = World::settled(json!({}));
    world.image("two");
    world.settle();
    expect![[r#"
        create revision web-7bf4cc89f7, number 2
        try revision web-7bf4cc89f7 by a dry run
        delete pod web-2
        gone web-2
        create pod web-2 at web-7bf4cc89f7
        delete pod web-1
        gone web-1
        create pod web-1 at web-7bf4cc89f7
        delete pod web-0
        gone web-0
        create pod web-0 at web-7bf4cc89f7"#]]
    .assert_eq(&world.log.join("\n"));
    let status = &world.view.set.status;
    assert_eq!(status.current_revision, status.update_revision);
    assert_eq!((status.updated_replicas, status.current_replicas), (3, 3));
    assert!(status.disrupting.is_empty());
}

/// The status names the victim before the victim goes, so a second planner with
/// the same view cannot spend the budget again: its status write is refused.
#[test]
fn victims_are_claimed_before_they_are_deleted() {
    let mut world = World::settled(json!({}));
    world.image("two");
    world.step();
    world.step();
    let claim = plan(&world.view);
    assert!(claim.status_first && claim.steps.is_empty(), "{claim:?}");
    assert_eq!(claim.status.disrupting[0].pod, "web-2");
    world.step();
    let delete = plan(&world.view);
    assert!(matches!(delete.steps[0].action, Action::DeletePod { .. }));
}

#[test]
fn a_partition_holds_the_lower_ordinals_back() {
    let rolling = |partition: i32| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    let mut world = World::settled(rolling(2));
    let old = world.pod(0).unwrap().revision().to_owned();
    world.image("two");
    world.settle();
    expect![[r#"
        create revision web-7bf4cc89f7, number 2
        try revision web-7bf4cc89f7 by a dry run
        delete pod web-2
        gone web-2
        create pod web-2 at web-7bf4cc89f7"#]]
    .assert_eq(&world.log.join("\n"));
    // A pod below the partition returns at the old revision.
    world.remove(0);
    world.settle();
    assert_eq!(world.pod(0).unwrap().revision(), old);
    world.change(rolling(0));
    world.settle();
    assert_ne!(world.pod(0).unwrap().revision(), old);
    let status = &world.view.set.status;
    assert_eq!(status.current_revision, status.update_revision);
}

#[test]
fn max_unavailable_bounds_a_parallel_rollout() {
    let mut world = World::settled(json!({
        "replicas": 5, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}},
    }));
    assert_eq!(world.view.set.max_unavailable(), 2);
    world.image("two");
    let mut worst = 5;
    for _ in 0..60 {
        world.step();
        let up = world
            .view
            .pods
            .iter()
            .filter(|p| p.available(&world.view))
            .count();
        worst = worst.min(up);
        world.kubelets();
    }
    assert_eq!(worst, 3);
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 5);
}

#[test]
fn an_unavailable_pod_below_the_partition_uses_up_the_budget() {
    let mut world = World::settled(json!({
        "replicas": 3, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}},
    }));
    world.image("two");
    world.break_pod(0);
    world.step();
    world.step();
    let held = plan(&world.view);
    assert!(
        held.steps.is_empty() && held.status.disrupting.is_empty(),
        "{held:?}"
    );
}

#[test]
fn on_delete_waits_for_a_person_and_then_completes() {
    let mut world = World::settled(json!({"updateStrategy": {"type": "OnDelete"}}));
    world.image("two");
    world.settle();
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 3 exist, 3 ready, 3 available, 0 updated
        policy: OrderedReady; OnDelete; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-0: is outdated (OnDelete); delete the pod when it suits you, and it comes back from the newest template (OnDelete)
        wait: web-1: is outdated (OnDelete); delete the pod when it suits you, and it comes back from the newest template (OnDelete)
        wait: web-2: is outdated (OnDelete); delete the pod when it suits you, and it comes back from the newest template (OnDelete)
    "#]].assert_eq(&world.explain());
    for ordinal in 0..3 {
        world.remove(ordinal);
        world.settle();
    }
    let status = &world.view.set.status;
    assert_eq!(status.current_revision, status.update_revision);
}

/// The trap of StatefulSet: a bad template blocks its own correction. Here the
/// pod that never became ready is replaced.
#[test]
fn a_bad_template_can_be_reverted() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut world = World::settled(json!({"podManagementPolicy": policy}));
        let good = world.pod(0).unwrap().revision().to_owned();
        world.image("bad");
        while world
            .pod(2)
            .is_none_or(|p| p.revision() == good || p.terminating())
        {
            world.step();
            if world.pod(2).is_some_and(|p| p.terminating()) {
                world.remove(2);
            }
        }
        world.break_pod(2);
        let before: Vec<String> = (0..2).map(|o| world.pod(o).unwrap().uid.clone()).collect();
        world.image("one");
        world.settle();
        assert!(world.view.pods.iter().all(|p| p.revision() == good));
        let after: Vec<String> = (0..2).map(|o| world.pod(o).unwrap().uid.clone()).collect();
        assert_eq!(before, after, "healthy pods are not touched");
    }
}

#[test]
fn a_set_that_never_became_ready_can_be_corrected() {
    let mut world = World::new(json!({}));
    world.step();
    world.step();
    world.break_pod(0);
    world.image("two");
    world.step();
    world.step();
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 1 exist, 0 ready, 0 available, 0 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        do: delete pod web-0 (uid pod-4, version 5, its own grace)
            because web-0 is not ready and is of the old revision web-76b697b479
        wait: web-0: not ready (container app: CrashLoopBackOff); see kubectl -n ns describe pod web-0 (NotReady)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 3);
}

#[test]
fn no_pod_goes_down_for_a_template_that_would_be_refused() {
    let mut world = World::settled(json!({}));
    let before = world.view.pods.clone();
    world.image("refused");
    world.settle();
    assert_eq!(world.view.pods, before);
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 3 exist, 3 ready, 3 available, 0 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web: template refused (API server: spec.containers[0].image: not allowed); no pod was taken down for it; correct spec.template (TemplateRefused)
        look again after 60001 ms
    "#]].assert_eq(&world.explain());
    world.image("three");
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 3);
    let conditions = &world.view.set.status.conditions;
    let refused = conditions.iter().find(|c| c.type_ == "TemplateRefused");
    assert_eq!(refused.unwrap().status, "False");
}

#[test]
fn a_rollout_waits_for_min_ready_seconds() {
    let mut world = World::settled(json!({"minReadySeconds": 30, "replicas": 2}));
    world.image("two");
    while world.log.iter().all(|l| l != "gone web-1") {
        world.step();
        world.kubelets();
    }
    world.step();
    world.kubelets();
    world.step();
    assert!(plan(&world.view).status.disrupting.is_empty());
    world.pass(31);
    assert_eq!(plan(&world.view).status.disrupting[0].pod, "web-0");
}
