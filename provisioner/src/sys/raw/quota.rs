//! Project quotas (quotactl(2)), by handle: no device's path is needed. By hand:
//! neither rustix nor nix has quotactl_fd(2).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

use super::layout::{LIMITS_OF_BLOCKS, LIMITS_OF_INODES, QuotaBlock, QuotaState};
use super::returned;
use crate::fs::dir::Dir;
use crate::sys::host::{Project, ProjectLimits};

/// quotactl_fd(2), since kernel 5.14; one number on every architecture that agents
/// are built for, and not named by libc for all of them.
const SYS_QUOTACTL_FD: libc::c_long = 443;

/// `PRJQUOTA`.
const PROJECTS: u32 = 2;
const GET_QUOTA: u32 = 0x80_0007;
const SET_QUOTA: u32 = 0x80_0008;
/// `Q_XGETQSTATV`: XQM_CMD(8).
const GET_STATE: u32 = ((b'X' as u32) << 8) + 8;

/// Version of the answer's layout (`FS_QSTATV_VERSION1`).
const STATE_VERSION: i8 = 1;
/// Projects are counted (`FS_QUOTA_PDQ_ACCT`).
const COUNTED: u16 = 1 << 4;
/// Their limits are enforced (`FS_QUOTA_PDQ_ENFD`).
const ENFORCED: u16 = 1 << 5;

/// Unit of the limits in [`QuotaBlock`], whatever the filesystem's blocks are.
const KIB: u64 = 1024;

fn call<T>(dir: &Dir, command: u32, project: u32, argument: *mut T) -> io::Result<()> {
    // SAFETY: the handle is open, and every caller passes a pointer to a whole
    // structure of its own that has the command's layout.
    returned(unsafe {
        libc::syscall(
            SYS_QUOTACTL_FD,
            dir.as_fd().as_raw_fd(),
            (command << 8) | PROJECTS,
            project,
            argument,
        )
    })?;
    Ok(())
}

/// Whether projects are counted and their limits enforced; not where the kernel or
/// the filesystem knows nothing of them.
pub(crate) fn enforced(dir: &Dir) -> io::Result<bool> {
    let mut state = QuotaState {
        version: STATE_VERSION,
        ..QuotaState::default()
    };
    match call(dir, GET_STATE, 0, &raw mut state) {
        Ok(()) => Ok(both(state.flags)),
        Err(e) if means_none(e.raw_os_error()) => Ok(false),
        Err(e) => Err(e),
    }
}

fn both(flags: u16) -> bool {
    flags & (COUNTED | ENFORCED) == COUNTED | ENFORCED
}

fn means_none(error: Option<i32>) -> bool {
    [
        Errno::ESRCH,
        Errno::ENOSYS,
        Errno::ENOTTY,
        Errno::EOPNOTSUPP,
        Errno::ENOTSUP,
        Errno::EINVAL,
    ]
    .iter()
    .any(|errno| error == Some(*errno as i32))
}

/// Use and limit of a project; zeros if the filesystem never met it.
pub(crate) fn project(dir: &Dir, project: u32) -> io::Result<Project> {
    let mut block = QuotaBlock::default();
    match call(dir, GET_QUOTA, project, &raw mut block) {
        Ok(()) => Ok(decode(&block)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Project::default()),
        Err(e) => Err(e),
    }
}

/// Limits a project, its bytes rounded up to KiB; `None` takes every limit off.
pub(crate) fn limit(dir: &Dir, project: u32, limits: Option<ProjectLimits>) -> io::Result<()> {
    let mut block = encode(limits);
    call(dir, SET_QUOTA, project, &raw mut block)
}

fn decode(block: &QuotaBlock) -> Project {
    Project {
        used: block.space,
        limit: (block.block_hard != 0).then(|| block.block_hard.saturating_mul(KIB)),
        inodes: block.inodes,
        inode_limit: (block.inode_hard != 0).then_some(block.inode_hard),
    }
}

fn encode(limits: Option<ProjectLimits>) -> QuotaBlock {
    QuotaBlock {
        // Zero means no limit: the smallest limit that can be said is one.
        block_hard: limits.map_or(0, |limits| limits.bytes.div_ceil(KIB).max(1)),
        inode_hard: limits
            .and_then(|limits| limits.inodes)
            .map_or(0, |inodes| inodes.max(1)),
        valid: LIMITS_OF_BLOCKS | LIMITS_OF_INODES,
        ..QuotaBlock::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_rounded_up_and_zero_is_never_no_limit() {
        for (bytes, kib) in [
            (Some(0), 1),
            (Some(1), 1),
            (Some(1024), 1),
            (Some(1025), 2),
            (Some(u64::MAX), 1 << 54),
            (None, 0),
        ] {
            let limits = |bytes| ProjectLimits {
                bytes,
                inodes: None,
            };
            let block = encode(bytes.map(limits));
            assert_eq!(block.block_hard, kib, "{bytes:?}");
            assert_eq!((block.block_soft, block.inode_soft), (0, 0));
            assert_eq!((block.inode_hard, block.valid), (0, 1 | 4));
        }
        for (inodes, hard) in [(0, 1), (1, 1), (u64::MAX, u64::MAX)] {
            let limits = ProjectLimits {
                bytes: 1,
                inodes: Some(inodes),
            };
            assert_eq!(encode(Some(limits)).inode_hard, hard, "{inodes}");
        }
    }

    #[test]
    fn what_was_limited_reads_back() {
        let limits = ProjectLimits {
            bytes: 5 << 20,
            inodes: Some(1024),
        };
        let mut block = encode(Some(limits));
        block.space = 4096;
        block.inodes = 3;
        let project = Project {
            used: 4096,
            limit: Some(5 << 20),
            inodes: 3,
            inode_limit: Some(1024),
        };
        assert_eq!(decode(&block), project);
        assert_eq!(decode(&encode(None)), Project::default());
    }

    #[test]
    fn counting_alone_enforces_nothing() {
        assert!(both(COUNTED | ENFORCED | 1));
        assert!(!both(COUNTED));
        assert!(!both(ENFORCED));
        assert!(means_none(Some(libc::ENOSYS)));
        assert!(!means_none(Some(libc::EIO)));
        assert_eq!(GET_STATE, 0x5808);
    }
}
