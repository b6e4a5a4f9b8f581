//! Storage: pools, claims, volumes and capacity.

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

/// Where the claim would be placed now, and why.
///
/// # Errors
/// The claim cannot be read.
pub async fn explain(_client: Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    anyhow::bail!("not built yet: {namespace}/{name}")
}
