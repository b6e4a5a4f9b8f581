//! The list of Debian packages, debian-packages.

const LIST: &str = include_str!("../debian-packages");

/// A line of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// The package's name.
    pub name: &'static str,
    /// A program by which it is known to be there; `busybox:depmod` is an applet.
    pub program: &'static str,
    /// The only command that needs it, where the tests do not.
    pub only: Option<&'static str>,
}

/// Every package of the list.
pub fn all() -> impl Iterator<Item = Package> {
    parse(LIST)
}

/// The package to install for a program.
pub fn of(program: &str) -> Option<&'static str> {
    let known = all().find(|package| {
        let (name, _) = package
            .program
            .split_once(':')
            .unwrap_or((package.program, ""));
        name == program
    });
    // Programs that come with one by which a package is known.
    let beside = |program| match program {
        "docker" => Some("docker.io"),
        "mount" | "umount" => Some("mount"),
        "xfs_quota" => Some("xfsprogs"),
        "btrfs" => Some("btrfs-progs"),
        _ => None,
    };
    known
        .map(|package| package.name)
        .or_else(|| beside(program))
}

fn parse(list: &'static str) -> impl Iterator<Item = Package> {
    list.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        Some(Package {
            name: words.next()?,
            program: words.next()?,
            only: words.next(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_read() {
        let lines = LIST.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(all().count(), lines);
        let some: Vec<_> = parse("# c\nxfsprogs mkfs.xfs\ngcc-x x-gcc dist\n").collect();
        assert_eq!(some.len(), 2);
        assert_eq!((some[0].name, some[0].only), ("xfsprogs", None));
        assert_eq!(some[1].only, Some("dist"));
    }

    #[test]
    fn programs_lead_to_packages() {
        assert_eq!(of("mkfs.xfs"), Some("xfsprogs"));
        assert_eq!(of("busybox"), Some("busybox-static"));
        assert_eq!(of("umount"), Some("mount"));
        assert_eq!(of("ldd"), None);
        for name in ["docker", "mount", "xfs_quota", "btrfs"] {
            let package = of(name);
            assert!(all().any(|p| Some(p.name) == package), "{name}");
        }
    }
}
