//! `berth-agent pools` and `berth-agent pools init`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use berth_api::Bytes;
use berth_provisioner::{Error, Health, InitOptions, PoolReport, init_pool};
use clap::Args;

use super::{
    common::Common,
    table::{or_dash, table},
};

/// Arguments of `pools init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Directories under <root>/pools to make pools of
    #[arg(value_name = "DIR", required_unless_present = "all")]
    dirs: Vec<PathBuf>,
    /// Every directory under <root>/pools that is not a pool yet
    #[arg(long, conflicts_with = "dirs")]
    all: bool,
    /// Bytes that volumes may take in all, 500Gi for example [default: the
    /// filesystem's size less a reserve]
    #[arg(long, value_name = "SIZE")]
    capacity: Option<Bytes>,
    /// Accept a directory that is not a mount point, and make it if need be: its
    /// volumes then share a filesystem with the system, and take --capacity of it
    #[arg(long, requires = "capacity")]
    allow_root_fs: bool,
    /// Accept a directory that holds files which are not Berth's
    #[arg(long)]
    allow_foreign_content: bool,
    /// Accept to switch on quotas for a btrfs that is in use already: they cost
    /// every write there
    #[arg(long)]
    allow_enabling_quotas: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) fn list(common: &Common) -> anyhow::Result<ExitCode> {
    let reports = common.inspect()?.rescan()?;
    common.print(&reports[..], show)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn init(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let mut config = args.common.config();
    config.allow_root_fs = args.allow_root_fs;
    let pools = config.root.join("pools");
    let dirs = if args.all {
        let mut dirs: Vec<String> = args
            .common
            .inspect()?
            .rescan()?
            .into_iter()
            .filter(|report| report.health == Health::Uninitialized)
            .map(|report| report.dir)
            .collect();
        dirs.sort();
        if dirs.is_empty() {
            bail!(
                "{} has no directory that is not a pool yet: mount a disk on a directory there first",
                pools.display()
            );
        }
        dirs
    } else {
        args.dirs
            .iter()
            .map(|dir| name_in(&pools, dir))
            .collect::<anyhow::Result<_>>()?
    };
    let options = InitOptions {
        capacity: args.capacity.map(|capacity| capacity.0),
        allow_foreign_content: args.allow_foreign_content,
        allow_enabling_quotas: args.allow_enabling_quotas,
    };
    // One that cannot be made says nothing about the others.
    let failed = init_each(&dirs, |dir| init_pool(&config, dir, &options).map(drop));
    let made: Vec<PoolReport> = args
        .common
        .inspect()?
        .rescan()?
        .into_iter()
        .filter(|report| dirs.contains(&report.dir) && !failed.contains_key(&report.dir))
        .collect();
    if !made.is_empty() {
        args.common.print(&made[..], show)?;
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    bail!(refusals(&failed, made.len()))
}

/// Makes a pool of each of these; why not, of those that it failed for.
fn init_each(dirs: &[String], init: impl Fn(&str) -> Result<(), Error>) -> BTreeMap<String, Error> {
    let each = dirs.iter().map(|dir| (dir.clone(), init(dir)));
    each.filter_map(|(dir, made)| Some((dir, made.err()?)))
        .collect()
}

/// All of them, a line each.
fn refusals(failed: &BTreeMap<String, Error>, made: usize) -> String {
    let lines: Vec<String> = failed.values().map(ToString::to_string).collect();
    match (failed.len(), made) {
        (1, 0) => lines.join("\n"),
        (failed, made) => format!("{made} made a pool, {failed} not:\n{}", lines.join("\n")),
    }
}

/// The directory's name under `pools`, given as such or as a path.
fn name_in(pools: &Path, dir: &Path) -> anyhow::Result<String> {
    let parent = dir.parent().filter(|parent| *parent != Path::new(""));
    let here = match parent {
        None => true,
        Some(parent) => {
            let real = |path: &Path| {
                fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))
            };
            real(parent)? == real(pools)?
        }
    };
    match dir.file_name().and_then(|name| name.to_str()) {
        Some(name) if here => Ok(name.to_owned()),
        _ => bail!(
            "{} is not a directory under {}: mount the disk on one there",
            dir.display(),
            pools.display()
        ),
    }
}

fn show(reports: &[PoolReport]) -> String {
    if reports.is_empty() {
        return "no pools: mount a disk on a directory under pools/ and run `berth-agent pools init`; \
                without a disk, `berth-agent pools init shared --allow-root-fs --capacity SIZE`\n"
            .to_owned();
    }
    let size = |bytes| Bytes(bytes).human();
    let mut text = table(
        [
            "POOL ID", "DIR", "FS", "HEALTH", "CAPACITY", "RESERVED", "FREE", "VOLUMES", "BACKENDS",
        ],
        reports.iter().map(|report| {
            let backends: Vec<_> = report.backends.iter().map(|b| b.as_str()).collect();
            [
                or_dash(report.id.as_ref().map(ToString::to_string)),
                report.dir.clone(),
                or_dash(Some(report.filesystem.clone())),
                report.health.as_str().to_owned(),
                size(report.capacity),
                size(report.reserved),
                size(report.free),
                report.volumes.to_string(),
                or_dash(Some(backends.join(","))),
            ]
        }),
    );
    for report in reports {
        let troubles = report.troubles.iter().map(|trouble| &trouble.message);
        let messages = [&report.message].into_iter().chain(troubles);
        for message in messages.filter(|message| !message.is_empty()) {
            text.push_str(&format!("\n{}: {message}", report.dir));
        }
    }
    let mut why_not: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for report in reports {
        for (backend, why) in &report.why_not {
            why_not
                .entry((backend.as_str(), why))
                .or_default()
                .push(&report.dir);
        }
    }
    for ((backend, why), dirs) in why_not {
        text.push_str(&format!("\nno {backend} on {}: {why}", dirs.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata::pool;
    use berth_provisioner::{Problem, ProblemKind};

    #[test]
    fn directories_are_names_or_paths_under_pools() {
        let root = tempfile::tempdir().expect("a directory");
        let pools = root.path().join("pools");
        fs::create_dir(&pools).expect("made");
        let name = |dir: &Path| name_in(&pools, dir).ok();
        assert_eq!(name(Path::new("disk0")).as_deref(), Some("disk0"));
        assert_eq!(name(&pools.join("disk0")).as_deref(), Some("disk0"));
        for bad in ["/mnt/disk0", "sub/disk0", "..", "/"] {
            assert_eq!(name(Path::new(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_directory_that_is_refused_keeps_no_other_from_becoming_a_pool() {
        let dirs = ["a", "b", "c"].map(str::to_owned);
        let failed = init_each(&dirs, |dir| match dir {
            "a" | "b" => Err(Error::InitRefused {
                path: dir.into(),
                why: "nothing is mounted there".into(),
            }),
            _ => Ok(()),
        });
        expect_test::expect![[r#"
            1 made a pool, 2 not:
            a is not made a pool: nothing is mounted there
            b is not made a pool: nothing is mounted there"#]]
        .assert_eq(&refusals(&failed, 1));
        let one = init_each(&dirs[..1], |_| Err(Error::InspectOnly));
        assert_eq!(
            refusals(&one, 0),
            "opened for inspection: nothing is changed"
        );
        assert!(init_each(&dirs, |_| Ok(())).is_empty());
    }

    #[test]
    fn lists_pools_and_why_they_cannot_be_used() {
        let lost = PoolReport {
            dir: "disk1".to_owned(),
            filesystem: String::new(),
            backends: Vec::new(),
            message: "the disk is not mounted; mount it again, nothing was written".to_owned(),
            capacity: 0,
            reserved: 0,
            free: 0,
            ..pool(Health::LostMount)
        };
        let failing = PoolReport {
            troubles: vec![Problem {
                kind: ProblemKind::IoErrors,
                message: "the filesystem met errors".to_owned(),
            }],
            ..pool(Health::Healthy)
        };
        let fresh = PoolReport {
            id: None,
            dir: "disk2".to_owned(),
            message: "run `berth-agent pools init disk2`".to_owned(),
            ..pool(Health::Uninitialized)
        };
        expect_test::expect![[r#"
            POOL ID              DIR     FS      HEALTH          CAPACITY   RESERVED   FREE   VOLUMES   BACKENDS
            disk0-0123456789ab   disk0   btrfs   Healthy         100Gi      1Gi        90Gi   1         btrfs
            disk0-0123456789ab   disk1   -       LostMount       0B         0B         0B     1         -
            -                    disk2   btrfs   Uninitialized   100Gi      1Gi        90Gi   1         btrfs

            disk0: the filesystem met errors
            disk1: the disk is not mounted; mount it again, nothing was written
            disk2: run `berth-agent pools init disk2`
            no project-quota on disk0, disk1, disk2: btrfs has no project quotas"#]].assert_eq(&show(&[failing, lost, fresh]));
        expect_test::expect![[r#"
            no pools: mount a disk on a directory under pools/ and run `berth-agent pools init`; without a disk, `berth-agent pools init shared --allow-root-fs --capacity SIZE`
        "#]]
        .assert_eq(&show(&[]));
    }
}
