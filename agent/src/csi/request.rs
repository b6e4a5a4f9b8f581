//! What requests of the node service ask for, checked and told in the words of
//! the provisioner. Pure.

use berth_csi::csi::{
    VolumeCapability, VolumeUsage,
    volume_capability::{AccessType, access_mode::Mode},
    volume_usage::Unit,
};
use berth_provisioner::{Publish, Usage, VolumeReport};
use tonic::Status;

/// An argument that must be there.
pub(super) fn required(name: &str, value: &str) -> Result<String, Status> {
    match value {
        "" => Err(Status::invalid_argument(format!("{name} is missing"))),
        value => Ok(value.to_owned()),
    }
}

/// What a volume capability asks for, as far as it makes a difference here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) readonly: bool,
    pub(super) single_writer: bool,
}

pub(super) fn access(capability: Option<&VolumeCapability>) -> Result<Access, Status> {
    let capability =
        capability.ok_or_else(|| Status::invalid_argument("volume_capability is missing"))?;
    let mode = capability
        .access_mode
        .ok_or_else(|| Status::invalid_argument("volume_capability.access_mode is missing"))?
        .mode();
    let (mut readonly, single_writer) = match mode {
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter => (false, false),
        Mode::SingleNodeSingleWriter => (false, true),
        Mode::SingleNodeReaderOnly => (true, false),
        Mode::Unknown
        | Mode::MultiNodeReaderOnly
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter => {
            return Err(Status::invalid_argument(format!(
                "access mode {} is not possible: the volume is a directory on one node; use ReadWriteOnce or ReadWriteOncePod",
                mode.as_str_name()
            )));
        }
    };
    match &capability.access_type {
        Some(AccessType::Mount(mount)) => {
            if !matches!(mount.fs_type.as_str(), "" | "btrfs") {
                return Err(Status::invalid_argument(format!(
                    "filesystem {:?} cannot be had: the volume has its pool's filesystem; leave the type out",
                    mount.fs_type
                )));
            }
            for flag in &mount.mount_flags {
                match flag.as_str() {
                    "ro" => readonly = true,
                    "rw" => {}
                    flag => {
                        return Err(Status::invalid_argument(format!(
                            "mount option {flag:?} is not supported: volumes share their pool's mount options"
                        )));
                    }
                }
            }
        }
        Some(AccessType::Block(_)) => {
            return Err(Status::invalid_argument(
                "raw block volumes are not supported by this version; use volumeMode: Filesystem",
            ));
        }
        None => {
            return Err(Status::invalid_argument(
                "volume_capability.access_type is missing",
            ));
        }
    }
    Ok(Access {
        readonly,
        single_writer,
    })
}

/// The pod that still has a set's volume mounted when another one asks for it:
/// an ordinal's data has one user at a time, whatever the access mode allows.
/// A repeated request is for a target that stands already.
pub(super) fn predecessor(volume: &VolumeReport, request: &Publish) -> Option<String> {
    volume.set.as_ref()?;
    let other = volume.published.iter().find(|at| {
        at.target != request.target && !at.pod_uid.is_empty() && at.pod_uid != request.pod_uid
    })?;
    Some(format!(
        "pod {} at {}",
        other.pod_uid,
        other.target.display()
    ))
}

pub(super) fn usage(usage: &Usage) -> Vec<VolumeUsage> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut all = vec![VolumeUsage {
        available: count(usage.available),
        total: count(usage.total),
        used: count(usage.used),
        unit: Unit::Bytes.into(),
    }];
    if let (Some(total), Some(used)) = (usage.inodes, usage.inodes_used) {
        all.push(VolumeUsage {
            available: count(total.saturating_sub(used)),
            total: count(total),
            used: count(used),
            unit: Unit::Inodes.into(),
        });
    }
    all
}

#[cfg(test)]
mod tests {
    use berth_csi::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};
    use berth_provisioner::Publication;

    use super::*;

    #[test]
    fn a_sets_volume_has_one_user() {
        let mut volume = crate::testdata::volume();
        volume.published = ["", "a"]
            .map(|pod| Publication {
                pod_uid: pod.to_owned(),
                target: "/t".into(),
                readonly: false,
            })
            .into();
        let by = |pod: &str, target: &str| Publish {
            id: "pvc-1".to_owned(),
            target: target.into(),
            staging: None,
            mode: berth_provisioner::VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: pod.to_owned(),
            single_writer: false,
        };
        let other = Some("pod a at /t".to_owned());
        for (pod, target, expected) in [
            ("a", "/t", None),
            ("a", "/t2", None),
            ("b", "/t2", other.clone()),
            ("", "/t2", other),
            // The same mount asked for again, without saying for whom.
            ("", "/t", None),
        ] {
            assert_eq!(predecessor(&volume, &by(pod, target)), expected);
        }
        volume.set = None;
        assert_eq!(predecessor(&volume, &by("b", "/t2")), None);
    }

    #[test]
    fn capabilities_are_understood_or_refused() {
        let mount = |fs_type: &str, flags: &[&str]| {
            Some(AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                ..MountVolume::default()
            }))
        };
        let ask = |mode: Mode, access_type: Option<AccessType>| {
            access(Some(&VolumeCapability {
                access_mode: Some(AccessMode { mode: mode.into() }),
                access_type,
            }))
            .map(|access| (access.readonly, access.single_writer))
            .map_err(|status| status.code())
        };
        let invalid = Err(tonic::Code::InvalidArgument);
        for (mode, access_type, expected) in [
            (Mode::SingleNodeWriter, mount("", &[]), Ok((false, false))),
            (
                Mode::SingleNodeMultiWriter,
                mount("btrfs", &["rw"]),
                Ok((false, false)),
            ),
            (
                Mode::SingleNodeSingleWriter,
                mount("", &[]),
                Ok((false, true)),
            ),
            (
                Mode::SingleNodeReaderOnly,
                mount("", &[]),
                Ok((true, false)),
            ),
            (
                Mode::SingleNodeWriter,
                mount("", &["ro"]),
                Ok((true, false)),
            ),
            (Mode::SingleNodeWriter, mount("", &["noatime"]), invalid),
            (Mode::SingleNodeWriter, mount("ext4", &[]), invalid),
            (
                Mode::SingleNodeWriter,
                Some(AccessType::Block(BlockVolume {})),
                invalid,
            ),
            (Mode::SingleNodeWriter, None, invalid),
            (Mode::MultiNodeMultiWriter, mount("", &[]), invalid),
            (Mode::Unknown, mount("", &[]), invalid),
        ] {
            assert_eq!(
                ask(mode, access_type.clone()),
                expected,
                "{mode:?} {access_type:?}"
            );
        }
        assert!(access(None).is_err());
    }
}
