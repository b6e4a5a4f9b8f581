//! What Berth promises, one function per promise. The demo tells some of them as
//! a story; the tests run all. Each takes a namespace of its own.

pub mod backends;
pub mod claims;
pub mod clients;
pub mod data;
pub mod disruption;
pub mod health;
pub mod limits;
pub mod lives;
pub mod network;
pub mod order;
pub mod place;
pub mod quick_start;
pub mod refusal;
pub mod rival;
pub mod rollout;
pub mod room;
pub mod shapes;
pub mod snapshots;
pub mod tables;
pub mod takeover;
pub mod tenants;
pub mod tokens;

use anyhow::{Result, ensure};

use crate::ctx::Ctx;

/// Writes a line to a file in a pod's volume, and makes it durable.
pub async fn write(ctx: &Ctx, ns: &str, pod: &str, path: &str, text: &str) -> Result<()> {
    ctx.kubectl
        .shell(
            ns,
            pod,
            &format!("printf %s '{text}' > {path} && sync {path}"),
        )
        .await?;
    Ok(())
}

/// Checks that a file in a pod's volume holds a text.
pub async fn expect_file(ctx: &Ctx, ns: &str, pod: &str, path: &str, text: &str) -> Result<()> {
    let found = ctx.kubectl.shell(ns, pod, &format!("cat {path}")).await?;
    ensure!(found == text, "{pod}:{path} holds {found:?}, not {text:?}");
    Ok(())
}
