//! An OrdinalSet's own ways back and round: `rollbackTo` and `restartedAt`.

use expect_test::expect;
use serde_json::json;

use super::model::World;

#[test]
fn a_rollback_gives_pods_the_template_of_that_revision() {
    let mut world = World::settled(json!({}));
    let first = world.pod(0).unwrap().revision().to_owned();
    world.image("two");
    world.settle();
    world.change(json!({"rollbackTo": first}));
    world.settle();
    assert!(world.view.pods.iter().all(|p| p.revision() == first));
    let status = &world.view.set.status;
    assert_eq!(status.update_revision.as_deref(), Some(first.as_str()));
    let rolled = |world: &World| {
        let conditions = &world.view.set.status.conditions;
        let found = conditions.iter().find(|c| c.type_ == "RolledBack");
        found
            .map(|c| (c.status.clone(), c.message.clone()))
            .unwrap()
    };
    expect![[r#"("True", "replicas get revision web-76b697b479; spec.template is not used until spec.rollbackTo is removed")"#]]
        .assert_eq(&format!("{:?}", rolled(&world)));
    // A changed template waits behind the rollback; without it, it counts.
    world.image("three");
    world.settle();
    assert!(world.view.pods.iter().all(|p| p.revision() == first));
    world.change(json!({"rollbackTo": null}));
    world.settle();
    assert!(world.view.pods.iter().all(|p| p.revision() != first));
    assert_eq!(rolled(&world).0, "False");
    assert_eq!(world.view.revisions.len(), 3);
}

#[test]
fn an_unknown_revision_changes_nothing_and_says_so() {
    let mut world = World::settled(json!({}));
    let before = world.view.pods.clone();
    world.change(json!({"rollbackTo": "web-nothing"}));
    world.image("two");
    world.settle();
    assert_eq!(world.view.pods, before);
    expect![[r#"
        OrdinalSet ns/web: 3 wanted, 3 exist, 3 ready, 3 available, 3 updated
        policy: OrderedReady; RollingUpdate from the top down to ordinal 0, at most 1 unavailable; claims are kept on scale-down, kept with the set
        nothing to do
        wait: web: no revision web-nothing to go back to; the template stays as it was until spec.rollbackTo names one of [web-76b697b479] or is removed (RevisionUnknown)
    "#]].assert_eq(&world.explain());
    // Replicas are cared for meanwhile.
    world.remove(1);
    world.settle();
    assert_eq!(world.view.set.status.available_replicas, 3);
}

#[test]
fn a_restart_replaces_older_pods_by_the_rules_of_a_rollout() {
    let mut world = World::settled(json!({}));
    world.pass(60);
    let later = world
        .view
        .now
        .checked_add(jiff::SignedDuration::from_secs(30));
    world.change(json!({"restartedAt": later.unwrap()}));
    let plan = world.step();
    assert!(
        world.log.is_empty(),
        "the moment has not come: {:?}",
        world.log
    );
    assert_eq!(plan.requeue_after_ms, Some(30_001));
    world.pass(60);
    world.settle();
    expect![[r#"
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
    assert_eq!(world.view.revisions.len(), 1);
    assert_eq!(world.view.set.status.updated_replicas, 3);
}
