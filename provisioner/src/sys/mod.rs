//! What only the kernel can do, behind traits: mounts, subvolumes, quotas.
//! Everything else in this crate is decisions, and is tested against
//! a fake of these traits on any machine, without privileges.

#[cfg(target_os = "linux")]
mod btrfs;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod host;
#[cfg(target_os = "linux")]
mod images;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

pub(crate) use host::{
    Errors, Filesystem, Loop, LoopOptions, MountAs, Project, ProjectLimits, Qgroup, Qgroups,
    Quotas, Space, Sys, loops_of,
};
#[cfg(target_os = "linux")]
pub(crate) use linux::Linux;
#[cfg(target_os = "linux")]
pub(crate) use raw::filesystem::{attribute, attributes, set_attribute};
