//! What bad input gets: a refusal at admission, or words on the object, and
//! nothing lost or half-made.

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::data::{claim_manifest, class_manifest};
use crate::{
    ctx::Ctx,
    sets::{SHELL_IMAGE, SetBuilder},
    wait::{check, until},
};

/// Each of these sets is refused by the API server, with words that help.
pub async fn bad_sets(ctx: &Ctx, ns: &str) -> Result<()> {
    let good = || SetBuilder::new("web", 1).claim("data", "32Mi");
    let mut long_name = good().build();
    long_name["metadata"]["name"] =
        json!("a-name-that-is-longer-than-the-labels-of-its-pods-may-be");
    let cases: Vec<(&str, Value, &str)> = vec![
        (
            "a selector that does not match",
            good()
                .field("selector", json!({"matchLabels": {"app": "other"}}))
                .build(),
            "selector does not match",
        ),
        (
            "an empty selector",
            good().field("selector", json!({})).build(),
            "selector is empty",
        ),
        (
            "an expression that does not match",
            good()
                .field(
                    "selector",
                    json!({"matchExpressions": [
                    {"key": "app", "operator": "In", "values": ["a", "b"]}]}),
                )
                .build(),
            "selector does not match",
        ),
        ("a name too long", long_name, "52 characters"),
        (
            "negative replicas",
            good().field("replicas", json!(-1)).build(),
            "replicas",
        ),
        (
            "two claims of one name",
            good().claim("data", "1Gi").build(),
            "same name",
        ),
        (
            "another restart policy",
            good().pod_field("restartPolicy", json!("Never")).build(),
            "restartPolicy",
        ),
        (
            "a deadline",
            good().pod_field("activeDeadlineSeconds", json!(5)).build(),
            "activeDeadlineSeconds",
        ),
        (
            "a rolling update beside OnDelete",
            good()
                .field(
                    "updateStrategy",
                    json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}}),
                )
                .build(),
            "rollingUpdate",
        ),
        (
            "a field that does not exist",
            good().pod_field("restartPolice", json!("Always")).build(),
            "restartPolice",
        ),
    ];
    for (what, set, words) in cases {
        match ctx.apply(ns, &set).await {
            Ok(()) => bail!("{what} was accepted"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(text.contains(words), "{what} was refused with {text:?}");
            }
        }
    }
    // The good one passes, and what is frozen stays.
    ctx.apply(ns, &good().build()).await?;
    ctx.wait_ready(ns, &["web-0"]).await?;
    let frozen = [
        good().field("serviceName", json!("other")).build(),
        good().claim("more", "1Gi").build(),
        good().parallel().build(),
    ];
    for set in frozen {
        let error = ctx
            .apply(ns, &set)
            .await
            .err()
            .context("a frozen field was changed")?;
        let text = format!("{error:#}");
        ensure!(
            text.contains("cannot be changed"),
            "the refusal says {text:?}"
        );
    }
    Ok(())
}

/// A claim larger than any pool waits, says why on the set and on the claim, and
/// nothing is made.
pub async fn claim_larger_than_any_pool(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(
        ns,
        &SetBuilder::new("huge", 1).claim("data", "900Ti").build(),
    )
    .await?;
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until("the set to say that no pool is large enough", async || {
        let waiting = sets
            .get("huge")
            .await?
            .status
            .and_then(|s| s.waiting)
            .unwrap_or_default();
        check(
            waiting.contains("data-huge-0") && waiting.contains("900Ti"),
            || waiting,
        )
    })
    .await?;
    expect_event(ctx, ns, "data-huge-0", "900Ti").await?;
    let claim = ctx.claims(ns).get("data-huge-0").await?;
    let id = berth_api::names::volume_name(&claim.metadata.uid.unwrap_or_default());
    ensure!(
        ctx.volumes().get_opt(&id).await?.is_none(),
        "a Volume was made for it"
    );
    Ok(())
}

/// A class with an unknown parameter is refused with words on the claim.
pub async fn unknown_parameter(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("odd-{ns}");
    ctx.apply(
        ns,
        &class_manifest(&class, json!({"pathPattern": "../../etc"}), "Delete"),
    )
    .await?;
    ctx.apply(ns, &claim_manifest("odd", &class, "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("odd")).await?;
    expect_event(ctx, ns, "odd", "pathPattern").await?;
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(ctx.client.clone());
    classes.delete(&class, &Default::default()).await?;
    Ok(())
}

/// A claim of another driver's class is none of ours.
pub async fn other_drivers_class(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("other-{ns}");
    let mut manifest = class_manifest(&class, json!({}), "Delete");
    manifest["provisioner"] = json!("other.example.com");
    manifest["volumeBindingMode"] = json!("Immediate");
    ctx.apply(ns, &manifest).await?;
    ctx.apply(ns, &claim_manifest("theirs", &class, "32Mi"))
        .await?;
    ctx.apply(ns, &claim_manifest("ours", "berth", "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("ours")).await?;
    // When ours is bound, theirs has been seen as well.
    ctx.wait_ready(ns, &["user-of-ours"]).await?;
    let claim = ctx.claims(ns).get("theirs").await?;
    let id = berth_api::names::volume_name(&claim.metadata.uid.unwrap_or_default());
    ensure!(
        ctx.volumes().get_opt(&id).await?.is_none(),
        "a Volume was made for another driver"
    );
    let classes: Api<k8s_openapi::api::storage::v1::StorageClass> = Api::all(ctx.client.clone());
    classes.delete(&class, &Default::default()).await?;
    Ok(())
}

/// A template that only the creation of the pod shows to be bad becomes a
/// condition that quotes the API server.
pub async fn refused_pod_is_quoted(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = SetBuilder::new("bad", 1)
        .pod_field("serviceAccountName", json!("nobody-made-this-account"));
    ctx.apply(ns, &set.build()).await?;
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until("a condition that quotes the API server", async || {
        let status = sets.get("bad").await?.status.unwrap_or_default();
        let quoted = status
            .conditions
            .iter()
            .any(|c| c.message.contains("nobody-made-this-account"));
        check(quoted, || format!("{:?}", status.conditions))
    })
    .await
}

/// A foreign pod under an ordinal's name is left alone, and the set says so.
pub async fn name_conflict(ctx: &Ctx, ns: &str) -> Result<()> {
    let mut stranger = user_of("none");
    stranger["metadata"]["name"] = json!("web-0");
    stranger["spec"]["volumes"] = json!([]);
    stranger["spec"]["containers"][0]["volumeMounts"] = json!([]);
    ctx.apply(ns, &stranger).await?;
    let before = ctx.wait_ready(ns, &["web-0"]).await?;
    ctx.apply(ns, &SetBuilder::new("web", 1).build()).await?;
    let sets: Api<berth_api::OrdinalSet> = Api::namespaced(ctx.client.clone(), ns);
    until("the set to name the conflict", async || {
        let waiting = sets
            .get("web")
            .await?
            .status
            .and_then(|s| s.waiting)
            .unwrap_or_default();
        check(waiting.contains("web-0"), || waiting)
    })
    .await?;
    let after = ctx.pods(ns).get("web-0").await?;
    ensure!(
        after.metadata.uid == before["web-0"].metadata.uid,
        "the stranger was replaced"
    );
    Ok(())
}

/// Waits for an event on `object` whose message contains `words`.
pub async fn expect_event(ctx: &Ctx, ns: &str, object: &str, words: &str) -> Result<()> {
    let events: Api<Event> = Api::namespaced(ctx.client.clone(), ns);
    until(
        &format!("an event on {object} that says {words:?}"),
        async || {
            let list = events.list(&ListParams::default()).await?.items;
            let said: Vec<_> = list
                .into_iter()
                .filter(|e| e.involved_object.name.as_deref() == Some(object))
                .filter_map(|e| e.message)
                .collect();
            check(said.iter().any(|m| m.contains(words)), || said.join("; "))
        },
    )
    .await
}

/// A pod that mounts one claim, and whose scheduler would rather have it on any node
/// but this.
pub fn user_away_from(claim: &str, node: &str) -> Value {
    let mut pod = user_of(claim);
    pod["spec"]["affinity"] = json!({"nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "preference": {"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]},
            ]},
        }],
    }});
    pod
}

/// A pod that mounts one claim.
pub fn user_of(claim: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("user-of-{claim}")},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": SHELL_IMAGE, "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000000"],
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    })
}
