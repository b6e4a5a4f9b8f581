//! Makes a directory a pool: on purpose only, and never over something else.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use crate::backend;
use crate::error::{Error, IoContext};
use crate::fs::dir::{Dir, Kind, Mounts};
use crate::fs::envelope;
use crate::layout::{IDENTITY, META, NEW, POOLS, SNAPSHOTS, TOMBSTONES, TRASH, VOLUMES};
use crate::names;
use crate::pool::record::{Identity, now};
use crate::pool::{self, Observed};
use crate::sys::{Quotas, Sys};
use crate::types::{Config, InitOptions, PoolId};

/// Id of the subvolume that is the top of a btrfs (`BTRFS_FS_TREE_OBJECTID`).
const TOP: u64 = 5;

/// Makes the directory `dir` under `pools/` a pool. An agent that works on the
/// same root picks it up at its next [`rescan`](crate::Provisioner::rescan).
///
/// On btrfs this switches classic quotas on, and says so in the identity.
///
/// # Errors
/// [`Error::InitRefused`]: the directory is a pool, or was one; it is no mount
/// point and the configuration does not allow that; it holds files that are not
/// Berth's; its filesystem carries no backend, is read-only, or is a btrfs in use
/// without quotas; unless the options accept that.
#[cfg(target_os = "linux")]
pub fn init_pool(config: &Config, dir: &str, options: &InitOptions) -> Result<PoolId, Error> {
    init(&crate::sys::Linux, config, dir, options, false)
}

/// What decides whether a directory may become a pool.
#[derive(Debug)]
struct Candidate {
    seen: Observed,
    /// Names in it, but for what an interrupted call left.
    names: Vec<String>,
    quotas: Quotas,
    /// It is the top of its filesystem, and that has no subvolumes.
    pristine: bool,
    /// A pool is remembered at this place.
    remembered: bool,
}

/// Why it may not become a pool, and what to do; `None` if it may.
fn refusal(it: &Candidate, allow_root_fs: bool, options: &InitOptions) -> Option<String> {
    match &it.seen.identity {
        Ok(None) => {}
        Ok(Some(identity)) => return Some(format!("it is pool {} already", identity.id)),
        Err(why) => {
            return Some(format!(
                "it has an identity that cannot be trusted ({why}); restore {META}/{IDENTITY}"
            ));
        }
    }
    if !it.seen.mount_point {
        if it.remembered {
            return Some(
                "a pool was here and its disk is not mounted; mount it, it is initialised already"
                    .into(),
            );
        }
        if !allow_root_fs {
            return Some(
                "it is not a mount point: mount a disk on it, or let it share the filesystem \
                 that it lies on with the system, with --allow-root-fs and --capacity SIZE"
                    .into(),
            );
        }
    }
    if let Err(why) = backend::supported(&it.seen.filesystem.fstype) {
        return Some(why);
    }
    if it.seen.filesystem.read_only {
        return Some("it is mounted read-only".into());
    }
    let is_pools =
        |name: &&String| [VOLUMES, SNAPSHOTS, TRASH, TOMBSTONES].contains(&name.as_str());
    if let Some(name) = it.names.iter().find(is_pools) {
        return Some(format!(
            "it holds {name:?}, as a pool does that lost its identity: restore {META}/{IDENTITY}, \
             or move these directories away"
        ));
    }
    let foreign = |name: &&String| *name != "lost+found" && *name != META;
    let stranger = it.names.iter().find(foreign);
    if let Some(name) = stranger
        && !options.allow_foreign_content
    {
        return Some(format!(
            "it is not empty ({name:?}): use an empty filesystem, or say that its content may stay"
        ));
    }
    let in_use = !it.pristine || stranger.is_some();
    if !it.seen.mount_point && options.capacity.is_none() {
        return Some(
            "it shares its filesystem with the system: say how much of it volumes may take, \
             with --capacity SIZE"
                .into(),
        );
    }
    if wants_quotas(it) && in_use && !options.allow_enabling_quotas {
        return Some(
            "its btrfs is in use and has no quotas, which Berth needs and which cost every write \
             on it: use a disk of its own, or say that quotas may be switched on"
                .into(),
        );
    }
    None
}

/// Whether quotas would have to be switched on. A btrfs that is the system's too is
/// left as it is: images need none.
fn wants_quotas(it: &Candidate) -> bool {
    it.seen.filesystem.fstype == "btrfs" && it.quotas == Quotas::Off && it.seen.mount_point
}

pub(crate) fn init(
    sys: &dyn Sys,
    config: &Config,
    name: &str,
    options: &InitOptions,
    remembered: bool,
) -> Result<PoolId, Error> {
    let path = config.root.join(POOLS).join(name);
    let refuse = |why: String| Error::InitRefused {
        path: path.clone(),
        why,
    };
    if name.is_empty() || name.starts_with('.') || name.contains('/') || name == "lost+found" {
        return Err(refuse("give the name of a directory under pools/".into()));
    }
    let pools = pool::open_pools(&config.root)?;
    // A mount point comes with its disk; a directory that shares a filesystem does not.
    let shares = config.allow_root_fs && options.capacity.is_some();
    let opened = match pools.open(name, Mounts::Cross) {
        Err(e) if e.kind() == io::ErrorKind::NotFound && shares => {
            pools.ensure(name, 0o700, Mounts::Cross)
        }
        opened => opened,
    };
    let dir = match opened {
        Ok(dir) => dir,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(refuse(
                "it does not exist: make it and mount a disk on it, or have it made on the \
                 node's own filesystem, with --allow-root-fs and --capacity SIZE"
                    .into(),
            ));
        }
        Err(e) => return Err(refuse(format!("it cannot be opened as a directory: {e}"))),
    };
    // Two processes at once would make two identities.
    let lock = File::from(dir.as_fd().try_clone_to_owned().context("opening", &path)?);
    lock.lock().context("locking", &path)?;
    let candidate = look(sys, &pools, &dir, remembered)?;
    if let Some(why) = refusal(&candidate, config.allow_root_fs, options) {
        return Err(refuse(why));
    }
    let enabled_quotas = wants_quotas(&candidate)
        || (options.allow_enabling_quotas
            && candidate.seen.filesystem.fstype == "btrfs"
            && candidate.quotas == Quotas::Off);
    if enabled_quotas {
        sys.enable_quotas(&dir)
            .context("switching quotas on for", &path)?;
    }
    write(sys, &dir, name, &candidate, options, enabled_quotas)
}

fn look(sys: &dyn Sys, pools: &Dir, dir: &Dir, remembered: bool) -> Result<Candidate, Error> {
    let path = dir.path();
    let seen = pool::observe(sys, pools, dir)?;
    let mut names = Vec::new();
    for name in dir.names().context("listing", path)? {
        let name = name.to_string_lossy().into_owned();
        // An earlier call that died half-way leaves these, and empty.
        let half_made = [VOLUMES, SNAPSHOTS, TRASH, TOMBSTONES].contains(&name.as_str())
            && dir
                .open(&name, Mounts::Stay)
                .and_then(|part| part.names())
                .is_ok_and(|inside| inside.is_empty());
        if !half_made {
            names.push(name);
        }
    }
    let (quotas, pristine) = if seen.filesystem.fstype == "btrfs" {
        let quotas = sys.quotas(dir).context("reading the quotas of", path)?;
        let top = sys.subvolume_id(dir).context("looking at", path)? == Some(TOP);
        let alone = sys
            .nested_subvolumes(dir, TOP)
            .context("looking for subvolumes in", path)?
            .is_empty();
        (quotas, top && alone)
    } else {
        (Quotas::Off, false)
    };
    Ok(Candidate {
        seen,
        names,
        quotas,
        pristine,
        remembered,
    })
}

/// Makes the pool's directories, and its identity last: only that makes it one.
fn write(
    sys: &dyn Sys,
    dir: &Dir,
    name: &str,
    candidate: &Candidate,
    options: &InitOptions,
    enabled_quotas: bool,
) -> Result<PoolId, Error> {
    let path = dir.path();
    for part in [VOLUMES, SNAPSHOTS, TRASH, TOMBSTONES, META] {
        dir.ensure(part, 0o700, Mounts::Stay)
            .context("making", path.join(part))?;
    }
    let meta = dir
        .open(META, Mounts::Stay)
        .context("opening", path.join(META))?;
    meta.ensure(NEW, 0o700, Mounts::Stay)
        .context("making", path.join(META).join(NEW))?;
    let mut entropy = [0; 32];
    io::Read::read_exact(
        &mut File::open("/dev/urandom").context("opening", "/dev/urandom")?,
        &mut entropy,
    )
    .context("reading", "/dev/urandom")?;
    let id = PoolId::new(names::pool_id(name, &entropy))?;
    let identity = Identity {
        id: id.clone(),
        fs_uuid: candidate.seen.filesystem.uuid.clone(),
        fstype: candidate.seen.filesystem.fstype.clone(),
        created: now(),
        capacity: options.capacity,
        enabled_quotas,
        shared: !candidate.seen.mount_point,
    };
    meta.write(IDENTITY, &envelope::encode(&identity))
        .context("writing", path.join(META).join(IDENTITY))?;
    dir.sync().context("writing down", path)?;
    sys.commit(dir).context("writing down", path)?;
    debug_assert_eq!(meta.kind(IDENTITY).ok().flatten(), Some(Kind::File));
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Filesystem;

    fn fresh() -> Candidate {
        Candidate {
            seen: Observed {
                identity: Ok(None),
                filesystem: Filesystem {
                    fstype: "btrfs".into(),
                    uuid: Some("u".into()),
                    size: 1 << 30,
                    free: 1 << 30,
                    read_only: false,
                },
                mount: pool::tests::mount(),
                mount_point: true,
            },
            names: vec!["lost+found".into()],
            quotas: Quotas::Off,
            pristine: true,
            remembered: false,
        }
    }

    fn why(it: &Candidate) -> Option<String> {
        refusal(it, false, &InitOptions::default())
    }

    #[test]
    fn a_fresh_disk_may_become_a_pool() {
        assert_eq!(why(&fresh()), None);
    }

    #[test]
    fn everything_else_is_refused_with_its_reason() {
        type Change = fn(&mut Candidate);
        let cases: [(&str, Change); 8] = [
            ("not a mount point", |c| c.seen.mount_point = false),
            ("its disk is not mounted", |c| {
                c.seen.mount_point = false;
                c.remembered = true;
            }),
            ("nfs4", |c| c.seen.filesystem.fstype = "nfs4".into()),
            ("read-only", |c| c.seen.filesystem.read_only = true),
            ("not empty", |c| c.names.push("photos".into())),
            ("lost its identity", |c| c.names.push("volumes".into())),
            ("in use", |c| c.pristine = false),
            ("cannot be trusted", |c| {
                c.seen.identity = Err("torn".into())
            }),
        ];
        for (expected, change) in cases {
            let mut candidate = fresh();
            change(&mut candidate);
            let got = why(&candidate).unwrap_or_default();
            assert!(got.contains(expected), "{expected:?}: {got:?}");
        }
    }

    #[test]
    fn what_a_person_accepts_is_accepted() {
        let mut used = fresh();
        used.names.push("photos".into());
        used.pristine = false;
        used.seen.mount_point = false;
        let options = InitOptions {
            capacity: Some(1 << 30),
            allow_foreign_content: true,
            allow_enabling_quotas: true,
        };
        assert_eq!(refusal(&used, true, &options), None);
        // But a lost mount is one whatever the options are.
        used.remembered = true;
        assert!(refusal(&used, true, &options).is_some());
    }

    #[test]
    fn quotas_that_are_on_need_no_permission() {
        let mut used = fresh();
        used.pristine = false;
        used.quotas = Quotas::Simple;
        assert_eq!(why(&used), None);
    }
}
