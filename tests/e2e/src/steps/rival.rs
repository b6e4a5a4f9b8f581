//! Two controllers that act at the same time: what happens when a leader that was thought to
//! be gone is not. The second elects itself by a Lease of its own.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{
    ctx::{Ctx, SYSTEM},
    wait::{check, until},
};

/// The second controller's name, and its Lease's.
const RIVAL: &str = "berth-rival";

/// Starts the second controller, and waits until it leads.
pub async fn start(ctx: &Ctx) -> Result<()> {
    let rules = json!([{
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "resourceNames": [RIVAL], "verbs": ["get", "update"],
    }]);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": RIVAL}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": RIVAL},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": RIVAL},
        "subjects": [{"kind": "ServiceAccount", "name": "berth-controller"}],
    });
    ctx.apply(SYSTEM, &role).await?;
    ctx.apply(SYSTEM, &binding).await?;
    let first = ["-n", SYSTEM, "get", "deploy", "berth-controller", "-o=json"];
    let first: Value = serde_json::from_str(&ctx.kubectl.run(&first).await?)?;
    ctx.apply(SYSTEM, &second(&first)?).await?;
    until("the second controller to lead", async || {
        let lease = ["-n", SYSTEM, "get", "lease", RIVAL];
        let holder = [
            &lease[..],
            &["--ignore-not-found", "-o=jsonpath={.spec.holderIdentity}"],
        ];
        let holder = ctx.kubectl.run(&holder.concat()).await?;
        check(!holder.trim().is_empty(), || {
            "nobody holds its Lease".to_owned()
        })
    })
    .await
}

/// The first controller's Deployment under another name, with another Lease.
fn second(first: &Value) -> Result<Value> {
    let mut spec = first["spec"].clone();
    let labels = json!({"app.kubernetes.io/name": RIVAL});
    spec["replicas"] = json!(1);
    spec["selector"] = json!({"matchLabels": labels});
    spec["template"]["metadata"]["labels"] = labels;
    let container = &mut spec["template"]["spec"]["containers"][0];
    let env = container["env"]
        .as_array_mut()
        .context("the controller has an environment")?;
    env.push(json!({"name": "BERTH_LEASE_NAME", "value": RIVAL}));
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": RIVAL}, "spec": spec,
    }))
}

/// Takes the second controller away.
pub async fn stop(ctx: &Ctx) -> Result<()> {
    let kinds = "deployment,role,rolebinding,lease";
    let line = ["-n", SYSTEM, "delete", kinds, RIVAL, "--ignore-not-found"];
    ctx.kubectl.run(&line).await?;
    Ok(())
}
