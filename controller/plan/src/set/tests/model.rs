//! A small world for the planner: an API server that honours preconditions and
//! owner references, and kubelets that do what the test tells them.

mod server;

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use berth_api::{OrdinalSetSpec, OrdinalSetStatus, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::set::{
    Action, Candidate, Claim, Controller, Kind, Memory, NormalForm, Object, Outcome, Plan, Pod,
    PodPhase, Revision, Set, Step, TemplateCheck, Verdict, View, explain, groups, plan,
};

/// A failure of which only the answer was lost: the write stands.
pub(super) const LANDED: &str = "no answer";

/// The world at one moment.
pub(super) struct World {
    pub(super) view: View,
    next: u64,
    /// Everything that happened, for the assertions about order.
    pub(super) log: Vec<String>,
    /// Calls to the API server, for what was planned.
    pub(super) calls: usize,
}

pub(super) fn spec(text: Value) -> OrdinalSetSpec {
    let mut base = json!({
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "serviceName": "web",
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "one"}]},
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
    });
    for (key, value) in text.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    serde_json::from_value(base).unwrap()
}

impl World {
    pub(super) fn new(fields: Value) -> World {
        let set = Set {
            kind: Kind::OrdinalSet,
            namespace: "ns".into(),
            name: "web".into(),
            uid: "set".into(),
            generation: 1,
            deleting: false,
            annotations: BTreeMap::new(),
            resource_version: "1".into(),
            spec: spec(fields),
            status: OrdinalSetStatus::default(),
        };
        World {
            view: View {
                set,
                pods: Vec::new(),
                claims: BTreeMap::new(),
                revisions: Vec::new(),
                claim_waits: BTreeMap::new(),
                refusals: BTreeMap::new(),
                template_check: None,
                normal_form: None,
                memory: Memory::default(),
                now: "2026-01-01T00:00:00Z".parse().unwrap(),
            },
            next: 1,
            log: Vec::new(),
            calls: 0,
        }
    }

    /// A set that has reached what `fields` ask for.
    pub(super) fn settled(fields: Value) -> World {
        let mut world = World::new(fields);
        world.settle();
        world.log.clear();
        world
    }

    pub(super) fn change(&mut self, fields: Value) {
        let mut spec = serde_json::to_value(&self.view.set.spec).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.view.set.spec = serde_json::from_value(spec).unwrap();
        self.view.set.generation += 1;
    }

    pub(super) fn image(&mut self, image: &str) {
        let mut template = self.view.set.spec.template.clone();
        template["spec"]["containers"][0]["image"] = json!(image);
        self.change(json!({"template": template}));
    }

    fn version(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    pub(super) fn pod(&self, ordinal: i32) -> Option<&Arc<Pod>> {
        let name = format!("web-{ordinal}");
        self.view.pods.iter().find(|p| p.name == name)
    }

    pub(super) fn edit(&mut self, ordinal: i32, edit: impl FnOnce(&mut Pod)) {
        let version = self.version();
        let name = format!("web-{ordinal}");
        let found = self.view.pods.iter_mut().find(|p| p.name == name);
        let pod = Arc::make_mut(found.unwrap());
        pod.resource_version = version;
        edit(pod);
    }

    pub(super) fn run(&mut self, ordinal: i32) {
        let now = self.view.now;
        self.edit(ordinal, |pod| {
            pod.phase = Some(PodPhase::Running);
            pod.ready = Some(now);
        });
    }

    pub(super) fn break_pod(&mut self, ordinal: i32) {
        self.edit(ordinal, |pod| {
            pod.ready = None;
            pod.trouble = Some("container app: CrashLoopBackOff".into());
        });
    }

    pub(super) fn remove(&mut self, ordinal: i32) {
        let name = format!("web-{ordinal}");
        self.view.pods.retain(|p| p.name != name);
        self.log.push(format!("gone {name}"));
        self.collect();
    }

    /// The garbage collector: a claim goes when none of its owners exists.
    fn collect(&mut self) {
        let pods: Vec<String> = self.view.pods.iter().map(|p| p.uid.clone()).collect();
        let exists = |owner: &OwnerReference| {
            owner.uid == "set" || pods.contains(&owner.uid) || owner.uid == "other"
        };
        self.view
            .claims
            .retain(|_, c| c.owners.is_empty() || c.owners.iter().any(exists));
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.view.now += SignedDuration::from_secs(seconds);
    }

    /// Plan and execute; the plan.
    pub(super) fn step(&mut self) -> Plan {
        self.step_with(|_| Outcome::Done)
    }

    /// Plan and execute as the loop does, with an API server that answers each step as
    /// `answer` says.
    pub(super) fn step_with(&mut self, answer: impl Fn(&Step) -> Outcome) -> Plan {
        let mut plan = plan(&self.view);
        // Whether a template means the same as the one before is answered at once.
        if let [
            Step {
                action: ask @ Action::NormalizeRevision { .. },
                ..
            },
        ] = &plan.steps[..]
            && self.view.set.kind == Kind::OrdinalSet
            && answer(&plan.steps[0]) == Outcome::Done
        {
            self.apply(ask.clone());
            self.log.pop();
            plan = crate::set::plan(&self.view);
        }
        self.check(&plan);
        if plan.status_first {
            self.view.set.status = plan.status.clone();
        }
        for group in groups(plan.steps.clone()) {
            let mut outcomes = Vec::new();
            for batch in group.batches {
                for step in batch {
                    let outcome = answer(&step);
                    let landed = Outcome::Failed(LANDED.into());
                    if outcome == Outcome::Done || outcome == landed {
                        self.apply(step.action.clone());
                    }
                    self.calls += 1;
                    outcomes.push((step.attempt(), outcome));
                }
                if (outcomes.iter()).any(|(_, o)| matches!(o, Outcome::Failed(_))) {
                    break;
                }
            }
            let now = self.view.now;
            self.view.memory.record(group.class, &outcomes, now);
        }
        self.view.set.status = plan.status.clone();
        plan
    }

    /// What must hold for every plan, whatever the view.
    pub(super) fn check(&self, plan: &Plan) {
        let mut ordinals: Vec<i32> = plan.steps.iter().filter_map(|s| s.ordinal).collect();
        ordinals.sort_unstable();
        let all = ordinals.len();
        ordinals.dedup();
        assert_eq!(all, ordinals.len(), "two actions on one ordinal");
        for step in &plan.steps {
            match &step.action {
                Action::DeletePod {
                    uid,
                    resource_version,
                    grace_seconds,
                    name,
                } => {
                    let pod = self.view.pods.iter().find(|p| p.uid == *uid).unwrap();
                    assert_eq!(pod.name, *name);
                    assert_eq!(pod.resource_version, *resource_version);
                    assert!(pod.grace_seconds >= 1 || grace_seconds.is_some());
                    assert!(!pod.terminating(), "deleted twice");
                }
                Action::CreatePod { pod, .. } => {
                    assert!(
                        !self.view.pods.iter().any(|p| p.name == pod.name),
                        "a second pod"
                    );
                }
                _ => {}
            }
        }
    }

    /// Kubelets: what is new runs, what is deleted goes. Whether anything happened.
    pub(super) fn kubelets(&mut self) -> bool {
        let mut moved = false;
        let pods = self.view.pods.clone();
        for pod in pods {
            let ordinal = self.view.set.ordinal(&pod.name).unwrap();
            if pod.terminating() {
                self.remove(ordinal);
                moved = true;
            } else if !pod.terminating()
                && pod.phase == Some(PodPhase::Pending)
                && mounts(&pod, &self.view)
            {
                self.run(ordinal);
                moved = true;
            }
        }
        moved
    }

    /// Rounds until nothing moves any more, also not by the passing of time.
    pub(super) fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..400 {
            let before = self.view.set.status.clone();
            let plan = self.step();
            let moved = self.kubelets();
            let tries = |s: &Step| matches!(s.action, Action::CheckTemplate { .. });
            let still = plan.steps.iter().all(tries) && !moved && before == plan.status;
            quiet = if still { quiet + 1 } else { 0 };
            match plan.requeue_after_ms {
                None if still && plan.steps.is_empty() => return,
                Some(_) if quiet > 4 => return,
                // While pods move, deadlines of minutes do not pass.
                Some(ms) if still || ms < 60_000 => {
                    self.pass(i64::try_from(ms / 1000).unwrap() + 1)
                }
                _ => {}
            }
        }
        panic!("the set does not settle:\n{}", self.log.join("\n"));
    }

    /// Rounds until nothing moves but `pod`, which kubelet cannot get ready.
    pub(super) fn settle_but_for(&mut self, pod: &str) {
        for _ in 0..50 {
            self.step();
            let others = self.view.pods.iter().filter(|p| p.name != pod);
            if others.clone().any(|p| p.terminating()) {
                self.kubelets();
            }
        }
    }

    /// The pods as text.
    pub(super) fn picture(&self) -> String {
        let mut out = String::new();
        let mut pods = self.view.pods.clone();
        pods.sort_by_key(|p| self.view.set.ordinal(&p.name));
        for pod in pods {
            let state = match (pod.terminating(), pod.is_ready()) {
                (true, _) => "terminating",
                (_, true) => "ready",
                _ => "not ready",
            };
            writeln!(out, "{} {state} {}", pod.name, pod.revision()).unwrap();
        }
        for claim in self.view.claims.values() {
            let owners: Vec<String> = claim.owners.iter().map(|o| o.kind.clone()).collect();
            writeln!(out, "{} owned by [{}]", claim.name, owners.join(" ")).unwrap();
        }
        out
    }

    pub(super) fn explain(&self) -> String {
        explain::explain(&self.view, &plan(&self.view))
    }
}

/// A kubelet starts no pod whose claims do not exist.
fn mounts(pod: &Pod, view: &View) -> bool {
    let mut claims = pod.claims.values();
    claims.all(|claim| view.claims.contains_key(claim))
}

fn controller(owner: &OwnerReference) -> Controller {
    Controller {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    }
}

/// An orphan pod of the name, with the set's labels.
pub(super) fn orphan(name: &str) -> Pod {
    Pod {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("orphan-{name}"),
        resource_version: "1".into(),
        labels: BTreeMap::from([
            ("app".to_owned(), "web".to_owned()),
            (names::pod::POD_NAME.to_owned(), name.to_owned()),
        ]),
        phase: Some(PodPhase::Running),
        ready: Some(Timestamp::UNIX_EPOCH),
        grace_seconds: 30,
        claims: BTreeMap::from([("data".to_owned(), format!("data-{name}"))]),
        ..Pod::default()
    }
}
