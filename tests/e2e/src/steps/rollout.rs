//! Templates change, go back, turn out bad, and are corrected: what an OrdinalSet
//! does differently from a StatefulSet, on real pods.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use berth_api::OrdinalSet;
use k8s_openapi::api::{apps::v1::ControllerRevision, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::{
    ctx::{Ctx, uid_of},
    sets::SetBuilder,
    wait::{check, until},
};

/// A rollback by name, the way forward again, and a restart: each ends with the
/// pods that were asked for, and a restart makes no revision.
pub async fn back_forward_restart(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = |version: &str| {
        let env = json!([{"name": "VERSION", "value": version}]);
        let set = SetBuilder::new("web", 3).claim("data", "16Mi");
        set.container_field("env", env).build()
    };
    ctx.apply(ns, &set("one")).await?;
    let first = settled(ctx, ns, "one").await?;
    ctx.apply(ns, &set("two")).await?;
    let second = settled(ctx, ns, "two").await?;
    ensure!(first != second, "two templates share revision {first}");

    patch(ctx, ns, &json!({"rollbackTo": first})).await?;
    let back = settled(ctx, ns, "one").await?;
    ensure!(back == first, "rolled back to {back}, not to {first}");
    condition(ctx, ns, "RolledBack", "True").await?;

    patch(ctx, ns, &json!({"rollbackTo": "web-never"})).await?;
    waiting(ctx, ns, "no revision web-never to go back to").await?;
    patch(ctx, ns, &json!({"rollbackTo": null})).await?;
    let forward = settled(ctx, ns, "two").await?;
    ensure!(
        forward == second,
        "went forward to {forward}, not to {second}"
    );

    let before = pods(ctx, ns).await?;
    let now = k8s_openapi::jiff::Timestamp::now();
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    // Made in the very second of the restart, a pod would count as made after it.
    until("a second to pass", async || {
        let here = k8s_openapi::jiff::Timestamp::now();
        let text = here.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        check(text > now, || text)
    })
    .await?;
    let now = k8s_openapi::jiff::Timestamp::now();
    let restart = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    patch(ctx, ns, &json!({"restartedAt": restart})).await?;
    until("every pod to be another", async || {
        let after = pods(ctx, ns).await?;
        let same = before
            .iter()
            .filter(|(name, pod)| after.get(*name).is_none_or(|a| uid_of(a) == uid_of(pod)));
        let same: Vec<_> = same.map(|(name, _)| name.clone()).collect();
        check(same.is_empty(), || same.join(", "))
    })
    .await?;
    settled(ctx, ns, "two").await?;
    let revisions = revisions(ctx, ns).await?;
    ensure!(
        revisions.len() == 2,
        "a restart left revisions {revisions:?}"
    );
    Ok(())
}

/// A template whose pods never become ready stops the rollout at its first pod,
/// and editing the template is all that it takes to go on: upstream needs a person
/// who deletes the pod.
pub async fn bad_template_is_corrected(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = |line: &str| {
        let probe = json!({"exec": {"command": ["sh", "-c", line]}, "periodSeconds": 1});
        SetBuilder::new("web", 3)
            .container_field("readinessProbe", probe)
            .container_field("env", json!([{"name": "VERSION", "value": line}]))
            .build()
    };
    ctx.apply(ns, &set("true")).await?;
    let good = settled(ctx, ns, "true").await?;
    let before = pods(ctx, ns).await?;
    ctx.apply(ns, &set("false")).await?;
    waiting(ctx, ns, "web-2: not ready").await?;
    let during = pods(ctx, ns).await?;
    for name in ["web-0", "web-1"] {
        let (a, b) = (before.get(name).map(uid_of), during.get(name).map(uid_of));
        ensure!(a == b, "{name} went down for a template that never worked");
    }
    ctx.apply(ns, &set("test 1 = 1")).await?;
    let new = settled(ctx, ns, "test 1 = 1").await?;
    ensure!(new != good, "the correction has the revision of before");
    Ok(())
}

/// Under both policies at most so many pods are down, and only from the partition up.
pub async fn budget_and_partition(ctx: &Ctx, ns: &str) -> Result<()> {
    for policy in ["OrderedReady", "Parallel"] {
        let set = |version: &str| {
            SetBuilder::new("web", 4)
                .field("podManagementPolicy", json!(policy))
                .field(
                    "updateStrategy",
                    json!({"rollingUpdate": {"partition": 1, "maxUnavailable": 2}}),
                )
                .container_field("env", json!([{"name": "VERSION", "value": version}]))
                .build()
        };
        ctx.apply(ns, &set("one")).await?;
        settled(ctx, ns, "one").await?;
        let kept = pods(ctx, ns).await?.get("web-0").map(uid_of);
        ctx.apply(ns, &set("two")).await?;
        let mut worst = 4;
        until("three pods of the new template", async || {
            let all = pods(ctx, ns).await?;
            let up = all.values().filter(|p| crate::ctx::is_ready(p)).count();
            worst = worst.min(up);
            let new = all.values().filter(|p| version(p) == "two");
            let new = new.filter(|p| crate::ctx::is_ready(p)).count();
            check(new == 3, || format!("{new}"))
        })
        .await?;
        ensure!(worst >= 2, "{policy}: only {worst} of 4 pods were ready");
        let now = pods(ctx, ns).await?.get("web-0").map(uid_of);
        ensure!(
            now == kept,
            "{policy}: web-0 is below the partition, and was replaced"
        );
        ctx.kubectl
            .run(&["-n", ns, "delete", "oset", "web", "--cascade=foreground"])
            .await?;
        ctx.wait_only(ns, &[]).await?;
    }
    Ok(())
}

fn sets(ctx: &Ctx, ns: &str) -> Api<OrdinalSet> {
    Api::namespaced(ctx.client.clone(), ns)
}

async fn patch(ctx: &Ctx, ns: &str, fields: &Value) -> Result<()> {
    let patch = json!({"spec": fields}).to_string();
    let line = ["patch", "oset", "web", "--type=merge", "-p", &patch];
    ctx.kubectl.run(&[&["-n", ns][..], &line].concat()).await?;
    Ok(())
}

async fn pods(ctx: &Ctx, ns: &str) -> Result<BTreeMap<String, Pod>> {
    let all = ctx.pods(ns).list(&ListParams::default()).await?;
    Ok(all.into_iter().map(|p| (p.name_any(), p)).collect())
}

async fn revisions(ctx: &Ctx, ns: &str) -> Result<Vec<String>> {
    let all: Api<ControllerRevision> = Api::namespaced(ctx.client.clone(), ns);
    let all = all.list(&ListParams::default()).await?;
    Ok(all.iter().map(ResourceExt::name_any).collect())
}

/// The VERSION that a pod was made with.
fn version(pod: &Pod) -> &str {
    let containers = pod.spec.iter().flat_map(|s| &s.containers);
    let mut env = containers.flat_map(|c| c.env.iter().flatten());
    let found = env.find(|e| e.name == "VERSION");
    found.and_then(|e| e.value.as_deref()).unwrap_or_default()
}

/// Waits until the set says that it is done, with pods of `wanted` alone; the
/// revision that it ended with.
async fn settled(ctx: &Ctx, ns: &str, wanted: &str) -> Result<String> {
    let sets = sets(ctx, ns);
    let what = format!("set web of {ns} to settle at {wanted}");
    let mut revision = String::new();
    until(&what, async || {
        let set = sets.get("web").await?;
        let status = set.status.clone().unwrap_or_default();
        let seen = status.observed_generation == set.metadata.generation;
        let done = status.current_revision == status.update_revision
            && status.updated_replicas == set.spec.replicas.unwrap_or(1)
            && status.available_replicas == status.updated_replicas;
        let all = pods(ctx, ns).await?;
        let right = all.values().all(|p| version(p) == wanted);
        revision = status.update_revision.clone().unwrap_or_default();
        check(seen && done && right, || format!("{:?}", status.waiting))
    })
    .await?;
    Ok(revision)
}

async fn condition(ctx: &Ctx, ns: &str, name: &str, value: &str) -> Result<()> {
    let wanted = format!("--for=condition={name}={value}");
    let line = ["wait", "oset/web", &wanted, "--timeout=60s"];
    ctx.kubectl.run(&[&["-n", ns][..], &line].concat()).await?;
    Ok(())
}

async fn waiting(ctx: &Ctx, ns: &str, words: &str) -> Result<()> {
    let sets = sets(ctx, ns);
    until(
        &format!("WAITING of set web to say {words:?}"),
        async || {
            let status = sets.get("web").await?.status.unwrap_or_default();
            let text = status.waiting.unwrap_or_default();
            check(text.contains(words), || text.clone())
        },
    )
    .await
}
