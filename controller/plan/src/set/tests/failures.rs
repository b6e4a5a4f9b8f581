//! Calls that fail, conflict or are refused: what pauses, what goes on, and what people
//! are told.

use std::sync::Arc;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::json;

use super::{
    model::{LANDED, World},
    properties::{Event, event, fields, happen, mend},
};
use crate::set::{
    Action, Class, Kind, Outcome, PodPhase, Refusal, RefusalKind, Step, TemplateCheck, Verdict,
    WaitReason, announcements, groups, plan,
};

fn refuse(class: Class) -> impl Fn(&Step) -> Outcome {
    move |step| {
        if step.action.class() == class {
            Outcome::Failed("no".into())
        } else {
            Outcome::Done
        }
    }
}

/// Calls of `world` in `seconds`, with an API server that answers as `answer` says.
fn calls(world: &mut World, seconds: i64, answer: impl Fn(&Step) -> Outcome) -> usize {
    let before = world.calls;
    let end = world.view.now + SignedDuration::from_secs(seconds);
    while world.view.now < end {
        let plan = world.step_with(&answer);
        // As the loop does: at once after a success, else when the plan says.
        let pause = plan.requeue_after_ms.unwrap_or(600_000).max(50);
        let pause = if plan.steps.is_empty() {
            pause
        } else {
            pause.min(50)
        };
        world.view.now += SignedDuration::from_millis(i64::try_from(pause).unwrap());
    }
    world.calls - before
}

/// A template that was refused and taken back leaves nothing to try again, and no reason
/// to look again.
#[test]
fn a_refusal_of_a_template_that_is_gone_is_forgotten() {
    let mut world = World::settled(json!({}));
    world.image("refused");
    world.settle();
    let tried = |w: &World| w.log.iter().filter(|l| l.starts_with("try ")).count();
    assert!(tried(&world) > 1, "it is tried again while it is wanted");
    world.image("one");
    world.settle();
    world.pass(120);
    let after = plan(&world.view);
    assert!(after.steps.is_empty(), "{:?}", after.steps);
    assert_eq!(after.requeue_after_ms, None);
}

/// What only tidies up, and what asks a question, never holds pods back.
#[test]
fn a_refused_call_of_one_kind_stops_no_other() {
    for (class, told) in [(Class::History, false), (Class::Check, true)] {
        for policy in ["OrderedReady", "Parallel"] {
            let mut world = World::settled(json!({
                "podManagementPolicy": policy, "revisionHistoryLimit": 0,
            }));
            world.image("two");
            world.settle();
            world.image("three");
            world.settle();
            world.change(json!({"revisionHistoryLimit": 0}));
            if class == Class::Check {
                world.image("four");
                world.step();
            } else {
                let old = Arc::make_mut(&mut world.view.revisions[0]).clone();
                let old = crate::set::Revision {
                    name: "web-old".into(),
                    revision: 0,
                    ..old
                };
                world.view.revisions.insert(0, Arc::new(old));
            }
            for _ in 0..3 {
                world.step_with(refuse(class));
                world.pass(2);
            }
            world.remove(1);
            world.step_with(refuse(class));
            assert!(
                world.pod(1).is_some(),
                "{class:?} {policy}: web-1 is not made again"
            );
            let plan = plan(&world.view);
            let says = plan
                .waits
                .iter()
                .any(|w| w.reason == WaitReason::CallFailed);
            let notes = plan.notices.iter().any(|n| n.reason == "CallFailed");
            assert!(
                notes || says || policy == "OrderedReady" && told,
                "{plan:?}"
            );
        }
    }
}

/// Whatever is refused without end is tried ever more rarely, and everything else goes on.
#[test]
fn what_is_refused_is_tried_ever_more_rarely() {
    for class in [
        Class::Creation,
        Class::Deletion,
        Class::Update,
        Class::Revision,
        Class::Check,
        Class::Membership,
    ] {
        let mut world = World::settled(json!({
            "replicas": 40, "podManagementPolicy": "Parallel",
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"},
        }));
        world.image("two");
        world.remove(3);
        world.edit(4, |p| p.controller = None);
        world.change(json!({"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}));
        if class != Class::Membership && class != Class::Revision {
            world.settle();
            world.image("three");
            world.change(json!({"replicas": 45}));
        }
        world.calls = 0;
        let answer = |step: &Step| {
            if step.action.class() == class {
                Outcome::Failed("no".into())
            } else {
                Outcome::Done
            }
        };
        let all = calls(&mut world, 600, answer);
        assert!(all < 400, "{class:?}: {all} calls in ten minutes");
    }
}

/// A conflict says that the view is old: the object is left alone until its watch shows
/// another version.
#[test]
fn a_conflict_waits_for_another_version() {
    let mut world = World::settled(json!({}));
    world.change(json!({"replicas": 2}));
    let conflicts = |_: &Step| Outcome::Conflict;
    let n = calls(&mut world, 14, conflicts);
    assert_eq!(n, 1, "{n} calls while the watch says nothing");
    world.edit(2, |_| {});
    world.step();
    assert!(world.pod(2).unwrap().terminating());
}

/// A pod that the kubelet rejects is made again after pauses that grow.
#[test]
fn pods_that_end_at_once_are_made_again_ever_more_rarely() {
    for kind in [Kind::OrdinalSet, Kind::StatefulSet] {
        for policy in ["OrderedReady", "Parallel"] {
            let mut world = World::new(json!({"replicas": 1, "podManagementPolicy": policy}));
            world.view.set.kind = kind;
            let mut told = false;
            for _ in 0..60_000 / 50 {
                let plan = world.step();
                told |= plan
                    .status
                    .waiting
                    .is_some_and(|w| w.contains("failed again (OutOfcpu)"));
                if world.pod(0).is_some_and(|p| p.terminating()) {
                    world.remove(0);
                } else if world.pod(0).is_some_and(|p| !p.ended()) {
                    world.edit(0, |p| {
                        p.phase = Some(PodPhase::Failed);
                        p.trouble = Some("OutOfcpu".into());
                    });
                }
                world.view.now += SignedDuration::from_millis(50);
            }
            let made = world
                .log
                .iter()
                .filter(|l| l.contains("then pod") || l.starts_with("create pod"));
            let made = made.count();
            assert!((2..=10).contains(&made), "{made} pods in a minute");
            assert!(told);
        }
    }
}

/// Whatever keeps the API server from making a pod stands in WAITING.
#[test]
fn what_stops_creation_is_told() {
    let webhook = "failed calling webhook \"x\"";
    for (code, reason) in [
        (Some(500), WaitReason::CreateFailed),
        (None, WaitReason::CreateFailed),
        (Some(403), WaitReason::CreateRefused),
        (Some(422), WaitReason::TemplateRefused),
    ] {
        let mut world = World::new(json!({}));
        world.step();
        let refusal = Refusal::of(code, webhook);
        world.view.refusals.insert("web-0".into(), refusal);
        let plan = plan(&world.view);
        assert_eq!(plan.waits[0].reason, reason);
        let waiting = plan.status.waiting.unwrap();
        assert!(waiting.contains(webhook), "{waiting}");
    }
    // Claims of a pod that is there are no exception.
    let mut world = World::settled(json!({"replicas": 1}));
    world.edit(0, |p| {
        p.phase = Some(PodPhase::Pending);
        p.ready = None;
    });
    world.view.claims.clear();
    let refusal = Refusal::of(Some(403), "exceeded quota: q");
    world.view.refusals.insert("web-0".into(), refusal);
    let plan = plan(&world.view);
    assert_eq!(plan.waits[0].reason, WaitReason::CreateRefused);
    assert!(matches!(&plan.steps[0].action, Action::CreateClaims { pod, .. } if pod == "web-0"));
}

/// A template that is known to be refused costs no replica: what is lost returns as it was.
#[test]
fn a_lost_pod_does_not_wait_for_a_refused_template() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut world = World::settled(json!({"podManagementPolicy": policy}));
        let good = world.pod(1).unwrap().revision().to_owned();
        world.image("refused");
        world.settle();
        world.remove(1);
        world.settle();
        let revision = world.pod(1).map(|p| p.revision().to_owned());
        assert_eq!(revision.as_ref(), Some(&good));
        let conditions = &world.view.set.status.conditions;
        let refused = conditions.iter().find(|c| c.type_ == "TemplateRefused");
        assert_eq!(refused.unwrap().status, "True");
        world.image("two");
        world.settle();
        assert_eq!(world.view.set.status.updated_replicas, 3);
    }
    // Known from the creation itself.
    let mut world = World::settled(json!({}));
    let good = world.pod(0).unwrap().revision().to_owned();
    world.image("two");
    world.step();
    world.remove(0);
    let refusal = Refusal {
        message: "no".into(),
        kind: RefusalKind::Template,
    };
    world.view.refusals.insert("web-0".into(), refusal);
    world.step();
    assert_eq!(world.pod(0).unwrap().revision(), good);
}

/// While the verdict stands, and no longer.
#[test]
fn a_refused_template_is_tried_again_later() {
    let mut world = World::settled(json!({}));
    world.image("two");
    world.step();
    let update = world.view.revisions.last().unwrap().name.clone();
    world.view.template_check = Some(TemplateCheck {
        revision: update,
        verdict: Verdict::Refused("no".into()),
        at: world.view.now,
    });
    let first = plan(&world.view);
    assert!(first.steps.is_empty(), "{:?}", first.steps);
    assert_eq!(first.requeue_after_ms, Some(60_001));
    world.pass(61);
    let second = plan(&world.view);
    assert!(matches!(
        second.steps[0].action,
        Action::CheckTemplate { .. }
    ));
    assert_eq!(second.waits[0].reason, WaitReason::TemplateRefused);
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 3);
}

#[test]
fn creations_start_slowly() {
    let mut world = World::new(json!({"replicas": 100, "podManagementPolicy": "Parallel"}));
    world.step();
    let groups = groups(plan(&world.view).steps);
    let sizes: Vec<usize> = groups[0].batches.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 2, 4, 8, 16, 32, 32, 5]);
}

/// Many replicas that wait for the same reason are one event, and what is everyday is none.
#[test]
fn events_do_not_grow_with_the_set() {
    let mut world = World::settled(json!({
        "replicas": 200, "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "OnDelete"},
    }));
    world.image("two");
    world.step();
    world.step();
    let waits = plan(&world.view).waits;
    assert_eq!(waits.len(), 200);
    let events = announcements(waits.iter());
    assert_eq!(events.len(), 1);
    assert!(events[0].1.contains("and 199 more replicas"), "{events:?}");
    for ordinal in 0..200 {
        world.break_pod(ordinal);
    }
    let waits = plan(&world.view).waits;
    let unready = waits.iter().filter(|w| w.reason == WaitReason::NotReady);
    assert!(announcements(unready).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Calls fail, conflict, or land without an answer, in any order: what holds for every
    /// plan holds, and once they succeed again the set becomes what it should be.
    #[test]
    fn failures_only_cost_time(
        native in any::<bool>(),
        fields in fields(),
        events in prop::collection::vec((event(), 0..6_u8), 0..60),
    ) {
        let mut world = World::new(fields);
        if native {
            world.view.set.kind = Kind::StatefulSet;
        }
        for (event, answer) in &events {
            if let Event::Round = event {
                world.step_with(|_| match answer {
                    0 => Outcome::Failed("no".into()),
                    1 => Outcome::Failed(LANDED.into()),
                    2 => Outcome::Conflict,
                    _ => Outcome::Done,
                });
                world.pass(1);
            } else {
                happen(&mut world, event);
            }
        }
        mend(&mut world);
        world.settle();
        let set = &world.view.set;
        let mut found: Vec<i32> = (world.view.pods.iter())
            .map(|p| set.ordinal(&p.name).unwrap())
            .collect();
        found.sort_unstable();
        prop_assert_eq!(found, set.wanted().collect::<Vec<_>>());
        prop_assert!(world.view.pods.iter().all(|p| p.available(&world.view)));
        prop_assert!(plan(&world.view).steps.is_empty());
    }
}
