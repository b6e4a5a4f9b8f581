//! What was erased: the trash and the tombstones.

use crate::fs::dir::{Dir, Kind, replaced_by};
use crate::locks::lock;
use crate::pool::Pool;
use crate::pool::record::Tombstone;
use crate::report::check::findings::Findings;
use crate::store::Store;
use crate::types::FindingKind;
use crate::{names, pool};

pub(super) fn trash(findings: &mut Findings, store: &Store, pool: &Pool, trash: &Dir) {
    let id = &pool.identity.id;
    for name in trash.names().unwrap_or_default() {
        findings.count();
        let path = trash.path().join(&name);
        let known = name.to_str().and_then(|name| {
            lock(&store.state)
                .pools
                .get(id)
                .and_then(|state| state.trash.get(name).cloned())
        });
        if known.is_some() || crate::fs::is_moved_aside(&name) {
            let what = "deleted; its space is not freed yet".to_owned();
            let what = match known.and_then(|trashed| trashed.why) {
                Some(why) => format!("{what}: {why}"),
                None => what,
            };
            findings.add(
                FindingKind::Trash,
                Some(id),
                name.to_str().map(crate::layout::id_in_trash),
                path,
                what,
                "it goes by itself while the agent runs; if it stays, the agent's log says why",
            );
        } else {
            findings.orphan(id, path);
        }
    }
}

pub(super) fn tombstones(findings: &mut Findings, pool: &Pool, tombstones: &Dir) {
    let id = &pool.identity.id;
    for name in tombstones.names().unwrap_or_default() {
        findings.count();
        let path = tombstones.path().join(&name);
        let text = name.to_str().unwrap_or_default();
        let is = |volume: &str| names::volume_id(volume).is_ok();
        let volume = text.strip_suffix(".json").filter(|volume| is(volume));
        let is_file = tombstones.kind(&name).ok().flatten() == Some(Kind::File);
        let (Some(volume), true) = (volume, is_file) else {
            let half_written = replaced_by(text)
                .and_then(|text| text.strip_suffix(".json"))
                .is_some_and(is);
            if !half_written {
                findings.orphan(id, path);
            }
            continue;
        };
        let why = match pool::read::<Tombstone>(tombstones, text) {
            Ok(Some(stone)) if stone.id != volume => {
                format!("it is the tombstone of {}", stone.id)
            }
            // Pruned meanwhile.
            Ok(_) => continue,
            Err(why) => why,
        };
        findings.add(
            FindingKind::DamagedRecord,
            Some(id),
            Some(volume),
            path,
            format!("tombstone: {why}"),
            "the volume counts as erased all the same, and is not made again under this id; \
             remove the file if it never was",
        );
    }
}
