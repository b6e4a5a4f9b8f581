//! Running StatefulSets change hands: from Kubernetes' own controller to Berth and
//! back. No pod is restarted and no ControllerRevision is added or changed.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet},
    core::v1::{PersistentVolumeClaim, Pod},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    ctx::{Ctx, is_ready},
    native_shapes::shapes,
    sets::SetBuilder,
    wait::{check, until},
    writers::writers,
};

/// Who runs the sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// Kubernetes' own controller.
    Upstream,
    /// Berth in native mode.
    Berth,
}

impl Manager {
    /// Its name in managedFields.
    pub fn name(self) -> &'static str {
        match self {
            Self::Upstream => "kube-controller-manager",
            Self::Berth => "berth-controller",
        }
    }
}

/// What must outlive a change of hands, by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Belongings {
    /// UID, labels and owners of each pod.
    pods: BTreeMap<String, Value>,
    /// UID and owners of each claim.
    claims: BTreeMap<String, Value>,
    /// Each ControllerRevision as a whole, so that any write to it shows.
    revisions: BTreeMap<String, Value>,
}

/// Makes the sets of all shapes and waits until each stands as it is to be handed on.
pub async fn create(ctx: &Ctx, ns: &str) -> Result<Belongings> {
    for shape in shapes() {
        ctx.apply(ns, &shape.set).await?;
    }
    for shape in shapes().iter().filter(|s| s.second.is_some()) {
        settle(ctx, ns, shape.name()).await?;
    }
    for shape in shapes() {
        if let Some(second) = &shape.second {
            ctx.apply(ns, second).await?;
        }
    }
    for shape in shapes() {
        settle(ctx, ns, shape.name()).await?;
    }
    observed(ctx, ns, Manager::Upstream, 11).await?;
    let all = belongings(ctx, ns).await?;
    let revisions = all.revisions.len();
    let expected = shapes().len() + shapes().iter().filter(|s| s.second.is_some()).count();
    ensure!(
        revisions == expected,
        "{revisions} ControllerRevisions before anything changed hands, not {expected}"
    );
    Ok(all)
}

/// Checks that `manager` runs the sets now and that nothing came to harm.
///
/// `limit` is a revision history limit that no set has yet: changing it raises the
/// generation, which the manager in charge has to observe, and rolls nothing.
pub async fn in_charge(
    ctx: &Ctx,
    ns: &str,
    manager: Manager,
    limit: i32,
    before: &Belongings,
) -> Result<()> {
    observed(ctx, ns, manager, limit).await?;
    same(before, &belongings(ctx, ns).await?, "after it was observed")?;
    // Annotations are in the revisions of sets that are made with them.
    annotate(ctx, ns, &format!("seen-by-{limit}")).await?;
    scale(ctx, ns, 2).await?;
    let pod = ctx.wait_ready(ns, &["plain-0", "plain-1"]).await?["plain-1"].clone();
    let makers = writers(&pod.metadata);
    ensure!(
        makers.contains(manager.name()),
        "plain-1 was made by {makers:?}, not by {}",
        manager.name()
    );
    scale(ctx, ns, 1).await?;
    let name = "plain-1 to be gone";
    until(name, async || {
        let pod = ctx.pods(ns).get_opt("plain-1").await?;
        check(pod.is_none(), || "it is there".into())
    })
    .await?;
    // The sets have been looked at again since: by the annotation, by the scaling.
    observed(ctx, ns, manager, limit + 1).await?;
    same(before, &belongings(ctx, ns).await?, "at the end")
}

/// Where somebody else writes a set's status, Berth says so and leaves the set alone.
pub async fn stands_down(ctx: &Ctx, ns: &str) -> Result<()> {
    let set = |name: &str, replicas| SetBuilder::new(name, replicas).native().build();
    for name in ["disputed", "quiet"] {
        ctx.apply(ns, &set(name, 1)).await?;
    }
    ctx.wait_ready(ns, &["disputed-0", "quiet-0"]).await?;
    let sets: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), ns);
    let somebody = PatchParams {
        field_manager: Some("another-controller".to_owned()),
        ..PatchParams::default()
    };
    until("Berth to stand down for set disputed", async || {
        // A count that is wrong, so that writing it changes something; a field
        // set to nought would be left out, and so be nobody's.
        let count = sets.get("disputed").await?.status.map(|s| s.replicas);
        let wrong = json!({"status": {"replicas": 2}});
        sets.patch_status("disputed", &somebody, &Patch::Merge(wrong))
            .await?;
        let events = ["get", "events", "-o", "name", "--field-selector"];
        let about = "involvedObject.name=disputed,reason=StandsDown";
        let args = [&["-n", ns][..], &events, &[about]].concat();
        let found = ctx.kubectl.run(&args).await?;
        check(!found.is_empty(), || {
            format!("no event, {count:?} replicas")
        })
    })
    .await?;
    for name in ["disputed", "quiet"] {
        ctx.apply(ns, &set(name, 2)).await?;
    }
    ctx.wait_ready(ns, &["quiet-1"]).await?;
    let made = ctx.pods(ns).get_opt("disputed-1").await?;
    ensure!(made.is_none(), "disputed-1 was made all the same");
    Ok(())
}

/// Gives every set a new revision history limit and waits until `manager` has seen it.
async fn observed(ctx: &Ctx, ns: &str, manager: Manager, limit: i32) -> Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), ns);
    for set in sets.list(&ListParams::default()).await? {
        let name = set.metadata.name.context("an object has a name")?;
        let patch = Patch::Merge(json!({"spec": {"revisionHistoryLimit": limit}}));
        sets.patch(&name, &PatchParams::default(), &patch).await?;
    }
    let what = format!("{} to see revisionHistoryLimit {limit}", manager.name());
    until(&what, async || {
        let mut behind = Vec::new();
        for set in sets.list(&ListParams::default()).await? {
            let seen = set.status.as_ref().and_then(|s| s.observed_generation);
            let by = set.metadata.managed_fields.iter().flatten().any(|e| {
                e.manager.as_deref() == Some(manager.name())
                    && e.subresource.as_deref() == Some("status")
            });
            if seen != set.metadata.generation || !by {
                let name = set.metadata.name.unwrap_or_default();
                behind.push(format!("{name} (observed {seen:?}, by it: {by})"));
            }
        }
        check(behind.is_empty(), || behind.join(", "))
    })
    .await
}

async fn annotate(ctx: &Ctx, ns: &str, value: &str) -> Result<()> {
    let mark = format!("example.com/mark={value}");
    ctx.kubectl
        .run(&["-n", ns, "annotate", "--overwrite", "sts", "--all", &mark])
        .await?;
    Ok(())
}

async fn scale(ctx: &Ctx, ns: &str, replicas: i32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    ctx.kubectl
        .run(&["-n", ns, "scale", "sts", "plain", &replicas])
        .await?;
    Ok(())
}

/// Waits until a set's pods are ready and as many of them updated as its strategy lets.
async fn settle(ctx: &Ctx, ns: &str, name: &str) -> Result<()> {
    let sets: Api<StatefulSet> = Api::namespaced(ctx.client.clone(), ns);
    until(&format!("set {name} to settle"), async || {
        let set = sets.get(name).await?;
        let spec = set.spec.context("a set has a spec")?;
        let status = set.status.unwrap_or_default();
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.update_strategy.unwrap_or_default();
        let held = match strategy.type_.as_deref() {
            Some("OnDelete") => replicas,
            _ => strategy
                .rolling_update
                .and_then(|r| r.partition)
                .unwrap_or(0),
        };
        let pods = ctx.pods(ns).list(&ListParams::default()).await?.items;
        let ready = pods
            .iter()
            .filter(|p| is_of(p, name) && is_ready(p))
            .count();
        let seen = status.observed_generation == set.metadata.generation;
        let updated = status.updated_replicas.unwrap_or(0);
        // Until a template changes, every pod counts as updated.
        let done = status.current_revision != status.update_revision || updated == replicas;
        let done = done && updated >= replicas - held && status.ready_replicas == Some(replicas);
        check(seen && done && ready == replicas as usize, || {
            format!("{ready} of {replicas} ready, status {status:?}")
        })
    })
    .await
}

fn is_of(pod: &Pod, set: &str) -> bool {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|o| o.name == set)
}

async fn belongings(ctx: &Ctx, ns: &str) -> Result<Belongings> {
    let revisions: Api<ControllerRevision> = Api::namespaced(ctx.client.clone(), ns);
    let claims: Api<PersistentVolumeClaim> = ctx.claims(ns);
    let all = ListParams::default();
    let mut seen = Belongings {
        pods: BTreeMap::new(),
        claims: BTreeMap::new(),
        revisions: BTreeMap::new(),
    };
    for pod in ctx.pods(ns).list(&all).await? {
        let meta = pod.metadata;
        let name = meta.name.clone().context("an object has a name")?;
        let kept = json!({
            "uid": meta.uid, "labels": meta.labels, "annotations": meta.annotations,
            "owners": meta.owner_references, "deleted": meta.deletion_timestamp,
        });
        seen.pods.insert(name, kept);
    }
    for claim in claims.list(&all).await? {
        let meta = claim.metadata;
        let name = meta.name.clone().context("an object has a name")?;
        let kept = json!({
            "uid": meta.uid, "labels": meta.labels,
            "owners": meta.owner_references, "deleted": meta.deletion_timestamp,
        });
        seen.claims.insert(name, kept);
    }
    for revision in revisions.list(&all).await? {
        let name = revision.metadata.name.clone();
        let name = name.context("an object has a name")?;
        seen.revisions.insert(name, serde_json::to_value(revision)?);
    }
    Ok(seen)
}

fn same(before: &Belongings, now: &Belongings, when: &str) -> Result<()> {
    let mut changes = Vec::new();
    for (kind, before, now) in [
        ("pod", &before.pods, &now.pods),
        ("claim", &before.claims, &now.claims),
        ("ControllerRevision", &before.revisions, &now.revisions),
    ] {
        changes.extend(differences(kind, before, now));
    }
    ensure!(changes.is_empty(), "{when}: {}", changes.join("; "));
    Ok(())
}

fn differences(
    kind: &str,
    before: &BTreeMap<String, Value>,
    now: &BTreeMap<String, Value>,
) -> Vec<String> {
    let mut all: Vec<_> = before.keys().chain(now.keys()).collect();
    all.sort();
    all.dedup();
    let show = |v: Option<&Value>| v.map_or_else(|| "absent".to_owned(), Value::to_string);
    all.into_iter()
        .filter(|name| before.get(*name) != now.get(*name))
        .map(|name| {
            let (was, is) = (show(before.get(name)), show(now.get(name)));
            format!("{kind} {name} was {was} and is {is}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_is_named() {
        let map = |list: &[(&str, i32)]| {
            let entries = list.iter().map(|(k, v)| ((*k).to_owned(), json!(v)));
            entries.collect::<BTreeMap<_, _>>()
        };
        let before = map(&[("a", 1), ("b", 1), ("c", 1)]);
        let now = map(&[("a", 1), ("b", 2), ("d", 1)]);
        assert_eq!(
            differences("pod", &before, &now),
            [
                "pod b was 1 and is 2",
                "pod c was 1 and is absent",
                "pod d was absent and is 1"
            ]
        );
    }
}
