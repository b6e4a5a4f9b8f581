//! From what the watches have seen to what the planner sees.

use std::{collections::BTreeMap, time::Instant};

use berth_api::OrdinalSet;
use berth_plan::set::{Set, View};
use jiff::Timestamp;

use super::{Shell, memory::Memory};

/// The view of one set.
pub(super) fn build(shell: &Shell, set: &OrdinalSet, memory: &Memory) -> View {
    let set = Set::from(set);
    let namespace = set.namespace.clone();
    let prefix = format!("{}-", set.name);
    let mut pods = shell.caches.pods.with_prefix(&namespace, &prefix);
    pods.retain(|pod| set.ordinal(&pod.name).is_some());
    // Claims of the wanted ordinals and of those that still have a pod.
    let existing = pods.iter().filter_map(|pod| set.ordinal(&pod.name));
    let mut ordinals: Vec<i32> = existing.filter(|o| !set.wanted().contains(o)).collect();
    ordinals.extend(set.wanted());
    let mut claims = BTreeMap::new();
    let mut claim_waits = BTreeMap::new();
    if !set.spec.volume_claim_templates.is_empty() {
        for name in ordinals.into_iter().flat_map(|o| claim_names(&set, o)) {
            if let Some(claim) = shell.caches.claims.get(&namespace, &name) {
                if !claim.bound {
                    let why = shell.ctx.waits.get(&namespace, &name);
                    claim_waits.extend(why.map(|why| (name.clone(), why)));
                }
                claims.insert(name, claim);
            }
        }
    }
    View {
        pods,
        claims,
        claim_waits,
        revisions: shell.caches.revisions.with_prefix(&namespace, &prefix),
        refusals: memory.refusals.clone(),
        template_check: memory.check(Instant::now()),
        now: Timestamp::now(),
        set,
    }
}

/// Names of an ordinal's claims.
pub(super) fn claim_names(set: &Set, ordinal: i32) -> Vec<String> {
    set.claim_names(ordinal).map(|(_, name)| name).collect()
}
