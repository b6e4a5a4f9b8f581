//! The calls of a volume's life, as kubelet and the sidecars make them.

use std::{collections::HashMap, path::Path};

use anyhow::{Context, Result};
use berth_csi::csi::{
    CapacityRange, ControllerExpandVolumeRequest, CreateSnapshotRequest, CreateVolumeRequest,
    DeleteSnapshotRequest, DeleteVolumeRequest, NodeGetVolumeStatsRequest,
    NodePublishVolumeRequest, NodeStageVolumeRequest, NodeUnpublishVolumeRequest,
    NodeUnstageVolumeRequest, ProbeRequest, VolumeCapability,
    controller_client::ControllerClient,
    identity_client::IdentityClient,
    node_client::NodeClient,
    volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
};
use berth_provisioner::{Backend, testing::TestNode};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::inside::parameters;

/// Bytes of a volume, and of one that has grown.
pub(super) const SIZE: i64 = 64 << 20;
const GROWN: i64 = 96 << 20;

/// A call that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    CreateVolume,
    Stage,
    Publish,
    Stats,
    Unpublish,
    Unstage,
    CreateSnapshot,
    DeleteSnapshot,
    Expand,
    DeleteVolume,
}

/// The calls in the order of a volume's life. It grows while it is staged nowhere:
/// a mounted ext4 grows only for who has CAP_SYS_RESOURCE, which not every machine
/// grants.
pub(super) const ROUND: [Call; 10] = [
    Call::CreateVolume,
    Call::Stage,
    Call::Publish,
    Call::Stats,
    Call::Unpublish,
    Call::Unstage,
    Call::CreateSnapshot,
    Call::DeleteSnapshot,
    Call::Expand,
    Call::DeleteVolume,
];

impl Call {
    /// Its name in the specification.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CreateVolume => "CreateVolume",
            Self::Stage => "NodeStageVolume",
            Self::Publish => "NodePublishVolume",
            Self::Stats => "NodeGetVolumeStats",
            Self::Unpublish => "NodeUnpublishVolume",
            Self::Unstage => "NodeUnstageVolume",
            Self::CreateSnapshot => "CreateSnapshot",
            Self::DeleteSnapshot => "DeleteSnapshot",
            Self::Expand => "ControllerExpandVolume",
            Self::DeleteVolume => "DeleteVolume",
        }
    }
}

/// A volume, named after its round: a standalone agent's volumes have their names
/// as ids.
pub(super) struct Volume {
    name: String,
    staging: String,
    target: String,
}

impl Volume {
    pub(super) fn new(node: &TestNode, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            staging: node.staging(name).display().to_string(),
            target: node.target("bench", name).display().to_string(),
        }
    }
}

/// A connection to the agent.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
    parameters: HashMap<String, String>,
}

impl Client {
    pub(super) async fn connect(socket: &Path, backend: Backend) -> Result<Self> {
        let socket = socket.to_owned();
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let socket = socket.clone();
                async move { UnixStream::connect(socket).await.map(TokioIo::new) }
            }))
            .await
            .context("cannot connect to the agent")?;
        let parameters = parameters(backend)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect();
        Ok(Self {
            channel,
            parameters,
        })
    }

    /// Asks whether the agent is ready.
    pub(super) async fn probe(&self) -> Result<()> {
        let mut identity = IdentityClient::new(self.channel.clone());
        identity.probe(ProbeRequest {}).await.context("Probe")?;
        Ok(())
    }

    /// Makes one call.
    pub(super) async fn call(&self, call: Call, volume: &Volume) -> Result<()> {
        let answer = match call {
            Call::Stage | Call::Publish | Call::Stats | Call::Unpublish | Call::Unstage => {
                self.of_node(call, volume).await
            }
            _ => self.of_controller(call, volume).await,
        };
        answer.with_context(|| format!("{} of {}", call.as_str(), volume.name))
    }

    async fn of_controller(&self, call: Call, volume: &Volume) -> Result<(), tonic::Status> {
        let mut client = ControllerClient::new(self.channel.clone());
        let volume_id = volume.name.clone();
        let snapshot = format!("{volume_id}-snapshot");
        match call {
            Call::CreateVolume => {
                let request = CreateVolumeRequest {
                    name: volume_id,
                    capacity_range: range(SIZE),
                    volume_capabilities: vec![capability()],
                    parameters: self.parameters.clone(),
                    ..CreateVolumeRequest::default()
                };
                client.create_volume(request).await.map(drop)
            }
            Call::CreateSnapshot => {
                let request = CreateSnapshotRequest {
                    source_volume_id: volume_id,
                    name: snapshot,
                    ..CreateSnapshotRequest::default()
                };
                client.create_snapshot(request).await.map(drop)
            }
            Call::DeleteSnapshot => {
                let request = DeleteSnapshotRequest {
                    snapshot_id: snapshot,
                    ..DeleteSnapshotRequest::default()
                };
                client.delete_snapshot(request).await.map(drop)
            }
            Call::Expand => {
                let request = ControllerExpandVolumeRequest {
                    volume_id,
                    capacity_range: range(GROWN),
                    ..ControllerExpandVolumeRequest::default()
                };
                client.controller_expand_volume(request).await.map(drop)
            }
            _ => {
                let request = DeleteVolumeRequest {
                    volume_id,
                    ..DeleteVolumeRequest::default()
                };
                client.delete_volume(request).await.map(drop)
            }
        }
    }

    async fn of_node(&self, call: Call, volume: &Volume) -> Result<(), tonic::Status> {
        let mut client = NodeClient::new(self.channel.clone());
        let volume_id = volume.name.clone();
        let staging_target_path = volume.staging.clone();
        let target_path = volume.target.clone();
        match call {
            Call::Stage => {
                let request = NodeStageVolumeRequest {
                    volume_id,
                    staging_target_path,
                    volume_capability: Some(capability()),
                    ..NodeStageVolumeRequest::default()
                };
                client.node_stage_volume(request).await.map(drop)
            }
            Call::Publish => {
                let request = NodePublishVolumeRequest {
                    volume_id,
                    staging_target_path,
                    target_path,
                    volume_capability: Some(capability()),
                    ..NodePublishVolumeRequest::default()
                };
                client.node_publish_volume(request).await.map(drop)
            }
            Call::Stats => {
                let request = NodeGetVolumeStatsRequest {
                    volume_id,
                    volume_path: target_path,
                    ..NodeGetVolumeStatsRequest::default()
                };
                client.node_get_volume_stats(request).await.map(drop)
            }
            Call::Unpublish => {
                let request = NodeUnpublishVolumeRequest {
                    volume_id,
                    target_path,
                };
                client.node_unpublish_volume(request).await.map(drop)
            }
            _ => {
                let request = NodeUnstageVolumeRequest {
                    volume_id,
                    staging_target_path,
                };
                client.node_unstage_volume(request).await.map(drop)
            }
        }
    }
}

fn range(required_bytes: i64) -> Option<CapacityRange> {
    Some(CapacityRange {
        required_bytes,
        limit_bytes: 0,
    })
}

fn capability() -> VolumeCapability {
    VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    }
}
