//! The writes of a volume's life.

use std::collections::BTreeMap;

use berth_api::{Bytes, ClaimRef, Volume, names};
use berth_plan::{
    target::Target,
    volumes::{Action, Proof, claim, pv},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Preconditions},
};
use serde_json::{Value, json};

use super::{
    proof,
    write::{Done, Failure, Observed, conditional, gone, if_same, patch, post},
};
use crate::context::{CallError, Ctx, bounded};

/// Carries out an action about a volume.
pub(super) async fn apply(ctx: &Ctx, action: Action) -> Done {
    let volumes: Api<Volume> = Api::all(ctx.client.clone());
    let pvs: Api<PersistentVolume> = Api::all(ctx.client.clone());
    match action {
        Action::CreateVolume(volume) => {
            proof::prove(ctx, &volume).await?;
            create_volume(&volumes, *volume).await
        }
        Action::Adopt { volume, pv } => {
            // A PV that a cache still shows must not bring its volume back.
            let name = &pv.name;
            let call = format!("get PersistentVolume {name}");
            let live = bounded(call, pvs.get_opt(name)).await?;
            if live.is_none_or(|live| live.uid() != pv.uid) {
                return Err(Failure::Stale(format!("PersistentVolume {name} is gone")));
            }
            create_volume(&volumes, *volume).await
        }
        Action::Expose { volume, mark, pv } => expose(&volumes, &pvs, &volume, mark, &pv).await,
        Action::Follow {
            volume,
            claim,
            owner,
            pv,
        } => {
            bound(ctx, &pvs, &claim, &pv).await?;
            let labels: BTreeMap<_, _> = pv::labels(&claim, owner.as_ref()).into();
            let spec = json!({"claim": claim, "owner": owner, "bound": volume.uid});
            let change = json!({"metadata": {"labels": labels}, "spec": spec});
            patch_volume(&volumes, &volume, change).await
        }
        Action::MoveTo { volume, node } => {
            patch_volume(&volumes, &volume, json!({"spec": {"node": node}})).await
        }
        Action::Resize { volume, size } => {
            patch_volume(&volumes, &volume, json!({"spec": {"size": Bytes(size)}})).await
        }
        Action::Erase { volume, proof } => erase(ctx, &volumes, &pvs, &volume, proof).await,
        Action::DropVolume { volume, .. } => delete_volume(&volumes, &volume).await,
        Action::Reschedule {
            volume,
            erase: made,
            claim,
            ..
        } => {
            let mut observed = match made {
                true => erase(ctx, &volumes, &pvs, &volume, Proof::NeverExposed).await?,
                false => delete_volume(&volumes, &volume).await?,
            };
            if let Some(claim) = claim {
                observed.extend(select(ctx, &claim, None).await?);
            }
            Ok(observed)
        }
        Action::Select { claim, node } => select(ctx, &claim, node.as_deref()).await,
        Action::DeletePv { pv } => {
            let params = DeleteParams::default().preconditions(Preconditions {
                uid: pv.uid,
                resource_version: None,
            });
            let call = pvs.delete(&pv.name, &params);
            gone(bounded(format!("delete PersistentVolume {}", pv.name), call).await)
        }
        Action::DropFinalizer { pv, others } => {
            let change = json!({"metadata": {"finalizers": others}});
            gone(patch_pv(&pvs, &pv, change).await)
        }
        Action::PvCapacity { pv, size } => {
            let change = json!({"spec": {"capacity": {"storage": Bytes(size)}}});
            let pv = patch_pv(&pvs, &pv, change).await?;
            Ok(vec![Observed::Pv(Box::new(pv))])
        }
        Action::ClaimResizing {
            claim,
            size,
            how,
            conditions,
        } => {
            let status = json!({
                "allocatedResources": {"storage": size},
                "allocatedResourceStatuses": {"storage": how.name()},
                "conditions": dated(conditions),
            });
            claim_status(ctx, &claim, status).await
        }
        Action::ClaimCapacity {
            claim,
            size,
            conditions,
        } => {
            let status = json!({
                "capacity": {"storage": Bytes(size)},
                "allocatedResourceStatuses": {"storage": null},
                "conditions": dated(conditions),
            });
            claim_status(ctx, &claim, status).await
        }
    }
}

/// Conditions as they are written: what is new begins now.
fn dated(
    mut conditions: Vec<PersistentVolumeClaimCondition>,
) -> Vec<PersistentVolumeClaimCondition> {
    for condition in &mut conditions {
        let now = || Time(Timestamp::now());
        condition.last_transition_time.get_or_insert_with(now);
    }
    conditions
}

async fn claim_status(ctx: &Ctx, claim: &Target, status: Value) -> Done {
    let (api, name) = (claim_api(ctx, claim), &claim.name);
    let (params, body) = (patch(), conditional(claim, json!({"status": status})));
    let call = api.patch_status(name, &params, &body);
    let claim = bounded(format!("patch status of claim {name}"), call).await?;
    Ok(vec![Observed::Claim(Box::new(claim))])
}

async fn patch_volume(api: &Api<Volume>, volume: &Target, change: Value) -> Done {
    let (params, body) = (patch(), conditional(volume, change));
    let call = api.patch(&volume.name, &params, &body);
    let volume = bounded(format!("patch Volume {}", volume.name), call).await?;
    Ok(vec![Observed::Volume(Box::new(volume))])
}

async fn patch_pv(
    api: &Api<PersistentVolume>,
    pv: &Target,
    change: Value,
) -> Result<PersistentVolume, CallError> {
    let (params, body) = (patch(), conditional(pv, change));
    let call = api.patch(&pv.name, &params, &body);
    bounded(format!("patch PersistentVolume {}", pv.name), call).await
}

async fn delete_volume(api: &Api<Volume>, volume: &Target) -> Done {
    let params = if_same(volume);
    let call = api.delete(&volume.name, &params);
    gone(bounded(format!("delete Volume {}", volume.name), call).await)
}

async fn create_volume(api: &Api<Volume>, volume: Volume) -> Done {
    let name = volume.name_any();
    match bounded(
        format!("create Volume {name}"),
        api.create(&post(), &volume),
    )
    .await
    {
        Ok(volume) => Ok(vec![Observed::Volume(Box::new(volume))]),
        // An earlier or another's intent for the same claim: it stands.
        Err(error) if error.is_already_exists() => {
            let volume = bounded(format!("get Volume {name}"), api.get(&name)).await?;
            Ok(vec![Observed::Volume(Box::new(volume))])
        }
        Err(error) => Err(error.into()),
    }
}

async fn expose(
    volumes: &Api<Volume>,
    pvs: &Api<PersistentVolume>,
    volume: &Target,
    mark: bool,
    pv: &PersistentVolume,
) -> Done {
    let name = &volume.name;
    let mut put = Vec::new();
    if mark {
        let marks = json!({"spec": {"exposed": true, "bound": volume.uid}});
        put.extend(patch_volume(volumes, volume, marks).await?);
    }
    let wanted = pv::claim_ref(pv);
    match bounded(
        format!("create PersistentVolume {name}"),
        pvs.create(&post(), pv),
    )
    .await
    {
        Ok(pv) => put.push(Observed::Pv(Box::new(pv))),
        Err(error) if error.is_already_exists() => {
            let call = format!("get PersistentVolume {name}");
            let there = bounded(call, pvs.get(name)).await?;
            if pv::handle(&there) != Some(name) || pv::claim_ref(&there) != wanted {
                return Err(Failure::Stale(format!(
                    "another PersistentVolume has the name {name}; delete it"
                )));
            }
            put.push(Observed::Pv(Box::new(there)));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(put)
}

/// Reads a binding again from the API server: a volume is known by a claim, and may be
/// copied and erased as its data, only while both sides say so.
async fn bound(
    ctx: &Ctx,
    pvs: &Api<PersistentVolume>,
    wanted: &ClaimRef,
    pv: &Target,
) -> Result<(), Failure> {
    let call = format!("get PersistentVolume {}", pv.name);
    let live = bounded(call, pvs.get_opt(&pv.name)).await?;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &wanted.namespace);
    let call = format!("get claim {}/{}", wanted.namespace, wanted.name);
    let claim = bounded(call, claims.get_opt(&wanted.name)).await?;
    let is_bound = live.zip(claim).is_some_and(|(live, claim)| {
        live.uid() == pv.uid && pv::is_of(wanted, &claim) && pv::is_bound(&live, &claim)
    });
    match is_bound {
        true => Ok(()),
        false => Err(Failure::Stale(format!(
            "PersistentVolume {} and claim {}/{} are not bound to each other any more",
            pv.name, wanted.namespace, wanted.name
        ))),
    }
}

/// The only place that orders a volume's data to be erased. What the decision took from a
/// cache is read again from the API server first, and the write is conditional on the
/// Volume being unchanged.
async fn erase(
    ctx: &Ctx,
    volumes: &Api<Volume>,
    pvs: &Api<PersistentVolume>,
    volume: &Target,
    proof: Proof,
) -> Done {
    if let Proof::ReleasedPv { pv, uid } = proof {
        let call = format!("get PersistentVolume {pv}");
        let live = bounded(call, pvs.get_opt(&pv)).await?;
        let live = live
            .filter(|live| live.uid().as_ref() == Some(&uid))
            .ok_or_else(|| Failure::Stale(format!("PersistentVolume {pv} is gone")))?;
        let spec = live.spec.clone().unwrap_or_default();
        let phase = live.status.as_ref().and_then(|s| s.phase.as_deref());
        let released = phase == Some("Released") || live.metadata.deletion_timestamp.is_some();
        if spec.persistent_volume_reclaim_policy.as_deref() != Some("Delete") || !released {
            let text = format!("PersistentVolume {pv} must not be erased any more");
            return Err(Failure::Stale(text));
        }
        let claim = pv::claim_ref(&live)
            .ok_or_else(|| Failure::Stale(format!("PersistentVolume {pv} has no claim")))?;
        let api: Api<PersistentVolumeClaim> = Api::namespaced(ctx.client.clone(), &claim.namespace);
        let call = format!("get claim {}/{}", claim.namespace, claim.name);
        let there = bounded(call, api.get_opt(&claim.name)).await?;
        if there.is_some_and(|there| claim::uid(&there) == claim.uid) {
            let text = format!("claim {}/{} is still there", claim.namespace, claim.name);
            return Err(Failure::Stale(text));
        }
    }
    let erased = patch_volume(volumes, volume, json!({"spec": {"state": "Deleted"}})).await?;
    tracing::info!(volume = %volume.name, "data is to be erased");
    Ok(erased)
}

fn claim_api(ctx: &Ctx, claim: &Target) -> Api<PersistentVolumeClaim> {
    let namespace = claim.namespace.as_deref().unwrap_or_default();
    Api::namespaced(ctx.client.clone(), namespace)
}

async fn select(ctx: &Ctx, claim: &Target, node: Option<&str>) -> Done {
    let (api, name) = (claim_api(ctx, claim), &claim.name);
    let annotations = json!({names::SELECTED_NODE: node});
    let body = conditional(claim, json!({"metadata": {"annotations": annotations}}));
    let params = patch();
    let call = api.patch(name, &params, &body);
    let claim = bounded(format!("patch claim {name}"), call).await?;
    Ok(vec![Observed::Claim(Box::new(claim))])
}
