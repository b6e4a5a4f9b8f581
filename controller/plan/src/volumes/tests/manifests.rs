//! What PVs and Volumes say.

use super::*;

#[test]
fn the_pv_says_what_kubelet_and_people_need() {
    let mut world = World::new();
    world.class.mount_options = Some(vec!["noatime".to_owned()]);
    let volume = world.volume(VolumePhase::Ready, true);
    volume.status.as_mut().expect("there").size = Some(Bytes(2 * GI));
    world.pv(json!({}));
    let mut pv = serde_json::to_value(&world.pv).expect("a PV");
    pv.as_object_mut().expect("an object").remove("status");
    pv["metadata"]
        .as_object_mut()
        .expect("an object")
        .remove("uid");
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "PersistentVolume",
          "metadata": {
            "annotations": {
              "pv.kubernetes.io/provisioned-by": "csi.berth.dev",
              "volume.kubernetes.io/provisioner-deletion-secret-name": "",
              "volume.kubernetes.io/provisioner-deletion-secret-namespace": ""
            },
            "finalizers": [
              "external-provisioner.volume.kubernetes.io/finalizer"
            ],
            "name": "pvc-u0"
          }
        }"#]]
    .assert_eq(&{
        let mut head = pv.clone();
        head.as_object_mut().expect("an object").remove("spec");
        serde_json::to_string_pretty(&head).expect("text")
    });
    expect![[r#"
        {
          "accessModes": [
            "ReadWriteOncePod"
          ],
          "capacity": {
            "storage": "2Gi"
          },
          "claimRef": {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "name": "data-web-0",
            "namespace": "ns",
            "uid": "u0"
          },
          "csi": {
            "driver": "csi.berth.dev",
            "volumeAttributes": {
              "berth.dev/backend": "btrfs",
              "berth.dev/ordinal": "0",
              "berth.dev/pool": "p1",
              "berth.dev/set": "web",
              "berth.dev/set-kind": "OrdinalSet"
            },
            "volumeHandle": "pvc-u0"
          },
          "mountOptions": [
            "noatime"
          ],
          "nodeAffinity": {
            "required": {
              "nodeSelectorTerms": [
                {
                  "matchExpressions": [
                    {
                      "key": "pool.berth.dev/p1",
                      "operator": "In",
                      "values": [
                        "present"
                      ]
                    }
                  ]
                }
              ]
            }
          },
          "persistentVolumeReclaimPolicy": "Delete",
          "storageClassName": "berth",
          "volumeMode": "Filesystem"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&pv["spec"]).expect("text"));
}

#[test]
fn labels_are_for_selecting() {
    let spec = VolumeSpec {
        pool: "p1".to_owned(),
        node: "n1".to_owned(),
        size: Bytes(GI),
        mode: VolumeMode::Filesystem,
        claim: ClaimRef {
            namespace: "ns".to_owned(),
            name: "data-web-0".to_owned(),
            uid: "u0".to_owned(),
        },
        owner: None,
        source: None,
        backend: None,
        sparse: false,
        adopt: false,
        exposed: false,
        bound: None,
        state: VolumeState::Present,
    };
    let volume = pv::volume("pvc-u0", spec);
    let labels = volume.metadata.labels.expect("labels");
    expect![[r#"{"berth.dev/claim-namespace": "ns"}"#]].assert_eq(&format!("{labels:?}"));
}
