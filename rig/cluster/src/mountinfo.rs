//! /proc/self/mountinfo, read into fields (the format is in proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Major and minor number of the filesystem's device.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub target: PathBuf,
    /// The filesystem's type.
    pub fstype: String,
    /// What is mounted, as the filesystem tells it.
    pub source: String,
}

/// All mounts in the order of the file; lines that do not follow the format are left out.
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

/// The mounts of this process.
pub(crate) fn own() -> std::io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let device = std::str::from_utf8(fields.get(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        target: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        fstype: String::from_utf8_lossy(fields.get(dash + 1)?).into_owned(),
        source: String::from_utf8_lossy(&unescape(fields.get(dash + 2)?)).into_owned(),
    })
}

/// Undoes the kernel's `\ooo` for space, tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match octal {
            Some(digits) if *first == b'\\' => {
                let value = digits.iter().fold(0u32, |v, d| v * 8 + u32::from(d - b'0'));
                out.push((value & 0xff) as u8);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const LINES: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
        90 27 0:41 / /var/my\\040disk\\134x rw shared:7 master:2 - btrfs /dev/loop3 rw,subvol=/\n\
        broken\n";

    #[test]
    fn fields_are_found_with_and_without_optional_ones() {
        let mounts = parse(LINES);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].device, (254, 0));
        assert_eq!(mounts[0].fstype, "ext4");
        assert_eq!(mounts[1].target, Path::new("/var/my disk\\x"));
        assert_eq!(mounts[1].source, "/dev/loop3");
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(own().unwrap().iter().any(|m| m.target == Path::new("/")));
    }
}
