//! Claims that have a data source and no volume yet, by their source.

use std::collections::{BTreeMap, BTreeSet};

use berth_plan::volumes::claim::{self, Source};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use berth_kube::cache::Key;

/// Claims that wait to be made as copies.
#[derive(Default)]
pub(super) struct Sourced {
    /// Claims whose source is a VolumeSnapshot.
    snapshots: BTreeSet<Key>,
    /// Claims whose source is another claim, by that claim.
    claims: BTreeMap<Key, BTreeSet<Key>>,
}

impl Sourced {
    /// Adds a claim to the index, or removes it.
    pub(super) fn note(&mut self, claim: &PersistentVolumeClaim, there: bool) {
        let namespace = claim.namespace().unwrap_or_default();
        let key = (namespace.clone(), claim.name_any());
        match claim::source(claim) {
            Ok(Some(Source::Snapshot(_))) => change(&mut self.snapshots, key, there),
            Ok(Some(Source::Claim(name))) => {
                let source = (namespace, name.to_owned());
                let copies = self.claims.entry(source.clone()).or_default();
                change(copies, key, there);
                if copies.is_empty() {
                    self.claims.remove(&source);
                }
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Claims that wait for a VolumeSnapshot.
    pub(super) fn restores(&self) -> Vec<Key> {
        self.snapshots.iter().cloned().collect()
    }

    /// Claims that wait to be copies of a claim.
    pub(super) fn copies_of(&self, source: &Key) -> Vec<Key> {
        self.claims
            .get(source)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }
}

fn change(keys: &mut BTreeSet<Key>, key: Key, there: bool) {
    if there {
        keys.insert(key);
    } else {
        keys.remove(&key);
    }
}
