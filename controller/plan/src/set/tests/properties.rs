//! From any state the fault-free plan reaches the desired one and then plans
//! nothing, never makes two pods of an ordinal, and keeps the order.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::World;
use crate::set::{Action, Kind, PodPhase, plan};

/// Something that happens to a set.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Round,
    Kubelets,
    Scale(i32),
    Image(u8),
    Break(i32),
    Fail(i32),
    Delete(i32),
    Vanish(i32),
    Orphan(i32),
    Relabel(i32),
    Partition(i32),
    LoseClaim(i32),
    Time(i64),
    /// Go back to the oldest revision, or to the template.
    Rollback(bool),
    Restart,
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let ordinal = 0..5_i32;
    prop_oneof![
        8 => Just(Event::Round),
        4 => Just(Event::Kubelets),
        1 => (0..5_i32).prop_map(Event::Scale),
        1 => (0..3_u8).prop_map(Event::Image),
        1 => ordinal.clone().prop_map(Event::Break),
        1 => ordinal.clone().prop_map(Event::Fail),
        1 => ordinal.clone().prop_map(Event::Delete),
        1 => ordinal.clone().prop_map(Event::Vanish),
        1 => ordinal.clone().prop_map(Event::Orphan),
        1 => ordinal.clone().prop_map(Event::Relabel),
        1 => (0..4_i32).prop_map(Event::Partition),
        1 => ordinal.prop_map(Event::LoseClaim),
        1 => (1..40_i64).prop_map(Event::Time),
        1 => any::<bool>().prop_map(Event::Rollback),
        1 => Just(Event::Restart),
    ]
}

pub(super) fn fields() -> impl Strategy<Value = Value> {
    let policy = prop_oneof![Just("OrderedReady"), Just("Parallel")];
    let retention = || prop_oneof![Just("Retain"), Just("Delete")];
    (policy, retention(), retention(), 1..3_i32, 0..20_i32, 0..3_i32).prop_map(
        |(policy, scaled, deleted, unavailable, ready, start)| {
            json!({
                "podManagementPolicy": policy,
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": scaled, "whenDeleted": deleted},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}},
                "minReadySeconds": ready,
                "ordinals": {"start": start},
            })
        },
    )
}

pub(super) fn happen(world: &mut World, event: &Event) {
    let there = |world: &World, o: i32| world.pod(o).is_some();
    match *event {
        Event::Round => {
            world.step();
        }
        Event::Kubelets => {
            world.kubelets();
        }
        Event::Scale(n) => world.change(json!({"replicas": n})),
        Event::Image(n) => world.image(["one", "two", "three"][usize::from(n)]),
        Event::Break(o) if there(world, o) => world.break_pod(o),
        Event::Fail(o) if there(world, o) => world.edit(o, |p| {
            p.phase = Some(PodPhase::Failed);
            p.ready = None;
        }),
        Event::Delete(o) if there(world, o) => {
            let now = world.view.now;
            world.edit(o, |p| p.deleted = Some(now));
        }
        Event::Vanish(o) if there(world, o) => world.remove(o),
        Event::Orphan(o) if there(world, o) => world.edit(o, |p| p.controller = None),
        Event::Relabel(o) if there(world, o) => world.edit(o, |p| {
            p.labels.remove(berth_api::names::pod::POD_NAME);
        }),
        Event::Partition(n) => {
            let mut strategy = serde_json::to_value(&world.view.set.spec.update_strategy).unwrap();
            strategy["rollingUpdate"]["partition"] = json!(n);
            world.change(json!({"updateStrategy": strategy}));
        }
        Event::LoseClaim(o) => {
            let claim = format!("data-web-{o}");
            let pending = world
                .pod(o)
                .is_none_or(|p| p.phase == Some(PodPhase::Pending));
            if pending {
                world.view.claims.remove(&claim);
            }
        }
        Event::Time(seconds) => world.pass(seconds),
        Event::Rollback(back) => {
            let oldest = world.view.revisions.first().map(|r| r.name.clone());
            world.change(json!({"rollbackTo": oldest.filter(|_| back)}));
        }
        Event::Restart => {
            let now = world.view.now;
            world.change(json!({"restartedAt": now}));
        }
        _ => {}
    }
}

/// People and kubelets mend what is broken: only then can a set settle.
pub(super) fn mend(world: &mut World) {
    for ordinal in 0..10 {
        let broken = |p: &Arc<crate::set::Pod>| {
            !p.terminating() && !p.ended() && p.phase == Some(PodPhase::Running) && !p.is_ready()
        };
        if world.pod(ordinal).is_some_and(broken) {
            world.run(ordinal);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_history_settles_where_it_should(
        native in any::<bool>(),
        fields in fields(),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut world = World::new(fields);
        if native {
            world.view.set.kind = Kind::StatefulSet;
        }
        for event in &events {
            // `step` asserts what holds for every plan and every creation.
            happen(&mut world, event);
        }
        mend(&mut world);
        world.settle();
        let wanted = world.view.set.wanted();
        let mut found: Vec<i32> = world.view.pods.iter().map(|p| world.view.set.ordinal(&p.name).unwrap()).collect();
        found.sort_unstable();
        prop_assert_eq!(found, wanted.clone().collect::<Vec<_>>());
        for pod in &world.view.pods {
            prop_assert!(pod.available(&world.view));
            let ordinal = world.view.set.ordinal(&pod.name).unwrap();
            if ordinal >= world.view.set.first_updated() {
                prop_assert_eq!(Some(pod.revision()), world.view.set.status.update_revision.as_deref());
            }
            for claim in pod.claims.values() {
                prop_assert!(world.view.claims.contains_key(claim));
            }
        }
        prop_assert!(world.view.set.status.disrupting.is_empty());
        prop_assert!(world.view.set.status.waiting.is_none());
        let plan = plan(&world.view);
        prop_assert!(plan.steps.is_empty());
        prop_assert_eq!(plan.status, world.view.set.status);
    }

    /// An ordered set never makes a replica while a lower one is unavailable,
    /// and never deletes an available one for a rollout beyond the budget.
    #[test]
    fn order_and_budget_hold_in_every_state(fields in fields(), events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::new(fields);
        for event in &events {
            let plan = plan(&world.view);
            let set = &world.view.set;
            let up = |o: i32| world.pod(o).is_some_and(|p| p.available(&world.view));
            let mut taken = 0;
            for step in &plan.steps {
                let Some(ordinal) = step.ordinal else { continue };
                match &step.action {
                    Action::CreatePod { .. } => {
                        prop_assert!(set.wanted().contains(&ordinal));
                        if set.ordered() {
                            prop_assert!((set.start()..ordinal).all(up), "{:?}", plan);
                        }
                    }
                    Action::DeletePod { .. } if set.wanted().contains(&ordinal) && up(ordinal) => taken += 1,
                    Action::DeletePod { .. } if !set.wanted().contains(&ordinal) && set.ordered() => {
                        prop_assert!(set.wanted().all(up), "{:?}", plan);
                        let ours = world.view.pods.iter().filter(|p| p.controller.is_some());
                        let above = ours.filter_map(|p| set.ordinal(&p.name));
                        prop_assert!(above.filter(|o| !set.wanted().contains(o)).all(|o| o <= ordinal));
                    }
                    _ => {}
                }
            }
            let unavailable = set.wanted().filter(|o| !up(*o)).count();
            if taken > 0 {
                let budget = usize::try_from(set.max_unavailable()).unwrap();
                prop_assert!(unavailable + taken <= budget, "{:?}", plan);
            }
            happen(&mut world, event);
        }
    }

    /// Two planners that plan from one view do no more together than one does:
    /// names and preconditions let the second one's actions fall through.
    #[test]
    fn a_plan_applied_twice_is_applied_once(fields in fields(), events in prop::collection::vec(event(), 0..40)) {
        let mut world = World::new(fields);
        for event in &events {
            happen(&mut world, event);
        }
        let twin = plan(&world.view);
        let first = plan(&world.view);
        prop_assert_eq!(&twin, &first);
        for step in first.steps {
            world.apply(step.action);
        }
        let before = world.view.pods.clone();
        for step in twin.steps {
            if let Action::DeletePod { .. } = step.action {
                world.apply(step.action);
            }
        }
        prop_assert_eq!(before, world.view.pods);
    }
}
