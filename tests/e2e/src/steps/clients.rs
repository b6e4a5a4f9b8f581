//! What people and other controllers do with a set without knowing Berth: scale it,
//! wait for it, read it, autoscale it, guard it with a budget.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{autoscaling::v2::HorizontalPodAutoscaler, policy::v1::PodDisruptionBudget};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    ctx::Ctx,
    sets::SetBuilder,
    wait::{check, until},
};

/// `kubectl scale`, `wait`, `get` and `explain` know a set.
pub async fn kubectl(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 1).build()).await?;
    let in_ns = async |args: &[&str]| ctx.kubectl.run(&[&["-n", ns], args].concat()).await;
    in_ns(&["scale", "oset", "web", "--replicas=2"]).await?;
    // The condition of the generation before the change is not meant.
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until("the controller to see the new size", async || {
        let set = sets.get("web").await?;
        let seen = set.status.and_then(|s| s.observed_generation);
        check(seen >= Some(2) && seen == set.metadata.generation, || {
            format!("{seen:?}")
        })
    })
    .await?;
    in_ns(&[
        "wait",
        "--for=condition=Available",
        "oset/web",
        "--timeout=240s",
    ])
    .await?;
    ctx.wait_only(ns, &["web-0", "web-1"]).await?;
    in_ns(&[
        "wait",
        "--for=jsonpath={.status.availableReplicas}=2",
        "oset/web",
        "--timeout=240s",
    ])
    .await?;

    let scale = in_ns(&["get", "oset", "web", "--subresource=scale", "-o", "json"]).await?;
    let scale: Value = serde_json::from_str(&scale)?;
    ensure!(
        scale["spec"]["replicas"] == 2
            && scale["status"]["replicas"] == 2
            && scale["status"]["selector"] == "app=web",
        "the scale subresource says {scale}"
    );

    let words = async |args: &[&str]| -> Result<Vec<Vec<String>>> {
        let text = in_ns(args).await?;
        let line = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        Ok(text.lines().map(line).collect())
    };
    let table = words(&["get", "oset"]).await?;
    ensure!(
        table[0] == ["NAME", "READY", "UPDATED", "WAITING", "AGE"]
            && table[1][..3] == ["web", "2/2", "2"],
        "kubectl get oset prints {table:?}"
    );
    let wide = words(&["get", "oset", "-o", "wide"]).await?;
    ensure!(
        wide[0][5..] == ["REVISION", "CONTAINERS", "IMAGES"] && wide[1].iter().any(|w| w == "main"),
        "kubectl get oset -o wide prints {wide:?}"
    );
    let all = in_ns(&["get", "all", "-o", "name"]).await?;
    ensure!(
        all.contains("ordinalset.berth.dev/web"),
        "kubectl get all leaves the set out: {all}"
    );
    explain(ctx).await
}

/// `kubectl explain` says of each field of a set what it means.
async fn explain(ctx: &Ctx) -> Result<()> {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed = ctx.kubectl.run(&["explain", "oset.spec"]).await?;
    let printed = flat(&printed);
    let definition = berth_api::crds::all()
        .into_iter()
        .find(|crd| crd.spec.names.kind == "OrdinalSet")
        .context("there is a definition of OrdinalSet")?;
    let definition = serde_json::to_value(definition)?;
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = schema["properties"]["spec"]["properties"]
        .as_object()
        .context("the spec has fields")?;
    for (name, field) in fields {
        let description = flat(field["description"].as_str().unwrap_or_default());
        ensure!(
            !description.is_empty() && printed.contains(&description),
            "kubectl explain oset.spec does not say what {name} is: {printed}"
        );
    }
    for (path, words) in [
        ("oset.spec.updateStrategy.rollingUpdate", "maxUnavailable"),
        (
            "oset.spec.template.spec.containers.livenessProbe",
            "periodSeconds",
        ),
        ("oset.spec.volumeClaimTemplates.spec", "storageClassName"),
        ("oset.status", "updateRevision"),
    ] {
        let printed = ctx.kubectl.run(&["explain", path]).await?;
        ensure!(
            printed.contains(words) && !printed.contains("<no description>"),
            "kubectl explain {path} prints {printed}"
        );
    }
    Ok(())
}

/// An autoscaler finds the set through its scale subresource, and scales it: below
/// its minimum it needs no metrics to.
pub async fn autoscaler(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 1).build()).await?;
    ctx.wait_ready(ns, &["web-0"]).await?;
    let hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "berth.dev/v1alpha1", "kind": "OrdinalSet", "name": "web"},
            "minReplicas": 2,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}],
        },
    });
    ctx.apply(ns, &hpa).await?;
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(ctx.client.clone(), ns);
    until("the autoscaler to be able to scale the set", async || {
        let status = autoscalers.get("web").await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        let able = conditions
            .iter()
            .any(|c| c.type_ == "AbleToScale" && c.status == "True");
        check(able, || format!("{conditions:?}"))
    })
    .await?;
    ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    ctx.wait_only(ns, &["web-0", "web-1"]).await
}

/// A budget counts the replicas that the set is to have, and its answer holds:
/// nobody is evicted against it.
pub async fn budget(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("web", 2).parallel().build())
        .await?;
    ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "web"}}},
    });
    ctx.apply(ns, &budget).await?;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(ctx.client.clone(), ns);
    // Replicas, those that must stay, and those that may go now.
    let expect = async |counts: [i32; 3]| {
        until(&format!("a budget of {counts:?}"), async || {
            let budget = budgets.get("web").await?;
            let status = budget.status.unwrap_or_default();
            let current = status.observed_generation == budget.metadata.generation;
            let seen = [
                status.expected_pods,
                status.desired_healthy,
                status.disruptions_allowed,
            ];
            check(current && seen == counts.map(Some), || {
                format!("{seen:?}, {:?}", status.conditions)
            })
        })
        .await
    };
    expect([2, 1, 1]).await?;
    let all = json!({"spec": {"maxUnavailable": null, "minAvailable": "100%"}});
    budgets
        .patch("web", &PatchParams::default(), &Patch::Merge(&all))
        .await?;
    expect([2, 2, 0]).await?;
    // Asked by kubectl: the client of these tests would ask again until it may.
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": "web-1", "namespace": ns},
    });
    let uri = format!("/api/v1/namespaces/{ns}/pods/web-1/eviction");
    let evicted = ctx
        .kubectl
        .run_with_input(&["create", "--raw", &uri, "-f", "-"], &eviction.to_string())
        .await;
    let error = evicted
        .err()
        .context("web-1 was evicted against the budget")?;
    ensure!(
        error.to_string().contains("disruption budget"),
        "the eviction was refused with {error}"
    );
    // Replicas that do not exist yet count: 3 are to be there, and all must stay.
    ctx.scale(ns, "oset/web", 3).await?;
    expect([3, 3, 0]).await
}
