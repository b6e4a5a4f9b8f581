//! The system calls that neither rustix nor nix wraps, and those around them that
//! rustix does. All `unsafe` of this crate is in this module; each file says why it is needed.
#![allow(unsafe_code, reason = "system calls; each block says why it is sound")]

pub(super) mod btrfs;
pub(super) mod filesystem;
pub(super) mod layout;
pub(super) mod mount;
pub(super) mod quota;

use std::io;

use nix::errno::Errno;

fn returned(result: libc::c_long) -> io::Result<libc::c_long> {
    Ok(Errno::result(result)?)
}
