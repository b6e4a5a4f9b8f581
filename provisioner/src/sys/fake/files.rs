//! Images, loop devices and project quotas of the faked machine. Images are real files
//! with nothing but a superblock in them.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_linux::loops::MAJOR;
use berth_linux::{DeviceNumber, FileId};

use super::{Fake, Machine, inode, unsupported};
use crate::fs::dir::Dir;
use crate::locks::lock;
use crate::sys::host::{Images, Loop, LoopDevices, LoopOptions, Project, ProjectLimits, Projects};

/// How long a machine waits for what a test expects.
const PATIENCE: Duration = Duration::from_secs(60);

impl Fake {
    /// Gives the machine loop devices, and so images; files share blocks or not.
    pub(crate) fn make_images(&self, reflinks: bool) {
        let mut machine = lock(&self.0);
        machine.loops = Some(Vec::new());
        machine.reflinks = reflinks;
    }

    /// Has whoever shares blocks wait until nothing is frozen any more, as a disk does that
    /// is too slow.
    pub(crate) fn hold_reflinks(&self) {
        lock(&self.0).reflinks_wait = true;
    }

    /// Gives the filesystem at `at` project quotas.
    pub(crate) fn make_projects(&self, at: &Path) {
        self.change(at, |filesystem| filesystem.fstype = "xfs".into());
        lock(&self.0).projects = Some(BTreeMap::new());
    }

    /// What the filesystem knows of projects that it met.
    pub(crate) fn projects(&self) -> BTreeMap<u32, Project> {
        lock(&self.0).projects.clone().unwrap_or_default()
    }

    /// Sets what a filesystem with quotas says of a project.
    pub(crate) fn set_project(&self, number: u32, project: Project) {
        lock(&self.0)
            .projects
            .as_mut()
            .unwrap()
            .insert(number, project);
    }

    /// The loop devices that have a file.
    pub(crate) fn loop_numbers(&self) -> Vec<u32> {
        let machine = lock(&self.0);
        let loops = machine.loops.iter().flatten();
        loops.map(|it| it.number).collect()
    }

    /// The loop devices whose filesystem is frozen.
    pub(crate) fn frozen(&self) -> Vec<u32> {
        lock(&self.0).frozen.iter().copied().collect()
    }

    /// Freezes what is on a loop device, as another program does.
    pub(crate) fn freeze_loop(&self, number: u32) {
        lock(&self.0).frozen.insert(number);
    }
}

impl Machine {
    /// Detaches a loop device that was mounted, and is no more.
    pub(super) fn clear(&mut self, was: DeviceNumber) {
        let used = self.mounts.iter().any(|mount| mount.device == was);
        if was.major == MAJOR
            && !used
            && let Some(loops) = &mut self.loops
        {
            loops.retain(|it| it.number != was.minor);
        }
    }
}

impl Projects for Fake {
    fn project_quotas(&self, _dir: &Dir) -> io::Result<bool> {
        match self.call("project_quotas")?.projects {
            Some(_) => Ok(true),
            None => unsupported(),
        }
    }

    fn project_of(&self, dir: &Dir) -> io::Result<u32> {
        let machine = self.call("project_of")?;
        Ok(machine.project_of.get(&inode(dir)?).copied().unwrap_or(0))
    }

    fn set_project(&self, dir: &Dir, project: u32) -> io::Result<()> {
        let mut machine = self.call("set_project")?;
        machine.project_of.insert(inode(dir)?, project);
        Ok(())
    }

    fn project(&self, _dir: &Dir, project: u32) -> io::Result<Project> {
        let machine = self.call("project")?;
        let projects = machine.projects.as_ref();
        Ok(projects
            .and_then(|all| all.get(&project).copied())
            .unwrap_or_default())
    }

    fn limit_project(
        &self,
        _dir: &Dir,
        project: u32,
        limits: Option<ProjectLimits>,
    ) -> io::Result<()> {
        let mut machine = self.call("limit_project")?;
        let projects = machine.projects.as_mut().unwrap();
        let known = projects.entry(project).or_default();
        known.limit = limits.map(|limits| limits.bytes);
        known.inode_limit = limits.and_then(|limits| limits.inodes);
        Ok(())
    }
}

/// Writes the superblock of an ext4 as long as the file.
fn write_superblock(file: &File) -> io::Result<()> {
    let mut block = [0; 1024];
    let blocks = u32::try_from(file.metadata()?.len() / 4096).unwrap();
    block[0x04..0x08].copy_from_slice(&blocks.to_le_bytes());
    block[0x18] = 2;
    block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
    file.write_all_at(&block, 1024)
}

impl Images for Fake {
    fn allocate(&self, file: &File, bytes: u64, _sparse: bool) -> io::Result<()> {
        let _machine = self.call("allocate")?;
        match bytes > file.metadata()?.len() {
            true => file.set_len(bytes),
            false => Ok(()),
        }
    }

    fn overwrite_in_place(&self, _file: &File) -> io::Result<()> {
        self.call("overwrite_in_place").map(drop)
    }

    fn format(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let _machine = self.call("format")?;
        write_superblock(&dir.open_file(name)?)
    }

    fn grow_unmounted(&self, dir: &Dir, name: &str) -> io::Result<()> {
        let _machine = self.call("grow_unmounted")?;
        write_superblock(&dir.open_file(name)?)
    }

    fn reflink(&self, mut from: &File, mut to: &File) -> io::Result<bool> {
        let mut machine = self.call("reflink")?;
        let end = Instant::now() + PATIENCE;
        while machine.reflinks_wait && !machine.frozen.is_empty() && Instant::now() < end {
            drop(machine);
            std::thread::sleep(Duration::from_millis(1));
            machine = lock(&self.0);
        }
        if !machine.reflinks {
            return Ok(false);
        }
        io::copy(&mut from, &mut to)?;
        to.set_len(from.metadata()?.len())?;
        Ok(true)
    }

    fn shares_blocks(&self, _file: &File) -> io::Result<bool> {
        self.call("shares_blocks").map(|machine| machine.reflinks)
    }
}

impl LoopDevices for Fake {
    fn loops(&self) -> io::Result<Vec<Loop>> {
        match &self.call("loops")?.loops {
            Some(loops) => Ok(loops.clone()),
            None => unsupported(),
        }
    }

    fn loop_at(&self, number: u32) -> io::Result<Option<Loop>> {
        let machine = self.call("loop_at")?;
        let mut loops = machine.loops.iter().flatten();
        Ok(loops.find(|it| it.number == number).cloned())
    }

    fn attach_loop(&self, file: &File, options: LoopOptions) -> io::Result<(u32, File)> {
        let mut machine = self.call("attach_loop")?;
        machine.ids += 1;
        let number = u32::try_from(machine.ids).unwrap();
        machine.loops.as_mut().unwrap().push(Loop {
            number,
            file: FileId::from(&file.metadata()?),
            node: None,
            read_only: options.read_only,
        });
        Ok((number, file.try_clone()?))
    }

    fn hold_loop(&self, number: u32, file: &Metadata) -> io::Result<Option<File>> {
        let machine = self.call("hold_loop")?;
        let mut loops = machine.loops.iter().flatten();
        let shows = loops.any(|it| it.number == number && it.shows(file));
        shows.then(|| File::open("/dev/null")).transpose()
    }

    fn detach_loop(&self, number: u32) -> io::Result<()> {
        let mut machine = self.call("detach_loop")?;
        machine
            .loops
            .as_mut()
            .unwrap()
            .retain(|it| it.number != number);
        Ok(())
    }

    fn resize_loop(&self, _number: u32) -> io::Result<()> {
        self.call("resize_loop").map(drop)
    }
}
