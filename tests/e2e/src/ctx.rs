//! One cluster with Berth on it, as the steps see it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use berth_api::{DRIVER, Volume, names};
use berth_cluster::Cluster;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    kubectl::Kubectl,
    wait::{Seen, check, until},
};

/// Namespace that Berth runs in.
pub const SYSTEM: &str = "berth-system";

/// Clients of one cluster.
#[derive(Clone)]
pub struct Ctx {
    /// Typed access.
    pub client: Client,
    /// What a user would type.
    pub kubectl: Kubectl,
    /// The environment in which `docker` means the nodes' engine, where they are
    /// containers of this machine.
    engine: Vec<(String, String)>,
}

impl Ctx {
    /// Connects with a kubectl and its kubeconfig.
    pub async fn connect(kubectl: Kubectl) -> Result<Self> {
        let file = kube::config::Kubeconfig::read_from(kubectl.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            kubectl,
            engine: Vec::new(),
        })
    }

    /// The same of a cluster of the rig, whose nodes can be looked into.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let kubectl = Kubectl::new(cluster.kubectl_path(), cluster.kubeconfig());
        Ok(Self {
            engine: cluster.env(),
            ..Self::connect(kubectl).await?
        })
    }

    /// Makes a namespace that allows any pod.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"berth.dev/test": "true"}},
        }))?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        // Pods are refused until the namespace has its default account.
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.client.clone(), name);
        until(&format!("the default account of {name}"), async || {
            let found = accounts.get_opt("default").await?;
            check(found.is_some(), || "no account yet".into())
        })
        .await
    }

    /// Deletes a namespace and waits until it and the PVs of its claims are gone.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        if let Err(error) = namespaces.delete(name, &DeleteParams::default()).await
            && !matches!(&error, kube::Error::Api(status) if status.is_not_found())
        {
            return Err(error.into());
        }
        until(&format!("namespace {name} to be gone"), async || {
            let left = namespaces.get_opt(name).await?;
            check(left.is_none(), || format!("{:?}", left.map(|n| n.status)))
        })
        .await?;
        until(&format!("the volumes of {name} to be gone"), async || {
            let left: Vec<_> = self
                .pvs()
                .await?
                .into_iter()
                .filter(|pv| {
                    let spec = pv.spec.as_ref();
                    let claim = spec.and_then(|s| s.claim_ref.as_ref());
                    claim.and_then(|c| c.namespace.as_deref()) == Some(name)
                        && spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref())
                            == Some("Delete")
                })
                .filter_map(|pv| pv.metadata.name)
                .collect();
            check(left.is_empty(), || left.join(", "))
        })
        .await
    }

    /// Applies one object to a namespace.
    pub async fn apply(&self, namespace: &str, object: &Value) -> Result<()> {
        let text = object.to_string();
        self.kubectl
            .run_with_input(&["-n", namespace, "apply", "-f", "-"], &text)
            .await?;
        Ok(())
    }

    /// Pods of a namespace.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Claims of a namespace.
    pub fn claims(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Volumes of Berth.
    pub fn volumes(&self) -> Api<Volume> {
        Api::all(self.client.clone())
    }

    /// PVs of this driver.
    pub async fn pvs(&self) -> Result<Vec<PersistentVolume>> {
        let all: Api<PersistentVolume> = Api::all(self.client.clone());
        let mut items = all.list(&ListParams::default()).await?.items;
        items.retain(|pv| {
            let csi = pv.spec.as_ref().and_then(|s| s.csi.as_ref());
            csi.is_some_and(|csi| csi.driver == DRIVER)
        });
        Ok(items)
    }

    /// Names of the nodes that carry an agent, sorted.
    pub async fn storage_nodes(&self) -> Result<Vec<String>> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let list = nodes
            .list(&ListParams::default().labels(names::TOPOLOGY_NODE))
            .await?;
        let mut names: Vec<_> = list
            .items
            .into_iter()
            .filter_map(|n| n.metadata.name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Runs `berth-agent <args>` on a node, in the agent's own container.
    pub async fn agent(&self, node: &str, args: &[&str]) -> Result<String> {
        let pod = self.agent_pod(node).await?;
        let line = [
            "-n",
            SYSTEM,
            "exec",
            &pod,
            "-c",
            "agent",
            "--",
            "berth-agent",
        ];
        self.kubectl.run(&[&line[..], args].concat()).await
    }

    /// Runs a program on a node, as a person would who looks at its pools: the agent's
    /// image has none.
    pub async fn on_node(&self, node: &str, program: &[&str]) -> Result<String> {
        self.docker(&[&["exec", node][..], program].concat()).await
    }

    /// Runs `docker` with the nodes' engine, where they are containers of this machine.
    pub async fn docker(&self, args: &[&str]) -> Result<String> {
        let output = Command::new("docker")
            .envs(self.engine.iter().map(|(name, value)| (name, value)))
            .args(args)
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot start docker")?;
        ensure!(
            output.status.success(),
            "docker {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Name of the agent's pod on a node.
    pub async fn agent_pod(&self, node: &str) -> Result<String> {
        let params = ListParams::default()
            .labels("app.kubernetes.io/name=berth-agent")
            .fields(&format!("spec.nodeName={node}"));
        let pods = self.pods(SYSTEM).list(&params).await?;
        let running = pods
            .items
            .into_iter()
            .find(|p| p.metadata.deletion_timestamp.is_none());
        running
            .and_then(|p| p.metadata.name)
            .with_context(|| format!("no agent pod runs on node {node}"))
    }

    /// Waits until these pods are ready, and returns them by name.
    pub async fn wait_ready(&self, ns: &str, names: &[&str]) -> Result<BTreeMap<String, Pod>> {
        until(
            &format!("pods {} of {ns} to be ready", names.join(", ")),
            async || {
                let all = self.pods(ns).list(&ListParams::default()).await?;
                let mut found = BTreeMap::new();
                let mut unready = Vec::new();
                for name in names {
                    match all
                        .items
                        .iter()
                        .find(|p| p.metadata.name.as_deref() == Some(name))
                    {
                        Some(pod) if is_ready(pod) => {
                            found.insert((*name).to_owned(), pod.clone());
                        }
                        Some(pod) => unready.push(format!("{name}: {}", why_unready(pod))),
                        None => unready.push(format!("{name}: absent")),
                    }
                }
                Ok(if unready.is_empty() {
                    Seen::Done(found)
                } else {
                    Seen::NotYet(unready.join("; "))
                })
            },
        )
        .await
    }

    /// Waits until a namespace has exactly these pods, terminating ones included.
    pub async fn wait_only(&self, ns: &str, names: &[&str]) -> Result<()> {
        until(
            &format!("exactly the pods [{}] in {ns}", names.join(", ")),
            async || {
                let all = self.pods(ns).list(&ListParams::default()).await?;
                let mut found: Vec<_> = all
                    .items
                    .into_iter()
                    .filter_map(|p| p.metadata.name)
                    .collect();
                found.sort();
                check(found == names, || found.join(", "))
            },
        )
        .await
    }

    /// Scales a set through its scale subresource.
    pub async fn scale(&self, ns: &str, set: &str, replicas: i32) -> Result<()> {
        let replicas = format!("--replicas={replicas}");
        self.kubectl
            .run(&["-n", ns, "scale", set, &replicas])
            .await?;
        Ok(())
    }

    /// The Volume of a claim.
    pub async fn volume_of(&self, ns: &str, claim: &str) -> Result<Volume> {
        let claim = self.claims(ns).get(claim).await?;
        let uid = claim.metadata.uid.context("a stored claim has a UID")?;
        Ok(self.volumes().get(&names::volume_name(&uid)).await?)
    }

    /// Sends a request to a pod through the API server's proxy.
    pub async fn pod_proxy(
        &self,
        method: &str,
        ns: &str,
        pod_and_port: &str,
        body: &str,
    ) -> Result<String> {
        let uri = format!("/api/v1/namespaces/{ns}/pods/{pod_and_port}/proxy/");
        self.raw(method, &uri, body).await
    }

    /// Sends any request to the API server.
    pub async fn raw(&self, method: &str, uri: &str, body: &str) -> Result<String> {
        let request = http::Request::builder()
            .method(method)
            .uri(uri)
            .body(body.as_bytes().to_vec())?;
        Ok(self.client.request_text(request).await?)
    }
}

/// Whether kubelet says that the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    pod.metadata.deletion_timestamp.is_none()
        && conditions.is_some_and(|list| {
            list.iter()
                .any(|c| c.type_ == "Ready" && c.status == "True")
        })
}

/// The node that a pod is on.
pub fn node_of(pod: &Pod) -> String {
    pod.spec
        .as_ref()
        .and_then(|s| s.node_name.clone())
        .unwrap_or_default()
}

/// The UID of a pod.
pub fn uid_of(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn why_unready(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let messages: Vec<_> = status
        .conditions
        .unwrap_or_default()
        .into_iter()
        .filter(|c| c.status != "True")
        .filter_map(|c| c.message.or(c.reason))
        .collect();
    let waiting: Vec<_> = status
        .container_statuses
        .unwrap_or_default()
        .into_iter()
        .filter_map(|c| {
            c.state
                .and_then(|s| s.waiting)
                .and_then(|w| w.message.or(w.reason))
        })
        .collect();
    format!(
        "{} {} {}",
        status.phase.unwrap_or_default(),
        messages.join(", "),
        waiting.join(", ")
    )
}
