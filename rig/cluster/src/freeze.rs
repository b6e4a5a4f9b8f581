//! Pools whose disk answers no more: their filesystem is frozen. What waits for such a disk
//! cannot be killed, so a freeze must never outlive its cluster: it is written down before it
//! is made, and taking the cluster away ends it, whoever left it (`thaw`).

use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::options::POOLS_DIR;
use crate::paths;
use crate::thaw::notes;

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
