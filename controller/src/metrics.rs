//! What `/metrics` shows of the controller. Labels come from closed enums, never
//! from object names, so a large cluster does not make a large scrape.

use berth_plan::grants::Grant;
use berth_telemetry::Timings;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The loop that did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Loop {
    /// Claims, volumes, pools and capacity.
    Storage,
    /// Sets, their pods and claims.
    Set,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Done.
    Done,
    /// Somebody else was faster; decided anew.
    Conflict,
    /// Failed; tried again.
    Failed,
}

/// Labels of a write.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    /// Which loop wrote.
    pub r#loop: Loop,
    /// How it ended.
    pub outcome: Outcome,
}

/// Labels of a round.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LoopLabels {
    /// Which loop.
    pub r#loop: Loop,
}

/// Labels of pools.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PoolLabels {
    /// Why they can be used or not.
    pub standing: &'static str,
}

/// The controller's metrics.
pub struct Metrics {
    /// 1 while this replica leads.
    pub leader: Gauge,
    /// Writes to the API server.
    pub writes: Family<WriteLabels, Counter>,
    /// From a change seen to the plan made and its writes ended.
    pub rounds: Timings<LoopLabels>,
    /// Volumes by what the controller knows of them.
    pub volumes: Gauge,
    /// Pools by the reason of their Ready condition.
    pub pools: Family<PoolLabels, Gauge>,
    /// Claims that wait for room.
    pub claims_waiting: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("berth_controller");
        let metrics = Self {
            leader: Gauge::default(),
            writes: Family::default(),
            rounds: Timings::register(registry, "round", "Seconds that one round of a loop took"),
            volumes: Gauge::default(),
            pools: Family::default(),
            claims_waiting: Gauge::default(),
        };
        registry.register(
            "leader",
            "1 while this replica leads",
            metrics.leader.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by loop and outcome",
            metrics.writes.clone(),
        );
        registry.register("volumes", "Volume objects", metrics.volumes.clone());
        registry.register(
            "pools",
            "Pools by why they can be used or not: Granted, Cordoned, Unhealthy, LostMount, Missing, Conflict, DeclaredLost",
            metrics.pools.clone(),
        );
        registry.register(
            "claims_waiting",
            "Claims of Berth's classes that wait for room",
            metrics.claims_waiting.clone(),
        );
        metrics
    }

    /// Counts one write.
    pub fn wrote(&self, r#loop: Loop, outcome: Outcome) {
        self.writes
            .get_or_create(&WriteLabels { r#loop, outcome })
            .inc();
    }

    /// Shows how many pools stand how.
    pub fn pools<'a>(&self, grants: impl IntoIterator<Item = &'a Grant>) {
        self.pools.clear();
        for grant in grants {
            let standing = grant.standing.reason();
            self.pools.get_or_create(&PoolLabels { standing }).inc();
        }
    }

    /// Records how long one round took.
    pub fn round(&self, r#loop: Loop, seconds: f64) {
        self.rounds.took(&LoopLabels { r#loop }, seconds);
    }
}
