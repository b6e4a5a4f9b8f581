//! A machine that exists in memory, for tests of everything round the system
//! calls: directories and images are real, in a temporary one; filesystems, subvolumes,
//! quotas and mounts are told. Any call can be made to fail.

mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use berth_linux::DeviceNumber;
use berth_linux::loops::MAJOR;
use berth_linux::mountinfo::MountEntry;

use super::host::{
    Btrfs, Errors, Filesystem, Filesystems, Loop, MountAs, Mounter, Project, Qgroup, Quotas, Space,
};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::locks::lock;

/// Shared, so that a test keeps hold of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<Machine>>, Arc<Gate>);

/// Disks whose calls wait until they are let go.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<BTreeSet<PathBuf>>,
    /// Calls that wait.
    waiting: Mutex<u32>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct Machine {
    filesystems: BTreeMap<PathBuf, Filesystem>,
    mounts: Vec<MountEntry>,
    subvolumes: BTreeMap<u64, u64>,
    qgroups: BTreeMap<u64, Qgroup>,
    freeing: BTreeSet<u64>,
    quotas_off: bool,
    ids: u64,
    calls: Vec<&'static str>,
    fail: Option<(&'static str, u32)>,
    /// Loop devices, where the machine has any.
    loops: Option<Vec<Loop>>,
    /// Whether files can share blocks.
    reflinks: bool,
    /// Whether a copy by sharing waits until nothing is frozen, and what it waits for.
    reflinks_wait: bool,
    /// Loop devices whose filesystem is frozen.
    frozen: BTreeSet<u32>,
    /// Use and limits of projects, where the filesystem has quotas.
    projects: Option<BTreeMap<u32, Project>>,
    /// The project of a directory, by inode.
    project_of: BTreeMap<u64, u32>,
}

impl Fake {
    /// "Mounts" a btrfs on a directory.
    pub(crate) fn disk(&self, at: &Path, uuid: &str, size: u64) {
        let mut machine = lock(&self.0);
        machine.filesystems.insert(
            at.to_owned(),
            Filesystem {
                fstype: "btrfs".into(),
                uuid: Some(uuid.into()),
                size,
                free: size,
                read_only: false,
            },
        );
        let device = DeviceNumber {
            major: 9,
            minor: u32::try_from(uuid.len()).unwrap(),
        };
        machine.mount(at, device, "/", false);
    }

    /// Changes what a disk says of itself.
    pub(crate) fn change(&self, at: &Path, change: impl FnOnce(&mut Filesystem)) {
        change(lock(&self.0).filesystems.get_mut(at).unwrap());
    }

    /// Makes the `nth` call of this name from now on fail.
    pub(crate) fn fail(&self, call: &'static str, nth: u32) {
        lock(&self.0).fail = Some((call, nth));
    }

    /// Has every call that gets to the disk mounted at `at` wait, as a disk does that
    /// answers no more.
    pub(crate) fn hang(&self, at: &Path) {
        lock(&self.1.closed).insert(at.to_owned());
    }

    /// Lets the disk at `at` answer again.
    pub(crate) fn answer(&self, at: &Path) {
        lock(&self.1.closed).remove(at);
        self.1.opened.notify_all();
    }

    /// How many calls wait for a disk.
    pub(crate) fn hanging(&self) -> u32 {
        *lock(&self.1.waiting)
    }

    /// Waits where the disk of `dir` hangs.
    fn reach(&self, dir: &Dir) {
        let mut closed = lock(&self.1.closed);
        let hangs = |closed: &BTreeSet<PathBuf>| closed.iter().any(|at| dir.path().starts_with(at));
        if hangs(&closed) {
            *lock(&self.1.waiting) += 1;
            while hangs(&closed) {
                closed = self
                    .1
                    .opened
                    .wait(closed)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            *lock(&self.1.waiting) -= 1;
        }
    }

    /// Holds the space of removed subvolumes back, or lets it go.
    pub(crate) fn free_all(&self) {
        lock(&self.0).freeing.clear();
    }

    /// Takes every mount below a directory off, as a node does that starts anew.
    pub(crate) fn unmount_below(&self, path: &Path) {
        let mut machine = lock(&self.0);
        machine
            .mounts
            .retain(|mount| !mount.point.starts_with(path));
    }

    pub(crate) fn switch_quotas_off(&self) {
        lock(&self.0).quotas_off = true;
    }

    /// How often the machine was asked each question, and forgets it.
    pub(crate) fn asked(&self) -> BTreeMap<&'static str, usize> {
        let mut asked = BTreeMap::new();
        for call in std::mem::take(&mut lock(&self.0).calls) {
            *asked.entry(call).or_default() += 1;
        }
        asked
    }

    pub(crate) fn limits(&self) -> Vec<Option<u64>> {
        lock(&self.0).qgroups.values().map(|g| g.limit).collect()
    }

    fn call(&self, name: &'static str) -> io::Result<std::sync::MutexGuard<'_, Machine>> {
        let mut machine = lock(&self.0);
        machine.calls.push(name);
        if let Some((failing, left)) = &mut machine.fail
            && *failing == name
        {
            if *left == 1 {
                machine.fail = None;
                return Err(io::Error::other("made to fail"));
            }
            *left -= 1;
        }
        Ok(machine)
    }
}

impl Machine {
    fn mount(&mut self, at: &Path, device: DeviceNumber, root: &str, read_only: bool) {
        self.ids += 1;
        self.mounts.push(MountEntry {
            id: self.ids,
            device,
            root: root.into(),
            point: at.into(),
            read_only,
            filesystem_read_only: false,
            fstype: "btrfs".into(),
            source: "disk".into(),
        });
    }

    fn under(&self, path: &Path) -> MountEntry {
        let root = MountEntry {
            id: 0,
            device: DeviceNumber { major: 8, minor: 1 },
            root: "/".into(),
            point: "/".into(),
            read_only: false,
            filesystem_read_only: false,
            fstype: "ext4".into(),
            source: "disk".into(),
        };
        self.mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.point))
            .max_by_key(|mount| mount.point.as_os_str().len())
            .cloned()
            .unwrap_or(root)
    }
}

/// What is mounted from a loop device says that it is on this.
fn device(minor: u32) -> DeviceNumber {
    DeviceNumber {
        major: MAJOR,
        minor,
    }
}

/// The answer of a machine that does not support it.
fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Inode numbers stand for subvolumes: a rename keeps them.
fn inode(dir: &Dir) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(dir)?.st_ino)
}

impl Filesystems for Fake {
    fn filesystem(&self, dir: &Dir, mount: &MountEntry) -> io::Result<Filesystem> {
        self.reach(dir);
        let machine = self.call("filesystem")?;
        Ok(machine
            .filesystems
            .get(&mount.point)
            .cloned()
            .unwrap_or(Filesystem {
                fstype: mount.fstype.clone(),
                uuid: None,
                size: 1 << 40,
                free: 1 << 40,
                read_only: false,
            }))
    }

    fn probe(&self, dir: &Dir, _entry: &str, _file: &str) -> io::Result<()> {
        self.reach(dir);
        self.call("probe").map(drop)
    }

    fn errors(&self, _dir: &Dir) -> io::Result<Vec<Errors>> {
        unsupported()
    }

    fn space(&self, _dir: &Dir) -> io::Result<Space> {
        drop(self.call("space")?);
        Ok(Space {
            total: 1 << 30,
            inodes: 1 << 16,
            ..Space::default()
        })
    }

    fn commit(&self, _dir: &Dir) -> io::Result<()> {
        self.call("commit").map(drop)
    }

    fn freeze(&self, dir: &Dir) -> io::Result<()> {
        let mut machine = self.call("freeze")?;
        let number = machine.under(dir.path()).device.minor;
        match machine.frozen.insert(number) {
            true => Ok(()),
            false => Err(nix::errno::Errno::EBUSY.into()),
        }
    }

    fn thaw(&self, dir: &Dir) -> io::Result<bool> {
        let mut machine = self.call("thaw")?;
        let number = machine.under(dir.path()).device.minor;
        Ok(machine.frozen.remove(&number))
    }

    fn grow_ext4(&self, _dir: &Dir) -> io::Result<()> {
        unsupported()
    }
}

impl Mounter for Fake {
    fn mounts(&self) -> io::Result<Vec<MountEntry>> {
        Ok(self.call("mounts")?.mounts.clone())
    }

    fn mount_id(&self, dir: &Dir) -> io::Result<u64> {
        Ok(self.call("mount_id")?.under(dir.path()).id)
    }

    fn mount_of(&self, dir: &Dir) -> io::Result<MountEntry> {
        Ok(self.call("mount_of")?.under(dir.path()))
    }

    fn bind(&self, source: &Dir, parent: &Dir, name: &str, how: MountAs<'_>) -> io::Result<()> {
        let mut machine = self.call("bind")?;
        let from = machine.under(source.path());
        let root = from.path_inside(source.path()).unwrap();
        let root = root.to_str().unwrap().to_owned();
        machine.mount(&parent.path().join(name), from.device, &root, how.read_only);
        Ok(())
    }

    fn unmount(&self, parent: &Dir, name: &str) -> io::Result<()> {
        let mut machine = self.call("unmount")?;
        let point = parent.path().join(name);
        let at = machine.mounts.iter().rposition(|m| m.point == point);
        let gone = machine.mounts.remove(at.unwrap());
        machine.clear(gone.device);
        Ok(())
    }

    fn mount_loop(
        &self,
        number: u32,
        parent: &Dir,
        name: &str,
        how: MountAs<'_>,
    ) -> io::Result<()> {
        let mut machine = self.call("mount_loop")?;
        let at = parent.path().join(name);
        machine.mount(&at, device(number), "/", how.read_only);
        Ok(())
    }

    fn bind_loop(&self, number: u32, parent: &Dir, name: &str) -> io::Result<()> {
        drop(parent.open_file_place(name)?);
        let mut machine = self.call("bind_loop")?;
        let node = DeviceNumber { major: 0, minor: 5 };
        let (at, root) = (parent.path().join(name), format!("/loop{number}"));
        machine.mount(&at, node, &root, false);
        machine.mounts.last_mut().unwrap().fstype = "devtmpfs".into();
        Ok(())
    }
}

impl Btrfs for Fake {
    fn quotas(&self, _dir: &Dir) -> io::Result<Quotas> {
        Ok(if self.call("quotas")?.quotas_off {
            Quotas::Off
        } else {
            Quotas::Classic {
                inconsistent: false,
                scanning: false,
            }
        })
    }

    fn enable_quotas(&self, _dir: &Dir) -> io::Result<()> {
        self.call("enable_quotas")?.quotas_off = false;
        Ok(())
    }

    fn keep_quotas(&self, _dir: &Dir) -> io::Result<()> {
        self.call("keep_quotas").map(drop)
    }

    fn qgroups(&self, _dir: &Dir) -> io::Result<BTreeMap<u64, Qgroup>> {
        Ok(self.call("qgroups")?.qgroups.clone())
    }

    fn qgroup(&self, _dir: &Dir, subvolume: u64) -> io::Result<Option<Qgroup>> {
        Ok(self.call("qgroup")?.qgroups.get(&subvolume).copied())
    }

    fn limit(&self, _dir: &Dir, subvolume: u64, bytes: u64) -> io::Result<()> {
        let mut machine = self.call("limit")?;
        machine.qgroups.entry(subvolume).or_default().limit = Some(bytes);
        Ok(())
    }

    fn remove_qgroup(&self, _dir: &Dir, subvolume: u64) -> io::Result<()> {
        self.call("remove_qgroup")?.qgroups.remove(&subvolume);
        Ok(())
    }

    fn create_subvolume(&self, parent: &Dir, name: &str) -> io::Result<u64> {
        self.reach(parent);
        let mut machine = self.call("create_subvolume")?;
        assert!(parent.make(name, 0o755)?);
        let inode = inode(&parent.open(name, Mounts::Stay)?)?;
        machine.ids += 1;
        let id = 256 + machine.ids;
        machine.subvolumes.insert(inode, id);
        machine.qgroups.insert(id, Qgroup::default());
        Ok(id)
    }

    fn snapshot_subvolume(
        &self,
        _source: &Dir,
        _parent: &Dir,
        _name: &str,
        _read_only: bool,
    ) -> io::Result<u64> {
        unsupported()
    }

    fn subvolume_id(&self, dir: &Dir) -> io::Result<Option<u64>> {
        let machine = self.call("subvolume_id")?;
        if machine.filesystems.contains_key(dir.path()) {
            return Ok(Some(5));
        }
        Ok(machine.subvolumes.get(&inode(dir)?).copied())
    }

    fn nested_subvolumes(&self, _dir: &Dir, _subvolume: u64) -> io::Result<Vec<u64>> {
        self.call("nested_subvolumes").map(|_| Vec::new())
    }

    fn destroy_subvolume(&self, parent: &Dir, name: &str) -> io::Result<Vec<u64>> {
        self.reach(parent);
        let mut machine = self.call("destroy_subvolume")?;
        assert_eq!(parent.kind(name)?, Some(Kind::Directory));
        let inode = inode(&parent.open(name, Mounts::Stay)?)?;
        parent.remove_tree(name.as_ref(), &mut || true)?;
        let id = machine.subvolumes.remove(&inode).unwrap();
        machine.freeing.insert(id);
        Ok(vec![id])
    }

    fn subvolume_exists(&self, _dir: &Dir, subvolume: u64) -> io::Result<bool> {
        let machine = self.call("subvolume_exists")?;
        Ok(machine.freeing.contains(&subvolume)
            || machine.subvolumes.values().any(|id| *id == subvolume))
    }
}
