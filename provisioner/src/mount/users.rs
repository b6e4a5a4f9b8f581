//! Where volumes are mounted and by whom, read from the mount table.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use berth_linux::mountinfo::MountEntry;

use crate::error::{Error, IoContext};
use crate::layout::{DATA, VOLUMES};
use crate::locks::lock;
use crate::mount::loop_image;
use crate::pool::Pool;
use crate::store::Store;
use crate::sys::Loop;
use crate::types::Publication;

/// One mount of a volume, or of something inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VolumeMount {
    pub(crate) target: PathBuf,
    pub(crate) pod_uid: String,
    /// `<namespace>/<name>` of the pod, empty when unknown.
    pub(crate) pod: String,
    pub(crate) readonly: bool,
    /// Of the whole volume, not of a directory inside.
    pub(crate) whole: bool,
    /// Of a raw block device. Kubelet mounts it a second time for itself.
    pub(crate) device: bool,
    /// A staging mount, not a pod's.
    pub(crate) staging: bool,
    /// Below kubelet's directory.
    pub(crate) kubelets: bool,
}

impl VolumeMount {
    pub(crate) fn publication(self) -> Publication {
        Publication {
            pod_uid: self.pod_uid,
            pod: self.pod,
            target: self.target,
            readonly: self.readonly,
        }
    }
}

impl fmt::Display for VolumeMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.display();
        match (self.pod.as_str(), self.pod_uid.as_str()) {
            ("", "") => write!(f, "{target}"),
            ("", uid) => write!(f, "pod {uid} at {target}"),
            (pod, uid) => write!(f, "pod {pod} (UID {uid}) at {target}"),
        }
    }
}

/// Refuses to erase a volume that is mounted, and detaches its unused loop devices.
pub(crate) fn refuse_mounted(store: &Store, pool: &Pool, id: &str) -> Result<(), Error> {
    let table = store
        .sys
        .mounts()
        .context("reading the mounts of", pool.dir.path())?;
    if let Some(using) = mounts_of(store, Some(pool), id, &table).first() {
        return Err(Error::Published {
            id: id.to_owned(),
            by: using.to_string(),
        });
    }
    loop_image::detach(store, pool, id)?;
    refuse_mounts_in(store, pool, id, &format!("{VOLUMES}/{id}"))
}

/// Refuses to erase a directory with a mount in it: the mount is not Berth's, would
/// block the erasure, and btrfs would unmount it without asking.
pub(crate) fn refuse_mounts_in(
    store: &Store,
    pool: &Pool,
    id: &str,
    relative: &str,
) -> Result<(), Error> {
    let path = pool.dir.path().join(relative);
    let table = store.sys.mounts().context("reading the mounts in", &path)?;
    match table.iter().find(|mount| mount.point.starts_with(&path)) {
        None => Ok(()),
        Some(mount) => Err(Error::Published {
            id: id.to_owned(),
            by: format!("a mount inside it at {}: unmount it", mount.point.display()),
        }),
    }
}

/// The mount table by what its mounts show, so that those of many volumes are found in one
/// pass.
#[derive(Debug, Default)]
pub(crate) struct MountIndex {
    table: Vec<MountEntry>,
    /// Places in the table of what may show a volume's data, by the volume's id.
    volumes: HashMap<String, Vec<usize>>,
    /// The same by the number of a loop device.
    loops: HashMap<u32, Vec<usize>>,
}

impl MountIndex {
    /// Of the whole table.
    pub(crate) fn new(table: Vec<MountEntry>) -> Self {
        let mut index = Self::default();
        for (at, mount) in table.iter().enumerate() {
            let parts: Vec<&OsStr> = mount.root.components().map(|it| it.as_os_str()).collect();
            for part in parts.windows(3) {
                if part[0] == VOLUMES
                    && part[2] == DATA
                    && let Some(id) = part[1].to_str()
                {
                    index.volumes.entry(id.to_owned()).or_default().push(at);
                }
            }
            if let Some(number) = loop_image::loop_behind(mount) {
                index.loops.entry(number).or_default().push(at);
            }
        }
        index.table = table;
        index
    }

    /// What may be a mount of the volume `id`, or of one of its loop devices: all that
    /// [`mounts_among`] would find in the whole table, in its order.
    pub(crate) fn of(&self, id: &str, loops: &[Loop]) -> Vec<MountEntry> {
        let by_loop = loops.iter().filter_map(|it| self.loops.get(&it.number));
        let places = self.volumes.get(id).into_iter().chain(by_loop);
        let places: BTreeSet<usize> = places.flatten().copied().collect();
        let found = places.into_iter().filter_map(|at| self.table.get(at));
        found.cloned().collect()
    }
}

/// Every mount of a volume, or of a directory inside it. Without its pool they
/// are recognised by the path inside the filesystem, and only below kubelet's
/// directory.
pub(crate) fn mounts_of(
    store: &Store,
    pool: Option<&Pool>,
    id: &str,
    table: &[MountEntry],
) -> Vec<VolumeMount> {
    let loops = pool.map_or_else(Vec::new, |pool| loop_image::loops_of(store, pool, id));
    mounts_among(store, pool, id, table, &loops)
}

/// The same, where the loop devices of its image are known.
pub(crate) fn mounts_among(
    store: &Store,
    pool: Option<&Pool>,
    id: &str,
    table: &[MountEntry],
    loops: &[Loop],
) -> Vec<VolumeMount> {
    let kubelet = store.config.kubelet_dir.canonicalize().unwrap_or_default();
    let relative = format!("{VOLUMES}/{id}/{DATA}");
    let root = pool.map(|pool| pool.inside(&relative));
    let state = lock(&store.state);
    let (publishers, staging) = (&state.publishers, &state.staging);
    table
        .iter()
        .filter_map(|mount| {
            let kubelets = mount.point.starts_with(&kubelet);
            let is_loop = |shows: fn(&MountEntry, u32) -> bool| {
                loops.iter().any(|it| shows(mount, it.number))
            };
            let node = loops
                .iter()
                .find(|it| loop_image::shows_node(mount, it.number));
            let whole = match (pool, &root) {
                _ if is_loop(loop_image::shows_inside) => mount.root == Path::new("/"),
                _ if node.is_some() => true,
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
            let device = node.is_some();
            let publisher = publishers.get(&mount.point);
            let pod_uid = pod_in(&kubelet, &mount.point, device)
                .or_else(|| publisher.map(|it| it.pod_uid.clone()))
                .unwrap_or_default();
            // The path is the proof of whose mount it is; a name is only taken with it.
            let pod = publisher.filter(|it| it.pod_uid == pod_uid);
            let pod = pod.map(|it| it.pod.clone()).unwrap_or_default();
            Some(VolumeMount {
                // A device is shown nowhere before it is published.
                staging: !device
                    && (mount.point.starts_with(kubelet.join("plugins"))
                        || staging.contains(&mount.point)),
                target: mount.point.clone(),
                pod_uid,
                pod,
                readonly: node.map_or(mount.read_only, |it| it.read_only),
                whole,
                device,
                kubelets,
            })
        })
        .collect()
}

/// The UID in `<kubelet>/pods/<uid>/…`, or, for a device, in
/// `<kubelet>/plugins/…/volumeDevices/…/<uid>` (kubelet's pkg/volume/csi/csi_block.go).
fn pod_in(kubelet: &Path, point: &Path, device: bool) -> Option<String> {
    let below = point.strip_prefix(kubelet).ok()?;
    let mut parts = below.components().map(|part| part.as_os_str());
    let uid = match parts.next()?.to_str()? {
        "pods" => parts.next()?,
        "plugins" if device && parts.any(|part| part == "volumeDevices") => below.file_name()?,
        _ => return None,
    };
    Some(uid.to_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_linux::{DeviceNumber, FileId};

    fn mount(device: (u32, u32), root: &str, fstype: &str) -> MountEntry {
        MountEntry {
            id: 1,
            device: DeviceNumber {
                major: device.0,
                minor: device.1,
            },
            root: root.into(),
            point: "/somewhere".into(),
            read_only: false,
            filesystem_read_only: false,
            fstype: fstype.into(),
            source: "".into(),
        }
    }

    #[test]
    fn a_volumes_mounts_are_found_by_what_they_show() {
        let table = vec![
            mount((8, 1), "/", "ext4"),
            mount((8, 1), "/volumes/a/data", "xfs"),
            mount((7, 3), "/", "ext4"),
            mount((8, 1), "/sub/volumes/b/data/inner/volumes/a/data", "xfs"),
            mount((0, 5), "/loop4", "devtmpfs"),
            mount((8, 1), "/loop3", "ext4"),
            mount((7, 3), "/inner", "ext4"),
        ];
        let index = MountIndex::new(table.clone());
        let device = |number| Loop {
            number,
            file: FileId {
                device: DeviceNumber { major: 8, minor: 1 },
                inode: 1,
            },
            node: None,
            read_only: false,
        };
        for (id, loops, found) in [
            ("a", vec![], vec![1, 3]),
            ("b", vec![], vec![3]),
            ("c", vec![], vec![]),
            ("c", vec![device(3)], vec![2, 6]),
            ("a", vec![device(4), device(3)], vec![1, 2, 3, 4, 6]),
        ] {
            let expected: Vec<MountEntry> = found.iter().map(|at| table[*at].clone()).collect();
            assert_eq!(index.of(id, &loops), expected, "{id} {loops:?}");
        }
    }

    #[test]
    fn pods_are_recognised_by_their_paths() {
        let kubelet = Path::new("/var/lib/kubelet");
        let uid = |point: &str| pod_in(kubelet, Path::new(point), false);
        let csi = "/var/lib/kubelet/plugins/kubernetes.io/csi/volumeDevices";
        for shown in ["publish/pv/u-1", "pv/dev/u-1"] {
            let point = format!("{csi}/{shown}");
            assert_eq!(pod_in(kubelet, Path::new(&point), true), Some("u-1".into()));
            assert_eq!(uid(&point), None);
        }
        assert_eq!(
            uid("/var/lib/kubelet/pods/u-1/volumes/kubernetes.io~csi/pv/mount"),
            Some("u-1".into())
        );
        assert_eq!(uid("/var/lib/kubelet/plugins/kubernetes.io/csi/x"), None);
        assert_eq!(uid("/elsewhere/pods/u-1"), None);
        assert_eq!(uid("/var/lib/kubelet/pods"), None);
    }
}
