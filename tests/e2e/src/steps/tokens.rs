//! What an agent's token is good for: its own node's objects.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use berth_api::{NodeStorage, Volume};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{data::claim_manifest, refusal::user_of};
use crate::{
    ctx::{Ctx, SYSTEM, node_of},
    wait::{check, until},
};

/// One node's agent cannot write another node's objects; a token without a node
/// cannot write any.
pub async fn agent_token_is_bound_to_its_node(ctx: &Ctx, ns: &str) -> Result<()> {
    let nodes = ctx.storage_nodes().await?;
    let node = nodes.first().context("there is a node with pools")?;
    only_its_agent_writes::<NodeStorage>(ctx, node, node).await?;
    ctx.apply(ns, &claim_manifest("mine", "berth", "16Mi"))
        .await?;
    ctx.apply(ns, &user_of("mine")).await?;
    let pods = ctx.wait_ready(ns, &["user-of-mine"]).await?;
    let volume = ctx.volume_of(ns, "mine").await?;
    let name = volume.metadata.name.context("a stored Volume has a name")?;
    only_its_agent_writes::<Volume>(ctx, &name, &node_of(&pods["user-of-mine"])).await
}

/// The status of an object is written by the agent of `node`, and refused to another
/// node's, and to a token without a node.
pub(super) async fn only_its_agent_writes<K>(ctx: &Ctx, name: &str, node: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let nodes = ctx.storage_nodes().await?;
    let mut others = nodes.iter().filter(|other| *other != node);
    let other = others.next().context("there is another node with pools")?;
    let kind = K::kind(&());
    let own = bound_token(ctx, node).await?;
    let account = format!("{kind}-{name}").to_lowercase();
    let renamed = renamed_account(ctx, &account).await?;
    try_write::<K>(ctx, &own, name)
        .await
        .with_context(|| format!("the agent cannot write {kind} {name} of its own node"))?;
    for (what, token) in [
        ("another node's agent", bound_token(ctx, other).await?),
        ("a token without a node", token(ctx, None).await?),
        ("the account of another name and namespace", renamed),
    ] {
        match try_write::<K>(ctx, &token, name).await {
            Ok(()) => bail!("{what} may write {kind} {name}"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(
                    text.contains("ValidatingAdmissionPolicy"),
                    "{what} got {text:?}"
                );
            }
        }
    }
    for kind in ["clusterrolebinding", "serviceaccount"] {
        let delete = ["-n", "default", "delete", kind, &account];
        ctx.kubectl.run(&delete).await?;
    }
    Ok(())
}

/// Writes an object's status with a token and nothing else, as a dry run.
async fn try_write<K>(ctx: &Ctx, token: &str, name: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let view = ["config", "view", "--raw", "-o", "json"];
    let mut config: Value = serde_json::from_str(&ctx.kubectl.run(&view).await?)?;
    for user in config["users"]
        .as_array_mut()
        .context("a kubeconfig lists users")?
    {
        user["user"] = json!({"token": token});
    }
    let file = kube::config::Kubeconfig::from_yaml(&config.to_string())?;
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
    let objects: Api<K> = Api::all(kube::Client::try_from(config)?);
    let patch = json!({"status": {"message": "forged", "agentVersion": "forged"}});
    let dry_run = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    objects
        .patch_status(name, &dry_run, &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The token of an account with the agents' rights that an overlay could have made,
/// used from no node.
async fn renamed_account(ctx: &Ctx, name: &str) -> Result<String> {
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": name},
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "berth-agent",
        },
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    });
    for object in [account, binding] {
        ctx.apply("default", &object).await?;
    }
    let user = format!("--as=system:serviceaccount:default:{name}");
    let can = [
        "auth",
        "can-i",
        "patch",
        "nodestorages.berth.dev",
        "--subresource=status",
        &user,
    ];
    until(&format!("{name} to have the agents' rights"), async || {
        let answer = ctx.kubectl.run(&can).await;
        check(answer.is_ok(), || format!("{answer:?}"))
    })
    .await?;
    let create = ["-n", "default", "create", "token", name];
    Ok(ctx.kubectl.run(&create).await?.trim().to_owned())
}

/// A token as the agent of a node has it.
async fn bound_token(ctx: &Ctx, node: &str) -> Result<String> {
    let pod = ctx.agent_pod(node).await?;
    let uid = ctx.pods(SYSTEM).get(&pod).await?.metadata.uid;
    token(ctx, Some((&pod, &uid.unwrap_or_default()))).await
}

async fn token(ctx: &Ctx, pod: Option<(&str, &str)>) -> Result<String> {
    let mut args = vec!["-n", SYSTEM, "create", "token", "berth-agent"];
    let (name, uid);
    if let Some((pod, pod_uid)) = pod {
        name = format!("--bound-object-name={pod}");
        uid = format!("--bound-object-uid={pod_uid}");
        args.extend(["--bound-object-kind=Pod", &name, &uid]);
    }
    Ok(ctx.kubectl.run(&args).await?.trim().to_owned())
}
