//! Claims and the pods that use them: what concerns one claim of a pod concerns the pod's
//! other claims, since they are placed together.

use std::sync::Arc;

use super::{
    pod::{self, Pod},
    state::ClusterState,
};

impl ClusterState {
    /// Marks the other claims of the pods that use a claim: they are placed together.
    pub(super) fn touch_peers(&mut self, namespace: &str, name: &str) {
        for pod in self.pods_of(namespace, name) {
            for peer in pod::claims(&pod) {
                if peer != name {
                    self.touch_claim(namespace, &peer);
                }
            }
        }
    }

    /// Pods that use a claim.
    pub(super) fn pods_of(&self, namespace: &str, name: &str) -> Vec<Arc<Pod>> {
        let key = (namespace.to_owned(), name.to_owned());
        let pods = self.pods_by_claim.get(&key).into_iter().flatten();
        pods.filter_map(|pod| self.pods.get(namespace, pod).cloned())
            .collect()
    }
}
