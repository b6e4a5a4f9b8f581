//! `berth-controller explain oset/<name>`: the planner on live state, read-only.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use anyhow::Context as _;
use berth_api::{NativeSet, OrdinalSet, Volume, VolumePhase};
use berth_plan::{
    set::{Claim, Kind, Memory, Pod, Revision, View, explain as describe, plan},
    volumes::ClaimWait,
};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::ControllerRevision,
    core::v1::{self as core, PersistentVolumeClaim},
};
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::object::SetObject;
use crate::context::bounded;

/// What the planner would do about a set now, with its reasons.
///
/// # Errors
/// The set, or what belongs to it, cannot be read.
pub async fn explain(
    client: Client,
    kind: Kind,
    namespace: &str,
    name: &str,
) -> anyhow::Result<String> {
    match kind {
        Kind::OrdinalSet => of_kind::<OrdinalSet>(client, namespace, name).await,
        Kind::StatefulSet => of_kind::<NativeSet>(client, namespace, name).await,
    }
}

async fn of_kind<K: SetObject>(
    client: Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<String> {
    let sets: Api<K> = Api::namespaced(client.clone(), namespace);
    let what = format!("get {} {namespace}/{name}", K::KIND.name());
    let object = bounded(what, sets.get(name)).await?;
    let set = object.set();
    let prefix = format!("{name}-");
    let all = ListParams::default();

    let pods: Api<core::Pod> = Api::namespaced(client.clone(), namespace);
    let pods = bounded("list pods", pods.list(&all)).await?;
    let pods = pods.iter().map(Pod::from);
    let pods = pods
        .filter(|p| set.ordinal(&p.name).is_some())
        .map(Arc::new);

    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claims = bounded("list claims", claims.list(&all)).await?;
    let claims: BTreeMap<String, Arc<Claim>> = (claims.iter())
        .map(|c| (c.name_any(), Arc::new(Claim::from(c))))
        .collect();

    let revisions: Api<ControllerRevision> = Api::namespaced(client.clone(), namespace);
    let revisions = bounded("list revisions", revisions.list(&all)).await?;
    let revisions = revisions.iter().map(Revision::from).map(Arc::new);

    let volumes: Api<Volume> = Api::all(client);
    let volumes = bounded("list volumes", volumes.list(&all)).await;
    let volumes = volumes.context("volumes tell why claims wait")?;
    let view = View {
        pods: pods.collect(),
        claim_waits: volume_waits(&volumes.items, namespace),
        claims,
        revisions: revisions.filter(|r| r.name.starts_with(&prefix)).collect(),
        refusals: BTreeMap::new(),
        template_check: None,
        normal_form: None,
        memory: Memory::default(),
        now: Timestamp::now(),
        set,
    };
    let mut text = String::new();
    if let Some(other) = object.competing() {
        let (manager, at) = (other.manager, other.at);
        writeln!(
            text,
            "note: {manager} last wrote the status at {at}; where that is no controller of the past, a running Berth stands down"
        )?;
    }
    text.push_str(&describe(&view, &plan(&view)));
    // What only the running controller knows (refusals, claims without a place)
    // stands in what it last published.
    for condition in &view.set.status.conditions {
        let message = condition.message.replace('\n', "\n    ");
        writeln!(
            text,
            "published: {}={} ({}): {message}",
            condition.type_, condition.status, condition.reason
        )?;
    }
    Ok(text)
}

/// Why claims of a namespace wait, from their volumes.
fn volume_waits(volumes: &[Volume], namespace: &str) -> BTreeMap<String, ClaimWait> {
    let here = volumes
        .iter()
        .filter(|v| v.spec.claim.namespace == namespace);
    here.filter_map(|volume| {
        let status = volume.status.as_ref()?;
        let stuck = matches!(
            status.phase,
            VolumePhase::NoRoom | VolumePhase::Failed | VolumePhase::Lost
        );
        let message = status.message.clone().filter(|_| stuck)?;
        let why = match status.phase {
            VolumePhase::NoRoom => ClaimWait::no_room(message),
            _ => message.into(),
        };
        Some((volume.spec.claim.name.clone(), why))
    })
    .collect()
}
