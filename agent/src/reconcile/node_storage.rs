//! Writes what the node's pools are into its NodeStorage, when it changed: what
//! others wait for at once, mere figures together ([`berth_kube::throttle`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use berth_api::{
    Bytes, NodePool, NodeStorage, NodeStorageSpec, NodeStorageStatus, Orphan, PoolHealth, Volume,
};
use berth_kube::{CallError, Urgency, WriteThrottle, process::sleep_until};
use berth_provisioner::{Backend, Health, KnownPool, PoolId, PoolReport};
use berth_telemetry::causes;
use futures::{FutureExt, StreamExt};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, reflector::Store, watcher},
};
use tokio_util::sync::CancellationToken;

use super::{orphans::Orphans, summary, within};
use crate::{disks::Disks, readiness::Readiness};

/// How often the pools are looked at without a reason. A disk that falls silent is known
/// after at most 15 s, and reported at the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Reads what this node's agent wrote before, in an earlier life.
///
/// # Errors
/// [`CallError`] when the server does not answer; a missing object is none.
pub async fn known(client: Client, node: &str) -> Result<Vec<KnownPool>, CallError> {
    let api: Api<NodeStorage> = Api::all(client);
    let object = within(format!("get NodeStorage {node}"), api.get_opt(node)).await?;
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
            let id = report.id.as_ref().map(ToString::to_string);
            // A disk that this process never heard of has the figures that it had before.
            if report.health == Health::Unresponsive
                && report.taken_at.is_empty()
                && let Some(before) = before.filter(|before| before.id == id)
            {
                return NodePool {
                    health: PoolHealth::Unresponsive,
                    message: Some(report.message.clone()),
                    troubles: Vec::new(),
                    ..before.clone()
                };
            }
            let free = match before {
                Some(before) if before.free.0.abs_diff(report.free) <= report.capacity / 100 => {
                    before.free
                }
                _ => Bytes(report.free),
            };
            NodePool {
                id,
                path,
                health: health(&report.health),
                message: (!report.message.is_empty()).then(|| report.message.clone()),
                troubles: report.troubles.clone(),
                filesystem: report.filesystem.clone(),
                filesystem_uuid: report.fs_uuid.clone(),
                backends: report.backends.clone(),
                capacity: Bytes(report.capacity),
                reserved: Bytes(report.reserved),
                reserved_by_volumes: Some(Bytes(report.reserved_by_volumes)),
                room: limited(report).then(|| room(report, before)),
                free,
                volumes: i64::try_from(report.volumes).unwrap_or(i64::MAX),
                orphans: Vec::new(),
            }
        })
        .collect();
    pools.sort_by(|a, b| a.path.cmp(&b.path));
    pools
}

/// Whether the pool makes volumes with a size limit; its room is known only then.
fn limited(report: &PoolReport) -> bool {
    let mut backends = report.backends.iter();
    backends.any(|backend| *backend != Backend::Directory)
}

/// What a new volume would get. It moves with the free bytes: while the promises are the
/// same, it keeps its old value as these do.
fn room(report: &PoolReport, before: Option<&NodePool>) -> Bytes {
    let held = before.filter(|before| before.reserved.0 == report.reserved);
    let held = held.and_then(|before| before.room);
    let near = |held: &Bytes| held.0.abs_diff(report.room) <= report.capacity / 100;
    held.filter(near).unwrap_or(Bytes(report.room))
}

/// The API's word for a pool's health.
pub fn health(health: &Health) -> PoolHealth {
    match health {
        Health::Healthy => PoolHealth::Healthy,
        Health::Uninitialized => PoolHealth::Uninitialized,
        Health::LostMount => PoolHealth::LostMount,
        Health::ReadOnly => PoolHealth::ReadOnly,
        Health::Unresponsive => PoolHealth::Unresponsive,
        Health::Damaged(_) => PoolHealth::Damaged,
        Health::Unsupported(_) => PoolHealth::Unsupported,
    }
}

/// Keeps the object right until the token is cancelled.
/// `volumes` are this node's Volume objects.
pub async fn run(
    client: Client,
    disks: Disks,
    volumes: Store<Volume>,
    readiness: Readiness,
    token: CancellationToken,
) {
    let api: Api<NodeStorage> = Api::all(client);
    // Someone may delete the object; it is then made again.
    let mut watched =
        std::pin::pin!(watcher::watch_object(api.clone(), &disks.node_name).default_backoff());
    let mut timer = tokio::time::interval(LOOK_AGAIN);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut current: Option<Arc<NodeStorage>> = None;
    let mut throttle = WriteThrottle::default();
    let mut due: Option<Instant> = None;
    let mut refused = false;
    let mut orphans = Orphans::default();
    loop {
        tokio::select! {
            () = token.cancelled() => return,
            _ = timer.tick() => {}
            () = sleep_until(due) => {}
            () = disks.pools_changed() => {}
            Some(seen) = watched.next() => match seen {
                Ok(Some(object)) if is_older(&object, current.as_deref()) => continue,
                Ok(object) => current = object.map(Arc::new),
                Err(error) => {
                    tracing::warn!(error = causes(&error), "watching this node's NodeStorage failed; it is tried again");
                    continue;
                }
            },
        }
        due = None;
        let reports = match disks.rescan().await {
            Ok(reports) => reports,
            Err(error) => {
                tracing::error!(%error, "the pools could not be looked at");
                continue;
            }
        };
        disks.metrics().pools(&reports);
        let object = match current.clone() {
            Some(object) => object,
            None => match ensure(&api, &disks.node_name).await {
                Ok(object) => Arc::new(object),
                Err(error) => {
                    warn_unwritten(&error);
                    continue;
                }
            },
        };
        current = Some(object.clone());
        let mut status = status(&reports, object.status.as_ref());
        match named(&volumes) {
            Some(named) => {
                let told = orphans.look(disks.recorded(), &named, Instant::now());
                tell_orphans(&mut status, &told);
            }
            // Until they are known, what was said before stands.
            None => keep_orphans(&mut status, object.status.as_ref()),
        }
        refused |= disks.take_refused();
        let now = Instant::now();
        due = when(object.status.as_ref(), &status, refused, &mut throttle, now);
        refused &= due.is_some();
        if due.is_none_or(|due| due > now) {
            readiness.set_reported();
            continue;
        }
        // What fails is tried again with the timer.
        due = None;
        match write(&api, &object, status).await {
            Ok(object) => {
                throttle.wrote(Instant::now());
                refused = false;
                disks.metrics().status_written();
                current = Some(Arc::new(object));
                readiness.set_reported();
            }
            // Read again before the next try, whoever wrote it.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                current = within(
                    format!("get NodeStorage {}", disks.node_name),
                    api.get_opt(&disks.node_name),
                )
                .await
                .ok()
                .flatten()
                .map(Arc::new);
            }
            Err(error) => warn_unwritten(&error),
        }
    }
}

fn warn_unwritten(error: &CallError) {
    tracing::warn!(
        error = error.chain(),
        "this node's NodeStorage is not written; it is tried again"
    );
}

/// All that there is to say; figures that hardly moved are as the object has them.
fn status(reports: &[PoolReport], old: Option<&NodeStorageStatus>) -> NodeStorageStatus {
    let pools = pools(reports, old);
    NodeStorageStatus {
        agent_version: berth_telemetry::version().to_owned(),
        summary: summary::summary(&pools),
        pools,
    }
}

/// Names of this node's Volume objects; `None` until they were listed.
fn named(volumes: &Store<Volume>) -> Option<BTreeSet<String>> {
    volumes.wait_until_ready().now_or_never()?.ok()?;
    Some(volumes.state().iter().map(|it| it.name_any()).collect())
}

fn tell_orphans(status: &mut NodeStorageStatus, told: &BTreeMap<PoolId, Vec<Orphan>>) {
    for pool in &mut status.pools {
        let id = pool.id.as_deref().and_then(|id| PoolId::new(id).ok());
        let orphans = id.and_then(|id| told.get(&id));
        pool.orphans = orphans.cloned().unwrap_or_default();
    }
}

fn keep_orphans(status: &mut NodeStorageStatus, old: Option<&NodeStorageStatus>) {
    for pool in &mut status.pools {
        let before = old.and_then(|old| old.pools.iter().find(|old| old.id == pool.id));
        pool.orphans = before.map(|pool| pool.orphans.clone()).unwrap_or_default();
    }
}

/// When the object is to be written; never where it says all that already. A
/// volume that was refused for want of room is no time for old figures: the
/// controller is about to place it anew.
fn when(
    old: Option<&NodeStorageStatus>,
    new: &NodeStorageStatus,
    refused: bool,
    throttle: &mut WriteThrottle,
    now: Instant,
) -> Option<Instant> {
    if old == Some(new) {
        throttle.settled();
        return None;
    }
    let urgency = match refused {
        true => Urgency::Now,
        false => summary::urgency(old, new),
    };
    Some(throttle.due(urgency, now))
}

/// The object, which is made where there is none.
async fn ensure(api: &Api<NodeStorage>, name: &str) -> Result<NodeStorage, CallError> {
    let new = NodeStorage::new(name, NodeStorageSpec::default());
    let call = format!("create NodeStorage {name}");
    match within(call, api.create(&PostParams::default(), &new)).await {
        Err(error) if error.is_already_exists() => {
            within(format!("get NodeStorage {name}"), api.get(name)).await
        }
        answer => answer,
    }
}

async fn write(
    api: &Api<NodeStorage>,
    object: &NodeStorage,
    status: NodeStorageStatus,
) -> Result<NodeStorage, CallError> {
    let changed = NodeStorage {
        status: Some(status.clone()),
        ..object.clone()
    };
    let parameters = PostParams::default();
    let name = object.name_any();
    let request = api.replace_status(&name, &parameters, &changed);
    let written = within(format!("write status of NodeStorage {name}"), request).await?;
    log_health(object.status.as_ref(), &status);
    Ok(written)
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
            .map(|before| (before.health, &before.troubles));
        if before != Some((pool.health, &pool.troubles)) {
            tracing::info!(
                pool = pool.id.as_deref(),
                path = pool.path,
                health = ?pool.health,
                message = pool.message.as_deref(),
                troubles = ?pool.troubles,
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
        super::status(reports, None)
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
    fn a_disk_that_is_not_heard_of_keeps_its_figures() {
        let old = status(&[testdata::pool(Health::Healthy)]);
        let report = PoolReport {
            taken_at: String::new(),
            message: "being opened".to_owned(),
            capacity: 0,
            filesystem: String::new(),
            ..testdata::pool(Health::Unresponsive)
        };
        let told = pools(std::slice::from_ref(&report), Some(&old)).remove(0);
        let expected = NodePool {
            health: PoolHealth::Unresponsive,
            message: Some("being opened".to_owned()),
            ..old.pools[0].clone()
        };
        assert_eq!(told, expected);
        // Not those of another pool in its place.
        let other = PoolReport { id: None, ..report };
        assert_eq!(pools(&[other], Some(&old))[0].capacity, Bytes(0));
    }

    #[test]
    fn room_is_coarse_until_something_is_promised() {
        let before = testdata::pool(Health::Healthy);
        let old = status(std::slice::from_ref(&before));
        let percent = before.capacity / 100;
        let at = |less: u64, reserved: u64| {
            let now = PoolReport {
                room: before.room - less,
                reserved,
                ..before.clone()
            };
            let pool = pools(&[now], Some(&old)).remove(0);
            before.room - pool.room.map_or(0, |room| room.0)
        };
        assert_eq!(at(percent, before.reserved), 0);
        assert_eq!(at(percent + 1, before.reserved), percent + 1);
        assert_eq!(at(1, before.reserved + 1), 1);
    }

    #[test]
    fn a_refusal_brings_held_figures_out() {
        let now = Instant::now();
        let old = status(&[testdata::pool(Health::Healthy)]);
        let more = PoolReport {
            reserved: 9 << 30,
            ..testdata::pool(Health::Healthy)
        };
        let new = status(&[more]);
        let mut throttle = WriteThrottle::default();
        assert_eq!(when(Some(&old), &old, true, &mut throttle, now), None);
        let held = when(Some(&old), &new, false, &mut throttle, now);
        assert!(held.is_some_and(|due| due > now));
        assert_eq!(when(Some(&old), &new, true, &mut throttle, now), Some(now));
        assert_eq!(when(None, &new, false, &mut throttle, now), Some(now));
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
