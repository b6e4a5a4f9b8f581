//! What conditions say in the states that a set can be in for long.

use std::sync::Arc;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::model::World;
use crate::set::{Kind, plan};

fn told(world: &World) -> String {
    let conditions = plan(&world.view).status.conditions;
    let told = conditions
        .iter()
        .filter(|c| !["Waiting", "TemplateRefused"].contains(&c.type_.as_str()))
        .map(|c| format!("{}={} {}", c.type_, c.status, c.reason));
    told.collect::<Vec<_>>().join("\n")
}

fn check(world: &World, expected: Expect) {
    expected.assert_eq(&told(world));
}

fn partition(partition: i32) -> Value {
    json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}})
}

/// All replicas serve, and what is left waits for a person's own decision.
#[test]
fn a_held_rollout_is_available_and_ready() {
    let mut world = World::settled(json!({"updateStrategy": {"type": "OnDelete"}}));
    world.image("two");
    world.settle();
    check(
        &world,
        expect![[r#"
        Available=True AllAvailable
        Progressing=True Held
        Ready=True Held
        Reconciling=False NotWorking
        Stalled=False NotStalled"#]],
    );
    // A canary on one pod, then the partition is raised over it.
    let mut world = World::settled(partition(2));
    world.image("two");
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 1);
    world.change(partition(3));
    world.settle();
    check(
        &world,
        expect![[r#"
        Available=True AllAvailable
        Progressing=True Held
        Ready=True Held
        Reconciling=False NotWorking
        Stalled=False NotStalled"#]],
    );
    let message = &plan(&world.view).status.conditions[1].message;
    expect!["3 of 3 replicas are available, 1 of the newest revision; the partition holds the rollout at ordinal 3"].assert_eq(message);
}

#[test]
fn a_rollout_within_its_budget_is_available() {
    let mut world = World::settled(json!({}));
    world.image("two");
    while world.pod(2).is_some_and(|p| !p.terminating()) {
        world.step();
    }
    check(
        &world,
        expect![[r#"
        Available=True AllAvailable
        Progressing=True Working
        Ready=False NotReady
        Reconciling=True Working
        Stalled=False NotStalled"#]],
    );
    world.break_pod(0);
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=True Working
        Ready=False NotReady
        Reconciling=True Working
        Stalled=False NotStalled"#]],
    );
}

#[test]
fn a_set_that_starts_is_not_available_until_all_are() {
    let mut world = World::new(json!({}));
    for _ in 0..3 {
        world.step();
        world.kubelets();
    }
    assert!(world.view.pods.len() < 3);
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=True Working
        Ready=False NotReady
        Reconciling=True Working
        Stalled=False NotStalled"#]],
    );
    world.settle();
    check(
        &world,
        expect![[r#"
        Available=True AllAvailable
        Progressing=True Complete
        Ready=True Complete
        Reconciling=False NotWorking
        Stalled=False NotStalled"#]],
    );
    assert_eq!(
        world.view.set.status.conditions[0].observed_generation,
        Some(1)
    );
}

#[test]
fn no_progress_for_too_long_is_a_stall() {
    let mut world = World::new(json!({"progressDeadlineSeconds": 120}));
    world.step();
    world.step();
    world.break_pod(0);
    world.step();
    assert_eq!(plan(&world.view).requeue_after_ms, Some(120_001));
    world.pass(119);
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=True Working
        Ready=False NotReady
        Reconciling=True Working
        Stalled=False NotStalled"#]],
    );
    world.pass(2);
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=False ProgressDeadlineExceeded
        Ready=False NotReady
        Reconciling=False NotWorking
        Stalled=True ProgressDeadlineExceeded"#]],
    );
    // A replica that comes up is progress.
    world.step();
    world.run(0);
    world.step();
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=True Working
        Ready=False NotReady
        Reconciling=True Working
        Stalled=False NotStalled"#]],
    );
}

#[test]
fn what_only_a_person_ends_is_a_stall_at_once() {
    let mut world = World::settled(json!({}));
    world.image("refused");
    world.step();
    world.step();
    check(
        &world,
        expect![[r#"
        Available=True AllAvailable
        Progressing=False TemplateRefused
        Ready=False NotReady
        Reconciling=False NotWorking
        Stalled=True TemplateRefused"#]],
    );
}

/// The conditions of a native set are those of before: apps/v1 knows no others of ours,
/// and no deadline.
#[test]
fn a_native_set_has_no_conditions_for_tools_of_custom_resources() {
    let mut world = World::new(json!({}));
    world.view.set.kind = Kind::StatefulSet;
    world.step();
    world.step();
    world.break_pod(0);
    world.pass(3600);
    let status = world.step().status;
    assert!(status.last_progress_time.is_none());
    assert!(
        status
            .conditions
            .iter()
            .all(|c| c.observed_generation.is_none())
    );
    check(
        &world,
        expect![[r#"
        Available=False NotAllAvailable
        Progressing=True Working"#]],
    );
}

/// Replicas of a rollout at a time, many of them: the status that claims new victims holds
/// back none that stands there already.
#[test]
fn claiming_new_victims_holds_back_no_other() {
    let mut world = World::settled(json!({
        "replicas": 20, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 4}},
    }));
    world.image("two");
    let mut rounds = 0;
    while world.view.set.status.updated_replicas < 20 {
        world.step();
        // One pod a round moves on.
        let next = world
            .view
            .pods
            .iter()
            .find(|p| p.terminating() || !p.is_ready());
        let next = next.map(Arc::clone);
        if let Some(pod) = next {
            let ordinal = world.view.set.ordinal(&pod.name).unwrap();
            if pod.terminating() {
                world.remove(ordinal);
            } else {
                world.run(ordinal);
            }
        }
        rounds += 1;
        assert!(rounds < 60, "{}", world.log.join("\n"));
    }
}
