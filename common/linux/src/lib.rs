//! What Linux shows and does about mounts and loop devices, in types: the mount table
//! ([`mountinfo`]), loop devices ([`loops`]), and the numbers by which both name
//! devices and files. Names and paths are never compared in their place: they belong to
//! whoever wrote them.

#[cfg(target_os = "linux")]
pub mod loops;
pub mod mountinfo;

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::str::FromStr;

/// Number of a device: that of a block device, or of a filesystem (stat(2), `st_dev`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u32,
    /// The number among the driver's devices.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_dev` or `st_rdev` of stat(2).
    pub fn from_stat(device: u64) -> Self {
        Self {
            major: half(nix::sys::stat::major(device)),
            minor: half(nix::sys::stat::minor(device)),
        }
    }

    /// From the kernel's own encoding, `new_encode_dev` (include/linux/kdev_t.h).
    #[cfg(target_os = "linux")]
    fn from_kernel(encoded: u64) -> Self {
        Self {
            major: half((encoded & 0xf_ff00) >> 8),
            minor: half((encoded & 0xff) | ((encoded >> 12) & 0xf_ff00)),
        }
    }
}

fn half(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// As the mount table and /sys write it: `major:minor`.
impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// What is not `major:minor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoDeviceNumber;

impl fmt::Display for NoDeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the number of a device")
    }
}

impl std::error::Error for NoDeviceNumber {}

impl FromStr for DeviceNumber {
    type Err = NoDeviceNumber;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (major, minor) = text.split_once(':').ok_or(NoDeviceNumber)?;
        Ok(Self {
            major: major.parse().map_err(|_| NoDeviceNumber)?,
            minor: minor.parse().map_err(|_| NoDeviceNumber)?,
        })
    }
}

/// What a file is, whatever its names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// Device of the file's filesystem.
    pub device: DeviceNumber,
    /// Inode of the file.
    pub inode: u64,
}

impl From<&Metadata> for FileId {
    fn from(file: &Metadata) -> Self {
        Self {
            device: DeviceNumber::from_stat(file.dev()),
            inode: file.ino(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_come_back() {
        let number = |major, minor| DeviceNumber { major, minor };
        assert_eq!("254:0".parse(), Ok(number(254, 0)));
        assert_eq!(number(0, 39).to_string(), "0:39");
        for text in ["", "7", "7:", ":1", "a:1", "7:1:2", "-1:0"] {
            assert_eq!(
                text.parse::<DeviceNumber>(),
                Err(NoDeviceNumber),
                "{text:?}"
            );
        }
        assert_eq!(DeviceNumber::from_stat(0x801), number(8, 1));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernels_encoding_is_undone() {
        let number = |major, minor| DeviceNumber { major, minor };
        assert_eq!(DeviceNumber::from_kernel(0xfe00), number(254, 0));
        assert_eq!(DeviceNumber::from_kernel(0x801), number(8, 1));
        assert_eq!(DeviceNumber::from_kernel(0x10_0103), number(1, 0x103));
    }
}
