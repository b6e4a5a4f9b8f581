//! Pools whose disk answers no more: their filesystem is frozen. What waits for such a disk
//! cannot be killed, so a freeze must never outlive its cluster: it is written down before it
//! is made, and taking the cluster away ends it, whoever left it.

use std::path::Path;

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::loopdev;
use crate::options::POOLS_DIR;
use crate::paths::{self, Layout};
use crate::run::Run;

/// A pool whose filesystem is frozen; thawed when this value goes.
#[derive(Debug)]
pub struct Frozen<'a> {
    cluster: &'a Cluster,
    node: String,
    pool: String,
    thawed: bool,
}

impl Cluster {
    /// Freezes the filesystem of a pool: whatever writes to it waits, and cannot be killed.
    pub fn freeze_pool(&self, node: &str, pool: &str) -> Result<Frozen<'_>> {
        let node = self.known(node)?;
        // Also what refuses a name that is none of the rig's.
        let path = crate::nodes::pool_path(pool)?;
        let note = notes(&self.layout).join(format!("{node}-{pool}"));
        paths::make_dir(&notes(&self.layout))?;
        let file = self.layout.disk(&node, pool);
        paths::write(&note, file.as_os_str().as_encoded_bytes())?;
        let frozen = Frozen {
            cluster: self,
            node,
            pool: pool.to_owned(),
            thawed: false,
        };
        self.node_script(&frozen.node, &format!("fsfreeze -f {path}"))?;
        Ok(frozen)
    }
}

impl Frozen<'_> {
    /// Thaws it.
    pub fn thaw(mut self) -> Result<()> {
        self.thawed = true;
        self.end()
    }

    fn end(&self) -> Result<()> {
        let script = format!("fsfreeze -u {POOLS_DIR}/{}", self.pool);
        self.cluster.node_script(&self.node, &script)?;
        let note = format!("{}-{}", self.node, self.pool);
        let note = notes(&self.cluster.layout).join(note);
        std::fs::remove_file(&note).map_err(Error::io("cannot remove", &note))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if !self.thawed
            && let Err(error) = self.end()
        {
            eprintln!("{} of {} stays frozen: {error}", self.pool, self.node);
        }
    }
}

/// Where freezes are written down: a file each, with the path of the disk's backing file.
fn notes(layout: &Layout) -> std::path::PathBuf {
    layout.root().join("frozen")
}

/// Thaws what a killed run left frozen: its filesystem is mounted once more for that.
pub(crate) fn thaw_all(layout: &Layout) -> Result<()> {
    let listing = match std::fs::read_dir(notes(layout)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        listing => listing.map_err(Error::io("cannot list", &notes(layout)))?,
    };
    for note in listing.flatten() {
        let file = paths::read(&note.path())?;
        if let Some(device) = loopdev::of_file(Path::new(&file))? {
            thaw(layout, &device)?;
        }
        std::fs::remove_file(note.path()).map_err(Error::io("cannot remove", &note.path()))?;
    }
    Ok(())
}

fn thaw(layout: &Layout, device: &Path) -> Result<()> {
    let at = layout.root().join("thaw");
    paths::make_dir(&at)?;
    Run::new("mount").arg(device).arg(&at).stdout()?;
    // It fails where the note was written and the freeze was not made.
    let _ = Run::new("fsfreeze").arg("-u").arg(&at).output()?;
    Run::new("umount").arg(&at).stdout().map(drop)
}
