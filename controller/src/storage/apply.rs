//! The writes. Each is safe when it lands late or twice: made under a name that
//! follows from the claim's UID, or conditional on UID and resourceVersion.

use super::{
    capacity, pools, snapshots, volumes,
    write::{Done, Write},
};
use crate::context::Ctx;

/// Carries out a write.
pub(super) async fn apply(ctx: &Ctx, write: Write) -> Done {
    match write {
        Write::Volume(action) => volumes::apply(ctx, action).await,
        Write::Snapshot(action) => snapshots::apply::apply(ctx, action).await,
        Write::Pool { write, there } => pools::apply(ctx, write, there).await,
        Write::Capacity { wanted, there } => capacity::apply(ctx, *wanted, there).await,
        Write::DropCapacity(object) => capacity::delete(ctx, &object).await,
    }
}
