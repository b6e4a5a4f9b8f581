//! Growing, and asking for less again.

use super::*;

#[test]
fn growing_goes_from_the_disk_to_the_claim() {
    let bound = |size: &str, told: &str| {
        json!({
            "spec": {"volumeName": "pvc-u0", "resources": {"requests": {"storage": size}}},
            "status": {"phase": "Bound", "capacity": {"storage": told}},
        })
    };
    let mut world = World::new();
    world.claim(bound("1Gi", "1Gi"));
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({}));
    world.check(expect!["Nothing"]);
    world.claim(bound("20Gi", "1Gi"));
    world.check(expect![[r#"
        ClaimResizing { claim: data-web-0, size: Quantity("20Gi"), how: Infeasible, conditions: [PersistentVolumeClaimCondition { last_probe_time: None, last_transition_time: None, message: Some("pool p1 has 9Gi free, 19Gi more are needed; ask for less, or free some space"), reason: None, status: "True", type_: "ControllerResizeError" }] }
        wait: pool p1 has 9Gi free, 19Gi more are needed; ask for less, or free some space
        Warning VolumeResizeFailed: pool p1 has 9Gi free, 19Gi more are needed; ask for less, or free some space"#]]);
    // What the claim tells, as the API server would have it.
    let told = |world: &mut World, mut claim: Value| match world.decide().step {
        Step::Act(Action::ClaimResizing {
            size,
            how,
            conditions,
            ..
        }) => {
            let status = json!({
                "allocatedResources": {"storage": size},
                "allocatedResourceStatuses": {"storage": how.name()},
                "conditions": conditions,
            });
            merge(&mut claim, json!({"status": status}));
            world.claim(claim);
        }
        step => panic!("{step:?}"),
    };
    told(&mut world, bound("20Gi", "1Gi"));
    world.check(expect![[r#"
        Nothing
        wait: pool p1 has 9Gi free, 19Gi more are needed; ask for less, or free some space
        Warning VolumeResizeFailed: pool p1 has 9Gi free, 19Gi more are needed; ask for less, or free some space"#]]);
    world.claim(bound("10Gi", "1Gi"));
    world.check(expect![[r#"
        ClaimResizing { claim: data-web-0, size: Quantity("10Gi"), how: InProgress, conditions: [PersistentVolumeClaimCondition { last_probe_time: None, last_transition_time: None, message: None, reason: None, status: "True", type_: "Resizing" }] }
        Normal Resizing: from 1Gi to 10Gi"#]]);
    told(&mut world, bound("10Gi", "1Gi"));
    world.check(expect!["Resize { volume: pvc-u0, size: 10737418240 }"]);
    let volume = world.volume.as_mut().expect("there");
    volume.spec.size = Bytes(10 * GI);
    volume.metadata.generation = Some(2);
    world.check(expect![[r#"
        Nothing
        wait: growing on n1"#]]);
    let status = world.volume.as_mut().expect("there").status.as_mut();
    status.expect("there").observed_generation = Some(2);
    world.check(expect![[r#"
        ClaimResizing { claim: data-web-0, size: Quantity("10Gi"), how: Infeasible, conditions: [PersistentVolumeClaimCondition { last_probe_time: None, last_transition_time: None, message: Some("says the agent"), reason: None, status: "True", type_: "ControllerResizeError" }] }
        wait: says the agent; ask for less, or free some space
        Warning VolumeResizeFailed: says the agent; ask for less, or free some space"#]]);
    told(&mut world, bound("10Gi", "1Gi"));
    world.check(expect![[r#"
        Nothing
        wait: says the agent; ask for less, or free some space
        Warning VolumeResizeFailed: says the agent; ask for less, or free some space"#]]);
    let status = world.volume.as_mut().expect("there").status.as_mut();
    status.expect("there").size = Some(Bytes(10 * GI));
    world.check(expect!["PvCapacity { pv: pvc-u0, size: 10737418240 }"]);
    world.pv(json!({}));
    world.check(expect![[r#"
        ClaimCapacity { claim: data-web-0, size: 10737418240, conditions: [] }
        Normal VolumeResizeSuccessful: the volume has 10Gi now"#]]);
    world.claim(bound("10Gi", "10Gi"));
    world.check(expect!["Nothing"]);
}

/// A claim that grows may ask for less again, as long as the size is not reached.
#[test]
fn a_growth_that_was_refused_is_lowered_again() {
    let asks = |size: &str| {
        json!({
            "spec": {"volumeName": "pvc-u0", "resources": {"requests": {"storage": size}}},
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        })
    };
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    world.pv(json!({}));
    let volume = world.volume.as_mut().expect("there");
    volume.spec.size = Bytes(8 * GI);
    volume.metadata.generation = Some(2);
    volume.status.as_mut().expect("there").observed_generation = Some(2);
    // The agent said no: nothing is taken for it.
    assert_eq!(room::size_of(world.volume.as_ref().expect("there")), GI);
    world.claim(asks("2Gi"));
    world.check(expect!["Resize { volume: pvc-u0, size: 2147483648 }"]);
    // Back to where it was.
    world.claim(asks("1Gi"));
    world.check(expect!["Resize { volume: pvc-u0, size: 1073741824 }"]);
    // Never below what the backend holds already.
    let status = world.volume.as_mut().expect("there").status.as_mut();
    status.expect("there").size = Some(Bytes(4 * GI));
    world.claim(asks("2Gi"));
    world.check(expect!["Resize { volume: pvc-u0, size: 4294967296 }"]);
    // More than any disk has.
    world.claim(asks("9223372036854775807Gi"));
    world.check(expect![[r#"
        ClaimResizing { claim: data-web-0, size: Quantity("9223372036854775807Gi"), how: Infeasible, conditions: [PersistentVolumeClaimCondition { last_probe_time: None, last_transition_time: None, message: Some("pool p1 has 6Gi free, 15.9Ei more are needed; ask for less, or free some space"), reason: None, status: "True", type_: "ControllerResizeError" }] }
        wait: pool p1 has 6Gi free, 15.9Ei more are needed; ask for less, or free some space
        Warning VolumeResizeFailed: pool p1 has 6Gi free, 15.9Ei more are needed; ask for less, or free some space"#]]);
}
