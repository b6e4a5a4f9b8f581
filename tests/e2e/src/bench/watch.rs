//! Watches of claims, Volumes, PVs and pods, which write down when something was first
//! seen of a claim. One clock tells all times, that of the program that measures.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use berth_api::{Volume, VolumePhase, names};
use berth_cluster::progress;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, ResourceExt,
    runtime::watcher::{self, watcher},
};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

use super::{
    NAMESPACE,
    timeline::{Event, Moment, reached},
};
use crate::ctx::Ctx;

/// How long nothing may happen before a burst counts as stuck.
const STUCK: Duration = Duration::from_secs(300);

/// What the watches have seen since the last burst began.
#[derive(Clone)]
struct Seen {
    begun: Instant,
    events: Vec<Event>,
}

/// Watches that run until this value is dropped.
pub struct Watches {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watches {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Watches {
    /// Begins to watch.
    pub fn begin(ctx: &Ctx) -> Self {
        let seen = Arc::new(Mutex::new(Seen {
            begun: Instant::now(),
            events: Vec::new(),
        }));
        let client = || ctx.client.clone();
        let tasks = vec![
            watch(ctx.claims(NAMESPACE), &seen, claim),
            watch(Api::all(client()), &seen, volume),
            watch(Api::all(client()), &seen, pv),
            watch(ctx.pods(NAMESPACE), &seen, pod),
        ];
        Self { seen, tasks }
    }

    /// Forgets what was seen: a burst begins now.
    ///
    /// # Errors
    /// When a watch has panicked.
    pub fn start(&self) -> Result<()> {
        let mut seen = self.lock()?;
        seen.begun = Instant::now();
        seen.events.clear();
        Ok(())
    }

    /// Waits until this many claims have reached a moment; everything that was seen.
    ///
    /// # Errors
    /// When nothing more happens for minutes.
    pub async fn reach(&self, moment: Moment, claims: usize) -> Result<Vec<Event>> {
        let mut last = (0, Instant::now());
        let mut told = Instant::now();
        loop {
            let seen = self.lock()?.clone();
            let there = reached(&seen.events, moment);
            if there >= claims {
                return Ok(seen.events);
            }
            if seen.events.len() != last.0 {
                last = (seen.events.len(), Instant::now());
            }
            if last.1.elapsed() > STUCK {
                bail!(
                    "{there} of {claims} claims reached {moment:?}, and nothing happened for {} s: \
                     kubectl -n {NAMESPACE} get events tells more",
                    STUCK.as_secs()
                );
            }
            if told.elapsed() > Duration::from_secs(20) {
                told = Instant::now();
                progress::say(format!("{there} of {claims} claims: {moment:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn lock(&self) -> Result<std::sync::MutexGuard<'_, Seen>> {
        self.seen.lock().map_err(|_| anyhow!("a watch panicked"))
    }
}

/// Of which claim something was seen, and what.
type Sight = (String, Vec<Moment>);

fn claim(claim: &PersistentVolumeClaim) -> Option<Sight> {
    let mut moments = Vec::new();
    if claim.annotations().contains_key(names::SELECTED_NODE) {
        moments.push(Moment::NodeSelected);
    }
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
        moments.push(Moment::Bound);
    }
    Some((claim.name_any(), moments))
}

fn volume(volume: &Volume) -> Option<Sight> {
    let mut moments = vec![Moment::VolumeMade];
    let phase = volume.status.as_ref().map(|s| s.phase);
    if phase == Some(VolumePhase::Ready) {
        moments.push(Moment::VolumeReady);
    }
    let claim = &volume.spec.claim;
    (claim.namespace == NAMESPACE).then(|| (claim.name.clone(), moments))
}

fn pv(pv: &PersistentVolume) -> Option<Sight> {
    let claim = pv.spec.as_ref()?.claim_ref.as_ref()?;
    let here = claim.namespace.as_deref() == Some(NAMESPACE);
    Some((claim.name.clone().filter(|_| here)?, vec![Moment::PvMade]))
}

fn pod(pod: &Pod) -> Option<Sight> {
    let claim = pod.name_any().strip_prefix("user-of-")?.to_owned();
    let running = pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running");
    running.then(|| (claim, vec![Moment::Running]))
}

fn watch<K>(api: Api<K>, seen: &Arc<Mutex<Seen>>, look: fn(&K) -> Option<Sight>) -> JoinHandle<()>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
        loop {
            let object = match events.try_next().await {
                Ok(Some(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => {
                    object
                }
                Ok(Some(_)) => continue,
                Ok(None) => return,
                // The watch begins anew by itself.
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let now = Instant::now();
            let (Some((claim, moments)), Ok(mut seen)) = (look(&object), seen.lock()) else {
                continue;
            };
            let at = now.saturating_duration_since(seen.begun);
            for moment in moments {
                let claim = claim.clone();
                let known = |e: &Event| e.claim == claim && e.moment == moment;
                if !seen.events.iter().any(known) {
                    seen.events.push(Event { claim, moment, at });
                }
            }
        }
    })
}
