//! The writes for CSIStorageCapacity: free space as the scheduler sees it.

use berth_plan::target::Target;
use k8s_openapi::{
    api::{apps::v1::Deployment, storage::v1::CSIStorageCapacity},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{ObjectMeta, Patch},
};
use serde_json::json;

use super::write::{Done, Observed, gone, if_same, patch, post};
use crate::context::{Ctx, bounded};

/// Label by which the capacity objects of a driver are found.
pub(super) const DRIVER_LABEL: &str = "csi.storage.k8s.io/drivername";

/// Makes the object, or brings it up to date.
pub(super) async fn apply(ctx: &Ctx, wanted: CSIStorageCapacity, there: bool) -> Done {
    let api: Api<CSIStorageCapacity> =
        Api::namespaced(ctx.client.clone(), &wanted.namespace().unwrap_or_default());
    let name = wanted.name_any();
    let text = format!("write CSIStorageCapacity {name}");
    let object = if there {
        let body = json!({
            "metadata": {"labels": wanted.metadata.labels, "ownerReferences": wanted.metadata.owner_references},
            "capacity": wanted.capacity,
            "maximumVolumeSize": wanted.maximum_volume_size,
        });
        let params = patch();
        bounded(text, api.patch(&name, &params, &Patch::Merge(body))).await?
    } else {
        bounded(text, api.create(&post(), &wanted)).await?
    };
    Ok(vec![Observed::Capacity(Box::new(object))])
}

/// Removes an object that nobody needs.
pub(super) async fn delete(ctx: &Ctx, object: &Target) -> Done {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    let api: Api<CSIStorageCapacity> = Api::namespaced(ctx.client.clone(), namespace);
    let params = if_same(object);
    let call = api.delete(&object.name, &params);
    gone(bounded(format!("delete CSIStorageCapacity {}", object.name), call).await)
}

/// The owner of what must go with the controller's Deployment.
pub(super) async fn deployment_owner(ctx: &Ctx) -> Option<OwnerReference> {
    let api: Api<Deployment> = Api::namespaced(ctx.client.clone(), &ctx.namespace);
    let name = &ctx.deployment;
    match bounded(format!("get Deployment {name}"), api.get_opt(name)).await {
        Ok(found) => found.and_then(|d| d.controller_owner_ref(&())),
        Err(error) => {
            tracing::warn!(
                error = error.chain(),
                "capacity objects will not go with the Deployment"
            );
            None
        }
    }
}

/// Metadata of a capacity object.
pub(super) fn metadata(ctx: &Ctx, name: String, owner: Option<&OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(ctx.namespace.clone()),
        labels: Some(
            [
                (DRIVER_LABEL, berth_api::DRIVER),
                ("csi.storage.k8s.io/managed-by", "berth-controller"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        ),
        owner_references: owner.map(|o| {
            vec![OwnerReference {
                controller: None,
                block_owner_deletion: None,
                ..o.clone()
            }]
        }),
        ..ObjectMeta::default()
    }
}
