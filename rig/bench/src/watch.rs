//! The bench's own watch of the pods, cut down to what is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    core::{ApiResource, Object},
    runtime::{WatchStreamExt, watcher},
};
use serde::Deserialize;
use tokio::{sync::Notify, task::JoinHandle};

use crate::{
    objects::{NAMESPACE, ROUND},
    tally::{Seen, Tally},
};

/// Nothing of a pod's spec is read.
#[derive(Clone, Debug, Deserialize)]
struct Spec {}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

type SlimPod = Object<Spec, Status>;

/// The pods' tally, kept by a watch until this is dropped.
#[derive(Debug)]
pub struct PodWatch {
    tally: Arc<Mutex<Tally>>,
    changed: Arc<Notify>,
    task: JoinHandle<()>,
}

impl PodWatch {
    /// Begins to watch.
    pub fn start(client: Client) -> Self {
        let tally = Arc::new(Mutex::new(Tally::new()));
        let changed = Arc::new(Notify::new());
        let task = tokio::spawn(follow(client, tally.clone(), changed.clone()));
        Self {
            tally,
            changed,
            task,
        }
    }

    /// The tally as it is now.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns at the next change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(client: Client, tally: Arc<Mutex<Tally>>, changed: Arc<Notify>) {
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<SlimPod> = Api::namespaced_with(client, NAMESPACE, &resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        // A watch that breaks begins again by itself.
        let Ok(event) = event else { continue };
        let (pod, gone) = match event {
            watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (pod, false),
            watcher::Event::Delete(pod) => (pod, true),
            watcher::Event::Init | watcher::Event::InitDone => continue,
        };
        let name = pod.metadata.name.clone().unwrap_or_default();
        let now = (!gone).then(|| seen(&pod));
        tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(&name, now);
        changed.notify_one();
    }
}

fn seen(pod: &SlimPod) -> Seen {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .into_iter()
        .any(|condition| condition.kind == "Ready" && condition.status == "True");
    let annotations = pod.metadata.annotations.as_ref();
    let round = annotations.and_then(|annotations| annotations.get(ROUND));
    Seen {
        ready: ready && pod.metadata.deletion_timestamp.is_none(),
        round: round.cloned().unwrap_or_default(),
    }
}
