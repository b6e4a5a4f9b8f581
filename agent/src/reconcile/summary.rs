//! What a NodeStorage says beside the pools themselves, and how soon a change of
//! it must be published. Pure.

use std::path::Path;

use berth_api::{NodePool, NodeStorageStatus, PoolHealth, ProblemKind};
use berth_model::Urgency;

/// Pools that are named in a summary, at most: a column must stay readable.
const NAMED: usize = 3;

/// The pools in a few words.
pub(super) fn summary(pools: &[NodePool]) -> String {
    let (blank, made): (Vec<_>, Vec<_>) = pools
        .iter()
        .partition(|pool| pool.health == PoolHealth::Uninitialized);
    let ill: Vec<_> = made
        .iter()
        .filter_map(|pool| Some(format!("{} {}", directory(pool), illness(pool)?)))
        .collect();
    let count = match made.len() {
        0 => "no pools".to_owned(),
        1 => "1 pool".to_owned(),
        n => format!("{n} pools"),
    };
    let mut text = match (made.is_empty(), ill.is_empty()) {
        (true, _) => count,
        (_, true) => format!("{count} healthy"),
        (_, false) => format!("{count}, {} unhealthy: {}", ill.len(), named(&ill)),
    };
    if !blank.is_empty() {
        let names: Vec<_> = blank.iter().map(|pool| directory(pool)).collect();
        text += &format!("; {} uninitialized: {}", names.len(), named(&names));
    }
    text
}

/// What is wrong with a pool, in a word.
fn illness(pool: &NodePool) -> Option<String> {
    if pool.health != PoolHealth::Healthy {
        return Some(format!("{:?}", pool.health));
    }
    let kinds = pool.troubles.iter().map(|trouble| trouble.kind);
    let worst = kinds.filter(|kind| *kind != ProblemKind::Full).min()?;
    Some(format!("{worst:?}"))
}

fn directory(pool: &NodePool) -> String {
    let name = Path::new(&pool.path).file_name();
    name.map_or_else(
        || pool.path.clone(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn named(names: &[String]) -> String {
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..NAMED].join(", ")),
    }
}

/// How soon others need to know. A pool that fills up with volumes can wait: the
/// controller placed them and counts them itself. It cannot know of room that
/// became free, nor of anything but figures.
pub(super) fn urgency(old: Option<&NodeStorageStatus>, new: &NodeStorageStatus) -> Urgency {
    let Some(old) = old else { return Urgency::Now };
    let without_figures = |status: &NodeStorageStatus| {
        let mut status = status.clone();
        for pool in &mut status.pools {
            (pool.reserved, pool.free, pool.volumes) = Default::default();
            (pool.reserved_by_volumes, pool.room) = Default::default();
        }
        status
    };
    if without_figures(old) != without_figures(new) {
        return Urgency::Now;
    }
    // Only figures differ, so both list the same pools in one order.
    let freed = |(old, new): (&NodePool, &NodePool)| new.reserved < old.reserved;
    match old.pools.iter().zip(&new.pools).any(freed) {
        true => Urgency::Soon,
        false => Urgency::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::Bytes;
    use berth_provisioner::Health;

    use crate::{reconcile::node_storage, testdata};

    fn pool(dir: &str, health: PoolHealth) -> NodePool {
        let mut pool = node_storage::pools(&[testdata::pool(Health::Healthy)], None).remove(0);
        pool.path = format!("/var/lib/berth/pools/{dir}");
        pool.health = health;
        pool
    }

    #[test]
    fn pools_in_a_few_words() {
        use PoolHealth::{Damaged, Healthy, LostMount, ReadOnly, Uninitialized};
        for (pools, expected) in [
            (&[][..], "no pools"),
            (&[("disk0", Healthy)], "1 pool healthy"),
            (&[("disk0", Healthy), ("disk1", Healthy)], "2 pools healthy"),
            (
                &[("disk1", Healthy), ("disk2", ReadOnly)],
                "2 pools, 1 unhealthy: disk2 ReadOnly",
            ),
            (
                &[
                    ("a", LostMount),
                    ("b", Damaged),
                    ("c", ReadOnly),
                    ("d", ReadOnly),
                    ("e", Healthy),
                ],
                "5 pools, 4 unhealthy: a LostMount, b Damaged, c ReadOnly and 1 more",
            ),
            (
                &[("disk0", Healthy), ("disk1", Uninitialized)],
                "1 pool healthy; 1 uninitialized: disk1",
            ),
            (
                &[("disk1", Uninitialized)],
                "no pools; 1 uninitialized: disk1",
            ),
        ] {
            let pools: Vec<_> = pools.iter().map(|(dir, h)| pool(dir, *h)).collect();
            assert_eq!(summary(&pools), expected);
        }
    }

    #[test]
    fn a_pool_with_troubles_is_unhealthy_and_a_full_one_is_not() {
        let trouble = |kind| berth_api::Problem {
            kind,
            message: String::new(),
        };
        let mut pools = [pool("disk0", PoolHealth::Healthy)];
        pools[0].troubles = vec![trouble(ProblemKind::Full)];
        assert_eq!(summary(&pools), "1 pool healthy");
        pools[0].troubles.push(trouble(ProblemKind::IoErrors));
        assert_eq!(summary(&pools), "1 pool, 1 unhealthy: disk0 IoErrors");
    }

    #[test]
    fn only_figures_wait() {
        let pools = vec![
            pool("disk0", PoolHealth::Healthy),
            pool("disk1", PoolHealth::Healthy),
        ];
        let old = NodeStorageStatus {
            agent_version: "1".to_owned(),
            summary: summary(&pools),
            pools,
        };
        let with = |change: &dyn Fn(&mut NodePool)| {
            let mut new = old.clone();
            change(&mut new.pools[1]);
            urgency(Some(&old), &new)
        };
        let gib = |n: u64| Bytes(n << 30);
        assert_eq!(urgency(None, &old), Urgency::Now);
        assert_eq!(with(&|pool| pool.reserved = gib(2)), Urgency::Later);
        assert_eq!(with(&|pool| pool.free = gib(1)), Urgency::Later);
        assert_eq!(with(&|pool| pool.volumes += 1), Urgency::Later);
        assert_eq!(with(&|pool| pool.room = Some(gib(1))), Urgency::Later);
        assert_eq!(with(&|pool| pool.reserved = Bytes(0)), Urgency::Soon);
        assert_eq!(with(&|pool| pool.capacity = gib(9)), Urgency::Now);
        assert_eq!(
            with(&|pool| pool.health = PoolHealth::ReadOnly),
            Urgency::Now
        );
        assert_eq!(
            with(&|pool| pool.message = Some("slow".to_owned())),
            Urgency::Now
        );
        let mut gone = old.clone();
        gone.pools.pop();
        assert_eq!(urgency(Some(&old), &gone), Urgency::Now);
    }
}
