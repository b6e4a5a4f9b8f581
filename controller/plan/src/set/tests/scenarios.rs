//! Order of creation and deletion, failures, strangers, and what each wait says.

use std::sync::Arc;

use expect_test::expect;
use serde_json::json;

use super::model::{World, orphan};
use crate::set::{Controller, PodPhase, Refusal, RefusalKind, plan};

#[test]
fn replicas_are_created_one_after_the_other() {
    let mut world = World::new(json!({}));
    world.settle();
    expect![[r#"
        create revision web-76b697b479, number 1
        create claim data-web-0, then pod web-0 at web-76b697b479
        create claim data-web-1, then pod web-1 at web-76b697b479
        create claim data-web-2, then pod web-2 at web-76b697b479"#]]
    .assert_eq(&world.log.join("\n"));
    expect![[r#"
        web-0 ready web-76b697b479
        web-1 ready web-76b697b479
        web-2 ready web-76b697b479
        data-web-0 owned by []
        data-web-1 owned by []
        data-web-2 owned by []
    "#]]
    .assert_eq(&world.picture());
    assert!(plan(&world.view).steps.is_empty());
}

#[test]
fn a_replica_waits_for_the_one_below() {
    let mut world = World::new(json!({}));
    world.step();
    world.step();
    world.run(0);
    world.step();
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 2 exist, 1 ready, 1 available, 2 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-1: not ready (Pending); see kubectl -n ns describe pod web-1 (NotReady)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
    world.run(1);
    world.break_pod(0);
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 2 exist, 1 ready, 1 available, 2 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-0: not ready (container app: CrashLoopBackOff); see kubectl -n ns describe pod web-0 (NotReady)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
}

#[test]
fn a_parallel_set_waits_for_nobody() {
    let mut world = World::new(json!({"podManagementPolicy": "Parallel"}));
    world.step();
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 0 exist, 0 ready, 0 available, 0 updated
        policy: Parallel; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        do: create claim data-web-0, then pod web-0 at web-76b697b479
            because web-0 is wanted and does not exist
        do: create claim data-web-1, then pod web-1 at web-76b697b479
            because web-1 is wanted and does not exist
        do: create claim data-web-2, then pod web-2 at web-76b697b479
            because web-2 is wanted and does not exist
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
}

#[test]
fn scaling_down_goes_from_the_top_and_keeps_claims() {
    let mut world = World::settled(json!({}));
    let claims = world.view.claims.clone();
    world.change(json!({"replicas": 1}));
    world.settle();
    expect![[r#"
        delete pod web-2
        gone web-2
        delete pod web-1
        gone web-1"#]]
    .assert_eq(&world.log.join("\n"));
    assert_eq!(world.view.claims, claims);
    world.change(json!({"replicas": 3}));
    world.settle();
    assert_eq!(world.view.claims, claims);
}

#[test]
fn scaling_down_halts_while_two_are_sick() {
    let mut world = World::settled(json!({}));
    (0..3).for_each(|ordinal| world.break_pod(ordinal));
    world.change(json!({"replicas": 0}));
    expect![[r#"
        OrdinalSet ns/web: 0 wanted, 3 exist, 0 ready, 0 available, 3 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-2: not deleted while web-0 is unavailable too; an ordered set does not scale down while more than one of its pods is unavailable; repair or delete web-0 (ScaleDownHalted)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
    world.run(0);
    world.run(1);
    world.settle();
    assert!(world.view.pods.is_empty());
}

#[test]
fn a_parallel_set_scales_down_at_once_even_when_sick() {
    let mut world = World::settled(json!({"podManagementPolicy": "Parallel"}));
    (0..3).for_each(|ordinal| world.break_pod(ordinal));
    world.change(json!({"replicas": 0}));
    assert_eq!(plan(&world.view).steps.len(), 3);
}

#[test]
fn ended_pods_are_replaced_when_they_are_gone() {
    for phase in [PodPhase::Failed, PodPhase::Succeeded] {
        let mut world = World::settled(json!({}));
        let uid = world.pod(1).unwrap().uid.clone();
        world.edit(1, |pod| {
            pod.phase = Some(phase);
            pod.ready = None;
        });
        world.step();
        assert_eq!(world.log, ["delete pod web-1"]);
        assert!(
            plan(&world.view).steps.is_empty(),
            "it has to be gone first"
        );
        world.settle();
        assert_ne!(world.pod(1).unwrap().uid, uid);
        assert_eq!(world.view.claims.len(), 3);
    }
}

#[test]
fn a_terminating_pod_holds_its_name() {
    let mut world = World::settled(json!({}));
    let now = world.view.now;
    world.edit(1, |pod| {
        pod.deleted = Some(now);
        pod.node = Some("kind-worker2".into());
    });
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 3 exist, 3 ready, 3 available, 2 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-1: terminating since 00:00:00Z on node kind-worker2; its successor is made when it is gone; if node kind-worker2 is gone for good, delete the Node, or taint it node.kubernetes.io/out-of-service (Terminating)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
}

#[test]
fn a_stranger_on_a_name_is_a_conflict() {
    let mut world = World::new(json!({}));
    let mut stranger = orphan("web-0");
    stranger.controller = Some(Controller {
        api_version: "apps/v1".into(),
        kind: "StatefulSet".into(),
        name: "web".into(),
        uid: "other".into(),
    });
    world.view.pods.push(Arc::new(stranger));
    world.step();
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 0 exist, 0 ready, 0 available, 0 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-0: a foreign pod has this name (NameConflict); it belongs to StatefulSet web; delete or rename pod web-0 of namespace ns, or give it the set's labels and no other owner (NameConflict)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
    world.change(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(plan(&world.view).steps.len(), 2, "the other ordinals go on");
}

#[test]
fn matching_orphans_are_adopted_and_others_released() {
    let mut world = World::settled(json!({}));
    world.edit(0, |pod| pod.controller = None);
    world.edit(1, |pod| {
        pod.labels.remove("app");
    });
    world.step();
    assert_eq!(world.log, ["adopt pod web-0", "release pod web-1"]);
    assert_eq!(plan(&world.view).waits[0].reason.as_str(), "NameConflict");
    world.edit(1, |pod| {
        pod.labels.insert("app".into(), "web".into());
    });
    let uid = world.pod(1).unwrap().uid.clone();
    world.settle();
    assert_eq!(world.pod(1).unwrap().uid, uid);
}

#[test]
fn a_pod_of_another_numbering_is_nobodys_business() {
    let mut world = World::new(json!({"replicas": 0}));
    for name in ["web-01", "web-x", "web-", "web-99999999999", "web"] {
        world.view.pods.push(Arc::new(orphan(name)));
    }
    world.step();
    assert!(plan(&world.view).steps.is_empty());
}

#[test]
fn lost_identity_labels_are_mended() {
    let mut world = World::settled(json!({}));
    world.edit(2, |pod| {
        pod.labels.remove(berth_api::names::pod::POD_NAME);
    });
    world.settle();
    assert_eq!(world.log, ["set the identity labels of pod web-2"]);
}

#[test]
fn a_refused_pod_quotes_the_api_server() {
    let mut world = World::new(json!({}));
    world.step();
    let refusal = Refusal {
        message: "Pod \"web-0\" is invalid: spec.containers[0].image: Required value".into(),
        kind: RefusalKind::Template,
    };
    world.view.refusals.insert("web-0".into(), refusal);
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 0 exist, 0 ready, 0 available, 0 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        do: create claim data-web-0, then pod web-0 at web-76b697b479
            because web-0 is wanted and does not exist
        wait: web-0: refused (API server: spec.containers[0].image: Required value); correct spec.template or volumeClaimTemplates (TemplateRefused)
        look again after 600001 ms
    "#]].assert_eq(&world.explain());
    let status = plan(&world.view).status;
    let refused = status
        .conditions
        .iter()
        .find(|c| c.type_ == "TemplateRefused");
    assert_eq!(refused.unwrap().status, "True");
}

#[test]
fn the_start_moves_new_ordinals_first() {
    let mut world = World::settled(json!({"replicas": 2}));
    world.change(json!({"ordinals": {"start": 2}}));
    world.settle();
    expect![[r#"
        create claim data-web-2, then pod web-2 at web-76b697b479
        create claim data-web-3, then pod web-3 at web-76b697b479
        delete pod web-1
        gone web-1
        delete pod web-0
        gone web-0"#]]
    .assert_eq(&world.log.join("\n"));
}

#[test]
fn availability_waits_for_min_ready_seconds() {
    let mut world = World::new(json!({"minReadySeconds": 30}));
    world.step();
    world.step();
    world.run(0);
    world.pass(10);
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 1 exist, 1 ready, 0 available, 1 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web-0: ready, minReadySeconds runs until 00:00:30Z (MinReadySeconds)
        look again after 20001 ms
    "#]].assert_eq(&world.explain());
    world.pass(20);
    assert_eq!(plan(&world.view).status.available_replicas, 1);
}

#[test]
fn a_deleting_set_leaves_its_pods_to_the_garbage_collector() {
    let mut world = World::settled(json!({}));
    world.view.set.deleting = true;
    world.remove(1);
    world.image("two");
    assert!(plan(&world.view).steps.is_empty());
}

#[test]
fn grace_zero_is_never_used() {
    let mut world = World::new(json!({"replicas": 1}));
    let mut template = world.view.set.spec.template.clone();
    template["spec"]["terminationGracePeriodSeconds"] = json!(0);
    world.change(json!({"template": template}));
    world.step();
    let made = &plan(&world.view).steps[0].action;
    let crate::set::Action::CreatePod { pod, .. } = made else {
        panic!("{made:?}");
    };
    assert_eq!(pod.manifest["spec"]["terminationGracePeriodSeconds"], 1);
    world.settle();
    world.edit(0, |pod| pod.grace_seconds = 0);
    world.change(json!({"replicas": 0}));
    assert!(world.explain().contains("grace 1s"), "{}", world.explain());
}

#[test]
fn a_pod_has_its_whole_identity() {
    let mut world = World::new(json!({"replicas": 1}));
    let mut template = world.view.set.spec.template.clone();
    template["metadata"]["annotations"] = json!({"a": "b"});
    template["spec"]["volumes"] = json!([
        {"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}},
    ]);
    template["spec"]["fieldOfANewerServer"] = json!({"kept": true});
    world.change(json!({"template": template}));
    world.step();
    let made = plan(&world.view).steps[0].action.clone();
    let crate::set::Action::CreatePod { pod, claims } = made else {
        panic!("{made:?}");
    };
    let text = serde_json::to_string_pretty(&[pod.manifest, claims[0].manifest.clone()]);
    expect![[r#"
        [
          {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
              "annotations": {
                "a": "b"
              },
              "generateName": "web-",
              "labels": {
                "app": "web",
                "apps.kubernetes.io/pod-index": "0",
                "controller-revision-hash": "web-9bccffc94",
                "statefulset.kubernetes.io/pod-name": "web-0"
              },
              "name": "web-0",
              "namespace": "ns",
              "ownerReferences": [
                {
                  "apiVersion": "berth.dev/v1alpha1",
                  "blockOwnerDeletion": true,
                  "controller": true,
                  "kind": "OrdinalSet",
                  "name": "web",
                  "uid": "set"
                }
              ]
            },
            "spec": {
              "containers": [
                {
                  "image": "one",
                  "name": "app"
                }
              ],
              "fieldOfANewerServer": {
                "kept": true
              },
              "hostname": "web-0",
              "subdomain": "web",
              "volumes": [
                {
                  "name": "data",
                  "persistentVolumeClaim": {
                    "claimName": "data-web-0"
                  }
                },
                {
                  "emptyDir": {},
                  "name": "tmp"
                }
              ]
            }
          },
          {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
              "labels": {
                "app": "web"
              },
              "name": "data-web-0",
              "namespace": "ns"
            },
            "spec": {}
          }
        ]"#]]
    .assert_eq(&text.unwrap());
}

#[test]
fn selectors_are_read_and_written() {
    let mut world = World::settled(json!({}));
    let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
        {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"},
    ]});
    world.change(json!({"selector": selector}));
    let status = plan(&world.view).status;
    assert_eq!(
        status.selector.as_deref(),
        Some("app=web,tier notin (a,b),!old,app")
    );
    assert_eq!(status.replicas, 3);
}

/// However many replicas are asked for, a round stays small.
#[test]
fn a_huge_set_is_made_in_pieces() {
    let mut world = World::new(json!({"replicas": i32::MAX, "podManagementPolicy": "Parallel"}));
    world.step();
    assert_eq!(world.step().steps.len(), 500);
    world.kubelets();
    world.image("two");
    assert_eq!(world.step().steps.len(), 1, "the revision");
    assert_eq!(world.step().steps.len(), 500);
}

#[test]
fn a_refusal_is_told_without_its_preamble() {
    let essence = crate::set::waits::essence;
    let invalid = "Pod \"web-0\" is invalid: spec.x: Required value";
    assert_eq!(essence(invalid), "spec.x: Required value");
    let quota = "pods \"web-0\" is forbidden: exceeded quota: q";
    assert_eq!(essence(quota), "exceeded quota: q");
    assert_eq!(essence("no"), "no");
}
