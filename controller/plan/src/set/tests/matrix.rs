//! The scenario groups of Kubernetes' own unit tests of StatefulSet, each under
//! both kinds, both pod management policies and every retention policy, with the
//! invariants checked after every round.

use std::sync::Arc;

use serde_json::{Value, json};

use super::model::World;
use crate::set::{Action, Kind, Pod, PodPhase, plan};

/// Both kinds x both policies x no retention policy and the four.
fn everywhere(scenario: impl Fn(&mut Scene)) {
    let mut retention = vec![Value::Null];
    for scaled in ["Retain", "Delete"] {
        for deleted in ["Retain", "Delete"] {
            retention.push(json!({"whenScaled": scaled, "whenDeleted": deleted}));
        }
    }
    for kind in [Kind::OrdinalSet, Kind::StatefulSet] {
        for policy in ["OrderedReady", "Parallel"] {
            for retention in &retention {
                let mut world = World::new(json!({
                    "podManagementPolicy": policy,
                    "persistentVolumeClaimRetentionPolicy": retention,
                }));
                world.view.set.kind = kind;
                scenario(&mut Scene { world });
            }
        }
    }
}

/// A world whose every round is looked at.
struct Scene {
    world: World,
}

impl Scene {
    fn ordered(&self) -> bool {
        self.world.view.set.ordered()
    }

    /// One round, one move of the kubelets, then the invariants.
    fn round(&mut self) {
        self.world.step();
        self.check();
        self.world.kubelets();
        self.check();
    }

    fn check(&self) {
        let (world, set) = (&self.world, &self.world.view.set);
        for pod in &world.view.pods {
            let ordinal = set.ordinal(&pod.name).unwrap();
            let labels = &pod.labels;
            assert_eq!(labels["statefulset.kubernetes.io/pod-name"], pod.name);
            assert_eq!(labels["apps.kubernetes.io/pod-index"], ordinal.to_string());
            assert_eq!(pod.claims["data"], format!("data-web-{ordinal}"));
        }
    }

    fn settle(&mut self) {
        self.world.settle();
        self.check();
        let set = &self.world.view.set;
        let mut found: Vec<i32> = (self.world.view.pods.iter())
            .map(|p| set.ordinal(&p.name).unwrap())
            .collect();
        found.sort_unstable();
        assert_eq!(found, set.wanted().collect::<Vec<_>>());
        assert!(plan(&self.world.view).steps.is_empty());
    }

    fn scale(&mut self, replicas: i32) {
        self.world.change(json!({"replicas": replicas}));
    }

    fn uid(&self, ordinal: i32) -> String {
        self.world
            .pod(ordinal)
            .map(|p| p.uid.clone())
            .unwrap_or_default()
    }

    fn revisions(&self) -> Vec<&str> {
        let mut pods: Vec<&Arc<Pod>> = self.world.view.pods.iter().collect();
        pods.sort_by_key(|p| self.world.view.set.ordinal(&p.name));
        pods.into_iter().map(|p| p.revision()).collect()
    }
}

#[test]
fn pods_are_created_in_order_or_at_once() {
    everywhere(|scene| {
        scene.scale(5);
        for _ in 0..40 {
            scene.round();
            if scene.ordered() {
                let view = &scene.world.view;
                let up =
                    (0..5).take_while(|o| scene.world.pod(*o).is_some_and(|p| p.available(view)));
                let up = i32::try_from(up.count()).unwrap();
                assert!((up + 1..5).all(|o| scene.world.pod(o).is_none()));
            }
        }
        scene.settle();
        let status = &scene.world.view.set.status;
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.updated_replicas
            ),
            (5, 5, 5)
        );
    });
}

#[test]
fn sets_grow_and_shrink() {
    everywhere(|scene| {
        scene.settle();
        let first = scene.uid(0);
        for replicas in [4, 1, 5, 0, 2] {
            scene.scale(replicas);
            scene.settle();
            if replicas == 1 {
                assert_eq!(scene.uid(0), first, "who stays is not touched");
            }
            let claims = scene.world.view.claims.len();
            let wanted = usize::try_from(replicas).unwrap();
            match scene.world.view.set.delete_when_scaled() {
                true => assert_eq!(claims, wanted),
                false => assert!(claims >= wanted),
            }
        }
    });
}

/// A pod that vanishes, and one that ends, is replaced under its own claim; one
/// deletion, and nothing is created before the pod is gone.
#[test]
fn lost_and_ended_pods_are_replaced() {
    for phase in [None, Some(PodPhase::Failed), Some(PodPhase::Succeeded)] {
        everywhere(|scene| {
            scene.settle();
            for ordinal in [0, 2, 1] {
                let (before, claims) = (scene.uid(ordinal), scene.world.view.claims.clone());
                scene.world.log.clear();
                match phase {
                    None => scene.world.remove(ordinal),
                    phase => scene.world.edit(ordinal, |p| {
                        p.phase = phase;
                        p.ready = None;
                    }),
                }
                if phase.is_some() {
                    scene.world.step();
                    scene.world.step();
                    let deletions = scene.world.log.iter().filter(|l| l.starts_with("delete"));
                    assert_eq!(deletions.count(), 1, "{:?}", scene.world.log);
                    assert_eq!(scene.uid(ordinal), before, "not before it is gone");
                }
                scene.settle();
                assert_ne!(scene.uid(ordinal), before);
                assert_eq!(scene.world.view.claims, claims, "with its own claim");
            }
        });
    }
}

/// Writes that fail, each in turn, change nothing but the time it takes.
#[test]
fn failed_writes_are_tried_again() {
    let failing = |fails: fn(&Action) -> bool| {
        everywhere(|scene| {
            scene.settle();
            scene.world.image("two");
            scene.scale(4);
            scene.world.edit(1, |p| p.phase = Some(PodPhase::Failed));
            for round in 0..200 {
                let plan = plan(&scene.world.view);
                scene.world.check(&plan);
                let mut failed = false;
                for step in plan.steps {
                    // Every other write of the kind fails.
                    if fails(&step.action) && round % 2 == 0 {
                        failed = true;
                    } else {
                        scene.world.apply(step.action);
                    }
                }
                // A status whose write fails is the one of before.
                if !failed {
                    scene.world.view.set.status = plan.status;
                }
                scene.world.kubelets();
                scene.check();
            }
            scene.settle();
        });
    };
    failing(|a| matches!(a, Action::CreatePod { .. }));
    failing(|a| matches!(a, Action::DeletePod { .. }));
    failing(|a| matches!(a, Action::UpdateClaimOwners { .. }));
    failing(|a| matches!(a, Action::CreateRevision { .. }));
}

/// A template changes alone, and together with the size.
#[test]
fn rollouts_end_with_or_without_a_change_of_size() {
    for replicas in [3, 5, 1] {
        everywhere(|scene| {
            scene.settle();
            let old = scene.revisions()[0].to_owned();
            scene.world.image("two");
            scene.scale(replicas);
            scene.settle();
            assert!(scene.revisions().iter().all(|r| *r != old));
            let status = scene.world.view.set.status.clone();
            assert_eq!(status.current_revision, status.update_revision);
            // And back: the old name, not a new one.
            scene.world.image("one");
            scene.settle();
            assert!(scene.revisions().iter().all(|r| *r == old));
            assert_eq!(scene.world.view.revisions.len(), 2);
        });
    }
}

#[test]
fn a_partition_divides_the_set() {
    for partition in 0..=4_usize {
        everywhere(|scene| {
            scene.world.change(json!({"updateStrategy":
                {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}}));
            scene.settle();
            let old = scene.revisions()[0].to_owned();
            scene.world.image("two");
            scene.settle();
            // Whoever dies returns on its own side.
            for ordinal in 0..3 {
                scene.world.remove(ordinal);
                scene.settle();
            }
            for (ordinal, revision) in scene.revisions().into_iter().enumerate() {
                assert_eq!(revision == old, ordinal < partition);
            }
            let status = &scene.world.view.set.status;
            assert_eq!(
                status.current_revision == status.update_revision,
                partition == 0
            );
        });
    }
}

#[test]
fn on_delete_leaves_it_to_people() {
    for replicas in [3, 5, 1] {
        everywhere(|scene| {
            scene
                .world
                .change(json!({"updateStrategy": {"type": "OnDelete"}}));
            scene.settle();
            let old = scene.revisions()[0].to_owned();
            scene.world.image("two");
            scene.scale(replicas);
            scene.settle();
            for (ordinal, revision) in scene.revisions().into_iter().enumerate() {
                assert_eq!(revision == old, ordinal < 3);
            }
            scene.world.remove(0);
            scene.settle();
            assert_ne!(scene.revisions()[0], old);
        });
    }
}

#[test]
fn numbering_starts_where_it_is_told() {
    everywhere(|scene| {
        scene.world.change(json!({"ordinals": {"start": 3}}));
        scene.settle();
        for start in [5, 2, 0] {
            scene.world.change(json!({"ordinals": {"start": start}}));
            scene.settle();
        }
    });
}

/// History of rollouts that nobody needs any more goes, by the limit; a negative
/// one keeps all.
#[test]
fn history_has_its_limit() {
    for (limit, kept) in [(0, 1), (1, 2), (3, 4), (-1, 5)] {
        everywhere(|scene| {
            scene.world.change(json!({"revisionHistoryLimit": limit}));
            scene.settle();
            for image in ["two", "three", "four", "five"] {
                scene.world.image(image);
                scene.settle();
            }
            assert_eq!(scene.world.view.revisions.len(), kept);
        });
    }
}

/// Sizes of a parallel set are reached in two rounds.
#[test]
fn a_parallel_set_takes_two_rounds() {
    for (from, to) in [(3, 30), (10, 1), (501, 0), (0, 1000)] {
        let mut world = World::settled(json!({
            "replicas": from, "podManagementPolicy": "Parallel", "volumeClaimTemplates": [],
        }));
        world.change(json!({"replicas": to}));
        for _ in 0..2 {
            world.step();
        }
        let stay = world.view.pods.iter().filter(|p| !p.terminating());
        assert_eq!(stay.count(), usize::try_from(to).unwrap());
    }
}

/// Seconds of readiness gate creation, scaling down and rollouts of an ordered
/// set, and count down by themselves; OnDelete does not look at them.
#[test]
fn availability_takes_its_time() {
    everywhere(|scene| {
        scene
            .world
            .change(json!({"minReadySeconds": 30, "replicas": 2}));
        for _ in 0..6 {
            scene.round();
        }
        let pods = scene.world.view.pods.len();
        assert_eq!(pods, if scene.ordered() { 1 } else { 2 });
        let status = &scene.world.view.set.status;
        assert_eq!(status.available_replicas, 0);
        assert_eq!(plan(&scene.world.view).requeue_after_ms, Some(30_001));
        scene.settle();
        assert_eq!(scene.world.view.set.status.available_replicas, 2);
    });
}
