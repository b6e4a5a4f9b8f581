//! What a long command will do, and about how long that takes here.

use std::path::PathBuf;
use std::{env, fs};

/// What was built before on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    /// The cluster's programs and its node image.
    pub(crate) cluster: bool,
    /// Berth's own programs, perhaps of an older commit.
    pub(crate) programs: bool,
}

impl Found {
    /// Looks into the cache and cargo's target directory.
    pub(crate) fn here() -> Self {
        let has = |dir: PathBuf, start: &str| {
            fs::read_dir(dir).is_ok_and(|entries| {
                entries.flatten().any(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    name.strip_prefix(start).is_some_and(|key| key.len() == 16)
                })
            })
        };
        let engine = fs::exists("/var/run/docker.sock").unwrap_or(false);
        Self {
            cluster: has(xtask::cache(), "kubernetes-")
                && (engine || has(xtask::cache(), "node-image-")),
            programs: env::current_exe()
                .ok()
                .and_then(|exe| Some(exe.parent()?.join("demo")))
                .is_some_and(|demo| demo.exists()),
        }
    }
}

/// What `cargo demo` says first; `own` says whether it makes a cluster of its own.
pub(crate) fn demo(found: &Found, own: bool, quick_start: bool) -> String {
    if !own {
        return "Berth on the cluster of the kubeconfig: a set of three replicas, proofs that its \
                data survives, and the set away again, in about 3 minutes."
            .to_owned();
    }
    let nodes = match quick_start {
        true => "a control plane and three workers without disks to spare",
        false => "a control plane and three workers with two disks each",
    };
    let kubernetes = match found.cluster {
        true => "is built already",
        false => "is built from source first, once: about 15 minutes on 2 cores",
    };
    let programs = match found.programs {
        true => "are compiled as far as they changed: up to 5 minutes on 2 cores",
        false => "are compiled, once: about 10 minutes on 2 cores",
    };
    format!(
        "Berth on a real Kubernetes cluster, on this machine: {nodes}.\n\
         Then a set of three replicas, proofs that its data survives, and everything away again.\n  \
         Kubernetes {kubernetes}.\n  \
         Berth's programs {programs}.\n  \
         The demo itself takes about 5 minutes."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_before_is_not_announced() {
        let text = |cluster, programs| demo(&Found { cluster, programs }, true, false);
        assert!(
            text(false, false).contains("15 minutes") && text(false, false).contains("10 minutes")
        );
        let warm = text(true, true);
        assert!(warm.contains("is built already") && !warm.contains("15 minutes"));
    }
}
