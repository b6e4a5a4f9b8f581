//! The cluster that a demo, a test run or a measurement makes for itself.

use anyhow::Result;
use berth_cluster::{Cluster, Options, image};

/// Brings up a cluster of this checkout and loads Berth's image, built from it.
/// `role` is a letter that keeps a kept demo and a test run apart.
pub fn up(role: &str) -> Result<Cluster> {
    let name = Some(Cluster::checkout_name(role)?);
    let cluster = Cluster::up(&Options {
        name,
        ..Options::default()
    })?;
    let dir = tempfile::tempdir()?;
    let archive = dir.path().join("berth.tar");
    image::build(&archive, None)?;
    cluster.load_image(&archive)?;
    Ok(cluster)
}
