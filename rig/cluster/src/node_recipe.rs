//! What the node image is made of: Dockerfiles, Debian packages, names of images.

use crate::debian::{self, Root};

pub(crate) const NODE_DOCKERFILE: &str = include_str!("../node-image/node.Dockerfile");
const NODE_PACKAGES: &str = include_str!("../node-image/node-packages");
const USERLAND_PACKAGES: &str = include_str!("../node-image/userland-packages");

/// Images of upstream's tests (test/utils/image/manifest.go of the same version);
/// both agnhost versions are the same program here.
pub(crate) const TEST_IMAGES: [&str; 3] = [
    "registry.k8s.io/e2e-test-images/agnhost:2.55",
    "registry.k8s.io/e2e-test-images/agnhost:2.63.0",
    "registry.k8s.io/e2e-test-images/busybox:1.37.0-1",
];

/// What kind's node images are configured with, but for the stop signal, which
/// `docker import` cannot set; nodes of the rig are killed, never stopped.
pub(crate) const CONFIG: [&str; 2] = [
    "ENTRYPOINT [\"/usr/local/bin/entrypoint\", \"/sbin/init\"]",
    "ENV container=docker",
];

/// The images built here: (Dockerfile, its text).
pub(crate) const DOCKERFILES: [(&str, &str); 6] = [
    (
        "kubernetes",
        include_str!("../node-image/kubernetes.Dockerfile"),
    ),
    ("etcd", include_str!("../node-image/etcd.Dockerfile")),
    ("coredns", include_str!("../node-image/coredns.Dockerfile")),
    ("pause", include_str!("../node-image/pause.Dockerfile")),
    ("agnhost", include_str!("../node-image/agnhost.Dockerfile")),
    ("busybox", include_str!("../node-image/busybox.Dockerfile")),
];

/// The root of the node image.
pub(crate) fn node_root() -> Root {
    Root {
        name: "node-root",
        suite: debian::suite_here(),
        variant: "apt",
        packages: names(NODE_PACKAGES),
    }
}

/// The root of all other images built here.
pub(crate) fn userland() -> Root {
    Root {
        name: "userland-root",
        suite: debian::suite_here(),
        variant: "essential",
        packages: names(USERLAND_PACKAGES),
    }
}

fn names(list: &str) -> Vec<String> {
    let all = debian::packages(list).into_iter();
    all.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_for_filesystems_and_a_shell_are_in_the_userland() {
        let all = userland().packages;
        assert!(all.contains(&"btrfs-progs".to_owned()) && all.contains(&"busybox".to_owned()));
    }
}
