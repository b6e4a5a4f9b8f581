//! What a request to make a volume asks for, and whether a volume that is there
//! is the one it asks for. Pure.

use berth_csi::csi::{CreateVolumeRequest, volume_content_source::Type};
use berth_provisioner::{Backend, Error, PoolId, Source, VolumeMode, VolumeReport, VolumeSpec};
use tonic::Status;

use super::{
    capacity::Range,
    names,
    parameters::{self, Parameters},
    placement::Want,
    request::{accesses, filesystems},
};

/// A request to make a volume, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Create {
    pub(super) name: String,
    pub(super) range: Range,
    pub(super) parameters: Parameters,
    pub(super) mode: VolumeMode,
    pub(super) fs_type: String,
    pub(super) source: Option<Source>,
}

/// What a volume is to start with, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) id: String,
    pub(super) pool: PoolId,
    /// Bytes that a volume made from it needs at least.
    pub(super) size: u64,
    pub(super) backend: Backend,
    pub(super) mode: VolumeMode,
}

impl Create {
    /// Reads a request.
    ///
    /// The error is INVALID_ARGUMENT and names the field.
    pub(super) fn read(request: &CreateVolumeRequest) -> Result<Self, Status> {
        check_name(&request.name)?;
        let (mode, fs_type) = accesses(&request.volume_capabilities)?;
        no_mutable(request.mutable_parameters.keys())?;
        Ok(Self {
            name: request.name.clone(),
            range: Range::read(request.capacity_range.as_ref())?,
            parameters: parameters::volume(&request.parameters)?,
            mode,
            fs_type,
            source: match &request.volume_content_source {
                None => None,
                Some(source) => Some(read_source(source.r#type.as_ref())?),
            },
        })
    }

    /// Where such a volume can be.
    pub(super) fn want(&self) -> Want {
        Want {
            mode: self.mode,
            backend: self.parameters.backend,
            fs_type: self.fs_type.clone(),
        }
    }

    /// In what an existing volume is not what is asked for.
    pub(super) fn difference(&self, there: &VolumeReport) -> Option<String> {
        if api_owned(there) {
            return Some("it belongs to a claim of the cluster".to_owned());
        }
        if !self.range.allows(there.size) {
            return Some(format!(
                "it has {} bytes, and capacity_range does not allow that",
                there.size
            ));
        }
        if there.mode != self.mode {
            return Some(format!("its mode is {:?}", there.mode));
        }
        if there.source != self.source {
            return Some(match &there.source {
                None => "it was made empty".to_owned(),
                Some(Source::Snapshot(id)) => format!("it was made from snapshot {id}"),
                Some(Source::Volume(id)) => format!("it was made from volume {id}"),
            });
        }
        match self.parameters.backend {
            Some(backend) if backend != there.backend => {
                return Some(format!("its backend is {}", there.backend));
            }
            _ => {}
        }
        filesystems::check(&self.fs_type, there.backend)
            .err()
            .map(|status| status.message().to_owned())
    }

    /// The volume to be made.
    ///
    /// The error says that the source is of another kind, or too large.
    pub(super) fn spec(&self, id: &str, origin: Option<&Origin>) -> Result<VolumeSpec, Status> {
        let size = self.range.choose(origin.map(|origin| origin.size));
        if let Some(origin) = origin {
            if size < origin.size {
                return Err(too_small(origin, size));
            }
            if origin.mode != self.mode {
                return Err(Status::invalid_argument(format!(
                    "volume_content_source {} has the mode {:?}, and volume_capabilities ask for {:?}; ask for the same",
                    origin.id, origin.mode, self.mode
                )));
            }
            if let Some(other) = self.parameters.backend
                && other != origin.backend
            {
                return Err(Status::invalid_argument(format!(
                    "volume_content_source {} has the backend {}, and so has what is made from it; the parameters ask for {other}, leave that out",
                    origin.id, origin.backend
                )));
            }
            if self.mode == VolumeMode::Filesystem {
                filesystems::check(&self.fs_type, origin.backend)?;
            }
        }
        Ok(VolumeSpec {
            id: id.to_owned(),
            size,
            claim: self.parameters.claim_of(id),
            set: None,
            backend: origin
                .map(|origin| origin.backend)
                .or(self.parameters.backend),
            mode: self.mode,
            source: self.source.clone(),
            sparse: self.parameters.sparse,
            incarnation: None,
            expect_existing: false,
        })
    }
}

/// The request that the volume was made by, made again: it finds out whether the
/// data is there, and puts its link in place.
pub(super) fn again(there: &VolumeReport) -> VolumeSpec {
    VolumeSpec {
        id: there.id.clone(),
        size: there.size,
        claim: there.claim.clone(),
        set: there.set.clone(),
        backend: Some(there.backend),
        mode: there.mode,
        source: there.source.clone(),
        sparse: false,
        incarnation: None,
        expect_existing: true,
    }
}

/// Whether the cluster's API made the volume, and alone may erase it: its claim
/// has a UID of its own.
pub(super) fn api_owned(there: &VolumeReport) -> bool {
    there
        .claim
        .as_ref()
        .is_some_and(|claim| claim.uid != there.id)
}

/// Refuses a name that CSI does not allow.
pub(super) fn check_name(name: &str) -> Result<(), Status> {
    match (name, names::is_name(name)) {
        ("", _) => Err(Status::invalid_argument("name is missing")),
        (_, true) => Ok(()),
        (_, false) => Err(Status::invalid_argument(format!(
            "name {name:?}: must be of at most 128 bytes and without control characters"
        ))),
    }
}

/// Refuses parameters that can be changed: there are none.
pub(super) fn no_mutable<'a>(mut keys: impl Iterator<Item = &'a String>) -> Result<(), Status> {
    match keys.next() {
        None => Ok(()),
        Some(key) => Err(Status::invalid_argument(format!(
            "mutable_parameters: {key:?} is not known; volumes have no parameters that can be changed, leave them out"
        ))),
    }
}

fn too_small(origin: &Origin, size: u64) -> Status {
    let error = Error::TooSmall {
        source_id: origin.id.clone(),
        size,
        needed: origin.size,
    };
    Status::new(super::status::code(&error), error.to_string())
}

fn read_source(source: Option<&Type>) -> Result<Source, Status> {
    let (field, source) = match source {
        Some(Type::Snapshot(source)) => (
            "snapshot.snapshot_id",
            Source::Snapshot(source.snapshot_id.clone()),
        ),
        Some(Type::Volume(source)) => {
            ("volume.volume_id", Source::Volume(source.volume_id.clone()))
        }
        None => {
            return Err(Status::invalid_argument(
                "volume_content_source is empty: name a snapshot or a volume, or leave it out",
            ));
        }
    };
    match &source {
        Source::Snapshot(id) | Source::Volume(id) if id.is_empty() => Err(
            Status::invalid_argument(format!("volume_content_source.{field} is missing")),
        ),
        _ => Ok(source),
    }
}

#[cfg(test)]
mod tests {
    use berth_csi::csi::{
        CapacityRange, VolumeCapability, VolumeContentSource,
        volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
        volume_content_source::SnapshotSource,
    };
    use tonic::Code;

    use super::*;

    fn request(required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
        CreateVolumeRequest {
            name: "v".to_owned(),
            capacity_range: Some(CapacityRange {
                required_bytes,
                limit_bytes,
            }),
            volume_capabilities: vec![VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeWriter.into(),
                }),
                access_type: Some(AccessType::Mount(MountVolume::default())),
            }],
            ..CreateVolumeRequest::default()
        }
    }

    fn origin(size: u64) -> Origin {
        Origin {
            id: "s".to_owned(),
            pool: PoolId::new("p-1").expect("valid"),
            size,
            backend: Backend::Btrfs,
            mode: VolumeMode::Filesystem,
        }
    }

    #[test]
    fn requests_are_read_or_refused() {
        assert!(Create::read(&request(5, 0)).is_ok());
        let bad = |change: &dyn Fn(&mut CreateVolumeRequest)| {
            let mut request = request(5, 0);
            change(&mut request);
            Create::read(&request).map_err(|status| status.code())
        };
        let invalid = Err(Code::InvalidArgument);
        assert_eq!(bad(&|r| r.name.clear()), invalid);
        assert_eq!(bad(&|r| r.name = "a".repeat(129)), invalid);
        assert_eq!(bad(&|r| r.volume_capabilities.clear()), invalid);
        let pair = || ("iops".to_owned(), "1".to_owned());
        assert_eq!(bad(&|r| r.mutable_parameters = [pair()].into()), invalid);
        assert_eq!(bad(&|r| r.parameters = [pair()].into()), invalid);
        let empty = VolumeContentSource { r#type: None };
        assert_eq!(
            bad(&|r| r.volume_content_source = Some(empty.clone())),
            invalid
        );
        let nameless = VolumeContentSource {
            r#type: Some(Type::Snapshot(SnapshotSource::default())),
        };
        assert_eq!(
            bad(&|r| r.volume_content_source = Some(nameless.clone())),
            invalid
        );
    }

    #[test]
    fn the_same_request_finds_its_volume() {
        let there = VolumeReport {
            id: "v".to_owned(),
            claim: None,
            size: 8,
            ..crate::testdata::volume()
        };
        let same = |required, limit, there: &VolumeReport| {
            let create = Create::read(&request(required, limit)).expect("valid");
            create.difference(there).is_none()
        };
        assert!(same(8, 8, &there) && same(0, 0, &there) && same(4, 0, &there));
        assert!(!same(9, 0, &there) && !same(4, 7, &there));
        for other in [
            VolumeReport {
                mode: VolumeMode::Block,
                ..there.clone()
            },
            VolumeReport {
                source: Some(Source::Volume("w".to_owned())),
                ..there.clone()
            },
            VolumeReport {
                claim: crate::testdata::volume().claim,
                ..there.clone()
            },
        ] {
            assert!(!same(8, 0, &other), "{other:?}");
        }
        let mut demanding = Create::read(&request(8, 0)).expect("valid");
        demanding.parameters.backend = Some(Backend::Image);
        assert!(demanding.difference(&there).is_some());
    }

    #[test]
    fn only_the_api_erases_its_volumes() {
        let mut volume = crate::testdata::volume();
        assert!(api_owned(&volume));
        volume.claim = None;
        assert!(!api_owned(&volume));
        let parameters = Parameters {
            claim: Some(("shop".to_owned(), "data-0".to_owned())),
            ..Parameters::default()
        };
        volume.claim = parameters.claim_of(&volume.id);
        assert!(!api_owned(&volume));
    }

    #[test]
    fn a_source_sets_the_least_size_and_the_backend() {
        let spec = |required, limit, needed| {
            Create::read(&request(required, limit))
                .and_then(|create| create.spec("v", Some(&origin(needed))))
                .map(|spec| (spec.size, spec.backend))
                .map_err(|status| status.code())
        };
        assert_eq!(spec(8, 0, 8), Ok((8, Some(Backend::Btrfs))));
        assert_eq!(spec(9, 0, 8), Ok((9, Some(Backend::Btrfs))));
        assert_eq!(spec(0, 0, 8), Ok((8, Some(Backend::Btrfs))));
        assert_eq!(spec(7, 0, 8), Err(Code::OutOfRange));
        assert_eq!(spec(0, 7, 8), Err(Code::OutOfRange));
        let mut other = Create::read(&request(8, 0)).expect("valid");
        other.parameters.backend = Some(Backend::Image);
        let refused = other.spec("v", Some(&origin(8))).expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(
            other.spec("v", None).expect("made").backend,
            Some(Backend::Image)
        );
    }
}
