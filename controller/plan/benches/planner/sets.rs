//! Plans of sets.

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use berth_api::OrdinalSetSpec;
use berth_plan::set::{
    Action, Controller, Kind, Memory, Pod, PodPhase, Revision, Set, TemplateCheck, Verdict, View,
    plan,
};
use serde_json::{Value, json};

use super::{median, ms};

/// Prints them for sets of some sizes.
pub(super) fn run() {
    for pods in [3, 100, 1000, 10_000] {
        let mut settled = settled(pods);
        let steady = median(|| {
            black_box(plan(&settled));
        });
        // What a loop does after one pod's event: a view of what it knows, and a plan.
        let event = median(|| {
            let view = settled.clone();
            black_box(plan(&view));
        });
        settled.set.spec.template["metadata"]["annotations"] = json!({"round": "2"});
        let rollout = rollout(settled);
        let rolling = median(|| {
            black_box(plan(&rollout));
        });
        let creating = fresh(pods);
        let creating = median(|| {
            black_box(plan(&creating));
        });
        println!(
            "  {pods:>6} pods: settled {}, after an event {}, rolling out {}, creating {}",
            ms(steady),
            ms(event),
            ms(rolling),
            ms(creating)
        );
    }
}

/// A set whose pods do not exist yet, with its revision.
fn fresh(pods: usize) -> View {
    let mut view = View {
        set: Set {
            kind: Kind::OrdinalSet,
            namespace: "ns".into(),
            name: "web".into(),
            uid: "set".into(),
            generation: 1,
            deleting: false,
            annotations: BTreeMap::new(),
            resource_version: "1".into(),
            spec: spec(pods),
            status: Default::default(),
        },
        pods: Vec::new(),
        claims: BTreeMap::new(),
        revisions: Vec::new(),
        claim_waits: BTreeMap::new(),
        refusals: BTreeMap::new(),
        template_check: None,
        normal_form: None,
        memory: Memory::default(),
        now: "2026-01-01T00:00:00Z".parse().expect("a time"),
    };
    make_revision(&mut view);
    view
}

/// The same with all pods, ready, and a status that says so.
fn settled(pods: usize) -> View {
    let mut view = fresh(pods);
    while view.pods.len() < pods {
        let before = view.pods.len();
        for step in plan(&view).steps {
            if let Action::CreatePod { pod, .. } = step.action {
                let pod = ready(&pod.manifest, view.pods.len());
                view.pods.push(Arc::new(pod));
            }
        }
        assert!(view.pods.len() > before, "a plan makes missing pods");
    }
    view.set.status = plan(&view).status;
    view
}

/// The same in the middle of a rollout: victims are claimed.
fn rollout(mut view: View) -> View {
    view.set.generation += 1;
    make_revision(&mut view);
    let update = plan(&view).status.update_revision;
    view.template_check = Some(TemplateCheck {
        revision: update.unwrap_or_default(),
        verdict: Verdict::Passed,
        at: view.now,
    });
    view.set.status = plan(&view).status;
    view
}

/// Carries out what a plan says about revisions, until it says nothing more.
fn make_revision(view: &mut View) {
    for _ in 0..3 {
        for step in plan(view).steps {
            match step.action {
                Action::CreateRevision {
                    name,
                    labels,
                    revision,
                    data,
                    ..
                } => view.revisions.push(Arc::new(Revision {
                    namespace: "ns".into(),
                    uid: name.clone(),
                    name,
                    resource_version: "1".into(),
                    labels,
                    controller: Some("set".into()),
                    revision,
                    created: None,
                    data: serde_json::from_str(&data).expect("JSON"),
                })),
                Action::NormalizeRevision {
                    revision,
                    resource_version,
                    template,
                    candidate,
                } => {
                    view.normal_form = Some(berth_plan::set::NormalForm {
                        revision,
                        resource_version,
                        template: Some(template),
                        candidate,
                    });
                }
                _ => return,
            }
        }
    }
}

fn spec(replicas: usize) -> OrdinalSetSpec {
    serde_json::from_value(json!({
        "replicas": replicas,
        "podManagementPolicy": "Parallel",
        "serviceName": "web",
        "selector": {"matchLabels": {"app": "web"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 50}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "app", "image": "one"}]},
        },
    }))
    .expect("a spec")
}

fn ready(manifest: &Value, number: usize) -> Pod {
    let metadata = &manifest["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = metadata["labels"].as_object().into_iter().flatten();
    Pod {
        namespace: "ns".into(),
        name: text(&metadata["name"]),
        uid: format!("00000000-0000-0000-0000-{number:012}"),
        resource_version: number.to_string(),
        labels: labels.map(|(k, v)| (k.clone(), text(v))).collect(),
        controller: Some(Controller {
            api_version: "berth.dev/v1alpha1".into(),
            kind: "OrdinalSet".into(),
            name: "web".into(),
            uid: "set".into(),
        }),
        phase: Some(PodPhase::Running),
        ready: "2025-12-31T00:00:00Z".parse().ok(),
        created: "2025-12-31T00:00:00Z".parse().ok(),
        grace_seconds: 30,
        node: Some(format!("node-{}", number % 50)),
        ..Pod::default()
    }
}
