//! From what the watches have seen to what the planner sees.

use std::collections::{BTreeMap, BTreeSet};

use berth_plan::set::{Set, View};
use jiff::Timestamp;

use super::{context::Context, state::SetState};

/// Ordinals without a pod that one reconcile looks at: some more than it creates. A
/// claim beyond it would be created in vain, which does no harm.
const NEXT_ORDINALS: usize = 1000;

/// The view of one set.
pub(super) fn build(context: &Context, set: Set, state: &SetState) -> View {
    let namespace = set.namespace.clone();
    let prefix = format!("{}-", set.name);
    let mut pods = context.caches.pods.with_prefix(&namespace, &prefix);
    pods.retain(|pod| set.ordinal(&pod.name).is_some());
    // Claims of the ordinals that have a pod, and of those that get one next.
    let mut ordinals: BTreeSet<i32> = (pods.iter())
        .filter_map(|pod| set.ordinal(&pod.name))
        .collect();
    let missing = set.wanted().filter(|o| !ordinals.contains(o));
    let missing: Vec<i32> = missing.take(NEXT_ORDINALS).collect();
    ordinals.extend(missing);
    let mut claims = BTreeMap::new();
    let mut claim_waits = BTreeMap::new();
    if !set.spec.volume_claim_templates.is_empty() {
        for name in ordinals.into_iter().flat_map(|o| claim_names(&set, o)) {
            if let Some(claim) = context.caches.claims.get(&namespace, &name) {
                if !claim.bound {
                    let why = context.ctx.waits.get(&namespace, &name);
                    claim_waits.extend(why.map(|why| (name.clone(), why)));
                }
                claims.insert(name, claim);
            }
        }
    }
    // Claims of ordinals without a pod: the policy may free them from the set.
    for template in &set.spec.volume_claim_templates {
        let template = template["metadata"]["name"].as_str().unwrap_or_default();
        let prefix = format!("{template}-{prefix}");
        for claim in context.caches.claims.with_prefix(&namespace, &prefix) {
            if set.ordinal_of_claim(&claim.name).is_some() {
                claims.entry(claim.name.clone()).or_insert(claim);
            }
        }
    }
    View {
        pods,
        claims,
        claim_waits,
        revisions: context.caches.revisions.with_prefix(&namespace, &prefix),
        refusals: state.refusals.clone(),
        template_check: state.check.clone(),
        normal_form: state.normal_form.clone(),
        memory: state.memory.clone(),
        now: Timestamp::now(),
        set,
    }
}

/// Names of an ordinal's claims.
pub(super) fn claim_names(set: &Set, ordinal: i32) -> Vec<String> {
    set.claim_names(ordinal).map(|(_, name)| name).collect()
}
