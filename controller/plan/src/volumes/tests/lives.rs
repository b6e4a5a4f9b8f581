//! From claim to PV, and back to nothing: which write comes next.

use super::*;

#[test]
fn the_way_to_a_pv() {
    let mut world = World::new();
    world.check(expect!["Place"]);
    world.volume(VolumePhase::Pending, false);
    world.check(expect![[r"
        Nothing
        wait: waiting for the agent on n1"]]);
    world.volume(VolumePhase::Ready, false);
    world.check(expect![[r"
        Expose mark=true pvc-u0
        Normal ProvisioningSucceeded: volume pvc-u0 of 1Gi is ready in pool p1 on n1"]]);
    world.peers = Peers::Waiting(ClaimWait::in_progress(
        "waiting for the pod's other claim log-web-0",
    ));
    world.check(expect![[r"
        Nothing
        wait: waiting for the pod's other claim log-web-0"]]);
    world.peers = Peers::Ready;
    world.nodes.insert("n1".to_owned(), Node::default());
    world.check(expect![[r"
        Nothing
        wait: waiting for the label pool.berth.dev/p1 on node n1"]]);
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({}));
    world.check(expect!["Nothing"]);
}

#[test]
fn claims_that_are_not_due_are_left_alone() {
    for patch in [
        json!({"metadata": {"annotations": {names::SELECTED_NODE: null}}}),
        json!({"metadata": {"annotations": {names::STORAGE_PROVISIONER: "other"}}}),
        json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
        json!({"spec": {"volumeName": "pv-by-hand"}}),
    ] {
        let mut world = World::new();
        world.claim(patch.clone());
        assert_eq!(world.decide().step, Step::Nothing, "{patch}");
    }
    let mut world = World::new();
    world.class.immediate = true;
    world.claim(json!({"metadata": {"annotations": {names::SELECTED_NODE: null}}}));
    assert_eq!(world.decide().step, Step::Place);
}

#[test]
fn refusals_of_the_agent_send_the_claim_elsewhere() {
    let mut world = World::new();
    world.volume(VolumePhase::NoRoom, false);
    world.check(expect![[r#"
        DropVolume { volume: pvc-u0, refused: Some(Refused { pool: "p1", size: 1073741824 }) }
        Normal NoRoom: pool p1 on n1 has no room: says the agent"#]]);
    world.volume(VolumePhase::Failed, false);
    world.check(expect![[r"
        Nothing
        wait: n1: says the agent
        Warning ProvisioningFailed: n1: says the agent"]]);
}

#[test]
fn what_no_pod_has_seen_leaves_dead_nodes_and_lost_disks() {
    for phase in [
        VolumePhase::Pending,
        VolumePhase::Failed,
        VolumePhase::Ready,
    ] {
        let mut world = World::new();
        world.volume(phase, false);
        world.nodes.clear();
        world.check(expect![[r#"
            Reschedule { volume: pvc-u0, erase: false, claim: Some(data-web-0), pool: "p1" }
            Warning ProvisioningFailed: node n1 went away before the volume was used"#]]);
        let mut world = World::new();
        world.volume(phase, false);
        world.standing(Standing::DeclaredLost);
        world.check(expect![[r#"
            Reschedule { volume: pvc-u0, erase: false, claim: Some(data-web-0), pool: "p1" }
            Warning ProvisioningFailed: pool p1 was declared lost before the volume was used"#]]);
        // Nobody will answer that it is erased.
        world.volume.as_mut().expect("there").spec.state = VolumeState::Deleted;
        world.check(expect!["DropVolume { volume: pvc-u0, refused: None }"]);
        // What pods may have seen stays.
        world.volume(phase, true);
        let step = world.decide().step;
        assert!(
            !matches!(step, Step::Act(Action::Reschedule { .. })),
            "{step:?}"
        );
    }
}

#[test]
fn what_no_pod_has_seen_leaves_nodes_that_are_silent() {
    let at = |second| Timestamp::from_second(second).expect("a time");
    for phase in [
        VolumePhase::Pending,
        VolumePhase::Failed,
        VolumePhase::Ready,
    ] {
        let mut world = World::new();
        world.volume(phase, false);
        world.nodes.get_mut("n1").expect("there").silent = Some(at(0));
        world.now = at(59);
        let decision = world.decide();
        assert!(!matches!(
            decision.step,
            Step::Act(Action::Reschedule { .. })
        ));
        assert_eq!(decision.again.filter(|_| phase != VolumePhase::Failed), {
            (phase != VolumePhase::Failed).then(|| at(60))
        });
        world.now = at(60);
        world.check(expect![[r#"
            Reschedule { volume: pvc-u0, erase: true, claim: Some(data-web-0), pool: "p1" }
            Warning ProvisioningFailed: node n1 is not ready, and no pod has used the volume there yet"#]]);
        // The agent may have made it; but the claim does not wait for a dead one's answer.
        world.volume.as_mut().expect("there").spec.state = VolumeState::Deleted;
        let decision = world.decide();
        assert_eq!(
            (decision.step, decision.again),
            (Step::Nothing, Some(at(120)))
        );
        world.now = at(120);
        world.check(expect!["DropVolume { volume: pvc-u0, refused: None }"]);
        // What pods may have used stays.
        world.volume(phase, true);
        let step = world.decide().step;
        assert!(
            !matches!(step, Step::Act(Action::Reschedule { .. })),
            "{step:?}"
        );
        world.volume.as_mut().expect("there").spec.state = VolumeState::Deleted;
        assert_eq!(world.decide().step, Step::Nothing);
    }
}

#[test]
fn what_cannot_be_made_in_a_pool_is_taken_back_and_tried_elsewhere() {
    let mut world = World::new();
    world.volume(VolumePhase::Failed, false);
    world.standing(Standing::Unhealthy);
    world.check(expect![[r#"
        Reschedule { volume: pvc-u0, erase: true, claim: Some(data-web-0), pool: "p1" }
        Warning ProvisioningFailed: n1: says the agent"#]]);
    // Where the pool is said to be well, its agent is given some time.
    world.standing(Standing::Granted);
    let status = world.volume.as_mut().expect("there").status.as_mut();
    let failed = json!([{
        "type": names::condition::READY, "status": "False", "reason": "Failed",
        "message": "", "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]);
    status.expect("there").conditions = serde_json::from_value(failed).expect("conditions");
    assert_eq!(world.decide().again, Timestamp::from_second(120).ok());
    world.check(expect![[r#"
        Nothing
        wait: n1: says the agent
        Warning ProvisioningFailed: n1: says the agent"#]]);
    world.now = Timestamp::from_second(120).expect("a time");
    world.check(expect![[r#"
        Reschedule { volume: pvc-u0, erase: true, claim: Some(data-web-0), pool: "p1" }
        Warning ProvisioningFailed: n1: says the agent"#]]);
    // Its room is taken until the agent has answered.
    world.volume.as_mut().expect("there").spec.state = VolumeState::Deleted;
    world.check(expect![[r#"
        Nothing
        wait: says the agent"#]]);
}

#[test]
fn a_volume_on_a_node_that_is_no_longer_chosen_goes() {
    for node in [json!(null), json!("n2")] {
        let mut world = World::new();
        world.claim(json!({"metadata": {"annotations": {names::SELECTED_NODE: node}}}));
        world.volume(VolumePhase::Ready, false);
        let proof = Proof::NeverExposed;
        let volume = Target::of(&world.volume.as_ref().expect("there").metadata);
        let erase = Step::Act(Action::Erase { volume, proof });
        assert_eq!(world.decide().step, erase);
        // Unless pods may have seen it, or nobody asked a scheduler.
        world.volume(VolumePhase::Ready, true);
        assert!(matches!(
            world.decide().step,
            Step::Act(Action::Expose { .. })
        ));
        world.volume(VolumePhase::Ready, false);
        world.class.immediate = true;
        assert!(matches!(
            world.decide().step,
            Step::Act(Action::Expose { .. })
        ));
    }
}

#[test]
fn what_was_exposed_is_never_erased_because_something_vanished() {
    // Neither PV nor claim: retained.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.claim = None;
    world.check(expect!["Nothing"]);
    // Adopted volumes count as exposed.
    world.volume.as_mut().expect("there").metadata.annotations = None;
    world.volume.as_mut().expect("there").spec.adopt = true;
    world.check(expect!["Nothing"]);
    // The PV alone vanished: it is made again.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.claim(json!({"spec": {"volumeName": "pvc-u0"}, "status": {"phase": "Lost"}}));
    world.check(expect![[r"
        Expose mark=false pvc-u0
        Normal ProvisioningSucceeded: volume pvc-u0 of 1Gi is ready in pool p1 on n1"]]);
    // Its data is not there: nothing is made in its place.
    world.volume(VolumePhase::Lost, true);
    world.check(expect![[r"
        Nothing
        wait: the data is not in pool p1 on n1: says the agent
        Warning DataLost: the data is not in pool p1 on n1: says the agent"]]);
}

#[test]
fn a_claim_that_vanishes_before_its_pv_leaves_nothing() {
    let mut world = World::new();
    world.volume(VolumePhase::Ready, false);
    world.claim = None;
    world.check(expect!["Erase { volume: pvc-u0, proof: NeverExposed }"]);
    world.volume.as_mut().expect("there").spec.state = VolumeState::Deleted;
    world.check(expect![[r"
        Nothing
        wait: says the agent"]]);
    let status = world.volume.as_mut().expect("there").status.as_mut();
    status.expect("there").phase = VolumePhase::Deleted;
    world.check(expect!["DropVolume { volume: pvc-u0, refused: None }"]);
    // Nothing was made: nothing to erase.
    let mut world = World::new();
    world.volume(VolumePhase::NoRoom, false);
    world.claim = None;
    world.check(expect!["DropVolume { volume: pvc-u0, refused: None }"]);
}

/// Runs the steps of deletion as API server and agent would, and lists them.
fn run_down(world: &mut World) -> Vec<String> {
    let mut steps = Vec::new();
    for _ in 0..20 {
        let step = world.decide().step;
        let Step::Act(action) = step else {
            steps.push(format!("{step:?}"));
            return steps;
        };
        steps.push(format!("{action:?}"));
        match action {
            Action::Erase { .. } => {
                let volume = world.volume.as_mut().expect("there");
                volume.spec.state = VolumeState::Deleted;
                let status = volume.status.get_or_insert_default();
                status.phase = VolumePhase::Deleted;
            }
            Action::DeletePv { .. } => {
                let meta = &mut world.pv.as_mut().expect("there").metadata;
                meta.deletion_timestamp =
                    serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
            }
            Action::DropFinalizer { .. } => world.pv = None,
            Action::DropVolume { .. } => world.volume = None,
            Action::Adopt { volume, .. } => world.volume = Some(*volume),
            other => panic!("{other:?} on the way down"),
        }
    }
    panic!("no end: {steps:?}");
}

#[test]
fn a_released_pv_with_policy_delete_is_erased_in_order() {
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({"status": {"phase": "Released"}}));
    // As long as the claim is there, nothing happens.
    assert_eq!(world.decide().step, Step::Nothing);
    world.claim = None;
    expect![[r#"
        Erase { volume: pvc-u0, proof: ReleasedPv { pv: "pvc-u0", uid: "pv-uid" } }
        DeletePv { pv: pvc-u0 }
        DropFinalizer { pv: pvc-u0, others: [] }
        DropVolume { volume: pvc-u0, refused: None }
        Nothing"#]]
    .assert_eq(&run_down(&mut world).join("\n"));
    // A PV that was deleted before its claim is cleaned up all the same.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}));
    assert_eq!(world.decide().step, Step::Nothing);
    world.claim = None;
    expect![[r#"
        Erase { volume: pvc-u0, proof: ReleasedPv { pv: "pvc-u0", uid: "pv-uid" } }
        DropFinalizer { pv: pvc-u0, others: [] }
        DropVolume { volume: pvc-u0, refused: None }
        Nothing"#]]
    .assert_eq(&run_down(&mut world).join("\n"));
    // Without its Volume object: that is made again, and nothing else, since nobody saw
    // the claim live.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({"status": {"phase": "Released"}}));
    (world.claim, world.volume) = (None, None);
    let steps = run_down(&mut world);
    assert!(
        steps[0].starts_with("Adopt") && steps[1] == "Nothing",
        "{steps:?}"
    );
}

#[test]
fn the_agent_erases_first_and_a_lost_pool_need_not() {
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true).spec.state = VolumeState::Deleted;
    world
        .volume
        .as_mut()
        .expect("there")
        .status
        .as_mut()
        .expect("there")
        .message = None;
    world.pv(json!({"status": {"phase": "Released"}}));
    world.claim = None;
    world.check(expect![[r"
        Nothing
        wait: waiting for the agent on n1 to erase the data"]]);
    world.standing(Standing::Missing);
    world.check(expect![[r"
        Nothing
        wait: the data cannot be erased: pool p1 is Missing; bring it back, or set spec.lost on the Pool"]]);
    world.standing(Standing::DeclaredLost);
    expect![[r#"
        DeletePv { pv: pvc-u0 }
        DropFinalizer { pv: pvc-u0, others: [] }
        DropVolume { volume: pvc-u0, refused: None }
        Nothing"#]]
    .assert_eq(&run_down(&mut world).join("\n"));
}

#[test]
fn retain_keeps_the_data() {
    let mut world = World::new();
    world.class.reclaim = "Retain".to_owned();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({"status": {"phase": "Released"}}));
    world.claim = None;
    world.check(expect!["Nothing"]);
    let meta = &mut world.pv.as_mut().expect("there").metadata;
    meta.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    world.check(expect!["DropFinalizer { pv: pvc-u0, others: [] }"]);
    world.pv = None;
    world.check(expect!["Nothing"]);
}

#[test]
fn a_volume_object_is_made_again_from_its_pv() {
    let mut world = World::new();
    let before = world.volume(VolumePhase::Ready, true).spec.clone();
    world.pv(json!({}));
    world.volume = None;
    world.check(expect!["Adopt p1 on n1"]);
    let Step::Act(Action::Adopt { volume, .. }) = world.decide().step else {
        panic!("not adopted");
    };
    let expected = VolumeSpec {
        sparse: false,
        adopt: true,
        bound: None,
        backend: Some(Backend::Btrfs),
        ..before
    };
    assert_eq!(volume.spec, expected);
    world.grants.clear();
    world.check(expect![[r"
        Nothing
        wait: no node reports pool p1; bring the disk or its node back
        Warning PoolMissing: no node reports pool p1; bring the disk or its node back"]]);
}

#[test]
fn volumes_follow_their_pool() {
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({}));
    world.grants.get_mut("p1").expect("p1").node = Some("n2".to_owned());
    world.check(expect![[r#"
        MoveTo { volume: pvc-u0, node: "n2" }
        Normal PoolMoved: pool p1 is on n2 now"#]]);
    world.standing(Standing::Conflict);
    world.check(expect!["Nothing"]);
}
