//! What ioctls and quotactl(2) take and give: the structures of
//! `include/uapi/linux/{btrfs,fs,quota,dqblk_xfs}.h`, their sizes asserted
//! below.

pub(crate) const SEARCH_BUFFER: usize = 4096 - size_of::<SearchKey>();
pub(crate) const NAME_V2: usize = 4040;
/// First object of a subvolume's tree: its root directory.
pub(crate) const FIRST_FREE_OBJECT: u64 = 256;
/// A qgroup's limit of referenced bytes is set.
pub(crate) const LIMIT_MAX_RFER: u64 = 1 << 0;

#[repr(C)]
pub(crate) struct VolArgsV2 {
    pub(crate) fd: i64,
    pub(crate) transid: u64,
    pub(crate) flags: u64,
    pub(crate) unused: [u64; 4],
    /// A name, or the id of a subvolume in its first eight bytes.
    pub(crate) name: [u8; NAME_V2],
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct QuotaCtl {
    pub(crate) cmd: u64,
    pub(crate) status: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct QuotaRescan {
    pub(crate) flags: u64,
    pub(crate) progress: u64,
    pub(crate) reserved: [u64; 6],
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct QgroupCreate {
    pub(crate) create: u64,
    pub(crate) qgroup: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct QgroupLimit {
    pub(crate) qgroup: u64,
    pub(crate) flags: u64,
    pub(crate) max_rfer: u64,
    pub(crate) max_excl: u64,
    pub(crate) rsv_rfer: u64,
    pub(crate) rsv_excl: u64,
}

#[repr(C)]
pub(crate) struct InoLookup {
    pub(crate) tree: u64,
    pub(crate) object: u64,
    pub(crate) name: [u8; 4080],
}

#[repr(C)]
pub(crate) struct FsInfo {
    pub(crate) max_id: u64,
    pub(crate) num_devices: u64,
    pub(crate) fsid: [u8; 16],
    pub(crate) rest: [u8; 992],
}

/// Kinds of errors that btrfs counts for each device.
pub(crate) const DEV_STATS: usize = 5;
pub(crate) const DEV_STATS_PADDING: usize = 128 - 2 - DEV_STATS;

#[repr(C)]
pub(crate) struct DevStats {
    pub(crate) device: u64,
    pub(crate) items: u64,
    pub(crate) flags: u64,
    pub(crate) values: [u64; DEV_STATS],
    pub(crate) unused: [u64; DEV_STATS_PADDING],
}

/// `struct fsuuid2`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct FsUuid {
    pub(crate) length: u8,
    pub(crate) uuid: [u8; 16],
}

/// `struct fsuuid` of ext4, with room for one.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Ext4Uuid {
    pub(crate) length: u32,
    pub(crate) flags: u32,
    pub(crate) uuid: [u8; 16],
}

/// `struct xfs_fsop_geom_v1`, of which only the UUID is of use here.
#[repr(C)]
#[derive(Default)]
pub(crate) struct XfsGeometry {
    pub(crate) sizes: [u32; 8],
    pub(crate) blocks: [u64; 4],
    pub(crate) uuid: [u8; 16],
    pub(crate) rest: [u32; 7],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct SearchKey {
    pub(crate) tree: u64,
    pub(crate) min_object: u64,
    pub(crate) max_object: u64,
    pub(crate) min_offset: u64,
    pub(crate) max_offset: u64,
    pub(crate) min_transid: u64,
    pub(crate) max_transid: u64,
    pub(crate) min_type: u32,
    pub(crate) max_type: u32,
    pub(crate) items: u32,
    pub(crate) unused: u32,
    pub(crate) unused_too: [u64; 4],
}

#[repr(C)]
pub(crate) struct SearchArgs {
    pub(crate) key: SearchKey,
    pub(crate) buffer: [u8; SEARCH_BUFFER],
}

/// `struct fsxattr`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct FsXattr {
    pub(crate) flags: u32,
    pub(crate) extent_size: u32,
    pub(crate) extents: u32,
    pub(crate) project: u32,
    pub(crate) cow_extent_size: u32,
    pub(crate) padding: [u8; 8],
}

/// Extents that are asked of a file at once.
pub(crate) const EXTENTS: usize = 64;

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Extent {
    pub(crate) logical: u64,
    pub(crate) physical: u64,
    pub(crate) length: u64,
    pub(crate) reserved: [u64; 2],
    pub(crate) flags: u32,
    pub(crate) reserved_too: [u32; 3],
}

/// `struct fiemap` without its extents: the size that the call's number carries.
#[repr(C)]
#[derive(Default)]
pub(crate) struct ExtentsHead {
    pub(crate) start: u64,
    pub(crate) length: u64,
    pub(crate) flags: u32,
    pub(crate) mapped: u32,
    pub(crate) count: u32,
    pub(crate) reserved: u32,
}

/// `struct fiemap`.
#[repr(C)]
pub(crate) struct Extents {
    pub(crate) head: ExtentsHead,
    pub(crate) extents: [Extent; EXTENTS],
}

/// Of a [`QuotaBlock`], the limits of blocks are to be set (`QIF_BLIMITS`).
pub(crate) const LIMITS_OF_BLOCKS: u32 = 1;

/// Of a [`QuotaBlock`], the limits of inodes are to be set (`QIF_ILIMITS`).
pub(crate) const LIMITS_OF_INODES: u32 = 4;

/// `struct if_dqblk`: limits of blocks in KiB, space in bytes.
#[repr(C)]
#[derive(Default)]
pub(crate) struct QuotaBlock {
    pub(crate) block_hard: u64,
    pub(crate) block_soft: u64,
    pub(crate) space: u64,
    pub(crate) inode_hard: u64,
    pub(crate) inode_soft: u64,
    pub(crate) inodes: u64,
    pub(crate) block_time: u64,
    pub(crate) inode_time: u64,
    pub(crate) valid: u32,
}

/// `struct fs_qfilestatv`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct QuotaFile {
    pub(crate) inode: u64,
    pub(crate) blocks: u64,
    pub(crate) extents: u32,
    pub(crate) padding: u32,
}

/// `struct fs_quota_statv`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct QuotaState {
    pub(crate) version: i8,
    pub(crate) padding: u8,
    pub(crate) flags: u16,
    pub(crate) in_core: u32,
    pub(crate) files: [QuotaFile; 3],
    pub(crate) time_limits: [i32; 3],
    pub(crate) warning_limits: [u16; 3],
    pub(crate) padding_too: u16,
    pub(crate) padding_more: u32,
    pub(crate) reserved: [u64; 7],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_kernels_sizes() {
        assert_eq!(size_of::<VolArgsV2>(), 4096);
        assert_eq!(size_of::<QuotaCtl>(), 16);
        assert_eq!(size_of::<QuotaRescan>(), 64);
        assert_eq!(size_of::<QgroupCreate>(), 16);
        assert_eq!(size_of::<QgroupLimit>(), 48);
        assert_eq!(size_of::<InoLookup>(), 4096);
        assert_eq!(size_of::<FsInfo>(), 1024);
        assert_eq!(size_of::<SearchKey>(), 104);
        assert_eq!(size_of::<SearchArgs>(), 4096);
        assert_eq!(size_of::<DevStats>(), 1032);
        assert_eq!(size_of::<FsUuid>(), 17);
        assert_eq!(size_of::<XfsGeometry>(), 112);
        assert_eq!(size_of::<FsXattr>(), 28);
        assert_eq!(size_of::<ExtentsHead>(), 32);
        assert_eq!(size_of::<Extents>(), 32 + EXTENTS * 56);
        assert_eq!(size_of::<QuotaBlock>(), 72);
        assert_eq!(size_of::<QuotaFile>(), 24);
        assert_eq!(size_of::<QuotaState>(), 160);
    }
}
