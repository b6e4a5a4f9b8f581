//! Which pool a volume goes to when nobody but this node decides, and whether it
//! may go to this node at all. Pure.

use berth_api::names::TOPOLOGY_NODE;
use berth_csi::csi::{Topology, TopologyRequirement};
use berth_provisioner::{Backend, Health, PoolId, PoolReport, VolumeMode, candidates};
use tonic::Status;

use super::request::filesystems;

/// What matters about a volume for where it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) mode: VolumeMode,
    pub(super) backend: Option<Backend>,
    /// Filesystem that the caller expects inside; empty for any.
    pub(super) fs_type: String,
}

impl Want {
    /// Refuses what no pool can make, wherever it is.
    pub(super) fn check(&self) -> Result<(), Status> {
        match (self.mode, self.backend) {
            (VolumeMode::Block, Some(kind)) if kind != Backend::Image => {
                Err(Status::invalid_argument(format!(
                    "backend {kind} makes no raw block volumes; use backend image, or leave it out"
                )))
            }
            (VolumeMode::Filesystem, Some(kind)) => filesystems::check(&self.fs_type, kind),
            _ => Ok(()),
        }
    }

    fn backend_in(&self, pool: &PoolReport) -> Option<Backend> {
        let wanted = match &self.backend {
            Some(demanded) => std::slice::from_ref(demanded),
            None => candidates(self.mode),
        };
        let mut there = wanted
            .iter()
            .copied()
            .filter(|kind| pool.backends.contains(kind));
        let first = there.clone().next();
        there
            .find(|kind| self.has_filesystem(pool, *kind))
            .or(first)
    }

    fn has_filesystem(&self, pool: &PoolReport, backend: Backend) -> bool {
        self.mode == VolumeMode::Block
            || self.fs_type.is_empty()
            || self.fs_type == filesystems::inside(backend, &pool.filesystem)
    }
}

/// The pools that could hold such a volume, were there room.
pub(super) fn fitting<'a>(
    pools: &'a [PoolReport],
    want: &'a Want,
) -> impl Iterator<Item = (&'a PoolId, &'a PoolReport)> {
    pools.iter().filter_map(|pool| {
        let id = pool
            .id
            .as_ref()
            .filter(|_| pool.health == Health::Healthy)?;
        let backend = want.backend_in(pool)?;
        want.has_filesystem(pool, backend).then_some((id, pool))
    })
}

/// The pools with room for a volume of `size` bytes, those with most room first.
///
/// The error is INVALID_ARGUMENT where only the filesystem's type is in the way,
/// else RESOURCE_EXHAUSTED: another node may do.
pub(super) fn choose(pools: &[PoolReport], want: &Want, size: u64) -> Result<Vec<PoolId>, Status> {
    let mut fit: Vec<_> = fitting(pools, want).collect();
    fit.sort_by(|(a, one), (b, other)| other.room.cmp(&one.room).then_with(|| a.cmp(b)));
    let most = fit.first().map(|(_, pool)| pool.room);
    let chosen: Vec<PoolId> = fit
        .into_iter()
        .filter(|(_, pool)| pool.room >= size)
        .map(|(id, _)| id.clone())
        .collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    if let Some(most) = most {
        return Err(Status::resource_exhausted(format!(
            "{size} bytes are asked for, and no pool of this node has room for more than {most}; delete volumes, or add a disk"
        )));
    }
    let any_filesystem = Want {
        fs_type: String::new(),
        ..want.clone()
    };
    if let Some((_, pool)) = fitting(pools, &any_filesystem).next() {
        return Err(Status::invalid_argument(format!(
            "filesystem {:?} is not available: volumes here have their pool's, {}; leave the type out, or ask for ext4 with the parameter backend: image",
            want.fs_type, pool.filesystem
        )));
    }
    Err(Status::resource_exhausted(why_none(pools, want)))
}

/// Why no pool can make such a volume, as far as the pools tell.
fn why_none(pools: &[PoolReport], want: &Want) -> String {
    let kind = match (want.backend, want.mode) {
        (Some(kind), _) => kind,
        (None, mode) => candidates(mode)[0],
    };
    let reasons: Vec<String> = pools
        .iter()
        .filter_map(|pool| {
            let why = match &pool.health {
                Health::Healthy => &pool.why_not.iter().find(|(k, _)| *k == kind)?.1,
                _ => &pool.message,
            };
            Some(format!("{}: {why}", pool.dir))
        })
        .collect();
    let what = match (want.backend, want.mode) {
        (Some(kind), _) => format!("backend {kind}"),
        (None, VolumeMode::Block) => "raw block volumes".to_owned(),
        (None, VolumeMode::Filesystem) => "volumes with a size limit".to_owned(),
    };
    match reasons.is_empty() {
        true => format!("no pool of this node is there for {what}; `berth-agent pools` shows them"),
        false => format!("no pool of this node has {what} ({})", reasons.join("; ")),
    }
}

/// This node, as a place to be.
pub(super) fn topology(node: &str) -> Topology {
    Topology {
        segments: [(TOPOLOGY_NODE.to_owned(), node.to_owned())].into(),
    }
}

/// Refuses a requirement that this node does not meet.
///
/// The error is RESOURCE_EXHAUSTED: there is no room *there*.
pub(super) fn here(requirement: Option<&TopologyRequirement>, node: &str) -> Result<(), Status> {
    let Some(requirement) = requirement else {
        return Ok(());
    };
    let all = match requirement.requisite.is_empty() {
        true => &requirement.preferred,
        false => &requirement.requisite,
    };
    if all.is_empty() || all.iter().any(|topology| is_here(topology, node)) {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "accessibility_requirements do not contain this node: {TOPOLOGY_NODE}={node}; volumes are made where their disk is"
    )))
}

/// Whether a topology is this node's.
pub(super) fn is_here(topology: &Topology, node: &str) -> bool {
    topology.segments.get(TOPOLOGY_NODE).map(String::as_str) == Some(node)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn pool(name: &str, room: u64, backends: &[Backend]) -> PoolReport {
        PoolReport {
            id: Some(PoolId::new(name).expect("valid")),
            room,
            backends: backends.into(),
            ..crate::testdata::pool(Health::Healthy)
        }
    }

    fn ids(chosen: Result<Vec<PoolId>, Status>) -> Result<Vec<String>, Code> {
        chosen
            .map(|ids| ids.iter().map(ToString::to_string).collect())
            .map_err(|status| status.code())
    }

    #[test]
    fn the_most_room_comes_first() {
        let sick = PoolReport {
            health: Health::ReadOnly,
            ..pool("sick", 1000, &[Backend::Btrfs])
        };
        let pools = [
            pool("b", 10, &[Backend::Btrfs, Backend::Image]),
            pool("d", 30, &[Backend::Btrfs]),
            pool("a", 10, &[Backend::Btrfs]),
            pool("tiny", 1, &[Backend::Btrfs]),
            sick,
        ];
        let any = Want::default();
        assert_eq!(
            ids(choose(&pools, &any, 5)),
            Ok(["d", "a", "b"].map(str::to_owned).into())
        );
        assert_eq!(ids(choose(&pools, &any, 31)), Err(Code::ResourceExhausted));
        let image = Want {
            backend: Some(Backend::Image),
            ..Want::default()
        };
        assert_eq!(ids(choose(&pools, &image, 5)), Ok(vec!["b".to_owned()]));
        assert_eq!(
            ids(choose(&pools, &image, 11)),
            Err(Code::ResourceExhausted)
        );
        let block = Want {
            mode: VolumeMode::Block,
            ..Want::default()
        };
        assert_eq!(ids(choose(&pools, &block, 5)), Ok(vec!["b".to_owned()]));
        assert_eq!(fitting(&pools, &any).count(), 4);
    }

    #[test]
    fn what_is_missing_is_named() {
        let quota = Want {
            backend: Some(Backend::ProjectQuota),
            ..Want::default()
        };
        let refused = choose(&[pool("a", 10, &[Backend::Btrfs])], &quota, 1).expect_err("none");
        assert_eq!(
            refused.message(),
            "no pool of this node has backend project-quota (disk0: btrfs has no project quotas)"
        );
        let refused = choose(&[], &Want::default(), 1).expect_err("none");
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }

    #[test]
    fn a_filesystem_is_the_pools_or_the_images() {
        let pools = [pool("a", 10, &[Backend::Btrfs, Backend::Image])];
        let want = |fs_type: &str, backend| Want {
            fs_type: fs_type.to_owned(),
            backend,
            ..Want::default()
        };
        let chosen = |want: &Want| ids(want.check().and_then(|()| choose(&pools, want, 1)));
        let yes = Ok(vec!["a".to_owned()]);
        let no = Err(Code::InvalidArgument);
        assert_eq!(chosen(&want("btrfs", None)), yes);
        assert_eq!(chosen(&want("ext4", None)), yes);
        assert_eq!(chosen(&want("xfs", None)), no);
        assert_eq!(chosen(&want("ext4", Some(Backend::Image))), yes);
        assert_eq!(chosen(&want("xfs", Some(Backend::Image))), no);
        assert_eq!(chosen(&want("ext4", Some(Backend::Btrfs))), no);
        let block = Want {
            mode: VolumeMode::Block,
            ..want("", Some(Backend::Btrfs))
        };
        assert_eq!(chosen(&block), no);
    }

    #[test]
    fn a_volume_is_made_here_or_not_at_all() {
        let at = |nodes: &[&str]| nodes.iter().map(|node| topology(node)).collect::<Vec<_>>();
        let requirement = |requisite: &[&str], preferred: &[&str]| TopologyRequirement {
            requisite: at(requisite),
            preferred: at(preferred),
        };
        for (wanted, expected) in [
            (requirement(&[], &[]), true),
            (requirement(&["n1", "n2"], &["n2"]), true),
            (requirement(&["n2"], &["n1"]), false),
            (requirement(&[], &["n1"]), true),
            (requirement(&[], &["n2"]), false),
        ] {
            assert_eq!(here(Some(&wanted), "n1").is_ok(), expected, "{wanted:?}");
        }
        assert!(here(None, "n1").is_ok());
        let elsewhere = Topology {
            segments: [("zone".to_owned(), "n1".to_owned())].into(),
        };
        assert!(!is_here(&elsewhere, "n1"));
    }
}
