//! What every backend promises while somebody writes all along.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use berth_provisioner::{Error, SnapshotSpec, Source, VolumeMode, VolumeSpec};
use caps::{CapSet, Capability};

use crate::cases::{Case, Kind, MIB, PATIENCE, is_full, pattern, put};

/// A clone is made while its source is written to, and both go on.
pub(crate) fn a_volume_is_cloned_under_load(kind: Kind) {
    let case = Case::new(kind);
    case.make("v", 64 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("kept"), 4 * MIB);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut out = fs::File::create(at.join("busy")).unwrap();
            let mut n = 0u64;
            while !stop.load(Ordering::SeqCst) {
                out.write_all(format!("{n:>7}\n").as_bytes()).unwrap();
                n += 1;
                if n.is_multiple_of(500_000) {
                    out.set_len(0).unwrap();
                    std::io::Seek::rewind(&mut out).unwrap();
                }
            }
        });
        let clone = case.make_from("c", 64 * MIB, Source::Volume("v".into()));
        stop.store(true, Ordering::SeqCst);
        clone.unwrap();
    });
    let other = case.mount("c", VolumeMode::Filesystem, false);
    assert_eq!(
        fs::read(other.join("kept")).unwrap(),
        fs::read(at.join("kept")).unwrap()
    );
    fs::write(other.join("kept"), "mine").unwrap();
    assert_eq!(fs::metadata(at.join("kept")).unwrap().len(), 4 * MIB);
    for id in ["v", "c"] {
        case.unmount(id);
        case.p().delete(id).unwrap();
    }
    case.is_empty();
}

/// A volume grows while it is written to.
pub(crate) fn a_volume_grows_under_load(kind: Kind) {
    let case = Case::new(kind);
    case.make("v", 32 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    written_during(&at.join("file"), 64 * MIB, || {
        case.p().expand("v", 96 * MIB).unwrap();
    });
    assert_eq!(case.p().expand("v", 64 * MIB).unwrap().size, 96 * MIB);
    case.unmount("v");
    case.p().delete("v").unwrap();
    case.is_empty();
}

/// A raw block device is cloned, and grows, while it is written to.
pub(crate) fn a_device_is_cloned_and_grows_under_load(kind: Kind) {
    let case = Case::new(kind);
    let want = |id: &str, source| VolumeSpec {
        mode: VolumeMode::Block,
        source,
        ..case.want(id, 32 * MIB)
    };
    case.p().create(&case.pool, &want("v", None)).unwrap();
    let device = case.mount("v", VolumeMode::Block, false);
    written_during(&device, 64 * MIB, || {
        let clone = want("c", Some(Source::Volume("v".into())));
        let made = case.p().create(&case.pool, &clone).map(drop);
        if kind.fstype == "ext4" {
            // Byte by byte, it would be torn.
            assert!(matches!(made, Err(Error::NotCopied { .. })), "{made:?}");
        } else {
            made.unwrap();
        }
        case.p().expand("v", 64 * MIB).unwrap();
    });
    if kind.fstype == "ext4" {
        case.unmount("v");
        let clone = VolumeSpec {
            size: 64 * MIB,
            ..want("c", Some(Source::Volume("v".into())))
        };
        case.p().create(&case.pool, &clone).unwrap();
        case.mount("v", VolumeMode::Block, false);
    }
    let clone = case.mount("c", VolumeMode::Block, true);
    let copied = fs::read(&clone).unwrap();
    let length = if kind.fstype == "ext4" { 64 } else { 32 };
    assert_eq!(copied.len() as u64, length * MIB);
    let (pattern, zeros) = (pattern(), vec![0; 4096]);
    for (n, block) in copied.chunks(4096).enumerate() {
        let at = n * 4096 % pattern.len();
        let written = block == &pattern[at..at + 4096];
        assert!(
            written || block == zeros,
            "block {n} is neither old nor new"
        );
    }
    for id in ["v", "c"] {
        case.unmount(id);
        case.p().delete(id).unwrap();
    }
    case.is_empty();
}

/// Writes to a file or device from its beginning, and goes on where it was full, until
/// `bytes` are written; `step` is done meanwhile, after a quarter of them.
fn written_during(path: &Path, bytes: u64, step: impl FnOnce()) {
    let (pattern, written) = (pattern(), AtomicU64::new(0));
    let end = Instant::now() + PATIENCE;
    let write = || {
        caps::drop(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap();
        let mut options = fs::File::options();
        let out = options.create(true).truncate(false).write(true).open(path);
        let out = out.unwrap();
        let mut at = 0;
        while at < bytes {
            let block = &pattern[(at % MIB) as usize..];
            match out
                .write_at(block, at)
                .and_then(|n| out.sync_data().map(|()| n))
            {
                Ok(n) => at += n as u64,
                Err(e) => {
                    is_full(&e);
                    assert!(Instant::now() < end, "it stays full at {at}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            written.store(at, Ordering::SeqCst);
        }
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        while written.load(Ordering::SeqCst) < bytes / 4 && !writer.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!writer.is_finished(), "it is not limited");
        step();
        writer.join().unwrap();
    });
    let found = fs::read(path).unwrap();
    assert_eq!(found.len() as u64, bytes);
    assert!(found.chunks(pattern.len()).all(|it| it == pattern));
}

/// A copy for which writers would wait too long is refused, and they do not wait at all.
pub(crate) fn a_copy_that_takes_long_is_refused(kind: Kind) {
    let case = Case::on_disk_of(kind, 4096 * MIB);
    case.make("v", 1536 * MIB);
    let at = case.mount("v", VolumeMode::Filesystem, false);
    put(&at.join("much"), 1040 * MIB);
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let out = fs::File::create(at.join("busy")).unwrap();
            while !stop.load(Ordering::SeqCst) {
                out.write_all_at(&pattern(), 0).unwrap();
                out.sync_data().unwrap();
                written.fetch_add(1, Ordering::SeqCst);
            }
        });
        let want = SnapshotSpec {
            id: "s".into(),
            volume: "v".into(),
        };
        let told = case.p().snapshot(&want);
        let before = written.load(Ordering::SeqCst);
        let end = Instant::now() + PATIENCE;
        while written.load(Ordering::SeqCst) == before && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        let went_on = written.load(Ordering::SeqCst) > before;
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(told, Err(Error::NotCopied { .. })), "{told:?}");
        assert!(went_on);
    });
    case.unmount("v");
    case.p().delete("v").unwrap();
    case.is_empty();
}
