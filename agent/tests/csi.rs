//! The CSI services over their real socket, on a real btrfs. Needs root and loop
//! devices.

mod common;

use std::{collections::HashMap, fs, path::Path};

use berth_agent::metrics::Operation;
use berth_csi::csi::{
    CapacityRange, GetPluginCapabilitiesRequest, GetPluginInfoRequest, NodeExpandVolumeRequest,
    NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, ProbeRequest,
    node_client::NodeClient,
    node_service_capability::{Type, rpc},
    volume_capability::access_mode::Mode,
};
use common::{Agent, Machine, NODE, capability, identity_client, node_client};
use tonic::{Code, transport::Channel};

type Client = NodeClient<Channel>;

async fn stage(client: &mut Client, machine: &Machine, id: &str) -> Result<(), Code> {
    let request = NodeStageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: machine.staging(id),
        volume_capability: capability(Mode::SingleNodeWriter),
        ..NodeStageVolumeRequest::default()
    };
    code(client.node_stage_volume(request).await)
}

async fn unstage(client: &mut Client, machine: &Machine, id: &str) -> Result<(), Code> {
    let request = NodeUnstageVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: machine.staging(id),
    };
    code(client.node_unstage_volume(request).await)
}

fn publish_request(machine: &Machine, id: &str, pod: &str, mode: Mode) -> NodePublishVolumeRequest {
    NodePublishVolumeRequest {
        volume_id: id.to_owned(),
        staging_target_path: machine.staging(id),
        target_path: machine.target(pod, id),
        volume_capability: capability(mode),
        volume_context: HashMap::from([("csi.storage.k8s.io/pod.uid".to_owned(), pod.to_owned())]),
        ..NodePublishVolumeRequest::default()
    }
}

async fn publish(client: &mut Client, machine: &Machine, id: &str, pod: &str) -> Result<(), Code> {
    let request = publish_request(machine, id, pod, Mode::SingleNodeWriter);
    code(client.node_publish_volume(request).await)
}

async fn unpublish(
    client: &mut Client,
    machine: &Machine,
    id: &str,
    pod: &str,
) -> Result<(), Code> {
    let request = NodeUnpublishVolumeRequest {
        volume_id: id.to_owned(),
        target_path: machine.target(pod, id),
    };
    code(client.node_unpublish_volume(request).await)
}

fn code<T>(result: Result<tonic::Response<T>, tonic::Status>) -> Result<(), Code> {
    result.map(drop).map_err(|status| status.code())
}

async fn stats(client: &mut Client, id: &str, path: &str) -> Result<Vec<i64>, Code> {
    let request = NodeGetVolumeStatsRequest {
        volume_id: id.to_owned(),
        volume_path: path.to_owned(),
        ..NodeGetVolumeStatsRequest::default()
    };
    client
        .node_get_volume_stats(request)
        .await
        .map(|answer| answer.into_inner().usage.iter().map(|u| u.total).collect())
        .map_err(|status| status.code())
}

#[tokio::test]
async fn says_who_it_is_and_what_it_can() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut identity = identity_client(&machine).await;
    let info = identity
        .get_plugin_info(GetPluginInfoRequest {})
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(info.name, "csi.berth.dev");
    assert_eq!(info.vendor_version, berth_telemetry::VERSION);
    let probe = identity.probe(ProbeRequest {}).await.expect("answers");
    assert_eq!(probe.into_inner().ready, Some(true));
    let capabilities = identity
        .get_plugin_capabilities(GetPluginCapabilitiesRequest {})
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(capabilities.capabilities.len(), 3);

    let mut client = node_client(&machine).await;
    let info = client
        .node_get_info(NodeGetInfoRequest {})
        .await
        .expect("answers")
        .into_inner();
    assert_eq!(info.node_id, NODE);
    let segments = info.accessible_topology.expect("has a topology").segments;
    assert_eq!(segments["topology.berth.dev/node"], NODE);
    let capabilities: Vec<_> = client
        .node_get_capabilities(NodeGetCapabilitiesRequest {})
        .await
        .expect("answers")
        .into_inner()
        .capabilities
        .into_iter()
        .filter_map(|capability| match capability.r#type? {
            Type::Rpc(rpc) => Some(rpc.r#type()),
        })
        .collect();
    assert_eq!(
        capabilities,
        [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            rpc::Type::SingleNodeMultiWriter,
            rpc::Type::GetVolumeHealth,
            rpc::Type::GetStorageHealth,
        ]
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_volume_is_mounted_survives_a_restart_and_is_unmounted() {
    let machine = Machine::new();
    let mut agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    let report = agent.create(&machine, "v1", true).await;
    let target = machine.target("pod-a", "v1");

    for _ in 0..2 {
        assert_eq!(stage(&mut client, &machine, "v1").await, Ok(()));
    }
    assert_eq!(agent.changes.recv().await.as_deref(), Some("v1"));
    for _ in 0..2 {
        assert_eq!(publish(&mut client, &machine, "v1", "pod-a").await, Ok(()));
    }
    fs::File::create(Path::new(&target).join("file")).expect("the pod can write");
    assert!(report.path.join("file").exists(), "the data is on the host");

    assert_eq!(stats(&mut client, "v1", &target).await, Ok(vec![64 << 20]));
    let staging = machine.staging("v1");
    assert_eq!(stats(&mut client, "v1", &staging).await, Ok(vec![64 << 20]));
    assert_eq!(
        stats(&mut client, "v1", "/some/path").await,
        Err(Code::NotFound)
    );

    // Another pod of the set waits until the first one is gone.
    assert_eq!(
        publish(&mut client, &machine, "v1", "pod-b").await,
        Err(Code::FailedPrecondition)
    );

    drop(client);
    agent.stop().await;
    assert!(Path::new(&target).join("file").exists(), "still mounted");

    let agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    assert_eq!(stage(&mut client, &machine, "v1").await, Ok(()));
    assert_eq!(publish(&mut client, &machine, "v1", "pod-a").await, Ok(()));
    assert_eq!(
        publish(&mut client, &machine, "v1", "pod-b").await,
        Err(Code::FailedPrecondition)
    );
    for _ in 0..2 {
        assert_eq!(
            unpublish(&mut client, &machine, "v1", "pod-a").await,
            Ok(())
        );
    }
    assert!(!Path::new(&target).exists());
    assert_eq!(publish(&mut client, &machine, "v1", "pod-b").await, Ok(()));
    let other = machine.target("pod-b", "v1");
    assert!(Path::new(&other).join("file").exists(), "the same data");
    assert_eq!(
        unpublish(&mut client, &machine, "v1", "pod-b").await,
        Ok(())
    );
    for _ in 0..2 {
        assert_eq!(unstage(&mut client, &machine, "v1").await, Ok(()));
    }
    assert_eq!(stats(&mut client, "v1", &target).await, Err(Code::NotFound));
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn bad_requests_get_the_specifications_codes() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    agent.create(&machine, "v1", false).await;

    assert_eq!(
        stage(&mut client, &machine, "").await,
        Err(Code::InvalidArgument)
    );
    assert_eq!(
        stage(&mut client, &machine, "other").await,
        Err(Code::NotFound)
    );
    // Not staged yet.
    assert_eq!(
        publish(&mut client, &machine, "v1", "pod-a").await,
        Err(Code::FailedPrecondition)
    );
    assert_eq!(stage(&mut client, &machine, "v1").await, Ok(()));

    let good = || publish_request(&machine, "v1", "pod-a", Mode::SingleNodeSingleWriter);
    for (request, expected) in [
        (
            NodePublishVolumeRequest {
                volume_id: String::new(),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            NodePublishVolumeRequest {
                target_path: String::new(),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            NodePublishVolumeRequest {
                volume_capability: None,
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            NodePublishVolumeRequest {
                staging_target_path: String::new(),
                ..good()
            },
            Code::FailedPrecondition,
        ),
        (
            NodePublishVolumeRequest {
                target_path: "/etc/berth".to_owned(),
                ..good()
            },
            Code::InvalidArgument,
        ),
        (
            NodePublishVolumeRequest {
                volume_id: "other".to_owned(),
                ..good()
            },
            Code::NotFound,
        ),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(
            code(client.node_publish_volume(request).await),
            Err(expected),
            "{shown}"
        );
    }

    // A single writer is alone, whoever else asks and with whatever mode.
    assert_eq!(code(client.node_publish_volume(good()).await), Ok(()));
    let second = publish_request(&machine, "v1", "pod-b", Mode::SingleNodeSingleWriter);
    assert_eq!(
        code(client.node_publish_volume(second).await),
        Err(Code::FailedPrecondition)
    );
    assert_eq!(
        unpublish(&mut client, &machine, "v1", "pod-a").await,
        Ok(())
    );
    // What is not known cannot be mounted any more: kubelet must get on.
    assert_eq!(
        unpublish(&mut client, &machine, "other", "pod-a").await,
        Ok(())
    );
    assert_eq!(unstage(&mut client, &machine, "v1").await, Ok(()));
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_second_operation_on_a_volume_is_turned_away() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    agent.create(&machine, "v1", false).await;
    agent.create(&machine, "v2", false).await;

    let (started, running) = tokio::sync::oneshot::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let disks = agent.disks.clone();
    let first = tokio::spawn(async move {
        disks
            .operate(Operation::Stage, "v1", move |_| {
                started.send(()).expect("somebody waits");
                ended.recv().expect("is told to end");
                Ok(())
            })
            .await
    });
    running.await.expect("it runs");
    assert_eq!(stage(&mut client, &machine, "v1").await, Err(Code::Aborted));
    assert_eq!(stage(&mut client, &machine, "v2").await, Ok(()));
    end.send(()).expect("it still runs");
    first.await.expect("no panic").expect("ends well");
    assert_eq!(stage(&mut client, &machine, "v1").await, Ok(()));
    for id in ["v1", "v2"] {
        assert_eq!(unstage(&mut client, &machine, id).await, Ok(()));
    }
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_volume_grows() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    agent.create(&machine, "v1", false).await;
    let mut expand = async |required_bytes: i64, limit_bytes: i64| {
        let request = NodeExpandVolumeRequest {
            volume_id: "v1".to_owned(),
            volume_path: "/any".to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes,
                limit_bytes,
            }),
            ..NodeExpandVolumeRequest::default()
        };
        client
            .node_expand_volume(request)
            .await
            .map(|answer| answer.into_inner().capacity_bytes)
            .map_err(|status| status.code())
    };
    assert_eq!(expand(128 << 20, 0).await, Ok(128 << 20));
    assert_eq!(expand(64 << 20, 0).await, Ok(128 << 20));
    assert_eq!(expand(0, 64 << 20).await, Err(Code::OutOfRange));
    assert_eq!(expand(1 << 40, 0).await, Err(Code::ResourceExhausted));
    assert_eq!(expand(-1, 0).await, Err(Code::InvalidArgument));
    drop(client);
    agent.stop().await;
}

#[tokio::test]
async fn a_lost_mount_is_refused() {
    let machine = Machine::new();
    let agent = Agent::start(&machine).await;
    let mut client = node_client(&machine).await;
    agent.create(&machine, "v1", false).await;
    let directory = machine.node.pool_dir("disk0");
    machine.disk.unmount(&directory);
    assert_eq!(
        stage(&mut client, &machine, "v1").await,
        Err(Code::FailedPrecondition)
    );
    let left = fs::read_dir(&directory).expect("there").count();
    assert_eq!(left, 0, "nothing is written under an empty mount point");
    machine.disk.mount(&directory, "");
    agent.disks.rescan().await.expect("looks");
    assert_eq!(stage(&mut client, &machine, "v1").await, Ok(()));
    assert_eq!(unstage(&mut client, &machine, "v1").await, Ok(()));
    drop(client);
    agent.stop().await;
}
