//! Staging and publishing volumes, as kubelet asks for it.
//!
//! Requests are checked here and done by the provisioner. Only ids and methods
//! are logged: requests may carry secrets.

use std::{collections::HashMap, num::NonZeroU16, path::PathBuf};

use berth_csi::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetStorageHealthRequest, NodeGetStorageHealthResponse, NodeGetVolumeHealthRequest,
    NodeGetVolumeHealthResponse, NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse,
    NodePublishVolumeRequest, NodePublishVolumeResponse, NodeServiceCapability,
    NodeStageVolumeRequest, NodeStageVolumeResponse, NodeUnpublishVolumeRequest,
    NodeUnpublishVolumeResponse, NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, node_server,
    node_service_capability, node_service_capability::rpc,
};
use berth_provisioner::{Backend, Error, PoolId, Provisioner, Publish, Stage};
use tonic::{Request, Response, Status};

use super::{
    capacity::{Range, bytes},
    health, placement,
    request::{Access, access, filesystems, is_foreign, predecessor, required, usage},
};
use crate::{
    disks::{Disks, Failure},
    lanes::Lane,
    metrics::Operation,
};

/// Key of the pod's UID in the volume context; kubelet adds it for drivers with
/// `podInfoOnMount: true`.
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
/// The same of its name.
const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
/// The same of its namespace.
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";

/// The CSI node service.
pub struct NodeService {
    disks: Disks,
    max_volumes: Option<NonZeroU16>,
}

impl NodeService {
    /// Serves the volumes on these disks; the scheduler brings at most `max_volumes` here.
    pub fn new(disks: Disks, max_volumes: Option<NonZeroU16>) -> Self {
        Self { disks, max_volumes }
    }
}

/// `<namespace>/<name>` of the pod, as kubelet adds it for `podInfoOnMount: true`.
fn pod_name(context: &HashMap<String, String>) -> String {
    match (context.get(POD_NAMESPACE), context.get(POD_NAME)) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => String::new(),
    }
}

/// Runs one operation and logs how it went, once.
pub(super) async fn operate<T: Send + 'static>(
    disks: &Disks,
    operation: Operation,
    id: &str,
    work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    log(operation, id, disks.operate(operation, id, work).await)
}

/// The same in a pool that is known.
pub(super) async fn operate_in<T: Send + 'static>(
    disks: &Disks,
    pool: Option<&PoolId>,
    lane: Lane,
    operation: Operation,
    id: &str,
    work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    let result = disks.operate_in(pool, lane, operation, id, work).await;
    log(operation, id, result)
}

fn log<T>(operation: Operation, id: &str, result: Result<T, Failure>) -> Result<T, Failure> {
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
    result
}

impl NodeService {
    async fn operate<T: Send + 'static>(
        &self,
        operation: Operation,
        id: &str,
        work: impl FnOnce(&Provisioner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Status> {
        Ok(operate(&self.disks, operation, id, work).await?)
    }

    /// Refuses a filesystem that the volume does not have. What is not known is
    /// the operation's to refuse.
    async fn check_filesystem(&self, id: &str, access: &Access) -> Result<(), Status> {
        if access.fs_type.is_empty() {
            return Ok(());
        }
        let volume = id.to_owned();
        match self
            .disks
            .read_of(id, move |disk| disk.find(&volume))
            .await?
        {
            Some(report) => filesystems::check(&access.fs_type, report.backend),
            None => Ok(()),
        }
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
        let access = access(request.volume_capability.as_ref())?;
        self.check_filesystem(&id, &access).await?;
        let volume = id.clone();
        self.operate(Operation::Stage, &id, move |disk| {
            disk.stage(&Stage {
                id: volume,
                staging: staging.into(),
                mode: access.mode,
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
        self.check_filesystem(&id, &access).await?;
        let publish = Publish {
            id: id.clone(),
            target: target.into(),
            staging: Some(request.staging_target_path.into()),
            mode: access.mode,
            readonly: request.readonly || access.readonly,
            flags: access.flags,
            pod_uid: request.volume_context.remove(POD_UID).unwrap_or_default(),
            pod: pod_name(&request.volume_context),
            single_writer: access.single_writer,
        };
        self.operate(Operation::Publish, &id, move |disk| {
            if let Some(report) = disk.find(&publish.id) {
                if is_foreign(&report, &publish) {
                    let (id, pod) = (publish.id, publish.pod);
                    return Err(Error::ForeignPod { id, pod });
                }
                if let Some(by) = predecessor(&report, &publish) {
                    let id = publish.id;
                    return Err(Error::Published { id, by });
                }
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
                    return Err(disk.unknown_volume(&volume));
                };
                let here = report.staged.contains(&path)
                    || report.published.iter().any(|at| at.target == path);
                here.then(|| disk.stats(&volume).map(|stats| usage(&stats, report.mode)))
                    .transpose()
            })
            .await?;
        match found {
            Some(usage) => Ok(Response::new(NodeGetVolumeStatsResponse { usage })),
            None => Err(Status::not_found(format!(
                "volume {id} is not mounted at {}",
                request.volume_path
            ))),
        }
    }

    async fn node_get_volume_health(
        &self,
        request: Request<NodeGetVolumeHealthRequest>,
    ) -> Result<Response<NodeGetVolumeHealthResponse>, Status> {
        let id = required("volume_id", &request.into_inner().volume_id)?;
        let volume = id.clone();
        let found = self
            .disks
            .read_of(&id, move |disk| disk.find(&volume))
            .await?;
        let found = found.ok_or_else(|| self.disks.unknown_volume(&id))?;
        Ok(Response::new(NodeGetVolumeHealthResponse {
            volume_health: Some(health::volume(&found)),
        }))
    }

    async fn node_get_storage_health(
        &self,
        _: Request<NodeGetStorageHealthRequest>,
    ) -> Result<Response<NodeGetStorageHealthResponse>, Status> {
        let pools = self.disks.pools();
        Ok(Response::new(NodeGetStorageHealthResponse {
            backend_health: health::pools(&pools),
        }))
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
        let range = Range::read(request.capacity_range.as_ref())?;
        if let Some(capability) = &request.volume_capability {
            access(Some(capability))?;
        }
        let volume = id.clone();
        let size = self
            .operate(Operation::Expand, &id, move |disk| {
                let Some(report) = disk.find(&volume) else {
                    return Err(disk.unknown_volume(&volume));
                };
                let requested = range.required.unwrap_or(0);
                // What is inside an image grows at this step.
                if requested > report.enforced || report.backend == Backend::Image {
                    let size = requested.max(report.size);
                    return disk.expand(&volume, size).map(|grown| grown.enforced);
                }
                Ok(report.enforced)
            })
            .await?;
        if range.limit.is_some_and(|limit| size > limit) {
            return Err(Status::out_of_range(format!(
                "volume {id} has {size} bytes, more than the limit_bytes {}; volumes do not shrink",
                range.limit.unwrap_or_default()
            )));
        }
        Ok(Response::new(NodeExpandVolumeResponse {
            capacity_bytes: bytes(size),
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
            rpc::Type::GetVolumeHealth,
            rpc::Type::GetStorageHealth,
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
            node_id: self.disks.node_name.to_string(),
            // Zero leaves it to the orchestrator.
            max_volumes_per_node: self.max_volumes.map_or(0, |max| max.get().into()),
            accessible_topology: Some(placement::topology(&self.disks.node_name)),
        }))
    }
}
