//! Who has a volume mounted, read from the mount table.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::images;
use crate::locks::lock;
use crate::mountinfo::MountEntry;
use crate::pool::Pool;
use crate::provisioner::Inner;
use crate::record::{DATA, VOLUMES};
use crate::types::Publication;

/// One mount of a volume, or of something inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) target: PathBuf,
    pub(crate) pod_uid: String,
    pub(crate) readonly: bool,
    /// Of the whole volume, not of a directory inside.
    pub(crate) whole: bool,
    /// A staging mount, not a pod's.
    pub(crate) staging: bool,
    /// Below kubelet's directory.
    pub(crate) kubelets: bool,
}

impl Use {
    pub(crate) fn publication(self) -> Publication {
        Publication {
            pod_uid: self.pod_uid,
            target: self.target,
            readonly: self.readonly,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pod_uid.is_empty() {
            write!(f, "{}", self.target.display())
        } else {
            write!(f, "pod {} at {}", self.pod_uid, self.target.display())
        }
    }
}

impl Inner {
    /// Every mount of a volume, or of a directory inside it. Without its pool they
    /// are told by the path inside the filesystem, and only below kubelet's
    /// directory.
    pub(crate) fn uses(&self, pool: Option<&Pool>, id: &str, table: &[MountEntry]) -> Vec<Use> {
        let kubelet = self.config.kubelet_dir.canonicalize().unwrap_or_default();
        let (pods, staging) = {
            let state = lock(&self.state);
            (state.pods.clone(), state.staging.clone())
        };
        let loops = pool.map_or_else(Vec::new, |pool| self.loops_of(pool, id));
        let relative = format!("{VOLUMES}/{id}/{DATA}");
        let root = pool.map(|pool| pool.inside(&relative));
        table
            .iter()
            .filter_map(|mount| {
                let kubelets = mount.point.starts_with(&kubelet);
                let is_loop = |shows: fn(&MountEntry, u32) -> bool| {
                    loops.iter().any(|it| shows(mount, it.number))
                };
                let whole = match (pool, &root) {
                    _ if is_loop(images::shows_inside) => mount.root == Path::new("/"),
                    _ if is_loop(images::shows_node) => true,
                    (Some(pool), Some(root)) => {
                        if mount.device != pool.mount.device || !mount.root.starts_with(root) {
                            return None;
                        }
                        mount.root == *root
                    }
                    _ => {
                        if !kubelets || !mount.root.ends_with(&relative) {
                            return None;
                        }
                        true
                    }
                };
                let pod_uid = pod_in(&kubelet, &mount.point)
                    .or_else(|| pods.get(&mount.point).cloned())
                    .unwrap_or_default();
                Some(Use {
                    staging: mount.point.starts_with(kubelet.join("plugins"))
                        || staging.contains(&mount.point),
                    target: mount.point.clone(),
                    pod_uid,
                    readonly: mount.read_only,
                    whole,
                    kubelets,
                })
            })
            .collect()
    }
}

/// The UID in `<kubelet>/pods/<uid>/…`.
fn pod_in(kubelet: &Path, point: &Path) -> Option<String> {
    let mut parts = point.strip_prefix(kubelet).ok()?.components();
    if parts.next()?.as_os_str() != "pods" {
        return None;
    }
    Some(parts.next()?.as_os_str().to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_from_their_paths() {
        let kubelet = Path::new("/var/lib/kubelet");
        let uid = |point: &str| pod_in(kubelet, Path::new(point));
        assert_eq!(
            uid("/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/pv/mount"),
            Some("u-1".into())
        );
        assert_eq!(uid("/var/lib/kubelet/plugins/kubernetes.io/csi/x"), None);
        assert_eq!(uid("/elsewhere/pods/u-1"), None);
        assert_eq!(uid("/var/lib/kubelet/pods"), None);
    }
}
