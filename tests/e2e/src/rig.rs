//! The cluster that a demo, a test run or a measurement makes for itself.

use anyhow::Result;
use berth_cluster::{Cluster, Options, image};

/// Brings up a cluster of this checkout and loads Berth's image, built from it.
/// `role` is a letter that keeps a kept demo and a test run apart.
pub fn up(role: &str) -> Result<Cluster> {
    up_with(&Options {
        name: Some(Cluster::checkout_name(role)?),
        ..Options::default()
    })
}

/// As [`up`], of nodes that have no disks of their own.
pub fn up_plain(role: &str) -> Result<Cluster> {
    up_with(&Options {
        name: Some(Cluster::checkout_name(role)?),
        pools: 0,
        ..Options::default()
    })
}

/// As [`up`], made to order.
pub fn up_with(options: &Options) -> Result<Cluster> {
    let cluster = Cluster::up(options)?;
    load(&cluster)?;
    Ok(cluster)
}

/// Builds Berth's image from this checkout and loads it into every node.
pub fn load(cluster: &Cluster) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("berth.tar");
    image::build(&archive, None)?;
    Ok(cluster.load_image(&archive)?)
}
