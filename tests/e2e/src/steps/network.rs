//! Names and ways to reach an ordinal.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::{
    ctx::Ctx,
    sets::{SetBuilder, headless_service},
    wait::{check, until},
};

/// Upstream's test image; it carries `dig`.
pub const TOOLS_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// An HTTP server on port 8080 that answers with the pod's name.
const SERVER: &str =
    "mkdir -p /tmp/www && hostname > /tmp/www/index.html && exec httpd -f -p 8080 -h /tmp/www";

fn server_set(name: &str, replicas: i32) -> SetBuilder {
    SetBuilder::new(name, replicas)
        .command(SERVER)
        .container_field("ports", json!([{"containerPort": 8080}]))
        .container_field(
            "readinessProbe",
            json!({"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}),
        )
}

/// A and SRV records of each ordinal, the short name from inside the namespace,
/// and a Service for one pod by its pod-name label.
pub async fn dns(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &headless_service("web", 8080)).await?;
    ctx.apply(ns, &server_set("web", 2).build()).await?;
    ctx.apply(
        ns,
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "only-web-1"},
            "spec": {
                "selector": {berth_api::names::pod::POD_NAME: "web-1"},
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        }),
    )
    .await?;
    let pods = ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    start_tools(ctx, ns).await?;
    expect_records(ctx, ns, "web", &pods.values().collect::<Vec<_>>()).await?;
    for (name, pod) in &pods {
        let line = format!("getent hosts {name}.web");
        let found = ctx.kubectl.shell(ns, "tools", &line).await?;
        ensure!(
            found.starts_with(&ip(pod)),
            "{line} answers {found:?}, the pod is {}",
            ip(pod)
        );
    }
    // The rules of a new Service reach the node a moment after its endpoints.
    until("the Service of web-1 to answer", async || {
        let found = ctx
            .kubectl
            .shell(ns, "tools", "curl -s -m 2 http://only-web-1/")
            .await?;
        check(found.trim() == "web-1", || found)
    })
    .await
}

/// Starts a pod with DNS and HTTP tools, named `tools`.
pub async fn start_tools(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(
        ns,
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tools"},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "tools", "image": TOOLS_IMAGE, "imagePullPolicy": "IfNotPresent",
                    "args": ["pause"],
                }],
            },
        }),
    )
    .await?;
    ctx.wait_ready(ns, &["tools"]).await?;
    Ok(())
}

/// Waits until DNS answers with the A and SRV records of exactly these pods, and
/// returns the lines that it answered with.
pub async fn expect_records(ctx: &Ctx, ns: &str, service: &str, pods: &[&Pod]) -> Result<String> {
    let domain = format!("{service}.{ns}.svc.cluster.local");
    let wanted_a: BTreeSet<_> = pods.iter().map(|p| ip(p)).collect();
    let wanted_srv: BTreeSet<_> = pods
        .iter()
        .map(|p| format!("{}.{domain}.", name(p)))
        .collect();
    until(&format!("A and SRV records of {domain}"), async || {
        let a = ctx
            .kubectl
            .shell(ns, "tools", &format!("dig +short A {domain}"))
            .await?;
        let srv = ctx
            .kubectl
            .shell(ns, "tools", &format!("dig +short SRV {domain}"))
            .await?;
        let found_a: BTreeSet<_> = a.lines().map(str::to_owned).collect();
        let found_srv: BTreeSet<_> = srv
            .lines()
            .filter_map(|l| l.split(' ').next_back())
            .map(str::to_owned)
            .collect();
        Ok(if found_a == wanted_a && found_srv == wanted_srv {
            crate::wait::Seen::Done(srv)
        } else {
            crate::wait::Seen::NotYet(format!("A {found_a:?}, SRV {found_srv:?}"))
        })
    })
    .await
}

/// The pod proxy reaches each ordinal by its name; an ordinary Service reaches
/// any of them.
pub async fn proxy_and_service(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(
        ns,
        &json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "any"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }),
    )
    .await?;
    ctx.apply(ns, &server_set("web", 2).parallel().build())
        .await?;
    ctx.wait_ready(ns, &["web-0", "web-1"]).await?;
    for pod in ["web-0", "web-1"] {
        let found = ctx.pod_proxy("GET", ns, &format!("{pod}:8080"), "").await?;
        ensure!(found.trim() == pod, "the proxy of {pod} answers {found:?}");
    }
    let uri = format!("/api/v1/namespaces/{ns}/services/any:80/proxy/");
    let mut seen = BTreeSet::new();
    until("the Service to reach both pods", async || {
        seen.insert(ctx.raw("GET", &uri, "").await?.trim().to_owned());
        check(seen.len() == 2, || format!("{seen:?}"))
    })
    .await
}

fn ip(pod: &Pod) -> String {
    pod.status
        .as_ref()
        .and_then(|s| s.pod_ip.clone())
        .unwrap_or_default()
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}
