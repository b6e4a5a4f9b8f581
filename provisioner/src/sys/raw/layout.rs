//! What btrfs's ioctls take and give: the structures of
//! `include/uapi/linux/btrfs.h`, their sizes asserted below.

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
    }
}
