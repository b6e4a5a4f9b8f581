//! Staging and publishing volumes, as kubelet asks for it.
//!
//! Requests are checked here and done by the provisioner. Only ids and methods
//! are logged: requests may carry secrets.

use std::path::PathBuf;

use berth_csi::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, Topology, node_server,
    node_service_capability, node_service_capability::rpc,
};
use berth_provisioner::{Error, Publish, Stage, VolumeMode};
use tonic::{Request, Response, Status};

use super::request::{access, predecessor, required, usage};
use crate::{
    metrics::Operation,
    node::{Failure, Node},
};

/// Key of the pod's UID in the volume context; kubelet adds it for drivers with
/// `podInfoOnMount: true`.
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";

/// The CSI node service.
pub struct NodeService {
    node: Node,
}

impl NodeService {
    /// Serves the volumes of `node`.
    pub fn new(node: Node) -> Self {
        Self { node }
    }

    /// Runs one operation and logs how it went, once.
    async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        id: &str,
        work: impl FnOnce(&berth_provisioner::Provisioner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        let result = self.node.operate(operation, id, work).await;
        match &result {
            Ok(_) if operation.changes_volume() => {
                tracing::info!(volume = id, method = ?operation, "done");
            }
            Ok(_) => tracing::debug!(volume = id, method = ?operation, "done"),
            Err(Failure::Busy { .. }) => {
                tracing::info!(volume = id, method = ?operation, "another operation is running");
            }
            Err(error) => {
                tracing::warn!(volume = id, method = ?operation, %error, "refused or failed");
            }
        }
        result.map_err(Status::from)
    }
}

#[tonic::async_trait]
impl node_server::Node for NodeService {
    async fn node_stage_volume(
        &self,
        request: Request<NodeStageVolumeRequest>,
    ) -> Result<Response<NodeStageVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        let staging = required("staging_target_path", &request.staging_target_path)?;
        access(request.volume_capability.as_ref())?;
        let volume = id.clone();
        self.operate(Operation::Stage, &id, move |disk| {
            disk.stage(&Stage {
                id: volume,
                staging: staging.into(),
                mode: VolumeMode::Filesystem,
            })
        })
        .await?;
        Ok(Response::new(NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<NodeUnstageVolumeRequest>,
    ) -> Result<Response<NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        let staging = required("staging_target_path", &request.staging_target_path)?;
        let volume = id.clone();
        self.operate(Operation::Unstage, &id, move |disk| {
            disk.unstage(&volume, &PathBuf::from(staging))
        })
        .await?;
        Ok(Response::new(NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Result<Response<NodePublishVolumeResponse>, Status> {
        let mut request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        let target = required("target_path", &request.target_path)?;
        let access = access(request.volume_capability.as_ref())?;
        if request.staging_target_path.is_empty() {
            // The code that the specification gives to this argument alone.
            return Err(Status::failed_precondition(
                "staging_target_path is missing: the volume must be staged first",
            ));
        }
        let publish = Publish {
            id: id.clone(),
            target: target.into(),
            staging: Some(request.staging_target_path.into()),
            mode: VolumeMode::Filesystem,
            readonly: request.readonly || access.readonly,
            flags: Vec::new(),
            pod_uid: request.volume_context.remove(POD_UID).unwrap_or_default(),
            single_writer: access.single_writer,
        };
        self.operate(Operation::Publish, &id, move |disk| {
            if let Some(report) = disk.find(&publish.id)
                && let Some(by) = predecessor(&report, &publish)
            {
                let id = publish.id;
                return Err(Error::Published { id, by });
            }
            disk.publish(&publish)
        })
        .await?;
        Ok(Response::new(NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Result<Response<NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        let target = required("target_path", &request.target_path)?;
        let volume = id.clone();
        self.operate(Operation::Unpublish, &id, move |disk| {
            disk.unpublish(&volume, &PathBuf::from(target))
        })
        .await?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Result<Response<NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        let path = PathBuf::from(required("volume_path", &request.volume_path)?);
        let volume = id.clone();
        let found = self
            .operate(Operation::Stats, &id, move |disk| {
                let Some(report) = disk.find(&volume) else {
                    return Err(Error::UnknownVolume { id: volume });
                };
                let here = report.staged.contains(&path)
                    || report.published.iter().any(|at| at.target == path);
                here.then(|| disk.stats(&volume)).transpose()
            })
            .await?;
        match found {
            Some(stats) => Ok(Response::new(NodeGetVolumeStatsResponse {
                usage: usage(&stats),
            })),
            None => Err(Status::not_found(format!(
                "volume {id} is not mounted at {}",
                request.volume_path
            ))),
        }
    }

    /// The controller grows volumes by way of their objects; kubelet calls this
    /// when a claim's status still lags behind, and finds the work done.
    async fn node_expand_volume(
        &self,
        request: Request<NodeExpandVolumeRequest>,
    ) -> Result<Response<NodeExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        required("volume_path", &request.volume_path)?;
        let range = request.capacity_range.unwrap_or_default();
        let (Ok(asked), Ok(limit)) = (
            u64::try_from(range.required_bytes),
            u64::try_from(range.limit_bytes),
        ) else {
            return Err(Status::invalid_argument("capacity_range is negative"));
        };
        let volume = id.clone();
        let size = self
            .operate(Operation::Expand, &id, move |disk| {
                let Some(report) = disk.find(&volume) else {
                    return Err(Error::UnknownVolume { id: volume });
                };
                match asked > report.enforced {
                    true => disk.expand(&volume, asked).map(|grown| grown.enforced),
                    false => Ok(report.enforced),
                }
            })
            .await?;
        if limit != 0 && size > limit {
            return Err(Status::out_of_range(format!(
                "volume {id} has {size} bytes, and {limit} are allowed; volumes do not shrink"
            )));
        }
        Ok(Response::new(NodeExpandVolumeResponse {
            capacity_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Result<Response<NodeGetCapabilitiesResponse>, Status> {
        let capabilities = [
            rpc::Type::StageUnstageVolume,
            rpc::Type::GetVolumeStats,
            rpc::Type::ExpandVolume,
            // Makes kubelet tell ReadWriteOncePod apart.
            rpc::Type::SingleNodeMultiWriter,
        ]
        .map(|capability| NodeServiceCapability {
            r#type: Some(node_service_capability::Type::Rpc(
                node_service_capability::Rpc {
                    r#type: capability.into(),
                },
            )),
        });
        Ok(Response::new(NodeGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn node_get_info(
        &self,
        _: Request<NodeGetInfoRequest>,
    ) -> Result<Response<NodeGetInfoResponse>, Status> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node.name.to_string(),
            max_volumes_per_node: 0,
            accessible_topology: Some(Topology {
                segments: [(
                    berth_api::names::TOPOLOGY_NODE.to_owned(),
                    self.node.name.to_string(),
                )]
                .into(),
            }),
        }))
    }
}
