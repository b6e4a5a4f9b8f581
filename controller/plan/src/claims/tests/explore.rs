//! From every state that random actors reach, each claim ends bound, or with a reason,
//! and a pod that can run does.
//!
//! Each case is a cluster of up to three nodes and four pools, with up to four pods on up
//! to five claims, and up to sixty acts of one actor each in any order; then everybody
//! acts in turn. The 1,000 cases are some 30,000 states before that, and as many after it.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::{GI, PodModel, World};
use crate::volumes::{ClaimWaitKind, Class};

#[derive(Clone, Debug)]
enum Act {
    Scheduler(usize, bool),
    Manager(usize),
    Controller(usize),
    Agent(usize),
    Kubelet(usize),
    Report(usize),
    Publish,
    Pass(u64),
    DeletePod(usize),
    Free(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let any = 0..8_usize;
    prop_oneof![
        6 => (any.clone(), prop::bool::weighted(0.2)).prop_map(|(n, c)| Act::Scheduler(n, c)),
        4 => any.clone().prop_map(Act::Manager),
        6 => any.clone().prop_map(Act::Controller),
        4 => any.clone().prop_map(Act::Agent),
        1 => any.clone().prop_map(Act::Kubelet),
        2 => any.clone().prop_map(Act::Report),
        2 => Just(Act::Publish),
        2 => (1..30_u64).prop_map(Act::Pass),
        1 => any.clone().prop_map(Act::DeletePod),
        1 => any.prop_map(Act::Free),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let pool = (1..4_usize, 2..12_u64, 0..6_u64);
    let claim = (1..7_u64, 0..10_u8);
    let pod = (
        prop::collection::btree_set(0..5_usize, 1..3),
        prop::collection::btree_set(1..5_usize, 0..3),
        prop::option::of(1..4_usize),
        prop::option::weighted(0.15, 1..5_usize),
    );
    (
        prop::collection::vec(pool, 1..5),
        prop::collection::vec(claim, 1..6),
        prop::collection::vec(pod, 1..5),
    )
        .prop_map(|(pools, claims, pods)| {
            let mut text = String::new();
            for (i, (node, capacity, rest)) in pools.iter().enumerate() {
                text += &format!("pool p{i} n{node} {capacity} {}\n", rest.min(capacity));
            }
            for (i, (size, kind)) in claims.iter().enumerate() {
                let kind = match kind {
                    0 | 1 => "now",
                    2 => "berth many",
                    _ => "berth",
                };
                text += &format!("claim c{i} {size} {kind}\n");
            }
            let mut world = World::new(&text);
            for (i, (uses, allowed, prefers, node)) in pods.into_iter().enumerate() {
                let name = |n: usize| format!("n{n}");
                let pod = PodModel {
                    claims: uses
                        .iter()
                        .map(|c| format!("c{}", c % claims.len()))
                        .collect::<BTreeSet<_>>()
                        .into_iter()
                        .collect(),
                    allowed: allowed.into_iter().map(name).collect(),
                    prefers: prefers.map(name),
                    node: node.map(name),
                    runs: false,
                };
                world.pods.insert(format!("x{i}"), pod);
            }
            world
        })
}

fn nth<T: Clone>(all: impl Iterator<Item = T>, n: usize) -> Option<T> {
    let all: Vec<T> = all.collect();
    (!all.is_empty()).then(|| all[n % all.len()].clone())
}

fn apply(world: &mut World, act: &Act) {
    let pod = |world: &World, n| nth(world.pods.keys().cloned(), n);
    let claim = |world: &World, n| nth(world.claims.keys().cloned(), n).expect("a claim");
    let pool = |world: &World, n| nth(world.pools.keys().cloned(), n).expect("a pool");
    match *act {
        Act::Scheduler(n, crash) => {
            if let Some(pod) = pod(world, n) {
                world.scheduler(&pod, crash);
            }
        }
        Act::Kubelet(n) => {
            if let Some(pod) = pod(world, n) {
                world.kubelet(&pod);
            }
        }
        Act::Manager(n) => world.manager(&claim(world, n)),
        Act::Controller(n) => world.controller(&claim(world, n)),
        Act::Agent(n) => {
            if let Some(volume) = nth(world.volume_names().into_iter(), n) {
                world.agent(&volume);
            }
        }
        Act::Report(n) => world.report(&pool(world, n)),
        Act::Publish => world.publish(),
        Act::Pass(seconds) => world.pass(seconds),
        Act::DeletePod(n) => {
            if let Some(pod) = pod(world, n).filter(|_| world.pods.len() > 1) {
                world.pods.remove(&pod);
            }
        }
        Act::Free(n) => world.pools.get_mut(&pool(world, n)).expect("there").rest = 0,
    }
}

/// Whether the pod's claims that are not bound fit into the pools of `node` that have
/// `free` bytes left: the largest first, which is right for so few.
fn fits(world: &World, pod: &PodModel, node: &str) -> bool {
    let mut free: Vec<u64> = world
        .pools
        .values()
        .filter(|p| p.node == node)
        .map(|p| p.free())
        .collect();
    let mut sizes: Vec<u64> = Vec::new();
    for name in &pod.claims {
        match world.node_of(name) {
            Some(home) if home == node => {}
            Some(_) => return false,
            None => sizes.push(crate::volumes::claim::size(&world.claims[name]).unwrap_or(GI)),
        }
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.iter().all(|size| {
        free.sort_unstable_by(|a, b| b.cmp(a));
        let first = free.first_mut().filter(|free| **free >= *size);
        first.map(|free| *free -= size).is_some()
    })
}

/// Whether the pod could run, all others staying as they are.
fn could_run(world: &World, pod: &PodModel) -> bool {
    let refused = |name: &String| {
        crate::volumes::claim::refusal(&world.claims[name], &Class::default()).is_some()
            && !world.is_bound(name)
    };
    let allowed = |node: &&String| match &pod.node {
        Some(its) => its == *node,
        None => pod.allowed.is_empty() || pod.allowed.contains(*node),
    };
    !pod.claims.iter().any(refused)
        && world
            .nodes
            .keys()
            .filter(allowed)
            .any(|node| fits(world, pod, node))
}

fn judge(world: &World) -> Result<(), String> {
    for (name, pod) in &world.pods {
        if !pod.runs && could_run(world, pod) {
            return Err(format!("pod {name} could run and does not"));
        }
    }
    for (name, claim) in &world.claims {
        let mut users = world
            .pods
            .values()
            .filter(|pod| pod.claims.contains(name))
            .peekable();
        if world.is_bound(name) || users.peek().is_none() {
            continue;
        }
        let reason = |name: &str| {
            let wait = world.waits.get(name)?;
            (wait.kind != ClaimWaitKind::InProgress).then_some(())
        };
        // A claim may point to another claim that says what to do.
        let points = || {
            let text = &world.waits.get(name)?.text;
            let (_, other) = text.split_once("waiting for the pod's other claim ")?;
            reason(other)
        };
        let told = reason(name).or_else(points).is_some();
        // The scheduler says so at the pod where no node is possible by its own rules.
        let by_scheduler = users.all(|pod| pod.node.is_none() && world.feasible(pod).is_empty());
        if !told && !by_scheduler {
            let wait = world.waits.get(name);
            return Err(format!(
                "{name} waits without a word: {wait:?} {:?}",
                claim.metadata.annotations
            ));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn claims_end_bound_or_with_a_reason(mut world in world(), acts in prop::collection::vec(act(), 0..60)) {
        for act in &acts {
            apply(&mut world, act);
            world.check();
        }
        let start = format!("{:?} {:?}", world.pods, world.pools);
        let mut verdict = Ok(());
        for turn in 0..200 {
            world.round(turn);
            world.check();
            verdict = judge(&world);
            if verdict.is_ok() && turn > 30 {
                break;
            }
        }
        prop_assert!(verdict.is_ok(), "{}\n{start}\n{}", verdict.unwrap_err(), world.log.join("\n"));
    }
}
