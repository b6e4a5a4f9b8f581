//! One call to the API server: bounded in time, and an error that keeps an answer
//! apart from silence.

use std::{future::Future, time::Duration};

/// Longest time that one call to the API server may take, where nothing else is said.
/// What takes longer is *unknown*, not failed: it may still land.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A call to the API server that gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error, or could not be reached.
    #[error("{call}: the API server did not do it")]
    Api {
        /// What was requested, with the object's name.
        call: String,
        /// What the client reports.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time. The write may still land.
    #[error("{call}: no answer within {} s; it may still take effect", limit.as_secs())]
    Unknown {
        /// What was requested, with the object's name.
        call: String,
        /// How long the answer was waited for.
        limit: Duration,
    },
}

impl CallError {
    /// The API server's status, where it sent one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Unknown { .. } => None,
        }
    }

    /// The object is not there, or the kind is not installed.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_not_found)
    }

    /// The object changed since it was read, or another has its UID.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(kube::core::Status::is_conflict)
    }

    /// An object of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.status()
            .is_some_and(kube::core::Status::is_already_exists)
    }

    /// The error with its cause, for a log line or an event.
    pub fn chain(&self) -> String {
        match self {
            Self::Api { call, source } => match source.as_ref() {
                kube::Error::Api(status) => format!("{call}: {}", status.message),
                other => format!("{call}: {other}"),
            },
            Self::Unknown { .. } => self.to_string(),
        }
    }
}

/// Runs one call to the API server under [`CALL_TIMEOUT`]; `call` says what it is, for
/// the error.
///
/// # Errors
/// [`CallError`], which keeps an answer apart from silence.
pub async fn bounded<T>(
    call: impl Into<String>,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    bounded_by(CALL_TIMEOUT, call, work).await
}

/// [`bounded`] with another bound.
///
/// # Errors
/// As [`bounded`].
pub async fn bounded_by<T>(
    limit: Duration,
    call: impl Into<String>,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(CallError::Api {
            call: call.into(),
            source: Box::new(source),
        }),
        Err(_) => Err(CallError::Unknown {
            call: call.into(),
            limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn silence_is_not_failure() {
        let silence = std::future::pending::<Result<(), kube::Error>>();
        let limit = Duration::ZERO;
        let error = bounded_by(limit, "get Pod a/b", silence).await;
        let error = error.expect_err("no answer");
        assert!(error.status().is_none() && !error.is_not_found());
        assert_eq!(
            error.chain(),
            "get Pod a/b: no answer within 0 s; it may still take effect"
        );
    }

    #[tokio::test]
    async fn an_answer_keeps_its_status() {
        let status = kube::core::Status {
            code: 404,
            reason: "NotFound".to_owned(),
            message: "pods \"b\" not found".to_owned(),
            ..kube::core::Status::default()
        };
        let answer = async { Err::<(), _>(kube::Error::Api(Box::new(status))) };
        let error = bounded("get Pod a/b", answer).await.expect_err("404");
        assert!(error.is_not_found() && !error.is_conflict());
        assert_eq!(error.chain(), "get Pod a/b: pods \"b\" not found");
    }
}
