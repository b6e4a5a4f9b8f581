//! The system calls that nobody wraps for us. All `unsafe` of this crate is in
//! this module.
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
