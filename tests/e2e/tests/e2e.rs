//! Every promise on a real cluster: cluster up, a group that runs side by side,
//! a group that breaks things one at a time, cluster down.
//!
//! `cargo test -p berth-e2e --test e2e -- <filter>` runs some of them.
//! `BERTH_KEEP=1` leaves the cluster running for a look;
//! `BERTH_E2E_CLUSTER=<name>` runs on a cluster that has Berth and pools, and
//! leaves it.

use std::{pin::Pin, process::ExitCode, sync::Arc};

use anyhow::{Context, Result};
use berth_cluster::Cluster;
use berth_e2e::{
    ctx::Ctx,
    evidence, external_storage, install,
    steps::{
        backends, claims, clients, data, disruption, health, limits, lives, network, order, place,
        refusal, rollout, room, shapes, snapshots, tables, tenants, tokens,
    },
};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// Names a cluster to use instead of a new one.
const EXISTING: &str = "BERTH_E2E_CLUSTER";

/// What a test gets: the cluster, and a namespace of its own.
struct World {
    ctx: Ctx,
    cluster: Cluster,
    nodes: Vec<String>,
    runtime: Runtime,
}

type Test = for<'a> fn(&'a World, &'a str) -> Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

macro_rules! tests {
    ($($name:literal: |$w:ident, $ns:ident| $body:expr;)*) => {
        &[$(($name, |$w, $ns| Box::pin($body))),*]
    };
}

const SIDE_BY_SIDE: &[(&str, Test)] = tests! {
    "ordered_create_and_reverse_scale_down": |w, ns| order::ordered_create_and_reverse_scale_down(&w.ctx, ns);
    "rollback_and_restart": |w, ns| rollout::back_forward_restart(&w.ctx, ns);
    "bad_template_is_corrected": |w, ns| rollout::bad_template_is_corrected(&w.ctx, ns);
    "budget_and_partition": |w, ns| rollout::budget_and_partition(&w.ctx, ns);
    "parallel_does_not_wait": |w, ns| order::parallel_does_not_wait(&w.ctx, ns);
    "spread_over_three_nodes": |w, ns| place::spread_over_nodes(&w.ctx, ns);
    "one_node_two_pools": |w, ns| place::one_node_two_pools(&w.ctx, ns, &w.nodes[0]);
    "two_claims_of_one_pod": |w, ns| place::two_claims_one_pod(&w.ctx, ns);
    "native_set_on_the_same_class": |w, ns| place::native_set(&w.ctx, ns, &w.nodes[1]);
    "data_after_pod_delete": |w, ns| data::survives_pod_delete(&w.ctx, ns);
    "data_after_scale_3_1_3": |w, ns| data::survives_scale(&w.ctx, ns);
    "claim_delete_leaves_nothing": |w, ns| data::claim_delete_leaves_nothing(&w.ctx, ns);
    "retain_keeps_data": |w, ns| data::retain_keeps_data(&w.ctx, ns);
    "full_claim_stops_at_its_size": |w, ns| limits::full_claim_stops(&w.ctx, ns, &w.nodes[2]);
    "small_claim_is_rounded_up": |w, ns| limits::small_claim_is_rounded_up(&w.ctx, ns);
    "claim_grows": |w, ns| limits::claim_grows(&w.ctx, ns);
    "image_volume_shows_its_limit": |w, ns| backends::image_volume(&w.ctx, ns);
    "troubles_of_a_volume_are_told": |w, ns| health::troubled_volume(&w.ctx, ns);
    "block_volume_keeps_its_bytes_and_grows": |w, ns| backends::block_volume(&w.ctx, ns);
    "claim_is_copied": |w, ns| backends::claim_is_copied(&w.ctx, ns);
    "snapshot_restores_a_claim": |w, ns| snapshots::snapshot_restores_a_claim(&w.ctx, ns);
    "another_namespaces_data_is_out_of_reach": |w, ns| tenants::another_namespaces_data_is_out_of_reach(&w.ctx, ns);
    "backup_runs_beside_its_replica": |w, ns| lives::backup_beside_its_replica(&w.ctx, ns);
    "claim_is_renamed_through_its_volume": |w, ns| lives::claim_renamed(&w.ctx, ns);
    "populator_hands_a_volume_over": |w, ns| lives::populator_hands_over(&w.ctx, ns);
    "growth_in_vain_is_lowered": |w, ns| lives::growth_in_vain_is_lowered(&w.ctx, ns);
    "what_a_dump_brings_back_stays": |w, ns| lives::what_a_dump_brings_back_stays(&w.ctx, ns);
    "what_has_no_object_is_told": |w, ns| lives::what_has_no_object_is_told(&w.ctx, ns);
    "dns_of_each_ordinal": |w, ns| network::dns(&w.ctx, ns);
    "pod_proxy_and_service": |w, ns| network::proxy_and_service(&w.ctx, ns);
    "table_of_creations": |w, ns| tables::create(&w.ctx, ns);
    "table_of_updates": |w, ns| tables::update(&w.ctx, ns);
    "table_of_statuses": |w, ns| tables::status(&w.ctx, ns);
    "refused_templates_are_told": |w, ns| tables::conditions(&w.ctx, ns);
    "stateful_sets_convert": |w, ns| shapes::convert(&w.ctx, ns);
    "kubectl_knows_sets": |w, ns| clients::kubectl(&w.ctx, ns);
    "autoscaler_scales_a_set": |w, ns| clients::autoscaler(&w.ctx, ns);
    "budget_counts_a_set": |w, ns| clients::budget(&w.ctx, ns);
    "bad_sets_are_refused": |w, ns| refusal::bad_sets(&w.ctx, ns);
    "claim_larger_than_any_pool": |w, ns| refusal::claim_larger_than_any_pool(&w.ctx, ns);
    "unknown_class_parameter": |w, ns| refusal::unknown_parameter(&w.ctx, ns);
    "another_drivers_class": |w, ns| refusal::other_drivers_class(&w.ctx, ns);
    "both_binding_modes_in_one_pod": |w, ns| claims::both_binding_modes(&w.ctx, ns);
    "neighbours_that_cannot_run": |w, ns| claims::neighbours_that_cannot_run(&w.ctx, ns);
    "claims_follow_a_pods_node_name": |w, ns| claims::node_name(&w.ctx, ns, &w.nodes[0]);
    "class_named_by_annotation": |w, ns| claims::class_in_annotation(&w.ctx, ns);
    "mount_options_are_known_or_refused": |w, ns| claims::mount_options(&w.ctx, ns);
    "missing_class_is_named": |w, ns| claims::missing_class(&w.ctx, ns);
    "refused_pod_is_quoted": |w, ns| refusal::refused_pod_is_quoted(&w.ctx, ns);
    "name_conflict": |w, ns| refusal::name_conflict(&w.ctx, ns);
    "agent_token_is_bound_to_its_node": |w, ns| tokens::agent_token_is_bound_to_its_node(&w.ctx, ns);
    "forced_delete_has_one_writer": |w, ns| disruption::forced_delete_has_one_writer(&w.ctx, ns);
};

const ONE_AT_A_TIME: &[(&str, Test)] = tests! {
    "a_burst_takes_what_there_is": |w, ns| room::a_burst_takes_what_there_is(&w.ctx, ns);
    "agent_killed": |w, ns| disruption::agent_killed(&w.ctx, &w.cluster, ns);
    "controller_killed_in_a_scale_out": |w, ns| disruption::controller_killed(&w.ctx, &w.cluster, ns);
    "node_crash_and_return": |w, ns| disruption::node_crash(&w.ctx, &w.cluster, ns);
    "read_only_pool_is_told": |w, _ns| health::read_only_pool(&w.ctx, &w.cluster, &w.nodes[1]);
    "a_silent_disk_stops_only_itself": |w, ns| health::frozen_pool(&w.ctx, &w.cluster, ns, &w.nodes[1]);
    "lost_pool_is_refused": |w, ns| disruption::lost_pool(&w.ctx, &w.cluster, ns, &w.nodes[1]);
    "upstreams_storage_specs": |w, _ns| external_storage::quick(&w.ctx, &w.cluster);
    "crds_deleted_and_reinstalled": |w, ns| disruption::crds_deleted(&w.ctx, ns);
};

fn main() -> ExitCode {
    berth_cluster::take_role();
    let args = Arguments::from_args();
    let any = SIDE_BY_SIDE
        .iter()
        .chain(ONE_AT_A_TIME)
        .any(|(name, _)| wanted(&args, name));
    if args.list || !any {
        let all = SIDE_BY_SIDE.iter().chain(ONE_AT_A_TIME);
        let list = all.map(|(name, _)| Trial::test(*name, || Ok(()))).collect();
        return libtest_mimic::run(&args, list).exit_code();
    }
    let world = match World::build() {
        Ok(world) => Arc::new(world),
        Err(error) => {
            eprintln!("error: the cluster for the tests did not come up: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let first = run(&world, &args, SIDE_BY_SIDE, args.test_threads.unwrap_or(6));
    let second = run(&world, &args, ONE_AT_A_TIME, 1);
    let world = Arc::into_inner(world).expect("the trials are over");
    if std::env::var_os("BERTH_KEEP").is_some() || std::env::var_os(EXISTING).is_some() {
        eprintln!("kept: cargo cluster --name {} status", world.cluster.name());
    } else if let Err(error) = world.cluster.remove() {
        eprintln!("error: the cluster did not go away: {error:#}");
        return ExitCode::FAILURE;
    }
    if first.has_failed() || second.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// The harness's own rule for names on its command line.
fn wanted(args: &Arguments, name: &str) -> bool {
    let matches = |filter: &String| {
        if args.exact {
            name == filter
        } else {
            name.contains(filter)
        }
    };
    args.filter.as_ref().is_none_or(matches) && !args.skip.iter().any(matches)
}

impl World {
    fn build() -> Result<Self> {
        let runtime = Runtime::new()?;
        let cluster = match std::env::var(EXISTING) {
            Ok(name) => Cluster::attach(Some(&name))?,
            Err(_) => berth_e2e::rig::up("t")?,
        };
        let (ctx, nodes) = runtime.block_on(async {
            let ctx = Ctx::of(&cluster).await?;
            install::install(&ctx, None).await?;
            let nodes = install::init_all_pools(&ctx).await?;
            anyhow::Ok((ctx, nodes))
        })?;
        anyhow::ensure!(
            nodes.len() >= 3,
            "three nodes with pools are needed, there are {nodes:?}"
        );
        Ok(Self {
            ctx,
            cluster,
            nodes,
            runtime,
        })
    }

    fn run(&self, name: &str, test: Test) -> Result<(), Failed> {
        let ns = name.replace('_', "-");
        self.runtime.block_on(async {
            let outcome = async {
                self.ctx.create_namespace(&ns).await.context("namespace")?;
                test(self, &ns).await
            }
            .await;
            match outcome {
                Ok(()) => Ok(self.ctx.delete_namespace(&ns).await?),
                Err(error) => {
                    Err(format!("{error:#}\n{}", evidence::of(&self.ctx, &ns).await).into())
                }
            }
        })
    }
}

fn run(
    world: &Arc<World>,
    args: &Arguments,
    tests: &[(&'static str, Test)],
    threads: usize,
) -> libtest_mimic::Conclusion {
    let mut args = args.clone();
    args.test_threads = Some(threads);
    let trials = tests
        .iter()
        .map(|&(name, test)| {
            let world = world.clone();
            Trial::test(name, move || world.run(name, test))
        })
        .collect();
    libtest_mimic::run(&args, trials)
}
