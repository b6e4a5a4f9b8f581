//! What the watches have seen, cut down to what decisions need: a pod is some
//! hundred bytes here instead of some thousand.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock},
};

use berth_plan::set::{Claim, Pod, Revision};
use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

/// Objects of one kind.
pub(super) trait Cached: PartialEq + Clone + Send + Sync + 'static {
    /// The whole object, as the API server sends it.
    type Source: ResourceExt;

    /// What is kept of it.
    fn keep(source: &Self::Source) -> Self;

    /// Namespace and name.
    fn key(&self) -> (&str, &str);

    /// The version, which says nothing that a decision reads.
    fn version(&mut self) -> &mut String;

    /// Whether a decision could differ.
    fn differs(&self, other: &Self) -> bool {
        let mut same = other.clone();
        let mut mine = self.clone();
        same.version().clear();
        mine.version().clear();
        same != mine
    }
}

macro_rules! cached {
    ($kept:ty, $source:ty) => {
        impl Cached for $kept {
            type Source = $source;

            fn keep(source: &$source) -> Self {
                Self::from(source)
            }

            fn key(&self) -> (&str, &str) {
                (&self.namespace, &self.name)
            }

            fn version(&mut self) -> &mut String {
                &mut self.resource_version
            }
        }
    };
}

cached!(Pod, k8s_openapi::api::core::v1::Pod);
cached!(Claim, k8s_openapi::api::core::v1::PersistentVolumeClaim);
cached!(Revision, k8s_openapi::api::apps::v1::ControllerRevision);

type Objects<T> = BTreeMap<String, BTreeMap<String, Arc<T>>>;

/// Objects of one kind, by namespace and name.
pub(super) struct Cache<T> {
    inner: RwLock<Inner<T>>,
    ready: watch::Sender<bool>,
}

struct Inner<T> {
    objects: Objects<T>,
    /// The list that is being read after a watch began anew.
    listing: Option<Objects<T>>,
    /// The highest version that was seen.
    seen: u64,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(Inner {
                objects: BTreeMap::new(),
                listing: None,
                seen: 0,
            }),
            ready: watch::Sender::new(false),
        }
    }
}

impl<T: Cached> Cache<T> {
    /// Takes in an event; what changed in a way that a decision could read.
    pub(super) fn take(&self, event: Event<T::Source>) -> Vec<Arc<T>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Event::Apply(o) | Event::InitApply(o) | Event::Delete(o) = &event {
            inner.seen = inner.seen.max(version(o.resource_version().as_deref()));
        }
        match event {
            Event::Init => {
                inner.listing = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(source) => {
                let object = Arc::new(T::keep(&source));
                insert(inner.listing.get_or_insert_default(), object);
                Vec::new()
            }
            Event::InitDone => {
                let new = inner.listing.take().unwrap_or_default();
                let old = std::mem::replace(&mut inner.objects, new);
                let changed = difference(&old, &inner.objects);
                drop(inner);
                self.ready.send_replace(true);
                changed
            }
            Event::Apply(source) => {
                let object = Arc::new(T::keep(&source));
                let old = insert(&mut inner.objects, object.clone());
                let news = old.is_none_or(|old| old.differs(&object));
                news.then_some(object).into_iter().collect()
            }
            Event::Delete(source) => {
                let object = Arc::new(T::keep(&source));
                let (namespace, name) = object.key();
                if let Some(objects) = inner.objects.get_mut(namespace) {
                    objects.remove(name);
                    if objects.is_empty() {
                        inner.objects.remove(namespace);
                    }
                }
                vec![object]
            }
        }
    }

    /// The object of a name.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.objects.get(namespace)?.get(name).cloned()
    }

    /// Objects of a namespace whose name begins with `prefix`.
    pub(super) fn with_prefix(&self, namespace: &str, prefix: &str) -> Vec<Arc<T>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let Some(objects) = inner.objects.get(namespace) else {
            return Vec::new();
        };
        let from = objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(|(name, _)| name.starts_with(prefix))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// The highest version that was seen.
    pub(super) fn seen(&self) -> u64 {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .seen
    }

    async fn ready(&self) {
        let mut ready = self.ready.subscribe();
        // The sender lives in self, so waiting cannot fail.
        let _ = ready.wait_for(|ready| *ready).await;
    }
}

fn insert<T: Cached>(objects: &mut Objects<T>, object: Arc<T>) -> Option<Arc<T>> {
    let (namespace, name) = object.key();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    objects.entry(namespace).or_default().insert(name, object)
}

fn difference<T: Cached>(old: &Objects<T>, new: &Objects<T>) -> Vec<Arc<T>> {
    let missing_in = |a: &Objects<T>, b: &Objects<T>| -> Vec<Arc<T>> {
        a.values()
            .flat_map(BTreeMap::values)
            .filter(|object| {
                let (namespace, name) = object.key();
                let other = b.get(namespace).and_then(|objects| objects.get(name));
                other.is_none_or(|other| other.differs(object))
            })
            .cloned()
            .collect()
    };
    let mut changed = missing_in(new, old);
    changed.extend(missing_in(old, new));
    changed
}

/// A resourceVersion as a number; kinds of one API server count upwards
/// (KEP-5504). What is no number counts as seen.
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|t| t.parse().ok()).unwrap_or(0)
}

/// The caches of the loop.
#[derive(Default)]
pub(super) struct Caches {
    pub(super) pods: Cache<Pod>,
    pub(super) claims: Cache<Claim>,
    pub(super) revisions: Cache<Revision>,
}

impl Caches {
    /// Every kind has been listed once.
    pub(super) async fn ready(&self) {
        self.pods.ready().await;
        self.claims.ready().await;
        self.revisions.ready().await;
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1 as core;
    use kube::api::ObjectMeta;

    use super::*;

    fn pod(name: &str, version: &str, label: &str) -> core::Pod {
        core::Pod {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                name: Some(name.into()),
                resource_version: Some(version.into()),
                labels: Some(BTreeMap::from([("app".into(), label.into())])),
                ..ObjectMeta::default()
            },
            ..core::Pod::default()
        }
    }

    fn names(objects: &[Arc<Pod>]) -> Vec<&str> {
        objects.iter().map(|p| p.name.as_str()).collect()
    }

    #[test]
    fn only_news_asks_for_a_round() {
        let cache = Cache::<Pod>::default();
        assert_eq!(
            names(&cache.take(Event::Apply(pod("web-0", "1", "a")))),
            ["web-0"]
        );
        assert!(cache.take(Event::Apply(pod("web-0", "2", "a"))).is_empty());
        assert_eq!(cache.get("ns", "web-0").unwrap().resource_version, "2");
        assert_eq!(
            names(&cache.take(Event::Apply(pod("web-0", "3", "b")))),
            ["web-0"]
        );
        assert_eq!(cache.seen(), 3);
        assert_eq!(
            names(&cache.take(Event::Delete(pod("web-0", "4", "b")))),
            ["web-0"]
        );
        assert!(cache.get("ns", "web-0").is_none());
    }

    #[test]
    fn a_new_list_tells_what_came_and_what_went() {
        let cache = Cache::<Pod>::default();
        for name in ["web-0", "web-1", "web-10", "webby-0"] {
            cache.take(Event::Apply(pod(name, "1", "a")));
        }
        assert_eq!(
            names(&cache.with_prefix("ns", "web-")),
            ["web-0", "web-1", "web-10"]
        );
        cache.take(Event::Init);
        cache.take(Event::InitApply(pod("web-1", "7", "a")));
        cache.take(Event::InitApply(pod("web-2", "8", "a")));
        assert_eq!(
            cache.with_prefix("ns", "web").len(),
            4,
            "not before it is whole"
        );
        let mut changed = cache.take(Event::InitDone);
        changed.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(names(&changed), ["web-0", "web-10", "web-2", "webby-0"]);
        assert_eq!(cache.seen(), 8);
    }
}
