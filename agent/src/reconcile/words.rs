//! The API's words and the provisioner's, translated. The two crates do not know
//! one another.

use berth_api::{BackendKind, Trouble, TroubleKind, VolumeMode, VolumeSpec};
use berth_provisioner::{self as disk, Backend};

/// The provisioner's words for a Volume's spec.
pub(super) fn wanted(name: &str, spec: &VolumeSpec) -> disk::VolumeSpec {
    disk::VolumeSpec {
        id: name.to_owned(),
        size: spec.size.0,
        claim: Some(disk::ClaimRef {
            namespace: spec.claim.namespace.clone(),
            name: spec.claim.name.clone(),
            uid: spec.claim.uid.clone(),
        }),
        set: spec.owner.as_ref().map(|owner| disk::SetRef {
            kind: owner.kind.clone(),
            name: owner.name.clone(),
            ordinal: owner.ordinal,
        }),
        backend: spec.backend.map(|kind| match kind {
            BackendKind::Btrfs => Backend::Btrfs,
            BackendKind::ProjectQuota => Backend::ProjectQuota,
            BackendKind::Image => Backend::Image,
            BackendKind::Directory => Backend::Directory,
        }),
        mode: match spec.mode {
            VolumeMode::Filesystem => disk::VolumeMode::Filesystem,
            VolumeMode::Block => disk::VolumeMode::Block,
        },
        source: spec.source.as_ref().and_then(|source| {
            let volume = source.volume.clone().map(disk::Source::Volume);
            volume.or_else(|| source.snapshot.clone().map(disk::Source::Snapshot))
        }),
        sparse: spec.sparse,
        expect_existing: spec.adopt,
    }
}

/// The API's words for what is wrong.
pub(super) fn troubles(troubles: &[disk::Trouble]) -> Vec<Trouble> {
    let kind = |kind| match kind {
        disk::TroubleKind::ReadOnly => TroubleKind::ReadOnly,
        disk::TroubleKind::IoErrors => TroubleKind::IoErrors,
        disk::TroubleKind::SpaceShort => TroubleKind::SpaceShort,
        disk::TroubleKind::TrashStuck => TroubleKind::TrashStuck,
        disk::TroubleKind::Full => TroubleKind::Full,
    };
    troubles
        .iter()
        .map(|trouble| Trouble {
            kind: kind(trouble.kind),
            message: trouble.message.clone(),
        })
        .collect()
}

/// The API's word for a backend.
pub(super) fn backend_kind(backend: Backend) -> BackendKind {
    match backend {
        Backend::Btrfs => BackendKind::Btrfs,
        Backend::ProjectQuota => BackendKind::ProjectQuota,
        Backend::Image => BackendKind::Image,
        Backend::Directory => BackendKind::Directory,
    }
}
