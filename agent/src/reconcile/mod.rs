//! Keeps what the API says and what the disks hold together: pure decisions
//! ([`decide`], [`report`]) and the thin shells that carry them out.

use std::time::Duration;

use berth_kube::{CallError, bounded_by};

mod convert;
pub mod decide;
mod events;
pub mod node_storage;
mod orphans;
mod reconciler;
pub mod report;
pub mod snapshots;
mod summary;
pub mod volumes;

/// How long one request to the API server may take. A write that takes longer
/// may still land: it carries the resource version that it was decided on, so
/// it lands late only if nothing else happened.
const REQUEST: Duration = Duration::from_secs(20);

/// Bounds one request; `call` says what it is, for the error.
async fn within<T>(
    call: impl Into<String>,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    bounded_by(REQUEST, call, request).await
}
