//! How requests to the controller service get at volumes: from names to ids, from
//! ids to what is there, from a request to the pool that can hold it.

use berth_csi::csi::ValidateVolumeCapabilitiesRequest;
use berth_provisioner::{Error, Provisioner, Source, VolumeReport};
use tonic::Status;

use super::{
    create::{self, Create, Origin},
    names::candidate_ids,
    node::{operate, operate_in},
    parameters, placement,
    request::{accesses, filesystems},
};
use crate::{
    disks::{Disks, Failure},
    lanes::Lane,
    metrics::Operation,
};

/// What a name stands for.
pub(super) enum Named<T> {
    /// What is there already.
    There(T),
    /// Nothing yet; it gets this id.
    Free(String),
}

/// The volume of this id.
pub(super) async fn find(disks: &Disks, id: &str) -> Result<VolumeReport, Status> {
    let volume = id.to_owned();
    let found = disks.read_of(id, move |disk| disk.find(&volume)).await?;
    found.ok_or_else(|| disks.unknown_volume(id).into())
}

/// What a name stands for: the first of its ids that exists, or else the first
/// that was never erased.
pub(super) async fn named<T: Send + 'static>(
    disks: &Disks,
    name: &str,
    find: impl Fn(&Provisioner, &str) -> Option<T> + Send + 'static,
) -> Result<Named<T>, Status> {
    let name = name.to_owned();
    let resolve = move |disk: &Provisioner| {
        disk.require_all_read(&name)?;
        if let Some(there) = candidate_ids(&name).find_map(|id| find(disk, &id)) {
            return Ok(Some(Named::There(there)));
        }
        for id in candidate_ids(&name) {
            if !disk.is_erased(&id)? {
                return Ok(Some(Named::Free(id)));
            }
        }
        Ok(None)
    };
    disks.opened().await;
    let named = disks.read(resolve).await?.map_err(Failure::Disk)?;
    named.ok_or_else(|| {
        Status::failed_precondition(
            "name has been used and erased too often to be used again; use another",
        )
    })
}

/// What the source of a new volume is, as it is now.
async fn origin(disks: &Disks, source: &Source) -> Result<Origin, Status> {
    match source.clone() {
        Source::Volume(id) => {
            let volume = find(disks, &id).await?;
            Ok(Origin {
                id,
                pool: volume.pool,
                size: volume.size,
                backend: volume.backend,
                mode: volume.mode,
            })
        }
        Source::Snapshot(id) => {
            let snapshot = id.clone();
            let found = disks.read_of(&id, move |disk| disk.find_snapshot(&snapshot));
            let snapshot = found.await?.ok_or_else(|| disks.unknown_snapshot(&id))?;
            Ok(Origin {
                id,
                pool: snapshot.pool,
                size: snapshot.size,
                backend: snapshot.backend,
                mode: snapshot.mode,
            })
        }
    }
}

/// Makes a volume in the first of the pools that has room for it.
pub(super) async fn make(disks: &Disks, create: &Create, id: &str) -> Result<VolumeReport, Status> {
    let origin = match &create.source {
        Some(source) => Some(origin(disks, source).await?),
        None => None,
    };
    let spec = create.spec(id, origin.as_ref())?;
    let pools = match origin {
        Some(origin) => vec![origin.pool],
        None => placement::choose(&disks.rescan().await?, &create.want(), spec.size)?,
    };
    let lane = match spec.source {
        Some(_) => Lane::Copy,
        None => Lane::Work,
    };
    let mut full = None;
    for pool in pools {
        let (at, spec) = (pool.clone(), spec.clone());
        let work = move |disk: &Provisioner| disk.create(&at, &spec);
        match operate_in(disks, Some(&pool), lane, Operation::Create, id, work).await {
            // Another pool may do: this one has less room than it had.
            Err(no_room @ Failure::Disk(Error::NoRoom { .. })) => full = Some(no_room),
            answer => return Ok(answer?),
        }
    }
    Err(full.unwrap_or_else(|| disks.unknown_volume(id)).into())
}

/// Repeats the creation of a volume that exists, which restores what is missing
/// beside its data.
pub(super) async fn find_again(disks: &Disks, there: VolumeReport) -> Result<VolumeReport, Status> {
    let (id, pool) = (there.id.clone(), there.pool.clone());
    let again = create::again(&there);
    let finding = operate(disks, Operation::Create, &id, move |disk| {
        disk.create(&pool, &again)
    });
    Ok(finding.await?)
}

/// Why a volume is not what a request asks about; nothing if it is.
pub(super) async fn unconfirmed(
    disks: &Disks,
    request: &ValidateVolumeCapabilitiesRequest,
) -> Result<Option<String>, Status> {
    let volume = find(disks, &request.volume_id).await?;
    let requested = accesses(&request.volume_capabilities).and_then(|(mode, fs_type)| {
        create::no_mutable(request.mutable_parameters.keys())?;
        filesystems::check(&fs_type, volume.backend)?;
        Ok((mode, parameters::volume(&request.parameters)?.backend))
    });
    Ok(match requested {
        Err(status) => Some(status.message().to_owned()),
        Ok((mode, _)) if mode != volume.mode => {
            Some(format!("the volume's mode is {:?}", volume.mode))
        }
        Ok((_, Some(backend))) if backend != volume.backend => {
            Some(format!("the volume's backend is {}", volume.backend))
        }
        Ok(_) => None,
    })
}
