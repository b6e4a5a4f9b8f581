//! Sets: the loop that makes pods and claims as the planner says.

use std::sync::Arc;

use kube::Client;

use crate::context::Ctx;

/// Runs until `ctx.shutdown`.
///
/// # Errors
/// What ended it.
pub async fn run(ctx: Arc<Ctx>) -> anyhow::Result<()> {
    ctx.shutdown.cancelled().await;
    Ok(())
}

/// What the planner would do about a set now, with its reasons.
///
/// # Errors
/// The set cannot be read.
pub async fn explain(_client: Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    anyhow::bail!("no planner for sets in this build: {namespace}/{name}")
}
