//! The writes for pools: Pool objects and the labels of nodes.

use berth_api::{Pool, PoolSpec, names};
use berth_plan::{pools, target::Target};
use kube::{Api, api::Patch};
use serde_json::{Value, json};

use super::node;
use super::write::{Done, Failure, Observed, conditional, patch, post};
use crate::context::{Ctx, bounded};

/// Carries out a write about a pool; `there` is its object, if it exists.
pub(super) async fn apply(ctx: &Ctx, write: pools::Write, there: Option<Target>) -> Done {
    let pools: Api<Pool> = Api::all(ctx.client.clone());
    match write {
        pools::Write::Create { id } => {
            let pool = Pool::new(&id, PoolSpec::default());
            match bounded(format!("create Pool {id}"), pools.create(&post(), &pool)).await {
                Ok(pool) => Ok(vec![Observed::Pool(Box::new(pool))]),
                Err(error) if error.is_already_exists() => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
        pools::Write::Status { id, status, .. } => {
            // Conditional, so that each grant follows from the grant before it.
            let Some(there) = there else {
                return Err(Failure::Stale(format!("Pool {id} is gone")));
            };
            let mut change = json!({"status": status});
            // A field that is absent must be removed: a merge patch needs its key for that,
            // with null, and indexing a missing key inserts it.
            for key in ["node", "path", "filesystem", "capacity", "reserved"] {
                let _ = &mut change["status"][key];
            }
            let (params, body) = (patch(), conditional(&there, change));
            let call = pools.patch_status(&id, &params, &body);
            let pool = bounded(format!("patch status of Pool {id}"), call).await?;
            Ok(vec![Observed::Pool(Box::new(pool))])
        }
        pools::Write::Labels { node, set, remove } => {
            let nodes = node::api(ctx.client.clone());
            let set = set.into_iter().map(|k| (k, json!(names::POOL_LABEL_VALUE)));
            let remove = remove.into_iter().map(|k| (k, Value::Null));
            let labels: serde_json::Map<_, _> = set.chain(remove).collect();
            let body = Patch::Merge(json!({"metadata": {"labels": labels}}));
            let params = patch();
            let call = nodes.patch(&node, &params, &body);
            match bounded(format!("label Node {node}"), call).await {
                Ok(node) => Ok(vec![Observed::Node(Box::new(node))]),
                Err(error) if error.is_not_found() => Ok(Vec::new()),
                Err(error) => Err(error.into()),
            }
        }
    }
}
