//! The API's objects and the provisioner's requests, converted. The two crates do not
//! know one another; the values in them are the same.

use berth_api::VolumeSpec;
use berth_provisioner as disk;

/// The provisioner's request for a Volume's spec.
pub(super) fn wanted(name: &str, spec: &VolumeSpec) -> disk::VolumeSpec {
    disk::VolumeSpec {
        id: name.to_owned(),
        size: spec.size.0,
        claim: Some(spec.claim.clone()),
        set: spec.owner.clone(),
        backend: spec.backend,
        mode: spec.mode,
        source: spec.source.clone(),
        sparse: spec.sparse,
        expect_existing: spec.adopt,
    }
}
