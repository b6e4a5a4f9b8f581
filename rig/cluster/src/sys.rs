//! The loop driver's ioctls: the one place of this crate with unsafe code.
//!
//! Layouts and numbers are those of linux/loop.h.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

/// The device detaches itself when its last user lets go.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const EMPTY: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// Asks /dev/loop-control for the number of a device that nobody uses.
pub(crate) fn free_number(control: &File) -> io::Result<u32> {
    // SAFETY: the call takes no pointer.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| io::Error::last_os_error())
}

/// Attaches a file to an open loop device that detaches itself after its last use.
pub(crate) fn attach(device: &File, file: impl AsFd) -> io::Result<()> {
    let config = LoopConfig {
        fd: file.as_fd().as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: LoopInfo64 {
            flags: LO_FLAGS_AUTOCLEAR,
            ..EMPTY
        },
        reserved: [0; 8],
    };
    // SAFETY: the pointer is to a live loop_config, which the kernel only reads.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })
}

/// What backs a loop device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Backing {
    /// The file: (major, minor) of its filesystem's device, and its inode.
    pub(crate) file: ((u32, u32), u64),
    /// (major, minor) of the block device that the file is a node of; zeros for a
    /// regular file.
    pub(crate) node: (u32, u32),
}

/// What backs an open loop device; `None` when nothing does.
pub(crate) fn backing(device: &File) -> io::Result<Option<Backing>> {
    let mut info = EMPTY;
    // SAFETY: the pointer is to a live, writable loop_info64 of the kernel's size.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match check(answer) {
        Ok(()) => Ok(Some(Backing {
            file: (decode_device(info.device), info.inode),
            node: decode_device(info.rdevice),
        })),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Detaches an open loop device from its file, at once or after its last use.
pub(crate) fn detach(device: &File) -> io::Result<()> {
    // SAFETY: the call takes no pointer.
    check(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CLR_FD) })
}

/// The kernel's `new_encode_dev`, undone.
fn decode_device(encoded: u64) -> (u32, u32) {
    let major = (encoded & 0xf_ff00) >> 8;
    let minor = (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00);
    (major as u32, minor as u32)
}

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_size() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn device_numbers_come_back() {
        assert_eq!(decode_device(0xfe00), (254, 0));
        assert_eq!(decode_device(0x801), (8, 1));
        assert_eq!(decode_device(0x10_0103), (1, 0x103));
    }
}
