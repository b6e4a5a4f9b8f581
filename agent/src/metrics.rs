//! What the agent counts. Labels come from closed lists and from pool ids, of
//! which a node has as many as disks; never from names of volumes.

use std::time::Duration;

use berth_provisioner::{PoolId, PoolReport, ProblemKind};
use berth_telemetry::Timings;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Operations on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    missing_docs,
    reason = "each is the CSI or reconcile operation of its name"
)]
pub enum Operation {
    Create,
    Assign,
    Grow,
    Erase,
    Stage,
    Unstage,
    Publish,
    Unpublish,
    Expand,
    Stats,
    Snapshot,
    EraseSnapshot,
}

impl Operation {
    /// Whether what the object reports may have changed by it.
    pub fn changes_volume(self) -> bool {
        !matches!(self, Self::Stats)
    }

    /// Whether no object is to be looked at because of it: the operation is the
    /// reconciler's own, which reports the result itself, or not on a volume.
    pub fn is_reconcilers(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Assign
                | Self::Grow
                | Self::Erase
                | Self::Snapshot
                | Self::EraseSnapshot
        )
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Done.
    Ok,
    /// Refused or failed.
    Error,
    /// Turned away, because another operation on the volume was running.
    Busy,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Done {
    operation: Operation,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Timed {
    operation: Operation,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InPool {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HealthOf {
    pool: String,
    health: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TroubleOf {
    pool: String,
    kind: &'static str,
}

/// The agent's metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    operations: Family<Done, Counter>,
    durations: Timings<Timed>,
    capacity: Family<InPool, Gauge>,
    reserved: Family<InPool, Gauge>,
    free: Family<InPool, Gauge>,
    volumes: Family<InPool, Gauge>,
    trash: Family<InPool, Gauge>,
    io_errors: Family<InPool, Gauge>,
    health: Family<HealthOf, Gauge>,
    troubles: Family<TroubleOf, Gauge>,
    volume_troubles: Family<TroubleOf, Gauge>,
    status_writes: Counter,
}

impl Metrics {
    /// Registers everything under `berth_agent_`.
    pub fn new(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("berth_agent");
        let metrics = Self {
            operations: Family::default(),
            durations: Timings::register(
                registry,
                "volume_operation_duration",
                "How long operations on volumes took",
            ),
            capacity: Family::default(),
            reserved: Family::default(),
            free: Family::default(),
            volumes: Family::default(),
            trash: Family::default(),
            io_errors: Family::default(),
            health: Family::default(),
            troubles: Family::default(),
            volume_troubles: Family::default(),
            status_writes: Counter::default(),
        };
        registry.register(
            "volume_operations",
            "Operations on volumes by how they ended",
            metrics.operations.clone(),
        );
        for (name, help, family) in [
            (
                "pool_capacity",
                "Bytes that volumes may take in all",
                &metrics.capacity,
            ),
            (
                "pool_reserved",
                "Bytes promised to volumes and held by trash",
                &metrics.reserved,
            ),
            (
                "pool_free",
                "Bytes that the filesystem has free",
                &metrics.free,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, family.clone());
        }
        for (name, help, family) in [
            ("pool_volumes", "Volumes in the pool", &metrics.volumes),
            (
                "pool_trash",
                "Deleted volumes and snapshots whose space is not freed yet",
                &metrics.trash,
            ),
            (
                "pool_io_errors",
                "Errors that the pool's filesystem counted since they were reset",
                &metrics.io_errors,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "pool_health",
            "1 for the state that the pool is in: Healthy, LostMount, ReadOnly, Unresponsive, Damaged, Unsupported",
            metrics.health.clone(),
        );
        for (name, help, family) in [
            (
                "pool_troubles",
                "1 for each kind of trouble of a pool that can be used",
                &metrics.troubles,
            ),
            (
                "volume_troubles",
                "Volumes that can be used and have this kind of trouble",
                &metrics.volume_troubles,
            ),
        ] {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "status_writes",
            "Writes of statuses to the API server",
            metrics.status_writes.clone(),
        );
        metrics
    }

    /// Counts an operation that ran.
    pub fn done(&self, operation: Operation, outcome: Outcome, took: Duration) {
        self.operations
            .get_or_create(&Done { operation, outcome })
            .inc();
        let seconds = took.as_secs_f64();
        self.durations.took(&Timed { operation }, seconds);
    }

    /// Counts an operation that was turned away.
    pub fn refused(&self, operation: Operation) {
        let outcome = Outcome::Busy;
        self.operations
            .get_or_create(&Done { operation, outcome })
            .inc();
    }

    /// Counts a write of a status.
    pub fn status_written(&self) {
        self.status_writes.inc();
    }

    /// Shows how many volumes have which troubles.
    pub fn volumes(&self, troubles: impl IntoIterator<Item = (PoolId, ProblemKind)>) {
        self.volume_troubles.clear();
        for (pool, kind) in troubles {
            let labels = TroubleOf::new(&pool, kind);
            self.volume_troubles.get_or_create(&labels).inc();
        }
    }

    /// Shows the pools as they are now; pools that went away are forgotten.
    pub fn pools(&self, reports: &[PoolReport]) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for family in [
            &self.capacity,
            &self.reserved,
            &self.free,
            &self.volumes,
            &self.trash,
            &self.io_errors,
        ] {
            family.clear();
        }
        self.health.clear();
        self.troubles.clear();
        for report in reports {
            let Some(id) = &report.id else { continue };
            let pool = InPool {
                pool: id.to_string(),
            };
            let health = HealthOf {
                pool: id.to_string(),
                health: report.health.as_str(),
            };
            self.health.get_or_create(&health).set(1);
            for trouble in &report.troubles {
                self.troubles
                    .get_or_create(&TroubleOf::new(id, trouble.kind))
                    .set(1);
            }
            for (family, value) in [
                (&self.capacity, gauge(report.capacity)),
                (&self.reserved, gauge(report.reserved)),
                (&self.free, gauge(report.free)),
                (&self.volumes, gauge(report.volumes)),
                (&self.trash, gauge(report.trash)),
                (&self.io_errors, gauge(report.io_errors)),
            ] {
                family.get_or_create(&pool).set(value);
            }
        }
    }
}

impl TroubleOf {
    fn new(pool: &PoolId, kind: ProblemKind) -> Self {
        Self {
            pool: pool.to_string(),
            kind: kind.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_provisioner::Health;

    use super::*;

    #[test]
    fn pools_that_went_away_are_forgotten() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        metrics.done(Operation::Publish, Outcome::Ok, Duration::from_millis(2));
        metrics.refused(Operation::Publish);
        metrics.pools(&[crate::testdata::pool(Health::Healthy)]);
        let show = |registry: &Registry| {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, registry).expect("encodes");
            text
        };
        let text = show(&registry);
        for line in [
            "berth_agent_volume_operations_total{operation=\"Publish\",outcome=\"Ok\"} 1",
            "berth_agent_volume_operations_total{operation=\"Publish\",outcome=\"Busy\"} 1",
            "berth_agent_pool_capacity_bytes{pool=\"disk0-0123456789ab\"} 107374182400",
            "berth_agent_pool_health{pool=\"disk0-0123456789ab\",health=\"Healthy\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.pools(&[PoolReport {
            troubles: vec![berth_provisioner::Problem {
                kind: ProblemKind::IoErrors,
                message: String::new(),
            }],
            io_errors: 3,
            ..crate::testdata::pool(Health::ReadOnly)
        }]);
        let text = show(&registry);
        assert!(!text.contains("\"Healthy\""), "{text}");
        for line in [
            "pool_health{pool=\"disk0-0123456789ab\",health=\"ReadOnly\"} 1",
            "pool_troubles{pool=\"disk0-0123456789ab\",kind=\"IoErrors\"} 1",
            "pool_io_errors{pool=\"disk0-0123456789ab\"} 3",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        metrics.pools(&[]);
        assert!(!show(&registry).contains("disk0"));
    }
}
