//! The CSI controller service over its real socket, on a real btrfs: volumes that
//! nobody but their caller knows. Needs root and loop devices.

mod common;

use std::collections::HashMap;

use berth_agent::metrics::Operation;
use berth_csi::csi::{
    CapacityRange, ControllerExpandVolumeRequest, ControllerGetVolumeRequest,
    CreateSnapshotRequest, CreateVolumeRequest, DeleteSnapshotRequest, DeleteVolumeRequest,
    GetCapacityRequest, ListSnapshotsRequest, ListVolumesRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Topology,
    TopologyRequirement, ValidateVolumeCapabilitiesRequest, Volume, VolumeContentSource,
    controller_client::ControllerClient,
    volume_capability::access_mode::Mode,
    volume_content_source::{self, SnapshotSource, VolumeSource},
};
use common::{Agent, Machine, NODE, capability, controller_client, node_client};
use tonic::{Code, transport::Channel};

type Client = ControllerClient<Channel>;

const MIB: i64 = 1 << 20;

fn request(name: &str, required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes,
            limit_bytes,
        }),
        volume_capabilities: capability(Mode::SingleNodeWriter).into_iter().collect(),
        ..CreateVolumeRequest::default()
    }
}

async fn create(client: &mut Client, request: CreateVolumeRequest) -> Result<Volume, Code> {
    let answer = client.create_volume(request).await;
    answer
        .map(|answer| answer.into_inner().volume.expect("a volume"))
        .map_err(|status| status.code())
}

async fn delete(client: &mut Client, id: &str) -> Result<(), Code> {
    let request = DeleteVolumeRequest {
        volume_id: id.to_owned(),
        ..DeleteVolumeRequest::default()
    };
    code(client.delete_volume(request).await)
}

fn code<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<(), Code> {
    answer.map(drop).map_err(|status| status.code())
}

async fn list(
    client: &mut Client,
    max_entries: i32,
    starting_token: &str,
) -> (Vec<String>, String) {
    let request = ListVolumesRequest {
        max_entries,
        starting_token: starting_token.to_owned(),
    };
    let page = client.list_volumes(request).await.expect("lists");
    let page = page.into_inner();
    let ids = page.entries.into_iter().filter_map(|entry| entry.volume);
    (
        ids.map(|volume| volume.volume_id).collect(),
        page.next_token,
    )
}

async fn expand(client: &mut Client, id: &str, range: (i64, i64)) -> Result<i64, Code> {
    let request = ControllerExpandVolumeRequest {
        volume_id: id.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: range.0,
            limit_bytes: range.1,
        }),
        ..ControllerExpandVolumeRequest::default()
    };
    let answer = client.controller_expand_volume(request).await;
    answer
        .map(|answer| answer.into_inner().capacity_bytes)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_name_is_one_volume_until_it_is_erased_and_then_another() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = controller_client(&machine).await;

    let first = create(&mut client, request("web", 64 * MIB, 0))
        .await
        .expect("made");
    assert_eq!(
        (first.volume_id.as_str(), first.capacity_bytes),
        ("web", 64 * MIB)
    );
    assert_eq!(
        first.accessible_topology[0].segments["topology.berth.dev/node"],
        NODE
    );
    let again = create(&mut client, request("web", 32 * MIB, 0)).await;
    assert_eq!(again.as_ref(), Ok(&first));
    let larger = create(&mut client, request("web", 65 * MIB, 0)).await;
    assert_eq!(larger, Err(Code::AlreadyExists));
    let demanding = CreateVolumeRequest {
        parameters: HashMap::from([("backend".to_owned(), "btrfs".to_owned())]),
        ..request("web", 64 * MIB, 0)
    };
    assert_eq!(
        create(&mut client, demanding).await,
        Err(Code::AlreadyExists)
    );

    // Erased, the name is free, and its id is not; also after a restart.
    assert_eq!(delete(&mut client, "web").await, Ok(()));
    assert_eq!(delete(&mut client, "web").await, Ok(()));
    assert_eq!(list(&mut client, 0, "").await.0, Vec::<String>::new());
    let second = create(&mut client, request("web", 65 * MIB, 0))
        .await
        .expect("made");
    assert_ne!(second.volume_id, "web");
    drop(client);
    agent.stop().await;
    let agent = Agent::start(&machine).await;
    let mut client = controller_client(&machine).await;
    let again = create(&mut client, request("web", 65 * MIB, 0)).await;
    assert_eq!(again.as_ref(), Ok(&second));
    assert_eq!(delete(&mut client, &second.volume_id).await, Ok(()));
    let third = create(&mut client, request("web", 65 * MIB, 0))
        .await
        .expect("made");
    assert!(
        ![&first, &second]
            .iter()
            .any(|former| former.volume_id == third.volume_id)
    );

    // Names that are no ids.
    for name in ["Web 1", "csi-web", "../../etc"] {
        let made = create(&mut client, request(name, 0, 16 * MIB))
            .await
            .expect("made");
        assert_eq!(made.capacity_bytes, 16 * MIB);
        assert!(made.volume_id.starts_with("csi-"), "{}", made.volume_id);
    }
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn requests_get_the_specifications_codes() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = controller_client(&machine).await;
    let good = || request("v", 64 * MIB, 0);
    let topology = |node: &str| Topology {
        segments: [("topology.berth.dev/node".to_owned(), node.to_owned())].into(),
    };
    let from = |r#type| {
        Some(VolumeContentSource {
            r#type: Some(r#type),
        })
    };
    for (request, expected) in [
        (request("", 1, 0), Code::InvalidArgument),
        (request("v", -1, 0), Code::InvalidArgument),
        (request("v", 2, 1), Code::InvalidArgument),
        (request("v", i64::MAX, 0), Code::ResourceExhausted),
        (
            CreateVolumeRequest {
                volume_capabilities: capability(Mode::MultiNodeMultiWriter).into_iter().collect(),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            CreateVolumeRequest {
                parameters: HashMap::from([("iops".to_owned(), "9".to_owned())]),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            CreateVolumeRequest {
                mutable_parameters: HashMap::from([("iops".to_owned(), "9".to_owned())]),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            CreateVolumeRequest {
                accessibility_requirements: Some(TopologyRequirement {
                    requisite: vec![topology("elsewhere")],
                    preferred: Vec::new(),
                }),
                ..good()
            },
            Code::ResourceExhausted,
        ),
        (
            CreateVolumeRequest {
                volume_content_source: from(volume_content_source::Type::Volume(VolumeSource {
                    volume_id: "gone".to_owned(),
                })),
                ..good()
            },
            Code::NotFound,
        ),
        (
            CreateVolumeRequest {
                volume_content_source: from(volume_content_source::Type::Snapshot(
                    SnapshotSource {
                        snapshot_id: "gone".to_owned(),
                    },
                )),
                ..good()
            },
            Code::NotFound,
        ),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(create(&mut client, request).await, Err(expected), "{shown}");
    }
    assert_eq!(list(&mut client, 0, "").await.0, Vec::<String>::new());

    assert_eq!(delete(&mut client, "").await, Err(Code::InvalidArgument));
    assert_eq!(delete(&mut client, "../v").await, Ok(()));
    let small = CreateVolumeRequest {
        volume_content_source: from(volume_content_source::Type::Volume(VolumeSource {
            volume_id: "v".to_owned(),
        })),
        ..request("small", 63 * MIB, 0)
    };
    create(&mut client, good()).await.expect("made");
    assert_eq!(create(&mut client, small).await, Err(Code::OutOfRange));

    for (id, range, expected) in [
        ("gone", (MIB, 0), Err(Code::NotFound)),
        ("", (MIB, 0), Err(Code::InvalidArgument)),
        ("v", (0, 63 * MIB), Err(Code::OutOfRange)),
        ("v", (i64::MAX, 0), Err(Code::ResourceExhausted)),
        ("v", (MIB, 0), Ok(64 * MIB)),
        ("v", (65 * MIB + 1, 0), Ok(65 * MIB + 1)),
    ] {
        assert_eq!(
            expand(&mut client, id, range).await,
            expected,
            "{id} {range:?}"
        );
    }

    let snapshot = CreateSnapshotRequest {
        name: "s".to_owned(),
        source_volume_id: "gone".to_owned(),
        ..CreateSnapshotRequest::default()
    };
    assert_eq!(
        code(client.create_snapshot(snapshot).await),
        Err(Code::NotFound)
    );
    for (snapshot_id, expected) in [
        ("", Err(Code::InvalidArgument)),
        ("gone", Ok(())),
        ("?", Ok(())),
    ] {
        let request = DeleteSnapshotRequest {
            snapshot_id: snapshot_id.to_owned(),
            ..DeleteSnapshotRequest::default()
        };
        assert_eq!(code(client.delete_snapshot(request).await), expected);
    }
    // The cluster's own: only the cluster erases it.
    let own = berth_api::names::snapshot_name("0a1b2c3d-0000-4000-8000-00000000000f");
    let want = berth_provisioner::SnapshotSpec {
        id: own.clone(),
        volume: "v".to_owned(),
    };
    let work = move |disk: &berth_provisioner::Provisioner| disk.snapshot(&want);
    let taken = agent.disks.operate(Operation::Snapshot, &own, work);
    taken.await.expect("there is room");
    let request = DeleteSnapshotRequest {
        snapshot_id: own.clone(),
        ..DeleteSnapshotRequest::default()
    };
    let refused = client.delete_snapshot(request).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("delete the VolumeSnapshot"));
    let request = CreateSnapshotRequest {
        name: own.clone(),
        source_volume_id: "v".to_owned(),
        ..CreateSnapshotRequest::default()
    };
    let other = client.create_snapshot(request).await.expect("another");
    let other = other.into_inner().snapshot.expect("told").snapshot_id;
    assert_ne!(other, own);
    let token = ListSnapshotsRequest {
        starting_token: "7".to_owned(),
        ..ListSnapshotsRequest::default()
    };
    assert_eq!(code(client.list_snapshots(token).await), Err(Code::Aborted));
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn volumes_are_listed_looked_at_and_counted() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = controller_client(&machine).await;
    for name in ["c", "a", "b"] {
        create(&mut client, request(name, 16 * MIB, 0))
            .await
            .expect("made");
    }
    let (page, token) = list(&mut client, 2, "").await;
    assert_eq!(
        (page, token.as_str()),
        (vec!["a".to_owned(), "b".to_owned()], "after:b")
    );
    // The last one of the page goes before the next page is asked for.
    assert_eq!(delete(&mut client, "b").await, Ok(()));
    assert_eq!(
        list(&mut client, 2, &token).await,
        (vec!["c".to_owned()], String::new())
    );

    let get = |id: &str| ControllerGetVolumeRequest {
        volume_id: id.to_owned(),
    };
    let got = client
        .controller_get_volume(get("a"))
        .await
        .expect("there")
        .into_inner();
    assert_eq!(got.volume.expect("a volume").capacity_bytes, 16 * MIB);
    assert_eq!(
        code(client.controller_get_volume(get("b")).await),
        Err(Code::NotFound)
    );

    let validate = |mode: Mode| ValidateVolumeCapabilitiesRequest {
        volume_id: "a".to_owned(),
        volume_capabilities: capability(mode).into_iter().collect(),
        ..ValidateVolumeCapabilitiesRequest::default()
    };
    for (mode, expected) in [
        (Mode::SingleNodeWriter, true),
        (Mode::MultiNodeMultiWriter, false),
    ] {
        let answer = client.validate_volume_capabilities(validate(mode)).await;
        let answer = answer.expect("answers").into_inner();
        assert_eq!(answer.confirmed.is_some(), expected, "{mode:?}");
        assert_eq!(answer.message.is_empty(), expected, "{mode:?}");
    }

    let everywhere = client.get_capacity(GetCapacityRequest::default()).await;
    let everywhere = everywhere.expect("answers").into_inner();
    assert!(everywhere.available_capacity > 64 * MIB);
    assert_eq!(
        everywhere.maximum_volume_size,
        Some(everywhere.available_capacity)
    );
    let elsewhere = GetCapacityRequest {
        accessible_topology: Some(Topology {
            segments: [("topology.berth.dev/node".to_owned(), "other".to_owned())].into(),
        }),
        ..GetCapacityRequest::default()
    };
    let elsewhere = client
        .get_capacity(elsewhere)
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(elsewhere.available_capacity, 0);
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_volume_in_use_or_of_a_claim_is_not_erased() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = controller_client(&machine).await;
    let mut node = node_client(&machine).await;
    // As the reconciler makes it: its claim has a UID of its own.
    agent.create(&machine, "pvc-1", true).await;
    create(&mut client, request("v", 16 * MIB, 0))
        .await
        .expect("made");
    let stage = NodeStageVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: machine.staging("v"),
        volume_capability: capability(Mode::SingleNodeWriter),
        ..NodeStageVolumeRequest::default()
    };
    node.node_stage_volume(stage.clone()).await.expect("stages");
    let publish = NodePublishVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: machine.staging("v"),
        target_path: machine.target("pod-a", "v"),
        volume_capability: capability(Mode::SingleNodeWriter),
        ..NodePublishVolumeRequest::default()
    };
    node.node_publish_volume(publish.clone())
        .await
        .expect("publishes");
    assert_eq!(
        delete(&mut client, "v").await,
        Err(Code::FailedPrecondition)
    );
    let unpublish = NodeUnpublishVolumeRequest {
        volume_id: "v".to_owned(),
        target_path: publish.target_path,
    };
    node.node_unpublish_volume(unpublish)
        .await
        .expect("unpublishes");
    assert_eq!(
        delete(&mut client, "v").await,
        Err(Code::FailedPrecondition)
    );
    let unstage = NodeUnstageVolumeRequest {
        volume_id: "v".to_owned(),
        staging_target_path: stage.staging_target_path,
    };
    node.node_unstage_volume(unstage).await.expect("unstages");
    assert_eq!(delete(&mut client, "v").await, Ok(()));

    assert_eq!(
        delete(&mut client, "pvc-1").await,
        Err(Code::FailedPrecondition)
    );
    let mine = create(&mut client, request("pvc-1", 0, 0)).await;
    assert_eq!(mine, Err(Code::AlreadyExists));
    drop((client, node));
    agent.stop().await;
}
