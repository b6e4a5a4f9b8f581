//! How much memory the agent and the controller take: idle, and with many volumes on one
//! node. The volumes have no pods: claims of a class whose binding is immediate and whose
//! topology is that node.

use std::time::Duration;

use anyhow::{Context, Result};
use berth_api::names::TOPOLOGY_NODE;
use berth_cluster::progress;
use serde::Serialize;
use serde_json::json;

use super::{
    bursts,
    table::{Table, number},
    timeline::Moment,
    watch::Watches,
};
use crate::{ctx::Ctx, install, steps::data::class_manifest};

/// The class of the claims.
const CLASS: &str = "berth-bench-now";

/// How long the programs are left alone before they are looked at: reports and caches have
/// come to rest.
const REST: Duration = Duration::from_secs(20);

/// Memory of one process, in KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Process {
    /// `berth-agent` or `berth-controller`.
    pub program: String,
    /// Its node.
    pub node: String,
    /// Resident: VmRSS.
    pub resident: u64,
    /// Of it, anonymous: RssAnon. The rest is the program's file, which the node may drop.
    pub anonymous: u64,
    /// The most it ever was: VmHWM.
    pub peak: u64,
}

/// The processes with a number of volumes on the node that is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Volumes on it.
    pub volumes: usize,
    /// The processes of all nodes.
    pub processes: Vec<Process>,
}

/// Looks at the programs as they are started, and with these numbers of volumes on a node.
///
/// # Errors
/// When volumes cannot be made, or a node cannot be looked into.
pub async fn run(ctx: &Ctx, node: &str, volumes: &[usize]) -> Result<Vec<Point>> {
    progress::say("memory: starting agents and controllers anew");
    install::restart(ctx).await?;
    install::ready(ctx).await?;
    let mut class = class_manifest(CLASS, json!({}), "Delete");
    class["volumeBindingMode"] = json!("Immediate");
    class["allowedTopologies"] =
        json!([{"matchLabelExpressions": [{"key": TOPOLOGY_NODE, "values": [node]}]}]);
    ctx.apply(super::NAMESPACE, &class).await?;
    let outcome = measure(ctx, volumes).await;
    ctx.kubectl
        .run(&["delete", "--ignore-not-found", "storageclass", CLASS])
        .await?;
    outcome
}

async fn measure(ctx: &Ctx, volumes: &[usize]) -> Result<Vec<Point>> {
    let mut points = vec![look(ctx, 0).await?];
    let watches = Watches::begin(ctx);
    watches.start()?;
    let mut made = 0;
    for count in volumes {
        progress::say(format!("memory: {count} volumes on one node"));
        let names: Vec<_> = (made..*count).map(|n| format!("still-{n}")).collect();
        bursts::create(ctx, &names, CLASS, false).await?;
        made = *count;
        watches.reach(Moment::Bound, made).await?;
        points.push(look(ctx, made).await?);
    }
    progress::say("memory: deleting the volumes");
    bursts::delete(ctx).await?;
    Ok(points)
}

async fn look(ctx: &Ctx, volumes: usize) -> Result<Point> {
    tokio::time::sleep(REST).await;
    let mut processes = Vec::new();
    for node in ctx.storage_nodes().await? {
        // The kernel keeps 15 bytes of a program's name.
        let script = "for p in /proc/[0-9]*; do \
            case $(cat $p/comm 2>/dev/null) in berth-agent|berth-controlle) \
            echo program $(cat $p/comm); grep -E '^(VmRSS|RssAnon|VmHWM)' $p/status;; esac; done";
        let text = ctx.on_node(&node, &["sh", "-c", script]).await?;
        processes.extend(parse(&text, &node)?);
    }
    Ok(Point { volumes, processes })
}

/// The processes in what the script printed.
fn parse(text: &str, node: &str) -> Result<Vec<Process>> {
    let mut found: Vec<Process> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(key), Some(value)) = (words.next(), words.next()) else {
            continue;
        };
        if key == "program" {
            found.push(Process {
                program: value.replace("berth-controlle", "berth-controller"),
                node: node.to_owned(),
                resident: 0,
                anonymous: 0,
                peak: 0,
            });
            continue;
        }
        let process = found.last_mut().context("a figure before a program")?;
        let value = value
            .parse()
            .with_context(|| format!("{line:?} is no number of KiB"))?;
        match key {
            "VmRSS:" => process.resident = value,
            "RssAnon:" => process.anonymous = value,
            "VmHWM:" => process.peak = value,
            _ => {}
        }
    }
    // A process that ends has no memory.
    found.retain(|process| process.resident > 0);
    Ok(found)
}

/// Whether a process is what is measured: the agent of the node, or any controller.
fn measured(process: &Process, node: &str) -> bool {
    process.program == "berth-controller" || process.node == node
}

/// Resident MiB of the agent of the node, while it had no volume.
pub fn idle_agent(points: &[Point], node: &str) -> Option<f64> {
    let idle = points.iter().find(|point| point.volumes == 0)?;
    let agent = |p: &&Process| p.program == "berth-agent" && p.node == node;
    Some(mib(idle.processes.iter().find(agent)?.resident))
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The table.
pub fn table(points: &[Point], node: &str) -> Table {
    let mut table = Table::new(&["MiB: resident / anonymous / peak", "volumes", "memory"]);
    for program in ["berth-agent", "berth-controller"] {
        for point in points {
            let mut all: Vec<_> = point.processes.iter().collect();
            all.retain(|p| p.program == program && measured(p, node));
            // The controller that leads has the larger caches.
            all.sort_by_key(|p| std::cmp::Reverse(p.anonymous));
            for (at, process) in all.into_iter().enumerate() {
                let standby = if at > 0 { ", standby" } else { "" };
                table.row(vec![
                    format!("{program}{standby}"),
                    point.volumes.to_string(),
                    [process.resident, process.anonymous, process.peak]
                        .map(|kib| number(mib(kib)))
                        .join(" / "),
                ]);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_from_proc() {
        let text = "program berth-agent\nVmHWM:\t 12288 kB\nVmRSS:\t 10240 kB\nRssAnon:\t 2048 kB\n\
                    program berth-controlle\n";
        let found = parse(text, "n1").unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(
            (found[0].resident, found[0].anonymous, found[0].peak),
            (10240, 2048, 12288)
        );
        let points = [Point {
            volumes: 0,
            processes: found,
        }];
        assert_eq!(idle_agent(&points, "n1"), Some(10.0));
        assert_eq!(idle_agent(&points, "n2"), None);
        assert!(
            table(&points, "n1")
                .to_string()
                .contains("10.0 / 2.00 / 12.0")
        );
        assert!(parse("VmRSS: 1 kB", "n1").is_err());
    }
}
