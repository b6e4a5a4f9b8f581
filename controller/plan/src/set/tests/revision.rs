//! Revision data, hash and name against what Kubernetes made.

use expect_test::expect;
use serde_json::json;

use super::model::World;
use crate::set::{Action, Set, encode_template, plan, revision_hash};

/// The two revisions that Kubernetes 1.33 and 1.34 made of one template
/// (`pkg/controller/statefulset/testdata` upstream).
#[test]
fn names_are_those_of_kubernetes() {
    let spec = json!({
        "containers": [{
            "image": "test", "imagePullPolicy": "Always", "name": "test", "resources": {},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        }],
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    });
    let metadata = json!({"annotations": {"test": "value"}, "labels": {"app": "foo"}});
    let data = encode_template(&json!({"spec": spec, "metadata": metadata}));
    assert_eq!(
        data,
        r#"{"spec":{"template":{"$patch":"replace","metadata":{"annotations":{"test":"value"},"labels":{"app":"foo"}},"spec":{"containers":[{"image":"test","imagePullPolicy":"Always","name":"test","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}}}"#
    );
    assert_eq!(revision_hash(&data, 0), "776999688b");
    let mut older = metadata;
    older["creationTimestamp"] = json!(null);
    let data = encode_template(&json!({"spec": spec, "metadata": older}));
    assert_eq!(revision_hash(&data, 0), "c77f6d978");
}

#[test]
fn text_and_numbers_are_written_as_go_writes_them() {
    let template = json!({
        "b": "<a href=\"x\">&\u{2028}\u{1}\n\u{8}é",
        "a": [1, 1.5, 1e21, 1.0, 2.5e-7, -3, true, null],
    });
    expect![[r#"{"spec":{"template":{"$patch":"replace","a":[1,1.5,1e+21,1,2.5e-7,-3,true,null],"b":"\u003ca href=\"x\"\u003e\u0026\u2028\u0001\n\bé"}}}"#]]
    .assert_eq(&encode_template(&template));
}

#[test]
fn a_rollback_gives_the_old_revision_the_highest_number() {
    let mut world = World::settled(json!({"replicas": 1}));
    let first = world.view.revisions[0].name.clone();
    world.image("two");
    world.settle();
    assert_eq!(world.view.revisions.len(), 2);
    world.image("one");
    let plan = plan(&world.view);
    assert!(
        matches!(&plan.steps[0].action, Action::RenumberRevision { name, revision: 3, .. } if *name == first),
        "{plan:?}"
    );
    world.settle();
    assert_eq!(world.view.revisions.len(), 2);
    assert_eq!(
        world.view.set.status.current_revision.as_deref(),
        Some(first.as_str())
    );
}

#[test]
fn history_is_kept_to_its_limit_and_no_live_revision_goes() {
    let mut world = World::settled(json!({"replicas": 1, "revisionHistoryLimit": 2}));
    for image in ["two", "three", "four", "five"] {
        world.image(image);
        world.settle();
    }
    assert_eq!(world.view.revisions.len(), 3);
    let live = world.view.set.status.current_revision.clone().unwrap();
    assert!(world.view.revisions.iter().any(|r| r.name == live));
    world.change(json!({"revisionHistoryLimit": 0}));
    world.settle();
    let left: Vec<&str> = world
        .view
        .revisions
        .iter()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(left, [live.as_str()]);
}

#[test]
fn a_taken_name_raises_the_collision_count_before_it_is_used() {
    let mut world = World::new(json!({"replicas": 0}));
    world.step();
    let taken = std::sync::Arc::make_mut(&mut world.view.revisions[0]);
    taken.controller = Some("another".into());
    let free = taken.name.clone();
    world.view.set.status = Default::default();
    let plan = world.step();
    assert_eq!(plan.status.collision_count, Some(1));
    assert!(plan.status_first && plan.steps.is_empty());
    world.settle();
    let ours = world.view.set.status.update_revision.clone().unwrap();
    assert_ne!(ours, free);
    assert_eq!(world.view.set.status.collision_count, Some(1));
}

#[test]
fn an_orphaned_revision_is_adopted() {
    let mut world = World::settled(json!({"replicas": 1}));
    std::sync::Arc::make_mut(&mut world.view.revisions[0]).controller = None;
    let plan = world.step();
    assert!(matches!(plan.steps[0].action, Action::AdoptRevision { .. }));
    assert_eq!(world.view.revisions.len(), 1);
    world.settle();
    assert_eq!(world.view.revisions.len(), 1);
}

#[test]
fn a_field_left_blank_is_no_other_template() {
    let read = |metadata| {
        let mut set = berth_api::OrdinalSet::new("web", Default::default());
        set.spec.template = json!({"metadata": metadata, "spec": {}});
        Set::from(&set).spec.template
    };
    assert_eq!(
        read(json!({"creationTimestamp": null, "labels": {}})),
        read(json!({"labels": {}}))
    );
    let blank = json!({"nodeSelector": null, "containers": [{"name": "main", "env": null}]});
    let mut set = berth_api::OrdinalSet::default();
    set.spec.template = json!({"spec": blank});
    set.spec.volume_claim_templates = vec![json!({"spec": {"selector": null}})];
    let set = Set::from(&set).spec;
    assert_eq!(
        set.template,
        json!({"spec": {"containers": [{"name": "main"}]}})
    );
    assert_eq!(set.volume_claim_templates, [json!({"spec": {}})]);
    // Also where the list itself is blank.
    let blank = json!({"selector": {}, "template": {}, "volumeClaimTemplates": null});
    let blank: berth_api::OrdinalSetSpec = serde_json::from_value(blank).expect("a spec");
    assert!(blank.volume_claim_templates.is_empty());
    assert_eq!(
        Set::from(&berth_api::OrdinalSet::default()).spec.template,
        json!(null)
    );
}
