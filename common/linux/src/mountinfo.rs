//! The mount table, read from `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
//! What is mounted where is never guessed from the text of `mount(8)`, from
//! names, or from memory alone.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::DeviceNumber;

/// Mark that the kernel puts behind the root of a mount whose directory was
/// removed or renamed away from under it.
const DELETED: &[u8] = b"//deleted";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// The mount's id, unique among the mounts that exist now.
    pub id: u64,
    /// Device of the filesystem.
    pub device: DeviceNumber,
    /// The directory of that filesystem that is visible at the mount point.
    pub root: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Whether this mount is read-only.
    pub read_only: bool,
    /// Whether the whole filesystem refuses writes, by whichever mount: it was
    /// mounted so, or went so after an error.
    pub filesystem_read_only: bool,
    /// Type of the filesystem.
    pub fstype: String,
    /// What is mounted, in the filesystem's own words: a device's path, a name. For
    /// people; nothing is recognised by it.
    pub source: OsString,
}

impl MountEntry {
    /// The path, inside the filesystem, of what is at `path` of this mount.
    pub fn path_inside(&self, path: &Path) -> Option<PathBuf> {
        let rest = path.strip_prefix(&self.point).ok()?;
        Some(if rest.as_os_str().is_empty() {
            self.root.clone()
        } else {
            self.root.join(rest)
        })
    }
}

/// The mounts of this process's namespace.
///
/// # Errors
/// Those of reading `/proc/self/mountinfo`.
pub fn own() -> std::io::Result<Vec<MountEntry>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Parses the whole table; lines that do not parse are left out, because a
/// future kernel may add kinds of lines, and never hide the others.
pub fn parse(table: &[u8]) -> Vec<MountEntry> {
    table
        .split(|b| *b == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    // id parent major:minor root point options [optional...] - fstype source superoptions
    let mut fields = line.split(|b| *b == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let _parent = fields.next()?;
    let device = text(fields.next()?)?.parse().ok()?;
    let mut root = unescape(fields.next()?);
    let point = path(unescape(fields.next()?));
    let options = text(fields.next()?)?;
    let read_only = options.split(',').any(|option| option == "ro");
    fields.by_ref().find(|field| *field == b"-")?;
    let fstype = text(fields.next()?)?.to_owned();
    let source = OsString::from_vec(unescape(fields.next()?));
    let filesystem_read_only = fields
        .next()
        .is_some_and(|options| options.split(|b| *b == b',').any(refuses_writes));
    if root.ends_with(DELETED) {
        root.truncate(root.len() - DELETED.len());
    }
    Some(MountEntry {
        id,
        device,
        root: path(root),
        point,
        read_only,
        filesystem_read_only,
        fstype,
        source,
    })
}

/// Options of a whole filesystem that say so: besides its being mounted read-only,
/// what ext4 has shown since Linux 6.15 after an error instead of `ro`.
fn refuses_writes(option: &[u8]) -> bool {
    [&b"ro"[..], b"emergency_ro", b"shutdown"].contains(&option)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Undoes the kernel's escapes: a backslash and three octal digits for space,
/// tab, newline, backslash and `#`.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let octal = field
            .get(i + 1..i + 4)
            .filter(|digits| digits.iter().all(|d| (b'0'..=b'7').contains(d)) && digits[0] <= b'3');
        match (field[i], octal) {
            (b'\\', Some(digits)) => {
                out.push(digits.iter().fold(0, |byte, d| byte * 8 + (d - b'0')));
                i += 4;
            }
            (byte, _) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    out
}

/// The mounts whose root is `root` on `device`, or beneath it.
pub fn of_directory<'a>(
    table: &'a [MountEntry],
    device: DeviceNumber,
    root: &'a Path,
) -> impl Iterator<Item = &'a MountEntry> {
    table
        .iter()
        .filter(move |m| m.device == device && m.root.starts_with(root))
}

/// The mount that is visible at exactly `point`: the last one, should several
/// be stacked.
pub fn at<'a>(table: &'a [MountEntry], point: &Path) -> Option<&'a MountEntry> {
    table.iter().rev().find(|m| m.point == point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStrExt;

    /// The kernel's side of [`unescape`] (fs/proc_namespace.c, `mangle`).
    fn escape(raw: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for &byte in raw {
            if b" \t\n\\#".contains(&byte) {
                out.extend(format!("\\{byte:03o}").into_bytes());
            } else {
                out.push(byte);
            }
        }
        out
    }

    /// Writes an entry as the kernel would.
    fn render(entry: &MountEntry, optional: &str) -> Vec<u8> {
        let mut line = format!("{} 1 {} ", entry.id, entry.device).into_bytes();
        line.extend(escape(entry.root.as_os_str().as_bytes()));
        line.push(b' ');
        line.extend(escape(entry.point.as_os_str().as_bytes()));
        let mode = |read_only| if read_only { "ro" } else { "rw" };
        let (mount, filesystem) = (mode(entry.read_only), mode(entry.filesystem_read_only));
        let fstype = &entry.fstype;
        line.extend(
            format!(" {mount},relatime{optional} - {fstype} /dev/x {filesystem}\n").into_bytes(),
        );
        line
    }

    proptest! {
        #[test]
        fn any_path_survives_the_kernels_escapes(raw in proptest::collection::vec(1u8..=255, 0..64)) {
            prop_assert_eq!(unescape(&escape(&raw)), raw);
        }

        #[test]
        fn any_entry_survives_the_table(
            id in 1u64..1_000_000,
            point in "/[ -~]{0,40}",
            root in "/[ -~]{0,40}[a-z]",
            read_only: bool,
            filesystem_read_only: bool,
            optional in prop_oneof![Just(""), Just(" shared:1"), Just(" shared:1 master:2")],
        ) {
            let entry = MountEntry {
                id,
                device: DeviceNumber { major: 0, minor: 39 },
                root: root.into(),
                point: point.into(),
                read_only,
                filesystem_read_only,
                fstype: "btrfs".into(),
                source: "/dev/x".into(),
            };
            prop_assert_eq!(parse(&render(&entry, optional)), vec![entry]);
        }

        #[test]
        fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            parse(&bytes);
        }
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(own().unwrap().iter().any(|m| m.point == Path::new("/")));
    }

    #[test]
    fn fields_are_found_with_and_without_optional_ones() {
        let table = parse(
            b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
              90 27 0:41 / /var/my\\040disk\\134x rw shared:7 master:2 - btrfs /dev/my\\040loop rw,subvol=/\n",
        );
        assert_eq!(table.len(), 2);
        assert_eq!(table[0].device.to_string(), "254:0");
        assert_eq!(table[0].source, "/dev/vda");
        assert_eq!(table[1].point, Path::new("/var/my disk\\x"));
        assert_eq!(table[1].source, "/dev/my loop");
    }

    #[test]
    fn a_removed_directory_keeps_its_root() {
        let table =
            parse(b"43 27 0:39 /volumes/a/data//deleted /x rw - btrfs /dev/loop0 rw\nnonsense\n");
        assert_eq!(table.len(), 1);
        assert_eq!(table[0].root, Path::new("/volumes/a/data"));
    }

    #[test]
    fn a_filesystem_that_refuses_writes_differs_from_a_read_only_mount() {
        let table = parse(
            b"1 0 7:1 / /a rw - ext4 x rw,errors=remount-ro\n\
              2 0 7:1 / /b ro - ext4 x rw\n\
              3 0 7:2 / /c rw - ext4 x ro,errors=remount-ro\n\
              4 0 7:3 / /d rw - ext4 x rw,emergency_ro\n\
              5 0 7:4 / /e rw - ext4 x\n",
        );
        let refuse: Vec<_> = table.iter().map(|m| m.filesystem_read_only).collect();
        assert_eq!(refuse, [false, false, true, true, false]);
    }

    #[test]
    fn mounts_of_a_directory_are_found_by_device_and_root_not_by_prefix_of_text() {
        let table = parse(
            b"1 0 0:1 /volumes/a/data /p/1 rw - btrfs x rw\n\
              2 0 0:1 /volumes/a/data/sub /p/2 ro - btrfs x rw\n\
              3 0 0:1 /volumes/a/database /p/3 rw - btrfs x rw\n\
              4 0 0:2 /volumes/a/data /p/4 rw - btrfs x rw\n",
        );
        let ids: Vec<_> = of_directory(
            &table,
            DeviceNumber { major: 0, minor: 1 },
            Path::new("/volumes/a/data"),
        )
        .map(|m| m.id)
        .collect();
        assert_eq!(ids, [1, 2]);
        assert!(table[1].read_only);
    }

    #[test]
    fn the_top_of_a_stack_of_mounts_is_what_is_visible() {
        let table = parse(b"1 0 0:1 / /p rw - btrfs x rw\n2 1 0:2 / /p rw - ext4 y rw\n");
        assert_eq!(at(&table, Path::new("/p")).map(|m| m.id), Some(2));
        assert_eq!(
            table[0].path_inside(Path::new("/p/volumes")),
            Some(PathBuf::from("/volumes"))
        );
        assert_eq!(
            table[0].path_inside(Path::new("/p")),
            Some(PathBuf::from("/"))
        );
        assert_eq!(table[0].path_inside(Path::new("/q")), None);
    }
}
