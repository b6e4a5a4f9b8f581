//! Mount options that a volume can have: one list, for the controller, which refuses a
//! claim before anything is made, and for the agent, which mounts.
//!
//! A volume is a bind mount, so it can have what belongs to one mount. What belongs to the
//! filesystem below it (`discard`, `nouuid`, `nobarrier`) is its pool's, and shared with
//! all volumes there.

use serde::{Deserialize, Serialize};

/// How one mount of a volume behaves, beside being writable or not
/// (mount_setattr(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountFlag {
    /// Device nodes cannot be opened.
    NoDev,
    /// Set-user-id bits and file capabilities mean nothing.
    NoSuid,
    /// Nothing can be executed.
    NoExec,
    /// Access times are not written.
    NoAtime,
    /// Access times of directories are not written.
    NoDirAtime,
    /// Access times are written now and then, as is usual.
    RelAtime,
    /// Access times are written always.
    StrictAtime,
}

impl MountFlag {
    /// Every flag, with its name in mount options.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::NoDev, "nodev"),
        (Self::NoSuid, "nosuid"),
        (Self::NoExec, "noexec"),
        (Self::NoAtime, "noatime"),
        (Self::NoDirAtime, "nodiratime"),
        (Self::RelAtime, "relatime"),
        (Self::StrictAtime, "strictatime"),
    ];
}

/// What one mount option asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountOption {
    /// Nothing can be written.
    ReadOnly,
    /// As is usual.
    ReadWrite,
    /// How the mount behaves otherwise.
    Flag(MountFlag),
}

/// Reads one option.
///
/// # Errors
/// A sentence that names the option and those that are possible.
pub fn parse(option: &str) -> Result<MountOption, String> {
    match option {
        "ro" => return Ok(MountOption::ReadOnly),
        "rw" => return Ok(MountOption::ReadWrite),
        _ => {}
    }
    let found = MountFlag::ALL.iter().find(|(_, known)| *known == option);
    found
        .map(|(flag, _)| MountOption::Flag(*flag))
        .ok_or_else(|| {
            let known = MountFlag::ALL.map(|(_, known)| known).join(", ");
            format!(
                "mount option {option:?} is not supported; use some of ro, rw, {known} (options of \
             the filesystem itself belong to the mount of the pool)"
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_known_by_name_and_nothing_else_is_accepted() {
        for (flag, name) in MountFlag::ALL {
            assert_eq!(parse(name), Ok(MountOption::Flag(flag)));
        }
        assert_eq!(parse("ro"), Ok(MountOption::ReadOnly));
        assert_eq!(parse("rw"), Ok(MountOption::ReadWrite));
        for option in ["", "RO", "discard", "suid", "uid=0", "ro,noatime"] {
            let refused = parse(option).expect_err(option);
            assert!(refused.contains(&format!("{option:?}")), "{refused}");
        }
    }
}
