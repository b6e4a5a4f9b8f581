//! The API's objects and the provisioner's requests, converted. The two crates do not
//! know one another; the values in them are the same.

use berth_api::Volume;
use berth_provisioner as disk;

/// The provisioner's request for a Volume.
pub(super) fn wanted(name: &str, volume: &Volume) -> disk::VolumeSpec {
    let spec = &volume.spec;
    disk::VolumeSpec {
        id: name.to_owned(),
        size: spec.size.0,
        claim: Some(spec.claim.clone()),
        set: spec.owner.clone(),
        backend: spec.backend,
        mode: spec.mode,
        source: spec.source.clone(),
        sparse: spec.sparse,
        incarnation: volume.metadata.uid.clone(),
        expect_existing: spec.adopt,
    }
}

/// What the provisioner must know of a Volume that is erased.
pub(super) fn erasure(volume: &Volume) -> disk::Erasure {
    disk::Erasure {
        incarnation: volume.metadata.uid.clone(),
        unused: !volume.is_exposed(),
    }
}
