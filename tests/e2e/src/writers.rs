//! Who made the pods of StatefulSets, and who wrote to them: read from the API
//! server's own record, each object's managedFields, while something else goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event},
    },
};
use tokio::task::JoinHandle;

/// How many pods each manager made, and how many of others' it wrote to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Manager -> pods. Writes of subresources do not count.
    pub made: BTreeMap<String, usize>,
    /// Manager -> pods that it wrote to after they were made.
    pub wrote: BTreeMap<String, usize>,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Tally {
    /// Takes note of a pod as it is now. `made_now` says that a pod seen for the
    /// first time was made just now, and not before anyone looked.
    fn note(&mut self, pod: &ObjectMeta, made_now: bool) {
        let owners = pod.owner_references.iter().flatten();
        let mut sets = owners.filter(|o| o.kind == "StatefulSet" && o.controller == Some(true));
        let uid = pod.uid.clone().unwrap_or_default();
        let managers = writers(pod);
        match self.seen.get_mut(&uid) {
            Some(seen) => {
                for manager in managers.difference(&seen.clone()) {
                    *self.wrote.entry(manager.clone()).or_default() += 1;
                    seen.insert(manager.clone());
                }
            }
            None if sets.next().is_some() => {
                for manager in managers.iter().filter(|_| made_now) {
                    *self.made.entry(manager.clone()).or_default() += 1;
                }
                self.seen.insert(uid, managers);
            }
            None => {}
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, usize>| {
            let parts: Vec<_> = counts.iter().map(|(m, n)| format!("{m} {n}")).collect();
            if parts.is_empty() {
                "nobody".to_owned()
            } else {
                parts.join(", ")
            }
        };
        let (made, wrote) = (list(&self.made), list(&self.wrote));
        write!(
            f,
            "pods of StatefulSets (managedFields): made by {made}; written to later by {wrote}"
        )
    }
}

/// The managers that wrote to the object itself.
pub fn writers(object: &ObjectMeta) -> BTreeSet<String> {
    let entries = object.managed_fields.iter().flatten();
    entries
        .filter(|e| e.subresource.as_deref().unwrap_or_default().is_empty())
        .filter_map(|e| e.manager.clone())
        .collect()
}

/// Watches all pods until it is asked for its tally.
pub struct Watch {
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to watch; returns when pods that stand already are known.
    ///
    /// # Errors
    /// When the watch ends before it began.
    pub async fn start(client: Client) -> anyhow::Result<Self> {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let (ready, begun) = tokio::sync::oneshot::channel();
        let mut ready = Some(ready);
        let pods: Api<PartialObjectMeta<Pod>> = Api::all(client);
        let shared = tally.clone();
        let task = tokio::spawn(async move {
            let events = watcher::watcher(pods, watcher::Config::default());
            let mut events = std::pin::pin!(events.default_backoff());
            while let Some(event) = events.next().await {
                let mut tally = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    // A list made anew stands for events that were missed.
                    Ok(Event::InitApply(pod)) => tally.note(pod.meta(), ready.is_none()),
                    Ok(Event::Apply(pod) | Event::Delete(pod)) => tally.note(pod.meta(), true),
                    Ok(Event::InitDone) => {
                        if let Some(ready) = ready.take() {
                            // Nobody listens any more when the caller has given up.
                            let _ = ready.send(());
                        }
                    }
                    // The watch is begun again by itself.
                    Ok(Event::Init) | Err(_) => {}
                }
            }
        });
        begun.await?;
        Ok(Self { tally, task })
    }

    /// Ends the watch and says what it saw.
    pub fn stop(self) -> Tally {
        self.task.abort();
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, owner: &str, managers: &[(&str, &str)]) -> ObjectMeta {
        let fields: Vec<_> = managers
            .iter()
            .map(|(manager, sub)| json!({"manager": manager, "operation": "Update", "subresource": sub}))
            .collect();
        serde_json::from_value(json!({
            "uid": uid,
            "managedFields": fields,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "a", "uid": "u", "controller": true}],
        }))
        .unwrap()
    }

    #[test]
    fn the_maker_is_who_wrote_first() {
        let mut tally = Tally::default();
        tally.note(&pod("1", "StatefulSet", &[("a", "")]), true);
        let later = [("a", ""), ("b", ""), ("kubelet", "status")];
        for _ in 0..2 {
            tally.note(&pod("1", "StatefulSet", &later), true);
        }
        tally.note(&pod("2", "StatefulSet", &[("a", "")]), true);
        tally.note(&pod("3", "Job", &[("c", "")]), true);
        tally.note(&pod("4", "StatefulSet", &[("old", "")]), false);
        assert_eq!(tally.made, [("a".to_owned(), 2)].into());
        assert_eq!(tally.wrote, [("b".to_owned(), 1)].into());
        assert_eq!(
            tally.to_string(),
            "pods of StatefulSets (managedFields): made by a 2; written to later by b 1"
        );
    }
}
