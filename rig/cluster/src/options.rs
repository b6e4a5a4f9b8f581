//! What a cluster is made with, and the record of it that later commands read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Kind;

/// One gibibyte.
pub const GIB: u64 = 1 << 30;

/// Where a node's pools are, one directory each.
pub const POOLS_DIR: &str = "/var/lib/berth/pools";

/// What a cluster is made with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The instance's name; `None` is the checkout's own.
    pub name: Option<String>,
    /// How many workers beside the one control plane.
    pub workers: usize,
    /// How many pools each worker has: `disk0`, `disk1`, …
    pub pools: usize,
    /// The size of each pool's sparse file, in bytes.
    pub pool_bytes: u64,
    /// The pools' filesystem.
    pub filesystem: Filesystem,
    /// Filesystems of further pools of each worker, which come after those.
    #[serde(default)]
    pub more_pools: Vec<Filesystem>,
    /// Whether the API server logs who writes what: [`crate::Cluster::audit_log`].
    #[serde(default)]
    pub audit: bool,
    /// Kubernetes feature gates, for every component.
    pub feature_gates: BTreeMap<String, bool>,
    /// kube-controller-manager's `--controllers`.
    pub kcm_controllers: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            workers: 3,
            pools: 2,
            pool_bytes: 300 * GIB,
            filesystem: Filesystem::Btrfs,
            more_pools: Vec::new(),
            audit: false,
            feature_gates: BTreeMap::new(),
            kcm_controllers: None,
        }
    }
}

/// A filesystem that pools can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filesystem {
    /// btrfs: subvolumes and qgroups.
    Btrfs,
    /// xfs: reflinks.
    Xfs,
    /// ext4.
    Ext4,
}

impl Filesystem {
    /// Its name for mount(2).
    pub fn name(self) -> &'static str {
        match self {
            Self::Btrfs => "btrfs",
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// The command that makes it on a fresh file.
    pub fn make(self) -> &'static [&'static str] {
        match self {
            Self::Btrfs => &["mkfs.btrfs", "-q"],
            Self::Xfs => &["mkfs.xfs", "-q"],
            Self::Ext4 => &["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1"],
        }
    }

    /// The filesystem of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        [Self::Btrfs, Self::Xfs, Self::Ext4]
            .into_iter()
            .find(|f| f.name() == name)
            .ok_or_else(|| format!("{name} is not one of btrfs, xfs, ext4"))
    }
}

/// A size such as `300GiB`, `20G` or a plain number of bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "" | "B" => 1,
        "M" | "Mi" | "MiB" => 1 << 20,
        "G" | "Gi" | "GiB" => GIB,
        "T" | "Ti" | "TiB" => 1 << 40,
        other => return Err(format!("{other:?} is not one of MiB, GiB, TiB")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is not a size such as 300GiB"))
}

/// A feature gate such as `Name=true`.
pub fn parse_gate(text: &str) -> Result<(String, bool), String> {
    let (name, value) = text.split_once('=').ok_or("write it as Name=true")?;
    let on = value
        .parse()
        .map_err(|_| format!("{value:?} is not true or false"))?;
    Ok((name.to_owned(), on))
}

/// What later commands must know of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// What it was made with.
    pub options: Options,
    /// Which engine runs it.
    pub engine: Kind,
    /// The node image.
    pub image: String,
    /// The workers' containers, which are also their node names.
    pub workers: Vec<String>,
    /// The nodes' pod networks and addresses; empty until every node has registered.
    pub nodes: Vec<crate::cni::Node>,
    /// Whether the cluster was ready once.
    pub ready: bool,
}

impl Options {
    /// The names of a worker's pools, and their filesystems.
    pub fn disks(&self) -> Vec<(String, Filesystem)> {
        let first = std::iter::repeat_n(self.filesystem, self.pools);
        let all = first.chain(self.more_pools.iter().copied()).enumerate();
        all.map(|(n, filesystem)| (format!("disk{n}"), filesystem))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("300GiB"), Ok(300 * GIB));
        assert_eq!(parse_size("512M"), Ok(512 << 20));
        assert_eq!(parse_size("42"), Ok(42));
        for bad in ["", "GiB", "1.5G", "-1G", "5Kb", "99999999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn gates_are_named_and_set() {
        assert_eq!(parse_gate("A=true"), Ok(("A".to_owned(), true)));
        assert!(parse_gate("A").is_err() && parse_gate("A=yes").is_err());
    }

    #[test]
    fn further_pools_come_after_the_others() {
        let options = Options {
            pools: 1,
            more_pools: vec![Filesystem::Xfs],
            ..Options::default()
        };
        let names = [("disk0", Filesystem::Btrfs), ("disk1", Filesystem::Xfs)];
        assert_eq!(
            options.disks(),
            names.map(|(name, filesystem)| (name.to_owned(), filesystem))
        );
    }

    #[test]
    fn filesystems_are_known_by_name() {
        assert_eq!(Filesystem::parse("xfs"), Ok(Filesystem::Xfs));
        assert!(Filesystem::parse("ntfs").is_err());
    }
}
