//! From a change to the sets that it concerns.

use std::sync::Arc;

use futures::{Stream, StreamExt, channel::mpsc::UnboundedSender};
use kube::{
    Api, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event},
    },
};
use tokio::{sync::broadcast::error::RecvError, task::JoinSet};

use super::{Context as Shell, cache::Cached, object::SetObject};

/// Seconds after which a watch is begun anew, so that a dead connection is
/// noticed in about a minute.
const WATCH_SECONDS: u32 = 60;

/// The sets of one kind, and the queue of those that want a round.
pub(super) struct Queue<K: SetObject> {
    pub(super) sets: Store<K>,
    pub(super) requests: UnboundedSender<ObjectRef<K>>,
}

/// Who can be asked for a round of a set, whatever its kind.
pub(super) trait Ask: Send + Sync {
    /// Asks for a round of the set of that name, if there is one.
    fn ask(&self, namespace: &str, set: &str);

    /// Asks for a round of every set.
    fn ask_all(&self);
}

impl<K: SetObject> Ask for Queue<K> {
    fn ask(&self, namespace: &str, set: &str) {
        let set = ObjectRef::new(set).within(namespace);
        if self.sets.get(&set).is_some() {
            // The receiver is gone only when the loop is ending.
            let _ = self.requests.unbounded_send(set);
        }
    }

    fn ask_all(&self) {
        for set in self.sets.state() {
            let _ = self.requests.unbounded_send(ObjectRef::from_obj(&*set));
        }
    }
}

/// The kinds that Berth runs.
pub(super) type Kinds = Arc<Vec<Box<dyn Ask>>>;

/// Starts a watch per kind of what belongs to sets. Each ends at shutdown.
pub(super) fn spawn(tasks: &mut JoinSet<()>, shell: &Arc<Shell>, kinds: &Kinds) {
    let ask = |map: fn(&str) -> Vec<String>| {
        let kinds = kinds.clone();
        move |namespace: &str, name: &str| {
            for set in map(name) {
                kinds.iter().for_each(|kind| kind.ask(namespace, &set));
            }
        }
    };
    tasks.spawn(feed(shell.clone(), |s| &s.caches.pods, ask(parent)));
    tasks.spawn(feed(
        shell.clone(),
        |s| &s.caches.claims,
        ask(claim_parents),
    ));
    tasks.spawn(feed(shell.clone(), |s| &s.caches.revisions, ask(parent)));
    tasks.spawn(watch_waits(
        shell.clone(),
        kinds.clone(),
        ask(claim_parents),
    ));
}

fn events<K>(shell: &Shell) -> impl Stream<Item = Event<K>> + Send + use<K>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let stop = shell.ctx.shutdown.clone();
    watcher::watcher(Api::<K>::all(shell.ctx.client.clone()), config)
        .default_backoff()
        .filter_map(|event| async move {
            event
                .inspect_err(|error| {
                    tracing::warn!(%error, kind = %K::kind(&()), "watch failed, begun anew");
                })
                .ok()
        })
        .take_until(stop.cancelled_owned())
}

async fn feed<T>(
    shell: Arc<Shell>,
    cache: fn(&Shell) -> &super::cache::Cache<T>,
    ask: impl Fn(&str, &str),
) where
    T: Cached,
    T::Source: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + 'static,
{
    let mut events = std::pin::pin!(events::<T::Source>(&shell));
    while let Some(event) = events.next().await {
        for changed in cache(&shell).take(event) {
            let (namespace, name) = changed.key();
            ask(namespace, name);
        }
    }
}

/// Watches the sets of one kind.
pub(super) async fn watch_sets<K: SetObject>(
    shell: Arc<Shell>,
    mut writer: Writer<K>,
    requests: UnboundedSender<ObjectRef<K>>,
) {
    let mut events = std::pin::pin!(events::<K>(&shell));
    while let Some(mut event) = events.next().await {
        if let Event::Apply(set) | Event::InitApply(set) = &mut event {
            let namespace = set.namespace().unwrap_or_default();
            let uid = set.uid().unwrap_or_default();
            shell
                .competing
                .note(&namespace, &set.name_any(), &uid, set.competing());
            // Not read beyond this, and as large as the rest of the object.
            set.managed_fields_mut().clear();
        }
        writer.apply_watcher_event(&event);
        match event {
            Event::Apply(set) | Event::InitApply(set) => {
                let _ = requests.unbounded_send(ObjectRef::from_obj(&set));
            }
            Event::Delete(set) => {
                let namespace = set.namespace().unwrap_or_default();
                shell.states.forget(K::KIND, &namespace, &set.name_any());
                shell.competing.forget(&namespace, &set.name_any());
            }
            Event::Init | Event::InitDone => {}
        }
    }
}

/// The storage loop says why claims wait.
async fn watch_waits(shell: Arc<Shell>, kinds: Kinds, ask: impl Fn(&str, &str)) {
    let mut changes = shell.ctx.waits.subscribe();
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            () = shell.ctx.shutdown.cancelled() => return,
        };
        match change {
            Ok((namespace, claim)) => ask(&namespace, &claim),
            Err(RecvError::Lagged(_)) => kinds.iter().for_each(|kind| kind.ask_all()),
            Err(RecvError::Closed) => return,
        }
    }
}

/// The set of a pod or revision: what stands before the last `-`.
fn parent(name: &str) -> Vec<String> {
    let parent = name.rsplit_once('-');
    parent.map(|(set, _)| set.to_owned()).into_iter().collect()
}

/// The sets that a claim may belong to: templates and sets may both have `-` in
/// their names, so `a-b-c-0` may be of `b-c` or of `c`.
fn claim_parents(name: &str) -> Vec<String> {
    let Some((stem, _)) = name.rsplit_once('-') else {
        return Vec::new();
    };
    stem.match_indices('-')
        .map(|(at, _)| stem[at + 1..].to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_sets() {
        assert_eq!(parent("my-web-12"), ["my-web"]);
        assert!(parent("web").is_empty());
        assert_eq!(claim_parents("data-my-web-0"), ["my-web", "web"]);
        assert!(claim_parents("data-0").is_empty());
    }
}
