//! Keeps what the API says and what the disks hold together: pure decisions
//! ([`decide`], [`report`]) and the thin shells that carry them out.

use std::time::Duration;

pub mod decide;
mod events;
pub mod node_storage;
pub mod report;
pub mod snapshots;
mod telling;
pub mod volumes;
mod words;

/// How long one request to the API server may take. A write that takes longer
/// may still land: it carries the resource version that it was decided on, so
/// it lands late only if nothing else happened.
const REQUEST: Duration = Duration::from_secs(20);

/// How long one watch lasts, in seconds: a dead connection is noticed by then.
const WATCH_SECONDS: u32 = 60;

/// Why a request to the API server was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server's answer, or none.
    #[error(transparent)]
    Kube(Box<kube::Error>),
    /// It took too long.
    #[error("the API server did not answer within {} s", REQUEST.as_secs())]
    Timeout,
}

impl ApiError {
    /// Somebody else wrote the object in between: look again.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.is_conflict()))
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.is_not_found()))
    }

    fn is_already_exists(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.is_already_exists()))
    }
}

/// Bounds one request.
async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiError> {
    match tokio::time::timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(|error| ApiError::Kube(Box::new(error))),
        Err(_) => Err(ApiError::Timeout),
    }
}
