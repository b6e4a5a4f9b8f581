//! Volumes that change hands: handed on, come back from a backup, filled by somebody else.

use super::*;

/// A PersistentVolume that was handed on to another claim.
fn handed_on(world: &mut World) {
    world.pv(json!({
        "spec": {"claimRef": {"namespace": "shop", "name": "new", "uid": "u9"}},
        "status": {"phase": "Bound"},
    }));
    world.claim(json!({
        "metadata": {"namespace": "shop", "name": "new", "uid": "u9"},
        "spec": {"volumeName": "pvc-u0"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
    }));
}

#[test]
fn a_volume_follows_its_pv_to_another_claim() {
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true);
    handed_on(&mut world);
    world.check(expect![[r#"Follow { volume: pvc-u0, claim: ClaimRef { namespace: "shop", name: "new", uid: "u9" }, owner: None, pv: pvc-u0 }"#]]);
    // A claim that only names the volume has it not, nor has one of another UID.
    for patch in [
        json!({"status": {"phase": "Pending"}}),
        json!({"metadata": {"uid": "u8"}}),
        json!({"spec": {"volumeName": "other"}}),
    ] {
        let mut world = World::new();
        world.volume(VolumePhase::Ready, true);
        handed_on(&mut world);
        let claim = world.claim.as_ref().expect("there");
        let mut claim = serde_json::to_value(claim).expect("plain");
        merge(&mut claim, patch.clone());
        world.claim = Some(serde_json::from_value(claim).expect("a claim"));
        assert_eq!(world.decide().step, Step::Nothing, "{patch}");
    }
    // Once it follows, the end of the new claim erases it.
    let volume = world.volume.as_mut().expect("there");
    volume.spec.claim =
        crate::volumes::pv::claim_ref(world.pv.as_ref().expect("there")).expect("bound");
    volume.spec.bound = volume.metadata.uid.clone();
    assert_eq!(world.decide().step, Step::Nothing);
    world.claim = None;
    let mut pv = serde_json::to_value(world.pv.as_ref().expect("there")).expect("plain");
    merge(&mut pv, json!({"status": {"phase": "Released"}}));
    world.pv = Some(serde_json::from_value(pv).expect("a PV"));
    world.check(expect![[
        r#"Erase { volume: pvc-u0, proof: ReleasedPv { pv: "pvc-u0", uid: "pv-uid" } }"#
    ]]);
}

#[test]
fn what_came_back_is_not_erased_before_a_claim_has_lived_here() {
    // As after a restore from a dump: the PersistentVolume names a claim that is gone, so
    // kube-controller-manager releases it. The Volume was recreated from it, or came from
    // the dump too.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true).spec.bound = Some("another".to_owned());
    world.pv(json!({"status": {"phase": "Released"}}));
    world.claim = None;
    world.check(expect![[r#"
        Nothing
        wait: not erased: the volume came back with its PersistentVolume, and has not been bound to a claim of this cluster since; bind it to a claim and delete that, or delete the PersistentVolume and keep the data
        Warning VolumeKept: not erased: the volume came back with its PersistentVolume, and has not been bound to a claim of this cluster since; bind it to a claim and delete that, or delete the PersistentVolume and keep the data"#]]);
    // Whoever deletes the PersistentVolume gets rid of that, and keeps the data.
    let meta = &mut world.pv.as_mut().expect("there").metadata;
    meta.deletion_timestamp =
        serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    world.check(expect!["DropFinalizer { pv: pvc-u0, others: [] }"]);
    // Bound to a living claim, and that deleted: the usual end.
    let mut world = World::new();
    world.volume(VolumePhase::Ready, true).spec.bound = None;
    world.pv(json!({"status": {"phase": "Bound"}}));
    world.claim(json!({"spec": {"volumeName": "pvc-u0"}, "status": {"phase": "Bound"}}));
    world.check(expect![[r#"Follow { volume: pvc-u0, claim: ClaimRef { namespace: "ns", name: "data-web-0", uid: "u0" }, owner: Some(SetRef { kind: "OrdinalSet", name: "web", ordinal: 0 }), pv: pvc-u0 }"#]]);
    let volume = world.volume.as_mut().expect("there");
    volume.spec.bound = volume.metadata.uid.clone();
    assert_eq!(world.decide().step, Step::Nothing);
    world.pv(json!({"status": {"phase": "Released"}}));
    world.claim = None;
    world.check(expect![[
        r#"Erase { volume: pvc-u0, proof: ReleasedPv { pv: "pvc-u0", uid: "pv-uid" } }"#
    ]]);
}

#[test]
fn a_claim_for_a_populator_is_left_to_it() {
    let mut world = World::new();
    let source = json!({"apiGroup": "example.com", "kind": "Filler", "name": "disk"});
    world.claim(json!({"spec": {"dataSourceRef": source}}));
    world.check(expect![[r#"
        Nothing
        wait: waiting for the volume populator of Filler.example.com to fill it from disk"#]]);
}
