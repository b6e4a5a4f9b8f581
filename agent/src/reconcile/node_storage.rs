//! Writes what the node's pools are into its NodeStorage, when it changed.

use std::{path::Path, sync::Arc, time::Duration};

use berth_api::{Bytes, NodePool, NodeStorage, NodeStorageSpec, NodeStorageStatus, PoolHealth};
use berth_provisioner::{Health, KnownPool, PoolId, PoolReport};
use berth_telemetry::causes;
use futures::StreamExt;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{ApiError, within, words::backend_kind};
use crate::{node::Node, readiness::Readiness};

/// How often the pools are looked at without a reason.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Reads what this node's agent wrote before, in an earlier life.
///
/// # Errors
/// [`ApiError`] when the server does not answer; a missing object is none.
pub async fn known(client: Client, node: &str) -> Result<Vec<KnownPool>, ApiError> {
    let api: Api<NodeStorage> = Api::all(client);
    let object = within(api.get_opt(node)).await?;
    let pools = object
        .and_then(|object| object.status)
        .map(|status| status.pools)
        .unwrap_or_default();
    Ok(remembered(&pools))
}

/// Pools that the node had, healthy or lost: none of them may turn into an empty
/// directory unnoticed.
fn remembered(pools: &[NodePool]) -> Vec<KnownPool> {
    pools
        .iter()
        .filter_map(|pool| {
            let id = PoolId::new(pool.id.as_deref()?).ok()?;
            let dir = Path::new(&pool.path).file_name()?.to_str()?.to_owned();
            let fs_uuid = pool.filesystem_uuid.clone();
            Some(KnownPool { dir, id, fs_uuid })
        })
        .collect()
}

/// What the reports say in the API's words. Free bytes move all the time: they
/// keep their old value until they have moved by a hundredth of the capacity.
pub fn pools(reports: &[PoolReport], old: Option<&NodeStorageStatus>) -> Vec<NodePool> {
    let mut pools: Vec<_> = reports
        .iter()
        .map(|report| {
            let path = report.path.to_string_lossy().into_owned();
            let before = old.and_then(|old| old.pools.iter().find(|pool| pool.path == path));
            let free = match before {
                Some(before) if before.free.0.abs_diff(report.free) <= report.capacity / 100 => {
                    before.free
                }
                _ => Bytes(report.free),
            };
            NodePool {
                id: report.id.as_ref().map(ToString::to_string),
                path,
                health: health(&report.health),
                message: (!report.message.is_empty()).then(|| report.message.clone()),
                filesystem: report.filesystem.clone(),
                filesystem_uuid: report.fs_uuid.clone(),
                backends: report.backends.iter().copied().map(backend_kind).collect(),
                capacity: Bytes(report.capacity),
                reserved: Bytes(report.reserved),
                free,
                volumes: i64::try_from(report.volumes).unwrap_or(i64::MAX),
            }
        })
        .collect();
    pools.sort_by(|a, b| a.path.cmp(&b.path));
    pools
}

/// The API's word for a pool's health.
pub fn health(health: &Health) -> PoolHealth {
    match health {
        Health::Healthy => PoolHealth::Healthy,
        Health::Uninitialized => PoolHealth::Uninitialized,
        Health::LostMount => PoolHealth::LostMount,
        Health::ReadOnly => PoolHealth::ReadOnly,
        Health::Damaged(_) => PoolHealth::Damaged,
        Health::Unsupported(_) => PoolHealth::Unsupported,
    }
}

/// Keeps the object right until the token is cancelled.
pub async fn run(client: Client, node: Node, readiness: Readiness, token: CancellationToken) {
    let api: Api<NodeStorage> = Api::all(client);
    // Someone may delete the object; it is then made again.
    let mut watched =
        std::pin::pin!(watcher::watch_object(api.clone(), &node.name).default_backoff());
    let mut timer = tokio::time::interval(LOOK_AGAIN);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut current: Option<Arc<NodeStorage>> = None;
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = timer.tick() => {}
            () = node.pools_changed() => {}
            Some(seen) = watched.next() => match seen {
                Ok(Some(object)) if is_older(&object, current.as_deref()) => continue,
                Ok(object) => current = object.map(Arc::new),
                Err(error) => {
                    tracing::warn!(error = causes(&error), "watching this node's NodeStorage failed; it is tried again");
                    continue;
                }
            },
        }
        let reports = match node.rescan().await {
            Ok(reports) => reports,
            Err(error) => {
                tracing::error!(%error, "the pools could not be looked at");
                continue;
            }
        };
        node.metrics().pools(&reports);
        match write(&api, &node, current.as_deref(), &reports).await {
            Ok(written) => {
                if let Some(object) = written {
                    node.metrics().status_written();
                    current = Some(Arc::new(object));
                }
                readiness.set_reported();
            }
            // Read again before the next try, whoever wrote it.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                current = within(api.get_opt(&node.name))
                    .await
                    .ok()
                    .flatten()
                    .map(Arc::new);
            }
            Err(error) => {
                tracing::warn!(
                    error = causes(&error),
                    "this node's NodeStorage is not written; it is tried again"
                );
            }
        }
    }
}

/// Writes the object if it does not say all that yet.
async fn write(
    api: &Api<NodeStorage>,
    node: &Node,
    current: Option<&NodeStorage>,
    reports: &[PoolReport],
) -> Result<Option<NodeStorage>, ApiError> {
    let parameters = PostParams::default();
    let made;
    let object = match current {
        Some(object) => object,
        None => {
            let new = NodeStorage::new(&node.name, NodeStorageSpec::default());
            made = match within(api.create(&parameters, &new)).await {
                Err(error) if error.is_already_exists() => within(api.get(&node.name)).await?,
                answer => answer?,
            };
            &made
        }
    };
    let status = NodeStorageStatus {
        agent_version: berth_telemetry::version().to_owned(),
        pools: pools(reports, object.status.as_ref()),
    };
    if object.status.as_ref() == Some(&status) {
        return Ok(None);
    }
    let changed = NodeStorage {
        status: Some(status.clone()),
        ..object.clone()
    };
    let written = within(api.replace_status(&node.name, &parameters, &changed)).await?;
    log_health(object.status.as_ref(), &status);
    Ok(Some(written))
}

/// The watch brings our own writes too, and each of them late.
fn is_older(seen: &NodeStorage, current: Option<&NodeStorage>) -> bool {
    let version = |object: &NodeStorage| -> Option<u64> {
        object.metadata.resource_version.as_deref()?.parse().ok()
    };
    match (version(seen), current.and_then(version)) {
        (Some(seen), Some(current)) => seen < current,
        _ => false,
    }
}

fn log_health(old: Option<&NodeStorageStatus>, new: &NodeStorageStatus) {
    for pool in &new.pools {
        let before = old
            .and_then(|old| old.pools.iter().find(|before| before.path == pool.path))
            .map(|before| before.health);
        if before != Some(pool.health) {
            tracing::info!(
                pool = pool.id.as_deref(),
                path = pool.path,
                health = ?pool.health,
                message = pool.message.as_deref(),
                "pool health"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testdata;

    fn status(reports: &[PoolReport]) -> NodeStorageStatus {
        NodeStorageStatus {
            agent_version: "1".to_owned(),
            pools: pools(reports, None),
        }
    }

    #[test]
    fn free_bytes_are_coarse_and_reserved_bytes_exact() {
        let before = testdata::pool(Health::Healthy);
        let old = status(std::slice::from_ref(&before));
        let percent = before.capacity / 100;
        let at = |free: u64, reserved: u64| {
            let now = PoolReport {
                free,
                reserved,
                ..before.clone()
            };
            let pool = pools(&[now], Some(&old)).remove(0);
            (pool.free.0, pool.reserved.0)
        };
        let (free, reserved) = (before.free, before.reserved);
        assert_eq!(at(free - percent, reserved), (free, reserved));
        assert_eq!(
            at(free - percent - 1, reserved + 1),
            (free - percent - 1, reserved + 1)
        );
    }

    #[test]
    fn late_news_is_no_news() {
        let object = |version: &str| {
            let mut object = NodeStorage::new("n", NodeStorageSpec::default());
            object.metadata.resource_version = Some(version.to_owned());
            object
        };
        for (seen, current, older) in [
            ("9", Some("10"), true),
            ("10", Some("10"), false),
            ("11", Some("10"), false),
            ("9", None, false),
            ("opaque", Some("10"), false),
        ] {
            let current = current.map(object);
            assert_eq!(is_older(&object(seen), current.as_ref()), older, "{seen}");
        }
    }

    #[test]
    fn a_lost_mount_is_remembered_for_the_next_life() {
        let lost = testdata::pool(Health::LostMount);
        let fresh = PoolReport {
            id: None,
            path: "/var/lib/berth/pools/new".into(),
            ..testdata::pool(Health::Uninitialized)
        };
        let written = status(&[fresh, lost.clone()]);
        assert_eq!(written.pools[0].path, "/var/lib/berth/pools/disk0");
        assert_eq!(written.pools[0].health, PoolHealth::LostMount);
        assert_eq!(
            remembered(&written.pools),
            [KnownPool {
                dir: "disk0".to_owned(),
                id: lost.id.expect("has one"),
                fs_uuid: lost.fs_uuid,
            }]
        );
    }
}
