//! A lock for each pool, beside that of the root: held for as long as anything of this
//! process may still write to the pool's disk.
//!
//! The lock of the root keeps two agents from working at once, and is given up when an
//! agent ends. A call into a disk that does not answer cannot be ended, not even by
//! killing the process: it may land much later, in the middle of what the next agent
//! does. So the operation keeps the pool's lock, which the kernel frees with the last
//! thread of the old process, and the next agent leaves this pool, and only it, alone
//! until then.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, IoContext};
use crate::types::PoolId;

/// Directory of the locks, under the root.
const LEASES: &str = "leases";

/// A pool's lock; it is freed when this is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    _file: File,
}

impl Lease {
    /// Takes the pool's lock.
    ///
    /// # Errors
    /// [`Error::Unresponsive`] while an earlier agent's operation on the pool goes on.
    pub(crate) fn take(root: &Path, pool: &PoolId) -> Result<Self, Error> {
        let dir = root.join(LEASES);
        std::fs::create_dir_all(&dir).context("making", &dir)?;
        let path = dir.join(pool.as_str());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context("opening", &path)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::Error(e)) => Err(e).context("locking", path),
            Err(TryLockError::WouldBlock) => Err(Error::Unresponsive {
                path,
                why: "an earlier agent's operation on this pool has not ended, because its disk \
                      does not answer; nothing is done here until it has"
                    .into(),
            }),
        }
    }
}
