//! Ordinals come and go in order.

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};

use crate::{
    ctx::{Ctx, is_ready},
    sets::SetBuilder,
};

/// What a watch saw of one pod, in the order of the resource versions.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Created(String),
    Ready(String),
    Deleted(String),
}

/// Creation goes up one ready pod at a time, scaling down goes from the top, seen
/// by one watch over all of it.
pub async fn ordered_create_and_reverse_scale_down(ctx: &Ctx, ns: &str) -> Result<()> {
    let pods = ctx.pods(ns);
    let recorder = tokio::spawn(record(pods));
    ctx.apply(ns, &SetBuilder::new("web", 3).claim("data", "32Mi").build())
        .await?;
    ctx.wait_ready(ns, &["web-0", "web-1", "web-2"]).await?;
    ctx.scale(ns, "oset/web", 0).await?;
    ctx.wait_only(ns, &[]).await?;
    let seen = recorder.await??;
    let mut wanted = Vec::new();
    for name in ["web-0", "web-1", "web-2"] {
        wanted.push(Seen::Created(name.into()));
        wanted.push(Seen::Ready(name.into()));
    }
    for name in ["web-2", "web-1", "web-0"] {
        wanted.push(Seen::Deleted(name.into()));
    }
    ensure!(seen == wanted, "the watch saw {seen:?}, not {wanted:?}");
    Ok(())
}

/// Parallel sets create every pod without waiting for any of them.
pub async fn parallel_does_not_wait(ctx: &Ctx, ns: &str) -> Result<()> {
    // Never ready: an ordered set would stop at its first pod.
    let probe = serde_json::json!({"exec": {"command": ["false"]}, "periodSeconds": 1});
    let set = SetBuilder::new("par", 3)
        .parallel()
        .container_field("readinessProbe", probe);
    ctx.apply(ns, &set.build()).await?;
    ctx.wait_only(ns, &["par-0", "par-1", "par-2"]).await?;
    ctx.scale(ns, "oset/par", 1).await?;
    ctx.wait_only(ns, &["par-0"]).await
}

/// Records until three pods have been deleted.
async fn record(pods: Api<Pod>) -> Result<Vec<Seen>> {
    let params = WatchParams::default();
    let mut events = pods.watch(&params, "0").await?.boxed();
    let mut seen = Vec::new();
    let mut add = |what: Seen| {
        if !seen.contains(&what) {
            seen.push(what);
        }
        seen.iter()
            .filter(|s| matches!(s, Seen::Deleted(_)))
            .count()
            == 3
    };
    while let Some(event) = events.try_next().await? {
        let done = match event {
            WatchEvent::Added(pod) => add(Seen::Created(name(&pod))),
            WatchEvent::Modified(pod) if is_ready(&pod) => add(Seen::Ready(name(&pod))),
            WatchEvent::Deleted(pod) => add(Seen::Deleted(name(&pod))),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status).into()),
            _ => false,
        };
        if done {
            return Ok(seen);
        }
    }
    anyhow::bail!("the watch ended early, having seen {seen:?}")
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}
