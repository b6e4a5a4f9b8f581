//! Native sets: the status in apps/v1's fields, rules that follow upstream, and
//! standing down.

use berth_api::{Disruption, NativeSet, OrdinalSetStatus};
use expect_test::expect;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ManagedFieldsEntry, Time};
use serde_json::{Value, json};

use super::model::World;
use crate::set::{
    Action, CompetingController, Kind, Set, competing_controller, native_status, plan, stands_down,
};

fn set(status: Value) -> NativeSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "set"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {}},
        "status": status,
    }))
    .unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn the_status_keeps_what_others_put_there() {
    let foreign = json!({"type": "Theirs", "status": "True", "lastTransitionTime": null});
    let before = set(json!({
        "replicas": 3, "observedGeneration": 1, "unknown": 7,
        "conditions": [foreign, {"type": "Waiting", "status": "True"}],
    }));
    let status = OrdinalSetStatus {
        replicas: 2,
        ready: Some("2/3".into()),
        selector: Some("app=web".into()),
        conditions: vec![Condition {
            type_: "Available".into(),
            status: "True".into(),
            reason: "AllAvailable".into(),
            message: "all".into(),
            last_transition_time: Time(now()),
            observed_generation: None,
        }],
        disrupting: vec![Disruption {
            pod: "web-2".into(),
            uid: "u2".into(),
            resource_version: "7".into(),
        }],
        ..OrdinalSetStatus::default()
    };
    let written = native_status(&before, &status, now()).unwrap();
    expect![[r#"{"availableReplicas":0,"conditions":[{"lastTransitionTime":null,"status":"True","type":"Theirs"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"all","reason":"AllAvailable","status":"True","type":"Available"},{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"web-2=u2@7","reason":"RollingUpdate","status":"True","type":"BerthDisrupting"}],"currentReplicas":0,"readyReplicas":0,"replicas":2,"unknown":7,"updatedReplicas":0}"#]]
    .assert_eq(&written.to_string());
    // Read back, it is what was written, and there is nothing to write.
    let mut after = set(written);
    assert_eq!(Set::from(&after).status.disrupting, status.disrupting);
    assert_eq!(native_status(&after, &status, now()), None);
    // The API server leaves zeros out.
    after
        .status
        .as_object_mut()
        .unwrap()
        .remove("readyReplicas");
    assert_eq!(native_status(&after, &status, now()), None);
}

fn native(fields: Value) -> World {
    let mut world = World::new(fields);
    world.view.set.kind = Kind::StatefulSet;
    world.settle();
    world.log.clear();
    world
}

/// Fields that a new release of Kubernetes fills in change the bytes of the
/// template: no revision is made for them, and nothing restarts.
#[test]
fn a_template_that_differs_only_in_defaults_is_the_same() {
    let mut world = native(json!({}));
    let before = world.view.pods.clone();
    let mut template = world.view.set.spec.template.clone();
    template["spec"]["today"] = json!(1);
    world.change(json!({"template": template}));
    world.settle();
    expect![[r#"complete revision web-76b697b479 with today's defaults, by a dry run"#]]
        .assert_eq(&world.log.join("\n"));
    assert_eq!(world.view.pods, before);
    assert_eq!(world.view.revisions.len(), 1);
    world.image("two");
    world.settle();
    assert_eq!(world.view.revisions.len(), 2);
    assert_eq!(world.view.set.status.updated_replicas, 3);
}

/// The same for an OrdinalSet, whose template nobody completes: a chart that writes a
/// default down, or leaves it out again, restarts nothing.
#[test]
fn an_ordinal_set_restarts_nothing_for_a_default() {
    let mut world = World::settled(json!({}));
    let before = world.view.pods.clone();
    let bare = world.view.set.spec.template.clone();
    let mut full = bare.clone();
    full["spec"]["today"] = json!(1);
    for template in [full.clone(), bare, full] {
        world.change(json!({"template": template}));
        world.settle();
        assert_eq!(world.view.pods, before);
        assert_eq!(world.view.revisions.len(), 1);
        let status = &world.view.set.status;
        assert_eq!(status.observed_generation, Some(world.view.set.generation));
        assert_eq!(status.updated_replicas, 3);
    }
    world.image("two");
    world.settle();
    assert_eq!(world.view.revisions.len(), 2);
    assert_eq!(world.view.set.status.updated_replicas, 3);
    assert_ne!(world.view.pods, before);
}

/// Who waits for a generation to be observed reads its revisions next.
#[test]
fn a_generation_is_observed_with_its_revision() {
    for kind in [Kind::OrdinalSet, Kind::StatefulSet] {
        let mut world = World::settled(json!({}));
        world.view.set.kind = kind;
        let before = world.view.set.status.clone();
        world.image("two");
        let mut rounds = 0;
        while world.view.set.status.observed_generation == before.observed_generation {
            assert_eq!(
                world.view.set.status.update_revision,
                before.update_revision
            );
            world.step();
            rounds += 1;
        }
        assert!(rounds > 1);
        let after = &world.view.set.status;
        assert_eq!(after.observed_generation, Some(world.view.set.generation));
        assert_ne!(after.update_revision, before.update_revision);
        assert_eq!(after.current_revision, before.current_revision);
    }
}

#[test]
fn a_rollback_needs_no_question() {
    let mut world = native(json!({}));
    world.image("two");
    world.settle();
    world.log.clear();
    world.image("one");
    world.settle();
    expect![[r#"
        give revision web-76b697b479 the number 3
        try revision web-76b697b479 by a dry run
        delete pod web-2
        gone web-2
        create pod web-2 at web-76b697b479
        delete pod web-1
        gone web-1
        create pod web-1 at web-76b697b479
        delete pod web-0
        gone web-0
        create pod web-0 at web-76b697b479"#]]
    .assert_eq(&world.log.join("\n"));
}

/// An ordered native rollout waits for a pod of a good revision, as upstream
/// does, and does not for one of a revision that never worked.
#[test]
fn an_ordered_rollout_waits_where_the_old_revision_is_good() {
    let mut world = native(json!({}));
    world.break_pod(1);
    world.image("two");
    world.settle_but_for("web-1");
    assert!(
        world.log.iter().all(|l| !l.starts_with("delete")),
        "{:?}",
        world.log
    );
    world.run(1);
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 3);
    // A template that no pod becomes ready with.
    let good = world.pod(0).unwrap().revision().to_owned();
    world.image("bad");
    while world.pod(2).is_none_or(|p| p.revision() == good) {
        world.step();
        if world.pod(2).is_some_and(|p| p.terminating()) {
            world.remove(2);
        }
    }
    world.image("two");
    world.settle();
    assert!(world.view.pods.iter().all(|p| p.revision() == good));
}

/// An update strategy with a type and no bounds: a pod that is lost in the middle
/// of a rollout returns as it was.
#[test]
fn a_lost_pod_returns_as_it_was_until_the_rollout_reaches_it() {
    let lost = |strategy: Value| {
        let mut world = native(json!({"updateStrategy": strategy}));
        let old = world.pod(0).unwrap().revision().to_owned();
        world.image("two");
        while world.pod(2).is_some() {
            world.step();
            if world.pod(2).is_some_and(|p| p.terminating()) {
                world.remove(2);
            }
        }
        world.remove(0);
        world.step();
        let same = world.pod(0).unwrap().revision() == old;
        world.settle();
        assert_eq!(world.view.set.status.updated_replicas, 3);
        same
    };
    assert!(lost(json!({"type": "RollingUpdate"})));
    assert!(!lost(
        json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    ));
}

fn entry(manager: &str, subresource: &str, at: &str, fields: Value) -> ManagedFieldsEntry {
    serde_json::from_value(json!({
        "manager": manager, "subresource": subresource, "time": at,
        "operation": "Update", "fieldsV1": {"f:status": fields},
    }))
    .unwrap()
}

#[test]
fn who_writes_counters_runs_the_set() {
    let (t1, t2) = ("2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z");
    let fields = [
        entry("berth-controller", "status", t2, json!({"f:replicas": {}})),
        entry(
            "kube-controller-manager",
            "status",
            t1,
            json!({"f:replicas": {}}),
        ),
        entry("somebody", "status", t2, json!({"f:conditions": {}})),
        entry("kubectl", "", t2, json!({"f:replicas": {}})),
    ];
    let found = competing_controller(&fields, "berth-controller").unwrap();
    assert_eq!(found.manager, "kube-controller-manager");
    assert_eq!(found.at, t1.parse().unwrap());
    assert_eq!(competing_controller(&fields[..1], "berth-controller"), None);
}

#[test]
fn a_set_is_left_alone_while_another_runs_it() {
    let at =
        |minute: i8| -> Timestamp { format!("2026-01-01T00:{minute:02}:00Z").parse().unwrap() };
    let other = |minute| CompetingController {
        manager: "kube-controller-manager".into(),
        at: at(minute),
    };
    // What was written before Berth looked is history.
    assert_eq!(stands_down(Some(at(5)), Some(&other(5)), at(6)), None);
    assert_eq!(
        stands_down(Some(at(5)), Some(&other(6)), at(6)),
        Some(at(16))
    );
    assert_eq!(stands_down(Some(at(5)), Some(&other(6)), at(16)), None);
    assert_eq!(stands_down(None, Some(&other(6)), at(7)), Some(at(16)));
    assert_eq!(stands_down(None, None, at(7)), None);
}

/// Native sets have no fields of Berth's own; nothing of them may leak in.
#[test]
fn a_native_pod_is_upstreams() {
    let mut world = World::new(json!({"replicas": 1, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": []},
    }}));
    world.view.set.kind = Kind::StatefulSet;
    world.step();
    let plan = plan(&world.view);
    let Action::CreatePod { pod, .. } = &plan.steps[0].action else {
        panic!("{plan:?}");
    };
    expect![[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"web-","labels":{"app":"web","apps.kubernetes.io/pod-index":"0","controller-revision-hash":"web-d5895cc76","statefulset.kubernetes.io/pod-name":"web-0"},"name":"web-0","namespace":"ns","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web","uid":"set"}]},"spec":{"containers":[],"hostname":"web-0","subdomain":"web","terminationGracePeriodSeconds":0,"volumes":[{"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}}]}}"#]]
    .assert_eq(&pod.manifest.to_string());
}

/// A strategy of a newer Kubernetes stops no list of sets, and is said to be unknown.
#[test]
fn an_unknown_strategy_is_read_and_told() {
    let object: NativeSet = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "set"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": {},
            "updateStrategy": {"type": "Recreate"},
        },
    }))
    .unwrap();
    assert!(Set::from(&object).unknown_strategy());
    let mut world = native(json!({}));
    world.change(json!({"updateStrategy": {"type": "Recreate"}}));
    world.image("two");
    world.settle();
    assert_eq!(world.view.set.status.updated_replicas, 0);
    let wait = &plan(&world.view).waits[0];
    assert_eq!(wait.reason.as_str(), "StrategyUnknown");
}
