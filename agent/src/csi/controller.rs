//! The CSI controller service of this one node: a thin face on the provisioner
//! for orchestrators other than Kubernetes, and for those who bring Kubernetes'
//! sidecars. In a cluster of Berth's own, volumes are made by way of the API, and
//! only the API erases them.

use berth_csi::csi::{
    ControllerExpandVolumeRequest, ControllerExpandVolumeResponse,
    ControllerGetCapabilitiesRequest, ControllerGetCapabilitiesResponse,
    ControllerGetVolumeHealthRequest, ControllerGetVolumeHealthResponse,
    ControllerGetVolumeRequest, ControllerGetVolumeResponse, ControllerListVolumeHealthRequest,
    ControllerListVolumeHealthResponse, ControllerServiceCapability, CreateSnapshotRequest,
    CreateSnapshotResponse, CreateVolumeRequest, CreateVolumeResponse, DeleteSnapshotRequest,
    DeleteSnapshotResponse, DeleteVolumeRequest, DeleteVolumeResponse, GetCapacityRequest,
    GetCapacityResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, ListVolumesRequest, ListVolumesResponse,
    ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse,
    controller_get_volume_response, controller_server, controller_service_capability,
    controller_service_capability::rpc, list_snapshots_response, list_volumes_response,
    validate_volume_capabilities_response::Confirmed,
};
use berth_model::{SnapshotName, names::is_id};
use berth_provisioner::{
    Backend, Error, Provisioner, SnapshotReport, SnapshotSpec, VolumeHealth, VolumeMode,
    VolumeReport,
};
use tonic::{Request, Response, Status};

use super::{
    capacity::{Range, bytes},
    create::{self, Create},
    health,
    lookup::{self, Named},
    names::candidate_ids,
    node::{operate, operate_in},
    pages::page,
    parameters,
    placement::{self, Want},
    request::{accesses, filesystems, required},
    response,
};
use crate::{
    disks::{Disks, Failure},
    lanes::Lane,
    metrics::Operation,
};

/// What the service can do. Volumes are not attached: they are where they are.
const CAPABILITIES: [rpc::Type; 12] = [
    rpc::Type::CreateDeleteVolume,
    rpc::Type::GetCapacity,
    rpc::Type::ListVolumes,
    rpc::Type::GetVolume,
    rpc::Type::CreateDeleteSnapshot,
    rpc::Type::ListSnapshots,
    rpc::Type::CloneVolume,
    rpc::Type::ExpandVolume,
    rpc::Type::SingleNodeMultiWriter,
    rpc::Type::GetSnapshot,
    rpc::Type::GetVolumeHealth,
    rpc::Type::ListVolumeHealth,
];

/// The CSI controller service.
pub struct ControllerService {
    disks: Disks,
}

impl ControllerService {
    /// Serves the pools of these disks.
    pub fn new(disks: Disks) -> Self {
        Self { disks }
    }
}

/// The key that a name is held by while something is made of it; no id has a `/`.
fn key(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

#[tonic::async_trait]
impl controller_server::Controller for ControllerService {
    async fn create_volume(
        &self,
        request: Request<CreateVolumeRequest>,
    ) -> Result<Response<CreateVolumeResponse>, Status> {
        let request = request.into_inner();
        let create = Create::read(&request)?;
        create.want().check()?;
        placement::here(
            request.accessibility_requirements.as_ref(),
            &self.disks.node_name,
        )?;
        let _name = self.disks.hold(&key("volume", &create.name))?;
        let named = lookup::named(&self.disks, &create.name, |disk, id| disk.find(id)).await?;
        let report = match named {
            Named::There(there) => {
                if let Some(difference) = create.difference(&there) {
                    let id = there.id;
                    return Err(Failure::Disk(Error::AlreadyExists { id, difference }).into());
                }
                lookup::find_again(&self.disks, there).await?
            }
            Named::Free(id) => lookup::make(&self.disks, &create, &id).await?,
        };
        Ok(Response::new(CreateVolumeResponse {
            volume: Some(response::volume(&report, &self.disks.node_name)),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<DeleteVolumeRequest>,
    ) -> Result<Response<DeleteVolumeResponse>, Status> {
        let id = required("volume_id", &request.into_inner().volume_id)?;
        if !is_id(&id) {
            // Nothing has such an id, so it is gone.
            return Ok(Response::new(DeleteVolumeResponse {}));
        }
        let volume = id.clone();
        let erased = operate(&self.disks, Operation::Erase, &id, move |disk| {
            match disk.find(&volume) {
                // What lies in a pool that was not read is not gone.
                None => disk.require_all_read(&volume).map(|()| true),
                Some(there) if create::api_owned(&there) => Ok(false),
                Some(_) => disk.delete(&volume).map(|()| true),
            }
        })
        .await?;
        match erased {
            true => Ok(Response::new(DeleteVolumeResponse {})),
            false => Err(Status::failed_precondition(format!(
                "volume {id} belongs to a claim of the cluster: delete the claim"
            ))),
        }
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<ValidateVolumeCapabilitiesResponse>, Status> {
        let request = request.into_inner();
        required("volume_id", &request.volume_id)?;
        if request.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities are missing"));
        }
        let answer = match lookup::unconfirmed(&self.disks, &request).await? {
            None => ValidateVolumeCapabilitiesResponse {
                confirmed: Some(Confirmed {
                    volume_context: request.volume_context,
                    volume_capabilities: request.volume_capabilities,
                    parameters: request.parameters,
                    mutable_parameters: request.mutable_parameters,
                }),
                message: String::new(),
            },
            Some(message) => ValidateVolumeCapabilitiesResponse {
                confirmed: None,
                message,
            },
        };
        Ok(Response::new(answer))
    }

    async fn list_volumes(
        &self,
        request: Request<ListVolumesRequest>,
    ) -> Result<Response<ListVolumesResponse>, Status> {
        let request = request.into_inner();
        let all = self.disks.read_each(Provisioner::list_of).await?;
        let page = page(all, |v| &v.id, request.max_entries, &request.starting_token)?;
        let entry = |volume: &VolumeReport| list_volumes_response::Entry {
            volume: Some(response::volume(volume, &self.disks.node_name)),
            status: None,
        };
        Ok(Response::new(ListVolumesResponse {
            entries: page.entries.iter().map(entry).collect(),
            next_token: page.next_token,
        }))
    }

    async fn get_capacity(
        &self,
        request: Request<GetCapacityRequest>,
    ) -> Result<Response<GetCapacityResponse>, Status> {
        let request = request.into_inner();
        let (mode, fs_type) = match request.volume_capabilities.is_empty() {
            true => (VolumeMode::Filesystem, String::new()),
            false => accesses(&request.volume_capabilities)?,
        };
        let want = Want {
            mode,
            backend: parameters::volume(&request.parameters)?.backend,
            fs_type,
        };
        want.check()?;
        let elsewhere = request
            .accessible_topology
            .is_some_and(|topology| !placement::is_here(&topology, &self.disks.node_name));
        let pools = self.disks.rescan().await?;
        let rooms: Vec<u64> = match elsewhere {
            true => Vec::new(),
            false => placement::fitting(&pools, &want)
                .map(|(_, pool)| pool.room)
                .collect(),
        };
        let sum = rooms
            .iter()
            .fold(0u64, |sum, room| sum.saturating_add(*room));
        Ok(Response::new(GetCapacityResponse {
            available_capacity: bytes(sum),
            // A volume is in one pool.
            maximum_volume_size: Some(bytes(rooms.into_iter().max().unwrap_or(0))),
            minimum_volume_size: None,
        }))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = CAPABILITIES.map(|capability| ControllerServiceCapability {
            r#type: Some(controller_service_capability::Type::Rpc(
                controller_service_capability::Rpc {
                    r#type: capability.into(),
                },
            )),
        });
        Ok(Response::new(ControllerGetCapabilitiesResponse {
            capabilities: capabilities.into(),
        }))
    }

    async fn create_snapshot(
        &self,
        request: Request<CreateSnapshotRequest>,
    ) -> Result<Response<CreateSnapshotResponse>, Status> {
        let request = request.into_inner();
        create::check_name(&request.name)?;
        let volume = required("source_volume_id", &request.source_volume_id)?;
        parameters::snapshot(&request.parameters)?;
        placement::here(
            request.accessibility_requirements.as_ref(),
            &self.disks.node_name,
        )?;
        let _name = self.disks.hold(&key("snapshot", &request.name))?;
        let named = lookup::named(&self.disks, &request.name, |disk, id| {
            disk.find_snapshot(id)
        })
        .await?;
        let first = match named {
            Named::Free(id) => id,
            Named::There(there) if there.volume == volume => there.id,
            Named::There(there) => {
                return Err(Status::already_exists(format!(
                    "snapshot {} exists already: it is of volume {}",
                    there.id, there.volume
                )));
            }
        };
        let mut answer = Err(Failure::Disk(Error::UnknownSnapshot { id: first.clone() }));
        for id in candidate_ids(&request.name).skip_while(|id| *id != first) {
            let want = SnapshotSpec {
                id: id.clone(),
                volume: volume.clone(),
            };
            let pool = self.disks.pool_of(&volume);
            let (lane, operation) = (Lane::Copy, Operation::Snapshot);
            let work = move |disk: &Provisioner| disk.snapshot(&want);
            answer = operate_in(&self.disks, pool.as_ref(), lane, operation, &id, work).await;
            // A snapshot of that name was erased: this is another one.
            if !matches!(answer, Err(Failure::Disk(Error::Tombstoned { .. }))) {
                break;
            }
        }
        Ok(Response::new(CreateSnapshotResponse {
            snapshot: Some(response::snapshot(&answer?)),
        }))
    }

    async fn delete_snapshot(
        &self,
        request: Request<DeleteSnapshotRequest>,
    ) -> Result<Response<DeleteSnapshotResponse>, Status> {
        let id = required("snapshot_id", &request.into_inner().snapshot_id)?;
        if !is_id(&id) {
            return Ok(Response::new(DeleteSnapshotResponse {}));
        }
        let snapshot = id.clone();
        let erased = operate(&self.disks, Operation::EraseSnapshot, &id, move |disk| {
            let clusters = snapshot.parse::<SnapshotName>().is_ok();
            match clusters && disk.find_snapshot(&snapshot).is_some() {
                true => Ok(false),
                false => disk.delete_snapshot(&snapshot).map(|()| true),
            }
        })
        .await?;
        match erased {
            true => Ok(Response::new(DeleteSnapshotResponse {})),
            false => Err(Status::failed_precondition(format!(
                "snapshot {id} belongs to a VolumeSnapshot of the cluster: delete the VolumeSnapshot"
            ))),
        }
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let mut all = self.disks.read_each(Provisioner::list_snapshots_of).await?;
        all.sort_by(|a, b| a.id.cmp(&b.id));
        let matches = |filter: &str, value: &str| filter.is_empty() || filter == value;
        all.retain(|snapshot| {
            matches(&request.snapshot_id, &snapshot.id)
                && matches(&request.source_volume_id, &snapshot.volume)
        });
        let page = page(all, |s| &s.id, request.max_entries, &request.starting_token)?;
        let entry = |snapshot: &SnapshotReport| list_snapshots_response::Entry {
            snapshot: Some(response::snapshot(snapshot)),
        };
        Ok(Response::new(ListSnapshotsResponse {
            entries: page.entries.iter().map(entry).collect(),
            next_token: page.next_token,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let id = required("snapshot_id", &request.into_inner().snapshot_id)?;
        let snapshot = id.clone();
        let found = self
            .disks
            .read_of(&id, move |disk| disk.find_snapshot(&snapshot));
        let found = found
            .await?
            .ok_or_else(|| self.disks.unknown_snapshot(&id))?;
        Ok(Response::new(GetSnapshotResponse {
            snapshot: Some(response::snapshot(&found)),
        }))
    }

    async fn controller_get_volume_health(
        &self,
        request: Request<ControllerGetVolumeHealthRequest>,
    ) -> Result<Response<ControllerGetVolumeHealthResponse>, Status> {
        let id = required("volume_id", &request.into_inner().volume_id)?;
        Ok(Response::new(ControllerGetVolumeHealthResponse {
            volume_health: Some(health::volume(&lookup::find(&self.disks, &id).await?)),
        }))
    }

    async fn controller_list_volume_health(
        &self,
        request: Request<ControllerListVolumeHealthRequest>,
    ) -> Result<Response<ControllerListVolumeHealthResponse>, Status> {
        let request = request.into_inner();
        let all = self.disks.read_each(Provisioner::list_of).await?;
        let mut ill: Vec<_> = all.iter().map(health::volume).collect();
        ill.retain(|volume| !volume.health_statuses.is_empty());
        let page = page(
            ill,
            |volume| &volume.volume_id,
            request.max_entries,
            &request.starting_token,
        )?;
        Ok(Response::new(ControllerListVolumeHealthResponse {
            entries: page.entries,
            next_token: page.next_token,
        }))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<ControllerExpandVolumeRequest>,
    ) -> Result<Response<ControllerExpandVolumeResponse>, Status> {
        let request = request.into_inner();
        let id = required("volume_id", &request.volume_id)?;
        if request.capacity_range.is_none() {
            return Err(Status::invalid_argument("capacity_range is missing"));
        }
        let range = Range::read(request.capacity_range.as_ref())?;
        let there = lookup::find(&self.disks, &id).await?;
        if let Some(capability) = request.volume_capability {
            let (mode, fs_type) = accesses(&[capability])?;
            if mode != there.mode {
                return Err(Status::invalid_argument(format!(
                    "volume_capability asks for {mode:?}, and volume {id} is {:?}",
                    there.mode
                )));
            }
            filesystems::check(&fs_type, there.backend)?;
        }
        let volume = id.clone();
        let grown = operate(&self.disks, Operation::Expand, &id, move |disk| {
            let there = disk
                .find(&volume)
                .ok_or_else(|| disk.unknown_volume(&volume))?;
            // Volumes do not shrink: one that is larger than allowed stays so.
            match range.limit.is_some_and(|limit| there.size > limit) {
                true => Ok(Err(there.size)),
                false => disk
                    .expand(&volume, range.required.unwrap_or(0).max(there.size))
                    .map(Ok),
            }
        })
        .await?;
        let grown = grown.map_err(|size| {
            Status::out_of_range(format!(
                "volume {id} has {size} bytes, more than capacity_range.limit_bytes; volumes do not shrink"
            ))
        })?;
        Ok(Response::new(ControllerExpandVolumeResponse {
            capacity_bytes: bytes(grown.size),
            // The filesystem inside an image grows where it is mounted.
            node_expansion_required: grown.backend == Backend::Image
                && grown.mode == VolumeMode::Filesystem,
        }))
    }

    async fn controller_get_volume(
        &self,
        request: Request<ControllerGetVolumeRequest>,
    ) -> Result<Response<ControllerGetVolumeResponse>, Status> {
        let id = required("volume_id", &request.into_inner().volume_id)?;
        let volume = lookup::find(&self.disks, &id).await?;
        if let VolumeHealth::Lost(why) = volume.health {
            return Err(Failure::Disk(Error::Lost { id, why }).into());
        }
        Ok(Response::new(ControllerGetVolumeResponse {
            volume: Some(response::volume(&volume, &self.disks.node_name)),
            status: Some(controller_get_volume_response::VolumeStatus::default()),
        }))
    }
}
