//! The cluster that a demo, a test run or a measurement makes for itself.

use std::path::PathBuf;

use anyhow::{Context, Result};
use berth_cluster::{Cluster, Error, Options, progress};
use tempfile::TempDir;
use tokio::runtime::Runtime;

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

/// Which cluster a command uses.
#[derive(clap::Args)]
pub struct Which {
    /// The cluster's name; one that runs is used and left running, with this
    /// checkout's Berth loaded anew.
    #[arg(long)]
    pub name: Option<String>,
    /// Leave the cluster running.
    #[arg(long)]
    pub keep: bool,
}

/// Does some work on a cluster: one of its own, made to order, which goes away again, or one
/// that runs. The work is told whether it was made just now. `role` is as for [`up`].
pub fn with(
    which: &Which,
    role: &str,
    options: Options,
    work: impl AsyncFnOnce(&Cluster, bool) -> Result<()>,
) -> Result<()> {
    let name = match &which.name {
        Some(name) => name.clone(),
        None => Cluster::checkout_name(role)?,
    };
    let options = Options {
        name: Some(name.clone()),
        ..options
    };
    let (cluster, fresh) = match up_with(&options) {
        Ok(cluster) => (cluster, true),
        Err(error) if matches!(error.downcast_ref(), Some(Error::AlreadyUp(_))) => {
            let cluster = Cluster::attach(Some(&name))?;
            load(&cluster)?;
            (cluster, false)
        }
        Err(error) => return Err(error),
    };
    let outcome = Runtime::new()?.block_on(work(&cluster, fresh));
    if !fresh || which.keep {
        println!("kept: cargo cluster --name {} status", cluster.name());
        return outcome;
    }
    let removed = cluster.remove().context("clean-up");
    outcome.and(removed)
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
