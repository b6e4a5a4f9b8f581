//! What the watches have seen, cut down to what decisions need: a pod is some two
//! thousand bytes here instead of some ten thousand.

use std::sync::Arc;

pub(super) use berth_kube::write::version;
use berth_kube::{
    SharedCache,
    cache::{Change, Kind},
};
use berth_plan::set::{Claim, Pod, Revision};
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1 as core};

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $source:ty => $kept:ty) => {
        $(#[$doc])*
        pub(super) enum $name {}

        impl Kind for $name {
            type Source = $source;
            type Kept = $kept;
            const TAKES_ANSWERS: bool = false;

            fn keep(source: $source) -> $kept {
                <$kept>::from(&source)
            }

            fn key(kept: &$kept) -> (&str, &str) {
                (&kept.namespace, &kept.name)
            }

            fn uid(kept: &$kept) -> &str {
                &kept.uid
            }

            fn version(kept: &$kept) -> u64 {
                version(Some(&kept.resource_version))
            }
        }

        impl Versioned for $kept {
            fn version(&mut self) -> &mut String {
                &mut self.resource_version
            }
        }
    };
}

/// What has a version, which says nothing that a decision reads.
pub(super) trait Versioned: PartialEq + Clone {
    /// The version.
    fn version(&mut self) -> &mut String;
}

kind!(
    /// Pods as the planner sees them.
    Pods, core::Pod => Pod
);
kind!(
    /// Claims as the planner sees them.
    Claims, core::PersistentVolumeClaim => Claim
);
kind!(
    /// Revisions as the planner sees them.
    Revisions, ControllerRevision => Revision
);

/// What changed in a way that a decision could read.
pub(super) fn news<T: Versioned>(changes: Vec<Change<T>>) -> Vec<Arc<T>> {
    let differ = |(old, new): &Change<T>| match (old, new) {
        (Some(old), Some(new)) => !Arc::ptr_eq(old, new) && differs(&**old, &**new),
        _ => true,
    };
    let changes = changes.into_iter().filter(differ);
    changes.filter_map(|(old, new)| new.or(old)).collect()
}

fn differs<T: Versioned>(old: &T, new: &T) -> bool {
    let (mut old, mut new) = (old.clone(), new.clone());
    old.version().clear();
    new.version().clear();
    old != new
}

/// The caches of the loop.
#[derive(Default)]
pub(super) struct Caches {
    pub(super) pods: SharedCache<Pods>,
    pub(super) claims: SharedCache<Claims>,
    pub(super) revisions: SharedCache<Revisions>,
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
    use std::collections::BTreeMap;

    use kube::{api::ObjectMeta, runtime::watcher::Event};

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
        let cache = SharedCache::<Pods>::default();
        assert_eq!(
            names(&news(cache.take(Event::Apply(pod("web-0", "1", "a"))))),
            ["web-0"]
        );
        assert!(news(cache.take(Event::Apply(pod("web-0", "2", "a")))).is_empty());
        assert_eq!(cache.get("ns", "web-0").unwrap().resource_version, "2");
        assert_eq!(
            names(&news(cache.take(Event::Apply(pod("web-0", "3", "b"))))),
            ["web-0"]
        );
        assert_eq!(cache.seen(), 3);
        assert_eq!(
            names(&news(cache.take(Event::Delete(pod("web-0", "4", "b"))))),
            ["web-0"]
        );
        assert!(cache.get("ns", "web-0").is_none());
    }

    #[test]
    fn a_new_list_tells_what_came_and_what_went() {
        let cache = SharedCache::<Pods>::default();
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
        let mut changed = news(cache.take(Event::InitDone));
        changed.sort_by(|a, b| a.name.cmp(&b.name));
        assert_eq!(names(&changed), ["web-0", "web-10", "web-2", "webby-0"]);
        assert_eq!(cache.seen(), 8);
    }
}
