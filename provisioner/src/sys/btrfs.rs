//! What btrfs says about itself: reads the trees in which it keeps subvolumes
//! and quotas (`include/uapi/linux/btrfs_tree.h`).

use std::collections::BTreeMap;
use std::io;

use super::host::{Errors, Qgroup, Quotas};
use super::raw::btrfs as raw;
use super::raw::layout::{
    DEV_STATS, FIRST_FREE_OBJECT, LIMIT_MAX_RFER, SEARCH_BUFFER, SearchArgs, SearchKey,
};
use crate::fs::dir::Dir;

const ROOT_TREE: u64 = 1;
const QUOTA_TREE: u64 = 8;
const INODE_ITEM: u32 = 1;
const ROOT_ITEM: u32 = 132;
const ROOT_REF: u32 = 156;
const QGROUP_STATUS: u32 = 240;
const QGROUP_INFO: u32 = 242;
const QGROUP_LIMIT: u32 = 244;
const STATUS_ON: u64 = 1 << 0;
const STATUS_RESCAN: u64 = 1 << 1;
const STATUS_INCONSISTENT: u64 = 1 << 2;
const STATUS_SIMPLE: u64 = 1 << 3;
/// Qgroups of subvolumes are of level 0; the level is in the upper 16 bits.
const LAST_LEVEL_0: u64 = (1 << 48) - 1;

/// Makes a subvolume writable, wherever it is in the filesystem of `dir` and
/// however long the path to it is.
pub(super) fn make_writable(dir: &Dir, subvolume: u64) -> io::Result<()> {
    let mut generation = None;
    let key = SearchKey {
        tree: subvolume,
        min_object: FIRST_FREE_OBJECT,
        max_object: FIRST_FREE_OBJECT,
        min_type: INODE_ITEM,
        max_type: INODE_ITEM,
        ..SearchKey::default()
    };
    search(dir, key, &mut |_, body| generation = Some(number(body, 0)))?;
    let generation = generation.ok_or(io::ErrorKind::NotFound)?;
    let root = raw::open_subvolume(dir, subvolume, generation)?;
    raw::make_writable(&root)
}

/// What btrfs counts for each of its devices, in the words of `btrfs device stats`.
const ERRORS: [&str; DEV_STATS] = ["write", "read", "flush", "corruption", "generation"];

/// Errors of all devices together.
pub(super) fn errors(dir: &Dir) -> io::Result<Vec<Errors>> {
    let mut all = ERRORS.map(|kind| Errors { kind, count: 0 });
    for device in 1..=raw::last_device(dir)? {
        let counted = raw::device_errors(dir, device)?.unwrap_or_default();
        for (errors, more) in all.iter_mut().zip(counted) {
            errors.count = errors.count.saturating_add(more);
        }
    }
    Ok(all.into())
}

/// State of the quotas.
pub(super) fn quotas(dir: &Dir) -> io::Result<Quotas> {
    let mut flags = 0;
    let key = SearchKey {
        tree: QUOTA_TREE,
        min_type: QGROUP_STATUS,
        max_type: QGROUP_STATUS,
        ..SearchKey::default()
    };
    // Without quotas there is no such tree.
    match search(dir, key, &mut |_, body| {
        flags = number(body, 16);
    }) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Quotas::Off),
        Err(e) => return Err(e),
    }
    Ok(if flags & STATUS_ON == 0 {
        Quotas::Off
    } else if flags & STATUS_SIMPLE != 0 {
        Quotas::Simple
    } else {
        Quotas::Classic {
            inconsistent: flags & STATUS_INCONSISTENT != 0,
            scanning: flags & STATUS_RESCAN != 0,
        }
    })
}

/// Uses and limits of the subvolumes `first..=last`.
pub(super) fn qgroups(dir: &Dir, first: u64, last: u64) -> io::Result<BTreeMap<u64, Qgroup>> {
    let mut found: BTreeMap<u64, Qgroup> = BTreeMap::new();
    for kind in [QGROUP_INFO, QGROUP_LIMIT] {
        let key = SearchKey {
            tree: QUOTA_TREE,
            min_type: kind,
            max_type: kind,
            min_offset: first,
            max_offset: last.min(LAST_LEVEL_0),
            ..SearchKey::default()
        };
        search(dir, key, &mut |header, body| {
            let group = found.entry(header.offset).or_default();
            if kind == QGROUP_INFO {
                group.used = number(body, 8);
                group.exclusive = number(body, 24);
            } else if number(body, 0) & LIMIT_MAX_RFER != 0 {
                group.limit = Some(number(body, 8));
            }
        })?;
    }
    Ok(found)
}

/// Whether the subvolume's tree still takes space.
pub(super) fn root_exists(dir: &Dir, subvolume: u64) -> io::Result<bool> {
    let mut exists = false;
    let key = SearchKey {
        tree: ROOT_TREE,
        min_object: subvolume,
        max_object: subvolume,
        min_type: ROOT_ITEM,
        max_type: ROOT_ITEM,
        max_offset: u64::MAX,
        ..SearchKey::default()
    };
    search(dir, key, &mut |_, _| exists = true)?;
    Ok(exists)
}

/// Subvolumes inside `subvolume`, the innermost first.
pub(super) fn nested(dir: &Dir, subvolume: u64) -> io::Result<Vec<u64>> {
    let mut all = vec![subvolume];
    let mut next = 0;
    while let Some(&parent) = all.get(next) {
        let key = SearchKey {
            tree: ROOT_TREE,
            min_object: parent,
            max_object: parent,
            min_type: ROOT_REF,
            max_type: ROOT_REF,
            max_offset: u64::MAX,
            ..SearchKey::default()
        };
        search(dir, key, &mut |header, _| all.push(header.offset))?;
        next += 1;
    }
    all.remove(0);
    all.reverse();
    Ok(all)
}

struct Header {
    object: u64,
    offset: u64,
    kind: u32,
}

/// Hands every item of the key's range to `each`.
fn search(dir: &Dir, key: SearchKey, each: &mut dyn FnMut(&Header, &[u8])) -> io::Result<()> {
    let mut args = Box::new(SearchArgs {
        key: SearchKey {
            max_transid: u64::MAX,
            ..key
        },
        buffer: [0; SEARCH_BUFFER],
    });
    loop {
        args.key.items = u32::MAX;
        raw::tree_search(dir, &mut args)?;
        let mut at = 0;
        let mut last = None;
        for _ in 0..args.key.items {
            let head = &args.buffer[at..at + 32];
            let header = Header {
                object: native(head, 8),
                offset: native(head, 16),
                kind: native_half(head, 24),
            };
            let length = native_half(head, 28) as usize;
            // A search returns every item between two keys, also those of other
            // types and offsets.
            let wanted = (key.min_type..=key.max_type).contains(&header.kind)
                && (key.min_offset..=key.max_offset).contains(&header.offset);
            if wanted {
                each(&header, &args.buffer[at + 32..at + 32 + length]);
            }
            at += 32 + length;
            last = Some(header);
        }
        // Goes on behind the last one that was seen.
        match last {
            None => return Ok(()),
            Some(last) if last.offset < u64::MAX => {
                args.key.min_object = last.object;
                args.key.min_type = last.kind;
                args.key.min_offset = last.offset + 1;
            }
            Some(last) if last.kind < key.max_type => {
                args.key.min_object = last.object;
                args.key.min_type = last.kind + 1;
                args.key.min_offset = 0;
            }
            Some(_) => return Ok(()),
        }
    }
}

/// The number at `at` of a search header, which the kernel writes in the
/// machine's own order.
fn native(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at).to_le()
}

fn native_half(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|slice| slice.try_into().ok())
        .map_or(0, u32::from_ne_bytes)
}

/// The little-endian number at `at` of an item, 0 beyond the end.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|slice| slice.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}
