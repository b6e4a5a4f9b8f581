//! Sizes are limits.

use anyhow::{Result, ensure};
use serde_json::json;

use super::{
    data::{bound_capacity, claim_manifest, class_manifest},
    refusal::user_of,
};
use crate::{
    ctx::Ctx,
    sets::SetBuilder,
    wait::{check, until},
};

/// A full claim stops at its size while its neighbour in the same pool writes on.
pub async fn full_claim_stops(ctx: &Ctx, ns: &str, node: &str) -> Result<()> {
    // Three replicas on two pools: at least two share one.
    let set = SetBuilder::new("web", 3)
        .claim("data", "64Mi")
        .on_node(node)
        .parallel();
    ctx.apply(ns, &set.build()).await?;
    let names = ["web-0", "web-1", "web-2"];
    ctx.wait_ready(ns, &names).await?;
    let mut pools = Vec::new();
    for name in names {
        pools.push(ctx.volume_of(ns, &format!("data-{name}")).await?.spec.pool);
    }
    let (full, neighbour) = [(0, 1), (0, 2), (1, 2)]
        .into_iter()
        .find(|(a, b)| pools[*a] == pools[*b])
        .map(|(a, b)| (names[a], names[b]))
        .ok_or_else(|| anyhow::anyhow!("three volumes on two pools are in {pools:?}"))?;
    // Incompressible data, far beyond the size.
    let fill = "dd if=/dev/urandom of=/data/fill bs=1M count=200 2>&1; sync; true";
    let output = ctx.kubectl.shell(ns, full, fill).await?;
    ensure!(
        output.contains("No space left") || output.contains("quota exceeded"),
        "writing 200 MiB to a claim of 64 MiB ended with {output:?}"
    );
    let size: u64 = ctx
        .kubectl
        .shell(ns, full, "stat -c %s /data/fill")
        .await?
        .trim()
        .parse()?;
    ensure!(
        (32 << 20..=64 << 20).contains(&size),
        "a claim of 64 MiB took {size} bytes before it was full"
    );
    let line = "dd if=/dev/urandom of=/data/ok bs=1M count=16 2>&1 && sync /data/ok && stat -c %s /data/ok";
    let output = ctx.kubectl.shell(ns, neighbour, line).await?;
    ensure!(
        output.trim().ends_with("16777216"),
        "the neighbour's write ended with {output:?}"
    );
    Ok(())
}

/// A size below the backend's minimum is rounded up, and the PV shows it.
pub async fn small_claim_is_rounded_up(ctx: &Ctx, ns: &str) -> Result<()> {
    ctx.apply(ns, &SetBuilder::new("tiny", 1).claim("data", "1Mi").build())
        .await?;
    ctx.wait_ready(ns, &["tiny-0"]).await?;
    let capacity = bound_capacity(ctx, ns, "data-tiny-0").await?;
    let enforced = ctx
        .volume_of(ns, "data-tiny-0")
        .await?
        .status
        .and_then(|s| s.size);
    ensure!(capacity.0 > 1 << 20, "the claim shows {capacity}");
    ensure!(
        enforced == Some(capacity),
        "the PV shows {capacity}, the volume has {enforced:?}"
    );
    Ok(())
}

/// A claim grows while it is in use. On a subvolume: the ext4 in an image grows in the
/// virtual machine (`berth-qemu`), since here nobody has the right to resize a mounted one.
pub async fn claim_grows(ctx: &Ctx, ns: &str) -> Result<()> {
    let class = format!("grow-{ns}");
    let parameters = json!({"backend": "btrfs"});
    ctx.apply(ns, &class_manifest(&class, parameters, "Delete"))
        .await?;
    ctx.apply(ns, &claim_manifest("grow", &class, "32Mi"))
        .await?;
    ctx.apply(ns, &user_of("grow")).await?;
    ctx.wait_ready(ns, &["user-of-grow"]).await?;
    let patch = r#"{"spec":{"resources":{"requests":{"storage":"96Mi"}}}}"#;
    ctx.kubectl
        .run(&["-n", ns, "patch", "pvc", "grow", "-p", patch])
        .await?;
    until("the claim to show 96Mi", async || {
        let capacity = bound_capacity(ctx, ns, "grow").await?;
        check(capacity.0 == 96 << 20, || capacity.to_string())
    })
    .await?;
    let line = "dd if=/dev/urandom of=/data/more bs=1M count=64 2>&1 && sync /data/more && stat -c %s /data/more";
    let output = ctx.kubectl.shell(ns, "user-of-grow", line).await?;
    ensure!(
        output.trim().ends_with("67108864"),
        "64 MiB in a grown claim ended with {output:?}"
    );
    super::backends::delete_class(ctx, &class).await
}
