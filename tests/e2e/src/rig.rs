//! The cluster that a demo, a test run or a measurement makes for itself.

use std::path::PathBuf;

use anyhow::Result;
use berth_cluster::{Cluster, Options, progress};
use tempfile::TempDir;

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

/// As [`up`], made to order. The image is made first: beside a compiler that takes every
/// core, a control plane on a small machine misses its own deadlines.
pub fn up_with(options: &Options) -> Result<Cluster> {
    let image = image()?;
    let cluster = Cluster::up(options)?;
    if let Err(error) = cluster.load_image(&image.path) {
        // It is of no use without the image.
        cluster.remove()?;
        return Err(error.into());
    }
    Ok(cluster)
}

/// Makes Berth's image from this checkout and loads it into every node.
pub fn load(cluster: &Cluster) -> Result<()> {
    Ok(cluster.load_image(&image()?.path)?)
}

/// An image archive that goes with this value.
struct Image {
    path: PathBuf,
    _dir: TempDir,
}

fn image() -> Result<Image> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("berth.tar");
    progress::step("building Berth's image", || {
        berth_package::image::build(&path, true)
    })?;
    Ok(Image { path, _dir: dir })
}
