//! One measurement: one case, one contender, one fresh control plane.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use berth_cluster::{programs::ControlPlanePrograms, progress};
use futures::{StreamExt, TryStreamExt, stream};
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams, PostParams},
};
use serde::Serialize;

use crate::{
    audit::Writes,
    case::Case,
    contender::Contender,
    objects::{self, NAMESPACE, Shape},
    plane::Plane,
    process::Usage,
    watch::PodWatch,
};

/// Writes are counted once the contender made none for this long: what it tells late counts
/// too.
const QUIET: Duration = Duration::from_secs(4);

/// How often something is said while pods are waited for.
const SAID: Duration = Duration::from_secs(10);

/// Nothing came closer for this long: the contender or something else is stuck.
const STUCK: Duration = Duration::from_secs(180);

/// A cold start is over when the contender used no more than this share of a processor...
const IDLE_SHARE: f64 = 0.04;

/// ... for this long.
const IDLE_FOR: Duration = Duration::from_secs(3);

/// What one measurement came to.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Seconds until the pods were as wanted, as the API server showed them; of a cold
    /// start, until the controller was idle.
    pub seconds: f64,
    /// Seconds until the status of every set said so, where that is waited for.
    pub told: Option<f64>,
    /// Writes from the beginning until the contender was quiet.
    pub writes: Writes,
    /// Processor seconds of the contender in that time.
    pub cpu: f64,
    /// The most resident memory of the contender in that time, in MiB.
    pub peak: f64,
    /// Resident memory of the contender before and after, in MiB.
    pub memory: (f64, f64),
    /// The most pods that were not ready at one moment of a rollout.
    pub most_down: Option<usize>,
    /// Processor seconds of everything else, by process.
    pub others: Vec<(String, f64)>,
    /// The machine's load (one minute) when it began: other work makes figures worse.
    pub load: f64,
}

/// Measures `case`.
///
/// # Errors
/// A program ends, or pods come no closer to what is wanted.
pub async fn run(
    case: Case,
    how: Contender,
    programs: &ControlPlanePrograms,
    nodes: usize,
    keep: bool,
) -> Result<Figures> {
    let side = how.side;
    let mut plane = Plane::start(programs, how, nodes).await?;
    let outcome = measure(case, side, &mut plane).await;
    if keep || outcome.is_err() {
        progress::say(format!("  logs: {}", plane.keep().display()));
    }
    outcome
}

async fn measure(case: Case, side: crate::contender::Side, plane: &mut Plane) -> Result<Figures> {
    plane.start_contender()?;
    plane.wait_for_contender().await?;
    let pods = PodWatch::start(plane.client());
    let mut bench = Bench {
        case,
        sets: Api::namespaced_with(plane.client(), NAMESPACE, &side.kind().resource()),
        kind: side.kind(),
        pods,
        plane,
    };
    match case {
        Case::Parallel(_) | Case::Ordered(_) | Case::Sets { .. } => bench.create().await,
        Case::Rolling { .. } => {
            bench.create().await?;
            bench.roll().await
        }
        Case::Idle { seconds, .. } => {
            bench.create().await?;
            bench.idle(seconds).await
        }
        Case::Cold { .. } => {
            bench.create().await?;
            bench.restart().await
        }
    }
}

struct Bench<'a> {
    case: Case,
    kind: objects::Kind,
    sets: Api<DynamicObject>,
    pods: PodWatch,
    plane: &'a mut Plane,
}

/// What was so when a measurement began.
struct Before {
    at: Instant,
    audit: u64,
    usage: Usage,
    others: Vec<(String, f64)>,
    load: f64,
}

impl Bench<'_> {
    fn before(&self) -> Result<Before> {
        let contender = self.plane.contender()?;
        contender.forget_peak();
        Ok(Before {
            at: Instant::now(),
            audit: self.plane.audit_position()?,
            usage: contender.usage()?,
            others: self.plane.others_cpu()?,
            load: load(),
        })
    }

    /// Makes the sets and waits until their pods are ready.
    async fn create(&mut self) -> Result<Figures> {
        let (sets, wanted) = (self.case.sets(), self.case.pods());
        let shape = Shape {
            replicas: wanted / sets,
            parallel: !matches!(
                self.case,
                Case::Ordered(_) | Case::Rolling { ordered: true, .. }
            ),
            max_unavailable: match self.case {
                Case::Rolling { by, .. } => by,
                _ => 1,
            },
        };
        let manifests = (0..sets).map(|n| objects::set(self.kind, &format!("set{n}"), shape));
        let manifests: Vec<DynamicObject> = manifests
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()?;
        self.pods.tally().aim(wanted, "1");
        let before = self.before()?;
        let (api, post) = (&self.sets, PostParams::default());
        let calls = manifests.iter().map(|set| api.create(&post, set));
        let _: Vec<DynamicObject> = stream::iter(calls)
            .buffer_unordered(32)
            .try_collect()
            .await?;
        let seconds = self.wait_for_pods(&before, wanted).await?;
        let told = self.wait_for_statuses(&before).await?;
        self.finish(before, seconds, Some(told)).await
    }

    /// Changes the template and waits until every pod is of the new one and ready.
    async fn roll(&mut self) -> Result<Figures> {
        let wanted = self.case.pods();
        self.pods.tally().aim(wanted, "2");
        let before = self.before()?;
        let patch = Patch::Merge(objects::next_round("2"));
        let set = "set0";
        self.sets
            .patch(set, &PatchParams::default(), &patch)
            .await?;
        let seconds = self.wait_for_pods(&before, wanted).await?;
        let most_down = self.pods.tally().most_down();
        let told = self.wait_for_statuses(&before).await?;
        let figures = self.finish(before, seconds, Some(told)).await?;
        Ok(Figures {
            most_down: Some(most_down),
            ..figures
        })
    }

    /// Lets time pass.
    async fn idle(&mut self, seconds: u64) -> Result<Figures> {
        // What is told late is told by now, and then some.
        tokio::time::sleep(Duration::from_secs(20)).await;
        let before = self.before()?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        self.plane.check()?;
        let passed = before.at.elapsed().as_secs_f64();
        self.figures(&before, passed, None)
    }

    /// Starts the controller again where everything is as it should be.
    async fn restart(&mut self) -> Result<Figures> {
        self.plane.stop_contender().await?;
        let (audit, others, load) = (
            self.plane.audit_position()?,
            self.plane.others_cpu()?,
            load(),
        );
        let at = Instant::now();
        self.plane.start_contender()?;
        let idle_since = self.wait_for_idle().await?;
        let before = Before {
            at,
            audit,
            usage: Usage::default(),
            others,
            load,
        };
        self.figures(&before, (idle_since - at).as_secs_f64(), None)
    }

    /// Waits until the contender leads and does nothing; since when it has done nothing.
    async fn wait_for_idle(&mut self) -> Result<Instant> {
        let look = Duration::from_millis(250);
        let (mut busy_until, mut cpu) = (Instant::now(), 0.0);
        let begun = Instant::now();
        let mut leads = false;
        while begun.elapsed() < STUCK {
            tokio::time::sleep(look).await;
            self.plane.check()?;
            let now = self.plane.contender()?.usage()?.cpu;
            leads = leads || self.plane.contender_leads().await?;
            if !leads || now - cpu > IDLE_SHARE * look.as_secs_f64() {
                busy_until = Instant::now();
            }
            cpu = now;
            if busy_until.elapsed() > IDLE_FOR {
                return Ok(busy_until);
            }
        }
        bail!("the controller is still busy after {} s", STUCK.as_secs())
    }

    async fn wait_for_pods(&mut self, before: &Before, wanted: usize) -> Result<f64> {
        let (mut said, mut closer) = (Instant::now(), (Instant::now(), 0));
        loop {
            let (complete, done) = {
                let tally = self.pods.tally();
                (tally.is_complete(), tally.done())
            };
            if complete {
                return Ok(before.at.elapsed().as_secs_f64());
            }
            if done > closer.1 {
                closer = (Instant::now(), done);
            }
            if closer.0.elapsed() > STUCK {
                bail!(
                    "{done} of {wanted} pods are ready, and for {} s no other became so",
                    STUCK.as_secs()
                );
            }
            if said.elapsed() > SAID {
                progress::say(format!("  {done} of {wanted} pods"));
                said = Instant::now();
            }
            tokio::select! {
                () = self.pods.changed() => {}
                () = tokio::time::sleep(Duration::from_secs(1)) => self.plane.check()?,
            }
        }
    }

    async fn wait_for_statuses(&mut self, before: &Before) -> Result<f64> {
        let begun = Instant::now();
        loop {
            let sets = self.sets.list(&ListParams::default()).await?.items;
            let mut settled = 0;
            for set in &sets {
                settled += usize::from(objects::is_settled(&serde_json::to_value(set)?));
            }
            if settled == self.case.sets() {
                return Ok(before.at.elapsed().as_secs_f64());
            }
            if begun.elapsed() > STUCK * 4 {
                bail!(
                    "{settled} of {} sets say that they are complete",
                    self.case.sets()
                );
            }
            self.plane.check()?;
            // A list of many sets costs the API server something too.
            let pause = if sets.len() > 1000 { 2000 } else { 100 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The figures, once the contender is quiet.
    async fn finish(&mut self, before: Before, seconds: f64, told: Option<f64>) -> Result<Figures> {
        let (mut writes, mut since) = (0, Instant::now());
        while since.elapsed() < QUIET {
            let now = self.plane.writes_since(before.audit)?.own();
            if now != writes {
                (writes, since) = (now, Instant::now());
            }
            self.plane.check()?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.figures(&before, seconds, told)
    }

    fn figures(&self, before: &Before, seconds: f64, told: Option<f64>) -> Result<Figures> {
        let now = self.plane.contender()?.usage()?;
        let others = self.plane.others_cpu()?.into_iter().zip(&before.others);
        let mib = |kib: u64| kib as f64 / 1024.0;
        Ok(Figures {
            seconds,
            told,
            writes: self.plane.writes_since(before.audit)?,
            cpu: now.cpu - before.usage.cpu,
            peak: mib(now.peak),
            memory: (mib(before.usage.rss), mib(now.rss)),
            most_down: None,
            others: others
                .map(|((name, cpu), (_, old))| (name, cpu - old))
                .collect(),
            load: before.load,
        })
    }
}

/// The machine's load of the last minute: proc_loadavg(5).
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").context("no load");
    let first = text.ok().and_then(|t| t.split(' ').next()?.parse().ok());
    first.unwrap_or_default()
}
