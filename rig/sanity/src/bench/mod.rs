//! What the agent costs: milliseconds of each CSI call beside the operations of the
//! filesystem that it cannot do without, and the memory that the agent takes.
//!
//! Numbers, and no verdict: they depend on the machine. Calls and plain operations
//! take turns in one run, so that their ratio does not depend on it as much.

mod calls;
mod plain;
mod table;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use berth_package::{Arch, programs};
use berth_provisioner::{
    Backend, InitOptions, init_pool,
    testing::{LoopPool, TestNode},
};

use crate::{daemon::Daemon, outside::Filesystem};
use calls::{Client, Volume};
use plain::Plain;
use table::{CLIENTS, MANY, Memory, Row};

/// Bytes of each disk, which is sparse.
const DISK: u64 = 32 << 30;

/// Name of the pool's directory.
const POOL: &str = "disk0";

/// Backends and where they are measured.
const KINDS: [(Backend, Filesystem); 3] = [
    (Backend::Btrfs, Filesystem::Btrfs),
    (Backend::Image, Filesystem::Ext4),
    (Backend::Directory, Filesystem::Xfs),
];

/// Rounds of each of them.
const LOAD: usize = 10;

/// Measures every backend that this machine has, and prints a table for each.
///
/// # Errors
/// What kept it from measuring, a call that failed included.
pub fn run(rounds: usize) -> Result<()> {
    // What is measured is what is shipped.
    let agent = programs::build(Arch::here()?, false)
        .context("cannot build the agent")?
        .agent;
    let runtime = tokio::runtime::Runtime::new().context("cannot start threads")?;
    for (backend, filesystem) in KINDS {
        runtime.block_on(measure(&agent, backend, filesystem, rounds))?;
    }
    Ok(())
}

async fn measure(
    agent: &Path,
    backend: Backend,
    filesystem: Filesystem,
    rounds: usize,
) -> Result<()> {
    let node = TestNode::new();
    let fstype = filesystem.as_str();
    let _pool = node.disk_of(POOL, DISK, fstype, "");
    init_pool(&node.config(), POOL, &InitOptions::default()).context("cannot make a pool")?;
    // A disk of its own for the plain operations: nothing of theirs is in the pool.
    let beside = node.root().with_file_name("plain");
    LoopPool::format(node.root().with_file_name("plain.img"), DISK, fstype, false)
        .mount(&beside, "");
    let plain = Plain::new(backend, &beside)?;

    let socket = node.kubelet().join("plugins/csi.berth.dev/csi.sock");
    let log = node.root().with_file_name("agent.log");
    let daemon = Daemon::start(agent, &node.root(), &node.kubelet(), &socket, log)?;
    let client = Client::connect(&socket, backend).await?;
    client.probe().await?;
    let idle = daemon.resident()?;

    let mut rows: Vec<Row> = Vec::new();
    for round in 0..rounds {
        let volume = Volume::new(&node, &format!("round-{round}"));
        for (n, call) in calls::ROUND.into_iter().enumerate() {
            let started = Instant::now();
            client.call(call, &volume).await?;
            let took = started.elapsed();
            let operation = plain.operation_of(call);
            let plainly = plain.time(operation)?;
            if rows.len() == n {
                rows.push(Row::new(call.as_str(), operation.as_str()));
            }
            rows[n].add(took, plainly);
        }
    }
    let many: Vec<Volume> = (0..MANY)
        .map(|n| Volume::new(&node, &format!("many-{n}")))
        .collect();
    for volume in &many {
        client.call(calls::Call::CreateVolume, volume).await?;
    }
    let memory = Memory {
        idle,
        volumes: daemon.resident()?,
        load: load(&client, &node, &daemon).await?,
    };
    for volume in &many {
        client.call(calls::Call::DeleteVolume, volume).await?;
    }
    table::print(backend, fstype, rounds, &mut rows);
    println!("{memory}\n");
    daemon.stop()
}

/// The most memory that is seen while several clients call.
async fn load(client: &Client, node: &TestNode, daemon: &Daemon) -> Result<u64> {
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..CLIENTS {
        let client = client.clone();
        let volumes: Vec<Volume> = (0..LOAD)
            .map(|round| Volume::new(node, &format!("load-{n}-{round}")))
            .collect();
        clients.spawn(async move {
            for volume in &volumes {
                for call in calls::ROUND {
                    client.call(call, volume).await?;
                }
            }
            anyhow::Ok(())
        });
    }
    let mut most = 0;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            ended = clients.join_next() => match ended {
                Some(ended) => ended.context("a client panicked")??,
                None => return Ok(most),
            },
            _ = tick.tick() => most = most.max(daemon.resident()?),
        }
    }
}
