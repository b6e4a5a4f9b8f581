//! What every backend promises about the disk beneath it: its room, and its state.

use std::fs;
use std::path::Path;
use std::time::Duration;

use berth_provisioner::{Backend, Error, Health, Publish, Source, Stage, VolumeMode, VolumeSpec};

use crate::cases::{Case, Kind, MIB, PATIENCE, put};

/// What is written takes no room a second time: not in a sparse volume, and not in a copy
/// whose source is gone.
pub(crate) fn what_is_written_is_not_kept_free_as_well(kind: Kind) {
    let mut case = Case::new(kind);
    let room = |case: &Case| case.p().rescan().unwrap().remove(0).room;
    // Metadata takes a little.
    let is_as_before = |case: &Case, before: u64| {
        let end = std::time::Instant::now() + PATIENCE;
        while room(case) + 16 * MIB < before && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
        let now = room(case);
        assert!(now + 16 * MIB >= before, "{now} of {before}");
    };
    let want = VolumeSpec {
        sparse: kind.backend == Backend::Image,
        ..case.want("v", 256 * MIB)
    };
    case.p().create(&case.pool, &want).unwrap();
    let before = room(&case);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("file"), 200 * MIB);
    case.unmount("v");
    is_as_before(&case, before);
    case.make_from("c", 256 * MIB, Source::Volume("v".into()))
        .unwrap();
    let both = room(&case);
    assert!(both + 256 * MIB <= before + 16 * MIB, "{both} of {before}");
    case.p().delete("v").unwrap();
    is_as_before(&case, before);
    case.restart();
    is_as_before(&case, before);
    case.p().delete("c").unwrap();
    case.is_empty();
}

/// On a disk that became read-only, a volume can be mounted to read it, and by nobody who
/// wants to write; an image by nobody.
pub(crate) fn a_read_only_disk_can_be_read(kind: Kind) {
    let case = Case::new(kind);
    case.make("v", 32 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    fs::write(at.join("file"), "kept").unwrap();
    case.unmount("v");
    remount(&case.disk(), true);
    assert_eq!(case.p().rescan().unwrap()[0].health, Health::ReadOnly);
    let staging = case.node.staging("v");
    let stage = Stage {
        id: "v".into(),
        staging: staging.clone(),
        mode: VolumeMode::Filesystem,
    };
    let staged = case.p().stage(&stage);
    if kind.backend == Backend::Image {
        assert!(matches!(staged, Err(Error::ReadOnly { .. })), "{staged:?}");
    } else {
        staged.unwrap();
        let at = case.mount("v", VolumeMode::Filesystem, true);
        assert_eq!(fs::read_to_string(at.join("file")).unwrap(), "kept");
        let writer = Publish {
            id: "v".into(),
            target: case.node.target("writer", "v"),
            staging: Some(staging),
            mode: VolumeMode::Filesystem,
            readonly: false,
            flags: Vec::new(),
            pod_uid: "writer".into(),
            pod: String::new(),
            single_writer: false,
        };
        let refused = case.p().publish(&writer);
        assert!(
            matches!(refused, Err(Error::ReadOnly { .. })),
            "{refused:?}"
        );
        case.unmount("v");
    }
    remount(&case.disk(), false);
    case.p().rescan().unwrap();
    case.p().delete("v").unwrap();
    case.is_empty();
}

fn remount(at: &Path, read_only: bool) {
    let mut command = std::process::Command::new("mount");
    let how = if read_only {
        "remount,ro"
    } else {
        "remount,rw"
    };
    let output = command.args(["-o", how]).arg(at).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
