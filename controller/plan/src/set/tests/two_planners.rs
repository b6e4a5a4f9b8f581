//! Two planners run one set, each from what its own watches have shown so far: a
//! leader that lost its lease without knowing it, and its successor. Together
//! they make no second pod of an ordinal and never go below the budget.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::model::World;
use crate::set::{Action, Kind, PodPhase, View, plan};

/// What happens, in any order.
#[derive(Clone, Debug)]
enum Event {
    /// A planner plans, and its writes land.
    Round(usize),
    /// A planner's watch of the set catches up.
    SeeSet(usize),
    /// A planner's watches of what belongs to the set catch up.
    SeePods(usize),
    /// One pod moves on: what terminates goes, what is new becomes ready.
    Kubelet(i32),
    Image(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..2_usize;
    prop_oneof![
        6 => who.clone().prop_map(Event::Round),
        4 => who.clone().prop_map(Event::SeeSet),
        4 => who.prop_map(Event::SeePods),
        6 => (0..5_i32).prop_map(Event::Kubelet),
        1 => (0..3_u8).prop_map(Event::Image),
    ]
}

/// The API server and two planners with views of their own.
struct Two {
    world: World,
    views: [View; 2],
    version: u64,
}

impl Two {
    fn new(kind: Kind, policy: &str, unavailable: i32) -> Two {
        let mut world = World::new(json!({
            "replicas": 5, "podManagementPolicy": policy,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable}},
        }));
        world.view.set.kind = kind;
        world.settle();
        let views = [world.view.clone(), world.view.clone()];
        let version = 100;
        let mut two = Two {
            world,
            views,
            version,
        };
        two.touch_set();
        two
    }

    fn touch_set(&mut self) {
        self.version += 1;
        self.world.view.set.resource_version = self.version.to_string();
    }

    fn round(&mut self, who: usize) {
        let view = &self.views[who];
        let plan = plan(view);
        let steps = match plan.status_first {
            true => Vec::new(),
            false => plan.steps,
        };
        for step in steps {
            self.land(who, step.action);
        }
        // The status lands only on the version of the set that was seen.
        let seen = self.views[who].set.resource_version == self.world.view.set.resource_version;
        if seen && self.world.view.set.status != plan.status {
            self.world.view.set.status = plan.status;
            self.touch_set();
        }
    }

    /// What the API server makes of a write that may be late.
    fn land(&mut self, who: usize, action: Action) {
        let truth = &self.world.view;
        let pod = |name: &str| truth.pods.iter().any(|p| p.name == name);
        let revision = |name: &str| truth.revisions.iter().any(|r| r.name == name);
        match action {
            Action::CreatePod { pod: new, .. } if pod(&new.name) => {}
            Action::CreatePod { mut claims, pod } => {
                claims.retain(|c| !truth.claims.contains_key(&c.name));
                self.world.apply(Action::CreatePod { claims, pod });
            }
            Action::CreateRevision { name, .. } if revision(&name) => {}
            Action::RenumberRevision { name, .. } if !revision(&name) => {}
            // What a planner is told about a template it alone knows.
            Action::CheckTemplate { .. } | Action::NormalizeRevision { .. } => {
                self.world.apply(action);
                self.views[who].template_check = self.world.view.template_check.take();
                self.views[who].normal_form = self.world.view.normal_form.take();
            }
            other => self.world.apply(other),
        }
    }

    fn happen(&mut self, event: &Event) {
        let truth = &mut self.world.view;
        match *event {
            Event::Round(who) => self.round(who),
            Event::SeeSet(who) => self.views[who].set = truth.set.clone(),
            Event::SeePods(who) => {
                self.views[who].pods = truth.pods.clone();
                self.views[who].claims = truth.claims.clone();
                self.views[who].revisions = truth.revisions.clone();
            }
            Event::Kubelet(ordinal) => {
                let pod = self.world.pod(ordinal).map(Arc::clone);
                match pod {
                    Some(pod) if pod.terminating() => self.world.remove(ordinal),
                    Some(pod) if pod.phase == Some(PodPhase::Pending) => self.world.run(ordinal),
                    _ => {}
                }
            }
            Event::Image(n) => {
                self.world.image(["one", "two", "three"][usize::from(n)]);
                self.touch_set();
            }
        }
    }

    fn unavailable(&self) -> usize {
        let view = &self.world.view;
        let up = view.pods.iter().filter(|p| p.available(view)).count();
        5 - up.min(5)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn never_go_below_the_budget(
        native in any::<bool>(),
        policy in prop_oneof![Just("OrderedReady"), Just("Parallel")],
        unavailable in 1..3_i32,
        events in prop::collection::vec(event(), 0..250),
    ) {
        let kind = if native { Kind::StatefulSet } else { Kind::OrdinalSet };
        let mut two = Two::new(kind, policy, unavailable);
        for event in &events {
            two.happen(event);
            let budget = usize::try_from(unavailable).unwrap();
            prop_assert!(two.unavailable() <= budget, "{event:?}: {}", two.world.log.join("\n"));
        }
        // With both up to date and kubelets at work, they finish.
        for _ in 0..400 {
            for who in 0..2 {
                two.happen(&Event::SeeSet(who));
                two.happen(&Event::SeePods(who));
                two.happen(&Event::Round(who));
            }
            (0..5).for_each(|o| two.happen(&Event::Kubelet(o)));
        }
        let status = &two.world.view.set.status;
        prop_assert_eq!(status.updated_replicas, 5, "{}", two.world.log.join("\n"));
        prop_assert_eq!(&status.current_revision, &status.update_revision);
    }
}
