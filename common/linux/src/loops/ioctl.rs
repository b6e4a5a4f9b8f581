//! Loop devices' ioctls (loop(4)), one safe function each; structures and numbers are
//! those of `include/uapi/linux/loop.h`. All `unsafe` of this crate is here: neither
//! rustix nor nix wraps these calls.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// It refuses writes.
pub(super) const READ_ONLY: u32 = 1;
/// It detaches itself when its last user closes it.
pub(super) const AUTOCLEAR: u32 = 4;
/// It reads and writes its file past the page cache.
pub(super) const DIRECT_IO: u32 = 16;

/// What the devices' status shows as the file's name; nobody matches by it.
const FILE_NAME: &[u8] = b"berth";

/// Length of the names in [`LoopInfo`].
pub(super) const LOOP_NAME: usize = 64;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LoopInfo {
    /// Device of the file's filesystem, encoded as stat(2) does.
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    pub(super) size_limit: u64,
    pub(super) number: u32,
    pub(super) encrypt_type: u32,
    pub(super) encrypt_key_size: u32,
    pub(super) flags: u32,
    pub(super) file_name: [u8; LOOP_NAME],
    pub(super) crypt_name: [u8; LOOP_NAME],
    pub(super) encrypt_key: [u8; 32],
    pub(super) init: [u64; 2],
}

impl Default for LoopInfo {
    fn default() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; LOOP_NAME],
            crypt_name: [0; LOOP_NAME],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// `struct loop_config`.
#[repr(C)]
pub(super) struct LoopConfig {
    pub(super) fd: u32,
    pub(super) block_size: u32,
    pub(super) info: LoopInfo,
    pub(super) reserved: [u64; 8],
}

mod raw {
    #![allow(
        missing_docs,
        unreachable_pub,
        reason = "the macros write public functions without documentation"
    )]
    use super::{LoopConfig, LoopInfo};
    nix::ioctl_none_bad!(clr_fd, 0x4C01);
    nix::ioctl_read_bad!(get_status64, 0x4C05, LoopInfo);
    nix::ioctl_none_bad!(set_capacity, 0x4C07);
    nix::ioctl_write_ptr_bad!(configure, 0x4C0A, LoopConfig);
    nix::ioctl_none_bad!(ctl_get_free, 0x4C82);
    nix::ioctl_write_ptr_bad!(roset, nix::request_code_none!(0x12, 93), libc::c_int);
}

/// Number of a device that nobody uses; the kernel makes one if need be.
pub(super) fn free(control: &File) -> io::Result<u32> {
    // SAFETY: the handle is open; the call takes nothing else.
    let number = unsafe { raw::ctl_get_free(control.as_raw_fd()) }?;
    Ok(u32::try_from(number).expect("the kernel counts from zero"))
}

/// Attaches a device to `file`; `EBUSY` when it has one.
pub(super) fn configure(
    device: &File,
    file: &impl AsFd,
    block_size: u32,
    flags: u32,
) -> io::Result<()> {
    let mut config = LoopConfig {
        fd: u32::try_from(file.as_fd().as_raw_fd()).expect("an open handle is not negative"),
        block_size,
        info: LoopInfo {
            flags,
            ..LoopInfo::default()
        },
        reserved: [0; 8],
    };
    config.info.file_name = name();
    // SAFETY: both handles are open and `config` has the kernel's layout.
    unsafe { raw::configure(device.as_raw_fd(), &config) }?;
    Ok(())
}

fn name() -> [u8; LOOP_NAME] {
    let mut name = [0; LOOP_NAME];
    name[..FILE_NAME.len()].copy_from_slice(FILE_NAME);
    name
}

/// What a device is attached to; `None` if to nothing.
pub(super) fn status(device: &File) -> io::Result<Option<LoopInfo>> {
    let mut info = LoopInfo::default();
    // SAFETY: the handle is open and `info` has the kernel's layout.
    match unsafe { raw::get_status64(device.as_raw_fd(), &mut info) } {
        Ok(_) => Ok(Some(info)),
        Err(Errno::ENXIO) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Detaches a device, when its last user closes it if it is held; detached
/// already is fine.
pub(super) fn detach(device: &File) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    match unsafe { raw::clr_fd(device.as_raw_fd()) } {
        Ok(_) | Err(Errno::ENXIO) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Takes the file's size over.
pub(super) fn set_capacity(device: &File) -> io::Result<()> {
    // SAFETY: the handle is open; the call takes nothing else.
    unsafe { raw::set_capacity(device.as_raw_fd()) }?;
    Ok(())
}

/// Takes off a mark that whoever had the device before may have left: that it
/// refuses writes, whatever it is attached to.
pub(super) fn make_writable(device: &File) -> io::Result<()> {
    let value: libc::c_int = 0;
    // SAFETY: the handle is open and `value` is the int that the call reads.
    unsafe { raw::roset(device.as_raw_fd(), &value) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
