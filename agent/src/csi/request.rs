//! What requests ask for, checked and told in the words of
//! the provisioner. Pure.

use berth_csi::csi::{
    VolumeCapability, VolumeUsage,
    volume_capability::{AccessType, access_mode::Mode},
    volume_usage::Unit,
};
use berth_model::{MountOption, mount_options};
use berth_provisioner::{MountFlag, Publish, Usage, VolumeMode, VolumeReport};
use tonic::Status;

/// An argument that must be there.
pub(super) fn required(name: &str, value: &str) -> Result<String, Status> {
    match value {
        "" => Err(Status::invalid_argument(format!("{name} is missing"))),
        value => Ok(value.to_owned()),
    }
}

/// What a volume capability asks for, as far as it makes a difference here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) mode: VolumeMode,
    /// Filesystem that the caller takes the volume to have; empty for any.
    pub(super) fs_type: String,
    pub(super) flags: Vec<MountFlag>,
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
    let (readonly, single_writer) = match mode {
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter => (false, false),
        Mode::SingleNodeSingleWriter => (false, true),
        Mode::SingleNodeReaderOnly => (true, false),
        Mode::Unknown
        | Mode::MultiNodeReaderOnly
        | Mode::MultiNodeSingleWriter
        | Mode::MultiNodeMultiWriter => {
            return Err(Status::invalid_argument(format!(
                "access mode {} is not possible: the volume is on a disk of one node; use ReadWriteOnce or ReadWriteOncePod",
                mode.as_str_name()
            )));
        }
    };
    let mut access = Access {
        mode: VolumeMode::Filesystem,
        fs_type: String::new(),
        flags: Vec::new(),
        readonly,
        single_writer,
    };
    match &capability.access_type {
        Some(AccessType::Mount(mount)) => {
            filesystems::known(&mount.fs_type)?;
            access.fs_type.clone_from(&mount.fs_type);
            for flag in &mount.mount_flags {
                match mount_options::parse(flag).map_err(Status::invalid_argument)? {
                    MountOption::ReadOnly => access.readonly = true,
                    MountOption::ReadWrite => {}
                    MountOption::Flag(flag) => access.flags.push(flag),
                }
            }
        }
        Some(AccessType::Block(_)) => access.mode = VolumeMode::Block,
        None => {
            return Err(Status::invalid_argument(
                "volume_capability.access_type is missing",
            ));
        }
    }
    Ok(access)
}

/// What all capabilities of a volume ask for together: it must serve with each.
///
/// The error is INVALID_ARGUMENT: there is none, one cannot be, or one excludes
/// another.
pub(super) fn accesses(capabilities: &[VolumeCapability]) -> Result<(VolumeMode, String), Status> {
    let mut all: Option<(VolumeMode, String)> = None;
    for capability in capabilities {
        let Access { mode, fs_type, .. } = access(Some(capability))?;
        match &mut all {
            None => all = Some((mode, fs_type)),
            Some((other, _)) if *other != mode => {
                return Err(Status::invalid_argument(
                    "volume_capabilities ask for block and for mount: a volume is one of them; ask for two volumes",
                ));
            }
            Some((_, other)) if other.is_empty() => *other = fs_type,
            Some((_, other)) if !fs_type.is_empty() && *other != fs_type => {
                return Err(Status::invalid_argument(format!(
                    "volume_capabilities ask for the filesystems {other:?} and {fs_type:?}: a volume has one; leave the types out"
                )));
            }
            Some(_) => {}
        }
    }
    all.ok_or_else(|| Status::invalid_argument("volume_capabilities are missing"))
}

/// Types of filesystems, as callers name them.
pub(super) mod filesystems {
    use berth_provisioner::Backend;
    use tonic::Status;

    /// Filesystem inside an image.
    const IMAGE: &str = "ext4";

    /// Refuses a type that no backend gives.
    pub(crate) fn known(fs_type: &str) -> Result<(), Status> {
        match fs_type {
            "" | "btrfs" | "ext4" | "xfs" => Ok(()),
            other => Err(Status::invalid_argument(format!(
                "filesystem {other:?} is not available: a volume has its pool's filesystem (btrfs, ext4, xfs), or ext4 with backend image; leave the type out"
            ))),
        }
    }

    /// Filesystem that the users of a volume see.
    pub(crate) fn inside(backend: Backend, pools: &str) -> &str {
        match backend {
            Backend::Image => IMAGE,
            Backend::Btrfs | Backend::ProjectQuota | Backend::Directory => pools,
        }
    }

    /// Refuses a type that a backend cannot give.
    pub(crate) fn check(fs_type: &str, backend: Backend) -> Result<(), Status> {
        known(fs_type)?;
        let can: &[&str] = match backend {
            Backend::Btrfs => &["btrfs"],
            Backend::Image => &[IMAGE],
            Backend::ProjectQuota => &["ext4", "xfs"],
            Backend::Directory => &["btrfs", "ext4", "xfs"],
        };
        match fs_type.is_empty() || can.contains(&fs_type) {
            true => Ok(()),
            false => Err(Status::invalid_argument(format!(
                "filesystem {fs_type:?} is not available: backend {backend} gives {}; leave the type out",
                can.join(" or ")
            ))),
        }
    }
}

/// The pod before this one that still has the volume mounted: another pod (UID) of the same
/// name. An identity has one pod at a time, and so has its data. Pods of other names share
/// the volume on its node, which is what ReadWriteOnce means; ReadWriteOncePod is refused
/// where the volume is published. A repeated request is for a target that stands already.
///
/// Where a name is not known, a pod of the set may be the predecessor of any other.
pub(super) fn predecessor(volume: &VolumeReport, request: &Publish) -> Option<String> {
    let is_replica = volume.set.as_ref().is_some_and(|set| {
        let replica = format!("{}-{}", set.name, set.ordinal);
        let name = request.pod.split_once('/').map(|(_, name)| name);
        name.is_none_or(|name| name == replica)
    });
    let other = volume.published.iter().find(|at| {
        let is_other =
            at.target != request.target && !at.pod_uid.is_empty() && at.pod_uid != request.pod_uid;
        let is_known = !at.pod.is_empty() && !request.pod.is_empty();
        is_other
            && if is_known {
                at.pod == request.pod
            } else {
                is_replica
            }
    })?;
    Some(format!(
        "the pod before this one, {} (UID {}) at {}, which is still going",
        other.user(),
        other.pod_uid,
        other.target.display()
    ))
}

/// Whether a pod of another namespace than the claim's asks for the volume. Kubernetes binds
/// within a namespace, so a PersistentVolume must name a volume that is not its claim's. One
/// that was handed on is recorded for its new claim first.
pub(super) fn is_foreign(volume: &VolumeReport, request: &Publish) -> bool {
    let claims = volume.claim.as_ref().map(|claim| claim.namespace.as_str());
    let pods = request.pod.split_once('/').map(|(namespace, _)| namespace);
    claims
        .zip(pods)
        .is_some_and(|(claims, pods)| !claims.is_empty() && claims != pods)
}

/// Usage as the protocol has it. What a pod keeps on a raw device is its own
/// affair: of that only the size is known.
pub(super) fn usage(usage: &Usage, mode: VolumeMode) -> Vec<VolumeUsage> {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    if mode == VolumeMode::Block {
        return vec![VolumeUsage {
            available: 0,
            total: count(usage.total),
            used: 0,
            unit: Unit::Bytes.into(),
        }];
    }
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

    fn request(volume: &VolumeReport, uid: &str, pod: &str, target: &str) -> Publish {
        Publish {
            id: volume.id.clone(),
            target: target.into(),
            staging: None,
            mode: VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: uid.to_owned(),
            pod: pod.to_owned(),
            single_writer: false,
        }
    }

    #[test]
    fn an_identity_has_one_pod_and_others_may_share_its_volume() {
        let of_set = crate::testdata::volume();
        let set = of_set.set.as_ref().expect("a set");
        let replica = format!("shop/{}-{}", set.name, set.ordinal);
        let plain = VolumeReport {
            set: None,
            ..of_set.clone()
        };
        let blocked = |volume: &VolumeReport, holder: (&str, &str), pod: (&str, &str, &str)| {
            let published = Publication {
                pod_uid: holder.0.to_owned(),
                pod: holder.1.to_owned(),
                target: "/t".into(),
                readonly: false,
            };
            let volume = VolumeReport {
                published: vec![published],
                ..volume.clone()
            };
            let request = request(&volume, pod.0, pod.1, pod.2);
            predecessor(&volume, &request)
        };
        let web = replica.as_str();
        for (volume, holder, pod, expected) in [
            // The same pod again, at the same target or at another.
            (&of_set, ("a", web), ("a", web, "/t"), false),
            (&of_set, ("a", web), ("a", web, "/t2"), false),
            // Its successor waits; a backup does not, before or after the replica.
            (&of_set, ("a", web), ("b", web, "/t2"), true),
            (&of_set, ("a", web), ("b", "shop/backup", "/t2"), false),
            (&of_set, ("b", "shop/backup"), ("a", web, "/t2"), false),
            // Another namespace has pods of the same name.
            (&of_set, ("a", "else/x"), ("b", "shop/x", "/t2"), false),
            // The holder's name is not known: it may be the replica before.
            (&of_set, ("a", ""), ("b", web, "/t2"), true),
            (&of_set, ("a", ""), ("b", "shop/backup", "/t2"), false),
            (&of_set, ("a", ""), ("b", "", "/t2"), true),
            (&of_set, ("", ""), ("b", web, "/t2"), false),
            // The same mount asked for again, without saying for whom.
            (&of_set, ("a", ""), ("", "", "/t"), false),
            // Without a set.
            (&plain, ("a", "shop/x"), ("b", "shop/x", "/t2"), true),
            (&plain, ("a", "shop/x"), ("b", "shop/y", "/t2"), false),
            (&plain, ("a", ""), ("b", "shop/x", "/t2"), false),
        ] {
            let by = blocked(volume, holder, pod);
            assert_eq!(by.is_some(), expected, "{holder:?} {pod:?}: {by:?}");
        }
        for (claims, pod, expected) in [
            (Some("shop"), "shop/x", false),
            (Some("shop"), "else/x", true),
            (Some("shop"), "", false),
            (Some(""), "else/x", false),
            (None, "else/x", false),
        ] {
            let mut volume = of_set.clone();
            match (claims, &mut volume.claim) {
                (Some(namespace), Some(claim)) => claim.namespace = namespace.to_owned(),
                _ => volume.claim = None,
            }
            let asked = request(&of_set, "b", pod, "/t2");
            assert_eq!(is_foreign(&volume, &asked), expected, "{claims:?} {pod:?}");
        }
        let by = blocked(&of_set, ("a", web), ("b", web, "/t2")).expect("refused");
        assert!(by.contains(web) && by.contains("UID a"), "{by}");
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
            (
                Mode::SingleNodeWriter,
                mount("ext4", &["noatime", "ro"]),
                Ok((true, false)),
            ),
            (Mode::SingleNodeWriter, mount("", &["sync"]), invalid),
            (Mode::SingleNodeWriter, mount("zfs", &[]), invalid),
            (
                Mode::SingleNodeSingleWriter,
                Some(AccessType::Block(BlockVolume {})),
                Ok((false, true)),
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

    #[test]
    fn mount_options_are_known_by_name() {
        let flags: Vec<&str> = MountFlag::ALL.iter().map(|(_, name)| *name).collect();
        let capability = |flags: &[&str]| VolumeCapability {
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
            access_type: Some(AccessType::Mount(MountVolume {
                mount_flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
                ..MountVolume::default()
            })),
        };
        let all = access(Some(&capability(&flags))).expect("known");
        assert_eq!(all.flags, MountFlag::ALL.map(|(flag, _)| flag));
        let refused = access(Some(&capability(&["nodev", "suid"]))).expect_err("unknown");
        assert!(refused.message().contains("\"suid\""), "{refused}");
    }

    #[test]
    fn capabilities_of_one_volume_agree() {
        let block = AccessType::Block(BlockVolume {});
        let mount = |fs_type: &str| {
            AccessType::Mount(MountVolume {
                fs_type: fs_type.to_owned(),
                ..MountVolume::default()
            })
        };
        let ask = |types: &[AccessType]| {
            let all: Vec<_> = types
                .iter()
                .map(|access_type| VolumeCapability {
                    access_mode: Some(AccessMode {
                        mode: Mode::SingleNodeWriter.into(),
                    }),
                    access_type: Some(access_type.clone()),
                })
                .collect();
            accesses(&all).map_err(|status| status.code())
        };
        let invalid = Err(tonic::Code::InvalidArgument);
        let filesystem = |fs_type: &str| Ok((VolumeMode::Filesystem, fs_type.to_owned()));
        assert_eq!(ask(&[]), invalid);
        assert_eq!(ask(&[block.clone(), mount("")]), invalid);
        assert_eq!(ask(&[mount("ext4"), mount("xfs")]), invalid);
        assert_eq!(
            ask(&[mount(""), mount("xfs"), mount("")]),
            filesystem("xfs")
        );
        assert_eq!(ask(&[mount("")]), filesystem(""));
        assert_eq!(
            ask(&[block.clone(), block]),
            Ok((VolumeMode::Block, String::new()))
        );
    }

    #[test]
    fn a_device_has_only_a_size() {
        let seen = Usage {
            total: 10,
            used: 4,
            available: 6,
            ..Usage::default()
        };
        let shown = |mode| {
            let all = usage(&seen, mode);
            (all.len(), all[0].total, all[0].used, all[0].available)
        };
        assert_eq!(shown(VolumeMode::Filesystem), (1, 10, 4, 6));
        assert_eq!(shown(VolumeMode::Block), (1, 10, 0, 0));
    }
}
